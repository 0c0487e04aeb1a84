import type { Db } from '../db.ts';
import { referenceOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { assertState } from '../refusal.ts';
import type { BillRow } from './bill.ts';
import { learnFromGateway } from './learn.ts';
import type { CheckoutPorts } from './start.ts';

/**
 * The visitor has chosen another way to pay than the one whose page is open: that page is closed, so that it takes no more
 * money, and what came of it is recorded. Whether the bill is free then is for the caller to look at again.
 */
export async function leavePage(
  db: Db,
  ports: CheckoutPorts,
  merchant: Merchant,
  bill: Pick<BillRow, 'charge_id' | 'gateway_session_id'>,
): Promise<void> {
  assertState(bill.charge_id, 'a page that is left has a charge');
  const { gateway, clock } = ports;
  await ports.crash('checkout.before_close');
  // An answer that is lost is asked for below: only a page that is proven to be closed frees the bill.
  await gateway
    .closeHostedPage(
      merchant.code,
      referenceOf(bill.charge_id),
      clock.deadline(gateway.semantics.callDeadlineMs),
      { gatewaySessionId: bill.gateway_session_id },
    )
    .catch((error: unknown) =>
      ports.log.warn({ merchant: merchant.code, chargeId: bill.charge_id, error }, 'a page was not closed'),
    );
  await ports.crash('checkout.after_close');
  await learnFromGateway(db, ports, merchant, [bill.charge_id], 'return');
}
