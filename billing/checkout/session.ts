export type SessionState = 'open' | 'complete' | 'expired';

/**
 * From a state to the ones it may become. One that is over may still become `complete`: the gateway may prove late that it
 * took the money on its page.
 */
export const transitions: Readonly<Record<SessionState, readonly SessionState[]>> = {
  open: ['complete', 'expired'],
  complete: [],
  expired: ['complete'],
};

export function statesBefore(to: SessionState): SessionState[] {
  return (Object.keys(transitions) as SessionState[]).filter((from) => transitions[from].includes(to));
}
