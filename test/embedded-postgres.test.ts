import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { openDatabase } from '../billing/db.ts';
import type { Log } from '../billing/ports.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from '../cli/embedded/postgres.ts';
import { processLives } from '../cli/process-lives.ts';

const checkout = join(import.meta.dirname, '..');
const isRoot = process.getuid?.() === 0;
const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** A process of its own that starts the server, says so in one line, and stops it when told. */
const program = `
  import { createInterface } from 'node:readline';
  import { startEmbeddedPostgres } from ${JSON.stringify(join(checkout, 'cli/embedded/postgres.ts'))};
  const silent = () => undefined;
  const log = { debug: silent, info: silent, warn: silent, error: silent };
  const server = await startEmbeddedPostgres({ home: process.env.TEST_HOME, log });
  console.log(JSON.stringify({ port: server.port, adopted: server.adopted, url: server.urlFor('seikyu', 'seikyu') }));
  for await (const line of createInterface({ input: process.stdin })) if (line === 'stop') break;
  await server.stop();
  process.exit(0);
`;

interface Started {
  port: number;
  adopted: boolean;
  url: string;
}

interface Other {
  process: ChildProcess;
  started: Promise<Started>;
  ended: Promise<number | NodeJS.Signals | null>;
}

function inOtherProcess(home: string, user?: { uid: number; gid: number }): Other {
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
    cwd: checkout,
    env: { PATH: process.env.PATH, TEST_HOME: home },
    stdio: ['pipe', 'pipe', 'pipe'],
    ...user,
  });
  let complaint = '';
  child.stderr?.on('data', (data) => {
    complaint += data;
  });
  const ended = new Promise<number | NodeJS.Signals | null>((settle) => {
    child.on('exit', (code, signal) => settle(signal ?? code));
  });
  const started = new Promise<Started>((settle, fail) => {
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).once('line', (line) =>
      settle(JSON.parse(line)),
    );
    ended.then((code) => fail(new Error(`ended with ${code}: ${complaint}`)));
  });
  // Where only its end matters, its early end is not a second failure.
  started.catch(() => undefined);
  return { process: child, started, ended };
}

const stop = async (other: Other): Promise<void> => {
  other.process.stdin?.write('stop\n');
  expect(await other.ended).toBe(0);
};

const homes: string[] = [];
const servers: EmbeddedPostgres[] = [];

const start = async (home: string, log: Log = silent): Promise<EmbeddedPostgres> => {
  const server = await startEmbeddedPostgres({ home, log });
  servers.push(server);
  return server;
};

const newHome = (): string => {
  const home = fs.mkdtempSync(join(tmpdir(), 'seikyu-embedded-'));
  fs.chmodSync(home, 0o755);
  homes.push(home);
  return home;
};

const postmasterPid = (home: string): number | undefined => {
  const file = join(home, 'postgres', 'data', 'postmaster.pid');
  return fs.existsSync(file) ? Number(fs.readFileSync(file, 'utf8').split('\n')[0]) : undefined;
};

const removeHomes = async (): Promise<void> => {
  for (const server of servers.splice(0)) await server.stop();
  for (const home of homes.splice(0)) {
    if (fs.existsSync(join(home, 'postgres', 'data', 'PG_VERSION')) && postmasterPid(home) !== undefined) {
      // A failed test may leave its server behind; the last user stops it.
      await (await startEmbeddedPostgres({ home, log: silent })).stop();
    }
    const place = join(home, 'postgres');
    if (fs.existsSync(place)) fs.rmSync(fs.realpathSync(place), { recursive: true, force: true });
    fs.rmSync(home, { recursive: true, force: true });
  }
};

afterEach(removeHomes);
afterAll(removeHomes);

const read = async <Row>(url: string, sql: string): Promise<Row[]> => {
  const db = openDatabase(url);
  try {
    return await db.query<Row>(sql);
  } finally {
    await db.close();
  }
};

