import { constants } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Disk, Ids } from '../billing/ports.ts';
import { Refusal } from '../billing/refusal.ts';

const pieceBytes = 1024 * 1024;

/** The local disk. Files are 0600 and folders 0700: they hold customers' data. Absent folders are made. */
export function openDisk(ids: Pick<Ids, 'uuid'>): Disk {
  return {
    async write(path, content) {
      const folder = dirname(path);
      await makeFolder(folder);
      // A name of its own for each try: two processes that write the same path never share a half file.
      const temporary = `${path}.${ids.uuid()}.tmp`;
      let bytes = 0;
      try {
        const file = await open(temporary, 'wx', 0o600);
        try {
          for await (const chunk of content) {
            await file.writeFile(chunk);
            bytes += chunk.length;
          }
          await file.sync();
        } finally {
          await file.close();
        }
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, { force: true });
        throw isFull(error) ? diskFull(error) : error;
      }
      await syncFolder(folder);
      return bytes;
    },

    async *read(path) {
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
      try {
        for (;;) {
          const buffer = Buffer.allocUnsafe(pieceBytes);
          const { bytesRead } = await file.read(buffer, 0, pieceBytes, null);
          if (bytesRead === 0) return;
          yield buffer.subarray(0, bytesRead);
        }
      } finally {
        await file.close();
      }
    },

    async exists(path) {
      try {
        await stat(path);
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
        throw error;
      }
    },

    async list(folder) {
      if (!(await this.exists(folder))) return [];
      const entries = await readdir(folder, { withFileTypes: true });
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => entry.name)
        .sort();
    },

    async remove(path) {
      await rm(path, { force: true });
      const folder = dirname(path);
      if (await this.exists(folder)) await syncFolder(folder);
    },
  };
}

async function makeFolder(folder: string): Promise<void> {
  try {
    const made = await mkdir(folder, { recursive: true, mode: 0o700 });
    for (let fresh = folder; made !== undefined; fresh = dirname(fresh)) {
      await syncFolder(dirname(fresh));
      if (fresh === made) break;
    }
  } catch (error) {
    throw isFull(error) ? diskFull(error) : error;
  }
}

/** No space, no quota, or a limit on the size of files: what was there before is untouched. */
export function diskFull(cause: unknown): Refusal {
  return new Refusal('DISK_FULL', 'the local disk is full: nothing was taken or written', {
    next: 'Make room on the disk of SEIKYU_HOME; the next run carries on.',
    cause,
  });
}

function isFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException).code ?? '');
}

/** Without it a power cut can undo the rename that was already reported as done. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
