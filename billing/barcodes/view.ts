import type { Temporal } from 'temporal-polyfill';
import type { Link } from '../checkout/find-link.ts';
import { type BillView, todayOf, viewBill } from '../checkout/view-bill.ts';
import type { Db } from '../db.ts';
import { type BarcodeRow, newestBarcode } from './queries.ts';

/** A bill with the barcode that registers take now; null: there is none to show, and the bill page says how things stand. */
export async function viewBarcode(
  db: Db,
  now: Temporal.Instant,
  link: Link,
): Promise<{ view: BillView; barcode: BarcodeRow } | null> {
  const view = await viewBill(db, now, link);
  if (view === null || view.state !== 'owed') return null;
  const barcode = await db.transaction((tx) => newestBarcode(tx, link.merchantId, link.invoiceId), {
    merchantId: link.merchantId,
  });
  if (barcode === undefined || barcode.expires_on < todayOf(view.merchant, now)) return null;
  return { view, barcode };
}
