import { Refusal } from '../../billing/refusal.ts';
import type { Field, FieldForm } from './fields.ts';
import type { CellForm } from './spec.ts';

/** From a cell's text to the standard's, or back. Made once for each column of a layout. */
export type Convert = (text: string) => string;

/**
 * Stands before what has no reading in the layout, so that it can never pass for a standard value by accident:
 * `2026-12-28` where `YYYYMMDD` was agreed is no date. It is in no value that any field accepts.
 */
const noReading = '!';

/** A value that cannot be written by the layout: the file is not written at all, rather than wrongly. */
export class CannotWrite extends Refusal {
  constructor(what: string, field: string, layout: string) {
    super('LAYOUT_CANNOT_WRITE', `${layout} cannot write ${field}: ${what}`, {
      next: 'Correct the layout, apply the merchant again and run the job again; nothing was written.',
      context: { layout, field },
      exitCode: 3,
    });
  }
}

/** Tokens of a date format, each once. Everything between them stands as it is. */
const tokens = ['YYYY', 'MM', 'DD', 'HH', 'mm', 'ss'] as const;
type Token = (typeof tokens)[number];
const needs: Partial<Record<FieldForm, readonly Token[]>> = {
  month: ['YYYY', 'MM'],
  date: ['YYYY', 'MM', 'DD'],
  instant: ['YYYY', 'MM', 'DD'],
};

interface DateFormat {
  readonly parts: readonly string[];
  readonly characters: number;
}

/** The format of a field of this form, or why it is none. */
export function dateFormat(text: string, form: FieldForm): DateFormat | { reason: string } {
  const needed = needs[form];
  if (needed === undefined) return { reason: 'takes no date format' };
  const parts = text.split(/(YYYY|MM|DD|HH|mm|ss)/).filter((part) => part !== '');
  const found = parts.filter((part): part is Token => (tokens as readonly string[]).includes(part));
  if (new Set(found).size < found.length) return { reason: 'has a part of the date twice' };
  const missing = needed.filter((token) => !found.includes(token));
  if (missing.length > 0) return { reason: `lacks ${missing.join(' and ')}` };
  const tooMuch = found.filter((token) => form !== 'instant' && !needed.includes(token));
  if (tooMuch.length > 0) return { reason: `has ${tooMuch.join(' and ')}, which the field does not hold` };
  const between = parts.filter((part) => !(tokens as readonly string[]).includes(part)).join('');
  if (/[0-9A-Za-z]/.test(between))
    return { reason: 'is made of YYYY, MM, DD, HH, mm, ss and signs between them' };
  return { parts, characters: text.length };
}

function readDate(format: DateFormat, form: FieldForm): Convert {
  const pattern = new RegExp(
    `^${format.parts
      .map((part) =>
        (tokens as readonly string[]).includes(part)
          ? `(?<${part}>\\d{${part.length}})`
          : part.replace(/[$()*+.?[\\\]^{|}/]/g, '\\$&'),
      )
      .join('')}$`,
    'u',
  );
  // A file's lines share a few dates: 200,000 lines ask three times.
  return remembered((text) => {
    const found = pattern.exec(text)?.groups;
    if (found === undefined) return noReading + text;
    const { YYYY = '', MM = '', DD = '', HH = '00', mm = '00', ss = '00' } = found;
    if (form === 'month') return `${YYYY}-${MM}`;
    return form === 'date' ? `${YYYY}-${MM}-${DD}` : `${YYYY}-${MM}-${DD}T${HH}:${mm}:${ss}`;
  });
}

function writeDate(format: DateFormat): Convert {
  return remembered((text) => {
    const found: Record<Token, string> = {
      YYYY: text.slice(0, 4),
      MM: text.slice(5, 7),
      DD: text.slice(8, 10),
      HH: text.slice(11, 13),
      mm: text.slice(14, 16),
      ss: text.slice(17, 19),
    };
    return format.parts.map((part) => found[part as Token] ?? part).join('');
  });
}

function remembered(convert: Convert): Convert {
  let last = '';
  let converted = convert(last);
  return (text) => {
    if (text !== last) {
      converted = convert(text);
      last = text;
    }
    return converted;
  };
}

function trimmed(how: 'left' | 'right' | 'both'): Convert {
  const [left, right] = [how !== 'right', how !== 'left'];
  return (text) => {
    let from = 0;
    let to = text.length;
    while (right && to > from && isSpace(text.charCodeAt(to - 1))) to -= 1;
    while (left && from < to && isSpace(text.charCodeAt(from))) from += 1;
    return from === 0 && to === text.length ? text : text.slice(from, to);
  };
}

/** Names are padded with spaces of either width. */
function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x3000;
}

const digitsOnly = /^[0-9]+$/;

function readZeroFilled(text: string): string {
  if (!digitsOnly.test(text)) return noReading + text;
  let from = 0;
  while (from < text.length - 1 && text.charCodeAt(from) === 0x30) from += 1;
  return from === 0 ? text : text.slice(from);
}

function readThousands(separator: string): Convert {
  const grouped = new RegExp(`^[0-9]{1,3}(?:\\${separator}[0-9]{3})+$`);
  return (text) => {
    if (!text.includes(separator)) return text;
    return grouped.test(text) ? text.replaceAll(separator, '') : noReading + text;
  };
}

export function writeThousands(separator: string): Convert {
  return (text) => text.replace(/\B(?=(?:[0-9]{3})+$)/g, separator);
}

function mapped(pairs: readonly (readonly [string, string])[]): Convert {
  const words = new Map(pairs);
  return (text) => words.get(text) ?? (text === '' ? '' : noReading + text);
}

