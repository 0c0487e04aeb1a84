import { hkdfSync } from 'node:crypto';
import fs from 'node:fs';
import { hostname } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { mailSender } from '../billing/alerts/mail.ts';
import type { AlertSender } from '../billing/alerts/sender.ts';
import { webhookSender } from '../billing/alerts/webhook.ts';
import type { Carrier } from '../billing/carriers/carrier.ts';
import { outboxCarrier } from '../billing/carriers/outbox.ts';
import { openVirtualClock, systemClock, type VirtualClock } from '../billing/clock.ts';
import type { CrashPoint } from '../billing/crash-points.ts';
import { type Db, openDatabase } from '../billing/db.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { systemRandomness, timeOrderedIds } from '../billing/ids.ts';
import { stripeAccountOf } from '../billing/merchants/queries.ts';
import { migrateDatabase, migrationStatus } from '../billing/migrate.ts';
import type { Clock, Log } from '../billing/ports.ts';
import { Refusal } from '../billing/refusal.ts';
import { diedHere, ownerName } from '../billing/runs/run.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import { openDisk } from '../files/disk.ts';
import { openSftpStore } from '../files/sftp.ts';
import type { Ports } from '../jobs/ports.ts';
import type { Worker } from '../jobs/run.ts';
import { migrations } from '../migrations/index.ts';
import { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded/postgres.ts';
import { type SimulatorProcess, startSimulator } from './embedded/simulator.ts';
import { processLives } from './process-lives.ts';
import type { Settings, StripeSettings } from './settings.ts';
import { openWakeQueue, type WakeQueue } from './wake.ts';
import { keepWatch } from './watch.ts';

/** Everything that a command needs, opened once and closed in order. */
export interface System {
  settings: Settings;
  log: Log;
  db: Db;
  webDb: Db;
  ports: Ports;
  worker: Worker;
  /** Wakes workers, here and on other machines. */
  queue: WakeQueue;
  /** The demo's clock, where this database lives on one. */
  virtualClock: VirtualClock | null;
  /** Null where none is embedded. */
  embedded: EmbeddedPostgres | null;
  /** Starts (or joins) the gateway where none is configured; jobs that need it fail with a clear line otherwise. */
  needGateway(options?: { callDeadlineMs?: number; holdMs?: number }): Promise<Gateway>;
  gatewayOrigin(): string;
  /** Tells the gateway simulator how to behave: for the demo. */
  controlSimulator(settings: Record<string, unknown>): Promise<void>;
  close(): Promise<void>;
}

export interface OpenOptions {
  /** `db` commands look at the schema themselves. */
  schema?: 'current' | 'any';
  /** The demo lives on a clock of its own. */
  startVirtualAt?: string;
}

const applicationVersion = '0.1.0';

export async function openSystem(settings: Settings, log: Log, options: OpenOptions = {}): Promise<System> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    let embedded: EmbeddedPostgres | null = null;
    let urls: { jobs: string; web: string; simulator: string };
    if (settings.database.kind === 'embedded') {
      embedded = await startEmbeddedPostgres({ home: settings.home, log });
      closers.push(() => (embedded as EmbeddedPostgres).stop());
      urls = {
        jobs: embedded.urlFor('seikyu', 'seikyu'),
        web: embedded.urlFor('seikyu', 'seikyu_web_login'),
        simulator: embedded.urlFor('seikyu_gateway_simulator', 'seikyu_simulator'),
      };
    } else {
      urls = { jobs: settings.database.url, web: settings.database.webUrl, simulator: '' };
    }
    const onIdleError = (error: Error) => log.warn({ error: error.message }, 'a database connection broke');
    const db = openDatabase(urls.jobs, { applicationName: 'seikyu', poolMax: 12, onIdleError });
    closers.push(() => db.close());
    const webDb = openDatabase(urls.web, {
      applicationName: 'seikyu-web',
      poolMax: 12,
      onIdleError,
      prepare: true,
    });
    closers.push(() => webDb.close());
    if (options.schema !== 'any') await bringSchemaUp(db, settings, log);
    const queue = openWakeQueue(urls.jobs, log);
    closers.push(() => queue.close());

    const virtual = options.schema === 'any' ? null : await openVirtualClock(db, options.startVirtualAt);
    const clock: Clock = virtual ?? systemClock();
    await clock.refresh();
    const randomness = systemRandomness();
    const ids = timeOrderedIds(clock, randomness);
    const sealer = makeSealer(deriveKeys(settings.secret), randomness);
    const alertSenders = openAlertSenders(settings);
    for (const sender of alertSenders) closers.push(() => sender.close());
    const { carrier, closeCarrier } = await openCarrier(settings, { db, clock, sealer });
    closers.push(closeCarrier);
    const host = hostname();
    let gateway: Gateway | undefined;
    let gatewayUrl: string | undefined;
    let simulator: SimulatorProcess | undefined;
    const openStripe = async (stripe: StripeSettings): Promise<Gateway> => {
      if (virtual !== null) {
        throw new Refusal(
          'GATEWAY_ON_DEMO_CLOCK',
          'the demo’s data live on a clock that no real gateway knows',
          {
            next: 'Unset SEIKYU_GATEWAY for the demo’s data, or set SEIKYU_HOME to a new directory.',
            exitCode: 2,
          },
        );
      }
      // Only who uses it waits for it: the SDK takes a good part of a second to load.
      const { stripeGateway } = await import('../billing/gateways/stripe.ts');
      const opened = stripeGateway({
        secretKey: stripe.secretKey,
        webhookSecrets: stripe.webhookSecrets,
        baseUrl: stripe.baseUrl ?? null,
        accountOf: (code) => stripeAccountOf(db, code),
        nowMs: () => clock.now().epochMilliseconds,
      });
      closers.push(() => opened.close());
      ports.gateway = opened;
      gateway = opened;
      return opened;
    };
    const needGateway: System['needGateway'] = async (gatewayOptions = {}) => {
      if (gateway) return gateway;
      if (settings.stripe !== undefined) return openStripe(settings.stripe);
      const secret = simulatorSecret(settings.secret);
      if (settings.simulatorUrl === undefined) {
        if (!embedded) {
          throw new Refusal('GATEWAY_NOT_CONFIGURED', 'no payment gateway is configured', {
            next: 'Set SEIKYU_GATEWAY=stripe and its keys, or SIMULATOR_URL to a running gateway simulator.',
            exitCode: 2,
          });
        }
        simulator = await startSimulator({
          home: settings.home,
          databaseUrl: urls.simulator,
          clockUrl: urls.web,
          secret,
          webhookUrl: `http://127.0.0.1:${settings.port}/webhooks/simulator/{account}`,
          ...(gatewayOptions.holdMs === undefined ? {} : { holdMs: gatewayOptions.holdMs }),
        });
        closers.push(() => (simulator as SimulatorProcess).stop());
      }
      gatewayUrl = settings.simulatorUrl ?? simulator?.url ?? '';
      const opened = simulatorGateway({
        baseUrl: gatewayUrl,
        apiKey: secret,
        webhookSecret: secret,
        connections: 64,
        ...(gatewayOptions.callDeadlineMs === undefined
          ? {}
          : { callDeadlineMs: gatewayOptions.callDeadlineMs }),
      });
      closers.push(() => opened.close());
      gateway = opened;
      ports.gateway = opened;
      return opened;
    };

    const ports: Ports = {
      db,
      clock,
      ids,
      randomness,
      crash: crashFrom(settings.crashAt),
      log,
      disk: openDisk(ids),
      sealer,
      gateway: unopenedGateway,
      carrier,
      alertSenders,
      openStore: openSftpStore({ clock }),
      wake: queue.wake,
      archiveFolder: join(settings.home, 'archive'),
      readKeyFile: async (path) => readKeyFile(isAbsolute(path) ? path : join(settings.home, path)),
      baseUrl: settings.baseUrl,
    };
    const owner = ownerName(host, process.pid, ids.uuid().slice(-12));
    if (options.schema !== 'any') {
      closers.push(await keepWatch(settings.home, ports.disk, log, { db, clock, ids, owner }));
    }
    return {
      settings,
      log,
      db,
      webDb,
      ports,
      worker: {
        owner,
        isDead: (owner) => diedHere(owner, host, processLives),
        codeVersion: applicationVersion,
      },
      queue,
      virtualClock: virtual,
      embedded,
      needGateway,
      async controlSimulator(wanted) {
        const answer = await fetch(`${gatewayUrl}/control`, {
          method: 'POST',
          headers: {
            'content-type': 'application/json',
            authorization: `Bearer ${simulatorSecret(settings.secret)}`,
          },
          body: JSON.stringify(wanted),
          signal: AbortSignal.timeout(5_000),
        });
        if (!answer.ok) throw new Error(`the simulator refused to be told: ${answer.status}`);
      },
      gatewayOrigin: () =>
        settings.stripe === undefined
          ? new URL(gatewayUrl ?? settings.simulatorUrl ?? 'http://127.0.0.1').origin
          : new URL(settings.stripe.baseUrl ?? 'https://checkout.stripe.com').origin,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The embedded database belongs to this program: its schema follows by itself. Any other is migrated by its operator. */
async function bringSchemaUp(db: Db, settings: Settings, log: Log): Promise<void> {
  if (settings.database.kind === 'embedded') {
    await migrateDatabase(db, migrations, { log });
    return;
  }
  const status = await migrationStatus(db, migrations);
  if (status.pending.length > 0 || status.unknown.length > 0) {
    throw new Refusal('SCHEMA_DIFFERS', 'the database has another schema than this program', {
      next: 'Look with: seikyu db status. Bring it up with: seikyu db migrate',
      context: { pending: status.pending.length, unknown: status.unknown.length },
    });
  }
}

async function openCarrier(
  { twilio, baseUrl }: Settings,
  ports: Pick<Ports, 'db' | 'clock' | 'sealer'>,
): Promise<{ carrier: Carrier; closeCarrier: () => Promise<void> }> {
  if (twilio === undefined) return { carrier: outboxCarrier(ports), closeCarrier: async () => undefined };
  // Its SDK takes a third of a second to load: only where it is used.
  const { twilioCarrier } = await import('../billing/carriers/twilio.ts');
  const carrier = twilioCarrier({ ...twilio, baseUrl });
  return { carrier, closeCarrier: () => carrier.close() };
}

function openAlertSenders({ alertWebhook, alertMail }: Settings): AlertSender[] {
  const senders: AlertSender[] = [];
  // A receiver checks the signature's age against the real time, also where a demo's clock stands elsewhere.
  const real = systemClock();
  const nowMs = () => real.now().epochMilliseconds;
  if (alertWebhook !== undefined) senders.push(webhookSender({ ...alertWebhook, nowMs }));
  if (alertMail !== undefined) senders.push(mailSender(alertMail));
  return senders;
}

/** The gateway's API key follows from the one secret, so that a demo needs no second one. */
export function simulatorSecret(secret: string): string {
  return Buffer.from(hkdfSync('sha256', secret, 'seikyu', 'gateway-simulator', 24)).toString('hex');
}

async function readKeyFile(path: string): Promise<string> {
  try {
    return await fs.promises.readFile(path, 'utf8');
  } catch (cause) {
    throw new Refusal('SFTP_KEY_MISSING', `the private key ${path} cannot be read`, {
      next: 'Put the key there with mode 0600; the path in the merchant’s settings is relative to SEIKYU_HOME.',
      exitCode: 2,
      cause,
    });
  }
}

/** For tests alone: SEIKYU_CRASH_AT=charge.after_intent ends the process there, as a power cut would. */
function crashFrom(point: CrashPoint | undefined): (at: CrashPoint) => Promise<void> {
  if (!point) return async () => undefined;
  return async (at) => {
    if (at === point) process.kill(process.pid, 'SIGKILL');
  };
}

const unopenedGateway: Gateway = new Proxy({} as Gateway, {
  get(_target, property) {
    throw new Error(`impossible state: the gateway was used (${String(property)}) before it was opened`);
  },
});
