import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { businessDateOf } from '../billing/calendar/hours.ts';
import { requestRun } from '../billing/runs/queries.ts';
import { startSimulator } from '../cli/embedded/simulator.ts';
import { openWakeQueue } from '../cli/wake.ts';
import type { WorkerSeen } from './charge-worker.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

/** A workshop with the gateway simulator in a process of its own, and workers in theirs. */
export interface ChargeWorkshop extends Workshop {
  simulatorUrl: string;
  apiKey: string;
  /** The day for which bills are due. */
  today: string;
  /** The token of a card that pays. */
  token: string;
  control(settings: Record<string, unknown>): Promise<void>;
  /** Charges what is due today by so many workers; they are started before the clock is. */
  charge(workers: number): Promise<ChargeRun>;
}

export interface ChargeRun {
  charged: number;
  seconds: number;
  seen: WorkerSeen[];
}

const apiKey = 'the key of benchmarks';

export async function openChargeWorkshop(): Promise<ChargeWorkshop> {
  const workshop = await openWorkshop();
  const simulator = await startSimulator({
    home: workshop.home,
    databaseUrl: workshop.urls.simulator,
    clockUrl: workshop.urls.web,
    secret: apiKey,
    webhookUrl: null,
  });
  const call = async (path: string, body: unknown) => {
    const answer = await fetch(`${simulator.url}/control${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`the simulator answered ${answer.status}`);
    return answer.json();
  };
  const { methods } = (await call('/saved-methods', {
    account: workshop.merchant.code,
    cards: ['visa'],
  })) as { methods: { token: string }[] };
  await call('', { webhooks: { mode: 'never' } });
  const { ports, merchant } = workshop;
  const today = businessDateOf(ports.clock.now(), merchant.settings.timezone).toString();
  const opened: ChargeWorkshop = {
    ...workshop,
    simulatorUrl: simulator.url,
    apiKey,
    today,
    token: methods[0]?.token ?? '',
    control: async (settings) => void (await call('', settings)),
    charge: (workers) => chargeBy(opened, workers),
    async close() {
      await simulator.stop();
      await workshop.close();
    },
  };
  return opened;
}

async function chargeBy(workshop: ChargeWorkshop, count: number): Promise<ChargeRun> {
  const { db, merchant, today, urls, simulatorUrl, ports } = workshop;
  const workers = Array.from({ length: count }, () =>
    fork(join(import.meta.dirname, 'charge-worker.ts'), [urls.jobs, simulatorUrl, apiKey], {
      execArgv: ['--import', 'tsx'],
    }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  const key = { merchantId: merchant.id, job: 'charge', businessDate: today };
  await requestRun(db, key, ports.clock.now(), true);
  const queue = openWakeQueue(urls.jobs, ports.log);
  await queue.wake(count);
  let pass: { outcome: string; seconds: number; charged: number } | undefined;
  while (pass === undefined) {
    await wait(200);
    [pass] = await db.query<{ outcome: string; seconds: number; charged: number }>(
      `select p.outcome, extract(epoch from p.finished_at - p.started_at)::float8 as seconds,
              coalesce((p.counts ->> 'charged')::bigint, 0) as charged
       from run_passes p join runs r using (merchant_id, job, business_date, pass)
       where p.merchant_id = $1 and p.job = 'charge' and p.business_date = $2::date and r.state in ('done', 'failed')`,
      [merchant.id, today],
    );
  }
  await queue.close();
  const seen = await Promise.all(
    workers.map(async (worker) => {
      const said = once(worker, 'message');
      worker.send('stop');
      return (await said)[0] as WorkerSeen;
    }),
  );
  if (pass.outcome !== 'done') throw new Error(`the charge run ended ${pass.outcome}`);
  return { charged: pass.charged, seconds: pass.seconds, seen };
}
