import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { openDatabase } from '../billing/db.ts';
import { type Migration, migrateDatabase } from '../billing/migrate.ts';
import type { Log } from '../billing/ports.ts';
import { startEmbeddedPostgres } from '../cli/embedded/postgres.ts';
import { processLives } from '../cli/process-lives.ts';

export interface TestServer {
  /** Superuser, database postgres. */
  adminUrl: string;
  /** The role that owns the databases. */
  ownerUrl: string;
  /** The login role under row security. */
  webUrl: string;
  /** A migrated database to clone. */
  template: string;
  /** Databases of this run start with it. */
  prefix: string;
}

declare module 'vitest' {
  interface ProvidedContext {
    testServer: TestServer;
  }
}

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

const checkout = join(import.meta.dirname, '..');

/** One server per checkout and user, shared by test runs at the same time: the last to end stops it. */
const home = join(
  tmpdir(),
  `seikyu-test-${process.getuid?.() ?? 0}-${createHash('sha256').update(checkout).digest('hex').slice(0, 8)}`,
);

async function migrationsOf(): Promise<readonly Migration[]> {
  const file = join(checkout, 'migrations', 'index.ts');
  if (!fs.existsSync(file)) return [];
  return (await import(file)).migrations;
}

/** vitest's globalSetup: the server, and a template database with all migrations. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startEmbeddedPostgres({ home, log: silent });
  const prefix = `test_${process.pid}_`;
  const template = `${prefix}template`;
  const adminUrl = server.urlFor('postgres', 'postgres');
  const admin = openDatabase(adminUrl, { applicationName: 'test setup' });
  // What earlier runs left behind when they were killed.
  const old = await admin.query<{ name: string }>(
    `select datname as name from pg_database where datname like 'test\\_%'`,
  );
  for (const { name } of old) {
    const pid = Number(name.split('_')[1]);
    if (pid === process.pid || !processLives(pid))
      await admin.run(`drop database if exists ${name} with (force)`);
  }
  await admin.run(`create database ${template} owner seikyu template template0`);
  const db = openDatabase(server.urlFor(template, 'seikyu'), { applicationName: 'test setup' });
  await migrateDatabase(db, await migrationsOf(), { log: silent });
  await db.close();
  project.provide('testServer', {
    adminUrl,
    ownerUrl: server.urlFor(template, 'seikyu'),
    webUrl: server.urlFor(template, 'seikyu_web_login'),
    template,
    prefix,
  });
  return async () => {
    const mine = await admin.query<{ name: string }>(
      'select datname as name from pg_database where starts_with(datname, $1)',
      [prefix],
    );
    for (const { name } of mine) await admin.run(`drop database if exists ${name} with (force)`);
    await admin.close();
    await server.stop();
  };
}
