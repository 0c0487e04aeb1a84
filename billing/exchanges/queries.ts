import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { AgendaAct } from '../invoices/invoice.ts';
import { events } from '../ledger/ledger.ts';
import { closingMonth, ledgerHead } from '../ledger/queries.ts';
import { type BillingFile, type FileState, type Finding, statesBefore } from './file.ts';

const fileColumns = `id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout, settings_version, state,
  file_code, business_date, sequence, lines_read, lines_accepted, lines_rejected, amount_accepted, amount_trailer,
  lines_staged, customers_to_record, bills_to_record, loaded_to_record, waived`;

/** What was taken in goes up to here without a gap, or with gaps that a person has set aside. */
const highestSequenceOf = `
  select coalesce(max(g.sequence), 0) from billing_files g where g.merchant_id = $1 and g.state in ('loading', 'released')`;

export interface NewFile {
  id: string;
  name: string;
  kind: string;
  sha256: string;
  sizeBytes: number;
  checksumMatches: boolean;
  archivePath: string;
  layout: string;
  settingsVersion: number;
  fetchedOn: string;
}

/**
 * Registers a file once: while the removal of the same name and bytes is unfinished, or was finished by another worker
 * after we listed the folder, this is that very file. True if it is new.
 */
export async function insertFile(
  tx: Tx,
  act: Act,
  file: NewFile,
  at: Temporal.Instant,
  listedAt: Temporal.Instant,
): Promise<boolean> {
  const written = await tx.run(
    `with new as (
       insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
                                  settings_version, state, fetched_on, fetched_at)
       select $1, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10, 'fetched', $11::date, $12::timestamptz
       where not exists (select from billing_files
                         where merchant_id = $1 and name = $3 and sha256 = $5 and removed_at > $13::timestamptz)
       on conflict (merchant_id, name, sha256) where removed_at is null do nothing
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $14::date, 'file', id, 1, null, 'fetched', $12::timestamptz, $15::uuid from new`,
    [
      act.merchantId,
      file.id,
      file.name,
      file.kind,
      file.sha256,
      file.sizeBytes,
      file.checksumMatches,
      file.archivePath,
      file.layout,
      file.settingsVersion,
      file.fetchedOn,
      instantText(at),
      instantText(listedAt),
      monthOf(act.at),
      act.id,
    ],
  );
  return written === 1;
}

/**
 * The same bytes that were refused for their control file, now with a right one: this is another file, also where the
 * server never let the first be removed.
 */
export async function endRefusedRemoval(
  tx: Tx,
  merchantId: number,
  file: { name: string; sha256: string },
  listedAt: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `update billing_files set removed_at = greatest(fetched_at, $4::timestamptz)
     where merchant_id = $1 and name = $2 and sha256 = $3 and removed_at is null
       and state = 'refused' and file_code = 'F_CHECKSUM' and fetched_at <= $4::timestamptz`,
    [merchantId, file.name, file.sha256, instantText(listedAt)],
  );
}

export interface UnfinishedRemoval {
  id: string;
  name: string;
  sha256: string;
  size_bytes: number;
}

/** Files that are ours and still lie, as far as we know, in the merchant's folder. */
export async function unfinishedRemovals(
  db: Pick<Db, 'query'>,
  merchantId: number,
): Promise<UnfinishedRemoval[]> {
  return db.query<UnfinishedRemoval>(
    `select id, name, sha256, size_bytes from billing_files
     where merchant_id = $1 and removed_at is null order by fetched_at, id`,
    [merchantId],
  );
}

export async function markRemoved(
  tx: Tx,
  merchantId: number,
  file: { name: string; sha256: string },
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `update billing_files set removed_at = $4::timestamptz
     where merchant_id = $1 and name = $2 and sha256 = $3 and removed_at is null`,
    [merchantId, file.name, file.sha256, instantText(at)],
  );
}

/** Causes of open alerts that begin with this word. */
export async function openCausesOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  word: string,
): Promise<string[]> {
  const rows = await tx.query<{ cause: string }>(
    `select cause from alerts where merchant_id = $1 and resolved_at is null and starts_with(cause, $2 || ' ') order by cause`,
    [merchantId, word],
  );
  return rows.map((row) => row.cause);
}

/** Since when the merchant's settings have had a calendar of expected files; null = never. */
export async function calendarSince(tx: Pick<Tx, 'query'>, merchantId: number): Promise<string | null> {
  const [row] = await tx.query<{ since: string | null }>(
    `select min(applied_at) as since from merchant_settings
     where merchant_id = $1 and settings #> '{calendar,0}' is not null`,
    [merchantId],
  );
  return row?.since ?? null;
}

