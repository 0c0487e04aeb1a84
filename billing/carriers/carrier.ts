/** What Seikyu needs of an SMS carrier. */

export interface SmsRequest {
  /** Our id, returned by the carrier in its callbacks; also what a lost answer is looked up by. */
  messageId: string;
  merchantCode: string;
  /** E.164 */
  to: string;
  body: string;
  /** Which of the carrier's senders it goes from. */
  sender: 'first' | 'second';
}

/** Why a phone cannot be reached, in the words of the unreached file. */
export type UnreachedReason = 'not_mobile' | 'blocked' | 'undelivered' | 'opted_out';

export type SmsAnswer =
  | { kind: 'accepted'; providerId: string }
  /** The carrier will never take it (no such number, opted out). `unreached`: where it is for the phone's sake. */
  | { kind: 'refused'; code: string; unreached?: UnreachedReason | null }
  /** Certainly not taken (429): may be sent again. `account`: it takes nothing from us until a person has acted. */
  | { kind: 'not_executed'; why: string; retryAfterMs: number | null; account?: true }
  /** Timeout or lost answer: look up, never send again blindly. */
  | { kind: 'unknown'; why: string };

export interface SmsQuestion extends SmsRequest {
  /** ISO 8601 instant: not sent before. */
  claimedAt: string;
  /** What the carrier calls our other messages to this phone: none of these is the one in question. */
  others: readonly string[];
}

export type SmsLookupAnswer =
  | { kind: 'accepted'; providerId: string }
  | { kind: 'not_found' }
  | { kind: 'unknown'; why: string };

/** One SMS as the carrier's own list has it. */
export interface ListedSms {
  /** Our id; null where the carrier keeps none. */
  messageId: string | null;
  providerId: string;
  /** ISO 8601 instant. */
  takenAt: string;
  /** Where the carrier keeps no id of ours: by these it is known again. */
  sent?: { to: string; body: string };
}

/**
 * What became of an SMS, from least to most: news only ever moves it up, so that their order, their repetition and their
 * loss change nothing. `delivered` stands last: a receipt from the phone outweighs a network that gave up.
 */
export const deliveries = ['queued', 'sending', 'sent', 'failed', 'undelivered', 'delivered'] as const;

export type Delivery = (typeof deliveries)[number];

export interface SmsCallback {
  /** As the carrier called it: on the configured public address, with the query. */
  url: string;
  rawBody: Buffer;
  headers: Record<string, string | undefined>;
}

/** What a callback says once its signature is proven. */
export type SmsNews =
  | {
      kind: 'status';
      messageId: string;
      providerId: string;
      delivery: Delivery;
      code: string | null;
      unreached: UnreachedReason | null;
    }
  /** The customer answered STOP, or START after that. E.164 */
  | { kind: 'opted_out' | 'opted_in'; phone: string; providerId: string }
  /** Genuine, and nothing to us. */
  | { kind: 'nothing' };

export interface Carrier {
  readonly name: string;
  /** A sender of another number or way, for phones that the first does not reach. Absent: there is none. */
  readonly secondSender?: true;
  readonly semantics: {
    readonly callDeadlineMs: number;
    /** "Not found" proves that nothing was taken only this long after the call's deadline. */
    readonly notFoundConclusiveAfterMs: number;
    /** How many sends may be under way at once. */
    readonly concurrency: number;
  };
  send(request: SmsRequest, signal: AbortSignal): Promise<SmsAnswer>;
  lookup(question: SmsQuestion, signal: AbortSignal): Promise<SmsLookupAnswer>;
  /**
   * Every SMS that it took from a merchant in [from, until) (ISO 8601 instants); a carrier that does not know our merchants
   * lists those of all. Reading throws where the carrier cannot be reached and where the list is cut off.
   */
  list(merchantCode: string, from: string, until: string, signal: AbortSignal): AsyncIterable<ListedSms>;
  /** Null: forged, or for another account. Absent: this carrier never calls. */
  readCallback?(callback: SmsCallback): SmsNews | null;
}
