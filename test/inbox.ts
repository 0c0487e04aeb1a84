import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Carrier } from '../billing/carriers/carrier.ts';
import { type FixedClock, fixedClock } from '../billing/clock.ts';
import type { CrashPoint } from '../billing/crash-points.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { type MerchantSettings, parseMerchantSettings } from '../billing/merchants/settings.ts';
import type { Log } from '../billing/ports.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import { makeKeyPair, type SftpServer, startSftpServer } from '../cli/demo/sftp-server.ts';
import { layoutBeside } from '../cli/layout-file.ts';
import { openDisk } from '../files/disk.ts';
import { openSftpStore } from '../files/sftp.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import type { Job } from '../jobs/job.ts';
import type { Ports } from '../jobs/ports.ts';
import { type RunEnd, runJob } from '../jobs/run.ts';
import { type TestDatabase, testDatabase } from './database.ts';

export const samplesFolder = join(import.meta.dirname, '../cli/demo/samples');

/** The process died here. */
export class Killed extends Error {}

/** Takes every message and forgets it. */
const acceptingCarrier: Carrier = {
  name: 'accepting',
  semantics: { callDeadlineMs: 1_000, notFoundConclusiveAfterMs: 1_000, concurrency: 4 },
  send: async ({ messageId }) => ({ kind: 'accepted', providerId: messageId }),
  lookup: async () => ({ kind: 'unknown', why: 'nothing is kept' }),
  list: async function* () {
    yield* [];
  },
};

/** Its name is all that files need of it. */
const named = (name: string) =>
  new Proxy(unused, { get: (target, key) => (key === 'name' ? name : Reflect.get(target, key)) });

/** A merchant's SFTP server with a real inbox, our database and archive, and the jobs that stand between. */
export interface Office {
  db: TestDatabase['db'];
  /** As the login role under row security, like the web. */
  webDb: TestDatabase['webDb'];
  ports: Ports;
  clock: FixedClock;
  server: SftpServer;
  merchant: Merchant;
  /** The merchant's inbox, as a local folder. */
  inbox: string;
  archive: string;
  /** The merchant drops a file, with its control file unless told otherwise. */
  drop(name: string, content: string | Buffer, done?: string | null): void;
  dropSample(name: string): void;
  /** Changes the merchant's settings. */
  change(settings: (current: MerchantSettings) => MerchantSettings): Promise<void>;
  run(job: Job, businessDate?: string): Promise<RunEnd>;
  fetch(): Promise<RunEnd>;
  ingest(businessDate?: string): Promise<RunEnd>;
  /** The next arrival at this point throws, as if the process died there. */
  killAt(point: CrashPoint): void;
  /** Crash points passed since the office opened. */
  passed: Set<CrashPoint>;
  close(): Promise<void>;
}

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** What no job of this room asks. */
const unused = new Proxy(
  {},
  { get: (_, name) => Promise.reject(new Error(`not part of this test: ${String(name)}`)) },
);

