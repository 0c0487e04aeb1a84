import { createHash } from 'node:crypto';
import { Refusal } from '../billing/refusal.ts';
import { answerRequest, type Fate } from '../cli/demo/bank.ts';
import type { OpenRemoteStore, RemoteStore } from '../files/store.ts';

/** The agency's server in memory, and what it does with what lies there. */
export interface Agency {
  /** By path. */
  files: Map<string, Buffer>;
  /** The merchants' servers stay what they are. */
  beside(openStore: OpenRemoteStore): OpenRemoteStore;
  /** Takes the requests that are complete, in the order of their names. */
  takeRequests(): { name: string; bytes: Buffer }[];
  put(name: string, bytes: Uint8Array): void;
  /** Answers a request under a name of its own. */
  answer(request: { name: string; bytes: Buffer }, fate: Fate): Buffer;
}

export function agencyOf(username = 'bank-agency'): Agency {
  const files = new Map<string, Buffer>();
  const missing = () => new Refusal('SFTP_NOT_FOUND', 'there is no such file', { next: '' });
  const entry = (path: string, bytes: Buffer) => ({
    name: path.slice(path.lastIndexOf('/') + 1),
    kind: 'file' as const,
    sizeBytes: bytes.length,
    modifiedAtEpochS: 0,
  });
  const store: RemoteStore = {
    list: async (folder) =>
      [...files].filter(([path]) => path.startsWith(`${folder}/`)).map(([path, bytes]) => entry(path, bytes)),
    async stat(path) {
      const bytes = files.get(path);
      return bytes === undefined ? undefined : entry(path, bytes);
    },
    async *download(path) {
      const bytes = files.get(path);
      if (bytes === undefined) throw missing();
      yield bytes;
    },
    async upload(path, content) {
      const parts: Uint8Array[] = [];
      for await (const part of content) parts.push(part);
      files.set(path, Buffer.concat(parts));
      return files.get(path)?.length ?? 0;
    },
    async rename(from, to) {
      const bytes = files.get(from);
      if (bytes === undefined) throw missing();
      files.delete(from);
      files.set(to, bytes);
    },
    async remove(path) {
      if (!files.delete(path)) throw missing();
    },
    close: async () => undefined,
  };
  const put = (name: string, bytes: Uint8Array) => {
    files.set(`results/${name}`, Buffer.from(bytes));
    const line = `${createHash('sha256').update(bytes).digest('hex')}  ${name}\n`;
    files.set(`results/${name}.done`, Buffer.from(line));
  };
  return {
    files,
    beside: (openStore) => async (connection) =>
      connection.username === username ? store : openStore(connection),
    takeRequests() {
      const names = [...files.keys()].filter(
        (path) => path.startsWith('requests/') && files.has(`${path}.done`),
      );
      return names.sort().map((path) => {
        const bytes = files.get(path) ?? Buffer.alloc(0);
        files.delete(path);
        files.delete(`${path}.done`);
        return { name: path.slice('requests/'.length), bytes };
      });
    },
    put,
    answer({ name, bytes }, fate) {
      const answered = answerRequest(bytes, fate).bytes;
      put(name.replace('debit_', 'result_'), answered);
      return answered;
    },
  };
}
