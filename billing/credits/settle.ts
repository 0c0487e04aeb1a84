import { instantText } from '../acts/act.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db, Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { creditPolicyOf } from '../merchants/settings.ts';
import type { Clock } from '../ports.ts';
import {
  askAboutUnknown,
  type GiveBackPorts,
  type GiveBackWork,
  giveBack,
  inTransaction,
  tellOfUnknown,
} from '../refunds/give-back.ts';
import { refundsToAsk } from '../refunds/queries.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import { billsCovered, countToGiveBack, lockCreditsToGiveBack } from './queries.ts';
import { payByCredit } from './use.ts';

const billsAtOnce = 500;
/** What stands on a refund that nobody asked for by hand. */
const byPolicy = { by: 'credit: refund', reason: 'the merchant’s settings give surpluses back' };

export type CreditWork = GiveBackWork & { businessDate: string };

/** Whether there is anything for `settleCredits` to do. */
export async function creditsWait(
  ports: { db: Db; clock: Clock },
  merchant: Merchant,
  businessDate: string,
): Promise<boolean> {
  const { db, clock } = ports;
  if ((await refundsToAsk(db, merchant.id, instantText(clock.now()), 1)).length > 0) return true;
  switch (creditPolicyOf(merchant.settings)) {
    case 'keep':
      return false;
    case 'next_bill':
      return (await billsCovered(db, merchant.id, businessDate, 1)).length > 0;
    case 'refund':
      return (await countToGiveBack(db, merchant.id)) > 0;
  }
}

/**
 * Does with credits what the merchant's settings say: pays bills with them, or gives them back. Asks about refunds that have
 * no outcome first, also about those that a person began. Each step finds its work by what is left.
 */
export async function settleCredits(ports: GiveBackPorts, work: CreditWork): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  const add = (name: string, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  const { merchant } = work;
  // Credits may have been used, and money given back, in the time that a database has forgotten.
  await refuseInSafeMode(ports.db);
  await askAboutUnknown(ports, work, add);
  const policy = creditPolicyOf(merchant.settings);
  if (policy === 'next_bill') add('paid_by_credit', await payBills(ports, work));
  if (policy === 'refund') {
    const lock = (tx: Tx, limit: number) => lockCreditsToGiveBack(tx, merchant.id, limit);
    await giveBack(ports, work, { askedFor: byPolicy, lock }, add);
  }
  await tellOfUnknown(ports, work);
  return counts;
}

async function payBills(ports: GiveBackPorts, work: CreditWork): Promise<number> {
  const { merchant, businessDate, stop, progress } = work;
  for (let paid = 0; ; ) {
    stop.throwIfAborted();
    // A customer's next bill only when the one before is paid: what is left is known then.
    const bills = await billsCovered(ports.db, merchant.id, businessDate, billsAtOnce);
    if (bills.length === 0) return paid;
    const now = await inTransaction(ports, work, async (tx, act) => {
      await refuseInSafeMode(tx);
      const today = businessDateOf(act.at, merchant.settings.timezone).toString();
      return payByCredit(tx, ports.ids, act, { businessDate, today }, bills);
    });
    if (now === 0) return paid;
    paid += now;
    progress(paid, null, 'bills paid by credit');
  }
}
