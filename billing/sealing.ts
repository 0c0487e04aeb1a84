import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import type { Randomness } from './ports.ts';

const purposes = ['contact', 'method', 'outbox', 'digest', 'archive', 'link', 'cookie', 'webhook'] as const;

export type Purpose = (typeof purposes)[number];

/** `id` is the generation of the secret, 1 to 255, written in front of what the key has sealed. A KeyObject shows nothing in a log. */
export interface Key {
  id: number;
  key: KeyObject;
}

export type Keys = Record<Purpose, Key>;

/** One 256-bit key for each purpose by HKDF-SHA256, so that none tells anything about another. `secret` is SEIKYU_SECRET. */
export function deriveKeys(secret: string, id = 1): Keys {
  if (!Number.isInteger(id) || id < 1 || id > 255)
    throw new RangeError(`key id ${id} is not within 1 to 255`);
  const derive = (purpose: Purpose): Key => ({
    id,
    key: createSecretKey(Buffer.from(hkdfSync('sha256', secret, 'seikyu', `${purpose}/${id}`, 32))),
  });
  return Object.fromEntries(purposes.map((purpose) => [purpose, derive(purpose)])) as Keys;
}

/** The value was not sealed with any of these keys for this place, or was changed since. */
export class SealBroken extends Error {
  constructor(reason: string, cause?: unknown) {
    super(`a sealed value cannot be opened: ${reason}`, { cause });
    this.name = 'SealBroken';
  }
}

const nonceBytes = 12;
const tagBytes = 16;
const headBytes = 1 + nonceBytes + tagBytes;

/**
 * AES-256-GCM: 1 byte key id, 12 nonce, 16 tag, ciphertext. `associatedData` says where the value belongs (merchant,
 * table, row), so that it cannot be moved elsewhere. Random nonces are safe for 2^32 values under one key.
 */
export function seal(
  key: Key,
  plaintext: string | Uint8Array,
  associatedData: string | Uint8Array,
  randomness: Randomness,
): Buffer {
  const nonce = randomness.bytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key.key, nonce, { authTagLength: tagBytes });
  cipher.setAAD(asBytes(associatedData));
  const body = cipher.update(asBytes(plaintext));
  // GCM is a stream: final() gives no bytes, only the tag.
  cipher.final();
  const sealed = Buffer.allocUnsafe(headBytes + body.length);
  sealed[0] = key.id;
  sealed.set(nonce, 1);
  sealed.set(cipher.getAuthTag(), 1 + nonceBytes);
  sealed.set(body, headBytes);
  return sealed;
}

/** `keys`: the current key of the purpose and the older ones still in use. Throws SealBroken. */
export function open(
  keys: Key | readonly Key[],
  sealed: Uint8Array,
  associatedData: string | Uint8Array,
): Buffer {
  const known: readonly Key[] = Array.isArray(keys) ? keys : [keys as Key];
  const key = known.find((candidate) => candidate.id === sealed[0]);
  if (sealed.length < headBytes) throw new SealBroken('it is too short');
  if (!key) throw new SealBroken(`there is no key with id ${sealed[0]}`);
  const decipher = createDecipheriv('aes-256-gcm', key.key, sealed.subarray(1, 1 + nonceBytes), {
    authTagLength: tagBytes,
  });
  decipher.setAuthTag(sealed.subarray(1 + nonceBytes, headBytes));
  decipher.setAAD(asBytes(associatedData));
  const body = decipher.update(sealed.subarray(headBytes));
  try {
    decipher.final();
  } catch (error) {
    throw new SealBroken('it was changed, moved, or sealed with another key', error);
  }
  return body;
}

const digestBytes = 16;

/** A Buffer that `digest()` makes has memory of its own outside the heap: a million of them cost more than the digests. */
const fromLatin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

/** Keyed digest for search and "has it changed": HMAC-SHA256, the first 16 bytes. */
export function digest(key: Key, text: string | Uint8Array): Buffer {
  return fromLatin1(createHmac('sha256', key.key).update(text).digest('binary').slice(0, digestBytes));
}

const asBytes = (value: string | Uint8Array): Uint8Array =>
  typeof value === 'string' ? Buffer.from(value, 'utf8') : value;

/** What billing needs of the keys: it seals, opens and digests, and never sees a key. */
export interface Sealer {
  /** The generation of the secret that seals now; kept beside every sealed value. */
  readonly keyId: number;
  seal(purpose: 'contact' | 'method' | 'outbox' | 'cookie', plaintext: string, associated: string): Buffer;
  /** Throws SealBroken. */
  open(purpose: 'contact' | 'method' | 'outbox' | 'cookie', sealed: Uint8Array, associated: string): string;
  /** 16 bytes, the same for the same text. */
  digest(text: string): Buffer;
  /** 32 bytes that only the holder of the link key can make: what pay links' tokens are cut from. */
  linkMac(text: string): Buffer;
  /** 32 bytes for the encrypted file archive. */
  readonly archiveKey: { id: string; secret: Uint8Array };
}

/** `older`: keys of secrets that were rotated out, for opening only. */
export function makeSealer(keys: Keys, randomness: Randomness, older: readonly Keys[] = []): Sealer {
  const all = [keys, ...older];
  return {
    keyId: keys.contact.id,
    seal: (purpose, plaintext, associated) => seal(keys[purpose], plaintext, associated, randomness),
    open: (purpose, sealed, associated) =>
      open(
        all.map((generation) => generation[purpose]),
        sealed,
        associated,
      ).toString('utf8'),
    digest: (text) => digest(keys.digest, text),
    linkMac: (text) => fromLatin1(createHmac('sha256', keys.link.key).update(text).digest('binary')),
    archiveKey: { id: String(keys.archive.id), secret: keys.archive.key.export() },
  };
}
