import { join } from 'node:path';
import { recordAct } from '../billing/acts/queries.ts';
import { raiseAlert, raiseStanding } from '../billing/alerts/queries.ts';
import type { Db } from '../billing/db.ts';
import { type RequestLine, requestLines } from '../billing/debits/queries.ts';
import type { ExchangeSettings, MerchantSettings } from '../billing/merchants/settings.ts';
import { freezeDue } from '../billing/outward/freeze.ts';
import type { OutwardHead, OutwardKind, RenderOutward } from '../billing/outward/outward.ts';
import {
  adjustmentLines,
  enrolmentLines,
  freezeWaiting,
  markDelivered,
  markRenaming,
  nextPart,
  outwardContent,
  resultLines,
  type UndeliveredFile,
  undeliveredFiles,
  unreachedLines,
} from '../billing/outward/queries.ts';
import { park } from '../billing/parked/queries.ts';
import { Refusal } from '../billing/refusal.ts';
import { refuseInSafeMode } from '../billing/restores/queries.ts';
import { FenceLost } from '../billing/runs/fence.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { billsNotReached, countNotReached } from '../billing/unreached/queries.ts';
import { settleUnreached } from '../billing/unreached/settle.ts';
import { type OutwardHead as ArchivedHead, archiveFile, toldBeside, writeHead } from '../files/archive.ts';
import type { Layout } from '../files/layouts/layout.ts';
import { outwardName, writeOutward } from '../files/layouts/write.ts';
import {
  adjustmentRow,
  enrolmentRow,
  formatTieout,
  type OutwardCsvKind,
  type ReceiptFile,
  type ReceiptLine,
  type ResultRow,
  type Row,
  receiptFileRow,
  receiptLineRow,
  resultRow,
  settlementRow,
  unreachedRow,
} from '../files/standard/write.ts';
import type { RemoteStore } from '../files/store.ts';
import { type Placed, placeFile } from '../files/upload.ts';
import { openExchange } from './exchange.ts';
import type { ChunkContext, Counts, Job } from './job.ts';
import { layoutOf } from './layout.ts';

/** One chunk for a merchant: its files have gapless numbers and go over one connection. */
export const deliver: Job = {
  name: 'deliver',
  does: 'settles bills that no SMS reaches, freezes receipts, results, enrolments, unreached bills, adjustments, settlements and tie-outs, and uploads what is not delivered yet',
  attention: ['parked'],

  async plan({ ports, merchant, businessDate }) {
    const { db, clock } = ports;
    const [unreached] = await billsNotReached(db, merchant.id, businessDate, null, 1);
    if (unreached !== undefined) return [{}];
    const waiting = Object.values(await freezeWaiting(db, merchant.id, clock.now()));
    const undelivered = await undeliveredFiles(db, merchant.id);
    return undelivered.length > 0 || waiting.some((count) => count > 0) ? [{}] : [];
  },

  async runChunk(context) {
    const { ports, merchant, businessDate, fence, act, stop } = context;
    // Before the results: a bill that goes back for paper is told as unpaid by the same pass.
    const settled = await settleUnreached(ports, { merchant, businessDate, fence, act, stop });
    await ports.crash('deliver.after_unreached');
    const frozen = await freezeDue(ports, { merchant, businessDate, fence, act, stop, render });
    const delivered = await uploadAll(context);
    return { ...settled, ...frozen, ...delivered, parked: frozen.parked + (delivered.parked ?? 0) };
  },

  async dryRun({ ports, merchant, businessDate }) {
    const waiting = await freezeWaiting(ports.db, merchant.id, ports.clock.now());
    return {
      not_reached: await countNotReached(ports.db, merchant.id, businessDate),
      ...waiting,
      undelivered: (await undeliveredFiles(ports.db, merchant.id)).length,
    };
  },
};

/** How files look by a merchant's settings of some version. */
export function render(settings: MerchantSettings): RenderOutward {
  return renderIn(layoutOf(settings));
}

