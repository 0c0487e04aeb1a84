import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import { assertState } from '../refusal.ts';
import { type Fence, FenceLost } from './fence.ts';
import type { Lease, RunKey } from './run.ts';

/**
 * First statement of every transaction that writes for a chunk. The share lock stays until COMMIT, so the chunk cannot
 * be claimed by another worker between this test and the outcome; a late worker finds a newer fence and writes nothing.
 */
export async function holdFence(tx: Tx, fence: Fence): Promise<void> {
  const held = await tx.query(
    `select 1 from chunks
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and chunk_no = $5
       and state = 'ready' and lease_owner = $6 and fence = $7
     for share`,
    [fence.merchantId, fence.job, fence.businessDate, fence.pass, fence.chunkNo, fence.owner, fence.fence],
  );
  if (held.length !== 1) throw new FenceLost(fence);
}

/** Asks for a run; one that is done is opened again, one that is running or waiting stays as it is. */
export async function requestRun(
  db: Pick<Db, 'run'>,
  key: RunKey,
  at: Temporal.Instant,
  reopen: boolean,
): Promise<number> {
  return db.run(
    `insert into runs (merchant_id, job, business_date, state, requested_at)
     values ($1, $2, $3::date, 'requested', $4::timestamptz)
     on conflict (merchant_id, job, business_date) do update set state = 'requested', requested_at = excluded.requested_at
     where $5 and runs.state in ('done', 'failed')
       and not exists (select from run_halts h where h.merchant_id = $1 and h.job = $2 and h.business_date = $3::date
                         and h.kind = 'stop')`,
    [key.merchantId, key.job, key.businessDate, instantText(at), reopen],
  );
}

export type HaltKind = 'pause' | 'stop';

/** A pause counts on every day, whenever it was given. */
const halts = (run: string) => `(
  select from run_halts h where h.merchant_id = ${run}.merchant_id and h.job = ${run}.job
    and (h.kind = 'pause' or h.business_date = ${run}.business_date))`;

/** What an operator has said of this run; a pause goes before a stop. Undefined: nothing, it may go on. */
export async function haltOf(db: Pick<Db, 'query'>, key: RunKey): Promise<HaltKind | undefined> {
  const [row] = await db.query<{ kind: HaltKind }>(
    `select kind from run_halts
     where merchant_id = $1 and job = $2 and (kind = 'pause' or business_date = $3::date)
     order by kind limit 1`,
    [key.merchantId, key.job, key.businessDate],
  );
  return row?.kind;
}

/** Returns 0 where the same was said before. A run that is stopped while nobody is at it is over. */
export async function placeHalt(
  tx: Tx,
  key: RunKey,
  kind: HaltKind,
  at: Temporal.Instant,
  by: string,
): Promise<number> {
  const placed = await tx.run(
    `insert into run_halts (merchant_id, job, business_date, kind, halted_at, halted_by)
     values ($1, $2, $3::date, $4, $5::timestamptz, $6)
     on conflict (merchant_id, job, business_date) do update
     set kind = excluded.kind, halted_at = excluded.halted_at, halted_by = excluded.halted_by
     where run_halts.kind <> excluded.kind`,
    [key.merchantId, key.job, key.businessDate, kind, instantText(at), by],
  );
  if (kind === 'stop')
    await tx.run(
      `update runs set state = 'done'
       where merchant_id = $1 and job = $2 and business_date = $3::date and state = 'requested'`,
      [key.merchantId, key.job, key.businessDate],
    );
  return placed;
}

/** Ends every pause of the job and the stop of this day; a run that was stopped is asked for again. */
export async function endHalts(tx: Tx, key: RunKey, at: Temporal.Instant): Promise<number> {
  const ended = await tx.query<{ kind: HaltKind }>(
    `delete from run_halts where merchant_id = $1 and job = $2 and (kind = 'pause' or business_date = $3::date)
     returning kind`,
    [key.merchantId, key.job, key.businessDate],
  );
  if (ended.some(({ kind }) => kind === 'stop')) await requestRun(tx, key, at, true);
  return ended.length;
}

export interface HeldRun {
  lease_owner: string | null;
  lease_live: boolean;
  state: string;
}

