import { canEncode } from '../decode.ts';
import { byteLength } from '../split.ts';
import { validateBilling } from '../standard/validate.ts';
import { type Field, fieldsOf, type MappedKind, mappedKinds } from './fields.ts';
import { dateFormat, formProblems } from './forms.ts';
import { namedInward, namedOutward, namePattern } from './names.ts';
import type { CellForm, CsvSpec, FixedSpec, LayoutProblem, LayoutSpec } from './spec.ts';

type Say = (path: string, reason: string) => void;

/** What is wrong with a layout whose keys and types are right: all of it at once. */
export function judgeLayout(spec: LayoutSpec): LayoutProblem[] {
  const problems: LayoutProblem[] = [];
  const refuse: Say = (path, reason) => problems.push({ path, reason });
  if (spec.format === 'csv') judgeCsv(spec, refuse);
  else judgeFixed(spec, refuse);
  judgeTypes(spec, refuse);
  judgeNames(spec, refuse);
  judgeConstants(spec, refuse);
  for (const kind of mappedKinds) judgeKind(spec, kind, refuse);
  return problems;
}

/** A mapping of either format as one list: where it stands in the file, its field and its form. */
export interface Mapped {
  /** `result.結果` */
  readonly path: string;
  /** Title or number of the column, or the field's own name. */
  readonly key: string;
  /** Null: a column that is not read. */
  readonly field: string | null;
  readonly form: CellForm;
}

export function mappedOf(spec: LayoutSpec, kind: MappedKind): Mapped[] | undefined {
  if (spec.format === 'fixed') {
    const cells = spec[kind];
    return (
      cells &&
      Object.entries(cells).map(([field, form]) => ({ path: `${kind}.${field}`, key: field, field, form }))
    );
  }
  const columns = spec[kind];
  return (
    columns &&
    Object.entries(columns).map(([key, column]) => ({
      path: `${kind}.${key}`,
      key,
      field: column?.field ?? null,
      form: column !== null && 'date' in column ? column : (column ?? {}),
    }))
  );
}

function judgeKind(spec: LayoutSpec, kind: MappedKind, refuse: Say): void {
  const mapped = mappedOf(spec, kind);
  if (mapped === undefined) return;
  const known = fieldsOf[kind];
  const taken = new Set<string>();
  for (const { path, field: name, form } of mapped) {
    if (name === null) continue;
    const field = known.find((candidate) => candidate.name === name);
    if (field === undefined) {
      refuse(
        path,
        `${name} is not a field of ${kind}; its fields: ${known.map((each) => each.name).join(', ')}`,
      );
      continue;
    }
    if (taken.has(name)) refuse(path, `${name} stands in two columns`);
    taken.add(name);
    for (const { key, reason } of formProblems(form, field, kind === 'billing'))
      refuse(`${path}.${key}`, reason);
    for (const text of [...Object.entries(form.values ?? {}).flat(), form.text ?? '', form.date ?? ''])
      judgeText(spec, `${path}.${form.text === text ? 'text' : 'values'}`, text, refuse);
  }
  for (const { name, required } of known) {
    if (!required || taken.has(name) || (kind === 'billing' && name in spec.constants)) continue;
    refuse(
      kind,
      `has no ${name}: ${kind === 'billing' ? 'name a column or a constant' : 'without it a line says nothing'}`,
    );
  }
  if (kind !== 'billing' || spec.record_type === undefined) return;
  if (spec.record_type.billing === undefined)
    refuse('record_type.billing', 'is missing: lines are told by it');
}

function judgeText(spec: LayoutSpec, path: string, text: string, refuse: Say): void {
  const cannot = [...text].find((character) => !canEncode(character, spec.encoding));
  if (cannot !== undefined) refuse(path, `${JSON.stringify(cannot)} cannot be written in ${spec.encoding}`);
}

/** A line whose only fault can be the constant that is put into it. */
const soundLine = {
  billing_number: 'B-1',
  customer_number: 'C-1',
  customer_name: 'A',
  phone: '',
  email: '',
  amount: '99999999',
  tax_rate: '0',
  tax_amount: '',
  billing_period: '2026-11',
  due_date: '2026-12-28',
  collection: '',
  description: '',
};

