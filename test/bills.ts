import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import { recordAct } from '../billing/acts/queries.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import { sealContact } from '../billing/customers/contact.ts';
import type { Db } from '../billing/db.ts';
import { openHistory } from '../billing/exchanges/queries.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { post } from '../billing/ledger/queries.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../billing/merchants/settings.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import type { Job } from '../jobs/job.ts';
import type { Ports } from '../jobs/ports.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { type RunEnd, runJob } from '../jobs/run.ts';
import { trace } from '../jobs/trace.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { portsFor } from './ports.ts';

export interface BillToMake {
  number: string;
  collection?: 'link' | 'auto';
  amount?: number;
  dueOn?: string;
  debitOn?: string | null;
  businessDate?: string;
  /** A contract keeps its customer; default: one of its own for each bill. */
  customer?: string;
  /** The token of the saved card; null: no agreement. Default: one of its own for an automatic bill. */
  card?: string | null;
  act?: 'charge' | 'dun';
  actOn?: string;
}

export interface Bills<G extends Gateway = FakeGateway> {
  ports: Ports;
  db: Db;
  clock: FixedClock;
  gateway: G;
  merchant: Merchant;
  /** Makes released bills; the id of each by its number. */
  make(bills: readonly BillToMake[]): Promise<Map<string, string>>;
  run<Payload>(job: Job<Payload>, businessDate?: string): Promise<RunEnd>;
  stateOf(number: string): Promise<string>;
  close(): void;
}

/** Merchants of a test file, side by side in one database, of which every invariant holds at its end. */
export interface Worlds {
  readonly db: Db;
  open(options?: { now?: string; settings?: string }): Promise<Bills>;
}

/** To be called where hooks of the file may be set. Codes are the prefix with a number. */
export function worldsOf(prefix: string): Worlds {
  let database: TestDatabase;
  const opened: Bills[] = [];
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(async () => {
    await expectInvariants(database.db);
    for (const world of opened) world.close();
    await database?.drop();
  });
  return {
    get db() {
      return database.db;
    },
    async open(options = {}) {
      const world = await billsOf(database.db, { code: `${prefix}-${opened.length}`, ...options });
      opened.push(world);
      return world;
    },
  };
}

/** A merchant with the standard settings and bills made straight in the database, as a released file leaves them. */
export async function billsOf(
  db: Db,
  options: { code?: string; now?: string; settings?: string } = {},
): Promise<Bills> {
  const code = options.code ?? 'minato-gas';
  const clock = fixedClock(options.now ?? '2026-12-01T01:00:00Z');
  const gateway = fakeGateway(clock);
  const folder = mkdtempSync(join(tmpdir(), 'seikyu-bills-'));
  const ports = portsFor(db, clock, gateway, folder);
  const merchant = await makeMerchant(ports, code, options.settings ?? '');
  const { timezone } = merchant.settings;
  return {
    ports,
    db,
    clock,
    gateway,
    merchant,
    make: (bills) => makeBills(ports, merchant, bills),
    run: (job, businessDate) =>
      runJob(ports, job as unknown as Job, {
        merchant,
        businessDate: businessDate ?? clock.now().toZonedDateTimeISO(timezone).toPlainDate().toString(),
      }),
    async stateOf(number) {
      const [row] = await db.query<{ state: string }>(
        `select state from invoices where merchant_id = $1 and billing_number = $2`,
        [merchant.id, number],
      );
      return row?.state ?? 'none';
    },
    close: () => rmSync(folder, { recursive: true, force: true }),
  };
}

export async function makeMerchant(ports: Ports, code: string, more: string): Promise<Merchant> {
  const yaml = `
merchant: ${code}
name: { ja: みなとガス株式会社, en: Minato Gas }
timezone: Asia/Tokyo
currency: JPY
layout: standard/1
exchange:
  sftp: { host: 127.0.0.1, port: 2222, username: ${code}, private_key_file: keys/${code}, host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] }
  inbound: inbound
  outbound: outbound
autopay:
  debit_day: due_date
${more}`;
  const { settings } = parseMerchantSettings(yaml, {
    path: `${code}.yaml`,
    readable: () => 'ok',
    layout: () => undefined,
  });
  // Everybody in these stories has the same phone.
  settings.notify.dailyCapPerPhone = 1_000;
  await applyMerchant(ports, settings, 'test');
  return merchantByCode(ports.db, code);
}

