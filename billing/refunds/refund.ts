import type { RefundAnswer } from '../gateways/gateway.ts';

export type RefundState = 'processing' | 'unknown' | 'succeeded' | 'failed' | 'canceled';

/** `canceled`: proven to be without effect, and may be tried again. `failed`: the gateway will not. Both free the sum again. */
export const transitions: Readonly<Record<RefundState, readonly RefundState[]>> = {
  processing: ['unknown', 'succeeded', 'failed', 'canceled'],
  unknown: ['succeeded', 'failed', 'canceled'],
  succeeded: [],
  failed: [],
  canceled: [],
};

export function statesBefore(to: RefundState): RefundState[] {
  return (Object.keys(transitions) as RefundState[]).filter((from) => transitions[from].includes(to));
}

export interface OpenRefund {
  id: string;
  charge_id: string;
  invoice_id: string;
  recall_id: string;
  gateway: string;
  gateway_charge_id: string | null;
  amount: number;
  currency: string;
  state: RefundState;
  started_at: string;
  deadline_at: string;
  asks: number;
}

/** What was learned of a refund, whoever asked. */
export interface LearnedRefund {
  refund: OpenRefund;
  outcome: Exclude<RefundAnswer, { kind: 'not_executed' }> | { kind: 'canceled'; why: string };
}
