import type { Act } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import type { SavedMethod } from '../gateways/gateway.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { enrolmentSubjects, startEnrolments } from './queries.ts';

/** The terms a customer accepts with the tick on the pay page; shown there, kept with the enrolment. */
export const termsVersion = '2026-11';

export interface EnrolFromCharges {
  act: Act;
  ids: Ids;
  sealer: Sealer;
  /** The merchant's today: bills taken in from this day on are charged. */
  today: string;
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
  await startEnrolments(
    tx,
    input.act,
    input.saved.flatMap((saved) => {
      const subject = subjects.get(saved.sessionId);
      assertState(subject, `charge ${saved.chargeId} has no checkout session`);
      if (!subject.enrol) return [];
      const methodId = input.ids.uuid();
      const sealed = input.sealer.seal('method', saved.savedMethod.token, methodId);
      return [
        {
          enrolmentId: input.ids.uuid(),
          methodId,
          customerId: subject.customer_id,
          contractId: subject.contract_id,
          gateway: saved.gateway,
          sealedToken: sealed,
          keyId: input.sealer.keyId,
          brand: saved.savedMethod.brand,
          lastFour: saved.savedMethod.lastFour,
          expires: saved.savedMethod.expires,
          networkTransactionId: saved.savedMethod.networkTransactionId,
          threeDsEci: saved.savedMethod.threeDsEci,
          effectiveFrom: input.today,
          nameDigest: subject.name_digest,
          termsVersion: subject.terms_version ?? termsVersion,
          source: 'pay_page',
        },
      ];
    }),
  );
}
