import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { approveCharges } from '../billing/autopay/approve.ts';
import { approvalsOf } from '../billing/autopay/queries.ts';
import { changeHoldByHand } from '../billing/holds/place.ts';
import { changeHalt } from '../billing/runs/halt.ts';
import { runningPasses, waitingRuns } from '../billing/runs/queries.ts';
import { charge } from '../jobs/charge.ts';
import type { Job } from '../jobs/job.ts';
import { helpRun, type RunEnd, runJob } from '../jobs/run.ts';
import { requestDueRuns } from '../jobs/schedule.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, expectInvariants } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

/** A charge run as operators and several processes have it in hand. */
const today = '2026-12-01';
const job = charge as unknown as Job;

let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());
beforeEach(() => {
  merchants += 1;
});
afterEach(async () => {
  world.close();
  await expectInvariants(database.db);
});

const open = async (settings = '') => {
  world = await billsOf(database.db, { code: `water-${merchants}`, settings });
};
const bills = (count: number, from = 0) =>
  Array.from({ length: count }, (_, index) => ({ number: `B${from + index}`, amount: 1_000 + index }));
const halt = (what: 'pause' | 'stop' | 'resume', businessDate = today) =>
  changeHalt(world.ports, world.merchant, { job: 'charge', businessDate, what }, 'operator@test');
const waiting = async () =>
  (await waitingRuns(database.db, world.merchant.id)).map((run) => `${run.job} ${run.business_date}`);
const alertsOf = async () =>
  (
    await database.db.query<{ cause: string }>(
      `select cause from alerts where merchant_id = $1 and acknowledged_at is null and resolved_at is null order by cause`,
      [world.merchant.id],
    )
  ).map(({ cause }) => cause);
const attemptsPerBill = () =>
  database.db.query<{ succeeded: number; attempts: number; bills: number }>(
    `select succeeded, attempts, count(*) as bills
     from (select invoice_id, count(*) as attempts, count(*) filter (where state = 'succeeded') as succeeded
           from charges where merchant_id = $1 group by invoice_id) of_bill
     group by succeeded, attempts order by succeeded, attempts`,
    [world.merchant.id],
  );

