import { v7 } from 'uuid';
import type {
  BarcodePayment,
  CardNews,
  ChargeAnswer,
  DeclineCodes,
  Gateway,
  HostedPageAnswer,
  LookupAnswer,
  OffSessionCharge,
  Payout,
  PayoutLine,
  RefreshAnswer,
  RefundOutcome,
  SavedMethod,
  SettlementLine,
  SetupLookup,
} from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import type { Clock } from '../billing/ports.ts';

/** What one call does. `before` and `after` its effect; a stored 500 is answered again for ever. */
export type Behaviour =
  | 'ok'
  | 'timeout_before'
  | 'timeout_after'
  | 'error_before'
  | 'error_after'
  | 'rate_limited'
  | 'throws_after'
  | 'another_amount'
  | { declines: Partial<DeclineCodes> };

/** What one refund does. */
export type RefundBehaviour = 'ok' | 'timeout_before' | 'timeout_after' | 'rate_limited' | 'refused';

interface Truth {
  reference: string;
  invoiceId: string;
  amount: number;
  currency: string;
  capturedAt: string;
  gatewayChargeId: string;
  method: SavedMethod | null;
  by?: 'barcode';
}

interface Page {
  reference: string;
  invoiceId: string;
  amount: number;
  currency: string;
  saveMethod: boolean;
  expiresAt: string;
  state: 'open' | 'paid' | 'closed';
}

/** A gateway in memory with its own truth, which no code under test can write. */
export interface FakeGateway extends Gateway {
  /** Every capture there ever was. */
  readonly captured: Truth[];
  readonly calls: { reference: string; token: string }[];
  readonly lookups: string[];
  /** What the next calls with a token do, one after the other; the last stays. */
  behave(token: string, ...behaviours: Behaviour[]): void;
  /** Nobody answers: every call is lost before any effect. */
  down: boolean;
  /** Charges until now by bill reference, for reports and lookups. */
  reportLines: ((lines: SettlementLine[], date: string) => SettlementLine[]) | null;
  reportsReady: boolean;
  /** What the gateway has paid out; `payOut` adds to it. Null: it has no list to show. */
  paidOut: { payout: Payout; lines: PayoutLine[] }[] | null;
  /** Pays out all that was captured and not paid out before. */
  payOut(id: string, valueDate: string): { payout: Payout; lines: PayoutLine[] };
  customerPays(reference: string, token: string | null): void;
  /** The money of a page that was told to be closed unpaid was taken all the same. */
  takesAfterAll(reference: string): void;
  /** A customer has a card kept on a page that takes no money. */
  customerKeepsCard(reference: string, token: string): void;
  /** Somebody pays a barcode at a shop, which says so; the payment's reference. */
  shopTakes(barcode: string, amount: number): string;
  /** The money of a shop is certain, or its word is taken back. */
  shopConfirms(reference: string): void;
  shopCancels(reference: string): void;
  /** Every refund there ever was, by its reference. */
  readonly refunds: Map<string, { id: string; chargeReference: string; amount: number; at: string }>;
  refundCalls: string[];
  /** What the next refunds do, one after the other; then they succeed. */
  refundsDo: RefundBehaviour[];
  /** What its updater knows of saved cards, by their tokens. */
  readonly cardNews: Map<string, CardNews>;
  readonly refreshCalls: { reference: string; tokens: readonly string[] }[];
  /** What the next questions about cards are answered, one after the other; then by what it knows. */
  refreshesDo: RefreshAnswer[];
}

const codesOf = (codes: Partial<DeclineCodes>): DeclineCodes => ({
  gatewayCode: null,
  network: 'visa',
  networkCode: null,
  adviceCode: null,
  ...codes,
});

const savedAs = (token: string): SavedMethod => ({
  token,
  brand: 'visa',
  lastFour: '4242',
  expires: '2039-12',
  networkTransactionId: 'ntx_1',
  threeDsEci: '05',
});

const feeOf = (amount: number): number => Math.floor((amount * 325) / 10_000);
const feeTaxOf = (amount: number): number => Math.floor(feeOf(amount) / 10);

