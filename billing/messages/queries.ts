import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { UnreachedReason } from '../carriers/carrier.ts';
import type { Db, Tx } from '../db.ts';
import { isHeld } from '../holds/queries.ts';
import { wrongPerson } from '../links/queries.ts';
import { recallNotice } from '../recalls/recall.ts';
import { notInSafeMode } from '../restores/queries.ts';
import { againStep, debitNotice, type MessageState } from './message.ts';
import type { Debit } from './texts.ts';

export interface FileToPlan {
  id: string;
}

/** Released billing files whose first notices are not all planned yet. */
export async function filesToPlan(db: Pick<Db, 'query'>, merchantId: number): Promise<FileToPlan[]> {
  return db.query<FileToPlan>(
    `select id from billing_files
     where merchant_id = $1 and state = 'released' and kind = 'billing' and notices_planned_at is null
     order by settled_at, id`,
    [merchantId],
  );
}

/** Every bill of the file has its first notice, or needs none. Later bills never join a released file. */
export async function markFilePlanned(
  tx: Tx,
  merchantId: number,
  fileId: string,
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `update billing_files set notices_planned_at = $3::timestamptz
     where merchant_id = $1 and id = $2::uuid and notices_planned_at is null`,
    [merchantId, fileId, instantText(at)],
  );
}

export interface NoticeSubject {
  invoice_id: string;
  business_date: string;
  due_on: string;
  settings_version: number;
  phone_kind: 'mobile' | 'not_mobile' | 'none';
  opted_out: boolean;
  wrong_person: boolean;
}

/** Whoever says stop a second time, after a start, means it again. */
export const optOutAgain = `on conflict (merchant_id, phone_digest) do update
       set opted_out_at = excluded.opted_out_at, opted_in_at = null, learned_by = excluded.learned_by`;

/** Whether the phone of a contact `c` said stop. */
const optedOut = `exists (
  select from opt_outs o
  where o.merchant_id = c.merchant_id and o.phone_digest = c.phone_digest and o.opted_in_at is null
)`;

/**
 * Bills of a file that are owed and go by link, parked ones left out (released, they are dunning's to begin with), read once from end to end: asked batch by batch, a database without
 * fresh statistics sorts the whole file anew for each. Whether a bill has its notice already is left to the insert.
 */
export function billsByLink(
  tx: Tx,
  merchantId: number,
  fileId: string,
  batchRows: number,
): AsyncIterable<NoticeSubject[]> {
  return tx.cursor<NoticeSubject>(
    `select i.id as invoice_id, i.business_date, i.due_on, i.settings_version, c.phone_kind, ${optedOut} as opted_out,
            ${wrongPerson} as wrong_person
     from invoices i
     join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
     where i.merchant_id = $1 and i.file_id = $2::uuid and i.collection = 'link' and i.state = 'open'`,
    [merchantId, fileId],
    batchRows,
  );
}

export interface StepSubject extends NoticeSubject {
  collection: 'link' | 'auto';
  fell_back_on: string | null;
  /** The newest link, if there is one. */
  link_version: number | null;
  link_key_id: number | null;
  link_expires_on: string | null;
  link_dead: boolean;
}

