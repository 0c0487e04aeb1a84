import type { Command } from 'commander';
import { type ListedFile, listFiles } from '../../billing/exchanges/queries.ts';
import { tieOutOf } from '../../billing/exchanges/tie-out.ts';
import { explainFile } from '../../billing/explain/queries.ts';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { confirmFile } from '../../billing/outward/confirm.ts';
import { redeliverFile } from '../../billing/outward/redeliver.ts';
import { Refusal } from '../../billing/refusal.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import type { Process } from '../program.ts';
import { addFileRecallCommand } from './file-recall.ts';
import { withSystem } from './with-system.ts';

interface FileOptions {
  json: boolean;
  merchant: string;
}

export function addFileCommands(program: Command, process: Process): void {
  const file = program.command('file').description('files that came from merchants and went to them');
  file
    .command('list', { isDefault: true })
    .requiredOption('--merchant <code>', 'whose files')
    .option('--limit <number>', 'so many, the newest first', '50')
    .description('files in and out, the newest first')
    .addHelpText('after', '\nExample:\n  $ seikyu file list --merchant minato-gas')
    .action((options: FileOptions & { limit: string }) =>
      withSystem(options, async ({ db }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const files = await listFiles(db, merchant.id, limitOf(options.limit));
        const zoneOf = await zonesOf(db);
        output.document(files);
        output.rows(
          '',
          ['at', 'way', 'name', 'state', 'lines', 'accepted', 'rejected', 'amount'],
          files.map((each) => ({
            ...each,
            at: localTime(each.at, zoneOf(merchant.code)),
            state: stateOf(each),
          })),
          'No file has come or gone.',
        );
        return 0;
      }),
    );
  file
    .command('show')
    .argument('<name>', 'a file’s name')
    .requiredOption('--merchant <code>', 'whose file')
    .description('what is known of a file, and for one that was loaded whether it closes')
    .addHelpText(
      'after',
      '\nExample:\n  $ seikyu file show billing_minato-gas_20261125_0001.csv --merchant minato-gas',
    )
    .action((name: string, options: FileOptions) =>
      withSystem(options, async ({ db }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const found = await explainFile(db, name, merchant.code);
        if (found.length === 0) {
          throw new Refusal('FILE_UNKNOWN', 'there is no file of this name', {
            next: 'seikyu file list shows the names; they are case-sensitive.',
            exitCode: 2,
          });
        }
        const files = await listFiles(db, merchant.id, found.length, name);
        const tieOuts = await Promise.all(
          files
            .filter((each) => each.way === 'in' && each.state === 'released')
            .map((each) => tieOutOf(db, merchant.id, each.id)),
        );
        output.document({ files: found, tieOuts });
        for (const { subject, facts, events, timezone } of found) {
          output.line(subject);
          for (const fact of facts) output.line(`  ${fact}`);
          output.rows(
            '',
            ['at', 'what', 'detail'],
            events.map((event) => ({ ...event, at: localTime(event.at, timezone) })),
            '  nothing has happened to it yet',
          );
        }
        for (const { closes, outcomes } of tieOuts) {
          const told = Object.entries(outcomes)
            .filter(([, { count }]) => count > 0)
            .map(([state, { count, amount }]) => `${state} ${count} over ${amount}`);
          output.line(`${closes ? 'closes' : 'does not close'}: ${told.join(', ') || 'no bills'}`);
        }
        return tieOuts.every(({ closes }) => closes) ? 0 : 3;
      }),
    );
  file
    .command('redeliver')
    .argument('<name>', 'a file that was delivered')
    .requiredOption('--merchant <code>', 'whose file')
    .description('puts a delivered file on the merchant’s server once more, byte for byte')
    .addHelpText(
      'after',
      '\nThe next run of deliver uploads it.\n\nExample:\n  $ seikyu file redeliver result_minato-gas_20261126_0001.csv --merchant minato-gas',
    )
    .action((name: string, options: FileOptions) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        await redeliverFile(ports, merchant, name, operatorName());
        output.document({ name });
        output.line(`${name} goes out with the next run of deliver, or now: seikyu run deliver`);
        return 0;
      }),
    );
  file
    .command('confirm')
    .argument('<name>', 'a file that is parked as OUTWARD_FILE_GONE')
    .requiredOption('--merchant <code>', 'whose file')
    .description(
      'the merchant says that it has a file whose delivery was never confirmed: it is not sent again',
    )
    .addHelpText(
      'after',
      '\nIf it has not: seikyu parked release --file <name> sends the file again.\n\nExample:\n  $ seikyu file confirm result_minato-gas_20261126_0001.csv --merchant minato-gas',
    )
    .action((name: string, options: FileOptions) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        await confirmFile(ports, merchant, name, operatorName());
        output.document({ name });
        output.line(`${name} counts as delivered.`);
        return 0;
      }),
    );
  addFileRecallCommand(file, process);
}

function stateOf(file: ListedFile): string {
  return file.code === null ? file.state : `${file.state} ${file.code}`;
}

/** Refusal LIMIT_WRONG. */
function limitOf(text: string): number {
  if (/^[1-9][0-9]{0,5}$/.test(text)) return Number(text);
  throw new Refusal('LIMIT_WRONG', 'the limit is no number from 1 to 999999', {
    next: 'Write it as: --limit 200',
    exitCode: 2,
  });
}
