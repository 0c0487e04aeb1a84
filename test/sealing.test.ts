import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { seededRandomness } from '../billing/ids.ts';
import { deriveKeys, digest, makeSealer, open, SealBroken, seal } from '../billing/sealing.ts';

const keys = deriveKeys('a secret of at least thirty-two characters');
const randomness = seededRandomness(1);

describe('sealed values', () => {
  test('open to what went in', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string(), (text, place) => {
        const sealed = seal(keys.contact, text, place, randomness);
        expect(open(keys.contact, sealed, place)).toEqual(Buffer.from(text, 'utf8'));
        expect(sealed.length).toBe(29 + Buffer.byteLength(text));
        expect(sealed[0]).toBe(1);
      }),
    );
  });

  test('are refused when any byte was changed, cut off or moved elsewhere', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 80 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (body, at, flip) => {
          const sealed = seal(keys.contact, body, 'merchant 1', randomness);
          const position = at % sealed.length;
          const changed = Buffer.from(sealed);
          changed[position] = (changed[position] ?? 0) ^ flip;
          expect(() => open(keys.contact, changed, 'merchant 1')).toThrow(SealBroken);
          expect(() => open(keys.contact, sealed.subarray(0, position), 'merchant 1')).toThrow(SealBroken);
          expect(() => open(keys.contact, sealed, 'merchant 2')).toThrow(SealBroken);
          expect(() => open(keys.archive, sealed, 'merchant 1')).toThrow(SealBroken);
        },
      ),
    );
  });

  test('never look the same twice', () => {
    expect(seal(keys.contact, 'x', '', randomness)).not.toEqual(seal(keys.contact, 'x', '', randomness));
  });

  test('stay readable after the secret was rotated', () => {
    const sealed = makeSealer(keys, randomness).seal('contact', '佐藤', 'merchant 1');
    const next = deriveKeys('another secret of thirty-two characters', 2);
    const sealer = makeSealer(next, randomness, [keys]);
    expect(sealer.keyId).toBe(2);
    expect(sealer.open('contact', sealed, 'merchant 1')).toBe('佐藤');
    expect(() => open(next.contact, sealed, 'merchant 1')).toThrow('there is no key with id 1');
  });
});

test('each purpose has its own key, the same secret gives the same ones, and none shows in a log', () => {
  const texts = Object.values(keys).map(({ key }) => key.export().toString('hex'));
  expect(new Set(texts).size).toBe(texts.length);
  expect(deriveKeys('a secret of at least thirty-two characters').link.key.equals(keys.link.key)).toBe(true);
  expect(inspect(keys, { depth: 9 }) + JSON.stringify(keys)).not.toContain(texts[0]);
});

test('digests are 16 bytes, equal for equal texts, and differ by key', () => {
  const one = digest(keys.digest, '+819012345678');
  expect(one.length).toBe(16);
  expect(digest(keys.digest, '+819012345678')).toEqual(one);
  expect(digest(keys.link, '+819012345678')).not.toEqual(one);
});
