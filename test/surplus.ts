import { ensureAutoIntents } from '../billing/autopay/queries.ts';
import type { Learned } from '../billing/charges/charge.ts';
import { insertCharges } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { referenceOf } from '../billing/ids.ts';
import type { Bills, BillToMake } from './bills.ts';

export interface PaidTwice {
  invoiceId: string;
  /** The payment that is on the bill, and the one that is left over. */
  payment: string;
  credit: string;
}

/** A bill that is paid, and paid again by a charge that was thought to be without effect. */
export async function paidTwice(
  world: Bills,
  bill: BillToMake,
  method: 'card' | 'barcode' = 'card',
): Promise<PaidTwice> {
  const { ports, merchant, db, gateway } = world;
  const amount = bill.amount ?? 5_000;
  const invoiceId =
    (await world.make([{ collection: 'link', dueOn: '2026-12-20', ...bill }])).get(bill.number) ?? '';
  const act = () => ({
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'job' as const,
    actor: 'test',
    at: world.clock.now(),
  });
  const learn = (chargeId: string, outcome: Learned['outcome']) =>
    db.transaction((tx) =>
      recordOutcomes(tx, {
        act: act(),
        timezone: 'Asia/Tokyo',
        learnedBy: 'report',
        learned: [{ chargeId, outcome }],
        ids: ports.ids,
        sealer: ports.sealer,
      }),
    );
  const begin = async (): Promise<string> => {
    const id = ports.ids.uuid();
    const later = world.clock.now().add({ minutes: 1 }).toString();
    await db.transaction(async (tx) => {
      const intents = await ensureAutoIntents(tx, act(), [
        { intentId: ports.ids.uuid(), invoiceId, amount, currency: 'JPY' },
      ]);
      await insertCharges(tx, act(), [
        {
          id,
          intentId: intents.get(invoiceId) ?? '',
          invoiceId,
          sessionId: null,
          origin: 'link',
          gateway: gateway.name,
          paymentMethodId: null,
          amount,
          currency: 'JPY',
          businessDate: '2026-12-01',
          deadlineAt: later,
          askAt: later,
        },
      ]);
    });
    return id;
  };
  const captured = (id: string, by: 'card' | 'barcode'): Learned['outcome'] => {
    const gatewayChargeId = `ch_${gateway.captured.length + 1}`;
    const capturedAt = world.clock.now().toString();
    const taken = { gatewayChargeId, amount, currency: 'JPY', capturedAt };
    gateway.captured.push({ ...taken, reference: referenceOf(id), invoiceId, method: null });
    return { kind: 'succeeded', captured: { ...taken, method: by, savedMethod: null } };
  };
  const credit = await begin();
  await learn(credit, { kind: 'canceled', why: 'not_found' });
  const payment = await begin();
  await learn(payment, captured(payment, 'card'));
  await learn(credit, captured(credit, method));
  return { invoiceId, payment, credit };
}
