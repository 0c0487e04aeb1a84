import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type FixedClock, fixedClock } from '../../billing/clock.ts';
import type {
  ChargeAnswer,
  Gateway,
  LookupAnswer,
  PayoutLine,
  SettlementLine,
} from '../../billing/gateways/gateway.ts';
import { apiVersion, stripeGateway } from '../../billing/gateways/stripe.ts';
import { referenceOf, seededRandomness, timeOrderedIds } from '../../billing/ids.ts';
import type { Ids } from '../../billing/ports.ts';
import {
  type Decline,
  feeOf,
  feeTaxOf,
  type StripeEvent,
  type StripeStandIn,
  startStripe,
  type Trouble,
} from '../stand-ins/stripe.ts';

const secretKey = 'sk_test_0123456789';
const webhookSecret = 'whsec_0123456789';
const hour = 3_600_000;
const card = 'cus_Hana:pm_Hana';

let clock: FixedClock;
let ids: Ids;
let stripe: StripeStandIn;
let gateway: ReturnType<typeof stripeGateway>;

const nowMs = () => clock.now().epochMilliseconds;
const open = (baseUrl: string, change: Partial<Parameters<typeof stripeGateway>[0]> = {}) =>
  stripeGateway({
    secretKey,
    webhookSecrets: [webhookSecret],
    baseUrl,
    accountOf: async (code) => (code === 'connected-gas' ? 'acct_connected' : null),
    nowMs,
    ...change,
  });

beforeAll(() => {
  clock = fixedClock('2026-12-01T01:00:00Z');
  ids = timeOrderedIds(clock, seededRandomness('stripe'));
});
beforeEach(async () => {
  clock.set('2026-12-01T01:00:00Z');
  stripe = await startStripe({ secretKey, webhookSecret, apiVersion, nowMs });
  gateway = open(stripe.url);
});
afterEach(async () => {
  expect(stripe.faults).toEqual([]);
  await gateway.close();
  await stripe.close();
});

const soon = () => AbortSignal.timeout(10_000);
const shortly = () => AbortSignal.timeout(400);
const reference = () => referenceOf(ids.uuid());
const chargeOf = (change: Partial<Parameters<Gateway['charge']>[0]> = {}) => ({
  account: 'minato-gas',
  reference: reference(),
  invoiceId: 'INVOICE-1',
  amount: 4_980,
  currency: 'JPY',
  methodToken: card,
  networkTransactionId: null,
  ...change,
});
const pageOf = (change: Partial<Parameters<Gateway['openHostedPage']>[0]> = {}) => ({
  account: 'minato-gas',
  reference: reference(),
  invoiceId: 'INVOICE-2',
  amount: 7_315,
  currency: 'JPY',
  returnUrl: 'https://pay.example.test/r/abc',
  language: 'ja' as const,
  merchantName: 'みなとガス',
  method: 'card' as const,
  saveMethod: false,
  expiresAt: clock.now().add({ minutes: 30 }).toString({ smallestUnit: 'millisecond' }),
  ...change,
});
const look = (ofReference: string, account = 'minato-gas'): Promise<LookupAnswer> =>
  gateway.lookup(account, ofReference, soon());
const sent = (path: RegExp) => stripe.requests.filter((each) => path.test(`${each.method} ${each.path}`));

