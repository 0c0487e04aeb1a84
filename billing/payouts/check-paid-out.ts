import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Tx } from '../db.ts';
import type { Ids } from '../ports.ts';
import { idsOfDays } from '../reconciliation/compare.ts';
import type { NewFinding } from '../reconciliation/findings.ts';
import { openFindings } from '../reconciliation/queries.ts';
import { paymentsNotPaidOut, payoutsCheckedTo, setPayoutsChecked, type UnpaidOut } from './queries.ts';

/** A gateway that pays out by the month needs some 40 days at most. */
export const paidOutWithinDays = 45;

const paymentsPerBatch = 1_000;

/**
 * Looks for payments that no payout has taken for so long, each day's once: what is found stays an open finding until a
 * payout takes it or a person settles it. Returns how many are new.
 */
export async function checkPaidOut(
  tx: Tx,
  work: {
    act: Act;
    ids: Ids;
    gateway: string;
    timezone: string;
    /** The merchant's first day, YYYY-MM-DD. */
    since: string;
    businessDate: string;
  },
): Promise<number> {
  const { act, ids, gateway } = work;
  const { merchantId } = act;
  const day = (text: string) => Temporal.PlainDate.from(text);
  const to = day(work.businessDate).subtract({ days: paidOutWithinDays }).toString();
  const after =
    (await payoutsCheckedTo(tx, merchantId, gateway)) ?? day(work.since).subtract({ days: 1 }).toString();
  if (to <= after) return 0;
  const { fromId, untilId } = idsOfDays({ from: day(after).add({ days: 1 }).toString(), to }, work.timezone);
  let opened = 0;
  let afterId = '00000000-0000-0000-0000-000000000000';
  for (;;) {
    const days = { after, to, fromId, untilId };
    const found: UnpaidOut[] = await paymentsNotPaidOut(
      tx,
      merchantId,
      gateway,
      days,
      afterId,
      paymentsPerBatch,
    );
    opened += await openFindings(
      tx,
      merchantId,
      act.at,
      found.map(
        (payment): NewFinding => ({
          id: ids.uuid(),
          source: 'payout',
          kind: 'not_paid_out',
          subject: payment.gateway_charge_id ?? payment.id,
          gateway,
          reportDate: payment.collected_on,
          chargeId: payment.id,
          // The bill is paid whatever the gateway does with the money.
          invoiceId: null,
          ours: payment.amount,
          theirs: null,
          currency: payment.currency,
          owner: 'gateway',
        }),
      ),
    );
    const last = found.at(-1);
    if (last === undefined || found.length < paymentsPerBatch) break;
    afterId = last.id;
  }
  await setPayoutsChecked(tx, merchantId, gateway, to);
  if (opened > 0) await recordAct(tx, act);
  return opened;
}
