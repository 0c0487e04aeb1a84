import { createHash } from 'node:crypto';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { type Applied, storeSettings, stripeAccountInUse } from './queries.ts';
import type { MerchantSettings } from './settings.ts';

/**
 * Makes settings current. What is the same as before changes nothing: the version counts real changes. Refusal
 * MERCHANT_ACCOUNT_IN_USE where charges and saved cards are in another account: asked for in the new one, none of them would
 * be found, and what is not found is charged again.
 */
export async function applyMerchant(
  ports: { db: Db; clock: Clock; ids: Ids },
  settings: MerchantSettings,
  actor: string,
): Promise<{ applied: Applied; merchantId: number; version: number }> {
  const at = ports.clock.now();
  const sha256 = createHash('sha256').update(JSON.stringify(settings)).digest('hex');
  return ports.db.transaction(async (tx) => {
    const used = await stripeAccountInUse(tx, settings.code);
    if (used !== undefined && used.account !== (settings.gateway?.stripeAccount ?? null)) {
      throw new Refusal(
        'MERCHANT_ACCOUNT_IN_USE',
        `charges of ${settings.code} are in another account at Stripe`,
        {
          next: 'Leave gateway.stripe_account as it is; for another account apply the merchant under a new code.',
          context: { account: used.account },
          exitCode: 2,
        },
      );
    }
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