describe('a saved card charged without its holder', () => {
  test('takes the money once, under our reference, in yen as yen', async () => {
    const request = chargeOf();
    const answer = await gateway.charge(request, soon());
    expect(answer).toEqual({
      kind: 'succeeded',
      captured: {
        gatewayChargeId: expect.stringMatching(/^ch_/),
        amount: 4_980,
        currency: 'JPY',
        capturedAt: '2026-12-01T01:00:00.000Z',
        method: 'card',
        savedMethod: null,
      },
    });
    const [seen] = sent(/^POST .*payment_intents/);
    expect(seen?.headers).toMatchObject({
      authorization: `Bearer ${secretKey}`,
      'idempotency-key': request.reference,
      'stripe-version': apiVersion,
    });
    expect(seen?.headers['stripe-account']).toBeUndefined();
    expect(seen?.params).toEqual({
      amount: '4980',
      currency: 'jpy',
      customer: 'cus_Hana',
      payment_method: 'pm_Hana',
      allowed_payment_method_types: { 0: 'card' },
      capture_method: 'automatic',
      confirm: 'true',
      off_session: 'true',
      metadata: {
        seikyu_reference: request.reference,
        seikyu_merchant: 'minato-gas',
        seikyu_invoice: 'INVOICE-1',
        seikyu_made: 'charge',
      },
      expand: { 0: 'latest_charge' },
    });
    expect(await gateway.charge(request, soon())).toEqual(answer);
    expect(await look(request.reference)).toEqual(answer);
    expect(stripe.capturesOf(request.reference)).toBe(1);
  });

  test('a merchant’s own account is named with every call', async () => {
    const request = chargeOf({ account: 'connected-gas' });
    expect((await gateway.charge(request, soon())).kind).toBe('succeeded');
    expect((await look(request.reference, 'connected-gas')).kind).toBe('succeeded');
    expect(stripe.capturesOf(request.reference, 'acct_connected')).toBe(1);
    expect(stripe.requests.every((each) => each.headers['stripe-account'] === 'acct_connected')).toBe(true);
  });

  const declines: [string, Decline, object][] = [
    [
      'too little money',
      { decline_code: 'insufficient_funds', network_decline_code: '51' },
      { gatewayCode: 'insufficient_funds', networkCode: '51' },
    ],
    ['a lost card', { decline_code: 'lost_card' }, { gatewayCode: 'lost_card' }],
    [
      'an expired card, which has no code of the issuer',
      { code: 'expired_card' },
      { gatewayCode: 'expired_card' },
    ],
    [
      'the holder must prove to be there',
      { code: 'authentication_required', decline_code: 'authentication_required' },
      { gatewayCode: 'authentication_required' },
    ],
    [
      'advice of the network',
      {
        decline_code: 'do_not_honor',
        network_advice_code: '02',
        advice_code: 'try_again_later',
        brand: 'mastercard',
      },
      { network: 'mastercard', adviceCode: '02' },
    ],
    [
      'advice of Stripe alone',
      { decline_code: 'do_not_honor', advice_code: 'confirm_card_data' },
      { adviceCode: 'confirm_card_data' },
    ],
    [
      'never again is hidden by nothing milder',
      { decline_code: 'do_not_honor', network_advice_code: '02', advice_code: 'do_not_try_again' },
      { adviceCode: 'do_not_try_again' },
    ],
    [
      'a code of tomorrow',
      { code: 'card_declined', decline_code: 'code_of_tomorrow' },
      { gatewayCode: 'code_of_tomorrow' },
    ],
  ];
  test.each(declines)('declined: %s', async (_, decline, codes) => {
    stripe.behave('pm_Hana', decline);
    const request = chargeOf();
    const answer = await gateway.charge(request, soon());
    expect(answer).toMatchObject({ kind: 'failed', codes, gatewayChargeId: expect.stringMatching(/^ch_/) });
    expect(await look(request.reference)).toEqual(answer);
    expect(stripe.capturesOf(request.reference)).toBe(0);
  });

  test('too many at once is certainly without effect, and the same reference goes through', async () => {
    stripe.behave('pm_Hana', 'rate_limited', 'lock_timeout', 'ok');
    const request = chargeOf();
    expect(await gateway.charge(request, soon())).toMatchObject({
      kind: 'not_executed',
      why: '429 rate_limit',
    });
    expect(await gateway.charge(request, soon())).toMatchObject({
      kind: 'not_executed',
      why: '429 lock_timeout',
    });
    expect((await gateway.charge(request, soon())).kind).toBe('succeeded');
  });

  test('the line breaks after the effect: nothing is sent again by itself, and the lookup finds the money', async () => {
    stripe.behave('pm_Hana', 'drop_after');
    const request = chargeOf();
    expect((await gateway.charge(request, soon())).kind).toBe('unknown');
    expect(sent(/^POST .*payment_intents/)).toHaveLength(1);
    expect((await look(request.reference)).kind).toBe('succeeded');
    expect(stripe.capturesOf(request.reference)).toBe(1);
  });

  test('the line breaks before the effect: nothing is found, and that is told only of what can be proven', async () => {
    stripe.behave('pm_Hana', 'drop_before');
    const request = chargeOf();
    expect((await gateway.charge(request, soon())).kind).toBe('unknown');
    expect(await look(request.reference)).toEqual({ kind: 'not_found' });
  });

  test('nobody answers, or an answer stops half-way: unknown at the deadline', async () => {
    stripe.next(/POST/, 'hold_after', 'cut_body');
    const [held, cut] = [chargeOf(), chargeOf()];
    expect((await gateway.charge(held, shortly())).kind).toBe('unknown');
    expect((await gateway.charge(cut, shortly())).kind).toBe('unknown');
    for (const request of [held, cut]) expect((await look(request.reference)).kind).toBe('succeeded');
  });

  test.each(['error_before', 'error_after'] as const)(
    '%s: a stored 500 is replayed, only the lookup tells',
    async (behaviour) => {
      stripe.behave('pm_Hana', behaviour, 'ok');
      const request = chargeOf();
      for (let call = 0; call < 3; call++) {
        expect(await gateway.charge(request, soon())).toMatchObject({
          kind: 'unknown',
          why: '500 api_error',
        });
      }
      expect((await look(request.reference)).kind).toBe(
        behaviour === 'error_after' ? 'succeeded' : 'not_found',
      );
      expect(stripe.capturesOf(request.reference)).toBe(behaviour === 'error_after' ? 1 : 0);
    },
  );

  test('a key that stands for another request is unknown, whatever that one did', async () => {
    const request = chargeOf();
    await gateway.charge(request, soon());
    expect(await gateway.charge({ ...request, amount: 1 }, soon())).toMatchObject({
      kind: 'unknown',
      why: '400 idempotency_error',
    });
    expect(stripe.capturesOf(request.reference)).toBe(1);
  });

  test('under way at Stripe is unknown, and pending when asked', async () => {
    stripe.behave('pm_Hana', 'processing');
    const request = chargeOf();
    expect(await gateway.charge(request, soon())).toEqual({ kind: 'unknown', why: 'processing' });
    expect(await look(request.reference)).toEqual({ kind: 'pending' });
  });

  test('a token that is none of ours, and a deadline that is over: nothing is sent', async () => {
    expect(await gateway.charge(chargeOf({ methodToken: 'tok_visa' }), soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'token_malformed' },
    });
    expect(await gateway.charge(chargeOf(), AbortSignal.abort())).toMatchObject({ kind: 'not_executed' });
    expect(stripe.requests).toEqual([]);
  });

  test('an account that cannot be told: nothing is sent, and nothing is judged', async () => {
    const lost = open(stripe.url, { accountOf: () => Promise.reject(new Error('the database is away')) });
    expect(await lost.charge(chargeOf(), soon())).toMatchObject({ kind: 'not_executed' });
    expect(await lost.openHostedPage(pageOf(), soon())).toMatchObject({ kind: 'not_executed' });
    expect(await lost.lookup('minato-gas', reference(), soon())).toMatchObject({ kind: 'unknown' });
    await lost.close();
  });
});

