import { Temporal } from 'temporal-polyfill';
import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { resolveAlerts } from '../alerts/queries.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { lastRequested, requestRun } from '../runs/queries.ts';
import { planFor } from './plan.ts';
import { type ApprovedPlan, approvePlanned, forgetApproved, lockMerchant } from './queries.ts';

/** First word is all: it stands for the merchant's charges of whatever day. */
export const waitingCause = 'CHARGES_WAIT';
/** So long it stays written down which bills an approval was about. */
const keptDays = 31;

export interface TypedBack {
  charges: number;
  amount: number;
}

/**
 * Approves what a day's run is to charge and nobody has approved yet, by the count and sum that a person has read and typed
 * back. The bills are written down: one that comes to the plan later waits for an approval of its own, and one that is gone
 * by then is not charged. Where a run has waited, it is asked for again. Refusals NOTHING_TO_APPROVE, PLAN_CHANGED.
 */
export async function approveCharges(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  gateway: string,
  businessDate: string,
  typed: TypedBack,
  actor: string,
): Promise<ApprovedPlan> {
  const act = await commandAct(ports, merchant.id, actor);
  const { at } = act;
  return ports.db.transaction(async (tx) => {
    await lockMerchant(tx, merchant.id);
    const approved = await approvePlanned(tx, planFor(merchant, gateway, businessDate), act);
    if (approved === undefined) {
      throw new Refusal('NOTHING_TO_APPROVE', `no charge of ${businessDate} waits for an approval`, {
        next: 'Look at the plan: seikyu charging status',
        context: { businessDate },
      });
    }
    if (approved.charges !== typed.charges || approved.amount !== typed.amount) {
      throw new Refusal(
        'PLAN_CHANGED',
        `${approved.charges} charges of ${approved.amount} wait for an approval, not ${typed.charges} of ${typed.amount}`,
        {
          next: 'Look at the plan again, and approve what it says now; nothing was approved.',
          context: { charges: approved.charges, amount: approved.amount },
        },
      );
    }
    const oldest = Temporal.PlainDate.from(businessDate).subtract({ days: keptDays }).toString();
    await forgetApproved(tx, merchant.id, oldest);
    await recordAct(tx, {
      ...act,
      actor: `${actor}: approved ${approved.charges} charges of ${approved.amount} on ${businessDate}`,
    });
    await resolveAlerts(tx, merchant.id, at, [waitingCause], 'approved');
    const wasAsked = (await lastRequested(tx, merchant.id, businessDate)).has('charge');
    if (wasAsked) await requestRun(tx, { merchantId: merchant.id, job: 'charge', businessDate }, at, true);
    return approved;
  });
}
