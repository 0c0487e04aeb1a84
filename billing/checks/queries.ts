import { transitions as chargeTransitions } from '../charges/charge.ts';
import type { Db } from '../db.ts';
import { transitions as invoiceTransitions } from '../invoices/invoice.ts';

export interface Invariant {
  id: number;
  /** A sentence that is true while all is well. */
  name: string;
  /** Rows that break it: merchant_id, subject (what to look at), detail. */
  violations: string;
}

const edges = (table: Readonly<Record<string, readonly string[]>>, subject: string): string =>
  Object.entries(table)
    .flatMap(([from, to]) => to.map((state) => `('${subject}', '${from}', '${state}')`))
    .join(', ');

/**
 * What must hold on the live database at any moment between transactions. Each finds its violations set-based, so that
 * an empty answer is the proof. Numbers follow docs/reliability.md.
 */
export const invariants: readonly Invariant[] = [
  {
    id: 1,
    name: 'each input file is taken in once',
    violations: `
      select merchant_id, min(name) as subject, 'same bytes ' || count(*) || ' times' as detail
      from billing_files where state in ('loading', 'released', 'held') and lines_read > 0
      group by merchant_id, sha256 having count(*) > 1`,
  },
  {
    id: 2,
    name: 'every line read is accepted or rejected, and every accepted one is a bill of its file',
    violations: `
      select f.merchant_id, f.name as subject,
             'read ' || f.lines_read || ', accepted ' || f.lines_accepted || ', rejected ' || f.lines_rejected
               || ', findings ' || r.findings || ', bills ' || b.bills as detail
      from billing_files f
      cross join lateral (
        select count(distinct line_no) as findings from line_findings l
        where l.merchant_id = f.merchant_id and l.file_id = f.id and l.severity = 'rejected') r
      cross join lateral (
        select count(*) as bills, coalesce(sum(amount), 0) as amount from invoices i
        where i.merchant_id = f.merchant_id and i.file_id = f.id) b
      where f.state = 'released'
        and (f.lines_read <> f.lines_accepted + f.lines_rejected
          or r.findings <> f.lines_rejected
          or (f.kind = 'billing' and (b.bills <> f.lines_accepted or b.amount <> f.amount_accepted)))`,
  },
  {
    id: 3,
    name: 'one bill for each billing number',
    violations: `
      select merchant_id, billing_number as subject, count(*)::text as detail
      from invoices group by merchant_id, billing_number having count(*) > 1`,
  },
  {
    id: 4,
    name: 'no bill is paid twice without the surplus being a credit, and none has two open charges',
    violations: `
      select c.merchant_id, c.invoice_id::text as subject,
             count(*) filter (where c.state = 'succeeded') || ' paid, '
               || count(*) filter (where c.state in ('processing', 'requires_action', 'unknown')) || ' open' as detail
      from charges c
      left join credits k on k.merchant_id = c.merchant_id and k.payment_id = c.id
      group by c.merchant_id, c.invoice_id
      having count(*) filter (where c.state = 'succeeded' and k.payment_id is null) > 1
          or count(*) filter (where c.state in ('processing', 'requires_action', 'unknown')) > 1`,
  },
  {
    id: 5,
    name: 'no message was claimed for sending after its bill was settled',
    violations: `
      select m.merchant_id, m.invoice_id::text as subject, m.step as detail
      from messages m join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
      where m.state in ('sending', 'sent', 'unknown') and i.settled_at is not null and m.claimed_at > i.settled_at`,
  },
  {
    id: 6,
    name: 'what was taken is what was asked, in amount and currency',
    violations: `
      select p.merchant_id, p.id::text as subject, p.amount || ' taken, ' || c.amount || ' asked' as detail
      from payments p join charges c on c.merchant_id = p.merchant_id and c.id = p.id
      where p.amount <> c.amount or p.currency <> c.currency or c.state <> 'succeeded'
      union all
      select c.merchant_id, c.id::text, 'succeeded without a payment'
      from charges c
      where c.state = 'succeeded'
        and not exists (select from payments p where p.merchant_id = c.merchant_id and p.id = c.id)`,
  },
  {
    id: 9,
    name: 'every charge of a settlement report is ours and every payment stands in one, or a finding says that it is not so',
    violations: `
      with said as (select * from findings where state = 'open' or by_hand)
      select s.merchant_id, s.gateway_charge_id as subject,
             s.kind || ' of ' || s.report_date || coalesce(': charge ' || c.state, ': not ours') as detail
      from settlement_lines s
      left join charges c on c.merchant_id = s.merchant_id and c.id = s.charge_id
      where (s.kind <> 'charge' or c.id is null or c.state <> 'succeeded' or c.amount <> s.amount or c.currency <> s.currency)
        and not exists (select from said f where f.merchant_id = s.merchant_id and f.gateway = s.gateway
                          and f.subject in (s.gateway_charge_id, s.gateway_charge_id || ' ' || s.kind || ' ' || s.report_date))
      union all
      select s.merchant_id, s.charge_id::text, 'stands in the reports ' || count(*) || ' times'
      from settlement_lines s
      where s.kind = 'charge' and s.charge_id is not null
        and not exists (select from said f where f.merchant_id = s.merchant_id and f.charge_id = s.charge_id)
      group by s.merchant_id, s.charge_id having count(*) > 1
      union all
      select p.merchant_id, p.id::text, 'paid ' || p.collected_on || ', in no settlement report'
      from payments p
      -- Around midnight a payment may stand in the next day's report.
      join watermarks w on w.merchant_id = p.merchant_id and w.method = 'card' and p.collected_on < w.complete_to
      where p.method = 'card'
        and not exists (select from settlement_lines s
                        where s.merchant_id = p.merchant_id and s.charge_id = p.id and s.kind = 'charge')
        and not exists (select from said f
                        where f.merchant_id = p.merchant_id and f.charge_id = p.id and f.kind = 'missing_there')
      union all
      select r.merchant_id, r.gateway || ' ' || r.report_date, 'says ' || r.lines || ' lines, holds ' || count(s.line_no)
      from settlement_reports r
      left join settlement_lines s
        on s.merchant_id = r.merchant_id and s.gateway = r.gateway and s.report_date = r.report_date
      group by r.merchant_id, r.gateway, r.report_date, r.lines
      having count(s.line_no) <> r.lines`,
  },
  {
    id: 10,
    name: 'a lock stands exactly while its charge has no conclusive outcome',
    violations: `
      select l.merchant_id, l.invoice_id::text as subject, 'locked by a charge that is ' || c.state as detail
      from collection_locks l join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
      where c.state not in ('processing', 'requires_action', 'unknown')
      union all
      select c.merchant_id, c.invoice_id::text, 'charge ' || c.id || ' is ' || c.state || ' without its lock'
      from charges c
      where c.state in ('processing', 'requires_action', 'unknown')
        and not exists (select from collection_locks l where l.merchant_id = c.merchant_id and l.charge_id = c.id)`,
  },
  {
    id: 11,
    name: 'every bill that is not final has a next step or is parked, and a final one has none',
    violations: `
      select i.merchant_id, i.billing_number as subject, i.state || ' without a next step' as detail
      from invoices i join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
      where (i.state = 'open' and not exists (
               select from agenda a where a.merchant_id = i.merchant_id and a.invoice_id = i.id))
         or (i.state = 'parked' and not exists (
               select from parked_items p where p.merchant_id = i.merchant_id and p.subject = 'invoice'
                 and p.subject_id = i.id::text and p.resolved_at is null))
      union all
      select i.merchant_id, i.billing_number, i.state || ' with a next step'
      from agenda a join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
      where i.state in ('paid', 'unpaid', 'cancelled')`,
  },
  {
    id: 12,
    name: 'attempts at a bill are numbered without gaps',
    violations: `
      select merchant_id, invoice_id::text as subject, 'last is ' || max(attempt_no) || ' of ' || count(*) as detail
      from charges group by merchant_id, invoice_id having max(attempt_no) <> count(*) or min(attempt_no) <> 1`,
  },
  {
    id: 14,
    name: 'a bill has its one final result row exactly when it is final, and outward files hold what they say',
    violations: `
      select i.merchant_id, i.billing_number as subject, i.state || ' with ' || count(r.outcome) || ' final rows' as detail
      from invoices i
      left join result_rows r on r.merchant_id = i.merchant_id and r.invoice_id = i.id
        and r.outcome in ('paid', 'unpaid', 'cancelled')
      group by i.merchant_id, i.id, i.billing_number, i.state
      having count(r.outcome) <> case when i.state in ('paid', 'unpaid', 'cancelled') then 1 else 0 end
          or bool_or(r.outcome <> i.state)
      union all
      select o.merchant_id, o.name, 'says ' || o.records || ' records, holds ' || count(r.row_no)
      from outward_files o
      left join result_rows r on r.merchant_id = o.merchant_id and r.outward_file_id = o.id
      where o.kind = 'result'
      group by o.merchant_id, o.id, o.name, o.records
      having count(r.row_no) <> o.records or count(distinct r.row_no) <> o.records`,
  },
  {
    id: 20,
    name: 'the ledger says of every bill what its state says, and states moved along their graph only',
    violations: `
      with balance as (
        select merchant_id, invoice_id,
               sum(case when debit = 'receivable' then amount when credit = 'receivable' then -amount else 0 end) as receivable,
               sum(case when debit = 'returned' then amount when credit = 'returned' then -amount else 0 end) as returned,
               sum(case when credit = 'billed' then amount when debit = 'billed' then -amount else 0 end) as billed
        from transfers group by merchant_id, invoice_id
      )
      select i.merchant_id, i.billing_number as subject,
             i.state || ': receivable ' || coalesce(b.receivable, 0) || ', billed ' || coalesce(b.billed, 0) as detail
      from invoices i
      join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
      left join balance b on b.merchant_id = i.merchant_id and b.invoice_id = i.id
      where coalesce(b.receivable, 0) <> case when i.state in ('open', 'parked') then i.amount else 0 end
         or coalesce(b.billed, 0) <> case when i.state = 'cancelled' then 0 else i.amount end
         or (i.state <> 'unpaid' and coalesce(b.returned, 0) <> 0)
      union all
      select h.merchant_id, h.subject_id::text, h.subject || ' from ' || h.from_state || ' to ' || h.to_state
      from state_history h
      where h.from_state is not null and h.subject in ('invoice', 'charge')
        and (h.subject, h.from_state, h.to_state) not in (
          ${[edges(invoiceTransitions, 'invoice'), edges(chargeTransitions, 'charge')].join(', ')})`,
  },
];

export interface Violation {
  merchant: string;
  subject: string;
  detail: string;
}

export interface CheckedInvariant {
  id: number;
  name: string;
  holds: boolean;
  /** How many there are, and the first ten. */
  violations: number;
  examples: Violation[];
}

/** Runs all invariants in one snapshot. */
export async function checkInvariants(db: Db): Promise<{ ok: boolean; invariants: CheckedInvariant[] }> {
  const checked = await db.transaction(
    async (tx) => {
      const results: CheckedInvariant[] = [];
      for (const { id, name, violations } of invariants) {
        const rows = await tx.query<Violation & { total: number }>(
          `select coalesce(m.code, v.merchant_id::text) as merchant, v.subject, v.detail, count(*) over () as total
           from (${violations}) v left join merchants m on m.id = v.merchant_id
           order by 1, 2 limit 10`,
        );
        results.push({
          id,
          name,
          holds: rows.length === 0,
          violations: rows[0]?.total ?? 0,
          examples: rows.map(({ merchant, subject, detail }) => ({ merchant, subject, detail })),
        });
      }
      return results;
    },
    { isolation: 'repeatable read' },
  );
  return { ok: checked.every((invariant) => invariant.holds), invariants: checked };
}
