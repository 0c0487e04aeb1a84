import type { Log } from './ports.ts';

/** lock_not_available: the lock_timeout of the role. */
const lockNotAvailable = '55P03';

/** Counting tables for the planner is a help and no part of the work: who cannot have them now goes on without. */
export async function takeStatistics(log: Log, count: () => Promise<void>): Promise<void> {
  try {
    await count();
  } catch (error) {
    if ((error as { code?: unknown }).code !== lockNotAvailable) throw error;
    log.warn({}, 'tables were not counted: somebody else works on them. Autovacuum counts them in its time');
  }
}
