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
const warmUpSeconds = 2;

interface Load {
  perSecond: number;
  p99Ms: number;
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
  try {
    const visits = await visitors(workshop);
    const bareUrl = await bare.listen({ host: '127.0.0.1', port: 0 });
    const routes = [{ path: `/bare/${workshop.merchant.id}`, cookie: '' }];
    await load(bareUrl, routes, warmUpSeconds);
    await load(web.url, visits, warmUpSeconds);
    const one = await load(bareUrl, routes, seconds);
    const page = await load(web.url, visits, seconds);
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
    await bare.close();
    await web.close();
    await webDb.close();
    await workshop.close();
  }
};

/** Bills of a released file with their links, each with somebody who has passed the check. */
async function visitors(workshop: Workshop): Promise<{ path: string; cookie: string }[]> {
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

/** Asks for one path after the other on each connection. Every answer must be a 200. */
async function load(
  origin: string,
  requests: readonly { path: string; cookie: string }[],
  seconds: number,
): Promise<Load> {
  const worker = new Worker(visitor, { eval: true, workerData: { origin, requests, seconds, connections } });
  return new Promise((resolve, reject) => {
    worker.on('message', resolve);
    worker.on('error', reject);
  });
}

const visitor = `
const { workerData, parentPort } = require('node:worker_threads');
const { Pool } = require('undici');
const { origin, requests, seconds, connections } = workerData;
const pool = new Pool(origin, { connections, pipelining: 1 });
const times = [];
let next = 0;
const until = performance.now() + seconds * 1000;
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
const began = performance.now();
Promise.all(Array.from({ length: connections }, visit)).then(async () => {
  const took = (performance.now() - began) / 1000;
  times.sort((one, other) => one - other);
  parentPort.postMessage({ perSecond: times.length / took, p99Ms: times[Math.floor(times.length * 0.99)] });
  await pool.close();
});
`;
