/**
 * The fixed messages of receipts. One per code, ASCII only and without commas, quotes or line breaks: they go into
 * machine files as they are, in every encoding.
 */
export const catalogue = {
  F_TOO_LARGE: 'the file is larger than agreed',
  F_CHECKSUM: 'the checksum in the control file does not match',
  F_DUPLICATE_FILE: 'this file was received before',
  F_EMPTY: 'the file is empty',
  F_ENCODING: 'the file has bytes that are not text in the agreed encoding',
  F_QUOTE: 'a quote is not opened or closed correctly',
  F_RECORD_TOO_LONG: 'a record is longer than agreed',
  F_HEADER: 'the first record is not a valid header',
  F_WRONG_MERCHANT: 'the header names another merchant',
  F_KIND: 'the header names another kind than the file name',
  F_TRAILER_MISSING: 'the last record is not a valid trailer',
  F_COUNT_MISMATCH: 'the trailer counts other records than the file holds',
  F_TOTAL_MISMATCH: 'the trailer total is not the sum of the records',
  F_DUPLICATE_SEQUENCE: 'the sequence number was used before',
  F_SEQUENCE_GAP: 'an earlier sequence number is missing',
  F_LOOKS_RESENT: 'count and total and first and last number equal those of a loaded file',
  F_UNUSUAL: 'count or total is far above the usual',
  F_LINES_REJECTED: 'a line was refused and the whole file with it',
  E_COLUMNS: 'the number of columns is wrong',
  E_REQUIRED: 'a required value is missing',
  E_CHARACTER: 'a character is not allowed',
  E_CARD_NUMBER: 'a card number must not be sent',
  E_FORMAT: 'the form of the value is wrong',
  E_DATE: 'the date does not exist',
  E_RANGE: 'the value is out of range',
  E_DUPLICATE_IN_FILE: 'the number stands earlier in this file',
  E_DUPLICATE_BILLING: 'the billing number was used before',
  E_UNKNOWN_BILLING: 'the billing number is not known',
  E_TOO_LATE: 'the bill can no longer be cancelled or replaced',
  E_UNKNOWN_CUSTOMER: 'the customer number is not known',
  W_FALLBACK_LINK: 'not enrolled for automatic payment: billed by link',
  W_NAME_CHANGED: 'the customer name differs from the enrolment: billed by link',
  W_LATE_FOR_DEBIT: 'too late for the debit date: billed by link',
} as const;

export type CatalogueCode = keyof typeof catalogue;
export type FileCode = Extract<CatalogueCode, `F_${string}`>;
export type LineCode = Extract<CatalogueCode, `E_${string}`>;
export type WarningCode = Extract<CatalogueCode, `W_${string}`>;
