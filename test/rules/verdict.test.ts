import fc from 'fast-check';
import { Temporal } from 'temporal-polyfill';
import { describe, expect, it } from 'vitest';
import {
  adviceRules,
  gatewayAdviceRules,
  gatewayRules,
  networkRules,
  type RuleVerdict,
} from '../../billing/dunning/card-retry-rules.ts';
import { ceilingAllows, firstWholeDayFrom, verdictOf } from '../../billing/dunning/verdict.ts';
import type { DeclineCodes } from '../../billing/gateways/gateway.ts';

const at = Temporal.Instant.from('2026-12-28T10:00:00+09:00');
const codes = (some: Partial<DeclineCodes>): DeclineCodes => ({
  gatewayCode: null,
  network: null,
  networkCode: null,
  adviceCode: null,
  ...some,
});

describe('verdicts', () => {
  it.each([
    ['simulator', { gatewayCode: 'insufficient_funds' }, 'retry_at', 'insufficient_funds'],
    ['stripe', { gatewayCode: 'expired_card' }, 'needs_customer', 'expired_card'],
    ['stripe', { gatewayCode: 'stolen_card' }, 'never_this_method', 'stolen_card'],
    // The network's hard stop wins over a gateway that would try again, and the other way round.
    [
      'stripe',
      { gatewayCode: 'do_not_honor', network: 'visa', networkCode: '41' },
      'never_this_method',
      '41',
    ],
    [
      'stripe',
      { gatewayCode: 'lost_card', network: 'visa', networkCode: '51' },
      'never_this_method',
      'lost_card',
    ],
    ['stripe', { gatewayCode: 'do_not_honor', network: 'Visa', networkCode: '54' }, 'needs_customer', '54'],
    [
      'stripe',
      { gatewayCode: 'generic_decline', network: 'visa', networkCode: '05' },
      'retry_at',
      'generic_decline',
    ],
    [
      'stripe',
      { gatewayCode: 'insufficient_funds', network: 'mastercard', adviceCode: '03' },
      'never_this_method',
      '03',
    ],
    [
      'stripe',
      { gatewayCode: 'insufficient_funds', network: 'mastercard', adviceCode: '01' },
      'needs_customer',
      '01',
    ],
    [
      'stripe',
      { gatewayCode: 'generic_decline', adviceCode: 'do_not_try_again' },
      'never_this_method',
      'do_not_try_again',
    ],
    // Mastercard's response codes have no public table: the gateway's code decides.
    [
      'stripe',
      { gatewayCode: 'insufficient_funds', network: 'mastercard', networkCode: '51' },
      'retry_at',
      'insufficient_funds',
    ],
    ['gmo_pg', { gatewayCode: 'G12' }, 'never_this_method', 'G12'],
    ['zengin-91', { gatewayCode: '1' }, 'retry_at', '1'],
    ['zengin-91', { gatewayCode: '8' }, 'stop', '8'],
  ])('%s %o is %s by the rule of %s', (gateway, some, kind, code) => {
    const verdict = verdictOf({ gateway, codes: codes(some), at });
    expect(verdict.kind).toBe(kind);
    if (verdict.kind === 'no_rule') throw new Error('a rule was expected');
    expect(verdict.rule).toEqual({
      code,
      source: expect.any(String),
      edition: expect.stringMatching(/^20/),
      why: expect.any(String),
    });
  });

  it.each([
    ['simulator', {}, []],
    ['simulator', { gatewayCode: 'brand_new_code' }, ['simulator:brand_new_code']],
    ['nobody', { gatewayCode: 'insufficient_funds' }, ['nobody:insufficient_funds']],
    [
      'stripe',
      { gatewayCode: 'constructor', network: '__proto__', networkCode: '51' },
      ['stripe:constructor', '__proto__:51'],
    ],
    ['zengin-91', { gatewayCode: '9' }, ['zengin-91:9']],
  ])('%s %o is no verdict', (gateway, some, unknownCodes) => {
    expect(verdictOf({ gateway, codes: codes(some), at })).toEqual({ kind: 'no_rule', unknownCodes });
  });

  it.each([
    ['02', 72],
    ['24', 1],
    ['25', 24],
    ['30', 240],
  ])('advice %s waits %i hours', (adviceCode, waitHours) => {
    const verdict = verdictOf({
      gateway: 'stripe',
      codes: codes({ gatewayCode: 'insufficient_funds', network: 'mastercard', adviceCode }),
      at,
    });
    expect(verdict.kind === 'retry_at' && verdict.notBefore?.equals(at.add({ hours: waitHours }))).toBe(true);
  });

  it('never retries a lost card whatever else is said', () => {
    const known = Object.keys(gatewayRules.stripe?.codes ?? {});
    fc.assert(
      fc.property(
        fc.constantFrom(...known),
        fc.constantFrom('04', '41', '43', 'R0', 'R1', 'R3'),
        fc.constantFrom(null, '02', 'try_again_later', 'nonsense'),
        (gatewayCode, networkCode, adviceCode) => {
          const said = codes({ gatewayCode, network: 'visa', networkCode, adviceCode });
          expect(verdictOf({ gateway: 'stripe', codes: said, at }).kind).toBe('never_this_method');
        },
      ),
    );
  });
});

