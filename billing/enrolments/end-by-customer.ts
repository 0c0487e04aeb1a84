import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Link } from '../checkout/find-link.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { contractOfBill, endEnrolments } from './queries.ts';

/**
 * The customer ends automatic payment from the link of one of their bills, after the check. The merchant is told; bills that
 * come go by link, and so do open ones from their next step on. A charge that is under way runs on. False: none was active.
 */
export async function endByCustomer(db: Db, ports: { clock: Clock; ids: Ids }, link: Link): Promise<boolean> {
  const { merchantId, invoiceId } = link;
  const act: Act = {
    merchantId,
    id: ports.ids.uuid(),
    kind: 'visit',
    actor: 'visitor, by "stop automatic payment"',
    at: ports.clock.now(),
  };
  return db.transaction(
    async (tx) => {
      const contractId = await contractOfBill(tx, merchantId, invoiceId);
      if (contractId === undefined) return false;
      await recordAct(tx, act);
      return (await endEnrolments(tx, act, [contractId], true)).length > 0;
    },
    { merchantId },
  );
}
