import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import { cardByName, countsCalls, offSessionCall } from './cards.ts';
import { payoutLines, payoutsBetween, weekOfPayout } from './payouts.ts';
import {
  chargesOf,
  countCall,
  currentPage,
  endPage,
  executeOffSession,
  executeRefund,
  type HostedPage,
  openPage,
  type RefundRow,
  refundByReference,
  savedCard,
  savedCards,
  saveSuccessors,
  storedAnswer,
} from './queries.ts';
import { captureLines, dayOf, settlementLines } from './reports.ts';
import {
  type ChargeBody,
  chargeBody,
  isUniqueViolation,
  newCharge,
  planWebhook,
  type Simulation,
  saveCard,
  savedMethodBody,
  setupStateOf,
  stateOf,
} from './simulation.ts';

const KEY_LIFETIME_MS = 24 * 3_600_000;
/** A request older than this is dropped, so that "not found" is certain after a minute whatever stalls. */
const DROPPED_AFTER_MS = 30_000;

const successorExpires = '2044-12';

const account = z.string().regex(/^[0-9A-Za-z_.-]{1,64}$/);
const reference = z.string().regex(/^[0-9A-Za-z_-]{1,64}$/);
const amount = z.int().min(1).max(99_999_999_999);
const currency = z.string().regex(/^[A-Z]{3}$/);

/** What the merchant wants kept beside the money; it changes nothing. */
const metadata = z.strictObject({ invoice_id: z.string().max(64) }).optional();

const chargeRequest = z.strictObject({
  account,
  reference,
  amount,
  currency,
  method_token: z.string().min(1).max(128),
  network_transaction_id: z.string().max(64).nullable(),
  metadata,
});

const cardUpdatesRequest = z.strictObject({
  account,
  reference,
  tokens: z.array(z.string().min(1).max(128)).min(1).max(200),
});

const refundRequest = z.strictObject({
  account,
  reference,
  charge_reference: reference,
  charge_id: z.string().max(64).nullable(),
  amount,
  currency,
});

const refundBody = (accountName: string, row: RefundRow) => ({
  state: 'succeeded',
  id: row.id,
  account: accountName,
  reference: row.reference,
  amount: row.amount,
  currency: row.currency,
  refunded_at: row.refundedAt.toISOString(),
});

const pageRequest = z.strictObject({
  account,
  reference,
  amount,
  currency,
  return_url: z.url({ protocol: /^https?$/ }),
  language: z.enum(['ja', 'en']),
  merchant_name: z.string().min(1).max(200),
  method: z.enum(['card', 'wallet']).default('card'),
  save_method: z.boolean(),
  expires_at: z.iso.datetime({ offset: true }),
  metadata,
});

const setupPageRequest = pageRequest.omit({ amount: true, method: true, save_method: true, metadata: true });

const referenceParams = z.object({ account, reference });
const reportParams = z.object({ account, date: z.string() });
const payoutsQuery = z.object({ from: z.iso.date(), to: z.iso.date() });
const payoutParams = z.object({ account, id: z.string() });
const instant = z.iso.datetime({ offset: true });
const capturesQuery = z.object({ account, from: instant, until: instant });
const listQuery = z.object({
  account,
  after: z.coerce.number().int().min(0).default(0),
  limit: z.coerce.number().int().min(1).max(10_000).default(1_000),
});

/** `executed: false` promises that nothing happened; without it the caller must ask. */
export const refusal = (code: string, executed: false | null = null) => ({
  error: { code, ...(executed === false ? { executed: false } : {}) },
});

const fingerprintOf = (request: object): string =>
  createHash('sha256')
    .update(JSON.stringify(Object.entries(request).sort(([a], [b]) => (a < b ? -1 : 1))))
    .digest('hex');

type Answer =
  | { kind: 'answer'; status: number; body: unknown; retryAfterSeconds?: number }
  | { kind: 'hold' };
const answer = (status: number, body: unknown): Answer => ({ kind: 'answer', status, body });

