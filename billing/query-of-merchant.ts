import type pg from 'pg';
import { serialize } from 'pg-protocol';
import { assertState } from './refusal.ts';

interface Columns {
  names: readonly string[];
  parsers: readonly ((text: string) => unknown)[];
  /** A row without its values: a copy of it has its shape at once, column by column it would grow it. */
  blank: Row;
}

export interface StatementOfMerchant {
  merchantId: number;
  /** Of the prepared statement: stands for `text` and nothing else, here and wherever the connection is used. */
  name: string;
  text: string;
  /** Text, numbers, truth values, bytes and null. */
  values: readonly unknown[];
}

type Row = Record<string, unknown>;
type ParserOf = (oid: number, format?: 'text' | 'binary') => (text: string) => unknown;

const settingName = 'seikyu_of_merchant';
const settingText = `select set_config('seikyu.merchant_id', $1, true)`;

const ending = Buffer.concat([serialize.execute(), serialize.sync()]);
const settings = new Map<number, Buffer>();
const settingsAtMost = 10_000;

function settingOf(merchantId: number): Buffer {
  const known = settings.get(merchantId);
  if (known !== undefined) return known;
  if (settings.size >= settingsAtMost) settings.clear();
  const bind = serialize.bind({ statement: settingName, values: [String(merchantId)] });
  const setting = Buffer.concat([bind, serialize.execute()]);
  settings.set(merchantId, setting);
  return setting;
}

/** By connection, the columns of what it has prepared. They cannot change: PostgreSQL refuses with 0A000 instead. */
const preparedOn = new WeakMap<pg.Connection, Map<string, Columns>>();

/**
 * A statement that returns rows, and before it the merchant whose rows the web may see, sent as one: PostgreSQL holds all
 * up to the Sync for one transaction, so that the setting ends with it. BEGIN, the statement and COMMIT one after the other
 * are three round trips, and a page is little else. What a connection has told of a statement's columns it is not asked
 * again: of 30 columns that costs both sides as much as the row. After an error of one that `wasPrepared` is false of, the
 * connection must not be used again: what it has prepared is not known.
 */
export class QueryOfMerchant implements pg.Submittable {
  readonly #statement: StatementOfMerchant;
  readonly #values: (string | Buffer | null)[];
  readonly #parserOf: ParserOf;
  readonly #rows: Row[] = [];
  #columns: Columns = { names: [], parsers: [], blank: {} };
  #isSetting = true;
  #failure: Error | null = null;
  /** The statement stood on the connection before. */
  wasPrepared = false;
  readonly callback: (error: Error | null, rows: Row[]) => void;

  constructor(statement: StatementOfMerchant, parserOf: ParserOf, callback: QueryOfMerchant['callback']) {
    this.#statement = statement;
    this.#values = statement.values.map(asSent);
    this.#parserOf = parserOf;
    this.callback = callback;
  }

  submit(connection: pg.Connection): void {
    const { merchantId, name, text } = this.#statement;
    const prepared = preparedOn.get(connection);
    const columns = prepared?.get(name);
    this.wasPrepared = columns !== undefined;
    const parts: Uint8Array[] = [];
    if (prepared === undefined) parts.push(serialize.parse({ name: settingName, text: settingText }));
    parts.push(settingOf(merchantId));
    if (columns === undefined) parts.push(serialize.parse({ name, text }));
    parts.push(serialize.bind({ statement: name, values: this.#values }));
    if (columns === undefined) parts.push(serialize.describe({ type: 'P' }));
    else this.#columns = columns;
    parts.push(ending);
    connection.stream.write(Buffer.concat(parts));
  }

  handleRowDescription(message: { fields: { name: string; dataTypeID: number }[] }): void {
    const names = message.fields.map(({ name }) => name);
    this.#columns = {
      names,
      parsers: message.fields.map(({ dataTypeID }) => this.#parserOf(dataTypeID, 'text')),
      blank: Object.fromEntries(names.map((name) => [name, null])),
    };
  }

  /** Called by the socket: what is thrown here would end the process. */
  handleDataRow({ fields }: { fields: (string | null)[] }): void {
    if (this.#isSetting || this.#failure !== null) return;
    const { names, parsers, blank } = this.#columns;
    const row: Row = { ...blank };
    try {
      for (let index = 0; index < names.length; index++) {
        const text = fields[index];
        if (text !== null && text !== undefined) row[names[index] as string] = parsers[index]?.(text);
      }
    } catch (error) {
      this.#failure = error as Error;
    }
    this.#rows.push(row);
  }

  /** The setting's comes first. */
  handleCommandComplete(): void {
    this.#isSetting = false;
  }

  handleReadyForQuery(connection: pg.Connection): void {
    if (!this.wasPrepared) {
      const prepared = preparedOn.get(connection) ?? new Map<string, Columns>();
      preparedOn.set(connection, prepared.set(this.#statement.name, this.#columns));
    }
    this.callback(this.#failure, this.#rows);
  }

  handleError(error: Error): void {
    this.callback(error, []);
  }

  handleEmptyQuery(): void {
    this.#failure = new Error('an empty text is no statement of a merchant');
  }

  handlePortalSuspended(connection: pg.Connection): void {
    this.#failure = new Error('a portal without a limit was suspended');
    connection.sync();
  }

  handleCopyInResponse(connection: pg.Connection): void {
    this.#failure = new Error('COPY is no statement of a merchant');
    (connection as unknown as { sendCopyFail(why: string): void }).sendCopyFail(this.#failure.message);
  }

  handleCopyData(): void {
    this.#failure = new Error('COPY is no statement of a merchant');
  }
}

/** As PostgreSQL reads text; node-postgres would do the same, but keeps how to itself. */
function asSent(value: unknown): string | Buffer | null {
  if (value === null || value === undefined || Buffer.isBuffer(value)) return value ?? null;
  assertState(
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean',
    'a statement of a merchant takes text, numbers, truth values and bytes',
  );
  return String(value);
}
