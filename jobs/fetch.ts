import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Temporal } from 'temporal-polyfill';
import { raiseStanding, resolveAlerts, type Standing } from '../billing/alerts/queries.ts';
import { fileBytesMax } from '../billing/exchanges/file.ts';
import { knownCauses, unfinishedRemovals } from '../billing/exchanges/queries.ts';
import { finishRemoval, registerFile } from '../billing/exchanges/register.ts';
import { Refusal } from '../billing/refusal.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { type Archived, archiveFile, type InwardHead, removeArchived, writeHead } from '../files/archive.ts';
import { stopAfter } from '../files/bounded.ts';
import {
  classifyInboundName,
  doneName,
  type FileName,
  readDoneFile,
  shown,
} from '../files/standard/names.ts';
import type { RemoteEntry, RemoteStore } from '../files/store.ts';
import { openExchange } from './exchange.ts';
import type { ChunkContext, Counts, Job, JobContext } from './job.ts';
import { layoutOf } from './layout.ts';

/** Between the two looks at a folder whose files have no control files. */
const stableAfterMs = 30_000;
/** One sha256sum line has about 130 bytes. */
const doneBytesMax = 4_096;
/** Of so many strange names one alert each is raised; the rest are told as a number. */
const strangeNamesAlerted = 20;

/**
 * Takes complete files out of the merchant's inbox: archived, registered, and only then removed. One chunk per merchant.
 * Killed at any point it leaves a state from which the next pass goes on: the removal is last and carried on by name
 * and bytes, so that no file is taken twice.
 */
export const fetch: Job = {
  name: 'fetch',
  does: "takes complete files from the merchant's SFTP inbox into the encrypted archive",
  attention: ['unknown_names', 'not_taken'],

  async plan() {
    return [{}];
  },

  async runChunk(context) {
    const { ports } = context;
    try {
      const store = await openInbox(context);
      try {
        return await fetchAll(context, store);
      } finally {
        await store.close();
      }
    } catch (error) {
      if (error instanceof Refusal && error.code.startsWith('SFTP_')) {
        ports.log.warn({ merchant: context.merchant.code, code: error.code }, 'the inbox could not be read');
        await alert(context, [
          {
            level: error.code === 'SFTP_HOST_KEY_CHANGED' ? 'now' : 'daily',
            cause: error.code,
            message: `inbox: ${error.message}. ${error.next}`,
          },
        ]);
      }
      throw error;
    }
  },

  async dryRun(context) {
    const store = await openInbox(context);
    try {
      const inbox = await look(context, store);
      return { files_complete: inbox.complete.length, files_waiting: inbox.waiting };
    } finally {
      await store.close();
    }
  },
};

function openInbox({ ports, merchant }: JobContext): Promise<RemoteStore> {
  return openExchange(ports, merchant.settings.exchange);
}

interface Complete {
  entry: RemoteEntry;
  kind: string;
  name: FileName;
  /** The control file lies beside it. */
  hasControl: boolean;
  /** What the server says of its size. */
  controlBytes: number;
}

interface Inbox {
  complete: Complete[];
  /** Known files that are not complete yet. */
  waiting: number;
  unknownNames: string[];
  /** Names of regular files. */
  files: ReadonlyMap<string, RemoteEntry>;
  lookedAt: Temporal.Instant;
}

async function look(context: JobContext, store: RemoteStore): Promise<Inbox> {
  const { ports, merchant } = context;
  const { inbound, completion } = merchant.settings.exchange;
  const lookedAt = ports.clock.now();
  const files = regularFiles(await store.list(inbound));
  const inbox: Inbox = { complete: [], waiting: 0, unknownNames: [], files, lookedAt };
  const known: Complete[] = [];
  const own = layoutOf(merchant.settings)?.inwardNames(merchant.code);
  for (const entry of files.values()) {
    const name = classifyInboundName(entry.name, merchant.code, own);
    if (name.type === 'unknown') inbox.unknownNames.push(entry.name);
    else if (name.type === 'data') {
      const control = files.get(doneName(entry.name));
      known.push({
        entry,
        kind: name.kind,
        name: name.name,
        hasControl: control !== undefined,
        controlBytes: control?.sizeBytes ?? 0,
      });
    }
  }
  let complete = known.filter((file) => file.hasControl);
  if (completion === 'stable' && known.length > 0) {
    await ports.clock.sleep(stableAfterMs, context.stop);
    const later = regularFiles(await store.list(inbound));
    complete = known.filter(({ entry }) => isSame(entry, later.get(entry.name)));
  }
  inbox.complete = complete.sort((one, other) => one.name.sequence - other.name.sequence);
  inbox.waiting = known.length - complete.length;
  return inbox;
}

/** Links, folders and devices are never taken, whatever their name. */
function regularFiles(entries: readonly RemoteEntry[]): Map<string, RemoteEntry> {
  return new Map(
    entries.filter((entry) => entry.kind === 'file').map((entry) => [entry.name, entry] as const),
  );
}

function isSame(one: RemoteEntry, other: RemoteEntry | undefined): boolean {
  return (
    other?.kind === 'file' &&
    one.sizeBytes === other.sizeBytes &&
    one.modifiedAtEpochS === other.modifiedAtEpochS
  );
}

