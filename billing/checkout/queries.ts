import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { ChargeState } from '../charges/charge.ts';
import { statesBefore } from '../charges/charge.ts';
import { statesBefore as intentStatesBefore } from '../charges/intent.ts';
import type { Db, Tx } from '../db.ts';
import type { PageMethod } from '../gateways/gateway.ts';
import type { InvoiceState } from '../invoices/invoice.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { notInSafeMode } from '../restores/queries.ts';
import type { BillRow } from './bill.ts';
import { statesBefore as sessionStatesBefore } from './session.ts';

export interface LinkRow {
  invoice_id: string;
  version: number;
}

/** Links of bills whose file is not released do not exist yet. */
export async function linkByHash(
  tx: Tx,
  merchantId: number,
  tokenHash: Buffer,
): Promise<LinkRow | undefined> {
  const [row] = await tx.query<LinkRow>(
    `select l.invoice_id, l.version
     from links l
     join invoices i on i.merchant_id = l.merchant_id and i.id = l.invoice_id
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where l.merchant_id = $1 and l.token_hash = $2`,
    [merchantId, tokenHash],
  );
  return row;
}

const shownColumns = `
  i.id as invoice_id, i.state, i.billing_number, c.customer_number, i.contract_id, i.amount, i.currency,
  i.billing_period, i.due_on, i.description, i.usage_from, i.usage_to, l.expires_on, l.dead_reason, l.cool_until,
  not ${notInSafeMode} as resting, m.settings_version,
  coalesce((select json_agg(line) from (
              select t.description, t.tax_rate, t.taxable_amount, t.tax_amount, t.issuer_registration_number
              from invoice_tax_lines t where t.merchant_id = i.merchant_id and t.invoice_id = i.id
              order by t.line_no) line), '[]') as tax_lines`;

/** Links are made for bills of released files alone, and a file that is released stays so: it is not asked again here. */
const shownFrom = `
  from invoices i
  join merchants m on m.id = i.merchant_id
  join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id
  join links l on l.merchant_id = i.merchant_id and l.invoice_id = i.id and l.version = $3`;

const shownWhere = `where i.merchant_id = $1 and i.id = $2::uuid`;

/** Of a bill that nobody has paid or is paying, under no agreement: most that are opened. */
const untouchedBill = `
  select ${shownColumns},
         null as charge_origin, null as charge_state, null as hosted_page_url, null as gateway_session_id,
         null as session_enrol, null as session_method, null as session_expires_at,
         null as enrolled_by, null as paid_on, null as paid_by, 0 as paid_back,
         (select k.charge_id from collection_locks k
          where k.merchant_id = i.merchant_id and k.invoice_id = i.id) as charge_id,
         (select e.id from enrolments e
          where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active') as enrolment_id
  ${shownFrom}
  ${shownWhere}`;

const touchedBill = `
  select ${shownColumns},
         k.charge_id, ch.origin as charge_origin, ch.state as charge_state, ch.hosted_page_url, ch.gateway_session_id,
         s.enrol as session_enrol, s.method as session_method, s.expires_at as session_expires_at,
         (select m.kind from enrolments e
          join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
          where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active') as enrolled_by,
         p.collected_on as paid_on, p.method as paid_by, coalesce(p.refunded, 0) as paid_back
  ${shownFrom}
  left join collection_locks k on k.merchant_id = i.merchant_id and k.invoice_id = i.id
  left join charges ch on ch.merchant_id = k.merchant_id and ch.id = k.charge_id
  left join checkout_sessions s on s.merchant_id = ch.merchant_id and s.id = ch.session_id
  left join lateral (
    select collected_on, method, refunded from payments
    where merchant_id = i.merchant_id and invoice_id = i.id
    order by known_at, id limit 1
  ) p on i.state = 'paid'
  ${shownWhere}`;

/**
 * All that a page shows, in one statement: a page is little else than round trips, and of a morning's 200,000 bills few
 * have more than their own to show. One that has is read again as a whole, not from two moments: all tables at once
 * cost PostgreSQL 145 us, the eight of an untouched bill about 90.
 */
export async function billOfLink(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceId: string,
  linkVersion: number,
): Promise<BillRow | undefined> {
  const values = [merchantId, invoiceId, linkVersion];
  const [bill] = await tx.query<BillRow & { enrolment_id: string | null }>(untouchedBill, values);
  const isTouched = bill && (bill.state === 'paid' || bill.charge_id !== null || bill.enrolment_id !== null);
  if (!isTouched) return bill;
  const [touched] = await tx.query<BillRow>(touchedBill, values);
  return touched;
}

export interface LockedLink {
  customer_number: string;
  wrong_tries: number;
  cool_until: string | null;
  /** A visitor asked for it: it went to the customer's own phone after all that was guessed before. */
  is_fresh: boolean;
}

