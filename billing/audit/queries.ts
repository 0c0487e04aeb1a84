import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { assertState } from '../refusal.ts';
import { type ChainHead, type Covered, type Entry, emptyChain } from './chain.ts';

/**
 * What an entry covers: every column of these tables but merchant and act, which say whose row it is. A column that is not
 * in the list can be changed unseen. Each has its type, so that a wider column later gives the same digest.
 */
export const covered = {
  acts: {
    columns: { month: 'date', id: 'uuid', kind: 'text', actor: 'text', at: 'timestamptz' },
    act: 'id',
    key: ['id', 'month'],
    partBy: 'id',
  },
  transfers: {
    columns: {
      month: 'date',
      entry_id: 'uuid',
      event: 'text',
      leg: 'int',
      debit: 'text',
      credit: 'text',
      amount: 'bigint',
      currency: 'text',
      event_on: 'date',
      posted_on: 'date',
      closing_month: 'date',
      invoice_id: 'uuid',
      customer_id: 'uuid',
    },
    act: 'act_id',
    key: ['entry_id', 'event', 'leg', 'month'],
    partBy: 'entry_id',
  },
  state_history: {
    columns: {
      month: 'date',
      subject: 'text',
      subject_id: 'uuid',
      version: 'int',
      from_state: 'text',
      to_state: 'text',
      at: 'timestamptz',
    },
    act: 'act_id',
    key: ['subject_id', 'subject', 'version', 'month'],
    partBy: 'subject_id',
  },
} as const satisfies Record<
  string,
  {
    columns: Readonly<Record<string, 'date' | 'uuid' | 'text' | 'int' | 'bigint' | 'timestamptz'>>;
    act: string;
    key: readonly string[];
    partBy: string;
  }
>;

export type CoveredTable = keyof typeof covered;

/**
 * Rows of the act `act` of merchant $1 in a table: count and SHA-256. Rows go in as PostgreSQL sends them in binary: each
 * value with type and length, so that no two rows look alike and no session setting shows; half the time of text. They are
 * hashed in parts, one for each millisecond in which their ids were made: an act of millions of rows is longer than a value may
 * be, long values are slow to build, and rows that were written in the order of their ids need next to no sorting.
 */
function digestOf(table: CoveredTable, act: string): string {
  const { columns, act: actColumn, key, partBy } = covered[table];
  const row = Object.entries(columns).map(([column, type]) => `${column}::${type}`);
  const types: Readonly<Record<string, string>> = columns;
  const order = key.map((column) => (types[column] === 'text' ? `${column} collate "C"` : column));
  return `(
    select coalesce(sum(rows), 0)::int as count, sha256(coalesce(string_agg(digest, ''::bytea order by part), '')) as sha256
    from (
      select substr(uuid_send(${partBy}), 1, 6) as part, count(*) as rows,
             sha256(string_agg(record_send(row(${row.join(', ')})), ''::bytea order by ${order.join(', ')})) as digest
      from ${table} where merchant_id = $1 and ${actColumn} = ${act}
      group by part
    ) parts
  )`;
}

const digests = (act: string): string =>
  `cross join lateral ${digestOf('acts', act)} as a
   cross join lateral ${digestOf('transfers', act)} as t
   cross join lateral ${digestOf('state_history', act)} as h`;

/** Whether anything of the merchant waits to be sealed. */
export async function anyUnsealed(db: Pick<Db, 'query'>, merchantId: number): Promise<boolean> {
  const rows = await db.query(`select 1 from unsealed_acts where merchant_id = $1 limit 1`, [merchantId]);
  return rows.length > 0;
}

/** One sealer at a time for a merchant. `month`: of the last entry. */
export async function lockHead(tx: Tx, merchantId: number): Promise<ChainHead & { month: string }> {
  const read = () =>
    tx.query<ChainHead & { month: string }>(
      `select month, no, encode(hash, 'hex') as hash from audit_heads where merchant_id = $1 for update`,
      [merchantId],
    );
  const [head] = await read();
  if (head !== undefined) return head;
  await tx.run(
    `insert into audit_heads (merchant_id, month, no, hash) values ($1, '0001-01-01', $2, decode($3, 'hex'))
     on conflict do nothing`,
    [merchantId, emptyChain.no, emptyChain.hash],
  );
  const [made] = await read();
  assertState(made, `merchant ${merchantId} has no head`);
  return made;
}

