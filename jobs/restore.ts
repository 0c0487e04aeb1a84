import { join } from 'node:path';
import { Temporal } from 'temporal-polyfill';
import { pageLivesMinutes } from '../billing/checkout/start.ts';
import { waitingFiles } from '../billing/exchanges/queries.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { undeliveredFiles } from '../billing/outward/queries.ts';
import { askNow, recordStep } from '../billing/restores/queries.ts';
import { listedFrom, type OpenRestore, type Step } from '../billing/restores/restore.ts';
import { takeInCharges } from '../billing/restores/take-in-charges.ts';
import { type ArchivedFile, takeInFiles } from '../billing/restores/take-in-files.ts';
import { takeInMessages } from '../billing/restores/take-in-messages.ts';
import {
  keepNumber,
  returnAsTold,
  type Told,
  type ToldAdjustment,
  type ToldEnrolment,
  type ToldFile,
  takeInTold,
} from '../billing/restores/take-in-told.ts';
import { type ArchiveHead, headsFrom, openArchive, readHead } from '../files/archive.ts';
import { type CsvRecord, CsvSplitter } from '../files/split.ts';
import type { Counts } from './job.ts';
import { jobs } from './jobs.ts';
import type { Ports } from './ports.ts';
import { messageOf, runJob, type Worker } from './run.ts';

export interface ReconcileRestore {
  restore: OpenRestore;
  worker: Worker;
  /** Who does it: stands on the acts. */
  by: string;
  stop: AbortSignal;
  say(line: string): void;
}

export interface ReconciledStep {
  step: Step;
  counts: Counts;
  /** Why it is not done, in a sentence; null = done. */
  leftOver: string | null;
}

/** A list may be long; silence this long is none. */
const listDeadlineMs = 3_600_000;
/** A customer who confirms in the page's last second still needs the gateway's answer. */
const pageGraceMs = 60_000;

interface Work {
  ports: Ports;
  merchant: Merchant;
  actor: string;
  options: ReconcileRestore;
}

/**
 * Learns from the archive, the carrier and the gateway what the database has forgotten, for one merchant. May be broken off
 * anywhere and done again: what is known already changes nothing. Each step is written down with what is left of it.
 */
export async function reconcileRestore(
  ports: Ports,
  merchant: Merchant,
  options: ReconcileRestore,
): Promise<ReconciledStep[]> {
  const work: Work = { ports, merchant, actor: `${options.by} reconciles after a restore`, options };
  const done: ReconciledStep[] = [];
  const step = async (name: Step, learn: () => Promise<Omit<ReconciledStep, 'step'>>): Promise<void> => {
    options.stop.throwIfAborted();
    let learned: Omit<ReconciledStep, 'step'>;
    try {
      learned = await learn();
    } catch (error) {
      if (options.stop.aborted) throw error;
      learned = { counts: {}, leftOver: messageOf(error) };
    }
    await ports.clock.refresh();
    await ports.db.transaction((tx) =>
      recordStep(tx, {
        merchantId: merchant.id,
        restoreId: options.restore.id,
        step: name,
        at: ports.clock.now(),
        ...learned,
      }),
    );
    done.push({ step: name, ...learned });
    options.say(`${merchant.code} ${name}: ${learned.leftOver ?? 'done'}`);
  };
  const told = { returned: 0 };
  // In this order: bills before what was sent and taken for them, and what was told unpaid before money that came later.
  await step('files', () => learnFiles(work));
  await step('messages', () => learnMessages(work));
  await step('charges', async () => {
    await askAboutOpen(work);
    for await (const file of toldFiles(work)) told.returned += await returnAsTold(ports, work, file);
    return learnCharges(work);
  });
  await step('told', async () => {
    const learned = await learnTold(work);
    return { ...learned, counts: { ...learned.counts, returned: told.returned } };
  });
  return done;
}

