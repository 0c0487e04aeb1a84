import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import type { Disk, Randomness } from '../billing/ports.ts';
import { Refusal } from '../billing/refusal.ts';

export interface ArchiveKey {
  /** Stands in the file in the clear, so that keys can be changed: 1 to 64 ASCII characters. */
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

export interface Archived {
  /** Hex, of the content before encryption. */
  readonly sha256: string;
  readonly sizeBytes: number;
}

/*
 * SKA1, one byte of key id length, key id, 8 random bytes; then segments: four bytes of length (high bit: the last
 * one), nonce, ciphertext, tag. The header, the segment's number and its length word with the final bit are
 * authenticated: segments that are swapped, cut off or taken from another file do not open.
 */
const magic = Buffer.from('SKA1');
const saltBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const segmentBytes = 1024 * 1024;
const finalBit = 0x80000000;

/** Encrypts while writing, in memory of about one segment. The path is complete or absent. */
export async function archiveFile(
  disk: Disk,
  randomness: Randomness,
  key: ArchiveKey,
  path: string,
  content: AsyncIterable<Uint8Array>,
): Promise<Archived> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of content) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  }
  await disk.write(path, encrypt(key, randomness, counted()));
  return { sha256: hash.digest('hex'), sizeBytes };
}

/** What is known of an archived file, beside it: enough to take the file up again where the database has forgotten it. */
export interface InwardHead {
  readonly what: 'inward';
  readonly id: string;
  readonly name: string;
  readonly kind: string;
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly checksumMatches: boolean;
  readonly layout: string;
  readonly settingsVersion: number;
  /** YYYY-MM-DD */
  readonly fetchedOn: string;
  /** The database had it. Without it the file may have been taken a second time under another id. */
  readonly registered: boolean;
}

export interface OutwardHead {
  readonly what: 'outward';
  readonly id: string;
  readonly kind: string;
  readonly sequence: number;
  readonly name: string;
  /** YYYY-MM-DD */
  readonly businessDate: string;
  readonly inputFileId: string | null;
  readonly records: number;
  readonly sum: number;
  readonly sha256: string;
  readonly sizeBytes: number;
  /** ISO 8601 instant. */
  readonly frozenAt: string;
  /** Of a settlement, as the gateway calls it. Absent from heads that were written before it was kept. */
  readonly payout?: string | null;
  /** It was proved to lie, whole, where the partner looks. Without it it may have been visible. */
  readonly delivered: boolean;
}

/** Of what a bank answered: the request that it answers is known by its records. */
export interface DebitResultHead {
  readonly what: 'debit_result';
  readonly id: string;
  readonly name: string;
  readonly sha256: string;
  readonly sizeBytes: number;
}

export type ArchiveHead = InwardHead | OutwardHead | DebitResultHead;

const headSuffix = '.head';
const toldSuffix = '.told';

/** Beside an outward file in a layout that we do not read back: what it told, in `standard/1`. */
export function toldBeside(path: string): string {
  return `${path}${toldSuffix}`;
}

/** `path`: of the file that it is the head of. Encrypted like it: names of files are the partner's. */
export async function writeHead(
  disk: Disk,
  randomness: Randomness,
  key: ArchiveKey,
  path: string,
  head: ArchiveHead,
): Promise<void> {
  await archiveFile(disk, randomness, key, `${path}${headSuffix}`, only(Buffer.from(JSON.stringify(head))));
}

export async function removeArchived(disk: Disk, path: string): Promise<void> {
  await disk.remove(path);
  await disk.remove(toldBeside(path));
  await disk.remove(`${path}${headSuffix}`);
}

/** Paths in a folder that have a head, with names from `fromId` on: ids begin with their time. In the order of their making. */
export async function archivedFrom(disk: Disk, folder: string, fromId: string): Promise<string[]> {
  const names = await disk.list(folder);
  return names
    .filter((name) => name.endsWith(headSuffix) && name >= fromId)
    .map((name) => `${folder}/${name.slice(0, -headSuffix.length)}`);
}

const uuid = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;

/**
 * What was begun in a folder before an instant (epoch milliseconds): `halves` are paths of writes that never ended; of
 * `whole` the files, with whether they have a head. Ids begin with the milliseconds of their making.
 */
export async function begunBefore(
  disk: Disk,
  folder: string,
  beforeMs: number,
): Promise<{ halves: string[]; whole: { id: string; path: string; hasHead: boolean }[] }> {
  const names = await disk.list(folder);
  const all = new Set(names);
  const halves: string[] = [];
  const whole: { id: string; path: string; hasHead: boolean }[] = [];
  for (const name of names) {
    const half = name.endsWith('.tmp');
    // Of a half file the last id is the try's own; the first may be of a file that was made long before.
    const id = uuid.exec(half ? name.slice(-40) : name)?.[0];
    if (id === undefined || Number.parseInt(id.replace('-', '').slice(0, 12), 16) >= beforeMs) continue;
    const path = `${folder}/${name}`;
    if (half) halves.push(path);
    else if (!name.endsWith(headSuffix) && !name.endsWith(toldSuffix))
      whole.push({ id, path, hasHead: all.has(`${name}${headSuffix}`) });
  }
  return { halves, whole };
}

