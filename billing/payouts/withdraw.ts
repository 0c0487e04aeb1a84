import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Ids } from '../ports.ts';
import { openFindings } from '../reconciliation/queries.ts';
import {
  changeIsSettled,
  deleteLines,
  type KnownPayout,
  movePayouts,
  settlePayoutFindings,
} from './queries.ts';

/** The gateway's list has it no more, and it was never posted: its lines are free for another. Returns 1, or 0 if it moved on. */
export async function withdrawPayout(tx: Tx, act: Act, payout: KnownPayout): Promise<number> {
  const moved = await movePayouts(tx, act, [payout.id], 'withdrawn');
  if (moved === 0) return 0;
  await deleteLines(tx, act.merchantId, payout.id);
  const named = { id: payout.id, payoutId: payout.payout_id, ours: 0, theirs: 0 };
  await settlePayoutFindings(tx, act.merchantId, act.at, named);
  return moved;
}

/**
 * The gateway says otherwise of a payout that is posted and told: nothing here is changed, and a person is called. False
 * once a person has settled exactly this.
 */
export async function payoutChanged(
  tx: Tx,
  work: { act: Act; ids: Ids; gateway: string },
  payout: KnownPayout,
  /** What the gateway calls its net now; null = it is gone from the list. */
  theirs: number | null,
): Promise<boolean> {
  const { act, ids } = work;
  const seen = { payoutId: payout.payout_id, ours: payout.net, theirs };
  if (await changeIsSettled(tx, act.merchantId, seen)) return false;
  const opened = await openFindings(tx, act.merchantId, act.at, [
    {
      id: ids.uuid(),
      source: 'payout',
      kind: 'payout_differs',
      subject: payout.payout_id,
      gateway: work.gateway,
      reportDate: payout.value_on,
      chargeId: null,
      invoiceId: null,
      ours: payout.net,
      theirs,
      currency: payout.currency,
      owner: 'gateway',
    },
  ]);
  if (opened === 0) return true;
  await recordAct(tx, act);
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: `PAYOUT_CHANGED ${payout.payout_id}`,
    message:
      `the payout ${payout.payout_id} of ${payout.value_on} is booked and told to the merchant with ${payout.net}; ` +
      `the gateway now ${theirs === null ? 'does not list it' : 'tells it otherwise'}`,
  });
  return true;
}
