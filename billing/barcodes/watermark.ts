import { Temporal } from 'temporal-polyfill';
import type { Tx } from '../db.ts';
import type { BarcodePayments } from '../gateways/gateway.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { completeTo, raiseWatermark } from '../reconciliation/queries.ts';
import { firstIssuedOn } from './queries.ts';

/** Under which the news of shops are complete up to a date. */
export const barcodeMethod = 'barcode';

/**
 * From when on the gateway's news of barcodes are to be read, ISO 8601; null: no barcode was ever issued, there is nothing to
 * hear. The watermark says up to which day all payments are known; their news were read for `newsDays` more.
 */
export async function newsSince(
  db: Pick<Tx, 'query'>,
  merchant: Merchant,
  barcodes: BarcodePayments,
): Promise<string | null> {
  const { timezone } = merchant.settings;
  const complete = await completeTo(db, merchant.id, barcodeMethod);
  const first =
    complete === null
      ? await firstIssuedOn(db, merchant.id, timezone)
      : Temporal.PlainDate.from(complete)
          .add({ days: barcodes.newsDays + 1 })
          .toString();
  if (first === null) return null;
  return Temporal.PlainDate.from(first).toZonedDateTime(timezone).toInstant().toString();
}

/** All news up to `readTo` were taken in: every payment of the whole days before it, less the days that news take, is known. */
export async function advanceBarcodeWatermark(
  tx: Tx,
  merchant: Merchant,
  barcodes: BarcodePayments,
  readTo: Temporal.Instant,
): Promise<boolean> {
  const today = readTo.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate();
  const complete = today.subtract({ days: 1 + barcodes.newsDays }).toString();
  return raiseWatermark(tx, merchant.id, barcodeMethod, complete);
}
