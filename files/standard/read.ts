import { createHash } from 'node:crypto';
import { FatalDecoder, type FileEncoding, UndecodableBytes, withoutUnwritable } from '../decode.ts';
import { type CsvRecord, CsvSplitter, type RecordCutter } from '../split.ts';
import type { FileCode } from './catalogue.ts';
import { type InwardKind, isRealDate } from './names.ts';
import {
  isBillingNumber,
  type LineOf,
  type Rejection,
  taxLinesMax,
  type Validated,
  validateDetailedBilling,
  validateLine,
} from './validate.ts';

/** A merchant's own layout, as far as reading needs it: how its text is cut, and what its records are in `standard/1`. */
export interface InwardLayout {
  /** False: neither titles nor a header record; the first record is a line. */
  readonly hasHeader: boolean;
  /** False: the header has no sequence number, and none is checked. */
  readonly hasSequence: boolean;
  /** False: nothing in the file says how many records it holds. */
  readonly hasTotals: boolean;
  openCutter(recordBytesMax: number): RecordCutter;
  /** The fields of the H, D or T record that this one stands for. What has no reading comes out as what is refused. */
  standardFields(record: CsvRecord, about: About): string[];
}

/** What a file without a header record does not say itself. */
export interface About {
  readonly merchant: string;
  readonly kind: string;
  /** From the file's name, `YYYY-MM-DD`. */
  readonly businessDate: string;
}

export interface ReadOptions<K extends InwardKind> {
  readonly encoding: FileEncoding;
  /** Null or absent: `standard/1`. */
  readonly layout?: InwardLayout | null;
  /** From the file's name, for layouts whose files do not say it. */
  readonly businessDate?: string;
  readonly merchant: string;
  /** From the file's name. Header and records must be of it. */
  readonly kind: K;
  /** Without the line end; 64 KiB unless told. */
  readonly recordBytesMax?: number;
  /** 4 GiB unless told. */
  readonly fileBytesMax?: number;
  /** Lines of one batch, at least; 2,000 unless told. */
  readonly batchLines?: number;
}

export interface AcceptedLine<L> {
  readonly line: number;
  readonly record: number;
  readonly ok: L;
  readonly rejected?: undefined;
}

export interface RejectedLine {
  /** Physical line on which the record starts, from 1. */
  readonly line: number;
  /** Position among the lines, from 1: records between H and T, in `standard/2` without the tax lines. */
  readonly record: number;
  readonly ok?: undefined;
  readonly rejected: Rejection;
  /** '' unless its form is valid: only checked values go back into files. */
  readonly billingNumber: string;
  /** The amount as sent where it is at most 15 ASCII digits, else ''. */
  readonly amountText: string;
}

export type ReadLine<L> = AcceptedLine<L> | RejectedLine;

export interface FileHeader {
  readonly merchant: string;
  readonly kind: string;
  readonly businessDate: string;
  /** Null where the layout has none. */
  readonly sequence: number | null;
}

export interface FileTrailer {
  readonly count: number;
  readonly total: number;
}

export interface FileVerdict {
  /** Null: the file may be loaded, as far as the file alone can say. Otherwise nothing of it may be. */
  readonly fileCode: FileCode | null;
  readonly header: FileHeader | null;
  readonly trailer: FileTrailer | null;
  /**
   * Lines handed out: accepted + rejected. After a refusal is certain no more are handed out, so for a refused file
   * the counts depend on where the chunks were cut and say nothing about the file.
   */
  readonly linesRead: number;
  readonly linesAccepted: number;
  readonly linesRejected: number;
  /** Yen of the accepted billing lines. */
  readonly amountAccepted: number;
  /** Yen of every billing record that has digits for an amount: what the trailer's total is compared with. */
  readonly amountSum: number;
  /** Of the first and last billing record, '' where the form is not valid. */
  readonly firstBillingNumber: string;
  readonly lastBillingNumber: string;
  readonly bytes: number;
  /** Hex, of all bytes; '' for F_TOO_LARGE, where reading stops. */
  readonly sha256: string;
  /** Byte of the first undecodable sequence, with F_ENCODING. */
  readonly encodingOffset: number | null;
  /** Physical line of the fault, where one line is to blame. */
  readonly faultLine: number | null;
}

