import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { ensureAutoIntents } from '../autopay/queries.ts';
import { moveIntents } from '../charges/queries.ts';
import type { Db, Tx } from '../db.ts';
import { bankGateway } from '../debits/debit.ts';
import {
  insertLines,
  insertRequest,
  insertResult,
  type NewRequest,
  type NewResult,
  requestHere,
} from '../debits/queries.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { insertForgottenCharges, lockForgotten } from './queries.ts';

/** What a request for debits said, beside its records. */
export interface ToldRequest extends Omit<NewRequest, 'fileId'> {
  lines: readonly ToldDebit[];
}

export interface ToldDebit {
  lineNo: number;
  chargeId: string;
  invoiceId: string;
  customerKey: string;
  accountDigest: Buffer;
  amount: number;
}

/**
 * The bank was asked, and the database has forgotten it: the charges stand again as they stood then, and lock their bills,
 * so that nobody is asked for twice and the result finds its request. Returns how many debits are of no bill that is owed here.
 */
export async function takeInDebits(
  tx: Tx,
  act: Act,
  ids: Ids,
  file: { id: string; frozenAt: string },
  requests: AsyncIterable<ToldRequest>,
): Promise<number> {
  if (await requestHere(tx, act.merchantId, file.id)) return 0;
  let begun = false;
  let homeless = 0;
  for await (const { lines, ...request } of requests) {
    if (!begun) await insertRequest(tx, act, { ...request, fileId: file.id });
    begun = true;
    const bills = await lockInvoices(
      tx,
      act.merchantId,
      lines.map((line) => line.invoiceId),
    );
    const owed = new Map(
      bills
        .filter(({ state, locked_by }) => (state === 'open' || state === 'parked') && locked_by === null)
        .map((bill) => [bill.id, bill]),
    );
    const ours = lines.filter(({ invoiceId, amount }) => owed.get(invoiceId)?.amount === amount);
    homeless += lines.length - ours.length;
    const currencyOf = (invoiceId: string) => owed.get(invoiceId)?.currency ?? 'JPY';
    const intents = await ensureAutoIntents(
      tx,
      act,
      ours.map(({ invoiceId, amount }) => ({
        intentId: ids.uuid(),
        invoiceId,
        amount,
        currency: currencyOf(invoiceId),
      })),
    );
    await insertForgottenCharges(
      tx,
      act,
      { gateway: bankGateway, termsVersion: '' },
      ours.map(({ chargeId, invoiceId, amount }) => ({
        chargeId,
        invoiceId,
        intentId: intents.get(invoiceId) ?? '',
        sessionId: null,
        origin: 'auto',
        enrols: false,
        language: 'ja',
        amount,
        currency: currencyOf(invoiceId),
        capturedAt: file.frozenAt,
        businessDate: request.debitOn,
      })),
    );
    await moveIntents(tx, act, [...intents.values()], 'processing');
    await lockForgotten(tx, act, ours);
    await insertLines(
      tx,
      act.merchantId,
      file.id,
      request.debitOn,
      ours.map((line) => ({ ...line, methodId: null })),
    );
    await setAgenda(
      tx,
      act.merchantId,
      ours.map(({ invoiceId }) => ({ invoiceId, act: 'dun', actOn: request.resultDueOn })),
    );
  }
  return homeless;
}

/** Results that were taken after the backup are here again, to be read once more. Returns how many were forgotten. */
export async function takeInResults(
  ports: { db: Db; clock: Clock; ids: Ids },
  { merchant, actor }: { merchant: Merchant; actor: string },
  results: readonly NewResult[],
): Promise<number> {
  if (results.length === 0) return 0;
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
    let taken = 0;
    // A handful: an agency answers a request once.
    for (const result of results) if (await insertResult(tx, act, result)) taken += 1;
    return taken;
  });
}