export async function lockRun(tx: Tx, key: RunKey): Promise<HeldRun> {
  const rows = await tx.query<HeldRun>(
    `select state, lease_owner, coalesce(lease_until > seikyu_now(), false) as lease_live from runs
     where merchant_id = $1 and job = $2 and business_date = $3::date for update`,
    [key.merchantId, key.job, key.businessDate],
  );
  if (!rows[0])
    throw new Error(`impossible state: run ${key.job} ${key.businessDate} was asked for and is not there`);
  return rows[0];
}

/**
 * Who else is at this job for the merchant, under another business date: both would find the same bills and files. The
 * merchant's row is locked first, so that of two that begin at once the second sees the first.
 */
export async function othersAtTheJob(tx: Tx, key: RunKey): Promise<string[]> {
  await tx.query(`select 1 from merchants where id = $1 for no key update`, [key.merchantId]);
  const rows = await tx.query<{ lease_owner: string }>(
    `select lease_owner from runs
     where merchant_id = $1 and job = $2 and business_date <> $3::date and state = 'running'
       and lease_owner is not null and lease_until > seikyu_now()
     order by business_date`,
    [key.merchantId, key.job, key.businessDate],
  );
  return rows.map((row) => row.lease_owner);
}

/**
 * Opens the next pass, in one statement. Chunks of former passes are fenced off: whoever still works on one can write no
 * more.
 */
export async function openPass(
  tx: Tx,
  key: RunKey,
  lease: Lease,
  codeVersion: string,
  at: Temporal.Instant,
): Promise<number> {
  const [opened] = await tx.query<{ pass: number }>(
    `with run as (
       update runs set state = 'running', pass = pass + 1, fence = fence + 1, lease_owner = $4,
              lease_until = seikyu_now() + make_interval(secs => $5)
       where merchant_id = $1 and job = $2 and business_date = $3::date
       returning pass
     ), fenced_off as (
       update chunks c set state = 'done', fence = c.fence + 1, failure = 'left to pass ' || run.pass
       from run
       where c.merchant_id = $1 and c.job = $2 and c.business_date = $3::date and c.pass < run.pass and c.state = 'ready'
     ), left_behind as (
       update run_passes p set outcome = 'stopped', finished_at = $7::timestamptz
       from run
       where p.merchant_id = $1 and p.job = $2 and p.business_date = $3::date and p.pass < run.pass and p.outcome is null
     )
     insert into run_passes (merchant_id, job, business_date, pass, owner, code_version, started_at)
     select $1, $2, $3::date, pass, $4, $6, $7::timestamptz from run
     returning pass`,
    [key.merchantId, key.job, key.businessDate, lease.owner, lease.seconds, codeVersion, instantText(at)],
  );
  if (!opened) throw new Error('impossible state: the locked run is gone');
  return opened.pass;
}

export async function insertChunks(
  tx: Tx,
  key: RunKey,
  pass: number,
  payloads: readonly unknown[],
): Promise<void> {
  if (payloads.length === 0) return;
  await tx.run(
    `insert into chunks (merchant_id, job, business_date, pass, chunk_no, payload, state)
     select $1, $2, $3::date, $4, n::int, payload::jsonb, 'ready'
     from unnest($5::text[]) with ordinality as c(payload, n)`,
    [key.merchantId, key.job, key.businessDate, pass, payloads.map((payload) => JSON.stringify(payload))],
  );
}

export interface ClaimedChunk {
  chunk_no: number;
  fence: number;
  payload: Record<string, unknown>;
}

export interface NoChunk {
  chunk_no: null;
  /** Of the pass and not done: others hold them. */
  open: number;
  /** Why one of its chunks was set aside, by whoever did it; null: none was. */
  failure: string | null;
  /** An operator has paused or stopped the run. */
  halted: boolean;
}

