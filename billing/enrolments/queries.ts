import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { RecordRange } from '../exchanges/queries.ts';

export interface EnrolmentSubject {
  session_id: string;
  customer_id: string;
  contract_id: string;
  /** Of the bill that was paid. */
  business_date: string;
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
    `select s.id as session_id, i.customer_id, i.contract_id, i.business_date, c.name_digest, s.terms_version, s.enrol
     from checkout_sessions s
     join invoices i on i.merchant_id = s.merchant_id and i.id = s.invoice_id
     join contacts c on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id and c.version = i.contact_version
     where s.merchant_id = $1 and s.id = any($2::uuid[])`,
    [merchantId, sessionIds],
  );
}

/** The contract that a bill is for, held until the transaction ends: nobody enrols for it meanwhile. */
export async function contractOfBill(
  tx: Tx,
  merchantId: number,
  invoiceId: string,
): Promise<string | undefined> {
  const [row] = await tx.query<{ id: string }>(
    `select c.id from contracts c
     join invoices i on i.merchant_id = c.merchant_id and i.contract_id = c.id
     where i.merchant_id = $1 and i.id = $2::uuid
     for no key update of c`,
    [merchantId, invoiceId],
  );
  return row?.id;
}

export interface NewEnrolment {
  enrolmentId: string;
  methodId: string;
  customerId: string;
  contractId: string;
  gateway: string;
  kind: 'card' | 'bank';
  sealedToken: Buffer;
  keyId: number;
  brand: string | null;
  lastFour: string | null;
  expires: string | null;
  networkTransactionId: string | null;
  threeDsEci: string | null;
  effectiveFrom: string;
  /** Null: the first bill under it brings the name. */
  nameDigest: Buffer | null;
  termsVersion: string;
  source: string;
  /** The merchant does not know of it yet. */
  told: boolean;
}

/**
 * Starts enrolments, at most one for each contract; one that is active for the same contract ends, and the merchant is told
 * `changed`. Two phones enrolling at once end with one. Set-based.
 */
export async function startEnrolments(tx: Tx, act: Act, enrolments: readonly NewEnrolment[]): Promise<void> {
  if (enrolments.length === 0) return;
  const contractIds = enrolments.map((enrolment) => enrolment.contractId);
  const changed = new Set(await endEnrolments(tx, act, contractIds, false));
  await tx.run(
    `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four,
                                  expires, network_transaction_id, three_ds_eci, state, created_at)
     select $1, m.id, m.customer_id, m.gateway, m.kind, m.sealed_token, m.key_id, m.brand, m.last_four, m.expires,
            m.network_transaction_id, m.three_ds_eci, 'active', $2::timestamptz
     from unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bytea[], $8::smallint[], $9::text[], $10::text[],
                 $11::text[], $12::text[], $13::text[])
       as m(id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four, expires, network_transaction_id,
            three_ds_eci)`,
    [
      act.merchantId,
      instantText(act.at),
      enrolments.map((enrolment) => enrolment.methodId),
      enrolments.map((enrolment) => enrolment.customerId),
      enrolments.map((enrolment) => enrolment.gateway),
      enrolments.map((enrolment) => enrolment.kind),
      enrolments.map((enrolment) => enrolment.sealedToken),
      enrolments.map((enrolment) => enrolment.keyId),
      enrolments.map((enrolment) => enrolment.brand),
      enrolments.map((enrolment) => enrolment.lastFour),
      enrolments.map((enrolment) => enrolment.expires),
      enrolments.map((enrolment) => enrolment.networkTransactionId),
      enrolments.map((enrolment) => enrolment.threeDsEci),
    ],
  );
  await tx.run(
    `with new as (
       select * from unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::date[], $8::bytea[], $9::text[], $10::text[],
                            $11::text[], $12::text[])
         as e(id, customer_id, contract_id, method_id, effective_from, name_digest, terms_version, source, kind, what)
     ), started as (
       insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version,
                               effective_from, name_digest, terms_version, source, started_at)
       select $1, id, customer_id, contract_id, method_id, 'active', 1, effective_from, name_digest, terms_version, source,
              $2::timestamptz
       from new
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $13::date, 'enrolment', id, 1, null, 'active', $2::timestamptz, $14::uuid from new
     )
     insert into enrolment_rows (merchant_id, enrolment_id, what, customer_id, method, occurred_at)
     select $1, id, what, customer_id, kind, $2::timestamptz from new where what is not null`,
    [
      act.merchantId,
      instantText(act.at),
      enrolments.map((enrolment) => enrolment.enrolmentId),
      enrolments.map((enrolment) => enrolment.customerId),
      contractIds,
      enrolments.map((enrolment) => enrolment.methodId),
      enrolments.map((enrolment) => enrolment.effectiveFrom),
      enrolments.map((enrolment) => enrolment.nameDigest),
      enrolments.map((enrolment) => enrolment.termsVersion),
      enrolments.map((enrolment) => enrolment.source),
      enrolments.map((enrolment) => enrolment.kind),
      enrolments.map(({ told, contractId }) =>
        told ? (changed.has(contractId) ? 'changed' : 'enrolled') : null,
      ),
      monthOf(act.at),
      act.id,
    ],
  );
}