describe('an operator', () => {
  test('pauses: what was begun ends, nothing new is begun on any day, and after the resume all the rest is charged', async () => {
    await open();
    await world.make(bills(100));
    let outcomes = 0;
    world.ports.crash = async (point) => {
      if (point !== 'charge.after_outcome') return;
      outcomes += 1;
      if (outcomes === 1) await halt('pause');
    };
    const end = await world.run(charge);
    expect(end).toMatchObject({ outcome: 'stopped', counts: { charged: 64 } });
    expect(world.gateway.captured).toHaveLength(64);
    // Asked for, and nobody takes it up; nor another day's.
    expect(await waiting()).toEqual([]);
    expect(await world.run(charge)).toMatchObject({ outcome: 'halted' });
    expect(await world.run(charge, '2026-11-30')).toMatchObject({ outcome: 'halted' });
    world.clock.advance(13 * 3_600_000);
    expect((await world.run(trace)).counts).toMatchObject({ paused_runs: 1, waiting_runs: 0 });
    expect(await halt('pause')).toBe(false);
    expect(await halt('resume')).toBe(true);
    expect(await waiting()).toEqual([`charge ${today}`]);
    expect(await world.run(charge, today)).toMatchObject({ outcome: 'done', counts: { charged: 36 } });
    expect(await halt('resume')).toBe(false);
  });

  test('stops: the run of the day is over, no slot opens it again, and the next day goes on', async () => {
    await open();
    await world.make(bills(100));
    world.ports.crash = async (point) => {
      if (point === 'charge.after_outcome') await halt('stop');
    };
    expect(await world.run(charge)).toMatchObject({ outcome: 'stopped', counts: { charged: 64 } });
    world.clock.set('2026-12-01T09:00:00Z');
    await requestDueRuns(world.ports, [world.merchant]);
    expect(await waiting()).not.toContain(`charge ${today}`);
    expect(await world.run(charge)).toMatchObject({ outcome: 'halted' });
    world.clock.set('2026-12-02T01:00:00Z');
    expect(await world.run(charge)).toMatchObject({ outcome: 'done', counts: { charged: 36 } });
  });

  test('stops a run that nobody has begun, and takes it back', async () => {
    await open();
    await world.make(bills(3));
    await requestDueRuns(world.ports, [world.merchant]);
    await halt('stop');
    expect(await waiting()).not.toContain(`charge ${today}`);
    await halt('resume');
    expect(await waiting()).toContain(`charge ${today}`);
    expect(await world.run(charge)).toMatchObject({ counts: { charged: 3 } });
  });

  test('approves a plan first: what comes to it later waits for another approval, what leaves it is not charged', async () => {
    await open('charge: { approve: true }');
    await world.make(bills(40));
    const approve = (charges: number, amount: number) =>
      approveCharges(
        world.ports,
        world.merchant,
        world.gateway.name,
        today,
        { charges, amount },
        'operator@test',
      );
    expect(await world.run(charge)).toMatchObject({
      outcome: 'attention',
      counts: { waiting_for_approval: 40 },
    });
    expect(world.gateway.calls).toHaveLength(0);
    expect(await alertsOf()).toEqual(['CHARGES_WAIT']);
    await expect(approve(40, 1)).rejects.toMatchObject({ code: 'PLAN_CHANGED' });
    expect(await approvalsOf(database.db, world.merchant.id, today)).toEqual([]);
    await approve(40, 40_780);
    expect(await alertsOf()).toEqual([]);
    expect(await waiting()).toEqual([`charge ${today}`]);
    await expect(approve(40, 40_780)).rejects.toMatchObject({ code: 'NOTHING_TO_APPROVE' });

    await world.make([{ number: 'LATE', amount: 900_000 }]);
    const held = { customerNumber: 'C-B0', contractNumber: '', reason: 'dispute', untilOn: null } as const;
    await changeHoldByHand(world.ports, world.merchant, { ...held, what: 'place' }, 'operator@test');
    expect(await world.run(charge)).toMatchObject({
      outcome: 'attention',
      counts: { charged: 39, held: 1, waiting_for_approval: 1 },
    });
    expect(await world.stateOf('LATE')).toBe('open');
    await approve(1, 900_000);
    expect(await world.run(charge)).toMatchObject({ outcome: 'done', counts: { charged: 1 } });
    expect(await approvalsOf(database.db, world.merchant.id, today)).toMatchObject([
      { approval_no: 1, charges: 40, amount: 40_780, approved_by: 'operator@test' },
      { approval_no: 2, charges: 1, amount: 900_000 },
    ]);
  });

  test('two of them at once: one approval', async () => {
    await open('charge: { approve: true }');
    await world.make(bills(10));
    const approve = () =>
      approveCharges(
        world.ports,
        world.merchant,
        world.gateway.name,
        today,
        { charges: 10, amount: 10_045 },
        'operator@test',
      );
    const both = await Promise.allSettled([approve(), approve()]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await approvalsOf(database.db, world.merchant.id, today)).toHaveLength(1);
  });
});

