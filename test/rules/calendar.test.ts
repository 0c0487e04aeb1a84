import fc from 'fast-check';
import { Temporal } from 'temporal-polyfill';
import { describe, expect, it } from 'vitest';
import { addBankDays, isBankDay, nextBankDay, previousBankDay } from '../../billing/calendar/bank-days.ts';
import { debitDate, nextDebitDay, nextPayday } from '../../billing/calendar/debit-date.ts';
import { businessDateOf, hoursAllow, nextAllowed, parseHours } from '../../billing/calendar/hours.ts';
import {
  applyOffset,
  formatOffset,
  parseCountedOffset,
  parseOffset,
} from '../../billing/calendar/offsets.ts';

const day = (text: string) => Temporal.PlainDate.from(text, { overflow: 'reject' });
const anyDay = fc.integer({ min: 0, max: 365 * 40 }).map((days) => day('2005-01-01').add({ days }));

describe('bank days', () => {
  it.each([
    ['2026-11-27', true],
    ['2026-11-28', false], // Saturday
    ['2026-11-23', false], // Labor Thanksgiving Day
    ['2026-12-30', true],
    ['2026-12-31', false], // a Thursday, but banks are closed
    ['2026-01-02', false], // a Friday, but banks are closed
    ['2027-01-04', true],
    ['2026-05-06', false], // substitute for 3 May, a Sunday
    ['2026-09-22', false], // bridge day between two holidays
    ['2024-02-29', true],
  ])('%s is a bank day: %s', (date, expected) => {
    expect(isBankDay(day(date))).toBe(expected);
  });

  it.each([
    // Deadlines that Japanese collection agencies published: 7 bank days before the debit.
    ['2021-02-08', -7, '2021-01-28'],
    ['2021-05-06', -7, '2021-04-21'],
    ['2022-01-06', -7, '2021-12-24'],
    ['2026-12-28', 3, '2027-01-04'],
    ['2026-11-28', 0, '2026-11-30'],
    ['2026-11-28', 1, '2026-12-01'],
    ['2026-11-28', -1, '2026-11-27'],
    ['2024-02-28', 1, '2024-02-29'],
    ['2024-02-29', 1, '2024-03-01'],
  ])('%s and %i bank days is %s', (from, count, expected) => {
    expect(addBankDays(day(from), count).toString()).toBe(expected);
  });

  it('refuses dates that the holiday table does not reach', () => {
    expect(nextBankDay(day('2050-12-30')).toString()).toBe('2050-12-30');
    for (const act of [
      () => isBankDay(day('2051-01-04')),
      () => isBankDay(day('1969-12-30')),
      () => nextBankDay(day('2050-12-31')),
      () => addBankDays(day('2050-12-30'), 1),
      () => addBankDays(day('1970-01-05'), -5),
    ]) {
      expect(act).toThrow(expect.objectContaining({ code: 'CALENDAR_HORIZON' }));
    }
  });

  it('rolls to bank days only, and a longer count is always a later bank day', () => {
    fc.assert(
      fc.property(anyDay, fc.integer({ min: -40, max: 40 }), (date, count) => {
        const one = addBankDays(date, count);
        expect(isBankDay(one)).toBe(true);
        expect(Temporal.PlainDate.compare(one, addBankDays(date, count + 1))).toBe(-1);
        expect(Temporal.PlainDate.compare(previousBankDay(date), date)).toBeLessThanOrEqual(0);
        expect(Temporal.PlainDate.compare(nextBankDay(date), date)).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe('offsets', () => {
  it.each(['+0d', '+3bd', '-7bd', '+30d', 'next_payday', 'next_debit_day'])(
    '%s is read and written',
    (text) => {
      const parsed = parseOffset(text);
      expect(parsed.ok && formatOffset(parsed.offset)).toBe(text);
    },
  );

  it.each([
    ['3bd', 'sign is missing'],
    ['+3', 'unit is missing'],
    ['+3 bd', 'must look like'],
    ['-0bd', '+0bd instead'],
    ['+1000d', 'more than 999'],
    ['tomorrow', 'must look like'],
  ])('%s is refused: %s', (text, reason) => {
    expect(parseOffset(text)).toEqual({ ok: false, reason: expect.stringContaining(reason) });
  });

  it('takes no named day where a number of days is wanted', () => {
    expect(parseCountedOffset('next_payday').ok).toBe(false);
  });

  it('counts from the base, and named days from the attempt before', () => {
    const around = { previous: day('2027-01-14'), paydayDay: 25, debitDay: 27 };
    expect(applyOffset(day('2026-12-28'), { kind: 'bank_days', count: 10 }, around).toString()).toBe(
      '2027-01-14',
    );
    expect(applyOffset(day('2026-12-28'), { kind: 'days', count: 5 }, around).toString()).toBe('2027-01-02');
    expect(applyOffset(day('2026-12-28'), { kind: 'next_payday' }, around).toString()).toBe('2027-01-25');
    expect(applyOffset(day('2026-12-28'), { kind: 'next_debit_day' }, around).toString()).toBe('2027-01-27');
  });
});

describe('debit dates', () => {
  it.each([
    // debit day, due, business date -> debit date
    [27, '2026-12-28', '2026-11-25', '2026-12-28'], // the 27th is a Sunday
    [27, '2026-12-31', '2026-11-25', '2026-12-28'],
    [27, '2026-12-27', '2026-11-25', '2026-12-28'], // due on Sunday too: both rolled alike
    [27, '2026-12-25', '2026-11-25', 'late'],
    [27, '2026-11-30', '2026-11-28', 'late'], // the 27th has passed
    [27, '2026-11-30', '2026-11-27', '2026-11-27'],
    [31, '2027-02-28', '2027-02-01', '2027-03-01'], // the 28th, a Sunday
    [31, '2028-02-29', '2028-02-01', '2028-02-29'], // leap day
    [30, '2026-12-31', '2026-12-01', '2026-12-30'],
    [31, '2026-12-31', '2026-12-01', '2027-01-04'], // over the new year
    ['due_date', '2026-12-31', '2026-12-01', '2027-01-04'],
    ['due_date', '2026-12-28', '2026-11-25', '2026-12-28'],
    ['due_date', '2026-11-20', '2026-11-25', 'late'],
  ] as const)('debit day %s, due %s, in the file of %s: %s', (debitDay, dueOn, businessDate, expected) => {
    const date = debitDate({ debitDay, dueOn: day(dueOn), businessDate: day(businessDate) });
    expect('late' in date ? 'late' : date.on.toString()).toBe(expected);
  });

  it('is late for a bank debit whose request had to leave earlier', () => {
    const bill = { debitDay: 27, dueOn: day('2026-12-28'), submitBankDaysBefore: 7 };
    expect(debitDate({ ...bill, businessDate: day('2026-12-17') })).toEqual({ on: day('2026-12-28') });
    expect(debitDate({ ...bill, businessDate: day('2026-12-18') })).toEqual({ late: true });
  });

  it.each([
    ['2026-12-24', '2026-12-25'],
    ['2026-12-25', '2027-01-25'],
    ['2027-12-01', '2027-12-24'], // the 25th is a Saturday
    ['2027-12-24', '2028-01-25'],
    ['2026-04-23', '2026-04-24'],
  ])('the payday after %s is %s', (after, expected) => {
    expect(nextPayday(day(after)).toString()).toBe(expected);
  });

  it('knows paydays that roll back into the month before', () => {
    expect(nextPayday(day('2026-12-29'), 1).toString()).toBe('2026-12-30');
    expect(nextPayday(day('2026-12-30'), 1).toString()).toBe('2027-02-01');
    expect(nextPayday(day('2027-02-25'), 31).toString()).toBe('2027-02-26');
  });

  it('knows debit days that roll into the month after', () => {
    expect(nextDebitDay(day('2026-11-01'), 31).toString()).toBe('2026-11-02');
    expect(nextDebitDay(day('2026-11-02'), 31).toString()).toBe('2026-11-30');
  });
});

describe('hours', () => {
  const read = (text: string) => {
    const parsed = parseHours(text);
    if (!parsed.ok) throw new Error(parsed.reason);
    return parsed.hours;
  };
  const instant = (text: string) => Temporal.Instant.from(text);

  it.each(['9:00-19:30', '09:00', '19:30-09:00', '09:00-09:00', '09:60-10:00', '24:00-24:00', '09:00-24:01'])(
    '%s is refused',
    (text) => expect(parseHours(text).ok).toBe(false),
  );

  it.each([
    ['2026-11-25T08:59:59+09:00', false, '2026-11-25T09:00:00+09:00'],
    ['2026-11-25T09:00:00+09:00', true, '2026-11-25T09:00:00+09:00'],
    ['2026-11-25T19:29:59+09:00', true, '2026-11-25T19:29:59+09:00'],
    ['2026-11-25T19:30:00+09:00', false, '2026-11-26T09:00:00+09:00'],
    ['2026-12-31T23:00:00+09:00', false, '2027-01-01T09:00:00+09:00'],
  ])('at %s in Tokyo sending is allowed: %s, next at %s', (at, allowed, next) => {
    expect(hoursAllow(instant(at), 'Asia/Tokyo', read('09:00-19:30'))).toBe(allowed);
    expect(nextAllowed(instant(at), 'Asia/Tokyo', read('09:00-19:30')).equals(instant(next))).toBe(true);
  });

  it.each([
    // New York, 2026-03-08: 02:00 becomes 03:00. The window opens at the jump.
    ['02:30-04:00', '2026-03-08T01:00:00-05:00', '2026-03-08T03:00:00-04:00'],
    // A window that the jump swallows whole opens a day later.
    ['02:10-02:50', '2026-03-08T01:00:00-05:00', '2026-03-09T02:10:00-04:00'],
    ['09:00-19:30', '2026-03-07T20:00:00-05:00', '2026-03-08T09:00:00-04:00'],
    // 2026-11-01: 02:00 becomes 01:00 again, so the window comes twice.
    ['01:15-01:45', '2026-11-01T01:50:00-04:00', '2026-11-01T01:15:00-05:00'],
    ['01:15-01:45', '2026-11-01T01:50:00-05:00', '2026-11-02T01:15:00-05:00'],
  ])('window %s in New York after %s opens at %s', (window, at, next) => {
    const found = nextAllowed(instant(at), 'America/New_York', read(window));
    expect(found.toString()).toBe(instant(next).toString());
  });

  it('gives an instant that is allowed and not earlier, in any zone', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1_780_000_000, max: 1_820_000_000 }),
        fc.constantFrom('Asia/Tokyo', 'America/New_York', 'Australia/Lord_Howe', 'Europe/Lisbon'),
        fc.constantFrom('09:00-19:30', '00:00-24:00', '02:00-03:00', '01:45-02:15'),
        (second, zone, window) => {
          const at = Temporal.Instant.fromEpochMilliseconds(second * 1000);
          const found = nextAllowed(at, zone, read(window));
          expect(hoursAllow(found, zone, read(window))).toBe(true);
          expect(Temporal.Instant.compare(found, at)).toBeGreaterThanOrEqual(0);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes the business date from the merchant’s wall clock', () => {
    expect(businessDateOf(instant('2026-11-25T15:00:00Z'), 'Asia/Tokyo').toString()).toBe('2026-11-26');
    expect(businessDateOf(instant('2026-11-25T14:59:59Z'), 'Asia/Tokyo').toString()).toBe('2026-11-25');
  });
});
