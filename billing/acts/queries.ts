import type { Tx } from '../db.ts';
import { type Act, instantText, monthOf } from './act.ts';

/**
 * Writes the act's row; a second write of the same act changes nothing. Belongs into every transaction that writes rows of
 * the act: each queues it to be sealed, and a sealer leaves an act alone while a transaction has it in its hands.
 */
export async function recordAct(tx: Tx, act: Act): Promise<void> {
  await tx.run(
    `with recorded as (
       insert into acts (merchant_id, month, id, kind, actor, at)
       values ($1, $2::date, $3::uuid, $4, $5, $6::timestamptz)
       on conflict do nothing
     )
     insert into unsealed_acts (merchant_id, act_id, kind, actor, at)
     values ($1, $3::uuid, $4, $5, $6::timestamptz)
     on conflict (merchant_id, act_id) do update set at = excluded.at`,
    [act.merchantId, monthOf(act.at), act.id, act.kind, act.actor, instantText(act.at)],
  );
}
