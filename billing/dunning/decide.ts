import type { Temporal } from 'temporal-polyfill';
import { addBankDays, nextBankDay } from '../calendar/bank-days.ts';
import { type DebitDay, isAfter, nextDebitDay } from '../calendar/debit-date.ts';
import {
  applyCountedOffset,
  applyOffset,
  type CountedOffset,
  formatOffset,
  type Offset,
} from '../calendar/offsets.ts';
import type { AgendaAct } from '../invoices/invoice.ts';
import type { Verdict } from './verdict.ts';

/**
 * The next step of one unpaid bill, as a pure function of what is known about it. The same facts always give the
 * same step, so a step may be decided again by anybody at any time; only the caller's compare-and-set acts.
 */

type PlainDate = Temporal.PlainDate;

/** The merchant's dunning settings, as far as they decide (`dunningPolicyOf`). */
export interface DunningPolicy {
  /** Automatic attempts, the first one included. */
  attempts: number;
  /** One entry per attempt, counted from the debit date. */
  on: readonly Offset[];
  /** Counted from the due date. */
  returnAfter: CountedOffset;
  /** Counted from the due date, ascending. */
  reminders: readonly CountedOffset[];
  /** Counted from the file's business date. */
  linkValidDays: number;
  paydayDay: number;
  debitDay: DebitDay;
}

export interface DunningAttempt {
  on: PlainDate;
  /** `auto` attempts use up the policy's attempts; the customer's own on the pay page do not. */
  kind: 'auto' | 'customer';
  outcome: 'failed' | 'succeeded' | 'unknown';
  /** Of a failed one; `notBeforeOn` is `firstWholeDayFrom(verdict.notBefore)`. Null on a failure: parked. */
  verdict: { kind: Verdict['kind']; notBeforeOn: PlainDate | null } | null;
}

/** Of bills that are debited by the bank, which is asked days before. */
export interface BankDebit {
  /** Bank days between asking and the debit. */
  submitBankDays: number;
  /** What becomes of a bill whose first debit day cannot be asked for any more. */
  late: 'link' | 'next_debit_day';
}

export interface DunningHold {
  kind: string;
  /** The last day of the hold; null = until it is lifted. */
  until: PlainDate | null;
}

/** `declined`: for good, on another bill. The others: as the gateway's updater said before the charge. */
export type CardEnded = 'declined' | 'closed' | 'expired';

export interface DunningFacts {
  collection: 'link' | 'auto';
  /** The business date of the file that brought the bill. */
  businessDate: PlainDate;
  dueOn: PlainDate;
  /** Of an `auto` bill: the date of `debitDate`. */
  debitOn: PlainDate | null;
  today: PlainDate;
  attempts: readonly DunningAttempt[];
  /**
   * Every step whose message is planned, sent or given up (no phone, blocked): a step counts once, whatever became
   * of its message. `on` is the day it was decided.
   */
  noticesSent: readonly { step: string; on: PlainDate }[];
  holds: readonly DunningHold[];
  policy: DunningPolicy;
  fellBackToLink: boolean;
  /** A charge with an unknown outcome stands open. */
  unknownOutcome: boolean;
  /** A collection lock stands: the customer pays at this moment, or a debit is submitted. */
  locked: boolean;
  /** The customer's enrolment still has a method that may be charged. */
  hasValidMethod: boolean;
  /** Where it has none: the card of the newest agreement was lost to us for this reason. */
  cardEnded?: CardEnded | null;
  /** Absent or null: the method is a card, charged on the day itself. */
  bankDebit?: BankDebit | null;
  /** For every way to pay that was offered: complete up to and with this date; null = nothing reported yet. */
  watermarks: readonly { way: string; upTo: PlainDate | null }[];
}

export type FallBackReason =
  | 'no_debit_date'
  | 'no_method'
  | `card_${CardEnded}`
  | 'needs_customer'
  | 'never_this_method'
  | 'attempts_exhausted'
  | 'too_late_to_ask'
  | 'no_attempt_before_return';

/** `first_notice`, `reminder:-3bd`, `failure:2` (after the second automatic attempt) or `fallback_link`. */
export type StepKey = string;

export type Decision =
  | { kind: 'wait'; until: PlainDate; why: 'scheduled' | 'unknown_outcome' | 'locked' | 'held' | 'watermark' }
  | { kind: 'charge'; on: PlainDate; attempt: number }
  | { kind: 'notify'; step: StepKey; on: PlainDate }
  | { kind: 'fall_back_to_link'; why: FallBackReason }
  | { kind: 'return_unpaid' }
  | { kind: 'park'; reason: 'no_rule' | 'verdict_stop' | 'verdict_missing' };

export interface Agenda {
  /** The earliest date on which something can happen; never before today. */
  on: PlainDate;
  /** Which job looks. */
  act: AgendaAct;
  /** Of `debit`: the day that the bank is asked for. */
  debitOn?: PlainDate;
}

