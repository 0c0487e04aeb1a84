import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { AlertLevel } from '../ports.ts';
import type { AlertSender } from './sender.ts';

export interface Alert {
  /** 0 = not of one merchant. */
  merchantId: number;
  level: AlertLevel;
  /**
   * The dedupe key: ten thousand occurrences of one cause are one open alert. Its first word stands in `causes.ts`; what
   * it happened to, and there may be ten thousand of those, stands in the message.
   */
  cause: string;
  message: string;
  occurrences?: number;
}

/** Opens an alert, or counts one more occurrence of the open one with the same cause, at the more urgent level of the two. */
export async function raiseAlert(
  tx: Pick<Tx, 'run'>,
  id: string,
  at: Temporal.Instant,
  alert: Alert,
): Promise<void> {
  await tx.run(
    `insert into alerts (merchant_id, id, level, cause, message, occurrences, first_at, last_at)
     values ($1, $2::uuid, $3, $4, $5, $6, $7::timestamptz, $7::timestamptz)
     on conflict (merchant_id, cause) where acknowledged_at is null and resolved_at is null
     do update set occurrences = alerts.occurrences + excluded.occurrences,
                   last_at = excluded.last_at, message = excluded.message,
                   level = case when 'now' in (alerts.level, excluded.level) then 'now'
                                when 'daily' in (alerts.level, excluded.level) then 'daily' else 'none' end`,
    [alert.merchantId, id, alert.level, alert.cause, alert.message, alert.occurrences ?? 1, instantText(at)],
  );
}

const quietHours = 24;

export function acknowledgedAndQuietSince(now: Temporal.Instant): Temporal.Instant {
  return now.subtract({ hours: quietHours });
}

export interface Standing {
  level: AlertLevel;
  cause: string;
  message: string;
  /** How many things stand so now. */
  occurrences: number;
}

/**
 * Opens alerts for what stands still, look after look. One that a person has acknowledged within the last day takes it in
 * silently: they know. After that it is told anew.
 */
export async function raiseStanding(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  standing: readonly (Standing & { id: string })[],
): Promise<void> {
  if (standing.length === 0) return;
  await tx.run(
    `with standing as (
       select * from unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::bigint[])
         as s(id, level, cause, message, occurrences)
     ), known as (
       update alerts a set last_at = $2::timestamptz, message = s.message, occurrences = s.occurrences
       from standing s
       where a.merchant_id = $1 and a.cause = s.cause and a.resolved_at is null
         and a.acknowledged_at > $3::timestamptz
       returning a.cause
     )
     insert into alerts (merchant_id, id, level, cause, message, occurrences, first_at, last_at)
     select $1, s.id, s.level, s.cause, s.message, s.occurrences, $2::timestamptz, $2::timestamptz
     from standing s where s.cause not in (select cause from known)
     on conflict (merchant_id, cause) where acknowledged_at is null and resolved_at is null
     do update set occurrences = excluded.occurrences, last_at = excluded.last_at, message = excluded.message,
                   level = case when 'now' in (alerts.level, excluded.level) then 'now' else excluded.level end`,
    [
      merchantId,
      instantText(at),
      instantText(acknowledgedAndQuietSince(at)),
      standing.map((each) => each.id),
      standing.map((each) => each.level),
      standing.map((each) => each.cause),
      standing.map((each) => each.message),
      standing.map((each) => each.occurrences),
    ],
  );
}

/** Closes alerts, also acknowledged ones, because it is proven that they are over: the next occurrence is news again. */
export async function resolveAlerts(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  causes: readonly string[],
  how: string,
): Promise<number> {
  if (causes.length === 0) return 0;
  return tx.run(
    `update alerts set resolved_at = $2::timestamptz, resolution = $4
     where merchant_id = $1 and cause = any($3::text[]) and resolved_at is null`,
    [merchantId, instantText(at), causes, how],
  );
}

export interface OpenAlert {
  merchant: string;
  level: AlertLevel;
  cause: string;
  message: string;
  occurrences: number;
  first_at: string;
  last_at: string;
  /** How often it was sent at once; daily ones stand in the digest. */
  notices: number;
}