/** Written apart from the rules, as whoever answers for them would say it. */
const expected: Record<string, Partial<Record<RuleVerdict, string>>> = {
  stripe: {
    never_this_method: `lost_card stolen_card pickup_card restricted_card fraudulent merchant_blacklist
      stop_payment_order revocation_of_authorization revocation_of_all_authorizations invalid_account
      incorrect_number invalid_number testmode_decline do_not_try_again`,
    needs_customer: `expired_card incorrect_cvc invalid_cvc invalid_expiry_month invalid_expiry_year incorrect_zip
      incorrect_address new_account_information_available authentication_required authentication_not_handled
      mobile_device_authentication_required card_not_supported transaction_not_allowed service_not_allowed
      not_permitted currency_not_supported invalid_amount security_violation incorrect_pin invalid_pin
      pin_try_exceeded offline_pin_required online_or_offline_pin_required`,
    stop: 'duplicate_transaction',
    retry_at: `insufficient_funds card_velocity_exceeded withdrawal_count_limit_exceeded issuer_not_available
      processing_error reenter_transaction try_again_later approve_with_id do_not_honor generic_decline call_issuer
      no_action_taken card_decline_rate_limit_exceeded`,
  },
  gmo_pg: {
    never_this_method: 'G12 G22 G56 G60 G61 G96 G97 G98 G99',
    needs_customer: 'G42 G44 G45 G65 G83',
    retry_at: 'G02 G03 G04 G05 G30 G54 G55 G92 G95',
  },
  'zengin-91': { never_this_method: '2 3', needs_customer: '4', stop: '8', retry_at: '1' },
  'network:visa': {
    never_this_method: '04 07 12 14 15 41 43 46 57 R0 R1 R3',
    needs_customer: '54 55 82 6P N7 1A 70',
    retry_at: `03 19 39 51 52 53 59 61 62 65 75 78 83 86 91 93 96 5C 9G N3 N4 Z5 01 05 13 58 63`,
  },
  'advice:mastercard': {
    never_this_method: '03 21',
    needs_customer: '01 40 41 43',
    retry_at: '02 24 25 26 27 28 29 30',
  },
  'advice:stripe': {
    never_this_method: 'do_not_try_again',
    needs_customer: 'confirm_card_data',
    retry_at: 'try_again_later',
  },
};

describe('every rule', () => {
  const words = (text = '') => text.split(/\s+/).filter((word) => word !== '');
  const cases = Object.entries(expected).flatMap(([table, verdicts]) =>
    Object.entries(verdicts).flatMap(([verdict, said]) =>
      words(said).map((code) => ({ table, code, verdict })),
    ),
  );

  it.each(cases)('$table $code is $verdict', ({ table, code, verdict }) => {
    const [kind, name = kind] = table.split(':');
    const gateway = kind === 'network' || name === 'mastercard' ? 'stripe' : name;
    const said =
      kind === 'network'
        ? { network: name, networkCode: code }
        : kind === 'advice'
          ? { network: name === 'stripe' ? null : name, adviceCode: code }
          : { gatewayCode: code };
    expect(verdictOf({ gateway: gateway ?? '', codes: codes(said), at }).kind).toBe(verdict);
  });

  it('has its case', () => {
    const tables = {
      ...gatewayRules,
      'network:visa': networkRules.visa,
      'advice:mastercard': adviceRules.mastercard,
      'advice:stripe': gatewayAdviceRules.stripe,
    };
    const rows = Object.entries(tables)
      .filter(([name]) => name !== 'simulator')
      .flatMap(([name, table]) => Object.keys(table?.codes ?? {}).map((code) => `${name} ${code}`));
    expect(cases.map(({ table, code }) => `${table} ${code}`).sort()).toEqual(rows.sort());
    expect([Object.keys(networkRules), Object.keys(adviceRules)]).toEqual([['visa'], ['mastercard']]);
  });
});

