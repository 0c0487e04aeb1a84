import { Temporal } from 'temporal-polyfill';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fixedClock } from '../billing/clock.ts';
import { seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../billing/merchants/settings.ts';
import { FenceLost } from '../billing/runs/fence.ts';
import { holdFence, recentPasses, waitingRuns } from '../billing/runs/queries.ts';
import { dateFor } from '../cli/commands/run.ts';
import { sample } from '../cli/demo/samples.ts';
import type { ChunkContext, Job } from '../jobs/job.ts';
import type { Ports } from '../jobs/ports.ts';
import { runJob, type Worker } from '../jobs/run.ts';
import { requestDueRuns, slotAt, timetable } from '../jobs/schedule.ts';
import { type TestDatabase, testDatabase } from './database.ts';

let database: TestDatabase;
let ports: Ports;
let merchant: Merchant;
const clock = fixedClock('2026-11-25T00:30:00Z');

beforeAll(async () => {
  database = await testDatabase();
  const ids = timeOrderedIds(clock, seededRandomness('runs'));
  const log = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error: () => undefined,
  };
  ports = { db: database.db, clock, ids, log, crash: async () => undefined } as unknown as Ports;
  const { settings } = parseMerchantSettings(sample('minato-gas', 'merchant.yaml'), {
    path: 'merchant.yaml',
    readable: () => 'ok',
    layout: () => undefined,
  });
  await applyMerchant(ports, settings, 'test');
  merchant = await merchantByCode(database.db, 'minato-gas');
});
afterAll(() => database.drop());

const worker = (owner: string, dead: string[] = []): Worker => ({
  owner,
  isDead: (name) => dead.includes(name),
  codeVersion: 'test',
});

function job(chunks: number, runChunk: (context: ChunkContext, n: number) => Promise<void>): Job {
  return {
    name: 'dunning',
    does: 'counts',
    plan: async () => Array.from({ length: chunks }, (_, n) => ({ n })),
    async runChunk(context, payload) {
      await runChunk(context, payload.n as number);
      return { worked: 1 };
    },
    dryRun: async () => ({}),
    attention: [],
  };
}

