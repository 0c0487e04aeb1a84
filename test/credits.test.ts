import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { payByCredit } from '../billing/credits/use.ts';
import type { Tx } from '../billing/db.ts';
import { explainBill, explainCustomer } from '../billing/explain/queries.ts';
import { changeHoldByHand } from '../billing/holds/place.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, expectInvariants, worldsOf } from './bills.ts';
import { paidTwice } from './surplus.ts';

const worlds = worldsOf('credit');

async function merchantWith(policy: string): Promise<Bills> {
  const world = await worlds.open({ settings: `credit: ${policy}\n` });
  return world;
}

const rows = <Row extends object>(world: Bills, sql: string) =>
  worlds.db.query<Row & Record<string, unknown>>(sql, [world.merchant.id]);

/** What of credits is neither used nor given back, by payments and by the ledger. */
async function creditLeft(world: Bills): Promise<number> {
  const [left] = await rows<{ payments: number; ledger: number }>(
    world,
    `select (select coalesce(sum(p.amount - p.refunded - p.reused), 0)::bigint from credits k
             join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id where k.merchant_id = $1) as payments,
            (select coalesce(sum(case when credit = 'customer_credit' then amount when debit = 'customer_credit' then -amount end), 0)::bigint
             from transfers where merchant_id = $1) as ledger`,
  );
  expect(left?.payments).toBe(left?.ledger);
  return left?.payments ?? 0;
}

const adjustments = (world: Bills) =>
  rows(
    world,
    `select i.billing_number as number, a.kind, a.sign, a.amount from adjustment_rows a
     join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
     where a.merchant_id = $1 order by i.billing_number, a.known_at, a.kind, a.amount`,
  );

const next = { number: 'B', customer: 'C-1', amount: 3_000, dueOn: '2026-12-25' } as const;

