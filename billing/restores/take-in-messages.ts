import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Carrier, ListedSms } from '../carriers/carrier.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { messageOf } from '../messages/message.ts';
import { planSteps } from '../messages/plan.ts';
import { insertMessages } from '../messages/queries.ts';
import { recognise } from '../messages/recognise.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { batchesOf } from './batches.ts';
import { markTaken, stepsWithoutMessage } from './queries.ts';

export interface MessageCounts extends Record<string, number> {
  listed: number;
  /** Taken by the carrier, and that was not known here. */
  recovered: number;
  /** Of bills that are not here. */
  unknown_bills: number;
}

const batchMessages = 500;

interface Taken {
  invoiceId: string;
  step: string;
  providerId: string;
  takenAt: string;
}

/**
 * Marks as sent whatever the carrier has in its list, planned here or not even that: it is never sent again, and the link in
 * it leads to its bill. May be done again and broken off anywhere.
 */
export async function takeInMessages(
  ports: { db: Db; clock: Clock; ids: Ids; sealer: Sealer; carrier: Carrier; baseUrl: string },
  work: { merchant: Merchant; actor: string },
  list: AsyncIterable<ListedSms>,
): Promise<MessageCounts> {
  const { merchant, actor } = work;
  const { ids, sealer, clock } = ports;
  const counts: MessageCounts = { listed: 0, recovered: 0, unknown_bills: 0 };
  const naming = { merchant, carrier: ports.carrier.name, baseUrl: ports.baseUrl };
  for await (const listed of batchesOf(list, batchMessages)) {
    counts.listed += listed.length;
    const batch = await recognise(ports, naming, listed);
    // Ours by its link or its phone, and of no message that can be named.
    counts.unknown_bills += batch.filter((sms) => sms.messageId === null && sms.sent !== undefined).length;
    // Another system of the merchant may send through the same carrier.
    const taken = firstOfEach(batch.flatMap((sms) => takenOf(sms) ?? []));
    await clock.refresh();
    const act: Act = { merchantId: merchant.id, id: ids.uuid(), kind: 'command', actor, at: clock.now() };
    const done = await ports.db.transaction(async (tx) => {
      await recordAct(tx, act);
      const missing = await stepsWithoutMessage(tx, merchant.id, taken);
      const planned = missing
        .filter(({ invoice_state }) => invoice_state === 'open' || invoice_state === 'parked')
        .map(({ invoice_id, step, taken_at }) => ({
          invoiceId: invoice_id,
          step,
          plannedOn: dateOf(merchant, taken_at),
        }));
      await planSteps(tx, { merchant, sealer, at: act.at, steps: planned });
      // A bill that is final needs no link any more, only the proof that its message went.
      await insertMessages(
        tx,
        merchant.id,
        act.at,
        missing
          .filter(({ invoice_state }) => invoice_state !== 'open' && invoice_state !== 'parked')
          .map(({ invoice_id, step, taken_at }) => ({
            invoiceId: invoice_id,
            step,
            plannedOn: dateOf(merchant, taken_at),
            skipCode: null,
            linkVersion: null,
          })),
      );
      return markTaken(tx, act, ports.carrier.name, taken);
    });
    counts.recovered += done.marked;
    counts.unknown_bills += taken.length - done.known;
  }
  return counts;
}

function takenOf({ messageId, providerId, takenAt }: ListedSms): Taken | null {
  if (messageId === null) return null;
  try {
    return { ...messageOf(messageId), providerId, takenAt };
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

/** A carrier that does not know an id again may have taken one twice. */
function firstOfEach(taken: readonly Taken[]): Taken[] {
  const first = new Map<string, Taken>();
  for (const each of taken) {
    const key = `${each.invoiceId} ${each.step}`;
    if (!first.has(key)) first.set(key, each);
  }
  return [...first.values()];
}

function dateOf(merchant: Merchant, instant: string): string {
  return Temporal.Instant.from(instant)
    .toZonedDateTimeISO(merchant.settings.timezone)
    .toPlainDate()
    .toString();
}
