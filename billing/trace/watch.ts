import { Temporal } from 'temporal-polyfill';
import { raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import type { Db } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { type LastTrace, lastTraces } from './queries.ts';

/** Trace runs every five minutes; after so long nobody looks after what is unknown. */
export const traceSilentMinutes = 30;
const cause = 'TRACE_SILENT';

export interface Watched extends LastTrace {
  isSilent: boolean;
}

/** When trace last ended well for each merchant. */
export async function tracersOf(ports: { db: Pick<Db, 'query'>; clock: Clock }): Promise<Watched[]> {
  const limit = ports.clock.now().subtract({ minutes: traceSilentMinutes });
  const traces = await lastTraces(ports.db);
  return traces.map((last) => ({
    ...last,
    isSilent: Temporal.Instant.compare(Temporal.Instant.from(last.at), limit) < 0,
  }));
}

/**
 * Who watches the watchman: whoever lives looks whether trace does, and calls a person if not. Not where time stands
 * between two runs, as in a demo: only where a schedule runs, or against the real clock.
 */
export async function watchTracer(ports: { db: Db; clock: Clock; ids: Ids }): Promise<void> {
  await ports.clock.refresh();
  const now = ports.clock.now();
  const silent = (await tracersOf(ports)).filter(({ isSilent }) => isSilent);
  const [first] = silent;
  if (first === undefined) {
    await resolveAlerts(ports.db, 0, now, [cause], 'trace ended well');
    return;
  }
  await raiseStanding(ports.db, 0, now, [
    {
      id: ports.ids.uuid(),
      level: 'now',
      cause,
      message: `no pass of trace has ended well for ${traceSilentMinutes} minutes: ${silent.length} merchants, such as ${first.merchant}, last at ${first.at}`,
      occurrences: silent.length,
    },
  ]);
}
