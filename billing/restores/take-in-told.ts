import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Db, Tx } from '../db.ts';
import { lockMerchant } from '../exchanges/queries.ts';
import { cancelInvoices, isCancellable } from '../invoices/cancel.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { returnUnpaid } from '../invoices/return.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { insertPart, markDelivered, markRenaming } from '../outward/queries.ts';
import { parkBills } from '../parked/park-bills.ts';
import { claimToldPayouts, toldPayoutDiffers } from '../payouts/queries.ts';
import type { Clock, Ids } from '../ports.ts';
import { addUnreachedRows } from '../unreached/queries.ts';
import { chargeIdOf } from './batches.ts';
import {
  addToldPending,
  claimToldAdjustments,
  claimToldEnrolments,
  claimToldRows,
  countClaimed,
  inputFileAsTold,
  insertToldFile,
  type NewToldFile,
  outwardFileHere,
  raiseAdjustmentNumber,
  raiseOutwardNumber,
  type ToldRow,
  type ToldUnreachedRow,
  takeInToldUnreached,
  toldOtherwise,
  toldStillOwed,
} from './queries.ts';
import { type ToldRequest, takeInDebits } from './take-in-debits.ts';

/** An outward file as the archive knows it. */
export interface ToldFile extends NewToldFile {
  /** In pieces of at most a mebibyte. This and the rows throw `Unreadable`. */
  content(): AsyncIterable<Buffer>;
  /** For results: what it told, in the order of its rows. */
  results(): AsyncIterable<readonly Told[]>;
  /** For enrolments. */
  enrolments(): AsyncIterable<readonly ToldEnrolment[]>;
  /** For unreached bills. */
  unreached(): AsyncIterable<readonly ToldUnreachedRow[]>;
  /** For requests of bank debits. */
  debits(): AsyncIterable<ToldRequest>;
  /** For adjustments. */
  adjustments(): AsyncIterable<readonly ToldAdjustment[]>;
}

/** The archive's copy of a file, or what it told, cannot be read. */
export class Unreadable extends Error {}

export interface Told {
  rowNo: number;
  billingNumber: string;
  outcome: string;
  reason: string;
  method: string;
  amount: number;
  /** ISO 8601 instant. */
  knownAt: string;
  /** Of the charge that caused it, else of the bill. */
  reference: string;
}

export interface ToldEnrolment {
  rowNo: number;
  customerNumber: string;
  what: string;
}

export interface ToldAdjustment {
  rowNo: number;
  number: number;
  kind: string;
  /** Of the charge that moved the money. */
  reference: string;
}

interface ToldPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
}

interface ToldWork {
  merchant: Merchant;
  actor: string;
}

/** Why a bill ended that nobody paid, as a result row gives the reason. */
export type ToldEnd = 'dunning_ended' | 'paper' | 'cancelled_by_merchant' | 'replaced' | 'recalled';

/** Bills that got here the final outcome which the merchant was told. */
export interface SettledAsTold extends Record<string, number> {
  returned: number;
  cancelled: number;
}

/**
 * Bills that the merchant was told to be unpaid or cancelled are not owed here either, whatever is forgotten: they end so
 * before any capture is put to its bill, so that money which came after that is late money or a credit.
 */
