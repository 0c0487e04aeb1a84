/**
 * What may be done after a declined charge, as data: every table names its source and edition, so that `explain`
 * can show by which rule a customer was or was not charged again. `confidence`: verified (read in the source),
 * secondary (one source at second hand) or general (general knowledge; worth checking with the acquirer).
 */

export type RuleVerdict = 'retry_at' | 'needs_customer' | 'never_this_method' | 'stop';

export interface CodeRule {
  verdict: RuleVerdict;
  /** Not again before this many hours have passed since the decline. */
  afterHours?: number;
  why: string;
}

export interface RuleTable {
  source: string;
  edition: string;
  confidence: 'verified' | 'secondary' | 'general';
  codes: Readonly<Record<string, CodeRule>>;
}

/** At most `attempts` of one card and amount within `hours`. */
export interface Ceiling {
  attempts: number;
  hours: number;
  source: string;
}

function group(verdict: RuleVerdict, why: string, codes: readonly string[]): Record<string, CodeRule> {
  return Object.fromEntries(codes.map((code) => [code, { verdict, why }]));
}

/** Response codes of a card network, by network. */
export const networkRules: Readonly<Record<string, RuleTable>> = {
  visa: {
    source: 'Visa Core Rules, ID 0030640, Table 7-2, as quoted in IanFoxDev/decline-codes',
    edition: '2026-04-18',
    confidence: 'secondary',
    codes: {
      ...group('never_this_method', 'the issuer will never approve this card (category 1)', [
        ...['04', '07', '12', '14', '15', '41', '43', '46', '57', 'R0', 'R1', 'R3'],
      ]),
      ...group('retry_at', 'the issuer cannot approve at this time (category 2)', [
        ...['03', '19', '39', '51', '52', '53', '59', '61', '62', '65', '75', '78'],
        ...['83', '86', '91', '93', '96', '5C', '9G', 'N3', 'N4', 'Z5'],
      ]),
      ...group('needs_customer', 'the card data or an authentication is missing (category 3)', [
        ...['54', '55', '82', '6P', 'N7', '1A', '70'],
      ]),
      ...group('retry_at', 'declined without a category (category 4)', ['01', '05', '13', '58', '63']),
    },
  },
};

/** Advice that a network gives the merchant beside the response code, by network. */
export const adviceRules: Readonly<Record<string, RuleTable>> = {
  mastercard: {
    source: 'Merchant advice codes as published by payabl, Evonet, Braintree and TabaPay',
    edition: '2026',
    confidence: 'secondary',
    codes: {
      '01': { verdict: 'needs_customer', why: 'new account information is available' },
      '02': { verdict: 'retry_at', afterHours: 72, why: 'cannot approve now, try again later' },
      '03': { verdict: 'never_this_method', why: 'do not try again' },
      '21': { verdict: 'never_this_method', why: 'the cardholder cancelled the payment' },
      '24': { verdict: 'retry_at', afterHours: 1, why: 'try again after 1 hour' },
      '25': { verdict: 'retry_at', afterHours: 24, why: 'try again after 24 hours' },
      '26': { verdict: 'retry_at', afterHours: 48, why: 'try again after 2 days' },
      '27': { verdict: 'retry_at', afterHours: 96, why: 'try again after 4 days' },
      '28': { verdict: 'retry_at', afterHours: 144, why: 'try again after 6 days' },
      '29': { verdict: 'retry_at', afterHours: 192, why: 'try again after 8 days' },
      '30': { verdict: 'retry_at', afterHours: 240, why: 'try again after 10 days' },
      '40': { verdict: 'needs_customer', why: 'a prepaid card that cannot be reloaded' },
      '41': { verdict: 'needs_customer', why: 'a virtual card for one use' },
      '43': { verdict: 'needs_customer', why: 'a virtual card for several uses' },
    },
  },
};

