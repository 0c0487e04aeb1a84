import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { referenceOf } from '../ids.ts';
import { payoutsUntold } from '../payouts/queries.ts';
import { holdingResults } from '../reconciliation/findings.ts';
import type {
  AdjustmentLine,
  EnrolmentLine,
  OutwardKind,
  ReceiptFile,
  ReceiptLine,
  ResultLine,
  SettlementFileLine,
  UnreachedLine,
} from './outward.ts';

const batchRows = 2_000;

export interface ReceiptDue {
  id: string;
  kind: string;
  state: 'released' | 'refused';
}

/** Input files that are settled and have no receipt yet, oldest first. */
export async function receiptsDue(db: Pick<Db, 'query'>, merchantId: number): Promise<ReceiptDue[]> {
  return db.query<ReceiptDue>(
    `select f.id, f.kind, f.state
     from billing_files f
     where f.merchant_id = $1 and f.state in ('released', 'refused')
       and not exists (
         select from outward_files o
         where o.merchant_id = f.merchant_id and o.input_file_id = f.id and o.kind = 'receipt'
       )
     order by f.settled_at, f.id`,
    [merchantId],
  );
}

/** The F record of a receipt; undefined when another transaction has written the receipt since. */
export async function receiptFileOf(
  tx: Tx,
  merchantId: number,
  fileId: string,
): Promise<ReceiptFile | undefined> {
  const rows = await tx.query<ReceiptFile>(
    `select f.name as "inputName", f.sha256, f.state, f.settings_version as "settingsVersion",
            f.file_code as "fileCode",
            coalesce(f.lines_read, 0) as "linesRead", coalesce(f.lines_accepted, 0) as "linesAccepted",
            coalesce(f.amount_accepted, 0) as "amountAccepted", coalesce(f.lines_rejected, 0) as "linesRejected"
     from billing_files f
     where f.merchant_id = $1 and f.id = $2::uuid and f.state in ('released', 'refused')
       and not exists (
         select from outward_files o
         where o.merchant_id = f.merchant_id and o.input_file_id = f.id and o.kind = 'receipt'
       )`,
    [merchantId, fileId],
  );
  return rows[0];
}

export async function countFindings(tx: Tx, merchantId: number, fileId: string): Promise<number> {
  const rows = await tx.query<{ findings: number }>(
    `select count(*) as findings from line_findings where merchant_id = $1 and file_id = $2::uuid`,
    [merchantId, fileId],
  );
  return rows[0]?.findings ?? 0;
}

/** In the order of the file; what refuses a line stands before what warns. */
export function receiptLines(tx: Tx, merchantId: number, fileId: string): AsyncIterable<ReceiptLine[]> {
  return tx.cursor<ReceiptLine>(
    `select line_no as line, billing_number as "billingNumber", severity, code, field
     from line_findings
     where merchant_id = $1 and file_id = $2::uuid
     order by line_no, severity, code`,
    [merchantId, fileId],
    batchRows,
  );
}

export interface NewOutwardFile {
  id: string;
  kind: OutwardKind;
  sequence: number;
  name: string;
  businessDate: string;
  inputFileId: string | null;
  /** In a layout of the merchant's own, not in `standard/1`. */
  ownLayout: boolean;
  /** Of a settlement, as the gateway calls it. */
  payout: string | null;
}

/** Rows point at their file, so it stands before its size and digest are known; `closeOutwardFile` sets them in the same transaction. */
export async function openOutwardFile(tx: Tx, act: Act, file: NewOutwardFile): Promise<void> {
  await tx.run(
    `insert into outward_files (merchant_id, id, kind, sequence, name, business_date, input_file_id, records, sum,
                                sha256, size_bytes, state, frozen_at, own_layout, payout_id)
     values ($1, $2::uuid, $3, $4, $5, $6::date, $7::uuid, 0, 0, '', 0, 'frozen', $8::timestamptz, $9, $10)`,
    [
      act.merchantId,
      file.id,
      file.kind,
      file.sequence,
      file.name,
      file.businessDate,
      file.inputFileId,
      instantText(act.at),
      file.ownLayout,
      file.payout,
    ],
  );
}

