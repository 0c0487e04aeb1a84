import { createHash, randomBytes, randomFillSync } from 'node:crypto';
import { parse, stringify, v7 } from 'uuid';
import type { Clock, Ids, Randomness } from './ports.ts';
import { Refusal } from './refusal.ts';

/** UUIDv7 from the clock port. Within the process each is greater than the one before, also when the clock stands still or goes back. */
export function timeOrderedIds(clock: Clock, randomness: Randomness): Ids {
  let msecs = -1;
  let seq = 0;
  return {
    uuid() {
      const random = randomness.bytes(16);
      const now = clock.now().epochMilliseconds;
      if (now > msecs) {
        msecs = now;
        // 31 random bits: room for two thousand million ids before the counter wraps.
        seq = random.readUInt32BE(6) >>> 1;
      } else {
        seq = (seq + 1) >>> 0;
        if (seq === 0) msecs += 1;
      }
      return v7({ msecs, seq, random });
    },
  };
}

/** One call to the operating system for 16 KiB: a bulk load asks for 12 bytes 200,000 times. */
const poolBytes = 16_384;

export function systemRandomness(): Randomness {
  let pool = Buffer.alloc(0);
  let used = 0;
  return {
    bytes(count) {
      if (count > poolBytes / 4) return randomBytes(count);
      if (used + count > pool.length) {
        // A new buffer, not a refill: what was handed out before belongs to its receiver.
        pool = Buffer.allocUnsafeSlow(poolBytes);
        randomFillSync(pool);
        used = 0;
      }
      const taken = pool.subarray(used, used + count);
      used += count;
      return taken;
    },
  };
}

/** The same seed gives the same bytes: SHA-256 of seed and counter. For tests, the demo and simulation only. */
export function seededRandomness(seed: string | number): Randomness {
  let counter = 0;
  let block = Buffer.alloc(0);
  return {
    bytes(count) {
      const parts: Buffer[] = [];
      let missing = count;
      while (missing > 0) {
        if (block.length === 0) {
          block = createHash('sha256').update(`${seed}:${counter}`).digest();
          counter += 1;
        }
        const part = block.subarray(0, missing);
        block = block.subarray(part.length);
        parts.push(part);
        missing -= part.length;
      }
      return Buffer.concat(parts);
    },
  };
}

/**
 * The id of the record `no` of what has the id `uuid`: a file that is read again, perhaps by a database that has forgotten
 * it, gives the same bills the same ids, which gateway, carrier and pay links know them by. Sorts by `no`.
 */
export function idWithin(uuid: string, no: number): string {
  const last = (Number.parseInt(uuid.slice(24), 16) + no) % 2 ** 48;
  return `${uuid.slice(0, 24)}${last.toString(16).padStart(12, '0')}`;
}

/** Crockford's base32: no I, L, O, U, so that it can be read out on the telephone. */
const base32 = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const referenceLength = 26;

/** A UUID as 26 characters of [0-9A-Z]; sorts as the UUID does. */
export function referenceOf(uuid: string): string {
  let value = BigInt(`0x${Buffer.from(parse(uuid)).toString('hex')}`);
  let text = '';
  for (let position = 0; position < referenceLength; position++) {
    text = base32.charAt(Number(value & 31n)) + text;
    value >>= 5n;
  }
  return text;
}

/** The value of each character by its code, also of small letters and of O, I, L written for 0, 1, 1; 255: none. */
const valueOfCode = new Uint8Array(128).fill(255);
for (const [value, character] of [...base32].entries()) {
  valueOfCode[character.charCodeAt(0)] = value;
  valueOfCode[character.toLowerCase().charCodeAt(0)] = value;
}
for (const character of 'Oo') valueOfCode[character.charCodeAt(0)] = 0;
for (const character of 'IiLl') valueOfCode[character.charCodeAt(0)] = 1;

/**
 * Reads what `referenceOf` wrote, also in small letters and with O, I, L written for 0, 1, 1. Refusal REFERENCE_MALFORMED
 * otherwise. A settlement report has a million of them: bits are moved by hand, without large integers.
 */
export function uuidOf(reference: string): string {
  if (reference.length !== referenceLength) throw malformed(reference.length);
  const bytes = new Uint8Array(16);
  let bits = 0;
  let held = 0;
  let filled = 0;
  for (let position = 0; position < reference.length; position++) {
    const value = valueOfCode[reference.charCodeAt(position)] ?? 255;
    // 26 characters hold 130 bits: the first one has but three.
    if (value === 255 || (position === 0 && value > 7)) throw malformed(reference.length);
    bits = (bits << 5) | value;
    held += position === 0 ? 3 : 5;
    if (held >= 8) {
      held -= 8;
      bytes[filled++] = bits >>> held;
      bits &= 0xff >>> (8 - held);
    }
  }
  try {
    return stringify(bytes);
  } catch (cause) {
    throw malformed(reference.length, cause);
  }
}

const malformed = (length: number, cause?: unknown): Refusal =>
  new Refusal('REFERENCE_MALFORMED', 'this is not one of our references', {
    context: { length },
    next: 'A reference has 26 characters, digits and capital letters without I, L, O, U.',
    exitCode: 2,
    cause,
  });

const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

const eightDigits = 62n ** 8n;

/** Bytes as [0-9A-Za-z], always the same length for the same number of bytes: 16 bytes give 22 characters. */
export function base62Of(bytes: Uint8Array): string {
  const length = Math.ceil((bytes.length * 8) / Math.log2(62));
  let value = bytes.length === 0 ? 0n : BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
  let text = '';
  // Eight digits at a time, as a plain number: each step of a BigInt allocates, and every bill has a token.
  while (text.length < length) {
    let digits = Number(value % eightDigits);
    value /= eightDigits;
    for (let place = 0; place < 8 && text.length < length; place += 1) {
      text = base62.charAt(digits % 62) + text;
      digits = Math.floor(digits / 62);
    }
  }
  return text;
}

/** The id behind a reference; null: it is none of ours, such as another system's on the same account. */
export function idBehind(reference: string | null): string | null {
  if (reference === null) return null;
  try {
    return uuidOf(reference);
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}
