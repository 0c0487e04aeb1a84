import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import type { FileEntryWithStats, SFTPWrapper, Stats } from 'ssh2';
import SftpClient from 'ssh2-sftp-client';
import type { Clock } from '../billing/ports.ts';
import { Refusal } from '../billing/refusal.ts';
import type { OpenRemoteStore, RemoteEntry, RemoteStore, SftpConnection } from './store.ts';

export interface SftpSettings {
  readonly clock: Pick<Clock, 'deadline' | 'elapsedMs'>;
  /** From the first packet to the open SFTP channel; 20 s unless told. */
  readonly connectDeadlineMs?: number;
  /** For each request, and for each piece of a transfer; 30 s unless told. */
  readonly callDeadlineMs?: number;
  /** A connection may last this long, and longer only while it moves `paceBytesPerSecond`; 5 minutes unless told. */
  readonly patienceMs?: number;
}

const pieceBytes = 65_536;
const closeDeadlineMs = 2_000;
/** A server that sends a byte now and then keeps every call's deadline, and would hold up the other merchants for days. */
const paceBytesPerSecond = 256 * 1024;
/** A folder with more entries is not what was agreed; reading it must not cost the memory. */
const entriesMax = 100_000;

/** A server has a key of each kind; which one it shows is settled before we can compare it with the pins. */
const hostKeyKinds = [
  ['ssh-ed25519'],
  ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521'],
  ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-rsa'],
] as const;

// SSH_FX_ status codes of SFTP version 3.
const endOfFile = 1;
const noSuchFile = 2;
const permissionDenied = 3;

/** `SHA256:` and the unpadded base64 of the key's digest, as `ssh-keygen -l` shows it. */
export function hostKeyFingerprint(publicKey: Uint8Array): string {
  return `SHA256:${createHash('sha256').update(publicKey).digest('base64').replace(/=+$/, '')}`;
}

/** SFTP over SSH with a key of ours and pinned host keys. No password, no agent, no unknown host. */
export function openSftpStore(settings: SftpSettings): OpenRemoteStore {
  return (connection) => open(connection, settings);
}

async function open(connection: SftpConnection, settings: SftpSettings): Promise<RemoteStore> {
  const { host, port, username } = connection;
  const context = { host, port, username };
  const pins = connection.hostKeys.map((pin) => pin.replace(/=+$/, ''));
  if (pins.length === 0) {
    throw new Refusal('SFTP_HOST_KEY_UNPINNED', `no host key is pinned for ${host}`, {
      next: 'Add the fingerprint that the partner gave you to exchange.sftp.host_keys.',
      context,
      exitCode: 2,
    });
  }
  const deadlineMs = settings.connectDeadlineMs ?? 20_000;
  const deadline = settings.clock.deadline(deadlineMs);
  const presented: string[] = [];
  let algorithms: HostKeyAlgorithm[] = hostKeyKinds.flat();
  for (;;) {
    const opening = new Opening(connection, pins, algorithms);
    try {
      const wrapper = await race(opening.connect(), deadline, undefined);
      return new SftpStore(opening.client, wrapper, opening.socket, connection, settings);
    } catch (error) {
      opening.socket.destroy();
      if (error instanceof Expired) {
        throw new Refusal('SFTP_TIMEOUT', `${host}:${port} did not let us in within ${deadlineMs} ms`, {
          next: 'It is tried again by itself. If it stays so, ask the partner whether the server is up.',
          context,
          cause: error,
        });
      }
      const shown = opening.presented;
      if (shown !== undefined && !pins.includes(shown.fingerprint)) {
        presented.push(shown.fingerprint);
        const others = algorithms.filter(
          (name) => !hostKeyKinds.some((kind) => includes(kind, shown.type) && includes(kind, name)),
        );
        if (others.length > 0 && others.length < algorithms.length) {
          algorithms = others;
          continue;
        }
      }
      if (presented.length > 0 && (shown === undefined || !pins.includes(shown.fingerprint))) {
        throw new Refusal(
          'SFTP_HOST_KEY_CHANGED',
          `${host} shows a host key that is not pinned: ${presented[0]}`,
          {
            next: 'Ask the partner, by telephone, whether the key was changed. Only then pin the new fingerprint. Nothing was sent.',
            context: { ...context, presented: presented.join(' ') },
            exitCode: 3,
            cause: error,
          },
        );
      }
      if (opening.level === 'client-authentication') {
        throw new Refusal('SFTP_AUTH_REFUSED', `${host} refuses the key of ${username}`, {
          next: 'Check that the partner has installed our public key for this user name.',
          context,
          cause: error,
        });
      }
      if (/privateKey|private key/i.test(messageOf(error))) {
        throw new Refusal('SFTP_KEY_UNUSABLE', `the private key for ${username} cannot be read`, {
          next: 'Check exchange.sftp.private_key_file: an OpenSSH or PEM private key without passphrase.',
          context,
          exitCode: 2,
        });
      }
      throw unreachable(context, error);
    }
  }
}

