import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { outboxCarrier } from '../billing/carriers/outbox.ts';
import { findLink } from '../billing/checkout/find-link.ts';
import { viewBill } from '../billing/checkout/view-bill.ts';
import { referenceOf } from '../billing/ids.ts';
import { returnParked } from '../billing/parked/return.ts';
import { endRestore, restoreStatus } from '../billing/restores/end.ts';
import { openRestore } from '../billing/restores/queries.ts';
import type { Witness } from '../billing/restores/watch.ts';
import { jobNames } from '../jobs/job.ts';
import { jobs } from '../jobs/jobs.ts';
import { runJob } from '../jobs/run.ts';
import { expectInvariants, makeBills } from './bills.ts';
import { billingFile, billingName } from './inbox.ts';
import {
  cloneOf,
  dropClones,
  type Folder,
  hour,
  nameOf,
  newOutside,
  type Office,
  type Outside,
  officeOn,
  paysByLink,
  reconcile,
  stateOf,
} from './restored.ts';

const { template } = inject('testServer');

const finalRows = (folder: Folder) =>
  folder.received
    .filter(({ name }) => name.startsWith('result_'))
    .flatMap(({ text }) => text.split('\n'))
    .filter((line) => line.startsWith('R,'))
    .map((line) => line.split(','))
    .filter(([, , , outcome]) => outcome !== 'pending')
    .map(([, number, , outcome]) => `${number} ${outcome}`);

afterAll(dropClones);

