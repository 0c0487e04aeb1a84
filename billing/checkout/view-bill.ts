import type { Temporal } from 'temporal-polyfill';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { type BillRow, type BillState, stateOfBill, type TaxLine } from './bill.ts';
import type { Link } from './find-link.ts';
import { knownMerchant } from './known-merchant.ts';
import { billOfLink } from './queries.ts';

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
      const bill = await billOfLink(tx, link.merchantId, link.invoiceId, link.version);
      const merchant = bill && (await knownMerchant(db, tx, link.merchantId, bill.settings_version));
      if (bill === undefined || merchant === undefined) return null;
      return {
        merchant,
        bill,
        state: stateOfBill(bill, now, todayOf(merchant, now)),
        taxLines: bill.tax_lines,
      };
    },
    { merchantId: link.merchantId },
  );
}

/** YYYY-MM-DD in the merchant's zone. */
export function todayOf(merchant: Merchant, now: Temporal.Instant): string {
  return now.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
}
