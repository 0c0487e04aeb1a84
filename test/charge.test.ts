import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { changeHoldByHand } from '../billing/holds/place.ts';
import { returnUnpaid } from '../billing/invoices/return.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, expectInvariants, moneyState } from './bills.ts';
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

const chargesOf = (number: string) =>
  database.db.query<{ state: string; attempt_no: number; verdict: string | null }>(
    `select c.state, c.attempt_no, c.verdict from charges c
     join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
     where c.merchant_id = $1 and i.billing_number = $2 order by c.attempt_no`,
    [world.merchant.id, number],
  );
const agendaOf = async (number: string) =>
  (
    await database.db.query<{ act: string; act_on: string }>(
      `select a.act, a.act_on from agenda a join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
       where a.merchant_id = $1 and i.billing_number = $2`,
      [world.merchant.id, number],
    )
  )[0];
const locks = async () =>
  (
    await database.db.query(`select charge_id from collection_locks where merchant_id = $1`, [
      world.merchant.id,
    ])
  ).length;

describe('the charge job', () => {
  test('charges what is due today, leaves the rest, and a second run changes nothing', async () => {
    await world.make([
      ...Array.from({ length: 70 }, (_, index) => ({ number: `B${index}`, amount: 1_000 + index })),
      { number: 'TOMORROW', dueOn: '2026-12-02' },
      { number: 'LINK', collection: 'link' as const },
    ]);
    const first = await world.run(charge);
    expect(first).toMatchObject({ outcome: 'done', counts: { charged: 70 } });
    expect(world.gateway.captured).toHaveLength(70);
    expect(await world.stateOf('B69')).toBe('paid');
    expect(await world.stateOf('TOMORROW')).toBe('open');
    expect(await locks()).toBe(0);

    const before = await moneyState(database.db, world.merchant.id);
    const second = await world.run(charge);
    expect(second).toMatchObject({ outcome: 'done', counts: {} });
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
    expect(world.gateway.calls).toHaveLength(70);
  });

  test('a customer who is held is not charged; one who was being charged is; afterwards the bill goes on', async () => {
    await world.make([{ number: 'HELD' }, { number: 'OTHER' }, { number: 'UNDER-WAY' }]);
    const hold = (customerNumber: string, what: 'place' | 'lift') =>
      changeHoldByHand(
        world.ports,
        world.merchant,
        { customerNumber, contractNumber: '', what, reason: 'dispute', untilOn: null },
        'operator',
      );
    await hold('C-HELD', 'place');
    const answer = world.ports.gateway.charge;
    world.ports.gateway.charge = async (request, signal) => {
      // Placed while the call is on its way: it runs on, and is booked.
      await hold('C-UNDER-WAY', 'place');
      return answer(request, signal);
    };
    expect(await world.run(charge)).toMatchObject({ outcome: 'done', counts: { charged: 2, held: 1 } });
    world.ports.gateway.charge = answer;
    expect([await world.stateOf('HELD'), await world.stateOf('UNDER-WAY')]).toEqual(['open', 'paid']);
    expect(await agendaOf('HELD')).toEqual({ act: 'dun', act_on: '2026-12-01' });
    await world.run(dunning);
    // Without an end it is looked at in a month; meanwhile nobody returns it.
    expect(await agendaOf('HELD')).toEqual({ act: 'dun', act_on: '2026-12-31' });
    await hold('C-HELD', 'lift');
    await world.run(dunning);
    expect(await world.run(charge)).toMatchObject({ counts: { charged: 1 } });
    expect(await world.stateOf('HELD')).toBe('paid');
  });

  test('dry run: counts, sum and what is left out, and nothing is written', async () => {
    await world.make([
      { number: 'A', amount: 700 },
      { number: 'B', amount: 300 },
      { number: 'NO-CARD', card: null },
    ]);
    const counts = await charge.dryRun({
      ports: world.ports,
      merchant: world.merchant,
      businessDate: '2026-12-01',
      stop: new AbortController().signal,
      progress: () => undefined,
    });
    expect(counts).toEqual({
      would_charge: 2,
      amount: 1_000,
      recalled: 0,
      unknown: 0,
      being_paid: 0,
      disputed: 0,
      held: 0,
      not_automatic: 0,
      no_method: 1,
      waiting_for_reports: 0,
      paid: 0,
      cancelled: 0,
      returned: 0,
      parked: 0,
    });
    expect(world.gateway.calls).toEqual([]);
  });

  test.each([
    {
      name: 'a decline for now',
      codes: { gatewayCode: 'insufficient_funds', networkCode: '51' },
      verdict: 'retry_at',
      state: 'open',
    },
    {
      name: 'a lost card',
      codes: { gatewayCode: 'lost_card', networkCode: '41' },
      verdict: 'never_this_method',
      state: 'open',
    },
    {
      name: 'an expired card',
      codes: { gatewayCode: 'expired_card', networkCode: '54' },
      verdict: 'needs_customer',
      state: 'open',
    },
    {
      name: 'a code that no rule knows',
      codes: { gatewayCode: 'code_of_tomorrow', networkCode: 'ZZ' },
      verdict: 'no_rule',
      state: 'parked',
    },
  ])('$name: verdict $verdict, and dunning decides today', async ({ codes, verdict, state }) => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', { declines: codes });
    const end = await world.run(charge);
    expect(await chargesOf('A')).toMatchObject([{ state: 'failed', verdict }]);
    expect(await world.stateOf('A')).toBe(state);
    expect(await agendaOf('A')).toEqual({ act: 'dun', act_on: '2026-12-01' });
    expect(await locks()).toBe(0);
    expect(end.outcome).toBe(state === 'parked' ? 'attention' : 'done');
  });

  test('an agreement that ended between plan and run is not charged; dunning falls back', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }]);
    await database.db.run(
      `update enrolments e set state = 'ended' from invoices i
       where e.merchant_id = $1 and i.merchant_id = $1 and i.contract_id = e.contract_id and i.billing_number = 'A'`,
      [world.merchant.id],
    );
    const end = await world.run(charge);
    expect(end.counts).toEqual({ charged: 1, no_method: 1 });
    expect(await agendaOf('A')).toEqual({ act: 'dun', act_on: '2026-12-01' });
  });

  test('a refusal before execution is sent again under the same reference; the attempt is one', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'rate_limited', 'rate_limited', 'ok');
    await world.run(charge);
    expect(await chargesOf('A')).toMatchObject([{ state: 'succeeded', attempt_no: 1 }]);
    expect(new Set(world.gateway.calls.map((call) => call.reference)).size).toBe(1);
  });

  test('refused all the while: given up without effect, and the next run charges it', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'rate_limited');
    const first = await world.run(charge);
    expect(first.counts).toEqual({ deferred: 1 });
    expect(await agendaOf('A')).toEqual({ act: 'charge', act_on: '2026-12-01' });
    expect(await locks()).toBe(0);
    world.gateway.behave('tok_A', 'ok');
    await world.run(charge);
    expect(await world.stateOf('A')).toBe('paid');
    expect(world.gateway.captured).toHaveLength(1);
  });

  test.each(['timeout_before', 'timeout_after', 'error_before', 'error_after', 'throws_after'] as const)(
    '%s: unknown, never charged again before trace has proof, and then exactly once',
    async (behaviour) => {
      await world.make([{ number: 'A' }]);
      world.gateway.behave('tok_A', behaviour, 'ok');
      expect((await world.run(charge)).counts).toEqual({ unknown: 1 });
      expect(await locks()).toBe(1);
      // Nobody tries a second time while the first may have taken the money.
      expect((await world.run(charge)).counts).toEqual({ locked: 1 });
      expect(world.gateway.calls).toHaveLength(1);

      world.clock.advance(180_000);
      await world.run(trace);
      await world.run(charge);
      expect(await world.stateOf('A')).toBe('paid');
      expect(world.gateway.captured).toHaveLength(1);
      expect(await locks()).toBe(0);
    },
  );

  test('another amount than was asked is never booked: locked, and a person is called', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }]);
    world.gateway.behave('tok_A', 'another_amount');
    const end = await world.run(charge);
    expect(end).toMatchObject({
      outcome: 'attention',
      counts: { charged: 1, unknown: 1, amount_differs: 1 },
    });
    expect(await world.stateOf('A')).toBe('open');
    world.clock.advance(180_000);
    expect((await world.run(trace)).counts).toMatchObject({ differs: 1 });
    expect(await locks()).toBe(1);
  });

  test('the gateway is down: 32 unknowns, now and again one more, then the rest is left alone and a person is called', async () => {
    await world.make(Array.from({ length: 80 }, (_, index) => ({ number: `B${index}` })));
    world.gateway.down = true;
    const end = await world.run(charge);
    // Within ten minutes it is tried after 30 s, 1, 2 and 4 minutes more.
    expect(end).toMatchObject({
      outcome: 'attention',
      counts: { unknown: 36, deferred: 32, gateway_down: 1 },
    });
    expect(world.gateway.calls).toHaveLength(36);
    // The next chunk or process tries once, where it is time to, and does not wait again.
    expect((await world.run(charge)).counts).toEqual({ gateway_down: 1 });
    world.clock.advance(300_000);
    expect((await world.run(charge)).counts).toEqual({ locked: 36, unknown: 1, gateway_down: 1 });
    expect(world.gateway.calls).toHaveLength(37);

    world.gateway.down = false;
    world.clock.advance(600_000);
    await world.run(trace);
    await world.run(charge);
    expect(world.gateway.captured).toHaveLength(80);
    expect(await locks()).toBe(0);
  });

  test('a worker that lost its chunk writes nothing; its outcome is found by trace', async () => {
    await world.make([{ number: 'A' }]);
    world.ports.crash = async (point) => {
      if (point !== 'charge.after_gateway') return;
      // Another process takes the chunk over while this one waits for the gateway.
      await database.db.run(
        `update chunks set lease_owner = 'other', fence = fence + 1 where merchant_id = $1 and state = 'ready'`,
        [world.merchant.id],
      );
      await database.db.run(`update chunks set state = 'done' where merchant_id = $1`, [world.merchant.id]);
    };
    await world.run(charge);
    expect(world.gateway.captured).toHaveLength(1);
    expect(await chargesOf('A')).toMatchObject([{ state: 'processing' }]);
    world.ports.crash = async () => undefined;
    world.clock.advance(180_000);
    await world.run(trace);
    expect(await world.stateOf('A')).toBe('paid');
  });

  test('an intent that grew old before its call is never sent', async () => {
    await world.make([{ number: 'A' }]);
    world.ports.crash = async (point) => {
      if (point === 'charge.after_intent') world.clock.advance(61_000);
    };
    const end = await world.run(charge);
    expect(end.counts).toEqual({ deferred: 1 });
    expect(world.gateway.calls).toEqual([]);
    world.ports.crash = async () => undefined;
    await world.run(charge);
    expect(world.gateway.captured).toHaveLength(1);
  });

  test('a bill that another process declined while this one waited for its row is dunning’s, not charged again', async () => {
    const bills = await world.make([{ number: 'A' }, { number: 'B' }]);
    let held = (): void => undefined;
    const holding = new Promise<void>((resolve) => {
      held = resolve;
    });
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const other = database.db.transaction(async (tx) => {
      await tx.query(`select 1 from invoices where merchant_id = $1 and id = $2::uuid for update`, [
        world.merchant.id,
        bills.get('A'),
      ]);
      held();
      await released;
      await tx.run(`update agenda set act = 'dun' where merchant_id = $1 and invoice_id = $2::uuid`, [
        world.merchant.id,
        bills.get('A'),
      ]);
    });
    await holding;
    const run = world.run(charge);
    await expect
      .poll(
        async () =>
          (
            await database.db.query(
              `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
            )
          ).length,
      )
      .toBe(1);
    release();
    await other;
    expect((await run).counts).toEqual({ charged: 1 });
    expect(await chargesOf('A')).toEqual([]);
    expect(await agendaOf('A')).toEqual({ act: 'dun', act_on: '2026-12-01' });
  });

  test('money that comes twice for a bill already returned pays it once; the rest is the customer’s credit', async () => {
    const bills = await world.make([{ number: 'A' }, { number: 'B' }]);
    for (const token of ['tok_A', 'tok_B']) world.gateway.behave(token, 'rate_limited');
    await world.run(charge);
    await world.run(charge);
    const { db, ids, sealer, clock } = world.ports;
    const act = () => ({
      merchantId: world.merchant.id,
      id: ids.uuid(),
      kind: 'command' as const,
      actor: 'test',
      at: clock.now(),
    });
    await db.transaction((tx) =>
      returnUnpaid(tx, act(), { businessDate: '2026-12-01', today: '2026-12-01' }, [...bills.values()]),
    );
    const canceled = (number: string) =>
      db.query<{ id: string }>(
        `select id from charges where merchant_id = $1 and invoice_id = $2::uuid and state = 'canceled' order by id`,
        [world.merchant.id, bills.get(number)],
      );
    const learn = (charges: readonly { id: string }[]) =>
      db.transaction((tx) =>
        recordOutcomes(tx, {
          act: act(),
          timezone: 'Asia/Tokyo',
          learnedBy: 'report',
          ids,
          sealer,
          learned: charges.map(({ id }) => ({
            chargeId: id,
            outcome: {
              kind: 'succeeded',
              captured: {
                gatewayChargeId: `ch-${id}`,
                amount: 5_000,
                currency: 'JPY',
                capturedAt: clock.now().toString(),
                method: 'card',
                savedMethod: null,
              },
            },
          })),
        }),
      );
    const ofA = await canceled('A');
    expect(ofA).toHaveLength(2);
    // One after the other, and both in one batch.
    await learn(ofA.slice(0, 1));
    await learn(ofA.slice(1));
    await learn(await canceled('B'));
    const rows = await db.query(
      `select i.billing_number, i.state,
              (select count(*) from allocations a where a.merchant_id = $1 and a.invoice_id = i.id) as allocated,
              (select count(*) from credits k join payments p on p.merchant_id = $1 and p.id = k.payment_id
               where k.merchant_id = $1 and p.invoice_id = i.id) as credits,
              (select sum(case when t.debit = 'returned' then t.amount when t.credit = 'returned' then -t.amount else 0 end)::bigint
               from transfers t where t.merchant_id = $1 and t.invoice_id = i.id) as returned
       from invoices i where i.merchant_id = $1 order by i.billing_number`,
      [world.merchant.id],
    );
    const paidOnce = { state: 'unpaid', allocated: 1, credits: 1, returned: 0 };
    expect(rows).toEqual([
      { billing_number: 'A', ...paidOnce },
      { billing_number: 'B', ...paidOnce },
    ]);
  });
});
