import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { learnPayments } from '../billing/barcodes/learn.ts';
import { idBehind } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { beginRestore } from '../billing/restores/begin.ts';
import { barcodeTexts } from '../web/barcode-texts.ts';
import type { PageState } from '../web/pages/state.tsx';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import { type Language, texts } from '../web/texts.ts';
import { desktop, hasJapaneseFont, launchBrowser, phone } from './browser.ts';
import { withPalette } from './png.ts';
import { type Bill, type BillOptions, enrolContract, type World, webOf, world } from './world.ts';

/** Set by `npm run screens`: where a picture of every state goes. */
const pictures = process.env.SEIKYU_SCREENS;

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const cards = { fine: '4242424242424242', poor: '4000000000009995' };
const looks = [
  { name: 'phone', viewport: phone, colorScheme: 'light' },
  { name: 'phone-dark', viewport: phone, colorScheme: 'dark' },
  { name: 'desktop', viewport: desktop, colorScheme: 'light' },
  { name: 'desktop-dark', viewport: desktop, colorScheme: 'dark' },
] as const;
/** Pictured in every look, in Japanese; of the others a phone's is enough. */
const picturedInFull = new Set(['ask', 'bill', 'barcode', 'receipt', 'genuine']);
const narrow = { width: 320, height: 568 };

let here: World;
let servers: { web: WebServer; gatewayDown: WebServer; away: WebServer; broken: WebServer };
let browser: Browser;
let gas: Merchant;
let power: Merchant;

beforeAll(async () => {
  if (pictures !== undefined) mkdirSync(pictures, { recursive: true });
  here = await world();
  const failing = (error: Error) =>
    ({ ...here.webDb, query: () => Promise.reject(error) }) as typeof here.webDb;
  servers = {
    web: await webOf(here),
    gatewayDown: await webOf(here, {
      ports: {
        ...here.ports,
        gateway: {
          ...here.gateway,
          openHostedPage: async () => ({ kind: 'not_executed', why: 'a test', retryAfterMs: 14 * 60_000 }),
          openSetupPage: async () => ({ kind: 'not_executed', why: 'a test', retryAfterMs: 14 * 60_000 }),
        },
      },
    }),
    away: await webOf(here, { webDb: failing(Object.assign(new Error('away'), { code: 'ECONNREFUSED' })) }),
    broken: await webOf(here, { webDb: failing(new Error('a fault of ours')) }),
  };
  gas = await here.merchant('minato-gas');
  power = await here.merchant('kita-denryoku', (settings) => ({
    ...settings,
    notify: { ...settings.notify, languages: ['ja', 'en'] },
    checkout: { ...settings.checkout, ask: 'nothing' },
  }));
  browser = await launchBrowser();
  if (pictures !== undefined && !(await hasJapaneseFont(browser))) {
    throw new Error(
      'no font for Japanese is installed: apt-get install fonts-noto-cjk. No picture was made.',
    );
  }
}, 120_000);
afterAll(async () => {
  await browser?.close();
  for (const server of Object.values(servers ?? {})) await server.close();
  await here?.drop();
});

const headings = {
  ja: { ...texts.ja, barcodeTitle: barcodeTexts.ja.title },
  en: { ...texts.en, barcodeTitle: barcodeTexts.en.title },
};

interface State {
  name: string;
  /** What this page has and the page of no other state. */
  shows: string;
  heading: keyof typeof headings.ja;
  /** Leads a visitor with a bill of their own there. */
  reach(page: Page, bill: Bill): Promise<void>;
  of?: () => Merchant;
  bill?: BillOptions;
  /** HTTP status of the page that is judged; 200 where it is not named. */
  status?: number;
}

const linkOf = (bill: Bill, server = servers.web) => server.url + paths.link.of(bill.token);
const open = (page: Page, bill: Bill) => page.goto(linkOf(bill));
/** A press does not wait for the page that it leads to. */
const press = (page: Page, action: string) => page.locator(`form[action$="${action}"] button`).click();
const see = (page: Page, selector: string) => page.locator(selector).waitFor();
const inState = (state: PageState) => `[data-state="${state}"]`;

