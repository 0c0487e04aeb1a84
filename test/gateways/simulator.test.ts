import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type {
  ChargeAnswer,
  ListedCharge,
  LookupAnswer,
  PayoutLine,
  SettlementLine,
  WebhookHint,
} from '../../billing/gateways/gateway.ts';
import { simulatorGateway } from '../../billing/gateways/simulator.ts';
import { TEST_CARDS, type TestCard } from '../../cli/demo/gateway-simulator/cards.ts';
import { type GatewaySimulator, startGatewaySimulator } from '../../cli/demo/gateway-simulator/server.ts';
import { type TestDatabase, testDatabase } from '../database.ts';

const SECRET = 'a secret for this test only';
const ACCOUNT = 'tepid-water';
const START = Date.parse('2026-04-10T03:00:00Z');
const HOUR = 3_600_000;

let nowMs = START;
let simulator: GatewaySimulator;
let gateway: ReturnType<typeof simulatorGateway>;
let truth: pg.Pool;
let database: TestDatabase;
let listener: Server;
let made = 0;

/** Webhooks as they came in, raw, and who waits for the next of a reference. */
const received: { body: Buffer; signature: string }[] = [];
let onReceived: (() => void) | null = null;
let refuseDeliveries = 0;

const reference = (): string => `REF${String(++made).padStart(23, '0')}`;
const soon = () => AbortSignal.timeout(10_000);
const shortly = () => AbortSignal.timeout(400);

beforeAll(async () => {
  database = await testDatabase();
  listener = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      if (refuseDeliveries > 0) {
        refuseDeliveries -= 1;
        response.writeHead(500).end();
        return;
      }
      received.push({
        body: Buffer.concat(parts),
        signature: String(request.headers['simulator-signature']),
      });
      response.writeHead(200).end();
      onReceived?.();
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;

  simulator = await startGatewaySimulator({
    databaseUrl: database.url,
    secret: SECRET,
    now: () => nowMs,
    holdMs: 1_000,
    webhookUrl: `http://127.0.0.1:${port}/webhooks/simulator/{account}`,
  });
  gateway = simulatorGateway({ baseUrl: simulator.url, apiKey: SECRET, webhookSecret: SECRET });
  truth = new pg.Pool({ connectionString: database.url, max: 2 });
});

afterAll(async () => {
  await gateway?.close();
  await simulator?.close();
  await truth?.end();
  await database?.drop();
  listener?.closeAllConnections();
  listener?.close();
});

