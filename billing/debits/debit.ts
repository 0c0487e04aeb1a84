import type { OutwardHead } from '../outward/outward.ts';

/** Bank accounts are debited through files: the gateway's name on charges, and in the tables of verdicts. */
export const bankGateway = 'zengin-91';

/** What the creditor is to the agency, as a request's header has it. */
export interface Creditor {
  consignorCode: string;
  consignorName: string;
  /** MMDD */
  debitDay: string;
  bank: string;
  branch: string;
  accountType: string;
  account: string;
}

export interface DebitAsked {
  bank: string;
  branch: string;
  accountType: string;
  account: string;
  /** As `RenderDebits.holder` made it. */
  holder: string;
  /** Yen. */
  amount: number;
  /** 1 first debit of a customer, 2 of a changed account, 0 other. */
  newCode: '0' | '1' | '2';
  customerNumber: string;
}

/** How a request looks, handed in by the job: the same debits always give the same bytes. */
export interface RenderDebits {
  name(head: OutwardHead): string;
  /** The holder's name in the bank's characters; null: it has none, or is too long. */
  holder(text: string): string | null;
  begin(creditor: Creditor): Pen;
}

/** Records of one file, in their order. */
export interface Pen {
  header(): Uint8Array;
  debits(debits: readonly DebitAsked[]): Uint8Array;
  end(totals: { count: number; amount: number }): Uint8Array;
}

/** A record of a result, as the job reads it. */
export type AnswerRecord =
  | {
      readonly type: '1';
      readonly header: Pick<Creditor, 'consignorCode' | 'debitDay' | 'bank'>;
    }
  | {
      readonly type: '2';
      readonly debit: Pick<
        DebitAsked,
        'bank' | 'branch' | 'accountType' | 'account' | 'amount' | 'customerNumber'
      > & { readonly resultCode: string };
    }
  | {
      readonly type: '8';
      readonly trailer: {
        readonly count: number;
        readonly amount: number;
        readonly paidCount: number;
        readonly paidAmount: number;
        readonly unpaidCount: number;
        readonly unpaidAmount: number;
      };
    }
  | { readonly type: '9' };

/** A trailer counts with six digits and sums with twelve. */
export const amountMax = 999_999_999_999;

/** The bill's payment number: digits, and never another bill's. */
export function customerKeyOf(paymentNumber: number): string {
  return String(paymentNumber).padStart(20, '0');
}

export function accountText(
  account: Pick<DebitAsked, 'bank' | 'branch' | 'accountType' | 'account'>,
): string {
  return `account ${account.bank}-${account.branch}-${account.accountType}-${account.account}`;
}

export type CodeMeaning = 'paid' | 'failed' | 'unknown';

/** What banks answer. `unknown`: there is no answer yet, and the money may be gone. A code that is not here says nothing. */
export const codes: Readonly<Record<string, { means: CodeMeaning; says: string }>> = {
  '0': { means: 'paid', says: 'debited' },
  '1': { means: 'failed', says: 'short of funds' },
  '2': { means: 'failed', says: 'no such account' },
  '3': { means: 'failed', says: 'stopped by the depositor' },
  '4': { means: 'failed', says: 'the bank has no mandate' },
  '8': { means: 'failed', says: 'stopped by the merchant' },
  '9': { means: 'failed', says: 'other' },
  E: { means: 'failed', says: 'error in the data' },
  N: { means: 'unknown', says: 'the bank has not answered' },
};

/** Why nothing of a result is booked. */
export type ResultReason =
  | 'UNREADABLE'
  | 'BATCHES_DIFFER'
  | 'REQUEST_UNKNOWN'
  | 'HEADER_DIFFERS'
  | 'TOTALS_DO_NOT_ADD_UP'
  | 'TOTALS_DIFFER'
  | 'DEBIT_UNKNOWN'
  | 'DEBIT_TWICE'
  | 'AMOUNT_CHANGED'
  | 'DEBIT_MISSING'
  | 'ANSWERED_ALREADY';

export class ResultRefused extends Error {
  readonly reason: ResultReason;
  /** Counted from 1; 0: the whole of it. */
  readonly record: number;
  readonly requestId: string | null;

  constructor(reason: ResultReason, record = 0, requestId: string | null = null, detail = '') {
    super(`${reason}${detail === '' ? '' : ` ${detail}`} in record ${record}`);
    this.reason = reason;
    this.record = record;
    this.requestId = requestId;
  }
}
