import { join } from 'node:path';
import type { Disk, Log } from '../billing/ports.ts';
import { openRestore } from '../billing/restores/queries.ts';
import { Watch, type WatchPorts, type Witness, type WitnessStand } from '../billing/restores/watch.ts';

/** How much of the past may be lost under this process without its noticing. */
const beatEveryMs = 10_000;

/**
 * Looks at the database now, every ten seconds, and once more at the end. Returns how to stop. Begins safe mode where it was
 * put back to an older state.
 */
export async function keepWatch(
  home: string,
  disk: Disk,
  log: Log,
  ports: Omit<WatchPorts, 'stand'>,
): Promise<() => Promise<void>> {
  const watch = new Watch({ ...ports, stand: standIn(join(home, 'witness'), disk, log) });
  const look = async (): Promise<void> => {
    const why = await watch.beat();
    if (why !== null) log.error({ why }, 'safe mode begins: the database was put back to an older state');
  };
  await look();
  const open = await openRestore(ports.db);
  if (open !== undefined)
    log.warn({ since: open.began_at, why: open.why }, 'safe mode: see seikyu restore status');
  let looking: Promise<void> = Promise.resolve();
  let isLooking = false;
  const timer = setInterval(() => {
    // A slow database is asked once at a time.
    if (isLooking) return;
    isLooking = true;
    looking = look()
      .catch((error: Error) =>
        log.warn({ error: error.message }, 'the database was not looked at; again later'),
      )
      .finally(() => {
        isLooking = false;
      });
  }, beatEveryMs);
  timer.unref();
  return async () => {
    clearInterval(timer);
    await looking;
    try {
      await look();
    } catch (error) {
      log.warn({ error: (error as Error).message }, 'the database could not be looked at in the end');
    }
  };
}

/** One small file for each database, named by our own id of it, so that several do not mix. */
function standIn(folder: string, disk: Disk, log: Log): WitnessStand {
  const fileOf = (databaseId: string) => join(folder, `${databaseId}.json`);
  return {
    async read(databaseId) {
      const file = fileOf(databaseId);
      if (!(await disk.exists(file))) return null;
      const parts: Uint8Array[] = [];
      for await (const part of disk.read(file)) parts.push(part);
      try {
        return JSON.parse(Buffer.concat(parts).toString('utf8')) as Witness;
      } catch {
        // Written whole or not at all, so somebody else wrote it: it says nothing.
        log.warn({ file }, 'the witness cannot be read; the database is taken as it is');
        return null;
      }
    },
    async write(witness) {
      try {
        await disk.write(fileOf(witness.databaseId), only(Buffer.from(`${JSON.stringify(witness)}\n`)));
      } catch (error) {
        // A full disk must not keep the work from going on: an old witness notices less, and nothing wrong.
        log.warn({ error: (error as Error).message }, 'the witness of the database could not be written');
      }
    },
  };
}

async function* only(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}