async function control(path: string, body: object): Promise<Record<string, never>> {
  const response = await fetch(`${simulator.url}${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${SECRET}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, never>;
}

async function savedMethod(card: string): Promise<string> {
  const answer = (await control('/control/saved-methods', {
    account: ACCOUNT,
    cards: [card],
  })) as unknown as {
    methods: { token: string }[];
  };
  return answer.methods[0]?.token ?? '';
}

const chargeOf = (methodToken: string, change: { reference?: string; amount?: number } = {}) => ({
  account: ACCOUNT,
  reference: change.reference ?? reference(),
  invoiceId: 'INVOICE-1',
  amount: change.amount ?? 4_980,
  currency: 'JPY',
  methodToken,
  networkTransactionId: null,
});

async function captures(ofReference: string): Promise<number> {
  const { rows } = await truth.query<{ count: number }>(
    `select count(*)::int as count from gateway_simulator.charges
     where account = $1 and reference = $2 and state = 'succeeded'`,
    [ACCOUNT, ofReference],
  );
  return rows[0]?.count ?? 0;
}

async function openPage(
  change: {
    method?: 'card' | 'wallet';
    saveMethod?: boolean;
    language?: 'ja' | 'en';
    expiresInMs?: number;
  } = {},
) {
  const ofReference = reference();
  const opened = await gateway.openHostedPage(
    {
      account: ACCOUNT,
      reference: ofReference,
      invoiceId: 'INVOICE-2',
      amount: 7_315,
      currency: 'JPY',
      returnUrl: 'http://pay.example.test/return/abc',
      language: change.language ?? 'en',
      merchantName: 'Tepid <Water> & Co.',
      method: change.method ?? 'card',
      saveMethod: change.saveMethod ?? false,
      expiresAt: new Date(nowMs + (change.expiresInMs ?? HOUR)).toISOString(),
    },
    soon(),
  );
  if (opened.kind !== 'opened') throw new Error(`not opened: ${opened.why}`);
  return { reference: ofReference, url: opened.url };
}

const pan = (name: string): string => TEST_CARDS.find((card) => card.name === name)?.pan ?? '';
const post = (url: string, form: Record<string, string>) =>
  fetch(url, { method: 'POST', body: new URLSearchParams(form), redirect: 'manual' });
const typeCard = (url: string, number: string) => post(url, { number, expires: '12/30', cvc: '123' });
const lookup = (ofReference: string): Promise<LookupAnswer> => gateway.lookup(ACCOUNT, ofReference, soon());

/** Resolves when `count` webhooks of the reference have come in; the listener wakes it, nothing polls. */
async function webhooksOf(
  ofReference: string,
  count: number,
): Promise<{ body: Buffer; signature: string }[]> {
  const ofThis = () =>
    received.filter(({ body }) => JSON.parse(body.toString('utf8')).reference === ofReference);
  while (ofThis().length < count) {
    await new Promise<void>((resolve) => {
      onReceived = resolve;
    });
  }
  return ofThis();
}

describe('the table of test cards', () => {
  test('names and numbers are unique and every number passes the check digit', () => {
    expect(new Set(TEST_CARDS.map((card) => card.pan)).size).toBe(TEST_CARDS.length);
    expect(new Set(TEST_CARDS.map((card) => card.name)).size).toBe(TEST_CARDS.length);
    for (const { pan: digits } of TEST_CARDS) {
      const sum = [...digits].reverse().reduce((total, digit, place) => {
        const value = Number(digit) * (place % 2 === 0 ? 1 : 2);
        return total + (value > 9 ? value - 9 : value);
      }, 0);
      expect(sum % 10, digits).toBe(0);
    }
  });
});

describe('a saved card charged without its holder', () => {
  const undisturbed = TEST_CARDS.filter(
    (card): card is TestCard & { offSession: NonNullable<TestCard['offSession']> } =>
      card.offSession !== null && card.offSession.kind !== 'disturbed',
  );
  test.each(undisturbed)('$name behaves as the table says', async (card) => {
    const token = await savedMethod(card.name);
    const plan = card.offSession;
    const declinedCalls = plan.kind !== 'declines' ? 0 : plan.calls === 'every' ? 3 : plan.calls.first;
    for (let call = 1; call <= Math.min(declinedCalls + 1, 3); call++) {
      const request = chargeOf(token);
      const answer = await gateway.charge(request, soon());
      if (call <= declinedCalls && plan.kind === 'declines') {
        expect(answer).toMatchObject({ kind: 'failed', codes: { network: card.brand, ...plan.codes } });
        expect(await captures(request.reference)).toBe(0);
      } else {
        expect(answer).toMatchObject({
          kind: 'succeeded',
          captured: {
            amount: 4_980,
            currency: 'JPY',
            method: 'card',
            capturedAt: '2026-04-10T03:00:00.000Z',
          },
        });
        expect(await captures(request.reference)).toBe(1);
      }
      expect(await lookup(request.reference)).toEqual(answer);
    }
  });

  test('the answer is lost before the effect: nothing happened, and the next attempt gets through', async () => {
    const token = await savedMethod('timeout-before-effect');
    const request = chargeOf(token);
    expect((await gateway.charge(request, shortly())).kind).toBe('unknown');
    expect(await lookup(request.reference)).toEqual({ kind: 'not_found' });
    expect((await gateway.charge(request, soon())).kind).toBe('succeeded');
  });

  test('the answer is lost after the effect: the lookup finds the money, the replayed key takes none again', async () => {
    const request = chargeOf(await savedMethod('timeout-after-effect'));
    expect((await gateway.charge(request, shortly())).kind).toBe('unknown');
    const found = await lookup(request.reference);
    expect(found.kind).toBe('succeeded');
    expect(await gateway.charge(request, soon())).toEqual(found);
    expect(await captures(request.reference)).toBe(1);
  });

  test('the line is dropped by the gateway: unknown, never a failure', async () => {
    const request = chargeOf(await savedMethod('timeout-after-effect'));
    expect((await gateway.charge(request, soon())).kind).toBe('unknown');
    expect(await captures(request.reference)).toBe(1);
  });

  test.each([
    { card: 'error-before-effect', captured: 0, found: 'not_found' },
    { card: 'error-after-effect', captured: 1, found: 'succeeded' },
  ])('$card: a stored 500 is replayed for ever, only the lookup tells', async ({ card, captured, found }) => {
    const request = chargeOf(await savedMethod(card));
    for (let call = 0; call < 3; call++) {
      expect(await gateway.charge(request, soon())).toMatchObject({
        kind: 'unknown',
        why: '500 internal_error',
      });
    }
    expect((await lookup(request.reference)).kind).toBe(found);
    expect(await captures(request.reference)).toBe(captured);
  });

  test('429 stands before the key: not executed, and the same reference goes through', async () => {
    const request = chargeOf(await savedMethod('rate-limited'));
    expect(await gateway.charge(request, soon())).toEqual({
      kind: 'not_executed',
      why: '429 rate_limited',
      retryAfterMs: 1_000,
      tooFast: true,
    });
    expect((await gateway.charge(request, soon())).kind).toBe('succeeded');
  });

  test('an unknown token fails with a code of its own', async () => {
    expect(await gateway.charge(chargeOf('tok_nobody'), soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'payment_method_not_found' },
    });
  });
});

describe('idempotency', () => {
  test('twenty at once with one key are one capture and one answer', async () => {
    const request = chargeOf(await savedMethod('visa'));
    const answers = await Promise.all(Array.from({ length: 20 }, () => gateway.charge(request, soon())));
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]?.kind).toBe('succeeded');
    expect(await captures(request.reference)).toBe(1);
  });

  test('a decline is replayed too, even by a card that would succeed now', async () => {
    const token = await savedMethod('later-insufficient-funds-once');
    const request = chargeOf(token);
    const first = await gateway.charge(request, soon());
    expect(first.kind).toBe('failed');
    expect(await gateway.charge(request, soon())).toEqual(first);
    expect((await gateway.charge(chargeOf(token), soon())).kind).toBe('succeeded');
  });

  test('the key with another amount is refused, and the adapter calls it unknown', async () => {
    const request = chargeOf(await savedMethod('visa'));
    await gateway.charge(request, soon());
    expect(await gateway.charge({ ...request, amount: 1 }, soon())).toEqual({
      kind: 'unknown',
      why: '409 idempotency_key_reused',
    });
    expect(await captures(request.reference)).toBe(1);
  });

  test('after 24 hours the key is forgotten, but the reference is still captured once at most', async () => {
    const paid = chargeOf(await savedMethod('visa'));
    const declined = chargeOf(await savedMethod('later-insufficient-funds-once'));
    await gateway.charge(paid, soon());
    await gateway.charge(declined, soon());
    nowMs += 25 * HOUR;
    try {
      expect(await gateway.charge(paid, soon())).toEqual({
        kind: 'unknown',
        why: '409 reference_already_captured',
      });
      expect(await captures(paid.reference)).toBe(1);
      // This is why nobody may replay after the key's lifetime: the same request now takes money.
      expect((await gateway.charge(declined, soon())).kind).toBe('succeeded');
    } finally {
      nowMs = START;
    }
  });
});

describe('what the adapter makes of trouble', () => {
  test('nobody listens: not executed', async () => {
    const closed = createServer();
    closed.listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as AddressInfo;
    closed.close();
    await once(closed, 'close');
    const nobody = simulatorGateway({
      baseUrl: `http://127.0.0.1:${port}`,
      apiKey: SECRET,
      webhookSecret: SECRET,
    });
    expect(await nobody.charge(chargeOf('tok'), soon())).toMatchObject({
      kind: 'not_executed',
      why: 'ECONNREFUSED',
    });
    expect(await nobody.lookup(ACCOUNT, 'X', soon())).toMatchObject({ kind: 'unknown' });
    await nobody.close();
  });

  test.each<{ what: string; status: number; body: string; expected: ChargeAnswer['kind'] }>([
    { what: 'not JSON', status: 200, body: '<html>', expected: 'unknown' },
    { what: 'an empty success', status: 200, body: '{}', expected: 'unknown' },
    { what: 'a bare 402', status: 402, body: '{}', expected: 'unknown' },
    { what: 'a bare 503', status: 503, body: '', expected: 'unknown' },
    { what: 'a bare 400', status: 400, body: '', expected: 'unknown' },
    { what: 'a bare 429', status: 429, body: '', expected: 'not_executed' },
    {
      what: 'a 503 that says so',
      status: 503,
      body: '{"error":{"code":"x","executed":false}}',
      expected: 'not_executed',
    },
    { what: 'an endless answer', status: 200, body: ' '.repeat(100_000), expected: 'unknown' },
    {
      what: 'a success for another reference',
      status: 200,
      body: '{"state":"succeeded","id":"ch","account":"tepid-water","reference":"OTHER","amount":1,"currency":"JPY","method":"card","captured_at":"2026-04-10T03:00:00Z","saved_method":null}',
      expected: 'unknown',
    },
    {
      what: 'a success with 402',
      status: 402,
      body: '{"state":"succeeded","id":"ch","account":"tepid-water","reference":"MINE","amount":1,"currency":"JPY","method":"card","captured_at":"2026-04-10T03:00:00Z","saved_method":null}',
      expected: 'unknown',
    },
  ])('$what is $expected', async ({ status, body, expected }) => {
    const odd = createServer((request, response) => {
      request.resume();
      request.on('end', () => response.writeHead(status).end(body));
    });
    odd.listen(0, '127.0.0.1');
    await once(odd, 'listening');
    const { port } = odd.address() as AddressInfo;
    const client = simulatorGateway({
      baseUrl: `http://127.0.0.1:${port}`,
      apiKey: SECRET,
      webhookSecret: SECRET,
    });
    expect((await client.charge(chargeOf('tok', { reference: 'MINE' }), soon())).kind).toBe(expected);
    await client.close();
    odd.closeAllConnections();
    odd.close();
  });

  test('a deadline that is over before the call: nothing is sent', async () => {
    const request = chargeOf(await savedMethod('visa'));
    expect((await gateway.charge(request, AbortSignal.abort())).kind).toBe('not_executed');
    expect(await lookup(request.reference)).toEqual({ kind: 'not_found' });
  });

  test('an outage and a rate limit are certainly without effect; a wrong key too', async () => {
    const request = chargeOf(await savedMethod('visa'));
    await control('/control', { outage: true });
    expect(await gateway.charge(request, soon())).toMatchObject({ kind: 'not_executed', why: '503 outage' });
    expect(await lookup(request.reference)).toMatchObject({ kind: 'unknown' });
    await control('/control', { outage: false, rateLimitPerSecond: 0 });
    expect(await gateway.charge(request, soon())).toMatchObject({
      kind: 'not_executed',
      retryAfterMs: 1_000,
    });
    await control('/control', { rateLimitPerSecond: null });
    const stranger = simulatorGateway({ baseUrl: simulator.url, apiKey: 'guess', webhookSecret: SECRET });
    expect(await stranger.charge(request, soon())).toMatchObject({
      kind: 'not_executed',
      why: '401 wrong_key',
    });
    await stranger.close();
    expect(await lookup(request.reference)).toEqual({ kind: 'not_found' });
  });
});

