import type { Command } from 'commander';
import { checkInvariants } from '../../billing/checks/queries.ts';
import { watchTrace } from './watch-trace.ts';
import { withSystem } from './with-system.ts';

export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .description(
      'the invariants on the live database: what must hold of money, files and bills at any moment',
    )
    .addHelpText('after', '\nExit code 1 when one does not hold.\n\nExample:\n  $ seikyu check')
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        await watchTrace(system);
        const checked = await checkInvariants(system.db);
        output.document(checked);
        output.rows(
          '',
          ['id', 'holds', 'violations', 'name'],
          checked.invariants.map((invariant) => ({ ...invariant, holds: invariant.holds ? 'yes' : 'NO' })),
          '',
        );
        for (const invariant of checked.invariants) {
          for (const violation of invariant.examples)
            output.line(`  ${invariant.id}: ${violation.merchant} ${violation.subject}: ${violation.detail}`);
        }
        output.line(
          checked.ok
            ? 'All invariants hold.'
            : 'Stop charging and look at each violation with: seikyu explain <billing number>',
        );
        return checked.ok ? 0 : 1;
      }),
    );
}
