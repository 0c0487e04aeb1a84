import { type PhoneNumber, parsePhoneNumberFromString } from 'libphonenumber-js/max';
import type { LineCode } from './catalogue.ts';
import { isRealDate, type ReadableKind } from './names.ts';

export interface Phone {
  /** Null when there is none, or the text is no telephone number at all. */
  readonly e164: string | null;
  readonly kind: 'mobile' | 'not_mobile' | 'none';
}

export interface BillingLine {
  readonly billingNumber: string;
  readonly customerNumber: string;
  readonly customerName: string;
  readonly phone: Phone;
  readonly email: string | null;
  /** Yen with tax, 1 to 99,999,999. */
  readonly amount: number;
  readonly taxRate: 0 | 8 | 10;
  readonly taxAmount: number;
  /** `YYYY-MM` */
  readonly billingPeriod: string;
  /** `YYYY-MM-DD` */
  readonly dueOn: string;
  readonly collection: 'link' | 'auto' | 'default';
  readonly description: string;
}

export interface CancelLine {
  readonly billingNumber: string;
  readonly reason: string;
}

export interface LineOf {
  billing: BillingLine;
  cancel: CancelLine;
}

export interface Rejection {
  readonly code: LineCode;
  /** Column name of the standard layout; '' for E_COLUMNS. */
  readonly field: string;
}

export type Validated<L> = { readonly ok: L } | { readonly rejected: Rejection };

const numberPattern = /^[A-Za-z0-9_-]{1,40}$/;
const amountMax = 99_999_999;
/** Debit, reminders and return are counted from the due date, up to 999 bank days: the bank calendar ends with 2050. */
const dueOnMin = '1980-01-01';
const dueOnMax = '2045-12-31';
const billingColumns = 13;
const cancelColumns = 3;

// Control characters (C0, DEL, C1), bidirectional embeddings, overrides and isolates, and halves of surrogate pairs,
// which no encoding can store.
const forbidden =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is what it is for
  /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

export function isBillingNumber(text: string): boolean {
  return numberPattern.test(text);
}

/** The first error in column order, or the line. Pure: duplicates and unknown numbers are the database's to find. */
export function validateLine<K extends ReadableKind>(
  kind: K,
  fields: readonly string[],
): Validated<LineOf[K]> {
  return (kind === 'billing' ? validateBilling(fields) : validateCancel(fields)) as Validated<LineOf[K]>;
}

