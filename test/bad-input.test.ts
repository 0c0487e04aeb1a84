import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { enterGivenBack } from '../billing/refunds/by-hand.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import { sealReturn } from '../web/visit.ts';
import { type Visitor, visitor } from './visitor.ts';
import { type Bill, type BillOptions, instant, type World, webOf, world } from './world.ts';

const visa = '4242424242424242';
const japanese = { 'accept-language': 'ja' };

let here: World;
let web: WebServer;
let gas: Merchant;

beforeAll(async () => {
  here = await world();
  web = await webOf(here);
  gas = await here.merchant('minato-gas');
});
afterAll(async () => {
  await web?.close();
  await here?.drop();
});

interface Reader {
  person: Visitor;
  visitUrl: string;
}

/** Somebody who has passed the check and has the bill before them. */
async function reader(bill: Bill, person: Visitor = visitor()): Promise<Reader> {
  const { visitUrl } = await person.open(web.url + paths.link.of(bill.token), japanese);
  await person.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
  return { person, visitUrl };
}

const pay = ({ person, visitUrl }: Reader, form: Record<string, string> = {}) =>
  person.post(`${visitUrl}/pay`, form);

function latch(): { open: Promise<void>; release: () => void } {
  let release = (): void => undefined;
  const open = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { open, release };
}

async function chargesOf(bill: Bill): Promise<{ state: string; amount: number }[]> {
  return here.db.query(`select state, amount from charges where invoice_id = $1::uuid order by attempt_no`, [
    bill.invoiceId,
  ]);
}

async function paymentsOf(bill: Bill): Promise<number> {
  const rows = await here.db.query(`select 1 from payments where invoice_id = $1::uuid`, [bill.invoiceId]);
  return rows.length;
}

describe('pressing more than once', () => {
  test('fifty at once, from two phones with two tabs each, are one charge and one payment', async () => {
    const bill = await here.bill(gas);
    const [phone, other] = [visitor(), visitor()];
    const tabs = [
      await reader(bill, phone),
      await reader(bill, phone),
      await reader(bill, other),
      await reader(bill, other),
    ];
    const presses = await Promise.all(
      Array.from({ length: 50 }, (_, no) => pay(tabs[no % tabs.length] as Reader)),
    );
    expect(presses.every(({ status }) => status === 303)).toBe(true);
    const pages = new Set(
      presses.map(({ location }) => location).filter((to) => to.startsWith(here.simulator.url)),
    );
    expect(pages.size).toBe(1);
    expect(await chargesOf(bill)).toMatchObject([{ state: 'requires_action' }]);
    const back = await here.payOnPage([...pages][0] ?? '', visa);
    const returns = await Promise.all(Array.from({ length: 10 }, () => visitor().get(back, japanese)));
    expect(returns.every(({ text }) => text.includes('data-state="paid"'))).toBe(true);
    expect(await chargesOf(bill)).toEqual([{ state: 'succeeded', amount: bill.amount }]);
    expect(await paymentsOf(bill)).toBe(1);
    for (const tab of tabs) {
      expect((await pay(tab)).location).toBe(tab.visitUrl);
      expect((await tab.person.get(tab.visitUrl)).text).toContain('data-state="receipt"');
    }
    expect(await chargesOf(bill)).toHaveLength(1);
  });

  test('a double click: the second press waits for the page that the first one opens, and both lead there', async () => {
    const [opened, first] = [latch(), latch()];
    const openHostedPage: typeof here.gateway.openHostedPage = async (...request) => {
      await opened.open;
      return here.gateway.openHostedPage(...request);
    };
    const sleep = async () => {
      opened.release();
      await first.open;
    };
    const clock = { ...here.clock, sleep };
    const slow = await webOf(here, {
      ports: { ...here.ports, clock, gateway: { ...here.gateway, openHostedPage } },
    });
    const bill = await here.bill(gas);
    const tab = await reader(bill);
    const url = tab.visitUrl.replace(web.url, slow.url);
    const presses = [tab.person.post(`${url}/pay`, {})];
    await vi.waitFor(async () => expect(await chargesOf(bill)).toMatchObject([{ state: 'processing' }]));
    presses.push(tab.person.post(`${url}/pay`, {}));
    presses[0]?.then(() => first.release());
    const [one, other] = await Promise.all(presses);
    await slow.close();
    expect(one?.location).toContain(here.simulator.url);
    expect(other?.location).toBe(one?.location);
    expect(await chargesOf(bill)).toMatchObject([{ state: 'requires_action' }]);
  });

  test('a gateway that says nothing when its customer comes back: the page waits, and knows when it is asked again', async () => {
    const lookup = async () => ({ kind: 'unknown', why: 'timeout' }) as const;
    const quiet = await webOf(here, { ports: { ...here.ports, gateway: { ...here.gateway, lookup } } });
    const bill = await here.bill(gas);
    const back = await here.payOnPage((await pay(await reader(bill))).location, visa);
    const { text } = await visitor().get(back.replace(web.url, quiet.url), japanese);
    await quiet.close();
    expect(text).toContain('data-state="waiting"');
    expect((await visitor().get(back, japanese)).text).toContain('data-state="paid"');
  });

  test('a receipt says what of it went back', async () => {
    const bill = await here.bill(gas);
    const tab = await reader(bill);
    await here.payOnPage((await pay(tab)).location, visa).then((back) => tab.person.get(back, japanese));
    const [payment] = await here.db.query<{ id: string; day: string }>(
      `select id, collected_on as day from payments where invoice_id = $1::uuid`,
      [bill.invoiceId],
    );
    expect((await tab.person.get(tab.visitUrl)).text).not.toContain('うちご返金額');
    const { id: chargeId = '', day: givenOn = '' } = payment ?? {};
    const given = { chargeId, givenOn, amount: 120, reason: 'ticket 1', by: 'test', again: false };
    await enterGivenBack({ ...here.ports, db: here.db }, gas, given);
    expect((await tab.person.get(tab.visitUrl)).text).toContain('うちご返金額(手続き中を含む)</dt><dd>120円');
  });

  test('back to the bill after paying, and the button again: nothing more is taken', async () => {
    const bill = await here.bill(gas);
    const tab = await reader(bill);
    const { location } = await pay(tab, { enrol: 'yes' });
    await here.payOnPage(location, visa);
    // The page as it was before is still on the screen.
    expect((await pay(tab)).location).toBe(tab.visitUrl);
    // At the gateway the one page is used up: it sends back who comes to it again.
    expect((await pay(tab, { enrol: 'yes' })).location).toBe(location);
    await tab.person.get(tab.visitUrl);
    expect((await pay(tab)).location).toBe(tab.visitUrl);
    expect(await chargesOf(bill)).toEqual([{ state: 'succeeded', amount: bill.amount }]);
  });
});

