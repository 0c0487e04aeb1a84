import type { Act } from '../acts/act.ts';
import { businessDateOf } from '../calendar/hours.ts';
import { giveCreditsBack } from '../credits/use.ts';
import type { Tx } from '../db.ts';
import { cancelInvoices } from '../invoices/cancel.ts';
import { isFinal } from '../invoices/invoice.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { insertMessages } from '../messages/queries.ts';
import {
  askAboutUnknown,
  type GiveBackPorts,
  type GiveBackWork,
  giveBack,
  inTransaction,
  tellOfUnknown,
} from '../refunds/give-back.ts';
import { lockRefundable } from '../refunds/queries.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import {
  enterBills,
  finishRecall,
  finishRefunded,
  moveBills,
  runningRecalls,
  toldBySms,
  waitingBills,
  withMoney,
} from './queries.ts';
import { type Recall, recallNotice } from './recall.ts';

export type CarriedOn = Record<string, number>;

const billsAtOnce = 2_000;

/**
 * Carries on every recall of a merchant as far as it goes now: takes bills in, cancels what is untouched, asks about refunds
 * without an outcome, gives money back. Each step is a transaction of its own that finds its work by what is left, so it may
 * be killed anywhere and run again. What waits for a charge or a refund without an outcome is left for the next time.
 */
export async function carryOnRecalls(ports: GiveBackPorts, work: GiveBackWork): Promise<CarriedOn> {
  const counts: CarriedOn = {};
  const add = (name: string, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  const recalls = await runningRecalls(ports.db, work.merchant.id);
  if (recalls.length === 0) return counts;
  // Bills may have been paid, and money given back, in the time that a database has forgotten.
  await refuseInSafeMode(ports.db);
  await askAboutUnknown(ports, work, add);
  for (const recall of recalls) {
    await takeIn(ports, work, recall);
    add('cancelled', await judgeWaiting(ports, work, recall));
    await giveBack(
      ports,
      work,
      {
        askedFor: { recallId: recall.id },
        lock: (tx, limit) => lockRefundable(tx, work.merchant.id, recall.id, limit),
      },
      add,
    );
    await inTransaction(ports, work, async (tx, act) => {
      await finishRefunded(tx, act.merchantId, recall.id);
      if (await finishRecall(tx, act, recall.id)) add('recalls_done', 1);
    });
  }
  await tellOfUnknown(ports, work);
  add('recalls_open', (await runningRecalls(ports.db, work.merchant.id)).length);
  return counts;
}

async function takeIn(ports: GiveBackPorts, work: GiveBackWork, recall: Recall): Promise<void> {
  let taken = 0;
  while (!recall.all_entered) {
    work.stop.throwIfAborted();
    taken += await inTransaction(ports, work, (tx, act) => enterBills(tx, act, recall, billsAtOnce));
    work.progress(taken, recall.bills, 'bills taken back');
  }
}

async function judgeWaiting(ports: GiveBackPorts, work: GiveBackWork, recall: Recall): Promise<number> {
  let cancelled = 0;
  let judged = 0;
  for (let after: string | null = null; ; ) {
    work.stop.throwIfAborted();
    const ids: string[] = await waitingBills(ports.db, work.merchant.id, recall.id, after, billsAtOnce);
    after = ids.at(-1) ?? null;
    if (after === null) return cancelled;
    cancelled += await inTransaction(ports, work, (tx, act) => judge(tx, act, work.merchant, ids));
    judged += ids.length;
    work.progress(judged, recall.bills, 'bills looked at');
  }
}

/** Bills that nobody can pay any more: cancelled if owed, given back if paid; a charge under way is waited for. */
async function judge(tx: Tx, act: Act, merchant: Merchant, waiting: readonly string[]): Promise<number> {
  const bills = (await lockInvoices(tx, merchant.id, waiting)).filter(
    (bill) => isFinal(bill.state) || bill.locked_by === null,
  );
  const { timezone } = merchant.settings;
  const today = businessDateOf(act.at, timezone).toString();
  const ids = bills.map((bill) => bill.id);
  // First: what comes free may be money of another of these bills.
  const uncredited = await giveCreditsBack(tx, act, today, ids);
  const money = await withMoney(tx, merchant.id, ids);
  const owed = bills.filter((bill) => !isFinal(bill.state));
  await cancelInvoices(
    tx,
    act,
    { today, timezone },
    owed.map((bill) => bill.id),
    'recalled',
  );
  await moveBills(
    tx,
    merchant.id,
    bills.map(({ id, state }) => {
      if (money.has(id)) return { invoiceId: id, to: 'refunding', outcome: null };
      if (uncredited.has(id)) return { invoiceId: id, to: 'done', outcome: 'refunded' };
      return { invoiceId: id, to: 'done', outcome: isFinal(state) ? 'untouched' : 'cancelled' };
    }),
  );
  // Whom the merchant's own cancellation reached before has nothing more to hear.
  const wrong = bills.filter((bill) => bill.state !== 'cancelled' || money.has(bill.id));
  const told = await toldBySms(
    tx,
    merchant.id,
    wrong.map((bill) => bill.id),
  );
  await insertMessages(
    tx,
    merchant.id,
    act.at,
    told.map((invoiceId) => ({
      invoiceId,
      step: recallNotice,
      plannedOn: today,
      skipCode: null,
      linkVersion: null,
    })),
  );
  return owed.length;
}
