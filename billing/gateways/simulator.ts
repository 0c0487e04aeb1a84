import { createHmac, timingSafeEqual } from 'node:crypto';
import { Agent, type Dispatcher, request } from 'undici';
import { z } from 'zod';
import type {
  BarcodeAnswer,
  BarcodePayment,
  CardNews,
  ChargeAnswer,
  ChargeOutcome,
  DeclineCodes,
  Gateway,
  GatewaySemantics,
  HostedPageAnswer,
  ListedCharge,
  LookupAnswer,
  Payout,
  PayoutLine,
  RefreshAnswer,
  RefundAnswer,
  RefundLookup,
  SavedMethod,
  SettlementLine,
  SetupLookup,
  SetupPageRequest,
  WebhookHint,
} from './gateway.ts';

export interface SimulatorGatewayOptions {
  baseUrl: string;
  apiKey: string;
  webhookSecret: string;
  /** Connections kept open at most; as many charges run at once. */
  connections?: number;
  callDeadlineMs?: number;
  notFoundConclusiveAfterMs?: number;
}

const WEBHOOK_TOLERANCE_SECONDS = 300;
const ANSWER_BYTES_AT_MOST = 131_072;
const REPORT_LINE_CHARACTERS_AT_MOST = 65_536;
/** A payout is some 150 bytes: a year of daily ones fits many times. */
const LIST_BYTES_AT_MOST = 1_048_576;

const minorUnits = z.int().min(0);
const nullableText = z.string().nullable();

const savedMethod = z.object({
  token: z.string(),
  brand: z.string(),
  last_four: z.string(),
  expires: z.string(),
  network_transaction_id: nullableText,
  three_ds_eci: nullableText,
});
const declineCodes = z.object({
  code: nullableText,
  network: nullableText,
  network_code: nullableText,
  advice_code: nullableText,
});

const cardNews = z.object({
  account: z.string(),
  reference: z.string(),
  news: z.array(
    z.discriminatedUnion('state', [
      z.object({ state: z.literal('replaced'), saved_method: savedMethod }),
      z.object({ state: z.literal('closed'), code: z.string() }),
      z.object({ state: z.literal('unknown') }),
    ]),
  ),
});

const chargeState = z.discriminatedUnion('state', [
  z.object({
    state: z.literal('succeeded'),
    id: z.string().min(1),
    account: z.string(),
    reference: z.string(),
    amount: minorUnits.min(1),
    currency: z.string(),
    method: z.enum(['card', 'wallet', 'barcode']),
    captured_at: z.iso.datetime(),
    saved_method: savedMethod.nullable(),
  }),
  z.object({
    state: z.literal('failed'),
    id: nullableText,
    account: z.string(),
    reference: z.string(),
    codes: declineCodes,
  }),
  z.object({ state: z.literal('pending'), account: z.string(), reference: z.string() }),
  z.object({ state: z.literal('not_found'), account: z.string(), reference: z.string() }),
]);

const setupState = z.discriminatedUnion('state', [
  z.object({
    state: z.literal('succeeded'),
    account: z.string(),
    reference: z.string(),
    saved_method: savedMethod,
  }),
  z.object({ state: z.literal('failed'), account: z.string(), reference: z.string(), codes: declineCodes }),
  z.object({ state: z.literal('pending'), account: z.string(), reference: z.string() }),
  z.object({ state: z.literal('not_found'), account: z.string(), reference: z.string() }),
]);

const refundState = z.discriminatedUnion('state', [
  z.object({
    state: z.literal('succeeded'),
    id: z.string().min(1),
    account: z.string(),
    reference: z.string(),
    amount: minorUnits.min(1),
    currency: z.string(),
    refunded_at: z.iso.datetime(),
  }),
  z.object({ state: z.literal('failed'), account: z.string(), reference: z.string(), code: z.string() }),
  z.object({ state: z.literal('not_found'), account: z.string(), reference: z.string() }),
]);

const refusal = z.object({ error: z.object({ code: z.string(), executed: z.literal(false).optional() }) });

const openedPage = z.object({ id: z.string().min(1), reference: z.string(), url: z.url() });

