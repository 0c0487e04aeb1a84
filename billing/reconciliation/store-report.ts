import { Temporal } from 'temporal-polyfill';
import { recordAct } from '../acts/queries.ts';
import type { Tx } from '../db.ts';
import { assertState } from '../refusal.ts';
import { type Comparing, compareReports } from './compare.ts';
import {
  copyLines,
  deleteLines,
  linesInDispute,
  lockReport,
  putReport,
  type ReportKey,
  type ReportTotals,
} from './queries.ts';

/** What was stored and found, by name; empty: the report is stored as it is. */
export type StoredReport = Record<string, number>;

/** A charge of our day may stand in the report of a neighbouring one. */
const neighbourDays = 1;

/**
 * Stores a day's report (`rows` as `spooledReport` writes them) and compares it with what is booked, in the caller's
 * transaction. A report that has changed takes the place of what was stored; one that has not changes nothing.
 */
export async function storeReport(
  tx: Tx,
  work: Comparing,
  date: string,
  totals: ReportTotals,
  rows: AsyncIterable<Uint8Array>,
): Promise<StoredReport> {
  const { act, gateway } = work;
  const report: ReportKey = { merchantId: act.merchantId, gateway, date };
  const standing = await lockReport(tx, report);
  if (standing?.digest === totals.digest) return {};
  await recordAct(tx, act);
  await putReport(tx, report, totals, act.at);
  if (standing !== undefined) await deleteLines(tx, report);
  const copied = await copyLines(tx, rows);
  assertState(copied === totals.lines, `${copied} report lines stored of ${totals.lines}`);
  const day = Temporal.PlainDate.from(date);
  const compared = await compareReports(tx, work, {
    from: day.subtract({ days: neighbourDays }).toString(),
    to: day.add({ days: neighbourDays }).toString(),
  });
  return {
    [standing === undefined ? 'stored' : 'replaced']: 1,
    lines: totals.lines,
    matched: totals.lines - (await linesInDispute(tx, report)),
    ...compared,
  };
}
