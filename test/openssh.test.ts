import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { answersWithKey, publicKeyFingerprint } from '../cli/demo/sftp-server.ts';
import { openSftpStore } from '../files/sftp.ts';
import type { RemoteStore } from '../files/store.ts';
import { deliver } from '../jobs/deliver.ts';
import { billingFile, billingName, type Office, openOffice } from './inbox.ts';

const sshd = ['/usr/sbin/sshd', '/usr/bin/sshd', '/sbin/sshd'].find((path) => fs.existsSync(path));
if (sshd === undefined && process.env.CI === 'true')
  throw new Error('sshd is missing: Debian’s openssh-server must be installed where the whole check runs');

const kinds = ['ed25519', 'ecdsa', 'rsa'] as const;
type Kind = (typeof kinds)[number];

let folder: string;
let server: ChildProcess;
let port: number;
let office: Office;
let remote: string;
const fingerprints = new Map<Kind, string>();

function makeKey(name: string, kind: Kind): string {
  const path = join(folder, name);
  execFileSync('ssh-keygen', ['-q', '-t', kind, '-N', '', '-C', '', '-f', path]);
  return publicKeyFingerprint(fs.readFileSync(`${path}.pub`, 'utf8'));
}

async function freePort(): Promise<number> {
  const listener = createServer();
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port: free } = listener.address() as AddressInfo;
  await new Promise((resolve) => listener.close(resolve));
  return free;
}

