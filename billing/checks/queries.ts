import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import { transitions as chargeTransitions } from '../charges/charge.ts';
import { transitions as intentTransitions } from '../charges/intent.ts';
import type { Db, Tx } from '../db.ts';
import { ceilings, defaultCeilings } from '../dunning/card-retry-rules.ts';
import { changeableBooks, missingKeys, openBorders } from '../guards/queries.ts';
import { isHeld } from '../holds/queries.ts';
import { transitions as invoiceTransitions } from '../invoices/invoice.ts';
import { events } from '../ledger/ledger.ts';
import {
  clearingViolations,
  closedMonthViolations,
  customerCreditViolations,
  payoutViolations,
} from '../ledger/queries.ts';
import { againStep, debitNotice } from '../messages/message.ts';
import { waitsSince } from '../outward/queries.ts';
import { recallNotice } from '../recalls/recall.ts';
import { type Invariant, invariants } from './invariants.ts';

/**
 * One question to the database, set-based, so that an empty answer is the proof. Rows that break the invariant:
 * merchant_id, kind (what the subject is), subject, detail. `invoice` and `entry` are ids that are shown as the number of
 * their bill; `message` is the bill's id and the step.
 */
interface Look {
  violations: string;
  /**
   * `rest`: between two transactions of one job it may not be true yet. `schema`: about the catalog, not about data.
   * `time`: what waits too long, by the clock handed in as $1.
   */
  of?: 'rest' | 'schema' | 'time';
}

const asKind = (kind: string, violations: string): string =>
  `select merchant_id, '${kind}' as kind, subject, detail from (${violations}) found`;

const openStates = `('processing', 'requires_action', 'unknown')`;
const finalStates = `('paid', 'unpaid', 'cancelled')`;

/** Two machines' clocks may differ: an order in time is only held against them beyond this. */
const clockTolerance = `interval '15 minutes'`;

const edges = (table: Readonly<Record<string, readonly string[]>>, subject: string): string =>
  Object.entries(table)
    .flatMap(([from, to]) => to.map((state) => `('${subject}', '${from}', '${state}')`))
    .join(', ');

const chart = Object.entries(events)
  .map(([event, { debit, credit }]) => `('${event}', '${debit}', '${credit}')`)
  .join(', ');

const ceilingRows = [...Object.entries(ceilings), ['', defaultCeilings] as const]
  .flatMap(([network, rules]) => rules.map((rule) => `('${network}', ${rule.attempts}, ${rule.hours})`))
  .join(', ');

/** A state as a number of 20 bits: sums of these are taken without numeric, which costs half of the time. */
const marked = (state: string): string => `(hashtext(${state}) & 1048575)`;

/** History rows of a subject add up to its state: each step adds where it led and takes away where it began. */
const historyOf = (subject: string): string => `
  select merchant_id, subject_id, count(*) as steps, max(version) as last,
         sum(${marked('to_state')} - coalesce(${marked('from_state')}, 0)) as ends
  from state_history where subject = '${subject}' group by merchant_id, subject_id`;

/** 13 to 19 digits, together or in the groups that are printed on cards; not a part of a longer word or id. */
const cardPattern = `(?<![0-9A-Za-z_.-])([0-9]{13,19}|[0-9]{4}(?:[ -][0-9]{4}){3}|[0-9]{4}[ -][0-9]{6}[ -][0-9]{5})(?![0-9A-Za-z_-])`;

/** Whether a text holds a card number: a run of digits whose Luhn sum is a multiple of ten. */
const holdsCard = (text: string): string => `exists (
  select from regexp_matches(${text}, '${cardPattern}', 'g') found,
    lateral (select sum(case when n % 2 = 1 then digit when digit > 4 then digit * 2 - 9 else digit * 2 end) as luhn
             from (select n, substr(reverse(regexp_replace(found[1], '[ -]', '', 'g')), n, 1)::int as digit
                   from generate_series(1, length(regexp_replace(found[1], '[ -]', '', 'g'))) n) digits) sums
  where luhn % 10 = 0)`;

/** What must not stand in a text that people read, and its name. */
const personal: readonly (readonly [string, string])[] = [
  [
    'an e-mail address',
    `(?<![0-9A-Za-z._%+-])[0-9A-Za-z._%+-]+@[0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*\\.[A-Za-z]{2,}`,
  ],
  ['a phone number', `(?<![0-9A-Za-z_.-])(\\+81[ -]?|0)[1-9]0[ -]?[0-9]{4}[ -]?[0-9]{4}(?![0-9A-Za-z_-])`],
  ['a pay link', `/l/[0-9A-Za-z]{23,64}`],
  [
    'a secret key',
    `(?<![0-9A-Za-z])((sk|rk)_(live|test)_|whsec_)[0-9A-Za-z]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY`,
  ],
];

/** Control characters and marks that turn the direction of writing. */
const hostileCharacters = `[\\u0001-\\u001f\\u007f-\\u009f\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]`;

const newestBytes = 256 * 1024 * 1024;
const wholeBytes = 64 * 1024 * 1024;

