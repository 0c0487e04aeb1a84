import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { listMerchants, merchantByCode } from '../../billing/merchants/queries.ts';
import { beginRecall, recallableFile } from '../../billing/recalls/begin.ts';
import { forecastOf, progressOf, type RecallableFile, recallOfFile } from '../../billing/recalls/queries.ts';
import type { Recall, RecallProgress } from '../../billing/recalls/recall.ts';
import { Refusal } from '../../billing/refusal.ts';
import { refuseInSafeMode } from '../../billing/restores/queries.ts';
import { jobs } from '../../jobs/jobs.ts';
import { runJob } from '../../jobs/run.ts';
import { operatorName } from '../operator.ts';
import { type Output, openProgress } from '../output.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { yen } from './charge-plan.ts';
import { parseCount } from './parse-count.ts';
import { dateFor } from './run.ts';
import { withSystem } from './with-system.ts';

interface RecallOptions {
  json: boolean;
  merchant?: string;
  count?: number;
  sum?: number;
  dryRun: boolean;
}

export function addFileRecallCommand(files: Command, process: Process): void {
  files
    .command('recall')
    .argument('<name>', 'the billing file, by the name under which the merchant sent it')
    .description(
      'takes a wrong billing file back: links die, bills are cancelled, what was paid is refunded, customers who got an SMS get one more',
    )
    .option('--merchant <code>', 'whose file; needed where several merchants are here')
    .option('--count <bills>', 'how many bills the file has, typed by you', parseCount)
    .option('--sum <yen>', 'what they come to, typed by you', parseCount)
    .option('--dry-run', 'what it would do, without doing it', false)
    .addHelpText(
      'after',
      `
Asks for the number of bills and their sum unless --count and --sum give them. It cannot be undone. It may be broken off at
any moment and run again: it carries on, and does nothing twice; the job trace carries it on too.
Exit code 3 while a charge or refund has no conclusive outcome, or the gateway refuses one.

Examples:
  $ seikyu file recall billing_minato-gas_20261125_0001.csv --dry-run
  $ seikyu file recall billing_minato-gas_20261125_0001.csv --count 40 --sum 211540`,
    )
    .action((name: string, options: RecallOptions) =>
      withSystem(options, (system, output) => recall(system, output, name, options, process)),
    );
}

async function recall(
  system: System,
  output: Output,
  name: string,
  options: RecallOptions,
  process: Process,
): Promise<number> {
  const merchant = await ownerOf(system, options.merchant);
  const file = await recallableFile(system.db, merchant, name);
  const begun = await recallOfFile(system.db, merchant.id, file.id);
  if (options.dryRun) {
    const forecast =
      begun === undefined
        ? await forecastOf(system.db, merchant.id, file.id)
        : await progressOf(system.db, merchant.id, begun);
    output.document({
      file: file.name,
      bills: file.bills,
      amount: file.amount,
      begun: begun !== undefined,
      ...forecast,
    });
    output.line(`${file.name}: ${file.bills} bills over ${yen(file.amount)}`);
    show(output, forecast, begun === undefined ? 'would be' : 'are');
    return 0;
  }
  await refuseInSafeMode(system.db);
  await system.needGateway();
  const typed = await typedBack(file, options, output);
  const standing = await beginRecall(system.ports, { merchant, file, ...typed, by: operatorName() });
  await carryOn(system, merchant, standing, options, process, output);
  return report(system, merchant, file, output);
}

async function ownerOf(system: System, code: string | undefined): Promise<Merchant> {
  if (code !== undefined) return merchantByCode(system.db, code);
  const [only, ...others] = await listMerchants(system.db);
  if (only !== undefined && others.length === 0) return only;
  throw new Refusal('MERCHANT_NEEDED', 'it is not clear whose file is meant', {
    next: 'Name the merchant: --merchant <code>. seikyu merchant list shows them.',
    exitCode: 2,
  });
}