/** The days (YYYY-MM-DD) after `after` for which files of a kind have come: by their header, before it is read by their coming. */
export async function filesOfDays(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  kind: string,
  after: string,
): Promise<string[]> {
  const rows = await tx.query<{ day: string }>(
    `select distinct coalesce(business_date, fetched_on) as day from billing_files
     where merchant_id = $1 and kind = $2 and state <> 'refused' and coalesce(business_date, fetched_on) > $3::date`,
    [merchantId, kind, after],
  );
  return rows.map((row) => row.day);
}

/** Of these ids of archived files, the ones that the database has, taken in or made here. */
export async function archivedIds(
  db: Pick<Db, 'query'>,
  merchantId: number,
  ids: readonly string[],
): Promise<Set<string>> {
  const rows = await db.query<{ id: string }>(
    `select id from billing_files where merchant_id = $1 and id = any($2::uuid[])
     union all
     select id from outward_files where merchant_id = $1 and id = any($2::uuid[])
     union all
     select id from debit_results where merchant_id = $1 and id = any($2::uuid[])`,
    [merchantId, ids],
  );
  return new Set(rows.map((row) => row.id));
}

/** Whether a file of this name and these bytes was ever taken in. */
export async function isTakenIn(
  db: Pick<Db, 'query'>,
  merchantId: number,
  file: { name: string; sha256: string },
): Promise<boolean> {
  const rows = await db.query(
    `select 1 from billing_files where merchant_id = $1 and name = $2 and sha256 = $3 limit 1`,
    [merchantId, file.name, file.sha256],
  );
  return rows.length > 0;
}

/** Of these alert causes, the ones that were ever raised, seen to or not. */
export async function knownCauses(
  db: Pick<Db, 'query'>,
  merchantId: number,
  causes: readonly string[],
): Promise<Set<string>> {
  const rows = await db.query<{ cause: string }>(
    `select distinct cause from alerts where merchant_id = $1 and cause = any($2::text[])`,
    [merchantId, causes],
  );
  return new Set(rows.map((row) => row.cause));
}

/**
 * What ingest has to do: files begun first, then in the order in which they came. Parked ones wait for a person, and so do
 * held ones, until that person has set the reason aside or the gap before them is filled.
 */
export async function waitingFiles(db: Pick<Db, 'query'>, merchantId: number): Promise<BillingFile[]> {
  return db.query<BillingFile>(
    `select ${fileColumns} from billing_files f
     where merchant_id = $1 and state in ('fetched', 'loading', 'held')
       and case when state = 'held'
             then file_code = any(waived)
               or (file_code = 'F_SEQUENCE_GAP' and sequence <= 1 + (${highestSequenceOf}))
             else not exists (select from parked_items p
                              where p.merchant_id = f.merchant_id and p.subject = 'file' and p.subject_id = f.id::text
                                and p.resolved_at is null) end
     order by state = 'loading' desc, fetched_at, id`,
    [merchantId],
  );
}

export async function fileById(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<BillingFile> {
  const [file] = await tx.query<BillingFile>(
    `select ${fileColumns} from billing_files where merchant_id = $1 and id = $2::uuid`,
    [merchantId, fileId],
  );
  if (!file) throw new Error(`impossible state: file ${fileId} is not there`);
  return file;
}

export async function lockFile(tx: Tx, merchantId: number, fileId: string): Promise<BillingFile> {
  const [file] = await tx.query<BillingFile>(
    `select ${fileColumns} from billing_files where merchant_id = $1 and id = $2::uuid for update`,
    [merchantId, fileId],
  );
  if (!file) throw new Error(`impossible state: file ${fileId} is not there`);
  return file;
}

/** One file of a merchant at a time is decided upon: what one adds, the next must see. */
export async function lockMerchant(tx: Tx, merchantId: number): Promise<void> {
  await tx.query(`select 1 from merchants where id = $1 for no key update`, [merchantId]);
}

/** Another file of the merchant whose bills are being made, parked ones aside. */
export async function anotherLoading(tx: Tx, merchantId: number, fileId: string): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from billing_files f
     where merchant_id = $1 and state = 'loading' and id <> $2::uuid
       and not exists (select from parked_items p
                       where p.merchant_id = f.merchant_id and p.subject = 'file' and p.subject_id = f.id::text
                         and p.resolved_at is null)`,
    [merchantId, fileId],
  );
  return rows.length > 0;
}

/** A file that was loaded or is held and has this name, or these bytes and at least one record. */
export async function loadedBefore(
  db: Pick<Db, 'query'>,
  merchantId: number,
  file: { id: string; name: string; sha256: string },
): Promise<boolean> {
  const rows = await db.query(
    `select 1 from billing_files
     where merchant_id = $1 and id <> $2::uuid and state in ('loading', 'released', 'held')
       and (name = $3 or (sha256 = $4 and lines_read > 0))
     limit 1`,
    [merchantId, file.id, file.name, file.sha256],
  );
  return rows.length > 0;
}

export async function sequenceUsed(
  tx: Tx,
  merchantId: number,
  fileId: string,
  sequence: number,
): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from billing_files
     where merchant_id = $1 and id <> $2::uuid and sequence = $3 and state in ('loading', 'released', 'held')`,
    [merchantId, fileId, sequence],
  );
  return rows.length > 0;
}

