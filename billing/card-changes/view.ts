import type { Temporal } from 'temporal-polyfill';
import type { BillView } from '../checkout/view-bill.ts';
import type { Db } from '../db.ts';
import type { OpenCardChange } from './card-change.ts';
import { type CardOnFile, cardOnFile, openChangeOf } from './queries.ts';
import { pageOf } from './start.ts';

export interface CardChangeView {
  card: CardOnFile;
  underWay: OpenCardChange | null;
  /** The gateway's page of the change that is under way is open. */
  goesOn: boolean;
}

/** Null: the contract of this bill is not charged to a card. */
export async function viewCardChange(
  db: Db,
  now: Temporal.Instant,
  { bill, merchant }: Pick<BillView, 'bill' | 'merchant'>,
): Promise<CardChangeView | null> {
  return db.transaction(
    async (tx) => {
      const card = await cardOnFile(tx, merchant.id, bill.contract_id);
      if (card === undefined) return null;
      const underWay = (await openChangeOf(tx, merchant.id, bill.contract_id)) ?? null;
      return { card, underWay, goesOn: underWay !== null && pageOf(underWay, now) !== null };
    },
    { merchantId: merchant.id },
  );
}
