import type { Pool } from 'pg';
import { Temporal } from 'temporal-polyfill';
import { addBankDays } from '../../../billing/calendar/bank-days.ts';
import { capturesBetween, refundsBetween, totalsBetween } from './queries.ts';
import { feeOf, feeTaxOf } from './reports.ts';

const ROWS_AT_ONCE = 5_000;
const ZONE = 'Asia/Tokyo';
/** From Monday: what was captured until Sunday night is with the merchant's bank on Wednesday, bank holidays permitting. */
const BANK_DAYS = 2;
/** Golden Week and New Year lie between a Sunday and its Wednesday at most. */
const DAYS_TO_BANK_AT_MOST = 21;

export interface Week {
  /** The Sunday with which it ends. */
  until: Temporal.PlainDate;
  currency: string;
}

const startOf = (day: Temporal.PlainDate): Date => new Date(day.toZonedDateTime(ZONE).epochMilliseconds);
const spanOf = (until: Temporal.PlainDate): { from: Date; until: Date } => ({
  from: startOf(until.subtract({ days: 6 })),
  until: startOf(until.add({ days: 1 })),
});

/** `po_20261129_JPY`: the week's last day and the currency say all. Null: not one of ours. */
export function weekOfPayout(id: string): Week | null {
  const match = /^po_(\d{4})(\d{2})(\d{2})_([A-Z]{3})$/.exec(id);
  if (match === null) return null;
  const [, year, month, day, currency = ''] = match;
  try {
    const until = Temporal.PlainDate.from(`${year}-${month}-${day}`);
    return until.dayOfWeek === 7 ? { until, currency } : null;
  } catch {
    // The thirtieth of February.
    return null;
  }
}

/** One payout for each week and currency with a capture, once its value date has come. */
export async function payoutsBetween(
  pool: Pool,
  account: string,
  from: string,
  to: string,
  nowMs: number,
): Promise<Record<string, string | number>[]> {
  const today = Temporal.Instant.fromEpochMilliseconds(nowMs).toZonedDateTimeISO(ZONE).toPlainDate();
  const payouts: Record<string, string | number>[] = [];
  let until = Temporal.PlainDate.from(from).subtract({ days: DAYS_TO_BANK_AT_MOST });
  until = until.add({ days: 7 - until.dayOfWeek });
  for (; until.toString() < to; until = until.add({ days: 7 })) {
    const valueDate = addBankDays(until.add({ days: 1 }), BANK_DAYS);
    if (valueDate.toString() < from || valueDate.toString() > to) continue;
    if (Temporal.PlainDate.compare(valueDate, today) > 0) continue;
    const span = spanOf(until);
    for (const { currency, gross, fee, feeTax } of await totalsBetween(
      pool,
      account,
      span.from,
      span.until,
    )) {
      payouts.push({
        id: `po_${until.toString().replaceAll('-', '')}_${currency}`,
        value_date: valueDate.toString(),
        currency,
        gross,
        fee,
        fee_tax: feeTax,
        net: gross - fee - feeTax,
      });
    }
  }
  return payouts;
}

/** NDJSON: one line per capture and refund, then an `end` line with count and amount. */
export async function* payoutLines(pool: Pool, account: string, week: Week): AsyncGenerator<string> {
  const span = spanOf(week.until);
  let after: { capturedAt: Date; sequence: number } | null = null;
  let count = 0;
  let amount = 0;
  for (;;) {
    const rows = await capturesBetween(pool, account, span.from, span.until, after, ROWS_AT_ONCE);
    const last = rows.at(-1);
    if (last === undefined) break;
    let text = '';
    for (const row of rows.filter(({ currency }) => currency === week.currency)) {
      const fee = feeOf(row.amount);
      const { id, reference, currency } = row;
      const line = {
        kind: 'charge',
        id,
        reference,
        amount: row.amount,
        currency,
        fee,
        fee_tax: feeTaxOf(fee),
      };
      text += `${JSON.stringify(line)}\n`;
      count += 1;
      amount += row.amount;
    }
    yield text;
    after = { capturedAt: last.capturedAt, sequence: last.sequence };
  }
  for (const row of await refundsBetween(pool, account, span.from, span.until)) {
    if (row.currency !== week.currency) continue;
    const { id, reference, currency } = row;
    yield `${JSON.stringify({ kind: 'refund', id, reference, amount: row.amount, currency, fee: 0, fee_tax: 0 })}\n`;
    count += 1;
    amount -= row.amount;
  }
  yield `${JSON.stringify({ kind: 'end', count, amount })}\n`;
}
