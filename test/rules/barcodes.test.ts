import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type BarcodeParts,
  barcodeDigits,
  checkDigit,
  counterLimitYen,
  needsStamp,
  readableDigits,
} from '../../billing/barcodes/digits.ts';
import { barcodeSymbol } from '../../billing/barcodes/symbol.ts';

const usual: BarcodeParts = {
  issuer: '929023',
  companyCode: '25207',
  paymentNumber: 12_345,
  numberDigits: 10,
  reissue: 0,
  lastDay: '2026-12-31',
  stamp: false,
  amount: 4_980,
};

describe('the check digit', () => {
  it.each([
    // Published examples of the guideline's rule.
    ['9191234501234567890123456789010103310123000', '3'],
    ['9194238617895391785393569273010307311031290', '3'],
    ['9192902325207000001012349990019999990010605', '0'],
    ['9192902325207000001012349990039999991106632', '7'],
  ])('%s ends with %s', (digits, expected) => {
    expect(checkDigit(digits)).toBe(expected);
  });

  it('changes with any single digit that changes', () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 42 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: counterLimitYen }),
        (at, by, amount) => {
          const digits = barcodeDigits({ ...usual, amount }).slice(0, 43);
          const other = digits.slice(0, at) + ((Number(digits[at]) + by) % 10) + digits.slice(at + 1);
          expect(checkDigit(other)).not.toBe(checkDigit(digits));
        },
      ),
    );
  });
});

describe('44 digits', () => {
  it('hold each part at its place', () => {
    const digits = barcodeDigits(usual);
    expect(digits).toMatch(/^91929023252070000012345000000026123100049800?\d$/);
    expect(digits).toHaveLength(44);
    expect(readableDigits(digits)).toMatch(/^\(91\)929023-252070000012345000000-0-261231-0-004980-\d$/);
  });

  it.each([
    [{ amount: 1 }, /000001\d$/],
    [{ amount: 300_000 }, /300000\d$/],
    [{ stamp: true, amount: 60_000 }, /1060000\d$/],
    [{ reissue: 9 }, /^91929023252070000012345000000926/],
    [{ lastDay: '2030-01-05' }, /300105/],
    [{ companyCode: '12345', numberDigits: 16 }, /^91929023123450000000000012345/],
  ])('%j', (change, expected) => {
    expect(barcodeDigits({ ...usual, ...change })).toMatch(expected);
  });

  it.each([
    [{ amount: 300_001 }, 'BARCODE_OVER_LIMIT'],
    [{ amount: 0 }, 'BARCODE_OVER_LIMIT'],
    [{ amount: 10.5 }, 'BARCODE_OVER_LIMIT'],
    [{ reissue: 10 }, 'BARCODE_REISSUES_USED_UP'],
    [{ paymentNumber: 12_345_678_901 }, 'BARCODE_NUMBER_TOO_LONG'],
    [{ companyCode: '123456789012' }, 'BARCODE_NUMBER_TOO_LONG'],
  ])('%j is refused: %s', (change, code) => {
    expect(() => barcodeDigits({ ...usual, ...change })).toThrow(expect.objectContaining({ code }));
  });

  it('differ for any two bills, reissues or amounts of a merchant', () => {
    const part = fc.record({
      paymentNumber: fc.integer({ min: 1, max: 99 }),
      reissue: fc.nat({ max: 9 }),
      amount: fc.integer({ min: 1, max: 50 }),
    });
    fc.assert(
      fc.property(part, part, (one, other) => {
        const same = JSON.stringify(one) === JSON.stringify(other);
        expect(barcodeDigits({ ...usual, ...one }) === barcodeDigits({ ...usual, ...other })).toBe(same);
      }),
    );
  });
});

describe('the revenue stamp', () => {
  it.each([
    // amount, tax in it, public charge, day, stamp
    [54_000, 4_909, false, '2026-11-25', false],
    [54_999, 4_999, false, '2026-11-25', true],
    [55_000, 5_000, false, '2026-11-25', true],
    [54_998, 4_999, false, '2026-11-25', false],
    [50_000, 0, false, '2026-11-25', true],
    [60_000, 5_454, true, '2026-11-25', false],
    [300_000, 27_272, true, '2026-11-25', false],
    [31_499, 1_500, false, '2014-03-31', false],
    [31_500, 1_500, false, '2014-03-31', true],
    [31_500, 1_500, false, '2014-04-01', false],
  ])('%i yen with %i of tax, public %s, on %s: %s', (amount, taxAmount, publicCharge, on, expected) => {
    expect(needsStamp({ amount, taxAmount, publicCharge, on })).toBe(expected);
  });
});

describe('the symbol', () => {
  it('begins with code set C and FNC1, ends with the stop, and keeps white on both sides', () => {
    const { bars, widthModules } = barcodeSymbol('91929023252070000010123499900199999900106050');
    const last = bars.at(-1);
    // Start C 211232, FNC1 411131.
    expect(bars.slice(0, 6)).toEqual([
      { at: 10, width: 2 },
      { at: 13, width: 1 },
      { at: 16, width: 3 },
      { at: 21, width: 4 },
      { at: 26, width: 1 },
      { at: 28, width: 3 },
    ]);
    // Start, FNC1, 22 pairs and the check character of 11 modules, the stop of 13, twice 10 of white.
    expect(widthModules).toBe(25 * 11 + 13 + 20);
    expect((last?.at ?? 0) + (last?.width ?? 0)).toBe(widthModules - 10);
    expect(bars).toHaveLength(79);
  });
});