/** Takes the next chunk that nobody works on, or whose worker has gone silent; none of a pass that is over or halted. */
export async function claimChunk(
  db: Pick<Db, 'query'>,
  key: RunKey,
  pass: number,
  lease: Lease,
): Promise<ClaimedChunk | NoChunk> {
  const [row] = await db.query<ClaimedChunk | NoChunk>(
    `with halt as (
       select exists ${halts('r')} as halted, r.pass = $4 and r.state = 'running' as under_way
       from (select $1::int as merchant_id, $2::text as job, $3::date as business_date) k
       join runs r using (merchant_id, job, business_date)
     ), claimed as (
       update chunks c
       set lease_owner = $5, lease_until = seikyu_now() + make_interval(secs => $6), fence = fence + 1,
           attempts = attempts + 1
       where c.merchant_id = $1 and c.job = $2 and c.business_date = $3::date and c.pass = $4 and c.chunk_no = (
         select chunk_no from chunks
         where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and state = 'ready'
           and (lease_until is null or lease_until < seikyu_now())
           and exists (select from halt where not halted and under_way)
         order by chunk_no for update skip locked limit 1)
       returning c.chunk_no, c.fence, c.payload)
     select claimed.*, pass.open, pass.failure, halt.halted
     from (select count(*) filter (where state = 'ready') as open, min(failure) filter (where state = 'parked') as failure
           from chunks
           where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and state in ('ready', 'parked')) pass
     cross join halt
     left join claimed on true`,
    [key.merchantId, key.job, key.businessDate, pass, lease.owner, lease.seconds],
  );
  assertState(row, 'a count has one row');
  return row;
}

/** Prolongs the run's lease and the worker's chunk; false = another has taken it over. */
export async function heartbeat(
  db: Pick<Db, 'query'>,
  key: RunKey,
  pass: number,
  lease: Lease,
  chunk: Fence | undefined,
): Promise<boolean> {
  const rows = await db.query<{ run_held: boolean; chunk_held: boolean }>(
    `with run as (
       update runs set lease_until = seikyu_now() + make_interval(secs => $6)
       where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and lease_owner = $5
       returning 1
     ), chunk as (
       update chunks set lease_until = seikyu_now() + make_interval(secs => $6)
       where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4
         and chunk_no = $7 and fence = $8 and lease_owner = $5 and state = 'ready'
       returning 1
     )
     select exists (select from run) as run_held, exists (select from chunk) as chunk_held`,
    [
      key.merchantId,
      key.job,
      key.businessDate,
      pass,
      lease.owner,
      lease.seconds,
      chunk?.chunkNo ?? 0,
      chunk?.fence ?? 0,
    ],
  );
  return (rows[0]?.run_held ?? false) && (chunk === undefined || (rows[0]?.chunk_held ?? false));
}

/** Prolongs a chunk of a pass that another process has opened; false = another has taken it over. */
export async function heartbeatOfHelper(
  db: Pick<Db, 'run'>,
  key: RunKey,
  pass: number,
  lease: Lease,
  chunk: Fence | undefined,
): Promise<boolean> {
  if (chunk === undefined) return true;
  const held = await db.run(
    `update chunks set lease_until = seikyu_now() + make_interval(secs => $6)
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4
       and chunk_no = $7 and fence = $8 and lease_owner = $5 and state = 'ready'`,
    [key.merchantId, key.job, key.businessDate, pass, lease.owner, lease.seconds, chunk.chunkNo, chunk.fence],
  );
  return held === 1;
}

/** Ends a chunk by compare-and-set on its fence. */
export async function finishChunk(
  db: Pick<Db, 'run'>,
  fence: Fence,
  counts: Record<string, number>,
): Promise<void> {
  const done = await db.run(
    `update chunks set state = 'done', counts = $8::jsonb, finished_at = seikyu_now()
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and chunk_no = $5
       and state = 'ready' and lease_owner = $6 and fence = $7`,
    [
      fence.merchantId,
      fence.job,
      fence.businessDate,
      fence.pass,
      fence.chunkNo,
      fence.owner,
      fence.fence,
      JSON.stringify(counts),
    ],
  );
  if (done !== 1) throw new FenceLost(fence);
}

/** Sets a chunk that failed aside for the rest of its pass: the next pass plans anew what it left. */
export async function parkChunk(db: Pick<Db, 'run'>, fence: Fence, failure: string): Promise<void> {
  await db.run(
    `update chunks set state = 'parked', fence = fence + 1, failure = $8
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and chunk_no = $5
       and state = 'ready' and lease_owner = $6 and fence = $7`,
    [
      fence.merchantId,
      fence.job,
      fence.businessDate,
      fence.pass,
      fence.chunkNo,
      fence.owner,
      fence.fence,
      failure,
    ],
  );
}

