import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { ChargeOrigin, ChargeState } from '../charges/charge.ts';
import { statesBefore as intentStatesBefore } from '../charges/intent.ts';
import { statesBefore as sessionStatesBefore } from '../checkout/session.ts';
import type { Db, Tx } from '../db.ts';
import { bankGateway } from '../debits/debit.ts';
import { isHeld } from '../holds/queries.ts';
import { waitsSince } from '../outward/queries.ts';
import { untoldBills } from '../unreached/queries.ts';

export interface OpenCharge {
  id: string;
  state: ChargeState;
  origin: ChargeOrigin;
  gateway: string;
  amount: number;
  currency: string;
  started_at: string;
  deadline_at: string;
  asks: number;
  hosted_page_url: string | null;
  gateway_session_id: string | null;
  /** When its hosted page ends; null = it has none. */
  page_ends_at: string | null;
}

/** Banks answer by files, and cannot be asked. */
const canBeAsked = `not exists (
  select from charges c
  where c.merchant_id = l.merchant_id and c.id = l.charge_id and c.gateway = '${bankGateway}')`;

export interface ChargeRange {
  from: string;
  to: string;
}

/** Charges without a conclusive outcome whose time to be asked about has come, cut into ranges. */
export async function rangesToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: string,
  chargesPerRange: number,
): Promise<ChargeRange[]> {
  return db.query<{ from: string; to: string }>(
    `select min(charge_id::text) as "from", max(charge_id::text) as "to"
     from (select charge_id, (row_number() over (order by charge_id) - 1) / $3::int as range_no
           from collection_locks l where merchant_id = $1 and ask_at <= $2::timestamptz and ${canBeAsked}) numbered
     group by range_no order by range_no`,
    [merchantId, now, chargesPerRange],
  );
}

export async function chargesToAsk(
  db: Pick<Db, 'query'>,
  merchantId: number,
  now: string,
  range: ChargeRange,
  after: string | null,
  limit: number,
): Promise<OpenCharge[]> {
  return db.query<OpenCharge>(
    `select c.id, c.state, c.origin, c.gateway, c.amount, c.currency, c.started_at, c.deadline_at, c.asks,
            c.hosted_page_url, c.gateway_session_id, s.expires_at as page_ends_at
     from collection_locks l
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
     left join checkout_sessions s on s.merchant_id = c.merchant_id and s.id = c.session_id
     where l.merchant_id = $1 and l.ask_at <= $2::timestamptz and c.gateway <> '${bankGateway}'
       and l.charge_id between $3::uuid and $4::uuid and ($5::uuid is null or l.charge_id > $5::uuid)
     order by l.charge_id limit $6`,
    [merchantId, now, range.from, range.to, after, limit],
  );
}

export async function countToAsk(db: Pick<Db, 'query'>, merchantId: number, now: string): Promise<number> {
  const [row] = await db.query<{ due: number }>(
    `select count(*) as due from collection_locks l
     where merchant_id = $1 and ask_at <= $2::timestamptz and ${canBeAsked}`,
    [merchantId, now],
  );
  return row?.due ?? 0;
}

export async function countWaitingEvents(db: Pick<Db, 'query'>, merchantId: number): Promise<number> {
  const [row] = await db.query<{ waiting: number }>(
    `select count(*) as waiting from webhook_events where merchant_id = $1 and handled_at is null`,
    [merchantId],
  );
  return row?.waiting ?? 0;
}

/** Unresolved alerts of a merchant that the program can prove to be over: open ones, and those acknowledged since. */
export async function provableAlerts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  causes: readonly string[],
  acknowledgedSince: string,
): Promise<string[]> {
  const rows = await tx.query<{ cause: string }>(
    `select cause from alerts
     where merchant_id = $1 and resolved_at is null and split_part(cause, ' ', 1) ~ ('^(' || $2 || ')$')
       and (acknowledged_at is null or acknowledged_at > $3::timestamptz)
     order by cause`,
    [merchantId, causes.join('|'), acknowledgedSince],
  );
  return rows.map((row) => row.cause);
}

export interface StandingRow {
  cause: string;
  standing: number;
  example: string;
}

export interface Limits {
  /** The instant before which a process of this cause has stood too long. */
  before(cause: string): string;
  /** YYYY-MM-DD: business dates of runs that still matter. */
  runsSince: string;
  /** YYYY-MM-DD: what was planned before is late. */
  plannedBefore: string;
  asksAtMost: number;
  silentSeconds: number;
  failedPasses: number;
}

