import { Pool } from 'pg';

/** The simulator's time in epoch milliseconds. */
export interface SimulatorClock {
  now(): Promise<number>;
  close(): Promise<void>;
}

/** The demo's virtual clock is one row in Seikyu's database: both systems then live on the same day. */
export function simulatorClock(clockUrl: string | null): SimulatorClock {
  if (clockUrl === null) return { now: async () => Date.now(), close: async () => undefined };
  const pool = new Pool({ connectionString: clockUrl, max: 2, statement_timeout: 5_000 });
  pool.on('error', () => undefined);
  return {
    async now() {
      // Without the row Seikyu itself lives on the system's time.
      const { rows } = await pool.query<{ now_ms: number }>(`
        select (extract(epoch from coalesce(
          (select virtual_now + coalesce(clock_timestamp() - ticking_since, interval '0')
           from virtual_clock
           where id = 1),
          clock_timestamp())) * 1000)::float8 as now_ms`);
      return Math.floor(rows[0]?.now_ms ?? Number.NaN);
    },
    close: () => pool.end(),
  };
}