/** The last batch, which may be empty, carries the verdict. What came before counts only if its fileCode is null. */
export interface ReadBatch<L> {
  readonly lines: ReadLine<L>[];
  readonly verdict: FileVerdict | null;
}

const defaultRecordBytesMax = 65_536;
const defaultFileBytesMax = 4 * 1024 ** 3;
const defaultBatchLines = 2_000;
const pieceBytes = 131_072;

/**
 * Reads a file in one pass and bounded memory. Bad input never throws: it ends in a rejected line or in
 * the verdict's file code, the first in the contract's order even where the pass meets a later one first. Only
 * errors of `content` itself come through.
 */
export async function* readStandardFile<K extends InwardKind>(
  content: AsyncIterable<Uint8Array>,
  options: ReadOptions<K>,
): AsyncGenerator<ReadBatch<LineOf[K]>> {
  const reader = new StandardReader(options);
  const batchLines = options.batchLines ?? defaultBatchLines;
  const fileBytesMax = options.fileBytesMax ?? defaultFileBytesMax;
  for await (const chunk of content) {
    for (let at = 0; at < chunk.length; at += pieceBytes) {
      const piece = chunk.subarray(at, at + pieceBytes);
      if (reader.bytes + piece.length > fileBytesMax) {
        yield { lines: [], verdict: reader.tooLarge(piece.length) };
        return;
      }
      reader.write(piece);
      if (reader.lines.length >= batchLines) yield { lines: reader.takeLines(), verdict: null };
    }
  }
  const verdict = reader.end();
  yield { lines: reader.takeLines(), verdict };
}

class StandardReader<K extends InwardKind> {
  bytes = 0;
  lines: ReadLine<LineOf[K]>[] = [];
  readonly #options: ReadOptions<K>;
  readonly #hash = createHash('sha256');
  readonly #decoder: FatalDecoder;
  readonly #layout: InwardLayout | null;
  readonly #about: About;
  readonly #splitter: RecordCutter;
  readonly #records: CsvRecord[] = [];
  #encodingOffset: number | null = null;
  #sawText = false;
  #sawHeader = false;
  #header: FileHeader | null = null;
  #headerFault: FileCode | null = null;
  #trailer: FileTrailer | null = null;
  #sawTrailer = false;
  #trailerFault = false;
  #trailerLine: number | null = null;
  #recordsBetween = 0;
  #linesRead = 0;
  #linesAccepted = 0;
  #amountAccepted = 0;
  #amountSum = 0;
  #firstBillingNumber = '';
  #lastBillingNumber = '';
  #sawBilling = false;
  #blankLines = 0;
  /** `standard/2`: a bill is whole only when the record after it is no `L`. */
  #detailed = false;
  #open: { line: number; fields: string[]; below: CsvRecord[] } | null = null;

  constructor(options: ReadOptions<K>) {
    this.#options = options;
    this.#decoder = new FatalDecoder(options.encoding);
    const { encoding, merchant, kind, layout = null, businessDate = '' } = options;
    const recordBytesMax = options.recordBytesMax ?? defaultRecordBytesMax;
    this.#layout = layout;
    this.#about = { merchant, kind, businessDate };
    this.#splitter = layout?.openCutter(recordBytesMax) ?? new CsvSplitter({ recordBytesMax, encoding });
    if (layout !== null && !layout.hasHeader) {
      this.#sawHeader = true;
      this.#header = { merchant, kind, businessDate, sequence: null };
    }
  }

  takeLines(): ReadLine<LineOf[K]>[] {
    const lines = this.lines;
    this.lines = [];
    return lines;
  }

