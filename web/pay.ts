import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Temporal } from 'temporal-polyfill';
import { raiseAlert } from '../billing/alerts/queries.ts';
import { issueBarcode } from '../billing/barcodes/issue.ts';
import { viewBarcode } from '../billing/barcodes/view.ts';
import { checkLastFour } from '../billing/checkout/check-last-four.ts';
import { findLink } from '../billing/checkout/find-link.ts';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { methodsOffered } from '../billing/checkout/methods.ts';
import { merchantOf } from '../billing/checkout/queries.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { type BillView, todayOf, viewBill } from '../billing/checkout/view-bill.ts';
import type { PageMethod } from '../billing/gateways/gateway.ts';
import { html, isOurOwnPost } from './headers.ts';
import { networkOf } from './network.ts';
import { askPage } from './pages/ask.tsx';
import { barcodePage } from './pages/barcode.tsx';
import { billPage, receiptPage } from './pages/bill.tsx';
import { type PageState, statePage } from './pages/state.tsx';
import { paths } from './paths.ts';
import type { WebContext } from './ports.ts';
import { clockTime, type Language, languageFor } from './texts.ts';
import {
  newVisitId,
  openReturn,
  openVisit,
  otherLanguageUrl,
  sealReturn,
  sealVisit,
  type Visit,
  visitCookie,
  visitSeconds,
} from './visit.ts';

type VisitRequest = FastifyRequest<{
  Params: { visit: string; method?: string };
  Querystring: Record<string, unknown>;
  Body: Record<string, unknown> | undefined;
}>;

/** What each state means for HTTP. A link that leads nowhere any more is gone; all unknown ones look alike. */
const statusOf: Partial<Record<PageState, number>> = {
  unknown: 404,
  resting: 503,
  expired: 410,
  cancelled: 410,
  returned: 410,
  not_theirs: 410,
};

/** Where a gateway that takes nothing says no time. */
export const comeBackAfterMs = 5 * 60_000;

/** Three seconds: most pages open within one. */
const looksAtOpening = 10;
const openingPauseMs = 300;

/** So many unknown tokens within an hour are no mistyped links. */
const missesToAlert = 100;
const missWindowMs = 3_600_000;

