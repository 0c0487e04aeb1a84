import { describe, expect, test } from 'vitest';
import type { CrashPoint } from '../billing/crash-points.ts';
import { referenceOf } from '../billing/ids.ts';
import { ledgerDifferences, trialBalance } from '../billing/ledger/queries.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { forecastOf, progressOf, recallOfFile } from '../billing/recalls/queries.ts';
import {
  enterGivenBack,
  type GivenByMerchant,
  paymentMeant,
  type RefundByHand,
  refundablePayment,
  refundByHand,
} from '../billing/refunds/by-hand.ts';
import { listRefunds } from '../billing/refunds/queries.ts';
import { chargesKnown } from '../billing/restores/queries.ts';
import { charge } from '../jobs/charge.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, worldsOf } from './bills.ts';
import { Killed } from './inbox.ts';
import { paidTwice } from './surplus.ts';

const worlds = worldsOf('refund');

/** A bill of 5,000 that was charged. */
async function paidBill(): Promise<Bills> {
  const world = await worlds.open();
  await world.make([{ number: 'A' }]);
  await world.run(charge);
  return world;
}

const paymentOf = (world: Bills, what: string) =>
  refundablePayment(worlds.db, world.merchant, world.gateway.name, what);

async function giveBack(world: Bills, amount: number, more: Partial<RefundByHand> = {}, what = 'A') {
  const { charge_id: chargeId } = await paymentOf(world, what);
  const wish = { chargeId, amount, reason: 'ticket 1', by: 'operator@test', again: false };
  return refundByHand(world.ports, world.merchant, { ...wish, ...more });
}

const given = (world: Bills) => [...world.gateway.refunds.values()].map(({ amount }) => amount);
const minutes = (world: Bills, count: number) => world.clock.advance(count * 60_000);

async function enterGiven(world: Bills, more: Partial<GivenByMerchant> = {}, what = 'A') {
  const { charge_id: chargeId } = await paymentMeant(worlds.db, world.merchant, what);
  const wish = { chargeId, amount: 5_000, reason: 'by transfer', by: 'operator@test', again: false };
  return enterGivenBack(world.ports, world.merchant, { ...wish, givenOn: '2026-12-01', ...more });
}

const adjustmentsOf = (world: Bills) =>
  worlds.db.query(
    `select kind, sign, amount, collected_on::text as day from adjustment_rows where merchant_id = $1 order by known_at, kind`,
    [world.merchant.id],
  );

async function recallTheFile(world: Bills): Promise<void> {
  const [row] = await worlds.db.query<{ name: string }>(
    `select name from billing_files where merchant_id = $1`,
    [world.merchant.id],
  );
  const file = await recallableFile(worlds.db, world.merchant, row?.name ?? '');
  await beginRecall(world.ports, { merchant: world.merchant, file, count: 1, sum: 5_000, by: 'test' });
}

async function balanceOf(world: Bills): Promise<Record<string, number>> {
  const rows = await trialBalance(worlds.db, { merchantId: world.merchant.id });
  return Object.fromEntries(rows.map(({ account, balance }) => [account, balance]));
}

