import { type DebitBatch, type DebitRecord, totalsOf } from '../files/zengin91/file.ts';
import { readDebits } from '../files/zengin91/read.ts';
import { writeDebits } from '../files/zengin91/write.ts';

/** What a bank does with a debit: its result code by the record that asks for it. */
export type Fate = (debit: DebitRecord) => string;

export interface Answer {
  batches: readonly DebitBatch[];
  bytes: Buffer;
}

/** A bank's answer to a request file: the same records with a result each, and trailers that say what became of them. */
export function answerRequest(request: Uint8Array, fate: Fate): Answer {
  const { file, fault } = readDebits(request);
  if (file === undefined)
    throw new Error(`the bank refuses the request: ${fault.code} in record ${fault.record}`);
  const batches = file.batches.map(({ header, debits }) => {
    const answered = debits.map((debit) => ({ ...debit, resultCode: fate(debit) }));
    return { header, debits: answered, trailer: totalsOf(answered, true) };
  });
  return { batches, bytes: writeDebits({ framing: '\r\n', endsWithFraming: true, batches }) };
}
