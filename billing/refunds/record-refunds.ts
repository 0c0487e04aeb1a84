import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { addAdjustmentRows } from '../adjustments/queries.ts';
import { raiseStanding } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Posting } from '../ledger/ledger.ts';
import { post } from '../ledger/queries.ts';
import type { Ids } from '../ports.ts';
import { moveBills } from '../recalls/queries.ts';
import { findingsRefunded, settleFindings } from '../reconciliation/queries.ts';
import { askRefundsLater, decideRefunds, type RefundDecision } from './queries.ts';
import { byMerchant, type LearnedRefund, type OpenRefund } from './refund.ts';

export interface RecordRefunds {
  act: Act;
  ids: Ids;
  timezone: string;
  learned: readonly LearnedRefund[];
}

export interface RecordedRefunds {
  refunded: number;
  refused: number;
  canceled: number;
  unknown: number;
}

/** Minutes to the next question by how many were asked. */
const backOffMinutes = [1, 2, 5, 15, 60];

/**
 * The one way a refund's outcome becomes true, in the caller's transaction, whoever learned it. What was put on a bill comes
 * off it, and the bill's debt goes too: it was never owed. What was a credit comes off the credit.
 */
export async function recordRefunds(tx: Tx, input: RecordRefunds): Promise<RecordedRefunds> {
  const { act, ids, learned, timezone } = input;
  const recorded: RecordedRefunds = { refunded: 0, refused: 0, canceled: 0, unknown: 0 };
  if (learned.length === 0) return recorded;
  await recordAct(tx, act);
  const refundedOn = new Map<string, string>();
  const decisions: RefundDecision[] = [];
  const differing: string[] = [];
  for (const { refund, outcome } of learned) {
    const askAt = instantText(nextAsk(refund, act.at));
    const base = { id: refund.id, gatewayRefundId: null, code: null, askAt };
    if (outcome.kind === 'succeeded') {
      const { gatewayRefundId, amount, currency, refundedAt } = outcome.refunded;
      if (amount !== refund.amount || currency !== refund.currency) {
        differing.push(
          `${amount} ${currency} for refund ${refund.id}, asked were ${refund.amount} ${refund.currency}`,
        );
        decisions.push({ ...base, to: 'unknown' });
        continue;
      }
      const at = Temporal.Instant.from(refundedAt).toZonedDateTimeISO(timezone);
      refundedOn.set(refund.id, at.toPlainDate().toString());
      decisions.push({ ...base, to: 'succeeded', gatewayRefundId });
    } else if (outcome.kind === 'failed') decisions.push({ ...base, to: 'failed', code: outcome.code });
    else decisions.push({ ...base, to: outcome.kind, code: outcome.why });
  }
  const of = (to: RefundDecision['to']) => decisions.filter((decision) => decision.to === to);
  const done = await decideRefunds(tx, act, 'succeeded', of('succeeded'));
  const day = (id: string) => refundedOn.get(id) ?? '';
  await post(
    tx,
    act,
    act.at.toZonedDateTimeISO(timezone).toPlainDate().toString(),
    done.flatMap((refund): Posting[] => {
      const common = {
        entryId: refund.id,
        invoiceId: refund.invoice_id,
        customerId: refund.customer_id,
        amount: refund.amount,
        currency: refund.currency,
        eventOn: day(refund.id),
      };
      const isOurs = refund.gateway !== byMerchant;
      return refund.allocated
        ? [
            { ...common, event: isOurs ? 'refunded' : 'refunded_by_merchant' },
            { ...common, event: 'bill_cancelled' },
          ]
        : [{ ...common, event: isOurs ? 'credit_refunded' : 'credit_refunded_by_merchant' }];
    }),
  );
  await addAdjustmentRows(
    tx,
    act.merchantId,
    act.at,
    done.map((refund) => ({
      invoiceId: refund.invoice_id,
      kind: 'refund',
      causeId: refund.id,
      amount: refund.amount,
      sign: '-',
      collectedOn: day(refund.id),
    })),
  );
  const told = await findingsRefunded(
    tx,
    act.merchantId,
    done.map((refund) => refund.id),
  );
  await settleFindings(tx, act, told, false);
  const refused = await decideRefunds(tx, act, 'failed', of('failed'));
  const ofRecalls = new Set(learned.flatMap(({ refund }) => (refund.recall_id === null ? [] : [refund.id])));
  await moveBills(
    tx,
    act.merchantId,
    refused
      .filter(({ id }) => ofRecalls.has(id))
      .map((refund) => ({ invoiceId: refund.invoice_id, to: 'refused', outcome: null })),
  );
  const canceled = await decideRefunds(tx, act, 'canceled', of('canceled'));
  const unknown = await decideRefunds(tx, act, 'unknown', of('unknown'));
  const moved = new Set(unknown.map((refund) => refund.id));
  await askRefundsLater(
    tx,
    act.merchantId,
    of('unknown').filter((decision) => !moved.has(decision.id)),
  );
  const alerts = [
    { cause: 'REFUND_DIFFERS', what: differing, message: `the gateway gave back ${differing[0]}` },
    {
      cause: 'REFUND_REFUSED',
      what: refused,
      message: `the gateway refuses to give money back, such as refund ${refused[0]?.id}`,
    },
  ].filter(({ what }) => what.length > 0);
  await raiseStanding(
    tx,
    act.merchantId,
    act.at,
    alerts.map(({ cause, what, message }) => ({
      id: ids.uuid(),
      level: 'now',
      cause,
      message,
      occurrences: what.length,
    })),
  );
  recorded.refunded = done.length;
  recorded.refused = refused.length;
  recorded.canceled = canceled.length;
  recorded.unknown = of('unknown').length;
  return recorded;
}

function nextAsk(refund: OpenRefund, at: Temporal.Instant): Temporal.Instant {
  return at.add({ minutes: backOffMinutes[Math.min(refund.asks, backOffMinutes.length - 1)] ?? 60 });
}
