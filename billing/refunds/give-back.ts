import type { Act } from '../acts/act.ts';
import { instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import type { Db, Tx } from '../db.ts';
import type { Gateway } from '../gateways/gateway.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Crash, Ids } from '../ports.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import { askAboutRefunds, callRefunds } from './call.ts';
import { countLongUnknown, insertRefunds, type Refundable, refundsById, refundsToAsk } from './queries.ts';
import { type RecordedRefunds, recordRefunds } from './record-refunds.ts';
import type { AskedFor, LearnedRefund, OpenRefund } from './refund.ts';

export interface GiveBackPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  crash: Crash;
  gateway: Gateway;
}

export interface GiveBackWork {
  merchant: Merchant;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
  progress(done: number, total: number | null, what: string): void;
}

export type Add = (name: string, count: number) => void;

/** Open refunds never exceed this: so many unknowns a killed process leaves at most. */
export const refundsAtOnce = 32;
/** No call starts later than this after its intent was committed. */
const intentLivesMs = 60_000;
/** So many batches in a row that the gateway took nothing of: the next pass tries again. */
const busyBatchesAtMost = 3;
/** After so many questions about one refund a person should know. */
const asksUntilAlert = 10;

/** What is to be given back, and for whom; `lock` finds the next of it, with the payments locked. */
export interface ToGiveBack {
  askedFor: AskedFor;
  lock(tx: Tx, limit: number): Promise<Refundable[]>;
}

/**
 * Gives money back, batch after batch, until nothing is left, nothing is answered or the gateway takes nothing. Intent,
 * commit, call, outcome: it may be killed anywhere, and what had no outcome then is asked about.
 */
export async function giveBack(
  ports: GiveBackPorts,
  work: GiveBackWork,
  what: ToGiveBack,
  add: Add,
): Promise<void> {
  let busy = 0;
  let done = 0;
  while (busy < busyBatchesAtMost) {
    work.stop.throwIfAborted();
    const refunds = await claim(ports, work, what);
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
async function claim(ports: GiveBackPorts, work: GiveBackWork, what: ToGiveBack): Promise<OpenRefund[]> {
  return inTransaction(ports, work, async (tx, act) => {
    const refundable = await what.lock(tx, refundsAtOnce);
    if (refundable.length === 0) {
      // Nothing was to be had: because there is nothing, or because nothing may leave.
      await refuseInSafeMode(tx);
      return [];
    }
    const { callDeadlineMs } = ports.gateway.semantics;
    return beginRefunds(tx, { ids: ports.ids, callDeadlineMs }, act, what.askedFor, refundable);
  });
}

/** The intents, in the caller's transaction, which holds the payments' rows. */
export async function beginRefunds(
  tx: Tx,
  { ids, callDeadlineMs }: { ids: Pick<Ids, 'uuid'>; callDeadlineMs: number },
  act: Act,
  askedFor: AskedFor,
  refundable: readonly Refundable[],
): Promise<OpenRefund[]> {
  const refunds = refundable.map((each) => ({ ...each, id: ids.uuid() }));
  const deadline = act.at.add({ milliseconds: intentLivesMs });
  await insertRefunds(tx, act, askedFor, refunds, {
    deadlineAt: instantText(deadline),
    // Not before the call must be over.
    askAt: instantText(deadline.add({ milliseconds: callDeadlineMs })),
  });
  return refundsById(
    tx,
    act.merchantId,
    refunds.map((refund) => refund.id),
  );
}

/** Asks about every refund of the merchant that has no outcome and whose next question is due. */
export async function askAboutUnknown(ports: GiveBackPorts, work: GiveBackWork, add: Add): Promise<void> {
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

async function record(
  ports: GiveBackPorts,
  work: GiveBackWork,
  learned: LearnedRefund[],
  add: Add,
): Promise<RecordedRefunds> {
  const recorded = await inTransaction(ports, work, (tx, act) => {
    const { timezone } = work.merchant.settings;
    return recordRefunds(tx, { act, ids: ports.ids, timezone, learned });
  });
  add('refunded', recorded.refunded);
  add('refunds_refused', recorded.refused);
  add('refunds_unknown', recorded.unknown);
  return recorded;
}

/** A person is called for what stays unknown; it closes by itself. */
export async function tellOfUnknown(ports: GiveBackPorts, work: GiveBackWork): Promise<void> {
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

/** A transaction under the chunk's fence, as an act of now. */
export async function inTransaction<T>(
  ports: Pick<GiveBackPorts, 'db' | 'clock'>,
  work: Pick<GiveBackWork, 'fence' | 'act'>,
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
