import type { Temporal } from 'temporal-polyfill';
import type { Db } from '../../billing/db.ts';
import { holdingResults } from '../../billing/reconciliation/findings.ts';

/** Puts the virtual clock there; leases read it. */
export async function setClock(db: Pick<Db, 'run'>, now: Temporal.Instant): Promise<void> {
  await db.run(
    `insert into virtual_clock (id, virtual_now) values (1, $1::timestamptz)
     on conflict (id) do update set virtual_now = excluded.virtual_now`,
    [now.toString()],
  );
}

export async function tableNames(db: Pick<Db, 'query'>): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    `select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relname not like '%migrations%' order by 1`,
  );
  return rows.map((row) => row.name);
}

export async function databasesBeginningWith(db: Pick<Db, 'query'>, prefix: string): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    `select datname as name from pg_database where starts_with(datname, $1)`,
    [prefix],
  );
  return rows.map((row) => row.name);
}

/** All that a table holds, in one number. */
export async function tableDigest(db: Pick<Db, 'query'>, table: string): Promise<string> {
  const [row] = await db.query<{ digest: string | null }>(
    `select md5(string_agg(t::text, '|' order by t::text)) as digest from ${table} t`,
  );
  return `${table} ${row?.digest ?? 'empty'}`;
}

/** What a crash of the server does to unlogged tables. */
export async function emptyAllStaging(db: Pick<Db, 'run'>): Promise<void> {
  await db.run(`truncate staged_bills`);
}

/** Whether trace would find a charge to ask about, a webhook to handle or a recall to carry on. */
export async function somethingToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: Temporal.Instant,
): Promise<boolean> {
  const [row] = await db.query<{ found: boolean }>(
    `select exists (
           select from collection_locks l
           where l.merchant_id = $1 and l.ask_at <= $2::timestamptz
             and not exists (select from debit_lines d where d.merchant_id = l.merchant_id and d.charge_id = l.charge_id))
         or exists (select from card_changes where merchant_id = $1 and state in ('processing', 'requires_action', 'unknown')
                      and ask_at <= $2::timestamptz)
         or exists (select from webhook_events where merchant_id = $1 and handled_at is null)
         or exists (select from recalls where merchant_id = $1 and state = 'running') as found`,
    [merchantId, now.toString()],
  );
  return row?.found ?? false;
}

/** What each number of a merchant's audit log is sealed with. */
export async function sealedHashes(db: Pick<Db, 'query'>, merchant: string): Promise<Map<number, string>> {
  const rows = await db.query<{ no: number; hash: string }>(
    `select l.no, encode(l.hash, 'hex') as hash
     from audit_log l join merchants m on m.id = l.merchant_id where m.code = $1`,
    [merchant],
  );
  return new Map(rows.map(({ no, hash }) => [no, hash]));
}

/** Whether the job `debit` would find a result to go on with, a bill to ask for, or something that a person is to hear of. */
export async function debitsWait(db: Pick<Db, 'query'>, merchantId: number, today: string): Promise<boolean> {
  const [row] = await db.query<{ found: boolean }>(
    `select exists (select from agenda where merchant_id = $1 and act = 'debit' and act_on <= $2::date)
         or exists (select from debit_results where merchant_id = $1 and state in ('fetched', 'matched'))
         or exists (select from debit_requests where merchant_id = $1 and state = 'asked' and result_due_on < $2::date)
         or exists (select from alerts where merchant_id = $1 and cause like 'DEBIT%' and resolved_at is null) as found`,
    [merchantId, today],
  );
  return row?.found ?? false;
}

/** A committed request for a debit, by its file and the number in its record. */
export interface DebitRow {
  file: string;
  key: string;
  charge_id: string;
  invoice_id: string;
  amount: number;
  state: string;
  /** What is booked for it; null: nothing. */
  booked: number | null;
}