/** Tries on one link come one after the other, so that a hundred at once do not count as one. */
export async function lockLink(
  tx: Tx,
  merchantId: number,
  invoiceId: string,
  linkVersion: number,
): Promise<LockedLink | undefined> {
  const [row] = await tx.query<LockedLink>(
    `select c.customer_number, l.wrong_tries, l.cool_until,
            exists (select from messages m
                    where m.merchant_id = l.merchant_id and m.invoice_id = l.invoice_id and m.link_version = l.version
                      and m.step like 'fresh_link:%') as is_fresh
     from links l
     join invoices i on i.merchant_id = l.merchant_id and i.id = l.invoice_id
     join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id
     where l.merchant_id = $1 and l.invoice_id = $2::uuid and l.version = $3
     for update of l`,
    [merchantId, invoiceId, linkVersion],
  );
  return row;
}

export async function setTries(
  tx: Tx,
  merchantId: number,
  invoiceId: string,
  linkVersion: number,
  wrongTries: number,
  coolUntil: string | null,
): Promise<void> {
  await tx.run(
    `update links set wrong_tries = $4, cool_until = $5::timestamptz
     where merchant_id = $1 and invoice_id = $2::uuid and version = $3`,
    [merchantId, invoiceId, linkVersion, wrongTries, coolUntil],
  );
}

/** Null: the network may try. */
export async function networkCoolsUntil(
  tx: Tx,
  merchantId: number,
  networkDigest: Buffer,
): Promise<string | null> {
  const [row] = await tx.query<{ cool_until: string | null }>(
    `select cool_until from failed_checks where merchant_id = $1 and network_digest = $2`,
    [merchantId, networkDigest],
  );
  return row?.cool_until ?? null;
}

/**
 * Counts one wrong answer, of its network and of the merchant. A count whose first one is older than `since` begins anew,
 * a network's only after as long without any; networks that were quiet for so long are forgotten with the merchant's.
 */
export async function countFailure(
  tx: Tx,
  merchantId: number,
  failure: { networkDigest: Buffer | null; now: Temporal.Instant; since: Temporal.Instant },
): Promise<{ ofNetwork: number; ofAll: number }> {
  const { networkDigest, now, since } = failure;
  const rows = await tx.query<{ of_all: boolean; tries: number }>(
    `insert into failed_checks as f (merchant_id, network_digest, tries, since, last_at)
     select $1, digest, 1, $3::timestamptz, $3::timestamptz
     from unnest($2::bytea[]) as d(digest)
     order by digest desc
     on conflict (merchant_id, network_digest) do update
       set tries = case when case when f.network_digest = '' then f.since else f.last_at end < $4::timestamptz then 1
                        else f.tries + 1 end,
           since = case when f.since < $4::timestamptz then $3::timestamptz else f.since end,
           last_at = $3::timestamptz
     returning network_digest = '' as of_all, tries`,
    [
      merchantId,
      networkDigest === null ? [Buffer.alloc(0)] : [networkDigest, Buffer.alloc(0)],
      instantText(now),
      instantText(since),
    ],
  );
  const triesOf = (all: boolean) => rows.find((row) => row.of_all === all)?.tries ?? 0;
  if (triesOf(true) === 1) {
    await tx.run(
      `delete from failed_checks
       where merchant_id = $1 and last_at < $2::timestamptz and (cool_until is null or cool_until < $2::timestamptz)`,
      [merchantId, instantText(since)],
    );
  }
  return { ofNetwork: triesOf(false), ofAll: triesOf(true) };
}

export async function coolNetwork(
  tx: Tx,
  merchantId: number,
  networkDigest: Buffer,
  until: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `update failed_checks set cool_until = $3::timestamptz where merchant_id = $1 and network_digest = $2`,
    [merchantId, networkDigest, instantText(until)],
  );
}

/** A new visit to pay ends the former ones of the bill: none of them holds the lock. */
export async function endFormerSessions(tx: Tx, act: Act, invoiceId: string): Promise<void> {
  await tx.run(
    `with sessions as (
       update checkout_sessions set state = 'expired', version = version + 1
       where merchant_id = $1 and invoice_id = $2::uuid and state = any($6::text[])
       returning id
     ), before as (
       -- By the bill's charges: intents have no index by session.
       select p.id, p.state from sessions s
       join charges c on c.merchant_id = $1 and c.invoice_id = $2::uuid and c.session_id = s.id
       join payment_intents p on p.merchant_id = $1 and p.id = c.intent_id
       where p.state = any($7::text[])
       order by p.id for no key update of p
     ), intents as (
       update payment_intents p set state = 'canceled', version = p.version + 1
       from before b where p.merchant_id = $1 and p.id = b.id
       returning p.id, b.state as from_state, p.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $3::date, 'payment_intent', id, version, from_state, 'canceled', $4::timestamptz, $5::uuid from intents`,
    [
      act.merchantId,
      invoiceId,
      monthOf(act.at),
      instantText(act.at),
      act.id,
      sessionStatesBefore('expired'),
      intentStatesBefore('canceled'),
    ],
  );
}

export interface NewSession {
  sessionId: string;
  intentId: string;
  invoiceId: string;
  linkVersion: number;
  language: string;
  method: PageMethod;
  enrol: boolean;
  termsVersion: string | null;
  expiresAt: string;
  amount: number;
  currency: string;
}

