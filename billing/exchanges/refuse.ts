import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Tx } from '../db.ts';
import { unpark } from '../parked/queries.ts';
import { assertState } from '../refusal.ts';
import type { FileVerdict } from './file.ts';
import { moveFile } from './queries.ts';

/**
 * Nothing of the file is loaded; its receipt carries the code and zeros. Its sequence number is not used up: it may be
 * sent again.
 */
export async function refuseFile(
  tx: Tx,
  act: Act,
  fileId: string,
  code: string,
  verdict: FileVerdict | null,
): Promise<void> {
  await recordAct(tx, act);
  const moved = await moveFile(tx, act, fileId, 'refused', {
    fileCode: code,
    businessDate: verdict?.header?.businessDate ?? null,
    sequence: verdict?.header?.sequence ?? null,
    linesRead: 0,
    linesAccepted: 0,
    linesRejected: 0,
    amountAccepted: 0,
  });
  assertState(moved, `file ${fileId} could not be refused`);
  await unpark(tx, act.merchantId, act.at, 'file', [fileId], 'refused');
}
