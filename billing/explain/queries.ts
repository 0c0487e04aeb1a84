import type { Db } from '../db.ts';
import { referenceOf } from '../ids.ts';

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
  /** Since when an automatic bill is offered a link, and why. */
  fell_back_on: string | null;
  fell_back_for: string | null;
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
                i.due_on, i.debit_on, i.fell_back_on, i.fell_back_for, f.name as file, i.line_no as line, i.settings_version, c.customer_number,
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
                    m.step || ' ' || m.state || case when m.delivery is null then coalesce(' (' || m.code || ')', '') else '' end
                      || coalesce(', ' || m.segments || ' segment(s)', '')
             from messages m where m.merchant_id = $1 and m.invoice_id = $2::uuid
             union all
             select m.delivery_at, 4, 'message',
                    m.step || ' ' || m.delivery || coalesce(' (' || m.code || ')', '') || ', by the carrier’s callback'
                      || coalesce('; the phone was not reached: ' || m.unreached, '')
             from messages m where m.merchant_id = $1 and m.invoice_id = $2::uuid and m.delivery is not null
             union all
             select s.started_at, 5, 'visit', 'checkout session ' || s.state || case when s.enrol then ', automatic payment ticked' else '' end
             from checkout_sessions s where s.merchant_id = $1 and s.invoice_id = $2::uuid
             union all
             select h.at, 5, h.subject, h.to_state || ' by ' || coalesce(a.actor, '?')
             from state_history h
             left join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
             where h.merchant_id = $1 and h.subject_id = $2::uuid and h.subject like 'link:%'
              union all
             select b.issued_at, 5, 'barcode', b.digits || ' issued, taken at shops until ' || b.expires_on
             from barcodes b where b.merchant_id = $1 and b.invoice_id = $2::uuid
             union all
             select coalesce(r.answered_at, r.asked_at), 5, 'card',
                    'the gateway was asked before the charge of ' || l.charge_on || ': '
                      || case when l.answer is null then 'no answer yet'
                              when l.answer = 'replaced' then 'replaced, the new card is charged'
                              when l.answer = 'closed' then 'closed, automatic payment has ended'
                              when l.answer = 'expired' then 'expired without a successor, automatic payment has ended'
                              when l.answer = 'none' then 'never answered, charged as before'
                              else 'nothing new' end
                      || coalesce(' (' || l.code || ')', '')
             from invoices i
             join enrolments e on e.merchant_id = i.merchant_id and e.contract_id = i.contract_id
             join card_refresh_lines l on l.merchant_id = e.merchant_id and l.enrolment_id = e.id
             join card_refreshes r on r.merchant_id = l.merchant_id and r.id = l.refresh_id
             where i.merchant_id = $1 and i.id = $2::uuid and i.collection = 'auto' and r.asked_at >= i.created_at
               and (i.settled_at is null or r.asked_at <= i.settled_at)
             union all
             select c.started_at, 6, 'attempt ' || c.attempt_no, c.origin || ' at ' || c.gateway || ', ' || c.amount || ' ' || c.currency
             from charges c where c.merchant_id = $1 and c.invoice_id = $2::uuid
             union all
             select o.frozen_at, 6, 'bank debit', o.name || ' line ' || l.line_no || ', asked for ' || r.debit_on
                      || ', result by ' || r.result_due_on
             from charges c
             join debit_lines l on l.merchant_id = c.merchant_id and l.charge_id = c.id
             join debit_requests r on r.merchant_id = l.merchant_id and r.file_id = l.file_id
             join outward_files o on o.merchant_id = r.merchant_id and o.id = r.file_id
             where c.merchant_id = $1 and c.invoice_id = $2::uuid
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
             select u.used_at, 7, 'credit', u.amount || ' ' || p.currency || ' of what was left of ' || o.billing_number
                      || ', collected on ' || p.collected_on || coalesce('; given back to the credit at ' || u.returned_at, '')
             from credit_uses u
             join payments p on p.merchant_id = u.merchant_id and p.id = u.payment_id
             join invoices o on o.merchant_id = p.merchant_id and o.id = p.invoice_id
             where u.merchant_id = $1 and u.invoice_id = $2::uuid
             union all
             select u.occurred_at, 10, 'unreached', u.reason || ', ' || u.disposition || coalesce(' with barcode ' || u.barcode, ' for paper')
                      || coalesce(' → ' || o.name || ' row ' || u.row_no, ', not yet in a file')
             from unreached_rows u
             left join outward_files o on o.merchant_id = u.merchant_id and o.id = u.outward_file_id
             where u.merchant_id = $1 and u.invoice_id = $2::uuid
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

