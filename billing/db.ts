import { createHash } from 'node:crypto';
import { pipeline, Readable } from 'node:stream';
import { promisify } from 'node:util';
import knexFactory, { type Knex } from 'knex';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { Temporal } from 'temporal-polyfill';
import { QueryOfMerchant } from './query-of-merchant.ts';
import { assertState, Refusal } from './refusal.ts';

/** One transaction on one connection. Not to be used after its `work` has returned. */
export interface Tx {
  /** Rows of the (last) statement. `name` makes it a prepared statement of the connection. */
  query<Row = Record<string, unknown>>(
    sql: string,
    values?: readonly unknown[],
    options?: QueryOptions,
  ): Promise<Row[]>;
  /** Rows touched, by the command tag. */
  run(sql: string, values?: readonly unknown[], options?: QueryOptions): Promise<number>;
  /** `copy ... from stdin`: chunks may be of any size, they are gathered into large ones. Returns rows copied. */
  copyIn(
    sql: string,
    chunks: AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array>,
  ): Promise<number>;
  /** `copy ... to stdout`. Must be read to its end: leaving early breaks the connection and so the transaction. */
  copyOut(sql: string): AsyncIterable<Buffer>;
  /** Rows in batches through a server-side cursor, so that memory stays bounded. */
  cursor<Row = Record<string, unknown>>(
    sql: string,
    values: readonly unknown[],
    batchRows: number,
  ): AsyncIterable<Row[]>;
}

export interface QueryOptions {
  name?: string;
}

export interface TransactionOptions {
  isolation?: 'read committed' | 'repeatable read' | 'serializable';
  /** A statement that writes is refused. */
  readOnly?: boolean;
  /** Sets `seikyu.merchant_id` for the transaction: row security of the web role shows this merchant only. */
  merchantId?: number | string;
  /** How often the whole of `work` is tried again after a deadlock or serialization failure. Default 5. */
  retries?: number;
}

export interface Db extends Pick<Tx, 'query' | 'run'> {
  /** Runs `work` between BEGIN and a checked COMMIT. `work` must have no effect outside the database: it may run again. */
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /** Statements that read of one merchant, each by itself and in one round trip: as row security shows them to the web. */
  of(merchantId: number): Pick<Tx, 'query'>;
  /** For migrations. */
  readonly knex: Knex;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** Default 10, at least 2: a migration runs beside the transaction that holds its lock. */
  poolMax?: number;
  applicationName?: string;
  /**
   * Every statement with parameters is prepared once on each connection: the web asks the same few questions all day, and
   * planning a join of seven tables costs more than running it. Not for jobs, whose plans must follow the data's growth.
   */
  prepare?: boolean;
  /** Told of errors on idle connections (the server restarted, an administrator ended it). They never kill the process. */
  onIdleError?: (error: Error) => void;
  /** Waits between retries; without it they follow at once. */
  sleep?: (milliseconds: number) => Promise<void>;
}

/** COMMIT was sent and the connection broke: the work may or may not stand. Look before doing it again. */
export class CommitOutcomeUnknown extends Error {
  constructor(cause: unknown) {
    super('the connection broke during COMMIT: the transaction may or may not stand', { cause });
    this.name = 'CommitOutcomeUnknown';
  }
}

type Client = pg.Client & { __knex__disposed?: unknown; preparesAll?: boolean; generation?: number };

const date = 1082;
const dateArray = 1182;
const timestamp = 1114;
const timestampArray = 1115;
const instant = 1184;
const instantArray = 1185;
const bigint = 20;
const bigintArray = 1016;
const numeric = 1700;
const numericArray = 1231;

const asText = (text: string): string => text;

const asSafeInteger = (text: string): number => {
  const value = Number(text);
  if (!Number.isSafeInteger(value))
    throw new RangeError(`a bigint beyond 2^53 came from the database: ${text}`);
  return value;
};

