import type { FastifyInstance } from 'fastify';
import { handleWebhooks } from '../billing/webhooks/handle.ts';
import { receiveWebhook } from '../billing/webhooks/receive.ts';
import { paths } from './paths.ts';
import type { WebContext } from './ports.ts';

const webhookBytesAtMost = 65_536;

/** Resolves when all that was acknowledged is handled. */
export type Drained = () => Promise<void>;

/** Own instance: the signature covers the raw bytes, so no body parser may touch them. */
export async function webhookRoutes(app: FastifyInstance, context: WebContext): Promise<Drained> {
  const { db, ports } = context;
  const underWay = new Set<Promise<void>>();
  await app.register(async (raw) => {
    raw.removeAllContentTypeParsers();
    raw.addContentTypeParser(
      '*',
      { parseAs: 'buffer', bodyLimit: webhookBytesAtMost },
      (_request, body, done) => done(null, body),
    );
    raw.post<{ Params: { gateway: string; merchant: string }; Body: unknown }>(
      paths.webhook.pattern,
      { bodyLimit: webhookBytesAtMost },
      async (request, reply) => {
        const received = await receiveWebhook(db, ports, {
          gateway: request.params.gateway,
          merchantCode: request.params.merchant,
          rawBody: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0),
          headers: Object.fromEntries(
            Object.entries(request.headers).map(([name, value]) => [
              name,
              Array.isArray(value) ? value.join(',') : value,
            ]),
          ),
        });
        if (received.kind === 'refused') {
          ports.log.warn({ gateway: context.ports.gateway.name }, 'a webhook was refused');
          return reply.code(400).send({ error: 'refused' });
        }
        if (received.kind === 'not_ours') return { received: true };
        await ports.crash('webhook.after_inbox');
        const { event, merchant } = received;
        if (event !== null) {
          // Not awaited: the gateway has its answer as soon as the event is safe. What fails here waits for trace.
          const handling: Promise<void> = handleWebhooks(db, ports, merchant, [event])
            .then(() => undefined)
            .catch((error: unknown) =>
              ports.log.error({ merchant: merchant.code, error }, 'a webhook stays in the inbox'),
            )
            .finally(() => underWay.delete(handling));
          underWay.add(handling);
        }
        return { received: true };
      },
    );
  });
  return async () => {
    while (underWay.size > 0) await Promise.all(underWay);
  };
}