describe('the hosted page', () => {
  test('pays, saves the card, shows no card number again, and the saved card can be charged', async () => {
    const page = await openPage({ saveMethod: true, language: 'ja' });
    expect(await lookup(page.reference)).toEqual({ kind: 'pending' });

    const shown = await fetch(page.url);
    const html = await shown.text();
    expect(html).toContain('Tepid &lt;Water> &amp; Co.');
    expect(html).toMatch(/[\u00a5\uffe5]7,315/);
    expect(html).not.toContain('<script');
    expect(shown.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(shown.headers.get('content-security-policy')).toContain(
      "form-action 'self' http://pay.example.test",
    );
    expect(shown.headers.get('cache-control')).toBe('no-store');

    const paid = await typeCard(page.url, '4242 4242 4242 4242');
    expect(paid.status).toBe(303);
    expect(paid.headers.get('location')).toBe('http://pay.example.test/return/abc');
    const found = await lookup(page.reference);
    expect(found).toMatchObject({
      kind: 'succeeded',
      captured: {
        amount: 7_315,
        savedMethod: { brand: 'visa', lastFour: '4242', expires: '2030-12', threeDsEci: '05' },
      },
    });
    const saved = found.kind === 'succeeded' ? found.captured.savedMethod : null;
    expect((await gateway.charge(chargeOf(saved?.token ?? ''), soon())).kind).toBe('succeeded');

    expect(await (await fetch(page.url)).text()).toContain('お支払いは完了しています');
    const { rows } = await truth.query<{ everything: string }>(
      `select string_agg(to_jsonb(t)::text, '') as everything
       from (select to_jsonb(c) from gateway_simulator.charges c
             union all select to_jsonb(s) from gateway_simulator.saved_cards s
             union all select to_jsonb(p) from gateway_simulator.hosted_pages p) t`,
    );
    for (const card of TEST_CARDS) expect(rows[0]?.everything).not.toContain(card.pan);
  });

  test('the same request opens the same page; the reference for another amount opens none', async () => {
    const request = {
      account: ACCOUNT,
      reference: reference(),
      invoiceId: 'INVOICE-3',
      amount: 100,
      currency: 'JPY',
      returnUrl: 'https://pay.example.test/r',
      language: 'en' as const,
      merchantName: 'Gas',
      method: 'card' as const,
      saveMethod: false,
      expiresAt: new Date(nowMs + HOUR).toISOString(),
    };
    const first = await gateway.openHostedPage(request, soon());
    expect(await gateway.openHostedPage(request, soon())).toEqual(first);
    expect(await gateway.openHostedPage({ ...request, amount: 1 }, soon())).toEqual({
      kind: 'unknown',
      why: '409 reference_reused',
    });
  });

  test('a page for a card alone keeps it and takes no money; closed or declined it keeps none', async () => {
    const request = () => ({
      account: ACCOUNT,
      reference: reference(),
      currency: 'JPY',
      returnUrl: 'http://pay.example.test/return/abc',
      language: 'en' as const,
      merchantName: 'Gas',
      expiresAt: new Date(nowMs + HOUR).toISOString(),
    });
    const open = async (wanted = request()) => {
      const opened = await gateway.openSetupPage(wanted, soon());
      if (opened.kind !== 'opened') throw new Error(opened.why);
      return { ...wanted, url: opened.url };
    };
    const ask = (of: string) => gateway.lookupSetup(ACCOUNT, of, soon());
    const wanted = request();
    const page = await open(wanted);
    expect((await open(wanted)).url).toBe(page.url);
    expect(await gateway.openSetupPage({ ...wanted, merchantName: 'Water' }, soon())).toMatchObject({
      kind: 'unknown',
    });
    expect(await ask(page.reference)).toEqual({ kind: 'pending' });
    await typeCard(page.url, pan('lost'));
    expect(await (await fetch(page.url)).text()).toContain('data-code="lost_card"');
    expect(await ask(page.reference)).toEqual({ kind: 'pending' });
    const ends = await Promise.all(Array.from({ length: 5 }, () => typeCard(page.url, pan('jcb'))));
    expect(new Set(ends.map((answer) => answer.headers.get('location')))).toEqual(
      new Set(['http://pay.example.test/return/abc']),
    );
    const kept = await ask(page.reference);
    expect(kept).toMatchObject({ kind: 'succeeded', savedMethod: { brand: 'jcb', expires: '2030-12' } });
    expect(await gateway.closeSetupPage(ACCOUNT, page.reference, soon())).toEqual(kept);
    expect(await captures(page.reference)).toBe(0);
    const token = kept.kind === 'succeeded' ? kept.savedMethod.token : '';
    expect((await gateway.charge(chargeOf(token), soon())).kind).toBe('succeeded');

    const other = await open();
    const challenged = await typeCard(other.url, pan('visa-challenge'));
    await post(new URL(challenged.headers.get('location') ?? '', other.url).href, { result: 'fail' });
    expect(await gateway.closeSetupPage(ACCOUNT, other.reference, soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'authentication_failed', network: 'visa' },
    });
    expect((await typeCard(other.url, pan('jcb'))).status).toBe(410);
    expect(await ask(reference())).toEqual({ kind: 'not_found' });
  });

  const declining = TEST_CARDS.filter((card) => card.onPage.kind === 'declines');
  test.each(declining)('$name declines, and another card pays on the same page', async (card) => {
    const page = await openPage();
    const declined = await typeCard(page.url, card.pan);
    expect(declined.status).toBe(303);
    expect(new URL(declined.headers.get('location') ?? '', page.url).href).toBe(page.url);
    const html = await (await fetch(page.url)).text();
    expect(html).toContain('role="alert"');
    expect(html).not.toContain(card.pan);
    expect(await lookup(page.reference)).toEqual({ kind: 'pending' });
    expect((await typeCard(page.url, pan('mastercard'))).headers.get('location')).toContain('/return/abc');
    expect(await lookup(page.reference)).toMatchObject({
      kind: 'succeeded',
      captured: { savedMethod: null },
    });
    expect(await captures(page.reference)).toBe(1);
  });

  test.each([
    { number: '4111111111111111', expires: '12/30', cvc: '123' },
    { number: '4242424242424242', expires: '03/26', cvc: '123' },
    { number: '4242424242424242', expires: '13/30', cvc: '123' },
    { number: '4242424242424242', expires: '12/30', cvc: 'x' },
    {},
  ])('a wrong form takes no money: %o', async (form) => {
    const page = await openPage();
    const refused = await post(page.url, form as Record<string, string>);
    expect(refused.status).toBe(422);
    const html = await refused.text();
    expect(html).toContain('role="alert"');
    expect(html).not.toContain('4111111111111111');
    expect(await captures(page.reference)).toBe(0);
  });

  test('twenty pays at once are one capture, and all are sent back', async () => {
    const page = await openPage({ saveMethod: true });
    const answers = await Promise.all(Array.from({ length: 20 }, () => typeCard(page.url, pan('jcb'))));
    expect(new Set(answers.map((answer) => answer.headers.get('location')))).toEqual(
      new Set(['http://pay.example.test/return/abc']),
    );
    expect(await captures(page.reference)).toBe(1);
  });

  test('3-D Secure: failed, tried again, passed; the old challenge is worth nothing', async () => {
    const page = await openPage({ saveMethod: true });
    const challenge = async () => {
      const sent = await typeCard(page.url, pan('visa-challenge'));
      return new URL(sent.headers.get('location') ?? '', page.url).href;
    };
    const first = await challenge();
    expect(await (await fetch(first)).text()).toContain('3184');
    expect(await lookup(page.reference)).toEqual({ kind: 'pending' });
    const failed = await post(first, { result: 'fail' });
    expect(new URL(failed.headers.get('location') ?? '', page.url).href).toBe(page.url);
    expect(await (await fetch(page.url)).text()).toContain('data-code="authentication_failed"');

    const second = await challenge();
    expect((await post(first, { result: 'succeed' })).status).toBe(404);
    expect(await captures(page.reference)).toBe(0);
    const passed = await Promise.all(Array.from({ length: 5 }, () => post(second, { result: 'succeed' })));
    expect(passed.every((each) => each.headers.get('location')?.endsWith('/return/abc'))).toBe(true);
    expect(await lookup(page.reference)).toMatchObject({
      kind: 'succeeded',
      captured: { savedMethod: { lastFour: '3184', threeDsEci: '05' } },
    });
    expect(await captures(page.reference)).toBe(1);
  });

  test('closed by us: the customer can pay no more, and the answer is conclusive', async () => {
    const page = await openPage();
    expect(await gateway.closeHostedPage(ACCOUNT, page.reference, soon())).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'page_closed' },
    });
    expect((await typeCard(page.url, pan('visa'))).status).toBe(410);
    expect(await captures(page.reference)).toBe(0);
  });

  test('closing races paying: either the money is there and told, or it never comes', async () => {
    for (let round = 0; round < 10; round++) {
      const page = await openPage();
      const [closed] = await Promise.all([
        gateway.closeHostedPage(ACCOUNT, page.reference, soon()),
        typeCard(page.url, pan('visa')),
      ]);
      expect(await captures(page.reference)).toBe(closed.kind === 'succeeded' ? 1 : 0);
    }
  });

  test('closed after it was paid: succeeded; closing what never was: not found', async () => {
    const page = await openPage();
    await typeCard(page.url, pan('visa'));
    expect((await gateway.closeHostedPage(ACCOUNT, page.reference, soon())).kind).toBe('succeeded');
    expect(await gateway.closeHostedPage(ACCOUNT, reference(), soon())).toEqual({ kind: 'not_found' });
  });

  test('cancelled by the customer: back to the merchant, and no way to pay is left', async () => {
    const page = await openPage();
    const cancelled = await post(`${page.url}/cancel`, {});
    expect(cancelled.headers.get('location')).toBe('http://pay.example.test/return/abc');
    expect(await lookup(page.reference)).toMatchObject({
      kind: 'failed',
      codes: { gatewayCode: 'page_cancelled' },
    });
    expect((await typeCard(page.url, pan('visa'))).status).toBe(410);
  });

  test('past its end the page takes nothing, not even a challenge begun before', async () => {
    const page = await openPage({ expiresInMs: HOUR });
    const sent = await typeCard(page.url, pan('visa-challenge'));
    const challenge = new URL(sent.headers.get('location') ?? '', page.url).href;
    nowMs += HOUR;
    try {
      expect((await post(challenge, { result: 'succeed' })).status).toBe(410);
      expect((await typeCard(page.url, pan('visa'))).status).toBe(410);
      expect(await lookup(page.reference)).toMatchObject({
        kind: 'failed',
        codes: { gatewayCode: 'page_expired' },
      });
      expect(await captures(page.reference)).toBe(0);
    } finally {
      nowMs = START;
    }
  });

  test('a guessed page is not there', async () => {
    expect((await fetch(`${simulator.url}/pay/guess`)).status).toBe(404);
    expect((await fetch(`${simulator.url}/v1/charges?account=${ACCOUNT}`)).status).toBe(401);
    expect((await fetch(`${simulator.url}/control`)).status).toBe(401);
  });
});