const notParked = (subjectId: string) => `not exists (
  select from parked_items p where p.merchant_id = $1 and p.subject = 'file' and p.subject_id = ${subjectId}::text
    and p.resolved_at is null)`;

/** Everything of a merchant that stands still for too long, by cause. One statement, for a look every few minutes. */
export async function standingStill(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  limits: Limits,
): Promise<StandingRow[]> {
  const { before } = limits;
  return tx.query<StandingRow>(
    `select cause, count(*) as standing, min(example) as example from (
       select 'OUTCOME_UNKNOWN' as cause, 'bill ' || i.billing_number as example
       from collection_locks l
       join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
       join invoices i on i.merchant_id = l.merchant_id and i.id = l.invoice_id
       left join checkout_sessions s on s.merchant_id = c.merchant_id and s.id = c.session_id
       where l.merchant_id = $1
         -- A shop's word is made certain in days: reconcile tells of those that are not.
         and c.state <> 'preliminary'
         -- What a bank was asked is looked after by the job that asks it.
         and c.gateway <> '${bankGateway}'
         -- A page that waits for its customer is in order until it ends.
         and case when c.state = 'requires_action' and s.expires_at is not null then s.expires_at < $2::timestamptz
                  else c.started_at < $2::timestamptz or c.asks >= $3::int end
       union all
       select 'CARD_CHANGE_UNKNOWN', 'that of customer ' || u.customer_number
       from card_changes c
       join contracts t on t.merchant_id = c.merchant_id and t.id = c.contract_id
       join customers u on u.merchant_id = t.merchant_id and u.id = t.customer_id
       where c.merchant_id = $1 and c.state in ('processing', 'requires_action', 'unknown')
         and case c.state when 'requires_action' then c.page_ends_at else c.started_at end < $19::timestamptz
       union all
       select 'WEBHOOKS_WAITING', 'event ' || event_id from webhook_events
       where merchant_id = $1 and handled_at is null and received_at < $4::timestamptz
       union all
       select 'WEBHOOKS_WAITING', 'news of SMS ' || provider_id from sms_callbacks
       where merchant_id = $1 and received_at < $4::timestamptz
       union all
       select 'MESSAGES_' || upper(m.state), m.step || ' of bill ' || i.billing_number
       from (select invoice_id, step, state from messages
             where merchant_id = $1 and state = 'sending' and claimed_at < $5::timestamptz
             union all
             select invoice_id, step, state from messages
             where merchant_id = $1 and state = 'unknown' and ask_at < $6::timestamptz
             union all
             select p.invoice_id, p.step, p.state from messages p
             join invoices b on b.merchant_id = p.merchant_id and b.id = p.invoice_id
             where p.merchant_id = $1 and p.state = 'planned' and p.planned_on < $7::date and b.state <> 'parked'
               and not ${isHeld('b', '$7')}) m
       join invoices i on i.merchant_id = $1 and i.id = m.invoice_id
       union all
       select 'FILES_WAITING', name from billing_files f
       where merchant_id = $1 and state = 'fetched' and fetched_at < $8::timestamptz and ${notParked('f.id')}
       union all
       select 'FILES_LOADING', name from billing_files f
       where merchant_id = $1 and state = 'loading' and fetched_at < $9::timestamptz and ${notParked('f.id')}
       union all
       select 'REMOVALS_UNFINISHED', name from billing_files
       where merchant_id = $1 and removed_at is null and fetched_at < $10::timestamptz
       union all
       select 'RECEIPTS_DUE', name from billing_files f
       where merchant_id = $1 and state in ('released', 'refused') and settled_at < $11::timestamptz
         and not exists (select from outward_files o
                         where o.merchant_id = f.merchant_id and o.input_file_id = f.id and o.kind = 'receipt')
         and ${notParked('f.id')}
       union all
       select 'FILES_UNDELIVERED', name from outward_files o
       where merchant_id = $1 and state = 'frozen' and ${waitsSince('o')} < $12::timestamptz and ${notParked('o.id')}
       union all
       select 'RUN_WAITING ' || job, business_date::text from runs r
       where merchant_id = $1 and state = 'requested' and requested_at < $13::timestamptz
         and not exists (select from run_halts h where h.merchant_id = r.merchant_id and h.job = r.job and h.kind = 'pause')
       union all
       select 'RUN_PAUSED ' || job, job || ' of ' || business_date from run_halts
       where merchant_id = $1 and kind = 'pause' and halted_at < $18::timestamptz
       union all
       -- Leases live on the database's own clock.
       select 'RUN_SILENT ' || job, business_date::text from runs
       where merchant_id = $1 and state = 'running' and lease_until < seikyu_now() - make_interval(secs => $14::float8)
       union all
       select 'RUN_LONG ' || r.job, r.business_date::text
       from runs r
       join run_passes p on p.merchant_id = r.merchant_id and p.job = r.job and p.business_date = r.business_date
         and p.pass = r.pass and p.started_at < $15::timestamptz
       where r.merchant_id = $1 and r.state = 'running' and r.lease_until >= seikyu_now()
       union all
       select 'RUN_FAILING ' || job, business_date::text
       from (select job, business_date, outcome,
                    row_number() over (partition by job, business_date order by pass desc) as place
             from run_passes
             where merchant_id = $1 and business_date >= $16::date and outcome is not null) ended
       where place <= $17::int
       group by job, business_date
       having count(*) = $17::int and bool_and(outcome = 'failed')
     ) standing group by cause order by cause`,
    [
      merchantId,
      before('OUTCOME_UNKNOWN'),
      limits.asksAtMost,
      before('WEBHOOKS_WAITING'),
      before('MESSAGES_SENDING'),
      before('MESSAGES_UNKNOWN'),
      limits.plannedBefore,
      before('FILES_WAITING'),
      before('FILES_LOADING'),
      before('REMOVALS_UNFINISHED'),
      before('RECEIPTS_DUE'),
      before('FILES_UNDELIVERED'),
      before('RUN_WAITING'),
      limits.silentSeconds,
      before('RUN_LONG'),
      limits.runsSince,
      limits.failedPasses,
      before('RUN_PAUSED'),
      before('CARD_CHANGE_UNKNOWN'),
    ],
  );
}

