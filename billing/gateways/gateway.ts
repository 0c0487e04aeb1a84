/**
 * What Seikyu needs of a payment gateway. An adapter declares what the gateway promises; callers act on the
 * declaration, never on the gateway's name. Amounts are integers in the currency's minor unit (JPY: 1 = ¥1).
 */

export interface GatewaySemantics {
  /** The same idempotency key sent again within this time is answered from the first execution. */
  readonly idempotencyKeyLifetimeMs: number;
  /** A stored 500 is replayed for ever under the same key: then look up, do not replay in a loop. */
  readonly replaysStoredErrors: boolean;
  /** The gateway can find a charge by our reference. */
  readonly looksUpByReference: boolean;
  /** "Not found" proves that nothing happened only this long after the call's deadline. */
  readonly notFoundConclusiveAfterMs: number;
  /** A request that carries a fingerprint differing from the key's first is refused. */
  readonly comparesRequests: boolean;
  /** Deadline for one call. */
  readonly callDeadlineMs: number;
  /** What its own page takes. */
  readonly pageMethods: readonly PageMethod[];
  /** So many saved cards its updater is asked about at once; 0: it has none, and `refreshCards` answers `not_offered`. */
  readonly cardsPerRefresh: number;
}

/** Ways to pay on a gateway's own page. */
export type PageMethod = 'card' | 'wallet';

/** Raw codes as the gateway gave them; every one that it knows is kept. */
export interface DeclineCodes {
  /** The gateway's own code, e.g. Stripe's `insufficient_funds`. */
  gatewayCode: string | null;
  /** visa, mastercard, jcb ... */
  network: string | null;
  /** ISO 8583 response code, e.g. `51`. */
  networkCode: string | null;
  /** Mastercard merchant advice code and alike, e.g. `02`. */
  adviceCode: string | null;
}

/** A card token that may be charged again without its holder (never a card number). */
export interface SavedMethod {
  token: string;
  brand: string;
  lastFour: string;
  /** YYYY-MM */
  expires: string;
  /** Network transaction id of the first, authenticated payment. */
  networkTransactionId: string | null;
  /** Proof of 3-D Secure: ECI, or null where none took place. */
  threeDsEci: string | null;
}

export interface Captured {
  gatewayChargeId: string;
  amount: number;
  currency: string;
  /** When the gateway took the money. ISO 8601 instant. */
  capturedAt: string;
  method: 'card' | 'wallet' | 'barcode' | 'debit';
  savedMethod: SavedMethod | null;
}

/**
 * The end of one charge as the gateway tells it. A hosted page that ended with no attempt and no money is `failed`
 * with the gateway code `page_closed`, `page_expired` or `page_cancelled`: conclusive, and no verdict on any card.
 */
export type ChargeOutcome =
  | { kind: 'succeeded'; captured: Captured }
  | { kind: 'failed'; codes: DeclineCodes; gatewayChargeId: string | null };

/** The answer to a call that may move money. */
export type ChargeAnswer =
  | ChargeOutcome
  /** Certainly without effect (429, refused before execution): the same reference may be sent again. `tooFast`: slower. */
  | { kind: 'not_executed'; why: string; retryAfterMs: number | null; tooFast?: true }
  /**
   * Timeout, lost connection, 5xx, or a key that stands for another request: the effect may or may not have
   * happened. Never a failure.
   */
  | { kind: 'unknown'; why: string };

/** The answer to a question about a reference. */
export type LookupAnswer =
  | ChargeOutcome
  /** The gateway has it and has not finished (hosted page open, 3-D Secure under way). */
  | { kind: 'pending' }
  | { kind: 'not_found' }
  | { kind: 'unknown'; why: string };

export interface OffSessionCharge {
  /** The merchant's account at the gateway: the merchant's code. */
  account: string;
  /** 26 characters of Crockford base32; also the idempotency key. */
  reference: string;
  /** Kept by the gateway beside the charge, so that a charge that we have forgotten can still be put to its bill. */
  invoiceId: string;
  amount: number;
  currency: string;
  methodToken: string;
  networkTransactionId: string | null;
}

