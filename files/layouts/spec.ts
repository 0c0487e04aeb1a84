import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { Refusal } from '../../billing/refusal.ts';

/** A place in a layout file that is wrong, such as `billing.amount.bytes`; empty for the file as a whole. */
export interface LayoutProblem {
  readonly path: string;
  readonly reason: string;
}

/** A layout refused, with every place and reason. */
export class LayoutRefusal extends Refusal {
  readonly problems: readonly LayoutProblem[];

  constructor(file: string, problems: readonly LayoutProblem[]) {
    const lines = problems.map(({ path, reason }) => (path === '' ? reason : `${path}: ${reason}`));
    super('LAYOUT', `${file} is refused.\n${lines.join('\n')}`, {
      next: 'Correct the layout; seikyu layout lint <file> --sample <data> shows what it makes of a file.',
      context: { file, problems: problems.length },
      exitCode: 2,
    });
    this.problems = problems;
  }
}

const fileCharactersMax = 64 * 1024;
const recordBytesMax = 4_000;

const word = (max: number) =>
  z
    .string({ error: 'must be text: put it in quotes' })
    .max(max, `must not be longer than ${max} characters`)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: finding control characters is what it is for
    .refine((text) => !/[\u0000-\u001f\u007f-\u009f]/.test(text), 'must not contain control characters');
const someWord = (max: number) => word(max).min(1, 'must not be empty');
const wholeNumber = (min: number, max: number) =>
  z
    .number({ error: 'must be a number' })
    .int('must be a whole number')
    .min(min, `must be ${min} or more`)
    .max(max, `must be ${max} or less`);
const yes = z.boolean({ error: 'must be true or false' });
const character = z
  .string({ error: 'must be one character, in quotes' })
  .regex(/^[\x20-\x7e\t]$/, 'must be one ASCII character');
/** YAML reads 10 as a number: as a value it is the text of it. */
const scalar = z
  .union([word(200), z.number()], { error: 'must be text or a number' })
  .transform((value) => String(value));

/** How a cell's text stands for a field's value. */
const formShape = {
  date: someWord(30).optional(),
  thousands: character.optional(),
  zero_filled: yes.optional(),
  values: z.record(z.string(), scalar, { error: 'must map words: { paid: "1" }' }).optional(),
  text: someWord(200).optional(),
};
const trim = z.enum(['left', 'right', 'both'], { error: 'must be left, right or both' });
const positionShape = { at: wholeNumber(1, recordBytesMax), bytes: wholeNumber(1, recordBytesMax) };
const cell = z.strictObject({ ...positionShape, ...formShape, trim: trim.optional() });
const column = z.union([
  // null: a column that is there and not read.
  z.null(),
  someWord(40).transform((field) => ({ field })),
  z.strictObject({ field: someWord(40), ...formShape, trim: trim.optional() }),
]);
const columnNumber = wholeNumber(1, 500);

const names = z.record(z.string(), someWord(100), { error: 'must map kinds to names of files' }).default({});
const constants = z.record(z.string(), scalar, { error: 'must map fields to values' }).default({});
const shared = {
  layout: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,31}\/[1-9][0-9]{0,3}$/, 'must be a name and a version: kita-denryoku/1')
    .refine((name) => !/^(standard|zengin-91)\//.test(name), 'is the name of a built-in layout'),
  encoding: z.enum(['utf-8', 'shift_jis'], { error: 'must be utf-8 or shift_jis' }).default('utf-8'),
  newline: z.enum(['lf', 'crlf'], { error: 'must be lf or crlf' }).default('lf'),
  names,
  constants,
};
const types = {
  header: someWord(10).optional(),
  trailer: someWord(10).optional(),
  billing: someWord(10).optional(),
  result: someWord(10).optional(),
  receipt: someWord(10).optional(),
};
const equals = someWord(100);

const fixedSchema = z.strictObject({
  ...shared,
  format: z.literal('fixed'),
  record_bytes: wholeNumber(1, recordBytesMax),
  record_type: z.strictObject({ ...positionShape, ...types }).optional(),
  header: z
    .strictObject({
      business_date: z.strictObject({ ...positionShape, date: someWord(30) }).optional(),
      sequence: z.strictObject(positionShape).optional(),
      merchant: z.strictObject({ ...positionShape, equals }).optional(),
    })
    .optional(),
  trailer: z
    .strictObject({ count: z.strictObject(positionShape), amount: z.strictObject(positionShape) })
    .optional(),
  billing: z.record(z.string(), cell, { error: 'must map fields to positions' }).optional(),
  result: z.record(z.string(), cell, { error: 'must map fields to positions' }).optional(),
  receipt: z.record(z.string(), cell, { error: 'must map fields to positions' }).optional(),
});

