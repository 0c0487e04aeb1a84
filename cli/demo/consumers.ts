import { Agent, request } from 'undici';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { cardByName } from './gateway-simulator/cards.ts';
import type { Conduct } from './people.ts';

export interface Sms {
  to: string;
  body: string;
}

export interface VisitEnd {
  outcome: 'paid' | 'paid_at_shop' | 'declined' | 'left' | 'closed' | 'waiting';
  requests: number;
}

/** A shop whose till scans a barcode. True: it took the money. */
export type Till = (barcode: string) => Promise<boolean>;

/** The tills of the simulator: the digits say whose bill it is, as the agency knows its merchants. */
export function tillsOf(gatewayUrl: string, merchants: readonly Merchant[]): Till {
  return async (barcode) => {
    const merchant = merchants.find(({ settings: { checkout } }) =>
      checkout.barcode
        ? barcode.startsWith(`91${checkout.barcode.issuer}${checkout.barcode.companyCode}`)
        : false,
    );
    if (merchant === undefined) return false;
    const answer = await request(`${gatewayUrl}/counter`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ account: merchant.code, barcode }).toString(),
    });
    await answer.body.dump();
    return answer.statusCode === 200;
  };
}

/** Simulated consumers: they know only their SMS, their customer number and their cards, and use the pages over HTTP. */
export class Consumers {
  readonly #agent = new Agent({ connections: 32, pipelining: 1 });
  readonly #till: Till;
  readonly #pagesAt: string | null;

  /** `pagesAt`: where the pages are now; an SMS of a demo that ran on another port leads there. Null: where the SMS says. */
  constructor(till: Till, pagesAt: string | null = null) {
    this.#till = till;
    this.#pagesAt = pagesAt;
  }

  /** Opens the link and does what this person does with a bill. */
  async answer(
    sms: Sms,
    customer: { customerNumber: string; conduct: Conduct; isFirstVisit: boolean },
  ): Promise<VisitEnd> {
    const told = /https?:\/\/\S+/.exec(sms.body)?.[0];
    if (told === undefined) return { outcome: 'left', requests: 0 };
    const link = new URL(new URL(told).pathname, this.#pagesAt ?? told).href;
    const browser = new Browser(this.#agent);
    const { conduct } = customer;
    let page = await browser.get(link);
    if (page.form('/check') !== undefined) {
      if (conduct.fumbles && customer.isFirstVisit)
        page = await browser.submit(page, '/check', { answer: '0000' });
      page = await browser.submit(page, '/check', { answer: customer.customerNumber.slice(-4) });
    }
    if (page.form('/pay') === undefined) return { outcome: 'closed', requests: browser.requests };
    if (conduct.pays === 'barcode' || conduct.paysTwice) {
      const barcode = await this.#barcodeOf(browser, page);
      const paid = barcode !== null && (await this.#till(barcode));
      if (paid && !conduct.paysTwice) return { outcome: 'paid_at_shop', requests: browser.requests };
      // Back to the bill: the shop's word is not here yet.
      page = await browser.get(link);
      if (page.form('/check') !== undefined)
        page = await browser.submit(page, '/check', { answer: customer.customerNumber.slice(-4) });
    }
    const bill = page;
    if (conduct.pays === 'wallet' && page.form('/pay/wallet') !== undefined) {
      if (conduct.declinedFirst !== null) {
        page = await this.#type(browser, await browser.submit(page, '/pay', {}), conduct.declinedFirst);
        page = await browser.get(bill.url);
      }
      page = await browser.submit(page, '/pay/wallet', {});
      if (page.form('/pay/') !== undefined) page = await browser.submit(page, '/pay/', { result: 'approve' });
      return { outcome: page.end(), requests: browser.requests };
    }
    page = await browser.submit(page, '/pay', conduct.enrols ? { enrol: 'yes' } : {});
    if (conduct.abandonsFirst && customer.isFirstVisit)
      return { outcome: 'left', requests: browser.requests };
    if (conduct.declinedFirst !== null) page = await this.#type(browser, page, conduct.declinedFirst);
    page = await this.#type(browser, page, conduct.card);
    const outcome = page.end();
    if (outcome === 'paid' && conduct.changesCardTo !== undefined)
      await this.#changeCard(browser, bill.url, conduct.changesCardTo);
    return { outcome, requests: browser.requests };
  }

  async #changeCard(browser: Browser, billUrl: string, cardName: string | null): Promise<void> {
    const asked = await browser.get(`${billUrl}/card`);
    const page = await browser.submit(asked, '/card', {});
    if (cardName !== null) await this.#type(browser, page, cardName);
  }

  /** Takes a bill on paper to a shop. */
  payPaper(barcode: string): Promise<boolean> {
    return this.#till(barcode);
  }

  /** Null: the page offers none. */
  async #barcodeOf(browser: Browser, page: Page): Promise<string | null> {
    if (page.form('/barcode') === undefined) return null;
    const shown = await browser.submit(page, '/barcode', {});
    const digits = /\(91\)[0-9-]{44,60}/.exec(shown.html)?.[0].replaceAll(/\D/g, '');
    return digits?.length === 44 ? digits : null;
  }

  async #type(browser: Browser, page: Page, cardName: string): Promise<Page> {
    const card = cardByName(cardName);
    if (card === undefined || page.form('/pay/') === undefined) return page;
    let next = await browser.submit(page, '/pay/', { number: card.pan, expires: '12/39', cvc: '123' });
    if (next.form('/acs/') !== undefined) next = await browser.submit(next, '/acs/', { result: 'succeed' });
    return next;
  }

