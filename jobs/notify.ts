import type { Merchant } from '../billing/merchants/merchant.ts';
import { debitsToldBy, planDebitNotices, planFirstNotices } from '../billing/messages/plan.ts';
import { previewDue } from '../billing/messages/preview.ts';
import { countDue, countToAsk, countToBeDebited, filesToPlan } from '../billing/messages/queries.ts';
import { askAboutUnknown, sendDue } from '../billing/messages/send.ts';
import type { Counts, Job } from './job.ts';
import type { Ports } from './ports.ts';

/**
 * One chunk for a merchant: its SMS go out one after the other at the merchant's pace anyway. It plans before it sends,
 * and asks about lost answers in between, so that whatever the carrier never had goes in the same pass.
 */
export const notify: Job = {
  name: 'notify',
  does: 'plans and sends SMS: first notices, reminders, failure notices and notices before a debit, within the hours and at the pace',
  attention: ['parked'],

  async plan({ ports, merchant, businessDate }) {
    const { db, clock } = ports;
    const files = await filesToPlan(db, merchant.id);
    const due = await countDue(db, merchant.id, businessDate);
    const toAsk = await countToAsk(db, merchant.id, clock.now());
    const debits = await debitsToTell(ports, merchant, businessDate);
    return files.length + due + toAsk + debits > 0 ? [{}] : [];
  },

  async runChunk({ ports, merchant, businessDate, fence, act, stop, progress }) {
    const counts: Counts = {};
    const add = (more: Counts) => {
      for (const [name, count] of Object.entries(more)) counts[name] = (counts[name] ?? 0) + count;
    };
    await ports.clock.refresh();
    for (const { id: fileId } of await filesToPlan(ports.db, merchant.id)) {
      if (stop.aborted) break;
      const { db, sealer, clock } = ports;
      const planned = await planFirstNotices(db, {
        merchant,
        sealer,
        clock,
        businessDate,
        fileId,
        fence,
        stop,
      });
      add({ planned: planned.planned, skipped: planned.skipped });
    }
    const { db, sealer, clock } = ports;
    add(await planDebitNotices(db, { merchant, sealer, clock, businessDate, fence, stop }));
    const work = { merchant, businessDate, fence, act, stop, progress };
    add(await askAboutUnknown(ports, work));
    add(await sendDue(ports, work));
    return counts;
  },

  async dryRun({ ports, merchant, businessDate }) {
    const { db, clock } = ports;
    const debits = await debitsToTell(ports, merchant, businessDate);
    return {
      files_to_plan: (await filesToPlan(db, merchant.id)).length,
      debit_notices: debits,
      ...(await previewDue(ports, merchant, businessDate, debits)),
      to_ask: await countToAsk(db, merchant.id, clock.now()),
    };
  },
};

async function debitsToTell({ db }: Ports, merchant: Merchant, businessDate: string): Promise<number> {
  const by = debitsToldBy(merchant, businessDate);
  return by === null ? 0 : countToBeDebited(db, merchant.id, businessDate, by);
}