describe('the plan', () => {
  test('counts every reason to leave a bill out, and a day with no business says so', async () => {
    await open('gateway: { rate_per_second: 10 }');
    await world.make([
      ...bills(30),
      { number: 'HELD' },
      { number: 'DISPUTED' },
      { number: 'NO-CARD', card: null },
      { number: 'LINK', collection: 'link', act: 'charge', actOn: today },
      { number: 'LOST', card: 'lost' },
      { number: 'TOMORROW', dueOn: '2026-12-02' },
    ]);
    world.gateway.behave('lost', 'timeout_before');
    const place = (customerNumber: string, reason: 'dispute' | 'hardship') =>
      changeHoldByHand(
        world.ports,
        world.merchant,
        { customerNumber, contractNumber: '', what: 'place', reason, untilOn: null },
        'operator@test',
      );
    await place('C-HELD', 'hardship');
    await place('C-DISPUTED', 'dispute');
    const dryRun = (businessDate = today) =>
      job.dryRun({
        ports: world.ports,
        merchant: world.merchant,
        businessDate,
        stop: new AbortController().signal,
        progress: () => undefined,
      });
    expect(await dryRun()).toMatchObject({
      would_charge: 31,
      held: 1,
      disputed: 1,
      no_method: 1,
      not_automatic: 1,
      // At 98 % of the gateway's rate.
      seconds: 4,
    });
    expect(await dryRun('2026-12-02')).toMatchObject({ would_charge: 32 });
    await world.run(charge);
    expect(await dryRun()).toMatchObject({ would_charge: 0, paid: 30, unknown: 1 });
    expect(await dryRun('2026-11-20')).toMatchObject({ would_charge: 0, paid: 0 });
    expect(await world.run(charge, '2026-11-20')).toMatchObject({ outcome: 'done', counts: {} });
  });
});

describe('many processes', () => {
  test('share the chunks of one run; each bill is charged once, and one of them closes it', async () => {
    await open();
    await world.make(bills(1_100));
    let helped: Promise<number> | undefined;
    let woken = 0;
    world.ports.wake = async (chunks) => {
      woken = chunks;
    };
    world.ports.crash = async (point) => {
      if (point !== 'charge.after_intent' || helped !== undefined) return;
      const [pass] = await runningPasses(database.db, world.merchant.id, ['charge']);
      helped = helpRun(world.ports, job, {
        merchant: world.merchant,
        businessDate: today,
        pass: pass?.pass ?? 0,
        worker: { owner: 'other:1:a', isDead: () => false, codeVersion: 'test' },
      });
    };
    expect(await world.run(charge)).toMatchObject({ outcome: 'done', counts: { charged: 1_100 } });
    expect(woken).toBe(2);
    expect(await helped).toBeGreaterThan(0);
    expect(await attemptsPerBill()).toEqual([{ succeeded: 1, attempts: 1, bills: 1_100 }]);
    expect(await runningPasses(database.db, world.merchant.id, ['charge'])).toEqual([]);
  });

  test('one that fell silent in the middle: another does its chunk, and when it wakes up it writes nothing', async () => {
    await open();
    await world.make(bills(40));
    let wake: () => void = () => undefined;
    const sleeping = new Promise<void>((resolve) => {
      wake = resolve;
    });
    let slept = false;
    let other: Promise<RunEnd> | undefined;
    world.ports.crash = async (point) => {
      if (point !== 'charge.after_gateway' || slept) return;
      slept = true;
      await database.db.run(
        `update chunks set lease_until = '2020-01-01' where merchant_id = $1 and state = 'ready'`,
        [world.merchant.id],
      );
      await database.db.run(`update runs set lease_until = '2020-01-01' where merchant_id = $1`, [
        world.merchant.id,
      ]);
      other = runJob(world.ports, job, {
        merchant: world.merchant,
        businessDate: today,
        worker: { owner: 'other:1:a', isDead: () => false, codeVersion: 'test' },
      });
      await other;
      wake();
      await sleeping;
    };
    const late = await world.run(charge);
    expect(late).toMatchObject({ outcome: 'failed', failure: { message: expect.stringMatching(/taken/) } });
    expect(await other).toMatchObject({ outcome: 'done' });
    // What the late one was answered is learned by asking.
    world.clock.advance(180_000);
    await world.run(trace);
    await world.run(charge);
    expect(await attemptsPerBill()).toEqual([{ succeeded: 1, attempts: 1, bills: 40 }]);
    expect(world.gateway.captured).toHaveLength(40);
  });

  test('two schedulers ask at once for the same runs: each is asked for once', async () => {
    await open();
    const asked = await Promise.all([
      requestDueRuns(world.ports, [world.merchant]),
      requestDueRuns(world.ports, [world.merchant]),
    ]);
    const [runs] = await database.db.query<{ n: number }>(
      `select count(*) as n from runs where merchant_id = $1`,
      [world.merchant.id],
    );
    expect(asked.reduce((sum, each) => sum + each)).toBe(runs?.n);
  });

  test('a clock that steps back asks for nothing twice, and charges nobody twice', async () => {
    await open();
    await world.make(bills(5));
    await requestDueRuns(world.ports, [world.merchant]);
    expect(await world.run(charge)).toMatchObject({ counts: { charged: 5 } });
    world.clock.set('2026-11-30T22:30:00Z');
    expect(await requestDueRuns(world.ports, [world.merchant])).toBe(0);
    expect(await world.run(charge, today)).toMatchObject({ outcome: 'done', counts: {} });
    expect(world.gateway.captured).toHaveLength(5);
  });
});