export async function insertPart(
  tx: Tx,
  merchantId: number,
  fileId: string,
  partNo: number,
  content: Buffer,
): Promise<void> {
  await tx.run(
    `insert into outward_file_parts (merchant_id, file_id, part_no, content) values ($1, $2::uuid, $3, $4)`,
    [merchantId, fileId, partNo, content],
    { name: 'insert_outward_part' },
  );
}

export async function closeOutwardFile(
  tx: Tx,
  act: Act,
  file: { id: string; records: number; sum: number; sha256: string; sizeBytes: number },
): Promise<void> {
  await tx.run(
    `with closed as (
       update outward_files set records = $3, sum = $4, sha256 = $5, size_bytes = $6
       where merchant_id = $1 and id = $2::uuid
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'outward_file', id, 1, null, 'frozen', $8::timestamptz, $9::uuid from closed`,
    [
      act.merchantId,
      file.id,
      file.records,
      file.sum,
      file.sha256,
      file.sizeBytes,
      monthOf(act.at),
      instantText(act.at),
      act.id,
    ],
  );
}

/** Charges of open bills that nobody knows the outcome of: `unknown`, or past the time when their call had to start. */
const outcomeUnknown = `
  collection_locks k
  join charges c on c.merchant_id = k.merchant_id and c.id = k.charge_id
  join invoices i on i.merchant_id = k.merchant_id and i.id = k.invoice_id
  left join payment_methods p on p.merchant_id = c.merchant_id and p.id = c.payment_method_id
  where k.merchant_id = $1 and i.state in ('open', 'parked')
    and (c.state = 'unknown' or (c.state = 'processing' and c.deadline_at < $2::timestamptz))
    and not exists (
      select from result_rows r
      where r.merchant_id = k.merchant_id and r.invoice_id = k.invoice_id and r.outcome = 'pending'
        and r.cause_id = k.charge_id
    )`;

/** One `pending` row for each such charge, once: it is never reported as failed. */
export async function addPendingRows(tx: Tx, merchantId: number, at: Temporal.Instant): Promise<number> {
  return tx.run(
    `insert into result_rows (merchant_id, invoice_id, outcome, cause_id, reason, method, amount, amount_received, known_at)
     select $1, k.invoice_id, 'pending', k.charge_id, '',
            case p.kind when 'card' then 'card' when 'bank' then 'debit' else '' end, i.amount, 0, $2::timestamptz
     from ${outcomeUnknown}
     on conflict do nothing`,
    [merchantId, instantText(at)],
  );
}

/**
 * Bills of which a finding says that the gateway has it otherwise: what they ended as is not told before that is settled.
 * A `pending` row says only that an outcome is not known, and goes out.
 */
const inDispute = `
  select distinct invoice_id from findings
  where merchant_id = $1 and state = 'open' and invoice_id is not null
    and kind in (${holdingResults.map((kind) => `'${kind}'`).join(', ')})`;

const mayBeTold = `(d.invoice_id is null or r.outcome = 'pending')`;

/** Input files with a bill among the result rows that are in no file yet and may be told. */
export async function filesTouched(
  tx: Tx,
  merchantId: number,
): Promise<{ file_id: string; settings_version: number }[]> {
  return tx.query<{ file_id: string; settings_version: number }>(
    `select distinct i.file_id, f.settings_version
     from result_rows r
     join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
     left join (${inDispute}) d on d.invoice_id = r.invoice_id
     where r.merchant_id = $1 and r.outward_file_id is null and ${mayBeTold}
     order by i.file_id`,
    [merchantId],
  );
}

export interface Claimed {
  records: number;
  sum: number;
}

/**
 * Claims by "not yet in a file", never by time. Rows of input files that do not close stay behind, and those in dispute. The update does not say
 * "not yet in a file" again: the snapshot holds, and the small partial index for it would be read once for every row.
 */
