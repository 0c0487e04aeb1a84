import { FatalDecoder } from '../decode.ts';
import { type CsvRecord, CsvSplitter } from '../split.ts';
import type { OutwardCsvKind, Row } from './write.ts';

/** A file that is no whole `standard/1` file of ours, with why. */
export class NotReadBack extends Error {}

const columns: Partial<Record<OutwardCsvKind, number>> = {
  result: 11,
  enrolment: 6,
  unreached: 7,
  adjustment: 9,
  settlement: 9,
};
const recordBytesMax = 65_536;

/**
 * The rows of a file that we wrote in `standard/1` and UTF-8, in their order and batch by batch. Throws `NotReadBack` where
 * head, columns or trailer are not those of this file: a file in another layout is never taken for one without rows.
 */
export async function* readBack(
  content: AsyncIterable<Uint8Array>,
  file: { merchant: string; kind: OutwardCsvKind; businessDate: string; sequence: number; records: number },
): AsyncGenerator<Row[]> {
  const { merchant, kind, businessDate, sequence } = file;
  const head = ['H', '1', merchant, kind, businessDate, String(sequence)].join();
  const splitter = new CsvSplitter({ recordBytesMax, encoding: 'utf-8' });
  const decoder = new FatalDecoder('utf-8');
  let place = 'head' as 'head' | 'rows' | 'end';
  let count = 0;
  const rowsAmong = (records: readonly CsvRecord[]): Row[] => {
    if (splitter.fault !== undefined) throw new NotReadBack(`line ${splitter.fault.line} is no record`);
    const rows: Row[] = [];
    for (const { fields, line } of records) {
      if (place === 'head' && fields.join() === head) place = 'rows';
      else if (place === 'rows' && fields[0] === 'R' && fields.length === columns[kind]) rows.push(fields);
      else if (place === 'rows' && fields[0] === 'T' && fields[1] === String(count + rows.length))
        place = 'end';
      else throw new NotReadBack(`line ${line} is not what stands there in standard/1`);
    }
    count += rows.length;
    return rows;
  };
  const textOf = (decode: () => string): string => {
    try {
      return decode();
    } catch (cause) {
      throw new NotReadBack('its text is not UTF-8', { cause });
    }
  };
  for await (const piece of content) {
    const records: CsvRecord[] = [];
    splitter.push(
      textOf(() => decoder.write(piece)),
      records,
    );
    yield rowsAmong(records);
  }
  const last: CsvRecord[] = [];
  splitter.push(
    textOf(() => decoder.end()),
    last,
  );
  splitter.end(last);
  yield rowsAmong(last);
  if (place !== 'end' || count !== file.records)
    throw new NotReadBack(`it has ${count} rows of ${file.records}, or no end`);
}
