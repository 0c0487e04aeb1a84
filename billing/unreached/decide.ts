import type { BarcodeRow } from '../barcodes/queries.ts';
import { wrongPersonCode } from '../links/queries.ts';
import { againStep } from '../messages/message.ts';

/** In the words of the unreached file. */
export type UnreachedCause =
  | 'no_phone'
  | 'not_mobile'
  | 'blocked'
  | 'undelivered'
  | 'opted_out'
  | 'wrong_person'
  | 'over_limit';

/** What is known of an open bill of which an SMS did not reach its phone; its row is locked. */
export interface ReachFacts {
  /** It is paid by link, or fell back to it: a failed SMS about a card that is tried again leaves nobody out. */
  byLink: boolean;
  /** A charge, a hold, a finding or an SMS that is still under way. */
  isBusy: boolean;
  /** The merchant has its row already. */
  isTold: boolean;
  /** An SMS with a link went out, and nothing says that it did not arrive. */
  isReached: boolean;
  /** Why the newest one did not. */
  cause: UnreachedCause;
  /** The step that did not arrive, where another sender may reach the phone and was not tried. */
  again: string | null;
  /** The merchant's rule under which the bill was taken in. */
  rule: 'kept' | 'returned';
  /** What can be printed: a barcode that is still taken, or a new one. `over_limit`: registers take no such amount. */
  barcode: BarcodeRow | 'over_limit' | null;
  /** Money that was under way by card or barcode would be known by now, and no shop takes a barcode of it any more. */
  isComplete: boolean;
}

export type ReachDecision =
  /** Looked at again in the next pass. */
  | { kind: 'wait' }
  /** Nothing to do for these messages, ever. */
  | { kind: 'done' }
  /** Said once more, from the second sender. */
  | { kind: 'again'; step: string }
  | { kind: 'kept'; cause: UnreachedCause; barcode: BarcodeRow }
  | { kind: 'returned'; cause: UnreachedCause };

/**
 * What becomes of a bill that no SMS reaches. A merchant who keeps such bills prints our barcode; where there is none to
 * print nobody could pay, so that the bill goes back.
 */
export function decideUnreached(facts: ReachFacts): ReachDecision {
  const { cause, barcode } = facts;
  if (!facts.byLink || facts.isTold) return { kind: 'done' };
  if (facts.isBusy) return { kind: 'wait' };
  if (facts.isReached) return { kind: 'done' };
  const mayBeTheSender = cause === 'blocked' || cause === 'undelivered';
  if (facts.again !== null && mayBeTheSender) return { kind: 'again', step: againStep(facts.again) };
  if (facts.rule === 'kept' && barcode !== null && barcode !== 'over_limit') {
    return { kind: 'kept', cause, barcode };
  }
  if (!facts.isComplete) return { kind: 'wait' };
  return { kind: 'returned', cause: facts.rule === 'kept' && barcode === 'over_limit' ? barcode : cause };
}

/** Codes of messages that were never sent, for the phone's sake. */
export const skippedUnreached = ['no_phone', 'not_mobile', 'opted_out', wrongPersonCode] as const;
