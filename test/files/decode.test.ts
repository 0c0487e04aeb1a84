import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeText, encodeText, FatalDecoder, UndecodableBytes } from '../../files/decode.ts';
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
