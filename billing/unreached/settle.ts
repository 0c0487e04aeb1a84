import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { counterLimitYen } from '../barcodes/digits.ts';
import { linkTermsOf, nextBarcode } from '../barcodes/next.ts';
import { type BarcodeRow, type BarcodeTerms, barcodeTerms, insertBarcodes } from '../barcodes/queries.ts';
import { barcodeMethod } from '../barcodes/watermark.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Carrier } from '../carriers/carrier.ts';
import { methodsOffered } from '../checkout/methods.ts';
import type { Db, Tx } from '../db.ts';
import type { Gateway } from '../gateways/gateway.ts';
import { lockInvoices } from '../invoices/queries.ts';
import { returnUnpaid } from '../invoices/return.ts';
import { linkExpiry } from '../links/expiry.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import type { MerchantSettings } from '../merchants/settings.ts';
import { planSteps } from '../messages/plan.ts';
import type { Clock, Ids } from '../ports.ts';
import { completeTo } from '../reconciliation/queries.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import { assertState, Refusal } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import { decideUnreached, type ReachDecision } from './decide.ts';
import {
  addUnreachedRows,
  billsNotReached,
  filesWhollyUnreached,
  forgetEnded,
  markLookedAt,
  type ReachRow,
  reachFacts,
} from './queries.ts';

export interface UnreachedPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
  gateway: Pick<Gateway, 'semantics' | 'barcodes'>;
  carrier: Pick<Carrier, 'secondSender'>;
}

export interface UnreachedWork {
  merchant: Merchant;
  /** YYYY-MM-DD of the run. */
  businessDate: string;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
}

export interface UnreachedCounts extends Record<string, number> {
  /** Tried once more from another sender. */
  said_again: number;
  unreached_kept: number;
  unreached_returned: number;
}

const billsAtOnce = 1_000;
/** A file of fewer bills may reach nobody by chance. */
const wholeFileFrom = 10;

/**
 * Settles every bill that no SMS reaches by the merchant's rule, batch by batch: it is kept, with a barcode for paper, or it
 * goes back. Its row for the merchant is written in the same transaction. What is busy is left for a later pass.
 */
export async function settleUnreached(ports: UnreachedPorts, work: UnreachedWork): Promise<UnreachedCounts> {
  const { db } = ports;
  const { merchant, businessDate } = work;
  const counts: UnreachedCounts = { said_again: 0, unreached_kept: 0, unreached_returned: 0 };
  const files = new Set<string>();
  let after: string | null = null;
  while (!work.stop.aborted) {
    const ids: string[] = await billsNotReached(db, merchant.id, businessDate, after, billsAtOnce);
    after = ids.at(-1) ?? null;
    if (after === null) break;
    await ports.clock.refresh();
    const settled = await inTransaction(ports, work, (tx, act) => settleBatch(tx, act, ports, work, ids));
    counts.said_again += settled.again;
    counts.unreached_kept += settled.kept;
    counts.unreached_returned += settled.returned;
    for (const file of settled.files) files.add(file);
  }
  if (files.size > 0) {
    await inTransaction(ports, work, (tx, act) => tellOfWholeFiles(tx, act, ports.ids, [...files]));
  }
  await db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    await forgetEnded(tx, merchant.id, ports.clock.now());
  });
  return counts;
}

interface Settled {
  again: number;
  kept: number;
  returned: number;
  /** Ids of the input files that brought them. */
  files: string[];
}