describe('coming back from the gateway', () => {
  test('by post, without a cookie, in another browser, again and again: the state and nothing else', async () => {
    const bill = await here.bill(gas, { description: 'ひみつの使用' });
    const tab = await reader(bill);
    const { location } = await pay(tab);
    const back = await here.payOnPage(location, visa);
    const other = visitor();
    const posted = await other.post(
      back,
      { status: 'failed', amount: '1' },
      { 'sec-fetch-site': 'cross-site', origin: here.simulator.url },
    );
    expect([posted.status, posted.location]).toEqual([303, back]);
    for (let times = 0; times < 3; times++) {
      const shown = await other.get(back, japanese);
      expect(shown.text).toContain('data-state="paid"');
      for (const secret of ['4,980', 'ひみつ', bill.billingNumber, bill.customerNumber.slice(-4)]) {
        expect(shown.text).not.toContain(secret);
      }
    }
    expect(other.cookies).toEqual([]);
    // Its link to the receipt opens nothing without the visit's cookie.
    expect((await other.get(tab.visitUrl)).status).toBe(404);
    expect(await paymentsOf(bill)).toBe(1);
  });

  test('with a changed, foreign, old or invented nonce: as any unknown page', async () => {
    const bill = await here.bill(gas);
    const tab = await reader(bill);
    const { location } = await pay(tab);
    const back = await here.payOnPage(location, visa);
    const cookie = tab.person.cookies[0]?.value ?? '';
    const nonce = back.split('/r/')[1] ?? '';
    const of = (merchantId: number, chargeId: string) =>
      sealReturn(here.sealer, here.clock.now(), 'return', {
        merchantId,
        id: chargeId,
        visitId: 'x'.repeat(22),
        language: 'ja',
      });
    const [charge] = await here.db.query<{ id: string }>(
      `select id from charges where invoice_id = $1::uuid`,
      [bill.invoiceId],
    );
    const answers = [
      await visitor().get(`${web.url}/r/${cookie}`),
      await visitor().get(`${web.url}/r/${nonce.slice(0, -2)}${nonce.at(-1)}${nonce.at(-2)}`),
      await visitor().get(`${web.url}/r/${nonce}A`),
      await visitor().get(`${web.url}/r/${of(gas.id + 7, charge?.id ?? '')}`),
      await visitor().get(`${web.url}/r/${of(gas.id, bill.invoiceId)}`),
    ];
    answers.push(await visitor().post(`${web.url}/r/${'a'.repeat(50)}%0d%0aset-cookie:x=y`, {}));
    here.clock.advance(2 * 3_600_000);
    answers.push(await visitor().get(back));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 404));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
    // It opens no visit either.
    expect((await visitor().get(tab.visitUrl, { cookie: `visit=${nonce}` })).status).toBe(404);
  });
});

