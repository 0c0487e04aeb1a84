import { MultiBar, Presets } from 'cli-progress';
import Table from 'cli-table3';
import { Temporal } from 'temporal-polyfill';
import { Refusal } from '../billing/refusal.ts';
import type { JobContext } from '../jobs/job.ts';
import { cleanText } from './log.ts';

export interface Output {
  json: boolean;
  /** A table for people; with --json the rows as they are. */
  rows(
    title: string,
    columns: readonly string[],
    rows: readonly Record<string, unknown>[],
    empty: string,
  ): void;
  line(text: string): void;
  /** The one JSON document of a command; says nothing without --json. */
  document(value: unknown): void;
}

export function openOutput(json: boolean): Output {
  return {
    json,
    rows(title, columns, rows, empty) {
      if (json) return;
      if (rows.length === 0) {
        console.log(empty);
        return;
      }
      if (title !== '') console.log(title);
      console.log(tableOf(columns, rows));
    },
    line(text) {
      if (!json) console.log(text);
    },
    document(value) {
      if (json) console.log(JSON.stringify(value));
    },
  };
}

/** Plain columns without frames: readable at 3 a.m. and by grep. cli-table3 knows how wide Japanese characters are. */
function tableOf(columns: readonly string[], rows: readonly Record<string, unknown>[]): string {
  const table = new Table({
    head: [...columns],
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '  ',
    },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: columns.map((column) => (rows.every((row) => isNumeric(row[column])) ? 'right' : 'left')),
  });
  table.push(...rows.map((row) => columns.map((column) => shown(row[column]))));
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

const isNumeric = (value: unknown): boolean =>
  typeof value === 'number' || value === null || value === undefined || value === '';

function shown(value: unknown): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number') return value.toLocaleString('en-US');
  if (typeof value === 'object') {
    return Object.entries(value)
      .map(([key, item]) => `${key} ${typeof item === 'number' ? item.toLocaleString('en-US') : item}`)
      .join(', ');
  }
  return String(value);
}

/** An instant as the merchant's wall clock shows it: 2026-11-25 10:02:00+09:00. */
export function localTime(instant: string | null, timezone: string): string {
  if (instant === null) return '';
  return Temporal.Instant.from(instant)
    .toZonedDateTimeISO(timezone)
    .toString({ timeZoneName: 'never', smallestUnit: 'second' })
    .replace('T', ' ');
}

/** A bar on standard error at a terminal; nothing in a pipe. */
export function openProgress(json: boolean): { progress: JobContext['progress']; end(): void } {
  if (json || !process.stderr.isTTY) return { progress: () => undefined, end: () => undefined };
  const bars = new MultiBar(
    { format: '{what} {bar} {value}/{total} {eta_formatted}', hideCursor: true, clearOnComplete: true },
    Presets.shades_classic,
  );
  const open = new Map<string, ReturnType<MultiBar['create']>>();
  return {
    progress(done, total, what) {
      const bar = open.get(what) ?? bars.create(total ?? 0, done, { what });
      open.set(what, bar);
      bar.setTotal(total ?? done);
      bar.update(done, { what });
    },
    end: () => bars.stop(),
  };
}

/** What commander says of a command line that it cannot read, as one JSON document. */
export function wrongUsage(text: string): string {
  const message = cleanText(text.trim().replace(/^error: /, ''));
  const error = { code: 'WRONG_USAGE', message, next: 'seikyu --help lists the commands', context: {} };
  return `${JSON.stringify({ error })}\n`;
}

/** What went wrong and what to do next, on standard error; the exit code that says so. */
export function reportFailure(error: unknown, json: boolean): number {
  if (error instanceof Refusal) {
    if (json) {
      console.error(
        JSON.stringify({
          error: { code: error.code, message: error.message, next: error.next, context: error.context },
        }),
      );
    } else {
      console.error(`${error.code}: ${cleanText(error.message)}`);
      console.error(error.next);
    }
    return error.exitCode;
  }
  const message = cleanText(error instanceof Error ? (error.stack ?? error.message) : String(error));
  console.error(json ? JSON.stringify({ error: { code: 'UNEXPECTED', message } }) : `UNEXPECTED: ${message}`);
  return 1;
}
