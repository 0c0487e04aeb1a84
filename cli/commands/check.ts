import { type Command, Option } from 'commander';
import { type Invariant, invariants, outsideInvariants } from '../../billing/checks/invariants.ts';
import { type CheckedInvariant, checkInvariants, type Violation } from '../../billing/checks/queries.ts';
import { listMerchants } from '../../billing/merchants/queries.ts';
import { messageIdOf } from '../../billing/messages/message.ts';
import { compareOutside } from '../../billing/outside/compare.ts';
import { Refusal } from '../../billing/refusal.ts';
import type { Output } from '../output.ts';
import { parseDate } from './run.ts';
import { watchTrace } from './watch-trace.ts';
import { withSystem } from './with-system.ts';

interface CheckOptions {
  json: boolean;
  only?: number[];
  explain?: number;
  outside: boolean;
  from?: string;
  verbose: boolean;
}

/** The gateway's list of some days may be long, and it is read while it is compared. */
const listsWithinMs = 600_000;

export function addCheckCommand(program: Command): void {
  program
    .command('check')
    .description(
      'the invariants on the live database: what must hold of money, files and bills at any moment, and how to look at what does not',
    )
    .addOption(new Option('--only <numbers>', 'some of them, as 4,9').argParser(numbersOf))
    .option('--verbose', 'how long each took', false)
    .option('--outside', 'also compares with the gateway’s and the carrier’s own lists', false)
    .addOption(
      new Option(
        '--from <date>',
        'the first day of those lists, YYYY-MM-DD (default: three days ago)',
      ).argParser(parseDate),
    )
    .addOption(
      new Option('--explain <number>', 'what one means, what breaks it and what to do').argParser(
        (text) => numbersOf(text)[0],
      ),
    )
    .addHelpText(
      'after',
      `
It reads one snapshot and writes nothing. Exit code 1 when one does not hold.

Examples:
  $ seikyu check
  $ seikyu check --only 4,9 --outside --from 2026-11-25
  $ seikyu check --explain 9`,
    )
    .action((options: CheckOptions) =>
      withSystem(options, async (system, output) => {
        if (options.explain !== undefined) {
          explainInvariant(options.explain, output);
          return 0;
        }
        await watchTrace(system);
        const { db, ports } = system;
        const { clock, carrier, sealer, baseUrl } = ports;
        const { only } = options;
        const checked = await checkInvariants(db, {
          now: clock.now(),
          elapsedMs: () => clock.elapsedMs(),
          ...(only === undefined ? {} : { only }),
        });
        let unreachable: string | null = null;
        const outside = options.outside
          ? await compareOutside(
              db,
              { gateway: await system.needGateway(), carrier, sealer, baseUrl },
              {
                merchants: await listMerchants(db),
                from: options.from ?? null,
                now: clock.now(),
                signal: clock.deadline(listsWithinMs),
              },
            ).catch((error: unknown) => {
              // What our own books say must be seen whatever the other side does.
              unreachable = error instanceof Error ? error.message : String(error);
              return null;
            })
          : null;
        const ok = checked.ok && outside?.ok !== false && unreachable === null;
        output.document({
          ok,
          invariants: checked.invariants.map(withCommands),
          ...(unreachable === null ? {} : { outside: { ok: false, unreachable } }),
          ...(outside === null
            ? {}
            : { outside: { ...outside, invariants: outside.invariants.map(withCommands) } }),
        });
        show(checked.invariants, options.verbose, output);
        if (outside !== null) {
          output.line('');
          output.line(`Outside: ${outside.captures} captures and ${outside.sms} SMS were listed there.`);
          show(outside.invariants, false, output);
        }
        output.line(
          unreachable !== null
            ? `Outside was not compared: the lists could not be read (${unreachable}). Ours ${checked.ok ? 'hold' : 'do not hold'}; run it again when the other side answers.`
            : ok
              ? only === undefined
                ? 'All invariants hold.'
                : `Of ${only.join(', ')}, all hold; the others were not looked at.`
              : 'Stop charging, look at each violation with its command, and see: seikyu check --explain <number>',
        );
        return ok ? 0 : 1;
      }),
    );
}