async function answer(page: Page, text: string): Promise<void> {
  await page.fill('#answer', text);
  await press(page, '/check');
  // A wrong answer leads to the same field, empty.
  await page.locator('#answer:valid').waitFor({ state: 'detached' });
}
async function read(page: Page, bill: Bill, server = servers.web): Promise<void> {
  await page.goto(linkOf(bill, server));
  await answer(page, bill.customerNumber.slice(-4));
}
async function cool(page: Page, bill: Bill): Promise<void> {
  await open(page, bill);
  for (let times = 0; times < 5; times++) await answer(page, '0000');
}
async function pay(page: Page, number: string): Promise<void> {
  await press(page, '/pay');
  await type(page, number);
}
async function toCardPage(page: Page, bill: Bill): Promise<void> {
  await enrolContract(here, gas, bill);
  await read(page, bill);
  await page.locator('a[href$="/card"]').click();
  await press(page, '/card');
  await see(page, '#number');
}
async function beDeclined(page: Page): Promise<void> {
  await type(page, cards.poor);
  await see(page, '[data-code="insufficient_funds"]');
  await page.locator('form[action$="/cancel"] button').click();
}
/** At a till, of which the shop tells at once: no money is certain yet. */
async function payAtShop(bill: Bill): Promise<void> {
  const [barcode] = await here.db.query<{ digits: string }>(
    `select digits from barcodes where invoice_id = $1::uuid`,
    [bill.invoiceId],
  );
  const till = await fetch(`${here.simulator.url}/control/counter-payments`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer a secret of tests, of at least 32 characters',
      'content-type': 'application/json',
    },
    body: JSON.stringify({ account: gas.code, barcode: barcode?.digits }),
  });
  const { reference } = (await till.json()) as { reference: string };
  await learnPayments(here.db, here.ports, gas, [idBehind(reference) ?? '']);
}
/** Where the gateway's page that is open would lead. */
async function returnUrlOf(page: Page): Promise<string> {
  const [hosted] = await here.db.query<{ return_url: string }>(
    `select return_url from gateway_simulator.hosted_pages where id = $1`,
    [page.url().split('/').at(-1)],
  );
  return hosted?.return_url ?? '';
}
async function type(page: Page, number: string): Promise<void> {
  await page.fill('#number', number);
  await page.fill('#expires', '12/30');
  await page.fill('#cvc', '123');
  await page.locator('form:has(#number) button').click();
}
async function end(bill: Bill, state: 'cancelled' | 'unpaid'): Promise<void> {
  await here.db.run(`update invoices set state = $1 where id = $2::uuid`, [state, bill.invoiceId]);
}

/** Only a bill that can be paid now has the tick: one under way on the gateway's page has it no more. */
const tick = 'form[action$="/pay"] [type="checkbox"]';

