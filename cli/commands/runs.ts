import type { Command } from 'commander';
import { recentPasses } from '../../billing/runs/queries.ts';
import { withSystem } from './with-system.ts';

export function addRunsCommand(program: Command): void {
  program
    .command('runs')
    .description('what ran: the newest passes of jobs with what they counted')
    .option('--merchant <code>', 'of this merchant only')
    .option('--job <name>', 'of this job only')
    .option('--date <YYYY-MM-DD>', 'for this business date only')
    .option('--limit <n>', 'how many', '40')
    .addHelpText('after', '\nExample:\n  $ seikyu runs --job charge --merchant minato-gas')
    .action((options: { json: boolean; merchant?: string; job?: string; date?: string; limit: string }) =>
      withSystem(options, async ({ db }, output) => {
        const passes = await recentPasses(db, {
          merchant: options.merchant ?? null,
          job: options.job ?? null,
          businessDate: options.date ?? null,
          limit: Math.min(10_000, Math.max(1, Number.parseInt(options.limit, 10) || 40)),
        });
        output.document(passes);
        output.rows(
          '',
          ['started', 'merchant', 'job', 'date', 'pass', 'outcome', 'counts', 'failure'],
          passes.map((pass) => ({
            ...pass,
            started: pass.started_at.slice(0, 19).replace('T', ' '),
            date: pass.business_date,
            outcome: pass.outcome ?? 'running',
            failure: pass.failure?.split('\n')[0]?.slice(0, 80) ?? '',
          })),
          'Nothing has run yet.',
        );
        return 0;
      }),
    );
}
