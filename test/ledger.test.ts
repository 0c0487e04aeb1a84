import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import type { Act } from '../billing/acts/act.ts';
import { openDatabase, type Tx } from '../billing/db.ts';
import { postReleased } from '../billing/exchanges/queries.ts';
import { closeMonth } from '../billing/ledger/close.ts';
import { type Account, accounts, events, type LedgerEvent } from '../billing/ledger/ledger.ts';
import {
  closedMonths,
  ledgerDifferences,
  ledgerEntries,
  post,
  shutMonthsBefore,
  trialBalance,
} from '../billing/ledger/queries.ts';
import { isSuperuser, migrateDatabase } from '../billing/migrate.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { migrations } from '../migrations/index.ts';
import { type Bills, billsOf } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

const day = 86_400_000;
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
  world = await billsOf(database.db, { code: `gas-${merchants}`, now: '2026-11-30T01:00:00Z' });
});

const rows = <Row>(sql: string) => database.db.query<Row>(sql, [world.merchant.id]);
const balances = async (month?: string): Promise<Partial<Record<Account, number>>> =>
  Object.fromEntries(
    (await trialBalance(database.db, { merchantId: world.merchant.id, ...(month ? { month } : {}) })).map(
      ({ account, balance }) => [account, balance],
    ),
  );
const differences = async () =>
  (await ledgerDifferences(database.db)).filter(({ merchant }) => merchant === world.merchant.code);
const close = (month: string) => closeMonth(world.ports, world.merchant, month, 'an accountant');
const act = (): Act => ({
  merchantId: world.merchant.id,
  id: world.ports.ids.uuid(),
  kind: 'command',
  actor: 'test',
  at: world.clock.now(),
});

/** Posts as a part of the product that does not exist yet would. */
async function book(tx: Tx, event: LedgerEvent, amount: number, postedOn: string): Promise<void> {
  const [bill] = await tx.query<{ id: string; customer_id: string }>(
    `select id, customer_id from invoices where merchant_id = $1 limit 1`,
    [world.merchant.id],
  );
  await post(tx, act(), postedOn, [
    {
      event,
      entryId: world.ports.ids.uuid(),
      invoiceId: bill?.id ?? null,
      customerId: bill?.customer_id ?? null,
      amount,
      currency: 'JPY',
      eventOn: postedOn,
    },
  ]);
}