async function settleBatch(
  tx: Tx,
  act: Act,
  { gateway, carrier, sealer }: UnreachedPorts,
  work: UnreachedWork,
  ids: readonly string[],
): Promise<Settled> {
  const { merchant, businessDate } = work;
  await lockInvoices(tx, merchant.id, ids);
  const rows = await reachFacts(tx, merchant.id, businessDate, ids);
  const today = businessDateOf(act.at, merchant.settings.timezone).toString();
  const barcodeOf = await barcodesFor(tx, { merchant, gateway, today }, rows);
  const settings = await settingsOf(tx, merchant, rows);
  const [reportedTo, barcodesTo] = [
    await completeTo(tx, merchant.id, reportedMethod),
    await completeTo(tx, merchant.id, barcodeMethod),
  ];
  const reported = (day: string | null, upTo: string | null) =>
    day === null || (upTo !== null && day <= upTo);
  const decided = rows.map((row): { row: ReachRow; decision: ReachDecision } => ({
    row,
    decision: decideUnreached({
      byLink: row.by_link,
      isBusy: row.is_busy,
      isTold: row.is_told,
      isReached: row.is_reached,
      cause: row.cause,
      again: carrier.secondSender && merchant.settings.notify.secondSender ? row.again : null,
      rule: (settings.get(row.settings_version) ?? merchant.settings).notify.unreached,
      barcode: barcodeOf(row),
      isComplete: reported(row.charged_on, reportedTo) && reported(row.expires_on, barcodesTo),
    }),
  }));

  const again = decided.flatMap(({ row, decision }) =>
    decision.kind === 'again' ? [{ invoiceId: row.id, step: decision.step, plannedOn: businessDate }] : [],
  );
  await planSteps(tx, { merchant, sealer, at: act.at, steps: again });
  const kept = decided.flatMap(({ row, decision }) =>
    decision.kind === 'kept' ? [{ ...decision, invoiceId: row.id, issued: row.digits }] : [],
  );
  const returned = decided.flatMap(({ row, decision }) =>
    decision.kind === 'returned' ? [{ invoiceId: row.id, cause: decision.cause, barcode: null }] : [],
  );
  const issued = kept.filter(({ barcode, issued: before }) => barcode.digits !== before);
  await insertBarcodes(
    tx,
    merchant.id,
    issued.map(({ invoiceId, barcode }) => ({ ...barcode, invoiceId })),
    act.at,
  );
  const gone = await returnUnpaid(
    tx,
    act,
    { businessDate, today },
    returned.map(({ invoiceId }) => invoiceId),
    'paper',
  );
  assertState(gone === returned.length, `${gone} bills went back of ${returned.length} locked ones`);
  await addUnreachedRows(tx, merchant.id, act.at, [
    ...kept.map(({ invoiceId, cause, barcode }) => ({ invoiceId, cause, barcode: barcode.digits })),
    ...returned,
  ]);
  await markLookedAt(
    tx,
    merchant.id,
    act.at,
    decided
      .filter(({ decision }) => decision.kind !== 'wait' && decision.kind !== 'again')
      .map(({ row }) => row.id),
  );
  const told = decided.filter(({ decision }) => decision.kind === 'kept' || decision.kind === 'returned');
  return {
    again: again.length,
    kept: kept.length,
    returned: gone,
    files: [...new Set(told.map(({ row }) => row.file_id))],
  };
}

async function settingsOf(
  tx: Pick<Tx, 'query'>,
  merchant: Merchant,
  rows: readonly ReachRow[],
): Promise<ReadonlyMap<number, MerchantSettings>> {
  return settingsByVersion(tx, merchant.id, [...new Set(rows.map((row) => row.settings_version))]);
}

/** What paper could carry for each bill: the barcode that registers take now, or the one that would be issued. */
async function barcodesFor(
  tx: Pick<Tx, 'query'>,
  by: { merchant: Merchant; gateway: UnreachedPorts['gateway']; today: string },
  rows: readonly ReachRow[],
): Promise<(row: ReachRow) => BarcodeRow | 'over_limit' | null> {
  const { merchant, gateway, today } = by;
  const isOffered = (amount: number) =>
    methodsOffered(merchant.settings, gateway, amount).includes('barcode');
  const isTaken = (row: ReachRow) => row.expires_on !== null && row.expires_on >= today;
  const terms = await barcodeTerms(
    tx,
    merchant.id,
    rows.filter((row) => isOffered(row.amount) && !isTaken(row)).map((row) => row.id),
  );
  const endsOn = linkExpiry(await settingsOf(tx, merchant, rows), gateway.barcodes?.newsDays);
  return (row) => {
    const { reissue, digits, expires_on: expiresOn, amount } = row;
    if (reissue !== null && digits !== null && expiresOn !== null && isTaken(row)) {
      return { reissue, digits, amount, expires_on: expiresOn };
    }
    const of = terms.get(row.id);
    if (of !== undefined)
      return newBarcode(merchant, of, endsOn(linkTermsOf(of)), today, (reissue ?? -1) + 1);
    return amount > counterLimitYen && isOffered(counterLimitYen) ? 'over_limit' : null;
  };
}

/** Null where the digits have no room for it: one bill must not keep the others from being told. */
function newBarcode(
  merchant: Merchant,
  terms: BarcodeTerms,
  endsOn: string,
  today: string,
  reissue: number,
): BarcodeRow | null {
  try {
    return nextBarcode({ merchant, terms, endsOn, today, reissue });
  } catch (error) {
    if (error instanceof Refusal && error.code === 'BARCODE_NUMBER_TOO_LONG') return null;
    throw error;
  }
}

/** Numbers of a whole file that reach nobody are rather the file's fault than its customers'. */
async function tellOfWholeFiles(tx: Tx, act: Act, ids: Ids, fileIds: readonly string[]): Promise<void> {
  for (const { name, bills } of await filesWhollyUnreached(tx, act.merchantId, fileIds, wholeFileFrom)) {
    await raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: act.merchantId,
      level: 'now',
      cause: 'FILE_UNREACHED',
      message: `none of the ${bills} bills by link in ${name} reached a phone`,
      occurrences: bills,
    });
  }
}

async function inTransaction<T>(
  ports: UnreachedPorts,
  { fence, ...work }: UnreachedWork,
  write: (tx: Tx, act: Act) => Promise<T>,
): Promise<T> {
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await refuseInSafeMode(tx);
    const act = { ...work.act, at: ports.clock.now() };
    await recordAct(tx, act);
    return write(tx, act);
  });
}