const webhook = z.object({ id: z.string(), account: z.string(), reference: z.string(), kind: z.string() });

const reportLine = z.discriminatedUnion('kind', [
  z.object({
    kind: z.enum(['charge', 'refund', 'chargeback']),
    id: z.string().min(1),
    reference: nullableText,
    amount: minorUnits,
    currency: z.string(),
    fee: minorUnits,
    fee_tax: minorUnits,
    captured_at: z.iso.datetime(),
  }),
  // Below zero on a day when more went back than came in.
  z.object({ kind: z.literal('end'), count: minorUnits, amount: z.int() }),
]);

const payoutList = z.object({
  payouts: z.array(
    z.object({
      id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
      value_date: z.iso.date(),
      currency: z.string().regex(/^[A-Z]{3}$/),
      gross: z.int(),
      fee: z.int(),
      fee_tax: z.int(),
      net: z.int(),
    }),
  ),
});

const payoutLine = z.discriminatedUnion('kind', [
  z.object({
    kind: z.enum(['charge', 'refund']),
    id: z.string().min(1),
    reference: nullableText,
    amount: minorUnits,
    currency: z.string(),
    fee: z.int(),
    fee_tax: z.int(),
  }),
  z.object({ kind: z.literal('end'), count: minorUnits, amount: z.int() }),
]);

const listedCharge = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('capture'),
    id: z.string().min(1),
    reference: nullableText,
    invoice_id: nullableText,
    amount: minorUnits,
    currency: z.string(),
    refunded: minorUnits,
    method: z.enum(['card', 'wallet', 'barcode', 'debit']),
    captured_at: z.iso.datetime(),
  }),
  z.object({ kind: z.literal('end'), count: minorUnits, amount: minorUnits }),
]);

const barcodePayment = z.object({
  kind: z.literal('barcode_payment'),
  id: z.string().min(1),
  account: z.string(),
  reference: z.string().regex(/^[0-9A-HJKMNP-TV-Z]{26}$/),
  barcode: z.string().regex(/^91\d{42}$/),
  state: z.enum(['preliminary', 'final', 'cancelled']),
  amount: minorUnits.min(1),
  currency: z.string(),
  paid_at: z.iso.datetime(),
  final_at: z.iso.datetime().nullable(),
});

const barcodeNews = z.discriminatedUnion('kind', [
  barcodePayment,
  z.object({ kind: z.literal('end'), count: minorUnits, amount: minorUnits }),
]);

function paymentOf(told: z.infer<typeof barcodePayment>): BarcodePayment {
  const { id, reference, barcode, state, amount, currency, paid_at: paidAt, final_at: finalAt } = told;
  return { reference, gatewayChargeId: id, barcode, state, amount, currency, paidAt, finalAt };
}

function methodOf(told: z.infer<typeof savedMethod>): SavedMethod {
  return {
    token: told.token,
    brand: told.brand,
    lastFour: told.last_four,
    expires: told.expires,
    networkTransactionId: told.network_transaction_id,
    threeDsEci: told.three_ds_eci,
  };
}

/** What one HTTP call came to. `not_sent`: no byte left, so nothing can have happened. */
type Exchange =
  | { kind: 'answered'; status: number; body: unknown; retryAfterMs: number | null }
  | { kind: 'not_sent'; why: string }
  | { kind: 'lost'; why: string };

/** Errors that come before a connection stands. Everything else may have reached the gateway. */
const NEVER_CONNECTED = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

function codeOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return codeOf(error.errors[0]);
  if (!(error instanceof Error)) return 'unknown_error';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.name;
}

async function boundedText(
  body: AsyncIterable<Uint8Array>,
  bytesAtMost = ANSWER_BYTES_AT_MOST,
): Promise<string> {
  const parts: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const part of body) {
    sizeBytes += part.byteLength;
    if (sizeBytes > bytesAtMost) throw new Error('answer too long');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    // Not JSON is a malformed answer like any other: no schema accepts undefined.
    return undefined;
  }
}

function secondsToMs(header: string | string[] | undefined): number | null {
  const text = Array.isArray(header) ? header[0] : header;
  return text !== undefined && /^\d{1,6}$/.test(text) ? Number(text) * 1000 : null;
}