describe('what the adapter makes of an answer', () => {
  const error = (type: string, more: object = {}) => JSON.stringify({ error: { type, ...more } });
  const cases: [string, Trouble & object, ChargeAnswer['kind']][] = [
    ['not JSON', { status: 200, body: '<html>' }, 'unknown'],
    ['an empty success', { status: 200, body: '{}' }, 'unknown'],
    ['nothing', { status: 200, body: 'null' }, 'unknown'],
    [
      'a success of another shape',
      { status: 200, body: '{"object":"payment_intent","id":"pi_1","status":"succeeded"}' },
      'unknown',
    ],
    ['a bare 402', { status: 402, body: '{}' }, 'unknown'],
    ['a bare 500', { status: 500, body: '{}' }, 'unknown'],
    ['a proxy’s 502', { status: 502, body: '<html>' }, 'unknown'],
    ['a 503', { status: 503, body: error('api_error') }, 'unknown'],
    ['a redirect', { status: 302, body: '{}' }, 'unknown'],
    [
      'a key in use',
      { status: 409, body: error('idempotency_error', { code: 'idempotency_key_in_use' }) },
      'unknown',
    ],
    [
      'a conflict',
      { status: 409, body: error('invalid_request_error', { code: 'idempotency_key_in_use' }) },
      'unknown',
    ],
    ['an idempotency error', { status: 400, body: error('idempotency_error') }, 'unknown'],
    [
      'a 429',
      {
        status: 429,
        body: error('invalid_request_error', { code: 'rate_limit' }),
        headers: { 'retry-after': '7' },
      },
      'not_executed',
    ],
    ['a 401', { status: 401, body: error('invalid_request_error') }, 'not_executed'],
    ['a 403', { status: 403, body: error('invalid_request_error') }, 'not_executed'],
    [
      'a request that is wrong',
      { status: 400, body: error('invalid_request_error', { code: 'parameter_unknown', param: 'confirm' }) },
      'not_executed',
    ],
    [
      'an account that may not charge',
      { status: 400, body: error('invalid_request_error', { code: 'account_invalid' }) },
      'not_executed',
    ],
    [
      'a card that is gone',
      {
        status: 400,
        body: error('invalid_request_error', { code: 'resource_missing', param: 'payment_method' }),
      },
      'failed',
    ],
    [
      'a bill too small for Stripe',
      { status: 400, body: error('invalid_request_error', { code: 'amount_too_small', param: 'amount' }) },
      'failed',
    ],
    [
      'a decline',
      { status: 402, body: error('card_error', { code: 'card_declined', decline_code: 'lost_card' }) },
      'failed',
    ],
    [
      'a card that was declined too often, as a decline by whatever status',
      { status: 429, body: error('card_error', { code: 'card_decline_rate_limit_exceeded' }) },
      'failed',
    ],
    [
      'a 402 that is no decline',
      { status: 402, body: error('invalid_request_error', { code: 'x' }) },
      'unknown',
    ],
    [
      'a decline of another charge',
      {
        status: 402,
        body: error('card_error', {
          code: 'card_declined',
          payment_intent: {
            object: 'payment_intent',
            id: 'pi_1',
            status: 'requires_payment_method',
            amount: 1,
            currency: 'jpy',
            metadata: { seikyu_reference: 'OTHER' },
            customer: null,
            payment_method: null,
            setup_future_usage: null,
            last_payment_error: null,
            latest_charge: null,
          },
        }),
      },
      'unknown',
    ],
    ['an endless answer', { status: 200, body: ' '.repeat(9_000_000) }, 'unknown'],
  ];
  test.each(cases)('%s', async (_, trouble, kind) => {
    stripe.next(/POST/, trouble);
    const answer = await gateway.charge(chargeOf(), soon());
    expect(answer.kind).toBe(kind);
    if (trouble.headers !== undefined) expect(answer).toMatchObject({ retryAfterMs: 7_000 });
    expect(sent(/POST/)).toHaveLength(1);
  });

  test('nobody listens: not executed; asked, it is unknown', async () => {
    const closed = createServer();
    closed.listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as AddressInfo;
    closed.close();
    await once(closed, 'close');
    const nobody = open(`http://127.0.0.1:${port}`);
    expect(await nobody.charge(chargeOf(), soon())).toMatchObject({
      kind: 'not_executed',
      why: 'ECONNREFUSED',
    });
    expect(await nobody.lookup('minato-gas', reference(), soon())).toMatchObject({ kind: 'unknown' });
    await expect(nobody.payouts('minato-gas', '2026-12-01', '2026-12-01', soon())).rejects.toThrow(
      'ECONNREFUSED',
    );
    await nobody.close();
  });

  test('an empty list is no answer where its status says that something broke', async () => {
    const empty = { status: 500, body: '{"object":"list","data":[],"has_more":false}' };
    stripe.next(/GET/, empty, empty, empty);
    expect((await look(reference())).kind).toBe('unknown');
  });

  test('a question that meets trouble has answered nothing', async () => {
    const request = chargeOf();
    await gateway.charge(request, soon());
    for (const trouble of [
      'drop_before',
      'drop_after',
      { status: 500, body: '{}' },
      { status: 429, body: '{}' },
    ] as const) {
      stripe.next(/GET/, trouble);
      expect((await look(request.reference)).kind).toBe('unknown');
    }
  });
});

