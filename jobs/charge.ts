import { Temporal } from 'temporal-polyfill';
import { raiseStanding, resolveAlerts } from '../billing/alerts/queries.ts';
import { waitingCause } from '../billing/autopay/approve.ts';
import {
  type Called,
  type ClaimedBatch,
  callGateway,
  claimBatch,
  neverCalled,
  newsOf,
  recordBatch,
  tellOfGateway,
} from '../billing/autopay/charge-batch.ts';
import { billsPerChunk, planFor, planOf, refuseUnsafeDatabase, sumOf } from '../billing/autopay/plan.ts';
import { type BillRange, plannedCharges, rangesDue, reasonsLeftOut } from '../billing/autopay/queries.ts';
import { countFirstCharges } from '../billing/charges/queries.ts';
import { takeStatistics } from '../billing/statistics.ts';
import type { ChunkContext, Counts, Job, JobContext } from './job.ts';

/** So long a run waits for a gateway that is down; after that the next slot goes on. */
const patienceMinutes = 10;
/** A run that waits for the gateway looks so often whether an operator has said something. */
const restSliceMs = 30_000;
/** Until another process's calls have ended, where the gateway allows no more at the same time. */
const fullPauseMs = 200;

/** A chunk with so many charges is one of a real night. */
const manyCharges = 200;

const noCounts: Counts = {};

type ChargeChunk = (BillRange & { bills: number }) | { waiting: number };

/**
 * Charges saved cards. Intent, commit, call, outcome, batch after batch: while the gateway is called for one batch, the
 * outcomes of the one before are written and the intents of the next. A worker that lost its chunk writes nothing; its
 * outcomes are found by trace.
 */
export const charge: Job<ChargeChunk & Record<string, unknown>> = {
  name: 'charge',
  does: 'charges bills on automatic payment whose debit date or retry has come',
  attention: ['gateway_down', 'amount_differs', 'parked', 'waiting_for_approval'],
  shared: true,

  async plan(context) {
    const { ports, merchant, businessDate } = context;
    await refuseUnsafeDatabase(ports.db);
    const asks = merchant.settings.charge?.approve === true;
    const ranges = await rangesDue(ports.db, merchant.id, 'charge', businessDate, billsPerChunk, asks);
    const waiting = asks ? await tellOfWaiting(context) : 0;
    return [...ranges.map((range) => ({ ...range })), ...(waiting > 0 ? [{ waiting }] : [])];
  },

  async runChunk(context, chunk) {
    if ('waiting' in chunk) return { waiting_for_approval: Number(chunk.waiting) };
    const counts = await chargeRange(context, chunk);
    if ((counts.charged ?? 0) >= manyCharges)
      await takeStatistics(context.ports.log, () => countFirstCharges(context.ports.db));
    return counts;
  },

  async dryRun({ ports, merchant, businessDate }) {
    const plan = await planOf(ports.db, merchant, ports.gateway.name, businessDate);
    const { bills, amount } = sumOf(plan.charges);
    const left = (reason: string) => sumOf(plan.leftOut.filter((row) => row.reason === reason)).bills;
    const waiting: Counts = merchant.settings.charge?.approve
      ? { waiting_for_approval: sumOf(plan.charges.filter(({ approved }) => !approved)).bills }
      : {};
    return {
      would_charge: bills,
      amount,
      ...waiting,
      ...Object.fromEntries(reasonsLeftOut.map((reason) => [reason, left(reason)])),
      ...(plan.seconds === null ? noCounts : { seconds: plan.seconds }),
    };
  },
};

