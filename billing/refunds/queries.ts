import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { notInSafeMode } from '../restores/queries.ts';
import { type AskedFor, type OpenRefund, type RefundState, statesBefore } from './refund.ts';

const openColumns = `r.id, r.charge_id, r.invoice_id, r.recall_id, r.gateway, c.gateway_charge_id, r.amount, r.currency, r.state,
  r.code, r.started_at, r.deadline_at, r.asks`;

export interface Refundable {
  charge_id: string;
  invoice_id: string;
  gateway: string;
  /** What is left of the payment. */
  amount: number;
  currency: string;
}

/**
 * Payments of bills that a recall gives back and of which something is left, locked: nobody else gives it back meanwhile. Of a
 * bill whose refund was refused those that were not asked about: another payment, or one that came later.
 */
export async function lockRefundable(
  tx: Tx,
  merchantId: number,
  recallId: string,
  limit: number,
): Promise<Refundable[]> {
  return tx.query<Refundable>(
    `select p.id as charge_id, p.invoice_id, c.gateway, p.amount - p.refunded - p.reused as amount, p.currency
     from recall_bills b
     join payments p on p.merchant_id = b.merchant_id and p.invoice_id = b.invoice_id and p.refunded + p.reused < p.amount
     join charges c on c.merchant_id = p.merchant_id and c.id = p.id
     where b.merchant_id = $1 and b.recall_id = $2::uuid and ${notInSafeMode}
       and (b.state = 'refunding'
            or b.state = 'refused' and not exists (
              select from refunds f where f.merchant_id = p.merchant_id and f.charge_id = p.id and f.recall_id = b.recall_id
                and f.state = 'failed'))
       and not exists (select from refunds r
                       where r.merchant_id = p.merchant_id and r.charge_id = p.id and r.state in ('processing', 'unknown'))
     order by p.id limit $3
     for update of p`,
    [merchantId, recallId, limit],
  );
}

/** The intents: from here on the sums count as given back. The payment's own check refuses what is too much. */
export async function insertRefunds(
  tx: Tx,
  act: Act,
  askedFor: AskedFor,
  refunds: readonly (Refundable & { id: string })[],
  times: { deadlineAt: string; askAt: string },
): Promise<void> {
  if (refunds.length === 0) return;
  await tx.run(
    `with new as (
       select * from unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::bigint[], $8::text[])
         as r(id, charge_id, invoice_id, gateway, amount, currency)
     ), reserved as (
       update payments p set refunded = p.refunded + n.amount
       from new n where p.merchant_id = $1 and p.id = n.charge_id
     ), inserted as (
       insert into refunds (merchant_id, id, charge_id, invoice_id, recall_id, gateway, amount, currency, state, version,
                            started_at, deadline_at, ask_at, asked_by, reason)
       select $1, id, charge_id, invoice_id, $2::uuid, gateway, amount, currency, 'processing', 1,
              $9::timestamptz, $10::timestamptz, $11::timestamptz, $14, $15
       from new returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $12::date, 'refund', id, 1, null, 'processing', $9::timestamptz, $13::uuid from inserted`,
    [
      act.merchantId,
      'recallId' in askedFor ? askedFor.recallId : null,
      refunds.map((refund) => refund.id),
      refunds.map((refund) => refund.charge_id),
      refunds.map((refund) => refund.invoice_id),
      refunds.map((refund) => refund.gateway),
      refunds.map((refund) => refund.amount),
      refunds.map((refund) => refund.currency),
      instantText(act.at),
      times.deadlineAt,
      times.askAt,
      monthOf(act.at),
      act.id,
      'by' in askedFor ? askedFor.by : null,
      'by' in askedFor ? askedFor.reason : null,
    ],
  );
}

export async function refundsById(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  ids: readonly string[],
): Promise<OpenRefund[]> {
  return tx.query<OpenRefund>(
    `select ${openColumns} from refunds r
     join charges c on c.merchant_id = r.merchant_id and c.id = r.charge_id
     where r.merchant_id = $1 and r.id = any($2::uuid[]) order by r.id`,
    [merchantId, ids],
  );
}

