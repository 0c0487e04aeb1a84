import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Act } from '../billing/acts/act.ts';
import { recordAct } from '../billing/acts/queries.ts';
import { type ChainHead, type Entry, emptyChain, hashOf } from '../billing/audit/chain.ts';
import {
  chainHead,
  covered,
  entriesAfter,
  lockHead,
  takeUnsealed,
  unsealedTooLong,
} from '../billing/audit/queries.ts';
import { sealActs } from '../billing/audit/seal.ts';
import { type AuditVerified, verifyAudit } from '../billing/audit/verify.ts';
import { fixedClock } from '../billing/clock.ts';
import { CommitOutcomeUnknown, type Db, openDatabase, type Tx } from '../billing/db.ts';
import { post } from '../billing/ledger/queries.ts';
import { migrateDatabase } from '../billing/migrate.ts';
import { charge } from '../jobs/charge.ts';
import { deliver } from '../jobs/deliver.ts';
import { runJob } from '../jobs/run.ts';
import { migrations } from '../migrations/index.ts';
import { type Bills, billsOf } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { billingFile, billingName, openOffice } from './inbox.ts';

type Reader = Pick<Db, 'query'>;

const verify = (
  db: Reader,
  world: Pick<Bills, 'merchant' | 'clock'>,
  more: { head?: ChainHead; fromMonth?: string } = {},
): Promise<AuditVerified> =>
  verifyAudit(db, { merchant: world.merchant, now: world.clock.now(), head: null, fromMonth: null, ...more });

const told = ({ findings }: AuditVerified) => findings.map(({ what, no, table }) => ({ what, no, table }));

const actOf = (world: Bills, actor = 'test'): Act => ({
  merchantId: world.merchant.id,
  id: world.ports.ids.uuid(),
  kind: 'command',
  actor,
  at: world.clock.now(),
});

/** A transfer of the act, as any event posts it. */
async function move(tx: Tx, world: Bills, act: Act): Promise<void> {
  const { ids } = world.ports;
  await post(tx, act, '2026-12-01', [
    {
      event: 'bill_released',
      entryId: ids.uuid(),
      invoiceId: ids.uuid(),
      customerId: ids.uuid(),
      amount: 1_000,
      currency: 'JPY',
      eventOn: '2026-12-01',
    },
  ]);
}

const record = (world: Bills, act: Act): Promise<void> =>
  world.db.transaction(async (tx) => {
    await recordAct(tx, act);
    await move(tx, world, act);
  });

const chainOf = (db: Reader, world: Bills): Promise<Entry[]> =>
  entriesAfter(db, world.merchant.id, { no: 0, month: '0001-01-01' }, '0001-01-01', 10_000);

