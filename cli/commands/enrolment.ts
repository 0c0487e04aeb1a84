import { text } from 'node:stream/consumers';
import { type Command, Option } from 'commander';
import { contractsOf } from '../../billing/customers/queries.ts';
import { customerUnknown } from '../../billing/customers/unknown.ts';
import { enrolmentsOf } from '../../billing/enrolments/queries.ts';
import { changeEnrolmentByHand } from '../../billing/exchanges/enrolments.ts';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { type EnrolmentLine, validateEnrolment } from '../../files/standard/validate.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import { parseDate } from './run.ts';
import { withSystem } from './with-system.ts';

interface EnrolmentOptions {
  json: boolean;
  merchant: string;
  contract?: string;
  from?: string;
}

export function addEnrolmentCommands(program: Command): void {
  const enrolment = program.command('enrolment').description('agreements to automatic payment');
  enrolment
    .command('list', { isDefault: true })
    .requiredOption('--merchant <code>', 'whose customers')
    .option('--customer <number>', 'of one customer, also those that have ended')
    .description('agreements that stand, the newest first; never an account or a card')
    .addHelpText(
      'after',
      '\nExample:\n  $ seikyu enrolment list --merchant sakura-suido --customer 0000700003',
    )
    .action((options: EnrolmentOptions & { customer?: string }) =>
      withSystem(options, async ({ db }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const rows = await enrolmentsOf(db, merchant.id, options.customer ?? null);
        if (rows.length === 0 && options.customer !== undefined) {
          const [found] = await contractsOf(db, merchant.id, [
            { customerNumber: options.customer, contractNumber: '' },
          ]);
          if (!found?.customer_id) throw customerUnknown();
        }
        const zone = (await zonesOf(db))(merchant.code);
        output.document(rows);
        output.rows(
          '',
          ['customer', 'contract', 'method', 'state', 'bills from', 'started', 'by'],
          rows.map((each) => ({
            customer: each.customer_number,
            contract: each.contract_number === '' ? 'default' : each.contract_number,
            method: each.usable || each.state === 'ended' ? each.method : `${each.method}, not usable`,
            state: each.state,
            'bills from': each.effective_from,
            started: localTime(each.started_at, zone),
            by: each.source,
          })),
          options.customer === undefined ? 'No agreement stands.' : 'The customer never had an agreement.',
        );
        return 0;
      }),
    );
  const from = () =>
    new Option('--from <YYYY-MM-DD>', 'bills with a business date from this day on; default today').argParser(
      parseDate,
    );
  enrolment
    .command('start')
    .argument('<customer number>', 'the merchant’s number of the customer')
    .requiredOption('--merchant <code>', 'whose customer')
    .option('--contract <number>', 'this contract; default the customer’s only one')
    .addOption(from())
    .description('a bank account is debited from now on; one that was debited before is replaced')
    .addHelpText(
      'after',
      '\nThe account and its holder in kana come on standard input, where no list of processes shows them:\n  bank-branch-type-account,holder   type 1 ordinary, 2 current\n\nExample:\n  $ seikyu enrolment start 0000700003 --merchant sakura-suido < account.txt',
    )
    .action(async (customerNumber: string, options: EnrolmentOptions) => {
      const [account = '', holder = ''] = (await text(process.stdin)).trim().split(',');
      await change('start', customerNumber, options, account.trim(), holder.trim());
    });
  enrolment
    .command('end')
    .argument('<customer number>', 'the merchant’s number of the customer')
    .requiredOption('--merchant <code>', 'whose customer')
    .option('--contract <number>', 'this contract; default the customer’s only one')
    .description(
      'ends the agreement; a debit that was asked for already runs on, bills not yet charged go by link',
    )
    .addHelpText('after', '\nExample:\n  $ seikyu enrolment end 0000700003 --merchant sakura-suido')
    .action((customerNumber: string, options: EnrolmentOptions) =>
      change('end', customerNumber, options, '', ''),
    );
}

async function change(
  what: 'start' | 'end',
  customerNumber: string,
  options: EnrolmentOptions,
  account: string,
  holder: string,
): Promise<void> {
  await withSystem(options, async ({ db, ports }, output) => {
    const merchant = await merchantByCode(db, options.merchant);
    const today = ports.clock.now().toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
    const line = checked([
      'D',
      customerNumber,
      options.contract ?? '',
      what,
      'bank',
      account,
      holder,
      options.from ?? today,
    ]);
    await changeEnrolmentByHand(ports, merchant, line, operatorName());
    output.document({ customerNumber, what });
    output.line(
      what === 'start'
        ? `${customerNumber} is debited from now on`
        : `${customerNumber} is not enrolled any more`,
    );
    return 0;
  });
}

/** As a line of an enrolment file. Refusal ENROLMENT_WRONG, without the value. */
function checked(fields: readonly string[]): EnrolmentLine {
  const validated = validateEnrolment(fields);
  if ('ok' in validated) return validated.ok;
  const { rejected } = validated;
  throw new Refusal('ENROLMENT_WRONG', `${rejected.field} is not as it must be: ${rejected.code}`, {
    next: 'The account as bank-branch-type-account (0001-103-1-7000111), then a comma, then the holder in kana.',
    context: { field: rejected.field, code: rejected.code },
    exitCode: 2,
  });
}