function renderIn(layout: Layout | null): RenderOutward {
  const write = (head: OutwardHead, rows: AsyncIterable<readonly Row[]>) =>
    writeOutward(layout, writtenFile(head, head.kind as OutwardCsvKind), rows);
  return {
    name: (head) => outwardName(layout, writtenFile(head, head.kind as Exclude<OutwardKind, 'debit'>)),
    receipt: (head, file, lines) => write(head, receiptRows(file, lines)),
    result: (head, lines) =>
      write(
        head,
        mapped(lines, (line) => resultRow(asResultRow(line))),
      ),
    enrolment: (head, lines) =>
      write(
        head,
        mapped(lines, (line) => enrolmentRow({ ...line, change: line.what, means: line.method })),
      ),
    unreached: (head, lines) => write(head, mapped(lines, unreachedRow)),
    settlement: (head, lines) => write(head, mapped(lines, settlementRow)),
    adjustment: (head, lines) =>
      write(
        head,
        mapped(lines, (line) => adjustmentRow({ ...line, type: line.kind })),
      ),
    tieout: (tieOut) => Buffer.from(formatTieout(tieOut), 'utf8'),
  };
}

function writtenFile<Kind>(head: OutwardHead, kind: Kind) {
  return {
    merchant: head.merchantCode,
    kind,
    businessDate: head.businessDate,
    sequence: head.sequence,
  };
}

type Lines<Name extends 'receipt' | 'result' | 'enrolment'> =
  Parameters<RenderOutward[Name]> extends [...unknown[], infer Last] ? Last : never;
type LineOf<Batches> = Batches extends AsyncIterable<readonly (infer Line)[]> ? Line : never;

async function* receiptRows(
  file: Parameters<RenderOutward['receipt']>[1],
  lines: Lines<'receipt'>,
): AsyncIterable<readonly Row[]> {
  const refused = file.state === 'refused';
  yield [
    receiptFileRow({
      inputName: file.inputName,
      sha256: file.sha256,
      status: refused ? 'rejected' : file.linesRejected > 0 ? 'partial' : 'accepted',
      fileCode: file.fileCode as ReceiptFile['fileCode'],
      // Nothing of a refused file was loaded, whatever was counted before it was refused.
      linesRead: refused ? 0 : file.linesRead,
      linesAccepted: refused ? 0 : file.linesAccepted,
      amountAccepted: refused ? 0 : file.amountAccepted,
      linesRejected: refused ? 0 : file.linesRejected,
    }),
  ];
  yield* mapped(lines, (line) =>
    receiptLineRow({ ...line, outcome: line.severity } as unknown as ReceiptLine),
  );
}

function asResultRow(line: LineOf<Lines<'result'>>): ResultRow {
  return { ...line, collectedOn: line.collectedOn ?? '' } as ResultRow;
}

async function* mapped<T>(
  batches: AsyncIterable<readonly T[]>,
  rowOf: (line: T) => Row,
): AsyncIterable<readonly Row[]> {
  for await (const batch of batches) yield batch.map(rowOf);
}

/** The connection may have broken with an effect that nobody knows: looking again tells. */
const brokenConnection = new Set(['SFTP_TIMEOUT', 'SFTP_UNREACHABLE']);
const mostTries = 3;

async function uploadAll(context: ChunkContext): Promise<Counts> {
  const { exchange, autopay } = context.merchant.settings;
  const files = await undeliveredFiles(context.ports.db, context.merchant.id);
  const counts: Counts = { delivered: 0, parked: files.filter((file) => file.parked).length };
  const open = files.filter((file) => !file.parked);
  const ends = [];
  for (const [partner, theirs] of [
    [exchange, open.filter(({ kind }) => kind !== 'debit')],
    [autopay.directDebit?.exchange, open.filter(({ kind }) => kind === 'debit')],
  ] as const) {
    if (theirs.length === 0 || partner === undefined) continue;
    // A partner whose server is down keeps no other one waiting.
    ends.push(...(await Promise.allSettled([uploadTo(context, partner, theirs, counts)])));
  }
  const broken = ends.find((end) => end.status === 'rejected');
  if (broken) throw broken.reason;
  return counts;
}

