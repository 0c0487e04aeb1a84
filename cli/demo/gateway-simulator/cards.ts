/**
 * The test cards: what a card does is written here and nowhere else, so the documentation can list the table.
 * The numbers belong to no cardholder. Only these are accepted; a real card number is refused.
 */

export interface CardCodes {
  /** The simulator's own code. Names are those of Stripe's decline codes where one fits. */
  gatewayCode: string | null;
  networkCode: string | null;
  adviceCode: string | null;
}

/** What happens when the customer types the card on the hosted page. */
export type OnPage =
  | { kind: 'succeeds'; threeDs: 'none' | 'frictionless' | 'challenge' }
  | { kind: 'declines'; codes: CardCodes };

export type Fault =
  | 'timeout_before_effect'
  | 'timeout_after_effect'
  | 'error_500_before_effect'
  | 'error_500_after_effect'
  | 'rate_limited';

/** What happens when the saved card is charged without its holder. Calls are counted per saved card, from 1. */
export type OffSession =
  | { kind: 'succeeds' }
  | { kind: 'declines'; codes: CardCodes; calls: 'every' | { first: number } }
  /** `odd`: calls 1, 3, 5 ... are disturbed, so the next attempt gets through. */
  | { kind: 'disturbed'; fault: Fault; calls: 'every' | 'odd' };

export interface TestCard {
  name: string;
  pan: string;
  brand: 'visa' | 'mastercard' | 'jcb';
  onPage: OnPage;
  /** Null: the card is never saved, because it never succeeds on the page. */
  offSession: OffSession | null;
  /** What the updater answers about the saved card before it is charged. */
  updater: Updater;
}

/** `becomes`: the test card that its successor is. */
export type Updater =
  | { kind: 'unknown' }
  | { kind: 'closed'; code: string }
  | { kind: 'replaced'; becomes: string };

const codes = (gatewayCode: string, networkCode: string, adviceCode: string | null = null): CardCodes => ({
  gatewayCode,
  networkCode,
  adviceCode,
});
const succeeds: OnPage = { kind: 'succeeds', threeDs: 'none' };
const frictionless: OnPage = { kind: 'succeeds', threeDs: 'frictionless' };
const challenge: OnPage = { kind: 'succeeds', threeDs: 'challenge' };
const declines = (declineCodes: CardCodes): OnPage => ({ kind: 'declines', codes: declineCodes });
const later = (declineCodes: CardCodes, calls: 'every' | { first: number } = 'every'): OffSession => ({
  kind: 'declines',
  codes: declineCodes,
  calls,
});
const disturbed = (fault: Fault, calls: 'every' | 'odd'): OffSession => ({ kind: 'disturbed', fault, calls });

function card(
  name: string,
  brand: TestCard['brand'],
  pan: string,
  onPage: OnPage,
  offSession: OffSession | null,
  updater: Updater = { kind: 'unknown' },
): TestCard {
  return { name, pan, brand, onPage, offSession, updater };
}

const fine: OffSession = { kind: 'succeeds' };

