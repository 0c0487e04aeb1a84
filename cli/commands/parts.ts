import cron from 'node-cron';
import { sendDueAlerts } from '../../billing/alerts/send.ts';
import { listMerchants } from '../../billing/merchants/queries.ts';
import { watchTracer } from '../../billing/trace/watch.ts';
import { messageOf } from '../../jobs/run.ts';
import { requestDueRuns } from '../../jobs/schedule.ts';
import { Workbench } from '../../jobs/work.ts';
import { type AdminServer, startAdmin } from '../../web/admin.ts';
import { startWeb } from '../../web/server.ts';
import type { System } from '../system.ts';

/** What a long-running process is made of: each part ends when it is closed, in the order opposite to its start. */
export type Closer = () => Promise<unknown>;

/** The public pages and the operators' own. Both ports before anything else: a second one by mistake changes nothing. */
export async function startPages(system: System): Promise<{ admin: AdminServer; close: Closer }> {
  const web = await startWeb({
    webDb: system.webDb,
    ports: system.ports,
    baseUrl: system.settings.baseUrl,
    port: system.settings.port,
    host: system.settings.database.kind === 'embedded' ? '127.0.0.1' : '0.0.0.0',
    gatewayOrigins: [system.gatewayOrigin()],
  });
  try {
    const admin = await startAdmin({
      db: system.db,
      ports: system.ports,
      port: system.settings.adminPort,
      host: system.settings.adminHost,
    });
    return {
      admin,
      close: async () => {
        await admin.close();
        await web.close();
      },
    };
  } catch (error) {
    await web.close();
    throw error;
  }
}

/** Asks for runs by the timetable, each minute, and sends alerts. Any number may tick: the run table remembers. */
export async function startTicking(system: System): Promise<Closer> {
  const startedMs = system.ports.clock.elapsedMs();
  const ticking = cron.schedule(
    '* * * * *',
    async () => {
      await tick(system);
      await tellOperators(system, startedMs);
    },
    { noOverlap: true },
  );
  await tick(system);
  return async () => ticking.stop();
}

/** Works until it is stopped; woken at once where somebody has chunks to share. */
export async function work(system: System, stop: AbortSignal, atOnce: number): Promise<void> {
  const bench = new Workbench({ ports: system.ports, worker: system.worker, stop, atOnce });
  await system.queue.listen(() => bench.wake());
  await bench.workUntilStopped();
}

/** A tick only asks; a failed one is logged, and the next asks for the same. */
async function tick(system: System): Promise<void> {
  try {
    const asked = await requestDueRuns(system.ports, await listMerchants(system.db));
    if (asked > 0) await system.queue.wake(asked);
  } catch (error) {
    system.log.error(
      { error: messageOf(error) },
      'the schedule could not ask for runs; the next minute tries again',
    );
  }
}

/** The worker gets so long for what was left while everything was off, before its silence counts. */
const watchAfterMs = 5 * 60_000;

async function tellOperators(system: System, startedMs: number): Promise<void> {
  try {
    if (system.ports.clock.elapsedMs() - startedMs > watchAfterMs) await watchTracer(system.ports);
    await sendDueAlerts(system.ports);
  } catch (error) {
    system.log.error({ error: messageOf(error) }, 'alerts could not be sent; the next minute tries again');
  }
}
