import { Temporal } from 'temporal-polyfill';
import type { Gateway, RefundAnswer, RefundLookup } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import type { Clock } from '../ports.ts';
import { atMostAtOnce } from '../trace/ask.ts';
import type { LearnedRefund, OpenRefund } from './refund.ts';

export interface RefundPorts {
  gateway: Gateway;
  clock: Clock;
}

const callsAtOnce = 16;

/** Gives money back, each refund under its own reference and a deadline. A call that breaks off has an unknown outcome. */
export async function callRefunds(
  ports: RefundPorts,
  account: string,
  refunds: readonly OpenRefund[],
): Promise<LearnedRefund[]> {
  return atMostAtOnce(callsAtOnce, refunds, async (refund) => ({
    refund,
    outcome: await call(ports, account, refund),
  }));
}

async function call(
  { gateway, clock }: RefundPorts,
  account: string,
  refund: OpenRefund,
): Promise<LearnedRefund['outcome']> {
  await clock.refresh();
  if (refund.gateway !== gateway.name) return { kind: 'failed', code: 'another_gateway' };
  if (Temporal.Instant.compare(clock.now(), Temporal.Instant.from(refund.deadline_at)) > 0)
    return { kind: 'canceled', why: 'too_late' };
  let answer: RefundAnswer;
  try {
    answer = await gateway.refund(
      {
        account,
        reference: referenceOf(refund.id),
        chargeReference: referenceOf(refund.charge_id),
        gatewayChargeId: refund.gateway_charge_id,
        amount: refund.amount,
        currency: refund.currency,
      },
      clock.deadline(gateway.semantics.callDeadlineMs),
    );
  } catch (error) {
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
  return answer.kind === 'not_executed' ? { kind: 'canceled', why: answer.why } : answer;
}

/** Asks the gateway what became of refunds. "Not found" proves something only after the window that it declares. */
export async function askAboutRefunds(
  ports: RefundPorts,
  account: string,
  refunds: readonly OpenRefund[],
): Promise<LearnedRefund[]> {
  return atMostAtOnce(callsAtOnce, refunds, async (refund) => ({
    refund,
    outcome: await ask(ports, account, refund),
  }));
}

async function ask(
  { gateway, clock }: RefundPorts,
  account: string,
  refund: OpenRefund,
): Promise<LearnedRefund['outcome']> {
  if (refund.gateway !== gateway.name) return { kind: 'unknown', why: 'another_gateway' };
  const { callDeadlineMs, notFoundConclusiveAfterMs } = gateway.semantics;
  const askedAt = clock.now();
  let answer: RefundLookup;
  try {
    answer = await gateway.lookupRefund(account, referenceOf(refund.id), clock.deadline(callDeadlineMs));
  } catch (error) {
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
  if (answer.kind !== 'not_found') return answer;
  const provesAfter = Temporal.Instant.from(refund.deadline_at).add({
    milliseconds: callDeadlineMs + notFoundConclusiveAfterMs,
  });
  return Temporal.Instant.compare(askedAt, provesAfter) > 0
    ? { kind: 'canceled', why: 'not_found' }
    : { kind: 'unknown', why: 'not_found_yet' };
}
