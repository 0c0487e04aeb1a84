import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { bankGateway } from '../debits/debit.ts';
import { type FindingKind, holdingDunning, type NewFinding } from './findings.ts';

/** Since when there can be anything to reconcile: the merchant's first day here. */
export async function merchantSince(db: Pick<Db, 'query'>, merchantId: number): Promise<string> {
  const [row] = await db.query<{ created_at: string }>(`select created_at from merchants where id = $1`, [
    merchantId,
  ]);
  if (!row) throw new Error(`impossible state: merchant ${merchantId} is gone`);
  return row.created_at;
}

/** The days of a merchant whose report is stored, each with the digest of its lines (null: stored before digests were). */
export async function storedReports(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  from: string,
  to: string,
): Promise<Map<string, string | null>> {
  const rows = await db.query<{ report_date: string; digest: string | null }>(
    `select report_date, digest from settlement_reports
     where merchant_id = $1 and gateway = $2 and report_date between $3::date and $4::date`,
    [merchantId, gateway, from, to],
  );
  return new Map(rows.map((row) => [row.report_date, row.digest]));
}

/** Days since `from` with a difference that another report of the gateway may settle; of a fee only where a payout has another. */
export async function daysInDispute(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  from: string,
): Promise<string[]> {
  const rows = await db.query<{ report_date: string }>(
    `select distinct f.report_date from findings f
     where f.merchant_id = $1 and f.source = 'report' and f.gateway = $2 and f.state = 'open' and f.report_date >= $3::date
       and (f.kind = any($4::text[])
            or exists (select from findings p
                       where p.merchant_id = $1 and p.source = 'payout' and p.state = 'open' and p.charge_id = f.charge_id))
     order by 1`,
    [merchantId, gateway, from, holdingDunning],
  );
  return rows.map((row) => row.report_date);
}

export interface ReportTotals {
  lines: number;
  amount: number;
  fee: number;
  feeTax: number;
  /** SHA-256 of all lines in their order. */
  digest: string;
}

export interface ReportKey {
  merchantId: number;
  gateway: string;
  /** YYYY-MM-DD, the gateway's own day. */
  date: string;
}

/** What stands for the day, locked. */
export async function lockReport(tx: Tx, report: ReportKey): Promise<{ digest: string | null } | undefined> {
  const [row] = await tx.query<{ digest: string | null }>(
    `select digest from settlement_reports
     where merchant_id = $1 and gateway = $2 and report_date = $3::date
     for update`,
    [report.merchantId, report.gateway, report.date],
  );
  return row;
}

export async function putReport(
  tx: Tx,
  report: ReportKey,
  totals: ReportTotals,
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `insert into settlement_reports (merchant_id, gateway, report_date, lines, amount, fee, fee_tax, digest, stored_at)
     values ($1, $2, $3::date, $4, $5, $6, $7, $8, $9::timestamptz)
     on conflict (merchant_id, gateway, report_date) do update
     set lines = excluded.lines, amount = excluded.amount, fee = excluded.fee, fee_tax = excluded.fee_tax,
         digest = excluded.digest, stored_at = excluded.stored_at`,
    [
      report.merchantId,
      report.gateway,
      report.date,
      totals.lines,
      totals.amount,
      totals.fee,
      totals.feeTax,
      totals.digest,
      instantText(at),
    ],
  );
}

export async function deleteLines(tx: Tx, report: ReportKey): Promise<void> {
  await tx.run(
    `delete from settlement_lines where merchant_id = $1 and gateway = $2 and report_date = $3::date`,
    [report.merchantId, report.gateway, report.date],
  );
}

/** `rows` as `spooledReport` writes them. Returns how many there were. */
export async function copyLines(tx: Tx, rows: AsyncIterable<Uint8Array>): Promise<number> {
  return tx.copyIn(
    `copy settlement_lines (merchant_id, gateway, report_date, line_no, gateway_charge_id, reference, charge_id, kind,
                            amount, currency, fee, fee_tax, captured_at) from stdin`,
    rows,
  );
}