/** A hold without an end is looked at once a month; lifting it writes the agenda anew. */
const OPEN_HOLD_LOOK_DAYS = 30;

type Act = Exclude<Decision, { kind: 'wait' }>;

interface Plan {
  /** The scheduled date. */
  on: PlainDate;
  act: Act;
  /** Every way to pay that was offered must have reported the day before `on`. */
  needsWatermark: boolean;
}

/** The day on which the bill goes back to the merchant unpaid. */
export function returnDate(bill: { dueOn: PlainDate; policy: DunningPolicy }): PlainDate {
  return applyCountedOffset(bill.dueOn, bill.policy.returnAfter);
}

/**
 * The last day on which a link or barcode takes money: counted from the business date, but never later than the
 * day before the return, less the days that the news of a payment takes (barcodes), and not before the due date
 * while the return allows it. After a fall-back the link is new, so it lasts to the return.
 */
export function linkEndsOn(
  bill: { businessDate: PlainDate; dueOn: PlainDate; policy: DunningPolicy; fellBackToLink: boolean },
  newsDays = 0,
): PlainDate {
  const beforeReturn = returnDate(bill).subtract({ days: 1 + newsDays });
  if (bill.fellBackToLink) return beforeReturn;
  const counted = latest(bill.businessDate.add({ days: bill.policy.linkValidDays }), bill.dueOn);
  return isAfter(counted, beforeReturn) ? beforeReturn : counted;
}

export function decideNext(facts: DunningFacts): Decision {
  const { today } = facts;
  const tomorrow = today.add({ days: 1 });
  if (facts.unknownOutcome || facts.attempts.some((attempt) => attempt.outcome === 'unknown')) {
    return { kind: 'wait', until: tomorrow, why: 'unknown_outcome' };
  }
  if (facts.locked) return { kind: 'wait', until: tomorrow, why: 'locked' };
  const heldUntil = heldPast(facts);
  if (heldUntil !== null) return { kind: 'wait', until: heldUntil, why: 'held' };

  const plan = planNext(facts);
  if (isAfter(plan.on, today)) return { kind: 'wait', until: plan.on, why: 'scheduled' };
  if (plan.needsWatermark && !reportedUpTo(facts, plan.on.subtract({ days: 1 }))) {
    return { kind: 'wait', until: tomorrow, why: 'watermark' };
  }
  return plan.act;
}

/** When the bill must be looked at next; every unpaid bill that is not parked has one such date. */
export function agendaFor(facts: DunningFacts): Agenda {
  const decision = decideNext(facts);
  if (decision.kind !== 'wait') return agendaOf(facts, facts.today, decision);
  const mayBeCharge = decision.why === 'scheduled' || decision.why === 'watermark';
  return agendaOf(facts, decision.until, mayBeCharge ? planNext(facts).act : null);
}

function agendaOf(facts: DunningFacts, on: PlainDate, act: Act | null): Agenda {
  if (act?.kind !== 'charge') return { on, act: 'dun' };
  return facts.bankDebit ? { on, act: 'debit', debitOn: act.on } : { on, act: 'charge' };
}

function planNext(facts: DunningFacts): Plan {
  const returnOn = returnDate(facts);
  const giveBack: Plan = { on: returnOn, act: { kind: 'return_unpaid' }, needsWatermark: true };
  const step = facts.collection === 'auto' && !facts.fellBackToLink ? planAuto(facts) : planLink(facts);
  if (step === null) return giveBack;
  // A person's decision is asked for even where the return has come: parked money is not "unpaid".
  if (step.act.kind === 'park') return step;
  // From the return day on nothing else happens: a reminder would point to a link that is closed.
  return isAfter(returnOn, latest(step.on, facts.today)) ? step : giveBack;
}

function planAuto(facts: DunningFacts): Plan {
  const { policy, debitOn } = facts;
  const made = facts.attempts
    .filter((attempt) => attempt.kind === 'auto')
    .sort((one, other) => (isAfter(one.on, other.on) ? 1 : isAfter(other.on, one.on) ? -1 : 0));
  const last = made.at(-1);
  const fallBack = (why: FallBackReason): Plan => ({
    on: last?.on ?? facts.businessDate,
    act: { kind: 'fall_back_to_link', why },
    needsWatermark: false,
  });

  if (debitOn === null) return fallBack('no_debit_date');
  if (last?.outcome === 'failed') {
    switch (last.verdict?.kind) {
      case undefined:
        return { on: last.on, act: { kind: 'park', reason: 'verdict_missing' }, needsWatermark: false };
      case 'no_rule':
        return { on: last.on, act: { kind: 'park', reason: 'no_rule' }, needsWatermark: false };
      case 'stop':
        return { on: last.on, act: { kind: 'park', reason: 'verdict_stop' }, needsWatermark: false };
      case 'needs_customer':
      case 'never_this_method':
        return fallBack(last.verdict.kind);
      case 'retry_at':
        break;
    }
  }
  // The last failure is told by the notice of the fall-back: one SMS says both.
  if (!facts.hasValidMethod) return fallBack(facts.cardEnded ? `card_${facts.cardEnded}` : 'no_method');
  const offset = policy.on[made.length];
  if (made.length >= policy.attempts || offset === undefined) return fallBack('attempts_exhausted');

  const slot = slotOf(facts, debitOn, offset, last);
  if (slot === null) return fallBack('too_late_to_ask');
  if (!isAfter(returnDate(facts), slot)) return fallBack('no_attempt_before_return');
  const failure = `failure:${made.length}`;
  if (last?.outcome === 'failed' && !isSent(facts, failure)) {
    return { on: last.on, act: { kind: 'notify', step: failure, on: last.on }, needsWatermark: false };
  }
  return {
    on: facts.bankDebit ? addBankDays(slot, -facts.bankDebit.submitBankDays) : slot,
    act: { kind: 'charge', on: slot, attempt: made.length + 1 },
    needsWatermark: made.length > 0,
  };
}

