import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canEncode } from '../../files/decode.ts';
import { fieldsOf } from '../../files/layouts/fields.ts';
import { type Layout, parseLayout } from '../../files/layouts/layout.ts';
import { readRows } from '../../files/layouts/rows.ts';
import { LayoutRefusal } from '../../files/layouts/spec.ts';
import { billingBytes, outwardName, writeOutward } from '../../files/layouts/write.ts';
import { receiptFileRow, receiptLineRow } from '../../files/standard/write.ts';
import { billingFields, chunks, cut, readAll, readingBy, sampleLayout, sampleOf } from './given.ts';

/** As the samples are, and in every other way that a file can be laid out. */
const layouts: Record<string, Layout> = {
  'kita-denryoku': sampleLayout('kita-denryoku', (text) =>
    // The sample makes its description of a number; here any text must come back.
    text.replace('{ field: description, text: "ご使用量 {} kWh" }', 'description'),
  ),
  'kita-denryoku as it is': sampleLayout('kita-denryoku'),
  'sakura-suido': sampleLayout('sakura-suido'),
  'titles, tabs, every field quoted': parseLayout(
    `
layout: tabs/1
format: csv
delimiter: "\\t"
quote: "'"
quote_all: true
titles: true
names: { billing: "tabs-{date}.tsv" }
billing:
  no: billing_number
  unread: ~
  customer: customer_number
  name: customer_name
  yen: { field: amount, thousands: "." }
  rate: { field: tax_rate, values: { "0.10": 10, "0.08": 8, none: 0 } }
  month: { field: billing_period, date: MM-YYYY }
  due: { field: due_date, date: DD.MM.YYYY }
  text: description
result: { no: billing_number, what: outcome, when: { field: known_at, date: "YYYY/MM/DD HH:mm:ss" }, yen: amount }
`,
    'tabs.yaml',
  ),
  'columns by number with record types': parseLayout(
    `
layout: types/3
encoding: shift_jis
newline: crlf
format: csv
delimiter: ";"
record_type: { column: 2, header: HD, trailer: TR, billing: BI, result: RE, receipt: RC }
header: { business_date: { column: 1, date: YYYYMMDD }, sequence: { column: 4 }, merchant: { column: 3, equals: ours } }
trailer: { count: { column: 1 }, amount: { column: 3 } }
billing: { 1: billing_number, 3: customer_number, 4: { field: customer_name, trim: both }, 5: phone, 6: email,
  7: amount, 8: tax_rate, 9: { field: tax_amount, zero_filled: true }, 10: billing_period, 11: due_date, 12: collection, 13: description, 14: ~ }
result: { 1: billing_number, 3: customer_number, 4: outcome, 5: reason, 6: method, 7: amount, 8: amount_received,
  9: collected_on, 10: known_at, 11: reference }
receipt: { 1: record, 3: input_name, 4: sha256, 5: status, 6: file_code, 7: lines_read, 8: lines_accepted,
  9: amount_accepted, 10: lines_rejected, 11: line, 12: billing_number, 13: outcome, 14: code, 15: field, 16: message }
`,
    'types.yaml',
  ),
  'no quotes, no titles, no totals': parseLayout(
    `
layout: bare/1
format: csv
delimiter: "|"
quote: none
billing: { 1: billing_number, 2: customer_number, 3: customer_name, 4: amount, 5: billing_period, 6: due_date }
constants: { tax_rate: 8, collection: link, description: ガス料金 }
`,
    'bare.yaml',
  ),
  'fixed width in UTF-8 without record types': parseLayout(
    `
layout: bytes/1
format: fixed
record_bytes: 120
names: { billing: "{date}_{seq4}", result: "R{seq4}" }
billing:
  customer_name: { at: 1, bytes: 40, trim: right }
  billing_number: { at: 41, bytes: 20, trim: both }
  customer_number: { at: 61, bytes: 20, trim: left }
  amount: { at: 81, bytes: 12, thousands: ",", trim: left }
  billing_period: { at: 93, bytes: 7 }
  due_date: { at: 100, bytes: 8, date: DDMMYYYY }
  collection: { at: 108, bytes: 2, values: { "--": link, "++": auto } }
constants: { tax_rate: 0 }
result:
  billing_number: { at: 1, bytes: 20, trim: right }
  outcome: { at: 31, bytes: 1, values: { pending: p, paid_preliminary: a, preliminary_cancelled: b, paid: P, unpaid: U, cancelled: C } }
  amount: { at: 41, bytes: 10, zero_filled: true }
  collected_on: { at: 51, bytes: 8, date: YYYYMMDD }
`,
    'bytes.yaml',
  ),
};
const every = Object.entries(layouts);

