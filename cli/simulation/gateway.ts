import { createHash } from 'node:crypto';
import { Temporal } from 'temporal-polyfill';
import { v7 } from 'uuid';
import type {
  BarcodePayment,
  CardNews,
  ChargeAnswer,
  ChargeOutcome,
  DeclineCodes,
  Gateway,
  HostedPageRequest,
  ListedCharge,
  LookupAnswer,
  OffSessionCharge,
  Payout,
  PayoutLine,
  RefundLookup,
  RefundRequest,
  SavedMethod,
  SettlementLine,
  SetupLookup,
  SetupPageRequest,
  WebhookHint,
} from '../../billing/gateways/gateway.ts';
import { referenceOf } from '../../billing/ids.ts';
import { cardByName, offSessionCall, type TestCard } from '../demo/gateway-simulator/cards.ts';
import type { Baton, Mortal } from './baton.ts';
import type { Faults } from './faults.ts';

/** Money that the gateway took. */
export interface Capture {
  account: string;
  reference: string;
  /** Null: paid at a shop, which knows of no bill. */
  invoiceId: string | null;
  gatewayChargeId: string;
  amount: number;
  currency: string;
  method: 'card' | 'wallet' | 'barcode';
  capturedAtMs: number;
  savedMethod: SavedMethod | null;
}

/** A barcode that somebody paid at a till. */
interface ShopPayment {
  account: string;
  reference: string;
  gatewayChargeId: string;
  barcode: string;
  amount: number;
  paidAtMs: number;
  /** From when on the gateway knows of it. */
  toldAtMs: number;
  /** When it is certain, or was taken back. */
  endsAtMs: number;
  isTakenBack: boolean;
}

/** Money that the gateway gave back. */
export interface Refunded {
  account: string;
  reference: string;
  chargeReference: string;
  gatewayRefundId: string;
  amount: number;
  currency: string;
  refundedAtMs: number;
}

export interface Page {
  id: string;
  account: string;
  request: HostedPageRequest;
  state: 'open' | 'paid' | 'closed';
}

/** A page that keeps a card and takes no money. */
interface Setup {
  id: string;
  request: SetupPageRequest;
  isClosed: boolean;
  kept: SavedMethod | null;
}

export interface WebhookToSend {
  account: string;
  body: Buffer;
  signature: string;
  dueAtMs: number;
}

/** A day's report as the gateway first has it, and what it becomes when the gateway has looked again. */
interface Draft {
  lines: SettlementLine[];
  corrected: SettlementLine[];
  correctedAtMs: number;
}

interface Declined {
  id: string;
  codes: DeclineCodes;
}

const callDeadlineMs = 10_000;
/** Long, so that whoever asks early must wait: a late call may take effect until then. */
const notFoundConclusiveAfterMs = 600_000;
const keyLivesMs = 24 * 3_600_000;
const dayMs = 24 * 3_600_000;
const payoutEveryDays = 3;
const payoutAfterDays = 2;

/** The gateway itself, with books that no code of the product can write. */
export class GatewayTruth {
  readonly captures: Capture[] = [];
  readonly refunds: Refunded[] = [];
  readonly pages = new Map<string, Page>();
  readonly #setups = new Map<string, Setup>();
  readonly #shops = new Map<string, ShopPayment>();
  /** Charges in its reports that are nobody's here, by account and id; each was told of at least once. */
  readonly foreign = new Set<string>();
  /** Until when nobody answers. */
  downUntilMs = 0;
  /** Told of each capture at the moment when it is made. */
  onCapture: (capture: Capture) => Promise<void> = async () => undefined;
  /** Somebody begins to call for an automatic charge. */
  onChargeBegins: (account: string) => void = () => undefined;
  /** Told of each refund at the moment when it is made. */
  onRefund: (refund: Refunded) => Promise<void> = async () => undefined;
  /** Told of each webhook that is to be sent. */
  onWebhook: (webhook: WebhookToSend) => void = () => undefined;
  readonly #baton: Baton;
  readonly #faults: Faults;
  readonly #declines = new Map<string, Declined>();
  readonly #keys = new Map<string, { fingerprint: string; atMs: number; answer: 'outcome' | 'error_500' }>();
  readonly #captured = new Map<string, Capture>();
  readonly #callsOfToken = new Map<string, number>();
  /** What became of saved cards that somebody has asked about. */
  readonly #newsOfToken = new Map<string, CardNews>();
  readonly #drafts = new Map<string, Draft>();
  /** Lines that stand under the day after theirs. */
  readonly #moved = new Map<string, SettlementLine[]>();
  #made = 0;

  constructor(baton: Baton, faults: Faults) {
    this.#baton = baton;
    this.#faults = faults;
  }

