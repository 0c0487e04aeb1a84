import type { Act } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import { post } from '../ledger/queries.ts';
import { addResultRows } from '../results/queries.ts';
import { moveInvoices } from './queries.ts';

/**
 * Hands bills back to the merchant unpaid, at the end of dunning or because the merchant prints paper. Every way to pay them
 * here is closed; the caller holds the rows and has seen that no charge is under way. Returns how many were returned.
 */
export async function returnUnpaid(
  tx: Tx,
  act: Act,
  on: { businessDate: string; today: string },
  invoiceIds: readonly string[],
  reason: 'dunning_ended' | 'paper' = 'dunning_ended',
): Promise<number> {
  if (invoiceIds.length === 0) return 0;
  const returned = await moveInvoices(tx, act, invoiceIds, 'unpaid', 'returned');
  await post(
    tx,
    act,
    on.today,
    returned.map((invoice) => ({
      event: 'returned_unpaid',
      entryId: invoice.id,
      invoiceId: invoice.id,
      customerId: invoice.customer_id,
      amount: invoice.amount,
      currency: invoice.currency,
      eventOn: on.businessDate,
    })),
  );
  await addResultRows(
    tx,
    act.merchantId,
    act.at,
    returned.map((invoice) => ({
      invoiceId: invoice.id,
      outcome: 'unpaid',
      causeId: invoice.id,
      reason,
      method: '',
      amount: invoice.amount,
      amountReceived: 0,
      collectedOn: null,
    })),
  );
  return returned.length;
}
