import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Temporal } from 'temporal-polyfill';
import { learnCardChanges } from '../billing/card-changes/ask.ts';
import type { CardChangeNews } from '../billing/card-changes/queries.ts';
import { mayChangeCard, startCardChange } from '../billing/card-changes/start.ts';
import { type CardChangeView, viewCardChange } from '../billing/card-changes/view.ts';
import { merchantOf } from '../billing/checkout/queries.ts';
import { type BillView, viewBill } from '../billing/checkout/view-bill.ts';
import { html, isOurOwnPost } from './headers.ts';
import { cardPage } from './pages/card.tsx';
import { type PageState, statePage } from './pages/state.tsx';
import { paths } from './paths.ts';
import { comeBackAfterMs } from './pay.ts';
import type { WebContext } from './ports.ts';
import { clockTime, languageFor } from './texts.ts';
import { openReturn, openVisit, sealReturn, type Visit, visitCookie } from './visit.ts';

type VisitRequest = FastifyRequest<{ Params: { visit: string } }>;
type ReturnRequest = FastifyRequest<{ Params: { nonce: string } }>;

interface Asked {
  visit: Visit;
  view: BillView;
  change: CardChangeView;
}

/** Another card for automatic payment, from the link of any bill, without paying it. */
export function cardRoutes(app: FastifyInstance, context: WebContext): void {
  const { db, ports } = context;

  app.get(paths.card.pattern, async (request: VisitRequest, reply) => {
    const asked = await askedIn(request, reply);
    return asked === null ? reply : show(reply, asked);
  });

  app.post(paths.card.pattern, async (request: VisitRequest, reply) => {
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, 403);
    const asked = await askedIn(request, reply);
    if (asked === null) return reply;
    const { visit, view } = asked;
    // Whose card it is comes from the visit alone: the form carries nothing.
    const started = await startCardChange(db, ports, {
      link: visit.link,
      language: visit.language,
      returnUrlOf: (id) =>
        context.baseUrl +
        paths.cardBack.of(
          sealReturn(ports.sealer, ports.clock.now(), 'card return', {
            merchantId: visit.link.merchantId,
            id,
            visitId: visit.id,
            language: visit.language,
          }),
        ),
    });
    switch (started.kind) {
      case 'redirect':
        return reply.redirect(started.url, 303);
      case 'waiting':
        return reply.redirect(paths.card.of(visit.id), 303);
      case 'try_again': {
        const seconds = Math.ceil((started.retryAfterMs ?? comeBackAfterMs) / 1000);
        reply.header('retry-after', String(seconds));
        const until = ports.clock.now().add({ seconds });
        const time = clockTime(until.toString(), view.merchant.settings.timezone);
        return html(reply, 503, cardPage(view, visit, asked.change, time));
      }
      case 'resting':
        return state(reply, 'resting', visit.language, view, null, 503);
      case 'look_again':
        return reply.redirect(paths.bill.of(visit.id), 303);
    }
  });

  /** Some gateways come back with a post, which brings no cookie; a reload must not ask whether to send it again. */
  app.post(paths.cardBack.pattern, async (request: ReturnRequest, reply) => {
    const { nonce } = request.params;
    if (openReturn(ports.sealer, ports.clock.now(), 'card return', nonce) === null)
      return unknown(request, reply);
    return reply.redirect(paths.cardBack.of(nonce), 303);
  });

  /** That the gateway sent the visitor back proves nothing: the gateway is asked. */
  app.get(paths.cardBack.pattern, async (request: ReturnRequest, reply) => {
    const back = openReturn(ports.sealer, ports.clock.now(), 'card return', request.params.nonce);
    const merchant =
      back &&
      (await db.transaction((tx) => merchantOf(tx, back.merchantId), { merchantId: back.merchantId }));
    if (!back || !merchant) return unknown(request, reply);
    const { changes } = await learnCardChanges(db, ports, merchant, [back.id], 'return');
    const [change] = changes;
    if (change === undefined) return unknown(request, reply);
    const shown = stateOf(change, ports.clock.now());
    const url =
      shown === 'card_waiting'
        ? request.url
        : shown !== 'card_changed'
          ? paths.card.of(back.visitId)
          : change.bill_is_open
            ? paths.bill.of(back.visitId)
            : null;
    return state(reply, shown, back.language, { merchant }, url);
  });

  /** Null: the answer is given already. */
  async function askedIn(request: VisitRequest, reply: FastifyReply): Promise<Asked | null> {
    const visit = openVisit(
      ports.sealer,
      ports.clock.now(),
      request.params.visit,
      request.cookies[visitCookie],
    );
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) {
      await unknown(request, reply);
      return null;
    }
    // Whoever only holds the link changes nothing.
    const change =
      visit.checked && mayChangeCard(view.bill, view.state)
        ? await viewCardChange(db, ports.clock.now(), view)
        : null;
    if (change === null) {
      await reply.redirect(paths.bill.of(visit.id), 303);
      return null;
    }
    return { visit, view, change };
  }

  async function show(reply: FastifyReply, { visit, view, change }: Asked): Promise<FastifyReply> {
    if (change.underWay === null) return html(reply, 200, cardPage(view, visit, change));
    // The visitor may have come back without the gateway's help.
    const { id } = change.underWay;
    const { changes } = await learnCardChanges(db, ports, view.merchant, [id], 'return');
    const shown = changes[0] && stateOf(changes[0], ports.clock.now());
    if (shown === 'card_unfinished') return html(reply, 200, cardPage(view, visit, change));
    if (shown === 'card_not_changed')
      return html(reply, 200, cardPage(view, visit, { ...change, underWay: null, goesOn: false }));
    return shown === 'card_changed'
      ? state(reply, shown, visit.language, view, view.state === 'owed' ? paths.bill.of(visit.id) : null)
      : state(reply, 'card_waiting', visit.language, view, paths.card.of(visit.id));
  }

  function state(
    reply: FastifyReply,
    shown: PageState,
    language: Visit['language'],
    { merchant }: Pick<BillView, 'merchant'>,
    billUrl: string | null,
    status = 200,
  ): FastifyReply {
    return html(reply, status, statePage({ state: shown, language, merchant, billUrl }));
  }

  function unknown(request: FastifyRequest, reply: FastifyReply, status = 404): FastifyReply {
    const language = languageFor(request.headers['accept-language'], ['ja', 'en']);
    return html(reply, status, statePage({ state: 'unknown', language, merchant: null }));
  }
}

function stateOf(change: CardChangeNews, now: Temporal.Instant): PageState {
  switch (change.state) {
    case 'succeeded':
      return 'card_changed';
    case 'failed':
    case 'canceled':
      return 'card_not_changed';
    case 'requires_action':
      return Temporal.Instant.compare(now, change.page_ends_at) < 0 ? 'card_unfinished' : 'card_waiting';
    default:
      return 'card_waiting';
  }
}