export interface HostedPageRequest {
  account: string;
  reference: string;
  /** As in `OffSessionCharge`. */
  invoiceId: string;
  amount: number;
  currency: string;
  /** Where the gateway sends the customer back; a hint only, never proof. */
  returnUrl: string;
  language: 'ja' | 'en';
  merchantName: string;
  method: PageMethod;
  /** The customer ticked automatic payment: keep the card for use without its holder. */
  saveMethod: boolean;
  /** The page takes no payment after this instant. ISO 8601. */
  expiresAt: string;
}

export type HostedPageAnswer =
  | { kind: 'opened'; gatewaySessionId: string; url: string }
  | { kind: 'not_executed'; why: string; retryAfterMs: number | null }
  | { kind: 'unknown'; why: string };

/** A page on which a customer has a card kept for use without its holder, and pays nothing. */
export type SetupPageRequest = Pick<
  HostedPageRequest,
  'account' | 'reference' | 'currency' | 'returnUrl' | 'language' | 'merchantName' | 'expiresAt'
>;

/** The end of such a page. One that ended without a card is `failed`, with a code as of a page that took no money. */
export type SetupOutcome =
  | { kind: 'succeeded'; savedMethod: SavedMethod }
  | { kind: 'failed'; codes: DeclineCodes };

export type SetupLookup =
  | SetupOutcome
  | { kind: 'pending' }
  | { kind: 'not_found' }
  | { kind: 'unknown'; why: string };

/** A verified webhook: a hint which reference to ask about, never the truth itself. */
export interface WebhookHint {
  eventId: string;
  account: string;
  /** Null: genuine, and about nothing that this program made. It is acknowledged and forgotten. */
  reference: string | null;
  kind: string;
  /** Which of the gateway's accounts it comes from, null for our own; left out where the gateway has no such thing. */
  gatewayAccount?: string | null;
}

/** What we kept of the gateway's answers about a charge: it need not be looked for by reference then. */
export interface KnownOfCharge {
  gatewaySessionId: string | null;
}

export interface SettlementLine {
  /** The charge's; of a refund, the refund's own. */
  gatewayChargeId: string;
  /** Our reference of the charge or refund; null where the gateway has one without. */
  reference: string | null;
  /** `refund` and `chargeback`: money that went back. */
  kind: 'charge' | 'refund' | 'chargeback';
  amount: number;
  currency: string;
  fee: number;
  feeTax: number;
  /** ISO 8601 instant. */
  capturedAt: string;
}

/** Money that the gateway sends to the merchant: what it took, less what went back and what it keeps. */
export interface Payout {
  /** The gateway's own, of [A-Za-z0-9_-] and at most 64 characters: it stands in the merchant's file. */
  id: string;
  /** YYYY-MM-DD: when the merchant's bank has it. */
  valueDate: string;
  currency: string;
  /** Charges less refunds; like net below zero where more went back than came in. */
  gross: number;
  fee: number;
  feeTax: number;
  /** gross - fee - feeTax */
  net: number;
}

/** A payout as the gateway's list has it. Some tell only its net: the rest is then what its lines add up to. */
export type ListedPayout = Payout | (Pick<Payout, 'id' | 'valueDate' | 'currency' | 'net'> & ToldNetOnly);
interface ToldNetOnly {
  gross: null;
  fee: null;
  feeTax: null;
}

export interface PayoutLine {
  /** As in `SettlementLine`. */
  gatewayChargeId: string;
  reference: string | null;
  kind: 'charge' | 'refund';
  /** Not negative; a refund counts as less. */
  amount: number;
  /** What the gateway keeps; below zero where it gives a fee back. */
  fee: number;
  feeTax: number;
  currency: string;
}

