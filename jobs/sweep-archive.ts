import { join } from 'node:path';
import type { Db } from '../billing/db.ts';
import { isResultTaken } from '../billing/debits/queries.ts';
import { archivedIds, isTakenIn } from '../billing/exchanges/queries.ts';
import { openRestore } from '../billing/restores/queries.ts';
import { type ArchiveHead, begunBefore, readHead, removeArchived } from '../files/archive.ts';
import type { ChunkContext } from './job.ts';

/** No chunk lives so long: whoever wrote it is dead. */
const leftAfterHours = 24;

/**
 * Takes away what killed processes left on the disk: half-written files, archived copies that were never registered, and
 * spooled reports. Never what the database has, nor a copy with a head that was not taken in otherwise: after a restore such
 * a copy may be all that is left of a file. Returns how many paths went.
 */
export async function sweepArchive({ ports, merchant, stop }: ChunkContext): Promise<number> {
  const { db, disk, sealer, archiveFolder } = ports;
  // A database that was put back does not know yet what it had.
  if ((await openRestore(db)) !== undefined) return 0;
  const beforeMs = ports.clock.now().subtract({ hours: leftAfterHours }).epochMilliseconds;
  let swept = 0;

  const reports = await begunBefore(disk, join(archiveFolder, 'reports'), beforeMs);
  const files = await begunBefore(disk, join(archiveFolder, merchant.code), beforeMs);
  for (const path of [...reports.halves, ...reports.whole.map((each) => each.path), ...files.halves]) {
    await disk.remove(path);
    swept += 1;
  }
  const known = await archivedIds(
    db,
    merchant.id,
    files.whole.map((file) => file.id),
  );
  for (const { id, path, hasHead } of files.whole) {
    if (known.has(id)) continue;
    stop.throwIfAborted();
    if (hasHead) {
      const head = await readHead(disk, [sealer.archiveKey], path);
      if (head === null || !(await isTaken(db, merchant.id, head))) continue;
    }
    await removeArchived(disk, path);
    swept += 1;
  }
  return swept;
}

/** The same content stands here under another id. */
async function isTaken(db: Pick<Db, 'query'>, merchantId: number, head: ArchiveHead): Promise<boolean> {
  switch (head.what) {
    case 'inward':
      return isTakenIn(db, merchantId, head);
    case 'debit_result':
      return isResultTaken(db, merchantId, head.sha256);
    case 'outward':
      return false;
  }
}
