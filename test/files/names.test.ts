import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  classifyInboundName,
  formatFileName,
  outwardFileName,
  parseFileName,
  readDoneFile,
  temporaryName,
} from '../../files/standard/names.ts';

test.each<[string, string]>([
  ['billing_minato-gas_20261125_0001.csv', 'data'],
  ['cancel_minato-gas_20261125_12345.csv', 'data'],
  ['hold_minato-gas_20261125_0001.csv', 'data'],
  ['enrolment_minato-gas_20261125_0001.csv', 'data'],
  ['contact_minato-gas_20261125_0001.csv', 'data'],
  ['billing_minato-gas_20261125_0001.csv.done', 'control'],
  ['billing_minato-gas_20261125_0001.csv.tmp', 'temporary'],
  ['billing_minato-gas_20261125_0001.csv.part', 'temporary'],
  ['.billing_minato-gas_20261125_0001.csv', 'temporary'],
  ['..', 'temporary'],
  ['billing_other_20261125_0001.csv', 'unknown'],
  ['billing_minato-gas_20261131_0001.csv', 'unknown'],
  ['billing_minato-gas_20261125_001.csv', 'unknown'],
  ['billing_minato-gas_20261125_00001.csv', 'unknown'],
  ['billing_minato-gas_20261125_0000.csv', 'unknown'],
  ['billing_minato-gas_20261125_0001.CSV', 'unknown'],
  ['billing_minato-gas_20261125_0001.json', 'unknown'],
  ['billing_minato-gas_20261125_0001.csv\n', 'unknown'],
  ['receipt_minato-gas_20261125_0001.csv', 'unknown'],
  ['../billing_minato-gas_20261125_0001.csv', 'unknown'],
  ['x/billing_minato-gas_20261125_0001.csv', 'unknown'],
  ['readme.txt.done', 'unknown'],
  ['.done', 'temporary'],
  ['CON', 'unknown'],
  ['', 'unknown'],
  ['a'.repeat(4096), 'unknown'],
  ['a\u0000b', 'unknown'],
  ['gnp.\u202evsc', 'unknown'],
])('%j is %s', (name, type) => {
  expect(classifyInboundName(name, 'minato-gas').type).toBe(type);
});

test('names go out as they come in', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('billing', 'cancel', 'hold'),
      fc.integer({ min: 1, max: 999_999_999 }),
      fc.date({ min: new Date('1900-01-01'), max: new Date('9999-12-31'), noInvalidDate: true }),
      (kind, sequence, date) => {
        const name = {
          kind,
          merchant: 'minato-gas',
          businessDate: date.toISOString().slice(0, 10),
          sequence,
          extension: 'csv',
        };
        expect(parseFileName(formatFileName(name))).toEqual(name);
      },
    ),
  );
  expect(outwardFileName('receipt', 'minato-gas', '2026-11-25', 7)).toBe(
    'receipt_minato-gas_20261125_0007.csv',
  );
  expect(outwardFileName('tieout', 'minato-gas', '2026-11-25', 10_000)).toBe(
    'tieout_minato-gas_20261125_10000.json',
  );
  const temporary = temporaryName('receipt_minato-gas_20261125_0007.csv', 'id');
  expect(classifyInboundName(temporary, 'minato-gas').type).toBe('temporary');
});

test.each<[string, unknown]>([
  ['', 'none'],
  ['\n', 'none'],
  [`${'a'.repeat(64)}  x.csv\n`, { sha256: 'a'.repeat(64) }],
  [`${'A'.repeat(64)} *x.csv\r\n`, { sha256: 'a'.repeat(64) }],
  [`${'a'.repeat(64)}  ./inbound/x.csv\n`, { sha256: 'a'.repeat(64) }],
  ['a'.repeat(64), { sha256: 'a'.repeat(64) }],
  [`${'a'.repeat(64)}  y.csv\n`, 'bad'],
  [`${'a'.repeat(63)}  x.csv\n`, 'bad'],
  ['done', 'bad'],
])('control file %j', (text, expected) => {
  expect(readDoneFile(text, 'x.csv')).toEqual(expected);
});