export async function claimResultRows(
  tx: Tx,
  merchantId: number,
  fileId: string,
  withoutInputFiles: readonly string[],
): Promise<Claimed> {
  const rows = await tx.query<Claimed>(
    `with picked as (
       select r.invoice_id, r.outcome, r.cause_id,
              row_number() over (order by r.known_at, r.outcome <> 'pending', i.payment_number, r.outcome, r.cause_id)
                as row_no
       from result_rows r
       join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
       left join (${inDispute}) d on d.invoice_id = r.invoice_id
       where r.merchant_id = $1 and r.outward_file_id is null and i.file_id <> all($3::uuid[]) and ${mayBeTold}
     ), claimed as (
       update result_rows r set outward_file_id = $2::uuid, row_no = p.row_no
       from picked p
       where r.merchant_id = $1 and r.invoice_id = p.invoice_id and r.outcome = p.outcome and r.cause_id = p.cause_id
       returning r.amount
     )
     select count(*) as records, coalesce(sum(amount), 0)::bigint as sum from claimed`,
    [merchantId, fileId, withoutInputFiles],
  );
  return rows[0] ?? { records: 0, sum: 0 };
}

/** Wall clock and offset of an instant: the offset is written here once for 2,000 rows, not looked up for each. */
const local = (column: string, zone: string): string =>
  `to_char(${column} at time zone ${zone}, 'YYYY-MM-DD"T"HH24:MI:SS') as local_at,
   (extract(epoch from (${column} at time zone ${zone}) - (${column} at time zone 'UTC')) / 60)::int as offset_minutes`;

interface LocalInstant {
  local_at: string;
  offset_minutes: number;
}

function withOffset({ local_at, offset_minutes }: LocalInstant): string {
  const size = Math.abs(offset_minutes);
  const hours = String(Math.floor(size / 60)).padStart(2, '0');
  const minutes = String(size % 60).padStart(2, '0');
  return `${local_at}${offset_minutes < 0 ? '-' : '+'}${hours}:${minutes}`;
}

/**
 * Rows of a file in their order, page by page: what a file has claimed does not change, so that no transaction need be open
 * between two pages.
 */
async function* pages<Row extends { row_no: number }>(
  read: (after: number) => Promise<Row[]>,
): AsyncIterable<Omit<Row, 'row_no'>[]> {
  for (let after = 0; ; ) {
    const rows = await read(after);
    const last = rows.at(-1);
    if (last === undefined) return;
    after = last.row_no;
    yield rows.map(({ row_no: _, ...row }) => row);
    if (rows.length < batchRows) return;
  }
}

export async function* resultLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  timezone: string,
): AsyncIterable<ResultLine[]> {
  const batches = pages((after) =>
    tx.query<
      LocalInstant & Omit<ResultLine, 'knownAt' | 'reference'> & { cause_id: string } & { row_no: number }
    >(
      `select r.row_no, i.billing_number as "billingNumber", u.customer_number as "customerNumber", r.outcome, r.reason, r.method,
            r.amount, r.amount_received as "amountReceived", r.collected_on as "collectedOn", r.cause_id,
            ${local('r.known_at', '$3')}
     from result_rows r
     join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
     join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
     where r.merchant_id = $1 and r.outward_file_id = $2::uuid
     and r.row_no > $4
     order by r.row_no limit $5`,
      [merchantId, fileId, timezone, after, batchRows],
    ),
  );
  for await (const rows of batches) {
    yield rows.map((row) => ({ ...row, knownAt: withOffset(row), reference: referenceOf(row.cause_id) }));
  }
}

export async function claimEnrolmentRows(tx: Tx, merchantId: number, fileId: string): Promise<number> {
  return tx.run(
    `update enrolment_rows r set outward_file_id = $2::uuid, row_no = p.row_no
     from (
       select enrolment_id, what, row_number() over (order by occurred_at, enrolment_id, what) as row_no
       from enrolment_rows where merchant_id = $1 and outward_file_id is null
     ) p
     where r.merchant_id = $1 and r.enrolment_id = p.enrolment_id and r.what = p.what`,
    [merchantId, fileId],
  );
}

