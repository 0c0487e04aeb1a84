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
     cross join lateral (select coalesce(max(k.version), 0) as version from contacts k
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
       and not ($5 and (exists (
         select from invoices i join billing_files b on b.merchant_id = i.merchant_id and b.id = i.file_id
         where i.merchant_id = $1 and i.customer_id = f.customer_id
           and (b.business_date, b.sequence) > ($6::date, $7::int))
         or exists (
         select from contacts n
         where n.merchant_id = $1 and n.customer_id = f.customer_id
           and (n.business_date, n.sequence) > ($6::date, $7::int))))
     on conflict (merchant_id, id) do update set contact_version = excluded.contact_version`,
    [range.merchantId, range.fileId, range.from, range.to, origin.late, origin.businessDate, origin.sequence],
  );
}

export interface ContractFound {
  /** Null: there is no such customer. */
  customer_id: string | null;
  /** Null: the customer has no such contract. */
  contract_id: string | null;
}

/** For each customer and contract number ('' = the default contract) what they are here, in the same order. */
export async function contractsOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  subjects: readonly { customerNumber: string; contractNumber: string }[],
): Promise<ContractFound[]> {
  return tx.query<ContractFound>(
    `select c.id as customer_id, t.id as contract_id
     from unnest($2::text[], $3::text[]) with ordinality as s(customer_number, contract_number, place)
     left join customers c on c.merchant_id = $1 and c.customer_number = s.customer_number
     left join contracts t on t.merchant_id = $1 and t.customer_id = c.id and t.contract_number = s.contract_number
     order by s.place`,
    [
      merchantId,
      subjects.map((subject) => subject.customerNumber),
      subjects.map((subject) => subject.contractNumber),
    ],
  );
}

/** Customers whom no bill has brought yet: they have their default contract, and no contact (version 0). */
export async function addCustomersByNumber(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  customers: readonly { id: string; customerNumber: string }[],
): Promise<void> {
  await tx.run(
    `with new as (
       insert into customers (merchant_id, id, customer_number, contact_version, created_at)
       select $1, n.id, n.customer_number, 0, $2::timestamptz
       from unnest($3::uuid[], $4::text[]) as n(id, customer_number)
       on conflict (merchant_id, customer_number) do nothing
       returning id
     )
     insert into contracts (merchant_id, id, customer_id, contract_number)
     select $1, id, id, '' from new`,
    [
      merchantId,
      instantText(at),
      customers.map((customer) => customer.id),
      customers.map((customer) => customer.customerNumber),
    ],
  );
}

export async function addContracts(
  tx: Tx,
  merchantId: number,
  contracts: readonly { id: string; customerNumber: string; contractNumber: string }[],
): Promise<void> {
  await tx.run(
    `insert into contracts (merchant_id, id, customer_id, contract_number)
     select $1, n.id, c.id, n.contract_number
     from unnest($2::uuid[], $3::text[], $4::text[]) as n(id, customer_number, contract_number)
     join customers c on c.merchant_id = $1 and c.customer_number = n.customer_number
     on conflict (merchant_id, customer_id, contract_number) do nothing`,
    [
      merchantId,
      contracts.map((contract) => contract.id),
      contracts.map((contract) => contract.customerNumber),
      contracts.map((contract) => contract.contractNumber),
    ],
  );
}

/** Contracts that staged lines of `standard/2` name and that their customers do not have yet. */
export async function addStagedContracts(tx: Tx, range: RecordRange): Promise<void> {
  await tx.run(
    `insert into contracts (merchant_id, id, customer_id, contract_number)
     select distinct on (customer_id, details ->> 'contract') $1, (details ->> 'contract_id')::uuid, customer_id,
            details ->> 'contract'
     from staged_bills
     where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4 and details ->> 'contract' <> ''
     order by customer_id, details ->> 'contract', record_no
     on conflict (merchant_id, customer_id, contract_number) do nothing`,
    [range.merchantId, range.fileId, range.from, range.to],
  );
}

export interface CurrentContact {
  customer_number: string;
  customer_id: string;
  /** Null: no bill has brought a contact yet. */
  sealed: Buffer | null;
}

export async function currentContacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  customerNumbers: readonly string[],
): Promise<CurrentContact[]> {
  return tx.query<CurrentContact>(
    `select c.customer_number, c.id as customer_id, k.sealed
     from customers c
     left join contacts k on k.merchant_id = c.merchant_id and k.customer_id = c.id and k.version = c.contact_version
     where c.merchant_id = $1 and c.customer_number = any($2::text[])`,
    [merchantId, customerNumbers],
  );
}

export interface NewContact {
  customerId: string;
  sealed: Buffer;
  digest: Buffer;
  nameDigest: Buffer;
  phoneDigest: Buffer | null;
  phoneKind: string;
}

/**
 * What a contact file says: a further version, or an earlier one said again. It becomes the current one, also of bills
 * that are not final, unless a newer file has said otherwise.
 */
export async function changeContacts(
  tx: Tx,
  merchantId: number,
  keyId: number,
  origin: { businessDate: string; sequence: number; at: Temporal.Instant },
  contacts: readonly NewContact[],
): Promise<void> {
  const moved = await tx.query<{ id: string }>(
    `with told as materialized (
       select t.*, k.version as known_version,
              coalesce((select max(n.version) from contacts n where n.merchant_id = $1 and n.customer_id = t.customer_id), 0)
                as last_version,
              exists (select from contacts n where n.merchant_id = $1 and n.customer_id = t.customer_id
                        and (n.business_date, n.sequence) > ($3::date, $4::int))
                or exists (select from invoices i
                           join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
                           where i.merchant_id = $1 and i.customer_id = t.customer_id
                             and (f.business_date, f.sequence) > ($3::date, $4::int)) as late
       from unnest($6::uuid[], $7::bytea[], $8::bytea[], $9::bytea[], $10::bytea[], $11::text[])
         as t(customer_id, sealed, digest, name_digest, phone_digest, phone_kind)
       left join contacts k on k.merchant_id = $1 and k.customer_id = t.customer_id and k.digest = t.digest
     ), said as (
       insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
                             business_date, sequence, created_at)
       select $1, customer_id, coalesce(known_version, last_version + 1), sealed, $2, digest, name_digest, phone_digest,
              phone_kind, $3::date, $4::int, $5::timestamptz
       from told
       on conflict (merchant_id, customer_id, version)
       do update set business_date = excluded.business_date, sequence = excluded.sequence
         where (contacts.business_date, contacts.sequence) < (excluded.business_date, excluded.sequence)
     )
     update customers c set contact_version = coalesce(t.known_version, t.last_version + 1)
     from told t
     where c.merchant_id = $1 and c.id = t.customer_id and not t.late
     returning c.id`,
    [
      merchantId,
      keyId,
      origin.businessDate,
      origin.sequence,
      instantText(origin.at),
      contacts.map((contact) => contact.customerId),
      contacts.map((contact) => contact.sealed),
      contacts.map((contact) => contact.digest),
      contacts.map((contact) => contact.nameDigest),
      contacts.map((contact) => contact.phoneDigest),
      contacts.map((contact) => contact.phoneKind),
    ],
  );
  // Also where it names the same phone: the merchant has looked, and says that it is the customer's.
  await tx.run(
    `update wrong_persons set lifted_at = $3::timestamptz
     where merchant_id = $1 and customer_id = any($2::uuid[]) and lifted_at is null`,
    [merchantId, contacts.map((contact) => contact.customerId), instantText(origin.at)],
  );
  await tx.run(
    `update invoices i set contact_version = c.contact_version
     from customers c, billing_files f
     where c.merchant_id = $1 and c.id = any($2::uuid[])
       and i.merchant_id = $1 and i.customer_id = c.id and i.state in ('open', 'parked')
       and f.merchant_id = $1 and f.id = i.file_id
       and (f.business_date, coalesce(f.sequence, 0)) <= ($3::date, $4::int)
       and i.contact_version <> c.contact_version`,
    [merchantId, moved.map((row) => row.id), origin.businessDate, origin.sequence],
  );
}
