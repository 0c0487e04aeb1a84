import { Stripe } from 'stripe';
import { Temporal } from 'temporal-polyfill';
import { z } from 'zod';
import { idBehind } from '../ids.ts';
import type {
  ChargeAnswer,
  Gateway,
  GatewaySemantics,
  HostedPageAnswer,
  KnownOfCharge,
  ListedCharge,
  ListedPayout,
  LookupAnswer,
  PayoutLine,
  RefundAnswer,
  RefundLookup,
  RefundRequest,
  SettlementLine,
  SetupLookup,
  SetupPageRequest,
  WebhookHint,
} from './gateway.ts';
import {
  balanceTransaction,
  charge as chargeSchema,
  currencyOf,
  failureOf,
  instantOf,
  methodBehind,
  ourKeys,
  outcomeOfIntent,
  outcomeOfPage,
  outcomeOfRefund,
  outcomeOfSetup,
  paymentIntent,
  payout as payoutSchema,
  refund as refundSchema,
  type Session,
  type SetupSession,
  session as sessionSchema,
  setupSession,
} from './stripe-answers.ts';
import { stripeHttp } from './stripe-http.ts';

export interface StripeGatewayOptions {
  secretKey: string;
  /** One, or several where there is an endpoint for our own account and one for connected accounts. */
  webhookSecrets: readonly string[];
  /** Null: api.stripe.com. */
  baseUrl: string | null;
  /** The merchant's account (`acct_...`); null: the key's own. Throws where it cannot be told. */
  accountOf: (merchantCode: string) => Promise<string | null>;
  nowMs: () => number;
  /** Connections kept open at most; as many charges run at once. */
  connections?: number;
  callDeadlineMs?: number;
}

/** What this adapter is written and tested against, whatever an account's own default is. */
export const apiVersion = '2026-10-28.endive';

const webhookToleranceSeconds = 300;
const pageSize = 100;
/** A page lives 30 minutes at least, counted from when Stripe makes it: one more for the way there. */
const pageLivesSeconds = 31 * 60 + 30;
/**
 * A reference tells when it was made; no call starts later than a minute after that and none runs for longer than half a
 * minute. What Stripe made under it was made within this time, with room for clocks that differ.
 */
const madeBeforeSeconds = 60;
const madeWithinSeconds = 300;
/** A refund may wait for its turn. */
const refundMadeWithinSeconds = 3_600;
/** Of this refund or its charge alone. A balance that is too low today is not among them. */
const refundRefusals = new Set([
  'charge_already_refunded',
  'charge_disputed',
  'charge_not_refundable',
  'refund_disputed_payment',
]);
/** Beyond this the clocks differ too much for "it is not in the list" to mean anything. */
const skewAtMostMs = 30_000;

