import type { Temporal } from 'temporal-polyfill';
import { addBankDays, nextBankDay, previousBankDay } from './bank-days.ts';

/** A day of the month (1 to 31; 31 is the last day of a shorter month), or the bill's own due date. */
export type DebitDay = number | 'due_date';

/** `late`: the bill goes to a pay link, with the warning `W_LATE_FOR_DEBIT`. */
export type DebitDate = { on: Temporal.PlainDate } | { late: true };

function dayOfMonth(month: Temporal.PlainDate, day: number): Temporal.PlainDate {
  return month.with({ day: Math.min(day, month.daysInMonth) });
}

/**
 * When an automatic bill is debited: the debit day of the due date's month, rolled to the next bank day. It is late
 * when that is after the due date (rolled alike) or before the business date. `submitBankDaysBefore` is for bank
 * debits, whose request must leave that many bank days earlier.
 */
export function debitDate(bill: {
  debitDay: DebitDay;
  dueOn: Temporal.PlainDate;
  businessDate: Temporal.PlainDate;
  submitBankDaysBefore?: number;
  /** With it a bill that is late for its debit day waits for the next one. */
  late?: 'link' | 'next_debit_day';
}): DebitDate {
  const rolledDue = nextBankDay(bill.dueOn);
  const on = bill.debitDay === 'due_date' ? rolledDue : nextBankDay(dayOfMonth(bill.dueOn, bill.debitDay));
  const lastMoment =
    bill.submitBankDaysBefore === undefined ? on : addBankDays(on, -Math.abs(bill.submitBankDaysBefore));
  if (!isAfter(on, rolledDue) && !isAfter(bill.businessDate, lastMoment)) return { on };
  if (bill.late !== 'next_debit_day' || bill.debitDay === 'due_date') return { late: true };
  if (!isAfter(bill.businessDate, lastMoment)) return { on };
  const earliest = addBankDays(bill.businessDate, Math.abs(bill.submitBankDaysBefore ?? 0));
  return { on: nextDebitDay(earliest.subtract({ days: 1 }), bill.debitDay) };
}

/** The first payday strictly after the date. Wages are paid before a closed day: 25 December 2027 is paid on the 24th. */
export function nextPayday(after: Temporal.PlainDate, paydayDay = 25): Temporal.PlainDate {
  let month = after.with({ day: 1 });
  for (;;) {
    const payday = previousBankDay(dayOfMonth(month, paydayDay));
    if (isAfter(payday, after)) return payday;
    month = month.add({ months: 1 });
  }
}

/** The first debit day strictly after the date, rolled to the next bank day. */
export function nextDebitDay(after: Temporal.PlainDate, debitDay: number): Temporal.PlainDate {
  // A debit day at the end of last month may roll into this one: 31 October 2026 is debited on 2 November.
  let month = after.with({ day: 1 }).subtract({ months: 1 });
  for (;;) {
    const day = nextBankDay(dayOfMonth(month, debitDay));
    if (isAfter(day, after)) return day;
    month = month.add({ months: 1 });
  }
}

export function isAfter(one: Temporal.PlainDate, other: Temporal.PlainDate): boolean {
  if (one.year !== other.year) return one.year > other.year;
  if (one.month !== other.month) return one.month > other.month;
  return one.day > other.day;
}
