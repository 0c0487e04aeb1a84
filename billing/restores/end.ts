import { recordAct } from '../acts/queries.ts';
import { resolveAlerts } from '../alerts/queries.ts';
import type { Db } from '../db.ts';
import { listMerchants } from '../merchants/queries.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { safeModeCause } from './begin.ts';
import {
  closeRestore,
  type OpenFinding,
  openFindingsSince,
  openRestore,
  restoreSteps,
  type StepRow,
} from './queries.ts';
import { type OpenRestore, steps } from './restore.ts';

export interface RestoreStatus {
  restore: OpenRestore | null;
  steps: StepRow[];
  findings: OpenFinding[];
  /** Why it cannot be ended yet, one sentence each. */
  leftOver: string[];
}

export async function restoreStatus(db: Pick<Db, 'query'>): Promise<RestoreStatus> {
  const restore = await openRestore(db);
  if (restore === undefined) return { restore: null, steps: [], findings: [], leftOver: [] };
  const rows = await restoreSteps(db, restore.id);
  const findings = await openFindingsSince(db, restore.began_at);
  const leftOver: string[] = [];
  for (const { code } of await listMerchants(db)) {
    for (const step of steps) {
      const row = rows.find((each) => each.merchant === code && each.step === step);
      if (row === undefined) leftOver.push(`${code} ${step}: not reconciled yet`);
      else if (row.state === 'open') leftOver.push(`${code} ${step}: ${row.left_over}`);
    }
  }
  for (const finding of findings)
    leftOver.push(`${finding.merchant}: ${finding.kind} ${finding.subject} is open`);
  return { restore, steps: rows, findings, leftOver };
}

/**
 * Safe mode ends, by an act of a person. Refusals: RESTORE_NOT_OPEN; RESTORE_UNFINISHED while something is not learned,
 * unless a reason is given to accept that.
 */
export async function endRestore(
  ports: { db: Db; clock: Clock; ids: Ids },
  by: string,
  accepted: string | null,
): Promise<RestoreStatus> {
  await ports.clock.refresh();
  const at = ports.clock.now();
  return ports.db.transaction(async (tx) => {
    const status = await restoreStatus(tx);
    const { restore, leftOver } = status;
    if (restore === null) {
      throw new Refusal('RESTORE_NOT_OPEN', 'there is no safe mode to end', {
        next: 'Nothing is to be done. Begin it with: seikyu restore begin --why "..."',
        exitCode: 2,
      });
    }
    if (leftOver.length > 0 && accepted === null) {
      throw new Refusal(
        'RESTORE_UNFINISHED',
        `safe mode cannot end yet. ${leftOver.slice(0, 5).join('. ')}`,
        {
          context: { leftOver: leftOver.length },
          next:
            'Run: seikyu restore reconcile. What only a person can settle may be accepted: ' +
            'seikyu restore end --accept "why this is in order"',
          exitCode: 3,
        },
      );
    }
    await closeRestore(tx, restore.id, { at, by, accepted: leftOver.length > 0 ? accepted : null });
    for (const merchant of await listMerchants(tx)) {
      const actor = `${by} ends safe mode`;
      await recordAct(tx, { merchantId: merchant.id, id: ports.ids.uuid(), kind: 'command', actor, at });
    }
    await resolveAlerts(tx, 0, at, [safeModeCause], 'safe mode has ended');
    return status;
  });
}
