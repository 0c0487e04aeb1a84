import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { learnPayments } from '../billing/barcodes/learn.ts';
import { learnFromGateway } from '../billing/checkout/learn.ts';
import { methodsOffered } from '../billing/checkout/methods.ts';
import { idBehind } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import type { WebServer } from '../web/server.ts';
import { type Visitor, visitor } from './visitor.ts';
import { type Bill, type World, webOf, world } from './world.ts';

/** Ways to pay beside the card: the page, the simulator's wallet and its registers, over HTTP as a browser goes. */

const visa = '4242424242424242';
const challenge = '4000002760003184';

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
  power = await here.merchant('kita-denryoku');
});
afterAll(async () => {
  await web?.close();
  await here?.drop();
});

let customers = 1000;

/** A bill, and its customer before the open page. */
async function atBill(
  merchant = gas,
  options: { amount?: number; linkExpiresOn?: string } = {},
): Promise<{ bill: Bill; person: Visitor; visitUrl: string; text: string }> {
  customers += 1;
  const bill = await here.bill(merchant, { ...options, customerNumber: `M-${customers}` });
  const person = visitor();
  const { visitUrl } = await person.open(`${web.url}/l/${bill.token}`, { 'accept-language': 'ja' });
  await person.post(`${visitUrl}/check`, { answer: String(customers) });
  const { text } = await person.get(visitUrl);
  return { bill, person, visitUrl, text };
}

const stateOf = async (bill: Bill) =>
  (
    await here.db.query<{ state: string; charges: string[]; locks: number }>(
      `select i.state, array(select c.state from charges c where c.invoice_id = i.id order by c.attempt_no) as charges,
              (select count(*) from collection_locks l where l.invoice_id = i.id) as locks
       from invoices i where i.id = $1::uuid`,
      [bill.invoiceId],
    )
  )[0];

async function digitsOf(bill: Bill): Promise<string[]> {
  const rows = await here.db.query<{ digits: string }>(
    `select digits from barcodes where invoice_id = $1::uuid order by reissue`,
    [bill.invoiceId],
  );
  return rows.map((row) => row.digits);
}

/** At the till: what it says, and the payment's reference where it took it. */
async function atTill(
  merchant: Merchant,
  barcode: string,
): Promise<{ status: number; code: string; reference: string }> {
  const answer = await fetch(`${here.simulator.url}/control/counter-payments`, {
    method: 'POST',
    headers: {
      authorization: 'Bearer a secret of tests, of at least 32 characters',
      'content-type': 'application/json',
    },
    body: JSON.stringify({ account: merchant.code, barcode }),
  });
  const body = (await answer.json()) as { reference?: string; error?: { code: string } };
  return { status: answer.status, code: body.error?.code ?? '', reference: body.reference ?? '' };
}