describe('money that goes back by hand', () => {
  test('goes in parts up to the payment; the bill stays paid, the merchant and the books are told of each, with who and why', async () => {
    const world = await paidBill();
    expect(await giveBack(world, 1_200)).toMatchObject({ state: 'succeeded', left: 3_800 });
    minutes(world, 1);
    expect(await giveBack(world, 3_800, { reason: 'ticket 2' })).toMatchObject({
      state: 'succeeded',
      left: 0,
    });
    await expect(giveBack(world, 1, { reason: 'ticket 3' })).rejects.toMatchObject({
      code: 'REFUND_TOO_MUCH',
      exitCode: 2,
    });
    expect(given(world)).toEqual([1_200, 3_800]);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await balanceOf(world)).toEqual({ receivable: 0, billed: 0, gateway_clearing: 0 });
    expect(
      await worlds.db.query(
        `select kind, sign, amount from adjustment_rows where merchant_id = $1 order by known_at`,
        [world.merchant.id],
      ),
    ).toEqual([
      { kind: 'refund', sign: '-', amount: 1_200 },
      { kind: 'refund', sign: '-', amount: 3_800 },
    ]);
    expect(await listRefunds(worlds.db, world.merchant.id, 10)).toMatchObject([
      {
        billing_number: 'A',
        amount: 3_800,
        state: 'succeeded',
        asked_by: 'operator@test',
        reason: 'ticket 2',
      },
      {
        billing_number: 'A',
        amount: 1_200,
        state: 'succeeded',
        asked_by: 'operator@test',
        reason: 'ticket 1',
      },
    ]);
    expect(
      await worlds.db.query(
        `select distinct a.actor from state_history h
         join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
         where h.merchant_id = $1 and h.subject = 'refund'`,
        [world.merchant.id],
      ),
    ).toEqual([{ actor: 'operator@test' }]);
    minutes(world, 24 * 60);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done' });
  });

  test('is asked for by two operators at once: what is together too much, and what is the same, goes once', async () => {
    const world = await paidBill();
    const both = await Promise.allSettled([
      giveBack(world, 3_000),
      giveBack(world, 3_000, { by: 'other@test' }),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const refused = both.find((each) => each.status === 'rejected');
    expect(refused?.reason.code).toMatch(/^REFUND_(UNDER_WAY|MADE_BEFORE)$/);
    expect(given(world)).toEqual([3_000]);
    await expect(giveBack(world, 2_001, { by: 'other@test' })).rejects.toMatchObject({
      code: 'REFUND_TOO_MUCH',
    });
    await expect(giveBack(world, 3_000)).rejects.toMatchObject({ code: 'REFUND_MADE_BEFORE' });
    expect(given(world)).toEqual([3_000]);
    await giveBack(world, 1_000, { reason: 'ticket 2' });
    await giveBack(world, 1_000, { reason: 'ticket 2', again: true });
    expect(given(world)).toEqual([3_000, 1_000, 1_000]);
  });

  test.each([
    ['timeout_after', 1, [2_000]],
    ['timeout_before', 1, []],
  ] as const)('%s counts as given until it is known; nothing goes twice', async (behaviour, calls, sums) => {
    const world = await paidBill();
    world.gateway.refundsDo = [behaviour];
    expect(await giveBack(world, 2_000)).toMatchObject({ state: 'unknown', left: 3_000 });
    await expect(giveBack(world, 2_000)).rejects.toMatchObject({ code: 'REFUND_UNDER_WAY', exitCode: 3 });
    await expect(giveBack(world, 1)).rejects.toMatchObject({ code: 'REFUND_UNDER_WAY' });
    for (let pass = 0; pass < 4; pass += 1) {
      minutes(world, 3);
      await world.run(trace);
    }
    expect(given(world)).toEqual(sums);
    expect(world.gateway.refundCalls).toHaveLength(calls);
    // Where nothing went back, the same command does it now.
    const repeated = giveBack(world, 2_000);
    if (sums.length > 0) await expect(repeated).rejects.toMatchObject({ code: 'REFUND_MADE_BEFORE' });
    else expect(await repeated).toMatchObject({ state: 'succeeded' });
    expect(given(world)).toEqual([2_000]);
    expect((await paymentOf(world, 'A')).left).toBe(3_000);
  });

  test.each<[CrashPoint, number]>([
    ['refund.after_intent', 0],
    ['refund.after_gateway', 1],
    ['refund.after_outcome', 1],
  ])('killed at %s is found again', async (point, made) => {
    const world = await paidBill();
    const { ports } = world;
    const mortal = {
      ...world,
      ports: {
        ...ports,
        crash: async (at: CrashPoint) => {
          if (at === point) throw new Killed(at);
        },
      },
    };
    await expect(giveBack(mortal, 2_000)).rejects.toBeInstanceOf(Killed);
    for (let pass = 0; pass < 4; pass += 1) {
      minutes(world, 3);
      await world.run(trace);
    }
    expect(given(world)).toHaveLength(made);
    expect((await listRefunds(worlds.db, world.merchant.id, 10)).map(({ state }) => state)).toEqual([
      made === 1 ? 'succeeded' : 'canceled',
    ]);
    if (made === 0) await giveBack(world, 2_000);
    expect(given(world)).toEqual([2_000]);
  });

  test('that the gateway refuses or is too busy for leaves the payment as it was', async () => {
    const world = await paidBill();
    world.gateway.refundsDo = ['refused', 'rate_limited'];
    expect(await giveBack(world, 5_000)).toMatchObject({
      state: 'failed',
      left: 5_000,
      code: 'charge_not_refundable',
    });
    expect(await giveBack(world, 5_000)).toMatchObject({ state: 'canceled', left: 5_000 });
    expect(await giveBack(world, 5_000)).toMatchObject({ state: 'succeeded', left: 0 });
  });
});

describe('money that the merchant gave back itself', () => {
  test('is entered: nobody is asked, the gateway keeps what it holds, the books and the merchant are told', async () => {
    const world = await paidBill();
    minutes(world, 24 * 60);
    expect(await enterGiven(world, { amount: 2_000 })).toMatchObject({ state: 'succeeded', left: 3_000 });
    expect(await enterGiven(world, { amount: 3_000, givenOn: '2026-12-02' })).toMatchObject({ left: 0 });
    expect(given(world)).toEqual([]);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await balanceOf(world)).toEqual({
      receivable: 0,
      billed: 0,
      gateway_clearing: 5_000,
      given_by_merchant: -5_000,
    });
    expect(await adjustmentsOf(world)).toEqual([
      { kind: 'refund', sign: '-', amount: 2_000, day: '2026-12-01' },
      { kind: 'refund', sign: '-', amount: 3_000, day: '2026-12-02' },
    ]);
    expect((await listRefunds(worlds.db, world.merchant.id, 10)).map(({ gateway }) => gateway)).toEqual([
      'merchant',
      'merchant',
    ]);
    await expect(giveBack(world, 1)).rejects.toMatchObject({ code: 'REFUND_TOO_MUCH' });
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done' });
    const { code } = world.merchant;
    expect((await ledgerDifferences(worlds.db)).filter(({ merchant }) => merchant === code)).toEqual([]);
  });

  test('a surplus from a shop is no credit any more', async () => {
    const world = await worlds.open();
    const { credit } = await paidTwice(world, { number: 'A' }, 'barcode');
    expect(await enterGiven(world, {}, credit)).toMatchObject({ state: 'succeeded', left: 0 });
    expect(await balanceOf(world)).toMatchObject({
      gateway_clearing: 10_000,
      customer_credit: 0,
      given_by_merchant: -5_000,
    });
  });

  test('ends the recall that no gateway could end', async () => {
    const world = await worlds.open();
    const { credit, payment } = await paidTwice(world, { number: 'A' }, 'barcode');
    const [row] = await worlds.db.query<{ id: string }>(
      `select id from billing_files where merchant_id = $1`,
      [world.merchant.id],
    );
    const fileId = row?.id ?? '';
    const foreseen = { amount_refunded: 10_000, by_shop_or_bank: 1, amount_by_shop_or_bank: 5_000 };
    expect(await forecastOf(worlds.db, world.merchant.id, fileId)).toMatchObject(foreseen);
    // The card's money goes back, the shop's does not.
    world.gateway.refundsDo = credit < payment ? ['refused', 'ok'] : ['ok', 'refused'];
    await recallTheFile(world);
    expect((await world.run(trace)).outcome).toBe('attention');
    const progress = async () => {
      const recall = await recallOfFile(worlds.db, world.merchant.id, fileId);
      if (recall === undefined) throw new Error('there is no recall');
      return { state: recall.state, ...(await progressOf(worlds.db, world.merchant.id, recall)) };
    };
    expect(await progress()).toMatchObject({
      state: 'running',
      refused: 1,
      amount_refunded: 5_000,
      amount_refused: 5_000,
      by_shop_or_bank: 1,
      amount_by_shop_or_bank: 5_000,
    });
    await enterGiven(world, {}, credit);
    expect((await world.run(trace)).counts).toMatchObject({ recalls_done: 1 });
    expect(await progress()).toMatchObject({
      state: 'done',
      refunded: 1,
      amount_refunded: 10_000,
      amount_refused: 0,
      by_shop_or_bank: 0,
      amount_by_shop_or_bank: 0,
    });
  });

  test('is refused where it cannot be true, and where the gateway may give it too', async () => {
    const world = await paidBill();
    for (const givenOn of ['2026-11-30', '2026-12-02', '2026-13-01', '01.12.2026', ''])
      await expect(enterGiven(world, { givenOn }), givenOn).rejects.toMatchObject({
        code: 'REFUND_DATE',
        exitCode: 2,
        next: 'Give --on as YYYY-MM-DD, from 2026-12-01 to 2026-12-01.',
      });
    await expect(enterGiven(world, { amount: 5_001 })).rejects.toMatchObject({ code: 'REFUND_TOO_MUCH' });
    const both = await Promise.allSettled([enterGiven(world), enterGiven(world, { reason: 'ticket 2' })]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(both.find((each) => each.status === 'rejected')?.reason.code).toBe('REFUND_TOO_MUCH');
    expect(await adjustmentsOf(world)).toHaveLength(1);
    expect(await balanceOf(world)).toMatchObject({ given_by_merchant: -5_000 });
    const other = await paidBill();
    other.gateway.refundsDo = ['timeout_after'];
    expect(await giveBack(other, 5_000)).toMatchObject({ state: 'unknown' });
    await expect(enterGiven(other)).rejects.toMatchObject({ code: 'REFUND_UNDER_WAY', exitCode: 3 });
    expect(await adjustmentsOf(other)).toEqual([]);
  });
});

describe('money that the merchant gave back, and the database forgot', () => {
  test('is entered again before anything goes out, under the reference that the merchant was told', async () => {
    const world = await paidBill();
    await worlds.db.run(
      `insert into restores (id, began_at, begun_by, why, forgotten_from) values ($1, $2, 'test', 'test', $2)`,
      [world.ports.ids.uuid(), world.clock.now().toString()],
    );
    const told = world.ports.ids.uuid();
    await expect(enterGiven(world, { reference: 'nonsense' })).rejects.toMatchObject({
      code: 'REFUND_REFERENCE',
    });
    expect(await enterGiven(world, { reference: referenceOf(told) })).toMatchObject({ id: told });
    expect(
      await worlds.db.query(`select cause_id from adjustment_rows where merchant_id = $1`, [
        world.merchant.id,
      ]),
    ).toEqual([{ cause_id: told }]);
    await worlds.db.run(`delete from restores`);
    await expect(enterGiven(world, { amount: 1, reference: referenceOf(told) })).rejects.toMatchObject({
      code: 'REFUND_REFERENCE',
    });
  });
});

test('what the merchant gave back does not count as the gateway’s where a restore compares with its list', async () => {
  const world = await paidBill();
  await enterGiven(world, { amount: 3_000 });
  await giveBack(world, 1_000);
  const { charge_id: id } = await paymentOf(world, 'A');
  expect((await chargesKnown(worlds.db, world.merchant.id, [id])).get(id)).toMatchObject({ refunded: 1_000 });
});

describe('a bill with two payments in a recall', () => {
  test('has the second one given back though the first is refused', async () => {
    const world = await worlds.open();
    const { credit, payment } = await paidTwice(world, { number: 'A' }, 'barcode');
    world.gateway.refundsDo = credit < payment ? ['refused', 'rate_limited'] : ['rate_limited', 'refused'];
    await recallTheFile(world);
    await world.run(trace);
    expect(given(world)).toEqual([5_000]);
    expect(await balanceOf(world)).toMatchObject({ gateway_clearing: 5_000 });
    await enterGiven(world, {}, credit);
    expect((await world.run(trace)).counts).toMatchObject({ recalls_done: 1 });
  });

  test('has to be named, also where one of the two has nothing left: the command given again would mean the other', async () => {
    const world = await worlds.open();
    const { credit } = await paidTwice(world, { number: 'A' }, 'barcode');
    await enterGiven(world, {}, credit);
    await expect(enterGiven(world)).rejects.toMatchObject({ code: 'REFUND_WHICH' });
    await expect(giveBack(world, 5_000)).rejects.toMatchObject({ code: 'REFUND_WHICH' });
  });
});

describe('what is refused, with what to do', () => {
  test('a payment at a shop, one that is on another bill, one of two', async () => {
    const world = await worlds.open({ settings: 'credit: next_bill\n' });
    const shop = await paidTwice(world, { number: 'A', customer: 'C-1' }, 'barcode');
    await expect(paymentOf(world, 'A')).rejects.toMatchObject({
      code: 'REFUND_WHICH',
      next: expect.stringContaining(`${shop.credit} (the surplus, 5000 left)`),
    });
    await expect(paymentOf(world, shop.credit)).rejects.toMatchObject({
      code: 'REFUND_NOT_BY_GATEWAY',
      next: expect.stringContaining('bank transfer'),
    });
    expect(await giveBack(world, 100, {}, shop.payment)).toMatchObject({ left: 4_900 });
    const card = await paidTwice(world, { number: 'B', customer: 'C-2' });
    await world.make([
      { number: 'D', customer: 'C-2', amount: 3_000, collection: 'link', dueOn: '2026-12-25' },
    ]);
    await world.run(trace);
    await expect(giveBack(world, 2_001, {}, card.credit)).rejects.toMatchObject({
      code: 'REFUND_TOO_MUCH',
      message: 'of 5000 that were taken 2000 are left: 0 went back, 3000 pay another bill',
    });
    expect(await giveBack(world, 2_000, {}, card.credit)).toMatchObject({ state: 'succeeded', left: 0 });
    // Paid by a credit: there is no money of its own.
    await expect(paymentOf(world, 'D')).rejects.toMatchObject({ code: 'REFUND_NO_PAYMENT' });
    await expect(paymentOf(world, 'nothing')).rejects.toMatchObject({ code: 'REFUND_NO_PAYMENT' });
  });

  test('a bill whose file is recalled; a reason that is none; while a database learns what it forgot', async () => {
    const world = await paidBill();
    const { charge_id: chargeId } = await paymentOf(world, 'A');
    const wish = { chargeId, amount: 1, reason: 'x', by: 'test', again: false };
    for (const reason of [' ', 'two\nlines', 'x'.repeat(201)])
      await expect(refundByHand(world.ports, world.merchant, { ...wish, reason })).rejects.toMatchObject({
        code: 'REFUND_REASON',
      });
    await expect(refundByHand(world.ports, world.merchant, { ...wish, amount: 0 })).rejects.toMatchObject({
      code: 'REFUND_TOO_MUCH',
    });
    await worlds.db.run(
      `insert into restores (id, began_at, begun_by, why, forgotten_from) values ($1, $2, 'test', 'test', $2)`,
      [world.ports.ids.uuid(), world.clock.now().toString()],
    );
    await expect(refundByHand(world.ports, world.merchant, wish)).rejects.toMatchObject({
      code: 'SAFE_MODE',
    });
    await worlds.db.run(`delete from restores`);
    await giveBack(world, 1_500);
    await recallTheFile(world);
    // A recall gives back what is left.
    await world.run(trace);
    expect(given(world)).toEqual([1_500, 3_500]);
    await expect(paymentOf(world, 'A')).rejects.toMatchObject({ code: 'REFUND_RECALLED' });
  });

  test.each(['timeout_after', 'timeout_before'] as const)(
    'a bill whose file is recalled while a refund by hand (%s) is under way: whether the gateway gave it or not, the money goes back once',
    async (behaviour) => {
      const world = await paidBill();
      world.gateway.refundsDo = [behaviour];
      expect(await giveBack(world, 5_000)).toMatchObject({ state: 'unknown' });
      await recallTheFile(world);
      for (let pass = 0; pass < 6; pass += 1) {
        await world.run(trace);
        minutes(world, 2);
      }
      expect(given(world)).toEqual([5_000]);
      expect(
        await worlds.db.query(`select state, outcome from recall_bills where merchant_id = $1`, [
          world.merchant.id,
        ]),
      ).toEqual([{ state: 'done', outcome: 'refunded' }]);
    },
  );
});
