import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import { deliveries, type SmsNews } from '../carriers/carrier.ts';
import type { Db, Tx } from '../db.ts';
import { messageOf } from '../messages/message.ts';
import { optOutAgain } from '../messages/queries.ts';

export type StatusNews = Extract<SmsNews, { kind: 'status' }>;

/** Each word about each message once, however often it is sent. */
export async function storeCallbacks(
  tx: Tx,
  merchantId: number,
  carrier: string,
  news: readonly StatusNews[],
  at: Temporal.Instant,
): Promise<void> {
  const messages = news.map(({ messageId }) => messageOf(messageId));
  await tx.run(
    `insert into sms_callbacks (merchant_id, carrier, provider_id, delivery, invoice_id, step, code, unreached, received_at)
     select $1, $2, n.provider_id, n.delivery, n.invoice_id, n.step, n.code, n.unreached, $3::timestamptz
     from unnest($4::text[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::text[])
       as n(provider_id, delivery, invoice_id, step, code, unreached)
     on conflict do nothing`,
    [
      merchantId,
      carrier,
      instantText(at),
      news.map((each) => each.providerId),
      news.map((each) => each.delivery),
      messages.map((message) => message.invoiceId),
      messages.map((message) => message.step),
      news.map((each) => each.code),
      news.map((each) => each.unreached),
    ],
  );
}

export interface HandledCallback {
  invoice_id: string;
  step: string;
  /** The message was not known to be taken until now. */
  settled: boolean;
  /** The carrier took this message under another id too. */
  taken_twice: boolean;
}

/**
 * Moves messages to what waiting callbacks say of them, up only, and empties the inbox of these: the latest word wins, by its
 * rank and not by its time. Where the answer was lost, or was never to come, a callback proves that the carrier has the
 * message; an answer that may still come is left to whoever waits for it. `taken` = how many left the inbox.
 */
export async function applyCallbacks(
  tx: Tx,
  act: Act,
  carrier: string,
  limit: number,
): Promise<{ taken: number; messages: HandledCallback[] }> {
  const rows = await tx.query<HandledCallback & { taken: number }>(
    `with waiting as (
       select provider_id, delivery, invoice_id, step, code, unreached, array_position($4::text[], delivery) as rank
       from sms_callbacks
       where merchant_id = $1 and carrier = $2
       order by received_at, provider_id, delivery
       limit $3
       for update skip locked
     ), gone as (
       delete from sms_callbacks s using waiting w
       where s.merchant_id = $1 and s.carrier = $2 and s.provider_id = w.provider_id and s.delivery = w.delivery
     ), news as (
       select distinct on (invoice_id, step) *,
              min(provider_id) over message <> max(provider_id) over message as names_two
       from waiting
       window message as (partition by invoice_id, step)
       order by invoice_id, step, rank desc, provider_id
     ), before as (
       select m.invoice_id, m.step, m.state, m.provider_id,
              n.rank > coalesce(array_position($4::text[], m.delivery), 0) as is_news,
              m.state <> 'sent' and not (m.state = 'sending' and m.ask_at > $5::timestamptz) as settles
       from messages m join news n on n.invoice_id = m.invoice_id and n.step = m.step
       where m.merchant_id = $1
       order by m.invoice_id, m.step
       for update of m
     ), moved as (
       update messages m
       set delivery = case when b.is_news then n.delivery else m.delivery end,
           delivery_at = case when b.is_news then $5::timestamptz else m.delivery_at end,
           code = case when b.is_news then n.code else m.code end,
           unreached = case when b.is_news and m.unreached is distinct from 'wrong_person' then n.unreached else m.unreached end,
           provider_id = coalesce(m.provider_id, n.provider_id), carrier = coalesce(m.carrier, $2),
           state = case when b.settles then 'sent' else m.state end,
           version = case when b.settles then m.version + 1 else m.version end,
           ask_at = case when b.settles then null else m.ask_at end,
           -- A message that was given up before: not claimed later than that.
           claimed_at = coalesce(m.claimed_at, case when b.settles then coalesce(m.decided_at, $5::timestamptz) end),
           decided_at = case when b.settles then $5::timestamptz else m.decided_at end
       from before b join news n on n.invoice_id = b.invoice_id and n.step = b.step
       where m.merchant_id = $1 and m.invoice_id = b.invoice_id and m.step = b.step and (b.is_news or b.settles)
       returning m.invoice_id, m.step, m.version, b.state as from_state, b.settles, m.phone_digest, m.unreached
     ), opted_out as (
       insert into opt_outs (merchant_id, phone_digest, carrier, learned_by, opted_out_at)
       select distinct on (phone_digest) $1, phone_digest, $2, 'carrier', $5::timestamptz
       from moved where unreached = 'opted_out' and phone_digest is not null
       ${optOutAgain}
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $6::date, 'message:' || step, invoice_id, version, from_state, 'sent', $5::timestamptz, $7::uuid
       from moved where settles
     )
     select n.invoice_id, n.step, coalesce(b.settles, false) as settled,
            n.names_two or coalesce(n.provider_id <> b.provider_id, false) as taken_twice,
            (select count(*) from waiting) as taken
     from news n left join before b on b.invoice_id = n.invoice_id and b.step = n.step`,
    [act.merchantId, carrier, limit, deliveries, instantText(act.at), monthOf(act.at), act.id],
  );
  return { taken: rows[0]?.taken ?? 0, messages: rows };
}

export async function countWaitingCallbacks(db: Pick<Db, 'query'>, merchantId: number): Promise<number> {
  const [row] = await db.query<{ waiting: number }>(
    `select count(*) as waiting from sms_callbacks where merchant_id = $1`,
    [merchantId],
  );
  return row?.waiting ?? 0;
}

/** The customer's own word, by keyed digest of the phone. */
export async function recordOptOut(
  tx: Tx,
  merchantId: number,
  optOut: { phoneDigest: Buffer; carrier: string; wants: 'none' | 'some'; at: Temporal.Instant },
): Promise<void> {
  const { phoneDigest, carrier, wants, at } = optOut;
  if (wants === 'none') {
    await tx.run(
      `insert into opt_outs (merchant_id, phone_digest, carrier, learned_by, opted_out_at)
       values ($1, $2, $3, 'answer', $4::timestamptz)
       ${optOutAgain}`,
      [merchantId, phoneDigest, carrier, instantText(at)],
    );
  } else {
    await tx.run(
      `update opt_outs set opted_in_at = $3::timestamptz
       where merchant_id = $1 and phone_digest = $2 and opted_in_at is null`,
      [merchantId, phoneDigest, instantText(at)],
    );
  }
}

/** Ids of all merchants: they share the carrier's sender, which a customer answers. */
export async function everyMerchantId(db: Pick<Db, 'query'>): Promise<number[]> {
  const rows = await db.query<{ id: number }>(`select id from merchants order by id`);
  return rows.map((row) => row.id);
}
