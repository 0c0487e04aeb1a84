import { createHash } from 'node:crypto';
import { Refusal } from '../billing/refusal.ts';
import { stopAfter } from './bounded.ts';
import { doneName, formatDoneFile } from './standard/names.ts';
import type { RemoteStore } from './store.ts';

export interface OutgoingFile {
  folder: string;
  name: string;
  sizeBytes: number;
  sha256: string;
  /** The same bytes at every call. */
  content(): AsyncIterable<Uint8Array>;
  /** How many temporary names earlier tries were given. */
  parts: number;
  /** The temporary name whose rename was tried: the file may have been visible. */
  renamingPart: number | null;
}

/** Called at the borders; `beforeRename` must have stored which rename is tried when it returns. */
export interface PlacingSteps {
  /**
   * Before anything is written there: the number of a temporary name that no try had before, stored. Throws where another
   * worker has taken the file over in the meantime.
   */
  newPart(): Promise<number>;
  uploaded(): Promise<void>;
  beforeRename(part: number): Promise<void>;
  renamed(): Promise<void>;
  doneWritten(): Promise<void>;
}

/**
 * placed: the file and its control file are there, whole. differs: something else has its name, nothing was changed.
 * gone: it may have been visible and is not there now, so the partner may have taken it: a person asks.
 */
export type Placed = 'placed' | 'differs' | 'gone';

/**
 * Puts a file where its partner looks: under a temporary name, size checked, renamed, then its control file the same way.
 * May be tried again after any interruption, also one whose effect is unknown; never overwrites a final name. What is left
 * of earlier tries is taken away.
 */
export async function placeFile(
  store: RemoteStore,
  file: OutgoingFile,
  steps: PlacingSteps,
): Promise<Placed> {
  const path = `${file.folder}/${file.name}`;
  const done = Buffer.from(formatDoneFile(file.sha256, file.name));
  const donePath = `${file.folder}/${doneName(file.name)}`;
  let part = file.renamingPart ?? undefined;
  let found = await whereabouts(store, path, part, file);
  if (found === 'final') {
    const held = await compare(store, path, file);
    if (held === 'other') return 'differs';
    // The partner has taken it between two looks.
    if (held === 'absent') found = 'nowhere';
  }
  if (found !== 'final') {
    if (found === 'nowhere' && part !== undefined) return 'gone';
    // What is whole already is not written again: a late worker may still be about to rename it.
    if (found !== 'whole') {
      const given = await steps.newPart();
      // On a slow line each try would leave its half, until the partner's disk is full.
      await clearParts(store, file, path, part);
      part ??= given;
      // Its absence would mean that it was renamed: once that was tried, half a file stays for the next try to overwrite.
      await uploadWhole(
        store,
        temporaryPath(path, part),
        file.sizeBytes,
        file.content(),
        found === 'nowhere',
      );
      await steps.uploaded();
    }
    if (part === undefined) throw new Error('impossible state: a whole file under no temporary name');
    await steps.beforeRename(part);
    const moved = await renamed(store, temporaryPath(path, part), path, file);
    if (moved !== 'placed') return moved;
  }
  await steps.renamed();

  const control = {
    sizeBytes: done.length,
    sha256: createHash('sha256').update(done).digest('hex'),
  };
  const clearAll = async () => {
    await clearParts(store, file, path);
    await clearParts(store, file, donePath);
  };
  if ((await store.stat(donePath)) === undefined) {
    const doneTemporary = temporaryPath(donePath, await steps.newPart());
    // Before the control file says that it may be taken: afterwards a temporary file must prove that it was not.
    await clearAll();
    await uploadWhole(store, doneTemporary, done.length, only(done), true);
    const moved = await renamed(store, doneTemporary, donePath, control);
    if (moved !== 'placed') return moved;
  } else {
    await clearAll();
    // Absent: the partner takes it together with the file, whose bytes were ours.
    if ((await compare(store, donePath, control)) === 'other') return 'differs';
  }
  await steps.doneWritten();
  return 'placed';
}

/**
 * A name for each try: a late worker's upload can neither spoil another's nor look like a file that was never renamed, so
 * the absence of the one whose rename was tried proves that it was done.
 */
function temporaryPath(path: string, part: number): string {
  const slash = path.lastIndexOf('/') + 1;
  return `${path.slice(0, slash)}.${path.slice(slash)}.${part}.part`;
}

