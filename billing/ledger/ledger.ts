/** Accounts of one merchant, debit-positive. */
export const accounts = [
  'receivable',
  'billed',
  'preliminary',
  'gateway_clearing',
  'customer_credit',
  'returned',
  'paid_out',
  'fees',
  'fee_tax',
  'given_by_merchant',
] as const;

export type Account = (typeof accounts)[number];

/** Every event that moves money, and what it moves: the whole chart in one place. */
export const events = {
  bill_released: { debit: 'receivable', credit: 'billed' },
  bill_cancelled: { debit: 'billed', credit: 'receivable' },
  // A shop's word that a barcode was paid, before its money is certain.
  paid_preliminarily: { debit: 'preliminary', credit: 'receivable' },
  preliminary_confirmed: { debit: 'gateway_clearing', credit: 'preliminary' },
  preliminary_cancelled: { debit: 'receivable', credit: 'preliminary' },
  paid: { debit: 'gateway_clearing', credit: 'receivable' },
  overpaid: { debit: 'gateway_clearing', credit: 'customer_credit' },
  returned_unpaid: { debit: 'returned', credit: 'receivable' },
  paid_after_return: { debit: 'gateway_clearing', credit: 'returned' },
  credit_used: { debit: 'customer_credit', credit: 'receivable' },
  // The bill that it paid was taken back.
  credit_returned: { debit: 'receivable', credit: 'customer_credit' },
  credit_refunded: { debit: 'customer_credit', credit: 'gateway_clearing' },
  // The bill is owed again.
  refunded: { debit: 'receivable', credit: 'gateway_clearing' },
  // The merchant gave it back out of its own pocket; what the gateway holds stays as it is.
  refunded_by_merchant: { debit: 'receivable', credit: 'given_by_merchant' },
  credit_refunded_by_merchant: { debit: 'customer_credit', credit: 'given_by_merchant' },
  chargeback: { debit: 'receivable', credit: 'gateway_clearing' },
  payout: { debit: 'paid_out', credit: 'gateway_clearing' },
  fee: { debit: 'fees', credit: 'gateway_clearing' },
  fee_tax: { debit: 'fee_tax', credit: 'gateway_clearing' },
} as const satisfies Record<string, { debit: Account; credit: Account }>;

export type LedgerEvent = keyof typeof events;

export interface Posting {
  event: LedgerEvent;
  /** What caused it, and with it the entry: the invoice for a release, the charge for a payment, the payout for its fee. */
  entryId: string;
  /** Null where it is of no single bill: a payout. */
  invoiceId: string | null;
  customerId: string | null;
  amount: number;
  currency: string;
  /** YYYY-MM-DD, the merchant's day on which it happened. */
  eventOn: string;
}
