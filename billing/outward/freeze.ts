import { createHash } from 'node:crypto';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { chainHead } from '../audit/queries.ts';
import { sealAside } from '../audit/seal.ts';
import type { Db, Tx } from '../db.ts';
import { takeNumbers } from '../exchanges/queries.ts';
import { type TieOut, tieOutOf } from '../exchanges/tie-out.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import type { MerchantSettings } from '../merchants/settings.ts';
import { park, unpark } from '../parked/queries.ts';
import { claimPayout, payoutsToFile } from '../payouts/queries.ts';
import type { Clock, Crash, Ids, Log } from '../ports.ts';
import { assertState } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { OutwardHead, OutwardKind, RenderOutward, SettlementFileLine } from './outward.ts';
import {
  addPendingRows,
  adjustmentLines,
  claimAdjustmentRows,
  claimEnrolmentRows,
  claimResultRows,
  claimUnreachedRows,
  closeOutwardFile,
  countAdjustments,
  countFindings,
  enrolmentLines,
  filesTouched,
  freezeWaiting,
  insertPart,
  openOutwardFile,
  receiptFileOf,
  receiptLines,
  receiptsDue,
  resultLines,
  settlementLines,
  unreachedLines,
} from './queries.ts';

export interface FreezePorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  crash: Crash;
  log: Log;
}

export interface FreezeWork {
  merchant: Merchant;
  /** YYYY-MM-DD of the run: the date in the files' names and headers. */
  businessDate: string;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
  /** How files look by the settings of a version: those that a file or bill came in with. */
  render: (settings: MerchantSettings) => RenderOutward;
}

export interface FreezeCounts extends Record<string, number> {
  receipts: number;
  results: number;
  result_rows: number;
  enrolments: number;
  unreached: number;
  adjustments: number;
  settlements: number;
  tieouts: number;
  parked: number;
}

/** Bytes are kept in pieces of this size, so that neither making nor sending a file holds it whole. */
const partBytes = 1_048_576;

/**
 * Makes every outward file that is due. Each file is one repeatable-read transaction: its number, the rows it claims,
 * its bytes and the tie-out of the input files it touches are of one snapshot, and stand together or not at all.
 */
export async function freezeDue(ports: FreezePorts, work: FreezeWork): Promise<FreezeCounts> {
  const counts: FreezeCounts = {
    receipts: 0,
    results: 0,
    result_rows: 0,
    enrolments: 0,
    unreached: 0,
    adjustments: 0,
    settlements: 0,
    tieouts: 0,
    parked: 0,
  };
  // What was done before this file is then under the head that its tie-out carries.
  await sealAside(ports, work.merchant.id);
  for (const due of await receiptsDue(ports.db, work.merchant.id)) {
    if (work.stop.aborted) return counts;
    await ports.clock.refresh();
    await inSnapshot(ports, work, counts, (freezing) => freezeReceipt(freezing, due.id));
  }
  await ports.clock.refresh();
  const waiting = await freezeWaiting(ports.db, work.merchant.id, ports.clock.now());
  if (waiting.result_rows + waiting.pending > 0 && !work.stop.aborted) {
    await inSnapshot(ports, work, counts, freezeResult);
  }
  if (waiting.enrolment_rows > 0 && !work.stop.aborted) {
    await inSnapshot(ports, work, counts, freezeEnrolment);
  }
  if (waiting.unreached_rows > 0 && !work.stop.aborted) {
    await inSnapshot(ports, work, counts, freezeUnreached);
  }
  // Asked again: the result file just made may be what one of them waited for.
  if (!work.stop.aborted && (await countAdjustments(ports.db, work.merchant.id)) > 0) {
    await inSnapshot(ports, work, counts, freezeAdjustment);
  }
  for (const payout of waiting.payouts > 0 ? await payoutsToFile(ports.db, work.merchant.id) : []) {
    if (work.stop.aborted) return counts;
    await inSnapshot(ports, work, counts, (freezing) => freezeSettlement(freezing, payout.id));
  }
  return counts;
}