describe('a surplus under credit: next_bill', () => {
  test('pays the customer’s next bill whole; nobody is charged or reminded, and the merchant can add it up', async () => {
    const world = await merchantWith('next_bill');
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    const bill = (await world.make([{ ...next, dueOn: '2026-12-01' }])).get('B') ?? '';
    await worlds.db.run(
      `insert into messages (merchant_id, invoice_id, step, state, version, planned_on) values ($1, $2, 'first_notice', 'planned', 1, '2026-12-01')`,
      [world.merchant.id, bill],
    );
    expect(await world.run(trace)).toMatchObject({ outcome: 'done', counts: { paid_by_credit: 1 } });
    expect(await world.stateOf('B')).toBe('paid');
    expect(await creditLeft(world)).toBe(2_000);
    await world.run(charge);
    await world.run(dunning);
    expect(world.gateway.calls).toEqual([]);
    expect(await rows(world, `select state, code from messages where merchant_id = $1`)).toEqual([
      { state: 'skipped', code: 'paid' },
    ]);
    expect(
      await rows(
        world,
        `select outcome, method, amount, amount_received, collected_on from result_rows
         where merchant_id = $1 and cause_id = invoice_id`,
      ),
    ).toEqual([
      { outcome: 'paid', method: 'card', amount: 3_000, amount_received: 3_000, collected_on: '2026-12-01' },
    ]);
    // 5,000 and 3,000 were received for bills, and of the surplus of 5,000 these 3,000 are no more.
    expect(await adjustments(world)).toEqual([
      { number: 'A', kind: 'overpayment', sign: '+', amount: 5_000 },
      { number: 'A', kind: 'reversal', sign: '-', amount: 3_000 },
    ]);
    // Again nothing happens.
    expect((await world.run(trace)).counts).not.toHaveProperty('paid_by_credit');
    const [explained] = await explainBill(worlds.db, 'B', world.merchant.code);
    expect(explained?.events.map(({ what, detail }) => `${what}: ${detail}`)).toContain(
      'credit: 3000 JPY of what was left of A, collected on 2026-12-01',
    );
    const [customer] = await explainCustomer(worlds.db, 'C-1', world.merchant.code);
    expect(customer?.events.map(({ detail }) => detail).join('\n')).toMatch(
      /5000 \(paid_twice\), 2000 left, charge/,
    );
  });

  test.each<[string, (world: Bills) => Promise<unknown>, string]>([
    ['is over more than the credit', (world) => world.make([{ ...next, amount: 5_001 }]), 'open'],
    [
      'is held for a dispute',
      async (world) => {
        await world.make([next]);
        const hold = {
          customerNumber: 'C-1',
          contractNumber: '',
          what: 'place',
          reason: 'dispute',
          untilOn: null,
        } as const;
        await changeHoldByHand(world.ports, world.merchant, hold, 'test');
      },
      'open',
    ],
    [
      'is being charged, or may have been',
      async (world) => {
        world.gateway.behave('tok_B', 'timeout_before');
        await world.make([{ ...next, dueOn: '2026-12-01' }]);
        await world.run(charge);
      },
      'open',
    ],
    ['is another customer’s', (world) => world.make([{ ...next, customer: 'C-2' }]), 'open'],
    [
      'is made out to another name under the same number',
      async (world) => {
        await world.make([next]);
        await worlds.db.run(
          `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
                                 business_date, sequence, created_at)
           select merchant_id, customer_id, 2, sealed, key_id, digest || 'x'::bytea, 'another', phone_digest, phone_kind,
                  business_date, 2, created_at
           from contacts where merchant_id = $1`,
          [world.merchant.id],
        );
        await worlds.db.run(
          `update invoices set contact_version = 2 where merchant_id = $1 and billing_number = 'B'`,
          [world.merchant.id],
        );
      },
      'open',
    ],
    [
      'waits for a person',
      async (world) => {
        world.gateway.behave('tok_B', { declines: { gatewayCode: 'never heard of', networkCode: 'ZZ' } });
        await world.make([{ ...next, dueOn: '2026-12-01' }]);
        await world.run(charge);
      },
      'parked',
    ],
  ])('does not pay a bill that %s', async (_what, arrange, state) => {
    const world = await merchantWith('next_bill');
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    await arrange(world);
    expect((await world.run(trace)).counts).not.toHaveProperty('paid_by_credit');
    expect([await world.stateOf('B'), await creditLeft(world)]).toEqual([state, 5_000]);
  });

  test('pays when the hold is lifted; two credits pay one bill, one credit two, the bill that is due first first', async () => {
    const world = await merchantWith('next_bill');
    await paidTwice(world, { number: 'A1', customer: 'C-1', amount: 4_000 });
    await paidTwice(world, { number: 'A2', customer: 'C-1', amount: 3_000 });
    const hold = { customerNumber: 'C-1', contractNumber: '', reason: 'dispute', untilOn: null } as const;
    await world.make([
      { number: 'B', customer: 'C-1', amount: 5_000, dueOn: '2026-12-20' },
      { number: 'C', customer: 'C-1', amount: 1_500, dueOn: '2026-12-10' },
      { number: 'D', customer: 'C-1', amount: 501, dueOn: '2026-12-31' },
    ]);
    await changeHoldByHand(world.ports, world.merchant, { ...hold, what: 'place' }, 'test');
    await world.run(trace);
    expect(await creditLeft(world)).toBe(7_000);
    await changeHoldByHand(world.ports, world.merchant, { ...hold, what: 'lift' }, 'test');
    expect((await world.run(trace)).counts).toMatchObject({ paid_by_credit: 2 });
    expect(
      await rows(
        world,
        `select o.billing_number as "from", i.billing_number as "on", u.amount from credit_uses u
         join invoices i on i.merchant_id = u.merchant_id and i.id = u.invoice_id
         join payments p on p.merchant_id = u.merchant_id and p.id = u.payment_id
         join invoices o on o.merchant_id = p.merchant_id and o.id = p.invoice_id
         where u.merchant_id = $1 order by u.id`,
      ),
    ).toEqual([
      { from: 'A1', on: 'C', amount: 1_500 },
      { from: 'A1', on: 'B', amount: 2_500 },
      { from: 'A2', on: 'B', amount: 2_500 },
    ]);
    // 500 are left, and the last bill is over one yen more.
    expect([await world.stateOf('D'), await creditLeft(world)]).toEqual(['open', 500]);
  });

  test('is used once, though two processes are at it, and a bill is paid once, though it is charged at the same moment', async () => {
    const world = await merchantWith('next_bill');
    const { ports, merchant } = world;
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    const bills = await world.make([
      { number: 'B', customer: 'C-1', dueOn: '2026-12-01' },
      { number: 'C', customer: 'C-1', dueOn: '2026-12-01' },
    ]);
    const days = { businessDate: '2026-12-01', today: '2026-12-01' };
    const pay = async (number: string) => {
      const act = {
        merchantId: merchant.id,
        id: ports.ids.uuid(),
        kind: 'job' as const,
        actor: number,
        at: world.clock.now(),
      };
      return worlds.db.transaction((tx) => payByCredit(tx, ports.ids, act, days, [bills.get(number) ?? '']));
    };
    const paid = await Promise.all([pay('B'), pay('C'), pay('B'), pay('C'), world.run(charge)]);
    const byCredit = paid.slice(0, 4).reduce<number>((sum, each) => sum + Number(each), 0);
    expect(byCredit + world.gateway.captured.length - 2).toBe(2);
    expect([await world.stateOf('B'), await world.stateOf('C')]).toEqual(['paid', 'paid']);
    expect(await creditLeft(world)).toBe(byCredit === 1 ? 0 : 5_000);
  });

  test('is spent by one at a time: who comes second waits, and finds what is left', async () => {
    const world = await merchantWith('next_bill');
    const { ports, merchant } = world;
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    const bills = await world.make([
      { number: 'B', customer: 'C-1' },
      { number: 'C', customer: 'C-1' },
    ]);
    const days = { businessDate: '2026-12-01', today: '2026-12-01' };
    const act = () => ({
      merchantId: merchant.id,
      id: ports.ids.uuid(),
      kind: 'job' as const,
      actor: 'test',
      at: world.clock.now(),
    });
    const pay = (tx: Tx, number: string) =>
      payByCredit(tx, ports.ids, act(), days, [bills.get(number) ?? '']);
    let second: Promise<number> = Promise.resolve(0);
    const first = await worlds.db.transaction(async (tx) => {
      const paid = await pay(tx, 'B');
      second = worlds.db.transaction((other) => pay(other, 'C'));
      let waiting = 0;
      while (waiting === 0) {
        const [row] = await tx.query<{ locks: number }>(
          `select count(*) as locks from pg_locks l join pg_stat_activity a on a.pid = l.pid
           where not l.granted and a.datname = current_database()`,
        );
        waiting = row?.locks ?? 0;
      }
      return paid;
    });
    expect([first, await second, await creditLeft(world)]).toEqual([1, 0, 0]);
  });

  test('comes free when the bill that it paid is recalled, and goes back when its own bill is', async () => {
    const world = await merchantWith('next_bill');
    const { merchant, ports } = world;
    const recall = async (number: string) => {
      const [row] = await worlds.db.query<{ name: string }>(
        `select f.name from invoices i join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
         where i.merchant_id = $1 and i.billing_number = $2`,
        [merchant.id, number],
      );
      const file = await recallableFile(worlds.db, merchant, row?.name ?? '');
      const { bills: count, amount: sum } = file;
      await beginRecall(ports, { merchant, file, count, sum, by: 'test' });
      return (await world.run(trace)).counts;
    };
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    await world.make([{ ...next, amount: 5_000 }]);
    await world.run(trace);
    expect(await recall('B')).toMatchObject({ recalls_done: 1 });
    expect([await world.stateOf('B'), await creditLeft(world)]).toEqual(['paid', 5_000]);
    await world.make([{ ...next, number: 'D', amount: 2_000 }]);
    await world.run(trace);
    expect([await world.stateOf('D'), await creditLeft(world)]).toEqual(['paid', 3_000]);
    // What pays another bill is not given back.
    expect(await recall('A')).toMatchObject({ refunded: 2, recalls_done: 1 });
    expect([...world.gateway.refunds.values()].map(({ amount }) => amount).sort()).toEqual([3_000, 5_000]);
    // Until that bill is recalled, too: the recall of the first goes on.
    expect(await recall('D')).toMatchObject({ recalls_done: 1 });
    expect((await world.run(trace)).counts).toMatchObject({ recalls_done: 1, refunded: 1 });
    expect(await creditLeft(world)).toBe(0);
    const told = (await adjustments(world)).map(
      ({ number, kind, sign, amount }) => `${number} ${kind} ${sign}${amount}`,
    );
    expect(told.sort()).toEqual([
      'A overpayment +2000',
      'A overpayment +5000',
      'A overpayment +5000',
      'A refund -2000',
      'A refund -3000',
      'A refund -5000',
      'A reversal -2000',
      'A reversal -5000',
      'B refund -5000',
      'D refund -2000',
    ]);
  });

  test('is never more than there was, whatever bills come and whatever they are over', async () => {
    const amounts = fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(amounts, amounts, async (surpluses, bills) => {
        const world = await merchantWith('next_bill');
        for (const [no, amount] of surpluses.entries())
          await paidTwice(world, { number: `A${no}`, customer: 'C-1', amount });
        await world.make(
          bills.map((amount, no) => ({ number: `B${no}`, customer: 'C-1', amount, dueOn: `2026-12-1${no}` })),
        );
        await world.run(trace);
        // By hand: the bill that is due first among those that what is left pays whole, again and again.
        let left = surpluses.reduce((sum, amount) => sum + amount, 0);
        for (const amount of bills) if (amount <= left) left -= amount;
        expect(await creditLeft(world)).toBe(left);
        await expectInvariants(worlds.db);
      }),
      { numRuns: 8 },
    );
  });
});

