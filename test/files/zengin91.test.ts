import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { resolveDebitDay } from '../../files/zengin91/debit-day.ts';
import { type DebitFile, type DebitRecord, records, totalsOf } from '../../files/zengin91/file.ts';
import { isKana, kanaBytes, kanaText, toKana } from '../../files/zengin91/kana.ts';
import { readDebitRecords, readDebits } from '../../files/zengin91/read.ts';
import { reconcileDebits } from '../../files/zengin91/reconcile.ts';
import { writeDebits } from '../../files/zengin91/write.ts';

const header = {
  consignorCode: '1234567890',
  consignorName: 'ｻｸﾗｼｽｲﾄﾞｳｷﾖｸ',
  debitDay: '1228',
  bank: '0001',
  bankName: 'ﾐｽﾞﾎ',
  branch: '001',
  branchName: '',
  accountType: '1',
  account: '1234567',
};
const debit = (changes: Partial<DebitRecord> = {}): DebitRecord => ({
  bank: '0001',
  bankName: '',
  branch: '103',
  branchName: '',
  accountType: '1',
  account: '7000111',
  holder: 'ﾀﾅｶ ﾐｻｷ',
  amount: 3729,
  newCode: '1',
  customerNumber: '0000700003',
  resultCode: '0',
  ...changes,
});
const fileOf = (
  debits: readonly DebitRecord[],
  isResult = false,
  changes: Partial<DebitFile> = {},
): DebitFile => ({
  framing: '\r\n',
  endsWithFraming: true,
  batches: [{ header, debits, trailer: totalsOf(debits, isResult) }],
  ...changes,
});
const two = [debit(), debit({ customerNumber: '0000700006', account: '7000222', amount: 4356 })];

