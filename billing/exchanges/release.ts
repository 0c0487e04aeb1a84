import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db, Tx } from '../db.ts';
import { parkUnreleased } from '../gates/queries.ts';
import { cancelInvoices, isCancellable } from '../invoices/cancel.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { park, unpark } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import { correctingBills, emptyStaging, lockFile, moveFile, openHistory, postReleased } from './queries.ts';
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
    await replaceBills(tx, ports.ids, input);
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

/**
 * Bills that this file corrects end as it is released: never both are owed, and never neither. One that was paid, or began
 * to be, after the file was judged stays; the bill that was to replace it waits for a person.
 */
async function replaceBills(tx: Tx, ids: Ids, input: ReleaseFile): Promise<void> {
  const { act } = input;
  const correcting = await correctingBills(tx, act.merchantId, input.fileId);
  if (correcting.length === 0) return;
  const former = await lockInvoices(
    tx,
    act.merchantId,
    correcting.map((bill) => bill.replaces_id),
  );
  const replaceable = new Set(former.filter(isCancellable).map((bill) => bill.id));
  await cancelInvoices(tx, act, input, [...replaceable], 'replaced');
  const late = correcting.filter((bill) => !replaceable.has(bill.replaces_id)).map((bill) => bill.id);
  if (late.length === 0) return;
  await parkUnreleased(tx, act.merchantId, late);
  // A gate may have parked it for less; what the person has to know now is this.
  await unpark(tx, act.merchantId, act.at, 'invoice', late, 'replaced_too_late');
  await park(
    tx,
    act.merchantId,
    act.at,
    late.map((id) => ({
      id: ids.uuid(),
      subject: 'invoice',
      subjectId: id,
      reason: 'REPLACED_TOO_LATE',
      context: { replaces: correcting.find((bill) => bill.id === id)?.replaces ?? null },
    })),
  );
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: 'REPLACED_TOO_LATE',
    message: 'a bill was paid while its correction was loaded; the correction is parked',
    occurrences: late.length,
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