/** Anything that is no bill: what it is, the bill that it belongs to, and what happened to it in order. */
export interface Explained {
  merchant: string;
  timezone: string;
  /** `charge 0199…`, `file billing_minato-gas_20261125_0001.csv` */
  subject: string;
  /** In one line each. */
  facts: string[];
  billing_number: string | null;
  events: LifeEvent[];
}

interface Found {
  merchant_id: number;
  merchant: string;
  timezone: string;
  subject: string;
  facts: string[];
  billing_number: string | null;
  /** What the events are found by. */
  key: string;
}

const ofMerchant = `
  join merchants m on m.id = x.merchant_id
  join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version`;
const asFound = `x.merchant_id, m.code as merchant, s.settings ->> 'timezone' as timezone`;

/** In one snapshot: what is found, and the events of each by merchant id, key and what follows from the key. */
async function explainAll(
  db: Db,
  find: { sql: string; values: readonly unknown[] },
  events: string,
  valuesOf: (key: string) => unknown[] = (key) => [key],
): Promise<Explained[]> {
  return db.transaction(
    async (tx) => {
      const explained: Explained[] = [];
      for (const { merchant_id, key, ...found } of await tx.query<Found>(find.sql, find.values)) {
        const happened = await tx.query<LifeEvent>(events, [merchant_id, ...valuesOf(key)]);
        explained.push({ ...found, events: happened });
      }
      return explained;
    },
    { isolation: 'repeatable read', readOnly: true },
  );
}

const isUuid = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);

