import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { type Account, events, type LedgerEvent, type Posting } from './ledger.ts';

/**
 * For a statement that posts: the merchant's head under a share lock, so that no month is closed between the look at it
 * and the commit. `$1` is the merchant. Join it: a merchant without a head then posts nothing, and the count tells.
 */
export const ledgerHead = `head as (select open_from from ledger_heads where merchant_id = $1 for share)`;

/** The month that a row posted on a day (a date parameter) enters: its own, or the first open one after a closed one. */
export const closingMonth = (postedOn: string): string =>
  `greatest(date_trunc('month', ${postedOn}::date)::date, head.open_from)`;

/** Appends one transfer for each posting. `postedOn` is the merchant's today; it decides the closing month. */
export async function post(tx: Tx, act: Act, postedOn: string, postings: readonly Posting[]): Promise<void> {
  if (postings.length === 0) return;
  const written = await tx.run(
    `with ${ledgerHead}
     insert into transfers (merchant_id, month, entry_id, event, leg, debit, credit, amount, currency,
                            event_on, posted_on, closing_month, invoice_id, customer_id, act_id)
     select $1, $2::date, p.entry_id, p.event, 1, p.debit, p.credit, p.amount, p.currency,
            p.event_on, $3::date, ${closingMonth('$3')}, p.invoice_id, p.customer_id, $4::uuid
     from head, unnest($5::uuid[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[], $11::date[],
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

/** With the merchant: its first month is the one of its first day here. */
export async function openLedger(tx: Tx, merchantId: number, firstMonth: string): Promise<void> {
  await tx.run(
    `insert into ledger_heads (merchant_id, first_month, open_from) values ($1, $2::date, $2::date)`,
    [merchantId, firstMonth],
  );
}

/** Legs of transfers, each with what it adds to its account: the same rows seen from both sides. */
const legs = (transfers: string): string => `
  select merchant_id, currency, closing_month, debit as account, amount as debit, 0::bigint as credit from ${transfers}
  union all
  select merchant_id, currency, closing_month, credit, 0, amount from ${transfers}`;

/** What of the ledger is asked for; what is left out is not asked for. */
export interface LedgerFilter {
  merchantId?: number;
  /** YYYY-MM-01: rows of this closing month. */
  month?: string;
  account?: Account;
  customerId?: string;
  invoiceId?: string;
}

/** By the index on invoices: every row of a customer is of one of the customer's bills. */
const filtered = `
  select * from transfers t
  where ($1::int is null or t.merchant_id = $1)
    and ($2::date is null or t.closing_month = $2)
    and ($3::text is null or $3 in (t.debit, t.credit))
    and ($4::uuid is null or t.invoice_id in (
      select i.id from invoices i where i.merchant_id = t.merchant_id and i.customer_id = $4))
    and ($5::uuid is null or t.invoice_id = $5)`;

const filterValues = (filter: LedgerFilter): unknown[] => [
  filter.merchantId ?? null,
  filter.month ?? null,
  filter.account ?? null,
  filter.customerId ?? null,
  filter.invoiceId ?? null,
];

export interface AccountBalance {
  merchant: string;
  currency: string;
  account: Account;
  debit: number;
  credit: number;
  balance: number;
}

/**
 * Debits, credits and balance by merchant, currency and account, of the whole ledger or of a part of it: a month, a
 * customer, a bill. Unless one account is asked for, the balances of a merchant and currency add up to zero.
 */
export async function trialBalance(
  db: Pick<Db, 'query'>,
  filter: LedgerFilter = {},
): Promise<AccountBalance[]> {
  return db.query<AccountBalance>(
    `with chosen as (${filtered})
     select m.code as merchant, l.currency, l.account, sum(l.debit)::bigint as debit, sum(l.credit)::bigint as credit,
            (sum(l.debit) - sum(l.credit))::bigint as balance
     from (${legs('chosen')}) l join merchants m on m.id = l.merchant_id
     where $3::text is null or l.account = $3
     group by m.code, l.currency, l.account order by m.code, l.currency, l.account`,
    filterValues(filter),
  );
}

export interface LedgerEntry {
  merchant: string;
  event_on: string;
  posted_on: string;
  /** YYYY-MM-DD, the first of the month. */
  closing_month: string;
  event: LedgerEvent;
  debit: Account;
  credit: Account;
  amount: number;
  currency: string;
  billing_number: string | null;
  entry_id: string;
  /** What caused it: a job's chunk, a visit, a command. */
  actor: string | null;
}

/** The newest entries first. */
export async function ledgerEntries(
  db: Pick<Db, 'query'>,
  filter: LedgerFilter,
  limit: number,
): Promise<LedgerEntry[]> {
  return db.query<LedgerEntry>(
    `with chosen as (
       ${filtered}
       order by t.month desc, t.posted_on desc, t.entry_id desc, t.event limit $6
     )
     select m.code as merchant, c.event_on, c.posted_on, c.closing_month, c.event, c.debit, c.credit, c.amount, c.currency,
            i.billing_number, c.entry_id, a.actor
     from chosen c
     join merchants m on m.id = c.merchant_id
     left join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
     left join acts a on a.merchant_id = c.merchant_id and a.month = c.month and a.id = c.act_id
     order by c.month desc, c.posted_on desc, c.entry_id desc, c.event`,
    [...filterValues(filter), limit],
  );
}

export async function invoiceIdOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  billingNumber: string,
): Promise<string | undefined> {
  const [row] = await db.query<{ id: string }>(
    `select id from invoices where merchant_id = $1 and billing_number = $2`,
    [merchantId, billingNumber],
  );
  return row?.id;
}

export async function customerIdOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  customerNumber: string,
): Promise<string | undefined> {
  const [row] = await db.query<{ id: string }>(
    `select id from customers where merchant_id = $1 and customer_number = $2`,
    [merchantId, customerNumber],
  );
  return row?.id;
}

export interface LedgerHead {
  first_month: string;
  open_from: string;
  /** The newest month that stands frozen; null = none. */
  last_closed: string | null;
}

/** All dates are firsts of months. */
export async function ledgerHeadOf(tx: Pick<Tx, 'query'>, merchantId: number): Promise<LedgerHead> {
  const [head] = await tx.query<LedgerHead>(
    `select h.first_month, h.open_from,
            (select max(c.month) from closed_months c where c.merchant_id = h.merchant_id) as last_closed
     from ledger_heads h where h.merchant_id = $1`,
    [merchantId],
  );
  if (!head) throw new Error(`impossible state: merchant ${merchantId} has no ledger`);
  return head;
}

/** Waits for every posting under way, and lets none in after it. Only forward. */
export async function shutMonthsBefore(tx: Tx, merchantId: number, openFrom: string): Promise<void> {
  await tx.query(`select 1 from ledger_heads where merchant_id = $1 for update`, [merchantId]);
  await tx.run(
    `update ledger_heads set open_from = $2::date where merchant_id = $1 and open_from < $2::date`,
    [merchantId, openFrom],
  );
}

/** False: another process has frozen it. */
export async function freezeMonth(tx: Tx, act: Act, month: string): Promise<boolean> {
  const frozen = await tx.run(
    `insert into closed_months (merchant_id, month, transfers, amount, closed_at, closed_by, act_id)
     select $1, $2::date, count(*), coalesce(sum(amount), 0), $3::timestamptz, $4, $5::uuid
     from transfers where merchant_id = $1 and closing_month = $2::date
     on conflict do nothing`,
    [act.merchantId, month, instantText(act.at), act.actor, act.id],
  );
  if (frozen === 0) return false;
  await tx.run(
    `with moved as (
       select account, currency, sum(debit) as debit, sum(credit) as credit
       from (${legs('(select * from transfers where merchant_id = $1 and closing_month = $2::date) t')}) l
       group by account, currency
     ), carried as (
       select account, currency, balance from closed_month_accounts
       where merchant_id = $1 and month = ($2::date - interval '1 month')::date
     )
     insert into closed_month_accounts (merchant_id, month, account, currency, debit, credit, balance)
     select $1, $2::date, account, currency, coalesce(m.debit, 0), coalesce(m.credit, 0),
            coalesce(c.balance, 0) + coalesce(m.debit, 0) - coalesce(m.credit, 0)
     from moved m full join carried c using (account, currency)`,
    [act.merchantId, month],
  );
  return true;
}

export interface ClosedMonth {
  merchant: string;
  month: string;
  transfers: number;
  amount: number;
  closed_at: string;
  closed_by: string;
}

export async function closedMonths(db: Pick<Db, 'query'>, merchantId: number | null): Promise<ClosedMonth[]> {
  return db.query<ClosedMonth>(
    `select m.code as merchant, c.month, c.transfers, c.amount, c.closed_at, c.closed_by
     from closed_months c join merchants m on m.id = c.merchant_id
     where $1::int is null or c.merchant_id = $1
     order by m.code, c.month`,
    [merchantId],
  );
}

export interface FrozenAccount {
  account: Account;
  currency: string;
  debit: number;
  credit: number;
  balance: number;
}

export async function frozenAccounts(
  db: Pick<Db, 'query'>,
  merchantId: number,
  month: string,
): Promise<FrozenAccount[]> {
  return db.query<FrozenAccount>(
    `select account, currency, debit, credit, balance from closed_month_accounts
     where merchant_id = $1 and month = $2::date order by currency, account`,
    [merchantId, month],
  );
}

/*
 * What the ledger says beside what the rows say that are read every day. Each text gives its violations (merchant_id,
 * subject, detail), so that an empty answer is the proof; `seikyu check` asks them.
 */

/** Rows of a closed month still are what was frozen, and its balances follow from the month before. */
export const closedMonthViolations = `
  select coalesce(f.merchant_id, n.merchant_id) as merchant_id,
         to_char(coalesce(f.month, n.month), 'YYYY-MM') as subject,
         coalesce(f.account, n.account) || ': frozen ' || coalesce(f.debit, 0) || ' to ' || coalesce(f.credit, 0)
           || ', now ' || coalesce(n.debit, 0) || ' to ' || coalesce(n.credit, 0) as detail
  from (
    select a.merchant_id, a.month, a.account, a.currency, a.debit, a.credit,
           a.balance - a.debit + a.credit
             - coalesce(lag(a.balance) over (partition by a.merchant_id, a.account, a.currency order by a.month), 0) as slipped
    from closed_month_accounts a
  ) f
  full join (
    select l.merchant_id, l.closing_month as month, l.account, l.currency,
           sum(l.debit)::bigint as debit, sum(l.credit)::bigint as credit
    from (${legs(`(
      select t.* from transfers t
      join closed_months c on c.merchant_id = t.merchant_id and c.month = t.closing_month) t`)}) l
    group by l.merchant_id, l.closing_month, l.account, l.currency
  ) n using (merchant_id, month, account, currency)
  where coalesce(f.debit, 0) <> coalesce(n.debit, 0) or coalesce(f.credit, 0) <> coalesce(n.credit, 0)
     or coalesce(f.slipped, 0) <> 0
  union all
  select c.merchant_id, to_char(c.month, 'YYYY-MM'),
         'frozen ' || c.transfers || ' rows over ' || c.amount || ', now ' || count(t.amount) || ' over ' || coalesce(sum(t.amount), 0)
  from closed_months c
  left join transfers t on t.merchant_id = c.merchant_id and t.closing_month = c.month
  group by c.merchant_id, c.month, c.transfers, c.amount
  having count(t.amount) <> c.transfers or coalesce(sum(t.amount), 0) <> c.amount
  union all
  select c.merchant_id, to_char(c.month, 'YYYY-MM'), 'closed, and the ledger still takes rows for it'
  from closed_months c join ledger_heads h on h.merchant_id = c.merchant_id
  where h.open_from <= c.month`;

/** Of each released bill: what is owed, returned and billed, by the ledger and by the bill's state. */
export const billBalanceViolations = `
  select i.merchant_id, i.billing_number as subject,
         i.state || ' over ' || i.amount || ': receivable ' || coalesce(b.receivable, 0) || ', returned '
           || coalesce(b.returned, 0) || ', billed ' || coalesce(b.billed, 0) || ', preliminary ' || coalesce(b.preliminary, 0) as detail
  from invoices i
  join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
  left join (
    select merchant_id, invoice_id,
           sum(case when debit = 'receivable' then amount when credit = 'receivable' then -amount else 0 end) as receivable,
           sum(case when debit = 'returned' then amount when credit = 'returned' then -amount else 0 end) as returned,
           sum(case when debit = 'preliminary' then amount when credit = 'preliminary' then -amount else 0 end) as preliminary,
           sum(case when credit = 'billed' then amount when debit = 'billed' then -amount else 0 end) as billed,
           sum(case when event in ('refunded', 'refunded_by_merchant', 'credit_returned') then amount else 0 end) as given_back
    from transfers where invoice_id is not null group by merchant_id, invoice_id
  ) b on b.merchant_id = i.merchant_id and b.invoice_id = i.id
  left join (
    select merchant_id, invoice_id, sum(amount) as amount from allocations group by merchant_id, invoice_id
  ) p on p.merchant_id = i.merchant_id and p.invoice_id = i.id
  where coalesce(b.receivable, 0) + coalesce(b.preliminary, 0)
          <> case when i.state in ('open', 'parked') then i.amount else 0 end
     -- What was given back was never owed.
     or coalesce(b.billed, 0) <> case when i.state = 'cancelled' then 0 else i.amount - coalesce(b.given_back, 0) end
     or coalesce(b.returned, 0) <> case when i.state = 'unpaid' then i.amount - coalesce(p.amount, 0) else 0 end`;

/** Of each customer: the credit in the ledger, the surplus that was written down when it came, and what is left of it. */
export const customerCreditViolations = `
  select coalesce(b.merchant_id, k.merchant_id) as merchant_id,
         coalesce(u.customer_number, coalesce(b.customer_id, k.customer_id)::text) as subject,
         'credit ' || coalesce(b.credit, 0) || ' in the ledger, ' || coalesce(k.credit, 0) || ' in credits' as detail
  from (
    select merchant_id, customer_id,
           sum(case when credit = 'customer_credit' then amount else -amount end) as credit
    from transfers
    where (credit = 'customer_credit' or debit = 'customer_credit') and event = 'overpaid'
    group by merchant_id, customer_id
  ) b
  full join (
    select merchant_id, customer_id, sum(amount) as credit from credits group by merchant_id, customer_id
  ) k on k.merchant_id = b.merchant_id and k.customer_id = b.customer_id
  left join customers u on u.merchant_id = coalesce(b.merchant_id, k.merchant_id)
    and u.id = coalesce(b.customer_id, k.customer_id)
  where coalesce(b.credit, 0) <> coalesce(k.credit, 0)
  union all
  select coalesce(t.merchant_id, k.merchant_id), coalesce(t.customer_id, k.customer_id)::text,
         coalesce(t.amount, 0) || ' of credit left in the ledger, ' || coalesce(k.amount, 0) || ' in payments'
  from (
    select merchant_id, customer_id,
           sum(case when credit = 'customer_credit' then amount else -amount end) as amount
    from transfers where credit = 'customer_credit' or debit = 'customer_credit' group by merchant_id, customer_id
  ) t
  full join (
    select k.merchant_id, k.customer_id, sum(k.amount - p.reused - coalesce(r.amount, 0)) as amount
    from credits k
    join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id
    left join (
      select merchant_id, charge_id, sum(amount) as amount from refunds where state = 'succeeded' group by merchant_id, charge_id
    ) r on r.merchant_id = k.merchant_id and r.charge_id = k.payment_id
    group by k.merchant_id, k.customer_id
  ) k on k.merchant_id = t.merchant_id and k.customer_id = t.customer_id
  where coalesce(t.amount, 0) <> coalesce(k.amount, 0) or t.amount < 0`;

/**
 * Of each merchant: what lies at the gateway by the ledger, and the payments that no payout has taken. Events whose causes
 * are of the ledger alone (refunds, chargebacks) are counted on both sides.
 */
export const clearingViolations = `
  select merchant_id, currency as subject,
         'gateway clearing ' || sum(ledger) || ', payments not paid out ' || sum(cached) as detail
  from (
    select merchant_id, currency,
           case when debit = 'gateway_clearing' then amount else -amount end as ledger,
           case when event in ('paid', 'preliminary_confirmed', 'overpaid', 'paid_after_return', 'payout', 'fee', 'fee_tax') then 0
                when debit = 'gateway_clearing' then amount else -amount end as cached
    from transfers where debit = 'gateway_clearing' or credit = 'gateway_clearing'
    union all
    select merchant_id, currency, 0, amount from payments
    union all
    select p.merchant_id, l.currency, 0, case when l.kind = 'refund' then l.amount else -l.amount end
    from payouts p join payout_lines l on l.merchant_id = p.merchant_id and l.payout_id = p.id
    where p.state = 'posted'
  ) side
  group by merchant_id, currency having sum(ledger) <> sum(cached)`;

/** Of each merchant: what payouts brought and cost by the ledger, and by the payouts themselves. */
export const payoutViolations = `
  select coalesce(p.merchant_id, t.merchant_id) as merchant_id, coalesce(p.payout_id, t.entry_id::text) as subject,
         'in the ledger ' || coalesce(t.paid_out, 0) || ', ' || coalesce(t.fee, 0) || ', ' || coalesce(t.fee_tax, 0)
           || '; the payout says ' || coalesce(p.net, 0) || ', ' || coalesce(p.fee, 0) || ', ' || coalesce(p.fee_tax, 0) as detail
  from (select * from payouts where state = 'posted') p
  full join (
    select merchant_id, entry_id,
           sum(case when event = 'payout' then amount else 0 end) as paid_out,
           sum(case when event = 'fee' then amount else 0 end) as fee,
           sum(case when event = 'fee_tax' then amount else 0 end) as fee_tax
    from transfers where event in ('payout', 'fee', 'fee_tax') group by merchant_id, entry_id
  ) t on t.merchant_id = p.merchant_id and t.entry_id = p.id
  where p.id is null or t.entry_id is null
     or t.paid_out <> p.net or t.fee <> p.fee or t.fee_tax <> p.fee_tax
  union all
  select p.merchant_id, p.payout_id,
         'says ' || p.lines || ' lines over ' || p.gross || ', holds ' || count(l.line_no) || ' over '
           || coalesce(sum(case when l.kind = 'refund' then -l.amount else l.amount end), 0)
  from payouts p
  left join payout_lines l on l.merchant_id = p.merchant_id and l.payout_id = p.id
  where p.state = 'posted'
  group by p.merchant_id, p.id, p.payout_id, p.lines, p.gross, p.fee, p.fee_tax, p.net
  having count(l.line_no) <> p.lines
      or coalesce(sum(case when l.kind = 'refund' then -l.amount else l.amount end), 0) <> p.gross
      or coalesce(sum(l.fee), 0) <> p.fee or coalesce(sum(l.fee_tax), 0) <> p.fee_tax
      or p.gross - p.fee - p.fee_tax <> p.net`;

/** What every comparison of the ledger is called, for whoever asks them all. */
export const ledgerComparisons: Readonly<Record<string, string>> = {
  'closed months are what was frozen': closedMonthViolations,
  'each bill owes what its state says': billBalanceViolations,
  'each customer has the credit that was written down': customerCreditViolations,
  'the gateway holds the payments that no payout has taken': clearingViolations,
  'payouts stand in the ledger as the gateway made them': payoutViolations,
};

export interface LedgerDifference {
  comparison: string;
  merchant: string;
  subject: string;
  detail: string;
}

/** Compares the ledger with the rows that are read every day; empty = it agrees with all of them. */
export async function ledgerDifferences(tx: Pick<Tx, 'query'>): Promise<LedgerDifference[]> {
  const found: LedgerDifference[] = [];
  for (const [comparison, violations] of Object.entries(ledgerComparisons)) {
    found.push(
      ...(await tx.query<LedgerDifference>(
        `select $1::text as comparison, coalesce(m.code, v.merchant_id::text) as merchant, v.subject, v.detail
         from (${violations}) v left join merchants m on m.id = v.merchant_id
         order by 2, 3, 4 limit 100`,
        [comparison],
      )),
    );
  }
  return found;
}
