import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import { insertFile, lockMerchant, type NewFile } from '../exchanges/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { filesHere } from './queries.ts';

/** An input file as the archive knows it. `registered`: the database had it once, under this id. */
export type ArchivedFile = NewFile & { registered: boolean };

/**
 * Takes up again what was taken from the merchant's inbox after the backup, under the ids that the files had: their bills
 * get the ids that gateway, carrier and links know. They count as not removed yet, so that `fetch` looks whether they still
 * lie in the inbox. Returns how many were forgotten.
 */
export async function takeInFiles(
  ports: { db: Db; clock: Clock; ids: Ids },
  work: { merchant: Merchant; actor: string },
  archived: readonly ArchivedFile[],
): Promise<number> {
  if (archived.length === 0) return 0;
  const { merchant, actor } = work;
  await ports.clock.refresh();
  const at = ports.clock.now();
  const act: Act = { merchantId: merchant.id, id: ports.ids.uuid(), kind: 'command', actor, at };
  return ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    await lockMerchant(tx, merchant.id);
    const here = await filesHere(tx, merchant.id, archived);
    // A copy that no database ever had is taken only where it is the only one: the process died before it could say.
    const wholes = new Set(archived.filter(({ registered }) => registered).map(contentOf));
    const forgotten = archived.filter(
      (file) =>
        !here.ids.has(file.id) &&
        (file.registered || !(wholes.has(contentOf(file)) || here.contents.has(contentOf(file)))),
    );
    let taken = 0;
    // A handful: files that came between the backup and now.
    for (const file of forgotten) {
      const settingsVersion = Math.min(file.settingsVersion, merchant.settingsVersion);
      if (await insertFile(tx, act, { ...file, settingsVersion }, at, at)) taken += 1;
    }
    return taken;
  });
}

function contentOf(file: { name: string; sha256: string }): string {
  return `${file.name} ${file.sha256}`;
}
