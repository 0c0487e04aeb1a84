import type { Carrier } from '../billing/carriers/carrier.ts';
import type { CheckoutPorts } from '../billing/checkout/start.ts';
import type { Db } from '../billing/db.ts';
import type { Randomness } from '../billing/ports.ts';

/** What the public server takes from the outside world. `Ports` of the jobs fit as they are. */
export interface WebPorts extends CheckoutPorts {
  randomness: Randomness;
  carrier: Pick<Carrier, 'name' | 'readCallback'>;
}

export interface WebContext {
  /** As the login role under row security: every query of a merchant's data names the merchant first. */
  db: Db;
  ports: WebPorts;
  /** `https://pay.example.jp`, without a slash at the end. */
  baseUrl: string;
  isSecure: boolean;
  /** Origins of the gateway's pages. */
  gatewayOrigins: readonly string[];
}
