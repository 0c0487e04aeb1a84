import type { Command } from 'commander';
import { acknowledgeAlerts, openAlerts } from '../../billing/alerts/queries.ts';
import { sendDueAlerts, testSenders } from '../../billing/alerts/send.ts';
import { merchantByCode, zonesOf } from '../../billing/merchants/queries.ts';
import { Refusal } from '../../billing/refusal.ts';
import { operatorName } from '../operator.ts';
import { localTime } from '../output.ts';
import type { System } from '../system.ts';
import { watchTrace } from './watch-trace.ts';
import { withSystem } from './with-system.ts';

export function addAlertsCommands(program: Command): void {
  const alerts = program.command('alerts').description('what an operator should know');
  alerts
    .command('list', { isDefault: true })
    .description('open alerts, the urgent ones first; many failures of one cause are one alert')
    .addHelpText('after', '\nExit code 3 when one is open.\n\nExample:\n  $ seikyu alerts')
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        const { db } = system;
        await watchTrace(system);
        const open = await openAlerts(db);
        const zoneOf = await zonesOf(db);
        output.document(open);
        output.rows(
          '',
          ['level', 'merchant', 'cause', 'occurrences', 'sent', 'last', 'message'],
          open.map((alert) => ({
            ...alert,
            sent: alert.notices,
            last: localTime(alert.last_at, zoneOf(alert.merchant)),
          })),
          'No alert is open.',
        );
        if (open.length > 0) {
          output.line(
            'What each means: docs/alerts.md. Seen and dealt with: seikyu alerts acknowledge <cause>',
          );
          if (system.ports.alertSenders.length === 0)
            output.line(
              'Nobody is told: set SEIKYU_ALERT_WEBHOOK or SEIKYU_ALERT_MAIL_TO (docs/settings.md).',
            );
        }
        return open.length > 0 ? 3 : 0;
      }),
    );
  alerts
    .command('acknowledge')
    .argument('<cause>', 'as the list shows it')
    .description('closes an open alert; if it happens again, a new one opens')
    .option('--merchant <code>', 'of this merchant only')
    .addHelpText('after', '\nExample:\n  $ seikyu alerts acknowledge LATE_PAYMENT --merchant minato-gas')
    .action((cause: string, options: { json: boolean; merchant?: string }) =>
      withSystem(options, async ({ db, ports }, output) => {
        if (options.merchant !== undefined) await merchantByCode(db, options.merchant);
        const acknowledged = await acknowledgeAlerts(
          db,
          ports.clock.now(),
          cause,
          options.merchant ?? null,
          operatorName(),
        );
        if (acknowledged === 0) {
          throw new Refusal('ALERT_NOT_OPEN', 'no open alert has this cause', {
            next: 'seikyu alerts shows which are open, each with its cause. One that is closed needs nothing.',
            exitCode: 2,
          });
        }
        output.document({ acknowledged });
        output.line(`${acknowledged} acknowledged.`);
        return 0;
      }),
    );
  alerts
    .command('send')
    .description('sends the notices that are due; a running `up` does so every minute')
    .addHelpText('after', '\nExit code 1 when one did not get through.\n\nExample:\n  $ seikyu alerts send')
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        refuseWithoutSenders(system);
        await watchTrace(system);
        const counts = await sendDueAlerts(system.ports);
        output.document(counts);
        output.line(
          `${counts.sent} sent, ${counts.failed} did not get through, ${counts.dropped} closed meanwhile.`,
        );
        return counts.failed > 0 ? 1 : 0;
      }),
    );
  alerts
    .command('test')
    .description('sends a test notice over each way that is set, and says what happened')
    .addHelpText('after', '\nExit code 1 when one did not get through.\n\nExample:\n  $ seikyu alerts test')
    .action((options: { json: boolean }) =>
      withSystem(options, async (system, output) => {
        refuseWithoutSenders(system);
        const results = await testSenders(system.ports);
        output.document(results);
        for (const { channel, answer } of results)
          output.line(
            `${channel}: ${answer.kind === 'accepted' ? 'accepted' : `did not get through: ${answer.why}`}`,
          );
        return results.every(({ answer }) => answer.kind === 'accepted') ? 0 : 1;
      }),
    );
}

/** Refusal ALERTS_NOT_CONFIGURED. */
function refuseWithoutSenders({ ports }: System): void {
  if (ports.alertSenders.length > 0) return;
  throw new Refusal('ALERTS_NOT_CONFIGURED', 'no way to tell anybody is set', {
    next: 'Set SEIKYU_ALERT_WEBHOOK and SEIKYU_ALERT_WEBHOOK_SECRET, or SMTP_URL, SEIKYU_ALERT_MAIL_FROM and SEIKYU_ALERT_MAIL_TO.',
    exitCode: 2,
  });
}
