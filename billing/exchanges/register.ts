import type { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import { endRefusedRemoval, insertFile, markRemoved, type NewFile } from './queries.ts';

/** Makes an archived file ours. False: it is ours already, and what remains is its removal. */
export async function registerFile(
  ports: { db: Db },
  hold: { fence: Fence; act: Act },
  file: NewFile,
  at: Temporal.Instant,
  listedAt: Temporal.Instant,
): Promise<boolean> {
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, hold.fence);
    await recordAct(tx, hold.act);
    if (file.checksumMatches) await endRefusedRemoval(tx, hold.act.merchantId, file, listedAt);
    return insertFile(tx, hold.act, file, at, listedAt);
  });
}

/** The file lies no more in the merchant's folder: a file of this name and these bytes is from now on another one. */
export async function finishRemoval(
  ports: { db: Db },
  hold: { fence: Fence; act: Act },
  file: { name: string; sha256: string },
  at: Temporal.Instant,
): Promise<void> {
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, hold.fence);
    await markRemoved(tx, hold.act.merchantId, file, at);
  });
}
