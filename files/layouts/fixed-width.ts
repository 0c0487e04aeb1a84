import { byteLength } from '../split.ts';
import type { InwardLayout } from '../standard/read.ts';
import { columnsOf, emptyRow, foreignType, withoutLeadingZeros } from './columns.ts';
import { constantCheck } from './csv.ts';
import type { MappedKind } from './fields.ts';
import { ByteRuler, LineCutter, type Span } from './fixed.ts';
import { CannotWrite, compileRead, compileWrite } from './forms.ts';
import type { KindLayout } from './layout.ts';
import type { FixedCell, FixedSpec } from './spec.ts';

const span = (cell: { at: number; bytes: number }): Span => ({
  from: cell.at - 1,
  to: cell.at - 1 + cell.bytes,
});

export function compileFixed(spec: FixedSpec, kind: MappedKind): KindLayout {
  const types = spec.record_type;
  return {
    hasHeader: types?.header !== undefined,
    hasSequence: spec.header?.sequence !== undefined,
    hasTotals: types?.trailer !== undefined,
    openCutter: (recordBytesMax) => new LineCutter({ recordBytesMax, encoding: spec.encoding }),
    standardFields: mapping(spec, kind),
    ...writer(spec, kind),
  };
}

function mapping(spec: FixedSpec, kind: MappedKind): InwardLayout['standardFields'] {
  const { encoding, record_bytes: recordBytes, record_type: types } = spec;
  const ruler = new ByteRuler(encoding, recordBytes);
  const template = emptyRow(spec, kind);
  const columns = columnsOf(spec, kind).flatMap((column) => (column === null ? [] : [column]));
  const spans = columns.map(({ form }) => span(form as FixedCell));
  const reads = columns.map(({ read }) => read);
  const targets = columns.map(({ target }) => target);
  const typeSpan = types && span(types);
  const ofLine = types?.[kind];
  const header = headerMapping(spec, ruler);
  const trailer = spec.trailer && [span(spec.trailer.count), span(spec.trailer.amount)];
  return ({ fields: [text = ''] }, about) => {
    if (text === '') return [''];
    ruler.lay(text);
    const type = typeSpan === undefined ? undefined : blankless(ruler.cell(typeSpan));
    const whole = ruler.bytes === recordBytes;
    if (type !== undefined && type !== ofLine) {
      if (type === types?.header) return whole ? header(about) : ['H'];
      if (type === types?.trailer && trailer !== undefined)
        return whole
          ? ['T', ...trailer.map((each) => withoutLeadingZeros(blankless(ruler.cell(each))))]
          : ['T'];
    }
    const row = template.slice();
    if (type !== undefined && type !== ofLine) row[0] = foreignType(type);
    for (let index = 0; index < spans.length; index += 1) {
      const cell = blankless(ruler.cell(spans[index] as Span));
      const read = reads[index];
      row[targets[index] as number] = read === undefined ? cell : read(cell);
    }
    if (!whole) row.push('');
    return row;
  };
}

/** A cell of spaces alone says nothing, trimmed or not. */
function blankless(cell: string): string {
  return cell.charCodeAt(0) === 0x20 && cell.trim() === '' ? '' : cell;
}

function headerMapping(
  spec: FixedSpec,
  ruler: ByteRuler,
): (about: Parameters<InwardLayout['standardFields']>[1]) => string[] {
  const { business_date: date, sequence, merchant } = spec.header ?? {};
  const readDate = date && compileRead({ date: date.date }, { form: 'date' }, true);
  return (about) => {
    const named = merchant && ruler.cell(span(merchant)).trimEnd();
    return [
      'H',
      '1',
      named === merchant?.equals ? about.merchant : foreignType(named ?? ''),
      about.kind,
      date === undefined ? about.businessDate : (readDate?.(blankless(ruler.cell(span(date)))) ?? ''),
      sequence === undefined ? '' : withoutLeadingZeros(ruler.cell(span(sequence)).trim()),
    ];
  };
}

