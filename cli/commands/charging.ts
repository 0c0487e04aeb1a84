import { createInterface } from 'node:readline/promises';
import { type Command, Option } from 'commander';
import { approveCharges } from '../../billing/autopay/approve.ts';
import { planOf } from '../../billing/autopay/plan.ts';
import { approvalsOf } from '../../billing/autopay/queries.ts';
import { gatewayState } from '../../billing/gateway-states/queries.ts';
import { paceOf } from '../../billing/gateway-states/state.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { limitsOf } from '../../billing/merchants/settings.ts';
import { Refusal } from '../../billing/refusal.ts';
import { refuseInSafeMode } from '../../billing/restores/queries.ts';
import { estimateOf, latelySeconds } from '../../billing/runs/estimate.ts';
import { changeHalt } from '../../billing/runs/halt.ts';
import { progressOf } from '../../billing/runs/queries.ts';
import { realWait } from '../../jobs/run.ts';
import { operatorName } from '../operator.ts';
import { localTime, type Output } from '../output.ts';
import type { Process } from '../program.ts';
import type { System } from '../system.ts';
import { duration, showPlan, yen } from './charge-plan.ts';
import { parseCount } from './parse-count.ts';
import { chosen, dateFor, parseDate } from './run.ts';
import { withSystem } from './with-system.ts';

interface ChargingOptions {
  json: boolean;
  merchant: string;
  date?: string;
}

const merchantOption = () => new Option('--merchant <code>', 'one merchant').default('all');
const dateOption = (what = 'the business date; default today in the merchant’s zone') =>
  new Option('--date <YYYY-MM-DD>', what).argParser(parseDate);
const watchEveryMs = 2_000;

export function addChargingCommands(program: Command, process: Process): void {
  const charging = program
    .command('charging')
    .description('the charge run in an operator’s hand: how far it is, approve, pause, resume, stop');
  charging
    .command('status', { isDefault: true })
    .description('the plan of a day, how far its run is, and when it ends at the pace of the last minutes')
    .addOption(merchantOption())
    .addOption(dateOption())
    .option('--watch', 'again every two seconds until Ctrl-C', false)
    .addHelpText(
      'after',
      `
Exit code 3 while charges wait for an approval, the run is halted, or the gateway rests.

Example:
  $ seikyu charging status --merchant minato-gas`,
    )
    .action((options: ChargingOptions & { watch: boolean }) =>
      withSystem(options, async (system, output) => {
        await system.needGateway();
        let code = await status(system, output, options, true);
        while (options.watch && !options.json && !process.stop.aborted) {
          await realWait(system.ports, watchEveryMs, process.stop);
          await system.ports.clock.refresh();
          code = await status(system, output, options, false);
        }
        return code;
      }),
    );
  charging
    .command('approve')
    .description('lets the planned charges of a day go, by their number and sum')
    .requiredOption('--merchant <code>', 'whose charges')
    .addOption(dateOption('the business date, also one to come; default today in the merchant’s zone'))
    .option('--count <charges>', 'how many wait for an approval, typed by you', parseCount)
    .option('--sum <yen>', 'what they come to, typed by you', parseCount)
    .addHelpText(
      'after',
      `
Only for merchants with charge.approve. Asks for both unless they are given. What is approved are the bills of this
moment: one that comes to the plan later waits for an approval of its own.

Example:
  $ seikyu charging approve --merchant minato-gas --count 40 --sum 211540`,
    )
    .action((options: ApproveOptions) =>
      withSystem(options, (system, output) => approve(system, output, options)),
    );
  const halts = [
    [
      'pause',
      'begins no more charges, on any day, until it is resumed; what was begun is finished',
      'is paused',
    ],
    ['resume', 'takes a pause back, and the stop of a day; what is left is charged', 'goes on'],
    ['stop', 'ends the run of a day; what is left is charged with the next day’s', 'is stopped'],
  ] as const;
  for (const [what, description, done] of halts) {
    charging
      .command(what)
      .description(description)
      .addOption(merchantOption())
      .addOption(dateOption())
      .addHelpText('after', `\nExample:\n  $ seikyu charging ${what} --merchant minato-gas`)
      .action((options: ChargingOptions) =>
        withSystem(options, async (system, output) => {
          const rows: { merchant: string; date: string; changed: boolean }[] = [];
          for (const merchant of await chosen(system, options.merchant)) {
            const date = dateFor(merchant, { ...options, dryRun: true }, system.ports.clock.now());
            const halt = { job: 'charge', businessDate: date, what };
            const changed = await changeHalt(system.ports, merchant, halt, operatorName());
            rows.push({ merchant: merchant.code, date, changed });
          }
          if (what === 'resume') await system.queue.wake(rows.length);
          output.document(rows);
          for (const { merchant, date, changed } of rows)
            output.line(
              changed ? `${merchant}: charging of ${date} ${done}` : `${merchant}: nothing to ${what}`,
            );
          return 0;
        }),
      );
  }
}

interface ApproveOptions extends ChargingOptions {
  count?: number;
  sum?: number;
}

