import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Learned } from '../charges/charge.ts';
import { askLater } from '../charges/queries.ts';
import { type Recorded, recordOutcomes } from '../charges/record-outcomes.ts';
import type { Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Ids } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import type { Judgement } from './ask.ts';
import type { OpenCharge } from './queries.ts';

export interface Judged {
  charge: OpenCharge;
  judgement: Judgement;
}

export interface Resolved extends Recorded {
  askedAgain: number;
  differing: number;
  tooLong: number;
}

/** An outcome that is unknown for so long, or after so many questions, is no passing trouble. It is still not guessed. */
const asksUntilAlert = 10;
const hoursUntilAlert = 24;

/** Writes what was learned about a batch, when to ask about the rest, and calls a person where that takes too long. */
export async function resolveCharges(
  tx: Tx,
  work: { act: Act; merchant: Merchant; ids: Ids; sealer: Sealer },
  judged: readonly Judged[],
): Promise<Resolved> {
  const { act, merchant, ids } = work;
  const recorded = await recordOutcomes(tx, {
    act,
    timezone: merchant.settings.timezone,
    learnedBy: 'trace',
    learned: judged.flatMap(({ charge, judgement }): Learned[] =>
      judgement.kind === 'learned' ? [{ chargeId: charge.id, outcome: judgement.outcome }] : [],
    ),
    ids,
    sealer: work.sealer,
  });
  const again = judged.flatMap(({ charge, judgement }) =>
    judgement.kind === 'learned' ? [] : [{ charge, at: judgement.at }],
  );
  await askLater(
    tx,
    merchant.id,
    again.map(({ charge, at }) => ({ chargeId: charge.id, askAt: instantText(at) })),
  );
  const differing = judged.filter(({ judgement }) => judgement.kind === 'differs');
  if (differing.length > 0) {
    await raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: merchant.id,
      level: 'now',
      cause: 'AMOUNT_DIFFERS',
      message: `the gateway took another amount than was asked for charge ${differing[0]?.charge.id}; nothing is booked, the bill stays locked`,
      occurrences: differing.length,
    });
  }
  const tooLong = again.filter(({ charge }) => isTooLong(charge, act.at));
  if (tooLong.length > 0) {
    await raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: merchant.id,
      level: 'now',
      cause: 'OUTCOME_UNKNOWN',
      message: `the gateway gives no conclusive answer about charge ${tooLong[0]?.charge.id} and perhaps others; their bills stay locked until it does`,
      occurrences: tooLong.length,
    });
  }
  return {
    ...recorded,
    askedAgain: again.length,
    differing: differing.length,
    tooLong: tooLong.length,
  };
}

function isTooLong(charge: OpenCharge, now: Temporal.Instant): boolean {
  // A page that waits for its customer is in order until it ends.
  if (charge.state === 'requires_action' && charge.page_ends_at !== null) {
    const ends = Temporal.Instant.from(charge.page_ends_at).add({ hours: hoursUntilAlert });
    return Temporal.Instant.compare(now, ends) > 0;
  }
  const since = Temporal.Instant.from(charge.started_at).add({ hours: hoursUntilAlert });
  return charge.asks + 1 >= asksUntilAlert || Temporal.Instant.compare(now, since) > 0;
}