describe('a run', () => {
  it('does every chunk once, adds up what they counted, and may be run again as another pass', async () => {
    const done: number[] = [];
    const counting = job(3, async (_context, n) => void done.push(n));
    const first = await runJob(ports, counting, { merchant, businessDate: '2026-11-01' });
    expect(first).toMatchObject({ outcome: 'done', pass: 1, counts: { worked: 3 } });
    expect(done).toEqual([0, 1, 2]);
    const second = await runJob(ports, counting, { merchant, businessDate: '2026-11-01' });
    expect(second).toMatchObject({ outcome: 'done', pass: 2 });
    const passes = await recentPasses(database.db, {
      merchant: null,
      job: null,
      businessDate: '2026-11-01',
      limit: 9,
    });
    expect(passes.map((pass) => pass.outcome)).toEqual(['done', 'done']);
  });

  it('started twice at once works in one process, and the other says who is at it', async () => {
    let release = (): void => undefined;
    const started = new Promise<void>((resolve) => {
      release = resolve;
    });
    let inside = (): void => undefined;
    const working = new Promise<void>((resolve) => {
      inside = resolve;
    });
    const slow = job(1, async () => {
      inside();
      await started;
    });
    const first = runJob(ports, slow, { merchant, businessDate: '2026-11-02', worker: worker('host:1:a') });
    await working;
    const second = await runJob(ports, slow, {
      merchant,
      businessDate: '2026-11-02',
      worker: worker('host:2:b'),
    });
    expect(second).toMatchObject({ outcome: 'busy', owner: 'host:1:a' });
    release();
    expect((await first).outcome).toBe('done');
  });

  it('waits while another process is at the same job for another date: both would find the same bills', async () => {
    let release = (): void => undefined;
    const started = new Promise<void>((resolve) => {
      release = resolve;
    });
    let inside = (): void => undefined;
    const working = new Promise<void>((resolve) => {
      inside = resolve;
    });
    const slow = job(1, async () => {
      inside();
      await started;
    });
    const first = runJob(ports, slow, { merchant, businessDate: '2026-11-07', worker: worker('host:1:a') });
    await working;
    const quick = job(1, async () => undefined);
    const second = { merchant, businessDate: '2026-11-08', worker: worker('host:2:b') };
    expect(await runJob(ports, quick, second)).toMatchObject({ outcome: 'busy', owner: 'host:1:a' });
    expect(await waitingRuns(database.db, merchant.id)).toEqual([]);
    // Another job does not wait, and neither does anybody for a dead process.
    const other: Job = { ...quick, name: 'trace' };
    expect(await runJob(ports, other, second)).toMatchObject({ outcome: 'done' });
    release();
    expect((await first).outcome).toBe('done');
    expect(await runJob(ports, quick, second)).toMatchObject({ outcome: 'done' });
  });

  it('sets a chunk that fails aside and does the others; three failures in a row end it', async () => {
    const done: number[] = [];
    const poisoned = (bad: readonly number[]) =>
      job(6, async (_context, n) => {
        if (bad.includes(n)) throw new Error(`bill of chunk ${n}`);
        done.push(n);
      });
    const one = await runJob(ports, poisoned([0, 1, 3]), { merchant, businessDate: '2026-11-09' });
    expect(one).toMatchObject({ outcome: 'failed', counts: { worked: 3 } });
    expect(one.failure).toMatchObject({ message: 'bill of chunk 0' });
    expect(done).toEqual([2, 4, 5]);
    done.length = 0;
    const all = await runJob(ports, poisoned([0, 1, 2, 3, 4, 5]), { merchant, businessDate: '2026-11-09' });
    expect(all).toMatchObject({ outcome: 'failed', counts: {} });
    const tried = await database.db.query(
      `select chunk_no from chunks where business_date = '2026-11-09' and pass = 2 and attempts > 0`,
    );
    expect(tried).toHaveLength(3);
  });

  it('of a dead process is taken up by the next, and the late one can write nothing more', async () => {
    let dead: ChunkContext | undefined;
    let release = (): void => undefined;
    const hanging = job(1, async (context) => {
      if (!dead) {
        dead = context;
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        // What a late worker does: its outcome's transaction tests the fence first.
        await database.db.transaction((tx) => holdFence(tx, context.fence));
      }
    });
    const late = runJob(ports, hanging, { merchant, businessDate: '2026-11-03', worker: worker('host:1:a') });
    await expect.poll(() => dead !== undefined).toBe(true);
    const next = await runJob(ports, hanging, {
      merchant,
      businessDate: '2026-11-03',
      worker: worker('host:2:b', ['host:1:a']),
    });
    expect(next).toMatchObject({ outcome: 'done', pass: 2, counts: { worked: 1 } });
    const context = dead as unknown as ChunkContext;
    await expect(database.db.transaction((tx) => holdFence(tx, context.fence))).rejects.toBeInstanceOf(
      FenceLost,
    );
    release();
    expect(await late).toMatchObject({
      outcome: 'failed',
      failure: { message: expect.stringMatching(/taken it over/) },
    });
    const passes = await recentPasses(database.db, {
      merchant: null,
      job: null,
      businessDate: '2026-11-03',
      limit: 9,
    });
    expect(passes.map((pass) => [pass.pass, pass.outcome])).toEqual(
      expect.arrayContaining([
        [1, 'stopped'],
        [2, 'done'],
      ]),
    );
  });

  it('whose process fell silent waits for whoever looks first, once its lease has run out', async () => {
    const key = ['2026-11-04', 'host:9:silent'];
    await database.db.run(
      `insert into runs (merchant_id, job, business_date, state, pass, lease_owner, lease_until, requested_at)
       values (1, 'dunning', $1::date, 'running', 1, $2, clock_timestamp() + interval '40 seconds', clock_timestamp())`,
      key,
    );
    expect(await waitingRuns(database.db, merchant.id)).toEqual([]);
    await database.db.run(
      `update runs set lease_until = clock_timestamp() - interval '1 second' where lease_owner = $1`,
      ['host:9:silent'],
    );
    expect(await waitingRuns(database.db, merchant.id)).toMatchObject([
      { job: 'dunning', business_date: '2026-11-04' },
    ]);
    await runJob(
      ports,
      job(1, async () => undefined),
      { merchant, businessDate: '2026-11-04' },
    );
    expect(await waitingRuns(database.db, merchant.id)).toEqual([]);
  });

  it('that fails keeps the reason, gives its chunk back, and the next pass plans what is left', async () => {
    const failing = job(2, async (_context, n) => {
      if (n === 1) throw new Error('the disk is full');
    });
    const end = await runJob(ports, failing, { merchant, businessDate: '2026-11-05' });
    expect(end).toMatchObject({ outcome: 'failed', counts: { worked: 1 } });
    const [pass] = await recentPasses(database.db, {
      merchant: null,
      job: null,
      businessDate: '2026-11-05',
      limit: 1,
    });
    expect(pass).toMatchObject({ outcome: 'failed', failure: 'the disk is full' });
    expect(
      await runJob(
        ports,
        job(1, async () => undefined),
        { merchant, businessDate: '2026-11-05' },
      ),
    ).toMatchObject({
      outcome: 'done',
      pass: 2,
    });
  });

  it('stopped by Ctrl-C ends in order and is asked for again', async () => {
    const stop = new AbortController();
    const stopping = job(3, async (context, n) => {
      if (n === 1) {
        stop.abort(new Error('stopped'));
        context.stop.throwIfAborted();
      }
    });
    const end = await runJob(ports, stopping, { merchant, businessDate: '2026-11-06', stop: stop.signal });
    expect(end).toMatchObject({ outcome: 'stopped', counts: { worked: 1 } });
    expect(await waitingRuns(database.db, merchant.id)).toMatchObject([{ business_date: '2026-11-06' }]);
  });
});

