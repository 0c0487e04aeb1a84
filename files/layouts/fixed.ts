import type { FileEncoding } from '../decode.ts';
import { byteLength, type CsvFault, type CsvRecord, type RecordCutter } from '../split.ts';

/** Cuts fixed-width text at its line ends: each record is one field, its whole text. No line end is inside a character. */
export class LineCutter implements RecordCutter {
  readonly #recordBytesMax: number;
  readonly #encoding: FileEncoding;
  #carry = '';
  #line = 1;
  #skipping = false;
  #fault: CsvFault | undefined;

  constructor(options: { recordBytesMax: number; encoding: FileEncoding }) {
    this.#recordBytesMax = options.recordBytesMax;
    this.#encoding = options.encoding;
  }

  get fault(): CsvFault | undefined {
    return this.#fault;
  }

  push(text: string, into: CsvRecord[]): void {
    const buffer = this.#carry === '' ? text : this.#carry + text;
    let start = 0;
    for (let end = buffer.indexOf('\n'); end !== -1; end = buffer.indexOf('\n', start)) {
      const returned = end > start && buffer.charCodeAt(end - 1) === 13;
      this.#take(buffer.slice(start, returned ? end - 1 : end), into);
      start = end + 1;
    }
    this.#carry = buffer.slice(start);
    // Only what cannot possibly fit is let go: one character more may be a carriage return.
    if (this.#carry.length > this.#recordBytesMax + 1) this.#refuse();
    if (this.#skipping) this.#carry = '';
  }

  end(into: CsvRecord[]): void {
    if (this.#carry !== '' && !this.#skipping) this.#take(this.#carry, into);
    this.#carry = '';
  }

  #take(text: string, into: CsvRecord[]): void {
    const tooLong =
      text.length * 3 > this.#recordBytesMax && byteLength(text, this.#encoding) > this.#recordBytesMax;
    if (tooLong && !this.#skipping) this.#refuse();
    if (!this.#skipping) into.push({ line: this.#line, fields: [text] });
    this.#line += 1;
    this.#skipping = false;
  }

  #refuse(): void {
    this.#fault ??= { type: 'too_long', line: this.#line };
    this.#skipping = true;
  }
}

/** Bytes from `from` up to `to`, counted from 0. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** Stands for a cell that begins or ends within a character: no field may hold it. */
const cutCharacter = '\u0080';

/**
 * Finds cells of a record by byte, in its decoded text. Nearly all records hold one byte a character, and are cut as
 * they are; the places of the others' characters are counted once a record.
 */
export class ByteRuler {
  readonly #encoding: FileEncoding;
  readonly #wide: RegExp;
  /** Index of the character that begins at a byte, or -1 within one; only for a record with wider characters. */
  readonly #characterAt: Int32Array;
  #text = '';
  #isPlain = true;
  /** Bytes of the record. */
  bytes = 0;

  constructor(encoding: FileEncoding, recordBytes: number) {
    this.#encoding = encoding;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII has them
    this.#wide = encoding === 'utf-8' ? /[^\u0000-\u007f]/ : /[^\u0000-\u007f\uff61-\uff9f]/;
    this.#characterAt = new Int32Array(recordBytes + 1);
  }

  lay(text: string): void {
    this.#text = text;
    this.#isPlain = !this.#wide.test(text);
    this.bytes = this.#isPlain ? text.length : this.#measure(text);
  }

  cell({ from, to }: Span): string {
    if (this.#isPlain) return this.#text.slice(from, to);
    if (from >= this.bytes) return '';
    const start = this.#characterAt[from] ?? -1;
    const end = to >= this.bytes ? this.#text.length : (this.#characterAt[to] ?? -1);
    return start < 0 || end < 0 ? cutCharacter : this.#text.slice(start, end);
  }

  #measure(text: string): number {
    const characterAt = this.#characterAt.fill(-1);
    let bytes = 0;
    for (let at = 0; at < text.length; at += 1) {
      if (bytes < characterAt.length) characterAt[bytes] = at;
      const code = text.charCodeAt(at);
      if (this.#encoding === 'shift_jis') bytes += code < 0x80 || (code >= 0xff61 && code <= 0xff9f) ? 1 : 2;
      else if (code >= 0xd800 && code <= 0xdbff) {
        bytes += 4;
        at += 1;
      } else bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
    }
    if (bytes < characterAt.length) characterAt[bytes] = text.length;
    return bytes;
  }
}