/** Gives the chunk back, so that another worker or the next pass takes it up at once. */
export async function yieldChunk(db: Pick<Db, 'run'>, fence: Fence, failure: string): Promise<void> {
  await db.run(
    `update chunks set lease_until = null, fence = fence + 1, failure = $8
     where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and chunk_no = $5
       and state = 'ready' and lease_owner = $6 and fence = $7`,
    [
      fence.merchantId,
      fence.job,
      fence.businessDate,
      fence.pass,
      fence.chunkNo,
      fence.owner,
      fence.fence,
      failure,
    ],
  );
}

/** Counts of a pass's chunks, added up key by key. */
const countsOfPass = `
  select key, sum(value::bigint) as total
  from chunks c, jsonb_each_text(c.counts)
  where c.merchant_id = $1 and c.job = $2 and c.business_date = $3::date and c.pass = $4
  group by key`;

export interface PassEnd {
  outcome: 'done' | 'attention' | 'failed' | 'stopped';
  counts: Record<string, number>;
}

/**
 * Ends the pass and gives the run's lease back; undefined = another process holds it by now. A pass that did what it had to
 * is `attention` where one of these counts is not zero.
 */
export async function closePass(
  db: Pick<Db, 'query'>,
  key: RunKey,
  pass: number,
  lease: Lease,
  end: {
    outcome: 'done' | 'failed' | 'stopped';
    attention: readonly string[];
    failure: string | null;
    at: Temporal.Instant;
  },
): Promise<PassEnd | undefined> {
  const [closed] = await db.query<PassEnd>(
    `with counted as (
       select coalesce(jsonb_object_agg(key, total), '{}') as counts,
              coalesce(bool_or(total > 0 and key = any($6::text[])), false) as wants_attention
       from (${countsOfPass}) sums
     ), run as (
       update runs r set state = case when $7 = 'failed' then 'failed'
                                      when $7 = 'stopped' and not exists (
                                        select from run_halts h where h.merchant_id = r.merchant_id and h.job = r.job
                                          and h.business_date = r.business_date and h.kind = 'stop') then 'requested'
                                      else 'done' end,
              lease_owner = null, lease_until = null
       where merchant_id = $1 and job = $2 and business_date = $3::date and pass = $4 and lease_owner = $5
       returning 1
     )
     update run_passes p
     set outcome = case when $7 = 'done' and counted.wants_attention then 'attention' else $7 end,
         failure = $8, finished_at = $9::timestamptz, counts = counted.counts
     from run, counted
     where p.merchant_id = $1 and p.job = $2 and p.business_date = $3::date and p.pass = $4
     returning p.outcome, p.counts`,
    [
      key.merchantId,
      key.job,
      key.businessDate,
      pass,
      lease.owner,
      end.attention,
      end.outcome,
      end.failure,
      instantText(end.at),
    ],
  );
  return closed;
}

export interface RunToDo extends Record<string, unknown> {
  merchant_id: number;
  job: string;
  business_date: string;
}

/** Runs that were asked for, or whose owner has gone silent, and that nobody has halted: work for whoever looks first. */
export async function waitingRuns(db: Pick<Db, 'query'>, merchantId: number): Promise<RunToDo[]> {
  return db.query<RunToDo>(
    `select merchant_id, job, business_date from runs r
     where merchant_id = $1 and (state = 'requested' or (state = 'running' and lease_until < seikyu_now()))
       and not exists ${halts('r')}
     order by business_date, requested_at`,
    [merchantId],
  );
}

/** Passes that are under way, for a worker that lends a hand with their chunks. */
export async function runningPasses(
  db: Pick<Db, 'query'>,
  merchantId: number,
  jobs: readonly string[],
): Promise<(RunToDo & { pass: number })[]> {
  return db.query<RunToDo & { pass: number }>(
    `select distinct r.merchant_id, r.job, r.business_date, r.pass
     from runs r join chunks c on c.merchant_id = r.merchant_id and c.job = r.job
       and c.business_date = r.business_date and c.pass = r.pass and c.state = 'ready'
     where r.merchant_id = $1 and r.job = any($2::text[]) and r.state = 'running' and r.lease_until >= seikyu_now()
       and (c.lease_until is null or c.lease_until < seikyu_now())
       and not exists ${halts('r')}`,
    [merchantId, jobs],
  );
}

