import { Argument, type Command, Option } from 'commander';
import { Temporal } from 'temporal-polyfill';
import { sendDueAlerts } from '../../billing/alerts/send.ts';
import { planOf } from '../../billing/autopay/plan.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { listMerchants, merchantByCode } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { type Counts, type JobName, jobNames } from '../../jobs/job.ts';
import { jobs } from '../../jobs/jobs.ts';
import { messageOf, runJob } from '../../jobs/run.ts';
import { serveDemoHome } from '../demo/serve.ts';
import { type Output, openProgress } from '../output.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { showPlan } from './charge-plan.ts';
import { watchTrace } from './watch-trace.ts';
import { withSystem } from './with-system.ts';

interface RunOptions {
  json: boolean;
  merchant: string;
  date?: string;
  dryRun: boolean;
}

const merchantOption = () => new Option('--merchant <code>', 'one merchant').default('all');
const dateOption = () =>
  new Option(
    '--date <YYYY-MM-DD>',
    'the business date, not after today; default today in the merchant’s zone',
  ).argParser(parseDate);

export function addRunCommands(program: Command, process: Process): void {
  program
    .command('run')
    .addArgument(new Argument('<job>', 'which job').choices(jobNames))
    .description('one job, in this process; run again, it does what is left')
    .addOption(merchantOption())
    .addOption(dateOption())
    .option('--dry-run', 'what it would do, without doing it', false)
    .addHelpText(
      'after',
      `
Jobs:
${jobNames.map((name) => `  ${name.padEnd(10)} ${jobs[name].does}`).join('\n')}

Examples:
  $ seikyu run ingest --date 2026-11-25
  $ seikyu run charge --merchant minato-gas --dry-run`,
    )
    .action((job: JobName, options: RunOptions) => runJobs([job], options, process));
  program
    .command('day')
    .description('all jobs of a business date, in the order of the billing day')
    .addOption(merchantOption())
    .addOption(dateOption())
    .option('--dry-run', 'what they would do, without doing it', false)
    .addHelpText('after', '\nExample:\n  $ seikyu day --date 2026-11-25')
    .action((options: RunOptions) => runJobs(jobNames, options, process));
}

interface RunRow extends Record<string, unknown> {
  merchant: string;
  job: JobName;
  date: string;
  outcome: string;
  counts: Counts;
  failure: string;
}

async function runJobs(names: readonly JobName[], options: RunOptions, { stop }: Process): Promise<void> {
  await withSystem(options, async (system, output) => {
    // For all before the first: nothing runs where one of them is refused.
    for (const merchant of await chosen(system, options.merchant))
      dateFor(merchant, options, system.ports.clock.now());
    await system.needGateway();
    // The demo's merchants have no server but this one.
    const home = system.virtualClock ? await serveDemoHome(system) : null;
    const bars = openProgress(options.json);
    const rows: RunRow[] = [];
    try {
      const merchants = await chosen(system, options.merchant);
      for (const job of names) {
        for (const merchant of merchants) {
          if (stop.aborted) break;
          rows.push(await runOne(system, job, merchant, options, stop, bars.progress));
        }
      }
    } finally {
      bars.end();
      await home?.sftp.stop();
    }
    if (!options.dryRun) await tellOperators(system);
    const code = report(rows, output, stop.aborted);
    if (options.dryRun && names.includes('charge') && !options.json) await showPlans(system, output, options);
    return code;
  });
}

/** The counts of a dry run as a person reads them, who may have to approve them. */
async function showPlans(system: System, output: Output, options: RunOptions): Promise<void> {
  for (const merchant of await chosen(system, options.merchant)) {
    const date = dateFor(merchant, options, system.ports.clock.now());
    const plan = await planOf(system.db, merchant, system.ports.gateway.name, date);
    output.line('');
    showPlan(output, merchant, date, plan);
  }
}

/** What a run has found must not wait for somebody to look; that it could not be told is no failure of the run. */
async function tellOperators(system: System): Promise<void> {
  try {
    await watchTrace(system);
    await sendDueAlerts(system.ports);
  } catch (error) {
    system.log.error(
      { error: messageOf(error) },
      'alerts could not be sent; the next command or tick tries again',
    );
  }
}

