import holidayJp from '@holiday-jp/holiday_jp';
import { Temporal } from 'temporal-polyfill';
import { Refusal } from '../refusal.ts';

/**
 * Business days of Japanese banks: not Saturdays, Sundays, national holidays (substitutes and bridge days with
 * them) or 31 December to 3 January. Dates outside the holiday table are refused and not guessed.
 */

export const CALENDAR_FIRST_YEAR = 1970;
/** The holiday table ends with 2050; the years after the last announcement are its own forecast. */
export const CALENDAR_LAST_YEAR = 2050;

/** Days since 1970-01-01 by integers only: the polyfill's arithmetic is too slow for 29,000 days at every start. */
function dayNumber(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

const FIRST = dayNumber(CALENDAR_FIRST_YEAR, 1, 1);
const LAST = dayNumber(CALENDAR_LAST_YEAR, 12, 31);

const closed = new Set<number>();
for (const date of Object.keys(holidayJp.holidays)) {
  closed.add(dayNumber(Number(date.slice(0, 4)), Number(date.slice(5, 7)), Number(date.slice(8, 10))));
}
for (let year = CALENDAR_FIRST_YEAR; year <= CALENDAR_LAST_YEAR; year += 1) {
  for (const day of [1, 2, 3]) closed.add(dayNumber(year, 1, day));
  closed.add(dayNumber(year, 12, 31));
}

/** Day numbers of all bank days, ascending. */
const bankDays: number[] = [];
/** For each day since FIRST: the index in `bankDays` of the first bank day on or after it. */
const indexAtOrAfter = new Int32Array(LAST - FIRST + 1);
for (let day = FIRST; day <= LAST; day += 1) {
  indexAtOrAfter[day - FIRST] = bankDays.length;
  // 1970-01-01 was a Thursday: day numbers 2 and 3 of each seven are Saturday and Sunday.
  const weekday = day % 7;
  if (weekday !== 2 && weekday !== 3 && !closed.has(day)) bankDays.push(day);
}

const EPOCH = Temporal.PlainDate.from('1970-01-01');
const made = new Map<number, Temporal.PlainDate>();

function dateOfIndex(index: number): Temporal.PlainDate {
  const day = bankDays[index];
  if (day === undefined) throw horizon('a bank day beyond the table');
  let date = made.get(day);
  if (date === undefined) {
    date = EPOCH.add({ days: day });
    made.set(day, date);
  }
  return date;
}

function horizon(asked: string): Refusal {
  return new Refusal('CALENDAR_HORIZON', `The bank calendar does not know ${asked}.`, {
    next: `Use dates from ${CALENDAR_FIRST_YEAR} to ${CALENDAR_LAST_YEAR}, or update the holiday table.`,
    context: { asked, first_year: CALENDAR_FIRST_YEAR, last_year: CALENDAR_LAST_YEAR },
  });
}

function offsetInTable(date: Temporal.PlainDate): number {
  const day = dayNumber(date.year, date.month, date.day);
  if (day < FIRST || day > LAST) throw horizon(date.toString());
  return day - FIRST;
}

/** Index of the first bank day on or after the date; may be one past the table's last. */
function rolledIndex(date: Temporal.PlainDate): number {
  return indexAtOrAfter[offsetInTable(date)] ?? bankDays.length;
}

export function isBankDay(date: Temporal.PlainDate): boolean {
  const offset = offsetInTable(date);
  return bankDays[indexAtOrAfter[offset] ?? 0] === offset + FIRST;
}

/** The date itself when it is a bank day, else the first one after it. */
export function nextBankDay(date: Temporal.PlainDate): Temporal.PlainDate {
  return isBankDay(date) ? date : dateOfIndex(rolledIndex(date));
}

/** The date itself when it is a bank day, else the last one before it. */
export function previousBankDay(date: Temporal.PlainDate): Temporal.PlainDate {
  return isBankDay(date) ? date : dateOfIndex(rolledIndex(date) - 1);
}

/**
 * Counts bank days from the date rolled forward: from Saturday 2026-11-28, 0 is Monday the 30th, 1 is Tuesday and
 * -1 is Friday the 27th. So 0 is never a day on which banks are closed, and a longer count is always a later day.
 */
export function addBankDays(date: Temporal.PlainDate, count: number): Temporal.PlainDate {
  return dateOfIndex(rolledIndex(date) + count);
}
