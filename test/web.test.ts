import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { outboxCarrier } from '../billing/carriers/outbox.ts';
import { referenceOf } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { beginRestore } from '../billing/restores/begin.ts';
import { type AdminServer, startAdmin } from '../web/admin.ts';
import { brandStyle, contrast, rgbOf } from '../web/brand.ts';
import { paths } from '../web/paths.ts';
import { startWeb, type WebServer } from '../web/server.ts';
import { clockTime, languageFor, longDate, longMonth, money } from '../web/texts.ts';
import { type Answer, type Visitor, visitor } from './visitor.ts';
import { type Bill, type World, webOf, world } from './world.ts';

const visa = '4242424242424242';
const japanese = { 'accept-language': 'ja' };

let here: World;
let web: WebServer;
let gas: Merchant;
let water: Merchant;
let power: Merchant;

beforeAll(async () => {
  here = await world();
  web = await webOf(here);
  gas = await here.merchant('minato-gas');
  water = await here.merchant('sakura-suido');
  power = await here.merchant('kita-denryoku', (settings) => ({
    ...settings,
    checkout: { ...settings.checkout, ask: 'nothing' },
  }));
});
afterAll(async () => {
  await web?.close();
  await here?.drop();
});

describe('opening a link', () => {
  test('changes nothing, hands out a cookie for this visit only, and leaves the token behind', async () => {
    const bill = await here.bill(gas);
    const before = await links(bill);
    const person = visitor();
    const first = await person.get(linkOf(bill));
    expect(first.status).toBe(303);
    expect(first.location).not.toContain(bill.token);
    const [cookie] = person.cookies;
    expect(cookie?.path).toBe(new URL(first.location).pathname);
    expect(cookie?.attributes).toContain('HttpOnly');
    expect(cookie?.attributes).toContain('SameSite=Lax');
    expect(cookie?.value).not.toContain(bill.invoiceId);
    expect(await links(bill)).toEqual(before);
  });

  test('shows nothing personal before the last four of the customer number', async () => {
    const bill = await here.bill(gas, {
      customerNumber: 'C-77788899',
      description: 'ガス料金のひみつ',
      customerName: '鈴木 一郎',
      amount: 7_654,
    });
    const person = visitor();
    const asked = await person.open(linkOf(bill), japanese);
    expect(asked.status).toBe(200);
    expect(asked.text).toContain('お客様番号の下4桁');
    for (const secret of ['7,654', '8899', 'ひみつ', '鈴木', '2026年11月分', bill.billingNumber]) {
      expect(asked.text).not.toContain(secret);
    }
    const shown = await check(person, asked.visitUrl, '8899');
    expect(shown.text).toContain('7,654');
    expect(shown.text).toContain('ガス料金のひみつ');
    expect(shown.text).toContain('2026年11月分');
    expect(shown.text).toContain('2026年12月10日(木)');
    expect(shown.text).toContain('T7000012050002');
    // The name is never needed to pay.
    expect(shown.text).not.toContain('鈴木');
  });

  test('a merchant that asks nothing shows no use', async () => {
    const bill = await here.bill(power, { description: '電気の使用量 321kWh', customerNumber: 'K-5566' });
    const shown = await visitor().open(linkOf(bill), japanese);
    expect(shown.text).toContain('4,980');
    for (const secret of ['321kWh', '5566', '2026年11月分']) expect(shown.text).not.toContain(secret);
  });

  test('all unknown links look alike', async () => {
    const bill = await here.bill(gas);
    const secretPart = bill.token.slice(gas.shortCode.length);
    const answers = await Promise.all(
      [
        '/l/x',
        `/l/${gas.shortCode}${'a'.repeat(22)}`,
        `/l/${water.shortCode}${secretPart}`,
        `/l/zz${secretPart}`,
        '/l/..%2f..%2fetc',
        '/l/%zz',
        '/b/nothing-here',
        '/r/nothing-here',
        '/nothing',
        '/l/',
        `/l/${'a'.repeat(900)}`,
      ].map((path) => visitor().get(web.url + path, japanese)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([404]));
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1);
  });

  test('five wrong answers make the link rest, also for the right one; then it counts anew', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-0009876' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    for (let tries = 0; tries < 4; tries++) {
      const wrong = await person.post(`${visitUrl}/check`, { answer: '1111' });
      expect([wrong.status, wrong.text.includes('一致しません')]).toEqual([422, true]);
    }
    const fifth = await person.post(`${visitUrl}/check`, { answer: '1111' });
    expect([fifth.status, fifth.text.includes('10:10')]).toEqual([429, true]);
    expect((await person.post(`${visitUrl}/check`, { answer: '9876' })).status).toBe(429);
    // A second phone with the same link rests too.
    const other = visitor();
    const { visitUrl: otherUrl } = await other.open(linkOf(bill), japanese);
    expect((await other.post(`${otherUrl}/check`, { answer: '9876' })).status).toBe(429);
    here.clock.advance(10 * 60_000);
    expect((await person.post(`${visitUrl}/check`, { answer: '9876' })).status).toBe(303);
    expect(await links(bill)).toEqual([{ wrong_tries: 0, cool_until: null }]);
  });

  test.each([
    ['C-00045671234', '1234'],
    ['C-00045671234', '１２３４'],
    ['C-00045671234', 'c-00045671234'],
    ['AB-12-cd', '12CD'],
    ['77', '77'],
  ])('%s is known by %s', async (customerNumber, answer) => {
    const bill = await here.bill(gas, { customerNumber });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    expect((await person.post(`${visitUrl}/check`, { answer })).status).toBe(303);
    await here.db.run(`update customers set customer_number = $1 where id = $2::uuid`, [
      `gone ${bill.customerId}`,
      bill.customerId,
    ]);
  });

  test('what a merchant’s file says stays text', async () => {
    const nasty = `</dd><script>alert(1)</script><img src=x onerror=alert(1)>"'&\u202e`;
    const evil = await here.merchant('minato-gas', (settings) => ({
      ...settings,
      code: 'evil',
      name: { ja: `<b onload=1>&"'`, en: '<i>evil</i>' },
      contactPhone: null,
    }));
    const bill = await here.bill(evil, {
      description: nasty,
      customerNumber: 'E-4321',
      taxLines: [{ description: nasty, rate: 8, taxable: 4_600, tax: 380 }],
    });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    const shown = await check(person, visitUrl, '4321');
    expect(shown.text).not.toMatch(/<script|<img src=x|<b onload|<i>evil/);
    expect(shown.text).toContain('&lt;script>alert(1)&lt;/script>');
  });
});