export async function stepSubjects(
  tx: Tx,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<StepSubject[]> {
  return tx.query<StepSubject>(
    `select i.id as invoice_id, i.business_date, i.due_on, i.settings_version, c.phone_kind, ${optedOut} as opted_out,
            ${wrongPerson} as wrong_person, i.collection, i.fell_back_on, l.version as link_version, l.key_id as link_key_id, l.expires_on as link_expires_on,
            l.dead_reason is not null as link_dead
     from invoices i
     join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
     left join lateral (
       select version, key_id, expires_on, dead_reason from links
       where merchant_id = i.merchant_id and invoice_id = i.id
       order by version desc limit 1
     ) l on true
     where i.merchant_id = $1 and i.id = any($2::uuid[])
     order by i.id`,
    [merchantId, invoiceIds],
  );
}

export interface NewMessage {
  invoiceId: string;
  step: string;
  plannedOn: string;
  /** Why nothing can be sent: the message is then skipped from the start. */
  skipCode: string | null;
  linkVersion: number | null;
}

/**
 * Automatic bills that are charged for the first time after a day ($2) and by another ($3), and whose customers were not told
 * when and how much: not those that are held or recalled, and not without an agreement and a card, for they go by link.
 */
const toBeDebited = `
  from invoices i
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  where i.merchant_id = $1 and i.collection = 'auto' and i.debit_on > $2::date and i.debit_on <= $3::date
    and i.state = 'open' and i.fell_back_on is null
    and not exists (select from messages m where m.merchant_id = i.merchant_id and m.invoice_id = i.id and m.step = '${debitNotice}')
    and not exists (select from charges c where c.merchant_id = i.merchant_id and c.invoice_id = i.id)
    and not exists (select from recall_bills r where r.merchant_id = i.merchant_id and r.invoice_id = i.id)
    and exists (select from enrolments e
                join payment_methods p on p.merchant_id = e.merchant_id and p.id = e.payment_method_id and p.state = 'active'
                where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active')
    and not ${isHeld('i', '$2')}`;

export async function billsToBeDebited(
  db: Pick<Db, 'query'>,
  merchantId: number,
  after: string,
  by: string,
  limit: number,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(`select i.id ${toBeDebited} order by i.id limit $4`, [
    merchantId,
    after,
    by,
    limit,
  ]);
  return rows.map((row) => row.id);
}

export async function countToBeDebited(
  db: Pick<Db, 'query'>,
  merchantId: number,
  after: string,
  by: string,
): Promise<number> {
  const [row] = await db.query<{ bills: number }>(`select count(*) as bills ${toBeDebited}`, [
    merchantId,
    after,
    by,
  ]);
  return row?.bills ?? 0;
}

/** At most one message for each (bill, step), by the primary key: a second planning changes nothing. */
export async function insertMessages(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  messages: readonly NewMessage[],
): Promise<{ planned: number; skipped: number }> {
  const none = { planned: 0, skipped: 0 };
  if (messages.length === 0) return none;
  const rows = await tx.query<{ planned: number; skipped: number }>(
    `with added as (
       insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on, code, decided_at)
       select $1, m.invoice_id, m.step, case when m.skip_code is null then 'planned' else 'skipped' end, 1,
              m.link_version, m.planned_on, m.skip_code, case when m.skip_code is not null then $2::timestamptz end
       from unnest($3::uuid[], $4::text[], $5::date[], $6::text[], $7::int[])
         as m(invoice_id, step, planned_on, skip_code, link_version)
       on conflict (merchant_id, invoice_id, step) do nothing
       returning state
     )
     select count(*) filter (where state = 'planned') as planned, count(*) filter (where state = 'skipped') as skipped
     from added`,
    [
      merchantId,
      instantText(at),
      messages.map((message) => message.invoiceId),
      messages.map((message) => message.step),
      messages.map((message) => message.plannedOn),
      messages.map((message) => message.skipCode),
      messages.map((message) => message.linkVersion),
    ],
  );
  return rows[0] ?? none;
}

/** By what the text of a message is made again, the same as it was. */
export interface Letterhead {
  due_on: string;
  /** Under which the bill was taken in. */
  settings_version: number;
  customer_number: string;
  sealed: Buffer;
  link_version: number | null;
  link_key_id: number | null;
  token_hash: Buffer | null;
  amount: number;
  debit_on: string | null;
  fell_back_for: string | null;
}

/** What a notice before the debit of a bill says. */
export function debitOf(bill: { amount: number; debit_on: string | null }): Debit | null {
  return bill.debit_on === null ? null : { amount: bill.amount, on: bill.debit_on };
}

export interface ClaimedMessage extends Letterhead {
  invoice_id: string;
  step: string;
  version: number;
  /** `skipped` where the claim found that there is nothing more to say. */
  state: 'sending' | 'skipped';
}

export interface Claim {
  /** YYYY-MM-DD */
  dueOn: string;
  today: string;
  /** ISO 8601 instant: when today began in the merchant's zone. */
  todayFrom: string;
  carrier: string;
  askAt: string;
  limit: number;
  /** So many SMS of a day to one phone; what is more waits. */
  dailyCap: number;
}

/**
 * Takes due messages for sending, and looks at the bill once more: a final bill, a link that ended, a phone that said stop or is
 * somebody else's makes the message `skipped`; a bill that is parked or held or being paid at this moment, or a phone that has had enough for
 * today, waits. Whoever settles a bill skips its planned messages in the same transaction, so the lock on the message row
 * alone keeps "paid" and "sent" in order.
 */
export async function claimMessages(tx: Tx, act: Act, claim: Claim): Promise<ClaimedMessage[]> {
  return tx.query<ClaimedMessage>(
    `with due as (
       select m.invoice_id, m.step, i.due_on, i.settings_version, i.amount, i.debit_on, i.fell_back_for, u.customer_number, c.sealed, c.phone_digest, l.version as link_version,
              l.key_id as link_key_id, l.token_hash, m.planned_on, t.sent_today,
              case when ${optedOut} then 'opted_out'
                   when ${wrongPerson} then 'wrong_person'
                   when m.step = '${recallNotice}' then null
                   when i.state in ('paid', 'unpaid', 'cancelled') then i.state
                   when l.dead_reason is not null then 'link_dead'
                   when l.expires_on < $3::date then 'link_expired'
                   -- Told afterwards it would be no notice.
                   when m.step in ('${debitNotice}', '${againStep(debitNotice)}')
                     and (i.debit_on is null or i.debit_on <= $3::date or i.fell_back_on is not null or exists (
                       select from charges c where c.merchant_id = i.merchant_id and c.invoice_id = i.id)) then 'debit_came'
              end as skip_code
       from messages m
       join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
       join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
       join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
       left join links l on l.merchant_id = m.merchant_id and l.invoice_id = m.invoice_id and l.version = m.link_version
       cross join lateral (
         -- Taken, or perhaps taken.
         select count(*) as sent_today from messages s
         where s.merchant_id = c.merchant_id and s.phone_digest = c.phone_digest and s.claimed_at >= $10::timestamptz
           and s.state in ('sending', 'sent', 'unknown')
       ) t
       where m.merchant_id = $1 and m.state = 'planned' and m.planned_on <= $2::date and i.state <> 'parked'
         and not exists (
           select from collection_locks k where k.merchant_id = m.merchant_id and k.invoice_id = m.invoice_id
         )
         and not ${isHeld('i', '$3')}
         and t.sent_today < $11::int
         and ${notInSafeMode}
       order by m.planned_on, m.invoice_id, m.step
       limit $4
       for update of m skip locked
     ), ranked as (
       -- Several of one phone in this batch: those over its cap stay as they are.
       select *, row_number() over (
                   partition by phone_digest, skip_code is null order by planned_on, invoice_id, step
                 ) as place
       from due
     ), claimed as (
       update messages m
       set state = case when d.skip_code is null then 'sending' else 'skipped' end, version = m.version + 1,
           code = d.skip_code,
           carrier = case when d.skip_code is null then $5 end,
           phone_digest = case when d.skip_code is null then d.phone_digest end,
           claimed_at = case when d.skip_code is null then $6::timestamptz end,
           ask_at = case when d.skip_code is null then $7::timestamptz end,
           decided_at = case when d.skip_code is not null then $6::timestamptz end
       from ranked d
       -- Locked as planned above; asked again here, a database without fresh statistics would read all planned ones.
       where m.merchant_id = $1 and m.invoice_id = d.invoice_id and m.step = d.step
         and (d.skip_code is not null or d.sent_today + d.place <= $11::int)
       returning m.invoice_id, m.step, m.version, m.state, d.due_on, d.settings_version, d.customer_number, d.sealed, d.link_version,
                 d.link_key_id, d.token_hash, d.amount, d.debit_on, d.fell_back_for
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $8::date, 'message:' || step, invoice_id, version, 'planned', state, $6::timestamptz, $9::uuid
       from claimed
     )
     select * from claimed order by invoice_id, step`,
    [
      act.merchantId,
      claim.dueOn,
      claim.today,
      claim.limit,
      claim.carrier,
      instantText(act.at),
      claim.askAt,
      monthOf(act.at),
      act.id,
      claim.todayFrom,
      claim.dailyCap,
    ],
  );
}

export interface MessageOutcome {
  invoiceId: string;
  step: string;
  /** As claimed or asked about: another version means that somebody else settled it. */
  version: number;
  to: MessageState;
  providerId: string | null;
  code: string | null;
  /** Why the phone was not reached, where the carrier said so. */
  unreached: UnreachedReason | null;
  segments: number | null;
  /** For `unknown`: when to ask next; null = a person decides. */
  askAt: string | null;
  asked: boolean;
}

/**
 * Outcomes by compare-and-set; returns how many of them stood. Where a callback has come meanwhile the carrier has the message,
 * whatever became of its answer.
 */
export async function settleMessages(tx: Tx, act: Act, outcomes: readonly MessageOutcome[]): Promise<number> {
  if (outcomes.length === 0) return 0;
  const rows = await tx.query<{ settled: number }>(
    `with outcome as (
       select * from unnest($2::uuid[], $3::text[], $4::int[], $5::text[], $6::text[], $7::text[], $8::smallint[],
                            $9::timestamptz[], $10::boolean[], $14::text[])
         as o(invoice_id, step, version, told_state, provider_id, code, segments, ask_at, asked, unreached)
     ), before as (
       select m.invoice_id, m.step, m.state, case when m.delivery is null then o.told_state else 'sent' end as to_state
       from messages m join outcome o on o.invoice_id = m.invoice_id and o.step = m.step and o.version = m.version
       where m.merchant_id = $1 and m.state in ('sending', 'unknown')
       order by m.invoice_id, m.step
       for update of m
     ), moved as (
       update messages m
       set state = b.to_state, version = m.version + 1, provider_id = coalesce(o.provider_id, m.provider_id),
           code = coalesce(o.code, m.code), unreached = coalesce(o.unreached, m.unreached),
           segments = coalesce(o.segments, m.segments), ask_at = case when b.to_state <> 'sent' then o.ask_at end,
           asks = case when b.to_state = 'planned' then 0 when o.asked then m.asks + 1 else m.asks end,
           claimed_at = case when b.to_state = 'planned' then null else m.claimed_at end,
           decided_at = case when b.to_state in ('sent', 'failed') then $11::timestamptz end
       from outcome o join before b on b.invoice_id = o.invoice_id and b.step = o.step
       where m.merchant_id = $1 and m.invoice_id = o.invoice_id and m.step = o.step and m.version = o.version
         and m.state in ('sending', 'unknown')
       returning m.invoice_id, m.step, m.version, b.state as from_state, m.state, m.phone_digest, m.carrier, o.unreached
     ), opted_out as (
       insert into opt_outs (merchant_id, phone_digest, carrier, learned_by, opted_out_at)
       select distinct on (phone_digest) $1, phone_digest, carrier, 'carrier', $11::timestamptz
       from moved where unreached = 'opted_out' and phone_digest is not null
       ${optOutAgain}
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $12::date, 'message:' || step, invoice_id, version, from_state, state, $11::timestamptz, $13::uuid
       from moved where from_state <> state
     )
     select count(*) as settled from moved`,
    [
      act.merchantId,
      outcomes.map((outcome) => outcome.invoiceId),
      outcomes.map((outcome) => outcome.step),
      outcomes.map((outcome) => outcome.version),
      outcomes.map((outcome) => outcome.to),
      outcomes.map((outcome) => outcome.providerId),
      outcomes.map((outcome) => outcome.code),
      outcomes.map((outcome) => outcome.segments),
      outcomes.map((outcome) => outcome.askAt),
      outcomes.map((outcome) => outcome.asked),
      instantText(act.at),
      monthOf(act.at),
      act.id,
      outcomes.map((outcome) => outcome.unreached),
    ],
  );
  return rows[0]?.settled ?? 0;
}

export interface MessageToAsk extends Letterhead {
  invoice_id: string;
  step: string;
  version: number;
  claimed_at: string;
  asks: number;
  /** What the carrier calls other messages to this phone from about that time. */
  others: string[];
}

/** Sends whose answer never came, and lost answers whose next question is due. */
export async function messagesToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: Temporal.Instant,
  limit: number,
): Promise<MessageToAsk[]> {
  return db.query<MessageToAsk>(
    `select m.invoice_id, m.step, m.version, m.claimed_at, m.asks, i.due_on, i.settings_version, i.amount, i.debit_on, i.fell_back_for, u.customer_number, c.sealed,
            l.version as link_version, l.key_id as link_key_id, l.token_hash,
            array(
              select s.provider_id from messages s
              where s.merchant_id = m.merchant_id and s.phone_digest = m.phone_digest and s.provider_id is not null
                and s.claimed_at >= m.claimed_at - interval '1 hour' and (s.invoice_id, s.step) <> (m.invoice_id, m.step)
            ) as others
     from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
     join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
     left join links l on l.merchant_id = m.merchant_id and l.invoice_id = m.invoice_id and l.version = m.link_version
     where m.merchant_id = $1 and m.state in ('sending', 'unknown') and m.ask_at <= $2::timestamptz
     order by m.ask_at, m.invoice_id, m.step
     limit $3`,
    [merchantId, instantText(now), limit],
  );
}

