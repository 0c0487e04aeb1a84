import fs from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { Refusal } from '../../billing/refusal.ts';
import { fieldsOf, type MappedKind, mappedKinds } from '../../files/layouts/fields.ts';
import { type Layout, parseLayout } from '../../files/layouts/layout.ts';
import { namedOutward } from '../../files/layouts/names.ts';
import { readRows } from '../../files/layouts/rows.ts';
import { catalogue } from '../../files/standard/catalogue.ts';
import {
  classifyInboundName,
  type InwardKind,
  inwardKinds,
  parseFileName,
} from '../../files/standard/names.ts';
import { type FileVerdict, type ReadLine, readStandardFile } from '../../files/standard/read.ts';
import type { LineOf } from '../../files/standard/validate.ts';
import { resolveDebitDay } from '../../files/zengin91/debit-day.ts';
import type { DebitFile } from '../../files/zengin91/file.ts';
import { readDebits } from '../../files/zengin91/read.ts';
import { reconcileDebits } from '../../files/zengin91/reconcile.ts';
import { writeDebits } from '../../files/zengin91/write.ts';
import { type Output, openOutput } from '../output.ts';

interface LintOptions {
  json: boolean;
  sample: string | undefined;
  kind: string | undefined;
  merchant: string | undefined;
  request: string | undefined;
  date: string | undefined;
  lines: number;
}

/** Rows that a merchant reads back from us, besides what it sends. */
const ownKinds = mappedKinds.filter((kind) => kind !== 'billing');

export function addLayoutCommands(program: Command): void {
  const layout = program.command('layout').description('how merchants write their files');
  layout
    .command('lint')
    .argument('<file>', 'a layout file, or standard/1, or zengin-91')
    .description('what is wrong with a layout, and line by line what a sample becomes in it')
    .option('--sample <data>', 'a file in this layout')
    .addOption(
      new Option('--kind <kind>', 'of the sample, where its name does not say').choices([
        ...inwardKinds,
        ...ownKinds,
      ]),
    )
    .option('--merchant <code>', 'whose header it must be, where its name does not say')
    .option('--request <data>', 'zengin-91: the request that the sample is the result of')
    .option('--date <YYYY-MM-DD>', 'business date, where neither name nor header has one')
    .addOption(new Option('--lines <n>', 'lines shown at most').default(100).argParser(Number))
    .addHelpText(
      'after',
      `
Exit codes: 2 where the layout is wrong, 3 where the sample or one of its lines is refused.
Nothing is stored: duplicates and unknown numbers are found when a file is taken in.

Example:
  $ seikyu layout lint layout.yaml --sample KD_SEIKYU_20261125_0001.CSV`,
    )
    .action(async (file: string, options: LintOptions) => {
      const output = openOutput(options.json);
      process.exitCode =
        file === 'zengin-91' ? lintDebits(output, options) : await lint(output, file, options);
    });
}

async function lint(output: Output, file: string, options: LintOptions): Promise<number> {
  const layout = file === 'standard/1' ? null : parseLayout(readText(file), file);
  const about = {
    layout: layout?.name ?? file,
    encoding: layout?.encoding ?? 'utf-8',
    describes: [...(layout?.kinds.keys() ?? [])],
  };
  output.line(
    `${about.layout}: ${about.encoding}${about.describes.length > 0 ? `, describes ${about.describes.join(', ')}` : ''}`,
  );
  if (options.sample === undefined) {
    output.document(about);
    output.line('The layout is in order. With --sample it shows what a file becomes.');
    return 0;
  }
  const name = basename(options.sample);
  const merchant = options.merchant ?? parseFileName(name)?.merchant ?? '';
  const kind = options.kind ?? kindOf(layout, name, merchant) ?? 'billing';
  const isOurs = (ownKinds as readonly string[]).includes(kind);
  return isOurs
    ? await lintRows(output, layout, kind as MappedKind, options, about)
    : await lintLines(output, layout, kind as InwardKind, options, about, merchant);
}