/** Requests of a merchant; of one record, where it is named. */
export async function debitRows(
  db: Pick<Db, 'query'>,
  merchant: string,
  record: { file: string; key: string } | null,
): Promise<DebitRow[]> {
  return db.query<DebitRow & Record<string, unknown>>(
    `select o.name as file, l.customer_key as key, c.id as charge_id, c.invoice_id, c.amount, c.state, p.amount as booked
     from merchants m
     join debit_lines l on l.merchant_id = m.id and ($3::text is null or l.customer_key = $3)
     join outward_files o on o.merchant_id = l.merchant_id and o.id = l.file_id and ($2::text is null or o.name = $2)
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
     left join payments p on p.merchant_id = c.merchant_id and p.id = c.id
     where m.code = $1 order by o.name, l.line_no`,
    [merchant, record?.file ?? null, record?.key ?? null],
  );
}

export interface IntentRow {
  invoice_id: string;
  amount: number;
  currency: string;
  origin: string;
  started_at: string;
  customer_number: string;
}

/** The committed intent behind a reference of the gateway. */
export async function intentOf(
  db: Pick<Db, 'query'>,
  merchant: string,
  chargeId: string,
): Promise<IntentRow | undefined> {
  const [row] = await db.query<IntentRow>(
    `select c.invoice_id, c.amount, c.currency, c.origin, c.started_at, u.customer_number
     from charges c
     join merchants m on m.id = c.merchant_id
     join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
     join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
     where m.code = $1 and c.id = $2::uuid`,
    [merchant, chargeId],
  );
  return row;
}

/** Whether a shop's word on the bill was known, and not taken back, before this charge began. */
export async function beganOverShopsWord(
  db: Pick<Db, 'query'>,
  merchant: string,
  chargeId: string,
): Promise<boolean> {
  const [row] = await db.query<{ found: boolean }>(
    `select exists (
       select from charges c
       join merchants m on m.id = c.merchant_id
       join charges b on b.merchant_id = c.merchant_id and b.invoice_id = c.invoice_id and b.origin = 'barcode'
         and b.state in ('preliminary', 'succeeded') and b.attempt_no < c.attempt_no
       where m.code = $1 and c.id = $2::uuid) as found`,
    [merchant, chargeId],
  );
  return row?.found ?? false;
}

export async function messageState(
  db: Pick<Db, 'query'>,
  merchant: string,
  invoiceId: string,
  step: string,
): Promise<{ state: string; claimed_at: string | null } | undefined> {
  const [row] = await db.query<{ state: string; claimed_at: string | null }>(
    `select s.state, s.claimed_at from messages s join merchants m on m.id = s.merchant_id
     where m.code = $1 and s.invoice_id = $2::uuid and s.step = $3`,
    [merchant, invoiceId, step],
  );
  return row;
}

export interface FrozenFile {
  sha256: string;
  size_bytes: number;
  /** Bills that were told how they ended while a finding said that the gateway has it otherwise. */
  in_dispute: number;
}

export async function frozenFile(
  db: Pick<Db, 'query'>,
  merchant: string,
  name: string,
): Promise<FrozenFile | undefined> {
  const [row] = await db.query<FrozenFile>(
    `select o.sha256, o.size_bytes,
            (select count(*) from result_rows r
             where r.merchant_id = o.merchant_id and r.outward_file_id = o.id and r.outcome <> 'pending'
               and exists (
                 select from findings f
                 where f.merchant_id = r.merchant_id and f.invoice_id = r.invoice_id and f.kind = any($3::text[])
                   and f.found_at < o.frozen_at and coalesce(f.settled_at, o.frozen_at) >= o.frozen_at)) as in_dispute
     from outward_files o join merchants m on m.id = o.merchant_id
     where m.code = $1 and o.name = $2`,
    [merchant, name, holdingResults],
  );
  return row;
}

export interface AlertRow {
  id: string;
  level: string;
  cause: string;
  first_at: string;
}

export async function alertOf(db: Pick<Db, 'query'>, id: string): Promise<AlertRow | undefined> {
  const [row] = await db.query<AlertRow>(
    `select id, level, cause, first_at from alerts where id = $1::uuid`,
    [id],
  );
  return row;
}

/** Alerts for a person now that are open since before an instant. */
export async function openNow(db: Pick<Db, 'query'>, before: Temporal.Instant): Promise<AlertRow[]> {
  return db.query<AlertRow>(
    `select id, level, cause, first_at from alerts
     where level = 'now' and acknowledged_at is null and resolved_at is null and first_at < $1::timestamptz
     order by first_at, id`,
    [before.toString()],
  );
}

