import process from 'node:process';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { crashPoints } from '../billing/crash-points.ts';
import { chanceOf } from '../cli/simulation/chance.ts';
import { BillingDay, compileProcess, type DayOptions } from './billing-day.ts';
import { boundariesWithoutPoint, changingMethods, type Step } from './boundaries.ts';

/**
 * A billing process is killed at every boundary to the outside and started again: at the end the gateway, the carrier and
 * the merchant's folders know what they would have known anyhow.
 */
/** Not how long it takes, but when it hangs. */
vi.setConfig({ testTimeout: 300_000 });

/** With 2, the process that goes on dies too, at its second passing of the point: for a fourth of the time more. */
const deathsOfEach = Number(process.env.CRASH_DEATHS ?? 1);

let built: ReturnType<typeof compileProcess>;

beforeAll(() => {
  built = compileProcess();
});
afterAll(() => built?.remove());

async function inDay<T>(
  options: Omit<DayOptions, 'program'>,
  live: (day: BillingDay) => Promise<T>,
): Promise<T> {
  const day = await BillingDay.open({ ...options, program: built.program });
  try {
    return await live(day);
  } finally {
    await day.close();
  }
}

describe('the observer', () => {
  const step = (kind: Step['kind'], what: string, actor = 'charge 1', inTransaction = false): Step => ({
    actor,
    kind,
    what,
    about: '',
    inTransaction,
  });
  const commit = step('commit', 'charges');
  const call = [step('call', 'gateway.charge'), step('answer', 'gateway.charge')];
  const point = step('point', 'charge.after_intent');

  test.each<[string, Step[], string[]]>([
    ['a point on either side', [commit, point, ...call, point, commit], []],
    ['calls and commits among their own', [commit, commit, point, ...call, ...call], []],
    [
      'none before the call',
      [commit, ...call],
      ['charge: no crash point between the commit of charges and gateway.charge'],
    ],
    [
      'none after it',
      [commit, point, ...call, commit],
      ['charge: no crash point between gateway.charge and the commit of charges'],
    ],
    [
      "another's point",
      [commit, step('point', 'charge.after_intent', 'charge 2'), ...call],
      ['charge: no crash point between the commit of charges and gateway.charge'],
    ],
    [
      'a transaction that is open',
      [step('call', 'gateway.charge', 'charge 1', true)],
      ['charge: gateway.charge is called out of an open transaction'],
    ],
  ])('%s', (_, steps, faults) => {
    expect(boundariesWithoutPoint(steps)).toEqual(faults);
  });

  test('counts every method that it does not know as one that changes something', () => {
    const methods = [
      'gateway.lookup',
      'gateway.refund',
      'store.stat',
      'store.rename',
      'alerts.post',
      'openStore',
    ];
    expect(changingMethods(methods.map((what) => step('method', what)))).toEqual([
      'alerts.post',
      'gateway.refund',
      'store.rename',
    ]);
  });
});

test('a day that nobody disturbs passes every crash point, and every boundary has one', () =>
  inDay({}, async (day) => {
    await day.walk();
    expect(day.deaths).toEqual([]);
    await day.expectAtRest();
    const passed = day.passedTimes();
    // One that the day does not come to is killed by nobody below: give the day what leads there.
    expect(crashPoints.filter((point) => !passed.has(point))).toEqual([]);
    const steps = day.steps();
    expect(boundariesWithoutPoint(steps)).toEqual([]);
    // Nor does anybody see what stands around a call that the day never makes.
    const called = new Set(steps.filter(({ kind }) => kind === 'call').map(({ what }) => what));
    expect(changingMethods(steps).filter((method) => !called.has(method))).toEqual([]);
  }));

describe.concurrent('killed', () => {
  test.for(crashPoints)('at %s, and started again', (point) =>
    inDay({}, async (day) => {
      await day.walk(Array.from({ length: deathsOfEach }, (_, no) => ({ point, nth: no + 1 })));
      const [first, ...later] = day.deaths;
      expect(first).toEqual({ signal: 'SIGKILL', code: null, at: point });
      // Those after it may find too little left that leads there.
      expect(later.filter(({ signal, at }) => signal !== 'SIGKILL' || at !== point)).toEqual([]);
      await day.expectAtRest();
      expect(boundariesWithoutPoint(day.steps())).toEqual([]);
    }),
  );
});

test('three processes do the same days at once, and ten times one of them is killed', () =>
  inDay({ merchants: 2 }, async (day) => {
    await day.stress(3, 10, chanceOf(1, 'kills'));
    expect(day.deaths.map(({ signal }) => signal)).toEqual(Array.from({ length: 10 }, () => 'SIGKILL'));
    await day.expectAtRest();
  }));
