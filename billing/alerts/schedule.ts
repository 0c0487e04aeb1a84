import { Temporal } from 'temporal-polyfill';

/** When notices are due. Pure. */

const secondNoticeAfterMinutes = 60;
const laterNoticesAfterMinutes = 240;
/** Minutes to the next try by how many were made. */
const retryMinutes = [1, 1, 2, 5, 10];
const longestRetryMinutes = 30;
export const digestTime = '08:00';

/** An alert for a person now: told at once, after an hour, and then every four hours until it is closed. */
export function isNoticeDue(
  alert: { notices: number; noticedAt: Temporal.Instant | null },
  now: Temporal.Instant,
): boolean {
  if (alert.noticedAt === null) return true;
  const minutes = alert.notices <= 1 ? secondNoticeAfterMinutes : laterNoticesAfterMinutes;
  return Temporal.Instant.compare(alert.noticedAt.add({ minutes }), now) <= 0;
}

/** `attempts`: including the one that has just failed. */
export function nextTryAt(attempts: number, now: Temporal.Instant): Temporal.Instant {
  return now.add({ minutes: retryMinutes[attempts - 1] ?? longestRetryMinutes });
}

/** The morning's digest: its date and the instant up to which it tells; null before the morning. */
export function digestOf(
  now: Temporal.Instant,
  timezone: string,
): { date: string; asOf: Temporal.Instant } | null {
  const date = now.toZonedDateTimeISO(timezone).toPlainDate();
  const asOf = date
    .toZonedDateTime({ timeZone: timezone, plainTime: Temporal.PlainTime.from(digestTime) })
    .toInstant();
  return Temporal.Instant.compare(asOf, now) <= 0 ? { date: date.toString(), asOf } : null;
}
