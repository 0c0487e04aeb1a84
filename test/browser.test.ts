import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { raiseAlert } from '../billing/alerts/queries.ts';
import { outboxCarrier } from '../billing/carriers/outbox.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { startAdmin } from '../web/admin.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import { texts } from '../web/texts.ts';
import { desktop, launchBrowser, phone } from './browser.ts';
import { type Bill, enrolContract, type World, webOf, world } from './world.ts';

const cards = { challenge: '4000002760003184', fine: '4242424242424242', poor: '4000000000009995' };

/** Every page that the stories below see, for a person to look at. */
const pictures = process.env.SEIKYU_PICTURES ?? join(tmpdir(), 'seikyu-pay-page');

let here: World;
let web: WebServer;
let browser: Browser;
let gas: Merchant;

beforeAll(async () => {
  mkdirSync(pictures, { recursive: true });
  here = await world();
  web = await webOf(here);
  gas = await here.merchant('minato-gas');
  browser = await launchBrowser();
});
afterAll(async () => {
  await browser?.close();
  await web?.close();
  await here?.drop();
});

interface Look {
  language?: 'ja' | 'en';
  viewport?: { width: number; height: number };
  dark?: boolean;
}

async function person(look: Look, story: (page: Page, problems: string[]) => Promise<void>): Promise<void> {
  const context = await browser.newContext({
    viewport: look.viewport ?? phone,
    deviceScaleFactor: 2,
    locale: look.language === 'en' ? 'en-GB' : 'ja-JP',
    colorScheme: look.dark ? 'dark' : 'light',
    javaScriptEnabled: false,
  });
  const page = await context.newPage();
  const problems: string[] = [];
  // What the policy forbids is told in the console.
  page.on('console', (message) => {
    if (!message.text().startsWith('Failed to load resource')) problems.push(message.text());
  });
  page.on('requestfailed', (request) => problems.push(`${request.url()} ${request.failure()?.errorText}`));
  try {
    await story(page, problems);
  } finally {
    await context.close();
  }
}

