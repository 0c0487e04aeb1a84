import type { Command } from 'commander';
import { Temporal } from 'temporal-polyfill';
import { settleHeld } from '../../billing/debits/answer.ts';
import { requestsOf, resultsOf } from '../../billing/debits/queries.ts';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import { withSystem } from './with-system.ts';

interface DebitOptions {
  json: boolean;
  merchant: string;
}

const listedDays = 92;

export function addDebitCommands(program: Command): void {
  const debit = program
    .command('debit')
    .description('bank debits: what was asked of the agency, and what it answered');
  debit
    .command('list', { isDefault: true })
    .requiredOption('--merchant <code>', 'whose debits')
    .description('requests and results of the last three months, and what still waits')
    .addHelpText('after', '\nExample:\n  $ seikyu debit list --merchant sakura-suido')
    .action((options: DebitOptions) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const { timezone } = merchant.settings;
        const today = ports.clock.now().toZonedDateTimeISO(timezone).toPlainDate();
        const since = today.subtract({ days: listedDays }).toString();
        const requests = await requestsOf(db, merchant.id, since);
        const results = await resultsOf(db, merchant.id, since);
        output.document({ requests, results });
        output.rows(
          'requests',
          ['file', 'debit day', 'debits', 'amount', 'open', 'result by', 'state'],
          requests.map((each) => ({
            file: each.file,
            'debit day': each.debit_on,
            debits: each.debits,
            amount: each.amount,
            open: each.open,
            'result by': each.result_due_on,
            state: each.delivered ? each.state : 'not uploaded',
          })),
          'No debit was asked for.',
        );
        output.rows(
          'results',
          ['file', 'taken', 'answers', 'records', 'state', 'why'],
          results.map((each) => ({
            file: each.name,
            taken: localTime(each.fetched_at, timezone),
            answers: each.request ?? '',
            records: each.records ?? '',
            state: each.state,
            why: each.reason === null ? '' : `${each.reason}${each.record ? `, record ${each.record}` : ''}`,
          })),
          'No result has come.',
        );
        const isLate = (due: string) => Temporal.PlainDate.compare(due, today) < 0;
        const waits =
          results.some(({ state }) => state === 'held') ||
          requests.some((each) => each.open > 0 && isLate(each.result_due_on));
        return waits ? 3 : 0;
      }),
    );
  for (const [how, description, said] of [
    [
      'accept',
      'a second answer to one request may be booked: for what is open, and for money that came after all',
      'is booked by the next run of debit',
    ],
    ['dismiss', 'nothing of a held result counts', 'counts for nothing'],
  ] as const) {
    debit
      .command(how)
      .argument('<name>', 'a result that is held')
      .requiredOption('--merchant <code>', 'whose result')
      .description(description)
      .addHelpText(
        'after',
        `\nAsk the agency first.\n\nExample:\n  $ seikyu debit ${how} result_20270105.txt --merchant sakura-suido`,
      )
      .action((name: string, options: DebitOptions) =>
        withSystem(options, async ({ db, ports }, output) => {
          const merchant = await merchantByCode(db, options.merchant);
          await settleHeld(ports, merchant, name, how, operatorName());
          output.document({ name, how });
          output.line(`${name} ${said}`);
          return 0;
        }),
      );
  }
}
