import { createHmac } from 'node:crypto';
import { Agent, request } from 'undici';
import type { AlertSender, SendAnswer } from './sender.ts';

export interface WebhookOptions {
  url: string;
  /** Shared with the receiver, which proves the signature with it. */
  secret: string;
  /** Milliseconds since 1970, for the signature's time. */
  nowMs: () => number;
  callDeadlineMs?: number;
}

const answerBytesAtMost = 65_536;

/** `t=<unix seconds>,v1=<hex>`: HMAC-SHA256 of `<t>.<body>`, so that an old notice cannot be sent again as news. */
export function signatureOf(secret: string, body: string, unixSeconds: number): string {
  const mac = createHmac('sha256', secret).update(`${unixSeconds}.${body}`).digest('hex');
  return `t=${unixSeconds},v1=${mac}`;
}

/** Posts notices as JSON. Any answer of the 2xx counts as taken; redirects are not followed. */
export function webhookSender(options: WebhookOptions): AlertSender {
  const agent = new Agent({ connections: 2, keepAliveTimeout: 4_000, connect: { timeout: 5_000 } });
  return {
    channel: 'webhook',
    callDeadlineMs: options.callDeadlineMs ?? 10_000,

    async send(notice, signal): Promise<SendAnswer> {
      const body = JSON.stringify(notice);
      const at = Math.floor(options.nowMs() / 1000);
      try {
        const answer = await request(options.url, {
          method: 'POST',
          dispatcher: agent,
          signal,
          body,
          headers: {
            'content-type': 'application/json; charset=utf-8',
            'idempotency-key': notice.id,
            'seikyu-signature': signatureOf(options.secret, body, at),
          },
        });
        const { statusCode } = answer;
        // The status has said it all; a body that never ends must not take the answer back.
        await answer.body.dump({ limit: answerBytesAtMost, signal }).catch(() => answer.body.destroy());
        return statusCode >= 200 && statusCode < 300
          ? { kind: 'accepted' }
          : { kind: 'not_accepted', why: `status ${statusCode}` };
      } catch (error) {
        return { kind: 'not_accepted', why: codeOf(error) };
      }
    },

    close: () => agent.destroy(),
  };
}

function codeOf(error: unknown): string {
  const { code, name } = error as { code?: unknown; name?: unknown };
  return typeof code === 'string' ? code : String(name);
}
