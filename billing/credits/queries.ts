import { type Act, instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { isHeld } from '../holds/queries.ts';
import { givableMethods } from '../refunds/refund.ts';
import { notInSafeMode } from '../restores/queries.ts';
import type { CreditUse } from './credit.ts';

/**
 * Credits of which something is left, each with the name that its bill was made out to: a customer number may be given to
 * somebody else. Money of a bill that is being recalled is not here: it goes back.
 */
const unspent = `
  select p.id as payment_id, p.invoice_id as from_invoice_id, p.customer_id, n.name_digest, p.currency, p.method, p.collected_on,
         p.amount - p.refunded - p.reused as amount
  from credits k
  join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id and p.refunded + p.reused < p.amount
  join invoices b on b.merchant_id = p.merchant_id and b.id = p.invoice_id
  join contacts n on n.merchant_id = b.merchant_id and n.customer_id = b.customer_id and n.version = b.contact_version
  where k.merchant_id = $1
    and not exists (select from recall_bills r where r.merchant_id = p.merchant_id and r.invoice_id = p.invoice_id)`;

/** Bills that are owed, with nobody paying them, no reason not to ask for their money on a day ($2), and no recall. */
const payable = `
  select i.id, i.customer_id, n.name_digest, i.currency, i.amount, i.due_on
  from invoices i
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  join contacts n on n.merchant_id = i.merchant_id and n.customer_id = i.customer_id and n.version = i.contact_version
  where i.merchant_id = $1 and i.state = 'open'
    and not exists (select from collection_locks l where l.merchant_id = i.merchant_id and l.invoice_id = i.id)
    and not exists (select from recall_bills r where r.merchant_id = i.merchant_id and r.invoice_id = i.id)
    and not ${isHeld('i', '$2')}`;

/** Of each customer with a credit the bill that is due first and that the credit pays to the last yen. */
export async function billsCovered(
  db: Pick<Db, 'query'>,
  merchantId: number,
  businessDate: string,
  limit: number,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `with purse as (
       select customer_id, name_digest, currency, sum(amount) as amount from (${unspent}) u group by 1, 2, 3
     ), first as (
       select distinct on (b.customer_id) b.id
       from purse u
       join lateral (${payable} and i.customer_id = u.customer_id) b
         on b.name_digest = u.name_digest and b.currency = u.currency and b.amount <= u.amount
       order by b.customer_id, b.due_on, b.id
     )
     select id from first order by id limit $3`,
    [merchantId, businessDate, limit],
  );
  return rows.map((row) => row.id);
}

/** Nobody else spends or gives back the credits of these bills' customers until the transaction ends. */
export async function lockCreditsFor(
  tx: Tx,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<void> {
  await tx.query(
    `select p.id from credits k
     join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id
     where k.merchant_id = $1
       and k.customer_id in (select customer_id from invoices where merchant_id = $1 and id = any($2::uuid[]))
     order by p.id for update of p`,
    [merchantId, invoiceIds],
  );
}

/**
 * Which credits pay which of these bills, the oldest money first; only bills that are paid whole. The caller holds the rows
 * of both, and the bills are of different customers.
 */
export async function creditsForBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  businessDate: string,
  invoiceIds: readonly string[],
): Promise<Omit<CreditUse, 'id'>[]> {
  return tx.query<Omit<CreditUse, 'id'>>(
    `with purse as (
       select u.*, sum(amount) over (partition by customer_id, name_digest, currency) as together,
              sum(amount) over (partition by customer_id, name_digest, currency order by collected_on, payment_id) - amount as before
       from (${unspent}) u
     )
     select u.payment_id, u.from_invoice_id, b.id as invoice_id, least(u.amount, b.amount - u.before)::bigint as amount,
            u.method, u.collected_on
     from (${payable} and i.id = any($3::uuid[])) b
     join purse u on u.customer_id = b.customer_id and u.name_digest = b.name_digest and u.currency = b.currency
       and u.together >= b.amount and u.before < b.amount
     order by b.id, u.collected_on, u.payment_id`,
    [merchantId, businessDate, invoiceIds],
  );
}

