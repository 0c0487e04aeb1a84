import type { Temporal } from 'temporal-polyfill';
import type { Link } from '../billing/checkout/find-link.ts';
import { base62Of } from '../billing/ids.ts';
import type { Randomness } from '../billing/ports.ts';
import { SealBroken, type Sealer } from '../billing/sealing.ts';
import { paths } from './paths.ts';
import type { Language } from './texts.ts';

/** One visit to one bill, kept by the visitor alone: sealed into a cookie that is sent to the visit's own path only. */
export interface Visit {
  id: string;
  link: Link;
  /** The visitor knows the end of the customer number. */
  checked: boolean;
  language: Language;
}

export const visitCookie = 'visit';
/** A bill is read and paid in minutes; whoever comes back later opens the SMS again. */
export const visitSeconds = 2 * 3600;

interface SealedVisit {
  m: number;
  i: string;
  v: number;
  c: boolean;
  l: Language;
  /** Epoch seconds. */
  until: number;
}

/** 128 bits: the address alone cannot be guessed, and without it no other site can post to it. */
export function newVisitId(randomness: Randomness): string {
  return base62Of(randomness.bytes(16));
}

export function sealVisit(sealer: Sealer, now: Temporal.Instant, visit: Visit): string {
  const content: SealedVisit = {
    m: visit.link.merchantId,
    i: visit.link.invoiceId,
    v: visit.link.version,
    c: visit.checked,
    l: visit.language,
    until: Math.floor(now.epochMilliseconds / 1000) + visitSeconds,
  };
  return sealer.seal('cookie', JSON.stringify(content), `visit ${visit.id}`).toString('base64url');
}

/** Null: no cookie, an old one, or one of another visit. */
export function openVisit(
  sealer: Sealer,
  now: Temporal.Instant,
  id: string,
  cookie: string | undefined,
): Visit | null {
  const content = opened<SealedVisit>(sealer, cookie, `visit ${id}`);
  if (content === null || content.until * 1000 <= now.epochMilliseconds) return null;
  return {
    id,
    link: { merchantId: content.m, invoiceId: content.i, version: content.v },
    checked: content.c,
    language: content.l,
  };
}

/** The same page in the other language. */
export function otherLanguageUrl(visit: Visit): string {
  return `${paths.bill.of(visit.id)}?language=${visit.language === 'ja' ? 'en' : 'ja'}`;
}

/** What the gateway carries through: what the visitor comes back from, and where to go on. */
export interface Return {
  /** Epoch seconds: as long as a visit, for nobody comes back later. */
  until: number;
  merchantId: number;
  /** The charge, or the change of the card. */
  id: string;
  visitId: string;
  language: Language;
}

/** A nonce of one kind opens nothing of the other. */
type ReturnFrom = 'return' | 'card return';

export function sealReturn(
  sealer: Sealer,
  now: Temporal.Instant,
  from: ReturnFrom,
  content: Omit<Return, 'until'>,
): string {
  const until = Math.floor(now.epochMilliseconds / 1000) + visitSeconds;
  return sealer.seal('cookie', JSON.stringify({ ...content, until }), from).toString('base64url');
}

/** Null: not ours, changed, or too old. */
export function openReturn(
  sealer: Sealer,
  now: Temporal.Instant,
  from: ReturnFrom,
  nonce: string,
): Return | null {
  const content = opened<Return>(sealer, nonce, from);
  return content === null || content.until * 1000 <= now.epochMilliseconds ? null : content;
}

function opened<T>(sealer: Sealer, text: string | undefined, associated: string): T | null {
  if (text === undefined || !/^[0-9A-Za-z_-]{40,600}$/.test(text)) return null;
  const sealed = Buffer.from(text, 'base64url');
  // A character more than the bytes need would be read over.
  if (sealed.toString('base64url') !== text) return null;
  try {
    return JSON.parse(sealer.open('cookie', sealed, associated)) as T;
  } catch (error) {
    if (error instanceof SealBroken) return null;
    throw error;
  }
}