async function learnFiles(work: Work): Promise<Omit<ReconciledStep, 'step'>> {
  const { ports, merchant } = work;
  const archived: ArchivedFile[] = [];
  for await (const { path, head } of heads(work)) {
    if (head.what === 'inward') archived.push({ ...head, archivePath: path });
  }
  const recovered = await takeInFiles(ports, work, archived);
  const waiting = await waitingFiles(ports.db, merchant.id);
  const counts = { archived: archived.length, recovered };
  if (waiting.length === 0) return { counts, leftOver: null };
  const end = await runHere(work, 'ingest');
  const left = await waitingFiles(ports.db, merchant.id);
  return {
    counts: { ...counts, bills: end.counts.bills ?? 0 },
    leftOver: left.length === 0 ? null : `${left.length} files are not read: seikyu runs --job ingest`,
  };
}

async function learnMessages(work: Work): Promise<Omit<ReconciledStep, 'step'>> {
  const { ports, merchant, options } = work;
  const { callDeadlineMs, notFoundConclusiveAfterMs } = ports.carrier.semantics;
  const { from, until, signal } = await span(work);
  const list = ports.carrier.list(merchant.code, from.toString(), until.toString(), signal);
  const counts = await takeInMessages(ports, work, list);
  const late = tooEarly(options.restore, until, callDeadlineMs * 2 + notFoundConclusiveAfterMs);
  const unknown =
    counts.unknown_bills === 0 ? null : `${counts.unknown_bills} SMS are of bills that are not here`;
  return { counts, leftOver: late ?? unknown };
}

/** Charges that are remembered without an outcome, as trace does it. */
async function askAboutOpen(work: Work): Promise<void> {
  const { ports, merchant } = work;
  await ports.clock.refresh();
  const asked = await ports.db.transaction((tx) => askNow(tx, merchant.id, ports.clock.now()));
  if (asked > 0) await runHere(work, 'trace');
}

async function learnCharges(work: Work): Promise<Omit<ReconciledStep, 'step'>> {
  const { ports, merchant, options } = work;
  const { callDeadlineMs, notFoundConclusiveAfterMs } = ports.gateway.semantics;
  const { from, until, signal } = await span(work);
  const list = ports.gateway.listCharges(merchant.code, from.toString(), until.toString(), signal);
  const counts = await takeInCharges(ports, work, list);
  const lastPageMs = pageLivesMinutes * 60_000 + pageGraceMs;
  const late = tooEarly(
    options.restore,
    until,
    Math.max(lastPageMs, callDeadlineMs * 2 + notFoundConclusiveAfterMs),
  );
  const left =
    counts.unanswered > 0
      ? `the gateway did not answer about ${counts.unanswered} charges`
      : counts.findings > 0
        ? `${counts.findings} captures are not provably of a bill here: seikyu restore status`
        : late;
  return { counts, leftOver: left };
}

async function learnTold(work: Work): Promise<Omit<ReconciledStep, 'step'>> {
  const { ports } = work;
  const counts = { archived: 0, recovered: 0, differing: 0 };
  const differing: string[] = [];
  for await (const file of toldFiles(work)) await keepNumber(ports, work, file);
  for await (const file of toldFiles(work)) {
    work.options.stop.throwIfAborted();
    counts.archived += 1;
    const taken = await takeInTold(ports, work, file);
    if (taken === 'recovered') counts.recovered += 1;
    if (taken === 'differs') differing.push(file.name);
  }
  counts.differing = differing.length;
  return {
    counts,
    leftOver:
      differing.length === 0 ? null : `the merchant was told in ${differing[0]} what is not true here`,
  };
}

/** What was begun before safe mode may still have had its effect after the list was read. */
function tooEarly(restore: OpenRestore, until: Temporal.Instant, effectMs: number): string | null {
  const settled = Temporal.Instant.from(restore.began_at).add({ milliseconds: effectMs });
  return Temporal.Instant.compare(until, settled) > 0
    ? null
    : `a page or call from before may still take effect: reconcile again after ${settled.toString({ smallestUnit: 'second' })}`;
}

async function span({ ports, options }: Work) {
  await ports.clock.refresh();
  const signal = AbortSignal.any([options.stop, ports.clock.deadline(listDeadlineMs)]);
  return { from: listedFrom(options.restore), until: ports.clock.now(), signal };
}