/** Lines of a report that a finding says something of, whether open or settled by hand. Fees aside. */
export async function linesInDispute(tx: Pick<Tx, 'query'>, report: ReportKey): Promise<number> {
  const [row] = await tx.query<{ lines: number }>(
    `select count(distinct subject) as lines from findings
     where merchant_id = $1 and source = 'report' and gateway = $2 and report_date = $3::date and (state = 'open' or by_hand)
       and kind in ('missing_here', 'not_booked', 'amount_differs', 'currency_differs', 'captured_twice', 'unexpected_kind')`,
    [report.merchantId, report.gateway, report.date],
  );
  return row?.lines ?? 0;
}

/** What the merchant pays for a charge, in millionths of the amount; the tax in millionths of the fee. */
export interface AgreedFee {
  feePerMillion: number;
  taxPerMillion: number;
  toleranceYen: number;
}

/** Charges are captured within a week of their start, and ids begin with the milliseconds of their making. */
export interface Window {
  from: string;
  to: string;
  fromId: string;
  untilId: string;
}

const feeOf = (amount: string, per: string, tax: string): string =>
  `(${amount} * ${per}::bigint / 1000000 + ${amount} * ${per}::bigint / 1000000 * ${tax}::bigint / 1000000)`;

export type Difference = Omit<NewFinding, 'id' | 'owner'>;

/**
 * What differs in the reports of some days and in the payments collected on them, and is not said yet: no open finding
 * has it, and nobody has settled it by hand as it is. At most `limit` at a time.
 *
 * One full outer join lets through only what does not simply agree (`apart`); only those few are looked at more closely,
 * by primary key (`offset 0`: the planner cannot know that they are few). Lines of a million payments are compared with
 * payments, not with charges: a payment is the amount that was taken for a charge, in a row of a third of the size.
 */