async function picture(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

const linkOf = (bill: Bill) => web.url + paths.link.of(bill.token);

async function typeCard(page: Page, number: string): Promise<void> {
  await page.fill('#number', number);
  await page.fill('#expires', '12/30');
  await page.fill('#cvc', '123');
  await page.locator('form:has(#number) button').click();
}

/** What is not in view, or does not show that it has the focus, is of no use to whoever has no mouse. */
async function focusOf(page: Page): Promise<{ on: string; isSeen: boolean }> {
  return page.evaluate(() => {
    const on = document.activeElement as HTMLElement;
    const { top, bottom, width, height } = on.getBoundingClientRect();
    const isInView = width > 0 && height > 0 && top >= 0 && bottom <= innerHeight;
    const isMarked = on.matches(':focus-visible') && getComputedStyle(on).outlineStyle === 'solid';
    return {
      on: on.id || on.getAttribute('name') || on.textContent?.trim() || on.tagName,
      isSeen: isInView && isMarked,
    };
  });
}

async function tabTo(page: Page, ...stops: readonly string[]): Promise<void> {
  for (const on of stops) {
    await page.keyboard.press('Tab');
    expect(await focusOf(page)).toEqual({ on, isSeen: true });
  }
}

async function moneyOf(bill: Bill): Promise<unknown> {
  const [row] = await here.db.query(
    `select i.state, array(select c.state from charges c where c.invoice_id = i.id) as charges,
            array(select p.amount::int from payments p where p.invoice_id = i.id) as payments
     from invoices i where i.id = $1::uuid`,
    [bill.invoiceId],
  );
  return row;
}

async function stateOf(bill: Bill): Promise<string | undefined> {
  const [row] = await here.db.query<{ state: string }>(`select state from invoices where id = $1::uuid`, [
    bill.invoiceId,
  ]);
  return row?.state;
}

describe('on a phone', () => {
  test('wrong digits, then the right ones, the tick, the card, 3-D Secure, paid', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-10004821', amount: 6_842 });
    await person({}, async (page, problems) => {
      await page.goto(linkOf(bill));
      expect(page.url()).not.toContain(bill.token);
      await picture(page, 'ja-phone-1-ask');
      await page.getByLabel('お客様番号の下4桁').fill('0000');
      await page.getByRole('button', { name: '確認する' }).click();
      expect(await page.getByRole('alert').textContent()).toContain('一致しません');
      await picture(page, 'ja-phone-2-wrong');
      await page.getByLabel('お客様番号の下4桁').fill('４８２１');
      await page.getByRole('button', { name: '確認する' }).click();
      await picture(page, 'ja-phone-3-bill');
      await page.getByText('消費税の内訳').click();
      await page.getByText('自動払いの条件').click();
      await page.getByLabel('次回から自動で支払う').check();
      await picture(page, 'ja-phone-4-bill-open');
      await page.getByRole('button', { name: 'カードで6,842円を支払う' }).click();
      await page.waitForURL(`${here.simulator.url}/**`);
      await typeCard(page, cards.challenge);
      await page.getByRole('button', { name: '認証に成功する' }).click();
      await page.waitForURL(`${web.url}/r/**`);
      expect(await page.getByRole('heading').textContent()).toBe('お支払いが完了しました');
      await picture(page, 'ja-phone-5-paid');
      expect(problems).toEqual([]);
    });
    expect(await stateOf(bill)).toBe('paid');
    const [enrolment] = await here.db.query<{ three_ds_eci: string; last_four: string; state: string }>(
      `select m.three_ds_eci, m.last_four, e.state from enrolments e
       join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
       where e.customer_id = $1::uuid`,
      [bill.customerId],
    );
    expect(enrolment).toMatchObject({ last_four: '3184', state: 'active' });
    expect(enrolment?.three_ds_eci).toBeTruthy();
  });

  test('declined, cancelled, and paid with another card; the link then says paid', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-10007007', dueOn: '2026-11-20' });
    await person({ language: 'en' }, async (page, problems) => {
      await page.goto(linkOf(bill));
      await picture(page, 'en-phone-1-ask');
      await page.getByLabel('Last four of your customer number').fill('7007');
      await page.getByRole('button', { name: 'Continue' }).click();
      await picture(page, 'en-phone-2-bill');
      await page.getByRole('button', { name: 'Pay ¥4,980 by card' }).click();
      await typeCard(page, cards.poor);
      // The gateway's page takes another card; the visitor would rather go back.
      const billUrl = `${web.url}/b/`;
      await page.getByRole('button', { name: 'Cancel and go back' }).click();
      await page.waitForURL(`${web.url}/r/**`);
      expect(await page.getByRole('heading').textContent()).toBe('The payment did not go through');
      await picture(page, 'en-phone-3-not-paid');
      await page.getByRole('link', { name: 'To the payment page' }).click();
      expect(page.url()).toContain(billUrl);
      await page.getByRole('button', { name: 'Pay ¥4,980 by card' }).click();
      await page.waitForURL(`${here.simulator.url}/**`);
      await page.goBack();
      await page.reload();
      await picture(page, 'en-phone-4-go-on');
      await page.getByRole('button', { name: 'Continue to payment' }).click();
      await typeCard(page, cards.fine);
      await page.waitForURL(`${web.url}/r/**`);
      expect(await page.getByRole('heading').textContent()).toBe('Thank you, your bill is paid');
      await picture(page, 'en-phone-5-paid');
      await page.goto(linkOf(bill));
      expect(await page.getByRole('heading').textContent()).toBe('This bill is already paid');
      await picture(page, 'en-phone-6-already-paid');
      expect(problems).toEqual([]);
    });
    expect(await stateOf(bill)).toBe('paid');
  });

  test('another card for automatic payment, declined first, then kept; the bill is paid after it', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-10003344' });
    await enrolContract(here, gas, bill);
    await person({}, async (page, problems) => {
      await page.goto(linkOf(bill));
      await page.getByLabel('お客様番号の下4桁').fill('3344');
      await page.getByRole('button', { name: '確認する' }).click();
      await page.getByRole('link', { name: '自動払いのカードを変える' }).click();
      await picture(page, 'ja-phone-7-card');
      await page.getByRole('button', { name: '同意してカードを登録する' }).click();
      await page.waitForURL(`${here.simulator.url}/**`);
      await typeCard(page, cards.poor);
      await picture(page, 'ja-phone-8-card-declined');
      await typeCard(page, cards.challenge);
      await page.getByRole('button', { name: '認証に成功する' }).click();
      await page.waitForURL(`${web.url}/c/**`);
      expect(await page.getByRole('heading').textContent()).toBe('自動払いのカードを変えました');
      await picture(page, 'ja-phone-9-card-changed');
      await page.getByRole('link', { name: 'お支払いページへ' }).click();
      await page.getByRole('button', { name: 'カードで4,980円を支払う' }).click();
      await page.waitForURL(`${here.simulator.url}/**`);
      await typeCard(page, cards.fine);
      await page.waitForURL(`${web.url}/r/**`);
      expect(problems).toEqual([]);
    });
    expect(await stateOf(bill)).toBe('paid');
  });

  test('two tabs of one phone press pay, one pays, and the other learns of it', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-10002222' });
    await person({}, async (page, problems) => {
      await page.goto(linkOf(bill));
      await page.getByLabel('お客様番号の下4桁').fill('2222');
      await page.getByRole('button', { name: '確認する' }).click();
      await page.locator('[name=enrol]').waitFor();
      const billUrl = page.url();
      const [one, other, late] = [page, await page.context().newPage(), await page.context().newPage()];
      for (const tab of [other, late]) {
        await tab.goto(billUrl);
        await tab.locator('[name=enrol]').waitFor();
      }
      for (const tab of [one, other]) {
        await tab.getByRole('button', { name: 'カードで4,980円を支払う' }).click();
        await tab.locator('#number').waitFor();
      }
      expect(new URL(one.url()).origin).toBe(here.simulator.url);
      expect(other.url()).toBe(one.url());

      await typeCard(one, cards.fine);
      await one.locator('[data-state="paid"]').waitFor();
      // The page that took the card takes no second one, and leads back.
      await other.reload();
      expect(await other.locator('#number').count()).toBe(0);
      await other.locator('a.button').click();
      await other.locator('[data-state="paid"]').waitFor();
      await other.goto(billUrl);
      await other.locator('[data-state="receipt"]').waitFor();
      // Nobody has told this one: its button still says to pay.
      await late.getByRole('button', { name: 'カードで4,980円を支払う' }).click();
      await late.locator('[data-state="receipt"]').waitFor();
      expect(late.url()).toBe(billUrl);
      expect(problems).toEqual([]);
    });
    expect(await moneyOf(bill)).toEqual({ state: 'paid', charges: ['succeeded'], payments: [4_980] });
  });

  test.each([
    { language: 'ja', other: 'English', pay: 'カードで4,980円を支払う' },
    { language: 'en', other: '日本語', pay: 'Pay ¥4,980 by card' },
  ] as const)('by keyboard alone, in $language: the digits, the tick, the card, paid', async (words) => {
    const { language } = words;
    const { askButton, notMine, genuine, tax, terms, receipt } = texts[language];
    const bill = await here.bill(gas, { customerNumber: `C-1000${language === 'ja' ? 3101 : 3102}` });
    await person({ language }, async (page, problems) => {
      const { keyboard } = page;
      await page.goto(linkOf(bill));
      await tabTo(page, words.other, 'answer', askButton, notMine, '0120-000-111', genuine);
      for (let steps = 0; steps < 4; steps++) await keyboard.press('Shift+Tab');
      expect(await focusOf(page)).toEqual({ on: 'answer', isSeen: true });
      await keyboard.type(bill.customerNumber.slice(-4));
      await keyboard.press('Enter');

      await page.locator('[name=enrol]').waitFor();
      await tabTo(page, words.other, tax);
      await keyboard.press('Enter');
      expect(await page.locator('table').isVisible()).toBe(true);
      await tabTo(page, 'enrol');
      await keyboard.press('Space');
      expect(await page.locator('[name=enrol]').isChecked()).toBe(true);
      await tabTo(page, terms, words.pay);
      await keyboard.press('Enter');

      await page.locator('#number').waitFor();
      await tabTo(page, 'number');
      await keyboard.type(cards.fine);
      await tabTo(page, 'expires');
      await keyboard.type('12/30');
      await tabTo(page, 'cvc');
      await keyboard.type('123');
      await keyboard.press('Enter');

      await page.locator('[data-state="paid"]').waitFor();
      await tabTo(page, receipt);
      await keyboard.press('Enter');
      await page.locator('[data-state="receipt"]').waitFor();
      expect(problems).toEqual([]);
    });
    expect(await moneyOf(bill)).toEqual({ state: 'paid', charges: ['succeeded'], payments: [4_980] });
    const enrolments = await here.db.query(`select state from enrolments where customer_id = $1::uuid`, [
      bill.customerId,
    ]);
    expect(enrolments).toEqual([{ state: 'active' }]);
  });

  test('an unknown link, in the dark', async () => {
    await person({ dark: true }, async (page) => {
      const answer = await page.goto(`${web.url}/l/1${'a'.repeat(22)}`);
      expect(answer?.status()).toBe(404);
      expect(await page.getByRole('heading').textContent()).toBe('ページを開けません');
      await picture(page, 'ja-phone-dark-unknown');
    });
  });
});