type HostKeyAlgorithm = (typeof hostKeyKinds)[number][number];

/** One connection up to its open channel, with the kinds of host key that it takes. */
class Opening {
  readonly client: SftpClient;
  // Our own socket: a library call that never settles can then always be cut off, in any phase.
  // Without noDelay each request waits 40 ms for the other side's delayed acknowledgement.
  readonly socket: Socket;
  presented: { type: string; fingerprint: string } | undefined;
  level: string | undefined;
  readonly #connection: SftpConnection;
  readonly #pins: readonly string[];
  readonly #algorithms: HostKeyAlgorithm[];

  constructor(connection: SftpConnection, pins: readonly string[], algorithms: HostKeyAlgorithm[]) {
    this.#connection = connection;
    this.#pins = pins;
    this.#algorithms = algorithms;
    this.client = new SftpClient('seikyu', {
      error: () => undefined,
      end: () => undefined,
      close: () => undefined,
    });
    this.client.on('error', (error: { level?: string }) => {
      this.level ??= error.level;
    });
    this.socket = connect({ host: connection.host, port: connection.port, noDelay: true });
  }

  connect(): Promise<SFTPWrapper> {
    const { username, privateKey } = this.#connection;
    return this.client.connect({
      sock: this.socket,
      username,
      privateKey,
      authHandler: ['publickey'],
      readyTimeout: 0,
      algorithms: { serverHostKey: this.#algorithms },
      hostVerifier: (key: Buffer) => {
        const fingerprint = hostKeyFingerprint(key);
        this.presented = { type: keyType(key), fingerprint };
        return this.#pins.includes(fingerprint);
      },
    });
  }
}

/** A public key begins with the name of its type; an RSA key is `ssh-rsa` whatever it signs with. */
function keyType(key: Buffer): string {
  return key.length < 4 ? '' : key.subarray(4, 4 + key.readUInt32BE(0)).toString('latin1');
}

function includes(kind: readonly string[], name: string): boolean {
  return kind.includes(name);
}

class SftpStore implements RemoteStore {
  readonly #client: SftpClient;
  readonly #sftp: SFTPWrapper;
  readonly #socket: Socket;
  readonly #connection: SftpConnection;
  readonly #settings: SftpSettings;
  readonly #ended = new AbortController();
  readonly #openedMs: number;
  #movedBytes = 0;
  #dead = false;

  constructor(
    client: SftpClient,
    sftp: SFTPWrapper,
    socket: Socket,
    connection: SftpConnection,
    settings: SftpSettings,
  ) {
    this.#client = client;
    this.#sftp = sftp;
    this.#socket = socket;
    this.#connection = connection;
    this.#settings = settings;
    this.#openedMs = settings.clock.elapsedMs();
    // A request in flight when the connection breaks may never be answered: all of them end with the socket.
    socket.once('close', () => {
      this.#dead = true;
      this.#ended.abort();
    });
    if (socket.destroyed) this.#ended.abort();
    // A channel closed by the server while the socket lives would leave requests waiting for their deadline.
    sftp.once('close', () => socket.destroy());
  }

