import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { migrateDatabase, migrationStatus } from '../billing/migrate.ts';
import type { Log } from '../billing/ports.ts';
import { migrations } from '../migrations/index.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { checkout } from './source.ts';

/**
 * The schema as the migrations leave it, asked from the catalog and kept in test/schema.txt, so that a migration's
 * effect stands in the diff. After a wanted change: UPDATE_SCHEMA=1 npx vitest run test/schema.test.ts
 */

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.drop());

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

const tables = `
  select c.oid::bigint as oid, c.relname as name, c.relkind as kind, c.relpersistence as persistence,
         c.relrowsecurity as row_security, c.relforcerowsecurity as forced, c.reloptions::text as options
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'public' and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
    and c.relname not in ('schema_migrations', 'schema_migrations_lock',
                          'schema_migrations_id_seq', 'schema_migrations_lock_index_seq')
  order by c.relname collate "C"`;

/** One line for each thing under its table; `$1` is the table's oid. */
const parts: Record<string, string> = {
  column: `
    select format('%s %s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
             case when a.attnotnull then ' not null' else '' end,
             case when a.attidentity <> '' then ' identity' when a.attgenerated <> '' then ' generated' else '' end,
             coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')) as line
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = $1::oid and a.attnum > 0 and not a.attisdropped order by a.attnum`,
  constraint: `
    select format('%s: %s', conname, pg_get_constraintdef(oid)) as line
    from pg_constraint where conrelid = $1::oid
      -- From 18 on, not null is a constraint too; it stands at its column already.
      and contype <> 'n'
    order by position(contype::text in 'pufc'), conname collate "C"`,
  index: `
    select pg_get_indexdef(i.indexrelid) as line
    from pg_index i join pg_class c on c.oid = i.indexrelid
    where i.indrelid = $1::oid and not exists (select from pg_constraint where conindid = i.indexrelid and contype in ('p', 'u'))
    order by c.relname collate "C"`,
  trigger: `
    select pg_get_triggerdef(oid) as line from pg_trigger
    where tgrelid = $1::oid and not tgisinternal order by tgname collate "C"`,
  policy: `
    select format('%s for %s to %s using %s check %s', polname,
             case polcmd when '*' then 'all' when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' else 'delete' end,
             (select string_agg(case when role = 0 then 'public' else role::regrole::text end, ', ' order by role::regrole::text)
              from unnest(polroles) as role),
             coalesce(pg_get_expr(polqual, polrelid), 'the same'),
             coalesce(pg_get_expr(polwithcheck, polrelid), 'the same')) as line
    from pg_policy where polrelid = $1::oid order by polname collate "C"`,
  grant: `
    select format('%s to %s', string_agg(lower(granted.privilege_type), ', ' order by granted.privilege_type collate "C"),
             coalesce(grantee.rolname, 'public')) as line
    from pg_class c, aclexplode(c.relacl) granted left join pg_roles grantee on grantee.oid = granted.grantee
    where c.oid = $1::oid and granted.grantee <> c.relowner
    group by grantee.rolname order by grantee.rolname collate "C"`,
  'column grant': `
    select format('%s (%s) to %s', lower(granted.privilege_type),
             string_agg(a.attname, ', ' order by a.attnum), coalesce(grantee.rolname, 'public')) as line
    from pg_attribute a, aclexplode(a.attacl) granted left join pg_roles grantee on grantee.oid = granted.grantee
    where a.attrelid = $1::oid
    group by grantee.rolname, granted.privilege_type order by grantee.rolname collate "C", granted.privilege_type`,
};

const functions = `
  select pg_get_functiondef(p.oid) as definition
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where n.nspname = 'public' order by p.proname collate "C"`;

interface Table {
  oid: number;
  name: string;
  kind: string;
  persistence: string;
  row_security: boolean;
  forced: boolean;
  options: string | null;
}

async function describeSchema(): Promise<string> {
  const { db } = database;
  const lines = ['The schema after all migrations. Made by test/schema.test.ts; do not edit.'];
  for (const table of await db.query<Table & Record<string, unknown>>(tables)) {
    const kind = { r: 'table', p: 'partitioned table', v: 'view', m: 'materialized view', S: 'sequence' }[
      table.kind
    ];
    const traits = [
      table.persistence === 'u' ? 'unlogged' : '',
      table.row_security ? 'row security' : '',
      table.forced ? 'forced' : '',
      table.options ?? '',
    ].filter((trait) => trait !== '');
    lines.push(
      '',
      `${kind ?? table.kind} ${table.name}${traits.length > 0 ? ` (${traits.join(', ')})` : ''}`,
    );
    for (const [part, query] of Object.entries(parts)) {
      for (const { line } of await db.query<{ line: string }>(query, [table.oid]))
        lines.push(`  ${part} ${line}`);
    }
  }
  for (const { definition } of await db.query<{ definition: string }>(functions))
    lines.push('', definition.trim());
  return `${lines.join('\n')}\n`;
}