describe('asking by our reference', () => {
  test('search that lags behind hides nothing: the list of what was made then has it', async () => {
    stripe.searchLagMs = hour;
    stripe.behave('pm_Hana', 'drop_after');
    const request = chargeOf();
    await gateway.charge(request, soon());
    expect((await look(request.reference)).kind).toBe('succeeded');
  });

  test('an account without search is asked by its list', async () => {
    const request = chargeOf();
    await gateway.charge(request, soon());
    stripe.next(/search/, { status: 400, body: '{"error":{"type":"invalid_request_error","code":"x"}}' });
    expect((await look(request.reference)).kind).toBe('succeeded');
  });

  test('the list is read to its end', async () => {
    stripe.searchLagMs = hour;
    const first = chargeOf();
    await gateway.charge(first, soon());
    for (let more = 0; more < 120; more++) await gateway.charge(chargeOf(), soon());
    expect((await look(first.reference)).kind).toBe('succeeded');
    expect(sent(/GET .*payment_intents$/)).toHaveLength(2);
  });

  test('after 24 hours the key is gone: sent again it would take money again, asked by reference it does not', async () => {
    stripe.behave('pm_Hana', 'drop_after', 'ok');
    const request = chargeOf();
    await gateway.charge(request, soon());
    clock.advance(25 * hour);
    expect((await look(request.reference)).kind).toBe('succeeded');
    expect(stripe.capturesOf(request.reference)).toBe(1);
    // This is why nobody replays after the key's lifetime.
    expect((await gateway.charge(request, soon())).kind).toBe('succeeded');
    expect(stripe.capturesOf(request.reference)).toBe(2);
  });

  test('clocks that differ prove no absence', async () => {
    const ours = open(stripe.url, { nowMs: () => nowMs() + 31_000 });
    expect(await ours.lookup('minato-gas', reference(), soon())).toEqual({
      kind: 'unknown',
      why: 'the clocks differ',
    });
    await ours.close();
  });

  test('a reference that tells no time is never told to be absent', async () => {
    expect(await look('A'.repeat(26))).toMatchObject({ kind: 'unknown' });
  });

  test('what a person cancelled in the dashboard has ended', async () => {
    stripe.behave('pm_Hana', 'processing');
    const request = chargeOf();
    await gateway.charge(request, soon());
    const [intent] = stripe.account().intents;
    if (intent !== undefined) intent.status = 'canceled';
    expect(await look(request.reference)).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'canceled' },
    });
  });
});