describe('by hand', () => {
  it('a date that has not come yet in the merchant’s zone is refused, unless it is only looked at', () => {
    // 23:30 of the 24th in London is the 25th in Japan.
    const now = Temporal.Instant.from('2026-11-24T23:30:00Z');
    expect(dateFor(merchant, { dryRun: false }, now)).toBe('2026-11-25');
    expect(dateFor(merchant, { date: '2026-11-25', dryRun: false }, now)).toBe('2026-11-25');
    expect(() => dateFor(merchant, { date: '2026-11-26', dryRun: false }, now)).toThrow(/has not come yet/);
    expect(dateFor(merchant, { date: '2026-11-26', dryRun: true }, now)).toBe('2026-11-26');
  });
});

describe('the timetable', () => {
  it('asks for each slot once, however often it ticks', async () => {
    clock.set('2026-11-25T00:30:00Z');
    const first = await requestDueRuns(ports, [merchant]);
    // 09:30 in Japan: every job has had a slot.
    expect(first).toBe(timetable.length);
    expect(await requestDueRuns(ports, [merchant])).toBe(0);
    clock.set('2026-11-25T00:46:00Z');
    // What was asked for still waits: nothing is asked for twice.
    expect(await requestDueRuns(ports, [merchant])).toBe(0);
  });

  it.each([
    ['04:09', undefined],
    ['04:10', '04:10'],
    ['04:24', '04:10'],
    ['04:25', '04:25'],
    ['23:59', '21:40'],
  ])('at %s the latest slot of fetch is %s', (now, slot) => {
    const fetch = timetable.find(({ job: name }) => name === 'fetch');
    const at = Temporal.ZonedDateTime.from(`2026-11-25T${now}[Asia/Tokyo]`);
    const found =
      fetch && slotAt(fetch, at)?.toZonedDateTimeISO('Asia/Tokyo').toPlainTime().toString().slice(0, 5);
    expect(found).toBe(slot);
  });

  it('keeps to the wall clock on the day when summer time starts', () => {
    const at = Temporal.ZonedDateTime.from('2026-03-29T12:00[Europe/Berlin]');
    const slot = slotAt({ job: 'charge', first: '02:30' }, at);
    expect(slot?.toString()).toBe('2026-03-29T01:30:00Z');
  });
});
