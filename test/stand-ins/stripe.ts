import { createHash, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/**
 * Stripe's HTTP as far as the adapter uses it, with books of its own that no code under test can write. It looks at all
 * that is sent: a request that Stripe would not understand, or that lacks what it must have, is a `fault`.
 */
export interface StripeStandIn {
  url: string;
  /** What was wrong with requests; stays empty. */
  readonly faults: string[];
  readonly requests: SeenRequest[];
  /** Of one account; '' is the key's own. */
  account(id?: string): Books;
  /** What the next requests do, one after the other; then all is well. */
  next(path: RegExp, ...troubles: Trouble[]): void;
  /** What the next charges of a saved card do; the last stays. */
  behave(paymentMethod: string, ...behaviours: Behaviour[]): void;
  /** New objects are found by search only so much later. */
  searchLagMs: number;
  /** Forgets all troubles and behaviours that wait, and search is up to date. */
  calm(): void;
  /** Ends what stands in `processing`. */
  finish(intentId: string, succeeds: boolean, account?: string): void;
  /** A customer at the page. Returns where it sends them. */
  payOnPage(sessionId: string, card?: Decline): string;
  /** All captures of an account by our reference. */
  capturesOf(reference: string, account?: string): number;
  /** Pays out what was captured and given back until now, and not paid out before. */
  payOut(id: string, arrivalDate: string, account?: string): void;
  /** Gives money back as a person does in the dashboard. */
  refundByHand(chargeId: string, amount: number, account?: string): void;
  /** The cardholder's bank takes it back. */
  dispute(chargeId: string, account?: string): void;
  /** Takes a fee that belongs to no charge. */
  chargeFee(amount: number, account?: string): void;
  /** The events so far, and each as it would be sent. */
  readonly events: StripeEvent[];
  signed(event: StripeEvent, secret?: string, at?: number): { body: string; signature: string };
  close(): Promise<void>;
}

export interface SeenRequest {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  params: Params;
}

/** What one request meets, whatever it is about. `drop`: the line breaks; `hold`: nobody answers. */
export type Trouble =
  | 'drop_before'
  | 'drop_after'
  | 'hold_before'
  | 'hold_after'
  | 'cut_body'
  | { status: number; body: string; headers?: Record<string, string> };

export type Behaviour =
  | 'ok'
  | 'drop_before'
  | 'drop_after'
  | 'error_before'
  | 'error_after'
  | 'rate_limited'
  | 'lock_timeout'
  | 'processing'
  | 'another_amount'
  | Decline;

export interface Decline {
  code?: string;
  decline_code?: string;
  network_decline_code?: string;
  advice_code?: string;
  network_advice_code?: string;
  brand?: string;
}

export interface StripeEvent {
  id: string;
  object: 'event';
  type: string;
  livemode: boolean;
  created: number;
  account?: string;
  data: { object: Record<string, unknown> };
}

type Params = { [key: string]: string | Params };
type Thing = Record<string, unknown> & { id: string; object: string; created: number };

export interface Books {
  sessions: Thing[];
  intents: Thing[];
  /** Setup intents, with their attempts and payment methods. */
  setups: Thing[];
  charges: Thing[];
  refunds: Thing[];
  transactions: (Thing & { payout: string | null })[];
  payouts: Thing[];
  keys: Map<string, { fingerprint: string; status: number; body: unknown; at: number }>;
}

export interface StandInOptions {
  secretKey: string;
  webhookSecret: string;
  apiVersion: string;
  nowMs: () => number;
}

const keysLiveMs = 24 * 3_600_000;
/** Japan's price in test mode: 3.6 %, and 10 % tax on that. */
export const feeOf = (amount: number): number => Math.floor((amount * 36) / 1_000);
export const feeTaxOf = (fee: number): number => Math.floor(fee / 10);

/** Which parameters each call may have; whatever else is sent is a fault. */
const allowed: [method: string, path: RegExp, parameters: RegExp][] = [
  [
    'POST',
    /^\/v1\/payment_intents$/,
    /^(amount|currency|customer|payment_method|allowed_payment_method_types|capture_method|confirm|off_session|metadata|expand)$/,
  ],
  ['GET', /^\/v1\/payment_intents\/search$/, /^(query|limit)$/],
  ['GET', /^\/v1\/payment_intents$/, /^(created|limit|starting_after)$/],
  ['GET', /^\/v1\/payment_intents\/pi_\w+$/, /^expand$/],
  [
    'POST',
    /^\/v1\/checkout\/sessions$/,
    /^(mode|allowed_payment_method_types|wallet_options|adaptive_pricing|line_items|client_reference_id|metadata|payment_intent_data|setup_intent_data|customer_creation|locale|success_url|cancel_url|expires_at)$/,
  ],
  ['GET', /^\/v1\/checkout\/sessions$/, /^(created|payment_intent|limit|starting_after)$/],
  ['GET', /^\/v1\/checkout\/sessions\/cs_\w+$/, /^expand$/],
  ['POST', /^\/v1\/checkout\/sessions\/cs_\w+\/expire$/, /^$/],
  ['POST', /^\/v1\/refunds$/, /^(charge|payment_intent|amount|metadata)$/],
  ['GET', /^\/v1\/refunds$/, /^(created|limit|starting_after)$/],
  ['GET', /^\/v1\/charges$/, /^(created|limit|starting_after)$/],
  ['GET', /^\/v1\/charges\/ch_\w+$/, /^$/],
  ['GET', /^\/v1\/balance_transactions$/, /^(created|payout|expand|limit|starting_after)$/],
  ['GET', /^\/v1\/payouts$/, /^(arrival_date|status|limit|starting_after)$/],
];

class Refused extends Error {
  readonly status: number;
  readonly error: Record<string, unknown>;
  constructor(status: number, error: Record<string, unknown>) {
    super(String(error.code ?? error.type));
    this.status = status;
    this.error = error;
  }
}

const invalid = (code: string, param?: string, status = 400) =>
  new Refused(status, { type: 'invalid_request_error', code, ...(param ? { param } : {}) });

export async function startStripe(options: StandInOptions): Promise<StripeStandIn> {
  const { nowMs } = options;
  const accounts = new Map<string, Books>();
  const troubles: { path: RegExp; trouble: Trouble }[] = [];
  const plans = new Map<string, Behaviour[]>();
  const live = options.secretKey.includes('_live_');
  let made = 0;

  const second = () => Math.floor(nowMs() / 1000);
  const newId = (prefix: string) => {
    made += 1;
    return `${prefix}_${String(made).padStart(8, '0')}`;
  };
  const books = (id = ''): Books => {
    let found = accounts.get(id);
    if (found === undefined) {
      found = {
        sessions: [],
        intents: [],
        setups: [],
        charges: [],
        refunds: [],
        transactions: [],
        payouts: [],
        keys: new Map(),
      };
      accounts.set(id, found);
    }
    return found;
  };

  function tell(account: string, type: string, object: Thing): void {
    standIn.events.push({
      id: newId('evt'),
      object: 'event',
      type,
      livemode: live,
      created: second(),
      ...(account === '' ? {} : { account }),
      data: { object: structuredClone(object) },
    });
  }

  function transaction(
    account: string,
    kind: { type: string; reporting_category: string },
    amount: number,
    source: Thing | null,
    fee = 0,
  ): void {
    const tax = feeTaxOf(fee);
    books(account).transactions.push({
      id: newId('txn'),
      object: 'balance_transaction',
      created: second(),
      ...kind,
      amount,
      currency: 'jpy',
      fee: fee + tax,
      net: amount - fee - tax,
      fee_details:
        fee === 0
          ? []
          : [
              { amount: fee, currency: 'jpy', type: 'stripe_fee', description: 'Stripe processing fees' },
              { amount: tax, currency: 'jpy', type: 'tax', description: 'JCT' },
            ],
      source: source?.id ?? null,
      status: 'pending',
      payout: null,
    });
  }

  /** One attempt of an intent: money, or a decline. */
  function attempt(account: string, intent: Thing, amount: number, card: Decline | null): void {
    const { charges } = books(account);
    const brand = card?.brand ?? 'visa';
    const charge: Thing = {
      id: newId('ch'),
      object: 'charge',
      created: second(),
      amount,
      amount_captured: card === null ? amount : 0,
      amount_refunded: 0,
      captured: card === null,
      currency: intent.currency,
      customer: intent.customer,
      metadata: structuredClone(intent.metadata),
      payment_intent: intent.id,
      payment_method: intent.payment_method,
      status: card === null ? 'succeeded' : 'failed',
      payment_method_details: {
        type: 'card',
        card: {
          brand,
          last4: '4242',
          exp_month: 4,
          exp_year: 2031,
          network_transaction_id: `ntx${made}`,
          three_d_secure: { electronic_commerce_indicator: '05', result: 'authenticated' },
        },
      },
    };
    charges.push(charge);
    intent.latest_charge = charge.id;
    if (card === null) {
      intent.status = 'succeeded';
      intent.last_payment_error = null;
      transaction(account, { type: 'charge', reporting_category: 'charge' }, amount, charge, feeOf(amount));
      tell(account, 'payment_intent.succeeded', intent);
      return;
    }
    intent.status = 'requires_payment_method';
    intent.last_payment_error = { ...errorOf(card), charge: charge.id };
    tell(account, 'payment_intent.payment_failed', intent);
  }

  const errorOf = ({ brand, ...said }: Decline): Record<string, unknown> => ({
    type: 'card_error',
    code: 'card_declined',
    message: 'Your card was declined.',
    ...said,
    payment_method: { id: 'pm_declined', object: 'payment_method', card: { brand: brand ?? 'visa' } },
  });

  function newIntent(account: string, of: Record<string, unknown>): Thing {
    const intent: Thing = {
      id: newId('pi'),
      object: 'payment_intent',
      created: second(),
      client_secret: 'never handed out',
      customer: null,
      payment_method: null,
      setup_future_usage: null,
      last_payment_error: null,
      latest_charge: null,
      status: 'requires_payment_method',
      ...of,
    };
    books(account).intents.push(intent);
    return intent;
  }

  /** Replaces ids by what they stand for, where that was asked for. */
  function expanded(account: string, thing: Thing, paths: readonly string[]): Thing {
    const copy: Thing = structuredClone(thing);
    for (const [first = '', ...rest] of paths.map((path) => path.split('.'))) {
      const id = copy[first];
      const found =
        typeof id === 'string' ? everything(account).find((each) => each.id === id) : (id as Thing | null);
      if (!found) continue;
      copy[first] = expanded(account, found, rest.length > 0 ? [rest.join('.')] : []);
    }
    return copy;
  }
  const everything = (account: string): Thing[] => {
    const { sessions, intents, setups, charges, refunds } = books(account);
    return [...sessions, ...intents, ...setups, ...charges, ...refunds, ...(disputes.get(account) ?? [])];
  };
  const disputes = new Map<string, Thing[]>();

  function list(account: string, things: readonly Thing[], params: Params, by = 'created'): unknown {
    const range = (params[by] ?? {}) as Record<string, string>;
    const limit = Number(params.limit ?? 10);
    const newestFirst = things
      .filter((each) => {
        const at = Number(each[by]);
        return at >= Number(range.gte ?? 0) && at < Number(range.lt ?? Number.POSITIVE_INFINITY);
      })
      .toReversed();
    const from =
      params.starting_after === undefined
        ? 0
        : newestFirst.findIndex(({ id }) => id === params.starting_after) + 1;
    const paths = listOf(params.expand).map((path) => path.replace(/^data\./, ''));
    return {
      object: 'list',
      has_more: newestFirst.length > from + limit,
      data: newestFirst.slice(from, from + limit).map((each) => expanded(account, each, paths)),
    };
  }

  function charge(account: string, params: Params): { status: number; body: unknown; met?: Trouble } {
    const method = String(params.payment_method);
    const plan = plans.get(method) ?? ['ok'];
    const behaviour = (plan.length > 1 ? plan.shift() : plan[0]) ?? 'ok';
    if (behaviour === 'rate_limited')
      throw new Refused(429, { type: 'invalid_request_error', code: 'rate_limit' });
    if (behaviour === 'lock_timeout')
      throw new Refused(429, { type: 'invalid_request_error', code: 'lock_timeout' });
    if (behaviour === 'drop_before') return { status: 0, body: null, met: 'drop_before' };
    if (behaviour === 'error_before') return { status: 500, body: { error: { type: 'api_error' } } };
    const amount = Number(params.amount) + (behaviour === 'another_amount' ? 1 : 0);
    const intent = newIntent(account, {
      amount,
      currency: params.currency,
      customer: params.customer,
      payment_method: method,
      metadata: params.metadata ?? {},
    });
    if (behaviour === 'processing') intent.status = 'processing';
    else if (typeof behaviour === 'object') attempt(account, intent, amount, behaviour);
    else attempt(account, intent, amount, null);
    if (typeof behaviour === 'object') {
      const error = {
        ...(intent.last_payment_error as object),
        payment_intent: expanded(account, intent, []),
      };
      return { status: 402, body: { error } };
    }
    if (behaviour === 'error_after') return { status: 500, body: { error: { type: 'api_error' } } };
    const answer = { status: 200, body: expanded(account, intent, listOf(params.expand)) };
    return behaviour === 'drop_after' ? { ...answer, met: 'drop_after' } : answer;
  }

  function openSession(account: string, params: Params): unknown {
    const lives = Number(params.expires_at) - second();
    if (lives < 1_800 || lives > 86_400) throw invalid('url_invalid', 'expires_at');
    const id = newId(live ? 'cs_live' : 'cs_test');
    const session: Thing = {
      id,
      object: 'checkout.session',
      mode: params.mode,
      created: second(),
      status: 'open',
      payment_status: 'unpaid',
      url: `${standIn.url}/c/pay/${id}`,
      client_reference_id: params.client_reference_id,
      metadata: params.metadata ?? {},
      payment_intent: null,
      setup_intent: null,
      success_url: params.success_url,
      expires_at: Number(params.expires_at),
    };
    books(account).sessions.push(session);
    if (params.mode === 'setup') {
      session.setup_intent = newSetup(account, params).id;
      return session;
    }
    const data = params.payment_intent_data as Params;
    Object.assign(session, {
      // Beyond what Stripe shows.
      wished: {
        amount: Number(
          ((params.line_items as Params)['0'] as Params & { price_data: Params }).price_data.unit_amount,
        ),
        currency: ((params.line_items as Params)['0'] as Params & { price_data: Params }).price_data.currency,
        metadata: data.metadata,
        setup_future_usage: data.setup_future_usage ?? null,
        customer_creation: params.customer_creation,
      },
    });
    return session;
  }

  function newSetup(account: string, params: Params): Thing {
    const setup: Thing = {
      id: newId('seti'),
      object: 'setup_intent',
      created: second(),
      metadata: (params.setup_intent_data as Params).metadata ?? {},
      status: 'requires_payment_method',
      usage: 'off_session',
      customer: null,
      payment_method: null,
      last_setup_error: null,
      latest_attempt: null,
    };
    books(account).setups.push(setup);
    return setup;
  }

  /** A card typed on a page that takes no money. */
  function keepCard(account: string, session: Thing, card: Decline | undefined): void {
    const { setups } = books(account);
    const setup = setups.find(({ id }) => id === session.setup_intent);
    if (setup === undefined) throw new Error('the page has no setup intent');
    const attempted: Thing = {
      id: newId('setatt'),
      object: 'setup_attempt',
      created: second(),
      payment_method_details: {
        type: 'card',
        card: { brand: 'visa', three_d_secure: { electronic_commerce_indicator: '05' } },
      },
    };
    setups.push(attempted);
    setup.latest_attempt = attempted.id;
    if (card !== undefined) {
      setup.last_setup_error = errorOf(card);
      tell(account, 'setup_intent.setup_failed', setup);
      return;
    }
    const method: Thing = {
      id: newId('pm'),
      object: 'payment_method',
      created: second(),
      card: { brand: 'visa', last4: '4242', exp_month: 4, exp_year: 2031 },
    };
    setups.push(method);
    Object.assign(setup, {
      status: 'succeeded',
      last_setup_error: null,
      payment_method: method.id,
      customer: newId('cus').replace('cus_', 'cus_C'),
    });
    Object.assign(session, { status: 'complete', url: null });
    tell(account, 'setup_intent.succeeded', setup);
    tell(account, 'checkout.session.completed', session);
  }

  /** Sessions end by themselves when their time has come. */
  function endSessions(account: string): void {
    for (const session of books(account).sessions) {
      if (session.status === 'open' && Number(session.expires_at) <= second()) expire(account, session);
    }
  }
  function expire(account: string, session: Thing): void {
    session.status = 'expired';
    session.url = null;
    tell(account, 'checkout.session.expired', session);
  }

  function refund(account: string, params: Params): unknown {
    const target = books(account).charges.find(
      (each) =>
        each.status === 'succeeded' &&
        (each.id === params.charge || each.payment_intent === params.payment_intent),
    );
    if (target === undefined) throw invalid('resource_missing', 'charge', 404);
    const amount = Number(params.amount);
    const left = Number(target.amount_captured) - Number(target.amount_refunded);
    if (left === 0) throw invalid('charge_already_refunded');
    if (amount > left) throw invalid('amount_too_large', 'amount');
    return give(account, target, amount, (params.metadata as Params) ?? {});
  }
  function give(account: string, target: Thing, amount: number, metadata: Params): Thing {
    target.amount_refunded = Number(target.amount_refunded) + amount;
    const refunded: Thing = {
      id: newId('re'),
      object: 'refund',
      created: second(),
      status: 'succeeded',
      amount,
      currency: target.currency,
      charge: target.id,
      metadata,
    };
    books(account).refunds.push(refunded);
    transaction(account, { type: 'refund', reporting_category: 'refund' }, -amount, refunded);
    tell(account, 'charge.refunded', target);
    return refunded;
  }

  function search(account: string, params: Params): unknown {
    const match = /^metadata\['(\w+)'\]:'(\w+)'$/.exec(String(params.query));
    if (match === null) throw invalid('parameter_invalid', 'query');
    const [, key = '', value] = match;
    const data = books(account)
      .intents.filter((each) => (each.metadata as Record<string, string>)[key] === value)
      .filter((each) => each.created * 1000 + standIn.searchLagMs <= nowMs());
    return {
      object: 'search_result',
      has_more: false,
      data: data.map((each) => expanded(account, each, [])),
    };
  }

  function handle(
    account: string,
    method: string,
    path: string,
    params: Params,
  ): { status: number; body: unknown; met?: Trouble } {
    const its = books(account);
    endSessions(account);
    const ok = (body: unknown) => ({ status: 200, body });
    const [, , noun = '', id = '', verb = ''] = path.replace('/checkout/', '/').split('/');
    const one = (things: readonly Thing[]) => {
      const found = things.find((each) => each.id === id);
      if (found === undefined) throw invalid('resource_missing', 'id', 404);
      return ok(expanded(account, found, listOf(params.expand)));
    };
    switch (`${method} ${noun}`) {
      case 'POST payment_intents':
        return charge(account, params);
      case 'GET payment_intents':
        if (id === 'search') return ok(search(account, params));
        return id === '' ? ok(list(account, its.intents, params)) : one(its.intents);
      case 'POST sessions': {
        if (verb !== 'expire') return ok(openSession(account, params));
        const found = its.sessions.find((each) => each.id === id);
        if (found === undefined) throw invalid('resource_missing', 'id', 404);
        if (found.status !== 'open') throw invalid('intent_invalid_state');
        expire(account, found);
        return ok(expanded(account, found, []));
      }
      case 'GET sessions': {
        const of = params.payment_intent;
        const among =
          of === undefined ? its.sessions : its.sessions.filter((each) => each.payment_intent === of);
        return id === '' ? ok(list(account, among, params)) : one(its.sessions);
      }
      case 'POST refunds':
        return ok(refund(account, params));
      case 'GET refunds':
        return ok(list(account, its.refunds, params));
      case 'GET charges':
        return id === '' ? ok(list(account, its.charges, params)) : one(its.charges);
      case 'GET balance_transactions':
        return ok(
          list(
            account,
            its.transactions.filter((each) => params.payout === undefined || each.payout === params.payout),
            params,
          ),
        );
      case 'GET payouts':
        return ok(
          list(
            account,
            its.payouts.filter((each) => params.status === undefined || each.status === params.status),
            params,
            'arrival_date',
          ),
        );
      default:
        throw invalid('url_invalid', undefined, 404);
    }
  }

  /** The key decides whether a request is carried out at all. What was refused before it began is not kept under it. */
  function underKey(
    account: string,
    key: string,
    method: string,
    path: string,
    params: Params,
  ): { status: number; body: unknown; met?: Trouble } {
    const { keys } = books(account);
    for (const [each, { at }] of keys) if (nowMs() - at >= keysLiveMs) keys.delete(each);
    const fingerprint = createHash('sha256')
      .update(JSON.stringify([method, path, params]))
      .digest('hex');
    const stored = keys.get(key);
    if (stored !== undefined) {
      if (stored.fingerprint !== fingerprint) {
        throw new Refused(400, {
          type: 'idempotency_error',
          message: 'Keys for idempotent requests can only be used with the same parameters',
        });
      }
      return { status: stored.status, body: stored.body };
    }
    const answer = handle(account, method, path, params);
    if (answer.met !== 'drop_before') {
      keys.set(key, { fingerprint, status: answer.status, body: structuredClone(answer.body), at: nowMs() });
    }
    return answer;
  }

  function check({ method, path, headers, params }: SeenRequest): void {
    const wrong = (what: string) => standIn.faults.push(`${method} ${path}: ${what}`);
    if (headers['stripe-version'] !== options.apiVersion) wrong(`version ${headers['stripe-version']}`);
    if (headers['x-stripe-client-telemetry'] !== undefined) wrong('telemetry');
    const rule = allowed.find(([verb, pattern]) => verb === method && pattern.test(path));
    if (rule === undefined) wrong('no such call');
    for (const name of Object.keys(params)) {
      if (rule !== undefined && !rule[2].test(name)) wrong(`parameter ${name}`);
    }
    if (method !== 'POST') return;
    if (headers['content-type'] !== 'application/x-www-form-urlencoded') wrong('not form-encoded');
    if (headers['idempotency-key'] === undefined) wrong('no idempotency key');
    if (params.currency !== undefined && params.currency !== 'jpy') wrong(`currency ${params.currency}`);
    if (/payment_intents$/.test(path)) {
      for (const [name, value] of [
        ['confirm', 'true'],
        ['off_session', 'true'],
        ['capture_method', 'automatic'],
      ] as const) {
        if (params[name] !== value) wrong(`${name} is ${params[name]}`);
      }
    }
    if (/sessions$/.test(path)) {
      if (params.mode !== 'payment' && params.mode !== 'setup') wrong('mode');
      if (JSON.stringify(params.allowed_payment_method_types) !== '{"0":"card"}') wrong('not cards alone');
      const named = Object.keys(params).filter((name) =>
        /^(adaptive_pricing|line_items|payment_intent_data)$/.test(name),
      );
      if (params.mode === 'setup') {
        if (named.length > 0) wrong(`${named} of a page that takes no money`);
        if (params.customer_creation !== 'always') wrong('a card without a customer');
        return;
      }
      if (params.setup_intent_data !== undefined) wrong('setup_intent_data');
      if ((params.adaptive_pricing as Params | undefined)?.enabled !== 'false') wrong('adaptive pricing');
      if ((params.payment_intent_data as Params).statement_descriptor !== undefined) wrong('descriptor');
    }
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://stripe.invalid');
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const form = new URLSearchParams(
      request.method === 'POST' ? Buffer.concat(parts).toString('utf8') : url.search,
    );
    const seen: SeenRequest = {
      method: request.method ?? '',
      path: url.pathname,
      headers: request.headers,
      params: nested(form),
    };
    standIn.requests.push(seen);
    check(seen);
    const waiting = troubles.findIndex(({ path }) => path.test(`${seen.method} ${seen.path}`));
    const trouble = waiting < 0 ? undefined : troubles.splice(waiting, 1)[0]?.trouble;
    if (trouble === 'drop_before') return void request.socket.destroy();
    if (trouble === 'hold_before') return;
    if (typeof trouble === 'object') {
      response.writeHead(trouble.status, { date: httpDate(), ...trouble.headers }).end(trouble.body);
      return;
    }
    let told: { status: number; body: unknown; met?: Trouble };
    try {
      if (seen.headers.authorization !== `Bearer ${options.secretKey}`) {
        throw new Refused(401, { type: 'invalid_request_error', message: 'Invalid API Key provided' });
      }
      const account = String(seen.headers['stripe-account'] ?? '');
      const key = seen.headers['idempotency-key'];
      told =
        typeof key === 'string'
          ? underKey(account, key, seen.method, seen.path, seen.params)
          : handle(account, seen.method, seen.path, seen.params);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      told = { status: error.status, body: { error: error.error } };
    }
    if (trouble === 'hold_after') return;
    if (trouble === 'drop_after' || told.met !== undefined) return void request.socket.destroy();
    const body = JSON.stringify(told.body);
    const head = { 'content-type': 'application/json', date: httpDate(), 'request-id': newId('req') };
    if (trouble === 'cut_body') {
      response.writeHead(told.status, { ...head, 'content-length': body.length + 10 });
      response.write(body);
      return;
    }
    response.writeHead(told.status, head).end(body);
  }
  const httpDate = () => new Date(nowMs()).toUTCString();

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      standIn.faults.push(String(error));
      request.socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');

  const standIn: StripeStandIn = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    faults: [],
    requests: [],
    events: [],
    searchLagMs: 0,
    account: books,
    next: (path, ...more) => {
      for (const trouble of more) troubles.push({ path, trouble });
    },
    behave: (paymentMethod, ...behaviours) => {
      plans.set(paymentMethod, behaviours);
    },

    calm() {
      troubles.length = 0;
      plans.clear();
      standIn.searchLagMs = 0;
    },
    finish(intentId, succeeds, account = '') {
      const intent = books(account).intents.find(({ id }) => id === intentId);
      if (intent === undefined) throw new Error('no such intent');
      attempt(account, intent, Number(intent.amount), succeeds ? null : { decline_code: 'do_not_honor' });
    },

    payOnPage(sessionId, card) {
      for (const [account, { sessions, intents }] of accounts) {
        endSessions(account);
        const session = sessions.find(({ id }) => id === sessionId);
        if (session === undefined) continue;
        if (session.status !== 'open') throw new Error(`the page is ${session.status}`);
        if (session.mode === 'setup') {
          keepCard(account, session, card);
          return String(session.success_url);
        }
        const wished = session.wished as Record<string, unknown>;
        const intent =
          intents.find(({ id }) => id === session.payment_intent) ??
          newIntent(account, {
            amount: wished.amount,
            currency: wished.currency,
            metadata: wished.metadata,
            setup_future_usage: wished.setup_future_usage,
          });
        session.payment_intent = intent.id;
        intent.payment_method = newId('pm');
        if (wished.customer_creation === 'always') intent.customer = newId('cus').replace('cus_', 'cus_C');
        attempt(account, intent, Number(wished.amount), card ?? null);
        if (card === undefined) {
          session.status = 'complete';
          session.payment_status = 'paid';
          session.url = null;
          tell(account, 'checkout.session.completed', session);
        }
        return String(session.success_url);
      }
      throw new Error('there is no such page');
    },

    capturesOf: (reference, account = '') =>
      books(account).charges.filter(
        (each) =>
          each.status === 'succeeded' &&
          (each.metadata as Record<string, string>).seikyu_reference === reference,
      ).length,

    payOut(id, arrivalDate, account = '') {
      const { transactions, payouts } = books(account);
      const taken = transactions.filter((each) => each.payout === null);
      const amount = taken.reduce((sum, each) => sum + Number(each.net), 0);
      const payout: Thing = {
        id,
        object: 'payout',
        created: second(),
        status: 'paid',
        amount,
        currency: 'jpy',
        arrival_date: Date.parse(`${arrivalDate}T00:00:00Z`) / 1000,
        reconciliation_status: 'completed',
      };
      payouts.push(payout);
      transaction(account, { type: 'payout', reporting_category: 'payout' }, -amount, payout);
      for (const each of transactions) each.payout ??= id;
    },

    refundByHand(chargeId, amount, account = '') {
      const target = books(account).charges.find(({ id }) => id === chargeId);
      if (target === undefined) throw new Error('no such charge');
      give(account, target, amount, {});
    },

    dispute(chargeId, account = '') {
      const target = books(account).charges.find(({ id }) => id === chargeId);
      if (target === undefined) throw new Error('no such charge');
      const disputed: Thing = { id: newId('dp'), object: 'dispute', created: second(), charge: chargeId };
      disputes.set(account, [...(disputes.get(account) ?? []), disputed]);
      transaction(
        account,
        { type: 'adjustment', reporting_category: 'dispute' },
        -Number(target.amount_captured),
        disputed,
        1_500,
      );
    },

    chargeFee(amount, account = '') {
      transaction(account, { type: 'stripe_fee', reporting_category: 'fee' }, -amount, null);
    },

    signed(event, secret = options.webhookSecret, at = second()) {
      const body = JSON.stringify(event);
      const signature = createHmac('sha256', secret).update(`${at}.${body}`).digest('hex');
      return { body, signature: `t=${at},v1=${signature}` };
    },

    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
  return standIn;
}

function listOf(value: string | Params | undefined): string[] {
  return value === undefined || typeof value === 'string' ? [] : (Object.values(value) as string[]);
}

/** `a[b][0]=c` as Stripe reads it. */
function nested(form: URLSearchParams): Params {
  const all: Params = {};
  for (const [name, value] of form) {
    const path = name.split(/\[|\]\[|\]/).filter((part) => part !== '');
    let place = all;
    for (const part of path.slice(0, -1)) {
      place[part] ??= {};
      place = place[part] as Params;
    }
    place[path.at(-1) ?? ''] = value;
  }
  return all;
}