describe('to the byte', () => {
  test('every record has 120 bytes, and each field its place', () => {
    const offsets = Object.fromEntries(
      Object.entries(records).map(([type, spans]) => {
        let at = 0;
        const places = spans.map(({ name, bytes }) => {
          at += bytes;
          return [name, at - bytes] as const;
        });
        expect(at).toBe(120);
        return [type, Object.fromEntries(places)];
      }),
    );
    expect(offsets['1']).toMatchObject({
      consignorCode: 4,
      consignorName: 14,
      debitDay: 54,
      bank: 58,
      bankName: 62,
      branch: 77,
      branchName: 80,
      accountType: 95,
      account: 96,
      '': 103,
    });
    expect(offsets['2']).toMatchObject({
      bank: 1,
      bankName: 5,
      branch: 20,
      branchName: 23,
      accountType: 42,
      account: 43,
      holder: 50,
      amount: 80,
      newCode: 90,
      customerNumber: 91,
      resultCode: 111,
      '': 112,
    });
    expect(offsets['8']).toMatchObject({
      count: 1,
      amount: 7,
      paidCount: 19,
      paidAmount: 25,
      unpaidCount: 37,
      unpaidAmount: 43,
      '': 55,
    });
  });

  test('a request', () => {
    const bytes = writeDebits(fileOf(two));
    const lines = bytes.toString('latin1').split('\r\n');
    expect(lines.map((line) => line.length)).toEqual([120, 120, 120, 120, 120, 0]);
    expect(kanaText(Buffer.from(lines[0] ?? '', 'latin1'))).toBe(
      `19101234567890${'ｻｸﾗｼｽｲﾄﾞｳｷﾖｸ'.padEnd(40)}12280001${'ﾐｽﾞﾎ'.padEnd(15)}001${' '.repeat(15)}11234567${' '.repeat(17)}`,
    );
    expect(kanaText(Buffer.from(lines[1] ?? '', 'latin1'))).toBe(
      `20001${' '.repeat(15)}103${' '.repeat(15)}${' '.repeat(4)}17000111${'ﾀﾅｶ ﾐｻｷ'.padEnd(30)}00000037291${'0000700003'.padEnd(20)}0${' '.repeat(8)}`,
    );
    expect(lines[3]).toBe(`8000002000000008085${'0'.repeat(36)}${' '.repeat(65)}`);
    expect(lines[4]).toBe(`9${' '.repeat(119)}`);
    // ｶﾞ is two bytes: B6 DE.
    expect(kanaBytes('ｶﾞ').toString('hex')).toBe('b6de');
  });

  test('whatever is written is read back, in every framing', () => {
    const digits = (length: number) => fc.stringMatching(new RegExp(`^[0-9]{${length}}$`));
    const name = (length: number) =>
      fc.constantFrom('', 'ﾀﾅｶ ﾊﾅｺ', 'ﾔﾏﾀﾞ', 'A-1').filter((text) => text.length <= length);
    const anyDebit = fc.record({
      bank: digits(4),
      bankName: name(15),
      branch: digits(3),
      branchName: name(15),
      accountType: digits(1),
      account: digits(7),
      holder: name(30),
      amount: fc.integer({ min: 0, max: 9_999_999_999 }),
      newCode: digits(1),
      customerNumber: fc.stringMatching(/^[0-9A-Za-z-]{1,20}$/),
      resultCode: fc.constantFrom('0', '1', '9', 'E', 'N'),
    });
    const file = fc
      .record({
        framing: fc.constantFrom('' as const, '\r\n' as const, '\n' as const, '\r' as const),
        batches: fc.array(
          fc
            .array(anyDebit, { maxLength: 4 })
            .map((debits) => ({ header, debits, trailer: totalsOf(debits, true) })),
          { minLength: 1, maxLength: 3 },
        ),
        endsWithFraming: fc.boolean(),
      })
      .map((each) => ({ ...each, endsWithFraming: each.endsWithFraming && each.framing !== '' }));
    fc.assert(
      fc.property(file, fc.boolean(), (each, dosEnd) => {
        const bytes = writeDebits(each);
        expect(readDebits(dosEnd ? Buffer.concat([bytes, Buffer.of(0x1a)]) : bytes)).toEqual({ file: each });
        expect(writeDebits(each)).toEqual(bytes);
      }),
      { numRuns: 200 },
    );
  });

  test('any bytes are a file or a fault, and a file is written as it was read', () => {
    const good = writeDebits(fileOf(two));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5 }), fc.nat(good.length), fc.nat(130), (noise, at, gone) => {
        for (const bytes of [noise, Buffer.concat([good.subarray(0, at), noise, good.subarray(at + gone)])]) {
          const { file, fault } = readDebits(bytes);
          expect(file === undefined).toBe(fault !== undefined);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('faults', () => {
  const good = writeDebits(fileOf(two)).toString('latin1');
  const rows = good.split('\r\n');
  const of = (...lines: (string | undefined)[]) => lines.join('\r\n');
  const [one, first, second, trailer, end] = rows;
  test.each<[string, number, string]>([
    ['EMPTY', 0, ''],
    ['EMPTY', 0, '\x1a'],
    ['LENGTH', 5, good.slice(0, -3)],
    ['LENGTH', 2, of(one, `${first} `, `${second?.slice(1)}`, trailer, end)],
    ['CODE', 1, good.replace('1910', '1911')],
    ['CODE', 1, `\xf1${good.slice(1)}`],
    ['KIND', 1, good.replace('1910', '1210')],
    ['RECORD_TYPE', 2, of(one, `3${first?.slice(1)}`, second, trailer, end)],
    ['ORDER', 1, of(first, second, trailer, end)],
    ['ORDER', 2, of(one, one, first, second, trailer, end)],
    ['ORDER', 4, of(one, first, second, end)],
    ['ORDER', 4, of(one, first, second, trailer)],
    ['ORDER', 6, of(one, first, second, trailer, end, end)],
    ['ORDER', 1, of(end)],
    ['CHARACTER', 2, good.replace('\xc0\xc5\xb6', '\xc0\xa0\xb6')],
    // A small kana, and a prolonging sign.
    ['CHARACTER', 2, good.replace('\xc0\xc5\xb6', '\xc0\xa7\xb6')],
    ['CHARACTER', 2, good.replace('\xc0\xc5\xb6', '\xc0\xb0\xb6')],
    ['FORMAT', 2, good.replace('0000003729', '00000 3729')],
    ['FORMAT', 2, of(one, `${first?.slice(0, 119)}x`, second, trailer, end)],
    ['COUNT', 4, good.replace('8000002', '8000003')],
    ['AMOUNT', 4, good.replace('000000008085', '000000008084')],
  ])('%s in record %i', (code, record, text) => {
    const { fault } = readDebits(Buffer.from(text, 'latin1'));
    expect(fault).toMatchObject({ code, record });
  });
});

describe('kana', () => {
  test.each<[string, string]>([
    ['ガス', 'ｶﾞｽ'],
    ['パーティー', 'ﾊﾟ-ﾃｲ-'],
    ['キャッシュ', 'ｷﾔﾂｼﾕ'],
    ['ｷｬｯｼｭ', 'ｷﾔﾂｼﾕ'],
    ['たなか はなこ', 'ﾀﾅｶ ﾊﾅｺ'],
    ['ヴァイオリン　ａｂｃ１２', 'ｳﾞｱｲｵﾘﾝ ABC12'],
    ['ｶﾞｽ(ｶ).-', 'ｶﾞｽ(ｶ).-'],
    ['カ゛', 'ｶﾞ'],
    ['ハ\u309a', 'ﾊﾟ'],
    ['（カ）', '(ｶ)'],
  ])('%s is %s', (text, kana) => {
    expect(toKana(text, 'party')).toEqual({ text: kana });
    expect(isKana(kana, 'party')).toBe(true);
  });

  test.each<[string, string]>([
    ['田中', 'U+7530 cannot stand in it'],
    ['ｱ,ｲ', 'U+002C cannot stand in it'],
    ['ヲ', 'U+30F2 cannot stand in it'],
    ['ﾅﾞ', 'U+FF9E marks nothing'],
    ['ｱﾟ', 'U+FF9F marks nothing'],
    ['ﾞ', 'U+FF9E marks nothing'],
    ['ｶﾞﾞ', 'U+FF9E marks nothing'],
    ['ヷ', 'U+30F7 cannot stand in it'],
    ['「ｱ」', 'U+300C cannot stand in it'],
  ])('%s is refused', (text, refused) => {
    expect(toKana(text, 'party')).toEqual({ refused });
  });

  test('banks take a hyphen and no other sign, and ｦ is a matter of profile', () => {
    expect(toKana('ﾐｽﾞﾎ-ｷﾞﾝｺｳ', 'bank').text).toBe('ﾐｽﾞﾎ-ｷﾞﾝｺｳ');
    expect(toKana('ｷﾞﾝｺｳ.', 'bank').refused).toBeDefined();
    expect(toKana('ヲ', 'party', { allowsWo: true })).toEqual({ text: 'ｦ' });
  });

  test('what is too long is never cut, not even between a base and its mark', () => {
    const long = debit({ holder: `${'ｱ'.repeat(29)}ｶﾞ` });
    expect(() => writeDebits(fileOf([long]))).toThrow('holder is longer than 30 bytes');
    expect(() => writeDebits(fileOf([debit({ amount: 10_000_000_000 })]))).toThrow(
      'amount has more than 10 digits',
    );
    expect(() => writeDebits(fileOf([debit({ bank: '1' })]))).toThrow('bank must have 4 digits');
    expect(() => writeDebits(fileOf([debit({ holder: '田中' })]))).toThrow('holder has characters');
    expect(() => writeDebits(fileOf([debit({ customerNumber: '' })]))).toThrow('customerNumber');
  });
});

test.each<[string, string, 'forward' | 'nearest', string | null]>([
  ['1228', '2026-11-25', 'forward', '2026-12-28'],
  ['0105', '2026-12-20', 'forward', '2027-01-05'],
  ['1225', '2026-12-25', 'forward', '2026-12-25'],
  ['1224', '2026-12-25', 'forward', '2027-12-24'],
  ['1228', '2027-01-04', 'nearest', '2026-12-28'],
  ['0105', '2026-12-28', 'nearest', '2027-01-05'],
  ['1228', '2026-12-30', 'nearest', '2026-12-28'],
  ['0229', '2028-02-01', 'forward', '2028-02-29'],
  ['0229', '2027-12-01', 'forward', '2028-02-29'],
  ['0229', '2026-12-01', 'forward', null],
  ['0229', '2027-03-01', 'nearest', null],
  ['0229', '2028-03-03', 'nearest', '2028-02-29'],
  ['1331', '2026-12-01', 'forward', null],
  ['0431', '2026-04-01', 'nearest', null],
  ['12 8', '2026-12-01', 'forward', null],
])('the debit day %s seen from %s, %s, is %s', (monthDay, reference, towards, date) => {
  expect(resolveDebitDay(monthDay, reference, towards)).toBe(date);
});

describe('a result against its request', () => {
  const request = fileOf([...two, debit({ customerNumber: '0000700009' })]);
  const answered = (codes: string, change: (debits: DebitRecord[]) => DebitRecord[] = (debits) => debits) =>
    fileOf(
      change(
        (request.batches[0]?.debits ?? []).map((each, at) => ({ ...each, resultCode: codes.charAt(at) })),
      ),
      true,
    );

  test('every debit has its outcome, in the order of the request, whatever the order of the answers', () => {
    const straight = reconcileDebits(request, answered('01N'));
    expect(straight.matched?.map(({ index, outcome }) => [index, outcome])).toEqual([
      [0, 'paid'],
      [1, 'failed'],
      [2, 'unknown'],
    ]);
    expect(
      reconcileDebits(
        request,
        answered('01N', (debits) => debits.reverse()),
      ),
    ).toEqual(straight);
    expect(reconcileDebits(request, answered('07E')).matched?.map(({ outcome }) => outcome)).toEqual([
      'paid',
      'quarantined',
      'failed',
    ]);
  });

  const header2 = (changes: object): DebitFile => ({
    ...answered('000'),
    batches: answered('000').batches.map((batch) => ({ ...batch, header: { ...batch.header, ...changes } })),
  });
  const trailer2 = (changes: object): DebitFile => ({
    ...answered('010'),
    batches: answered('010').batches.map((batch) => ({
      ...batch,
      trailer: { ...batch.trailer, ...changes },
    })),
  });
  test.each<[string, DebitFile, number]>([
    ['BATCHES_DIFFER', { ...request, batches: [...request.batches, ...request.batches] }, 0],
    ['HEADER_DIFFERS', header2({ consignorCode: '1234567891' }), 0],
    ['HEADER_DIFFERS', header2({ debitDay: '1229' }), 0],
    ['HEADER_DIFFERS', header2({ bank: '0002' }), 0],
    ['TOTALS_DO_NOT_ADD_UP', request, 0],
    ['TOTALS_DO_NOT_ADD_UP', trailer2({ unpaidAmount: 4355 }), 0],
    ['TOTALS_DIFFER', trailer2({ paidCount: 1, unpaidCount: 2 }), 0],
    [
      'DEBIT_UNKNOWN',
      answered('000', ([a, b, c]) => [a, b, { ...c, account: '9999999' }] as DebitRecord[]),
      3,
    ],
    ['DEBIT_UNKNOWN', answered('000', (all) => [...all, debit({ customerNumber: 'X' })]), 4],
    ['DEBIT_TWICE', answered('000', ([a, , c]) => [a, a, c] as DebitRecord[]), 2],
    ['DEBIT_MISSING', answered('000', (all) => all.slice(1)), 0],
    [
      'AMOUNT_CHANGED',
      answered('000', ([a, ...rest]) => [{ ...a, amount: 3728 }, ...rest] as DebitRecord[]),
      1,
    ],
  ])('%s', (rejected, result, record) => {
    expect(reconcileDebits(request, result)).toEqual({
      rejected,
      batch: rejected === 'BATCHES_DIFFER' ? 0 : 1,
      record,
    });
  });
});

describe('record by record', () => {
  async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
    for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size);
  }
  const readAll = async (bytes: Buffer, size: number) => {
    const all = [];
    for await (const batch of readDebitRecords(inPieces(bytes, size))) all.push(...batch);
    return all;
  };

  test.each(['', '\r\n', '\n', '\r'] as const)(
    'a file is the same in any pieces, framed by %j',
    async (framing) => {
      for (const endsWithFraming of framing === '' ? [false] : [true, false])
        for (const dosEnd of [true, false]) {
          const bytes = writeDebits(fileOf(two, true, { framing, endsWithFraming }));
          const whole = dosEnd ? Buffer.concat([bytes, Buffer.of(0x1a)]) : bytes;
          for (const size of [1, 7, 120, 121, 122, 500, 10_000]) {
            const all = await readAll(whole, size);
            expect(all.map(({ type }) => type).join('')).toBe('12289');
            expect(all.flatMap((each) => (each.type === '2' ? [each.debit] : []))).toEqual(two);
          }
        }
    },
  );

  test('what the whole file is refused for, it is refused for piece by piece', async () => {
    const good = writeDebits(fileOf(two)).toString('latin1');
    const wrong = [
      '',
      good.slice(0, -3),
      good.replace('1910', '1911'),
      good.replace('1910', '1210'),
      good.replace('0000003729', '00000 3729'),
      good.replace('8000002', '8000003'),
      good.slice(0, -122),
      `${good}${good}`,
    ];
    for (const text of wrong) {
      const bytes = Buffer.from(text, 'latin1');
      const { fault } = readDebits(bytes);
      for (const size of [1, 122, 10_000])
        await expect(readAll(bytes, size)).rejects.toMatchObject({ fault: { code: fault?.code } });
    }
  });
});