function show(checked: readonly CheckedInvariant[], verbose: boolean, output: Output): void {
  output.rows(
    '',
    verbose ? ['id', 'holds', 'violations', 'milliseconds', 'name'] : ['id', 'holds', 'violations', 'name'],
    checked.map((invariant) => ({ ...invariant, holds: invariant.holds ? 'yes' : 'NO' })),
    '',
  );
  for (const invariant of checked) {
    for (const violation of invariant.examples) {
      const { merchant, kind, subject, detail } = violation;
      output.line(`  ${invariant.id}: ${merchant} ${kind} ${subject}: ${detail}`);
      output.line(`      ${explainCommandOf(violation)}`);
    }
    const more = invariant.violations - invariant.examples.length;
    if (more > 0) output.line(`  ${invariant.id}: and ${more.toLocaleString('en-US')} more`);
  }
}

const withCommands = (invariant: CheckedInvariant) => ({
  ...invariant,
  examples: invariant.examples.map((violation) => ({ ...violation, explain: explainCommandOf(violation) })),
});

/** The command that shows the subject of a violation. */
export function explainCommandOf({ kind, subject, merchant }: Violation): string {
  const of = merchant === '' ? '' : ` --merchant ${merchant}`;
  switch (kind) {
    case 'bill':
      return `seikyu explain ${subject}${of}`;
    case 'charge':
      return `seikyu explain --charge ${subject}${of}`;
    case 'message': {
      const [invoiceId = '', step = ''] = subject.split(' ');
      return `seikyu explain --message ${messageIdOf(invoiceId, step)}${of}`;
    }
    case 'file':
      return `seikyu explain --file ${subject}${of}`;
    case 'run':
      return `seikyu explain --run "${subject}"${of}`;
    case 'customer':
      return `seikyu explain --customer ${subject}${of}`;
    case 'alert':
      return 'seikyu alerts';
    case 'parked':
      return 'seikyu parked';
    case 'month':
      return `seikyu ledger months${of}`;
    case 'payout':
    case 'account':
      return `seikyu ledger balance${of}`;
    case 'report':
      return `seikyu findings list${of}`;
    case 'schema':
      return 'seikyu db status';
    case 'merchant':
      return `seikyu merchant show ${subject}`;
    default:
      // A capture or an SMS that nothing here knows: only the other side can tell more.
      return 'seikyu check --explain 18';
  }
}

function explainInvariant(id: number, output: Output): void {
  const invariant = invariants.find((each) => each.id === id) as Invariant;
  const outside = outsideInvariants.find((each) => each.id === id);
  output.document({ ...invariant, ...(outside ? { outside } : {}) });
  output.line(`${id}. ${invariant.name}`);
  output.line('');
  output.line(`  looks at:      ${invariant.looks}`);
  if (invariant.elsewhere !== '') output.line(`  elsewhere:     ${invariant.elsewhere}`);
  output.line(`  at stake:      ${invariant.matters}`);
  output.line(`  breaks it:     ${invariant.breaks}`);
  output.line(`  what to do:    ${invariant.next}`);
  if (!outside) return;
  output.line('');
  output.line(`  outside:       ${outside.name}`);
  output.line(`  at stake:      ${outside.matters}`);
  output.line(`  what to do:    ${outside.next}`);
}

/** Refusal INVARIANT_UNKNOWN for what is no number of one. */
function numbersOf(text: string): number[] {
  const numbers = text.split(',').map(Number);
  if (numbers.every((number) => invariants.some(({ id }) => id === number))) return numbers;
  throw new Refusal('INVARIANT_UNKNOWN', `${JSON.stringify(text.slice(0, 60))} names no invariant`, {
    next: `They are numbered 1 to ${invariants.length}; several as 4,9.`,
    exitCode: 2,
  });
}