describe('the chart', () => {
  const cases: readonly [LedgerEvent, Account, Account][] = [
    ['bill_released', 'receivable', 'billed'],
    ['bill_cancelled', 'billed', 'receivable'],
    ['paid_preliminarily', 'preliminary', 'receivable'],
    ['preliminary_confirmed', 'gateway_clearing', 'preliminary'],
    ['preliminary_cancelled', 'receivable', 'preliminary'],
    ['paid', 'gateway_clearing', 'receivable'],
    ['overpaid', 'gateway_clearing', 'customer_credit'],
    ['returned_unpaid', 'returned', 'receivable'],
    ['paid_after_return', 'gateway_clearing', 'returned'],
    ['credit_used', 'customer_credit', 'receivable'],
    ['credit_returned', 'receivable', 'customer_credit'],
    ['credit_refunded', 'customer_credit', 'gateway_clearing'],
    ['refunded', 'receivable', 'gateway_clearing'],
    ['refunded_by_merchant', 'receivable', 'given_by_merchant'],
    ['credit_refunded_by_merchant', 'customer_credit', 'given_by_merchant'],
    ['chargeback', 'receivable', 'gateway_clearing'],
    ['payout', 'paid_out', 'gateway_clearing'],
    ['fee', 'fees', 'gateway_clearing'],
    ['fee_tax', 'fee_tax', 'gateway_clearing'],
  ];

  test('has every event, and the books take each and sum to zero', async () => {
    expect(Object.keys(events).sort()).toEqual(cases.map(([event]) => event).sort());
    await world.make([{ number: 'A', card: null, collection: 'link' }]);
    for (const [event, debit, credit] of cases) {
      const before = await balances();
      await database.db.transaction((tx) => book(tx, event, 700, '2026-11-30'));
      const after = await balances();
      const moved = accounts.flatMap((account) => {
        const by = (after[account] ?? 0) - (before[account] ?? 0);
        return by === 0 ? [] : [[account, by]];
      });
      expect(Object.fromEntries(moved), event).toEqual({ [debit]: 700, [credit]: -700 });
    }
    expect(Object.values(await balances()).reduce((sum, balance) => sum + balance, 0)).toBe(0);
  });

  test('a barcode paid at the shop, confirmed or taken back; a refund; a chargeback: the bill is owed again or it is not', async () => {
    await world.make([{ number: 'A', amount: 5_000, card: null, collection: 'link' }]);
    const left = async (...steps: LedgerEvent[]) => {
      for (const event of steps) await database.db.transaction((tx) => book(tx, event, 5_000, '2026-11-30'));
      const { receivable = 0, preliminary = 0, gateway_clearing = 0 } = await balances();
      return { receivable, preliminary, gateway_clearing };
    };
    expect(await left()).toEqual({ receivable: 5_000, preliminary: 0, gateway_clearing: 0 });
    expect(await left('paid_preliminarily')).toEqual({
      receivable: 0,
      preliminary: 5_000,
      gateway_clearing: 0,
    });
    expect(await left('preliminary_cancelled')).toEqual({
      receivable: 5_000,
      preliminary: 0,
      gateway_clearing: 0,
    });
    expect(await left('paid_preliminarily', 'preliminary_confirmed')).toEqual({
      receivable: 0,
      preliminary: 0,
      gateway_clearing: 5_000,
    });
    expect(await left('refunded')).toEqual({ receivable: 5_000, preliminary: 0, gateway_clearing: 0 });
    expect(await left('paid', 'chargeback')).toEqual({
      receivable: 5_000,
      preliminary: 0,
      gateway_clearing: 0,
    });
  });
});

