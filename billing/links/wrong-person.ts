import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Link } from '../checkout/find-link.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { endLinksOfWrongPerson } from './queries.ts';

/**
 * Who has the phone says that the bill is not theirs: the links that it got die, and no further SMS goes to it for this
 * customer until the merchant sends the customer's contact again. A second press changes nothing. False: it was known.
 */
export async function reportWrongPerson(
  db: Db,
  ports: { clock: Clock; ids: Ids },
  link: Link,
): Promise<boolean> {
  const act: Act = {
    merchantId: link.merchantId,
    id: ports.ids.uuid(),
    kind: 'visit',
    actor: 'visitor, by "this is not for me"',
    at: ports.clock.now(),
  };
  return db.transaction(
    async (tx) => {
      await recordAct(tx, act);
      const phones = await endLinksOfWrongPerson(tx, act, link);
      if (phones === 0) return false;
      await raiseAlert(tx, ports.ids.uuid(), act.at, {
        merchantId: link.merchantId,
        level: 'daily',
        cause: 'WRONG_PERSON',
        message:
          'SMS reached somebody who is not the customer; their links are dead and nothing more is sent there',
      });
      return true;
    },
    { merchantId: link.merchantId },
  );
}
