import { createServer } from 'node:net';
import { Temporal } from 'temporal-polyfill';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { openDatabase } from '../billing/db.ts';
import { migrateDatabase, migrationStatus } from '../billing/migrate.ts';
import { type TestDatabase, testDatabase } from './database.ts';

let database: TestDatabase;
const idleErrors: Error[] = [];

beforeAll(async () => {
  database = await testDatabase({ onIdleError: (error) => idleErrors.push(error) });
  await database.db.run('create table jars (id int primary key, beans int not null check (beans >= 0))');
  await database.db.run('insert into jars values (1, 10), (2, 10)');
});

afterAll(async () => {
  await database.drop();
});

const beans = async (id: number): Promise<number | undefined> =>
  (await database.db.query<{ beans: number }>('select beans from jars where id = $1', [id]))[0]?.beans;

describe('a transaction', () => {
  test('stands when its work returns, and not when it throws', async () => {
    await database.db.transaction((tx) => tx.run('insert into jars values (3, 1)'));
    const failing = database.db.transaction(async (tx) => {
      await tx.run('insert into jars values (4, 1)');
      throw new Error('changed my mind');
    });
    await expect(failing).rejects.toThrow('changed my mind');
    expect(await beans(3)).toBe(1);
    expect(await beans(4)).toBeUndefined();
  });

  test('whose failed statement was swallowed does not pretend to stand', async () => {
    const swallowing = database.db.transaction(async (tx) => {
      await tx.run('insert into jars values (5, 1)');
      await tx.run('insert into jars values (5, 2)').catch(() => undefined);
    });
    await expect(swallowing).rejects.toThrow('COMMIT was answered with ROLLBACK');
    expect(await beans(5)).toBeUndefined();
  });

  test('cannot be used after its end', async () => {
    const leaked = await database.db.transaction(async (tx) => tx);
    await expect(leaked.run('delete from jars')).rejects.toThrow('after its end');
  });

  test('that deadlocks with another is run again, and both stand', async () => {
    let waiting = 0;
    let bothHold: () => void = () => undefined;
    const held = new Promise<void>((settle) => {
      bothHold = settle;
    });
    const attempts: string[] = [];
    const move = (name: string, first: number, second: number) =>
      database.db.transaction(async (tx) => {
        attempts.push(name);
        await tx.run('update jars set beans = beans + 1 where id = $1', [first]);
        waiting += 1;
        if (waiting === 2) bothHold();
        await held;
        await tx.run('update jars set beans = beans - 1 where id = $1', [second]);
      });
    await Promise.all([move('a', 1, 2), move('b', 2, 1)]);
    expect(attempts.length).toBe(3);
    expect([await beans(1), await beans(2)]).toEqual([10, 10]);
  });

  test('that cannot be serialized is given up after its retries', async () => {
    let attempts = 0;
    const stubborn = database.db.transaction(
      async (tx) => {
        attempts += 1;
        await tx.query('select * from jars where id = 1');
        await database.db.run('update jars set beans = beans where id = 1');
        await tx.run('update jars set beans = beans where id = 1');
      },
      { isolation: 'repeatable read', retries: 2 },
    );
    await expect(stubborn).rejects.toMatchObject({ code: '40001' });
    expect(attempts).toBe(3);
  });

  test('tells row security its merchant, and only for itself', async () => {
    const merchant = `select current_setting('seikyu.merchant_id', true) as merchant`;
    expect(
      await database.webDb.transaction((tx) => tx.query<{ merchant: string }>(merchant), { merchantId: 42 }),
    ).toEqual([{ merchant: '42' }]);
    const [after] = await database.webDb.query<{ merchant: string | null }>(merchant);
    expect(after?.merchant || null).toBeNull();
  });

  test('whose connection is ended fails, and the next one gets a good connection', async () => {
    const ended = database.db.transaction(async (tx) => {
      const [own] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
      await database.db.query('select pg_terminate_backend($1)', [own?.pid]);
      await tx.run('insert into jars values (6, 1)');
    });
    await expect(ended).rejects.toThrow();
    await database.db.transaction((tx) => tx.run('insert into jars values (7, 1)'));
    expect([await beans(6), await beans(7)]).toEqual([undefined, 1]);
  });
});

