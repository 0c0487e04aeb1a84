/** What Seikyu needs of an SMS carrier. */

export interface SmsRequest {
  /** Our id, returned by the carrier in its callbacks; also what a lost answer is looked up by. */
  messageId: string;
  merchantCode: string;
  /** E.164 */
  to: string;
  body: string;
}

export type SmsAnswer =
  | { kind: 'accepted'; providerId: string }
  /** The carrier will never take it (no such number, opted out). */
  | { kind: 'refused'; code: string }
  /** Certainly not taken (429): may be sent again. */
  | { kind: 'not_executed'; why: string; retryAfterMs: number | null }
  /** Timeout or lost answer: look up, never send again blindly. */
  | { kind: 'unknown'; why: string };

export type SmsLookupAnswer =
  | { kind: 'accepted'; providerId: string }
  | { kind: 'not_found' }
  | { kind: 'unknown'; why: string };

/** One SMS as the carrier's own list has it. */
export interface ListedSms {
  /** Our id; null where the carrier has an SMS that does not carry one. */
  messageId: string | null;
  providerId: string;
  /** ISO 8601 instant. */
  takenAt: string;
}

export interface Carrier {
  readonly name: string;
  readonly semantics: {
    readonly callDeadlineMs: number;
    /** "Not found" proves that nothing was taken only this long after the call's deadline. */
    readonly notFoundConclusiveAfterMs: number;
    /** How many sends may be under way at once. */
    readonly concurrency: number;
  };
  send(request: SmsRequest, signal: AbortSignal): Promise<SmsAnswer>;
  lookup(
    request: { messageId: string; merchantCode: string; to: string },
    signal: AbortSignal,
  ): Promise<SmsLookupAnswer>;
  /**
   * Every SMS that it took from a merchant in [from, until) (ISO 8601 instants). Reading throws where the carrier cannot
   * be reached and where the list is cut off.
   */
  list(merchantCode: string, from: string, until: string, signal: AbortSignal): AsyncIterable<ListedSms>;
}
