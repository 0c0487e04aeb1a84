import fc from 'fast-check';
import { Temporal } from 'temporal-polyfill';
import { describe, expect, test } from 'vitest';
import { fixedClock } from '../billing/clock.ts';
import {
  base62Of,
  referenceOf,
  seededRandomness,
  systemRandomness,
  timeOrderedIds,
  uuidOf,
} from '../billing/ids.ts';

describe('time-ordered ids', () => {
  test('grow while the clock stands, goes on, and goes back', () => {
    const clock = fixedClock('2026-11-25T00:00:00Z');
    const ids = timeOrderedIds(clock, systemRandomness());
    const made: string[] = [];
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 1_000; n++) made.push(ids.uuid());
      clock.advance(round === 1 ? -60_000 : 5);
    }
    expect(made).toEqual([...made].sort());
    expect(new Set(made).size).toBe(made.length);
  });

  test('carry the milliseconds of the clock and the version', () => {
    const clock = fixedClock('2026-11-25T01:02:03.456Z');
    const uuid = timeOrderedIds(clock, systemRandomness()).uuid();
    const milliseconds = Number.parseInt(uuid.replaceAll('-', '').slice(0, 12), 16);
    expect(Temporal.Instant.fromEpochMilliseconds(milliseconds).toString()).toBe('2026-11-25T01:02:03.456Z');
    expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  test('the same seed and clock give the same ids, another seed others', () => {
    const run = (seed: number) => {
      const ids = timeOrderedIds(fixedClock('2026-11-25T00:00:00Z'), seededRandomness(seed));
      return Array.from({ length: 50 }, () => ids.uuid());
    };
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
  });
});

describe('randomness', () => {
  test('bytes handed out earlier are not written over', () => {
    const randomness = systemRandomness();
    const first = randomness.bytes(12);
    const before = Buffer.from(first);
    for (let n = 0; n < 5_000; n++) randomness.bytes(12);
    expect(first).toEqual(before);
  });

  test('seeded bytes do not depend on how they are asked for', () => {
    const whole = seededRandomness('seed').bytes(100);
    const parts = seededRandomness('seed');
    expect(Buffer.concat([parts.bytes(1), parts.bytes(33), parts.bytes(66)])).toEqual(whole);
  });
});

describe('references', () => {
  const uuid7 = fc.uuid({ version: 7 });

  test('26 characters that lead back and sort as the ids do', () => {
    fc.assert(
      fc.property(uuid7, uuid7, (one, other) => {
        expect(referenceOf(one)).toMatch(/^[0-7][0-9A-HJKMNP-TV-Z]{25}$/);
        expect(uuidOf(referenceOf(one))).toBe(one);
        expect(referenceOf(one) < referenceOf(other)).toBe(one < other);
      }),
    );
  });

  test('known ones', () => {
    expect(referenceOf('00000000-0000-0000-0000-000000000000')).toBe('0'.repeat(26));
    expect(referenceOf('ffffffff-ffff-ffff-ffff-ffffffffffff')).toBe(`7${'Z'.repeat(25)}`);
  });

  test('read as people write them', () => {
    const reference = referenceOf('01942f5a-6c00-7000-8000-000000000001');
    expect(uuidOf(reference.toLowerCase().replaceAll('0', 'o').replaceAll('1', 'l'))).toBe(
      '01942f5a-6c00-7000-8000-000000000001',
    );
  });

  test.each(['', 'ABC', '8ZZZZZZZZZZZZZZZZZZZZZZZZZ', 'U'.repeat(26), '0'.repeat(27), '7'.repeat(26)])(
    '%s is refused',
    (text) => {
      expect(() => uuidOf(text)).toThrow(expect.objectContaining({ code: 'REFERENCE_MALFORMED' }));
    },
  );
});

test.each([
  [Buffer.alloc(16), '0'.repeat(22)],
  [Buffer.alloc(16, 0xff), '7n42DGM5Tflk9n8mt7Fhc7'],
  [Buffer.from([61]), '0z'],
  [Buffer.alloc(0), ''],
])('base62 of %s', (bytes, text) => {
  expect(base62Of(bytes)).toBe(text);
});