/** Null: there is none. Refusals as in `openArchive`. */
export async function readHead(
  disk: Disk,
  keys: readonly ArchiveKey[],
  path: string,
): Promise<ArchiveHead | null> {
  if (!(await disk.exists(`${path}${headSuffix}`))) return null;
  const parts: Buffer[] = [];
  for await (const part of openArchive(disk, keys, `${path}${headSuffix}`)) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString('utf8')) as ArchiveHead;
}

async function* only(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

/** The content, segment by segment, each one verified before it is handed out. Refusals: ARCHIVE_KEY_UNKNOWN, ARCHIVE_DAMAGED. */
export async function* openArchive(
  disk: Disk,
  keys: readonly ArchiveKey[],
  path: string,
): AsyncGenerator<Buffer> {
  const reader = new ByteReader(disk.read(path));
  try {
    const start = await reader.take(magic.length + 1);
    if (start === undefined || !start.subarray(0, magic.length).equals(magic)) throw damaged();
    const rest = await reader.take((start[magic.length] ?? 0) + saltBytes);
    if (rest === undefined) throw damaged();
    const id = rest.subarray(0, -saltBytes).toString('latin1');
    const key = keys.find((known) => known.id === id);
    if (key === undefined) {
      throw new Refusal(
        'ARCHIVE_KEY_UNKNOWN',
        'the archived file was encrypted with a key that is not configured',
        {
          next: 'Put the old key back among the archive keys.',
          exitCode: 2,
        },
      );
    }
    const header = Buffer.concat([start, rest]);
    for (let number = 0; ; number += 1) {
      const word = await reader.take(4);
      if (word === undefined) throw damaged();
      const value = word.readUInt32BE(0);
      const length = value & ~finalBit;
      if (length > segmentBytes) throw damaged();
      const body = await reader.take(nonceBytes + length + tagBytes);
      if (body === undefined) throw damaged();
      const decipher = createDecipheriv('aes-256-gcm', key.secret, body.subarray(0, nonceBytes));
      decipher.setAAD(segmentContext(header, number, word));
      decipher.setAuthTag(body.subarray(nonceBytes + length));
      let plain: Buffer;
      try {
        plain = Buffer.concat([
          decipher.update(body.subarray(nonceBytes, nonceBytes + length)),
          decipher.final(),
        ]);
      } catch (error) {
        throw damaged(error);
      }
      const final = value >= finalBit;
      if (final && (await reader.take(1)) !== undefined) throw damaged();
      if (plain.length > 0) yield plain;
      if (final) return;
    }
  } finally {
    await reader.close();
  }
}

async function* encrypt(
  key: ArchiveKey,
  randomness: Randomness,
  content: AsyncIterable<Uint8Array>,
): AsyncGenerator<Buffer> {
  const id = Buffer.from(key.id, 'latin1');
  if (id.length < 1 || id.length > 64) throw new RangeError('an archive key id has 1 to 64 characters');
  const header = Buffer.concat([magic, Buffer.of(id.length), id, randomness.bytes(saltBytes)]);
  yield header;
  const reader = new ByteReader(content);
  try {
    // One segment is always held back: only when nothing follows is it known to be the last.
    let plain = await reader.takeUpTo(segmentBytes);
    for (let number = 0; ; number += 1) {
      const next: Buffer =
        plain.length < segmentBytes ? Buffer.alloc(0) : await reader.takeUpTo(segmentBytes);
      const final = next.length === 0;
      const word = Buffer.alloc(4);
      word.writeUInt32BE(final ? plain.length + finalBit : plain.length);
      const nonce = randomness.bytes(nonceBytes);
      const cipher = createCipheriv('aes-256-gcm', key.secret, nonce);
      cipher.setAAD(segmentContext(header, number, word));
      yield Buffer.concat([word, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
      if (final) return;
      plain = next;
    }
  } finally {
    await reader.close();
  }
}

function segmentContext(header: Buffer, number: number, word: Buffer): Buffer {
  const counter = Buffer.alloc(4);
  counter.writeUInt32BE(number);
  return Buffer.concat([header, counter, word]);
}

function damaged(cause?: unknown): Refusal {
  return new Refusal('ARCHIVE_DAMAGED', 'the archived file is damaged or was changed', {
    next: 'Restore it from the backup, or ask the partner to send the file again.',
    exitCode: 3,
    cause,
  });
}

/** Cuts a stream of chunks of any size into the sizes asked for. */
class ByteReader {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #at = 0;

  constructor(content: AsyncIterable<Uint8Array>) {
    this.#iterator = content[Symbol.asyncIterator]();
  }

  /** Exactly `count` bytes, or undefined if the stream ends before. */
  async take(count: number): Promise<Buffer | undefined> {
    const bytes = await this.takeUpTo(count);
    return bytes.length === count ? bytes : undefined;
  }

  async takeUpTo(count: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(count);
    let filled = 0;
    while (filled < count) {
      if (this.#at === this.#chunk.length) {
        const next = await this.#iterator.next();
        if (next.done === true) break;
        this.#chunk = next.value;
        this.#at = 0;
        continue;
      }
      const part = this.#chunk.subarray(this.#at, this.#at + count - filled);
      target.set(part, filled);
      filled += part.length;
      this.#at += part.length;
    }
    return target.subarray(0, filled);
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }
}
