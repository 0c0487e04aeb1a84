import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FatalDecoder } from '../../files/decode.ts';
import { catalogue } from '../../files/standard/catalogue.ts';
import {
  adjustmentRow,
  enrolmentRow,
  formatTieout,
  type OutwardCsvKind,
  type Row,
  receiptFileRow,
  receiptLineRow,
  resultRow,
  settlementRow,
  unreachedRow,
  type WriteOptions,
  writeStandardFile,
} from '../../files/standard/write.ts';

async function written(rows: readonly Row[][], options: Partial<WriteOptions> = {}): Promise<string> {
  const parts: Buffer[] = [];
  async function* batches(): AsyncGenerator<readonly Row[]> {
    yield* rows;
  }
  const whole = {
    merchant: 'minato-gas',
    kind: 'receipt' as OutwardCsvKind,
    businessDate: '2026-11-25',
    sequence: 7,
    newline: '\n' as const,
    encoding: 'utf-8' as const,
    ...options,
  };
  for await (const part of writeStandardFile(whole, batches())) parts.push(part);
  return new FatalDecoder(whole.encoding).write(Buffer.concat(parts));
}

test('a receipt', async () => {
  const file = receiptFileRow({
    inputName: 'billing_minato-gas_20261125_0001.csv',
    sha256: 'ab',
    status: 'partial',
    fileCode: null,
    linesRead: 3,
    linesAccepted: 2,
    amountAccepted: 5000,
    linesRejected: 1,
  });
  const rejected = receiptLineRow({
    line: 3,
    billingNumber: '',
    outcome: 'rejected',
    code: 'E_FORMAT',
    field: 'amount',
  });
  const warning = receiptLineRow({
    line: 4,
    billingNumber: 'B-1',
    outcome: 'warning',
    code: 'W_FALLBACK_LINK',
    field: 'collection',
  });
  expect(await written([[file], [], [rejected, warning]])).toBe(
    [
      'H,1,minato-gas,receipt,2026-11-25,7',
      'F,billing_minato-gas_20261125_0001.csv,ab,partial,,3,2,5000,1',
      'R,3,,rejected,E_FORMAT,amount,the form of the value is wrong',
      'R,4,B-1,warning,W_FALLBACK_LINK,collection,not enrolled for automatic payment: billed by link',
      'T,3,0',
      '',
    ].join('\n'),
  );
});

const result = {
  billingNumber: 'B-1',
  customerNumber: 'C-1',
  outcome: 'paid',
  reason: '',
  method: 'card',
  amount: 2617,
  amountReceived: 2617,
  collectedOn: '2026-11-27',
  knownAt: '2026-11-27T10:00:00+09:00',
  reference: 'ref-1',
} as const;

test('the trailer adds up what its kind says', async () => {
  const results = [
    resultRow(result),
    resultRow({ ...result, outcome: 'unpaid', amount: 400, amountReceived: 0 }),
  ];
  expect(await written([results], { kind: 'result', newline: '\r\n' })).toBe(
    [
      'H,1,minato-gas,result,2026-11-25,7',
      'R,B-1,C-1,paid,,card,2617,2617,2026-11-27,2026-11-27T10:00:00+09:00,ref-1',
      'R,B-1,C-1,unpaid,,card,400,0,2026-11-27,2026-11-27T10:00:00+09:00,ref-1',
      'T,2,3017',
      '',
    ].join('\r\n'),
  );
  const adjustment = {
    number: 1,
    billingNumber: 'B-1',
    type: 'refund',
    amount: 300,
    sign: '-',
    collectedOn: '2026-11-27',
    knownAt: '2026-11-27T10:00:00+09:00',
    reference: 'ref-1',
  } as const;
  const adjustments = [
    adjustmentRow(adjustment),
    adjustmentRow({ ...adjustment, number: 2, amount: 100, sign: '+' }),
  ];
  expect(await written([adjustments], { kind: 'adjustment' })).toMatch(/\nT,2,-200\n$/);
  const settlement = settlementRow({
    billingNumber: 'B-1',
    method: 'card',
    collectedOn: '2026-11-27',
    gross: 1000,
    fee: 30,
    feeTax: 3,
    net: 967,
    payout: 'po-1',
  });
  expect(await written([[settlement, settlement]], { kind: 'settlement' })).toMatch(/\nT,2,1934\n$/);
  const enrolled = enrolmentRow({
    customerNumber: 'C-1',
    change: 'enrolled',
    means: 'card',
    occurredAt: '2026-11-27T10:00:00+09:00',
    reference: 'ref-1',
  });
  expect(await written([[enrolled]], { kind: 'enrolment' })).toMatch(/\nT,1,0\n$/);
  const unreached = unreachedRow({
    billingNumber: 'B-1',
    customerNumber: 'C-1',
    cause: 'no_phone',
    disposition: 'returned',
    barcode: '',
    occurredAt: '2026-11-27T10:00:00+09:00',
  });
  expect(await written([[unreached]], { kind: 'unreached' })).toMatch(
    /\nR,B-1,C-1,no_phone,returned,,\S+\nT,1,0\n$/,
  );
  expect(await written([])).toMatch(/\nT,0,0\n$/);
});

test('an amount that is not whole never leaves', async () => {
  expect(() => resultRow({ ...result, amount: 0.5 })).toThrow('not a whole number');
  await expect(written([[['R', 'B-1']]], { kind: 'result' })).rejects.toThrow('no amount');
});

test('whatever is written is read back, and twice gives the same bytes', async () => {
  const rows = fc.array(
    fc.array(fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('a\r\nb', '\n', '"', ',', '\r', '')), {
      minLength: 2,
      maxLength: 5,
    }),
    { maxLength: 5 },
  );
  await fc.assert(
    fc.asyncProperty(rows, fc.constantFrom('\n' as const, '\r\n' as const), async (given, newline) => {
      const text = await written([given], { newline });
      expect(await written([given], { newline })).toBe(text);
      const back: string[][] = parse(text, { record_delimiter: ['\r\n', '\n'], relax_column_count: true });
      expect(back.slice(1, -1)).toEqual(given);
    }),
  );
});

test('messages fit every encoding and need no quoting', () => {
  for (const message of Object.values(catalogue)) expect(message).toMatch(/^[A-Za-z0-9 :]{5,100}$/);
});

test('a tie-out is the same text whatever the order of its keys', () => {
  const none = { amount: 0, count: 0 };
  const tieout = {
    audit: { hash: 'cd', no: 7 },
    closes: true,
    outcomes: { parked: none, cancelled: none, unpaid: none, open: none, paid: { amount: 2617, count: 1 } },
    amount: { rejected: 0, accepted: 2617 },
    lines: { rejected: 0, accepted: 1, read: 1 },
    businessDate: '2026-11-25',
    sha256: 'ab',
    inputFile: 'x.csv',
  };
  expect(formatTieout(tieout)).toBe(
    '{"inputFile":"x.csv","sha256":"ab","businessDate":"2026-11-25","lines":{"read":1,"accepted":1,"rejected":0},' +
      '"amount":{"accepted":2617,"rejected":0},"outcomes":{"paid":{"count":1,"amount":2617},"open":{"count":0,"amount":0},' +
      '"unpaid":{"count":0,"amount":0},"cancelled":{"count":0,"amount":0},"parked":{"count":0,"amount":0}},"closes":true,' +
      '"audit":{"no":7,"hash":"cd"}}\n',
  );
});