describe('the hosted page', () => {
  async function opened(change: Parameters<typeof pageOf>[0] = {}) {
    const request = pageOf(change);
    const answer = await gateway.openHostedPage(request, soon());
    if (answer.kind !== 'opened') throw new Error(answer.why);
    return { request, reference: request.reference, id: answer.gatewaySessionId, url: answer.url };
  }
  const known = (page: { id: string }) => ({ gatewaySessionId: page.id });

  test('asks for this bill by card, on Stripe’s page, in the visitor’s language', async () => {
    const page = await opened();
    expect(page.url).toContain('/c/pay/cs_test_');
    const [seen] = sent(/^POST .*sessions$/);
    const kept = {
      seikyu_reference: page.reference,
      seikyu_merchant: 'minato-gas',
      seikyu_invoice: 'INVOICE-2',
      seikyu_made: 'page',
    };
    expect(seen?.headers['idempotency-key']).toBe(page.reference);
    expect(seen?.params).toMatchObject({
      mode: 'payment',
      locale: 'ja',
      client_reference_id: page.reference,
      customer_creation: 'if_required',
      success_url: 'https://pay.example.test/r/abc',
      cancel_url: 'https://pay.example.test/r/abc',
      line_items: {
        0: {
          quantity: '1',
          price_data: { currency: 'jpy', unit_amount: '7315', product_data: { name: 'みなとガス' } },
        },
      },
      metadata: kept,
      payment_intent_data: { metadata: kept, capture_method: 'automatic' },
    });
    expect(seen?.params.payment_intent_data).not.toHaveProperty('setup_future_usage');
  });

  test('sent again, it is the same page, also later', async () => {
    const page = await opened();
    clock.advance(90_000);
    expect(await gateway.openHostedPage(page.request, soon())).toMatchObject({
      kind: 'opened',
      gatewaySessionId: page.id,
    });
    expect(await gateway.openHostedPage({ ...page.request, amount: 1 }, soon())).toMatchObject({
      kind: 'unknown',
    });
    expect(stripe.account().sessions).toHaveLength(1);
  });

  test('lives as long as Stripe wants at least, and longer where we do', async () => {
    await opened({ expiresAt: clock.now().add({ minutes: 2 }).toString() });
    await opened({ expiresAt: clock.now().add({ hours: 5 }).toString() });
    const lives = stripe.account().sessions.map((each) => Number(each.expires_at) - nowMs() / 1000);
    expect(lives).toEqual([31 * 60 + 30, 5 * 3_600]);
  });

  test.each([true, false])('open, declined, paid; known by its id or not: %s', async (isKnown) => {
    const page = await opened();
    const ask = () => gateway.lookup('minato-gas', page.reference, soon(), isKnown ? known(page) : undefined);
    expect(await ask()).toEqual({ kind: 'pending' });
    stripe.payOnPage(page.id, { decline_code: 'lost_card' });
    expect(await ask()).toEqual({ kind: 'pending' });
    expect(stripe.payOnPage(page.id)).toBe('https://pay.example.test/r/abc');
    expect(await ask()).toMatchObject({ kind: 'succeeded', captured: { amount: 7_315, savedMethod: null } });
    expect(stripe.capturesOf(page.reference)).toBe(1);
  });

  test('with the tick the card is kept, with its proof, and can be charged', async () => {
    const page = await opened({ saveMethod: true });
    stripe.payOnPage(page.id);
    const paid = await look(page.reference);
    expect(paid).toMatchObject({
      kind: 'succeeded',
      captured: {
        savedMethod: {
          brand: 'visa',
          lastFour: '4242',
          expires: '2031-04',
          threeDsEci: '05',
          networkTransactionId: expect.stringMatching(/^ntx/),
        },
      },
    });
    const token = paid.kind === 'succeeded' ? (paid.captured.savedMethod?.token ?? '') : '';
    expect((await gateway.charge(chargeOf({ methodToken: token }), soon())).kind).toBe('succeeded');
  });

  test.each([true, false])(
    'closed by us: it takes no more money, and the answer is conclusive; known: %s',
    async (isKnown) => {
      const page = await opened();
      const close = () =>
        gateway.closeHostedPage('minato-gas', page.reference, soon(), isKnown ? known(page) : undefined);
      expect(await close()).toMatchObject({ kind: 'failed', codes: { gatewayCode: 'page_expired' } });
      expect(() => stripe.payOnPage(page.id)).toThrow('expired');
      expect(await close()).toMatchObject({ kind: 'failed', codes: { gatewayCode: 'page_expired' } });
      expect(await look(page.reference)).toMatchObject({ kind: 'failed' });
    },
  );

  test('closed after a decline: the decline is what is told', async () => {
    const page = await opened();
    stripe.payOnPage(page.id, { decline_code: 'insufficient_funds' });
    expect(await gateway.closeHostedPage('minato-gas', page.reference, soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'insufficient_funds' },
    });
  });

  test('closed after it was paid, or while it is: the money is told', async () => {
    const page = await opened();
    stripe.payOnPage(page.id);
    expect((await gateway.closeHostedPage('minato-gas', page.reference, soon())).kind).toBe('succeeded');
    const other = await opened();
    // Stripe has it as open when asked, and as paid when told to close it.
    stripe.next(/POST .*expire/, { status: 400, body: '{"error":{"type":"invalid_request_error"}}' });
    const closing = gateway.closeHostedPage('minato-gas', other.reference, soon(), known(other));
    stripe.payOnPage(other.id);
    expect((await closing).kind).toBe('succeeded');
  });

  test('an answer that was lost: the page is found by the reference, and closed', async () => {
    stripe.next(/POST .*sessions$/, 'drop_after');
    const request = pageOf();
    expect((await gateway.openHostedPage(request, soon())).kind).toBe('unknown');
    expect(await gateway.closeHostedPage('minato-gas', request.reference, soon())).toMatchObject({
      kind: 'failed',
    });
    expect(stripe.account().sessions[0]?.status).toBe('expired');
    expect(await gateway.closeHostedPage('minato-gas', reference(), soon())).toEqual({ kind: 'not_found' });
  });

  test('past its end it has ended by itself', async () => {
    const page = await opened();
    clock.advance(32 * 60_000);
    expect(await look(page.reference)).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'page_expired' },
    });
    expect(await gateway.closeHostedPage('minato-gas', page.reference, soon(), known(page))).toMatchObject({
      kind: 'failed',
    });
  });

  test('paid at the last moment, long after it was made, and its id forgotten', async () => {
    const page = await opened({ expiresAt: clock.now().add({ hours: 3 }).toString() });
    clock.advance(2 * hour);
    stripe.payOnPage(page.id);
    expect((await look(page.reference)).kind).toBe('succeeded');
  });

  test('a page of another charge is no answer about this one', async () => {
    const [page, other] = [await opened(), await opened()];
    expect(await gateway.lookup('minato-gas', page.reference, soon(), known(other))).toMatchObject({
      kind: 'unknown',
    });
    expect(
      await gateway.lookup('minato-gas', page.reference, soon(), { gatewaySessionId: 'cs_test_none' }),
    ).toMatchObject({ kind: 'unknown' });
  });

  test('an answer about the page of another charge opens nothing', async () => {
    const body = {
      id: 'cs_test_1',
      client_reference_id: reference(),
      url: 'https://checkout.stripe.com/c/pay/1',
    };
    stripe.next(/POST/, { status: 200, body: JSON.stringify(body) });
    expect((await gateway.openHostedPage(pageOf(), soon())).kind).toBe('unknown');
  });

  test('refused by Stripe: nothing was opened, the visitor may press again', async () => {
    stripe.next(/POST/, {
      status: 400,
      body: '{"error":{"type":"invalid_request_error","code":"amount_too_small","param":"line_items"}}',
    });
    expect(await gateway.openHostedPage(pageOf(), soon())).toMatchObject({ kind: 'not_executed' });
  });
});

