import { learnPayments } from '../barcodes/learn.ts';
import { learnCardChanges } from '../card-changes/ask.ts';
import { learnFromGateway } from '../checkout/learn.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import type { Db } from '../db.ts';
import { idBehind } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { markHandled, type WaitingEvent, waitingEvents } from './queries.ts';

/** Asks the gateway about what the events hint at, records it, and marks them. Safe to do twice, in any order. Returns how many. */
export async function handleWebhooks(
  db: Db,
  ports: CheckoutPorts,
  merchant: Merchant,
  events: readonly WaitingEvent[],
): Promise<number> {
  const charges = new Map(events.map((event) => [event.event_id, idBehind(event.reference)]));
  const chargeIds = [...new Set([...charges.values()].filter((id) => id !== null))];
  const unheard = await learnPayments(db, ports, merchant, chargeIds);
  const learned = await learnFromGateway(db, ports, merchant, chargeIds, 'webhook');
  const states = new Map<string, string>(learned.charges.map((charge) => [charge.charge_id, charge.state]));
  const others = chargeIds.filter((id) => !states.has(id));
  const ofCards = others.length === 0 ? null : await learnCardChanges(db, ports, merchant, others, 'webhook');
  for (const { id, state } of ofCards?.changes ?? []) states.set(id, `card_change ${state}`);
  // An event that the gateway could not be asked about stays in the inbox.
  const handled = events.flatMap((event) => {
    const chargeId = charges.get(event.event_id) ?? '';
    const isUnanswered =
      learned.unanswered.has(chargeId) || unheard.has(chargeId) || ofCards?.unanswered.has(chargeId);
    if (isUnanswered) return [];
    return [{ eventId: event.event_id, result: states.get(chargeId) ?? 'no_such_charge' }];
  });
  await db.transaction((tx) => markHandled(tx, merchant.id, ports.gateway.name, handled, ports.clock.now()), {
    merchantId: merchant.id,
  });
  return handled.length;
}

/**
 * Events that were acknowledged but not handled, because the process died in between. For the trace job; up to `limit`
 * of them, in parts that ask the gateway about a few charges at a time. Returns how many were handled.
 */
export async function handleWaitingWebhooks(
  db: Db,
  ports: CheckoutPorts,
  merchant: Merchant,
  limit = 500,
): Promise<number> {
  const waiting = await db.transaction((tx) => waitingEvents(tx, merchant.id, ports.gateway.name, limit), {
    merchantId: merchant.id,
  });
  const atOnce = 10;
  let handled = 0;
  for (let from = 0; from < waiting.length; from += atOnce) {
    handled += await handleWebhooks(db, ports, merchant, waiting.slice(from, from + atOnce));
  }
  return handled;
}
