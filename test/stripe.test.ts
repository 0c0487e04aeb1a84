import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import { idBehind, referenceOf } from '../billing/ids.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode, stripeAccountOf } from '../billing/merchants/queries.ts';
import { handleWebhooks } from '../billing/webhooks/handle.ts';
import { receiveWebhook } from '../billing/webhooks/receive.ts';
import { readSettings } from '../cli/settings.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import type { Ports } from '../jobs/ports.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { expectInvariants, makeBills } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import type { Behaviour, StripeEvent } from './stand-ins/stripe.ts';
import {
  lifeOf as lifeIn,
  merchantAt,
  openStripeOffice,
  runToday,
  type StripeOffice,
  secretKey,
  webhookSecret,
} from './stripe-office.ts';

const minute = 60_000;
const hour = 60 * minute;

let here: TestDatabase;
let clock: FixedClock;
let office: StripeOffice;
let stripe: StripeOffice['stripe'];
let ports: Ports;

beforeAll(async () => {
  here = await testDatabase();
  clock = fixedClock('2026-11-26T01:00:00Z');
  office = await openStripeOffice(here.db, clock);
  ({ stripe } = office);
  ports = office.ports;
});
afterEach(() => expect(stripe.faults).toEqual([]));
afterAll(async () => {
  await office?.close();
  await here?.drop();
});

const run = (merchant: Merchant, job: unknown) => runToday(ports, merchant, job);
const at = (account: string) => merchantAt(ports, account);
const lifeOf = (merchant: Merchant, number: string) => lifeIn(here.db, merchant, number);

/** As the web's route does. */
async function receive(event: StripeEvent, change: { to?: string; secret?: string } = {}): Promise<string> {
  const { body, signature } = stripe.signed(event, change.secret);
  const received = await receiveWebhook(here.webDb, ports, {
    gateway: 'stripe',
    merchantCode: change.to ?? '_',
    rawBody: Buffer.from(body),
    headers: { 'stripe-signature': signature },
  });
  if (received.kind === 'stored' && received.event !== null) {
    await handleWebhooks(here.webDb, ports, received.merchant, [received.event]);
  }
  return received.kind;
}

