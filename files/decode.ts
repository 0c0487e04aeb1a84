import { TextDecoder } from 'node:util';

/** Encodings a layout may name. `shift_jis` is the WHATWG label: in effect CP932, with 髙, 﨑, ① and NEC/IBM rows. */
export type FileEncoding = 'utf-8' | 'shift_jis';

/** Bytes that are no text in the declared encoding. `offset` is where the bad sequence begins, from 0. */
export class UndecodableBytes extends Error {
  readonly offset: number;
  readonly encoding: FileEncoding;

  constructor(encoding: FileEncoding, offset: number) {
    super(`not ${encoding} at byte ${offset}`);
    this.name = 'UndecodableBytes';
    this.encoding = encoding;
    this.offset = offset;
  }
}

/** Larger pieces are cut: it bounds the strings made here and the byte-by-byte search after a failure. */
const pieceBytesMax = 65_536;

/**
 * Streaming decoder without replacement characters: a character cut by a chunk boundary is carried over, and the
 * first bad byte throws `UndecodableBytes`. A leading UTF-8 byte order mark is dropped.
 */
export class FatalDecoder {
  readonly encoding: FileEncoding;
  readonly #decoder: TextDecoder;
  /** Bytes of an unfinished character that the decoder holds: they belong to the error's offset. */
  #pending: Uint8Array = new Uint8Array(0);
  #consumedBytes = 0;

  constructor(encoding: FileEncoding) {
    this.encoding = encoding;
    this.#decoder = new TextDecoder(encoding, { fatal: true });
  }

  write(bytes: Uint8Array): string {
    if (bytes.length <= pieceBytesMax) return this.#piece(bytes);
    let text = '';
    for (let at = 0; at < bytes.length; at += pieceBytesMax) {
      text += this.#piece(bytes.subarray(at, at + pieceBytesMax));
    }
    return text;
  }

