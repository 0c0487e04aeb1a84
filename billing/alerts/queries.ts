import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { AlertLevel } from '../ports.ts';

export interface Alert {
  /** 0 = not of one merchant. */
  merchantId: number;
  level: AlertLevel;
  /** The dedupe key: ten thousand occurrences of one cause are one open alert. */
  cause: string;
  message: string;
  occurrences?: number;
}

/** Opens an alert, or counts one more occurrence of the open one with the same cause. */
export async function raiseAlert(
  tx: Pick<Tx, 'run'>,
  id: string,
  at: Temporal.Instant,
  alert: Alert,
): Promise<void> {
  await tx.run(
    `insert into alerts (merchant_id, id, level, cause, message, occurrences, first_at, last_at)
     values ($1, $2::uuid, $3, $4, $5, $6, $7::timestamptz, $7::timestamptz)
     on conflict (merchant_id, cause) where acknowledged_at is null
     do update set occurrences = alerts.occurrences + excluded.occurrences,
                   last_at = excluded.last_at, message = excluded.message`,
    [alert.merchantId, id, alert.level, alert.cause, alert.message, alert.occurrences ?? 1, instantText(at)],
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
}

export async function openAlerts(db: Pick<Db, 'query'>): Promise<OpenAlert[]> {
  return db.query<OpenAlert>(
    `select coalesce(m.code, '') as merchant, a.level, a.cause, a.message, a.occurrences, a.first_at, a.last_at
     from alerts a left join merchants m on m.id = a.merchant_id
     where a.acknowledged_at is null
     order by a.level = 'now' desc, a.last_at desc`,
  );
}

/** Closes open alerts with this cause; the next occurrence opens a new one. Returns how many were open. */
export async function acknowledgeAlerts(
  db: Pick<Db, 'run'>,
  at: Temporal.Instant,
  cause: string,
  merchant: string | null,
): Promise<number> {
  return db.run(
    `update alerts a set acknowledged_at = $1::timestamptz
     where a.cause = $2 and a.acknowledged_at is null
       and ($3::text is null or a.merchant_id = (select id from merchants where code = $3))`,
    [instantText(at), cause, merchant],
  );
}