  async close(): Promise<void> {
    await this.#agent.close();
  }
}

class Page {
  readonly url: string;
  readonly html: string;

  constructor(url: string, html: string) {
    this.url = url;
    this.html = html;
  }

  /** The target of the form whose action holds this text. */
  form(action: string): string | undefined {
    for (const [, target] of this.html.matchAll(/<form[^>]*action="([^"]+)"/g)) {
      const isAnotherWay = target?.endsWith('/wallet') && !action.endsWith('/wallet');
      if (target?.includes(action) && !target.endsWith('/cancel') && !isAnotherWay)
        return new URL(target, this.url).href;
    }
    return undefined;
  }

  end(): VisitEnd['outcome'] {
    const state = /data-state="([a-z_]+)"/.exec(this.html)?.[1];
    if (state === 'paid') return 'paid';
    if (state === 'waiting') return 'waiting';
    return this.form('/pay/') === undefined ? 'closed' : 'declined';
  }
}

/** As much of a browser as the pages need: cookies by path, redirects, forms. */
class Browser {
  requests = 0;
  readonly #agent: Agent;
  readonly #cookies: { origin: string; path: string; pair: string }[] = [];

  constructor(agent: Agent) {
    this.#agent = agent;
  }

  get(url: string): Promise<Page> {
    return this.#go('GET', url, undefined);
  }

  submit(page: Page, action: string, fields: Record<string, string>): Promise<Page> {
    const target = page.form(action);
    if (target === undefined) return Promise.resolve(page);
    return this.#go('POST', target, new URLSearchParams(fields).toString(), new URL(page.url).origin);
  }

  async #go(method: 'GET' | 'POST', url: string, body: string | undefined, origin?: string): Promise<Page> {
    let at = new URL(url);
    let next: { method: 'GET' | 'POST'; body: string | undefined } = { method, body };
    for (let redirects = 0; redirects < 10; redirects++) {
      this.requests++;
      const answer = await request(at, {
        method: next.method,
        dispatcher: this.#agent,
        body: next.body ?? null,
        headers: {
          'accept-language': 'ja',
          cookie: this.#cookiesFor(at),
          ...(next.body === undefined
            ? {}
            : { 'content-type': 'application/x-www-form-urlencoded', origin: origin ?? at.origin }),
        },
        headersTimeout: 15_000,
        bodyTimeout: 15_000,
      });
      this.#keep(at, answer.headers['set-cookie']);
      const html = await answer.body.text();
      const location = answer.headers.location;
      if (answer.statusCode < 300 || answer.statusCode > 399 || location === undefined)
        return new Page(at.href, html);
      at = new URL(String(location), at);
      next = { method: 'GET', body: undefined };
    }
    throw new Error(`too many redirects from ${new URL(url).pathname.split('/')[1]}`);
  }

  #cookiesFor(url: URL): string {
    return this.#cookies
      .filter((cookie) => cookie.origin === url.origin && url.pathname.startsWith(cookie.path))
      .map((cookie) => cookie.pair)
      .join('; ');
  }

  #keep(url: URL, header: string | string[] | undefined): void {
    for (const text of header === undefined ? [] : [header].flat()) {
      const [pair = '', ...attributes] = text.split(/;\s*/);
      const path = attributes.find((attribute) => /^path=/i.test(attribute))?.slice(5) ?? '/';
      const name = pair.split('=')[0];
      const known = this.#cookies.findIndex(
        (cookie) =>
          cookie.origin === url.origin && cookie.path === path && cookie.pair.split('=')[0] === name,
      );
      if (known >= 0) this.#cookies.splice(known, 1);
      this.#cookies.push({ origin: url.origin, path, pair });
    }
  }
}
