import { expect, test } from 'vitest';
import { recordAct } from '../billing/acts/queries.ts';
import { recordCardChanges } from '../billing/card-changes/record.ts';
import { openRefresh, openRefreshes } from '../billing/card-refreshes/queries.ts';
import { outboxCarrier, readOutbox } from '../billing/carriers/outbox.ts';
import { changeEnrolmentByHand } from '../billing/exchanges/enrolments.ts';
import { explainBill, explainCustomer } from '../billing/explain/queries.ts';
import type { CardNews } from '../billing/gateways/gateway.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import type { Job } from '../jobs/job.ts';
import { notify } from '../jobs/notify.ts';
import { refresh } from '../jobs/refresh.ts';
import { helpRun, runJob } from '../jobs/run.ts';
import { type Bills, moneyState, worldsOf } from './bills.ts';

/** 1 December, ten in the morning. The cards of bills that are charged by the 4th are asked about, three at once. */
const worlds = worldsOf('refresh');
const day = 86_400_000;
const dueOn = '2026-12-04';
const closed: CardNews = { kind: 'closed', code: 'account_closed' };
const replacedBy = (token: string): CardNews => ({
  kind: 'replaced',
  method: {
    token,
    brand: 'visa',
    lastFour: '1111',
    expires: '2044-12',
    networkTransactionId: null,
    threeDsEci: null,
  },
});

async function open(settings = ''): Promise<Bills> {
  const world = await worlds.open({ settings });
  world.ports.carrier = outboxCarrier(world.ports);
  return world;
}

const cardsOf = (world: Bills, customer: string) =>
  worlds.db.query<{ state: string; ended_for: string | null; in_use: boolean; proof: string | null }>(
    `select m.state, m.ended_for, m.three_ds_eci as proof,
            exists (select from enrolments e where e.merchant_id = m.merchant_id and e.payment_method_id = m.id
                      and e.state = 'active') as in_use
     from payment_methods m join customers c on c.merchant_id = m.merchant_id and c.id = m.customer_id
     where m.merchant_id = $1 and c.customer_number = $2 order by m.created_at, m.replaces_id nulls first`,
    [world.merchant.id, customer],
  );
const toldOf = (world: Bills) =>
  worlds.db.query<{ what: string; method: string }>(
    `select what, method from enrolment_rows where merchant_id = $1 order by what`,
    [world.merchant.id],
  );
const sms = async (world: Bills) =>
  (await readOutbox(worlds.db, world.ports.sealer, { merchant: world.merchant.code, limit: 50 })).map(
    ({ body }) => body.replace(/https?:\S+/, 'LINK'),
  );
const expire = (world: Bills, customer: string, month: string) =>
  worlds.db.run(
    `update payment_methods m set expires = $3 from customers c
     where m.merchant_id = $1 and c.merchant_id = $1 and c.id = m.customer_id and c.customer_number = $2`,
    [world.merchant.id, customer, month],
  );
/** All that a customer or the merchant could feel, and the cards. */
const stateOf = async (world: Bills) => ({
  money: await moneyState(worlds.db, world.merchant.id),
  told: await toldOf(world),
  cards: await worlds.db.query(
    `select c.customer_number, m.state, m.ended_for, m.last_four, m.asked_on from payment_methods m
     join customers c on c.merchant_id = m.merchant_id and c.id = m.customer_id
     where m.merchant_id = $1 order by c.customer_number, m.last_four`,
    [world.merchant.id],
  ),
  questions: await worlds.db.query(
    `select r.state, l.answer, l.code, l.charge_on from card_refresh_lines l
     join card_refreshes r on r.merchant_id = l.merchant_id and r.id = l.refresh_id
     where l.merchant_id = $1 order by l.answer, l.code`,
    [world.merchant.id],
  ),
});

test('a card that was replaced is charged by its new token under the agreement of before, and is asked about once', async () => {
  const world = await open();
  await world.make([
    { number: 'A', dueOn },
    { number: 'B', dueOn },
    { number: 'LATER', dueOn: '2026-12-05' },
  ]);
  world.gateway.cardNews.set('tok_A', replacedBy('tok_new'));
  expect(await world.run(refresh)).toMatchObject({
    failure: null,
    counts: { asked: 2, replaced: 1, no_news: 1 },
  });
  const before = await stateOf(world);
  expect((await world.run(refresh)).counts).toEqual({});
  expect(await stateOf(world)).toEqual(before);
  expect(world.gateway.refreshCalls.map(({ tokens }) => [...tokens].sort())).toEqual([['tok_A', 'tok_B']]);
  // The proof of 3-D Secure stays with the agreement: it was given for it, and not for a number.
  expect(await cardsOf(world, 'C-A')).toEqual([
    { state: 'ended', ended_for: 'replaced', in_use: false, proof: '05' },
    { state: 'active', ended_for: null, in_use: true, proof: '05' },
  ]);
  expect(await toldOf(world)).toEqual([]);
  world.clock.advance(3 * day);
  await world.run(charge);
  expect(world.gateway.calls.map(({ token }) => token).sort()).toEqual(['tok_B', 'tok_new']);
  const [life] = await explainBill(worlds.db, 'A', world.merchant.code);
  expect(life?.events.filter(({ what }) => what === 'card').map(({ detail }) => detail)).toEqual([
    'the gateway was asked before the charge of 2026-12-04: replaced, the new card is charged',
  ]);
  const [customer] = await explainCustomer(worlds.db, 'C-A', world.merchant.code);
  expect(customer?.events.filter(({ what }) => what === 'card').map(({ detail }) => detail)).toEqual([
    'visa ended (replaced) at simulator',
    'visa active at simulator, in the place of an earlier one',
  ]);
  expect(await world.stateOf('A')).toBe('paid');
});