/**
 * The same for what takes a look at every open bill: bills that no job would ever look at again, bills whose step was due
 * before a day and that nobody is collecting, and rows that no file has taken in.
 */
export async function standingBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  limits: { dueBefore: string; knownBefore: string; today: string; unreachedBefore: string },
): Promise<StandingRow[]> {
  return tx.query<StandingRow>(
    `select cause, count(*) as standing, min(example) as example from (
       select 'BILLS_FORGOTTEN' as cause, 'bill ' || i.billing_number as example
       from invoices i
       join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
       where i.merchant_id = $1 and i.state = 'open'
         and not exists (select from agenda a where a.merchant_id = i.merchant_id and a.invoice_id = i.id)
       union all
       select 'BILLS_LATE', 'bill ' || i.billing_number
       from agenda a
       join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
       join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
       where a.merchant_id = $1 and a.act_on < $2::date
         and not exists (select from collection_locks l
                         where l.merchant_id = a.merchant_id and l.invoice_id = a.invoice_id)
       union all
       select 'RESULTS_DUE', 'bill ' || i.billing_number
       from result_rows r
       join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
       where r.merchant_id = $1 and r.outward_file_id is null and r.known_at < $3::timestamptz and ${notParked('i.file_id')}
       union all
       select 'RESULTS_DUE', 'an enrolment' from enrolment_rows
       where merchant_id = $1 and outward_file_id is null and occurred_at < $3::timestamptz
       union all
       select 'RESULTS_DUE', 'an unreached bill' from unreached_rows
       where merchant_id = $1 and outward_file_id is null and occurred_at < $3::timestamptz
       union all
       select 'UNREACHED_UNTOLD', 'bill ' || i.billing_number
       from (${untoldBills('$1', '$4', '$5')}) u join invoices i on i.merchant_id = $1 and i.id = u.id
     ) standing group by cause order by cause`,
    [merchantId, limits.dueBefore, limits.knownBefore, limits.today, limits.unreachedBefore],
  );
}