/** '2026-11-25 01:02:03.456+00' becomes '2026-11-25T01:02:03.456Z'; other session time zones are converted. */
export const asInstantText = (text: string): string => {
  if (text.endsWith('+00')) return `${text.slice(0, 10)}T${text.slice(11, -3)}Z`;
  if (text.endsWith('infinity')) return text;
  return Temporal.Instant.from(text.replace(' ', 'T')).toString();
};

/** pg-types reads arrays with this; its own types leave it out. */
const { arrayParser } = pg.types as unknown as {
  arrayParser: { create(text: string, item: (text: string) => unknown): { parse(): unknown } };
};
const arrayOf = (item: (text: string) => unknown) => (text: string) => arrayParser.create(text, item).parse();

const parsers = new Map<number, (text: string) => unknown>([
  [date, asText],
  [dateArray, arrayOf(asText)],
  [timestamp, asText],
  [timestampArray, arrayOf(asText)],
  [instant, asInstantText],
  [instantArray, arrayOf(asInstantText)],
  [bigint, asSafeInteger],
  [bigintArray, arrayOf(asSafeInteger)],
  [numeric, asText],
  [numericArray, arrayOf(asText)],
]);

/** Handed to each connection, so that no other user of pg in the process is changed. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary'): (value: string) => unknown {
    const own = format === 'binary' ? undefined : parsers.get(oid);
    return own ?? pg.types.getTypeParser(oid, format as 'text');
  },
};

const isTemporal = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  String((value as Record<symbol, unknown>)[Symbol.toStringTag]).startsWith('Temporal.');

/** pg would send a Temporal value as quoted JSON. Lists hold one kind: the first that is not null decides. */
const asParameter = (value: unknown): unknown => {
  if (isTemporal(value)) return String(value);
  if (!Array.isArray(value)) return value;
  const first = value.find((item) => item !== null && item !== undefined);
  return isTemporal(first) ? value.map((item) => (item == null ? null : String(item))) : value;
};

const codeOf = (error: unknown): string => String((error as { code?: unknown } | null)?.code ?? '');

/** What a connection has prepared is not what the tables are any more. 0A000 alone says only that something is not supported. */
const isOfOldPlan = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && error.code === '0A000' && error.routine === 'RevalidateCachedQuery';

/** Anything but an ordinary error of a statement leaves a connection that cannot be trusted. */
const isBroken = (error: unknown): boolean =>
  !(error instanceof pg.DatabaseError) ||
  error.severity === 'FATAL' ||
  error.severity === 'PANIC' ||
  isOfOldPlan(error);

const retryable = new Set(['40001', '40P01']);
const isRetryable = (error: unknown): boolean => retryable.has(codeOf(error)) || isOfOldPlan(error);
const retriesAtMost = 5;

const unreachable = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EPIPE',
  '57P03', // starting up or shutting down
  '53300', // too many connections
  '28P01', // wrong password
  '28000', // no such role, or not allowed from here
  '3D000', // no such database
]);

/** 64 KiB: 200,000 rows one by one cost 2.9 s of COPY, in buffers this large 0.07 s. */
const copyChunkBytes = 65_536;

async function* gathered(
  chunks: AsyncIterable<string | Uint8Array> | Iterable<string | Uint8Array>,
): AsyncIterable<Buffer> {
  let texts: string[] = [];
  let textLength = 0;
  let parts: Uint8Array[] = [];
  let sizeBytes = 0;
  const closeText = () => {
    if (texts.length === 0) return;
    const part = Buffer.from(texts.join(''), 'utf8');
    parts.push(part);
    sizeBytes += part.length;
    texts = [];
    textLength = 0;
  };
  const take = (): Buffer => {
    const whole = Buffer.concat(parts);
    parts = [];
    sizeBytes = 0;
    return whole;
  };
  for await (const chunk of chunks) {
    if (typeof chunk === 'string') {
      texts.push(chunk);
      textLength += chunk.length;
    } else {
      closeText();
      parts.push(chunk);
      sizeBytes += chunk.length;
    }
    if (sizeBytes + textLength >= copyChunkBytes) {
      closeText();
      yield take();
    }
  }
  closeText();
  if (sizeBytes > 0) yield take();
}

