import type { Tx } from '../db.ts';
import { assertState } from '../refusal.ts';
import { fileTotals, outcomesOf } from './queries.ts';

export interface OutcomeTotal {
  count: number;
  amount: number;
}

/** The proof that counts and amounts of one input file close. */
export interface TieOut {
  inputFile: string;
  sha256: string;
  /** YYYY-MM-DD */
  businessDate: string;
  lines: { read: number; accepted: number; rejected: number };
  amount: { accepted: number; rejected: number };
  outcomes: Record<'paid' | 'open' | 'unpaid' | 'cancelled' | 'parked', OutcomeTotal>;
  closes: boolean;
}

/** Of a loading or released file, as its bills stand now. A refused file has none. */
export async function tieOutOf(tx: Pick<Tx, 'query'>, merchantId: number, fileId: string): Promise<TieOut> {
  const file = await fileTotals(tx, merchantId, fileId);
  assertState(
    file && file.lines_read !== null && file.business_date !== null,
    `file ${fileId} is not loaded`,
  );
  const outcomes: TieOut['outcomes'] = {
    paid: { count: 0, amount: 0 },
    open: { count: 0, amount: 0 },
    unpaid: { count: 0, amount: 0 },
    cancelled: { count: 0, amount: 0 },
    parked: { count: 0, amount: 0 },
  };
  const bringsBills = file.kind === 'billing';
  if (bringsBills) {
    for (const { state, count, amount } of await outcomesOf(tx, merchantId, fileId)) {
      outcomes[state] = { count, amount };
    }
  } else if (file.kind === 'cancel') {
    // It brings no bills of its own: its accepted lines are what it cancelled, without an amount.
    outcomes.cancelled = { count: file.lines_accepted, amount: 0 };
  }
  // What other kinds say has no outcome: it closes by its lines.
  const sum = (of: (total: OutcomeTotal) => number): number =>
    Object.values(outcomes).reduce((total, outcome) => total + of(outcome), 0);
  const rejectedAmount = file.amount_trailer - file.amount_accepted;
  return {
    inputFile: file.name,
    sha256: file.sha256,
    businessDate: file.business_date,
    lines: { read: file.lines_read, accepted: file.lines_accepted, rejected: file.lines_rejected },
    amount: { accepted: file.amount_accepted, rejected: rejectedAmount },
    outcomes,
    closes:
      file.lines_read === file.lines_accepted + file.lines_rejected &&
      file.rejected_findings === file.lines_rejected &&
      rejectedAmount >= 0 &&
      (sum((outcome) => outcome.count) === file.lines_accepted || !(bringsBills || file.kind === 'cancel')) &&
      sum((outcome) => outcome.amount) === file.amount_accepted,
  };
}