test('a closed card: the agreement ends, the merchant is told, and the customer has a link that says why, before the charge', async () => {
  const world = await open();
  await world.make([
    { number: 'A', dueOn },
    // Another bill of the same agreement, whose charge is further off.
    { number: 'NEXT', dueOn: '2026-12-28', customer: 'C-A' },
  ]);
  world.gateway.cardNews.set('tok_A', closed);
  expect(await world.run(refresh)).toMatchObject({ counts: { asked: 1, closed: 1, to_link: 2 } });
  expect(await cardsOf(world, 'C-A')).toMatchObject([{ state: 'ended', ended_for: 'closed', in_use: false }]);
  expect(await toldOf(world)).toEqual([{ what: 'ended', method: 'card' }]);
  expect(await world.run(dunning)).toMatchObject({ counts: { fell_back: 2 } });
  await world.run(notify);
  expect(await sms(world)).toEqual([
    'みなとガス株式会社\nカードの登録が無効です\nLINK',
    'みなとガス株式会社\nカードの登録が無効です\nLINK',
  ]);
  const [life] = await explainBill(worlds.db, 'A', world.merchant.code);
  expect(life).toMatchObject({ fell_back_on: '2026-12-01', fell_back_for: 'card_closed' });
  expect(life?.events.find(({ what }) => what === 'card')?.detail).toBe(
    'the gateway was asked before the charge of 2026-12-04: closed, automatic payment has ended (account_closed)',
  );
  world.clock.advance(3 * day);
  await world.run(refresh);
  await world.run(charge);
  expect(world.gateway.calls).toEqual([]);
});

test('a card that has expired by its date goes like a closed one if the gateway knows of no other; one that has not is tried', async () => {
  const world = await open();
  await world.make([
    { number: 'OVER', dueOn },
    { number: 'LAST-MONTH', dueOn },
    { number: 'RENEWED', dueOn },
  ]);
  await expire(world, 'C-OVER', '2026-11');
  await expire(world, 'C-LAST-MONTH', '2026-12');
  await expire(world, 'C-RENEWED', '2026-11');
  world.gateway.cardNews.set('tok_RENEWED', replacedBy('tok_renewed'));
  expect(await world.run(refresh)).toMatchObject({
    counts: { asked: 3, expired: 1, replaced: 1, no_news: 1, to_link: 1 },
  });
  await world.run(dunning);
  world.clock.advance(3 * day);
  await world.run(charge);
  expect(world.gateway.calls.map(({ token }) => token).sort()).toEqual(['tok_LAST-MONTH', 'tok_renewed']);
  const [life] = await explainBill(worlds.db, 'OVER', world.merchant.code);
  expect(life).toMatchObject({ fell_back_for: 'card_expired', state: 'open' });
});

test('whoever has no card to be charged gets the link days before the charge, also where the gateway has no updater', async () => {
  const world = await open();
  world.ports.gateway = { ...world.gateway, semantics: { ...world.gateway.semantics, cardsPerRefresh: 0 } };
  await world.make([
    { number: 'GOOD', dueOn },
    { number: 'NONE', dueOn, card: null },
  ]);
  // Its date proves nothing: such a gateway may have changed the card behind the token.
  await expire(world, 'C-GOOD', '2026-11');
  expect(await world.run(refresh)).toMatchObject({ counts: { without_card: 1 } });
  expect((await world.run(refresh)).counts).toEqual({});
  expect(world.gateway.refreshCalls).toEqual([]);
  expect(await world.run(dunning)).toMatchObject({ counts: { fell_back: 1 } });
  world.clock.advance(3 * day);
  expect(await world.run(charge)).toMatchObject({ counts: { charged: 1 } });
});