/** The payment's own check refuses what is too much. */
export async function insertUses(tx: Tx, act: Act, uses: readonly CreditUse[]): Promise<void> {
  if (uses.length === 0) return;
  await tx.run(
    `with new as (
       select * from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[]) as u(id, payment_id, invoice_id, amount)
     ), spent as (
       update payments p set reused = p.reused + n.amount
       from (select payment_id, sum(amount)::bigint as amount from new group by payment_id) n
       where p.merchant_id = $1 and p.id = n.payment_id
     )
     insert into credit_uses (merchant_id, id, payment_id, invoice_id, amount, used_at)
     select $1, id, payment_id, invoice_id, amount, $6::timestamptz from new`,
    [
      act.merchantId,
      uses.map((use) => use.id),
      uses.map((use) => use.payment_id),
      uses.map((use) => use.invoice_id),
      uses.map((use) => use.amount),
      instantText(act.at),
    ],
  );
}

export interface ReturnedUse extends CreditUse {
  customer_id: string;
  currency: string;
}

/** Frees what paid these bills; the caller holds their rows. */
export async function returnUses(tx: Tx, act: Act, invoiceIds: readonly string[]): Promise<ReturnedUse[]> {
  await tx.query(
    `select p.id from payments p
     where p.merchant_id = $1 and p.id in (
       select payment_id from credit_uses
       where merchant_id = $1 and invoice_id = any($2::uuid[]) and returned_at is null)
     order by p.id for update`,
    [act.merchantId, invoiceIds],
  );
  return tx.query<ReturnedUse>(
    `with returned as (
       update credit_uses set returned_at = $3::timestamptz
       where merchant_id = $1 and invoice_id = any($2::uuid[]) and returned_at is null
       returning id, payment_id, invoice_id, amount
     ), freed as (
       update payments p set reused = p.reused - r.amount
       from (select payment_id, sum(amount)::bigint as amount from returned group by payment_id) r
       where p.merchant_id = $1 and p.id = r.payment_id
     )
     select r.id, r.payment_id, r.invoice_id, r.amount, p.invoice_id as from_invoice_id, p.method, p.collected_on,
            p.customer_id, p.currency
     from returned r join payments p on p.merchant_id = $1 and p.id = r.payment_id
     order by r.id`,
    [act.merchantId, invoiceIds, instantText(act.at)],
  );
}

const givable = `
  from credits k
  join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id and p.refunded + p.reused < p.amount
    and p.method = any($2::text[])
  join charges c on c.merchant_id = p.merchant_id and c.id = p.id
  where k.merchant_id = $1 and ${notInSafeMode}
    and not exists (select from recall_bills b where b.merchant_id = p.merchant_id and b.invoice_id = p.invoice_id)
    -- What the gateway has refused once is a person's; what is under way ends first.
    and not exists (select from refunds r where r.merchant_id = p.merchant_id and r.charge_id = p.id
                      and r.state in ('processing', 'unknown', 'failed'))`;

export async function countToGiveBack(db: Pick<Db, 'query'>, merchantId: number): Promise<number> {
  const [row] = await db.query<{ credits: number }>(`select count(*) as credits ${givable}`, [
    merchantId,
    givableMethods,
  ]);
  return row?.credits ?? 0;
}

export interface GivableCredit {
  charge_id: string;
  invoice_id: string;
  gateway: string;
  amount: number;
  currency: string;
}

/** Credits that the gateway can give back, locked. */
export async function lockCreditsToGiveBack(
  tx: Tx,
  merchantId: number,
  limit: number,
): Promise<GivableCredit[]> {
  return tx.query<GivableCredit>(
    `select p.id as charge_id, p.invoice_id, c.gateway, p.amount - p.refunded - p.reused as amount, p.currency
     ${givable}
     order by p.id limit $3 for update of p`,
    [merchantId, givableMethods, limit],
  );
}

export interface StandingCredit {
  merchant: string;
  customer_number: string;
  billing_number: string;
  charge_id: string;
  method: string;
  collected_on: string;
  amount: number;
  left: number;
}

/** Credits of which something is left, the oldest first. */
export async function standingCredits(
  db: Pick<Db, 'query'>,
  merchantId: number | null,
  limit: number,
): Promise<StandingCredit[]> {
  return db.query<StandingCredit & Record<string, unknown>>(
    `select m.code as merchant, c.customer_number, i.billing_number, p.id as charge_id, p.method, p.collected_on, p.amount,
            p.amount - p.refunded - p.reused as left
     from credits k
     join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id and p.refunded + p.reused < p.amount
     join merchants m on m.id = k.merchant_id
     join invoices i on i.merchant_id = p.merchant_id and i.id = p.invoice_id
     join customers c on c.merchant_id = k.merchant_id and c.id = k.customer_id
     where $1::int is null or k.merchant_id = $1
     order by p.collected_on, p.id limit $2`,
    [merchantId, limit],
  );
}
