import { createHash } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import {
  type FileHandle,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  realpath,
  rename,
  stat,
  unlink,
} from 'node:fs/promises';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { basename, dirname, join, posix, sep } from 'node:path';
import type { Attributes, AuthContext, FileEntry, SFTPWrapper } from 'ssh2';
import ssh2 from 'ssh2';

const { OPEN_MODE, STATUS_CODE } = ssh2.utils.sftp;

export interface KeyPair {
  /** OpenSSH text. */
  readonly privateKey: string;
  readonly publicKey: string;
}

export interface SftpAccount {
  readonly username: string;
  /** One line of OpenSSH text, as in `authorized_keys`. */
  readonly publicKey: string;
  /** The account sees this folder as `/` and nothing outside it. Made if absent. */
  readonly root: string;
}

export type SftpOperation =
  | 'OPEN'
  | 'READ'
  | 'WRITE'
  | 'CLOSE'
  | 'OPENDIR'
  | 'READDIR'
  | 'STAT'
  | 'LSTAT'
  | 'FSTAT'
  | 'SETSTAT'
  | 'RENAME'
  | 'REMOVE'
  | 'MKDIR'
  | 'REALPATH';

/** Read anew at every request: tests switch faults on and off while the server runs. */
export interface SftpFaults {
  /** These requests are taken and never answered. */
  silent?: readonly SftpOperation[];
  /** The connection is cut when one of these comes in. */
  cut?: readonly SftpOperation[];
  /** These are refused for want of rights. */
  deny?: readonly SftpOperation[];
  /** After so many file bytes read or written over all connections, requests are no more answered. */
  stallAfterBytes?: number;
  /** After so many file bytes read or written over all connections, the connection is cut. */
  dropAfterBytes?: number;
  refuseRename?: boolean;
  /** Some servers overwrite, against version 3. */
  overwriteOnRename?: boolean;
  /** The rename is done, and the connection is cut instead of the answer. */
  loseRenameAnswer?: boolean;
  /** The disk is full: every write fails. */
  refuseWrite?: boolean;
  /** After so many file bytes read or written over all connections, writes fail. */
  fullAfterBytes?: number;
  /** Writes are confirmed, and nothing of them is kept. */
  loseWrites?: boolean;
  /** Reading goes on after the end of each file, for ever. */
  readWithoutEnd?: boolean;
  /** Stand in every listing, whether there are such files or not. */
  listed?: readonly { name: string; sizeBytes: number; mode: number }[];
}

export interface SftpServer {
  readonly port: number;
  /** `SHA256:...`, to be pinned. */
  readonly hostKeyFingerprint: string;
  readonly faults: SftpFaults;
  /** `authenticationAttempts` counts what clients tried, refused or not. */
  readonly counts: { connections: number; authenticationAttempts: number; fileBytes: number };
  stop(): Promise<void>;
}

export interface SftpServerOptions {
  /** OpenSSH private key text. */
  readonly hostKey: string;
  readonly accounts: readonly SftpAccount[];
  /** 0: any free port. */
  readonly port?: number;
  readonly host?: string;
  readonly faults?: SftpFaults;
}

/** A new ed25519 key. */
export function makeKeyPair(): KeyPair {
  for (;;) {
    const pair = ssh2.utils.generateKeyPairSync('ed25519');
    // About 1 pair in 150 that ssh2 1.17 makes cannot be read again by its own parser.
    if (isUsable(pair)) return { privateKey: pair.private, publicKey: pair.public };
  }
}

function isUsable(pair: { private: string; public: string }): boolean {
  const secret = ssh2.utils.parseKey(pair.private);
  const open = ssh2.utils.parseKey(pair.public);
  if (secret instanceof Error || open instanceof Error) return false;
  const message = Buffer.from('seikyu');
  const signature = parseKey(pair.private).sign(message);
  return Buffer.isBuffer(signature) && parseKey(pair.public).verify(message, signature) === true;
}

export function publicKeyFingerprint(key: string): string {
  const parsed = parseKey(key);
  return fingerprintOf(parsed.getPublicSSH());
}

function fingerprintOf(publicKey: Buffer): string {
  return `SHA256:${createHash('sha256').update(publicKey).digest('base64').replace(/=+$/, '')}`;
}

