import { afterAll, beforeAll, expect, test } from 'vitest';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { referenceOf } from '../billing/ids.ts';
import { type Bills, billsOf, expectInvariants, liveUntil } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

/** Two customers over three months. One pays by link and enrols; the other's card never has funds. */
let database: TestDatabase;
let world: Bills;

beforeAll(async () => {
  database = await testDatabase();
  world = await billsOf(database.db);
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});

const rows = <Row>(sql: string) => database.db.query<Row>(sql, [world.merchant.id]);
const messagesOf = async (number: string) =>
  (
    await rows<{ number: string; step: string }>(
      `select i.billing_number as number, m.step from messages m
       join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
       where m.merchant_id = $1 order by m.planned_on, m.step`,
    )
  )
    .filter((row) => row.number === number)
    .map((row) => row.step);

/** Opens the bill's link, ticks automatic payment, pays on the gateway's page and comes back. */
async function payAndEnrol(invoiceId: string, cardToken: string): Promise<void> {
  const { ports, merchant } = world;
  const [link] = await rows<{ version: number }>(
    `select max(version) as version from links where merchant_id = $1 and dead_reason is null`,
  );
  const started = await startCheckout(database.db, ports, {
    link: { merchantId: merchant.id, invoiceId, version: link?.version ?? 0 },
    method: 'card',
    enrol: true,
    language: 'ja',
    returnUrlOf: (chargeId) => `https://pay.invalid/return/${chargeId}`,
  });
  expect(started.kind).toBe('redirect');
  const [open] = await rows<{ charge_id: string }>(
    `select charge_id from collection_locks where merchant_id = $1`,
  );
  const chargeId = open?.charge_id ?? '';
  world.gateway.customerPays(referenceOf(chargeId), cardToken);
  await learnFromGateway(database.db, ports, merchant, [chargeId], 'return');
}

test('the life of two customers', async () => {
  const bills = await world.make([
    { number: 'HANA-12', customer: 'HANA', collection: 'link', dueOn: '2026-12-25', amount: 7_200 },
    { number: 'TARO-12', customer: 'TARO', card: 'tok_taro', dueOn: '2026-12-03', amount: 4_800 },
  ]);
  world.gateway.behave('tok_taro', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
  await liveUntil(world, '2026-12-05');
  expect(await messagesOf('HANA-12')).toEqual(['first_notice']);

  await payAndEnrol(bills.get('HANA-12') ?? '', 'tok_hana');
  expect(await world.stateOf('HANA-12')).toBe('paid');
  expect(
    await rows(`select what, method from enrolment_rows where merchant_id = $1 order by occurred_at`),
  ).toEqual([{ what: 'enrolled', method: 'card' }]);

  // January: she is charged and gets no message; he is on automatic payment still.
  await liveUntil(world, '2027-01-04');
  expect(await world.stateOf('TARO-12')).toBe('unpaid');
  await world.make([{ number: 'HANA-01', customer: 'HANA', card: null, dueOn: '2027-01-25', amount: 6_900 }]);
  await liveUntil(world, '2027-01-25');
  expect(await world.stateOf('HANA-01')).toBe('paid');
  expect(await messagesOf('HANA-01')).toEqual([]);

  expect(await messagesOf('TARO-12')).toEqual(['failure:1', 'failure:2', 'failure:3', 'fallback_link']);
  expect(
    await rows(
      `select i.billing_number, r.outcome, r.reason, r.method, r.amount, r.amount_received, r.collected_on
       from result_rows r join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
       where r.merchant_id = $1 order by i.billing_number`,
    ),
  ).toEqual([
    {
      billing_number: 'HANA-01',
      outcome: 'paid',
      reason: '',
      method: 'card',
      amount: 6_900,
      amount_received: 6_900,
      collected_on: '2027-01-25',
    },
    {
      billing_number: 'HANA-12',
      outcome: 'paid',
      reason: '',
      method: 'card',
      amount: 7_200,
      amount_received: 7_200,
      collected_on: '2026-12-05',
    },
    {
      billing_number: 'TARO-12',
      outcome: 'unpaid',
      reason: 'dunning_ended',
      method: '',
      amount: 4_800,
      amount_received: 0,
      collected_on: null,
    },
  ]);
  // The gateway's own books: two captures, one for each paid bill, and not one for him.
  expect(world.gateway.captured.map((capture) => capture.amount)).toEqual([7_200, 6_900]);
  await expectInvariants(database.db);
});
