import { type CsvRecord, CsvSplitter } from '../split.ts';
import type { About } from '../standard/read.ts';
import type { Row } from '../standard/write.ts';
import { type Column, columnsOf, emptyRow, foreignType, withoutLeadingZeros } from './columns.ts';
import type { MappedKind } from './fields.ts';
import { CannotWrite, type Convert, compileRead, compileWrite, writeThousands } from './forms.ts';
import type { FileTotals, KindLayout } from './layout.ts';
import type { CsvSpec } from './spec.ts';

type Mapping = (record: CsvRecord, about: About) => string[];

export function compileCsv(spec: CsvSpec, kind: MappedKind): KindLayout {
  const placed = placedColumns(spec, kind);
  const line = lineMapping(spec, kind, placed);
  const { encoding, delimiter } = spec;
  const quote = spec.quote === 'none' ? null : spec.quote;
  const format = rowFormat(spec);
  const totals = kind === 'billing' ? totalLine(spec, placed) : undefined;
  const types = spec.record_type;
  return {
    hasHeader: spec.titles || types?.header !== undefined,
    hasSequence: spec.header?.sequence !== undefined,
    hasTotals: types?.trailer !== undefined || totals !== undefined,
    openCutter: (recordBytesMax) => new CsvSplitter({ recordBytesMax, encoding, delimiter, quote }),
    standardFields: types
      ? typedMapping(spec, types, kind, line)
      : untypedMapping(spec, placed, totals, line),
    ...rowWriter(spec, kind, placed, format),
    tail(file) {
      if (types?.trailer !== undefined) return format(trailerCells(spec, types.trailer, types.column, file));
      return totals === undefined ? '' : format(totals.cells(file));
    },
  };
}

/** Each column at its place; null: there is one, and it is not read. */
interface Placed {
  readonly columns: readonly { readonly at: number; readonly column: Column }[];
  /** Columns of a line. */
  readonly count: number;
  /** Titles in order, where the layout has them; otherwise the numbers. */
  readonly keys: readonly string[];
}

function placedColumns(spec: CsvSpec, kind: MappedKind): Placed {
  const keys = Object.keys(spec[kind] ?? {});
  const columns = columnsOf(spec, kind).flatMap((column, index) =>
    column === null ? [] : [{ at: spec.titles ? index : Number(column.key) - 1, column }],
  );
  const count = spec.titles ? keys.length : Math.max(spec.record_type?.column ?? 0, ...keys.map(Number));
  return { columns, count, keys };
}

/** A record as a line of the kind, whatever its type; a wrong number of columns shows as one field too many. */
function lineMapping(
  spec: CsvSpec,
  kind: MappedKind,
  placed: Placed,
): (fields: readonly string[]) => string[] {
  const template = emptyRow(spec, kind);
  const places = placed.columns.map(({ at }) => at);
  const targets = placed.columns.map(({ column }) => column.target);
  const reads = placed.columns.map(({ column }) => column.read);
  return (fields) => {
    const row = template.slice();
    for (let index = 0; index < places.length; index += 1) {
      const text = fields[places[index] as number] ?? '';
      const read = reads[index];
      row[targets[index] as number] = read === undefined ? text : read(text);
    }
    if (fields.length !== placed.count) row.push('');
    return row;
  };
}

function isBlank(fields: readonly string[]): boolean {
  return fields.length === 1 && fields[0] === '';
}

function untypedMapping(
  spec: CsvSpec,
  placed: Placed,
  totals: TotalLine | undefined,
  line: (fields: readonly string[]) => string[],
): Mapping {
  return (record, about) => {
    const { fields } = record;
    if (spec.titles && record.line === 1) {
      const same =
        fields.length === placed.count && fields.every((text, index) => text === placed.keys[index]);
      return same ? ['H', '1', about.merchant, about.kind, about.businessDate, ''] : ['H'];
    }
    if (isBlank(fields)) return [''];
    if (totals?.isIn(fields)) return totals.read(fields);
    return line(fields);
  };
}

interface TotalLine {
  isIn(fields: readonly string[]): boolean;
  read(fields: readonly string[]): string[];
  cells(totals: FileTotals): string[];
}

function totalLine(spec: CsvSpec, placed: Placed): TotalLine | undefined {
  const total = spec.total_line;
  if (total === undefined) return undefined;
  const at = (key: string): number => (spec.titles ? placed.keys.indexOf(key) : Number(key) - 1);
  const [where, count, amount] = [at(total.where.column), at(total.count), at(total.amount)];
  const { equals } = total.where;
  // Sums stand there in the form that amounts have.
  const thousands = placed.columns.find(({ column }) => column.field.name === 'amount')?.column.form
    .thousands;
  const read = compileRead({ thousands }, { form: 'number' }, true) ?? ((text: string) => text);
  const write = thousands === undefined ? (text: string) => text : writeThousands(thousands);
  return {
    isIn: (fields) => fields[where] === equals,
    read: (fields) => ['T', read(fields[count] ?? ''), read(fields[amount] ?? '')],
    cells({ records, sum }) {
      const cells = Array.from({ length: placed.count }, () => '');
      cells[where] = equals;
      cells[count] = write(String(records));
      cells[amount] = write(String(sum));
      return cells;
    },
  };
}

type Types = NonNullable<CsvSpec['record_type']>;