export function validateBilling(fields: readonly string[]): Validated<BillingLine> {
  if (fields.length !== billingColumns) return reject('E_COLUMNS', '');
  const [type, billingNumber, customerNumber, customerName, phone, email, amountText] = fields as string[];
  const [rate, taxText, period, dueOn, collection, description] = fields.slice(7) as string[];
  // One look at the whole line settles it for nearly all of them; only a hit is traced to its column.
  const clean = !forbidden.test(fields.join(','));
  const bad = (text: string): boolean => !clean && forbidden.test(text);

  if (type !== 'D') return rejectType(type);
  const number =
    identifier(billingNumber, 'billing_number', bad) ?? identifier(customerNumber, 'customer_number', bad);
  if (number !== undefined) return number;

  if (customerName === undefined || customerName.trim() === '') return reject('E_REQUIRED', 'customer_name');
  if (bad(customerName)) return reject('E_CHARACTER', 'customer_name');
  if (holdsCardNumber(customerName)) return reject('E_CARD_NUMBER', 'customer_name');
  if (longerThan(customerName, 100)) return reject('E_FORMAT', 'customer_name');

  if (bad(phone ?? '')) return reject('E_CHARACTER', 'phone');
  if (bad(email ?? '')) return reject('E_CHARACTER', 'email');

  if (amountText === undefined || amountText === '') return reject('E_REQUIRED', 'amount');
  if (bad(amountText)) return reject('E_CHARACTER', 'amount');
  if (!/^(?:0|[1-9][0-9]*)$/.test(amountText)) return reject('E_FORMAT', 'amount');
  const amount = Number(amountText);
  if (amount < 1 || amount > amountMax) return reject('E_RANGE', 'amount');

  if (rate === undefined || rate === '') return reject('E_REQUIRED', 'tax_rate');
  if (bad(rate)) return reject('E_CHARACTER', 'tax_rate');
  if (rate !== '10' && rate !== '8' && rate !== '0') return reject('E_FORMAT', 'tax_rate');
  const taxRate = Number(rate) as 0 | 8 | 10;

  let taxAmount: number;
  if (taxText === undefined || taxText === '') {
    taxAmount = includedTax(amount, taxRate);
  } else {
    if (bad(taxText)) return reject('E_CHARACTER', 'tax_amount');
    if (!/^[0-9]+$/.test(taxText)) return reject('E_FORMAT', 'tax_amount');
    taxAmount = Number(taxText);
    if (taxAmount > amount) return reject('E_RANGE', 'tax_amount');
  }

  if (period === undefined || period === '') return reject('E_REQUIRED', 'billing_period');
  if (bad(period)) return reject('E_CHARACTER', 'billing_period');
  if (!isRealDate(`${period}-01`)) return reject('E_DATE', 'billing_period');

  if (dueOn === undefined || dueOn === '') return reject('E_REQUIRED', 'due_date');
  if (bad(dueOn)) return reject('E_CHARACTER', 'due_date');
  if (!isRealDate(dueOn)) return reject('E_DATE', 'due_date');
  if (dueOn < dueOnMin || dueOn > dueOnMax) return reject('E_RANGE', 'due_date');

  if (bad(collection ?? '')) return reject('E_CHARACTER', 'collection');
  if (collection !== 'link' && collection !== 'auto' && collection !== '')
    return reject('E_FORMAT', 'collection');

  const text = freeText(description ?? '', 'description', bad);
  if (text !== undefined) return text;

  return {
    ok: {
      billingNumber: billingNumber ?? '',
      customerNumber: customerNumber ?? '',
      customerName,
      phone: readPhone(phone ?? ''),
      email: readEmail(email ?? ''),
      amount,
      taxRate,
      taxAmount,
      billingPeriod: period,
      dueOn,
      collection: collection === '' ? 'default' : collection,
      description: description ?? '',
    },
  };
}

export function validateCancel(fields: readonly string[]): Validated<CancelLine> {
  if (fields.length !== cancelColumns) return reject('E_COLUMNS', '');
  const [type, billingNumber, reason] = fields;
  const bad = (text: string): boolean => forbidden.test(text);
  if (type !== 'D') return rejectType(type);
  const rejected = identifier(billingNumber, 'billing_number', bad) ?? freeText(reason ?? '', 'reason', bad);
  return rejected ?? { ok: { billingNumber: billingNumber ?? '', reason: reason ?? '' } };
}

/** Tax inside a tax-included amount, rounded down: 2,617 at 10% holds 237. */
export function includedTax(amount: number, rate: 0 | 8 | 10): number {
  return Math.floor((amount * rate) / (100 + rate));
}

function reject(code: LineCode, field: string): { rejected: Rejection } {
  return { rejected: { code, field } };
}

function rejectType(type: string | undefined): { rejected: Rejection } {
  if (type === undefined || type === '') return reject('E_REQUIRED', 'record_type');
  return reject(forbidden.test(type) ? 'E_CHARACTER' : 'E_FORMAT', 'record_type');
}

function identifier(
  text: string | undefined,
  field: string,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return reject('E_REQUIRED', field);
  if (numberPattern.test(text)) return undefined;
  return reject(bad(text) ? 'E_CHARACTER' : 'E_FORMAT', field);
}

function freeText(
  text: string,
  field: string,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  if (bad(text)) return reject('E_CHARACTER', field);
  if (holdsCardNumber(text)) return reject('E_CARD_NUMBER', field);
  return longerThan(text, 200) ? reject('E_FORMAT', field) : undefined;
}

