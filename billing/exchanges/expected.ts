import { Temporal } from 'temporal-polyfill';
import { raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import { cutOffOf, type ExpectedFile, expectedBefore, expectedDays } from '../calendar/expected-days.ts';
import type { Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Ids } from '../ports.ts';
import { calendarSince, filesOfDays, openCausesOf } from './queries.ts';

/** So far back is looked for files that never came: after an outage of ours, too. */
const lookBackDays = 7;
const word = 'FILE_LATE';

/** `FILE_LATE billing 2026-11-25`: one alert for each expected file. */
const causeOf = (kind: string, day: string): string => `${word} ${kind} ${day}`;

/**
 * Calls a person for each file that the merchant's calendar expects and that has not come by its cut-off, once, and closes the
 * call when it comes after all. A file counts for the day in its header; refused ones do not count: they must be sent again.
 * Returns how many are late.
 */
export async function watchExpectedFiles(
  tx: Tx,
  ids: Ids,
  merchant: Merchant,
  now: Temporal.Instant,
): Promise<number> {
  const { calendar = [], timezone } = merchant.settings;
  const open = await openCausesOf(tx, merchant.id, word);
  if (calendar.length === 0 && open.length === 0) return 0;
  const today = now.toZonedDateTimeISO(timezone).toPlainDate();
  // Whoever was given a calendar this morning owes nothing of last week.
  const since = await calendarSince(tx, merchant.id);
  const missing: { entry: ExpectedFile; day: string }[] = [];
  const expected = new Set<string>();
  for (const entry of calendar) {
    const told = open.flatMap((cause) =>
      cause.startsWith(`${word} ${entry.kind} `) ? [cause.slice(-10)] : [],
    );
    const from = [today.subtract({ days: lookBackDays }).toString(), ...told].sort()[0] ?? today.toString();
    const days = expectedDays(entry, Temporal.PlainDate.from(from), today).filter(
      (day) =>
        since !== null &&
        Temporal.Instant.compare(cutOffOf(entry, day, timezone), Temporal.Instant.from(since)) > 0 &&
        Temporal.Instant.compare(cutOffOf(entry, day, timezone), now) <= 0,
    );
    const first = days[0];
    if (first === undefined) continue;
    const came = await filesOfDays(tx, merchant.id, entry.kind, expectedBefore(entry, first).toString());
    for (const day of days) {
      const after = expectedBefore(entry, day).toString();
      expected.add(causeOf(entry.kind, day.toString()));
      if (!came.some((date) => date > after && date <= day.toString()))
        missing.push({ entry, day: day.toString() });
    }
  }
  await raiseStanding(
    tx,
    merchant.id,
    now,
    missing.map(({ entry: { kind }, day }) => ({
      id: ids.uuid(),
      level: 'now',
      cause: causeOf(kind, day),
      message: `no ${kind} file of ${day} has come by its time`,
      occurrences: 1,
    })),
  );
  const late = new Set(missing.map(({ entry, day }) => causeOf(entry.kind, day)));
  await resolveAlerts(
    tx,
    merchant.id,
    now,
    open.filter((cause) => !late.has(cause)),
    'the file has come, or is no longer expected',
  );
  return late.size;
}
