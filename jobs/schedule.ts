import { Temporal } from 'temporal-polyfill';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { lastRequested, requestRun } from '../billing/runs/queries.ts';
import type { JobName } from './job.ts';
import type { Ports } from './ports.ts';

export interface Timed {
  job: JobName;
  /** Wall clock of the merchant, HH:MM. */
  first: string;
  /** With `everyMinutes`: the last look of the day. */
  last?: string;
  everyMinutes?: number;
}

/** The whole timetable. Off the hour, so that a night's jobs do not start together with everybody else's. */
export const timetable: readonly Timed[] = [
  { job: 'fetch', first: '04:10', last: '21:40', everyMinutes: 15 },
  { job: 'ingest', first: '04:20', last: '21:50', everyMinutes: 15 },
  { job: 'trace', first: '00:05', last: '23:55', everyMinutes: 5 },
  { job: 'reconcile', first: '05:12', last: '11:12', everyMinutes: 60 },
  { job: 'refresh', first: '05:51', last: '17:51', everyMinutes: 120 },
  { job: 'charge', first: '06:07', last: '20:07', everyMinutes: 120 },
  { job: 'debit', first: '05:42', last: '20:42', everyMinutes: 60 },
  { job: 'dunning', first: '08:17', last: '18:17', everyMinutes: 120 },
  { job: 'notify', first: '08:52', last: '20:52', everyMinutes: 10 },
  { job: 'deliver', first: '04:40', last: '22:10', everyMinutes: 30 },
];

function minuteOf(text: string): number {
  return Number(text.slice(0, 2)) * 60 + Number(text.slice(3, 5));
}

/** The latest slot of the day that has come by this time; undefined before the first. */
export function slotAt(timed: Timed, now: Temporal.ZonedDateTime): Temporal.Instant | undefined {
  const minute = now.hour * 60 + now.minute;
  const first = minuteOf(timed.first);
  if (minute < first) return undefined;
  const last = minuteOf(timed.last ?? timed.first);
  const every = timed.everyMinutes ?? 24 * 60;
  const slot = first + Math.floor((Math.min(minute, last) - first) / every) * every;
  // By wall clock: on the day when summer time starts, 02:30 does not exist and the slot falls on 03:30.
  return now
    .toPlainDate()
    .toZonedDateTime({
      timeZone: now.timeZoneId,
      plainTime: Temporal.PlainTime.from({ hour: Math.floor(slot / 60), minute: slot % 60 }),
    })
    .toInstant();
}

/**
 * Asks for every run whose slot has come and that nobody has asked for since. Called by each tick of the cron; a missed
 * tick, a doubled one or two schedulers at once change nothing, since the run table remembers.
 */
export async function requestDueRuns(
  ports: Pick<Ports, 'db' | 'clock'>,
  merchants: readonly Merchant[],
): Promise<number> {
  await ports.clock.refresh();
  const now = ports.clock.now();
  let requested = 0;
  for (const merchant of merchants) {
    const local = now.toZonedDateTimeISO(merchant.settings.timezone);
    const businessDate = local.toPlainDate().toString();
    const asked = await lastRequested(ports.db, merchant.id, businessDate);
    for (const timed of timetable) {
      const slot = slotAt(timed, local);
      const last = asked.get(timed.job);
      if (
        slot === undefined ||
        (last !== undefined && Temporal.Instant.compare(Temporal.Instant.from(last), slot) >= 0)
      )
        continue;
      requested += await requestRun(
        ports.db,
        { merchantId: merchant.id, job: timed.job, businessDate },
        now,
        true,
      );
    }
  }
  return requested;
}