interface Freezing {
  tx: Tx;
  act: Act;
  ids: Ids;
  merchant: Merchant;
  businessDate: string;
  render: FreezeWork['render'];
}

/** Counts only what was committed: a transaction may run again after a conflict. */
async function inSnapshot(
  ports: FreezePorts,
  work: FreezeWork,
  counts: FreezeCounts,
  freeze: (freezing: Freezing) => Promise<Partial<FreezeCounts>>,
): Promise<void> {
  const made = await ports.db.transaction(
    async (tx) => {
      // First, so that the snapshot begins with the fence: a heartbeat before it is no conflict.
      await holdFence(tx, work.fence);
      await refuseInSafeMode(tx);
      const act = { ...work.act, at: ports.clock.now() };
      await recordAct(tx, act);
      const { merchant, businessDate, render } = work;
      return freeze({ tx, act, ids: ports.ids, merchant, businessDate, render });
    },
    { isolation: 'repeatable read' },
  );
  for (const [name, count] of Object.entries(made)) counts[name] = (counts[name] ?? 0) + (count ?? 0);
  await ports.crash('deliver.after_freeze');
}

async function freezeReceipt(freezing: Freezing, inputFileId: string): Promise<Partial<FreezeCounts>> {
  const { tx, act } = freezing;
  const file = await receiptFileOf(tx, act.merchantId, inputFileId);
  if (file === undefined) return {};
  const tieOut = file.state === 'released' ? await tieOutOf(tx, act.merchantId, inputFileId) : null;
  if (tieOut !== null && !(await closes(freezing, inputFileId, tieOut))) return { parked: 1 };
  const cameWith = await settingsByVersion(tx, act.merchantId, [file.settingsVersion]);
  const settings = cameWith.get(file.settingsVersion) ?? freezing.merchant.settings;
  const receipt = await open(freezing, 'receipt', inputFileId, settings);
  // Of a refused file only F_LINES_REJECTED keeps findings: the lines that the merchant must correct.
  const findings = await countFindings(tx, act.merchantId, inputFileId);
  const lines = receiptLines(tx, act.merchantId, inputFileId);
  await keep(
    freezing,
    receipt,
    { records: 1 + findings, sum: 0 },
    receipt.render.receipt(receipt.head, file, lines),
  );
  if (tieOut !== null) await freezeTieOut(freezing, inputFileId, tieOut, settings);
  return { receipts: 1, tieouts: tieOut === null ? 0 : 1 };
}

async function freezeResult(freezing: Freezing): Promise<Partial<FreezeCounts>> {
  const { tx, act, merchant } = freezing;
  await addPendingRows(tx, act.merchantId, act.at);
  const groups = new Map<string, ResultGroup>();
  const touched = await filesTouched(tx, act.merchantId);
  const versions = await settingsByVersion(
    tx,
    act.merchantId,
    touched.map((file) => file.settings_version),
  );
  let parked = 0;
  for (const { file_id: inputFileId, settings_version: version } of touched) {
    const tieOut = await tieOutOf(tx, act.merchantId, inputFileId);
    if (!(await closes(freezing, inputFileId, tieOut))) {
      parked += 1;
      continue;
    }
    const settings = versions.get(version) ?? merchant.settings;
    const layout = settings.layoutText ?? settings.layout;
    const group = groups.get(layout) ?? { settings, closing: new Map() };
    // The newest settings of those with one layout: nothing but the layout is taken from them.
    groups.set(layout, { ...group, closing: group.closing.set(inputFileId, tieOut) });
  }
  const counts = { results: 0, result_rows: 0, tieouts: 0, parked };
  for (const { settings, closing } of groups.values()) {
    const result = await open(freezing, 'result', null, settings);
    const others = touched.map(({ file_id }) => file_id).filter((id) => !closing.has(id));
    const claimed = await claimResultRows(tx, act.merchantId, result.id, others);
    assertState(claimed.records > 0, 'a result file without rows');
    const lines = resultLines(tx, act.merchantId, result.id, merchant.settings.timezone);
    await keep(freezing, result, claimed, result.render.result(result.head, lines));
    for (const [inputFileId, tieOut] of closing) await freezeTieOut(freezing, inputFileId, tieOut, settings);
    counts.results += 1;
    counts.result_rows += claimed.records;
    counts.tieouts += closing.size;
  }
  return counts;
}