describe('one visit, one bill', () => {
  test('the bills of a family do not mix', async () => {
    const [mother, son] = [
      await here.bill(gas, { customerNumber: 'F-0001', amount: 1_111 }),
      await here.bill(gas, { customerNumber: 'F-0002', amount: 2_222 }),
    ];
    const phone = visitor();
    const first = await phone.open(linkOf(mother), japanese);
    await check(phone, first.visitUrl, '0001');
    const second = await phone.open(linkOf(son), japanese);
    await check(phone, second.visitUrl, '0002');
    expect((await phone.get(first.visitUrl)).text).toContain('1,111');
    expect((await phone.get(second.visitUrl)).text).toContain('2,222');
  });

  test('a cookie opens no other visit, changed ones open nothing, and none lives for ever', async () => {
    const mine = await here.bill(gas, { customerNumber: 'M-1111' });
    const theirs = await here.bill(water, { customerNumber: 'W-2222' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(mine));
    await check(person, visitUrl, '1111');
    const other = visitor();
    const { visitUrl: otherUrl } = await other.open(linkOf(theirs));
    const value = person.cookies[0]?.value ?? '';
    const foreign = await visitor().get(otherUrl, { cookie: `visit=${value}` });
    expect(foreign.status).toBe(404);
    const changed = value.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A'));
    expect((await visitor().get(visitUrl, { cookie: `visit=${changed}` })).status).toBe(404);
    expect((await visitor().get(visitUrl)).status).toBe(404);
    expect((await person.get(visitUrl)).status).toBe(200);
    here.clock.advance(3 * 3_600_000);
    expect((await person.get(visitUrl)).status).toBe(404);
  });

  test('ids in the form are ignored: the visit alone says what is paid', async () => {
    const mine = await here.bill(gas, { customerNumber: 'I-1111', amount: 3_000 });
    const other = await here.bill(gas, { amount: 9_000 });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(mine));
    await check(person, visitUrl, '1111');
    const paid = await person.post(`${visitUrl}/pay`, {
      invoice: other.invoiceId,
      invoice_id: other.invoiceId,
      amount: '1',
      merchant: water.code,
    });
    expect(paid.location).toContain(here.simulator.url);
    const charges = await here.db.query<{ amount: number }>(
      `select amount from charges where invoice_id = $1::uuid`,
      [mine.invoiceId],
    );
    expect(charges).toEqual([{ amount: 3_000 }]);
    expect(await stateOf(other)).toBe('open');
  });

  test('without the check there is no paying', async () => {
    const bill = await here.bill(gas);
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    const pressed = await person.post(`${visitUrl}/pay`, {});
    expect(pressed.location).toBe(visitUrl);
    expect(
      await here.db.query(`select 1 from charges where invoice_id = $1::uuid`, [bill.invoiceId]),
    ).toEqual([]);
  });

  test('a post from another site does nothing', async () => {
    const bill = await here.bill(gas, { customerNumber: 'P-3333' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    const sites: Record<string, string>[] = [
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site', origin: web.url },
    ];
    for (const headers of sites) {
      expect((await person.post(`${visitUrl}/check`, { answer: '3333' }, headers)).status).toBe(403);
      expect((await person.post(`${visitUrl}/pay`, {}, headers)).status).toBe(403);
    }
    const plain = await fetch(`${visitUrl}/check`, {
      method: 'POST',
      body: new URLSearchParams({ answer: '3333' }),
      headers: { origin: 'https://evil.example', cookie: `visit=${person.cookies[0]?.value}` },
    });
    expect(plain.status).toBe(403);
  });
});

describe('paying', () => {
  test('to the gateway, back, paid; later visits say so and take nothing', async () => {
    const bill = await here.bill(gas, { customerNumber: 'Z-1234' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    await check(person, visitUrl, '1234');
    const pressed = await person.post(`${visitUrl}/pay`, { enrol: 'yes' });
    expect(pressed.status).toBe(303);
    // Looking again in another tab: the payment goes on where it is.
    const again = await person.get(visitUrl);
    expect(again.text).toContain('支払いを続ける');
    expect(again.text).toContain('「次回から自動で支払う」が選ばれています');
    expect((await person.post(`${visitUrl}/pay`, { enrol: 'yes' })).location).toBe(pressed.location);

    const back = await here.payOnPage(pressed.location, visa);
    const returned = await visitor().get(back, japanese);
    expect(returned.text).toContain('お支払いが完了しました');
    expect(returned.text).toContain('次のご請求からは、自動でお支払いします');
    for (const secret of ['4,980', 'Z-1234', bill.billingNumber]) expect(returned.text).not.toContain(secret);
    expect(await stateOf(bill)).toBe('paid');

    const record = await person.get(visitUrl);
    expect(record.text).toContain('このご請求はお支払い済みです');
    expect(record.text).toContain('領収書');
    expect(record.text).toContain('<dt>お支払日</dt><dd>2026年11月26日(木)</dd>');
    expect(record.text).toContain('<dt>お支払い方法</dt><dd>クレジットカード</dd>');
    expect(record.text).toContain('T7000012050002');
    const stranger = await visitor().open(linkOf(bill), japanese);
    expect(stranger.text).toContain('お支払い済みです');
    expect(stranger.text).not.toContain('4,980');
    expect((await person.post(`${visitUrl}/pay`, {})).location).toBe(visitUrl);
  });

  test('coming back without paying changes nothing; a replayed or forged return neither', async () => {
    const bill = await here.bill(gas, { customerNumber: 'Z-2345' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    await check(person, visitUrl, '2345');
    const { location } = await person.post(`${visitUrl}/pay`, {});
    const back = await returnUrlOf(location);
    const unfinished = await person.get(`${back}?success=1&state=paid`, japanese);
    expect(unfinished.text).toContain('お支払いはまだ終わっていません');
    expect(await stateOf(bill)).toBe('open');
    await fetch(`${location}/cancel`, { method: 'POST', redirect: 'manual' });
    const stopped = await person.get(back, japanese);
    expect(stopped.text).toContain('お支払いできませんでした');
    expect(stopped.text).toContain(new URL(visitUrl).pathname);
    expect((await person.get(visitUrl)).text).toContain('カードで4,980円を支払う');
    expect((await visitor().get(`${back}x`)).status).toBe(404);
  });

  test('whoever paid but never came back sees it as soon as the bill is opened', async () => {
    const bill = await here.bill(gas, { customerNumber: 'Z-3456' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    await check(person, visitUrl, '3456');
    const { location } = await person.post(`${visitUrl}/pay`, {});
    await here.payOnPage(location, visa);
    expect((await person.get(visitUrl)).text).toContain('お支払い済みです');
  });

  test('cancelled, returned and expired bills have their own page, without anything personal', async () => {
    const cases = [
      ['cancelled', 410, '取り消されました'],
      ['unpaid', 410, 'お支払いは終了しました'],
      ['expired', 410, '期限が切れています'],
    ] as const;
    for (const [state, status, text] of cases) {
      const bill = await here.bill(gas, state === 'expired' ? { linkExpiresOn: '2026-11-01' } : {});
      if (state !== 'expired') {
        await here.db.run(`update invoices set state = $1 where id = $2::uuid`, [state, bill.invoiceId]);
      }
      const shown = await visitor().open(linkOf(bill), japanese);
      expect([shown.status, shown.text.includes(text)]).toEqual([status, true]);
      expect(shown.text).not.toContain('4,980');
    }
  });

  test('in safe mode nobody can pay, also who has the bill on the screen, and nothing is under way', async () => {
    const bill = await here.bill(gas, { customerNumber: 'C-00032165' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    await check(person, visitUrl, '2165');
    await here.db.transaction((tx) =>
      beginRestore(tx, {
        ids: here.ids,
        at: here.clock.now(),
        by: 'test',
        why: 'a test',
        forgottenFrom: here.clock.now(),
      }),
    );
    expect((await person.post(`${visitUrl}/pay`, {})).status).toBe(303);
    const shown = await person.get(visitUrl, japanese);
    expect([shown.status, shown.text.includes('data-state="resting"')]).toEqual([503, true]);
    expect(shown.text).toContain('受付を止めています');
    expect(await here.db.query(`select 1 from charges where invoice_id = $1`, [bill.invoiceId])).toEqual([]);
    await here.db.run(`update restores set ended_at = began_at, ended_by = 'test'`);
    expect((await person.get(visitUrl, japanese)).status).toBe(200);
  });

  test('an unknown outcome is a page that waits', async () => {
    const bill = await here.bill(gas, { customerNumber: 'Z-4567' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    await check(person, visitUrl, '4567');
    here.crashAt('checkout.after_intent');
    const crashed = await person.post(`${visitUrl}/pay`, {}, japanese);
    expect([crashed.status, crashed.text.includes('二重に請求されることはありません')]).toEqual([500, true]);
    const waiting = await person.get(visitUrl);
    expect(waiting.text).toContain('お支払いを確認しています');
    expect(waiting.text).toContain(`href="${new URL(visitUrl).pathname}">結果を確認する`);
    expect(waiting.text).not.toContain('<form');
    expect((await person.post(`${visitUrl}/pay`, {})).location).toBe(visitUrl);
  });
});

describe('webhooks over HTTP', () => {
  test('acknowledged, then handled; twice is once', async () => {
    const { bill, event } = await paidUnnoticed('H-0001');
    for (let times = 0; times < 2; times++) {
      const answer = await deliver(gas.code, event);
      expect(answer.status).toBe(200);
      await web.settled();
      expect(await stateOf(bill)).toBe('paid');
    }
  });

  test('a death right after the inbox: not acknowledged, kept, handled when it is sent again', async () => {
    const { bill, event } = await paidUnnoticed('H-0002');
    here.crashAt('webhook.after_inbox');
    expect((await deliver(gas.code, event)).status).toBe(500);
    expect(await stateOf(bill)).toBe('open');
    expect((await deliver(gas.code, event)).status).toBe(200);
    await web.settled();
    expect(await stateOf(bill)).toBe('paid');
  });

  test('forged, foreign, empty and oversized ones are refused', async () => {
    const { event } = await paidUnnoticed('H-0003');
    const { body, signature } = here.signedWebhook(event);
    const send = (path: string, content: string, header: string) =>
      fetch(web.url + path, {
        method: 'POST',
        body: content,
        headers: { 'simulator-signature': header, 'content-type': 'application/json' },
      });
    const own = paths.webhook.of('simulator', gas.code);
    expect((await send(own, body, `${signature.slice(0, -1)}x`)).status).toBe(400);
    expect((await send(own, body.replace('evt', 'EVT'), signature)).status).toBe(400);
    expect((await send(own, '', signature)).status).toBe(400);
    expect((await send(paths.webhook.of('simulator', water.code), body, signature)).status).toBe(400);
    expect((await send(own, 'x'.repeat(70_000), signature)).status).toBe(413);
    expect(await here.db.query(`select 1 from webhook_events where event_id = $1`, [event.id])).toEqual([]);
  });
});

describe('every answer', () => {
  test('carries the headers that keep others out', async () => {
    const bill = await here.bill(gas);
    const person = visitor();
    const answers: Answer[] = [
      await person.get(linkOf(bill)),
      await person.open(linkOf(bill)),
      await person.get(`${web.url}/nothing`),
      await person.get(`${web.url}/%zz`),
      await person.get(`${web.url}/healthz`),
    ];
    for (const { headers } of answers) {
      expect(headers.get('content-security-policy')).toBe(
        `default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' ${here.simulator.url}; frame-ancestors 'none'; base-uri 'none'`,
      );
      expect(headers.get('referrer-policy')).toBe('no-referrer');
      expect(headers.get('cache-control')).toBe('no-store');
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('strict-transport-security')).toBeNull();
    }
    const html = answers[1]?.text ?? '';
    expect(html).not.toMatch(/<script|style=|<style|javascript:/i);
  });

  test('over https: HSTS and a secure cookie', async () => {
    const secure = await startWeb({
      webDb: here.webDb,
      ports: here.ports,
      baseUrl: 'https://pay.example.jp/',
      port: 0,
      gatewayOrigins: ['https://gateway.example/pay'],
    });
    try {
      const bill = await here.bill(gas);
      const person = visitor();
      const first = await person.get(`${secure.url}/l/${bill.token}`);
      expect(first.headers.get('strict-transport-security')).toContain('max-age');
      expect(first.headers.get('content-security-policy')).toContain("'self' https://gateway.example;");
      expect(person.cookies[0]?.attributes).toContain('Secure');
    } finally {
      await secure.close();
    }
  });

  test('is logged by its pattern: no token, visit, name or number', async () => {
    const bill = await here.bill(gas, { customerNumber: 'L-9191', customerName: '記録 しない' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    await check(person, visitUrl, '9191');
    await person.post(`${visitUrl}/pay`, {});
    await person.get(`${web.url}/l/${bill.token.slice(0, -1)}%`);
    const text = JSON.stringify(here.logged);
    expect(text).toContain('/b/:visit/pay');
    for (const secret of [bill.token, bill.token.slice(5), visitUrl.split('/').at(-1), '9191', '記録']) {
      expect(text).not.toContain(secret);
    }
  });

  test('in the language of the visitor, as far as the merchant offers it', async () => {
    const bill = await here.bill(gas, { customerNumber: 'E-0001' });
    const person = visitor();
    const english = await person.open(linkOf(bill), { 'accept-language': 'fr, en;q=0.8, ja;q=0.3' });
    expect(english.text).toContain('<html lang="en">');
    const switched = await person.get(`${english.visitUrl}?language=ja`);
    expect(switched.location).toBe(english.visitUrl);
    expect((await person.get(english.visitUrl)).text).toContain('<html lang="ja">');
    const onlyJapanese = await here.bill(power);
    const shown = await visitor().open(linkOf(onlyJapanese), { 'accept-language': 'en' });
    expect(shown.text).toContain('<html lang="ja">');
    expect(shown.text).not.toContain('English');
  });

  test('the first view is less than 50 kB, and asks for nothing but its own style, colour and logo', async () => {
    const bill = await here.bill(gas, { customerNumber: 'S-5050' });
    const person = visitor();
    const { visitUrl, text: ask } = await person.open(linkOf(bill), japanese);
    const shown = await check(person, visitUrl, '5050');
    for (const page of [ask, shown.text]) {
      const parts = [...page.matchAll(/<(?:link rel="stylesheet" href|img src)="([^"]+)"/g)].map(
        ([, url]) => url ?? '',
      );
      expect(parts.map((url) => url.replace(/[\d-].*/, ''))).toEqual(['/style', '/brand', '/logo']);
      const answers = await Promise.all(parts.map((url) => visitor().get(web.url + url)));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200]);
      const bytes = [page, ...answers.map(({ text }) => text)].reduce(
        (sum, text) => sum + Buffer.byteLength(text),
        0,
      );
      expect(bytes).toBeLessThan(50_000);
    }
  });

  test('a logo is an image of one version of the settings, kept for good; there is none under any other name', async () => {
    const logo = await visitor().get(web.url + paths.logo.of(gas.shortCode, gas.settingsVersion));
    expect([logo.status, logo.headers.get('content-type'), logo.headers.get('cache-control')]).toEqual([
      200,
      'image/svg+xml; charset=utf-8',
      'public, max-age=31536000, immutable',
    ]);
    expect(logo.headers.get('content-security-policy')).toContain("default-src 'none'");
    for (const name of [
      '/logo-1-99.svg',
      '/logo-zz-1.svg',
      '/logo-1-x.svg',
      `/logo-1-${'9'.repeat(30)}.svg`,
    ]) {
      expect((await visitor().get(web.url + name)).status).toBe(404);
    }
  });

  test('style sheets may be kept; a colour that is none is not found', async () => {
    const style = await visitor().get(web.url + paths.brand.of('#C8102E'));
    expect([style.status, style.headers.get('cache-control')]).toEqual([
      200,
      'public, max-age=31536000, immutable',
    ]);
    expect((await visitor().get(`${web.url}/brand-red;}*{.css`)).status).toBe(404);
  });

  test('a database that is away is said so, in words', async () => {
    const broken = await startWeb({
      webDb: {
        ...here.webDb,
        query: () => Promise.reject(Object.assign(new Error('secret detail'), { code: 'ECONNREFUSED' })),
      } as typeof here.webDb,
      ports: here.ports,
      baseUrl: web.url,
      port: 0,
      gatewayOrigins: [],
    });
    try {
      const bill = await here.bill(gas);
      const answer = await visitor().get(`${broken.url}/l/${bill.token}`, japanese);
      expect([answer.status, answer.text.includes('混み合っています')]).toEqual([503, true]);
      expect(answer.text).not.toContain('secret detail');
      expect((await visitor().get(`${broken.url}/healthz`)).status).toBe(503);
    } finally {
      await broken.close();
    }
  });
});

describe('operators’ pages', () => {
  let admin: AdminServer;
  beforeAll(async () => {
    admin = await startAdmin({ db: here.db, ports: here.ports, port: 0 });
  });
  afterAll(() => admin?.close());

  test('show what wants a person, and the outbox newest first with its links', async () => {
    const carrier = outboxCarrier({ db: here.db, clock: here.clock, sealer: here.sealer });
    const send = (messageId: string, body: string) =>
      carrier.send(
        { messageId, merchantCode: gas.code, to: '+819000000001', body, sender: 'first' },
        AbortSignal.timeout(5_000),
      );
    await send('older', 'みなとガス\n料金のお知らせ\nhttps://pay.example.jp/l/1abc');
    here.clock.advance(60_000);
    await send('newer', 'まもなく <script>alert(1)</script> javascript:alert(1)');
    const outbox = await visitor().get(`${admin.url}/outbox`);
    expect(outbox.text).toContain('href="https://pay.example.jp/l/1abc"');
    expect(outbox.text.indexOf('まもなく')).toBeLessThan(outbox.text.indexOf('料金のお知らせ'));
    expect(outbox.text).not.toMatch(/<script|href="javascript/);
    const status = await visitor().get(admin.url);
    expect(status.text).toContain('minato-gas');
    expect(status.text).toContain('Nothing is parked.');
  });

  test('answer to loopback names only', async () => {
    const { request } = await import('undici');
    for (const [host, status] of [
      ['evil.example', 403],
      ['localhost:1234', 200],
    ] as const) {
      const answer = await request(admin.url, { headers: { host } });
      await answer.body.dump();
      expect(answer.statusCode).toBe(status);
    }
  });
});

describe('words', () => {
  test.each([
    [undefined, 'ja'],
    ['en-GB,en;q=0.9', 'en'],
    ['de', 'ja'],
    ['en;q=0, ja', 'ja'],
    ['ja;q=0.5, en;q=0.6', 'en'],
    [';;,,=', 'ja'],
  ])('languageFor(%s) is %s', (header, language) => {
    expect(languageFor(header, ['ja', 'en'])).toBe(language);
  });

  test('amounts, dates and times', () => {
    expect(money(4_980, 'JPY', 'ja')).toBe('4,980円');
    expect(money(4_980, 'JPY', 'en')).toBe('¥4,980');
    expect(money(123_456, 'USD', 'en')).toBe('$1,234.56');
    expect(longDate('2026-12-10', 'ja')).toBe('2026年12月10日(木)');
    expect(longDate('2026-12-10', 'en')).toBe('10 December 2026');
    expect(longMonth('2026-02', 'ja')).toBe('2026年2月分');
    expect(longMonth('2026-02', 'en')).toBe('February 2026');
    expect(clockTime('2026-11-26T01:09:01Z', 'Asia/Tokyo')).toBe('10:10');
  });

  test('any brand colour stays readable', () => {
    for (let step = 0; step < 4_096; step++) {
      const color = [...step.toString(16).padStart(3, '0')].map((digit) => digit + digit).join('');
      const colors = [...brandStyle(color).matchAll(/--([a-z-]+):#([0-9a-f]{6})/g)];
      const [brand, onBrand, act, darkAct, onDarkAct] = colors.map((each) => rgbOf(each[2] ?? ''));
      if (!brand || !onBrand || !act || !darkAct || !onDarkAct) throw new Error('missing colour');
      expect(contrast(brand, onBrand)).toBeGreaterThanOrEqual(4.2);
      expect(contrast(act, [255, 255, 255])).toBeGreaterThanOrEqual(4.5);
      expect(contrast(darkAct, [30, 33, 41])).toBeGreaterThanOrEqual(4.5);
      expect(contrast(darkAct, onDarkAct)).toBeGreaterThanOrEqual(4.5);
    }
  });
});

function linkOf(bill: Bill): string {
  return web.url + paths.link.of(bill.token);
}

async function check(person: Visitor, visitUrl: string, answer: string): Promise<Answer> {
  const checked = await person.post(`${visitUrl}/check`, { answer });
  expect([checked.status, checked.location]).toEqual([303, visitUrl]);
  return person.get(visitUrl);
}

async function paidUnnoticed(customerNumber: string) {
  const bill = await here.bill(gas, { customerNumber });
  const person = visitor();
  const { visitUrl } = await person.open(linkOf(bill));
  await check(person, visitUrl, customerNumber.slice(-4));
  const { location } = await person.post(`${visitUrl}/pay`, {});
  await here.payOnPage(location, visa);
  const [charge] = await here.db.query<{ id: string }>(`select id from charges where invoice_id = $1::uuid`, [
    bill.invoiceId,
  ]);
  const reference = referenceOf(charge?.id ?? '');
  return {
    bill,
    event: { id: `evt_${customerNumber}`, account: gas.code, reference, kind: 'charge.succeeded' },
  };
}

function deliver(merchantCode: string, event: Parameters<World['signedWebhook']>[0]): Promise<Response> {
  const { body, signature } = here.signedWebhook(event);
  return fetch(web.url + paths.webhook.of('simulator', merchantCode), {
    method: 'POST',
    body,
    headers: { 'simulator-signature': signature, 'content-type': 'application/json' },
  });
}

async function returnUrlOf(pageUrl: string): Promise<string> {
  const [page] = await here.db.query<{ return_url: string }>(
    `select return_url from gateway_simulator.hosted_pages where id = $1`,
    [pageUrl.split('/').at(-1)],
  );
  return page?.return_url ?? '';
}

async function links(bill: Bill) {
  return here.db.query(`select wrong_tries, cool_until from links where invoice_id = $1::uuid`, [
    bill.invoiceId,
  ]);
}

async function stateOf(bill: Bill): Promise<string | undefined> {
  const [row] = await here.db.query<{ state: string }>(`select state from invoices where id = $1::uuid`, [
    bill.invoiceId,
  ]);
  return row?.state;
}