/** The head as it is sealed now, in the caller's snapshot. */
export async function chainHead(db: Pick<Db, 'query'>, merchantId: number): Promise<ChainHead> {
  const [head] = await db.query<ChainHead>(
    `select no, encode(hash, 'hex') as hash from audit_heads where merchant_id = $1`,
    [merchantId],
  );
  return head ?? emptyChain;
}

export interface UnsealedAct {
  act_id: string;
  kind: string;
  actor: string;
  at: string;
}

/**
 * Takes acts out of the queue, oldest id first. What a transaction still has in its hands is left for later; whoever writes
 * to a taken act waits for this transaction to end and queues it again.
 */
export async function takeUnsealed(tx: Tx, merchantId: number, atMost: number): Promise<UnsealedAct[]> {
  const rows = await tx.query<UnsealedAct>(
    `with free as (
       select act_id from unsealed_acts where merchant_id = $1
       order by act_id limit $2 for update skip locked
     )
     delete from unsealed_acts u using free
     where u.merchant_id = $1 and u.act_id = free.act_id
     returning u.act_id, u.kind, u.actor, u.at`,
    [merchantId, atMost],
  );
  return rows.sort((one, other) => (one.act_id < other.act_id ? -1 : 1));
}

interface DigestRow {
  act_id: string;
  acts_count: number;
  acts_sha256: string;
  transfers_count: number;
  transfers_sha256: string;
  history_count: number;
  history_sha256: string;
}

const digestColumns = `a.count as acts_count, encode(a.sha256, 'hex') as acts_sha256,
  t.count as transfers_count, encode(t.sha256, 'hex') as transfers_sha256,
  h.count as history_count, encode(h.sha256, 'hex') as history_sha256`;

const coveredOf = (row: DigestRow): Record<'acts' | 'transfers' | 'history', Covered> => ({
  acts: { count: row.acts_count, sha256: row.acts_sha256 },
  transfers: { count: row.transfers_count, sha256: row.transfers_sha256 },
  history: { count: row.history_count, sha256: row.history_sha256 },
});

/**
 * All rows of each act. A statement of its own after `takeUnsealed`: its snapshot then has the rows of every transaction
 * that ended before the act could be taken.
 */
export async function digestActs(
  tx: Tx,
  merchantId: number,
  actIds: readonly string[],
): Promise<Map<string, Record<'acts' | 'transfers' | 'history', Covered>>> {
  const rows = await tx.query<DigestRow>(
    `select act.id as act_id, ${digestColumns} from unnest($2::uuid[]) as act(id) ${digests('act.id')}`,
    [merchantId, actIds],
  );
  return new Map(rows.map((row) => [row.act_id, coveredOf(row)]));
}

/** Appends the entries and moves the head to the last of them. */
export async function appendEntries(tx: Tx, entries: readonly Entry[], head: Entry): Promise<void> {
  await tx.run(
    `with appended as (
       insert into audit_log (merchant_id, month, no, act_id, kind, actor, at, sealed_at, acts_count, acts_sha256,
                              transfers_count, transfers_sha256, history_count, history_sha256, previous, hash)
       select $1, e.month, e.no, e.act_id, e.kind, e.actor, e.at, e.sealed_at, e.acts_count, decode(e.acts_sha256, 'hex'),
              e.transfers_count, decode(e.transfers_sha256, 'hex'), e.history_count, decode(e.history_sha256, 'hex'),
              decode(e.previous, 'hex'), decode(e.hash, 'hex')
       from unnest($5::date[], $6::bigint[], $7::uuid[], $8::text[], $9::text[], $10::timestamptz[], $11::timestamptz[],
                   $12::int[], $13::text[], $14::int[], $15::text[], $16::int[], $17::text[], $18::text[], $19::text[])
         as e(month, no, act_id, kind, actor, at, sealed_at, acts_count, acts_sha256, transfers_count, transfers_sha256,
              history_count, history_sha256, previous, hash)
     )
     update audit_heads set month = $2::date, no = $3, hash = decode($4, 'hex') where merchant_id = $1`,
    [
      head.merchantId,
      head.month,
      head.no,
      head.hash,
      entries.map((entry) => entry.month),
      entries.map((entry) => entry.no),
      entries.map((entry) => entry.actId),
      entries.map((entry) => entry.kind),
      entries.map((entry) => entry.actor),
      entries.map((entry) => entry.at),
      entries.map((entry) => entry.sealedAt),
      entries.map((entry) => entry.acts.count),
      entries.map((entry) => entry.acts.sha256),
      entries.map((entry) => entry.transfers.count),
      entries.map((entry) => entry.transfers.sha256),
      entries.map((entry) => entry.history.count),
      entries.map((entry) => entry.history.sha256),
      entries.map((entry) => entry.previous),
      entries.map((entry) => entry.hash),
    ],
  );
}

