import type { Temporal } from 'temporal-polyfill';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { type BillRow, type BillState, stateOfBill } from './bill.ts';
import type { Link } from './find-link.ts';
import { billOfLink, merchantOf, type TaxLine, taxLinesOf } from './queries.ts';

export interface BillView {
  merchant: Merchant;
  state: BillState;
  bill: BillRow;
  taxLines: TaxLine[];
}

/** Null: the link is gone. The caller shows of it only what the visitor has shown to know. */
export async function viewBill(db: Db, now: Temporal.Instant, link: Link): Promise<BillView | null> {
  return db.transaction(
    async (tx) => {
      const merchant = await merchantOf(tx, link.merchantId);
      const bill = await billOfLink(tx, link.merchantId, link.invoiceId, link.version);
      if (merchant === undefined || bill === undefined) return null;
      return {
        merchant,
        bill,
        state: stateOfBill(bill, now, todayOf(merchant, now)),
        taxLines: await taxLinesOf(tx, link.merchantId, link.invoiceId),
      };
    },
    { merchantId: link.merchantId },
  );
}

/** YYYY-MM-DD in the merchant's zone. */
export function todayOf(merchant: Merchant, now: Temporal.Instant): string {
  return now.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
}
