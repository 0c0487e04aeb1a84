import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { barcodeDigits } from '../billing/barcodes/digits.ts';
import { learnPayments } from '../billing/barcodes/learn.ts';
import { insertBarcodes } from '../billing/barcodes/queries.ts';
import { insertCharges } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { insertSession } from '../billing/checkout/queries.ts';
import { idBehind, referenceOf } from '../billing/ids.ts';
import { trialBalance } from '../billing/ledger/queries.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { takeInCharges } from '../billing/restores/take-in-charges.ts';
import { dunning } from '../jobs/dunning.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, expectInvariants, moneyState } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

let database: TestDatabase;
const worlds: Bills[] = [];

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(async () => {
  for (const world of worlds) world.close();
  await database?.drop();
});

const amount = 5_000;

interface Story extends Bills {
  invoiceId: string;
  digits: string;
  /** What a webhook about a payment leads to. */
  hear(reference: string): Promise<void>;
  /** A card's page is opened; its charge, and how to pay on it. */
  opensCard(): Promise<string>;
  asks(chargeId: string): Promise<void>;
  adjustments(): Promise<string[]>;
}

/** One link bill with a barcode that was issued. */
async function story(now = '2026-12-01T01:00:00Z'): Promise<Story> {
  const world = await billsOf(database.db, { code: `shop-${worlds.length}`, now });
  worlds.push(world);
  const { ports, merchant, gateway } = world;
  const invoiceId =
    (
      await world.make([
        { number: 'A', collection: 'link', dueOn: '2026-12-20', act: 'dun', actOn: '2026-12-01' },
      ])
    ).get('A') ?? '';
  const digits = barcodeDigits({
    issuer: '929023',
    companyCode: '12345',
    paymentNumber: 1,
    numberDigits: 10,
    reissue: 0,
    lastDay: '2027-01-10',
    stamp: false,
    amount,
  });
  await database.db.transaction((tx) =>
    insertBarcodes(
      tx,
      merchant.id,
      [{ invoiceId, reissue: 0, digits, amount, expires_on: '2027-01-10' }],
      world.clock.now(),
    ),
  );
  const act = () => ({
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'visit' as const,
    actor: 'test',
    at: world.clock.now(),
  });
  return {
    ...world,
    invoiceId,
    digits,
    async hear(reference) {
      const id = idBehind(reference) ?? '';
      await learnPayments(database.db, ports, merchant, [id]);
      await learnFromGateway(database.db, ports, merchant, [id], 'webhook');
    },
    async opensCard() {
      const [chargeId, sessionId, intentId] = [ports.ids.uuid(), ports.ids.uuid(), ports.ids.uuid()];
      const expiresAt = world.clock.now().add({ hours: 1 }).toString();
      await database.db.transaction(async (tx) => {
        const session = {
          sessionId,
          intentId,
          invoiceId,
          linkVersion: 1,
          language: 'ja',
          method: 'card' as const,
        };
        await insertSession(tx, act(), {
          ...session,
          enrol: false,
          termsVersion: null,
          expiresAt,
          amount,
          currency: 'JPY',
        });
        await insertCharges(tx, act(), [
          {
            id: chargeId,
            intentId,
            invoiceId,
            sessionId,
            origin: 'link',
            gateway: 'simulator',
            paymentMethodId: null,
            amount,
            currency: 'JPY',
            businessDate: '2026-12-01',
            deadlineAt: world.clock.now().add({ seconds: 10 }).toString(),
            askAt: expiresAt,
          },
        ]);
      });
      await gateway.openHostedPage(
        {
          account: merchant.code,
          reference: referenceOf(chargeId),
          invoiceId,
          amount,
          currency: 'JPY',
          returnUrl: 'https://pay.invalid/r',
          language: 'ja',
          merchantName: 'ガス',
          method: 'card',
          saveMethod: false,
          expiresAt,
        },
        AbortSignal.timeout(1_000),
      );
      return chargeId;
    },
    async asks(chargeId) {
      await learnFromGateway(database.db, ports, merchant, [chargeId], 'return');
    },
    async adjustments() {
      const rows = await database.db.query<{ kind: string }>(
        `select kind from adjustment_rows where merchant_id = $1 order by kind`,
        [merchant.id],
      );
      return rows.map((row) => row.kind);
    },
  };
}

/** What is left on each account that money passes through. */
async function left(world: Story): Promise<Record<string, number>> {
  const rows = await database.db.transaction((tx) => trialBalance(tx, { merchantId: world.merchant.id }));
  const balances = new Map(rows.map((row) => [row.account as string, row.debit - row.credit]));
  const of = (account: string) => balances.get(account) ?? 0;
  return {
    receivable: of('receivable'),
    preliminary: of('preliminary'),
    gateway_clearing: of('gateway_clearing'),
    customer_credit: of('customer_credit'),
    returned: of('returned'),
  };
}