describe('a gateway', () => {
  test('that is down for a minute rests, is tried with one charge, and then all is charged in the same run', async () => {
    await open();
    await world.make(bills(100));
    world.gateway.down = true;
    const at = world.clock.now();
    const sleep = world.clock.sleep.bind(world.clock);
    world.clock.sleep = async (milliseconds, signal) => {
      await sleep(milliseconds, signal);
      if (world.clock.now().epochMilliseconds - at.epochMilliseconds > 60_000) world.gateway.down = false;
    };
    const end = await world.run(charge);
    // 32 before it was known to be down, and one probe.
    expect(end).toMatchObject({ outcome: 'done', counts: { charged: 67, unknown: 33 } });
    expect(await alertsOf()).toEqual([]);
    world.clock.advance(180_000);
    await world.run(trace);
    await world.run(charge);
    expect(world.gateway.captured).toHaveLength(100);
  });

  test('that allows so many calls a second is asked for no more, by all processes together', async () => {
    await open('gateway: { rate_per_second: 20 }');
    await world.make(bills(60));
    const began = world.clock.now().epochMilliseconds;
    await world.run(charge);
    const seconds = (world.clock.now().epochMilliseconds - began) / 1_000;
    expect(seconds).toBeGreaterThan(59 / 20 - 0.5);
    expect(seconds).toBeLessThan((60 / 19.6) * 1.05);
  });

  test('that finds it too fast is asked slower, and after a while faster again', async () => {
    await open();
    await world.make(Array.from({ length: 64 }, (_, index) => ({ number: `B${index}`, card: `c${index}` })));
    world.gateway.behave('c0', 'rate_limited', 'ok');
    const pace = async () =>
      (
        await database.db.query<{ pace_per_second: number | null }>(
          `select pace_per_second from gateway_states where merchant_id = $1`,
          [world.merchant.id],
        )
      )[0]?.pace_per_second;
    expect(await world.run(charge)).toMatchObject({ counts: { charged: 64 } });
    expect(await pace()).toBeGreaterThanOrEqual(32);
    await world.make(bills(40, 100));
    const before = await pace();
    await world.run(charge);
    expect(await pace()).toBeGreaterThan(before ?? 0);
  });

  test('that allows so many calls at the same time never has more of them', async () => {
    await open('gateway: { concurrency: 5 }');
    await world.make(bills(23));
    let atOnce = 0;
    let most = 0;
    const answer = world.ports.gateway.charge;
    world.ports.gateway.charge = async (request, signal) => {
      atOnce += 1;
      most = Math.max(most, atOnce);
      // All of them are under way before the first has its answer.
      await new Promise((resolve) => setImmediate(resolve));
      const answered = await answer(request, signal);
      atOnce -= 1;
      return answered;
    };
    expect(await world.run(charge)).toMatchObject({ counts: { charged: 23 } });
    expect(most).toBe(5);
  });
});
