import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ensureAutoIntents } from '../billing/autopay/queries.ts';
import type { Learned, LearnedBy } from '../billing/charges/charge.ts';
import { insertCharges } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { type Bills, billsOf, moneyState } from './bills.ts';
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

type Outcome = Learned['outcome'];
type News = { by: LearnedBy; outcome: Outcome };
const ways: LearnedBy[] = ['live', 'webhook', 'return', 'trace', 'report'];

const unknown: Outcome = { kind: 'unknown', why: 'timeout' };
const succeeded: Outcome = {
  kind: 'succeeded',
  captured: {
    gatewayChargeId: 'ch_1',
    amount: 5_000,
    currency: 'JPY',
    capturedAt: '2026-12-01T01:00:00Z',
    method: 'card',
    savedMethod: null,
  },
};
const declined: Outcome = {
  kind: 'failed',
  codes: { gatewayCode: 'do_not_honor', network: 'mastercard', networkCode: '05', adviceCode: '02' },
  gatewayChargeId: 'ch_1',
};

/** One charge under way, then the news in their order; what is true at the end. */
async function endAfter(...news: readonly News[]): Promise<unknown> {
  const world = await billsOf(database.db, { code: `power-${worlds.length}` });
  worlds.push(world);
  const { ports, merchant } = world;
  const invoiceId = (await world.make([{ number: 'A' }])).get('A') ?? '';
  const chargeId = ports.ids.uuid();
  const act = () => ({
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'job' as const,
    actor: 'test',
    at: world.clock.now(),
  });
  await database.db.transaction(async (tx) => {
    const intents = await ensureAutoIntents(tx, act(), [
      { intentId: ports.ids.uuid(), invoiceId, amount: 5_000, currency: 'JPY' },
    ]);
    await insertCharges(tx, act(), [
      {
        id: chargeId,
        intentId: intents.get(invoiceId) ?? '',
        invoiceId,
        sessionId: null,
        origin: 'auto',
        gateway: 'simulator',
        paymentMethodId: null,
        amount: 5_000,
        currency: 'JPY',
        businessDate: '2026-12-01',
        deadlineAt: '2026-12-01T01:01:00Z',
        askAt: '2026-12-01T01:01:00Z',
      },
    ]);
  });
  for (const each of news) {
    await database.db.transaction((tx) =>
      recordOutcomes(tx, {
        act: act(),
        timezone: 'Asia/Tokyo',
        learnedBy: each.by,
        learned: [{ chargeId, outcome: each.outcome }],
        ids: ports.ids,
        sealer: ports.sealer,
      }),
    );
  }
  return moneyState(database.db, merchant.id);
}

/** Any number of unknowns and of the final outcome, which is among them at least once. */
const inAnyOrder = (final: Outcome) =>
  fc
    .array(fc.record({ by: fc.constantFrom(...ways), outcome: fc.constantFrom(unknown, final) }), {
      maxLength: 5,
    })
    .chain((some) =>
      fc.shuffledSubarray([...some, { by: 'trace' as const, outcome: final }], {
        minLength: some.length + 1,
      }),
    );

test.each([
  ['a success', succeeded],
  ['a decline', declined],
])(
  '%s ends the same, in whatever order, however often and by whichever way it is learned',
  async (_, final) => {
    const expected = await endAfter({ by: 'live', outcome: final });
    await fc.assert(
      fc.asyncProperty(inAnyOrder(final), async (news) => {
        expect(await endAfter(...news)).toEqual(expected);
      }),
      { numRuns: 25, seed: 20_261_201 },
    );
  },
);

test.each([
  ['a decline', declined],
  ['"it never happened"', { kind: 'canceled', why: 'not_found' } satisfies Outcome],
])('money that is proven after %s is booked on the bill, once', async (_, first) => {
  const state = await endAfter(
    { by: 'live', outcome: first },
    { by: 'report', outcome: succeeded },
    { by: 'webhook', outcome: succeeded },
    { by: 'trace', outcome: first },
  );
  expect(state).toMatchObject({
    invoices: [{ billing_number: 'A', state: 'paid' }],
    agenda: [],
    locks: [{ locks: 0 }],
    payments: [{ amount: 5_000 }],
    ledger: [
      { event: 'bill_released', amount: 5_000 },
      { event: 'paid', debit: 'gateway_clearing', credit: 'receivable', amount: 5_000 },
    ],
    results: [{ outcome: 'paid', amount_received: 5_000 }],
  });
});
