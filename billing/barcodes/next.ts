import type { LinkTerms } from '../links/expiry.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { assertState } from '../refusal.ts';
import { barcodeDigits, needsStamp, reissuesAtMost } from './digits.ts';
import type { BarcodeRow, BarcodeTerms } from './queries.ts';

export interface NextBarcode {
  merchant: Merchant;
  terms: BarcodeTerms;
  /** YYYY-MM-DD: the last day on which its money comes before the bill goes back. */
  endsOn: string;
  /** YYYY-MM-DD */
  today: string;
  reissue: number;
}

/**
 * The barcode that a bill would get today. Null: registers would not take it any more, or it was issued as often as the
 * digits can say. Refusals of `barcodeDigits`.
 */
export function nextBarcode({ merchant, terms, endsOn, today, reissue }: NextBarcode): BarcodeRow | null {
  const { barcode } = merchant.settings.checkout;
  assertState(barcode, `${merchant.code} has no barcodes`);
  if (endsOn < today || reissue > reissuesAtMost) return null;
  const digits = barcodeDigits({
    ...barcode,
    paymentNumber: terms.payment_number,
    reissue,
    lastDay: endsOn,
    stamp: needsStamp({
      amount: terms.amount,
      taxAmount: terms.tax_amount,
      publicCharge: merchant.settings.publicCharge,
      on: today,
    }),
    amount: terms.amount,
  });
  return { reissue, digits, amount: terms.amount, expires_on: endsOn };
}

/** By which `linkExpiry` tells when it ends. */
export function linkTermsOf(terms: BarcodeTerms): LinkTerms {
  return {
    businessDate: terms.business_date,
    dueOn: terms.due_on,
    settingsVersion: terms.settings_version,
    fellBack: terms.fell_back_on !== null,
  };
}
