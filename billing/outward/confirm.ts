import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { parkedFiles, unpark } from '../parked/queries.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { markDelivered } from './queries.ts';

/**
 * The merchant says that it has the file, whose delivery was never confirmed: it counts as delivered and is not sent
 * again. Refusal FILE_NOT_IN_DOUBT where no such file is parked.
 */
export async function confirmFile(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  name: string,
  actor: string,
): Promise<void> {
  const act = await commandAct(ports, merchant.id, actor);
  await ports.db.transaction(async (tx) => {
    const [file] = await parkedFiles(tx, merchant.id, [name]);
    if (file?.reason === 'OUTWARD_FILE_GONE') {
      await recordAct(tx, act);
      if (await markDelivered(tx, act, file.id)) {
        await unpark(tx, merchant.id, act.at, 'file', [file.id], 'confirmed');
        return;
      }
    }
    throw new Refusal(
      'FILE_NOT_IN_DOUBT',
      'no file of this name waits for the merchant to say whether it has it',
      {
        next: 'seikyu parked shows which do: reason OUTWARD_FILE_GONE.',
        exitCode: 2,
      },
    );
  });
}
