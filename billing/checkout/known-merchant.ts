import type { Temporal } from 'temporal-polyfill';
import type { Db, Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { merchantOf } from './queries.ts';

/** By database: a version of a merchant's settings never changes, and one is some kilobytes to fetch and to parse. */
const known = new WeakMap<Db, Map<number, { merchant: Merchant; fetchedMs: number }>>();

/** After a restore the number of a forgotten version is given to another one. */
const knownForMs = 60_000;

/** The merchant with the settings of the version that a query has just seen, or of a newer one. */
export async function knownMerchant(
  db: Db,
  tx: Pick<Tx, 'query'>,
  {
    merchantId,
    settingsVersion,
    now,
  }: { merchantId: number; settingsVersion: number; now: Temporal.Instant },
): Promise<Merchant | undefined> {
  const merchants = known.get(db) ?? new Map<number, { merchant: Merchant; fetchedMs: number }>();
  known.set(db, merchants);
  const nowMs = now.epochMilliseconds;
  const found = merchants.get(merchantId);
  const isFresh = found !== undefined && Math.abs(nowMs - found.fetchedMs) < knownForMs;
  if (isFresh && found.merchant.settingsVersion === settingsVersion) return found.merchant;
  const merchant = await merchantOf(tx, merchantId);
  if (merchant !== undefined) merchants.set(merchantId, { merchant, fetchedMs: nowMs });
  return merchant;
}
