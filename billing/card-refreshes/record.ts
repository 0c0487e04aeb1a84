import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert, resolveAlerts } from '../alerts/queries.ts';
import { contractsChanging } from '../card-changes/queries.ts';
import type { Tx } from '../db.ts';
import { endEnrolments } from '../enrolments/queries.ts';
import type { CardNews, RefreshAnswer } from '../gateways/gateway.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import { assertState } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import { holdFence } from '../runs/queries.ts';
import type { RefreshPorts, RefreshWork } from './ask.ts';
import {
  type AskedCard,
  answerCards,
  askedCards,
  billsOfContracts,
  endCards,
  lockAgreements,
  lockOpenRefresh,
  moveRefresh,
  type Successor,
  succeedCards,
} from './queries.ts';
import { type CardOutcome, givesUpAfterDays, isExpiredOn, unansweredCause } from './refresh.ts';

export interface RefreshCounts extends Record<string, number> {
  replaced: number;
  closed: number;
  expired: number;
  /** Nothing new: tried as before. */
  no_news: number;
  /** Cards whose question has no answer yet. */
  unanswered: number;
  given_up: number;
  /** Bills that dunning offers a link for now. */
  to_link: number;
}

const nothing: RefreshCounts = {
  replaced: 0,
  closed: 0,
  expired: 0,
  no_news: 0,
  unanswered: 0,
  given_up: 0,
  to_link: 0,
};

interface Told {
  card: AskedCard;
  news: CardNews | null;
  outcome: CardOutcome;
}

/**
 * Writes down what the gateway answered, once, whoever asked. A new card takes the old one's place under the same agreement.
 * With a card that is closed, or has expired without a successor, the agreement ends: the merchant is told, and the bills
 * that wait for its charge go to dunning, which offers a link.
 */
export async function recordAnswer(
  ports: RefreshPorts,
  work: RefreshWork,
  refreshId: string,
  answer: RefreshAnswer,
): Promise<RefreshCounts> {
  await ports.clock.refresh();
  const act = { ...work.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    await refuseInSafeMode(tx);
    const { id: merchantId } = work.merchant;
    const refresh = await lockOpenRefresh(tx, merchantId, refreshId);
    if (refresh === undefined) return nothing;
    await recordAct(tx, act);
    const cards = await askedCards(tx, merchantId, refreshId);
    if (answer.kind !== 'answered') {
      const endsAt = Temporal.Instant.from(refresh.asked_at).add({ hours: givesUpAfterDays * 24 });
      if (Temporal.Instant.compare(act.at, endsAt) < 0) {
        if (answer.kind === 'pending' && refresh.state === 'asked')
          await moveRefresh(tx, act, refreshId, 'accepted');
        return { ...nothing, unanswered: cards.length };
      }
      await giveUp(tx, act, ports, refresh, cards);
      return { ...nothing, given_up: cards.length };
    }
    assertState(answer.news.length === cards.length, `question ${refreshId} has an answer of another length`);
    const told = cards.map((card, index): Told => {
      const news = answer.news[index] ?? { kind: 'unknown' };
      return { card, news, outcome: outcomeOf(card, news) };
    });
    const toLink = await apply(tx, act, ports, work, refresh.business_date, told);
    await answerCards(
      tx,
      merchantId,
      refresh,
      told.map(({ card, news, outcome }) => ({
        paymentMethodId: card.payment_method_id,
        outcome,
        code: news?.kind === 'closed' ? news.code : null,
      })),
    );
    await moveRefresh(tx, act, refreshId, 'answered');
    await resolveAlerts(tx, merchantId, act.at, [unansweredCause], 'the gateway answers about cards again');
    const count = (of: CardOutcome) => told.filter(({ outcome }) => outcome === of).length;
    return {
      ...nothing,
      replaced: count('replaced'),
      closed: count('closed'),
      expired: count('expired'),
      no_news: count('unknown'),
      to_link: toLink,
    };
  });
}

function outcomeOf(card: AskedCard, news: CardNews): CardOutcome {
  if (news.kind !== 'unknown') return news.kind;
  return isExpiredOn(card.expires, card.charge_on) ? 'expired' : 'unknown';
}

async function apply(
  tx: Tx,
  act: Act,
  { ids, sealer }: Pick<RefreshPorts, 'ids' | 'sealer'>,
  { merchant, businessDate }: RefreshWork,
  askedOn: string,
  told: readonly Told[],
): Promise<number> {
  const changed = told.filter(({ outcome }) => outcome !== 'unknown');
  const gone = changed.filter(({ outcome }) => outcome !== 'replaced');
  const bills = await billsOfContracts(
    tx,
    merchant.id,
    gone.map(({ card }) => ({ customerId: card.customer_id, contractId: card.contract_id })),
  );
  const locked = await lockInvoices(tx, merchant.id, bills);
  const stands = await lockAgreements(
    tx,
    merchant.id,
    told.map(({ card }) => card),
  );
  // Somebody who has given another card meanwhile keeps it.
  const standing = ({ card }: Told) => stands.has(card.enrolment_id);
  const successors = changed.filter(standing).flatMap(({ card, news }): Successor[] => {
    if (news?.kind !== 'replaced') return [];
    const { token, ...method } = news.method;
    const id = ids.uuid();
    return [
      {
        ...method,
        id,
        replacesId: card.payment_method_id,
        enrolmentId: card.enrolment_id,
        sealedToken: sealer.seal('method', token, id),
        keyId: sealer.keyId,
      },
    ];
  });
  await succeedCards(tx, act, askedOn, successors);
  await endCards(
    tx,
    act,
    changed.map(({ card, outcome }) => ({
      paymentMethodId: card.payment_method_id,
      endedFor: outcome as 'replaced' | 'closed' | 'expired',
    })),
  );
  const goneStanding = gone.filter(standing).map(({ card }) => card.contract_id);
  // Whoever is giving another card at this moment can do so only while the agreement stands. If nothing comes of it, a later
  // pass finds bills without a card.
  const changing = new Set(await contractsChanging(tx, merchant.id, goneStanding));
  const ended = new Set(
    await endEnrolments(
      tx,
      act,
      goneStanding.filter((id) => !changing.has(id)),
      true,
    ),
  );
  // One that is being charged at this moment is dunned after its outcome anyway.
  const toLink = locked.filter(
    (bill) => bill.state === 'open' && bill.locked_by === null && ended.has(bill.contract_id),
  );
  await setAgenda(
    tx,
    merchant.id,
    toLink.map((bill) => ({ invoiceId: bill.id, act: 'dun', actOn: businessDate })),
  );
  return toLink.length;
}

async function giveUp(
  tx: Tx,
  act: Act,
  { ids }: Pick<RefreshPorts, 'ids'>,
  refresh: { id: string; business_date: string },
  cards: readonly AskedCard[],
): Promise<void> {
  await lockAgreements(tx, act.merchantId, cards);
  await answerCards(
    tx,
    act.merchantId,
    refresh,
    cards.map((card) => ({ paymentMethodId: card.payment_method_id, outcome: 'none', code: null })),
  );
  await moveRefresh(tx, act, refresh.id, 'given_up');
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'daily',
    cause: unansweredCause,
    message: `the gateway did not answer within ${givesUpAfterDays} days about ${cards.length} saved cards; they are charged as before`,
    occurrences: cards.length,
  });
}