const states: readonly State[] = [
  {
    name: 'ask',
    shows: '[data-state="ask"] #answer:not([aria-invalid])',
    heading: 'askTitle',
    reach: async (page, bill) => void (await open(page, bill)),
  },
  {
    name: 'ask-wrong',
    shows: '[data-state="ask"] #answer[aria-invalid]',
    heading: 'askTitle',
    status: 422,
    async reach(page, bill) {
      await open(page, bill);
      await answer(page, '0000');
    },
  },
  {
    name: 'resting-link',
    shows: 'form[action$="/new-link"]',
    heading: 'coolingTitle',
    status: 429,
    reach: cool,
  },
  {
    name: 'new-link-sent',
    shows: inState('link_sent'),
    heading: 'linkSentTitle',
    async reach(page, bill) {
      await cool(page, bill);
      await press(page, '/new-link');
    },
  },
  {
    name: 'new-link-enough',
    shows: inState('link_enough'),
    heading: 'linkEnoughTitle',
    status: 429,
    async reach(page, bill) {
      await cool(page, bill);
      await press(page, '/new-link');
      await see(page, inState('link_sent'));
      await page.goto(page.url().replace(/\/new-link$/, ''));
      await press(page, '/new-link');
    },
  },
  {
    name: 'new-link-not-possible',
    shows: inState('link_not_possible'),
    heading: 'linkNotPossibleTitle',
    status: 429,
    async reach(page, bill) {
      await here.db.run(`update contacts set phone_kind = 'not_mobile' where customer_id = $1::uuid`, [
        bill.customerId,
      ]);
      await cool(page, bill);
      await press(page, '/new-link');
    },
  },
  {
    name: 'not-mine',
    shows: 'form[action$="/not-mine"]',
    heading: 'notMineTitle',
    async reach(page, bill) {
      await open(page, bill);
      await page.locator('a[href$="/not-mine"]').click();
    },
  },
  {
    name: 'given-back',
    shows: inState('not_theirs'),
    heading: 'givenBackTitle',
    status: 410,
    async reach(page, bill) {
      await open(page, bill);
      await page.locator('a[href$="/not-mine"]').click();
      await press(page, '/not-mine');
    },
  },
  {
    name: 'bill',
    shows: `main:not(:has([role="alert"], details[open], a[href$="/not-mine"])) ${tick}`,
    heading: 'billTitle',
    reach: read,
  },
  {
    name: 'stop',
    shows: 'form[action$="/stop"]',
    heading: 'stopTitle',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/stop"]').click();
    },
  },
  {
    name: 'stopped',
    shows: inState('stopped'),
    heading: 'stoppedTitle',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/stop"]').click();
      await press(page, '/stop');
    },
  },
  {
    name: 'card',
    shows: 'form[action$="/card"]:not(:has(.notice))',
    heading: 'cardTitle',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await here.db.run(
        `update payment_methods set brand = 'visa', last_four = '4242' where customer_id = $1::uuid`,
        [bill.customerId],
      );
      await read(page, bill);
      await page.locator('a[href$="/card"]').click();
    },
  },
  {
    name: 'card-changed',
    shows: inState('card_changed'),
    heading: 'cardChangedTitle',
    async reach(page, bill) {
      await toCardPage(page, bill);
      await type(page, cards.fine);
    },
  },
  {
    name: 'card-not-changed',
    shows: inState('card_not_changed'),
    heading: 'cardNotChangedTitle',
    async reach(page, bill) {
      await toCardPage(page, bill);
      await beDeclined(page);
    },
  },
  {
    name: 'card-unfinished',
    shows: inState('card_unfinished'),
    heading: 'cardUnfinishedTitle',
    async reach(page, bill) {
      await toCardPage(page, bill);
      await page.goto(await returnUrlOf(page));
    },
  },
  {
    name: 'card-waiting',
    shows: inState('card_waiting'),
    heading: 'cardWaitingTitle',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/card"]').click();
      here.crashAt('card_change.after_gateway');
      await press(page, '/card');
      await see(page, inState('error'));
      await page.goto(page.url());
    },
  },
  {
    name: 'card-gateway-down',
    shows: 'form[action$="/card"] .notice.bad',
    heading: 'cardTitle',
    status: 503,
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill, servers.gatewayDown);
      await page.locator('a[href$="/card"]').click();
      await press(page, '/card');
    },
  },
  {
    name: 'bill-details',
    shows: `main:has(details[open]) ${tick}`,
    heading: 'billTitle',
    bill: {
      dueOn: '2026-11-20',
      amount: 12_345_678,
      description: `ガス料金 11月分 ${'長い説明'.repeat(8)}`,
      taxLines: [
        { description: 'ガス料金', rate: 10, taxable: 11_000_000, tax: 1_000_000 },
        { description: '飲料水', rate: 8, taxable: 300_000, tax: 22_222 },
        { description: '', rate: 0, taxable: 23_456, tax: 0 },
      ],
    },
    async reach(page, bill) {
      await read(page, bill);
      // `all` does not wait for the page that the answer leads to.
      await page.locator('summary').first().waitFor();
      for (const summary of await page.locator('summary').all()) await summary.click();
      expect(await page.locator('details[open]').count()).toBe(2);
    },
  },
  {
    name: 'barcode',
    shows: '[data-state="barcode"] .bars',
    heading: 'barcodeTitle',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/barcode');
    },
  },
  {
    name: 'bill-nothing-asked',
    shows: `main:has(a[href$="/not-mine"]) ${tick}`,
    heading: 'billTitle',
    of: () => power,
    reach: async (page, bill) => void (await open(page, bill)),
  },
  {
    name: 'in-payment',
    shows: 'form[action$="/pay"] .notice.wait',
    heading: 'billTitle',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/pay');
      await see(page, '#number');
      await page.goBack();
      await page.reload();
    },
  },
  {
    name: 'gateway-down',
    shows: `main:has(> .notice.bad) ${tick}`,
    heading: 'billTitle',
    status: 503,
    async reach(page, bill) {
      await read(page, bill, servers.gatewayDown);
      await press(page, '/pay');
    },
  },
  {
    name: 'waiting',
    shows: inState('waiting'),
    heading: 'waitingTitle',
    async reach(page, bill) {
      await read(page, bill);
      here.crashAt('checkout.after_gateway');
      await press(page, '/pay');
      await see(page, inState('error'));
      await page.goto(page.url().replace(/\/pay$/, ''));
    },
  },
  {
    name: 'paid-at-shop',
    shows: inState('paid_at_shop'),
    heading: 'paidAtShopTitle',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/barcode');
      await see(page, '.bars');
      await payAtShop(bill);
      await page.locator('.another a').click();
    },
  },
  {
    name: 'paid',
    shows: `${inState('paid')} .notice.good`,
    heading: 'paidTitle',
    async reach(page, bill) {
      await read(page, bill);
      await page.check('[name=enrol]');
      await pay(page, cards.fine);
    },
  },
  {
    name: 'receipt',
    shows: '[data-state="receipt"]',
    heading: 'receiptTitle',
    async reach(page, bill) {
      await read(page, bill);
      await pay(page, cards.fine);
      await page.locator(`${inState('paid')} a.button`).click();
    },
  },
  {
    name: 'already-paid',
    shows: `${inState('already_paid')} a[href$="/receipt"]`,
    heading: 'paidBefore',
    async reach(page, bill) {
      await read(page, bill);
      await pay(page, cards.fine);
      await see(page, inState('paid'));
      await open(page, bill);
    },
  },
  {
    name: 'ask-receipt',
    shows: '[data-state="ask_receipt"] #answer',
    heading: 'askTitle',
    async reach(page, bill) {
      await here.db.run(`update invoices set state = 'paid' where id = $1::uuid`, [bill.invoiceId]);
      await open(page, bill);
      await page.locator('a[href$="/receipt"]').click();
    },
  },
  {
    name: 'declined',
    shows: inState('not_paid'),
    heading: 'notPaidTitle',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/pay');
      await beDeclined(page);
    },
  },
  {
    name: 'unfinished',
    shows: inState('unfinished'),
    heading: 'unfinishedTitle',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/pay');
      await see(page, '#number');
      await page.goto(await returnUrlOf(page));
    },
  },
  {
    name: 'cancelled',
    shows: inState('cancelled'),
    heading: 'cancelledTitle',
    status: 410,
    async reach(page, bill) {
      await end(bill, 'cancelled');
      await open(page, bill);
    },
  },
  {
    name: 'returned',
    shows: inState('returned'),
    heading: 'returnedTitle',
    status: 410,
    async reach(page, bill) {
      await end(bill, 'unpaid');
      await open(page, bill);
    },
  },
  {
    name: 'expired',
    shows: inState('expired'),
    heading: 'expiredTitle',
    status: 410,
    bill: { linkExpiresOn: '2026-11-01' },
    reach: async (page, bill) => void (await open(page, bill)),
  },
  {
    name: 'unknown',
    shows: inState('unknown'),
    heading: 'unknownTitle',
    status: 404,
    reach: async (page) => void (await page.goto(`${servers.web.url}/l/1${'a'.repeat(22)}`)),
  },
  {
    name: 'genuine',
    shows: 'main .address',
    heading: 'genuineTitle',
    reach: async (page) => void (await page.goto(`${servers.web.url}${paths.genuine.of()}`)),
  },
  {
    name: 'busy',
    shows: inState('busy'),
    heading: 'busyTitle',
    status: 503,
    reach: async (page, bill) => void (await page.goto(linkOf(bill, servers.away))),
  },
  {
    name: 'error',
    shows: inState('error'),
    heading: 'errorTitle',
    status: 500,
    reach: async (page, bill) => void (await page.goto(linkOf(bill, servers.broken))),
  },
  {
    name: 'safe-mode',
    shows: inState('resting'),
    heading: 'restingTitle',
    status: 503,
    async reach(page, bill) {
      await here.db.transaction((tx) =>
        beginRestore(tx, {
          ids: here.ids,
          at: here.clock.now(),
          by: 'test',
          why: 'a test',
          forgottenFrom: here.clock.now(),
        }),
      );
      await open(page, bill);
      await here.db.run(`update restores set ended_at = began_at, ended_by = 'test'`);
    },
  },
];

