import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { charge } from '../jobs/charge.ts';
import type { Job } from '../jobs/job.ts';
import { runJob } from '../jobs/run.ts';
import { trace } from '../jobs/trace.ts';
import { expectInvariants } from './bills.ts';
import { apiKey, openSimulatorOffice, type SimulatorOffice } from './simulator-office.ts';

/**
 * kill -9 against the real simulator in another process: whatever dies wherever, the gateway's own books show one capture
 * for each bill, and every bill comes to its end.
 */
const today = '2026-12-01';
const billCount = 40;

let office: SimulatorOffice;
beforeAll(async () => {
  office = await openSimulatorOffice();
});
afterAll(() => office?.close());

const world = (): Promise<Merchant> =>
  office.merchantWith(
    Array.from({ length: billCount }, (_, index) =>
      index % 10 === 3 ? 'timeout-after-effect' : index % 10 === 7 ? 'error-after-effect' : 'visa',
    ),
  );

/** Runs a job in its own process; resolves with the signal that ended it. */
async function inProcess(
  job: 'charge' | 'trace',
  merchant: Merchant,
  killAt: string,
  nth = 1,
): Promise<{ signal: string | null; code: number | null }> {
  const child = spawn(
    process.execPath,
    [
      '--import',
      'tsx',
      join(import.meta.dirname, 'charge-process.ts'),
      ...[job, office.ours.url, office.simulator.url, apiKey, merchant.code, today, killAt, String(nth)],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return { signal, code };
}

const run = (job: unknown, merchant: Merchant) =>
  runJob(office.ports, job as Job, {
    merchant,
    businessDate: today,
    worker: { owner: `parent:${process.pid}`, isDead: () => true, codeVersion: 'test' },
  });

/** The rest of the day in this process, until nothing is open. */
async function othersGoOn(merchant: Merchant): Promise<void> {
  for (let round = 0; round < 3; round += 1) {
    await office.clock.advance(180_000);
    await run(trace, merchant);
    await run(charge, merchant);
  }
  await office.clock.advance(180_000);
  await run(trace, merchant);
}

async function expectOnceEach(merchant: Merchant): Promise<void> {
  const truth = await office.theirs.db.query<{ reference: string; amount: number }>(
    `select reference, amount from gateway_simulator.charges where account = $1 and state = 'succeeded'`,
    [merchant.code],
  );
  expect(truth).toHaveLength(billCount);
  const taken = truth.reduce((sum, capture) => sum + capture.amount, 0);
  const due = Array.from({ length: billCount }, (_, index) => 1_000 + index).reduce(
    (sum, amount) => sum + amount,
  );
  expect(taken).toBe(due);
  const count = async (sql: string) =>
    (await office.ours.db.query<{ n: number }>(`select count(*) as n from ${sql}`, [merchant.id]))[0]?.n;
  expect(await count(`invoices where merchant_id = $1 and state = 'paid'`)).toBe(billCount);
  expect(await count(`payments where merchant_id = $1`)).toBe(billCount);
  expect(await count(`credits where merchant_id = $1`)).toBe(0);
  expect(await count(`result_rows where merchant_id = $1 and outcome = 'paid'`)).toBe(billCount);
  expect(await count(`collection_locks where merchant_id = $1`)).toBe(0);
  expect(await count(`agenda where merchant_id = $1`)).toBe(0);
  expect(await count(`charges where merchant_id = $1 and state in ('processing', 'unknown')`)).toBe(0);
  const [books] = await office.ours.db.query<{ paid: number }>(
    `select sum(amount)::bigint as paid from transfers where merchant_id = $1 and debit = 'gateway_clearing'`,
    [merchant.id],
  );
  expect(books?.paid).toBe(taken);
  await expectInvariants(office.ours.db);
}

describe('kill -9', () => {
  test.each([
    ['after the intents, before any call', 'charge.after_intent', 1],
    ['after the calls, before their outcomes', 'charge.after_gateway', 1],
    ['between two batches, the intents of the next committed', 'charge.after_outcome', 1],
    ['after the calls of the second batch', 'charge.after_gateway', 2],
  ] as const)('%s: each bill is charged once and comes to its end', async (_, point, nth) => {
    const merchant = await world();
    expect(await inProcess('charge', merchant, point, nth)).toEqual({ signal: 'SIGKILL', code: null });
    await othersGoOn(merchant);
    await expectOnceEach(merchant);
  });

  test('trace itself is killed after it asked', async () => {
    const merchant = await world();
    await inProcess('charge', merchant, 'charge.after_gateway');
    await office.clock.advance(180_000);
    expect(await inProcess('trace', merchant, 'trace.after_lookup')).toMatchObject({ signal: 'SIGKILL' });
    await othersGoOn(merchant);
    await expectOnceEach(merchant);
  });

  test.each([1, 2])(
    'the webhooks come first, %i times, and the worker is dead: nothing is left for trace to do',
    async (times) => {
      const merchant = await world();
      await inProcess('charge', merchant, 'charge.after_gateway');
      const open = await office.ours.db.query<{ id: string }>(
        `select id from charges where merchant_id = $1 and state = 'processing'`,
        [merchant.id],
      );
      // The intents of the second batch were written while the first one was called.
      expect(open.length).toBe(40);
      for (let time = 0; time < times; time += 1) {
        await learnFromGateway(
          office.ours.db,
          office.ports,
          merchant,
          open.map((row) => row.id),
          'webhook',
        );
      }
      await othersGoOn(merchant);
      await expectOnceEach(merchant);
    },
  );
});
