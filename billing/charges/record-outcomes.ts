import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { type AdjustmentRow, addAdjustmentRows } from '../adjustments/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import { type Verdict, verdictOf } from '../dunning/verdict.ts';
import { enrolFromCharges } from '../enrolments/enrol.ts';
import type { Captured, DeclineCodes } from '../gateways/gateway.ts';
import { isFinal, type LockedInvoice } from '../invoices/invoice.ts';
import { lockInvoices, moveInvoices, setAgenda } from '../invoices/queries.ts';
import type { Posting } from '../ledger/ledger.ts';
import { post } from '../ledger/queries.ts';
import { parkBills } from '../parked/park-bills.ts';
import type { Ids } from '../ports.ts';
import { takeUpRecalls } from '../recalls/queries.ts';
import { assertState } from '../refusal.ts';
import { addResultRows, type ResultRow } from '../results/queries.ts';
import type { Sealer } from '../sealing.ts';
import type { Learned, LearnedBy } from './charge.ts';
import { coverBills } from './cover.ts';
import {
  askLater,
  type ChargeDecision,
  type ChargeInvoice,
  completeSessions,
  type DecidedCharge,
  decideCharges,
  endMethods,
  insertPayments,
  invoicesOfCharges,
  moveIntents,
  type NewPayment,
  paidBefore,
  preliminaryCovers,
  releaseLocks,
} from './queries.ts';

export interface RecordOutcomes {
  act: Act;
  timezone: string;
  learnedBy: LearnedBy;
  learned: readonly Learned[];
  ids: Ids;
  sealer: Sealer;
}

export interface Recorded {
  succeeded: number;
  failed: number;
  canceled: number;
  unknown: number;
  /** Already decided by another way of learning it: nothing was written. */
  known: number;
  parked: number;
}

type Declined = ChargeDecision & { codes: DeclineCodes; gateway: string };

/** First question about an unknown outcome: a timed-out gateway has usually recovered after a minute. */
const firstAskAfterMs = 60_000;

/**
 * The one way an outcome becomes true. The live answer, webhook, customer's return, trace and settlement report all end
 * here, in the caller's transaction; the way it was learned never changes the end state. Set-based: one batch, a fixed
 * number of statements.
 */
