import type { Temporal } from 'temporal-polyfill';
import { assertState } from '../refusal.ts';
import { addBankDays } from './bank-days.ts';
import { type DebitDay, nextDebitDay, nextPayday } from './debit-date.ts';

/** `+3bd` (bank business days), `+30d` (calendar days), or a day of the month that comes next. */
export type CountedOffset = { kind: 'bank_days' | 'days'; count: number };
export type Offset = CountedOffset | { kind: 'next_payday' } | { kind: 'next_debit_day' };

export type ParsedOffset<T> = { ok: true; offset: T } | { ok: false; reason: string };

const COUNTED = /^([+-])(\d{1,3})(bd|d)$/;

/** Reads `+3bd`, `-7bd` or `+30d`; the sign is always written. */
export function parseCountedOffset(text: string): ParsedOffset<CountedOffset> {
  const match = COUNTED.exec(text);
  if (match === null) return { ok: false, reason: reasonFor(text) };
  const size = Number(match[2]);
  const kind = match[3] === 'bd' ? 'bank_days' : 'days';
  // -0 would make two keys of one step.
  if (size === 0 && match[1] === '-') return { ok: false, reason: `write +0${match[3]} instead of ${text}` };
  return { ok: true, offset: { kind, count: match[1] === '-' ? -size : size } };
}

/** Reads any offset: counted, `next_payday` or `next_debit_day`. */
export function parseOffset(text: string): ParsedOffset<Offset> {
  if (text === 'next_payday' || text === 'next_debit_day') return { ok: true, offset: { kind: text } };
  return parseCountedOffset(text);
}

function reasonFor(text: string): string {
  if (text === 'next_payday' || text === 'next_debit_day')
    return `${text} cannot stand here, only a number of days`;
  if (/^\d+(bd|d)$/.test(text)) return `the sign is missing: +${text} or -${text}`;
  if (/^[+-]\d+$/.test(text)) return `the unit is missing: ${text}bd (bank business days) or ${text}d (days)`;
  if (/^[+-]\d{4,}(bd|d)$/.test(text)) return 'more than 999 days';
  return 'must look like +3bd, -7bd or +30d';
}

/** The one spelling of an offset; step keys are built from it (`reminder:-3bd`). */
export function formatOffset(offset: Offset): string {
  if (offset.kind === 'next_payday' || offset.kind === 'next_debit_day') return offset.kind;
  return `${offset.count < 0 ? '-' : '+'}${Math.abs(offset.count)}${offset.kind === 'bank_days' ? 'bd' : 'd'}`;
}

export function applyCountedOffset(base: Temporal.PlainDate, offset: CountedOffset): Temporal.PlainDate {
  return offset.kind === 'bank_days' ? addBankDays(base, offset.count) : base.add({ days: offset.count });
}

/**
 * Counted offsets count from `base`. The named ones are the first such day strictly after `previous`, the attempt
 * before, so that two entries of a list never fall on one day.
 */
export function applyOffset(
  base: Temporal.PlainDate,
  offset: Offset,
  around: { previous: Temporal.PlainDate; paydayDay: number; debitDay: DebitDay },
): Temporal.PlainDate {
  switch (offset.kind) {
    case 'next_payday':
      return nextPayday(around.previous, around.paydayDay);
    case 'next_debit_day':
      assertState(around.debitDay !== 'due_date', 'next_debit_day without a debit day of the month');
      return nextDebitDay(around.previous, around.debitDay);
    case 'bank_days':
    case 'days':
      return applyCountedOffset(base, offset);
  }
}
