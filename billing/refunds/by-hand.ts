import { Temporal } from 'temporal-polyfill';
import { commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db } from '../db.ts';
import { idBehind, referenceOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { assertState, Refusal } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import { callRefunds } from './call.ts';
import { beginRefunds, type GiveBackPorts } from './give-back.ts';
import {
  type KnownPayment,
  lockPayment,
  paymentsOf,
  type RefundOfPayment,
  refundsById,
  refundsOfPayment,
} from './queries.ts';
import { recordRefunds } from './record-refunds.ts';
import { byMerchant, givableMethods, type RefundState } from './refund.ts';

const reasonCharacters = 200;
const isUuid = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);

/** A payment of which something may go back, with what has gone back of it before. */
export interface RefundablePayment extends KnownPayment {
  before: RefundOfPayment[];
}

/**
 * The payment that a person means: by a bill's number, or by the payment's id or reference, which a bill with two payments
 * needs. Refusals REFUND_NO_PAYMENT, REFUND_WHICH.
 */
export async function paymentMeant(
  db: Db,
  merchant: Merchant,
  billOrPayment: string,
): Promise<RefundablePayment> {
  const id = isUuid(billOrPayment) ? billOrPayment : idBehind(billOrPayment);
  const found = await paymentsOf(db, merchant.id, { billingNumber: billOrPayment, id });
  const context = { merchant: merchant.code };
  if (found.length === 0) {
    throw new Refusal(
      'REFUND_NO_PAYMENT',
      `${merchant.code} has no payment of ${billOrPayment.slice(0, 60)}`,
      {
        next: 'seikyu explain <billing number> shows what a bill was paid with. A credit that paid it is money of another bill.',
        context,
        exitCode: 2,
      },
    );
  }
  // Also where only one has money left: the same command given again would mean another payment.
  const [payment, another] = found;
  assertState(payment, 'a payment was found and is not there');
  if (another !== undefined) {
    throw new Refusal('REFUND_WHICH', `${payment.billing_number} was paid ${found.length} times`, {
      next: `Say which payment: ${found.map(({ charge_id, is_credit, left }) => `${charge_id} (${is_credit ? 'the surplus, ' : ''}${left} left)`).join(', ')}`,
      context,
      exitCode: 2,
    });
  }
  return { ...payment, before: await refundsOfPayment(db, merchant.id, payment.charge_id) };
}

/**
 * The same, where the gateway can send it back. Refusals besides: REFUND_NOT_BY_GATEWAY, REFUND_RECALLED.
 */
export async function refundablePayment(
  db: Db,
  merchant: Merchant,
  gateway: string,
  billOrPayment: string,
): Promise<RefundablePayment> {
  const payment = await paymentMeant(db, merchant, billOrPayment);
  const context = { merchant: merchant.code };
  if (!givableMethods.includes(payment.method) || payment.gateway !== gateway) {
    const isOther = givableMethods.includes(payment.method);
    throw new Refusal(
      'REFUND_NOT_BY_GATEWAY',
      isOther
        ? `the payment was made at ${payment.gateway}, and this system is set to ${gateway}`
        : `a payment by ${payment.method} has no card to which the gateway could send it back`,
      {
        next: isOther
          ? 'Give the command where that gateway is set: SEIKYU_GATEWAY.'
          : 'The merchant sends it by bank transfer, and then it is entered here: seikyu refund given',
        context: { ...context, charge: payment.charge_id, method: payment.method },
        exitCode: 2,
      },
    );
  }
  if (payment.recalled) {
    throw new Refusal('REFUND_RECALLED', `the file of ${payment.billing_number} is recalled`, {
      next: 'A recall gives back all that was taken, by itself. seikyu file recall <name> shows how far it is.',
      context,
      exitCode: 2,
    });
  }
  return payment;
}

export interface RefundByHand {
  chargeId: string;
  /** In minor units: the whole of what is left, or a part. */
  amount: number;
  /** One line, without personal data. */
  reason: string;
  by: string;
  /** The same amount for the same reason went back before, and is to go back once more. */
  again: boolean;
}