// All card codes of Stripe's page. Their verdicts are this program's own reading of Stripe's "next steps"; where two are
// possible it is the stricter one. The codes of card readers are no answer to a charge without one, and harmless here.
const stripeDeclines: RuleTable = {
  source:
    'Stripe docs, declines/codes and error-codes, list as fetched 2026-10-05 by IanFoxDev/decline-codes',
  edition: '2026-10-05',
  confidence: 'secondary',
  codes: {
    ...group('never_this_method', 'the card is reported lost or stolen, or is to be withdrawn', [
      ...['lost_card', 'stolen_card', 'pickup_card', 'restricted_card'],
    ]),
    ...group('never_this_method', 'suspected fraud', ['fraudulent']),
    ...group('never_this_method', 'the merchant itself has blocked this card at Stripe', [
      'merchant_blacklist',
    ]),
    ...group('never_this_method', 'the holder has withdrawn the permission to charge', [
      ...['revocation_of_authorization', 'revocation_of_all_authorizations', 'stop_payment_order'],
    ]),
    ...group('never_this_method', 'there is no such card or account', [
      ...['invalid_account', 'incorrect_number', 'invalid_number', 'testmode_decline'],
    ]),
    ...group('never_this_method', 'the issuer says not to try again', ['do_not_try_again']),
    ...group('needs_customer', 'the card has expired, or its data are wrong', [
      ...['expired_card', 'incorrect_cvc', 'invalid_cvc', 'invalid_expiry_month', 'invalid_expiry_year'],
      ...['incorrect_zip', 'incorrect_address', 'new_account_information_available'],
    ]),
    ...group('needs_customer', 'the issuer wants its customer to authenticate', [
      ...['authentication_required', 'authentication_not_handled', 'mobile_device_authentication_required'],
    ]),
    ...group('needs_customer', 'the card is not for such payments, currencies or amounts', [
      ...['card_not_supported', 'transaction_not_allowed', 'service_not_allowed', 'not_permitted'],
      ...['currency_not_supported', 'invalid_amount'],
    ]),
    ...group('needs_customer', 'a safety rule of the issuer: only the holder can settle it there', [
      'security_violation',
    ]),
    ...group('needs_customer', 'the card wants its PIN', [
      ...['incorrect_pin', 'invalid_pin', 'pin_try_exceeded'],
      ...['offline_pin_required', 'online_or_offline_pin_required'],
    ]),
    ...group(
      'stop',
      'the same amount was taken from this card a moment ago: a person sees whether for this bill',
      ['duplicate_transaction'],
    ),
    ...group('retry_at', 'balance or limit is short', [
      ...['insufficient_funds', 'card_velocity_exceeded', 'withdrawal_count_limit_exceeded'],
    ]),
    ...group('retry_at', 'the issuer could not be reached or did not work', [
      ...['issuer_not_available', 'processing_error', 'reenter_transaction', 'try_again_later'],
      'approve_with_id',
    ]),
    ...group('retry_at', 'the issuer declined without a reason', [
      ...['do_not_honor', 'generic_decline', 'call_issuer', 'no_action_taken'],
    ]),
    // An error code that stands alone: Stripe itself refuses a card that was declined too often in a day.
    card_decline_rate_limit_exceeded: {
      verdict: 'retry_at',
      afterHours: 24,
      why: 'declined too often, not to be tried again for 24 hours',
    },
  },
};

/** A gateway's own codes, by gateway. The simulator speaks Stripe's vocabulary. */
export const gatewayRules: Readonly<Record<string, RuleTable>> = {
  stripe: stripeDeclines,
  simulator: { ...stripeDeclines, source: 'Gateway simulator, with the decline codes of Stripe' },
  gmo_pg: {
    source: 'GMO Payment Gateway card error codes',
    edition: '2026-11',
    // Verified are G02 G03 G04 G05 G12 G54 and G55 only.
    confidence: 'general',
    codes: {
      ...group('retry_at', 'balance or limit is short, or the issuer cannot be reached', [
        ...['G02', 'G03', 'G04', 'G05', 'G30', 'G54', 'G55', 'G92', 'G95'],
      ]),
      ...group('needs_customer', 'the card data is wrong or out of date', [
        'G42',
        'G44',
        'G45',
        'G65',
        'G83',
      ]),
      ...group('never_this_method', 'the card cannot be used', [
        ...['G12', 'G22', 'G56', 'G60', 'G61', 'G96', 'G97', 'G98', 'G99'],
      ]),
    },
  },
  'zengin-91': {
    source: 'Result codes of direct debit, Zengin format 91',
    edition: '2026-11',
    confidence: 'verified',
    // 0 is paid and N is an unknown outcome: neither is a decline. 9, E and all others are no rule: parked.
    codes: {
      '1': { verdict: 'retry_at', why: 'the account is short of funds' },
      '2': { verdict: 'never_this_method', why: 'no such account' },
      '3': { verdict: 'never_this_method', why: 'the depositor stopped the debit' },
      '4': { verdict: 'needs_customer', why: 'the bank has no mandate' },
      '8': { verdict: 'stop', why: 'the merchant stopped the debit' },
    },
  },
};

const stripeAdvice: RuleTable = {
  source: 'Stripe advice codes',
  edition: '2026-11',
  confidence: 'general',
  codes: {
    try_again_later: { verdict: 'retry_at', why: 'the gateway advises to try again later' },
    do_not_try_again: { verdict: 'never_this_method', why: 'the gateway advises not to try again' },
    confirm_card_data: { verdict: 'needs_customer', why: 'the gateway advises to confirm the card data' },
  },
};

/** Advice in a gateway's own words, by gateway. */
export const gatewayAdviceRules: Readonly<Record<string, RuleTable>> = {
  stripe: stripeAdvice,
  simulator: { ...stripeAdvice, source: 'Gateway simulator, with the advice codes of Stripe' },
};

const DAY = 24;

/** Networks fine a merchant who tries one card and amount more often. Networks without an entry: the default. */
export const ceilings: Readonly<Record<string, readonly Ceiling[]>> = {
  // 20 in 30 days in several acquirers' notices since 2025-05; the older 15 is safe under both.
  visa: [{ attempts: 15, hours: 30 * DAY, source: 'Visa Core Rules 2026-04-18' }],
  mastercard: [
    { attempts: 10, hours: DAY, source: 'Mastercard excessive attempts, by TabaPay 2026' },
    { attempts: 35, hours: 30 * DAY, source: 'Mastercard excessive attempts, by TabaPay 2026' },
  ],
};

export const defaultCeilings: readonly Ceiling[] = [
  { attempts: 15, hours: 30 * DAY, source: 'the strictest network ceiling, used where none is known' },
];
