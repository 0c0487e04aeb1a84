import type { ChargeState } from '../charges/charge.ts';
import type { Db, Tx } from '../db.ts';

export interface OpenCharge {
  id: string;
  state: ChargeState;
  origin: 'link' | 'auto';
  gateway: string;
  amount: number;
  currency: string;
  started_at: string;
  deadline_at: string;
  asks: number;
  hosted_page_url: string | null;
  /** When its hosted page ends; null = it has none. */
  page_ends_at: string | null;
}

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
           from collection_locks where merchant_id = $1 and ask_at <= $2::timestamptz) numbered
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
            c.hosted_page_url, s.expires_at as page_ends_at
     from collection_locks l
     join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
     left join checkout_sessions s on s.merchant_id = c.merchant_id and s.id = c.session_id
     where l.merchant_id = $1 and l.ask_at <= $2::timestamptz
       and l.charge_id between $3::uuid and $4::uuid and ($5::uuid is null or l.charge_id > $5::uuid)
     order by l.charge_id limit $6`,
    [merchantId, now, range.from, range.to, after, limit],
  );
}

export async function countToAsk(db: Pick<Db, 'query'>, merchantId: number, now: string): Promise<number> {
  const [row] = await db.query<{ due: number }>(
    `select count(*) as due from collection_locks where merchant_id = $1 and ask_at <= $2::timestamptz`,
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

/** Runs whose worker fell silent long ago and that nobody took up. Leases live on the database's own clock. */
export async function silentRuns(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  silentSeconds: number,
): Promise<{ job: string; business_date: string }[]> {
  return tx.query<{ job: string; business_date: string }>(
    `select job, business_date from runs
     where merchant_id = $1 and state = 'running' and lease_until < seikyu_now() - make_interval(secs => $2::float8)
     order by business_date, job limit 100`,
    [merchantId, silentSeconds],
  );
}

export async function filesLoadingSince(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  before: string,
): Promise<{ id: string; name: string }[]> {
  return tx.query<{ id: string; name: string }>(
    `select id, name from billing_files
     where merchant_id = $1 and state = 'loading' and fetched_at < $2::timestamptz order by fetched_at limit 100`,
    [merchantId, before],
  );
}

export async function messagesSendingSince(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  before: string,
): Promise<number> {
  const [row] = await tx.query<{ stuck: number }>(
    `select count(*) as stuck from messages
     where merchant_id = $1 and state = 'sending' and claimed_at < $2::timestamptz`,
    [merchantId, before],
  );
  return row?.stuck ?? 0;
}

/** Open bills that no job would ever look at again: nothing comes next and nothing is under way. */
export async function forgottenBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
): Promise<{ forgotten: number; example: string | null }> {
  const [row] = await tx.query<{ forgotten: number; example: string | null }>(
    `select count(*) as forgotten, min(i.billing_number) as example
     from invoices i
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where i.merchant_id = $1 and i.state = 'open'
       and not exists (select from agenda a where a.merchant_id = i.merchant_id and a.invoice_id = i.id)`,
    [merchantId],
  );
  return row ?? { forgotten: 0, example: null };
}

/** Open bills whose next step was due before a day and that nobody is collecting: the job that should look does not get to them. */
export async function lateBills(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  dueBefore: string,
): Promise<{ late: number; example: string | null }> {
  const [row] = await tx.query<{ late: number; example: string | null }>(
    `select count(*) as late, min(i.billing_number) as example
     from agenda a
     join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id and i.state = 'open'
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where a.merchant_id = $1 and a.act_on < $2::date
       and not exists (select from collection_locks l where l.merchant_id = a.merchant_id and l.invoice_id = a.invoice_id)`,
    [merchantId, dueBefore],
  );
  return row ?? { late: 0, example: null };
}

/** Runs since a business date whose last passes all failed: trying again does not help them. */
export async function failingRuns(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  since: string,
  passes: number,
): Promise<{ job: string; business_date: string }[]> {
  return tx.query<{ job: string; business_date: string }>(
    `select job, business_date
     from (select job, business_date, outcome,
                  row_number() over (partition by job, business_date order by pass desc) as place
           from run_passes
           where merchant_id = $1 and business_date >= $2::date and outcome is not null) ended
     where place <= $3
     group by job, business_date
     having count(*) = $3 and bool_and(outcome = 'failed')
     order by business_date, job limit 100`,
    [merchantId, since, passes],
  );
}
