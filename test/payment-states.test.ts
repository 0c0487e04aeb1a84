import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Act } from '../billing/acts/act.ts';
import { type IntentState, transitions as intentTransitions } from '../billing/charges/intent.ts';
import { completeSessions, insertCharges, moveIntents } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { endFormerSessions } from '../billing/checkout/queries.ts';
import { type SessionState, transitions as sessionTransitions } from '../billing/checkout/session.ts';
import { type CheckoutPorts, startCheckout } from '../billing/checkout/start.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import type { Tx } from '../billing/db.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { expireSessions } from '../billing/trace/queries.ts';
import { type Bill, type World, world } from './world.ts';

let here: World;
let gas: Merchant;

beforeAll(async () => {
  here = await world();
  gas = await here.merchant('minato-gas');
});
afterAll(() => here?.drop());

const intentMoves = [
  ['requires_payment_method', 'processing'],
  ['requires_payment_method', 'succeeded'],
  ['requires_payment_method', 'canceled'],
  ['processing', 'requires_payment_method'],
  ['processing', 'requires_action'],
  ['processing', 'succeeded'],
  ['requires_action', 'requires_payment_method'],
  ['requires_action', 'succeeded'],
  ['requires_capture', 'succeeded'],
  ['canceled', 'succeeded'],
].map((move) => move.join(' '));
const sessionMoves = ['open complete', 'open expired', 'expired complete'];

const intentStates = Object.keys(intentTransitions) as IntentState[];
const sessionStates = Object.keys(sessionTransitions) as SessionState[];
const pairsOf = <State extends string>(states: readonly State[]) =>
  states.flatMap((from) => states.map((to) => [from, to] as const));

const act = (): Act => ({
  merchantId: gas.id,
  id: here.ids.uuid(),
  kind: 'job',
  actor: 'test',
  at: here.clock.now(),
});

class Undone extends Error {}

/** Does the work and takes it back: what is made here by hand has no past that the invariants would believe. */
async function undone(work: (tx: Tx) => Promise<void>): Promise<void> {
  await here.db
    .transaction(async (tx) => {
      await work(tx);
      throw new Undone();
    })
    .catch((error) => {
      if (!(error instanceof Undone)) throw error;
    });
}

async function insertSession(tx: Tx, bill: Bill, state: SessionState): Promise<string> {
  const id = here.ids.uuid();
  await tx.run(
    `insert into checkout_sessions (merchant_id, id, invoice_id, link_version, state, version, language, started_at, expires_at)
     values ($1, $2::uuid, $3::uuid, 1, $4, 1, 'ja', '2026-11-01T00:00:00Z', '2026-11-01T00:30:00Z')`,
    [gas.id, id, bill.invoiceId, state],
  );
  return id;
}

async function insertIntent(tx: Tx, bill: Bill, sessionId: string, state: IntentState): Promise<string> {
  const id = here.ids.uuid();
  await tx.run(
    `insert into payment_intents (merchant_id, id, invoice_id, session_id, origin, amount, currency, state, version, created_at)
     values ($1, $2::uuid, $3::uuid, $4::uuid, 'link', 5000, 'JPY', $5, 1, '2026-11-01T00:00:00Z')`,
    [gas.id, id, bill.invoiceId, sessionId, state],
  );
  return id;
}

async function insertEndedCharge(
  tx: Tx,
  bill: Bill,
  of: { sessionId: string; intentId: string },
): Promise<void> {
  const chargeId = here.ids.uuid();
  await insertCharges(tx, act(), [
    {
      id: chargeId,
      intentId: of.intentId,
      invoiceId: bill.invoiceId,
      sessionId: of.sessionId,
      origin: 'link',
      gateway: 'simulator',
      paymentMethodId: null,
      amount: 5_000,
      currency: 'JPY',
      businessDate: '2026-11-01',
      deadlineAt: '2026-11-01T00:01:00Z',
      askAt: '2026-11-01T00:01:00Z',
    },
  ]);
  await tx.run(`update charges set state = 'failed' where merchant_id = $1 and id = $2::uuid`, [
    gas.id,
    chargeId,
  ]);
  await tx.run(`delete from collection_locks where merchant_id = $1 and invoice_id = $2::uuid`, [
    gas.id,
    bill.invoiceId,
  ]);
}

