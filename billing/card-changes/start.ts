import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { type BillRow, type BillState, stateOfBill } from '../checkout/bill.ts';
import type { Link } from '../checkout/find-link.ts';
import { billOfLink, merchantOf } from '../checkout/queries.ts';
import { askAfterDeadlineMs, type CheckoutPorts, pageLivesMinutes, type Started } from '../checkout/start.ts';
import { todayOf } from '../checkout/view-bill.ts';
import type { Db } from '../db.ts';
import { termsVersion } from '../enrolments/enrol.ts';
import { contractOfBill } from '../enrolments/queries.ts';
import type { HostedPageAnswer } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import { wrongPersonCode } from '../links/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { Refusal } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import { learnCardChanges } from './ask.ts';
import type { OpenCardChange } from './card-change.ts';
import { cardOnFile, insertCardChange, openChangeOf, recordSetupPage } from './queries.ts';
import { recordCardChanges } from './record.ts';

export interface StartCardChange {
  /** Its visitor has passed the check. */
  link: Link;
  language: 'ja' | 'en';
  /** Where the gateway sends the visitor back; made for the change because no cookie may be there then. */
  returnUrlOf: (changeId: string) => string;
}

interface Intent {
  merchant: Merchant;
  act: Act;
  id: string;
  currency: string;
  deadline: Temporal.Instant;
  pageEndsAt: Temporal.Instant;
}

/** A link that was given back, has ended or is of a bill that is gone changes nothing. */
const statesThatMay: readonly BillState[] = ['owed', 'in_payment', 'waiting', 'paid_at_shop', 'paid'];

/** Whether the card of automatic payment may be changed from this bill's link. */
export function mayChangeCard(
  { enrolled_by, dead_reason }: Pick<BillRow, 'enrolled_by' | 'dead_reason'>,
  state: BillState,
): boolean {
  // A paid bill is paid whoever has its link; who gave it back is still not the customer.
  return enrolled_by === 'card' && dead_reason !== wrongPersonCode && statesThatMay.includes(state);
}

/** The gateway's page of a change that is under way, while it is open; null: nobody may begin another one yet. */
export function pageOf(change: OpenCardChange, now: Temporal.Instant): string | null {
  const isOpen = change.state === 'requires_action' && Temporal.Instant.compare(now, change.page_ends_at) < 0;
  return isOpen ? change.page_url : null;
}

/**
 * Opens the gateway's page for another card: intent, commit, call, outcome. Nothing is charged and the bill is not touched;
 * one change of a contract is under way at most, so that two tabs lead to one page.
 */
export async function startCardChange(
  db: Db,
  ports: CheckoutPorts,
  request: StartCardChange,
): Promise<Started> {
  let intent: Intent | Started;
  try {
    intent = await insertIntent(db, ports, request);
  } catch (error) {
    if (error instanceof Refusal && error.code === 'SAFE_MODE') return { kind: 'resting' };
    throw error;
  }
  if ('kind' in intent) return intent;
  await ports.crash('card_change.after_intent');
  const answer = await openPage(ports, request, intent);
  await ports.crash('card_change.after_gateway');
  return recordAnswer(db, ports, intent, answer);
}