describe('money given back', () => {
  async function paid(): Promise<{ reference: string; chargeId: string }> {
    const request = chargeOf();
    const answer = await gateway.charge(request, soon());
    if (answer.kind !== 'succeeded') throw new Error(answer.kind);
    return { reference: request.reference, chargeId: answer.captured.gatewayChargeId };
  }
  const refundOf = (
    of: { reference: string; chargeId: string | null },
    change: Partial<Parameters<typeof gateway.refund>[0]> = {},
  ) => ({
    account: 'minato-gas',
    reference: reference(),
    chargeReference: of.reference,
    gatewayChargeId: of.chargeId,
    amount: 1_000,
    currency: 'JPY',
    ...change,
  });
  const lookRefund = (request: { reference: string }) =>
    gateway.lookupRefund('minato-gas', request.reference, soon());

  test('once, under a reference of its own, and found by it', async () => {
    const request = refundOf(await paid());
    const given = await gateway.refund(request, soon());
    expect(given).toEqual({
      kind: 'succeeded',
      refunded: {
        gatewayRefundId: expect.stringMatching(/^re_/),
        amount: 1_000,
        currency: 'JPY',
        refundedAt: '2026-12-01T01:00:00.000Z',
      },
    });
    expect(sent(/POST .*refunds/)[0]?.headers['idempotency-key']).toBe(request.reference);
    expect(await gateway.refund(request, soon())).toEqual(given);
    expect(await lookRefund(request)).toEqual(given);
    expect(stripe.account().refunds).toHaveLength(1);
  });

  test('of a charge whose id at Stripe we do not have', async () => {
    const { reference: of } = await paid();
    expect((await gateway.refund(refundOf({ reference: of, chargeId: null }), soon())).kind).toBe(
      'succeeded',
    );
    expect(await gateway.refund(refundOf({ reference: reference(), chargeId: null }), soon())).toMatchObject({
      kind: 'not_executed',
    });
  });

  test('an answer that was lost is unknown, and asked about', async () => {
    const charged = await paid();
    stripe.next(/POST .*refunds/, 'drop_after', 'drop_before');
    const [given, not] = [refundOf(charged), refundOf(charged)];
    expect((await gateway.refund(given, soon())).kind).toBe('unknown');
    expect((await gateway.refund(not, soon())).kind).toBe('unknown');
    expect((await lookRefund(given)).kind).toBe('succeeded');
    expect(await lookRefund(not)).toEqual({ kind: 'not_found' });
  });

  test('more than is left, twice, or of nothing: failed; what is about us: tried again', async () => {
    const charged = await paid();
    expect(await gateway.refund(refundOf(charged, { amount: 5_000 }), soon())).toEqual({
      kind: 'failed',
      code: 'amount_too_large',
    });
    expect((await gateway.refund(refundOf(charged, { amount: 4_980 }), soon())).kind).toBe('succeeded');
    expect(await gateway.refund(refundOf(charged), soon())).toEqual({
      kind: 'failed',
      code: 'charge_already_refunded',
    });
    expect(await gateway.refund(refundOf({ ...charged, chargeId: 'ch_none' }), soon())).toMatchObject({
      kind: 'failed',
      code: 'resource_missing',
    });
    const refused = (status: number, error: object) =>
      stripe.next(/POST/, { status, body: JSON.stringify({ error }) });
    refused(400, { type: 'invalid_request_error', code: 'balance_insufficient' });
    expect((await gateway.refund(refundOf(charged), soon())).kind).toBe('not_executed');
    refused(429, { type: 'invalid_request_error' });
    expect((await gateway.refund(refundOf(charged), soon())).kind).toBe('not_executed');
    refused(500, { type: 'api_error' });
    expect((await gateway.refund(refundOf(charged), soon())).kind).toBe('unknown');
  });

  test('one that waits counts as made until it is known to have failed', async () => {
    const request = refundOf(await paid());
    await gateway.refund(request, soon());
    const [refund] = stripe.account().refunds;
    if (refund === undefined) throw new Error('no refund');
    refund.status = 'pending';
    expect(await lookRefund(request)).toEqual({ kind: 'unknown', why: 'pending' });
    Object.assign(refund, { status: 'failed', failure_reason: 'expired_or_canceled_card' });
    expect(await lookRefund(request)).toEqual({ kind: 'failed', code: 'expired_or_canceled_card' });
  });
});

describe('webhooks', () => {
  const verify = ({ body, signature }: { body: string; signature: string }, on = gateway) =>
    on.verifyWebhook(Buffer.from(body), { 'stripe-signature': signature }, nowMs());
  const charged = async (change: Parameters<typeof chargeOf>[0] = {}): Promise<StripeEvent> => {
    await gateway.charge(chargeOf(change), soon());
    const event = stripe.events.at(-1);
    if (event === undefined) throw new Error('no event');
    return event;
  };

  test('a genuine one names the merchant and the reference', async () => {
    const request = chargeOf();
    await gateway.charge(request, soon());
    const [event] = stripe.events;
    if (event === undefined) throw new Error('no event');
    const hint = {
      eventId: event.id,
      account: 'minato-gas',
      reference: request.reference,
      kind: 'payment_intent.succeeded',
      gatewayAccount: null,
    };
    expect(verify(stripe.signed(event))).toEqual(hint);
    const soonOver = open(stripe.url, { webhookSecrets: ['whsec_old', webhookSecret] });
    expect(verify(stripe.signed(event), soonOver)).toEqual(hint);
    await soonOver.close();
  });

  test('one of a connected account says of which', async () => {
    expect(verify(stripe.signed(await charged({ account: 'connected-gas' })))).toMatchObject({
      account: 'connected-gas',
      gatewayAccount: 'acct_connected',
    });
  });

  test('forged, altered, stale and malformed ones are refused', async () => {
    const event = await charged();
    const good = stripe.signed(event);
    const at = Math.floor(nowMs() / 1000);
    expect(verify(stripe.signed(event, webhookSecret, at - 299))).not.toBeNull();
    expect(verify(stripe.signed(event, webhookSecret, at - 301))).toBeNull();
    expect(verify(stripe.signed(event, webhookSecret, at + 301))).toBeNull();
    expect(verify(stripe.signed(event, 'whsec_another'))).toBeNull();
    expect(verify({ ...good, body: good.body.replace('minato', 'sakura') })).toBeNull();
    expect(verify({ ...good, signature: good.signature.replace('t=1', 't=2') })).toBeNull();
    expect(verify({ ...good, body: ` ${good.body}` })).toBeNull();
    for (const signature of [
      '',
      't=,v1=',
      `t=${at}`,
      `t=${at},v1=`,
      `t=${at},v0=${good.signature.split('v1=')[1]}`,
      'x'.repeat(5_000),
    ]) {
      expect(verify({ ...good, signature }), signature.slice(0, 30)).toBeNull();
    }
    expect(gateway.verifyWebhook(Buffer.from(good.body), {}, nowMs())).toBeNull();
    expect(verify(stripe.signed({ id: 'evt_1' } as StripeEvent))).toBeNull();
  });

  test('of the other mode, or of a payment that is not ours: acknowledged, and nothing more', async () => {
    const event = await charged();
    expect(verify(stripe.signed({ ...event, livemode: true }))).toMatchObject({ reference: null });
    const foreign = { ...event, data: { object: { ...event.data.object, metadata: { order: '12' } } } };
    expect(verify(stripe.signed(foreign))).toMatchObject({ reference: null });
    const live = open(stripe.url, { secretKey: 'rk_live_0123456789' });
    expect(verify(stripe.signed(event), live)).toMatchObject({ reference: null });
    expect(verify(stripe.signed({ ...event, livemode: true }), live)).toMatchObject({
      account: 'minato-gas',
    });
    await live.close();
  });
});

