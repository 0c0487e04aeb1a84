import { inject } from 'vitest';
import { type DatabaseOptions, type Db, openDatabase } from '../billing/db.ts';

export interface TestDatabase {
  /** As the owner, like jobs and migrations. */
  db: Db;
  /** As the login role under row security, like the web. */
  webDb: Db;
  url: string;
  webUrl: string;
  /** As the superuser of the server, whom no grant stops. */
  superUrl: string;
  /** Closes both and removes the database; call in afterAll. */
  drop(): Promise<void>;
}

let made = 0;

/** A fresh, migrated database for one test file (a clone of the template, about 80 ms). */
export async function testDatabase(options: DatabaseOptions = {}): Promise<TestDatabase> {
  const { adminUrl, ownerUrl, webUrl, template, prefix } = inject('testServer');
  made += 1;
  const name = `${prefix}${process.pid}_${made}`;
  const admin = openDatabase(adminUrl, { applicationName: 'test databases' });
  await admin.run(`create database ${name} owner seikyu template ${template} strategy wal_log`);
  const into = (url: string): string => {
    const parsed = new URL(url);
    parsed.pathname = `/${name}`;
    return parsed.href;
  };
  const db = openDatabase(into(ownerUrl), { applicationName: 'test', ...options });
  const webDb = openDatabase(into(webUrl), { applicationName: 'test web', ...options });
  return {
    db,
    webDb,
    url: into(ownerUrl),
    webUrl: into(webUrl),
    superUrl: into(adminUrl),
    async drop() {
      await db.close();
      await webDb.close();
      await admin.run(`drop database if exists ${name} with (force)`);
      await admin.close();
    },
  };
}
