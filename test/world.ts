import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { Temporal } from 'temporal-polyfill';
import type { Act } from '../billing/acts/act.ts';
import { recordAct } from '../billing/acts/queries.ts';
import type { Carrier } from '../billing/carriers/carrier.ts';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import type { CrashPoint } from '../billing/crash-points.ts';
import { sealContact } from '../billing/customers/contact.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { simulatorGateway } from '../billing/gateways/simulator.ts';
import { seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import { post } from '../billing/ledger/queries.ts';
import { insertLinks } from '../billing/links/queries.ts';
import { linkTokenOf, tokenHashOf } from '../billing/links/token.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { type MerchantSettings, parseMerchantSettings } from '../billing/merchants/settings.ts';
import type { Ids, Log, Randomness } from '../billing/ports.ts';
import { deriveKeys, makeSealer, type Sealer } from '../billing/sealing.ts';
import { type GatewaySimulator, startGatewaySimulator } from '../cli/demo/gateway-simulator/server.ts';
import { signWebhook } from '../cli/demo/gateway-simulator/webhooks.ts';
import { layoutBeside } from '../cli/layout-file.ts';
import { includedTax } from '../files/standard/validate.ts';
import { startWeb, type WebServer } from '../web/server.ts';
import { type TestDatabase, testDatabase } from './database.ts';

/** A morning on which bills are out, at 10:00 in Japan. */
export const morning = '2026-11-26T01:00:00Z';

const samples = join(import.meta.dirname, '../cli/demo/samples');
const secret = 'a secret of tests, of at least 32 characters';

export interface BillOptions {
  amount?: number;
  customerNumber?: string;
  customerName?: string;
  phone?: string | null;
  description?: string;
  billingPeriod?: string;
  dueOn?: string;
  businessDate?: string;
  linkExpiresOn?: string;
  taxLines?: { description: string; rate: number; taxable: number; tax: number }[];
}

export interface Bill {
  invoiceId: string;
  customerId: string;
  customerNumber: string;
  billingNumber: string;
  amount: number;
  token: string;
}

export interface LogLine {
  level: string;
  fields: Record<string, unknown>;
  message: string;
}

/**
 * A small world on a real database: merchants by their real settings, a released file, bills with links, the gateway
 * simulator in this process. The clock stands still; webhooks are delivered by hand.
 */
export interface World extends TestDatabase {
  clock: FixedClock;
  ids: Ids;
  randomness: Randomness;
  sealer: Sealer;
  gateway: Gateway;
  simulator: GatewaySimulator;
  log: Log;
  logged: LogLine[];
  /** What the pay page and webhooks are handed. */
  ports: {
    clock: FixedClock;
    ids: Ids;
    randomness: Randomness;
    sealer: Sealer;
    gateway: Gateway;
    log: Log;
    crash: (point: CrashPoint) => Promise<void>;
    carrier: Pick<Carrier, 'name' | 'readCallback'>;
  };
  /** The next arrival at this point throws, as if the process died there. */
  crashAt(point: CrashPoint): void;
  /** Applies a sample merchant, once. `change` makes another one of it. */
  merchant(sample?: string, change?: (settings: MerchantSettings) => MerchantSettings): Promise<Merchant>;
  /** A bill of a released file, owed, with an agenda row and one link. */
  bill(merchant: Merchant, options?: BillOptions): Promise<Bill>;
  /** Pays on the gateway's page as a browser would; `threeDs` answers the challenge. Returns where it sends the customer. */
  payOnPage(pageUrl: string, pan: string, threeDs?: 'succeed' | 'fail'): Promise<string>;
  /** A webhook as the simulator signs it. */
  signedWebhook(event: { id: string; account: string; reference: string; kind: string }): {
    body: string;
    signature: string;
  };
}

export class Crashed extends Error {}

export async function world(): Promise<World> {
  const database = await testDatabase();
  const clock = fixedClock(morning);
  const randomness = seededRandomness('world');
  const ids = timeOrderedIds(clock, randomness);
  const sealer = makeSealer(deriveKeys(secret), randomness);
  const simulator = await startGatewaySimulator({
    databaseUrl: database.url,
    secret,
    now: () => clock.now().epochMilliseconds,
    holdMs: 500,
  });
  const gateway = simulatorGateway({
    baseUrl: simulator.url,
    apiKey: secret,
    webhookSecret: secret,
    callDeadlineMs: 5_000,
  });
  const logged: LogLine[] = [];
  const logAt = (level: string) => (fields: Record<string, unknown>, message: string) => {
    logged.push({ level, fields, message });
  };
  const log: Log = { debug: logAt('debug'), info: logAt('info'), warn: logAt('warn'), error: logAt('error') };
  let crashing: CrashPoint | null = null;
  const crash = async (point: CrashPoint) => {
    if (crashing !== point) return;
    crashing = null;
    throw new Crashed(point);
  };
  let made = 0;
  const fileOf = new Map<number, string>();

  async function releasedFile(merchant: Merchant, businessDate: string): Promise<string> {
    const known = fileOf.get(merchant.id);
    if (known) return known;
    const id = ids.uuid();
    await database.db.run(
      `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path,
                                  layout, settings_version, state, business_date, sequence, lines_read,
                                  lines_accepted, lines_rejected, fetched_on, fetched_at, removed_at, settled_at)
       values ($1, $2::uuid, 'billing.csv', 'billing', $3, 1, true, 'none', 'standard/1', $4, 'released', $5::date, 1,
               1, 1, 0, $5::date, $6::timestamptz, $6::timestamptz, $6::timestamptz)`,
      [merchant.id, id, `hash of ${id}`, merchant.settingsVersion, businessDate, clock.now()],
    );
    fileOf.set(merchant.id, id);
    return id;
  }

  return {
    ...database,
    clock,
    ids,
    randomness,
    sealer,
    gateway,
    simulator,
    log,
    logged,
    ports: { clock, ids, randomness, sealer, gateway, log, crash, carrier: { name: 'none' } },
    crashAt(point) {
      crashing = point;
    },

    async merchant(sample = 'minato-gas', change = (settings) => settings) {
      const yaml = readFileSync(join(samples, sample, 'merchant.yaml'), 'utf8');
      const { settings } = parseMerchantSettings(yaml, {
        path: sample,
        readable: () => 'ok',
        layout: layoutBeside(join(samples, sample)),
      });
      const changed = change(settings);
      await applyMerchant({ db: database.db, clock, ids }, changed, 'test');
      return merchantByCode(database.db, changed.code);
    },

    async bill(merchant, options = {}) {
      made += 1;
      const number = String(made).padStart(5, '0');
      const amount = options.amount ?? 4_980;
      const businessDate = options.businessDate ?? '2026-11-25';
      const customerNumber = options.customerNumber ?? `C-1000${number}`;
      const fileId = await releasedFile(merchant, businessDate);
      const [customerId, invoiceId] = [ids.uuid(), ids.uuid()];
      const contact = sealContact(sealer, merchant.id, customerNumber, {
        name: options.customerName ?? '山田 花子',
        phone: options.phone === undefined ? '+819012345678' : options.phone,
        email: null,
      });
      const billingNumber = `B-${number}`;
      const now = clock.now();
      const taxLines = options.taxLines ?? [
        {
          description: '',
          rate: 10,
          taxable: amount - includedTax(amount, 10),
          tax: includedTax(amount, 10),
        },
      ];
      const act: Act = { merchantId: merchant.id, id: ids.uuid(), kind: 'job', actor: 'test', at: now };
      const token = linkTokenOf(sealer, merchant, invoiceId, 1, sealer.keyId);
      await database.db.transaction(async (tx) => {
        await recordAct(tx, act);
        await tx.run(
          `insert into customers (merchant_id, id, customer_number, contact_version, created_at)
           values ($1, $2::uuid, $3, 1, $4::timestamptz)`,
          [merchant.id, customerId, customerNumber, now],
        );
        await tx.run(
          `insert into contracts (merchant_id, id, customer_id, contract_number) values ($1, $2::uuid, $2::uuid, '')`,
          [merchant.id, customerId],
        );
        await tx.run(
          `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest,
                                 phone_kind, business_date, sequence, created_at)
           values ($1, $2::uuid, 1, $3, $4, $5, $6, $7, $8, $9::date, 1, $10::timestamptz)`,
          [
            merchant.id,
            customerId,
            contact.sealed,
            sealer.keyId,
            contact.digest,
            contact.nameDigest,
            contact.phoneDigest,
            contact.phoneDigest === null ? 'none' : 'mobile',
            businessDate,
            now,
          ],
        );
        await tx.run(
          `insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id,
                                 contract_id, contact_version, amount, currency, billing_period, due_on, business_date,
                                 collection, description, layout, settings_version, state, version, created_at)
           values ($1, $2::uuid, $3::uuid, $4::int, $5, $4::int, $6::uuid, $6::uuid, 1, $7, 'JPY', $8, $9::date, $10::date,
                   'link', $11, 'standard/1', $12, 'open', 1, $13::timestamptz)`,
          [
            merchant.id,
            invoiceId,
            fileId,
            made,
            billingNumber,
            customerId,
            amount,
            options.billingPeriod ?? '2026-11',
            options.dueOn ?? '2026-12-10',
            businessDate,
            options.description ?? 'ガス料金 11月分',
            merchant.settingsVersion,
            now,
          ],
        );
        await tx.run(
          `insert into invoice_tax_lines (merchant_id, invoice_id, line_no, description, tax_rate, taxable_amount,
                                          tax_amount, issuer_registration_number)
           select $1, $2::uuid, t.no, t.description, t.rate, t.taxable, t.tax, $3
           from unnest($4::smallint[], $5::text[], $6::smallint[], $7::bigint[], $8::bigint[])
             as t(no, description, rate, taxable, tax)`,
          [
            merchant.id,
            invoiceId,
            merchant.settings.registrationNumber,
            taxLines.map((_, index) => index + 1),
            taxLines.map((line) => line.description),
            taxLines.map((line) => line.rate),
            taxLines.map((line) => line.taxable),
            taxLines.map((line) => line.tax),
          ],
        );
        await tx.run(
          `insert into agenda (merchant_id, invoice_id, act, act_on) values ($1, $2::uuid, 'dun', '2026-12-07')`,
          [merchant.id, invoiceId],
        );
        await post(tx, act, businessDate, [
          {
            event: 'bill_released',
            entryId: invoiceId,
            invoiceId,
            customerId,
            amount,
            currency: 'JPY',
            eventOn: businessDate,
          },
        ]);
        await insertLinks(tx, merchant.id, [
          {
            invoiceId,
            version: 1,
            keyId: sealer.keyId,
            tokenHash: tokenHashOf(token),
            expiresOn: options.linkExpiresOn ?? '2027-01-24',
          },
        ]);
      });
      return { invoiceId, customerId, customerNumber, billingNumber, amount, token };
    },

    async payOnPage(pageUrl, pan, threeDs = 'succeed') {
      const send = (url: string, form: Record<string, string>) =>
        fetch(url, { method: 'POST', body: new URLSearchParams(form), redirect: 'manual' });
      const paid = await send(pageUrl, { number: pan, expires: '12/30', cvc: '123' });
      const next = new URL(paid.headers.get('location') ?? '', pageUrl).href;
      if (!next.includes('/acs/')) return next;
      const confirmed = await send(next, { result: threeDs });
      return new URL(confirmed.headers.get('location') ?? '', pageUrl).href;
    },

    signedWebhook(event) {
      const body = JSON.stringify({ ...event, created: clock.now().toString() });
      return { body, signature: signWebhook(secret, Math.floor(clock.now().epochMilliseconds / 1000), body) };
    },

    async drop() {
      await gateway.close();
      await simulator.close();
      await database.drop();
    },
  };
}

/** The public server of a world, as a browser reaches it. */
export async function webOf(
  here: World,
  change: Partial<Parameters<typeof startWeb>[0]> = {},
): Promise<WebServer> {
  const port = await freePort();
  return startWeb({
    webDb: here.webDb,
    ports: here.ports,
    baseUrl: `http://127.0.0.1:${port}`,
    port,
    gatewayOrigins: [here.simulator.url],
    ...change,
  });
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

export const instant = (text: string): Temporal.Instant => Temporal.Instant.from(text);

/** The contract of a bill goes on automatic payment, as a visit to the pay page leaves it. */
export async function enrolContract(here: World, merchant: Merchant, bill: Bill): Promise<void> {
  const [methodId, enrolmentId] = [here.ids.uuid(), here.ids.uuid()];
  const at = here.clock.now().toString();
  await here.db.run(
    `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, state, created_at)
     values ($1, $2, $3, 'simulator', 'card', '', 1, 'active', $4)`,
    [merchant.id, methodId, bill.customerId, at],
  );
  await here.db.run(
    `insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version,
                             effective_from, name_digest, terms_version, source, started_at)
     select merchant_id, $2, customer_id, contract_id, $3, 'active', 1, '2026-11-01', '', '2026-11', 'pay_page', $4
     from invoices where merchant_id = $1 and id = $5`,
    [merchant.id, enrolmentId, methodId, at, bill.invoiceId],
  );
}