/** A charge and the payment that it brought, by its id or by the gateway's; a capture that only a report knows, too. */
export async function explainCharge(
  db: Db,
  by: { id: string | null; gatewayChargeId: string },
  merchantCode: string | null,
): Promise<Explained[]> {
  return explainAll(
    db,
    {
      sql: `
        select ${asFound}, 'charge ' || x.id as subject, i.billing_number, x.id::text as key,
               array_remove(array[
                 x.state || ', attempt ' || x.attempt_no || ', ' || x.origin || ' at ' || x.gateway || ', ' || x.amount || ' ' || x.currency,
                 'at the gateway: ' || x.gateway_charge_id,
                 'locks its bill; the gateway is asked next at ' || l.ask_at,
                 'verdict ' || x.verdict || coalesce(', not before ' || x.retry_not_before, ''),
                 'brought ' || p.amount || ' ' || p.currency || ' by ' || p.method || ' on ' || p.collected_on,
                 'allocated to the bill: ' || a.amount,
                 'kept as the customer’s credit: ' || k.amount || ' (' || k.reason || '), of it on later bills: ' || p.reused,
                 'given back, or perhaps given back: ' || nullif(p.refunded, 0)], null) as facts
        from charges x ${ofMerchant}
        join invoices i on i.merchant_id = x.merchant_id and i.id = x.invoice_id
        left join collection_locks l on l.merchant_id = x.merchant_id and l.charge_id = x.id
        left join payments p on p.merchant_id = x.merchant_id and p.id = x.id
        left join allocations a on a.merchant_id = x.merchant_id and a.payment_id = x.id and a.invoice_id = x.invoice_id
        left join credits k on k.merchant_id = x.merchant_id and k.payment_id = x.id
        where (x.id = $1::uuid or ($1::uuid is null and x.gateway_charge_id = $2)) and ($3::text is null or m.code = $3)
        union all
        select ${asFound}, 'capture ' || x.gateway_charge_id, null, x.gateway_charge_id,
               array[x.gateway || ' reports ' || x.kind || ' of ' || x.amount || ' ' || x.currency || ' on ' || x.report_date]
        from settlement_lines x ${ofMerchant}
        where x.gateway_charge_id = $2 and x.charge_id is null and ($3::text is null or m.code = $3)
        order by merchant, subject`,
      values: [by.id, by.gatewayChargeId, merchantCode],
    },
    `select at, what, detail from (
       select h.at, h.version as n, 'charge' as what, coalesce(h.from_state || ' → ', '') || h.to_state || ' by ' || coalesce(a.actor, '?') as detail
       from state_history h
       left join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
       where h.merchant_id = $1 and h.subject = 'charge' and h.subject_id::text = $2
       union all
       select w.received_at, 10, 'webhook', w.kind || coalesce(', handled: ' || w.result, ', not handled')
       from webhook_events w where w.merchant_id = $1 and w.reference = $3
       union all
       select a.at, 11, 'ledger', t.event || ': ' || t.debit || ' ← ' || t.credit || ' ' || t.amount || ' ' || t.currency
       from transfers t
       left join acts a on a.merchant_id = t.merchant_id and a.month = t.month and a.id = t.act_id
       where t.merchant_id = $1 and t.entry_id::text = $2
       union all
       select l.captured_at, 12, 'report of ' || l.report_date, l.kind || ' ' || l.gateway_charge_id || ', ' || l.amount || ' ' || l.currency
                || ', fee ' || l.fee
       from settlement_lines l where l.merchant_id = $1 and (l.charge_id::text = $2 or l.gateway_charge_id = $2)
       union all
       select f.found_at, 14, 'finding', f.kind || ', ' || f.state || coalesce(': ' || f.how, '')
       from findings f where f.merchant_id = $1 and (f.charge_id::text = $2 or f.subject = $2)
       union all
       select r.known_at, 13, 'result', r.outcome || coalesce(' in ' || o.name || ' row ' || r.row_no, ', not yet in a file')
       from result_rows r left join outward_files o on o.merchant_id = r.merchant_id and o.id = r.outward_file_id
       where r.merchant_id = $1 and r.cause_id::text = $2
     ) life order by at nulls last, n`,
    (key) => [key, isUuid(key) ? referenceOf(key) : null],
  );
}

/** An SMS: one step of one bill. */
export async function explainMessage(
  db: Db,
  message: { invoiceId: string; step: string },
  merchantCode: string | null,
): Promise<Explained[]> {
  return explainAll(
    db,
    {
      sql: `
        select ${asFound}, 'message ' || x.step as subject, i.billing_number, x.invoice_id || ' ' || x.step as key,
               array_remove(array[
                 x.state || ', planned for ' || x.planned_on || coalesce(', code ' || x.code, ''),
                 'carrier ' || x.carrier || coalesce(', there ' || x.provider_id, ''),
                 'the carrier says ' || x.delivery || ' since ' || x.delivery_at,
                 'the phone was not reached: ' || x.unreached,
                 'the carrier was asked ' || x.asks || ' times' || coalesce(', next at ' || x.ask_at, ''),
                 'the bill is ' || i.state || coalesce(' since ' || i.settled_at, '')], null) as facts
        from messages x ${ofMerchant}
        join invoices i on i.merchant_id = x.merchant_id and i.id = x.invoice_id
        where x.invoice_id = $1::uuid and x.step = $2 and ($3::text is null or m.code = $3)
        order by m.code`,
      values: [message.invoiceId, message.step, merchantCode],
    },
    `select h.at, 'message' as what, coalesce(h.from_state || ' → ', '') || h.to_state || ' by ' || coalesce(a.actor, '?') as detail
     from state_history h
     left join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
     where h.merchant_id = $1 and h.subject_id = split_part($2, ' ', 1)::uuid and h.subject = 'message:' || split_part($2, ' ', 2)
     order by h.at, h.version`,
  );
}