/** Input files that came in one layout: their bills' results are told in it, in one file. */
interface ResultGroup {
  settings: MerchantSettings;
  closing: Map<string, TieOut>;
}

async function freezeEnrolment(freezing: Freezing): Promise<Partial<FreezeCounts>> {
  const { tx, act, merchant } = freezing;
  const file = await open(freezing, 'enrolment', null, merchant.settings);
  const records = await claimEnrolmentRows(tx, act.merchantId, file.id);
  assertState(records > 0, 'an enrolment file without rows');
  const lines = enrolmentLines(tx, act.merchantId, file.id, merchant.settings.timezone);
  await keep(freezing, file, { records, sum: 0 }, file.render.enrolment(file.head, lines));
  return { enrolments: 1 };
}

async function freezeUnreached(freezing: Freezing): Promise<Partial<FreezeCounts>> {
  const { tx, act, merchant } = freezing;
  const file = await open(freezing, 'unreached', null, merchant.settings);
  const records = await claimUnreachedRows(tx, act.merchantId, file.id);
  assertState(records > 0, 'an unreached file without rows');
  const lines = unreachedLines(tx, act.merchantId, file.id, merchant.settings.timezone);
  await keep(freezing, file, { records, sum: 0 }, file.render.unreached(file.head, lines));
  return { unreached: 1 };
}

async function freezeAdjustment(freezing: Freezing): Promise<Partial<FreezeCounts>> {
  const { tx, act, merchant } = freezing;
  const due = await countAdjustments(tx, act.merchantId);
  if (due === 0) return {};
  const file = await open(freezing, 'adjustment', null, merchant.settings);
  const numberBase = await takeNumbers(tx, act.merchantId, 'adjustment', due);
  const claimed = await claimAdjustmentRows(tx, act.merchantId, file.id, numberBase);
  assertState(claimed.records === due, `${claimed.records} adjustments were claimed, ${due} were due`);
  const lines = adjustmentLines(tx, act.merchantId, file.id, merchant.settings.timezone);
  await keep(freezing, file, claimed, file.render.adjustment(file.head, lines));
  return { adjustments: 1 };
}

/** One file for each payout. Only what adds up was posted; that its rows do too is seen once more while they are written. */
async function freezeSettlement(freezing: Freezing, payoutId: string): Promise<Partial<FreezeCounts>> {
  const { tx, act, merchant } = freezing;
  const payout = (await payoutsToFile(tx, act.merchantId)).find(({ id }) => id === payoutId);
  if (payout === undefined) return {};
  const file = await open(freezing, 'settlement', null, merchant.settings, payout.payout_id);
  await claimPayout(tx, act.merchantId, payout.id, file.id);
  const written = { records: 0, sum: 0 };
  const lines = counted(settlementLines(tx, act.merchantId, payout.id), written);
  const totals = { records: payout.lines, sum: payout.net };
  await keep(freezing, file, totals, file.render.settlement(file.head, lines));
  assertState(
    written.records === totals.records && written.sum === totals.sum,
    `payout ${payout.payout_id}: ${written.records} rows over ${written.sum} of ${totals.records} over ${totals.sum}`,
  );
  return { settlements: 1 };
}

async function* counted(
  batches: AsyncIterable<readonly SettlementFileLine[]>,
  written: { records: number; sum: number },
): AsyncIterable<readonly SettlementFileLine[]> {
  for await (const lines of batches) {
    written.records += lines.length;
    for (const line of lines) written.sum += line.net;
    yield lines;
  }
}