export interface DueText {
  step: string;
  settings_version: number;
  is_late: boolean;
  has_link: boolean;
  fell_back_for: string | null;
  messages: number;
}

/** What would be sent by the end of a day, by what it says: due messages, and first notices of files not planned yet. */
export async function dueTexts(db: Pick<Db, 'query'>, merchantId: number, dueOn: string): Promise<DueText[]> {
  return db.query<DueText>(
    `select step, settings_version, is_late, has_link, fell_back_for, count(*) as messages from (
       select m.step, i.settings_version, $2::date > i.due_on as is_late, m.link_version is not null as has_link, i.fell_back_for
       from messages m
       join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
       where m.merchant_id = $1 and m.state = 'planned' and m.planned_on <= $2::date and i.state <> 'parked'
         and not exists (
           select from collection_locks k where k.merchant_id = m.merchant_id and k.invoice_id = m.invoice_id
         )
         and not ${isHeld('i', '$2')}
       union all
       select 'first_notice', i.settings_version, false, true, null
       from billing_files f
       join invoices i on i.merchant_id = f.merchant_id and i.file_id = f.id and i.collection = 'link' and i.state = 'open'
       join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
       where f.merchant_id = $1 and f.state = 'released' and f.kind = 'billing' and f.notices_planned_at is null
         and i.business_date <= $2::date and c.phone_kind = 'mobile' and not ${optedOut}
         and not ${wrongPerson}
         and not exists (
           select from messages m where m.merchant_id = $1 and m.invoice_id = i.id and m.step = 'first_notice'
         )
     ) due
     group by step, settings_version, is_late, has_link, fell_back_for
     order by step, settings_version, is_late, has_link, fell_back_for`,
    [merchantId, dueOn],
  );
}

