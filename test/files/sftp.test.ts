import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Refusal } from '../../billing/refusal.ts';
import { makeKeyPair, type SftpServer, startSftpServer } from '../../cli/demo/sftp-server.ts';
import { openSftpStore } from '../../files/sftp.ts';
import type { RemoteStore, SftpConnection } from '../../files/store.ts';
import { chunks } from './given.ts';

/** Deadlines that pass when the test says so, not after a time. */
class ManualClock {
  readonly #open = new Set<AbortController>();
  passedMs = 0;

  elapsedMs(): number {
    return this.passedMs;
  }

  deadline(): AbortSignal {
    const controller = new AbortController();
    this.#open.add(controller);
    return controller.signal;
  }

  expire(): void {
    for (const controller of this.#open) controller.abort();
    this.#open.clear();
  }
}

const hostKeys = makeKeyPair();
const minato = makeKeyPair();
const kita = makeKeyPair();
let folder: string;
let server: SftpServer;
let clock: ManualClock;
let store: RemoteStore | undefined;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'seikyu-sftp-'));
});
afterAll(async () => rm(folder, { recursive: true }));

beforeEach(async () => {
  clock = new ManualClock();
  server = await startSftpServer({
    hostKey: hostKeys.privateKey,
    accounts: [
      { username: 'minato-gas', publicKey: minato.publicKey, root: join(folder, 'minato-gas') },
      { username: 'kita-denryoku', publicKey: kita.publicKey, root: join(folder, 'kita-denryoku') },
    ],
  });
});
afterEach(async () => {
  await store?.close();
  store = undefined;
  await server.stop();
  for (const name of ['minato-gas', 'kita-denryoku']) await rm(join(folder, name), { recursive: true });
});

function connection(changes: Partial<SftpConnection> = {}): SftpConnection {
  return {
    host: '127.0.0.1',
    port: server.port,
    username: 'minato-gas',
    privateKey: minato.privateKey,
    hostKeys: [server.hostKeyFingerprint],
    ...changes,
  };
}

async function open(changes: Partial<SftpConnection> = {}): Promise<RemoteStore> {
  store = await openSftpStore({ clock })(connection(changes));
  return store;
}

async function refusal(work: Promise<unknown>): Promise<Refusal> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Refusal)) throw new Error('no refusal', { cause: error });
  return error;
}

async function downloaded(from: RemoteStore, path: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of from.download(path)) parts.push(part);
  return Buffer.concat(parts);
}

const local = (name: string): string => join(folder, 'minato-gas', name);
const large = Buffer.from(Array.from({ length: 300_000 }, (_, at) => at % 251));

describe('connecting', () => {
  test('a host key that is not pinned ends it before we say who we are', async () => {
    const pinned = `SHA256:${'A'.repeat(43)}`;
    const refused = await refusal(open({ hostKeys: [pinned] }));
    expect(refused.code).toBe('SFTP_HOST_KEY_CHANGED');
    expect(refused.context).toMatchObject({ presented: server.hostKeyFingerprint });
    // A second look, for a key of another kind: the pin may be of one that the server shows only when asked for it.
    expect(server.counts).toMatchObject({ connections: 2, authenticationAttempts: 0 });
  });

  test('two pins, while a partner changes its key', async () => {
    const opened = await open({ hostKeys: [`SHA256:${'A'.repeat(43)}=`, server.hostKeyFingerprint] });
    expect(await opened.list('/')).toEqual([]);
    expect(server.counts.authenticationAttempts).toBeGreaterThan(0);
  });

  test('no pin at all is refused without a connection', async () => {
    expect((await refusal(open({ hostKeys: [] }))).code).toBe('SFTP_HOST_KEY_UNPINNED');
    expect(server.counts.connections).toBe(0);
  });

  test('another key, another user, no key', async () => {
    expect((await refusal(open({ privateKey: kita.privateKey }))).code).toBe('SFTP_AUTH_REFUSED');
    expect((await refusal(open({ username: 'nobody' }))).code).toBe('SFTP_AUTH_REFUSED');
    const unusable = await refusal(open({ privateKey: 'secret' }));
    expect(unusable.code).toBe('SFTP_KEY_UNUSABLE');
    expect(JSON.stringify([unusable.message, unusable.context, unusable.next])).not.toContain('secret');
  });

  test('nobody there', async () => {
    const { port } = server;
    await server.stop();
    expect((await refusal(open({ port }))).code).toBe('SFTP_UNREACHABLE');
    server = await startSftpServer({ hostKey: hostKeys.privateKey, accounts: [] });
  });

  test('a server that accepts and says nothing', async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => socket.destroy());
    });
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const opening = refusal(open({ port: (silent.address() as AddressInfo).port }));
    await vi.waitFor(() => expect(sockets).toHaveLength(1));
    clock.expire();
    expect((await opening).code).toBe('SFTP_TIMEOUT');
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });
});

