import type { Tx } from '../db.ts';
import { type Act, instantText, monthOf } from './act.ts';

/** Writes the act's row; a second write of the same act changes nothing. */
export async function recordAct(tx: Tx, act: Act): Promise<void> {
  await tx.run(
    `insert into acts (merchant_id, month, id, kind, actor, at)
     values ($1, $2::date, $3::uuid, $4, $5, $6::timestamptz)
     on conflict do nothing`,
    [act.merchantId, monthOf(act.at), act.id, act.kind, act.actor, instantText(act.at)],
  );
}
