import type { HoldReason } from '../holds/hold.ts';

/** A merchant's inward file from the moment it is ours. */
export type FileState = 'fetched' | 'loading' | 'released' | 'refused' | 'held';

/** `loading`: every check is passed and its lines become bills, which nobody sees before the release. */
export const transitions: Readonly<Record<FileState, readonly FileState[]>> = {
  fetched: ['loading', 'released', 'refused', 'held'],
  // To itself: one reason is set aside, and another one is found.
  held: ['loading', 'released', 'refused', 'held'],
  loading: ['released'],
  released: [],
  refused: [],
};

export function statesBefore(to: FileState): FileState[] {
  return (Object.keys(transitions) as FileState[]).filter((from) => transitions[from].includes(to));
}

export interface BillingFile {
  id: string;
  name: string;
  kind: string;
  sha256: string;
  size_bytes: number;
  checksum_matches: boolean;
  archive_path: string;
  layout: string;
  settings_version: number;
  state: FileState;
  file_code: string | null;
  business_date: string | null;
  sequence: number | null;
  lines_read: number | null;
  lines_accepted: number | null;
  lines_rejected: number | null;
  amount_accepted: number | null;
  amount_trailer: number | null;
  lines_staged: number | null;
  /** Customers, contracts and contacts stand up to this record, */
  customers_to_record: number;
  /** bills up to this one, */
  bills_to_record: number;
  /** and what hangs on them up to this one. */
  loaded_to_record: number;
  /** Reasons for holding it that a person has set aside. */
  waived: string[];
}

/** Larger files are refused (F_TOO_LARGE) and not even downloaded. */
export const fileBytesMax = 4 * 1024 ** 3;

/** What a receipt says about one line. */
export interface Finding {
  line: number;
  code: string;
  severity: 'rejected' | 'warning';
  /** Column of the layout; '' for the line as a whole. */
  field: string;
  /** '' where its form is not valid. */
  billingNumber: string;
}

/** A line of a `billing` file that passed every check which the file alone allows. */
export interface ReadBill {
  readonly billingNumber: string;
  readonly customerNumber: string;
  readonly customerName: string;
  readonly phone: { readonly e164: string | null; readonly kind: 'mobile' | 'not_mobile' | 'none' };
  readonly email: string | null;
  readonly amount: number;
  readonly taxRate: number;
  readonly taxAmount: number;
  readonly billingPeriod: string;
  readonly dueOn: string;
  readonly collection: 'link' | 'auto' | 'default';
  readonly description: string;
  /** What only `standard/2` tells. */
  readonly details?: {
    /** '' = the customer's default contract. */
    readonly contractNumber: string;
    readonly usage: { readonly from: string; readonly to: string } | null;
    /** The bill that this one corrects, or ''. */
    readonly replaces: string;
    readonly taxLines: readonly {
      readonly description: string;
      readonly taxableAmount: number;
      readonly taxRate: number;
      readonly taxAmount: number;
      readonly issuerRegistrationNumber: string | null;
    }[];
  };
}

export interface ReadCancel {
  readonly billingNumber: string;
  readonly reason: string;
}

/** A contract of a customer; '' = the default one, or all where a hold is meant. */
interface ReadSubject {
  readonly customerNumber: string;
  readonly contractNumber: string;
}

export interface ReadHold extends ReadSubject {
  readonly what: 'place' | 'lift';
  readonly reason: HoldReason;
  /** The last day, YYYY-MM-DD; null = until it is lifted. */
  readonly untilOn: string | null;
}

export interface ReadEnrolment extends ReadSubject {
  readonly what: 'start' | 'change' | 'end';
  readonly method: 'card' | 'bank';
  /** A gateway's token, or `bank-branch-type-account`. */
  readonly account: string;
  readonly holder: string;
  readonly effectiveFrom: string;
}

export interface ReadContact {
  readonly customerNumber: string;
  readonly phone: ReadBill['phone'];
  readonly email: string | null;
}

/** Physical line where the record starts and position among the records, both from 1. */
export type ReadLine<L> =
  | { readonly line: number; readonly record: number; readonly ok: L; readonly rejected?: undefined }
  | {
      readonly line: number;
      readonly record: number;
      readonly ok?: undefined;
      readonly rejected: { readonly code: string; readonly field: string };
      readonly billingNumber: string;
    };

/** What the file as a whole says, known at its end. */
export interface FileVerdict {
  /** Null: it may be loaded. */
  readonly fileCode: string | null;
  readonly header: {
    readonly businessDate: string;
    /** Null: the layout has none. */
    readonly sequence: number | null;
  } | null;
  readonly trailer: { readonly count: number; readonly total: number } | null;
  readonly linesRead: number;
  /** Of the first and last bill, '' where the form is not valid. */
  readonly firstBillingNumber: string;
  readonly lastBillingNumber: string;
}

/** The last batch carries the verdict; what came before counts only if its `fileCode` is null. */
export interface ReadBatch<L> {
  readonly lines: readonly ReadLine<L>[];
  readonly verdict: FileVerdict | null;
}

/** Reads the file anew from its archive, as often as it is called. */
export type ReadFile<L> = () => AsyncIterable<ReadBatch<L>>;

/** Codes that hold a file for a person instead of refusing it. */
export const holdCodes = ['F_SEQUENCE_GAP', 'F_LOOKS_RESENT', 'F_UNUSUAL'] as const;
export type HoldCode = (typeof holdCodes)[number];

export function isHoldCode(code: string): code is HoldCode {
  return (holdCodes as readonly string[]).includes(code);
}

/** Why nothing of a file may be loaded, or not yet. Thrown through the transaction, so that what it staged is gone. */
export class FileRefused extends Error {
  readonly code: string;
  readonly verdict: FileVerdict | null;

  constructor(code: string, verdict: FileVerdict | null) {
    super(`the file is refused: ${code}`);
    this.name = 'FileRefused';
    this.code = code;
    this.verdict = verdict;
  }
}

export function findingOf<L>(line: ReadLine<L>): Finding | null {
  if (line.rejected === undefined) return null;
  return {
    line: line.line,
    code: line.rejected.code,
    severity: 'rejected',
    field: line.rejected.field,
    billingNumber: line.billingNumber,
  };
}
