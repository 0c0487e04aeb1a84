import { stringify } from 'csv-stringify/sync';
import { encodeText, type FileEncoding } from '../decode.ts';
import {
  type CatalogueCode,
  catalogue,
  type FileCode,
  type LineCode,
  type WarningCode,
} from './catalogue.ts';
import type { OutwardKind } from './names.ts';

/** Fields of one record, its type first. */
export type Row = readonly string[];

export type OutwardCsvKind = Exclude<OutwardKind, 'tieout'>;

export interface WriteOptions {
  readonly merchant: string;
  readonly kind: OutwardCsvKind;
  /** Of the run, `YYYY-MM-DD`. */
  readonly businessDate: string;
  readonly sequence: number;
  readonly newline: '\n' | '\r\n';
  readonly encoding: FileEncoding;
}

/** Position of what the trailer adds up, counted from the record type. */
const amountColumns: Partial<Record<OutwardCsvKind, number>> = { result: 6, adjustment: 4, settlement: 7 };
const signColumn = 5;

/**
 * H, the rows, T. Depends on its arguments alone, so that a file can be made again byte for byte. The trailer counts
 * every row; its sum is of amount in `result`, signed amount in `adjustment`, net in `settlement`, otherwise 0.
 * One buffer per batch of rows: 2,000 rows make about 200 kB.
 */
export async function* writeStandardFile(
  options: WriteOptions,
  rows: AsyncIterable<readonly Row[]>,
): AsyncGenerator<Buffer> {
  const { merchant, kind, businessDate } = options;
  yield encodeRows([['H', '1', merchant, kind, businessDate, String(options.sequence)]], options);
  let count = 0;
  let sum = 0;
  for await (const batch of rows) {
    if (batch.length === 0) continue;
    for (const row of batch) sum += trailerAmount(kind, row);
    count += batch.length;
    yield encodeRows(batch, options);
  }
  yield encodeRows([['T', String(count), integer(sum)]], options);
}

/** What a row adds to the trailer's sum. */
export function trailerAmount(kind: OutwardCsvKind, row: Row): number {
  const column = amountColumns[kind];
  if (column === undefined) return 0;
  const text = row[column] ?? '';
  if (!/^-?[0-9]{1,15}$/.test(text)) throw new RangeError(`a ${kind} row has no amount in column ${column}`);
  return kind === 'adjustment' && row[signColumn] === '-' ? -Number(text) : Number(text);
}

