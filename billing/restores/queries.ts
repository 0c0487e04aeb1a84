import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Tx } from '../db.ts';
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
     order by m.code, array_position('{files,messages,told,charges}', s.step)`,
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