/** An input file or one of ours, by its name. A name that was refused and came again is found more than once. */
export async function explainFile(db: Db, name: string, merchantCode: string | null): Promise<Explained[]> {
  return explainAll(
    db,
    {
      sql: `
        select ${asFound}, 'file ' || x.name as subject, null as billing_number, x.id::text as key,
               array_remove(array[
                 x.kind || ', ' || x.state || coalesce(' ' || x.file_code, '') || ', ' || x.size_bytes || ' bytes, sha256 ' || x.sha256,
                 'business date ' || x.business_date || ', sequence ' || x.sequence,
                 'lines read ' || x.lines_read || ', accepted ' || x.lines_accepted || ' over ' || coalesce(x.amount_accepted, 0)
                   || ', rejected ' || x.lines_rejected,
                 case when x.removed_at is null then 'still in the merchant’s inbox' end], null) as facts
        from billing_files x ${ofMerchant}
        where (x.name = $1 or x.id::text = $1) and ($2::text is null or m.code = $2)
        union all
        select ${asFound}, 'file ' || x.name, null, x.id::text,
               array_remove(array[
                 x.kind || ', ' || x.state || ', ' || x.size_bytes || ' bytes, sha256 ' || x.sha256,
                 x.records || ' records over ' || x.sum,
                 'about ' || f.name], null)
        from outward_files x ${ofMerchant}
        left join billing_files f on f.merchant_id = x.merchant_id and f.id = x.input_file_id
        where (x.name = $1 or x.id::text = $1) and ($2::text is null or m.code = $2)
        order by merchant, subject`,
      values: [name, merchantCode],
    },
    `select at, what, detail from (
       select h.at, h.version as n, 'file' as what, coalesce(h.from_state || ' → ', '') || h.to_state || ' by ' || coalesce(a.actor, '?') as detail
       from state_history h
       left join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
       where h.merchant_id = $1 and h.subject in ('file', 'outward_file') and h.subject_id::text = $2
       union all
       select renaming_at, 50, 'rename', 'to its final name, begun' from outward_files
       where merchant_id = $1 and id::text = $2 and renaming_at is not null
       union all
       select frozen_at, 51, 'told in', name from outward_files where merchant_id = $1 and input_file_id::text = $2
       union all
       select parked_at, 52, 'parked', reason || coalesce(', ' || resolution, ', waits') from parked_items
       where merchant_id = $1 and subject = 'file' and subject_id = $2
     ) life order by at nulls last, n`,
  );
}

/** The passes of a job for a business date and what became of their chunks. */
export async function explainRun(
  db: Db,
  run: { job: string; businessDate: string },
  merchantCode: string | null,
): Promise<Explained[]> {
  return explainAll(
    db,
    {
      sql: `
        select ${asFound}, 'run ' || x.job || ' ' || x.business_date as subject, null as billing_number,
               x.job || ' ' || x.business_date as key,
               array_remove(array[
                 x.state || ' in pass ' || x.pass || ', fence ' || x.fence || ', asked for at ' || x.requested_at,
                 'held by ' || x.lease_owner || ' until ' || x.lease_until], null) as facts
        from runs x ${ofMerchant}
        where x.job = $1 and x.business_date = $2::date and ($3::text is null or m.code = $3)
        order by m.code`,
      values: [run.job, run.businessDate, merchantCode],
    },
    `select at, what, detail from (
       select p.started_at as at, p.pass, 0 as n, 'pass ' || p.pass as what, 'begun by ' || p.owner || ', version ' || p.code_version as detail
       from run_passes p where p.merchant_id = $1 and p.job || ' ' || p.business_date = $2
       union all
       select p.finished_at, p.pass, 2, 'pass ' || p.pass,
              coalesce(p.outcome, 'not ended') || coalesce(': ' || p.failure, '') || case when p.counts <> '{}' then ' ' || p.counts::text else '' end
       from run_passes p where p.merchant_id = $1 and p.job || ' ' || p.business_date = $2
       union all
       select p.started_at, c.pass, 1, 'chunk ' || c.chunk_no, c.state || ' after ' || c.attempts || ' claims, fence ' || c.fence
                || coalesce(', ' || c.lease_owner, '') || coalesce(': ' || c.failure, '')
       from chunks c
       join run_passes p on p.merchant_id = c.merchant_id and p.job = c.job and p.business_date = c.business_date and p.pass = c.pass
       where c.merchant_id = $1 and c.job || ' ' || c.business_date = $2
     ) life order by pass, n, what`,
  );
}