describe('a chain that somebody meddles with', () => {
  let database: TestDatabase;
  let superuser: Db;
  let world: Bills;
  let entries: Entry[];
  /** The act that charged the bills: it has rows in every table. */
  let charged: Entry;

  beforeAll(async () => {
    database = await testDatabase();
    superuser = openDatabase(database.superUrl);
    world = await billsOf(database.db);
    await world.make([{ number: 'A-1' }, { number: 'A-2' }]);
    await world.run(charge);
    await record(world, actOf(world, 'the last'));
    await sealActs(world.ports, world.merchant.id);
    entries = await chainOf(world.db, world);
    charged = entries.find((entry) => entry.actor.startsWith('charge') && entry.transfers.count > 0) as Entry;
  });
  afterAll(async () => {
    world.close();
    await superuser.close();
    await database.drop();
  });

  /** What is found while the change stands; it is undone afterwards. */
  async function tampered(change: (tx: Tx) => Promise<unknown>, head?: ChainHead): Promise<AuditVerified> {
    let found: AuditVerified | undefined;
    const undo = new Error('undone');
    const meddling = superuser.transaction(async (tx) => {
      await change(tx);
      found = await verify(tx, world, head === undefined ? {} : { head });
      throw undo;
    });
    await expect(meddling).rejects.toBe(undo);
    return found as AuditVerified;
  }

  const seal = (entry: Omit<Entry, 'hash'>): Entry => ({ ...entry, hash: hashOf(entry) });

  /** Writes an entry under its number as if it had been sealed so. */
  async function write(tx: Tx, no: number, entry: Entry): Promise<void> {
    await tx.run(
      `update audit_log set no = $3, actor = $4, previous = decode($5, 'hex'), hash = decode($6, 'hex')
       where merchant_id = $1 and no = $2`,
      [world.merchant.id, no, entry.no, entry.actor, entry.previous, entry.hash],
    );
  }

  const copy = (no: number, as: number) =>
    `insert into audit_log select merchant_id, month, ${as}, act_id, kind, actor, at, sealed_at, acts_count, acts_sha256,
       transfers_count, transfers_sha256, history_count, history_sha256, previous, hash from audit_log where no = ${no}`;

  test('holds as long as nobody does', async () => {
    expect(entries.length).toBeGreaterThanOrEqual(4);
    expect(charged.transfers.count).toBe(2);
    const verified = await verify(world.db, world);
    expect(verified).toMatchObject({ holds: true, entries: entries.length, findings: [] });
    expect(verified.head).toEqual({ no: entries.length, hash: entries.at(-1)?.hash });
  });

  test('an entry covers every column of its rows', async () => {
    for (const [table, { columns, act }] of Object.entries(covered)) {
      const found = await world.db.query<{ name: string }>(
        `select attname as name from pg_attribute where attrelid = $1::regclass and attnum > 0 and not attisdropped`,
        [table],
      );
      const listed = new Set([...Object.keys(columns), 'merchant_id', act]);
      expect(found.map(({ name }) => name).sort(), table).toEqual([...listed].sort());
    }
  });

  const changes: Record<string, Record<string, string>> = {
    transfers: {
      month: `month - interval '1 month'`,
      entry_id: `'01900000-0000-7000-8000-000000000001'`,
      event: `event || ' '`,
      leg: 'leg + 1',
      debit: `'fees'`,
      credit: `'fee_tax'`,
      amount: 'amount + 1',
      currency: `'USD'`,
      event_on: 'event_on + 1',
      posted_on: 'posted_on - 1',
      closing_month: `closing_month + interval '1 month'`,
      invoice_id: 'null',
      customer_id: 'invoice_id',
    },
    state_history: {
      month: `month - interval '1 month'`,
      subject: `subject || 'x'`,
      subject_id: `'01900000-0000-7000-8000-000000000001'`,
      version: 'version + 10',
      from_state: `coalesce(from_state, '') || 'x'`,
      to_state: `to_state || 'x'`,
      at: `at + interval '1 microsecond'`,
    },
    acts: {
      month: `month - interval '1 month'`,
      kind: `'webhook'`,
      actor: `actor || ' '`,
      at: `at - interval '1 microsecond'`,
    },
  };
  const cases = Object.entries(changes).flatMap(([table, columns]) =>
    Object.entries(columns).map(([column, value]) => [table, column, value] as const),
  );
  test.each(cases)('%s: another %s is found', async (table, column, value) => {
    const key = table === 'acts' ? 'id' : 'act_id';
    const verified = await tampered((tx) =>
      tx.run(
        `update ${table} set ${column} = ${value}
         where ctid = (select ctid from ${table} where merchant_id = $1 and ${key} = $2 order by 1 limit 1)`,
        [world.merchant.id, charged.actId],
      ),
    );
    expect(told(verified)).toEqual([{ what: 'rows_changed', no: charged.no, table }]);
    expect(verified.findings[0]).toMatchObject({
      actId: charged.actId,
      actor: charged.actor,
      at: charged.at,
    });
    expect(verified.findings[0]?.candidates).toHaveLength(Math.min(10, verified.findings[0]?.present ?? 0));
  });

  test('a history row that is gone, a transfer that was put in', async () => {
    const gone = await tampered((tx) =>
      tx.run(`delete from state_history where act_id = $1 and subject = 'invoice' and to_state = 'paid'`, [
        charged.actId,
      ]),
    );
    const { count } = charged.history;
    expect(told(gone)).toEqual([{ what: 'rows_removed', no: charged.no, table: 'state_history' }]);
    expect(gone.findings[0]).toMatchObject({ sealed: count, present: count - 2 });
    const put = await tampered((tx) => move(tx, world, { ...actOf(world), id: charged.actId }));
    expect(told(put)).toEqual([{ what: 'rows_inserted', no: charged.no, table: 'transfers' }]);
    expect(put.findings[0]).toMatchObject({ sealed: 2, present: 3 });
  });

  test('rows of an act that was never recorded', async () => {
    const stranger = actOf(world);
    const verified = await tampered((tx) => move(tx, world, stranger));
    expect(told(verified)).toEqual([{ what: 'rows_without_entry', no: null, table: 'transfers' }]);
    expect(verified.findings[0]).toMatchObject({ actId: stranger.id, present: 1 });
  });

  test('a row that was changed, and its act sealed again over it', async () => {
    const verified = await tampered(async (tx) => {
      await tx.run(`update transfers set amount = amount + 1 where act_id = $1`, [charged.actId]);
      await recordAct(tx, { ...actOf(world), id: charged.actId });
      const db = {
        ...superuser,
        query: tx.query,
        transaction: (work: (tx: Tx) => unknown) => work(tx),
      } as Db;
      await sealActs({ db, clock: world.clock }, world.merchant.id);
    });
    expect(told(verified)).toEqual([{ what: 'sealed_otherwise', no: entries.length + 1, table: null }]);
  });

  test('an entry that was changed', async () => {
    const verified = await tampered((tx) => tx.run(`update audit_log set actor = 'nobody' where no = 2`));
    expect(told(verified)).toEqual([{ what: 'entry_changed', no: 2, table: null }]);
  });

  test('an entry that was changed and given a hash to match', async () => {
    const verified = await tampered((tx) =>
      write(tx, 2, seal({ ...(entries[1] as Entry), actor: 'nobody' })),
    );
    expect(told(verified)).toEqual([{ what: 'entry_rewritten', no: 3, table: null }]);
  });

  test('an entry that was removed, from the middle and from the end', async () => {
    const middle = await tampered((tx) => tx.run(`delete from audit_log where no = 3`));
    expect(told(middle)[0]).toEqual({ what: 'entry_removed', no: 3, table: null });
    // Its act's rows are there, and no entry knows them.
    expect(
      told(middle)
        .slice(1)
        .every(({ what }) => what === 'rows_without_entry'),
    ).toBe(true);
    const end = await tampered((tx) => tx.run(`delete from audit_log where no = $1`, [entries.length]));
    expect(told(end)).toContainEqual({ what: 'entry_removed', no: entries.length, table: null });
  });

  test('an entry that was put in: with a number twice, at the end, between others that move on', async () => {
    const twice = await tampered((tx) =>
      tx.run(copy(3, 3).replace('merchant_id, month,', `merchant_id, month + interval '1 month',`)),
    );
    expect(told(twice)).toEqual([{ what: 'entry_inserted', no: 3, table: null }]);
    const last = entries.at(-1) as Entry;
    const end = await tampered(async (tx) => {
      await tx.run(copy(1, last.no + 1));
      await write(tx, last.no + 1, seal({ ...(entries[0] as Entry), no: last.no + 1, previous: last.hash }));
    });
    expect(told(end)).toContainEqual({ what: 'entry_inserted', no: last.no + 1, table: null });
    const between = await tampered(async (tx) => {
      for (const { no } of [...entries].reverse().filter((entry) => entry.no >= 3))
        await tx.run(`update audit_log set no = no + 1 where no = $1`, [no]);
      await tx.run(copy(1, 3));
      const previous = entries[1]?.hash ?? '';
      await write(tx, 3, seal({ ...(entries[0] as Entry), no: 3, previous }));
      await tx.run(`update audit_heads set no = no + 1`);
    });
    expect(told(between)).toContainEqual({ what: 'entry_inserted', no: 3, table: null });
    expect(told(between).filter(({ what }) => what.startsWith('entry_'))).toHaveLength(1);
  });

  test('two entries that changed places', async () => {
    const swapped = await tampered(async (tx) => {
      await tx.run(`update audit_log set no = -1 * no + 100 where no in (2, 3)`);
      await tx.run(`update audit_log set no = case no when 98 then 3 else 2 end where no in (97, 98)`);
    });
    expect(told(swapped)).toEqual([
      { what: 'entry_reordered', no: 2, table: null },
      { what: 'entry_reordered', no: 3, table: null },
    ]);
  });

  test('a chain written anew from its first entry on holds in itself, and not against a head kept elsewhere', async () => {
    const kept: ChainHead = await chainHead(world.db, world.merchant.id);
    expect(await verify(world.db, world, { head: kept })).toMatchObject({ holds: true });
    const rewrite = async (tx: Tx) => {
      let previous = emptyChain.hash;
      for (const entry of entries) {
        const anew = seal({ ...entry, actor: entry.no === 1 ? 'nobody' : entry.actor, previous });
        await write(tx, entry.no, anew);
        previous = anew.hash;
      }
      await tx.run(`update audit_heads set hash = decode($1, 'hex')`, [previous]);
    };
    expect(await tampered(rewrite)).toMatchObject({ holds: true });
    expect(told(await tampered(rewrite, kept))).toEqual([
      { what: 'given_head_differs', no: kept.no, table: null },
    ]);
    const beyond = { no: kept.no + 1, hash: kept.hash };
    expect(told(await verify(world.db, world, { head: beyond }))[0]?.what).toBe('given_head_differs');
  });

  test('a head that was moved', async () => {
    const back = await tampered((tx) => tx.run(`update audit_heads set no = no - 1`));
    expect(told(back)[0]?.what).toBe('entry_inserted');
    const other = await tampered((tx) => tx.run(`update audit_heads set hash = sha256('x')`));
    expect(told(other)).toEqual([{ what: 'head_differs', no: entries.length, table: null }]);
  });

  test('no role of the program can change or remove an entry', async () => {
    for (const db of [world.db, database.webDb]) {
      for (const statement of [
        `update audit_log set actor = 'nobody'`,
        'delete from audit_log',
        'truncate audit_log',
      ])
        await expect(db.run(statement)).rejects.toThrow(/permission denied for table audit_log/);
    }
    await expect(database.webDb.query('select * from audit_log')).rejects.toThrow(/permission denied/);
  });
});

