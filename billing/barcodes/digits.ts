import { Refusal } from '../refusal.ts';

/**
 * The 44 digits that every convenience store's register reads (GS1-128 for payment slips). From the left: `91`, the
 * issuer's 6, 21 of free use, 1 of reissue, the last day YYMMDD, the revenue stamp flag, 6 of amount, the check digit.
 */
export interface BarcodeParts {
  /** 6 digits: the GS1 company prefix without its leading 4; an agency's own for all of its merchants. */
  issuer: string;
  /** Digits by which the agency knows the merchant. */
  companyCode: string;
  /** The bill's number among the merchant's. */
  paymentNumber: number;
  /** How many digits the agency keeps for that number. */
  numberDigits: number;
  /** 0 for the first barcode of a bill. */
  reissue: number;
  /** YYYY-MM-DD: the last day on which a register takes it. */
  lastDay: string;
  stamp: boolean;
  /** Yen, tax included. */
  amount: number;
}

/** Registers take no more; 300,000 itself is taken. */
export const counterLimitYen = 300_000;
export const reissuesAtMost = 9;
const freeDigits = 21;

/**
 * Refusals: BARCODE_OVER_LIMIT, BARCODE_NUMBER_TOO_LONG, BARCODE_REISSUES_USED_UP. What no caller can mean (a company
 * code of letters) is an impossible state.
 */
export function barcodeDigits(parts: BarcodeParts): string {
  const { amount, reissue } = parts;
  if (!Number.isInteger(amount) || amount < 1 || amount > counterLimitYen) {
    throw new Refusal(
      'BARCODE_OVER_LIMIT',
      `registers take 1 to ${counterLimitYen.toLocaleString('en')} yen by barcode`,
      { next: 'Pay by another of the ways that the page offers.', context: { amount } },
    );
  }
  if (reissue > reissuesAtMost) {
    throw new Refusal('BARCODE_REISSUES_USED_UP', 'the barcode of a bill is issued ten times at most', {
      next: 'Pay by another of the ways that the page offers.',
      context: { reissue },
    });
  }
  const number = String(parts.paymentNumber).padStart(parts.numberDigits, '0');
  const free = parts.companyCode + number;
  if (number.length > parts.numberDigits || free.length > freeDigits) {
    throw new Refusal(
      'BARCODE_NUMBER_TOO_LONG',
      `the bill's number has no room in ${parts.numberDigits} digits behind the company code`,
      {
        next: 'Ask the agency for more digits, and set checkout.barcode.number_digits.',
        context: { paymentNumber: parts.paymentNumber, numberDigits: parts.numberDigits },
      },
    );
  }
  const [year = '', month = '', day = ''] = parts.lastDay.split('-');
  const without =
    `91${parts.issuer}${free.padEnd(freeDigits, '0')}${reissue}` +
    `${year.slice(2)}${month}${day}${parts.stamp ? 1 : 0}${String(amount).padStart(6, '0')}`;
  if (!/^\d{43}$/.test(without)) throw new Error('impossible state: a barcode has 43 digits before the last');
  return without + checkDigit(without);
}

/** Modulus 10, weights 3 and 1 from the right, over the 43 digits before it. */
export function checkDigit(digits: string): string {
  let sum = 0;
  for (let fromRight = 0; fromRight < digits.length; fromRight += 1) {
    sum += Number(digits[digits.length - 1 - fromRight]) * (fromRight % 2 === 0 ? 3 : 1);
  }
  return String((10 - (sum % 10)) % 10);
}

/** From when on a receipt needs a revenue stamp (stamp duty act, table 1 no. 17), by the day of the barcode. */
const stampRules: readonly { from: string; thresholdYen: number }[] = [
  { from: '2014-04-01', thresholdYen: 50_000 },
  { from: '0001-01-01', thresholdYen: 30_000 },
];

/**
 * Whether the shop must put a revenue stamp on its receipt. Judged without the tax, because page and receipt state it apart:
 * 54,000 yen with 4,909 of tax need none. Receipts for a municipality's public charges never do.
 */
export function needsStamp(of: {
  amount: number;
  taxAmount: number;
  publicCharge: boolean;
  /** YYYY-MM-DD */
  on: string;
}): boolean {
  if (of.publicCharge) return false;
  const rule = stampRules.find(({ from }) => from <= of.on);
  return rule !== undefined && of.amount - of.taxAmount >= rule.thresholdYen;
}

/** As it stands under the bars: `(91)929023-252070000010123499900-1-999999-0-010605-0`. */
export function readableDigits(digits: string): string {
  const parts = [
    digits.slice(2, 8),
    digits.slice(8, 29),
    digits.slice(29, 30),
    digits.slice(30, 36),
    digits.slice(36, 37),
    digits.slice(37, 43),
    digits.slice(43),
  ];
  return `(${digits.slice(0, 2)})${parts.join('-')}`;
}
