import { type Act, instantText, monthOf } from '../acts/act.ts';
import { type BillRange, cutIntoRanges } from '../autopay/queries.ts';
import type { Db, Tx } from '../db.ts';
import { type CardOutcome, type RefreshState, statesBefore } from './refresh.ts';

export interface RefreshWindow {
  merchantId: number;
  gateway: string;
  /** The last day of charges that are looked at. */
  upTo: string;
  /** Cards are asked about so many days before their charge. */
  days: number;
  /** The gateway has an updater. */
  asks: boolean;
}

const windowValues = ({ merchantId, gateway, upTo, days, asks }: RefreshWindow) => [
  merchantId,
  gateway,
  upTo,
  days,
  asks,
];

/** Bills that are soon to be charged and have no card that may be, or one that was not asked about for this charge. */
const due = `
  from agenda a
  join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
    and i.collection = 'auto' and i.fell_back_on is null
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  left join enrolments e on e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active'
  left join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id and m.state = 'active'
    and (m.kind = 'bank' or m.gateway = $2)
  where a.merchant_id = $1 and a.act = 'charge' and a.act_on <= $3::date
    and not exists (select from recall_bills rb where rb.merchant_id = a.merchant_id and rb.invoice_id = a.invoice_id)
    and not exists (select from collection_locks k where k.merchant_id = a.merchant_id and k.invoice_id = a.invoice_id)
    and case
          when m.id is null then true
          when m.kind = 'bank' or not $5 then false
          else (m.asked_on is null or m.asked_on < a.act_on - $4::int)
            and not exists (select from card_refresh_lines l where l.merchant_id = m.merchant_id
                              and l.payment_method_id = m.id and l.answer is null)
        end`;

export async function rangesToRefresh(
  db: Pick<Db, 'query'>,
  window: RefreshWindow,
  billsPerRange: number,
): Promise<(BillRange & { bills: number })[]> {
  return db.query<BillRange & { bills: number } & Record<string, unknown>>(cutIntoRanges(due, '$6'), [
    ...windowValues(window),
    billsPerRange,
  ]);
}

export interface BillToRefresh {
  invoice_id: string;
  charge_on: string;
  /** Null: there is no card to ask about. */
  payment_method_id: string | null;
  enrolment_id: string | null;
}

export async function billsToRefresh(
  tx: Pick<Tx, 'query'>,
  window: RefreshWindow,
  range: BillRange,
  limit: number,
): Promise<BillToRefresh[]> {
  return tx.query<BillToRefresh & Record<string, unknown>>(
    `select a.invoice_id, a.act_on as charge_on, m.id as payment_method_id, e.id as enrolment_id ${due}
       and a.invoice_id between $6::uuid and $7::uuid
     order by a.invoice_id limit $8`,
    [...windowValues(window), range.from, range.to, limit],
  );
}

