import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { sealContact } from '../customers/contact.ts';
import type { Db, Tx } from '../db.ts';
import { idWithin } from '../ids.ts';
import type { GateSettings } from '../merchants/settings.ts';
import { unpark } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import {
  type BillingFile,
  FileRefused,
  type FileVerdict,
  type Finding,
  findingOf,
  type ReadBatch,
  type ReadBill,
  type ReadFile,
  type ReadLine,
} from './file.ts';
import { type SetAside, setAside } from './hold.ts';
import { judgeFile } from './judge.ts';
import {
  addFindings,
  anotherLoading,
  copyStagedBills,
  emptyStaging,
  loadCustomersAgain,
  lockFile,
  lockMerchant,
  moveFile,
  rejectAsBefore,
  rejectDuplicateBillings,
  rejectDuplicatesInFile,
  rejectReplacing,
  stagedTotals,
} from './queries.ts';
import { refuseFile } from './refuse.ts';

export interface StageBills {
  fence: Fence;
  act: Act;
  file: BillingFile;
  read: ReadFile<ReadBill>;
  /** `exchange.reject: file`: one refused line refuses the file. */
  rejectFile: boolean;
  gates: GateSettings;
  stop: AbortSignal;
}

/** `busy`: another file of the merchant is being loaded; that one comes first. */
export type Staged = 'staged' | 'busy' | SetAside;

/** One COPY ends and its findings are written after this many lines: what Node holds does not grow with the file. */
const segmentLines = 50_000;

/**
 * Reads the file once, puts every valid line into staging and decides the file: one transaction, so a process that is
 * killed leaves nothing. Customers' data is sealed before it leaves this process. Called for a file that is loading
 * already, it fills the staging again (an unlogged table is empty after a crash of the server).
 */
export async function stageBills(
  ports: { db: Db; ids: Ids; sealer: Sealer },
  input: StageBills,
): Promise<Staged> {
  const { file, act } = input;
  try {
    return await ports.db.transaction(async (tx) => {
      await emptyStaging(tx, act.merchantId, file.id);
      const { verdict, detailed } = await copyLines(tx, ports, input);
      if (verdict.fileCode !== null) throw new FileRefused(verdict.fileCode, verdict);
      // Here and not first: the lock on the chunk's row would keep its lease from being renewed while the file is read.
      await holdFence(tx, input.fence);
      return file.state === 'loading'
        ? await checkAgain(tx, input)
        : await decide(tx, input, verdict, detailed);
    });
  } catch (error) {
    if (!(error instanceof FileRefused)) throw error;
    return ports.db.transaction(async (tx) => {
      await holdFence(tx, input.fence);
      return setAside(tx, ports.ids, act, file, error.code, error.verdict);
    });
  }
}

async function decide(tx: Tx, input: StageBills, verdict: FileVerdict, detailed: boolean): Promise<Staged> {
  const { act, file } = input;
  const { header } = verdict;
  assertState(header && verdict.trailer, `file ${file.id} was read without its header or trailer`);
  await lockMerchant(tx, act.merchantId);
  const locked = await lockFile(tx, act.merchantId, file.id);
  assertState(locked.state === 'fetched' || locked.state === 'held', `file ${file.id} is ${locked.state}`);
  const code = await judgeFile(tx, act.merchantId, locked, verdict, input.gates);
  if (code !== null) throw new FileRefused(code, verdict);
  // Two files loading at once could both bring one billing number, and neither would see the other's.
  if (await anotherLoading(tx, act.merchantId, file.id)) {
    await emptyStaging(tx, act.merchantId, file.id);
    return 'busy';
  }
  await rejectDuplicatesInFile(tx, act.merchantId, file.id);
  await rejectDuplicateBillings(tx, act.merchantId, file.id);
  if (detailed) await rejectReplacing(tx, act.merchantId, file.id);
  const { lines, amount } = await stagedTotals(tx, act.merchantId, file.id);
  if (input.rejectFile && lines < verdict.linesRead) {
    await emptyStaging(tx, act.merchantId, file.id);
    // The findings stay: the receipt tells the merchant which lines to correct.
    await refuseFile(tx, act, file.id, 'F_LINES_REJECTED', verdict);
    return { refused: 'F_LINES_REJECTED' };
  }
  await recordAct(tx, act);
  const moved = await moveFile(tx, act, file.id, 'loading', {
    businessDate: header.businessDate,
    sequence: header.sequence,
    linesRead: verdict.linesRead,
    linesAccepted: lines,
    linesRejected: verdict.linesRead - lines,
    amountAccepted: amount,
    amountTrailer: verdict.trailer.total,
    linesStaged: lines,
    firstNumber: verdict.firstBillingNumber,
    lastNumber: verdict.lastBillingNumber,
  });
  assertState(moved, `file ${file.id} could not be moved to loading`);
  if (locked.state === 'held') await unpark(tx, act.merchantId, act.at, 'file', [file.id], 'loaded');
  return 'staged';
}

