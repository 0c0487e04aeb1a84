import { Stripe } from 'stripe';
import { Temporal } from 'temporal-polyfill';
import { z } from 'zod';
import type {
  Captured,
  ChargeOutcome,
  DeclineCodes,
  LookupAnswer,
  RefundOutcome,
  SavedMethod,
  SetupLookup,
} from './gateway.ts';
import { LineBroken } from './stripe-http.ts';

/** Names under which our own ids stand in Stripe's metadata. */
export const ourKeys = {
  reference: 'seikyu_reference',
  merchant: 'seikyu_merchant',
  invoice: 'seikyu_invoice',
  /** `page`: made by a hosted page; `charge`: without the card's holder; `setup`: a card was kept and nothing paid. */
  made: 'seikyu_made',
} as const;

// What is read of Stripe's objects and nothing else: an answer of another shape is no answer.
const metadata = z.record(z.string(), z.string());
const text = z.string().min(1);
const seconds = z.int().min(0);

export const charge = z.object({
  object: z.literal('charge'),
  id: text,
  status: z.string(),
  captured: z.boolean(),
  amount: z.int().min(0),
  amount_captured: z.int().min(0),
  amount_refunded: z.int().min(0),
  currency: text,
  created: seconds,
  metadata,
  payment_method_details: z
    .object({
      card: z
        .object({
          brand: z.string().nullable(),
          last4: z.string().nullable(),
          exp_month: z.int(),
          exp_year: z.int(),
          network_transaction_id: z.string().nullish(),
          three_d_secure: z.object({ electronic_commerce_indicator: z.string().nullish() }).nullish(),
        })
        .nullish(),
    })
    .nullable(),
});

const cardDetails = z.object({
  brand: z.string().nullable(),
  last4: z.string().nullable(),
  exp_month: z.int().nullable(),
  exp_year: z.int().nullable(),
});

const decline = z.object({
  type: z.string(),
  code: z.string().nullish(),
  decline_code: z.string().nullish(),
  network_decline_code: z.string().nullish(),
  advice_code: z.string().nullish(),
  network_advice_code: z.string().nullish(),
  charge: z.string().nullish(),
  payment_method: z.object({ card: z.object({ brand: z.string().nullish() }).nullish() }).nullish(),
});

export const paymentIntent = z.object({
  object: z.literal('payment_intent'),
  id: text,
  status: text,
  amount: z.int().min(0),
  currency: text,
  metadata,
  customer: z.string().nullable(),
  payment_method: z.string().nullable(),
  setup_future_usage: z.string().nullable(),
  last_payment_error: decline.nullable(),
  latest_charge: charge.nullable(),
});
export type PaymentIntent = z.infer<typeof paymentIntent>;

export const session = z.object({
  object: z.literal('checkout.session'),
  id: text,
  status: z.string().nullable(),
  url: z.string().nullable(),
  client_reference_id: z.string().nullable(),
  payment_intent: paymentIntent.nullable(),
});
export type Session = z.infer<typeof session>;

const setupIntent = z.object({
  object: z.literal('setup_intent'),
  id: text,
  status: text,
  customer: z.string().nullable(),
  payment_method: z.object({ id: text, card: cardDetails.nullish() }).nullable(),
  last_setup_error: decline.nullable(),
  latest_attempt: z
    .object({
      payment_method_details: z.object({
        card: z
          .object({
            three_d_secure: z.object({ electronic_commerce_indicator: z.string().nullish() }).nullish(),
          })
          .nullish(),
      }),
    })
    .nullable(),
});

export const setupSession = z.object({
  object: z.literal('checkout.session'),
  id: text,
  mode: z.literal('setup'),
  status: z.string().nullable(),
  client_reference_id: z.string().nullable(),
  setup_intent: setupIntent.nullable(),
});
export type SetupSession = z.infer<typeof setupSession>;

export const refund = z.object({
  object: z.literal('refund'),
  id: text,
  status: z.string().nullable(),
  amount: z.int().min(0),
  currency: text,
  created: seconds,
  failure_reason: z.string().nullish(),
  metadata: metadata.nullable(),
});

const dispute = z.object({ object: z.literal('dispute'), id: text, charge: text });

export const balanceTransaction = z.object({
  id: text,
  type: text,
  reporting_category: text,
  amount: z.int(),
  currency: text,
  created: seconds,
  fee: z.int(),
  net: z.int(),
  fee_details: z.array(z.object({ amount: z.int(), type: z.string() })),
  // Of the other kinds of source only the id matters, and of those not even that.
  source: z.union([charge, refund, dispute, z.unknown().transform(() => null)]),
});

