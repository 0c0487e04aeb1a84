import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { ReleaseRule } from './rule.ts';

export interface Parking {
  id: string;
  subject: 'invoice' | 'file' | 'message' | 'chunk';
  subjectId: string;
  /** Stable code: NO_RULE_FOR_CODE, TIE_OUT_OPEN ... */
  reason: string;
  context: Record<string, string | number | null>;
}

/** Sets things aside for a person. A subject that is already parked stays as it is. */
export async function park(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  parkings: readonly Parking[],
): Promise<number> {
  if (parkings.length === 0) return 0;
  return tx.run(
    `insert into parked_items (merchant_id, id, subject, subject_id, reason, context, parked_at)
     select $1, p.id, p.subject, p.subject_id, p.reason, p.context::jsonb, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[])
       as p(id, subject, subject_id, reason, context)
     on conflict (merchant_id, subject, subject_id) where resolved_at is null do nothing`,
    [
      merchantId,
      instantText(at),
      parkings.map((p) => p.id),
      parkings.map((p) => p.subject),
      parkings.map((p) => p.subjectId),
      parkings.map((p) => p.reason),
      parkings.map((p) => JSON.stringify(p.context)),
    ],
  );
}

export async function unpark(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  subject: Parking['subject'],
  subjectIds: readonly string[],
  resolution: string,
): Promise<number> {
  return tx.run(
    `update parked_items set resolved_at = $2::timestamptz, resolution = $5
     where merchant_id = $1 and subject = $3 and subject_id = any($4::text[]) and resolved_at is null`,
    [merchantId, instantText(at), subject, subjectIds, resolution],
  );
}

export interface ParkedItem {
  merchant: string;
  subject: string;
  subject_id: string;
  /** Where a bill is parked. */
  billing_number: string | null;
  /** Where a file is parked or held. */
  file_name: string | null;
  reason: string;
  context: Record<string, unknown>;
  parked_at: string;
}

export async function parkedItems(db: Pick<Db, 'query'>): Promise<ParkedItem[]> {
  return db.query<ParkedItem>(
    `select m.code as merchant, p.subject, p.subject_id, i.billing_number,
            coalesce(f.name, o.name) as file_name, p.reason, p.context, p.parked_at
     from parked_items p join merchants m on m.id = p.merchant_id
     left join invoices i on p.subject = 'invoice' and i.merchant_id = p.merchant_id and i.id::text = p.subject_id
     left join billing_files f on p.subject = 'file' and f.merchant_id = p.merchant_id and f.id::text = p.subject_id
     left join outward_files o on p.subject = 'file' and o.merchant_id = p.merchant_id and o.id::text = p.subject_id
     where p.resolved_at is null order by p.parked_at`,
  );
}

export interface ParkedBill {
  id: string;
  billing_number: string;
}

/** Parked bills among these billing numbers. */
export async function parkedBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  billingNumbers: readonly string[],
): Promise<ParkedBill[]> {
  return tx.query<ParkedBill>(
    `select id, billing_number from invoices
     where merchant_id = $1 and billing_number = any($2::text[]) and state = 'parked'`,
    [merchantId, billingNumbers],
  );
}

/** Bills that have waited for a person since before an instant. */
export async function billsParkedBefore(
  db: Pick<Db, 'query'>,
  merchantId: number,
  before: Temporal.Instant,
): Promise<string[]> {
  const rows = await db.query<{ billing_number: string }>(
    `select i.billing_number
     from parked_items p
     join invoices i on i.merchant_id = p.merchant_id and i.id::text = p.subject_id
     where p.merchant_id = $1 and p.subject = 'invoice' and p.resolved_at is null and p.parked_at < $2::timestamptz
     order by p.parked_at`,
    [merchantId, instantText(before)],
  );
  return rows.map((row) => row.billing_number);
}

export interface HeldFile {
  id: string;
  name: string;
  file_code: string;
}

/** Held files of these names that wait for a person. */
export async function heldFiles(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  names: readonly string[],
): Promise<HeldFile[]> {
  return tx.query<HeldFile>(
    `select id, name, file_code from billing_files
     where merchant_id = $1 and name = any($2::text[]) and state = 'held' and not file_code = any(waived)
     order by id for update`,
    [merchantId, names],
  );
}

/** The reason for which each of these files is held holds it no more. */
export async function waiveHolds(tx: Tx, merchantId: number, fileIds: readonly string[]): Promise<void> {
  await tx.run(
    `update billing_files set waived = waived || file_code
     where merchant_id = $1 and id = any($2::uuid[]) and state = 'held'`,
    [merchantId, fileIds],
  );
}

/** Parked bills among these billing numbers, with the reason. */
export async function parkedReasonsOf(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  billingNumbers: readonly string[],
): Promise<{ id: string; reason: string }[]> {
  return tx.query<{ id: string; reason: string }>(
    `select i.id, coalesce(p.reason, '') as reason
     from invoices i
     left join parked_items p on p.merchant_id = i.merchant_id and p.subject = 'invoice' and p.subject_id = i.id::text
       and p.resolved_at is null
     where i.merchant_id = $1 and i.billing_number = any($2::text[]) and i.state = 'parked'`,
    [merchantId, billingNumbers],
  );
}

/** Billing numbers of released bills that the gate has parked and the rule lets go on. */
export async function parkedByRule(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  rule: ReleaseRule,
): Promise<string[]> {
  const rows = await tx.query<{ billing_number: string }>(
    `select i.billing_number
     from parked_items p
     join invoices i on i.merchant_id = p.merchant_id and i.id::text = p.subject_id and i.state = 'parked'
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where p.merchant_id = $1 and p.subject = 'invoice' and p.resolved_at is null
       and p.reason in ('AMOUNT_UNUSUAL', 'BILLED_TWICE')
       and ($2::text is null or p.reason = $2) and ($3::text is null or f.name = $3)
       and ($4::bigint is null or i.amount <= $4)
       and ($5::bigint is null or i.amount <= $5 * (p.context ->> 'usual')::bigint)
     order by i.payment_number`,
    [merchantId, rule.reason, rule.file, rule.amountAtMost, rule.timesAtMost],
  );
  return rows.map((row) => row.billing_number);
}

/** Files in or out of these names that are parked for another reason than being held. */
export async function parkedFiles(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  names: readonly string[],
): Promise<{ id: string; name: string; reason: string }[]> {
  return tx.query<{ id: string; name: string; reason: string }>(
    `select f.id, f.name, p.reason
     from (select id, name from billing_files where merchant_id = $1 and name = any($2::text[]) and state <> 'held'
           union all
           select id, name from outward_files where merchant_id = $1 and name = any($2::text[])) f
     join parked_items p on p.merchant_id = $1 and p.subject = 'file' and p.subject_id = f.id::text
       and p.resolved_at is null
     order by f.id`,
    [merchantId, names],
  );
}