export async function newDifferences(
  tx: Pick<Tx, 'query'>,
  report: Omit<ReportKey, 'date'> & { timezone: string },
  window: Window,
  fee: AgreedFee | null,
  limit: number,
): Promise<Difference[]> {
  return tx.query<Difference>(
    `with line as not materialized (
       select report_date, line_no, gateway_charge_id, charge_id, kind, amount, currency, fee, fee_tax
       from settlement_lines
       where merchant_id = $1 and gateway = $2 and report_date between $3::date and $4::date
     ), apart as materialized (
       select l.report_date, l.line_no, l.gateway_charge_id, l.charge_id, l.amount, l.currency, l.fee, l.fee_tax,
              p.id as payment_id, p.collected_on, p.known_at
       from (select * from line where kind = 'charge') l
       full join (
         select id, amount, currency, collected_on, known_at from payments
         where merchant_id = $1 and id >= $5::uuid and id < $6::uuid and collected_on between $3::date and $4::date
       ) p on p.id = l.charge_id
       where l.line_no is null or p.id is null or l.amount <> p.amount or l.currency <> p.currency
          or abs(l.fee + l.fee_tax - ${feeOf('l.amount', '$8', '$9')}) > $10::bigint
     ), again as materialized (
       select charge_id from line where kind = 'charge' and charge_id is not null group by charge_id having count(*) > 1
       union
       select a.charge_id from apart a
       where a.payment_id is null and a.charge_id is not null
         and exists (select from settlement_lines o
                     where o.merchant_id = $1 and o.charge_id = a.charge_id and o.gateway = $2 and o.kind = 'charge'
                       and o.report_date not between $3::date and $4::date)
     ), difference as (
       select v.kind, a.gateway_charge_id as subject, a.report_date, a.charge_id, c.invoice_id, v.ours, v.theirs, a.currency
       from apart a
       left join lateral (
         select invoice_id, amount, currency, state from charges
         where merchant_id = $1 and id = a.charge_id offset 0
       ) c on true
       cross join lateral (values
         ('missing_here', null::bigint, a.amount, c.state is null),
         ('amount_differs', c.amount, a.amount, c.amount <> a.amount),
         ('currency_differs', c.amount, a.amount, c.amount = a.amount and c.currency <> a.currency),
         ('not_booked', c.amount, a.amount, c.amount = a.amount and c.currency = a.currency and c.state <> 'succeeded'),
         ('fee_differs', ${feeOf('a.amount', '$8', '$9')}, a.fee + a.fee_tax, c.state is not null
           and abs(a.fee + a.fee_tax - ${feeOf('a.amount', '$8', '$9')}) > $10::bigint)
       ) v(kind, ours, theirs, holds)
       where a.line_no is not null and v.holds
       union all
       select 'captured_twice', l.gateway_charge_id, l.report_date, l.charge_id, l.invoice_id, l.asked, l.amount, l.currency
       from (
         select o.report_date, o.gateway_charge_id, o.charge_id, o.amount, o.currency, c.invoice_id, c.amount as asked,
                -- The capture that is booked is the first, wherever it stands.
                row_number() over (partition by o.charge_id
                                   order by o.gateway_charge_id is distinct from c.gateway_charge_id, o.report_date, o.line_no)
                  as place
         from again g
         join charges c on c.merchant_id = $1 and c.id = g.charge_id
         join settlement_lines o
           on o.merchant_id = $1 and o.charge_id = g.charge_id and o.gateway = $2 and o.kind = 'charge'
       ) l where l.place > 1
       union all
       select 'missing_there', coalesce(c.gateway_charge_id, c.id::text), a.collected_on, c.id, c.invoice_id, c.amount,
              null, c.currency
       from apart a
       join lateral (
         select id, invoice_id, amount, currency, gateway_charge_id, gateway from charges
         where merchant_id = $1 and id = a.payment_id offset 0
       ) c on c.gateway = $2
       join settlement_reports r on r.merchant_id = $1 and r.gateway = $2 and r.report_date = a.collected_on
       where a.line_no is null
         -- What was taken around midnight may stand in the report of the next day.
         and (a.known_at < ((a.collected_on + 1)::timestamp at time zone $7) - interval '1 hour'
              or exists (select from settlement_reports n
                         where n.merchant_id = $1 and n.gateway = $2 and n.report_date = a.collected_on + 1))
         and not exists (select from settlement_lines o
                         where o.merchant_id = $1 and o.charge_id = a.payment_id and o.gateway = $2 and o.kind = 'charge')
       union all
       select 'unexpected_kind', l.gateway_charge_id || ' ' || l.kind || ' ' || l.report_date, l.report_date, l.charge_id,
              c.invoice_id, null, sum(l.amount)::bigint, l.currency
       from line l
       left join charges c on c.merchant_id = $1 and c.id = l.charge_id
       where l.kind <> 'charge'
         -- Money that we gave back ourselves; what is unknown here is a finding until it is known.
         and not (l.kind = 'refund' and exists (
           select from refunds r where r.merchant_id = $1 and r.id = l.charge_id and r.gateway = $2 and r.state = 'succeeded'
             and r.gateway_refund_id = l.gateway_charge_id and r.amount = l.amount and r.currency = l.currency))
       group by l.gateway_charge_id, l.kind, l.report_date, l.charge_id, c.invoice_id, l.currency
     )
     select distinct on (d.kind, d.subject) d.kind, d.subject, $2 as gateway, d.report_date as "reportDate", d.charge_id as "chargeId",
            d.invoice_id as "invoiceId", d.ours, d.theirs, d.currency
     from difference d
     where not exists (select from findings f
                       where f.merchant_id = $1 and f.source = 'report' and f.kind = d.kind and f.subject = d.subject
                         and f.state = 'open')
       and not exists (select from findings f
                       where f.merchant_id = $1 and f.source = 'report' and f.kind = d.kind and f.subject = d.subject and f.by_hand
                         and f.ours is not distinct from d.ours and f.theirs is not distinct from d.theirs)
     order by d.kind, d.subject, d.report_date
     limit $11`,
    [
      report.merchantId,
      report.gateway,
      window.from,
      window.to,
      window.fromId,
      window.untilId,
      report.timezone,
      fee?.feePerMillion ?? null,
      fee?.taxPerMillion ?? null,
      fee?.toleranceYen ?? null,
      limit,
    ],
  );
}