/** Stripe, by its official SDK. Cards are typed on Stripe's own page only; one Stripe account belongs to one merchant. */
export function stripeGateway(options: StripeGatewayOptions): Gateway & { close(): Promise<void> } {
  const http = stripeHttp({ connections: options.connections ?? 64, nowMs: options.nowMs });
  const base = new URL(options.baseUrl ?? 'https://api.stripe.com');
  const stripe = new Stripe(options.secretKey, {
    apiVersion,
    host: base.hostname,
    port: base.port === '' ? (base.protocol === 'https:' ? 443 : 80) : Number(base.port),
    protocol: base.protocol === 'https:' ? 'https' : 'http',
    httpClient: http.client,
    // What is sent again, and when, follows from what may have happened: that is decided by the caller.
    maxNetworkRetries: 0,
    telemetry: false,
  });
  const isLive = /^(sk|rk)_live_/.test(options.secretKey);

  const semantics: GatewaySemantics = {
    idempotencyKeyLifetimeMs: 24 * 3_600_000,
    replaysStoredErrors: true,
    looksUpByReference: true,
    // A request that we gave up on may wait at Stripe for some time before it is carried out.
    notFoundConclusiveAfterMs: 600_000,
    comparesRequests: true,
    callDeadlineMs: options.callDeadlineMs ?? 20_000,
    pageMethods: ['card'],
    // Stripe asks the networks by itself: a card that was replaced is charged by the token of before.
    cardsPerRefresh: 0,
  };

  interface Account {
    stripeAccount?: string;
  }
  async function accountOf(merchantCode: string): Promise<Account> {
    const account = await options.accountOf(merchantCode);
    return account === null ? {} : { stripeAccount: account };
  }

  /** What is not sent because its account cannot be told is certainly without effect. */
  async function accountOrWhy(merchantCode: string): Promise<Account | { why: string }> {
    try {
      return await accountOf(merchantCode);
    } catch (error) {
      return { why: error instanceof Error ? `account: ${error.message}` : 'account' };
    }
  }

  const ourMetadata = (
    request: { reference: string; account: string; invoiceId?: string },
    made: 'page' | 'charge' | 'setup',
  ) => ({
    [ourKeys.reference]: request.reference,
    [ourKeys.merchant]: request.account,
    ...(request.invoiceId === undefined ? {} : { [ourKeys.invoice]: request.invoiceId }),
    [ourKeys.made]: made,
  });

  async function readSession(account: Account, id: string): Promise<Session> {
    return sessionSchema.parse(
      await stripe.checkout.sessions.retrieve(id, { expand: ['payment_intent.latest_charge'] }, account),
    );
  }

  async function readIntent(account: Account, id: string) {
    return paymentIntent.parse(
      await stripe.paymentIntents.retrieve(id, { expand: ['latest_charge'] }, account),
    );
  }

  /** The page of a reference, for whoever knows its id or must look for it. */
  async function findSession(
    account: Account,
    reference: string,
    known: KnownOfCharge | undefined,
  ): Promise<Session | null> {
    const id = known?.gatewaySessionId ?? (await sessionIdOf(account, reference));
    return id === null ? null : readSession(account, id);
  }

  async function sessionIdOf(account: Account, reference: string): Promise<string | null> {
    const created = madeAround(reference);
    if (created === null) return null;
    for await (const found of listed(sessionName, (page) =>
      stripe.checkout.sessions.list({ created, ...page }, account),
    )) {
      if (found.client_reference_id === reference) return found.id;
    }
    return null;
  }

  async function findSetup(
    account: Account,
    reference: string,
    known: KnownOfCharge | undefined,
  ): Promise<SetupSession | null> {
    const id = known?.gatewaySessionId ?? (await sessionIdOf(account, reference));
    return id === null ? null : readSetup(account, id);
  }

  async function readSetup(account: Account, id: string): Promise<SetupSession> {
    return setupSession.parse(
      await stripe.checkout.sessions.retrieve(
        id,
        { expand: ['setup_intent.payment_method', 'setup_intent.latest_attempt'] },
        account,
      ),
    );
  }

  /**
   * Search knows everything within a minute, usually, and is asked first because it is one question. What it does not
   * find is looked for in the list of what was made at the time, which knows everything at once.
   */
  async function findIntent(account: Account, reference: string) {
    const found = await search(account, reference);
    const read = await Promise.all(found.map((id) => readIntent(account, id)));
    const paid = read.find((intent) => intent.status === 'succeeded') ?? read[0];
    if (paid !== undefined) return paid;
    const created = madeAround(reference);
    if (created === null) return null;
    for await (const listedIntent of listed(intentName, (page) =>
      stripe.paymentIntents.list({ created, ...page }, account),
    )) {
      if (listedIntent.metadata[ourKeys.reference] === reference) return readIntent(account, listedIntent.id);
    }
    return null;
  }

  async function search(account: Account, reference: string): Promise<string[]> {
    if (!/^[0-9A-Za-z]+$/.test(reference)) return [];
    try {
      const answer = await stripe.paymentIntents.search(
        { query: `metadata['${ourKeys.reference}']:'${reference}'`, limit: 10 },
        account,
      );
      return z
        .array(intentName)
        .parse(answer.data)
        .flatMap(({ id, metadata }) => (metadata[ourKeys.reference] === reference ? [id] : []));
    } catch (error) {
      // Some accounts and keys have no search. The list has all of it.
      if (failureOf(error).kind === 'refused') return [];
      throw error;
    }
  }

  async function look(
    account: Account,
    reference: string,
    known: KnownOfCharge | undefined,
  ): Promise<LookupAnswer> {
    if (known?.gatewaySessionId)
      return answerOfPage(await readSession(account, known.gatewaySessionId), reference);
    const [intent, page] = await Promise.all([
      findIntent(account, reference),
      findSession(account, reference, known),
    ]);
    if (page !== null) return answerOfPage(page, reference);
    if (intent === null) return notFound(reference);
    if (intent.metadata[ourKeys.made] !== 'page') return outcomeOfIntent(intent);
    // Paid long after its page was made; the page knows whether it is still open.
    const pages = z
      .array(sessionName)
      .parse((await stripe.checkout.sessions.list({ payment_intent: intent.id, limit: 1 }, account)).data);
    const [first] = pages;
    return first === undefined
      ? { kind: 'unknown', why: 'a payment without its page' }
      : answerOfPage(await readSession(account, first.id), reference);
  }

  function notFound(reference: string): { kind: 'not_found' } | { kind: 'unknown'; why: string } {
    if (madeAround(reference) === null) return { kind: 'unknown', why: 'the reference tells no time' };
    const skewMs = http.skewMs();
    return skewMs !== null && Math.abs(skewMs) <= skewAtMostMs
      ? { kind: 'not_found' }
      : { kind: 'unknown', why: 'the clocks differ' };
  }

  /** A question that brings no answer has answered nothing, whatever the reason. */
  async function ask<Answer>(
    signal: AbortSignal,
    question: () => Promise<Answer>,
  ): Promise<Answer | { kind: 'unknown'; why: string }> {
    try {
      return await http.within(signal, question);
    } catch (error) {
      const failure = failureOf(error);
      return { kind: 'unknown', why: 'why' in failure ? failure.why : failure.kind };
    }
  }

  async function expire(account: Account, sessionId: string): Promise<void> {
    try {
      await stripe.checkout.sessions.expire(sessionId, {}, account);
    } catch (error) {
      // It ended a moment ago by itself, or it was just paid: the page as it is now tells which.
      if (failureOf(error).kind !== 'refused') throw error;
    }
  }

  /** `special`: what sets a page that takes money apart from one that only keeps a card. */
  async function openPage(
    page: SetupPageRequest,
    signal: AbortSignal,
    special: () => Stripe.Checkout.SessionCreateParams,
  ): Promise<HostedPageAnswer> {
    const account = await accountOrWhy(page.account);
    if ('why' in account) return { kind: 'not_executed', why: account.why, retryAfterMs: null };
    try {
      const answered = await http.within(signal, () =>
        stripe.checkout.sessions.create(
          {
            ...special(),
            allowed_payment_method_types: ['card'],
            wallet_options: { link: { display: 'never' } },
            client_reference_id: page.reference,
            locale: page.language,
            success_url: page.returnUrl,
            cancel_url: page.returnUrl,
            expires_at: endOfPage(page.reference, page.expiresAt),
          },
          { ...account, idempotencyKey: page.reference },
        ),
      );
      const opened = openedSession.safeParse(answered);
      if (!opened.success || opened.data.client_reference_id !== page.reference) {
        return { kind: 'unknown', why: 'malformed answer' };
      }
      return { kind: 'opened', gatewaySessionId: opened.data.id, url: opened.data.url };
    } catch (error) {
      const failure = failureOf(error);
      if (failure.kind === 'not_executed' || failure.kind === 'unknown') return failure;
      const why = failure.kind === 'refused' ? `refused: ${failure.code} ${failure.param}` : 'declined';
      return { kind: 'not_executed', why, retryAfterMs: null };
    }
  }

  /** For lists: what breaks says why in our words, which hold no part of a key. */
  async function reading<Result>(signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    try {
      return await http.within(signal, work);
    } catch (error) {
      const failure = failureOf(error);
      throw new Error(`Stripe's list cannot be read: ${'why' in failure ? failure.why : failure.kind}`);
    }
  }

  /** By Stripe's id of the charge where we have it, else by what stands under its reference. */
  async function chargeToRefund(
    account: Account,
    request: RefundRequest,
    signal: AbortSignal,
  ): Promise<{ charge: string } | { payment_intent: string } | { kind: 'not_executed'; why: string }> {
    if (request.gatewayChargeId !== null) return { charge: request.gatewayChargeId };
    const found = await ask(signal, () => findIntent(account, request.chargeReference));
    if (found === null) return { kind: 'not_executed', why: 'the charge is not found' };
    return 'kind' in found ? { kind: 'not_executed', why: found.why } : { payment_intent: found.id };
  }

  async function* transactions(
    account: Account,
    signal: AbortSignal,
    which: { created: { gte: number; lt: number } } | { payout: string },
  ) {
    yield* listed(
      balanceTransaction,
      (page) => stripe.balanceTransactions.list({ ...which, ...page, expand: ['data.source'] }, account),
      (read) => reading(signal, read),
    );
  }

  type Transaction = z.infer<typeof balanceTransaction>;

  /** Which charge a dispute is about, and with it our reference: a dispute has none of its own. */
  async function chargeOf(account: Account, signal: AbortSignal, id: string) {
    return chargeSchema.parse(await reading(signal, () => stripe.charges.retrieve(id, {}, account)));
  }

  async function lineOf(
    account: Account,
    signal: AbortSignal,
    transaction: Transaction,
  ): Promise<(SettlementLine & { kind: 'charge' | 'refund' | 'chargeback' }) | null> {
    const { source, amount } = transaction;
    const feeTax = transaction.fee_details.reduce(
      (sum, part) => sum + (part.type === 'tax' ? part.amount : 0),
      0,
    );
    const common = {
      currency: currencyOf(transaction.currency),
      fee: transaction.fee - feeTax,
      feeTax,
      capturedAt: instantOf(transaction.created),
    };
    switch (transaction.reporting_category) {
      case 'charge':
        if (source?.object !== 'charge' || amount < 0) throw malformed(transaction);
        return {
          ...common,
          kind: 'charge',
          gatewayChargeId: source.id,
          reference: source.metadata[ourKeys.reference] ?? null,
          amount,
          capturedAt: instantOf(source.created),
        };
      case 'refund':
        if (source?.object !== 'refund' || amount > 0) throw malformed(transaction);
        return {
          ...common,
          kind: 'refund',
          gatewayChargeId: source.id,
          reference: source.metadata?.[ourKeys.reference] ?? null,
          amount: -amount,
        };
      case 'dispute': {
        if (source?.object !== 'dispute' || amount > 0) throw malformed(transaction);
        const disputed = await chargeOf(account, signal, source.charge);
        return {
          ...common,
          kind: 'chargeback',
          gatewayChargeId: disputed.id,
          reference: disputed.metadata[ourKeys.reference] ?? null,
          amount: -amount,
        };
      }
      default:
        return null;
    }
  }

  return {
    name: 'stripe',
    semantics,
    barcodes: null,
    close: () => http.close(),

    async charge(request, signal): Promise<ChargeAnswer> {
      const method = methodBehind(request.methodToken);
      if (method === null) {
        const codes = { network: null, networkCode: null, adviceCode: null };
        return {
          kind: 'failed',
          codes: { gatewayCode: 'token_malformed', ...codes },
          gatewayChargeId: null,
        };
      }
      const account = await accountOrWhy(request.account);
      if ('why' in account) return { kind: 'not_executed', why: account.why, retryAfterMs: null };
      try {
        const answered = await http.within(signal, () =>
          stripe.paymentIntents.create(
            {
              amount: request.amount,
              currency: request.currency.toLowerCase(),
              customer: method.customer,
              payment_method: method.paymentMethod,
              allowed_payment_method_types: ['card'],
              // The money and its balance transaction are there when the answer is.
              capture_method: 'automatic',
              confirm: true,
              off_session: true,
              metadata: ourMetadata(request, 'charge'),
              expand: ['latest_charge'],
            },
            { ...account, idempotencyKey: request.reference },
          ),
        );
        const intent = paymentIntent.safeParse(answered);
        if (!intent.success) return { kind: 'unknown', why: 'malformed answer' };
        if (intent.data.metadata[ourKeys.reference] !== request.reference) {
          return { kind: 'unknown', why: 'an answer about another charge' };
        }
        const outcome = outcomeOfIntent(intent.data);
        return outcome.kind === 'succeeded' || outcome.kind === 'failed'
          ? outcome
          : { kind: 'unknown', why: intent.data.status };
      } catch (error) {
        const failure = failureOf(error);
        if (failure.kind === 'declined') {
          const about = failure.intent?.metadata[ourKeys.reference] ?? request.reference;
          return about === request.reference
            ? (failure.outcome as ChargeAnswer)
            : { kind: 'unknown', why: 'an answer about another charge' };
        }
        if (failure.kind !== 'refused') return failure;
        // About this card or this bill alone: a code that no rule knows, so a person decides. All else is about us.
        return ['payment_method', 'customer', 'amount'].includes(failure.param)
          ? {
              kind: 'failed',
              codes: { gatewayCode: failure.code, network: null, networkCode: null, adviceCode: null },
              gatewayChargeId: null,
            }
          : { kind: 'not_executed', why: `refused: ${failure.code} ${failure.param}`, retryAfterMs: null };
      }
    },

    refreshCards: async () => ({ kind: 'not_offered' }),

    openHostedPage: (page, signal) =>
      openPage(page, signal, () => {
        const kept = ourMetadata(page, 'page');
        return {
          mode: 'payment',
          // The bill's own amount and currency, whatever the account's settings are.
          adaptive_pricing: { enabled: false },
          line_items: [
            {
              quantity: 1,
              price_data: {
                currency: page.currency.toLowerCase(),
                unit_amount: page.amount,
                product_data: { name: page.merchantName },
              },
            },
          ],
          metadata: kept,
          payment_intent_data: {
            metadata: kept,
            capture_method: 'automatic',
            ...(page.saveMethod ? { setup_future_usage: 'off_session' as const } : {}),
          },
          // A card is charged later only with a customer that it hangs on.
          customer_creation: page.saveMethod ? 'always' : 'if_required',
        };
      }),

    openSetupPage: (page, signal) =>
      openPage(page, signal, () => {
        const kept = ourMetadata(page, 'setup');
        return {
          mode: 'setup',
          metadata: kept,
          setup_intent_data: { metadata: kept },
          customer_creation: 'always',
        };
      }),

    closeSetupPage: (merchantCode, reference, signal, known) =>
      ask<SetupLookup>(signal, async () => {
        const account = await accountOf(merchantCode);
        const page = await findSetup(account, reference, known);
        if (page === null) return notFound(reference);
        if (page.status === 'open') await expire(account, page.id);
        return answerOfSetup(await readSetup(account, page.id), reference);
      }),

    lookupSetup: (merchantCode, reference, signal, known) =>
      ask<SetupLookup>(signal, async () => {
        const page = await findSetup(await accountOf(merchantCode), reference, known);
        return page === null ? notFound(reference) : answerOfSetup(page, reference);
      }),

    closeHostedPage: (merchantCode, reference, signal, known) =>
      ask(signal, async () => {
        const account = await accountOf(merchantCode);
        const page = await findSession(account, reference, known);
        // Never opened, or no page at all: what there is answers as any other.
        if (page === null) return look(account, reference, known);
        if (page.status !== 'open') return answerOfPage(page, reference);
        await expire(account, page.id);
        return answerOfPage(await readSession(account, page.id), reference);
      }),

    lookup: (merchantCode, reference, signal, known) =>
      ask(signal, async () => look(await accountOf(merchantCode), reference, known)),

    async refund(request, signal): Promise<RefundAnswer> {
      const account = await accountOrWhy(request.account);
      if ('why' in account) return { kind: 'not_executed', why: account.why };
      const charged = await chargeToRefund(account, request, signal);
      if ('kind' in charged) return charged;
      try {
        const answered = await http.within(signal, () =>
          stripe.refunds.create(
            {
              ...charged,
              amount: request.amount,
              metadata: { [ourKeys.reference]: request.reference, [ourKeys.merchant]: request.account },
            },
            { ...account, idempotencyKey: request.reference },
          ),
        );
        const refunded = refundSchema.safeParse(answered);
        if (!refunded.success || refunded.data.metadata?.[ourKeys.reference] !== request.reference) {
          return { kind: 'unknown', why: 'malformed answer' };
        }
        return outcomeOfRefund(refunded.data);
      } catch (error) {
        const failure = failureOf(error);
        if (failure.kind === 'not_executed') return { kind: 'not_executed', why: failure.why };
        if (failure.kind === 'unknown') return failure;
        if (failure.kind === 'declined') return { kind: 'unknown', why: 'declined' };
        const isAboutIt =
          refundRefusals.has(failure.code) || ['charge', 'payment_intent', 'amount'].includes(failure.param);
        return isAboutIt
          ? { kind: 'failed', code: failure.code }
          : { kind: 'not_executed', why: `refused: ${failure.code} ${failure.param}` };
      }
    },

    lookupRefund: (merchantCode, reference, signal) =>
      ask<RefundLookup>(signal, async () => {
        const account = await accountOf(merchantCode);
        const created = madeAround(reference, refundMadeWithinSeconds);
        if (created === null) return notFound(reference);
        for await (const found of listed(refundSchema, (page) =>
          stripe.refunds.list({ created, ...page }, account),
        )) {
          if (found.metadata?.[ourKeys.reference] === reference) return outcomeOfRefund(found);
        }
        return notFound(reference);
      }),

    verifyWebhook(rawBody, headers, nowEpochMs): WebhookHint | null {
      const signature = headers['stripe-signature'];
      if (signature === undefined || signature.length > 1_000) return null;
      // The SDK refuses what is too old; what comes from the future is no better.
      const signedAt = Number(/(?:^|,)\s*t=(\d{1,12})(?:,|$)/.exec(signature)?.[1]);
      if (!(signedAt - nowEpochMs / 1000 <= webhookToleranceSeconds)) return null;
      const event = options.webhookSecrets
        .map((secret) => eventOf(rawBody, signature, secret, nowEpochMs))
        .find((found) => found !== null);
      if (event === undefined || event === null) return null;
      const told = event.data.object.metadata ?? {};
      const reference = told[ourKeys.reference];
      const merchant = told[ourKeys.merchant];
      const kept = { eventId: event.id, kind: event.type, gatewayAccount: event.account ?? null };
      // Live endpoints of a platform get test events too, and an account may have payments of others.
      return event.livemode === isLive && reference !== undefined && merchant !== undefined
        ? { ...kept, account: merchant, reference }
        : { ...kept, account: '', reference: null };
    },

    async settlementReport(merchantCode, date, signal): Promise<AsyncIterable<SettlementLine> | null> {
      const from = Temporal.PlainDate.from(date).toZonedDateTime('+09:00').epochMilliseconds / 1000;
      const lt = from + 86_400;
      // Another hour: what was captured at midnight has its balance transaction by then.
      if (options.nowMs() / 1000 < lt + 3_600) return null;
      const account = await accountOf(merchantCode);
      return (async function* () {
        for await (const transaction of transactions(account, signal, { created: { gte: from, lt } })) {
          const line = await lineOf(account, signal, transaction);
          if (line !== null) yield line;
        }
      })();
    },

    async payouts(merchantCode, from, to, signal): Promise<ListedPayout[]> {
      const account = await accountOf(merchantCode);
      // Stripe writes the day as its first second in UTC.
      const secondOf = (date: string) =>
        Temporal.PlainDate.from(date).toZonedDateTime('UTC').epochMilliseconds / 1000;
      const found: ListedPayout[] = [];
      for await (const payout of listed(
        payoutSchema,
        (page) =>
          stripe.payouts.list(
            { arrival_date: { gte: secondOf(from), lt: secondOf(to) + 86_400 }, status: 'paid', ...page },
            account,
          ),
        (read) => reading(signal, read),
      )) {
        if (payout.reconciliation_status === 'in_progress') continue;
        found.push({
          id: payout.id,
          valueDate: instantOf(payout.arrival_date).slice(0, 10),
          currency: currencyOf(payout.currency),
          gross: null,
          fee: null,
          feeTax: null,
          net: payout.amount,
        });
      }
      return found;
    },

    async payoutLines(merchantCode, payoutId, signal): Promise<AsyncIterable<PayoutLine>> {
      const account = await accountOf(merchantCode);
      return (async function* () {
        for await (const transaction of transactions(account, signal, { payout: payoutId })) {
          // The payout itself leaves the balance in a line of its own.
          if (transaction.reporting_category === 'payout') continue;
          const line = await lineOf(account, signal, transaction);
          if (line !== null) {
            const { capturedAt: _, ...rest } = line;
            yield { ...rest, kind: line.kind === 'charge' ? 'charge' : 'refund' };
            continue;
          }
          // Nothing that is ours, and yet a part of the sum: a person sees what it is.
          yield {
            gatewayChargeId: transaction.id,
            reference: null,
            kind: transaction.amount < 0 ? 'refund' : 'charge',
            amount: Math.abs(transaction.amount),
            fee: transaction.fee,
            feeTax: 0,
            currency: currencyOf(transaction.currency),
          };
        }
      })();
    },

    async *listCharges(merchantCode, from, until, signal): AsyncGenerator<ListedCharge> {
      const account = await accountOf(merchantCode);
      const second = (instant: string) => Math.ceil(Temporal.Instant.from(instant).epochMilliseconds / 1000);
      const created = { gte: second(from), lt: second(until) };
      for await (const charge of listed(
        chargeSchema,
        (page) => stripe.charges.list({ created, ...page }, account),
        (read) => reading(signal, read),
      )) {
        if (charge.status !== 'succeeded' || !charge.captured) continue;
        yield {
          gatewayChargeId: charge.id,
          reference: charge.metadata[ourKeys.reference] ?? null,
          invoiceId: charge.metadata[ourKeys.invoice] ?? null,
          amount: charge.amount_captured,
          currency: currencyOf(charge.currency),
          refunded: charge.amount_refunded,
          method: 'card',
          capturedAt: instantOf(charge.created),
        };
      }
    },
  };
}