/** By options, or asked of a person at a terminal, who does not see what is expected. */
async function typedBack(
  file: RecallableFile,
  options: RecallOptions,
  output: Output,
): Promise<{ count: number; sum: number }> {
  if (options.count !== undefined && options.sum !== undefined)
    return { count: options.count, sum: options.sum };
  if (options.json || !globalThis.process.stdin.isTTY) {
    throw new Refusal('RECALL_NOT_CONFIRMED', 'the number of bills and their sum must be typed', {
      next: 'Take both from the merchant’s own word about the wrong file, and give --count and --sum.',
      exitCode: 2,
    });
  }
  output.line(`${file.name} is to be taken back. This cannot be undone.`);
  const asking = createInterface({ input: globalThis.process.stdin, output: globalThis.process.stdout });
  try {
    const count = parseCount(await asking.question('How many bills does it have? '));
    return { count, sum: parseCount(await asking.question('What do they come to, in yen? ')) };
  } finally {
    asking.close();
  }
}

/** As the job `trace` does it: the run table sees to it that one process at a time is at it. */
async function carryOn(
  system: System,
  merchant: Merchant,
  recall: Recall,
  options: RecallOptions,
  { stop }: Process,
  output: Output,
): Promise<void> {
  if (recall.state === 'done') return;
  const bars = openProgress(options.json);
  try {
    const end = await runJob(system.ports, jobs.trace, {
      merchant,
      businessDate: dateFor(merchant, { dryRun: false }, system.ports.clock.now()),
      worker: system.worker,
      stop,
      progress: bars.progress,
    });
    if (end.outcome === 'busy') output.line(`Process ${end.owner} is at it already.`);
    else if (end.failure !== null) throw end.failure;
  } finally {
    bars.end();
  }
}

async function report(
  system: System,
  merchant: Merchant,
  file: RecallableFile,
  output: Output,
): Promise<number> {
  const recall = await recallOfFile(system.db, merchant.id, file.id);
  if (recall === undefined) throw new Error(`impossible state: the recall of ${file.id} is gone`);
  const progress = await progressOf(system.db, merchant.id, recall);
  output.document({
    file: file.name,
    state: recall.state,
    bills: recall.bills,
    amount: recall.amount,
    ...progress,
  });
  output.line(`${file.name}: recall ${recall.state}, begun ${recall.begun_at} by ${recall.begun_by}`);
  show(output, progress, 'are');
  if (recall.state === 'done') return 0;
  output.line('Not over yet: trace carries it on by itself; this command again shows how far it is.');
  return 3;
}

function show(output: Output, progress: RecallProgress, are: string): void {
  const lines: [number, string][] = [
    [progress.cancelled, `${are} cancelled`],
    [progress.refunded, `${are} paid and refunded`],
    [progress.untouched, 'were final and have nothing to give back'],
    [progress.waiting, 'wait for a charge that has no conclusive outcome'],
    [progress.refunding, `wait for their refund (${progress.refunds_unknown} without a conclusive outcome)`],
    [progress.refused, 'are paid, and the gateway refuses the refund: seikyu refund list has its code'],
    [progress.not_entered, 'are not looked at yet'],
  ];
  for (const [count, what] of lines) if (count > 0) output.line(`  ${String(count).padStart(9)} ${what}`);
  output.line(`  ${String(progress.notices).padStart(9)} correction SMS`);
  const { amount_refunded: back, amount_by_shop_or_bank: outside, amount_refused: refused } = progress;
  output.line(`${yen(back)} ${are === 'are' ? 'went back to customers' : 'would go back to customers'}.`);
  if (outside > 0) {
    output.line(
      `${yen(outside)} on ${progress.by_shop_or_bank} bills were taken by shops or banks. The gateway is asked for them first; what it refuses, the merchant gives back itself.`,
    );
  }
  if (refused > 0) {
    output.line(
      `${yen(refused)} wait for a person: look at the gateway whether they went back already. If not, the merchant gives them back and it is entered: seikyu refund given`,
    );
  }
}