describe('reports', () => {
  const all = async <Line>(lines: AsyncIterable<Line> | null): Promise<Line[]> => {
    const read: Line[] = [];
    for await (const line of lines ?? []) read.push(line);
    return read;
  };
  const report = (date: string) => gateway.settlementReport('minato-gas', date, soon());

  test('a day in Japan, once it is over: charges with fee and tax apart, refunds, chargebacks', async () => {
    const [one, two] = [chargeOf({ amount: 10_000 }), chargeOf({ amount: 333 })];
    await gateway.charge(one, soon());
    await gateway.charge(two, soon());
    stripe.behave('pm_Hana', { decline_code: 'lost_card' }, 'ok');
    await gateway.charge(chargeOf(), soon());
    const [first, second] = stripe.account().charges;
    stripe.refundByHand(first?.id ?? '', 4_000);
    stripe.dispute(second?.id ?? '');
    stripe.chargeFee(77);
    clock.set('2026-12-01T15:00:00Z');
    const next = chargeOf({ amount: 50 });
    await gateway.charge(next, soon());
    expect(await report('2026-12-01')).toBeNull();
    clock.set('2026-12-01T16:00:00Z');
    const lines = (await all<SettlementLine>(await report('2026-12-01'))).map(
      ({ gatewayChargeId: _, ...line }) => line,
    );
    const at = '2026-12-01T01:00:00.000Z';
    expect(lines).toEqual([
      {
        kind: 'chargeback',
        reference: two.reference,
        amount: 333,
        currency: 'JPY',
        fee: 1_500,
        feeTax: 150,
        capturedAt: at,
      },
      { kind: 'refund', reference: null, amount: 4_000, currency: 'JPY', fee: 0, feeTax: 0, capturedAt: at },
      {
        kind: 'charge',
        reference: two.reference,
        amount: 333,
        currency: 'JPY',
        fee: feeOf(333),
        feeTax: feeTaxOf(feeOf(333)),
        capturedAt: at,
      },
      {
        kind: 'charge',
        reference: one.reference,
        amount: 10_000,
        currency: 'JPY',
        fee: 360,
        feeTax: 36,
        capturedAt: at,
      },
    ]);
    clock.set('2026-12-02T16:00:00Z');
    expect((await all<SettlementLine>(await report('2026-12-02'))).map(({ reference: of }) => of)).toEqual([
      next.reference,
    ]);
    expect(await all<SettlementLine>(await report('2026-11-30'))).toEqual([]);
  });

  test('a page of the list that is lost is an error, never a shorter report', async () => {
    for (let more = 0; more < 130; more++) await gateway.charge(chargeOf(), soon());
    clock.set('2026-12-02T16:00:00Z');
    expect(await all<SettlementLine>(await report('2026-12-01'))).toHaveLength(130);
    stripe.next(/starting_after|balance/, 'drop_before');
    await expect(report('2026-12-01').then((lines) => all<SettlementLine>(lines))).rejects.toThrow();
    const [transaction] = stripe.account().transactions;
    if (transaction !== undefined) transaction.source = null;
    await expect(report('2026-12-01').then((lines) => all<SettlementLine>(lines))).rejects.toThrow(
      'is no charge',
    );
  });

  test('a payout is what its lines add up to; what is nobody’s is a line too', async () => {
    const request = chargeOf({ amount: 10_000 });
    await gateway.charge(request, soon());
    stripe.payOut('po_1', '2026-12-04');
    await gateway.charge(chargeOf({ amount: 8_000 }), soon());
    stripe.refundByHand(stripe.account().charges[1]?.id ?? '', 500);
    stripe.chargeFee(77);
    stripe.payOut('po_2', '2026-12-11');
    const listed = await gateway.payouts('minato-gas', '2026-12-04', '2026-12-11', soon());
    expect(listed).toEqual([
      {
        id: 'po_2',
        valueDate: '2026-12-11',
        currency: 'JPY',
        gross: null,
        fee: null,
        feeTax: null,
        net: 8_000 - 288 - 28 - 500 - 77,
      },
      {
        id: 'po_1',
        valueDate: '2026-12-04',
        currency: 'JPY',
        gross: null,
        fee: null,
        feeTax: null,
        net: 10_000 - 360 - 36,
      },
    ]);
    expect(await gateway.payouts('minato-gas', '2026-12-05', '2026-12-10', soon())).toEqual([]);
    const netOf = (lines: PayoutLine[]) =>
      lines.reduce(
        (sum, line) => sum + (line.kind === 'charge' ? line.amount : -line.amount) - line.fee - line.feeTax,
        0,
      );
    for (const { id, net } of listed ?? []) {
      expect(netOf(await all<PayoutLine>(await gateway.payoutLines('minato-gas', id, soon())))).toBe(net);
    }
    const lines = await all<PayoutLine>(await gateway.payoutLines('minato-gas', 'po_1', soon()));
    expect(lines).toEqual([
      {
        gatewayChargeId: expect.stringMatching(/^ch_/),
        reference: request.reference,
        kind: 'charge',
        amount: 10_000,
        fee: 360,
        feeTax: 36,
        currency: 'JPY',
      },
    ]);
  });

  test('every capture of a time, whatever we know of it', async () => {
    const request = chargeOf();
    await gateway.charge(request, soon());
    stripe.refundByHand(stripe.account().charges[0]?.id ?? '', 100);
    clock.advance(1_000);
    await gateway.charge(chargeOf(), soon());
    expect(
      await all(gateway.listCharges('minato-gas', '2026-12-01T00:00:00Z', '2026-12-01T01:00:01Z', soon())),
    ).toEqual([
      {
        gatewayChargeId: expect.stringMatching(/^ch_/),
        reference: request.reference,
        invoiceId: 'INVOICE-1',
        amount: 4_980,
        currency: 'JPY',
        refunded: 100,
        method: 'card',
        capturedAt: '2026-12-01T01:00:00.000Z',
      },
    ]);
  });
});