describe('working', () => {
  test('a file goes up under a temporary name, is looked at, renamed and read back', async () => {
    const opened = await open();
    const sent = await opened.upload('/.x.tmp', chunks(large.subarray(0, 10), large.subarray(10), ''));
    expect(sent).toBe(large.length);
    expect(await opened.stat('/.x.tmp')).toMatchObject({ kind: 'file', sizeBytes: large.length });
    await opened.rename('/.x.tmp', '/x');
    expect(await opened.stat('/.x.tmp')).toBeUndefined();
    expect((await downloaded(opened, '/x')).equals(large)).toBe(true);
    expect((await readFile(local('x'))).equals(large)).toBe(true);
    await opened.remove('/x');
    expect(await opened.list('/')).toEqual([]);
    expect(await opened.upload('/empty', chunks())).toBe(0);
    expect(await downloaded(opened, '/empty')).toHaveLength(0);
  });

  test('a listing types its entries, and links stay links', async () => {
    const opened = await open();
    await writeFile(local('file'), 'abc');
    await writeFile(local('日本語 \u202e.csv'), '');
    await symlink('file', local('link'));
    await symlink('/etc/passwd', local('out'));
    await symlink('/etc', local('folder'));
    const entries = await opened.list('/');
    expect(Object.fromEntries(entries.map((entry) => [entry.name, entry.kind]))).toEqual({
      file: 'file',
      '日本語 \u202e.csv': 'file',
      link: 'link',
      out: 'link',
      folder: 'link',
    });
    const file = entries.find((entry) => entry.name === 'file');
    expect(file?.sizeBytes).toBe(3);
    expect(file?.modifiedAtEpochS).toBeGreaterThan(1_700_000_000);
    expect(await opened.stat('/link')).toMatchObject({ name: 'link', kind: 'link' });
    expect((await refusal(downloaded(opened, '/out'))).code).toBe('SFTP_DENIED');
    expect((await refusal(opened.stat('/folder/passwd'))).code).toBe('SFTP_DENIED');
    expect((await refusal(opened.list('/folder'))).code).toBe('SFTP_DENIED');
  });

  test('an account cannot leave its folder', async () => {
    await writeFile(join(folder, 'kita-denryoku', 'secret'), 'x');
    const opened = await open();
    for (const path of [
      '/../kita-denryoku/secret',
      '../kita-denryoku/secret',
      '/x/../../kita-denryoku/secret',
    ]) {
      expect((await refusal(downloaded(opened, path))).code).toBe('SFTP_NOT_FOUND');
      expect((await refusal(opened.upload(path, chunks('y')))).code).toBe('SFTP_NOT_FOUND');
    }
    expect(await readFile(join(folder, 'kita-denryoku', 'secret'), 'utf8')).toBe('x');
  });

  test('what is not there', async () => {
    const opened = await open();
    expect((await refusal(opened.list('/nothing'))).code).toBe('SFTP_NOT_FOUND');
    expect((await refusal(downloaded(opened, '/nothing'))).code).toBe('SFTP_NOT_FOUND');
    expect((await refusal(opened.remove('/nothing'))).code).toBe('SFTP_NOT_FOUND');
    expect((await refusal(opened.rename('/nothing', '/x'))).code).toBe('SFTP_NOT_FOUND');
  });

  test('a rename never overwrites, not even on a server that would', async () => {
    const opened = await open();
    await opened.upload('/a', chunks('ours'));
    await writeFile(local('b'), 'theirs');
    for (const overwriteOnRename of [false, true]) {
      server.faults.overwriteOnRename = overwriteOnRename;
      expect((await refusal(opened.rename('/a', '/b'))).code).toBe('SFTP_EXISTS');
      expect(await readFile(local('b'), 'utf8')).toBe('theirs');
    }
  });

  test('a rename that the server refuses leaves the file where it was', async () => {
    const opened = await open();
    await opened.upload('/a', chunks('ours'));
    server.faults.refuseRename = true;
    expect((await refusal(opened.rename('/a', '/c'))).code).toBe('SFTP_REMOTE_ERROR');
    expect(await readFile(local('a'), 'utf8')).toBe('ours');
  });

  test('a full disk over there', async () => {
    const opened = await open();
    server.faults.refuseWrite = true;
    expect((await refusal(opened.upload('/x', chunks(large)))).code).toBe('SFTP_REMOTE_ERROR');
    expect(await opened.list('/')).toHaveLength(1);
  });

  test('content that cannot be read ends the upload with its own error, and the connection lives', async () => {
    const opened = await open();
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield large;
      throw new Error('disk');
    }
    await expect(opened.upload('/x', broken())).rejects.toThrow('disk');
    expect(await opened.list('/')).toHaveLength(1);
  });

  test('a reader that stops early does not hold the file', async () => {
    const opened = await open();
    await writeFile(local('x'), large);
    for await (const part of opened.download('/x')) {
      expect(part.length).toBeGreaterThan(0);
      break;
    }
    expect((await downloaded(opened, '/x')).equals(large)).toBe(true);
  });
});

