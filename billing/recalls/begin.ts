import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import { lockFile } from '../exchanges/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { assertState, Refusal } from '../refusal.ts';
import { fileByName, insertRecall, type RecallableFile, recallOfFile, retryRefused } from './queries.ts';
import type { Recall } from './recall.ts';

export interface RecallPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
}

/** Refusals RECALL_NO_FILE, RECALL_NOT_POSSIBLE: the file is not there, is no billing file, or was never released. */
export async function recallableFile(
  db: Pick<Db, 'query'>,
  merchant: Merchant,
  name: string,
): Promise<RecallableFile> {
  const file = await fileByName(db, merchant.id, name);
  if (file === undefined) {
    throw new Refusal('RECALL_NO_FILE', `${merchant.code} has sent no file of this name`, {
      next: 'Give the name as the merchant sent it; the receipt has it.',
      context: { merchant: merchant.code },
      exitCode: 2,
    });
  }
  if (file.kind === 'billing' && file.state === 'released') return file;
  throw new Refusal(
    'RECALL_NOT_POSSIBLE',
    file.kind === 'billing'
      ? `the file is ${file.state}: none of its bills went out`
      : 'only billing files are recalled',
    {
      next:
        file.kind === 'billing'
          ? 'Nothing needs to be taken back. A file that is held is refused or released by: seikyu parked'
          : 'Undo what the file did by hand, bill by bill.',
      context: { merchant: merchant.code, kind: file.kind, state: file.state },
      exitCode: 2,
    },
  );
}

export interface BeginRecall {
  merchant: Merchant;
  file: RecallableFile;
  /** As typed back by the person who recalls. */
  count: number;
  sum: number;
  /** Who does it: stands on the act. */
  by: string;
}

/**
 * Writes down that a file is recalled; the work is carried on from that row by whoever comes. Begun before: that recall, with
 * what the gateway had refused tried once more. Refusal RECALL_NOT_CONFIRMED where count or sum are not the file's.
 */
export async function beginRecall(ports: RecallPorts, input: BeginRecall): Promise<Recall> {
  const { merchant, file, count, sum, by } = input;
  if (count !== file.bills || sum !== file.amount) {
    throw new Refusal('RECALL_NOT_CONFIRMED', 'count or sum typed back are not those of the file', {
      next: 'Look at the file and its receipt again: perhaps it is another one that was wrong. Nothing was changed.',
      context: { merchant: merchant.code },
      exitCode: 2,
    });
  }
  const act = await commandAct(ports, merchant.id, by);
  return ports.db.transaction(async (tx) => {
    await lockFile(tx, merchant.id, file.id);
    const before = await recallOfFile(tx, merchant.id, file.id);
    await recordAct(tx, act);
    if (before === undefined) {
      const { id: fileId, bills, amount } = file;
      await insertRecall(tx, act, { id: ports.ids.uuid(), fileId, bills, amount });
    } else await retryRefused(tx, merchant.id, before.id);
    const recall = await recallOfFile(tx, merchant.id, file.id);
    assertState(recall, `the recall of file ${file.id} is not there`);
    return recall;
  });
}
