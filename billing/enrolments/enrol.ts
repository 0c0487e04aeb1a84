import type { Act } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import type { SavedMethod } from '../gateways/gateway.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { type EnrolmentSubject, enrolmentSubjects, type NewEnrolment, startEnrolments } from './queries.ts';

/** The terms a customer accepts with the tick on the pay page; shown there, kept with the enrolment. */
export const termsVersion = '2026-12';

export interface EnrolFromCharges {
  act: Act;
  ids: Ids;
  sealer: Sealer;
  saved: readonly { chargeId: string; sessionId: string; gateway: string; savedMethod: SavedMethod }[];
}

/** Enrols the customers who paid with the tick set and whose card the gateway kept. In the payment's own transaction. */
export async function enrolFromCharges(tx: Tx, input: EnrolFromCharges): Promise<void> {
  if (input.saved.length === 0) return;
  const subjects = new Map(
    (
      await enrolmentSubjects(
        tx,
        input.act.merchantId,
        input.saved.map((saved) => saved.sessionId),
      )
    ).map((subject) => [subject.session_id, subject]),
  );
  // Two bills of one contract may be paid in one batch: its agreements follow each other, the later one stays.
  let left = input.saved;
  while (left.length > 0) {
    const contracts = new Set<string>();
    const later: (typeof left)[number][] = [];
    const now: NewEnrolment[] = [];
    for (const saved of left) {
      const subject = subjects.get(saved.sessionId);
      assertState(subject, `charge ${saved.chargeId} has no checkout session`);
      if (!subject.enrol) continue;
      if (contracts.has(subject.contract_id)) later.push(saved);
      else now.push(enrolmentOf(input, saved, subject));
      contracts.add(subject.contract_id);
    }
    await startEnrolments(tx, input.act, now);
    left = later;
  }
}

function enrolmentOf(
  input: EnrolFromCharges,
  saved: EnrolFromCharges['saved'][number],
  subject: EnrolmentSubject,
): NewEnrolment {
  const methodId = input.ids.uuid();
  return {
    enrolmentId: input.ids.uuid(),
    methodId,
    customerId: subject.customer_id,
    contractId: subject.contract_id,
    gateway: saved.gateway,
    kind: 'card',
    sealedToken: input.sealer.seal('method', saved.savedMethod.token, methodId),
    keyId: input.sealer.keyId,
    brand: saved.savedMethod.brand,
    lastFour: saved.savedMethod.lastFour,
    expires: saved.savedMethod.expires,
    networkTransactionId: saved.savedMethod.networkTransactionId,
    threeDsEci: saved.savedMethod.threeDsEci,
    // Every later bill is charged, also one whose file has an earlier date than today and came late or was held.
    effectiveFrom: subject.business_date,
    nameDigest: subject.name_digest,
    termsVersion: subject.terms_version ?? termsVersion,
    source: 'pay_page',
    told: true,
  };
}
