import { type Command, Option } from 'commander';
import { type HoldReason, holdReasons } from '../../billing/holds/hold.ts';
import { changeHoldByHand } from '../../billing/holds/place.ts';
import { standingHolds } from '../../billing/holds/queries.ts';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import { parseDate } from './run.ts';
import { withSystem } from './with-system.ts';

interface HoldOptions {
  json: boolean;
  merchant: string;
  reason: HoldReason;
  contract?: string;
  until?: string;
}

const reasonOption = () => new Option('--reason <reason>', 'why').choices(holdReasons).makeOptionMandatory();

export function addHoldCommands(program: Command): void {
  const hold = program.command('hold').description('reasons not to charge or remind a customer for a while');
  hold
    .command('list', { isDefault: true })
    .option('--merchant <code>', 'of one merchant')
    .description('the holds that stand')
    .addHelpText('after', '\nExample:\n  $ seikyu hold list --merchant minato-gas')
    .action((options: { json: boolean; merchant?: string }) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant =
          options.merchant === undefined ? null : (await merchantByCode(db, options.merchant)).id;
        const holds = await standingHolds(db, merchant, ports.clock.now());
        const zoneOf = await zonesOf(db);
        output.document(holds);
        output.rows(
          '',
          ['merchant', 'customer', 'contract', 'reason', 'until', 'since', 'open bills'],
          holds.map((each) => ({
            merchant: each.merchant,
            customer: each.customer_number,
            contract: each.contract_number === '' ? 'all' : each.contract_number,
            reason: each.reason,
            until: each.until_on ?? 'lifted',
            since: localTime(each.placed_at, zoneOf(each.merchant)),
            'open bills': each.open_bills,
          })),
          'No hold stands.',
        );
        return 0;
      }),
    );
  hold
    .command('place')
    .argument('<customer number>', 'the merchant’s number of the customer')
    .requiredOption('--merchant <code>', 'whose customer')
    .addOption(reasonOption())
    .option('--contract <number>', 'this contract alone; default all of the customer')
    .addOption(new Option('--until <YYYY-MM-DD>', 'the last day; default until lifted').argParser(parseDate))
    .description(
      'stops SMS and charges not yet made; a charge under way runs on, and the customer may still pay',
    )
    .addHelpText(
      'after',
      '\nExample:\n  $ seikyu hold place G100001 --merchant minato-gas --reason dispute --until 2026-12-31',
    )
    .action((customerNumber: string, options: HoldOptions) => change('place', customerNumber, options));
  hold
    .command('lift')
    .argument('<customer number>', 'the merchant’s number of the customer')
    .requiredOption('--merchant <code>', 'whose customer')
    .addOption(reasonOption())
    .option('--contract <number>', 'for this contract alone; default wherever the reason stands')
    .description('ends a hold; the next pass of dunning takes the bills up again')
    .addHelpText('after', '\nExample:\n  $ seikyu hold lift G100001 --merchant minato-gas --reason dispute')
    .action((customerNumber: string, options: HoldOptions) => change('lift', customerNumber, options));
}

async function change(what: 'place' | 'lift', customerNumber: string, options: HoldOptions): Promise<void> {
  await withSystem(options, async ({ db, ports }, output) => {
    const merchant = await merchantByCode(db, options.merchant);
    const hold = {
      customerNumber,
      contractNumber: options.contract ?? '',
      what,
      reason: options.reason,
      untilOn: options.until ?? null,
    };
    await changeHoldByHand(ports, merchant, hold, operatorName());
    output.document(hold);
    output.line(
      what === 'place' ? `${customerNumber} is held` : `${customerNumber} is not held for this any more`,
    );
    return 0;
  });
}
