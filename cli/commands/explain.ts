import type { Command } from 'commander';
import { explainBill } from '../../billing/explain/queries.ts';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { localTime } from '../output.ts';
import { withSystem } from './with-system.ts';

export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .argument('<billing number>', 'the merchant’s own number of the bill')
    .description(
      'the whole life of a bill: file and line, every SMS, visit, attempt, rule applied, result file and row',
    )
    .option('--merchant <code>', 'where several merchants use the same number')
    .addHelpText('after', '\nExample:\n  $ seikyu explain MG2611-00001 --merchant minato-gas')
    .action((billingNumber: string, options: { json: boolean; merchant?: string }) =>
      withSystem(options, async ({ db }, output) => {
        if (options.merchant !== undefined) await merchantByCode(db, options.merchant);
        const bills = await explainBill(db, billingNumber, options.merchant ?? null);
        if (bills.length === 0) {
          throw new Refusal(
            'BILL_UNKNOWN',
            `there is no bill ${JSON.stringify(billingNumber.slice(0, 60))}`,
            {
              next: 'Billing numbers are case-sensitive. A refused line is in the receipt of its file, not here.',
            },
          );
        }
        output.document(bills);
        for (const bill of bills) {
          output.line(
            `${bill.billing_number}  ${bill.merchant}  ${bill.amount.toLocaleString('en-US')} ${bill.currency}  ${bill.collection}  ${bill.state}`,
          );
          output.line(
            `  due ${bill.due_on}${bill.debit_on ? `, debit ${bill.debit_on}` : ''}, customer ${bill.customer_number}, ${bill.file} line ${bill.line}, settings version ${bill.settings_version}`,
          );
          if (bill.next_act) output.line(`  next: ${bill.next_act} on ${bill.next_on}`);
          if (bill.locked_by) output.line(`  locked by charge ${bill.locked_by} until its outcome is known`);
          if (bill.parked_for) output.line(`  parked: ${bill.parked_for} (seikyu parked)`);
          output.rows(
            '',
            ['at', 'what', 'detail'],
            bill.events.map((event) => ({ ...event, at: localTime(event.at, bill.timezone) })),
            '  nothing has happened to it yet',
          );
        }
        return 0;
      }),
    );
}
