import { Temporal } from 'temporal-polyfill';
import type { BillRow } from '../checkout/bill.ts';
import { stateOfBill } from '../checkout/bill.ts';
import type { Link } from '../checkout/find-link.ts';
import { leavePage } from '../checkout/leave-page.ts';
import { methodsOffered } from '../checkout/methods.ts';
import { billOfLink, merchantOf } from '../checkout/queries.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import { todayOf } from '../checkout/view-bill.ts';
import type { Db, Tx } from '../db.ts';
import { linkEndsOn } from '../dunning/decide.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import { dunningPolicyOf } from '../merchants/settings.ts';
import { assertState } from '../refusal.ts';
import { barcodeDigits, needsStamp, reissuesAtMost } from './digits.ts';
import { type BarcodeRow, barcodeTerms, insertBarcode, newestBarcode } from './queries.ts';

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
      const barcode = await nextBarcode(tx, ports, {
        merchant,
        bill,
        today,
        reissue: (newest?.reissue ?? -1) + 1,
      });
      if (barcode === null) return { kind: 'look_again' };
      await insertBarcode(tx, merchant.id, link.invoiceId, barcode, now);
      return { kind: 'issued' };
    },
    { merchantId: link.merchantId },
  );
}

/** Null: registers would not take it any more, or it was issued as often as the digits can say. */
async function nextBarcode(
  tx: Tx,
  ports: CheckoutPorts,
  of: { merchant: Merchant; bill: BillRow; today: string; reissue: number },
): Promise<BarcodeRow | null> {
  const { merchant, bill, today, reissue } = of;
  const { barcode } = merchant.settings.checkout;
  const terms = await barcodeTerms(tx, merchant.id, bill.invoice_id);
  assertState(barcode && terms, `bill ${bill.invoice_id} is to have a barcode`);
  const settings = (await settingsByVersion(tx, merchant.id, [terms.settings_version])).get(
    terms.settings_version,
  );
  const ends = linkEndsOn(
    {
      businessDate: Temporal.PlainDate.from(terms.business_date),
      dueOn: Temporal.PlainDate.from(terms.due_on),
      policy: dunningPolicyOf(settings ?? merchant.settings),
      fellBackToLink: terms.fell_back_on !== null,
    },
    ports.gateway.barcodes?.newsDays ?? 0,
  ).toString();
  const [lastDay = ends] = [ends, bill.expires_on].sort();
  if (lastDay < today || reissue > reissuesAtMost) return null;
  const digits = barcodeDigits({
    ...barcode,
    paymentNumber: terms.payment_number,
    reissue,
    lastDay,
    stamp: needsStamp({
      amount: bill.amount,
      taxAmount: terms.tax_amount,
      publicCharge: merchant.settings.publicCharge,
      on: today,
    }),
    amount: bill.amount,
  });
  return { reissue, digits, amount: bill.amount, expires_on: lastDay };
}
