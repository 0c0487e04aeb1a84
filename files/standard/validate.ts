import { type PhoneNumber, parsePhoneNumberFromString } from 'libphonenumber-js/max';
import { debitHolderBytes } from '../zengin91/file.ts';
import { toKana } from '../zengin91/kana.ts';
import type { LineCode } from './catalogue.ts';
import { type InwardKind, isRealDate } from './names.ts';

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
  /** What only `standard/2` tells. */
  readonly details?: BillingDetails;
}

export interface BillingDetails {
  /** '' = the customer's default contract. */
  readonly contractNumber: string;
  /** `YYYY-MM-DD`, both or neither. */
  readonly usage: { readonly from: string; readonly to: string } | null;
  /** The bill that this one corrects, or ''. */
  readonly replaces: string;
  /** None: the one line that follows from the bill's own rate. */
  readonly taxLines: readonly TaxLine[];
}

/** An `L` record. */
export interface TaxLine {
  readonly description: string;
  readonly taxableAmount: number;
  readonly taxRate: 0 | 8 | 10;
  readonly taxAmount: number;
  /** `T` and 13 digits, or null. */
  readonly issuerRegistrationNumber: string | null;
}

export interface CancelLine {
  readonly billingNumber: string;
  readonly reason: string;
}

export const holdReasons = [
  'dispute',
  'hardship',
  'disaster',
  'deceased',
  'bankruptcy',
  'legal_representative',
  'paid_elsewhere',
] as const;

export interface HoldLine {
  readonly customerNumber: string;
  /** '' = all contracts of the customer. */
  readonly contractNumber: string;
  readonly what: 'place' | 'lift';
  readonly reason: (typeof holdReasons)[number];
  /** `YYYY-MM-DD`, the last day; null = until it is lifted. */
  readonly untilOn: string | null;
}

export interface EnrolmentLine {
  readonly customerNumber: string;
  /** '' = the customer's default contract. */
  readonly contractNumber: string;
  readonly what: 'start' | 'change' | 'end';
  readonly method: 'card' | 'bank';
  /** The gateway's token, or `bank-branch-type-account`; '' where an agreement ends. */
  readonly account: string;
  readonly holder: string;
  /** `YYYY-MM-DD` */
  readonly effectiveFrom: string;
}

export interface ContactLine {
  readonly customerNumber: string;
  readonly phone: Phone;
  readonly email: string | null;
}

