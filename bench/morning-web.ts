import process from 'node:process';
import fastify from 'fastify';
import { systemClock } from '../billing/clock.ts';
import { openDatabase } from '../billing/db.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { systemRandomness, timeOrderedIds } from '../billing/ids.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import type { WebPorts } from '../web/ports.ts';
import { startWeb } from '../web/server.ts';
import { workshopSecret } from './workshop.ts';

/** Where the web listens, and a bare route that reads one row by its primary key through the same pool. */
export interface MorningUrls {
  web: string;
  bare: string;
}

/** The web in a process of its own, as `seikyu serve` is beside `seikyu work`. */
const [databaseUrl = '', merchantId = ''] = process.argv.slice(2);

const webDb = openDatabase(databaseUrl, { applicationName: 'seikyu-web', poolMax: 12, prepare: true });
const clock = systemClock();
const randomness = systemRandomness();
const silent = () => undefined;
const ports = {
  clock,
  ids: timeOrderedIds(clock, randomness),
  randomness,
  crash: async () => undefined,
  log: { debug: silent, info: silent, warn: silent, error: console.error },
  sealer: makeSealer(deriveKeys(workshopSecret), randomness),
  alertSenders: [],
  carrier: { name: 'none' },
  // The page says which ways there are; nobody pays.
  gateway: simulatorGateway({ baseUrl: 'http://127.0.0.1:9', apiKey: 'unused', webhookSecret: 'unused' }),
} as unknown as WebPorts;
const web = await startWeb({ webDb, ports, baseUrl: 'http://127.0.0.1', port: 0, gatewayOrigins: [] });
const bare = fastify({ logger: false });
bare.get('/', async () => {
  const [row] = await webDb.query('select id, code, short_code from merchants where id = $1', [
    Number(merchantId),
  ]);
  return row;
});
const urls: MorningUrls = { web: web.url, bare: await bare.listen({ host: '127.0.0.1', port: 0 }) };
process.on('disconnect', () => void close());
process.send?.(urls);

async function close(): Promise<void> {
  await web.close();
  await bare.close();
  await webDb.close();
  process.exit(0);
}