function codesOf(codes: z.infer<typeof declineCodes>): DeclineCodes {
  return {
    gatewayCode: codes.code,
    network: codes.network,
    networkCode: codes.network_code,
    adviceCode: codes.advice_code,
  };
}

function outcomeOf(
  state: Extract<z.infer<typeof chargeState>, { state: 'succeeded' | 'failed' }>,
): ChargeOutcome {
  if (state.state === 'failed') {
    return { kind: 'failed', codes: codesOf(state.codes), gatewayChargeId: state.id };
  }
  return {
    kind: 'succeeded',
    captured: {
      gatewayChargeId: state.id,
      amount: state.amount,
      currency: state.currency,
      capturedAt: state.captured_at,
      method: state.method,
      savedMethod: state.saved_method === null ? null : methodOf(state.saved_method),
    },
  };
}

/** Which answers promise that nothing happened: 429 always (it stands before execution), others only if they say so. */
function refusedBefore(
  exchange: Extract<Exchange, { kind: 'answered' }>,
): { kind: 'not_executed'; why: string; retryAfterMs: number | null; tooFast?: true } | null {
  const parsed = refusal.safeParse(exchange.body);
  const says = parsed.success ? parsed.data.error : null;
  if (exchange.status !== 429 && says?.executed !== false) return null;
  const why = `${exchange.status} ${says?.code ?? 'refused'}`;
  const refused = { kind: 'not_executed', why, retryAfterMs: exchange.retryAfterMs } as const;
  return exchange.status === 429 ? { ...refused, tooFast: true } : refused;
}

function whyUnknown(exchange: Extract<Exchange, { kind: 'answered' }>): string {
  const parsed = refusal.safeParse(exchange.body);
  return `${exchange.status} ${parsed.success ? parsed.data.error.code : 'malformed answer'}`;
}