test('a gateway that does not answer is asked again under the same reference; meanwhile cards are charged as before', async () => {
  const world = await open();
  await world.make([{ number: 'A', dueOn }]);
  world.gateway.cardNews.set('tok_A', closed);
  world.gateway.down = true;
  expect(await world.run(refresh)).toMatchObject({ counts: { asked: 1, unanswered: 1 } });
  world.gateway.down = false;
  world.gateway.refreshesDo = [
    { kind: 'not_executed', why: '429' },
    { kind: 'pending' },
    { kind: 'pending' },
  ];
  for (const _ of world.gateway.refreshesDo.slice())
    expect(await world.run(refresh)).toMatchObject({ counts: { unanswered: 1 } });
  const references = world.gateway.refreshCalls.map(({ reference }) => reference);
  expect(references).toHaveLength(4);
  expect(new Set(references).size).toBe(1);
  world.clock.advance(3 * day);
  expect(await world.run(charge)).toMatchObject({ counts: { charged: 1 } });
  // The answer still counts for the next bill.
  expect(await world.run(refresh)).toMatchObject({ counts: { closed: 1 } });
  expect(await toldOf(world)).toEqual([{ what: 'ended', method: 'card' }]);
});

test('a question that nobody answers for ten days is given up, a person is told, and the card may be asked about anew', async () => {
  const world = await open();
  await world.make([
    { number: 'A', dueOn },
    { number: 'NEXT', dueOn: '2026-12-14', customer: 'C-A' },
  ]);
  world.gateway.refreshesDo = [{ kind: 'pending' }, { kind: 'pending' }];
  await world.run(refresh);
  world.clock.advance(10 * day);
  expect(await world.run(refresh)).toMatchObject({ outcome: 'attention', counts: { given_up: 1 } });
  const alerts = () =>
    worlds.db.query(`select cause from alerts where merchant_id = $1 and resolved_at is null`, [
      world.merchant.id,
    ]);
  expect(await alerts()).toEqual([{ cause: 'CARDS_UNANSWERED' }]);
  world.clock.advance(day);
  expect(await world.run(refresh)).toMatchObject({ counts: { asked: 1, no_news: 1 } });
  expect(await alerts()).toEqual([]);
});

test('a card given anew between question and answer stays, whatever becomes of the old one', async () => {
  const world = await open();
  await world.make([{ number: 'A', dueOn }]);
  world.gateway.cardNews.set('tok_A', closed);
  const ask = world.ports.gateway.refreshCards;
  world.ports.gateway.refreshCards = async (request, signal) => {
    await changeEnrolmentByHand(
      world.ports,
      world.merchant,
      {
        customerNumber: 'C-A',
        contractNumber: '',
        what: 'change',
        method: 'card',
        account: 'tok_other',
        holder: '',
        effectiveFrom: '2026-12-01',
      },
      'operator@test',
    );
    return ask(request, signal);
  };
  expect(await world.run(refresh)).toMatchObject({ counts: { closed: 1 } });
  expect((await cardsOf(world, 'C-A')).map(({ state, in_use }) => [state, in_use])).toEqual([
    ['ended', false],
    ['active', true],
  ]);
  expect(await toldOf(world)).toEqual([{ what: 'changed', method: 'card' }]);
  world.clock.advance(3 * day);
  await world.run(charge);
  expect(world.gateway.calls.map(({ token }) => token)).toEqual(['tok_other']);
});

test('whoever is giving another card at this moment keeps the agreement; if nothing comes of it the link is offered later that day', async () => {
  const world = await open();
  const bills = await world.make([{ number: 'A', dueOn }]);
  world.gateway.cardNews.set('tok_A', closed);
  await worlds.db.run(
    `insert into card_changes (merchant_id, id, contract_id, enrolment_id, invoice_id, link_version, gateway, state, version,
                               terms_version, started_at, deadline_at, page_ends_at, ask_at)
     select $1, $2, e.contract_id, e.id, $3, 1, 'simulator', 'requires_action', 1, 'test', $4, $4, $4, $4
     from enrolments e where e.merchant_id = $1`,
    [world.merchant.id, world.ports.ids.uuid(), bills.get('A'), world.clock.now().toString()],
  );
  expect((await world.run(refresh)).counts).toEqual({ asked: 1, closed: 1 });
  expect(await cardsOf(world, 'C-A')).toMatchObject([{ state: 'ended', ended_for: 'closed', in_use: true }]);
  expect(await toldOf(world)).toEqual([]);
  expect((await world.run(refresh)).counts).toEqual({ without_card: 1 });
  await world.run(dunning);
  expect((await explainBill(worlds.db, 'A', world.merchant.code))[0]?.fell_back_for).toBe('card_closed');
  // The customer left the page: there is no card for an agreement any more, and the merchant is told.
  const [change] = await worlds.db.query<{ id: string }>(
    `select id from card_changes where merchant_id = $1`,
    [world.merchant.id],
  );
  const { ports, merchant, clock } = world;
  const act = {
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'job' as const,
    actor: 'test',
    at: clock.now(),
  };
  const gone = { id: change?.id ?? '', outcome: { kind: 'canceled' as const, why: 'expired' } };
  const record = () =>
    worlds.db.transaction((tx) =>
      recordCardChanges(tx, { ...ports, act, learnedBy: 'trace', learned: [gone] }),
    );
  expect(await record()).toBe(1);
  expect(await record()).toBe(0);
  expect((await toldOf(world)).map(({ what }) => what)).toEqual(['ended']);
});

