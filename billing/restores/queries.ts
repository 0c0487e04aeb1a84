import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { ChargeOrigin, ChargeState } from '../charges/charge.ts';
import type { Tx } from '../db.ts';
import type { InvoiceState } from '../invoices/invoice.ts';
import { statesBefore } from '../messages/message.ts';
import { byMerchant } from '../refunds/refund.ts';
import { type OpenRestore, restsInSafeMode, type Step } from './restore.ts';

/** For statements that let money or messages out: read in the same snapshot, so that a running process stops too. */
export const notInSafeMode = `not exists (select from restores where ended_at is null)`;

export async function openRestore(db: Pick<Tx, 'query'>): Promise<OpenRestore | undefined> {
  const [row] = await db.query<OpenRestore>(
    `select id, began_at, begun_by, why, forgotten_from from restores where ended_at is null`,
  );
  return row;
}

/** Refusal SAFE_MODE while a restore is open. In the transaction that would freeze, return or claim. */
export async function refuseInSafeMode(db: Pick<Tx, 'query'>): Promise<void> {
  if ((await openRestore(db)) !== undefined) throw restsInSafeMode();
}

export interface NewRestore {
  id: string;
  by: string;
  why: string;
  at: Temporal.Instant;
  forgottenFrom: Temporal.Instant;
}

/** One is open at a time; an earlier start of the forgotten time prolongs the open one. True: safe mode begins with this. */
export async function insertRestore(tx: Tx, restore: NewRestore): Promise<boolean> {
  const inserted = await tx.run(
    `insert into restores (id, began_at, begun_by, why, forgotten_from)
     values ($1::uuid, $2::timestamptz, $3, $4, $5::timestamptz)
     on conflict ((ended_at is null)) where ended_at is null do nothing`,
    [restore.id, instantText(restore.at), restore.by, restore.why, instantText(restore.forgottenFrom)],
  );
  if (inserted === 1) return true;
  await tx.run(
    `update restores set forgotten_from = $1::timestamptz where ended_at is null and forgotten_from > $1::timestamptz`,
    [instantText(restore.forgottenFrom)],
  );
  return false;
}

export async function closeRestore(
  tx: Tx,
  id: string,
  end: { at: Temporal.Instant; by: string; accepted: string | null },
): Promise<boolean> {
  const closed = await tx.run(
    `update restores set ended_at = $2::timestamptz, ended_by = $3, accepted = $4
     where id = $1::uuid and ended_at is null`,
    [id, instantText(end.at), end.by, end.accepted],
  );
  return closed === 1;
}

/** A restore that began after an instant has accounted for what was known outside until then. */
export async function restoreBeganAfter(tx: Pick<Tx, 'query'>, at: string): Promise<boolean> {
  const rows = await tx.query(`select 1 from restores where began_at > $1::timestamptz limit 1`, [at]);
  return rows.length > 0;
}

export interface StepRow {
  merchant: string;
  step: Step;
  state: 'open' | 'done';
  counts: Record<string, number>;
  left_over: string | null;
  at: string;
}

export async function recordStep(
  tx: Tx,
  step: {
    merchantId: number;
    restoreId: string;
    step: Step;
    counts: Record<string, number>;
    leftOver: string | null;
    at: Temporal.Instant;
  },
): Promise<void> {
  await tx.run(
    `insert into restore_steps as s (merchant_id, restore_id, step, state, counts, left_over, at)
     values ($1, $2::uuid, $3, case when $5::text is null then 'done' else 'open' end, $4::jsonb, $5, $6::timestamptz)
     on conflict (merchant_id, restore_id, step) do update
     set state = excluded.state, counts = excluded.counts, left_over = excluded.left_over, at = excluded.at`,
    [
      step.merchantId,
      step.restoreId,
      step.step,
      JSON.stringify(step.counts),
      step.leftOver,
      instantText(step.at),
    ],
  );
}

export async function restoreSteps(db: Pick<Tx, 'query'>, restoreId: string): Promise<StepRow[]> {
  return db.query<StepRow>(
    `select m.code as merchant, s.step, s.state, s.counts, s.left_over, s.at
     from restore_steps s join merchants m on m.id = s.merchant_id
     where s.restore_id = $1::uuid
     order by m.code, array_position('{files,messages,charges,told}', s.step)`,
    [restoreId],
  );
}

