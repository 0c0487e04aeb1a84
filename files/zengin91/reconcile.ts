import { type DebitBatch, type DebitFile, type DebitRecord, type DebitTotals, totalsOf } from './file.ts';

/** `unknown`: the bank has not answered and may still debit: nothing is asked again. `quarantined`: no known code. */
export type DebitOutcome = 'paid' | 'failed' | 'unknown' | 'quarantined';

const outcomes: Readonly<Record<string, DebitOutcome>> = {
  '0': 'paid',
  '1': 'failed',
  '2': 'failed',
  '3': 'failed',
  '4': 'failed',
  '8': 'failed',
  '9': 'failed',
  E: 'failed',
  N: 'unknown',
};

export interface MatchedDebit {
  /** Of the request, from 0: under batch and index a result is applied once. */
  readonly batch: number;
  readonly index: number;
  readonly request: DebitRecord;
  readonly resultCode: string;
  readonly outcome: DebitOutcome;
}

/** Why no line of a result may be believed. */
export type RejectedResult =
  | 'BATCHES_DIFFER'
  | 'HEADER_DIFFERS'
  | 'TOTALS_DO_NOT_ADD_UP'
  | 'TOTALS_DIFFER'
  | 'DEBIT_UNKNOWN'
  | 'DEBIT_TWICE'
  | 'AMOUNT_CHANGED'
  | 'DEBIT_MISSING';

interface Rejected {
  readonly matched?: undefined;
  readonly rejected: RejectedResult;
  /** Batch of the file and debit of the batch, from 1; 0: the whole of it. */
  readonly batch: number;
  readonly record: number;
}

export type ReconciledDebits =
  | { readonly matched: readonly MatchedDebit[]; readonly rejected?: undefined }
  | Rejected;

/**
 * A result held against its request: same headers, trailers that are true, every debit once and with its amount. Batches
 * answer by their order, debits by their keys. One thing that is wrong rejects the whole of it.
 */
export function reconcileDebits(request: DebitFile, result: DebitFile): ReconciledDebits {
  if (request.batches.length !== result.batches.length)
    return { rejected: 'BATCHES_DIFFER', batch: 0, record: 0 };
  const matched: MatchedDebit[] = [];
  for (const [batch, asked] of request.batches.entries()) {
    const found = matchBatch(batch, asked, result.batches[batch] as DebitBatch);
    if (found.rejected !== undefined) return found;
    matched.push(...found.matched);
  }
  return { matched };
}

function matchBatch(batch: number, asked: DebitBatch, told: DebitBatch): ReconciledDebits {
  const reject = (rejected: RejectedResult, record = 0): Rejected => ({ rejected, batch: batch + 1, record });
  const wrong = wrongFrame(asked, told);
  if (wrong !== undefined) return reject(wrong);
  const places = new Map(asked.debits.map((debit, index) => [keyOf(debit), index]));
  const matched = new Map<number, MatchedDebit>();
  for (const [position, debit] of told.debits.entries()) {
    const index = places.get(keyOf(debit));
    const request = index === undefined ? undefined : asked.debits[index];
    if (index === undefined || request === undefined) return reject('DEBIT_UNKNOWN', position + 1);
    if (matched.has(index)) return reject('DEBIT_TWICE', position + 1);
    if (request.amount !== debit.amount) return reject('AMOUNT_CHANGED', position + 1);
    const { resultCode } = debit;
    matched.set(index, { batch, index, request, resultCode, outcome: outcomes[resultCode] ?? 'quarantined' });
  }
  // A request that asks for one key twice cannot be answered line by line: it is short here too.
  if (matched.size < asked.debits.length) return reject('DEBIT_MISSING');
  return { matched: [...matched.values()].sort((one, other) => one.index - other.index) };
}

function wrongFrame(asked: DebitBatch, { header, debits, trailer }: DebitBatch): RejectedResult | undefined {
  for (const name of ['consignorCode', 'debitDay', 'bank'] as const)
    if (asked.header[name] !== header[name]) return 'HEADER_DIFFERS';
  const adds =
    trailer.paidCount + trailer.unpaidCount === trailer.count &&
    trailer.paidAmount + trailer.unpaidAmount === trailer.amount;
  if (!adds) return 'TOTALS_DO_NOT_ADD_UP';
  const actual = totalsOf(debits, true);
  const differs = (Object.keys(actual) as (keyof DebitTotals)[]).some(
    (name) => actual[name] !== trailer[name],
  );
  return differs ? 'TOTALS_DIFFER' : undefined;
}

/** A customer may have two accounts, and an account two customers. The amount is compared for itself. */
function keyOf({ customerNumber, bank, branch, accountType, account }: DebitRecord): string {
  return [customerNumber, bank, branch, accountType, account].join(' ');
}