function encodeRows(rows: readonly Row[], options: Pick<WriteOptions, 'newline' | 'encoding'>): Buffer {
  const text = stringify(rows as string[][], {
    record_delimiter: options.newline,
    // csv-stringify looks for the delimiter in use only: with CRLF a lone LF would go out bare and cut the record.
    quoted_match: /[\r\n"]/,
  });
  return encodeText(text, options.encoding);
}

export interface ReceiptFile {
  readonly inputName: string;
  readonly sha256: string;
  readonly status: 'accepted' | 'partial' | 'rejected';
  readonly fileCode: FileCode | null;
  readonly linesRead: number;
  readonly linesAccepted: number;
  readonly amountAccepted: number;
  readonly linesRejected: number;
}

/** The F record. A refused file has zeros. */
export function receiptFileRow(file: ReceiptFile): Row {
  return [
    'F',
    file.inputName,
    file.sha256,
    file.status,
    file.fileCode ?? '',
    integer(file.linesRead),
    integer(file.linesAccepted),
    integer(file.amountAccepted),
    integer(file.linesRejected),
  ];
}

export type ReceiptLine = {
  /** Physical line where the record starts, from 1. */
  readonly line: number;
  /** '' where its form was not valid. */
  readonly billingNumber: string;
  readonly field: string;
} & (
  | { readonly outcome: 'rejected'; readonly code: LineCode }
  | { readonly outcome: 'warning'; readonly code: WarningCode }
);

/** An R record of a receipt, with the catalogue's message. */
export function receiptLineRow(line: ReceiptLine): Row {
  return [
    'R',
    integer(line.line),
    line.billingNumber,
    line.outcome,
    line.code,
    line.field,
    catalogueMessage(line.code),
  ];
}

export function catalogueMessage(code: CatalogueCode): string {
  return catalogue[code];
}

export type Outcome =
  | 'pending'
  | 'paid_preliminary'
  | 'preliminary_cancelled'
  | 'paid'
  | 'unpaid'
  | 'cancelled';
export type OutcomeReason =
  | ''
  | 'dunning_ended'
  | 'paper'
  | 'cancelled_by_merchant'
  | 'replaced'
  | 'recalled';
export type Method = '' | 'card' | 'barcode' | 'wallet' | 'debit';

export interface ResultRow {
  readonly billingNumber: string;
  readonly customerNumber: string;
  readonly outcome: Outcome;
  readonly reason: OutcomeReason;
  readonly method: Method;
  readonly amount: number;
  readonly amountReceived: number;
  /** `YYYY-MM-DD`, or '' where nothing was collected. */
  readonly collectedOn: string;
  /** ISO 8601 with offset in the merchant's time zone. */
  readonly knownAt: string;
  /** `^[A-Za-z0-9-]{1,36}$` or ''. */
  readonly reference: string;
}

export function resultRow(row: ResultRow): Row {
  return [
    'R',
    row.billingNumber,
    row.customerNumber,
    row.outcome,
    row.reason,
    row.method,
    integer(row.amount),
    integer(row.amountReceived),
    row.collectedOn,
    row.knownAt,
    row.reference,
  ];
}

export interface EnrolmentRow {
  readonly customerNumber: string;
  readonly change: 'enrolled' | 'changed' | 'ended';
  readonly means: 'card' | 'bank';
  readonly occurredAt: string;
  readonly reference: string;
}

export function enrolmentRow(row: EnrolmentRow): Row {
  return ['R', row.customerNumber, row.change, row.means, row.occurredAt, row.reference];
}

export interface UnreachedRow {
  readonly billingNumber: string;
  readonly customerNumber: string;
  readonly cause:
    | 'no_phone'
    | 'not_mobile'
    | 'blocked'
    | 'undelivered'
    | 'opted_out'
    | 'wrong_person'
    | 'over_limit';
  readonly disposition: 'kept' | 'returned';
  /** 44 digits, or ''. */
  readonly barcode: string;
  readonly occurredAt: string;
}

export function unreachedRow(row: UnreachedRow): Row {
  return [
    'R',
    row.billingNumber,
    row.customerNumber,
    row.cause,
    row.disposition,
    row.barcode,
    row.occurredAt,
  ];
}

export interface SettlementRow {
  readonly billingNumber: string;
  readonly method: Method;
  readonly collectedOn: string;
  readonly gross: number;
  readonly fee: number;
  readonly feeTax: number;
  readonly net: number;
  readonly payout: string;
}

export function settlementRow(row: SettlementRow): Row {
  return [
    'R',
    row.billingNumber,
    row.method,
    row.collectedOn,
    integer(row.gross),
    integer(row.fee),
    integer(row.feeTax),
    integer(row.net),
    row.payout,
  ];
}

export interface AdjustmentRow {
  /** Gapless per merchant, from 1. */
  readonly number: number;
  readonly billingNumber: string;
  readonly type: 'late_payment' | 'overpayment' | 'refund' | 'chargeback' | 'reversal';
  /** Not negative: the sign has a column of its own. */
  readonly amount: number;
  readonly sign: '+' | '-';
  readonly collectedOn: string;
  readonly knownAt: string;
  readonly reference: string;
}

export function adjustmentRow(row: AdjustmentRow): Row {
  return [
    'R',
    integer(row.number),
    row.billingNumber,
    row.type,
    integer(row.amount),
    row.sign,
    row.collectedOn,
    row.knownAt,
    row.reference,
  ];
}

export interface OutcomeTotal {
  readonly count: number;
  readonly amount: number;
}

export interface Tieout {
  readonly inputFile: string;
  readonly sha256: string;
  readonly businessDate: string;
  readonly lines: { readonly read: number; readonly accepted: number; readonly rejected: number };
  readonly amount: { readonly accepted: number; readonly rejected: number };
  readonly outcomes: {
    readonly paid: OutcomeTotal;
    readonly open: OutcomeTotal;
    readonly unpaid: OutcomeTotal;
    readonly cancelled: OutcomeTotal;
    readonly parked: OutcomeTotal;
  };
  readonly closes: boolean;
  /** How far the audit log went when this was written, with the hash of its last entry in hex. */
  readonly audit: { readonly no: number; readonly hash: string };
}

/** One line of JSON with its keys in fixed order, whatever order the object has. */
export function formatTieout(tieout: Tieout): string {
  const { lines, amount, outcomes } = tieout;
  const total = ({ count, amount: yen }: OutcomeTotal): OutcomeTotal => ({ count, amount: yen });
  const ordered: Tieout = {
    inputFile: tieout.inputFile,
    sha256: tieout.sha256,
    businessDate: tieout.businessDate,
    lines: { read: lines.read, accepted: lines.accepted, rejected: lines.rejected },
    amount: { accepted: amount.accepted, rejected: amount.rejected },
    outcomes: {
      paid: total(outcomes.paid),
      open: total(outcomes.open),
      unpaid: total(outcomes.unpaid),
      cancelled: total(outcomes.cancelled),
      parked: total(outcomes.parked),
    },
    closes: tieout.closes,
    audit: { no: tieout.audit.no, hash: tieout.audit.hash },
  };
  return `${JSON.stringify(ordered)}\n`;
}

function integer(value: number): string {
  // 1e21 or 0.5 in a machine file would be read as something else.
  if (!Number.isSafeInteger(value)) throw new RangeError('not a whole number');
  return String(value);
}