  async charge(request: OffSessionCharge, stores500: boolean): Promise<ChargeAnswer> {
    const key = keyOf(request.account, request.reference);
    const fingerprint = JSON.stringify([request.amount, request.currency, request.methodToken]);
    const known = this.#keys.get(key);
    if (known !== undefined && this.#baton.nowMs - known.atMs < keyLivesMs) {
      if (known.fingerprint !== fingerprint) return { kind: 'unknown', why: 'reference_reused' };
      if (known.answer === 'error_500') return { kind: 'unknown', why: '500' };
      return this.#outcomeOf(key) ?? { kind: 'unknown', why: 'in flight' };
    }
    this.#keys.set(key, {
      fingerprint,
      atMs: this.#baton.nowMs,
      answer: stores500 ? 'error_500' : 'outcome',
    });
    const card = cardByName(request.methodToken.split('.')[1] ?? '');
    if (card === undefined) throw new Error(`impossible state: no card ${request.methodToken}`);
    const calls = (this.#callsOfToken.get(request.methodToken) ?? 0) + 1;
    this.#callsOfToken.set(request.methodToken, calls);
    const fate = offSessionCall(card, calls);
    if (fate.kind === 'declines') {
      this.#declines.set(key, { id: this.#id('ch'), codes: { ...fate.codes, network: card.brand } });
      this.#tell(request.account, request.reference, 'charge.failed');
    } else {
      await this.#capture(request, request.account, null);
    }
    return stores500 ? { kind: 'unknown', why: '500' } : (this.#outcomeOf(key) as ChargeOutcome);
  }

  /** Keeps a 500 under the key without doing anything. */
  failBefore(request: OffSessionCharge): void {
    const key = keyOf(request.account, request.reference);
    if (this.#keys.has(key)) return;
    const fingerprint = JSON.stringify([request.amount, request.currency, request.methodToken]);
    this.#keys.set(key, { fingerprint, atMs: this.#baton.nowMs, answer: 'error_500' });
  }

  openPage(request: HostedPageRequest): Page {
    const key = keyOf(request.account, request.reference);
    const known = this.pages.get(key);
    if (known !== undefined) return known;
    const page: Page = { id: this.#id('page'), account: request.account, request, state: 'open' };
    this.pages.set(key, page);
    return page;
  }

  closePage(account: string, reference: string): void {
    const page = this.pages.get(keyOf(account, reference));
    if (page !== undefined && page.state === 'open') {
      page.state = 'closed';
      this.#tell(account, reference, 'page.closed');
    }
  }

  stateOf(account: string, reference: string): LookupAnswer {
    const key = keyOf(account, reference);
    const shop = this.shopPayment(account, reference);
    if (shop?.state === 'preliminary') return { kind: 'pending' };
    const page = this.pages.get(key);
    if (!this.#captured.has(key) && page !== undefined && this.#isOpen(page)) return { kind: 'pending' };
    const outcome = this.#outcomeOf(key);
    if (outcome !== null) return outcome;
    if (shop !== null)
      return {
        kind: 'failed',
        codes: { gatewayCode: 'payment_reversed', network: null, networkCode: null, adviceCode: null },
        gatewayChargeId: null,
      };
    if (page === undefined) return { kind: 'not_found' };
    const gatewayCode = page.state === 'closed' ? 'page_closed' : 'page_expired';
    return {
      kind: 'failed',
      codes: { gatewayCode, network: null, networkCode: null, adviceCode: null },
      gatewayChargeId: null,
    };
  }

  /** Once for each reference, and as much of a capture as its caller asks: whether that is too much is the oracle's to see. */
  async refund(request: RefundRequest): Promise<RefundLookup> {
    const { account, reference, chargeReference, amount, currency } = request;
    if (this.refundOf(account, reference).kind === 'not_found') {
      if (!this.#captured.has(keyOf(account, chargeReference)))
        return { kind: 'failed', code: 'charge_not_refundable' };
      const refund: Refunded = {
        account,
        reference,
        chargeReference,
        gatewayRefundId: this.#id('re'),
        amount,
        currency,
        refundedAtMs: this.#baton.nowMs,
      };
      this.refunds.push(refund);
      await this.onRefund(refund);
    }
    return this.refundOf(account, reference);
  }

  refundOf(account: string, reference: string): RefundLookup {
    const refund = this.refunds.find((each) => each.account === account && each.reference === reference);
    if (refund === undefined) return { kind: 'not_found' };
    const { gatewayRefundId, amount, currency, refundedAtMs } = refund;
    return {
      kind: 'succeeded',
      refunded: { gatewayRefundId, amount, currency, refundedAt: instantOf(refundedAtMs) },
    };
  }

  /** A customer types a card on the page, or approves in a wallet: then a card's name only says whether it declines. */
  async payOnPage(url: string, cardName: string): Promise<'paid' | 'declined' | 'closed'> {
    const page = [...this.pages.values()].find((each) => urlOf(each) === url);
    const card = cardByName(cardName);
    if (page === undefined || card === undefined || !this.#isOpen(page)) return 'closed';
    const { account, reference } = page.request;
    if (card.onPage.kind === 'declines') {
      const codes = { ...card.onPage.codes, network: card.brand };
      this.#declines.set(keyOf(account, reference), { id: this.#id('ch'), codes });
      return 'declined';
    }
    page.state = 'paid';
    await this.#capture(
      page.request,
      account,
      page.request.saveMethod && page.request.method === 'card' ? this.#save(card) : null,
    );
    return 'paid';
  }

  openSetup(request: SetupPageRequest): Setup {
    const key = keyOf(request.account, request.reference);
    const setup = this.#setups.get(key) ?? { id: this.#id('setup'), request, isClosed: false, kept: null };
    this.#setups.set(key, setup);
    return setup;
  }

  closeSetup(account: string, reference: string): void {
    const setup = this.#setups.get(keyOf(account, reference));
    if (setup !== undefined && setup.kept === null) setup.isClosed = true;
  }

  setupOf(account: string, reference: string): SetupLookup {
    const setup = this.#setups.get(keyOf(account, reference));
    if (setup === undefined) return { kind: 'not_found' };
    if (setup.kept !== null) return { kind: 'succeeded', savedMethod: setup.kept };
    if (this.#keepsCards(setup)) return { kind: 'pending' };
    const gatewayCode = setup.isClosed ? 'page_closed' : 'page_expired';
    return { kind: 'failed', codes: { gatewayCode, network: null, networkCode: null, adviceCode: null } };
  }

  /** A customer types a card on a page that takes no money. */
  keepCard(url: string, cardName: string): 'kept' | 'declined' | 'closed' {
    const setup = [...this.#setups.values()].find((each) => urlOf(each) === url);
    const card = cardByName(cardName);
    if (setup === undefined || card === undefined || !this.#keepsCards(setup)) return 'closed';
    if (card.onPage.kind === 'declines') return 'declined';
    setup.kept = this.#save(card);
    this.#tell(setup.request.account, setup.request.reference, 'setup.succeeded');
    return 'kept';
  }

  #keepsCards(setup: Setup): boolean {
    return !setup.isClosed && setup.kept === null && this.#baton.nowMs < Date.parse(setup.request.expiresAt);
  }

  /** A barcode is held to a till. What is told of it, and when it is certain, is the agency's and the shop's doing. */
  payAtShop(account: string, barcode: string, again = false): void {
    const { shopTakesBack, shopToldLate, shopPaidTwice } = this.#faults.profile.gateway;
    const { nowMs } = this.#baton;
    this.#made += 1;
    const random = createHash('sha256').update(`shop ${this.#made}`).digest().subarray(0, 16);
    const toldAtMs =
      nowMs + (this.#faults.hits(shopToldLate) ? this.#faults.between(3_600_000, 18 * 3_600_000) : 60_000);
    const payment: ShopPayment = {
      account,
      reference: referenceOf(v7({ msecs: nowMs, random })),
      gatewayChargeId: `cv_${this.#made}`,
      barcode,
      amount: Number(barcode.slice(37, 43)),
      paidAtMs: nowMs,
      toldAtMs,
      endsAtMs: toldAtMs + this.#faults.between(3_600_000, 60 * 3_600_000),
      isTakenBack: this.#faults.hits(shopTakesBack),
    };
    this.#shops.set(keyOf(account, payment.reference), payment);
    if (!again && this.#faults.hits(shopPaidTwice)) {
      const atMs = nowMs + this.#faults.between(60_000, 40 * 3_600_000);
      this.#baton.at(atMs, 'a barcode is paid again', () => this.payAtShop(account, barcode, true));
    }
    this.#baton.at(payment.toldAtMs, 'a shop tells of a payment', () =>
      this.#tell(account, payment.reference, 'barcode.preliminary'),
    );
    this.#baton.at(payment.endsAtMs, 'a payment at a shop comes to its end', () => {
      if (payment.isTakenBack) this.#tell(account, payment.reference, 'barcode.cancelled');
      else
        void this.#take({
          account,
          reference: payment.reference,
          invoiceId: null,
          gatewayChargeId: payment.gatewayChargeId,
          amount: payment.amount,
          currency: 'JPY',
          method: 'barcode',
          capturedAtMs: payment.endsAtMs,
          savedMethod: null,
        });
    });
  }

  /** A payment at a shop as the gateway knows it now; null: not at all. */
  shopPayment(account: string, reference: string): BarcodePayment | null {
    const shop = this.#shops.get(keyOf(account, reference));
    return shop === undefined || this.#baton.nowMs < shop.toldAtMs ? null : this.#toldOf(shop);
  }

  /** Of which something became known in [from, until). */
  shopNews(account: string, fromMs: number, untilMs: number): BarcodePayment[] {
    return [...this.#shops.values()]
      .filter((shop) => shop.account === account)
      .filter((shop) =>
        [shop.toldAtMs, shop.endsAtMs].some(
          (atMs) => atMs >= fromMs && atMs < untilMs && atMs <= this.#baton.nowMs,
        ),
      )
      .map((shop) => this.#toldOf(shop));
  }

  #toldOf(shop: ShopPayment): BarcodePayment {
    const hasEnded =
      this.#captured.has(keyOf(shop.account, shop.reference)) || this.#baton.nowMs > shop.endsAtMs;
    const { reference, gatewayChargeId, barcode, amount } = shop;
    return {
      reference,
      gatewayChargeId,
      barcode,
      amount,
      currency: 'JPY',
      state: !hasEnded ? 'preliminary' : shop.isTakenBack ? 'cancelled' : 'final',
      paidAt: instantOf(shop.paidAtMs),
      finalAt: hasEnded && !shop.isTakenBack ? instantOf(shop.endsAtMs) : null,
    };
  }

  /** The report of a day in Japan as it stands now, or null while it is not ready. */
  reportOf(account: string, date: string): SettlementLine[] | null {
    const start = Temporal.PlainDate.from(date).toZonedDateTime('Asia/Tokyo').epochMilliseconds;
    if (this.#baton.nowMs < start + dayMs) return null;
    const key = keyOf(account, date);
    const draft = this.#drafts.get(key) ?? this.#draft(account, date, start);
    this.#drafts.set(key, draft);
    const own = this.#baton.nowMs < draft.correctedAtMs ? draft.lines : draft.corrected;
    return [...own, ...(this.#moved.get(key) ?? [])];
  }

  #draft(account: string, date: string, startMs: number): Draft {
    const odds = this.#faults.profile.gateway;
    const draft: Draft = {
      lines: [],
      corrected: [],
      correctedAtMs: this.#baton.nowMs + this.#faults.between(3_600_000, 40 * 3_600_000),
    };
    const nextDay = keyOf(account, Temporal.PlainDate.from(date).add({ days: 1 }).toString());
    for (const each of this.captures) {
      if (each.account !== account) continue;
      if (each.capturedAtMs < startMs || each.capturedAtMs >= startMs + dayMs) continue;
      const line: SettlementLine = {
        gatewayChargeId: each.gatewayChargeId,
        reference: each.reference,
        kind: 'charge',
        amount: each.amount,
        currency: each.currency,
        ...feesOf(each.amount),
        capturedAt: instantOf(each.capturedAtMs),
      };
      const fault = this.#faults.draw(odds, 'lineLate', 'lineMoves', 'lineFee', 'lineTwice');
      if (fault === 'lineMoves') {
        this.#moved.set(nextDay, [...(this.#moved.get(nextDay) ?? []), line]);
        continue;
      }
      draft.corrected.push(line);
      if (fault === 'lineFee') draft.lines.push({ ...line, fee: line.fee + 7 });
      else if (fault !== 'lineLate') draft.lines.push(line);
      if (fault === 'lineTwice') draft.lines.push(line);
    }
    for (const each of this.refunds) {
      if (each.account !== account) continue;
      if (each.refundedAtMs < startMs || each.refundedAtMs >= startMs + dayMs) continue;
      const line: SettlementLine = {
        gatewayChargeId: each.gatewayRefundId,
        reference: each.reference,
        kind: 'refund',
        amount: each.amount,
        currency: each.currency,
        fee: 0,
        feeTax: 0,
        capturedAt: instantOf(each.refundedAtMs),
      };
      draft.lines.push(line);
      draft.corrected.push(line);
    }
    if (this.#faults.hits(odds.lineForeign)) {
      const line: SettlementLine = {
        gatewayChargeId: this.#id('ch'),
        reference: null,
        kind: 'charge',
        amount: 4_711,
        currency: 'JPY',
        fee: 153,
        feeTax: 0,
        capturedAt: instantOf(startMs + dayMs / 2),
      };
      draft.lines.push(line);
      draft.corrected.push(line);
      this.foreign.add(keyOf(account, line.gatewayChargeId));
    }
    return draft;
  }

  /** Every third day what was captured in the three days before it, with the bank two days later. */
  payoutsOf(account: string): { payout: Payout; lines: PayoutLine[] }[] {
    const today = dayOf(this.#baton.nowMs);
    const byPeriod = new Map<number, PayoutLine[]>();
    for (const each of this.captures.filter((capture) => capture.account === account)) {
      const period = Math.floor(dayOf(each.capturedAtMs) / payoutEveryDays);
      const lines = byPeriod.get(period) ?? [];
      const { gatewayChargeId, reference, amount, currency } = each;
      lines.push({ gatewayChargeId, reference, kind: 'charge', amount, currency, ...feesOf(amount) });
      byPeriod.set(period, lines);
    }
    this.#takeOff(account, byPeriod);
    return [...byPeriod].flatMap(([period, lines]) => {
      const valueDay = (period + 1) * payoutEveryDays + payoutAfterDays;
      if (valueDay > today) return [];
      const sum = (of: (line: PayoutLine) => number) => lines.reduce((total, line) => total + of(line), 0);
      const [gross, fee, feeTax] = [
        sum((line) => (line.kind === 'refund' ? -line.amount : line.amount)),
        sum((line) => line.fee),
        sum((line) => line.feeTax),
      ];
      const valueDate = Temporal.PlainDate.from('1970-01-01').add({ days: valueDay }).toString();
      const net = gross - fee - feeTax;
      return [{ payout: { id: `po_${period}`, valueDate, currency: 'JPY', gross, fee, feeTax, net }, lines }];
    });
  }

  /** What went back comes off the first payout from then on that is still worth something after it. */
  #takeOff(account: string, byPeriod: Map<number, PayoutLine[]>): void {
    const periods = [...byPeriod].sort(([one], [other]) => one - other);
    for (const each of this.refunds.filter((refund) => refund.account === account)) {
      const since = Math.floor(dayOf(each.refundedAtMs) / payoutEveryDays);
      const { gatewayRefundId: gatewayChargeId, reference, amount, currency } = each;
      const worth = (lines: readonly PayoutLine[]) =>
        lines.reduce(
          (sum, line) => sum + (line.kind === 'refund' ? -line.amount : line.amount - line.fee - line.feeTax),
          0,
        );
      const into = periods.find(([period, lines]) => period >= since && worth(lines) >= amount);
      into?.[1].push({ gatewayChargeId, reference, kind: 'refund', amount, currency, fee: 0, feeTax: 0 });
    }
  }

  /** Its own list of what it took, in the order of taking. */
  listed(account: string, fromMs: number, untilMs: number): ListedCharge[] {
    return this.captures
      .filter((each) => each.account === account)
      .filter((each) => each.capturedAtMs >= fromMs && each.capturedAtMs < untilMs)
      .map((each) => ({
        gatewayChargeId: each.gatewayChargeId,
        reference: each.reference,
        invoiceId: each.invoiceId,
        amount: each.amount,
        currency: each.currency,
        refunded: this.refunds
          .filter((refund) => refund.account === account && refund.chargeReference === each.reference)
          .reduce((sum, refund) => sum + refund.amount, 0),
        method: each.method,
        capturedAt: instantOf(each.capturedAtMs),
      }));
  }

  #isOpen(page: Page): boolean {
    return page.state === 'open' && this.#baton.nowMs < Date.parse(page.request.expiresAt);
  }

  #outcomeOf(key: string): ChargeOutcome | null {
    const capture = this.#captured.get(key);
    if (capture !== undefined) {
      const { gatewayChargeId, amount, currency, method, savedMethod } = capture;
      const capturedAt = instantOf(capture.capturedAtMs);
      return {
        kind: 'succeeded',
        captured: { gatewayChargeId, amount, currency, capturedAt, method, savedMethod },
      };
    }
    const declined = this.#declines.get(key);
    return declined === undefined
      ? null
      : { kind: 'failed', codes: declined.codes, gatewayChargeId: declined.id };
  }

  async #capture(
    request: Pick<OffSessionCharge, 'reference' | 'invoiceId' | 'amount' | 'currency'> & {
      method?: HostedPageRequest['method'];
    },
    account: string,
    savedMethod: SavedMethod | null,
  ): Promise<void> {
    const { reference, invoiceId, amount, currency } = request;
    await this.#take({
      account,
      reference,
      invoiceId,
      gatewayChargeId: this.#id('ch'),
      amount,
      currency,
      method: request.method ?? 'card',
      capturedAtMs: this.#baton.nowMs,
      savedMethod,
    });
  }

  async #take(capture: Capture): Promise<void> {
    this.captures.push(capture);
    this.#captured.set(keyOf(capture.account, capture.reference), capture);
    this.#tell(capture.account, capture.reference, 'charge.succeeded');
    await this.onCapture(capture);
  }

  /** Saved cards of which somebody was told that they are replaced or closed. */
  get cardsChanged(): number {
    return this.#newsOfToken.size;
  }

  /** The same each time: a card is replaced once, and a closed one stays closed. */
  newsOf(token: string): CardNews {
    const known = this.#newsOfToken.get(token);
    if (known !== undefined) return known;
    const fate = this.#faults.draw(this.#faults.profile.gateway, 'cardReplaced', 'cardClosed');
    const card = cardByName(token.split('.')[1] ?? '');
    if (card === undefined) throw new Error(`impossible state: no card ${token}`);
    // Nothing new today may be something new tomorrow.
    if (fate === null) return { kind: 'unknown' };
    const news: CardNews =
      fate === 'cardReplaced'
        ? { kind: 'replaced', method: this.#save(card) }
        : { kind: 'closed', code: 'account_closed' };
    this.#newsOfToken.set(token, news);
    return news;
  }

  #save(card: TestCard): SavedMethod {
    return {
      token: `tok.${card.name}.${this.#id('card')}`,
      brand: card.brand,
      lastFour: card.pan.slice(-4),
      expires: '2039-12',
      networkTransactionId: this.#id('ntx'),
      threeDsEci: '05',
    };
  }

  /** Webhooks go out once, twice, late, in any order or never. */
  #tell(account: string, reference: string, kind: string): void {
    const { webhookLost, webhookTwice, webhookLate } = this.#faults.profile.gateway;
    if (this.#faults.hits(webhookLost)) return;
    const body = Buffer.from(JSON.stringify({ id: this.#id('evt'), account, reference, kind }));
    const copies = this.#faults.hits(webhookTwice) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) {
      const delayMs = this.#faults.hits(webhookLate)
        ? this.#faults.between(60_000, 2 * dayMs)
        : this.#faults.between(50, 5_000);
      this.onWebhook({ account, body, signature: signatureOf(body), dueAtMs: this.#baton.nowMs + delayMs });
    }
  }

  #id(what: string): string {
    this.#made += 1;
    return `${what}_${this.#made}`;
  }
}

/** The adapter of one process: every call takes time, and may be cut off on its way there or back. */
export function simulatedGateway(baton: Baton, self: Mortal, faults: Faults, truth: GatewayTruth): Gateway {
  const there = (what: string) => baton.pause(self, faults.between(30, 900), what);
  const back = (what: string) => baton.pause(self, faults.between(10, 300), what);
  const silence = async (what: string) => {
    await baton.pause(self, callDeadlineMs, `${what} times out`);
    return { kind: 'unknown', why: 'timeout' } as const;
  };
  const isDown = () => baton.nowMs < truth.downUntilMs;
  const later = (work: () => Promise<unknown>) => {
    const afterMs = callDeadlineMs + faults.between(0, notFoundConclusiveAfterMs - 10_000);
    baton.at(baton.nowMs + afterMs, 'the gateway executes a late call', () => void work());
  };

  return {
    name: 'simulator',
    semantics: {
      idempotencyKeyLifetimeMs: keyLivesMs,
      replaysStoredErrors: true,
      looksUpByReference: true,
      notFoundConclusiveAfterMs,
      comparesRequests: true,
      callDeadlineMs,
      pageMethods: ['card', 'wallet'],
      cardsPerRefresh: 5,
    },

    async refreshCards({ reference, tokens }) {
      const fault = faults.draw(
        faults.profile.gateway,
        'timeoutBefore',
        'timeoutAfter',
        'rateLimited',
        'cardNewsLate',
      );
      await there(`gateway.refresh ${reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.refresh');
      if (fault === 'rateLimited') return { kind: 'not_executed', why: '429' };
      if (fault === 'cardNewsLate') return { kind: 'pending' };
      const news = tokens.map((token) => truth.newsOf(token));
      if (fault === 'timeoutAfter') return silence('gateway.refresh');
      await back('gateway.refresh answered');
      return { kind: 'answered', news };
    },

    barcodes: {
      newsDays: 1,
      async lookup(account, reference) {
        await there(`gateway.lookupBarcode ${reference}`);
        if (isDown() || faults.hits(faults.profile.gateway.lookupFails))
          return silence('gateway.lookupBarcode');
        const payment = truth.shopPayment(account, reference);
        await back(`gateway.lookupBarcode ${payment?.state ?? 'not found'}`);
        return payment === null ? { kind: 'not_found' } : { kind: 'found', payment };
      },
      async *news(account, from, until) {
        await there(`gateway.barcodeNews ${account} ${from}`);
        if (isDown()) throw new Error('news of barcodes: no answer');
        const payments = truth.shopNews(account, Date.parse(from), Date.parse(until));
        const cutOff = faults.hits(faults.profile.gateway.reportCutOff);
        await back(`gateway.barcodeNews ${payments.length}`);
        yield* cutOff ? payments.slice(0, payments.length / 2) : payments;
        if (cutOff) throw new Error('news of barcodes: cut off before their end');
      },
    },

    async charge(request) {
      truth.onChargeBegins(request.account);
      const fault = faults.draw(
        faults.profile.gateway,
        'timeoutBefore',
        'timeoutAfter',
        'timeoutLate',
        'error500Before',
        'error500After',
        'rateLimited',
      );
      await there(`gateway.charge ${request.reference} ${fault ?? ''}`);
      if (isDown()) return silence('gateway.charge');
      switch (fault) {
        case 'timeoutBefore':
          return silence('gateway.charge');
        case 'timeoutAfter':
          await truth.charge(request, false);
          return silence('gateway.charge');
        case 'timeoutLate':
          later(() => truth.charge(request, false));
          return silence('gateway.charge');
        case 'error500Before':
          truth.failBefore(request);
          await back('gateway.charge 500');
          return { kind: 'unknown', why: '500' };
        case 'error500After':
          await truth.charge(request, true);
          await back('gateway.charge 500');
          return { kind: 'unknown', why: '500' };
        case 'rateLimited':
          await back('gateway.charge 429');
          return { kind: 'not_executed', why: '429', retryAfterMs: 1_000, tooFast: true };
        default: {
          const answer = await truth.charge(request, false);
          await back(`gateway.charge ${answer.kind}`);
          return answer;
        }
      }
    },

    async openHostedPage(request) {
      const fault = faults.draw(
        faults.profile.gateway,
        'timeoutBefore',
        'timeoutAfter',
        'timeoutLate',
        'rateLimited',
      );
      await there(`gateway.open ${request.reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.open');
      if (fault === 'rateLimited') return { kind: 'not_executed', why: '429', retryAfterMs: 1_000 };
      if (fault === 'timeoutLate') {
        later(async () => truth.openPage(request));
        return silence('gateway.open');
      }
      const page = truth.openPage(request);
      if (fault === 'timeoutAfter') return silence('gateway.open');
      await back('gateway.open opened');
      return { kind: 'opened', gatewaySessionId: page.id, url: urlOf(page) };
    },

    async closeHostedPage(account, reference) {
      const fault = faults.draw(faults.profile.gateway, 'timeoutBefore', 'timeoutAfter');
      await there(`gateway.close ${reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.close');
      truth.closePage(account, reference);
      const answer = truth.stateOf(account, reference);
      if (fault === 'timeoutAfter') return silence('gateway.close');
      await back(`gateway.close ${answer.kind}`);
      return answer;
    },

    async openSetupPage(request) {
      const fault = faults.draw(faults.profile.gateway, 'timeoutBefore', 'timeoutAfter', 'rateLimited');
      await there(`gateway.openSetup ${request.reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.openSetup');
      if (fault === 'rateLimited') return { kind: 'not_executed', why: '429', retryAfterMs: 1_000 };
      const setup = truth.openSetup(request);
      if (fault === 'timeoutAfter') return silence('gateway.openSetup');
      await back('gateway.openSetup opened');
      return { kind: 'opened', gatewaySessionId: setup.id, url: urlOf(setup) };
    },

    async closeSetupPage(account, reference) {
      const fault = faults.draw(faults.profile.gateway, 'timeoutBefore', 'timeoutAfter');
      await there(`gateway.closeSetup ${reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.closeSetup');
      truth.closeSetup(account, reference);
      const answer = truth.setupOf(account, reference);
      if (fault === 'timeoutAfter') return silence('gateway.closeSetup');
      await back(`gateway.closeSetup ${answer.kind}`);
      return answer;
    },

    async lookupSetup(account, reference) {
      await there(`gateway.lookupSetup ${reference}`);
      if (isDown() || faults.hits(faults.profile.gateway.lookupFails)) return silence('gateway.lookupSetup');
      const answer = truth.setupOf(account, reference);
      await back(`gateway.lookupSetup ${answer.kind}`);
      return answer;
    },

    async refund(request) {
      const fault = faults.draw(
        faults.profile.gateway,
        'timeoutBefore',
        'timeoutAfter',
        'timeoutLate',
        'rateLimited',
      );
      await there(`gateway.refund ${request.reference} ${fault ?? ''}`);
      if (isDown() || fault === 'timeoutBefore') return silence('gateway.refund');
      if (fault === 'rateLimited') return { kind: 'not_executed', why: '429' };
      if (fault === 'timeoutLate') {
        later(() => truth.refund(request));
        return silence('gateway.refund');
      }
      const answer = await truth.refund(request);
      if (fault === 'timeoutAfter') return silence('gateway.refund');
      await back(`gateway.refund ${answer.kind}`);
      return answer.kind === 'not_found' ? { kind: 'unknown', why: 'not found' } : answer;
    },

    async lookupRefund(account, reference) {
      await there(`gateway.lookupRefund ${reference}`);
      if (isDown() || faults.hits(faults.profile.gateway.lookupFails)) return silence('gateway.lookupRefund');
      const answer = truth.refundOf(account, reference);
      await back(`gateway.lookupRefund ${answer.kind}`);
      return answer;
    },

    async lookup(account, reference) {
      await there(`gateway.lookup ${reference}`);
      if (isDown() || faults.hits(faults.profile.gateway.lookupFails)) return silence('gateway.lookup');
      const answer = truth.stateOf(account, reference);
      await back(`gateway.lookup ${answer.kind}`);
      return answer;
    },

    verifyWebhook(rawBody, headers): WebhookHint | null {
      if (headers['simulator-signature'] !== signatureOf(rawBody)) return null;
      const { id, account, reference, kind } = JSON.parse(rawBody.toString('utf8')) as Record<string, string>;
      return id && account && reference && kind ? { eventId: id, account, reference, kind } : null;
    },

    async settlementReport(account, date) {
      const { reportLate, reportCutOff } = faults.profile.gateway;
      await there(`gateway.report ${account} ${date}`);
      if (isDown()) throw new Error('settlement report: no answer');
      const lines = faults.hits(reportLate) ? null : truth.reportOf(account, date);
      await back(`gateway.report ${lines?.length ?? 'not ready'}`);
      if (lines === null) return null;
      const cutOff = faults.hits(reportCutOff);
      return (async function* () {
        for (const [index, line] of lines.entries()) {
          if (cutOff && index * 2 >= lines.length) break;
          yield line;
        }
        if (cutOff) throw new Error('settlement report: cut off before its end');
      })();
    },

    async payouts(account, from, to) {
      const { payoutsLate, payoutDiffers } = faults.profile.gateway;
      await there(`gateway.payouts ${account}`);
      if (isDown()) throw new Error('payouts: no answer');
      const isLate = faults.hits(payoutsLate);
      const differs = faults.hits(payoutDiffers);
      const listed = truth
        .payoutsOf(account)
        .map(({ payout }) => payout)
        .filter(({ valueDate }) => valueDate >= from && valueDate <= to);
      await back(`gateway.payouts ${isLate ? 'not ready' : listed.length}`);
      if (isLate) return null;
      // The gateway is wrong about the newest, and mends it later.
      return differs
        ? listed.map((each, at) => (at === listed.length - 1 ? { ...each, net: each.net - 1 } : each))
        : listed;
    },

    async payoutLines(account, payoutId) {
      await there(`gateway.payout ${account} ${payoutId}`);
      if (isDown()) throw new Error('payout: no answer');
      const lines = truth.payoutsOf(account).find(({ payout }) => payout.id === payoutId)?.lines ?? [];
      const cutOff = faults.hits(faults.profile.gateway.reportCutOff);
      await back(`gateway.payout ${lines.length}`);
      return (async function* () {
        for (const [index, line] of lines.entries()) {
          if (cutOff && index * 2 >= lines.length) break;
          yield line;
        }
        if (cutOff) throw new Error('payout: cut off before its end');
      })();
    },

    async *listCharges(account, from, until) {
      await there(`gateway.list ${account} ${from}`);
      if (isDown()) throw new Error('list of charges: no answer');
      const lines = truth.listed(account, Date.parse(from), Date.parse(until));
      const cutOff = faults.hits(faults.profile.gateway.reportCutOff);
      await back(`gateway.list ${lines.length}`);
      yield* cutOff ? lines.slice(0, lines.length / 2) : lines;
      if (cutOff) throw new Error('list of charges: cut off before its end');
    },
  };
}

export function urlOf(page: Pick<Page, 'id'>): string {
  return `https://gateway.invalid/pay/${page.id}`;
}

function keyOf(account: string, reference: string): string {
  return `${account} ${reference}`;
}

function signatureOf(body: Buffer): string {
  return createHash('sha256').update('webhook secret').update(body).digest('hex');
}

function instantOf(epochMs: number): string {
  return Temporal.Instant.fromEpochMilliseconds(epochMs).toString({ smallestUnit: 'millisecond' });
}

/** Days since 1970 in Japan. */
function dayOf(epochMs: number): number {
  return Math.floor((epochMs + 9 * 3_600_000) / dayMs);
}

function feesOf(amount: number): { fee: number; feeTax: number } {
  const fee = Math.floor((amount * 325) / 10_000);
  return { fee, feeTax: Math.floor(fee / 10) };
}