const openColumns = `coalesce(m.code, '') as merchant, a.level, a.cause, a.message, a.occurrences, a.first_at, a.last_at, a.notices`;

export async function openAlerts(db: Pick<Db, 'query'>): Promise<OpenAlert[]> {
  return db.query<OpenAlert>(
    `select ${openColumns}
     from alerts a left join merchants m on m.id = a.merchant_id
     where a.acknowledged_at is null and a.resolved_at is null
     order by a.level = 'now' desc, a.last_at desc`,
  );
}

/** Closes open alerts with this cause; the next occurrence opens a new one. Returns how many were open. */
export async function acknowledgeAlerts(
  db: Pick<Db, 'run'>,
  at: Temporal.Instant,
  cause: string,
  merchant: string | null,
  by: string,
): Promise<number> {
  return db.run(
    `update alerts a set acknowledged_at = $1::timestamptz, acknowledged_by = $4
     where a.cause = $2 and a.acknowledged_at is null and a.resolved_at is null
       and ($3::text is null or a.merchant_id = (select id from merchants where code = $3))`,
    [instantText(at), cause, merchant, by],
  );
}

export interface Digest {
  notice: string;
  asOf: Temporal.Instant;
}

/** Merchants (0 = none) with something to plan or to send. One statement, so that a look each minute costs nothing. */
export async function merchantsToNotify(
  db: Pick<Db, 'query'>,
  now: Temporal.Instant,
  quietSince: Temporal.Instant,
  digest: Digest | null,
): Promise<number[]> {
  const rows = await db.query<{ merchant_id: number }>(
    `select distinct merchant_id from (
       select merchant_id from alerts
       where acknowledged_at is null and resolved_at is null and level = 'now'
         and (noticed_at is null or noticed_at <= $2::timestamptz)
       union all
       select merchant_id from alert_deliveries
       where state = 'open' and try_at <= $1::timestamptz and (lease_until is null or lease_until < seikyu_now())
       union all
       select 0 where $3::text is not null
         and exists (select from alerts where acknowledged_at is null and resolved_at is null
                       and level <> 'none' and first_at <= $4::timestamptz)
         and not exists (select from alert_deliveries where merchant_id = 0 and notice = $3)
     ) due order by merchant_id`,
    [
      instantText(now),
      instantText(quietSince),
      digest?.notice ?? null,
      digest === null ? null : instantText(digest.asOf),
    ],
  );
  return rows.map((row) => row.merchant_id);
}

/** Each channel has its row, or none: one that was planned by another process stays as it is. */
export async function planDigest(
  tx: Pick<Tx, 'run'>,
  digest: Digest,
  channels: readonly string[],
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `insert into alert_deliveries (merchant_id, notice, channel, as_of, state, try_at)
     select 0, $1, c, $2::timestamptz, 'open', $4::timestamptz from unnest($3::text[]) as channels(c)
     where exists (select from alerts where acknowledged_at is null and resolved_at is null
                     and level <> 'none' and first_at <= $2::timestamptz)
     on conflict do nothing`,
    [digest.notice, instantText(digest.asOf), channels, instantText(at)],
  );
}

export interface AlertToPlan {
  id: string;
  notices: number;
  noticed_at: string | null;
}

/** Locks open alerts for a person now that were not told since then; those that another process is at are its. */
export async function lockAlertsToPlan(
  tx: Tx,
  merchantId: number,
  quietSince: Temporal.Instant,
  limit: number,
): Promise<AlertToPlan[]> {
  return tx.query<AlertToPlan>(
    `select id, notices, noticed_at from alerts
     where merchant_id = $1 and acknowledged_at is null and resolved_at is null and level = 'now'
       and (noticed_at is null or noticed_at <= $2::timestamptz)
     order by first_at, id limit $3 for update skip locked`,
    [merchantId, instantText(quietSince), limit],
  );
}

