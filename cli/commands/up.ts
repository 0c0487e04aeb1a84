import type { Command } from 'commander';
import cron from 'node-cron';
import { sendDueAlerts } from '../../billing/alerts/send.ts';
import { listMerchants } from '../../billing/merchants/queries.ts';
import { waitingRuns } from '../../billing/runs/queries.ts';
import { watchTracer } from '../../billing/trace/watch.ts';
import type { JobName } from '../../jobs/job.ts';
import { jobs } from '../../jobs/jobs.ts';
import { messageOf, realWait, runJob } from '../../jobs/run.ts';
import { requestDueRuns } from '../../jobs/schedule.ts';
import { startAdmin } from '../../web/admin.ts';
import { startWeb } from '../../web/server.ts';
import { serveDemoHome } from '../demo/serve.ts';
import { openLog } from '../log.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { withSystem } from './with-system.ts';

/** How often a worker looks for runs that were asked for or whose process died. */
const lookEveryMs = 2_000;

export function addUpCommand(program: Command, process: Process): void {
  program
    .command('up')
    .description(
      'everything on one machine: pay pages, operators’ pages, schedule, worker and the embedded parts',
    )
    .addHelpText(
      'after',
      '\nRuns until Ctrl-C. After a demo it serves the demo’s data on the demo’s clock.\n\nExample:\n  $ seikyu up',
    )
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        const closers: (() => Promise<unknown>)[] = [];
        const log = openLog({ level: system.settings.logLevel, part: 'up' });
        try {
          await system.needGateway();
          // Both ports before anything else: a second one by mistake ends here and has changed nothing.
          const web = await startWeb({
            webDb: system.webDb,
            ports: { ...system.ports, log },
            baseUrl: system.settings.baseUrl,
            port: system.settings.port,
            host: system.settings.database.kind === 'embedded' ? '127.0.0.1' : '0.0.0.0',
            gatewayOrigins: [system.gatewayOrigin()],
          });
          closers.push(() => web.close());
          const admin = await startAdmin({
            db: system.db,
            ports: { ...system.ports, log },
            port: system.settings.adminPort,
            host: system.settings.adminHost,
          });
          closers.push(() => admin.close());
          if (system.virtualClock) {
            // The demo's data live on the demo's clock, which runs on from where the demo left it.
            const home = await serveDemoHome(system);
            closers.push(() => home.sftp.stop());
            await system.virtualClock.tick();
            closers.push(() => system.virtualClock?.stop() ?? Promise.resolve());
          }
          output.document({ payPages: system.settings.baseUrl, operators: admin.url });
          output.line(`Pay pages        ${system.settings.baseUrl}`);
          output.line(`Operators        ${admin.url}   (SMS outbox: ${admin.url}/outbox)`);
          output.line('Ctrl-C stops everything in order.');
          const startedMs = system.ports.clock.elapsedMs();
          const ticking = cron.schedule(
            '* * * * *',
            async () => {
              await tick(system);
              await tellOperators(system, startedMs);
            },
            { noOverlap: true },
          );
          closers.push(async () => ticking.stop());
          await tick(system);
          await workUntilStopped({ ...system, log }, process.stop);
          return 0;
        } finally {
          for (const close of closers.reverse()) await close();
        }
      }),
    );
}

/** A tick only asks; a failed one is logged, and the next asks for the same. */
async function tick(system: System): Promise<void> {
  try {
    await requestDueRuns(system.ports, await listMerchants(system.db));
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

async function workUntilStopped(system: System, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    let worked = 0;
    try {
      for (const merchant of await listMerchants(system.db)) {
        for (const run of await waitingRuns(system.db, merchant.id)) {
          if (stop.aborted) return;
          const end = await runJob(system.ports, jobs[run.job as JobName], {
            merchant,
            businessDate: run.business_date,
            worker: system.worker,
            stop,
          });
          // Another process is at it; this one looks again after its pause.
          if (end.outcome === 'busy') continue;
          worked++;
          const fields = {
            job: run.job,
            merchant: merchant.code,
            businessDate: run.business_date,
            ...end.counts,
          };
          if (end.outcome === 'failed')
            system.log.error(
              { ...fields, failure: messageOf(end.failure) },
              'a run failed; the next slot tries again',
            );
          else system.log.info({ ...fields, outcome: end.outcome }, 'ran');
        }
      }
    } catch (error) {
      system.log.error({ error: messageOf(error) }, 'the worker could not look for runs; it tries again');
    }
    if (worked === 0) await realWait(system.ports, lookEveryMs, stop);
  }
}
