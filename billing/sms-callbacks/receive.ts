import type { Carrier, SmsCallback, SmsNews } from '../carriers/carrier.ts';
import { merchantIdOf } from '../checkout/queries.ts';
import type { Db } from '../db.ts';
import { messageOf } from '../messages/message.ts';
import type { Clock } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { everyMerchantId, recordOptOut, type StatusNews, storeCallbacks } from './queries.ts';

/** What a carrier's calls take from the outside world. */
export interface CallbackPorts {
  clock: Clock;
  sealer: Sealer;
  carrier: Pick<Carrier, 'name' | 'readCallback'>;
}

/** Proves a call by its signature. Null: forged, for another account, or about nothing that could be ours. */
export function readCallback(ports: CallbackPorts, callback: SmsCallback): SmsNews | null {
  const news = ports.carrier.readCallback?.(callback) ?? null;
  if (news?.kind !== 'status') return news;
  try {
    messageOf(news.messageId);
    return news;
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

/** Puts news into a merchant's inbox, many in one transaction. False: there is no such merchant. */
export async function storeNews(
  db: Db,
  ports: CallbackPorts,
  merchantCode: string,
  news: readonly StatusNews[],
): Promise<boolean> {
  const merchantId = await merchantIdOf(db, { code: merchantCode });
  if (merchantId === undefined) return false;
  await db.transaction((tx) => storeCallbacks(tx, merchantId, ports.carrier.name, news, ports.clock.now()), {
    merchantId,
  });
  return true;
}

/**
 * Writes down that a customer wants no SMS, or wants them again. All merchants send from one sender, and the carrier closes
 * that: so it holds for each of them.
 */
export async function storeOptOut(
  db: Db,
  ports: CallbackPorts,
  news: Extract<SmsNews, { kind: 'opted_out' | 'opted_in' }>,
): Promise<void> {
  const optOut = {
    phoneDigest: ports.sealer.digest(`phone:${news.phone}`),
    carrier: ports.carrier.name,
    wants: news.kind === 'opted_out' ? ('none' as const) : ('some' as const),
    at: ports.clock.now(),
  };
  for (const merchantId of await everyMerchantId(db)) {
    await db.transaction((tx) => recordOptOut(tx, merchantId, optOut), { merchantId });
  }
}
