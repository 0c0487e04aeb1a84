import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Learned } from '../charges/charge.ts';
import { insertCharges, moveIntents, type NewCharge } from '../charges/queries.ts';
import { type Recorded, recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db } from '../db.ts';
import type { ChargeAnswer, Gateway, OffSessionCharge } from '../gateways/gateway.ts';
import { heldAmong } from '../holds/queries.ts';
import { referenceOf } from '../ids.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids, Randomness } from '../ports.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import {
  type BillRange,
  billsDue,
  ensureAutoIntents,
  methodsOf,
  retriesTooEarly,
  stillDue,
} from './queries.ts';

/** Open intents never exceed twice this: so many unknowns a killed process leaves at most. */
export const concurrency = 32;
/** No call starts later than this after its intent was committed. */
export const intentLivesMs = 60_000;
/** Each at the gateway's own pace, so that they end well before the intent does. */
const roundsAtMost = 5;
const pauseMs = 500;

export interface ChargePorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  randomness: Randomness;
  sealer: Sealer;
  gateway: Gateway;
}

export interface ChargeWork {
  merchant: Merchant;
  businessDate: string;
  fence: Fence;
  act: Act;
}

export interface Intent {
  chargeId: string;
  deadlineAt: Temporal.Instant;
  request: OffSessionCharge;
}

export interface ClaimedBatch {
  intents: Intent[];
  /** The last bill that was looked at; null = the range is done. */
  after: string | null;
  locked: number;
  /** A further attempt that waits until the gateway has reported the day before it. */
  waitingForReports: number;
  noMethod: number;
  notAutomatic: number;
  /** A reason not to charge stands; dunning looks again when it has ended. */
  held: number;
}

/**
 * The intents of one batch, committed before any call. A bill is claimed while its row is locked and only if it is still
 * owed and due, nobody else is collecting it, and the agreement and its card still stand at this moment.
 */
export async function claimBatch(
  ports: ChargePorts,
  work: ChargeWork,
  range: BillRange,
  after: string | null,
): Promise<ClaimedBatch> {
  const { gateway, ids, sealer } = ports;
  const { merchant, businessDate } = work;
  await ports.clock.refresh();
  const at = ports.clock.now();
  const act = { ...work.act, at };
  const deadlineAt = at.add({ milliseconds: intentLivesMs });
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    const batch: ClaimedBatch = {
      intents: [],
      after: null,
      locked: 0,
      waitingForReports: 0,
      noMethod: 0,
      notAutomatic: 0,
      held: 0,
    };
    const candidates = await billsDue(tx, merchant.id, 'charge', businessDate, range, after, concurrency);
    if (candidates.length === 0) return batch;
    batch.after = candidates.at(-1) ?? null;
    const locked = await lockInvoices(tx, merchant.id, candidates);
    const due = new Set(await stillDue(tx, merchant.id, 'charge', businessDate, candidates));
    const open = locked.filter((bill) => bill.state === 'open' && due.has(bill.id));
    const free = open.filter((bill) => bill.locked_by === null);
    batch.locked = open.length - free.length;
    const held = new Set(
      await heldAmong(
        tx,
        merchant.id,
        free.map((bill) => bill.id),
        businessDate,
      ),
    );
    batch.held = held.size;
    const unheld = free.filter((bill) => !held.has(bill.id));
    const automatic = unheld.filter((bill) => bill.collection === 'auto' && bill.fell_back_on === null);
    batch.notAutomatic = unheld.length - automatic.length;
    const methods = new Map(
      (
        await methodsOf(
          tx,
          merchant.id,
          gateway.name,
          automatic.map((bill) => bill.contract_id),
        )
      ).map((method) => [method.contract_id, method]),
    );
    const withMethod = automatic.filter((bill) => methods.has(bill.contract_id));
    batch.noMethod = automatic.length - withMethod.length;
    const chargeable = new Set(withMethod.map((bill) => bill.id));
    const tooEarly = new Set(await retriesTooEarly(tx, merchant.id, reportedMethod, [...chargeable]));
    batch.waitingForReports = tooEarly.size;
    const bills = withMethod.filter((bill) => !tooEarly.has(bill.id));
    await setAgenda(
      tx,
      merchant.id,
      free
        .filter((bill) => !chargeable.has(bill.id))
        .map((bill) => ({ invoiceId: bill.id, act: 'dun', actOn: businessDate })),
    );
    if (bills.length === 0) return batch;

    await recordAct(tx, act);
    const intentIds = await ensureAutoIntents(
      tx,
      act,
      bills.map((bill) => ({
        intentId: ids.uuid(),
        invoiceId: bill.id,
        amount: bill.amount,
        currency: bill.currency,
      })),
    );
    const charges: NewCharge[] = [];
    for (const bill of bills) {
      const method = methods.get(bill.contract_id);
      const intentId = intentIds.get(bill.id);
      if (!method || !intentId)
        throw new Error(`impossible state: bill ${bill.id} lost its method or intent`);
      const chargeId = ids.uuid();
      charges.push({
        id: chargeId,
        intentId,
        invoiceId: bill.id,
        sessionId: null,
        origin: 'auto',
        gateway: gateway.name,
        paymentMethodId: method.payment_method_id,
        amount: bill.amount,
        currency: bill.currency,
        businessDate,
        deadlineAt: instantText(deadlineAt),
        askAt: instantText(deadlineAt),
      });
      batch.intents.push({
        chargeId,
        deadlineAt,
        request: {
          account: merchant.code,
          reference: referenceOf(chargeId),
          invoiceId: bill.id,
          amount: bill.amount,
          currency: bill.currency,
          methodToken: sealer.open('method', method.sealed_token, method.payment_method_id),
          networkTransactionId: method.network_transaction_id,
        },
      });
    }
    await moveIntents(
      tx,
      act,
      charges.map((charge) => charge.intentId),
      'processing',
    );
    await insertCharges(tx, act, charges);
    return batch;
  });
}