async function fetchAll(context: ChunkContext, store: RemoteStore): Promise<Counts> {
  const inbox = await look(context, store);
  const counts: Counts = { files: 0, waiting: inbox.waiting };
  counts.unknown_names = await tellOfStrangeNames(context, inbox.unknownNames);
  const complete = new Set(inbox.complete.map((file) => file.entry.name));
  for (const removal of await unfinishedRemovals(context.ports.db, context.merchant.id)) {
    // With its control file it is met below, as any complete file.
    if (complete.has(removal.name)) continue;
    context.stop.throwIfAborted();
    const carriedOn = await oneFile(context, removal.name, () => carryOnRemoval(context, store, removal));
    counts[carriedOn] = (counts[carriedOn] ?? 0) + 1;
  }
  const taken: string[] = [];
  for (const [done, file] of inbox.complete.entries()) {
    context.stop.throwIfAborted();
    const { name } = file.entry;
    const fetched = await oneFile(context, name, () => fetchOne(context, store, file, inbox.lookedAt));
    counts[fetched] = (counts[fetched] ?? 0) + 1;
    if (fetched === 'files' || fetched === 'removals_carried_on') taken.push(notTaken(name));
    context.progress(done + 1, inbox.complete.length, 'files');
  }
  await closeAlerts(context, taken);
  return counts;
}

type Fetched = 'files' | 'removals_carried_on' | 'changed_while_read' | 'not_taken';

const notTaken = (name: string): string => `FILE_NOT_TAKEN:${shown(name)}`;

const aboutOneFile = new Set(['SFTP_DENIED', 'SFTP_REMOTE_ERROR', 'SFTP_NOT_FOUND']);

/** What the server refuses of one file, or tells otherwise than it gives, is that file's: the others are taken. */
async function oneFile(context: ChunkContext, name: string, work: () => Promise<Fetched>): Promise<Fetched> {
  const tell = (why: string) =>
    alert(context, [
      {
        level: 'daily',
        cause: notTaken(name),
        message: `${shown(name)} lies in the inbox and could not be taken or removed: ${why}`,
      },
    ]);
  try {
    const fetched = await work();
    if (fetched === 'changed_while_read') await tell('it changed while it was read');
    return fetched;
  } catch (error) {
    if (!(error instanceof Refusal && aboutOneFile.has(error.code))) throw error;
    context.ports.log.warn(
      { merchant: context.merchant.code, code: error.code },
      'a file could not be taken',
    );
    await tell(error.message);
    return 'not_taken';
  }
}

async function fetchOne(
  context: ChunkContext,
  store: RemoteStore,
  { entry, kind, hasControl, controlBytes }: Complete,
  lookedAt: Temporal.Instant,
): Promise<Fetched> {
  const { ports, merchant } = context;
  const { inbound, completion } = merchant.settings.exchange;
  const path = `${inbound}/${entry.name}`;
  await ports.crash('fetch.before_download');
  // Stable files have no agreement about control files: one that lies there is not believed, only removed.
  const control =
    completion === 'done_file' ? await readControl(store, inbound, entry.name, controlBytes) : 'none';
  if (control === 'changed') return 'changed_while_read';

  const id = ports.ids.uuid();
  const archivePath = join(ports.archiveFolder, merchant.code, id);
  const tooLarge = entry.sizeBytes > fileBytesMax;
  const archived: Archived = tooLarge
    ? { sha256: '', sizeBytes: entry.sizeBytes }
    : await archiveFile(
        ports.disk,
        ports.randomness,
        ports.sealer.archiveKey,
        archivePath,
        stopAfter(store.download(path), entry.sizeBytes),
      );
  await ports.crash('fetch.after_archive');
  let isWhole: boolean;
  try {
    isWhole = archived.sizeBytes === entry.sizeBytes && isSame(entry, await store.stat(path));
  } catch (error) {
    if (error instanceof Refusal) await ports.disk.remove(archivePath);
    throw error;
  }
  if (!isWhole) {
    await ports.disk.remove(archivePath);
    return 'changed_while_read';
  }
  const head: InwardHead = {
    what: 'inward',
    id,
    name: entry.name,
    kind,
    sha256: archived.sha256,
    sizeBytes: archived.sizeBytes,
    checksumMatches: control === 'none' || (control !== 'bad' && control.sha256 === archived.sha256),
    layout: merchant.settings.layout,
    settingsVersion: merchant.settingsVersion,
    fetchedOn: context.businessDate,
    registered: false,
  };
  const keep = (of: InwardHead) =>
    writeHead(ports.disk, ports.randomness, ports.sealer.archiveKey, archivePath, of);
  // Before the database has it: whatever becomes of the database, the file is not lost from here on.
  await keep(head);
  await ports.crash('fetch.after_head');
  const isNew = await registerFile(ports, context, { ...head, archivePath }, ports.clock.now(), lookedAt);
  await ports.crash('fetch.after_register');
  if (isNew) await keep({ ...head, registered: true });
  else await removeArchived(ports.disk, archivePath);
  // A worker that stood still here must not remove what the merchant has sent since under the same name.
  await ports.db.transaction((tx) => holdFence(tx, context.fence));
  if (isSame(entry, await store.stat(path))) {
    if (hasControl) await removeIfThere(store, `${inbound}/${doneName(entry.name)}`);
    await ports.crash('fetch.after_control');
    await removeIfThere(store, path);
  }
  await ports.crash('fetch.after_remove');
  await finishRemoval(ports, context, { name: entry.name, sha256: archived.sha256 }, ports.clock.now());
  return isNew ? 'files' : 'removals_carried_on';
}

