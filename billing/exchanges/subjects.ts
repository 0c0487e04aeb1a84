import { rejectedLine } from './apply.ts';
import type { Finding } from './file.ts';

/** A line about a customer, or a contract of one, that the merchant's database does not have. */
export function unknownSubject(line: number, customerId: string | null): Finding {
  return rejectedLine(
    line,
    'E_UNKNOWN_CUSTOMER',
    customerId === null ? 'customer_number' : 'contract_number',
  );
}