export interface Called {
  learned: Learned[];
  /** Answers with another amount or currency than asked for: a person must look, nothing is booked. */
  differing: string[];
}

/**
 * Calls the gateway for a whole batch at once, outside any transaction. What the gateway certainly did not execute is
 * sent again under the same reference while the intent lives, and is given up without effect after that.
 */
export async function callGateway(ports: ChargePorts, intents: readonly Intent[]): Promise<Called> {
  const called: Called = { learned: [], differing: [] };
  let waiting = intents;
  for (let round = 1; waiting.length > 0; round += 1) {
    await ports.clock.refresh();
    const answers = await Promise.all(waiting.map((intent) => callOne(ports, intent)));
    const again: Intent[] = [];
    let waitMs = pauseMs * 2 ** (round - 1);
    answers.forEach((answer, index) => {
      const intent = waiting[index];
      if (intent === undefined) return;
      if (answer === 'too_late') {
        called.learned.push({
          chargeId: intent.chargeId,
          outcome: { kind: 'canceled', why: 'intent_ended' },
        });
      } else if (answer.kind === 'not_executed') {
        again.push(intent);
        waitMs = Math.max(waitMs, answer.retryAfterMs ?? 0);
      } else if (answer.kind === 'succeeded' && !takesWhatWasAsked(answer.captured, intent.request)) {
        called.differing.push(intent.chargeId);
        called.learned.push({
          chargeId: intent.chargeId,
          outcome: { kind: 'unknown', why: 'amount_differs' },
        });
      } else {
        called.learned.push({ chargeId: intent.chargeId, outcome: answer });
      }
    });
    // Spread over half the pause again: all processes that were refused together would come back together.
    waitMs += Math.floor((waitMs / 2) * ((ports.randomness.bytes(1)[0] ?? 0) / 256));
    const ends = ports.clock.now().add({ milliseconds: waitMs });
    waiting = [];
    if (
      round >= roundsAtMost ||
      again.some((intent) => ends.epochMilliseconds >= intent.deadlineAt.epochMilliseconds)
    ) {
      for (const { chargeId } of again)
        called.learned.push({ chargeId, outcome: { kind: 'canceled', why: 'not_executed' } });
    } else if (again.length > 0) {
      await ports.clock.sleep(waitMs);
      waiting = again;
    }
  }
  return called;
}

async function callOne(ports: ChargePorts, intent: Intent): Promise<ChargeAnswer | 'too_late'> {
  const { clock, gateway } = ports;
  // Before the look at the clock: a process that was stopped in between finds its call cut off.
  const signal = clock.deadline(gateway.semantics.callDeadlineMs);
  if (clock.now().epochMilliseconds >= intent.deadlineAt.epochMilliseconds) return 'too_late';
  try {
    return await gateway.charge(intent.request, signal);
  } catch (error) {
    // Whatever an adapter stumbles over, the charge may have happened.
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
}

export function takesWhatWasAsked(
  captured: { amount: number; currency: string },
  asked: { amount: number; currency: string },
): boolean {
  return captured.amount === asked.amount && captured.currency === asked.currency;
}

/** The outcomes of one batch, in one transaction under the chunk's fence. */
export async function recordBatch(ports: ChargePorts, work: ChargeWork, called: Called): Promise<Recorded> {
  await ports.clock.refresh();
  const act = { ...work.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    const recorded = await recordOutcomes(tx, {
      act,
      timezone: work.merchant.settings.timezone,
      learnedBy: 'live',
      learned: called.learned,
      ids: ports.ids,
      sealer: ports.sealer,
    });
    if (called.differing.length > 0) {
      await raiseAlert(tx, ports.ids.uuid(), act.at, {
        merchantId: act.merchantId,
        level: 'now',
        cause: 'AMOUNT_DIFFERS',
        message: `the gateway took another amount than was asked for charge ${called.differing[0]}; nothing is booked, the bill stays locked`,
        occurrences: called.differing.length,
      });
    }
    return recorded;
  });
}