export interface BillAtRest {
  merchant: string;
  invoice_id: string;
  billing_number: string;
  amount: number;
  state: string;
  act_on: string | null;
  /** When it became final. */
  settled_at: string | null;
  is_held: boolean;
  /** Nobody is told of it: it is charged by itself. */
  is_automatic: boolean;
  /** It fell back to a link, or became final in the last week of its link: shops may take no barcode of it any more. */
  is_late: boolean;
}

export async function bills(db: Pick<Db, 'query'>): Promise<BillAtRest[]> {
  return db.query<BillAtRest>(
    `select m.code as merchant, i.id as invoice_id, i.billing_number, i.amount, i.state, a.act_on, i.settled_at,
            exists (select from holds h where h.merchant_id = i.merchant_id and h.customer_id = i.customer_id
                      and h.lifted_at is null) as is_held,
            i.collection = 'auto' and i.fell_back_on is null as is_automatic,
            i.fell_back_on is not null
              or i.settled_at + interval '7 days' > (select max(l.expires_on) from links l
                                                     where l.merchant_id = i.merchant_id and l.invoice_id = i.id) as is_late
     from invoices i join merchants m on m.id = i.merchant_id
     left join agenda a on a.merchant_id = i.merchant_id and a.invoice_id = i.id
     order by m.code, i.billing_number`,
  );
}

export interface PaymentAtRest {
  merchant: string;
  charge_id: string;
  amount: number;
  method: string;
  gateway_charge_id: string | null;
}

export async function bookedPayments(db: Pick<Db, 'query'>): Promise<PaymentAtRest[]> {
  return db.query<PaymentAtRest>(
    `select m.code as merchant, p.id as charge_id, p.amount, p.method, c.gateway_charge_id
     from payments p join charges c on c.merchant_id = p.merchant_id and c.id = p.id
     join merchants m on m.id = p.merchant_id
     order by m.code, p.id`,
  );
}

/** What the gateway took and did not give back, by the ledger. */
export async function clearing(db: Pick<Db, 'query'>): Promise<Map<string, number>> {
  const rows = await db.query<{ merchant: string; amount: number }>(
    `select m.code as merchant, sum(case when t.debit = 'gateway_clearing' then t.amount else -t.amount end)::bigint as amount
     from transfers t join merchants m on m.id = t.merchant_id
     where t.debit = 'gateway_clearing' or t.event in ('refunded', 'credit_refunded') group by m.code`,
  );
  return new Map(rows.map((row) => [row.merchant, row.amount]));
}

export interface PayoutAtRest {
  merchant: string;
  payout_id: string;
  state: string;
  /** What the ledger says that came to the merchant's bank. */
  booked: number;
  file: string | null;
}

export async function payoutsAtRest(db: Pick<Db, 'query'>): Promise<PayoutAtRest[]> {
  return db.query<PayoutAtRest>(
    `select m.code as merchant, p.payout_id, p.state, o.name as file,
            coalesce((select sum(t.amount) from transfers t
                      where t.merchant_id = p.merchant_id and t.entry_id = p.id and t.debit = 'paid_out'), 0)::bigint as booked
     from payouts p join merchants m on m.id = p.merchant_id
     left join outward_files o on o.merchant_id = p.merchant_id and o.id = p.outward_file_id
     order by 1, p.payout_id`,
  );
}

export interface Unfinished {
  merchant: string;
  what: string;
  subject: string;
}

