import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db, Tx } from '../db.ts';
import type { GateSettings } from '../merchants/settings.ts';
import { unpark } from '../parked/queries.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import {
  type BillingFile,
  FileRefused,
  type FileVerdict,
  type Finding,
  findingOf,
  type ReadFile,
} from './file.ts';
import { type SetAside, setAside } from './hold.ts';
import { judgeFile } from './judge.ts';
import { addFindings, lockFile, lockMerchant, moveFile } from './queries.ts';

export interface ApplyFile<L> {
  fence: Fence;
  act: Act;
  file: BillingFile;
  read: ReadFile<L>;
  rejectFile: boolean;
  gates: GateSettings;
  /** YYYY-MM-DD of the run. */
  today: string;
  timezone: string;
  stop: AbortSignal;
}

export interface Line<L> {
  line: number;
  ok: L;
}

/** What one kind of file does. */
export interface Applying<L> {
  /** Two lines of one file with the same key: the first stands. */
  keyOf(line: L): string;
  /** The column that a second line of one key is told about. */
  keyField: string;
  /** What a receipt names; '' where the kind has no billing number. */
  billingNumberOf(line: L): string;
  /** Does what these lines say, set-based, and returns what is wrong with the others. */
  apply(tx: Tx, lines: readonly Line<L>[]): Promise<Finding[]>;
}

export type Applied = { accepted: number; rejected: number } | SetAside;

/** So many lines become one round of statements, however the reader cuts its batches. */
const roundLines = 5_000;

/**
 * Applies a file that brings no bills, whole or not at all: one transaction, round after round, so that memory does not
 * grow with the file (but for its keys). A process that is killed leaves nothing, and it is applied again.
 */
export async function applyFile<L>(
  ports: { db: Db; ids: Ids },
  input: ApplyFile<L>,
  kind: Applying<L>,
): Promise<Applied> {
  const { act, file } = input;
  // Of a file that is refused for a line, the receipt tells which ones.
  const refusing: Finding[] = [];
  try {
    return await ports.db.transaction(async (tx) => {
      refusing.length = 0;
      const locked = await lockFile(tx, act.merchantId, file.id);
      assertState(
        locked.state === 'fetched' || locked.state === 'held',
        `file ${file.id} is ${locked.state}`,
      );
      await recordAct(tx, act);
      let accepted = 0;
      let rejected = 0;
      const verdict = await eachRound(input, kind, async (lines, findings) => {
        const all = [...findings, ...(lines.length > 0 ? await kind.apply(tx, lines) : [])];
        const refused = all.filter((finding) => finding.severity === 'rejected');
        rejected += refused.length;
        accepted += lines.length - (refused.length - findings.length);
        await addFindings(tx, act.merchantId, file.id, all);
        if (input.rejectFile) refusing.push(...refused);
      });
      if (verdict.fileCode !== null) throw new FileRefused(verdict.fileCode, verdict);
      // Here and not first: the lock on the chunk's row would keep its lease from being renewed while the file is read.
      await holdFence(tx, input.fence);
      await lockMerchant(tx, act.merchantId);
      const code = await judgeFile(tx, act.merchantId, locked, verdict, input.gates);
      if (code !== null) throw new FileRefused(code, verdict);
      if (input.rejectFile && rejected > 0) throw new FileRefused('F_LINES_REJECTED', verdict);
      assertState(
        verdict.linesRead === accepted + rejected,
        `file ${file.id}: ${verdict.linesRead} lines read, ${accepted} applied, ${rejected} rejected`,
      );
      const released = await moveFile(tx, act, file.id, 'released', {
        businessDate: verdict.header?.businessDate ?? null,
        sequence: verdict.header?.sequence ?? null,
        linesRead: verdict.linesRead,
        linesAccepted: accepted,
        linesRejected: rejected,
        amountAccepted: 0,
        amountTrailer: verdict.trailer?.total ?? 0,
        linesStaged: 0,
      });
      assertState(released, `file ${file.id} could not be released`);
      if (locked.state === 'held') await unpark(tx, act.merchantId, act.at, 'file', [file.id], 'loaded');
      return { accepted, rejected };
    });
  } catch (error) {
    if (!(error instanceof FileRefused)) throw error;
    return ports.db.transaction(async (tx) => {
      await holdFence(tx, input.fence);
      if (error.code === 'F_LINES_REJECTED') await addFindings(tx, act.merchantId, file.id, refusing);
      return setAside(tx, ports.ids, act, file, error.code, error.verdict);
    });
  }
}

/** Reads to the end, or to where it is certain that no line counts. */
async function eachRound<L>(
  input: ApplyFile<L>,
  kind: Applying<L>,
  round: (lines: readonly Line<L>[], findings: readonly Finding[]) => Promise<void>,
): Promise<FileVerdict> {
  const seen = new Set<string>();
  let lines: Line<L>[] = [];
  let findings: Finding[] = [];
  for await (const batch of input.read()) {
    input.stop.throwIfAborted();
    for (const line of batch.lines) {
      const finding = findingOf(line);
      if (finding !== null) findings.push(finding);
      if (line.ok === undefined) continue;
      const key = kind.keyOf(line.ok);
      if (seen.has(key)) {
        findings.push(
          rejectedLine(line.line, 'E_DUPLICATE_IN_FILE', kind.keyField, kind.billingNumberOf(line.ok)),
        );
      } else lines.push({ line: line.line, ok: line.ok });
      seen.add(key);
    }
    const { verdict } = batch;
    if (verdict !== null && verdict.fileCode !== null) return verdict;
    if (verdict !== null || lines.length + findings.length >= roundLines) {
      await round(lines, findings);
      lines = [];
      findings = [];
    }
    if (verdict !== null) return verdict;
  }
  throw new Error(`impossible state: file ${input.file.id} ended without a verdict`);
}

export function rejectedLine(line: number, code: string, field: string, billingNumber = ''): Finding {
  return { line, code, severity: 'rejected', field, billingNumber };
}
