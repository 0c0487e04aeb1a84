import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, expect, test } from 'vitest';
import type { Log } from '../billing/ports.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../cli/embedded/postgres.ts';

const checkout = join(import.meta.dirname, '..');
const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

// Readable to the user that the server runs as where this is root.
const folder = fs.mkdtempSync(join(tmpdir(), 'seikyu-recovery-'));
fs.chmodSync(folder, 0o755);
const home = join(folder, 'home');
const backup = join(folder, 'backup');
let server: EmbeddedPostgres | undefined;
let target = '';

afterAll(async () => {
  await server?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** The code of a section of the page, in its order. */
function commandsUnder(title: string): { language: string; text: string }[] {
  const page = fs.readFileSync(join(checkout, 'docs/restore.md'), 'utf8');
  const section = page.split(/^## /m).find((part) => part.startsWith(title)) ?? '';
  return [...section.matchAll(/^```(\w+)\n([\s\S]*?)^```/gm)].map(([, language = '', text = '']) => ({
    language,
    text,
  }));
}

async function follow(commands: readonly { language: string; text: string }[]): Promise<void> {
  const client = new pg.Client({ connectionString: server?.urlFor('postgres', 'postgres') });
  if (server) await client.connect();
  for (const { language, text } of commands) {
    const DATA = fs.realpathSync(join(home, 'postgres')).concat('/data');
    if (language === 'sql') {
      for (const statement of text.split(/;\s*$/m).filter((each) => each.trim() !== ''))
        await client.query(statement.replaceAll('$BACKUP', backup));
    } else {
      const env = { PATH: process.env.PATH, DATA, BACKUP: backup, TARGET: target };
      execFileSync('sh', ['-eu', '-c', text], { env, stdio: 'pipe' });
    }
  }
  if (server) await client.end();
}

function seikyu(...args: string[]): { code: number; text: string } {
  const env = { PATH: process.env.PATH, SEIKYU_HOME: home, LOG_LEVEL: 'silent' };
  try {
    return {
      code: 0,
      text: execFileSync(process.execPath, ['cli/seikyu.js', ...args], {
        cwd: checkout,
        env,
        encoding: 'utf8',
      }),
    };
  } catch (error) {
    const failed = error as { status: number; stdout: string; stderr: string };
    return { code: failed.status, text: failed.stdout + failed.stderr };
  }
}

const start = async () => {
  server = await startEmbeddedPostgres({ home, log: silent });
};
const stop = async () => {
  await server?.stop();
  server = undefined;
};

async function ask<Row>(sql: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: server?.urlFor('seikyu', 'seikyu') });
  await client.connect();
  const { rows } = await client.query(sql);
  await client.end();
  return rows as Row[];
}

test('the page’s own commands back up and recover to a point in time, and Seikyu then starts in safe mode', async () => {
  await start();
  expect(seikyu('restore', 'status')).toMatchObject({ code: 0 });
  const [once, settings, ...daily] = commandsUnder('Backup of the embedded database');
  if (once === undefined || settings === undefined) throw new Error('the page has no commands');
  await follow([once, settings]);
  await stop();
  await start();
  await ask(`create table probe (what text)`);
  await follow(daily);
  expect(fs.readdirSync(join(backup, 'wal')).length).toBeGreaterThan(0);

  await ask(`insert into probe values ('before')`);
  const [row] = await ask<{ at: string }>(`select clock_timestamp()::text as at`);
  target = row?.at ?? '';
  await ask(`insert into probe values ('after')`);
  await stop();
  await follow(commandsUnder('Recovery of the embedded database'));

  await start();
  expect(await ask(`select what from probe`)).toEqual([{ what: 'before' }]);
  const status = seikyu('restore', 'status');
  expect(status.code).toBe(3);
  expect(status.text).toContain('recovered or has failed over: timeline 2, before it was 1');
  expect(seikyu('run', 'charge', '--json')).toMatchObject({
    code: 2,
    text: expect.stringContaining('NO_MERCHANTS'),
  });
  expect(seikyu('restore', 'end').code).toBe(0);
  expect(seikyu('restore', 'status').code).toBe(0);
}, 300_000);