const spaces = /^[ \u3000]+|[ \u3000]+$/g;
const textOf = (layout: Layout, charactersMax: number) =>
  fc
    .array(fc.constantFrom(...'ｶﾞAz9 山髙﨑①∑ー・é😀,;|\t"\'!'), { minLength: 1, maxLength: charactersMax })
    .map((characters) => characters.filter((each) => canEncode(each, layout.encoding)).join(''))
    .map((text) => text.replaceAll('\t', '').replace(spaces, ''))
    .map((text) => (layout.name === 'bare/1' ? text.replaceAll('|', '') : text));

/** Lines that the layout can carry: what it does not name is blank, what it says of every line is that. */
function lineOf(layout: Layout, name: string): fc.Arbitrary<string[]> {
  const digits = (max: number) => fc.integer({ min: 1, max }).map(String);
  const pad = (value: number, length = 2) => String(value).padStart(length, '0');
  const constant: Record<string, Partial<Record<string, string>>> = {
    'kita-denryoku': { tax_rate: '10', email: '' },
    'sakura-suido': { tax_rate: '10', description: '水道料金', email: '' },
    bare: {
      tax_rate: '8',
      collection: 'link',
      description: 'ガス料金',
      phone: '',
      email: '',
      tax_amount: '',
    },
    bytes: { tax_rate: '0', phone: '', email: '', tax_amount: '', description: '' },
    tabs: { phone: '', email: '', tax_amount: '', collection: '' },
  };
  const own = constant[layout.name.split('/')[0] ?? ''] ?? {};
  const made: Record<string, fc.Arbitrary<string>> = {
    billing_number: fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/),
    // Ten bytes, all of them filled, where nothing is trimmed.
    customer_number: fc.stringMatching(/^[A-Za-z0-9_-]{10}$/),
    customer_name: textOf(layout, 9).map((text) => `A${text}`),
    phone: fc.constantFrom('', '090-1234-5678', '0312345678'),
    email: fc.constantFrom('', 'a@example.com'),
    amount: digits(99_999_999),
    tax_rate: fc.constantFrom('10', '8', '0'),
    tax_amount: fc.oneof(fc.constant(''), fc.constant('1')),
    billing_period: fc
      .tuple(fc.integer({ min: 1, max: 9999 }), fc.integer({ min: 1, max: 12 }))
      .map(([year, month]) => `${pad(year, 4)}-${pad(month)}`),
    due_date: fc.integer({ min: 1, max: 28 }).map((day) => `2026-12-${pad(day)}`),
    collection: fc.constantFrom('', 'link', 'auto'),
    description:
      name === 'kita-denryoku as it is'
        ? fc.integer({ min: 0, max: 999 }).map((units) => `ご使用量 ${units} kWh`)
        : textOf(layout, 20),
  };
  return fc
    .tuple(
      ...fieldsOf.billing.map((field) => {
        const value = own[field.name];
        return value === undefined ? (made[field.name] ?? fc.constant('')) : fc.constant(value);
      }),
    )
    .map((fields) => ['D', ...fields]);
}

const standard = (rows: readonly string[][]): Buffer => {
  const sum = rows.reduce((total, row) => total + Number(row[6]), 0);
  const quoted = rows.map((row) => row.map((field) => `"${field.replaceAll('"', '""')}"`).join(','));
  return Buffer.from(
    ['H,1,minato-gas,billing,2026-11-25,7', ...quoted, `T,${rows.length},${sum}`, ''].join('\n'),
  );
};

