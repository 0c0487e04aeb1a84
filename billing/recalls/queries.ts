import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { givableMethods } from '../refunds/refund.ts';
import { type Recall, type RecallOutcome, type RecallProgress, recalled, recallNotice } from './recall.ts';

const columns = `r.id, r.file_id, f.name as file_name, r.state, r.bills, r.amount, r.begun_by, r.begun_at, r.entered_to,
  r.all_entered, r.ended_at`;

export interface RecallableFile {
  id: string;
  name: string;
  kind: string;
  state: string;
  bills: number;
  amount: number;
}

/** Files of this name, the one that was loaded first. What a file holds is counted from its bills. */
export async function fileByName(
  db: Pick<Db, 'query'>,
  merchantId: number,
  name: string,
): Promise<RecallableFile | undefined> {
  const [file] = await db.query<RecallableFile>(
    `select f.id, f.name, f.kind, f.state, b.bills, b.amount
     from billing_files f
     cross join lateral (
       select count(*) as bills, coalesce(sum(i.amount), 0)::bigint as amount
       from invoices i where i.merchant_id = f.merchant_id and i.file_id = f.id
     ) b
     where f.merchant_id = $1 and f.name = $2
     order by f.state = 'released' desc, f.fetched_at desc, f.id limit 1`,
    [merchantId, name],
  );
  return file;
}