const openedSession = z.object({ id: z.string().min(1), client_reference_id: z.string(), url: z.url() });
const sessionName = z.object({ id: z.string().min(1), client_reference_id: z.string().nullable() });
const intentName = z.object({ id: z.string().min(1), metadata: z.record(z.string(), z.string()) });
const listPage = z.object({ data: z.array(z.unknown()), has_more: z.boolean() });

const event = z.object({
  id: z.string().min(1),
  type: z.string(),
  livemode: z.boolean(),
  account: z.string().optional(),
  data: z.object({
    object: z.object({ metadata: z.record(z.string(), z.string()).nullish() }),
  }),
});

/** All items of a list, page after page, newest first. An item of another shape ends it: half a list is no list. */
async function* listed<Item extends { id: string }>(
  schema: z.ZodType<Item>,
  read: (page: { limit: number; starting_after?: string }) => Promise<unknown>,
  within: <Result>(work: () => Promise<Result>) => Promise<Result> = (work) => work(),
): AsyncGenerator<Item> {
  let after: { starting_after?: string } = {};
  for (;;) {
    const page = listPage.parse(await within(() => read({ limit: pageSize, ...after })));
    const items = z.array(schema).parse(page.data);
    yield* items;
    const last = items.at(-1);
    if (!page.has_more || last === undefined) return;
    after = { starting_after: last.id };
  }
}

