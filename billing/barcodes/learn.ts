import type { Act } from '../acts/act.ts';
import { invoicesOfCharges } from '../charges/queries.ts';
import type { CheckoutPorts } from '../checkout/start.ts';
import type { Db } from '../db.ts';
import type { BarcodeAnswer } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { takeBarcodePayments } from './take-payments.ts';

/**
 * A webhook about a charge that is not known may be about a barcode that somebody paid: the gateway is asked. Those that are
 * known are asked about like every other charge. Returns the ids about which the gateway gave no answer.
 */
export async function learnPayments(
  db: Db,
  ports: CheckoutPorts,
  merchant: Merchant,
  chargeIds: readonly string[],
): Promise<Set<string>> {
  const { gateway, clock } = ports;
  const unanswered = new Set<string>();
  const { barcodes } = gateway;
  if (barcodes === null || chargeIds.length === 0) return unanswered;
  const known = await db.transaction((tx) => invoicesOfCharges(tx, merchant.id, chargeIds), {
    merchantId: merchant.id,
  });
  const knownIds = new Set(known.map((charge) => charge.charge_id));
  const answers = await Promise.all(
    chargeIds
      .filter((id) => !knownIds.has(id))
      .map(async (id) => ({
        id,
        answer: await barcodes
          .lookup(merchant.code, referenceOf(id), clock.deadline(gateway.semantics.callDeadlineMs))
          .catch((): BarcodeAnswer => ({ kind: 'unknown', why: 'the call broke' })),
      })),
  );
  for (const { id, answer } of answers) if (answer.kind === 'unknown') unanswered.add(id);
  const payments = answers.flatMap(({ answer }) => (answer.kind === 'found' ? [answer.payment] : []));
  if (payments.length === 0) return unanswered;
  await ports.crash('barcode.after_lookup');
  await clock.refresh();
  const act: Act = {
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'webhook',
    actor: `webhook of ${gateway.name}`,
    at: clock.now(),
  };
  await db.transaction(
    (tx) =>
      takeBarcodePayments(tx, {
        act,
        merchant,
        gateway: gateway.name,
        ids: ports.ids,
        sealer: ports.sealer,
        learnedBy: 'webhook',
        payments,
      }),
    { merchantId: merchant.id },
  );
  return unanswered;
}