/** The effect of one charge without its holder; the idempotency key decides whether it is executed at all. */
async function chargeOffSession(
  { pool, clock, settings }: Simulation,
  request: z.infer<typeof chargeRequest>,
  key: string,
  isAbandoned: () => boolean,
): Promise<Answer> {
  const now = new Date(await clock.now());
  const keysMadeAfter = new Date(now.getTime() - KEY_LIFETIME_MS);
  const fingerprint = fingerprintOf(request);

  const replay = async (): Promise<Answer | null> => {
    const stored = await storedAnswer(pool, request.account, key, keysMadeAfter);
    if (stored === null) return null;
    return stored.fingerprint === fingerprint
      ? answer(stored.status, stored.body)
      : answer(409, refusal('idempotency_key_reused'));
  };
  const stored = await replay();
  if (stored !== null) return stored;

  const saved = await savedCard(pool, request.account, request.method_token);
  const card = saved === null ? undefined : cardByName(saved.cardName);
  const call = card !== undefined && countsCalls(card) ? await countCall(pool, request.method_token) : 1;
  const plan =
    card === undefined
      ? {
          kind: 'declines' as const,
          codes: { gatewayCode: 'payment_method_not_found', networkCode: null, adviceCode: null },
        }
      : offSessionCall(card, call);
  const fault = plan.kind === 'disturbed' ? plan.fault : null;
  if (fault === 'rate_limited') {
    return { ...answer(429, refusal('rate_limited', false)), retryAfterSeconds: 1 } as Answer;
  }
  if (fault === 'timeout_before_effect') return { kind: 'hold' };
  // Nobody waits for the answer any more, or it waited too long in the queue: drop it before the effect.
  if (isAbandoned()) return answer(503, refusal('dropped', false));

  const takesNoMoney = fault === 'error_500_before_effect';
  const charge = takesNoMoney ? null : newCharge(card ?? null, plan.kind === 'declines' ? plan.codes : null);
  const body: ChargeBody | ReturnType<typeof refusal> =
    charge === null || fault === 'error_500_after_effect'
      ? refusal('internal_error')
      : chargeBody({
          ...charge,
          ...charge.codes,
          sequence: 0,
          account: request.account,
          reference: request.reference,
          amount: request.amount,
          currency: request.currency,
          origin: 'off_session',
          method: 'card',
          gatewayCode: charge.codes?.gatewayCode ?? null,
          networkCode: charge.codes?.networkCode ?? null,
          adviceCode: charge.codes?.adviceCode ?? null,
          createdAt: now,
          capturedAt: charge.state === 'succeeded' ? now : null,
          savedCard: null,
        });
  const status = 'error' in body ? 500 : body.state === 'succeeded' ? 200 : 402;

  try {
    const executed = await executeOffSession(pool, {
      account: request.account,
      reference: request.reference,
      invoiceId: request.metadata?.invoice_id ?? null,
      amount: request.amount,
      currency: request.currency,
      key,
      fingerprint,
      keysMadeAfter,
      now,
      status,
      body,
      charge,
      webhook: planWebhook(settings),
    });
    if (!executed) return (await replay()) ?? answer(409, refusal('idempotency_key_in_use'));
  } catch (error) {
    if (isUniqueViolation(error)) return answer(409, refusal('reference_already_captured'));
    throw error;
  }
  return fault === 'timeout_after_effect' ? { kind: 'hold' } : answer(status, body);
}

/** What has become of saved cards, in the order of the tokens. */
async function newsOf({ pool }: Simulation, accountName: string, tokens: readonly string[]) {
  const before = await savedCards(pool, accountName, tokens);
  await saveSuccessors(
    pool,
    accountName,
    [...before].flatMap(([token, { cardName, successor }]) => {
      const updater = cardByName(cardName)?.updater;
      const becomes = updater?.kind === 'replaced' ? cardByName(updater.becomes) : undefined;
      return becomes === undefined || successor !== null
        ? []
        : [{ token, card: saveCard(becomes, successorExpires) }];
    }),
  );
  const known = await savedCards(pool, accountName, tokens);
  return tokens.map((token) => {
    const card = known.get(token);
    const updater = card === undefined ? undefined : cardByName(card.cardName)?.updater;
    if (card?.successor) return { state: 'replaced', saved_method: savedMethodBody(card.successor) };
    return updater?.kind === 'closed' ? { state: 'closed', code: updater.code } : { state: 'unknown' };
  });
}

/** Never answers, then drops the line: the caller's deadline must fire, not this one. */
function hold(reply: FastifyReply, holdMs: number): void {
  const { socket } = reply.raw;
  reply.hijack();
  const timer = setTimeout(() => socket?.destroy(), holdMs);
  socket?.once('close', () => clearTimeout(timer));
}

