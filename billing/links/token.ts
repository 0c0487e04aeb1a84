import { createHash } from 'node:crypto';
import { base62Of } from '../ids.ts';
import type { Sealer } from '../sealing.ts';

/** 16 bytes of a keyed digest as base62: 128 bits. */
const secretBytes = 16;
const secretCharacters = 22;

/**
 * A pay link's token: the merchant's short code and 22 characters that nobody can guess. Never stored: whoever sends a
 * reminder derives it again. `keyId` is the generation of the link key, kept with the link.
 */
export function linkTokenOf(
  sealer: Pick<Sealer, 'linkMac'>,
  merchant: { id: number; shortCode: string },
  invoiceId: string,
  version: number,
  keyId: number,
): string {
  const mac = sealer.linkMac(`${merchant.id}:${invoiceId}:${version}:${keyId}`);
  return merchant.shortCode + base62Of(mac.subarray(0, secretBytes));
}

/** What stands in `links.token_hash`. Plain SHA-256 is enough: the token has 128 bits, no dictionary holds it. */
export function tokenHashOf(token: string): Buffer {
  return Buffer.from(createHash('sha256').update(token).digest('binary'), 'latin1');
}

/** Whose link it is, from its first characters. Null: no token of ours. */
export function shortCodeOf(token: string): string | null {
  if (!/^[0-9A-Za-z]{23,64}$/.test(token)) return null;
  return token.slice(0, -secretCharacters);
}

export function linkUrlOf(baseUrl: string, token: string): string {
  return `${baseUrl.replace(/\/+$/, '')}/l/${token}`;
}