/**
 * Ends what is active for these contracts, and tells the merchant where it does not know. The contracts are locked first: an
 * agreement that is just taking another one's place is ended, too, and not overlooked. Returns the contracts that had one.
 */
export async function endEnrolments(
  tx: Tx,
  act: Act,
  contractIds: readonly string[],
  told: boolean,
): Promise<string[]> {
  if (contractIds.length === 0) return [];
  await tx.run(
    `select 1 from contracts where merchant_id = $1 and id = any($2::uuid[]) order by id for no key update`,
    [act.merchantId, contractIds],
  );
  const rows = await tx.query<{ contract_id: string }>(
    `with ended as (
       update enrolments set state = 'ended', version = version + 1, ended_at = $3::timestamptz
       where merchant_id = $1 and contract_id = any($2::uuid[]) and state = 'active'
       returning id, version, contract_id, customer_id, payment_method_id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $4::date, 'enrolment', id, version, 'active', 'ended', $3::timestamptz, $5::uuid from ended
     ), rows as (
       insert into enrolment_rows (merchant_id, enrolment_id, what, customer_id, method, occurred_at)
       select $1, e.id, 'ended', e.customer_id, p.kind, $3::timestamptz
       from ended e join payment_methods p on p.merchant_id = $1 and p.id = e.payment_method_id
       where $6
     )
     select contract_id from ended`,
    [act.merchantId, contractIds, instantText(act.at), monthOf(act.at), act.id, told],
  );
  return rows.map((row) => row.contract_id);
}

/** Whether an agreement that came by file still waits for its first bill. */
export async function hasNameless(tx: Pick<Tx, 'query'>, merchantId: number): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from enrolments where merchant_id = $1 and state = 'active' and name_digest is null limit 1`,
    [merchantId],
  );
  return rows.length > 0;
}

/** The first line of the range under such an agreement brings the name that later bills are compared with. */
export async function nameEnrolments(tx: Tx, range: RecordRange, businessDate: string): Promise<void> {
  await tx.run(
    `with first as (
       select distinct on (e.id) e.id, s.name_digest
       from enrolments e
       join contracts t on t.merchant_id = e.merchant_id and t.id = e.contract_id
       join staged_bills s on s.merchant_id = $1 and s.file_id = $2::uuid and s.record_no > $3 and s.record_no <= $4
         and s.customer_id = t.customer_id and coalesce(s.details ->> 'contract', '') = t.contract_number
       where e.merchant_id = $1 and e.state = 'active' and e.name_digest is null and e.effective_from <= $5::date
         and s.collection <> 'link'
       order by e.id, s.record_no
     )
     update enrolments e set name_digest = f.name_digest
     from first f where e.merchant_id = $1 and e.id = f.id`,
    [range.merchantId, range.fileId, range.from, range.to, businessDate],
  );
}

export interface EnrolmentRow {
  customer_number: string;
  contract_number: string;
  method: 'card' | 'bank';
  /** Its card or account may be charged. */
  usable: boolean;
  state: 'active' | 'ended';
  effective_from: string;
  started_at: string;
  ended_at: string | null;
  source: string;
}

const listedAtMost = 1_000;

/** Agreements that stand, or all of one customer; the newest first. */
export async function enrolmentsOf(
  db: Pick<Db, 'query'>,
  merchantId: number,
  customerNumber: string | null,
): Promise<EnrolmentRow[]> {
  return db.query<EnrolmentRow & Record<string, unknown>>(
    `select c.customer_number, t.contract_number, p.kind as method, p.state = 'active' as usable, e.state, e.effective_from,
            e.started_at, e.ended_at, e.source
     from enrolments e
     join customers c on c.merchant_id = e.merchant_id and c.id = e.customer_id
     join contracts t on t.merchant_id = e.merchant_id and t.id = e.contract_id
     join payment_methods p on p.merchant_id = e.merchant_id and p.id = e.payment_method_id
     where e.merchant_id = $1 and case when $2::text is null then e.state = 'active' else c.customer_number = $2 end
     order by e.started_at desc, e.id desc limit $3`,
    [merchantId, customerNumber, listedAtMost],
  );
}
