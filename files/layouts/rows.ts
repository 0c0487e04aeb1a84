import { FatalDecoder } from '../decode.ts';
import { type CsvRecord, CsvSplitter } from '../split.ts';
import type { MappedKind } from './fields.ts';
import type { Layout } from './layout.ts';

const recordBytesMax = 65_536;
/** One batch, about: what the caller does with rows is then not done record by record. */
const pieceBytes = 131_072;

/**
 * Records of a file as rows of `standard/1`, types first, header and trailer among them, unjudged: for whoever reads our
 * own files back. Null: `standard/1`. Throws on bytes that are no text and on broken quotes.
 */
export async function* readRows(
  content: AsyncIterable<Uint8Array>,
  layout: Layout | null,
  kind: MappedKind,
): AsyncGenerator<CsvRecord[]> {
  const own = layout?.kinds.get(kind);
  const encoding = layout?.encoding ?? 'utf-8';
  const decoder = new FatalDecoder(encoding);
  const cutter = own?.openCutter(recordBytesMax) ?? new CsvSplitter({ recordBytesMax, encoding });
  const about = { merchant: '', kind, businessDate: '' };
  let records: CsvRecord[] = [];
  const take = (): CsvRecord[] => {
    const taken = records;
    records = [];
    if (cutter.fault !== undefined)
      throw new Error(`line ${cutter.fault.line} of a file of ours is no record: ${cutter.fault.type}`);
    return own === undefined
      ? taken
      : taken.map((record) => ({ line: record.line, fields: own.standardFields(record, about) }));
  };
  for await (const chunk of content) {
    for (let at = 0; at < chunk.length; at += pieceBytes) {
      cutter.push(decoder.write(chunk.subarray(at, at + pieceBytes)), records);
      if (records.length > 0) yield take();
    }
  }
  cutter.push(decoder.end(), records);
  cutter.end(records);
  yield take();
}
