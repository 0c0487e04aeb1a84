import { once } from 'node:events';
import fs from 'node:fs';
import process from 'node:process';
import { listMerchants } from '../billing/merchants/queries.ts';
import type { Log } from '../billing/ports.ts';
import { readSettings } from '../cli/settings.ts';
import { openSystem } from '../cli/system.ts';
import type { JobName } from '../jobs/job.ts';
import { jobs } from '../jobs/jobs.ts';
import { messageOf, type RunEnd, runJob } from '../jobs/run.ts';
import { startWeb } from '../web/server.ts';
import { asActor, type Step, watchedDb, watchPorts } from './boundaries.ts';

/**
 * The product as a process of its own: put together as `up` does it, with an observer around what leads outside. It does
 * rounds of all jobs when it is told to, serves the pay page and webhooks, and kills itself without a goodbye the nth
 * time it comes to a point.
 */
export interface Order {
  /** The business date. */
  round: string;
  /** Where to begin among the merchants, so that several processes do not walk in step. */
  from: number;
}

export type Said = { kind: 'ready'; port: number } | { kind: 'done'; ends: JobEnd[] };

export interface JobEnd {
  merchant: string;
  job: JobName;
  outcome: RunEnd['outcome'];
  failure: string;
}

const [trace = '', killAt = '', nth = '1'] = process.argv.slice(2);

const steps = fs.openSync(trace, 'a');
// At once and not through a buffer: what was passed before the end must stand there after it.
const note = (step: Step) => fs.writeSync(steps, `${JSON.stringify(step)}\n`);
const toNote =
  (level: string) =>
  (fields: Record<string, unknown>, message: string): void => {
    fs.writeSync(steps, `${JSON.stringify({ kind: 'log', level, message, fields })}\n`);
  };
const nothing = () => undefined;
const log: Log = { debug: nothing, info: nothing, warn: toNote('warn'), error: toNote('error') };

const settings = readSettings({ environment: process.env });
const system = await openSystem(settings, log);
// A call that gets no answer costs real time.
await system.needGateway({ callDeadlineMs: 1_000 });
const { ports, worker } = system;
let passed = 0;
watchPorts(ports, note, (point) => {
  if (point !== killAt) return;
  passed += 1;
  if (passed === Number(nth)) process.kill(process.pid, 'SIGKILL');
});
const web = await startWeb({
  webDb: watchedDb(system.webDb, note),
  ports,
  baseUrl: settings.baseUrl,
  port: settings.port,
  gatewayOrigins: [system.gatewayOrigin()],
});

const say = (said: Said) => process.send?.(said);
let runs = 0;

async function round({ round: businessDate, from }: Order): Promise<JobEnd[]> {
  const ends: JobEnd[] = [];
  const merchants = await listMerchants(system.db);
  const inTurn = merchants.map((_, index) => merchants[(index + from) % merchants.length]);
  for (const job of Object.values(jobs)) {
    for (const merchant of inTurn) {
      if (merchant === undefined) continue;
      runs += 1;
      const end = await asActor(`${job.name} ${runs}`, () =>
        runJob(ports, job, { merchant, businessDate, worker }),
      );
      const failure = end.failure === null ? '' : messageOf(end.failure);
      ends.push({ merchant: merchant.code, job: job.name, outcome: end.outcome, failure });
    }
  }
  return ends;
}

// One after the other: the next order comes when this one is done.
process.on('message', (order: Order) => {
  void round(order).then((ends) => say({ kind: 'done', ends }));
});
say({ kind: 'ready', port: web.port });
// Also when whoever gives the orders has died.
await once(process, 'disconnect');
await web.close();
await system.close();
process.exit(0);
