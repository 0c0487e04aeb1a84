import { performance } from 'node:perf_hooks';
import { setTimeout as wait } from 'node:timers/promises';
import { Temporal } from 'temporal-polyfill';
import type { Db } from './db.ts';
import type { Clock } from './ports.ts';
import { assertState } from './refusal.ts';

const real = {
  deadline: (milliseconds: number): AbortSignal => AbortSignal.timeout(milliseconds),
  elapsedMs: (): number => performance.now(),
};

const waitReally = async (milliseconds: number, signal?: AbortSignal): Promise<void> => {
  signal?.throwIfAborted();
  try {
    await wait(milliseconds, undefined, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
};

export function systemClock(): Clock {
  // A page asks six times within a millisecond, and the polyfill's instants are dear to the garbage collector.
  let last = Temporal.Instant.fromEpochMilliseconds(0);
  return {
    ...real,
    // Milliseconds: what the virtual clock, the ids and JSON carry.
    now() {
      const epochMs = Date.now();
      if (epochMs !== last.epochMilliseconds) last = Temporal.Instant.fromEpochMilliseconds(epochMs);
      return last;
    },
    refresh: async () => undefined,
    sleep: waitReally,
  };
}

export interface VirtualClock extends Clock {
  /** Sets the time, whether the clock ticks or stands. */
  set(instant: Temporal.Instant): Promise<void>;
  advance(milliseconds: number): Promise<void>;
  /** From now on time passes by itself. */
  tick(): Promise<void>;
  /** Time stands until it is moved. */
  stop(): Promise<void>;
}

/** The clock of a database that lives on a virtual one, or null. `startAt` (ISO 8601) puts it there at the first start. */
export async function openVirtualClock(
  db: Pick<Db, 'query' | 'run'>,
  startAt?: string,
): Promise<VirtualClock | null> {
  if (startAt !== undefined) {
    await db.run(
      `insert into virtual_clock (id, virtual_now) values (1, $1::timestamptz) on conflict (id) do nothing`,
      [startAt],
    );
  }
  const [row] = await db.query(`select 1 from virtual_clock`);
  return row ? virtualClock(db) : null;
}

/**
 * The demo's and the simulation's time: one row of `virtual_clock`, shared by all processes and by `seikyu_now()`.
 * `now()` needs a `refresh()` first. Sleeping moves a standing clock instead of waiting.
 */
export function virtualClock(db: Pick<Db, 'query' | 'run'>): VirtualClock {
  let read: Temporal.Instant | undefined;

  const refresh = async (): Promise<void> => {
    const [row] = await db.query<{ now: string }>(
      `select date_trunc('milliseconds', virtual_now + coalesce(clock_timestamp() - ticking_since, interval '0')) as now
         from virtual_clock
        where id = 1`,
    );
    assertState(row, 'the virtual clock has no row: it was never set');
    read = Temporal.Instant.from(row.now);
  };

  return {
    ...real,
    refresh,
    now() {
      assertState(read, 'the virtual clock was asked before its first refresh');
      return read;
    },
    async sleep(milliseconds, signal) {
      signal?.throwIfAborted();
      const moved = await db.run(
        `update virtual_clock
            set virtual_now = virtual_now + $1::bigint * interval '1 millisecond'
          where id = 1 and ticking_since is null`,
        [Math.ceil(milliseconds)],
      );
      if (moved === 0) await waitReally(milliseconds, signal);
      await refresh();
    },
    async set(instant) {
      await db.run(
        `insert into virtual_clock (id, virtual_now)
         values (1, $1::timestamptz)
             on conflict (id) do update
            set virtual_now = excluded.virtual_now,
                ticking_since = case when virtual_clock.ticking_since is not null then clock_timestamp() end`,
        [instant.toString()],
      );
      await refresh();
    },
    async advance(milliseconds) {
      await db.run(
        `update virtual_clock
            set virtual_now = virtual_now + $1::bigint * interval '1 millisecond'
          where id = 1`,
        [Math.ceil(milliseconds)],
      );
      await refresh();
    },
    async tick() {
      await db.run(
        `update virtual_clock
            set ticking_since = clock_timestamp()
          where id = 1 and ticking_since is null`,
      );
      await refresh();
    },
    async stop() {
      await db.run(
        `update virtual_clock
            set virtual_now = virtual_now + (clock_timestamp() - ticking_since),
                ticking_since = null
          where id = 1 and ticking_since is not null`,
      );
      await refresh();
    },
  };
}

export interface FixedClock extends Clock {
  set(instant: Temporal.Instant | string): void;
  advance(milliseconds: number): void;
}

/** For tests: stands still, sleeping moves it at once. `startIso` as '2026-11-25T01:02:03Z'. */
export function fixedClock(startIso: string): FixedClock {
  let current = Temporal.Instant.from(startIso);
  const advance = (milliseconds: number): void => {
    current = current.add({ milliseconds: Math.ceil(milliseconds) });
  };
  return {
    ...real,
    now: () => current,
    refresh: async () => undefined,
    async sleep(milliseconds, signal) {
      signal?.throwIfAborted();
      advance(milliseconds);
    },
    set(instant) {
      current = Temporal.Instant.from(instant);
    },
    advance,
  };
}