const nothing = { receivable: 0, preliminary: 0, gateway_clearing: 0, customer_credit: 0, returned: 0 };

async function told(world: Story): Promise<string[]> {
  const rows = await database.db.query<{ outcome: string; method: string; collected_on: string | null }>(
    `select outcome, method, collected_on from result_rows where merchant_id = $1 order by known_at, outcome`,
    [world.merchant.id],
  );
  return rows.map((row) => [row.outcome, row.method, row.collected_on].filter(Boolean).join(' '));
}

describe('a barcode paid at a shop', () => {
  test('the shop’s word keeps everybody from asking again; when it is certain the bill is paid', async () => {
    const world = await story();
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    expect(await world.stateOf('A')).toBe('open');
    expect(await left(world)).toEqual({ ...nothing, preliminary: amount });
    expect(await told(world)).toEqual(['paid_preliminary barcode 2026-12-01']);

    // Nobody is reminded while it stands.
    world.clock.set('2026-12-16T01:00:00Z');
    await world.run(dunning);
    expect(
      await database.db.query(`select step from messages where merchant_id = $1`, [world.merchant.id]),
    ).toEqual([]);

    world.gateway.shopConfirms(payment);
    // No webhook: trace asks.
    await world.run(trace);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
    expect(await told(world)).toEqual([
      'paid_preliminary barcode 2026-12-01',
      // The day on which the customer paid, not the one on which it was certain.
      'paid barcode 2026-12-01',
    ]);
    await expectInvariants(database.db);
  });

  test('taken back: the bill is owed again, and reminded of', async () => {
    const world = await story();
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    world.gateway.shopCancels(payment);
    await world.hear(payment);
    expect(await world.stateOf('A')).toBe('open');
    expect(await left(world)).toEqual({ ...nothing, receivable: amount });
    expect(await told(world)).toEqual([
      'paid_preliminary barcode 2026-12-01',
      'preliminary_cancelled barcode',
    ]);
    expect(await moneyState(database.db, world.merchant.id)).toMatchObject({ locks: [{ locks: 0 }] });
    await world.run(dunning);
    expect(
      await database.db.query(`select step from messages where merchant_id = $1`, [world.merchant.id]),
    ).toHaveLength(1);
  });

  test('final without any word before it, and never heard but by the daily news', async () => {
    const world = await story();
    const payment = world.gateway.shopTakes(world.digits, amount);
    world.gateway.shopConfirms(payment);
    await world.run(reconcile);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await told(world)).toEqual(['paid barcode 2026-12-01']);
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
  });

  test('paid after the card: the customer’s credit, told as an overpayment', async () => {
    const world = await story();
    const card = await world.opensCard();
    world.gateway.customerPays(referenceOf(card), null);
    await world.asks(card);
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
    world.gateway.shopConfirms(payment);
    await world.hear(payment);
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: 2 * amount, customer_credit: -amount });
    expect(await world.adjustments()).toEqual(['overpayment']);
    expect(await told(world)).toEqual(['paid card 2026-12-01']);
  });

  test('paid after its file was recalled: the money is given back, and the recall is over again', async () => {
    const world = await story();
    const { ports, merchant } = world;
    const [row] = await database.db.query<{ name: string }>(
      `select name from billing_files where merchant_id = $1`,
      [merchant.id],
    );
    const file = await recallableFile(database.db, merchant, row?.name ?? '');
    await beginRecall(ports, { merchant, file, count: file.bills, sum: file.amount, by: 'operator@test' });
    await world.run(trace);
    expect(await world.stateOf('A')).toBe('cancelled');
    const payment = world.gateway.shopTakes(world.digits, amount);
    world.gateway.shopConfirms(payment);
    await world.hear(payment);
    expect((await world.run(trace)).counts).toMatchObject({ refunded: 1, recalls_done: 1 });
    expect([...world.gateway.refunds.values()].map((refund) => refund.amount)).toEqual([amount]);
    expect(await left(world)).toEqual(nothing);
    await expectInvariants(database.db);
  });

  test('paid at two shops: the second is a credit', async () => {
    const world = await story();
    const [one, other] = [
      world.gateway.shopTakes(world.digits, amount),
      world.gateway.shopTakes(world.digits, amount),
    ];
    await world.hear(one);
    await world.hear(other);
    expect(await left(world)).toEqual({ ...nothing, preliminary: amount });
    world.gateway.shopConfirms(other);
    world.gateway.shopConfirms(one);
    await world.hear(other);
    await world.hear(one);
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: 2 * amount, customer_credit: -amount });
    expect(await world.adjustments()).toEqual(['overpayment']);
  });

  test('paid while a card’s page is open: the shop’s word counts when the page came to nothing', async () => {
    const world = await story();
    const card = await world.opensCard();
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    expect(await left(world)).toEqual({ ...nothing, receivable: amount });
    await world.gateway.closeHostedPage(world.merchant.code, referenceOf(card), AbortSignal.timeout(1_000));
    await world.asks(card);
    expect(await left(world)).toEqual({ ...nothing, preliminary: amount });
    world.gateway.shopConfirms(payment);
    await world.hear(payment);
    expect(await world.stateOf('A')).toBe('paid');
  });

  test('a card’s money that is learned late takes the place of the shop’s word', async () => {
    const world = await story();
    const card = await world.opensCard();
    // The page was taken for closed, on the word of a gateway that was wrong.
    await database.db.transaction((tx) =>
      recordOutcomes(tx, {
        act: {
          merchantId: world.merchant.id,
          id: world.ports.ids.uuid(),
          kind: 'job',
          actor: 'test',
          at: world.clock.now(),
        },
        timezone: 'Asia/Tokyo',
        learnedBy: 'trace',
        learned: [{ chargeId: card, outcome: { kind: 'canceled', why: 'not_found' } }],
        ids: world.ports.ids,
        sealer: world.ports.sealer,
      }),
    );
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    world.gateway.customerPays(referenceOf(card), null);
    await world.asks(card);
    expect(await world.stateOf('A')).toBe('paid');
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
    expect(await moneyState(database.db, world.merchant.id)).toMatchObject({ locks: [{ locks: 0 }] });
    world.gateway.shopCancels(payment);
    await world.hear(payment);
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
  });

  test('a barcode that is not ours, and one with another amount, are told and not booked', async () => {
    const world = await story();
    await world.hear(world.gateway.shopTakes(`${world.digits.slice(0, 43)}x`, amount));
    await world.hear(world.gateway.shopTakes(world.digits, amount + 1));
    expect(await left(world)).toEqual({ ...nothing, receivable: amount });
    const alerts = await database.db.query<{ cause: string }>(
      `select cause from alerts where merchant_id = $1 order by cause`,
      [world.merchant.id],
    );
    expect(alerts.map(({ cause }) => cause)).toEqual(['AMOUNT_DIFFERS', 'BARCODE_UNKNOWN']);
  });

  test('neither certain nor taken back after two weeks: a finding, settled by the news that come at last', async () => {
    const world = await story();
    const payment = world.gateway.shopTakes(world.digits, amount);
    await world.hear(payment);
    world.clock.set('2026-12-20T01:00:00Z');
    await world.run(reconcile);
    const findings = () =>
      database.db.query(`select kind, state from findings where merchant_id = $1`, [world.merchant.id]);
    expect(await findings()).toEqual([{ kind: 'preliminary_not_confirmed', state: 'open' }]);
    world.gateway.shopConfirms(payment);
    await world.hear(payment);
    world.clock.set('2026-12-21T01:00:00Z');
    await world.run(reconcile);
    expect(await findings()).toEqual([{ kind: 'preliminary_not_confirmed', state: 'settled' }]);
  });

  test('forgotten by a database that was put back: the scanned barcode says whose it is', async () => {
    const world = await story();
    const payment = world.gateway.shopTakes(world.digits, amount);
    world.gateway.shopConfirms(payment);
    const list = world.gateway.listCharges(
      world.merchant.code,
      '2026-11-30T00:00:00Z',
      '2026-12-02T00:00:00Z',
      AbortSignal.timeout(1_000),
    );
    const counts = await takeInCharges(world.ports, { merchant: world.merchant, actor: 'test' }, list);
    expect(counts).toMatchObject({ listed: 1, recovered: 1, amount_recovered: amount, findings: 0 });
    expect(await world.stateOf('A')).toBe('paid');
    expect(await left(world)).toEqual({ ...nothing, gateway_clearing: amount });
  });

  test('dunning waits for the news of shops, but only where a barcode was issued', async () => {
    const world = await story('2026-12-22T01:00:00Z');
    await world.make([
      { number: 'B', collection: 'link', dueOn: '2026-12-20', act: 'dun', actOn: '2026-12-22' },
    ]);
    await database.db.run(
      `insert into watermarks (merchant_id, method, complete_to) values ($1, 'card', '2026-12-31')
       on conflict (merchant_id, method) do update set complete_to = excluded.complete_to`,
      [world.merchant.id],
    );
    world.clock.set('2027-01-25T01:00:00Z');
    await database.db.run(`update watermarks set complete_to = '2027-01-24' where merchant_id = $1`, [
      world.merchant.id,
    ]);
    await world.run(dunning);
    expect([await world.stateOf('A'), await world.stateOf('B')]).toEqual(['open', 'unpaid']);
    await world.run(reconcile);
    world.clock.set('2027-01-26T01:00:00Z');
    await world.run(dunning);
    expect(await world.stateOf('A')).toBe('unpaid');
  });
});

