import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';
import type { Carrier, ListedSms, SmsRequest } from '../billing/carriers/carrier.ts';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import { type Db, openDatabase } from '../billing/db.ts';
import { referenceOf, seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { Refusal } from '../billing/refusal.ts';
import { openRestore } from '../billing/restores/queries.ts';
import { Watch, type Witness } from '../billing/restores/watch.ts';
import type { RemoteStore } from '../files/store.ts';
import type { JobName } from '../jobs/job.ts';
import { jobs } from '../jobs/jobs.ts';
import type { Ports } from '../jobs/ports.ts';
import { reconcileRestore } from '../jobs/restore.ts';
import { type RunEnd, runJob } from '../jobs/run.ts';
import { makeMerchant } from './bills.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { portsFor } from './ports.ts';

/** A carrier with books of its own. Like most real ones it sends whatever it is asked to, also twice. */
export interface Books extends Carrier {
  taken: (SmsRequest & ListedSms)[];
}

export function carrierOf(clock: FixedClock): Books {
  const taken: Books['taken'] = [];
  return {
    name: 'outbox',
    semantics: { callDeadlineMs: 10_000, notFoundConclusiveAfterMs: 60_000, concurrency: 4 },
    taken,
    async send(request) {
      const providerId = `sms-${taken.length + 1}`;
      taken.push({ ...request, providerId, takenAt: clock.now().toString() });
      return { kind: 'accepted', providerId };
    },
    async lookup({ messageId }) {
      const sms = taken.find((each) => each.messageId === messageId);
      return sms ? { kind: 'accepted', providerId: sms.providerId } : { kind: 'not_found' };
    },
    async *list(_merchant, from, until) {
      yield* taken.filter((sms) => sms.takenAt >= from && sms.takenAt < until);
    },
  };
}

/** The merchant's folder. What appears outbound is taken away at once, as merchants do. */
export class Folder {
  readonly files = new Map<string, Buffer>();
  readonly received: { name: string; text: string; bytes: Buffer }[] = [];

  drop(name: string, text: string): void {
    const digest = createHash('sha256').update(text).digest('hex');
    this.files.set(`inbound/${name}`, Buffer.from(text));
    this.files.set(`inbound/${name}.done`, Buffer.from(`${digest}  ${name}\n`));
  }

  collect(): void {
    for (const path of [...this.files.keys()].filter((each) => each.startsWith('outbound/'))) {
      const bytes = this.files.get(path) ?? Buffer.alloc(0);
      const name = path.slice('outbound/'.length);
      if (!path.endsWith('.done')) this.received.push({ name, text: bytes.toString('utf8'), bytes });
      this.files.delete(path);
    }
  }

  readonly open = async (): Promise<RemoteStore> => {
    const { files } = this;
    const refuse = (code: string) => new Refusal(code, code, { next: '' });
    const stat: RemoteStore['stat'] = async (path) => {
      const bytes = files.get(path);
      return (
        bytes && {
          name: path.split('/').at(-1) ?? '',
          kind: 'file',
          sizeBytes: bytes.length,
          modifiedAtEpochS: 0,
        }
      );
    };
    return {
      stat,
      async list(folder) {
        const entries = await Promise.all(
          [...files.keys()].filter((path) => path.startsWith(`${folder}/`)).map(stat),
        );
        return entries.filter((entry) => entry !== undefined);
      },
      async *download(path) {
        yield files.get(path) ?? Buffer.alloc(0);
      },
      async upload(path, content) {
        const parts: Uint8Array[] = [];
        for await (const part of content) parts.push(Uint8Array.from(part));
        files.set(path, Buffer.concat(parts));
        return files.get(path)?.length ?? 0;
      },
      async rename(from, to) {
        if (files.has(to)) throw refuse('SFTP_EXISTS');
        files.set(to, files.get(from) ?? Buffer.alloc(0));
        files.delete(from);
      },
      async remove(path) {
        if (!files.delete(path)) throw refuse('SFTP_NOT_FOUND');
      },
      close: async () => undefined,
    };
  };
}

/** Everything that a restore of the database leaves as it is. */
export interface Outside {
  clock: FixedClock;
  gateway: FakeGateway;
  carrier: Books;
  folder: Folder;
  witnesses: Map<string, Witness>;
  archive: string;
}

export interface Office {
  db: Db;
  ports: Ports;
  merchant: Merchant;
  watch: Watch;
  run(job: JobName): Promise<RunEnd>;
}

const { adminUrl, ownerUrl, prefix } = inject('testServer');
export const nameOf = (what: string) => `${prefix}restore_${process.pid}_${what}`;
const admin = openDatabase(adminUrl, { applicationName: 'restore test admin' });
const made: string[] = [];

/** In afterAll. */
export async function dropClones(): Promise<void> {
  for (const name of made) await admin.run(`drop database if exists ${name} with (force)`);
  await admin.close();
}

export async function cloneOf(source: string, what: string): Promise<string> {
  const name = nameOf(what);
  await admin.run(`create database ${name} owner seikyu template ${source} strategy wal_log`);
  made.push(name);
  return name;
}

export async function officeOn(
  database: string,
  outside: Outside,
  apply: (ports: Ports) => Promise<Merchant> = (ports) => makeMerchant(ports, 'minato-gas', ''),
): Promise<Office> {
  const url = new URL(ownerUrl);
  url.pathname = `/${database}`;
  const db = openDatabase(url.href, { applicationName: 'restore test' });
  const { clock, gateway, carrier, folder, witnesses } = outside;
  const randomness = seededRandomness(database);
  const ports: Ports = {
    ...portsFor(db, clock, gateway, outside.archive),
    randomness,
    ids: timeOrderedIds(clock, randomness),
    carrier,
    openStore: folder.open,
  };
  const merchant = await apply(ports);
  const stand = {
    read: async (id: string) => witnesses.get(id) ?? null,
    write: async (witness: Witness) => void witnesses.set(witness.databaseId, witness),
  };
  return {
    db,
    ports,
    merchant,
    watch: new Watch({ db, clock, ids: ports.ids, stand, owner: `process on ${database}` }),
    async run(job) {
      const businessDate = clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString();
      const end = await runJob(ports, jobs[job], { merchant, businessDate });
      if (end.failure !== null) throw end.failure;
      return end;
    },
  };
}

export function newOutside(): Outside {
  const clock = fixedClock('2026-11-24T22:00:00Z');
  return {
    clock,
    gateway: fakeGateway(clock),
    carrier: carrierOf(clock),
    folder: new Folder(),
    witnesses: new Map(),
    archive: mkdtempSync(join(tmpdir(), 'seikyu-restore-')),
  };
}

export const hour = 3_600_000;

/** A visitor who opens the newest SMS of a bill and pays. */
export async function paysByLink(
  office: Office,
  outside: Outside,
  billingNumber: string,
  token: string | null,
) {
  const [bill] = await office.db.query<{ id: string }>(`select id from invoices where billing_number = $1`, [
    billingNumber,
  ]);
  const link = { merchantId: office.merchant.id, invoiceId: bill?.id ?? '', version: 1 };
  const started = await startCheckout(office.db, office.ports, {
    link,
    method: 'card',
    enrol: token !== null,
    language: 'ja',
    returnUrlOf: (chargeId) => `https://pay.invalid/return/${chargeId}`,
  });
  if (started.kind !== 'redirect') return started.kind;
  const [charge] = await office.db.query<{ id: string }>(
    `select charge_id as id from collection_locks where invoice_id = $1`,
    [bill?.id],
  );
  outside.gateway.customerPays(referenceOf(charge?.id ?? ''), token);
  await learnFromGateway(office.db, office.ports, office.merchant, [charge?.id ?? ''], 'return');
  return 'paid';
}

export const reconcile = (office: Office) =>
  openRestore(office.db).then((restore) => {
    if (restore === undefined) throw new Error('no restore is open');
    const worker = { owner: 'operator:1:x', isDead: () => false, codeVersion: 'test' };
    return reconcileRestore(office.ports, office.merchant, {
      restore,
      worker,
      by: 'test',
      stop: new AbortController().signal,
      say: () => undefined,
    });
  });

export const stateOf = async ({ db }: Office, number: string) =>
  (await db.query<{ state: string }>(`select state from invoices where billing_number = $1`, [number]))[0]
    ?.state;
