import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { against, type BenchWith, rounded } from './figure.ts';
import type { MorningUrls } from './morning-web.ts';
import { heldPace, localCarrier, pacePerSecond, planned, send, settle } from './notify.ts';
import { openWorkshop } from './workshop.ts';

/** Half of those who open their link do so within the hour after the SMS. */
const halfOpenedWithinMs = 3_600_000;

interface Seen {
  visits: number;
  pageP99Ms: number;
  bareP99Ms: number;
}

/**
 * First notices go out at their pace while their links are opened: link, question, answer, bill. Each visit also asks a bare
 * route of the same process for one row by its primary key, so that both have the same morning. The web and the visitors
 * are a process and a thread of their own.
 */
export const morningBench: BenchWith<{ messages: number }> = async (report, { messages }) => {
  const workshop = await openWorkshop();
  const web = fork(
    join(import.meta.dirname, 'morning-web.ts'),
    [workshop.urls.web, String(workshop.merchant.id)],
    { execArgv: ['--import', 'tsx'] },
  );
  try {
    const [urls] = (await once(web, 'message')) as [MorningUrls];
    const visitors = new Worker(visitor, { eval: true, workerData: urls });
    const sentAtMs: number[] = [];
    const carrier = localCarrier(({ to, body }) => {
      sentAtMs.push(performance.now());
      const afterMs = (-Math.log(1 - Math.random()) * halfOpenedWithinMs) / Math.LN2;
      visitors.postMessage({ link: linkIn(body), answer: lastFourOf(to), afterMs });
    });
    workshop.ports.carrier = carrier;
    await settle(workshop, pacePerSecond);
    await planned(workshop, 1, messages);
    await workshop.db.run('analyze');
    // Ends early only if a visitor is refused.
    const ended = once(visitors, 'message') as Promise<[Seen]>;
    await Promise.race([send(workshop, messages), ended]);
    visitors.postMessage(null);
    const [seen] = await ended;
    const pace = heldPace(carrier, messages, sentAtMs);
    report({
      name: 'morning_pace',
      value: rounded(pace),
      unit: 'segments/s',
      better: 'higher',
      baseline: against('the pace that was planned', pacePerSecond, 'segments/s', pace),
    });
    report({ name: 'morning_visits', value: seen.visits, unit: 'visits', better: 'higher' });
    report({
      name: 'morning_page_p99',
      value: rounded(seen.pageP99Ms),
      unit: 'ms',
      better: 'lower',
      baseline: against('a bare route with one query by primary key', seen.bareP99Ms, 'ms', seen.pageP99Ms),
    });
  } finally {
    const gone = once(web, 'exit');
    web.disconnect();
    await gone;
    await workshop.close();
  }
};

function linkIn(body: string): string {
  const [link] = /https?:\/\/\S+/.exec(body) ?? [];
  if (link === undefined) throw new Error('an SMS has no link');
  return new URL(link).pathname;
}

/** The bench's telephones hold the number of their customer: +8190 X abc def 0 is G0abcdef. */
function lastFourOf(to: string): string {
  return to.slice(-5, -1);
}

const visitor = `
const { workerData: { web, bare }, parentPort } = require('node:worker_threads');
const { Pool } = require('undici');
const [pages, rows] = [new Pool(web, { connections: 50 }), new Pool(bare, { connections: 50 })];
const [pageMs, bareMs] = [[], []];
const waiting = new Set();
const going = new Set();
async function ask(pool, options, status, times) {
  const from = performance.now();
  const answer = await pool.request(options);
  await answer.body.text();
  if (times) times.push(performance.now() - from);
  if (answer.statusCode !== status) throw new Error(options.path.slice(0, 3) + ' answered ' + answer.statusCode);
  return answer.headers;
}
const cookieOf = (headers) => String(headers['set-cookie']).split(';')[0];
async function visit({ link, answer }) {
  const opened = await ask(pages, { path: link, method: 'GET' }, 303);
  const path = new URL(opened.location, web).pathname;
  let cookie = cookieOf(opened);
  await ask(pages, { path, method: 'GET', headers: { cookie } }, 200, pageMs);
  const checked = await ask(pages, {
    path: path + '/check',
    method: 'POST',
    headers: { cookie, 'sec-fetch-site': 'same-origin', 'content-type': 'application/x-www-form-urlencoded' },
    body: 'answer=' + answer,
  }, 303);
  cookie = cookieOf(checked);
  await ask(pages, { path, method: 'GET', headers: { cookie } }, 200, pageMs);
  await ask(rows, { path: '/', method: 'GET' }, 200, bareMs);
}
const p99 = (times) => times.sort((one, other) => one - other)[Math.floor(times.length * 0.99)];
parentPort.on('message', async (sms) => {
  if (sms === null) {
    for (const timer of waiting) clearTimeout(timer);
    await Promise.all(going);
    parentPort.postMessage({ visits: bareMs.length, pageP99Ms: p99(pageMs), bareP99Ms: p99(bareMs) });
    await Promise.all([pages.close(), rows.close()]);
    parentPort.close();
    return;
  }
  const timer = setTimeout(() => {
    waiting.delete(timer);
    const one = visit(sms).finally(() => going.delete(one));
    going.add(one);
  }, sms.afterMs);
  waiting.add(timer);
});
`;
