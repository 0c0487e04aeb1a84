import { randomBytes } from 'node:crypto';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { type CardCodes, cardByName, cardByPan, type TestCard } from './cards.ts';
import {
  cardForm,
  challengePage,
  endedPage,
  type FormProblem,
  messagePage,
  pageHeaders,
  testCardsPage,
  walletForm,
} from './hosted-page.tsx';
import {
  beginChallenge,
  captureOnPage,
  currentPage,
  declineOnPage,
  declineSetup,
  endPage,
  type HostedPage,
  latestCharge,
  saveOnPage,
} from './queries.ts';
import { isUniqueViolation, newCharge, planWebhook, type Simulation, saveCard } from './simulation.ts';

type Form = Record<string, unknown>;
const field = (form: unknown, name: string): string => {
  const value = (form as Form | null | undefined)?.[name];
  return typeof value === 'string' ? value : '';
};

/** `12/30`, `1230` or `12/2030` to `2030-12`; null where it is no month or over. */
function expiryOf(text: string, nowMs: number): string | null {
  const match = /^(0[1-9]|1[0-2])\s*\/?\s*(?:20)?(\d{2})$/.exec(text.trim());
  if (match === null) return null;
  const expires = `20${match[2]}-${match[1]}`;
  return expires >= new Date(nowMs).toISOString().slice(0, 7) ? expires : null;
}