export interface NamedSms {
  provider_id: string;
  invoice_id: string;
  step: string;
}

/** Messages that are known by what the carrier calls them. */
export async function knownSms(
  db: Pick<Db, 'query'>,
  merchantId: number,
  carrier: string,
  listed: readonly { providerId: string; phoneDigest: Buffer }[],
): Promise<NamedSms[]> {
  return db.query<NamedSms>(
    `select m.provider_id, m.invoice_id, m.step
     from unnest($3::text[], $4::bytea[]) as l(provider_id, phone_digest)
     join messages m on m.merchant_id = $1 and m.phone_digest = l.phone_digest and m.provider_id = l.provider_id
     where m.carrier = $2`,
    [merchantId, carrier, listed.map((sms) => sms.providerId), listed.map((sms) => sms.phoneDigest)],
  );
}

export interface StepOfBill {
  step: string;
  planned_on: string;
  provider_id: string | null;
}

export interface AddressedBill {
  phone_digest: Buffer;
  invoice_id: string;
  due_on: string;
  settings_version: number;
  business_date: string;
  amount: number;
  debit_on: string | null;
  /** 0: it has none. */
  newest_link: number;
  steps: StepOfBill[];
}

/** Bills that are told to these phones, the newest first. Reads all contacts: for lists of the outside alone. */
export async function billsOfPhones(
  db: Pick<Db, 'query'>,
  merchantId: number,
  phoneDigests: readonly Buffer[],
): Promise<AddressedBill[]> {
  return db.query<AddressedBill>(
    `select c.phone_digest, i.id as invoice_id, i.due_on, i.settings_version, i.amount, i.debit_on, i.business_date,
            coalesce((select max(l.version) from links l where l.merchant_id = $1 and l.invoice_id = i.id), 0) as newest_link,
            coalesce((select jsonb_agg(jsonb_build_object('step', m.step, 'planned_on', m.planned_on, 'provider_id', m.provider_id)
                                       order by m.planned_on, m.step)
                      from messages m where m.merchant_id = $1 and m.invoice_id = i.id), '[]') as steps
     from contacts c
     join invoices i on i.merchant_id = c.merchant_id and i.customer_id = c.customer_id and i.contact_version = c.version
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where c.merchant_id = $1 and c.phone_digest = any($2::bytea[])
     order by i.business_date desc, i.id`,
    [merchantId, phoneDigests],
  );
}

/** Planned messages whose day has come and whose bill is not parked, held or being paid. */
export async function countDue(db: Pick<Db, 'query'>, merchantId: number, dueOn: string): Promise<number> {
  const rows = await db.query<{ due: number }>(
    `select count(*) as due
     from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     where m.merchant_id = $1 and m.state = 'planned' and m.planned_on <= $2::date and i.state <> 'parked'
       and not exists (
         select from collection_locks k where k.merchant_id = m.merchant_id and k.invoice_id = m.invoice_id
       )
       and not ${isHeld('i', '$2')}`,
    [merchantId, dueOn],
  );
  return rows[0]?.due ?? 0;
}

export async function countToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: Temporal.Instant,
): Promise<number> {
  const rows = await db.query<{ to_ask: number }>(
    `select count(*) as to_ask from messages
     where merchant_id = $1 and state in ('sending', 'unknown') and ask_at <= $2::timestamptz`,
    [merchantId, instantText(now)],
  );
  return rows[0]?.to_ask ?? 0;
}