/** The highest sequence number of a loaded file; 0 before the first. */
export async function highestSequence(tx: Pick<Tx, 'query'>, merchantId: number): Promise<number> {
  const [row] = await tx.query<{ highest: number }>(`select (${highestSequenceOf}) as highest`, [merchantId]);
  return row?.highest ?? 0;
}

/** The loaded billing file with the same count, total, first and last number, if there is one. */
export async function fileLike(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  content: { lines: number; total: number; first: string; last: string },
): Promise<string | undefined> {
  const [row] = await tx.query<{ name: string }>(
    `select name from billing_files
     where merchant_id = $1 and id <> $2::uuid and kind = 'billing' and state in ('loading', 'released')
       and lines_read = $3 and amount_trailer = $4 and first_number = $5 and last_number = $6
     limit 1`,
    [merchantId, fileId, content.lines, content.total, content.first, content.last],
  );
  return row?.name;
}

export interface FileNumbers {
  fileCode?: string;
  businessDate?: string | null;
  sequence?: number | null;
  linesRead?: number;
  linesAccepted?: number;
  linesRejected?: number;
  amountAccepted?: number;
  amountTrailer?: number | null;
  linesStaged?: number;
  firstNumber?: string;
  lastNumber?: string;
}

/** The one transition of files: moves it if its state allows, with a history row. True if it moved. */
export async function moveFile(
  tx: Tx,
  act: Act,
  fileId: string,
  to: FileState,
  numbers: FileNumbers = {},
): Promise<boolean> {
  const moved = await tx.run(
    `with before as (
       select id, state from billing_files where merchant_id = $1 and id = $2::uuid and state = any($4::text[]) for update
     ), moved as (
       update billing_files f
       set state = $3, version = f.version + 1,
           settled_at = case when $3 in ('released', 'refused') then $5::timestamptz else f.settled_at end,
           file_code = case when $3 in ('loading', 'released') then null else coalesce($6, f.file_code) end,
           business_date = coalesce($7::date, f.business_date),
           sequence = coalesce($8::int, f.sequence), lines_read = coalesce($9::bigint, f.lines_read),
           lines_accepted = coalesce($10::bigint, f.lines_accepted),
           lines_rejected = coalesce($11::bigint, f.lines_rejected),
           amount_accepted = coalesce($12::bigint, f.amount_accepted),
           amount_trailer = coalesce($13::bigint, f.amount_trailer),
           lines_staged = coalesce($14::bigint, f.lines_staged),
           first_number = coalesce($17, f.first_number), last_number = coalesce($18, f.last_number)
       from before b where f.merchant_id = $1 and f.id = b.id
       returning f.id, b.state as from_state, f.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $15::date, 'file', id, version, from_state, $3, $5::timestamptz, $16::uuid from moved`,
    [
      act.merchantId,
      fileId,
      to,
      statesBefore(to),
      instantText(act.at),
      numbers.fileCode ?? null,
      numbers.businessDate ?? null,
      numbers.sequence ?? null,
      numbers.linesRead ?? null,
      numbers.linesAccepted ?? null,
      numbers.linesRejected ?? null,
      numbers.amountAccepted ?? null,
      numbers.amountTrailer ?? null,
      numbers.linesStaged ?? null,
      monthOf(act.at),
      act.id,
      numbers.firstNumber ?? null,
      numbers.lastNumber ?? null,
    ],
  );
  return moved === 1;
}

export async function addFindings(
  tx: Tx,
  merchantId: number,
  fileId: string,
  findings: readonly Finding[],
): Promise<void> {
  if (findings.length === 0) return;
  await tx.run(
    `insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
     select $1, $2::uuid, f.line_no, f.code, f.severity, f.field, f.billing_number
     from unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::text[])
       as f(line_no, code, severity, field, billing_number)
     on conflict do nothing`,
    [
      merchantId,
      fileId,
      findings.map((finding) => finding.line),
      findings.map((finding) => finding.code),
      findings.map((finding) => finding.severity),
      findings.map((finding) => finding.field),
      findings.map((finding) => finding.billingNumber),
    ],
  );
}

