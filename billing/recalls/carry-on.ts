import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db, Tx } from '../db.ts';
import type { Gateway } from '../gateways/gateway.ts';
import { cancelInvoices } from '../invoices/cancel.ts';
import { isFinal } from '../invoices/invoice.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { insertMessages } from '../messages/queries.ts';
import type { Clock, Crash, Ids } from '../ports.ts';
import { askAboutRefunds, callRefunds } from '../refunds/call.ts';
import {
  countLongUnknown,
  insertRefunds,
  lockRefundable,
  refundsById,
  refundsToAsk,
} from '../refunds/queries.ts';
import { recordRefunds } from '../refunds/record-refunds.ts';
import type { LearnedRefund, OpenRefund } from '../refunds/refund.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
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

export interface CarryOnPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  crash: Crash;
  gateway: Gateway;
}

export interface CarryOnWork {
  merchant: Merchant;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
  progress(done: number, total: number | null, what: string): void;
}

export type CarriedOn = Record<string, number>;

const billsAtOnce = 2_000;
/** Open refunds never exceed this: so many unknowns a killed process leaves at most. */
const refundsAtOnce = 32;
/** No call starts later than this after its intent was committed. */
const intentLivesMs = 60_000;
/** So many batches in a row that the gateway took nothing of: the next pass tries again. */
const busyBatchesAtMost = 3;
/** After so many questions about one refund a person should know. */
const asksUntilAlert = 10;

/**
 * Carries on every recall of a merchant as far as it goes now: takes bills in, cancels what is untouched, asks about refunds
 * without an outcome, gives money back. Each step is a transaction of its own that finds its work by what is left, so it may
 * be killed anywhere and run again. What waits for a charge or a refund without an outcome is left for the next time.
 */
export async function carryOnRecalls(ports: CarryOnPorts, work: CarryOnWork): Promise<CarriedOn> {
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
    await giveBack(ports, work, recall, add);
    await inTransaction(ports, work, async (tx, act) => {
      await finishRefunded(tx, act.merchantId, recall.id);
      if (await finishRecall(tx, act, recall.id)) add('recalls_done', 1);
    });
  }
  await tellOfUnknown(ports, work);
  add('recalls_open', (await runningRecalls(ports.db, work.merchant.id)).length);
  return counts;
}

async function takeIn(ports: CarryOnPorts, work: CarryOnWork, recall: Recall): Promise<void> {
  let taken = 0;
  while (!recall.all_entered) {
    work.stop.throwIfAborted();
    taken += await inTransaction(ports, work, (tx, act) => enterBills(tx, act, recall, billsAtOnce));
    work.progress(taken, recall.bills, 'bills taken back');
  }
}

async function judgeWaiting(ports: CarryOnPorts, work: CarryOnWork, recall: Recall): Promise<number> {
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
async function judge(tx: Tx, act: Act, merchant: Merchant, ids: readonly string[]): Promise<number> {
  const bills = (await lockInvoices(tx, merchant.id, ids)).filter(
    (bill) => isFinal(bill.state) || bill.locked_by === null,
  );
  const money = await withMoney(
    tx,
    merchant.id,
    bills.map((bill) => bill.id),
  );
  const owed = bills.filter((bill) => !isFinal(bill.state));
  const { timezone } = merchant.settings;
  const today = businessDateOf(act.at, timezone).toString();
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

type Add = (name: string, count: number) => void;

async function giveBack(ports: CarryOnPorts, work: CarryOnWork, recall: Recall, add: Add): Promise<void> {
  let busy = 0;
  let done = 0;
  while (busy < busyBatchesAtMost) {
    work.stop.throwIfAborted();
    const refunds = await claim(ports, work, recall);
    if (refunds.length === 0) return;
    await ports.crash('refund.after_intent');
    const learned = await callRefunds(ports, work.merchant.code, refunds);
    await ports.crash('refund.after_gateway');
    const recorded = await record(ports, work, learned, add);
    await ports.crash('refund.after_outcome');
    busy = recorded.canceled === refunds.length ? busy + 1 : 0;
    done += recorded.refunded;
    work.progress(done, null, 'refunds');
    // A gateway that answers nothing is not asked the same of everybody.
    if (recorded.unknown === refunds.length) return;
  }
}

/** The intents of one batch, committed before any call. */
async function claim(ports: CarryOnPorts, work: CarryOnWork, recall: Recall): Promise<OpenRefund[]> {
  return inTransaction(ports, work, async (tx, act) => {
    const refundable = await lockRefundable(tx, act.merchantId, recall.id, refundsAtOnce);
    if (refundable.length === 0) {
      // Nothing was to be had: because there is nothing, or because nothing may leave.
      await refuseInSafeMode(tx);
      return [];
    }
    const refunds = refundable.map((each) => ({ ...each, id: ports.ids.uuid() }));
    const deadline = act.at.add({ milliseconds: intentLivesMs });
    await insertRefunds(tx, act, recall.id, refunds, {
      deadlineAt: instantText(deadline),
      // Not before the call must be over.
      askAt: instantText(deadline.add({ milliseconds: ports.gateway.semantics.callDeadlineMs })),
    });
    return refundsById(
      tx,
      act.merchantId,
      refunds.map((refund) => refund.id),
    );
  });
}

async function askAboutUnknown(ports: CarryOnPorts, work: CarryOnWork, add: Add): Promise<void> {
  for (;;) {
    work.stop.throwIfAborted();
    await ports.clock.refresh();
    const now = instantText(ports.clock.now());
    const refunds = await refundsToAsk(ports.db, work.merchant.id, now, refundsAtOnce);
    if (refunds.length === 0) return;
    await ports.crash('refund.before_lookup');
    const learned = await askAboutRefunds(ports, work.merchant.code, refunds);
    await ports.crash('refund.after_lookup');
    await record(ports, work, learned, add);
  }
}

async function record(ports: CarryOnPorts, work: CarryOnWork, learned: LearnedRefund[], add: Add) {
  const recorded = await inTransaction(ports, work, async (tx, act) => {
    const { timezone } = work.merchant.settings;
    const outcome = await recordRefunds(tx, { act, ids: ports.ids, timezone, learned });
    await moveBills(
      tx,
      act.merchantId,
      outcome.refusedBills.map((invoiceId) => ({ invoiceId, to: 'refused', outcome: null })),
    );
    return outcome;
  });
  add('refunded', recorded.refunded);
  add('refunds_refused', recorded.refused);
  add('refunds_unknown', recorded.unknown);
  return recorded;
}

async function tellOfUnknown(ports: CarryOnPorts, work: CarryOnWork): Promise<void> {
  await inTransaction(ports, work, async (tx, { merchantId, at }) => {
    const long = await countLongUnknown(tx, merchantId, asksUntilAlert);
    if (long === 0) {
      await resolveAlerts(tx, merchantId, at, ['REFUND_UNKNOWN'], 'no refund is unknown for so long');
      return;
    }
    await raiseStanding(tx, merchantId, at, [
      {
        id: ports.ids.uuid(),
        level: 'now',
        cause: 'REFUND_UNKNOWN',
        message: `${long} refunds have no conclusive outcome after ${asksUntilAlert} questions`,
        occurrences: long,
      },
    ]);
  });
}

async function inTransaction<T>(
  ports: Pick<CarryOnPorts, 'db' | 'clock'>,
  work: CarryOnWork,
  write: (tx: Tx, act: Act) => Promise<T>,
): Promise<T> {
  await ports.clock.refresh();
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    const act = { ...work.act, at: ports.clock.now() };
    await recordAct(tx, act);
    return write(tx, act);
  });
}
