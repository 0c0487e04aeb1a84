import type { Pool } from 'pg';
import { type CaptureRow, capturesBetween, refundsBetween } from './queries.ts';

const ROWS_AT_ONCE = 5_000;
const DAY_MS = 86_400_000;

/** The gateway's price: 3.25 % of the amount and 10 % tax on that, both rounded down per charge. */
export const feeOf = (amount: number): number => Math.floor((amount * 325) / 10_000);
export const feeTaxOf = (fee: number): number => Math.floor((fee * 10) / 100);

/** The gateway's day is a day in Japan (UTC+9, no daylight saving). Null: not a date. */
export function dayOf(date: string): { from: Date; until: Date } | null {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(date)) return null;
  const from = new Date(`${date}T00:00:00+09:00`);
  if (Number.isNaN(from.getTime())) return null;
  return { from, until: new Date(from.getTime() + DAY_MS) };
}

interface Span {
  from: Date;
  until: Date;
}

/** NDJSON: one line per capture, then an `end` line with count and amount, so that a cut stream is noticed. */
async function* linesOf(
  pool: Pool,
  account: string,
  span: Span,
  lineOf: (row: CaptureRow) => object,
  withRefunds: boolean,
): AsyncGenerator<string> {
  let after: { capturedAt: Date; sequence: number } | null = null;
  let count = 0;
  let amount = 0;
  for (;;) {
    const rows = await capturesBetween(pool, account, span.from, span.until, after, ROWS_AT_ONCE);
    const last = rows.at(-1);
    if (last === undefined) break;
    let text = '';
    for (const row of rows) {
      text += `${JSON.stringify(lineOf(row))}\n`;
      count += 1;
      amount += row.amount;
    }
    yield text;
    after = { capturedAt: last.capturedAt, sequence: last.sequence };
  }
  for (const row of withRefunds ? await refundsBetween(pool, account, span.from, span.until) : []) {
    yield `${JSON.stringify({
      kind: 'refund',
      id: row.id,
      reference: row.reference,
      amount: row.amount,
      currency: row.currency,
      fee: 0,
      fee_tax: 0,
      captured_at: row.refundedAt.toISOString(),
    })}\n`;
    count += 1;
    amount -= row.amount;
  }
  yield `${JSON.stringify({ kind: 'end', count, amount })}\n`;
}

/** What a day brought, with its price, and what went back on it: the price is not given back. */
export const settlementLines = (pool: Pool, account: string, day: Span): AsyncGenerator<string> =>
  linesOf(pool, account, day, chargeLine, true);

function chargeLine(row: CaptureRow): object {
  const fee = feeOf(row.amount);
  return {
    kind: 'charge',
    id: row.id,
    reference: row.reference,
    amount: row.amount,
    currency: row.currency,
    fee,
    fee_tax: feeTaxOf(fee),
    captured_at: row.capturedAt.toISOString(),
  };
}

/** Everything captured, whatever the merchant knows of it. */
export const captureLines = (pool: Pool, account: string, span: Span): AsyncGenerator<string> =>
  linesOf(
    pool,
    account,
    span,
    (row) => ({
      kind: 'capture',
      id: row.id,
      reference: row.reference,
      invoice_id: row.invoiceId,
      amount: row.amount,
      currency: row.currency,
      refunded: row.refunded,
      method: row.method,
      captured_at: row.capturedAt.toISOString(),
    }),
    false,
  );
