import { createHash } from 'node:crypto';
import { base62Of } from '../ids.ts';
import type { Sealer } from '../sealing.ts';

/** 16 bytes of a keyed digest as base62. */
const secretCharacters = 22;
const secretBytes = 16;

/**
 * A pay link's token: the merchant's short code and 22 characters that nobody can guess. Never stored: whoever sends a
 * reminder derives it again from the bill and the link's version.
 */
export function linkTokenOf(
  sealer: Pick<Sealer, 'linkMac'>,
  shortCode: string,
  invoiceId: string,
  version: number,
): string {
  return shortCode + base62Of(sealer.linkMac(`${invoiceId}:${version}`).subarray(0, secretBytes));
}

/** What stands in `links.token_hash`. Plain SHA-256 is enough: the token has 128 bits, no dictionary holds it. */
export function tokenHashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/** Whose link it is, from its first characters. Null: no token of ours. */
export function shortCodeOf(token: string): string | null {
  if (!/^[0-9A-Za-z]{23,64}$/.test(token)) return null;
  return token.slice(0, -secretCharacters);
}
