import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { SettlementLine } from '../gateways/gateway.ts';
import { uuidOf } from '../ids.ts';
import type { Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import {
  insertReport,
  matchStagedLines,
  paymentsMissingThere,
  type ReportTotals,
  type StagedLine,
  stageLines,
} from './queries.ts';

/** Open alerts whose cause starts so hold the watermark back until a person has acknowledged them. */
export const differsCause = 'SETTLEMENT_DIFFERS ';

export type StoredReport = Record<
  'stored' | 'lines' | 'matched' | 'unmatched' | 'differs' | 'missing_here' | 'missing_there',
  number
>;

const nothing: StoredReport = {
  stored: 0,
  lines: 0,
  matched: 0,
  unmatched: 0,
  differs: 0,
  missing_here: 0,
  missing_there: 0,
};

/** A charge is captured within a week of its start: a day's payments are looked for among the ids made since then. */
const chargeLivesDays = 7;

/** Stores a day's report and compares it with what is booked, line by line. A report that is stored stays as it is. */
export async function storeReport(
  tx: Tx,
  work: { act: Act; ids: Ids; gateway: string; date: string; timezone: string },
  totals: ReportTotals,
  lines: AsyncIterable<StagedLine>,
): Promise<StoredReport> {
  const { act, gateway, date } = work;
  const { merchantId } = act;
  if (!(await insertReport(tx, { merchantId, gateway, date, at: act.at, ...totals }))) return nothing;
  await recordAct(tx, act);
  const staged = await stageLines(tx, lines);
  if (staged !== totals.lines)
    throw new Error(`impossible state: ${staged} report lines stored of ${totals.lines}`);
  const result: StoredReport = { ...nothing, stored: 1, lines: staged };
  for (const { finding, count } of await matchStagedLines(tx, merchantId, gateway, date))
    result[finding] = count;
  const missing = await paymentsMissingThere(tx, merchantId, gateway, idsOfDay(date, work.timezone));
  result.missing_there = missing.missing;
  if (result.differs + result.missing_here + result.missing_there > 0) {
    await raiseAlert(tx, work.ids.uuid(), act.at, {
      merchantId,
      level: 'now',
      cause: `${differsCause}${date}`,
      message:
        `the gateway's report of ${date}: ${result.differs} lines differ, ${result.missing_here} are unknown here, ` +
        `${result.missing_there} payments (${missing.amount}) are not in it; no bill goes on in dunning until this is acknowledged`,
    });
  }
  return result;
}

/** Ids begin with the milliseconds of their making. */
export function idsOfDay(date: string, timezone: string): { date: string; fromId: string; untilId: string } {
  const day = Temporal.PlainDate.from(date);
  const startOf = (plain: Temporal.PlainDate): string => {
    const hex = plain.toZonedDateTime(timezone).epochMilliseconds.toString(16).padStart(12, '0');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-0000-0000-000000000000`;
  };
  return {
    date,
    fromId: startOf(day.subtract({ days: chargeLivesDays })),
    untilId: startOf(day.add({ days: 1 })),
  };
}

export function staged(line: SettlementLine, lineNo: number): StagedLine {
  return { ...line, lineNo, chargeId: chargeIdOf(line.reference) };
}

export function chargeIdOf(reference: string | null): string | null {
  if (reference === null) return null;
  try {
    return uuidOf(reference);
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}