interface Violation {
  id: string;
  help: string;
  nodes: { html: string; failureSummary: string }[];
}

/** WCAG 2.2 AA and axe's own best practices. What is dark differs from what is light in its colours alone. */
async function violationsOf(page: Page, colorScheme: 'light' | 'dark'): Promise<string[]> {
  const found = await page.evaluate(async (colorsOnly) => {
    const { axe } = globalThis as unknown as {
      axe: { run(options: object): Promise<{ violations: Violation[] }> };
    };
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const runOnly = colorsOnly ? ['color-contrast', 'link-in-text-block'] : tags;
    const { violations } = await axe.run({ runOnly, resultTypes: ['violations'] });
    return violations;
  }, colorScheme === 'dark');
  return found.map(
    ({ id, nodes }) =>
      `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`,
  );
}

/** Every state whose mark the page bears. */
async function statesOf(page: Page): Promise<string[]> {
  const marks = states.map(({ name, shows }) => ({ name, shows }));
  const found = await page.evaluate((all) => {
    const { document } = globalThis as unknown as { document: { querySelector(selector: string): unknown } };
    return all.filter(({ shows }) => document.querySelector(shows) !== null);
  }, marks);
  return found.map(({ name }) => name);
}

async function overflows(page: Page): Promise<boolean> {
  return page.evaluate(() => {
    const view = globalThis as unknown as {
      innerWidth: number;
      document: { documentElement: { scrollWidth: number } };
    };
    return view.document.documentElement.scrollWidth > view.innerWidth;
  });
}

