import cookie from '@fastify/cookie';
import formbody from '@fastify/formbody';
import fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify';
import { logoOf } from '../billing/checkout/queries.ts';
import type { Db } from '../billing/db.ts';
import { brandStyle, isColor } from './brand.ts';
import { cardRoutes } from './card.ts';
import { callbackRoutes } from './carrier-callbacks.ts';
import { html, secureHeaders } from './headers.ts';
import { listen } from './listen.ts';
import { isInside } from './network.ts';
import { statePage } from './pages/state.tsx';
import { paths } from './paths.ts';
import { payRoutes } from './pay.ts';
import type { WebContext, WebPorts } from './ports.ts';
import { style, styleVersion } from './style.ts';
import { languageFor } from './texts.ts';
import { wayOutRoutes } from './way-out.ts';
import { webhookRoutes } from './webhooks.ts';

declare module 'fastify' {
  interface FastifyRequest {
    startedMs: number;
  }
}

export interface WebOptions {
  /** As the login role under row security. */
  webDb: Db;
  ports: WebPorts;
  /** What pay links start with; behind a proxy the proxy's address. */
  baseUrl: string;
  /** 0 = any free port. */
  port: number;
  host?: string;
  /** Origins of the gateway's own pages, e.g. `https://checkout.stripe.com`: forms may lead there and nowhere else. */
  gatewayOrigins: readonly string[];
}

export interface WebServer {
  url: string;
  port: number;
  /** Ends when what was acknowledged is handled. */
  close(): Promise<void>;
  /** Resolves when no webhook is being handled. */
  settled(): Promise<void>;
}

const formBytesAtMost = 4_096;
const requestTimeoutMs = 20_000;
const busySeconds = 30;
const keptForGood = 'public, max-age=31536000, immutable';

/** Connections broken or all taken, a server that stops or starts, a lock or statement that took too long. */
const passing = /^(08...|40001|40P01|53...|55P03|57...|ECONN\w+|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN)$/;

/** Whether the database will be there again in a moment; anything else is a fault of ours. */
function isPassing(error: Error & { code?: unknown; cause?: unknown }): boolean {
  if (typeof error.code === 'string' && passing.test(error.code)) return true;
  if (error.name === 'KnexTimeoutError' || /Connection terminated|timeout expired/.test(error.message))
    return true;
  return error.cause instanceof Error && isPassing(error.cause);
}

/** Starts the public server: pay pages and webhooks. */
export async function startWeb(options: WebOptions): Promise<WebServer> {
  const baseUrl = options.baseUrl.replace(/\/+$/, '');
  const context: WebContext = {
    db: options.webDb,
    ports: options.ports,
    baseUrl,
    isSecure: baseUrl.startsWith('https:'),
    gatewayOrigins: options.gatewayOrigins.map((address) => new URL(address).origin),
  };
  const { log, clock } = options.ports;
  const headers = secureHeaders(context);

  const app = fastify({
    // Its log would hold addresses, and with them tokens.
    logger: false,
    bodyLimit: formBytesAtMost,
    requestTimeout: requestTimeoutMs,
    forceCloseConnections: true,
    // Whoever stands between us and the internet says where a visitor comes from; nobody else is believed.
    trustProxy: isInside,
    routerOptions: { maxParamLength: 700 },
    // An address that is no address: the default answer would repeat it.
    frameworkErrors: (_error, request, reply) => {
      reply.headers(headers);
      html(reply as FastifyReply, 404, messagePage(request as FastifyRequest, 'unknown'));
    },
  });
  await app.register(cookie);
  await app.register(formbody, { bodyLimit: formBytesAtMost });

  app.decorateRequest('startedMs', 0);
  app.addHook('onRequest', async (request, reply) => {
    request.startedMs = clock.elapsedMs();
    reply.headers(headers);
    await clock.refresh();
  });
  app.addHook('onResponse', (request, reply, done) => {
    log.info(
      {
        method: request.method,
        // The pattern, never the address.
        route: request.routeOptions.url ?? 'none',
        status: reply.statusCode,
        durationMs: Math.round(clock.elapsedMs() - request.startedMs),
      },
      'request',
    );
    done();
  });
  app.setNotFoundHandler((request, reply) => html(reply, 404, messagePage(request, 'unknown')));
  app.setErrorHandler((error: FastifyError, request, reply) => {
    if (error.statusCode !== undefined && error.statusCode < 500) {
      return html(reply, error.statusCode, messagePage(request, 'unknown'));
    }
    log.error({ route: request.routeOptions.url ?? 'none', error }, 'a request failed');
    if (!isPassing(error)) return html(reply, 500, messagePage(request, 'error'));
    reply.header('retry-after', String(busySeconds));
    return html(reply, 503, messagePage(request, 'busy'));
  });

  app.get(paths.health.pattern, async () => {
    await options.webDb.query('select 1');
    return { ok: true };
  });
  app.get(paths.favicon.pattern, (_request, reply) => reply.code(204).send());
  app.get<{ Params: { version: string } }>(paths.style.pattern, (request, reply) =>
    request.params.version === styleVersion ? css(reply, style) : reply.callNotFound(),
  );
  app.get<{ Params: { color: string } }>(paths.brand.pattern, (request, reply) =>
    isColor(request.params.color) ? css(reply, brandStyle(request.params.color)) : reply.callNotFound(),
  );
  app.get<{ Params: { merchant: string; version: string } }>(paths.logo.pattern, async (request, reply) => {
    const { merchant, version } = request.params;
    const logo = /^\d{1,9}$/.test(version) ? await logoOf(options.webDb, merchant, Number(version)) : null;
    if (logo === null) return reply.callNotFound();
    return reply.header('cache-control', keptForGood).type('image/svg+xml; charset=utf-8').send(logo);
  });
  payRoutes(app, context);
  wayOutRoutes(app, context);
  cardRoutes(app, context);
  const drained = [await webhookRoutes(app, context), await callbackRoutes(app, context)];
  const settled = async () => {
    for (const each of drained) await each();
  };

  const host = options.host ?? '127.0.0.1';
  const port = await listen(app, { host, port: options.port, setting: 'PORT' });
  return {
    url: `http://${host}:${port}`,
    port,
    settled,
    async close() {
      await app.close();
      await settled();
    },
  };
}

function messagePage(request: FastifyRequest, state: 'unknown' | 'busy' | 'error'): string {
  return statePage({
    state,
    language: languageFor(request.headers?.['accept-language'], ['ja', 'en']),
    merchant: null,
  });
}

function css(reply: FastifyReply, content: string): FastifyReply {
  return reply.header('cache-control', keptForGood).type('text/css; charset=utf-8').send(content);
}
