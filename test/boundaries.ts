import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe } from 'node:diagnostics_channel';
import process from 'node:process';
import type { CrashPoint } from '../billing/crash-points.ts';
import type { Db, Tx } from '../billing/db.ts';
import type { Ports } from '../jobs/ports.ts';

/** One step of a process that the database or the outside world can feel. */
export interface Step {
  /** One run of a job, or one request: what they do at the same time is not mixed up. */
  actor: string;
  /**
   * commit: rows were written. point: a crash point was passed. call and answer: a call to the outside began and ended.
   * method: a port has this, called or not.
   */
  kind: 'commit' | 'point' | 'call' | 'answer' | 'method';
  /** The tables, the point, or `port.method`. */
  what: string;
  /** What a call was about: a path, a reference, a message; of an answer, its kind. */
  about: string;
  inTransaction: boolean;
}

export type Note = (step: Step) => void;

/** Ports that lead to nobody outside. Whatever else is handed in counts as outside, also one that is added later. */
const inside: ReadonlySet<string> = new Set([
  'db',
  'clock',
  'ids',
  'randomness',
  'crash',
  'log',
  'sealer',
  'readKeyFile',
  'wake',
]);
/** What only looks: a call of any other name counts as one that may change something. */
const looks =
  /^(list|lookup|payouts$|payoutLines$|stat$|exists$|read|download|verify|settlementReport$|close$|open[A-Z]?\w*Store$)/;
/** Who is at which work. No outside call hangs on it: a chunk may be taken up by anybody at any time. */
const whoWorks: ReadonlySet<string> = new Set([
  'runs',
  'run_passes',
  'chunks',
  'run_chunks',
  'rate_limits',
  'gateway_states',
]);

interface Actor {
  name: string;
}

const actors = new AsyncLocalStorage<Actor>();
/** Set for what is done from within a transaction, not for what goes on beside one. */
const transactions = new AsyncLocalStorage<true>();
let requests = 0;
// Each request that a server of this process takes is an actor of its own.
subscribe('http.server.request.start', () => {
  requests += 1;
  actors.enterWith({ name: `request ${requests}` });
});

/** Runs `work` as one actor. */
export function asActor<T>(name: string, work: () => Promise<T>): Promise<T> {
  return actors.run({ name }, work);
}

function take(note: Note, kind: Step['kind'], what: string, about = ''): void {
  const actor = actors.getStore();
  note({
    // Several processes tell of what they do.
    actor: `${actor?.name ?? 'nobody'} of ${process.pid}`,
    kind,
    what,
    about,
    inTransaction: transactions.getStore() === true,
  });
}

/** Puts an observer around every port that leads outside, the database and the crash points. */
export function watchPorts(ports: Ports, note: Note, at: (point: CrashPoint) => void): void {
  for (const [name, port] of Object.entries(ports)) {
    if (inside.has(name)) continue;
    if (typeof port === 'function') Object.assign(ports, { [name]: watchedFunction(note, name, port) });
    else if (Array.isArray(port))
      Object.assign(ports, { [name]: port.map((each: object) => watchedPort(note, name, each)) });
    else if (typeof port === 'object' && port !== null)
      Object.assign(ports, { [name]: watchedPort(note, name, port) });
  }
  ports.db = watchedDb(ports.db, note);
  ports.crash = async (point) => {
    take(note, 'point', point);
    at(point);
  };
}

function watchedFunction(note: Note, name: string, call: (...given: unknown[]) => unknown) {
  take(note, 'method', name);
  return (...given: unknown[]) => watchedCall(note, name, name, given, () => call(...given));
}

const told = new Set<string>();

function watchedPort<T extends object>(note: Note, name: string, port: T): T {
  const methods = [...Object.keys(port), ...Object.getOwnPropertyNames(Object.getPrototypeOf(port) ?? {})];
  for (const method of methods) {
    const what = `${name}.${method}`;
    const isMethod =
      method !== 'constructor' &&
      !(method in Object.prototype) &&
      typeof Reflect.get(port, method) === 'function';
    if (!isMethod || told.has(what)) continue;
    told.add(what);
    take(note, 'method', what);
  }
  return new Proxy(port, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function' || typeof property === 'symbol') return value;
      return (...given: unknown[]) =>
        watchedCall(note, `${name}.${property}`, property, given, () => Reflect.apply(value, target, given));
    },
  });
}

