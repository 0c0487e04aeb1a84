import { createHash } from 'node:crypto';

/** Draws of one part of the world. Parts have streams of their own, so that a new draw in one moves nothing in another. */
export interface Chance {
  /** From 0 up to, not including, 1. */
  next(): number;
  /** True with this probability. A probability of 0 draws nothing. */
  hits(probability: number): boolean;
  /** A whole number from `least` to `most`, both included. */
  between(least: number, most: number): number;
  oneOf<T>(items: readonly T[]): T;
}

export function chanceOf(seed: number, part: string): Chance {
  // Four words of SHA-256 start xoshiro128**: quick, and the same on every machine.
  const digest = createHash('sha256').update(`${seed}|${part}`).digest();
  let a = digest.readUInt32LE(0);
  let b = digest.readUInt32LE(4);
  let c = digest.readUInt32LE(8);
  let d = digest.readUInt32LE(12) | 1;
  const next = (): number => {
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = (d << 11) | (d >>> 21);
    return result / 2 ** 32;
  };
  const between = (least: number, most: number): number => least + Math.floor(next() * (most - least + 1));
  return {
    next,
    hits: (probability) => probability > 0 && next() < probability,
    between,
    oneOf(items) {
      const item = items[between(0, items.length - 1)];
      if (item === undefined) throw new Error('impossible state: drawn from nothing');
      return item;
    },
  };
}
