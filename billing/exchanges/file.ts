/** A merchant's inward file from the moment it is ours. */
export type FileState = 'fetched' | 'loading' | 'released' | 'refused' | 'held';

/** `loading`: every check is passed and its lines become bills, which nobody sees before the release. */
export const transitions: Readonly<Record<FileState, readonly FileState[]>> = {
  fetched: ['loading', 'released', 'refused', 'held'],
  held: ['loading', 'released', 'refused'],
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
  loaded_to_record: number;
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
}

export interface ReadCancel {
  readonly billingNumber: string;
  readonly reason: string;
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
  /** `sequence` null: the layout has none. */
  readonly header: { readonly businessDate: string; readonly sequence: number | null } | null;
  readonly trailer: { readonly count: number; readonly total: number } | null;
  readonly linesRead: number;
}

/** The last batch carries the verdict; what came before counts only if its `fileCode` is null. */
export interface ReadBatch<L> {
  readonly lines: readonly ReadLine<L>[];
  readonly verdict: FileVerdict | null;
}

/** Reads the file anew from its archive, as often as it is called. */
export type ReadFile<L> = () => AsyncIterable<ReadBatch<L>>;

/** Why nothing of a file may be loaded. Thrown through the transaction, so that what it staged is gone. */
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
