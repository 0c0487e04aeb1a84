import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { isHeld } from '../holds/queries.ts';
import { skippedUnreached, type UnreachedCause } from './decide.ts';

/** A message that did not reach its phone and that nobody has looked at since; by the index `messages_not_reached`. */
const notReached = (
  m: string,
): string => `${m}.looked_at is null and (${m}.unreached is not null or ${m}.state = 'failed'
  or (${m}.state = 'skipped' and ${m}.code in (${skippedUnreached.map((code) => `'${code}'`).join(', ')})))`;

/** Why, in the file's words: a carrier that gives no reason has not delivered it. */
const causeOf = (m: string): string =>
  `coalesce(${m}.unreached, case when ${m}.state = 'skipped' then ${m}.code else 'undelivered' end)`;

/** What keeps a bill `i` as it is on a day: a charge, a hold, a finding, or an SMS that may still arrive. */
const isBusy = (day: string): string => `(
  exists (select from collection_locks k where k.merchant_id = i.merchant_id and k.invoice_id = i.id)
  or exists (select from findings f where f.merchant_id = i.merchant_id and f.invoice_id = i.id and f.state = 'open')
  or exists (select from messages p where p.merchant_id = i.merchant_id and p.invoice_id = i.id
               and p.state in ('planned', 'sending', 'unknown'))
  or ${isHeld('i', day)})`;

/** Open bills of which an SMS did not arrive, in the order of their ids. What is busy waits for a later pass. */
export async function billsNotReached(
  db: Pick<Db, 'query'>,
  merchantId: number,
  day: string,
  after: string | null,
  limit: number,
): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    `select distinct i.id
     from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     where m.merchant_id = $1 and ${notReached('m')} and ($3::uuid is null or m.invoice_id > $3::uuid)
       and i.state = 'open' and not ${isBusy('$2')}
     order by i.id
     limit $4`,
    [merchantId, day, after, limit],
  );
  return rows.map((row) => row.id);
}

/** The same, with nothing heard of them since an instant: three parameters of a statement. */
export const untoldBills = (merchantId: string, day: string, before: string): string => `
  select i.id
  from messages m
  join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
  where m.merchant_id = ${merchantId} and ${notReached('m')} and i.state = 'open' and not ${isBusy(day)}
  group by i.id
  having max(coalesce(m.delivery_at, m.decided_at)) < ${before}::timestamptz`;

export async function countNotReached(
  db: Pick<Db, 'query'>,
  merchantId: number,
  day: string,
): Promise<number> {
  const [row] = await db.query<{ bills: number }>(
    `select count(distinct i.id) as bills
     from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     where m.merchant_id = $1 and ${notReached('m')} and i.state = 'open' and not ${isBusy('$2')}`,
    [merchantId, day],
  );
  return row?.bills ?? 0;
}

/** Bills that ended by themselves need nobody's look: their messages leave the index. Returns how many messages. */
export async function forgetEnded(tx: Tx, merchantId: number, at: Temporal.Instant): Promise<number> {
  return tx.run(
    `update messages m set looked_at = $2::timestamptz
     from invoices i
     where m.merchant_id = $1 and ${notReached('m')}
       and i.merchant_id = $1 and i.id = m.invoice_id and i.state in ('paid', 'unpaid', 'cancelled')`,
    [merchantId, instantText(at)],
  );
}

export interface ReachRow {
  id: string;
  file_id: string;
  amount: number;
  settings_version: number;
  by_link: boolean;
  is_busy: boolean;
  is_told: boolean;
  is_reached: boolean;
  cause: UnreachedCause;
  /** The newest step whose link did not arrive; null: none had one, or a step was said twice already. */
  again: string | null;
  /** The barcode that was issued last. */
  reissue: number | null;
  digits: string | null;
  expires_on: string | null;
  /** YYYY-MM-DD: the business date of the newest charge. */
  charged_on: string | null;
}

