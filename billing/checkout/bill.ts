import { Temporal } from 'temporal-polyfill';
import type { ChargeOrigin, ChargeState } from '../charges/charge.ts';
import type { PageMethod } from '../gateways/gateway.ts';
import type { InvoiceState } from '../invoices/invoice.ts';
import { wrongPersonCode } from '../links/queries.ts';
import { recalled } from '../recalls/recall.ts';

/** What a visitor may do with a bill. */
export type BillState =
  /** Can be paid now. */
  | 'owed'
  /** The gateway's page of an earlier press of the button is still open: the payment goes on there. */
  | 'in_payment'
  /** Another attempt has no conclusive outcome yet: nobody may pay a second time. */
  | 'waiting'
  /** A shop says that it took the money; in some days it is certain. */
  | 'paid_at_shop'
  /** The database is to learn first what it has forgotten: perhaps this bill is paid. */
  | 'resting'
  | 'paid'
  | 'cancelled'
  /** Handed back to the merchant, who asks for the money himself. */
  | 'returned'
  /** Who has the phone said that it is not for them. */
  | 'not_theirs'
  /** The link has ended; the bill may still be owed. */
  | 'expired';

export interface TaxLine {
  description: string;
  tax_rate: number;
  taxable_amount: number;
  tax_amount: number;
  issuer_registration_number: string | null;
}

/** A bill as the pay page needs it. */
export interface BillRow {
  invoice_id: string;
  state: InvoiceState;
  billing_number: string;
  customer_number: string;
  contract_id: string;
  amount: number;
  currency: string;
  billing_period: string;
  due_on: string;
  description: string;
  usage_from: string | null;
  usage_to: string | null;
  expires_on: string;
  dead_reason: string | null;
  cool_until: string | null;
  /** The charge that holds the collection lock, with its checkout session. */
  charge_id: string | null;
  charge_origin: ChargeOrigin | null;
  charge_state: ChargeState | null;
  hosted_page_url: string | null;
  gateway_session_id: string | null;
  session_enrol: boolean | null;
  session_method: PageMethod | null;
  session_expires_at: string | null;
  /** What the contract's automatic payment takes the money from; null: it is not on automatic payment. */
  enrolled_by: 'card' | 'bank' | null;
  paid_on: string | null;
  /** card, barcode, wallet or debit. */
  paid_by: string | null;
  /** Of that payment: given back, or on its way. */
  paid_back: number;
  /** Safe mode. */
  resting: boolean;
  /** The merchant's, now. */
  settings_version: number;
  tax_lines: TaxLine[];
}

/** `today`: the merchant's date, YYYY-MM-DD. A link may be used on its last day. */
export function stateOfBill(row: BillRow, now: Temporal.Instant, today: string): BillState {
  // Whatever became of the bill: it was never meant, and money that came for it goes back.
  if (row.dead_reason === recalled) return 'cancelled';
  if (row.state === 'paid') return 'paid';
  if (row.state === 'cancelled') return 'cancelled';
  if (row.state === 'unpaid') return 'returned';
  // Who has the phone is not the customer: a page that the customer has open elsewhere goes on there without them.
  if (row.dead_reason === wrongPersonCode) return 'not_theirs';
  if (row.charge_state === 'preliminary') return 'paid_at_shop';
  if (row.charge_id !== null) return hasOpenPage(row, now) ? 'in_payment' : 'waiting';
  if (row.dead_reason !== null || row.expires_on < today) return 'expired';
  return row.resting ? 'resting' : 'owed';
}

function hasOpenPage(row: BillRow, now: Temporal.Instant): boolean {
  return (
    row.charge_origin === 'link' &&
    row.charge_state === 'requires_action' &&
    row.hosted_page_url !== null &&
    row.session_expires_at !== null &&
    Temporal.Instant.compare(now, row.session_expires_at) < 0
  );
}