describe('a day after the backup, and the database as it was before that day', () => {
  let outside: Outside;
  let after: Office;
  let taken: { charges: number; sms: number };

  beforeAll(async () => {
    outside = newOutside();
    const { clock, folder, gateway } = outside;
    const live = nameOf('live');
    await cloneOf(template, 'live');

    // Before the backup: a file is in, its notices are planned for the hours to come, four cards are due today.
    let before = await officeOn(live, outside);
    expect(await before.watch.begin()).toBeNull();
    folder.drop(
      billingName(1),
      billingFile(
        1,
        [{}, {}, {}].map((_, at) => ({ number: `OLD-${at}`, customer: `O${at}` })),
      ),
    );
    expect((await before.run('fetch')).counts).toMatchObject({ files: 1 });
    expect((await before.run('ingest')).counts).toMatchObject({ bills: 3 });
    expect((await before.run('notify')).counts).toMatchObject({ waiting_for_hours: 3 });
    await makeBills(
      before.ports,
      before.merchant,
      ['CARD-0', 'CARD-1', 'CARD-2', 'CARD-3'].map((number) => ({ number })),
    );
    // They came by no file: it has no trailer, and took no payment numbers.
    await before.db.run(
      `update billing_files set amount_trailer = amount_accepted where amount_trailer is null`,
    );
    await before.db.run(`update merchant_counters set value = value + 100 where name = 'payment_number'`);
    await before.run('deliver');
    folder.collect();
    await before.watch.beat();
    await before.db.close();
    const backup = await cloneOf(live, 'backup');

    // After it: SMS, charges, a second file, a visitor who pays and enrols, a bill handed back, and all of it told.
    before = await officeOn(live, outside);
    expect(await before.watch.begin()).toBeNull();
    clock.advance(4 * hour);
    gateway.behave('tok_CARD-1', 'timeout_after');
    gateway.behave('tok_CARD-3', { declines: { gatewayCode: 'never_heard_of', networkCode: 'ZZ' } });
    expect((await before.run('charge')).counts).toMatchObject({ charged: 2, unknown: 1, parked: 1 });
    folder.drop(
      billingName(102),
      billingFile(
        102,
        [0, 1].map((at) => ({ number: `NEW-${at}`, customer: `N${at}` })),
      ),
    );
    expect((await before.run('fetch')).counts).toMatchObject({ files: 1 });
    expect(await before.run('ingest')).toMatchObject({ counts: { bills: 2 } });
    expect((await before.run('notify')).counts).toMatchObject({ sent: 5 });
    expect(await paysByLink(before, outside, 'OLD-0', 'tok_enrolled')).toBe('paid');
    expect(await paysByLink(before, outside, 'NEW-0', null)).toBe('paid');
    await returnParked(before.ports, before.merchant, ['CARD-3'], 'operator');
    await before.run('deliver');
    folder.collect();
    clock.advance(hour);
    await before.run('trace');
    // One that nobody learned before the database was lost.
    await before.run('deliver');
    folder.collect();
    expect(finalRows(folder).sort()).toEqual([
      'CARD-0 paid',
      'CARD-1 paid',
      'CARD-2 paid',
      'CARD-3 unpaid',
      'NEW-0 paid',
      'OLD-0 paid',
    ]);
    await expectInvariants(before.db);
    await before.watch.beat();
    await before.db.close();
    taken = { charges: gateway.captured.length, sms: outside.carrier.taken.length };

    clock.advance(hour);
    after = await officeOn(backup, outside);
  });
  afterAll(async () => {
    await after?.db.close();
    rmSync(outside.archive, { recursive: true, force: true });
  });

  test('starts in safe mode by itself, and nothing leaves it', async () => {
    expect(await after.watch.begin()).toBe('the database does not know what this machine has seen of it');
    for (const job of jobNames.filter((name) => name !== 'trace')) {
      expect(await after.run(job), job).toMatchObject({ outcome: 'attention', counts: { safe_mode: 1 } });
    }
    expect(await after.run('trace')).toMatchObject({ outcome: 'done' });
    // Also where the job had begun before safe mode did: the statements that claim look themselves.
    for (const job of ['charge', 'notify'] as const) {
      const begun = { merchant: after.merchant, businessDate: '2026-11-25', evenInSafeMode: true };
      const counts = (await runJob(after.ports, jobs[job], begun)).counts;
      expect(counts, job).toEqual({ safe_mode: 1 });
    }
    const [old] = await after.db.query<{ id: string }>(
      `select id from invoices where billing_number = 'OLD-1'`,
    );
    const link = { merchantId: after.merchant.id, invoiceId: old?.id ?? '', version: 1 };
    expect((await viewBill(after.db, outside.clock.now(), link))?.state).toBe('resting');
    expect(await paysByLink(after, outside, 'OLD-1', null)).toBe('look_again');
    expect(outside.gateway.captured).toHaveLength(taken.charges);
    expect(outside.carrier.taken).toHaveLength(taken.sms);
    await expect(endRestore(after.ports, 'test', null)).rejects.toThrow('not reconciled yet');
  });

  test('learns what it has forgotten, once the outside answers and nothing from before can still happen', async () => {
    outside.gateway.down = true;
    expect(await reconcile(after)).toMatchObject([
      { step: 'files', counts: { recovered: 1, bills: 2 } },
      { step: 'messages', counts: { listed: 5, recovered: 5 } },
      { step: 'charges', leftOver: 'the gateway does not answer' },
      { step: 'told', leftOver: expect.stringContaining('is not true here') },
    ]);
    outside.gateway.down = false;
    expect(await reconcile(after)).toMatchObject([
      { step: 'files', counts: { recovered: 0 }, leftOver: null },
      { step: 'messages', counts: { recovered: 0 } },
      {
        step: 'charges',
        counts: { listed: 5, recovered: 5 },
        leftOver: expect.stringContaining('may still take effect'),
      },
      { step: 'told', leftOver: null },
    ]);
    await expect(endRestore(after.ports, 'test', null)).rejects.toThrow('may still take effect');
    outside.clock.advance(hour);
    expect((await reconcile(after)).map(({ leftOver }) => leftOver)).toEqual([null, null, null, null]);

    for (const number of ['CARD-0', 'CARD-1', 'CARD-2', 'NEW-0', 'OLD-0'])
      expect(await stateOf(after, number), number).toBe('paid');
    expect(await stateOf(after, 'CARD-3')).toBe('unpaid');
    expect(await stateOf(after, 'OLD-1')).toBe('open');
    await expectInvariants(after.db);
    await endRestore(after.ports, 'test', null);
    expect(await openRestore(after.db)).toBeUndefined();
    expect(await after.db.query(`select actor from acts where actor = 'test ends safe mode'`)).toHaveLength(
      1,
    );
  });

  test('an SMS that is on a phone still leads to its bill, also to one that the database had forgotten', async () => {
    expect(outside.carrier.taken.length).toBeGreaterThan(4);
    for (const { body } of outside.carrier.taken) {
      const token = /\/([A-Za-z0-9-]+)$/m.exec(body.match(/https:\S+/)?.[0] ?? '')?.[1] ?? '';
      expect(await findLink(after.db, token), body).not.toBeNull();
    }
  });

  test('goes on: nobody pays or is told anything a second time, and nothing is lost', async () => {
    const { clock, gateway, carrier, folder } = outside;
    for (let day = 0; day < 2; day += 1) {
      for (const job of jobNames) await after.run(job);
      folder.collect();
      clock.advance(24 * hour);
    }
    const paidFor = gateway.captured.map(({ invoiceId }) => invoiceId);
    expect(new Set(paidFor).size).toBe(paidFor.length);
    const ids = carrier.taken.map(({ messageId }) => messageId);
    expect(new Set(ids).size).toBe(ids.length);
    const rows = finalRows(folder);
    expect(new Set(rows.map((row) => row.split(' ')[0])).size).toBe(rows.length);
    const names = folder.received.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    // One receipt for each file: two from the merchant, one from the test.
    expect(names.filter((name) => name.startsWith('receipt_'))).toHaveLength(3);
    // Who enrolled on that day is on automatic payment, and the merchant was told so once.
    const [enrolled] = await after.db.query<{ enrolled: number }>(
      `select count(*) as enrolled from enrolments e join customers c on c.merchant_id = e.merchant_id and c.id = e.customer_id
       where c.customer_number = 'O0' and e.state = 'active'`,
    );
    expect(enrolled).toEqual({ enrolled: 1 });
    expect(folder.received.filter(({ name }) => name.startsWith('enrolment_'))).toHaveLength(1);
    await expectInvariants(after.db);
  });
});