function kindOf(layout: Layout | null, name: string, merchant: string): string | undefined {
  const inward = classifyInboundName(name, merchant, layout?.inwardNames(merchant));
  if (inward.type === 'data') return inward.kind;
  const outward = namedOutward.find((kind) => layout?.outwardNames.get(kind)?.read(name) !== undefined);
  return outward ?? parseFileName(name)?.kind;
}

type About = Record<string, unknown>;

/** What the merchant sends, checked as `ingest` would, as far as a file alone can be. */
async function lintLines<K extends InwardKind>(
  output: Output,
  layout: Layout | null,
  kind: K,
  options: LintOptions,
  about: About,
  named: string,
): Promise<number> {
  const sample = options.sample ?? '';
  const name = classifyInboundName(basename(sample), named, layout?.inwardNames(named));
  const businessDate = (name.type === 'data' ? name.name.businessDate : '') || (options.date ?? '');
  const lines: Record<string, unknown>[] = [];
  let verdict: FileVerdict | null = null;
  for await (const batch of readStandardFile(open(sample), {
    encoding: layout?.encoding ?? 'utf-8',
    layout: (kind === 'billing' && layout?.kinds.get('billing')) || null,
    businessDate,
    merchant: named,
    kind,
  })) {
    for (const line of batch.lines) if (lines.length < options.lines) lines.push(shownLine<K>(line));
    verdict = batch.verdict;
  }
  if (verdict === null) throw new Error('impossible state: a file without a verdict');
  const { fileCode, header, trailer, linesRead, linesAccepted, linesRejected, amountAccepted } = verdict;
  const fault = {
    code: fileCode,
    message: fileCode === null ? null : catalogue[fileCode],
    line: verdict.faultLine,
    byte: verdict.encodingOffset,
  };
  const counts = { linesRead, linesAccepted, linesRejected, amountAccepted };
  output.document({
    ...about,
    kind,
    sample,
    header,
    trailer,
    refused: fileCode === null ? null : fault,
    ...counts,
    lines,
  });
  const columns = ['line', 'outcome', ...new Set(lines.flatMap((line) => Object.keys(line)))];
  output.rows('', [...new Set(columns)], lines, 'no lines');
  if (linesRead > lines.length) output.line(`... ${linesRead - lines.length} more lines; --lines shows more`);
  if (fileCode !== null) {
    const place =
      fault.byte === null ? (fault.line === null ? '' : ` (line ${fault.line})`) : ` (byte ${fault.byte})`;
    output.line(`The file is refused whole: ${fileCode}, ${fault.message}${place}.`);
    return 3;
  }
  output.line(
    `${kind} of ${header?.businessDate}, ${header?.sequence === null ? 'no sequence' : `sequence ${header?.sequence}`}: ` +
      `${linesRead} lines read, ${linesAccepted} accepted over ${amountAccepted} yen, ${linesRejected} refused.`,
  );
  return linesRejected > 0 ? 3 : 0;
}

function shownLine<K extends InwardKind>(line: ReadLine<LineOf[K]>): Record<string, unknown> {
  if (line.rejected !== undefined) {
    const { code, field } = line.rejected;
    const { billingNumber } = line;
    const message = catalogue[code];
    return { line: line.line, outcome: 'refused', code, field, message, billing_number: billingNumber };
  }
  const fields = Object.entries(line.ok as object).map(([key, value]) => [
    fieldName(key),
    value !== null && typeof value === 'object' && 'e164' in value ? (value.e164 ?? value.kind) : value,
  ]);
  return { line: line.line, outcome: 'accepted', ...Object.fromEntries(fields) };
}

/** As the file formats name it. */
const fieldName = (key: string): string => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** What we write, as the merchant would read it. */
async function lintRows(
  output: Output,
  layout: Layout | null,
  kind: MappedKind,
  options: LintOptions,
  about: About,
): Promise<number> {
  const sample = options.sample ?? '';
  const lines: Record<string, unknown>[] = [];
  let read = 0;
  for await (const records of readRows(open(sample), layout, kind)) {
    for (const { line, fields } of records) {
      if (fields[0] !== 'R') continue;
      read += 1;
      const values = fieldsOf[kind].map(({ name }, index) => [name, fields[index + 1] ?? '']);
      if (lines.length < options.lines) lines.push({ line, ...Object.fromEntries(values) });
    }
  }
  output.document({ ...about, kind, sample, linesRead: read, lines });
  output.rows('', ['line', ...fieldsOf[kind].map(({ name }) => name)], lines, 'no lines');
  output.line(`${kind}: ${read} rows.`);
  return 0;
}