export interface OpenFinding {
  merchant: string;
  kind: string;
  subject: string;
}

/** What differs from the outside since the restore began, and nobody has settled. */
export async function openFindingsSince(db: Pick<Tx, 'query'>, since: string): Promise<OpenFinding[]> {
  return db.query<OpenFinding>(
    `select m.code as merchant, f.kind, f.subject
     from findings f join merchants m on m.id = f.merchant_id
     where f.state = 'open' and f.found_at >= $1::timestamptz
     order by m.code, f.found_at, f.subject limit 1000`,
    [since],
  );
}

export interface KnownIdentity {
  database_id: string;
  system_identifier: string | null;
  timeline: number | null;
}

export async function knownIdentity(db: Pick<Tx, 'query'>): Promise<KnownIdentity | undefined> {
  const [row] = await db.query<KnownIdentity>(
    `select database_id, system_identifier, timeline from database_identity where id = 1`,
  );
  return row;
}

/** Gives the database its name at its first start, then locks the row: of two that start at once one looks first. */
export async function lockIdentity(
  tx: Tx,
  databaseId: string,
): Promise<{ known: KnownIdentity; isNew: boolean }> {
  const inserted = await tx.run(
    `insert into database_identity (id, database_id) values (1, $1::uuid) on conflict (id) do nothing`,
    [databaseId],
  );
  const [known] = await tx.query<KnownIdentity>(
    `select database_id, system_identifier, timeline from database_identity where id = 1 for update`,
  );
  if (known === undefined) throw new Error('impossible state: the database has no identity');
  return { known, isNew: inserted === 1 };
}

export async function setServer(tx: Tx, server: Server): Promise<void> {
  await tx.run(
    `update database_identity
     set system_identifier = coalesce($1, system_identifier), timeline = coalesce($2::bigint, timeline) where id = 1`,
    [server.systemIdentifier, server.timeline],
  );
}

export interface Server {
  /** Of the data directory, for ever; null where this role may not ask. */
  systemIdentifier: string | null;
  /** Grows with each recovery to a point in time and each promotion. */
  timeline: number | null;
}

/** Which server answers. The two functions are open to every role from PostgreSQL 15 to 18; a hosted one may have closed them. */
export async function readServer(db: Pick<Tx, 'query'>): Promise<Server> {
  const [may] = await db.query<{ system: boolean | null; timeline: boolean | null }>(
    `select has_function_privilege(to_regprocedure('pg_control_system()'), 'execute') as system,
            has_function_privilege(to_regprocedure('pg_walfile_name(pg_lsn)'), 'execute') as timeline`,
  );
  const [system] = may?.system
    ? await db.query<{ identifier: string }>(
        `select system_identifier::text as identifier from pg_control_system()`,
      )
    : [];
  const [wal] = may?.timeline
    ? await db.query<{ timeline: number }>(
        `select ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int as timeline`,
      )
    : [];
  return { systemIdentifier: system?.identifier ?? null, timeline: wal?.timeline ?? null };
}

export async function insertLife(
  tx: Tx,
  nonce: string,
  at: Temporal.Instant,
): Promise<{ life: number; beats: number }> {
  const [row] = await tx.query<{ life: number; beats: number }>(
    `insert into process_lives (nonce, beats, beat_at) values ($1::uuid, 1, $2::timestamptz) returning life, beats`,
    [nonce, instantText(at)],
  );
  if (row === undefined) throw new Error('impossible state: a life was not written');
  return row;
}

/** Old ones go: a machine that was off for so many starts of others can no longer be told apart, and raises no alarm. */
export async function forgetOldLives(tx: Tx, kept: number): Promise<void> {
  await tx.run(`delete from process_lives where life <= (select max(life) from process_lives) - $1::bigint`, [
    kept,
  ]);
}