describe('what a machine has seen of its database', () => {
  test('no alarm where nothing was lost, on one machine or two, and each loss is told once', async () => {
    const outside = newOutside();
    const first = nameOf('first');
    await cloneOf(template, 'first');
    let office = await officeOn(first, outside);
    const other = { ...outside, witnesses: new Map<string, Witness>() };
    const elsewhere = await officeOn(first, other);
    for (const each of [office, elsewhere, office, elsewhere]) expect(await each.watch.beat()).toBeNull();
    await office.db.close();
    await elsewhere.db.close();
    const second = await cloneOf(first, 'second');

    office = await officeOn(first, outside);
    expect(await office.watch.beat()).toBeNull();
    const seenElsewhere = await officeOn(first, other);
    expect(await seenElsewhere.watch.beat()).toBeNull();
    await office.db.close();
    await seenElsewhere.db.close();

    outside.clock.advance(hour);
    const back = await officeOn(second, outside);
    expect(await back.watch.begin()).not.toBeNull();
    await endRestore(back.ports, 'test', 'a test');
    const later = await officeOn(second, outside);
    expect(await later.watch.begin()).toBeNull();
    // The other machine's witness is of the past that this restore accounted for.
    const also = await officeOn(second, other);
    expect(await also.watch.begin()).toBeNull();
    for (const each of [back, later, also]) await each.db.close();
    rmSync(outside.archive, { recursive: true, force: true });
  });

  test('a running process notices that its past is gone', async () => {
    const outside = newOutside();
    await cloneOf(template, 'running');
    const office = await officeOn(nameOf('running'), outside);
    expect(await office.watch.begin()).toBeNull();
    expect(await office.watch.beat()).toBeNull();
    await office.db.run(`update process_lives set beats = 1`);
    expect(await office.watch.beat()).not.toBeNull();
    expect((await restoreStatus(office.db)).restore?.why).toContain('does not know');
    await office.db.run(`update database_identity set timeline = 0`);
    expect(await office.watch.beat()).toContain('failed over');
    await office.db.close();
    rmSync(outside.archive, { recursive: true, force: true });
  });
});

