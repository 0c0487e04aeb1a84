import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Db } from '../db.ts';
import { messageIdOf } from '../messages/message.ts';
import { unpark } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { applyCallbacks } from './queries.ts';
import type { CallbackPorts } from './receive.ts';

/** About a tenth of a second in one transaction. */
const callbacksAtOnce = 1_000;

/**
 * Records what a merchant's waiting callbacks say, until none waits. Safe to do twice, at once and in any order. Returns how
 * many were handled.
 */
export async function handleCallbacks(
  db: Db,
  ports: CallbackPorts & { ids: Ids },
  merchantId: number,
): Promise<number> {
  const { carrier, clock, ids } = ports;
  let handled = 0;
  for (;;) {
    await clock.refresh();
    const act: Act = {
      merchantId,
      id: ids.uuid(),
      kind: 'webhook',
      actor: `callback of ${carrier.name}`,
      at: clock.now(),
    };
    const taken = await db.transaction(
      async (tx) => {
        const { taken, messages } = await applyCallbacks(tx, act, carrier.name, callbacksAtOnce);
        const settled = messages.filter((message) => message.settled);
        if (settled.length > 0) {
          await recordAct(tx, act);
          const parked = settled.map((message) => messageIdOf(message.invoice_id, message.step));
          await unpark(tx, merchantId, act.at, 'message', parked, 'the carrier called back');
        }
        const [twice] = messages.filter((message) => message.taken_twice);
        if (twice !== undefined) {
          await raiseAlert(tx, ids.uuid(), act.at, {
            merchantId,
            level: 'now',
            cause: 'SMS_TAKEN_TWICE',
            message: `the SMS carrier ${carrier.name} took ${messageIdOf(twice.invoice_id, twice.step)} under two ids`,
          });
        }
        return taken;
      },
      { merchantId },
    );
    handled += taken;
    if (taken < callbacksAtOnce) return handled;
  }
}