export interface SettledFinding {
  id: string;
  how: string;
}

/** Open findings that what is known by now contradicts, with what it is. At most `limit` at a time. */
export async function contradictedFindings(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  fee: AgreedFee | null,
  limit: number,
): Promise<SettledFinding[]> {
  return tx.query<SettledFinding>(
    `with open as materialized (
       select id, kind, subject, report_date, charge_id, theirs, currency, found_at from findings
       where merchant_id = $1 and source = 'report' and state = 'open' and gateway = $2
     )
     select o.id, 'the report of ' || min(l.report_date) || ' has it' as how
     from open o
     join settlement_lines l
       on l.merchant_id = $1 and l.charge_id = o.charge_id and l.gateway = $2 and l.kind = 'charge'
     where o.kind = 'missing_there'
     group by o.id
     union all
     select o.id, 'the charge has succeeded here, and is booked'
     from open o
     join charges c on c.merchant_id = $1 and c.id = o.charge_id and c.state = 'succeeded'
     where o.kind = 'not_booked'
     union all
     select o.id, 'the payment is ' || case c.state when 'succeeded' then 'certain' else 'taken back' end
     from open o
     join charges c on c.merchant_id = $1 and c.id = o.charge_id and c.state <> 'preliminary'
     where o.kind = 'preliminary_not_confirmed'
     union all
     select o.id, 'the charge is known here by now'
     from open o
     join charges c on c.merchant_id = $1 and c.id = o.charge_id
     where o.kind = 'missing_here'
     union all
     select o.id, 'the report does not say so any more'
     from open o
     where o.kind in ('amount_differs', 'currency_differs', 'not_booked')
       and not exists (select from charges c
                       where o.kind = 'not_booked' and c.merchant_id = $1 and c.id = o.charge_id and c.state = 'succeeded')
       and not exists (select from settlement_lines l
                       where l.merchant_id = $1 and l.charge_id = o.charge_id and l.gateway = $2 and l.kind = 'charge'
                         and l.gateway_charge_id = o.subject and l.amount = o.theirs and l.currency = o.currency)
     union all
     select o.id, 'the report does not have it any more'
     from open o
     where o.kind = 'missing_here' and o.charge_id is not null
       and not exists (select from charges c where c.merchant_id = $1 and c.id = o.charge_id)
       and not exists (select from settlement_lines l
                       where l.merchant_id = $1 and l.charge_id = o.charge_id and l.gateway = $2 and l.kind = 'charge'
                         and l.gateway_charge_id = o.subject and l.amount = o.theirs)
     union all
     -- Without a reference of ours only the day leads to the line; looked for where the day's report has been replaced since.
     select o.id, 'the report does not have it any more'
     from open o
     join settlement_reports r
       on r.merchant_id = $1 and r.gateway = $2 and r.report_date = o.report_date and r.stored_at > o.found_at
     where o.kind = 'missing_here' and o.charge_id is null
       and not exists (select from settlement_lines l
                       where l.merchant_id = $1 and l.gateway = $2 and l.report_date = o.report_date and l.kind = 'charge'
                         and l.gateway_charge_id = o.subject and l.amount = o.theirs)
     union all
     select o.id, 'the report does not say so any more'
     from open o
     join settlement_reports r
       on r.merchant_id = $1 and r.gateway = $2 and r.report_date = o.report_date and r.stored_at > o.found_at
     where o.kind = 'unexpected_kind'
       and o.theirs is distinct from (
         select sum(l.amount)::bigint from settlement_lines l
         where l.merchant_id = $1 and l.gateway = $2 and l.report_date = o.report_date and l.kind <> 'charge'
           and l.gateway_charge_id || ' ' || l.kind || ' ' || l.report_date = o.subject)
     union all
     select o.id, 'the refund is known here by now'
     from open o
     join refunds r on r.merchant_id = $1 and r.id = o.charge_id and r.gateway = $2 and r.state = 'succeeded'
       and r.amount = o.theirs and r.currency = o.currency and starts_with(o.subject, r.gateway_refund_id || ' ')
     where o.kind = 'unexpected_kind'
     union all
     select o.id, 'the reports have it once'
     from open o
     left join settlement_lines l
       on l.merchant_id = $1 and l.charge_id = o.charge_id and l.gateway = $2 and l.kind = 'charge'
     where o.kind = 'captured_twice'
     group by o.id, o.subject
     having count(l.line_no) < 2 or count(l.line_no) filter (where l.gateway_charge_id = o.subject) = 0
     union all
     select o.id, 'report and settings agree by now'
     from open o
     where o.kind = 'fee_differs'
       and not exists (select from settlement_lines l
                       where l.merchant_id = $1 and l.charge_id = o.charge_id and l.gateway = $2 and l.kind = 'charge'
                         and l.gateway_charge_id = o.subject and l.fee + l.fee_tax = o.theirs
                         and abs(l.fee + l.fee_tax - ${feeOf('l.amount', '$3', '$4')}) > $5::bigint)
     order by 1
     limit $6`,
    [
      merchantId,
      gateway,
      fee?.feePerMillion ?? null,
      fee?.taxPerMillion ?? null,
      fee?.toleranceYen ?? null,
      limit,
    ],
  );
}

