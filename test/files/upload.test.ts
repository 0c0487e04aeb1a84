import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Refusal } from '../../billing/refusal.ts';
import type { RemoteEntry, RemoteStore } from '../../files/store.ts';
import { type OutgoingFile, type PlacingSteps, placeFile } from '../../files/upload.ts';

const bytes = Buffer.from('H,1,minato-gas,result,2026-11-25,1\nT,0,0\n');
const name = 'result_minato-gas_20261125_0001.csv';
const final = `out/${name}`;
const temporary = `out/.${name}.1.part`;

const file = (renamingPart: number | null): OutgoingFile => ({
  folder: 'out',
  name,
  sizeBytes: bytes.length,
  sha256: createHash('sha256').update(bytes).digest('hex'),
  parts: renamingPart ?? 0,
  renamingPart,
  async *content() {
    yield bytes;
  },
});

const nothing = async () => undefined;
const steps = (change: Partial<PlacingSteps> = {}): PlacingSteps => ({
  newPart: async () => 2,
  uploaded: nothing,
  beforeRename: nothing,
  renamed: nothing,
  doneWritten: nothing,
  ...change,
});

/** A partner's folder in memory. */
function folder(there: Record<string, Buffer> = {}) {
  const files = new Map(Object.entries(there));
  const uploads: string[] = [];
  const store: RemoteStore = {
    list: async () => [],
    async stat(path): Promise<RemoteEntry | undefined> {
      const content = files.get(path);
      return content && { name: path, kind: 'file', sizeBytes: content.length, modifiedAtEpochS: 0 };
    },
    async *download(path) {
      yield files.get(path) ?? Buffer.alloc(0);
    },
    async upload(path, content) {
      uploads.push(path);
      const parts: Uint8Array[] = [];
      for await (const part of content) parts.push(part);
      files.set(path, Buffer.concat(parts));
      return files.get(path)?.length ?? 0;
    },
    async rename(from, to) {
      const content = files.get(from);
      if (files.has(to)) throw new Refusal('SFTP_EXISTS', 'taken', { next: '' });
      if (content === undefined) throw new Refusal('SFTP_NOT_FOUND', 'nothing there', { next: '' });
      files.delete(from);
      files.set(to, content);
    },
    remove: async (path) => void files.delete(path),
    close: nothing,
  };
  return { store, files, uploads };
}

describe('a file that an earlier try may have renamed', () => {
  it('is not written again where it lies whole: a late worker could show the half of it', async () => {
    const { store, files, uploads } = folder({ [temporary]: bytes });
    expect(await placeFile(store, file(1), steps())).toBe('placed');
    expect(uploads).not.toContain(temporary);
    expect(files.get(final)).toEqual(bytes);
  });

  it('is written again where what lies there is not whole', async () => {
    const { store, files } = folder({ [temporary]: bytes.subarray(1) });
    expect(await placeFile(store, file(1), steps())).toBe('placed');
    expect(files.get(final)).toEqual(bytes);
  });

  it('is placed where a late worker was faster, and gone where the partner has taken it since', async () => {
    for (const taken of [false, true]) {
      const { store, files } = folder({ [temporary]: bytes });
      const beforeRename = async () => {
        files.delete(temporary);
        if (!taken) files.set(final, bytes);
      };
      const placed = await placeFile(store, file(1), steps({ beforeRename }));
      expect(placed).toBe(taken ? 'gone' : 'placed');
    }
  });
});

describe('a late worker', () => {
  it('that still writes under its own name makes no file look unseen that its partner has taken', async () => {
    const { store, files, uploads } = folder({ [`out/.${name}.1.part`]: bytes });
    expect(await placeFile(store, { ...file(2), parts: 2 }, steps())).toBe('gone');
    expect(uploads).toEqual([]);
    expect(files.size).toBe(1);
  });

  it('that renames between two looks hides the file from neither', async () => {
    const { store, files } = folder({ [temporary]: bytes });
    const { stat } = store;
    store.stat = async (path) => {
      const there = await stat(path);
      if (files.delete(temporary)) files.set(final, bytes);
      return there;
    };
    expect(await placeFile(store, file(1), steps())).toBe('placed');
    expect([...files.keys()]).toEqual([final, `${final}.done`]);
  });

  it('that never gets through leaves one half there, not one for each try', async () => {
    const { store, files } = folder();
    const { upload } = store;
    store.upload = async (path, content) => {
      await upload(path, content);
      throw new Refusal('SFTP_TOO_SLOW', 'slow', { next: '' });
    };
    for (let part = 1; part <= 4; part += 1) {
      const slow = placeFile(store, { ...file(null), parts: part - 1 }, steps({ newPart: async () => part }));
      await expect(slow).rejects.toMatchObject({ code: 'SFTP_TOO_SLOW' });
    }
    expect([...files.keys()]).toEqual([`out/.${name}.4.part`]);
  });

  it('leaves its temporary files to the next try', async () => {
    const left = { [temporary]: bytes, [`out/.${name}.done.2.part`]: bytes };
    const { store, files } = folder(left);
    expect(await placeFile(store, { ...file(null), parts: 2 }, steps({ newPart: async () => 3 }))).toBe(
      'placed',
    );
    expect([...files.keys()]).toEqual([final, `${final}.done`]);
  });
});

describe('a worker that has lost its file to another one', () => {
  it('writes neither the file nor its control file', async () => {
    const lost = async () => {
      throw new Error('lost');
    };
    const folders: Record<string, Buffer>[] = [{}, { [final]: bytes }];
    for (const there of folders) {
      const { store, uploads } = folder(there);
      await expect(placeFile(store, file(null), steps({ newPart: lost }))).rejects.toThrow('lost');
      expect(uploads).toEqual([]);
    }
  });
});

describe('a folder that somebody else uses too', () => {
  it('takes nothing for another content where a download ended early: it is looked at again', async () => {
    const { store } = folder({ [final]: bytes });
    store.download = async function* () {
      yield bytes.subarray(0, 5);
    };
    await expect(placeFile(store, file(1), steps())).rejects.toMatchObject({ code: 'SFTP_UNREACHABLE' });
  });

  it('is no other content where the partner takes the file, or its control file, between two looks', async () => {
    for (const [at, renamingPart, expected] of [
      [final, 1, 'gone'],
      [final, null, 'placed'],
      [`${final}.done`, 1, 'placed'],
    ] as const) {
      const { store, files } = folder({ [final]: bytes, [`${final}.done`]: Buffer.from('sum') });
      const { stat } = store;
      store.stat = async (path) => {
        const there = await stat(path);
        if (path === at) for (const each of [final, `${final}.done`]) files.delete(each);
        return there;
      };
      expect(await placeFile(store, file(renamingPart), steps()), at).toBe(expected);
    }
  });

  it('is no other content where the partner takes the file at the moment when its control file appears', async () => {
    const { store, files } = folder();
    const { rename } = store;
    store.rename = async (from, to) => {
      await rename(from, to);
      if (!to.endsWith('.done')) return;
      files.delete(to);
      files.delete(final);
    };
    expect(await placeFile(store, file(null), steps())).toBe('placed');
    expect(files.size).toBe(0);
  });
});
