import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { type Bills, billsOf, expectInvariants, liveUntil, moneyState } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});
beforeEach(async () => {
  world?.close();
  merchants += 1;
  world = await billsOf(database.db, { code: `gas-${merchants}` });
});

afterEach(() => expectInvariants(database.db));

const rows = <Row>(sql: string) => database.db.query<Row>(sql, [world.merchant.id]);
const steps = async (number: string) =>
  (
    await rows<{ number: string; step: string; planned_on: string }>(
      `select i.billing_number as number, m.step, m.planned_on from messages m
       join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
       where m.merchant_id = $1 order by m.planned_on, m.step`,
    )
  )
    .filter((row) => row.number === number)
    .map((row) => `${row.planned_on} ${row.step}`);
const attempts = async (number: string) =>
  (
    await rows<{ number: string; business_date: string; state: string }>(
      `select i.billing_number as number, c.business_date, c.state from charges c
       join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
       where c.merchant_id = $1 order by c.attempt_no`,
    )
  )
    .filter((row) => row.number === number)
    .map((row) => `${row.business_date} ${row.state}`);
const agenda = async (number: string) =>
  (
    await rows<{ number: string; act: string; act_on: string }>(
      `select i.billing_number as number, a.act, a.act_on from agenda a
       join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id where a.merchant_id = $1`,
    )
  )
    .filter((row) => row.number === number)
    .map((row) => `${row.act_on} ${row.act}`)[0];