async function freezeTieOut(
  freezing: Freezing,
  inputFileId: string,
  tieOut: TieOut,
  settings: MerchantSettings,
): Promise<void> {
  const file = await open(freezing, 'tieout', inputFileId, settings);
  const totals = { records: tieOut.lines.accepted, sum: tieOut.amount.accepted };
  const audit = await chainHead(freezing.tx, freezing.act.merchantId);
  await keep(freezing, file, totals, only(file.render.tieout({ ...tieOut, audit })));
}

/** A file that does not close is parked whole: nothing that touches it goes out, and an operator is called. */
async function closes(freezing: Freezing, inputFileId: string, tieOut: TieOut): Promise<boolean> {
  const { tx, act, ids } = freezing;
  if (tieOut.closes) {
    await unpark(tx, act.merchantId, act.at, 'file', [inputFileId], 'closes');
    return true;
  }
  const parked = await park(tx, act.merchantId, act.at, [
    {
      id: ids.uuid(),
      subject: 'file',
      subjectId: inputFileId,
      reason: 'TIE_OUT_OPEN',
      context: {
        file: tieOut.inputFile,
        linesRead: tieOut.lines.read,
        linesAccepted: tieOut.lines.accepted,
        linesRejected: tieOut.lines.rejected,
        amountAccepted: tieOut.amount.accepted,
        amountRejected: tieOut.amount.rejected,
      },
    },
  ]);
  // Looked at in each pass, told once.
  if (parked === 0) return false;
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: 'TIE_OUT_OPEN',
    message: `counts or amounts of ${tieOut.inputFile} do not close; no receipt or result that touches it goes out`,
  });
  return false;
}

interface OpenFile {
  id: string;
  head: OutwardHead;
  render: RenderOutward;
}

async function open(
  freezing: Freezing,
  kind: OutwardKind,
  inputFileId: string | null,
  settings: MerchantSettings,
  payout: string | null = null,
): Promise<OpenFile> {
  const { tx, act, merchant, businessDate } = freezing;
  const render = freezing.render(settings);
  const sequence = 1 + (await takeNumbers(tx, act.merchantId, `outward:${kind}`, 1));
  const head: OutwardHead = { kind, merchantCode: merchant.code, businessDate, sequence };
  const id = freezing.ids.uuid();
  const ownLayout = (settings.layoutText ?? null) !== null;
  const name = render.name(head);
  await openOutwardFile(tx, act, { id, kind, sequence, name, businessDate, inputFileId, ownLayout, payout });
  return { id, head, render };
}

function keep(
  { tx, act }: Freezing,
  { id }: OpenFile,
  totals: { records: number; sum: number },
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  return keepContent(tx, act, id, totals, content);
}

/** Stores the bytes piece by piece while they are made; what the file adds up to may be known only with its last. */
export async function keepContent(
  tx: Tx,
  act: Act,
  fileId: string,
  totals: { readonly records: number; readonly sum: number },
  content: AsyncIterable<Uint8Array>,
): Promise<void> {
  const digest = createHash('sha256');
  let sizeBytes = 0;
  let partNo = 0;
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const chunk of content) {
    digest.update(chunk);
    sizeBytes += chunk.length;
    for (let from = 0; from < chunk.length; ) {
      const piece = chunk.subarray(from, from + partBytes - heldBytes);
      held.push(piece);
      heldBytes += piece.length;
      from += piece.length;
      if (heldBytes === partBytes) {
        await insertPart(tx, act.merchantId, fileId, partNo++, Buffer.concat(held));
        held = [];
        heldBytes = 0;
      }
    }
  }
  if (heldBytes > 0) await insertPart(tx, act.merchantId, fileId, partNo, Buffer.concat(held));
  await closeOutwardFile(tx, act, { id: fileId, ...totals, sha256: digest.digest('hex'), sizeBytes });
}

async function* only(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}