/** Refunds whose outcome nobody recorded and whose next question is due. */
export async function refundsToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: string,
  limit: number,
): Promise<OpenRefund[]> {
  return db.query<OpenRefund>(
    `select ${openColumns} from refunds r
     join charges c on c.merchant_id = r.merchant_id and c.id = r.charge_id
     where r.merchant_id = $1 and r.state in ('processing', 'unknown') and r.ask_at <= $2::timestamptz
     order by r.ask_at, r.id limit $3`,
    [merchantId, now, limit],
  );
}

export interface RefundDecision {
  id: string;
  to: RefundState;
  gatewayRefundId: string | null;
  code: string | null;
  /** For `unknown`: when to ask next. */
  askAt: string;
}

export interface DecidedRefund {
  id: string;
  gateway: string;
  charge_id: string;
  invoice_id: string;
  customer_id: string;
  amount: number;
  currency: string;
  state: RefundState;
  /** The payment had been put on its bill; false = it was the customer's credit. */
  allocated: boolean;
}

/**
 * Compare-and-set of many refunds to one state; returns those that moved. A refund that came to nothing frees its sum. The
 * payment is locked first, as by whoever begins a refund.
 */
export async function decideRefunds(
  tx: Tx,
  act: Act,
  to: RefundState,
  decisions: readonly RefundDecision[],
): Promise<DecidedRefund[]> {
  if (decisions.length === 0) return [];
  return tx.query<DecidedRefund>(
    `with news as (
       select * from unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[]) as n(id, gateway_refund_id, code, ask_at)
     ), before as (
       select r.id, r.state from refunds r join news n on n.id = r.id
       where r.merchant_id = $1 and r.state = any($6::text[]) order by r.id for update of r
     ), moved as (
       update refunds r
       set state = $7, version = r.version + 1, code = n.code, ask_at = n.ask_at, asks = r.asks + 1,
           gateway_refund_id = coalesce(n.gateway_refund_id, r.gateway_refund_id),
           decided_at = case when $7 <> 'unknown' then $8::timestamptz end
       from before b join news n on n.id = b.id
       where r.merchant_id = $1 and r.id = b.id and r.state = any($6::text[])
       returning r.id, r.gateway, r.charge_id, r.invoice_id, r.amount, r.currency, r.state, r.version, b.state as from_state
     ), freed as (
       update payments p set refunded = p.refunded - m.amount
       from moved m where p.merchant_id = $1 and p.id = m.charge_id and $7 in ('failed', 'canceled')
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $9::date, 'refund', id, version, from_state, $7, $8::timestamptz, $10::uuid from moved
     )
     select m.id, m.gateway, m.charge_id, m.invoice_id, p.customer_id, m.amount, m.currency, m.state,
            exists (select from allocations a where a.merchant_id = $1 and a.payment_id = m.charge_id) as allocated
     from moved m join payments p on p.merchant_id = $1 and p.id = m.charge_id
     order by m.id`,
    [
      act.merchantId,
      decisions.map((each) => each.id),
      decisions.map((each) => each.gatewayRefundId),
      decisions.map((each) => each.code),
      decisions.map((each) => each.askAt),
      statesBefore(to),
      to,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
}

/** Asked again without news. */
export async function askRefundsLater(
  tx: Tx,
  merchantId: number,
  entries: readonly { id: string; askAt: string }[],
): Promise<void> {
  if (entries.length === 0) return;
  await tx.run(
    `update refunds r set ask_at = e.ask_at, asks = r.asks + 1
     from unnest($2::uuid[], $3::timestamptz[]) as e(id, ask_at)
     where r.merchant_id = $1 and r.id = e.id and r.state = 'unknown'`,
    [merchantId, entries.map((entry) => entry.id), entries.map((entry) => entry.askAt)],
  );
}

/** Refunds without an outcome after so many questions. */
export async function countLongUnknown(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  asks: number,
): Promise<number> {
  const [row] = await tx.query<{ long: number }>(
    `select count(*) as long from refunds
     where merchant_id = $1 and state in ('processing', 'unknown') and asks >= $2`,
    [merchantId, asks],
  );
  return row?.long ?? 0;
}

/** A payment as a person sees it who wants to give it back. */
export interface KnownPayment {
  charge_id: string;
  invoice_id: string;
  billing_number: string;
  gateway: string;
  method: string;
  collected_on: string;
  /** A shop took the money days before it is certain. */
  paid_on: string;
  amount: number;
  currency: string;
  /** Given back, or perhaps given back. */
  refunded: number;
  /** Put on other bills. */
  reused: number;
  left: number;
  /** Too much: it is on no bill, or not on its own. */
  is_credit: boolean;
  recalled: boolean;
}

const known = `
  select p.id as charge_id, p.invoice_id, i.billing_number, c.gateway, p.method, p.collected_on,
         least(p.collected_on, c.business_date) as paid_on, p.amount, p.currency, p.refunded,
         p.reused, p.amount - p.refunded - p.reused as left,
         exists (select from credits k where k.merchant_id = p.merchant_id and k.payment_id = p.id) as is_credit,
         exists (select from recall_bills r where r.merchant_id = p.merchant_id and r.invoice_id = p.invoice_id) as recalled
  from payments p
  join charges c on c.merchant_id = p.merchant_id and c.id = p.id
  join invoices i on i.merchant_id = p.merchant_id and i.id = p.invoice_id`;

/** Payments of a bill, or the one with this id. */
export async function paymentsOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  by: { billingNumber: string; id: string | null },
): Promise<KnownPayment[]> {
  return db.query<KnownPayment & Record<string, unknown>>(
    `${known} where p.merchant_id = $1 and (i.billing_number = $2 or p.id = $3::uuid) order by p.known_at, p.id`,
    [merchantId, by.billingNumber, by.id],
  );
}

/** Nobody else begins a refund of it, or puts it on a bill, until the transaction ends. */
export async function lockPayment(
  tx: Tx,
  merchantId: number,
  chargeId: string,
): Promise<KnownPayment | undefined> {
  await tx.query(`select 1 from payments where merchant_id = $1 and id = $2::uuid for update`, [
    merchantId,
    chargeId,
  ]);
  // A second statement: its snapshot is younger than the lock.
  const [payment] = await tx.query<KnownPayment & Record<string, unknown>>(
    `${known} where p.merchant_id = $1 and p.id = $2::uuid`,
    [merchantId, chargeId],
  );
  return payment;
}

export interface RefundOfPayment {
  id: string;
  amount: number;
  state: RefundState;
  started_at: string;
  /** Null: a recall. */
  asked_by: string | null;
  reason: string | null;
}

export async function refundsOfPayment(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  chargeId: string,
): Promise<RefundOfPayment[]> {
  return tx.query<RefundOfPayment & Record<string, unknown>>(
    `select id, amount, state, started_at, asked_by, reason from refunds
     where merchant_id = $1 and charge_id = $2::uuid order by started_at, id`,
    [merchantId, chargeId],
  );
}

export interface ListedRefund {
  merchant: string;
  id: string;
  billing_number: string;
  charge_id: string;
  amount: number;
  currency: string;
  state: RefundState;
  code: string | null;
  /** Who gave it: a gateway, or `merchant`. */
  gateway: string;
  started_at: string;
  decided_at: string | null;
  asked_by: string;
  reason: string;
}

/** The newest first. */
export async function listRefunds(
  db: Pick<Db, 'query'>,
  merchantId: number | null,
  limit: number,
): Promise<ListedRefund[]> {
  return db.query<ListedRefund & Record<string, unknown>>(
    `select m.code as merchant, r.id, i.billing_number, r.charge_id, r.amount, r.currency, r.state, r.code, r.gateway, r.started_at,
            r.decided_at, coalesce(r.asked_by, l.begun_by) as asked_by, coalesce(r.reason, 'recall of ' || f.name) as reason
     from refunds r
     join merchants m on m.id = r.merchant_id
     join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
     left join recalls l on l.merchant_id = r.merchant_id and l.id = r.recall_id
     left join billing_files f on f.merchant_id = l.merchant_id and f.id = l.file_id
     where $1::int is null or r.merchant_id = $1
     order by r.started_at desc, r.id desc limit $2`,
    [merchantId, limit],
  );
}
