import type { Act } from '../acts/act.ts';
import { instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { LearnedBy } from '../charges/charge.ts';
import type { Tx } from '../db.ts';
import { endEnrolments, type NewEnrolment, startEnrolments } from '../enrolments/queries.ts';
import type { SavedMethod } from '../gateways/gateway.ts';
import type { Ids } from '../ports.ts';
import type { Sealer } from '../sealing.ts';
import { agreementGone, type LearnedCardChange } from './card-change.ts';
import { type CardChangeDecision, decideChanges, type LockedCardChange, lockOpenChanges } from './queries.ts';

export interface RecordCardChanges {
  act: Act;
  learnedBy: LearnedBy;
  learned: readonly LearnedCardChange[];
  ids: Ids;
  sealer: Sealer;
}

const firstAskAfterMs = 60_000;

/**
 * The one way in which a changed card becomes true, in the caller's transaction: the agreement ends, and one with the new
 * card takes its place under the same name and from the same day, of which the merchant is told. Only the agreement
 * that the customer saw is changed: where another card, a bank or an end came first, that stays. Where nothing came of it and
 * the former card is gone, the agreement ends. Returns how many moved.
 */
export async function recordCardChanges(tx: Tx, input: RecordCardChanges): Promise<number> {
  const { act, learned, ids } = input;
  if (learned.length === 0) return 0;
  const known = new Map(
    (
      await lockOpenChanges(
        tx,
        act.merchantId,
        learned.map(({ id }) => id),
      )
    ).map((change) => [change.id, change]),
  );
  if (known.size === 0) return 0;
  await recordAct(tx, act);
  const enrolments: NewEnrolment[] = [];
  const decisions = learned.flatMap(({ id, outcome }): CardChangeDecision[] => {
    const change = known.get(id);
    if (change === undefined) return [];
    const askAt = instantText(act.at.add({ milliseconds: firstAskAfterMs }));
    const decided = { id, askAt, code: null, newEnrolmentId: null };
    if (outcome.kind === 'failed') return [{ ...decided, to: 'failed', code: outcome.codes.gatewayCode }];
    if (outcome.kind === 'canceled') return [{ ...decided, to: 'canceled', code: outcome.why }];
    if (outcome.kind === 'unknown') return [{ ...decided, to: 'unknown' }];
    if (!change.stands) return [{ ...decided, to: 'canceled', code: agreementGone }];
    const enrolment = enrolmentOf(input, change, outcome.savedMethod, ids.uuid());
    enrolments.push(enrolment);
    return [{ ...decided, to: 'succeeded', newEnrolmentId: enrolment.enrolmentId }];
  });
  await startEnrolments(tx, act, enrolments);
  // It was kept for the other card only, which does not come.
  const kept = decisions.flatMap(({ id, to }) => {
    const change = known.get(id);
    const isOver = to === 'failed' || to === 'canceled';
    return isOver && change?.stands && change.card_gone ? [change.contract_id] : [];
  });
  await endEnrolments(tx, act, kept, true);
  return (await decideChanges(tx, act, input.learnedBy, decisions)).length;
}

function enrolmentOf(
  { ids, sealer }: RecordCardChanges,
  change: LockedCardChange,
  saved: SavedMethod,
  enrolmentId: string,
): NewEnrolment {
  const methodId = ids.uuid();
  return {
    enrolmentId,
    methodId,
    customerId: change.customer_id,
    contractId: change.contract_id,
    gateway: change.gateway,
    kind: 'card',
    sealedToken: sealer.seal('method', saved.token, methodId),
    keyId: sealer.keyId,
    brand: saved.brand,
    lastFour: saved.lastFour,
    expires: saved.expires,
    networkTransactionId: saved.networkTransactionId,
    threeDsEci: saved.threeDsEci,
    effectiveFrom: change.effective_from,
    nameDigest: change.name_digest,
    termsVersion: change.terms_version,
    source: 'card_change',
    told: true,
  };
}
