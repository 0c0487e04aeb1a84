import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import type { Learned } from '../charges/charge.ts';
import { insertCharges, moveIntents } from '../charges/queries.ts';
import { recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db } from '../db.ts';
import { termsVersion } from '../enrolments/enrol.ts';
import type { Gateway, HostedPageAnswer, PageMethod } from '../gateways/gateway.ts';
import { referenceOf } from '../ids.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Crash, Ids, Log } from '../ports.ts';
import { assertState, Refusal } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import { type BillRow, stateOfBill } from './bill.ts';
import type { Link } from './find-link.ts';
import { learnFromGateway } from './learn.ts';
import { leavePage } from './leave-page.ts';
import { methodsOffered } from './methods.ts';
import { billOfLink, endFormerSessions, insertSession, merchantOf, recordHostedPage } from './queries.ts';
import { todayOf } from './view-bill.ts';

/** What the pay page takes from the outside world besides the database. */
export interface CheckoutPorts {
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
  gateway: Gateway;
  log: Log;
  crash: Crash;
}

export interface StartCheckout {
  link: Link;
  /** One that the page did not offer opens nothing. */
  method: PageMethod;
  /** The visitor ticked "pay automatically from now on" and so accepted its terms. Cards only. */
  enrol: boolean;
  language: 'ja' | 'en';
  /** Where the gateway sends the visitor back; made for the charge because no cookie may be there then. */
  returnUrlOf: (chargeId: string) => string;
}

export type Started =
  /** The gateway's page takes over. */
  | { kind: 'redirect'; url: string }
  /** Another attempt has no conclusive outcome yet, or this one has none: nobody pays a second time. */
  | { kind: 'waiting' }
  /** Nothing happened and nothing will: the visitor may press the button again. */
  | { kind: 'try_again'; retryAfterMs: number | null }
  /** Nothing may leave the building until the database knows again what it had forgotten. */
  | { kind: 'resting' }
  /** Paid, cancelled, expired, or an open page with another tick: the bill page says which. */
  | { kind: 'look_again' };

export const pageLivesMinutes = 30;
/** Less than this is not worth opening a page for: the link ends in a moment. */
const pageLivesAtLeastSeconds = 60;
/** When trace asks about an intent whose call was never answered. */
export const askAfterDeadlineMs = 60_000;

interface Leave {
  kind: 'leave';
  merchant: Merchant;
  bill: BillRow;
}

interface Intent {
  merchant: Merchant;
  act: Act;
  chargeId: string;
  intentId: string;
  amount: number;
  currency: string;
  deadline: Temporal.Instant;
  expiresAt: Temporal.Instant;
}

/** Intent, commit, call, outcome. At most one charge of a bill is under way, however many press the button at once. */
export async function startCheckout(db: Db, ports: CheckoutPorts, request: StartCheckout): Promise<Started> {
  let intent: Intent | Started | Leave;
  try {
    intent = await insertIntent(db, ports, request);
    if ('kind' in intent && intent.kind === 'leave') {
      await leavePage(db, ports, intent.merchant, intent.bill);
      await ports.clock.refresh();
      intent = await insertIntent(db, ports, request);
    }
  } catch (error) {
    if (error instanceof Refusal && error.code === 'SAFE_MODE') return { kind: 'resting' };
    throw error;
  }
  // Still open: the gateway has not said that it is closed.
  if ('kind' in intent) return intent.kind === 'leave' ? { kind: 'waiting' } : intent;
  await ports.crash('checkout.after_intent');
  const answer = await openPage(ports, request, intent);
  await ports.crash('checkout.after_gateway');
  return recordAnswer(db, ports, intent, answer);
}