const usualAmount = 5_000;
/** Far above the files that a test sends: they fill gaps, and none is held for one. */
let sequence = 1_000;

export async function makeBills(
  ports: Ports,
  merchant: Merchant,
  bills: readonly BillToMake[],
): Promise<Map<string, string>> {
  const { db, ids } = ports;
  const at = ports.clock.now();
  const today = at.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
  const made = new Map<string, string>();
  sequence += 1;
  await db.transaction(async (tx) => {
    const fileId = ids.uuid();
    const act = { merchantId: merchant.id, id: ids.uuid(), kind: 'command' as const, actor: 'test', at };
    await tx.run(
      `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
                                  settings_version, state, business_date, sequence, lines_read, lines_accepted,
                                  lines_rejected, amount_accepted, fetched_on, fetched_at, removed_at)
       values ($1, $2, $3, 'billing', $3, 1, true, '', 'standard/1', $4, 'released', $5, $6, $8, $8, 0, $9, $5, $7, $7)`,
      [
        merchant.id,
        fileId,
        `bills-${fileId}`,
        merchant.settingsVersion,
        today,
        sequence,
        at.toString(),
        bills.length,
        bills.reduce((sum, bill) => sum + (bill.amount ?? usualAmount), 0),
      ],
    );
    for (const [index, bill] of bills.entries()) {
      const customer = bill.customer ?? `C-${bill.number}`;
      const customerId = await customerOf(ports, tx, merchant, customer, today);
      const collection = bill.collection ?? 'auto';
      const card = bill.card === undefined && collection === 'auto' ? `tok_${bill.number}` : bill.card;
      if (card) await enrol(ports, tx, merchant, customerId, card);
      const invoiceId = ids.uuid();
      made.set(bill.number, invoiceId);
      const amount = bill.amount ?? usualAmount;
      const dueOn = bill.dueOn ?? today;
      const businessDate = bill.businessDate ?? today;
      await tx.run(
        `insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id, contract_id,
                               contact_version, amount, currency, billing_period, due_on, business_date, collection,
                               debit_on, description, layout, settings_version, state, version, created_at)
         values ($1, $2, $3, $13, $4, (select coalesce(max(payment_number), 0) + 1 from invoices where merchant_id = $1), $5,
                 $5, 1, $6, 'JPY', '2026-11', $7, $8, $9, $10, 'gas', 'standard/1', $11, 'open', 1, $12)`,
        [
          merchant.id,
          invoiceId,
          fileId,
          bill.number,
          customerId,
          amount,
          dueOn,
          businessDate,
          collection,
          bill.debitOn === undefined ? (collection === 'auto' ? dueOn : null) : bill.debitOn,
          merchant.settingsVersion,
          at.toString(),
          index + 2,
        ],
      );
      await tx.run(`insert into agenda (merchant_id, invoice_id, act, act_on) values ($1, $2, $3, $4)`, [
        merchant.id,
        invoiceId,
        bill.act ?? (collection === 'auto' ? 'charge' : 'dun'),
        bill.actOn ?? (collection === 'auto' ? (bill.debitOn ?? dueOn) : businessDate),
      ]);
      await post(tx, act, today, [
        {
          event: 'bill_released',
          entryId: invoiceId,
          invoiceId,
          customerId,
          amount,
          currency: 'JPY',
          eventOn: today,
        },
      ]);
    }
    await recordAct(tx, act);
    await openHistory(tx, act, fileId);
  });
  return made;
}

type Tx = Parameters<Parameters<Db['transaction']>[0]>[0];

async function customerOf(
  { ids, sealer, clock }: Ports,
  tx: Tx,
  merchant: Merchant,
  number: string,
  today: string,
): Promise<string> {
  const [known] = await tx.query<{ id: string }>(
    `select id from customers where merchant_id = $1 and customer_number = $2`,
    [merchant.id, number],
  );
  if (known) return known.id;
  const id = ids.uuid();
  const at = clock.now().toString();
  await tx.run(
    `insert into customers (merchant_id, id, customer_number, contact_version, created_at) values ($1, $2, $3, 1, $4)`,
    [merchant.id, id, number, at],
  );
  await tx.run(
    `insert into contracts (merchant_id, id, customer_id, contract_number) values ($1, $2, $2, '')`,
    [merchant.id, id],
  );
  const contact = JSON.stringify({ name: '山田 花子', phone: '+819012345678', email: '' });
  await tx.run(
    `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
                           business_date, sequence, created_at)
     values ($1, $2, 1, $3, $4, $5, $6, $7, 'mobile', $8, 1, $9)`,
    [
      merchant.id,
      id,
      sealContact(sealer, merchant.id, number, { name: '山田 花子', phone: '+819012345678', email: null })
        .sealed,
      sealer.keyId,
      sealer.digest(contact),
      sealer.digest('山田花子'),
      sealer.digest('+819012345678'),
      today,
      at,
    ],
  );
  return id;
}

