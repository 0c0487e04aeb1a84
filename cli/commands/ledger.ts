import type { Command } from 'commander';
import { trialBalance } from '../../billing/ledger/queries.ts';
import { withSystem } from './with-system.ts';

export function addLedgerCommand(program: Command): void {
  program
    .command('ledger')
    .description('the trial balance: debits, credits and balance by merchant and account')
    .addHelpText('after', '\nExample:\n  $ seikyu ledger')
    .action((options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const balances = await trialBalance(db);
        const sum = balances.reduce((total, account) => total + account.balance, 0);
        output.document({ accounts: balances, sum });
        output.rows(
          '',
          ['merchant', 'account', 'debit', 'credit', 'balance'],
          balances.map((account) => ({ ...account })),
          'The ledger is empty.',
        );
        output.line(`Sum of all balances: ${sum}`);
        return sum === 0 ? 0 : 1;
      }),
    );
}
