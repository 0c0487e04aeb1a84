import type { AlertSender, Notice } from '../../billing/alerts/sender.ts';
import type { Baton, Mortal } from './baton.ts';
import type { Faults } from './faults.ts';

/** The operators' side: what their webhook has taken. It takes a notice that it knows once more, as a simple one would. */
export interface ReceiverTruth {
  readonly taken: { notice: Notice; atMs: number }[];
  /** Told of each notice at the moment when it is taken. */
  onTaken: (notice: Notice) => Promise<void>;
}

const callDeadlineMs = 10_000;

export function simulatedReceiver(
  baton: Baton,
  self: Mortal,
  faults: Faults,
  truth: ReceiverTruth,
): AlertSender {
  const take = async (notice: Notice): Promise<void> => {
    truth.taken.push({ notice, atMs: baton.nowMs });
    await truth.onTaken(notice);
  };
  /** The adapter gives up a little early, or not at all: then the caller's own deadline has to do it. */
  const silence = () =>
    baton.pause(
      self,
      faults.hits(0.5) ? callDeadlineMs - 1_500 : callDeadlineMs * 3,
      'receiver says nothing',
    );

  return {
    channel: 'webhook',
    callDeadlineMs,

    async send(notice) {
      const { receiver } = faults.profile;
      const fault = faults.draw(receiver, 'timeoutBefore', 'timeoutAfter', 'error500');
      await baton.pause(self, faults.between(20, 400), `receiver ${notice.id} ${fault ?? ''}`);
      switch (fault) {
        case 'timeoutBefore':
          await silence();
          return { kind: 'not_accepted', why: 'no answer' };
        case 'timeoutAfter':
          await take(notice);
          await silence();
          return { kind: 'not_accepted', why: 'no answer' };
        case 'error500':
          return { kind: 'not_accepted', why: 'status 500' };
        default:
          await take(notice);
          await baton.pause(self, faults.between(10, 200), 'receiver accepted');
          return { kind: 'accepted' };
      }
    },

    close: async () => undefined,
  };
}
