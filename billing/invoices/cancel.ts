import type { Act } from '../acts/act.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Tx } from '../db.ts';
import { post } from '../ledger/queries.ts';
import { assertState } from '../refusal.ts';
import { addResultRows } from '../results/queries.ts';
import { isFinal, type LockedInvoice } from './invoice.ts';
import { moveInvoices } from './queries.ts';

/** Whether a bill can still be taken back: nobody has paid it, and no charge for it is under way or unknown. */
export function isCancellable(bill: LockedInvoice): boolean {
  return !isFinal(bill.state) && bill.locked_by === null;
}

/** Bills that may be cancelled end so: their debt leaves the ledger, and the merchant gets their final row. */
export async function cancelInvoices(
  tx: Tx,
  act: Act,
  on: { today: string; timezone: string },
  invoiceIds: readonly string[],
  reason: 'cancelled_by_merchant' | 'replaced' | 'recalled',
): Promise<void> {
  if (invoiceIds.length === 0) return;
  const moved = await moveInvoices(
    tx,
    act,
    invoiceIds,
    'cancelled',
    // Such a link says so whatever became of its bill.
    reason === 'recalled' ? 'recalled' : 'cancelled',
  );
  assertState(
    moved.length === invoiceIds.length,
    `${moved.length} bills were cancelled of ${invoiceIds.length} locked ones`,
  );
  await post(
    tx,
    act,
    businessDateOf(act.at, on.timezone).toString(),
    moved.map((bill) => ({
      event: 'bill_cancelled',
      entryId: bill.id,
      invoiceId: bill.id,
      customerId: bill.customer_id,
      amount: bill.amount,
      currency: bill.currency,
      eventOn: on.today,
    })),
  );
  await addResultRows(
    tx,
    act.merchantId,
    act.at,
    moved.map((bill) => ({
      invoiceId: bill.id,
      outcome: 'cancelled',
      causeId: bill.id,
      reason,
      method: '',
      amount: bill.amount,
      amountReceived: 0,
      collectedOn: null,
    })),
  );
}
