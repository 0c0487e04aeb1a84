import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Tx } from '../db.ts';

export interface EnrolmentSubject {
  session_id: string;
  customer_id: string;
  contract_id: string;
  name_digest: Buffer;
  terms_version: string | null;
  enrol: boolean;
}

/** Whom a visit enrols: the contract of the bill it paid, under the name on that bill. */
export async function enrolmentSubjects(
  tx: Tx,
  merchantId: number,
  sessionIds: readonly string[],
): Promise<EnrolmentSubject[]> {
  return tx.query<EnrolmentSubject>(
    `select s.id as session_id, i.customer_id, i.contract_id, c.name_digest, s.terms_version, s.enrol
     from checkout_sessions s
     join invoices i on i.merchant_id = s.merchant_id and i.id = s.invoice_id
     join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
     where s.merchant_id = $1 and s.id = any($2::uuid[])`,
    [merchantId, sessionIds],
  );
}

export interface NewEnrolment {
  enrolmentId: string;
  methodId: string;
  customerId: string;
  contractId: string;
  gateway: string;
  sealedToken: Buffer;
  keyId: number;
  brand: string;
  lastFour: string;
  expires: string;
  networkTransactionId: string | null;
  threeDsEci: string | null;
  effectiveFrom: string;
  nameDigest: Buffer;
  termsVersion: string;
  source: string;
}

/**
 * Starts enrolments; one that is active for the same contract ends, and the merchant is told `changed`. The contract rows
 * are locked first, so that two phones enrolling at once end with one.
 */
export async function startEnrolments(tx: Tx, act: Act, enrolments: readonly NewEnrolment[]): Promise<void> {
  const at = instantText(act.at);
  for (const enrolment of enrolments) {
    await tx.run(`select 1 from contracts where merchant_id = $1 and id = $2::uuid for no key update`, [
      act.merchantId,
      enrolment.contractId,
    ]);
    const ended = await tx.run(
      `with former as (
         update enrolments set state = 'ended', version = version + 1, ended_at = $3::timestamptz
         where merchant_id = $1 and contract_id = $2::uuid and state = 'active'
         returning id, version
       )
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $4::date, 'enrolment', id, version, 'active', 'ended', $3::timestamptz, $5::uuid from former`,
      [act.merchantId, enrolment.contractId, at, monthOf(act.at), act.id],
    );
    await tx.run(
      `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four,
                                    expires, network_transaction_id, three_ds_eci, state, created_at)
       values ($1, $2::uuid, $3::uuid, $4, 'card', $5, $6, $7, $8, $9, $10, $11, 'active', $12::timestamptz)`,
      [
        act.merchantId,
        enrolment.methodId,
        enrolment.customerId,
        enrolment.gateway,
        enrolment.sealedToken,
        enrolment.keyId,
        enrolment.brand,
        enrolment.lastFour,
        enrolment.expires,
        enrolment.networkTransactionId,
        enrolment.threeDsEci,
        at,
      ],
    );
    await tx.run(
      `with started as (
         insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version,
                                 effective_from, name_digest, terms_version, source, started_at)
         values ($1, $2::uuid, $3::uuid, $4::uuid, $5::uuid, 'active', 1, $6::date, $7, $8, $9, $10::timestamptz)
       ), history as (
         insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
         values ($1, $11::date, 'enrolment', $2::uuid, 1, null, 'active', $10::timestamptz, $12::uuid)
       )
       insert into enrolment_rows (merchant_id, enrolment_id, what, customer_id, method, occurred_at)
       values ($1, $2::uuid, $13, $3::uuid, 'card', $10::timestamptz)`,
      [
        act.merchantId,
        enrolment.enrolmentId,
        enrolment.customerId,
        enrolment.contractId,
        enrolment.methodId,
        enrolment.effectiveFrom,
        enrolment.nameDigest,
        enrolment.termsVersion,
        enrolment.source,
        at,
        monthOf(act.at),
        act.id,
        ended > 0 ? 'changed' : 'enrolled',
      ],
    );
  }
}
