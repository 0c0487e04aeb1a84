import { Logger, makeWorkerUtils, runOnce } from 'graphile-worker';
import { Agent, request } from 'undici';
import { referenceOf } from '../billing/ids.ts';
import { enrolledBills } from './autopay.ts';
import { type ChargeWorkshop, openChargeWorkshop } from './charge-runs.ts';
import { against, type BenchWith, type Figure, rounded } from './figure.ts';

/** As a worker has it. */
const concurrency = 32;
const latencyMs = 100;
const emptyJobs = 5_000;

/**
 * Charges by the simulator over HTTP, each with intent, call, outcome, ledger, history and result row. The bare loop calls
 * the same simulator with undici, as many at a time, and writes nothing down.
 */
export const chargeBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openChargeWorkshop();
  try {
    await enrolledBills(workshop, lines, workshop.today, workshop.token);
    const bare = await bareLoop(workshop, Math.min(lines, 20_000));
    const one = await charged(workshop, 1, lines);
    report({
      name: 'charge',
      value: rounded(one.perSecond),
      unit: 'charges/s',
      better: 'higher',
      baseline: against('a bare undici loop over the same simulator', bare, 'calls/s', one.perSecond),
    });
    const empty = await queueAlone(workshop);
    report({
      name: 'charge_against_queue',
      value: rounded(one.perSecond),
      unit: 'charges/s',
      better: 'higher',
      baseline: against('empty jobs of graphile-worker', empty, 'jobs/s', one.perSecond),
    });
    report(resident('charge_resident_at_most', one.residentBytes));

    await workshop.control({ latencyMs });
    const some = Math.min(lines, 20_000);
    await enrolledBills(workshop, some, workshop.today, workshop.token);
    const slowOne = await charged(workshop, 1, some);
    await enrolledBills(workshop, some, workshop.today, workshop.token);
    const slowTwo = await charged(workshop, 2, some);
    report({
      name: `charge_two_workers_at_${latencyMs}_ms`,
      value: rounded(slowTwo.perSecond),
      unit: 'charges/s',
      better: 'higher',
      baseline: against('one worker', slowOne.perSecond, 'charges/s', slowTwo.perSecond),
    });
  } finally {
    await workshop.close();
  }
};

/** A night of so many charges, after one of a twentieth: the rate, and what the worker held. */
export const chargeGrowthBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openChargeWorkshop();
  try {
    const few = Math.ceil(lines / 20);
    await enrolledBills(workshop, few, workshop.today, workshop.token);
    const before = await charged(workshop, 1, few);
    await enrolledBills(workshop, lines, workshop.today, workshop.token);
    const after = await charged(workshop, 1, lines);
    report({
      name: 'charge_growth',
      value: rounded(after.perSecond),
      unit: 'charges/s',
      better: 'higher',
      baseline: against('a twentieth of the charges', before.perSecond, 'charges/s', after.perSecond),
    });
    report(resident('charge_growth_resident_at_most', after.residentBytes));
  } finally {
    await workshop.close();
  }
};

/** The most that a worker held, against what it held after a quarter of the run. */
function resident(name: string, residentBytes: readonly number[]): Figure {
  const megabytes = Math.max(0, ...residentBytes) / 2 ** 20;
  const quarter = (residentBytes[Math.floor(residentBytes.length / 4)] ?? 0) / 2 ** 20;
  return {
    name,
    value: rounded(megabytes),
    unit: 'MB',
    better: 'lower',
    baseline: against('after a quarter of the run', quarter, 'MB', megabytes),
  };
}

async function charged(workshop: ChargeWorkshop, workers: number, bills: number) {
  const run = await workshop.charge(workers);
  if (run.charged !== bills) throw new Error(`${run.charged} of ${bills} bills were charged`);
  return {
    perSecond: run.charged / run.seconds,
    residentBytes: run.seen[0]?.residentBytes ?? [],
  };
}

/** Calls a second. */
async function bareLoop(workshop: ChargeWorkshop, calls: number): Promise<number> {
  const { ports, merchant, simulatorUrl, apiKey, token } = workshop;
  const agent = new Agent({ connections: concurrency, pipelining: 1 });
  const call = async () => {
    const reference = referenceOf(ports.ids.uuid());
    const { statusCode, body } = await request(`${simulatorUrl}/v1/charges`, {
      dispatcher: agent,
      method: 'POST',
      headers: {
        authorization: `Bearer ${apiKey}`,
        'content-type': 'application/json',
        'idempotency-key': reference,
      },
      body: JSON.stringify({
        account: merchant.code,
        reference,
        amount: 1_000,
        currency: 'JPY',
        method_token: token,
        network_transaction_id: null,
        metadata: { invoice_id: ports.ids.uuid() },
      }),
    });
    await body.json();
    if (statusCode !== 200) throw new Error(`the simulator answered ${statusCode}`);
  };
  const from = performance.now();
  let begun = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (begun < calls) {
        begun += 1;
        await call();
      }
    }),
  );
  const seconds = (performance.now() - from) / 1000;
  await agent.close();
  return calls / seconds;
}

/** Jobs a second that do nothing, in one process, as many at a time. */
async function queueAlone({ urls }: ChargeWorkshop): Promise<number> {
  const logger = new Logger(() => () => undefined);
  const utils = await makeWorkerUtils({ connectionString: urls.jobs, logger });
  await utils.addJobs(Array.from({ length: emptyJobs }, () => ({ identifier: 'nothing', payload: {} })));
  await utils.release();
  const from = performance.now();
  await runOnce({
    connectionString: urls.jobs,
    logger,
    concurrency,
    noHandleSignals: true,
    taskList: { nothing: async () => undefined },
  });
  return emptyJobs / ((performance.now() - from) / 1000);
}
