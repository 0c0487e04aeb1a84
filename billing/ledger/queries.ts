import { type Act, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { events, type Posting } from './ledger.ts';

/** Appends one transfer for each posting. `postedOn` is the merchant's today; it decides the closing month. */
export async function post(tx: Tx, act: Act, postedOn: string, postings: readonly Posting[]): Promise<void> {
  if (postings.length === 0) return;
  const written = await tx.run(
    `insert into transfers (merchant_id, month, entry_id, event, leg, debit, credit, amount, currency,
                            event_on, posted_on, closing_month, invoice_id, customer_id, act_id)
     select $1, $2::date, p.entry_id, p.event, 1, p.debit, p.credit, p.amount, p.currency,
            p.event_on, $3::date, date_trunc('month', $3::date)::date, p.invoice_id, p.customer_id, $4::uuid
     from unnest($5::uuid[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::date[],
                 $12::uuid[], $13::uuid[])
       as p(entry_id, event, debit, credit, amount, currency, event_on, invoice_id, customer_id)`,
    [
      act.merchantId,
      monthOf(act.at),
      postedOn,
      act.id,
      postings.map((p) => p.entryId),
      postings.map((p) => p.event),
      postings.map((p) => events[p.event].debit),
      postings.map((p) => events[p.event].credit),
      postings.map((p) => p.amount),
      postings.map((p) => p.currency),
      postings.map((p) => p.eventOn),
      postings.map((p) => p.invoiceId),
      postings.map((p) => p.customerId),
    ],
  );
  if (written !== postings.length)
    throw new Error(`impossible state: ${written} transfers written of ${postings.length}`);
}

export interface AccountBalance {
  merchant: string;
  account: string;
  debit: number;
  credit: number;
  balance: number;
}

/** Debits, credits and balance by merchant and account; the balances of one merchant add up to zero. */
export async function trialBalance(db: Pick<Db, 'query'>): Promise<AccountBalance[]> {
  return db.query<AccountBalance>(
    `select m.code as merchant, account, sum(debit)::bigint as debit, sum(credit)::bigint as credit,
            (sum(debit) - sum(credit))::bigint as balance
     from (
       select merchant_id, debit as account, amount as debit, 0 as credit from transfers
       union all
       select merchant_id, credit, 0, amount from transfers
     ) leg join merchants m on m.id = leg.merchant_id
     group by m.code, account order by m.code, account`,
  );
}