export interface PassRow {
  merchant: string;
  job: string;
  business_date: string;
  pass: number;
  outcome: string | null;
  started_at: string;
  finished_at: string | null;
  counts: Record<string, number>;
  failure: string | null;
  owner: string;
}

export async function recentPasses(
  db: Pick<Db, 'query'>,
  filter: { merchant: string | null; job: string | null; businessDate: string | null; limit: number },
): Promise<PassRow[]> {
  return db.query<PassRow>(
    `select m.code as merchant, p.job, p.business_date, p.pass, p.outcome, p.started_at, p.finished_at, p.counts,
            p.failure, p.owner
     from run_passes p join merchants m on m.id = p.merchant_id
     where ($1::text is null or m.code = $1) and ($2::text is null or p.job = $2)
       and ($3::date is null or p.business_date = $3::date)
     order by p.started_at desc, m.code limit $4`,
    [filter.merchant, filter.job, filter.businessDate, filter.limit],
  );
}

export interface RunProgress {
  state: string;
  pass: number;
  outcome: string | null;
  started_at: string;
  /** Of the newest pass: bills that its chunks are about, and those of the chunks that are done. */
  bills: number;
  bills_done: number;
  /** Of chunks done in the last seconds of the clock of leases; how many seconds of that the pass has run. */
  bills_lately: number;
  seconds_lately: number;
  /** Processes that hold a chunk now. */
  workers: number;
  halt: HaltKind | null;
  halted_at: string | null;
  halted_by: string | null;
}

/** How far the newest pass of a run is; undefined: nobody has asked for one, and nobody has halted it. */
export async function progressOf(
  db: Pick<Db, 'query'>,
  key: RunKey,
  latelySeconds: number,
): Promise<RunProgress | undefined> {
  const [row] = await db.query<RunProgress>(
    `select coalesce(r.state, 'not asked for') as state, coalesce(r.pass, 0) as pass, p.outcome, p.started_at, c.*,
            least($4::float8, greatest(extract(epoch from seikyu_now() - p.started_at)::float8, 0)) as seconds_lately,
            h.kind as halt, h.halted_at, h.halted_by
     from (select $1::int as merchant_id, $2::text as job, $3::date as business_date) k
     left join runs r using (merchant_id, job, business_date)
     left join run_passes p on p.merchant_id = $1 and p.job = $2 and p.business_date = $3::date and p.pass = r.pass
     left join lateral (
       select h.kind, h.halted_at, h.halted_by from run_halts h
       where h.merchant_id = $1 and h.job = $2 and (h.kind = 'pause' or h.business_date = $3::date)
       order by h.kind limit 1) h on true
     cross join lateral (
       select coalesce(sum(bills), 0)::bigint as bills,
              coalesce(sum(bills) filter (where state = 'done'), 0)::bigint as bills_done,
              coalesce(sum(bills) filter (where finished_at > seikyu_now() - make_interval(secs => $4::float8)), 0)::bigint
                as bills_lately,
              count(distinct lease_owner) filter (where state = 'ready' and lease_until > seikyu_now()) as workers
       from (select state, finished_at, lease_owner, lease_until, (payload ->> 'bills')::bigint as bills from chunks
             where merchant_id = $1 and job = $2 and business_date = $3::date and pass = r.pass) of_pass) c
     where r.merchant_id is not null or h.kind is not null`,
    [key.merchantId, key.job, key.businessDate, latelySeconds],
  );
  return row;
}

/** Which runs of a timetable exist already, so that a tick asks for each slot once. */
export async function lastRequested(
  db: Pick<Db, 'query'>,
  merchantId: number,
  businessDate: string,
): Promise<Map<string, string>> {
  const rows = await db.query<{ job: string; requested_at: string }>(
    `select job, requested_at from runs where merchant_id = $1 and business_date = $2::date`,
    [merchantId, businessDate],
  );
  return new Map(rows.map((row) => [row.job, row.requested_at]));
}
