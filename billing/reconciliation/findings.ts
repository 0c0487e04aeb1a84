export type FindingKind =
  | 'missing_here'
  | 'missing_there'
  | 'amount_differs'
  | 'currency_differs'
  | 'captured_twice'
  | 'fee_differs'
  | 'payout_differs'
  | 'not_paid_out'
  | 'unexpected_kind'
  | 'preliminary_not_confirmed'
  | 'debit_differs';

export type FindingOwner = 'gateway' | 'merchant' | 'operator';

/** Something that differs between us and the outside. While it is open, no result row of its bill goes out. */
export interface NewFinding {
  id: string;
  kind: FindingKind;
  /** As the outside names it: a gateway's charge id, a payout id, a payment number. */
  subject: string;
  gateway: string | null;
  /** YYYY-MM-DD */
  reportDate: string | null;
  chargeId: string | null;
  invoiceId: string | null;
  ours: number | null;
  theirs: number | null;
  currency: string | null;
  owner: FindingOwner;
}
