import type { Db } from '../db.ts';
import { shortCodeOf, tokenHashOf } from '../links/token.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { linkByHash, merchantIdOf, merchantOf } from './queries.ts';

/** One pay link, and with it one bill of one merchant: all that a visitor may ever reach. */
export interface Link {
  merchantId: number;
  invoiceId: string;
  version: number;
}

/** Null: there is no such link; why is told to nobody. */
export async function findLink(db: Db, token: string): Promise<{ link: Link; merchant: Merchant } | null> {
  const shortCode = shortCodeOf(token);
  const merchantId = shortCode === null ? undefined : await merchantIdOf(db, { shortCode });
  if (merchantId === undefined) return null;
  return db.transaction(
    async (tx) => {
      const row = await linkByHash(tx, merchantId, tokenHashOf(token));
      const merchant = row && (await merchantOf(tx, merchantId));
      return merchant
        ? { merchant, link: { merchantId, invoiceId: row.invoice_id, version: row.version } }
        : null;
    },
    { merchantId },
  );
}
