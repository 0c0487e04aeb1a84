import { createHash, timingSafeEqual } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import formbody from '@fastify/formbody';
import fastify from 'fastify';
import { Pool } from 'pg';
import { z } from 'zod';
import { cardByName, TEST_CARDS } from './cards.ts';
import { chargeRoutes, refusal } from './charge-routes.ts';
import { simulatorClock } from './clock.ts';
import { counterRoutes } from './counter.ts';
import { messagePage, pageHeaders } from './hosted-page.tsx';
import { pageRoutes } from './page-routes.ts';
import { saveCards } from './queries.ts';
import {
  type Simulation,
  type SimulatorSettings,
  saveCard,
  savedMethodBody,
  trackEffects,
} from './simulation.ts';
import { createTables } from './tables.ts';
import { deliverWebhooks } from './webhooks.ts';

export interface GatewaySimulatorOptions {
  /** The simulator's own database; it makes its own tables there, in the schema `gateway_simulator`. */
  databaseUrl: string;
  /** API key and webhook secret in one. */
  secret: string;
  /** 0 = any free port. */
  port?: number;
  host?: string;
  /** What browsers use; default: http://host:port. */
  publicUrl?: string;
  /** Where webhooks go; `{account}` stands for the merchant's account. Null: nowhere. */
  webhookUrl?: string | null;
  /** Database with the row `virtual_clock`; null: the system clock. */
  clockUrl?: string | null;
  /** Epoch milliseconds, for tests; goes before `clockUrl`. */
  now?: () => number;
  /** How long a connection that gets no answer is held before it is dropped. */
  holdMs?: number;
  onError?: (error: unknown) => void;
}

export interface GatewaySimulator {
  url: string;
  port: number;
  close(): Promise<void>;
}

const controlRequest = z.strictObject({
  webhooks: z
    .strictObject({
      mode: z.enum(['normal', 'duplicate', 'delay', 'never']),
      delayMs: z.number().min(0).max(600_000).default(2_000),
    })
    .optional(),
  outage: z.boolean().optional(),
  latencyMs: z.number().min(0).max(20_000).optional(),
  rateLimitPerSecond: z.number().min(0).nullable().optional(),
  refundsUnanswered: z.int().min(0).optional(),
  cardUpdatesUnanswered: z.int().min(0).optional(),
});

const savedMethodsRequest = z.strictObject({
  account: z.string().regex(/^[0-9A-Za-z_.-]{1,64}$/),
  /** Names of test cards, in the order in which the saved methods are answered. */
  cards: z.array(z.string()).min(1).max(10_000),
  expires: z
    .string()
    .regex(/^\d{4}-(0[1-9]|1[0-2])$/)
    .default('2039-12'),
});

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

export async function startGatewaySimulator(options: GatewaySimulatorOptions): Promise<GatewaySimulator> {
  const onError = options.onError ?? (() => undefined);
  const host = options.host ?? '127.0.0.1';
  const { now } = options;
  const clock =
    now === undefined
      ? simulatorClock(options.clockUrl ?? null)
      : { now: async () => now(), close: async () => undefined };
  // The statement's time-out keeps the promise that a request received is executed or dropped within a minute.
  const pool = new Pool({ connectionString: options.databaseUrl, max: 8, statement_timeout: 15_000 });
  pool.on('error', onError);
  await createTables(pool);

  const settings: SimulatorSettings = {
    webhooks: { mode: 'normal', delayMs: 2_000 },
    outage: false,
    latencyMs: 0,
    rateLimitPerSecond: null,
    refundsUnanswered: 0,
    cardUpdatesUnanswered: 0,
  };
  const delivery = deliverWebhooks({
    pool,
    clock,
    secret: options.secret,
    urlTemplate: options.webhookUrl ?? null,
    onError,
  });

  let url = '';
  const simulation: Simulation = {
    pool,
    clock,
    settings,
    delivery,
    effects: trackEffects(),
    publicUrl: () => options.publicUrl ?? url,
    holdMs: options.holdMs ?? 15_000,
  };

  const app = fastify({ bodyLimit: 1_048_576, forceCloseConnections: true });
  await app.register(formbody, { bodyLimit: 16_384 });

  const expected = digest(`Bearer ${options.secret}`);
  let slots = { second: -1, used: 0 };
  const isBrowserPath = (path: string) => /^\/(pay|acs|test-cards|counter)(\/|$)/.test(path);

  app.addHook('onRequest', async (request, reply) => {
    const path = request.url.split('?')[0] ?? '';
    if (path === '/health') return;
    if (isBrowserPath(path)) {
      if (settings.outage) return reply.code(503).headers(pageHeaders(null)).send(messagePage('unavailable'));
      return;
    }
    if (!timingSafeEqual(digest(request.headers.authorization ?? ''), expected)) {
      return reply.code(401).send(refusal('wrong_key', false));
    }
    if (path.startsWith('/control')) return;
    if (settings.outage) return reply.code(503).send(refusal('outage', false));
    if (settings.rateLimitPerSecond !== null) {
      const second = Math.floor(performance.now() / 1000);
      slots = slots.second === second ? slots : { second, used: 0 };
      slots.used += 1;
      if (slots.used > settings.rateLimitPerSecond) {
        return reply.code(429).header('retry-after', 1).send(refusal('rate_limited', false));
      }
    }
    if (settings.latencyMs > 0) await sleep(settings.latencyMs);
  });

  app.setErrorHandler((error: Error & { statusCode?: number }, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status >= 500) onError(error);
    if (isBrowserPath(request.url)) {
      return reply.code(status).headers(pageHeaders(null)).send(messagePage('unavailable'));
    }
    return status < 500
      ? reply.code(status).send(refusal('invalid_request', false))
      : reply.code(500).send(refusal('internal_error'));
  });

  app.get('/health', async () => ({ ok: true }));
  chargeRoutes(app, simulation);
  pageRoutes(app, simulation);
  counterRoutes(app, simulation);

  app.get('/control', async () => settings);
  app.post('/control', async (request, reply) => {
    const wanted = controlRequest.safeParse(request.body);
    if (!wanted.success) return reply.code(400).send(refusal('invalid_request', false));
    for (const [name, value] of Object.entries(wanted.data)) {
      if (value !== undefined) Object.assign(settings, { [name]: value });
    }
    return settings;
  });
  /** As a gateway takes over another gateway's vault: saved methods without a visit to the page. */
  app.post('/control/saved-methods', async (request, reply) => {
    const wanted = savedMethodsRequest.safeParse(request.body);
    if (!wanted.success) return reply.code(400).send(refusal('invalid_request', false));
    const cards = wanted.data.cards.map(cardByName);
    if (!cards.every((card) => card !== undefined)) {
      return reply
        .code(400)
        .send({ ...refusal('no_such_card', false), names: TEST_CARDS.map(({ name }) => name) });
    }
    const saved = cards.map((card) => saveCard(card, wanted.data.expires));
    await saveCards(pool, wanted.data.account, saved);
    return { methods: saved.map(savedMethodBody) };
  });

  try {
    url = await app.listen({ host, port: options.port ?? 0 });
  } catch (error) {
    await Promise.all([delivery.close(), pool.end(), clock.close()]);
    throw error;
  }
  delivery.wake();
  return {
    url,
    port: Number(new URL(url).port),
    async close() {
      await app.close();
      await delivery.close();
      await pool.end();
      await clock.close();
    },
  };
}