/** One more beat of a life; undefined: the database does not know that it had as many. */
export async function beatLife(
  tx: Pick<Tx, 'query'>,
  life: { life: number; nonce: string; beats: number },
  at: Temporal.Instant,
): Promise<number | undefined> {
  const [row] = await tx.query<{ beats: number }>(
    `update process_lives set beats = beats + 1, beat_at = greatest(beat_at, $4::timestamptz)
     where life = $1 and nonce = $2::uuid and beats >= $3
     returning beats`,
    [life.life, life.nonce, life.beats, instantText(at)],
  );
  return row?.beats;
}

/** Whether a life as it was seen outside is in the database's past. */
export async function remembersLife(
  tx: Pick<Tx, 'query'>,
  life: { life: number; nonce: string; beats: number },
): Promise<boolean> {
  const [row] = await tx.query<{ remembered: boolean }>(
    `select exists (select from process_lives where life = $1 and nonce = $2::uuid and beats >= $3)
         or $1 < coalesce((select min(life) from process_lives), 0) as remembered`,
    [life.life, life.nonce, life.beats],
  );
  return row?.remembered ?? false;
}

/** When this database was last alive, as far as it knows. */
export async function lastBeat(db: Pick<Tx, 'query'>): Promise<string | null> {
  const [row] = await db.query<{ at: string | null }>(`select max(beat_at) as at from process_lives`);
  return row?.at ?? null;
}

export interface KnownCharge {
  id: string;
  state: ChargeState;
  origin: ChargeOrigin;
  /** Given back by the gateway, or perhaps so. */
  refunded: number;
}

export async function chargesKnown(
  db: Pick<Tx, 'query'>,
  merchantId: number,
  chargeIds: readonly string[],
): Promise<Map<string, KnownCharge>> {
  const rows = await db.query<KnownCharge>(
    `select c.id, c.state, c.origin, coalesce(r.refunded, 0)::bigint as refunded
     from charges c
     left join (
       select charge_id, sum(amount) as refunded from refunds
       where merchant_id = $1 and charge_id = any($2::uuid[]) and state not in ('failed', 'canceled') and gateway <> $3
       group by charge_id
     ) r on r.charge_id = c.id
     where c.merchant_id = $1 and c.id = any($2::uuid[])`,
    [merchantId, chargeIds, byMerchant],
  );
  return new Map(rows.map((row) => [row.id, row]));
}

