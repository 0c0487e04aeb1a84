import { Temporal } from 'temporal-polyfill';
import { raiseAlert } from '../billing/alerts/queries.ts';
import { takesWhatWasAsked } from '../billing/autopay/charge-batch.ts';
import type { Learned } from '../billing/charges/charge.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import type { LookupAnswer, SettlementLine } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import {
  matchLearnedLines,
  type ReportTotals,
  type StagedLine,
  storedReportDates,
  unlearnedLines,
} from '../billing/reconciliation/queries.ts';
import { staged, storeReport } from '../billing/reconciliation/store-report.ts';
import { advanceWatermark, reportsSince, unreportedSince } from '../billing/reconciliation/watermark.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { atMostAtOnce } from '../billing/trace/ask.ts';
import type { ChunkContext, Counts, Job, JobContext } from './job.ts';

type Payload = Record<string, unknown> & { dates: string[] };

/** After a long outage the missing days come in over several chunks. */
const reportsPerChunk = 50;
/** So many days in a row without a report, and those after them are not asked for either. */
const missingInARow = 3;
const downloadDeadlineMs = 600_000;
/** A report that is late by so much is no delay any more. */
const reportLateDays = 2;
const asksAtOnce = 16;
const linesPerBatch = 200;

/** Compares what the gateway says it took with what is booked, both ways, and moves the watermark. */
export const reconcile: Job<Payload> = {
  name: 'reconcile',
  does: "compares the gateway's settlement reports with the ledger, line by line",
  attention: ['differs', 'missing_here', 'missing_there', 'report_late', 'unconfirmed'],

  /** One chunk always: also without a new report the watermark may move, because what was open is decided. */
  async plan(context) {
    const dates = await missingDates(context);
    const chunks: Payload[] = [];
    do chunks.push({ dates: dates.splice(0, reportsPerChunk) });
    while (dates.length > 0);
    return chunks;
  },

  async runChunk(context, { dates }) {
    const counts: Counts = {};
    let missing = 0;
    for (const date of dates) {
      if (context.stop.aborted || missing >= missingInARow) break;
      const taken = await takeReport(context, date);
      missing = taken.stored === undefined ? missing + 1 : 0;
      for (const [name, count] of Object.entries(taken)) counts[name] = (counts[name] ?? 0) + count;
      context.progress(dates.indexOf(date) + 1, dates.length, `settlement report of ${date}`);
    }
    await context.ports.crash('reconcile.after_reports');
    const learned = await learnFromReports(context);
    await advance(context);
    return { ...counts, ...learned };
  },

  async dryRun(context) {
    return { reports: (await missingDates(context)).length };
  },
};

function yesterdayOf(businessDate: string): string {
  return Temporal.PlainDate.from(businessDate).subtract({ days: 1 }).toString();
}

async function missingDates({ ports, merchant, businessDate }: JobContext): Promise<string[]> {
  const yesterday = yesterdayOf(businessDate);
  const since = await reportsSince(ports.db, merchant);
  const stored = await storedReportDates(ports.db, merchant.id, ports.gateway.name, since, yesterday);
  const missing: string[] = [];
  for (
    let day = Temporal.PlainDate.from(since);
    Temporal.PlainDate.compare(day, yesterday) <= 0;
    day = day.add({ days: 1 })
  ) {
    if (!stored.has(day.toString())) missing.push(day.toString());
  }
  return missing;
}

/**
 * The report goes to disk first: a day may have millions of lines, memory stays small, and no transaction is open while
 * the gateway sends. Then one transaction stores and compares it whole.
 */
async function takeReport(context: ChunkContext, date: string): Promise<Counts> {
  const { ports, merchant, fence } = context;
  const path = `${ports.archiveFolder}/reports/${context.act.id}-${date}.ndjson`;
  const totals: ReportTotals = { lines: 0, amount: 0, fee: 0, feeTax: 0 };
  try {
    try {
      const lines = await ports.gateway.settlementReport(
        merchant.code,
        date,
        ports.clock.deadline(downloadDeadlineMs),
      );
      if (lines === null) return await notReady(context, date, 'not_ready');
      await ports.disk.write(path, spooled(lines, totals));
    } catch (error) {
      ports.log.warn(
        { merchant: merchant.code, date, error: error instanceof Error ? error.message : String(error) },
        'the settlement report could not be read; the next run tries again',
      );
      return await notReady(context, date, 'unavailable');
    }
    await ports.crash('reconcile.after_download');
    await ports.clock.refresh();
    const act = { ...context.act, at: ports.clock.now() };
    const stored = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      return storeReport(
        tx,
        { act, ids: ports.ids, gateway: ports.gateway.name, date, timezone: merchant.settings.timezone },
        totals,
        unspooled(ports.disk.read(path)),
      );
    });
    await ports.crash('reconcile.after_store');
    return { ...stored };
  } finally {
    await ports.disk.remove(path);
  }
}