/** False: somebody has begun it already. */
export async function insertRecall(
  tx: Tx,
  act: Act,
  recall: { id: string; fileId: string; bills: number; amount: number },
): Promise<boolean> {
  const written = await tx.run(
    `with new as (
       insert into recalls (merchant_id, id, file_id, state, version, bills, amount, begun_by, begun_at)
       values ($1, $2::uuid, $3::uuid, 'running', 1, $4, $5, $6, $7::timestamptz)
       on conflict (merchant_id, file_id) do nothing
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $8::date, 'recall', id, 1, null, 'running', $7::timestamptz, $9::uuid from new`,
    [
      act.merchantId,
      recall.id,
      recall.fileId,
      recall.bills,
      recall.amount,
      act.actor,
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
  return written === 1;
}

export async function recallOfFile(
  db: Pick<Db, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<Recall | undefined> {
  const [recall] = await db.query<Recall>(
    `select ${columns} from recalls r
     join billing_files f on f.merchant_id = r.merchant_id and f.id = r.file_id
     where r.merchant_id = $1 and r.file_id = $2::uuid`,
    [merchantId, fileId],
  );
  return recall;
}

export async function runningRecalls(db: Pick<Db, 'query'>, merchantId: number): Promise<Recall[]> {
  return db.query<Recall>(
    `select ${columns} from recalls r
     join billing_files f on f.merchant_id = r.merchant_id and f.id = r.file_id
     where r.merchant_id = $1 and r.state = 'running' order by r.begun_at, r.id`,
    [merchantId],
  );
}

/**
 * Takes the next bills of the file under the recall: their links die, unsent messages are skipped, open pages are over, and
 * charges without an outcome are asked about now. From here on nothing is charged and nobody is reminded. Returns how many.
 */
export async function enterBills(tx: Tx, act: Act, recall: Recall, limit: number): Promise<number> {
  const at = instantText(act.at);
  const next = await tx.query<{ id: string }>(
    `select id from invoices
     where merchant_id = $1 and file_id = $2::uuid and ($3::uuid is null or id > $3::uuid)
     order by id limit $4 for update`,
    [act.merchantId, recall.file_id, recall.entered_to, limit],
  );
  const ids = next.map((row) => row.id);
  recall.entered_to = ids.at(-1) ?? recall.entered_to;
  recall.all_entered = ids.length < limit;
  await tx.run(
    `with entered as (
       insert into recall_bills (merchant_id, invoice_id, recall_id, state)
       select $1, id, $2::uuid, 'waiting' from unnest($3::uuid[]) as b(id)
       on conflict (merchant_id, invoice_id) do nothing
     ), links_ended as (
       update links set dead_reason = $4
       where merchant_id = $1 and invoice_id = any($3::uuid[]) and dead_reason is distinct from $4
     ), messages_ended as (
       update messages set state = 'skipped', version = version + 1, code = $4, decided_at = $5::timestamptz
       where merchant_id = $1 and invoice_id = any($3::uuid[]) and state = 'planned'
     ), pages_over as (
       update checkout_sessions set expires_at = $5::timestamptz
       where merchant_id = $1 and invoice_id = any($3::uuid[]) and state = 'open' and expires_at > $5::timestamptz
     ), asked_now as (
       update collection_locks set ask_at = $5::timestamptz
       where merchant_id = $1 and invoice_id = any($3::uuid[]) and ask_at > $5::timestamptz
     )
     update recalls set entered_to = $6::uuid, all_entered = $7 where merchant_id = $1 and id = $2::uuid`,
    [act.merchantId, recall.id, ids, recalled, at, recall.entered_to, recall.all_entered],
  );
  return ids.length;
}

export async function waitingBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  recallId: string,
  after: string | null,
  limit: number,
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select invoice_id from recall_bills
     where merchant_id = $1 and recall_id = $2::uuid and state = 'waiting' and ($3::uuid is null or invoice_id > $3::uuid)
     order by invoice_id limit $4`,
    [merchantId, recallId, after, limit],
  );
  return rows.map((row) => row.invoice_id);
}

/**
 * Of these bills, the ones with money that was taken and not given back. A refund by hand that is under way may still find
 * that the gateway gave nothing.
 */
export async function withMoney(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<Set<string>> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select invoice_id from payments
     where merchant_id = $1 and invoice_id = any($2::uuid[]) and refunded + reused < amount
     union
     select invoice_id from refunds
     where merchant_id = $1 and invoice_id = any($2::uuid[]) and state in ('processing', 'unknown')`,
    [merchantId, invoiceIds],
  );
  return new Set(rows.map((row) => row.invoice_id));
}

/** Of these bills, the ones whose customers were told by SMS, or perhaps were. */
export async function toldBySms(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select distinct invoice_id from messages
     where merchant_id = $1 and invoice_id = any($2::uuid[]) and state in ('sending', 'unknown', 'sent')
       and step <> $3
     order by invoice_id`,
    [merchantId, invoiceIds, recallNotice],
  );
  return rows.map((row) => row.invoice_id);
}

export async function moveBills(
  tx: Tx,
  merchantId: number,
  moves: readonly {
    invoiceId: string;
    to: 'refunding' | 'refused' | 'done';
    outcome: RecallOutcome | null;
  }[],
): Promise<void> {
  if (moves.length === 0) return;
  await tx.run(
    `update recall_bills b set state = m.state, outcome = m.outcome
     from unnest($2::uuid[], $3::text[], $4::text[]) as m(invoice_id, state, outcome)
     where b.merchant_id = $1 and b.invoice_id = m.invoice_id and b.state <> 'done'`,
    [
      merchantId,
      moves.map((move) => move.invoiceId),
      moves.map((move) => move.to),
      moves.map((move) => move.outcome),
    ],
  );
}

const allIsBack = `
  b.merchant_id = $1 and b.state in ('refunding', 'refused')
  and not exists (select from payments p
                  where p.merchant_id = b.merchant_id and p.invoice_id = b.invoice_id and p.refunded + p.reused < p.amount)
  and not exists (select from refunds r join charges c on c.merchant_id = r.merchant_id and c.id = r.charge_id
                  where r.merchant_id = b.merchant_id and c.invoice_id = b.invoice_id
                    and r.state in ('processing', 'unknown'))`;

/** What is held in memory does not grow with the file. */
const finishedAtOnce = 10_000;

/** Bills whose money is back to the last yen. Returns how many. */
export async function finishRefunded(tx: Tx, merchantId: number, recallId: string): Promise<number> {
  for (let finished = 0; ; ) {
    // Money that is being learned for one of them holds its bill: the next statement sees it, or it finds the bill done.
    const back = await tx.query<{ id: string }>(
      `select i.id from recall_bills b
       join invoices i on i.merchant_id = b.merchant_id and i.id = b.invoice_id
       where b.recall_id = $2::uuid and ${allIsBack}
       order by i.id limit $3 for update of i`,
      [merchantId, recallId, finishedAtOnce],
    );
    finished += await tx.run(
      `update recall_bills b set state = 'done', outcome = 'refunded'
       where b.recall_id = $2::uuid and b.invoice_id = any($3::uuid[]) and ${allIsBack}`,
      [merchantId, recallId, back.map(({ id }) => id)],
    );
    if (back.length < finishedAtOnce) return finished;
  }
}

/** What the gateway refused is asked of it once more. Returns how many bills. */
export async function retryRefused(tx: Tx, merchantId: number, recallId: string): Promise<number> {
  return tx.run(
    `update recall_bills set state = 'refunding' where merchant_id = $1 and recall_id = $2::uuid and state = 'refused'`,
    [merchantId, recallId],
  );
}

/**
 * Money for bills that were taken back and done with: a shop told of it later. Their recalls run again, until it is given
 * back.
 */
export async function takeUpRecalls(tx: Tx, act: Act, invoiceIds: readonly string[]): Promise<void> {
  if (invoiceIds.length === 0) return;
  // Whoever ends a recall holds it too: it sees these bills, or this sees that it has ended.
  await tx.query(
    `select from recalls
     where merchant_id = $1
       and id in (select recall_id from recall_bills where merchant_id = $1 and invoice_id = any($2::uuid[]))
     order by id for update`,
    [act.merchantId, invoiceIds],
  );
  await tx.run(
    `with bill as (
       update recall_bills set state = 'refunding', outcome = null
       where merchant_id = $1 and invoice_id = any($2::uuid[]) and state = 'done'
       returning recall_id
     ), again as (
       update recalls r set state = 'running', version = r.version + 1, ended_at = null
       where r.merchant_id = $1 and r.state = 'done' and r.id in (select recall_id from bill)
       returning r.id, r.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $4::date, 'recall', id, version, 'done', 'running', $3::timestamptz, $5::uuid from again`,
    [act.merchantId, invoiceIds, instantText(act.at), monthOf(act.at), act.id],
  );
}

/** The recall is over when every bill of the file is. */
export async function finishRecall(tx: Tx, act: Act, recallId: string): Promise<boolean> {
  // The next statement sees what was learned of its bills by whoever held it.
  await tx.query(`select from recalls where merchant_id = $1 and id = $2::uuid for update`, [
    act.merchantId,
    recallId,
  ]);
  const written = await tx.run(
    `with over as (
       update recalls r set state = 'done', version = r.version + 1, ended_at = $3::timestamptz
       where r.merchant_id = $1 and r.id = $2::uuid and r.state = 'running' and r.all_entered
         and not exists (select from recall_bills b
                         where b.merchant_id = r.merchant_id and b.recall_id = r.id and b.state <> 'done')
       returning r.id, r.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $4::date, 'recall', id, version, 'running', 'done', $3::timestamptz, $5::uuid from over`,
    [act.merchantId, recallId, instantText(act.at), monthOf(act.at), act.id],
  );
  return written === 1;
}

/**
 * By bill of a file: what is left of its payments, and how much of that was taken otherwise than by card or wallet. The
 * parameters with the file and with those methods.
 */
const moneyLeft = (file: string, givable: string) => `
  select y.merchant_id, y.invoice_id, sum(y.amount - y.refunded - y.reused) as left,
         sum(y.amount - y.refunded - y.reused) filter (where y.method <> all(${givable}::text[])) as by_shop_or_bank
  from invoices o join payments y on y.merchant_id = o.merchant_id and y.invoice_id = o.id
  where o.merchant_id = $1 and o.file_id = ${file}::uuid group by y.merchant_id, y.invoice_id`;

/** How far a recall is. */
export async function progressOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  recall: Pick<Recall, 'id' | 'file_id'>,
): Promise<RecallProgress> {
  const [row] = await db.query<RecallProgress>(
    `select count(*) filter (where b.outcome = 'cancelled') as cancelled,
            count(*) filter (where b.outcome = 'refunded') as refunded,
            count(*) filter (where b.outcome = 'untouched') as untouched,
            count(*) filter (where b.state = 'waiting') as waiting,
            count(*) filter (where b.state = 'refunding') as refunding,
            (select count(*) from refunds r where r.merchant_id = $1 and r.recall_id = $2::uuid
               and r.state in ('processing', 'unknown')) as refunds_unknown,
            count(*) filter (where b.state = 'refused') as refused,
            count(*) filter (where b.invoice_id is null) as not_entered,
            -- By the recall itself, and what was given since another way.
            (select coalesce(sum(r.amount), 0)::bigint
             from recalls k
             join recall_bills o on o.merchant_id = k.merchant_id and o.recall_id = k.id
             join refunds r on r.merchant_id = o.merchant_id and r.invoice_id = o.invoice_id and r.state = 'succeeded'
               and (r.recall_id = k.id or r.decided_at >= k.begun_at)
             where k.merchant_id = $1 and k.id = $2::uuid) as amount_refunded,
            count(*) filter (where b.state is distinct from 'done' and p.by_shop_or_bank > 0) as by_shop_or_bank,
            coalesce(sum(p.by_shop_or_bank) filter (where b.state is distinct from 'done'), 0)::bigint as amount_by_shop_or_bank,
            -- Not what trace still asks for: another payment of such a bill.
            (select coalesce(sum(y.amount - y.refunded - y.reused), 0)::bigint
             from recall_bills o
             join payments y on y.merchant_id = o.merchant_id and y.invoice_id = o.invoice_id
             where o.merchant_id = $1 and o.recall_id = $2::uuid and o.state = 'refused'
               and exists (select from refunds f where f.merchant_id = y.merchant_id and f.charge_id = y.id
                             and f.recall_id = o.recall_id and f.state = 'failed')) as amount_refused,
            (select count(*) from messages m join invoices o on o.merchant_id = m.merchant_id and o.id = m.invoice_id
             where m.merchant_id = $1 and m.step = $4 and o.file_id = $3::uuid) as notices
     from invoices i
     left join recall_bills b on b.merchant_id = i.merchant_id and b.invoice_id = i.id
     left join (${moneyLeft('$3', '$5')}) p on p.merchant_id = i.merchant_id and p.invoice_id = i.id
     where i.merchant_id = $1 and i.file_id = $3::uuid`,
    [merchantId, recall.id, recall.file_id, recallNotice, givableMethods],
  );
  if (row === undefined) throw new Error(`impossible state: recall ${recall.id} counts nothing`);
  return row;
}

/** What a recall of this file would find now; nothing is changed. */
export async function forecastOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<RecallProgress> {
  const [row] = await db.query<RecallProgress>(
    `select count(*) filter (where i.state in ('open', 'parked') and l.charge_id is null) as cancelled,
            count(*) filter (where i.state in ('paid', 'unpaid', 'cancelled') and (p.left > 0 or k.amount > 0)) as refunded,
            count(*) filter (where i.state in ('paid', 'unpaid', 'cancelled') and coalesce(p.left, 0) = 0 and k.amount is null) as untouched,
            count(*) filter (where i.state in ('open', 'parked') and l.charge_id is not null) as waiting,
            0 as refunding, 0 as refunds_unknown, 0 as refused, 0 as not_entered,
            coalesce(sum(p.left), 0)::bigint as amount_refunded,
            count(*) filter (where p.by_shop_or_bank > 0) as by_shop_or_bank,
            coalesce(sum(p.by_shop_or_bank), 0)::bigint as amount_by_shop_or_bank,
            0::bigint as amount_refused,
            count(*) filter (where i.state <> 'cancelled' and exists (
              select from messages m where m.merchant_id = i.merchant_id and m.invoice_id = i.id
                and m.state in ('sending', 'unknown', 'sent'))) as notices
     from invoices i
     left join collection_locks l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
     left join (${moneyLeft('$2', '$3')}) p on p.merchant_id = i.merchant_id and p.invoice_id = i.id
     left join (
       select merchant_id, invoice_id, sum(amount) as amount from credit_uses where returned_at is null group by merchant_id, invoice_id
     ) k on k.merchant_id = i.merchant_id and k.invoice_id = i.id
     where i.merchant_id = $1 and i.file_id = $2::uuid`,
    [merchantId, fileId, givableMethods],
  );
  if (row === undefined) throw new Error(`impossible state: file ${fileId} counts nothing`);
  return row;
}