/** What may not be left when nothing has gone wrong for some days, unless a person was called for it. */
export async function unfinished(db: Pick<Db, 'query'>, before: Temporal.Instant): Promise<Unfinished[]> {
  return db.query<Unfinished>(
    `select m.code as merchant, u.what, u.subject from (
       select merchant_id, 'charge ' || state as what, id::text as subject from charges
       where state in ('processing', 'requires_action', 'unknown') and started_at < $1::timestamptz
         -- What a bank has not answered yet waits for its day.
         and not exists (select from debit_lines d where d.merchant_id = charges.merchant_id and d.charge_id = charges.id)
       union all
       select merchant_id, 'debit result ' || state, name from debit_results
       where state in ('fetched', 'matched', 'held') and fetched_at < $1::timestamptz
       union all
       select merchant_id, 'message ' || state, invoice_id || ' ' || step from messages
       where state in ('sending', 'unknown') and claimed_at < $1::timestamptz
         and not exists (select from parked_items p where p.merchant_id = messages.merchant_id
                           and p.subject = 'message' and p.resolved_at is null)
       union all
       select merchant_id, 'refund ' || state, id::text from refunds
       where state in ('processing', 'unknown') and started_at < $1::timestamptz
       union all
       select merchant_id, 'card change ' || state, id::text from card_changes
       where state in ('processing', 'requires_action', 'unknown') and started_at < $1::timestamptz
       union all
       select merchant_id, 'recall ' || state, id::text from recalls
       where state = 'running' and begun_at < $1::timestamptz
       union all
       select merchant_id, 'webhook that waits', event_id from webhook_events
       where handled_at is null and received_at < $1::timestamptz
       union all
       select merchant_id, 'input file ' || state, name from billing_files f
       where (state in ('fetched', 'loading') or (state = 'held' and file_code = 'F_SEQUENCE_GAP')) and fetched_at < $1::timestamptz
         and (state = 'held' or not exists (
           select from parked_items p where p.merchant_id = f.merchant_id and p.subject = 'file'
             and p.subject_id = f.id::text and p.resolved_at is null))
       union all
       select merchant_id, 'input file not removed', name from billing_files
       where removed_at is null and fetched_at < $1::timestamptz
       union all
       select merchant_id, 'outward file frozen', name from outward_files o
       where state = 'frozen' and frozen_at < $1::timestamptz
         and not exists (select from parked_items p where p.merchant_id = o.merchant_id and p.subject = 'file'
                           and p.subject_id = o.id::text and p.resolved_at is null)
       union all
       select merchant_id, 'result row in no file', invoice_id || ' ' || outcome from result_rows r
       where outward_file_id is null and known_at < $1::timestamptz
         and not exists (select from findings f where f.merchant_id = r.merchant_id and f.invoice_id = r.invoice_id
                           and f.state = 'open')
     ) u join merchants m on m.id = u.merchant_id order by 1, 2, 3`,
    [before.toString()],
  );
}

export async function parkedReasons(
  db: Pick<Db, 'query'>,
): Promise<{ merchant: string; subject: string; subject_id: string; reason: string; name: string | null }[]> {
  return db.query(
    `select m.code as merchant, p.subject, p.subject_id, p.reason,
            coalesce(p.context ->> 'name', i.billing_number) as name
     from parked_items p join merchants m on m.id = p.merchant_id
     left join invoices i on i.merchant_id = p.merchant_id and p.subject = 'invoice' and i.id::text = p.subject_id
     where p.resolved_at is null order by 1, 2, 3`,
  );
}

/** Of each contract the first month with several bills: after it, several are usual. More than one never waited for a person. */
export async function billedTwiceUnseen(
  db: Pick<Db, 'query'>,
): Promise<{ merchant: string; billing_numbers: string }[]> {
  return db.query(
    `with months as (
       select i.merchant_id, i.contract_id, i.billing_period,
              row_number() over (partition by i.merchant_id, i.contract_id order by i.billing_period) as place,
              array_agg(i.billing_number order by i.billing_number) filter (
                where i.state <> 'cancelled'
                  and not exists (select from parked_items p where p.merchant_id = i.merchant_id
                                    and p.subject = 'invoice' and p.subject_id = i.id::text)) as unseen
       from invoices i
       join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
       group by i.merchant_id, i.contract_id, i.billing_period having count(*) > 1
     )
     select m.code as merchant, array_to_string(o.unseen, ', ') as billing_numbers
     from months o join merchants m on m.id = o.merchant_id
     where o.place = 1 and cardinality(o.unseen) > 1
     order by 1, 2`,
  );
}

export interface InputFile {
  merchant: string;
  name: string;
  state: string;
  file_code: string | null;
  lines_read: number | null;
  lines_accepted: number | null;
  receipts: number;
}

export async function inputFiles(db: Pick<Db, 'query'>): Promise<InputFile[]> {
  return db.query<InputFile>(
    `select m.code as merchant, f.name, f.state, f.file_code, f.lines_read, f.lines_accepted,
            (select count(*) from outward_files o
             where o.merchant_id = f.merchant_id and o.input_file_id = f.id and o.kind = 'receipt') as receipts
     from billing_files f join merchants m on m.id = f.merchant_id order by 1, f.fetched_at, f.id`,
  );
}

