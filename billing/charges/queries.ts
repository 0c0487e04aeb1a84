import { type Act, instantText, monthOf } from '../acts/act.ts';
import { statesBefore as sessionStatesBefore } from '../checkout/session.ts';
import type { Db, Tx } from '../db.ts';
import { notInSafeMode } from '../restores/queries.ts';
import { restsInSafeMode } from '../restores/restore.ts';
import { type ChargeOrigin, type ChargeState, type LearnedBy, statesBefore } from './charge.ts';
import { type IntentState, statesBefore as intentStatesBefore } from './intent.ts';

export interface ChargeInvoice {
  charge_id: string;
  invoice_id: string;
  amount: number;
  currency: string;
  gateway: string;
  origin: ChargeOrigin;
  /** YYYY-MM-DD */
  business_date: string;
}

export async function invoicesOfCharges(
  tx: Tx,
  merchantId: number,
  chargeIds: readonly string[],
): Promise<ChargeInvoice[]> {
  return tx.query<ChargeInvoice>(
    `select id as charge_id, invoice_id, amount, currency, gateway, origin, business_date
     from charges where merchant_id = $1 and id = any($2::uuid[])`,
    [merchantId, chargeIds],
  );
}

export interface NewCharge {
  id: string;
  intentId: string;
  invoiceId: string;
  sessionId: string | null;
  origin: 'link' | 'auto';
  gateway: string;
  paymentMethodId: string | null;
  amount: number;
  currency: string;
  businessDate: string;
  deadlineAt: string;
  /** When trace asks, if nobody recorded an outcome by then. */
  askAt: string;
}

/**
 * The intents of a batch: charge rows in `processing` with gapless attempt numbers, and the lock rows that keep every
 * other way to pay off these bills. A bill that is locked already breaks the lock's primary key: callers hold the
 * invoice rows and have seen that none is. Refusal SAFE_MODE while the database is to learn what it has forgotten.
 */
export async function insertCharges(tx: Tx, act: Act, charges: readonly NewCharge[]): Promise<void> {
  if (charges.length === 0) return;
  const at = instantText(act.at);
  const inserted = await tx.run(
    `with new as (
       select * from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::uuid[],
                            $9::bigint[], $10::text[], $11::date[], $12::timestamptz[], $13::timestamptz[])
         as c(id, intent_id, invoice_id, session_id, origin, gateway, payment_method_id,
              amount, currency, business_date, deadline_at, ask_at)
       where ${notInSafeMode}
     ), inserted as (
       insert into charges (merchant_id, id, intent_id, invoice_id, session_id, attempt_no, origin, gateway,
                            payment_method_id, amount, currency, state, version, business_date, started_at, deadline_at)
       select $1, n.id, n.intent_id, n.invoice_id, n.session_id,
              1 + coalesce((select max(c.attempt_no) from charges c
                            where c.merchant_id = $1 and c.invoice_id = n.invoice_id), 0),
              n.origin, n.gateway, n.payment_method_id, n.amount, n.currency, 'processing', 1, n.business_date,
              $14::timestamptz, n.deadline_at
       from new n
       returning id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $15::date, 'charge', id, 1, null, 'processing', $14::timestamptz, $16::uuid from inserted
     )
     insert into collection_locks (merchant_id, invoice_id, charge_id, locked_at, ask_at)
     select $1, n.invoice_id, n.id, $14::timestamptz, n.ask_at from new n`,
    [
      act.merchantId,
      charges.map((charge) => charge.id),
      charges.map((charge) => charge.intentId),
      charges.map((charge) => charge.invoiceId),
      charges.map((charge) => charge.sessionId),
      charges.map((charge) => charge.origin),
      charges.map((charge) => charge.gateway),
      charges.map((charge) => charge.paymentMethodId),
      charges.map((charge) => charge.amount),
      charges.map((charge) => charge.currency),
      charges.map((charge) => charge.businessDate),
      charges.map((charge) => charge.deadlineAt),
      charges.map((charge) => charge.askAt),
      at,
      monthOf(act.at),
      act.id,
    ],
  );
  if (inserted !== charges.length) throw restsInSafeMode();
}

export interface DecidedCharge {
  id: string;
  from_state: ChargeState;
  invoice_id: string;
  intent_id: string;
  session_id: string | null;
  origin: ChargeOrigin;
  gateway: string;
  amount: number;
  currency: string;
  attempt_no: number;
}

export interface ChargeDecision {
  id: string;
  gatewayChargeId: string | null;
  gatewayCode: string | null;
  network: string | null;
  networkCode: string | null;
  adviceCode: string | null;
  verdict: string | null;
  verdictRule: string | null;
  retryNotBefore: string | null;
}