async function enrol(
  { ids, sealer, clock, gateway }: Ports,
  tx: Tx,
  merchant: Merchant,
  customerId: string,
  token: string,
): Promise<void> {
  const [standing] = await tx.query(
    `select 1 from enrolments where merchant_id = $1 and contract_id = $2 and state = 'active'`,
    [merchant.id, customerId],
  );
  if (standing) return;
  const methodId = ids.uuid();
  const at = clock.now().toString();
  await tx.run(
    `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four,
                                  expires, network_transaction_id, three_ds_eci, state, created_at)
     values ($1, $2, $3, $4, 'card', $5, $6, 'visa', '4242', '2039-12', 'ntx', '05', 'active', $7)`,
    [
      merchant.id,
      methodId,
      customerId,
      gateway.name,
      sealer.seal('method', token, methodId),
      sealer.keyId,
      at,
    ],
  );
  await tx.run(
    `insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version, effective_from,
                             name_digest, terms_version, source, started_at)
     values ($1, $2, $3, $3, $4, 'active', 1, $5, $6, 'test', 'test', $7)`,
    [merchant.id, ids.uuid(), customerId, methodId, '2026-01-01', sealer.digest('山田花子'), at],
  );
}

/** Every invariant that the product checks on a live database. */
export async function expectInvariants(db: Db): Promise<void> {
  const { invariants } = await checkInvariants(db);
  expect(invariants.filter((invariant) => !invariant.holds)).toEqual([]);
}

/** The jobs of a day that move money, in their order, day after day from today to the date. */
export async function liveUntil(world: Bills, date: string): Promise<void> {
  for (;;) {
    const today = world.clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString();
    await world.run(trace);
    await world.run(reconcile);
    await world.run(charge);
    await world.run(dunning);
    if (today >= date) return;
    world.clock.advance(86_400_000);
  }
}

/** The state of everything that money or a customer could feel, without ids of acts and without who told it first. */
export async function moneyState(db: Db, merchantId: number): Promise<unknown> {
  const read = (sql: string) => db.query(sql, [merchantId]);
  return {
    invoices: await read(
      `select billing_number, state, version, fell_back_on from invoices where merchant_id = $1 order by billing_number`,
    ),
    agenda: await read(
      `select i.billing_number, a.act, a.act_on from agenda a
       join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id
       where a.merchant_id = $1 order by i.billing_number`,
    ),
    charges: await read(
      `select i.billing_number, c.attempt_no, c.state, c.gateway_code, c.network_code, c.verdict, c.retry_not_before
       from charges c join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
       where c.merchant_id = $1 order by i.billing_number, c.attempt_no`,
    ),
    locks: await read(`select count(*) as locks from collection_locks where merchant_id = $1`),
    intents: await read(
      `select i.billing_number, p.state from payment_intents p
       join invoices i on i.merchant_id = p.merchant_id and i.id = p.invoice_id
       where p.merchant_id = $1 order by i.billing_number, p.origin`,
    ),
    payments: await read(
      `select i.billing_number, p.amount, p.method, p.collected_on from payments p
       join invoices i on i.merchant_id = p.merchant_id and i.id = p.invoice_id
       where p.merchant_id = $1 order by i.billing_number`,
    ),
    ledger: await read(
      `select event, debit, credit, sum(amount)::bigint as amount, count(*) as rows from transfers
       where merchant_id = $1 group by event, debit, credit order by event`,
    ),
    results: await read(
      `select i.billing_number, r.outcome, r.reason, r.amount, r.amount_received, r.collected_on
       from result_rows r join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
       where r.merchant_id = $1 order by i.billing_number`,
    ),
    messages: await read(
      `select i.billing_number, m.step, m.state, m.planned_on from messages m
       join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
       where m.merchant_id = $1 order by i.billing_number, m.planned_on, m.step`,
    ),
    parked: await read(
      `select subject, reason from parked_items where merchant_id = $1 and resolved_at is null order by subject_id`,
    ),
  };
}
