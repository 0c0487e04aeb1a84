import { type Act, commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { contractsOf } from '../customers/queries.ts';
import { customerUnknown } from '../customers/unknown.ts';
import type { Db, Tx } from '../db.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import type { HoldReason } from './hold.ts';
import { endChangedHolds, type HoldWish, liftHolds, openBillsOf, placeHolds } from './queries.ts';

export interface HoldChange {
  customerId: string;
  /** Null: all contracts of the customer. */
  contractId: string | null;
  what: 'place' | 'lift';
  reason: HoldReason;
  /** YYYY-MM-DD, the last day; null: until it is lifted. */
  untilOn: string | null;
}

/**
 * Places and lifts holds in the caller's transaction, set-based. The bills of these customers are locked first: a charge
 * that was begun before runs on, and none begins after. What was held and is not any more is dunning's to look at again.
 */
export async function changeHolds(
  tx: Tx,
  ids: Ids,
  work: { act: Act; fileId: string | null; today: string },
  changes: readonly HoldChange[],
): Promise<void> {
  if (changes.length === 0) return;
  const { act } = work;
  const customers = [...new Set(changes.map((change) => change.customerId))];
  const open = await openBillsOf(tx, act.merchantId, customers);
  const bills = await lockInvoices(tx, act.merchantId, open);
  const placing = changes
    .filter((change) => change.what === 'place')
    .map((change): HoldWish => ({ ...change, id: ids.uuid() }));
  // Lifted first: a lift for all contracts ends no hold that the same file places on one of them.
  const lifting = changes.filter((change) => change.what === 'lift');
  const freed = new Set(lifting.length > 0 ? await liftHolds(tx, act, lifting) : []);
  let ended = 0;
  if (placing.length > 0) {
    ended = await endChangedHolds(tx, act, placing);
    await placeHolds(tx, act, work.fileId, placing);
  }
  // One that ends on another day now has its bills waiting for the old one.
  if (ended > 0) for (const { customerId } of placing) freed.add(customerId);
  await setAgenda(
    tx,
    act.merchantId,
    bills
      .filter((bill) => freed.has(bill.customer_id) && bill.state === 'open' && bill.locked_by === null)
      .map((bill) => ({ invoiceId: bill.id, act: 'dun', actOn: work.today })),
  );
}

export interface HoldByHand {
  customerNumber: string;
  /** '' = all contracts. */
  contractNumber: string;
  what: 'place' | 'lift';
  reason: HoldReason;
  untilOn: string | null;
}

/** As a file would do it. Refusal CUSTOMER_UNKNOWN. */
export async function changeHoldByHand(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  hold: HoldByHand,
  actor: string,
): Promise<void> {
  const act = await commandAct(ports, merchant.id, actor);
  const today = act.at.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
  await ports.db.transaction(async (tx) => {
    const [subject] = await contractsOf(tx, merchant.id, [hold]);
    if (!subject?.customer_id || !subject.contract_id) throw customerUnknown();
    await recordAct(tx, act);
    const contractId = hold.contractNumber === '' ? null : subject.contract_id;
    await changeHolds(tx, ports.ids, { act, fileId: null, today }, [
      { ...hold, customerId: subject.customer_id, contractId },
    ]);
  });
}
