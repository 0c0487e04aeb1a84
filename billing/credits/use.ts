import type { Act } from '../acts/act.ts';
import { addAdjustmentRows } from '../adjustments/queries.ts';
import type { Tx } from '../db.ts';
import { lockInvoices, moveInvoices } from '../invoices/queries.ts';
import { post } from '../ledger/queries.ts';
import type { Ids } from '../ports.ts';
import { takeUpRecalls } from '../recalls/queries.ts';
import { assertState } from '../refusal.ts';
import { addResultRows } from '../results/queries.ts';
import type { CreditUse } from './credit.ts';
import { creditsForBills, insertUses, lockCreditsFor, returnUses } from './queries.ts';

/** The days of one act: the one it works for, and the merchant's today, on which it is booked. */
export interface CreditDays {
  businessDate: string;
  today: string;
}

/**
 * Pays bills with their customers' credits, in the caller's transaction. Whether they are still owed and free, and how much
 * is left, is looked at again with the rows of both locked. Returns how many are paid.
 */
export async function payByCredit(
  tx: Tx,
  ids: Ids,
  act: Act,
  days: CreditDays,
  invoiceIds: readonly string[],
): Promise<number> {
  const { merchantId, at } = act;
  const bills = new Map((await lockInvoices(tx, merchantId, invoiceIds)).map((bill) => [bill.id, bill]));
  await lockCreditsFor(tx, merchantId, invoiceIds);
  const uses: CreditUse[] = (await creditsForBills(tx, merchantId, days.businessDate, invoiceIds)).map(
    (use) => ({ ...use, id: ids.uuid() }),
  );
  await insertUses(tx, act, uses);
  const first = new Map(uses.toReversed().map((use) => [use.invoice_id, use]));
  const paid = [...first.keys()];
  const moved = await moveInvoices(tx, act, paid, 'paid', 'paid');
  assertState(
    moved.length === paid.length,
    `${moved.length} bills became paid of ${paid.length} locked ones`,
  );
  await post(
    tx,
    act,
    days.today,
    uses.map((use) => {
      const bill = bills.get(use.invoice_id);
      assertState(bill, `a credit pays bill ${use.invoice_id}, which is not locked`);
      return {
        event: 'credit_used',
        entryId: use.id,
        invoiceId: bill.id,
        customerId: bill.customer_id,
        amount: use.amount,
        currency: bill.currency,
        eventOn: days.today,
      };
    }),
  );
  await addResultRows(
    tx,
    merchantId,
    at,
    [...first.values()].map((use) => {
      const bill = bills.get(use.invoice_id);
      assertState(bill, `a credit pays bill ${use.invoice_id}, which is not locked`);
      return {
        invoiceId: bill.id,
        outcome: 'paid',
        causeId: bill.id,
        reason: '',
        method: use.method,
        amount: bill.amount,
        amountReceived: bill.amount,
        collectedOn: use.collected_on,
      };
    }),
  );
  // The surplus was told as money of another bill: it is that bill's no more.
  await addAdjustmentRows(
    tx,
    merchantId,
    at,
    uses.map((use) => ({
      invoiceId: use.from_invoice_id,
      kind: 'reversal',
      causeId: use.id,
      amount: use.amount,
      sign: '-',
      collectedOn: days.today,
    })),
  );
  return paid.length;
}

/**
 * Bills that a credit paid were never owed: they stay paid, nothing is billed, and the credit is free again, for its bill's
 * own recall, too. The caller holds the bills' rows. Returns the bills.
 */
export async function giveCreditsBack(
  tx: Tx,
  act: Act,
  today: string,
  invoiceIds: readonly string[],
): Promise<Set<string>> {
  const returned = await returnUses(tx, act, invoiceIds);
  await post(
    tx,
    act,
    today,
    returned.flatMap((use) => {
      const posting = {
        entryId: use.id,
        invoiceId: use.invoice_id,
        customerId: use.customer_id,
        amount: use.amount,
        currency: use.currency,
        eventOn: today,
      };
      return [
        { ...posting, event: 'credit_returned' as const },
        { ...posting, event: 'bill_cancelled' as const },
      ];
    }),
  );
  const told = { collectedOn: today };
  await addAdjustmentRows(
    tx,
    act.merchantId,
    act.at,
    returned.flatMap(({ id, invoice_id, from_invoice_id, amount }) => [
      { ...told, invoiceId: invoice_id, kind: 'refund' as const, causeId: id, amount, sign: '-' as const },
      {
        ...told,
        invoiceId: from_invoice_id,
        kind: 'overpayment' as const,
        causeId: id,
        amount,
        sign: '+' as const,
      },
    ]),
  );
  await takeUpRecalls(
    tx,
    act,
    returned.map((use) => use.from_invoice_id),
  );
  return new Set(returned.map((use) => use.invoice_id));
}