test('the outbox lists what it took of a merchant in [from, until), and a list that is cut off is none', async () => {
  const outside = newOutside();
  await cloneOf(template, 'outbox');
  const office = await officeOn(nameOf('outbox'), outside);
  const { db } = office;
  const { clock } = outside;
  let fault: 'cut_off' | null = null;
  const carrier = outboxCarrier({ db, clock, sealer: office.ports.sealer, listFault: () => fault });
  const from = clock.now();
  for (const messageId of ['A.first_notice', 'B.first_notice']) {
    const request = {
      messageId,
      merchantCode: 'minato-gas',
      to: '+819012345678',
      body: 'x',
      sender: 'first' as const,
    };
    await carrier.send(request, new AbortController().signal);
    clock.advance(1_000);
  }
  const list = async (until: string) => {
    const ids: (string | null)[] = [];
    const listed = carrier.list('minato-gas', from.toString(), until, new AbortController().signal);
    for await (const sms of listed) ids.push(sms.messageId);
    return ids;
  };
  expect(await list(clock.now().toString())).toEqual(['A.first_notice', 'B.first_notice']);
  expect(await list(from.add({ seconds: 1 }).toString())).toEqual(['A.first_notice']);
  fault = 'cut_off';
  await expect(list(clock.now().toString())).rejects.toThrow('cut off');
  await db.close();
  rmSync(outside.archive, { recursive: true, force: true });
});

test('a capture that is of no bill here is a finding, and safe mode ends only with a reason', async () => {
  const outside = newOutside();
  await cloneOf(template, 'unproved');
  const office = await officeOn(nameOf('unproved'), outside);
  const bills = await makeBills(office.ports, office.merchant, [
    { number: 'X' },
    { number: 'Y' },
    { number: 'Z' },
  ]);
  await office.watch.begin();
  const charge = (invoiceId: string, amount: number) =>
    outside.gateway.charge(
      {
        account: 'minato-gas',
        reference: referenceOf(office.ports.ids.uuid()),
        invoiceId,
        amount,
        currency: 'JPY',
        methodToken: 'tok',
        networkTransactionId: null,
      },
      new AbortController().signal,
    );
  await charge('not-one-of-ours', 100);
  await charge(office.ports.ids.uuid(), 100);
  await charge(bills.get('X') ?? '', 4_999);
  // Twice for one bill: one pays it, the other is the customer's.
  await charge(bills.get('Y') ?? '', 5_000);
  await charge(bills.get('Y') ?? '', 5_000);
  await office.db.run(`update database_identity set system_identifier = '1'`);
  await office.watch.beat();
  outside.clock.advance(hour);
  await reconcile(office);
  expect(await stateOf(office, 'X')).toBe('open');
  expect(await stateOf(office, 'Y')).toBe('paid');
  expect(await stateOf(office, 'Z')).toBe('open');
  expect(await office.db.query(`select amount, reason from credits`)).toEqual([
    { amount: 5_000, reason: 'paid_twice' },
  ]);
  const { findings } = await restoreStatus(office.db);
  expect(findings.map(({ kind }) => kind).sort()).toEqual(['amount_differs', 'missing_here', 'missing_here']);
  await expectInvariants(office.db);
  await expect(endRestore(office.ports, 'test', null)).rejects.toMatchObject({ code: 'RESTORE_UNFINISHED' });
  await endRestore(office.ports, 'test', 'of another system, seen by the gateway');
  expect((await office.db.query(`select accepted from restores`))[0]).toEqual({
    accepted: 'of another system, seen by the gateway',
  });
  await office.db.close();
  rmSync(outside.archive, { recursive: true, force: true });
});
