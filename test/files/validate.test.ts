import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  holdsCardNumber,
  includedTax,
  readPhone,
  validateBilling,
  validateCancel,
} from '../../files/standard/validate.ts';
import { billingFields, goodFields } from './given.ts';

type Change = Partial<typeof goodFields>;

describe('billing', () => {
  test.each<[string, string, Change]>([
    ['E_REQUIRED', 'record_type', { type: '' }],
    ['E_FORMAT', 'record_type', { type: 'L' }],
    ['E_CHARACTER', 'record_type', { type: 'D\u0000' }],
    ['E_REQUIRED', 'billing_number', { billing_number: '' }],
    ['E_CHARACTER', 'billing_number', { billing_number: 'B\t1' }],
    ['E_FORMAT', 'billing_number', { billing_number: '../../etc/passwd' }],
    ['E_FORMAT', 'billing_number', { billing_number: 'x'.repeat(41) }],
    ['E_FORMAT', 'billing_number', { billing_number: 'Ｂ１' }],
    ['E_REQUIRED', 'customer_number', { customer_number: '' }],
    ['E_FORMAT', 'customer_number', { customer_number: ' C-1' }],
    ['E_REQUIRED', 'customer_name', { customer_name: '' }],
    ['E_REQUIRED', 'customer_name', { customer_name: '　' }],
    ['E_CHARACTER', 'customer_name', { customer_name: 'a\u0000' }],
    ['E_CHARACTER', 'customer_name', { customer_name: 'a\u0085' }],
    ['E_CHARACTER', 'customer_name', { customer_name: 'a\u202eb' }],
    ['E_CHARACTER', 'customer_name', { customer_name: 'a\u2067b' }],
    ['E_CHARACTER', 'customer_name', { customer_name: 'a\ud83d' }],
    ['E_CHARACTER', 'customer_name', { customer_name: '\ude00a' }],
    ['E_CARD_NUMBER', 'customer_name', { customer_name: '4111-1111-1111-1111' }],
    ['E_FORMAT', 'customer_name', { customer_name: '山'.repeat(101) }],
    ['E_CHARACTER', 'phone', { phone: '090\n1234' }],
    ['E_CHARACTER', 'email', { email: 'a@b.jp\u007f' }],
    ['E_REQUIRED', 'amount', { amount: '' }],
    ['E_CHARACTER', 'amount', { amount: '1\u0000' }],
    ...[
      '12,345',
      '+1',
      '-1',
      '-0',
      '1.0',
      '1e3',
      '0x10',
      '01',
      '00',
      ' 1',
      '1 ',
      ' ',
      '１２３',
      '¥100',
      'x',
    ].map((amount): [string, string, Change] => ['E_FORMAT', 'amount', { amount }]),
    ['E_RANGE', 'amount', { amount: '0' }],
    ['E_RANGE', 'amount', { amount: '100000000' }],
    ['E_RANGE', 'amount', { amount: '9'.repeat(400) }],
    ['E_REQUIRED', 'tax_rate', { tax_rate: '' }],
    ['E_FORMAT', 'tax_rate', { tax_rate: '5' }],
    ['E_FORMAT', 'tax_rate', { tax_rate: '10.0' }],
    ['E_FORMAT', 'tax_amount', { tax_amount: '-1' }],
    ['E_RANGE', 'tax_amount', { tax_amount: '2618' }],
    ['E_REQUIRED', 'billing_period', { billing_period: '' }],
    ['E_DATE', 'billing_period', { billing_period: '2026-13' }],
    ['E_DATE', 'billing_period', { billing_period: '2026-00' }],
    ['E_DATE', 'billing_period', { billing_period: '202611' }],
    ['E_REQUIRED', 'due_date', { due_date: '' }],
    ['E_DATE', 'due_date', { due_date: '2026-02-30' }],
    ['E_DATE', 'due_date', { due_date: '2026-02-29' }],
    ['E_DATE', 'due_date', { due_date: '2100-02-29' }],
    ['E_DATE', 'due_date', { due_date: '2026/12/28' }],
    ['E_DATE', 'due_date', { due_date: '2026-12-28T00:00:00Z' }],
    ['E_DATE', 'due_date', { due_date: '0000-01-01' }],
    ['E_FORMAT', 'collection', { collection: 'cash' }],
    ['E_FORMAT', 'collection', { collection: 'LINK' }],
    ['E_CHARACTER', 'description', { description: '改行\nあり' }],
    ['E_CARD_NUMBER', 'description', { description: 'カード 4111 1111 1111 1111' }],
    ['E_FORMAT', 'description', { description: '山'.repeat(201) }],
  ])('%s %s %j', (code, field, change) => {
    expect(validateBilling(billingFields(change))).toEqual({ rejected: { code, field } });
  });

  test.each<[Change]>([
    [{ billing_number: 'x'.repeat(40) }],
    [{ customer_name: '𠮷'.repeat(100) }],
    [{ customer_name: '=HYPERLINK("http://x")' }],
    [{ customer_name: '髙﨑 🙂' }],
    [{ phone: 'call me' }],
    [{ email: 'not an address' }],
    [{ amount: '1' }],
    [{ amount: '99999999' }],
    [{ tax_amount: '0' }],
    [{ tax_amount: '2617' }],
    [{ due_date: '2028-02-29' }],
    [{ due_date: '2000-02-29' }],
    [{ description: '' }],
    [{ description: '4111 1111 1111 1112' }],
  ])('accepted: %j', (change) => {
    expect(validateBilling(billingFields(change))).toHaveProperty('ok');
  });

  test('columns come first, whatever stands in them', () => {
    for (const fields of [[], [''], ['D'], billingFields().slice(0, 12), [...billingFields(), '']]) {
      expect(validateBilling(fields)).toEqual({ rejected: { code: 'E_COLUMNS', field: '' } });
    }
  });

  test('of several errors the leftmost is reported', () => {
    const fields = billingFields({ customer_name: '', amount: '0', due_date: 'x', description: '\u0000' });
    expect(validateBilling(fields)).toEqual({ rejected: { code: 'E_REQUIRED', field: 'customer_name' } });
    expect(validateBilling(billingFields({ amount: '0', due_date: 'x' }))).toEqual({
      rejected: { code: 'E_RANGE', field: 'amount' },
    });
  });

  test('any fields at all end in a line or in one error', () => {
    const field = fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom(...Object.values(goodFields)));
    fc.assert(
      fc.property(fc.array(field, { maxLength: 15 }), (fields) => {
        const result = validateBilling(fields);
        expect('ok' in result !== 'rejected' in result).toBe(true);
      }),
    );
  });
});