const story = async (world: Bills) => {
  await world.make(['A', 'B', 'C', 'D', 'E'].map((number) => ({ number, dueOn })));
  await world.make([{ number: 'NONE', dueOn, card: null }]);
  world.gateway.cardNews.set('tok_A', closed).set('tok_B', replacedBy('tok_new'));
  await expire(world, 'C-D', '2026-10');
};

test.each(['refresh.after_intent', 'refresh.after_gateway', 'refresh.after_outcome'] as const)(
  'killed at %s it comes to what it would have come to',
  async (at) => {
    const [killed, spared] = [await open(), await open()];
    await story(killed);
    await story(spared);
    await spared.run(refresh);
    killed.ports.crash = async (point) => {
      if (point === at) throw new Error('killed');
    };
    expect((await killed.run(refresh)).outcome).toBe('failed');
    killed.ports.crash = async () => undefined;
    expect((await killed.run(refresh)).outcome).toBe('done');
    expect(await stateOf(killed)).toEqual(await stateOf(spared));
    const asked = killed.gateway.refreshCalls.map(({ reference, tokens }) => `${reference} ${tokens.join()}`);
    const references = new Set(killed.gateway.refreshCalls.map(({ reference }) => reference));
    expect(new Set(asked).size).toBe(references.size);
  },
);

test('two processes share the questions: each card is asked about once', async () => {
  const world = await open();
  await world.make(Array.from({ length: 12 }, (_, index) => ({ number: `S${index}`, dueOn })));
  const job = refresh as unknown as Job;
  const worker = (name: string) => ({ owner: `${name}:0:x`, isDead: () => false, codeVersion: 'test' });
  const work = { merchant: world.merchant, businessDate: '2026-12-01' };
  let helped: Promise<number> | undefined;
  world.ports.crash = async (point) => {
    if (point === 'refresh.after_gateway' && helped === undefined)
      helped = helpRun({ ...world.ports, crash: async () => undefined }, job, {
        ...work,
        pass: 1,
        worker: worker('two'),
      });
  };
  const end = await runJob(world.ports, job, { ...work, worker: worker('one') });
  expect(end).toMatchObject({ outcome: 'done', counts: { asked: 12, no_news: 12 } });
  expect(await helped).toBeGreaterThan(0);
  const asked = world.gateway.refreshCalls.flatMap(({ tokens }) => tokens);
  expect([asked.length, new Set(asked).size]).toEqual([12, 12]);
});

test('a card that somebody has asked about a moment ago makes no question of its own', async () => {
  const world = await open();
  await world.make([{ number: 'A', dueOn }]);
  const { id: merchantId } = world.merchant;
  const [card] = await worlds.db.query<{ id: string; payment_method_id: string }>(
    `select id, payment_method_id from enrolments where merchant_id = $1`,
    [merchantId],
  );
  const cards = [
    { paymentMethodId: card?.payment_method_id ?? '', enrolmentId: card?.id ?? '', chargeOn: dueOn },
  ];
  const ask = () => {
    const [id, at] = [world.ports.ids.uuid(), world.clock.now()];
    const act = { merchantId, id, kind: 'command' as const, actor: 'test', at };
    const question = { id, gateway: world.gateway.name, businessDate: '2026-12-01', cards };
    return worlds.db.transaction(async (tx) => {
      await recordAct(tx, act);
      return openRefresh(tx, act, question);
    });
  };
  expect([await ask(), await ask()]).toEqual([1, 0]);
  expect(await openRefreshes(worlds.db, merchantId, world.gateway.name)).toHaveLength(1);
});

test('a dry run counts and writes nothing; with a longer notice cards are asked about before it', async () => {
  const world = await open('  notice_days_before: 6\n');
  await world.make([
    { number: 'A', dueOn: '2026-12-07' },
    { number: 'B', dueOn: '2026-12-07', card: null },
    { number: 'C', dueOn: '2026-12-08' },
  ]);
  const before = await stateOf(world);
  const context = {
    ports: world.ports,
    merchant: world.merchant,
    businessDate: '2026-12-01',
    stop: new AbortController().signal,
    progress: () => undefined,
  };
  expect(await refresh.dryRun(context)).toEqual({ would_ask_about: 1, without_card: 1, open_questions: 0 });
  expect(await stateOf(world)).toEqual(before);
});