/** Open findings about money that went back, of refunds whose outcome is known by now. */
export async function findingsRefunded(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  refundIds: readonly string[],
): Promise<SettledFinding[]> {
  if (refundIds.length === 0) return [];
  return tx.query<SettledFinding>(
    `select f.id, 'the refund is known here by now' as how from findings f
     join refunds r on r.merchant_id = f.merchant_id and r.id = f.charge_id and r.amount = f.theirs
       and starts_with(f.subject, r.gateway_refund_id || ' ')
     where f.merchant_id = $1 and f.source = 'report' and f.state = 'open' and f.kind = 'unexpected_kind'
       and f.charge_id = any($2::uuid[])`,
    [merchantId, refundIds],
  );
}

/** Findings of charges that have succeeded by now: what was only in the report is booked. */
export async function findingsBooked(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  chargeIds: readonly string[],
): Promise<(SettledFinding & { charge_id: string })[]> {
  return tx.query<SettledFinding & { charge_id: string }>(
    `select f.id, f.charge_id, 'the charge has succeeded here, and is booked' as how
     from findings f
     join charges c on c.merchant_id = f.merchant_id and c.id = f.charge_id and c.state = 'succeeded'
     where f.merchant_id = $1 and f.state = 'open' and f.kind = 'not_booked' and f.charge_id = any($2::uuid[])`,
    [merchantId, chargeIds],
  );
}

/** The one transition of a finding. Returns how many were open until now. */
export async function settleFindings(
  tx: Tx,
  act: Act,
  settled: readonly SettledFinding[],
  byHand: boolean,
): Promise<number> {
  if (settled.length === 0) return 0;
  const moved = await tx.query(
    `with moved as (
       update findings f
       set state = 'settled', settled_at = $2::timestamptz, settled_by = $3, how = s.how, by_hand = $4
       from unnest($5::uuid[], $6::text[]) as s(id, how)
       where f.merchant_id = $1 and f.id = s.id and f.state = 'open'
       returning f.id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'finding', id, 2, 'open', 'settled', $2::timestamptz, $8::uuid from moved
     returning subject_id`,
    [
      act.merchantId,
      instantText(act.at),
      act.actor,
      byHand,
      settled.map((finding) => finding.id),
      settled.map((finding) => finding.how),
      monthOf(act.at),
      act.id,
    ],
  );
  return moved.length;
}

export interface UnlearnedLine {
  charge_id: string;
  amount: number;
  currency: string;
}

