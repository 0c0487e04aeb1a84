import { Temporal } from 'temporal-polyfill';
import { recordAct } from '../billing/acts/queries.ts';
import { raiseStanding } from '../billing/alerts/queries.ts';
import { takesWhatWasAsked } from '../billing/autopay/charge-batch.ts';
import type { Learned } from '../billing/charges/charge.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import type { LookupAnswer } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import { type Comparing, compareReports, tellFindings } from '../billing/reconciliation/compare.ts';
import {
  countOpenFindings,
  daysInDispute,
  findingsBooked,
  settleFindings,
  storedReports,
  unlearnedLines,
} from '../billing/reconciliation/queries.ts';
import { noLines, spooledReport } from '../billing/reconciliation/spool.ts';
import { storeReport } from '../billing/reconciliation/store-report.ts';
import { advanceWatermark, reportsSince } from '../billing/reconciliation/watermark.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { atMostAtOnce } from '../billing/trace/ask.ts';
import type { ChunkContext, Counts, Job, JobContext } from './job.ts';
import { findUnconfirmed, takeBarcodeNews } from './reconcile-barcodes.ts';
import { payoutAttention, takePayouts } from './reconcile-payouts.ts';

type Payload = Record<string, unknown> & { dates: string[] };

/** After a long outage the missing days come in over several chunks. */
const reportsPerChunk = 50;
/** So many days in a row without a report, and those after them are not asked for either. */
const missingInARow = 3;
/** The reports of so many days before yesterday are read again by every run: lines come late, move and are corrected. */
const againDays = 3;
/** A day with an open finding is read again for so long. */
const disputeDays = 31;
/** Once a business date all payments of so many days are looked for: what was learned late stood in no report when it came. */
const lateDays = 10;
const downloadDeadlineMs = 600_000;
/** A report that is late by so much is no delay any more. */
const reportLateDays = 2;
const asksAtOnce = 16;
const linesPerBatch = 200;

/** Compares what the gateway says it took with what is booked, both ways, and moves the watermark. */
export const reconcile: Job<Payload> = {
  name: 'reconcile',
  does: "compares the gateway's settlement reports with the ledger, line by line, and reads its news of barcodes",
  attention: ['open_findings', 'report_late', 'unconfirmed', 'barcodes_strange', ...payoutAttention],

  /** One chunk always: also without a new report the watermark may move, because what was open is decided. */
  async plan(context) {
    const { missing, again } = await datesToRead(context);
    const dates = [...missing, ...again].sort();
    const chunks: Payload[] = [];
    do chunks.push({ dates: dates.splice(0, reportsPerChunk) });
    while (dates.length > 0);
    return chunks;
  },

  async runChunk(context, { dates }) {
    const { ports, merchant } = context;
    const counts: Counts = {};
    const [from = '', to = ''] = [dates[0], dates.at(-1)];
    const stored =
      dates.length === 0
        ? new Map<string, string | null>()
        : await storedReports(ports.db, merchant.id, ports.gateway.name, from, to);
    let missing = 0;
    for (const date of dates) {
      if (context.stop.aborted || missing >= missingInARow) break;
      const taken = await takeReport(context, date, stored.get(date));
      if (taken.missing === undefined) missing = 0;
      else if (!stored.has(date)) {
        missing += 1;
        taken.counts = await notThere(context, date, taken.missing);
      }
      for (const [name, count] of Object.entries(taken.counts)) counts[name] = (counts[name] ?? 0) + count;
      context.progress(dates.indexOf(date) + 1, dates.length, `settlement report of ${date}`);
    }
    await context.ports.crash('reconcile.after_reports');
    const heard = await takeBarcodeNews(context);
    const learned = await learnFromReports(context);
    const paidOut = await takePayouts(context);
    const concluded = await conclude(context);
    for (const [name, count] of Object.entries(concluded)) counts[name] = (counts[name] ?? 0) + count;
    return { ...counts, ...heard, ...learned, ...paidOut };
  },

  async dryRun(context) {
    const { missing, again } = await datesToRead(context);
    return { reports: missing.length, again: again.length };
  },
};

function yesterdayOf(businessDate: string): string {
  return Temporal.PlainDate.from(businessDate).subtract({ days: 1 }).toString();
}

/** Days whose report is not stored, and stored ones that may have changed. */
async function datesToRead({
  ports,
  merchant,
  businessDate,
}: JobContext): Promise<{ missing: string[]; again: string[] }> {
  const { db, gateway } = ports;
  const yesterday = yesterdayOf(businessDate);
  const since = await reportsSince(db, merchant);
  const stored = await storedReports(db, merchant.id, gateway.name, since, yesterday);
  const daysBack = (days: number) => Temporal.PlainDate.from(yesterday).subtract({ days }).toString();
  const disputed = new Set(await daysInDispute(db, merchant.id, gateway.name, daysBack(disputeDays)));
  const missing: string[] = [];
  const again: string[] = [];
  for (let day = since; day <= yesterday; day = Temporal.PlainDate.from(day).add({ days: 1 }).toString()) {
    if (!stored.has(day)) missing.push(day);
    else if (day >= daysBack(againDays) || disputed.has(day)) again.push(day);
  }
  return { missing, again };
}

