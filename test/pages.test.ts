import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { beginRestore } from '../billing/restores/begin.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import type { Language } from '../web/texts.ts';
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

interface State {
  name: string;
  /** Leads a visitor with a bill of their own there. */
  reach(page: Page, bill: Bill): Promise<void>;
  of?: () => Merchant;
  bill?: BillOptions;
  /** HTTP status of the page that is judged; 200 where it is not named. */
  status?: number;
}

const linkOf = (bill: Bill, server = servers.web) => server.url + paths.link.of(bill.token);
const open = (page: Page, bill: Bill) => page.goto(linkOf(bill));
const press = (page: Page, action: string) => page.locator(`form[action$="${action}"] button`).click();

async function answer(page: Page, text: string): Promise<void> {
  await page.fill('#answer', text);
  await press(page, '/check');
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

const states: readonly State[] = [
  { name: 'ask', reach: async (page, bill) => void (await open(page, bill)) },
  {
    name: 'ask-wrong',
    status: 422,
    async reach(page, bill) {
      await open(page, bill);
      await answer(page, '0000');
    },
  },
  { name: 'resting-link', status: 429, reach: cool },
  {
    name: 'new-link-sent',
    async reach(page, bill) {
      await cool(page, bill);
      await press(page, '/new-link');
    },
  },
  {
    name: 'new-link-enough',
    status: 429,
    async reach(page, bill) {
      await cool(page, bill);
      await press(page, '/new-link');
      await page.goto(page.url().replace(/\/new-link$/, ''));
      await press(page, '/new-link');
    },
  },
  {
    name: 'new-link-not-possible',
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
    async reach(page, bill) {
      await open(page, bill);
      await page.locator('a[href$="/not-mine"]').click();
    },
  },
  {
    name: 'given-back',
    status: 410,
    async reach(page, bill) {
      await open(page, bill);
      await page.locator('a[href$="/not-mine"]').click();
      await press(page, '/not-mine');
    },
  },
  { name: 'bill', reach: read },
  {
    name: 'stop',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/stop"]').click();
    },
  },
  {
    name: 'stopped',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/stop"]').click();
      await press(page, '/stop');
    },
  },
  {
    name: 'card',
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
    async reach(page, bill) {
      await toCardPage(page, bill);
      await type(page, cards.fine);
    },
  },
  {
    name: 'card-not-changed',
    async reach(page, bill) {
      await toCardPage(page, bill);
      await type(page, cards.poor);
      await page.locator('form[action$="/cancel"] button').click();
    },
  },
  {
    name: 'card-unfinished',
    async reach(page, bill) {
      await toCardPage(page, bill);
      await page.goto(await returnUrlOf(page));
    },
  },
  {
    name: 'card-waiting',
    async reach(page, bill) {
      await enrolContract(here, gas, bill);
      await read(page, bill);
      await page.locator('a[href$="/card"]').click();
      here.crashAt('card_change.after_gateway');
      await press(page, '/card');
      await page.goto(page.url());
    },
  },
  {
    name: 'card-gateway-down',
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
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/barcode');
    },
  },
  { name: 'bill-nothing-asked', of: () => power, reach: async (page, bill) => void (await open(page, bill)) },
  {
    name: 'in-payment',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/pay');
      await page.waitForURL(`${here.simulator.url}/**`);
      await page.goBack();
      await page.reload();
    },
  },
  {
    name: 'gateway-down',
    status: 503,
    async reach(page, bill) {
      await read(page, bill, servers.gatewayDown);
      await press(page, '/pay');
    },
  },
  {
    name: 'waiting',
    async reach(page, bill) {
      await read(page, bill);
      here.crashAt('checkout.after_gateway');
      await press(page, '/pay');
      await page.goto(page.url().replace(/\/pay$/, ''));
    },
  },
  {
    name: 'paid',
    async reach(page, bill) {
      await read(page, bill);
      await page.check('[name=enrol]');
      await pay(page, cards.fine);
    },
  },
  {
    name: 'receipt',
    async reach(page, bill) {
      await read(page, bill);
      await pay(page, cards.fine);
      await page.locator('main a.button').click();
    },
  },
  {
    name: 'already-paid',
    async reach(page, bill) {
      await read(page, bill);
      await pay(page, cards.fine);
      await open(page, bill);
    },
  },
  {
    name: 'ask-receipt',
    async reach(page, bill) {
      await here.db.run(`update invoices set state = 'paid' where id = $1::uuid`, [bill.invoiceId]);
      await open(page, bill);
      await page.locator('a[href$="/receipt"]').click();
    },
  },
  {
    name: 'declined',
    async reach(page, bill) {
      await read(page, bill);
      await pay(page, cards.poor);
      await page.locator('form[action$="/cancel"] button').click();
    },
  },
  {
    name: 'unfinished',
    async reach(page, bill) {
      await read(page, bill);
      await press(page, '/pay');
      await page.goto(await returnUrlOf(page));
    },
  },
  {
    name: 'cancelled',
    status: 410,
    async reach(page, bill) {
      await end(bill, 'cancelled');
      await open(page, bill);
    },
  },
  {
    name: 'returned',
    status: 410,
    async reach(page, bill) {
      await end(bill, 'unpaid');
      await open(page, bill);
    },
  },
  {
    name: 'expired',
    status: 410,
    bill: { linkExpiresOn: '2026-11-01' },
    reach: async (page, bill) => void (await open(page, bill)),
  },
  {
    name: 'unknown',
    status: 404,
    reach: async (page) => void (await page.goto(`${servers.web.url}/l/1${'a'.repeat(22)}`)),
  },
  {
    name: 'genuine',
    reach: async (page) => void (await page.goto(`${servers.web.url}${paths.genuine.of()}`)),
  },
  {
    name: 'busy',
    status: 503,
    reach: async (page, bill) => void (await page.goto(linkOf(bill, servers.away))),
  },
  {
    name: 'error',
    status: 500,
    reach: async (page, bill) => void (await page.goto(linkOf(bill, servers.broken))),
  },
  {
    name: 'safe-mode',
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
    async ({ name, reach, of, bill: options, status }) => {
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
        // The page that a redirect or a reload ended with.
        expect(last).toBe(status ?? 200);
        expect(await page.getAttribute('html', 'lang')).toBe(language);
        expect(await page.locator('h1').count()).toBe(1);
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
