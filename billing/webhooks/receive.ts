import { merchantIdOf, merchantOf } from '../checkout/queries.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { storeEvent, type WaitingEvent } from './queries.ts';

/** In an address for all merchants of a platform: the event itself says whose it is. No merchant's code has this form. */
const anyMerchant = '_';

export interface WebhookRequest {
  /** From the address: which gateway says it is speaking, of which merchant. */
  gateway: string;
  merchantCode: string;
  rawBody: Buffer;
  headers: Record<string, string | undefined>;
}

export type Received =
  /** Forged, stale, of another account or for nobody: nothing was stored. */
  | { kind: 'refused' }
  /** Genuine, and about nothing that this program made: may be acknowledged, so that it does not come again. */
  | { kind: 'not_ours' }
  /** Stands in the inbox: may be acknowledged, and handled after that. `event` is null where it was handled before. */
  | { kind: 'stored'; merchant: Merchant; event: WaitingEvent | null };

/** Proves a webhook by its signature over the raw bytes and puts it into the inbox. */
export async function receiveWebhook(
  db: Db,
  ports: CheckoutPorts,
  request: WebhookRequest,
): Promise<Received> {
  if (request.gateway !== ports.gateway.name) return { kind: 'refused' };
  const now = ports.clock.now();
  const hint = ports.gateway.verifyWebhook(request.rawBody, request.headers, now.epochMilliseconds);
  if (hint === null) return { kind: 'refused' };
  const { account, reference, gatewayAccount } = hint;
  if (reference === null) return { kind: 'not_ours' };
  if (request.merchantCode !== anyMerchant && account !== request.merchantCode) return { kind: 'refused' };
  const merchantId = await merchantIdOf(db, { code: account });
  if (merchantId === undefined) return { kind: 'refused' };
  return db.transaction(
    async (tx): Promise<Received> => {
      const merchant = await merchantOf(tx, merchantId);
      if (merchant === undefined) return { kind: 'refused' };
      const ofMerchant = merchant.settings.gateway?.stripeAccount ?? null;
      if (gatewayAccount !== undefined && gatewayAccount !== ofMerchant) return { kind: 'refused' };
      const isWaiting = await storeEvent(tx, merchantId, ports.gateway.name, { ...hint, reference }, now);
      return {
        kind: 'stored',
        merchant,
        event: isWaiting ? { event_id: hint.eventId, reference } : null,
      };
    },
    { merchantId },
  );
}
