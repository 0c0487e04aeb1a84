import { type BillRange, billsDue, rangesDue } from '../billing/autopay/queries.ts';
import { type DunningCounts, dunBills, forecastDunning } from '../billing/dunning/run.ts';
import { refuseInSafeMode } from '../billing/restores/queries.ts';
import { holdFence } from '../billing/runs/queries.ts';
import type { Job } from './job.ts';

const billsPerChunk = 1_000;

/** Decides the next step of every bill whose day has come. What it writes moves the bill's day, so a second run finds nothing. */
export const dunning: Job<BillRange & Record<string, unknown>> = {
  name: 'dunning',
  does: 'decides what comes next for unpaid and failed bills: wait, charge again, remind, offer a link, return',
  attention: ['parked'],

  async plan({ ports, merchant, businessDate }) {
    const ranges = await rangesDue(ports.db, merchant.id, 'dun', businessDate, billsPerChunk);
    return ranges.map((range) => ({ ...range }));
  },

  async runChunk({ ports, merchant, businessDate, fence, act }, range) {
    await ports.clock.refresh();
    const work = {
      act: { ...act, at: ports.clock.now() },
      merchant,
      businessDate,
      gateway: ports.gateway.name,
      ids: ports.ids,
      sealer: ports.sealer,
    };
    return ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      await refuseInSafeMode(tx);
      const bills = await billsDue(tx, merchant.id, 'dun', businessDate, range, null, billsPerChunk);
      return { bills: bills.length, ...(await dunBills(tx, work, bills)) };
    });
  },

  async dryRun({ ports, merchant, businessDate }) {
    const work = { merchant, businessDate, gateway: ports.gateway.name };
    const total: DunningCounts & { bills: number } = {
      bills: 0,
      waiting: 0,
      to_charge: 0,
      notified: 0,
      fell_back: 0,
      returned: 0,
      parked: 0,
    };
    for (const range of await rangesDue(ports.db, merchant.id, 'dun', businessDate, billsPerChunk)) {
      const bills = await billsDue(ports.db, merchant.id, 'dun', businessDate, range, null, billsPerChunk);
      const counts = await forecastDunning(ports.db, work, bills);
      total.bills += bills.length;
      for (const name of Object.keys(counts) as (keyof DunningCounts)[]) total[name] += counts[name];
    }
    return total;
  },
};
