export type IntentState =
  | 'requires_payment_method'
  | 'processing'
  | 'requires_action'
  /** Nothing leads here yet: no gateway is asked to hold money before it takes it. */
  | 'requires_capture'
  | 'succeeded'
  | 'canceled';

/**
 * From a state to the ones it may become. Every other one may still become `succeeded`, as the charge may by which money
 * came: of two attempts one intent has, or after its visit ended. To `canceled` leads only the end of a visit whose charge
 * has a conclusive outcome, which brought the intent back to `requires_payment_method`: never a charge under way.
 */
export const transitions: Readonly<Record<IntentState, readonly IntentState[]>> = {
  requires_payment_method: ['processing', 'succeeded', 'canceled'],
  processing: ['requires_payment_method', 'requires_action', 'succeeded'],
  requires_action: ['requires_payment_method', 'succeeded'],
  requires_capture: ['succeeded'],
  succeeded: [],
  canceled: ['succeeded'],
};

export function statesBefore(to: IntentState): IntentState[] {
  return (Object.keys(transitions) as IntentState[]).filter((from) => transitions[from].includes(to));
}