async function approve(system: System, output: Output, options: ApproveOptions): Promise<number> {
  const [merchant] = await chosen(system, options.merchant);
  if (merchant === undefined) throw new Error('impossible state: no merchant was chosen');
  if (!merchant.settings.charge?.approve) {
    throw new Refusal('NO_APPROVAL_NEEDED', `charges of ${merchant.code} go without an approval`, {
      next: 'Set charge.approve: true in its settings to be asked first.',
      exitCode: 2,
    });
  }
  await refuseInSafeMode(system.db);
  const gateway = await system.needGateway();
  const date = dateFor(merchant, { ...options, dryRun: true }, system.ports.clock.now());
  const typed = await typedBack(system, merchant, date, options, output);
  const approved = await approveCharges(
    system.ports,
    merchant,
    gateway.name,
    date,
    { charges: typed.count, amount: typed.sum },
    operatorName(),
  );
  await system.queue.wake(1);
  output.document({ merchant: merchant.code, date, ...approved });
  output.line(`${merchant.code}: ${approved.charges} charges of ${yen(approved.amount)} on ${date} may go.`);
  return 0;
}

/** By options, or asked of a person at a terminal, who has the plan before them. */
async function typedBack(
  system: System,
  merchant: Merchant,
  date: string,
  options: ApproveOptions,
  output: Output,
): Promise<{ count: number; sum: number }> {
  if (options.count !== undefined && options.sum !== undefined)
    return { count: options.count, sum: options.sum };
  if (options.json || !globalThis.process.stdin.isTTY) {
    throw new Refusal('PLAN_NOT_CONFIRMED', 'the number of charges and their sum must be typed', {
      next: 'Look at the plan: seikyu charging status. Then give --count and --sum.',
      exitCode: 2,
    });
  }
  showPlan(output, merchant, date, await planOf(system.db, merchant, system.ports.gateway.name, date));
  const asking = createInterface({ input: globalThis.process.stdin, output: globalThis.process.stdout });
  try {
    const count = parseCount(await asking.question('How many charges wait for an approval? '));
    return { count, sum: parseCount(await asking.question('What do they come to, in yen? ')) };
  } finally {
    asking.close();
  }
}

async function status(
  system: System,
  output: Output,
  options: ChargingOptions,
  withPlan: boolean,
): Promise<number> {
  const { db, ports } = system;
  const now = ports.clock.now();
  const documents: unknown[] = [];
  const rows: Record<string, unknown>[] = [];
  let wantsPerson = false;
  for (const merchant of await chosen(system, options.merchant)) {
    const date = dateFor(merchant, { ...options, dryRun: true }, now);
    const key = { merchantId: merchant.id, job: 'charge', businessDate: date };
    const state = await gatewayState(db, merchant.id, ports.gateway.name);
    const pace = paceOf(state, limitsOf(merchant.settings));
    const progress = await progressOf(db, key, latelySeconds);
    const estimate = progress && estimateOf(progress, { pace, rests: state.rest !== null });
    const plan = withPlan ? await planOf(db, merchant, ports.gateway.name, date) : null;
    const approvals = await approvalsOf(db, merchant.id, date);
    const waits =
      merchant.settings.charge?.approve === true &&
      plan !== null &&
      plan.charges.some(({ approved }) => !approved);
    wantsPerson ||= waits || state.rest !== null || (progress?.halt ?? null) !== null;
    if (plan !== null) showPlan(output, merchant, date, plan);
    const { timezone } = merchant.settings;
    for (const { charges, amount, approved_at, approved_by } of approvals)
      output.line(
        `Approved: ${charges} charges of ${yen(amount)} by ${approved_by}, ${localTime(approved_at, timezone)}`,
      );
    documents.push({
      merchant: merchant.code,
      date,
      plan,
      approvals,
      run: progress ?? null,
      estimate: estimate ?? null,
      gateway: {
        name: ports.gateway.name,
        pacePerSecond: pace,
        restsSince: state.rest?.openedAt.toString() ?? null,
        triedAgainAt: state.rest?.probeAt.toString() ?? null,
      },
    });
    rows.push({
      merchant: merchant.code,
      date,
      run: stateShown(progress?.state ?? 'not asked for', progress?.halt ?? null, progress?.outcome ?? null),
      done: progress?.bills_done ?? 0,
      of: progress?.bills ?? 0,
      workers: progress?.workers ?? 0,
      'per second': estimate?.perSecond === null || !estimate ? '' : Number(estimate.perSecond.toFixed(1)),
      left:
        progress?.state !== 'running' && progress?.state !== 'requested'
          ? ''
          : estimate?.secondsLeft === null || !estimate
            ? 'not known'
            : duration(estimate.secondsLeft),
      gateway:
        state.rest === null
          ? pace === null
            ? 'answers'
            : `answers, at ${Number(pace.toFixed(1))} a second`
          : `silent since ${localTime(state.rest.openedAt.toString(), timezone)}`,
      by: progress?.halted_by ?? '',
    });
  }
  output.document(documents);
  output.rows(
    '',
    ['merchant', 'date', 'run', 'done', 'of', 'workers', 'per second', 'left', 'gateway', 'by'],
    rows,
    'There is no merchant.',
  );
  return wantsPerson ? 3 : 0;
}

function stateShown(state: string, halt: 'pause' | 'stop' | null, outcome: string | null): string {
  if (halt === 'pause') return state === 'running' ? 'pausing' : 'paused';
  if (halt === 'stop') return state === 'running' ? 'stopping' : 'stopped';
  return state === 'done' && outcome !== null ? outcome : state;
}
