import { type Act, instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import { post } from '../ledger/queries.ts';
import { addResultRows } from '../results/queries.ts';
import { coverWithPreliminary } from './queries.ts';

/** A shop's word is made certain in days: the gateway is asked four times a day. */
export const askAboutPreliminaryHours = 6;

/**
 * Puts a shop's word on the bills that it says are paid: they are locked like by any other payment under way, so that nobody
 * pays or is reminded, and the merchant hears of it. A bill that another charge has locked waits; one that is final is
 * left alone, and what comes of the word is a credit. The caller holds the bills' rows. Returns how many were covered.
 */
export async function coverBills(
  tx: Tx,
  act: Act,
  today: string,
  invoiceIds: readonly string[],
): Promise<number> {
  const askAt = instantText(act.at.add({ hours: askAboutPreliminaryHours }));
  const covered = await coverWithPreliminary(tx, act, invoiceIds, askAt);
  if (covered.length === 0) return 0;
  await post(
    tx,
    act,
    today,
    covered.map((charge) => ({
      event: 'paid_preliminarily',
      entryId: charge.charge_id,
      invoiceId: charge.invoice_id,
      customerId: charge.customer_id,
      amount: charge.amount,
      currency: charge.currency,
      eventOn: charge.business_date,
    })),
  );
  await addResultRows(
    tx,
    act.merchantId,
    act.at,
    covered.map((charge) => ({
      invoiceId: charge.invoice_id,
      outcome: 'paid_preliminary',
      causeId: charge.charge_id,
      reason: '',
      method: 'barcode',
      amount: charge.amount,
      amountReceived: charge.amount,
      collectedOn: charge.business_date,
    })),
  );
  return covered.length;
}
