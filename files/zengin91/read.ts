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
  let header: DebitHeader | undefined;
  let debits: DebitRecord[] = [];
  let amount = 0;
  let ended = false;
  for (let record = 1; record <= count; record += 1) {
    const from = (record - 1) * step;
    const to = from + recordBytes;
    if (to < content.length && latin1(content.subarray(to, from + step)) !== framing)
      return fault('LENGTH', record);
    const text = kanaText(content.subarray(from, to));
    if (text === undefined) return fault('CHARACTER', record);
    const type = text.charAt(0);
    if (!isRecordType(type)) return fault('RECORD_TYPE', record, 'recordType');
    const isBetween = type === '1' || type === '9';
    const inOrder = isBetween === (header === undefined) && (type !== '9' || batches.length > 0);
    if (ended || !inOrder) return fault('ORDER', record, 'recordType');
    const fields = fieldsOf(text, type);
    const wrong = wrongField(fields, type, profile);
    if (wrong !== undefined) return fault(wrong.code, record, wrong.field);
    if (type === '1') header = headerOf(fields);
    else if (type === '2') {
      const debit = debitOf(fields);
      debits.push(debit);
      amount += debit.amount;
    } else if (type === '9') ended = true;
    else if (header !== undefined) {
      const trailer = trailerOf(fields);
      if (trailer.count !== debits.length) return fault('COUNT', record, 'count');
      if (trailer.amount !== amount) return fault('AMOUNT', record, 'amount');
      batches.push({ header, debits, trailer });
      header = undefined;
      debits = [];
      amount = 0;
    }
  }
  return ended ? { file: { framing, endsWithFraming, batches } } : fault('ORDER', count, 'recordType');
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