describe('balances', () => {
  test('agree with bills, credits and payments through a billing day; one that is bent is named', async () => {
    await world.make([
      { number: 'A', amount: 4_000 },
      { number: 'B', amount: 6_000 },
      { number: 'C', amount: 1_000, collection: 'link', card: null },
    ]);
    world.gateway.behave('tok_B', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
    await world.run(charge);
    expect(await balances()).toEqual({ billed: -11_000, receivable: 7_000, gateway_clearing: 4_000 });
    expect(await differences()).toEqual([]);
    // C is long overdue, and goes back.
    world.clock.advance(90 * day);
    await rows(
      `insert into watermarks (merchant_id, method, complete_to) values ($1, 'card', '2027-03-31')
       on conflict (merchant_id, method) do update set complete_to = excluded.complete_to`,
    );
    await world.run(dunning);
    expect(await world.stateOf('C')).toBe('unpaid');
    expect((await balances()).returned).toBe(await returnedAmount());
    expect(await differences()).toEqual([]);

    await rows(`update invoices set state = 'unpaid' where merchant_id = $1 and billing_number = 'A'`);
    await rows(`delete from allocations where merchant_id = $1`);
    await rows(`update payments set amount = amount + 1 where merchant_id = $1`);
    expect((await differences()).map(({ comparison, subject }) => [comparison, subject])).toEqual([
      ['each bill owes what its state says', 'A'],
      ['the gateway holds the payments that no payout has taken', 'JPY'],
    ]);
  });

  const returnedAmount = async () =>
    (
      await rows<{ amount: number }>(
        `select coalesce(sum(amount), 0)::bigint as amount from invoices where merchant_id = $1 and state = 'unpaid'`,
      )
    )[0]?.amount;

  test('of a bill, a customer, an account and a month are parts of the whole', async () => {
    const made = await world.make([
      { number: 'A', customer: 'C-1' },
      { number: 'B', customer: 'C-1' },
      { number: 'C' },
    ]);
    await world.run(charge);
    const of = async (filter: Parameters<typeof trialBalance>[1]) =>
      Object.fromEntries(
        (await trialBalance(database.db, { merchantId: world.merchant.id, ...filter })).map(
          ({ account, debit, credit }) => [account, [debit, credit]],
        ),
      );
    const [customer] = await rows<{ id: string }>(
      `select id from customers where merchant_id = $1 and customer_number = 'C-1'`,
    );
    expect(await of({ invoiceId: made.get('A') as string })).toEqual({
      billed: [0, 5_000],
      gateway_clearing: [5_000, 0],
      receivable: [5_000, 5_000],
    });
    expect((await of({ customerId: customer?.id as string })).billed).toEqual([0, 10_000]);
    expect(await of({ account: 'billed' })).toEqual({ billed: [0, 15_000] });
    expect(await of({ month: '2026-12-01' })).toEqual({});
    const entries = await ledgerEntries(
      database.db,
      { merchantId: world.merchant.id, invoiceId: made.get('B') as string },
      10,
    );
    expect(entries.map(({ event, amount, billing_number }) => [event, amount, billing_number])).toEqual([
      ['paid', 5_000, 'B'],
      ['bill_released', 5_000, 'B'],
    ]);
  });
});

describe('closing a month', () => {
  test('freezes its balances; what is posted later enters the next month and keeps its day', async () => {
    await world.make([{ number: 'A', amount: 4_000 }]);
    world.clock.advance(day);
    expect(await close('2026-11')).toMatchObject({
      closed: true,
      accounts: [
        { account: 'billed', debit: 0, credit: 4_000, balance: -4_000 },
        { account: 'receivable', debit: 4_000, credit: 0, balance: 4_000 },
      ],
    });
    // A correction of November, found on a day that a slow clock still calls November.
    await database.db.transaction((tx) => book(tx, 'bill_cancelled', 4_000, '2026-11-30'));
    expect(
      await rows(
        `select event, event_on, posted_on, closing_month from transfers where merchant_id = $1 order by closing_month`,
      ),
    ).toEqual([
      {
        event: 'bill_released',
        event_on: '2026-11-30',
        posted_on: '2026-11-30',
        closing_month: '2026-11-01',
      },
      {
        event: 'bill_cancelled',
        event_on: '2026-11-30',
        posted_on: '2026-11-30',
        closing_month: '2026-12-01',
      },
    ]);
    world.clock.advance(31 * day);
    expect((await close('2026-12')).accounts).toMatchObject([
      { account: 'billed', debit: 4_000, credit: 0, balance: 0 },
      { account: 'receivable', debit: 0, credit: 4_000, balance: 0 },
    ]);
    expect(
      (await closedMonths(database.db, world.merchant.id)).map(({ month, transfers }) => [month, transfers]),
    ).toEqual([
      ['2026-11-01', 1],
      ['2026-12-01', 1],
    ]);
    // A month in which nothing moved carries its balances on.
    world.clock.advance(31 * day);
    expect((await close('2027-01')).accounts).toMatchObject([
      { account: 'billed', debit: 0, credit: 0, balance: 0 },
      { account: 'receivable', debit: 0, credit: 0, balance: 0 },
    ]);
  });

  test('a file released when its month is closed already enters the next one as well', async () => {
    await world.make([{ number: 'A' }]);
    const [file] = await rows<{ id: string }>(`select id from billing_files where merchant_id = $1`);
    world.clock.advance(day);
    await close('2026-11');
    const days = { eventOn: '2026-11-30', postedOn: '2026-11-30' };
    await database.db.transaction((tx) => postReleased(tx, act(), file?.id as string, days));
    expect(await balances('2026-12-01')).toEqual({ billed: -5_000, receivable: 5_000 });
  });

  test.each([
    ['the month after the next', '2026-12', 'MONTH_OUT_OF_ORDER'],
    ['one before the merchant came', '2026-10', 'MONTH_OUT_OF_ORDER'],
    ['no month', '2026-13', 'MONTH_MALFORMED'],
    ['a day', '2026-11-30', 'MONTH_MALFORMED'],
  ])('%s is refused', async (_what, month, code) => {
    world.clock.advance(day);
    await expect(close(month)).rejects.toMatchObject({ code, exitCode: 2 });
  });

  test('is for a month that is over in the merchant’s own zone, in order, and once', async () => {
    // 23:59 of 30 November in Japan.
    world.clock.set('2026-11-30T14:59:00Z');
    await expect(close('2026-11')).rejects.toMatchObject({ code: 'MONTH_NOT_OVER' });
    world.clock.set('2026-11-30T15:00:00Z');
    expect(await close('2026-11')).toMatchObject({ closed: true });
    const before = await rows(`select * from closed_month_accounts where merchant_id = $1`);
    expect(await close('2026-11')).toMatchObject({ closed: false });
    expect(await rows(`select * from closed_month_accounts where merchant_id = $1`)).toEqual(before);
    world.clock.set('2027-03-01T00:00:00Z');
    await expect(close('2027-01')).rejects.toMatchObject({
      code: 'MONTH_OUT_OF_ORDER',
      context: { next_month: '2026-12' },
    });
  });

  test('two at once: one freezes it, the other finds it frozen', async () => {
    await world.make([{ number: 'A' }]);
    world.clock.advance(day);
    const both = await Promise.all([close('2026-11'), close('2026-11')]);
    expect(both.map(({ closed }) => closed).sort()).toEqual([false, true]);
    expect(both[0]?.accounts).toEqual(both[1]?.accounts);
    expect(await differences()).toEqual([]);
  });

  test('killed after the ledger was shut: the next one freezes what was there', async () => {
    await world.make([{ number: 'A' }]);
    world.clock.advance(day);
    await database.db.transaction((tx) => shutMonthsBefore(tx, world.merchant.id, '2026-12-01'));
    await database.db.transaction((tx) => book(tx, 'bill_cancelled', 5_000, '2026-11-30'));
    expect((await close('2026-11')).accounts).toMatchObject([{ credit: 5_000 }, { debit: 5_000 }]);
    expect(await balances('2026-12-01')).toEqual({ billed: 5_000, receivable: -5_000 });
  });

  test('a posting that came first is waited for and counted; one that comes during it enters the next month', async () => {
    await world.make([{ number: 'A' }]);
    world.clock.advance(day);
    const gate = () => {
      let open: () => void = () => undefined;
      const opened = new Promise<void>((resolve) => {
        open = resolve;
      });
      return { open, opened };
    };
    const early = gate();
    const posted = gate();
    const first = database.db.transaction(async (tx) => {
      await book(tx, 'overpaid', 11, '2026-11-30');
      posted.open();
      await early.opened;
    });
    await posted.opened;
    const closing = close('2026-11');
    await waitsForLock('ledger_heads');
    early.open();
    await first;
    await closing;

    // The other way round: the head is being moved when a posting looks at it.
    const shut = gate();
    const moved = gate();
    const mover = database.db.transaction(async (tx) => {
      await shutMonthsBefore(tx, world.merchant.id, '2027-01-01');
      moved.open();
      await shut.opened;
    });
    await moved.opened;
    const late = database.db.transaction((tx) => book(tx, 'overpaid', 22, '2026-12-01'));
    await waitsForLock('ledger_heads');
    shut.open();
    await mover;
    await late;

    expect(
      await rows(
        `select amount, closing_month from transfers where merchant_id = $1 and event = 'overpaid' order by amount`,
      ),
    ).toEqual([
      { amount: 11, closing_month: '2026-11-01' },
      { amount: 22, closing_month: '2027-01-01' },
    ]);
    const [month] = await closedMonths(database.db, world.merchant.id);
    expect(month).toMatchObject({ month: '2026-11-01', transfers: 2, amount: 5_011 });
  });

  /** Until a connection of this database stands and waits in a statement about the table. */
  async function waitsForLock(table: string): Promise<void> {
    for (;;) {
      const waiting = await database.db.query(
        `select 1 from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like '%' || $1 || '%'`,
        [table],
      );
      if (waiting.length > 0) return;
    }
  }

  test('a row that gets into a closed month all the same, or leaves it, is found', async () => {
    await world.make([{ number: 'A' }]);
    world.clock.advance(day);
    await close('2026-11');
    expect(await differences()).toEqual([]);
    await rows(
      `insert into transfers select merchant_id, month, entry_id, 'paid', leg, 'gateway_clearing', 'receivable', 1, currency,
                                    event_on, posted_on, closing_month, invoice_id, customer_id, act_id
       from transfers where merchant_id = $1`,
    );
    const found = (await differences()).filter(({ comparison }) => comparison.startsWith('closed months'));
    expect(found.map(({ subject, detail }) => [subject, detail])).toEqual([
      ['2026-11', 'frozen 1 rows over 5000, now 2 over 5001'],
      ['2026-11', 'gateway_clearing: frozen 0 to 0, now 1 to 0'],
      ['2026-11', 'receivable: frozen 5000 to 0, now 5000 to 1'],
    ]);
  });
});

test('merchants that were there before months could be closed begin with their first month', async () => {
  const { adminUrl, ownerUrl, prefix } = inject('testServer');
  const admin = openDatabase(adminUrl);
  const name = `${prefix}${process.pid}_before_months`;
  await admin.run(`create database ${name} owner seikyu template template0`);
  const url = new URL(ownerUrl);
  url.pathname = `/${name}`;
  const db = openDatabase(url.href);
  const { log } = world.ports;
  try {
    await migrateDatabase(db, migrations.slice(0, 1), { log });
    // 1 November in Japan, and still October in Greenwich.
    await db.run(
      `insert into merchants values (1, 'a', '1', 1, '2026-10-31T20:00:00Z'), (2, 'b', '2', 1, '2026-10-31T20:00:00Z')`,
    );
    await db.run(
      `insert into merchant_settings
       select id, 1, '{"timezone": "Asia/Tokyo"}', 'x', created_at from merchants`,
    );
    await db.run(
      `insert into transfers values (2, '2026-09-01', '00000000-0000-7000-8000-000000000001', 'paid', 1, 'gateway_clearing',
         'receivable', 1, 'JPY', '2026-09-30', '2026-09-30', '2026-09-01', null, null, '00000000-0000-7000-8000-000000000002')`,
    );
    await migrateDatabase(db, migrations, { log });
    expect(await db.query(`select merchant_id, first_month, open_from from ledger_heads order by 1`)).toEqual(
      [
        { merchant_id: 1, first_month: '2026-11-01', open_from: '2026-11-01' },
        { merchant_id: 2, first_month: '2026-09-01', open_from: '2026-09-01' },
      ],
    );
  } finally {
    await db.close();
    await admin.run(`drop database if exists ${name} with (force)`);
    await admin.close();
  }
});

describe('what is only appended', () => {
  test.each(['transfers', 'closed_months', 'closed_month_accounts', 'state_history', 'acts'])(
    'no role of the application changes, removes or empties %s',
    async (table) => {
      for (const statement of [
        `update ${table} set merchant_id = merchant_id`,
        `delete from ${table}`,
        `truncate ${table}`,
      ]) {
        await expect(database.db.run(statement), statement).rejects.toMatchObject({ code: '42501' });
        await expect(database.webDb.run(statement), statement).rejects.toMatchObject({ code: '42501' });
      }
    },
  );

  test('a superuser is above that, and is known as one', async () => {
    const admin = openDatabase(inject('testServer').adminUrl);
    expect([
      await isSuperuser(admin),
      await isSuperuser(database.db),
      await isSuperuser(database.webDb),
    ]).toEqual([true, false, false]);
    await admin.close();
  });

  test('the web posts, and cannot move the month in which it does', async () => {
    await world.make([{ number: 'A' }]);
    await database.webDb.transaction((tx) => book(tx, 'overpaid', 5, '2026-11-30'), {
      merchantId: world.merchant.id,
    });
    expect((await balances()).customer_credit).toBe(-5);
    await expect(
      database.webDb.run(`update ledger_heads set open_from = '2030-01-01'`),
    ).rejects.toMatchObject({ code: '42501' });
  });
});