/** Files over so many kilobytes are refused by the operating system, as on a disk that is full. */
async function startSshd(hostKeys: readonly Kind[], fileKilobytes = 'unlimited'): Promise<void> {
  port = await freePort();
  const config = join(folder, 'sshd_config');
  const lines = [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    ...hostKeys.map((kind) => `HostKey ${join(folder, `host_${kind}`)}`),
    'PidFile none',
    `AuthorizedKeysFile ${join(folder, 'authorized_keys')}`,
    'AuthenticationMethods publickey',
    'PermitRootLogin prohibit-password',
    'StrictModes no',
    'UsePAM no',
    'Subsystem sftp internal-sftp',
    `ForceCommand internal-sftp -d ${remote}`,
  ];
  fs.writeFileSync(config, `${lines.join('\n')}\n`);
  const command = `trap '' XFSZ; ulimit -f ${fileKilobytes}; exec ${sshd} -D -e -f ${config}`;
  server = spawn('bash', ['-c', command], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  server.stderr?.on('data', (part) => {
    said += part;
  });
  const shown = fingerprints.get(hostKeys.includes('ed25519') ? 'ed25519' : (hostKeys[0] ?? 'rsa'));
  await vi.waitFor(
    async () => {
      if (server.exitCode !== null) throw new Error(`sshd ended: ${said}`);
      expect(await answersWithKey(port, shown ?? '')).toBe(true);
    },
    { timeout: 20_000, interval: 50 },
  );
}

/** The process of each connection hangs on the server's. */
function connectionProcesses(): number[] {
  const parents = new Map<number, number>();
  for (const entry of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = fs.readFileSync(`/proc/${entry}/stat`, 'latin1');
      parents.set(Number(entry), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch (error) {
      // It ended while we looked.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
  const below = (pid: number): number[] =>
    [...parents].filter(([, parent]) => parent === pid).flatMap(([child]) => [child, ...below(child)]);
  return below(server.pid ?? -1);
}

function stopConnections(signal: 'SIGSTOP' | 'SIGKILL'): void {
  for (const pid of connectionProcesses()) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      // A connection's second process may end with its first.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

async function stopSshd(): Promise<void> {
  stopConnections('SIGKILL');
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill('SIGKILL');
  await ended;
}

async function pin(hostKeys: string[]): Promise<void> {
  await office.change((settings) => ({
    ...settings,
    exchange: {
      ...settings.exchange,
      inbound: 'inbound',
      outbound: 'outbound',
      sftp: { ...settings.exchange.sftp, port, username: userInfo().username, hostKeys },
    },
  }));
}

async function open(): Promise<RemoteStore> {
  const { sftp } = office.merchant.settings.exchange;
  const privateKey = await office.ports.readKeyFile('');
  return office.ports.openStore({ ...sftp, privateKey });
}

const inbox = (name = '') => join(remote, 'inbound', name);
const outbox = (name = '') => join(remote, 'outbound', name);

function drop(name: string, content: string): void {
  fs.writeFileSync(inbox(name), content);
  fs.writeFileSync(inbox(`${name}.done`), `${createHash('sha256').update(content).digest('hex')}  ${name}\n`);
}

/** Lines that are all refused: the receipt has a record for each. */
const refusedLines = (count: number) =>
  billingFile(
    1,
    Array.from({ length: count }, (_, at) => ({ number: `N${at}`, amount: '0' })),
  );

function expectDelivered(): void {
  const names = fs.readdirSync(outbox()).sort();
  expect(names.length).toBeGreaterThan(0);
  for (const name of names.filter((each) => !each.endsWith('.done'))) {
    expect(name).not.toMatch(/^\./);
    const sha256 = createHash('sha256')
      .update(fs.readFileSync(outbox(name)))
      .digest('hex');
    expect(fs.readFileSync(outbox(`${name}.done`), 'utf8')).toBe(`${sha256}  ${name}\n`);
  }
  expect(names.length % 2).toBe(0);
}

describe('OpenSSH’s server', () => {
  if (sshd === undefined) {
    it('is not tested here: Debian’s openssh-server is not installed', ({ skip }) => skip());
    return;
  }

  beforeAll(() => {
    folder = fs.mkdtempSync(join(tmpdir(), 'seikyu-sshd-'));
    for (const kind of kinds) fingerprints.set(kind, makeKey(`host_${kind}`, kind));
    makeKey('user', 'ed25519');
    fs.copyFileSync(join(folder, 'user.pub'), join(folder, 'authorized_keys'));
    // Where sshd runs as root it drops its rights there; Debian makes the folder when the service starts.
    if (userInfo().uid === 0) fs.mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
  });
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  beforeEach(async () => {
    office = await openOffice();
    remote = fs.mkdtempSync(join(folder, 'remote-'));
    fs.mkdirSync(inbox());
    fs.mkdirSync(outbox());
    office.ports.readKeyFile = async () => fs.readFileSync(join(folder, 'user'), 'utf8');
  });
  afterEach(async () => {
    await stopSshd();
    await office.close();
  });

  const all = (): string[] => [fingerprints.get('ed25519') ?? ''];

  it('gives a file once and takes our answers whole', async () => {
    await startSshd(kinds);
    await pin(all());
    drop(billingName(1), billingFile(1, [{}, {}]));
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    expect(fs.readdirSync(inbox())).toEqual([]);
    await office.ingest();
    expect((await office.run(deliver)).counts).toMatchObject({ delivered: 2 });
    expectDelivered();
    expect((await office.fetch()).counts).toMatchObject({ files: 0 });
  });

  it.each(kinds)('is believed by its %s key alone, whichever it would rather show', async (kind) => {
    await startSshd(kinds);
    await pin([fingerprints.get(kind) ?? '']);
    expect((await office.fetch()).outcome).toBe('done');
  });

  it('may change its key when both are pinned, and is refused when they are not', async () => {
    await startSshd(['rsa']);
    await pin([fingerprints.get('rsa') ?? '']);
    expect((await office.fetch()).outcome).toBe('done');
    await stopSshd();
    await startSshd(['ed25519']);
    await pin([fingerprints.get('rsa') ?? '']);
    expect(await office.fetch()).toMatchObject({ failure: { code: 'SFTP_HOST_KEY_CHANGED' } });
    await pin([fingerprints.get('rsa') ?? '', fingerprints.get('ed25519') ?? '']);
    expect((await office.fetch()).outcome).toBe('done');
  });

  it('lists links, pipes, folders and hostile names, of which none is taken', async () => {
    await startSshd(['ed25519']);
    await pin(all());
    const secret = join(folder, 'secret');
    fs.writeFileSync(secret, 'secret');
    fs.symlinkSync(secret, inbox(billingName(1)));
    fs.writeFileSync(inbox(`${billingName(1)}.done`), '');
    execFileSync('mkfifo', [inbox(billingName(2))]);
    fs.writeFileSync(inbox(`${billingName(2)}.done`), '');
    fs.mkdirSync(inbox(billingName(3)));
    fs.writeFileSync(inbox(`${billingName(3)}.done`), '');
    const strange = ['a\nb', 'x\u202ey', 'caf\u00e9', 'cafe\u0301', `${'n'.repeat(250)}.csv`, '\\..\\x'];
    for (const name of strange) fs.writeFileSync(inbox(name), 'x');
    // A name that is not text at all.
    fs.writeFileSync(Buffer.concat([Buffer.from(`${inbox()}/`), Buffer.from([0xff, 0xfe])]), 'x');
    drop(billingName(4), billingFile(4, [{}]));
    expect((await office.fetch()).counts).toMatchObject({ files: 1, unknown_names: strange.length + 1 });
    expect(await office.db.query(`select name from billing_files`)).toEqual([{ name: billingName(4) }]);
    expect(fs.readFileSync(secret, 'utf8')).toBe('secret');
    for (const { cause } of await office.db.query<{ cause: string }>(`select cause from alerts`))
      expect(cause).toMatch(/^[ -~]+$/);
  });

  it('never overwrites by a rename', async () => {
    await startSshd(['ed25519']);
    await pin(all());
    fs.writeFileSync(outbox('theirs'), 'theirs');
    const store = await open();
    await store.upload('outbound/.ours', only('ours'));
    await expect(store.rename('outbound/.ours', 'outbound/theirs')).rejects.toMatchObject({
      code: 'SFTP_EXISTS',
    });
    await store.close();
    expect(fs.readFileSync(outbox('theirs'), 'utf8')).toBe('theirs');
    expect(fs.readFileSync(outbox('.ours'), 'utf8')).toBe('ours');
  });

  it('full disk leaves nothing half, and the next pass delivers', async () => {
    await startSshd(['ed25519'], '64');
    await pin(all());
    drop(billingName(1), refusedLines(1_500));
    await office.fetch();
    await office.ingest();
    const end = await office.run(deliver);
    expect(end.outcome).toBe('failed');
    expect(fs.readdirSync(outbox()).filter((name) => !name.startsWith('.'))).toEqual([]);
    await stopSshd();
    await startSshd(['ed25519']);
    await pin(all());
    expect((await office.run(deliver)).outcome).toBe('done');
    expectDelivered();
  });

  it('that stops answering is given up, and one that dies in the middle of a download as well', async () => {
    await startSshd(['ed25519']);
    await pin(all());
    // More than can be on its way already when the server stops.
    drop(billingName(1), refusedLines(60_000));
    const { clock } = office;
    for (const [signal, code] of [
      ['SIGSTOP', 'SFTP_TIMEOUT'],
      ['SIGKILL', 'SFTP_UNREACHABLE'],
    ] as const) {
      office.ports.openStore = openSftpStore({ clock, callDeadlineMs: 1_000 });
      const store = await open();
      const reading = store.download(`inbound/${billingName(1)}`)[Symbol.asyncIterator]();
      await reading.next();
      stopConnections(signal);
      const rest = async () => {
        while (!(await reading.next()).done);
      };
      await expect(rest()).rejects.toMatchObject({ code });
      await store.close();
      stopConnections('SIGKILL');
    }
    office.ports.openStore = openSftpStore({ clock });
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
  });
});

async function* only(text: string): AsyncIterable<Uint8Array> {
  yield Buffer.from(text);
}