/** One capture as the gateway's own list has it, whatever we know of it. */
export interface ListedCharge {
  gatewayChargeId: string;
  /** Our reference; null where the gateway has a charge without one. */
  reference: string | null;
  /** The bill that we named when we asked; null where we did not. */
  invoiceId: string | null;
  amount: number;
  currency: string;
  /** How much of it went back. */
  refunded: number;
  method: Captured['method'];
  /** ISO 8601 instant. */
  capturedAt: string;
}

export interface RefundRequest {
  account: string;
  /** 26 characters of Crockford base32, the refund's own; also the idempotency key. */
  reference: string;
  /** Our reference of the charge, and the gateway's id of it where we have it. */
  chargeReference: string;
  gatewayChargeId: string | null;
  amount: number;
  currency: string;
}

export type RefundOutcome =
  | {
      kind: 'succeeded';
      refunded: {
        gatewayRefundId: string;
        amount: number;
        currency: string;
        /** ISO 8601 instant. */
        refundedAt: string;
      };
    }
  /** Certainly nothing was given back, and nothing will be: too old, the card is gone, more than is left. */
  | { kind: 'failed'; code: string };

export type RefundAnswer =
  | RefundOutcome
  /** Certainly without effect; it may be tried again. */
  | { kind: 'not_executed'; why: string }
  /** The effect may or may not have happened. Never a failure. */
  | { kind: 'unknown'; why: string };

export type RefundLookup = RefundOutcome | { kind: 'not_found' } | { kind: 'unknown'; why: string };

export interface RefreshRequest {
  account: string;
  /** 26 characters of Crockford base32, the question's own: asked again under it, the answer is that of the first time. */
  reference: string;
  /** Saved cards' tokens, at most `cardsPerRefresh`. */
  tokens: readonly string[];
}

/** What a gateway's updater (洗替) knows of one saved card. */
export type CardNews =
  /** It has a new number or date: this token is charged from now on. */
  | { kind: 'replaced'; method: SavedMethod }
  /** The issuer has closed it, or wants its holder to be asked: charging it is of no use. `code`: the gateway's own. */
  | { kind: 'closed'; code: string }
  /** Nothing new, or not known there: it is tried as before. */
  | { kind: 'unknown' };

export type RefreshAnswer =
  /** In the order of the tokens. */
  | { kind: 'answered'; news: readonly CardNews[] }
  /** The gateway has the question, and answers on a later day. */
  | { kind: 'pending' }
  /** Certainly without effect. */
  | { kind: 'not_executed'; why: string }
  /** It may have been taken: asked again under the same reference. */
  | { kind: 'unknown'; why: string }
  | { kind: 'not_offered' };

/** A barcode that somebody paid at a shop or with a phone's payment app, as the gateway knows it now. */
export interface BarcodePayment {
  /**
   * The payment's own, in the form of ours, and so the id of our charge: beginning with the milliseconds of the payment, and
   * always the same for it. An adapter whose gateway has no such thing makes it of the barcode, the time and the shop.
   */
  reference: string;
  gatewayChargeId: string;
  /** The 44 digits that were scanned. */
  barcode: string;
  /** `preliminary` (速報): the shop says so. `final` (確報): the money is certain. `cancelled` (速報取消): it was taken back. */
  state: 'preliminary' | 'final' | 'cancelled';
  amount: number;
  currency: string;
  /** When the register took it, and when the money was certain. ISO 8601 instants. */
  paidAt: string;
  finalAt: string | null;
}

export type BarcodeAnswer =
  | { kind: 'found'; payment: BarcodePayment }
  | { kind: 'not_found' }
  | { kind: 'unknown'; why: string };