  write(bytes: Uint8Array): void {
    this.bytes += bytes.length;
    this.#hash.update(bytes);
    if (this.#encodingOffset !== null) return;
    this.#take(() => this.#decoder.write(bytes));
  }

  end(): FileVerdict {
    if (this.#encodingOffset === null) this.#take(() => this.#decoder.end());
    if (this.#encodingOffset === null) {
      this.#splitter.end(this.#records);
      this.#handleRecords();
      this.#closeBill();
    }
    if (this.#layout?.hasTotals === false && this.#sawHeader)
      this.#trailer = { count: this.#recordsBetween, total: this.#amountSum };
    return this.#verdict(this.#fileCode(), this.#hash.digest('hex'));
  }

  tooLarge(moreBytes: number): FileVerdict {
    this.bytes += moreBytes;
    this.takeLines();
    this.#linesRead = 0;
    this.#linesAccepted = 0;
    this.#amountAccepted = 0;
    return this.#verdict('F_TOO_LARGE', '');
  }

  #take(decode: () => string): void {
    let text: string;
    try {
      text = decode();
    } catch (error) {
      if (!(error instanceof UndecodableBytes)) throw error;
      this.#encodingOffset = error.offset;
      return;
    }
    if (text === '') return;
    this.#sawText = true;
    this.#splitter.push(withoutUnwritable(text, this.#options.encoding), this.#records);
    this.#handleRecords();
  }

  #handleRecords(): void {
    const layout = this.#layout;
    for (const record of this.#records) {
      this.#handle(record.line, layout === null ? record.fields : layout.standardFields(record, this.#about));
    }
    this.#records.length = 0;
  }

  #handle(line: number, fields: string[]): void {
    if (!this.#sawHeader) {
      this.#sawHeader = true;
      this.#readHeader(fields);
    } else if (this.#sawTrailer) {
      // Blank lines at the very end hold nothing that could be lost.
      if (!isBlank(fields)) this.#trailerFault = true;
    } else if (fields[0] === 'T') {
      this.#closeBill();
      this.#sawTrailer = true;
      this.#trailerLine = line;
      this.#readTrailer(fields);
    } else if (this.#layout?.hasTotals === false && isBlank(fields)) {
      // Without a trailer only what follows tells whether it stands at the end.
      this.#blankLines += 1;
    } else {
      for (; this.#blankLines > 0; this.#blankLines -= 1) {
        this.#recordsBetween += 1;
        this.#readLine(line - this.#blankLines, ['']);
      }
      this.#recordsBetween += 1;
      this.#readLine(line, fields);
    }
  }