export const payout = z.object({
  id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  status: text,
  amount: z.int(),
  currency: text,
  arrival_date: seconds,
  reconciliation_status: z.string(),
});

/** Seconds of the epoch as an ISO 8601 instant. */
export function instantOf(epochSeconds: number): string {
  return Temporal.Instant.fromEpochMilliseconds(epochSeconds * 1000).toString({
    smallestUnit: 'millisecond',
  });
}

/** Stripe writes `jpy`. Both count in the currency's smallest unit, and the yen has no smaller one. */
export const currencyOf = (stripes: string): string => stripes.toUpperCase();

/** `cus_...:pm_...`: a saved card can be charged only with the customer that it hangs on. */
export const tokenOf = (customer: string, paymentMethod: string): string => `${customer}:${paymentMethod}`;

export function methodBehind(token: string): { customer: string; paymentMethod: string } | null {
  const match = /^(cus_[A-Za-z0-9]+):(pm_[A-Za-z0-9_]+)$/.exec(token);
  const [, customer, paymentMethod] = match ?? [];
  return customer !== undefined && paymentMethod !== undefined ? { customer, paymentMethod } : null;
}

export function capturedOf(intent: PaymentIntent): Captured | null {
  const money = intent.latest_charge;
  if (intent.status !== 'succeeded' || money?.status !== 'succeeded' || !money.captured) return null;
  return {
    gatewayChargeId: money.id,
    amount: money.amount_captured,
    currency: currencyOf(money.currency),
    capturedAt: instantOf(money.created),
    method: 'card',
    savedMethod: savedBy(intent, money),
  };
}

function savedBy(intent: PaymentIntent, money: z.infer<typeof charge>): SavedMethod | null {
  const card = money.payment_method_details?.card;
  if (intent.setup_future_usage !== 'off_session' || !card) return null;
  if (intent.customer === null || intent.payment_method === null) return null;
  return {
    token: tokenOf(intent.customer, intent.payment_method),
    brand: card.brand ?? 'unknown',
    lastFour: card.last4 ?? '',
    expires: `${card.exp_year}-${String(card.exp_month).padStart(2, '0')}`,
    networkTransactionId: card.network_transaction_id ?? null,
    threeDsEci: card.three_d_secure?.electronic_commerce_indicator ?? null,
  };
}

/**
 * The codes of a decline. There is one place for advice: the network's own stands there, being the more exact; but where
 * Stripe says never to try again, nothing milder may hide it.
 */
function codesOf(error: z.infer<typeof decline>): DeclineCodes {
  const advice = error.advice_code || null;
  const networkAdvice = error.network_advice_code || null;
  return {
    gatewayCode: error.decline_code || error.code || null,
    network: error.payment_method?.card?.brand ?? null,
    networkCode: error.network_decline_code || null,
    adviceCode: advice === 'do_not_try_again' ? advice : (networkAdvice ?? advice),
  };
}

function failed(error: z.infer<typeof decline>): ChargeOutcome {
  return { kind: 'failed', codes: codesOf(error), gatewayChargeId: error.charge ?? null };
}

const failedWith = (gatewayCode: string): ChargeOutcome => ({
  kind: 'failed',
  codes: { gatewayCode, network: null, networkCode: null, adviceCode: null },
  gatewayChargeId: null,
});

/** What a charge without its holder came to. */
export function outcomeOfIntent(intent: PaymentIntent): LookupAnswer {
  const captured = capturedOf(intent);
  if (captured !== null) return { kind: 'succeeded', captured };
  switch (intent.status) {
    case 'requires_payment_method':
      return intent.last_payment_error === null ? { kind: 'pending' } : failed(intent.last_payment_error);
    // Only the holder could go on, and nobody has what he would need for that: it was never handed out.
    case 'requires_action':
      return failedWith('authentication_required');
    // By a person in Stripe's dashboard: no rule knows it, so another person decides.
    case 'canceled':
      return failedWith('canceled');
    default:
      return { kind: 'pending' };
  }
}

/** What a hosted page came to. A decline on a page that is open still is no end: another card may be typed there. */
export function outcomeOfPage(page: Session): LookupAnswer {
  const intent = page.payment_intent;
  const captured = intent === null ? null : capturedOf(intent);
  if (captured !== null) return { kind: 'succeeded', captured };
  if (page.status !== 'expired') return { kind: 'pending' };
  if (intent !== null && !['requires_payment_method', 'canceled'].includes(intent.status)) {
    return { kind: 'pending' };
  }
  return intent?.last_payment_error ? failed(intent.last_payment_error) : failedWith('page_expired');
}