const pump = promisify(pipeline);

/** The pool opens connections when they are needed; nothing is tried here. Errors: Refusal DATABASE_UNREACHABLE on first use. */
export function openDatabase(url: string, options: DatabaseOptions = {}): Db {
  const where = hostAndPort(url);
  const knex = knexFactory({
    client: 'pg',
    // Spares a `select version()` for every new connection.
    version: '15',
    connection: {
      connectionString: url,
      application_name: options.applicationName ?? 'seikyu',
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      connectionTimeoutMillis: 10_000,
      types,
    } as Knex.PgConnectionConfig,
    pool: {
      min: 0,
      max: Math.max(2, options.poolMax ?? 10),
      // Checked-out clients too: an error event without a listener ends the process.
      afterCreate(client: Client, done: (error: Error | null, client: Client) => void) {
        client.on('error', (error: Error) => options.onIdleError?.(error));
        client.preparesAll = options.prepare === true;
        done(null, client);
      },
    },
    // knex warns about each connection that it drops; onIdleError has told that already.
    log: {
      warn: () => undefined,
      error: () => undefined,
      debug: () => undefined,
      deprecate: () => undefined,
    },
  });

  /** Counts the changes of tables that were noticed: connections from before have prepared what they are not any more. */
  let generation = 0;

  const acquire = async (): Promise<Client> => {
    try {
      for (;;) {
        const client: Client = await knex.client.acquireConnection();
        client.generation ??= generation;
        if (client.generation === generation) return client;
        await release(client, true);
      }
    } catch (error) {
      const refused = asUnreachable(error, where);
      if (refused) throw refused;
      throw error;
    }
  };

  const release = async (client: Client, broken: boolean): Promise<void> => {
    if (broken) {
      // The pool drops a disposed connection when it is next asked for one; the socket is closed now.
      client.__knex__disposed = client.__knex__disposed ?? 'broken';
      client.end().catch((error: Error) => options.onIdleError?.(error));
    }
    await knex.client.releaseConnection(client);
  };

  const noticeOldPlan = (client: Client, error: unknown): void => {
    if (isOfOldPlan(error) && client.generation === generation) generation += 1;
  };

  const alone = async <T>(work: (client: Client) => Promise<T>): Promise<T> => {
    const client = await acquire();
    let broken = false;
    try {
      return await work(client);
    } catch (error) {
      noticeOldPlan(client, error);
      broken = isBroken(error);
      throw error;
    } finally {
      await release(client, broken);
    }
  };

  const queryOf = async (merchantId: number, sql: string, values: readonly unknown[]): Promise<unknown[]> => {
    const client = await acquire();
    let broken = false;
    try {
      return await new Promise<unknown[]>((resolve, reject) => {
        const statement = { merchantId, name: `of_${statementName(sql)}`, text: sql, values };
        const query = new QueryOfMerchant(statement, types.getTypeParser, (error, rows) => {
          if (error === null) return resolve(rows);
          noticeOldPlan(client, error);
          broken = !query.wasPrepared || isBroken(error);
          reject(error);
        });
        client.query(query);
      });
    } finally {
      await release(client, broken);
    }
  };

  const again = async <T>(work: () => Promise<T>, retries: number): Promise<T> => {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (attempt >= retries || !isRetryable(error)) throw error;
        await options.sleep?.(10 * 2 ** attempt);
      }
    }
  };

  const once = async <T>(
    work: (tx: Tx) => Promise<T>,
    transactionOptions: TransactionOptions,
  ): Promise<T> => {
    const client = await acquire();
    const scope = { open: true, broken: false };
    try {
      await client.query(beginOf(transactionOptions));
      const result = await work(transactionOn(client, scope));
      scope.open = false;
      await commit(client, scope);
      return result;
    } catch (error) {
      noticeOldPlan(client, error);
      if (scope.open || !scope.broken) scope.broken ||= !(await rollback(client, scope, options.onIdleError));
      throw error;
    } finally {
      scope.open = false;
      await release(client, scope.broken || client.__knex__disposed !== undefined);
    }
  };

  return {
    knex,
    query: (sql, values, queryOptions) =>
      alone(async (client) => rowsOf(await send(client, sql, values, queryOptions))),
    run: (sql, values, queryOptions) =>
      alone(async (client) => countOf(await send(client, sql, values, queryOptions))),
    transaction: (work, transactionOptions = {}) =>
      again(() => once(work, transactionOptions), transactionOptions.retries ?? retriesAtMost),
    of: (merchantId) => ({
      query: <Row>(sql: string, values: readonly unknown[] = []) =>
        again(() => queryOf(merchantId, sql, values), retriesAtMost) as Promise<Row[]>,
    }),
    async close() {
      await knex.destroy();
    },
  };
}