describe('webhooks', () => {
  const verify = (body: Buffer, signature: string, atMs = nowMs): WebhookHint | null =>
    gateway.verifyWebhook(body, { 'simulator-signature': signature }, atMs);

  test('a charge is told with a signature that fits; refused deliveries come again', async () => {
    refuseDeliveries = 1;
    const request = chargeOf(await savedMethod('visa'));
    await gateway.charge(request, soon());
    const [hook] = await webhooksOf(request.reference, 1);
    if (hook === undefined) throw new Error('no webhook');
    expect(verify(hook.body, hook.signature)).toMatchObject({
      account: ACCOUNT,
      reference: request.reference,
      kind: 'charge.succeeded',
    });
  });

  test('forged, altered, stale and malformed ones are refused', () => {
    const body = Buffer.from('{"id":"evt","account":"a","reference":"r","kind":"charge.succeeded"}');
    const seconds = Math.floor(nowMs / 1000);
    const sign = (secret: string, over: Buffer, at: number) =>
      `t=${at},v1=${createHmac('sha256', secret).update(`${at}.`).update(over).digest('hex')}`;
    const good = sign(SECRET, body, seconds);
    expect(verify(body, good)).toEqual({
      eventId: 'evt',
      account: 'a',
      reference: 'r',
      kind: 'charge.succeeded',
    });
    expect(verify(body, `${good},v1=00`)).not.toBeNull();
    expect(verify(body, good, nowMs + 299_000)).not.toBeNull();

    expect(verify(body, sign('another secret', body, seconds))).toBeNull();
    expect(verify(Buffer.from(body.toString().replace('"r"', '"x"')), good)).toBeNull();
    expect(verify(body, good.replace(`t=${seconds}`, `t=${seconds + 1}`))).toBeNull();
    expect(verify(body, good, nowMs + 301_000)).toBeNull();
    expect(verify(body, good, nowMs - 301_000)).toBeNull();
    for (const header of [
      '',
      't=,v1=',
      `t=${seconds}`,
      `t=${seconds},v1=`,
      `t=${seconds},v1=zz`,
      'x'.repeat(5_000),
    ]) {
      expect(verify(body, header), header.slice(0, 40)).toBeNull();
    }
    expect(gateway.verifyWebhook(body, {}, nowMs)).toBeNull();
    const noJson = Buffer.from('not json');
    expect(verify(noJson, sign(SECRET, noJson, seconds))).toBeNull();
  });

  test('twice, or never, when the control says so', async () => {
    await control('/control', { webhooks: { mode: 'duplicate' } });
    const twice = chargeOf(await savedMethod('visa'));
    await gateway.charge(twice, soon());
    const both = await webhooksOf(twice.reference, 2);
    expect(new Set(both.map(({ body }) => verify(body, both[0]?.signature ?? '')?.eventId)).size).toBe(1);

    await control('/control', { webhooks: { mode: 'never' } });
    const never = chargeOf(await savedMethod('visa'));
    await gateway.charge(never, soon());
    await control('/control', { webhooks: { mode: 'normal' } });
    const { rows } = await truth.query(
      'select settled, due_at from gateway_simulator.webhooks where reference = $1',
      [never.reference],
    );
    expect(rows).toEqual([{ settled: 'suppressed', due_at: null }]);
  });
});

