import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { Carrier, ListedSms, SmsRequest } from '../billing/carriers/carrier.ts';
import { outboxCarrier } from '../billing/carriers/outbox.ts';
import { findLink } from '../billing/checkout/find-link.ts';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { viewBill } from '../billing/checkout/view-bill.ts';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import { type Db, openDatabase } from '../billing/db.ts';
import { referenceOf, seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { returnParked } from '../billing/parked/return.ts';
import { Refusal } from '../billing/refusal.ts';
import { endRestore, restoreStatus } from '../billing/restores/end.ts';
import { openRestore } from '../billing/restores/queries.ts';
import { Watch, type Witness } from '../billing/restores/watch.ts';
import type { RemoteStore } from '../files/store.ts';
import { type JobName, jobNames } from '../jobs/job.ts';
import { jobs } from '../jobs/jobs.ts';
import type { Ports } from '../jobs/ports.ts';
import { reconcileRestore } from '../jobs/restore.ts';
import { type RunEnd, runJob } from '../jobs/run.ts';
import { expectInvariants, makeBills, makeMerchant } from './bills.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { billingFile, billingName } from './inbox.ts';
import { portsFor } from './ports.ts';

/** A carrier with books of its own. Like most real ones it sends whatever it is asked to, also twice. */
interface Books extends Carrier {
  taken: (SmsRequest & ListedSms)[];
}

function carrierOf(clock: FixedClock): Books {
  const taken: Books['taken'] = [];
  return {
    name: 'outbox',
    semantics: { callDeadlineMs: 10_000, notFoundConclusiveAfterMs: 60_000, concurrency: 4 },
    taken,
    async send(request) {
      const providerId = `sms-${taken.length + 1}`;
      taken.push({ ...request, providerId, takenAt: clock.now().toString() });
      return { kind: 'accepted', providerId };
    },
    async lookup({ messageId }) {
      const sms = taken.find((each) => each.messageId === messageId);
      return sms ? { kind: 'accepted', providerId: sms.providerId } : { kind: 'not_found' };
    },
    async *list(_merchant, from, until) {
      yield* taken.filter((sms) => sms.takenAt >= from && sms.takenAt < until);
    },
  };
}

/** The merchant's folder. What appears outbound is taken away at once, as merchants do. */
class Folder {
  readonly files = new Map<string, Buffer>();
  readonly received: { name: string; text: string }[] = [];

  drop(name: string, text: string): void {
    const digest = createHash('sha256').update(text).digest('hex');
    this.files.set(`inbound/${name}`, Buffer.from(text));
    this.files.set(`inbound/${name}.done`, Buffer.from(`${digest}  ${name}\n`));
  }

  collect(): void {
    for (const path of [...this.files.keys()].filter((each) => each.startsWith('outbound/'))) {
      const text = (this.files.get(path) ?? Buffer.alloc(0)).toString('utf8');
      if (!path.endsWith('.done')) this.received.push({ name: path.slice('outbound/'.length), text });
      this.files.delete(path);
    }
  }

  readonly open = async (): Promise<RemoteStore> => {
    const { files } = this;
    const refuse = (code: string) => new Refusal(code, code, { next: '' });
    const stat: RemoteStore['stat'] = async (path) => {
      const bytes = files.get(path);
      return (
        bytes && {
          name: path.split('/').at(-1) ?? '',
          kind: 'file',
          sizeBytes: bytes.length,
          modifiedAtEpochS: 0,
        }
      );
    };
    return {
      stat,
      async list(folder) {
        const entries = await Promise.all(
          [...files.keys()].filter((path) => path.startsWith(`${folder}/`)).map(stat),
        );
        return entries.filter((entry) => entry !== undefined);
      },
      async *download(path) {
        yield files.get(path) ?? Buffer.alloc(0);
      },
      async upload(path, content) {
        const parts: Uint8Array[] = [];
        for await (const part of content) parts.push(Uint8Array.from(part));
        files.set(path, Buffer.concat(parts));
        return files.get(path)?.length ?? 0;
      },
      async rename(from, to) {
        if (files.has(to)) throw refuse('SFTP_EXISTS');
        files.set(to, files.get(from) ?? Buffer.alloc(0));
        files.delete(from);
      },
      async remove(path) {
        if (!files.delete(path)) throw refuse('SFTP_NOT_FOUND');
      },
      close: async () => undefined,
    };
  };
}

/** Everything that a restore of the database leaves as it is. */
interface Outside {
  clock: FixedClock;
  gateway: FakeGateway;
  carrier: Books;
  folder: Folder;
  witnesses: Map<string, Witness>;
  archive: string;
}

interface Office {
  db: Db;
  ports: Ports;
  merchant: Merchant;
  watch: Watch;
  run(job: JobName): Promise<RunEnd>;
}

const { adminUrl, ownerUrl, template, prefix } = inject('testServer');
const nameOf = (what: string) => `${prefix}restore_${process.pid}_${what}`;
let admin: Db;
const made: string[] = [];

async function cloneOf(source: string, what: string): Promise<string> {
  const name = nameOf(what);
  await admin.run(`create database ${name} owner seikyu template ${source} strategy wal_log`);
  made.push(name);
  return name;
}

async function officeOn(database: string, outside: Outside): Promise<Office> {
  const url = new URL(ownerUrl);
  url.pathname = `/${database}`;
  const db = openDatabase(url.href, { applicationName: 'restore test' });
  const { clock, gateway, carrier, folder, witnesses } = outside;
  const randomness = seededRandomness(database);
  const ports: Ports = {
    ...portsFor(db, clock, gateway, outside.archive),
    randomness,
    ids: timeOrderedIds(clock, randomness),
    carrier,
    openStore: folder.open,
  };
  const merchant = await makeMerchant(ports, 'minato-gas', '');
  const stand = {
    read: async (id: string) => witnesses.get(id) ?? null,
    write: async (witness: Witness) => void witnesses.set(witness.databaseId, witness),
  };
  return {
    db,
    ports,
    merchant,
    watch: new Watch({ db, clock, ids: ports.ids, stand, owner: `process on ${database}` }),
    async run(job) {
      const businessDate = clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString();
      const end = await runJob(ports, jobs[job], { merchant, businessDate });
      if (end.failure !== null) throw end.failure;
      return end;
    },
  };
}

function newOutside(): Outside {
  const clock = fixedClock('2026-11-24T22:00:00Z');
  return {
    clock,
    gateway: fakeGateway(clock),
    carrier: carrierOf(clock),
    folder: new Folder(),
    witnesses: new Map(),
    archive: mkdtempSync(join(tmpdir(), 'seikyu-restore-')),
  };
}

const hour = 3_600_000;

/** A visitor who opens the newest SMS of a bill and pays. */
async function paysByLink(office: Office, outside: Outside, billingNumber: string, token: string | null) {
  const [bill] = await office.db.query<{ id: string }>(`select id from invoices where billing_number = $1`, [
    billingNumber,
  ]);
  const link = { merchantId: office.merchant.id, invoiceId: bill?.id ?? '', version: 1 };
  const started = await startCheckout(office.db, office.ports, {
    link,
    method: 'card',
    enrol: token !== null,
    language: 'ja',
    returnUrlOf: (chargeId) => `https://pay.invalid/return/${chargeId}`,
  });
  if (started.kind !== 'redirect') return started.kind;
  const [charge] = await office.db.query<{ id: string }>(
    `select charge_id as id from collection_locks where invoice_id = $1`,
    [bill?.id],
  );
  outside.gateway.customerPays(referenceOf(charge?.id ?? ''), token);
  await learnFromGateway(office.db, office.ports, office.merchant, [charge?.id ?? ''], 'return');
  return 'paid';
}

const reconcile = (office: Office) =>
  openRestore(office.db).then((restore) => {
    if (restore === undefined) throw new Error('no restore is open');
    const worker = { owner: 'operator:1:x', isDead: () => false, codeVersion: 'test' };
    return reconcileRestore(office.ports, office.merchant, {
      restore,
      worker,
      by: 'test',
      stop: new AbortController().signal,
      say: () => undefined,
    });
  });

const stateOf = async ({ db }: Office, number: string) =>
  (await db.query<{ state: string }>(`select state from invoices where billing_number = $1`, [number]))[0]
    ?.state;

const finalRows = (folder: Folder) =>
  folder.received
    .filter(({ name }) => name.startsWith('result_'))
    .flatMap(({ text }) => text.split('\n'))
    .filter((line) => line.startsWith('R,'))
    .map((line) => line.split(','))
    .filter(([, , , outcome]) => outcome !== 'pending')
    .map(([, number, , outcome]) => `${number} ${outcome}`);

beforeAll(() => {
  admin = openDatabase(adminUrl, { applicationName: 'restore test admin' });
});
afterAll(async () => {
  for (const name of made) await admin.run(`drop database if exists ${name} with (force)`);
  await admin.close();
});

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
    const request = { messageId, merchantCode: 'minato-gas', to: '+819012345678', body: 'x' };
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