function typedMapping(
  spec: CsvSpec,
  types: Types,
  kind: MappedKind,
  line: (fields: readonly string[]) => string[],
): Mapping {
  const at = types.column - 1;
  const ofLine = types[kind];
  const { business_date: date, sequence, merchant } = spec.header ?? {};
  const readDate = date && compileRead({ date: date.date }, { form: 'date' }, true);
  const header: Mapping = ({ fields }, about) => [
    'H',
    '1',
    merchant === undefined || fields[merchant.column - 1] === merchant.equals
      ? about.merchant
      : foreignType(fields[merchant.column - 1] ?? ''),
    about.kind,
    date === undefined ? about.businessDate : (readDate?.(fields[date.column - 1] ?? '') ?? ''),
    sequence === undefined ? '' : withoutLeadingZeros(fields[sequence.column - 1] ?? ''),
  ];
  const { count, amount } = spec.trailer ?? {};
  return (record, about) => {
    const { fields } = record;
    const type = fields[at] ?? '';
    if (type === ofLine && ofLine !== undefined) return line(fields);
    if (isBlank(fields)) return [''];
    if (type === types.header && types.header !== undefined) return header(record, about);
    if (
      type === types.trailer &&
      types.trailer !== undefined &&
      count !== undefined &&
      amount !== undefined
    ) {
      return ['T', ...[count, amount].map(({ column }) => withoutLeadingZeros(fields[column - 1] ?? ''))];
    }
    const row = line(fields);
    row[0] = foreignType(type);
    return row;
  };
}

function trailerCells(spec: CsvSpec, type: string, typeColumn: number, totals: FileTotals): string[] {
  const { count, amount } = spec.trailer ?? {};
  return placedCells([
    [typeColumn, type],
    [count?.column, String(totals.records)],
    [amount?.column, String(totals.sum)],
  ]);
}

/** Cells at their columns, from 1; blank between. */
function placedCells(cells: readonly (readonly [number | undefined, string])[]): string[] {
  const width = Math.max(...cells.map(([column]) => column ?? 0));
  const row = Array.from({ length: width }, () => '');
  for (const [column, text] of cells) if (column !== undefined) row[column - 1] = text;
  return row;
}

function rowWriter(
  spec: CsvSpec,
  kind: MappedKind,
  placed: Placed,
  format: (cells: readonly string[]) => string,
): Pick<KindLayout, 'head' | 'row'> {
  const template = Array.from({ length: placed.count }, () => '');
  const types = spec.record_type;
  if (types !== undefined) template[types.column - 1] = types[kind] ?? '';
  const constants = constantCheck(spec, kind);
  const writes: readonly [number, number, Convert | undefined][] = placed.columns.map(({ at, column }) => [
    at,
    column.target,
    column.write,
  ]);
  const { business_date: date, sequence, merchant } = spec.header ?? {};
  const writeDate =
    date && compileWrite({ date: date.date }, { name: 'business_date', form: 'date' }, false, spec.layout);
  return {
    head(about) {
      if (spec.titles) return format(placed.keys);
      if (types?.header === undefined) return '';
      return format(
        placedCells([
          [types.column, types.header],
          [date?.column, writeDate?.(about.businessDate) ?? ''],
          [sequence?.column, String(about.sequence)],
          [merchant?.column, merchant?.equals ?? ''],
        ]),
      );
    },
    row(fields: Row) {
      constants(fields);
      const cells = template.slice();
      for (const [at, target, write] of writes) {
        const text = fields[target] ?? '';
        cells[at] = write === undefined ? text : write(text);
      }
      return format(cells);
    },
  };
}

/** What the layout says of every line cannot be something else in one of them. */
export function constantCheck(
  spec: { readonly layout: string; readonly constants: Record<string, string> },
  kind: MappedKind,
): (fields: Row) => void {
  if (kind !== 'billing') return () => undefined;
  const fixed = emptyRow(spec as CsvSpec, kind);
  const checked = fixed.flatMap((text, target) => (target > 0 && text !== '' ? [{ text, target }] : []));
  return (fields) => {
    for (const { text, target } of checked) {
      const given = fields[target] ?? '';
      if (given !== '' && given !== text)
        throw new CannotWrite('the layout says the same of every line', `column ${target}`, spec.layout);
    }
  };
}

/** A record as text: quotes where they are needed, or around every field. */
function rowFormat(spec: CsvSpec): (cells: readonly string[]) => string {
  const newline = spec.newline === 'crlf' ? '\r\n' : '\n';
  const { delimiter } = spec;
  if (spec.quote === 'none') {
    return (cells) => {
      const cutting = cells.find((text) => text.includes(delimiter) || /[\r\n]/.test(text));
      if (cutting !== undefined)
        throw new CannotWrite('a value holds the delimiter or a line end', 'a record', spec.layout);
      return cells.join(delimiter) + newline;
    };
  }
  const quote = spec.quote;
  const quoted = (text: string): string =>
    quote + (text.includes(quote) ? text.replaceAll(quote, quote + quote) : text) + quote;
  if (spec.quote_all) return (cells) => cells.map(quoted).join(delimiter) + newline;
  const needsQuotes = (text: string): boolean =>
    text.includes(delimiter) || text.includes(quote) || text.includes('\n') || text.includes('\r');
  return (cells) => {
    const plain = cells.join(delimiter);
    // One field that is blank would be a blank line.
    if (cells.length > 1 && !plain.includes(quote) && !plain.includes('\n') && !plain.includes('\r')) {
      let delimiters = 0;
      for (let at = plain.indexOf(delimiter); at !== -1; at = plain.indexOf(delimiter, at + 1))
        delimiters += 1;
      if (delimiters === cells.length - 1) return plain + newline;
    }
    return (
      cells.map((text) => (needsQuotes(text) || cells.length === 1 ? quoted(text) : text)).join(delimiter) +
      newline
    );
  };
}
