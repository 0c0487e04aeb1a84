import type { Command } from 'commander';
import {
  type Explained,
  explainBill,
  explainCharge,
  explainCustomer,
  explainFile,
  explainMessage,
  explainRun,
} from '../../billing/explain/queries.ts';
import { uuidOf } from '../../billing/ids.ts';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { messageOf } from '../../billing/messages/message.ts';
import { Refusal } from '../../billing/refusal.ts';
import { localTime, type Output } from '../output.ts';
import type { System } from '../system.ts';
import { withSystem } from './with-system.ts';

interface ExplainOptions {
  json: boolean;
  merchant?: string;
  charge?: string;
  message?: string;
  file?: string;
  run?: string;
  customer?: string;
}

export function addExplainCommand(program: Command): void {
  program
    .command('explain')
    .argument('[billing number]', 'the merchant’s own number of the bill')
    .description(
      'the whole life of a bill: file and line, every SMS, visit, attempt, rule applied, result file and row; or of what check names',
    )
    .option('--merchant <code>', 'where several merchants use the same number or name')
    .option(
      '--charge <id>',
      'a charge and its payment: our id, its 26-character reference or the gateway’s id',
    )
    .option('--message <id>', 'an SMS, by its id at the carrier: <reference of the bill>.<step>')
    .option('--file <name>', 'a file of the merchant or one of ours, by name or id')
    .option('--customer <number>', 'a customer’s bills, cards and credits, by number or id; no name')
    .option('--run <job and date>', 'a run, as "charge 2026-12-01"')
    .addHelpText(
      'after',
      `
Examples:
  $ seikyu explain MG2611-00001 --merchant minato-gas
  $ seikyu explain --charge 01KBCZ0QXH7M2V6Y8N3T5R4W1A
  $ seikyu explain --run "charge 2026-12-01"`,
    )
    .action((billingNumber: string | undefined, options: ExplainOptions) =>
      withSystem(options, async (system, output) => {
        if (options.merchant !== undefined) await merchantByCode(system.db, options.merchant);
        const { charge, message, file, run, customer } = options;
        const asked = [billingNumber, charge, message, file, run, customer];
        if (asked.filter((each) => each !== undefined).length !== 1) {
          throw new Refusal('NOTHING_TO_EXPLAIN', 'explain takes one subject', {
            next: 'Give a billing number, or one of --charge, --message, --file, --run, --customer.',
            exitCode: 2,
          });
        }
        if (billingNumber === undefined) await explainOther(system, options, output);
        else await explainOneBill(system, billingNumber, options.merchant ?? null, output);
        return 0;
      }),
    );
}

async function explainOneBill(
  { db }: System,
  billingNumber: string,
  merchant: string | null,
  output: Output,
): Promise<void> {
  const bills = await explainBill(db, billingNumber, merchant);
  if (bills.length === 0) {
    throw new Refusal('BILL_UNKNOWN', `there is no bill ${JSON.stringify(billingNumber.slice(0, 60))}`, {
      next: 'Billing numbers are case-sensitive. A refused line is in the receipt of its file, not here.',
      exitCode: 2,
    });
  }
  output.document(bills);
  for (const bill of bills) {
    output.line(
      `${bill.billing_number}  ${bill.merchant}  ${bill.amount.toLocaleString('en-US')} ${bill.currency}  ${bill.collection}  ${bill.state}`,
    );
    output.line(
      `  due ${bill.due_on}${bill.debit_on ? `, debit ${bill.debit_on}` : ''}, customer ${bill.customer_number}, ${bill.file} line ${bill.line}, settings version ${bill.settings_version}`,
    );
    if (bill.fell_back_on)
      output.line(
        `  offered a link since ${bill.fell_back_on}${bill.fell_back_for ? `: ${bill.fell_back_for}` : ''}`,
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
}

async function explainOther({ db }: System, options: ExplainOptions, output: Output): Promise<void> {
  const merchant = options.merchant ?? null;
  let found: Explained[] = [];
  if (options.charge !== undefined) {
    const { charge } = options;
    found = await explainCharge(db, { id: chargeIdOf(charge), gatewayChargeId: charge }, merchant);
  } else if (options.message !== undefined) {
    found = await explainMessage(db, messageOf(options.message), merchant);
  } else if (options.file !== undefined) {
    found = await explainFile(db, options.file, merchant);
  } else if (options.customer !== undefined) {
    found = await explainCustomer(db, options.customer, merchant);
  } else if (options.run !== undefined) {
    found = await explainRun(db, runOf(options.run), merchant);
  }
  if (found.length === 0) {
    throw new Refusal('SUBJECT_UNKNOWN', 'there is nothing of that name here', {
      next:
        options.run === undefined
          ? 'Names and ids are case-sensitive. What only the gateway or the carrier knows is shown by: seikyu check --outside'
          : 'seikyu runs shows what ran, with its job and date.',
      exitCode: 2,
    });
  }
  output.document(found);
  for (const { merchant: code, timezone, subject, facts, billing_number, events } of found) {
    output.line(`${subject}  ${code}${billing_number ? `  of bill ${billing_number}` : ''}`);
    for (const fact of facts) output.line(`  ${fact}`);
    output.rows(
      '',
      ['at', 'what', 'detail'],
      events.map((event) => ({ ...event, at: localTime(event.at, timezone) })),
      '  nothing has happened to it yet',
    );
  }
}

/** Null: no id of ours, so it can only be the gateway's. */
function chargeIdOf(text: string): string | null {
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text)) return text.toLowerCase();
  return /^[0-9A-Za-z]{26}$/.test(text) ? uuidOf(text) : null;
}

function runOf(text: string): { job: string; businessDate: string } {
  const [, job = '', businessDate = ''] = /^([a-z]+)[ @:](\d{4}-\d{2}-\d{2})$/.exec(text.trim()) ?? [];
  if (job !== '') return { job, businessDate };
  throw new Refusal('RUN_MALFORMED', 'a run is named by its job and business date', {
    next: 'Write it as: --run "charge 2026-12-01"',
    exitCode: 2,
  });
}