/** Of these bills, locked by the caller, those that still have no card that may be charged. */
export async function stillWithoutCard(
  tx: Pick<Tx, 'query'>,
  window: RefreshWindow,
  invoiceIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select a.invoice_id ${due} and m.id is null and a.invoice_id = any($6::uuid[]) order by a.invoice_id`,
    [...windowValues(window), invoiceIds],
  );
  return rows.map((row) => row.invoice_id);
}

/** How many cards and bills without one there are to look at. */
export async function countToRefresh(
  db: Pick<Db, 'query'>,
  window: RefreshWindow,
): Promise<{ cards: number; without_card: number }> {
  const [row] = await db.query<{ cards: number; without_card: number }>(
    `select count(distinct m.id) as cards, count(*) filter (where m.id is null) as without_card ${due}`,
    windowValues(window),
  );
  return row ?? { cards: 0, without_card: 0 };
}

export interface NewRefresh {
  id: string;
  gateway: string;
  businessDate: string;
  cards: readonly { paymentMethodId: string; enrolmentId: string; chargeOn: string }[];
}

/** A question with its cards; those that stand in an open one already are left out, and with none there is no question. Returns how many it has. */
export async function openRefresh(tx: Tx, act: Act, refresh: NewRefresh): Promise<number> {
  const [opened] = await tx.query<{ cards: number }>(
    `with lines as (
       insert into card_refresh_lines (merchant_id, refresh_id, payment_method_id, enrolment_id, charge_on)
       select $1, $2, c.method_id, c.enrolment_id, min(c.charge_on)
       from unnest($8::uuid[], $9::uuid[], $10::date[]) as c(method_id, enrolment_id, charge_on)
       group by c.method_id, c.enrolment_id
       order by c.method_id
       on conflict (merchant_id, payment_method_id) where answer is null do nothing
       returning payment_method_id
     ), made as (
       insert into card_refreshes (merchant_id, id, gateway, business_date, state, version, asked_at)
       select $1, $2::uuid, $3, $4::date, 'asked', 1, $5::timestamptz where exists (select from lines)
       returning id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $6::date, 'card_refresh', id, 1, null, 'asked', $5::timestamptz, $7::uuid from made
     )
     select count(*) as cards from lines`,
    [
      act.merchantId,
      refresh.id,
      refresh.gateway,
      refresh.businessDate,
      instantText(act.at),
      monthOf(act.at),
      act.id,
      refresh.cards.map((card) => card.paymentMethodId),
      refresh.cards.map((card) => card.enrolmentId),
      refresh.cards.map((card) => card.chargeOn),
    ],
  );
  return opened?.cards ?? 0;
}

export interface OpenRefresh {
  id: string;
  state: RefreshState;
  asked_at: string;
}

export async function openRefreshes(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
): Promise<OpenRefresh[]> {
  return db.query<OpenRefresh & Record<string, unknown>>(
    `select id, state, asked_at from card_refreshes
     where merchant_id = $1 and gateway = $2 and state in ('asked', 'accepted') order by id`,
    [merchantId, gateway],
  );
}

/** The question, held until the transaction ends; undefined where it is over. */
export async function lockOpenRefresh(
  tx: Tx,
  merchantId: number,
  id: string,
): Promise<(OpenRefresh & { business_date: string }) | undefined> {
  const [row] = await tx.query<OpenRefresh & { business_date: string }>(
    `select id, state, asked_at, business_date from card_refreshes
     where merchant_id = $1 and id = $2 and state in ('asked', 'accepted') for update`,
    [merchantId, id],
  );
  return row;
}

export interface AskedCard {
  payment_method_id: string;
  enrolment_id: string;
  contract_id: string;
  customer_id: string;
  charge_on: string;
  sealed_token: Buffer;
  brand: string | null;
  last_four: string | null;
  expires: string | null;
  network_transaction_id: string | null;
  three_ds_eci: string | null;
}

/** The cards of a question that have no answer, in the order in which they are asked about. */
export async function askedCards(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  refreshId: string,
): Promise<AskedCard[]> {
  return tx.query<AskedCard & Record<string, unknown>>(
    `select l.payment_method_id, l.enrolment_id, e.contract_id, e.customer_id, l.charge_on, m.sealed_token, m.brand,
            m.last_four, m.expires, m.network_transaction_id, m.three_ds_eci
     from card_refresh_lines l
     join enrolments e on e.merchant_id = l.merchant_id and e.id = l.enrolment_id
     join payment_methods m on m.merchant_id = l.merchant_id and m.id = l.payment_method_id
     where l.merchant_id = $1 and l.refresh_id = $2 and l.answer is null
     order by l.payment_method_id`,
    [merchantId, refreshId],
  );
}

export async function moveRefresh(tx: Tx, act: Act, id: string, to: RefreshState): Promise<void> {
  await tx.run(
    `with before as (
       select id, state from card_refreshes where merchant_id = $1 and id = $2
     ), moved as (
       update card_refreshes set state = $3, version = version + 1,
              answered_at = case when $3 in ('answered', 'given_up') then $4::timestamptz end
       where merchant_id = $1 and id = $2 and state = any($7::text[])
       returning id, version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $5::date, 'card_refresh', m.id, m.version, b.state, $3, $4::timestamptz, $6::uuid
     from moved m join before b on b.id = m.id`,
    [act.merchantId, id, to, instantText(act.at), monthOf(act.at), act.id, statesBefore(to)],
  );
}

export interface CardAnswer {
  paymentMethodId: string;
  outcome: CardOutcome;
  code: string | null;
}

/** Writes down what was answered, once, and when each card was asked about. The cards' rows are locked by the caller. */
export async function answerCards(
  tx: Tx,
  merchantId: number,
  refresh: { id: string; business_date: string },
  answers: readonly CardAnswer[],
): Promise<void> {
  await tx.run(
    `with told as (
       select * from unnest($3::uuid[], $4::text[], $5::text[]) as t(method_id, answer, code)
     ), lines as (
       update card_refresh_lines l set answer = t.answer, code = t.code
       from told t
       where l.merchant_id = $1 and l.refresh_id = $2 and l.payment_method_id = t.method_id and l.answer is null
     )
     update payment_methods m set asked_on = $6::date
     from told t where m.merchant_id = $1 and m.id = t.method_id`,
    [
      merchantId,
      refresh.id,
      answers.map((answer) => answer.paymentMethodId),
      answers.map((answer) => answer.outcome),
      answers.map((answer) => answer.code),
      refresh.business_date,
    ],
  );
}

/** Bills that wait for a charge on these contracts. */
export async function billsOfContracts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  contracts: readonly { customerId: string; contractId: string }[],
): Promise<string[]> {
  if (contracts.length === 0) return [];
  const rows = await tx.query<{ id: string }>(
    `select i.id
     from unnest($2::uuid[], $3::uuid[]) as c(customer_id, contract_id)
     join invoices i on i.merchant_id = $1 and i.customer_id = c.customer_id and i.contract_id = c.contract_id
     join agenda a on a.merchant_id = i.merchant_id and a.invoice_id = i.id and a.act = 'charge'
     where i.state = 'open'
     order by i.id`,
    [merchantId, contracts.map((each) => each.customerId), contracts.map((each) => each.contractId)],
  );
  return rows.map((row) => row.id);
}

/** Locks contracts and cards, in the order of everybody else, and says which agreements still stand with the card asked about. */
export async function lockAgreements(
  tx: Tx,
  merchantId: number,
  cards: readonly AskedCard[],
): Promise<Set<string>> {
  await tx.query(
    `select 1 from contracts where merchant_id = $1 and id = any($2::uuid[]) order by id for no key update`,
    [merchantId, cards.map((card) => card.contract_id)],
  );
  await tx.query(
    `select 1 from payment_methods where merchant_id = $1 and id = any($2::uuid[]) order by id for no key update`,
    [merchantId, cards.map((card) => card.payment_method_id)],
  );
  const rows = await tx.query<{ id: string }>(
    `select e.id
     from unnest($2::uuid[], $3::uuid[]) as c(enrolment_id, method_id)
     join enrolments e on e.merchant_id = $1 and e.id = c.enrolment_id
     where e.state = 'active' and e.payment_method_id = c.method_id`,
    [merchantId, cards.map((card) => card.enrolment_id), cards.map((card) => card.payment_method_id)],
  );
  return new Set(rows.map((row) => row.id));
}

/** These cards are charged no more. */
export async function endCards(
  tx: Tx,
  act: Act,
  cards: readonly { paymentMethodId: string; endedFor: 'replaced' | 'closed' | 'expired' }[],
): Promise<void> {
  if (cards.length === 0) return;
  await tx.run(
    `with ended as (
       update payment_methods m set state = 'ended', ended_for = c.ended_for
       from unnest($2::uuid[], $3::text[]) as c(id, ended_for)
       where m.merchant_id = $1 and m.id = c.id and m.state = 'active'
       returning m.id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $4::date, 'payment_method', id, 2, 'active', 'ended', $5::timestamptz, $6::uuid from ended`,
    [
      act.merchantId,
      cards.map((card) => card.paymentMethodId),
      cards.map((card) => card.endedFor),
      monthOf(act.at),
      instantText(act.at),
      act.id,
    ],
  );
}

export interface Successor {
  id: string;
  replacesId: string;
  enrolmentId: string;
  sealedToken: Buffer;
  keyId: number;
  brand: string;
  lastFour: string;
  expires: string;
  networkTransactionId: string | null;
  threeDsEci: string | null;
}

/** New cards in the place of old ones: the agreement stays as it is, under its own name and terms. */
export async function succeedCards(
  tx: Tx,
  act: Act,
  askedOn: string,
  successors: readonly Successor[],
): Promise<void> {
  if (successors.length === 0) return;
  const values = [
    act.merchantId,
    successors.map((each) => each.id),
    successors.map((each) => each.replacesId),
    successors.map((each) => each.enrolmentId),
  ];
  await tx.run(
    `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four, expires,
                                  network_transaction_id, three_ds_eci, state, created_at, replaces_id, asked_on)
     select $1, s.id, m.customer_id, m.gateway, m.kind, s.sealed_token, s.key_id, s.brand, s.last_four, s.expires,
            coalesce(s.network_transaction_id, m.network_transaction_id), coalesce(s.three_ds_eci, m.three_ds_eci),
            'active', $5::timestamptz, m.id, $6::date
     from unnest($2::uuid[], $3::uuid[], $4::uuid[], $7::bytea[], $8::smallint[], $9::text[], $10::text[], $11::text[],
                 $12::text[], $13::text[])
       as s(id, replaces_id, enrolment_id, sealed_token, key_id, brand, last_four, expires, network_transaction_id, three_ds_eci)
     join payment_methods m on m.merchant_id = $1 and m.id = s.replaces_id`,
    [
      ...values,
      instantText(act.at),
      askedOn,
      successors.map((each) => each.sealedToken),
      successors.map((each) => each.keyId),
      successors.map((each) => each.brand),
      successors.map((each) => each.lastFour),
      successors.map((each) => each.expires),
      successors.map((each) => each.networkTransactionId),
      successors.map((each) => each.threeDsEci),
    ],
  );
  await tx.run(
    `update enrolments e set payment_method_id = s.id
     from unnest($2::uuid[], $3::uuid[], $4::uuid[]) as s(id, replaces_id, enrolment_id)
     where e.merchant_id = $1 and e.id = s.enrolment_id and e.payment_method_id = s.replaces_id`,
    values,
  );
}