/** Money in the report for charges that have not succeeded here, the oldest first. */
export async function unlearnedLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  limit: number,
): Promise<UnlearnedLine[]> {
  return tx.query<UnlearnedLine>(
    `select charge_id, theirs as amount, currency from (
       select distinct on (charge_id) charge_id, theirs, currency, report_date from findings
       where merchant_id = $1 and gateway = $2 and state = 'open' and kind = 'not_booked'
       order by charge_id, report_date
     ) f
     order by report_date, charge_id limit $3`,
    [merchantId, gateway, limit],
  );
}

export interface Untold {
  report_date: string;
  /** Of that day: all that are open, by kind. */
  kinds: Partial<Record<FindingKind, number>>;
  /** Those found since the day's alert was last raised. */
  fresh: number;
}

/** Days with open findings of these kinds that nobody was called for yet: the alert of a day has the day behind its cause. */
export async function untoldFindings(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  kinds: readonly FindingKind[],
  cause: string,
): Promise<Untold[]> {
  return tx.query<Untold>(
    `with told as (
       select cause, max(last_at) as at from alerts where merchant_id = $1 and starts_with(cause, $4) group by cause
     ), counted as (
       select f.report_date, f.kind, count(*) as findings,
              count(*) filter (where t.at is null or f.found_at > t.at) as fresh
       from findings f
       left join told t on t.cause = $4 || to_char(f.report_date, 'YYYY-MM-DD')
       where f.merchant_id = $1 and f.source = 'report' and f.gateway = $2 and f.state = 'open' and f.kind = any($3::text[])
         and f.report_date is not null
       group by f.report_date, f.kind
     )
     select report_date, jsonb_object_agg(kind, findings) as kinds, sum(fresh)::bigint as fresh
     from counted group by report_date having sum(fresh) > 0 order by report_date`,
    [merchantId, gateway, kinds, cause],
  );
}

/** Closes the alerts of days that have no open finding of these kinds any more. */
export async function closeToldAlerts(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  kinds: readonly FindingKind[],
  cause: string,
  at: Temporal.Instant,
): Promise<number> {
  return tx.run(
    `update alerts a set acknowledged_at = $4::timestamptz
     where a.merchant_id = $1 and starts_with(a.cause, $3) and a.acknowledged_at is null
       and not exists (select from findings f
                       where f.merchant_id = $1 and f.source = 'report' and f.state = 'open' and f.kind = any($2::text[])
                         and $3 || to_char(f.report_date, 'YYYY-MM-DD') = a.cause)`,
    [merchantId, kinds, cause, instantText(at)],
  );
}

export async function countOpenFindings(tx: Pick<Tx, 'query'>, merchantId: number): Promise<number> {
  const [row] = await tx.query<{ findings: number }>(
    `select count(*) as findings from findings where merchant_id = $1 and state = 'open'`,
    [merchantId],
  );
  return row?.findings ?? 0;
}

export interface Finding {
  merchant: string;
  id: string;
  kind: FindingKind;
  subject: string;
  report_date: string | null;
  charge_id: string | null;
  billing_number: string | null;
  ours: number | null;
  theirs: number | null;
  currency: string | null;
  state: 'open' | 'settled';
  owner: string;
  found_at: string;
  settled_at: string | null;
  settled_by: string | null;
  how: string | null;
  by_hand: boolean;
  /** Result rows of the bill that are in no file yet. */
  rows_waiting: number;
}

const findingColumns = `
  m.code as merchant, f.id, f.kind, f.subject, f.report_date, f.charge_id, i.billing_number, f.ours, f.theirs, f.currency,
  f.state, f.owner, f.found_at, f.settled_at, f.settled_by, f.how, f.by_hand,
  (select count(*) from result_rows r
   where r.merchant_id = f.merchant_id and r.invoice_id = f.invoice_id and r.outward_file_id is null) as rows_waiting
  from findings f
  join merchants m on m.id = f.merchant_id
  left join invoices i on i.merchant_id = f.merchant_id and i.id = f.invoice_id`;

/** The oldest first. */
export async function listFindings(
  db: Pick<Db, 'query'>,
  filter: { merchant: string | null; settledToo: boolean; limit: number },
): Promise<Finding[]> {
  return db.query<Finding>(
    `select ${findingColumns}
     where ($1::text is null or m.code = $1) and (f.state = 'open' or $2)
     order by f.found_at, m.code, f.kind, f.subject
     limit $3`,
    [filter.merchant, filter.settledToo, filter.limit],
  );
}