export interface RefundedByHand {
  id: string;
  /** unknown: `trace` asks. failed: the gateway will not. canceled: certainly nothing happened. */
  state: RefundState;
  code: string | null;
  /** What is left of the payment. */
  left: number;
}

/**
 * Gives a payment or a part of it back now: intent, commit, call, outcome. Killed after its intent, it is asked about by
 * `trace`; given again with the same amount and reason it is refused unless certainly nothing has gone back. Refusals
 * REFUND_REASON, REFUND_UNDER_WAY, REFUND_MADE_BEFORE, REFUND_TOO_MUCH, SAFE_MODE.
 */
export async function refundByHand(
  ports: GiveBackPorts,
  merchant: Merchant,
  wish: RefundByHand,
): Promise<RefundedByHand> {
  const { chargeId, amount, by, again } = wish;
  const reason = judgeReason(wish.reason);
  const act = await commandAct(ports, merchant.id, by);
  const refunds = await ports.db.transaction(async (tx) => {
    await refuseInSafeMode(tx);
    const payment = await lockPayment(tx, merchant.id, chargeId);
    assertState(payment, `payment ${chargeId} is gone`);
    const before = await refundsOfPayment(tx, merchant.id, chargeId);
    judge(payment, before, { amount, reason, again });
    await recordAct(tx, act);
    const { callDeadlineMs } = ports.gateway.semantics;
    const intents = { ids: ports.ids, callDeadlineMs };
    return beginRefunds(tx, intents, act, { by, reason }, [{ ...payment, amount }]);
  });
  await ports.crash('refund.after_intent');
  const learned = await callRefunds(ports, merchant.code, refunds);
  await ports.crash('refund.after_gateway');
  const outcomeAct = await commandAct(ports, merchant.id, by);
  const ended = await ports.db.transaction(async (tx) => {
    const { timezone } = merchant.settings;
    await recordRefunds(tx, { act: outcomeAct, ids: ports.ids, timezone, learned });
    const [refund] = await refundsById(
      tx,
      merchant.id,
      refunds.map(({ id }) => id),
    );
    const payment = await lockPayment(tx, merchant.id, chargeId);
    assertState(refund && payment, `the refund of ${chargeId} is gone`);
    return { id: refund.id, state: refund.state, code: refund.code, left: payment.left };
  });
  await ports.crash('refund.after_outcome');
  return ended;
}

export interface GivenByMerchant extends RefundByHand {
  /** YYYY-MM-DD, the merchant's day on which the money left its account. */
  givenOn: string;
  /** Under which the merchant was told of it, by a database that has forgotten it since. */
  reference?: string;
}

/**
 * Enters that the merchant gave a payment or a part of it back itself, by bank transfer say: what a shop or a bank took, or
 * what the gateway refuses to give. No gateway hears of it, so a database that was put back may learn it before anything goes
 * out. Refusals REFUND_REASON, REFUND_UNDER_WAY, REFUND_MADE_BEFORE, REFUND_TOO_MUCH, REFUND_DATE, REFUND_REFERENCE.
 */
