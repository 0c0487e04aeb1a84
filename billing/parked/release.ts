import { type Act, commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Db, Tx } from '../db.ts';
import { fallBackToLink } from '../dunning/queries.ts';
import { moveFile } from '../exchanges/queries.ts';
import { lockInvoices, moveInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { heldFiles, parkedByRule, parkedFiles, parkedReasonsOf, unpark, waiveHolds } from './queries.ts';
import type { ReleaseRule } from './rule.ts';

export interface ReleasedParked {
  /** Billing numbers that go on. */
  bills: string[];
  /** Files that the next pass of `ingest` loads, or of `deliver` uploads. */
  files: string[];
  /** What stays, with the reason. */
  kept: { name: string; why: 'not_parked' | 'payment_under_way' }[];
}

export interface ReleaseWhat {
  billingNumbers: readonly string[];
  /** Names of files that are held or parked. */
  files: readonly string[];
  rule: ReleaseRule | null;
}

/** Reasons about a saved card: released, the bill goes on by a link, since nothing has changed about the card. */
const byLink: ReadonlySet<string> = new Set([
  'NO_RULE_FOR_CODE',
  'NO_RULE',
  'VERDICT_STOP',
  'VERDICT_MISSING',
]);

/**
 * A person has looked: parked bills go on, and the reasons for which files are held are set aside. Dunning takes up the
 * bills with its next pass, and ingest the files. Run again, it changes nothing.
 */
export async function releaseParked(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  what: ReleaseWhat,
  actor: string,
): Promise<ReleasedParked> {
  const act = await commandAct(ports, merchant.id, actor);
  const today = act.at.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
  return ports.db.transaction(async (tx) => {
    const released: ReleasedParked = { bills: [], files: [], kept: [] };
    await recordAct(tx, act);
    await releaseFiles(tx, act, what.files, released);
    const byRule = what.rule === null ? [] : await parkedByRule(tx, merchant.id, what.rule);
    await releaseBills(tx, act, today, [...new Set([...what.billingNumbers, ...byRule])], released);
    return released;
  });
}

async function releaseFiles(
  tx: Tx,
  act: Act,
  names: readonly string[],
  released: ReleasedParked,
): Promise<void> {
  const held = await heldFiles(tx, act.merchantId, names);
  // What could not be read, did not close or could not be uploaded is tried once more.
  const parked = await parkedFiles(tx, act.merchantId, names);
  const known = new Set([...held, ...parked].map((file) => file.name));
  for (const name of names) {
    if (known.has(name)) released.files.push(name);
    else released.kept.push({ name, why: 'not_parked' });
  }
  const ids = held.map((file) => file.id);
  await waiveHolds(tx, act.merchantId, ids);
  const all = [...ids, ...parked.map((file) => file.id)];
  await unpark(tx, act.merchantId, act.at, 'file', all, 'released');
  // The history says who did it.
  for (const id of ids) await moveFile(tx, act, id, 'held');
}

async function releaseBills(
  tx: Tx,
  act: Act,
  today: string,
  numbers: readonly string[],
  released: ReleasedParked,
): Promise<void> {
  if (numbers.length === 0) return;
  const reasons = await parkedReasonsOf(tx, act.merchantId, numbers);
  const locked = await lockInvoices(
    tx,
    act.merchantId,
    reasons.map((bill) => bill.id),
  );
  const free = locked.filter((bill) => bill.state === 'parked' && bill.locked_by === null);
  const ids = free.map((bill) => bill.id);
  await moveInvoices(tx, act, ids, 'open', '');
  await unpark(tx, act.merchantId, act.at, 'invoice', ids, 'released');
  const reasonOf = new Map(reasons.map((bill) => [bill.id, bill.reason]));
  await fallBackToLink(
    tx,
    act.merchantId,
    free
      .filter((bill) => bill.collection === 'auto' && byLink.has(reasonOf.get(bill.id) ?? ''))
      .map((bill) => ({ invoiceId: bill.id, why: 'parked' as const })),
    today,
  );
  await setAgenda(
    tx,
    act.merchantId,
    ids.map((invoiceId) => ({ invoiceId, act: 'dun', actOn: today })),
  );
  const done = new Set(free.map((bill) => bill.billing_number));
  const busy = new Set(locked.filter((bill) => bill.locked_by !== null).map((bill) => bill.billing_number));
  for (const number of numbers) {
    if (done.has(number)) released.bills.push(number);
    else released.kept.push({ name: number, why: busy.has(number) ? 'payment_under_way' : 'not_parked' });
  }
}
