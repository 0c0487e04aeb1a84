import type { Db } from '../db.ts';
import type { Clock } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import type { Carrier, SmsRequest } from './carrier.ts';
import {
  acceptOutboxMessage,
  findOutboxMessage,
  newestOutboxMessages,
  outboxMessagesBetween,
} from './queries.ts';

/** What a test lets go wrong with one message. `accept_then_time_out`: it is taken, and the answer never comes. */
export type OutboxFault = 'accept_then_time_out' | 'time_out' | 'refuse' | 'busy' | null;

export interface OutboxOptions {
  db: Pick<Db, 'query'>;
  clock: Pick<Clock, 'now'>;
  sealer: Sealer;
  fault?: (request: SmsRequest) => OutboxFault;
  /** Whether lookups are answered. */
  lookupFault?: (messageId: string) => 'time_out' | null;
  /** Whether the list is handed out. */
  listFault?: () => 'cut_off' | null;
}

/**
 * The carrier that sends nothing: messages wait, sealed, for a person to look at them on the operators' own page. It is
 * its own truth, apart from `messages`, like a real carrier: it takes each id once, and can be asked.
 */
export function outboxCarrier(options: OutboxOptions): Carrier {
  const { db, clock, sealer } = options;
  return {
    name: 'outbox',
    semantics: { callDeadlineMs: 10_000, notFoundConclusiveAfterMs: 60_000, concurrency: 16 },

    async send(request, signal) {
      const fault = options.fault?.(request) ?? null;
      if (fault === 'time_out' || signal.aborted) return { kind: 'unknown', why: 'no answer' };
      if (fault === 'busy') return { kind: 'not_executed', why: 'too many requests', retryAfterMs: 1_000 };
      if (fault === 'refuse') return { kind: 'refused', code: 'no_such_number' };
      const { messageId, merchantCode, to, body } = request;
      const providerId = await acceptOutboxMessage(
        db,
        {
          merchantCode,
          messageId,
          providerId: `outbox-${messageId}`,
          sealed: sealer.seal('outbox', JSON.stringify({ to, body }), messageId),
          keyId: sealer.keyId,
        },
        clock.now(),
      );
      if (providerId === undefined) return { kind: 'refused', code: 'unknown_merchant' };
      if (fault === 'accept_then_time_out') return { kind: 'unknown', why: 'no answer' };
      return { kind: 'accepted', providerId };
    },

    async lookup({ messageId, merchantCode }, signal) {
      if (signal.aborted || options.lookupFault?.(messageId) === 'time_out') {
        return { kind: 'unknown', why: 'no answer' };
      }
      const providerId = await findOutboxMessage(db, merchantCode, messageId);
      return providerId === undefined ? { kind: 'not_found' } : { kind: 'accepted', providerId };
    },

    async *list(merchantCode, from, until, signal) {
      for await (const page of outboxMessagesBetween(db, merchantCode, from, until)) {
        signal.throwIfAborted();
        yield* page.map((row) => ({
          messageId: row.message_id,
          providerId: row.provider_id,
          takenAt: row.accepted_at,
        }));
        if (options.listFault?.() === 'cut_off') throw new Error('outbox: the list is cut off');
      }
    },
  };
}

export interface OutboxMessage {
  merchant: string;
  messageId: string;
  /** E.164 */
  to: string;
  body: string;
  acceptedAt: string;
}

/** For the operators' own page, never the public one. Newest first. */
export async function readOutbox(
  db: Pick<Db, 'query'>,
  sealer: Sealer,
  show: { merchant?: string; limit: number },
): Promise<OutboxMessage[]> {
  const rows = await newestOutboxMessages(db, show.merchant ?? null, show.limit);
  return rows.map((row) => {
    const opened = sealer.open('outbox', row.sealed, row.message_id);
    const { to, body } = JSON.parse(opened) as { to: string; body: string };
    return { merchant: row.merchant, messageId: row.message_id, to, body, acceptedAt: row.accepted_at };
  });
}
