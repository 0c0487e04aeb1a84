import { join } from 'node:path';
import { raiseStanding, resolveAlerts } from '../billing/alerts/queries.ts';
import { refuseUnsafeDatabase } from '../billing/autopay/plan.ts';
import { bookResult, matchResult, registerResult, tellOfUnanswered } from '../billing/debits/answer.ts';
import { type Asked, askForDebits } from '../billing/debits/ask.ts';
import { type AnswerRecord, type RenderDebits, ResultRefused } from '../billing/debits/debit.ts';
import { daysDue, openResults } from '../billing/debits/queries.ts';
import type { DirectDebitSettings } from '../billing/merchants/settings.ts';
import { Refusal } from '../billing/refusal.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { archiveFile, openArchive, removeArchived, writeHead } from '../files/archive.ts';
import { stopAfter } from '../files/bounded.ts';
import { doneName, doneSuffix, formatFileName } from '../files/standard/names.ts';
import type { RemoteEntry, RemoteStore } from '../files/store.ts';
import { debitHolderBytes, recordBytes } from '../files/zengin91/file.ts';
import { kanaBytes, toKana } from '../files/zengin91/kana.ts';
import { readDebitRecords, UnreadableDebits } from '../files/zengin91/read.ts';
import { DebitWriter } from '../files/zengin91/write.ts';
import { openExchange } from './exchange.ts';
import type { ChunkContext, Counts, Job } from './job.ts';

/** What a result may have, in bytes: the most that a request can have, and room for line ends. */
const resultBytesMax = 1_000_002 * 122;

/**
 * Debits bank accounts through files: takes the agency's results, books them, and asks for the debits whose day to ask has
 * come. One chunk for a merchant: files have gapless numbers, and results count before the next request is made. What it
 * writes down is uploaded by `deliver`.
 */
export const debit: Job = {
  name: 'debit',
  does: 'takes and books results of bank debits, and writes the files that ask for the next ones',
  attention: ['held', 'parked', 'late_results', 'unanswered'],

  async plan({ merchant }) {
    return merchant.settings.autopay.directDebit === null ? [] : [{}];
  },

  async runChunk(context) {
    const { directDebit } = context.merchant.settings.autopay;
    if (directDebit === null) return {};
    await refuseUnsafeDatabase(context.ports.db);
    const counts: Counts = {};
    const add = (name: string, count: number) => {
      if (count > 0) counts[name] = (counts[name] ?? 0) + count;
    };
    const unreachable = await takeResults(context, directDebit, add);
    await readResults(context, add);
    const { late, unanswered } = await tellOfUnanswered(context.ports, context, context.businessDate);
    add('late_results', late);
    add('unanswered', unanswered);
    await askForAll(context, directDebit, add);
    // What is there was done; that the agency could not be reached fails the pass.
    if (unreachable !== null) throw unreachable;
    return counts;
  },

  async dryRun({ ports, merchant, businessDate }) {
    const days = await daysDue(ports.db, merchant.id, businessDate);
    return {
      would_ask_for: days.reduce((sum, day) => sum + day.bills, 0),
      amount: days.reduce((sum, day) => sum + day.amount, 0),
      results: (await openResults(ports.db, merchant.id)).length,
    };
  },
};

/** What the bank has said and the database has forgotten, booked while nothing else is done. */
export const learnAnswers: Job = {
  ...debit,
  async runChunk(context) {
    const counts: Counts = {};
    await readResults(
      context,
      (name, count) => {
        if (count > 0) counts[name] = (counts[name] ?? 0) + count;
      },
      'learning',
    );
    return counts;
  },
};

type Add = (name: string, count: number) => void;

async function askForAll(context: ChunkContext, directDebit: DirectDebitSettings, add: Add): Promise<void> {
  const { ports, merchant, businessDate } = context;
  for (const day of await daysDue(ports.db, merchant.id, businessDate)) {
    for (let after: string | null = null; !context.stop.aborted; ) {
      const asked: Asked = await askForDebits(
        ports,
        { ...context, debit: directDebit, render: renderDebits },
        day.debit_on,
        after,
      );
      await ports.crash('debit.after_request');
      add('requests', asked.files);
      add('debits', asked.debits);
      add('amount', asked.amount);
      add('late', asked.late);
      add('held_bills', asked.held);
      add('locked', asked.locked);
      add('not_automatic', asked.notAutomatic);
      add('no_mandate', asked.noMandate);
      add('waiting_for_reports', asked.waitingForReports);
      add('parked', asked.parked);
      context.progress(asked.debits, day.bills, `debits of ${day.debit_on}`);
      if (asked.after === null) break;
      after = asked.after;
    }
  }
}

