import pg from 'pg';

/** What node-postgres has of a connection for its own queries and those of pg-cursor; its types leave it out. */
interface Connection {
  parsedStatements: Record<string, string | undefined>;
  parse(message: { name: string; text: string; types: readonly string[] }): void;
  bind(message: { portal: string; statement: string; values: readonly unknown[] }): void;
  execute(message: { portal: string; rows: number }): void;
}

interface ProtocolQuery {
  prepare(connection: Connection): void;
  handleRowDescription(message: unknown): void;
  handleDataRow(message: unknown): void;
  handleCommandComplete(message: unknown, connection: Connection): void;
  handleReadyForQuery(connection: Connection): void;
}

interface Prepared {
  name: string;
  text: string;
  values: readonly unknown[];
}

type Callback = (error: Error | undefined, result: pg.QueryResult) => void;

const PreparedQuery = pg.Query as unknown as new (config: Prepared, callback: Callback) => ProtocolQuery;

const statement = {
  name: 'seikyu_of_merchant',
  text: `select set_config('seikyu.merchant_id', $1, true)`,
  types: [],
};

/**
 * A statement that returns rows, and before it the merchant whose rows the web may see, sent as one: PostgreSQL holds all
 * up to the Sync for one transaction, so that the setting ends with it. BEGIN, the statement and COMMIT one after the other
 * are three round trips, and a page is little else. After an error of one that `wasPrepared` is false of, the connection must
 * not be used again: what it has prepared is not known.
 */
export class QueryOfMerchant extends PreparedQuery {
  readonly #merchantId: string;
  /** Until the statement's own columns are announced, what comes is the answer to the setting. */
  #isSetting = true;
  readonly #name: string;
  /** Both statements stood on the connection before. */
  wasPrepared = false;

  constructor(merchantId: string, prepared: Prepared, callback: Callback) {
    super(prepared, callback);
    this.#merchantId = merchantId;
    this.#name = prepared.name;
  }

  override prepare(connection: Connection): void {
    const { parsedStatements: parsed } = connection;
    this.wasPrepared = parsed[statement.name] !== undefined && parsed[this.#name] !== undefined;
    if (parsed[statement.name] === undefined) connection.parse(statement);
    connection.bind({ portal: '', statement: statement.name, values: [this.#merchantId] });
    connection.execute({ portal: '', rows: 0 });
    super.prepare(connection);
  }

  override handleRowDescription(message: unknown): void {
    this.#isSetting = false;
    super.handleRowDescription(message);
  }

  override handleDataRow(message: unknown): void {
    if (!this.#isSetting) super.handleDataRow(message);
  }

  override handleCommandComplete(message: unknown, connection: Connection): void {
    if (!this.#isSetting) super.handleCommandComplete(message, connection);
  }

  override handleReadyForQuery(connection: Connection): void {
    connection.parsedStatements[statement.name] = statement.text;
    super.handleReadyForQuery(connection);
  }
}