describe('the last minutes', () => {
  const at = (local: string) => {
    const to = instant(`${local}+09:00`).epochMilliseconds;
    here.clock.advance(to - here.clock.now().epochMilliseconds);
  };

  test('a bill is overdue from midnight of its due date on, where the merchant is', async () => {
    const bill = await here.bill(gas, { dueOn: '2026-12-10' });
    at('2026-12-10T23:59:59');
    const tab = await reader(bill);
    const before = await tab.person.get(tab.visitUrl);
    expect(before.text).toContain('class="due">お支払期限 2026年12月10日(木)<');
    here.clock.advance(1_000);
    const after = await tab.person.get(tab.visitUrl);
    expect(after.text).toContain('class="due over">お支払期限 2026年12月10日(木)(過ぎています)');
    expect((await pay(tab)).location).toContain(here.simulator.url);
  });

  test('a link ends with its last day, and no page at the gateway outlives it', async () => {
    const options: BillOptions = { linkExpiresOn: '2026-12-20' };
    const [open, late] = [await here.bill(gas, options), await here.bill(gas, options)];
    at('2026-12-20T23:50:00');
    const [tab, other] = [await reader(open), await reader(late)];
    expect((await pay(tab)).location).toContain(here.simulator.url);
    const [session] = await here.db.query<{ expires_at: string }>(
      `select expires_at from checkout_sessions where invoice_id = $1::uuid`,
      [open.invoiceId],
    );
    expect(session?.expires_at).toBe('2026-12-20T15:00:00Z');
    // Less than a minute is not worth opening a page for.
    at('2026-12-20T23:59:30');
    expect((await pay(other)).location).toBe(other.visitUrl);
    at('2026-12-21T00:00:00');
    const ended = await other.person.get(other.visitUrl);
    expect([ended.status, ended.text.includes('期限が切れています')]).toEqual([410, true]);
    expect((await pay(other)).location).toBe(other.visitUrl);
    expect(await chargesOf(late)).toEqual([]);
  });
});

describe('what files and visitors bring', () => {
  test.each([
    '=HYPERLINK("https://evil.example","pay")',
    '\u202e円000,1\u202c',
    '\u2066<b>\u2069',
    '"><form action=https://evil.example>',
    '&lt;script&gt; {{7*7}} #{7*7} %0d%0aSet-Cookie: a=b',
  ])('%s is shown as it is', async (description) => {
    const bill = await here.bill(gas, {
      description,
      taxLines: [{ description, rate: 10, taxable: 4_528, tax: 452 }],
    });
    const tab = await reader(bill);
    const shown = await tab.person.get(tab.visitUrl);
    const escaped = description.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
    expect(shown.text).toContain(`<dd>${escaped}</dd>`);
    // One for each way to pay: card, barcode, wallet.
    expect(shown.text.match(/<form/g)).toHaveLength(3);
  });

  test.each(['', ' ', '\u0000', "' or 1=1 --", '0'.repeat(5_000), '１'.repeat(90), '%', '_'])(
    'the answer %j is wrong and no more',
    async (answer) => {
      const bill = await here.bill(gas);
      const person = visitor();
      const { visitUrl } = await person.open(web.url + paths.link.of(bill.token));
      const checked = await person.post(`${visitUrl}/check`, { answer });
      expect([413, 422]).toContain(checked.status);
      expect((await person.get(visitUrl)).text).toContain('id="answer"');
    },
  );

  test('a field twice, no body, another content type: nothing is paid and nothing breaks', async () => {
    const bill = await here.bill(gas);
    const tab = await reader(bill);
    const cookie = `visit=${tab.person.cookies[0]?.value}`;
    const send = (body: string | undefined, type: string, path = 'check') =>
      fetch(`${tab.visitUrl}/${path}`, {
        method: 'POST',
        redirect: 'manual',
        ...(body === undefined ? {} : { body }),
        headers: { cookie, 'content-type': type, 'sec-fetch-site': 'same-origin' },
      });
    const form = 'application/x-www-form-urlencoded';
    expect((await send('answer=1&answer=2', form)).status).toBe(422);
    expect((await send('', form)).status).toBe(422);
    expect((await send('{"answer":"1"}', 'application/json')).status).toBeLessThan(500);
    expect((await send('<a/>', 'text/xml')).status).toBe(415);
    expect((await send('{', 'application/json', 'pay')).status).toBe(400);
    expect(await chargesOf(bill)).toEqual([]);
  });
});
