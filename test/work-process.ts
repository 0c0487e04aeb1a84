import process from 'node:process';
import { virtualClock } from '../billing/clock.ts';
import { openDatabase } from '../billing/db.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { openWakeQueue } from '../cli/wake.ts';
import { Workbench } from '../jobs/work.ts';
import { portsFor } from './ports.ts';

/** A worker as a process of its own, as `seikyu work` is, until it is told to stop or killed. */
const [databaseUrl = '', gatewayUrl = '', apiKey = ''] = process.argv.slice(2);

const db = openDatabase(databaseUrl);
const clock = virtualClock(db);
await clock.refresh();
const gateway = simulatorGateway({ baseUrl: gatewayUrl, apiKey, webhookSecret: apiKey });
const ports = portsFor(db, clock, gateway, '/nonexistent');
const queue = openWakeQueue(databaseUrl, ports.log);
ports.wake = queue.wake;
const stop = new AbortController();
process.on('SIGTERM', () => stop.abort(new Error('stopped')));
process.on('disconnect', () => process.exit(1));
const worker = { owner: `worker:${process.pid}:x`, isDead: () => false, codeVersion: 'test' };
const bench = new Workbench({ ports, worker, stop: stop.signal, atOnce: 1 });
await queue.listen(() => bench.wake());
process.send?.('ready');
await bench.workUntilStopped();
await queue.close();
await gateway.close();
await db.close();
process.exit(0);
