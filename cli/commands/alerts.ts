import type { Command } from 'commander';
import { openAlerts } from '../../billing/alerts/queries.ts';
import { parkedItems } from '../../billing/parked/queries.ts';
import { withSystem } from './with-system.ts';

export function addAlertsCommands(program: Command): void {
  program
    .command('alerts')
    .description('open alerts, the urgent ones first; many failures of one cause are one alert')
    .addHelpText('after', '\nExit code 3 when one is open.\n\nExample:\n  $ seikyu alerts')
    .action((options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const alerts = await openAlerts(db);
        output.document(alerts);
        output.rows(
          '',
          ['level', 'merchant', 'cause', 'occurrences', 'last', 'message'],
          alerts.map((alert) => ({ ...alert, last: alert.last_at.slice(0, 16).replace('T', ' ') })),
          'No alert is open.',
        );
        return alerts.length > 0 ? 3 : 0;
      }),
    );
  program
    .command('parked')
    .description('what is set aside for a person, and why')
    .addHelpText('after', '\nExit code 3 when something is parked.\n\nExample:\n  $ seikyu parked')
    .action((options: { json: boolean }) =>
      withSystem(options, async ({ db }, output) => {
        const items = await parkedItems(db);
        output.document(items);
        output.rows(
          '',
          ['since', 'merchant', 'subject', 'id', 'reason', 'context'],
          items.map((item) => ({
            ...item,
            since: item.parked_at.slice(0, 16).replace('T', ' '),
            id: item.subject_id,
          })),
          'Nothing is parked.',
        );
        return items.length > 0 ? 3 : 0;
      }),
    );
}