/** Text to the standard's, or undefined where they are the same. Blank stays blank, unless a word stands for it. */
export function compileRead(
  form: CellForm,
  field: { form: FieldForm },
  inward: boolean,
): Convert | undefined {
  const steps: Convert[] = [];
  if (form.zero_filled) steps.push(readZeroFilled);
  if (form.thousands !== undefined) steps.push(readThousands(form.thousands));
  if (form.date !== undefined) {
    const format = dateFormat(form.date, field.form);
    if ('parts' in format) steps.push(readDate(format, field.form));
  }
  if (form.text !== undefined) {
    const [before = '', after = ''] = form.text.split('{}');
    steps.push((text) => before + text + after);
  }
  const values = form.values === undefined ? undefined : mapped(inwardPairs(form.values, inward));
  const trim = form.trim === undefined ? undefined : trimmed(form.trim);
  if (steps.length === 0 && trim === undefined) return values;
  if (steps.length === 0 && values === undefined) return trim;
  const [first, second] = steps;
  return (text) => {
    let value = trim === undefined ? text : trim(text);
    if (values !== undefined) return values(value);
    if (value === '') return '';
    if (first !== undefined) value = first(value);
    if (second !== undefined && !value.startsWith(noReading)) value = second(value);
    return value;
  };
}

/** Inward maps go from the merchant's words, outward ones from ours: each as one reads it. */
function inwardPairs(values: Record<string, string>, inward: boolean): [string, string][] {
  return Object.entries(values).map(([word, value]) => (inward ? [word, value] : [value, word]));
}

/** The standard's text to the layout's, or undefined where they are the same. Throws `CannotWrite`. */
export function compileWrite(
  form: CellForm,
  field: Pick<Field, 'name' | 'form'>,
  inward: boolean,
  layout: string,
): Convert | undefined {
  if (form.values !== undefined) {
    const words = new Map<string, string>();
    for (const [word, value] of inwardPairs(form.values, inward))
      if (!words.has(value)) words.set(value, word);
    return (text) => {
      const word = words.get(text) ?? (text === '' ? '' : undefined);
      if (word === undefined) throw new CannotWrite('it has no word for the value', field.name, layout);
      return word;
    };
  }
  if (form.text !== undefined) {
    const [before = '', after = ''] = form.text.split('{}');
    return (text) => {
      if (text === '') return '';
      const fits =
        text.length > before.length + after.length && text.startsWith(before) && text.endsWith(after);
      if (!fits) throw new CannotWrite('the value is not made by the text', field.name, layout);
      return text.slice(before.length, text.length - after.length);
    };
  }
  if (form.thousands !== undefined) return writeThousands(form.thousands);
  const format = form.date === undefined ? undefined : dateFormat(form.date, field.form);
  if (format === undefined || !('parts' in format)) return undefined;
  const write = writeDate(format);
  return (text) => (text === '' ? '' : write(text));
}

/** Why a field cannot be written in this form; each with the key that says so. */
export function formProblems(
  form: CellForm,
  field: Field,
  inward: boolean,
): { key: string; reason: string }[] {
  const problems: { key: string; reason: string }[] = [];
  const refuse = (key: string, reason: string) => problems.push({ key, reason });
  if (form.date !== undefined) {
    const format = dateFormat(form.date, field.form);
    if ('reason' in format) refuse('date', `${JSON.stringify(form.date)} ${format.reason}`);
  }
  for (const key of ['thousands', 'zero_filled'] as const) {
    if (form[key] !== undefined && field.form !== 'number')
      refuse(key, `is for numbers; ${field.name} holds ${wordsFor[field.form]}`);
  }
  if (form.thousands !== undefined && /[0-9]/.test(form.thousands))
    refuse('thousands', 'must not be a digit');
  if (form.text !== undefined) {
    if (field.form !== 'text' || !inward) refuse('text', 'is for description and names on the way in');
    if (form.text.split('{}').length !== 2) refuse('text', 'must hold {} once, where the value goes');
  }
  if (form.values !== undefined) problems.push(...valueProblems(form.values, field, inward));
  return problems;
}

const wordsFor: Record<FieldForm, string> = {
  identifier: 'an identifier',
  text: 'text',
  number: 'a number',
  month: 'a month',
  date: 'a date',
  instant: 'an instant',
  choice: 'one of some words',
};

function valueProblems(
  values: Record<string, string>,
  field: Field,
  inward: boolean,
): { key: string; reason: string }[] {
  const problems: { key: string; reason: string }[] = [];
  if (field.form !== 'choice')
    return [{ key: 'values', reason: `${field.name} holds ${wordsFor[field.form]}, not one of some words` }];
  const ours = inward ? Object.values(values) : Object.keys(values);
  for (const value of new Set(ours)) {
    if (value !== '' && !field.choices.includes(value)) {
      problems.push({
        key: 'values',
        reason: `${JSON.stringify(value)} is no ${field.name}: ${field.choices.join(', ')}`,
      });
    }
  }
  if (inward) return problems;
  const missing = field.choices.filter((value) => !ours.includes(value));
  if (missing.length > 0) problems.push({ key: 'values', reason: `has no word for ${missing.join(', ')}` });
  const words = new Map<string, string>();
  for (const [value, word] of Object.entries(values)) {
    const before = words.get(word) ?? (word === '' && value !== '' ? 'blank' : undefined);
    if (before !== undefined) {
      problems.push({
        key: 'values',
        reason: `${before} and ${value} have one word, ${JSON.stringify(word)}: nobody could tell them apart`,
      });
    }
    words.set(word, value);
  }
  return problems;
}
