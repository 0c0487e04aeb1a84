import { Refusal } from '../refusal.ts';

/** Of a number that a person typed. */
export function customerUnknown(): Refusal {
  return new Refusal('CUSTOMER_UNKNOWN', 'the merchant has no such customer or contract', {
    next: 'Numbers are case-sensitive and keep their zeros. Where a command takes --contract, without it all contracts of the customer are meant.',
    exitCode: 2,
  });
}
