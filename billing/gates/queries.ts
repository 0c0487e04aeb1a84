import type { Tx } from '../db.ts';
import type { RecordRange } from '../exchanges/queries.ts';
import type { BillHistory, UsualFile } from './gate.ts';

/** So many of the merchant's files say what is usual. */
const filesLookedAt = 12;
/** So many bills of a contract: a year of months. */
const billsLookedAt = 12;

/** The merchant's last released billing files that had bills. */
export async function usualFile(tx: Pick<Tx, 'query'>, merchantId: number): Promise<UsualFile> {
  const [usual] = await tx.query<UsualFile>(
    `select count(*) as files, percentile_disc(0.5) within group (order by lines_read) as lines,
            percentile_disc(0.5) within group (order by amount_trailer) as total,
            (sum(amount_trailer) / nullif(sum(lines_read), 0))::bigint as bill
     from (select lines_read, amount_trailer from billing_files
           where merchant_id = $1 and kind = 'billing' and state = 'released' and lines_read > 0
           order by business_date desc, sequence desc nulls last, id desc limit ${filesLookedAt}) last`,
    [merchantId],
  );
  return usual ?? { files: 0, lines: null, total: null, bill: null };
}

/**
 * Bills just made of a range that may be unusual: by the lowest amount that their contract was ever billed, cancelled
 * bills included, which finds more than there are and never fewer. One look into one index for each line, and none into
 * the bills themselves.
 */
export async function suspectBills(
  tx: Pick<Tx, 'query'>,
  range: RecordRange,
  look: { times: number; twice: boolean; usualBill: number | null; detailed: boolean },
): Promise<string[]> {
  const contract = look.detailed
    ? `(select t.id from contracts t where t.merchant_id = $1 and t.customer_id = s.customer_id
          and t.contract_number = coalesce(s.details ->> 'contract', ''))`
    : 's.customer_id';
  const rows = await tx.query<{ invoice_id: string }>(
    `select s.invoice_id
     from staged_bills s
     cross join lateral (
       select min(p.amount) as lowest, count(*) as bills,
              count(*) filter (where p.billing_period = s.billing_period) as same
       from (select i.amount, i.billing_period from invoices i
             where i.merchant_id = $1 and i.customer_id = s.customer_id and i.contract_id = ${contract}
             order by i.billing_period desc limit ${billsLookedAt * 4}) p
     ) h
     where s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4
       and (($6 and h.same > 1)
         or ($5 > 0 and h.bills > 1 and s.amount >= h.lowest * $5::int)
         or ($5 > 0 and s.amount >= $7::bigint * $5::int))`,
    [range.merchantId, range.fileId, range.from, range.to, look.times, look.twice, look.usualBill],
  );
  return rows.map((row) => row.invoice_id);
}

/** Lines of the range whose amount alone is suspect, where no contract has a history yet. */
export async function highBills(
  tx: Pick<Tx, 'query'>,
  range: RecordRange,
  fromAmount: number,
): Promise<string[]> {
  const rows = await tx.query<{ invoice_id: string }>(
    `select invoice_id from staged_bills
     where merchant_id = $1 and file_id = $2::uuid and record_no > $3 and record_no <= $4 and amount >= $5::bigint`,
    [range.merchantId, range.fileId, range.from, range.to, fromAmount],
  );
  return rows.map((row) => row.invoice_id);
}

export interface SuspectBill extends BillHistory {
  invoice_id: string;
}

/** What the suspects are really compared with. */
export async function billHistories(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<SuspectBill[]> {
  const others = `
    from invoices o
    join billing_files f on f.merchant_id = o.merchant_id and f.id = o.file_id
    where o.merchant_id = $1 and o.customer_id = i.customer_id and o.contract_id = i.contract_id and o.id <> i.id
      and o.state <> 'cancelled' and o.id is distinct from i.replaces_id`;
  return tx.query<SuspectBill>(
    `select i.id as invoice_id, i.amount, h.bills, h.usual, s.same as "samePeriod", m.most as "mostInAPeriod"
     from invoices i
     cross join lateral (
       select count(*) as bills, percentile_disc(0.5) within group (order by amount) as usual
       from (select o.amount ${others} and f.state = 'released' order by o.billing_period desc limit ${billsLookedAt}) p
     ) h
     cross join lateral (
       select count(*) as same ${others} and o.billing_period = i.billing_period
         and (f.state = 'released' or (o.file_id = i.file_id and o.line_no < i.line_no))
     ) s
     cross join lateral (
       select coalesce(max(n), 0) as most
       from (select count(*) as n ${others} and o.billing_period <> i.billing_period and f.state = 'released'
             group by o.billing_period) p
     ) m
     where i.merchant_id = $1 and i.id = any($2::uuid[])
     order by i.payment_number`,
    [merchantId, invoiceIds],
  );
}

/** Before anybody has seen them: their history begins with it. Returns how many. */
export async function parkUnreleased(
  tx: Tx,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<number> {
  return tx.run(
    `update invoices i set state = 'parked'
     from billing_files f
     where i.merchant_id = $1 and i.id = any($2::uuid[]) and i.state = 'open'
       and f.merchant_id = $1 and f.id = i.file_id and f.state = 'loading'`,
    [merchantId, invoiceIds],
  );
}
