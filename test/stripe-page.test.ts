import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { FixedClock } from '../billing/clock.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import type { Ports } from '../jobs/ports.ts';
import { trace } from '../jobs/trace.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import type { StripeEvent } from './stand-ins/stripe.ts';
import {
  lifeOf as lifeIn,
  merchantAt,
  openStripeOffice,
  runToday,
  type StripeOffice,
} from './stripe-office.ts';
import { visitor } from './visitor.ts';
import { type World, webOf, world } from './world.ts';

const minute = 60_000;

let here: World;
let clock: FixedClock;
let office: StripeOffice;
let stripe: StripeOffice['stripe'];
let ports: Ports;

beforeAll(async () => {
  here = await world();
  clock = here.clock;
  office = await openStripeOffice(here.db, clock);
  ({ stripe } = office);
  ports = { ...office.ports, sealer: here.sealer, ids: here.ids };
});
afterEach(() => expect(stripe.faults).toEqual([]));
afterAll(async () => {
  await office?.close();
  await here?.drop();
});

const run = (merchant: Merchant, job: unknown) => runToday(ports, merchant, job);
const at = (account: string) => merchantAt(ports, account);
const lifeOf = (merchant: Merchant, number: string) => lifeIn(here.db, merchant, number);

describe('a customer pays on Stripe’s page', () => {
  let web: WebServer;
  beforeAll(async () => {
    web = await webOf(here, { ports: { ...ports, log: here.log }, gatewayOrigins: [stripe.url] });
  });
  afterAll(() => web?.close());

  test('from the link to the receipt, with the card kept for the next bills', async () => {
    const gas = await here.merchant('minato-gas', (settings) => ({
      ...settings,
      gateway: { fee: null, stripeAccount: 'acct_gas' },
    }));
    const bill = await here.bill(gas);
    const person = visitor();
    const asked = await person.open(web.url + paths.link.of(bill.token));
    const checked = await person.post(`${asked.visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    expect(checked.status).toBe(303);
    const pressed = await person.post(`${asked.visitUrl}/pay`, { enrol: 'yes' });
    expect(pressed.status).toBe(303);
    const shown = await person.get(asked.visitUrl);
    expect(shown.headers.get('content-security-policy')).toContain(`form-action 'self' ${stripe.url}`);
    const [session] = stripe.account('acct_gas').sessions;
    expect(pressed.location).toBe(session?.url);
    // Pressed again, it is the same page.
    expect((await person.post(`${asked.visitUrl}/pay`, { enrol: 'yes' })).location).toBe(session?.url);

    const back = await person.get(stripe.payOnPage(session?.id ?? ''));
    expect(back.status).toBe(200);
    expect(await lifeOf(gas, bill.billingNumber)).toEqual({
      invoice: 'paid',
      charges: ['succeeded'],
      locks: 0,
      payments: bill.amount,
    });
    const [method] = await here.db.query<{
      id: string;
      sealed_token: Buffer;
      gateway: string;
      last_four: string;
    }>(`select id, sealed_token, gateway, last_four from payment_methods where merchant_id = $1`, [gas.id]);
    expect(method).toMatchObject({ gateway: 'stripe', last_four: '4242' });
    expect(here.sealer.open('method', method?.sealed_token ?? Buffer.alloc(0), method?.id ?? '')).toMatch(
      /^cus_\w+:pm_\w+$/,
    );
  });

  test('by the webhook alone; forged, repeated, foreign and misdirected ones change nothing', async () => {
    const gas = await merchantByCode(here.db, 'minato-gas');
    const water = await at('acct_water');
    const bill = await here.bill(gas);
    const person = visitor();
    const asked = await person.open(web.url + paths.link.of(bill.token));
    await person.post(`${asked.visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    await person.post(`${asked.visitUrl}/pay`, {});
    const session = stripe.account('acct_gas').sessions.at(-1);
    const told = stripe.events.length;
    stripe.payOnPage(session?.id ?? '');
    const events = stripe.events.slice(told);
    expect(events.map(({ type }) => type)).toEqual([
      'payment_intent.succeeded',
      'checkout.session.completed',
    ]);
    const post = async (event: StripeEvent, to = 'minato-gas', secret?: string) => {
      const { body, signature } = stripe.signed(event, secret);
      const answer = await fetch(web.url + paths.webhook.of('stripe', to), {
        method: 'POST',
        headers: { 'content-type': 'application/json; charset=utf-8', 'stripe-signature': signature },
        body,
      });
      await web.settled();
      return answer.status;
    };
    const [first, second] = events as [StripeEvent, StripeEvent];
    expect(await post(second, 'minato-gas', 'whsec_forged')).toBe(400);
    expect(await post(second, water.code)).toBe(400);
    expect(await post({ ...second, account: 'acct_water' })).toBe(400);
    const { account: _, ...ofOurOwn } = second;
    expect(await post(ofOurOwn)).toBe(400);
    expect(await post({ ...second, livemode: true })).toBe(200);
    expect(await post({ ...second, data: { object: { metadata: {} } } })).toBe(200);
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({
      invoice: 'open',
      charges: ['requires_action'],
    });
    const stored = () =>
      here.db.query(`select event_id from webhook_events where merchant_id = $1`, [gas.id]);
    expect(await stored()).toEqual([]);

    // The later one first, then all of them twice.
    expect(await post(second)).toBe(200);
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({ invoice: 'paid', payments: bill.amount });
    for (const event of [first, second, first, second]) expect(await post(event, '_')).toBe(200);
    expect(await stored()).toHaveLength(2);
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({
      charges: ['succeeded'],
      payments: bill.amount,
    });
  });

  test('a page that nobody pays is closed by trace, and the bill may be paid again', async () => {
    const gas = await merchantByCode(here.db, 'minato-gas');
    const bill = await here.bill(gas);
    const person = visitor();
    const asked = await person.open(web.url + paths.link.of(bill.token));
    await person.post(`${asked.visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    await person.post(`${asked.visitUrl}/pay`, {});
    const session = stripe.account('acct_gas').sessions.at(-1);
    clock.advance(31 * minute + 1);
    expect(session?.status).toBe('open');
    await run(gas, trace);
    expect(session?.status).toBe('expired');
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({
      invoice: 'open',
      charges: ['failed'],
      locks: 0,
    });
    expect((await person.post(`${asked.visitUrl}/pay`, {})).location).toContain('/c/pay/');
  });

  test('an answer that was lost: nobody pays twice, trace closes the page that nobody saw', async () => {
    const gas = await merchantByCode(here.db, 'minato-gas');
    const bill = await here.bill(gas);
    const person = visitor();
    const asked = await person.open(web.url + paths.link.of(bill.token));
    await person.post(`${asked.visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    stripe.next(/POST .*sessions$/, 'drop_after');
    await person.post(`${asked.visitUrl}/pay`, {});
    const sessions = stripe.account('acct_gas').sessions.length;
    await person.post(`${asked.visitUrl}/pay`, {});
    expect(stripe.account('acct_gas').sessions).toHaveLength(sessions);
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({ charges: ['unknown'], locks: 1 });
    clock.advance(2 * minute);
    await run(gas, trace);
    expect(await lifeOf(gas, bill.billingNumber)).toMatchObject({ charges: ['failed'], locks: 0 });
    expect(stripe.account('acct_gas').sessions.at(-1)?.status).toBe('expired');
  });
});