function judgeConstants(spec: LayoutSpec, refuse: Say): void {
  const mapped = new Set(mappedOf(spec, 'billing')?.map(({ field }) => field));
  for (const [name, value] of Object.entries(spec.constants)) {
    const path = `constants.${name}`;
    if (!Object.hasOwn(soundLine, name)) refuse(path, 'is not a field of billing');
    else if (mapped.has(name)) refuse(path, 'is a column too: which of them counts?');
    else {
      const judged = validateBilling(['D', ...Object.values({ ...soundLine, [name]: value })]);
      if ('rejected' in judged)
        refuse(path, `${JSON.stringify(value)} is no ${name} (${judged.rejected.code})`);
    }
    judgeText(spec, path, value, refuse);
  }
  if (spec.billing === undefined && Object.keys(spec.constants).length > 0)
    refuse('constants', 'belong to billing, which the layout does not describe');
}

function judgeTypes(spec: LayoutSpec, refuse: Say): void {
  const types = spec.record_type;
  if (types === undefined) {
    for (const key of ['header', 'trailer'] as const)
      if (spec[key] !== undefined) refuse(key, 'needs record_type: nothing else tells it from a line');
    return;
  }
  const words = ['header', 'trailer', ...mappedKinds] as const;
  for (const key of words) {
    const word = types[key];
    if (word === undefined) continue;
    judgeText(spec, `record_type.${key}`, word, refuse);
    const same = words.find((other) => other !== key && types[other] === word);
    // Lines of different kinds never stand in one file.
    if (same !== undefined && (key === 'header' || key === 'trailer'))
      refuse(`record_type.${key}`, `is the type of ${same} too`);
    if (spec.format === 'fixed' && byteLength(word, spec.encoding) !== spec.record_type?.bytes)
      refuse(`record_type.${key}`, `must fill its ${spec.record_type?.bytes} bytes`);
  }
  for (const key of ['header', 'trailer'] as const) {
    if (spec[key] !== undefined && types[key] === undefined)
      refuse(`record_type.${key}`, `is missing, although there is a ${key}`);
  }
  if (types.trailer !== undefined && spec.trailer === undefined)
    refuse('trailer', 'is missing: where do count and amount stand?');
  for (const kind of ['result', 'receipt'] as const)
    if (spec[kind] !== undefined && types[kind] === undefined)
      refuse(`record_type.${kind}`, `is missing, although the layout writes its own ${kind}`);
  const { business_date: date, merchant } = spec.header ?? {};
  if (date !== undefined) {
    const format = dateFormat(date.date, 'date');
    if ('reason' in format)
      refuse('header.business_date.date', `${JSON.stringify(date.date)} ${format.reason}`);
    else if ('bytes' in date && date.bytes !== format.characters)
      refuse('header.business_date.bytes', `must be ${format.characters}, as ${date.date} has`);
  }
  if (merchant !== undefined) judgeText(spec, 'header.merchant.equals', merchant.equals, refuse);
}

function judgeNames(spec: LayoutSpec, refuse: Say): void {
  const seen = new Map<string, string>();
  for (const [kind, text] of Object.entries(spec.names)) {
    const path = `names.${kind}`;
    const inward = (namedInward as readonly string[]).includes(kind);
    if (!inward && !(namedOutward as readonly string[]).includes(kind)) {
      refuse(
        path,
        `is no kind of file with a name of its own: ${[...namedInward, ...namedOutward].join(', ')}`,
      );
      continue;
    }
    const pattern = namePattern(text);
    if ('reason' in pattern) {
      refuse(path, pattern.reason);
      continue;
    }
    if (!inward && !pattern.hasSequence) refuse(path, 'needs {seq4}: two files would have one name');
    if (inward && !pattern.hasSequence && !pattern.hasDate)
      refuse(path, 'needs {date} or {seq4}: two files would have one name');
    const direction = inward ? 'in' : 'out';
    const before = seen.get(direction + text);
    if (before !== undefined) refuse(path, `is the name of ${before} too`);
    seen.set(direction + text, kind);
    if (kind === 'billing' && spec.billing && !pattern.hasDate && spec.header?.business_date === undefined)
      refuse(path, 'needs {date}, since no header has a business_date');
  }
}