const looks: Readonly<Record<number, readonly Look[]>> = {
  1: [
    {
      violations: `
      select merchant_id, 'file' as kind, min(name) as subject, 'the same name ' || count(*) || ' times' as detail
      from billing_files where state in ('loading', 'released', 'held') group by merchant_id, name having count(*) > 1
      union all
      select merchant_id, 'file', min(name), 'the same bytes ' || count(*) || ' times, also as ' || max(name)
      from billing_files where state in ('loading', 'released', 'held') and lines_read > 0
      group by merchant_id, sha256 having count(*) > 1
      union all
      select merchant_id, 'file', min(name), 'sequence ' || sequence || ' ' || count(*) || ' times, also as ' || max(name)
      from billing_files where state in ('loading', 'released') and sequence is not null
      group by merchant_id, sequence having count(*) > 1`,
    },
  ],
  2: [
    {
      violations: `
      select f.merchant_id, 'file' as kind, f.name as subject,
             'read ' || f.lines_read || ', accepted ' || f.lines_accepted || ' over ' || coalesce(f.amount_accepted, 0)
               || ', rejected ' || f.lines_rejected || '; rejected lines kept ' || coalesce(r.lines, 0)
               || ', bills ' || coalesce(b.bills, 0) || ' over ' || coalesce(b.amount, 0) as detail
      from billing_files f
      left join (
        select merchant_id, file_id, count(*) as lines
        from (select distinct merchant_id, file_id, line_no from line_findings where severity = 'rejected') lines
        group by merchant_id, file_id) r on r.merchant_id = f.merchant_id and r.file_id = f.id
      left join (
        select merchant_id, file_id, count(*) as bills, sum(amount)::bigint as amount
        from invoices group by merchant_id, file_id) b on b.merchant_id = f.merchant_id and b.file_id = f.id
      where f.state = 'released'
        and (f.lines_read <> f.lines_accepted + f.lines_rejected
          or coalesce(r.lines, 0) <> f.lines_rejected
          or (f.kind = 'billing'
            and (coalesce(b.bills, 0) <> f.lines_accepted or coalesce(b.amount, 0) <> f.amount_accepted)))`,
    },
    {
      violations: `
      select i.merchant_id, 'bill' as kind, i.billing_number as subject, 'its line was rejected: ' || l.code as detail
      from line_findings l
      join invoices i on i.merchant_id = l.merchant_id and i.file_id = l.file_id and i.line_no = l.line_no
      where l.severity = 'rejected'
      union all
      select merchant_id, 'invoice', min(id::text), count(*) || ' bills of line ' || line_no
      from invoices group by merchant_id, file_id, line_no having count(*) > 1`,
    },
  ],
  3: [
    {
      violations: `
      select merchant_id, 'bill' as kind, billing_number as subject, count(*) || ' bills' as detail
      from invoices group by merchant_id, billing_number having count(*) > 1`,
    },
  ],
  4: [
    {
      violations: `
      select c.merchant_id, 'invoice' as kind, c.invoice_id::text as subject,
             count(*) filter (where c.state = 'succeeded') || ' paid, '
               || count(*) filter (where c.state in ${openStates}) || ' open' as detail
      from charges c
      left join credits k on k.merchant_id = c.merchant_id and k.payment_id = c.id
      where c.state = 'succeeded' or c.state in ${openStates}
      group by c.merchant_id, c.invoice_id
      having count(*) filter (where c.state = 'succeeded' and k.payment_id is null) > 1
          or count(*) filter (where c.state in ${openStates}) > 1`,
    },
    {
      violations: `
      select c.merchant_id, 'invoice' as kind, c.invoice_id::text as subject,
             'attempt ' || c.attempt_no || ' began before attempt ' || p.attempt_no || ' had ended' as detail
      from charges c
      join charges p on p.merchant_id = c.merchant_id and p.invoice_id = c.invoice_id and p.attempt_no = c.attempt_no - 1
      left join state_history h on h.merchant_id = p.merchant_id and h.subject = 'charge' and h.subject_id = p.id
        and h.to_state in ('succeeded', 'failed', 'canceled')
      -- What a customer does at a shop asks nobody first.
      where c.attempt_no > 1 and c.origin <> 'barcode'
        -- Not written down before it began: put back from the gateway's list after a restore.
        and not exists (select from state_history n
                        where n.merchant_id = c.merchant_id and n.subject = 'charge' and n.subject_id = c.id and n.version = 1
                          and n.at > c.started_at + ${clockTolerance})
      group by c.merchant_id, c.invoice_id, c.attempt_no, p.attempt_no, c.started_at
      having min(h.at) is null or min(h.at) > c.started_at + ${clockTolerance}`,
    },
  ],
  5: [
    {
      violations: `
      select m.merchant_id, 'message' as kind, m.invoice_id || ' ' || m.step as subject,
             'claimed at ' || m.claimed_at || ', the bill was ' || i.state || ' at ' || i.settled_at as detail
      from messages m join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
      where m.state in ('sending', 'sent', 'unknown') and m.claimed_at > i.settled_at and m.step <> '${recallNotice}'
      union all
      select m.merchant_id, 'message', m.invoice_id || ' ' || m.step, 'claimed at ' || m.claimed_at || ', charged since ' || min(c.started_at)
      from messages m join charges c on c.merchant_id = m.merchant_id and c.invoice_id = m.invoice_id
      where m.step in ('${debitNotice}', '${againStep(debitNotice)}') and m.state in ('sending', 'sent', 'unknown') and c.started_at < m.claimed_at - ${clockTolerance}
      group by m.merchant_id, m.invoice_id, m.step, m.claimed_at`,
    },
  ],
  6: [
    {
      violations: `
      select c.merchant_id, 'charge' as kind, c.id::text as subject,
             c.state || ', ' || coalesce(p.amount || ' ' || p.currency || ' taken', 'no payment') || ', ' || c.amount || ' '
               || c.currency || ' asked, the bill is over ' || i.amount || ' ' || i.currency as detail
      from charges c
      join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
      left join payments p on p.merchant_id = c.merchant_id and p.id = c.id
      where (c.state = 'succeeded') <> (p.id is not null) or c.amount <> i.amount or c.currency <> i.currency
         or p.amount <> c.amount or p.currency <> c.currency or p.invoice_id <> c.invoice_id`,
    },
  ],
  7: [
    {
      violations: `
      select merchant_id, 'entry' as kind, entry_id::text as subject, event || ' is booked ' || count(*) || ' times' as detail
      from transfers group by merchant_id, entry_id, event, leg having count(*) > 1
      union all
      select c.merchant_id, 'run', c.job || ' ' || c.business_date, 'pass ' || c.pass || ' is ' || p.outcome
               || ' and left chunk ' || c.chunk_no
      from chunks c
      join run_passes p on p.merchant_id = c.merchant_id and p.job = c.job and p.business_date = c.business_date
        and p.pass = c.pass
      where c.state = 'ready' and p.outcome in ('done', 'attention')`,
    },
    { of: 'schema', violations: missingKeys },
  ],
  8: [
    {
      violations: `
      select i.merchant_id, 'bill' as kind, i.billing_number as subject,
             i.state || ' in version ' || i.version || ', its history has ' || coalesce(h.steps, 0)
               || ' steps up to version ' || coalesce(h.last, 0) || ' and ends '
               || case when h.ends = ${marked('i.state')} then 'there' else 'elsewhere' end as detail
      from invoices i
      join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
      left join (${historyOf('invoice')}) h on h.merchant_id = i.merchant_id and h.subject_id = i.id
      where h.steps is distinct from i.version or h.last is distinct from i.version
         or h.ends is distinct from ${marked('i.state')}`,
    },
    {
      violations: `
      select c.merchant_id, 'charge' as kind, c.id::text as subject,
             c.state || ' in version ' || c.version || ', its history has ' || coalesce(h.steps, 0)
               || ' steps up to version ' || coalesce(h.last, 0) || ' and ends '
               || case when h.ends = ${marked('c.state')} then 'there' else 'elsewhere' end as detail
      from charges c
      left join (${historyOf('charge')}) h on h.merchant_id = c.merchant_id and h.subject_id = c.id
      where h.steps is distinct from c.version or h.last is distinct from c.version
         or h.ends is distinct from ${marked('c.state')}
         or (c.state in ('succeeded', 'failed', 'canceled') and (c.decided_at is null or c.learned_by is null))`,
    },
  ],
  9: [
    {
      of: 'rest',
      violations: `
      with said as (select * from findings where source = 'report' and (state = 'open' or by_hand))
      select s.merchant_id, 'charge' as kind, coalesce(s.charge_id::text, s.gateway_charge_id) as subject,
             s.kind || ' of ' || s.amount || ' ' || s.currency || ' in the report of ' || s.report_date
               || coalesce(': our charge is ' || c.state, ': not ours') as detail
      from settlement_lines s
      left join charges c on c.merchant_id = s.merchant_id and c.id = s.charge_id
      where (s.kind <> 'charge' or c.id is null or c.state <> 'succeeded' or c.amount <> s.amount or c.currency <> s.currency)
        and not (s.kind = 'refund' and exists (
          select from refunds r where r.merchant_id = s.merchant_id and r.id = s.charge_id and r.gateway = s.gateway
            and r.state = 'succeeded' and r.amount = s.amount and r.currency = s.currency))
        and not exists (select from said f where f.merchant_id = s.merchant_id and f.gateway = s.gateway
                          and f.subject in (s.gateway_charge_id, s.gateway_charge_id || ' ' || s.kind || ' ' || s.report_date))
      union all
      select s.merchant_id, 'charge', s.charge_id::text, 'stands in the reports ' || count(*) || ' times'
      from settlement_lines s
      where s.kind = 'charge' and s.charge_id is not null
        and not exists (select from said f where f.merchant_id = s.merchant_id and f.charge_id = s.charge_id)
      group by s.merchant_id, s.charge_id having count(*) > 1
      union all
      select p.merchant_id, 'charge', p.id::text, 'paid ' || p.collected_on || ', in no settlement report'
      from payments p
      -- Around midnight a payment may stand in the next day's report.
      join watermarks w on w.merchant_id = p.merchant_id and w.method = 'card' and p.collected_on < w.complete_to
      where p.method = 'card'
        and not exists (select from settlement_lines s
                        where s.merchant_id = p.merchant_id and s.charge_id = p.id and s.kind = 'charge')
        and not exists (select from said f
                        where f.merchant_id = p.merchant_id and f.charge_id = p.id and f.kind = 'missing_there')
      union all
      select r.merchant_id, 'report', r.gateway || ' ' || r.report_date,
             'says ' || r.lines || ' lines, holds ' || count(s.line_no)
      from settlement_reports r
      left join settlement_lines s
        on s.merchant_id = r.merchant_id and s.gateway = r.gateway and s.report_date = r.report_date
      group by r.merchant_id, r.gateway, r.report_date, r.lines
      having count(s.line_no) <> r.lines`,
    },
  ],
  10: [
    {
      violations: `
      select l.merchant_id, 'invoice' as kind, l.invoice_id::text as subject, 'locked by a charge that is ' || c.state
               || case when c.invoice_id <> l.invoice_id then ', of another bill' else '' end as detail
      from collection_locks l join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
      where (c.state not in ${openStates} and c.state <> 'preliminary') or c.invoice_id <> l.invoice_id
      union all
      select c.merchant_id, 'charge', c.id::text, 'a shop says its bill is paid, and the bill is free to be paid again'
      from charges c
      join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id and i.state in ('open', 'parked')
      where c.state = 'preliminary'
        and not exists (select from collection_locks l where l.merchant_id = c.merchant_id and l.invoice_id = c.invoice_id)
      union all
      select c.merchant_id, 'charge', c.id::text, c.state || ' without the lock of its bill'
      from charges c
      where c.state in ${openStates}
        and not exists (select from collection_locks l where l.merchant_id = c.merchant_id and l.charge_id = c.id)`,
    },
    {
      violations: `
      select r.merchant_id, 'run' as kind, r.job || ' ' || r.business_date as subject,
             r.state || ' in pass ' || r.pass || ', fence ' || r.fence || '; passes kept ' || coalesce(p.passes, 0)
               || ' up to ' || coalesce(p.last, 0) || ', not ended ' || coalesce(p.running, 0) as detail
      from runs r
      left join (
        select merchant_id, job, business_date, count(*) as passes, max(pass) as last,
               count(*) filter (where outcome is null) as running,
               max(pass) filter (where outcome is null) as running_pass,
               max(owner) filter (where outcome is null) as owner
        from run_passes group by merchant_id, job, business_date
      ) p on p.merchant_id = r.merchant_id and p.job = r.job and p.business_date = r.business_date
      where coalesce(p.passes, 0) <> r.pass or coalesce(p.last, 0) <> r.pass or r.fence < r.pass
         or coalesce(p.running, 0) <> case when r.state = 'running' then 1 else 0 end
         or (r.state = 'running' and (p.running_pass, p.owner) is distinct from (r.pass, r.lease_owner))
      union all
      select c.merchant_id, 'run', c.job || ' ' || c.business_date, 'chunk ' || c.chunk_no || ' of pass ' || c.pass
               || ' has fence ' || c.fence || ' after ' || c.attempts || ' claims'
               || case when c.pass < r.pass and c.state = 'ready' then ', and is ready though pass ' || r.pass || ' began' else '' end
      from chunks c
      join runs r on r.merchant_id = c.merchant_id and r.job = c.job and r.business_date = c.business_date
      where c.fence < c.attempts or (c.pass < r.pass and c.state = 'ready')
      union all
      -- Both leases live though the younger process began longer ago than a lease lasts: the elder renews its own.
      select r.merchant_id, 'run', r.job || ' ' || min(r.business_date), 'at the same time as ' || max(r.business_date)
      from runs r
      join run_passes p on p.merchant_id = r.merchant_id and p.job = r.job and p.business_date = r.business_date
        and p.pass = r.pass
      where r.state = 'running' and r.lease_until > seikyu_now()
      group by r.merchant_id, r.job
      having count(*) > 1 and max(p.started_at) < seikyu_now() - interval '60 seconds'`,
    },
  ],
  11: [
    {
      violations: `
      select i.merchant_id, 'bill' as kind, i.billing_number as subject, 'open without a next step' as detail
      from invoices i join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
      where i.state = 'open'
        and not exists (select from agenda a where a.merchant_id = i.merchant_id and a.invoice_id = i.id)
      union all
      select i.merchant_id, 'bill', i.billing_number, 'parked, and nobody is asked'
      from invoices i
      where i.state = 'parked'
        and not exists (select from parked_items p where p.merchant_id = i.merchant_id and p.subject = 'invoice'
                          and p.subject_id = i.id::text and p.resolved_at is null)
      union all
      -- Its history begins with it: the gate has parked it, and nobody but a person lets it go.
      select i.merchant_id, 'bill', i.billing_number, 'parked before anybody saw it, and there is a message or charge'
      from invoices i
      where i.state = 'parked' and i.version = 1
        and (exists (select from messages m where m.merchant_id = i.merchant_id and m.invoice_id = i.id)
          or exists (select from charges c where c.merchant_id = i.merchant_id and c.invoice_id = i.id))
      union all
      select f.merchant_id, 'file', f.name, 'held for ' || f.file_code || ', and nobody is asked'
      from billing_files f
      where f.state = 'held' and not f.file_code = any(f.waived)
        and not exists (select from parked_items p where p.merchant_id = f.merchant_id and p.subject = 'file'
                          and p.subject_id = f.id::text and p.resolved_at is null)
      union all
      select i.merchant_id, 'bill', i.billing_number, i.state || ' with a next step'
      from agenda a join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
      where i.state in ${finalStates}
      union all
      select m.merchant_id, 'message', m.invoice_id || ' ' || m.step, m.state || ', and nobody asks the carrier'
      from messages m
      where m.state in ('sending', 'unknown') and m.ask_at is null
        and not exists (select from parked_items p where p.merchant_id = m.merchant_id and p.subject = 'message'
                          and p.resolved_at is null and p.context ->> 'invoiceId' = m.invoice_id::text
                          and p.context ->> 'step' = m.step)`,
    },
    {
      of: 'time',
      violations: `
      select w.merchant_id, w.kind, w.subject, w.detail
      from (
        select merchant_id, 'charge' as kind, charge_id::text as subject, 'nobody asked the gateway since ' || ask_at as detail,
               '^(OUTCOME_UNKNOWN|AMOUNT_DIFFERS|GATEWAY)' as causes
        from collection_locks l where ask_at < $1::timestamptz - interval '1 day'
          -- Whoever debits accounts answers by files, and cannot be asked.
          and not exists (select from debit_lines d where d.merchant_id = l.merchant_id and d.charge_id = l.charge_id)
        union all
        select merchant_id, 'card change', id::text, 'nobody asked the gateway since ' || ask_at, '^(CARD_CHANGE|GATEWAY)'
        from card_changes
        where state in ('processing', 'requires_action', 'unknown') and ask_at < $1::timestamptz - interval '1 day'
        union all
        select r.merchant_id, 'file', o.name, 'no result since ' || r.result_due_on, '^(DEBIT_RESULT|DEBIT_AGENCY|DELIVER_|OUTWARD_|RUN_)'
        from debit_requests r join outward_files o on o.merchant_id = r.merchant_id and o.id = r.file_id
        where r.state = 'asked' and r.result_due_on < ($1::timestamptz - interval '3 days')::date
        union all
        select merchant_id, 'message', invoice_id || ' ' || step, 'nobody asked the carrier since ' || ask_at,
               '^(SMS_OUTCOME_UNKNOWN|MESSAGES|CARRIER)'
        from messages where state in ('sending', 'unknown') and ask_at < $1::timestamptz - interval '1 day'
        union all
        select m.merchant_id, 'message', m.invoice_id || ' ' || m.step, 'planned for ' || m.planned_on || ' and not sent',
               '^(SMS_OUTCOME_UNKNOWN|MESSAGES|CARRIER|RUN_)'
        from messages m join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id and i.state <> 'parked'
        where m.state = 'planned' and m.planned_on < ($1::timestamptz - interval '5 days')::date
          and not ${isHeld('i', "($1::timestamptz - interval '5 days')")}
          and not exists (select from collection_locks l where l.merchant_id = m.merchant_id and l.invoice_id = m.invoice_id)
        union all
        select i.merchant_id, 'bill', i.billing_number, a.act || ' was due on ' || a.act_on, '^BILLS_'
        from agenda a join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
        where a.act_on < ($1::timestamptz - interval '5 days')::date
          and not exists (select from collection_locks l where l.merchant_id = a.merchant_id and l.invoice_id = a.invoice_id)
        union all
        select merchant_id, 'file', name, state || ' since ' || fetched_at, '^(FILE_|F_|INGEST|RUN_)'
        from billing_files where state in ('fetched', 'loading') and fetched_at < $1::timestamptz - interval '1 day'
        union all
        select o.merchant_id, 'file', o.name, 'frozen since ' || o.frozen_at, '^(DELIVER_|OUTWARD_|RUN_)'
        from outward_files o
        where o.state = 'frozen' and ${waitsSince('o')} < $1::timestamptz - interval '1 day'
          and not exists (select from parked_items p where p.merchant_id = o.merchant_id and p.subject = 'file'
                            and p.subject_id = o.id::text and p.resolved_at is null)
        union all
        select r.merchant_id, 'invoice', r.invoice_id::text, r.outcome || ' known since ' || r.known_at || ', in no file',
               '^(DELIVER_|TIE_OUT_OPEN|RUN_)'
        from result_rows r join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
        where r.outward_file_id is null and r.known_at < $1::timestamptz - interval '2 days'
          and not exists (select from parked_items p where p.merchant_id = r.merchant_id and p.subject = 'file'
                            and p.subject_id = i.file_id::text and p.resolved_at is null)
          and not exists (select from findings f where f.merchant_id = r.merchant_id and f.invoice_id = r.invoice_id
                            and f.state = 'open')
        union all
        select merchant_id, 'charge', reference, 'webhook ' || event_id || ' is not handled since ' || received_at,
               '^(WEBHOOK|RUN_)'
        from webhook_events where handled_at is null and received_at < $1::timestamptz - interval '1 day'
        union all
        select merchant_id, 'run', job || ' ' || business_date, state || ' since ' || requested_at, '^RUN_'
        from runs
        where (state = 'requested' and requested_at < $1::timestamptz - interval '1 day')
           or (state = 'running' and lease_until < seikyu_now() - interval '1 day')
      ) w
      where not exists (select from alerts a where a.merchant_id in (w.merchant_id, 0) and a.acknowledged_at is null
                          and a.cause ~ w.causes)`,
    },
  ],
  12: [
    {
      violations: `
      select merchant_id, 'invoice' as kind, invoice_id::text as subject,
             'the last attempt is ' || max(attempt_no) || ' of ' || count(*) as detail
      from charges group by merchant_id, invoice_id having max(attempt_no) <> count(*) or min(attempt_no) <> 1
      union all
      select c.merchant_id, 'charge', c.id::text, 'attempt ' || c.attempt_no || ' on a card declined for good by charge ' || d.id
      from charges d
      join charges c on c.merchant_id = d.merchant_id and c.payment_method_id = d.payment_method_id
      where d.verdict = 'never_this_method' and c.state <> 'canceled' and c.started_at > d.decided_at + interval '1 minute'
      union all
      select c.merchant_id, 'charge', c.id::text, 'attempt ' || c.attempt_no || ' on a card that the gateway had called ' || l.answer
      from card_refresh_lines l
      join card_refreshes r on r.merchant_id = l.merchant_id and r.id = l.refresh_id
      join charges c on c.merchant_id = l.merchant_id and c.payment_method_id = l.payment_method_id
      where l.answer in ('replaced', 'closed', 'expired') and c.state <> 'canceled'
        and c.started_at > r.answered_at + interval '1 minute'
      union all
      select c.merchant_id, 'charge', c.id::text,
             'attempt ' || c.attempt_no || ' before ' || p.retry_not_before || ', as attempt ' || p.attempt_no || ' asked for'
      from charges c
      join charges p on p.merchant_id = c.merchant_id and p.invoice_id = c.invoice_id and p.attempt_no < c.attempt_no
        and p.payment_method_id = c.payment_method_id and p.retry_not_before > c.started_at
      where c.origin = 'auto' and c.state <> 'canceled' and c.attempt_no > 1
`,
    },
    {
      violations: `
      select c.merchant_id, 'charge' as kind, c.id::text as subject, 'began while the customer was held for ' || h.reason as detail
      from holds h
      join invoices i on i.merchant_id = h.merchant_id and i.customer_id = h.customer_id
        and (h.contract_id is null or h.contract_id = i.contract_id)
      join charges c on c.merchant_id = i.merchant_id and c.invoice_id = i.id
      where c.origin = 'auto' and c.started_at > h.placed_at + ${clockTolerance}
        and (h.lifted_at is null or c.started_at < h.lifted_at - ${clockTolerance})
        and (h.until_on is null or c.business_date <= h.until_on)
      union all
      select m.merchant_id, 'message', m.invoice_id || ' ' || m.step, 'was sent while the customer was held for ' || h.reason
      from holds h
      join invoices i on i.merchant_id = h.merchant_id and i.customer_id = h.customer_id
        and (h.contract_id is null or h.contract_id = i.contract_id)
      join messages m on m.merchant_id = i.merchant_id and m.invoice_id = i.id
      where m.state in ('sending', 'sent', 'unknown') and m.claimed_at > h.placed_at + ${clockTolerance}
        and (h.lifted_at is null or m.claimed_at < h.lifted_at - ${clockTolerance})
        -- A day less: the day on which a hold ends is the merchant's.
        and (h.until_on is null or m.claimed_at < h.until_on)`,
    },
    {
      // The numbers alone: settings are wide, and would be carried along with each bill.
      violations: `
      with plan as materialized (
        select merchant_id, version, (settings #>> '{dunning,card,attempts}')::int as attempts from merchant_settings),
      made as (
        select merchant_id, invoice_id, count(*) as attempts from charges
        where origin = 'auto' and state <> 'canceled'
        group by merchant_id, invoice_id having count(*) > (select min(attempts) from plan))
      select i.merchant_id, 'bill' as kind, i.billing_number as subject,
             m.attempts || ' automatic attempts, the plan has ' || p.attempts as detail
      from made m
      join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
      join plan p on p.merchant_id = i.merchant_id and p.version = i.settings_version
      where m.attempts > p.attempts`,
    },
    {
      violations: `
      with ceiling(network, attempts, hours) as (values ${ceilingRows}),
      often as (
        select merchant_id, payment_method_id, amount, max(lower(network)) as network
        from charges where payment_method_id is not null and state <> 'canceled'
        group by merchant_id, payment_method_id, amount having count(*) > (select min(attempts) from ceiling))
      select c.merchant_id, 'charge' as kind, c.id::text as subject,
             count(*) || ' attempts of one card and amount in ' || k.hours || ' hours, allowed are ' || k.attempts as detail
      from often n
      join ceiling k on k.network = case when n.network in (select network from ceiling) then n.network else '' end
      join charges c on c.merchant_id = n.merchant_id and c.payment_method_id = n.payment_method_id
        and c.amount = n.amount and c.state <> 'canceled'
      join charges o on o.merchant_id = n.merchant_id and o.payment_method_id = n.payment_method_id
        and o.amount = n.amount and o.state <> 'canceled'
        and o.started_at <= c.started_at and o.started_at > c.started_at - make_interval(hours => k.hours)
      group by c.merchant_id, c.id, k.attempts, k.hours having count(*) > k.attempts`,
    },
  ],
  13: [
    {
      violations: `
      with back as (
        select merchant_id, invoice_id, case when invoice_id is null then customer_id end as customer_id,
               sum(amount)::bigint as amount
        from transfers
        where credit in ('gateway_clearing', 'given_by_merchant') and debit in ('receivable', 'returned', 'customer_credit')
        group by 1, 2, 3)
      select b.merchant_id, case when b.invoice_id is null then 'customer' else 'invoice' end as kind,
             coalesce(b.invoice_id, b.customer_id)::text as subject,
             b.amount || ' given back of ' || coalesce(sum(t.amount), 0) as detail
      from back b
      left join transfers t on t.merchant_id = b.merchant_id and t.debit = 'gateway_clearing'
        and (t.invoice_id = b.invoice_id or (b.invoice_id is null and t.customer_id = b.customer_id))
      group by b.merchant_id, b.invoice_id, b.customer_id, b.amount
      having b.amount > coalesce(sum(t.amount), 0)`,
    },
    {
      violations: `
      select p.merchant_id, 'charge' as kind, p.id::text as subject,
             p.refunded || ' counts as given back, refunds are over ' || coalesce(sum(r.amount), 0) || ' of ' || p.amount as detail
      from payments p
      left join refunds r on r.merchant_id = p.merchant_id and r.charge_id = p.id
        and r.state in ('processing', 'unknown', 'succeeded')
      where p.refunded > 0 or r.id is not null
      group by p.merchant_id, p.id, p.refunded, p.amount
      having p.refunded <> coalesce(sum(r.amount), 0)::bigint or coalesce(sum(r.amount), 0)::bigint > p.amount
      union all
      select coalesce(r.merchant_id, t.merchant_id), 'charge', coalesce(r.charge_id, t.entry_id)::text,
             'refund ' || coalesce(r.id, t.entry_id) || ' is ' || coalesce(r.state, 'not here') || ' over '
               || coalesce(r.amount, 0) || ', in the ledger ' || coalesce(t.amount, 0)
      from (select * from refunds where state = 'succeeded') r
      full join (
        select merchant_id, entry_id, sum(amount)::bigint as amount from transfers
        where event in ('refunded', 'credit_refunded', 'refunded_by_merchant', 'credit_refunded_by_merchant')
        group by merchant_id, entry_id
      ) t on t.merchant_id = r.merchant_id and t.entry_id = r.id
      where r.amount is distinct from t.amount
      union all
      select b.merchant_id, 'invoice', b.invoice_id::text,
             'recalled as ' || b.outcome || ', the bill is ' || i.state || ', '
               || coalesce(sum(p.amount - p.refunded - p.reused), 0) || ' kept'
      from recall_bills b
      join invoices i on i.merchant_id = b.merchant_id and i.id = b.invoice_id
      left join payments p on p.merchant_id = b.merchant_id and p.invoice_id = b.invoice_id
      where b.state = 'done'
      group by b.merchant_id, b.invoice_id, b.outcome, i.state
      having i.state not in ${finalStates} or (b.outcome = 'cancelled' and i.state <> 'cancelled')
          or (b.outcome = 'refunded' and coalesce(sum(p.amount - p.refunded - p.reused), 0) > 0)
      union all
      select b.merchant_id, 'invoice', b.invoice_id::text, 'is ' || b.state || ' in a recall that is over'
      from recall_bills b
      join recalls r on r.merchant_id = b.merchant_id and r.id = b.recall_id and r.state = 'done'
      where b.state <> 'done'
      union all
      select u.merchant_id, 'invoice', u.invoice_id::text, 'recalled, and still paid by the credit ' || u.payment_id
      from credit_uses u
      join recall_bills b on b.merchant_id = u.merchant_id and b.invoice_id = u.invoice_id and b.state = 'done'
      where u.returned_at is null`,
    },
    {
      violations: `
      select p.merchant_id, 'charge' as kind, p.id::text as subject,
             p.reused || ' counts as put on later bills, uses are over ' || coalesce(sum(u.amount), 0) || ' of ' || p.amount as detail
      from payments p
      left join credit_uses u on u.merchant_id = p.merchant_id and u.payment_id = p.id and u.returned_at is null
      where p.reused > 0 or u.id is not null
      group by p.merchant_id, p.id, p.reused, p.refunded, p.amount
      having p.reused <> coalesce(sum(u.amount), 0)::bigint or p.reused + p.refunded > p.amount
      union all
      select coalesce(u.merchant_id, t.merchant_id), 'entry', coalesce(u.id, t.entry_id)::text,
             'a credit over ' || coalesce(u.amount, 0) || ' is put on a bill, in the ledger ' || coalesce(t.used, 0)
               || ', taken back ' || coalesce(t.returned, 0)
      from credit_uses u
      full join (
        select merchant_id, entry_id,
               sum(case when event = 'credit_used' then amount else 0 end) as used,
               sum(case when event = 'credit_returned' then amount else 0 end) as returned
        from transfers where event in ('credit_used', 'credit_returned') group by merchant_id, entry_id
      ) t on t.merchant_id = u.merchant_id and t.entry_id = u.id
      where (t.used, t.returned) is distinct from (u.amount::numeric, case when u.returned_at is null then 0 else u.amount end::numeric)
      union all
      select u.merchant_id, 'invoice', u.invoice_id::text,
             sum(u.amount) || ' of credit on a bill over ' || i.amount || ', which is ' || i.state
      from credit_uses u
      join invoices i on i.merchant_id = u.merchant_id and i.id = u.invoice_id
      where u.returned_at is null
      group by u.merchant_id, u.invoice_id, i.amount, i.state
      having sum(u.amount) <> i.amount or i.state <> 'paid'`,
    },
  ],
  14: [
    {
      violations: `
      select i.merchant_id, 'bill' as kind, i.billing_number as subject,
             i.state || ' with ' || coalesce(r.told, 0) || ' final rows' || coalesce(' as ' || r.outcome, '') as detail
      from invoices i
      left join (
        select merchant_id, invoice_id, count(*) as told, min(outcome) as outcome
        from result_rows where outcome in ${finalStates} group by merchant_id, invoice_id
      ) r on r.merchant_id = i.merchant_id and r.invoice_id = i.id
      where coalesce(r.told, 0) <> case when i.state in ${finalStates} then 1 else 0 end or r.outcome <> i.state
      union all
      select r.merchant_id, 'invoice', r.invoice_id::text,
             'told as paid with ' || r.amount_received || ', allocated is ' || coalesce(a.amount, u.amount, 0)
      from result_rows r
      left join allocations a on a.merchant_id = r.merchant_id and a.payment_id = r.cause_id and a.invoice_id = r.invoice_id
      left join (
        select merchant_id, invoice_id, sum(amount) as amount from credit_uses group by merchant_id, invoice_id
      ) u on u.merchant_id = r.merchant_id and u.invoice_id = r.invoice_id and r.cause_id = r.invoice_id
      where r.outcome = 'paid' and coalesce(a.amount, u.amount) is distinct from r.amount_received
      union all
      select r.merchant_id, 'invoice', r.invoice_id::text, 'told as unpaid though charge ' || p.id || ' was known to have paid it'
      from result_rows r join payments p on p.merchant_id = r.merchant_id and p.invoice_id = r.invoice_id
      where r.outcome = 'unpaid' and p.known_at < r.known_at`,
    },
    {
      violations: `
      select o.merchant_id, 'file' as kind, o.name as subject,
             'says ' || o.records || ' records over ' || o.sum || ', holds ' || coalesce(r.records, 0) || ' over '
               || coalesce(r.sum, 0) as detail
      from outward_files o
      left join (
        select merchant_id, outward_file_id, count(*) as records, sum(amount)::bigint as sum,
               count(distinct row_no) as numbers, min(row_no) as first, max(row_no) as last
        from result_rows where outward_file_id is not null group by merchant_id, outward_file_id
        union all
        select merchant_id, outward_file_id, count(*), 0, count(distinct row_no), min(row_no), max(row_no)
        from enrolment_rows where outward_file_id is not null group by merchant_id, outward_file_id
        union all
        select merchant_id, outward_file_id, count(*), 0, count(distinct row_no), min(row_no), max(row_no)
        from unreached_rows where outward_file_id is not null group by merchant_id, outward_file_id
        union all
        select merchant_id, outward_file_id, count(*),
               sum(case sign when '-' then -amount else amount end)::bigint, count(distinct row_no), min(row_no), max(row_no)
        from adjustment_rows where outward_file_id is not null group by merchant_id, outward_file_id
      ) r on r.merchant_id = o.merchant_id and r.outward_file_id = o.id
      where o.kind in ('result', 'enrolment', 'unreached', 'adjustment')
        and (o.records, o.records, 1, o.records, o.sum) is distinct from (r.records, r.numbers, r.first, r.last, r.sum)
      union all
      select merchant_id, 'file', max(name), kind || ' files have numbers ' || min(sequence) || ' to ' || max(sequence)
               || ' and are ' || count(*)
      from outward_files group by merchant_id, kind having min(sequence) <> 1 or max(sequence) <> count(*)
      union all
      select merchant_id, 'adjustments', min(number) || ' to ' || max(number), 'are ' || count(*)
      from adjustment_rows where number is not null
      group by merchant_id having min(number) <> 1 or max(number) <> count(*)
      union all
      select coalesce(t.merchant_id, a.merchant_id), 'charge', coalesce(t.entry_id, a.cause_id)::text,
             'in the ledger ' || coalesce(t.event, 'nothing') || ', told as ' || coalesce(a.kind, 'nothing')
      from (
        select merchant_id, entry_id, event, amount,
               case event when 'paid_after_return' then 'late_payment' when 'credit_used' then 'reversal' else 'overpayment' end as kind
        from transfers where event in ('overpaid', 'paid_after_return', 'credit_used', 'credit_returned')
      ) t
      full join (select * from adjustment_rows where kind in ('late_payment', 'overpayment', 'reversal')) a
        on a.merchant_id = t.merchant_id and a.cause_id = t.entry_id and a.kind = t.kind
      where a.amount is distinct from t.amount`,
    },
    {
      violations: `
      select coalesce(r.merchant_id, u.merchant_id) as merchant_id, 'invoice' as kind,
             coalesce(r.invoice_id, u.invoice_id)::text as subject,
             'its result says ' || coalesce(r.reason, 'nothing of paper') || ', its unreached row '
               || coalesce(u.disposition, 'is missing') as detail
      from (select * from result_rows where outcome = 'unpaid' and reason = 'paper') r
      full join (select * from unreached_rows where disposition = 'returned') u
        on u.merchant_id = r.merchant_id and u.invoice_id = r.invoice_id
      where r.invoice_id is null or u.invoice_id is null
      union all
      select u.merchant_id, 'invoice', u.invoice_id::text, 'went back for paper, and link ' || l.version || ' of it lives'
      from unreached_rows u
      join links l on l.merchant_id = u.merchant_id and l.invoice_id = u.invoice_id and l.dead_reason is null
      where u.disposition = 'returned'
      union all
      select u.merchant_id, 'invoice', u.invoice_id::text, 'went back for paper, and shops take a barcode of it until ' || b.expires_on
      from unreached_rows u
      join barcodes b on b.merchant_id = u.merchant_id and b.invoice_id = u.invoice_id
      where u.disposition = 'returned' and b.expires_on > u.occurred_at
      union all
      select u.merchant_id, 'invoice', u.invoice_id::text, 'is kept, and the barcode that was told is none of its own'
      from unreached_rows u
      where u.disposition = 'kept'
        and not exists (select from barcodes b
                        where b.merchant_id = u.merchant_id and b.invoice_id = u.invoice_id and b.digits = u.barcode)`,
    },
  ],
  15: [
    {
      violations: `
      select o.merchant_id, 'file' as kind, o.name as subject,
             'of ' || o.size_bytes || ' bytes ' || coalesce(p.bytes, 0) || ' are kept in ' || coalesce(p.parts, 0) || ' parts' as detail
      from outward_files o
      left join (
        select merchant_id, file_id, count(*) as parts, min(part_no) as first, max(part_no) as last,
               sum(octet_length(content)) as bytes
        from outward_file_parts group by merchant_id, file_id
      ) p on p.merchant_id = o.merchant_id and p.file_id = o.id
      where coalesce(p.bytes, 0) <> o.size_bytes or p.first <> 0 or p.last <> p.parts - 1`,
    },
    {
      of: 'rest',
      violations: `
      select o.merchant_id, 'file' as kind, o.name as subject, 'the bytes kept have another digest' as detail
      from (select *, sum(size_bytes) over (order by frozen_at desc, id desc) as with_newer from outward_files) o
      where o.with_newer <= ${newestBytes} and o.size_bytes <= ${wholeBytes}
        and o.sha256 <> (
          select encode(sha256(coalesce(string_agg(p.content, ''::bytea order by p.part_no), ''::bytea)), 'hex')
          from outward_file_parts p where p.merchant_id = o.merchant_id and p.file_id = o.id)`,
    },
  ],
  16: [{ of: 'schema', violations: openBorders }],
  17: [
    {
      violations: `
      select merchant_id, 'invoice' as kind, id::text as subject, 'its number or description has characters that are not allowed' as detail
      from invoices where billing_number !~ '^[A-Za-z0-9_-]+$' or length(billing_number) > 40 or description ~ '${hostileCharacters}'
      union all
      select merchant_id, 'customer', id::text, 'its number has characters that are not allowed'
      from customers where customer_number !~ '^[A-Za-z0-9_-]+$' or length(customer_number) > 40
      union all
      select merchant_id, 'customer', customer_id::text, 'a contract number has characters that are not allowed'
      from contracts where contract_number !~ '^[A-Za-z0-9_-]*$' or length(contract_number) > 40
      union all
      select merchant_id, 'invoice', invoice_id::text, 'a tax line has characters that are not allowed'
      from invoice_tax_lines
      where description ~ '${hostileCharacters}' or issuer_registration_number !~ '^T[0-9]{13}$'
      union all
      select l.merchant_id, 'file', f.name, 'line ' || l.line_no || ' is told with a billing number that is none'
      from line_findings l join billing_files f on f.merchant_id = l.merchant_id and f.id = l.file_id
      where l.billing_number !~ '^[A-Za-z0-9_-]{0,40}$'
      union all
      select merchant_id, 'file', id::text, 'its name or the path of its copy is not one that may be'
      from billing_files
      where name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$' or (archive_path <> '' and right(archive_path, 36) <> id::text)
      union all
      select merchant_id, 'file', id::text, 'its name is not one that may be'
      from outward_files where name !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$'`,
    },
  ],
  18: [
    {
      violations: `
      select merchant_id, 'message' as kind, invoice_id || ' ' || step as subject, state || ' and never claimed for a carrier' as detail
      from messages
      where state in ('sending', 'sent', 'unknown')
        and (claimed_at is null or carrier is null or (state = 'sent' and provider_id is null) or decided_at < claimed_at)
      union all
      select merchant_id, 'charge', id::text, state || ' before it began'
      from charges where decided_at < started_at - ${clockTolerance}
      union all
      select merchant_id, 'file', name, 'delivered without a rename that was written down before'
      from outward_files where state = 'delivered' and (renaming_at is null or delivered_at < renaming_at)
      union all
      select m.id, 'merchant', m.code, 'no host key is known for its server'
      from merchants m join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
      where coalesce(jsonb_array_length(s.settings #> '{exchange,sftp,hostKeys}'), 0) = 0`,
    },
  ],
  19: [
    {
      violations: `
      with texts(merchant_id, kind, subject, words) as (
        select merchant_id, 'alert', cause, cause || ' ' || message from alerts
        union all
        select merchant_id, 'run', job || ' ' || business_date, failure from run_passes where failure is not null
        union all
        select merchant_id, 'run', job || ' ' || business_date, failure from chunks where failure is not null
        union all
        select merchant_id, 'parked', subject || ' ' || subject_id, concat_ws(' ', reason, context, resolution) from parked_items
        union all
        select merchant_id, 'charge', reference, result from webhook_events where result is not null
        union all
        select merchant_id, 'charge', charge_id::text, reason from refunds where reason is not null)
      select t.merchant_id, t.kind, t.subject, 'a text of it holds ' || p.what as detail
      from texts t
      join (values ${personal.map(([what, pattern]) => `('${what}', '${pattern}')`).join(', ')}) as p(what, pattern)
        on t.words ~ p.pattern
      union all
      select t.merchant_id, t.kind, t.subject, 'a text of it holds a card number' from texts t where ${holdsCard('t.words')}
      union all
      select i.merchant_id, 'bill', i.billing_number, 'its description holds a card number'
      from invoices i
      where i.description ~ '[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{2}[ -]?[0-9]{2}' and ${holdsCard('i.description')}`,
    },
  ],
  20: [
    {
      violations: `
      select i.merchant_id, 'bill' as kind, i.billing_number as subject,
             i.state || ' over ' || i.amount || ': receivable ' || coalesce(b.receivable, 0) || ', billed '
               || coalesce(b.billed, 0) || ', returned ' || coalesce(b.returned, 0) || ', preliminary '
               || coalesce(b.preliminary, 0) as detail
      from invoices i
      join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
      left join (
        select merchant_id, invoice_id,
               sum(case when debit = 'receivable' then amount when credit = 'receivable' then -amount else 0 end) as receivable,
               sum(case when debit = 'returned' then amount when credit = 'returned' then -amount else 0 end) as returned,
               sum(case when debit = 'preliminary' then amount when credit = 'preliminary' then -amount else 0 end) as preliminary,
               sum(case when credit = 'billed' then amount when debit = 'billed' then -amount else 0 end) as billed,
               sum(case when event in ('refunded', 'refunded_by_merchant', 'credit_returned') then amount else 0 end) as given_back,
               currency
        from transfers group by merchant_id, invoice_id, currency
      ) b on b.merchant_id = i.merchant_id and b.invoice_id = i.id
      left join (
        select l.merchant_id, l.invoice_id from collection_locks l
        join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id and c.state = 'preliminary'
      ) k on k.merchant_id = i.merchant_id and k.invoice_id = i.id
      where coalesce(b.receivable, 0)
              <> case when i.state in ('open', 'parked') and k.invoice_id is null then i.amount else 0 end
         -- A shop's word stands on the preliminary account exactly while it holds the bill.
         or coalesce(b.preliminary, 0) <> case when k.invoice_id is null then 0 else i.amount end
         -- What was given back was never owed.
         or coalesce(b.billed, 0) <> case when i.state = 'cancelled' then 0 else i.amount - coalesce(b.given_back, 0) end
         or (i.state <> 'unpaid' and coalesce(b.returned, 0) <> 0)
         or b.currency <> i.currency`,
    },
    {
      violations: `
      select merchant_id, 'charge' as kind, id::text as subject,
             'taken ' || sum(taken) || ', allocated ' || sum(allocated) || ', credited ' || sum(credited)
               || '; in the ledger ' || sum(booked) || ', to credit ' || sum(booked_to_credit) as detail
      from (
        select merchant_id, id, amount as taken, 0 as allocated, 0 as credited, 0 as booked, 0 as booked_to_credit from payments
        union all
        select merchant_id, payment_id, 0, amount, 0, 0, 0 from allocations
        union all
        select merchant_id, payment_id, 0, 0, amount, 0, 0 from credits
        union all
        select merchant_id, entry_id, 0, 0, 0, amount, case when credit = 'customer_credit' then amount else 0 end
        from transfers where debit = 'gateway_clearing'
          and event in ('paid', 'preliminary_confirmed', 'overpaid', 'paid_after_return')
      ) payment
      group by merchant_id, id
      having sum(taken - allocated - credited) <> 0 or sum(taken - booked) <> 0 or sum(credited - booked_to_credit) <> 0`,
    },
    {
      violations: `
      select merchant_id, 'entry' as kind, entry_id::text as subject, event || ' from ' || credit || ' to ' || debit as detail
      from transfers where (event, debit, credit) not in (${chart})
      union all
      select h.merchant_id, case when h.subject = 'charge' then 'charge' else 'invoice' end,
             case when h.subject = 'payment_intent'
                  then (select p.invoice_id from payment_intents p
                        where p.merchant_id = h.merchant_id and p.id = h.subject_id)
                  else h.subject_id end::text,
             h.subject || ' went from ' || h.from_state || ' to ' || h.to_state
      from state_history h
      where h.from_state is not null and h.subject in ('invoice', 'charge', 'payment_intent')
        and (h.subject, h.from_state, h.to_state) not in (
          ${[
            edges(invoiceTransitions, 'invoice'),
            edges(chargeTransitions, 'charge'),
            edges(intentTransitions, 'payment_intent'),
          ].join(', ')})`,
    },
    { violations: asKind('customer', customerCreditViolations) },
    { violations: asKind('payout', payoutViolations) },
    { violations: asKind('account', clearingViolations) },
    { violations: asKind('month', closedMonthViolations) },
    { of: 'schema', violations: changeableBooks },
  ],
};

