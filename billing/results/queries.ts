import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';

export interface ResultRow {
  invoiceId: string;
  outcome: 'pending' | 'paid_preliminary' | 'preliminary_cancelled' | 'paid' | 'unpaid' | 'cancelled';
  /** The charge that caused it, else the invoice. */
  causeId: string;
  reason: '' | 'dunning_ended' | 'paper' | 'cancelled_by_merchant' | 'replaced' | 'recalled';
  method: '' | 'card' | 'barcode' | 'wallet' | 'debit';
  amount: number;
  amountReceived: number;
  /** YYYY-MM-DD in the merchant's zone */
  collectedOn: string | null;
}

/** Written once, at the transition; a result file claims it later. A second final outcome breaks a unique index and with it the transaction. */
export async function addResultRows(
  tx: Tx,
  merchantId: number,
  knownAt: Temporal.Instant,
  rows: readonly ResultRow[],
): Promise<void> {
  if (rows.length === 0) return;
  await tx.run(
    `insert into result_rows (merchant_id, invoice_id, outcome, cause_id, reason, method, amount, amount_received,
                              collected_on, known_at)
     select $1, r.invoice_id, r.outcome, r.cause_id, r.reason, r.method, r.amount, r.amount_received,
            r.collected_on, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::date[])
       as r(invoice_id, outcome, cause_id, reason, method, amount, amount_received, collected_on)`,
    [
      merchantId,
      instantText(knownAt),
      rows.map((row) => row.invoiceId),
      rows.map((row) => row.outcome),
      rows.map((row) => row.causeId),
      rows.map((row) => row.reason),
      rows.map((row) => row.method),
      rows.map((row) => row.amount),
      rows.map((row) => row.amountReceived),
      rows.map((row) => row.collectedOn),
    ],
  );
}