describe('the embedded PostgreSQL', () => {
  test('starts with its roles, keeps its data and its port, and takes nobody without a password', async () => {
    const home = newHome();
    const first = await start(home);
    expect(first.adopted).toBe(false);
    const [facts] = await read(
      first.urlFor('seikyu', 'seikyu'),
      `select current_setting('fsync') as fsync, current_setting('data_checksums') as checksums,
              current_setting('listen_addresses') as address,
              current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock,
              (select datlocale || ' ' || pg_encoding_to_char(encoding) from pg_database where datname = 'seikyu') as locale,
              (select rolsuper from pg_roles where rolname = current_user) as super`,
    );
    expect(facts).toEqual({
      fsync: 'on',
      checksums: 'on',
      address: '127.0.0.1',
      statement: '10min',
      lock: '10s',
      locale: 'C.UTF-8 UTF8',
      super: false,
    });
    const url = first.urlFor('seikyu', 'seikyu');
    const ways = `select inet_server_addr() as address`;
    const sockets = join(fs.realpathSync(join(home, 'postgres')), 'socket');
    expect(await read(url, ways)).toEqual([{ address: null }]);
    expect(fs.statSync(sockets).mode & 0o777).toBe(0o700);
    expect(await read(url.replace(/\?host=.*/, ''), ways)).toEqual([{ address: '127.0.0.1' }]);
    const web = await read(
      first.urlFor('seikyu', 'seikyu_web_login'),
      `select current_setting('statement_timeout') as statement, pg_has_role('seikyu_web', 'usage') as web,
              has_database_privilege('seikyu_gateway_simulator', 'connect') as simulator`,
    );
    expect(web).toEqual([{ statement: '5s', web: true, simulator: false }]);
    await read(first.urlFor('seikyu_gateway_simulator', 'seikyu_simulator'), 'create table cards ()');
    const without = url.replace(/:[0-9a-f]{48}@/, ':wrong@');
    for (const way of [without, without.replace(/\?host=.*/, '')])
      await expect(read(way, 'select 1')).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
    await read(first.urlFor('seikyu', 'seikyu'), 'create table kept as select 7 as n');
    await first.stop();
    await first.stop();
    expect(postmasterPid(home)).toBeUndefined();
    expect(fs.statSync(join(home, 'secrets', 'postgres.json')).mode & 0o777).toBe(0o600);

    const second = await start(home);
    expect(second).toMatchObject({ adopted: false, port: first.port });
    expect(await read(second.urlFor('seikyu', 'seikyu'), 'select n from kept')).toEqual([{ n: 7 }]);
    await second.stop();
  });

  test('serves its port alone where the path of a socket file would be too long', async () => {
    const home = join(newHome(), 'h'.repeat(80));
    const { urlFor } = await start(home);
    expect(urlFor('seikyu', 'seikyu')).not.toContain('?host=');
    expect(await read(urlFor('seikyu', 'seikyu'), 'select 1 as n')).toEqual([{ n: 1 }]);
  });

  test('outlives a killed parent and is adopted by the next start, whose stop ends it', async () => {
    const home = newHome();
    const other = inOtherProcess(home);
    const { port } = await other.started;
    const pid = postmasterPid(home);
    other.process.kill('SIGKILL');
    expect(await other.ended).toBe('SIGKILL');
    const next = await start(home);
    expect(next).toMatchObject({ adopted: true, port });
    expect(postmasterPid(home)).toBe(pid);
    await next.stop();
    expect(postmasterPid(home)).toBeUndefined();
  });

  test('two that start at once share one server, and the first to stop does not take it away', async () => {
    const home = newHome();
    const pair = [inOtherProcess(home), inOtherProcess(home)] as const;
    const [one, two] = await Promise.all([pair[0].started, pair[1].started]);
    expect(one.port).toBe(two.port);
    expect([one.adopted, two.adopted].sort()).toEqual([false, true]);
    // The one that started it goes first.
    const [starter, adopter] = one.adopted ? [pair[1], pair[0]] : [pair[0], pair[1]];
    await stop(starter);
    expect(await read(two.url, 'select 1 as n')).toEqual([{ n: 1 }]);
    await stop(adopter);
    expect(postmasterPid(home)).toBeUndefined();
  });

  test('starts after its server was killed, after a pid file of a stranger, and after a lock of the dead', async () => {
    const home = newHome();
    const first = await start(home);
    await read(first.urlFor('seikyu', 'seikyu'), 'create table kept as select 7 as n');
    const pidFile = join(home, 'postgres', 'data', 'postmaster.pid');
    const text = fs.readFileSync(pidFile, 'utf8');
    process.kill(postmasterPid(home) ?? 0, 'SIGKILL');
    await expect.poll(() => processLives(Number(text.split('\n')[0]))).toBe(false);
    // The number of the dead server went to this very process, which is no PostgreSQL.
    fs.writeFileSync(pidFile, text.replace(/^\d+/, String(process.pid)));
    fs.writeFileSync(join(home, 'postgres.lock'), '999999999 1\n');
    const second = await start(home);
    expect(second.adopted).toBe(false);
    expect(await read(second.urlFor('seikyu', 'seikyu'), 'select n from kept')).toEqual([{ n: 7 }]);
    await second.stop();
    await first.stop();
    expect(fs.existsSync(join(home, 'postgres.lock'))).toBe(false);
  });

  test('an initialisation cut short is begun again', async () => {
    const home = newHome();
    fs.mkdirSync(join(home, 'postgres', 'data.unfinished', 'base'), { recursive: true });
    const server = await start(home);
    expect(fs.existsSync(join(home, 'postgres', 'data.unfinished'))).toBe(false);
    await server.stop();
  });

  test('lost passwords and an unusable home are refused with what to do', async () => {
    const home = newHome();
    await (await start(home)).stop();
    fs.rmSync(join(home, 'secrets'), { recursive: true });
    await expect(start(home)).rejects.toMatchObject({
      code: 'EMBEDDED_POSTGRES_PASSWORDS',
    });
    fs.writeFileSync(join(home, 'file'), '');
    await expect(start(join(home, 'file'))).rejects.toMatchObject({
      code: 'EMBEDDED_POSTGRES_HOME',
      exitCode: 2,
    });
  });

  test.runIf(isRoot)('an ordinary user starts it in a private home', async () => {
    const home = newHome();
    const user = {
      uid: Number(execFileSync('id', ['-u', 'nobody'], { encoding: 'utf8' })),
      gid: Number(execFileSync('id', ['-g', 'nobody'], { encoding: 'utf8' })),
    };
    fs.chownSync(home, user.uid, user.gid);
    fs.chmodSync(home, 0o700);
    const other = inOtherProcess(home, user);
    const { url } = await other.started;
    expect(await read(url, 'select 1 as n')).toEqual([{ n: 1 }]);
    expect(fs.statSync(join(home, 'postgres', 'data')).uid).toBe(user.uid);
    await stop(other);
  });

  test.runIf(isRoot)(
    'in a home only root can enter the data lie elsewhere, and the log says where',
    async () => {
      const home = newHome();
      fs.chmodSync(home, 0o700);
      const said: string[] = [];
      const log: Log = { ...silent, warn: (_, message) => said.push(message) };
      const server = await start(home, log);
      const place = fs.realpathSync(join(home, 'postgres'));
      expect(place.startsWith(home)).toBe(false);
      expect(said.join('\n')).toContain(place);
      expect(fs.statSync(join(place, 'data')).uid).not.toBe(0);
      expect(await read(server.urlFor('seikyu', 'seikyu'), 'select 1 as n')).toEqual([{ n: 1 }]);
      await server.stop();

      fs.rmSync(place, { recursive: true });
      await expect(start(home)).rejects.toMatchObject({ code: 'EMBEDDED_POSTGRES_DATA_GONE' });
    },
  );

  test.runIf(isRoot)(
    'a deleted home that is made again starts empty and ends the server left behind',
    async () => {
      const home = newHome();
      fs.chmodSync(home, 0o700);
      const other = inOtherProcess(home);
      await other.started;
      const left = fs.realpathSync(join(home, 'postgres'));
      const pid = postmasterPid(home) ?? 0;
      other.process.kill('SIGKILL');
      await other.ended;
      fs.rmSync(home, { recursive: true });
      fs.mkdirSync(home, { mode: 0o700 });
      const server = await start(home);
      expect(server.adopted).toBe(false);
      expect(fs.realpathSync(join(home, 'postgres'))).not.toBe(left);
      await expect.poll(() => processLives(pid), { timeout: 20_000 }).toBe(false);
      await server.stop();
      fs.rmSync(left, { recursive: true });
    },
  );
});