function lintDebits(output: Output, options: LintOptions): number {
  if (options.sample === undefined) {
    output.document({ layout: 'zengin-91', encoding: 'jis-x-0201', recordBytes: 120 });
    output.line('zengin-91 is built in: bank debits in records of 120 bytes. With --sample it shows a file.');
    return 0;
  }
  const bytes = readBytes(options.sample);
  const { file, fault } = readDebits(bytes);
  if (file === undefined) {
    output.document({ layout: 'zengin-91', sample: options.sample, refused: fault });
    output.line(
      `The file is refused whole: ${fault.code} in record ${fault.record}${fault.field && `, ${fault.field}`}.`,
    );
    return 3;
  }
  const reconciled = options.request === undefined ? undefined : reconciledWith(options.request, file);
  const towards = reconciled === undefined ? 'forward' : 'nearest';
  const dateOf = (monthDay: string): string | null =>
    options.date === undefined ? null : resolveDebitDay(monthDay, options.date, towards);
  const lines = file.batches
    .flatMap(({ header, debits }, batch) =>
      debits.map((debit, index) => ({
        batch: batch + 1,
        debit_day: dateOf(header.debitDay) ?? header.debitDay,
        ...Object.fromEntries(Object.entries(debit).map(([key, value]) => [fieldName(key), value])),
        outcome:
          reconciled?.matched?.find((each) => each.batch === batch && each.index === index)?.outcome ?? '',
      })),
    )
    .slice(0, options.lines);
  const rejected = reconciled?.rejected === undefined ? null : reconciled;
  // Read and written again it must be the same file: what differs is filling that says something, or a byte at its end.
  const writtenAlike = writeDebits(file).equals(bytes);
  const trailers = file.batches.map(({ trailer }) => trailer);
  output.document({
    layout: 'zengin-91',
    sample: options.sample,
    refused: rejected,
    writtenAlike,
    trailers,
    lines,
  });
  output.rows(
    '',
    [
      'batch',
      'debit_day',
      'bank',
      'branch',
      'account_type',
      'account',
      'holder',
      'amount',
      'customer_number',
      'result_code',
      'outcome',
    ],
    lines,
    'no debits',
  );
  for (const { count, amount } of trailers) output.line(`${count} debits over ${amount} yen.`);
  if (!writtenAlike)
    output.line('Written again it would be other bytes: its filling or its end is not the standard’s.');
  if (rejected === null) return 0;
  const { batch, record } = rejected;
  output.line(`It does not answer the request: ${rejected.rejected}, batch ${batch}, debit ${record}.`);
  return 3;
}

function reconciledWith(request: string, result: DebitFile): ReturnType<typeof reconcileDebits> {
  const { file, fault } = readDebits(readBytes(request));
  if (file !== undefined) return reconcileDebits(file, result);
  throw new Refusal('DEBIT_REQUEST', `${request} is no request: ${fault.code} in record ${fault.record}`, {
    next: 'Give the file that was sent to the bank or agency.',
    exitCode: 2,
  });
}

function open(path: string): AsyncIterable<Uint8Array> {
  readable(path);
  return fs.createReadStream(path);
}

function readText(path: string): string {
  return readBytes(path).toString('utf8');
}

function readBytes(path: string): Buffer {
  readable(path);
  return fs.readFileSync(path);
}

function readable(path: string): void {
  if (fs.existsSync(path) && fs.statSync(path).isFile()) return;
  throw new Refusal('FILE_UNREADABLE', `${path} is no file that can be read`, {
    next: 'Check the path.',
    exitCode: 2,
  });
}