export async function enterGivenBack(
  ports: GiveBackPorts,
  merchant: Merchant,
  wish: GivenByMerchant,
): Promise<RefundedByHand> {
  const { chargeId, amount, by, again, givenOn } = wish;
  const { timezone } = merchant.settings;
  const reason = judgeReason(wish.reason);
  const act = await commandAct(ports, merchant.id, by);
  const id = wish.reference === undefined ? ports.ids.uuid() : idBehind(wish.reference);
  return ports.db.transaction(async (tx) => {
    const payment = await lockPayment(tx, merchant.id, chargeId);
    assertState(payment, `payment ${chargeId} is gone`);
    if (id === null || (await refundsById(tx, merchant.id, [id])).length > 0) {
      throw new Refusal(
        'REFUND_REFERENCE',
        'the reference is none of ours, or a refund here has it already',
        {
          next: 'It stands in the adjustment file that told the merchant of the refund. Leave --reference out for a new one.',
          context: { bill: payment.billing_number, charge: payment.charge_id },
          exitCode: 2,
        },
      );
    }
    judge(payment, await refundsOfPayment(tx, merchant.id, chargeId), { amount, reason, again });
    const today = businessDateOf(act.at, timezone).toString();
    const at = instantOn(givenOn, timezone);
    if (at === null || givenOn < payment.paid_on || givenOn > today) {
      throw new Refusal('REFUND_DATE', 'the day is not one on which this payment can have gone back', {
        next: `Give --on as YYYY-MM-DD, from ${payment.paid_on} to ${today}.`,
        context: { bill: payment.billing_number, charge: payment.charge_id },
        exitCode: 2,
      });
    }
    await recordAct(tx, act);
    const [refund] = await beginRefunds(
      tx,
      { ids: { uuid: () => id }, callDeadlineMs: 0 },
      act,
      { by, reason },
      [{ ...payment, gateway: byMerchant, amount }],
    );
    assertState(refund, `the refund of ${chargeId} is gone`);
    const { currency } = payment;
    const refunded = { gatewayRefundId: referenceOf(refund.id), amount, currency, refundedAt: at };
    await recordRefunds(tx, {
      act,
      ids: ports.ids,
      timezone,
      learned: [{ refund, outcome: { kind: 'succeeded', refunded } }],
    });
    return { id: refund.id, state: 'succeeded', code: null, left: payment.left - amount };
  });
}

/** Noon of a day as an ISO 8601 instant; null: no such day. */
function instantOn(day: string, timezone: string): string | null {
  if (!/^\d{4}-\d{2}-\d{2}$/.test(day)) return null;
  try {
    const date = Temporal.PlainDate.from(day, { overflow: 'reject' });
    return date.toZonedDateTime({ timeZone: timezone, plainTime: '12:00' }).toInstant().toString();
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

function judgeReason(text: string): string {
  const reason = text.trim();
  if (reason !== '' && reason.length <= reasonCharacters && !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(reason))
    return reason;
  throw new Refusal('REFUND_REASON', `the reason is a line of 1 to ${reasonCharacters} characters`, {
    next: 'Say why, such as --reason "billed twice, ticket 4711". No personal data.',
    exitCode: 2,
  });
}

/** With the payment's row locked: nobody else begins a refund of it, or puts it on a bill, before the intent is there. */
function judge(
  payment: KnownPayment,
  before: readonly RefundOfPayment[],
  { amount, reason, again }: Pick<RefundByHand, 'amount' | 'reason' | 'again'>,
): void {
  const open = before.find(({ state }) => state === 'processing' || state === 'unknown');
  const context = { bill: payment.billing_number, charge: payment.charge_id };
  if (open !== undefined) {
    throw new Refusal(
      'REFUND_UNDER_WAY',
      `a refund of this payment over ${open.amount}, begun at ${open.started_at}, has no outcome yet`,
      {
        next: 'trace asks the gateway, every five minutes where a schedule runs; seikyu run trace now. Then look again: seikyu refund list',
        context,
        exitCode: 3,
      },
    );
  }
  const same = before.find(
    (each) => each.state === 'succeeded' && each.amount === amount && each.reason === reason,
  );
  if (same !== undefined && !again) {
    throw new Refusal(
      'REFUND_MADE_BEFORE',
      `${amount} went back for this reason at ${same.started_at}, asked for by ${same.asked_by}`,
      {
        next: 'Nothing was changed. If so much is to go back once more, add --again.',
        context,
        exitCode: 2,
      },
    );
  }
  if (amount < 1 || amount > payment.left) {
    const used = payment.reused > 0 ? `, ${payment.reused} pay another bill` : '';
    throw new Refusal(
      'REFUND_TOO_MUCH',
      `of ${payment.amount} that were taken ${payment.left} are left: ${payment.refunded} went back${used}`,
      { next: `Give --amount from 1 to ${payment.left}.`, context, exitCode: 2 },
    );
  }
}
