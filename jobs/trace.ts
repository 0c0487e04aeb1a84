import { instantText } from '../billing/acts/act.ts';
import { sendDueAlerts } from '../billing/alerts/send.ts';
import { traceCardChanges } from '../billing/card-changes/ask.ts';
import { countChangesToAsk } from '../billing/card-changes/queries.ts';
import { creditsWait, settleCredits } from '../billing/credits/settle.ts';
import { watchExpectedFiles } from '../billing/exchanges/expected.ts';
import { carryOnRecalls } from '../billing/recalls/carry-on.ts';
import { runningRecalls } from '../billing/recalls/queries.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { handleCallbacks } from '../billing/sms-callbacks/handle.ts';
import { countWaitingCallbacks } from '../billing/sms-callbacks/queries.ts';
import { askAbout, atMostAtOnce, judgeAnswer } from '../billing/trace/ask.ts';
import { processes } from '../billing/trace/processes.ts';
import {
  type ChargeRange,
  chargesToAsk,
  countToAsk,
  countWaitingEvents,
  rangesToAsk,
} from '../billing/trace/queries.ts';
import { resolveCharges } from '../billing/trace/resolve.ts';
import { findStuckRows } from '../billing/trace/stuck.ts';
import { handleWaitingWebhooks } from '../billing/webhooks/handle.ts';
import type { ChunkContext, Counts, Job } from './job.ts';
import { sweepArchive } from './sweep-archive.ts';

type Payload = Record<string, unknown> &
  (
    | ({ what: 'charges' } & ChargeRange)
    | { what: 'card_changes' }
    | { what: 'webhooks' }
    | { what: 'recalls' }
    | { what: 'credits' }
    | { what: 'stuck' }
  );

const chargesPerChunk = 200;
const chargesPerBatch = 32;
const asksAtOnce = 16;

/** Finds out what nobody recorded. Never guesses: what the gateway does not prove is asked about again. */
export const trace: Job<Payload> = {
  name: 'trace',
  does: 'asks the gateway about charges and changed cards with an unknown outcome, handles waiting webhooks, carries on recalls, refunds and credits, finds what stands still, sends alerts',
  attention: [
    'differs',
    'refunds_refused',
    'refunds_unknown',
    'files_late',
    ...processes.flatMap(({ count }) => count ?? []),
  ],

  async plan({ ports, merchant, businessDate }) {
    await ports.clock.refresh();
    const now = instantText(ports.clock.now());
    const ranges = await rangesToAsk(ports.db, merchant.id, now, chargesPerChunk);
    const waiting =
      (await countWaitingEvents(ports.db, merchant.id)) +
      (await countWaitingCallbacks(ports.db, merchant.id));
    return [
      ...ranges.map((range): Payload => ({ what: 'charges', ...range })),
      ...((await countChangesToAsk(ports.db, merchant.id, now)) > 0
        ? [{ what: 'card_changes' } satisfies Payload]
        : []),
      ...(waiting > 0 ? [{ what: 'webhooks' } satisfies Payload] : []),
      // After the charges: a bill whose charge has its outcome now can be taken back now.
      ...((await runningRecalls(ports.db, merchant.id)).length > 0
        ? [{ what: 'recalls' } satisfies Payload]
        : []),
      ...((await creditsWait(ports, merchant, businessDate)) ? [{ what: 'credits' } satisfies Payload] : []),
      { what: 'stuck' },
    ];
  },

  async runChunk(context, payload) {
    switch (payload.what) {
      case 'charges':
        return askAboutCharges(context, payload);
      case 'card_changes':
        return askAboutCards(context);
      case 'webhooks':
        return handleWaiting(context);
      case 'recalls':
        return carryOnRecalls(context.ports, context);
      case 'credits':
        return settleCredits(context.ports, context);
      case 'stuck':
        return findStuck(context);
    }
  },

  async dryRun({ ports, merchant }) {
    await ports.clock.refresh();
    const now = instantText(ports.clock.now());
    return {
      to_ask: await countToAsk(ports.db, merchant.id, now),
      card_changes: await countChangesToAsk(ports.db, merchant.id, now),
      webhooks: await countWaitingEvents(ports.db, merchant.id),
      sms_callbacks: await countWaitingCallbacks(ports.db, merchant.id),
    };
  },
};

async function handleWaiting({ ports, merchant }: ChunkContext): Promise<Counts> {
  const webhooks = await handleWaitingWebhooks(ports.db, ports, merchant);
  const callbacks = await handleCallbacks(ports.db, ports, merchant.id);
  return callbacks > 0 ? { webhooks, sms_callbacks: callbacks } : { webhooks };
}

async function askAboutCards({ ports, merchant, fence, act, stop }: ChunkContext): Promise<Counts> {
  const asked = await traceCardChanges(ports.db, ports, {
    merchant,
    act,
    stop,
    inTransaction: (work) =>
      ports.db.transaction(async (tx) => {
        await holdFence(tx, fence);
        return work(tx);
      }),
  });
  return { card_changes: asked };
}

async function askAboutCharges(context: ChunkContext, range: ChargeRange): Promise<Counts> {
  const { ports, merchant, fence, stop } = context;
  const counts: Counts = {};
  const add = (name: string, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  let after: string | null = null;
  while (!stop.aborted) {
    await ports.clock.refresh();
    const askedAt = ports.clock.now();
    const charges = await chargesToAsk(
      ports.db,
      merchant.id,
      instantText(askedAt),
      range,
      after,
      chargesPerBatch,
    );
    after = charges.at(-1)?.id ?? null;
    if (after === null) break;
    await ports.crash('trace.before_lookup');
    const judged = await atMostAtOnce(asksAtOnce, charges, async (charge) => ({
      charge,
      judgement: judgeAnswer(
        charge,
        await askAbout(ports, merchant.code, charge),
        askedAt,
        ports.gateway.semantics,
      ),
    }));
    await ports.crash('trace.after_lookup');
    await ports.clock.refresh();
    const act = { ...context.act, at: ports.clock.now() };
    const resolved = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      return resolveCharges(tx, { act, merchant, ids: ports.ids, sealer: ports.sealer }, judged);
    });
    add('asked', charges.length);
    add('succeeded', resolved.succeeded);
    add('failed', resolved.failed);
    add('canceled', resolved.canceled);
    add('unknown', resolved.unknown);
    add('known', resolved.known);
    add('parked', resolved.parked);
    add('ask_again', resolved.askedAgain);
    add('differs', resolved.differing);
  }
  return counts;
}

async function findStuck(context: ChunkContext): Promise<Counts> {
  const { ports, fence, act } = context;
  await ports.clock.refresh();
  // What reads much is done once a business date.
  const swept = fence.pass === 1 ? await sweepOnce(context) : 0;
  const now = { ...act, at: ports.clock.now() };
  const counts = await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    const { businessDate, pass } = fence;
    const late = await watchExpectedFiles(tx, ports.ids, context.merchant, now.at);
    const stuck = await findStuckRows(tx, { act: now, ids: ports.ids, businessDate, withBills: pass === 1 });
    return late > 0 ? { ...stuck, files_late: late } : stuck;
  });
  await sendDueAlerts(ports);
  return swept > 0 ? { ...counts, leftovers_removed: swept } : counts;
}

async function sweepOnce(context: ChunkContext): Promise<number> {
  await context.ports.crash('trace.before_sweep');
  const swept = await sweepArchive(context);
  await context.ports.crash('trace.after_sweep');
  return swept;
}
