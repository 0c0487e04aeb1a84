import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { endHalts, type HaltKind, placeHalt } from './queries.ts';
import type { RunKey } from './run.ts';

/** A run that an operator has paused or stopped: what was begun is finished, and nothing new is begun. */
export class Halted extends Error {
  constructor(key: Pick<RunKey, 'job' | 'businessDate'>) {
    super(`${key.job} ${key.businessDate} was paused or stopped by an operator`);
    this.name = 'Halted';
  }
}

export interface HaltByHand {
  job: string;
  businessDate: string;
  what: HaltKind | 'resume';
}

/**
 * Pauses a job on every day until it is resumed, stops it for one day, or resumes it: then both are over, and a run that
 * was held goes on. Whoever is at it sees it before it begins anything more. Returns whether anything changed.
 */
export async function changeHalt(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  { job, businessDate, what }: HaltByHand,
  actor: string,
): Promise<boolean> {
  await ports.clock.refresh();
  const at = ports.clock.now();
  const key: RunKey = { merchantId: merchant.id, job, businessDate };
  return ports.db.transaction(async (tx) => {
    const changed =
      what === 'resume' ? await endHalts(tx, key, at) : await placeHalt(tx, key, what, at, actor);
    if (changed > 0)
      await recordAct(tx, {
        merchantId: merchant.id,
        id: ports.ids.uuid(),
        kind: 'command',
        actor: `${actor}: ${what} ${job} ${businessDate}`,
        at,
      });
    return changed > 0;
  });
}