export interface Violation {
  merchant: string;
  /** What the subject is, for `explainCommandOf`. */
  kind: string;
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
  /** How long it took, where a clock was handed in. */
  milliseconds?: number;
}

export interface CheckOptions {
  /** Only these numbers. */
  only?: readonly number[];
  /** For what waits too long; without it that is not asked. */
  now?: Temporal.Instant;
  /** In one statement and without what is true only at rest or of the schema: for a look after each day of a simulation. */
  inBetween?: boolean;
  /** False where the schema is not what it should be on purpose: the catalog is not asked. */
  schema?: boolean;
  elapsedMs?: () => number;
}

/** Hash joins over a million bills: beyond this they would go through files. */
const workMem = '128MB';
/** Each parallel worker would make the sums by bill anew. */
const workers = '0';

/** Asks all invariants in one snapshot that can write nothing. */
export async function checkInvariants(
  db: Db,
  options: CheckOptions = {},
): Promise<{ ok: boolean; invariants: CheckedInvariant[] }> {
  const asked = invariants.filter(({ id }) => options.only?.includes(id) ?? true);
  const checked = await db.transaction(
    async (tx) => {
      if (options.inBetween) return askTogether(tx, asked);
      await tx.run(
        `select set_config('work_mem', $1, true), set_config('max_parallel_workers_per_gather', $2, true),
                set_config('jit', 'off', true)`,
        [workMem, workers],
      );
      const isAsked = ({ of }: Look): boolean =>
        of === 'time' ? options.now !== undefined : of !== 'schema' || options.schema !== false;
      const results: CheckedInvariant[] = [];
      for (const invariant of asked) {
        if (!looks[invariant.id]?.some(isAsked)) continue;
        const from = options.elapsedMs?.() ?? 0;
        const { sql, values } = statementOf([invariant], isAsked, options.now);
        const [result] = resultsOf([invariant], await tx.query<FoundRow>(sql, values));
        if (result === undefined) continue;
        results.push(
          options.elapsedMs ? { ...result, milliseconds: Math.round(options.elapsedMs() - from) } : result,
        );
      }
      return results;
    },
    { isolation: 'repeatable read', readOnly: true },
  );
  return { ok: checked.every((invariant) => invariant.holds), invariants: checked };
}