export function fakeGateway(clock: Clock): FakeGateway {
  const captured: Truth[] = [];
  const failed = new Map<string, DeclineCodes>();
  const stored500 = new Set<string>();
  const pages = new Map<string, Page>();
  const setups = new Map<
    string,
    { expiresAt: string; state: 'open' | 'closed'; method: SavedMethod | null }
  >();
  const plans = new Map<string, Behaviour[]>();
  const shops = new Map<string, { payment: BarcodePayment; newsAt: string[] }>();
  const instant = () => clock.now().toString({ smallestUnit: 'millisecond' });

  const capture = (
    { reference, invoiceId, currency }: Pick<OffSessionCharge, 'reference' | 'invoiceId' | 'currency'>,
    amount: number,
    method: SavedMethod | null,
  ): Truth => {
    const truth: Truth = {
      reference,
      invoiceId,
      amount,
      currency,
      capturedAt: clock.now().toString({ smallestUnit: 'millisecond' }),
      gatewayChargeId: `ch_${captured.length + 1}`,
      method,
    };
    captured.push(truth);
    return truth;
  };
  const truthOf = (reference: string): Truth | undefined =>
    captured.find((truth) => truth.reference === reference);
  const succeeded = (truth: Truth) =>
    ({
      kind: 'succeeded',
      captured: {
        gatewayChargeId: truth.gatewayChargeId,
        amount: truth.amount,
        currency: truth.currency,
        capturedAt: truth.capturedAt,
        method: truth.by ?? 'card',
        savedMethod: truth.method,
      },
    }) as const;

  const refundOf = (reference: string, currency: string): RefundOutcome => {
    const refund = gateway.refunds.get(reference);
    if (refund === undefined) throw new Error('there is no such refund');
    const { id, amount, at } = refund;
    return { kind: 'succeeded', refunded: { gatewayRefundId: id, amount, currency, refundedAt: at } };
  };

  const stateOf = (reference: string): LookupAnswer => {
    const truth = truthOf(reference);
    if (truth) return succeeded(truth);
    const atShop = shops.get(reference)?.payment.state;
    if (atShop === 'preliminary') return { kind: 'pending' };
    if (atShop === 'cancelled')
      return { kind: 'failed', codes: codesOf({ gatewayCode: 'payment_reversed' }), gatewayChargeId: null };
    const page = pages.get(reference);
    if (page?.state === 'open' && clock.now().toString() < page.expiresAt) return { kind: 'pending' };
    const codes = failed.get(reference);
    if (codes) return { kind: 'failed', codes, gatewayChargeId: null };
    if (page)
      return { kind: 'failed', codes: codesOf({ gatewayCode: 'page_closed' }), gatewayChargeId: null };
    return { kind: 'not_found' };
  };

  const setupOf = (reference: string): SetupLookup => {
    const setup = setups.get(reference);
    if (setup === undefined) return { kind: 'not_found' };
    if (setup.method !== null) return { kind: 'succeeded', savedMethod: setup.method };
    if (setup.state === 'open' && clock.now().toString() < setup.expiresAt) return { kind: 'pending' };
    return { kind: 'failed', codes: codesOf({ gatewayCode: 'page_closed', network: null }) };
  };

  const gateway: FakeGateway = {
    name: 'simulator',
    semantics: {
      idempotencyKeyLifetimeMs: 86_400_000,
      replaysStoredErrors: true,
      looksUpByReference: true,
      notFoundConclusiveAfterMs: 60_000,
      comparesRequests: true,
      callDeadlineMs: 10_000,
      pageMethods: ['card', 'wallet'],
      cardsPerRefresh: 3,
    },
    barcodes: {
      newsDays: 1,
      async lookup(_account, reference) {
        gateway.lookups.push(reference);
        if (gateway.down) return { kind: 'unknown', why: 'timeout' };
        const found = shops.get(reference);
        return found ? { kind: 'found', payment: found.payment } : { kind: 'not_found' };
      },
      async *news(_account, from, until) {
        if (gateway.down) throw new Error('the gateway does not answer');
        for (const { payment, newsAt } of shops.values())
          if (newsAt.some((at) => at >= from && at < until)) yield payment;
      },
    },
    captured,
    calls: [],
    lookups: [],
    refunds: new Map(),
    refundCalls: [],
    refundsDo: [],
    cardNews: new Map(),
    refreshCalls: [],
    refreshesDo: [],
    down: false,
    reportLines: null,
    reportsReady: true,
    paidOut: [],

    payOut(id, valueDate) {
      const before = new Set(
        gateway.paidOut?.flatMap(({ lines }) => lines.map((line) => line.gatewayChargeId)),
      );
      const lines = captured
        .filter((truth) => !before.has(truth.gatewayChargeId))
        .map(
          (truth): PayoutLine => ({
            gatewayChargeId: truth.gatewayChargeId,
            reference: truth.reference,
            kind: 'charge',
            amount: truth.amount,
            currency: truth.currency,
            fee: feeOf(truth.amount),
            feeTax: feeTaxOf(truth.amount),
          }),
        );
      const sum = (of: (line: PayoutLine) => number) => lines.reduce((total, line) => total + of(line), 0);
      const gross = sum((line) => line.amount);
      const fee = sum((line) => line.fee);
      const feeTax = sum((line) => line.feeTax);
      const payout = { id, valueDate, currency: 'JPY', gross, fee, feeTax, net: gross - fee - feeTax };
      const paid = { payout, lines };
      gateway.paidOut?.push(paid);
      return paid;
    },

    behave(token, ...behaviours) {
      plans.set(token, behaviours);
    },

    customerPays(reference, token) {
      const page = pages.get(reference);
      if (page === undefined || page.state !== 'open') throw new Error('there is no open page');
      page.state = 'paid';
      capture(page, page.amount, token === null || !page.saveMethod ? null : savedAs(token));
    },

    takesAfterAll(reference) {
      const page = pages.get(reference);
      if (page === undefined) throw new Error('there is no page');
      page.state = 'paid';
      capture(page, page.amount, null);
    },

    customerKeepsCard(reference, token) {
      const setup = setups.get(reference);
      if (setup === undefined || setupOf(reference).kind !== 'pending')
        throw new Error('there is no open page');
      setup.method = savedAs(token);
    },

    shopTakes(barcode, amount) {
      const reference = referenceOf(v7({ msecs: clock.now().epochMilliseconds }));
      const [paidAt, finalAt] = [instant(), null];
      const gatewayChargeId = `cv_${shops.size + 1}`;
      shops.set(reference, {
        payment: {
          reference,
          gatewayChargeId,
          barcode,
          state: 'preliminary',
          amount,
          currency: 'JPY',
          paidAt,
          finalAt,
        },
        newsAt: [paidAt],
      });
      return reference;
    },

    shopConfirms(reference) {
      const shop = shops.get(reference);
      if (shop === undefined || shop.payment.state !== 'preliminary') throw new Error('nothing to confirm');
      shop.payment = { ...shop.payment, state: 'final', finalAt: instant() };
      shop.newsAt.push(instant());
      const truth = capture({ reference, invoiceId: '', currency: 'JPY' }, shop.payment.amount, null);
      Object.assign(truth, { by: 'barcode', gatewayChargeId: shop.payment.gatewayChargeId });
    },

    shopCancels(reference) {
      const shop = shops.get(reference);
      if (shop === undefined || shop.payment.state !== 'preliminary') throw new Error('nothing to cancel');
      shop.payment = { ...shop.payment, state: 'cancelled' };
      shop.newsAt.push(instant());
    },

    async charge(request: OffSessionCharge): Promise<ChargeAnswer> {
      const { reference, methodToken } = request;
      gateway.calls.push({ reference, token: methodToken });
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      if (stored500.has(reference)) return { kind: 'unknown', why: '500' };
      const known = stateOf(reference);
      if (known.kind === 'succeeded' || known.kind === 'failed') return known;
      const plan = plans.get(methodToken) ?? ['ok'];
      const behaviour = (plan.length > 1 ? plan.shift() : plan[0]) ?? 'ok';
      const take = () => capture(request, request.amount, null);
      if (typeof behaviour === 'object') {
        const codes = codesOf(behaviour.declines);
        failed.set(reference, codes);
        return { kind: 'failed', codes, gatewayChargeId: null };
      }
      switch (behaviour) {
        case 'ok':
          return succeeded(take());
        case 'timeout_before':
          return { kind: 'unknown', why: 'timeout' };
        case 'timeout_after':
          take();
          return { kind: 'unknown', why: 'timeout' };
        case 'error_before':
          stored500.add(reference);
          return { kind: 'unknown', why: '500' };
        case 'error_after':
          take();
          stored500.add(reference);
          return { kind: 'unknown', why: '500' };
        case 'throws_after':
          take();
          throw new TypeError('an adapter stumbles');
        case 'rate_limited':
          return { kind: 'not_executed', why: '429', retryAfterMs: 1_000, tooFast: true };
        case 'another_amount':
          return succeeded(capture(request, request.amount + 1, null));
      }
    },

    async refreshCards({ reference, tokens }): Promise<RefreshAnswer> {
      gateway.refreshCalls.push({ reference, tokens });
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      const behaviour = gateway.refreshesDo.shift();
      if (behaviour !== undefined) return behaviour;
      const news = tokens.map((token): CardNews => gateway.cardNews.get(token) ?? { kind: 'unknown' });
      return { kind: 'answered', news };
    },

    async openHostedPage(request): Promise<HostedPageAnswer> {
      pages.set(request.reference, { ...request, state: 'open' });
      return {
        kind: 'opened',
        gatewaySessionId: `page_${pages.size}`,
        url: `https://pay.invalid/${request.reference}`,
      };
    },

    async closeHostedPage(_account, reference) {
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      const page = pages.get(reference);
      if (page?.state === 'open') page.state = 'closed';
      return stateOf(reference);
    },

    async lookup(_account, reference) {
      gateway.lookups.push(reference);
      return gateway.down ? { kind: 'unknown', why: 'timeout' } : stateOf(reference);
    },

    async openSetupPage(request): Promise<HostedPageAnswer> {
      setups.set(request.reference, { expiresAt: request.expiresAt, state: 'open', method: null });
      return {
        kind: 'opened',
        gatewaySessionId: `setup_${setups.size}`,
        url: `https://pay.invalid/setup/${request.reference}`,
      };
    },

    async closeSetupPage(_account, reference) {
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      const setup = setups.get(reference);
      if (setup !== undefined) setup.state = 'closed';
      return setupOf(reference);
    },

    async lookupSetup(_account, reference) {
      gateway.lookups.push(reference);
      return gateway.down ? { kind: 'unknown', why: 'timeout' } : setupOf(reference);
    },

    async refund({ reference, chargeReference, amount, currency }) {
      gateway.refundCalls.push(reference);
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      const behaviour = gateway.refundsDo.shift() ?? 'ok';
      if (behaviour === 'rate_limited') return { kind: 'not_executed', why: '429' };
      if (behaviour === 'timeout_before') return { kind: 'unknown', why: 'timeout' };
      const truth = truthOf(chargeReference);
      const back = [...gateway.refunds.values()]
        .filter((refund) => refund.chargeReference === chargeReference)
        .reduce((sum, refund) => sum + refund.amount, 0);
      const known = gateway.refunds.get(reference);
      if (known === undefined) {
        if (behaviour === 'refused' || truth === undefined || back + amount > truth.amount)
          return { kind: 'failed', code: 'charge_not_refundable' };
        const at = clock.now().toString({ smallestUnit: 'millisecond' });
        gateway.refunds.set(reference, { id: `re_${gateway.refunds.size + 1}`, chargeReference, amount, at });
      }
      if (behaviour === 'timeout_after') return { kind: 'unknown', why: 'timeout' };
      return refundOf(reference, currency);
    },

    async lookupRefund(_account, reference) {
      gateway.lookups.push(reference);
      if (gateway.down) return { kind: 'unknown', why: 'timeout' };
      return gateway.refunds.has(reference) ? refundOf(reference, 'JPY') : { kind: 'not_found' };
    },

    verifyWebhook: () => null,

    async settlementReport(_account, date) {
      const end = Date.parse(`${date}T00:00:00+09:00`) + 86_400_000;
      if (!gateway.reportsReady || clock.now().epochMilliseconds < end) return null;
      const lines = captured
        .filter((truth) => {
          const at = Date.parse(truth.capturedAt);
          return at >= end - 86_400_000 && at < end;
        })
        .map(
          (truth): SettlementLine => ({
            gatewayChargeId: truth.gatewayChargeId,
            reference: truth.reference,
            kind: 'charge',
            amount: truth.amount,
            currency: truth.currency,
            fee: feeOf(truth.amount),
            feeTax: feeTaxOf(truth.amount),
            capturedAt: truth.capturedAt,
          }),
        );
      for (const [reference, refund] of gateway.refunds) {
        const at = Date.parse(refund.at);
        if (at < end - 86_400_000 || at >= end) continue;
        const { id, amount, at: capturedAt } = refund;
        const line = { gatewayChargeId: id, reference, kind: 'refund', amount, currency: 'JPY' } as const;
        lines.push({ ...line, fee: 0, feeTax: 0, capturedAt });
      }
      const told = gateway.reportLines?.(lines, date) ?? lines;
      return (async function* () {
        yield* told;
      })();
    },

    async payouts(_account, from, to) {
      if (gateway.down) throw new Error('payouts: no answer');
      const listed = gateway.paidOut?.map(({ payout }) => payout);
      return listed?.filter(({ valueDate }) => valueDate >= from && valueDate <= to) ?? null;
    },

    async payoutLines(_account, payoutId) {
      const lines = gateway.paidOut?.find(({ payout }) => payout.id === payoutId)?.lines;
      if (lines === undefined) throw new Error('payout: no such');
      return (async function* () {
        yield* lines;
      })();
    },

    async *listCharges(_account, from, until) {
      if (gateway.down) throw new Error('the gateway does not answer');
      for (const truth of captured) {
        const at = Date.parse(truth.capturedAt);
        if (at < Date.parse(from) || at >= Date.parse(until)) continue;
        const { gatewayChargeId, reference, invoiceId, amount, currency, capturedAt } = truth;
        yield {
          gatewayChargeId,
          reference,
          invoiceId,
          amount,
          currency,
          refunded: [...gateway.refunds.values()]
            .filter((refund) => refund.chargeReference === reference)
            .reduce((sum, refund) => sum + refund.amount, 0),
          method: truth.by ?? 'card',
          capturedAt,
        };
      }
    },
  };
  return gateway;
}
