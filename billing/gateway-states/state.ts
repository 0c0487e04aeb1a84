import { Temporal } from 'temporal-polyfill';

/** What all processes know of a merchant's account at a gateway. */
export interface GatewayState {
  /** Charges a second; null: as fast as the settings allow. */
  pacePerSecond: number | null;
  /** When it was last found too fast. */
  slowedAt: Temporal.Instant | null;
  /** Calls in a row without one conclusive answer. */
  silent: number;
  /** Null: it answers. */
  rest: Rest | null;
}

export interface Rest {
  openedAt: Temporal.Instant;
  /** From then on one process tries with one charge. */
  probeAt: Temporal.Instant;
  seconds: number;
}

export interface GatewayLimits {
  /** Charges a second that the gateway allows; null: it does not say. */
  ratePerSecond: number | null;
  /** Calls at the same time over all processes; null: each process its own number. */
  concurrency: number | null;
}

/** What one batch of calls has shown. */
export interface BatchNews {
  /** Answers that the gateway was asked too fast. */
  refused: number;
  /** Whether any answer told what became of a charge. */
  anyConclusive: boolean;
  /** Calls since the last such answer, or all of them. */
  silentAtEnd: number;
}

export const fresh: GatewayState = { pacePerSecond: null, slowedAt: null, silent: 0, rest: null };

/** After this many calls in a row without one conclusive answer the gateway counts as down. */
export const silentCallsAtMost = 32;
/** The first rest; each failed probe doubles it. Every probe costs a bill an unknown outcome. */
const firstRestSeconds = 30;
const restSecondsAtMost = 300;
/** So long a probe may take before another process may try: a killed one must not keep all others waiting. */
export const probeSeconds = 120;

/** A gateway counts by its own clock: at its full rate every second call at a border of seconds would be one too many. */
const shareOfRate = 0.98;
/** Where nobody said how fast, and it was too fast. */
const firstPace = 32;
const slowest = 1;
/** Faster than this no pace is kept. */
const fastest = 1_000;
/** All processes hear the same refusal: it counts once. */
const slowedAtMostEveryMs = 1_000;

/** The pace to call at, or null for none. */
export function paceOf(state: GatewayState, limits: GatewayLimits): number | null {
  const allowed = limits.ratePerSecond === null ? null : limits.ratePerSecond * shareOfRate;
  if (state.pacePerSecond === null) return allowed;
  return allowed === null ? state.pacePerSecond : Math.min(allowed, state.pacePerSecond);
}

/** The state after a batch: slower by half where the gateway was asked too fast, else a little faster; at rest where it is silent. */
export function afterBatch(
  state: GatewayState,
  news: BatchNews,
  limits: GatewayLimits,
  now: Temporal.Instant,
): GatewayState {
  return { ...paced(state, news, limits, now), ...heard(state, news, now) };
}

function paced(
  state: GatewayState,
  { refused, anyConclusive }: BatchNews,
  limits: GatewayLimits,
  now: Temporal.Instant,
): Pick<GatewayState, 'pacePerSecond' | 'slowedAt'> {
  const { pacePerSecond, slowedAt } = state;
  const pace = paceOf(state, limits);
  if (refused > 0) {
    // An instant to come was written by a clock that went wrong.
    const sinceMs = slowedAt === null ? null : now.epochMilliseconds - slowedAt.epochMilliseconds;
    if (sinceMs !== null && sinceMs >= 0 && sinceMs < slowedAtMostEveryMs) return { pacePerSecond, slowedAt };
    return { pacePerSecond: pace === null ? firstPace : Math.max(slowest, pace / 2), slowedAt: now };
  }
  if (pacePerSecond === null || !anyConclusive) return { pacePerSecond, slowedAt };
  const faster = pacePerSecond * 1.1 + 1;
  const allowed = paceOf(fresh, limits) ?? fastest;
  return faster >= allowed ? { pacePerSecond: null, slowedAt } : { pacePerSecond: faster, slowedAt };
}

function heard(
  state: GatewayState,
  { anyConclusive, silentAtEnd }: BatchNews,
  now: Temporal.Instant,
): Pick<GatewayState, 'silent' | 'rest'> {
  if (state.rest !== null) {
    if (anyConclusive) return { silent: 0, rest: null };
    const seconds = Math.min(state.rest.seconds * 2, restSecondsAtMost);
    return { silent: state.silent, rest: { ...state.rest, seconds, probeAt: now.add({ seconds }) } };
  }
  const silent = anyConclusive ? silentAtEnd : state.silent + silentAtEnd;
  if (silent < silentCallsAtMost) return { silent, rest: null };
  const probeAt = now.add({ seconds: firstRestSeconds });
  return { silent, rest: { openedAt: now, probeAt, seconds: firstRestSeconds } };
}

export type Admission = { kind: 'go' } | { kind: 'probe' } | { kind: 'rest'; until: Temporal.Instant };

/** Whether charges may be begun now. Where the clock has stepped back behind the beginning of a rest, it is time to try. */
export function admits(state: GatewayState, now: Temporal.Instant): Admission {
  if (state.rest === null) return { kind: 'go' };
  const { openedAt, probeAt } = state.rest;
  if (Temporal.Instant.compare(now, probeAt) >= 0 || Temporal.Instant.compare(now, openedAt) < 0)
    return { kind: 'probe' };
  return { kind: 'rest', until: probeAt };
}

/** Nothing changes by a batch like this: nothing need be written. */
export function isQuiet(state: GatewayState, news: BatchNews): boolean {
  return (
    state.pacePerSecond === null &&
    state.silent === 0 &&
    state.rest === null &&
    news.refused === 0 &&
    news.anyConclusive &&
    news.silentAtEnd === 0
  );
}
