import { type InwardKind, isRealDate, type OutwardKind, type OwnNames } from '../standard/names.ts';

/** Kinds whose files a layout may name. `enrolment` goes both ways under one word and keeps its standard names. */
export const namedInward = ['billing', 'cancel', 'hold', 'contact'] as const satisfies readonly InwardKind[];
export const namedOutward = [
  'receipt',
  'result',
  'unreached',
  'settlement',
  'adjustment',
  'tieout',
] as const satisfies readonly OutwardKind[];
export type NamedInward = (typeof namedInward)[number];
export type NamedOutward = (typeof namedOutward)[number];

/** `KD_SEIKYU_{date}_{seq4}.CSV`: `{date}` is YYYYMMDD, `{seq4}` the number with four digits at least. */
export interface NamePattern {
  readonly hasDate: boolean;
  readonly hasSequence: boolean;
  read(text: string): { businessDate: string; sequence: number } | undefined;
  /** `businessDate` is `YYYY-MM-DD`. */
  write(businessDate: string, sequence: number): string;
}

/** The pattern, or why it is none. */
export function namePattern(text: string): NamePattern | { reason: string } {
  const parts = text.split(/(\{[^}]*\})/);
  const tokens = parts.filter((part) => part.startsWith('{'));
  const unknown = tokens.find((token) => token !== '{date}' && token !== '{seq4}');
  if (unknown !== undefined) return { reason: `${unknown} is not known: names take {date} and {seq4}` };
  if (new Set(tokens).size < tokens.length) return { reason: 'has one of {date} and {seq4} twice' };
  const rest = parts.filter((part) => !part.startsWith('{')).join('');
  if (!/^[A-Za-z0-9._-]*$/.test(rest)) return { reason: 'takes letters, digits, dot, hyphen and underscore' };
  if (!/^[A-Za-z0-9{]/.test(text)) return { reason: 'begins with a letter or a digit' };
  if (/\.(tmp|part|done)$/i.test(text)) return { reason: 'must not look like a temporary or control file' };
  const source = parts
    .map((part) =>
      part === '{date}'
        ? '(?<date>\\d{8})'
        : part === '{seq4}'
          ? '(?<sequence>\\d{4,9})'
          : part.replace(/[.-]/g, '\\$&'),
    )
    .join('');
  const pattern = new RegExp(`^${source}$`);
  return {
    hasDate: tokens.includes('{date}'),
    hasSequence: tokens.includes('{seq4}'),
    read(name) {
      const groups = pattern.exec(name)?.groups;
      if (groups === undefined && !pattern.test(name)) return undefined;
      const { date = '', sequence = '' } = groups ?? {};
      const businessDate = date === '' ? '' : `${date.slice(0, 4)}-${date.slice(4, 6)}-${date.slice(6)}`;
      if (businessDate !== '' && !isRealDate(businessDate)) return undefined;
      // 00012 and 0012 would be two names for one number.
      if (sequence !== '' && (Number(sequence) === 0 || sequence !== padded(Number(sequence))))
        return undefined;
      return { businessDate, sequence: Number(sequence) };
    },
    write: (businessDate, sequence) =>
      text.replace('{date}', businessDate.replaceAll('-', '')).replace('{seq4}', padded(sequence)),
  };
}

function padded(sequence: number): string {
  return String(sequence).padStart(4, '0');
}

export function ownNames(patterns: ReadonlyMap<NamedInward, NamePattern>, merchant: string): OwnNames {
  return {
    has: (kind) => patterns.has(kind as NamedInward),
    read(text) {
      for (const [kind, pattern] of patterns) {
        const read = pattern.read(text);
        if (read === undefined) continue;
        return { kind, merchant, ...read, extension: text.slice(text.lastIndexOf('.') + 1) };
      }
      return undefined;
    },
  };
}
