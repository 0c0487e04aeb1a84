import { type Field, fieldsOf, lineTypes, type MappedKind } from './fields.ts';
import { type Convert, compileRead, compileWrite } from './forms.ts';
import { mappedOf } from './judge.ts';
import type { CellForm, LayoutSpec } from './spec.ts';

/** A column of a kind, ready to be read and written. */
export interface Column {
  /** Title or number, or the field's name. */
  readonly key: string;
  readonly field: Field;
  /** Of the field in a row of `standard/1`, where 0 is the record type. */
  readonly target: number;
  readonly form: CellForm;
  readonly read: Convert | undefined;
  readonly write: Convert | undefined;
}

/** Null stands for a column that is not read. */
export function columnsOf(spec: LayoutSpec, kind: MappedKind): (Column | null)[] {
  return (mappedOf(spec, kind) ?? []).map(({ key, field: name, form }) => {
    const target = fieldsOf[kind].findIndex((field) => field.name === name);
    const field = fieldsOf[kind][target];
    if (field === undefined) return null;
    const inward = kind === 'billing';
    return {
      key,
      field,
      target: target + 1,
      form,
      read: compileRead(form, field, inward),
      write: compileWrite(form, field, inward, spec.layout),
    };
  });
}

/** A row of the kind with its type and the layout's constants, everything else blank. */
export function emptyRow(spec: LayoutSpec, kind: MappedKind): string[] {
  return [
    lineTypes[kind],
    ...fieldsOf[kind].map(({ name }) => (kind === 'billing' ? (spec.constants[name] ?? '') : '')),
  ];
}

/** Types that the layout does not know must not pass for those of the standard: `D` where lines have type `2`. */
export function foreignType(type: string): string {
  return type === '' ? '' : `!${type}`;
}

export function withoutLeadingZeros(text: string): string {
  return /^0+[0-9]/.test(text) ? text.replace(/^0+(?=[0-9])/, '') : text;
}