describe.each(['ja', 'en'] as const)('in %s', (language: Language) => {
  test.each(states)(
    '$name: fits and is accessible, on a phone and a desktop, in light and dark',
    async ({ name, shows, heading, reach, of, bill: options, status }) => {
      const merchant = of?.() ?? gas;
      const bill = await here.bill(merchant, options);
      const context = await browser.newContext({
        viewport: phone,
        locale: language === 'en' ? 'en-GB' : 'ja-JP',
      });
      try {
        const page = await context.newPage();
        let last = 0;
        page.on('response', (response) => {
          if (response.request().isNavigationRequest()) last = response.status();
        });
        await reach(page, bill);
        await see(page, shows);
        expect(await statesOf(page)).toEqual([name]);
        expect(await page.locator('h1').allTextContents()).toEqual([headings[language][heading]]);
        // The page that a redirect or a reload ended with.
        expect(last).toBe(status ?? 200);
        expect(await page.getAttribute('html', 'lang')).toBe(language);
        await page.evaluate(axeSource);
        for (const look of looks) {
          await page.setViewportSize(look.viewport);
          await page.emulateMedia({ colorScheme: look.colorScheme });
          expect(await violationsOf(page, look.colorScheme), look.name).toEqual([]);
          if (pictures === undefined) continue;
          if (look.name === 'phone' || (language === 'ja' && picturedInFull.has(name))) {
            const picture = withPalette(await page.screenshot({ fullPage: true }));
            writeFileSync(join(pictures, `${name}-${language}-${look.name}.png`), picture);
          }
        }
        await page.setViewportSize(narrow);
        expect(await overflows(page)).toBe(false);
      } finally {
        await context.close();
      }
    },
  );
});
