import { type Act, instantText } from '../acts/act.ts';
import { raiseAlert, raiseStanding } from '../alerts/queries.ts';
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
}

/** Writes what was learned about a batch, and when to ask about the rest. */
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
    const alert = {
      level: 'now' as const,
      cause: 'AMOUNT_DIFFERS',
      message: `the gateway took another amount than was asked for charge ${differing[0]?.charge.id}; nothing is booked, the bill stays locked`,
      occurrences: differing.length,
    };
    // Asked about again and again, it is news only the first time.
    if (differing.some(({ charge }) => charge.asks === 0))
      await raiseAlert(tx, ids.uuid(), act.at, { merchantId: merchant.id, ...alert });
    else await raiseStanding(tx, merchant.id, act.at, [{ id: ids.uuid(), ...alert }]);
  }
  return {
    ...recorded,
    askedAgain: again.length,
    differing: differing.length,
  };
}