export interface FindingAtRest {
  merchant: string;
  kind: string;
  subject: string;
  state: string;
  by_hand: boolean;
  /** A person was called for its day and has not said that it is seen. */
  called: boolean;
}

export async function findingsAtRest(db: Pick<Db, 'query'>): Promise<FindingAtRest[]> {
  return db.query<FindingAtRest>(
    `select m.code as merchant, f.kind, f.subject, f.state, f.by_hand,
            exists (select from alerts a where a.merchant_id = f.merchant_id and a.resolved_at is null
                      and (a.cause like 'SETTLEMENT%' || f.report_date or a.cause like 'PAYOUT%' || f.subject)) as called
     from findings f join merchants m on m.id = f.merchant_id order by 1, 2, 3, f.found_at`,
  );
}

export async function refundState(
  db: Pick<Db, 'query'>,
  merchantCode: string,
  refundId: string,
): Promise<string | undefined> {
  const [row] = await db.query<{ state: string }>(
    `select r.state from refunds r join merchants m on m.id = r.merchant_id where m.code = $1 and r.id = $2::uuid`,
    [merchantCode, refundId],
  );
  return row?.state;
}

export async function bookedRefunds(
  db: Pick<Db, 'query'>,
): Promise<{ merchant: string; refund_id: string; gateway_refund_id: string; amount: number }[]> {
  return db.query(
    `select m.code as merchant, r.id as refund_id, r.gateway_refund_id, t.amount
     from refunds r join merchants m on m.id = r.merchant_id
     join transfers t on t.merchant_id = r.merchant_id and t.entry_id = r.id and t.event in ('refunded', 'credit_refunded')
     where r.state = 'succeeded'`,
  );
}

/** Payments of bills whose recall is over, without what pays other bills. */
export async function recalledAtRest(
  db: Pick<Db, 'query'>,
): Promise<{ merchant: string; charge_id: string; amount: number; billing_number: string }[]> {
  return db.query(
    `select m.code as merchant, p.id as charge_id, p.amount - p.reused as amount, i.billing_number
     from recall_bills b
     join payments p on p.merchant_id = b.merchant_id and p.invoice_id = b.invoice_id
     join invoices i on i.merchant_id = b.merchant_id and i.id = b.invoice_id
     join merchants m on m.id = b.merchant_id
     where b.state = 'done'`,
  );
}

/** Billing files whose bills are out and that nobody has recalled, the oldest first. */
export async function recallableNames(
  db: Pick<Db, 'query'>,
  merchantId: number,
  settledBefore: Temporal.Instant,
): Promise<string[]> {
  const rows = await db.query<{ name: string }>(
    `select f.name from billing_files f
     where f.merchant_id = $1 and f.kind = 'billing' and f.state = 'released' and f.settled_at < $2::timestamptz
       -- What a bank took nobody here can give back: such a recall waits for a person for ever.
       and not exists (select from invoices i
                       join charges c on c.merchant_id = i.merchant_id and c.invoice_id = i.id
                       join debit_lines d on d.merchant_id = c.merchant_id and d.charge_id = c.id
                       where i.merchant_id = f.merchant_id and i.file_id = f.id)
       and not exists (select from recalls r where r.merchant_id = f.merchant_id and r.file_id = f.id)
     order by f.settled_at, f.id`,
    [merchantId, settledBefore.toString()],
  );
  return rows.map((row) => row.name);
}

/** Payments that an operator may give back, or a part of them. */
export async function refundablePayments(
  db: Pick<Db, 'query'>,
  merchantId: number,
): Promise<{ charge_id: string; left: number }[]> {
  return db.query(
    `select p.id as charge_id, p.amount - p.refunded - p.reused as left from payments p
     where p.merchant_id = $1 and p.refunded + p.reused < p.amount and p.method not in ('barcode', 'debit')
       and not exists (select from recall_bills r where r.merchant_id = p.merchant_id and r.invoice_id = p.invoice_id)
     order by p.id`,
    [merchantId],
  );
}
