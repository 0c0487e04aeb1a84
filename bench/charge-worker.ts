import process from 'node:process';
import { systemClock } from '../billing/clock.ts';
import { openDatabase } from '../billing/db.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { systemRandomness, timeOrderedIds } from '../billing/ids.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import { openWakeQueue } from '../cli/wake.ts';
import type { Ports } from '../jobs/ports.ts';
import { Workbench } from '../jobs/work.ts';
import { workshopSecret } from './workshop.ts';

/** What a worker has seen when it is told to stop. */
export interface WorkerSeen {
  calls: number;
  tooFast: number;
  /** Resident bytes, each second. */
  residentBytes: number[];
}

/** A worker as `seikyu work` is, that counts the gateway's answers. */
const [databaseUrl = '', gatewayUrl = '', apiKey = ''] = process.argv.slice(2);

const seen: WorkerSeen = { calls: 0, tooFast: 0, residentBytes: [] };
setInterval(() => seen.residentBytes.push(process.memoryUsage.rss()), 1_000).unref();
const db = openDatabase(databaseUrl, { applicationName: 'seikyu bench worker', poolMax: 12 });
const clock = systemClock();
const randomness = systemRandomness();
const gateway = simulatorGateway({ baseUrl: gatewayUrl, apiKey, webhookSecret: apiKey });
const answer = gateway.charge.bind(gateway);
gateway.charge = async (request, signal) => {
  const answered = await answer(request, signal);
  seen.calls += 1;
  if (answered.kind === 'not_executed' && answered.tooFast) seen.tooFast += 1;
  return answered;
};
const silent = () => undefined;
const log = { debug: silent, info: silent, warn: silent, error: console.error };
const queue = openWakeQueue(databaseUrl, log);
const ports = {
  db,
  clock,
  ids: timeOrderedIds(clock, randomness),
  randomness,
  crash: async () => undefined,
  log,
  sealer: makeSealer(deriveKeys(workshopSecret), randomness),
  gateway,
  alertSenders: [],
  wake: queue.wake,
} as unknown as Ports;
const stop = new AbortController();
const worker = { owner: `bench:${process.pid}:x`, isDead: () => false, codeVersion: 'bench' };
const bench = new Workbench({ ports, worker, stop: stop.signal, atOnce: 1 });
process.on('message', () => stop.abort(new Error('stopped')));
await queue.listen(() => bench.wake());
process.send?.('ready');
await bench.workUntilStopped();
await queue.close();
await gateway.close();
await db.close();
process.send?.(seen, () => process.exit(0));