describe('the dunning job', () => {
  test('a card without funds is tried four times, then a link is offered, then the bill goes back', async () => {
    await world.make([{ number: 'A', amount: 8_000 }]);
    world.gateway.behave('tok_A', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
    await liveUntil(world, '2027-01-05');
    // Debit date 2026-12-01, +3bd, +10bd, next payday (25th) after the attempt before.
    expect(await attempts('A')).toEqual([
      '2026-12-01 failed',
      '2026-12-04 failed',
      '2026-12-15 failed',
      '2026-12-25 failed',
    ]);
    expect(await steps('A')).toEqual([
      '2026-12-01 failure:1',
      '2026-12-04 failure:2',
      '2026-12-15 failure:3',
      '2026-12-25 fallback_link',
    ]);
    expect(await world.stateOf('A')).toBe('unpaid');
    expect(
      await rows(`select outcome, reason, amount, amount_received from result_rows where merchant_id = $1`),
    ).toEqual([{ outcome: 'unpaid', reason: 'dunning_ended', amount: 8_000, amount_received: 0 }]);
    expect(
      await rows(`select event, debit, credit, amount from transfers where merchant_id = $1 order by event`),
    ).toEqual([
      { event: 'bill_released', debit: 'receivable', credit: 'billed', amount: 8_000 },
      { event: 'returned_unpaid', debit: 'returned', credit: 'receivable', amount: 8_000 },
    ]);
    expect(await agenda('A')).toBeUndefined();
    // Every message that was not sent yet died with the bill.
    expect(await rows(`select distinct state from messages where merchant_id = $1`)).toEqual([
      { state: 'skipped' },
    ]);
  });

  test('a card that has funds on payday pays; nothing more is sent or tried', async () => {
    await world.make([{ number: 'A' }]);
    const short = { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } };
    world.gateway.behave('tok_A', short, short, short, 'ok');
    await liveUntil(world, '2026-12-27');
    expect((await attempts('A')).at(-1)).toBe('2026-12-25 succeeded');
    expect(await world.stateOf('A')).toBe('paid');
    expect(world.gateway.captured).toHaveLength(1);
  });

  test('a stolen card is never tried again: link at once', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', { declines: { gatewayCode: 'stolen_card', networkCode: '43' } });
    await liveUntil(world, '2026-12-29');
    expect(await attempts('A')).toEqual(['2026-12-01 failed']);
    expect(await steps('A')).toEqual([
      '2026-12-01 fallback_link',
      '2026-12-02 reminder:+1bd',
      '2026-12-10 reminder:+7bd',
    ]);
    expect(world.gateway.calls).toHaveLength(1);
  });

  test('a stolen card is not tried for the customer’s other bills either: a link for each', async () => {
    await world.make([
      { number: 'A', customer: 'TARO', card: 'tok_taro' },
      { number: 'B', customer: 'TARO', dueOn: '2026-12-03' },
      { number: 'C', customer: 'HANA', card: 'tok_hana', dueOn: '2026-12-03' },
    ]);
    world.gateway.behave('tok_taro', { declines: { gatewayCode: 'stolen_card', networkCode: '43' } });
    await liveUntil(world, '2026-12-03');
    expect(world.gateway.calls.map((call) => call.token)).toEqual(['tok_taro', 'tok_hana']);
    expect(await attempts('B')).toEqual([]);
    expect(await steps('B')).toEqual(['2026-12-03 fallback_link']);
    expect(await world.stateOf('C')).toBe('paid');
  });

  test('the advice of the network is kept: not before 72 hours', async () => {
    await world.make([{ number: 'A', dueOn: '2026-12-02' }]);
    world.clock.advance(86_400_000);
    world.gateway.behave(
      'tok_A',
      {
        declines: { gatewayCode: 'do_not_honor', network: 'mastercard', networkCode: '05', adviceCode: '29' },
      },
      'ok',
    );
    await liveUntil(world, '2026-12-20');
    // +3bd would be the 7th; 192 hours after 10:00 on the 2nd is the 10th at 10:00, so the first whole day is the 11th.
    expect(await attempts('A')).toEqual(['2026-12-02 failed', '2026-12-11 succeeded']);
  });

  test('a second run on a day changes nothing', async () => {
    await world.make([
      { number: 'A' },
      { number: 'B', collection: 'link', dueOn: '2026-12-25' },
      { number: 'C', card: null },
    ]);
    world.gateway.behave('tok_A', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
    await liveUntil(world, '2026-12-01');
    const before = await moneyState(database.db, world.merchant.id);
    await world.run(charge);
    const again = await world.run(dunning);
    expect(again.counts).toEqual({});
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
    expect(await agenda('A')).toBe('2026-12-04 charge');
    expect(await agenda('B')).toBe('2026-12-22 dun');
    expect(await steps('C')).toEqual(['2026-12-01 fallback_link']);
  });

  test('an unknown outcome waits: no second attempt, no message, no return, whatever the date', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_before');
    await world.run(charge);
    world.gateway.down = true;
    await liveUntil(world, '2027-01-02');
    expect(await attempts('A')).toEqual(['2026-12-01 unknown']);
    expect(await steps('A')).toEqual([]);
    expect(await world.stateOf('A')).toBe('open');
    world.gateway.down = false;
    world.gateway.behave('tok_A', 'ok');
    await liveUntil(world, '2027-01-05');
    expect(await world.stateOf('A')).not.toBe('open');
    expect(world.gateway.captured.length).toBeLessThanOrEqual(1);
  });

  test('without reports of the gateway nobody is reminded or tried again', async () => {
    await world.make([{ number: 'A' }, { number: 'B', collection: 'link', dueOn: '2026-12-02' }]);
    world.gateway.behave('tok_A', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
    world.gateway.reportsReady = false;
    await liveUntil(world, '2026-12-10');
    expect(await attempts('A')).toHaveLength(1);
    expect(await steps('B')).toEqual(['2026-12-01 first_notice']);
    world.gateway.reportsReady = true;
    await liveUntil(world, '2026-12-12');
    expect(await attempts('A')).toEqual(['2026-12-01 failed', '2026-12-10 failed']);
    expect(await steps('B')).toEqual([
      '2026-12-01 first_notice',
      '2026-12-11 reminder:+1bd',
      '2026-12-12 reminder:+7bd',
    ]);
  });

  test('dry run tells the same and writes nothing', async () => {
    await world.make([{ number: 'C', card: null }]);
    await world.run(charge);
    const before = await moneyState(database.db, world.merchant.id);
    const context = {
      ports: world.ports,
      merchant: world.merchant,
      businessDate: '2026-12-01',
      stop: new AbortController().signal,
      progress: () => undefined,
    };
    const forecast = await dunning.dryRun(context);
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
    expect((await world.run(dunning)).counts).toEqual(forecast);
  });
});