describe('the schema', () => {
  test('is the one in test/schema.txt', async () => {
    const file = join(checkout, 'test', 'schema.txt');
    const found = await describeSchema();
    if (process.env.UPDATE_SCHEMA === '1') fs.writeFileSync(file, found);
    expect(found).toBe(fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '');
  });

  test('is left as it is by migrating again', async () => {
    const before = await describeSchema();
    expect(await migrateDatabase(database.db, migrations, { log: silent })).toEqual([]);
    expect(await describeSchema()).toBe(before);
    const status = await migrationStatus(database.db, migrations);
    expect(status).toMatchObject({ pending: [], unknown: [] });
    expect(status.applied.map(({ name }) => name)).toEqual(migrations.map(({ name }) => name));
  });

  /** Not of one merchant. */
  const ofNobody = [
    'merchants',
    'virtual_clock',
    'database_identity',
    'process_lives',
    'restores',
    'schema_migrations',
    'schema_migrations_lock',
  ];

  test('has merchant_id at the head of every key, and row security everywhere', async () => {
    const keys = await database.db.query<{
      table: string;
      constraint: string;
      first: string;
      row_security: boolean;
    }>(
      `select c.relname as "table", k.conname as "constraint", a.attname as first, c.relrowsecurity as row_security
       from pg_class c
         join pg_namespace n on n.oid = c.relnamespace
         left join pg_constraint k on k.conrelid = c.oid and k.contype in ('p', 'u', 'f')
         left join pg_attribute a on a.attrelid = c.oid and a.attnum = k.conkey[1]
       where n.nspname = 'public' and c.relkind in ('r', 'p')`,
    );
    const domain = keys.filter(({ table }) => !ofNobody.includes(table));
    expect(domain.length).toBeGreaterThan(30);
    expect(domain.filter(({ constraint, first }) => constraint !== null && first !== 'merchant_id')).toEqual(
      [],
    );
    expect(domain.filter(({ row_security }) => !row_security)).toEqual([]);
    // Staging is emptied after each load and has no key that anything could hang on.
    const keyed = new Set(domain.filter(({ constraint }) => constraint !== null).map(({ table }) => table));
    expect([...new Set(domain.map(({ table }) => table))].filter((table) => !keyed.has(table))).toEqual([
      'staged_bills',
    ]);
  });

  test('has merchant_id in every unique index, so that the tables can be distributed by it', async () => {
    const indexes = await database.db.query<{ index: string; table: string; columns: string[] }>(
      `select i.indexrelid::regclass::text as index, c.relname as "table",
              array(select a.attname::text from pg_attribute a
                    where a.attrelid = i.indrelid and a.attnum = any (i.indkey::int2[])) as columns
       from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = 'public' and i.indisunique`,
    );
    const wrong = indexes.filter(
      ({ table, columns }) => !ofNobody.includes(table) && !columns.includes('merchant_id'),
    );
    expect(wrong).toEqual([]);
  });

  test('keeps the web away from what only jobs and operators read', async () => {
    const rows = await database.db.query<{ name: string }>(
      `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = 'public' and c.relkind = 'r' and has_table_privilege('seikyu_web', c.oid, 'select')`,
    );
    const readable = rows.map(({ name }) => name);
    for (const table of [
      'outbox_messages',
      'staged_bills',
      'outward_file_parts',
      'runs',
      'chunks',
      'schema_migrations',
    ]) {
      expect(readable).not.toContain(table);
    }
    // What somebody who took the web over could not do: change an amount, a card, or who is to pay.
    for (const [table, column] of [
      ['invoices', 'amount'],
      ['charges', 'amount'],
      ['charges', 'invoice_id'],
      ['payment_methods', 'sealed_token'],
      ['enrolments', 'payment_method_id'],
      ['links', 'token_hash'],
      ['transfers', 'amount'],
      ['result_rows', 'outward_file_id'],
    ]) {
      const [may] = await database.db.query<{ change: boolean }>(
        `select has_column_privilege('seikyu_web', $1, $2, 'update') as change`,
        [table, column],
      );
      expect(may, `${table}.${column}`).toEqual({ change: false });
    }
    const [foreign] = await database.webDb.query<{ count: number }>('select count(*) from invoices');
    expect(foreign?.count).toBe(0);
  });
});
