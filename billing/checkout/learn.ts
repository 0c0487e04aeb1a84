import type { Act } from '../acts/act.ts';
import type { Learned } from '../charges/charge.ts';
import { recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db } from '../db.ts';
import type { LookupAnswer } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { type ChargeNews, chargeNews } from './queries.ts';
import type { CheckoutPorts } from './start.ts';

export interface LearnedNews {
  charges: ChargeNews[];
  /** The gateway gave no answer about these: they must be asked about again. */
  unanswered: ReadonlySet<string>;
}

/** Somebody looks at the page meanwhile: rather "we are checking" than twenty seconds of nothing. Trace has more patience. */
export const visitorWaitsMs = 5_000;

/**
 * A return or a webhook is a hint only: the gateway is asked, outside any transaction, and what it says is recorded the
 * one way there is. No conclusive answer changes nothing; trace asks again. Returns what is true afterwards.
 */
export async function learnFromGateway(
  db: Db,
  ports: CheckoutPorts,
  merchant: Merchant,
  chargeIds: readonly string[],
  how: 'return' | 'webhook',
): Promise<LearnedNews> {
  const { gateway, clock } = ports;
  const read = () =>
    db.transaction((tx) => chargeNews(tx, merchant.id, chargeIds), { merchantId: merchant.id });
  const before = await read();
  // Another gateway's charge says nothing here; a success never changes.
  const open = before.filter((charge) => charge.gateway === gateway.name && charge.state !== 'succeeded');
  if (open.length === 0) return { charges: before, unanswered: new Set() };

  const { callDeadlineMs } = gateway.semantics;
  const deadlineMs = how === 'return' ? Math.min(callDeadlineMs, visitorWaitsMs) : callDeadlineMs;
  const answers = await Promise.all(
    open.map(async ({ charge_id, gateway_session_id }) => ({
      chargeId: charge_id,
      outcome: await gateway
        .lookup(merchant.code, referenceOf(charge_id), clock.deadline(deadlineMs), {
          gatewaySessionId: gateway_session_id,
        })
        // One that an adapter stumbles over must not keep what is known of the others from being recorded.
        .catch((): LookupAnswer => ({ kind: 'unknown', why: 'the call broke' })),
    })),
  );
  const learned = answers.flatMap(({ chargeId, outcome }): Learned[] => {
    const asked = open.find((charge) => charge.charge_id === chargeId);
    // Another amount than asked for is never booked: the bill stays locked, and trace calls a person.
    const fits =
      outcome.kind === 'failed' ||
      (outcome.kind === 'succeeded' &&
        outcome.captured.amount === asked?.amount &&
        outcome.captured.currency === asked?.currency);
    return fits ? [{ chargeId, outcome }] : [];
  });
  const unanswered = new Set(
    answers.filter(({ outcome }) => outcome.kind === 'unknown').map(({ chargeId }) => chargeId),
  );
  if (learned.length === 0) return { charges: before, unanswered };

  await clock.refresh();
  const act: Act = {
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: how === 'return' ? 'visit' : 'webhook',
    actor: how === 'return' ? 'return from the gateway' : `webhook of ${gateway.name}`,
    at: clock.now(),
  };
  await db.transaction(
    (tx) =>
      recordOutcomes(tx, {
        act,
        timezone: merchant.settings.timezone,
        learnedBy: how,
        learned,
        ids: ports.ids,
        sealer: ports.sealer,
      }),
    { merchantId: merchant.id },
  );
  return { charges: await read(), unanswered };
}
