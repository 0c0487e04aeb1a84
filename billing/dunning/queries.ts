import type { Tx } from '../db.ts';
import type { CardEnded, FallBackReason } from './decide.ts';

export interface BillFacts {
  id: string;
  collection: 'link' | 'auto';
  business_date: string;
  due_on: string;
  debit_on: string | null;
  fell_back_on: string | null;
  settings_version: number;
  locked: boolean;
  /** The kind of what may be charged now; null: nothing. */
  method: 'card' | 'bank' | null;
  /** Why the card of the newest agreement, if it is one, is charged no more; null: it may be, or there is no agreement. */
  card_ended: CardEnded | null;
  /** A barcode was issued: a shop may have taken money that is not known yet. */
  has_barcode: boolean;
}

/** What dunning needs of open, released bills beside their attempts and messages. */
export async function billFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  invoiceIds: readonly string[],
  /** Whether the merchant has somebody who debits accounts. */
  byBank: boolean,
): Promise<BillFacts[]> {
  return tx.query<BillFacts>(
    `select i.id, i.collection, i.business_date, i.due_on, i.debit_on, i.fell_back_on, i.settings_version,
            l.charge_id is not null as locked,
            (select m.kind from enrolments e
             join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
             where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id and e.state = 'active'
               and m.state = 'active' and case m.kind when 'card' then m.gateway = $2 else $4 end) as method,
            (select case when m.kind = 'card' and m.state = 'ended' then nullif(coalesce(m.ended_for, 'declined'), 'replaced') end
             from enrolments e
             join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
             where e.merchant_id = i.merchant_id and e.contract_id = i.contract_id
             order by e.started_at desc, e.id desc limit 1) as card_ended,
            exists (select from barcodes b where b.merchant_id = i.merchant_id and b.invoice_id = i.id) as has_barcode
     from invoices i
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     left join collection_locks l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
     where i.merchant_id = $1 and i.id = any($3::uuid[]) and i.state = 'open'
     order by i.id`,
    [merchantId, gateway, invoiceIds, byBank],
  );
}

export interface AttemptFacts {
  invoice_id: string;
  origin: 'link' | 'auto';
  state: 'unknown' | 'failed' | 'succeeded';
  business_date: string;
  network: string | null;
  verdict: 'retry_at' | 'needs_customer' | 'never_this_method' | 'unknown' | 'stop' | 'no_rule' | null;
  retry_not_before: string | null;
  /** When this card was charged this amount in the 30 days before, for the networks' ceilings. */
  same_card_at: string[];
}

/** Attempts that had an effect or may have had one; those proven to be without effect do not count. */
export async function attemptFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<AttemptFacts[]> {
  return tx.query<AttemptFacts>(
    `select c.invoice_id, c.origin, c.state, c.business_date, c.network, c.verdict, c.retry_not_before,
            case when c.state = 'failed' and c.payment_method_id is not null then array(
              select o.started_at
              from invoices i
              join invoices other on other.merchant_id = i.merchant_id and other.customer_id = i.customer_id
              join charges o on o.merchant_id = other.merchant_id and o.invoice_id = other.id
              where i.merchant_id = c.merchant_id and i.id = c.invoice_id
                and o.payment_method_id = c.payment_method_id and o.amount = c.amount and o.state <> 'canceled'
                and o.started_at > c.started_at - interval '30 days'
            ) else '{}' end as same_card_at
     from charges c
     where c.merchant_id = $1 and c.invoice_id = any($2::uuid[]) and c.state in ('unknown', 'failed', 'succeeded')
     order by c.invoice_id, c.attempt_no`,
    [merchantId, invoiceIds],
  );
}

export interface NoticeFacts {
  invoice_id: string;
  step: string;
  planned_on: string;
}

export async function noticeFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<NoticeFacts[]> {
  return tx.query<NoticeFacts>(
    `select invoice_id, step, planned_on from messages
     where merchant_id = $1 and invoice_id = any($2::uuid[])
     order by invoice_id, planned_on, step`,
    [merchantId, invoiceIds],
  );
}

/** From now on a link is offered for these automatic bills too; `why` decides what its SMS says. */
export async function fallBackToLink(
  tx: Tx,
  merchantId: number,
  bills: readonly { invoiceId: string; why: FallBackReason | 'parked' }[],
  on: string,
): Promise<void> {
  if (bills.length === 0) return;
  await tx.run(
    `update invoices i set fell_back_on = $4::date, fell_back_for = b.why
     from unnest($2::uuid[], $3::text[]) as b(invoice_id, why)
     where i.merchant_id = $1 and i.id = b.invoice_id and i.fell_back_on is null`,
    [merchantId, bills.map((bill) => bill.invoiceId), bills.map((bill) => bill.why), on],
  );
}