export async function recordOutcomes(tx: Tx, input: RecordOutcomes): Promise<Recorded> {
  const { act, learned } = input;
  const recorded: Recorded = { succeeded: 0, failed: 0, canceled: 0, unknown: 0, known: 0, parked: 0 };
  if (learned.length === 0) return recorded;
  await recordAct(tx, act);
  const chargeIds = learned.map((item) => item.chargeId);
  const asked = new Map(
    (await invoicesOfCharges(tx, act.merchantId, chargeIds)).map((row) => [row.charge_id, row]),
  );
  const invoiceIds = [...new Set([...asked.values()].map((row) => row.invoice_id))];
  const invoices = new Map(
    (await lockInvoices(tx, act.merchantId, invoiceIds)).map((invoice) => [invoice.id, invoice]),
  );

  const captured = new Map<string, Captured>();
  const succeeded: ChargeDecision[] = [];
  const failed: Declined[] = [];
  const canceled: ChargeDecision[] = [];
  const unknown: ChargeDecision[] = [];
  const differing: string[] = [];
  for (const { chargeId, outcome } of learned) {
    const wish = asked.get(chargeId);
    assertState(wish, `charge ${chargeId} is not known`);
    if (
      outcome.kind === 'succeeded' &&
      (outcome.captured.amount !== wish.amount || outcome.captured.currency !== wish.currency)
    ) {
      // Neither paid nor failed: the bill stays locked until a person has looked at both sides.
      unknown.push({ ...undecided(chargeId), verdict: 'unknown' });
      differing.push(
        `${outcome.captured.amount} ${outcome.captured.currency} for charge ${chargeId}, asked were ${wish.amount} ${wish.currency}`,
      );
    } else if (outcome.kind === 'succeeded') {
      captured.set(chargeId, outcome.captured);
      succeeded.push({ ...undecided(chargeId), gatewayChargeId: outcome.captured.gatewayChargeId });
    } else if (outcome.kind === 'canceled' || (outcome.kind === 'failed' && wish.origin === 'barcode')) {
      // A shop that takes its word back has declined nobody.
      canceled.push(undecided(chargeId));
    } else if (outcome.kind === 'failed') {
      failed.push({
        ...undecided(chargeId),
        gatewayChargeId: outcome.gatewayChargeId,
        gatewayCode: outcome.codes.gatewayCode,
        network: outcome.codes.network,
        networkCode: outcome.codes.networkCode,
        adviceCode: outcome.codes.adviceCode,
        codes: outcome.codes,
        gateway: wish.gateway,
      });
    } else {
      unknown.push({ ...undecided(chargeId), verdict: 'unknown' });
    }
  }

  if (differing.length > 0) {
    await raiseAlert(tx, input.ids.uuid(), act.at, {
      merchantId: act.merchantId,
      level: 'now',
      cause: 'AMOUNT_DIFFERS',
      message: `the gateway took ${differing[0]}`,
      occurrences: differing.length,
    });
  }

  // Before anything moves. Only a lock that is a charge's of another kind of news can be a shop's.
  const mayBeCovered = [...invoices.values()].some(({ locked_by }) => {
    const holder = locked_by === null ? undefined : asked.get(locked_by);
    return locked_by !== null && holder?.origin !== 'link' && holder?.origin !== 'auto';
  });
  const covers = mayBeCovered ? await preliminaryCovers(tx, act.merchantId, invoiceIds) : new Map();

  const paid = await decideCharges(tx, act, 'succeeded', input.learnedBy, succeeded);
  const displaced = await settlePaid(tx, input, paid, { captured, invoices, asked, covers });
  const declined = await recordDeclines(tx, input, failed, invoices);
  const withoutEffect = await decideCharges(tx, act, 'canceled', input.learnedBy, canceled);
  await takeBackPreliminary(
    tx,
    input,
    withoutEffect.filter((charge) => covers.get(charge.invoice_id) === charge.id),
    invoices,
  );
  await moveIntents(tx, act, intents(withoutEffect), 'requires_payment_method');
  const open = await decideCharges(tx, act, 'unknown', input.learnedBy, unknown);
  await askLater(
    tx,
    act.merchantId,
    open.map((charge) => ({
      chargeId: charge.id,
      askAt: instantText(act.at.add({ milliseconds: firstAskAfterMs })),
    })),
  );
  await releaseLocks(tx, act.merchantId, [
    ...displaced,
    ...[...paid, ...declined.charges, ...withoutEffect].map((charge) => charge.id),
  ]);
  // A shop's word that had to wait for another charge counts now.
  await coverBills(
    tx,
    act,
    today(input),
    [...declined.charges, ...withoutEffect].map((charge) => charge.invoice_id),
  );

  recorded.succeeded = paid.length;
  recorded.failed = declined.charges.length;
  recorded.canceled = withoutEffect.length;
  recorded.unknown = open.length;
  recorded.parked = declined.parked;
  recorded.known =
    learned.length - paid.length - declined.charges.length - withoutEffect.length - open.length;
  return recorded;
}

interface Known {
  captured: ReadonlyMap<string, Captured>;
  invoices: ReadonlyMap<string, LockedInvoice>;
  asked: ReadonlyMap<string, ChargeInvoice>;
  /** By bill: the charge by which a shop says that it is paid. */
  covers: Map<string, string>;
}

