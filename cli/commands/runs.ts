import { type Command, Option } from 'commander';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { openRestore } from '../../billing/restores/queries.ts';
import { recentPasses } from '../../billing/runs/queries.ts';
import { jobNames } from '../../jobs/job.ts';
import { localTime } from '../output.ts';
import { parseDate } from './run.ts';
import { withSystem } from './with-system.ts';

export function addRunsCommand(program: Command): void {
  program
    .command('runs')
    .description('what ran: the newest passes of jobs with what they counted')
    .option('--merchant <code>', 'of this merchant only')
    .addOption(new Option('--job <name>', 'of this job only').choices(jobNames))
    .addOption(new Option('--date <YYYY-MM-DD>', 'for this business date only').argParser(parseDate))
    .addOption(new Option('--limit <n>', 'how many').default(40).argParser(parseLimit))
    .addHelpText('after', '\nExample:\n  $ seikyu runs --job charge --merchant minato-gas')
    .action((options: { json: boolean; merchant?: string; job?: string; date?: string; limit: number }) =>
      withSystem(options, async ({ db }, output) => {
        if (options.merchant !== undefined) await merchantByCode(db, options.merchant);
        const zoneOf = await zonesOf(db);
        const passes = await recentPasses(db, {
          merchant: options.merchant ?? null,
          job: options.job ?? null,
          businessDate: options.date ?? null,
          limit: options.limit,
        });
        output.document(passes);
        output.rows(
          '',
          ['started', 'merchant', 'job', 'date', 'pass', 'outcome', 'counts', 'failure'],
          passes.map((pass) => ({
            ...pass,
            started: localTime(pass.started_at, zoneOf(pass.merchant)),
            date: pass.business_date,
            outcome: pass.outcome ?? 'running',
            failure: pass.failure?.split('\n')[0]?.slice(0, 80) ?? '',
          })),
          (options.merchant ?? options.job ?? options.date) ? 'No such run.' : 'Nothing has run yet.',
        );
        const restore = await openRestore(db);
        if (restore !== undefined) output.line(`Safe mode: ${restore.why}. Look at: seikyu restore status`);
        return 0;
      }),
    );
}

function parseLimit(text: string): number {
  const limit = Number(text);
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= 10_000) return limit;
  throw new Refusal('LIMIT_WRONG', '--limit is out of range', { next: 'Write 1 to 10000.', exitCode: 2 });
}