export const TEST_CARDS: readonly TestCard[] = [
  // Pay, and stay good for automatic payment.
  card('visa', 'visa', '4242424242424242', frictionless, fine),
  card('mastercard', 'mastercard', '5555555555554444', frictionless, fine),
  card('jcb', 'jcb', '3530111333300000', frictionless, fine),
  card('visa-without-3ds', 'visa', '4000000000001018', succeeds, fine),
  card('visa-challenge', 'visa', '4000002760003184', challenge, fine),
  card('mastercard-challenge', 'mastercard', '5555550000001018', challenge, fine),
  card('jcb-challenge', 'jcb', '3530111000001014', challenge, fine),

  // Decline on the page; another card may be typed there.
  card('insufficient-funds', 'visa', '4000000000009995', declines(codes('insufficient_funds', '51')), null),
  card('do-not-honor', 'visa', '4000000000000002', declines(codes('do_not_honor', '05')), null),
  card('lost', 'visa', '4000000000009987', declines(codes('lost_card', '41')), null),
  card('stolen', 'visa', '4000000000009979', declines(codes('stolen_card', '43')), null),
  card('expired', 'visa', '4000000000000069', declines(codes('expired_card', '54')), null),
  card('wrong-cvc', 'visa', '4000000000000127', declines(codes('incorrect_cvc', 'N7')), null),
  card('advice-02', 'mastercard', '5555550000001026', declines(codes('do_not_honor', '05', '02')), null),
  card('advice-03', 'mastercard', '5555550000001034', declines(codes('do_not_honor', '05', '03')), null),
  card('advice-21', 'mastercard', '5555550000001042', declines(codes('do_not_honor', '05', '21')), null),
  card(
    'advice-24',
    'mastercard',
    '5555550000001059',
    declines(codes('insufficient_funds', '51', '24')),
    null,
  ),
  card('unknown-code', 'visa', '4000000000001026', declines(codes('code_of_tomorrow', 'ZZ')), null),

  // Pay on the page, then decline when charged without the holder.
  card(
    'later-insufficient-funds-once',
    'visa',
    '4000000000000341',
    frictionless,
    later(codes('insufficient_funds', '51'), { first: 1 }),
  ),
  card(
    'later-insufficient-funds-twice',
    'jcb',
    '3530111000001022',
    frictionless,
    later(codes('insufficient_funds', '51'), { first: 2 }),
  ),
  card(
    'later-insufficient-funds',
    'visa',
    '4000000000001034',
    frictionless,
    later(codes('insufficient_funds', '51')),
  ),
  card('later-do-not-honor', 'visa', '4000000000001042', frictionless, later(codes('do_not_honor', '05'))),
  card('later-lost', 'visa', '4000000000001059', frictionless, later(codes('lost_card', '41'))),
  card('later-stolen', 'visa', '4000000000001067', frictionless, later(codes('stolen_card', '43'))),
  card('later-expired', 'visa', '4000000000001075', frictionless, later(codes('expired_card', '54')), {
    kind: 'replaced',
    becomes: 'visa',
  }),
  card('later-closed', 'visa', '4000000000001083', frictionless, later(codes('invalid_account', '46')), {
    kind: 'closed',
    code: 'account_closed',
  }),
  card('later-stopped', 'visa', '4000000000001091', frictionless, later(codes('stop_payment_order', 'R0'))),
  card(
    'later-authentication',
    'visa',
    '4000002500003155',
    challenge,
    later(codes('authentication_required', '1A')),
  ),
  card(
    'later-advice-01',
    'mastercard',
    '5555550000001067',
    frictionless,
    later(codes('new_account_information_available', '54', '01')),
  ),
  card(
    'later-advice-02',
    'mastercard',
    '5555550000001075',
    frictionless,
    later(codes('do_not_honor', '05', '02'), { first: 1 }),
  ),
  card(
    'later-advice-03',
    'mastercard',
    '5555550000001083',
    frictionless,
    later(codes('do_not_honor', '05', '03')),
  ),
  card(
    'later-advice-21',
    'mastercard',
    '5555550000001091',
    frictionless,
    later(codes('revocation_of_authorization', '05', '21')),
  ),
  card(
    'later-advice-24',
    'mastercard',
    '5555550000001109',
    frictionless,
    later(codes('insufficient_funds', '51', '24'), { first: 1 }),
  ),
  card(
    'later-unknown-code',
    'visa',
    '4000000000001109',
    frictionless,
    later(codes('code_of_tomorrow', 'ZZ')),
  ),

  // Pay on the page, then the line breaks when charged without the holder.
  card(
    'timeout-before-effect',
    'visa',
    '4000000000001117',
    frictionless,
    disturbed('timeout_before_effect', 'odd'),
  ),
  card(
    'timeout-after-effect',
    'visa',
    '4000000000001125',
    frictionless,
    disturbed('timeout_after_effect', 'every'),
  ),
  card(
    'error-before-effect',
    'visa',
    '4000000000001133',
    frictionless,
    disturbed('error_500_before_effect', 'odd'),
  ),
  card(
    'error-after-effect',
    'visa',
    '4000000000001141',
    frictionless,
    disturbed('error_500_after_effect', 'every'),
  ),
  card('rate-limited', 'visa', '4000000000001158', frictionless, disturbed('rate_limited', 'odd')),
];

const byPan = new Map(TEST_CARDS.map((each) => [each.pan, each]));
const byName = new Map(TEST_CARDS.map((each) => [each.name, each]));

export const cardByPan = (pan: string): TestCard | undefined => byPan.get(pan);
export const cardByName = (name: string): TestCard | undefined => byName.get(name);

/** What one call without the holder does, by how many calls the saved card has seen (this one included). */
export function offSessionCall(
  card: TestCard,
  call: number,
): { kind: 'succeeds' } | { kind: 'declines'; codes: CardCodes } | { kind: 'disturbed'; fault: Fault } {
  const plan = card.offSession;
  if (plan === null || plan.kind === 'succeeds') return { kind: 'succeeds' };
  if (plan.kind === 'declines') {
    return plan.calls === 'every' || call <= plan.calls.first
      ? { kind: 'declines', codes: plan.codes }
      : { kind: 'succeeds' };
  }
  return plan.calls === 'every' || call % 2 === 1
    ? { kind: 'disturbed', fault: plan.fault }
    : { kind: 'succeeds' };
}

/** Whether the number of calls matters, so that cards without a plan are charged without counting. */
export const countsCalls = (card: TestCard): boolean =>
  card.offSession !== null && card.offSession.kind !== 'succeeds' && !(card.offSession.calls === 'every');
