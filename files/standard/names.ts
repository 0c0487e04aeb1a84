import { createHash } from 'node:crypto';

/** What a merchant may send. */
export const inwardKinds = ['billing', 'cancel', 'hold', 'enrolment', 'contact'] as const;
export type InwardKind = (typeof inwardKinds)[number];

export const outwardKinds = [
  'receipt',
  'result',
  'enrolment',
  'unreached',
  'settlement',
  'adjustment',
  'tieout',
] as const;
export type OutwardKind = (typeof outwardKinds)[number];

export interface FileName {
  readonly kind: string;
  readonly merchant: string;
  /** `YYYY-MM-DD`, from the name; the header is authoritative. */
  readonly businessDate: string;
  readonly sequence: number;
  readonly extension: string;
}

/**
 * What to do with a name in the inbound folder. Names are data from outside: nothing here becomes a local path.
 * `control` carries the name of the data file it completes.
 */
export type InboundName =
  | { readonly type: 'data'; readonly kind: InwardKind; readonly name: FileName }
  | { readonly type: 'control'; readonly dataName: string }
  | { readonly type: 'temporary' }
  | { readonly type: 'unknown' };

// Four digits are the least: after 9999 the sequence grows to five instead of starting again.
const namePattern = /^([a-z]{1,20})_([a-z0-9][a-z0-9-]{0,62})_(\d{4})(\d{2})(\d{2})_(\d{4,9})\.([a-z]{1,8})$/;
export const doneSuffix = '.done';

/** Undefined for anything that is not `<kind>_<merchant>_<YYYYMMDD>_<seq4>.<ext>` with a real date. */
export function parseFileName(text: string): FileName | undefined {
  const match = namePattern.exec(text);
  if (match === null) return undefined;
  const [, kind = '', merchant = '', year = '', month = '', day = '', digits = '', extension = ''] = match;
  const sequence = Number(digits);
  // 00012 and 0012 would be two names for one sequence number.
  if (sequence === 0 || digits !== paddedSequence(sequence)) return undefined;
  const businessDate = `${year}-${month}-${day}`;
  if (!isRealDate(businessDate)) return undefined;
  return { kind, merchant, businessDate, sequence, extension };
}

export function formatFileName(name: FileName): string {
  const date = name.businessDate.replaceAll('-', '');
  return `${name.kind}_${name.merchant}_${date}_${paddedSequence(name.sequence)}.${name.extension}`;
}

/** The final name of a file of ours, for example `receipt_minato-gas_20261125_0001.csv`. */
export function outwardFileName(
  kind: OutwardKind,
  merchant: string,
  businessDate: string,
  sequence: number,
): string {
  return formatFileName({
    kind,
    merchant,
    businessDate,
    sequence,
    extension: kind === 'tieout' ? 'json' : 'csv',
  });
}

/** A merchant's own names, by its layout. A kind that they know has no standard name beside them. */
export interface OwnNames {
  has(kind: string): boolean;
  /** Blank date and number 0 where the name has none. */
  read(text: string): FileName | undefined;
}

export function classifyInboundName(text: string, merchant: string, own?: OwnNames): InboundName {
  if (isTemporaryName(text)) return { type: 'temporary' };
  if (text.endsWith(doneSuffix)) {
    const dataName = text.slice(0, -doneSuffix.length);
    return classifyInboundName(dataName, merchant, own).type === 'data'
      ? { type: 'control', dataName }
      : { type: 'unknown' };
  }
  const name = own?.read(text) ?? standardName(text, merchant, own);
  if (name === undefined) return { type: 'unknown' };
  const kind = inwardKinds.find((known) => known === name.kind);
  return kind === undefined ? { type: 'unknown' } : { type: 'data', kind, name };
}

function standardName(text: string, merchant: string, own: OwnNames | undefined): FileName | undefined {
  const name = parseFileName(text);
  const isKnown = name?.merchant === merchant && name.extension === 'csv' && !own?.has(name.kind);
  return isKnown ? name : undefined;
}

export function isTemporaryName(text: string): boolean {
  // Nobody writes under such a name while a file grows: somebody tries what we do with it.
  if (/[/\\\p{Cc}\p{Cf}]/u.test(text)) return false;
  return text.startsWith('.') || /\.(?:tmp|part)$/i.test(text);
}

/**
 * A name from outside, harmless in a log, a page or a terminal: ASCII, at most 80 characters. Names that differ, if only in
 * how Unicode spells them or beyond what is shown, are shown differently.
 */
export function shown(name: string): string {
  const harmless = name
    .slice(0, 200)
    .replace(
      /[^A-Za-z0-9._ -]/g,
      (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
    );
  if (harmless.length <= 80 && name.length <= 200) return harmless;
  return `${harmless.slice(0, 68)}...${createHash('sha256').update(name).digest('hex').slice(0, 8)}`;
}

export function doneName(dataName: string): string {
  return dataName + doneSuffix;
}

/** Under which a file is uploaded until it is whole. The id keeps two tries apart. */
export function temporaryName(finalName: string, id: string): string {
  return `.${finalName}.${id}.tmp`;
}

/** The digest of a control file: `none` when it is blank, `bad` when it is neither blank nor one sha256sum line. */
export function readDoneFile(text: string, dataName: string): { sha256: string } | 'none' | 'bad' {
  if (text.trim() === '') return 'none';
  const match = /^([0-9a-fA-F]{64})(?:[ \t]+\*?(\S+))?\r?\n?$/.exec(text);
  if (match?.[1] === undefined) return 'bad';
  // `sha256sum ./inbound/x.csv` writes the path it was given.
  if (match[2] !== undefined && match[2].slice(match[2].lastIndexOf('/') + 1) !== dataName) return 'bad';
  return { sha256: match[1].toLowerCase() };
}

export function formatDoneFile(sha256: string, dataName: string): string {
  return `${sha256}  ${dataName}\n`;
}

function paddedSequence(sequence: number): string {
  return String(sequence).padStart(4, '0');
}

const monthDays = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] as const;

/** `YYYY-MM-DD` that is in the calendar; by arithmetic, since it runs for every line. */
export function isRealDate(text: string): boolean {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(text)) return false;
  const year = Number(text.slice(0, 4));
  const month = Number(text.slice(5, 7));
  const day = Number(text.slice(8, 10));
  if (year === 0 || month < 1 || month > 12 || day < 1) return false;
  const leap = month === 2 && year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return day <= (monthDays[month - 1] ?? 0) + (leap ? 1 : 0);
}
