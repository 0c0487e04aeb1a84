import type { SetupOutcome } from '../gateways/gateway.ts';

export type CardChangeState =
  | 'processing'
  /** The gateway's page is open. */
  | 'requires_action'
  | 'unknown'
  | 'succeeded'
  | 'failed'
  /** Without effect: no page was opened, or the agreement had been changed or ended before the card was kept. */
  | 'canceled';

export const openStates: readonly CardChangeState[] = ['processing', 'requires_action', 'unknown'];

export const transitions: Readonly<Record<CardChangeState, readonly CardChangeState[]>> = {
  processing: ['requires_action', 'unknown', 'succeeded', 'failed', 'canceled'],
  requires_action: ['succeeded', 'failed', 'canceled'],
  unknown: ['succeeded', 'failed', 'canceled'],
  succeeded: [],
  failed: [],
  canceled: [],
};

/** Code of a change that came too late for its agreement. */
export const agreementGone = 'agreement_gone';

/** What was learned about one change, however it was learned. */
export interface LearnedCardChange {
  id: string;
  outcome: SetupOutcome | { kind: 'canceled'; why: string } | { kind: 'unknown'; why: string };
}

/** One without an outcome, as far as it must be known to ask about it. */
export interface OpenCardChange {
  id: string;
  state: CardChangeState;
  gateway: string;
  deadline_at: string;
  page_ends_at: string;
  page_url: string | null;
  gateway_session_id: string | null;
  asks: number;
}
