import { once } from 'node:events';
import { type Command, Option } from 'commander';
import { Refusal } from '../../billing/refusal.ts';
import { serveDemoHome } from '../demo/serve.ts';
import { openLog } from '../log.ts';
import type { Output } from '../output.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { type Closer, startPages, startTicking, work } from './parts.ts';
import { withSystem } from './with-system.ts';

/** Two runs at once: while one charges for hours, the others have their turn. */
const runsAtOnce = 2;

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
      inParts('up', options, async (system, output, closers) => {
        await system.needGateway();
        await openPages(system, output, closers);
        if (system.virtualClock) {
          // The demo's data live on the demo's clock, which runs on from where the demo left it.
          const home = await serveDemoHome(system);
          closers.push(() => home.sftp.stop());
          await system.virtualClock.tick();
          closers.push(() => system.virtualClock?.stop() ?? Promise.resolve());
        }
        output.line('Ctrl-C stops everything in order.');
        closers.push(await startTicking(system));
        await work(system, process.stop, runsAtOnce);
      }),
    );
  program
    .command('serve')
    .description('pay pages, webhooks and operators’ pages alone')
    .addHelpText('after', '\nRuns until Ctrl-C, beside any number of others.\n\nExample:\n  $ seikyu serve')
    .action((options: { json: boolean }) =>
      inParts('serve', options, async (system, output, closers) => {
        await system.needGateway();
        await openPages(system, output, closers);
        await ended(process.stop);
      }),
    );
  program
    .command('schedule')
    .description('the timetable alone: asks for runs each minute and sends alerts; does nothing itself')
    .addHelpText(
      'after',
      '\nRuns until Ctrl-C. One is enough; a second one changes nothing.\n\nExample:\n  $ seikyu schedule',
    )
    .action((options: { json: boolean }) =>
      inParts('schedule', options, async (system, output, closers) => {
        closers.push(await startTicking(system));
        output.document({ schedule: system.worker.owner });
        output.line('Asks for runs by the timetable. Ctrl-C stops it.');
        await ended(process.stop);
      }),
    );
  program
    .command('work')
    .description(
      'a worker: does the runs that were asked for, and shares the chunks of long ones with others',
    )
    .addOption(
      new Option('--at-once <n>', 'so many runs at the same time, 1 to 16')
        .default(runsAtOnce)
        .argParser((text) => parseAtOnce(text)),
    )
    .addHelpText(
      'after',
      `
Runs until Ctrl-C. Start as many as there are cores, on as many machines as there are; what a killed one had in hand is
taken up by another within a minute.

Example:
  $ seikyu work --at-once 2`,
    )
    .action((options: { json: boolean; atOnce: number }) =>
      inParts('work', options, async (system, output, closers) => {
        await system.needGateway();
        if (system.virtualClock) {
          const home = await serveDemoHome(system);
          closers.push(() => home.sftp.stop());
        }
        output.document({ worker: system.worker.owner });
        output.line(`Works as ${system.worker.owner}. Ctrl-C stops it in order.`);
        await work(system, process.stop, options.atOnce);
      }),
    );
}

/** Opens the system for a process of some parts, and closes them in order. */
async function inParts(
  part: string,
  options: { json: boolean },
  parts: (system: System, output: Output, closers: Closer[]) => Promise<void>,
): Promise<void> {
  await withSystem(options, async (system, output) => {
    const closers: Closer[] = [];
    const log = openLog({ level: system.settings.logLevel, part });
    const own = { ...system, log, ports: Object.assign(system.ports, { log }) };
    try {
      await parts(own, output, closers);
      return 0;
    } finally {
      for (const close of closers.reverse()) await close();
    }
  });
}

async function openPages(system: System, output: Output, closers: Closer[]): Promise<void> {
  const { admin, close } = await startPages(system);
  closers.push(close);
  output.document({ payPages: system.settings.baseUrl, operators: admin.url });
  output.line(`Pay pages        ${system.settings.baseUrl}`);
  output.line(`Operators        ${admin.url}   (SMS outbox: ${admin.url}/outbox)`);
}

async function ended(stop: AbortSignal): Promise<void> {
  if (stop.aborted) return;
  // A signal's listener alone does not keep the process alive.
  const alive = setInterval(() => undefined, 60_000);
  try {
    await once(stop, 'abort');
  } finally {
    clearInterval(alive);
  }
}

function parseAtOnce(text: string): number {
  const atOnce = Number(text);
  if (Number.isSafeInteger(atOnce) && atOnce >= 1 && atOnce <= 16) return atOnce;
  throw new Refusal('AT_ONCE_WRONG', '--at-once is out of range', { next: 'Write 1 to 16.', exitCode: 2 });
}
