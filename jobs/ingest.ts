import { raiseAlert } from '../billing/alerts/queries.ts';
import { cancelBills } from '../billing/exchanges/cancel.ts';
import { applyContacts } from '../billing/exchanges/contacts.ts';
import { applyEnrolments } from '../billing/exchanges/enrolments.ts';
import { type BillingFile, fileBytesMax, type ReadFile } from '../billing/exchanges/file.ts';
import type { SetAside } from '../billing/exchanges/hold.ts';
import { applyHolds } from '../billing/exchanges/holds.ts';
import { FileLoad } from '../billing/exchanges/load.ts';
import {
  countLoaded,
  countStaging,
  loadedBefore,
  lockFile,
  stagingLeft,
  sweepStaging,
  waitingFiles,
} from '../billing/exchanges/queries.ts';
import { refuseFile } from '../billing/exchanges/refuse.ts';
import { clearStaging, releaseFile } from '../billing/exchanges/release.ts';
import { stageBills } from '../billing/exchanges/stage.ts';
import { settingsByVersion } from '../billing/merchants/queries.ts';
import { gatesOf, type MerchantSettings } from '../billing/merchants/settings.ts';
import { park } from '../billing/parked/queries.ts';
import { assertState, Refusal } from '../billing/refusal.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { takeStatistics } from '../billing/statistics.ts';
import { openArchive } from '../files/archive.ts';
import { classifyInboundName, type FileName, type InwardKind } from '../files/standard/names.ts';
import { readStandardFile } from '../files/standard/read.ts';
import type { LineOf } from '../files/standard/validate.ts';
import type { ChunkContext, Counts, Job, JobContext } from './job.ts';
import { layoutOf } from './layout.ts';

/**
 * Files become bills, cancellations, holds, agreements and contacts. One chunk takes all waiting files of the merchant, one
 * after the other in the order of their sequence: what one brings, the next must see. Bills are made in transactions of
 * 25,000 records; the other kinds are applied whole. A file beyond a gap in the sequence is held until the gap is filled.
 */
export const ingest: Job = {
  name: 'ingest',
  does: 'reads fetched files, refuses or loads them, and releases their bills in one step',
  attention: ['files_refused', 'files_held', 'files_parked', 'bills_parked'],

  async plan({ ports, merchant }) {
    const waiting = (await waitingFiles(ports.db, merchant.id)).length > 0;
    return waiting || (await stagingLeft(ports.db, merchant.id)) ? [{}] : [];
  },

  runChunk: (context) => ingestFiles(context, Number.POSITIVE_INFINITY),

  async dryRun({ ports, merchant }) {
    return { files_waiting: (await waitingFiles(ports.db, merchant.id)).length };
  },
};

/** What came between two files may decide what the second one does: a bill that was paid cannot be cancelled. */
export const ingestNext: Job = { ...ingest, runChunk: (context) => ingestFiles(context, 1) };

async function ingestFiles(context: ChunkContext, most: number): Promise<Counts> {
  const { ports, merchant, fence, stop } = context;
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await sweepStaging(tx, merchant.id);
  });
  const counts: Counts = {};
  for (let done = 0; done < most; done += 1) {
    stop.throwIfAborted();
    const file = await nextFile(context);
    if (file === undefined) return counts;
    await ingestFile(context, file, (name, amount) => {
      counts[name] = (counts[name] ?? 0) + amount;
    });
  }
  return counts;
}

/**
 * From here on a load changes what the planner should know of the merchant; below, autovacuum does in its time. For a second
 * merchant it otherwise compares all due bills with all bills: 7 s for 6,000, more than a minute for 20,000.
 */
const manyLines = 2_000;

/** A file that was begun is finished first; then by the names, read as they were when each file came. */
async function nextFile({ ports, merchant }: JobContext): Promise<BillingFile | undefined> {
  const files = await waitingFiles(ports.db, merchant.id);
  const versions = await settingsByVersion(
    ports.db,
    merchant.id,
    files.map((file) => file.settings_version),
  );
  const places = new Map(
    files.map((file) => [file, place(file, merchant.code, versions.get(file.settings_version))]),
  );
  return [...files].sort((one, other) => (places.get(one) ?? 0) - (places.get(other) ?? 0))[0];
}