async function uploadTo(
  context: ChunkContext,
  exchange: ExchangeSettings,
  open: readonly UndeliveredFile[],
  counts: Counts,
): Promise<void> {
  const { stop, progress } = context;
  const connection = new Connection(context, exchange);
  try {
    for (const file of open) {
      if (stop.aborted) break;
      const placed = await placing(context, connection, file);
      if (placed === 'placed') counts.delivered = (counts.delivered ?? 0) + 1;
      else counts.parked = (counts.parked ?? 0) + 1;
      progress(counts.delivered ?? 0, open.length, 'files');
    }
  } catch (error) {
    if (error instanceof Refusal && error.code !== 'SAFE_MODE') await alertOfRefusal(context, error);
    throw error;
  } finally {
    await connection.close();
  }
}

/** One file; where the connection broke, looking again on a new one tells what had been done. */
async function placing(
  context: ChunkContext,
  connection: Connection,
  file: UndeliveredFile,
): Promise<Placed> {
  const { ports, merchant } = context;
  await keep(context, file, false);
  await ports.crash('deliver.after_archive');
  let { parts, renaming_part: renamingPart } = file;
  const place = async () =>
    placeFile(
      await connection.store(),
      {
        folder: connection.exchange.outbound,
        name: file.name,
        sizeBytes: file.size_bytes,
        sha256: file.sha256,
        content: () => outwardContent(ports.db, merchant.id, file.id),
        parts,
        renamingPart,
      },
      {
        // A worker that stood still may wake up while another places the same file.
        async newPart() {
          parts = await ports.db.transaction(async (tx) => {
            await holdFence(tx, context.fence);
            const part = await nextPart(tx, merchant.id, file.id);
            // A pass for another day was faster.
            if (part === undefined) throw new FenceLost(context.fence);
            return part;
          });
          await ports.crash('deliver.before_upload');
          return parts;
        },
        uploaded: () => ports.crash('deliver.after_upload'),
        async beforeRename(part) {
          await inTransaction(context, async (tx, act) => {
            await refuseInSafeMode(tx);
            if (!(await markRenaming(tx, act, file.id, part))) throw new FenceLost(context.fence);
          });
          renamingPart = part;
          await ports.crash('deliver.before_rename');
        },
        renamed: () => ports.crash('deliver.after_rename'),
        doneWritten: () => ports.crash('deliver.after_done_file'),
      },
    );
  let placed: Placed | undefined;
  for (let tries = 1; placed === undefined; tries += 1) {
    try {
      placed = await place();
    } catch (error) {
      if (!(error instanceof Refusal && brokenConnection.has(error.code)) || tries === mostTries) throw error;
      ports.log.warn({ file: file.name, code: error.code }, 'the upload broke; looking again');
      await connection.close();
    }
  }
  if (placed === 'placed') {
    await keep(context, file, true);
    await ports.crash('deliver.after_kept');
    await inTransaction(context, (tx, act) => markDelivered(tx, act, file.id));
  } else await parkUpload(context, file, placed);
  await ports.crash('deliver.after_delivered');
  return placed;
}

/**
 * The archive has a copy before the merchant can have the file, and knows when he has it: a database that is put back to an
 * older state must not tell the same again under the same number.
 */
async function keep(context: ChunkContext, file: UndeliveredFile, delivered: boolean): Promise<void> {
  const { ports, merchant } = context;
  const { disk, randomness } = ports;
  const { archiveKey } = ports.sealer;
  const path = join(ports.archiveFolder, merchant.code, file.id);
  if (!(await disk.exists(path))) {
    if (file.own_layout !== false) await keepTold(context, file, toldBeside(path));
    await archiveFile(disk, randomness, archiveKey, path, outwardContent(ports.db, merchant.id, file.id));
  }
  const head: ArchivedHead = {
    what: 'outward',
    id: file.id,
    kind: file.kind,
    sequence: file.sequence,
    name: file.name,
    businessDate: file.business_date,
    inputFileId: file.input_file_id,
    records: file.records,
    sum: file.sum,
    sha256: file.sha256,
    sizeBytes: file.size_bytes,
    frozenAt: file.frozen_at,
    payout: file.payout_id,
    delivered,
  };
  await writeHead(disk, randomness, archiveKey, path, head);
}

