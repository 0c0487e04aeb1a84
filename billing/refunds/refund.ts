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

/** Ways to pay by which a gateway can send money back: it knows the card. Who paid at a shop left it no account. */
export const givableMethods: readonly string[] = ['card', 'wallet'];

/** Stands where a refund's gateway would: the merchant gave the money back itself, and nobody is asked about it. */
export const byMerchant = 'merchant';

/** Whom a refund is for: a recall, or a person or policy with a reason. */
export type AskedFor = { recallId: string } | { by: string; reason: string };

export interface OpenRefund {
  id: string;
  charge_id: string;
  invoice_id: string;
  /** Null: no recall asked for it. */
  recall_id: string | null;
  gateway: string;
  gateway_charge_id: string | null;
  amount: number;
  currency: string;
  state: RefundState;
  code: string | null;
  started_at: string;
  deadline_at: string;
  asks: number;
}

/** What was learned of a refund, whoever asked. */
export interface LearnedRefund {
  refund: OpenRefund;
  outcome: Exclude<RefundAnswer, { kind: 'not_executed' }> | { kind: 'canceled'; why: string };
}