  async list(folder: string): Promise<RemoteEntry[]> {
    const handle = await this.#call<Buffer>('list', folder, (done) => this.#sftp.opendir(folder, done));
    const entries: RemoteEntry[] = [];
    try {
      for (;;) {
        const piece = await this.#call<FileEntryWithStats[] | null>('list', folder, (done) =>
          this.#sftp.readdir(handle, (error, list) =>
            isEnd(error) ? done(undefined, null) : done(error, list),
          ),
        );
        if (piece === null) return entries;
        for (const { filename, attrs, longname } of piece) {
          if (filename !== '.' && filename !== '..')
            entries.push(remoteEntry(filename, attrs as Stats, longname));
        }
        if (entries.length > entriesMax) throw this.#tooMany(folder);
      }
    } finally {
      await this.#closeHandle(handle, folder);
    }
  }

  async stat(path: string): Promise<RemoteEntry | undefined> {
    try {
      // lstat: a link must be seen as one. Not the library's, which takes every failure for an absent file.
      const stats = await this.#call<Stats>('stat', path, (done) => this.#sftp.lstat(path, done));
      return remoteEntry(path.slice(path.lastIndexOf('/') + 1), stats, '');
    } catch (error) {
      if (error instanceof Refusal && error.code === 'SFTP_NOT_FOUND') return undefined;
      throw error;
    }
  }

  async *download(path: string): AsyncGenerator<Buffer> {
    const handle = await this.#call<Buffer>('download', path, (done) => this.#sftp.open(path, 'r', done));
    try {
      for (let position = 0; ; ) {
        // One request at a time and a buffer of its own for each: memory stays at one piece however slow the reader.
        const buffer = Buffer.allocUnsafe(pieceBytes);
        const at = position;
        const count = await this.#call<number>('download', path, (done) =>
          this.#sftp.read(handle, buffer, 0, pieceBytes, at, (error, bytesRead) => done(error, bytesRead)),
        );
        if (count === 0) return;
        position += count;
        this.#movedBytes += count;
        yield buffer.subarray(0, count);
      }
    } finally {
      await this.#closeHandle(handle, path);
    }
  }

  async upload(path: string, content: AsyncIterable<Uint8Array>): Promise<number> {
    const handle = await this.#call<Buffer>('upload', path, (done) => this.#sftp.open(path, 'w', done));
    let position = 0;
    try {
      for await (const piece of inPieces(content)) {
        const at = position;
        await this.#call<void>('upload', path, (done) =>
          this.#sftp.write(handle, piece, 0, piece.length, at, (error) => done(error, undefined)),
        );
        position += piece.length;
        this.#movedBytes += piece.length;
      }
    } catch (error) {
      await this.#closeHandle(handle, path);
      throw error;
    }
    await this.#call<void>('upload', path, (done) =>
      this.#sftp.close(handle, (error) => done(error, undefined)),
    );
    return position;
  }

  async rename(from: string, to: string): Promise<void> {
    // Version 3 must not overwrite, but not every server knows that: look first.
    if ((await this.stat(to)) !== undefined) throw this.#exists(to);
    try {
      await this.#run('rename', from, this.#client.rename(from, to));
    } catch (error) {
      const answered = error instanceof Refusal && error.code !== 'SFTP_TIMEOUT' && !this.#dead;
      // The server's plain "failure" does not say why: someone may have been faster.
      if (answered && (await this.stat(to)) !== undefined) throw this.#exists(to);
      throw error;
    }
  }

  async remove(path: string): Promise<void> {
    await this.#run('remove', path, this.#client.delete(path));
  }

  async close(): Promise<void> {
    if (this.#dead) return;
    const ended = this.#client.end().catch(() => undefined);
    try {
      await race(ended, this.#settings.clock.deadline(closeDeadlineMs), this.#ended.signal);
    } catch (error) {
      if (!(error instanceof Expired) && !(error instanceof Broken)) throw error;
    } finally {
      this.#dead = true;
      this.#socket.destroy();
    }
  }

  #call<T>(
    operation: string,
    path: string,
    start: (done: (error: Error | null | undefined, value: T) => void) => unknown,
  ): Promise<T> {
    return this.#run(
      operation,
      path,
      new Promise<T>((resolve, reject) => {
        start((error, value) => (error ? reject(error) : resolve(value)));
      }),
    );
  }

  async #run<T>(operation: string, path: string, work: Promise<T>): Promise<T> {
    const { host, port, username } = this.#connection;
    const context = { host, port, username, operation, path };
    const deadlineMs = this.#settings.callDeadlineMs ?? 30_000;
    try {
      const value = await race(work, this.#settings.clock.deadline(deadlineMs), this.#ended.signal);
      this.#holdPace(context);
      return value;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      if (error instanceof Expired) {
        this.#dead = true;
        this.#socket.destroy();
        throw new Refusal('SFTP_TIMEOUT', `${host} did not answer within ${deadlineMs} ms`, {
          next: 'It is tried again by itself on a new connection. If it stays so, ask the partner.',
          context,
          cause: error,
        });
      }
      if (error instanceof Broken || this.#dead || this.#socket.destroyed) throw unreachable(context, error);
      throw remoteError(context, error);
    }
  }

  #holdPace(context: Context): void {
    const { clock, patienceMs = 5 * 60_000 } = this.#settings;
    const allowedMs = patienceMs + (this.#movedBytes / paceBytesPerSecond) * 1000;
    if (clock.elapsedMs() - this.#openedMs <= allowedMs) return;
    this.#dead = true;
    this.#socket.destroy();
    throw new Refusal('SFTP_TOO_SLOW', `${context.host} answers too slowly to be waited for`, {
      next: 'It is tried again by itself; the other merchants go on. If it stays so, ask the partner.',
      context: { ...context, movedBytes: this.#movedBytes },
    });
  }

  #tooMany(folder: string): Refusal {
    const { host, port, username } = this.#connection;
    return new Refusal('SFTP_FOLDER_TOO_LARGE', `a folder on ${host} has more than ${entriesMax} entries`, {
      next: 'Ask the partner to clear the folder: only files for us and from us belong there.',
      context: { host, port, username, operation: 'list', path: folder },
    });
  }

  /** After a failure or an early end: the transfer is lost anyway, and the connection's end frees the handle too. */
  async #closeHandle(handle: Buffer, path: string): Promise<void> {
    if (this.#dead) return;
    try {
      await this.#call<void>('close', path, (done) =>
        this.#sftp.close(handle, (error) => done(error, undefined)),
      );
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
    }
  }

  #exists(path: string): Refusal {
    const { host, port, username } = this.#connection;
    return new Refusal('SFTP_EXISTS', `there is already a file of this name on ${host}`, {
      next: 'Compare it with ours. The same content means an earlier try went through; other content is never overwritten.',
      context: { host, port, username, operation: 'rename', path },
    });
  }
}