describe('sealing', () => {
  let database: TestDatabase;
  let other: Db;
  let world: Bills;

  beforeAll(async () => {
    database = await testDatabase();
    other = openDatabase(database.url);
    world = await billsOf(database.db);
    await sealActs(world.ports, world.merchant.id);
  });
  afterAll(async () => {
    world.close();
    await other.close();
    await database.drop();
  });

  const sealNow = () => sealActs(world.ports, world.merchant.id);
  const entriesOf = async (act: Act) =>
    (await chainOf(world.db, world)).filter(({ actId }) => actId === act.id);
  const countsOf = async (act: Act) => (await entriesOf(act)).map(({ transfers }) => transfers.count);

  /** Until a connection of this database waits for a lock. */
  async function somebodyWaits(): Promise<void> {
    for (;;) {
      const [row] = await world.db.query<{ waiting: number }>(
        `select count(*)::int as waiting from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'`,
      );
      if ((row?.waiting ?? 0) > 0) return;
    }
  }

  test('again finds nothing to do', async () => {
    const act = actOf(world);
    await record(world, act);
    expect(await sealNow()).toBe(1);
    expect(await sealNow()).toBe(0);
    expect(await countsOf(act)).toEqual([1]);
  });

  test('an act that goes on in further transactions gets further entries, each over all of its rows', async () => {
    const act = actOf(world);
    for (const after of [1, 2, 3]) {
      await record(world, act);
      // What waits to be sealed again is no finding.
      expect(await verify(world.db, world)).toMatchObject({ holds: true });
      await sealNow();
      expect((await countsOf(act)).at(-1)).toBe(after);
    }
    expect(await verify(world.db, world)).toMatchObject({ holds: true });
  });

  test('an act over the turn of a month is one act', async () => {
    const act = actOf(world);
    await record(world, act);
    await record(world, { ...act, at: act.at.add({ hours: 31 * 24 }) });
    await sealNow();
    expect((await entriesOf(act)).map(({ acts }) => acts.count)).toEqual([2]);
  });

  test('leaves alone what a transaction still writes to, and waits for nobody', async () => {
    const act = actOf(world);
    await record(world, act);
    await other.transaction(async (tx) => {
      await recordAct(tx, act);
      await move(tx, world, act);
      expect(await sealNow()).toBe(0);
    });
    expect(await sealNow()).toBe(1);
    expect(await countsOf(act)).toEqual([2]);
  });

  test('what is written to an act while it is sealed is sealed after', async () => {
    const act = actOf(world);
    await record(world, act);
    let writing: Promise<void> = Promise.resolve();
    await other
      .transaction(async (tx) => {
        await lockHead(tx, world.merchant.id);
        expect((await takeUnsealed(tx, world.merchant.id, 10)).map((taken) => taken.act_id)).toEqual([
          act.id,
        ]);
        writing = record(world, act);
        await somebodyWaits();
        // As a sealer that is killed here, after it took the act.
        throw new Error('killed');
      })
      .catch((error: Error) => expect(error.message).toBe('killed'));
    await writing;
    expect(await sealNow()).toBe(1);
    expect(await countsOf(act)).toEqual([2]);

    await record(world, act);
    const slow = other.transaction(async (tx) => {
      await lockHead(tx, world.merchant.id);
      await takeUnsealed(tx, world.merchant.id, 10);
      writing = record(world, act);
      await somebodyWaits();
    });
    await slow;
    await writing;
    expect(await sealNow()).toBe(1);
    expect(await countsOf(act)).toEqual([2, 4]);
  });

  test('a snapshot older than the sealing is tried again and loses nothing', async () => {
    const act = actOf(world);
    await record(world, act);
    let tries = 0;
    await world.db.transaction(
      async (tx) => {
        tries += 1;
        await tx.query('select 1 from acts limit 1');
        if (tries === 1) await sealActs({ ...world.ports, db: other }, world.merchant.id);
        await recordAct(tx, act);
        await move(tx, world, act);
      },
      { isolation: 'repeatable read' },
    );
    await sealNow();
    expect(await countsOf(act)).toEqual([1, 2]);
  });

  test('at once by many, while acts are written: one chain without gaps, and every row in it', async () => {
    const acts = Array.from({ length: 12 }, () => actOf(world));
    let writing = true;
    const sealers = [world.db, other].map(async (db) => {
      while (writing) await sealActs({ ...world.ports, db }, world.merchant.id);
    });
    await Promise.all(
      [0, 1, 2, 3].map(async (writer) => {
        for (let round = 0; round < 5; round += 1)
          for (const act of acts.slice(writer * 3, writer * 3 + 3)) await record(world, act);
      }),
    );
    writing = false;
    await Promise.all(sealers);
    await sealNow();
    expect(await verify(world.db, world)).toMatchObject({ holds: true });
    for (const act of acts) expect((await countsOf(act)).at(-1)).toBe(5);
  });

  test('more acts than go into one transaction', async () => {
    const before = (await chainHead(world.db, world.merchant.id)).no;
    const acts = Array.from({ length: 1_100 }, () => actOf(world));
    await world.db.transaction(async (tx) => {
      for (const act of acts) await recordAct(tx, act);
    });
    const [one, two] = await Promise.all([
      sealNow(),
      sealActs({ ...world.ports, db: other }, world.merchant.id),
    ]);
    expect(one + two).toBe(1_100);
    expect((await chainHead(world.db, world.merchant.id)).no).toBe(before + 1_100);
    expect(await verify(world.db, world)).toMatchObject({ holds: true });
  });

  test('a COMMIT whose answer was lost is no second entry', async () => {
    const act = actOf(world);
    await record(world, act);
    const losing: Db = {
      ...world.db,
      async transaction(work, options) {
        await world.db.transaction(work, options);
        throw new CommitOutcomeUnknown(new Error('lost'));
      },
    };
    await expect(sealActs({ ...world.ports, db: losing }, world.merchant.id)).rejects.toThrow(
      CommitOutcomeUnknown,
    );
    expect(await sealNow()).toBe(0);
    expect(await countsOf(act)).toEqual([1]);
  });

  test('a job whose acts cannot be sealed is done all the same; a person is called, and the next pass seals them', async () => {
    await world.make([{ number: 'S-1' }]);
    const errors: string[] = [];
    const broken: Db = {
      ...world.db,
      query: (sql, values, options) => {
        if (sql.includes('from unsealed_acts where merchant_id = $1 limit 1'))
          throw new Error('no sealing today');
        return world.db.query(sql, values, options);
      },
    };
    const ports = {
      ...world.ports,
      db: broken,
      log: { ...world.ports.log, error: (_: unknown, message: string) => void errors.push(message) },
    };
    const run = () =>
      runJob(ports, charge as never, { merchant: world.merchant, businessDate: '2026-12-01' });
    expect(await run()).toMatchObject({ outcome: 'done', counts: { charged: 1 } });
    expect(errors).toEqual(['acts were not sealed; the next pass tries again']);
    expect(await verify(world.db, world)).toMatchObject({ holds: true });
    world.clock.advance(16 * 60_000);
    expect(told(await verify(world.db, world))).toEqual([{ what: 'unsealed', no: null, table: null }]);
    const until = world.clock.now().subtract({ minutes: 15 });
    expect(await unsealedTooLong(world.db, until, null)).toMatchObject([{ merchant_id: world.merchant.id }]);
    await run();
    const alerts = await world.db.query(`select level from alerts where cause = 'AUDIT_UNSEALED'`);
    expect(alerts).toEqual([{ level: 'now' }]);
    await world.run(charge);
    expect(await verify(world.db, world)).toMatchObject({ holds: true, findings: [] });
  });

  test('a clock that goes back over the turn of a month keeps the order', async () => {
    world.clock.set('2027-02-01T00:00:01Z');
    await record(world, actOf(world));
    await sealNow();
    world.clock.set('2027-01-31T23:59:59Z');
    await record(world, actOf(world));
    await sealNow();
    const chain = await chainOf(world.db, world);
    expect(chain.slice(-2).map(({ month }) => month)).toEqual(['2027-02-01', '2027-02-01']);
    expect(await verify(world.db, world)).toMatchObject({ holds: true });
  });

  test('where old months are no longer kept, the chain holds from a month on', async () => {
    const superuser = openDatabase(database.superUrl);
    await superuser.run(`delete from audit_log where month < '2027-02-01'`);
    for (const table of ['transfers', 'state_history', 'acts'])
      await superuser.run(`delete from ${table} where month < '2027-01-01'`);
    await superuser.close();
    expect(told(await verify(world.db, world))[0]?.what).toBe('entry_removed');
    const { findings, entries } = await verify(world.db, world, { fromMonth: '2027-02' });
    expect({ findings, entries }).toEqual({ findings: [], entries: 2 });
  });
});