describe('cards charged without their holders', () => {
  test('each way it can go ends where it must', async () => {
    const power = await at('acct_power');
    const ways: [string, Behaviour][] = [
      ['fine', 'ok'],
      ['poor', { decline_code: 'insufficient_funds', network_decline_code: '51' }],
      ['lost', { decline_code: 'lost_card' }],
      ['proof', { code: 'authentication_required', decline_code: 'authentication_required' }],
      ['tomorrow', { decline_code: 'code_of_tomorrow' }],
      ['dropped', 'drop_after'],
      ['broken', 'error_after'],
      ['nothing', 'error_before'],
      ['other', 'another_amount'],
    ];
    for (const [name, behaviour] of ways) stripe.behave(`pm_${name}`, behaviour);
    await makeBills(
      ports,
      power,
      ways.map(([name], index) => ({ number: name, amount: 1_000 + index, card: `cus_${name}:pm_${name}` })),
    );
    await run(power, charge);
    const states = async () =>
      Object.fromEntries(
        await Promise.all(
          ways.map(async ([name]) => {
            const { invoice, charges } = await lifeOf(power, name);
            return [name, `${invoice} ${charges}`];
          }),
        ),
      );
    const decided = {
      fine: 'paid succeeded',
      poor: 'open failed',
      lost: 'open failed',
      proof: 'open failed',
      tomorrow: 'parked failed',
      other: 'open unknown',
    };
    expect(await states()).toEqual({
      ...decided,
      dropped: 'open unknown',
      broken: 'open unknown',
      nothing: 'open unknown',
    });
    clock.advance(2 * minute);
    await run(power, trace);
    // Absence proves nothing so soon.
    expect(await states()).toEqual({
      ...decided,
      dropped: 'paid succeeded',
      broken: 'paid succeeded',
      nothing: 'open unknown',
    });
    clock.advance(15 * minute);
    await run(power, trace);
    expect(await states()).toMatchObject({ nothing: 'open canceled', other: 'open unknown' });
    const verdicts = await here.db.query(
      `select i.billing_number, c.gateway_code, c.verdict from charges c
       join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
       where c.merchant_id = $1 and c.state = 'failed' order by i.billing_number`,
      [power.id],
    );
    expect(verdicts).toEqual([
      { billing_number: 'lost', gateway_code: 'lost_card', verdict: 'never_this_method' },
      { billing_number: 'poor', gateway_code: 'insufficient_funds', verdict: 'retry_at' },
      { billing_number: 'proof', gateway_code: 'authentication_required', verdict: 'needs_customer' },
      { billing_number: 'tomorrow', gateway_code: 'code_of_tomorrow', verdict: 'no_rule' },
    ]);
    await expectInvariants(here.db);
  });

  test('report and payout are read as they stand, booked, and differ only where Stripe does', async () => {
    const metro = await at('acct_metro');
    await makeBills(
      ports,
      metro,
      ['one', 'two'].map((name) => ({ number: name, amount: 10_000, card: `cus_${name}:pm_${name}` })),
    );
    await run(metro, charge);
    clock.advance(24 * hour);
    expect(await run(metro, reconcile)).toMatchObject({
      counts: { stored: expect.any(Number), lines: 2, matched: 2 },
    });
    stripe.payOut('po_metro', '2026-11-27', 'acct_metro');
    clock.advance(hour);
    expect(await run(metro, reconcile)).toMatchObject({ counts: { payouts_posted: 1 } });
    const payouts = await here.db.query(
      `select payout_id, gross, fee, fee_tax, net, state from payouts where merchant_id = $1`,
      [metro.id],
    );
    expect(payouts).toEqual([
      { payout_id: 'po_metro', gross: 20_000, fee: 720, fee_tax: 72, net: 19_208, state: 'posted' },
    ]);
    expect((await run(metro, reconcile)).counts.payouts_changed).toBeUndefined();

    // A payment that is nobody's here, and a fee that belongs to no charge: told, and the payout waits for a person.
    await makeBills(ports, metro, [{ number: 'three', amount: 3_000, card: 'cus_three:pm_three' }]);
    await run(metro, charge);
    stripe.chargeFee(500, 'acct_metro');
    stripe.payOut('po_fee', '2026-11-28', 'acct_metro');
    clock.advance(24 * hour);
    expect(await run(metro, reconcile)).toMatchObject({ counts: { payouts_withheld: 1 } });
    await expectInvariants(here.db);
  });

  test('an account in use stays, and no two merchants share one', async () => {
    const power = await merchantByCode(here.db, 'power');
    const moved = { ...power.settings, gateway: { fee: null, stripeAccount: 'acct_elsewhere' } };
    await expect(applyMerchant(ports, moved, 'test')).rejects.toMatchObject({
      code: 'MERCHANT_ACCOUNT_IN_USE',
    });
    await applyMerchant(ports, power.settings, 'test');
    expect(await stripeAccountOf(here.db, 'power')).toBe('acct_power');
    const fresh = await at('acct_fresh');
    const copied = { ...fresh.settings, gateway: { fee: null, stripeAccount: 'acct_power' } };
    await applyMerchant(ports, copied, 'test');
    await expect(stripeAccountOf(here.db, 'power')).rejects.toMatchObject({ code: 'GATEWAY_ACCOUNT_SHARED' });
    await expect(stripeAccountOf(here.db, 'fresh')).rejects.toMatchObject({ code: 'GATEWAY_ACCOUNT_SHARED' });
    await expect(stripeAccountOf(here.db, 'nobody')).rejects.toMatchObject({ code: 'MERCHANT_UNKNOWN' });
    await applyMerchant(ports, fresh.settings, 'test');
    expect(await stripeAccountOf(here.db, 'fresh')).toBe('acct_fresh');
  });
});

describe('settings of the environment', () => {
  const home = { SEIKYU_HOME: join(tmpdir(), 'seikyu-of-nobody') };
  const keys = { STRIPE_SECRET_KEY: secretKey, STRIPE_WEBHOOK_SECRET: `${webhookSecret}, whsec_next` };
  const read = (environment: Record<string, string>) =>
    readSettings({ environment: { ...home, ...environment } });

  test('both keys, or the simulator', () => {
    expect(read({}).stripe).toBeUndefined();
    // Keys alone move no money.
    expect(read(keys).stripe).toBeUndefined();
    expect(read({ SEIKYU_GATEWAY: 'stripe', ...keys }).stripe).toEqual({
      secretKey,
      webhookSecrets: [webhookSecret, 'whsec_next'],
      baseUrl: undefined,
    });
    expect(
      read({ SEIKYU_GATEWAY: 'stripe', ...keys, STRIPE_BASE_URL: 'http://127.0.0.1:12111' }).stripe,
    ).toMatchObject({
      baseUrl: 'http://127.0.0.1:12111',
    });
  });

  test.each([
    [{ SEIKYU_GATEWAY: 'stripe' }, 'STRIPE_SECRET_KEY is missing'],
    [{ SEIKYU_GATEWAY: 'stripe', STRIPE_SECRET_KEY: secretKey }, 'STRIPE_WEBHOOK_SECRET is missing'],
    [
      { ...keys, SEIKYU_GATEWAY: 'stripe', STRIPE_SECRET_KEY: 'pk_live_published' },
      'STRIPE_SECRET_KEY is no secret key',
    ],
    [
      { ...keys, SEIKYU_GATEWAY: 'stripe', STRIPE_WEBHOOK_SECRET: 'hunter2' },
      'STRIPE_WEBHOOK_SECRET is no signing secret',
    ],
    [
      { ...keys, SEIKYU_GATEWAY: 'stripe', STRIPE_BASE_URL: 'http://elsewhere.example' },
      'STRIPE_BASE_URL is no address',
    ],
    [{ SEIKYU_GATEWAY: 'paypal' }, 'SEIKYU_GATEWAY is not known'],
  ])('refused: %o', (environment, reason) => {
    const refused = () => read(environment as Record<string, string>);
    expect(refused).toThrow(reason);
    // What was written there may be a secret in the wrong place.
    expect(refused).not.toThrow(/hunter2|published/);
  });
});