  #readHeader(fields: string[]): void {
    const [type, version, merchant = '', kind = '', businessDate = '', sequence = ''] = fields;
    const valid =
      fields.length === 6 &&
      type === 'H' &&
      (version === '1' || (version === '2' && kind === 'billing')) &&
      isRealDate(businessDate) &&
      (/^[1-9][0-9]{0,8}$/.test(sequence) || this.#layout?.hasSequence === false);
    if (!valid) {
      this.#headerFault = 'F_HEADER';
      return;
    }
    if (merchant !== this.#options.merchant) this.#headerFault = 'F_WRONG_MERCHANT';
    else if (kind !== this.#options.kind) this.#headerFault = 'F_KIND';
    const isNumbered = this.#layout?.hasSequence !== false;
    this.#detailed = version === '2';
    this.#header = { merchant, kind, businessDate, sequence: isNumbered ? Number(sequence) : null };
  }

  #readTrailer(fields: string[]): void {
    const [, count = '', total = ''] = fields;
    // 15 digits are the most that a number holds exactly.
    if (fields.length === 3 && /^[0-9]{1,15}$/.test(count) && /^[0-9]{1,15}$/.test(total)) {
      this.#trailer = { count: Number(count), total: Number(total) };
    } else this.#trailerFault = true;
  }

  #readLine(line: number, fields: string[]): void {
    const billing = this.#options.kind === 'billing';
    const amountText = fields[6] ?? '';
    if (billing && fields[0] === 'D') {
      if (/^[0-9]+$/.test(amountText)) {
        // Saturates: no trailer can state a larger total, so it can never match one by accident.
        this.#amountSum = Math.min(this.#amountSum + Number(amountText), Number.MAX_SAFE_INTEGER);
      }
      const number = isBillingNumber(fields[1] ?? '') ? (fields[1] ?? '') : '';
      if (!this.#sawBilling) this.#firstBillingNumber = number;
      this.#lastBillingNumber = number;
      this.#sawBilling = true;
    }
    // Refused for certain: the caller would only store lines to throw them away.
    if (this.#headerFault !== null || this.#splitter.fault !== undefined) return;
    if (!this.#detailed) {
      this.#judge(line, this.#recordsBetween, fields, validateLine(this.#options.kind, fields));
    } else if (fields[0] === 'L' && this.#open !== null) {
      // One too many is kept, which refuses the bill: memory does not grow with what stands under it.
      if (this.#open.below.length <= taxLinesMax) this.#open.below.push({ line, fields });
    } else {
      this.#closeBill();
      this.#open = { line, fields, below: [] };
    }
  }

  /** Its tax lines are parts of a bill, not lines of their own: lines read are bills, and each has one outcome. */
  #closeBill(): void {
    if (this.#open === null) return;
    const { line, fields, below } = this.#open;
    this.#open = null;
    const record = this.#linesRead + 1;
    const validated = validateDetailedBilling(fields, below);
    this.#judge(validated.faultLine ?? line, record, fields, validated as Validated<LineOf[K]>);
  }

  #judge(line: number, record: number, fields: string[], validated: Validated<LineOf[K]>): void {
    const billing = this.#options.kind === 'billing';
    const amountText = fields[6] ?? '';
    this.#linesRead += 1;
    if ('ok' in validated) {
      this.#linesAccepted += 1;
      if (billing) this.#amountAccepted += (validated.ok as LineOf['billing']).amount;
      this.lines.push({ line, record, ok: validated.ok });
      return;
    }
    const number = billing || this.#options.kind === 'cancel' ? (fields[1] ?? '') : '';
    this.lines.push({
      line,
      record,
      rejected: validated.rejected,
      billingNumber: isBillingNumber(number) ? number : '',
      amountText: billing && /^[0-9]{1,15}$/.test(amountText) ? amountText : '',
    });
  }

  #fileCode(): FileCode | null {
    if (this.bytes === 0 || (!this.#sawText && this.#encodingOffset === null)) return 'F_EMPTY';
    if (this.#encodingOffset !== null) return 'F_ENCODING';
    if (this.#splitter.fault?.type === 'quote') return 'F_QUOTE';
    if (this.#splitter.fault?.type === 'too_long') return 'F_RECORD_TOO_LONG';
    if (this.#headerFault !== null) return this.#headerFault;
    if (this.#trailer === null || this.#trailerFault) return 'F_TRAILER_MISSING';
    if (this.#trailer.count !== this.#recordsBetween) return 'F_COUNT_MISMATCH';
    if (this.#trailer.total !== this.#amountSum) return 'F_TOTAL_MISMATCH';
    return null;
  }

  #verdict(fileCode: FileCode | null, sha256: string): FileVerdict {
    const ofSplitter = fileCode === 'F_QUOTE' || fileCode === 'F_RECORD_TOO_LONG';
    const ofHeader = fileCode === 'F_HEADER' || fileCode === 'F_WRONG_MERCHANT' || fileCode === 'F_KIND';
    const ofTrailer =
      fileCode === 'F_TRAILER_MISSING' || fileCode === 'F_COUNT_MISMATCH' || fileCode === 'F_TOTAL_MISMATCH';
    return {
      fileCode,
      header: this.#header,
      trailer: this.#trailerFault ? null : this.#trailer,
      linesRead: this.#linesRead,
      linesAccepted: this.#linesAccepted,
      linesRejected: this.#linesRead - this.#linesAccepted,
      amountAccepted: this.#amountAccepted,
      amountSum: this.#amountSum,
      firstBillingNumber: this.#firstBillingNumber,
      lastBillingNumber: this.#lastBillingNumber,
      bytes: this.bytes,
      sha256,
      encodingOffset: this.#encodingOffset,
      faultLine: ofSplitter
        ? (this.#splitter.fault?.line ?? null)
        : ofTrailer
          ? this.#trailerLine
          : ofHeader
            ? 1
            : null,
    };
  }
}

function isBlank(fields: readonly string[]): boolean {
  return fields.length === 1 && fields[0] === '';
}
