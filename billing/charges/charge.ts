import type { ChargeOutcome } from '../gateways/gateway.ts';

export type ChargeState =
  | 'processing'
  | 'requires_action'
  | 'unknown'
  /** A shop says that it took the money; it is certain only later, or is taken back. */
  | 'preliminary'
  | 'succeeded'
  | 'failed'
  | 'canceled';
/** `barcode`: the customer paid at a shop, and nobody here asked for it. */
export type ChargeOrigin = 'link' | 'auto' | 'barcode';
export type LearnedBy = 'live' | 'webhook' | 'return' | 'trace' | 'report';

/**
 * From a state to the ones it may become. `failed` and `canceled` may still become `succeeded`: money that the gateway
 * proves to have taken is never denied, however late the news (applied to the bill if still owed, else a credit).
 */
export const transitions: Readonly<Record<ChargeState, readonly ChargeState[]>> = {
  processing: ['requires_action', 'unknown', 'succeeded', 'failed', 'canceled'],
  requires_action: ['unknown', 'succeeded', 'failed', 'canceled'],
  unknown: ['requires_action', 'succeeded', 'failed', 'canceled'],
  preliminary: ['succeeded', 'canceled'],
  succeeded: [],
  failed: ['succeeded'],
  canceled: ['succeeded'],
};

export function statesBefore(to: ChargeState): ChargeState[] {
  return (Object.keys(transitions) as ChargeState[]).filter((from) => transitions[from].includes(to));
}

/** What was learned about one charge, however it was learned. */
export interface Learned {
  chargeId: string;
  outcome:
    | ChargeOutcome
    /** Proven to have had no effect: never executed, or a hosted page closed unpaid. */
    | { kind: 'canceled'; why: string }
    | { kind: 'unknown'; why: string };
}