async function notReady(
  { ports, merchant, businessDate }: ChunkContext,
  date: string,
  why: 'not_ready' | 'unavailable',
): Promise<Counts> {
  const lateDays = Temporal.PlainDate.from(date).until(businessDate, { largestUnit: 'days' }).days;
  if (lateDays <= reportLateDays) return { [why]: 1 };
  await raiseAlert(ports.db, ports.ids.uuid(), ports.clock.now(), {
    merchantId: merchant.id,
    level: 'now',
    cause: `SETTLEMENT_REPORT_LATE ${date}`,
    message: `the gateway's report of ${date} is ${lateDays} days late; reminders and retries wait for it`,
  });
  return { [why]: 1, report_late: 1 };
}

async function* spooled(
  lines: AsyncIterable<SettlementLine>,
  totals: ReportTotals,
): AsyncIterable<Uint8Array> {
  let text = '';
  for await (const line of lines) {
    const sign = line.kind === 'refund' ? -1 : 1;
    totals.lines += 1;
    totals.amount += sign * line.amount;
    totals.fee += line.fee;
    totals.feeTax += line.feeTax;
    text += `${JSON.stringify(line)}\n`;
    if (text.length > 65_536) {
      yield Buffer.from(text, 'utf8');
      text = '';
    }
  }
  yield Buffer.from(text, 'utf8');
}

async function* unspooled(content: AsyncIterable<Uint8Array>): AsyncIterable<StagedLine> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  let lineNo = 0;
  for await (const part of content) {
    const texts = (rest + decoder.decode(part, { stream: true })).split('\n');
    rest = texts.pop() ?? '';
    for (const text of texts) {
      lineNo += 1;
      yield staged(JSON.parse(text) as SettlementLine, lineNo);
    }
  }
}

/** Money that the report proves and that is not booked: the gateway is asked for its details, then it is booked like any other. */
async function learnFromReports(context: ChunkContext): Promise<Counts> {
  const { ports, merchant, fence } = context;
  const { gateway } = ports;
  const since = await unreportedSince(ports.db, merchant);
  let learnedCount = 0;
  for (;;) {
    const lines = await unlearnedLines(ports.db, merchant.id, gateway.name, since, linesPerBatch);
    if (lines.length === 0) break;
    const answers = await atMostAtOnce(asksAtOnce, lines, async (line) => ({
      line,
      answer: await gateway
        .lookup(
          merchant.code,
          referenceOf(line.charge_id),
          ports.clock.deadline(gateway.semantics.callDeadlineMs),
        )
        .catch((): LookupAnswer => ({ kind: 'unknown', why: 'the call broke' })),
    }));
    const learned = answers.flatMap(({ line, answer }): Learned[] =>
      answer.kind === 'succeeded' && takesWhatWasAsked(answer.captured, line)
        ? [{ chargeId: line.charge_id, outcome: answer }]
        : [],
    );
    await ports.clock.refresh();
    const act = { ...context.act, at: ports.clock.now() };
    const matched = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      await recordOutcomes(tx, {
        act,
        timezone: merchant.settings.timezone,
        learnedBy: 'report',
        learned,
        ids: ports.ids,
        sealer: ports.sealer,
      });
      return matchLearnedLines(tx, merchant.id, gateway.name, since);
    });
    learnedCount += matched;
    const unconfirmed = lines.length - matched;
    if (unconfirmed <= 0) continue;
    // Asked about again by the next run; the watermark waits.
    await raiseAlert(ports.db, ports.ids.uuid(), act.at, {
      merchantId: merchant.id,
      level: 'now',
      cause: 'SETTLEMENT_UNCONFIRMED',
      message: `the gateway reports money for charge ${lines[0]?.charge_id} and perhaps others, but does not confirm it when asked`,
      occurrences: unconfirmed,
    });
    return { learned_from_report: learnedCount, unconfirmed };
  }
  return learnedCount > 0 ? { learned_from_report: learnedCount } : {};
}

async function advance({ ports, merchant, businessDate, fence }: ChunkContext): Promise<void> {
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await advanceWatermark(tx, merchant, ports.gateway.name, yesterdayOf(businessDate));
  });
}
