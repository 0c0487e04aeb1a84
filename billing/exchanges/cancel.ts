import type { Db } from '../db.ts';
import { cancelInvoices, isCancellable } from '../invoices/cancel.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Ids } from '../ports.ts';
import { type Applied, type ApplyFile, applyFile, rejectedLine } from './apply.ts';
import type { Finding, ReadCancel } from './file.ts';
import { releasedBills } from './queries.ts';

/** A `cancel` file: a bill is cancelled unless it is final or money may be on its way. */
export async function cancelBills(
  ports: { db: Db; ids: Ids },
  input: ApplyFile<ReadCancel>,
): Promise<Applied> {
  const { act } = input;
  return applyFile(ports, input, {
    keyOf: (line) => line.billingNumber,
    keyField: 'billing_number',
    billingNumberOf: (line) => line.billingNumber,
    async apply(tx, lines) {
      const known = await releasedBills(
        tx,
        act.merchantId,
        lines.map((line) => line.ok.billingNumber),
      );
      const locked = await lockInvoices(
        tx,
        act.merchantId,
        known.map((bill) => bill.id),
      );
      const byNumber = new Map(locked.map((bill) => [bill.billing_number, bill]));
      const findings: Finding[] = [];
      const cancelled: string[] = [];
      for (const { line, ok } of lines) {
        const bill = byNumber.get(ok.billingNumber);
        if (bill !== undefined && isCancellable(bill)) cancelled.push(bill.id);
        else {
          const code = bill === undefined ? 'E_UNKNOWN_BILLING' : 'E_TOO_LATE';
          findings.push(rejectedLine(line, code, 'billing_number', ok.billingNumber));
        }
      }
      await cancelInvoices(tx, act, input, cancelled, 'cancelled_by_merchant');
      return findings;
    },
  });
}
