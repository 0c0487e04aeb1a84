import fastify from 'fastify';
import { Temporal } from 'temporal-polyfill';
import { openAlerts } from '../billing/alerts/queries.ts';
import { readOutbox } from '../billing/carriers/outbox.ts';
import type { Db } from '../billing/db.ts';
import { listMerchants } from '../billing/merchants/queries.ts';
import { parkedItems } from '../billing/parked/queries.ts';
import type { Clock, Log } from '../billing/ports.ts';
import { recentPasses } from '../billing/runs/queries.ts';
import type { Sealer } from '../billing/sealing.ts';
import { tracersOf } from '../billing/trace/watch.ts';
import { html, secureHeaders } from './headers.ts';
import { listen } from './listen.ts';
import { operatorStyle, outboxPage, statusPage } from './pages/operators.tsx';
import { adminPaths } from './paths.ts';

export interface AdminOptions {
  /** The jobs' role: operators see all merchants. */
  db: Db;
  ports: { clock: Clock; sealer: Sealer; log: Log };
  /** 0 = any free port. */
  port: number;
  /** Loopback unless said otherwise: these pages show SMS and have no password of their own. */
  host?: string;
}

export interface AdminServer {
  url: string;
  port: number;
  close(): Promise<void>;
}

const passesShown = 60;
const messagesShown = 200;
const loopback = new Set(['127.0.0.1', 'localhost', '::1']);

/** Starts the operators' own pages: what ran, what waits, what the outbox carrier holds. They change nothing. */
export async function startAdmin(options: AdminOptions): Promise<AdminServer> {
  const { db, ports } = options;
  const host = options.host ?? '127.0.0.1';
  const headers = secureHeaders({ gatewayOrigins: [], isSecure: false });
  const app = fastify({ logger: false, forceCloseConnections: true });

  app.addHook('onRequest', async (request, reply) => {
    reply.headers(headers);
    // A name that some web page made point here (DNS rebinding) is not how an operator comes in.
    const asked = `http://${request.headers.host ?? ''}`;
    const name = URL.canParse(asked) ? new URL(asked).hostname.replace(/^\[|\]$/g, '') : '';
    if (loopback.has(host) && !loopback.has(name)) {
      return reply.code(403).send({ error: 'wrong host' });
    }
    await ports.clock.refresh();
  });
  app.setErrorHandler((error, request, reply) => {
    ports.log.error({ route: request.routeOptions.url ?? 'none', error }, 'an operators’ page failed');
    return reply.code(500).type('text/plain; charset=utf-8').send('This page failed; the log says why.');
  });

  app.get(adminPaths.style, (_request, reply) => reply.type('text/css; charset=utf-8').send(operatorStyle));
  app.get(adminPaths.health, async (_request, reply) => {
    const trace = await tracersOf({ db, clock: ports.clock });
    const ok = trace.every(({ isSilent }) => !isSilent);
    return reply.code(ok ? 200 : 503).send({ ok, trace });
  });
  app.get(adminPaths.status, async (_request, reply) => {
    const merchants = await listMerchants(db);
    return html(
      reply,
      200,
      statusPage({
        now: shownIn(merchants[0]?.settings.timezone)(ports.clock.now().toString()),
        at: shownIn(merchants[0]?.settings.timezone),
        merchants,
        passes: await recentPasses(db, { merchant: null, job: null, businessDate: null, limit: passesShown }),
        parked: await parkedItems(db),
        alerts: await openAlerts(db),
        tracers: await tracersOf({ db, clock: ports.clock }),
      }),
    );
  });
  app.get(adminPaths.outbox, async (_request, reply) => {
    const [merchant] = await listMerchants(db);
    const at = shownIn(merchant?.settings.timezone);
    return html(
      reply,
      200,
      outboxPage({
        now: at(ports.clock.now().toString()),
        at,
        messages: await readOutbox(db, ports.sealer, { limit: messagesShown }),
      }),
    );
  });

  const port = await listen(app, { host, port: options.port, setting: 'ADMIN_PORT' });
  return { url: `http://${host}:${port}`, port, close: () => app.close() };
}

/** `2026-11-26 10:00` where the first merchant lives. */
function shownIn(timezone: string | undefined): (instant: string) => string {
  return (instant) =>
    Temporal.Instant.from(instant)
      .toZonedDateTimeISO(timezone ?? 'UTC')
      .toPlainDateTime()
      .toString({ smallestUnit: 'minute' })
      .replace('T', ' ');
}
