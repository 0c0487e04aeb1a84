import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';

/** Whether a person has approved charging a bill (an alias with `invoice_id`) on a day. */
function isApproved(bill: string, day: string): string {
  return `exists (select from approved_charges p where p.merchant_id = ${bill}.merchant_id
                    and p.business_date = ${day}::date and p.invoice_id = ${bill}.invoice_id)`;
}

/** A part of the keyset, both ends included. */
export interface BillRange {
  from: string;
  to: string;
}

const due = `
  from agenda a
  join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  where a.merchant_id = $1 and a.act = $2 and a.act_on <= $3::date
    -- What is being recalled is neither charged nor reminded of, also while a charge of before has no outcome.
    and not exists (select from recall_bills rb where rb.merchant_id = a.merchant_id and rb.invoice_id = a.invoice_id)`;

/** Bills whose agenda has come, cut into ranges of `billsPerRange`; with `approvedOnly` those that a person has approved for the day. */
export async function rangesDue(
  db: Pick<Db, 'query'>,
  merchantId: number,
  act: 'charge' | 'dun',
  businessDate: string,
  billsPerRange: number,
  approvedOnly = false,
): Promise<(BillRange & { bills: number })[]> {
  return db.query<BillRange & { bills: number } & Record<string, unknown>>(
    cutIntoRanges(`${due} ${approvedOnly ? `and ${isApproved('a', '$3')}` : ''}`, '$4'),
    [merchantId, act, businessDate, billsPerRange],
  );
}

/** Selects ranges of bills out of `from agenda a ...`, each of as many as the parameter says. */
export function cutIntoRanges(fromAgenda: string, billsPerRange: string): string {
  return `
    with numbered as (
      select a.invoice_id, row_number() over (order by a.invoice_id) - 1 as no ${fromAgenda}
    ), edges as (
      select invoice_id, no from numbered
      where no % ${billsPerRange}::int in (0, ${billsPerRange}::int - 1) or no = (select count(*) - 1 from numbered)
    )
    select f.invoice_id as "from", t.invoice_id as "to", t.no - f.no + 1 as bills
    from edges f
    join edges t on t.no = least(f.no + ${billsPerRange}::int - 1, (select max(no) from edges))
    where f.no % ${billsPerRange}::int = 0
    order by f.no`;
}

/** The next bills of a range, after one that was looked at already. */
export async function billsDue(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  act: 'charge' | 'dun',
  businessDate: string,
  range: BillRange,
  after: string | null,
  limit: number,
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select a.invoice_id ${due}
       and a.invoice_id between $4::uuid and $5::uuid and ($6::uuid is null or a.invoice_id > $6::uuid)
     order by a.invoice_id limit $7`,
    [merchantId, act, businessDate, range.from, range.to, after, limit],
  );
  return rows.map((row) => row.invoice_id);
}

/** Which of these bills, locked by the caller, are still due: another process may have judged them since they were found. */
export async function stillDue(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  act: 'charge' | 'dun',
  businessDate: string,
  invoiceIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select a.invoice_id ${due} and a.invoice_id = any($4::uuid[])`,
    [merchantId, act, businessDate, invoiceIds],
  );
  return rows.map((row) => row.invoice_id);
}

/**
 * Bills that were tried before and whose ways to pay have not reported up to the day before this attempt: the customer
 * may have paid already. A first attempt waits for nothing.
 */