/** Rows in COPY's text format, columns as named here. */
export async function copyStagedBills(tx: Tx, rows: AsyncIterable<string>): Promise<number> {
  return tx.copyIn(
    `copy staged_bills (merchant_id, file_id, record_no, line_no, billing_number, invoice_id, customer_id, customer_number,
                        sealed, key_id, digest, name_digest, phone_digest, phone_kind, amount, tax_rate, tax_amount,
                        billing_period, due_on, collection, description, details) from stdin`,
    rows,
  );
}

/**
 * Before a file is loaded: without statistics the planner takes a file for one line, and joins 25,000 lines with
 * 25,000 by looking at every pair.
 */
export async function countStaging(db: Pick<Db, 'run'>): Promise<void> {
  await db.run(
    `analyze staged_bills (merchant_id, file_id, record_no, customer_id, customer_number, due_on, digest)`,
  );
}

export async function emptyStaging(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(`delete from staged_bills where merchant_id = $1 and file_id = $2::uuid`, [
    merchantId,
    fileId,
  ]);
}

/** A process died between release and clearing up: lines of a file that is no longer loading are still there. */
export async function stagingLeft(db: Pick<Db, 'query'>, merchantId: number): Promise<boolean> {
  const rows = await db.query(
    `select 1 from staged_bills s
     where s.merchant_id = $1
       and not exists (select from billing_files f
                       where f.merchant_id = s.merchant_id and f.id = s.file_id and f.state = 'loading')
     limit 1`,
    [merchantId],
  );
  return rows.length > 0;
}

/** Removes such lines. */
export async function sweepStaging(db: Pick<Db, 'run'>, merchantId: number): Promise<number> {
  return db.run(
    `delete from staged_bills s
     where s.merchant_id = $1
       and not exists (select from billing_files f
                       where f.merchant_id = s.merchant_id and f.id = s.file_id and f.state = 'loading')`,
    [merchantId],
  );
}

/** Of each billing number the first line stands; the others go, with a finding. */
export async function rejectDuplicatesInFile(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(
    `with gone as (
       -- By row address: nothing is known yet of this file's size, and a join could compare all lines with all.
       delete from staged_bills where ctid = any(array(
         select ctid from (
           select ctid, row_number() over (partition by billing_number order by record_no) as place
           from staged_bills where merchant_id = $1 and file_id = $2::uuid
         ) numbered where place > 1))
       returning line_no, billing_number
     )
     insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
     select $1, $2::uuid, line_no, 'E_DUPLICATE_IN_FILE', 'rejected', 'billing_number', billing_number from gone
     on conflict do nothing`,
    [merchantId, fileId],
  );
}

/** Lines whose billing number a bill of another file has; this file's own bills are lines loaded before a crash. */
export async function rejectDuplicateBillings(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(
    `with gone as (
       delete from staged_bills s
       where s.merchant_id = $1 and s.file_id = $2::uuid
         -- A lookup by the unique index for each line, whatever the planner believes about the merchant.
         and (select i.file_id <> $2::uuid from invoices i
              where i.merchant_id = $1 and i.billing_number = s.billing_number)
       returning s.line_no, s.billing_number
     )
     insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
     select $1, $2::uuid, line_no, 'E_DUPLICATE_BILLING', 'rejected', 'billing_number', billing_number from gone
     on conflict do nothing`,
    [merchantId, fileId],
  );
}

/**
 * Lines of `standard/2` that correct a bill which cannot be replaced: unknown, final, being paid, or replaced by an earlier
 * line of the file.
 */
export async function rejectReplacing(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(
    `with wish as (
       select ctid as place_of, line_no, billing_number, details ->> 'replaces' as replaces,
              row_number() over (partition by details ->> 'replaces' order by record_no) as place
       from staged_bills
       where merchant_id = $1 and file_id = $2::uuid and details ->> 'replaces' <> ''
     ), judged as materialized (
       select w.place_of, w.line_no, w.billing_number,
              case when w.place > 1 then 'E_DUPLICATE_IN_FILE'
                   when r.id is null then 'E_UNKNOWN_BILLING'
                   when r.state not in ('open', 'parked') or r.locked then 'E_TOO_LATE' end as code
       from wish w
       left join lateral (
         select i.id, i.state,
                exists (select from collection_locks l where l.merchant_id = $1 and l.invoice_id = i.id) as locked
         from invoices i
         join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
         where i.merchant_id = $1 and i.billing_number = w.replaces
       ) r on true
     ), gone as (
       delete from staged_bills where ctid = any(array(select place_of from judged where code is not null))
     )
     insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
     select $1, $2::uuid, line_no, code, 'rejected', 'replaces', billing_number from judged where code is not null
     on conflict do nothing`,
    [merchantId, fileId],
  );
}

