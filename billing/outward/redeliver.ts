import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { deliverAgain } from './queries.ts';

/**
 * The next pass of `deliver` uploads the file again, byte for byte as it was kept. Refusal FILE_NOT_DELIVERED where there
 * is no delivered file of the name.
 */
export async function redeliverFile(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  name: string,
  actor: string,
): Promise<void> {
  const act = await commandAct(ports, merchant.id, actor);
  await ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    if (await deliverAgain(tx, act, name)) return;
    throw new Refusal('FILE_NOT_DELIVERED', 'no file of this name was delivered to the merchant', {
      next: 'seikyu file list shows the names. One that is not delivered yet goes out with: seikyu run deliver. A request for bank debits goes out once only: asked twice, a bank may debit twice',
      exitCode: 2,
    });
  });
}