/** A customer by number or id: contracts, cards, credits and bills. No name or phone number. */
export async function explainCustomer(
  db: Db,
  numberOrId: string,
  merchantCode: string | null,
): Promise<Explained[]> {
  return explainAll(
    db,
    {
      sql: `
        select ${asFound}, 'customer ' || x.customer_number as subject, null as billing_number, x.id::text as key,
               array['contact version ' || x.contact_version || ', here since ' || x.created_at] as facts
        from customers x ${ofMerchant}
        where (x.customer_number = $1 or x.id::text = $1) and ($2::text is null or m.code = $2)
        order by m.code`,
      values: [numberOrId, merchantCode],
    },
    `select at, what, detail from (
       select i.created_at as at, 1 as n, 'bill' as what, i.billing_number || ', ' || i.state || ', ' || i.amount || ' ' || i.currency as detail
       from invoices i where i.merchant_id = $1 and i.customer_id = $2::uuid
       union all
       select p.created_at, 2, p.kind, coalesce(p.brand || ' ', '') || p.state || coalesce(' (' || p.ended_for || ')', '') || ' at ' || p.gateway
                || case when p.replaces_id is not null then ', in the place of an earlier one' else '' end
       from payment_methods p where p.merchant_id = $1 and p.customer_id = $2::uuid
       union all
       select e.started_at, 3, 'agreement', e.state || coalesce(' since ' || e.ended_at, '') || ', effective ' || e.effective_from
       from enrolments e where e.merchant_id = $1 and e.customer_id = $2::uuid
       union all
       select h.started_at, 3, 'card change', h.id || ', ' || h.state || coalesce(' (' || h.code || ')', '')
                || coalesce(' by ' || h.learned_by || ' at ' || h.decided_at, '') || ', from the link of ' || i.billing_number
       from card_changes h
       join contracts t on t.merchant_id = h.merchant_id and t.id = h.contract_id
       join invoices i on i.merchant_id = h.merchant_id and i.id = h.invoice_id
       where h.merchant_id = $1 and t.customer_id = $2::uuid
       union all
       select w.reported_at, 5, 'wrong person', 'link ' || w.link_version || ' of ' || i.billing_number || ' was given back: no SMS to that phone'
                || coalesce(' until the merchant sent the contact again at ' || w.lifted_at, '')
       from wrong_persons w join invoices i on i.merchant_id = w.merchant_id and i.id = w.invoice_id
       where w.merchant_id = $1 and w.customer_id = $2::uuid
       union all
       select k.created_at, 4, 'credit', k.amount || ' (' || k.reason || '), ' || p.amount - p.refunded - p.reused || ' left, charge '
                || k.payment_id
       from credits k join payments p on p.merchant_id = k.merchant_id and p.id = k.payment_id
       where k.merchant_id = $1 and k.customer_id = $2::uuid
     ) life order by at, n`,
  );
}
