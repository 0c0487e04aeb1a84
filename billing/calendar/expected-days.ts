import { Temporal } from 'temporal-polyfill';
import { isBankDay, nextBankDay, previousBankDay } from './bank-days.ts';

/** When a file of a kind is to come: every bank day, or one day of the month rolled to a bank day. */
export interface ExpectedFile {
  kind: 'billing' | 'cancel';
  on: 'business_days' | number;
  roll: 'next' | 'previous';
  /** Minutes after midnight by the merchant's wall clock. */
  byMinute: number;
}

/** The days from `from` to `to`, both included, for which a file is expected; in order. */
export function expectedDays(
  entry: Pick<ExpectedFile, 'on' | 'roll'>,
  from: Temporal.PlainDate,
  to: Temporal.PlainDate,
): Temporal.PlainDate[] {
  const days: Temporal.PlainDate[] = [];
  if (entry.on === 'business_days') {
    for (let day = from; Temporal.PlainDate.compare(day, to) <= 0; day = day.add({ days: 1 }))
      if (isBankDay(day)) days.push(day);
    return days;
  }
  // A month before and after: rolling may lead over the end of a month.
  const last = to.add({ months: 1 });
  for (let month = from.subtract({ months: 1 }).with({ day: 1 }); ; month = month.add({ months: 1 })) {
    if (Temporal.PlainDate.compare(month, last) > 0) return days;
    const day = rolled(month.with({ day: Math.min(entry.on, month.daysInMonth) }), entry.roll);
    if (Temporal.PlainDate.compare(day, from) >= 0 && Temporal.PlainDate.compare(day, to) <= 0)
      days.push(day);
  }
}

/** The expected day before this one: what came after it, up to this one, is for this one. */
export function expectedBefore(
  entry: Pick<ExpectedFile, 'on' | 'roll'>,
  day: Temporal.PlainDate,
): Temporal.PlainDate {
  const days = expectedDays(entry, day.subtract({ months: 2 }), day.subtract({ days: 1 }));
  return days.at(-1) ?? day.subtract({ months: 2 });
}

/** When the day's file is late. Where the clock skips that time, at the jump. */
export function cutOffOf(
  entry: Pick<ExpectedFile, 'byMinute'>,
  day: Temporal.PlainDate,
  timezone: string,
): Temporal.Instant {
  const plainTime = Temporal.PlainTime.from({
    hour: Math.floor(entry.byMinute / 60),
    minute: entry.byMinute % 60,
  });
  return day.toZonedDateTime({ timeZone: timezone, plainTime }).toInstant();
}

function rolled(day: Temporal.PlainDate, roll: ExpectedFile['roll']): Temporal.PlainDate {
  return roll === 'next' ? nextBankDay(day) : previousBankDay(day);
}