describe('a surplus under credit: refund', () => {
  test('goes back by the card that it came from; what a shop took stays; what the gateway refuses is a person’s', async () => {
    const world = await merchantWith('refund');
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    await paidTwice(world, { number: 'B', customer: 'C-1', amount: 700 }, 'barcode');
    world.gateway.refundsDo = ['rate_limited', 'timeout_after'];
    expect((await world.run(trace)).counts).toMatchObject({ refunds_unknown: 1 });
    world.clock.advance(5 * 60_000);
    expect((await world.run(trace)).counts).toMatchObject({ refunded: 1 });
    expect([...world.gateway.refunds.values()].map(({ amount }) => amount)).toEqual([5_000]);
    expect(await creditLeft(world)).toBe(700);
    expect((await adjustments(world)).filter(({ kind }) => kind === 'refund')).toEqual([
      { number: 'A', kind: 'refund', sign: '-', amount: 5_000 },
    ]);
    await paidTwice(world, { number: 'D', customer: 'C-1', amount: 900 });
    world.gateway.refundsDo = ['refused'];
    expect(await world.run(trace)).toMatchObject({ outcome: 'attention', counts: { refunds_refused: 1 } });
    expect((await world.run(trace)).counts).not.toHaveProperty('refunds_refused');
    expect(await creditLeft(world)).toBe(1_600);
  });
});

test('a surplus stays where nothing else is said, and while a database is learning what it forgot', async () => {
  const kept = await merchantWith('keep');
  const using = await merchantWith('next_bill');
  const giving = await merchantWith('refund');
  const all = [kept, using, giving];
  for (const world of all) {
    await paidTwice(world, { number: 'A', customer: 'C-1' });
    await world.make([next]);
  }
  await worlds.db.run(
    `insert into restores (id, began_at, begun_by, why, forgotten_from) values ($1, $2, 'test', 'test', $2)`,
    [using.ports.ids.uuid(), using.clock.now().toString()],
  );
  for (const world of all) await world.run(trace);
  expect(await Promise.all(all.map(creditLeft))).toEqual([5_000, 5_000, 5_000]);
  await worlds.db.run(`delete from restores`);
  for (const world of all) await world.run(trace);
  expect(await Promise.all(all.map(creditLeft))).toEqual([5_000, 2_000, 0]);
});