const columnsOf = z.record(z.string(), column, { error: 'must map columns to fields' }).optional();
const csvSchema = z.strictObject({
  ...shared,
  format: z.literal('csv'),
  delimiter: character.default(','),
  quote: z.union([character, z.literal('none')], { error: 'must be one character, or none' }).default('"'),
  quote_all: yes.default(false),
  titles: yes.default(false),
  record_type: z.strictObject({ column: columnNumber, ...types }).optional(),
  header: z
    .strictObject({
      business_date: z.strictObject({ column: columnNumber, date: someWord(30) }).optional(),
      sequence: z.strictObject({ column: columnNumber }).optional(),
      merchant: z.strictObject({ column: columnNumber, equals }).optional(),
    })
    .optional(),
  trailer: z
    .strictObject({
      count: z.strictObject({ column: columnNumber }),
      amount: z.strictObject({ column: columnNumber }),
    })
    .optional(),
  total_line: z
    .strictObject({
      where: z.strictObject({ column: scalar, equals }),
      count: scalar,
      amount: scalar,
    })
    .optional(),
  billing: columnsOf,
  result: columnsOf,
  receipt: columnsOf,
});

export type CellForm = z.infer<z.ZodObject<typeof formShape>> & { trim?: z.infer<typeof trim> | undefined };
export type FixedCell = z.infer<typeof cell>;
export type FixedSpec = z.infer<typeof fixedSchema>;
export type CsvSpec = z.infer<typeof csvSchema>;
export type LayoutSpec = FixedSpec | CsvSpec;

/** A layout file's keys and types. What they mean together is judged later. Throws `LayoutRefusal`. */
export function readSpec(yamlText: string, file: string): LayoutSpec {
  const raw = readYaml(yamlText, file);
  if (raw.format !== 'csv' && raw.format !== 'fixed') {
    const reason = raw.format === undefined ? 'is missing: csv or fixed' : 'must be csv or fixed';
    throw new LayoutRefusal(file, [{ path: 'format', reason }]);
  }
  const parsed = raw.format === 'csv' ? csvSchema.safeParse(raw) : fixedSchema.safeParse(raw);
  if (parsed.success) return parsed.data;
  throw new LayoutRefusal(
    file,
    parsed.error.issues.flatMap((issue) => problemsOf(issue, raw.format as 'csv' | 'fixed')),
  );
}

function readYaml(text: string, file: string): Record<string, unknown> {
  if (text.length > fileCharactersMax)
    throw new LayoutRefusal(file, [{ path: '', reason: 'is too large for a layout' }]);
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false, version: '1.2' });
  if (document.errors.length > 0) {
    throw new LayoutRefusal(
      file,
      document.errors.map((error) => {
        const { line, col } = lineCounter.linePos(error.pos[0]);
        return { path: '', reason: `line ${line}, column ${col}: not YAML (${error.code})` };
      }),
    );
  }
  try {
    const value: unknown = document.toJS({ maxAliasCount: 0 });
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (cause) {
    if (!(cause instanceof ReferenceError)) throw cause;
    throw new LayoutRefusal(file, [{ path: '', reason: 'aliases (*name) are not taken in layouts' }]);
  }
  throw new LayoutRefusal(file, [{ path: '', reason: 'must begin as a layout: layout: name/1' }]);
}

const ofFixed = ['record_bytes', 'at', 'bytes'];
const ofCsv = ['titles', 'delimiter', 'quote', 'quote_all', 'total_line', 'column', 'field'];

function problemsOf(issue: z.core.$ZodIssue, format: 'csv' | 'fixed'): LayoutProblem[] {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const others = format === 'csv' ? ofFixed : ofCsv;
    return issue.keys.map((key) => ({
      path: path === '' ? key : `${path}.${key}`,
      reason: others.includes(key)
        ? `belongs to format: ${format === 'csv' ? 'fixed' : 'csv'}; columns are found by title, by number or by position, never by two of them`
        : 'is not a key of layouts',
    }));
  }
  if (issue.code === 'invalid_union') {
    // A union's own branches are told apart by what was written: a group has keys that are wrong, a text is one.
    const deeper = issue.errors.flat().filter((inner) => inner.code !== 'invalid_type');
    const told = deeper.flatMap((inner) =>
      problemsOf({ ...inner, path: [...issue.path, ...inner.path] }, format),
    );
    return told.length > 0 ? told : [{ path, reason: issue.message }];
  }
  if (issue.code === 'invalid_type' && issue.input === undefined && /undefined/.test(issue.message))
    return [{ path, reason: 'is missing' }];
  return [{ path, reason: issue.message.replace(/^Invalid input: expected/, 'must be') }];
}
