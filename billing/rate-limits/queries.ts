import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db } from '../db.ts';

/**
 * Takes the next slot of a shared pace and returns when it starts, now or later. One row for each sender, so that the
 * pace holds over all processes of all machines; the row is locked for this one statement only. A slot further away than
 * a day was taken by a clock that went wrong: it is forgotten, or nothing would be sent until that time comes.
 */
export async function takeSlot(
  db: Pick<Db, 'query'>,
  merchantId: number,
  name: string,
  now: Temporal.Instant,
  durationMs: number,
): Promise<string> {
  const rows = await db.query<{ starts_at: string }>(
    `insert into rate_limits (merchant_id, name, next_slot_at)
     values ($1, $2, $3::timestamptz + $4::float8 * interval '1 millisecond')
     on conflict (merchant_id, name) do update
     set next_slot_at = case when rate_limits.next_slot_at > $3::timestamptz + interval '1 day' then $3::timestamptz
                             else greatest(rate_limits.next_slot_at, $3::timestamptz) end
                        + $4::float8 * interval '1 millisecond'
     returning next_slot_at - $4::float8 * interval '1 millisecond' as starts_at`,
    [merchantId, name, instantText(now), durationMs],
  );
  return rows[0]?.starts_at ?? instantText(now);
}
