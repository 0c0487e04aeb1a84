import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db } from '../db.ts';
import { refuseFile } from '../exchanges/refuse.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { returnUnpaid } from '../invoices/return.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { heldFiles, type ParkedBill, parkedBills } from './queries.ts';

export interface ReturnedParked {
  returned: string[];
  /** Billing numbers that stay, with the reason. */
  kept: { billingNumber: string; why: 'not_parked' | 'payment_under_way' }[];
}

/** Hands parked bills back to the merchant unpaid, as a person decided. Run again, it changes nothing. */
export async function returnParked(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  billingNumbers: readonly string[],
  actor: string,
): Promise<ReturnedParked> {
  await ports.clock.refresh();
  const at = ports.clock.now();
  const today = at.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
  return ports.db.transaction(async (tx) => {
    const bills = new Map<string, ParkedBill>();
    for (const bill of await parkedBills(tx, merchant.id, billingNumbers))
      bills.set(bill.billing_number, bill);
    const locked = await lockInvoices(
      tx,
      merchant.id,
      [...bills.values()].map((bill) => bill.id),
    );
    const free = locked.filter((invoice) => invoice.state === 'parked' && invoice.locked_by === null);
    const act = { merchantId: merchant.id, id: ports.ids.uuid(), kind: 'command' as const, actor, at };
    if (free.length > 0) await recordAct(tx, act);
    await returnUnpaid(
      tx,
      act,
      { businessDate: today, today },
      free.map((invoice) => invoice.id),
    );
    const returned = free.map((invoice) => invoice.billing_number);
    return {
      returned,
      kept: billingNumbers
        .filter((number) => !returned.includes(number))
        .map((billingNumber) => ({
          billingNumber,
          why: locked.some(
            (invoice) => invoice.billing_number === billingNumber && invoice.locked_by !== null,
          )
            ? 'payment_under_way'
            : 'not_parked',
        })),
    };
  });
}

export interface ReturnedFiles {
  returned: string[];
  /** Names of files that are not held. */
  kept: string[];
}

/** Refuses held files, as a person decided: nothing of them is loaded, and their receipts say for what they were held. */
export async function returnHeldFiles(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  names: readonly string[],
  actor: string,
): Promise<ReturnedFiles> {
  const act = await commandAct(ports, merchant.id, actor);
  return ports.db.transaction(async (tx) => {
    const held = await heldFiles(tx, merchant.id, names);
    for (const file of held) await refuseFile(tx, act, file.id, file.file_code, null);
    const returned = held.map((file) => file.name);
    return { returned, kept: names.filter((name) => !returned.includes(name)) };
  });
}
