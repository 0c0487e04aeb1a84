/** What stands between records: a result is answered in the framing in which it was asked. */
export type Framing = '' | '\r\n' | '\n' | '\r';

/** The creditor. Texts without the spaces after them; numbers as digits with the zeros in front. */
export interface DebitHeader {
  readonly consignorCode: string;
  readonly consignorName: string;
  /** MMDD, without a year. */
  readonly debitDay: string;
  readonly bank: string;
  readonly bankName: string;
  readonly branch: string;
  readonly branchName: string;
  readonly accountType: string;
  readonly account: string;
}

/** One debit. */
export interface DebitRecord {
  readonly bank: string;
  readonly bankName: string;
  readonly branch: string;
  readonly branchName: string;
  readonly accountType: string;
  readonly account: string;
  readonly holder: string;
  /** Yen. */
  readonly amount: number;
  /** 1 first debit, 2 changed account, 0 other. */
  readonly newCode: string;
  /** The merchant's key: zeros in front are a part of it. */
  readonly customerNumber: string;
  /** `0` in a request. In a result 0 is paid, and nothing else is; E and N are the agencies' own. */
  readonly resultCode: string;
}

/** In yen and records. A request has zeros in the last four. */
export interface DebitTotals {
  readonly count: number;
  readonly amount: number;
  readonly paidCount: number;
  readonly paidAmount: number;
  readonly unpaidCount: number;
  readonly unpaidAmount: number;
}

/** Header, debits, trailer. A file may hold several. */
export interface DebitBatch {
  readonly header: DebitHeader;
  readonly debits: readonly DebitRecord[];
  readonly trailer: DebitTotals;
}

export interface DebitFile {
  readonly framing: Framing;
  /** The end record has its line end too. */
  readonly endsWithFraming: boolean;
  readonly batches: readonly DebitBatch[];
}

export const recordBytes = 120;
export const debitHolderBytes = 30;
/** A trailer counts with six digits: more are split into several batches. */
export const debitsMax = 999_999;

/** N: digits, filled with zeros from the left. C: text, filled with spaces from the right. */
export interface Span {
  /** '' is filling. */
  readonly name: string;
  readonly form: 'N' | 'C';
  readonly bytes: number;
}

const digits = (name: string, bytes: number): Span => ({ name, form: 'N', bytes });
const text = (name: string, bytes: number): Span => ({ name, form: 'C', bytes });
const filling = (bytes: number): Span => text('', bytes);

export type RecordType = '1' | '2' | '8' | '9';

/** Header, debit, trailer and end to the byte; each adds up to 120. */
export const records: Readonly<Record<RecordType, readonly Span[]>> = {
  '1': [
    digits('recordType', 1),
    digits('kind', 2),
    digits('code', 1),
    digits('consignorCode', 10),
    text('consignorName', 40),
    digits('debitDay', 4),
    digits('bank', 4),
    text('bankName', 15),
    digits('branch', 3),
    text('branchName', 15),
    digits('accountType', 1),
    digits('account', 7),
    filling(17),
  ],
  '2': [
    digits('recordType', 1),
    digits('bank', 4),
    text('bankName', 15),
    digits('branch', 3),
    text('branchName', 15),
    filling(4),
    digits('accountType', 1),
    digits('account', 7),
    text('holder', debitHolderBytes),
    digits('amount', 10),
    digits('newCode', 1),
    // Digits by the standard; agencies take letters.
    text('customerNumber', 20),
    text('resultCode', 1),
    filling(8),
  ],
  '8': [
    digits('recordType', 1),
    digits('count', 6),
    digits('amount', 12),
    digits('paidCount', 6),
    digits('paidAmount', 12),
    digits('unpaidCount', 6),
    digits('unpaidAmount', 12),
    filling(65),
  ],
  '9': [digits('recordType', 1), filling(119)],
};

export function totalsOf(debits: readonly DebitRecord[], isResult: boolean): DebitTotals {
  const sums = { count: 0, amount: 0, paidCount: 0, paidAmount: 0, unpaidCount: 0, unpaidAmount: 0 };
  for (const { amount, resultCode } of debits) {
    sums.count += 1;
    sums.amount += amount;
    if (!isResult) continue;
    const isPaid = resultCode === '0';
    sums[isPaid ? 'paidCount' : 'unpaidCount'] += 1;
    sums[isPaid ? 'paidAmount' : 'unpaidAmount'] += amount;
  }
  return sums;
}
