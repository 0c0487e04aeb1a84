import process from 'node:process';
import { virtualClock } from '../billing/clock.ts';
import { openDatabase } from '../billing/db.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { charge } from '../jobs/charge.ts';
import type { Job } from '../jobs/job.ts';
import { runJob } from '../jobs/run.ts';
import { trace } from '../jobs/trace.ts';
import { portsFor } from './ports.ts';

/** A process of its own that runs one job and kills itself, without a goodbye, the nth time it comes to a point. */
const [
  job = '',
  databaseUrl = '',
  gatewayUrl = '',
  apiKey = '',
  merchantCode = '',
  businessDate = '',
  point = '',
  nth = '1',
] = process.argv.slice(2);

const db = openDatabase(databaseUrl);
const clock = virtualClock(db);
await clock.refresh();
const gateway = simulatorGateway({ baseUrl: gatewayUrl, apiKey, webhookSecret: apiKey });
const ports = portsFor(db, clock, gateway, '/nonexistent');
let passed = 0;
ports.crash = async (name) => {
  if (name !== point) return;
  passed += 1;
  if (passed === Number(nth)) process.kill(process.pid, 'SIGKILL');
};
const end = await runJob(ports, (job === 'trace' ? trace : charge) as unknown as Job, {
  merchant: await merchantByCode(db, merchantCode),
  businessDate,
  worker: { owner: `child:${process.pid}`, isDead: () => true, codeVersion: 'test' },
});
await gateway.close();
await db.close();
process.exitCode = end.outcome === 'failed' ? 1 : 0;