/** Lines that were refused when the file was first staged: what was true then decides, also where it is not any more. */
export async function rejectAsBefore(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(
    `delete from staged_bills s
     where s.merchant_id = $1 and s.file_id = $2::uuid
       and exists (select from line_findings l
                   where l.merchant_id = $1 and l.file_id = $2::uuid and l.line_no = s.line_no and l.severity = 'rejected')`,
    [merchantId, fileId],
  );
}

export interface StagedTotals {
  lines: number;
  amount: number;
}

export async function stagedTotals(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<StagedTotals> {
  const [totals] = await tx.query<StagedTotals>(
    `select count(*) as lines, coalesce(sum(amount), 0)::bigint as amount
     from staged_bills where merchant_id = $1 and file_id = $2::uuid`,
    [merchantId, fileId],
  );
  return totals as StagedTotals;
}

/** False: a crash of the server has emptied the unlogged table. */
export async function isStaged(tx: Pick<Tx, 'query'>, merchantId: number, fileId: string): Promise<boolean> {
  const [row] = await tx.query<{ staged: boolean }>(
    `select exists (select from staged_bills where merchant_id = $1 and file_id = $2::uuid) as staged`,
    [merchantId, fileId],
  );
  return row?.staged === true;
}

/** Records after `from` up to and with `to`. */
export interface RecordRange {
  merchantId: number;
  fileId: string;
  from: number;
  to: number;
}

export interface DueDate {
  due_on: string;
  lines: number;
  /** Lines of `standard/2` among them. */
  detailed: number;
}

export async function dueDatesOf(tx: Tx, range: RecordRange): Promise<DueDate[]> {
  return tx.query<DueDate>(
    `select count(*) as lines, count(details) as detailed, due_on from staged_bills
     where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4
     group by due_on order by due_on`,
    [range.merchantId, range.fileId, range.from, range.to],
  );
}

/** Takes `count` gapless numbers and returns the last one taken before. */
export async function takeNumbers(tx: Tx, merchantId: number, name: string, count: number): Promise<number> {
  const [counter] = await tx.query<{ value: number }>(
    `insert into merchant_counters (merchant_id, name, value) values ($1, $2, $3)
     on conflict (merchant_id, name) do update set value = merchant_counters.value + excluded.value
     returning value`,
    [merchantId, name, count],
  );
  return (counter?.value ?? 0) - count;
}

/** What follows from one due date, worked out once for all its bills. */
export interface DueTerms {
  dueOn: string;
  /** Null: too late to debit. */
  debitOn: string | null;
  auto: { act: AgendaAct; on: string };
  /** Of accounts that the bank debits; null: too late, or nobody debits accounts. */
  bank: { debitOn: string; act: AgendaAct; on: string } | null;
  link: { act: AgendaAct; on: string };
}

export interface IssueBills extends RecordRange {
  paymentNumberBase: number;
  businessDate: string;
  currency: string;
  layout: string;
  settingsVersion: number;
  createdAt: Temporal.Instant;
  terms: readonly DueTerms[];
  /** Lines of `standard/2` are among them. */
  detailed: boolean;
  /** The merchant has somebody who debits accounts. */
  byBank: boolean;
}

/** A line of `standard/1` is of the customer's default contract. */
const plain = { columns: '', contract: 'id = s.customer_id', into: '', values: '' };

const detailed = {
  columns: 's.details,',
  contract: `contract_number = coalesce(s.details ->> 'contract', '')`,
  into: ', usage_from, usage_to, replaces_id',
  values: `, (details ->> 'usage_from')::date, (details ->> 'usage_to')::date,
              (select r.id from invoices r where r.merchant_id = $1 and r.billing_number = details ->> 'replaces')`,
};

/**
 * Staged lines become bills, with what the receipt warns of; a line whose customer, contract or contact is not there makes
 * none. The lines are looked up one by one through primary keys (`offset 0`): of a new merchant the planner believes that
 * it has one customer, and would otherwise walk all lines once for each. Returns the bills made.
 */
export async function issueBills(tx: Tx, issue: IssueBills): Promise<number> {
  const of = issue.detailed ? detailed : plain;
  return tx.run(
    `with due as (
       select * from unnest($11::date[], $12::date[], $13::date[]) as d(due_on, card_on, bank_on)
     ), bill as materialized (
       select s.invoice_id, s.line_no, s.billing_number, $5 + row_number() over (order by s.record_no) as payment_number,
              s.customer_id, t.id as contract_id, k.version as contact_version, s.amount, s.billing_period, s.due_on,
              s.description, ${of.columns} case e.kind when 'bank' then d.bank_on else d.card_on end as debit_on,
              case
                when s.collection = 'link' then ''
                when e.id is null then case when s.collection = 'auto' then 'W_FALLBACK_LINK' else '' end
                -- The mandate stands, and there is nobody to debit by it: no fault of the line.
                when e.kind = 'bank' and not $14 then ''
                when e.name_digest <> s.name_digest then 'W_NAME_CHANGED'
                when case e.kind when 'bank' then d.bank_on else d.card_on end is null then 'W_LATE_FOR_DEBIT'
                else 'auto'
              end as decision
       from staged_bills s
       join due d on d.due_on = s.due_on
       cross join lateral (
         select version from contacts where merchant_id = $1 and customer_id = s.customer_id and digest = s.digest offset 0
       ) k
       cross join lateral (
         select id from contracts where merchant_id = $1 and ${of.contract} and customer_id = s.customer_id offset 0
       ) t
       left join lateral (
         select n.id, n.name_digest,
                (select p.kind from payment_methods p where p.merchant_id = $1 and p.id = n.payment_method_id) as kind
         from enrolments n
         where n.merchant_id = $1 and n.contract_id = t.id and n.state = 'active' and n.effective_from <= $6::date offset 0
       ) e on true
       where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4
     ), warning as (
       insert into line_findings (merchant_id, file_id, line_no, code, severity, field, billing_number)
       select $1, $2::uuid, line_no, decision, 'warning',
              case decision when 'W_NAME_CHANGED' then 'customer_name' else 'collection' end, billing_number
       from bill where decision not in ('', 'auto')
     )
     insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id, contract_id,
                           contact_version, amount, currency, billing_period, due_on, business_date, collection, debit_on,
                           description, layout, settings_version, state, version, created_at${of.into})
     select $1, invoice_id, $2::uuid, line_no, billing_number, payment_number, customer_id, contract_id, contact_version,
            amount, $7, billing_period, due_on, $6::date, case decision when 'auto' then 'auto' else 'link' end,
            case decision when 'auto' then debit_on end, description, $8, $9, 'open', 1, $10::timestamptz${of.values}
     from bill`,
    [
      issue.merchantId,
      issue.fileId,
      issue.from,
      issue.to,
      issue.paymentNumberBase,
      issue.businessDate,
      issue.currency,
      issue.layout,
      issue.settingsVersion,
      instantText(issue.createdAt),
      issue.terms.map((term) => term.dueOn),
      issue.terms.map((term) => term.debitOn),
      issue.terms.map((term) => term.bank?.debitOn ?? null),
      issue.byBank,
    ],
  );
}

const plainTaxLines = `
  select $1, invoice_id, 1, description, tax_rate, amount - tax_amount, tax_amount, $5 from staged_bills
  where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4`;

const detailedTaxLines = `
  select $1, b.invoice_id, t.no, t.description, t.rate, t.taxable, t.tax, t.issuer
  from staged_bills b
  cross join lateral (
    select 1 as no, b.description, b.tax_rate as rate, b.amount - b.tax_amount as taxable, b.tax_amount as tax,
           $5::text as issuer
    where coalesce(jsonb_array_length(b.details -> 'lines'), 0) = 0
    union all
    select l.no::int, l.line ->> 0, (l.line ->> 2)::smallint, (l.line ->> 1)::bigint, (l.line ->> 3)::bigint,
           coalesce(l.line ->> 4, $5::text)
    from jsonb_array_elements(b.details -> 'lines') with ordinality as l(line, no)
  ) t
  where b.merchant_id = $1 and b.file_id = $2::uuid and b.record_no > $3 and b.record_no <= $4`;

/** The tax lines of the bills of a range. `registrationNumber`: the issuer's, where a line names none. */
export async function addTaxLines(
  tx: Tx,
  range: RecordRange,
  of: { registrationNumber: string | null; detailed: boolean },
): Promise<void> {
  await tx.run(
    `insert into invoice_tax_lines (merchant_id, invoice_id, line_no, description, tax_rate, taxable_amount, tax_amount,
                                    issuer_registration_number)
     ${of.detailed ? detailedTaxLines : plainTaxLines}`,
    [range.merchantId, range.fileId, range.from, range.to, of.registrationNumber],
  );
}

const withoutBanks = { columns: '', from: '', way: `''` };

/** An agreement that changes before its bill is asked for makes the bill one that dunning decides anew. */
const withBanks = {
  columns: ', contract_id',
  from: `
     left join lateral (
       select p.kind from enrolments n
       join payment_methods p on p.merchant_id = n.merchant_id and p.id = n.payment_method_id
       where n.merchant_id = $1 and n.contract_id = i.contract_id and n.state = 'active' and i.collection = 'auto' offset 0
     ) e on true`,
  way: `case when e.kind = 'bank' and d.bank_on is not null then 'bank' else '' end`,
};

/** What comes next for each bill of a range. Returns the rows made. */
export async function openAgenda(
  tx: Tx,
  range: RecordRange,
  terms: readonly DueTerms[],
  byBank: boolean,
): Promise<number> {
  const of = byBank ? withBanks : withoutBanks;
  return tx.run(
    `with due as (
       select * from unnest($5::date[], $6::text[], $7::date[], $8::text[], $9::date[], $10::date[], $11::text[], $12::date[])
         as d(due_on, auto_act, auto_on, link_act, link_on, bank_on, bank_act, bank_ask_on)
     )
     insert into agenda (merchant_id, invoice_id, act, act_on, debit_on)
     select $1, s.invoice_id,
            case when i.collection <> 'auto' then link_act when w.way = 'bank' then bank_act else auto_act end,
            case when i.collection <> 'auto' then link_on when w.way = 'bank' then bank_ask_on else auto_on end,
            case when w.way = 'bank' and bank_act = 'debit' then d.bank_on end
     from staged_bills s
     join due d on d.due_on = s.due_on
     cross join lateral (
       select collection${of.columns} from invoices where merchant_id = $1 and id = s.invoice_id offset 0
     ) i${of.from}
     cross join lateral (select ${of.way} as way) w
     where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4`,
    [
      range.merchantId,
      range.fileId,
      range.from,
      range.to,
      terms.map((term) => term.dueOn),
      terms.map((term) => term.auto.act),
      terms.map((term) => term.auto.on),
      terms.map((term) => term.link.act),
      terms.map((term) => term.link.on),
      terms.map((term) => term.bank?.debitOn ?? null),
      terms.map((term) => term.bank?.act ?? null),
      terms.map((term) => term.bank?.on ?? null),
    ],
  );
}

/** How far each step of a load has come. */
export type LoadStep = 'customers_to_record' | 'bills_to_record' | 'loaded_to_record';

/** Compare-and-set of how far a step is. */
export async function advanceFile(tx: Tx, range: RecordRange, step: LoadStep): Promise<boolean> {
  const moved = await tx.run(
    `update billing_files set ${step} = $4
     where merchant_id = $1 and id = $2::uuid and state = 'loading' and ${step} = $3`,
    [range.merchantId, range.fileId, range.from, range.to],
  );
  return moved === 1;
}

/** Lines that were staged again have customers of their own until that step has found theirs. */
export async function loadCustomersAgain(tx: Tx, merchantId: number, fileId: string): Promise<void> {
  await tx.run(
    `update billing_files set customers_to_record = bills_to_record
     where merchant_id = $1 and id = $2::uuid and state = 'loading'`,
    [merchantId, fileId],
  );
}

/** After a large load: without this, plans for a new merchant go on believing that it has one bill. */
export async function countLoaded(db: Pick<Db, 'run'>): Promise<void> {
  for (const table of ['customers', 'contracts', 'contacts', 'invoices', 'invoice_tax_lines', 'agenda'])
    await db.run(`analyze ${table}`);
}

/** A released or loading file with a later business date or sequence: this one then brings old news about customers. */
export async function newerFileLoaded(
  tx: Tx,
  merchantId: number,
  file: { id: string; business_date: string | null; sequence: number | null },
): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from billing_files
     where merchant_id = $1 and id <> $2::uuid and kind in ('billing', 'contact') and state in ('loading', 'released')
       and (business_date, sequence) > ($3::date, $4::int)
     limit 1`,
    [merchantId, file.id, file.business_date, file.sequence],
  );
  return rows.length > 0;
}

/** The debt of every bill of a file enters the books. Returns the transfers written. */
export async function postReleased(
  tx: Tx,
  act: Act,
  fileId: string,
  days: { eventOn: string; postedOn: string },
): Promise<number> {
  const { debit, credit } = events.bill_released;
  return tx.run(
    `with ${ledgerHead}
     insert into transfers (merchant_id, month, entry_id, event, leg, debit, credit, amount, currency,
                            event_on, posted_on, closing_month, invoice_id, customer_id, act_id)
     select merchant_id, $3::date, id, 'bill_released', 1, $4, $5, amount, currency,
            $6::date, $7::date, ${closingMonth('$7')}, id, customer_id, $8::uuid
     from head, invoices where merchant_id = $1 and file_id = $2::uuid
     order by id`,
    [act.merchantId, fileId, monthOf(act.at), debit, credit, days.eventOn, days.postedOn, act.id],
  );
}

/** The first history row of every bill of a file. Returns the rows written. */
export async function openHistory(tx: Tx, act: Act, fileId: string): Promise<number> {
  return tx.run(
    `insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select merchant_id, $3::date, 'invoice', id, 1, null, state, $4::timestamptz, $5::uuid
     from invoices where merchant_id = $1 and file_id = $2::uuid
     order by id`,
    [act.merchantId, fileId, monthOf(act.at), instantText(act.at), act.id],
  );
}

export interface OutcomeTotals {
  state: 'open' | 'parked' | 'paid' | 'unpaid' | 'cancelled';
  count: number;
  amount: number;
}

/** What became of a file's bills. */
export async function outcomesOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<OutcomeTotals[]> {
  return tx.query<OutcomeTotals>(
    `select state, count(*) as count, sum(amount)::bigint as amount
     from invoices where merchant_id = $1 and file_id = $2::uuid group by state order by state`,
    [merchantId, fileId],
  );
}

export interface FileTotals {
  name: string;
  sha256: string;
  kind: string;
  business_date: string;
  lines_read: number;
  lines_accepted: number;
  lines_rejected: number;
  amount_accepted: number;
  amount_trailer: number;
  rejected_findings: number;
}

export async function fileTotals(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<FileTotals | undefined> {
  const [totals] = await tx.query<FileTotals>(
    `select f.name, f.sha256, f.kind, f.business_date, f.lines_read, f.lines_accepted, f.lines_rejected,
            f.amount_accepted, f.amount_trailer,
            (select count(distinct l.line_no) from line_findings l
             where l.merchant_id = f.merchant_id and l.file_id = f.id and l.severity = 'rejected') as rejected_findings
     from billing_files f where f.merchant_id = $1 and f.id = $2::uuid`,
    [merchantId, fileId],
  );
  return totals;
}

/** Which of these billing numbers are bills that anybody but us can know of. */
export async function releasedBills(
  tx: Tx,
  merchantId: number,
  billingNumbers: readonly string[],
): Promise<{ id: string; billing_number: string }[]> {
  return tx.query<{ id: string; billing_number: string }>(
    `select i.id, i.billing_number from invoices i
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where i.merchant_id = $1 and i.billing_number = any($2::text[])`,
    [merchantId, billingNumbers],
  );
}

export interface CorrectingBill {
  id: string;
  replaces_id: string;
  /** Billing number of the bill that it corrects. */
  replaces: string;
}

export async function correctingBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<CorrectingBill[]> {
  return tx.query<CorrectingBill>(
    `select i.id, i.replaces_id, o.billing_number as replaces
     from invoices i join invoices o on o.merchant_id = i.merchant_id and o.id = i.replaces_id
     where i.merchant_id = $1 and i.file_id = $2::uuid and i.replaces_id is not null
     order by i.id`,
    [merchantId, fileId],
  );
}

export interface ListedFile {
  id: string;
  way: 'in' | 'out';
  name: string;
  state: string;
  /** Why it was refused or is held. */
  code: string | null;
  lines: number | null;
  accepted: number | null;
  rejected: number | null;
  amount: number | null;
  at: string;
}

/** A merchant's files in and out, the newest first; with a name, those of that name. */
export async function listFiles(
  db: Pick<Db, 'query'>,
  merchantId: number,
  limit: number,
  name: string | null = null,
): Promise<ListedFile[]> {
  return db.query<ListedFile>(
    `select * from (
       select id, 'in' as way, name, state, file_code as code, lines_read as lines, lines_accepted as accepted,
              lines_rejected as rejected, amount_accepted as amount, fetched_at as at
       from billing_files where merchant_id = $1 and ($3::text is null or name = $3)
       union all
       select id, 'out', name, state, null, records, null, null, sum, frozen_at
       from outward_files where merchant_id = $1 and ($3::text is null or name = $3)
     ) file
     order by at desc, id desc limit $2`,
    [merchantId, limit, name],
  );
}