/** Compare-and-set of many charges to one state: moves those whose state allows it and returns them. */
export async function decideCharges(
  tx: Tx,
  act: Act,
  to: ChargeState,
  learnedBy: LearnedBy,
  decisions: readonly ChargeDecision[],
): Promise<DecidedCharge[]> {
  if (decisions.length === 0) return [];
  return tx.query<DecidedCharge>(
    `with news as (
       select * from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                            $9::text[], $10::timestamptz[])
         as n(id, gateway_charge_id, gateway_code, network, network_code, advice_code, verdict, verdict_rule,
              retry_not_before)
     ), before as (
       select c.id, c.state from charges c join news n on n.id = c.id
       where c.merchant_id = $1 and c.state = any($11::text[])
       order by c.id for update of c
     ), moved as (
       update charges c
       set state = $12, version = c.version + 1, learned_by = $13,
           decided_at = case when $12 in ('succeeded', 'failed', 'canceled') then $14::timestamptz else c.decided_at end,
           gateway_charge_id = coalesce(n.gateway_charge_id, c.gateway_charge_id),
           gateway_code = n.gateway_code, network = n.network, network_code = n.network_code,
           advice_code = n.advice_code, verdict = n.verdict, verdict_rule = n.verdict_rule::jsonb,
           retry_not_before = n.retry_not_before
       from before b join news n on n.id = b.id
       where c.merchant_id = $1 and c.id = b.id and c.state = any($11::text[])
       returning c.id, b.state as from_state, c.version, c.invoice_id, c.intent_id, c.session_id, c.origin, c.gateway,
                 c.amount, c.currency, c.attempt_no
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $15::date, 'charge', id, version, from_state, $12, $14::timestamptz, $16::uuid from moved
     )
     select id, from_state, invoice_id, intent_id, session_id, origin, gateway, amount, currency, attempt_no from moved
     order by id`,
    [
      act.merchantId,
      decisions.map((d) => d.id),
      decisions.map((d) => d.gatewayChargeId),
      decisions.map((d) => d.gatewayCode),
      decisions.map((d) => d.network),
      decisions.map((d) => d.networkCode),
      decisions.map((d) => d.adviceCode),
      decisions.map((d) => d.verdict),
      decisions.map((d) => d.verdictRule),
      decisions.map((d) => d.retryNotBefore),
      statesBefore(to),
      to,
      learnedBy,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
}

/**
 * Intents follow their charge: back to `requires_payment_method` after a failure, so that another method may be tried.
 * Compare-and-set: those whose state does not allow it stay as they are.
 */
export async function moveIntents(
  tx: Tx,
  act: Act,
  intentIds: readonly string[],
  to: IntentState,
): Promise<void> {
  if (intentIds.length === 0) return;
  await tx.run(
    `with before as (
       select id, state from payment_intents
       where merchant_id = $1 and id = any($2::uuid[]) and state = any($7::text[])
       order by id for no key update
     ), moved as (
       update payment_intents p set state = $3, version = p.version + 1
       from before b where p.merchant_id = $1 and p.id = b.id
       returning p.id, b.state as from_state, p.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $4::date, 'payment_intent', id, version, from_state, $3, $5::timestamptz, $6::uuid from moved`,
    [act.merchantId, intentIds, to, monthOf(act.at), instantText(act.at), act.id, intentStatesBefore(to)],
  );
}

/** The saved cards that these charges were declined on are charged no more, for any bill. */
export async function endMethods(tx: Tx, act: Act, chargeIds: readonly string[]): Promise<void> {
  if (chargeIds.length === 0) return;
  await tx.run(
    `with ended as (
       update payment_methods set state = 'ended'
       where merchant_id = $1 and state = 'active'
         and id in (select payment_method_id from charges where merchant_id = $1 and id = any($2::uuid[]))
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $3::date, 'payment_method', id, 2, 'active', 'ended', $4::timestamptz, $5::uuid from ended`,
    [act.merchantId, chargeIds, monthOf(act.at), instantText(act.at), act.id],
  );
}

export async function completeSessions(
  tx: Tx,
  merchantId: number,
  sessionIds: readonly string[],
): Promise<void> {
  if (sessionIds.length === 0) return;
  await tx.run(
    `update checkout_sessions set state = 'complete', version = version + 1
     where merchant_id = $1 and id = any($2::uuid[]) and state = any($3::text[])`,
    [merchantId, sessionIds, sessionStatesBefore('complete')],
  );
}

/** The lock goes only with a conclusive outcome of the very charge that holds it. */
export async function releaseLocks(tx: Tx, merchantId: number, chargeIds: readonly string[]): Promise<void> {
  if (chargeIds.length === 0) return;
  await tx.run(`delete from collection_locks where merchant_id = $1 and charge_id = any($2::uuid[])`, [
    merchantId,
    chargeIds,
  ]);
}

/** Of bills that a shop says are paid: the charge that says so, and so holds their lock. */
export async function preliminaryCovers(
  tx: Tx,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<Map<string, string>> {
  const rows = await tx.query<{ invoice_id: string; charge_id: string }>(
    `select l.invoice_id, l.charge_id from collection_locks l
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id and c.state = 'preliminary'
     where l.merchant_id = $1 and l.invoice_id = any($2::uuid[])`,
    [merchantId, invoiceIds],
  );
  return new Map(rows.map((row) => [row.invoice_id, row.charge_id]));
}

export interface Covered {
  charge_id: string;
  invoice_id: string;
  customer_id: string;
  amount: number;
  currency: string;
  business_date: string;
}

/**
 * Bills that are owed, that a shop says are paid and that nothing else has locked: the first such payment takes the lock.
 * The caller holds the bills' rows.
 */
export async function coverWithPreliminary(
  tx: Tx,
  act: Act,
  invoiceIds: readonly string[],
  askAt: string,
): Promise<Covered[]> {
  if (invoiceIds.length === 0) return [];
  return tx.query<Covered>(
    `with first as (
       select distinct on (c.invoice_id) c.id as charge_id, c.invoice_id, i.customer_id, c.amount, c.currency, c.business_date
       from charges c
       join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id and i.state in ('open', 'parked')
       where c.merchant_id = $1 and c.invoice_id = any($2::uuid[]) and c.state = 'preliminary'
         and not exists (select from collection_locks l
                         where l.merchant_id = c.merchant_id and l.invoice_id = c.invoice_id)
       order by c.invoice_id, c.attempt_no
     ), locked as (
       insert into collection_locks (merchant_id, invoice_id, charge_id, locked_at, ask_at)
       select $1, invoice_id, charge_id, $3::timestamptz, $4::timestamptz from first
     )
     select charge_id, invoice_id, customer_id, amount, currency, business_date from first order by charge_id`,
    [act.merchantId, invoiceIds, instantText(act.at), askAt],
  );
}

export interface NewPayment {
  chargeId: string;
  invoiceId: string;
  customerId: string;
  amount: number;
  currency: string;
  method: string;
  collectedOn: string;
  /** Put on the bill; false = kept as the customer's credit. */
  allocated: boolean;
  creditReason: string;
}

/** Money received, and where it went: on the bill, or to the customer's credit. */
export async function insertPayments(tx: Tx, act: Act, payments: readonly NewPayment[]): Promise<void> {
  if (payments.length === 0) return;
  await tx.run(
    `with new as (
       select * from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::text[], $8::date[],
                            $9::boolean[], $10::text[])
         as p(id, invoice_id, customer_id, amount, currency, method, collected_on, allocated, credit_reason)
     ), payment as (
       insert into payments (merchant_id, id, invoice_id, customer_id, amount, currency, method, collected_on, known_at)
       select $1, id, invoice_id, customer_id, amount, currency, method, collected_on, $11::timestamptz from new
     ), allocation as (
       insert into allocations (merchant_id, payment_id, invoice_id, amount)
       select $1, id, invoice_id, amount from new where allocated
     )
     insert into credits (merchant_id, payment_id, customer_id, amount, reason, created_at)
     select $1, id, customer_id, amount, credit_reason, $11::timestamptz from new where not allocated`,
    [
      act.merchantId,
      payments.map((p) => p.chargeId),
      payments.map((p) => p.invoiceId),
      payments.map((p) => p.customerId),
      payments.map((p) => p.amount),
      payments.map((p) => p.currency),
      payments.map((p) => p.method),
      payments.map((p) => p.collectedOn),
      payments.map((p) => p.allocated),
      payments.map((p) => p.creditReason),
      instantText(act.at),
    ],
  );
}

/** Which of these bills have had money put on them already. */
export async function paidBefore(
  tx: Tx,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<Set<string>> {
  if (invoiceIds.length === 0) return new Set();
  const rows = await tx.query<{ invoice_id: string }>(
    `select distinct invoice_id from allocations where merchant_id = $1 and invoice_id = any($2::uuid[])`,
    [merchantId, invoiceIds],
  );
  return new Set(rows.map((row) => row.invoice_id));
}

/** When trace asks about these charges next; the count grows so that it can back off. */
export async function askLater(
  tx: Tx,
  merchantId: number,
  entries: readonly { chargeId: string; askAt: string }[],
): Promise<void> {
  if (entries.length === 0) return;
  await tx.run(
    `with asked as (
       update charges c set asks = c.asks + 1
       from unnest($2::uuid[]) as e(charge_id) where c.merchant_id = $1 and c.id = e.charge_id
     )
     update collection_locks l set ask_at = e.ask_at
     from unnest($2::uuid[], $3::timestamptz[]) as e(charge_id, ask_at)
     where l.merchant_id = $1 and l.charge_id = e.charge_id`,
    [merchantId, entries.map((entry) => entry.chargeId), entries.map((entry) => entry.askAt)],
  );
}

/** Rows from which autovacuum's own counting is soon enough. */
const fewCharges = 10_000;

/**
 * On the first nights: of tables that were empty when a worker began, the planner goes on believing so, and each foreign key
 * into them is looked up by walking through them, 0.5 ms in a run of 3,000 instead of 5 us, until autovacuum has counted.
 */
export async function countFirstCharges(db: Pick<Db, 'query' | 'run'>): Promise<void> {
  const [known] = await db.query<{ rows: number }>(
    `select reltuples::int as rows from pg_class where oid = 'charges'::regclass`,
  );
  if ((known?.rows ?? 0) < fewCharges) await db.run('analyze payment_intents, charges, payments');
}