export function payRoutes(app: FastifyInstance, context: WebContext): void {
  const { db, ports } = context;
  const misses = { since: 0, count: 0 };

  function unknown(request: FastifyRequest, reply: FastifyReply, language?: Language, status = 404) {
    return html(
      reply,
      status,
      statePage({ state: 'unknown', language: language ?? browserLanguage(request), merchant: null }),
    );
  }

  app.get<{ Params: { token: string } }>(paths.link.pattern, async (request, reply) => {
    const found = await findLink(db, request.params.token);
    if (found === null) {
      await countMiss();
      return unknown(request, reply);
    }
    const visit: Visit = {
      id: newVisitId(ports.randomness),
      link: found.link,
      checked: false,
      language: languageFor(request.headers['accept-language'], found.merchant.settings.notify.languages),
    };
    setVisit(reply, visit);
    return reply.redirect(paths.bill.of(visit.id), 303);
  });

  app.get(paths.bill.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (visit === null) return unknown(request, reply);
    const wanted = request.query.language;
    if (wanted === 'ja' || wanted === 'en') {
      setVisit(reply, { ...visit, language: wanted });
      return reply.redirect(paths.bill.of(visit.id), 303);
    }
    return showBill(request, reply, visit);
  });

  app.post(paths.check.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, undefined, 403);
    if (visit === null) return unknown(request, reply);
    const checked = await checkLastFour(
      db,
      ports,
      visit.link,
      field(request, 'answer'),
      networkOf(request.ip),
    );
    if (checked.kind === 'right') {
      setVisit(reply, { ...visit, checked: true });
      return reply.redirect(paths.bill.of(visit.id), 303);
    }
    const view = await viewBill(db, ports.clock.now(), visit.link);
    if (view === null) return unknown(request, reply, visit.language);
    const status = checked.kind === 'wrong' ? 422 : 429;
    return html(reply, status, askPage(view, visit, otherLanguageUrl(visit), checked));
  });

  /** Whoever comes back to a paid bill shows to be the customer here: for the receipt, and for automatic payment. */
  app.get(paths.receipt.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) return unknown(request, reply, visit?.language);
    return asksFirst(view, visit)
      ? html(reply, 200, askPage(view, visit, otherLanguageUrl(visit), cooling(view)))
      : reply.redirect(paths.bill.of(visit.id), 303);
  });

  app.post(paths.pay.pattern, (request: VisitRequest, reply) => pay(request, reply, 'card'));
  app.post(paths.payBy.pattern, (request: VisitRequest, reply) =>
    request.params.method === 'wallet' ? pay(request, reply, 'wallet') : unknown(request, reply),
  );

  async function pay(request: VisitRequest, reply: FastifyReply, method: PageMethod): Promise<FastifyReply> {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, undefined, 403);
    if (visit === null) return unknown(request, reply);
    const view = await viewBill(db, ports.clock.now(), visit.link);
    if (view === null) return unknown(request, reply, visit.language);
    if (!mayRead(view, visit)) return reply.redirect(paths.bill.of(visit.id), 303);

    // Which bill and how much come from the visit alone: the form says only whether the tick is set.
    const press = () =>
      startCheckout(db, ports, {
        link: visit.link,
        method,
        enrol: field(request, 'enrol') === 'yes',
        language: visit.language,
        returnUrlOf: (chargeId) =>
          context.baseUrl +
          paths.back.of(
            sealReturn(ports.sealer, ports.clock.now(), 'return', {
              merchantId: visit.link.merchantId,
              id: chargeId,
              visitId: visit.id,
              language: visit.language,
            }),
          ),
      });
    let started = await press();
    // A double click: the page is being opened by the press before, and the browser shows the answer to this one.
    for (let looks = 0; started.kind === 'waiting' && looks < looksAtOpening; looks++) {
      const now = await viewBill(db, ports.clock.now(), visit.link);
      if (now?.bill.charge_origin !== 'link' || now.bill.charge_state !== 'processing') break;
      await ports.clock.sleep(openingPauseMs);
      await ports.clock.refresh();
      started = await press();
    }
    if (started.kind === 'redirect') return reply.redirect(started.url, 303);
    if (started.kind === 'try_again') {
      const seconds = Math.ceil((started.retryAfterMs ?? comeBackAfterMs) / 1000);
      reply.header('retry-after', String(seconds));
      return showBill(request, reply, visit, ports.clock.now().add({ seconds }));
    }
    return reply.redirect(paths.bill.of(visit.id), 303);
  }

  app.post(paths.barcode.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, undefined, 403);
    if (visit === null) return unknown(request, reply);
    const view = await viewBill(db, ports.clock.now(), visit.link);
    if (view === null) return unknown(request, reply, visit.language);
    const issued = mayRead(view, visit) && (await issueBarcode(db, ports, visit.link)).kind === 'issued';
    return reply.redirect((issued ? paths.barcode : paths.bill).of(visit.id), 303);
  });

  app.get(paths.barcode.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (visit === null) return unknown(request, reply);
    const wanted = request.query.language;
    const language = wanted === 'ja' || wanted === 'en' ? wanted : visit.language;
    const shown = await viewBarcode(db, ports.clock.now(), visit.link);
    if (shown === null || !mayRead(shown.view, visit)) return reply.redirect(paths.bill.of(visit.id), 303);
    const other = `${paths.barcode.of(visit.id)}?language=${language === 'ja' ? 'en' : 'ja'}`;
    return html(
      reply,
      200,
      barcodePage({ ...shown, visit: { ...visit, language }, otherLanguageUrl: other }),
    );
  });

  /** Some gateways come back with a post, which brings no cookie; a reload must not ask whether to send it again. */
  app.post<{ Params: { nonce: string } }>(paths.back.pattern, async (request, reply) => {
    const { nonce } = request.params;
    if (openReturn(ports.sealer, ports.clock.now(), 'return', nonce) === null) return unknown(request, reply);
    return reply.redirect(paths.back.of(nonce), 303);
  });

  /** That the gateway sent the visitor back proves nothing: the gateway is asked. */
  app.get<{ Params: { nonce: string } }>(paths.back.pattern, async (request, reply) => {
    const back = openReturn(ports.sealer, ports.clock.now(), 'return', request.params.nonce);
    if (back === null) return unknown(request, reply);
    const merchant = await db.transaction((tx) => merchantOf(tx, back.merchantId), {
      merchantId: back.merchantId,
    });
    if (merchant === undefined) return unknown(request, reply, back.language);
    const { charges, unanswered } = await learnFromGateway(db, ports, merchant, [back.id], 'return');
    const charge = charges[0];
    if (charge === undefined) return unknown(request, reply, back.language);
    const state: PageState =
      charge.state === 'succeeded'
        ? 'paid'
        : charge.invoice_state === 'paid'
          ? 'already_paid'
          : charge.state === 'requires_action' && !unanswered.has(charge.charge_id)
            ? 'unfinished'
            : charge.state === 'failed' || charge.state === 'canceled'
              ? 'not_paid'
              : 'waiting';
    return html(
      reply,
      200,
      statePage({
        state,
        language: back.language,
        merchant,
        // While waiting the page asks again here; with the cookie the bill page knows the rest.
        billUrl: state === 'waiting' ? request.url : paths.bill.of(back.visitId),
        enrolled: state === 'paid' && charge.enrolled,
        method: charge.session_method ?? 'card',
        wasLeft: charge.was_left,
      }),
    );
  });

  async function showBill(
    request: FastifyRequest,
    reply: FastifyReply,
    visit: Visit,
    comeBackAt?: Temporal.Instant,
  ): Promise<FastifyReply> {
    let view = await viewBill(db, ports.clock.now(), visit.link);
    if (view === null) return unknown(request, reply, visit.language);
    const isRead = mayRead(view, visit);
    // The visitor may have come back without the gateway's help: ask before saying "under way".
    if (isRead && isUnderWayOnPage(view)) {
      await learnFromGateway(db, ports, view.merchant, [view.bill.charge_id ?? ''], 'return');
      view = (await viewBill(db, ports.clock.now(), visit.link)) ?? view;
    }
    const { state, merchant } = view;
    const other = otherLanguageUrl(visit);
    const today = todayOf(merchant, ports.clock.now());
    const methods = methodsOffered(merchant.settings, ports.gateway, view.bill.amount);
    const page = { view, visit, today, otherLanguageUrl: other, methods };
    if (state === 'owed' || state === 'in_payment') {
      if (!isRead) return html(reply, 200, askPage(view, visit, other, cooling(view)));
      if (comeBackAt === undefined || state !== 'owed') return html(reply, 200, billPage(page));
      const gatewayDownUntil = clockTime(comeBackAt.toString(), merchant.settings.timezone);
      return html(reply, 503, billPage({ ...page, gatewayDownUntil }));
    }
    if (state === 'paid' && isRead) return html(reply, 200, receiptPage(page));
    const shown: PageState = state === 'paid' ? 'already_paid' : state;
    return html(
      reply,
      statusOf[shown] ?? 200,
      statePage({
        state: shown,
        language: visit.language,
        merchant,
        otherLanguageUrl: other,
        billUrl: paths.bill.of(visit.id),
        receiptUrl: asksFirst(view, visit) ? paths.receipt.of(visit.id) : null,
      }),
    );
  }

  function cooling(view: BillView): { kind: 'cooling'; until: string } | null {
    const until = view.bill.cool_until;
    return until !== null && Temporal.Instant.compare(ports.clock.now(), until) < 0
      ? { kind: 'cooling', until }
      : null;
  }

  function visitOf(request: VisitRequest): Visit | null {
    return openVisit(ports.sealer, ports.clock.now(), request.params.visit, request.cookies[visitCookie]);
  }

  /** One cookie for each visit, at the visit's own path: the bills of one family in one browser do not mix. */
  function setVisit(reply: FastifyReply, visit: Visit): void {
    reply.setCookie(visitCookie, sealVisit(ports.sealer, ports.clock.now(), visit), {
      path: paths.bill.of(visit.id),
      httpOnly: true,
      sameSite: 'lax',
      secure: context.isSecure,
      maxAge: visitSeconds,
    });
  }

  async function countMiss(): Promise<void> {
    const now = ports.clock.now();
    if (now.epochMilliseconds - misses.since > missWindowMs) {
      misses.since = now.epochMilliseconds;
      misses.count = 0;
    }
    misses.count += 1;
    if (misses.count !== missesToAlert) return;
    await db.transaction(
      (tx) =>
        raiseAlert(tx, ports.ids.uuid(), now, {
          merchantId: 0,
          level: 'daily',
          cause: 'LINKS_PROBED',
          message: `${missesToAlert} unknown pay links were opened within an hour`,
          occurrences: missesToAlert,
        }),
      { merchantId: 0 },
    );
  }
}

/** Whether the visitor may see the bill itself. */
function mayRead(view: BillView, visit: Visit): boolean {
  return visit.checked || view.merchant.settings.checkout.ask === 'nothing';
}

/** A bill that is paid says more only to who is the customer. */
function asksFirst(view: BillView, visit: Visit): boolean {
  return view.state === 'paid' && !mayRead(view, visit);
}

function isUnderWayOnPage(view: BillView): boolean {
  return (view.state === 'in_payment' || view.state === 'waiting') && view.bill.charge_origin === 'link';
}

function browserLanguage(request: FastifyRequest): Language {
  return languageFor(request.headers['accept-language'], ['ja', 'en']);
}

function field(request: VisitRequest, name: string): string {
  const value = request.body?.[name];
  return typeof value === 'string' ? value.slice(0, 100) : '';
}
