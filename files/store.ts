/** One entry of a remote folder. `name` is untrusted data: never a local path, shown only escaped. */
export interface RemoteEntry {
  readonly name: string;
  /** Only `file` may be taken. Links are not followed. */
  readonly kind: 'file' | 'directory' | 'link' | 'other';
  readonly sizeBytes: number;
  readonly modifiedAtEpochS: number;
}

/**
 * A partner's folder, over one connection. Every call has a deadline. Refusals: SFTP_TIMEOUT (the connection is gone
 * afterwards, and what the call did is unknown), SFTP_UNREACHABLE (the connection broke; unknown likewise),
 * SFTP_TOO_SLOW (given up like a timeout), SFTP_NOT_FOUND, SFTP_DENIED, SFTP_EXISTS, SFTP_REMOTE_ERROR (the server said
 * no), SFTP_FOLDER_TOO_LARGE.
 */
export interface RemoteStore {
  list(folder: string): Promise<RemoteEntry[]>;
  /** Undefined where there is nothing. A link is reported as itself. */
  stat(path: string): Promise<RemoteEntry | undefined>;
  /** The deadline runs anew for each piece. Whether all bytes came, only a comparison with `stat` can tell. */
  download(path: string): AsyncIterable<Buffer>;
  /** Overwrites: upload under a temporary name. Returns the bytes that the server confirmed. */
  upload(path: string, content: AsyncIterable<Uint8Array>): Promise<number>;
  /** Refuses with SFTP_EXISTS where `to` is taken. */
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Never throws. */
  close(): Promise<void>;
}

export interface SftpConnection {
  readonly host: string;
  readonly port: number;
  readonly username: string;
  /** OpenSSH or PEM text, without passphrase. */
  readonly privateKey: string;
  /** One or two `SHA256:...` fingerprints: two while the partner changes its host key. */
  readonly hostKeys: readonly string[];
}

/**
 * Refusals: SFTP_HOST_KEY_CHANGED (before anything was said about who we are), SFTP_HOST_KEY_UNPINNED,
 * SFTP_KEY_UNUSABLE, SFTP_AUTH_REFUSED, SFTP_UNREACHABLE, SFTP_TIMEOUT.
 */
export type OpenRemoteStore = (connection: SftpConnection) => Promise<RemoteStore>;
