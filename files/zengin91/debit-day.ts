import { isRealDate } from '../standard/names.ts';

/**
 * The date of a debit day that has no year. `forward`: the first such day from the reference date on, as in a request;
 * `nearest`: the one closest to it, as in a result. Null: no such day, or 29 February where the year that is meant has
 * none; it is never moved to another day.
 */
export function resolveDebitDay(
  monthDay: string,
  reference: string,
  towards: 'forward' | 'nearest',
): string | null {
  if (!/^[0-9]{4}$/.test(monthDay)) return null;
  const year = Number(reference.slice(0, 4));
  const candidates = [year - 1, year, year + 1].map(
    (each) => `${String(each).padStart(4, '0')}-${monthDay.slice(0, 2)}-${monthDay.slice(2)}`,
  );
  const from = dayNumber(reference);
  const away = (date: string): number => Math.abs(dayNumber(date) - from);
  const chosen =
    towards === 'forward'
      ? candidates.find((date) => date >= reference)
      : candidates.sort((one, other) => away(one) - away(other))[0];
  return chosen !== undefined && isRealDate(chosen) ? chosen : null;
}

/** 29 February counts as the day after the 28th in every year: it is meant where it is nearest, and refused there. */
function dayNumber(date: string): number {
  const [year = 0, month = 1, day = 1] = date.split('-').map(Number);
  return Date.UTC(year, month - 1, day) / 86_400_000;
}
