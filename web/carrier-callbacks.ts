import type { FastifyInstance, FastifyRequest } from 'fastify';
import { merchantIdOf } from '../billing/checkout/queries.ts';
import { handleCallbacks } from '../billing/sms-callbacks/handle.ts';
import type { StatusNews } from '../billing/sms-callbacks/queries.ts';
import { readCallback, storeNews, storeOptOut } from '../billing/sms-callbacks/receive.ts';
import { gather } from './gather.ts';
import { paths } from './paths.ts';
import type { WebContext } from './ports.ts';
import type { Drained } from './webhooks.ts';

const callbackBytesAtMost = 65_536;

interface Merchant {
  store(news: StatusNews): Promise<boolean>;
  handle(): void;
}

/**
 * Where an SMS carrier tells what became of messages, and what customers answer. An answer of 200 says that the news is safe
 * with us; it is handled after that. With three calls for each SMS of a morning, they are stored and handled many at a time.
 */
export async function callbackRoutes(app: FastifyInstance, context: WebContext): Promise<Drained> {
  const { db, ports } = context;
  const { carrier } = ports;
  if (carrier.readCallback === undefined) return async () => undefined;
  const merchants = new Map<string, Merchant>();
  const underWay = new Set<Promise<void>>();

  function merchantOf(code: string): Merchant {
    const known = merchants.get(code);
    if (known !== undefined) return known;
    const handleAll = gather<null, void>(async () => {
      const merchantId = await merchantIdOf(db, { code });
      if (merchantId !== undefined) await handleCallbacks(db, ports, merchantId);
    });
    const merchant: Merchant = {
      store: gather((news) => storeNews(db, ports, code, news)),
      handle() {
        // Not awaited: what fails here waits for trace.
        const handling: Promise<void> = handleAll(null)
          .catch((error: unknown) =>
            ports.log.error({ merchant: code, error }, 'news of SMS stay in the inbox'),
          )
          .finally(() => underWay.delete(handling));
        underWay.add(handling);
      },
    };
    merchants.set(code, merchant);
    return merchant;
  }

  const newsOf = (request: FastifyRequest) =>
    readCallback(ports, {
      // The configured address and not what a proxy made of it: that is what was signed.
      url: `${context.baseUrl}${request.raw.url ?? ''}`,
      rawBody: Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0),
      headers: Object.fromEntries(
        Object.entries(request.headers).map(([name, value]) => [
          name,
          Array.isArray(value) ? value[0] : value,
        ]),
      ),
    });

  await app.register(async (raw) => {
    raw.removeAllContentTypeParsers();
    raw.addContentTypeParser(
      '*',
      { parseAs: 'buffer', bodyLimit: callbackBytesAtMost },
      (_request, body, done) => done(null, body),
    );
    const options = { bodyLimit: callbackBytesAtMost };

    raw.post<{ Params: { merchant: string } }>(
      paths.smsStatus.of(carrier.name, ':merchant'),
      options,
      async (request, reply) => {
        const news = newsOf(request);
        if (news?.kind === 'nothing') return reply.code(204).send();
        const merchant = news?.kind === 'status' ? merchantOf(request.params.merchant) : null;
        if (news?.kind !== 'status' || merchant === null || !(await merchant.store(news))) {
          ports.log.warn({ carrier: carrier.name }, 'news of an SMS were refused');
          return reply.code(400).send({ error: 'refused' });
        }
        await ports.crash('webhook.after_inbox');
        merchant.handle();
        return reply.code(204).send();
      },
    );

    raw.post(paths.smsAnswer.of(carrier.name), options, async (request, reply) => {
      const news = newsOf(request);
      if (news === null || news.kind === 'status') {
        ports.log.warn({ carrier: carrier.name }, 'an answer to an SMS was refused');
        return reply.code(400).send({ error: 'refused' });
      }
      if (news.kind !== 'nothing') await storeOptOut(db, ports, news);
      return reply.code(204).send();
    });
  });
  return async () => {
    while (underWay.size > 0) await Promise.all(underWay);
  };
}