export async function settleAsTold(
  ports: ToldPorts,
  work: ToldWork,
  file: ToldFile,
  ends: ReadonlySet<ToldEnd>,
  settled: SettledAsTold,
): Promise<void> {
  const endOf = ({ outcome, reason }: Told): string | null =>
    outcome === 'unpaid' || outcome === 'cancelled' ? reason : null;
  for await (const rows of file.results()) {
    const ending = rows.filter((row) => (ends as ReadonlySet<string | null>).has(endOf(row)));
    if (ending.length === 0) continue;
    const done = await inTransaction(ports, work, async (tx, act): Promise<SettledAsTold> => {
      const owed = await toldStillOwed(
        tx,
        act.merchantId,
        ending.map(({ billingNumber }) => billingNumber),
      );
      const locked = await lockInvoices(tx, act.merchantId, owed);
      // One that is locked is asked about first; the next look at the file ends it.
      const free = new Map(locked.filter(isCancellable).map((bill) => [bill.billing_number, bill.id]));
      const told = (end: ToldEnd) =>
        ending
          .filter((row) => endOf(row) === end)
          .flatMap(({ billingNumber }) => free.get(billingNumber) ?? []);
      const { timezone } = work.merchant.settings;
      const today = act.at.toZonedDateTimeISO(timezone).toPlainDate().toString();
      const { businessDate } = file;
      let returned = 0;
      for (const reason of ['dunning_ended', 'paper'] as const)
        returned += await returnUnpaid(tx, act, { businessDate, today }, told(reason), reason);
      // Why no SMS reached it is forgotten, unless a file that is looked at later told it.
      const forPaper = told('paper').map((invoiceId) => ({
        invoiceId,
        cause: 'undelivered' as const,
        barcode: null,
      }));
      await addUnreachedRows(tx, act.merchantId, act.at, forPaper);
      let cancelled = 0;
      for (const reason of ['cancelled_by_merchant', 'replaced', 'recalled'] as const) {
        const bills = told(reason);
        await cancelInvoices(tx, act, { today, timezone }, bills, reason);
        cancelled += bills.length;
      }
      return { returned, cancelled };
    });
    settled.returned += done.returned;
    settled.cancelled += done.cancelled;
  }
}

/**
 * No number that the merchant has is given again, neither a file's nor an adjustment's: whatever else of the file is true
 * here. Throws `Unreadable` once the file's own number is kept.
 */
export async function keepNumbers(ports: ToldPorts, work: ToldWork, file: ToldFile): Promise<void> {
  await inTransaction(ports, work, (tx, act) =>
    raiseOutwardNumber(tx, act.merchantId, file.kind, file.sequence),
  );
  for await (const rows of file.adjustments()) {
    const highest = rows.reduce((most, { number }) => Math.max(most, number), 0);
    if (highest > 0)
      await inTransaction(ports, work, (tx, act) => raiseAdjustmentNumber(tx, act.merchantId, highest));
  }
}

export interface TakenIn {
  /** The file, or that it may have been visible, was not known here. */
  recovered: boolean;
  /** What it told that is not true here, or why that is not known; null = all of it is. */
  difference: string | null;
}

/**
 * What a file told is not told again. The file and every row of it that is true here are kept; the rest is a difference for a
 * person, and bills that were told to be final and are not so here are parked: they are neither charged nor written to.
 */
export async function takeInTold(ports: ToldPorts, work: ToldWork, file: ToldFile): Promise<TakenIn> {
  try {
    return await inTransaction(ports, work, async (tx, act) => {
      await lockMerchant(tx, act.merchantId);
      const here = await outwardFileHere(tx, act.merchantId, file.id);
      if (here === undefined && !(await insertWhole(tx, act, file)))
        return { recovered: false, difference: `another file here has the name or number of ${file.name}` };
      const recovered = here === undefined || (await foundUnderWay(tx, act, file, here));
      return { recovered, difference: await differenceIn(tx, act, ports.ids, file) };
    });
  } catch (error) {
    if (error instanceof Unreadable)
      return { recovered: false, difference: `the archive's copy of ${file.name} cannot be read` };
    throw error;
  }
}

/** Most files need no second try; one that had any took the first's temporary file away. */
const firstPart = 1;

/** False: another file has its name or number. */
async function insertWhole(tx: Tx, act: Act, file: ToldFile): Promise<boolean> {
  if (!(await insertToldFile(tx, act, file))) return false;
  let partNo = 0;
  for await (const part of file.content()) {
    await insertPart(tx, act.merchantId, file.id, partNo, part);
    partNo += 1;
  }
  return true;
}

/** It was frozen before the backup and may have been visible after it. */
async function foundUnderWay(
  tx: Tx,
  act: Act,
  file: ToldFile,
  here: { state: 'frozen' | 'delivered'; renaming: boolean },
): Promise<boolean> {
  if (here.state === 'delivered') return false;
  if (file.delivered) return markDelivered(tx, act, file.id);
  if (here.renaming) return false;
  await markRenaming(tx, act, file.id, firstPart);
  return true;
}