function place(file: BillingFile, merchant: string, settings: MerchantSettings | undefined): number {
  if (file.state === 'loading') return -1;
  const name = settings && nameOf(file, merchant, settings);
  if (name === undefined || settings === undefined) return Number.MAX_SAFE_INTEGER;
  if (layoutOf(settings)?.kinds.get('billing')?.hasSequence !== false) return name.sequence;
  // No number runs over all kinds: by day, and bills before what takes them back.
  return Number(name.businessDate.replaceAll('-', '')) * 2 + (file.kind === 'billing' ? 0 : 1);
}

type Count = (name: string, amount: number) => void;

async function ingestFile(context: ChunkContext, file: BillingFile, count: Count): Promise<void> {
  const { ports, merchant, fence, act } = context;
  const settings = (await settingsByVersion(ports.db, merchant.id, [file.settings_version])).get(
    file.settings_version,
  );
  assertState(settings, `settings version ${file.settings_version} of merchant ${merchant.id} is missing`);
  const code = file.state === 'fetched' ? await refusedUnread(context, file) : null;
  if (code !== null) {
    await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      await refuseFile(tx, act, file.id, code, null);
    });
    refused(context, file, code, count);
    return;
  }
  try {
    if (file.kind === 'billing') await ingestBills(context, file, settings, count);
    else await applyLines(context, file, settings, count);
  } catch (error) {
    if (!(error instanceof Refusal && error.code === 'ARCHIVE_DAMAGED')) throw error;
    await parkDamaged(context, file, error);
    count('files_parked', 1);
  }
}

/** What is wrong before the first byte is read. */
async function refusedUnread({ ports, merchant }: JobContext, file: BillingFile): Promise<string | null> {
  if (file.size_bytes > fileBytesMax) return 'F_TOO_LARGE';
  if (!file.checksum_matches) return 'F_CHECKSUM';
  return (await loadedBefore(ports.db, merchant.id, file)) ? 'F_DUPLICATE_FILE' : null;
}

async function ingestBills(
  context: ChunkContext,
  waiting: BillingFile,
  settings: MerchantSettings,
  count: Count,
): Promise<void> {
  const { ports, merchant, fence, act, stop } = context;
  const stage = (file: BillingFile) =>
    stageBills(ports, {
      fence,
      act,
      file,
      read: readerOf(context, file, 'billing', settings),
      rejectFile: settings.exchange.reject === 'file',
      gates: gatesOf(settings),
      stop,
    });
  if (waiting.state !== 'loading') {
    const staged = await stage(waiting);
    // Another worker is at another file of this merchant: that one is taken up first.
    if (staged === 'busy') return;
    if (staged !== 'staged') {
      tellSetAside(context, waiting, staged, count);
      return;
    }
    await ports.crash('ingest.after_stage');
  }
  await countStaging(ports.db);
  const current = (): Promise<BillingFile> =>
    ports.db.transaction((tx) => lockFile(tx, merchant.id, waiting.id));
  const load = new FileLoad(ports, {
    fence,
    act,
    fileId: waiting.id,
    settings,
    today: context.businessDate,
  });
  for (;;) {
    stop.throwIfAborted();
    const loaded = await load.next();
    if (loaded === 'staging_lost') {
      ports.log.warn({ file: waiting.id }, 'staged lines are gone; they are staged again from the archive');
      assertState(
        (await stage(await current())) === 'staged',
        `file ${waiting.id} could not be staged again`,
      );
      continue;
    }
    await ports.crash('ingest.after_chunk');
    if (loaded.parked > 0) count('bills_parked', loaded.parked);
    const file = await current();
    context.progress(file.loaded_to_record, file.lines_read, file.name);
    if (loaded.done) break;
  }
  await ports.crash('ingest.before_release');
  const released = await releaseFile(ports, {
    fence,
    act,
    fileId: waiting.id,
    today: context.businessDate,
    timezone: settings.timezone,
  });
  await ports.crash('ingest.after_release');
  if (released === 'parked') {
    count('files_parked', 1);
    return;
  }
  const file = await current();
  const [cleared, counted] = await Promise.allSettled([
    clearStaging(ports, { fence, act, fileId: waiting.id }),
    (file.lines_accepted ?? 0) >= manyLines ? takeStatistics(ports.log, () => countLoaded(ports.db)) : null,
  ]);
  if (cleared.status === 'rejected') throw cleared.reason;
  if (counted.status === 'rejected') throw counted.reason;
  count('files', 1);
  count('lines_read', file.lines_read ?? 0);
  count('lines_accepted', file.lines_accepted ?? 0);
  count('lines_rejected', file.lines_rejected ?? 0);
  count('bills', file.lines_accepted ?? 0);
}