function judgeCsv(spec: CsvSpec, refuse: Say): void {
  if (/[A-Za-z0-9_ -]/.test(spec.delimiter))
    refuse('delimiter', 'stands in values: take a sign such as , or ;');
  if (spec.quote !== 'none' && /[A-Za-z0-9_ -]/.test(spec.quote))
    refuse('quote', 'stands in values: take " or none');
  if (spec.delimiter === spec.quote) refuse('quote', 'is the delimiter too');
  if (spec.quote === 'none' && spec.quote_all) refuse('quote_all', 'needs a quote');
  if (spec.titles && spec.record_type !== undefined)
    refuse('titles', 'and record_type are two ways to begin a file: take one');
  for (const kind of mappedKinds) {
    for (const { path, key, field } of mappedOf(spec, kind) ?? []) {
      if (spec.titles) {
        // Such keys of a mapping come back in another order than they stand in.
        if (/^(0|[1-9][0-9]*)$/.test(key))
          refuse(path, 'is a number, but titles: true finds columns by title');
        if (key === '' || /[\r\n]/.test(key)) refuse(path, 'is no title');
        judgeText(spec, path, key, refuse);
      } else if (!/^[1-9][0-9]{0,2}$/.test(key)) {
        refuse(path, 'is no number of a column; columns are found by title where titles: true');
      } else if (Number(key) === spec.record_type?.column && field !== null) {
        refuse(path, 'is the column of the record type');
      }
    }
  }
  const { total_line: total } = spec;
  if (total === undefined) return;
  if (spec.record_type !== undefined)
    refuse('total_line', 'is for files without record types; those have a trailer');
  const columns = mappedOf(spec, 'billing')?.map(({ key }) => key) ?? [];
  const places = { 'where.column': total.where.column, count: total.count, amount: total.amount };
  for (const [place, column] of Object.entries(places)) {
    if (!columns.includes(column)) refuse(`total_line.${place}`, `${column} is not a column of billing`);
    if (Object.values(places).filter((other) => other === column).length > 1)
      refuse(`total_line.${place}`, `${column} is named twice`);
  }
  judgeText(spec, 'total_line.where.equals', total.where.equals, refuse);
}

interface Place {
  path: string;
  at: number;
  bytes: number;
}

function judgeFixed(spec: FixedSpec, refuse: Say): void {
  const type: Place[] = spec.record_type ? [{ path: 'record_type', ...spec.record_type }] : [];
  const placesOf = (name: string, cells: object | undefined): Place[] =>
    Object.entries(cells ?? {}).map(([key, cell]) => ({
      path: `${name}.${key}`,
      at: cell.at,
      bytes: cell.bytes,
    }));
  for (const name of ['header', 'trailer', ...mappedKinds] as const) {
    const places = [...type, ...placesOf(name, spec[name])].sort((one, other) => one.at - other.at);
    places.forEach((place, index) => {
      const last = place.at + place.bytes - 1;
      if (last > spec.record_bytes)
        refuse(place.path, `runs to byte ${last} of a record of ${spec.record_bytes}`);
      const next = places[index + 1];
      if (next !== undefined && next.at <= last)
        refuse(next.path, `overlaps ${place.path}, which runs from byte ${place.at} to ${last}`);
    });
  }
  for (const kind of mappedKinds) judgeWidths(spec, kind, refuse);
  const merchant = spec.header?.merchant;
  if (merchant !== undefined && byteLength(merchant.equals, spec.encoding) > merchant.bytes)
    refuse('header.merchant.equals', `does not fit into ${merchant.bytes} bytes`);
}

const identifierMax = 40;

/** Nothing is ever cut: what is written out must fit whatever it is. */
function judgeWidths(spec: FixedSpec, kind: MappedKind, refuse: Say): void {
  for (const [name, cell] of Object.entries(spec[kind] ?? {})) {
    const field = fieldsOf[kind].find((candidate) => candidate.name === name);
    if (field === undefined) continue;
    const path = `${kind}.${name}.bytes`;
    if (cell.date !== undefined) {
      const format = dateFormat(cell.date, field.form);
      if ('parts' in format && cell.bytes < format.characters)
        refuse(path, `must be ${format.characters}, as ${cell.date} has`);
      continue;
    }
    if (kind === 'billing') continue;
    const needed = neededBytes(spec, field, cell);
    if (cell.bytes < needed) refuse(path, `must be ${needed} or more: ${name} is never cut`);
  }
}

function neededBytes(spec: FixedSpec, field: Field, cell: CellForm): number {
  if (cell.values !== undefined)
    return Math.max(...Object.values(cell.values).map((word) => byteLength(word, spec.encoding)));
  if (field.charactersMax === null) return spec.billing?.[field.name]?.bytes ?? identifierMax;
  const separators = cell.thousands === undefined ? 0 : Math.floor((field.charactersMax - 1) / 3);
  return field.charactersMax + separators;
}