describe('whatever goes wrong', () => {
  const behaviour = fc.constantFrom<Behaviour>(
    'ok',
    'drop_before',
    'drop_after',
    'error_before',
    'error_after',
    'rate_limited',
    'lock_timeout',
    'processing',
    { decline_code: 'insufficient_funds' },
    { decline_code: 'lost_card' },
  );
  const step = fc.oneof(
    fc
      .constantFrom('charge', 'trace', 'dunning', 'reconcile', 'webhooks', 'webhooks_backwards', 'finish')
      .map((what) => ({ what, minutes: 0 })),
    fc.constantFrom(1, 15, 90, 25 * 60).map((minutes) => ({ what: 'wait', minutes })),
    fc.constantFrom('get_drops', 'get_500', 'get_429', 'search_lags').map((what) => ({ what, minutes: 0 })),
  );
  let made = 0;

  test('what Stripe took is what is booked, once a bill', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(behaviour, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 }),
        fc.array(step, { maxLength: 12 }),
        async (cards, steps) => {
          made += 1;
          const account = `acct_run${made}`;
          const merchant = await at(account);
          const books = stripe.account(account);
          const number = (index: number) => `R${made}-${index}`;
          const bills = await makeBills(
            ports,
            merchant,
            cards.map((behaviours, index) => {
              stripe.behave(`pm_R${made}c${index}`, ...behaviours);
              return {
                number: number(index),
                amount: 100 + index,
                card: `cus_R${made}:pm_R${made}c${index}`,
              };
            }),
          );
          let told = stripe.events.length;
          const tell = async (backwards: boolean) => {
            const events = stripe.events.slice(told);
            told = stripe.events.length;
            for (const event of backwards ? [...events, ...events].reverse() : events) {
              expect(await receive(event)).toBe('stored');
            }
          };
          const finish = () => {
            for (const [index, intent] of books.intents.entries()) {
              if (intent.status === 'processing') stripe.finish(intent.id, index % 2 === 0, account);
            }
          };
          for (const { what, minutes } of steps) {
            if (what === 'charge') await run(merchant, charge);
            else if (what === 'trace') await run(merchant, trace);
            else if (what === 'dunning') await run(merchant, dunning);
            else if (what === 'reconcile') await run(merchant, reconcile);
            else if (what === 'webhooks') await tell(false);
            else if (what === 'webhooks_backwards') await tell(true);
            else if (what === 'finish') finish();
            else if (what === 'wait') clock.advance(minutes * minute);
            else if (what === 'get_drops') stripe.next(/GET/, 'drop_before', 'drop_after');
            else if (what === 'get_500') stripe.next(/GET/, { status: 500, body: '{}' });
            else if (what === 'get_429') stripe.next(/GET/, { status: 429, body: '{}' });
            else stripe.searchLagMs = hour;
          }
          // In the end all is well again, and whoever must be asked is asked.
          stripe.calm();
          finish();
          await run(merchant, charge);
          for (let round = 0; round < 4; round++) {
            finish();
            clock.advance(70 * minute);
            await run(merchant, trace);
          }
          clock.advance(25 * hour);
          await run(merchant, reconcile);

          let captured = 0;
          for (const [index, id] of [...bills.values()].entries()) {
            const life = await lifeOf(merchant, number(index));
            const references = (
              await here.db.query<{ id: string }>(
                `select id from charges where merchant_id = $1 and invoice_id = $2`,
                [merchant.id, id],
              )
            ).map((row) => referenceOf(row.id));
            const taken = references.reduce((sum, each) => sum + stripe.capturesOf(each, account), 0);
            captured += taken;
            expect(taken).toBeLessThanOrEqual(1);
            expect(life.payments).toBe(taken * (100 + index));
            expect(life.invoice === 'paid').toBe(taken === 1);
            expect(life.locks).toBe(0);
          }
          // Nothing was taken under a reference that nobody here knows.
          const all = books.charges.filter((each) => each.status === 'succeeded');
          expect(all).toHaveLength(captured);
          expect(
            all.every(
              (each) => idBehind((each.metadata as { seikyu_reference: string }).seikyu_reference) !== null,
            ),
          ).toBe(true);
          expect(
            await here.db.query(`select kind from findings where merchant_id = $1 and state = 'open'`, [
              merchant.id,
            ]),
          ).toEqual([]);
        },
      ),
      { numRuns: Number(process.env.STRIPE_RUNS ?? 15) },
    );
    await expectInvariants(here.db);
  });
});