/** One round trip also where a merchant is set: a page of the web is little else than round trips. */
function beginOf({ isolation = 'read committed', readOnly = false, merchantId }: TransactionOptions): string {
  const begin = `begin isolation level ${isolation}${readOnly ? ' read only' : ''}`;
  if (merchantId === undefined) return begin;
  assertState(/^\d{1,10}$/.test(String(merchantId)), 'a merchant id is a number');
  return `${begin}; select set_config('seikyu.merchant_id', '${merchantId}', true)`;
}

interface Scope {
  open: boolean;
  broken: boolean;
}

async function commit(client: Client, scope: Scope): Promise<void> {
  let tag: string;
  try {
    tag = (await client.query('commit')).command;
  } catch (error) {
    scope.broken = isBroken(error);
    // A deferred constraint may refuse at COMMIT: then it is known that nothing stands.
    throw scope.broken ? new CommitOutcomeUnknown(error) : error;
  }
  // After a failed statement whose error was swallowed, COMMIT rolls back and says so only in its tag.
  if (tag !== 'COMMIT') {
    throw new Error(
      `COMMIT was answered with ${tag}: a statement of the transaction had failed, nothing stands`,
    );
  }
}

/** Whether the connection is clean again. */
async function rollback(client: Client, scope: Scope, report?: (error: Error) => void): Promise<boolean> {
  scope.open = false;
  if (scope.broken || client.__knex__disposed !== undefined) return false;
  try {
    await client.query('rollback');
    return true;
  } catch (error) {
    report?.(error as Error);
    return false;
  }
}

function transactionOn(client: Client, scope: Scope): Tx {
  let cursors = 0;
  const tracked = async <T>(work: () => Promise<T>): Promise<T> => {
    assertState(scope.open, 'a transaction was used after its end');
    try {
      return await work();
    } catch (error) {
      if (error instanceof pg.DatabaseError && isBroken(error)) scope.broken = true;
      throw error;
    }
  };
  const query: Tx['query'] = (sql, values, options) =>
    tracked(async () => rowsOf(await send(client, sql, values, options)));
  return {
    query,
    run: (sql, values, options) => tracked(async () => countOf(await send(client, sql, values, options))),
    copyIn: (sql, chunks) =>
      tracked(async () => {
        const stream = client.query(copyFrom(sql));
        await pump(
          Readable.from(gathered(chunks), { objectMode: false, highWaterMark: copyChunkBytes }),
          stream,
        );
        return stream.rowCount;
      }),
    async *copyOut(sql) {
      assertState(scope.open, 'a transaction was used after its end');
      const stream = client.query(copyTo(sql));
      let ended = false;
      try {
        for await (const chunk of stream) yield chunk as Buffer;
        ended = true;
      } catch (error) {
        ended = error instanceof pg.DatabaseError && !isBroken(error);
        throw error;
      } finally {
        // The rest of the rows is still on its way: there is no polite way to stop a COPY.
        if (!ended) {
          scope.broken = true;
          client.__knex__disposed = 'copy abandoned';
          client.end().catch(() => undefined);
        }
      }
    },
    async *cursor(sql, values, batchRows) {
      const name = `batch_${++cursors}`;
      await query(`declare ${name} no scroll cursor for ${sql}`, values);
      for (;;) {
        const rows = await query(`fetch forward ${batchRows} from ${name}`);
        if (rows.length > 0) yield rows as never;
        if (rows.length < batchRows) break;
      }
      await query(`close ${name}`);
    },
  };
}

