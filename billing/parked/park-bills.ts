import type { Act } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import { moveInvoices } from '../invoices/queries.ts';
import type { Ids } from '../ports.ts';
import { type Parking, park } from './queries.ts';

/** A bill that a person must look at, by its id. */
export type BillToPark = Pick<Parking, 'reason' | 'context'> & { invoiceId: string };

/**
 * Takes open bills, whose rows the caller has locked, out of every job's way: their state with its history, and why. Returns
 * how many were parked; what is no longer open stays as it is.
 */
export async function parkBills(tx: Tx, act: Act, ids: Ids, bills: readonly BillToPark[]): Promise<number> {
  if (bills.length === 0) return 0;
  const whys = new Map(bills.map(({ invoiceId, reason, context }) => [invoiceId, { reason, context }]));
  const moved = await moveInvoices(tx, act, [...whys.keys()], 'parked', '');
  return park(
    tx,
    act.merchantId,
    act.at,
    moved.flatMap(({ id }) => {
      const why = whys.get(id);
      return why === undefined
        ? []
        : [{ id: ids.uuid(), subject: 'invoice' as const, subjectId: id, ...why }];
    }),
  );
}
