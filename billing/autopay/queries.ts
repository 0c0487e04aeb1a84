import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { isHeld } from '../holds/queries.ts';

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

/** Bills whose agenda has come, cut into ranges of `billsPerRange`. */
export async function rangesDue(
  db: Pick<Db, 'query'>,
  merchantId: number,
  act: 'charge' | 'dun',
  businessDate: string,
  billsPerRange: number,
): Promise<BillRange[]> {
  return db.query<{ from: string; to: string }>(
    `select min(invoice_id::text) as "from", max(invoice_id::text) as "to"
     from (select a.invoice_id, (row_number() over (order by a.invoice_id) - 1) / $4::int as range_no ${due}) numbered
     group by range_no order by range_no`,
    [merchantId, act, businessDate, billsPerRange],
  );
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

export interface ChargeForecast {
  would_charge: number;
  amount: number;
  locked: number;
  waiting_for_reports: number;
  no_method: number;
  not_automatic: number;
  held: number;
}

/** What a run of the charge job would do, and what it would leave out and why. */
export async function forecastCharges(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  reportedMethod: string,
  businessDate: string,
): Promise<ChargeForecast> {
  const [row] = await db.query<ChargeForecast>(
    `with bills as (
       select i.id, i.amount, ${isHeld('i', '$3')} as held, i.collection = 'auto' and i.fell_back_on is null as automatic,
              exists (select from collection_locks l where l.merchant_id = i.merchant_id and l.invoice_id = i.id) as locked,
              exists (select from enrolments e
                      join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
                      where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active'
                        and m.state = 'active' and m.kind = 'card' and m.gateway = $4) as has_method,
              exists (select from charges c
                      where c.merchant_id = i.merchant_id and c.invoice_id = i.id and c.state = 'failed')
                and a.act_on - 1 > coalesce((select complete_to from watermarks w
                                             where w.merchant_id = i.merchant_id and w.method = $5), '-infinity') as too_early
       ${due}
     )
     select count(*) filter (where automatic and not locked and not held and has_method and not too_early) as would_charge,
            coalesce(sum(amount) filter (where automatic and not locked and not held and has_method and not too_early), 0)::bigint as amount,
            count(*) filter (where locked) as locked,
            count(*) filter (where automatic and not locked and not held and has_method and too_early) as waiting_for_reports,
            count(*) filter (where automatic and not locked and not held and not has_method) as no_method,
            count(*) filter (where not automatic and not locked and not held) as not_automatic,
            count(*) filter (where held and not locked) as held
     from bills`,
    [merchantId, 'charge', businessDate, gateway, reportedMethod],
  );
  return (
    row ?? {
      would_charge: 0,
      amount: 0,
      locked: 0,
      waiting_for_reports: 0,
      no_method: 0,
      not_automatic: 0,
      held: 0,
    }
  );
}

/** `off` means that an answered COMMIT may be forgotten: no place for intents to charge. */
export async function fsyncOf(db: Pick<Db, 'query'>): Promise<string> {
  const [row] = await db.query<{ fsync: string }>(`show fsync`);
  return row?.fsync ?? 'unknown';
}

/** Whether the alert of this cause was raised at or after an instant and nobody has acknowledged it. */
export async function wasAlertedSince(
  db: Pick<Db, 'query'>,
  merchantId: number,
  cause: string,
  since: string,
): Promise<boolean> {
  const rows = await db.query(
    `select 1 from alerts
     where merchant_id = $1 and cause = $2 and acknowledged_at is null and resolved_at is null and last_at >= $3::timestamptz`,
    [merchantId, cause, since],
  );
  return rows.length > 0;
}
