import { createHash } from 'node:crypto';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { type Applied, storeSettings } from './queries.ts';
import type { MerchantSettings } from './settings.ts';

/** Makes settings current. What is the same as before changes nothing: the version counts real changes. */
export async function applyMerchant(
  ports: { db: Db; clock: Clock; ids: Ids },
  settings: MerchantSettings,
  actor: string,
): Promise<{ applied: Applied; merchantId: number; version: number }> {
  const at = ports.clock.now();
  const sha256 = createHash('sha256').update(JSON.stringify(settings)).digest('hex');
  return ports.db.transaction(async (tx) => {
    const stored = await storeSettings(tx, settings, sha256, at);
    if (stored.applied !== 'unchanged') {
      await recordAct(tx, {
        merchantId: stored.merchantId,
        id: ports.ids.uuid(),
        kind: 'command',
        actor,
        at,
      });
    }
    return stored;
  });
}