describe('the barcode', () => {
  test('is issued by a press, shown by a look, and its digits stand below it', async () => {
    const { bill, person, visitUrl, text } = await atBill();
    expect(text).toContain('コンビニで支払う');
    // A look alone issues nothing.
    expect((await person.get(`${visitUrl}/barcode`)).location).toBe(visitUrl);
    expect(await digitsOf(bill)).toEqual([]);
    const pressed = await person.post(`${visitUrl}/barcode`, {});
    expect(pressed.location).toBe(`${visitUrl}/barcode`);
    const shown = await person.get(pressed.location);
    const [digits = ''] = await digitsOf(bill);
    expect(digits).toMatch(/^91929023100010{5,}/);
    expect(shown.text).toContain(digits.slice(8, 29));
    expect(shown.text).toContain('role="img"');
    expect(shown.text).not.toContain('style=');
    expect(shown.text.length).toBeLessThan(20_000);
    // The same barcode, however often it is asked for; and the bill can still be paid by card.
    await person.post(`${visitUrl}/barcode`, {});
    expect(await digitsOf(bill)).toEqual([digits]);
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: [], locks: 0 });
    expect((await person.get(`${visitUrl}/barcode?language=en`)).text).toContain('convenience store');
  });

  test('is read by the till, paid, heard of and certain on the third day', async () => {
    const { bill, person, visitUrl } = await atBill();
    await person.post(`${visitUrl}/barcode`, {});
    const [digits = ''] = await digitsOf(bill);
    const { reference } = await atTill(gas, digits);
    await learnPayments(here.db, here.ports, gas, [idBehind(reference) ?? '']);
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: ['preliminary'], locks: 1 });
    const waiting = await person.get(visitUrl);
    expect(waiting.text).toContain('data-state="paid_at_shop"');
    expect((await person.post(`${visitUrl}/pay`, {})).location).toBe(visitUrl);
    expect((await person.get(`${visitUrl}/barcode`)).location).toBe(visitUrl);

    const chargeId = idBehind(reference) ?? '';
    const asked = () => here.gateway.lookup(gas.code, reference, AbortSignal.timeout(5_000));
    expect(await asked()).toEqual({ kind: 'pending' });
    const before = here.clock.now();
    here.clock.set('2026-11-29T01:30:00Z');
    expect(await asked()).toMatchObject({
      kind: 'succeeded',
      captured: { method: 'barcode', amount: bill.amount, capturedAt: '2026-11-29T01:00:00.000Z' },
    });
    const report = await here.gateway.barcodes?.lookup(gas.code, reference, AbortSignal.timeout(5_000));
    expect(report).toMatchObject({ kind: 'found', payment: { state: 'final' } });
    await learnFromGateway(here.db, here.ports, gas, [chargeId], 'webhook');
    expect(await stateOf(bill)).toEqual({ state: 'paid', charges: ['succeeded'], locks: 0 });
    here.clock.set(before.toString());
  });

  test('a webhook is enough, and the web role may write what it tells', async () => {
    const { bill, person, visitUrl } = await atBill();
    await person.post(`${visitUrl}/barcode`, {});
    const { reference } = await atTill(gas, (await digitsOf(bill))[0] ?? '');
    const { body, signature } = here.signedWebhook({
      id: `evt_${reference}`,
      account: gas.code,
      reference,
      kind: 'barcode.preliminary',
    });
    const post = () =>
      fetch(`${web.url}/webhooks/simulator/${gas.code}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', 'simulator-signature': signature },
        body,
      });
    expect((await post()).status).toBe(200);
    expect((await post()).status).toBe(200);
    await web.settled();
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: ['preliminary'], locks: 1 });
    const handled = await here.db.query(`select result from webhook_events where reference = $1`, [
      reference,
    ]);
    expect(handled).toEqual([{ result: 'preliminary' }]);
  });

  test('the till refuses wrong digits and what is too late', async () => {
    const { bill, person, visitUrl } = await atBill();
    await person.post(`${visitUrl}/barcode`, {});
    const [digits = ''] = await digitsOf(bill);
    const other = digits.slice(0, 43) + ((Number(digits[43]) + 1) % 10);
    expect(await atTill(gas, other)).toMatchObject({ status: 422, code: 'not_a_barcode' });
    here.clock.set('2027-03-01T01:00:00Z');
    expect(await atTill(gas, digits)).toMatchObject({ status: 422, code: 'too_late' });
    here.clock.set('2026-11-26T01:00:00Z');
  });

  test('a new one is issued when the last day of the old has passed, with the next number of reissue', async () => {
    const { bill, person, visitUrl } = await atBill();
    await person.post(`${visitUrl}/barcode`, {});
    await here.db.run(`update barcodes set expires_on = '2026-11-25' where invoice_id = $1::uuid`, [
      bill.invoiceId,
    ]);
    expect((await person.get(`${visitUrl}/barcode`)).location).toBe(visitUrl);
    await person.post(`${visitUrl}/barcode`, {});
    const issued = await digitsOf(bill);
    expect(issued.map((digits) => digits[29])).toEqual(['0', '1']);
    for (let reissue = 2; reissue <= 10; reissue += 1) {
      await here.db.run(`update barcodes set expires_on = '2026-11-25' where invoice_id = $1::uuid`, [
        bill.invoiceId,
      ]);
      await person.post(`${visitUrl}/barcode`, {});
    }
    expect(await digitsOf(bill)).toHaveLength(10);
    expect((await person.post(`${visitUrl}/barcode`, {})).location).toBe(visitUrl);
  });

  test('twenty presses at once issue one', async () => {
    const { bill, person, visitUrl } = await atBill();
    await Promise.all(Array.from({ length: 20 }, () => person.post(`${visitUrl}/barcode`, {})));
    expect(await digitsOf(bill)).toHaveLength(1);
  });

  test('digits are one bill’s for ever', async () => {
    const [one, other] = [await atBill(), await atBill()];
    await one.person.post(`${one.visitUrl}/barcode`, {});
    await expect(
      here.db.run(
        `insert into barcodes select merchant_id, $1::uuid, 0, digits, amount, expires_on, issued_at from barcodes
         where invoice_id = $2::uuid`,
        [other.bill.invoiceId, one.bill.invoiceId],
      ),
    ).rejects.toThrow(/barcodes_once_by_digits/);
  });

  test('not over 300,000 yen: the other ways are left; the stamp stands where the law wants it', async () => {
    const over = await atBill(gas, { amount: 300_001 });
    expect(over.text).not.toContain('コンビニで支払う');
    expect(over.text).toContain('カードで300,001円を支払う');
    expect((await over.person.post(`${over.visitUrl}/barcode`, {})).location).toBe(over.visitUrl);
    expect(await digitsOf(over.bill)).toEqual([]);
    const stamps = [];
    for (const [merchant, amount] of [
      [gas, 300_000],
      [gas, 54_998],
      [gas, 55_000],
      [water, 55_000],
    ] as const) {
      const { bill, person, visitUrl } = await atBill(merchant, { amount });
      await person.post(`${visitUrl}/barcode`, {});
      stamps.push((await digitsOf(bill))[0]?.slice(36, 43));
    }
    // Water is a public charge.
    expect(stamps).toEqual(['1300000', '0054998', '1055000', '0055000']);
  });

  test('without the check nobody issues or sees one', async () => {
    const bill = await here.bill(gas);
    const stranger = visitor();
    const { visitUrl } = await stranger.open(`${web.url}/l/${bill.token}`);
    expect((await stranger.post(`${visitUrl}/barcode`, {})).location).toBe(visitUrl);
    expect(await digitsOf(bill)).toEqual([]);
    expect((await stranger.post(`${visitUrl}/barcode`, {}, { 'sec-fetch-site': 'cross-site' })).status).toBe(
      403,
    );
  });
});

describe('the wallet', () => {
  const approve = async (url: string, result: string) => {
    const answer = await fetch(url, {
      method: 'POST',
      body: new URLSearchParams({ result }),
      redirect: 'manual',
    });
    return answer.headers.get('location') ?? '';
  };

  test('leads to the wallet’s page and back, and is booked as a wallet', async () => {
    const { bill, person, visitUrl, text } = await atBill();
    expect(text).toContain('スマホ決済で支払う');
    const { location } = await person.post(`${visitUrl}/pay/wallet`, { enrol: 'yes' });
    expect(location).toContain(here.simulator.url);
    const back = await approve(location, 'approve');
    const returned = await visitor().get(back, { 'accept-language': 'ja' });
    expect(returned.text).toContain('お支払いが完了しました');
    const [payment] = await here.db.query(`select method from payments where invoice_id = $1::uuid`, [
      bill.invoiceId,
    ]);
    expect(payment).toEqual({ method: 'wallet' });
    // A wallet is no card that could be charged again.
    expect(
      await here.db.query(`select 1 from enrolments where contract_id = $1::uuid`, [bill.customerId]),
    ).toEqual([]);
  });

  test('declined, then approved; declined, then left for a card', async () => {
    const first = await atBill();
    const { location } = await first.person.post(`${first.visitUrl}/pay/wallet`, {});
    expect(new URL(await approve(location, 'decline'), location).href).toBe(location);
    expect(await (await fetch(location)).text()).toContain('残高不足');
    await approve(location, 'approve');
    expect((await first.person.get(first.visitUrl)).text).toContain('お支払い済みです');

    const second = await atBill();
    const wallet = await second.person.post(`${second.visitUrl}/pay/wallet`, {});
    // The page offers the card beside the wallet that is open, and does not speak of one on the wallet's page.
    const open = (await second.person.get(second.visitUrl)).text;
    expect(open).toContain(`action="${new URL(second.visitUrl).pathname}/pay"`);
    expect(open).not.toContain('カード番号は');
    await approve(wallet.location, 'decline');
    const card = await second.person.post(`${second.visitUrl}/pay`, {});
    expect(card.location).not.toBe(wallet.location);
    expect(await stateOf(second.bill)).toEqual({
      state: 'open',
      charges: ['failed', 'requires_action'],
      locks: 1,
    });
    // The page that was left takes no money any more.
    await approve(wallet.location, 'approve');
    await here.payOnPage(card.location, visa);
    expect((await second.person.get(second.visitUrl)).text).toContain('お支払い済みです');
    expect(await stateOf(second.bill)).toEqual({ state: 'paid', charges: ['failed', 'succeeded'], locks: 0 });
  });

  test('left alone: the bill is free when the page’s half hour is over', async () => {
    const { bill, person, visitUrl } = await atBill();
    const { location } = await person.post(`${visitUrl}/pay/wallet`, {});
    const waiting = await person.get(visitUrl);
    expect(waiting.text).toContain('支払いを続ける');
    expect((await person.post(`${visitUrl}/pay/wallet`, {})).location).toBe(location);
    here.clock.advance(32 * 60_000);
    await person.get(visitUrl);
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: ['failed'], locks: 0 });
  });

  test('a merchant who does not want it does not get it', async () => {
    const { bill, person, visitUrl, text } = await atBill(power);
    expect(text).not.toContain('Pay by wallet');
    expect(text).not.toContain('スマホ決済で支払う');
    expect((await person.post(`${visitUrl}/pay/wallet`, {})).location).toBe(visitUrl);
    expect((await person.post(`${visitUrl}/pay/gold`, {})).status).toBe(404);
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: [], locks: 0 });
  });
});

describe('another way while a page is open', () => {
  test('card to barcode: the card’s page is closed first', async () => {
    const { bill, person, visitUrl } = await atBill();
    const { location } = await person.post(`${visitUrl}/pay`, {});
    expect((await person.get(visitUrl)).text).toContain('コンビニで支払う');
    await person.post(`${visitUrl}/barcode`, {});
    expect(await digitsOf(bill)).toHaveLength(1);
    expect(await stateOf(bill)).toEqual({ state: 'open', charges: ['failed'], locks: 0 });
    expect(await (await fetch(location)).text()).not.toContain('name="number"');
  });

  test('card to wallet after the card had paid: nothing new begins', async () => {
    const { bill, person, visitUrl } = await atBill();
    const { location } = await person.post(`${visitUrl}/pay`, {});
    await here.payOnPage(location, visa);
    expect((await person.post(`${visitUrl}/pay/wallet`, {})).location).toBe(visitUrl);
    expect(await stateOf(bill)).toEqual({ state: 'paid', charges: ['succeeded'], locks: 0 });
  });

  test.each(['checkout.before_close', 'checkout.after_close'] as const)('dying at %s', async (point) => {
    const { bill, person, visitUrl } = await atBill();
    await person.post(`${visitUrl}/pay`, {});
    here.crashAt(point);
    expect((await person.post(`${visitUrl}/pay/wallet`, {})).status).toBe(500);
    expect((await stateOf(bill))?.locks).toBe(1);
    expect((await person.post(`${visitUrl}/pay/wallet`, {})).location).toContain(here.simulator.url);
    expect(await stateOf(bill)).toMatchObject({ charges: ['failed', 'requires_action'], locks: 1 });
  });
});

describe('3-D Secure', () => {
  test('failed, then another card; left open, then over', async () => {
    const { bill, person, visitUrl } = await atBill();
    const { location } = await person.post(`${visitUrl}/pay`, {});
    await here.payOnPage(location, challenge, 'fail').catch(() => '');
    expect((await stateOf(bill))?.charges).toEqual(['requires_action']);
    expect(await (await fetch(location)).text()).toContain('本人認証ができませんでした');
    await here.payOnPage(location, visa);
    await person.get(visitUrl);
    expect(await stateOf(bill)).toEqual({ state: 'paid', charges: ['succeeded'], locks: 0 });

    const left = await atBill();
    const page = await left.person.post(`${left.visitUrl}/pay`, {});
    // The issuer's question is asked, and nobody answers.
    await fetch(page.location, {
      method: 'POST',
      body: new URLSearchParams({ number: challenge, expires: '12/39', cvc: '123' }),
      redirect: 'manual',
    });
    expect((await stateOf(left.bill))?.charges).toEqual(['requires_action']);
    here.clock.advance(32 * 60_000);
    await left.person.get(left.visitUrl);
    expect(await stateOf(left.bill)).toEqual({ state: 'open', charges: ['failed'], locks: 0 });
  });
});

test('what is offered is what the merchant wants and the gateway has', () => {
  const gateway = (pageMethods: ('card' | 'wallet')[], barcodes: boolean) => ({
    semantics: { ...here.gateway.semantics, pageMethods },
    barcodes: barcodes ? here.gateway.barcodes : null,
  });
  const wants = (methods: Merchant['settings']['checkout']['methods'], barcode = true) => ({
    checkout: {
      ...gas.settings.checkout,
      methods,
      barcode: barcode ? { issuer: '929023', companyCode: '1', numberDigits: 10 } : null,
    },
  });
  const all = gateway(['card', 'wallet'], true);
  expect(methodsOffered(wants(['barcode', 'card', 'wallet']), all, 1)).toEqual(['barcode', 'card', 'wallet']);
  expect(methodsOffered(wants(['barcode', 'card', 'wallet']), all, 300_001)).toEqual(['card', 'wallet']);
  expect(methodsOffered(wants(['barcode', 'wallet'], false), all, 1)).toEqual(['wallet']);
  expect(methodsOffered(wants(['barcode']), all, 300_001)).toEqual(['card']);
  expect(methodsOffered(wants(['barcode', 'wallet']), gateway(['card'], false), 1)).toEqual(['card']);
});