async function stateOf(tx: Pick<Tx, 'query'>, table: string, id: string): Promise<string> {
  const [row] = await tx.query<{ state: string }>(
    `select state || ' in version ' || version as state from ${table} where merchant_id = $1 and id = $2::uuid`,
    [gas.id, id],
  );
  return row?.state ?? '';
}

const historyOf = async (tx: Pick<Tx, 'query'>, id: string): Promise<string[]> =>
  (
    await tx.query<{ step: string }>(
      `select coalesce(from_state, 'nothing') || ' ' || to_state as step from state_history
       where merchant_id = $1 and subject = 'payment_intent' and subject_id = $2::uuid order by version`,
      [gas.id, id],
    )
  ).map(({ step }) => step);

test.each([
  ['payment_intents', intentStates],
  ['checkout_sessions', sessionStates],
])('%s: the table has the states that the database allows', async (table, states) => {
  const [check] = await here.db.query<{ definition: string }>(
    `select pg_get_constraintdef(oid) as definition from pg_constraint where conname = $1`,
    [`${table}_state_check`],
  );
  const allowed = [...(check?.definition ?? '').matchAll(/'(\w+)'/g)].map(([, state]) => state);
  expect([...states].sort()).toEqual(allowed.sort());
});

test.each(pairsOf(intentStates))('an intent from %s to %s', async (from, to) => {
  const bill = await here.bill(gas);
  const isAllowed = intentMoves.includes(`${from} ${to}`);
  expect(intentTransitions[from].includes(to)).toBe(isAllowed);
  await undone(async (tx) => {
    const id = await insertIntent(tx, bill, await insertSession(tx, bill, 'open'), from);
    await moveIntents(tx, act(), [id], to);
    expect(await stateOf(tx, 'payment_intents', id)).toBe(
      isAllowed ? `${to} in version 2` : `${from} in version 1`,
    );
    expect(await historyOf(tx, id)).toEqual(isAllowed ? [`${from} ${to}`] : []);
  });
});

test.each(pairsOf(sessionStates))('a session from %s to %s', async (from, to) => {
  const bill = await here.bill(gas);
  const isAllowed = sessionMoves.includes(`${from} ${to}`);
  expect(sessionTransitions[from].includes(to)).toBe(isAllowed);
  const writers = {
    open: [],
    complete: [(tx: Tx, id: string) => completeSessions(tx, gas.id, [id])],
    expired: [
      (tx: Tx) => endFormerSessions(tx, act(), bill.invoiceId),
      (tx: Tx) => expireSessions(tx, act(), '2026-11-02T00:00:00Z', 10),
    ],
  }[to];
  for (const writer of writers) {
    await undone(async (tx) => {
      const id = await insertSession(tx, bill, from);
      await writer(tx, id);
      expect(await stateOf(tx, 'checkout_sessions', id)).toBe(
        isAllowed ? `${to} in version 2` : `${from} in version 1`,
      );
    });
  }
});

test.each(intentStates)(
  'the end of a visit cancels its intent in %s only where that is allowed',
  async (from) => {
    const bill = await here.bill(gas);
    const isAllowed = intentMoves.includes(`${from} canceled`);
    for (const end of [
      (tx: Tx) => endFormerSessions(tx, act(), bill.invoiceId),
      (tx: Tx) => expireSessions(tx, act(), '2026-11-02T00:00:00Z', 10),
    ]) {
      await undone(async (tx) => {
        const sessionId = await insertSession(tx, bill, 'open');
        const id = await insertIntent(tx, bill, sessionId, from);
        await insertEndedCharge(tx, bill, { sessionId, intentId: id });
        await end(tx);
        expect(await stateOf(tx, 'payment_intents', id)).toBe(
          isAllowed ? 'canceled in version 2' : `${from} in version 1`,
        );
        expect(await historyOf(tx, id)).toEqual(isAllowed ? [`${from} canceled`] : []);
      });
    }
  },
);

