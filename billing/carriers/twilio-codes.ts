import type { UnreachedReason } from './carrier.ts';

/**
 * What Twilio's error codes mean for one SMS, as data. `confidence` as with the retry rules of cards. Twilio itself advises
 * against relying on single codes and splits them now and then: a code that is not here means no more than its HTTP status.
 */
export interface CodeMeaning {
  /**
   * `message`: this SMS will never go. `account`: nothing from this account or sender goes until a person has acted.
   * `busy`: later.
   */
  about: 'message' | 'account' | 'busy';
  /** Where it is for the phone's sake. */
  unreached: UnreachedReason | null;
  why: string;
}

export const twilioCodes: {
  source: string;
  edition: string;
  confidence: 'verified' | 'secondary' | 'general';
  codes: Readonly<Record<string, CodeMeaning>>;
} = {
  source: 'Twilio, Error and Warning Dictionary, with the changelog of 2024-07-10 on number validation',
  edition: '2026-11',
  confidence: 'secondary',
  codes: {
    ...phone('not_mobile', {
      21211: 'the number is no number',
      21214: 'the number cannot be reached',
      21217: 'the number is not written as one',
      21401: 'the number is no number for SMS',
      21614: 'the number is no mobile one',
      21635: 'the number is a landline',
      30006: 'a landline, or a network that cannot be reached',
    }),
    ...phone('opted_out', { 21610: 'the customer answered STOP to this sender' }),
    ...phone('blocked', {
      30004: 'the phone or its network blocks the sender',
      30007: 'filtered as unwanted by Twilio or the network',
      30450: 'stopped by a guard against abuse',
    }),
    ...phone('undelivered', {
      21612: 'there is no way from this sender to this number',
      30001: 'the queue at Twilio was full',
      30002: 'the account was suspended after it was taken',
      30003: 'the phone is off or out of reach',
      30005: 'the number is unknown or no longer in use',
      30008: 'lost on the way, for a reason that nobody tells',
      30036: 'it grew too old before it could be delivered',
      30410: 'the network did not answer in time',
    }),
    ...because('message', { 21617: 'the text is too long' }),
    ...because('account', {
      20003: 'account or token are not accepted',
      20404: 'the account or the messaging service does not exist',
      21408: 'SMS to this country are not switched on for the account',
      21602: 'it has no text',
      21603: 'it has no sender',
      21606: 'the sender may not send to this country',
      21608: 'a trial account sends to verified numbers only',
      21609: 'the address for callbacks is not accepted: SEIKYU_BASE_URL must be a public one',
      21703: 'the messaging service has no sender',
      21704: 'the messaging service is being set up',
      21705: 'the messaging service does not exist',
      63038: 'the account has reached its limit for the day',
    }),
    ...because('busy', {
      14107: 'too many at once from this sender',
      20429: 'too many requests at once',
      21611: 'the queue of this sender is full',
      63018: 'too many at once on this channel',
    }),
  },
};

function phone(
  unreached: UnreachedReason,
  codes: Readonly<Record<string, string>>,
): Record<string, CodeMeaning> {
  return Object.fromEntries(
    Object.entries(codes).map(([code, why]) => [code, { about: 'message', unreached, why }]),
  );
}

function because(
  about: CodeMeaning['about'],
  codes: Readonly<Record<string, string>>,
): Record<string, CodeMeaning> {
  return Object.fromEntries(
    Object.entries(codes).map(([code, why]) => [code, { about, unreached: null, why }]),
  );
}