export interface BarcodePayments {
  /** Within so many days of a payment the gateway has told of it. */
  readonly newsDays: number;
  /** A payment as it is now. `Gateway.lookup` knows it too, once it is final as `succeeded`, before as `pending`. */
  lookup(account: string, reference: string, signal: AbortSignal): Promise<BarcodeAnswer>;
  /**
   * Every payment of which there was news in [from, until) (ISO 8601 instants), as it is now. Reading throws where the
   * gateway cannot be reached and where the list is cut off.
   */
  news(account: string, from: string, until: string, signal: AbortSignal): AsyncIterable<BarcodePayment>;
}

export interface Gateway {
  readonly name: string;
  readonly semantics: GatewaySemantics;
  /** Null: it collects nothing at shops. */
  readonly barcodes: BarcodePayments | null;
  /** Charges a saved method without its holder. */
  charge(request: OffSessionCharge, signal: AbortSignal): Promise<ChargeAnswer>;
  /** What has become of saved cards since they were saved. No card is charged by it. */
  refreshCards(request: RefreshRequest, signal: AbortSignal): Promise<RefreshAnswer>;
  /** Opens the gateway's own page; card numbers never touch Seikyu. Sent again with the same reference: the same page. */
  openHostedPage(request: HostedPageRequest, signal: AbortSignal): Promise<HostedPageAnswer>;
  /** Closes a hosted page so that it can take no more money, then answers as `lookup` does. */
  closeHostedPage(
    account: string,
    reference: string,
    signal: AbortSignal,
    known?: KnownOfCharge,
  ): Promise<LookupAnswer>;
  lookup(
    account: string,
    reference: string,
    signal: AbortSignal,
    known?: KnownOfCharge,
  ): Promise<LookupAnswer>;
  /** The page for a card alone. Sent again with the same reference: the same page. */
  openSetupPage(request: SetupPageRequest, signal: AbortSignal): Promise<HostedPageAnswer>;
  /** Closes such a page so that it keeps no card any more, then answers as `lookupSetup` does. */
  closeSetupPage(
    account: string,
    reference: string,
    signal: AbortSignal,
    known?: KnownOfCharge,
  ): Promise<SetupLookup>;
  lookupSetup(
    account: string,
    reference: string,
    signal: AbortSignal,
    known?: KnownOfCharge,
  ): Promise<SetupLookup>;
  /** Gives money of a charge back. Sent again under the same reference: answered from the first execution. */
  refund(request: RefundRequest, signal: AbortSignal): Promise<RefundAnswer>;
  /** What became of a refund, by its reference. "Not found" proves something after the same window as for charges. */
  lookupRefund(account: string, reference: string, signal: AbortSignal): Promise<RefundLookup>;
  /** Checks signature and age over the raw bytes. Null: forged, stale or not for us. */
  verifyWebhook(
    rawBody: Buffer,
    headers: Record<string, string | undefined>,
    nowEpochMs: number,
  ): WebhookHint | null;
  /**
   * All that the gateway captured or refunded for an account on a date (its own day, UTC+9). Null: report not ready
   * yet. The call throws where the gateway cannot be reached; reading throws where the report is cut off or does not
   * tie to its own end.
   */
  settlementReport(
    account: string,
    date: string,
    signal: AbortSignal,
  ): Promise<AsyncIterable<SettlementLine> | null>;
  /**
   * Payouts with a value date from `from` to `to` (YYYY-MM-DD, both included), in any order. Null: the gateway has no
   * list to show (yet). Throws where it cannot be reached.
   */
  payouts(account: string, from: string, to: string, signal: AbortSignal): Promise<ListedPayout[] | null>;
  /** All that a payout is made of. The call throws where the gateway cannot be reached, reading where it is cut off. */
  payoutLines(account: string, payoutId: string, signal: AbortSignal): Promise<AsyncIterable<PayoutLine>>;
  /**
   * Every capture of an account in [from, until) by when it was taken (ISO 8601 instants), whatever we know of it. Reading
   * throws where the gateway cannot be reached and where the list is cut off.
   */
  listCharges(account: string, from: string, until: string, signal: AbortSignal): AsyncIterable<ListedCharge>;
}