export async function* enrolmentLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  timezone: string,
): AsyncIterable<EnrolmentLine[]> {
  const batches = pages((after) =>
    tx.query<
      LocalInstant &
        Omit<EnrolmentLine, 'occurredAt' | 'reference'> & { enrolment_id: string } & { row_no: number }
    >(
      `select r.row_no, u.customer_number as "customerNumber", r.what, r.method, r.enrolment_id, ${local('r.occurred_at', '$3')}
     from enrolment_rows r
     join customers u on u.merchant_id = r.merchant_id and u.id = r.customer_id
     where r.merchant_id = $1 and r.outward_file_id = $2::uuid
     and r.row_no > $4
     order by r.row_no limit $5`,
      [merchantId, fileId, timezone, after, batchRows],
    ),
  );
  for await (const rows of batches) {
    yield rows.map((row) => ({
      ...row,
      occurredAt: withOffset(row),
      reference: referenceOf(row.enrolment_id),
    }));
  }
}

export async function claimUnreachedRows(tx: Tx, merchantId: number, fileId: string): Promise<number> {
  return tx.run(
    `update unreached_rows r set outward_file_id = $2::uuid, row_no = p.row_no
     from (
       select u.invoice_id, row_number() over (order by u.occurred_at, i.payment_number) as row_no
       from unreached_rows u join invoices i on i.merchant_id = u.merchant_id and i.id = u.invoice_id
       where u.merchant_id = $1 and u.outward_file_id is null
     ) p
     where r.merchant_id = $1 and r.invoice_id = p.invoice_id`,
    [merchantId, fileId],
  );
}

export async function* unreachedLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  timezone: string,
): AsyncIterable<UnreachedLine[]> {
  const batches = pages((after) =>
    tx.query<LocalInstant & Omit<UnreachedLine, 'occurredAt'> & { row_no: number }>(
      `select r.row_no, i.billing_number as "billingNumber", u.customer_number as "customerNumber", r.reason as cause,
            r.disposition, coalesce(r.barcode, '') as barcode, ${local('r.occurred_at', '$3')}
     from unreached_rows r
     join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
     join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
     where r.merchant_id = $1 and r.outward_file_id = $2::uuid
     and r.row_no > $4
     order by r.row_no limit $5`,
      [merchantId, fileId, timezone, after, batchRows],
    ),
  );
  for await (const rows of batches) yield rows.map((row) => ({ ...row, occurredAt: withOffset(row) }));
}

/**
 * What happened after a final result that the merchant has: never before it. Of a bill whose final row waits, the
 * adjustment waits too.
 */
const adjustmentsDue = `
  adjustment_rows a
  where a.merchant_id = $1 and a.outward_file_id is null
    and exists (select from result_rows r
                where r.merchant_id = a.merchant_id and r.invoice_id = a.invoice_id
                  and r.outcome in ('paid', 'unpaid', 'cancelled') and r.outward_file_id is not null)`;

/** How many a file would claim now. */
export async function countAdjustments(tx: Pick<Tx, 'query'>, merchantId: number): Promise<number> {
  const rows = await tx.query<{ due: number }>(`select count(*) as due from ${adjustmentsDue}`, [merchantId]);
  return rows[0]?.due ?? 0;
}

/** Claims them with the numbers after `numberBase`. The sum is signed. */
export async function claimAdjustmentRows(
  tx: Tx,
  merchantId: number,
  fileId: string,
  numberBase: number,
): Promise<Claimed> {
  const rows = await tx.query<Claimed>(
    `with picked as (
       select a.cause_id, a.kind, row_number() over (order by a.known_at, a.cause_id, a.kind) as row_no
       from ${adjustmentsDue}
     ), claimed as (
       update adjustment_rows a set outward_file_id = $2::uuid, row_no = p.row_no, number = $3 + p.row_no
       from picked p
       where a.merchant_id = $1 and a.cause_id = p.cause_id and a.kind = p.kind
       returning case a.sign when '-' then -a.amount else a.amount end as amount
     )
     select count(*) as records, coalesce(sum(amount), 0)::bigint as sum from claimed`,
    [merchantId, fileId, numberBase],
  );
  return rows[0] ?? { records: 0, sum: 0 };
}

