import type { Db } from '../db.ts';

/** One thing that happened to a bill. No name, phone number or token: numbers, states, codes and times only. */
export interface LifeEvent {
  at: string;
  what: string;
  detail: string;
}

export interface ExplainedBill {
  merchant: string;
  /** The merchant's zone, for showing the times. */
  timezone: string;
  billing_number: string;
  state: string;
  amount: number;
  currency: string;
  collection: string;
  due_on: string;
  debit_on: string | null;
  file: string;
  line: number;
  settings_version: number;
  customer_number: string;
  next_act: string | null;
  next_on: string | null;
  locked_by: string | null;
  parked_for: string | null;
  events: LifeEvent[];
}

/** The whole life of a bill, in order; one entry for each merchant that has the number. */
export async function explainBill(
  db: Db,
  billingNumber: string,
  merchantCode: string | null,
): Promise<ExplainedBill[]> {
  return db.transaction(
    async (tx) => {
      const bills = await tx.query<Omit<ExplainedBill, 'events'> & { merchant_id: number; id: string }>(
        `select i.merchant_id, i.id, m.code as merchant, s.settings ->> 'timezone' as timezone, i.billing_number, i.state, i.amount, i.currency, i.collection,
                i.due_on, i.debit_on, f.name as file, i.line_no as line, i.settings_version, c.customer_number,
                a.act as next_act, a.act_on as next_on, l.charge_id as locked_by, p.reason as parked_for
         from invoices i
         join merchants m on m.id = i.merchant_id
         join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
         join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
         join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id
         left join agenda a on a.merchant_id = i.merchant_id and a.invoice_id = i.id
         left join collection_locks l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
         left join parked_items p on p.merchant_id = i.merchant_id and p.subject = 'invoice'
           and p.subject_id = i.id::text and p.resolved_at is null
         where i.billing_number = $1 and ($2::text is null or m.code = $2)
         order by m.code`,
        [billingNumber, merchantCode],
      );
      const explained: ExplainedBill[] = [];
      for (const { merchant_id, id, ...bill } of bills) {
        const events = await tx.query<LifeEvent>(
          `select at, what, detail from (
             select f.fetched_at as at, 1 as n, 'file' as what, f.name || ' line ' || i.line_no || ', sha256 ' || left(f.sha256, 12) as detail
             from invoices i join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
             where i.merchant_id = $1 and i.id = $2::uuid
             union all
             select f.settled_at, 2, 'warning', l.code || case when l.field <> '' then ' (' || l.field || ')' else '' end
             from invoices i join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
             join line_findings l on l.merchant_id = f.merchant_id and l.file_id = f.id and l.line_no = i.line_no
             where i.merchant_id = $1 and i.id = $2::uuid
             union all
             -- At one instant what ended the bill stands before its end.
             select h.at, case when h.from_state is null then 3 else 8 end, h.subject, coalesce(h.from_state || ' → ', '') || h.to_state || ' by ' || coalesce(a.actor, '?')
             from state_history h
             left join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
             where h.merchant_id = $1 and h.subject = 'invoice' and h.subject_id = $2::uuid
             union all
             select coalesce(m.decided_at, m.claimed_at, m.planned_on::timestamptz), 4, 'message',
                    m.step || ' ' || m.state || coalesce(' (' || m.code || ')', '') || coalesce(', ' || m.segments || ' segment(s)', '')
             from messages m where m.merchant_id = $1 and m.invoice_id = $2::uuid
             union all
             select s.started_at, 5, 'visit', 'checkout session ' || s.state || case when s.enrol then ', automatic payment ticked' else '' end
             from checkout_sessions s where s.merchant_id = $1 and s.invoice_id = $2::uuid
             union all
             select c.started_at, 6, 'attempt ' || c.attempt_no, c.origin || ' at ' || c.gateway || ', ' || c.amount || ' ' || c.currency
             from charges c where c.merchant_id = $1 and c.invoice_id = $2::uuid
             union all
             select c.decided_at, 7, 'outcome ' || c.attempt_no,
                    c.state || ', learned by ' || c.learned_by
                      || coalesce(', gateway code ' || c.gateway_code, '') || coalesce(', network ' || c.network || ' ' || coalesce(c.network_code, ''), '')
                      || coalesce(', advice ' || c.advice_code, '') || coalesce(' → ' || c.verdict, '')
                      || coalesce(' by rule "' || (c.verdict_rule ->> 'source') || '", edition ' || (c.verdict_rule ->> 'edition'), '')
             from charges c where c.merchant_id = $1 and c.invoice_id = $2::uuid and c.decided_at is not null
             union all
             select a.at, 9, 'ledger', t.event || ': ' || t.debit || ' ← ' || t.credit || ' ' || t.amount || ' ' || t.currency
             from transfers t
             left join acts a on a.merchant_id = t.merchant_id and a.month = t.month and a.id = t.act_id
             where t.merchant_id = $1 and t.invoice_id = $2::uuid
             union all
             select r.known_at, 10, 'result', r.outcome || coalesce(' ' || nullif(r.reason, ''), '') || ', received ' || r.amount_received
                      || coalesce(' → ' || o.name || ' row ' || r.row_no, ', not yet in a file')
             from result_rows r
             left join outward_files o on o.merchant_id = r.merchant_id and o.id = r.outward_file_id
             where r.merchant_id = $1 and r.invoice_id = $2::uuid
             union all
             select f.found_at, 11, 'finding', f.kind || ' in the report of ' || f.report_date || coalesce(': ours ' || f.ours, '')
                      || coalesce(', theirs ' || f.theirs, '') || ' (' || f.id || ')'
             from findings f where f.merchant_id = $1 and f.invoice_id = $2::uuid
             union all
             select f.settled_at, 12, 'settled', f.kind || ' by ' || f.settled_by || ': ' || f.how
             from findings f where f.merchant_id = $1 and f.invoice_id = $2::uuid and f.state = 'settled'
           ) life order by at nulls last, n`,
          [merchant_id, id],
        );
        explained.push({ ...bill, events });
      }
      return explained;
    },
    { isolation: 'repeatable read' },
  );
}
