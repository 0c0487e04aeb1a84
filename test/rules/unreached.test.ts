import { expect, test } from 'vitest';
import { decideUnreached, type ReachFacts } from '../../billing/unreached/decide.ts';

const barcode = { reissue: 0, digits: '91', amount: 1_000, expires_on: '2027-01-01' };
const facts: ReachFacts = {
  byLink: true,
  isBusy: false,
  isTold: false,
  isReached: false,
  cause: 'no_phone',
  again: null,
  rule: 'kept',
  barcode,
  isComplete: true,
};
test.each<[string, Partial<ReachFacts>, string]>([
  ['kept with its barcode', {}, 'kept no_phone'],
  ['kept, over the limit of shops', { barcode: 'over_limit' }, 'returned over_limit'],
  ['kept, and no barcode is to be had', { barcode: null }, 'returned no_phone'],
  ['kept though a report is missing', { isComplete: false }, 'kept no_phone'],
  ['blocked, and there is another sender', { cause: 'blocked', again: 'first_notice' }, 'again'],
  ['no phone, and there is another sender', { again: 'first_notice' }, 'kept no_phone'],
  ['returned', { rule: 'returned' }, 'returned no_phone'],
  ['returned, over the limit', { rule: 'returned', barcode: 'over_limit' }, 'returned no_phone'],
  ['returned, a report is missing', { rule: 'returned', isComplete: false }, 'wait'],
  ['under way', { isBusy: true }, 'wait'],
  ['reached by another SMS', { isReached: true }, 'done'],
  ['reached, and another is under way', { isReached: true, isBusy: true }, 'wait'],
  ['told before', { isTold: true, isBusy: true }, 'done'],
  ['a card that is tried again', { byLink: false }, 'done'],
])('%s', (_, change, expected) => {
  const decision = decideUnreached({ ...facts, ...change });
  expect('cause' in decision ? `${decision.kind} ${decision.cause}` : decision.kind).toBe(expected);
});
