import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import type { WebhookHint } from '../gateways/gateway.ts';

/** Once per event, however often it is sent. True: this one is not handled yet. */
export async function storeEvent(
  tx: Tx,
  merchantId: number,
  gateway: string,
  hint: WebhookHint & { reference: string },
  at: Temporal.Instant,
): Promise<boolean> {
  const stored = await tx.run(
    `insert into webhook_events (merchant_id, gateway, event_id, reference, kind, received_at)
     values ($1, $2, $3, $4, $5, $6::timestamptz)
     on conflict do nothing`,
    [merchantId, gateway, hint.eventId, hint.reference, hint.kind, instantText(at)],
  );
  if (stored === 1) return true;
  const waiting = await tx.query(
    `select 1 from webhook_events
     where merchant_id = $1 and gateway = $2 and event_id = $3 and handled_at is null`,
    [merchantId, gateway, hint.eventId],
  );
  return waiting.length === 1;
}

export interface WaitingEvent {
  event_id: string;
  reference: string;
}

export async function waitingEvents(
  tx: Tx,
  merchantId: number,
  gateway: string,
  limit: number,
): Promise<WaitingEvent[]> {
  return tx.query<WaitingEvent>(
    `select event_id, reference from webhook_events
     where merchant_id = $1 and gateway = $2 and handled_at is null
     order by received_at, event_id limit $3`,
    [merchantId, gateway, limit],
  );
}

export async function markHandled(
  tx: Tx,
  merchantId: number,
  gateway: string,
  handled: readonly { eventId: string; result: string }[],
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `update webhook_events w set handled_at = $3::timestamptz, result = h.result
     from unnest($4::text[], $5::text[]) as h(event_id, result)
     where w.merchant_id = $1 and w.gateway = $2 and w.event_id = h.event_id and w.handled_at is null`,
    [
      merchantId,
      gateway,
      instantText(at),
      handled.map((event) => event.eventId),
      handled.map((event) => event.result),
    ],
  );
}