describe('cancel', () => {
  test.each<[string, string, string[]]>([
    ['E_COLUMNS', '', ['D', 'B-1']],
    ['E_FORMAT', 'record_type', ['X', 'B-1', '']],
    ['E_REQUIRED', 'billing_number', ['D', '', '']],
    ['E_FORMAT', 'billing_number', ['D', 'B 1', '']],
    ['E_CHARACTER', 'reason', ['D', 'B-1', '\u202e']],
    ['E_CARD_NUMBER', 'reason', ['D', 'B-1', '4111111111111111']],
  ])('%s %s', (code, field, fields) => {
    expect(validateCancel(fields)).toEqual({ rejected: { code, field } });
  });

  test('accepted', () => {
    expect(validateCancel(['D', 'B-1', '検針誤り'])).toEqual({
      ok: { billingNumber: 'B-1', reason: '検針誤り' },
    });
  });
});

test.each<[string, string | null, string]>([
  ['', null, 'none'],
  ['  ', null, 'none'],
  ['-', null, 'none'],
  ['090-1234-5678', '+819012345678', 'mobile'],
  ['08012345678', '+818012345678', 'mobile'],
  ['070 1234 5678', '+817012345678', 'mobile'],
  ['０９０－１２３４－５６７８', '+819012345678', 'mobile'],
  ['０９０ー１２３４ー５６７８', '+819012345678', 'mobile'],
  ['(090)1234-5678', '+819012345678', 'mobile'],
  ['+81 90-1234-5678', '+819012345678', 'mobile'],
  ['+81 (0)90-1234-5678', '+819012345678', 'mobile'],
  ['0081-90-1234-5678', '+819012345678', 'mobile'],
  ['00819012345678', '+819012345678', 'mobile'],
  ['0081 090-1234-5678', '+819012345678', 'mobile'],
  ['060-1234-5678', '+816012345678', 'mobile'],
  ['03-1234-5678', '+81312345678', 'not_mobile'],
  ['0120-000-111', '+81120000111', 'not_mobile'],
  ['050-3123-4567', '+815031234567', 'not_mobile'],
  ['090-1234-567', null, 'not_mobile'],
  ['090-1234-56789', null, 'not_mobile'],
  ['090-0234-5678', null, 'not_mobile'],
  ['call me', null, 'not_mobile'],
  ['110', null, 'not_mobile'],
  ['+', null, 'not_mobile'],
  ['9'.repeat(5000), null, 'not_mobile'],
])('phone %s', (text, e164, kind) => {
  expect(readPhone(text)).toEqual({ e164, kind });
});

test.each<[string, boolean]>([
  ['4111111111111111', true],
  ['No. 12 4111 1111 1111 1111', true],
  ['４１１１　１１１１　１１１１　１１１１', true],
  ['4111-1111-1111-1111 12/29', true],
  ['378282246310005', true],
  ['4222222222222', true],
  ['4111111111111112', false],
  ['123456789012', false],
  ['411111111111111100000000', false],
  ['2026-11-01 から 2026-11-30', false],
])('card number in %s: %s', (text, holds) => {
  expect(holdsCardNumber(text)).toBe(holds);
});

test.each<[number, 0 | 8 | 10, number]>([
  [2617, 10, 237],
  [1100, 10, 100],
  [1099, 10, 99],
  [1, 10, 0],
  [1080, 8, 80],
  [5000, 0, 0],
  [99_999_999, 10, 9_090_909],
])('tax in %i at %i%%', (amount, rate, tax) => {
  expect(includedTax(amount, rate)).toBe(tax);
});