/** The day of the next attempt; null: the bank cannot be asked for one any more. */
function slotOf(
  facts: DunningFacts,
  debitOn: PlainDate,
  offset: Offset,
  last: DunningAttempt | undefined,
): PlainDate | null {
  const slot = slotWithoutBank(facts, debitOn, offset, last);
  const { bankDebit, policy, today } = facts;
  if (!bankDebit) return slot;
  const earliest = addBankDays(today, bankDebit.submitBankDays);
  if (!isAfter(earliest, slot)) return nextBankDay(slot);
  if (last === undefined && bankDebit.late === 'link') return null;
  if (last !== undefined && offset.kind !== 'next_debit_day') return earliest;
  if (policy.debitDay === 'due_date') return null;
  return nextDebitDay(earliest.subtract({ days: 1 }), policy.debitDay);
}

function slotWithoutBank(
  facts: DunningFacts,
  debitOn: PlainDate,
  offset: Offset,
  last: DunningAttempt | undefined,
): PlainDate {
  const { paydayDay, debitDay } = facts.policy;
  const slot = applyOffset(debitOn, offset, { previous: last?.on ?? debitOn, paydayDay, debitDay });
  if (last === undefined) return slot;
  // An attempt that ran late may have passed the next slot: never two on one day.
  const earliest = nextBankDay(last.on.add({ days: 1 }));
  const apart = isAfter(last.on, slot.subtract({ days: 1 })) ? earliest : slot;
  const notBefore = last.verdict?.notBeforeOn ?? null;
  return notBefore === null ? apart : latest(apart, notBefore);
}

function planLink(facts: DunningFacts): Plan | null {
  const { policy } = facts;
  const lastAutomatic = facts.attempts.filter((attempt) => attempt.kind === 'auto').at(-1);
  const opening = facts.fellBackToLink ? 'fallback_link' : 'first_notice';
  const opened = facts.noticesSent.find((notice) => notice.step === opening);
  if (opened === undefined) {
    const on = facts.fellBackToLink ? (lastAutomatic?.on ?? facts.businessDate) : facts.businessDate;
    return { on, act: { kind: 'notify', step: opening, on }, needsWatermark: false };
  }
  // A reminder whose day had come before the customer was first told of the link would say nothing new.
  const toldOn = facts.fellBackToLink ? opened.on : facts.businessDate;
  for (const offset of policy.reminders) {
    const on = applyCountedOffset(facts.dueOn, offset);
    const step = `reminder:${formatOffset(offset)}`;
    if (isSent(facts, step) || !isAfter(on, toldOn)) continue;
    // After an outage several are due at once: they go in their order, one a day.
    const lastNotice = facts.noticesSent.map((notice) => notice.on).reduce(latest, opened.on);
    const apart = latest(on, lastNotice.add({ days: 1 }));
    return { on: apart, act: { kind: 'notify', step, on: apart }, needsWatermark: true };
  }
  return null;
}

function isSent(facts: DunningFacts, step: StepKey): boolean {
  return facts.noticesSent.some((notice) => notice.step === step);
}

/** The first day after all holds that stand today, or null where none does. */
function heldPast(facts: DunningFacts): PlainDate | null {
  const { today } = facts;
  let until: PlainDate | null = null;
  for (const hold of facts.holds) {
    if (hold.until === null) return today.add({ days: OPEN_HOLD_LOOK_DAYS });
    if (isAfter(today, hold.until)) continue;
    const after = hold.until.add({ days: 1 });
    until = until === null ? after : latest(until, after);
  }
  return until;
}

function reportedUpTo(facts: DunningFacts, judged: PlainDate): boolean {
  return facts.watermarks.every(({ upTo }) => upTo !== null && !isAfter(judged, upTo));
}

function latest(one: PlainDate, other: PlainDate): PlainDate {
  return isAfter(other, one) ? other : one;
}