describe.each(every)('%s', (name, layout) => {
  const about = { businessDate: '2026-11-25', sequence: 7 };

  test('what is written is read as the standard file of the same lines, wherever it is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(lineOf(layout, name), { maxLength: 6 }),
        fc.integer({ min: 1, max: 50 }),
        async (rows, size) => {
          const bytes = billingBytes(layout, about, rows);
          const own = await readAll('billing', cut(bytes, size), readingBy(layout));
          const same = await readAll('billing', chunks(standard(rows)));
          // A layout without titles, header or trailer has nothing to show for no lines.
          if (bytes.length === 0) {
            expect(own.verdict.fileCode).toBe('F_EMPTY');
            return;
          }
          const plain = (lines: typeof own.lines) => lines.map(({ line: _, ...line }) => line);
          expect(plain(own.lines)).toEqual(plain(same.lines));
          expect(own.verdict.fileCode).toBeNull();
          expect(own.verdict.header).toMatchObject({ businessDate: '2026-11-25', merchant: 'minato-gas' });
          expect(own.verdict.header?.sequence).toBe(layout.kinds.get('billing')?.hasSequence ? 7 : null);
          expect(own.verdict.trailer).toEqual(same.verdict.trailer);
          expect(own.verdict.linesRead).toBe(own.verdict.linesAccepted + own.verdict.linesRejected);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('permuted lines, other line ends and a byte order mark change no outcome', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(lineOf(layout, name), { minLength: 2, maxLength: 5 }),
        fc.boolean(),
        async (rows, reversed) => {
          const outcome = async (bytes: Buffer) => {
            const { lines, verdict } = await readAll('billing', chunks(bytes), readingBy(layout));
            return {
              code: verdict.fileCode,
              lines: lines.map(({ ok, rejected }) => JSON.stringify(ok ?? rejected)).sort(),
            };
          };
          const plain = await outcome(billingBytes(layout, about, rows));
          const permuted = reversed ? rows.toReversed() : [...rows.slice(1), rows[0] as string[]];
          const bytes = billingBytes(layout, about, permuted).toString('latin1');
          expect(await outcome(Buffer.from(bytes, 'latin1'))).toEqual(plain);
          const lf = bytes.replaceAll('\r\n', '\n');
          expect(await outcome(Buffer.from(lf, 'latin1'))).toEqual(plain);
          expect(await outcome(Buffer.from(lf.replaceAll('\n', '\r\n'), 'latin1'))).toEqual(plain);
          expect(await outcome(Buffer.from(`${lf}\n\r\n`, 'latin1'))).toEqual(plain);
          if (layout.encoding === 'utf-8')
            expect(
              await outcome(Buffer.concat([Buffer.of(0xef, 0xbb, 0xbf), Buffer.from(lf, 'latin1')])),
            ).toEqual(plain);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('any bytes end in a verdict whose lines add up, the same wherever they are cut', async () => {
    const sample = billingBytes(layout, about, []);
    const fragment = fc.oneof(
      fc.constantFrom(
        sample,
        ...[
          '2',
          '8',
          '1',
          '\n',
          '\r\n',
          '合計',
          '"',
          "'",
          ';',
          '|',
          '\t',
          'BI',
          'HD',
          'TR',
          ' '.repeat(119),
        ].map((text) => Buffer.from(text)),
        Buffer.of(0xf0, 0x40),
        Buffer.of(0x82),
      ),
      fc.uint8Array({ maxLength: 6 }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fragment, { maxLength: 12 }).map((parts) => Buffer.concat(parts)),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom(40, 65_536),
        async (bytes, size, recordBytesMax) => {
          const given = { ...readingBy(layout), recordBytesMax };
          const { lines, verdict } = await readAll('billing', chunks(bytes), given);
          expect(verdict.linesRead).toBe(verdict.linesAccepted + verdict.linesRejected);
          expect(lines).toHaveLength(verdict.linesRead);
          const pieces = await readAll('billing', cut(bytes, size), given);
          expect(pieces.verdict.fileCode).toBe(verdict.fileCode);
          expect(pieces.verdict.encodingOffset).toBe(verdict.encodingOffset);
          if (verdict.fileCode === null) expect(pieces).toEqual({ lines, verdict });
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe('the samples', () => {
  test.each([
    ['kita-denryoku', 'KD_SEIKYU_20261125_0001.CSV', 30, 270_615],
    ['sakura-suido', 'SUIDO_20261125_0002.DAT', 25, 145_475],
  ])('%s reads whole, by every cut', async (merchant, name, lines, amount) => {
    const bytes = sampleOf(merchant, `inbound/${name}`);
    const whole = await readAll('billing', chunks(bytes), readingBy(sampleLayout(merchant)));
    expect(whole.verdict).toMatchObject({ fileCode: null, linesAccepted: lines, amountAccepted: amount });
    for (const size of [1, 2, 3, 61, 121])
      expect(await readAll('billing', cut(bytes, size), readingBy(sampleLayout(merchant)))).toEqual(whole);
  });

  test('a line becomes what the layout says', async () => {
    const { lines } = await readAll(
      'billing',
      chunks(sampleOf('kita-denryoku', 'inbound/KD_SEIKYU_20261125_0001.CSV')),
      readingBy(sampleLayout('kita-denryoku')),
    );
    expect(lines[9]).toEqual({
      line: 11,
      record: 10,
      ok: {
        billingNumber: 'KD202611000010',
        customerNumber: '0000000010',
        customerName: '髙島 健',
        phone: { e164: '+818030079190', kind: 'mobile' },
        email: null,
        amount: 7310,
        taxRate: 10,
        taxAmount: 664,
        billingPeriod: '2026-11',
        dueOn: '2026-12-28',
        collection: 'auto',
        description: 'ご使用量 150 kWh',
      },
    });
  });
});

describe('faults of a file', () => {
  const kita = sampleLayout('kita-denryoku');
  const suido = sampleLayout('sakura-suido');
  const latin = (merchant: string, name: string) => sampleOf(merchant, `inbound/${name}`).toString('latin1');
  const csv = latin('kita-denryoku', 'KD_SEIKYU_20261125_0001.CSV');
  const fixed = latin('sakura-suido', 'SUIDO_20261125_0002.DAT');
  const rows = (text: string) => text.split('\r\n');

  test.each<[string, Layout, string]>([
    ['F_EMPTY', kita, ''],
    ['F_EMPTY', suido, ''],
    ['F_ENCODING', kita, csv.replace('\x97\xe9', '\x97\x20')],
    ['F_ENCODING', suido, `${fixed}\x80`],
    ['F_QUOTE', kita, csv.replace('"KD202611000003"', '"KD2026"11000003"')],
    ['F_RECORD_TOO_LONG', suido, fixed.replace('2SS26110002', '2'.repeat(70_000))],
    ['F_HEADER', kita, csv.replace('\x8e\x81\x96\xbc', '\x96\xbc\x91\x4f')],
    ['F_HEADER', kita, rows(csv).slice(1).join('\r\n')],
    ['F_HEADER', suido, rows(fixed).slice(1).join('\r\n')],
    ['F_HEADER', suido, fixed.replace('20261125', '20261131')],
    ['F_HEADER', suido, fixed.replace('202611250002', '20261125000A')],
    ['F_HEADER', suido, fixed.replace('1SAKURA', '1SAKUR')],
    ['F_TRAILER_MISSING', kita, rows(csv).slice(0, -2).join('\r\n')],
    ['F_TRAILER_MISSING', kita, csv + rows(csv)[3]],
    ['F_TRAILER_MISSING', kita, csv.replace('"270,615"', '"2706,15"')],
    ['F_TRAILER_MISSING', suido, rows(fixed).slice(0, -2).join('\r\n')],
    ['F_TRAILER_MISSING', suido, fixed.replace('8000025', '8     A')],
    ['F_TRAILER_MISSING', suido, fixed.trimEnd()],
    ['F_COUNT_MISMATCH', kita, csv.replace('"30","270,615"', '"31","270,615"')],
    ['F_COUNT_MISMATCH', suido, fixed.replace('8000025', '8000024')],
    ['F_TOTAL_MISMATCH', kita, csv.replace('"270,615"', '"270,616"')],
    ['F_TOTAL_MISMATCH', suido, fixed.replace('8000025000000145475', '8000025000000145476')],
  ])('%s', async (code, layout, text) => {
    const { verdict } = await readAll('billing', chunks(Buffer.from(text, 'latin1')), readingBy(layout));
    expect(verdict.fileCode).toBe(code);
  });

  test('the header may name the merchant', async () => {
    const types = layouts['columns by number with record types'] as Layout;
    const bytes = billingBytes(types, { businessDate: '2026-11-25', sequence: 1 }, [billingFields()]);
    const code = async (text: string) =>
      (await readAll('billing', chunks(Buffer.from(text, 'latin1')), readingBy(types))).verdict.fileCode;
    expect(await code(bytes.toString('latin1'))).toBeNull();
    expect(await code(bytes.toString('latin1').replace('ours', 'theirs'))).toBe('F_WRONG_MERCHANT');
  });

  test.each<[string, string, string, Layout, string, string]>([
    ['E_FORMAT', 'amount', '45,11', kita, '"4,511"', '"45,11"'],
    ['E_FORMAT', 'amount', 'no digits', kita, '"4,511"', '"4.511"'],
    ['E_REQUIRED', 'amount', 'blank', kita, '"4,511"', '""'],
    // A date of the standard's own form is none here.
    ['E_DATE', 'due_date', 'standard form', kita, '"2026/12/28"', '"2026-12-28"'],
    ['E_DATE', 'due_date', 'no such day', kita, '"2026/12/28"', '"2026/02/30"'],
    ['E_DATE', 'billing_period', 'other form', kita, '"202611"', '"2026-11"'],
    // The standard's word where the layout agreed on another.
    ['E_FORMAT', 'collection', 'standard word', kita, '"1","123"', '"link","123"'],
    ['E_CHARACTER', 'customer_name', 'private use', kita, '\x97\xe9\x96\xd8', '\xf0\x40\x96\xd8'],
    ['E_CHARACTER', 'description', 'control', kita, '"1","123"', '"1","1\x0123"'],
    ['E_COLUMNS', '', 'one more', kita, '"1","123"', '"1","123","x"'],
    ['E_RANGE', 'amount', 'nothing', suido, '000003311', '000000000'],
    ['E_FORMAT', 'amount', 'spaces', suido, '000003311', '   003311'],
    ['E_REQUIRED', 'amount', 'blank', suido, '000003311', '         '],
    ['E_FORMAT', 'collection', 'standard word', suido, '20261228L', '20261228l'],
    ['E_DATE', 'due_date', 'no such day', suido, '20261228L', '20261328L'],
    ['E_FORMAT', 'record_type', 'the standard type', suido, '2SS26110001', 'DSS26110001'],
    ['E_REQUIRED', 'record_type', 'blank', suido, '2SS26110001', ' SS26110001'],
    ['E_COLUMNS', '', 'a byte short', suido, '2SS26110001  ', '2SS26110001 '],
    // 29 bytes of name, then a character of two: it would be cut.
    [
      'E_CHARACTER',
      'customer_name',
      'cut in two',
      suido,
      '\xbd\xbd\xde\xb7 \xca\xc5\xba                      0',
      '\xbd\xbd\xde\xb7 \xca\xc5\xba                     \x97\xe9',
    ],
  ])('%s in %s: %s', async (code, field, _, layout, from, to) => {
    const text = layout === kita ? csv : fixed;
    expect(text).toContain(from);
    const { lines } = await readAll(
      'billing',
      chunks(Buffer.from(text.replace(from, to), 'latin1')),
      readingBy(layout),
    );
    expect(lines[0]?.rejected).toEqual({ code, field });
    expect(lines.slice(1).every((line) => line.rejected === undefined)).toBe(true);
  });

  test('without a trailer, blank lines are refused lines between others and nothing at the end', async () => {
    const bare = layouts['no quotes, no titles, no totals'] as Layout;
    const row = 'B-1|C-1|A|1000|2026-11|2026-12-28\n';
    const { lines, verdict } = await readAll('billing', chunks(`${row}\n\n${row}\n\n`), readingBy(bare));
    expect(lines.map((line) => [line.line, line.record, line.rejected?.code])).toEqual([
      [1, 1, undefined],
      [2, 2, 'E_COLUMNS'],
      [3, 3, 'E_COLUMNS'],
      [4, 4, undefined],
    ]);
    expect(verdict).toMatchObject({ fileCode: null, linesRead: 4, trailer: { count: 4, total: 2000 } });
  });

  test('characters that CP932 adds to Shift_JIS come back as they were', async () => {
    const types = layouts['columns by number with record types'] as Layout;
    const row = billingFields({ customer_name: '髙﨑①∑～纊黑', description: 'ﾊﾞ ㈱ Ⅷ' });
    const bytes = billingBytes(types, { businessDate: '2026-11-25', sequence: 1 }, [row]);
    const { lines } = await readAll('billing', chunks(bytes), readingBy(types));
    expect(lines[0]?.ok).toMatchObject({ customerName: '髙﨑①∑～纊黑', description: 'ﾊﾞ ㈱ Ⅷ' });
  });
});

describe('outward', () => {
  const row = (changes: Partial<Record<string, string>> = {}): string[] => [
    'R',
    ...fieldsOf.result.map(
      ({ name }) =>
        ({
          billing_number: 'B-1',
          customer_number: '0000000001',
          outcome: 'paid',
          method: 'card',
          amount: '4511',
          amount_received: '4511',
          collected_on: '2026-11-27',
          known_at: '2026-11-27T10:02:03+09:00',
          reference: '0ABC',
          ...changes,
        })[name] ?? '',
    ),
  ];
  async function* batches(...rows: readonly string[][]): AsyncGenerator<readonly string[][]> {
    yield rows;
  }
  const written = async (layout: Layout, kind: 'result' | 'receipt', rows: readonly string[][]) => {
    const parts: Buffer[] = [];
    const file = { merchant: 'kita-denryoku', kind, businessDate: '2026-11-27', sequence: 3 };
    for await (const part of writeOutward(layout, file, batches(...rows))) parts.push(part);
    return Buffer.concat(parts);
  };
  const text = (bytes: Buffer, encoding = 'shift_jis') =>
    new TextDecoder(encoding, { fatal: true }).decode(bytes);

  test('results in the merchant’s own words', async () => {
    const rows = [row(), row({ outcome: 'unpaid', method: '', collected_on: '' })];
    expect(text(await written(layouts['kita-denryoku'] as Layout, 'result', rows))).toBe(
      '請求番号,お客様番号,結果,金額,収納日,判明日時,収納方法\r\n' +
        'B-1,0000000001,1,4511,20261127,20261127100203,card\r\n' +
        'B-1,0000000001,9,4511,,20261127100203,\r\n',
    );
    expect(
      text(await written(layouts['columns by number with record types'] as Layout, 'result', [row()])),
    ).toBe(
      '20261127;HD;ours;3\r\n' +
        'B-1;RE;0000000001;paid;;card;4511;4511;2026-11-27;2026-11-27T10:02:03+09:00;0ABC\r\n' +
        '1;TR;4511\r\n',
    );
    expect(
      text(await written(layouts['titles, tabs, every field quoted'] as Layout, 'result', [row()]), 'utf-8'),
    ).toBe("'no'\t'what'\t'when'\t'yen'\n'B-1'\t'paid'\t'2026/11/27 10:02:03'\t'4511'\n");
    expect(
      text(
        await written(layouts['fixed width in UTF-8 without record types'] as Layout, 'result', [row()]),
        'utf-8',
      ),
    ).toBe(`${'B-1'.padEnd(30)}P${' '.repeat(9)}000000451120261127${' '.repeat(62)}\n`);
  });

  test('receipts: one list of columns for the file and for its lines', async () => {
    const file = receiptFileRow({
      inputName: 'x.csv',
      sha256: 'ab',
      status: 'partial',
      fileCode: null,
      linesRead: 2,
      linesAccepted: 1,
      amountAccepted: 4511,
      linesRejected: 1,
    });
    const line = receiptLineRow({
      line: 3,
      billingNumber: '',
      outcome: 'rejected',
      code: 'E_FORMAT',
      field: 'amount',
    });
    const types = layouts['columns by number with record types'] as Layout;
    expect(text(await written(types, 'receipt', [[...file], [...line]]))).toBe(
      '20261127;HD;ours;3\r\n' +
        'F;RC;x.csv;ab;partial;;2;1;4511;1;;;;;;\r\n' +
        'R;RC;;;;;;;;;3;;rejected;E_FORMAT;amount;the form of the value is wrong\r\n' +
        '2;TR;0\r\n',
    );
  });

  test.each(every.filter(([, layout]) => layout.kinds.has('result')))(
    'whatever %s writes is read back',
    async (_, layout) => {
      const outcomes = fieldsOf.result[2]?.choices ?? [];
      await fc.assert(
        fc.asyncProperty(
          fc.array(
            fc.record({
              billing_number: fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/),
              customer_number: fc.stringMatching(/^[A-Za-z0-9_-]{1,20}$/),
              outcome: fc.constantFrom(...outcomes),
              method: fc.constantFrom('', 'card', 'debit'),
              amount: fc.integer({ min: 0, max: 99_999_999 }).map(String),
              collected_on: fc.constantFrom('', '2026-11-27', '2028-02-29'),
            }),
            { maxLength: 5 },
          ),
          fc.integer({ min: 1, max: 40 }),
          async (changes, size) => {
            const rows = changes.map((change) => row(change));
            const bytes = await written(layout, 'result', rows);
            const back: string[][] = [];
            for await (const records of readRows(cut(bytes, size), layout, 'result'))
              for (const { fields } of records) if (fields[0] === 'R') back.push(fields);
            expect(back).toHaveLength(rows.length);
            for (const [index, fields] of back.entries()) {
              // What the layout has no column for is blank, an offset that it does not write is not made up.
              for (const [at, value] of fields.entries())
                if (value !== '') expect(rows[index]?.[at]?.startsWith(value)).toBe(true);
              expect(fields.slice(1, 4)).toEqual([rows[index]?.[1], expect.anything(), rows[index]?.[3]]);
            }
            expect(await written(layout, 'result', rows)).toEqual(bytes);
          },
        ),
        { numRuns: 100 },
      );
    },
  );

  test('kinds that the layout does not describe are the standard’s in its encoding and line ends, under its name', async () => {
    const suido = layouts['sakura-suido'] as Layout;
    expect(text(await written(suido, 'result', [row()]))).toMatch(
      /^H,1,kita-denryoku,result,2026-11-27,3\r\nR,B-1,/,
    );
    const file = { merchant: 'sakura-suido', businessDate: '2026-11-27', sequence: 12_345 };
    expect(outwardName(suido, { ...file, kind: 'result' })).toBe('SUIDO_K_20261127_12345.DAT');
    expect(outwardName(suido, { ...file, kind: 'settlement' })).toBe(
      'settlement_sakura-suido_20261127_12345.csv',
    );
  });

  test('what has no form is not written at all', async () => {
    const suido = layouts['sakura-suido'] as Layout;
    const about = { businessDate: '2026-11-25', sequence: 1 };
    const writing = (changes: Parameters<typeof billingFields>[0]) => () =>
      billingBytes(suido, about, [
        billingFields({ customer_number: '0000000001', description: '', ...changes }),
      ]);
    expect(writing({})).not.toThrow();
    expect(writing({ customer_name: '山'.repeat(16) })).toThrow(
      'customer_name: it is longer than its 30 bytes',
    );
    expect(writing({ customer_number: '1' })).toThrow('customer_number: it does not fill its 10 bytes');
    expect(writing({ tax_rate: '8' })).toThrow('the layout says the same of every line');
    expect(writing({ collection: 'maybe' })).toThrow('collection: it has no word for the value');
    expect(writing({ customer_name: '𠮷' })).toThrow('U+20BB7');
    expect(() => billingBytes(suido, { ...about, sequence: 10_000 }, [])).toThrow('sequence');
  });
});

describe('a wrong layout is refused with path and reason', () => {
  const problems = (yaml: string): string[] => {
    try {
      parseLayout(yaml, 'x.yaml');
    } catch (error) {
      if (error instanceof LayoutRefusal)
        return error.problems.map(({ path, reason }) => `${path}: ${reason}`);
      throw error;
    }
    return [];
  };
  const kita = sampleOf('kita-denryoku', 'layout.yaml').toString();
  const suido = sampleOf('sakura-suido', 'layout.yaml').toString();

  test('the samples are right', () => {
    expect([...problems(kita), ...problems(suido)]).toEqual([]);
  });

  test.each<[string, string, string, string]>([
    [kita, 'titles: true', 'title: true', 'title: is not a key of layouts'],
    [kita, 'format: csv', 'format: xml', 'format: must be csv or fixed'],
    [
      kita,
      'layout: kita-denryoku/1',
      'layout: kita-denryoku',
      'layout: must be a name and a version: kita-denryoku/1',
    ],
    [kita, 'layout: kita-denryoku/1', 'layout: standard/3', 'layout: is the name of a built-in layout'],
    [kita, 'encoding: shift_jis', 'encoding: utf-16', 'encoding: must be utf-8 or shift_jis'],
    [kita, '氏名: customer_name', '氏名: name', 'billing.氏名: name is not a field of billing'],
    [kita, '氏名: customer_name', '氏名: phone', 'billing.携帯電話: phone stands in two columns'],
    [kita, '  氏名: customer_name\n', '', 'billing: has no customer_name: name a column or a constant'],
    [kita, 'YYYY/MM/DD', 'YYYY/MM', 'billing.支払期限.date: "YYYY/MM" lacks DD'],
    [
      kita,
      'date: YYYYMM }',
      'date: YYYYMMDD }',
      'billing.検針年月.date: "YYYYMMDD" has DD, which the field does not hold',
    ],
    [
      kita,
      '{ field: due_date, date: YYYY/MM/DD }',
      '{ field: due_date, thousands: "," }',
      'billing.支払期限.thousands: is for numbers; due_date holds a date',
    ],
    [kita, '"2": auto', '"2": bank', 'billing.収納区分.values: "bank" is no collection: link, auto'],
    [kita, 'paid: "1", ', '', 'result.結果.values: has no word for paid'],
    [
      kita,
      'unpaid: "9"',
      'unpaid: "8"',
      'result.結果.values: unpaid and cancelled have one word, "8": nobody could tell them apart',
    ],
    [
      kita,
      '  請求番号: billing_number\n  お客様番号: customer_number\n  結果',
      '  お客様番号: customer_number\n  結果',
      'result: has no billing_number: without it a line says nothing',
    ],
    [
      kita,
      '携帯電話: phone',
      '携帯電話: { at: 1, bytes: 3 }',
      'billing.携帯電話.bytes: belongs to format: fixed',
    ],
    [
      kita,
      '携帯電話: phone',
      '携帯電話: { field: phone, at: 1 }',
      'billing.携帯電話.at: belongs to format: fixed',
    ],
    [kita, '携帯電話: phone', '4: phone', 'billing.4: is a number, but titles: true finds columns by title'],
    [kita, 'titles: true', 'titles: false', 'billing.請求番号: is no number of a column'],
    [
      kita,
      'titles: true',
      'titles: true\nrecord_type: { column: 1, billing: "1", result: "2" }',
      'titles: and record_type are two ways to begin a file: take one',
    ],
    [
      kita,
      'text: "ご使用量 {} kWh"',
      'text: "ご使用量 kWh"',
      'billing.使用量.text: must hold {} once, where the value goes',
    ],
    [
      kita,
      'text: "ご使用量 {} kWh"',
      'text: "ご使用量 {} é"',
      'billing.使用量.text: "é" cannot be written in shift_jis',
    ],
    [
      kita,
      'constants: { tax_rate: 10 }',
      'constants: { tax_rate: 9 }',
      'constants.tax_rate: "9" is no tax_rate (E_FORMAT)',
    ],
    [
      kita,
      'constants: { tax_rate: 10 }',
      'constants: { tax_rate: 10, amount: 5 }',
      'constants.amount: is a column too: which of them counts?',
    ],
    [
      kita,
      'count: お客様番号, amount',
      'count: 件数, amount',
      'total_line.count: 件数 is not a column of billing',
    ],
    [
      kita,
      'KD_KEKKA_{date}_{seq4}.CSV',
      'KD_KEKKA_{date}.CSV',
      'names.result: needs {seq4}: two files would have one name',
    ],
    [
      kita,
      'KD_SEIKYU_{date}_{seq4}.CSV',
      'KD_SEIKYU_{seq4}.CSV',
      'names.billing: needs {date}, since no header has a business_date',
    ],
    [
      kita,
      'KD_KEKKA_{date}',
      'KD_KEKKA_{day}',
      'names.result: {day} is not known: names take {date} and {seq4}',
    ],
    [
      kita,
      'KD_KEKKA_{date}_{seq4}.CSV',
      '../{seq4}',
      'names.result: takes letters, digits, dot, hyphen and underscore',
    ],
    [
      kita,
      'KD_KEKKA_{date}_{seq4}.CSV',
      'KD_UKETSUKE_{date}_{seq4}.CSV',
      'names.result: is the name of receipt too',
    ],
    [suido, 'record_bytes: 120', 'record_bytes: 100\ntitles: true', 'titles: belongs to format: csv'],
    [suido, 'record_bytes: 120', 'record_bytes: 98', 'billing.collection: runs to byte 99 of a record of 98'],
    [
      suido,
      'phone: { at: 54',
      'phone: { at: 53',
      'billing.phone: overlaps billing.customer_name, which runs from byte 24 to 53',
    ],
    [
      suido,
      'billing_number: { at: 2',
      'billing_number: { at: 1',
      'billing.billing_number: overlaps record_type, which runs from byte 1 to 1',
    ],
    [suido, 'trailer: "8"', 'trailer: "2"', 'record_type.trailer: is the type of billing too'],
    [suido, ', trailer: "8"', '', 'record_type.trailer: is missing, although there is a trailer'],
    [
      suido,
      'trailer: { count: { at: 2, bytes: 6 }, amount: { at: 8, bytes: 12 } }\n',
      '',
      'trailer: is missing: where do count and amount stand?',
    ],
    [
      suido,
      'zero_filled: true }\n  tax',
      'zero_filled: 1 }\n  tax',
      'billing.amount.zero_filled: must be true or false',
    ],
    [
      suido,
      'due_date: { at: 91, bytes: 8',
      'due_date: { at: 91, bytes: 7',
      'billing.due_date.bytes: must be 8, as YYYYMMDD has',
    ],
    [
      suido,
      'constants:',
      'result: { billing_number: { at: 2, bytes: 8 }, outcome: { at: 20, bytes: 30 } }\nconstants:',
      'result.billing_number.bytes: must be 12 or more: billing_number is never cut',
    ],
    [
      suido,
      'bytes: 12, trim: right',
      'bytes: 0, trim: right',
      'billing.billing_number.bytes: must be 1 or more',
    ],
    ['layout: [', '', '', 'not YAML'],
    [kita, '氏名: customer_name', '請求番号: customer_name', 'not YAML (DUPLICATE_KEY)'],
  ])('$3', (yaml, from, to, told) => {
    expect(yaml).toContain(from);
    expect(problems(yaml.replace(from, to)).join('\n')).toContain(told);
  });

  test('any text at all is a layout or is refused', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), fc.nat(1500), (text, at) => {
        problems(text);
        problems(kita.slice(0, at) + text + kita.slice(at + text.length));
        problems(suido.slice(0, at) + text + suido.slice(at + text.length));
      }),
      { numRuns: 150 },
    );
  });
});