/** The facts of bills that the caller has locked; those that are not open any more are left out. */
export async function reachFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  day: string,
  invoiceIds: readonly string[],
): Promise<ReachRow[]> {
  return tx.query<ReachRow>(
    `select i.id, i.file_id, i.amount, i.settings_version, i.collection = 'link' or i.fell_back_on is not null as by_link,
            ${isBusy('$2')} as is_busy,
            exists (select from unreached_rows r where r.merchant_id = i.merchant_id and r.invoice_id = i.id) as is_told,
            exists (select from messages g where g.merchant_id = i.merchant_id and g.invoice_id = i.id
                      and g.state = 'sent' and g.link_version is not null and g.unreached is null) as is_reached,
            (select ${causeOf('m')} from messages m
             where m.merchant_id = i.merchant_id and m.invoice_id = i.id and ${notReached('m')}
             order by coalesce(m.delivery_at, m.decided_at) desc, m.step limit 1) as cause,
            (select m.step from messages m
             where m.merchant_id = i.merchant_id and m.invoice_id = i.id and m.link_version is not null and ${notReached('m')}
               and not exists (select from messages a where a.merchant_id = i.merchant_id and a.invoice_id = i.id
                                 and a.step like 'again:%')
             order by coalesce(m.delivery_at, m.decided_at) desc, m.step limit 1) as again,
            b.reissue, b.digits, b.expires_on,
            (select max(c.business_date) from charges c
             where c.merchant_id = i.merchant_id and c.invoice_id = i.id and c.state <> 'canceled') as charged_on
     from invoices i
     left join lateral (
       select reissue, digits, expires_on from barcodes
       where merchant_id = i.merchant_id and invoice_id = i.id order by reissue desc limit 1
     ) b on true
     where i.merchant_id = $1 and i.id = any($3::uuid[]) and i.state = 'open'
       and exists (select from messages m where m.merchant_id = i.merchant_id and m.invoice_id = i.id and ${notReached('m')})
     order by i.id`,
    [merchantId, day, invoiceIds],
  );
}

/** Of these bills nothing is left to look at. */
export async function markLookedAt(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  invoiceIds: readonly string[],
): Promise<void> {
  if (invoiceIds.length === 0) return;
  await tx.run(
    `update messages m set looked_at = $2::timestamptz
     where m.merchant_id = $1 and m.invoice_id = any($3::uuid[]) and ${notReached('m')}`,
    [merchantId, instantText(at), invoiceIds],
  );
}

export interface NewUnreachedRow {
  invoiceId: string;
  cause: UnreachedCause;
  /** 44 digits: the bill is kept. Null: it went back. */
  barcode: string | null;
}

/** Written once, with what they tell; an unreached file claims them. A second one for a bill breaks the key. */
export async function addUnreachedRows(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  rows: readonly NewUnreachedRow[],
): Promise<void> {
  if (rows.length === 0) return;
  await tx.run(
    `insert into unreached_rows (merchant_id, invoice_id, reason, disposition, barcode, occurred_at)
     select $1, r.invoice_id, r.reason, case when r.barcode is null then 'returned' else 'kept' end, r.barcode, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::text[]) as r(invoice_id, reason, barcode)`,
    [
      merchantId,
      instantText(at),
      rows.map((row) => row.invoiceId),
      rows.map((row) => row.cause),
      rows.map((row) => row.barcode),
    ],
  );
}

/** Of these files, those that no bill by link of reached anybody, with how many those are. */
export async function filesWhollyUnreached(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileIds: readonly string[],
  atLeast: number,
): Promise<{ name: string; bills: number }[]> {
  if (fileIds.length === 0) return [];
  return tx.query<{ name: string; bills: number }>(
    `select f.name, count(*) as bills
     from billing_files f
     join invoices i on i.merchant_id = f.merchant_id and i.file_id = f.id and i.collection = 'link'
     left join unreached_rows r on r.merchant_id = i.merchant_id and r.invoice_id = i.id
     where f.merchant_id = $1 and f.id = any($2::uuid[])
     group by f.id, f.name
     having count(*) = count(r.invoice_id) and count(*) >= $3
     order by f.name`,
    [merchantId, fileIds, atLeast],
  );
}
