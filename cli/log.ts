import { type DestinationStream, destination, pino } from 'pino';
import type { Log } from '../billing/ports.ts';

export interface LogOptions {
  level: 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Which process: web, worker, scheduler, a command. */
  part?: string;
  /** Default standard error: standard output belongs to what a command answers. */
  to?: DestinationStream;
}

const removed = '[removed]';

/** Field names whose values never enter a log, wherever they stand. Callers pass allowed fields only; this is the net below. */
const forbidden =
  /^(name|full_?name|given_?name|family_?name|kana|phone|phone_?number|mobile|email|e_?mail|address|account_?number|holder|token|access_?token|secret|client_?secret|password|authorization|cookie|set-cookie|link|pay_?link|card|card_?number|pan|cvc|cvv|to|body|database_?url|raw|line)$/i;

/** A count or a line number under such a name is harmless. */
const isHidden = (key: string, value: unknown): boolean =>
  forbidden.test(key) && (typeof value === 'string' || (typeof value === 'object' && value !== null));

/** Between 13 and 19 digits, blanks or hyphens allowed, standing alone. */
const digits = /(?<![\dA-Za-z-])\d(?:[ -]?\d){12,18}(?![\dA-Za-z])/g;

const passesLuhn = (text: string): boolean => {
  let sum = 0;
  for (let position = 0; position < text.length; position++) {
    let digit = Number(text[text.length - 1 - position]);
    if (position % 2 === 1) digit = digit > 4 ? digit * 2 - 9 : digit * 2;
    sum += digit;
  }
  return sum % 10 === 0;
};

/** Text that may come from anywhere: passwords in URLs, bearer tokens, what looks like a card, a Japanese mobile number, a mail address. */
export const cleanText = (text: string): string =>
  text
    .replace(/\b([a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s@/]+@/gi, `$1:${removed}@`)
    .replace(/\b(bearer|basic)\s+[\w.~+/=-]+/gi, `$1 ${removed}`)
    .replace(digits, (found) => (passesLuhn(found.replace(/\D/g, '')) ? removed : found))
    .replace(/(?<![\dA-Za-z-])(?:\+81[ -]?|0)[6-9]0[ -]?\d{4}[ -]?\d{4}(?![\dA-Za-z])/g, removed)
    .replace(/[\w.+-]+@[\w-]+(\.[\w-]+)+/g, removed);

const deepest = 6;

function clean(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return cleanText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= deepest) return removed;
  if (value instanceof Error) return cleanError(value, depth);
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (Array.isArray(value)) return value.slice(0, 100).map((item) => clean(item, depth + 1));
  // Temporal and the like show themselves as text.
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') return cleanText(String(value));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, isHidden(key, item) ? removed : clean(item, depth + 1)]),
  );
}

/** Of an error only what says where it comes from: PostgreSQL's `detail` and `where` repeat row values. */
function cleanError(error: Error, depth: number): Record<string, unknown> {
  const { code, constraint, table, context } = error as unknown as Record<string, unknown>;
  return {
    type: error.name,
    message: cleanText(error.message),
    ...(code === undefined ? {} : { code }),
    ...(constraint === undefined ? {} : { constraint }),
    ...(table === undefined ? {} : { table }),
    ...(context === undefined ? {} : { context: clean(context, depth + 1) }),
    stack: cleanText(error.stack ?? ''),
    ...(error.cause === undefined ? {} : { cause: clean(error.cause, depth + 1) }),
  };
}

/** One JSON line for each event, on standard error. Written at once: the last words of a dying process arrive. */
export function openLog({ level, part, to }: LogOptions): Log {
  const logger = pino(
    {
      level,
      base: { pid: process.pid, ...(part === undefined ? {} : { part }) },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    to ?? destination({ fd: 2, sync: true }),
  );
  const write =
    (name: 'debug' | 'info' | 'warn' | 'error') =>
    (fields: Record<string, unknown>, message: string): void => {
      if (logger.isLevelEnabled(name)) logger[name](clean(fields) as object, cleanText(message));
    };
  return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}