/** Characters are code points: 𠮷 is one, though two UTF-16 units. */
function longerThan(text: string, characters: number): boolean {
  if (text.length <= characters) return false;
  let count = 0;
  for (const _ of text) count += 1;
  return count > characters;
}

/**
 * 13 to 19 digits that pass the Luhn check, alone or in groups with spaces and hyphens between. Full-width digits
 * count: they are as good a leak. Every run of whole groups is tried, so `No. 12 4111 1111 1111 1111` is found, but
 * never a part of a longer group: a 24-digit meter reading is not a card.
 */
export function holdsCardNumber(text: string): boolean {
  if (text.length < 13) return false;
  let digits = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if ((code >= 0x30 && code <= 0x39) || (code >= 0xff10 && code <= 0xff19)) digits += 1;
  }
  if (digits < 13) return false;
  for (const run of text.normalize('NFKC').matchAll(/\d+(?:[\s\-‐-―−ー]+\d+)*/g)) {
    const groups = run[0].match(/\d+/g) ?? [];
    for (let first = 0; first < groups.length; first += 1) {
      let candidate = '';
      for (let last = first; last < groups.length && candidate.length <= 19; last += 1) {
        candidate += groups[last];
        if (candidate.length >= 13 && candidate.length <= 19 && passesLuhn(candidate)) return true;
      }
    }
  }
  return false;
}

function passesLuhn(digits: string): boolean {
  let sum = 0;
  for (let back = 0; back < digits.length; back += 1) {
    const digit = digits.charCodeAt(digits.length - 1 - back) - 48;
    const doubled = digit * 2;
    sum += back % 2 === 0 ? digit : doubled > 9 ? doubled - 9 : doubled;
  }
  return sum % 10 === 0;
}

/** Addresses are optional, so one that cannot be an address costs the address and not the bill. */
function readEmail(text: string): string | null {
  const trimmed = text.trim();
  return trimmed.length <= 254 && /^[^\s@<>"(),;:]+@[^\s@<>"(),;:]+\.[^\s@<>"(),;:.]+$/.test(trimmed)
    ? trimmed
    : null;
}

const noPhone: Phone = { e164: null, kind: 'none' };
const unusablePhone: Phone = { e164: null, kind: 'not_mobile' };

/** Whatever stands in the phone column: E.164 where it is a number, and whether an SMS can go there. Never refuses. */
export function readPhone(text: string): Phone {
  if (text === '') return noPhone;
  let number = text.replaceAll('-', '');
  // The exact ranges of Japanese mobile numbers; 99 of 100 lines end here, without the 50 times slower library.
  if (/^0[789]0[1-9][0-9]{7}$/.test(number)) return { e164: `+81${number.slice(1)}`, kind: 'mobile' };
  number = text
    .slice(0, 100)
    .normalize('NFKC')
    .replace(/[\s\-‐-―−ー.()]/g, '');
  if (number === '') return noPhone;
  number = number.replace(/^0081/, '+81').replace(/^\+810/, '+81');
  const national = number.startsWith('+81') ? `0${number.slice(3)}` : number;
  if (/^0[789]0[1-9][0-9]{7}$/.test(national)) return { e164: `+81${national.slice(1)}`, kind: 'mobile' };
  if (!/^\+?[0-9]{5,20}$/.test(number)) return unusablePhone;
  let parsed: PhoneNumber | undefined;
  try {
    parsed = parsePhoneNumberFromString(number, 'JP');
  } catch {
    return unusablePhone;
  }
  if (parsed === undefined || !parsed.isValid()) return unusablePhone;
  const type = parsed.getType();
  // +1 has no separate mobile ranges.
  const mobile = type === 'MOBILE' || type === 'FIXED_LINE_OR_MOBILE';
  return { e164: parsed.number, kind: mobile ? 'mobile' : 'not_mobile' };
}