export function pageRoutes(app: FastifyInstance, simulation: Simulation): void {
  const { pool, clock, settings, effects, delivery } = simulation;
  const now = async () => new Date(await clock.now());
  const html = (reply: FastifyReply, status: number, returnUrl: string | null, content: string) =>
    reply.code(status).headers(pageHeaders(returnUrl)).send(content);
  const missing = (reply: FastifyReply) => html(reply, 404, null, messagePage('missing'));
  const seeOther = (reply: FastifyReply, url: string) =>
    reply.header('referrer-policy', 'no-referrer').header('cache-control', 'no-store').redirect(url, 303);
  const isLive = (page: HostedPage) => page.state === 'open' || page.state === 'challenge';

  async function form(reply: FastifyReply, page: HostedPage, problem: FormProblem | null, status = 200) {
    const last = page.setup ? null : await latestCharge(pool, page.account, page.reference);
    const failed = last?.state === 'failed' ? last : page.declined?.codes;
    const declinedCode = failed ? (failed.gatewayCode ?? 'other') : null;
    const shown =
      page.method === 'wallet' ? walletForm(page, declinedCode) : cardForm(page, { problem, declinedCode });
    return html(reply, status, page.returnUrl, shown);
  }

  /** Back to the merchant if the page is paid (this request or another of the same double click), else its end. */
  async function afterwards(reply: FastifyReply, pageId: string) {
    const page = await currentPage(pool, { id: pageId }, await now());
    if (page === null) return missing(reply);
    if (page.state === 'paid') return seeOther(reply, page.returnUrl);
    if (isLive(page)) return seeOther(reply, `/pay/${page.id}`);
    return html(reply, 410, page.returnUrl, endedPage(page));
  }

  async function capture(
    page: HostedPage,
    challengeId: string | null,
    /** Null: a wallet. */
    card: TestCard | null,
    expires: string,
  ) {
    try {
      if (page.setup && card !== null) {
        await saveOnPage(
          pool,
          page.id,
          challengeId,
          saveCard(card, expires),
          await now(),
          planWebhook(settings),
        );
        return delivery.wake();
      }
      await effects.run(async () =>
        captureOnPage(
          pool,
          page.id,
          challengeId,
          newCharge(card, null),
          page.saveMethod && card !== null ? saveCard(card, expires) : null,
          await now(),
          planWebhook(settings),
        ),
      );
    } catch (error) {
      // The reference was captured another way; its state tells the rest.
      if (!isUniqueViolation(error)) throw error;
    }
    delivery.wake();
  }

  async function decline(page: HostedPage, challengeId: string | null, card: TestCard, codes: CardCodes) {
    if (page.setup) await declineSetup(pool, page.id, challengeId, { network: card.brand, codes });
    else await declineOnPage(pool, page.id, challengeId, newCharge(card, codes), await now());
  }

  app.get('/test-cards', (_request, reply) => html(reply, 200, null, testCardsPage()));

  app.get<{ Params: { id: string } }>('/pay/:id', async (request, reply) => {
    const page = await currentPage(pool, { id: request.params.id }, await now());
    if (page === null) return missing(reply);
    return isLive(page) ? form(reply, page, null) : html(reply, 200, page.returnUrl, endedPage(page));
  });

  app.post<{ Params: { id: string } }>('/pay/:id', async (request, reply) => {
    const time = await now();
    const page = await currentPage(pool, { id: request.params.id }, time);
    if (page === null) return missing(reply);
    if (!isLive(page)) return afterwards(reply, page.id);
    if (page.method === 'wallet') {
      if (field(request.body, 'result') === 'approve') await capture(page, null, null, '');
      else {
        const codes = { gatewayCode: 'wallet_declined', networkCode: null, adviceCode: null };
        await declineOnPage(pool, page.id, null, newCharge(null, codes), time);
      }
      return afterwards(reply, page.id);
    }

    const card = cardByPan(field(request.body, 'number').replaceAll(/[\s-]/g, ''));
    const expires = expiryOf(field(request.body, 'expires'), time.getTime());
    if (card === undefined) return form(reply, page, 'not_a_test_card', 422);
    if (expires === null) return form(reply, page, 'bad_expiry', 422);
    if (!/^\d{3,4}$/.test(field(request.body, 'cvc'))) return form(reply, page, 'bad_cvc', 422);

    if (card.onPage.kind === 'declines') {
      await decline(page, null, card, card.onPage.codes);
      return seeOther(reply, `/pay/${page.id}`);
    }
    if (card.onPage.threeDs === 'challenge') {
      const id = randomBytes(16).toString('base64url');
      const begun = await beginChallenge(
        pool,
        page.id,
        { id, cardName: card.name, cardExpires: expires },
        time,
      );
      return begun ? seeOther(reply, `/acs/${id}`) : afterwards(reply, page.id);
    }
    await capture(page, null, card, expires);
    return afterwards(reply, page.id);
  });

  app.post<{ Params: { id: string } }>('/pay/:id/cancel', async (request, reply) => {
    const time = await now();
    const page = await currentPage(pool, { id: request.params.id }, time);
    if (page === null) return missing(reply);
    await endPage(pool, page.id, 'cancelled', time, planWebhook(settings));
    delivery.wake();
    return seeOther(reply, page.returnUrl);
  });

  app.get<{ Params: { id: string } }>('/acs/:id', async (request, reply) => {
    const page = await currentPage(pool, { challengeId: request.params.id }, await now());
    if (page === null) return missing(reply);
    if (page.state !== 'challenge') return afterwards(reply, page.id);
    const lastFour = cardByName(page.challengeCard ?? '')?.pan.slice(-4) ?? '';
    return html(reply, 200, page.returnUrl, challengePage(page, lastFour));
  });

  app.post<{ Params: { id: string } }>('/acs/:id', async (request, reply) => {
    const time = await now();
    const page = await currentPage(pool, { challengeId: request.params.id }, time);
    if (page === null) return missing(reply);
    const card = cardByName(page.challengeCard ?? '');
    if (page.state !== 'challenge' || card === undefined) return afterwards(reply, page.id);
    if (field(request.body, 'result') === 'succeed') {
      await capture(page, page.challengeId, card, page.challengeCardExpires ?? '');
    } else {
      const codes = { gatewayCode: 'authentication_failed', networkCode: null, adviceCode: null };
      await decline(page, page.challengeId, card, codes);
    }
    return afterwards(reply, page.id);
  });
}
