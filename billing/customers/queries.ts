import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import type { RecordRange } from '../exchanges/queries.ts';

/** Customers that the merchant's database did not have, each with its default contract (same id, blank number). Returns how many. */
export async function addNewCustomers(tx: Tx, range: RecordRange, at: Temporal.Instant): Promise<number> {
  return tx.run(
    `with new as (
       insert into customers (merchant_id, id, customer_number, contact_version, created_at)
       select $1, customer_id, customer_number, 1, $5::timestamptz
       from staged_bills
       where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4
       order by record_no
       on conflict (merchant_id, customer_number) do nothing
       returning id
     )
     insert into contracts (merchant_id, id, customer_id, contract_number)
     select $1, id, id, '' from new`,
    [range.merchantId, range.fileId, range.from, range.to, instantText(at)],
  );
}

/**
 * The first contact of those customers: a line's own id for its customer is a customer's id only where that line made
 * the customer. One look into the primary key for each line, whatever the planner believes about the size of the file.
 */
export async function addFirstContacts(
  tx: Tx,
  range: RecordRange,
  origin: { businessDate: string; sequence: number; at: Temporal.Instant },
): Promise<number> {
  return tx.run(
    `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest,
                           phone_kind, business_date, sequence, created_at)
     select $1, s.customer_id, 1, s.sealed, s.key_id, s.digest, s.name_digest, s.phone_digest, s.phone_kind,
            $5::date, $6::int, $7::timestamptz
     from staged_bills s
     where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4
       and (select true from customers c where c.merchant_id = $1 and c.id = s.customer_id)`,
    [
      range.merchantId,
      range.fileId,
      range.from,
      range.to,
      origin.businessDate,
      origin.sequence,
      instantText(origin.at),
    ],
  );
}

/** Lines of customers who were there already take those customers' ids. */
export async function adoptCustomers(tx: Tx, range: RecordRange): Promise<number> {
  return tx.run(
    `with known as materialized (
       select record_no, customer_id as own_id,
              (select id from customers c where c.merchant_id = $1 and c.customer_number = b.customer_number) as id
       from staged_bills b
       where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4
     )
     update staged_bills s set customer_id = k.id
     from known k
     where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no = k.record_no and k.id <> k.own_id`,
    [range.merchantId, range.fileId, range.from, range.to],
  );
}

/** A version for every contact that differs from all that the customer has had: a bill keeps the one it came with. */
export async function addContactVersions(
  tx: Tx,
  range: RecordRange,
  origin: { businessDate: string; sequence: number; at: Temporal.Instant },
): Promise<number> {
  return tx.run(
    `with fresh as (
       select distinct on (s.customer_id, s.digest) s.*
       from staged_bills s
       where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4
         and not exists (select from contacts k
                         where k.merchant_id = $1 and k.customer_id = s.customer_id and k.digest = s.digest)
       order by s.customer_id, s.digest, s.record_no
     )
     insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest,
                           phone_kind, business_date, sequence, created_at)
     select $1, f.customer_id,
            newest.version + row_number() over (partition by f.customer_id order by f.record_no),
            f.sealed, f.key_id, f.digest, f.name_digest, f.phone_digest, f.phone_kind,
            $5::date, $6::int, $7::timestamptz
     from fresh f
     cross join lateral (select max(k.version) as version from contacts k
                         where k.merchant_id = $1 and k.customer_id = f.customer_id) newest`,
    [
      range.merchantId,
      range.fileId,
      range.from,
      range.to,
      origin.businessDate,
      origin.sequence,
      instantText(origin.at),
    ],
  );
}

/**
 * Each customer's last line in the range names the current contact. `late`: newer files were loaded before this one;
 * customers who stand in one of those keep what it said.
 */
export async function moveCurrentContacts(
  tx: Tx,
  range: RecordRange,
  origin: { businessDate: string; sequence: number; late: boolean },
): Promise<number> {
  return tx.run(
    `with last as materialized (
       select distinct on (customer_id) customer_id, digest
       from staged_bills
       where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4
       order by customer_id, record_no desc
     ), found as materialized (
       select l.customer_id, k.version, c.contact_version, c.customer_number, c.created_at
       from last l
       cross join lateral (
         select version from contacts where merchant_id = $1 and customer_id = l.customer_id and digest = l.digest offset 0
       ) k
       cross join lateral (
         select * from customers where merchant_id = $1 and id = l.customer_id offset 0
       ) c
     )
     -- Every one conflicts: an update by primary key that no plan can turn into a comparison of all with all.
     insert into customers (merchant_id, id, customer_number, contact_version, created_at)
     select $1, f.customer_id, f.customer_number, f.version, f.created_at
     from found f
     where f.version <> f.contact_version
       and not ($5 and exists (
         select from invoices i join billing_files b on b.merchant_id = i.merchant_id and b.id = i.file_id
         where i.merchant_id = $1 and i.customer_id = f.customer_id
           and (b.business_date, b.sequence) > ($6::date, $7::int)))
     on conflict (merchant_id, id) do update set contact_version = excluded.contact_version`,
    [range.merchantId, range.fileId, range.from, range.to, origin.late, origin.businessDate, origin.sequence],
  );
}
