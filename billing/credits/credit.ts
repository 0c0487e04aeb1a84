/** What becomes of money that is left over: it stays with the merchant, pays the customer's next bill, or goes back. */
export const creditPolicies = ['keep', 'next_bill', 'refund'] as const;

export type CreditPolicy = (typeof creditPolicies)[number];

/** A part of a credit, or the whole of it, put on a bill. */
export interface CreditUse {
  id: string;
  /** The payment that was too much. */
  payment_id: string;
  /** The bill for which that payment came. */
  from_invoice_id: string;
  /** The bill that it pays now. */
  invoice_id: string;
  amount: number;
  method: 'card' | 'barcode' | 'wallet' | 'debit';
  /** YYYY-MM-DD, when the money was collected. */
  collected_on: string;
}