/** The same bytes give the same lines. */
async function checkAgain(tx: Tx, { act, file }: StageBills): Promise<Staged> {
  await rejectDuplicatesInFile(tx, act.merchantId, file.id);
  await rejectDuplicateBillings(tx, act.merchantId, file.id);
  await rejectAsBefore(tx, act.merchantId, file.id);
  await loadCustomersAgain(tx, act.merchantId, file.id);
  const { lines, amount } = await stagedTotals(tx, act.merchantId, file.id);
  assertState(
    lines === file.lines_staged && amount === file.amount_accepted,
    `file ${file.id} staged again has ${lines} lines, it had ${file.lines_staged}`,
  );
  return 'staged';
}

async function copyLines(
  tx: Tx,
  ports: { ids: Ids; sealer: Sealer },
  input: StageBills,
): Promise<{ verdict: FileVerdict; detailed: boolean }> {
  const { act, file, stop } = input;
  const batches = input.read()[Symbol.asyncIterator]();
  let verdict: FileVerdict | null = null;
  let detailed = false;
  try {
    while (verdict === null) {
      const findings: Finding[] = [];
      await copyStagedBills(tx, segment(findings));
      await addFindings(tx, act.merchantId, file.id, findings);
    }
  } finally {
    await batches.return?.();
  }
  return { verdict, detailed };

  async function* segment(findings: Finding[]): AsyncGenerator<string> {
    for (let lines = 0; lines < segmentLines; ) {
      stop.throwIfAborted();
      const next: IteratorResult<ReadBatch<ReadBill>> = await batches.next();
      assertState(!next.done, `file ${file.id} ended without a verdict`);
      lines += next.value.lines.length;
      for (const line of next.value.lines) {
        const finding = findingOf(line);
        if (finding !== null) findings.push(finding);
        else if (line.ok?.details !== undefined) detailed = true;
      }
      const rows = next.value.lines.map((line) => copyRow(ports, act.merchantId, file.id, line)).join('');
      if (rows !== '') yield rows;
      if (next.value.verdict !== null) {
        verdict = next.value.verdict;
        return;
      }
    }
  }
}

/** Columns as in `copyStagedBills`; '' for a refused line. */
function copyRow(
  { ids, sealer }: { ids: Ids; sealer: Sealer },
  merchantId: number,
  fileId: string,
  { line, record, ok }: ReadLine<ReadBill>,
): string {
  if (ok === undefined) return '';
  const { sealed, digest, nameDigest, phoneDigest } = sealContact(sealer, merchantId, ok.customerNumber, {
    name: ok.customerName,
    phone: ok.phone.e164,
    email: ok.email,
  });
  const phone = phoneDigest === null ? '\\N' : bytes(phoneDigest);
  return (
    `${merchantId}\t${fileId}\t${record}\t${line}\t${ok.billingNumber}\t${idWithin(fileId, record)}\t${ids.uuid()}\t` +
    `${ok.customerNumber}\t${bytes(sealed)}\t${sealer.keyId}\t${bytes(digest)}\t${bytes(nameDigest)}\t${phone}\t` +
    `${ok.phone.kind}\t${ok.amount}\t${ok.taxRate}\t${ok.taxAmount}\t${ok.billingPeriod}\t${ok.dueOn}\t` +
    `${ok.collection}\t${escaped(ok.description)}\t${detailsOf(ids, ok)}\n`
  );
}

/** As `issueBills` reads it. A contract that is new gets the id that its first line brings. */
function detailsOf(ids: Ids, { details }: ReadBill): string {
  if (details === undefined) return '\\N';
  const { contractNumber, usage, replaces, taxLines } = details;
  return escaped(
    JSON.stringify({
      contract: contractNumber,
      contract_id: contractNumber === '' ? undefined : ids.uuid(),
      usage_from: usage?.from,
      usage_to: usage?.to,
      replaces,
      lines: taxLines.map((line) => [
        line.description,
        line.taxableAmount,
        line.taxRate,
        line.taxAmount,
        line.issuerRegistrationNumber,
      ]),
    }),
  );
}

function bytes(value: Buffer): string {
  return `\\\\x${value.toString('hex')}`;
}

const special: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

function escaped(text: string): string {
  return text.replace(/[\\\t\n\r]/g, (character) => special[character] ?? character);
}