async function askTogether(tx: Tx, asked: readonly Invariant[]): Promise<CheckedInvariant[]> {
  const { sql } = statementOf(asked, ({ of }) => of === undefined, undefined);
  // Planning it takes longer than running it over the few rows of a simulation.
  return resultsOf(asked, await tx.query<FoundRow>(sql, [], { name: `check_in_between_${asked.length}` }));
}

export interface FoundRow extends Violation {
  id: number;
  total: number;
}

/** Of rows (id, merchant_id, kind, subject, detail) ten of each id, with their number, and bills by their numbers. */
export function tenOfEach(found: string): string {
  return `
    select v.id, coalesce(m.code, case when v.merchant_id = 0 then '' else v.merchant_id::text end) as merchant,
           case when i.id is not null or v.kind = 'invoice' then 'bill' when v.kind = 'entry' then 'charge' else v.kind end as kind,
           coalesce(i.billing_number, v.subject) as subject, v.detail, v.total
    from (
      select u.*, count(*) over (partition by id) as total,
             row_number() over (partition by id order by merchant_id, subject, detail) as place
      from (${found}) u
    ) v
    left join merchants m on m.id = v.merchant_id
    left join invoices i on i.merchant_id = v.merchant_id
      and i.id = case when v.kind in ('invoice', 'entry') then v.subject::uuid end
    where v.place <= 10
    order by v.id, v.place`;
}

/** The violations of these invariants, ten of each, with the number of each bill that is the subject. */
function statementOf(
  asked: readonly Invariant[],
  isAsked: (look: Look) => boolean,
  now: Temporal.Instant | undefined,
): { sql: string; values: string[] } {
  const parts = asked.flatMap(({ id }) =>
    (looks[id] ?? [])
      .filter(isAsked)
      .map(({ violations }) => `select ${id} as id, * from (${violations}) found_${id}`),
  );
  const sql = tenOfEach(parts.join('\nunion all\n'));
  return { sql, values: now !== undefined && sql.includes('$1') ? [instantText(now)] : [] };
}

export function resultsOf(
  asked: readonly { id: number; name: string }[],
  rows: readonly FoundRow[],
): CheckedInvariant[] {
  return asked.map(({ id, name }) => {
    const found = rows.filter((row) => row.id === id);
    return {
      id,
      name,
      holds: found.length === 0,
      violations: found[0]?.total ?? 0,
      examples: found.map(({ merchant, kind, subject, detail }) => ({ merchant, kind, subject, detail })),
    };
  });
}
