import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import process from 'node:process';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { requestRun } from '../billing/runs/queries.ts';
import { openWakeQueue } from '../cli/wake.ts';
import { charge } from '../jobs/charge.ts';
import type { Job } from '../jobs/job.ts';
import { runJob } from '../jobs/run.ts';
import { trace } from '../jobs/trace.ts';
import { expectInvariants } from './bills.ts';
import { apiKey, openSimulatorOffice, type SimulatorOffice } from './simulator-office.ts';

/**
 * Two workers in processes of their own share one run, and one of them is killed in the middle: the gateway's own books
 * show one capture for each bill, and every bill comes to its end.
 */
const today = '2026-12-01';
/** With 20,000 it is the run of a night; the making of the bills then takes longer than the run. */
const billCount = Number(process.env.KILL_BILLS ?? 1_600);
/** Not how long it takes, but when it hangs. */
const patienceMs = 120_000 + billCount * 30;

let office: SimulatorOffice;
const workers: ChildProcess[] = [];

beforeAll(async () => {
  office = await openSimulatorOffice();
});
afterEach(async () => {
  for (const worker of workers.splice(0)) {
    if (worker.exitCode !== null || worker.signalCode !== null) continue;
    const ended = once(worker, 'exit');
    worker.kill('SIGTERM');
    await ended;
  }
});
afterAll(() => office?.close());

async function startWorker(): Promise<ChildProcess> {
  const worker = fork(
    join(import.meta.dirname, 'work-process.ts'),
    [office.ours.url, office.simulator.url, apiKey],
    {
      execArgv: ['--import', 'tsx'],
    },
  );
  workers.push(worker);
  await once(worker, 'message');
  return worker;
}

const first = async <Row>(sql: string, merchant: Merchant): Promise<Row> =>
  (await office.ours.db.query<Row & Record<string, unknown>>(sql, [merchant.id]))[0] as Row;
const holders = async (merchant: Merchant): Promise<{ owner: string | null; helper: string | null }> =>
  first(
    `select (select lease_owner from runs where merchant_id = $1 and job = 'charge') as owner,
            (select min(c.lease_owner) from chunks c join runs r using (merchant_id, job, business_date)
             where c.merchant_id = $1 and c.state = 'ready' and c.lease_owner <> r.lease_owner) as helper`,
    merchant,
  );
const run = (job: unknown, merchant: Merchant) =>
  runJob(office.ports, job as Job, {
    merchant,
    businessDate: today,
    worker: { owner: `parent:${process.pid}:x`, isDead: () => false, codeVersion: 'test' },
  });

test('who waits for work is woken over the queue', async () => {
  const queue = openWakeQueue(office.ours.url, office.ports.log);
  const asking = openWakeQueue(office.ours.url, office.ports.log);
  try {
    let woken = 0;
    await queue.listen(() => {
      woken += 1;
    });
    await asking.wake(3);
    await expect.poll(() => woken, { timeout: 20_000 }).toBe(3);
  } finally {
    await queue.close();
    await asking.close();
  }
});

test.each(['owner', 'helper'] as const)(
  'kill -9 of the %s in the middle of a run of two workers: every bill is charged once',
  async (whom) => {
    const merchant = await office.merchantWith(Array.from({ length: billCount }, () => 'visa'));
    const started = [await startWorker(), await startWorker()];
    await office.control('', { latencyMs: 20 });
    await requestRun(
      office.ours.db,
      { merchantId: merchant.id, job: 'charge', businessDate: today },
      office.clock.now(),
      true,
    );
    await expect
      .poll(async () => (await holders(merchant)).helper, { timeout: 60_000, interval: 20 })
      .not.toBeNull();
    const held = await holders(merchant);
    const victim = started.find(({ pid }) => held[whom]?.includes(`:${pid}:`));
    victim?.kill('SIGKILL');
    if (victim?.signalCode === null) await once(victim, 'exit');
    expect(victim?.signalCode).toBe('SIGKILL');
    // Past its lease: whoever is left takes up what it had.
    await office.clock.advance(60_000);
    await expect
      .poll(
        async () =>
          (
            await first<{ state: string }>(
              `select state from runs where merchant_id = $1 and job = 'charge'`,
              merchant,
            )
          ).state,
        { timeout: patienceMs, interval: 100 },
      )
      .toBe('done');
    await office.control('', { latencyMs: 0 });
    // What the killed one had called for is asked about.
    await office.clock.advance(180_000);
    await run(trace, merchant);
    await run(charge, merchant);
    await office.clock.advance(180_000);
    await run(trace, merchant);

    const captured = await office.theirs.db.query<{ captures: number; bills: number; amount: number }>(
      `select count(*) as captures, count(distinct invoice_id) as bills, sum(amount)::bigint as amount
       from gateway_simulator.charges where account = $1 and state = 'succeeded'`,
      [merchant.code],
    );
    const due = (billCount * 1_000 + (billCount * (billCount - 1)) / 2) as number;
    expect(captured).toEqual([{ captures: billCount, bills: billCount, amount: due }]);
    expect(
      await first(
        `select count(*) filter (where state = 'paid') as paid, count(*) as bills from invoices where merchant_id = $1`,
        merchant,
      ),
    ).toEqual({ paid: billCount, bills: billCount });
    await expectInvariants(office.ours.db);
  },
  120_000 + 2 * patienceMs,
);
