import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import { park } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import { type BillingFile, type FileVerdict, type HoldCode, isHoldCode } from './file.ts';
import { moveFile } from './queries.ts';
import { refuseFile } from './refuse.ts';

/** Nothing of the file is loaded, and nothing is told of it, before a person has looked. */
async function holdFile(
  tx: Tx,
  ids: Ids,
  act: Act,
  file: BillingFile,
  code: HoldCode,
  verdict: FileVerdict | null,
): Promise<void> {
  await recordAct(tx, act);
  const moved = await moveFile(tx, act, file.id, 'held', {
    fileCode: code,
    businessDate: verdict?.header?.businessDate ?? null,
    sequence: verdict?.header?.sequence ?? null,
    linesRead: verdict?.linesRead ?? 0,
    amountTrailer: verdict?.trailer?.total ?? 0,
  });
  assertState(moved, `file ${file.id} could not be held`);
  await park(tx, act.merchantId, act.at, [
    {
      id: ids.uuid(),
      subject: 'file',
      subjectId: file.id,
      reason: code,
      context: {
        file: file.name,
        sequence: verdict?.header?.sequence ?? null,
        lines: verdict?.linesRead ?? 0,
        total: verdict?.trailer?.total ?? 0,
      },
    },
  ]);
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: code,
    message: `${file.name} is held (${code}): none of its lines counts before somebody has looked`,
  });
}

export type SetAside = { refused: string } | { held: HoldCode };

/** What a file's code says is done with it. */
export async function setAside(
  tx: Tx,
  ids: Ids,
  act: Act,
  file: BillingFile,
  code: string,
  verdict: FileVerdict | null,
): Promise<SetAside> {
  if (isHoldCode(code)) {
    await holdFile(tx, ids, act, file, code, verdict);
    return { held: code };
  }
  await refuseFile(tx, act, file.id, code, verdict);
  return { refused: code };
}
