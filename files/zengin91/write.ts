import { Refusal } from '../../billing/refusal.ts';
import {
  type DebitFile,
  type DebitHeader,
  type DebitRecord,
  type DebitTotals,
  debitsMax,
  recordBytes,
  records,
  type Span,
} from './file.ts';
import { type KanaProfile, kanaBytes, strictKana } from './kana.ts';
import { mayStand } from './read.ts';

/** A value without a place in its record. Nothing is cut: between a base and its mark would be another name. */
export class UnwritableDebit extends Refusal {
  constructor(record: number, field: string, reason: string) {
    super('DEBIT_UNWRITABLE', `record ${record}: ${field} ${reason}`, {
      next: 'Correct the value; no part of the file was written.',
      context: { record, field },
      exitCode: 3,
    });
  }
}

/**
 * Records one by one, for files that are never held whole: the text of each, without a line end. Throws `UnwritableDebit`.
 */
export class DebitWriter {
  readonly #profile: KanaProfile;
  #written = 0;

  constructor(profile: KanaProfile = strictKana) {
    this.#profile = profile;
  }

  header(header: DebitHeader): string {
    return this.#put('1', { ...header, kind: '91', code: '0' });
  }

  debit(debit: DebitRecord): string {
    return this.#put('2', debit);
  }

  trailer(trailer: DebitTotals): string {
    if (trailer.count > debitsMax)
      throw new UnwritableDebit(this.#written + 1, 'count', `is over ${debitsMax}: split the batch`);
    return this.#put('8', trailer);
  }

  end(): string {
    return this.#put('9', {});
  }

  #put(type: keyof typeof records, fields: object): string {
    this.#written += 1;
    return recordOf(records[type], { ...fields, recordType: type }, this.#written, this.#profile);
  }
}

/** The file to the byte: the same input always gives the same bytes. Throws `UnwritableDebit`. */
export function writeDebits(file: DebitFile, profile: KanaProfile = strictKana): Buffer {
  const writer = new DebitWriter(profile);
  const parts = [
    ...file.batches.flatMap(({ header, debits, trailer }) => [
      writer.header(header),
      ...debits.map((debit) => writer.debit(debit)),
      writer.trailer(trailer),
    ]),
    writer.end(),
  ];
  const framing = Buffer.from(file.framing, 'latin1');
  const last = parts.length - 1;
  return Buffer.concat(
    parts.flatMap((text, at) => [
      kanaBytes(text),
      at < last || file.endsWithFraming ? framing : Buffer.alloc(0),
    ]),
  );
}

function recordOf(
  spans: readonly Span[],
  fields: Record<string, string | number>,
  record: number,
  profile: KanaProfile,
): string {
  const text = spans
    .map(({ name, form, bytes }) => {
      const value = fields[name] ?? '';
      const wrong =
        form === 'N' ? digitsProblem(value, bytes) : textProblem(name, String(value), bytes, profile);
      if (wrong !== undefined) throw new UnwritableDebit(record, name, wrong);
      return form === 'N' ? String(value).padStart(bytes, '0') : String(value).padEnd(bytes, ' ');
    })
    .join('');
  if (text.length !== recordBytes) throw new Error(`impossible state: a record of ${text.length} bytes`);
  return text;
}

function digitsProblem(value: string | number, bytes: number): string | undefined {
  const digits = String(value);
  if (!/^[0-9]+$/.test(digits)) return 'is not a whole number';
  if (digits.length > bytes) return `has more than ${bytes} digits`;
  // Of codes every digit counts: a bank of three digits is no bank with a zero in front.
  return typeof value === 'string' && digits.length < bytes ? `must have ${bytes} digits` : undefined;
}

function textProblem(name: string, value: string, bytes: number, profile: KanaProfile): string | undefined {
  if (value.length > bytes) return `is longer than ${bytes} bytes`;
  const stands = value === value.trimEnd() && mayStand(name, value, profile);
  return stands ? undefined : 'has characters that may not stand in it';
}
