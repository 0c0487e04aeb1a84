import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { HoldReason } from './hold.ts';

/** Whether a bill (an alias of `invoices`) is held on a day (a parameter or column). */
export function isHeld(bill: string, day: string): string {
  return `exists (select from holds h where h.merchant_id = ${bill}.merchant_id and h.customer_id = ${bill}.customer_id
                    and (h.contract_id is null or h.contract_id = ${bill}.contract_id)
                    and h.lifted_at is null and (h.until_on is null or h.until_on >= ${day}::date))`;
}

/** Which of these bills, locked by the caller, are held on a day. */
export async function heldAmong(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
  day: string,
): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `select i.id from invoices i
     where i.merchant_id = $1 and i.id = any($2::uuid[]) and ${isHeld('i', '$3')}`,
    [merchantId, invoiceIds, day],
  );
  return rows.map((row) => row.id);
}

export interface HoldFacts {
  invoice_id: string;
  reason: HoldReason;
  until_on: string | null;
}

/** Holds that stand, by bill. */
export async function holdFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<HoldFacts[]> {
  return tx.query<HoldFacts>(
    `select i.id as invoice_id, h.reason, h.until_on
     from invoices i
     join holds h on h.merchant_id = i.merchant_id and h.customer_id = i.customer_id and h.lifted_at is null
       and (h.contract_id is null or h.contract_id = i.contract_id)
     where i.merchant_id = $1 and i.id = any($2::uuid[])
     order by i.id, h.reason`,
    [merchantId, invoiceIds],
  );
}

export interface HoldWish {
  id: string;
  customerId: string;
  /** Null: all contracts of the customer. */
  contractId: string | null;
  reason: HoldReason;
  /** YYYY-MM-DD, the last day; null: until it is lifted. */
  untilOn: string | null;
}

/** Bills that are not final, of these customers: a hold waits for whoever has one of them in his hands. */
export async function openBillsOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  customerIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `select id from invoices
     where merchant_id = $1 and customer_id = any($2::uuid[]) and state in ('open', 'parked') order by id`,
    [merchantId, customerIds],
  );
  return rows.map((row) => row.id);
}

/** Ends the standing holds of the same reason that end on another day: what a hold once said is never changed. */
export async function endChangedHolds(tx: Tx, act: Act, wishes: readonly HoldWish[]): Promise<number> {
  return tx.run(
    `with wish as (
       select * from unnest($2::uuid[], $3::uuid[], $4::text[], $5::date[]) as w(customer_id, contract_id, reason, until_on)
     ), ended as (
       update holds h set lifted_at = $6::timestamptz
       from wish w
       where h.merchant_id = $1 and h.customer_id = w.customer_id and h.contract_id is not distinct from w.contract_id
         and h.reason = w.reason and h.lifted_at is null and h.until_on is distinct from w.until_on
       returning h.id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'hold', id, 2, 'standing', 'lifted', $6::timestamptz, $8::uuid from ended`,
    [...keysOf(act, wishes), instantText(act.at), monthOf(act.at), act.id],
  );
}

/** A hold that stands already stays as it is. Returns how many are new. */
export async function placeHolds(
  tx: Tx,
  act: Act,
  fileId: string | null,
  wishes: readonly HoldWish[],
): Promise<number> {
  return tx.run(
    `with placed as (
       insert into holds (merchant_id, id, customer_id, contract_id, reason, until_on, placed_at, file_id)
       select $1, w.id, w.customer_id, w.contract_id, w.reason, w.until_on, $6::timestamptz, $9::uuid
       from unnest($2::uuid[], $3::uuid[], $4::text[], $5::date[], $10::uuid[])
         as w(customer_id, contract_id, reason, until_on, id)
       on conflict (merchant_id, customer_id, contract_id, reason) where lifted_at is null do nothing
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $7::date, 'hold', id, 1, null, 'standing', $6::timestamptz, $8::uuid from placed`,
    [
      ...keysOf(act, wishes),
      instantText(act.at),
      monthOf(act.at),
      act.id,
      fileId,
      wishes.map((wish) => wish.id),
    ],
  );
}

/** Without a contract, all holds of the reason that the customer has. Returns the customers for whom one ended. */
export async function liftHolds(
  tx: Tx,
  act: Act,
  wishes: readonly Omit<HoldWish, 'id' | 'untilOn'>[],
): Promise<string[]> {
  const rows = await tx.query<{ customer_id: string }>(
    `with wish as (
       select * from unnest($2::uuid[], $3::uuid[], $4::text[]) as w(customer_id, contract_id, reason)
     ), ended as (
       update holds h set lifted_at = $5::timestamptz
       from wish w
       where h.merchant_id = $1 and h.customer_id = w.customer_id and h.reason = w.reason and h.lifted_at is null
         and (w.contract_id is null or h.contract_id = w.contract_id)
       returning h.id, h.customer_id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $6::date, 'hold', id, 2, 'standing', 'lifted', $5::timestamptz, $7::uuid from ended
     )
     select distinct customer_id from ended`,
    [
      act.merchantId,
      wishes.map((wish) => wish.customerId),
      wishes.map((wish) => wish.contractId),
      wishes.map((wish) => wish.reason),
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  return rows.map((row) => row.customer_id);
}

function keysOf(act: Act, wishes: readonly HoldWish[]): unknown[] {
  return [
    act.merchantId,
    wishes.map((wish) => wish.customerId),
    wishes.map((wish) => wish.contractId),
    wishes.map((wish) => wish.reason),
    wishes.map((wish) => wish.untilOn),
  ];
}

export interface StandingHold {
  merchant: string;
  customer_number: string;
  /** '' = all contracts. */
  contract_number: string;
  reason: HoldReason;
  until_on: string | null;
  placed_at: string;
  /** The file that brought it. */
  file: string | null;
  open_bills: number;
}

/** Holds that stand, ended ones left out. */
export async function standingHolds(
  db: Pick<Db, 'query'>,
  merchantId: number | null,
  now: Temporal.Instant,
): Promise<StandingHold[]> {
  return db.query<StandingHold>(
    `select m.code as merchant, u.customer_number, coalesce(t.contract_number, '') as contract_number, h.reason, h.until_on,
            h.placed_at, f.name as file,
            (select count(*) from invoices i
             where i.merchant_id = h.merchant_id and i.customer_id = h.customer_id and i.state in ('open', 'parked')
               and (h.contract_id is null or h.contract_id = i.contract_id)) as open_bills
     from holds h
     join merchants m on m.id = h.merchant_id
     join customers u on u.merchant_id = h.merchant_id and u.id = h.customer_id
     left join contracts t on t.merchant_id = h.merchant_id and t.id = h.contract_id
     left join billing_files f on f.merchant_id = h.merchant_id and f.id = h.file_id
     where h.lifted_at is null and ($1::int is null or h.merchant_id = $1)
       and (h.until_on is null or h.until_on >= ($2::timestamptz - interval '1 day')::date)
     order by m.code, u.customer_number, h.reason`,
    [merchantId, instantText(now)],
  );
}