/** Again each time: what a file told may be learned later than the file. */
async function differenceIn(tx: Tx, act: Act, ids: Ids, file: ToldFile): Promise<string | null> {
  const { kind, id, name, records } = file;
  if (kind === 'receipt' || kind === 'tieout')
    return (await inputFileAsTold(tx, act.merchantId, file))
      ? null
      : `the merchant was told in ${name} of a file that was read otherwise here, or is not here`;
  if (kind === 'settlement') {
    if (file.payout === null) return `of which payout ${name} is cannot be read in the archive`;
    await claimToldPayouts(tx, act.merchantId);
    return (await toldPayoutDiffers(tx, act.merchantId, id))
      ? `the merchant was told in ${name} another sum of a payout than is booked here`
      : null;
  }
  if (kind === 'debit') return differenceInDebits(tx, act, ids, file);
  if ((await countClaimed(tx, act.merchantId, kind, id)) === records) return null;
  try {
    const otherwise = await claimRows(tx, act, ids, file);
    const missing = records - (await countClaimed(tx, act.merchantId, kind, id));
    return missing === 0
      ? null
      : `the merchant was told in ${name} what is not true here: ${missing} of ${records} rows${otherwise}`;
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return `what the merchant was told in ${name} cannot be read in the archive: ${records} rows`;
  }
}

async function differenceInDebits(tx: Tx, act: Act, ids: Ids, file: ToldFile): Promise<string | null> {
  const homeless = await takeInDebits(tx, act, ids, file, file.debits());
  return homeless === 0
    ? null
    : `the bank was asked in ${file.name} for ${homeless} debits of bills that are not owed here: ask the agency what became of them`;
}

/** Returns which of a result's rows is the first that is not true here, as the end of a sentence. */
async function claimRows(tx: Tx, act: Act, ids: Ids, file: ToldFile): Promise<string> {
  const { merchantId } = act;
  let first = '';
  for await (const rows of file.results()) {
    const told = rows.map((row): ToldRow => ({ ...row, causeId: chargeIdOf(row.reference) }));
    await addToldPending(tx, merchantId, told);
    await claimToldRows(tx, merchantId, file.id, told);
    const otherwise = await toldOtherwise(tx, merchantId, file.id, told);
    const [{ billing_number: number, outcome } = { billing_number: '', outcome: '' }] = otherwise;
    if (first === '' && number !== '') first = `, first ${number} as ${outcome}`;
    await setAside(
      tx,
      act,
      ids,
      file.name,
      otherwise.flatMap((row) =>
        row.owed_id !== null && row.outcome !== 'pending' ? [{ id: row.owed_id, outcome: row.outcome }] : [],
      ),
    );
  }
  for await (const rows of file.enrolments()) await claimToldEnrolments(tx, merchantId, file.id, rows);
  for await (const rows of file.unreached()) await takeInToldUnreached(tx, merchantId, file.id, rows);
  for await (const rows of file.adjustments()) {
    const told = rows.map((row) => ({ ...row, causeId: chargeIdOf(row.reference) }));
    await claimToldAdjustments(tx, merchantId, file.id, told);
  }
  return first;
}

/** Whoever is told to have paid, or to owe nothing, is not charged before a person has looked. */
async function setAside(
  tx: Tx,
  act: Act,
  ids: Ids,
  file: string,
  told: readonly { id: string; outcome: string }[],
): Promise<void> {
  if (told.length === 0) return;
  const outcomes = new Map(told.map(({ id, outcome }) => [id, outcome]));
  const locked = await lockInvoices(tx, act.merchantId, [...outcomes.keys()]);
  const open = locked.filter(({ state, locked_by }) => state === 'open' && locked_by === null);
  const parked = await parkBills(
    tx,
    act,
    ids,
    open.map(({ id }) => ({
      invoiceId: id,
      reason: 'TOLD_OTHERWISE',
      context: { file, told: outcomes.get(id) ?? null },
    })),
  );
  if (parked === 0) return;
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: 'TOLD_OTHERWISE',
    message: `${parked} bills are open here, and the merchant was told in ${file} what became of them; they are parked`,
    occurrences: parked,
  });
}

async function inTransaction<T>(
  ports: ToldPorts,
  { merchant, actor }: ToldWork,
  write: (tx: Tx, act: Act) => Promise<T>,
): Promise<T> {
  await ports.clock.refresh();
  const act: Act = {
    merchantId: merchant.id,
    id: ports.ids.uuid(),
    kind: 'command',
    actor,
    at: ports.clock.now(),
  };
  return ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    return write(tx, act);
  });
}
