import type { Temporal } from 'temporal-polyfill';
import type { CrashPoint } from './crash-points.ts';

/**
 * Everything the product takes from the outside world besides PostgreSQL. Handed in by the process entries, so that
 * a seeded simulation can run the whole system. Gateways (`gateways/gateway.ts`), carriers (`carriers/carrier.ts`),
 * ways to tell operators (`alerts/sender.ts`) and the SFTP store (`files/store.ts`) are ports too and stand beside their
 * adapters.
 */

/** Business time. `now()` is what was true at the last `refresh()`: on the system clock that is always now. */
export interface Clock {
  now(): Temporal.Instant;
  /** Reads the virtual clock again (one database row); does nothing on the system clock. Call at the start of a unit of work. */
  refresh(): Promise<void>;
  /** Waits. On the demo's virtual clock no real time passes: the clock is moved instead. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** Aborts after real milliseconds: an outside call hangs in real time whatever the business clock says. */
  deadline(milliseconds: number): AbortSignal;
  /** Monotonic real milliseconds, for durations only. */
  elapsedMs(): number;
}

/** UUIDv7 in text form; time-ordered by the clock port. */
export interface Ids {
  uuid(): string;
}

export interface Randomness {
  bytes(count: number): Buffer;
}

/** Kills or interrupts the process at a named boundary; does nothing in production. */
export type Crash = (point: CrashPoint) => Promise<void>;

/** Local disk. Paths are absolute and built from our own ids, never from remote names. */
export interface Disk {
  /** Writes through a temporary name, fsync and rename: the path is complete or absent. Returns the bytes written. */
  write(path: string, content: AsyncIterable<Uint8Array>): Promise<number>;
  read(path: string): AsyncIterable<Uint8Array>;
  exists(path: string): Promise<boolean>;
  /** Names of the files in a folder, sorted; none where there is no such folder. */
  list(folder: string): Promise<string[]>;
  remove(path: string): Promise<void>;
}

/** What an operator should see. Dedupe key is `cause`; stored in `alerts` until acknowledged. */
export type AlertLevel = 'now' | 'daily' | 'none';

/** Structured log; callers pass allow-listed fields only: ids, counts, codes. Never names, numbers, tokens. */
export interface Log {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
}