function comparing({ ports, merchant, act }: ChunkContext): Comparing {
  return { act: { ...act, at: ports.clock.now() }, ids: ports.ids, merchant, gateway: ports.gateway.name };
}

interface Taken {
  counts: Counts;
  missing?: 'not_ready' | 'unavailable';
}

/**
 * The report goes to disk first: a day may have millions of lines, memory stays small, and no transaction is open while
 * the gateway sends. Then one transaction stores and compares it whole, unless it is the one that stands.
 */
async function takeReport(
  context: ChunkContext,
  date: string,
  standing: string | null | undefined,
): Promise<Taken> {
  const { ports, merchant, fence } = context;
  const path = `${ports.archiveFolder}/reports/${context.act.id}-${date}.copy`;
  const totals = noLines();
  try {
    try {
      const lines = await ports.gateway.settlementReport(
        merchant.code,
        date,
        ports.clock.deadline(downloadDeadlineMs),
      );
      if (lines === null) return { counts: {}, missing: 'not_ready' };
      const report = { merchantId: merchant.id, gateway: ports.gateway.name, date };
      await ports.disk.write(path, spooledReport(report, lines, totals));
    } catch (error) {
      ports.log.warn(
        { merchant: merchant.code, date, error: error instanceof Error ? error.message : String(error) },
        'the settlement report could not be read; the next run tries again',
      );
      return { counts: {}, missing: 'unavailable' };
    }
    await ports.crash('reconcile.after_download');
    if (totals.digest === standing) return { counts: {} };
    await ports.clock.refresh();
    const work = comparing(context);
    const counts = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      return storeReport(tx, work, date, totals, ports.disk.read(path));
    });
    await ports.crash('reconcile.after_store');
    return { counts };
  } finally {
    await ports.disk.remove(path);
  }
}

async function notThere(
  { ports, merchant, businessDate }: ChunkContext,
  date: string,
  why: 'not_ready' | 'unavailable',
): Promise<Counts> {
  const lateByDays = Temporal.PlainDate.from(date).until(businessDate, { largestUnit: 'days' }).days;
  if (lateByDays <= reportLateDays) return { [why]: 1 };
  await raiseStanding(ports.db, merchant.id, ports.clock.now(), [
    {
      id: ports.ids.uuid(),
      level: 'now',
      cause: `SETTLEMENT_REPORT_LATE ${date}`,
      message: `the gateway's report of ${date} is ${lateByDays} days late; reminders and retries wait for it`,
      occurrences: lateByDays,
    },
  ]);
  return { [why]: 1, report_late: 1 };
}

/** Money that the report proves and that is not booked: the gateway is asked for its details, then it is booked like any other. */
async function learnFromReports(context: ChunkContext): Promise<Counts> {
  const { ports, merchant, fence } = context;
  const { gateway } = ports;
  let learnedCount = 0;
  for (;;) {
    const lines = await unlearnedLines(ports.db, merchant.id, gateway.name, linesPerBatch);
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
    const booked = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      await recordOutcomes(tx, {
        act,
        timezone: merchant.settings.timezone,
        learnedBy: 'report',
        learned,
        ids: ports.ids,
        sealer: ports.sealer,
      });
      const settled = await findingsBooked(
        tx,
        merchant.id,
        lines.map((line) => line.charge_id),
      );
      if (settled.length > 0) await recordAct(tx, act);
      await settleFindings(tx, act, settled, false);
      return new Set(settled.map((finding) => finding.charge_id)).size;
    });
    learnedCount += booked;
    const unconfirmed = lines.length - booked;
    if (unconfirmed <= 0) continue;
    // Asked about again by the next run; the watermark waits.
    await raiseStanding(ports.db, merchant.id, act.at, [
      {
        id: ports.ids.uuid(),
        level: 'now',
        cause: 'SETTLEMENT_UNCONFIRMED',
        message: `the gateway reports money for charge ${lines[0]?.charge_id} and perhaps others, but does not confirm it when asked: seikyu findings list --merchant ${merchant.code}`,
        occurrences: unconfirmed,
      },
    ]);
    return { learned_from_report: learnedCount, unconfirmed };
  }
  return learnedCount > 0 ? { learned_from_report: learnedCount } : {};
}

/** What is open when all is read: a person is called for it, and the watermark stays before it. */
async function conclude(context: ChunkContext): Promise<Counts> {
  const { ports, merchant, businessDate, fence } = context;
  const yesterday = yesterdayOf(businessDate);
  await ports.clock.refresh();
  const work = comparing(context);
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    const from = Temporal.PlainDate.from(yesterday).subtract({ days: lateDays }).toString();
    const compared = fence.pass === 1 ? await compareReports(tx, work, { from, to: yesterday }) : {};
    await findUnconfirmed(tx, work, businessDate);
    await tellFindings(tx, work);
    await advanceWatermark(tx, merchant, ports.gateway.name, yesterday);
    const open = await countOpenFindings(tx, merchant.id);
    return { ...compared, ...(open > 0 ? { open_findings: open } : {}) };
  });
}
