/**
 * A question to a gateway's updater about saved cards that are soon to be charged. The row stands before the call, and its
 * reference is the same however often it is asked.
 */
export type RefreshState = 'asked' | 'accepted' | 'answered' | 'given_up';

export const transitions: Readonly<Record<RefreshState, readonly RefreshState[]>> = {
  asked: ['accepted', 'answered', 'given_up'],
  accepted: ['answered', 'given_up'],
  answered: [],
  given_up: [],
};

export function statesBefore(to: RefreshState): RefreshState[] {
  return (Object.keys(transitions) as RefreshState[]).filter((from) => transitions[from].includes(to));
}

/** What became of a card. `expired`: by its date, and the gateway knows of no successor. `none`: nobody ever answered. */
export type CardOutcome = 'replaced' | 'closed' | 'expired' | 'unknown' | 'none';

/** A question that nobody has answered for so long is given up: its cards may be asked about anew. */
export const givesUpAfterDays = 10;

export const unansweredCause = 'CARDS_UNANSWERED';

/** Whether a card's last month is over on a day. `expires`: YYYY-MM; null: not known, as of tokens that came by file. */
export function isExpiredOn(expires: string | null, day: string): boolean {
  return expires !== null && /^\d{4}-\d{2}$/.test(expires) && expires < day.slice(0, 7);
}