describe('the page that keeps a card and takes no money', () => {
  // Ids never go back: after all that was made before.
  beforeEach(() => clock.set('2026-12-20T01:00:00Z'));

  const setupOf = () => ({
    account: 'minato-gas',
    reference: reference(),
    currency: 'JPY',
    returnUrl: 'https://pay.example.test/c/abc',
    language: 'en' as const,
    merchantName: 'Minato Gas',
    expiresAt: clock.now().add({ minutes: 30 }).toString({ smallestUnit: 'millisecond' }),
  });
  async function opened() {
    const request = setupOf();
    const answer = await gateway.openSetupPage(request, soon());
    if (answer.kind !== 'opened') throw new Error(answer.why);
    return { request, reference: request.reference, id: answer.gatewaySessionId };
  }

  test('is Checkout in mode setup, with a customer for the card and our reference; sent again, it is the same', async () => {
    const page = await opened();
    const [seen] = sent(/^POST .*sessions$/);
    const kept = {
      seikyu_reference: page.reference,
      seikyu_merchant: 'minato-gas',
      seikyu_made: 'setup',
    };
    expect(seen?.headers['idempotency-key']).toBe(page.reference);
    expect(seen?.params).toEqual({
      mode: 'setup',
      locale: 'en',
      allowed_payment_method_types: { 0: 'card' },
      wallet_options: { link: { display: 'never' } },
      client_reference_id: page.reference,
      customer_creation: 'always',
      success_url: 'https://pay.example.test/c/abc',
      cancel_url: 'https://pay.example.test/c/abc',
      expires_at: String(nowMs() / 1000 + 31 * 60 + 30),
      metadata: kept,
      setup_intent_data: { metadata: kept },
    });
    expect(await gateway.openSetupPage(page.request, soon())).toMatchObject({ gatewaySessionId: page.id });
    expect(stripe.account().sessions).toHaveLength(1);
  });

  test.each([true, false])(
    'open, declined, kept and charged; known by its id or not: %s',
    async (isKnown) => {
      const page = await opened();
      const known = isKnown ? { gatewaySessionId: page.id } : undefined;
      const ask = () => gateway.lookupSetup('minato-gas', page.reference, soon(), known);
      expect(await ask()).toEqual({ kind: 'pending' });
      stripe.payOnPage(page.id, { decline_code: 'lost_card' });
      expect(await ask()).toEqual({ kind: 'pending' });
      expect(stripe.payOnPage(page.id)).toBe('https://pay.example.test/c/abc');
      const answer = await ask();
      expect(answer).toEqual({
        kind: 'succeeded',
        savedMethod: {
          token: expect.stringMatching(/^cus_C\d+:pm_\d+$/),
          brand: 'visa',
          lastFour: '4242',
          expires: '2031-04',
          networkTransactionId: null,
          threeDsEci: '05',
        },
      });
      expect(stripe.account().charges).toEqual([]);
      const token = answer.kind === 'succeeded' ? answer.savedMethod.token : '';
      expect((await gateway.charge(chargeOf({ methodToken: token }), soon())).kind).toBe('succeeded');
      expect(await gateway.closeSetupPage('minato-gas', page.reference, soon(), known)).toEqual(answer);
    },
  );

  test('closed by us, or past its end, it keeps no card; a decline before that is what is told', async () => {
    const close = (ofReference: string) => gateway.closeSetupPage('minato-gas', ofReference, soon());
    const page = await opened();
    expect(await close(page.reference)).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'page_expired' },
    });
    expect(() => stripe.payOnPage(page.id)).toThrow('expired');
    const declined = await opened();
    stripe.payOnPage(declined.id, { decline_code: 'lost_card' });
    clock.advance(32 * 60_000);
    expect(await gateway.lookupSetup('minato-gas', declined.reference, soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'lost_card', network: 'visa' },
    });
    expect(await close(reference())).toEqual({ kind: 'not_found' });
  });

  test('no answer is no outcome', async () => {
    const page = await opened();
    stripe.next(/^GET .*sessions/, 'drop_after');
    expect((await gateway.lookupSetup('minato-gas', page.reference, soon())).kind).toBe('unknown');
    stripe.next(/^POST .*sessions$/, 'drop_after');
    expect((await gateway.openSetupPage(setupOf(), soon())).kind).toBe('unknown');
    stripe.next(/^POST .*sessions$/, { status: 429, body: '{"error":{"type":"invalid_request_error"}}' });
    expect((await gateway.openSetupPage(setupOf(), soon())).kind).toBe('not_executed');
  });

  test('a webhook names it by our reference', async () => {
    const page = await opened();
    stripe.payOnPage(page.id);
    const hints = stripe.events.map((event) => {
      const { body, signature } = stripe.signed(event);
      return gateway.verifyWebhook(Buffer.from(body), { 'stripe-signature': signature }, nowMs());
    });
    expect(hints).toMatchObject([
      { kind: 'setup_intent.succeeded', account: 'minato-gas', reference: page.reference },
      { kind: 'checkout.session.completed', account: 'minato-gas', reference: page.reference },
    ]);
  });
});
