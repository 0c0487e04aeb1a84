import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { viewBill } from '../billing/checkout/view-bill.ts';
import { endByCustomer } from '../billing/enrolments/end-by-customer.ts';
import { sendFreshLink } from '../billing/links/send-fresh.ts';
import { reportWrongPerson } from '../billing/links/wrong-person.ts';
import { html, isOurOwnPost } from './headers.ts';
import { genuinePage } from './pages/genuine.tsx';
import { notMinePage } from './pages/not-mine.tsx';
import { type PageState, statePage } from './pages/state.tsx';
import { stopPage } from './pages/stop.tsx';
import { paths } from './paths.ts';
import type { WebContext } from './ports.ts';
import { languageFor } from './texts.ts';
import { openVisit, otherLanguageUrl, type Visit, visitCookie } from './visit.ts';

type VisitRequest = FastifyRequest<{ Params: { visit: string } }>;

/** For whom the bill is not, who is locked out, who wants no automatic payment, and who doubts that the SMS is ours. */
export function wayOutRoutes(app: FastifyInstance, context: WebContext): void {
  const { db, ports } = context;

  app.get(paths.notMine.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) return unknown(request, reply);
    // Who knows the end of the customer number is the customer.
    if (visit.checked || view.state === 'not_theirs') return reply.redirect(paths.bill.of(visit.id), 303);
    return html(reply, 200, notMinePage(view.merchant, visit));
  });

  app.post(paths.notMine.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, 403);
    if (visit === null) return unknown(request, reply);
    if (!visit.checked) await reportWrongPerson(db, ports, visit.link);
    return reply.redirect(paths.bill.of(visit.id), 303);
  });

  app.get(paths.stop.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) return unknown(request, reply);
    if (!visit.checked || view.bill.enrolled_by === null) return reply.redirect(paths.bill.of(visit.id), 303);
    return html(reply, 200, stopPage(view, visit));
  });

  app.post(paths.stop.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, 403);
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) return unknown(request, reply);
    // Whoever only holds the link ends nothing.
    if (!visit.checked) return reply.redirect(paths.bill.of(visit.id), 303);
    await endByCustomer(db, ports, visit.link);
    // A second press finds nothing to end, and the same is true.
    return html(
      reply,
      200,
      statePage({
        state: 'stopped',
        language: visit.language,
        merchant: view.merchant,
        otherLanguageUrl: otherLanguageUrl(visit),
      }),
    );
  });

  app.post(paths.freshLink.pattern, async (request: VisitRequest, reply) => {
    const visit = visitOf(request);
    if (!isOurOwnPost(request, context.baseUrl)) return unknown(request, reply, 403);
    const view = visit && (await viewBill(db, ports.clock.now(), visit.link));
    if (visit === null || view === null) return unknown(request, reply);
    if (visit.checked || view.state !== 'owed') return reply.redirect(paths.bill.of(visit.id), 303);
    const asked = await sendFreshLink(db, ports, visit.link);
    const state: PageState =
      asked === 'planned' ? 'link_sent' : asked === 'enough' ? 'link_enough' : 'link_not_possible';
    return html(
      reply,
      asked === 'planned' ? 200 : 429,
      statePage({
        state,
        language: visit.language,
        merchant: view.merchant,
        otherLanguageUrl: otherLanguageUrl(visit),
      }),
    );
  });

  app.get<{ Querystring: Record<string, unknown> }>(paths.genuine.pattern, async (request, reply) => {
    const { language } = request.query;
    const shown =
      language === 'ja' || language === 'en'
        ? language
        : languageFor(request.headers['accept-language'], ['ja', 'en']);
    return html(reply, 200, genuinePage(context, shown));
  });

  function visitOf(request: VisitRequest): Visit | null {
    return openVisit(ports.sealer, ports.clock.now(), request.params.visit, request.cookies[visitCookie]);
  }

  function unknown(request: FastifyRequest, reply: FastifyReply, status = 404): FastifyReply {
    const language = languageFor(request.headers['accept-language'], ['ja', 'en']);
    return html(reply, status, statePage({ state: 'unknown', language, merchant: null }));
  }
}
