import type { Command } from 'commander';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { findingRules } from '../../billing/reconciliation/findings.ts';
import { type Finding, listFindings } from '../../billing/reconciliation/queries.ts';
import { findingOf, settleFindingByHand } from '../../billing/reconciliation/settle.ts';
import { operatorName } from '../operator.ts';
import { localTime, type Output } from '../output.ts';
import { withSystem } from './with-system.ts';

const shown = 500;

export function addFindingsCommands(program: Command): void {
  const findings = program
    .command('findings')
    .description('what differs between our books and what the outside reports');
  findings
    .command('list', { isDefault: true })
    .description(
      'open differences, the oldest first: what, with whom, over how much, and whose it is to clear up',
    )
    .option('--merchant <code>', 'of this merchant only')
    .option('--all', 'those that are settled too', false)
    .addHelpText(
      'after',
      '\nExit code 3 when one is open.\n\nExample:\n  $ seikyu findings list --merchant minato-gas',
    )
    .action((options: { json: boolean; merchant?: string; all: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        if (options.merchant !== undefined) await merchantByCode(db, options.merchant);
        const found = await listFindings(db, {
          merchant: options.merchant ?? null,
          settledToo: options.all,
          limit: shown + 1,
        });
        const listed = found.slice(0, shown);
        const zoneOf = await zonesOf(db);
        output.document(listed);
        output.rows(
          '',
          [
            'found',
            'merchant',
            'kind',
            'report',
            'subject',
            'bill',
            'ours',
            'theirs',
            'owner',
            'state',
            'id',
          ],
          listed.map((finding) => ({
            ...finding,
            found: localTime(finding.found_at, zoneOf(finding.merchant)),
            report: finding.report_date,
            bill: finding.billing_number,
          })),
          'Nothing differs.',
        );
        if (found.length > shown) output.line(`... and more: these are the first ${shown}.`);
        const open = listed.filter((finding) => finding.state === 'open');
        if (open.length > 0)
          output.line(
            'What it means and what to do: seikyu findings show <id>. Cleared up: seikyu findings settle <id> --how "..."',
          );
        return open.length > 0 ? 3 : 0;
      }),
    );
  findings
    .command('show')
    .argument('<id>', 'as the list shows it')
    .description('one difference: what it means, what it holds back, and how it can be settled')
    .addHelpText(
      'after',
      '\nExit code 3 while it is open.\n\nExample:\n  $ seikyu findings show 0193a5b2-7c00-7a31-9c55-3d1f0a2b4c6d',
    )
    .action((id: string, options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const { merchant_id: _, ...finding } = await findingOf(db, id);
        const zoneOf = await zonesOf(db);
        output.document({ ...finding, rule: findingRules[finding.kind] });
        show(finding, (instant) => localTime(instant, zoneOf(finding.merchant)), output);
        return finding.state === 'open' ? 3 : 0;
      }),
    );
  findings
    .command('settle')
    .argument('<id>', 'as the list shows it')
    .requiredOption('--how <text>', 'who cleared it up and how: kept with the finding, no personal data')
    .description('settles a difference by hand; what it held goes on with the next runs')
    .addHelpText(
      'after',
      '\nNothing is booked by it. Again it changes nothing.\n\nExample:\n  $ seikyu findings settle 0193a5b2-7c00-7a31-9c55-3d1f0a2b4c6d --how "refunded at the gateway on 3 December, ticket 4711"',
    )
    .action((id: string, options: { json: boolean; how: string }) =>
      withSystem(options, async ({ ports }, output) => {
        const { finding, settledNow } = await settleFindingByHand(ports, id, options.how, operatorName());
        output.document({ ...finding, settled_now: settledNow });
        output.line(
          settledNow
            ? `${finding.kind} of ${finding.subject} is settled.`
            : `It was settled before, by ${finding.settled_by}: ${finding.how}`,
        );
        return 0;
      }),
    );
}

function show(finding: Finding, at: (instant: string | null) => string, output: Output): void {
  const rule = findingRules[finding.kind];
  const amount = (value: number | null) =>
    value === null ? 'nothing' : `${value.toLocaleString('en-US')} ${finding.currency ?? ''}`.trim();
  output.line(`${finding.kind}  ${finding.merchant}  ${finding.subject}  ${finding.state}`);
  output.line(`  ${rule.means}`);
  output.line(
    `  ours ${amount(finding.ours)}, theirs ${amount(finding.theirs)}, report of ${finding.report_date ?? '?'}, found ${at(finding.found_at)}`,
  );
  if (finding.billing_number !== null)
    output.line(`  bill ${finding.billing_number}: seikyu explain ${finding.billing_number}`);
  if (finding.state === 'settled') {
    output.line(`  settled ${at(finding.settled_at)} by ${finding.settled_by}: ${finding.how}`);
    return;
  }
  if (rule.holdsResults && finding.rows_waiting > 0)
    output.line('  the result row of its bill waits until it is settled');
  if (rule.holdsDunning)
    output.line('  no bill of the merchant is reminded, tried again or returned until it is settled');
  output.line(`  settles itself when: ${rule.settlesItself}`);
  output.line(`  the ${finding.owner}'s to clear up; by hand: ${rule.byHand}`);
  output.line(`  then: seikyu findings settle ${finding.id} --how "..."`);
}
