import { Temporal } from 'temporal-polyfill';
import type { Link } from '../checkout/find-link.ts';
import { merchantOf } from '../checkout/queries.ts';
import { todayOf } from '../checkout/view-bill.ts';
import type { Db } from '../db.ts';
import { freshLinkStep } from '../messages/message.ts';
import { planSteps } from '../messages/plan.ts';
import type { Clock } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import { freshLinksOf, lockForFreshLink } from './queries.ts';

export type FreshLink =
  /** It goes with the next SMS that leave, within the merchant's hours. */
  | 'planned'
  /** One is on its way, or there were enough of them. */
  | 'enough'
  /** The link is dead, or no SMS may go to the phone. */
  | 'not_possible';

/** Of one bill, ever: each costs an SMS, and whoever holds a link may press. */
export const freshLinksAtMost = 3;
const minutesBetween = 10;

/**
 * A further link of the bill, sent to the phone that the merchant gave and nowhere else: the way out for a customer whose
 * link rests because somebody else guessed. The older links stay as they are.
 */
export async function sendFreshLink(
  db: Db,
  ports: { clock: Clock; sealer: Sealer },
  link: Link,
): Promise<FreshLink> {
  const now = ports.clock.now();
  return db.transaction(
    async (tx) => {
      const merchant = await merchantOf(tx, link.merchantId);
      if (merchant === undefined || !(await lockForFreshLink(tx, link))) return 'not_possible';
      const known = await freshLinksOf(tx, link.merchantId, link.invoiceId);
      const isRecent =
        known.last_sent_at !== null &&
        Temporal.Instant.compare(
          now,
          Temporal.Instant.from(known.last_sent_at).add({ minutes: minutesBetween }),
        ) < 0;
      if (known.asked >= freshLinksAtMost || known.waiting > 0 || isRecent) return 'enough';
      const step = freshLinkStep(known.asked + 1);
      const { planned } = await planSteps(tx, {
        merchant,
        sealer: ports.sealer,
        at: now,
        steps: [{ invoiceId: link.invoiceId, step, plannedOn: todayOf(merchant, now) }],
      });
      return planned === 1 ? 'planned' : 'not_possible';
    },
    { merchantId: link.merchantId },
  );
}