/** The next notice of each alert, to the channels that have no earlier one of it still to send. */
export async function planNotices(
  tx: Tx,
  merchantId: number,
  alertIds: readonly string[],
  channels: readonly string[],
  at: Temporal.Instant,
): Promise<void> {
  await tx.run(
    `with planned as (
       insert into alert_deliveries (merchant_id, notice, channel, alert_id, as_of, state, try_at)
       select a.merchant_id, a.id || '.' || (a.notices + 1), c, a.id, $4::timestamptz, 'open', $4::timestamptz
       from alerts a, unnest($3::text[]) as channels(c)
       where a.merchant_id = $1 and a.id = any($2::uuid[])
         and not exists (select from alert_deliveries d where d.merchant_id = a.merchant_id and d.alert_id = a.id
                           and d.channel = c and d.state = 'open')
       returning alert_id
     )
     update alerts a set notices = a.notices + 1, noticed_at = $4::timestamptz
     where a.merchant_id = $1 and a.id in (select alert_id from planned)`,
    [merchantId, alertIds, channels, instantText(at)],
  );
}

export interface ClaimedDelivery {
  notice: string;
  alert_id: string | null;
  as_of: string;
  /** Grows with each claim: whoever holds an older one writes no outcome. */
  attempts: number;
}

/** Takes the next notice of a channel whose time has come and that nobody is at. */
export async function claimDelivery(
  db: Pick<Db, 'query'>,
  merchantId: number,
  channel: AlertSender['channel'],
  now: Temporal.Instant,
  leaseSeconds: number,
): Promise<ClaimedDelivery | undefined> {
  const [row] = await db.query<ClaimedDelivery>(
    `update alert_deliveries d
     set attempts = attempts + 1, lease_until = seikyu_now() + make_interval(secs => $4::float8)
     where d.merchant_id = $1 and d.channel = $2 and d.notice = (
       select notice from alert_deliveries
       where merchant_id = $1 and channel = $2 and state = 'open' and try_at <= $3::timestamptz
         and (lease_until is null or lease_until < seikyu_now())
       order by try_at, notice for update skip locked limit 1)
     returning d.notice, d.alert_id, d.as_of, d.attempts`,
    [merchantId, channel, instantText(now), leaseSeconds],
  );
  return row;
}

/** What a notice tells: its alert while it is open, or for a digest what was open by then and still is. Empty: nothing any more. */
export async function toldBy(
  db: Pick<Db, 'query'>,
  merchantId: number,
  delivery: Pick<ClaimedDelivery, 'alert_id' | 'as_of'>,
): Promise<OpenAlert[]> {
  const where =
    delivery.alert_id === null
      ? `$1::int = 0 and a.level <> 'none' and a.first_at <= $2::timestamptz`
      : `a.merchant_id = $1 and a.id = $2::uuid`;
  return db.query<OpenAlert>(
    `select ${openColumns}
     from alerts a left join merchants m on m.id = a.merchant_id
     where ${where} and a.acknowledged_at is null and a.resolved_at is null
     order by a.level = 'now' desc, m.code, a.first_at, a.cause`,
    [merchantId, delivery.alert_id ?? delivery.as_of],
  );
}

export interface DeliveryOutcome {
  notice: string;
  channel: AlertSender['channel'];
  /** As claimed. */
  attempts: number;
  /** open = to be tried again at `tryAt`. */
  state: 'open' | 'sent' | 'dropped';
  at: Temporal.Instant;
  tryAt: Temporal.Instant | null;
  failure: string | null;
}

/** Compare-and-set on the claim; false = it was claimed anew meanwhile. */
export async function settleDelivery(
  db: Pick<Db, 'run'>,
  merchantId: number,
  outcome: DeliveryOutcome,
): Promise<boolean> {
  const settled = await db.run(
    `update alert_deliveries
     set state = $5, failure = $7, lease_until = null, try_at = coalesce($8::timestamptz, try_at),
         decided_at = case when $5 = 'open' then null else $6::timestamptz end
     where merchant_id = $1 and notice = $2 and channel = $3 and attempts = $4 and state = 'open'`,
    [
      merchantId,
      outcome.notice,
      outcome.channel,
      outcome.attempts,
      outcome.state,
      instantText(outcome.at),
      outcome.failure,
      outcome.tryAt === null ? null : instantText(outcome.tryAt),
    ],
  );
  return settled === 1;
}