async function chargeRange(context: ChunkContext, chunk: BillRange): Promise<Counts> {
  const { ports, merchant, stop } = context;
  await refuseUnsafeDatabase(ports.db);
  const counts: Counts = {};
  const add = (name: string, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  if (stop.aborted) return counts;
  const claim = (after: string | null) => claimCounted(context, chunk, after, add);
  const write = (called: Called) => writeCounted(context, called, add);
  let open = await claim(null);
  /** Called for, and not yet written down. */
  let called: Called | null = null;
  let isDown = false;
  for (;;) {
    if (open.intents.length === 0) {
      if (called !== null) await write(called);
      called = null;
      if (open.ended || stop.aborted || open.waits?.kind === 'halted') return counts;
      if (open.waits?.kind === 'rest' && isOverdue(context, open.waits.since)) {
        add('gateway_down', 1);
        return counts;
      }
      await waitFor(context, open.waits);
      if (stop.aborted) return counts;
      open = await claim(open.after);
      continue;
    }
    const { intents, from, after, seen } = open;
    await ports.crash('charge.after_intent');
    const isCalled = !isDown && !stop.aborted;
    const former = called;
    // Both are waited for, whichever fails: a call or a transaction must not outlive its chunk.
    const [calling, writing] = await Promise.allSettled([
      isCalled
        ? callGateway(ports, merchant.id, open)
        : neverCalled(intents, stop.aborted ? 'stopped' : 'gateway_down'),
      (async () => {
        if (former !== null) await write(former);
        return isCalled ? claim(after) : { ...open, intents: [], after: from, waits: null };
      })(),
    ]);
    if (writing.status === 'rejected') throw writing.reason;
    if (calling.status === 'rejected') throw calling.reason;
    await ports.crash('charge.after_gateway');
    called = calling.value;
    open = writing.value;
    if (!isCalled) {
      isDown = false;
      continue;
    }
    isDown = await tellOfGateway(ports, merchant, seen, newsOf(called));
    // The probe was answered: the rest that the others saw is over.
    if (seen.rest !== null && !isDown) open = { ...open, waits: null };
    // What was claimed meanwhile is given up; what was not is claimed when the rest is over.
    if (isDown && open.intents.length === 0) isDown = false;
  }
}

async function claimCounted(
  context: ChunkContext,
  range: BillRange,
  after: string | null,
  add: (name: string, count: number) => void,
): Promise<ClaimedBatch> {
  const batch = await claimBatch(context.ports, context, range, after);
  add('locked', batch.locked);
  add('waiting_for_reports', batch.waitingForReports);
  add('no_method', batch.noMethod);
  add('over_ceiling', batch.overCeiling);
  add('not_automatic', batch.notAutomatic);
  add('held', batch.held);
  return batch;
}

async function writeCounted(
  context: ChunkContext,
  called: Called,
  add: (name: string, count: number) => void,
): Promise<void> {
  const recorded = await recordBatch(context.ports, context, called);
  await context.ports.crash('charge.after_outcome');
  add('charged', recorded.succeeded);
  add('declined', recorded.failed);
  add('deferred', recorded.canceled);
  add('unknown', recorded.unknown);
  add('known', recorded.known);
  add('parked', recorded.parked);
  add('amount_differs', called.differing.length);
}

function isOverdue({ ports }: ChunkContext, since: Temporal.Instant): boolean {
  return Temporal.Instant.compare(ports.clock.now(), since.add({ minutes: patienceMinutes })) >= 0;
}

/** Ctrl-C ends it without a word. */
async function waitFor({ ports, stop }: ChunkContext, waits: ClaimedBatch['waits']): Promise<void> {
  if (waits === null) return;
  const restMs =
    waits.kind === 'rest' ? waits.until.epochMilliseconds - ports.clock.now().epochMilliseconds : fullPauseMs;
  try {
    await ports.clock.sleep(Math.min(Math.max(restMs, fullPauseMs), restSliceMs), stop);
  } catch (error) {
    if (!stop.aborted) throw error;
  }
}

/** How many charges nobody has approved; a person is told of them, once for all. */
async function tellOfWaiting({ ports, merchant, businessDate }: JobContext): Promise<number> {
  const planned = await plannedCharges(ports.db, planFor(merchant, ports.gateway.name, businessDate));
  const waiting = sumOf(planned.filter(({ reason, approved }) => reason === null && !approved));
  await ports.clock.refresh();
  const at = ports.clock.now();
  if (waiting.bills === 0) {
    await resolveAlerts(ports.db, merchant.id, at, [waitingCause], 'nothing waits for an approval any more');
    return 0;
  }
  const message = `${waiting.bills} charges of ${waiting.amount} wait for an approval: seikyu charging approve --merchant ${merchant.code} --date ${businessDate}`;
  await raiseStanding(ports.db, merchant.id, at, [
    { id: ports.ids.uuid(), level: 'now', cause: waitingCause, message, occurrences: waiting.bills },
  ]);
  return waiting.bills;
}
