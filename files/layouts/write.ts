import { encodeText } from '../decode.ts';
import { type OutwardKind, outwardFileName } from '../standard/names.ts';
import { type OutwardCsvKind, type Row, trailerAmount, writeStandardFile } from '../standard/write.ts';
import { fieldsOf, type MappedKind } from './fields.ts';
import type { KindLayout, Layout } from './layout.ts';
import type { NamedOutward } from './names.ts';

export interface WrittenFile<Kind> {
  readonly merchant: string;
  readonly kind: Kind;
  /** `YYYY-MM-DD` */
  readonly businessDate: string;
  readonly sequence: number;
}

/**
 * Head, rows and tail in the merchant's own layout where it describes the kind, otherwise `standard/1` in its encoding
 * and line ends. Rows are those of `standard/1`. Null: no layout of its own. Throws `CannotWrite`, never writes `?`.
 */
export function writeOutward(
  layout: Layout | null,
  file: WrittenFile<OutwardCsvKind>,
  rows: AsyncIterable<readonly Row[]>,
): AsyncGenerator<Buffer> {
  const { kind } = file;
  if (layout === null || (kind !== 'result' && kind !== 'receipt') || !layout.kinds.has(kind)) {
    const { encoding = 'utf-8', newline = '\n' } = layout ?? {};
    return writeStandardFile({ ...file, newline, encoding }, rows);
  }
  return writeKind(layout, kind, file, kind === 'receipt' ? receiptRows(rows) : rows, (row) =>
    trailerAmount(kind, row),
  );
}

/**
 * What a merchant writes: a whole file of bills in its own layout, with right totals. Rows are D records of
 * `standard/1`. Throws `CannotWrite`.
 */
export function billingBytes(
  layout: Layout,
  file: { businessDate: string; sequence: number },
  rows: readonly Row[],
): Buffer {
  const own = describing(layout, 'billing');
  const sum = rows.reduce((total, row) => total + Number(/^[0-9]+$/.exec(row[6] ?? '')?.[0] ?? 0), 0);
  const lines = rows.map((row) => own.row(row)).join('');
  return encodeText(own.head(file) + lines + own.tail({ records: rows.length, sum }), layout.encoding);
}

function describing(layout: Layout, kind: MappedKind): KindLayout {
  const own = layout.kinds.get(kind);
  if (own === undefined) throw new Error(`impossible state: ${layout.name} does not describe ${kind}`);
  return own;
}

async function* writeKind(
  layout: Layout,
  kind: MappedKind,
  file: { businessDate: string; sequence: number },
  rows: AsyncIterable<readonly Row[]>,
  amountOf: (row: Row) => number,
): AsyncGenerator<Buffer> {
  const own = describing(layout, kind);
  const { encoding } = layout;
  const head = own.head(file);
  if (head !== '') yield encodeText(head, encoding);
  let records = 0;
  let sum = 0;
  for await (const batch of rows) {
    if (batch.length === 0) continue;
    let text = '';
    for (const row of batch) {
      text += own.row(row);
      sum += amountOf(row);
    }
    records += batch.length;
    yield encodeText(text, encoding);
  }
  const tail = own.tail({ records, sum });
  if (tail !== '') yield encodeText(tail, encoding);
}

const blanks = (count: number): string[] => Array.from({ length: count }, () => '');

/** A layout's receipt has one list of columns: those of the F record, then those of the R records. */
async function* receiptRows(rows: AsyncIterable<readonly Row[]>): AsyncGenerator<readonly Row[]> {
  const ofLine = fieldsOf.receipt.findIndex(({ name }) => name === 'line');
  const ofFile = ofLine - 1;
  for await (const batch of rows) {
    yield batch.map(([record = '', ...fields]) =>
      record === 'F'
        ? ['R', record, ...fields, ...blanks(fieldsOf.receipt.length - ofLine)]
        : ['R', record, ...blanks(ofFile), ...fields],
    );
  }
}

/** The final name of a file of ours, by the layout where it names the kind. */
export function outwardName(layout: Layout | null, file: WrittenFile<OutwardKind>): string {
  const own = layout?.outwardNames.get(file.kind as NamedOutward);
  return (
    own?.write(file.businessDate, file.sequence) ??
    outwardFileName(file.kind, file.merchant, file.businessDate, file.sequence)
  );
}
