import { expect, test } from 'vitest';
import { outboxCarrier, readOutbox } from '../billing/carriers/outbox.ts';
import { changeHoldByHand } from '../billing/holds/place.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { notify } from '../jobs/notify.ts';
import { type Bills, worldsOf } from './bills.ts';

const worlds = worldsOf('notice');

/** 1 December, ten in the morning; customers are told three days before. */
async function merchant(settings = 'notice_days_before: 3'): Promise<Bills> {
  // `autopay` stands last in the settings of these worlds: one more line of it.
  const world = await worlds.open({ settings: `  ${settings}\n` });
  world.ports.carrier = outboxCarrier(world.ports);
  return world;
}

const day = 86_400_000;
const bill = { number: 'A', dueOn: '2026-12-04' };

async function told(world: Bills): Promise<string[]> {
  const show = { merchant: world.merchant.code, limit: 50 };
  return (await readOutbox(worlds.db, world.ports.sealer, show)).map(({ body }) => body);
}

const notices = (world: Bills) =>
  worlds.db.query<{ state: string; code: string | null }>(
    `select state, code from messages where merchant_id = $1 and step = 'debit_notice' order by invoice_id`,
    [world.merchant.id],
  );

test('amount and date are told once, from so many days before the charge on', async () => {
  const world = await merchant();
  await world.make([bill, { number: 'B', dueOn: '2026-12-07', amount: 12_345 }]);
  expect(await world.run(notify)).toMatchObject({ failure: null, counts: { planned: 1, sent: 1 } });
  await world.run(notify);
  expect(await told(world)).toEqual([
    'みなとガス株式会社\n12月4日に5,000円を自動払いでお支払いいただきます。',
  ]);
  world.clock.advance(3 * day);
  await world.run(charge);
  await world.run(notify);
  expect(await world.stateOf('A')).toBe('paid');
  expect(await told(world)).toHaveLength(2);
  expect(await told(world)).toContainEqual(
    'みなとガス株式会社\n12月7日に12,345円を自動払いでお支払いいただきます。',
  );
});

test('a dry run counts them among what would be sent, before they are planned', async () => {
  const world = await merchant();
  await world.make([bill, { ...bill, number: 'B' }]);
  const counted = () =>
    notify.dryRun({
      ports: world.ports,
      merchant: world.merchant,
      businessDate: '2026-12-01',
      stop: new AbortController().signal,
      progress: () => undefined,
    });
  expect(await counted()).toMatchObject({ debit_notices: 2, messages: 2, segments: 2 });
  expect((await world.run(notify)).counts).toMatchObject({ sent: 2 });
  expect(await counted()).toMatchObject({ debit_notices: 0, messages: 0, segments: 0 });
});

test.each<[string, Parameters<Bills['make']>[0][number], (world: Bills) => Promise<unknown>]>([
  ['comes on its debit date', { ...bill, dueOn: '2026-12-01' }, async () => undefined],
  ['goes by link', { ...bill, collection: 'link' }, async () => undefined],
  ['has no card', { ...bill, card: null }, async () => undefined],
  [
    'is held',
    bill,
    (world) =>
      changeHoldByHand(
        world.ports,
        world.merchant,
        { customerNumber: 'C-A', contractNumber: '', what: 'place', reason: 'hardship', untilOn: null },
        'test',
      ),
  ],
])('a bill that %s has none', async (_what, made, arrange) => {
  const world = await merchant();
  await world.make([made]);
  await arrange(world);
  await world.run(notify);
  expect(await notices(world)).toEqual([]);
});

test('nobody is told where the merchant does not want it', async () => {
  const world = await merchant('');
  await world.make([bill]);
  await world.run(notify);
  expect(await told(world)).toEqual([]);
});

test('what could not go out in time is not told afterwards, and is charged all the same', async () => {
  const world = await merchant();
  await world.make([bill]);
  // Planned in the evening, after the hours; then nobody sends for days.
  world.clock.advance(12 * 3_600_000);
  expect((await world.run(notify)).counts).toMatchObject({ planned: 1, waiting_for_hours: 1 });
  world.clock.set('2026-12-04T01:00:00Z');
  world.gateway.behave('tok_A', { declines: { networkCode: '51' } });
  await world.run(charge);
  await world.run(dunning);
  await world.run(notify);
  expect(await notices(world)).toEqual([{ state: 'skipped', code: 'debit_came' }]);
  expect((await told(world)).join()).not.toContain('12月4日');
  expect(world.gateway.calls).toHaveLength(1);
});

test('a customer without a mobile phone is charged without one', async () => {
  const world = await merchant();
  await world.make([bill]);
  await worlds.db.run(`update contacts set phone_kind = 'none', phone_digest = null where merchant_id = $1`, [
    world.merchant.id,
  ]);
  await world.run(notify);
  expect(await notices(world)).toEqual([{ state: 'skipped', code: 'no_phone' }]);
  world.clock.advance(3 * day);
  await world.run(charge);
  expect(await world.stateOf('A')).toBe('paid');
});
