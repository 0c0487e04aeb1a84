import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';

/**
 * Bills whose day to ask the bank has come. What is recalled is not asked for from the first moment on, before its recall has
 * looked at each bill: agencies give nothing back.
 */
const due = `
  from agenda a
  join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  where a.merchant_id = $1 and a.act = 'debit' and a.act_on <= $2::date
    and not exists (select from recalls r where r.merchant_id = a.merchant_id and r.file_id = i.file_id)`;

export interface DayDue {
  /** YYYY-MM-DD */
  debit_on: string;
  bills: number;
  amount: number;
}

export async function daysDue(
  db: Pick<Db, 'query'>,
  merchantId: number,
  businessDate: string,
): Promise<DayDue[]> {
  return db.query<DayDue & Record<string, unknown>>(
    `select a.debit_on, count(*) as bills, sum(i.amount)::bigint as amount ${due} group by a.debit_on order by a.debit_on`,
    [merchantId, businessDate],
  );
}

/** The next bills of a debit day, after one that was looked at already. */
export async function billsToAskFor(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  businessDate: string,
  debitOn: string,
  after: string | null,
  limit: number,
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select a.invoice_id ${due} and a.debit_on = $3::date and ($4::uuid is null or a.invoice_id > $4::uuid)
     order by a.invoice_id limit $5`,
    [merchantId, businessDate, debitOn, after, limit],
  );
  return rows.map((row) => row.invoice_id);
}

/** Which of these bills, locked by the caller, are still to be asked for, and the number that the bank is given. */
export async function stillToAskFor(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  businessDate: string,
  debitOn: string,
  invoiceIds: readonly string[],
): Promise<Map<string, number>> {
  const rows = await tx.query<{ invoice_id: string; payment_number: number }>(
    `select a.invoice_id, i.payment_number ${due} and a.debit_on = $3::date and a.invoice_id = any($4::uuid[])`,
    [merchantId, businessDate, debitOn, invoiceIds],
  );
  return new Map(rows.map((row) => [row.invoice_id, row.payment_number]));
}

export interface Mandate {
  contract_id: string;
  payment_method_id: string;
  sealed_token: Buffer;
  /** The account was asked for before. */
  asked_before: boolean;
  /** The contract had another account, which was asked for. */
  changed: boolean;
}

/** The accounts that may be debited now, by agreements that stand. */
export async function mandatesOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  contractIds: readonly string[],
): Promise<Mandate[]> {
  return tx.query<Mandate>(
    `select e.contract_id, m.id as payment_method_id, m.sealed_token, m.first_debit_on is not null as asked_before,
            m.first_debit_on is null and exists (
              select from enrolments o
              join payment_methods p on p.merchant_id = o.merchant_id and p.id = o.payment_method_id
              where o.merchant_id = e.merchant_id and o.contract_id = e.contract_id and o.id <> e.id
                and p.kind = 'bank' and p.first_debit_on is not null) as changed
     from enrolments e
     join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
     where e.merchant_id = $1 and e.contract_id = any($2::uuid[]) and e.state = 'active'
       and m.state = 'active' and m.kind = 'bank'`,
    [merchantId, contractIds],
  );
}

export interface NewRequest {
  fileId: string;
  debitOn: string;
  consignorCode: string;
  bank: string;
  resultDueOn: string;
}

export async function insertRequest(tx: Tx, act: Act, request: NewRequest): Promise<void> {
  await tx.run(
    `with asked as (
       insert into debit_requests (merchant_id, file_id, debit_on, consignor_code, bank, result_due_on, state, version)
       values ($1, $2::uuid, $3::date, $4, $5, $6::date, 'asked', 1)
       returning file_id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'debit_request', file_id, 1, null, 'asked', $8::timestamptz, $9::uuid from asked`,
    [
      act.merchantId,
      request.fileId,
      request.debitOn,
      request.consignorCode,
      request.bank,
      request.resultDueOn,
      monthOf(act.at),
      instantText(act.at),
      act.id,
    ],
  );
}

export interface NewLine {
  lineNo: number;
  chargeId: string;
  /** Null: it is not known any more. */
  methodId: string | null;
  customerKey: string;
  accountDigest: Buffer;
  amount: number;
}

/** Records of a request, and that their accounts were asked for. */
export async function insertLines(
  tx: Tx,
  merchantId: number,
  fileId: string,
  debitOn: string,
  lines: readonly NewLine[],
): Promise<void> {
  await tx.run(
    `with lines as (
       insert into debit_lines (merchant_id, file_id, line_no, charge_id, customer_key, account_digest, amount)
       select $1, $2::uuid, l.* from unnest($3::int[], $4::uuid[], $5::text[], $6::bytea[], $7::bigint[]) as l
     )
     update payment_methods set first_debit_on = $8::date
     where merchant_id = $1 and id = any($9::uuid[]) and first_debit_on is null`,
    [
      merchantId,
      fileId,
      lines.map((line) => line.lineNo),
      lines.map((line) => line.chargeId),
      lines.map((line) => line.customerKey),
      lines.map((line) => line.accountDigest),
      lines.map((line) => line.amount),
      debitOn,
      lines.flatMap((line) => line.methodId ?? []),
    ],
  );
}

export async function requestHere(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<boolean> {
  const rows = await tx.query(`select 1 from debit_requests where merchant_id = $1 and file_id = $2::uuid`, [
    merchantId,
    fileId,
  ]);
  return rows.length > 0;
}

export interface RequestLine {
  line_no: number;
  charge_id: string;
  invoice_id: string;
  customer_key: string;
  account_digest: Buffer;
  amount: number;
  debit_on: string;
  consignor_code: string;
  bank: string;
  result_due_on: string;
}

const linesPerPage = 2_000;

/** What stands in a request, page by page, each read by itself. */
export async function* requestLines(
  db: Pick<Db, 'query'>,
  merchantId: number,
  fileId: string,
): AsyncGenerator<RequestLine[]> {
  for (let after = 0; ; ) {
    const rows = await db.query<RequestLine & Record<string, unknown>>(
      `select l.line_no, l.charge_id, c.invoice_id, l.customer_key, l.account_digest, l.amount, r.debit_on,
              r.consignor_code, r.bank, r.result_due_on
       from debit_lines l
       join debit_requests r on r.merchant_id = l.merchant_id and r.file_id = l.file_id
       join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
       where l.merchant_id = $1 and l.file_id = $2::uuid and l.line_no > $3
       order by l.line_no limit $4`,
      [merchantId, fileId, after, linesPerPage],
    );
    const last = rows.at(-1);
    if (last === undefined) return;
    yield rows;
    after = last.line_no;
  }
}

export type ResultState = 'fetched' | 'matched' | 'booked' | 'held' | 'dismissed';

export interface NewResult {
  id: string;
  name: string;
  sha256: string;
  sizeBytes: number;
  archivePath: string;
}

/** False: these bytes are known, whatever they were called. */
export async function insertResult(tx: Tx, act: Act, result: NewResult): Promise<boolean> {
  const rows = await tx.query(
    `with taken as (
       insert into debit_results (merchant_id, id, name, sha256, size_bytes, archive_path, fetched_at, state, version)
       values ($1, $2::uuid, $3, $4, $5, $6, $7::timestamptz, 'fetched', 1)
       on conflict (merchant_id, sha256) do nothing
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $8::date, 'debit_result', id, 1, null, 'fetched', $7::timestamptz, $9::uuid from taken
     returning subject_id`,
    [
      act.merchantId,
      result.id,
      result.name,
      result.sha256,
      result.sizeBytes,
      result.archivePath,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  return rows.length === 1;
}

/** Whether a result of these bytes was ever taken. */
export async function isResultTaken(
  db: Pick<Db, 'query'>,
  merchantId: number,
  sha256: string,
): Promise<boolean> {
  const rows = await db.query(`select 1 from debit_results where merchant_id = $1 and sha256 = $2`, [
    merchantId,
    sha256,
  ]);
  return rows.length > 0;
}

export interface OpenResult {
  id: string;
  name: string;
  archive_path: string;
  state: ResultState;
  accepted: boolean;
  request_id: string | null;
}

/** What waits to be matched or booked, in the order in which it came. */
export async function openResults(db: Pick<Db, 'query'>, merchantId: number): Promise<OpenResult[]> {
  return db.query<OpenResult & Record<string, unknown>>(
    `select id, name, archive_path, state, accepted, request_id from debit_results
     where merchant_id = $1 and state in ('fetched', 'matched') order by id`,
    [merchantId],
  );
}

export interface Movement {
  from: readonly ResultState[];
  to: ResultState;
  requestId?: string | null;
  reason?: string | null;
  record?: number | null;
  records?: number | null;
  accepted?: boolean;
}

/** By compare-and-set: false = it is in another state. */
export async function moveResult(tx: Tx, act: Act, id: string, movement: Movement): Promise<boolean> {
  const { from, to } = movement;
  const rows = await tx.query(
    `with before as (
       select id, state from debit_results where merchant_id = $1 and id = $2::uuid and state = any($3::text[]) for update
     ), moved as (
       update debit_results r
       set state = $4, version = r.version + 1, request_id = coalesce($5::uuid, r.request_id), reason = $6, record = $7::int,
           records = coalesce($8::bigint, r.records), accepted = r.accepted or $9,
           settled_at = case when $4 in ('booked', 'dismissed') then $10::timestamptz else r.settled_at end
       from before b where r.merchant_id = $1 and r.id = b.id
       returning r.id, b.state as from_state, r.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $11::date, 'debit_result', id, version, from_state, $4, $10::timestamptz, $12::uuid from moved
     returning subject_id`,
    [
      act.merchantId,
      id,
      from,
      to,
      movement.requestId ?? null,
      movement.reason ?? null,
      movement.record ?? null,
      movement.records ?? null,
      movement.accepted ?? false,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  return rows.length === 1;
}

export interface NewAnswer {
  recordNo: number;
  customerKey: string;
  accountDigest: Buffer;
  amount: number;
  code: string;
}

export async function insertAnswers(
  tx: Tx,
  merchantId: number,
  resultId: string,
  answers: readonly NewAnswer[],
): Promise<void> {
  if (answers.length === 0) return;
  await tx.run(
    `insert into debit_answers (merchant_id, result_id, record_no, customer_key, account_digest, amount, code)
     select $1, $2::uuid, a.* from unnest($3::int[], $4::text[], $5::bytea[], $6::bigint[], $7::text[]) as a`,
    [
      merchantId,
      resultId,
      answers.map((answer) => answer.recordNo),
      answers.map((answer) => answer.customerKey),
      answers.map((answer) => answer.accountDigest),
      answers.map((answer) => answer.amount),
      answers.map((answer) => answer.code),
    ],
  );
}

export interface RequestFound {
  file_id: string;
  state: 'asked' | 'answered';
  debit_on: string;
  consignor_code: string;
  bank: string;
}

/** The request that asked for a debit under this number, the newest first: a bill may have been asked for before. Locked. */
export async function requestsWith(tx: Tx, merchantId: number, customerKey: string): Promise<RequestFound[]> {
  return tx.query<RequestFound>(
    `select r.file_id, r.state, r.debit_on, r.consignor_code, r.bank
     from debit_requests r
     where r.merchant_id = $1
       and r.file_id in (select l.file_id from debit_lines l where l.merchant_id = $1 and l.customer_key = $2)
     order by r.debit_on desc, r.file_id desc for update`,
    [merchantId, customerKey],
  );
}

export interface Fit {
  /** First record that answers no debit of the request; null: none. */
  unknown: number | null;
  /** First record that answers a debit a second time. */
  twice: number | null;
  /** First record with another amount. */
  changed: number | null;
  /** Debits of the request without an answer. */
  missing: number;
}

/** How a result's records, which are all stored, fit its request: by number and account, amounts for themselves. */
export async function fitOf(tx: Tx, merchantId: number, resultId: string, requestId: string): Promise<Fit> {
  const [fit] = await tx.query<Fit & Record<string, unknown>>(
    `with paired as (
       select a.record_no, l.line_no, a.amount <> l.amount as changed,
              row_number() over (partition by a.customer_key, a.account_digest order by a.record_no) as nth
       from debit_answers a
       left join debit_lines l on l.merchant_id = a.merchant_id and l.file_id = $3::uuid
         and l.customer_key = a.customer_key and l.account_digest = a.account_digest
       where a.merchant_id = $1 and a.result_id = $2::uuid
     )
     select min(record_no) filter (where line_no is null) as unknown,
            min(record_no) filter (where line_no is not null and nth > 1) as twice,
            min(record_no) filter (where changed) as changed,
            (select count(*) from debit_lines where merchant_id = $1 and file_id = $3::uuid)
              - count(distinct line_no) as missing
     from paired`,
    [merchantId, resultId, requestId],
  );
  return fit ?? { unknown: null, twice: null, changed: null, missing: 0 };
}

export interface Answered {
  record_no: number;
  line_no: number;
  charge_id: string;
  invoice_id: string;
  /** What is booked must be what was asked. */
  amount: number;
  currency: string;
  code: string;
  debit_on: string;
  /** Of the request file. */
  sequence: number;
}

/** The next records of a matched result that are not booked. */
export async function answersToBook(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  resultId: string,
  limit: number,
): Promise<Answered[]> {
  return tx.query<Answered>(
    `select a.record_no, l.line_no, l.charge_id, c.invoice_id, a.amount, c.currency, a.code, q.debit_on, o.sequence
     from debit_answers a
     join debit_results r on r.merchant_id = a.merchant_id and r.id = a.result_id
     join debit_requests q on q.merchant_id = r.merchant_id and q.file_id = r.request_id
     join outward_files o on o.merchant_id = q.merchant_id and o.id = q.file_id
     join debit_lines l on l.merchant_id = a.merchant_id and l.file_id = r.request_id
       and l.customer_key = a.customer_key and l.account_digest = a.account_digest
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
     where a.merchant_id = $1 and a.result_id = $2::uuid
     order by a.record_no limit $3`,
    [merchantId, resultId, limit],
  );
}

export async function removeAnswers(
  tx: Tx,
  merchantId: number,
  resultId: string,
  upTo: number | null,
): Promise<void> {
  await tx.run(
    `delete from debit_answers
     where merchant_id = $1 and result_id = $2::uuid and ($3::int is null or record_no <= $3::int)`,
    [merchantId, resultId, upTo],
  );
}

/** Compare-and-set: false = it was answered before. */
export async function answerRequest(tx: Tx, act: Act, fileId: string): Promise<boolean> {
  const rows = await tx.query(
    `with answered as (
       update debit_requests set state = 'answered', version = version + 1
       where merchant_id = $1 and file_id = $2::uuid and state = 'asked'
       returning file_id, version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $3::date, 'debit_request', file_id, version, 'asked', 'answered', $4::timestamptz, $5::uuid from answered
     returning subject_id`,
    [act.merchantId, fileId, monthOf(act.at), instantText(act.at), act.id],
  );
  return rows.length === 1;
}

export interface RequestRow {
  file: string;
  debit_on: string;
  result_due_on: string;
  state: 'asked' | 'answered';
  delivered: boolean;
  debits: number;
  amount: number;
  /** Of the charges, how many have no conclusive outcome. */
  open: number;
}

/** Requests of a merchant since a day, and older ones that wait; newest first. */
export async function requestsOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  since: string,
): Promise<RequestRow[]> {
  return db.query<RequestRow & Record<string, unknown>>(
    `select o.name as file, r.debit_on, r.result_due_on, r.state, o.state = 'delivered' as delivered,
            o.records as debits, o.sum as amount,
            (select count(*) from debit_lines l
             join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
             where l.merchant_id = r.merchant_id and l.file_id = r.file_id and c.state in ('processing', 'unknown')) as open
     from debit_requests r
     join outward_files o on o.merchant_id = r.merchant_id and o.id = r.file_id
     where r.merchant_id = $1 and (r.debit_on >= $2::date or r.state = 'asked')
     order by r.debit_on desc, o.sequence desc`,
    [merchantId, since],
  );
}

export interface ResultFile {
  id: string;
  name: string;
  state: ResultState;
  reason: string | null;
  record: number | null;
  records: number | null;
  fetched_at: string;
  /** The file that it answers; null: not known. */
  request: string | null;
}

export async function resultsOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  since: string,
): Promise<ResultFile[]> {
  return db.query<ResultFile & Record<string, unknown>>(
    `select r.id, r.name, r.state, r.reason, r.record, r.records, r.fetched_at, o.name as request
     from debit_results r
     left join outward_files o on o.merchant_id = r.merchant_id and o.id = r.request_id
     where r.merchant_id = $1 and (r.fetched_at >= $2::date or r.state not in ('booked', 'dismissed'))
     order by r.id desc`,
    [merchantId, since],
  );
}

export async function heldResults(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
): Promise<{ id: string; name: string; reason: string | null }[]> {
  return tx.query<{ id: string; name: string; reason: string | null }>(
    `select id, name, reason from debit_results where merchant_id = $1 and state = 'held' order by id for update`,
    [merchantId],
  );
}

export interface LateRequest {
  name: string;
  debit_on: string;
  result_due_on: string;
  debits: number;
}

/** Requests whose result should be here. */
export async function lateRequests(
  db: Pick<Db, 'query'>,
  merchantId: number,
  today: string,
): Promise<LateRequest[]> {
  return db.query<LateRequest & Record<string, unknown>>(
    `select o.name, r.debit_on, r.result_due_on, o.records as debits
     from debit_requests r
     join outward_files o on o.merchant_id = r.merchant_id and o.id = r.file_id
     where r.merchant_id = $1 and r.state = 'asked' and r.result_due_on < $2::date
     order by o.sequence`,
    [merchantId, today],
  );
}

/** Debits that a booked result left open: banks that have not answered, and codes that nobody knows. */
export async function countUnanswered(db: Pick<Db, 'query'>, merchantId: number): Promise<number> {
  const [row] = await db.query<{ open: number }>(
    `select count(*) as open
     from collection_locks k
     join charges c on c.merchant_id = k.merchant_id and c.id = k.charge_id and c.state = 'unknown'
     join debit_lines l on l.merchant_id = c.merchant_id and l.charge_id = c.id
     where k.merchant_id = $1`,
    [merchantId],
  );
  return row?.open ?? 0;
}
