import { createTransport } from 'nodemailer';
import type { AlertSender, AlertTold, Notice, SendAnswer } from './sender.ts';

export interface MailOptions {
  /** smtp://user:password@host:587, or smtps:// for TLS from the first byte. */
  smtpUrl: string;
  from: string;
  to: readonly string[];
  callDeadlineMs?: number;
}

/** Sends notices as plain mail. The Message-ID is the notice's, so that one sent again is known as the same. */
export function mailSender(options: MailOptions): AlertSender {
  const callDeadlineMs = options.callDeadlineMs ?? 10_000;
  const url = new URL(options.smtpUrl);
  const isHere = ['localhost', '127.0.0.1', '[::1]'].includes(url.hostname);
  const transport = createTransport({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port) || (url.protocol === 'smtps:' ? 465 : 587),
    secure: url.protocol === 'smtps:',
    // A password goes over an encrypted line or not at all.
    requireTLS: url.username !== '' && !isHere,
    ...(url.username === ''
      ? {}
      : { auth: { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) } }),
    // Each bounds one silence; the deadline that bounds the whole is the caller's.
    dnsTimeout: callDeadlineMs,
    connectionTimeout: callDeadlineMs,
    greetingTimeout: callDeadlineMs,
    socketTimeout: callDeadlineMs,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  const domain = options.from.split('@').at(-1)?.replace(/>$/, '') ?? 'localhost';
  return {
    channel: 'mail',
    callDeadlineMs,

    async send(notice): Promise<SendAnswer> {
      try {
        // It throws where nobody may have it; one dead address among several must not repeat it to the others.
        await transport.sendMail({
          from: options.from,
          to: [...options.to],
          subject: subjectOf(notice),
          text: textOf(notice),
          messageId: `<${notice.id}@${domain}>`,
          headers: { 'Auto-Submitted': 'auto-generated', 'X-Seikyu-Notice': notice.id },
        });
        return { kind: 'accepted' };
      } catch (error) {
        const { code, responseCode } = error as { code?: unknown; responseCode?: unknown };
        // The server's own words may quote an address.
        return { kind: 'not_accepted', why: [code, responseCode].filter(Boolean).join(' ') || 'SMTP failed' };
      }
    },

    async close() {
      transport.close();
    },
  };
}

export function subjectOf(notice: Notice): string {
  const [first] = notice.alerts;
  if (notice.kind === 'test') return '[Seikyu] test';
  if (notice.kind === 'digest')
    return `[Seikyu] ${notice.alerts.length} open ${notice.alerts.length === 1 ? 'alert' : 'alerts'}`;
  const goesOn = notice.number > 1 ? ` (goes on, notice ${notice.number})` : '';
  return `[Seikyu] ${[first?.merchant, first?.cause].filter(Boolean).join(' ')}${goesOn}`;
}

export function textOf(notice: Notice): string {
  const told = notice.alerts.map(paragraphOf).join('\n\n');
  return `${told}\n\nEach stays open until it is acknowledged, or proven to be over: seikyu alerts\n`;
}

function paragraphOf(alert: AlertTold): string {
  const merchant = alert.merchant === '' ? '' : ` --merchant ${alert.merchant}`;
  return [
    `${alert.level.toUpperCase()}  ${[alert.merchant, alert.cause].filter(Boolean).join('  ')}`,
    `${alert.message}`,
    `What to do: ${alert.next.replaceAll('`', '')}.`,
    `${alert.occurrences} times, first ${alert.firstAt}, last ${alert.lastAt}`,
    `Seen to: seikyu alerts acknowledge "${alert.cause}"${merchant}`,
  ].join('\n');
}