async function insertIntent(
  db: Db,
  ports: CheckoutPorts,
  { link }: StartCardChange,
): Promise<Intent | Started> {
  const now = ports.clock.now();
  return db.transaction(
    async (tx): Promise<Intent | Started> => {
      await refuseInSafeMode(tx);
      const merchant = await merchantOf(tx, link.merchantId);
      const contractId = await contractOfBill(tx, link.merchantId, link.invoiceId);
      const bill = contractId && (await billOfLink(tx, link.merchantId, link.invoiceId, link.version));
      if (merchant === undefined || !contractId || !bill) return { kind: 'look_again' };
      const card = await cardOnFile(tx, merchant.id, contractId);
      if (card === undefined || !mayChangeCard(bill, stateOfBill(bill, now, todayOf(merchant, now))))
        return { kind: 'look_again' };
      const open = await openChangeOf(tx, merchant.id, contractId);
      if (open !== undefined) {
        const url = pageOf(open, now);
        return url === null ? { kind: 'waiting' } : { kind: 'redirect', url };
      }
      const id = ports.ids.uuid();
      const act: Act = {
        merchantId: merchant.id,
        id: ports.ids.uuid(),
        kind: 'visit',
        actor: 'visitor, by "use another card"',
        at: now,
      };
      const deadline = now.add({ milliseconds: ports.gateway.semantics.callDeadlineMs });
      const pageEndsAt = now.add({ minutes: pageLivesMinutes });
      await recordAct(tx, act);
      await insertCardChange(tx, act, {
        id,
        contractId,
        enrolmentId: card.enrolment_id,
        invoiceId: link.invoiceId,
        linkVersion: link.version,
        gateway: ports.gateway.name,
        termsVersion,
        deadlineAt: instantText(deadline),
        pageEndsAt: instantText(pageEndsAt),
        askAt: instantText(deadline.add({ milliseconds: askAfterDeadlineMs })),
      });
      return { merchant, act, id, currency: bill.currency, deadline, pageEndsAt };
    },
    { merchantId: link.merchantId },
  );
}

async function openPage(
  ports: CheckoutPorts,
  request: StartCardChange,
  intent: Intent,
): Promise<HostedPageAnswer> {
  await ports.clock.refresh();
  if (Temporal.Instant.compare(ports.clock.now(), intent.deadline) > 0) {
    return { kind: 'not_executed', why: 'the deadline passed before the call', retryAfterMs: null };
  }
  return ports.gateway.openSetupPage(
    {
      account: intent.merchant.code,
      reference: referenceOf(intent.id),
      currency: intent.currency,
      returnUrl: request.returnUrlOf(intent.id),
      language: request.language,
      merchantName: intent.merchant.settings.name[request.language],
      expiresAt: intent.pageEndsAt.toString({ smallestUnit: 'millisecond' }),
    },
    ports.clock.deadline(ports.gateway.semantics.callDeadlineMs),
  );
}

async function recordAnswer(
  db: Db,
  ports: CheckoutPorts,
  intent: Intent,
  answer: HostedPageAnswer,
): Promise<Started> {
  await ports.clock.refresh();
  const { merchant, id } = intent;
  const act: Act = { ...intent.act, id: ports.ids.uuid(), at: ports.clock.now() };
  const one = { merchantId: merchant.id };
  if (answer.kind === 'opened') {
    const recorded = await db.transaction(async (tx) => {
      await recordAct(tx, act);
      return recordSetupPage(tx, act, {
        id,
        url: answer.url,
        gatewaySessionId: answer.gatewaySessionId,
        askAt: instantText(intent.pageEndsAt),
      });
    }, one);
    await ports.crash('card_change.after_outcome');
    if (recorded) return { kind: 'redirect', url: answer.url };
    // The answer took so long that the change was judged without it: nobody is led to that page.
    const known = { gatewaySessionId: answer.gatewaySessionId };
    const deadline = ports.clock.deadline(ports.gateway.semantics.callDeadlineMs);
    await ports.gateway.closeSetupPage(merchant.code, referenceOf(id), deadline, known);
    await ports.crash('card_change.after_gateway');
    await learnCardChanges(db, ports, merchant, [id], 'return');
    return { kind: 'look_again' };
  }

  ports.log.warn(
    { merchant: merchant.code, cardChangeId: id, answer: answer.kind, why: answer.why },
    'the gateway opened no page for a card',
  );
  const outcome =
    answer.kind === 'unknown'
      ? ({ kind: 'unknown', why: answer.why } as const)
      : ({ kind: 'canceled', why: answer.why } as const);
  await db.transaction(
    (tx) =>
      recordCardChanges(tx, {
        act,
        learnedBy: 'live',
        learned: [{ id, outcome }],
        ids: ports.ids,
        sealer: ports.sealer,
      }),
    one,
  );
  if (answer.kind === 'unknown') return { kind: 'waiting' };
  return { kind: 'try_again', retryAfterMs: answer.kind === 'not_executed' ? answer.retryAfterMs : null };
}