/** Seconds between which whatever stands under a reference was made. Null: the reference tells no time. */
function madeAround(
  reference: string,
  withinSeconds = madeWithinSeconds,
): { gte: number; lt: number } | null {
  const madeAt = madeAtSeconds(reference);
  return madeAt === null ? null : { gte: madeAt - madeBeforeSeconds, lt: madeAt + withinSeconds };
}

/** Our ids are UUIDs of version 7: they begin with the milliseconds of their making. */
function madeAtSeconds(reference: string): number | null {
  const uuid = idBehind(reference);
  if (uuid === null || uuid[14] !== '7') return null;
  return Math.floor(Number.parseInt(uuid.slice(0, 8) + uuid.slice(9, 13), 16) / 1000);
}

/** From the request alone, so that the same request sent again is the same to the last byte. */
function endOfPage(reference: string, expiresAt: string): number {
  const wanted = Math.ceil(Temporal.Instant.from(expiresAt).epochMilliseconds / 1000);
  return Math.max(wanted, (madeAtSeconds(reference) ?? 0) + pageLivesSeconds);
}

function answerOfPage(page: Session, reference: string): LookupAnswer {
  return page.client_reference_id === reference
    ? outcomeOfPage(page)
    : { kind: 'unknown', why: 'an answer about another charge' };
}

function answerOfSetup(page: SetupSession, reference: string): SetupLookup {
  return page.client_reference_id === reference
    ? outcomeOfSetup(page)
    : { kind: 'unknown', why: 'an answer about another page' };
}

function malformed(transaction: { id: string; reporting_category: string }): Error {
  return new Error(`balance transaction ${transaction.id} is no ${transaction.reporting_category}`);
}

function eventOf(rawBody: Buffer, signature: string, secret: string, nowEpochMs: number) {
  try {
    const { webhooks } = Stripe;
    return event.parse(
      webhooks.constructEvent(rawBody, signature, secret, webhookToleranceSeconds, undefined, nowEpochMs),
    );
  } catch {
    // Forged, stale or no event: the same to whoever sent it.
    return null;
  }
}
