import fc from 'fast-check';
import { Temporal } from 'temporal-polyfill';
import { describe, expect, it } from 'vitest';
import { parseCountedOffset, parseOffset } from '../../billing/calendar/offsets.ts';
import {
  agendaFor,
  type Decision,
  type DunningAttempt,
  type DunningFacts,
  type DunningPolicy,
  decideNext,
  linkEndsOn,
  returnDate,
} from '../../billing/dunning/decide.ts';

const day = (text: string) => Temporal.PlainDate.from(text, { overflow: 'reject' });
function offset(text: string) {
  const parsed = parseOffset(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.offset;
}
function counted(text: string) {
  const parsed = parseCountedOffset(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  return parsed.offset;
}

const policy: DunningPolicy = {
  attempts: 4,
  on: ['+0d', '+3bd', '+10bd', 'next_payday'].map(offset),
  returnAfter: counted('+30d'),
  reminders: ['-3bd', '+1bd', '+7bd'].map(counted),
  linkValidDays: 60,
  paydayDay: 25,
  debitDay: 'due_date',
};

function facts(some: Partial<DunningFacts> & { today: Temporal.PlainDate }): DunningFacts {
  const auto = some.collection === 'auto';
  return {
    collection: 'link',
    businessDate: day('2026-11-25'),
    dueOn: day('2026-12-28'),
    debitOn: auto ? day('2026-12-28') : null,
    attempts: [],
    noticesSent: [],
    holds: [],
    policy,
    fellBackToLink: false,
    unknownOutcome: false,
    locked: false,
    hasValidMethod: auto,
    watermarks: [{ way: 'card', upTo: some.today.subtract({ days: 1 }) }],
    ...some,
  };
}

const failed = (
  on: string,
  kind: 'auto' | 'customer' = 'auto',
  notBeforeOn: string | null = null,
): DunningAttempt => ({
  on: day(on),
  kind,
  outcome: 'failed',
  verdict: { kind: 'retry_at', notBeforeOn: notBeforeOn === null ? null : day(notBeforeOn) },
});
const withVerdict = (on: string, kind: 'needs_customer' | 'never_this_method' | 'stop' | 'no_rule') => ({
  ...failed(on),
  verdict: { kind, notBeforeOn: null },
});
const sent = (...notices: [string, string][]) => notices.map(([step, on]) => ({ step, on: day(on) }));

/** `wait 2026-12-28 scheduled`, `notify reminder:-3bd`, `charge 2`... */
function told(decision: Decision): string {
  switch (decision.kind) {
    case 'wait':
      return `wait ${decision.until} ${decision.why}`;
    case 'charge':
      return `charge ${decision.attempt}`;
    case 'notify':
      return `notify ${decision.step}`;
    case 'fall_back_to_link':
      return `fall back ${decision.why}`;
    case 'park':
      return `park ${decision.reason}`;
    case 'return_unpaid':
      return 'return';
  }
}

/** Lives through days as the jobs would: decides, acts, decides again, until nothing is left for the day. */
function live(start: DunningFacts, until: string, declines: (attempt: number) => DunningAttempt['verdict']) {
  const story: string[] = [];
  let now = start;
  for (let today = start.today; Temporal.PlainDate.compare(today, day(until)) <= 0; ) {
    now = { ...now, today, watermarks: [{ way: 'card', upTo: today.subtract({ days: 1 }) }] };
    const decision = decideNext(now);
    const agenda = agendaFor(now);
    if (decision.kind === 'wait') {
      expect(agenda.on.equals(decision.until)).toBe(true);
      today = agenda.on;
      continue;
    }
    expect(agenda).toEqual({ on: today, act: decision.kind === 'charge' ? 'charge' : 'dun' });
    story.push(`${today} ${told(decision)}`);
    if (decision.kind === 'return_unpaid' || decision.kind === 'park') return story;
    if (decision.kind === 'notify') {
      now = { ...now, noticesSent: [...now.noticesSent, { step: decision.step, on: today }] };
    } else if (decision.kind === 'fall_back_to_link') {
      now = { ...now, fellBackToLink: true };
    } else {
      const verdict = declines(decision.attempt);
      now = { ...now, attempts: [...now.attempts, { on: today, kind: 'auto', outcome: 'failed', verdict }] };
    }
  }
  return story;
}
const softly = () => ({ kind: 'retry_at' as const, notBeforeOn: null });

describe('a bill paid by link', () => {
  it('is told, reminded three times and returned', () => {
    expect(live(facts({ today: day('2026-11-25') }), '2027-03-01', softly)).toEqual([
      '2026-11-25 notify first_notice',
      '2026-12-23 notify reminder:-3bd',
      '2026-12-29 notify reminder:+1bd',
      '2027-01-08 notify reminder:+7bd',
      '2027-01-27 return',
    ]);
  });

  it('that comes late gets no reminder whose day has passed', () => {
    const late = facts({ today: day('2027-01-05'), businessDate: day('2027-01-05') });
    expect(live(late, '2027-03-01', softly)).toEqual([
      '2027-01-05 notify first_notice',
      '2027-01-08 notify reminder:+7bd',
      '2027-01-27 return',
    ]);
  });

  it('catches up after an outage in the notices’ order, one a day', () => {
    const noticesSent = sent(['first_notice', '2026-11-25']);
    expect(live(facts({ today: day('2027-01-13'), noticesSent }), '2027-01-20', softly)).toEqual([
      '2027-01-13 notify reminder:-3bd',
      '2027-01-14 notify reminder:+1bd',
      '2027-01-15 notify reminder:+7bd',
    ]);
  });

  it('is not reminded or returned before every way to pay has reported', () => {
    const noticesSent = sent(['first_notice', '2026-11-25'], ['reminder:-3bd', '2026-12-23']);
    const watermarks = (barcode: string | null) => [
      { way: 'card', upTo: day('2026-12-28') },
      { way: 'barcode', upTo: barcode === null ? null : day(barcode) },
    ];
    const at = (barcode: string | null) =>
      told(decideNext(facts({ today: day('2026-12-29'), noticesSent, watermarks: watermarks(barcode) })));
    expect(at(null)).toBe('wait 2026-12-30 watermark');
    expect(at('2026-12-27')).toBe('wait 2026-12-30 watermark');
    expect(at('2026-12-28')).toBe('notify reminder:+1bd');
    const atReturn = (upTo: string) =>
      told(
        decideNext(
          facts({ today: day('2027-01-28'), noticesSent, watermarks: [{ way: 'card', upTo: day(upTo) }] }),
        ),
      );
    expect(atReturn('2027-01-25')).toBe('wait 2027-01-29 watermark');
    expect(atReturn('2027-01-26')).toBe('return');
  });

  it('ends its link with the return, the days for the news before it, or after its own days', () => {
    const bill = facts({ today: day('2026-11-25') });
    expect(linkEndsOn(bill).toString()).toBe('2027-01-24'); // 60 days from the business date
    expect(linkEndsOn(bill, 5).toString()).toBe('2027-01-21');
    expect(linkEndsOn({ ...bill, fellBackToLink: true }).toString()).toBe('2027-01-26');
    expect(linkEndsOn({ ...bill, dueOn: day('2027-03-01') }).toString()).toBe('2027-03-01');
    expect(returnDate(bill).toString()).toBe('2027-01-27');
  });
});

describe('a bill on automatic payment', () => {
  const auto = (some: Partial<DunningFacts> & { today: Temporal.PlainDate }) =>
    facts({ collection: 'auto', ...some });

  it('is charged four times, told each failure, then falls back to a link and is returned', () => {
    expect(live(auto({ today: day('2026-11-25') }), '2027-03-01', softly)).toEqual([
      '2026-12-28 charge 1',
      '2026-12-28 notify failure:1',
      '2027-01-04 charge 2',
      '2027-01-04 notify failure:2',
      '2027-01-14 charge 3',
      '2027-01-14 notify failure:3',
      '2027-01-25 charge 4',
      '2027-01-25 fall back attempts_exhausted',
      '2027-01-25 notify fallback_link',
      '2027-01-27 return',
    ]);
  });

  it.each(['needs_customer', 'never_this_method'] as const)(
    'falls back at once on %s, with one SMS for both',
    (kind) => {
      const story = live(auto({ today: day('2026-12-28') }), '2027-03-01', () => ({
        kind,
        notBeforeOn: null,
      }));
      expect(story).toEqual([
        '2026-12-28 charge 1',
        `2026-12-28 fall back ${kind}`,
        '2026-12-28 notify fallback_link',
        '2026-12-29 notify reminder:+1bd',
        '2027-01-08 notify reminder:+7bd',
        '2027-01-27 return',
      ]);
    },
  );

  it.each([
    [{ attempts: [withVerdict('2026-12-28', 'no_rule')] }, 'park no_rule'],
    [{ attempts: [withVerdict('2026-12-28', 'stop')] }, 'park verdict_stop'],
    [{ attempts: [{ ...failed('2026-12-28'), verdict: null }] }, 'park verdict_missing'],
    [{ hasValidMethod: false }, 'fall back no_method'],
    [{ debitOn: null }, 'fall back no_debit_date'],
    [{ unknownOutcome: true }, 'wait 2026-12-29 unknown_outcome'],
    [
      { attempts: [{ ...failed('2026-12-28'), outcome: 'unknown' as const }] },
      'wait 2026-12-29 unknown_outcome',
    ],
    [{ locked: true }, 'wait 2026-12-29 locked'],
    [{ holds: [{ kind: 'dispute', until: day('2027-01-31') }] }, 'wait 2027-02-01 held'],
    [{ holds: [{ kind: 'hardship', until: null }] }, 'wait 2027-01-27 held'],
    [{ holds: [{ kind: 'dispute', until: day('2026-12-27') }] }, 'charge 1'],
    // The customer's own declined try on the pay page uses up none of the attempts.
    [{ attempts: [failed('2026-12-20', 'customer')] }, 'charge 1'],
    // The first attempt needs no watermark, the second does.
    [{ watermarks: [{ way: 'barcode', upTo: null }] }, 'charge 1'],
  ])('with %o: %s', (some, expected) => {
    expect(told(decideNext(auto({ today: day('2026-12-28'), ...some })))).toBe(expected);
  });

  it('waits for the network’s advice, and for the watermark before a second attempt', () => {
    const noticesSent = sent(['failure:1', '2026-12-28']);
    const waits = auto({
      today: day('2027-01-04'),
      attempts: [failed('2026-12-28', 'auto', '2027-01-07')],
      noticesSent,
    });
    expect(told(decideNext(waits))).toBe('wait 2027-01-07 scheduled');
    expect(agendaFor(waits)).toEqual({ on: day('2027-01-07'), act: 'charge' });
    const due = {
      ...waits,
      today: day('2027-01-07'),
      watermarks: [{ way: 'barcode', upTo: day('2027-01-05') }],
    };
    expect(told(decideNext(due))).toBe('wait 2027-01-08 watermark');
    expect(told(decideNext({ ...due, watermarks: [{ way: 'barcode', upTo: day('2027-01-06') }] }))).toBe(
      'charge 2',
    );
  });

  it('falls back when no attempt fits before the return, so that the customer still has a way', () => {
    const some = { attempts: [failed('2026-12-28', 'auto', '2027-01-27')], noticesSent: [] };
    expect(told(decideNext(auto({ today: day('2026-12-28'), ...some })))).toBe(
      'fall back no_attempt_before_return',
    );
  });

  it('never makes two attempts on one day, however late the first ran', () => {
    const some = { attempts: [failed('2027-01-05')], noticesSent: sent(['failure:1', '2027-01-05']) };
    expect(told(decideNext(auto({ today: day('2027-01-05'), ...some })))).toBe('wait 2027-01-06 scheduled');
  });
});

describe('whatever the facts', () => {
  const dates = fc.integer({ min: 0, max: 500 }).map((days) => day('2026-10-01').add({ days }));
  const anyFacts = fc
    .record({
      collection: fc.constantFrom('link' as const, 'auto' as const),
      businessDate: dates,
      dueOn: dates,
      today: dates,
      attempts: fc.array(
        fc.record({
          on: dates,
          kind: fc.constantFrom('auto' as const, 'customer' as const),
          outcome: fc.constantFrom('failed' as const, 'failed' as const, 'unknown' as const),
          verdict: fc.record({
            kind: fc.constantFrom(
              ...(['retry_at', 'retry_at', 'needs_customer', 'stop', 'no_rule'] as const),
            ),
            notBeforeOn: fc.option(dates),
          }),
        }),
        { maxLength: 5 },
      ),
      noticesSent: fc.array(
        fc.record({
          step: fc.constantFrom(
            'first_notice',
            'fallback_link',
            'failure:1',
            'reminder:-3bd',
            'reminder:+1bd',
          ),
          on: dates,
        }),
      ),
      holds: fc.array(fc.record({ kind: fc.constant('dispute'), until: fc.option(dates) }), { maxLength: 1 }),
      fellBackToLink: fc.boolean(),
      unknownOutcome: fc.boolean(),
      locked: fc.boolean(),
      hasValidMethod: fc.boolean(),
      watermarks: fc.array(fc.record({ way: fc.constant('barcode'), upTo: fc.option(dates) }), {
        maxLength: 2,
      }),
    })
    .map(
      (some): DunningFacts => ({ ...some, policy, debitOn: some.collection === 'auto' ? some.dueOn : null }),
    );

  it('nothing is done while an outcome is unknown, a lock or a hold stands', () => {
    fc.assert(
      fc.property(anyFacts, (some) => {
        const held = some.holds.some(
          ({ until }) => until === null || Temporal.PlainDate.compare(until, some.today) >= 0,
        );
        const unknown = some.unknownOutcome || some.attempts.some((attempt) => attempt.outcome === 'unknown');
        if (unknown || some.locked || held) expect(decideNext(some).kind).toBe('wait');
      }),
      { numRuns: 500 },
    );
  });

  it('every bill has a day on which it is looked at, after today when there is nothing to do', () => {
    fc.assert(
      fc.property(anyFacts, (some) => {
        const decision = decideNext(some);
        const agenda = agendaFor(some);
        const order = Temporal.PlainDate.compare(agenda.on, some.today);
        expect(order).toBe(decision.kind === 'wait' ? 1 : 0);
        if (decision.kind === 'charge') expect(agenda.act).toBe('charge');
      }),
      { numRuns: 500 },
    );
  });

  it('a step once sent is not sent again, and no more is charged than the policy allows', () => {
    fc.assert(
      fc.property(anyFacts, (some) => {
        const decision = decideNext(some);
        if (decision.kind === 'notify') {
          expect(some.noticesSent.map((notice) => notice.step)).not.toContain(decision.step);
        }
        if (decision.kind === 'charge') {
          expect(decision.attempt).toBeLessThanOrEqual(policy.attempts);
          expect(some.hasValidMethod && !some.fellBackToLink).toBe(true);
          const sameDay = some.attempts.filter((one) => one.kind === 'auto' && one.on.equals(some.today));
          expect(sameDay).toEqual([]);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('the attempts of a schedule lie on ascending days and end before the return', () => {
    fc.assert(
      fc.property(dates, dates, (businessDate, dueOn) => {
        const bill = facts({ collection: 'auto', today: businessDate, businessDate, dueOn, debitOn: dueOn });
        const story = live(bill, '2029-01-01', softly);
        const charges = story
          .filter((entry) => entry.includes(' charge '))
          .map((entry) => entry.slice(0, 10));
        expect(new Set(charges).size).toBe(charges.length);
        expect([...charges].sort()).toEqual(charges);
        expect(story.at(-1)).toMatch(/return$/);
        for (const on of charges) expect(on < returnDate(bill).toString()).toBe(true);
        expect(story.length).toBeLessThan(16);
      }),
    );
  });
});