/** What happens in the world of one bill. */
type Event =
  | 'card pays'
  | 'card ends'
  | 'card asked'
  | 'shop 1 takes'
  | 'shop 1 confirms'
  | 'shop 1 cancels'
  | 'shop 1 heard'
  | 'shop 2 takes'
  | 'shop 2 confirms'
  | 'shop 2 cancels'
  | 'shop 2 heard'
  | 'trace'
  | 'reconcile';

const events: Event[] = [
  'card pays',
  'card ends',
  'card asked',
  'shop 1 takes',
  'shop 1 confirms',
  'shop 1 cancels',
  'shop 1 heard',
  'shop 2 takes',
  'shop 2 confirms',
  'shop 2 cancels',
  'shop 2 heard',
  'trace',
  'reconcile',
];

/** Money in, and what became of it, whatever happened in whatever order; then everything is heard to its end. */
async function live(order: readonly Event[]): Promise<{ world: Story; took: number }> {
  const world = await story();
  const { gateway, merchant } = world;
  const card = await world.opensCard();
  const payments: Record<string, { reference: string; state: 'preliminary' | 'final' | 'cancelled' }> = {};
  let page: 'open' | 'paid' | 'closed' = 'open';
  const act = async (event: Event) => {
    world.clock.advance(60_000);
    const shop = event.slice(0, 6);
    const payment = payments[shop];
    if (event === 'card pays' && page === 'open') {
      gateway.customerPays(referenceOf(card), null);
      page = 'paid';
    } else if (event === 'card ends' && page === 'open') {
      await gateway.closeHostedPage(merchant.code, referenceOf(card), AbortSignal.timeout(1_000));
      page = 'closed';
    } else if (event === 'card asked') await world.asks(card);
    else if (event === 'trace') await world.run(trace);
    else if (event === 'reconcile') await world.run(reconcile);
    else if (event.endsWith('takes') && payment === undefined) {
      payments[shop] = { reference: gateway.shopTakes(world.digits, amount), state: 'preliminary' };
    } else if (event.endsWith('heard') && payment !== undefined) await world.hear(payment.reference);
    else if (event.endsWith('confirms') && payment?.state === 'preliminary') {
      gateway.shopConfirms(payment.reference);
      payment.state = 'final';
    } else if (event.endsWith('cancels') && payment?.state === 'preliminary') {
      gateway.shopCancels(payment.reference);
      payment.state = 'cancelled';
    }
  };
  for (const event of order) await act(event);
  await act('card ends');
  await act('card asked');
  for (const shop of ['shop 1', 'shop 2'] as const) {
    if (payments[shop] === undefined) continue;
    // A gateway comes to an end with every payment.
    await act(`${shop} confirms`);
    await act(`${shop} heard`);
    await act(`${shop} heard`);
  }
  await act('trace');
  const finals = Object.values(payments).filter(({ state }) => state === 'final').length;
  return { world, took: finals + ((page as string) === 'paid' ? 1 : 0) };
}

test('any order of card, shops and news ends the same: what came in is paid once, and the rest is credit', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.constantFrom(...events), { minLength: 4, maxLength: 14 }), async (order) => {
      const { world, took } = await live(order);
      expect(await left(world)).toEqual({
        ...nothing,
        receivable: took === 0 ? amount : 0,
        gateway_clearing: took * amount,
        customer_credit: took > 1 ? -(took - 1) * amount : 0,
      });
      expect(await world.stateOf('A')).toBe(took === 0 ? 'open' : 'paid');
      expect(await world.adjustments()).toEqual(
        Array.from({ length: Math.max(0, took - 1) }, () => 'overpayment'),
      );
      expect(await moneyState(database.db, world.merchant.id)).toMatchObject({
        locks: [{ locks: 0 }],
        parked: [],
      });
    }),
    { numRuns: 40, seed: 20_261_201 },
  );
  await expectInvariants(database.db);
}, 300_000);
