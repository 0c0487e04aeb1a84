import { referenceOf, uuidOf } from '../ids.ts';

export type MessageState = 'planned' | 'sending' | 'sent' | 'unknown' | 'failed' | 'skipped';

/**
 * From a state to the ones it may become. Back to `planned` leads only the proof that the carrier took nothing; from
 * `unknown` nothing is sent again. From `planned`, `skipped` and `failed` to `sent` leads only the carrier's own word: its
 * list, after the database was put back to an older state, or a callback.
 */
export const transitions: Readonly<Record<MessageState, readonly MessageState[]>> = {
  planned: ['sending', 'skipped', 'sent'],
  sending: ['sent', 'failed', 'unknown', 'planned'],
  unknown: ['sent', 'planned'],
  sent: [],
  failed: ['sent'],
  skipped: ['sent'],
};

export function statesBefore(to: MessageState): MessageState[] {
  return (Object.keys(transitions) as MessageState[]).filter((from) => transitions[from].includes(to));
}

/** Names one message to the carrier, for ever: `01KBRN...Z.first_notice`. */
export function messageIdOf(invoiceId: string, step: string): string {
  return `${referenceOf(invoiceId)}.${step}`;
}

/** The step that tells amount and date before an automatic charge; at most one for a bill. */
export const debitNotice = 'debit_notice';

/** The step of the n-th new link that a visitor asked for. */
export const freshLinkStep = (no: number): string => `fresh_link:${no}`;

export const isFreshLink = (step: string): boolean => step.startsWith('fresh_link:');

/** The step that says the same once more, from the carrier's second sender. */
export const againStep = (step: string): string => `${again}${step}`;

const again = 'again:';

export const isAgain = (step: string): boolean => step.startsWith(again);

/** The step whose words a step has. */
export const saidIn = (step: string): string => (isAgain(step) ? step.slice(again.length) : step);

/** Reads what `messageIdOf` wrote. Refusal REFERENCE_MALFORMED otherwise. */
export function messageOf(messageId: string): { invoiceId: string; step: string } {
  const dot = messageId.indexOf('.');
  return { invoiceId: uuidOf(messageId.slice(0, Math.max(dot, 0))), step: messageId.slice(dot + 1) };
}
