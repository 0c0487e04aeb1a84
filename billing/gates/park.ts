import type { Act } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { RecordRange } from '../exchanges/queries.ts';
import type { GateSettings } from '../merchants/settings.ts';
import { type Parking, park } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import { filesAtLeast, judgeBill } from './gate.ts';
import { billHistories, highBills, parkUnreleased, suspectBills, usualFile } from './queries.ts';

export interface GatedRange {
  range: RecordRange;
  gates: GateSettings;
  /** Some lines are of customers who were here before. */
  knownCustomers: boolean;
  detailed: boolean;
}

/**
 * Parks what looks wrong among the bills just made of a range, in the load's own transaction: nobody has seen them, and
 * nobody will before a person has. Returns how many.
 */
export async function parkUnusual(
  tx: Tx,
  ids: Ids,
  act: Act,
  { range, gates, knownCustomers, detailed }: GatedRange,
): Promise<number> {
  const { billTimes, twice } = gates;
  if (billTimes === 0 && !twice) return 0;
  const usual = await usualFile(tx, range.merchantId);
  const usualBill = usual.files >= filesAtLeast ? usual.bill : null;
  const suspects = knownCustomers
    ? await suspectBills(tx, range, { times: billTimes, twice, usualBill, detailed })
    : usualBill !== null && billTimes > 0
      ? await highBills(tx, range, usualBill * billTimes)
      : [];
  if (suspects.length === 0) return 0;
  const parkings = (await billHistories(tx, range.merchantId, suspects)).flatMap((bill): Parking[] => {
    const found = judgeBill(bill, gates, usualBill);
    if (found === null) return [];
    return [
      {
        id: ids.uuid(),
        subject: 'invoice',
        subjectId: bill.invoice_id,
        reason: found.reason,
        context: { amount: bill.amount, usual: found.usual, bills: bill.bills, samePeriod: bill.samePeriod },
      },
    ];
  });
  if (parkings.length === 0) return 0;
  const parked = await parkUnreleased(
    tx,
    range.merchantId,
    parkings.map((each) => each.subjectId),
  );
  assertState(parked === parkings.length, `${parked} bills were parked of ${parkings.length}`);
  await park(tx, range.merchantId, act.at, parkings);
  for (const reason of new Set(parkings.map((each) => each.reason))) {
    const occurrences = parkings.filter((each) => each.reason === reason).length;
    await raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: range.merchantId,
      level: 'daily',
      cause: reason,
      message: 'bills that look wrong are parked before anything is sent or charged',
      occurrences,
    });
  }
  return parkings.length;
}