async function insertIntent(
  db: Db,
  ports: CheckoutPorts,
  request: StartCheckout,
): Promise<Intent | Started | Leave> {
  const { link, method } = request;
  const enrol = request.enrol && method === 'card';
  const now = ports.clock.now();
  return db.transaction(
    async (tx): Promise<Intent | Started | Leave> => {
      const merchant = await merchantOf(tx, link.merchantId);
      const [invoice] = await lockInvoices(tx, link.merchantId, [link.invoiceId]);
      const bill = invoice && (await billOfLink(tx, link.merchantId, link.invoiceId, link.version));
      if (merchant === undefined || bill === undefined) return { kind: 'look_again' };

      const state = stateOfBill(bill, now, todayOf(merchant, now));
      if (state === 'waiting') return { kind: 'waiting' };
      if (state === 'in_payment') {
        assertState(bill.hosted_page_url, `charge ${bill.charge_id} is open without a page`);
        if (bill.session_method !== method) return { kind: 'leave', merchant, bill };
        // A page keeps the tick it was opened with: with another one the visitor must see first what goes on there.
        return bill.session_enrol === enrol
          ? { kind: 'redirect', url: bill.hosted_page_url }
          : { kind: 'look_again' };
      }
      const expiresAt = earlier(now.add({ minutes: pageLivesMinutes }), endOfLink(merchant, bill.expires_on));
      const isTooLate =
        Temporal.Instant.compare(expiresAt, now.add({ seconds: pageLivesAtLeastSeconds })) < 0;
      const isOffered = methodsOffered(merchant.settings, ports.gateway, bill.amount).includes(method);
      if (state !== 'owed' || isTooLate || !isOffered) return { kind: 'look_again' };

      const sessionId = ports.ids.uuid();
      const act: Act = {
        merchantId: merchant.id,
        id: ports.ids.uuid(),
        kind: 'visit',
        actor: `checkout session ${sessionId}`,
        at: now,
      };
      const intent: Intent = {
        merchant,
        act,
        chargeId: ports.ids.uuid(),
        intentId: ports.ids.uuid(),
        amount: bill.amount,
        currency: bill.currency,
        deadline: now.add({ milliseconds: ports.gateway.semantics.callDeadlineMs }),
        expiresAt,
      };
      await recordAct(tx, act);
      await endFormerSessions(tx, act, link.invoiceId);
      await insertSession(tx, act, {
        sessionId,
        intentId: intent.intentId,
        invoiceId: link.invoiceId,
        linkVersion: link.version,
        language: request.language,
        method,
        enrol,
        termsVersion: enrol ? termsVersion : null,
        expiresAt: instantText(expiresAt),
        amount: bill.amount,
        currency: bill.currency,
      });
      await insertCharges(tx, act, [
        {
          id: intent.chargeId,
          intentId: intent.intentId,
          invoiceId: link.invoiceId,
          sessionId,
          origin: 'link',
          gateway: ports.gateway.name,
          paymentMethodId: null,
          amount: bill.amount,
          currency: bill.currency,
          businessDate: todayOf(merchant, now),
          deadlineAt: instantText(intent.deadline),
          askAt: instantText(intent.deadline.add({ milliseconds: askAfterDeadlineMs })),
        },
      ]);
      return intent;
    },
    { merchantId: link.merchantId },
  );
}

async function openPage(
  ports: CheckoutPorts,
  request: StartCheckout,
  intent: Intent,
): Promise<HostedPageAnswer> {
  await ports.clock.refresh();
  if (Temporal.Instant.compare(ports.clock.now(), intent.deadline) > 0) {
    return { kind: 'not_executed', why: 'the deadline passed before the call', retryAfterMs: null };
  }
  return ports.gateway.openHostedPage(
    {
      account: intent.merchant.code,
      reference: referenceOf(intent.chargeId),
      invoiceId: request.link.invoiceId,
      amount: intent.amount,
      currency: intent.currency,
      returnUrl: request.returnUrlOf(intent.chargeId),
      language: request.language,
      merchantName: intent.merchant.settings.name[request.language],
      method: request.method,
      saveMethod: request.enrol && request.method === 'card',
      expiresAt: intent.expiresAt.toString({ smallestUnit: 'millisecond' }),
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
  const merchantId = intent.merchant.id;
  const act: Act = { ...intent.act, id: ports.ids.uuid(), at: ports.clock.now() };
  if (answer.kind === 'opened') {
    const recorded = await db.transaction(
      async (tx) => {
        await recordAct(tx, act);
        const isRecorded = await recordHostedPage(tx, act, {
          chargeId: intent.chargeId,
          url: answer.url,
          gatewaySessionId: answer.gatewaySessionId,
          askAt: instantText(intent.expiresAt),
        });
        if (isRecorded) await moveIntents(tx, act, [intent.intentId], 'requires_action');
        return isRecorded;
      },
      { merchantId },
    );
    await ports.crash('checkout.after_outcome');
    if (recorded) return { kind: 'redirect', url: answer.url };
    // The answer took so long that the charge was judged without it: a page that nobody waits for must take no money.
    await ports.gateway.closeHostedPage(
      intent.merchant.code,
      referenceOf(intent.chargeId),
      ports.clock.deadline(ports.gateway.semantics.callDeadlineMs),
      { gatewaySessionId: answer.gatewaySessionId },
    );
    await ports.crash('checkout.after_gateway');
    await learnFromGateway(db, ports, intent.merchant, [intent.chargeId], 'return');
    return { kind: 'look_again' };
  }

  ports.log.warn(
    { merchant: intent.merchant.code, chargeId: intent.chargeId, answer: answer.kind, why: answer.why },
    'the gateway opened no page',
  );
  const outcome: Learned['outcome'] =
    answer.kind === 'unknown' ? { kind: 'unknown', why: answer.why } : { kind: 'canceled', why: answer.why };
  await db.transaction(
    (tx) =>
      recordOutcomes(tx, {
        act,
        timezone: intent.merchant.settings.timezone,
        learnedBy: 'live',
        learned: [{ chargeId: intent.chargeId, outcome }],
        ids: ports.ids,
        sealer: ports.sealer,
      }),
    { merchantId },
  );
  if (answer.kind === 'unknown') return { kind: 'waiting' };
  return { kind: 'try_again', retryAfterMs: answer.kind === 'not_executed' ? answer.retryAfterMs : null };
}

function endOfLink(merchant: Merchant, expiresOn: string): Temporal.Instant {
  return Temporal.PlainDate.from(expiresOn)
    .add({ days: 1 })
    .toZonedDateTime({ timeZone: merchant.settings.timezone })
    .toInstant();
}

function earlier(one: Temporal.Instant, other: Temporal.Instant): Temporal.Instant {
  return Temporal.Instant.compare(one, other) <= 0 ? one : other;
}
