import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  decodeText,
  encodeText,
  FatalDecoder,
  UndecodableBytes,
  withoutUnwritable,
} from '../../files/decode.ts';
import { cut } from './given.ts';

test.each<['utf-8' | 'shift_jis', string, number]>([
  ['utf-8', 'ff', 0],
  ['utf-8', '41ff', 1],
  ['utf-8', 'e38182e381', 3],
  ['utf-8', 'e3818241e320', 4],
  ['utf-8', 'efbbbf41c0af', 4],
  ['utf-8', '41eda080', 1],
  ['utf-8', 'f09f9880f09f98', 4],
  ['shift_jis', '41fd', 1],
  ['shift_jis', '8de8fbfcfb', 4],
  ['shift_jis', '8de8fb20', 2],
  ['shift_jis', '82a082', 2],
])('%s %s is bad from byte %i', async (encoding, hex, offset) => {
  const bytes = Buffer.from(hex, 'hex');
  for (const size of [1, 2, 3, 100]) {
    const decode = async () => {
      for await (const _ of decodeText(cut(bytes, size), encoding));
    };
    await expect(decode()).rejects.toSatisfy(
      (error) => error instanceof UndecodableBytes && error.offset === offset,
    );
  }
});

test('any text comes back, however it is cut', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 1, max: 5 }), (text, size) => {
      const decoder = new FatalDecoder('utf-8');
      const bytes = Buffer.from(`\ufeff${text}`);
      let back = '';
      for (let at = 0; at < bytes.length; at += size) back += decoder.write(bytes.subarray(at, at + size));
      expect(back + decoder.end()).toBe(text);
    }),
  );
});

test('any bytes give the same text or the same offset, however they are cut', () => {
  const outcome = (encoding: 'utf-8' | 'shift_jis', bytes: Uint8Array, size: number): string => {
    const decoder = new FatalDecoder(encoding);
    let text = '';
    try {
      for (let at = 0; at < bytes.length; at += size) text += decoder.write(bytes.subarray(at, at + size));
      return text + decoder.end();
    } catch (error) {
      if (!(error instanceof UndecodableBytes)) throw error;
      return `bad at ${error.offset}`;
    }
  };
  const byte = fc.oneof(
    fc.constantFrom(0x41, 0x82, 0xa0, 0xfb, 0xfc, 0xb1, 0xe3, 0x81, 0x20, 0x0a),
    fc.nat(255),
  );
  fc.assert(
    fc.property(
      fc.constantFrom('utf-8' as const, 'shift_jis' as const),
      fc.array(byte, { maxLength: 12 }).map((bytes) => Uint8Array.from(bytes)),
      fc.integer({ min: 1, max: 5 }),
      (encoding, bytes, size) => {
        expect(outcome(encoding, bytes, size)).toBe(outcome(encoding, bytes, bytes.length + 1));
      },
    ),
    { numRuns: 5_000 },
  );
});

test('every character of CP932 comes back, but for a firm’s own ones, which are told', () => {
  let characters = 0;
  for (let lead = 0x81; lead <= 0xfc; lead += 1) {
    for (let trail = 0x40; trail <= 0xfc; trail += 1) {
      let text: string;
      try {
        text = new TextDecoder('shift_jis', { fatal: true }).decode(Uint8Array.of(lead, trail));
      } catch (error) {
        expect(error).toBeInstanceOf(TypeError);
        continue;
      }
      if (text.length !== 1) continue;
      const isOwn = lead >= 0xf0 && lead <= 0xf9;
      expect(withoutUnwritable(text, 'shift_jis')).toBe(isOwn ? '\u0080' : text);
      if (isOwn) continue;
      characters += 1;
      expect(new FatalDecoder('shift_jis').write(encodeText(text, 'shift_jis'))).toBe(text);
    }
  }
  expect(characters).toBeGreaterThan(7_000);
});

test('Shift_JIS goes out as the bytes it came in as', () => {
  const text = '髙﨑 ① ㈱ ～ － ｱｲｳ ﾊﾞ 鈴木\\~ ∥';
  const bytes = encodeText(text, 'shift_jis');
  expect(new FatalDecoder('shift_jis').write(bytes)).toBe(text);
  expect(encodeText('髙﨑', 'shift_jis').toString('hex')).toBe('fbfcfab1');
  // Characters that stand twice in CP932 go out as Windows writes them.
  expect(encodeText('∵￢纊', 'shift_jis').toString('hex')).toBe('81e681cafa5c');
  expect(() => encodeText('𠮷', 'shift_jis')).toThrow('U+20BB7');
  expect(() => encodeText('é', 'shift_jis')).toThrow('U+00E9');
});