/** Whether an SSH server with this host key listens there. Nothing is said to it after its key. */
export function answersWithKey(port: number, fingerprint: string): Promise<boolean> {
  const client = new ssh2.Client();
  return new Promise((resolve) => {
    const answer = (isIt: boolean) => {
      resolve(isIt);
      client.destroy();
    };
    client.on('error', () => answer(false));
    client.on('end', () => answer(false));
    client.on('close', () => answer(false));
    client.connect({
      host: '127.0.0.1',
      port,
      username: 'nobody',
      readyTimeout: 3_000,
      hostVerifier: (key: Buffer) => {
        answer(fingerprintOf(key) === fingerprint);
        return false;
      },
    });
  });
}

/** A real SFTP server in this process, for the demo and the tests: keys only, each account in its own folder. */
export async function startSftpServer(options: SftpServerOptions): Promise<SftpServer> {
  const faults: SftpFaults = options.faults ?? {};
  const counts = { connections: 0, authenticationAttempts: 0, fileBytes: 0 };
  const accounts = new Map<string, { key: ReturnType<typeof parseKey>; root: string }>();
  for (const account of options.accounts) {
    await mkdir(account.root, { recursive: true, mode: 0o700 });
    accounts.set(account.username, {
      key: parseKey(account.publicKey),
      root: await realpath(account.root),
    });
  }
  const handshakes = new ssh2.Server({ hostKeys: [options.hostKey] }, (connection) => {
    counts.connections += 1;
    // A client that goes away without a word is no fault of the server.
    connection.on('error', () => connection.end());
    let root: string | undefined;
    connection.on('authentication', (context) => {
      counts.authenticationAttempts += 1;
      const account = accounts.get(context.username);
      if (account !== undefined && holdsKey(context, account.key)) {
        root = account.root;
        context.accept();
      } else context.reject(['publickey']);
    });
    connection.on('session', (acceptSession) => {
      acceptSession().on('sftp', (acceptSftp) => {
        if (root === undefined) return;
        serve(acceptSftp(), root, faults, counts, () => connection.end());
      });
    });
  });
  // The listener is ours: stopping must also end clients that no longer read.
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    handshakes.injectSocket(socket);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(options.port ?? 0, options.host ?? '127.0.0.1', () => {
      listener.off('error', reject);
      resolve();
    });
  });
  return {
    port: (listener.address() as AddressInfo).port,
    hostKeyFingerprint: publicKeyFingerprint(options.hostKey),
    faults,
    counts,
    async stop() {
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

type OpenHandle =
  | { readonly type: 'file'; readonly file: FileHandle; readonly append: boolean }
  | { readonly type: 'folder'; entries: FileEntry[] | undefined };

class Refused extends Error {
  readonly status: number;
  constructor(status: number) {
    super(`status ${status}`);
    this.status = status;
  }
}

function serve(
  sftp: SFTPWrapper,
  root: string,
  faults: SftpFaults,
  counts: SftpServer['counts'],
  cut: () => void,
): void {
  const handles = new Map<number, OpenHandle>();
  let nextHandle = 1;

  // One request after the other, as they came: a READ may not overtake the WRITE before it.
  let queue: Promise<void> = Promise.resolve();
  const answer = (operation: SftpOperation, request: number, work: () => Promise<void>): void => {
    if (faults.silent?.includes(operation)) return;
    if (faults.cut?.includes(operation)) {
      cut();
      return;
    }
    queue = queue.then(async () => {
      try {
        if (faults.deny?.includes(operation)) throw new Refused(STATUS_CODE.PERMISSION_DENIED);
        await work();
      } catch (error) {
        sftp.status(request, error instanceof Refused ? error.status : statusOf(error));
      }
    });
  };
  const take = (handle: Buffer): OpenHandle => {
    const found = handle.length === 4 ? handles.get(handle.readUInt32BE(0)) : undefined;
    if (found === undefined) throw new Refused(STATUS_CODE.FAILURE);
    return found;
  };
  const give = (request: number, opened: OpenHandle): void => {
    const handle = Buffer.alloc(4);
    handle.writeUInt32BE(nextHandle, 0);
    handles.set(nextHandle, opened);
    nextHandle += 1;
    sftp.handle(request, handle);
  };
  /** Whether the request may be answered, after these bytes of file content. */
  const passes = (bytes: number): boolean => {
    counts.fileBytes += bytes;
    if (faults.dropAfterBytes !== undefined && counts.fileBytes > faults.dropAfterBytes) {
      cut();
      return false;
    }
    return faults.stallAfterBytes === undefined || counts.fileBytes <= faults.stallAfterBytes;
  };

  sftp.on('OPEN', (request, path, flags) =>
    answer('OPEN', request, async () => {
      const local = await inside(root, path);
      const writing = (flags & OPEN_MODE.WRITE) !== 0;
      let mode =
        (flags & OPEN_MODE.READ) !== 0
          ? writing
            ? constants.O_RDWR
            : constants.O_RDONLY
          : constants.O_WRONLY;
      if (flags & OPEN_MODE.CREAT) mode |= constants.O_CREAT;
      if (flags & OPEN_MODE.TRUNC) mode |= constants.O_TRUNC;
      if (flags & OPEN_MODE.EXCL) mode |= constants.O_EXCL;
      if (flags & OPEN_MODE.APPEND) mode |= constants.O_APPEND;
      const file = await openFile(local, mode);
      give(request, { type: 'file', file, append: (flags & OPEN_MODE.APPEND) !== 0 });
    }),
  );
  sftp.on('READ', (request, handle, offset, length) =>
    answer('READ', request, async () => {
      const opened = take(handle);
      if (opened.type !== 'file') throw new Refused(STATUS_CODE.FAILURE);
      const buffer = Buffer.alloc(Math.min(length, 65_536));
      const { bytesRead } = await opened.file.read(buffer, 0, buffer.length, offset);
      if (!passes(bytesRead)) return;
      if (bytesRead === 0 && faults.readWithoutEnd) sftp.data(request, Buffer.alloc(65_536));
      else if (bytesRead === 0) sftp.status(request, STATUS_CODE.EOF);
      else sftp.data(request, buffer.subarray(0, bytesRead));
    }),
  );
  sftp.on('WRITE', (request, handle, offset, data) =>
    answer('WRITE', request, async () => {
      const opened = take(handle);
      const full = counts.fileBytes + data.length > (faults.fullAfterBytes ?? Number.POSITIVE_INFINITY);
      if (opened.type !== 'file' || faults.refuseWrite || full) throw new Refused(STATUS_CODE.FAILURE);
      if (!faults.loseWrites) await opened.file.write(data, 0, data.length, opened.append ? null : offset);
      if (passes(data.length)) sftp.status(request, STATUS_CODE.OK);
    }),
  );
  sftp.on('CLOSE', (request, handle) =>
    answer('CLOSE', request, async () => {
      const opened = take(handle);
      handles.delete(handle.readUInt32BE(0));
      if (opened.type === 'file') await opened.file.close();
      sftp.status(request, STATUS_CODE.OK);
    }),
  );
  sftp.on('OPENDIR', (request, path) =>
    answer('OPENDIR', request, async () => {
      const local = await insideFollowed(root, path);
      const entries: FileEntry[] = [];
      for (const name of await readdir(local)) {
        const stats = await lstat(join(local, name));
        entries.push({ filename: name, longname: longname(name, stats), attrs: attributes(stats) });
      }
      for (const { name, sizeBytes: size, mode } of faults.listed ?? [])
        entries.push({
          filename: name,
          longname: '',
          attrs: { mode, size, uid: 0, gid: 0, atime: 0, mtime: 0 },
        });
      give(request, { type: 'folder', entries });
    }),
  );
  sftp.on('READDIR', (request, handle) =>
    answer('READDIR', request, async () => {
      const opened = take(handle);
      if (opened.type !== 'folder') throw new Refused(STATUS_CODE.FAILURE);
      const entries = opened.entries?.splice(0, 100) ?? [];
      if (entries.length === 0) sftp.status(request, STATUS_CODE.EOF);
      else sftp.name(request, entries);
    }),
  );
  sftp.on('STAT', (request, path) =>
    answer('STAT', request, async () =>
      sftp.attrs(request, attributes(await stat(await insideFollowed(root, path)))),
    ),
  );
  sftp.on('LSTAT', (request, path) =>
    answer('LSTAT', request, async () =>
      sftp.attrs(request, attributes(await lstat(await inside(root, path)))),
    ),
  );
  sftp.on('FSTAT', (request, handle) =>
    answer('FSTAT', request, async () => {
      const opened = take(handle);
      if (opened.type !== 'file') throw new Refused(STATUS_CODE.FAILURE);
      sftp.attrs(request, attributes(await opened.file.stat()));
    }),
  );
  const ignoreAttributes = (request: number): void =>
    answer('SETSTAT', request, async () => sftp.status(request, STATUS_CODE.OK));
  sftp.on('SETSTAT', ignoreAttributes);
  sftp.on('FSETSTAT', ignoreAttributes);
  sftp.on('RENAME', (request, from, to) =>
    answer('RENAME', request, async () => {
      if (faults.refuseRename) throw new Refused(STATUS_CODE.FAILURE);
      const source = await inside(root, from);
      const target = await inside(root, to);
      if (faults.overwriteOnRename) await rename(source, target);
      else await renameWithoutOverwriting(source, target);
      if (faults.loseRenameAnswer) cut();
      else sftp.status(request, STATUS_CODE.OK);
    }),
  );
  sftp.on('REMOVE', (request, path) =>
    answer('REMOVE', request, async () => {
      await unlink(await inside(root, path));
      sftp.status(request, STATUS_CODE.OK);
    }),
  );
  sftp.on('MKDIR', (request, path) =>
    answer('MKDIR', request, async () => {
      await mkdir(await inside(root, path), { mode: 0o700 });
      sftp.status(request, STATUS_CODE.OK);
    }),
  );
  sftp.on('REALPATH', (request, path) =>
    answer('REALPATH', request, async () => {
      const filename = posix.resolve('/', path);
      sftp.name(request, [{ filename, longname: filename, attrs: {} as Attributes }]);
    }),
  );
  sftp.on('close', () => {
    queue = queue.then(async () => {
      for (const opened of handles.values()) if (opened.type === 'file') await opened.file.close();
      handles.clear();
    });
  });
}

/** Version 3 has no overwriting rename. */
async function renameWithoutOverwriting(source: string, target: string): Promise<void> {
  try {
    // Fails where the target exists, in one step.
    await link(source, target);
  } catch (error) {
    // Some mounted volumes know no hard links: there, looking first has to do.
    if (!['EPERM', 'ENOSYS', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    const taken = await lstat(target).then(
      () => true,
      () => false,
    );
    if (taken) throw new Refused(STATUS_CODE.FAILURE);
    await rename(source, target);
    return;
  }
  await unlink(source);
}

/** The local path of a remote one. Its folder must really lie in the account's; the last part is not followed. */
async function inside(root: string, path: string): Promise<string> {
  if (path.includes('\0')) throw new Refused(STATUS_CODE.FAILURE);
  const virtual = posix.resolve('/', path);
  if (virtual === '/') return root;
  const folder = await realpath(join(root, dirname(virtual)));
  if (!lies(root, folder)) throw new Refused(STATUS_CODE.PERMISSION_DENIED);
  return join(folder, basename(virtual));
}

async function insideFollowed(root: string, path: string): Promise<string> {
  const local = await realpath(await inside(root, path));
  if (!lies(root, local)) throw new Refused(STATUS_CODE.PERMISSION_DENIED);
  return local;
}

function lies(root: string, local: string): boolean {
  return local === root || local.startsWith(root + sep);
}

async function openFile(local: string, mode: number): Promise<FileHandle> {
  const file = await open(local, mode | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new Refused(STATUS_CODE.FAILURE);
}

function statusOf(error: unknown): number {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return STATUS_CODE.NO_SUCH_FILE;
    case 'EACCES':
    case 'EPERM':
    case 'ELOOP':
      return STATUS_CODE.PERMISSION_DENIED;
    default:
      return STATUS_CODE.FAILURE;
  }
}

function attributes(stats: Stats): Attributes {
  return {
    mode: stats.mode,
    uid: stats.uid,
    gid: stats.gid,
    size: stats.size,
    atime: Math.floor(stats.atimeMs / 1000),
    mtime: Math.floor(stats.mtimeMs / 1000),
  };
}

function longname(name: string, stats: Stats): string {
  const type = stats.isDirectory() ? 'd' : stats.isSymbolicLink() ? 'l' : stats.isFile() ? '-' : 'p';
  return `${type}rw-------    1 ${stats.uid} ${stats.gid} ${stats.size} Jan  1 00:00 ${name}`;
}

function holdsKey(context: AuthContext, key: ReturnType<typeof parseKey>): boolean {
  if (context.method !== 'publickey') return false;
  if (context.key.algo !== key.type || !context.key.data.equals(key.getPublicSSH())) return false;
  // Without a signature the client only asks whether the key would do.
  if (context.signature === undefined || context.blob === undefined) return true;
  return key.verify(context.blob, context.signature, context.hashAlgo) === true;
}

function parseKey(text: string) {
  const parsed = ssh2.utils.parseKey(text);
  if (parsed instanceof Error) throw new TypeError(`not a key: ${parsed.message}`);
  return Array.isArray(parsed) ? parsed[0] : parsed;
}
