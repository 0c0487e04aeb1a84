import { createHmac } from 'node:crypto';
import type { Pool } from 'pg';
import { Agent, request } from 'undici';
import type { SimulatorClock } from './clock.ts';
import { dueWebhooks, recordDeliveries, type WebhookRow } from './queries.ts';

const ATTEMPTS_AT_MOST = 12;
const DELIVERED_AT_ONCE = 32;
const DEADLINE_MS = 5_000;
const POLL_MS = 250;

/** 0.5 s, 1 s, 2 s ... 5 min in real time: delivery is mechanics, the demo's clock may jump by weeks. */
const backOffMs = (attempts: number): number => Math.min(500 * 2 ** attempts, 300_000);

export interface WebhookDelivery {
  wake(): void;
  close(): Promise<void>;
}

export function signWebhook(secret: string, epochSeconds: number, body: string): string {
  const signature = createHmac('sha256', secret).update(`${epochSeconds}.${body}`).digest('hex');
  return `t=${epochSeconds},v1=${signature}`;
}

/** Sends what stands in the outbox, at least once, in no promised order. */
export function deliverWebhooks(options: {
  pool: Pool;
  clock: SimulatorClock;
  secret: string;
  /** `{account}` stands for the merchant's account. Null: nobody listens and the outbox only fills. */
  urlTemplate: string | null;
  onError: (error: unknown) => void;
}): WebhookDelivery {
  const { pool, clock, secret, urlTemplate } = options;
  if (urlTemplate === null) return { wake: () => undefined, close: async () => undefined };

  const agent = new Agent({ connections: DELIVERED_AT_ONCE });
  let closed = false;
  let running: Promise<void> | null = null;
  let again = false;

  async function post(webhook: WebhookRow, epochSeconds: number): Promise<boolean> {
    const body = JSON.stringify({
      id: webhook.id,
      account: webhook.account,
      reference: webhook.reference,
      kind: webhook.kind,
      created: webhook.createdAt.toISOString(),
    });
    const url = (urlTemplate as string).replaceAll('{account}', encodeURIComponent(webhook.account));
    try {
      const response = await request(url, {
        dispatcher: agent,
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          'simulator-signature': signWebhook(secret, epochSeconds, body),
        },
        body,
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
      await response.body.dump();
      return response.statusCode >= 200 && response.statusCode < 300;
    } catch {
      // Whatever went wrong on the line, the answer is the same: try again later.
      return false;
    }
  }

  async function deliver(webhook: WebhookRow, epochSeconds: number) {
    let received = true;
    for (let copy = 0; copy < webhook.copies; copy++)
      received = (await post(webhook, epochSeconds)) && received;
    const settled = received
      ? ('delivered' as const)
      : webhook.attempts + 1 >= ATTEMPTS_AT_MOST
        ? ('gave_up' as const)
        : null;
    return { id: webhook.id, settled, retryInMs: backOffMs(webhook.attempts) };
  }

  async function drain(): Promise<void> {
    do {
      again = false;
      for (;;) {
        const due = closed ? [] : await dueWebhooks(pool, DELIVERED_AT_ONCE);
        if (due.length === 0) break;
        const epochSeconds = Math.floor((await clock.now()) / 1000);
        await recordDeliveries(pool, await Promise.all(due.map((each) => deliver(each, epochSeconds))));
      }
    } while (again && !closed);
  }

  function wake(): void {
    if (closed) return;
    if (running !== null) {
      again = true;
      return;
    }
    running = drain()
      .catch(options.onError)
      .finally(() => {
        running = null;
      });
  }

  const timer = setInterval(wake, POLL_MS);
  timer.unref();
  return {
    wake,
    async close() {
      closed = true;
      clearInterval(timer);
      await running;
      await agent.destroy();
    },
  };
}
