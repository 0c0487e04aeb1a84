import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { fixedClock } from '../billing/clock.ts';
import type { LookupAnswer } from '../billing/gateways/gateway.ts';
import { absenceProvesAfter, judgeAnswer, mustClosePage } from '../billing/trace/ask.ts';
import type { OpenCharge } from '../billing/trace/queries.ts';
import { charge } from '../jobs/charge.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { fakeGateway } from './fake-gateway.ts';

let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});
beforeEach(async () => {
  world?.close();
  merchants += 1;
  world = await billsOf(database.db, { code: `water-${merchants}` });
});

const chargeState = async () =>
  (
    await database.db.query<{ state: string; asks: number }>(
      `select state, asks from charges where merchant_id = $1 order by attempt_no desc limit 1`,
      [world.merchant.id],
    )
  )[0];
const alerts = async () =>
  (
    await database.db.query<{ cause: string; level: string }>(
      `select cause, level from alerts where merchant_id = $1 order by cause`,
      [world.merchant.id],
    )
  ).map((alert) => `${alert.level} ${alert.cause}`);

describe('what an answer means', () => {
  const { semantics } = fakeGateway(fixedClock('2026-12-01T00:00:00Z'));
  const clock = fixedClock('2026-12-01T00:00:00Z');
  const open: OpenCharge = {
    id: '0193d000-0000-7000-8000-000000000000',
    state: 'unknown',
    origin: 'auto',
    gateway: 'simulator',
    amount: 5_000,
    currency: 'JPY',
    started_at: '2026-12-01T00:00:00Z',
    deadline_at: '2026-12-01T00:01:00Z',
    asks: 0,
    hosted_page_url: null,
    page_ends_at: null,
  };
  const page: OpenCharge = {
    ...open,
    origin: 'link',
    state: 'requires_action',
    hosted_page_url: 'https://pay.invalid/1',
    page_ends_at: '2026-12-01T00:30:00Z',
  };
  const at = (text: string) => {
    clock.set(text);
    return clock.now();
  };

  test('"not found" proves nothing before deadline, call and window have passed', () => {
    expect(absenceProvesAfter(open, semantics).toString()).toBe('2026-12-01T00:02:10Z');
    const notFound: LookupAnswer = { kind: 'not_found' };
    expect(judgeAnswer(open, notFound, at('2026-12-01T00:02:10Z'), semantics).kind).toBe('ask_again');
    expect(judgeAnswer(open, notFound, at('2026-12-01T00:02:10.001Z'), semantics)).toEqual({
      kind: 'learned',
      outcome: { kind: 'canceled', why: 'not_found' },
    });
  });

  test.each([
    [0, '2026-12-01T01:01:00Z'],
    [1, '2026-12-01T01:02:00Z'],
    [2, '2026-12-01T01:05:00Z'],
    [3, '2026-12-01T01:15:00Z'],
    [4, '2026-12-01T02:00:00Z'],
    [99, '2026-12-01T02:00:00Z'],
  ])('after %i questions the next comes at %s', (asks, next) => {
    const judged = judgeAnswer(
      { ...open, asks },
      { kind: 'unknown', why: '' },
      at('2026-12-01T01:00:00Z'),
      semantics,
    );
    expect(judged.kind === 'ask_again' && judged.at.toString()).toBe(next);
  });

  test('a hosted page is closed only after its end; one that nobody was shown at once', () => {
    expect(mustClosePage(page, at('2026-12-01T00:30:59Z'))).toBe(false);
    expect(mustClosePage(page, at('2026-12-01T00:31:00Z'))).toBe(true);
    expect(mustClosePage({ ...page, hosted_page_url: null }, at('2026-12-01T00:03:00Z'))).toBe(true);
    expect(mustClosePage(open, at('2026-12-02T00:00:00Z'))).toBe(false);
  });

  test('an open page is asked about when it ends, and is no unknown', () => {
    expect(judgeAnswer(page, { kind: 'pending' }, at('2026-12-01T00:10:00Z'), semantics)).toMatchObject({
      kind: 'ask_again',
    });
    const judged = judgeAnswer(page, { kind: 'pending' }, at('2026-12-01T00:10:00Z'), semantics);
    expect(judged.kind === 'ask_again' && judged.at.toString()).toBe('2026-12-01T00:31:00Z');
  });
});

