import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';

export interface Parking {
  id: string;
  subject: 'invoice' | 'file' | 'message' | 'chunk';
  subjectId: string;
  /** Stable code: NO_RULE_FOR_CODE, TIE_OUT_OPEN ... */
  reason: string;
  context: Record<string, string | number | null>;
}

/** Sets things aside for a person. A subject that is already parked stays as it is. */
export async function park(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  parkings: readonly Parking[],
): Promise<number> {
  if (parkings.length === 0) return 0;
  return tx.run(
    `insert into parked_items (merchant_id, id, subject, subject_id, reason, context, parked_at)
     select $1, p.id, p.subject, p.subject_id, p.reason, p.context::jsonb, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[])
       as p(id, subject, subject_id, reason, context)
     on conflict (merchant_id, subject, subject_id) where resolved_at is null do nothing`,
    [
      merchantId,
      instantText(at),
      parkings.map((p) => p.id),
      parkings.map((p) => p.subject),
      parkings.map((p) => p.subjectId),
      parkings.map((p) => p.reason),
      parkings.map((p) => JSON.stringify(p.context)),
    ],
  );
}

export async function unpark(
  tx: Pick<Tx, 'run'>,
  merchantId: number,
  at: Temporal.Instant,
  subject: Parking['subject'],
  subjectIds: readonly string[],
  resolution: string,
): Promise<number> {
  return tx.run(
    `update parked_items set resolved_at = $2::timestamptz, resolution = $5
     where merchant_id = $1 and subject = $3 and subject_id = any($4::text[]) and resolved_at is null`,
    [merchantId, instantText(at), subject, subjectIds, resolution],
  );
}

export interface ParkedItem {
  merchant: string;
  subject: string;
  subject_id: string;
  reason: string;
  context: Record<string, unknown>;
  parked_at: string;
}

export async function parkedItems(db: Pick<Db, 'query'>): Promise<ParkedItem[]> {
  return db.query<ParkedItem>(
    `select m.code as merchant, p.subject, p.subject_id, p.reason, p.context, p.parked_at
     from parked_items p join merchants m on m.id = p.merchant_id
     where p.resolved_at is null order by p.parked_at`,
  );
}
