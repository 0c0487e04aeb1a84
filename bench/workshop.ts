import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Carrier } from '../billing/carriers/carrier.ts';
import { systemClock } from '../billing/clock.ts';
import { type Db, openDatabase } from '../billing/db.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { systemRandomness, timeOrderedIds } from '../billing/ids.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../billing/merchants/settings.ts';
import { migrateDatabase } from '../billing/migrate.ts';
import type { Log } from '../billing/ports.ts';
import { deriveKeys, makeSealer } from '../billing/sealing.ts';
import { startEmbeddedPostgres } from '../cli/embedded/postgres.ts';
import { openDisk } from '../files/disk.ts';
import type { OpenRemoteStore } from '../files/store.ts';
import type { Ports } from '../jobs/ports.ts';
import { migrations } from '../migrations/index.ts';

/** A database, an archive and a merchant of their own in a temporary folder; everything is gone afterwards. */
export interface Workshop {
  db: Db;
  ports: Ports;
  merchant: Merchant;
  /** The merchant's inbox: a local folder, so that no network is measured. */
  inbox: string;
  home: string;
  /** As the jobs, the web, whoever may empty tables, and the gateway simulator in a database of its own. */
  urls: { jobs: string; web: string; admin: string; simulator: string };
  close(): Promise<void>;
}

const silent: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: (fields, message) => console.error(message, fields),
  error: (fields, message) => console.error(message, fields),
};

export const workshopSecret = 'a secret of benchmarks, at least 32 characters';

const unused = new Proxy(
  {},
  { get: (_, name) => Promise.reject(new Error(`not measured: ${String(name)}`)) },
);

export async function openWorkshop(): Promise<Workshop> {
  const home = fs.mkdtempSync(join(tmpdir(), 'seikyu-bench-'));
  fs.chmodSync(home, 0o755);
  const postgres = await startEmbeddedPostgres({ home: join(home, 'postgres'), log: silent });
  const urls = {
    jobs: postgres.urlFor('seikyu', 'seikyu'),
    web: postgres.urlFor('seikyu', 'seikyu_web_login'),
    admin: postgres.urlFor('seikyu', 'postgres'),
    simulator: postgres.urlFor('seikyu_gateway_simulator', 'seikyu_simulator'),
  };
  const db = openDatabase(urls.jobs, { applicationName: 'seikyu bench' });
  await migrateDatabase(db, migrations, { log: silent });
  const inbox = join(home, 'inbox');
  fs.mkdirSync(inbox);
  const clock = systemClock();
  const randomness = systemRandomness();
  const ids = timeOrderedIds(clock, randomness);
  const ports: Ports = {
    db,
    clock,
    ids,
    randomness,
    crash: async () => undefined,
    log: silent,
    disk: openDisk(ids),
    sealer: makeSealer(deriveKeys(workshopSecret), randomness),
    gateway: unused as Gateway,
    carrier: unused as Carrier,
    alertSenders: [],
    openStore: folderStore(inbox),
    archiveFolder: join(home, 'archive'),
    readKeyFile: async () => '',
    baseUrl: 'https://pay.example.jp',
  };
  const sample = join(import.meta.dirname, '../cli/demo/samples/minato-gas/merchant.yaml');
  const { settings } = parseMerchantSettings(fs.readFileSync(sample, 'utf8'), {
    path: sample,
    readable: () => 'ok',
    layout: () => undefined,
  });
  await applyMerchant(ports, settings, 'bench');
  return {
    db,
    ports,
    merchant: await merchantByCode(db, settings.code),
    inbox,
    home,
    urls,
    async close() {
      await db.close();
      await postgres.stop();
      fs.rmSync(home, { recursive: true, force: true });
    },
  };
}

/** A partner's folder without a network between. */
function folderStore(folder: string): OpenRemoteStore {
  const entryOf = (name: string) => {
    const stats = fs.statSync(join(folder, name));
    return {
      name,
      kind: 'file' as const,
      sizeBytes: stats.size,
      modifiedAtEpochS: Math.floor(stats.mtimeMs / 1000),
    };
  };
  const local = (path: string) => join(folder, basename(path));
  return async () => ({
    list: async () => fs.readdirSync(folder).map(entryOf),
    stat: async (path) => (fs.existsSync(local(path)) ? entryOf(basename(path)) : undefined),
    download: (path) => fs.createReadStream(local(path)),
    upload: () => Promise.reject(new Error('nothing is uploaded here')),
    rename: () => Promise.reject(new Error('nothing is renamed here')),
    remove: async (path) => fs.rmSync(local(path)),
    close: async () => undefined,
  });
}
