import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';

export interface AdjustmentRow {
  invoiceId: string;
  kind: 'late_payment' | 'overpayment' | 'refund' | 'chargeback' | 'reversal';
  /** The charge, or what else moved the money: with the kind, once for ever. */
  causeId: string;
  /** Not negative: the sign says which way. */
  amount: number;
  /** `+` = the merchant gets it. */
  sign: '+' | '-';
  /** YYYY-MM-DD in the merchant's zone. */
  collectedOn: string;
}

/** What happened after a final result. Written once, at the transition; an adjustment file numbers and claims it later. */
export async function addAdjustmentRows(
  tx: Tx,
  merchantId: number,
  knownAt: Temporal.Instant,
  rows: readonly AdjustmentRow[],
): Promise<void> {
  if (rows.length === 0) return;
  await tx.run(
    `insert into adjustment_rows (merchant_id, cause_id, kind, invoice_id, amount, sign, collected_on, known_at)
     select $1, r.cause_id, r.kind, r.invoice_id, r.amount, r.sign, r.collected_on, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::uuid[], $6::bigint[], $7::text[], $8::date[])
       as r(cause_id, kind, invoice_id, amount, sign, collected_on)`,
    [
      merchantId,
      instantText(knownAt),
      rows.map((row) => row.causeId),
      rows.map((row) => row.kind),
      rows.map((row) => row.invoiceId),
      rows.map((row) => row.amount),
      rows.map((row) => row.sign),
      rows.map((row) => row.collectedOn),
    ],
  );
}