test('the head in a delivered tie-out is verified later', async () => {
  const office = await openOffice();
  const outbound = join(office.inbox, '../outbound');
  fs.mkdirSync(outbound);
  const receive = async (sequence: number) => {
    office.drop(billingName(sequence), billingFile(sequence, [{ number: `T-${sequence}` }]));
    await office.fetch();
    await office.ingest();
    const act = { merchantId: office.merchant.id, id: office.ports.ids.uuid(), at: office.clock.now() };
    await office.db.transaction((tx) =>
      recordAct(tx, { ...act, kind: 'command', actor: `before ${sequence}` }),
    );
    await office.run(deliver);
  };
  const headIn = (sequence: number): ChainHead => {
    const name = `tieout_minato-gas_20261125_${String(sequence).padStart(4, '0')}.json`;
    return JSON.parse(fs.readFileSync(join(outbound, name), 'utf8')).audit;
  };
  await receive(1);
  const first = headIn(1);
  const [before] = await office.db.query<{ no: number }>(`select no from audit_log where actor = 'before 1'`);
  // All that was done before the file was made is under it.
  expect(first.no).toBe(before?.no);
  await receive(2);
  const second = headIn(2);
  expect(second.no).toBeGreaterThan(first.no);
  for (const head of [first, second])
    expect(await verify(office.db, office, { head })).toMatchObject({ holds: true });
  expect(told(await verify(office.db, office, { head: { ...first, hash: second.hash } }))[0]).toMatchObject({
    what: 'given_head_differs',
    no: first.no,
  });
  await office.close();
});