export async function insertSession(tx: Tx, act: Act, session: NewSession): Promise<void> {
  const at = instantText(act.at);
  await tx.run(
    `insert into checkout_sessions (merchant_id, id, invoice_id, link_version, state, version, language, enrol,
                                    terms_version, terms_accepted_at, started_at, expires_at, method)
     values ($1, $2::uuid, $3::uuid, $4, 'open', 1, $5, $6, $7, case when $6 then $8::timestamptz end, $8::timestamptz,
             $9::timestamptz, $10)`,
    [
      act.merchantId,
      session.sessionId,
      session.invoiceId,
      session.linkVersion,
      session.language,
      session.enrol,
      session.termsVersion,
      at,
      session.expiresAt,
      session.method,
    ],
  );
  await tx.run(
    `with new as (
       insert into payment_intents (merchant_id, id, invoice_id, session_id, origin, amount, currency, state, version,
                                    created_at)
       values ($1, $2::uuid, $3::uuid, $4::uuid, 'link', $5, $6, 'processing', 1, $7::timestamptz)
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $8::date, 'payment_intent', id, 1, null, 'processing', $7::timestamptz, $9::uuid from new`,
    [
      act.merchantId,
      session.intentId,
      session.invoiceId,
      session.sessionId,
      session.amount,
      session.currency,
      at,
      monthOf(act.at),
      act.id,
    ],
  );
}

/** Compare-and-set: the gateway opened its page. Trace asks when the page has ended. False: the charge was decided meanwhile. */
export async function recordHostedPage(
  tx: Tx,
  act: Act,
  page: { chargeId: string; url: string; gatewaySessionId: string; askAt: string },
): Promise<boolean> {
  const moved = await tx.query(
    `with before as (
       select id, state from charges where merchant_id = $1 and id = $2::uuid and state = any($3::text[]) for update
     ), moved as (
       update charges c
       set state = 'requires_action', version = c.version + 1, hosted_page_url = $4, gateway_session_id = $5
       from before b
       where c.merchant_id = $1 and c.id = b.id
       returning c.id, b.state as from_state, c.version
     ), lock as (
       update collection_locks l set ask_at = $6::timestamptz
       from moved where l.merchant_id = $1 and l.charge_id = moved.id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $7::date, 'charge', id, version, from_state, 'requires_action', $8::timestamptz, $9::uuid from moved
     )
     select id from moved`,
    [
      act.merchantId,
      page.chargeId,
      statesBefore('requires_action'),
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

export interface ChargeNews {
  charge_id: string;
  state: ChargeState;
  invoice_state: InvoiceState;
  gateway: string;
  gateway_session_id: string | null;
  amount: number;
  currency: string;
  enrolled: boolean;
  /** Null: no page of the gateway's was opened for it. */
  session_method: PageMethod | null;
  /** The page was left, closed or ran out: no card was declined. */
  was_left: boolean;
}

export async function chargeNews(
  tx: Tx,
  merchantId: number,
  chargeIds: readonly string[],
): Promise<ChargeNews[]> {
  return tx.query<ChargeNews>(
    `select c.id as charge_id, c.state, i.state as invoice_state, c.gateway, c.gateway_session_id,
            c.amount, c.currency, s.method as session_method,
            coalesce(c.gateway_code in ('page_closed', 'page_expired', 'page_cancelled'), false) as was_left,
            coalesce(s.enrol, false) and exists (
              select 1 from enrolments e
              where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active') as enrolled
     from charges c
     join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
     left join checkout_sessions s on s.merchant_id = c.merchant_id and s.id = c.session_id
     where c.merchant_id = $1 and c.id = any($2::uuid[])`,
    [merchantId, chargeIds],
  );
}

/** Merchants are known to every role; what is theirs is not. */
export async function merchantIdOf(
  db: Pick<Tx, 'query'>,
  by: { shortCode: string } | { code: string },
): Promise<number | undefined> {
  const [row] = await db.query<{ id: number }>(
    `select id from merchants where short_code = $1 or code = $2`,
    'code' in by ? [null, by.code] : [by.shortCode, null],
  );
  return row?.id;
}

/** The image of a merchant's pages, as the settings of that version have it. */
export async function logoOf(db: Db, shortCode: string, settingsVersion: number): Promise<string | null> {
  const merchantId = await merchantIdOf(db, { shortCode });
  if (merchantId === undefined) return null;
  return db.transaction(
    async (tx) => {
      const [row] = await tx.query<{ logo: string | null }>(
        `select settings #>> '{checkout,brand,logo}' as logo from merchant_settings
         where merchant_id = $1 and version = $2`,
        [merchantId, settingsVersion],
      );
      return row?.logo ?? null;
    },
    { merchantId },
  );
}

export async function merchantOf(tx: Pick<Tx, 'query'>, merchantId: number): Promise<Merchant | undefined> {
  const [row] = await tx.query<Merchant>(
    `select m.id, m.code, m.short_code as "shortCode", m.settings_version as "settingsVersion", s.settings
     from merchants m
     join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
     where m.id = $1`,
    [merchantId],
  );
  return row;
}
