/** What a field holds decides how a layout may write it. */
export type FieldForm = 'identifier' | 'text' | 'number' | 'month' | 'date' | 'instant' | 'choice';

export interface Field {
  readonly name: string;
  readonly form: FieldForm;
  /** A record without it means nothing: a layout must have it, as a column or a constant. */
  readonly required: boolean;
  /** Of a `choice`: every value but blank. */
  readonly choices: readonly string[];
  /** Of the longest value that may have to be written; null: only the merchant's own columns bound it. */
  readonly charactersMax: number | null;
}

/** Kinds of records that a layout can describe itself. All others are `standard/1`. */
export const mappedKinds = ['billing', 'result', 'receipt'] as const;
export type MappedKind = (typeof mappedKinds)[number];

/** The record type of a kind's lines in `standard/1`. */
export const lineTypes: Readonly<Record<MappedKind, string>> = { billing: 'D', result: 'R', receipt: 'R' };

const identifier = (name: string, required = false, charactersMax: number | null = null): Field => ({
  name,
  form: 'identifier',
  required,
  choices: [],
  charactersMax,
});
const plain = (
  name: string,
  form: Exclude<FieldForm, 'choice'>,
  charactersMax: number | null,
  required = false,
): Field => ({ name, form, required, choices: [], charactersMax });
const choice = (name: string, choices: readonly string[], required = false): Field => ({
  name,
  form: 'choice',
  required,
  choices,
  charactersMax: Math.max(...choices.map(({ length }) => length)),
});

/** In the order of their columns in `standard/1`, after the record type. */
export const fieldsOf: Readonly<Record<MappedKind, readonly Field[]>> = {
  billing: [
    identifier('billing_number', true),
    identifier('customer_number', true),
    plain('customer_name', 'text', null, true),
    plain('phone', 'text', null),
    plain('email', 'text', null),
    plain('amount', 'number', null, true),
    choice('tax_rate', ['10', '8', '0'], true),
    plain('tax_amount', 'number', null),
    plain('billing_period', 'month', null, true),
    plain('due_date', 'date', null, true),
    choice('collection', ['link', 'auto']),
    plain('description', 'text', null),
  ],
  result: [
    identifier('billing_number', true),
    identifier('customer_number'),
    choice(
      'outcome',
      ['pending', 'paid_preliminary', 'preliminary_cancelled', 'paid', 'unpaid', 'cancelled'],
      true,
    ),
    choice('reason', ['dunning_ended', 'paper', 'cancelled_by_merchant', 'replaced', 'recalled']),
    choice('method', ['card', 'barcode', 'wallet', 'debit']),
    // A bill is 99,999,999 yen at most; what was received may be more than that.
    plain('amount', 'number', 8),
    plain('amount_received', 'number', 9),
    plain('collected_on', 'date', 10),
    plain('known_at', 'instant', 25),
    identifier('reference', false, 36),
  ],
  // One list of columns for both of its records: of the file, and of a line that something is to be said about.
  receipt: [
    choice('record', ['F', 'R'], true),
    plain('input_name', 'text', 100),
    plain('sha256', 'text', 64),
    choice('status', ['accepted', 'partial', 'rejected']),
    plain('file_code', 'text', 20),
    plain('lines_read', 'number', 10),
    plain('lines_accepted', 'number', 10),
    plain('amount_accepted', 'number', 15),
    plain('lines_rejected', 'number', 10),
    plain('line', 'number', 10),
    identifier('billing_number', true),
    choice('outcome', ['rejected', 'warning']),
    plain('code', 'text', 20, true),
    plain('field', 'text', 20),
    plain('message', 'text', 80),
  ],
};
