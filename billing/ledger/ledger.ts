/** Accounts of one merchant, debit-positive. */
export type Account =
  | 'receivable'
  | 'billed'
  | 'preliminary'
  | 'gateway_clearing'
  | 'customer_credit'
  | 'returned'
  | 'paid_out'
  | 'fees'
  | 'fee_tax';

/** Every event that moves money, and what it moves: the whole chart in one place. */
export const events = {
  bill_released: { debit: 'receivable', credit: 'billed' },
  bill_cancelled: { debit: 'billed', credit: 'receivable' },
  paid: { debit: 'gateway_clearing', credit: 'receivable' },
  overpaid: { debit: 'gateway_clearing', credit: 'customer_credit' },
  returned_unpaid: { debit: 'returned', credit: 'receivable' },
  paid_after_return: { debit: 'gateway_clearing', credit: 'returned' },
} as const satisfies Record<string, { debit: Account; credit: Account }>;

export type LedgerEvent = keyof typeof events;

export interface Posting {
  event: LedgerEvent;
  /** What caused it, and with it the entry: the invoice for a release, the charge for a payment. */
  entryId: string;
  invoiceId: string;
  customerId: string;
  amount: number;
  currency: string;
  /** YYYY-MM-DD, the merchant's day on which it happened. */
  eventOn: string;
}