/** Kinds that bring no bills: one transaction, so its crash points stand before and after it. */
async function applyLines(
  context: ChunkContext,
  file: BillingFile,
  settings: MerchantSettings,
  count: Count,
): Promise<void> {
  const { ports, fence, act, stop } = context;
  const work = <K extends InwardKind>(kind: K) => ({
    fence,
    act,
    file,
    read: readerOf(context, file, kind, settings),
    rejectFile: settings.exchange.reject === 'file',
    gates: gatesOf(settings),
    today: context.businessDate,
    timezone: settings.timezone,
    stop,
  });
  await ports.crash('ingest.before_release');
  const applied =
    file.kind === 'cancel'
      ? await cancelBills(ports, work('cancel'))
      : file.kind === 'hold'
        ? await applyHolds(ports, work('hold'))
        : file.kind === 'enrolment'
          ? await applyEnrolments(ports, {
              ...work('enrolment'),
              debitsAccounts: settings.autopay.directDebit !== null,
            })
          : await applyContacts(ports, work('contact'));
  await ports.crash('ingest.after_release');
  if (!('accepted' in applied)) {
    tellSetAside(context, file, applied, count);
    return;
  }
  count('files', 1);
  count('lines_read', applied.accepted + applied.rejected);
  count('lines_accepted', applied.accepted);
  count('lines_rejected', applied.rejected);
  count(effects[file.kind] ?? 'applied', applied.accepted);
}

const effects: Readonly<Record<string, string>> = {
  cancel: 'cancelled',
  hold: 'holds',
  enrolment: 'enrolments',
  contact: 'contacts',
};

function readerOf<K extends InwardKind>(
  { ports, merchant }: JobContext,
  file: BillingFile,
  kind: K,
  settings: MerchantSettings,
): ReadFile<LineOf[K]> {
  const layout = layoutOf(settings);
  const businessDate = nameOf(file, merchant.code, settings)?.businessDate ?? '';
  return () =>
    readStandardFile(openArchive(ports.disk, [ports.sealer.archiveKey], file.archive_path), {
      encoding: layout?.encoding ?? 'utf-8',
      layout: (kind === 'billing' && layout?.kinds.get('billing')) || null,
      businessDate,
      merchant: merchant.code,
      kind,
      fileBytesMax,
    });
}

/** What the name says, read as it was when the file came. */
function nameOf(file: BillingFile, merchant: string, settings: MerchantSettings): FileName | undefined {
  const name = classifyInboundName(file.name, merchant, layoutOf(settings)?.inwardNames(merchant));
  return name.type === 'data' ? name.name : undefined;
}

function tellSetAside(context: JobContext, file: BillingFile, done: SetAside, count: Count): void {
  if ('refused' in done) {
    refused(context, file, done.refused, count);
    return;
  }
  context.ports.log.warn({ file: file.id, code: done.held }, 'a file is held for a person');
  count('files_held', 1);
}

function refused({ ports }: JobContext, file: BillingFile, code: string, count: Count): void {
  ports.log.warn({ file: file.id, code }, 'a file was refused; its receipt tells the merchant');
  count('files_refused', 1);
}

async function parkDamaged({ ports, merchant, fence, act }: ChunkContext, file: BillingFile, error: Refusal) {
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await park(tx, merchant.id, act.at, [
      {
        id: ports.ids.uuid(),
        subject: 'file',
        subjectId: file.id,
        reason: error.code,
        context: { file: file.name, next: error.next },
      },
    ]);
    await raiseAlert(tx, ports.ids.uuid(), act.at, {
      merchantId: merchant.id,
      level: 'now',
      cause: error.code,
      message: `${file.name}: ${error.message}`,
    });
  });
}