/** Of these causes, those with proof since they were last raised that they are over. */
export async function provenOver(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  causes: readonly string[],
  selfHealedBefore: string,
  /** Causes that are reasons of parked rows. */
  parkedFor: readonly string[],
): Promise<string[]> {
  const goodPass = (job: string) => `exists (
    select from run_passes p
    where p.merchant_id = $1 and p.job = ${job} and p.business_date >= (a.last_at - interval '3 days')::date
      and p.outcome in ('done', 'attention') and p.finished_at > a.last_at)`;
  const rows = await tx.query<{ cause: string }>(
    `select distinct a.cause from alerts a
     where a.merchant_id = $1 and a.cause = any($2::text[]) and a.resolved_at is null
       and case
         when a.level = 'none' then a.last_at < $3::timestamptz
         when a.cause like 'RUN_FAILING %' or a.cause like 'DISK_FULL %' then ${goodPass(`split_part(a.cause, ' ', 2)`)}
         when a.cause like 'SFTP_%' then ${goodPass(`'fetch'`)}
         when a.cause like 'DELIVER_%' then ${goodPass(`'deliver'`)}
         -- Ids begin with the milliseconds of their making: a charge begun later that has its answer.
         when a.cause like 'GATEWAY_DOWN %' then exists (
           select from charges c
           where c.merchant_id = $1 and c.gateway = split_part(a.cause, ' ', 2) and c.state in ('succeeded', 'failed')
             and c.id > rpad(lpad(to_hex((extract(epoch from a.last_at) * 1000)::bigint + 1), 12, '0'), 32, '0')::uuid)
         when a.cause = 'CARRIER_REFUSES' then exists (
           select from messages m where m.merchant_id = $1 and m.state = 'sent' and m.decided_at > a.last_at)
         when a.cause like 'SETTLEMENT_REPORT_LATE %' then exists (
           select from settlement_reports r where r.merchant_id = $1 and r.report_date::text = right(a.cause, 10))
         when a.cause like 'PAYOUT_CHANGED %' then not exists (
           select from findings f
           where f.merchant_id = $1 and f.source = 'payout' and f.kind = 'payout_differs' and f.state = 'open'
             and f.subject = split_part(a.cause, ' ', 2))
         when a.cause like 'PAYOUT_WITHHELD %' or a.cause like 'PAYOUT_WAITS %' then not exists (
           select from payouts o
           where o.merchant_id = $1 and o.payout_id = split_part(a.cause, ' ', 2) and o.state = 'withheld')
         else a.cause = any($4::text[]) and not exists (
           select from parked_items p where p.merchant_id = $1 and p.reason = a.cause and p.resolved_at is null)
       end
     order by a.cause`,
    [merchantId, causes, selfHealedBefore, parkedFor],
  );
  return rows.map((row) => row.cause);
}

/** Literals, not a parameter: the index by their end has open ones only, and a plan for any parameter could not use it. */
const mayExpire = sessionStatesBefore('expired')
  .map((state) => `'${state}'`)
  .join(', ');

/**
 * Ends visits whose time is over, with their intents; not those whose charge has no conclusive outcome. Nobody can pay on
 * them any more, and a new visit would end them too. Returns how many.
 */
export async function expireSessions(tx: Tx, act: Act, endedBefore: string, limit: number): Promise<number> {
  const rows = await tx.query<{ expired: number }>(
    `with over as (
       select s.id from checkout_sessions s
       where s.merchant_id = $1 and s.state in (${mayExpire}) and s.expires_at < $2::timestamptz
         and not exists (
           select from collection_locks l
           join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
           where l.merchant_id = s.merchant_id and l.invoice_id = s.invoice_id and c.session_id = s.id)
       order by s.expires_at limit $3 for update of s skip locked
     ), expired as (
       update checkout_sessions s set state = 'expired', version = s.version + 1
       from over o where s.merchant_id = $1 and s.id = o.id
       returning s.id, s.invoice_id
     ), before as (
       select p.id, p.state from expired e
       join charges c on c.merchant_id = $1 and c.invoice_id = e.invoice_id and c.session_id = e.id
       join payment_intents p on p.merchant_id = $1 and p.id = c.intent_id
       where p.state = any($7::text[])
       order by p.id for no key update of p
     ), intents as (
       update payment_intents p set state = 'canceled', version = p.version + 1
       from before b where p.merchant_id = $1 and p.id = b.id
       returning p.id, b.state as from_state, p.version
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $4::date, 'payment_intent', id, version, from_state, 'canceled', $5::timestamptz, $6::uuid from intents
     )
     select count(*) as expired from expired`,
    [
      act.merchantId,
      endedBefore,
      limit,
      monthOf(act.at),
      instantText(act.at),
      act.id,
      intentStatesBefore('canceled'),
    ],
  );
  return rows[0]?.expired ?? 0;
}

export interface LastTrace {
  merchant: string;
  /** Instant of the last pass of trace that ended well; of the merchant's making where there was none. */
  at: string;
}

export async function lastTraces(db: Pick<Db, 'query'>): Promise<LastTrace[]> {
  return db.query<LastTrace>(
    `select m.code as merchant, coalesce(p.finished_at, m.created_at) as at
     from merchants m
     left join lateral (
       select finished_at from run_passes
       where merchant_id = m.id and job = 'trace' and outcome in ('done', 'attention')
       order by business_date desc, pass desc limit 1) p on true
     order by m.code`,
  );
}
