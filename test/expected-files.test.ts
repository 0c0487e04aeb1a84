import { Temporal } from 'temporal-polyfill';
import { afterEach, beforeEach, describe, expect, it, test } from 'vitest';
import type { ExpectedFile } from '../billing/calendar/expected-days.ts';
import { cutOffOf, expectedBefore, expectedDays } from '../billing/calendar/expected-days.ts';
import { trace } from '../jobs/trace.ts';
import { billingFile, billingName, type Office, openOffice } from './inbox.ts';

const day = (text: string) => Temporal.PlainDate.from(text);

describe('the days of a calendar', () => {
  const cases: [ExpectedFile['on'], ExpectedFile['roll'], string, string, string[]][] = [
    ['business_days', 'next', '2026-11-20', '2026-11-25', ['2026-11-20', '2026-11-24', '2026-11-25']],
    ['business_days', 'next', '2026-12-30', '2027-01-04', ['2026-12-30', '2027-01-04']],
    [25, 'next', '2026-11-01', '2026-12-31', ['2026-11-25', '2026-12-25']],
    [28, 'next', '2026-11-01', '2026-11-30', ['2026-11-30']],
    [28, 'previous', '2026-11-01', '2026-11-30', ['2026-11-27']],
    // Rolled, the end of a month may lie in the next one; banks are closed from 31 December to 3 January.
    [31, 'next', '2027-01-01', '2027-02-28', ['2027-01-04', '2027-02-01']],
    [31, 'previous', '2027-01-01', '2027-02-28', ['2027-01-29', '2027-02-26']],
    [1, 'previous', '2026-10-31', '2026-11-01', []],
    [1, 'previous', '2026-10-30', '2026-10-31', ['2026-10-30']],
  ];
  test.each(cases)('%s rolled %s from %s to %s', (on, roll, from, to, days) => {
    expect(expectedDays({ on, roll }, day(from), day(to)).map(String)).toEqual(days);
  });

  test('what came since the day before is for this one', () => {
    expect(expectedBefore({ on: 'business_days', roll: 'next' }, day('2026-11-24')).toString()).toBe(
      '2026-11-20',
    );
    expect(expectedBefore({ on: 31, roll: 'next' }, day('2027-02-01')).toString()).toBe('2027-01-04');
  });

  test('the cut-off is by the merchant’s clock', () => {
    expect(cutOffOf({ byMinute: 20 * 60 }, day('2026-11-25'), 'Asia/Tokyo').toString()).toBe(
      '2026-11-25T11:00:00Z',
    );
  });
});

describe('a file that is expected', () => {
  let office: Office;
  beforeEach(async () => {
    office = await openOffice('minato-gas', '2026-11-25T00:00:00Z');
    await office.change((settings) => ({
      ...settings,
      calendar: [{ kind: 'billing', on: 'business_days', roll: 'next', byMinute: 20 * 60 }],
    }));
  });
  afterEach(() => office.close());

  const late = () =>
    office.db.query<{ cause: string; level: string }>(
      `select cause, level from alerts where cause like 'FILE_LATE%' and resolved_at is null order by cause`,
    );
  const at = async (instant: string) => {
    office.clock.set(instant);
    const end = await office.run(trace, instant.slice(0, 10));
    return end.counts.files_late ?? 0;
  };

  it('is late past its cut-off: one alert, however often it is looked for, closed when it comes', async () => {
    expect(await at('2026-11-25T10:59:00Z')).toBe(0);
    expect(await at('2026-11-25T11:00:00Z')).toBe(1);
    expect(await at('2026-11-25T11:30:00Z')).toBe(1);
    expect(await late()).toEqual([{ cause: 'FILE_LATE billing 2026-11-25', level: 'now' }]);
    office.drop(billingName(1), billingFile(1, [{}]));
    await office.fetch();
    await office.ingest();
    expect(await at('2026-11-25T12:00:00Z')).toBe(0);
    expect(await late()).toEqual([]);
  });

  it('in time is no alert, and one of the next day does not stand for it', async () => {
    office.drop(billingName(1), billingFile(1, [{}]));
    await office.fetch();
    expect(await at('2026-11-25T11:05:00Z')).toBe(0);
    expect(await at('2026-11-26T11:05:00Z')).toBe(1);
    office.drop(billingName(2), billingFile(2, [{}], { businessDate: '2026-11-27' }));
    await office.fetch();
    await office.ingest('2026-11-27');
    expect(await at('2026-11-27T11:05:00Z')).toBe(1);
    expect(await late()).toEqual([{ cause: 'FILE_LATE billing 2026-11-26', level: 'now' }]);
    // A weekend and no file: nothing is expected.
    expect(await at('2026-11-29T23:00:00Z')).toBe(1);
  });

  it('that was refused has not come, and a calendar taken back expects nothing', async () => {
    office.drop(billingName(1), billingFile(1, [{}], { count: 9 }));
    await office.fetch();
    await office.ingest();
    expect(await at('2026-11-25T11:05:00Z')).toBe(1);
    await office.change((settings) => ({ ...settings, calendar: [] }));
    expect(await at('2026-11-25T11:10:00Z')).toBe(0);
    expect(await late()).toEqual([]);
  });

  it('of before there was a calendar is owed by nobody', async () => {
    expect(await at('2026-11-25T09:00:00Z')).toBe(0);
    expect(await late()).toEqual([]);
  });
});
