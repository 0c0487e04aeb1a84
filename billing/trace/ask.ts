import { Temporal } from 'temporal-polyfill';
import type { Learned } from '../charges/charge.ts';
import { askAboutPreliminaryHours } from '../charges/cover.ts';
import type { Gateway, GatewaySemantics, LookupAnswer } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import type { Clock } from '../ports.ts';
import type { OpenCharge } from './queries.ts';

/** What an answer about an open charge means. */
export type Judgement =
  | { kind: 'learned'; outcome: Learned['outcome'] }
  | { kind: 'ask_again'; at: Temporal.Instant }
  /** Proven, but not what was asked for: nothing is booked, a person must look. */
  | { kind: 'differs'; at: Temporal.Instant };

/** Minutes to the next question by how many were asked: outages are short or long. */
const backOffMinutes = [1, 2, 5, 15, 60];
/** A customer who confirms in the page's last second still needs the gateway's answer. */
export const pageGraceMs = 60_000;

export function nextAskAt(
  charge: Pick<OpenCharge, 'asks' | 'state'>,
  now: Temporal.Instant,
): Temporal.Instant {
  if (charge.state === 'preliminary') return now.add({ hours: askAboutPreliminaryHours });
  const minutes = backOffMinutes[Math.min(charge.asks, backOffMinutes.length - 1)] ?? 60;
  return now.add({ minutes });
}

/** A page that nobody was shown, or whose time is over: it must take no more money before it is judged. */
export function mustClosePage(charge: OpenCharge, now: Temporal.Instant): boolean {
  if (charge.origin !== 'link') return false;
  if (charge.hosted_page_url === null || charge.page_ends_at === null) return true;
  return now.epochMilliseconds >= Temporal.Instant.from(charge.page_ends_at).epochMilliseconds + pageGraceMs;
}

/** From when on "not found" proves that nothing happened. */
export function absenceProvesAfter(
  charge: Pick<OpenCharge, 'deadline_at'>,
  semantics: GatewaySemantics,
): Temporal.Instant {
  return Temporal.Instant.from(charge.deadline_at).add({
    milliseconds: semantics.callDeadlineMs + semantics.notFoundConclusiveAfterMs,
  });
}

/** Pure. `askedAt`: before the question was sent, so that a slow answer proves nothing about the time after. */
export function judgeAnswer(
  charge: OpenCharge,
  answer: LookupAnswer,
  askedAt: Temporal.Instant,
  semantics: GatewaySemantics,
): Judgement {
  const later = nextAskAt(charge, askedAt);
  // From now on everybody sees that the outcome is unknown; a hosted page that is open is no unknown.
  const notKnown: Judgement =
    charge.state === 'processing'
      ? { kind: 'learned', outcome: { kind: 'unknown', why: 'no_outcome_recorded' } }
      : { kind: 'ask_again', at: later };
  switch (answer.kind) {
    case 'succeeded':
      return answer.captured.amount === charge.amount && answer.captured.currency === charge.currency
        ? { kind: 'learned', outcome: answer }
        : { kind: 'differs', at: later };
    case 'failed':
      return { kind: 'learned', outcome: answer };
    case 'not_found':
      return askedAt.epochMilliseconds > absenceProvesAfter(charge, semantics).epochMilliseconds
        ? { kind: 'learned', outcome: { kind: 'canceled', why: 'not_found' } }
        : notKnown;
    case 'pending': {
      if (charge.page_ends_at === null || charge.state !== 'requires_action') return notKnown;
      const ends = Temporal.Instant.from(charge.page_ends_at).add({ milliseconds: pageGraceMs });
      return { kind: 'ask_again', at: Temporal.Instant.compare(ends, later) > 0 ? ends : later };
    }
    case 'unknown':
      return notKnown;
  }
}

/** Asks the gateway about one charge; a page that is over is closed first. An adapter that stumbles has answered nothing. */
export async function askAbout(
  ports: { gateway: Gateway; clock: Clock },
  account: string,
  charge: OpenCharge,
): Promise<LookupAnswer> {
  const { gateway, clock } = ports;
  if (charge.gateway !== gateway.name) return { kind: 'unknown', why: 'another_gateway' };
  const signal = clock.deadline(gateway.semantics.callDeadlineMs);
  const reference = referenceOf(charge.id);
  const known = { gatewaySessionId: charge.gateway_session_id };
  try {
    return mustClosePage(charge, clock.now())
      ? await gateway.closeHostedPage(account, reference, signal, known)
      : await gateway.lookup(account, reference, signal, known);
  } catch (error) {
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
}

/** Does `work` for every item, so many at once, in the items' order of start. */
export async function atMostAtOnce<Item, Result>(
  limit: number,
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = new Array(items.length);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (;;) {
      const index = next;
      next += 1;
      const item = items[index];
      if (index >= items.length || item === undefined) return;
      results[index] = await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, lane));
  return results;
}
