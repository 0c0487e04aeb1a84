import {
  type DebitBatch,
  type DebitFile,
  type DebitHeader,
  type DebitRecord,
  type DebitTotals,
  type Framing,
  type RecordType,
  recordBytes,
  records,
} from './file.ts';
import { isKana, type KanaPlace, type KanaProfile, kanaText, strictKana } from './kana.ts';

/** Why the whole file is refused. `record` counts from 1; 0 is the file itself. */
export interface DebitFault {
  readonly code:
    | 'EMPTY'
    | 'LENGTH'
    | 'RECORD_TYPE'
    | 'ORDER'
    | 'CODE'
    | 'KIND'
    | 'CHARACTER'
    | 'FORMAT'
    | 'COUNT'
    | 'AMOUNT';
  readonly record: number;
  readonly field: string;
}

export type ReadDebits =
  | { readonly file: DebitFile; readonly fault?: undefined }
  | { readonly file?: undefined; readonly fault: DebitFault };

const places: Record<string, KanaPlace> = {
  consignorName: 'party',
  holder: 'party',
  bankName: 'bank',
  branchName: 'bank',
};
const forms: Record<string, RegExp> = { customerNumber: /^[0-9A-Za-z-]+$/, resultCode: /^[0-9A-Z]$/ };

/** Whether a text of a record may stand there; shared with the writer, so that each takes what the other makes. */
export function mayStand(name: string, value: string, profile: KanaProfile): boolean {
  if (name === '') return value === '';
  return forms[name]?.test(value) ?? isKana(value, places[name] ?? 'party', profile);
}

/**
 * Reads a request or a result, which look alike. Any bytes end in a file or in a fault: records of 120 bytes with or
 * without line ends, their order, digits, kana, and trailers that count and add up all debits. What a result's other
 * totals say is judged against its request.
 */
export function readDebits(bytes: Uint8Array, profile: KanaProfile = strictKana): ReadDebits {
  const fault = (code: DebitFault['code'], record: number, field = ''): ReadDebits => ({
    fault: { code, record, field },
  });
  // A DOS end-of-file sign after the last record says nothing.
  const content = bytes.at(-1) === 0x1a ? bytes.subarray(0, -1) : bytes;
  if (content.length === 0) return fault('EMPTY', 0);
  // EBCDIC is refused by name and never guessed at: its own 1, or ours with code 1.
  if (content[0] === 0xf1 || (content[0] === 0x31 && content[3] === 0x31)) return fault('CODE', 1, 'code');
  const framing = framingOf(content);
  const step = recordBytes + framing.length;
  const endsWithFraming = framing !== '' && content.length % step === 0;
  const count = (content.length + (endsWithFraming ? 0 : framing.length)) / step;
  if (!Number.isInteger(count)) return fault('LENGTH', Math.ceil(count));

  const batches: DebitBatch[] = [];
  const judge = new RecordJudge(profile);
  let header: DebitHeader | undefined;
  let debits: DebitRecord[] = [];
  for (let record = 1; record <= count; record += 1) {
    const from = (record - 1) * step;
    const to = from + recordBytes;
    if (to < content.length && latin1(content.subarray(to, from + step)) !== framing)
      return fault('LENGTH', record);
    const read = judge.judge(content.subarray(from, to));
    if ('code' in read) return { fault: read };
    if (read.type === '1') header = read.header;
    else if (read.type === '2') debits.push(read.debit);
    else if (read.type === '8' && header !== undefined) {
      batches.push({ header, debits, trailer: read.trailer });
      debits = [];
    }
  }
  return judge.ended ? { file: { framing, endsWithFraming, batches } } : fault('ORDER', count, 'recordType');
}

export type ReadRecord =
  | { readonly type: '1'; readonly header: DebitHeader }
  | { readonly type: '2'; readonly debit: DebitRecord }
  | { readonly type: '8'; readonly trailer: DebitTotals }
  | { readonly type: '9' };

/** Judges records in their order: what each is, or what is wrong with it. */
class RecordJudge {
  readonly #profile: KanaProfile;
  #record = 0;
  #batches = 0;
  /** Of the batch that is open. */
  #open: { count: number; amount: number } | undefined;
  ended = false;

  constructor(profile: KanaProfile) {
    this.#profile = profile;
  }