/** Returns the charges whose preliminary word was overtaken by money that is certain: they hold their bills no more. */
async function settlePaid(
  tx: Tx,
  input: RecordOutcomes,
  charges: readonly DecidedCharge[],
  { captured, invoices, asked, covers }: Known,
): Promise<string[]> {
  if (charges.length === 0) return [];
  const { act } = input;
  const displaced: string[] = [];
  const payments: NewPayment[] = [];
  const postings: Posting[] = [];
  const results: ResultRow[] = [];
  const adjustments: AdjustmentRow[] = [];
  let late = 0;
  let over = 0;
  // A returned bill stays `unpaid` when money comes after all: only its allocation tells that it came before.
  const paidInvoices = await paidBefore(
    tx,
    act.merchantId,
    [...invoices.values()].filter((invoice) => invoice.state === 'unpaid').map((invoice) => invoice.id),
  );
  for (const charge of charges) {
    const money = captured.get(charge.id);
    const invoice = invoices.get(charge.invoice_id);
    assertState(money && invoice, `charge ${charge.id} succeeded without its capture or its bill`);
    const collectedOn = Temporal.Instant.from(money.capturedAt)
      .toZonedDateTimeISO(input.timezone)
      .toPlainDate()
      .toString();
    const owed = !isFinal(invoice.state) && !paidInvoices.has(invoice.id);
    const afterReturn = invoice.state === 'unpaid' && !paidInvoices.has(invoice.id);
    if (owed || afterReturn) paidInvoices.add(invoice.id);
    payments.push({
      chargeId: charge.id,
      invoiceId: invoice.id,
      customerId: invoice.customer_id,
      amount: money.amount,
      currency: money.currency,
      method: money.method,
      collectedOn,
      allocated: owed || afterReturn,
      creditReason: invoice.state === 'cancelled' ? 'bill_cancelled' : 'paid_twice',
    });
    const posting = {
      entryId: charge.id,
      invoiceId: invoice.id,
      customerId: invoice.customer_id,
      amount: money.amount,
      currency: money.currency,
      eventOn: collectedOn,
    };
    const cover = owed ? covers.get(invoice.id) : undefined;
    if (cover !== undefined && cover !== charge.id) {
      postings.push({ ...posting, event: 'preliminary_cancelled', entryId: cover });
      displaced.push(cover);
    }
    if (owed) covers.delete(invoice.id);
    const event = cover === charge.id ? 'preliminary_confirmed' : 'paid';
    postings.push({ ...posting, event: owed ? event : afterReturn ? 'paid_after_return' : 'overpaid' });
    if (owed) {
      results.push({
        invoiceId: invoice.id,
        outcome: 'paid',
        causeId: charge.id,
        reason: '',
        method: money.method,
        amount: invoice.amount,
        amountReceived: money.amount,
        // At a shop the customer paid days before the money was certain.
        collectedOn:
          charge.origin === 'barcode' ? (asked.get(charge.id)?.business_date ?? collectedOn) : collectedOn,
      });
    } else {
      if (afterReturn) late += 1;
      else over += 1;
      adjustments.push({
        invoiceId: invoice.id,
        kind: afterReturn ? 'late_payment' : 'overpayment',
        causeId: charge.id,
        amount: money.amount,
        sign: '+',
        collectedOn,
      });
    }
  }
  await tellOfSurplus(tx, input, late, over);
  await insertPayments(tx, act, payments);
  await takeUpRecalls(
    tx,
    act,
    payments.map((payment) => payment.invoiceId),
  );
  const due = results.map((row) => row.invoiceId);
  const moved = await moveInvoices(tx, act, due, 'paid', 'paid');
  assertState(moved.length === due.length, `${moved.length} bills became paid of ${due.length} locked ones`);
  await post(tx, act, today(input), postings);
  await addResultRows(tx, act.merchantId, act.at, results);
  await addAdjustmentRows(tx, act.merchantId, act.at, adjustments);
  // Sessions before intents, as everywhere: trace ends both in this order.
  await completeSessions(
    tx,
    act.merchantId,
    charges.flatMap((charge) => charge.session_id ?? []),
  );
  await moveIntents(tx, act, intents(charges), 'succeeded');
  await enrolFromCharges(tx, {
    act,
    ids: input.ids,
    sealer: input.sealer,
    saved: charges.flatMap((charge) => {
      const savedMethod = captured.get(charge.id)?.savedMethod;
      return savedMethod && charge.session_id
        ? [{ chargeId: charge.id, sessionId: charge.session_id, gateway: charge.gateway, savedMethod }]
        : [];
    }),
  });
  return displaced;
}

/** The shop's word is taken back: the bill is owed again, and the merchant hears so. */
async function takeBackPreliminary(
  tx: Tx,
  input: RecordOutcomes,
  charges: readonly DecidedCharge[],
  invoices: ReadonlyMap<string, LockedInvoice>,
): Promise<void> {
  if (charges.length === 0) return;
  const { act } = input;
  const rows = charges.map((charge) => {
    const invoice = invoices.get(charge.invoice_id);
    assertState(invoice, `charge ${charge.id} has no bill`);
    return { charge, invoice };
  });
  await post(
    tx,
    act,
    today(input),
    rows.map(({ charge, invoice }) => ({
      event: 'preliminary_cancelled',
      entryId: charge.id,
      invoiceId: invoice.id,
      customerId: invoice.customer_id,
      amount: charge.amount,
      currency: charge.currency,
      eventOn: today(input),
    })),
  );
  await addResultRows(
    tx,
    act.merchantId,
    act.at,
    rows.map(({ charge, invoice }) => ({
      invoiceId: invoice.id,
      outcome: 'preliminary_cancelled',
      causeId: charge.id,
      reason: '',
      method: 'barcode',
      amount: invoice.amount,
      amountReceived: 0,
      collectedOn: null,
    })),
  );
}

