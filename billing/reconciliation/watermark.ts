import { Temporal } from 'temporal-polyfill';
import type { Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { completeTo, merchantSince, raiseWatermark, storedReports, watermarkFacts } from './queries.ts';

/** The settlement reports; what shops say has a watermark of its own. */
export const reportedMethod = 'card';

/** The day on which reports begin for a merchant. */
export async function reportsSince(db: Pick<Tx, 'query'>, merchant: Merchant): Promise<string> {
  const created = Temporal.Instant.from(await merchantSince(db, merchant.id));
  return created.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
}

/** The first day that is not known to be complete. */
async function unreportedSince(db: Pick<Tx, 'query'>, merchant: Merchant): Promise<string> {
  const complete = await completeTo(db, merchant.id, reportedMethod);
  if (complete === null) return reportsSince(db, merchant);
  return Temporal.PlainDate.from(complete).add({ days: 1 }).toString();
}

/**
 * A charge that has been open for so many days is a person's to clear up. Its own bill stays locked; that it also kept
 * all other bills of the merchant from their reminders and retries, perhaps for ever, would help nobody.
 */
const openDays = 3;

/**
 * Moves the watermark to the last day up to which every report is stored, no finding that keeps dunning waiting is open
 * and no charge that started lately is. Never backwards; doing it again changes nothing.
 */
export async function advanceWatermark(
  tx: Tx,
  merchant: Merchant,
  gateway: string,
  yesterday: string,
): Promise<boolean> {
  const from = await unreportedSince(tx, merchant);
  const day = (text: string) => Temporal.PlainDate.from(text);
  const openSince = day(yesterday)
    .subtract({ days: openDays - 1 })
    .toZonedDateTime(merchant.settings.timezone)
    .toInstant();
  const facts = await watermarkFacts(tx, merchant.id, gateway, openSince.toString());
  const dayBefore = (text: string) => day(text).subtract({ days: 1 }).toString();

  const stored = await storedReports(tx, merchant.id, gateway, from, yesterday);
  let complete = dayBefore(from);
  for (let next = from; next <= yesterday && stored.has(next); next = day(next).add({ days: 1 }).toString()) {
    complete = next;
  }
  if (facts.oldest_open_at !== null) {
    const openOn = Temporal.Instant.from(facts.oldest_open_at)
      .toZonedDateTimeISO(merchant.settings.timezone)
      .toPlainDate()
      .toString();
    complete = earlier(complete, dayBefore(openOn));
  }
  if (facts.differs_from !== null) complete = earlier(complete, dayBefore(facts.differs_from));
  return raiseWatermark(tx, merchant.id, reportedMethod, complete);
}

function earlier(one: string, other: string): string {
  return other < one ? other : one;
}
