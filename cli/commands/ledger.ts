import { type Command, InvalidArgumentError } from 'commander';
import { closeMonth } from '../../billing/ledger/close.ts';
import {
  type AccountBalance,
  closedMonths,
  type LedgerFilter,
  ledgerDifferences,
  ledgerEntries,
  trialBalance,
} from '../../billing/ledger/queries.ts';
import { filterOf } from '../../billing/ledger/read.ts';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import type { System } from '../system.ts';
import { withSystem } from './with-system.ts';

interface PartOptions {
  json: boolean;
  merchant?: string;
  month?: string;
  account?: string;
  customer?: string;
  bill?: string;
}

export const balanceColumns = ['merchant', 'currency', 'account', 'debit', 'credit', 'balance'] as const;

export function addLedgerCommand(program: Command): void {
  const ledger = program.command('ledger').description('the books: balances, entries, closing months');
  const parts = (command: Command): Command =>
    command
      .option('--merchant <code>', 'of this merchant only')
      .option('--month <YYYY-MM>', 'what was booked in this closing month')
      .option('--account <name>', 'of this account only')
      .option('--customer <number>', 'of this customer’s bills')
      .option('--bill <number>', 'of this bill');

  parts(
    ledger
      .command('balance', { isDefault: true })
      .description(
        'debits, credits and balance by merchant, currency and account: without options the trial balance',
      ),
  )
    .addHelpText(
      'after',
      `
Exit code 1 when the balances of a merchant do not add up to zero.

Examples:
  $ seikyu ledger balance
  $ seikyu ledger balance --merchant minato-gas --month 2026-11
  $ seikyu ledger balance --merchant minato-gas --bill MG2611-00001`,
    )
    .action((options: PartOptions) =>
      withSystem(options, async (system, output) => {
        const balances = await trialBalance(system.db, await chosen(system, options));
        const sum = balances.reduce((total, account) => total + account.balance, 0);
        output.document({ accounts: balances, sum });
        output.rows(
          '',
          balanceColumns,
          balances.map((row) => ({ ...row })),
          'Nothing is booked.',
        );
        output.line(`Sum of all balances: ${sum}`);
        return options.account === undefined && !sumsToZero(balances) ? 1 : 0;
      }),
    );

  parts(ledger.command('entries').description('what was booked, newest first'))
    .option('--limit <n>', 'how many at most', positive, 50)
    .addHelpText(
      'after',
      `
Examples:
  $ seikyu ledger entries --merchant minato-gas --bill MG2611-00001
  $ seikyu ledger entries --merchant minato-gas --account paid_out`,
    )
    .action((options: PartOptions & { limit: number }) =>
      withSystem(options, async (system, output) => {
        const entries = await ledgerEntries(system.db, await chosen(system, options), options.limit);
        output.document(entries);
        output.rows(
          '',
          [
            'merchant',
            'day',
            'booked',
            'month',
            'event',
            'debit',
            'credit',
            'amount',
            'currency',
            'bill',
            'by',
          ],
          entries.map((entry) => ({
            ...entry,
            day: entry.event_on,
            booked: entry.posted_on,
            month: entry.closing_month.slice(0, 7),
            bill: entry.billing_number ?? '',
            by: entry.actor ?? '',
          })),
          'Nothing is booked.',
        );
        if (entries.length === options.limit) output.line('There may be more: --limit <n>');
        return 0;
      }),
    );

  ledger
    .command('months')
    .description(
      'closed months, and whether the ledger still agrees with them and with bills, payments and payouts',
    )
    .option('--merchant <code>', 'of this merchant only')
    .addHelpText('after', '\nExit code 1 when something differs.\n\nExample:\n  $ seikyu ledger months')
    .action((options: { json: boolean; merchant?: string }) =>
      withSystem(options, async ({ db }, output) => {
        const merchant = options.merchant === undefined ? null : await merchantByCode(db, options.merchant);
        const months = await closedMonths(db, merchant?.id ?? null);
        const differences = (await ledgerDifferences(db)).filter(
          (difference) => merchant === null || difference.merchant === merchant.code,
        );
        const zoneOf = await zonesOf(db);
        output.document({ months, differences });
        output.rows(
          '',
          ['merchant', 'month', 'entries', 'amount', 'closed', 'by'],
          months.map((row) => ({
            ...row,
            month: row.month.slice(0, 7),
            entries: row.transfers,
            closed: localTime(row.closed_at, zoneOf(row.merchant)),
            by: row.closed_by,
          })),
          'No month is closed.',
        );
        for (const { merchant: code, comparison, subject, detail } of differences)
          output.line(`  not true: ${comparison} (${code} ${subject}: ${detail})`);
        output.line(
          differences.length === 0
            ? 'The ledger agrees with them and with all bills.'
            : 'THE LEDGER DIFFERS.',
        );
        return differences.length === 0 ? 0 : 1;
      }),
    );

  ledger
    .command('close')
    .description('closes a month that is over: it takes no entries any more, later ones go to the next')
    .requiredOption('--merchant <code>', 'whose month it is')
    .requiredOption('--month <YYYY-MM>', 'the oldest one that is open')
    .addHelpText('after', '\nExample:\n  $ seikyu ledger close --merchant minato-gas --month 2026-11')
    .action((options: { json: boolean; merchant: string; month: string }) =>
      withSystem(options, async ({ db, ports }, output) => {
        const merchant = await merchantByCode(db, options.merchant);
        const done = await closeMonth(ports, merchant, options.month, operatorName());
        output.document(done);
        output.rows(
          '',
          ['account', 'currency', 'debit', 'credit', 'balance'],
          done.accounts.map((row) => ({ ...row })),
          'Nothing was ever booked.',
        );
        output.line(
          done.closed
            ? `${done.month} of ${done.merchant} is closed.`
            : `${done.month} of ${done.merchant} was closed already; nothing was changed.`,
        );
        return 0;
      }),
    );
}

/** Of each merchant and currency by itself: two wrongs may not make a right. */
export function sumsToZero(balances: readonly AccountBalance[]): boolean {
  const sums = new Map<string, number>();
  for (const { merchant, currency, balance } of balances) {
    const key = `${merchant} ${currency}`;
    sums.set(key, (sums.get(key) ?? 0) + balance);
  }
  return [...sums.values()].every((sum) => sum === 0);
}

async function chosen({ db }: System, options: PartOptions): Promise<LedgerFilter> {
  return filterOf(db, {
    merchant: options.merchant === undefined ? null : await merchantByCode(db, options.merchant),
    ...(options.month === undefined ? {} : { month: options.month }),
    ...(options.account === undefined ? {} : { account: options.account }),
    ...(options.customer === undefined ? {} : { customerNumber: options.customer }),
    ...(options.bill === undefined ? {} : { billingNumber: options.bill }),
  });
}

function positive(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('write a number from 1 on');
}
