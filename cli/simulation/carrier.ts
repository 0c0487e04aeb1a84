import { Temporal } from 'temporal-polyfill';
import type { Carrier, SmsRequest } from '../../billing/carriers/carrier.ts';
import type { Baton, Mortal } from './baton.ts';
import type { Faults } from './faults.ts';

export interface TakenSms extends SmsRequest {
  providerId: string;
  takenAtMs: number;
}

/** What becomes of SMS to a phone. */
export type Reach = 'delivered' | 'undelivered' | 'blocked';

/** The carrier's own truth. Like most real ones it does not know a message that it took before: it sends it again. */
export interface CarrierTruth {
  readonly taken: TakenSms[];
  /** By phone; all others are reached. */
  readonly reach: Map<string, Reach>;
  /** Phones to which it once took nothing. */
  readonly refused: Set<string>;
  /** Told of each message at the moment when it is taken. */
  onTaken: (sms: TakenSms) => Promise<void>;
}

const callDeadlineMs = 10_000;
/** Long, so that whoever asks early must wait: a late call may take effect until then. */
const notFoundConclusiveAfterMs = 600_000;

export function simulatedCarrier(baton: Baton, self: Mortal, faults: Faults, truth: CarrierTruth): Carrier {
  const take = async (request: SmsRequest): Promise<string> => {
    const providerId = `sms-${truth.taken.length + 1}`;
    const sms = { ...request, providerId, takenAtMs: baton.nowMs };
    truth.taken.push(sms);
    await truth.onTaken(sms);
    return providerId;
  };

  /** The adapter gives up a little early, or not at all: then the caller's own deadline has to do it. */
  const silence = () =>
    baton.pause(self, faults.hits(0.5) ? callDeadlineMs - 1_500 : callDeadlineMs * 3, 'carrier says nothing');

  return {
    name: 'outbox',
    secondSender: true,
    semantics: { callDeadlineMs, notFoundConclusiveAfterMs, concurrency: 4 },

    async send(request) {
      const { carrier } = faults.profile;
      const fault = faults.draw(
        carrier,
        'timeoutBefore',
        'timeoutAfter',
        'timeoutLate',
        'refused',
        'rateLimited',
      );
      await baton.pause(self, faults.between(20, 400), `carrier.send ${request.messageId} ${fault ?? ''}`);
      switch (fault) {
        case 'timeoutBefore':
          await silence();
          return { kind: 'unknown', why: 'no answer' };
        case 'timeoutAfter':
          await take(request);
          await silence();
          return { kind: 'unknown', why: 'no answer' };
        case 'timeoutLate':
          baton.at(
            baton.nowMs + callDeadlineMs + faults.between(0, notFoundConclusiveAfterMs - 10_000),
            `the carrier takes ${request.messageId} after all`,
            () => void take(request),
          );
          await silence();
          return { kind: 'unknown', why: 'no answer' };
        case 'refused':
          truth.refused.add(request.to);
          return { kind: 'refused', code: 'no_such_number' };
        case 'rateLimited':
          return { kind: 'not_executed', why: 'too many requests', retryAfterMs: 1_000 };
        default: {
          const providerId = await take(request);
          await baton.pause(self, faults.between(10, 200), 'carrier.send accepted');
          return { kind: 'accepted', providerId };
        }
      }
    },

    async lookup({ messageId }) {
      await baton.pause(self, faults.between(20, 400), `carrier.lookup ${messageId}`);
      if (faults.hits(faults.profile.carrier.lookupFails)) {
        await silence();
        return { kind: 'unknown', why: 'no answer' };
      }
      const sms = truth.taken.find((each) => each.messageId === messageId);
      const answer =
        sms === undefined
          ? ({ kind: 'not_found' } as const)
          : ({ kind: 'accepted', providerId: sms.providerId } as const);
      await baton.pause(self, faults.between(10, 200), `carrier.lookup ${answer.kind}`);
      return answer;
    },

    async *list(merchantCode, from, until) {
      await baton.pause(self, faults.between(20, 400), `carrier.list ${merchantCode} ${from}`);
      if (faults.hits(faults.profile.carrier.lookupFails)) throw new Error('list of SMS: no answer');
      const [fromMs, untilMs] = [Date.parse(from), Date.parse(until)];
      for (const sms of truth.taken) {
        if (sms.merchantCode !== merchantCode || sms.takenAtMs < fromMs || sms.takenAtMs >= untilMs) continue;
        const takenAt = Temporal.Instant.fromEpochMilliseconds(sms.takenAtMs).toString();
        yield { messageId: sms.messageId, providerId: sms.providerId, takenAt };
      }
    },
  };
}