/** The demo's gateway: a foreign process with its own truth, reached over HTTP only. */
export function simulatorGateway(options: SimulatorGatewayOptions): Gateway & { close(): Promise<void> } {
  const baseUrl = options.baseUrl.replace(/\/+$/, '');
  // The deadline is the caller's signal. Idle connections close here before the gateway closes them there, so that
  // a request never meets a dying connection and becomes an unknown.
  const agent = new Agent({
    connections: options.connections ?? 64,
    pipelining: 1,
    keepAliveTimeout: 4_000,
    connect: { timeout: 5_000 },
    headersTimeout: 0,
    bodyTimeout: 60_000,
  });
  const authorization = `Bearer ${options.apiKey}`;

  const semantics: GatewaySemantics = {
    idempotencyKeyLifetimeMs: 24 * 3_600_000,
    replaysStoredErrors: true,
    looksUpByReference: true,
    notFoundConclusiveAfterMs: options.notFoundConclusiveAfterMs ?? 60_000,
    comparesRequests: true,
    callDeadlineMs: options.callDeadlineMs ?? 10_000,
    pageMethods: ['card', 'wallet'],
    cardsPerRefresh: 200,
  };

  async function exchange(
    method: 'GET' | 'POST',
    path: string,
    signal: AbortSignal,
    body: object | null,
    idempotencyKey: string | null,
  ): Promise<Exchange> {
    if (signal.aborted) return { kind: 'not_sent', why: 'the deadline passed before the call' };
    const headers: Record<string, string> = { authorization };
    if (body !== null) headers['content-type'] = 'application/json';
    if (idempotencyKey !== null) headers['idempotency-key'] = idempotencyKey;
    try {
      const response = await request(`${baseUrl}${path}`, {
        dispatcher: agent,
        method,
        headers,
        body: body === null ? null : JSON.stringify(body),
        signal,
      });
      return {
        kind: 'answered',
        status: response.statusCode,
        body: parseJson(await boundedText(response.body)),
        retryAfterMs: secondsToMs(response.headers['retry-after']),
      };
    } catch (error) {
      const code = codeOf(error);
      return { kind: NEVER_CONNECTED.has(code) ? 'not_sent' : 'lost', why: code };
    }
  }

  /** An answer about another reference is no answer. */
  function stateFor(body: unknown, account: string, reference: string) {
    const parsed = chargeState.safeParse(body);
    if (!parsed.success) return null;
    return parsed.data.account === account && parsed.data.reference === reference ? parsed.data : null;
  }

  async function ask(
    method: 'GET' | 'POST',
    path: string,
    account: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<LookupAnswer> {
    const answer = await exchange(method, path, signal, null, null);
    if (answer.kind !== 'answered') return { kind: 'unknown', why: answer.why };
    const state = stateFor(answer.body, account, reference);
    if (state === null) return { kind: 'unknown', why: whyUnknown(answer) };
    if (answer.status === 404 && state.state === 'not_found') return { kind: 'not_found' };
    if (answer.status !== 200 || state.state === 'not_found') {
      return { kind: 'unknown', why: whyUnknown(answer) };
    }
    return state.state === 'pending' ? { kind: 'pending' } : outcomeOf(state);
  }

  const pageBody = (page: SetupPageRequest) => ({
    account: page.account,
    reference: page.reference,
    currency: page.currency,
    return_url: page.returnUrl,
    language: page.language,
    merchant_name: page.merchantName,
    expires_at: page.expiresAt,
  });

  async function openPage(
    path: string,
    body: ReturnType<typeof pageBody> & Record<string, unknown>,
    signal: AbortSignal,
  ): Promise<HostedPageAnswer> {
    const answer = await exchange('POST', path, signal, body, body.reference);
    if (answer.kind === 'not_sent') return { kind: 'not_executed', why: answer.why, retryAfterMs: null };
    if (answer.kind === 'lost') return { kind: 'unknown', why: answer.why };
    const refused = refusedBefore(answer);
    if (refused !== null) return refused;
    const opened = openedPage.safeParse(answer.body);
    if (answer.status !== 200 || !opened.success || opened.data.reference !== body.reference) {
      return { kind: 'unknown', why: whyUnknown(answer) };
    }
    return { kind: 'opened', gatewaySessionId: opened.data.id, url: opened.data.url };
  }

  async function askSetup(
    method: 'GET' | 'POST',
    path: string,
    account: string,
    reference: string,
    signal: AbortSignal,
  ): Promise<SetupLookup> {
    const answer = await exchange(method, path, signal, null, null);
    if (answer.kind !== 'answered') return { kind: 'unknown', why: answer.why };
    const parsed = setupState.safeParse(answer.body);
    if (!parsed.success || parsed.data.account !== account || parsed.data.reference !== reference)
      return { kind: 'unknown', why: whyUnknown(answer) };
    const { data } = parsed;
    if (data.state === 'not_found')
      return answer.status === 404 ? { kind: 'not_found' } : { kind: 'unknown', why: whyUnknown(answer) };
    if (answer.status !== 200) return { kind: 'unknown', why: whyUnknown(answer) };
    if (data.state === 'succeeded') return { kind: 'succeeded', savedMethod: methodOf(data.saved_method) };
    return data.state === 'failed' ? { kind: 'failed', codes: codesOf(data.codes) } : { kind: 'pending' };
  }

  function refundAnswer(
    answer: Extract<Exchange, { kind: 'answered' }>,
    account: string,
    reference: string,
  ): RefundLookup {
    const parsed = refundState.safeParse(answer.body);
    if (!parsed.success || parsed.data.account !== account || parsed.data.reference !== reference)
      return { kind: 'unknown', why: whyUnknown(answer) };
    const { data } = parsed;
    if (answer.status === 404 && data.state === 'not_found') return { kind: 'not_found' };
    if (answer.status === 200 && data.state === 'succeeded') {
      const { id, amount, currency, refunded_at } = data;
      return {
        kind: 'succeeded',
        refunded: { gatewayRefundId: id, amount, currency, refundedAt: refunded_at },
      };
    }
    if (data.state === 'failed' && (answer.status === 200 || answer.status === 402))
      return { kind: 'failed', code: data.code };
    return { kind: 'unknown', why: whyUnknown(answer) };
  }

  const pathOf = (account: string, reference: string): string =>
    `${encodeURIComponent(account)}/${encodeURIComponent(reference)}`;

  return {
    name: 'simulator',
    semantics,
    close: () => agent.destroy(),

    barcodes: {
      newsDays: 1,

      async lookup(account, reference, signal): Promise<BarcodeAnswer> {
        const path = `/v1/barcode-payments/${pathOf(account, reference)}`;
        const answer = await exchange('GET', path, signal, null, null);
        if (answer.kind !== 'answered') return { kind: 'unknown', why: answer.why };
        if (answer.status === 404 && refusal.safeParse(answer.body).success) return { kind: 'not_found' };
        const told = barcodePayment.safeParse(answer.body);
        const fits =
          answer.status === 200 &&
          told.success &&
          told.data.account === account &&
          told.data.reference === reference;
        return fits
          ? { kind: 'found', payment: paymentOf(told.data) }
          : { kind: 'unknown', why: whyUnknown(answer) };
      },

      async *news(account, from, until, signal): AsyncGenerator<BarcodePayment> {
        const response = await request(
          `${baseUrl}/v1/barcode-payments?${new URLSearchParams({ account, from, until })}`,
          { dispatcher: agent, method: 'GET', headers: { authorization }, signal },
        );
        if (response.statusCode !== 200) {
          await response.body.dump();
          throw new Error(`news of barcodes refused: ${response.statusCode}`);
        }
        for await (const told of linesToTheEnd('news of barcodes', response.body, barcodeNews)) {
          yield paymentOf(told);
        }
      },
    },

    async charge(charge, signal): Promise<ChargeAnswer> {
      const answer = await exchange(
        'POST',
        '/v1/charges',
        signal,
        {
          account: charge.account,
          reference: charge.reference,
          amount: charge.amount,
          currency: charge.currency,
          method_token: charge.methodToken,
          network_transaction_id: charge.networkTransactionId,
          metadata: { invoice_id: charge.invoiceId },
        },
        charge.reference,
      );
      if (answer.kind === 'not_sent') return { kind: 'not_executed', why: answer.why, retryAfterMs: null };
      if (answer.kind === 'lost') return { kind: 'unknown', why: answer.why };
      const refused = refusedBefore(answer);
      if (refused !== null) return refused;
      const state = stateFor(answer.body, charge.account, charge.reference);
      const fits =
        (answer.status === 200 && state?.state === 'succeeded') ||
        (answer.status === 402 && state?.state === 'failed');
      if (!fits) return { kind: 'unknown', why: whyUnknown(answer) };
      return outcomeOf(state as Parameters<typeof outcomeOf>[0]);
    },

    async refreshCards({ account, reference, tokens }, signal): Promise<RefreshAnswer> {
      const answer = await exchange(
        'POST',
        '/v1/card-updates',
        signal,
        { account, reference, tokens },
        reference,
      );
      if (answer.kind === 'not_sent') return { kind: 'not_executed', why: answer.why };
      if (answer.kind === 'lost') return { kind: 'unknown', why: answer.why };
      const refused = refusedBefore(answer);
      if (refused !== null) return { kind: 'not_executed', why: refused.why };
      const told = cardNews.safeParse(answer.body);
      const fits =
        answer.status === 200 &&
        told.success &&
        told.data.account === account &&
        told.data.reference === reference &&
        told.data.news.length === tokens.length;
      if (!fits) return { kind: 'unknown', why: whyUnknown(answer) };
      const news = told.data.news.map(
        (each): CardNews =>
          each.state === 'replaced'
            ? { kind: 'replaced', method: methodOf(each.saved_method) }
            : each.state === 'closed'
              ? { kind: 'closed', code: each.code }
              : { kind: 'unknown' },
      );
      return { kind: 'answered', news };
    },

    openHostedPage: (page, signal) =>
      openPage(
        '/v1/hosted-pages',
        {
          ...pageBody(page),
          amount: page.amount,
          method: page.method,
          save_method: page.saveMethod,
          metadata: { invoice_id: page.invoiceId },
        },
        signal,
      ),

    openSetupPage: (page, signal) => openPage('/v1/setup-pages', pageBody(page), signal),

    closeSetupPage: (account, reference, signal) =>
      askSetup('POST', `/v1/setup-pages/${pathOf(account, reference)}/close`, account, reference, signal),

    lookupSetup: (account, reference, signal) =>
      askSetup('GET', `/v1/setups/by-reference/${pathOf(account, reference)}`, account, reference, signal),

    closeHostedPage: (account, reference, signal) =>
      ask('POST', `/v1/hosted-pages/${pathOf(account, reference)}/close`, account, reference, signal),

    lookup: (account, reference, signal) =>
      ask('GET', `/v1/charges/by-reference/${pathOf(account, reference)}`, account, reference, signal),

    async refund(refund, signal): Promise<RefundAnswer> {
      const { account, reference, chargeReference, gatewayChargeId, amount, currency } = refund;
      const answer = await exchange(
        'POST',
        '/v1/refunds',
        signal,
        {
          account,
          reference,
          charge_reference: chargeReference,
          charge_id: gatewayChargeId,
          amount,
          currency,
        },
        reference,
      );
      if (answer.kind === 'not_sent') return { kind: 'not_executed', why: answer.why };
      if (answer.kind === 'lost') return { kind: 'unknown', why: answer.why };
      const refused = refusedBefore(answer);
      if (refused !== null) return { kind: 'not_executed', why: refused.why };
      const state = refundAnswer(answer, account, reference);
      return state.kind === 'not_found' ? { kind: 'unknown', why: whyUnknown(answer) } : state;
    },

    async lookupRefund(account, reference, signal): Promise<RefundLookup> {
      const answer = await exchange(
        'GET',
        `/v1/refunds/by-reference/${pathOf(account, reference)}`,
        signal,
        null,
        null,
      );
      return answer.kind === 'answered'
        ? refundAnswer(answer, account, reference)
        : { kind: 'unknown', why: answer.why };
    },

    verifyWebhook(rawBody, headers, nowEpochMs): WebhookHint | null {
      const header = headers['simulator-signature'];
      if (header === undefined || header.length > 1_000) return null;
      const parts = header.split(',').map((part) => part.trim());
      const time = parts.find((part) => part.startsWith('t='))?.slice(2) ?? '';
      if (!/^\d{1,12}$/.test(time)) return null;
      if (Math.abs(nowEpochMs / 1000 - Number(time)) > WEBHOOK_TOLERANCE_SECONDS) return null;
      const expected = createHmac('sha256', options.webhookSecret)
        .update(`${time}.`)
        .update(rawBody)
        .digest();
      // More than one signature may stand there while a secret is being changed.
      const genuine = parts
        .filter((part) => part.startsWith('v1='))
        .map((part) => Buffer.from(part.slice(3), 'hex'))
        .some((given) => given.length === expected.length && timingSafeEqual(given, expected));
      if (!genuine) return null;
      const parsed = webhook.safeParse(parseJson(rawBody.toString('utf8')));
      if (!parsed.success) return null;
      const { id, account, reference, kind } = parsed.data;
      return { eventId: id, account, reference, kind };
    },

    async settlementReport(account, date, signal): Promise<AsyncIterable<SettlementLine> | null> {
      const response = await request(
        `${baseUrl}/v1/settlement-reports/${encodeURIComponent(account)}/${encodeURIComponent(date)}`,
        { dispatcher: agent, method: 'GET', headers: { authorization }, signal },
      );
      if (response.statusCode === 404 || response.statusCode === 425) {
        await response.body.dump();
        return null;
      }
      if (response.statusCode !== 200) {
        await response.body.dump();
        throw new Error(`settlement report refused: ${response.statusCode}`);
      }
      return settlementLines(response.body);
    },

    async payouts(account, from, to, signal): Promise<Payout[] | null> {
      const response = await request(
        `${baseUrl}/v1/payouts/${encodeURIComponent(account)}?from=${from}&to=${to}`,
        { dispatcher: agent, method: 'GET', headers: { authorization }, signal },
      );
      if (response.statusCode !== 200) {
        await response.body.dump();
        if (response.statusCode === 404 || response.statusCode === 425) return null;
        throw new Error(`payouts refused: ${response.statusCode}`);
      }
      const parsed = payoutList.safeParse(parseJson(await boundedText(response.body, LIST_BYTES_AT_MOST)));
      if (!parsed.success) throw new Error('payouts: the list is malformed');
      return parsed.data.payouts.map(({ value_date, fee_tax, ...payout }) => ({
        ...payout,
        valueDate: value_date,
        feeTax: fee_tax,
      }));
    },

    async payoutLines(account, payoutId, signal): Promise<AsyncIterable<PayoutLine>> {
      const response = await request(
        `${baseUrl}/v1/payouts/${encodeURIComponent(account)}/${encodeURIComponent(payoutId)}/lines`,
        { dispatcher: agent, method: 'GET', headers: { authorization }, signal },
      );
      if (response.statusCode !== 200) {
        await response.body.dump();
        throw new Error(`lines of a payout refused: ${response.statusCode}`);
      }
      return payoutLines(response.body);
    },

    async *listCharges(account, from, until, signal): AsyncGenerator<ListedCharge> {
      const response = await request(
        `${baseUrl}/v1/captures?${new URLSearchParams({ account, from, until })}`,
        { dispatcher: agent, method: 'GET', headers: { authorization }, signal },
      );
      if (response.statusCode !== 200) {
        await response.body.dump();
        throw new Error(`list of charges refused: ${response.statusCode}`);
      }
      for await (const line of linesToTheEnd('list of charges', response.body, listedCharge)) {
        yield {
          gatewayChargeId: line.id,
          reference: line.reference,
          invoiceId: line.invoice_id,
          amount: line.amount,
          currency: line.currency,
          refunded: line.refunded,
          method: line.method,
          capturedAt: line.captured_at,
        };
      }
    },
  };
}

async function* textLines(what: string, body: Dispatcher.ResponseData['body']): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  for await (const part of body as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(part, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > REPORT_LINE_CHARACTERS_AT_MOST) throw new Error(`${what}: line too long`);
    yield* lines;
  }
  rest += decoder.decode();
  if (rest !== '') yield rest;
}

