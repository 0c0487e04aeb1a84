import { Temporal } from 'temporal-polyfill';

/** A daily window by the merchant's wall clock, in minutes after midnight: from included, until not. */
export interface Hours {
  fromMinute: number;
  untilMinute: number;
}

export type ParsedHours = { ok: true; hours: Hours } | { ok: false; reason: string };

const HOURS = /^(\d{2}):(\d{2})-(\d{2}):(\d{2})$/;

/** Reads `09:00-19:30`; the end may be `24:00`, and a window over midnight is refused. */
export function parseHours(text: string): ParsedHours {
  const match = HOURS.exec(text);
  if (match === null) return { ok: false, reason: 'must look like "09:00-19:30"' };
  const [fromHour, fromRest, untilHour, untilRest] = match.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
  ];
  const fromMinute = fromHour * 60 + fromRest;
  const untilMinute = untilHour * 60 + untilRest;
  if (fromRest > 59 || untilRest > 59 || fromMinute >= 1440 || untilMinute > 1440) {
    return { ok: false, reason: 'has a time that no clock shows' };
  }
  if (fromMinute >= untilMinute) return { ok: false, reason: 'must end after it starts, on the same day' };
  return { ok: true, hours: { fromMinute, untilMinute } };
}

export function businessDateOf(instant: Temporal.Instant, zone: string): Temporal.PlainDate {
  return instant.toZonedDateTimeISO(zone).toPlainDate();
}

export function hoursAllow(instant: Temporal.Instant, zone: string, hours: Hours): boolean {
  const local = instant.toZonedDateTimeISO(zone);
  const minute = local.hour * 60 + local.minute;
  return minute >= hours.fromMinute && minute < hours.untilMinute;
}

/** The first instant not before the given one at which the wall clock stands within the hours. */
export function nextAllowed(instant: Temporal.Instant, zone: string, hours: Hours): Temporal.Instant {
  if (hoursAllow(instant, zone, hours)) return instant;
  for (let date = businessDateOf(instant, zone); ; date = date.add({ days: 1 })) {
    for (const opening of openingsOn(date, zone, hours)) {
      if (Temporal.Instant.compare(opening, instant) >= 0 && hoursAllow(opening, zone, hours)) return opening;
    }
  }
}

/** When the window opens on a date: twice where the clock is set back over it, at the jump where it is skipped. */
function openingsOn(date: Temporal.PlainDate, zone: string, hours: Hours): Temporal.Instant[] {
  const local = date.toPlainDateTime({
    hour: Math.floor(hours.fromMinute / 60),
    minute: hours.fromMinute % 60,
  });
  const earlier = local.toZonedDateTime(zone, { disambiguation: 'earlier' });
  if (!earlier.toPlainDateTime().equals(local)) {
    const jump = earlier.getTimeZoneTransition('next');
    return jump === null ? [] : [jump.toInstant()];
  }
  return [earlier.toInstant(), local.toZonedDateTime(zone, { disambiguation: 'later' }).toInstant()];
}