describe('the trace job', () => {
  test('money that was taken without an answer is found and booked; asking again changes nothing', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_after');
    await world.run(charge);
    world.clock.advance(61_000);
    expect((await world.run(trace)).counts).toMatchObject({ asked: 1, succeeded: 1 });
    expect(await world.stateOf('A')).toBe('paid');
    const asked = world.gateway.lookups.length;
    expect((await world.run(trace)).counts.asked).toBeUndefined();
    expect(world.gateway.lookups).toHaveLength(asked);
  });

  test('while the gateway is silent it asks less and less often, guesses nothing, and calls a person after a day', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_before');
    await world.run(charge);
    world.gateway.down = true;
    for (let minute = 0; minute < 120; minute += 1) {
      world.clock.advance(60_000);
      await world.run(trace, '2026-12-01');
    }
    const asks = (await chargeState())?.asks ?? 0;
    expect(asks).toBeGreaterThan(4);
    expect(asks).toBeLessThan(10);
    expect(world.gateway.lookups.length).toBeLessThan(10);
    expect(await chargeState()).toMatchObject({ state: 'unknown' });
    expect(await alerts()).toEqual([]);
    world.clock.advance(86_400_000);
    expect(await world.run(trace)).toMatchObject({ outcome: 'attention', counts: { unknown_too_long: 1 } });
    expect(await alerts()).toEqual(['now OUTCOME_UNKNOWN']);

    world.gateway.down = false;
    world.clock.advance(3_600_000);
    await world.run(trace);
    expect(await chargeState()).toMatchObject({ state: 'canceled' });
  });

  test('bills that nobody would look at again and runs that fell silent are told to a person', async () => {
    await world.make([{ number: 'A' }]);
    await database.db.run(`delete from agenda where merchant_id = $1`, [world.merchant.id]);
    await database.db.run(
      `insert into runs (merchant_id, job, business_date, state, pass, lease_owner, lease_until, requested_at)
       values ($1, 'ingest', '2026-11-30', 'running', 1, 'gone', '2020-01-01', '2020-01-01')`,
      [world.merchant.id],
    );
    const end = await world.run(trace);
    expect(end).toMatchObject({ outcome: 'attention', counts: { forgotten_bills: 1, silent_runs: 1 } });
    expect(await alerts()).toEqual(['now BILLS_FORGOTTEN', 'now RUN_SILENT ingest 2026-11-30']);
  });

  test('a job that fails again and again, and bills whose step is long overdue, are told to a person', async () => {
    await world.make([
      { number: 'LATE', actOn: '2026-11-26' },
      { number: 'SOON', actOn: '2026-11-27' },
      { number: 'PARKED', actOn: '2026-11-01' },
    ]);
    await database.db.run(
      `update invoices set state = 'parked' where merchant_id = $1 and billing_number = 'PARKED'`,
      [world.merchant.id],
    );
    const failing = async (job: string, outcomes: readonly string[]) => {
      await database.db.run(
        `insert into runs (merchant_id, job, business_date, state, requested_at)
         values ($1, $2, '2026-12-01', 'failed', '2026-12-01')`,
        [world.merchant.id, job],
      );
      await database.db.run(
        `insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at, outcome)
         select $1, $2, '2026-12-01', n, '', '', '2026-12-01', o from unnest($3::text[]) with ordinality as p(o, n)`,
        [world.merchant.id, job, outcomes],
      );
    };
    await failing('ingest', ['done', 'failed', 'failed', 'failed']);
    await failing('dunning', ['failed', 'failed']);
    await failing('notify', ['failed', 'failed', 'failed', 'done']);
    const end = await world.run(trace);
    expect(end).toMatchObject({ outcome: 'attention', counts: { failing_runs: 1, late_bills: 1 } });
    expect(await alerts()).toEqual(['now BILLS_LATE', 'now RUN_FAILING ingest']);
  });
});
