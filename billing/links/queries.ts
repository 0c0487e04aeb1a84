import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Tx } from '../db.ts';

/** On links and messages that reached somebody who is not the customer. */
export const wrongPersonCode = 'wrong_person';

/** Whether who has the phone of a contact `c` has said that they are not the customer. */
export const wrongPerson = `exists (
  select from wrong_persons w
  where w.merchant_id = c.merchant_id and w.customer_id = c.customer_id and w.phone_digest = c.phone_digest
    and w.lifted_at is null
)`;

export interface NewLink {
  invoiceId: string;
  version: number;
  keyId: number;
  tokenHash: Buffer;
  /** YYYY-MM-DD, the last day on which it takes money. */
  expiresOn: string;
}

/** A link that is there already stays as it is: its token is on a customer's phone. */
export async function insertLinks(tx: Tx, merchantId: number, links: readonly NewLink[]): Promise<number> {
  if (links.length === 0) return 0;
  return tx.run(
    `insert into links (merchant_id, invoice_id, version, key_id, token_hash, expires_on)
     select $1, l.invoice_id, l.version, l.key_id, l.token_hash, l.expires_on
     from unnest($2::uuid[], $3::int[], $4::smallint[], $5::bytea[], $6::date[])
       as l(invoice_id, version, key_id, token_hash, expires_on)
     on conflict (merchant_id, invoice_id, version) do nothing`,
    [
      merchantId,
      links.map((link) => link.invoiceId),
      links.map((link) => link.version),
      links.map((link) => link.keyId),
      links.map((link) => link.tokenHash),
      links.map((link) => link.expiresOn),
    ],
  );
}

/**
 * Blocks the phones that the link was sent to, for its customer, and ends what they hold. Where the merchant has given
 * another contact since, it was the former phone that spoke. Returns how many phones were not blocked before.
 */
export async function endLinksOfWrongPerson(
  tx: Tx,
  act: Act,
  link: { invoiceId: string; version: number },
): Promise<number> {
  const [row] = await tx.query<{ phones: number }>(
    `with link as (
       select l.invoice_id, l.version, i.customer_id, c.phone_digest
       from links l
       join invoices i on i.merchant_id = l.merchant_id and i.id = l.invoice_id
       join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
       where l.merchant_id = $1 and l.invoice_id = $2::uuid and l.version = $3
       for update of l
     ), sent_to as (
       select distinct m.phone_digest
       from messages m join link on link.invoice_id = m.invoice_id and link.version = m.link_version
       where m.merchant_id = $1 and m.phone_digest is not null
     ), wrong as (
       select s.phone_digest from sent_to s cross join link
       where s.phone_digest is distinct from link.phone_digest or (select count(*) from sent_to) = 1
       union
       select phone_digest from link where phone_digest is not null and not exists (select from sent_to)
     ), blocked as (
       insert into wrong_persons (merchant_id, customer_id, phone_digest, invoice_id, link_version, reported_at)
       select $1, link.customer_id, wrong.phone_digest, link.invoice_id, link.version, $4::timestamptz
       from link cross join wrong
       on conflict (merchant_id, customer_id, phone_digest) do update
         set invoice_id = excluded.invoice_id, link_version = excluded.link_version,
             reported_at = excluded.reported_at, lifted_at = null
         where wrong_persons.lifted_at is not null
       returning phone_digest
     ), told as (
       -- Of all bills of the customer: none of them has reached him there.
       update messages m set unreached = '${wrongPersonCode}'
       from invoices i, link cross join wrong
       where i.merchant_id = $1 and i.customer_id = link.customer_id
         and m.merchant_id = $1 and m.invoice_id = i.id and m.link_version is not null
         and m.phone_digest = wrong.phone_digest and m.state in ('sending', 'sent', 'unknown')
     ), ended as (
       update links l set dead_reason = '${wrongPersonCode}'
       from invoices i, link
       where i.merchant_id = $1 and i.customer_id = link.customer_id
         and l.merchant_id = $1 and l.invoice_id = i.id and l.dead_reason is null
         and ((l.invoice_id = link.invoice_id and l.version = link.version) or exists (
           select from messages m join wrong on wrong.phone_digest = m.phone_digest
           where m.merchant_id = $1 and m.invoice_id = l.invoice_id and m.link_version = l.version))
       returning l.invoice_id, l.version
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $5::date, 'link:' || version, invoice_id, 1, null, '${wrongPersonCode}', $4::timestamptz, $6::uuid
       from ended
     )
     select count(*) as phones from blocked`,
    [act.merchantId, link.invoiceId, link.version, instantText(act.at), monthOf(act.at), act.id],
  );
  return row?.phones ?? 0;
}

/** Whoever asks for a new link of the bill comes one after the other: its first link is locked. False: this link is dead. */
export async function lockForFreshLink(
  tx: Tx,
  link: { merchantId: number; invoiceId: string; version: number },
): Promise<boolean> {
  const locked = await tx.query<{ version: number; is_alive: boolean }>(
    `select version, dead_reason is null as is_alive from links
     where merchant_id = $1 and invoice_id = $2::uuid and version in (1, $3)
     order by version for update`,
    [link.merchantId, link.invoiceId, link.version],
  );
  return locked.find(({ version }) => version === link.version)?.is_alive ?? false;
}

export interface FreshLinks {
  /** Asked for so far, of all links of the bill. */
  asked: number;
  waiting: number;
  last_sent_at: string | null;
}

/** How often visitors have asked for a new link of the bill. Read after the lock: what a press before it did must be seen. */
export async function freshLinksOf(tx: Tx, merchantId: number, invoiceId: string): Promise<FreshLinks> {
  const [row] = await tx.query<FreshLinks>(
    `select count(*) as asked, count(*) filter (where state = 'planned') as waiting, max(claimed_at) as last_sent_at
     from messages where merchant_id = $1 and invoice_id = $2::uuid and step like 'fresh_link:%'`,
    [merchantId, invoiceId],
  );
  return row ?? { asked: 0, waiting: 0, last_sent_at: null };
}