describe('ceilings', () => {
  const ago = (hours: number) => at.subtract({ hours });

  it('lets the sixteenth Visa attempt wait until the first of fifteen is 30 days old', () => {
    const attemptsAt = Array.from({ length: 15 }, (_, index) => ago(index * 24));
    const answer = ceilingAllows({ network: 'visa', attemptsAt, at });
    expect(answer.allowed).toBe(false);
    if (!answer.allowed) expect(answer.from.equals(ago(14 * 24).add({ hours: 720 }))).toBe(true);
    expect(ceilingAllows({ network: 'visa', attemptsAt: attemptsAt.slice(1), at }).allowed).toBe(true);
    expect(ceilingAllows({ network: null, attemptsAt, at }).allowed).toBe(false);
  });

  it('holds Mastercard to ten in a day and 35 in 30 days', () => {
    const tenToday = Array.from({ length: 10 }, (_, index) => ago(index));
    const answer = ceilingAllows({ network: 'mastercard', attemptsAt: tenToday, at });
    expect(!answer.allowed && answer.from.equals(ago(9).add({ hours: 24 }))).toBe(true);
    const many = Array.from({ length: 35 }, (_, index) => ago(index * 10));
    expect(ceilingAllows({ network: 'mastercard', attemptsAt: many, at }).allowed).toBe(false);
    expect(ceilingAllows({ network: 'mastercard', attemptsAt: many.slice(1), at }).allowed).toBe(true);
  });

  it('moves a retry behind the ceiling', () => {
    const attemptsAt = Array.from({ length: 15 }, (_, index) => ago(index));
    const said = codes({ gatewayCode: 'insufficient_funds', network: 'visa', networkCode: '51' });
    const verdict = verdictOf({ gateway: 'stripe', codes: said, at, attemptsAt });
    expect(verdict.kind === 'retry_at' && verdict.notBefore?.equals(ago(14).add({ hours: 720 }))).toBe(true);
  });
});

it('takes the first whole day, for a charge may run at any hour', () => {
  const zone = 'Asia/Tokyo';
  expect(firstWholeDayFrom(Temporal.Instant.from('2026-12-28T00:00:00+09:00'), zone).toString()).toBe(
    '2026-12-28',
  );
  expect(firstWholeDayFrom(Temporal.Instant.from('2026-12-28T00:00:01+09:00'), zone).toString()).toBe(
    '2026-12-29',
  );
});

it.each([
  // Summer time begins or ends: the day has 23 or 25 hours.
  ['America/New_York', '2027-03-14T05:00:00Z', '2027-03-14'],
  ['America/New_York', '2027-03-15T03:59:59Z', '2027-03-15'],
  ['America/New_York', '2027-11-07T04:00:00Z', '2027-11-07'],
  ['America/New_York', '2027-11-08T04:59:59Z', '2027-11-08'],
  // A day that begins at one o'clock, since midnight is left out.
  ['America/Santiago', '2026-09-06T04:00:00Z', '2026-09-06'],
  ['America/Santiago', '2026-09-06T04:00:01Z', '2026-09-07'],
  // Leap day, the end of a month, the end of a year.
  ['Asia/Tokyo', '2028-02-28T15:00:01Z', '2028-03-01'],
  ['Asia/Tokyo', '2027-01-30T15:00:00Z', '2027-01-31'],
  ['Asia/Tokyo', '2026-12-31T14:59:59Z', '2027-01-01'],
])('in %s the first whole day from %s is %s', (zone, at, expected) => {
  expect(firstWholeDayFrom(Temporal.Instant.from(at), zone).toString()).toBe(expected);
});
