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
  const of = db.of(link.merchantId);
  const bill = await billOfLink(of, link.merchantId, link.invoiceId, link.version);
  const merchant =
    bill &&
    (await knownMerchant(db, of, {
      merchantId: link.merchantId,
      settingsVersion: bill.settings_version,
      now,
    }));
  if (bill === undefined || merchant === undefined) return null;
  return {
    merchant,
    bill,
    state: stateOfBill(bill, now, todayOf(merchant, now)),
    taxLines: bill.tax_lines,
  };
}

const minuteMs = 60_000;
/** By zone, the minute that was asked about last: a page asks three times, and no zone changes its day within one. */
const lastAsked = new Map<string, { minute: number; today: string }>();

/** YYYY-MM-DD in the merchant's zone. */
export function todayOf(merchant: Merchant, now: Temporal.Instant): string {
  const { timezone } = merchant.settings;
  const minute = Math.floor(now.epochMilliseconds / minuteMs);
  const known = lastAsked.get(timezone);
  if (known?.minute === minute) return known.today;
  const today = now.toZonedDateTimeISO(timezone).toPlainDate().toString();
  lastAsked.set(timezone, { minute, today });
  return today;
}
