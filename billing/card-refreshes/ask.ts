import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { BillRange } from '../autopay/queries.ts';
import type { Db } from '../db.ts';
import type { Gateway, RefreshAnswer } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { refreshDaysOf } from '../merchants/settings.ts';
import type { Clock, Ids } from '../ports.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import {
  askedCards,
  billsToRefresh,
  openRefresh,
  openRefreshes,
  type RefreshWindow,
  stillWithoutCard,
} from './queries.ts';

export interface RefreshPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
  gateway: Gateway;
}

export interface RefreshWork {
  merchant: Merchant;
  businessDate: string;
  fence: Fence;
  act: Act;
}

/** So many questions without an answer at most: a gateway that is down is not asked about all cards in vain. */
const openAtMost = 32;

export interface Question {
  refreshId: string;
  tokens: string[];
}

export function windowOf(merchant: Merchant, gateway: Gateway, businessDate: string): RefreshWindow {
  const days = refreshDaysOf(merchant.settings);
  return {
    merchantId: merchant.id,
    gateway: gateway.name,
    upTo: Temporal.PlainDate.from(businessDate).add({ days }).toString(),
    days,
    asks: gateway.semantics.cardsPerRefresh > 0,
  };
}

/**
 * Writes down a question about the cards of a range of bills, before it is asked. Bills that have no card to be charged go
 * to dunning at once, which offers a link while there is time. Null: there is nothing to ask, or nobody answers now.
 */
export async function prepareQuestion(
  ports: RefreshPorts,
  work: RefreshWork,
  range: BillRange,
  billsAtMost: number,
): Promise<{ question: Question | null; withoutCard: number; waiting: number }> {
  const { gateway, ids } = ports;
  const { merchant, businessDate } = work;
  const window = windowOf(merchant, gateway, businessDate);
  await ports.clock.refresh();
  const act = { ...work.act, at: ports.clock.now() };
  const prepared = await ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    await refuseInSafeMode(tx);
    const bills = await billsToRefresh(tx, window, range, billsAtMost);
    const without = bills
      .filter(({ payment_method_id: methodId }) => methodId === null)
      .map(({ invoice_id: invoiceId }) => invoiceId);
    const cards = bills.flatMap(
      ({ payment_method_id: paymentMethodId, enrolment_id: enrolmentId, charge_on }) =>
        paymentMethodId === null || enrolmentId === null
          ? []
          : [{ paymentMethodId, enrolmentId, chargeOn: charge_on }],
    );
    if (bills.length > 0) await recordAct(tx, act);
    await lockInvoices(tx, merchant.id, without);
    const moved = await stillWithoutCard(tx, window, without);
    await setAgenda(
      tx,
      merchant.id,
      moved.map((invoiceId) => ({ invoiceId, act: 'dun', actOn: businessDate })),
    );
    const counts = { refreshId: null, withoutCard: moved.length, waiting: 0 };
    if (cards.length === 0) return counts;
    const unanswered = (await openRefreshes(tx, merchant.id, gateway.name)).filter(
      ({ state }) => state === 'asked',
    );
    if (unanswered.length >= openAtMost) return { ...counts, waiting: cards.length };
    const id = ids.uuid();
    const asked = await openRefresh(tx, act, { id, gateway: gateway.name, businessDate, cards });
    return { ...counts, refreshId: asked > 0 ? id : null };
  });
  const { refreshId, ...counts } = prepared;
  return { ...counts, question: refreshId === null ? null : await questionOf(ports, merchant, refreshId) };
}

/** The question as it was written down: the same cards in the same order, whoever asks. Null: it is over. */
export async function questionOf(
  ports: Pick<RefreshPorts, 'db' | 'sealer'>,
  merchant: Merchant,
  refreshId: string,
): Promise<Question | null> {
  const cards = await askedCards(ports.db, merchant.id, refreshId);
  if (cards.length === 0) return null;
  const tokens = cards.map((card) => ports.sealer.open('method', card.sealed_token, card.payment_method_id));
  return { refreshId, tokens };
}

/** Outside any transaction, with a deadline. */
export async function askGateway(
  ports: Pick<RefreshPorts, 'clock' | 'gateway'>,
  merchant: Merchant,
  { refreshId, tokens }: Question,
): Promise<RefreshAnswer> {
  const { clock, gateway } = ports;
  try {
    return await gateway.refreshCards(
      { account: merchant.code, reference: referenceOf(refreshId), tokens },
      clock.deadline(gateway.semantics.callDeadlineMs),
    );
  } catch (error) {
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
}