  /** The end of the file: throws if a character is unfinished. */
  end(): string {
    try {
      return this.#decoder.decode();
    } catch {
      throw new UndecodableBytes(this.encoding, this.#consumedBytes - this.#pending.length);
    }
  }

  #piece(bytes: Uint8Array): string {
    let text: string;
    try {
      text = this.#decoder.decode(bytes, { stream: true });
    } catch {
      const start = this.#consumedBytes - this.#pending.length;
      const all = Buffer.concat([this.#pending, bytes]);
      throw new UndecodableBytes(this.encoding, start + firstBadOffset(this.encoding, all));
    }
    this.#consumedBytes += bytes.length;
    this.#pending = unfinished(this.encoding, this.#pending, bytes);
    return text;
  }
}

export async function* decodeText(
  content: AsyncIterable<Uint8Array>,
  encoding: FileEncoding,
): AsyncGenerator<string> {
  const decoder = new FatalDecoder(encoding);
  for await (const bytes of content) {
    const text = decoder.write(bytes);
    if (text !== '') yield text;
  }
  const rest = decoder.end();
  if (rest !== '') yield rest;
}

function isShiftJisLead(byte: number): boolean {
  return (byte >= 0x81 && byte <= 0x9f) || (byte >= 0xe0 && byte <= 0xfc);
}

function unfinished(encoding: FileEncoding, before: Uint8Array, bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return before;
  if (encoding === 'shift_jis') {
    // A byte outside the lead range always ends a character; the run of lead bytes after it pairs up, so an odd
    // run leaves its last byte waiting for a trail byte.
    let run = 0;
    while (run < bytes.length && isShiftJisLead(bytes[bytes.length - 1 - run] ?? 0)) run += 1;
    const carried = run === bytes.length ? before.length : 0;
    return (run + carried) % 2 === 1 ? bytes.slice(-1) : new Uint8Array(0);
  }
  if ((bytes[bytes.length - 1] ?? 0) < 0x80) return new Uint8Array(0);
  const tail = Buffer.concat([before, bytes.subarray(-4)]).subarray(-4);
  for (let back = 1; back <= Math.min(3, tail.length); back += 1) {
    const byte = tail[tail.length - back] ?? 0;
    if (byte >= 0xc0) {
      const needs = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return needs > back ? Uint8Array.from(tail.subarray(-back)) : new Uint8Array(0);
    }
    if (byte < 0x80) break;
  }
  return new Uint8Array(0);
}

function firstBadOffset(encoding: FileEncoding, bytes: Uint8Array): number {
  const decoder = new TextDecoder(encoding, { fatal: true, ignoreBOM: true });
  let good = 0;
  for (let at = 0; at < bytes.length; at += 1) {
    try {
      if (decoder.decode(bytes.subarray(at, at + 1), { stream: true }) !== '') good = at + 1;
    } catch {
      return good;
    }
  }
  return good;
}

// Shift_JIS rows F0 to F9, for characters of a firm's own: they decode to private use and have no agreed meaning.
const privateUse = /[\ue000-\uf8ff]/;
const everyPrivateUse = /[\ue000-\uf8ff]/g;

/**
 * Decoded text with a control character, which no field may hold, in place of each character that the encoding could
 * not write back.
 */
export function withoutUnwritable(text: string, encoding: FileEncoding): string {
  if (encoding === 'utf-8' || !privateUse.test(text)) return text;
  return text.replace(everyPrivateUse, '\u0080');
}

let shiftJisBytes: Map<number, number> | undefined;

// biome-ignore lint/suspicious/noControlCharactersInRegex: ASCII has them
const asciiOnly = /^[\u0000-\u007f]*$/;

/**
 * Text to bytes in the merchant's encoding. Throws on a character that Shift_JIS lacks: a question mark in its place
 * would be a silent loss.
 */
export function encodeText(text: string, encoding: FileEncoding): Buffer {
  // ASCII is the same in both, and nearly all of what goes out.
  if (encoding === 'utf-8' || asciiOnly.test(text)) return Buffer.from(text, 'utf8');
  shiftJisBytes ??= shiftJisTable();
  const bytes = Buffer.allocUnsafe(text.length * 2);
  let length = 0;
  for (const character of text) {
    const codePoint = character.codePointAt(0) ?? 0;
    if (codePoint < 0x80) {
      bytes[length++] = codePoint;
      continue;
    }
    const code = shiftJisBytes.get(codePoint);
    if (code === undefined) {
      throw new RangeError(
        `U+${codePoint.toString(16).toUpperCase().padStart(4, '0')} has no shift_jis form`,
      );
    }
    if (code > 0xff) bytes[length++] = code >> 8;
    bytes[length++] = code & 0xff;
  }
  return bytes.subarray(0, length);
}

/** Whether one character has a form in the encoding. */
export function canEncode(character: string, encoding: FileEncoding): boolean {
  const codePoint = character.codePointAt(0) ?? 0;
  if (encoding === 'utf-8') return codePoint < 0xd800 || codePoint > 0xdfff;
  shiftJisBytes ??= shiftJisTable();
  return codePoint < 0x80 || shiftJisBytes.has(codePoint);
}

function shiftJisTable(): Map<number, number> {
  const decoder = new TextDecoder('shift_jis', { fatal: true });
  const table = new Map<number, number>();
  for (let single = 0xa1; single <= 0xdf; single += 1) table.set(0xff61 + single - 0xa1, single);
  for (let lead = 0x81; lead <= 0xfc; lead += 1) {
    // ED and EE repeat the IBM rows FA to FC, F0 to F9 are private use: neither is ever written.
    if (!isShiftJisLead(lead) || lead === 0xed || lead === 0xee || (lead >= 0xf0 && lead <= 0xf9)) continue;
    for (let trail = 0x40; trail <= 0xfc; trail += 1) {
      let character: string;
      try {
        character = decoder.decode(Uint8Array.of(lead, trail));
      } catch {
        continue;
      }
      const codePoint = character.codePointAt(0) ?? 0;
      const whole = character.length === String.fromCodePoint(codePoint).length;
      if (whole && codePoint >= 0x80 && !table.has(codePoint)) table.set(codePoint, (lead << 8) | trail);
    }
  }
  return table;
}