export interface LineOf {
  billing: BillingLine;
  cancel: CancelLine;
  hold: HoldLine;
  enrolment: EnrolmentLine;
  contact: ContactLine;
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
/** `standard/2`: contract_number, usage_from, usage_to, replaces. */
const detailedColumns = billingColumns + 4;
/** Rates and issuers on one bill; their numbers are stored in 16 bits. */
export const taxLinesMax = 99;

// Control characters (C0, DEL, C1), bidirectional embeddings, overrides and isolates, and halves of surrogate pairs,
// which no encoding can store.
const forbidden =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is what it is for
  /[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;

export function isBillingNumber(text: string): boolean {
  return numberPattern.test(text);
}

/** The first error in column order, or the line. Pure: duplicates and unknown numbers are the database's to find. */
export function validateLine<K extends InwardKind>(kind: K, fields: readonly string[]): Validated<LineOf[K]> {
  return validators[kind](fields) as Validated<LineOf[K]>;
}

const validators: { readonly [K in InwardKind]: (fields: readonly string[]) => Validated<LineOf[K]> } = {
  billing: (fields) => validateBilling(fields),
  cancel: validateCancel,
  hold: validateHold,
  enrolment: validateEnrolment,
  contact: validateContact,
};

/** A bill of `standard/2` with the `L` records that stand under it. A fault of one of those is the bill's, at its line. */
export function validateDetailedBilling(
  fields: readonly string[],
  below: readonly { readonly line: number; readonly fields: readonly string[] }[],
): Validated<BillingLine> & { readonly faultLine?: number } {
  const bill = validateBilling(fields, detailedColumns);
  if ('rejected' in bill) return bill;
  const [contractNumber, usageFrom, usageTo, replaces] = fields.slice(billingColumns) as string[];
  const bad = (text: string): boolean => forbidden.test(text);
  const ends = [usageFrom ?? '', usageTo ?? ''] as const;
  const rejected =
    optionalIdentifier(contractNumber, 'contract_number', bad) ??
    usageDate(ends[0], 'usage_from', ends[1] !== '') ??
    usageDate(ends[1], 'usage_to', ends[0] !== '') ??
    (ends[0] > ends[1] ? reject('E_RANGE', 'usage_to') : undefined) ??
    optionalIdentifier(replaces, 'replaces', bad) ??
    (replaces === bill.ok.billingNumber ? reject('E_FORMAT', 'replaces') : undefined) ??
    (below.length > taxLinesMax ? reject('E_RANGE', 'record_type') : undefined);
  if (rejected !== undefined) return rejected;
  const taxLines: TaxLine[] = [];
  for (const { line, fields: record } of below) {
    const validated = validateTaxLine(record, bill.ok.billingNumber);
    if ('rejected' in validated) return { ...validated, faultLine: line };
    taxLines.push(validated.ok);
  }
  const sum = (of: (line: TaxLine) => number): number =>
    taxLines.reduce((total, line) => total + of(line), 0);
  const tax = sum((line) => line.taxAmount);
  if (taxLines.length > 0) {
    if (sum((line) => line.taxableAmount) + tax !== bill.ok.amount) return reject('E_RANGE', 'amount');
    if (fields[8] !== '' && tax !== bill.ok.taxAmount) return reject('E_RANGE', 'tax_amount');
  }
  return {
    ok: {
      ...bill.ok,
      taxAmount: taxLines.length > 0 ? tax : bill.ok.taxAmount,
      details: {
        contractNumber: contractNumber ?? '',
        usage: ends[0] === '' ? null : { from: ends[0], to: ends[1] },
        replaces: replaces ?? '',
        taxLines,
      },
    },
  };
}

function usageDate(text: string, field: string, required: boolean): { rejected: Rejection } | undefined {
  if (text === '') return required ? reject('E_REQUIRED', field) : undefined;
  return isRealDate(text) ? undefined : reject(forbidden.test(text) ? 'E_CHARACTER' : 'E_DATE', field);
}

function validateTaxLine(fields: readonly string[], ofBill: string): Validated<TaxLine> {
  if (fields.length !== 7) return reject('E_COLUMNS', '');
  const [, billingNumber, description, taxable, rate, tax, issuer] = fields as string[];
  const bad = (text: string): boolean => forbidden.test(text);
  const rejected =
    identifier(billingNumber, 'billing_number', bad) ??
    (billingNumber === ofBill ? undefined : reject('E_FORMAT', 'billing_number')) ??
    freeText(description ?? '', 'description', bad) ??
    yen(taxable, 'taxable_amount') ??
    taxRateOf(rate, bad) ??
    yen(tax, 'tax_amount') ??
    (Number(tax) > Number(taxable) ? reject('E_RANGE', 'tax_amount') : undefined) ??
    (issuer === '' || /^T[0-9]{13}$/.test(issuer ?? '')
      ? undefined
      : reject(bad(issuer ?? '') ? 'E_CHARACTER' : 'E_FORMAT', 'issuer_registration_number'));
  if (rejected !== undefined) return rejected;
  return {
    ok: {
      description: description ?? '',
      taxableAmount: Number(taxable),
      taxRate: Number(rate) as 0 | 8 | 10,
      taxAmount: Number(tax),
      issuerRegistrationNumber: issuer === '' ? null : (issuer ?? null),
    },
  };
}

/** 0 is a value here: a part of a bill may be free of charge. */
function yen(text: string | undefined, field: string): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return reject('E_REQUIRED', field);
  if (!/^(?:0|[1-9][0-9]*)$/.test(text))
    return reject(forbidden.test(text) ? 'E_CHARACTER' : 'E_FORMAT', field);
  return Number(text) > amountMax ? reject('E_RANGE', field) : undefined;
}

function taxRateOf(
  rate: string | undefined,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  if (rate === undefined || rate === '') return reject('E_REQUIRED', 'tax_rate');
  if (bad(rate)) return reject('E_CHARACTER', 'tax_rate');
  return rate === '10' || rate === '8' || rate === '0' ? undefined : reject('E_FORMAT', 'tax_rate');
}

export function validateBilling(
  fields: readonly string[],
  columns: number = billingColumns,
): Validated<BillingLine> {
  if (fields.length !== columns) return reject('E_COLUMNS', '');
  const [type, billingNumber, customerNumber, customerName, phone, email, amountText] = fields as string[];
  const [rate, taxText, period, dueOn, collection, description] = fields.slice(7, 13) as string[];
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

  const wrongRate = taxRateOf(rate, bad);
  if (wrongRate !== undefined) return wrongRate;
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
  if (fields.length !== 3) return reject('E_COLUMNS', '');
  const [type, billingNumber, reason] = fields;
  const bad = (text: string): boolean => forbidden.test(text);
  if (type !== 'D') return rejectType(type);
  const rejected = identifier(billingNumber, 'billing_number', bad) ?? freeText(reason ?? '', 'reason', bad);
  return rejected ?? { ok: { billingNumber: billingNumber ?? '', reason: reason ?? '' } };
}

export function validateHold(fields: readonly string[]): Validated<HoldLine> {
  if (fields.length !== 6) return reject('E_COLUMNS', '');
  const [type, customerNumber, contractNumber, what, reason, untilOn] = fields as string[];
  const bad = (text: string): boolean => forbidden.test(text);
  if (type !== 'D') return rejectType(type);
  const rejected =
    identifier(customerNumber, 'customer_number', bad) ??
    optionalIdentifier(contractNumber, 'contract_number', bad) ??
    oneOf(what, ['place', 'lift'], 'action') ??
    oneOf(reason, holdReasons, 'reason') ??
    (untilOn === '' ? undefined : realDate(untilOn, 'until'));
  if (rejected !== undefined) return rejected;
  return {
    ok: {
      customerNumber: customerNumber ?? '',
      contractNumber: contractNumber ?? '',
      what: what as HoldLine['what'],
      reason: reason as HoldLine['reason'],
      untilOn: untilOn === '' ? null : (untilOn ?? null),
    },
  };
}

/** Half-width or full-width kana, capitals, digits and the few signs that banks take. */
const holderPattern = /^[\u30a0-\u30ff\uff65-\uff9fA-Z0-9０-９Ａ-Ｚ ().,/\\｢｣「」（）．，／\u3000-]+$/;
const bankPattern = /^[0-9]{4}-[0-9]{3}-[12]-[0-9]{7}$/;
const tokenPattern = /^[A-Za-z0-9_.:-]{1,200}$/;

export function validateEnrolment(fields: readonly string[]): Validated<EnrolmentLine> {
  if (fields.length !== 8) return reject('E_COLUMNS', '');
  const [type, customerNumber, contractNumber, what, method, account, holder, effectiveFrom] =
    fields as string[];
  const bad = (text: string): boolean => forbidden.test(text);
  if (type !== 'D') return rejectType(type);
  const rejected =
    identifier(customerNumber, 'customer_number', bad) ??
    optionalIdentifier(contractNumber, 'contract_number', bad) ??
    oneOf(what, ['start', 'change', 'end'], 'action') ??
    oneOf(method, ['card', 'bank'], 'method') ??
    (what === 'end' && account === ''
      ? undefined
      : accountOf(account, method === 'bank' ? bankPattern : tokenPattern, method === 'card', bad)) ??
    holderOf(holder, method === 'bank' && what !== 'end', bad) ??
    realDate(effectiveFrom, 'effective_from');
  if (rejected !== undefined) return rejected;
  return {
    ok: {
      customerNumber: customerNumber ?? '',
      contractNumber: contractNumber ?? '',
      what: what as EnrolmentLine['what'],
      method: method as EnrolmentLine['method'],
      account: account ?? '',
      holder: holder ?? '',
      effectiveFrom: effectiveFrom ?? '',
    },
  };
}

function accountOf(
  text: string | undefined,
  pattern: RegExp,
  isToken: boolean,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return reject('E_REQUIRED', 'account');
  if (bad(text)) return reject('E_CHARACTER', 'account');
  // A token that is a card number is none: it must not be stored, not even sealed.
  if (isToken && holdsCardNumber(text)) return reject('E_CARD_NUMBER', 'account');
  return pattern.test(text) ? undefined : reject('E_FORMAT', 'account');
}

function holderOf(
  text: string | undefined,
  required: boolean,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return required ? reject('E_REQUIRED', 'holder') : undefined;
  if (bad(text)) return reject('E_CHARACTER', 'holder');
  if (!holderPattern.test(text) || longerThan(text, 60)) return reject('E_FORMAT', 'holder');
  if (!required) return undefined;
  // As it stands in a bank's record: nothing is cut off there.
  const { text: kana } = toKana(text.trim(), 'party');
  if (kana === undefined) return reject('E_CHARACTER', 'holder');
  return kana.length <= debitHolderBytes ? undefined : reject('E_FORMAT', 'holder');
}

export function validateContact(fields: readonly string[]): Validated<ContactLine> {
  if (fields.length !== 4) return reject('E_COLUMNS', '');
  const [type, customerNumber, phone, email] = fields as string[];
  const bad = (text: string): boolean => forbidden.test(text);
  if (type !== 'D') return rejectType(type);
  const rejected = identifier(customerNumber, 'customer_number', bad);
  if (rejected !== undefined) return rejected;
  if (bad(phone ?? '')) return reject('E_CHARACTER', 'phone');
  if (bad(email ?? '')) return reject('E_CHARACTER', 'email');
  return {
    ok: {
      customerNumber: customerNumber ?? '',
      phone: readPhone(phone ?? ''),
      email: readEmail(email ?? ''),
    },
  };
}

function oneOf(
  text: string | undefined,
  words: readonly string[],
  field: string,
): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return reject('E_REQUIRED', field);
  if (words.includes(text)) return undefined;
  return reject(forbidden.test(text) ? 'E_CHARACTER' : 'E_FORMAT', field);
}

function realDate(text: string | undefined, field: string): { rejected: Rejection } | undefined {
  if (text === undefined || text === '') return reject('E_REQUIRED', field);
  if (forbidden.test(text)) return reject('E_CHARACTER', field);
  return isRealDate(text) ? undefined : reject('E_DATE', field);
}

function optionalIdentifier(
  text: string | undefined,
  field: string,
  bad: (text: string) => boolean,
): { rejected: Rejection } | undefined {
  return text === '' ? undefined : identifier(text, field, bad);
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