export async function openOffice(sample = 'minato-gas', at = '2026-11-25T00:00:00Z'): Promise<Office> {
  const database = await testDatabase();
  const folder = fs.mkdtempSync(join(tmpdir(), 'seikyu-office-'));
  const clock = fixedClock(at);
  const randomness = seededRandomness('office');
  const ids = timeOrderedIds(clock, randomness);
  const hostKey = makeKeyPair();
  const userKey = makeKeyPair();
  const { settings } = parseMerchantSettings(
    fs.readFileSync(join(samplesFolder, sample, 'merchant.yaml'), 'utf8'),
    { path: `${sample}.yaml`, readable: () => 'ok', layout: layoutBeside(join(samplesFolder, sample)) },
  );
  const root = join(folder, 'server');
  const inbox = join(root, settings.exchange.inbound);
  fs.mkdirSync(inbox, { recursive: true });
  const server = await startSftpServer({
    hostKey: hostKey.privateKey,
    accounts: [{ username: sample, publicKey: userKey.publicKey, root }],
    faults: {},
  });
  let killing: CrashPoint | null = null;
  const passed = new Set<CrashPoint>();
  const archive = join(folder, 'archive');
  const ports: Ports = {
    db: database.db,
    clock,
    ids,
    randomness,
    crash: async (point) => {
      passed.add(point);
      if (killing !== point) return;
      killing = null;
      throw new Killed(point);
    },
    log: silent,
    disk: openDisk(ids),
    sealer: makeSealer(deriveKeys('a secret of tests, of at least 32 characters'), randomness),
    gateway: named('simulator') as Gateway,
    carrier: acceptingCarrier,
    alertSenders: [],
    openStore: openSftpStore({ clock, callDeadlineMs: 5_000 }),
    archiveFolder: archive,
    readKeyFile: async () => userKey.privateKey,
    baseUrl: 'https://pay.example.jp',
  };
  settings.exchange.sftp = {
    ...settings.exchange.sftp,
    host: '127.0.0.1',
    port: server.port,
    username: sample,
    hostKeys: [server.hostKeyFingerprint],
  };
  // Its stories bill the same few customers again and again in one month; those of gates switch them on.
  settings.gates = { fileTimes: 0, billTimes: 0, twice: false };
  // Everybody in these stories has the same phone.
  settings.notify.dailyCapPerPhone = 1_000;
  await applyMerchant(ports, settings, 'test');
  const run = (job: Job, businessDate = '2026-11-25') =>
    runJob(ports, job, { merchant: office.merchant, businessDate });

  const office: Office = {
    db: database.db,
    webDb: database.webDb,
    ports,
    clock,
    server,
    merchant: await merchantByCode(database.db, settings.code),
    inbox,
    archive,
    drop(name, content, done) {
      fs.writeFileSync(join(inbox, name), content);
      const line = `${createHash('sha256').update(content).digest('hex')}  ${name}\n`;
      if (done !== null) fs.writeFileSync(join(inbox, `${name}.done`), done ?? line);
    },
    dropSample(name) {
      for (const each of [name, `${name}.done`])
        fs.copyFileSync(join(samplesFolder, sample, 'inbound', each), join(inbox, each));
    },
    async change(settingsOf) {
      await applyMerchant(ports, settingsOf(office.merchant.settings), 'test');
      office.merchant = await merchantByCode(database.db, settings.code);
    },
    run,
    fetch: () => run(fetch),
    ingest: (businessDate) => run(ingest, businessDate),
    killAt(point) {
      killing = point;
    },
    passed,
    async close() {
      await server.stop();
      await database.drop();
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
  return office;
}

export interface BillFields {
  number?: string;
  customer?: string;
  name?: string;
  phone?: string;
  email?: string;
  amount?: string;
  period?: string;
  due?: string;
  collection?: string;
  description?: string;
}

/** A `billing` file of minato-gas in `standard/1`. */
export function billingFile(
  sequence: number,
  bills: readonly BillFields[],
  change: { businessDate?: string; merchant?: string; count?: number; total?: number } = {},
): string {
  const rows = bills.map((bill, at) =>
    [
      'D',
      bill.number ?? `B${sequence}-${at + 1}`,
      bill.customer ?? `C${at + 1}`,
      bill.name ?? '鈴木 花子',
      bill.phone ?? '090-1234-5678',
      bill.email ?? '',
      bill.amount ?? '1000',
      '10',
      '',
      bill.period ?? '2026-11',
      bill.due ?? '2026-12-28',
      bill.collection ?? '',
      bill.description ?? 'ガス料金',
    ].join(','),
  );
  const total = bills.reduce((sum, bill) => sum + Number(bill.amount ?? '1000'), 0);
  return [
    `H,1,${change.merchant ?? 'minato-gas'},billing,${change.businessDate ?? '2026-11-25'},${sequence}`,
    ...rows,
    `T,${change.count ?? bills.length},${change.total ?? total}`,
    '',
  ].join('\n');
}

export function cancelFile(sequence: number, numbers: readonly string[], merchant = 'minato-gas'): string {
  return [
    `H,1,${merchant},cancel,2026-11-25,${sequence}`,
    ...numbers.map((number) => `D,${number},検針誤り`),
    `T,${numbers.length},0`,
    '',
  ].join('\n');
}

export function billingName(sequence: number): string {
  return `billing_minato-gas_20261125_${String(sequence).padStart(4, '0')}.csv`;
}
