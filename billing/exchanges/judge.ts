import type { Tx } from '../db.ts';
import { isFileUnusual } from '../gates/gate.ts';
import { usualFile } from '../gates/queries.ts';
import type { GateSettings } from '../merchants/settings.ts';
import type { BillingFile, FileVerdict, HoldCode } from './file.ts';
import { fileLike, highestSequence, sequenceUsed } from './queries.ts';

/**
 * What refuses or holds a file that is in itself in order: its place in the sequence, and what it looks like beside the
 * merchant's others. Null: it may be loaded. What a person has set aside holds it no more.
 */
export async function judgeFile(
  tx: Tx,
  merchantId: number,
  file: BillingFile,
  verdict: FileVerdict,
  gates: GateSettings,
): Promise<'F_DUPLICATE_SEQUENCE' | HoldCode | null> {
  const sequence = verdict.header?.sequence ?? null;
  if (sequence !== null) {
    if (await sequenceUsed(tx, merchantId, file.id, sequence)) return 'F_DUPLICATE_SEQUENCE';
    const isGap = sequence > 1 + (await highestSequence(tx, merchantId));
    if (isGap && !file.waived.includes('F_SEQUENCE_GAP')) return 'F_SEQUENCE_GAP';
  }
  if (file.kind !== 'billing' || verdict.linesRead === 0) return null;
  const content = {
    lines: verdict.linesRead,
    total: verdict.trailer?.total ?? 0,
    first: verdict.firstBillingNumber,
    last: verdict.lastBillingNumber,
  };
  if (
    !file.waived.includes('F_LOOKS_RESENT') &&
    (await fileLike(tx, merchantId, file.id, content)) !== undefined
  )
    return 'F_LOOKS_RESENT';
  if (file.waived.includes('F_UNUSUAL') || gates.fileTimes === 0) return null;
  return isFileUnusual(content, await usualFile(tx, merchantId), gates.fileTimes) ? 'F_UNUSUAL' : null;
}