describe('the settlement report', () => {
  test('exists once its day is over in Japan, and ties to the captures line by line', async () => {
    const account = 'report-gas';
    const tokens = (
      (await control('/control/saved-methods', {
        account,
        cards: ['visa', 'later-lost', 'timeout-after-effect', 'visa'],
      })) as unknown as { methods: { token: string }[] }
    ).methods.map((method) => method.token);
    const requests = tokens.map((token, index) => ({
      ...chargeOf(token, { amount: 1_000 + index }),
      account,
    }));
    for (const request of requests.slice(0, 3)) await gateway.charge(request, shortly());
    // 2026-04-10 ends in Japan at 15:00 UTC: this one belongs to the next day.
    nowMs = Date.parse('2026-04-10T15:00:00Z');
    try {
      await gateway.charge(requests[3] as (typeof requests)[number], soon());
      expect(await gateway.settlementReport(account, '2026-04-11', soon())).toBeNull();
      const report = await gateway.settlementReport(account, '2026-04-10', soon());
      const lines: SettlementLine[] = [];
      for await (const line of report ?? []) lines.push(line);
      expect(
        lines.map(({ reference: of, amount, fee, feeTax, kind }) => ({ of, amount, fee, feeTax, kind })),
      ).toEqual([
        { of: requests[0]?.reference, amount: 1_000, fee: 32, feeTax: 3, kind: 'charge' },
        { of: requests[2]?.reference, amount: 1_002, fee: 32, feeTax: 3, kind: 'charge' },
      ]);
      const empty = await gateway.settlementReport('nobody', '2026-04-10', soon());
      for await (const line of empty ?? []) throw new Error(`a line for nobody: ${line.gatewayChargeId}`);
    } finally {
      nowMs = START;
    }
    nowMs = START;
    expect(await gateway.settlementReport(account, '2026-04-10', soon())).toBeNull();
    await expect(gateway.settlementReport(account, '2026-02-30x', soon())).rejects.toThrow('400');
  });

  test.each([
    { what: 'cut off', text: '' },
    { what: 'an end that does not tie', text: '{"kind":"end","count":2,"amount":1}\n' },
    { what: 'a malformed line', text: '{"kind":"charge"}\n' },
  ])('$what is an error, not a shorter report', async ({ text }) => {
    const line =
      '{"kind":"charge","id":"ch","reference":"r","amount":1,"currency":"JPY","fee":0,"fee_tax":0,"captured_at":"2026-04-10T03:00:00Z"}\n';
    const odd = createServer((_request, response) => response.end(line + text));
    odd.listen(0, '127.0.0.1');
    await once(odd, 'listening');
    const { port } = odd.address() as AddressInfo;
    const client = simulatorGateway({
      baseUrl: `http://127.0.0.1:${port}`,
      apiKey: SECRET,
      webhookSecret: SECRET,
    });
    const report = await client.settlementReport(ACCOUNT, '2026-04-10', soon());
    const read = async () => {
      for await (const each of report ?? []) expect(each.amount).toBe(1);
    };
    await expect(read()).rejects.toThrow('settlement report');
    await client.close();
    odd.closeAllConnections();
    odd.close();
  });
});

