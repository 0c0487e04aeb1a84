import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import fastify from 'fastify';
import { openDatabase } from '../billing/db.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { planSteps } from '../billing/messages/plan.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import { startWeb } from '../web/server.ts';
import { newVisitId, sealVisit, visitCookie } from '../web/visit.ts';
import { against, type BenchWith, rounded } from './figure.ts';
import { billingFile, drop, timeOf } from './ingest.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const connections = 50;
const bills = 2_000;
const warmUpSeconds = 3;
const turns = 20;

interface Request {
  path: string;
  cookie: string;
}

interface Load {
  perSecond: number;
  timesMs: number[];
}

/** Of turns that were equally long. */
function wholeOf(loads: readonly Load[]): { perSecond: number; p99Ms: number } {
  const timesMs = loads.flatMap((each) => each.timesMs).sort((one, other) => one - other);
  return {
    perSecond: loads.reduce((sum, { perSecond }) => sum + perSecond, 0) / loads.length,
    p99Ms: timesMs[Math.floor(timesMs.length * 0.99)] ?? 0,
  };
}

/**
 * The page of a bill for a visitor who has passed the check: cookie, database under row security, render. Against a Fastify
 * route that reads one row by its primary key through the same pool and answers with it. The visitors are a thread of their
 * own with 50 connections.
 */
export const payPageBench: BenchWith<{ seconds: number }> = async (report, { seconds }) => {
  const workshop = await openWorkshop();
  const ports = {
    ...workshop.ports,
    carrier: { name: 'none' },
    // The page says which ways there are; nobody pays.
    gateway: simulatorGateway({ baseUrl: 'http://127.0.0.1:9', apiKey: 'unused', webhookSecret: 'unused' }),
  };
  const webDb = openDatabase(workshop.urls.web, {
    applicationName: 'seikyu-web',
    poolMax: 12,
    prepare: true,
  });
  const web = await startWeb({ webDb, ports, baseUrl: 'http://127.0.0.1', port: 0, gatewayOrigins: [] });
  const bare = fastify({ logger: false });
  bare.get('/bare/:id', async (request) => {
    const { id } = request.params as { id: string };
    const [row] = await webDb.query('select id, code, short_code from merchants where id = $1', [Number(id)]);
    return row;
  });
  const visitors = openVisitors();
  try {
    const visits = await visitsOf(workshop);
    const bareUrl = await bare.listen({ host: '127.0.0.1', port: 0 });
    const routes: Request[] = [{ path: `/bare/${workshop.merchant.id}`, cookie: '' }];
    await visitors.load(bareUrl, routes, warmUpSeconds);
    await visitors.load(web.url, visits, warmUpSeconds);
    // In turns: on a shared machine one second can be twice as fast as the next.
    const bareLoads: Load[] = [];
    const pageLoads: Load[] = [];
    for (let turn = 0; turn < turns; turn++) {
      bareLoads.push(await visitors.load(bareUrl, routes, seconds / turns));
      pageLoads.push(await visitors.load(web.url, visits, seconds / turns));
    }
    const one = wholeOf(bareLoads);
    const page = wholeOf(pageLoads);
    const name = 'a bare route with one query by primary key';
    report({
      name: 'pay_page',
      value: rounded(page.perSecond),
      unit: 'requests/s',
      better: 'higher',
      baseline: against(name, one.perSecond, 'requests/s', page.perSecond),
    });
    report({
      name: 'pay_page_p99',
      value: rounded(page.p99Ms),
      unit: 'ms',
      better: 'lower',
      baseline: against(name, one.p99Ms, 'ms', page.p99Ms),
    });
  } finally {
    await visitors.close();
    await bare.close();
    await web.close();
    await webDb.close();
    await workshop.close();
  }
};

/** Bills of a released file with their links, each with somebody who has passed the check. */
async function visitsOf(workshop: Workshop): Promise<Request[]> {
  const { db, ports, merchant } = workshop;
  drop(workshop, 1, billingFile(1, bills));
  await timeOf(workshop, fetch);
  await timeOf(workshop, ingest);
  await ports.clock.refresh();
  const at = ports.clock.now();
  const invoices = await db.query<{ id: string }>('select id from invoices where merchant_id = $1', [
    merchant.id,
  ]);
  const steps = invoices.map(({ id }) => ({ invoiceId: id, step: 'first_notice', plannedOn: '2026-11-25' }));
  await db.transaction((tx) => planSteps(tx, { merchant, sealer: ports.sealer, at, steps }));
  await db.run('analyze');
  return invoices.map(({ id }) => {
    const link = { merchantId: merchant.id, invoiceId: id, version: 1 };
    const visit = { id: newVisitId(ports.randomness), link, checked: true, language: 'ja' as const };
    return { path: `/b/${visit.id}`, cookie: `${visitCookie}=${sealVisit(ports.sealer, at, visit)}` };
  });
}

/** A thread that asks for one path after the other on each connection. Every answer must be a 200. */
function openVisitors(): {
  load(origin: string, requests: readonly Request[], seconds: number): Promise<Load>;
  close(): Promise<unknown>;
} {
  const worker = new Worker(visitor, { eval: true, workerData: { connections } });
  return {
    async load(origin, requests, seconds) {
      worker.postMessage({ origin, requests, seconds });
      const [load] = await once(worker, 'message');
      return load as Load;
    },
    close: () => worker.terminate(),
  };
}

const visitor = `
const { workerData, parentPort } = require('node:worker_threads');
const { Pool } = require('undici');
const pools = new Map();
parentPort.on('message', async ({ origin, requests, seconds }) => {
  const pool = pools.get(origin) ?? new Pool(origin, { connections: workerData.connections, pipelining: 1 });
  pools.set(origin, pool);
  const times = [];
  let next = 0;
  const began = performance.now();
  const until = began + seconds * 1000;
  async function visit() {
    while (performance.now() < until) {
      const { path, cookie } = requests[next++ % requests.length];
      const from = performance.now();
      const answer = await pool.request({ path, method: 'GET', headers: cookie === '' ? {} : { cookie } });
      await answer.body.text();
      times.push(performance.now() - from);
      if (answer.statusCode !== 200) throw new Error(path + ' answered ' + answer.statusCode);
    }
  }
  await Promise.all(Array.from({ length: workerData.connections }, visit));
  const took = (performance.now() - began) / 1000;
  parentPort.postMessage({ perSecond: times.length / took, timesMs: times });
});
`;
