import { Refusal } from '../../billing/refusal.ts';
import type { OpenRemoteStore, RemoteEntry, RemoteStore } from '../../files/store.ts';
import type { Baton, Mortal } from './baton.ts';
import type { Faults } from './faults.ts';

export interface RemoteFile {
  bytes: Buffer;
  modifiedAtMs: number;
}

/** A merchant's SFTP server: what lies there, and who looks on. */
export interface StoreTruth {
  /** Path to file; folders are what stands before the last slash. */
  readonly files: Map<string, RemoteFile>;
  /** Told of each change that the product made. */
  onChange: (change: { what: 'written' | 'renamed' | 'removed'; path: string }) => Promise<void>;
}

const operationDeadlineMs = 30_000;

function refusal(code: string, message: string): Refusal {
  return new Refusal(code, message, { next: 'It is tried again by itself.' });
}
const timeout = () => refusal('SFTP_TIMEOUT', 'no answer in time');
const unreachable = () => refusal('SFTP_UNREACHABLE', 'the connection broke');
const notFound = () => refusal('SFTP_NOT_FOUND', 'there is no such file');

export function openSimulatedStore(
  baton: Baton,
  self: Mortal,
  faults: Faults,
  stores: ReadonlyMap<string, StoreTruth>,
): OpenRemoteStore {
  return async ({ username }) => {
    const truth = stores.get(username);
    if (truth === undefined) throw new Error(`impossible state: no store of ${username}`);
    await baton.pause(self, faults.between(30, 300), 'sftp.open');
    if (faults.hits(faults.profile.store.unreachable)) {
      throw faults.hits(0.5) ? timeout() : unreachable();
    }
    return connection(baton, self, faults, truth);
  };
}

function connection(baton: Baton, self: Mortal, faults: Faults, truth: StoreTruth): RemoteStore {
  const { files } = truth;
  let broken = false;

  /** One operation: the way there, its effect, the way back. After a break the connection is of no use. */
  async function operation<T>(what: string, effect: () => Promise<T> | T): Promise<T> {
    if (broken) throw unreachable();
    const fault = faults.draw(faults.profile.store, 'brokenBefore', 'brokenAfter', 'refused');
    await baton.pause(self, faults.between(5, 150), `sftp.${what} ${fault ?? ''}`);
    if (fault === 'refused') throw refusal('SFTP_REMOTE_ERROR', 'the server answers with an error');
    const result = fault === 'brokenBefore' ? undefined : await effect();
    if (fault === null) {
      await baton.pause(self, faults.between(5, 150), `sftp.${what.split(' ')[0]} answered`);
      return result as T;
    }
    return breaks();
  }

  async function breaks(): Promise<never> {
    broken = true;
    const slowly = faults.hits(0.5);
    await baton.pause(self, slowly ? operationDeadlineMs : 10, 'sftp breaks');
    throw slowly ? timeout() : unreachable();
  }

  const entryOf = (path: string, file: RemoteFile): RemoteEntry => ({
    name: path.slice(path.lastIndexOf('/') + 1),
    kind: 'file',
    sizeBytes: file.bytes.length,
    modifiedAtEpochS: Math.floor(file.modifiedAtMs / 1000),
  });
  const set = async (path: string, bytes: Buffer) => {
    files.set(path, { bytes, modifiedAtMs: baton.nowMs });
    await truth.onChange({ what: 'written', path });
  };

  return {
    list: (folder) =>
      operation(`list ${folder}`, () =>
        [...files]
          .filter(([path]) => path.startsWith(`${folder}/`))
          .map(([path, file]) => entryOf(path, file)),
      ),

    stat: (path) =>
      operation(`stat ${path}`, () => {
        const file = files.get(path);
        return file === undefined ? undefined : entryOf(path, file);
      }),

    async *download(path) {
      const file = await operation(`download ${path}`, () => files.get(path));
      if (file === undefined) throw notFound();
      // The bytes as they are when the transfer begins; whoever writes on meanwhile is seen by size and time.
      const fault = faults.draw(faults.profile.store, 'halfTransfer', 'shortDownload');
      const half = file.bytes.subarray(0, Math.floor(file.bytes.length / 2));
      if (half.length > 0) yield Buffer.from(half);
      await baton.pause(self, faults.between(5, 100), `sftp.download goes on ${fault ?? ''}`);
      if (fault === 'halfTransfer') await breaks();
      if (fault === 'shortDownload') return;
      yield Buffer.from(file.bytes.subarray(half.length));
    },

    async upload(path, content) {
      if (broken) throw unreachable();
      const parts: Uint8Array[] = [];
      for await (const part of content) parts.push(Uint8Array.from(part));
      const whole = Buffer.concat(parts);
      const half = whole.subarray(0, Math.floor(whole.length / 2));
      await baton.pause(self, faults.between(5, 150), `sftp.upload ${path}`);
      await set(path, half);
      const fault = faults.draw(faults.profile.store, 'halfTransfer', 'refused');
      await baton.pause(self, faults.between(5, 150), `sftp.upload goes on ${fault ?? ''}`);
      if (fault === 'halfTransfer') return breaks();
      if (fault === 'refused') throw refusal('SFTP_REMOTE_ERROR', 'no space left on the server');
      return operation(`upload ends ${path}`, async () => {
        await set(path, whole);
        return whole.length;
      });
    },

    rename: (from, to) =>
      operation(`rename ${to}`, async () => {
        const file = files.get(from);
        if (file === undefined) throw notFound();
        if (files.has(to)) throw refusal('SFTP_EXISTS', 'there is already a file of this name');
        files.delete(from);
        files.set(to, file);
        await truth.onChange({ what: 'renamed', path: to });
      }),

    remove: (path) =>
      operation(`remove ${path}`, async () => {
        if (!files.delete(path)) throw notFound();
        await truth.onChange({ what: 'removed', path });
      }),

    async close() {
      broken = true;
    },
  };
}
