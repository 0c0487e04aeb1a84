import type { Temporal } from 'temporal-polyfill';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import { listMerchants } from '../merchants/queries.ts';
import type { Ids } from '../ports.ts';
import { insertRestore } from './queries.ts';

export const safeModeCause = 'SAFE_MODE';

export interface BeginRestore {
  ids: Ids;
  at: Temporal.Instant;
  /** `operator@host`, or the process that noticed. */
  by: string;
  why: string;
  forgottenFrom: Temporal.Instant;
}

/**
 * Safe mode begins: no charge, page, SMS, return or file leaves the database until it has learned what it has forgotten.
 * Begun again it stays as it is; an earlier start of the forgotten time widens it. True: it begins with this.
 */
export async function beginRestore(tx: Tx, begin: BeginRestore): Promise<boolean> {
  const { ids, at, by, why, forgottenFrom } = begin;
  const begins = await insertRestore(tx, { id: ids.uuid(), at, by, why, forgottenFrom });
  if (!begins) return false;
  for (const merchant of await listMerchants(tx)) {
    const actor = `${by} begins safe mode`;
    await recordAct(tx, { merchantId: merchant.id, id: ids.uuid(), kind: 'command', actor, at });
  }
  await raiseAlert(tx, ids.uuid(), at, {
    merchantId: 0,
    level: 'now',
    cause: safeModeCause,
    message:
      `safe mode: ${why}. Nothing is charged, sent or delivered. ` +
      'Look with seikyu restore status, then run seikyu restore reconcile and seikyu restore end',
  });
  return true;
}