describe('payouts', () => {
  test('are a week of captures less their fees, two bank days after its Sunday; their lines add up', async () => {
    const account = 'payout-gas';
    const { methods } = (await control('/control/saved-methods', {
      account,
      cards: ['visa', 'jcb', 'later-lost', 'visa'],
    })) as unknown as { methods: { token: string }[] };
    const requests = methods.map(({ token }, index) => ({
      ...chargeOf(token, { amount: 1_234 + index }),
      account,
    }));
    for (const request of requests.slice(0, 3)) await gateway.charge(request, soon());
    try {
      // Sunday the 12th ends in Japan at 15:00 UTC: this one is of the next week.
      nowMs = Date.parse('2026-04-12T15:00:00Z');
      await gateway.charge(requests[3] as (typeof requests)[number], soon());
      expect(await gateway.payouts(account, '2026-04-01', '2026-04-30', soon())).toEqual([]);
      nowMs = Date.parse('2026-04-14T15:00:00Z');
      const [payout, ...others] = (await gateway.payouts(account, '2026-04-15', '2026-04-15', soon())) ?? [];
      expect(payout).toEqual({
        id: 'po_20260412_JPY',
        valueDate: '2026-04-15',
        currency: 'JPY',
        gross: 2_469,
        fee: 80,
        feeTax: 8,
        net: 2_381,
      });
      expect(others).toEqual([]);
      const lines: PayoutLine[] = [];
      for await (const line of await gateway.payoutLines(account, 'po_20260412_JPY', soon()))
        lines.push(line);
      expect(lines).toMatchObject([
        {
          reference: requests[0]?.reference,
          kind: 'charge',
          amount: 1_234,
          fee: 40,
          feeTax: 4,
          currency: 'JPY',
        },
        {
          reference: requests[1]?.reference,
          kind: 'charge',
          amount: 1_235,
          fee: 40,
          feeTax: 4,
          currency: 'JPY',
        },
      ]);
      await expect(gateway.payoutLines(account, 'po_20260413_JPY', soon())).rejects.toThrow('404');
    } finally {
      nowMs = START;
    }
  });

  test.each([
    { what: 'cut off', text: '' },
    { what: 'an end that does not tie', text: '{"kind":"end","count":2,"amount":1}\n' },
    { what: 'a malformed line', text: '{"kind":"charge"}\n' },
  ])('$what is an error, not a shorter payout', async ({ text }) => {
    const line =
      '{"kind":"charge","id":"ch","reference":"r","amount":1,"currency":"JPY","fee":0,"fee_tax":0}\n';
    const odd = createServer((_request, response) => response.end(line + text));
    odd.listen(0, '127.0.0.1');
    await once(odd, 'listening');
    const { port } = odd.address() as AddressInfo;
    const client = simulatorGateway({
      baseUrl: `http://127.0.0.1:${port}`,
      apiKey: SECRET,
      webhookSecret: SECRET,
    });
    const lines = await client.payoutLines(ACCOUNT, 'po_1', soon());
    const read = async () => {
      for await (const each of lines) expect(each.amount).toBe(1);
    };
    await expect(read()).rejects.toThrow('payout');
    await expect(client.payouts(ACCOUNT, '2026-04-01', '2026-04-30', soon())).rejects.toThrow('malformed');
    await client.close();
    odd.closeAllConnections();
    odd.close();
  });
});