export async function* adjustmentLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  timezone: string,
): AsyncIterable<AdjustmentLine[]> {
  const batches = pages((after) =>
    tx.query<
      LocalInstant & Omit<AdjustmentLine, 'knownAt' | 'reference'> & { cause_id: string } & { row_no: number }
    >(
      `select a.row_no, a.number, i.billing_number as "billingNumber", a.kind, a.amount, a.sign, a.collected_on as "collectedOn",
            a.cause_id, ${local('a.known_at', '$3')}
     from adjustment_rows a
     join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
     where a.merchant_id = $1 and a.outward_file_id = $2::uuid
     and a.row_no > $4
     order by a.row_no limit $5`,
      [merchantId, fileId, timezone, after, batchRows],
    ),
  );
  for await (const rows of batches) {
    yield rows.map((row) => ({ ...row, knownAt: withOffset(row), reference: referenceOf(row.cause_id) }));
  }
}

/** The lines of a payout with the bills that they are for, as the gateway listed them. */
export function settlementLines(
  tx: Tx,
  merchantId: number,
  payout: string,
): AsyncIterable<SettlementFileLine[]> {
  return tx.cursor<SettlementFileLine>(
    `select i.billing_number as "billingNumber", p.method, p.collected_on as "collectedOn",
            s.gross, l.fee, l.fee_tax as "feeTax", s.gross - l.fee - l.fee_tax as net, o.payout_id as payout
     from payout_lines l
     join payouts o on o.merchant_id = l.merchant_id and o.id = l.payout_id
     join payments p on p.merchant_id = l.merchant_id and p.id = l.charge_id
     join invoices i on i.merchant_id = p.merchant_id and i.id = p.invoice_id
     cross join lateral (select case when l.kind = 'refund' then -l.amount else l.amount end as gross) s
     where l.merchant_id = $1 and l.payout_id = $2::uuid
     order by l.line_no`,
    [merchantId, payout],
    batchRows,
  );
}

export interface FreezeDue {
  receipts: number;
  result_rows: number;
  pending: number;
  enrolment_rows: number;
  unreached_rows: number;
  adjustment_rows: number;
  payouts: number;
}

/** What waits to be frozen. */
export async function freezeWaiting(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: Temporal.Instant,
): Promise<FreezeDue> {
  const rows = await db.query<FreezeDue>(
    `select (select count(*) from billing_files f
             where f.merchant_id = $1 and f.state in ('released', 'refused')
               and not exists (
                 select from outward_files o
                 where o.merchant_id = f.merchant_id and o.input_file_id = f.id and o.kind = 'receipt'
               )) as receipts,
            (select count(*) from result_rows r
             left join (${inDispute}) d on d.invoice_id = r.invoice_id
             where r.merchant_id = $1 and r.outward_file_id is null and ${mayBeTold}) as result_rows,
            (select count(*) from ${outcomeUnknown}) as pending,
            (select count(*) from enrolment_rows where merchant_id = $1 and outward_file_id is null) as enrolment_rows,
            (select count(*) from unreached_rows where merchant_id = $1 and outward_file_id is null) as unreached_rows,
            (select count(*) from ${adjustmentsDue}) as adjustment_rows,
            (select count(*) from ${payoutsUntold}) as payouts`,
    [merchantId, instantText(now)],
  );
  return (
    rows[0] ?? {
      receipts: 0,
      result_rows: 0,
      pending: 0,
      enrolment_rows: 0,
      unreached_rows: 0,
      adjustment_rows: 0,
      payouts: 0,
    }
  );
}

export interface UndeliveredFile {
  id: string;
  kind: OutwardKind;
  sequence: number;
  name: string;
  business_date: string;
  input_file_id: string | null;
  records: number;
  sum: number;
  sha256: string;
  size_bytes: number;
  frozen_at: string;
  /** Null: made before this was kept. */
  own_layout: boolean | null;
  payout_id: string | null;
  /** How many temporary names its uploads have had. */
  parts: number;
  /** The one whose rename was begun, where no person has said since that the file may be uploaded again. */
  renaming_part: number | null;
  parked: boolean;
}