/** How bills are paid that the outside names; ids that are none of ours are left out. */
export async function billsToPutTo(
  db: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<Map<string, 'link' | 'auto'>> {
  const rows = await db.query<{ id: string; pays: 'link' | 'auto' }>(
    `select id, case when fell_back_on is null then collection else 'link' end as pays
     from invoices where merchant_id = $1 and id::text = any($2::text[])`,
    [merchantId, invoiceIds],
  );
  return new Map(rows.map((row) => [row.id, row.pays]));
}

export interface ForgottenCharge {
  chargeId: string;
  invoiceId: string;
  intentId: string;
  /** Null for an automatic one. */
  sessionId: string | null;
  origin: 'link' | 'auto';
  /** The visitor had ticked automatic payment. */
  enrols: boolean;
  language: string;
  amount: number;
  currency: string;
  /** ISO 8601 instant. */
  capturedAt: string;
  businessDate: string;
}

/**
 * Charges that the database has forgotten, as they stood before their outcome, with the visits and intents that they came
 * from. Without a lock: another attempt that is remembered may hold it, and the outcome follows in the same transaction.
 */
export async function insertForgottenCharges(
  tx: Tx,
  act: Act,
  by: { gateway: string; termsVersion: string },
  charges: readonly ForgottenCharge[],
): Promise<void> {
  const values = [
    act.merchantId,
    charges.map((charge) => charge.chargeId),
    charges.map((charge) => charge.invoiceId),
    charges.map((charge) => charge.intentId),
    charges.map((charge) => charge.sessionId),
    charges.map((charge) => charge.origin),
    charges.map((charge) => charge.enrols),
    charges.map((charge) => charge.language),
    charges.map((charge) => charge.amount),
    charges.map((charge) => charge.currency),
    charges.map((charge) => charge.capturedAt),
    charges.map((charge) => charge.businessDate),
  ];
  const forgotten = `unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::boolean[], $8::text[], $9::bigint[],
                            $10::text[], $11::timestamptz[], $12::date[])
         as c(id, invoice_id, intent_id, session_id, origin, enrols, language, amount, currency, captured_at, business_date)`;
  await tx.run(
    `with new as (select * from ${forgotten} where session_id is not null),
     sessions as (
       insert into checkout_sessions (merchant_id, id, invoice_id, link_version, state, version, language, enrol,
                                      terms_version, terms_accepted_at, started_at, expires_at)
       select $1, n.session_id, n.invoice_id,
              coalesce((select max(l.version) from links l where l.merchant_id = $1 and l.invoice_id = n.invoice_id), 1),
              'open', 1, n.language, n.enrols, case when n.enrols then $13 end, case when n.enrols then n.captured_at end,
              n.captured_at, n.captured_at
       from new n
     ), intents as (
       insert into payment_intents (merchant_id, id, invoice_id, session_id, origin, amount, currency, state, version,
                                    created_at)
       select $1, n.intent_id, n.invoice_id, n.session_id, 'link', n.amount, n.currency, 'processing', 1, n.captured_at
       from new n
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $14::date, 'payment_intent', id, 1, null, 'processing', $15::timestamptz, $16::uuid from intents`,
    [...values, by.termsVersion, monthOf(act.at), instantText(act.at), act.id],
  );
  await tx.run(
    `with inserted as (
       insert into charges (merchant_id, id, intent_id, invoice_id, session_id, attempt_no, origin, gateway, amount, currency,
                            state, version, business_date, started_at, deadline_at)
       select $1, c.id, c.intent_id, c.invoice_id, c.session_id,
              row_number() over (partition by c.invoice_id order by c.captured_at, c.id)
                + coalesce((select max(o.attempt_no) from charges o
                            where o.merchant_id = $1 and o.invoice_id = c.invoice_id), 0),
              c.origin, $13, c.amount, c.currency, 'processing', 1, c.business_date, c.captured_at, c.captured_at
       from ${forgotten}
       returning id
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $14::date, 'charge', id, 1, null, 'processing', $15::timestamptz, $16::uuid from inserted`,
    [...values, by.gateway, monthOf(act.at), instantText(act.at), act.id],
  );
}

/** What was missing here is here now. */
export async function settleFindingsOf(tx: Tx, act: Act, subjects: readonly string[]): Promise<number> {
  if (subjects.length === 0) return 0;
  return tx.run(
    `update findings set state = 'settled', settled_at = $3::timestamptz, settled_by = $4, how = 'put to its bill after a restore'
     where merchant_id = $1 and state = 'open' and kind = 'missing_here' and subject = any($2::text[])`,
    [act.merchantId, subjects, instantText(act.at), act.actor],
  );
}

export interface TakenMessage {
  invoiceId: string;
  step: string;
  providerId: string;
  takenAt: string;
}

export interface MissingMessage {
  invoice_id: string;
  step: string;
  taken_at: string;
  invoice_state: InvoiceState;
}

/** Of messages that the carrier took, those that are not even planned here although their bill is there. */
export async function stepsWithoutMessage(
  tx: Tx,
  merchantId: number,
  taken: readonly TakenMessage[],
): Promise<MissingMessage[]> {
  return tx.query<MissingMessage>(
    `select i.id as invoice_id, t.step, t.taken_at, i.state as invoice_state
     from unnest($2::uuid[], $3::text[], $4::timestamptz[]) as t(invoice_id, step, taken_at)
     join invoices i on i.merchant_id = $1 and i.id = t.invoice_id
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     where not exists (select from messages m
                       where m.merchant_id = $1 and m.invoice_id = t.invoice_id and m.step = t.step)`,
    [
      merchantId,
      taken.map((each) => each.invoiceId),
      taken.map((each) => each.step),
      taken.map((each) => each.takenAt),
    ],
  );
}

/** Sent, by the carrier's own word: whatever was not known to be so. Returns how many moved, and of how many the bill is here. */
export async function markTaken(
  tx: Tx,
  act: Act,
  carrier: string,
  taken: readonly TakenMessage[],
): Promise<{ marked: number; known: number }> {
  const [row] = await tx.query<{ marked: number; known: number }>(
    `with taken as (
       select * from unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[])
         as t(invoice_id, step, provider_id, taken_at)
     ), before as (
       select m.invoice_id, m.step, m.state
       from messages m join taken t on t.invoice_id = m.invoice_id and t.step = m.step
       where m.merchant_id = $1
       order by m.invoice_id, m.step
       for update of m
     ), marked as (
       update messages m
       set state = 'sent', version = m.version + 1, carrier = $6, provider_id = t.provider_id, code = null,
           claimed_at = coalesce(m.claimed_at, t.taken_at), ask_at = null, decided_at = $7::timestamptz
       from before b join taken t on t.invoice_id = b.invoice_id and t.step = b.step
       where m.merchant_id = $1 and m.invoice_id = b.invoice_id and m.step = b.step and b.state = any($10::text[])
       returning m.invoice_id, m.step, m.version, b.state as from_state
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $8::date, 'message:' || step, invoice_id, version, from_state, 'sent', $7::timestamptz, $9::uuid from marked
     )
     select (select count(*) from marked) as marked, (select count(*) from before) as known`,
    [
      act.merchantId,
      taken.map((each) => each.invoiceId),
      taken.map((each) => each.step),
      taken.map((each) => each.providerId),
      taken.map((each) => each.takenAt),
      carrier,
      instantText(act.at),
      monthOf(act.at),
      act.id,
      statesBefore('sent'),
    ],
  );
  return row ?? { marked: 0, known: 0 };
}

/** Bills that are still owed here, among those that the merchant was told the end of. */
export async function toldStillOwed(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  billingNumbers: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(
    `select id from invoices
     where merchant_id = $1 and billing_number = any($2::text[]) and state in ('open', 'parked') order by id`,
    [merchantId, billingNumbers],
  );
  return rows.map((row) => row.id);
}

/** The next file of a kind gets a higher number than this one. */
export async function raiseOutwardNumber(
  tx: Tx,
  merchantId: number,
  kind: string,
  sequence: number,
): Promise<void> {
  await tx.run(
    `insert into merchant_counters as c (merchant_id, name, value) values ($1, 'outward:' || $2, $3)
     on conflict (merchant_id, name) do update set value = excluded.value where c.value < excluded.value`,
    [merchantId, kind, sequence],
  );
}

export async function outwardFileHere(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<{ state: 'frozen' | 'delivered'; renaming: boolean } | undefined> {
  const [row] = await tx.query<{ state: 'frozen' | 'delivered'; renaming: boolean }>(
    `select state, renaming_at is not null as renaming from outward_files where merchant_id = $1 and id = $2::uuid`,
    [merchantId, fileId],
  );
  return row;
}

export interface NewToldFile {
  id: string;
  kind: string;
  sequence: number;
  name: string;
  businessDate: string;
  inputFileId: string | null;
  records: number;
  sum: number;
  sha256: string;
  sizeBytes: number;
  frozenAt: string;
  delivered: boolean;
  /** Of a settlement, as the gateway calls it; null: another kind, or it cannot be read. */
  payout: string | null;
}

/** False: its name or number is another file's. One that is not proved to be delivered may have been visible. */
export async function insertToldFile(tx: Tx, act: Act, file: NewToldFile): Promise<boolean> {
  const inserted = await tx.run(
    `with inserted as (
       insert into outward_files (merchant_id, id, kind, sequence, name, business_date, input_file_id, records, sum, sha256,
                                  size_bytes, state, frozen_at, renaming_at, parts, renaming_part, delivered_at, payout_id)
       values ($1, $2::uuid, $3, $4, $5, $6::date, $7::uuid, $8, $9, $10, $11, case when $13 then 'delivered' else 'frozen' end,
               $12::timestamptz, $14::timestamptz, 1, 1, case when $13 then $14::timestamptz end, $17)
       on conflict do nothing
       returning id, state
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $15::date, 'outward_file', id, 1, null, state, $14::timestamptz, $16::uuid from inserted`,
    [
      act.merchantId,
      file.id,
      file.kind,
      file.sequence,
      file.name,
      file.businessDate,
      file.inputFileId,
      file.records,
      file.sum,
      file.sha256,
      file.sizeBytes,
      file.frozenAt,
      file.delivered,
      instantText(act.at),
      monthOf(act.at),
      act.id,
      file.payout,
    ],
  );
  return inserted === 1;
}

/** The bills of charges that were forgotten are locked again: nobody may collect them another way. */
export async function lockForgotten(
  tx: Tx,
  act: Act,
  charges: readonly { chargeId: string; invoiceId: string }[],
): Promise<void> {
  await tx.run(
    `insert into collection_locks (merchant_id, invoice_id, charge_id, locked_at, ask_at)
     select $1, c.invoice_id, c.charge_id, $2::timestamptz, $2::timestamptz
     from unnest($3::uuid[], $4::uuid[]) as c(invoice_id, charge_id)`,
    [
      act.merchantId,
      instantText(act.at),
      charges.map((charge) => charge.invoiceId),
      charges.map((charge) => charge.chargeId),
    ],
  );
}

/** How many rows here are told in a file, of a kind whose rows are told once. */
export async function countClaimed(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  kind: string,
  fileId: string,
): Promise<number> {
  const [row] = await tx.query<{ claimed: number }>(
    `select case $2 when 'result' then (select count(*) from result_rows where merchant_id = $1 and outward_file_id = $3::uuid)
                    when 'enrolment' then (select count(*) from enrolment_rows where merchant_id = $1 and outward_file_id = $3::uuid)
                    when 'unreached' then (select count(*) from unreached_rows where merchant_id = $1 and outward_file_id = $3::uuid)
                    when 'adjustment' then (select count(*) from adjustment_rows where merchant_id = $1 and outward_file_id = $3::uuid)
       end as claimed`,
    [merchantId, kind, fileId],
  );
  return row?.claimed ?? 0;
}

/** Whether an input file came to the same here as its receipt or tie-out says by its own totals. */
export async function inputFileAsTold(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  told: { kind: string; inputFileId: string | null; records: number; sum: number },
): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from billing_files f
     where f.merchant_id = $1 and f.id = $2::uuid
       and case when $3 = 'tieout' then f.state = 'released' and (f.lines_accepted, f.amount_accepted) = ($4::bigint, $5::bigint)
                else f.state in ('released', 'refused')
                  and $4::bigint = 1 + (select count(*) from line_findings l where l.merchant_id = $1 and l.file_id = f.id) end`,
    [merchantId, told.inputFileId, told.kind, told.records, told.sum],
  );
  return rows.length === 1;
}

export interface ToldRow {
  rowNo: number;
  billingNumber: string;
  outcome: string;
  method: string;
  amount: number;
  knownAt: string;
  causeId: string | null;
}

/** That an outcome was not known then needs no proof now. */
export async function addToldPending(tx: Tx, merchantId: number, rows: readonly ToldRow[]): Promise<void> {
  const pending = rows.filter((row) => row.outcome === 'pending' && row.causeId !== null);
  if (pending.length === 0) return;
  await tx.run(
    `insert into result_rows (merchant_id, invoice_id, outcome, cause_id, reason, method, amount, amount_received, known_at)
     select $1, i.id, 'pending', t.cause_id, '', t.method, t.amount, 0, t.known_at
     from unnest($2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::timestamptz[])
       as t(billing_number, cause_id, method, amount, known_at)
     join invoices i on i.merchant_id = $1 and i.billing_number = t.billing_number
     on conflict (merchant_id, invoice_id, outcome, cause_id) do nothing`,
    [
      merchantId,
      pending.map((row) => row.billingNumber),
      pending.map((row) => row.causeId),
      pending.map((row) => row.method),
      pending.map((row) => row.amount),
      pending.map((row) => row.knownAt),
    ],
  );
}

/** Puts rows that are true here into the file that told them. */
export async function claimToldRows(
  tx: Tx,
  merchantId: number,
  fileId: string,
  rows: readonly ToldRow[],
): Promise<void> {
  await tx.run(
    `update result_rows r set outward_file_id = $2::uuid, row_no = t.row_no
     from unnest($3::int[], $4::text[], $5::text[], $6::uuid[]) as t(row_no, billing_number, outcome, cause_id)
     join invoices i on i.merchant_id = $1 and i.billing_number = t.billing_number
     where r.merchant_id = $1 and r.invoice_id = i.id and r.outcome = t.outcome and r.outward_file_id is null
       and r.cause_id = t.cause_id`,
    [
      merchantId,
      fileId,
      rows.map((row) => row.rowNo),
      rows.map((row) => row.billingNumber),
      rows.map((row) => row.outcome),
      rows.map((row) => row.causeId),
    ],
  );
}

export interface ToldOtherwise {
  billing_number: string;
  outcome: string;
  /** The bill where it is still owed here. */
  owed_id: string | null;
}

/** Of rows that a file told, those that are in no file here or in another one; in their order. */
export async function toldOtherwise(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
  rows: readonly ToldRow[],
): Promise<ToldOtherwise[]> {
  return tx.query<ToldOtherwise>(
    `select t.billing_number, t.outcome, case when i.state in ('open', 'parked') then i.id end as owed_id
     from unnest($3::int[], $4::text[], $5::text[], $6::uuid[]) as t(row_no, billing_number, outcome, cause_id)
     left join invoices i on i.merchant_id = $1 and i.billing_number = t.billing_number
     left join result_rows r on r.merchant_id = $1 and r.invoice_id = i.id and r.outcome = t.outcome
       and r.cause_id = t.cause_id and r.outward_file_id = $2::uuid
     where r.invoice_id is null
     order by t.row_no`,
    [
      merchantId,
      fileId,
      rows.map((row) => row.rowNo),
      rows.map((row) => row.billingNumber),
      rows.map((row) => row.outcome),
      rows.map((row) => row.causeId),
    ],
  );
}

/** An agreement found again has another id than the one that was told; it is of the same customer. */
export async function claimToldEnrolments(
  tx: Tx,
  merchantId: number,
  fileId: string,
  rows: readonly { rowNo: number; customerNumber: string; what: string }[],
): Promise<void> {
  await tx.run(
    `update enrolment_rows r set outward_file_id = $2::uuid, row_no = t.row_no
     from (
       select row_no, customer_number, what, row_number() over (partition by customer_number, what order by row_no) as place
       from unnest($3::int[], $4::text[], $5::text[]) as told(row_no, customer_number, what)
       where not exists (select from enrolment_rows e
                         where e.merchant_id = $1 and e.outward_file_id = $2::uuid and e.row_no = told.row_no)
     ) t
     join customers u on u.merchant_id = $1 and u.customer_number = t.customer_number
     join (
       -- What happened twice to a customer was told once for each time.
       select enrolment_id, what, customer_id, row_number() over (partition by customer_id, what order by occurred_at, enrolment_id) as place
       from enrolment_rows where merchant_id = $1 and outward_file_id is null
     ) untold on untold.customer_id = u.id and untold.what = t.what and untold.place = t.place
     where r.merchant_id = $1 and r.enrolment_id = untold.enrolment_id and r.what = untold.what`,
    [
      merchantId,
      fileId,
      rows.map((row) => row.rowNo),
      rows.map((row) => row.customerNumber),
      rows.map((row) => row.what),
    ],
  );
}

export interface ToldUnreachedRow {
  rowNo: number;
  billingNumber: string;
  cause: string;
  /** Null: the bill went back. */
  barcode: string | null;
  /** ISO 8601 instant. */
  occurredAt: string;
}

/**
 * Puts what a file told of unreached bills into it. A bill that is kept here, or went back here, is told so by itself; the
 * barcode that the merchant prints is the bill's again. What is otherwise here stays out.
 */
export async function takeInToldUnreached(
  tx: Tx,
  merchantId: number,
  fileId: string,
  rows: readonly ToldUnreachedRow[],
): Promise<void> {
  const values = [
    merchantId,
    rows.map((row) => row.rowNo),
    rows.map((row) => row.billingNumber),
    rows.map((row) => row.cause),
    rows.map((row) => row.barcode),
    rows.map((row) => row.occurredAt),
  ];
  const told = `unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
       as t(row_no, billing_number, cause, barcode, occurred_at)
     join invoices i on i.merchant_id = $1 and i.billing_number = t.billing_number`;
  // From the right: check digit, six of amount, stamp, six of the last day, reissue.
  await tx.run(
    `insert into barcodes (merchant_id, invoice_id, reissue, digits, amount, expires_on, issued_at)
     select $1, i.id, substr(t.barcode, 30, 1)::smallint, t.barcode, i.amount,
            to_date('20' || substr(t.barcode, 31, 6), 'YYYYMMDD'), t.occurred_at
     from ${told}
     where t.barcode is not null and substr(t.barcode, 38, 6)::bigint = i.amount
     on conflict do nothing`,
    values,
  );
  await tx.run(
    `insert into unreached_rows as u (merchant_id, invoice_id, reason, disposition, barcode, occurred_at, outward_file_id, row_no)
     select $1, i.id, t.cause, case when t.barcode is null then 'returned' else 'kept' end, t.barcode, t.occurred_at, $7::uuid,
            t.row_no
     from ${told}
     where case when t.barcode is null then i.state = 'unpaid'
                else exists (select from barcodes b
                             where b.merchant_id = $1 and b.invoice_id = i.id and b.digits = t.barcode) end
     on conflict (merchant_id, invoice_id) do update
       set outward_file_id = excluded.outward_file_id, row_no = excluded.row_no, reason = excluded.reason,
           occurred_at = excluded.occurred_at
       where u.outward_file_id is null and u.barcode is not distinct from excluded.barcode`,
    [...values, fileId],
  );
}

export interface ToldAdjustmentRow {
  rowNo: number;
  number: number;
  kind: string;
  /** Null: the reference is none of ours. */
  causeId: string | null;
}

/** The next adjustment gets a higher number than this one. */
export async function raiseAdjustmentNumber(tx: Tx, merchantId: number, number: number): Promise<void> {
  await tx.run(
    `insert into merchant_counters as c (merchant_id, name, value) values ($1, 'adjustment', $2)
     on conflict (merchant_id, name) do update set value = excluded.value where c.value < excluded.value`,
    [merchantId, number],
  );
}

/** Puts adjustments that are true here into the file that told them, under the numbers that it gave. */
export async function claimToldAdjustments(
  tx: Tx,
  merchantId: number,
  fileId: string,
  rows: readonly ToldAdjustmentRow[],
): Promise<void> {
  await tx.run(
    `update adjustment_rows a set outward_file_id = $2::uuid, row_no = t.row_no, number = t.number
     from unnest($3::int[], $4::bigint[], $5::text[], $6::uuid[]) as t(row_no, number, kind, cause_id)
     where a.merchant_id = $1 and a.cause_id = t.cause_id and a.kind = t.kind and a.outward_file_id is null`,
    [
      merchantId,
      fileId,
      rows.map((row) => row.rowNo),
      rows.map((row) => row.number),
      rows.map((row) => row.kind),
      rows.map((row) => row.causeId),
    ],
  );
}

/** Every charge without a conclusive outcome may be asked about now: its last question is perhaps forgotten. */
export async function askNow(tx: Tx, merchantId: number, at: Temporal.Instant): Promise<number> {
  return tx.run(
    `update collection_locks set ask_at = $2::timestamptz where merchant_id = $1 and ask_at > $2::timestamptz`,
    [merchantId, instantText(at)],
  );
}

/** Input files that are here, of those that the archive has: by id, and by name and bytes. */
export async function filesHere(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  files: readonly { id: string; name: string; sha256: string }[],
): Promise<{ ids: Set<string>; contents: Set<string> }> {
  const rows = await tx.query<{ id: string; name: string; sha256: string }>(
    `select id, name, sha256 from billing_files
     where merchant_id = $1 and (id = any($2::uuid[]) or name = any($3::text[]))`,
    [merchantId, files.map(({ id }) => id), files.map(({ name }) => name)],
  );
  return {
    ids: new Set(rows.map(({ id }) => id)),
    contents: new Set(rows.map(({ name, sha256 }) => `${name} ${sha256}`)),
  };
}
