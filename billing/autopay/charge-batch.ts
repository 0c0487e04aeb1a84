import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert, resolveAlerts } from '../alerts/queries.ts';
import type { Learned } from '../charges/charge.ts';
import { insertCharges, moveIntents, type NewCharge } from '../charges/queries.ts';
import { type Recorded, recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db, Tx } from '../db.ts';
import { ceilingAllows } from '../dunning/verdict.ts';
import {
  callsUnderWay,
  gatewayState,
  lockGatewayState,
  moveProbe,
  writeGatewayState,
} from '../gateway-states/queries.ts';
import {
  admits,
  afterBatch,
  type BatchNews,
  type GatewayState,
  isQuiet,
  paceOf,
  probeSeconds,
} from '../gateway-states/state.ts';
import type { ChargeAnswer, Gateway, OffSessionCharge } from '../gateways/gateway.ts';
import { heldAmong } from '../holds/queries.ts';
import { referenceOf } from '../ids.ts';
import type { LockedInvoice } from '../invoices/invoice.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { limitsOf } from '../merchants/settings.ts';
import type { Clock, Ids, Randomness } from '../ports.ts';
import { takeSlot } from '../rate-limits/queries.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import type { Fence } from '../runs/fence.ts';
import { haltOf, holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import { gatewayDownCause } from './plan.ts';
import {
  approvedAmong,
  type BillRange,
  billsDue,
  type ChargeableMethod,
  ensureAutoIntents,
  lockCards,
  methodsOf,
  retriesTooEarly,
  stillDue,
} from './queries.ts';

/** Open intents never exceed twice this: so many unknowns a killed process leaves at most. */
export const concurrency = 32;
/** No call starts later than this after its intent was committed. */
export const intentLivesMs = 60_000;
/** A turn at the gateway that is further away was taken by a clock that differs: nobody waits for it. */
const turnWaitsAtMostMs = 30_000;
/** Calls that fall so close together are made together: timers are no finer. */
const togetherMs = 4;
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
  /** The last bill that was looked at before these, and the last of these; null: none. */
  from: string | null;
  after: string | null;
  /** No bill of the range is left. */
  ended: boolean;
  /**
   * Why nothing was claimed though bills may be left: an operator has halted the run, the gateway is down and rests until an
   * instant, or all calls that it allows at the same time are under way.
   */
  waits:
    | { kind: 'halted' }
    | { kind: 'rest'; since: Temporal.Instant; until: Temporal.Instant }
    | { kind: 'full' }
    | null;
  /** Charges a second over all processes; null: as fast as it goes. */
  pace: number | null;
  /** What was known of the gateway when these were claimed. */
  seen: GatewayState;
  locked: number;
  /** A further attempt that waits until the gateway has reported the day before it. */
  waitingForReports: number;
  noMethod: number;
  /** The network allows no further attempt on the card now; dunning says when. */
  overCeiling: number;
  notAutomatic: number;
  /** A reason not to charge stands; dunning looks again when it has ended. */
  held: number;
  /** No person has approved charging these today. */
  notApproved: number;
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
    const admitted = await admit(tx, work, gateway.name, at);
    const batch: ClaimedBatch = {
      intents: [],
      from: after,
      after,
      ended: false,
      waits: admitted.waits,
      pace: admitted.pace,
      seen: admitted.seen,
      locked: 0,
      waitingForReports: 0,
      noMethod: 0,
      overCeiling: 0,
      notAutomatic: 0,
      held: 0,
      notApproved: 0,
    };
    if (admitted.waits !== null) return batch;
    const candidates = await billsDue(tx, merchant.id, 'charge', businessDate, range, after, concurrency);
    batch.ended = candidates.length === 0;
    if (batch.ended) {
      await admitted.giveBack();
      return batch;
    }
    const locked = await lockInvoices(tx, merchant.id, candidates);
    const due = new Set(await stillDue(tx, merchant.id, 'charge', businessDate, candidates));
    const approved = merchant.settings.charge?.approve
      ? new Set(await approvedAmong(tx, merchant.id, businessDate, candidates))
      : due;
    const dueNow = locked.filter((bill) => bill.state === 'open' && due.has(bill.id));
    const open = dueNow.filter((bill) => approved.has(bill.id));
    const free = open.filter((bill) => bill.locked_by === null);
    const held = new Set(
      await heldAmong(
        tx,
        merchant.id,
        free.map((bill) => bill.id),
        businessDate,
      ),
    );
    const unheld = free.filter((bill) => !held.has(bill.id));
    const automatic = unheld.filter((bill) => bill.collection === 'auto' && bill.fell_back_on === null);
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
    const chargeable = new Set(withMethod.map((bill) => bill.id));
    const tooEarly = new Set(await retriesTooEarly(tx, merchant.id, reportedMethod, [...chargeable]));
    const timely = withMethod.filter((bill) => !tooEarly.has(bill.id));
    const over = await overCeiling(tx, merchant.id, at, timely, methods);
    const ready = timely.filter((bill) => !over.has(bill.id));
    const bills = ready.slice(0, admitted.callsAtMost);
    const last = (bills.length < ready.length ? bills.at(-1)?.id : candidates.at(-1)) ?? null;
    batch.after = last;
    // What comes after the last one is looked at again.
    const looked = <Bill extends { id: string }>(some: readonly Bill[]) =>
      some.filter(({ id }) => last !== null && id <= last).length;
    batch.notApproved = looked(dueNow) - looked(open);
    batch.locked = looked(open) - looked(free);
    batch.held = looked(free) - looked(unheld);
    batch.notAutomatic = looked(unheld) - looked(automatic);
    batch.noMethod = looked(automatic) - looked(withMethod);
    batch.overCeiling = looked(timely) - looked(ready);
    batch.waitingForReports = looked(withMethod.filter(({ id }) => tooEarly.has(id)));
    await setAgenda(
      tx,
      merchant.id,
      free
        .filter((bill) => (!chargeable.has(bill.id) || over.has(bill.id)) && last !== null && bill.id <= last)
        .map((bill) => ({ invoiceId: bill.id, act: 'dun', actOn: businessDate })),
    );
    if (bills.length === 0) {
      await admitted.giveBack();
      return batch;
    }

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

/**
 * Bills whose card has had as many attempts over this amount as its network allows, those of this batch counted; from here on
 * the cards are locked.
 */
async function overCeiling(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  bills: readonly LockedInvoice[],
  methods: ReadonlyMap<string, ChargeableMethod>,
): Promise<Set<string>> {
  const wishes = bills.flatMap(({ id, contract_id, customer_id: customerId, amount }) => {
    const method = methods.get(contract_id);
    return method === undefined
      ? []
      : [{ id, customerId, paymentMethodId: method.payment_method_id, amount }];
  });
  const known = await lockCards(tx, merchantId, instantText(at), wishes);
  const keyOf = (methodId: string, amount: number) => `${methodId} ${amount}`;
  const cards = new Map(
    known.map((card) => [
      keyOf(card.payment_method_id, card.amount),
      { network: card.network, attemptsAt: card.started_at.map((each) => Temporal.Instant.from(each)) },
    ]),
  );
  const over = new Set<string>();
  for (const { id, paymentMethodId, amount } of wishes) {
    const key = keyOf(paymentMethodId, amount);
    const card = cards.get(key) ?? { network: null, attemptsAt: [] };
    cards.set(key, card);
    if (ceilingAllows({ ...card, at }).allowed) card.attemptsAt.push(at);
    else over.add(id);
  }
  return over;
}

interface Admitted {
  waits: ClaimedBatch['waits'];
  callsAtMost: number;
  pace: number | null;
  seen: GatewayState;
  /** The probe, where it was taken and there is nothing to try with. */
  giveBack(): Promise<void>;
}

/** How many charges may be begun now, by what operators, the gateway's limits and its silence allow. */
async function admit(
  tx: Tx,
  { merchant, fence }: ChargeWork,
  gateway: string,
  at: Temporal.Instant,
): Promise<Admitted> {
  const limits = limitsOf(merchant.settings);
  // Locked only where all processes together are counted: claims then go one after the other.
  const seen =
    limits.concurrency === null
      ? await gatewayState(tx, merchant.id, gateway)
      : await lockGatewayState(tx, merchant.id, gateway);
  const pace = paceOf(seen, limits);
  // So many as go within a second: whoever waits for a turn waits no longer than its intents live.
  const atPace = pace === null ? concurrency : Math.max(1, Math.floor(pace));
  const admitted = {
    waits: null,
    callsAtMost: Math.min(concurrency, atPace),
    pace,
    seen,
    giveBack: async () => undefined,
  };
  if ((await haltOf(tx, fence)) !== undefined) return { ...admitted, waits: { kind: 'halted' } };
  const { rest } = seen;
  const admission = admits(seen, at);
  if (rest !== null && admission.kind !== 'go') {
    const until = at.add({ seconds: probeSeconds });
    const mine =
      admission.kind === 'probe' && (await moveProbe(tx, merchant.id, gateway, rest.probeAt, until));
    const giveBack = async () => {
      await moveProbe(tx, merchant.id, gateway, until, rest.probeAt);
    };
    if (mine) return { ...admitted, callsAtMost: 1, giveBack };
    return {
      ...admitted,
      waits: {
        kind: 'rest',
        since: rest.openedAt,
        until: admission.kind === 'rest' ? admission.until : until,
      },
    };
  }
  if (limits.concurrency === null) return admitted;
  const left = limits.concurrency - (await callsUnderWay(tx, merchant.id, gateway, at));
  if (left <= 0) return { ...admitted, waits: { kind: 'full' } };
  return { ...admitted, callsAtMost: Math.min(admitted.callsAtMost, left) };
}

export interface Called {
  learned: Learned[];
  /** Answers that the gateway was asked too fast, of all rounds. */
  refused: number;
  /** Answers with another amount or currency than asked for: a person must look, nothing is booked. */
  differing: string[];
}

/**
 * Calls the gateway for a whole batch at once, outside any transaction. What the gateway certainly did not execute is
 * sent again under the same reference while the intent lives, and is given up without effect after that.
 */
export async function callGateway(
  ports: ChargePorts,
  merchantId: number,
  { intents, pace }: Pick<ClaimedBatch, 'intents' | 'pace'>,
): Promise<Called> {
  const called: Called = { learned: [], differing: [], refused: 0 };
  let waiting: readonly Intent[] = intents;
  for (let round = 1; waiting.length > 0; round += 1) {
    await ports.clock.refresh();
    const answers = await callAll(ports, merchantId, waiting, pace);
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
        if (answer.tooFast) called.refused += 1;
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

/** All at once, or one after the other as the pace allows, in a turn that all processes take from one row. */
async function callAll(
  ports: ChargePorts,
  merchantId: number,
  intents: readonly Intent[],
  pace: number | null,
): Promise<(ChargeAnswer | 'too_late')[]> {
  if (pace === null) return Promise.all(intents.map((intent) => callOne(ports, intent)));
  const { clock, db, gateway } = ports;
  const eachMs = 1_000 / pace;
  const turn = await takeSlot(
    db,
    merchantId,
    `gateway ${gateway.name}`,
    clock.now(),
    eachMs * intents.length,
  );
  const beginsMs = Temporal.Instant.from(turn).epochMilliseconds;
  const isOurs = beginsMs - clock.now().epochMilliseconds <= turnWaitsAtMostMs;
  const fromMs = isOurs ? beginsMs : clock.now().epochMilliseconds;
  const answers: Promise<ChargeAnswer | 'too_late'>[] = [];
  for (const [index, intent] of intents.entries()) {
    const waitMs = fromMs + index * eachMs - clock.now().epochMilliseconds;
    if (waitMs > togetherMs) await clock.sleep(waitMs);
    answers.push(callOne(ports, intent));
  }
  return Promise.all(answers);
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

/** Intents that were never called: an operator has halted the run, or the gateway went down meanwhile. */
export function neverCalled(intents: readonly Intent[], why: string): Called {
  return {
    learned: intents.map(({ chargeId }) => ({ chargeId, outcome: { kind: 'canceled', why } })),
    differing: [],
    refused: 0,
  };
}

export function newsOf({ learned, refused }: Called): BatchNews {
  const isConclusive = ({ outcome }: Learned) => outcome.kind === 'succeeded' || outcome.kind === 'failed';
  const last = learned.findLastIndex(isConclusive);
  return { refused, anyConclusive: last >= 0, silentAtEnd: learned.length - 1 - last };
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

/**
 * Tells all other processes what a batch has shown of the gateway: slower or faster, at rest or back. A transaction of its
 * own: no process waits at the gateway's row while it holds bills. Returns whether the gateway rests from now on.
 */
export async function tellOfGateway(
  ports: ChargePorts,
  merchant: Merchant,
  seen: GatewayState,
  news: BatchNews,
): Promise<boolean> {
  if (isQuiet(seen, news)) return false;
  const { name } = ports.gateway;
  await ports.clock.refresh();
  const at = ports.clock.now();
  return ports.db.transaction(async (tx) => {
    const before = await lockGatewayState(tx, merchant.id, name);
    const after = afterBatch(before, news, limitsOf(merchant.settings), at);
    await writeGatewayState(tx, merchant.id, name, after);
    if (before.rest === null && after.rest !== null) {
      await raiseAlert(tx, ports.ids.uuid(), at, {
        merchantId: merchant.id,
        level: 'now',
        cause: gatewayDownCause(name),
        message: `the gateway ${name} answers nothing conclusive; charging rests and tries again by itself, with one charge at a time`,
      });
    }
    if (before.rest !== null && after.rest === null)
      await resolveAlerts(tx, merchant.id, at, [gatewayDownCause(name)], 'the gateway answers again');
    return after.rest !== null;
  });
}