const lineEnd = '\r\n';

export const renderDebits: RenderDebits = {
  name: ({ kind, merchantCode, businessDate, sequence }) =>
    formatFileName({ kind, merchant: merchantCode, businessDate, sequence, extension: 'txt' }),
  holder(text) {
    const kana = toKana(text.trim(), 'party').text ?? null;
    return kana !== null && kana.length <= debitHolderBytes ? kana : null;
  },
  begin(creditor) {
    const writer = new DebitWriter();
    const bytes = (...records: string[]) => kanaBytesOf(records);
    return {
      header: () => bytes(writer.header({ ...creditor, bankName: '', branchName: '' })),
      debits: (debits) =>
        bytes(
          ...debits.map((each) => writer.debit({ ...each, bankName: '', branchName: '', resultCode: '0' })),
        ),
      end: ({ count, amount }) =>
        bytes(
          writer.trailer({ count, amount, paidCount: 0, paidAmount: 0, unpaidCount: 0, unpaidAmount: 0 }),
          writer.end(),
        ),
    };
  },
};

function kanaBytesOf(records: readonly string[]): Buffer {
  return Buffer.concat(records.flatMap((record) => [kanaBytes(record), Buffer.from(lineEnd)]));
}

/** Null: all that is there was taken. What the agency's server refuses is told, and the pass goes on without it. */
async function takeResults(
  context: ChunkContext,
  directDebit: DirectDebitSettings,
  add: Add,
): Promise<Refusal | null> {
  const { ports, merchant } = context;
  try {
    const store = await openExchange(ports, directDebit.exchange);
    try {
      for (const entry of await completeResults(store, directDebit)) {
        context.stop.throwIfAborted();
        add(await takeResult(context, directDebit, store, entry), 1);
      }
    } finally {
      await store.close();
    }
    await resolveAlerts(ports.db, merchant.id, ports.clock.now(), [agencyCause], 'its results were read');
    return null;
  } catch (error) {
    if (!(error instanceof Refusal && error.code.startsWith('SFTP_'))) throw error;
    ports.log.warn({ merchant: merchant.code, code: error.code }, 'the agency’s results could not be read');
    await raiseStanding(ports.db, merchant.id, ports.clock.now(), [
      {
        id: ports.ids.uuid(),
        level: error.code === 'SFTP_HOST_KEY_CHANGED' ? 'now' : 'daily',
        cause: agencyCause,
        message: `results of bank debits: ${error.message}. ${error.next}`,
        occurrences: 1,
      },
    ]);
    return error;
  }
}

const agencyCause = 'DEBIT_AGENCY_UNREACHABLE';

/** Files with their control file beside them. */
async function completeResults(
  store: RemoteStore,
  { exchange }: DirectDebitSettings,
): Promise<RemoteEntry[]> {
  const entries = (await store.list(exchange.inbound)).filter((entry) => entry.kind === 'file');
  const names = new Set(entries.map((entry) => entry.name));
  for (const name of names) {
    // A process died between removing a result and its control file: the next file of the name would look complete.
    const path = `${exchange.inbound}/${name}`;
    const isLeft = name.endsWith(doneSuffix) && !names.has(name.slice(0, -doneSuffix.length));
    if (isLeft && (await store.stat(path.slice(0, -doneSuffix.length))) === undefined)
      await removeIfThere(store, path);
  }
  return entries
    .filter(({ name }) => /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name) && names.has(doneName(name)))
    .sort((one, other) => (one.name < other.name ? -1 : 1));
}

type TakenResult = 'results' | 'repeated' | 'changed_while_read' | 'others';

/**
 * Archived, registered, and only then removed, as merchants' files are. Bytes that came before are removed and nothing else.
 * Another creditor's result in a folder that several share is left where it is.
 */
