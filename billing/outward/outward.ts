import type { ChainHead } from '../audit/chain.ts';
import type { TieOut } from '../exchanges/tie-out.ts';
import type { UnreachedCause } from '../unreached/decide.ts';

/** Kinds of outward files that are made today. */
export type OutwardKind =
  | 'receipt'
  | 'result'
  | 'enrolment'
  | 'unreached'
  | 'settlement'
  | 'adjustment'
  | 'tieout'
  /** To the agency that debits accounts, not to the merchant. */
  | 'debit';

/** What every outward file says about itself. */
export interface OutwardHead {
  kind: OutwardKind;
  merchantCode: string;
  /** Of the run, YYYY-MM-DD. */
  businessDate: string;
  /** Gapless per merchant and kind, from 1. */
  sequence: number;
}

export interface ReceiptFile {
  inputName: string;
  sha256: string;
  state: 'released' | 'refused';
  /** Its layout is that of these settings. */
  settingsVersion: number;
  fileCode: string | null;
  linesRead: number;
  linesAccepted: number;
  amountAccepted: number;
  linesRejected: number;
}

export interface ReceiptLine {
  line: number;
  billingNumber: string;
  severity: 'rejected' | 'warning';
  code: string;
  field: string;
}

export interface ResultLine {
  billingNumber: string;
  customerNumber: string;
  outcome: string;
  reason: string;
  method: string;
  amount: number;
  amountReceived: number;
  collectedOn: string | null;
  /** ISO 8601 with offset in the merchant's zone. */
  knownAt: string;
  /** Of the charge that caused the row, else of the bill. */
  reference: string;
}

export interface EnrolmentLine {
  customerNumber: string;
  what: 'enrolled' | 'changed' | 'ended';
  method: 'card' | 'bank';
  /** ISO 8601 with offset in the merchant's zone. */
  occurredAt: string;
  reference: string;
}

/** A bill that no SMS reaches. */
export interface UnreachedLine {
  billingNumber: string;
  customerNumber: string;
  cause: UnreachedCause;
  disposition: 'kept' | 'returned';
  /** 44 digits, or blank. */
  barcode: string;
  /** ISO 8601 with offset in the merchant's zone. */
  occurredAt: string;
}

/** One line of a payout; what went back has a negative gross. */
export interface SettlementFileLine {
  billingNumber: string;
  method: 'card' | 'barcode' | 'wallet' | 'debit';
  /** YYYY-MM-DD in the merchant's zone. */
  collectedOn: string;
  gross: number;
  fee: number;
  feeTax: number;
  /** gross - fee - feeTax */
  net: number;
  /** As the gateway calls it, and the bank statement with it. */
  payout: string;
}

/** What happened to a bill after its final result. */
export interface AdjustmentLine {
  /** Gapless for the merchant, from 1, over all files. */
  number: number;
  billingNumber: string;
  kind: 'late_payment' | 'overpayment' | 'refund' | 'chargeback' | 'reversal';
  amount: number;
  sign: '+' | '-';
  /** YYYY-MM-DD in the merchant's zone. */
  collectedOn: string;
  /** ISO 8601 with offset in the merchant's zone. */
  knownAt: string;
  reference: string;
}

type Batches<T> = AsyncIterable<readonly T[]>;

/** How files look, handed in by the job: the same rows always give the same bytes. */
export interface RenderOutward {
  name(head: OutwardHead): string;
  receipt(head: OutwardHead, file: ReceiptFile, lines: Batches<ReceiptLine>): AsyncIterable<Uint8Array>;
  result(head: OutwardHead, lines: Batches<ResultLine>): AsyncIterable<Uint8Array>;
  enrolment(head: OutwardHead, lines: Batches<EnrolmentLine>): AsyncIterable<Uint8Array>;
  unreached(head: OutwardHead, lines: Batches<UnreachedLine>): AsyncIterable<Uint8Array>;
  settlement(head: OutwardHead, lines: Batches<SettlementFileLine>): AsyncIterable<Uint8Array>;
  adjustment(head: OutwardHead, lines: Batches<AdjustmentLine>): AsyncIterable<Uint8Array>;
  tieout(tieOut: TieOut & { audit: ChainHead }): Uint8Array;
}