export async function retriesTooEarly(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  reportedMethod: string,
  invoiceIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select a.invoice_id from agenda a
     where a.merchant_id = $1 and a.invoice_id = any($3::uuid[])
       and exists (select from charges c
                   where c.merchant_id = a.merchant_id and c.invoice_id = a.invoice_id and c.state = 'failed')
       and a.act_on - 1 > coalesce((select complete_to from watermarks w
                                    where w.merchant_id = a.merchant_id and w.method = $2), '-infinity')`,
    [merchantId, reportedMethod, invoiceIds],
  );
  return rows.map((row) => row.invoice_id);
}

export interface ChargeableMethod {
  contract_id: string;
  payment_method_id: string;
  sealed_token: Buffer;
  network_transaction_id: string | null;
}

/** What may be charged now: an agreement that stands, with a card that this gateway keeps. */
export async function methodsOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  contractIds: readonly string[],
): Promise<ChargeableMethod[]> {
  return tx.query<ChargeableMethod>(
    `select e.contract_id, m.id as payment_method_id, m.sealed_token, m.network_transaction_id
     from enrolments e
     join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
     where e.merchant_id = $1 and e.contract_id = any($3::uuid[]) and e.state = 'active'
       and m.state = 'active' and m.kind = 'card' and m.gateway = $2`,
    [merchantId, gateway, contractIds],
  );
}

export interface CardAttempts {
  payment_method_id: string;
  amount: number;
  /** Of the newest decline; null: none is known. */
  network: string | null;
  started_at: string[];
}

/**
 * Locks these cards, so that nobody else begins a charge on one of them until the transaction ends, and reads what was tried on
 * each over the same amount in the 30 days before: networks count a card's attempts together, whatever bill they are for.
 */
export async function lockCards(
  tx: Tx,
  merchantId: number,
  at: string,
  bills: readonly { customerId: string; paymentMethodId: string; amount: number }[],
): Promise<CardAttempts[]> {
  if (bills.length === 0) return [];
  const methods = bills.map((bill) => bill.paymentMethodId);
  await tx.query(
    `select 1 from payment_methods where merchant_id = $1 and id = any($2::uuid[]) order by id for no key update`,
    [merchantId, methods],
  );
  // By the customer's bills over that amount: charges have no index by card. A younger snapshot than the locks.
  return tx.query<CardAttempts & Record<string, unknown>>(
    `select w.payment_method_id, w.amount, array_agg(c.started_at order by c.started_at) as started_at,
            (array_agg(c.network order by c.started_at desc) filter (where c.network is not null))[1] as network
     from (select distinct * from unnest($2::uuid[], $3::uuid[], $4::bigint[]) as w(payment_method_id, customer_id, amount)) w
     join invoices i on i.merchant_id = $1 and i.customer_id = w.customer_id and i.amount = w.amount
     join charges c on c.merchant_id = $1 and c.invoice_id = i.id and c.payment_method_id = w.payment_method_id
       and c.amount = w.amount and c.state <> 'canceled' and c.started_at > $5::timestamptz - interval '30 days'
     group by w.payment_method_id, w.amount`,
    [merchantId, methods, bills.map((bill) => bill.customerId), bills.map((bill) => bill.amount), at],
  );
}

/** One intent for each bill, however often it is tried; those that stand already are used again. */
export async function ensureAutoIntents(
  tx: Tx,
  act: Act,
  bills: readonly { intentId: string; invoiceId: string; amount: number; currency: string }[],
): Promise<Map<string, string>> {
  const invoiceIds = bills.map((bill) => bill.invoiceId);
  await tx.run(
    `with inserted as (
       insert into payment_intents (merchant_id, id, invoice_id, origin, amount, currency, state, version, created_at)
       select $1, b.id, b.invoice_id, 'auto', b.amount, b.currency, 'requires_payment_method', 1, $6::timestamptz
       from unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::text[]) as b(id, invoice_id, amount, currency)
       on conflict (merchant_id, invoice_id) where origin = 'auto' do nothing
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'payment_intent', id, 1, null, 'requires_payment_method', $6::timestamptz, $8::uuid
     from inserted`,
    [
      act.merchantId,
      bills.map((bill) => bill.intentId),
      invoiceIds,
      bills.map((bill) => bill.amount),
      bills.map((bill) => bill.currency),
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  const rows = await tx.query<{ id: string; invoice_id: string }>(
    `select id, invoice_id from payment_intents
     where merchant_id = $1 and origin = 'auto' and invoice_id = any($2::uuid[])`,
    [act.merchantId, invoiceIds],
  );
  return new Map(rows.map((row) => [row.invoice_id, row.id]));
}

/** Why a bill that would be charged on a day is not, in the order in which the reasons are looked for. */
export const reasonsLeftOut = [
  'recalled',
  'unknown',
  'being_paid',
  'disputed',
  'held',
  'not_automatic',
  'no_method',
  'waiting_for_reports',
  'paid',
  'cancelled',
  'returned',
  'parked',
] as const;
export type ReasonLeftOut = (typeof reasonsLeftOut)[number];

export interface PlannedBills {
  /** Null: these are charged. */
  reason: ReasonLeftOut | null;
  /** What they are charged to: `card`. */
  method: string | null;
  approved: boolean;
  bills: number;
  amount: number;
}

/** Every bill whose charge has come by a day ($2), with the reason not to charge it or with what it is charged to. */
const planned = `
  standing as (
    select customer_id, contract_id, bool_or(reason = 'dispute') as disputed from holds
    where merchant_id = $1 and lifted_at is null and (until_on is null or until_on >= $2::date)
    group by customer_id, contract_id
  ), planned as (
    select i.id, i.amount, m.kind as method, p.invoice_id is not null as approved,
           case
             when rb.invoice_id is not null then 'recalled'
             when c.state = 'unknown' then 'unknown'
             when l.invoice_id is not null then 'being_paid'
             when h.disputed or hc.disputed then 'disputed'
             when h.customer_id is not null or hc.customer_id is not null then 'held'
             when i.collection <> 'auto' or i.fell_back_on is not null then 'not_automatic'
             when m.id is null then 'no_method'
             -- Only what has moved on from its debit day was tried before: no look for a million first attempts.
             when (i.debit_on is null or a.act_on > i.debit_on)
               and a.act_on - 1 > coalesce((select complete_to from watermarks w
                                            where w.merchant_id = $1 and w.method = $4), '-infinity')
               and exists (select from charges t where t.merchant_id = a.merchant_id and t.invoice_id = a.invoice_id
                             and t.state = 'failed') then 'waiting_for_reports'
           end as reason
    from agenda a
    join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
    join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
    left join recall_bills rb on rb.merchant_id = a.merchant_id and rb.invoice_id = a.invoice_id
    left join collection_locks l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
    left join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
    left join standing h on h.customer_id = i.customer_id and h.contract_id is null
    left join standing hc on hc.customer_id = i.customer_id and hc.contract_id = i.contract_id
    left join enrolments e on e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active'
    left join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
      and m.state = 'active' and m.kind = 'card' and m.gateway = $3
    left join approved_charges p on p.merchant_id = a.merchant_id and p.business_date = $2::date
      and p.invoice_id = a.invoice_id
    where a.merchant_id = $1 and a.act = 'charge' and a.act_on <= $2::date
    -- A fence for the planner: each reason is worked out once, and not for every column that names it.
    offset 0
  )`;

export interface PlanOf {
  merchantId: number;
  businessDate: string;
  gateway: string;
  reportedMethod: string;
}

const planValues = (plan: PlanOf) => [plan.merchantId, plan.businessDate, plan.gateway, plan.reportedMethod];

/** What a day's run charges and what it leaves out, counted; also what was to be charged on that very day and is settled by now. */
export async function plannedCharges(db: Pick<Db, 'query'>, plan: PlanOf): Promise<PlannedBills[]> {
  return db.query<PlannedBills & Record<string, unknown>>(
    `with ${planned}
     select reason, case when reason is null then method end as method, approved and reason is null as approved,
            count(*) as bills, sum(amount)::bigint as amount
     from planned group by 1, 2, 3
     union all
     select case i.state when 'unpaid' then 'returned' else i.state end, null, false, count(*), sum(i.amount)::bigint
     from invoices i
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where i.merchant_id = $1 and i.collection = 'auto' and i.debit_on = $2::date and i.state <> 'open'
     group by 1
     order by 1 nulls first, 2, 3`,
    planValues(plan),
  );
}

export interface ApprovedPlan {
  approval_no: number;
  charges: number;
  amount: number;
}

/**
 * Approves all that is to be charged on a day and was not approved before; undefined: there is nothing. One statement: what
 * is counted is what is written down. The merchant's row is locked by the caller, so that approvals are numbered one by one.
 */
export async function approvePlanned(tx: Tx, plan: PlanOf, act: Act): Promise<ApprovedPlan | undefined> {
  const [approved] = await tx.query<ApprovedPlan & Record<string, unknown>>(
    `with ${planned}, wanted as (
       select id, amount from planned where reason is null and not approved
     ), approval as (
       insert into charge_approvals (merchant_id, business_date, approval_no, charges, amount, approved_at, approved_by)
       select $1, $2::date, 1 + coalesce((select max(approval_no) from charge_approvals
                                          where merchant_id = $1 and business_date = $2::date), 0),
              sums.charges, sums.amount, $5::timestamptz, $6
       from (select count(*) as charges, sum(amount)::bigint as amount from wanted) sums
       where sums.charges > 0
       returning approval_no, charges, amount
     ), members as (
       insert into approved_charges (merchant_id, business_date, invoice_id, approval_no)
       select $1, $2::date, w.id, a.approval_no from wanted w cross join approval a
     )
     select approval_no, charges, amount from approval`,
    [...planValues(plan), instantText(act.at), act.actor],
  );
  return approved;
}

export async function lockMerchant(tx: Tx, merchantId: number): Promise<void> {
  await tx.query(`select 1 from merchants where id = $1 for no key update`, [merchantId]);
}

/** Which bills were approved matters only while they may be charged on that day. */
export async function forgetApproved(tx: Tx, merchantId: number, before: string): Promise<void> {
  await tx.run(`delete from approved_charges where merchant_id = $1 and business_date < $2::date`, [
    merchantId,
    before,
  ]);
}

/** Which of these bills a person has approved for a day. */
export async function approvedAmong(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  businessDate: string,
  invoiceIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select invoice_id from approved_charges
     where merchant_id = $1 and business_date = $2::date and invoice_id = any($3::uuid[])`,
    [merchantId, businessDate, invoiceIds],
  );
  return rows.map((row) => row.invoice_id);
}

export interface Approval {
  approval_no: number;
  charges: number;
  amount: number;
  approved_at: string;
  approved_by: string;
}

export async function approvalsOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  businessDate: string,
): Promise<Approval[]> {
  return db.query<Approval & Record<string, unknown>>(
    `select approval_no, charges, amount, approved_at, approved_by from charge_approvals
     where merchant_id = $1 and business_date = $2::date order by approval_no`,
    [merchantId, businessDate],
  );
}

/** `off` means that an answered COMMIT may be forgotten: no place for intents to charge. */
export async function fsyncOf(db: Pick<Db, 'query'>): Promise<string> {
  const [row] = await db.query<{ fsync: string }>(`show fsync`);
  return row?.fsync ?? 'unknown';
}