export async function chosen(system: System, code: string): Promise<Merchant[]> {
  if (code !== 'all') return [await merchantByCode(system.db, code)];
  const merchants = await listMerchants(system.db);
  if (merchants.length > 0) return merchants;
  throw new Refusal('NO_MERCHANTS', 'there is no merchant yet', {
    next: 'Apply a settings file first: seikyu merchant apply <file.yaml>',
    exitCode: 2,
  });
}

/** A failure of one merchant is its row's: the others go on. */
async function runOne(
  system: System,
  name: JobName,
  merchant: Merchant,
  options: RunOptions,
  stop: AbortSignal,
  progress: ReturnType<typeof openProgress>['progress'],
): Promise<RunRow> {
  const date = dateFor(merchant, options, system.ports.clock.now());
  const row = { merchant: merchant.code, job: name, date };
  if (options.dryRun) {
    const counts = await jobs[name].dryRun({
      ports: system.ports,
      merchant,
      businessDate: date,
      stop,
      progress,
    });
    return { ...row, outcome: 'dry run', counts, failure: '' };
  }
  const end = await runJob(system.ports, jobs[name], {
    merchant,
    businessDate: date,
    worker: system.worker,
    stop,
    progress,
  });
  if (end.outcome === 'busy') {
    return { ...row, outcome: 'busy', counts: {}, failure: `already under way in process ${end.owner}` };
  }
  if (end.outcome === 'halted') {
    const failure = 'an operator has paused or stopped it; to go on: seikyu charging resume';
    return { ...row, outcome: 'halted', counts: {}, failure };
  }
  const failure =
    end.failure instanceof Refusal
      ? `${end.failure.code}: ${end.failure.message}. ${end.failure.next}`
      : end.failure === null
        ? ''
        : messageOf(end.failure);
  return { ...row, outcome: end.outcome, counts: end.counts, failure };
}

function report(rows: RunRow[], output: Output, stopped: boolean): number {
  output.document(rows);
  output.rows('', ['merchant', 'job', 'date', 'outcome', 'counts'], rows, 'Nothing was run.');
  for (const row of rows) {
    if (row.failure !== '') output.line(`${row.merchant} ${row.job}: ${row.failure}`);
    else if (row.counts.safe_mode)
      output.line(`${row.merchant} ${row.job}: safe mode, nothing was done; look at: seikyu restore status`);
    else if (row.counts.waiting_for_approval)
      output.line(
        `${row.merchant} ${row.job}: charges wait for an approval; look at: seikyu charging status`,
      );
    else if (row.outcome === 'attention')
      output.line(`${row.merchant} ${row.job}: wants a person; look at: seikyu parked, seikyu alerts`);
  }
  if (stopped || rows.some((row) => ['failed', 'stopped', 'busy', 'halted'].includes(row.outcome))) return 1;
  return rows.some((row) => row.outcome === 'attention') ? 3 : 0;
}

/** Refusal DATE_IN_FUTURE: a slip of the pen must not charge or remind before the day. */
export function dateFor(
  merchant: Pick<Merchant, 'settings'>,
  options: Pick<RunOptions, 'date' | 'dryRun'>,
  now: Temporal.Instant,
): string {
  const today = now.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
  const date = options.date ?? today;
  if (date <= today || options.dryRun) return date;
  throw new Refusal('DATE_IN_FUTURE', `${date} has not come yet: today is ${today}`, {
    next: 'Leave --date out for today. With --dry-run any date may be looked at.',
    exitCode: 2,
  });
}

export function parseDate(text: string): string {
  try {
    if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) throw new RangeError(text);
    return Temporal.PlainDate.from(text, { overflow: 'reject' }).toString();
  } catch (cause) {
    throw new Refusal('DATE_WRONG', `${JSON.stringify(text.slice(0, 40))} is not a date`, {
      next: 'Write it as YYYY-MM-DD, for example 2026-11-25.',
      exitCode: 2,
      cause,
    });
  }
}