/** Frozen and not delivered, in the order in which they were made. */
export async function undeliveredFiles(
  db: Pick<Db, 'query'>,
  merchantId: number,
): Promise<UndeliveredFile[]> {
  return db.query<UndeliveredFile>(
    `select o.id, o.kind, o.sequence, o.name, o.business_date, o.input_file_id, o.records, o.sum, o.sha256, o.size_bytes,
            o.frozen_at, o.own_layout, o.payout_id, o.parts,
            case when not exists (
              select from parked_items p
              where p.merchant_id = o.merchant_id and p.subject = 'file' and p.subject_id = o.id::text
                and p.resolved_at > o.renaming_at
            ) then o.renaming_part end as renaming_part,
            exists (
              select from parked_items p
              where p.merchant_id = o.merchant_id and p.subject = 'file' and p.subject_id = o.id::text
                and p.resolved_at is null
            ) as parked
     from outward_files o
     where o.merchant_id = $1 and o.state = 'frozen'
     order by o.frozen_at, o.kind, o.sequence`,
    [merchantId],
  );
}

/** The file's bytes, part by part, each read by itself: no transaction is open while they are sent. */
export async function* outwardContent(
  db: Pick<Db, 'query'>,
  merchantId: number,
  fileId: string,
): AsyncIterable<Buffer> {
  for (let partNo = 0; ; partNo++) {
    const rows = await db.query<{ content: Buffer }>(
      `select content from outward_file_parts where merchant_id = $1 and file_id = $2::uuid and part_no = $3`,
      [merchantId, fileId, partNo],
    );
    const part = rows[0];
    if (part === undefined) return;
    yield part.content;
  }
}

/** A number for a temporary name that no upload of the file had before; undefined: it is delivered. */
export async function nextPart(tx: Tx, merchantId: number, fileId: string): Promise<number | undefined> {
  const [row] = await tx.query<{ parts: number }>(
    `update outward_files set parts = parts + 1 where merchant_id = $1 and id = $2::uuid and state = 'frozen' returning parts`,
    [merchantId, fileId],
  );
  return row?.parts;
}

/** The intent to make the file visible from its temporary name, committed before the rename. False: it is delivered. */
export async function markRenaming(tx: Tx, act: Act, fileId: string, part: number): Promise<boolean> {
  const marked = await tx.run(
    `update outward_files set renaming_at = $3::timestamptz, renaming_part = $4, parts = greatest(parts, $4)
     where merchant_id = $1 and id = $2::uuid and state = 'frozen'`,
    [act.merchantId, fileId, instantText(act.at), part],
  );
  return marked === 1;
}

/** By compare-and-set: false = another process has marked it. */
export async function markDelivered(tx: Tx, act: Act, fileId: string): Promise<boolean> {
  const rows = await tx.query(
    `with delivered as (
       update outward_files set state = 'delivered', delivered_at = $3::timestamptz, version = version + 1
       where merchant_id = $1 and id = $2::uuid and state = 'frozen'
       returning id, version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $4::date, 'outward_file', id, version, 'frozen', 'delivered', $3::timestamptz, $5::uuid from delivered
     returning subject_id`,
    [act.merchantId, fileId, instantText(act.at), monthOf(act.at), act.id],
  );
  return rows.length === 1;
}

/**
 * SQL of since when a frozen file waits. One that is delivered again waits from when that was asked for: the few of them are
 * looked up in their history, which no index knows by subject.
 */
export const waitsSince = (file: string): string =>
  `case when ${file}.version = 1 then ${file}.frozen_at
        else (select max(h.at) from state_history h
              where h.merchant_id = ${file}.merchant_id and h.subject = 'outward_file' and h.subject_id = ${file}.id) end`;

/**
 * A delivered file is to be put on the merchant's server once more, with the bytes that were kept. False: it is not
 * delivered.
 */
export async function deliverAgain(tx: Tx, act: Act, name: string): Promise<boolean> {
  const rows = await tx.query(
    `with again as (
       update outward_files set state = 'frozen', renaming_at = null, renaming_part = null, delivered_at = null, version = version + 1
       where merchant_id = $1 and name = $2 and state = 'delivered'
         -- Asked twice, a bank may debit twice.
         and kind <> 'debit'
       returning id, version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $3::date, 'outward_file', id, version, 'delivered', 'frozen', $4::timestamptz, $5::uuid from again
     returning subject_id`,
    [act.merchantId, name, monthOf(act.at), instantText(act.at), act.id],
  );
  return rows.length === 1;
}