/** Where an entry stands. A number stands twice only where somebody has meddled. */
export interface Place {
  no: number;
  /** YYYY-MM-DD */
  month: string;
}

type EntryRow = DigestRow & {
  month: string;
  no: number;
  kind: string;
  actor: string;
  at: string;
  sealed_at: string;
  previous: string;
  hash: string;
};

const entryColumns = `month, no, act_id, kind, actor, at, sealed_at, acts_count, encode(acts_sha256, 'hex') as acts_sha256,
  transfers_count, encode(transfers_sha256, 'hex') as transfers_sha256,
  history_count, encode(history_sha256, 'hex') as history_sha256,
  encode(previous, 'hex') as previous, encode(hash, 'hex') as hash`;

const entryOf =
  (merchantId: number) =>
  (row: EntryRow): Entry => ({
    merchantId,
    month: row.month,
    no: row.no,
    actId: row.act_id,
    kind: row.kind,
    actor: row.actor,
    at: row.at,
    sealedAt: row.sealed_at,
    ...coveredOf(row),
    previous: row.previous,
    hash: row.hash,
  });

/** The next entries in the order of their numbers; of months from `from` on. */
export async function entriesAfter(
  db: Pick<Db, 'query'>,
  merchantId: number,
  after: Place,
  from: string,
  atMost: number,
): Promise<Entry[]> {
  const rows = await db.query<EntryRow>(
    `select ${entryColumns} from audit_log
     where merchant_id = $1 and (no, month) > ($2, $3::date) and month >= $4::date
     order by no, month limit $5`,
    [merchantId, after.no, after.month, from, atMost],
  );
  return rows.map(entryOf(merchantId));
}

/** The newest first. */
export async function lastEntries(
  db: Pick<Db, 'query'>,
  merchantId: number,
  atMost: number,
): Promise<Entry[]> {
  const rows = await db.query<EntryRow>(
    `select ${entryColumns} from audit_log where merchant_id = $1 order by no desc, month desc limit $2`,
    [merchantId, atMost],
  );
  return rows.map(entryOf(merchantId));
}

/** Hashes of all entries with this number: one, where nobody has meddled. */
export async function hashesAt(db: Pick<Db, 'query'>, merchantId: number, no: number): Promise<string[]> {
  const rows = await db.query<{ hash: string }>(
    `select encode(hash, 'hex') as hash from audit_log where merchant_id = $1 and no = $2`,
    [merchantId, no],
  );
  return rows.map((row) => row.hash);
}

/** The head beside the last entry, of one snapshot. */
export async function headAndLast(
  db: Pick<Db, 'query'>,
  merchantId: number,
): Promise<{ head: ChainHead; last: ChainHead }> {
  const [row] = await db.query<
    Record<'head_no' | 'last_no', number> & Record<'head_hash' | 'last_hash', string>
  >(
    `select coalesce(h.no, 0) as head_no, coalesce(encode(h.hash, 'hex'), $2) as head_hash,
            coalesce(l.no, 0) as last_no, coalesce(encode(l.hash, 'hex'), $2) as last_hash
     from (select 1) as one
     left join audit_heads h on h.merchant_id = $1
     left join lateral (
       select no, hash from audit_log where merchant_id = $1 order by no desc, month desc limit 1
     ) l on true`,
    [merchantId, emptyChain.hash],
  );
  return {
    head: { no: row?.head_no ?? 0, hash: row?.head_hash ?? '' },
    last: { no: row?.last_no ?? 0, hash: row?.last_hash ?? '' },
  };
}

export interface Differing {
  no: number;
  table: CoveredTable;
  act_id: string;
  actor: string;
  at: string;
  /** Rows when it was sealed, and rows now. */
  sealed: number;
  present: number;
}

/**
 * Acts whose rows are not what the newest entry says, among the entries after a number and up to another. Acts that wait to be
 * sealed again are left out. `from`: acts of earlier months are not looked at.
 */
