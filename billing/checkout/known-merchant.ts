import type { Db, Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { merchantOf } from './queries.ts';

/** By database: a version of a merchant's settings never changes, and one is some kilobytes to fetch and to parse. */
const known = new WeakMap<Db, Map<number, Merchant>>();

/** The merchant with the settings of the version that a query has just seen, or of a newer one. */
export async function knownMerchant(
  db: Db,
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  settingsVersion: number,
): Promise<Merchant | undefined> {
  const merchants = known.get(db) ?? new Map<number, Merchant>();
  known.set(db, merchants);
  const found = merchants.get(merchantId);
  if (found?.settingsVersion === settingsVersion) return found;
  const merchant = await merchantOf(tx, merchantId);
  if (merchant !== undefined) merchants.set(merchantId, merchant);
  return merchant;
}
