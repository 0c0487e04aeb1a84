import type { BillRow } from '../checkout/bill.ts';
import { stateOfBill } from '../checkout/bill.ts';
import type { Link } from '../checkout/find-link.ts';
import { leavePage } from '../checkout/leave-page.ts';
import { methodsOffered } from '../checkout/methods.ts';
import { billOfLink, merchantOf } from '../checkout/queries.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import { todayOf } from '../checkout/view-bill.ts';
import type { Db } from '../db.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { linkExpiry } from '../links/expiry.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import { assertState } from '../refusal.ts';
import { linkTermsOf, nextBarcode } from './next.ts';
import { barcodeTerms, insertBarcodes, newestBarcode } from './queries.ts';

export type Issued =
  | { kind: 'issued' }
  /** Another attempt has no conclusive outcome yet. */
  | { kind: 'waiting' }
  /** Paid, ended, or no barcode is to be had for it: the bill page says which. */
  | { kind: 'look_again' };

type Step = Issued | { kind: 'leave'; merchant: Merchant; bill: BillRow };

/**
 * Issues the barcode of a bill, or finds the one that was issued and is still taken. It locks nothing: whoever holds a barcode
 * may still pay in another way, and what comes twice is the customer's credit.
 */
export async function issueBarcode(db: Db, ports: CheckoutPorts, link: Link): Promise<Issued> {
  const first = await issueOrLeave(db, ports, link);
  if (first.kind !== 'leave') return first;
  await leavePage(db, ports, first.merchant, first.bill);
  const second = await issueOrLeave(db, ports, link);
  return second.kind === 'leave' ? { kind: 'waiting' } : second;
}

async function issueOrLeave(db: Db, ports: CheckoutPorts, link: Link): Promise<Step> {
  await ports.clock.refresh();
  const now = ports.clock.now();
  return db.transaction(
    async (tx): Promise<Step> => {
      const merchant = await merchantOf(tx, link.merchantId);
      const [invoice] = await lockInvoices(tx, link.merchantId, [link.invoiceId]);
      const bill = invoice && (await billOfLink(tx, link.merchantId, link.invoiceId, link.version));
      if (merchant === undefined || bill === undefined) return { kind: 'look_again' };
      const today = todayOf(merchant, now);
      const state = stateOfBill(bill, now, today);
      if (state === 'in_payment') return { kind: 'leave', merchant, bill };
      if (state === 'waiting') return { kind: 'waiting' };
      const isOffered = methodsOffered(merchant.settings, ports.gateway, bill.amount).includes('barcode');
      if (state !== 'owed' || !isOffered) return { kind: 'look_again' };

      const newest = await newestBarcode(tx, merchant.id, link.invoiceId);
      if (newest !== undefined && newest.expires_on >= today) return { kind: 'issued' };
      const terms = (await barcodeTerms(tx, merchant.id, [link.invoiceId])).get(link.invoiceId);
      assertState(terms, `bill ${link.invoiceId} is to have a barcode`);
      const settings = await settingsByVersion(tx, merchant.id, [terms.settings_version]);
      const ends = linkExpiry(settings, ports.gateway.barcodes?.newsDays)(linkTermsOf(terms));
      const [endsOn = ends] = [ends, bill.expires_on].sort();
      const barcode = nextBarcode({
        merchant,
        terms,
        endsOn,
        today,
        reissue: (newest?.reissue ?? -1) + 1,
      });
      if (barcode === null) return { kind: 'look_again' };
      await insertBarcodes(tx, merchant.id, [{ ...barcode, invoiceId: link.invoiceId }], now);
      return { kind: 'issued' };
    },
    { merchantId: link.merchantId },
  );
}
