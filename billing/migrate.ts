import type { Knex } from 'knex';
import type { Db } from './db.ts';
import type { Log } from './ports.ts';
import { Refusal } from './refusal.ts';

/** One step of the schema. The name is for ever: it is what the database remembers. */
export interface Migration {
  name: string;
  up(knex: Knex): Promise<void>;
}

export interface MigrationStatus {
  applied: { name: string; appliedAt: string }[];
  pending: string[];
  /** In the database but not in this program: the program is older than the database. */
  unknown: string[];
}

/** Any number no other program would take; the advisory lock is per database. */
const migrationLock = 5_318_008_114;

/**
 * Brings the schema up to date and returns the names newly applied. Two at once: the second waits, then finds
 * nothing to do. Each migration is one transaction. Errors: Refusal DATABASE_NEWER_THAN_PROGRAM.
 */
export async function migrateDatabase(
  db: Db,
  migrations: readonly Migration[],
  { log }: { log: Log },
): Promise<string[]> {
  return await db.transaction(
    async (tx) => {
      // A transaction-level lock on a connection of its own: it goes when the process dies, and pooled connections keep it together.
      await tx.query('set local lock_timeout = 0');
      await tx.query('set local statement_timeout = 0');
      await tx.query('set local idle_in_transaction_session_timeout = 0');
      const [lock] = await tx.query<{ taken: boolean }>(
        'select pg_try_advisory_xact_lock($1::bigint) as taken',
        [migrationLock],
      );
      if (!lock?.taken) {
        log.info({}, 'another process is migrating the database; waiting for it');
        await tx.query('select pg_advisory_xact_lock($1::bigint)', [migrationLock]);
      }
      const { unknown } = await migrationStatus(db, migrations);
      if (unknown.length > 0) {
        throw new Refusal(
          'DATABASE_NEWER_THAN_PROGRAM',
          `the database knows migrations this program does not: ${unknown.join(', ')}`,
          {
            context: { unknown: unknown.length },
            next: 'Start the newer version of the program, or restore a backup made with this one.',
          },
        );
      }
      const config: Knex.MigratorConfig = {
        tableName: 'schema_migrations',
        migrationSource: {
          getMigrations: async () => [...migrations],
          // Names carry no extension: the same list comes from .ts in development and from .js when built.
          getMigrationName: (migration: Migration) => migration.name,
          getMigration: async (migration: Migration) => ({ up: migration.up, down: refuseDown }),
        },
      };
      // knex keeps a lock row that a killed process leaves behind. We hold the real lock, so whoever set it is gone.
      if (await db.knex.schema.hasTable('schema_migrations_lock')) {
        await db.knex.migrate.forceFreeMigrationsLock(config);
      }
      const [, applied] = (await db.knex.migrate.latest(config)) as [number, string[]];
      for (const name of applied) log.info({ migration: name }, 'migration applied');
      return applied;
    },
    { retries: 0 },
  );
}

const refuseDown = async (): Promise<void> => {
  throw new Error('migrations only go forward: write another one');
};

export async function migrationStatus(db: Db, migrations: readonly Migration[]): Promise<MigrationStatus> {
  const [table] = await db.query<{ present: boolean }>(
    `select to_regclass('schema_migrations') is not null as present`,
  );
  const applied = table?.present
    ? await db.query<{ name: string; appliedAt: string }>(
        'select name, migration_time as "appliedAt" from schema_migrations order by id',
      )
    : [];
  const done = new Set(applied.map((row) => row.name));
  const known = new Set(migrations.map((migration) => migration.name));
  return {
    applied,
    pending: migrations.map((migration) => migration.name).filter((name) => !done.has(name)),
    unknown: [...done].filter((name) => !known.has(name)),
  };
}

/** A superuser is above all grants: what nobody may change or remove in the books, it may. */
export async function isSuperuser(db: Pick<Db, 'query'>): Promise<boolean> {
  const [role] = await db.query<{ rolsuper: boolean }>(
    'select rolsuper from pg_roles where rolname = current_user',
  );
  return role?.rolsuper === true;
}
