import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { LearnedBy } from '../charges/charge.ts';
import type { Db, Tx } from '../db.ts';
import { type CardChangeState, type OpenCardChange, openStates, transitions } from './card-change.ts';

const openColumns = `c.id, c.state, c.gateway, c.deadline_at, c.page_ends_at, c.page_url, c.gateway_session_id, c.asks`;

export interface CardOnFile {
  enrolment_id: string;
  brand: string | null;
  last_four: string | null;
}

/** The card of a contract's standing agreement. Undefined: there is none, or it is on a bank account. */
export async function cardOnFile(
  tx: Tx,
  merchantId: number,
  contractId: string,
): Promise<CardOnFile | undefined> {
  const [row] = await tx.query<CardOnFile & Record<string, unknown>>(
    `select e.id as enrolment_id, p.brand, p.last_four
     from enrolments e
     join payment_methods p on p.merchant_id = e.merchant_id and p.id = e.payment_method_id and p.kind = 'card'
     where e.merchant_id = $1 and e.contract_id = $2::uuid and e.state = 'active'`,
    [merchantId, contractId],
  );
  return row;
}

/** Of these contracts, those whose customer is giving another card at this moment. */
export async function contractsChanging(
  tx: Tx,
  merchantId: number,
  contractIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ contract_id: string }>(
    `select contract_id from card_changes
     where merchant_id = $1 and contract_id = any($2::uuid[]) and state = any($3::text[])`,
    [merchantId, contractIds, openStates],
  );
  return rows.map((row) => row.contract_id);
}

export async function openChangeOf(
  tx: Tx,
  merchantId: number,
  contractId: string,
): Promise<OpenCardChange | undefined> {
  const [row] = await tx.query<OpenCardChange & Record<string, unknown>>(
    `select ${openColumns} from card_changes c
     where c.merchant_id = $1 and c.contract_id = $2::uuid and c.state = any($3::text[])`,
    [merchantId, contractId, openStates],
  );
  return row;
}

export interface NewCardChange {
  id: string;
  contractId: string;
  enrolmentId: string;
  invoiceId: string;
  linkVersion: number;
  gateway: string;
  termsVersion: string;
  deadlineAt: string;
  pageEndsAt: string;
  askAt: string;
}

export async function insertCardChange(tx: Tx, act: Act, change: NewCardChange): Promise<void> {
  await tx.run(
    `with new as (
       insert into card_changes (merchant_id, id, contract_id, enrolment_id, invoice_id, link_version, gateway, state, version,
                                 terms_version, started_at, deadline_at, page_ends_at, ask_at)
       values ($1, $2::uuid, $3::uuid, $4::uuid, $5::uuid, $6, $7, 'processing', 1, $8, $9::timestamptz, $10::timestamptz,
               $11::timestamptz, $12::timestamptz)
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $13::date, 'card_change', id, 1, null, 'processing', $9::timestamptz, $14::uuid from new`,
    [
      act.merchantId,
      change.id,
      change.contractId,
      change.enrolmentId,
      change.invoiceId,
      change.linkVersion,
      change.gateway,
      change.termsVersion,
      instantText(act.at),
      change.deadlineAt,
      change.pageEndsAt,
      change.askAt,
      monthOf(act.at),
      act.id,
    ],
  );
}

/** Compare-and-set: the gateway opened its page. Trace asks when it has ended. False: it was judged without this answer. */
export async function recordSetupPage(
  tx: Tx,
  act: Act,
  page: { id: string; url: string; gatewaySessionId: string; askAt: string },
): Promise<boolean> {
  const moved = await tx.query(
    `with moved as (
       update card_changes set state = 'requires_action', version = version + 1, page_url = $3, gateway_session_id = $4,
                               ask_at = $5::timestamptz
       where merchant_id = $1 and id = $2::uuid and state = 'processing'
       returning id, version
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $6::date, 'card_change', id, version, 'processing', 'requires_action', $7::timestamptz, $8::uuid from moved
     )
     select id from moved`,
    [
      act.merchantId,
      page.id,
      page.url,
      page.gatewaySessionId,
      page.askAt,
      monthOf(act.at),
      instantText(act.at),
      act.id,
    ],
  );
  return moved.length === 1;
}

/** Of these ids, the changes that have no outcome yet. */
export async function openChanges(
  tx: Tx,
  merchantId: number,
  ids: readonly string[],
): Promise<OpenCardChange[]> {
  return tx.query<OpenCardChange & Record<string, unknown>>(
    `select ${openColumns} from card_changes c
     where c.merchant_id = $1 and c.id = any($2::uuid[]) and c.state = any($3::text[]) order by c.id`,
    [merchantId, ids, openStates],
  );
}

/** Changes whose time to be asked about has come. */
export async function changesToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: string,
  limit: number,
): Promise<OpenCardChange[]> {
  return db.query<OpenCardChange & Record<string, unknown>>(
    `select ${openColumns} from card_changes c
     where c.merchant_id = $1 and c.state in ('processing', 'requires_action', 'unknown') and c.ask_at <= $2::timestamptz
     order by c.ask_at, c.id limit $3`,
    [merchantId, now, limit],
  );
}