export function chargeRoutes(app: FastifyInstance, simulation: Simulation): void {
  const { pool, clock, settings, effects, delivery } = simulation;

  app.post('/v1/charges', async (request, reply) => {
    const receivedAt = performance.now();
    const parsed = chargeRequest.safeParse(request.body);
    const key = request.headers['idempotency-key'];
    if (!parsed.success || typeof key !== 'string' || key.length > 255) {
      return reply.code(400).send(refusal('invalid_request', false));
    }
    const isAbandoned = () =>
      request.raw.socket.destroyed || performance.now() - receivedAt > DROPPED_AFTER_MS;
    const result = await effects.run(() => chargeOffSession(simulation, parsed.data, key, isAbandoned));
    delivery.wake();
    if (result.kind === 'hold') {
      hold(reply, simulation.holdMs);
      return reply;
    }
    if (result.retryAfterSeconds !== undefined) reply.header('retry-after', result.retryAfterSeconds);
    return reply.code(result.status).send(result.body);
  });

  app.post('/v1/card-updates', async (request, reply) => {
    const parsed = cardUpdatesRequest.safeParse(request.body);
    if (!parsed.success) return reply.code(400).send(refusal('invalid_request', false));
    const { account: name, reference: question, tokens } = parsed.data;
    const news = await newsOf(simulation, name, tokens);
    if (settings.cardUpdatesUnanswered > 0) {
      settings.cardUpdatesUnanswered -= 1;
      hold(reply, simulation.holdMs);
      return reply;
    }
    return { account: name, reference: question, news };
  });

  app.get('/v1/charges', async (request, reply) => {
    const query = listQuery.safeParse(request.query);
    if (!query.success) return reply.code(400).send(refusal('invalid_request', false));
    const rows = await chargesOf(pool, query.data.account, query.data.after, query.data.limit);
    return {
      charges: rows.map((row) => ({
        sequence: row.sequence,
        origin: row.origin,
        created_at: row.createdAt.toISOString(),
        ...chargeBody(row),
      })),
      next: rows.length === query.data.limit ? (rows.at(-1)?.sequence ?? null) : null,
    };
  });

  app.get('/v1/captures', async (request, reply) => {
    const query = capturesQuery.safeParse(request.query);
    if (!query.success) return reply.code(400).send(refusal('invalid_request', false));
    await effects.settled();
    const { from, until } = query.data;
    const span = { from: new Date(from), until: new Date(until) };
    return reply
      .type('application/x-ndjson; charset=utf-8')
      .send(Readable.from(captureLines(pool, query.data.account, span)));
  });

  app.get('/v1/charges/by-reference/:account/:reference', async (request, reply) => {
    const params = referenceParams.safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    const body = await stateOf(simulation, params.data.account, params.data.reference);
    return reply.code(body.state === 'not_found' ? 404 : 200).send(body);
  });

  app.post('/v1/refunds', async (request, reply) => {
    const parsed = refundRequest.safeParse(request.body);
    if (!parsed.success) return reply.code(400).send(refusal('invalid_request', false));
    const { account: name, reference: key, charge_reference: chargeReference, ...rest } = parsed.data;
    const known = await refundByReference(pool, name, key);
    if (known !== null && (known.amount !== rest.amount || known.chargeReference !== chargeReference))
      return reply.code(409).send(refusal('idempotency_key_reused'));
    const row = await effects.run(async () =>
      executeRefund(pool, {
        id: `re_${randomBytes(12).toString('hex')}`,
        account: name,
        reference: key,
        chargeReference,
        amount: rest.amount,
        currency: rest.currency,
        now: new Date(await clock.now()),
      }),
    );
    if (row !== null && known === null && settings.refundsUnanswered > 0) {
      settings.refundsUnanswered -= 1;
      hold(reply, simulation.holdMs);
      return reply;
    }
    if (row !== null) return refundBody(name, row);
    return reply
      .code(402)
      .send({ state: 'failed', account: name, reference: key, code: 'charge_not_refundable' });
  });

  app.get('/v1/refunds/by-reference/:account/:reference', async (request, reply) => {
    const params = referenceParams.safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    const { account: name, reference: key } = params.data;
    const row = await refundByReference(pool, name, key);
    if (row !== null) return refundBody(name, row);
    return reply.code(404).send({ state: 'not_found', account: name, reference: key });
  });

  async function open(
    reply: FastifyReply,
    wanted: z.infer<typeof setupPageRequest>,
    takes: Pick<HostedPage, 'amount' | 'invoiceId' | 'method' | 'saveMethod' | 'setup'>,
  ) {
    const fingerprint = fingerprintOf({ ...wanted, ...takes });
    const page = await openPage(pool, {
      ...takes,
      id: randomBytes(16).toString('base64url'),
      account: wanted.account,
      reference: wanted.reference,
      fingerprint,
      state: 'open',
      currency: wanted.currency,
      returnUrl: wanted.return_url,
      language: wanted.language,
      merchantName: wanted.merchant_name,
      expiresAt: new Date(wanted.expires_at),
    });
    if (page.fingerprint !== fingerprint) return reply.code(409).send(refusal('reference_reused'));
    return { id: page.id, reference: page.reference, url: `${simulation.publicUrl()}/pay/${page.id}` };
  }

  async function close(key: z.infer<typeof referenceParams>): Promise<void> {
    const now = new Date(await clock.now());
    const page = await currentPage(pool, key, now);
    if (page === null) return;
    await endPage(pool, page.id, 'closed', now, planWebhook(settings));
    delivery.wake();
  }

  app.post('/v1/hosted-pages', async (request, reply) => {
    const parsed = pageRequest.safeParse(request.body);
    if (!parsed.success) return reply.code(400).send(refusal('invalid_request', false));
    const { amount, method, save_method: saveMethod, metadata, ...wanted } = parsed.data;
    const takes = { amount, method, saveMethod, invoiceId: metadata?.invoice_id ?? null, setup: false };
    return open(reply, wanted, takes);
  });

  app.post('/v1/setup-pages', async (request, reply) => {
    const parsed = setupPageRequest.safeParse(request.body);
    if (!parsed.success) return reply.code(400).send(refusal('invalid_request', false));
    const takes = { amount: 0, method: 'card', saveMethod: true, invoiceId: null, setup: true } as const;
    return open(reply, parsed.data, takes);
  });

  app.post('/v1/hosted-pages/:account/:reference/close', async (request, reply) => {
    const params = referenceParams.safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    await close(params.data);
    const body = await stateOf(simulation, params.data.account, params.data.reference);
    return reply.code(body.state === 'not_found' ? 404 : 200).send(body);
  });

  app.post('/v1/setup-pages/:account/:reference/close', async (request, reply) => {
    const params = referenceParams.safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    await close(params.data);
    const body = await setupStateOf(simulation, params.data.account, params.data.reference);
    return reply.code(body.state === 'not_found' ? 404 : 200).send(body);
  });

  app.get('/v1/setups/by-reference/:account/:reference', async (request, reply) => {
    const params = referenceParams.safeParse(request.params);
    if (!params.success) return reply.code(400).send(refusal('invalid_request', false));
    const body = await setupStateOf(simulation, params.data.account, params.data.reference);
    return reply.code(body.state === 'not_found' ? 404 : 200).send(body);
  });

  app.get('/v1/settlement-reports/:account/:date', async (request, reply) => {
    const params = reportParams.safeParse(request.params);
    const day = params.success ? dayOf(params.data.date) : null;
    if (!params.success || day === null) return reply.code(400).send(refusal('invalid_request', false));
    if ((await clock.now()) < day.until.getTime()) return reply.code(425).send(refusal('not_ready'));
    await effects.settled();
    return reply
      .type('application/x-ndjson; charset=utf-8')
      .send(Readable.from(settlementLines(pool, params.data.account, day)));
  });

  app.get('/v1/payouts/:account', async (request, reply) => {
    const params = z.object({ account }).safeParse(request.params);
    const query = payoutsQuery.safeParse(request.query);
    if (!params.success || !query.success) return reply.code(400).send(refusal('invalid_request', false));
    const { from, to } = query.data;
    return { payouts: await payoutsBetween(pool, params.data.account, from, to, await clock.now()) };
  });

  app.get('/v1/payouts/:account/:id/lines', async (request, reply) => {
    const params = payoutParams.safeParse(request.params);
    const week = params.success ? weekOfPayout(params.data.id) : null;
    if (!params.success || week === null) return reply.code(404).send(refusal('no_such_payout', false));
    return reply
      .type('application/x-ndjson; charset=utf-8')
      .send(Readable.from(payoutLines(pool, params.data.account, week)));
  });
}