test('the full list is read in keyset pages and holds every capture once', async () => {
  const account = 'listed-power';
  const { methods } = (await control('/control/saved-methods', {
    account,
    cards: ['visa', 'jcb', 'later-closed'],
  })) as unknown as { methods: { token: string }[] };
  const requests = methods.map(({ token }) => ({ ...chargeOf(token), account }));
  for (const request of requests) await gateway.charge(request, soon());
  const listed: { reference: string; state: string }[] = [];
  let after: number | null = 0;
  while (after !== null) {
    const response: Response = await fetch(
      `${simulator.url}/v1/charges?account=${account}&after=${after}&limit=2`,
      { headers: { authorization: `Bearer ${SECRET}` } },
    );
    const page = (await response.json()) as { charges: typeof listed; next: number | null };
    listed.push(...page.charges);
    after = page.next;
  }
  expect(listed.map(({ reference: of, state }) => ({ of, state }))).toEqual([
    { of: requests[0]?.reference, state: 'succeeded' },
    { of: requests[1]?.reference, state: 'succeeded' },
    { of: requests[2]?.reference, state: 'failed' },
  ]);
});

test('the list of captures names the bill of each, holds [from, until) and nothing of another account', async () => {
  const account = 'restored-power';
  const { methods } = (await control('/control/saved-methods', {
    account,
    cards: ['visa', 'jcb', 'later-closed'],
  })) as unknown as { methods: { token: string }[] };
  const started = nowMs;
  const requests = methods.map(({ token }, index) => ({
    ...chargeOf(token),
    account,
    invoiceId: `INVOICE-${index}`,
  }));
  for (const request of requests) {
    await gateway.charge(request, soon());
    nowMs += 1_000;
  }
  const list = async (fromMs: number, untilMs: number) => {
    const [from, until] = [new Date(fromMs).toISOString(), new Date(untilMs).toISOString()];
    const listed: ListedCharge[] = [];
    for await (const charge of gateway.listCharges(account, from, until, soon())) listed.push(charge);
    return listed;
  };
  // The third card is closed: no money, so not in the list.
  expect(await list(started, nowMs)).toEqual(
    requests.slice(0, 2).map(({ reference: of, invoiceId, amount }, index) => ({
      gatewayChargeId: expect.any(String),
      reference: of,
      invoiceId,
      amount,
      currency: 'JPY',
      refunded: 0,
      method: 'card',
      capturedAt: new Date(started + index * 1_000).toISOString(),
    })),
  );
  expect(await list(started, started + 1_000)).toHaveLength(1);
  expect(await list(started + 1, nowMs)).toHaveLength(1);
  nowMs = started;
  await control('/control', { outage: true });
  await expect(list(started, started + 1_000)).rejects.toThrow('list of charges refused: 503');
  await control('/control', { outage: false });
});