async function takeResult(
  context: ChunkContext,
  { exchange, creditor }: DirectDebitSettings,
  store: RemoteStore,
  entry: RemoteEntry,
): Promise<TakenResult> {
  const { ports, merchant } = context;
  const path = `${exchange.inbound}/${entry.name}`;
  await ports.crash('debit.before_download');
  if (await isOthers(store, path, creditor.consignorCode)) return 'others';
  const id = ports.ids.uuid();
  const archivePath = join(ports.archiveFolder, merchant.code, id);
  const content = stopAfter(store.download(path), Math.min(entry.sizeBytes, resultBytesMax));
  const { disk, randomness, sealer } = ports;
  const archived = await archiveFile(disk, randomness, sealer.archiveKey, archivePath, content);
  await ports.crash('debit.after_archive');
  const there = await store.stat(path);
  if (archived.sizeBytes !== entry.sizeBytes || !isSame(entry, there)) {
    await removeArchived(disk, archivePath);
    return 'changed_while_read';
  }
  const result = { id, name: entry.name, ...archived };
  // Before the database has it: the agency sends it once, whatever becomes of the database.
  await writeHead(disk, randomness, sealer.archiveKey, archivePath, { what: 'debit_result', ...result });
  await ports.crash('debit.after_head');
  const isNew = await registerResult(ports, context, { ...result, archivePath });
  await ports.crash('debit.after_register');
  if (!isNew) await removeArchived(disk, archivePath);
  // A worker that stood still here must not remove what the agency has sent since under the same name.
  await ports.db.transaction((tx) => holdFence(tx, context.fence));
  if (isSame(entry, await store.stat(path))) {
    await removeIfThere(store, path);
    await removeIfThere(store, `${exchange.inbound}/${doneName(entry.name)}`);
  }
  await ports.crash('debit.after_remove');
  return isNew ? 'results' : 'repeated';
}

function isSame(entry: RemoteEntry, there: RemoteEntry | undefined): boolean {
  return there?.sizeBytes === entry.sizeBytes && there.modifiedAtEpochS === entry.modifiedAtEpochS;
}

/** By the first bytes of the file. One that has no header is ours to tell of. */
async function isOthers(store: RemoteStore, path: string, consignorCode: string): Promise<boolean> {
  let head = Buffer.alloc(0);
  for await (const piece of store.download(path)) {
    head = Buffer.concat([head, piece]);
    if (head.length >= recordBytes) break;
  }
  const text = head.subarray(0, 14).toString('latin1');
  return /^191[0-9]{11}$/.test(text) && text.slice(4) !== consignorCode;
}

async function removeIfThere(store: RemoteStore, path: string): Promise<void> {
  try {
    await store.remove(path);
  } catch (error) {
    if (!(error instanceof Refusal && error.code === 'SFTP_NOT_FOUND')) throw error;
  }
}

/**
 * One after the other, in the order in which they came: only once a result is booked is the next one for its request known to
 * be a second answer.
 */
async function readResults(context: ChunkContext, add: Add, why?: 'learning'): Promise<void> {
  const { ports, merchant, stop } = context;
  for (;;) {
    const [result] = await openResults(ports.db, merchant.id);
    if (result === undefined) return;
    stop.throwIfAborted();
    if (result.state === 'fetched') {
      const records = recordsOf(openArchive(ports.disk, [ports.sealer.archiveKey], result.archive_path));
      const matched = await matchResult(ports, context, result, records);
      await ports.crash('debit.after_match');
      add(matched, 1);
    } else {
      const booked = await bookResult(ports, context, result, () => ports.crash('debit.after_booking'), why);
      add('booked', 1);
      for (const [name, count] of Object.entries(booked)) add(name, count);
    }
  }
}

async function* recordsOf(content: AsyncIterable<Uint8Array>): AsyncGenerator<readonly AnswerRecord[]> {
  try {
    yield* readDebitRecords(content);
  } catch (error) {
    if (!(error instanceof UnreadableDebits)) throw error;
    const { code, record, field } = error.fault;
    throw new ResultRefused('UNREADABLE', record, null, field === '' ? code : `${code} ${field}`);
  }
}
