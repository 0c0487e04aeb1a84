export type InvoiceState = 'open' | 'parked' | 'paid' | 'unpaid' | 'cancelled';

/** From a state to the ones it may become. `paid`, `unpaid` (returned to the merchant) and `cancelled` are final. */
export const transitions: Readonly<Record<InvoiceState, readonly InvoiceState[]>> = {
  open: ['parked', 'paid', 'unpaid', 'cancelled'],
  parked: ['open', 'paid', 'unpaid', 'cancelled'],
  paid: [],
  unpaid: [],
  cancelled: [],
};

/** What a job is to do with an open bill next: charge a card, ask the bank for a debit, or decide anew. */
export type AgendaAct = 'charge' | 'debit' | 'dun';

export function statesBefore(to: InvoiceState): InvoiceState[] {
  return (Object.keys(transitions) as InvoiceState[]).filter((from) => transitions[from].includes(to));
}

export function isFinal(state: InvoiceState): boolean {
  return transitions[state].length === 0;
}

/** A bill as the actions on it need it, with its row locked until the transaction ends. */
export interface LockedInvoice {
  id: string;
  state: InvoiceState;
  version: number;
  billing_number: string;
  customer_id: string;
  contract_id: string;
  amount: number;
  currency: string;
  collection: 'link' | 'auto';
  due_on: string;
  debit_on: string | null;
  fell_back_on: string | null;
  /** The charge that holds the collection lock, if any. */
  locked_by: string | null;
}
