import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db } from '../db.ts';

export interface NewOutboxMessage {
  merchantCode: string;
  messageId: string;
  providerId: string;
  sealed: Buffer;
  keyId: number;
}

/** Takes a message once: a second one of the same id is answered with the first one's provider id. Undefined: no such merchant. */
export async function acceptOutboxMessage(
  db: Pick<Db, 'query'>,
  message: NewOutboxMessage,
  at: Temporal.Instant,
): Promise<string | undefined> {
  const rows = await db.query<{ provider_id: string }>(
    `insert into outbox_messages (merchant_id, message_id, provider_id, sealed, key_id, accepted_at)
     select m.id, $2, $3, $4, $5, $6::timestamptz from merchants m where m.code = $1
     on conflict (merchant_id, message_id) do update set message_id = excluded.message_id
     returning provider_id`,
    [
      message.merchantCode,
      message.messageId,
      message.providerId,
      message.sealed,
      message.keyId,
      instantText(at),
    ],
  );
  return rows[0]?.provider_id;
}

export async function findOutboxMessage(
  db: Pick<Db, 'query'>,
  merchantCode: string,
  messageId: string,
): Promise<string | undefined> {
  const rows = await db.query<{ provider_id: string }>(
    `select o.provider_id from outbox_messages o join merchants m on m.id = o.merchant_id
     where m.code = $1 and o.message_id = $2`,
    [merchantCode, messageId],
  );
  return rows[0]?.provider_id;
}

export interface ListedOutboxMessage {
  message_id: string;
  provider_id: string;
  accepted_at: string;
}

/** What was taken from a merchant in [from, until), page by page in the order of taking. */
export async function* outboxMessagesBetween(
  db: Pick<Db, 'query'>,
  merchantCode: string,
  from: string,
  until: string,
): AsyncIterable<ListedOutboxMessage[]> {
  const limit = 5_000;
  let after: ListedOutboxMessage | undefined;
  for (;;) {
    const page: ListedOutboxMessage[] = await db.query(
      `select o.message_id, o.provider_id, o.accepted_at
       from outbox_messages o join merchants m on m.id = o.merchant_id
       where m.code = $1 and o.accepted_at >= $2::timestamptz and o.accepted_at < $3::timestamptz
         and ($4::timestamptz is null or (o.accepted_at, o.message_id) > ($4::timestamptz, $5::text))
       order by o.accepted_at, o.message_id
       limit $6`,
      [merchantCode, from, until, after?.accepted_at ?? null, after?.message_id ?? null, limit],
    );
    if (page.length > 0) yield page;
    after = page.at(-1);
    if (page.length < limit) return;
  }
}

export interface OutboxRow {
  merchant: string;
  message_id: string;
  sealed: Buffer;
  accepted_at: string;
}

/** Newest first. */
export async function newestOutboxMessages(
  db: Pick<Db, 'query'>,
  merchantCode: string | null,
  limit: number,
): Promise<OutboxRow[]> {
  return db.query<OutboxRow>(
    `select m.code as merchant, o.message_id, o.sealed, o.accepted_at
     from outbox_messages o join merchants m on m.id = o.merchant_id
     where $1::text is null or m.code = $1
     order by o.accepted_at desc, o.message_id desc
     limit $2`,
    [merchantCode, limit],
  );
}
