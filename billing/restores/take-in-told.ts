import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db, Tx } from '../db.ts';
import { lockMerchant } from '../exchanges/queries.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { returnUnpaid } from '../invoices/return.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { insertPart, markDelivered, markRenaming } from '../outward/queries.ts';
import type { Clock, Ids } from '../ports.ts';
import { chargeIdOf } from './batches.ts';
import {
  addToldPending,
  claimToldAdjustments,
  claimToldEnrolments,
  claimToldRows,
  insertToldFile,
  type NewToldFile,
  outwardFileHere,
  raiseOutwardNumber,
  type ToldRow,
  toldUnpaid,
} from './queries.ts';

/** An outward file as the archive knows it. */
export interface ToldFile extends NewToldFile {
  /** In pieces of at most a mebibyte. */
  content(): AsyncIterable<Buffer>;
  /** For results: what it told, in the order of its rows. */
  results(): AsyncIterable<readonly Told[]>;
  /** For enrolments. */
  enrolments(): AsyncIterable<readonly ToldEnrolment[]>;
  /** For adjustments. */
  adjustments(): AsyncIterable<readonly ToldAdjustment[]>;
}

export interface Told {
  rowNo: number;
  billingNumber: string;
  outcome: string;
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

/**
 * Bills that the merchant was told to be unpaid are his again, whatever is forgotten here: they are returned before any
 * capture is put to its bill, so that money which came after that is late money. Returns how many.
 */
export async function returnAsTold(ports: ToldPorts, work: ToldWork, file: ToldFile): Promise<number> {
  let returned = 0;
  for await (const rows of file.results()) {
    const numbers = rows
      .filter(({ outcome }) => outcome === 'unpaid')
      .map(({ billingNumber }) => billingNumber);
    if (numbers.length === 0) continue;
    returned += await inTransaction(ports, work, async (tx, act) => {
      const open = await toldUnpaid(tx, act.merchantId, numbers);
      const locked = await lockInvoices(tx, act.merchantId, open);
      // One that is locked is asked about first; the next look at the file returns it.
      const free = locked.filter(
        ({ state, locked_by }) => (state === 'open' || state === 'parked') && locked_by === null,
      );
      const today = act.at.toZonedDateTimeISO(work.merchant.settings.timezone).toPlainDate().toString();
      return returnUnpaid(
        tx,
        act,
        { businessDate: file.businessDate, today },
        free.map(({ id }) => id),
      );
    });
  }
  return returned;
}

/** No number of a file that the merchant has is given to another one. */
export async function keepNumber(
  ports: ToldPorts,
  work: ToldWork,
  file: Pick<ToldFile, 'kind' | 'sequence'>,
): Promise<void> {
  await inTransaction(ports, work, (tx, act) =>
    raiseOutwardNumber(tx, act.merchantId, file.kind, file.sequence),
  );
}

/** What a file told is not told again. 'differs': rows of it say what is not true here, or its number is another file's. */
export type TakenIn = 'known' | 'recovered' | 'differs';

export async function takeInTold(ports: ToldPorts, work: ToldWork, file: ToldFile): Promise<TakenIn> {
  try {
    return await inTransaction(ports, work, async (tx, act) => {
      await lockMerchant(tx, act.merchantId);
      const here = await outwardFileHere(tx, act.merchantId, file.id);
      if (here === undefined) await insertWhole(tx, act, file);
      // Again each time: an agreement may be found again later than the file that told it.
      for await (const rows of file.enrolments())
        await claimToldEnrolments(tx, act.merchantId, file.id, rows);
      if (here === undefined) return 'recovered';
      // It was frozen before the backup and may have been visible after it.
      if (here.state === 'frozen' && file.delivered) await markDelivered(tx, act, file.id);
      else if (here.state === 'frozen' && !here.renaming) await markRenaming(tx, act, file.id, firstPart);
      else return 'known';
      return 'recovered';
    });
  } catch (error) {
    if (error instanceof Differs) return 'differs';
    throw error;
  }
}

/** Most files need no second try; one that had any took the first's temporary file away. */
const firstPart = 1;

class Differs extends Error {}

async function insertWhole(tx: Tx, act: Act, file: ToldFile): Promise<void> {
  if (!(await insertToldFile(tx, act, file))) throw new Differs(file.name);
  let partNo = 0;
  for await (const part of file.content()) {
    await insertPart(tx, act.merchantId, file.id, partNo, part);
    partNo += 1;
  }
  for await (const rows of file.results()) {
    const told = rows.map((row): ToldRow => ({ ...row, causeId: chargeIdOf(row.reference) }));
    await addToldPending(tx, act.merchantId, told);
    const claimed = await claimToldRows(tx, act.merchantId, file.id, told);
    if (claimed !== rows.length) throw new Differs(file.name);
  }
  for await (const rows of file.adjustments()) {
    const told = rows.map((row) => ({ ...row, causeId: chargeIdOf(row.reference) }));
    if ((await claimToldAdjustments(tx, act.merchantId, file.id, told)) !== rows.length)
      throw new Differs(file.name);
  }
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
