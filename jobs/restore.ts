import { basename, join } from 'node:path';
import { Temporal } from 'temporal-polyfill';
import { pageLivesMinutes } from '../billing/checkout/start.ts';
import type { NewResult, RequestLine } from '../billing/debits/queries.ts';
import type { BillingFile } from '../billing/exchanges/file.ts';
import { waitingFiles } from '../billing/exchanges/queries.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { undeliveredFiles } from '../billing/outward/queries.ts';
import { assertState } from '../billing/refusal.ts';
import { askNow, recordStep, type ToldUnreachedRow } from '../billing/restores/queries.ts';
import { listedFrom, type OpenRestore, type Step } from '../billing/restores/restore.ts';
import { takeInCharges } from '../billing/restores/take-in-charges.ts';
import { type ToldRequest, takeInResults } from '../billing/restores/take-in-debits.ts';
import { type ArchivedFile, takeInFiles } from '../billing/restores/take-in-files.ts';
import { takeInMessages } from '../billing/restores/take-in-messages.ts';
import {
  keepNumbers,
  type SettledAsTold,
  settleAsTold,
  type Told,
  type ToldAdjustment,
  type ToldEnd,
  type ToldEnrolment,
  type ToldFile,
  takeInTold,
  Unreadable,
} from '../billing/restores/take-in-told.ts';
import {
  type ArchiveHead,
  archivedFrom,
  type OutwardHead,
  openArchive,
  readHead,
  toldBeside,
} from '../files/archive.ts';
import { readBack } from '../files/standard/read-back.ts';
import type { OutwardCsvKind, Row } from '../files/standard/write.ts';
import { learnAnswers } from './debit.ts';
import { ingestNext } from './ingest.ts';
import type { Counts, Job } from './job.ts';
import type { Ports } from './ports.ts';
import { messageOf, runJob, type Worker } from './run.ts';
import { trace } from './trace.ts';

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
  settled: SettledAsTold;
  /** Archived files whose head cannot be read, with why. */
  unreadable: Map<string, unknown>;
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
  const actor = `${options.by} reconciles after a restore`;
  const work: Work = {
    ports,
    merchant,
    actor,
    options,
    unreadable: new Map(),
    settled: { returned: 0, cancelled: 0 },
  };
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
  // In this order: bills before what was sent and taken for them, and what was told final before money that came later.
  await step('files', () => learnFiles(work));
  await step('messages', () => learnMessages(work));
  await step('charges', async () => {
    await askAboutOpen(work);
    const results = await learnDebits(work);
    const unread = await settleTold(
      work,
      new Set(['dunning_ended', 'paper', 'recalled', 'replaced', 'cancelled_by_merchant']),
    );
    const learned = await learnCharges(work);
    const counts = results > 0 ? { ...learned.counts, debit_results: results } : learned.counts;
    return { counts, leftOver: learned.leftOver ?? unread };
  });
  await step('told', async () => {
    const learned = await learnTold(work);
    return { ...learned, counts: { ...learned.counts, ...work.settled } };
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
  const counts = { archived: archived.length, recovered, bills: 0 };
  let waiting = await waitingFiles(ports.db, merchant.id);
  for (let before = ''; waiting.length > 0 && idsOf(waiting) !== before; ) {
    before = idsOf(waiting);
    if (waiting.some(takesBillsBack)) await learnAhead(work);
    const end = await runHere(work, ingestNext);
    counts.bills += end.counts.bills ?? 0;
    waiting = await waitingFiles(ports.db, merchant.id);
  }
  const left = waiting.length === 0 ? null : `${waiting.length} files are not read: seikyu runs --job ingest`;
  return { counts, leftOver: withUnreadable(work, left) };
}

function idsOf(files: readonly BillingFile[]): string {
  return files.map(({ id }) => id).join();
}

/** Only `standard/2` names the bill that a new one corrects. */
function takesBillsBack({ kind, layout }: BillingFile): boolean {
  return kind === 'cancel' || (kind === 'billing' && layout === 'standard/2');
}

/**
 * Such a file came too late for bills that were paid, returned or recalled before it, and must come too late again. What is
 * of no bill here yet is looked at again once all files are read.
 */
async function learnAhead(work: Work): Promise<void> {
  await askAboutOpen(work);
  await settleTold(work, new Set(['dunning_ended', 'paper', 'recalled']));
  const { from, until, signal } = await span(work);
  const list = work.ports.gateway.listCharges(work.merchant.code, from.toString(), until.toString(), signal);
  await takeInCharges(work.ports, { ...work, onlyOfBillsHere: true }, list);
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
  if (asked > 0) await runHere(work, trace);
}

/**
 * What banks were asked for, and what they answered, in this order: debits are paid here before it is looked at what the
 * merchant was told of them. Returns how many results were forgotten.
 */
async function learnDebits(work: Work): Promise<number> {
  const { ports, merchant } = work;
  if (merchant.settings.autopay.directDebit === null) return 0;
  // What is not true of a request is said with the other files.
  for await (const file of toldFiles(work)) if (file.kind === 'debit') await takeInTold(ports, work, file);
  const archived: NewResult[] = [];
  for await (const { path, head } of heads(work))
    if (head.what === 'debit_result') archived.push({ ...head, archivePath: path });
  const recovered = await takeInResults(ports, work, archived);
  if (archived.length > 0) await runHere(work, learnAnswers);
  return recovered;
}

/** Returns what cannot be read: captures are learned all the same, a card that was charged is never charged again for it. */
async function settleTold(work: Work, ends: ReadonlySet<ToldEnd>): Promise<string | null> {
  let unread: string | null = null;
  for await (const file of toldFiles(work)) {
    try {
      await settleAsTold(work.ports, work, file, ends, work.settled);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      unread ??= `which bills ${file.name} told to be unpaid or cancelled cannot be read in the archive`;
    }
  }
  return unread;
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
  const differences = new Map<string, string>();
  for await (const file of toldFiles(work)) {
    try {
      await keepNumbers(ports, work, file);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      differences.set(file.id, `which numbers ${file.name} gave cannot be read in the archive`);
    }
  }
  for await (const file of toldFiles(work)) {
    work.options.stop.throwIfAborted();
    counts.archived += 1;
    const { recovered, difference } = await takeInTold(ports, work, file);
    if (recovered) counts.recovered += 1;
    if (difference !== null) differences.set(file.id, difference);
  }
  counts.differing = differences.size;
  const [first] = differences.values();
  const others = differences.size > 1 ? `, and ${differences.size - 1} more files` : '';
  return { counts, leftOver: withUnreadable(work, first === undefined ? null : `${first}${others}`) };
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

async function runHere({ ports, merchant, options }: Work, job: Job) {
  await ports.clock.refresh();
  const now = ports.clock.now().toZonedDateTimeISO(merchant.settings.timezone);
  const { worker, stop } = options;
  const businessDate = now.toPlainDate().toString();
  const end = await runJob(ports, job, { merchant, businessDate, worker, stop, evenInSafeMode: true });
  if (end.outcome === 'busy') throw new Error(`${job.name} is already under way in process ${end.owner}`);
  if (end.failure !== null) throw end.failure;
  return end;
}

/** What the archive has from the forgotten time on. Ids begin with the milliseconds of their making. */
async function* heads(work: Work): AsyncGenerator<{ path: string; head: ArchiveHead }> {
  const { ports, merchant, options, unreadable } = work;
  const fromMs = listedFrom(options.restore).epochMilliseconds;
  const hex = fromMs.toString(16).padStart(12, '0');
  const fromId = `${hex.slice(0, 8)}-${hex.slice(8, 12)}`;
  const folder = join(ports.archiveFolder, merchant.code);
  // Made before, and delivered perhaps in the forgotten time.
  const before = (await undeliveredFiles(ports.db, merchant.id)).filter(({ id }) => id < fromId);
  const paths = [
    ...before.map(({ id }) => join(folder, id)),
    ...(await archivedFrom(ports.disk, folder, fromId)),
  ];
  for (const path of paths) {
    try {
      const head = await readHead(ports.disk, [ports.sealer.archiveKey], path);
      if (head !== null) yield { path, head };
    } catch (cause) {
      unreadable.set(basename(path), cause);
    }
  }
}

/** One damaged file hides no other one; what it was is not known, so that it is said. */
function withUnreadable(work: Work, leftOver: string | null): string | null {
  const [first] = work.unreadable;
  if (first === undefined) return leftOver;
  const said = `${work.unreadable.size} heads in the archive cannot be read, first ${first[0]}: ${messageOf(first[1])}`;
  return leftOver === null ? said : `${leftOver}; ${said}`;
}

async function* toldFiles(work: Work): AsyncGenerator<ToldFile> {
  const { ports, merchant } = work;
  const keys = [ports.sealer.archiveKey];
  for await (const { path, head } of heads(work)) {
    if (head.what !== 'outward') continue;
    const beside = toldBeside(path);
    const told = async function* <Of>(kind: OutwardCsvKind, rowOf: (fields: Row, rowNo: number) => Of) {
      if (head.kind !== kind) return;
      const content = openArchive(ports.disk, keys, (await ports.disk.exists(beside)) ? beside : path);
      let rowNo = 0;
      for await (const rows of readBack(content, { ...head, kind, merchant: merchant.code }))
        yield rows.map((fields) => rowOf(fields, ++rowNo));
    };
    yield {
      ...head,
      payout: await payoutOf(
        head,
        told('settlement', (fields) => fields.at(-1) ?? ''),
      ),
      content: () => readable(openArchive(ports.disk, keys, path)),
      results: () => readable(told('result', toldOf)),
      enrolments: () => readable(told('enrolment', enrolmentOf)),
      unreached: () => readable(told('unreached', unreachedOf)),
      adjustments: () => readable(told('adjustment', adjustmentOf)),
      debits: () =>
        readable(head.kind === 'debit' ? toldDebits(openArchive(ports.disk, keys, beside)) : none()),
    };
  }
}

async function* none(): AsyncGenerator<never> {
  yield* [];
}

/** As `deliver` keeps it: a page of lines a row. */
async function* toldDebits(content: AsyncIterable<Buffer>): AsyncGenerator<ToldRequest> {
  let text = '';
  for await (const piece of content) {
    text += piece.toString('latin1');
    const rows = text.split('\n');
    text = rows.pop() ?? '';
    for (const row of rows) yield toldRequestOf(JSON.parse(row));
  }
}

function toldRequestOf(
  rows: (Omit<RequestLine, 'account_digest'> & { account_digest: string })[],
): ToldRequest {
  const [first] = rows;
  assertState(first, 'a page of a request without lines');
  return {
    debitOn: first.debit_on,
    consignorCode: first.consignor_code,
    bank: first.bank,
    resultDueOn: first.result_due_on,
    lines: rows.map((row) => ({
      lineNo: row.line_no,
      chargeId: row.charge_id,
      invoiceId: row.invoice_id,
      customerKey: row.customer_key,
      accountDigest: Buffer.from(row.account_digest, 'hex'),
      amount: row.amount,
    })),
  };
}

/** Whatever is wrong with what the archive has: it is one file that cannot be read. */
async function* readable<Piece>(pieces: AsyncIterable<Piece>): AsyncGenerator<Piece> {
  try {
    yield* pieces;
  } catch (cause) {
    throw new Unreadable(messageOf(cause), { cause });
  }
}

/** Heads that were written before they named it: each row does. */
async function payoutOf(
  head: OutwardHead,
  payouts: AsyncIterable<readonly string[]>,
): Promise<string | null> {
  if (head.kind !== 'settlement') return null;
  if (head.payout !== undefined && head.payout !== null) return head.payout;
  let payout: string | null = null;
  try {
    for await (const rows of readable(payouts)) payout = rows[0] ?? payout;
  } catch (error) {
    if (error instanceof Unreadable) return null;
    throw error;
  }
  return payout;
}

/** Columns as `resultRow` writes them. */
function toldOf(fields: Row, rowNo: number): Told {
  const [, billingNumber = '', , outcome = '', reason = '', method = '', amount = '', , , knownAt = ''] =
    fields;
  return {
    rowNo,
    billingNumber,
    outcome,
    reason,
    method,
    amount: Number(amount),
    knownAt,
    reference: fields[10] ?? '',
  };
}

/** Columns as `enrolmentRow` writes them. */
function enrolmentOf(fields: Row, rowNo: number): ToldEnrolment {
  const [, customerNumber = '', what = ''] = fields;
  return { rowNo, customerNumber, what };
}

/** Columns as `unreachedRow` writes them. */
function unreachedOf(fields: Row, rowNo: number): ToldUnreachedRow {
  const [, billingNumber = '', , cause = '', , barcode = '', occurredAt = ''] = fields;
  return { rowNo, billingNumber, cause, barcode: barcode === '' ? null : barcode, occurredAt };
}

/** Columns as `adjustmentRow` writes them. */
function adjustmentOf(fields: Row, rowNo: number): ToldAdjustment {
  const [, number = '', , kind = ''] = fields;
  return { rowNo, number: Number(number), kind, reference: fields[8] ?? '' };
}
