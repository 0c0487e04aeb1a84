export type PayoutState = 'withheld' | 'posted' | 'withdrawn';

/**
 * A payout is `withheld` until it adds up, then `posted` for good. One that the gateway's list has no more, before it was
 * posted, is `withdrawn`; should it come back, it is looked at again.
 */
export const transitions: Readonly<Record<PayoutState, readonly PayoutState[]>> = {
  withheld: ['posted', 'withdrawn'],
  withdrawn: ['withheld'],
  posted: [],
};

export function statesBefore(to: PayoutState): PayoutState[] {
  return (Object.keys(transitions) as PayoutState[]).filter((from) => transitions[from].includes(to));
}

/** What a line of a payout came to, beside what is known here. Only the first is nothing to talk about. */
export type LineFinding =
  | 'matched'
  /** No settlement report has told of it yet: waits for it. */
  | 'unreported'
  | 'missing_here'
  | 'captured_twice'
  | 'unexpected_kind'
  | 'currency_differs'
  | 'amount_differs'
  | 'fee_differs'
  /** Paid out before, or twice in one payout. */
  | 'payout_differs';

/**
 * What a person may take as it is, by settling its finding: the gateway's word on an amount or a fee. All else has no bill
 * that it could be told for, or no right to be there, and has to change on one of the two sides.
 */
export const acceptable: readonly LineFinding[] = ['amount_differs', 'fee_differs'];

/** Who settles what reconcile itself found to be over. */
export const settledByNews = 'reconcile';

/** A line's finding is named by its payout too: the settlement report may differ over the same charge by itself. */
export function lineSubject(payoutId: string, gatewayChargeId: string): string {
  return `${payoutId}/${gatewayChargeId}`;
}
