import { Command } from 'commander';
import { addAlertsCommands } from './commands/alerts.ts';
import { addAuditCommands } from './commands/audit.ts';
import { addChargingCommands } from './commands/charging.ts';
import { addCheckCommand } from './commands/check.ts';
import { addDbCommands } from './commands/db.ts';
import { addDebitCommands } from './commands/debit.ts';
import { addDemoCommand } from './commands/demo.ts';
import { addEnrolmentCommands } from './commands/enrolment.ts';
import { addExplainCommand } from './commands/explain.ts';
import { addFileCommands } from './commands/file.ts';
import { addFindingsCommands } from './commands/findings.ts';
import { addHoldCommands } from './commands/hold.ts';
import { addLayoutCommands } from './commands/layout.ts';
import { addLedgerCommand } from './commands/ledger.ts';
import { addMerchantCommands } from './commands/merchant.ts';
import { addParkedCommands } from './commands/parked.ts';
import { addRefundCommands } from './commands/refund.ts';
import { addRestoreCommands } from './commands/restore.ts';
import { addRunCommands } from './commands/run.ts';
import { addRunsCommand } from './commands/runs.ts';
import { addSimulateCommand } from './commands/simulate.ts';
import { addUpCommand } from './commands/up.ts';

export interface Process {
  /** Aborted by Ctrl-C or SIGTERM. */
  stop: AbortSignal;
}

/** All commands; the documentation is tested against them. */
export function buildProgram(process: Process): Command {
  const program = new Command('seikyu')
    .description(
      'Batch billing for utilities: files in, invoices, SMS pay links, automatic payment, result files out.',
    )
    .version('0.1.0')
    .exitOverride()
    .showHelpAfterError('(seikyu --help lists the commands)')
    .addHelpText(
      'after',
      `
Exit codes: 0 done · 1 failed · 2 wrong usage or settings · 3 done, but something wants a person.

Examples:
  $ seikyu demo                                   two months of billing on embedded parts
  $ seikyu merchant apply minato-gas.yaml         create or update a merchant
  $ seikyu run ingest --date 2026-11-25           one job, for all merchants
  $ seikyu explain MG2611-00001                   the whole life of a bill`,
    );
  addDemoCommand(program, process);
  addUpCommand(program, process);
  addDbCommands(program);
  addMerchantCommands(program);
  addLayoutCommands(program);
  addRunCommands(program, process);
  addRunsCommand(program);
  addChargingCommands(program, process);
  addExplainCommand(program);
  addCheckCommand(program);
  addLedgerCommand(program);
  addAuditCommands(program);
  addAlertsCommands(program);
  addFileCommands(program, process);
  addParkedCommands(program);
  addHoldCommands(program);
  addEnrolmentCommands(program);
  addDebitCommands(program);
  addFindingsCommands(program);
  addRefundCommands(program);
  addRestoreCommands(program, process);
  addSimulateCommand(program, process);
  for (const command of everyCommand(program)) {
    command.exitOverride();
    if (command.commands.length === 0 && command !== program)
      command.option('--json', 'one JSON document instead of a table', false);
  }
  return program;
}

export function* everyCommand(command: Command): Generator<Command> {
  yield command;
  for (const child of command.commands) yield* everyCommand(child);
}
