import { counterLimitYen } from '../barcodes/digits.ts';
import type { Gateway } from '../gateways/gateway.ts';
import type { MerchantSettings } from '../merchants/settings.ts';

export type PayMethod = MerchantSettings['checkout']['methods'][number];

/**
 * The ways to pay that a bill's page offers, in the merchant's order: what he wants and the gateway has. Over the limit of
 * shops there is no barcode. Where nothing is left, what the gateway's page takes: a bill that is owed can be paid.
 */
export function methodsOffered(
  settings: Pick<MerchantSettings, 'checkout'>,
  gateway: Pick<Gateway, 'semantics' | 'barcodes'>,
  amount: number,
): PayMethod[] {
  const { pageMethods } = gateway.semantics;
  const offered = settings.checkout.methods.filter((method) =>
    method === 'barcode'
      ? gateway.barcodes !== null && settings.checkout.barcode != null && amount <= counterLimitYen
      : pageMethods.includes(method),
  );
  return offered.length > 0 ? offered : pageMethods.slice(0, 1);
}
