/** A billing file that should not have come, being undone bill by bill. */
export interface Recall {
  id: string;
  file_id: string;
  file_name: string;
  state: 'running' | 'done';
  bills: number;
  amount: number;
  begun_by: string;
  begun_at: string;
  entered_to: string | null;
  all_entered: boolean;
  ended_at: string | null;
}

export type RecallOutcome = 'cancelled' | 'refunded' | 'untouched';

/** Its message to customers who had been sent an SMS about the bill; at most one for each, by its key. */
export const recallNotice = 'recall_notice';
/** On links and messages that a recall ended. */
export const recalled = 'recalled';

/** How far a recall is, or what it would find: bills by where they stand. */
export interface RecallProgress {
  /** Cancelled, or would be. */
  cancelled: number;
  /** Paid and given back, or would be: as money, or to the customer's credit that paid it. */
  refunded: number;
  /** Final before and nothing to give back. */
  untouched: number;
  /** A charge has no conclusive outcome yet: asked first. */
  waiting: number;
  /** Money on its way back. */
  refunding: number;
  /** Of these the outcome of the gateway's call is unknown. */
  refunds_unknown: number;
  /** The gateway will not give the money back. */
  refused: number;
  /** Not looked at yet. */
  not_entered: number;
  /** Yen given back, or to be given back. */
  amount_refunded: number;
  /** Yen of payments that the gateway will not give back. */
  amount_refused: number;
  /** Of the bills with money that is still to go back: those of which shops or banks took some, and how many yen. */
  by_shop_or_bank: number;
  amount_by_shop_or_bank: number;
  /** Correction SMS planned or sent, or to be planned. */
  notices: number;
}
