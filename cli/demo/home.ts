import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { parseDocument } from 'yaml';
import type { DemoMerchant, InboundFile } from './bills.ts';
import { demoMerchants } from './bills.ts';
import { sample } from './samples.ts';
import {
  answersWithKey,
  type KeyPair,
  makeKeyPair,
  publicKeyFingerprint,
  type SftpServer,
  startSftpServer,
} from './sftp-server.ts';

/** The demo's own folder under SEIKYU_HOME: the merchants' SFTP trees, keys and settings files. */
export interface DemoHome {
  sftp: Pick<SftpServer, 'port' | 'hostKeyFingerprint' | 'stop'>;
  /** Settings files to apply, one a merchant. */
  settingsFiles: string[];
  /** The folder that the agency of bank debits sees as its own. */
  bank: string;
  /** Puts a file and then its control file where the merchant would; what it has sent before, it does not send again. */
  drop(merchant: string, file: InboundFile): void;
  /** What a walk that did not end had set out to do. */
  unfinishedPlan(): WalkPlan | null;
  /** Kept until the walk has ended: null forgets it. */
  keepPlan(plan: WalkPlan | null): void;
  /** What stands in a merchant's folder, sorted. */
  listing(merchant: string, folder: 'inbound' | 'outbound'): string[];
  read(merchant: string, folder: 'inbound' | 'outbound', name: string): string;
}

/** All that the merchants' files depend on, so that a walk that was killed goes on with the same files. */
export interface WalkPlan {
  start: string;
  seed: string;
  billsPerMonth: number;
  sequences: Record<string, { next: number; files: number }>;
}

const preferredPort = 2222;
/** As the samples name it. */
const bankAccount = 'bank-agency';

/**
 * Makes keys and folders where they are missing, and starts the SFTP server on its former port if that is free. Where
 * another process of this home serves the same folders, that one is joined.
 */
export async function openDemoHome(home: string): Promise<DemoHome> {
  const folder = join(home, 'demo');
  fs.mkdirSync(join(folder, 'merchants'), { recursive: true, mode: 0o700 });
  fs.mkdirSync(join(home, 'keys'), { recursive: true, mode: 0o700 });
  const hostKey = keyPair(join(folder, 'sftp-host-key'));
  const accounts = demoMerchants.map((merchant) => {
    const root = join(folder, 'sftp', merchant.code);
    for (const name of ['inbound', 'outbound']) {
      fs.mkdirSync(join(root, foldersOf(merchant)[name as 'inbound' | 'outbound']), {
        recursive: true,
        mode: 0o700,
      });
    }
    return { username: merchant.code, publicKey: keyPair(join(home, 'keys', merchant.code)).publicKey, root };
  });
  const bank = join(folder, 'sftp', bankAccount);
  fs.mkdirSync(bank, { recursive: true, mode: 0o700 });
  accounts.push({
    username: bankAccount,
    publicKey: keyPair(join(home, 'keys', bankAccount)).publicKey,
    root: bank,
  });
  const portFile = join(folder, 'sftp-port');
  const port = fs.existsSync(portFile) ? Number(fs.readFileSync(portFile, 'utf8')) : preferredPort;
  const options = { hostKey: hostKey.privateKey, accounts };
  const sftp = await startSftpServer({ ...options, port }).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EADDRINUSE') throw error;
    const hostKeyFingerprint = publicKeyFingerprint(hostKey.privateKey);
    if (await answersWithKey(port, hostKeyFingerprint))
      return { port, hostKeyFingerprint, stop: async () => undefined };
    // Another program has the port: any other will do, the settings follow.
    return startSftpServer({ ...options, port: 0 });
  });
  fs.writeFileSync(portFile, String(sftp.port));
  const settingsFiles = demoMerchants.map((merchant) => writeSettings(folder, merchant, sftp));
  const planFile = join(folder, 'plan.json');
  const place = (code: string, which: 'inbound' | 'outbound') => {
    const merchant = demoMerchants.find((candidate) => candidate.code === code);
    if (!merchant) throw new Error(`impossible state: no demo merchant ${code}`);
    return join(folder, 'sftp', code, foldersOf(merchant)[which]);
  };
  return {
    sftp,
    settingsFiles,
    bank,
    drop(merchant, file) {
      const sha256 = createHash('sha256').update(file.content).digest('hex');
      const sent = join(folder, 'sent', merchant, `${file.name}.${sha256}`);
      const inbound = place(merchant, 'inbound');
      if (fs.existsSync(sent)) return;
      // Killed between the control file and the mark: Seikyu has not looked yet, and finds the same again.
      fs.writeFileSync(join(inbound, file.name), file.content);
      if (file.done !== '') fs.writeFileSync(join(inbound, `${file.name}.done`), file.done);
      fs.mkdirSync(join(folder, 'sent', merchant), { recursive: true, mode: 0o700 });
      fs.writeFileSync(sent, '');
    },
    unfinishedPlan: () =>
      fs.existsSync(planFile) ? (JSON.parse(fs.readFileSync(planFile, 'utf8')) as WalkPlan) : null,
    keepPlan(plan) {
      if (plan === null) return fs.rmSync(planFile, { force: true });
      fs.writeFileSync(`${planFile}.new`, JSON.stringify(plan));
      fs.renameSync(`${planFile}.new`, planFile);
    },
    listing: (merchant, which) => fs.readdirSync(place(merchant, which)).sort(),
    read: (merchant, which, name) => fs.readFileSync(join(place(merchant, which), name), 'utf8'),
  };
}

function foldersOf(merchant: DemoMerchant): { inbound: string; outbound: string } {
  const settings = parseDocument(sample(merchant.code, 'merchant.yaml')).toJS() as {
    exchange: { inbound: string; outbound: string };
  };
  return settings.exchange;
}

/** The sample's settings, pointed at the demo's server, with its layout beside them. */
function writeSettings(folder: string, merchant: DemoMerchant, sftp: DemoHome['sftp']): string {
  const document = parseDocument(sample(merchant.code, 'merchant.yaml'));
  document.setIn(['exchange', 'sftp', 'port'], sftp.port);
  document.setIn(['exchange', 'sftp', 'host_keys'], [sftp.hostKeyFingerprint]);
  const debit = ['autopay', 'direct_debit', 'exchange', 'sftp'];
  if (document.hasIn(debit)) {
    document.setIn([...debit, 'port'], sftp.port);
    document.setIn([...debit, 'host_keys'], [sftp.hostKeyFingerprint]);
  }
  if (document.get('layout') === 'layout.yaml') {
    const layout = `${merchant.code}-layout.yaml`;
    document.set('layout', layout);
    fs.writeFileSync(join(folder, 'merchants', layout), sample(merchant.code, 'layout.yaml'));
  }
  const path = join(folder, 'merchants', `${merchant.code}.yaml`);
  fs.writeFileSync(path, document.toString());
  return path;
}

function keyPair(path: string): KeyPair {
  if (!fs.existsSync(path)) {
    const made = makeKeyPair();
    fs.writeFileSync(`${path}.pub`, `${made.publicKey}\n`, { mode: 0o600 });
    fs.writeFileSync(path, made.privateKey, { mode: 0o600 });
  }
  return {
    privateKey: fs.readFileSync(path, 'utf8'),
    publicKey: fs.readFileSync(`${path}.pub`, 'utf8').trim(),
  };
}
