import type { Command } from 'commander';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { parkedByRule, parkedItems } from '../../billing/parked/queries.ts';
import { releaseParked } from '../../billing/parked/release.ts';
import { returnHeldFiles, returnParked } from '../../billing/parked/return.ts';
import { parseReleaseRule } from '../../billing/parked/rule.ts';
import { Refusal } from '../../billing/refusal.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import { withSystem } from './with-system.ts';

interface ParkedOptions {
  json: boolean;
  merchant: string;
  file?: string[];
  rule?: string;
  dryRun: boolean;
}

export function addParkedCommands(program: Command): void {
  const parked = program.command('parked').description('what is set aside for a person');
  parked
    .command('list', { isDefault: true })
    .description('what is set aside for a person, and why')
    .addHelpText('after', '\nExit code 3 when something is parked.\n\nExample:\n  $ seikyu parked')
    .action((options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const items = await parkedItems(db);
        const zoneOf = await zonesOf(db);
        output.document(items);
        output.rows(
          '',
          ['since', 'merchant', 'subject', 'what', 'reason', 'context'],
          items.map((item) => ({
            ...item,
            since: localTime(item.parked_at, zoneOf(item.merchant)),
            what: item.billing_number ?? item.file_name ?? item.subject_id,
          })),
          'Nothing is parked.',
        );
        if (items.some((item) => item.subject === 'invoice'))
          output.line(
            'A bill: seikyu explain <bill>, then seikyu parked release <bill> or parked return <bill> --merchant <code>',
          );
        if (items.some((item) => item.reason === 'OUTWARD_FILE_GONE'))
          output.line(
            'A file that is gone: ask the merchant. It has the file: seikyu file confirm <name>; it has not: parked release --file <name>',
          );
        if (items.some((item) => item.subject === 'file'))
          output.line(
            'A file: docs/files/codes.md, then seikyu parked release --file <name> or parked return --file <name> --merchant <code>',
          );
        return items.length > 0 ? 3 : 0;
      }),
    );
  parked
    .command('release')
    .argument('[billing number...]', 'parked bills')
    .requiredOption('--merchant <code>', 'whose bills and files they are')
    .option('--file <name...>', 'held or parked files, by name: the next run of ingest or deliver tries them')
    .option(
      '--rule <conditions>',
      'all bills that the gate has parked and for which each condition holds: reason=, file=, amount<=, times<=',
    )
    .option('--dry-run', 'which bills the rule means, without releasing them', false)
    .description('lets parked bills and held files go on, as seen by a person')
    .addHelpText(
      'after',
      `
Exit code 3 when something stays.

Examples:
  $ seikyu parked release MG2611-00009 --merchant minato-gas
  $ seikyu parked release --file billing_minato-gas_20261127_0004.csv --merchant minato-gas
  $ seikyu parked release --rule 'reason=AMOUNT_UNUSUAL,times<=20' --merchant minato-gas`,
    )
    .action((billingNumbers: string[], options: ParkedOptions) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const rule = options.rule === undefined ? null : parseReleaseRule(options.rule);
        const files = options.file ?? [];
        if (rule === null) refuseNothing([...billingNumbers, ...files]);
        if (options.dryRun) {
          const meant = rule === null ? billingNumbers : await parkedByRule(db, merchant.id, rule);
          output.document({ bills: meant });
          output.line(`${meant.length} bills: ${meant.join(', ')}`);
          return 0;
        }
        const done = await releaseParked(ports, merchant, { billingNumbers, files, rule }, operatorName());
        output.document(done);
        for (const number of done.bills) output.line(`${number} goes on`);
        for (const name of done.files)
          output.line(`${name} is taken up by the next run of ingest or deliver`);
        for (const { name, why } of done.kept) output.line(`${name} stays as it is: ${reasons[why]}`);
        return done.kept.length > 0 ? 3 : 0;
      }),
    );
  parked
    .command('return')
    .argument('[billing number...]', 'parked bills')
    .requiredOption('--merchant <code>', 'whose bills and files they are')
    .option('--file <name...>', 'held files, by name: refused, and the receipt says why')
    .description('hands parked bills back to the merchant unpaid, and held files back unread')
    .addHelpText(
      'after',
      `
Exit code 3 when something stays.

Examples:
  $ seikyu parked return MG2611-00009 --merchant minato-gas
  $ seikyu parked return --file billing_minato-gas_20261127_0004.csv --merchant minato-gas`,
    )
    .action((billingNumbers: string[], options: ParkedOptions) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const files = options.file ?? [];
        refuseNothing([...billingNumbers, ...files]);
        const bills = await returnParked(ports, merchant, billingNumbers, operatorName());
        const held = await returnHeldFiles(ports, merchant, files, operatorName());
        output.document({ ...bills, files: held });
        for (const number of bills.returned) output.line(`${number} is returned unpaid`);
        for (const name of held.returned) output.line(`${name} is refused; its receipt tells the merchant`);
        for (const { billingNumber, why } of bills.kept)
          output.line(`${billingNumber} stays as it is: ${reasons[why]}`);
        for (const name of held.kept) output.line(`${name} stays as it is: it is not held`);
        return bills.kept.length + held.kept.length > 0 ? 3 : 0;
      }),
    );
}

const reasons = {
  not_parked: 'it is not parked, or not held',
  payment_under_way: 'a payment is under way; try again when its outcome is known',
} as const;

/** Refusal NOTHING_NAMED. */
function refuseNothing(names: readonly string[]): void {
  if (names.length > 0) return;
  throw new Refusal('NOTHING_NAMED', 'no bill and no file is named', {
    next: 'Give billing numbers, --file <name>, or for a release --rule <conditions>; seikyu parked lists what waits.',
    exitCode: 2,
  });
}
