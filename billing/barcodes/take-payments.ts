import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Learned, LearnedBy } from '../charges/charge.ts';
import { coverBills } from '../charges/cover.ts';
import { invoicesOfCharges } from '../charges/queries.ts';
import { recordOutcomes } from '../charges/record-outcomes.ts';
import type { Tx } from '../db.ts';
import type { BarcodePayment } from '../gateways/gateway.ts';
import { idBehind } from '../ids.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { barcodesByDigits, insertPreliminaryCharges } from './queries.ts';

export interface TakeBarcodePayments {
  act: Act;
  merchant: Merchant;
  gateway: string;
  ids: Ids;
  sealer: Sealer;
  learnedBy: LearnedBy;
  payments: readonly BarcodePayment[];
}

export interface TakenPayments {
  /** Told of for the first time. */
  new: number;
  confirmed: number;
  cancelled: number;
  /** Of no barcode of ours, or of another amount than it says: a person is told, and nothing is booked. */
  strange: number;
}

/**
 * What the gateway says of barcodes that were paid, in the caller's transaction. A payment is a charge that nobody here
 * asked for: once it is known it ends like any other, by `recordOutcomes`. The same news again, in any order, changes nothing.
 */
export async function takeBarcodePayments(tx: Tx, input: TakeBarcodePayments): Promise<TakenPayments> {
  const { act, merchant, payments } = input;
  const taken: TakenPayments = { new: 0, confirmed: 0, cancelled: 0, strange: 0 };
  if (payments.length === 0) return taken;
  await recordAct(tx, act);
  const issued = await barcodesByDigits(
    tx,
    act.merchantId,
    payments.map((payment) => payment.barcode),
  );
  const ours: { payment: BarcodePayment; chargeId: string; invoiceId: string }[] = [];
  for (const payment of payments) {
    const chargeId = idBehind(payment.reference);
    assertState(chargeId, 'a barcode’s payment has a reference of our form');
    const barcode = issued.get(payment.barcode);
    const fits = barcode?.amount === payment.amount && barcode.currency === payment.currency;
    if (barcode !== undefined && fits) ours.push({ payment, chargeId, invoiceId: barcode.invoice_id });
    else if (payment.state !== 'cancelled') {
      taken.strange += 1;
      await tellStrange(tx, input, payment, barcode === undefined);
    }
  }
  const invoiceIds = [...new Set(ours.map((each) => each.invoiceId))];
  await lockInvoices(tx, act.merchantId, invoiceIds);
  const chargeIds = ours.map((each) => each.chargeId);
  const before = new Set(
    (await invoicesOfCharges(tx, act.merchantId, chargeIds)).map((charge) => charge.charge_id),
  );
  const { timezone } = merchant.settings;
  const fresh = ours.filter(
    ({ payment, chargeId }) => payment.state !== 'cancelled' && !before.has(chargeId),
  );
  await insertPreliminaryCharges(
    tx,
    act,
    // In the order of paying, whatever order they are told in.
    [...new Map(fresh.map((each) => [each.chargeId, each])).values()]
      .sort((one, other) => (one.chargeId < other.chargeId ? -1 : 1))
      .map(({ payment, chargeId, invoiceId }) => ({
        id: chargeId,
        intentId: input.ids.uuid(),
        invoiceId,
        gateway: input.gateway,
        gatewayChargeId: payment.gatewayChargeId,
        amount: payment.amount,
        currency: payment.currency,
        paidOn: Temporal.Instant.from(payment.paidAt).toZonedDateTimeISO(timezone).toPlainDate().toString(),
      })),
  );
  taken.new = fresh.length;

  const learned = ours.flatMap(({ payment, chargeId }): Learned[] => {
    const outcome = outcomeOf(payment);
    const known = before.has(chargeId) || payment.state === 'final';
    return outcome === null || !known ? [] : [{ chargeId, outcome }];
  });
  const recorded = await recordOutcomes(tx, {
    act,
    timezone,
    learnedBy: input.learnedBy,
    learned,
    ids: input.ids,
    sealer: input.sealer,
  });
  taken.confirmed = recorded.succeeded;
  taken.cancelled = recorded.canceled;
  const today = act.at.toZonedDateTimeISO(timezone).toPlainDate().toString();
  await coverBills(tx, act, today, invoiceIds);
  return taken;
}

function outcomeOf(payment: BarcodePayment): Learned['outcome'] | null {
  if (payment.state === 'preliminary') return null;
  if (payment.state === 'cancelled') return { kind: 'canceled', why: 'the shop took it back' };
  const { gatewayChargeId, amount, currency } = payment;
  const capturedAt = payment.finalAt ?? payment.paidAt;
  return {
    kind: 'succeeded',
    captured: { gatewayChargeId, amount, currency, capturedAt, method: 'barcode', savedMethod: null },
  };
}

async function tellStrange(
  tx: Tx,
  { act, ids }: TakeBarcodePayments,
  payment: BarcodePayment,
  isUnknown: boolean,
): Promise<void> {
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: isUnknown ? 'BARCODE_UNKNOWN' : 'AMOUNT_DIFFERS',
    message: isUnknown
      ? `a shop took ${payment.amount} yen for a barcode that was not issued here: payment ${payment.gatewayChargeId}; nothing is booked`
      : `a shop took ${payment.amount} ${payment.currency} for a barcode over another amount: payment ${payment.gatewayChargeId}; nothing is booked`,
    occurrences: 1,
  });
}