/**
 * A process died between registering a file and its removal's end. Where the file is gone, or other bytes lie under its
 * name, the removal is over; the same bytes are removed now.
 */
async function carryOnRemoval(
  context: ChunkContext,
  store: RemoteStore,
  removal: { name: string; sha256: string; size_bytes: number },
): Promise<'removals_carried_on'> {
  const { ports, merchant } = context;
  const path = `${merchant.settings.exchange.inbound}/${removal.name}`;
  await ports.crash('fetch.after_register');
  const entry = await store.stat(path);
  if (entry?.kind === 'file' && entry.sizeBytes === removal.size_bytes) {
    const there = removal.sha256 === '' ? '' : await sha256Of(store, path, entry.sizeBytes, context.stop);
    if (there === removal.sha256) await removeIfThere(store, path);
  }
  await ports.crash('fetch.after_remove');
  await finishRemoval(ports, context, removal, ports.clock.now());
  return 'removals_carried_on';
}

async function sha256Of(
  store: RemoteStore,
  path: string,
  toldBytes: number,
  stop: AbortSignal,
): Promise<string> {
  const hash = createHash('sha256');
  let readBytes = 0;
  for await (const piece of stopAfter(store.download(path), toldBytes)) {
    stop.throwIfAborted();
    readBytes += piece.length;
    hash.update(piece);
  }
  // A transfer that ends early must not pass for other bytes: the file would lie there for ever.
  if (readBytes !== toldBytes) {
    throw new Refusal('SFTP_UNREACHABLE', 'a download ended before its end', {
      next: 'It is tried again by itself. If it stays so, ask the partner whether the server is in order.',
      context: { toldBytes, readBytes },
    });
  }
  return hash.digest('hex');
}

/** `changed`: other bytes came than the server had told; a part of a digest must not count as a wrong one. */
async function readControl(
  store: RemoteStore,
  inbound: string,
  name: string,
  toldBytes: number,
): Promise<ReturnType<typeof readDoneFile> | 'changed'> {
  const pieces: Buffer[] = [];
  let sizeBytes = 0;
  for await (const piece of store.download(`${inbound}/${doneName(name)}`)) {
    sizeBytes += piece.length;
    if (sizeBytes > doneBytesMax) return 'bad';
    pieces.push(piece);
  }
  if (sizeBytes !== toldBytes) return 'changed';
  return readDoneFile(Buffer.concat(pieces).toString('latin1'), name);
}

/** Another worker may have been faster. */
async function removeIfThere(store: RemoteStore, path: string): Promise<void> {
  try {
    await store.remove(path);
  } catch (error) {
    if (!(error instanceof Refusal && error.code === 'SFTP_NOT_FOUND')) throw error;
  }
}

/** Each strange name is told once, seen to or not. Returns how many were new. */
async function tellOfStrangeNames(context: ChunkContext, names: readonly string[]): Promise<number> {
  const { ports, merchant } = context;
  const causes = new Map(names.map((name) => [`UNKNOWN_FILE_NAME:${shown(name)}`, name] as const));
  const known = await knownCauses(ports.db, merchant.id, [...causes.keys()]);
  const fresh = [...causes].filter(([cause]) => !known.has(cause));
  // Those that lie there and were told take up the room: ten thousand names are no ten thousand alerts.
  const room = Math.max(0, strangeNamesAlerted - known.size);
  const alerts: NewAlert[] = fresh.slice(0, room).map(([cause, name]) => ({
    level: 'daily',
    cause,
    message: `a file of unknown name lies in the inbox and is not taken: ${shown(name)}`,
  }));
  if (fresh.length > room) {
    alerts.push({
      level: 'daily',
      cause: 'UNKNOWN_FILE_NAMES',
      message: `${fresh.length} files of unknown names lie in the inbox and are not taken`,
    });
  }
  await alert(context, alerts);
  return fresh.length;
}

type NewAlert = Omit<Standing, 'occurrences'>;

async function alert({ ports, merchant, fence }: ChunkContext, alerts: readonly NewAlert[]): Promise<void> {
  if (alerts.length === 0) return;
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await raiseStanding(
      tx,
      merchant.id,
      ports.clock.now(),
      alerts.map((each) => ({ ...each, id: ports.ids.uuid(), occurrences: 1 })),
    );
  });
}

async function closeAlerts({ ports, merchant, fence }: ChunkContext, causes: string[]): Promise<void> {
  if (causes.length === 0) return;
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await resolveAlerts(tx, merchant.id, ports.clock.now(), causes, 'the file was taken');
  });
}
