import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db } from '../db.ts';
import { park } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import { emptyStaging, lockFile, moveFile, openHistory, postReleased } from './queries.ts';
import { tieOutOf } from './tie-out.ts';

export interface ReleaseFile {
  fence: Fence;
  act: Act;
  fileId: string;
  /** YYYY-MM-DD of the run: the day on which the bills become due debts. */
  today: string;
  timezone: string;
}

/**
 * All bills of a loaded file become visible at once, with their debt in the ledger and their first history rows. A file
 * whose counts or amounts do not close is parked whole, and an operator is called.
 */
export async function releaseFile(
  ports: { db: Db; ids: Ids },
  input: ReleaseFile,
): Promise<'released' | 'parked'> {
  const { act, fileId } = input;
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, input.fence);
    const file = await lockFile(tx, act.merchantId, fileId);
    assertState(
      file.state === 'loading' && file.loaded_to_record === file.lines_read,
      `file ${fileId} is ${file.state}, ${file.loaded_to_record} of ${file.lines_read} records loaded`,
    );
    const tieOut = await tieOutOf(tx, act.merchantId, fileId);
    if (!tieOut.closes) {
      await park(tx, act.merchantId, act.at, [
        {
          id: ports.ids.uuid(),
          subject: 'file',
          subjectId: fileId,
          reason: 'TIE_OUT_OPEN',
          context: {
            file: file.name,
            linesRead: tieOut.lines.read,
            linesAccepted: tieOut.lines.accepted,
            linesRejected: tieOut.lines.rejected,
            amountAccepted: tieOut.amount.accepted,
            bills: tieOut.outcomes.open.count,
            billsAmount: tieOut.outcomes.open.amount,
          },
        },
      ]);
      await raiseAlert(tx, ports.ids.uuid(), act.at, {
        merchantId: act.merchantId,
        level: 'now',
        cause: 'TIE_OUT_OPEN',
        message: `counts or amounts of ${file.name} do not close; none of its bills was released`,
      });
      return 'parked';
    }
    await recordAct(tx, act);
    const postedOn = businessDateOf(act.at, input.timezone).toString();
    const posted = await postReleased(tx, act, fileId, { eventOn: input.today, postedOn });
    const opened = await openHistory(tx, act, fileId);
    assertState(
      posted === file.lines_accepted && opened === file.lines_accepted,
      `file ${fileId}: ${posted} transfers and ${opened} history rows for ${file.lines_accepted} bills`,
    );
    assertState(await moveFile(tx, act, fileId, 'released'), `file ${fileId} could not be released`);
    return 'released';
  });
}

/** Staged lines hold sealed contacts: gone as soon as the bills stand. */
export async function clearStaging(
  ports: { db: Db },
  input: { fence: Fence; act: Act; fileId: string },
): Promise<void> {
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, input.fence);
    await emptyStaging(tx, input.act.merchantId, input.fileId);
  });
}
