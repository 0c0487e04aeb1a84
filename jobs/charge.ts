import { raiseAlert } from '../billing/alerts/queries.ts';
import { callGateway, claimBatch, recordBatch } from '../billing/autopay/charge-batch.ts';
import {
  gatewayDownCause,
  gatewayRests,
  planCharges,
  refuseUnsafeDatabase,
  silentCallsAtMost,
} from '../billing/autopay/plan.ts';
import { type BillRange, forecastCharges } from '../billing/autopay/queries.ts';
import { reportedMethod } from '../billing/reconciliation/watermark.ts';
import type { ChunkContext, Counts, Job } from './job.ts';

/**
 * Charges saved cards. Intent, commit, call, outcome, batch after batch: while the outcomes of one batch are written,
 * the intents of the next are. A worker that lost its chunk writes nothing; its outcomes are found by trace.
 */
export const charge: Job<BillRange & Record<string, unknown>> = {
  name: 'charge',
  does: 'charges bills on automatic payment whose debit date or retry has come',
  attention: ['gateway_down', 'amount_differs', 'parked'],

  async plan({ ports, merchant, businessDate }) {
    await refuseUnsafeDatabase(ports.db);
    return (await planCharges(ports.db, merchant.id, businessDate)).map((range) => ({ ...range }));
  },

  async runChunk(context, range) {
    const { ports, merchant, stop } = context;
    await refuseUnsafeDatabase(ports.db);
    if (await gatewayRests(ports.db, merchant.id, ports.gateway.name, ports.clock.now()))
      return { gateway_down: 1 };
    const counts: Counts = {};
    const add = (name: string, count: number) => {
      if (count > 0) counts[name] = (counts[name] ?? 0) + count;
    };
    if (stop.aborted) return counts;
    let after: string | null = null;
    let silent = 0;
    let open = await claim(context, range, null, add);
    while (open.after !== null) {
      after = open.after;
      await ports.crash('charge.after_intent');
      const called = await callGateway(ports, open.intents);
      await ports.crash('charge.after_gateway');
      for (const { outcome } of called.learned) {
        silent = outcome.kind === 'succeeded' || outcome.kind === 'failed' ? 0 : silent + 1;
      }
      const down = silent >= silentCallsAtMost;
      const ends = down || stop.aborted;
      // Both are waited for, whichever fails: a transaction must not outlive its chunk.
      const [recorded, next] = await Promise.allSettled([
        recordBatch(ports, context, called),
        ends ? { intents: [], after: null } : claim(context, range, after, add),
      ]);
      if (recorded.status === 'rejected') throw recorded.reason;
      if (next.status === 'rejected') throw next.reason;
      await ports.crash('charge.after_outcome');
      const { succeeded, failed, canceled, unknown, known, parked } = recorded.value;
      add('charged', succeeded);
      add('declined', failed);
      add('deferred', canceled);
      add('unknown', unknown);
      add('known', known);
      add('parked', parked);
      add('amount_differs', called.differing.length);
      if (down) {
        add('gateway_down', 1);
        await tellGatewayDown(context);
      }
      open = next.value;
    }
    return counts;
  },

  async dryRun({ ports, merchant, businessDate }) {
    return {
      ...(await forecastCharges(ports.db, merchant.id, ports.gateway.name, reportedMethod, businessDate)),
    };
  },
};

async function claim(
  context: ChunkContext,
  range: BillRange,
  after: string | null,
  add: (name: string, count: number) => void,
) {
  const batch = await claimBatch(context.ports, context, range, after);
  add('locked', batch.locked);
  add('waiting_for_reports', batch.waitingForReports);
  add('no_method', batch.noMethod);
  add('not_automatic', batch.notAutomatic);
  add('held', batch.held);
  return { intents: batch.intents, after: batch.after };
}

async function tellGatewayDown({ ports, merchant }: ChunkContext): Promise<void> {
  await raiseAlert(ports.db, ports.ids.uuid(), ports.clock.now(), {
    merchantId: merchant.id,
    level: 'now',
    cause: gatewayDownCause(ports.gateway.name),
    message: `the gateway ${ports.gateway.name} answers nothing conclusive; charging stopped, run the charge job again when it is back`,
  });
}