test('acts from before the log are queued by its migration, and the chain begins with them', async () => {
  const database = await testDatabase();
  const superuser = openDatabase(database.superUrl);
  const name = `${new URL(database.url).pathname.slice(1)}_older`;
  await superuser.run(`create database ${name} owner seikyu template template0`);
  const url = new URL(database.url);
  url.pathname = `/${name}`;
  const older = openDatabase(url.href);
  const log = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error: () => undefined,
  };
  const before = migrations.findIndex((migration) => migration.name === '0003-audit-chain');
  await migrateDatabase(older, migrations.slice(0, before), { log });
  await older.run(
    `insert into merchants (id, code, short_code, settings_version, created_at) values (1, 'm', '1', 1, '2026-11-01T00:00Z')`,
  );
  const act = '01900000-0000-7000-8000-000000000001';
  for (const [month, at] of [
    ['2026-11-01', '2026-11-30T23:59Z'],
    ['2026-12-01', '2026-12-01T00:00Z'],
  ])
    await older.run(
      `insert into acts (merchant_id, month, id, kind, actor, at) values (1, $1, $2, 'job', 'ingest', $3)`,
      [month, act, at],
    );
  await migrateDatabase(older, migrations, { log });
  const clock = fixedClock('2026-12-01T01:00:00Z');
  expect(await sealActs({ db: older, clock }, 1)).toBe(1);
  const verified = await verifyAudit(older, {
    merchant: { id: 1, code: 'm' },
    now: clock.now(),
    head: null,
    fromMonth: null,
  });
  expect(verified).toMatchObject({ holds: true, entries: 1 });
  await older.close();
  await superuser.run(`drop database ${name}`);
  await superuser.close();
  await database.drop();
});