describe('faults', () => {
  test.each(['LSTAT', 'OPENDIR', 'REMOVE', 'RENAME', 'OPEN'] as const)(
    'no answer to %s',
    async (operation) => {
      const opened = await open();
      await writeFile(local('x'), 'x');
      server.faults.silent = [operation];
      const work = {
        LSTAT: () => opened.stat('/x'),
        OPENDIR: () => opened.list('/'),
        REMOVE: () => opened.remove('/x'),
        RENAME: () => opened.rename('/x', '/y'),
        OPEN: () => downloaded(opened, '/x'),
      }[operation]();
      const waiting = refusal(work);
      clock.expire();
      expect((await waiting).code).toBe('SFTP_TIMEOUT');
      // The connection is given up: what it would still answer, nobody could tell apart.
      expect((await refusal(opened.list('/'))).code).toBe('SFTP_UNREACHABLE');
    },
  );

  test('a download that stalls', async () => {
    const opened = await open();
    await writeFile(local('x'), large);
    server.faults.stallAfterBytes = 100_000;
    const waiting = refusal(downloaded(opened, '/x'));
    await vi.waitFor(() => expect(server.counts.fileBytes).toBeGreaterThan(100_000));
    clock.expire();
    expect((await waiting).code).toBe('SFTP_TIMEOUT');
  });

  test('an upload that stalls', async () => {
    const opened = await open();
    server.faults.stallAfterBytes = 100_000;
    const waiting = refusal(opened.upload('/x', chunks(large)));
    await vi.waitFor(() => expect(server.counts.fileBytes).toBeGreaterThan(100_000));
    clock.expire();
    expect((await waiting).code).toBe('SFTP_TIMEOUT');
  });

  test('a connection cut in the middle of a download or an upload', async () => {
    await writeFile(local('x'), large);
    server.faults.dropAfterBytes = 100_000;
    expect((await refusal(downloaded(await open(), '/x'))).code).toBe('SFTP_UNREACHABLE');
    server.faults.dropAfterBytes = server.counts.fileBytes + 100_000;
    expect((await refusal((await open()).upload('/y', chunks(large)))).code).toBe('SFTP_UNREACHABLE');
    expect((await readFile(local('y'))).length).toBeLessThan(large.length);
  });

  test('a rename whose answer is lost was done all the same, and a new connection sees it', async () => {
    const opened = await open();
    await opened.upload('/.x.tmp', chunks('x'));
    server.faults.loseRenameAnswer = true;
    expect((await refusal(opened.rename('/.x.tmp', '/x'))).code).toBe('SFTP_UNREACHABLE');
    const again = await open();
    expect(await again.stat('/.x.tmp')).toBeUndefined();
    expect(await again.stat('/x')).toMatchObject({ kind: 'file', sizeBytes: 1 });
    expect((await refusal(again.rename('/.x.tmp', '/x'))).code).toBe('SFTP_EXISTS');
  });

  test('closing twice, and after the server has gone', async () => {
    const opened = await open();
    await server.stop();
    await opened.close();
    await opened.close();
    server = await startSftpServer({ hostKey: hostKeys.privateKey, accounts: [] });
  });
});
