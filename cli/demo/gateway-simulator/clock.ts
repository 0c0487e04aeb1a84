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
      const { rows } = await pool.query<{ now_ms: number }>(`
        select (extract(epoch from virtual_now
                 + coalesce(clock_timestamp() - ticking_since, interval '0')) * 1000)::float8 as now_ms
        from virtual_clock
        where id = 1`);
      const row = rows[0];
      if (row === undefined) throw new Error('the virtual clock has no row yet');
      return Math.floor(row.now_ms);
    },
    close: () => pool.end(),
  };
}