/** whole, half: under the temporary name of the rename that was tried. */
async function whereabouts(
  store: RemoteStore,
  path: string,
  renamingPart: number | undefined,
  file: Content,
): Promise<'final' | 'whole' | 'half' | 'nowhere'> {
  if (renamingPart !== undefined) {
    // The temporary name before the final one: between two looks the other way round a rename would hide it from both.
    const temporary = temporaryPath(path, renamingPart);
    const waits = (await store.stat(temporary)) !== undefined && (await store.stat(path)) === undefined;
    if (waits && (await compare(store, temporary, file)) === 'same') return 'whole';
    if (waits && (await store.stat(temporary)) !== undefined) return 'half';
  }
  return (await store.stat(path)) === undefined ? 'nowhere' : 'final';
}

async function uploadWhole(
  store: RemoteStore,
  path: string,
  sizeBytes: number,
  content: AsyncIterable<Uint8Array>,
  clearHalf: boolean,
): Promise<void> {
  try {
    await uploadChecked(store, path, sizeBytes, content);
  } catch (error) {
    // On a full disk the half that went through is in the way of everybody.
    if (clearHalf && error instanceof Refusal && saysNo.has(error.code)) await clear(store, path);
    throw error;
  }
}

/** The server has answered: the connection lives, and what there is can be taken away. */
const saysNo = new Set(['SFTP_REMOTE_ERROR', 'UPLOAD_INCOMPLETE']);

/** What earlier tries left, but for the one whose rename was tried: its absence would mean that it was done. */
async function clearParts(
  store: RemoteStore,
  { parts }: OutgoingFile,
  path: string,
  renamingPart?: number,
): Promise<void> {
  for (let part = 1; part <= parts; part += 1)
    if (part !== renamingPart) await clear(store, temporaryPath(path, part));
}

async function clear(store: RemoteStore, path: string): Promise<void> {
  try {
    if ((await store.stat(path)) !== undefined) await store.remove(path);
  } catch (error) {
    // Left for the next try, which overwrites it; what was being done counts more.
    if (!(error instanceof Refusal)) throw error;
  }
}

async function uploadChecked(
  store: RemoteStore,
  path: string,
  sizeBytes: number,
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  const confirmed = await store.upload(path, content);
  const there = await store.stat(path);
  if (confirmed !== sizeBytes || there?.sizeBytes !== sizeBytes) {
    throw new Refusal('UPLOAD_INCOMPLETE', 'the server does not hold all bytes of an upload', {
      next: 'It is tried again by itself. If it stays so, the disk or quota on the server may be full: ask the partner.',
      context: { path, sizeBytes, confirmed, there: there?.sizeBytes ?? null },
    });
  }
}

interface Content {
  sizeBytes: number;
  sha256: string;
}

/** What the final name holds after the rename. Where somebody else was faster, its bytes are compared. */
async function renamed(store: RemoteStore, from: string, to: string, expected: Content): Promise<Placed> {
  try {
    await store.rename(from, to);
  } catch (error) {
    const code = error instanceof Refusal ? error.code : '';
    if (code !== 'SFTP_EXISTS' && code !== 'SFTP_NOT_FOUND') throw error;
    // A late worker has renamed it, and the partner may have taken it since.
    if (code === 'SFTP_NOT_FOUND' && (await store.stat(to)) === undefined) return 'gone';
    if (code === 'SFTP_EXISTS') await clear(store, from);
    const held = await compare(store, to, expected);
    if (held === 'absent') return 'gone';
    return held === 'same' ? 'placed' : 'differs';
  }
  const there = await store.stat(to);
  // A partner may take a control file, and its file with it, at the moment when it appears: it was whole.
  return there === undefined || there.sizeBytes === expected.sizeBytes ? 'placed' : 'differs';
}

async function compare(
  store: RemoteStore,
  path: string,
  expected: Content,
): Promise<'same' | 'other' | 'absent'> {
  const there = await store.stat(path);
  if (there === undefined) return 'absent';
  if (there.kind !== 'file' || there.sizeBytes !== expected.sizeBytes) return 'other';
  const digest = createHash('sha256');
  let readBytes = 0;
  for await (const chunk of stopAfter(store.download(path), expected.sizeBytes)) {
    readBytes += chunk.length;
    digest.update(chunk);
  }
  // A transfer that ends early says nothing about the file: it must not pass for another content.
  if (readBytes !== expected.sizeBytes) {
    throw new Refusal('SFTP_UNREACHABLE', 'a download ended before its end', {
      next: 'It is tried again by itself. If it stays so, ask the partner whether the server is in order.',
      context: { path, sizeBytes: expected.sizeBytes, readBytes },
    });
  }
  return digest.digest('hex') === expected.sha256 ? 'same' : 'other';
}

async function* only(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}
