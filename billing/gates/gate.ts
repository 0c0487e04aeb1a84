/** Medians of a merchant's last billing files; null without any. */
export interface UsualFile {
  files: number;
  lines: number | null;
  total: number | null;
  /** Yen of an average bill in them. */
  bill: number | null;
}

/** Fewer files say nothing about what is usual. */
export const filesAtLeast = 5;

/** More bills or more money, by this factor, than the merchant's usual file has. Never for a merchant who is new. */
export function isFileUnusual(
  file: { lines: number; total: number },
  usual: UsualFile,
  times: number,
): boolean {
  if (times === 0 || usual.files < filesAtLeast || usual.lines === null || usual.total === null) return false;
  return file.lines >= usual.lines * times || file.total >= usual.total * times;
}

/** What a bill is compared with. */
export interface BillHistory {
  amount: number;
  /** Bills of its contract that count: released, not cancelled, not the one that it corrects. */
  bills: number;
  /** Their median; null without any. */
  usual: number | null;
  /** Of the same billing period, this one not counted. */
  samePeriod: number;
  /** The most that the contract had in any other period. */
  mostInAPeriod: number;
}

export type UnusualBill = { reason: 'BILLED_TWICE' | 'AMOUNT_UNUSUAL'; usual: number | null };

/**
 * Why a bill should be seen by a person before its customer sees it; null: it need not. A contract that was never billed
 * has no usual amount, so its first bill is compared with the merchant's average one. Two meters under one customer number
 * are billed twice each month: that is unusual once.
 */
export function judgeBill(
  bill: BillHistory,
  settings: { billTimes: number; twice: boolean },
  usualBill: number | null,
): UnusualBill | null {
  if (settings.twice && bill.samePeriod > 0 && bill.samePeriod + 1 > bill.mostInAPeriod)
    return { reason: 'BILLED_TWICE', usual: bill.usual };
  const usual = bill.bills > 0 ? bill.usual : usualBill;
  if (settings.billTimes === 0 || usual === null) return null;
  return bill.amount >= usual * settings.billTimes ? { reason: 'AMOUNT_UNUSUAL', usual } : null;
}