  judge(bytes: Uint8Array): ReadRecord | DebitFault {
    this.#record += 1;
    const record = this.#record;
    const text = kanaText(bytes);
    if (text === undefined) return { code: 'CHARACTER', record, field: '' };
    const type = text.charAt(0);
    if (!isRecordType(type)) return { code: 'RECORD_TYPE', record, field: 'recordType' };
    const isBetween = type === '1' || type === '9';
    const inOrder = isBetween === (this.#open === undefined) && (type !== '9' || this.#batches > 0);
    if (this.ended || !inOrder) return { code: 'ORDER', record, field: 'recordType' };
    const fields = fieldsOf(text, type);
    const wrong = wrongField(fields, type, this.#profile);
    if (wrong !== undefined) return { ...wrong, record };
    if (type === '1') {
      this.#open = { count: 0, amount: 0 };
      return { type, header: headerOf(fields) };
    }
    if (type === '9' || this.#open === undefined) {
      this.ended = true;
      return { type: '9' };
    }
    if (type === '2') {
      const debit = debitOf(fields);
      this.#open.count += 1;
      this.#open.amount += debit.amount;
      return { type, debit };
    }
    const trailer = trailerOf(fields);
    if (trailer.count !== this.#open.count) return { code: 'COUNT', record, field: 'count' };
    if (trailer.amount !== this.#open.amount) return { code: 'AMOUNT', record, field: 'amount' };
    this.#open = undefined;
    this.#batches += 1;
    return { type, trailer };
  }
}

/** A file whose records are read one by one is not what it should be. */
export class UnreadableDebits extends Error {
  readonly fault: DebitFault;

  constructor(fault: DebitFault) {
    super(`record ${fault.record}: ${fault.code} ${fault.field}`);
    this.fault = fault;
  }
}

/** As `readDebits`, for files that are never held whole: their records in order, and `UnreadableDebits` at the first fault. */
export async function* readDebitRecords(
  chunks: AsyncIterable<Uint8Array>,
  profile: KanaProfile = strictKana,
): AsyncGenerator<ReadRecord[]> {
  const judge = new RecordJudge(profile);
  let held = Buffer.alloc(0);
  let framing: Framing | undefined;
  let records = 0;
  const refuse = (fault: DebitFault): never => {
    throw new UnreadableDebits(fault);
  };
  const judged = (bytes: Uint8Array): ReadRecord => {
    records += 1;
    const read = judge.judge(bytes);
    return 'code' in read ? refuse(read) : read;
  };
  for await (const chunk of chunks) {
    held = Buffer.concat([held, chunk]);
    // Two bytes after the first record say how all are framed.
    if (framing === undefined && held.length < recordBytes + 2) continue;
    if (framing === undefined) {
      if (held[0] === 0xf1 || (held[0] === 0x31 && held[3] === 0x31))
        refuse({ code: 'CODE', record: 1, field: 'code' });
      framing = framingOf(held);
    }
    const step = recordBytes + framing.length;
    const batch: ReadRecord[] = [];
    let from = 0;
    // One byte more: what is last may be without its line end.
    for (; held.length - from > step; from += step) {
      if (latin1(held.subarray(from + recordBytes, from + step)) !== framing)
        refuse({ code: 'LENGTH', record: records + 1, field: '' });
      batch.push(judged(held.subarray(from, from + recordBytes)));
    }
    held = held.subarray(from);
    if (batch.length > 0) yield batch;
  }
  const rest = held.at(-1) === 0x1a ? held.subarray(0, -1) : held;
  if (records === 0 && rest.length === 0) refuse({ code: 'EMPTY', record: 0, field: '' });
  const end = latin1(rest.subarray(recordBytes));
  if (rest.length > 0) {
    if (rest.length < recordBytes || (end !== '' && end !== framing))
      refuse({ code: 'LENGTH', record: records + 1, field: '' });
    yield [judged(rest.subarray(0, recordBytes))];
  }
  if (!judge.ended) refuse({ code: 'ORDER', record: records, field: 'recordType' });
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

function isRecordType(type: string): type is RecordType {
  return Object.hasOwn(records, type);
}

function framingOf(content: Uint8Array): Framing {
  if (content[recordBytes] === 0x0d) return content[recordBytes + 1] === 0x0a ? '\r\n' : '\r';
  return content[recordBytes] === 0x0a ? '\n' : '';
}

type Fields = readonly (readonly [name: string, value: string])[];

function fieldsOf(text: string, type: RecordType): Fields {
  let at = 0;
  return records[type].map(({ name, form, bytes }) => {
    const value = text.slice(at, at + bytes);
    at += bytes;
    return [name, form === 'C' ? value.trimEnd() : value] as const;
  });
}

function wrongField(
  fields: Fields,
  type: RecordType,
  profile: KanaProfile,
): { code: DebitFault['code']; field: string } | undefined {
  for (const [index, [field, value]] of fields.entries()) {
    if (field === 'code' && value !== '0') return { code: 'CODE', field };
    if (field === 'kind' && value !== '91') return { code: 'KIND', field };
    if (records[type][index]?.form === 'N') {
      if (!/^[0-9]+$/.test(value)) return { code: 'FORMAT', field };
    } else if (!mayStand(field, value, profile)) {
      return { code: field in places ? 'CHARACTER' : 'FORMAT', field };
    }
  }
  return undefined;
}

function headerOf(fields: Fields): DebitHeader {
  const { recordType: _, kind: __, code: ___, '': ____, ...header } = Object.fromEntries(fields);
  return header as unknown as DebitHeader;
}

function debitOf(fields: Fields): DebitRecord {
  const { recordType: _, '': __, amount, ...debit } = Object.fromEntries(fields);
  return { ...debit, amount: Number(amount) } as unknown as DebitRecord;
}

function trailerOf(fields: Fields): DebitTotals {
  const {
    recordType: _,
    '': __,
    ...totals
  } = Object.fromEntries(fields.map(([name, value]) => [name, Number(value)]));
  return totals as unknown as DebitTotals;
}
