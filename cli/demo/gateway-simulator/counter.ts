import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { v7 } from 'uuid';
import { z } from 'zod';
import { referenceOf } from '../../../billing/ids.ts';
import { refusal } from './charge-routes.ts';
import { counterPage, pageHeaders } from './hosted-page.tsx';
import {
  type CounterPayment,
  cancelCounterPayment,
  captureFinalPayments,
  counterNews,
  counterPayment,
  insertCounterPayment,
} from './queries.ts';
import { planWebhook, type Simulation } from './simulation.ts';

/** The money of a register is certain on the third day at ten in the morning, Japan's time. */
const FINAL_AFTER_DAYS = 3;
const DAY_MS = 86_400_000;
const JAPAN_MS = 9 * 3_600_000;
const LIMIT_YEN = 300_000;

const account = z.string().regex(/^[0-9A-Za-z_.-]{1,64}$/);
const reference = z.string().regex(/^[0-9A-Z]{26}$/);
const instant = z.iso.datetime({ offset: true });
const payRequest = z.object({ account, barcode: z.string().max(80) });
const cancelRequest = z.strictObject({ account, reference });
const newsQuery = z.object({ account, from: instant, until: instant });

export type RegisterProblem = 'not_a_barcode' | 'too_late' | 'over_limit';

/** What a register can read of 44 digits, or why it refuses. `today`: YYMMDD in Japan. */
export function scan(text: string, today: string): { barcode: string; amount: number } | RegisterProblem {
  const barcode = text.replaceAll(/[^0-9]/g, '');
  if (!/^91\d{42}$/.test(barcode)) return 'not_a_barcode';
  let sum = 0;
  for (let at = 0; at < 43; at += 1) sum += Number(barcode[at]) * (at % 2 === 0 ? 3 : 1);
  if ((sum + Number(barcode[43])) % 10 !== 0) return 'not_a_barcode';
  const lastDay = barcode.slice(30, 36);
  if (lastDay !== '999999' && lastDay < today) return 'too_late';
  const amount = Number(barcode.slice(37, 43));
  if (amount < 1 || amount > LIMIT_YEN) return 'over_limit';
  return { barcode, amount };
}

const japanDay = (epochMs: number): string =>
  new Date(epochMs + JAPAN_MS).toISOString().slice(2, 10).replaceAll('-', '');

const body = (row: CounterPayment, now: Date) => ({
  kind: 'barcode_payment',
  id: row.id,
  account: row.account,
  reference: row.reference,
  barcode: row.barcode,
  state: row.cancelledAt !== null ? 'cancelled' : row.finalAt <= now ? 'final' : 'preliminary',
  amount: row.amount,
  currency: row.currency,
  paid_at: row.paidAt.toISOString(),
  final_at: row.cancelledAt === null && row.finalAt <= now ? row.finalAt.toISOString() : null,
});

/** Registers of shops, and what the gateway tells of them. */
export function counterRoutes(app: FastifyInstance, simulation: Simulation): void {
  const { pool, clock, settings, delivery, effects } = simulation;
  const now = async () => new Date(await clock.now());

  async function pay(wanted: z.infer<typeof payRequest>): Promise<CounterPayment | RegisterProblem> {
    const time = await now();
    const scanned = scan(wanted.barcode, japanDay(time.getTime()));
    if (typeof scanned === 'string') return scanned;
    const dayStart = Math.floor((time.getTime() + JAPAN_MS) / DAY_MS) * DAY_MS - JAPAN_MS;
    const payment: CounterPayment = {
      id: `cv_${randomBytes(12).toString('hex')}`,
      account: wanted.account,
      reference: referenceOf(v7({ msecs: time.getTime(), random: randomBytes(16) })),
      barcode: scanned.barcode,
      amount: scanned.amount,
      currency: 'JPY',
      shop: '010-000001',
      paidAt: time,
      finalAt: new Date(dayStart + FINAL_AFTER_DAYS * DAY_MS + 10 * 3_600_000),
      cancelledAt: null,
    };
    await effects.run(() => insertCounterPayment(pool, payment, planWebhook(settings)));
    delivery.wake();
    return payment;
  }

  // Whatever is asked of the gateway's books: what is final by now stands in them.
  app.addHook('onRequest', async (request) => {
    if (request.url.startsWith('/v1/')) await captureFinalPayments(pool, await now());
  });

  app.get('/v1/barcode-payments/:account/:reference', async (request, reply) => {
    const params = z.object({ account, reference }).safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    const row = await counterPayment(pool, params.data.account, params.data.reference);
    if (row === null) return reply.code(404).send(refusal('no_such_payment', false));
    return body(row, await now());
  });

  app.get('/v1/barcode-payments', async (request, reply) => {
    const query = newsQuery.safeParse(request.query);
    if (!query.success) return reply.code(400).send(refusal('invalid_request', false));
    await effects.settled();
    const time = await now();
    const { from, until } = query.data;
    const upTo = new Date(Math.min(new Date(until).getTime(), time.getTime() + 1));
    const rows = await counterNews(pool, query.data.account, new Date(from), upTo);
    const amount = rows.reduce((sum, row) => sum + row.amount, 0);
    const lines = [...rows.map((row) => body(row, time)), { kind: 'end', count: rows.length, amount }];
    return reply
      .type('application/x-ndjson; charset=utf-8')
      .send(Readable.from(lines.map((line) => `${JSON.stringify(line)}\n`)));
  });

  /** Somebody holds a barcode to a register. */
  app.post('/control/counter-payments', async (request, reply) => {
    const wanted = payRequest.safeParse(request.body);
    if (!wanted.success) return reply.code(400).send(refusal('invalid_request', false));
    const paid = await pay(wanted.data);
    return typeof paid === 'string' ? reply.code(422).send(refusal(paid, false)) : body(paid, await now());
  });

  /** The shop takes its word back before the money is certain. */
  app.post('/control/counter-payments/cancel', async (request, reply) => {
    const wanted = cancelRequest.safeParse(request.body);
    if (!wanted.success) return reply.code(400).send(refusal('invalid_request', false));
    const { account: name, reference: of } = wanted.data;
    const cancelled = await cancelCounterPayment(pool, name, of, await now(), planWebhook(settings));
    delivery.wake();
    return cancelled ? { cancelled } : reply.code(409).send(refusal('final_or_unknown', false));
  });

  app.get('/counter', (_request, reply) => reply.headers(pageHeaders(null)).send(counterPage(null)));
  app.post('/counter', async (request, reply) => {
    const wanted = payRequest.safeParse(request.body);
    const paid = wanted.success ? await pay(wanted.data) : 'not_a_barcode';
    return reply
      .code(typeof paid === 'string' ? 422 : 200)
      .headers(pageHeaders(null))
      .send(counterPage(typeof paid === 'string' ? paid : { amount: paid.amount, receipt: paid.id }));
  });
}