export async function differingActs(
  db: Pick<Db, 'query'>,
  merchantId: number,
  range: { after: number; upTo: number; from: string },
): Promise<Differing[]> {
  return db.query<Differing>(
    `with newest as materialized (
       select l.* from audit_log l
       where l.merchant_id = $1 and l.no > $2 and l.no <= $3
         and l.at >= $4::date::timestamp at time zone 'UTC'
         and not exists (
           select from audit_log later
           where later.merchant_id = l.merchant_id and later.act_id = l.act_id and later.no > l.no
         )
         and not exists (
           select from unsealed_acts u where u.merchant_id = l.merchant_id and u.act_id = l.act_id
         )
     )
     select e.no, d."table", e.act_id, e.actor, e.at, d.sealed, d.present
     from newest e ${digests('e.act_id')}
     cross join lateral (values
       ('acts', e.acts_count, a.count, e.acts_sha256 <> a.sha256),
       ('transfers', e.transfers_count, t.count, e.transfers_sha256 <> t.sha256),
       ('state_history', e.history_count, h.count, e.history_sha256 <> h.sha256)
     ) as d("table", sealed, present, differs)
     where d.differs
     order by e.no, d."table"`,
    [merchantId, range.after, range.upTo, range.from],
  );
}

export interface SealedOtherwise {
  no: number;
  act_id: string;
  actor: string;
  at: string;
  earlier_no: number;
}

/** Acts only get more rows: entries after which an earlier one of the same act has as many rows of a table and another digest. */
export async function sealedOtherwise(
  db: Pick<Db, 'query'>,
  merchantId: number,
  range: { after: number; upTo: number },
): Promise<SealedOtherwise[]> {
  return db.query<SealedOtherwise>(
    `select l.no, l.act_id, l.actor, l.at, max(earlier.no) as earlier_no
     from audit_log l
     join audit_log earlier
       on earlier.merchant_id = l.merchant_id and earlier.act_id = l.act_id and earlier.no < l.no
     where l.merchant_id = $1 and l.no > $2 and l.no <= $3
       and ((earlier.acts_count >= l.acts_count and earlier.acts_sha256 <> l.acts_sha256)
         or (earlier.transfers_count >= l.transfers_count and earlier.transfers_sha256 <> l.transfers_sha256)
         or (earlier.history_count >= l.history_count and earlier.history_sha256 <> l.history_sha256))
     group by l.no, l.act_id, l.actor, l.at
     order by l.no`,
    [merchantId, range.after, range.upTo],
  );
}

/** Up to ten rows that an act has now, by their keys. */
export async function presentRows(
  db: Pick<Db, 'query'>,
  merchantId: number,
  table: CoveredTable,
  actId: string,
): Promise<string[]> {
  const { act, key } = covered[table];
  const shown = key.filter((column) => column !== 'month').map((column) => `${column}::text`);
  const rows = await db.query<{ subject: string }>(
    `select concat_ws(' ', ${shown.join(', ')}) as subject from ${table}
     where merchant_id = $1 and ${act} = $2::uuid order by 1 limit 10`,
    [merchantId, actId],
  );
  return rows.map((row) => row.subject);
}

export interface RowsWithoutEntry {
  table: CoveredTable;
  act_id: string;
  rows: number;
}

/** Rows whose act was neither sealed nor waits to be: they did not come by this program. Of months from `from` on. */
export async function rowsWithoutEntry(
  db: Pick<Db, 'query'>,
  merchantId: number,
  from: string,
  atMost: number,
): Promise<RowsWithoutEntry[]> {
  const strangers = (Object.keys(covered) as CoveredTable[]).map(
    (table) => `
    select '${table}' as "table", x.${covered[table].act} as act_id, count(*)::int as rows
    from ${table} x
    where x.merchant_id = $1 and x.month >= $2::date
      and not exists (select from audit_log l where l.merchant_id = x.merchant_id and l.act_id = x.${covered[table].act})
      and not exists (select from unsealed_acts u where u.merchant_id = x.merchant_id and u.act_id = x.${covered[table].act})
    group by x.${covered[table].act}`,
  );
  return db.query<RowsWithoutEntry>(`${strangers.join(' union all ')} order by 1, 2 limit $3`, [
    merchantId,
    from,
    atMost,
  ]);
}

export interface UnsealedTooLong {
  merchant_id: number;
  acts: number;
  /** Of the one that waits longest. */
  at: string;
}

/** Merchants with acts that should have been sealed by `until`; of one merchant where it is given. */
export async function unsealedTooLong(
  db: Pick<Db, 'query'>,
  until: Temporal.Instant,
  merchantId: number | null,
): Promise<UnsealedTooLong[]> {
  return db.query<UnsealedTooLong>(
    `select merchant_id, count(*)::int as acts, min(at) as at from unsealed_acts
     where at < $1::timestamptz and ($2::int is null or merchant_id = $2)
     group by merchant_id order by merchant_id`,
    [instantText(until), merchantId],
  );
}