describe('a statement of one merchant', () => {
  const asked = `select $1::text as asked, current_setting('seikyu.merchant_id', true) as merchant, txid_current() as tx,
                        date '2026-02-28' as day, 9007199254740991::bigint as most`;
  const unset = async () => {
    const [row] = await database.webDb.query<{ merchant: string | null }>(
      `select current_setting('seikyu.merchant_id', true) as merchant`,
    );
    return row?.merchant || null;
  };

  test('tells row security its merchant in the same transaction, and only for itself; many at once do not mix', async () => {
    const rows = await Promise.all(
      Array.from({ length: 200 }, (_, no) =>
        database.webDb.of(no).query<{ asked: string; merchant: string }>(asked, [`m${no}`]),
      ),
    );
    expect(rows).toEqual(
      rows.map((_, no) => [
        {
          asked: `m${no}`,
          merchant: String(no),
          tx: expect.any(Number),
          day: '2026-02-28',
          most: Number.MAX_SAFE_INTEGER,
        },
      ]),
    );
    expect(await unset()).toBeNull();
    expect(await database.webDb.of(7).query('select 1 as one where $1::int = 2', [1])).toEqual([]);
  });

  test('that fails leaves nothing behind: the next one is answered, as itself', async () => {
    for (const broken of ['select 1 / $1::int as never', 'select nothing from nowhere where 1 = $1']) {
      await expect(database.webDb.of(1).query(broken, [0])).rejects.toMatchObject({ severity: 'ERROR' });
      await expect(database.webDb.of(1).query(broken, [0])).rejects.toMatchObject({ severity: 'ERROR' });
      expect(await unset()).toBeNull();
      expect(await database.webDb.of(2).query(asked, ['after'])).toMatchObject([
        { asked: 'after', merchant: '2' },
      ]);
    }
    for (const [text, why] of [
      ['', 'empty text'],
      ['copy jars from stdin', 'COPY'],
      ['copy jars to stdout', 'COPY'],
      ['select 9007199254740993::bigint as beyond', '2^53'],
    ] as const) {
      await expect(database.db.of(1).query(text, [])).rejects.toThrow(why);
      expect(await database.db.of(2).query(asked, ['after'])).toMatchObject([{ merchant: '2' }]);
    }
    await expect(database.webDb.of(5).query(asked, [{ no: 'text' }])).rejects.toThrow('text, numbers');
    const killed = database.webDb.of(3).query('select pg_terminate_backend(pg_backend_pid()), $1::int', [1]);
    await expect(killed).rejects.toThrow();
    expect(await database.webDb.of(4).query(asked, ['after'])).toMatchObject([{ merchant: '4' }]);
  });
});

test('what was prepared goes on when a newer version has changed the tables, on every connection that prepared it', async () => {
  const web = openDatabase(database.url, { applicationName: 'test', poolMax: 12, prepare: true });
  const read = 'select * from lids where id = $1';
  const looks = [
    () => web.of(1).query(read, [1]),
    () => web.transaction((tx) => tx.query(read, [1]), { merchantId: 1 }),
  ];
  await web.run('create table lids (id int, worn int)');
  await web.run('insert into lids values (1, 2)');
  for (const change of ['alter column worn type text', 'add column color text']) {
    const all = Array.from({ length: 24 }, (_, no) => looks[no % looks.length]?.());
    for (const seen of await Promise.all(all)) expect(seen).toMatchObject([{ id: 1 }]);
    await database.db.run(`alter table lids ${change}`);
  }
  for (const look of looks) expect(await look()).toEqual([{ id: 1, worn: '2', color: null }]);
  await web.close();
});

test('idle connections that an administrator ends are reported and replaced, and the process lives', async () => {
  const before = idleErrors.length;
  await Promise.all([1, 2, 3].map(() => database.db.query('select pg_sleep(0.01)')));
  const admin = openDatabase(inject('testServer').adminUrl);
  await admin.query(
    `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1 and application_name = 'test'`,
    [new URL(database.url).pathname.slice(1)],
  );
  await admin.close();
  await expect.poll(() => idleErrors.length).toBeGreaterThan(before);
  expect(await beans(1)).toBe(10);
});

describe('values', () => {
  test('come as exact text or safe integers', async () => {
    const [row] = await database.db.query(`
      select date '2026-02-28' as day, 9007199254740991::bigint as most, 1.10::numeric as rate, count(*) as rows,
             timestamptz '2026-11-25 10:02:03.456+09' as at, timestamptz '2026-11-25 10:02:03+09' as second,
             array[date '2026-02-28', null] as days, array[1, null]::bigint[] as numbers, array[1.10]::numeric[] as rates,
             array[timestamptz '2026-11-25 10:02:03.456+09'] as times`);
    expect(row).toEqual({
      day: '2026-02-28',
      most: 9_007_199_254_740_991,
      rate: '1.10',
      rows: 1,
      at: '2026-11-25T01:02:03.456Z',
      second: '2026-11-25T01:02:03Z',
      days: ['2026-02-28', null],
      numbers: [1, null],
      rates: ['1.10'],
      times: ['2026-11-25T01:02:03.456Z'],
    });
  });

  test('an instant is the same in any time zone of the session', async () => {
    const rows = await database.db.transaction(async (tx) => {
      await tx.run(`set local timezone = 'Asia/Tokyo'`);
      return await tx.query<{ at: string }>(`select timestamptz '2026-11-25T01:02:03.4Z' as at`);
    });
    expect(rows).toEqual([{ at: '2026-11-25T01:02:03.4Z' }]);
  });

  test('a bigint that a number cannot hold is refused', async () => {
    await expect(database.db.query('select 9007199254740992::bigint as much')).rejects.toThrow(RangeError);
  });

  test('Temporal goes in as it is', async () => {
    const day = Temporal.PlainDate.from('2026-02-28');
    const at = Temporal.Instant.from('2026-11-25T01:02:03.456Z');
    expect(
      await database.db.query('select $1::date as day, $2::timestamptz as at, $3::date[] as days', [
        day,
        at,
        [null, day],
      ]),
    ).toEqual([{ day: '2026-02-28', at: '2026-11-25T01:02:03.456Z', days: [null, '2026-02-28'] }]);
  });
});