class Expired extends Error {}
class Broken extends Error {}

/** First of: the work, the deadline, the end of the connection. Work that loses is left to settle unheard. */
function race<T>(work: Promise<T>, deadline: AbortSignal, ended: AbortSignal | undefined): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const expire = (): void => settle(() => reject(new Expired()));
    const end = (): void => settle(() => reject(new Broken()));
    // Listeners are taken off again: a transfer of 4 GiB makes 65,000 calls on one connection.
    const settle = (act: () => void): void => {
      deadline.removeEventListener('abort', expire);
      ended?.removeEventListener('abort', end);
      act();
    };
    deadline.addEventListener('abort', expire, { once: true });
    ended?.addEventListener('abort', end, { once: true });
    work.then(
      (value) => settle(() => resolve(value)),
      (error) => settle(() => reject(error)),
    );
    if (ended?.aborted) end();
    else if (deadline.aborted) expire();
  });
}

type Context = Record<string, string | number>;

function isEnd(error: Error | undefined): boolean {
  return (error as { code?: unknown } | undefined)?.code === endOfFile;
}

function unreachable(context: Context, cause: unknown): Refusal {
  return new Refusal('SFTP_UNREACHABLE', `no connection to ${context.host}:${context.port}`, {
    next: 'It is tried again by itself. If it stays so, check host and port, and ask the partner whether the server is up.',
    context,
    cause,
  });
}

function remoteError(context: Context, cause: unknown): Refusal {
  const status = (cause as { code?: unknown }).code;
  if (status === noSuchFile) {
    return new Refusal('SFTP_NOT_FOUND', `there is no such file or folder on ${context.host}`, {
      next: 'Check the folder names under exchange, and whether someone moved the file.',
      context,
      cause,
    });
  }
  if (status === permissionDenied) {
    return new Refusal('SFTP_DENIED', `${context.host} denies the operation`, {
      next: 'Ask the partner to give this user the right to read, write and rename in the agreed folders.',
      context,
      cause,
    });
  }
  return new Refusal('SFTP_REMOTE_ERROR', `${context.host} answers with an error`, {
    next: 'It is tried again by itself. If it stays so, the disk or quota on the server may be full: ask the partner.',
    context: typeof status === 'number' ? { ...context, status } : context,
    cause,
  });
}

const typeBits = 0o170000;

function remoteEntry(name: string, stats: Stats, longname: string): RemoteEntry {
  return {
    name,
    kind: kindOf(stats.mode, longname),
    // Whatever a server tells, it is a number that can be compared and stored.
    sizeBytes: Math.min(stats.size ?? 0, Number.MAX_SAFE_INTEGER),
    modifiedAtEpochS: stats.mtime ?? 0,
  };
}

function kindOf(mode: number | undefined, longname: string): RemoteEntry['kind'] {
  switch ((mode ?? 0) & typeBits) {
    case 0o100000:
      return 'file';
    case 0o040000:
      return 'directory';
    case 0o120000:
      return 'link';
    case 0:
      break;
    default:
      return 'other';
  }
  // Servers that send no mode show the type as `ls -l` does. In doubt it is not a file and stays where it is.
  if (longname.startsWith('-')) return 'file';
  if (longname.startsWith('d')) return 'directory';
  return longname.startsWith('l') ? 'link' : 'other';
}

/** Small chunks are joined and large ones cut: one request per piece of 64 KiB. */
async function* inPieces(content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  for await (const chunk of content) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + pieceBytes - waitingBytes);
      waiting.push(part);
      waitingBytes += part.length;
      at += part.length;
      if (waitingBytes === pieceBytes) {
        yield Buffer.concat(waiting);
        waiting = [];
        waitingBytes = 0;
      }
    }
  }
  if (waitingBytes > 0) yield Buffer.concat(waiting);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
