import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db, Tx } from '../db.ts';
import { isFinal, type LockedInvoice } from '../invoices/invoice.ts';
import { lockInvoices, moveInvoices } from '../invoices/queries.ts';
import { post } from '../ledger/queries.ts';
import { assertState } from '../refusal.ts';
import { addResultRows } from '../results/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import {
  type BillingFile,
  type FileVerdict,
  type Finding,
  findingOf,
  type ReadCancel,
  type ReadFile,
} from './file.ts';
import { addFindings, lockFile, moveFile, releasedBills, sequenceUsed } from './queries.ts';
import { refuseFile } from './refuse.ts';

export interface CancelBills {
  fence: Fence;
  act: Act;
  file: BillingFile;
  read: ReadFile<ReadCancel>;
  rejectFile: boolean;
  /** YYYY-MM-DD of the run. */
  today: string;
  timezone: string;
  stop: AbortSignal;
}

export type Cancelled = { cancelled: number; rejected: number } | { refused: string };

interface Request {
  line: number;
  billingNumber: string;
}

/**
 * Applies a `cancel` file whole, in one transaction: a bill is cancelled unless it is final or money may be on its way.
 * Its debt leaves the ledger and the merchant gets its final row.
 */
export async function cancelBills(ports: { db: Db }, input: CancelBills): Promise<Cancelled> {
  const { act, file } = input;
  const { requests, findings, verdict } = await readAll(input);
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, input.fence);
    const locked = await lockFile(tx, act.merchantId, file.id);
    assertState(locked.state === 'fetched' || locked.state === 'held', `file ${file.id} is ${locked.state}`);
    let code = verdict.fileCode;
    if (code === null && (await sequenceUsed(tx, act.merchantId, file.id, verdict.header?.sequence ?? 0)))
      code = 'F_DUPLICATE_SEQUENCE';
    if (code !== null) {
      await refuseFile(tx, act, file.id, code, verdict);
      return { refused: code };
    }
    const bills = await judge(tx, act.merchantId, requests, findings);
    await addFindings(tx, act.merchantId, file.id, findings);
    if (input.rejectFile && findings.length > 0) {
      await refuseFile(tx, act, file.id, 'F_LINES_REJECTED', verdict);
      return { refused: 'F_LINES_REJECTED' };
    }
    await recordAct(tx, act);
    await cancel(tx, input, bills);
    const released = await moveFile(tx, act, file.id, 'released', {
      businessDate: verdict.header?.businessDate ?? null,
      sequence: verdict.header?.sequence ?? null,
      linesRead: verdict.linesRead,
      linesAccepted: bills.length,
      linesRejected: findings.length,
      amountAccepted: 0,
      amountTrailer: verdict.trailer?.total ?? 0,
      linesStaged: 0,
    });
    assertState(released, `file ${file.id} could not be released`);
    assertState(
      verdict.linesRead === bills.length + findings.length,
      `file ${file.id}: ${verdict.linesRead} lines read, ${bills.length} cancelled, ${findings.length} rejected`,
    );
    return { cancelled: bills.length, rejected: findings.length };
  });
}

async function readAll({ read, stop, file }: CancelBills): Promise<{
  requests: Request[];
  findings: Finding[];
  verdict: FileVerdict;
}> {
  const requests: Request[] = [];
  const findings: Finding[] = [];
  const seen = new Set<string>();
  for await (const batch of read()) {
    stop.throwIfAborted();
    for (const line of batch.lines) {
      const finding = findingOf(line);
      if (finding !== null) findings.push(finding);
      if (line.ok === undefined) continue;
      const { billingNumber } = line.ok;
      if (seen.has(billingNumber)) findings.push(rejected(line.line, billingNumber, 'E_DUPLICATE_IN_FILE'));
      else requests.push({ line: line.line, billingNumber });
      seen.add(billingNumber);
    }
    if (batch.verdict !== null) {
      // Of a refused file no line counts.
      return batch.verdict.fileCode === null
        ? { requests, findings, verdict: batch.verdict }
        : { requests: [], findings: [], verdict: batch.verdict };
    }
  }
  throw new Error(`impossible state: file ${file.id} ended without a verdict`);
}

/** The bills that may be cancelled, locked; a finding for each of the others. */
async function judge(
  tx: Tx,
  merchantId: number,
  requests: readonly Request[],
  findings: Finding[],
): Promise<LockedInvoice[]> {
  const known = await releasedBills(
    tx,
    merchantId,
    requests.map((request) => request.billingNumber),
  );
  const locked = await lockInvoices(
    tx,
    merchantId,
    known.map((bill) => bill.id),
  );
  const byNumber = new Map(locked.map((bill) => [bill.billing_number, bill]));
  return requests.flatMap(({ line, billingNumber }) => {
    const bill = byNumber.get(billingNumber);
    if (bill !== undefined && !isFinal(bill.state) && bill.locked_by === null) return [bill];
    findings.push(rejected(line, billingNumber, bill === undefined ? 'E_UNKNOWN_BILLING' : 'E_TOO_LATE'));
    return [];
  });
}

async function cancel(tx: Tx, input: CancelBills, bills: readonly LockedInvoice[]): Promise<void> {
  const { act } = input;
  const moved = await moveInvoices(
    tx,
    act,
    bills.map((bill) => bill.id),
    'cancelled',
    'cancelled',
  );
  assertState(
    moved.length === bills.length,
    `${moved.length} bills were cancelled of ${bills.length} locked ones`,
  );
  await post(
    tx,
    act,
    businessDateOf(act.at, input.timezone).toString(),
    moved.map((bill) => ({
      event: 'bill_cancelled',
      entryId: bill.id,
      invoiceId: bill.id,
      customerId: bill.customer_id,
      amount: bill.amount,
      currency: bill.currency,
      eventOn: input.today,
    })),
  );
  await addResultRows(
    tx,
    act.merchantId,
    act.at,
    moved.map((bill) => ({
      invoiceId: bill.id,
      outcome: 'cancelled',
      causeId: bill.id,
      reason: 'cancelled_by_merchant',
      method: '',
      amount: bill.amount,
      amountReceived: 0,
      collectedOn: null,
    })),
  );
}

function rejected(line: number, billingNumber: string, code: string): Finding {
  return { line, code, severity: 'rejected', field: 'billing_number', billingNumber };
}