describe('copy', () => {
  test('takes many small chunks in and gives them back', async () => {
    await database.db.run('create table notes (id int, note text)');
    const lines = Array.from({ length: 30_000 }, (_, n) => `${n}\t請求書 ${n}\n`);
    const copied = await database.db.transaction((tx) => tx.copyIn('copy notes from stdin', lines));
    expect(copied).toBe(30_000);
    const out = await database.db.transaction(async (tx) => {
      const parts: Buffer[] = [];
      for await (const part of tx.copyOut('copy (select * from notes order by id) to stdout'))
        parts.push(part);
      return Buffer.concat(parts).toString('utf8');
    });
    expect(out).toBe(lines.join(''));
  });

  test('whose source fails leaves nothing and a good connection', async () => {
    const before = await database.db.query('select count(*) from notes');
    async function* failing() {
      yield '1\tone\n'.repeat(20_000);
      throw new Error('the file ended early');
    }
    const copying = database.db.transaction((tx) => tx.copyIn('copy notes from stdin', failing()));
    await expect(copying).rejects.toThrow('the file ended early');
    expect(await database.db.query('select count(*) from notes')).toEqual(before);
  });

  test('of a wrong line says which', async () => {
    const copying = database.db.transaction((tx) =>
      tx.copyIn('copy notes from stdin', ['1\tone\n', 'x\ttwo\n']),
    );
    await expect(copying).rejects.toMatchObject({ code: '22P02' });
  });

  test('left early fails its transaction only', async () => {
    const leaving = database.db.transaction(async (tx) => {
      for await (const _ of tx.copyOut(
        'copy (select repeat($$x$$, 1000) from generate_series(1, 50000)) to stdout',
      ))
        break;
    });
    await expect(leaving).rejects.toThrow();
    expect(await beans(1)).toBe(10);
  });

  test('a cursor gives bounded batches', async () => {
    const sizes = await database.db.transaction(async (tx) => {
      const found: number[] = [];
      for await (const rows of tx.cursor('select generate_series(1, $1::int) as n', [25], 10))
        found.push(rows.length);
      return found;
    });
    expect(sizes).toEqual([10, 10, 5]);
  });
});

describe('an unreachable database is refused with its place and without its password', () => {
  test('nothing listens', async () => {
    const port = await new Promise<number>((settle) => {
      const server = createServer().listen(0, '127.0.0.1', () => {
        const address = server.address();
        server.close(() => settle(typeof address === 'object' && address ? address.port : 0));
      });
    });
    const db = openDatabase(`postgres://someone:hush-hush@127.0.0.1:${port}/nowhere`);
    const refusal = await db.query('select 1').catch((error) => error);
    expect(refusal).toMatchObject({ code: 'DATABASE_UNREACHABLE', context: { where: `127.0.0.1:${port}` } });
    expect(String(refusal)).not.toContain('hush-hush');
    await db.close();
  });

  test('wrong password', async () => {
    const url = new URL(database.url);
    url.password = 'wrong';
    const db = openDatabase(url.href);
    await expect(db.transaction((tx) => tx.query('select 1'))).rejects.toThrow('the password is refused');
    await db.close();
  });
});

describe('migrations', () => {
  const log = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error: () => undefined,
  };
  const name = (text: string) => ({
    name: text,
    up: async (knex: { raw(sql: string): unknown }) => {
      await knex.raw(`create table made_by_${text} ()`);
    },
  });

  test('of two at once one works, the other finds nothing to do; a lock left by a killed one does not matter', async () => {
    const { known, url } = { known: await migrationStatus(database.db, []), url: database.url };
    const list = [...known.applied.map((row) => name(row.name)), name('a'), name('b')];
    await database.db.run('update schema_migrations_lock set is_locked = 1').catch(() => undefined);
    const other = openDatabase(url);
    const applied = await Promise.all([
      migrateDatabase(database.db, list, { log }),
      migrateDatabase(other, list, { log }),
    ]);
    await other.close();
    expect(applied.map((names) => names.length).sort()).toEqual([0, 2]);
    expect(await migrationStatus(database.db, list)).toMatchObject({ pending: [], unknown: [] });
    await expect(migrateDatabase(database.db, list.slice(0, -1), { log })).rejects.toMatchObject({
      code: 'DATABASE_NEWER_THAN_PROGRAM',
      context: { unknown: 1 },
    });
  });
});