/**
 * A layout of the merchant's own may leave out what tells one row from another: what a file told is kept beside it in
 * `standard/1`, for kinds whose rows are told once. Before the file itself, so that it is never missed where that is there.
 */
async function keepTold(context: ChunkContext, file: UndeliveredFile, path: string): Promise<void> {
  const { ports, merchant } = context;
  const { result, enrolment, unreached, adjustment } = renderIn(null);
  const { kind, sequence, business_date: businessDate } = file;
  const head = { kind, merchantCode: merchant.code, businessDate, sequence };
  const write = (
    content: (db: Pick<Db, 'query'>, ...of: [number, string, string]) => AsyncIterable<Uint8Array>,
  ) => {
    const told = content(ports.db, merchant.id, file.id, merchant.settings.timezone);
    return archiveFile(ports.disk, ports.randomness, ports.sealer.archiveKey, path, told);
  };
  if (kind === 'debit') await write((db, merchantId, fileId) => told(requestLines(db, merchantId, fileId)));
  if (kind === 'result') await write((...of) => result(head, resultLines(...of)));
  if (kind === 'enrolment') await write((...of) => enrolment(head, enrolmentLines(...of)));
  if (kind === 'unreached') await write((...of) => unreached(head, unreachedLines(...of)));
  if (kind === 'adjustment') await write((...of) => adjustment(head, adjustmentLines(...of)));
}

/** A page of lines a row, as JSON. */
async function* told(pages: AsyncIterable<readonly RequestLine[]>): AsyncIterable<Uint8Array> {
  for await (const lines of pages) {
    const kept = lines.map((line) => ({ ...line, account_digest: line.account_digest.toString('hex') }));
    yield Buffer.from(`${JSON.stringify(kept)}\n`);
  }
}

async function parkUpload(
  context: ChunkContext,
  file: UndeliveredFile,
  why: 'differs' | 'gone',
): Promise<void> {
  const { ids } = context.ports;
  const reason = why === 'differs' ? 'OUTWARD_NAME_TAKEN' : 'OUTWARD_FILE_GONE';
  const message =
    why === 'differs'
      ? `${file.name} or its control file is there with other content; ours was not uploaded`
      : `${file.name} may have been taken before its delivery was confirmed; ask the merchant before it is sent again`;
  await inTransaction(context, async (tx, act) => {
    await park(tx, act.merchantId, act.at, [
      {
        id: ids.uuid(),
        subject: 'file',
        subjectId: file.id,
        reason,
        context: { name: file.name, sha256: file.sha256 },
      },
    ]);
    await raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: act.merchantId,
      level: 'now',
      cause: reason,
      message,
    });
  });
}

async function alertOfRefusal(context: ChunkContext, refusal: Refusal): Promise<void> {
  const { ports, merchant } = context;
  await raiseStanding(ports.db, merchant.id, ports.clock.now(), [
    {
      id: ports.ids.uuid(),
      // A partner's server that is down comes back; a changed host key may be somebody else's server.
      level: refusal.code === 'SFTP_HOST_KEY_CHANGED' ? 'now' : 'daily',
      cause: `DELIVER_${refusal.code}`,
      message: `${refusal.message}. The files wait and go in a later pass.`,
      occurrences: 1,
    },
  ]);
}

async function inTransaction(
  context: ChunkContext,
  write: (tx: Parameters<typeof markRenaming>[0], act: ChunkContext['act']) => Promise<unknown>,
): Promise<void> {
  const { ports, fence } = context;
  await ports.clock.refresh();
  await ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    const act = { ...context.act, at: ports.clock.now() };
    await recordAct(tx, act);
    await write(tx, act);
  });
}

/** Opened when first needed, and again after it broke. */
class Connection {
  readonly exchange: ExchangeSettings;
  readonly #context: ChunkContext;
  #open: RemoteStore | undefined;

  constructor(context: ChunkContext, exchange: ExchangeSettings) {
    this.#context = context;
    this.exchange = exchange;
  }

  async store(): Promise<RemoteStore> {
    if (this.#open !== undefined) return this.#open;
    this.#open = await openExchange(this.#context.ports, this.exchange);
    return this.#open;
  }

  async close(): Promise<void> {
    await this.#open?.close();
    this.#open = undefined;
  }
}