describe('elsewhere', () => {
  test.each([
    { name: 'ja-desktop', sample: 'sakura-suido', language: 'ja', viewport: desktop },
    { name: 'en-desktop-dark', sample: 'sakura-suido', language: 'en', viewport: desktop, dark: true },
    { name: 'ja-phone-dark', sample: 'minato-gas', language: 'ja', viewport: phone, dark: true },
    { name: 'ja-small-red', sample: 'kita-denryoku', language: 'ja', viewport: { width: 320, height: 568 } },
  ] as const)('the bill fits: $name', async ({ name, sample, ...look }) => {
    const merchant = await here.merchant(sample);
    const bill = await here.bill(merchant, {
      amount: 12_345_678,
      description: `水道料金・下水道使用料 ${'とても長い説明'.repeat(8)}`,
      taxLines: [
        { description: '水道料金', rate: 10, taxable: 11_000_000, tax: 1_000_000 },
        { description: '飲料水', rate: 8, taxable: 300_000, tax: 22_222 },
        { description: '', rate: 0, taxable: 23_456, tax: 0 },
      ],
    });
    await person(look, async (page, problems) => {
      await page.goto(linkOf(bill));
      await page.locator('#answer').fill(bill.customerNumber.slice(-4));
      await page.locator('form:has(#answer) button').click();
      // `all` does not wait for the page that the answer leads to.
      await page.locator('summary').first().waitFor();
      for (const summary of await page.locator('summary').all()) await summary.click();
      expect(await page.locator('details[open]').count()).toBe(2);
      await picture(page, `${name}-bill`);
      const width = await page.evaluate(() => [
        (globalThis as unknown as { document: { documentElement: { scrollWidth: number } } }).document
          .documentElement.scrollWidth,
        (globalThis as unknown as { innerWidth: number }).innerWidth,
      ]);
      expect(width[0]).toBeLessThanOrEqual(width[1] ?? 0);
      expect(problems).toEqual([]);
    });
  });

  test('a bill whose payment is being checked waits and cannot be paid', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-10000815' });
    await person({}, async (page) => {
      await page.goto(linkOf(bill));
      await page.locator('#answer').fill('0815');
      await page.locator('form:has(#answer) button').click();
      here.crashAt('checkout.after_gateway');
      await page.getByRole('button', { name: 'カードで4,980円を支払う' }).click();
      await picture(page, 'ja-phone-busy');
      await page.goto(page.url().replace(/\/pay$/, ''));
      expect(await page.getByRole('heading').textContent()).toBe('お支払いを確認しています');
      await picture(page, 'ja-phone-waiting');
      expect(await page.getByRole('button').count()).toBe(0);
    });
  });

  test('operators see alerts and the SMS outbox', async () => {
    const carrier = outboxCarrier({ db: here.db, clock: here.clock, sealer: here.sealer });
    const bill = await here.bill(gas);
    await carrier.send(
      {
        messageId: 'first',
        merchantCode: gas.code,
        to: '+819000000001',
        body: `みなとガス株式会社\n料金のお知らせ\n${linkOf(bill)}`,
        sender: 'first',
      },
      AbortSignal.timeout(5_000),
    );
    await raiseAlert(here.db, here.ids.uuid(), here.clock.now(), {
      merchantId: gas.id,
      level: 'now',
      cause: 'OUTCOME_UNKNOWN',
      message: 'the gateway gives no conclusive answer about a charge',
    });
    const admin = await startAdmin({ db: here.db, ports: here.ports, port: 0 });
    try {
      await person({ viewport: desktop }, async (page, problems) => {
        await page.goto(admin.url);
        await picture(page, 'operators-status');
        await page.getByRole('link', { name: 'SMS outbox' }).click();
        await picture(page, 'operators-outbox');
        await page.goto((await page.locator('.sms a').getAttribute('href')) ?? '');
        expect(await page.getByRole('heading').textContent()).toBe('ご本人の確認');
        expect(problems).toEqual([]);
      });
    } finally {
      await admin.close();
    }
  });
});