test('as a process of its own it lives on the virtual clock, keeps its truth and goes with its parent', async () => {
  const request = chargeOf(await savedMethod('visa'));
  const before = await gateway.charge(request, soon());
  await database.db.run(
    `insert into virtual_clock (id, virtual_now) values (1, '2027-01-05T09:00:00Z')
     on conflict (id) do update set virtual_now = excluded.virtual_now, ticking_since = null`,
  );
  const main = fileURLToPath(new URL('../../cli/demo/gateway-simulator/main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', main], {
    env: {
      PATH: process.env.PATH,
      SIMULATOR_DATABASE_URL: database.url,
      SIMULATOR_CLOCK_URL: database.webUrl,
      SIMULATOR_SECRET: SECRET,
    },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const { listening } = JSON.parse(line.toString('utf8')) as { listening: number };
  const distant = simulatorGateway({
    baseUrl: `http://127.0.0.1:${listening}`,
    apiKey: SECRET,
    webhookSecret: SECRET,
  });
  expect(await distant.lookup(ACCOUNT, request.reference, soon())).toEqual(before);
  expect(await distant.charge(chargeOf(await savedMethod('visa')), soon())).toMatchObject({
    kind: 'succeeded',
    captured: { capturedAt: '2027-01-05T09:00:00.000Z' },
  });
  await distant.close();
  child.stdin.end();
  expect((await exited)[0]).toBe(0);
});

test('the updater tells what became of saved cards, the same each time it is asked', async () => {
  const tokens = await Promise.all(['later-expired', 'later-closed', 'visa'].map(savedMethod));
  const question = { account: ACCOUNT, reference: reference(), tokens: [...tokens, 'tok_of_nobody'] };
  await control('/control', { cardUpdatesUnanswered: 1 });
  expect(await gateway.refreshCards(question, shortly())).toMatchObject({ kind: 'unknown' });
  const answer = await gateway.refreshCards(question, soon());
  expect(answer).toMatchObject({
    kind: 'answered',
    news: [
      { kind: 'replaced', method: { brand: 'visa', lastFour: '4242', expires: '2044-12' } },
      { kind: 'closed', code: 'account_closed' },
      { kind: 'unknown' },
      { kind: 'unknown' },
    ],
  });
  expect(await gateway.refreshCards({ ...question, reference: reference() }, soon())).toEqual(answer);
  const [first] = answer.kind === 'answered' ? answer.news : [];
  if (first?.kind !== 'replaced') throw new Error('a new token was expected');
  expect(await gateway.charge(chargeOf(first.method.token), soon())).toMatchObject({ kind: 'succeeded' });
  expect(await gateway.charge(chargeOf(tokens[0] ?? ''), soon())).toMatchObject({ kind: 'failed' });
  await control('/control', { outage: true });
  expect(await gateway.refreshCards(question, soon())).toMatchObject({ kind: 'not_executed' });
  await control('/control', { outage: false });
});
