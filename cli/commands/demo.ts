import { type Command, Option } from 'commander';
import { checkInvariants } from '../../billing/checks/queries.ts';
import { ledgerDifferences, trialBalance } from '../../billing/ledger/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { type DemoWalk, firstDay, walkDemo } from '../demo/demo.ts';
import { leaveBillsOpen } from '../demo/left-open.ts';
import { billsToExplain, fileTieOuts, merchantTotals, openBills } from '../demo/queries.ts';
import type { Output } from '../output.ts';
import type { Process } from '../program.ts';
import { readSettings } from '../settings.ts';
import type { System } from '../system.ts';
import { balanceColumns, sumsToZero } from './ledger.ts';
import { withSystem } from './with-system.ts';

export function addDemoCommand(program: Command, process: Process): void {
  program
    .command('demo')
    .description('two months of billing on embedded parts: about 130 simulated days, then a summary')
    .addOption(
      new Option('--bills <n>', 'bills a merchant and month')
        .default(1000)
        .argParser((text) => Number.parseInt(text, 10)),
    )
    .option('--seed <text>', 'draws who pays, how and with which card', 'seikyu')
    .addHelpText(
      'after',
      `
A second run goes on with the next two months; one that was stopped or killed goes on where it
was, with the files it had planned. To begin anew, remove SEIKYU_HOME (./var).

Example:
  $ seikyu demo --bills 200`,
    )
    .action((options: { json: boolean; bills: number; seed: string }) => {
      const settings = readSettings();
      if (settings.database.kind !== 'embedded' || settings.stripe !== undefined) {
        throw new Refusal(
          'DEMO_NEEDS_EMBEDDED',
          'the demo plays with money and time and runs on embedded parts only',
          {
            next: 'Unset DATABASE_URL, DATABASE_WEB_URL and SEIKYU_GATEWAY for it.',
            exitCode: 2,
          },
        );
      }
      if (!Number.isSafeInteger(options.bills) || options.bills < 1 || options.bills > 9_999) {
        throw new Refusal('BILLS_WRONG', '--bills is out of range', {
          next: 'Write 1 to 9999.',
          exitCode: 2,
        });
      }
      return withSystem(
        options,
        async (system, output) => {
          const walk = await walkDemo(system, {
            billsPerMonth: options.bills,
            seed: options.seed,
            stop: process.stop,
            say: (text) => output.line(text),
          });
          const code = await summarize(system, walk, output);
          if (code !== 0) return code;
          const left = await leaveBillsOpen(system, process.stop);
          if (left.failure !== null) {
            system.log.error({ failure: left.failure }, 'no bills could be left open for a visitor');
            return 1;
          }
          output.line(
            `  its outbox                            ${left.bills} SMS of the next morning, whose bills nobody has paid: the pay page asks for ${left.lastFour}`,
          );
          return 0;
        },
        { startVirtualAt: `${firstDay}T04:00:00+09:00` },
        settings,
      );
    });
}

/** What was done, whether it adds up, and where to look. 0 only if every tie-out closes and every invariant holds. */
async function summarize(system: System, walk: DemoWalk, output: Output): Promise<number> {
  const { db } = system;
  const tieOuts = await fileTieOuts(db);
  const totals = await merchantTotals(db);
  const balances = await trialBalance(db);
  const checked = await checkInvariants(db);
  const open = await openBills(db);
  const ledgerSum = balances.reduce((sum, account) => sum + account.balance, 0);
  const differences = await ledgerDifferences(db);
  const closing = tieOuts.filter((file) => file.closes).length;
  const ok =
    checked.ok &&
    open === 0 &&
    sumsToZero(balances) &&
    differences.length === 0 &&
    closing === tieOuts.length &&
    walk.failures.length === 0;
  output.document({
    ok,
    ...walk,
    counts: Object.fromEntries(walk.counts),
    merchants: totals,
    files: tieOuts,
    ledger: balances,
    invariants: checked.invariants,
  });
  output.line('');
  output.rows(
    `${walk.from} to ${walk.to}: ${walk.days} days in ${walk.realSeconds.toFixed(0)} s, ${walk.visits} visits to the pay page in ${walk.requests} requests`,
    ['job', 'runs', 'counts'],
    jobTotals(walk),
    'Nothing ran.',
  );
  output.line('');
  output.rows(
    'Merchants',
    [
      'merchant',
      'bills',
      'amount',
      'paid',
      'unpaid',
      'cancelled',
      'open',
      'enrolled',
      'sms',
      'attempts',
      'files_out',
    ],
    totals.map((row) => ({ ...row })),
    '',
  );
  output.line('');
  output.rows(
    'Input files',
    [
      'merchant',
      'name',
      'state',
      'read',
      'accepted',
      'rejected',
      'paid',
      'unpaid',
      'cancelled',
      'open',
      'closes',
    ],
    tieOuts.map((row) => ({
      ...row,
      state: row.file_code ? `${row.state} ${row.file_code}` : row.state,
      closes: row.closes ? 'yes' : 'NO',
    })),
    '',
  );
  output.line('');
  output.rows(
    'Ledger',
    balanceColumns,
    balances.map((row) => ({ ...row })),
    '',
  );
  output.line(`Sum of all balances: ${ledgerSum}`);
  for (const { comparison, merchant, subject, detail } of differences)
    output.line(`The ledger differs, ${comparison}: ${merchant} ${subject}: ${detail}`);
  output.line('');
  for (const invariant of checked.invariants.filter(({ holds }) => !holds)) {
    output.line(`Invariant ${invariant.id} is broken ${invariant.violations} times: ${invariant.name}`);
    for (const violation of invariant.examples)
      output.line(`  ${violation.merchant} ${violation.subject}: ${violation.detail}`);
  }
  output.line(
    `${ok ? 'All is well' : 'SOMETHING IS WRONG'}: ${closing} of ${tieOuts.length} input files close, ${checked.invariants.filter(({ holds }) => holds).length} of ${checked.invariants.length} invariants hold, ${open} bills open, ${walk.failures.length} failed runs.`,
  );
  output.line('');
  output.line('Where to look:');
  for (const { billing_number, fate } of await billsToExplain(db))
    output.line(`  npx seikyu explain ${billing_number.padEnd(18)} ${fate}`);
  output.line('  npx seikyu check                      the invariants again');
  output.line(
    `  ${`${system.settings.home}/demo/sftp`.padEnd(36)}  what the merchants see on their SFTP server`,
  );
  output.line(
    '  npm start                             serves this data: pay pages, and the SMS outbox for operators',
  );
  return ok ? 0 : 1;
}

function jobTotals(walk: DemoWalk): Record<string, unknown>[] {
  const totals = new Map<string, Record<string, number>>();
  for (const [key, counts] of walk.counts) {
    const job = key.split('|')[1] ?? '';
    const sum = totals.get(job) ?? {};
    for (const [name, value] of Object.entries(counts)) sum[name] = (sum[name] ?? 0) + value;
    totals.set(job, sum);
  }
  return [...totals].map(([job, { runs, ...counts }]) => ({
    job,
    runs,
    counts: Object.fromEntries(Object.entries(counts).filter(([, value]) => value > 0)),
  }));
}