export async function countChangesToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: string,
): Promise<number> {
  const [row] = await db.query<{ due: number }>(
    `select count(*) as due from card_changes
     where merchant_id = $1 and state in ('processing', 'requires_action', 'unknown') and ask_at <= $2::timestamptz`,
    [merchantId, now],
  );
  return row?.due ?? 0;
}

export interface LockedCardChange {
  id: string;
  state: CardChangeState;
  contract_id: string;
  customer_id: string;
  gateway: string;
  terms_version: string;
  effective_from: string;
  name_digest: Buffer | null;
  /** The agreement is as it was when the customer asked. */
  stands: boolean;
  /** Its card was found to be closed, or to have expired, meanwhile. */
  card_gone: boolean;
}

/** Changes without an outcome and the agreements they are about, held until the transaction ends; contracts first, as by all. */
export async function lockOpenChanges(
  tx: Tx,
  merchantId: number,
  ids: readonly string[],
): Promise<LockedCardChange[]> {
  await tx.run(
    `select 1 from contracts
     where merchant_id = $1
       and id in (select contract_id from card_changes where merchant_id = $1 and id = any($2::uuid[]))
     order by id for no key update`,
    [merchantId, ids],
  );
  return tx.query<LockedCardChange & Record<string, unknown>>(
    `select c.id, c.state, c.contract_id, e.customer_id, c.gateway, c.terms_version, e.effective_from, e.name_digest,
            e.state = 'active' as stands, coalesce(p.ended_for in ('closed', 'expired'), false) as card_gone
     from card_changes c
     join enrolments e on e.merchant_id = c.merchant_id and e.id = c.enrolment_id
     join payment_methods p on p.merchant_id = e.merchant_id and p.id = e.payment_method_id
     where c.merchant_id = $1 and c.id = any($2::uuid[]) and c.state = any($3::text[])
     order by c.id for update of c, e`,
    [merchantId, ids, openStates],
  );
}

export interface CardChangeDecision {
  id: string;
  to: CardChangeState;
  code: string | null;
  newEnrolmentId: string | null;
  /** For `unknown`: when to ask next. */
  askAt: string;
}

/** Compare-and-set of locked changes. Returns those that moved. */
export async function decideChanges(
  tx: Tx,
  act: Act,
  learnedBy: LearnedBy,
  decisions: readonly CardChangeDecision[],
): Promise<string[]> {
  if (decisions.length === 0) return [];
  const from = Object.entries(transitions).flatMap(([before, after]) =>
    after.map((each) => `${before} ${each}`),
  );
  const rows = await tx.query<{ id: string }>(
    `with news as (
       select * from unnest($2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[])
         as n(id, to_state, code, new_enrolment_id, ask_at)
     ), before as (
       select c.id, c.state from card_changes c join news n on n.id = c.id
       where c.merchant_id = $1 and c.state || ' ' || n.to_state = any($7::text[]) order by c.id for update of c
     ), moved as (
       update card_changes c
       set state = n.to_state, version = c.version + 1, code = n.code, new_enrolment_id = n.new_enrolment_id,
           learned_by = case when n.to_state <> 'unknown' then $8 end,
           decided_at = case when n.to_state <> 'unknown' then $9::timestamptz end, ask_at = n.ask_at, asks = c.asks + 1
       from before b join news n on n.id = b.id
       where c.merchant_id = $1 and c.id = b.id
       returning c.id, c.version, b.state as from_state, c.state
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $10::date, 'card_change', id, version, from_state, state, $9::timestamptz, $11::uuid from moved
     )
     select id from moved`,
    [
      act.merchantId,
      decisions.map((each) => each.id),
      decisions.map((each) => each.to),
      decisions.map((each) => each.code),
      decisions.map((each) => each.newEnrolmentId),
      decisions.map((each) => each.askAt),
      from,
      learnedBy,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  return rows.map(({ id }) => id);
}

/** Asked again without news. */
export async function askChangesLater(
  tx: Tx,
  merchantId: number,
  entries: readonly { id: string; askAt: string }[],
): Promise<void> {
  if (entries.length === 0) return;
  await tx.run(
    `update card_changes c set ask_at = e.ask_at, asks = c.asks + 1
     from unnest($2::uuid[], $3::timestamptz[]) as e(id, ask_at)
     where c.merchant_id = $1 and c.id = e.id and c.state = any($4::text[])`,
    [merchantId, entries.map(({ id }) => id), entries.map(({ askAt }) => askAt), openStates],
  );
}

export interface CardChangeNews {
  id: string;
  state: CardChangeState;
  code: string | null;
  page_ends_at: string;
  /** The bill whose link it was asked from is still to be paid. */
  bill_is_open: boolean;
}

export async function changeNews(
  tx: Tx,
  merchantId: number,
  ids: readonly string[],
): Promise<CardChangeNews[]> {
  return tx.query<CardChangeNews & Record<string, unknown>>(
    `select c.id, c.state, c.code, c.page_ends_at, i.state = 'open' as bill_is_open
     from card_changes c
     join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
     where c.merchant_id = $1 and c.id = any($2::uuid[])`,
    [merchantId, ids],
  );
}