/** What a page for a card alone came to. Stripe keeps the network's id of the check to itself and uses it where we charge. */
export function outcomeOfSetup(page: SetupSession): SetupLookup {
  const setup = page.setup_intent;
  const card = setup?.payment_method?.card;
  if (setup?.status === 'succeeded' && setup.customer !== null && setup.payment_method !== null && card) {
    return {
      kind: 'succeeded',
      savedMethod: {
        token: tokenOf(setup.customer, setup.payment_method.id),
        brand: card.brand ?? 'unknown',
        lastFour: card.last4 ?? '',
        expires: `${card.exp_year}-${String(card.exp_month).padStart(2, '0')}`,
        networkTransactionId: null,
        threeDsEci:
          setup.latest_attempt?.payment_method_details.card?.three_d_secure?.electronic_commerce_indicator ??
          null,
      },
    };
  }
  if (page.status !== 'expired') return { kind: 'pending' };
  if (setup !== null && !['requires_payment_method', 'canceled'].includes(setup.status))
    return { kind: 'pending' };
  const { codes } = setup?.last_setup_error
    ? { codes: codesOf(setup.last_setup_error) }
    : { codes: { gatewayCode: 'page_expired', network: null, networkCode: null, adviceCode: null } };
  return { kind: 'failed', codes };
}

/** One that waits (for the balance, or for the bank) counts as made, and is asked about again. */
export function outcomeOfRefund(
  refunded: z.infer<typeof refund>,
): RefundOutcome | { kind: 'unknown'; why: string } {
  switch (refunded.status) {
    case 'succeeded':
      return {
        kind: 'succeeded',
        refunded: {
          gatewayRefundId: refunded.id,
          amount: refunded.amount,
          currency: currencyOf(refunded.currency),
          refundedAt: instantOf(refunded.created),
        },
      };
    case 'failed':
    case 'canceled':
      return { kind: 'failed', code: refunded.failure_reason ?? refunded.status };
    default:
      return { kind: 'unknown', why: refunded.status ?? 'no status' };
  }
}

/** Why a call brought no result. */
export type Failure =
  /** Certainly without effect, and no verdict on this charge. */
  | { kind: 'not_executed'; why: string; retryAfterMs: number | null; tooFast?: true }
  | { kind: 'declined'; outcome: ChargeOutcome; intent: PaymentIntent | null }
  /** Stripe will not do this, however often it is asked. `param`: what of the request it speaks of. */
  | { kind: 'refused'; code: string; param: string }
  | { kind: 'unknown'; why: string };

export function failureOf(error: unknown): Failure {
  if (error instanceof Stripe.errors.StripeConnectionError) {
    const line = error.detail instanceof LineBroken ? error.detail : null;
    const why = line?.message ?? 'line_broken';
    return line?.notSent === true
      ? { kind: 'not_executed', why, retryAfterMs: null }
      : { kind: 'unknown', why };
  }
  if (!(error instanceof Stripe.errors.StripeError)) {
    return { kind: 'unknown', why: error instanceof Error ? error.name : 'error' };
  }
  const status = error.statusCode ?? 0;
  const why = `${status} ${error.code ?? error.rawType ?? 'malformed answer'}`;
  // Also where a key stands for another request: what that one did is not known here.
  if (error.rawType === 'idempotency_error' || error.code === 'idempotency_key_in_use') {
    return { kind: 'unknown', why: `${status} ${error.code ?? 'idempotency_error'}` };
  }
  // With 429, too: a card that was declined too often has its rule, and says nothing of the gateway's pace.
  if (error.rawType === 'card_error' && (status === 402 || status === 429)) {
    const said = decline.safeParse(error.raw);
    if (!said.success) return { kind: 'unknown', why };
    const intent = paymentIntent
      .extend({ latest_charge: z.unknown().transform(() => null) })
      .safeParse(error.payment_intent);
    return { kind: 'declined', outcome: failed(said.data), intent: intent.success ? intent.data : null };
  }
  // Rate limits, locked objects, keys that are wrong or may not do this: refused before anything is done.
  if (status === 429 || status === 401 || status === 403) {
    const after = error.headers?.['retry-after'] ?? '';
    const retryAfterMs = /^\d{1,6}$/.test(after) ? Number(after) * 1000 : null;
    const refused = { kind: 'not_executed', why, retryAfterMs } as const;
    return status === 429 ? { ...refused, tooFast: true } : refused;
  }
  if (error.rawType === 'invalid_request_error' && (status === 400 || status === 404)) {
    return { kind: 'refused', code: error.code ?? 'invalid_request', param: error.param ?? '' };
  }
  return { kind: 'unknown', why };
}