type EndLine = { kind: 'end'; count: number; amount: number };

/** Throws unless the lines end with their own count and amount: half a list must not pass for a whole one. */
async function* linesToTheEnd<Line extends { kind: string; amount: number }>(
  what: string,
  body: Dispatcher.ResponseData['body'],
  schema: z.ZodType<Line | EndLine>,
): AsyncGenerator<Line> {
  let count = 0;
  let amount = 0;
  let ended = false;
  for await (const text of textLines(what, body)) {
    const parsed = schema.safeParse(parseJson(text));
    if (!parsed.success || ended) throw new Error(`${what}: line ${count + 1} is malformed`);
    const line = parsed.data;
    if (isEnd(line)) {
      if (line.count !== count || line.amount !== amount) {
        throw new Error(`${what}: its end does not tie to its lines`);
      }
      ended = true;
      continue;
    }
    count += 1;
    amount += line.kind === 'refund' || line.kind === 'chargeback' ? -line.amount : line.amount;
    yield line;
  }
  if (!ended) throw new Error(`${what}: cut off before its end`);
}

function isEnd(line: { kind: string }): line is EndLine {
  return line.kind === 'end';
}

async function* settlementLines(body: Dispatcher.ResponseData['body']): AsyncGenerator<SettlementLine> {
  for await (const line of linesToTheEnd('settlement report', body, reportLine)) {
    yield {
      gatewayChargeId: line.id,
      reference: line.reference,
      kind: line.kind,
      amount: line.amount,
      currency: line.currency,
      fee: line.fee,
      feeTax: line.fee_tax,
      capturedAt: line.captured_at,
    };
  }
}

async function* payoutLines(body: Dispatcher.ResponseData['body']): AsyncGenerator<PayoutLine> {
  for await (const { id, fee_tax, ...rest } of linesToTheEnd('payout', body, payoutLine))
    yield { ...rest, gatewayChargeId: id, feeTax: fee_tax };
}