export async function findingById(
  db: Pick<Db, 'query'>,
  id: string,
): Promise<(Finding & { merchant_id: number }) | undefined> {
  const [row] = await db.query<Finding & { merchant_id: number }>(
    `select f.merchant_id, ${findingColumns} where f.id = $1::uuid`,
    [id],
  );
  return row;
}

export async function completeTo(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  method: string,
): Promise<string | null> {
  const [row] = await tx.query<{ complete_to: string }>(
    `select complete_to from watermarks where merchant_id = $1 and method = $2`,
    [merchantId, method],
  );
  return row?.complete_to ?? null;
}

export interface WatermarkFacts {
  /** When the oldest charge without a conclusive outcome started, of those started at `openSince` or later. */
  oldest_open_at: string | null;
  /** The oldest day with an open finding that keeps dunning waiting. */
  differs_from: string | null;
}

export async function watermarkFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  openSince: string,
): Promise<WatermarkFacts> {
  const [row] = await tx.query<WatermarkFacts>(
    `select (select min(l.locked_at) from collection_locks l
             join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
               -- A shop's word: its day in the reports is still to come.
               and c.state <> 'preliminary'
               -- A bank's answer stands in none.
               and c.gateway <> '${bankGateway}'
             where l.merchant_id = $1 and l.locked_at >= $3::timestamptz) as oldest_open_at,
            (select min(report_date) from findings
             where merchant_id = $1 and source = 'report' and gateway = $2 and state = 'open'
               and kind = any($4::text[])) as differs_from`,
    [merchantId, gateway, openSince, holdingDunning],
  );
  return row ?? { oldest_open_at: null, differs_from: null };
}

/** Only forward. Returns whether it moved. */
export async function raiseWatermark(
  tx: Tx,
  merchantId: number,
  method: string,
  completeTo: string,
): Promise<boolean> {
  const moved = await tx.run(
    `insert into watermarks as w (merchant_id, method, complete_to) values ($1, $2, $3::date)
     on conflict (merchant_id, method) do update set complete_to = excluded.complete_to
     where w.complete_to < excluded.complete_to`,
    [merchantId, method, completeTo],
  );
  return moved === 1;
}

/** Opens findings; one that is open already (same source, kind and subject) stays as it is. Returns how many are new. */
export async function openFindings(
  tx: Tx,
  merchantId: number,
  foundAt: Temporal.Instant,
  findings: readonly NewFinding[],
): Promise<number> {
  if (findings.length === 0) return 0;
  return tx.run(
    `insert into findings (merchant_id, id, source, kind, subject, gateway, report_date, charge_id, invoice_id, ours,
                           theirs, currency, state, owner, found_at)
     select $1, f.id, f.source, f.kind, f.subject, f.gateway, f.report_date, f.charge_id, f.invoice_id, f.ours, f.theirs,
            f.currency, 'open', f.owner, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::date[], $8::uuid[], $9::uuid[], $10::bigint[],
                 $11::bigint[], $12::text[], $13::text[], $14::text[])
       as f(id, kind, subject, gateway, report_date, charge_id, invoice_id, ours, theirs, currency, owner, source)
     on conflict (merchant_id, source, kind, subject) where state = 'open' do nothing`,
    [
      merchantId,
      instantText(foundAt),
      findings.map((finding) => finding.id),
      findings.map((finding) => finding.kind),
      findings.map((finding) => finding.subject),
      findings.map((finding) => finding.gateway),
      findings.map((finding) => finding.reportDate),
      findings.map((finding) => finding.chargeId),
      findings.map((finding) => finding.invoiceId),
      findings.map((finding) => finding.ours),
      findings.map((finding) => finding.theirs),
      findings.map((finding) => finding.currency),
      findings.map((finding) => finding.owner),
      findings.map((finding) => finding.source),
    ],
  );
}