async function runHere({ ports, merchant, options }: Work, job: 'ingest' | 'trace') {
  await ports.clock.refresh();
  const now = ports.clock.now().toZonedDateTimeISO(merchant.settings.timezone);
  const { worker, stop } = options;
  const businessDate = now.toPlainDate().toString();
  const end = await runJob(ports, jobs[job], { merchant, businessDate, worker, stop, evenInSafeMode: true });
  if (end.outcome === 'busy') throw new Error(`${job} is already under way in process ${end.owner}`);
  if (end.failure !== null) throw end.failure;
  return end;
}

/** What the archive has from the forgotten time on. Ids begin with the milliseconds of their making. */
async function* heads({
  ports,
  merchant,
  options,
}: Work): AsyncGenerator<{ path: string; head: ArchiveHead }> {
  const fromMs = listedFrom(options.restore).epochMilliseconds;
  const hex = fromMs.toString(16).padStart(12, '0');
  const fromId = `${hex.slice(0, 8)}-${hex.slice(8, 12)}`;
  const folder = join(ports.archiveFolder, merchant.code);
  const keys = [ports.sealer.archiveKey];
  // Made before, and delivered perhaps in the forgotten time.
  for (const { id } of await undeliveredFiles(ports.db, merchant.id)) {
    const head = id < fromId ? await readHead(ports.disk, keys, join(folder, id)) : null;
    if (head !== null) yield { path: join(folder, id), head };
  }
  yield* headsFrom(ports.disk, keys, folder, fromId);
}

async function* toldFiles(work: Work): AsyncGenerator<ToldFile> {
  const { ports } = work;
  for await (const { path, head } of heads(work)) {
    if (head.what !== 'outward') continue;
    const content = () => openArchive(ports.disk, [ports.sealer.archiveKey], path);
    yield {
      ...head,
      content,
      results: () => (head.kind === 'result' ? rowsOf(content(), toldOf) : none()),
      enrolments: () => (head.kind === 'enrolment' ? rowsOf(content(), enrolmentOf) : none()),
      adjustments: () => (head.kind === 'adjustment' ? rowsOf(content(), adjustmentOf) : none()),
    };
  }
}

async function* none(): AsyncGenerator<never> {
  yield* [];
}

const recordBytesMax = 65_536;

/** Our own files: what they hold was written by us. */
async function* rowsOf<Row>(
  content: AsyncIterable<Buffer>,
  rowOf: (fields: readonly string[], rowNo: number) => Row,
): AsyncGenerator<Row[]> {
  const splitter = new CsvSplitter({ recordBytesMax, encoding: 'utf-8' });
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rowNo = 0;
  const take = (records: readonly CsvRecord[]): Row[] =>
    records.filter(({ fields }) => fields[0] === 'R').map(({ fields }) => rowOf(fields, ++rowNo));
  for await (const piece of content) {
    const records: CsvRecord[] = [];
    splitter.push(decoder.decode(piece, { stream: true }), records);
    yield take(records);
  }
  const last: CsvRecord[] = [];
  splitter.end(last);
  yield take(last);
}

/** Columns as `resultRow` writes them. */
function toldOf(fields: readonly string[], rowNo: number): Told {
  const [, billingNumber = '', , outcome = '', , method = '', amount = '', , , knownAt = '', reference = ''] =
    fields;
  return { rowNo, billingNumber, outcome, method, amount: Number(amount), knownAt, reference };
}

/** Columns as `enrolmentRow` writes them. */
function enrolmentOf(fields: readonly string[], rowNo: number): ToldEnrolment {
  const [, customerNumber = '', what = ''] = fields;
  return { rowNo, customerNumber, what };
}

/** Columns as `adjustmentRow` writes them. */
function adjustmentOf(fields: readonly string[], rowNo: number): ToldAdjustment {
  const [, number = '', , kind = ''] = fields;
  return { rowNo, number: Number(number), kind, reference: fields[8] ?? '' };
}