/** One alert each, however many came at once. */
async function tellOfSurplus(
  tx: Tx,
  { act, ids }: RecordOutcomes,
  late: number,
  over: number,
): Promise<void> {
  const tell = (cause: string, message: string, occurrences: number) =>
    raiseAlert(tx, ids.uuid(), act.at, {
      merchantId: act.merchantId,
      level: 'daily',
      cause,
      message,
      occurrences,
    });
  if (late > 0) {
    const message = 'money came for a bill that was already returned unpaid; it is booked on that bill';
    await tell('LATE_PAYMENT', message, late);
  }
  if (over > 0) {
    const message = 'money came for a bill that is paid or cancelled; it is kept as the customer’s credit';
    await tell('OVERPAID', message, over);
  }
}

async function recordDeclines(
  tx: Tx,
  input: RecordOutcomes,
  failed: readonly Declined[],
  invoices: ReadonlyMap<string, LockedInvoice>,
): Promise<{ charges: DecidedCharge[]; parked: number }> {
  if (failed.length === 0) return { charges: [], parked: 0 };
  const { act } = input;
  const verdicts = new Map<string, Verdict>();
  const decisions = failed.map((decision): ChargeDecision => {
    const verdict = verdictOf({ gateway: decision.gateway, codes: decision.codes, at: act.at });
    verdicts.set(decision.id, verdict);
    const notBefore = verdict.kind === 'retry_at' ? verdict.notBefore : null;
    return {
      ...decision,
      verdict: verdict.kind,
      verdictRule: JSON.stringify('rule' in verdict ? verdict.rule : null),
      retryNotBefore: notBefore === null ? null : instantText(notBefore),
    };
  });
  const charges = await decideCharges(tx, act, 'failed', input.learnedBy, decisions);
  await moveIntents(tx, act, intents(charges), 'requires_payment_method');
  // The network forbids another try on this card, not only for this bill: the next ones go to a link by themselves.
  await endMethods(
    tx,
    act,
    charges.filter(({ id }) => verdicts.get(id)?.kind === 'never_this_method').map(({ id }) => id),
  );
  const automatic = charges.filter(
    (charge) => charge.origin === 'auto' && invoices.get(charge.invoice_id)?.state === 'open',
  );
  await setAgenda(
    tx,
    act.merchantId,
    automatic.map((charge) => ({ invoiceId: charge.invoice_id, act: 'dun', actOn: today(input) })),
  );
  const withoutRule = automatic.filter((charge) => verdicts.get(charge.id)?.kind === 'no_rule');
  await parkBills(
    tx,
    act,
    input.ids,
    withoutRule.map((charge) => {
      const codes = failed.find((decision) => decision.id === charge.id)?.codes;
      return {
        invoiceId: charge.invoice_id,
        reason: 'NO_RULE_FOR_CODE',
        context: {
          gateway: charge.gateway,
          gatewayCode: codes?.gatewayCode ?? null,
          network: codes?.network ?? null,
          networkCode: codes?.networkCode ?? null,
          adviceCode: codes?.adviceCode ?? null,
        },
      };
    }),
  );
  return { charges, parked: withoutRule.length };
}

function intents(charges: readonly DecidedCharge[]): string[] {
  return charges.map((charge) => charge.intent_id);
}

function today(input: RecordOutcomes): string {
  return input.act.at.toZonedDateTimeISO(input.timezone).toPlainDate().toString();
}

function undecided(chargeId: string): ChargeDecision {
  return {
    id: chargeId,
    gatewayChargeId: null,
    gatewayCode: null,
    network: null,
    networkCode: null,
    adviceCode: null,
    verdict: null,
    verdictRule: null,
    retryNotBefore: null,
  };
}
