import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { Refusal } from '../refusal.ts';
import { monthStart } from './close.ts';
import { type Account, accounts } from './ledger.ts';
import { customerIdOf, invoiceIdOf, type LedgerFilter } from './queries.ts';

/** A part of the ledger as a person names it. */
export interface LedgerPart {
  merchant: Merchant | null;
  /** YYYY-MM */
  month?: string;
  account?: string;
  customerNumber?: string;
  billingNumber?: string;
}

/** Refusals: MONTH_MALFORMED, ACCOUNT_UNKNOWN, MERCHANT_MISSING, CUSTOMER_UNKNOWN, BILL_UNKNOWN. */
export async function filterOf(db: Pick<Db, 'query'>, part: LedgerPart): Promise<LedgerFilter> {
  const { merchant, month, account, customerNumber, billingNumber } = part;
  const filter: LedgerFilter = {};
  if (merchant !== null) filter.merchantId = merchant.id;
  if (month !== undefined) filter.month = monthStart(month).toString();
  if (account !== undefined) filter.account = accountOf(account);
  if (customerNumber !== undefined || billingNumber !== undefined) {
    if (merchant === null) {
      throw new Refusal('MERCHANT_MISSING', 'a bill or a customer is one of a merchant', {
        next: 'Add --merchant <code>: seikyu merchant list names them.',
        exitCode: 2,
      });
    }
    if (customerNumber !== undefined) {
      const id = await customerIdOf(db, merchant.id, customerNumber);
      if (id === undefined) throw unknown('CUSTOMER_UNKNOWN', 'customer', merchant);
      filter.customerId = id;
    }
    if (billingNumber !== undefined) {
      const id = await invoiceIdOf(db, merchant.id, billingNumber);
      if (id === undefined) throw unknown('BILL_UNKNOWN', 'bill', merchant);
      filter.invoiceId = id;
    }
  }
  return filter;
}

function accountOf(text: string): Account {
  const found = accounts.find((account) => account === text);
  if (found !== undefined) return found;
  throw new Refusal('ACCOUNT_UNKNOWN', `there is no account ${JSON.stringify(text.slice(0, 40))}`, {
    next: `Accounts: ${accounts.join(', ')}`,
    exitCode: 2,
  });
}

function unknown(code: string, what: string, { code: merchant }: Merchant): Refusal {
  return new Refusal(code, `${merchant} has no such ${what}`, {
    next: 'Numbers are the merchant’s own, and case-sensitive.',
    exitCode: 2,
    context: { merchant },
  });
}
