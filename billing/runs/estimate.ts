import type { RunProgress } from './queries.ts';

/** What was done in this time tells how fast it goes now: long enough for a few chunks, short enough to be true. */
export const latelySeconds = 300;

export interface Estimate {
  /** Bills a second; null: no chunk has ended lately. */
  perSecond: number | null;
  /** Seconds until the last bill; null: nobody can say. */
  secondsLeft: number | null;
}

/**
 * How long a run still takes, from what its chunks took lately and never faster than the pace it keeps. Nobody knows while
 * it is halted or the gateway rests.
 */
export function estimateOf(
  progress: Pick<RunProgress, 'bills' | 'bills_done' | 'bills_lately' | 'seconds_lately' | 'halt'>,
  gateway: { pace: number | null; rests: boolean },
): Estimate {
  const { bills, bills_done, bills_lately, seconds_lately, halt } = progress;
  const measured = bills_lately > 0 && seconds_lately > 0 ? bills_lately / seconds_lately : null;
  const perSecond = measured === null ? gateway.pace : Math.min(measured, gateway.pace ?? measured);
  const left = bills - bills_done;
  if (left <= 0) return { perSecond: measured, secondsLeft: 0 };
  if (halt !== null || gateway.rests || perSecond === null) return { perSecond: measured, secondsLeft: null };
  return { perSecond: measured, secondsLeft: Math.ceil(left / perSecond) };
}
