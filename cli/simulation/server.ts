import { type Db, openDatabase } from '../../billing/db.ts';
import { migrateDatabase } from '../../billing/migrate.ts';
import type { Log } from '../../billing/ports.ts';
import { migrations } from '../../migrations/index.ts';
import { processLives } from '../process-lives.ts';
import { databasesBeginningWith, tableNames } from './queries.ts';

/** Where databases of the simulation are made. */
export interface SimulationServer {
  /** Superuser, database postgres. */
  adminUrl: string;
  ownerUrl: string;
  webUrl: string;
  /** Databases of this process start with it. */
  prefix: string;
}

export interface SimulationDatabases {
  /** A fresh, migrated database for one run, gone afterwards. */
  withDatabase<T>(work: (db: Db, webDb: Db) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/**
 * A migrated template on a running server, cloned for each run. Nothing in the background may touch its tables: an
 * autovacuum at a time of its own would change the order in which rows lie.
 */
export async function openSimulationDatabases(
  server: SimulationServer,
  log: Log,
): Promise<SimulationDatabases> {
  const admin = openDatabase(server.adminUrl, { applicationName: 'simulation' });
  const template = `${server.prefix}template`;
  await dropLeftBehind(admin);
  const into = (url: string, name: string): string => {
    const parsed = new URL(url);
    parsed.pathname = `/${name}`;
    return parsed.href;
  };
  await admin.run(`drop database if exists ${template} with (force)`);
  await admin.run(`create database ${template} owner seikyu template template0`);
  const fresh = openDatabase(into(server.ownerUrl, template), { applicationName: 'simulation' });
  await migrateDatabase(fresh, migrations, { log });
  for (const table of await tableNames(fresh))
    await fresh.run(`alter table ${table} set (autovacuum_enabled = false)`);
  await fresh.close();
  let made = 0;
  return {
    async withDatabase(work) {
      made += 1;
      const name = `${server.prefix}${made}`;
      await admin.run(`drop database if exists ${name} with (force)`);
      await admin.run(`create database ${name} owner seikyu template ${template} strategy wal_log`);
      // A power cut is no part of this world: its commits need not wait for the disk.
      await admin.run(`alter database ${name} set synchronous_commit = off`);
      await admin.run(`alter database ${name} set synchronize_seqscans = off`);
      // Few connections: each has to learn the catalogue and the plans anew.
      const pool = { poolMax: 4, prepare: true };
      const db = openDatabase(into(server.ownerUrl, name), { applicationName: 'simulation', ...pool });
      const webDb = openDatabase(into(server.webUrl, name), { applicationName: 'simulation web', ...pool });
      try {
        return await work(db, webDb);
      } finally {
        await db.close();
        await webDb.close();
        await admin.run(`drop database if exists ${name} with (force)`);
      }
    },
    async close() {
      await admin.run(`drop database if exists ${template} with (force)`);
      await admin.close();
    },
  };
}

/** What processes of earlier runs left when they were killed. */
async function dropLeftBehind(admin: Db): Promise<void> {
  for (const name of await databasesBeginningWith(admin, 'simulation_')) {
    const pid = Number(name.split('_')[1]);
    if (!processLives(pid)) await admin.run(`drop database if exists ${name} with (force)`);
  }
}
