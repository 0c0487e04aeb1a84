import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type CsvRecord, CsvSplitter } from '../../files/split.ts';
import { billingFields, billingFile, chunks, cut, type Given, readAll, sample } from './given.ts';

const line = billingFields().join(',');
const good = billingFile([line]);
const badByte = Buffer.of(0xff);

describe('file codes', () => {
  test.each<[string, (Uint8Array | string)[], Given]>([
    ['F_TOO_LARGE', [good], { fileBytesMax: Buffer.byteLength(good) - 1 }],
    ['F_EMPTY', [], {}],
    ['F_EMPTY', ['', ''], {}],
    ['F_EMPTY', ['\ufeff'], {}],
    ['F_ENCODING', [good, badByte], {}],
    ['F_ENCODING', [badByte], {}],
    ['F_ENCODING', [Buffer.of(0xe3, 0x81)], {}],
    ['F_QUOTE', [billingFile([line, 'D,"a"b,'])], {}],
    ['F_QUOTE', [billingFile([line, 'D,a"b,'])], {}],
    ['F_QUOTE', [billingFile([line, 'D,"open'])], {}],
    ['F_QUOTE', [billingFile(['D, "x"'])], {}],
    ['F_QUOTE', [billingFile([`D,"${'x'.repeat(500)}`])], { recordBytesMax: 100 }],
    ['F_QUOTE', [billingFile([`D,${'x'.repeat(500)}"`])], { recordBytesMax: 100 }],
    ['F_RECORD_TOO_LONG', [billingFile(['x'.repeat(101)])], { recordBytesMax: 100 }],
    ['F_RECORD_TOO_LONG', [billingFile(['山'.repeat(34)])], { recordBytesMax: 100 }],
    ['F_RECORD_TOO_LONG', [billingFile([`"${'\n'.repeat(200)}"`])], { recordBytesMax: 100 }],
    ['F_HEADER', [good.replace('H,1', 'H,3')], {}],
    ['F_HEADER', [good.replace('H,1', 'D,1')], {}],
    ['F_HEADER', [good.replace('2026-11-25', '2026-11-31')], {}],
    ['F_HEADER', [good.replace('2026-11-25,1', '2026-11-25,0001')], {}],
    ['F_HEADER', [good.replace('2026-11-25,1', '2026-11-25,0')], {}],
    ['F_HEADER', [good.replace('2026-11-25,1', '2026-11-25,1,')], {}],
    ['F_HEADER', [`\n${good}`], {}],
    ['F_WRONG_MERCHANT', [good], { merchant: 'kita-denryoku' }],
    ['F_KIND', [good.replace(',billing,', ',cancel,')], {}],
    ['F_KIND', [good.replace(',billing,', ',constructor,')], {}],
    ['F_TRAILER_MISSING', [good.slice(0, good.indexOf('T,'))], {}],
    ['F_TRAILER_MISSING', [`${good}${line}\n`], {}],
    ['F_TRAILER_MISSING', [`${good}T,1,2617\n`], {}],
    ['F_TRAILER_MISSING', [good.replace('T,1,', 'T,-1,')], {}],
    ['F_TRAILER_MISSING', [good.replace('T,1,', 'T,1.0,')], {}],
    ['F_TRAILER_MISSING', [good.replace('T,1,2617', 'T,1')], {}],
    ['F_TRAILER_MISSING', ['H,1,minato-gas,billing,2026-11-25,1\n'], {}],
    ['F_COUNT_MISMATCH', [billingFile([line], { count: 2 })], {}],
    ['F_TOTAL_MISMATCH', [billingFile([line], { total: 2618 })], {}],
    ['F_TOTAL_MISMATCH', [billingFile([line.replace('2617', '9'.repeat(400))], { total: 10 })], {}],
  ])('%s', async (code, parts, given) => {
    const whole = Buffer.concat(parts.map((part) => Buffer.from(part)));
    for (const size of [1, 7, 1_000_000]) {
      const { verdict } = await readAll('billing', cut(whole, size), given);
      expect(verdict.fileCode).toBe(code);
    }
  });

  test('the first in the agreed order wins, not the first that is met', async () => {
    const header = 'H,9,nobody,nothing,x,y';
    const everything = [
      `${header}\n${line}\n`,
      `${'x'.repeat(200)}\n`,
      'D,"a"b\n',
      badByte,
      'more\n'.repeat(50),
    ] as const;
    const given = { recordBytesMax: 150 };
    const code = async (parts: readonly (Uint8Array | string)[], more: Given = {}) =>
      (await readAll('billing', chunks(...parts), { ...given, ...more })).verdict.fileCode;
    expect(await code(everything, { fileBytesMax: 300 })).toBe('F_TOO_LARGE');
    expect(await code(everything)).toBe('F_ENCODING');
    expect(await code(everything.slice(0, 3))).toBe('F_QUOTE');
    expect(await code(everything.slice(0, 2))).toBe('F_RECORD_TOO_LONG');
    expect(await code(everything.slice(0, 1))).toBe('F_HEADER');
  });

  test('the place of the fault is told', async () => {
    const encoding = await readAll('billing', chunks(good, Buffer.of(0xe3, 0x81, 0x20)));
    expect(encoding.verdict.encodingOffset).toBe(Buffer.byteLength(good));
    const quote = await readAll('billing', chunks(billingFile([line, `"a\nb",x`, 'D,"a"b'])));
    expect(quote.verdict).toMatchObject({ fileCode: 'F_QUOTE', faultLine: 5 });
    const long = await readAll('billing', chunks(billingFile([line, 'x'.repeat(200)])), {
      recordBytesMax: 150,
    });
    expect(long.verdict.faultLine).toBe(3);
  });

  test('the hash is that of all bytes, refused or not', async () => {
    const { verdict } = await readAll('billing', chunks(badByte, good));
    const again = await readAll('billing', cut(Buffer.concat([badByte, Buffer.from(good)]), 3));
    expect(verdict.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(again.verdict.sha256).toBe(verdict.sha256);
  });
});

describe('valid files', () => {
  test('nothing between header and trailer', async () => {
    const { lines, verdict } = await readAll('billing', chunks(billingFile([])));
    expect(lines).toEqual([]);
    expect(verdict).toMatchObject({ fileCode: null, linesRead: 0, trailer: { count: 0, total: 0 } });
  });

  test('blank lines at the end are no records, in the middle they are refused lines', async () => {
    expect((await readAll('billing', chunks(`${good}\n\r\n`))).verdict.fileCode).toBeNull();
    const { lines, verdict } = await readAll('billing', chunks(billingFile([line, '', line])));
    expect(verdict).toMatchObject({ fileCode: null, linesRead: 3, linesRejected: 1 });
    expect(lines[1]).toEqual({
      line: 3,
      record: 2,
      rejected: { code: 'E_COLUMNS', field: '' },
      billingNumber: '',
      amountText: '',
    });
  });

  test('the total counts records with a wrong number of columns too', async () => {
    const short = line.split(',').slice(0, 9).join(',');
    const { verdict } = await readAll('billing', chunks(billingFile([line, short])));
    expect(verdict).toMatchObject({
      fileCode: null,
      amountSum: 5234,
      amountAccepted: 2617,
      linesRejected: 1,
    });
  });

  test('an unchecked billing number is never given back', async () => {
    const { lines } = await readAll(
      'billing',
      chunks(billingFile([line.replace('B-1', '=1+1').replace('2617', '0')])),
    );
    expect(lines[0]).toMatchObject({
      rejected: { field: 'billing_number' },
      billingNumber: '',
      amountText: '0',
    });
  });

  test('the ends of the numbers tell a file sent again', async () => {
    const { verdict } = await readAll(
      'billing',
      chunks(billingFile([line, line.replace('B-1', 'B-2'), line.replace('B-1', 'B-3')])),
    );
    expect(verdict).toMatchObject({ firstBillingNumber: 'B-1', lastBillingNumber: 'B-3' });
  });

  test('batches come before the file is read to the end', async () => {
    const { lines } = await readAll('billing', chunks(billingFile(Array.from({ length: 25 }, () => line))), {
      batchLines: 10,
    });
    expect(lines.map((one) => one.record)).toEqual(Array.from({ length: 25 }, (_, at) => at + 1));
  });

  test('Shift_JIS with the characters that plain Shift_JIS lacks', async () => {
    // 髙 is FB FC, 﨑 is FA B1: the trail byte of 髙 is itself a lead byte.
    const [before = '', after = ''] = good.split('鈴木 花子');
    const bytes = Buffer.concat([
      Buffer.from(before.replace('11月分', ''), 'latin1'),
      Buffer.of(0xfb, 0xfc, 0xfa, 0xb1),
      Buffer.from(after.replace('11月分', ''), 'latin1'),
    ]);
    for (const size of [1, 2, 3, 1000]) {
      const { lines, verdict } = await readAll('billing', cut(bytes, size), { encoding: 'shift_jis' });
      expect(verdict.fileCode).toBeNull();
      expect(lines[0]?.ok?.customerName).toBe('髙﨑');
    }
  });

  test('the same file with a byte order mark, CRLF, or without its last line end', async () => {
    const text = sample('inbound/billing_minato-gas_20261125_0001.csv').toString().replaceAll('\r', '');
    const plain = await readAll('billing', chunks(text));
    expect(plain.verdict.fileCode).toBeNull();
    const variants = [
      `\ufeff${text}`,
      text.replaceAll('\n', '\r\n'),
      `\ufeff${text.replaceAll('\n', '\r\n')}`,
      text.trimEnd(),
      text
        .split('\n')
        .map((one, at) => (at % 2 === 0 ? `${one}\r` : one))
        .join('\n')
        .replace(/\r$/, ''),
      text
        .split('\n')
        .map((one) =>
          one
            .split(',')
            .map((field) => (one === '' ? '' : `"${field}"`))
            .join(','),
        )
        .join('\n'),
      text
        .split('\n')
        .map((one, at) => (at % 3 === 0 ? one.replace(/([^,]+)$/, '"$1"') : one))
        .join('\n'),
    ];
    for (const variant of variants) {
      const { lines, verdict } = await readAll('billing', chunks(variant));
      expect(lines).toEqual(plain.lines);
      expect({ ...verdict, bytes: 0, sha256: '' }).toEqual({ ...plain.verdict, bytes: 0, sha256: '' });
    }
  });

  test('cut in two at every byte, and into single bytes', async () => {
    const bytes = Buffer.from(`\ufeff${sample('inbound/billing_minato-gas_20261126_0002.csv')}`);
    const whole = await readAll('billing', chunks(bytes));
    expect(whole.verdict.fileCode).toBeNull();
    for (let at = 0; at <= bytes.length; at += 1) {
      expect(await readAll('billing', chunks(bytes.subarray(0, at), bytes.subarray(at)))).toEqual(whole);
    }
    expect(await readAll('billing', cut(bytes, 1))).toEqual(whole);
  });
});

/** Bytes that look like files: fragments that matter, in any order, with noise between. */
const fragment = fc.oneof(
  fc.constantFrom('H,1,minato-gas,billing,2026-11-25,1\n', `${line}\n`, 'T,1,2617\n', 'T,0,0\n'),
  fc.constantFrom(
    '"',
    '""',
    ',',
    '\n',
    '\r\n',
    '\r',
    '\0',
    '\ufeff',
    'D,',
    '4111111111111111',
    '山',
    '"a\nb",',
  ),
  fc.string({ unit: 'binary', maxLength: 5 }),
);
const anyBytes = fc
  .array(
    fc.oneof(
      { weight: 12, arbitrary: fragment.map((text) => Buffer.from(text)) },
      fc.uint8Array({ maxLength: 4 }),
    ),
    {
      maxLength: 12,
    },
  )
  .map((parts) => Buffer.concat(parts));

describe('properties', () => {
  test('any bytes end in a verdict whose lines add up, wherever they are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyBytes,
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom('utf-8' as const, 'shift_jis' as const),
        fc.constantFrom(20, 65_536),
        async (bytes, size, encoding, recordBytesMax) => {
          const given = { encoding, recordBytesMax };
          const { lines, verdict } = await readAll('billing', chunks(bytes), given);
          expect(verdict.linesRead).toBe(verdict.linesAccepted + verdict.linesRejected);
          expect(lines.length).toBe(verdict.linesRead);
          expect(lines.filter((one) => one.ok !== undefined).length).toBe(verdict.linesAccepted);
          const pieces = await readAll('billing', cut(bytes, size), given);
          const stable = ({
            fileCode,
            faultLine,
            encodingOffset,
            sha256,
            bytes: length,
          }: typeof verdict) => ({
            fileCode,
            faultLine,
            encodingOffset,
            sha256,
            length,
          });
          expect(stable(pieces.verdict)).toEqual(stable(verdict));
          if (verdict.fileCode === null) expect(pieces).toEqual({ lines, verdict });
        },
      ),
      { numRuns: 1_000 },
    );
  });

  test('the splitter cuts exactly as csv-parse does', () => {
    const text = fc
      .array(
        fc.constantFrom('a', '山', ',', '"', '""', '\n', '\r\n', '\r', '"a"', '"a,b"', '"x\ny"', '\0', ' '),
        {
          maxLength: 14,
        },
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, fc.integer({ min: 1, max: 5 }), (whole, size) => {
        let expected: string[][] | 'quote';
        try {
          expected = parse(whole, { record_delimiter: ['\r\n', '\n'], relax_column_count: true });
        } catch {
          expected = 'quote';
        }
        const splitter = new CsvSplitter({ recordBytesMax: 1_000, encoding: 'utf-8' });
        const records: CsvRecord[] = [];
        for (let at = 0; at < whole.length; at += size) splitter.push(whole.slice(at, at + size), records);
        splitter.end(records);
        if (expected === 'quote') expect(splitter.fault?.type).toBe('quote');
        else {
          expect(splitter.fault).toBeUndefined();
          expect(records.map((record) => record.fields)).toEqual(expected);
        }
        // An overlong record is only walked through, and must be judged alike.
        const walker = new CsvSplitter({ recordBytesMax: 0, encoding: 'utf-8' });
        for (let at = 0; at < whole.length; at += size) walker.push(whole.slice(at, at + size), []);
        walker.end([]);
        if (expected === 'quote') expect(walker.fault?.type).toBe('quote');
        else expect(walker.fault?.type).not.toBe('quote');
      }),
      { numRuns: 20_000 },
    );
  });
});

test('one line of 256 MB is walked through in the memory of a few chunks', async () => {
  const chunk = Buffer.alloc(1024 * 1024, 'x');
  let peak = 0;
  async function* endless(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('H,1,minato-gas,billing,2026-11-25,1\n');
    for (let count = 0; count < 256; count += 1) {
      yield chunk;
      peak = Math.max(peak, process.memoryUsage().rss);
    }
  }
  const before = process.memoryUsage().rss;
  const { verdict } = await readAll('billing', endless());
  expect(verdict).toMatchObject({ fileCode: 'F_RECORD_TOO_LONG', faultLine: 2 });
  expect(peak - before).toBeLessThan(150 * 1024 * 1024);
});