type Answer = pg.QueryResult | pg.QueryResult[];

const send = (
  client: Client,
  text: string,
  values: readonly unknown[] = [],
  options: QueryOptions = {},
): Promise<Answer> => {
  // Without values the simple protocol is used: several statements in one text, as migrations have them.
  if (values.length === 0 && options.name === undefined) return client.query(text);
  const name = options.name ?? (client.preparesAll ? statementName(text) : undefined);
  return client.query({ text, values: values.map(asParameter), ...(name === undefined ? {} : { name }) });
};

const statementNames = new Map<string, string>();

/** Stable for the text; bounded by the number of statements in the program, since no text is put together from input. */
function statementName(text: string): string {
  let name = statementNames.get(text);
  if (name === undefined) {
    name = `s${createHash('sha256').update(text).digest('hex').slice(0, 32)}`;
    statementNames.set(text, name);
  }
  return name;
}

const last = (answer: Answer): pg.QueryResult => {
  const result = Array.isArray(answer) ? answer.at(-1) : answer;
  assertState(result, 'a query text without a statement');
  return result;
};

const rowsOf = <Row>(answer: Answer): Row[] => last(answer).rows as Row[];
const countOf = (answer: Answer): number => last(answer).rowCount ?? 0;

function hostAndPort(url: string): string {
  try {
    const parsed = new URL(url);
    return `${parsed.hostname || 'localhost'}:${parsed.port || '5432'}`;
  } catch (error) {
    // The text itself may hold a password: it is not repeated.
    throw new Refusal('DATABASE_URL_MALFORMED', 'the database URL cannot be read', {
      next: 'Write it as postgres://user:password@host:5432/database; percent-encode special characters.',
      exitCode: 2,
      context: { reason: codeOf(error) },
    });
  }
}

const reasons: Record<string, string> = {
  '28P01': 'the password is refused',
  '28000': 'the role is not allowed in',
  '3D000': 'there is no such database',
  '53300': 'all of its connections are taken',
  '57P03': 'it is starting up or shutting down',
  ENOTFOUND: 'the host name is not known',
  ECONNREFUSED: 'nothing listens there',
};

function asUnreachable(error: unknown, where: string): Refusal | undefined {
  // Node tries IPv6 and IPv4 and wraps both failures.
  const inner = error instanceof AggregateError ? error.errors[0] : error;
  const timedOut =
    inner instanceof Error && /timeout (expired|exceeded)|terminated due to/i.test(inner.message);
  const poolFull = inner instanceof Error && inner.name === 'KnexTimeoutError';
  const code = timedOut && !poolFull && codeOf(inner) === '' ? 'ETIMEDOUT' : codeOf(inner);
  if (!unreachable.has(code)) return undefined;
  return new Refusal(
    'DATABASE_UNREACHABLE',
    `the database at ${where} cannot be used: ${reasons[code] ?? code}`,
    {
      context: { where, code },
      next: 'Check that PostgreSQL runs and that DATABASE_URL names the right host, port, database and role.',
      cause: error,
    },
  );
}