function writer(spec: FixedSpec, kind: MappedKind): Pick<KindLayout, 'head' | 'row' | 'tail'> {
  const { record_type: types } = spec;
  const constants = constantCheck(spec, kind);
  const cells = columnsOf(spec, kind)
    .flatMap((column) => (column === null ? [] : [column]))
    .map((column) => ({ ...column, cell: column.form as FixedCell }));
  const date = spec.header?.business_date;
  const writeDate =
    date && compileWrite({ date: date.date }, { name: 'business_date', form: 'date' }, false, spec.layout);
  const typed = (type: string | undefined): Filled[] =>
    types && type !== undefined ? [{ at: types.at, text: type, bytes: types.bytes }] : [];
  const numbered = (cell: { at: number; bytes: number }, value: number, name: string): Filled => {
    const text = String(value).padStart(cell.bytes, '0');
    return { ...cell, text: fitting(text, cell.bytes, name, spec) };
  };
  return {
    head({ businessDate, sequence }) {
      if (types?.header === undefined) return '';
      const { header } = spec;
      return record(spec, [
        ...typed(types.header),
        ...(date ? [{ ...date, text: writeDate?.(businessDate) ?? '' }] : []),
        ...(header?.sequence ? [numbered(header.sequence, sequence, 'sequence')] : []),
        ...(header?.merchant
          ? [{ ...header.merchant, text: padded(header.merchant.equals, header.merchant, spec) }]
          : []),
      ]);
    },
    row(fields) {
      constants(fields);
      const filled = typed(types?.[kind]);
      for (const { cell, field, target, write } of cells) {
        const value = fields[target] ?? '';
        const text = write === undefined ? value : write(value);
        filled.push({ at: cell.at, bytes: cell.bytes, text: cellText(text, cell, field.name, spec) });
      }
      return record(spec, filled);
    },
    tail({ records, sum }) {
      if (types?.trailer === undefined || spec.trailer === undefined) return '';
      return record(spec, [
        ...typed(types.trailer),
        numbered(spec.trailer.count, records, 'count'),
        numbered(spec.trailer.amount, sum, 'amount'),
      ]);
    },
  };
}

/** Text of exactly its bytes, at a byte counted from 1. */
interface Filled {
  readonly at: number;
  readonly bytes: number;
  readonly text: string;
}

function record(spec: FixedSpec, cells: Filled[]): string {
  let text = '';
  let at = 1;
  for (const cell of cells.sort((one, other) => one.at - other.at)) {
    text += ' '.repeat(cell.at - at) + cell.text;
    at = cell.at + cell.bytes;
  }
  return text + ' '.repeat(spec.record_bytes + 1 - at) + (spec.newline === 'crlf' ? '\r\n' : '\n');
}

function cellText(text: string, cell: FixedCell, field: string, spec: FixedSpec): string {
  if (cell.zero_filled && text !== '') {
    if (!/^[0-9]+$/.test(text)) throw new CannotWrite('it is no number', field, spec.layout);
    return fitting(text.padStart(cell.bytes, '0'), cell.bytes, field, spec);
  }
  fitting(text, cell.bytes, field, spec);
  const filled = padded(text, cell, spec);
  // Without trimming the spaces would be read as a part of the value.
  if (cell.trim === undefined && text !== '' && filled !== text)
    throw new CannotWrite(
      `it does not fill its ${cell.bytes} bytes, and they are not trimmed`,
      field,
      spec.layout,
    );
  return filled;
}

function padded(text: string, cell: { bytes: number; trim?: string | undefined }, spec: FixedSpec): string {
  const spaces = ' '.repeat(Math.max(0, cell.bytes - byteLength(text, spec.encoding)));
  return cell.trim === 'left' ? spaces + text : text + spaces;
}

/** Never cut: between a base and its mark, or in the middle of an amount, would be another value. */
function fitting(text: string, bytes: number, field: string, spec: FixedSpec): string {
  if (byteLength(text, spec.encoding) > bytes)
    throw new CannotWrite(`it is longer than its ${bytes} bytes`, field, spec.layout);
  return text;
}