test('a visit that has ended is moved by no late writer but by the proof that its money was taken', async () => {
  const bill = await here.bill(gas);
  const press = () =>
    startCheckout(here.webDb, here.ports as CheckoutPorts, {
      link: { merchantId: gas.id, invoiceId: bill.invoiceId, version: 1 },
      method: 'card',
      enrol: false,
      language: 'ja',
      returnUrlOf: (chargeId) => `https://pay.example.jp/return/${chargeId}`,
    });
  const attempts = () =>
    here.db.query<{ id: string; intent_id: string; session_id: string; amount: number }>(
      `select id, intent_id, session_id, amount from charges where invoice_id = $1::uuid order by attempt_no`,
      [bill.invoiceId],
    );
  const learn = (chargeId: string, outcome: Parameters<typeof recordOutcomes>[1]['learned'][0]['outcome']) =>
    here.db.transaction((tx) =>
      recordOutcomes(tx, {
        act: act(),
        timezone: 'Asia/Tokyo',
        learnedBy: 'report',
        learned: [{ chargeId, outcome }],
        ids: here.ids,
        sealer: here.sealer,
      }),
    );
  const closed = { kind: 'canceled', why: 'the page was closed' } as const;
  const lifeOf = async (attempt: { intent_id: string; session_id: string }) => [
    await stateOf(here.db, 'checkout_sessions', attempt.session_id),
    ...(await historyOf(here.db, attempt.intent_id)),
  ];

  await press();
  const [first] = await attempts();
  if (first === undefined) throw new Error('no charge');
  await learn(first.id, closed);
  await press();
  const [, second] = await attempts();
  if (second === undefined) throw new Error('no second charge');
  const ended = [
    'expired in version 2',
    'nothing processing',
    'processing requires_action',
    'requires_action requires_payment_method',
    'requires_payment_method canceled',
  ];
  expect(await lifeOf(first)).toEqual(ended);

  await here.db.transaction(async (tx) => {
    for (const to of ['requires_payment_method', 'processing', 'requires_action', 'canceled'] as const)
      await moveIntents(tx, act(), [first.intent_id], to);
    await expireSessions(tx, act(), '2027-01-01T00:00:00Z', 10);
  });
  await learn(first.id, { kind: 'unknown', why: 'timeout' });
  await learn(first.id, closed);
  expect(await lifeOf(first)).toEqual(ended);
  // The charge of this visit is under way: its end is not for the clock to say.
  expect(await lifeOf(second)).toEqual([
    'open in version 1',
    'nothing processing',
    'processing requires_action',
  ]);

  await learn(first.id, {
    kind: 'succeeded',
    captured: {
      gatewayChargeId: 'late',
      amount: first.amount,
      currency: 'JPY',
      capturedAt: here.clock.now().toString(),
      method: 'card',
      savedMethod: null,
    },
  });
  const paid = ['complete in version 3', ...ended.slice(1), 'canceled succeeded'];
  expect(await lifeOf(first)).toEqual(paid);

  await learn(second.id, closed);
  await here.db.transaction(async (tx) => {
    await endFormerSessions(tx, act(), bill.invoiceId);
    await moveIntents(tx, act(), [first.intent_id], 'requires_payment_method');
  });
  expect(await lifeOf(first)).toEqual(paid);
  expect(await lifeOf(second)).toEqual(['expired in version 2', ...ended.slice(1)]);
  expect(await checkInvariants(here.db, { only: [20] })).toMatchObject({ ok: true });
});
