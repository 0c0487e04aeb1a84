import { describe, expect, it } from 'vitest';
import { isFileUnusual, judgeBill } from '../../billing/gates/gate.ts';
import { parseReleaseRule } from '../../billing/parked/rule.ts';

const gates = { fileTimes: 5, billTimes: 10, twice: true };

describe('the gate', () => {
  it.each([
    ['nothing known', {}, null],
    ['usual', { bills: 3, usual: 1_000, amount: 9_999 }, null],
    ['ten times', { bills: 3, usual: 1_000, amount: 10_000 }, 'AMOUNT_UNUSUAL'],
    ['first bill, ten times the average', { amount: 50_000 }, 'AMOUNT_UNUSUAL'],
    ['twice', { samePeriod: 1, mostInAPeriod: 1 }, 'BILLED_TWICE'],
    ['twice as always', { samePeriod: 1, mostInAPeriod: 2 }, null],
    ['three times', { samePeriod: 2, mostInAPeriod: 2 }, 'BILLED_TWICE'],
  ])('judges a bill: %s', (_, known, reason) => {
    const bill = { amount: 1_000, bills: 0, usual: null, samePeriod: 0, mostInAPeriod: 0, ...known };
    expect(judgeBill(bill, gates, 5_000)?.reason ?? null).toBe(reason);
  });

  it.each([
    [{ lines: 49, total: 499 }, false],
    [{ lines: 50, total: 100 }, true],
    [{ lines: 10, total: 500 }, true],
  ])('judges a file: %o', (file, unusual) => {
    const usual = { files: 5, lines: 10, total: 100, bill: 10 };
    expect(isFileUnusual(file, usual, 5)).toBe(unusual);
    expect(isFileUnusual(file, { ...usual, files: 4 }, 5)).toBe(false);
    expect(isFileUnusual(file, usual, 0)).toBe(false);
  });

  it('rules are read, and what is no condition is refused', () => {
    expect(parseReleaseRule('file=a.csv,amount<=50000')).toEqual({
      reason: null,
      file: 'a.csv',
      amountAtMost: 50_000,
      timesAtMost: null,
    });
    for (const wrong of ['', 'reason=TIE_OUT_OPEN', 'times<=0', 'amount<50', 'everything'])
      expect(() => parseReleaseRule(wrong)).toThrow(/no condition of a rule/);
  });
});
