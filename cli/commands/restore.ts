import type { Command } from 'commander';
import { Temporal } from 'temporal-polyfill';
import { listMerchants, zonesOf } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { beginRestore } from '../../billing/restores/begin.ts';
import { endRestore, type RestoreStatus, restoreStatus } from '../../billing/restores/end.ts';
import { openRestore } from '../../billing/restores/queries.ts';
import { reconcileRestore } from '../../jobs/restore.ts';
import { operatorName } from '../operator.ts';
import { localTime, type Output } from '../output.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { withSystem } from './with-system.ts';

/** Where nobody says when the backup was made: a list that is longer than needed only takes longer. */
const usualDays = 7;

export function addRestoreCommands(program: Command, process: Process): void {
  const restore = program
    .command('restore')
    .description('safe mode after the database was put back to an older state');
  restore
    .command('status', { isDefault: true })
    .description('whether safe mode is on, since when and why, and what is left until it may end')
    .addHelpText('after', '\nExit code 3 while safe mode is on.\n\nExample:\n  $ seikyu restore status')
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        const status = await restoreStatus(system.db);
        await show(system, output, status);
        return status.restore === null ? 0 : 3;
      }),
    );
  restore
    .command('begin')
    .description('begins safe mode by hand: nothing is charged, sent, returned or delivered any more')
    .requiredOption('--why <text>', 'what happened, for whoever reads it later')
    .option('--since <instant>', 'the time of the backup, ISO 8601; default seven days ago', parseInstant)
    .addHelpText(
      'after',
      '\nExample:\n  $ seikyu restore begin --why "volume put back" --since 2026-11-25T03:00:00+09:00',
    )
    .action((options: { json: boolean; why: string; since?: Temporal.Instant }) =>
      withSystem(options, async ({ db, ports }, output) => {
        const at = ports.clock.now();
        const forgottenFrom = options.since ?? at.subtract({ hours: 24 * usualDays });
        const begins = await db.transaction((tx) =>
          beginRestore(tx, { ids: ports.ids, at, by: operatorName(), why: options.why, forgottenFrom }),
        );
        output.document({ begins, forgottenFrom: forgottenFrom.toString() });
        output.line(
          begins
            ? 'Safe mode is on: also processes that run charge, send and deliver nothing more.'
            : 'Safe mode was on already.',
        );
        output.line(
          `What happened since ${forgottenFrom} is asked for. Go on with: seikyu restore reconcile`,
        );
        return 0;
      }),
    );
  restore
    .command('reconcile')
    .description('learns from the archive, the carrier and the gateway what the database has forgotten')
    .addHelpText(
      'after',
      '\nMay be broken off and run again. Exit code 3 while something is left.\n\nExample:\n  $ seikyu restore reconcile',
    )
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        const open = await openRestore(system.db);
        if (open === undefined) throw notOpen();
        await system.needGateway();
        for (const merchant of await listMerchants(system.db)) {
          await reconcileRestore(system.ports, merchant, {
            restore: open,
            worker: system.worker,
            by: operatorName(),
            stop: process.stop,
            say: (line) => output.line(line),
          });
        }
        const status = await restoreStatus(system.db);
        await show(system, output, status);
        return status.leftOver.length > 0 ? 3 : 0;
      }),
    );
  restore
    .command('end')
    .description('ends safe mode; refused while something is not learned')
    .option('--accept <reason>', 'end it although something is left, and why that is in order')
    .addHelpText('after', '\nExample:\n  $ seikyu restore end')
    .action((options: { json: boolean; accept?: string }) =>
      withSystem(options, async ({ ports }, output) => {
        const ended = await endRestore(ports, operatorName(), options.accept ?? null);
        output.document({ ended: ended.restore?.id ?? null, accepted: ended.leftOver });
        output.line('Safe mode is over. The jobs go on with their next slot; look with: seikyu check');
        return 0;
      }),
    );
}

async function show({ db }: System, output: Output, status: RestoreStatus): Promise<void> {
  output.document(status);
  const { restore } = status;
  if (restore === null) {
    output.line('Safe mode is off.');
    return;
  }
  const zoneOf = await zonesOf(db);
  const [first] = await listMerchants(db);
  const shown = (instant: string) => localTime(instant, first?.settings.timezone ?? 'UTC');
  output.line(`Safe mode since ${shown(restore.began_at)}, begun by ${restore.begun_by}: ${restore.why}`);
  output.line(`Asked for is what happened since ${shown(restore.forgotten_from)}, and an hour before.`);
  output.rows(
    '',
    ['merchant', 'step', 'state', 'at', 'counts', 'left'],
    status.steps.map((step) => ({
      ...step,
      at: localTime(step.at, zoneOf(step.merchant)),
      left: step.left_over,
    })),
    'Nothing is reconciled yet.',
  );
  for (const left of status.leftOver) output.line(`left: ${left}`);
  output.line(
    status.leftOver.length > 0 ? 'Go on with: seikyu restore reconcile' : 'End it with: seikyu restore end',
  );
}

function notOpen(): Refusal {
  return new Refusal('RESTORE_NOT_OPEN', 'safe mode is off: nothing is to be reconciled', {
    next: 'Begin it with: seikyu restore begin --why "..."',
    exitCode: 2,
  });
}

function parseInstant(text: string): Temporal.Instant {
  try {
    return Temporal.Instant.from(text);
  } catch (cause) {
    throw new Refusal('INSTANT_WRONG', `${JSON.stringify(text.slice(0, 40))} is not an instant`, {
      next: 'Write date, time and offset, for example 2026-11-25T03:00:00+09:00.',
      exitCode: 2,
      cause,
    });
  }
}