function watchedCall(
  note: Note,
  what: string,
  method: string,
  given: unknown[],
  call: () => unknown,
): unknown {
  const watched = changes(method);
  if (watched) take(note, 'call', what, subjectOf(given));
  const answer = call();
  if (!(answer instanceof Promise)) return answer;
  return answer.then(
    (value: unknown) => {
      if (watched) take(note, 'answer', what, `${subjectOf(given)} ${kindOf(value)}`);
      // A connection: `openStore` hands out a store, and what goes over it goes outside.
      const opened = /^open(\w+)$/.exec(what)?.[1];
      return opened !== undefined && typeof value === 'object' && value !== null
        ? watchedPort(note, opened.toLowerCase(), value)
        : value;
    },
    (error: unknown) => {
      if (watched) take(note, 'answer', what, `${subjectOf(given)} threw`);
      throw error;
    },
  );
}

const changes = (method: string): boolean => !looks.test(method);

function subjectOf([first, second]: unknown[]): string {
  if (typeof first === 'string') return typeof second === 'string' ? `${first} ${second}` : first;
  const request = (first ?? {}) as Record<string, unknown>;
  return String(request.messageId ?? request.reference ?? '');
}

function kindOf(value: unknown): string {
  const kind = (value as { kind?: unknown } | null | undefined)?.kind;
  return typeof kind === 'string' ? kind : 'ended';
}

const written =
  /\binsert\s+into\s+(\w+)|(?<!\b(?:for|do|key)\s+)\bupdate\s+(\w+)|\bdelete\s+from\s+(\w+)|\bcopy\s+(\w+)/gi;

function tablesWritten(sql: string): string[] {
  return [...sql.matchAll(written)]
    .map((match) => match[1] ?? match[2] ?? match[3] ?? match[4] ?? '')
    .filter((table) => !whoWorks.has(table));
}

export function watchedDb(db: Db, note: Note): Db {
  const alone = async <T>(sql: string, work: () => Promise<T>): Promise<T> => {
    const answer = await work();
    const tables = tablesWritten(sql);
    if (tables.length > 0) take(note, 'commit', tables.join(' '));
    return answer;
  };
  return {
    ...db,
    query: (sql, values, options) => alone(sql, () => db.query(sql, values, options)),
    run: (sql, values, options) => alone(sql, () => db.run(sql, values, options)),
    async transaction(work, options) {
      const tables = new Set<string>();
      const writing = (sql: string) => {
        for (const table of tablesWritten(sql)) tables.add(table);
      };
      try {
        return await db.transaction((tx) => {
          tables.clear();
          return transactions.run(true, () => work(watchedTx(tx, writing)));
        }, options);
      } finally {
        if (tables.size > 0) take(note, 'commit', [...tables].join(' '));
      }
    },
  };
}

function watchedTx(tx: Tx, writing: (sql: string) => void): Tx {
  return {
    ...tx,
    query(sql, values, options) {
      writing(sql);
      return tx.query(sql, values, options);
    },
    run(sql, values, options) {
      writing(sql);
      return tx.run(sql, values, options);
    },
    copyIn(sql, chunks) {
      writing(sql);
      return tx.copyIn(sql, chunks);
    },
  };
}

/** `port.method` of everything that may change something outside. */
export function changingMethods(steps: readonly Step[]): string[] {
  const methods = steps.filter(({ kind }) => kind === 'method').map(({ what }) => what);
  return [...new Set(methods)].filter((what) => changes(what.split('.').at(-1) ?? '')).sort();
}

/**
 * Boundaries that nobody can be killed at by name: a commit that is followed by an outside call, or a call that is
 * followed by a commit, with no crash point in between. Also calls that are made out of an open transaction.
 */
export function boundariesWithoutPoint(steps: readonly Step[]): string[] {
  const faults = new Set<string>();
  const last = new Map<string, Step>();
  for (const step of steps) {
    const { actor, kind, what } = step;
    if (kind === 'method') continue;
    const before = last.get(actor);
    if (kind === 'call') {
      if (step.inTransaction) faults.add(`${roleOf(actor)}: ${what} is called out of an open transaction`);
      if (before?.kind === 'commit')
        faults.add(`${roleOf(actor)}: no crash point between the commit of ${before.what} and ${what}`);
    }
    if (kind === 'commit' && (before?.kind === 'answer' || before?.kind === 'call'))
      faults.add(`${roleOf(actor)}: no crash point between ${before.what} and the commit of ${what}`);
    last.set(actor, step);
  }
  return [...faults].sort();
}

/** Without the number that tells one run or request from another. */
const roleOf = (actor: string): string => actor.split(' ')[0] ?? actor;
