import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { networkPauseMinutes } from '../billing/checkout/check-last-four.ts';
import { changeContacts } from '../billing/customers/queries.ts';
import { explainBill, explainCustomer } from '../billing/explain/queries.ts';
import { freshLinksAtMost } from '../billing/links/send-fresh.ts';
import { tokenHashOf } from '../billing/links/token.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { planSteps } from '../billing/messages/plan.ts';
import { claimMessages, dueTexts, stepSubjects } from '../billing/messages/queries.ts';
import { networkOf } from '../web/network.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import { type Visitor, visitor } from './visitor.ts';
import { type Bill, type BillOptions, enrolContract, type World, webOf, world } from './world.ts';

const japanese = { 'accept-language': 'ja' };

let here: World;
let web: WebServer;
let gas: Merchant;

beforeAll(async () => {
  here = await world();
  web = await webOf(here);
  gas = await here.merchant('minato-gas', (settings) => ({
    ...settings,
    checkout: { ...settings.checkout, failureBudget: 70 },
  }));
});
afterAll(async () => {
  await web?.close();
  await here?.drop();
});

const linkOf = (bill: Bill) => web.url + paths.link.of(bill.token);

let phones = 0;
/** A bill whose first notice went to a phone of its own. */
async function toldBill(options: BillOptions = {}): Promise<Bill & { phoneDigest: Buffer }> {
  phones += 1;
  const phone = options.phone ?? `+8190${String(phones).padStart(8, '0')}`;
  const bill = await here.bill(gas, { ...options, phone });
  const phoneDigest = here.sealer.digest(`phone:${phone}`);
  await here.db.run(
    `insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on, phone_digest,
                           claimed_at, decided_at)
     values ($1, $2::uuid, 'first_notice', 'sent', 3, 1, '2026-11-26', $3, $4::timestamptz, $4::timestamptz)`,
    [gas.id, bill.invoiceId, phoneDigest, here.clock.now()],
  );
  return { ...bill, phoneDigest };
}

async function linksOf(bill: Bill) {
  return here.db.query<{
    version: number;
    dead_reason: string | null;
    wrong_tries: number;
    token_hash: Buffer;
  }>(
    `select version, dead_reason, wrong_tries, token_hash from links where invoice_id = $1::uuid order by version`,
    [bill.invoiceId],
  );
}

async function messagesOf(bill: Bill) {
  return here.db.query<{ step: string; state: string; link_version: number | null; code: string | null }>(
    `select step, state, code, link_version from messages where invoice_id = $1::uuid order by step`,
    [bill.invoiceId],
  );
}

async function guess(person: Visitor, visitUrl: string, times: number, headers: Record<string, string> = {}) {
  let last = await person.post(`${visitUrl}/check`, { answer: '9999' }, headers);
  for (let more = 1; more < times; more++)
    last = await person.post(`${visitUrl}/check`, { answer: '9999' }, headers);
  return last;
}

/** What the job would send next of this bill. */
async function claimed(): Promise<{ step: string; state: string }[]> {
  const act = {
    merchantId: gas.id,
    id: here.ids.uuid(),
    kind: 'job' as const,
    actor: 'test',
    at: here.clock.now(),
  };
  return here.db.transaction((tx) =>
    claimMessages(tx, act, {
      dueOn: '2026-12-31',
      today: '2026-11-26',
      todayFrom: '2026-11-25T15:00:00Z',
      carrier: 'outbox',
      askAt: '2026-11-27T00:00:00Z',
      limit: 100,
      dailyCap: 100,
    }),
  );
}

describe('"this is not for me"', () => {
  test('is asked first, ends the link, keeps the phone free of that customer, and tells the merchant’s operator', async () => {
    const bill = await toldBill({ customerNumber: 'W-0001', amount: 7_777 });
    const other = await toldBill({ customerNumber: 'W-0002' });
    const stranger = visitor();
    const { text, visitUrl } = await stranger.open(linkOf(bill), japanese);
    expect(text).toContain(`${new URL(visitUrl).pathname}/not-mine`);
    const asked = await stranger.get(`${visitUrl}/not-mine`, japanese);
    expect([asked.status, asked.text.includes('使えなくなります')]).toEqual([200, true]);
    expect(asked.text).not.toContain('7,777');
    expect(await linksOf(bill)).toMatchObject([{ dead_reason: null }]);

    for (let times = 0; times < 2; times++) {
      expect((await stranger.post(`${visitUrl}/not-mine`, {})).location).toBe(visitUrl);
      const done = await stranger.get(visitUrl, japanese);
      expect([done.status, done.text.includes('お知らせいただき')]).toEqual([410, true]);
    }
    expect(await linksOf(bill)).toMatchObject([{ dead_reason: 'wrong_person' }]);
    expect(await linksOf(other)).toMatchObject([{ dead_reason: null }]);
    expect(
      await here.db.query(`select unreached from messages where invoice_id = $1::uuid`, [bill.invoiceId]),
    ).toEqual([{ unreached: 'wrong_person' }]);
    expect(await here.db.query(`select level, occurrences from alerts where cause = 'WRONG_PERSON'`)).toEqual(
      [{ level: 'daily', occurrences: 1 }],
    );
    const [life] = await explainBill(here.db, bill.billingNumber, null);
    expect(life?.events).toContainEqual(
      expect.objectContaining({ what: 'link:1', detail: 'wrong_person by visitor, by "this is not for me"' }),
    );
    const [customer] = await explainCustomer(here.db, 'W-0001', null);
    expect(customer?.events).toContainEqual(expect.objectContaining({ what: 'wrong person' }));
    // Whoever had the bill open before cannot pay with the dead link either.
    expect((await stranger.post(`${visitUrl}/pay`, {})).location).toBe(visitUrl);
  });

  test('said while somebody has the gateway’s page open: the link is dead for all, and a payment there counts', async () => {
    const bill = await toldBill({ customerNumber: 'W-0103' });
    const customer = visitor();
    const { visitUrl: theirs } = await customer.open(linkOf(bill), japanese);
    await customer.post(`${theirs}/check`, { answer: '0103' });
    const { location } = await customer.post(`${theirs}/pay`, {});
    const stranger = visitor();
    const { visitUrl } = await stranger.open(linkOf(bill), japanese);
    await stranger.post(`${visitUrl}/not-mine`, {});
    for (const [person, url] of [
      [stranger, visitUrl],
      [customer, theirs],
    ] as const) {
      const seen = await person.get(url, japanese);
      expect([seen.status, seen.text.includes('data-state="not_theirs"')]).toEqual([410, true]);
      expect((await person.post(`${url}/pay`, {})).location).toBe(url);
    }
    const back = await here.payOnPage(location, '4242424242424242');
    expect((await visitor().get(back, japanese)).text).toContain('data-state="paid"');
  });

  test('no SMS goes to that phone for that customer, until a contact file says where', async () => {
    const bill = await toldBill({ customerNumber: 'W-0003' });
    const planned = (step: string) =>
      here.db.transaction((tx) =>
        planSteps(tx, {
          merchant: gas,
          sealer: here.sealer,
          at: here.clock.now(),
          steps: [{ invoiceId: bill.invoiceId, step, plannedOn: '2026-11-26' }],
        }),
      );
    await planned('reminder:-3bd');
    const stranger = visitor();
    const { visitUrl } = await stranger.open(linkOf(bill));
    await stranger.post(`${visitUrl}/not-mine`, {});
    // Planned before, and planned after it.
    expect(await claimed()).toMatchObject([{ step: 'reminder:-3bd', state: 'skipped' }]);
    await planned('reminder:+1bd');
    expect(await messagesOf(bill)).toMatchObject([
      { step: 'first_notice', state: 'sent' },
      { step: 'reminder:+1bd', state: 'skipped', code: 'wrong_person', link_version: null },
      { step: 'reminder:-3bd', state: 'skipped', code: 'wrong_person' },
    ]);
    expect(await dueTexts(here.db, gas.id, '2026-12-31')).toEqual([]);

    // A contact file names the same number again: the merchant has looked.
    const [known] = await here.db.query<{
      sealed: Buffer;
      digest: Buffer;
      name_digest: Buffer;
      phone_digest: Buffer;
    }>(`select sealed, digest, name_digest, phone_digest from contacts where customer_id = $1::uuid`, [
      bill.customerId,
    ]);
    if (known === undefined) throw new Error('no contact');
    await here.db.transaction((tx) =>
      changeContacts(
        tx,
        gas.id,
        here.sealer.keyId,
        { businessDate: '2026-11-27', sequence: 9, at: here.clock.now() },
        [
          {
            customerId: bill.customerId,
            sealed: known.sealed,
            digest: known.digest,
            nameDigest: known.name_digest,
            phoneDigest: known.phone_digest,
            phoneKind: 'mobile',
          },
        ],
      ),
    );
    await planned('reminder:+7bd');
    expect((await messagesOf(bill)).find(({ step }) => step === 'reminder:+7bd')).toMatchObject({
      state: 'planned',
      link_version: 2,
    });
    await claimed();
  });

  test('of a customer whose contact has changed since, the former phone is meant', async () => {
    const bill = await toldBill({ customerNumber: 'W-0004' });
    const formerPhone = here.sealer.digest('phone:+819099999999');
    await here.db.run(
      `insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on, phone_digest, claimed_at)
       values ($1, $2::uuid, 'reminder:-3bd', 'sent', 3, 1, '2026-11-26', $3, $4::timestamptz)`,
      [gas.id, bill.invoiceId, formerPhone, here.clock.now()],
    );
    const stranger = visitor();
    const { visitUrl } = await stranger.open(linkOf(bill));
    await stranger.post(`${visitUrl}/not-mine`, {});
    expect(
      await here.db.query(`select phone_digest from wrong_persons where customer_id = $1::uuid`, [
        bill.customerId,
      ]),
    ).toEqual([{ phone_digest: formerPhone }]);
    const [subject] = await here.db.transaction((tx) => stepSubjects(tx, gas.id, [bill.invoiceId]));
    expect(subject?.wrong_person).toBe(false);
  });

  test('is nothing for who has shown to be the customer, nor for another site', async () => {
    const bill = await toldBill({ customerNumber: 'W-0005' });
    const customer = visitor();
    const { visitUrl } = await customer.open(linkOf(bill));
    const headers = { 'sec-fetch-site': 'cross-site' };
    expect((await customer.post(`${visitUrl}/not-mine`, {}, headers)).status).toBe(403);
    await customer.post(`${visitUrl}/check`, { answer: '0005' });
    expect((await customer.get(`${visitUrl}/not-mine`)).location).toBe(visitUrl);
    expect((await customer.post(`${visitUrl}/not-mine`, {})).location).toBe(visitUrl);
    expect(await linksOf(bill)).toMatchObject([{ dead_reason: null }]);
  });
});

describe('a link that rests', () => {
  test('has a way out: a new one by SMS to the known phone, three times at most', async () => {
    const bill = await toldBill({ customerNumber: 'R-0001' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill), japanese);
    const cooling = await guess(person, visitUrl, 5);
    expect([
      cooling.status,
      cooling.text.includes('/new-link"'),
      cooling.text.includes('name="answer"'),
    ]).toEqual([429, true, false]);
    for (let sent = 1; sent <= freshLinksAtMost; sent++) {
      const presses = await Promise.all([1, 2, 3].map(() => person.post(`${visitUrl}/new-link`, {})));
      expect(presses.map(({ status }) => status).sort()).toEqual([200, 429, 429]);
      expect(presses.map(({ text }) => /data-state="(\w+)"/.exec(text)?.[1]).sort()).toEqual([
        'link_enough',
        'link_enough',
        'link_sent',
      ]);
      expect(await claimed()).toMatchObject([
        { step: `fresh_link:${sent}`, state: 'sending', link_version: sent + 1 },
      ]);
      expect((await person.post(`${visitUrl}/new-link`, {})).status).toBe(429);
      here.clock.advance(11 * 60_000);
    }
    expect((await person.post(`${visitUrl}/new-link`, {})).status).toBe(429);
    const links = await linksOf(bill);
    expect(links.map(({ wrong_tries }) => wrong_tries)).toEqual([5, 0, 0, 0]);
    expect(links.some(({ token_hash }) => token_hash.equals(tokenHashOf(bill.token)))).toBe(true);
  });

  test('many wrong answers from one network rest all links there, but for one that was asked for anew', async () => {
    const from = (address: string) => ({ 'x-forwarded-for': address });
    const rested = await toldBill({ customerNumber: 'N-0001' });
    await here.db.run(`delete from failed_checks`);
    for (let strangers = 0; strangers < 8; strangers++) {
      const bill = await toldBill({ customerNumber: `N-1${strangers}00` });
      const person = visitor();
      const { visitUrl } = await person.open(linkOf(bill));
      await guess(person, visitUrl, 4, from('203.0.113.7'));
    }
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(rested));
    const right = (address: string) => person.post(`${visitUrl}/check`, { answer: '0001' }, from(address));
    expect((await right('203.0.113.7')).status).toBe(429);
    // Who writes the header themselves is known by what the proxy adds behind it.
    expect((await right('198.51.100.1, 203.0.113.7')).status).toBe(429);
    expect((await right('203.0.113.8')).status).toBe(303);

    await here.db.run(
      `insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on)
       values ($1, $2::uuid, 'fresh_link:1', 'sent', 3, 1, '2026-11-26')`,
      [gas.id, rested.invoiceId],
    );
    expect((await right('203.0.113.7')).status).toBe(303);
    const ordinary = await toldBill({ customerNumber: 'N-0002' });
    const other = visitor();
    const { visitUrl: otherUrl } = await other.open(linkOf(ordinary));
    const again = () => other.post(`${otherUrl}/check`, { answer: '0002' }, from('203.0.113.7'));
    expect((await again()).status).toBe(429);
    here.clock.advance(60_000);
    expect((await again()).status).toBe(303);
  });

  test('a merchant’s budget of wrong answers ends in one alert, and stops nobody', async () => {
    await here.db.run(`delete from failed_checks`);
    for (let strangers = 0; strangers < 18; strangers++) {
      const bill = await toldBill({ customerNumber: `G-${strangers}000` });
      const person = visitor();
      const { visitUrl } = await person.open(linkOf(bill));
      await guess(person, visitUrl, 4);
    }
    expect(
      await here.db.query(`select level, occurrences from alerts where cause = 'CHECKS_FAILING'`),
    ).toEqual([{ level: 'now', occurrences: 70 }]);
    const bill = await toldBill({ customerNumber: 'G-9876' });
    const person = visitor();
    const { visitUrl } = await person.open(linkOf(bill));
    expect((await person.post(`${visitUrl}/check`, { answer: '9876' })).status).toBe(303);
    // An hour later all begins anew, and what was counted is forgotten.
    here.clock.advance(61 * 60_000);
    await guess(person, visitUrl, 1, { 'x-forwarded-for': '203.0.113.9' });
    const counted = await here.db.query(`select tries from failed_checks order by network_digest`);
    expect(counted).toEqual([{ tries: 1 }, { tries: 1 }]);
  });

  test.each([
    [29, 0],
    [30, 1],
    [60, 2],
    [90, 4],
    [30 * 7, 60],
    [30 * 40, 60],
  ])('after %i wrong answers a network rests for %i minutes', (tries, minutes) => {
    expect(networkPauseMinutes(tries)).toBe(minutes);
  });

  test.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:db8:0:1:2:3:4:5', '2001:db8:0:1'],
    ['2001:DB8::5', '2001:db8:0:0'],
    ['2001:0db8:0000:0001::', '2001:db8:0:1'],
    ['127.0.0.1', null],
    ['::1', null],
    ['::ffff:10.1.2.3', null],
    ['172.20.0.3', null],
    ['172.32.0.3', '172.32.0.3'],
    ['fd12:3456::1', null],
  ])('the network of %s is %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describe('for everybody', () => {
  test('a page says how to tell a genuine SMS, in both languages, and every page leads there', async () => {
    const bill = await toldBill();
    const ask = await visitor().open(linkOf(bill), japanese);
    expect(ask.text).toContain('href="/sms?language=ja"');
    const shown = await visitor().get(`${web.url}/sms`, { 'accept-language': 'en' });
    expect(shown.text).toContain('How to tell a genuine SMS');
    expect(shown.text).toContain(`${web.url}/l/`);
    expect((await visitor().get(`${web.url}/sms?language=ja`)).text).toContain('本物のSMSの見分け方');
    expect(shown.text).not.toContain('href="/sms?language=en"');
  });
});

describe('automatic payment that is stopped from a link', () => {
  async function enrolled(): Promise<Bill> {
    const bill = await here.bill(gas);
    await enrolContract(here, gas, bill);
    return bill;
  }
  const told = (bill: Bill) =>
    here.db.query(
      `select e.state, r.what, a.actor from enrolments e
       left join enrolment_rows r on r.merchant_id = e.merchant_id and r.enrolment_id = e.id
       left join state_history h on h.merchant_id = e.merchant_id and h.subject = 'enrolment' and h.subject_id = e.id
         and h.to_state = 'ended'
       left join acts a on a.merchant_id = h.merchant_id and a.id = h.act_id
       where e.customer_id = $1`,
      [bill.customerId],
    );

  test('by the customer alone: asked once more, told to the merchant once, and audited', async () => {
    const bill = await enrolled();
    const customer = visitor();
    const { visitUrl } = await customer.open(linkOf(bill), japanese);
    // Whoever only holds the link ends nothing.
    expect((await customer.get(`${visitUrl}/stop`)).location).toBe(visitUrl);
    expect((await customer.post(`${visitUrl}/stop`, {})).location).toBe(visitUrl);
    expect(await told(bill)).toEqual([{ state: 'active', what: null, actor: null }]);

    await customer.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    expect((await customer.get(visitUrl)).text).toContain(`${new URL(visitUrl).pathname}/stop`);
    const asked = await customer.get(`${visitUrl}/stop`);
    expect([asked.status, asked.text.includes('自動払いをやめますか')]).toEqual([200, true]);
    expect(asked.text).toContain('みなとガス');
    const headers = { 'sec-fetch-site': 'cross-site', origin: 'https://elsewhere.example' };
    expect((await customer.post(`${visitUrl}/stop`, {}, headers)).status).toBe(403);
    expect(await told(bill)).toMatchObject([{ state: 'active' }]);

    for (let times = 0; times < 2; times += 1) {
      const done = await customer.post(`${visitUrl}/stop`, {});
      expect([done.status, done.text.includes('自動払いを終了しました')]).toEqual([200, true]);
    }
    expect(await told(bill)).toEqual([
      { state: 'ended', what: 'ended', actor: 'visitor, by "stop automatic payment"' },
    ]);
    expect((await customer.get(visitUrl)).text).not.toContain(`${new URL(visitUrl).pathname}/stop`);
    expect((await customer.get(`${visitUrl}/stop`)).location).toBe(visitUrl);
  });

  test('whoever comes back to a bill that is paid shows to be the customer, and finds it on the receipt', async () => {
    const bill = await enrolled();
    await here.db.run(`update invoices set state = 'paid' where id = $1::uuid`, [bill.invoiceId]);
    const customer = visitor();
    const { text, visitUrl } = await customer.open(linkOf(bill), japanese);
    expect([text.includes('お支払い済み'), text.includes('/receipt"'), text.includes('/stop')]).toEqual([
      true,
      true,
      false,
    ]);
    const asked = await customer.get(`${visitUrl}/receipt`);
    expect([asked.status, asked.text.includes('お客様番号の下4桁')]).toEqual([200, true]);
    expect((await customer.post(`${visitUrl}/check`, { answer: '9999' })).status).toBe(422);
    // A link that rests has no new one to send: there is nothing to pay.
    expect((await guess(customer, visitUrl, 4)).text).not.toContain('<button');
    expect((await customer.get(`${visitUrl}/receipt`)).text).not.toContain('name="answer"');
    here.clock.advance(11 * 60_000);
    await customer.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    expect((await customer.get(`${visitUrl}/receipt`)).location).toBe(visitUrl);
    const receipt = await customer.get(visitUrl);
    expect([receipt.text.includes('/stop"'), receipt.text.includes('/card"')]).toEqual([true, true]);
    expect((await customer.post(`${visitUrl}/stop`, {})).text).toContain('自動払いを終了しました');
  });

  test('the terms name the link as a way to end it, where there is a question that guards it', async () => {
    const terms = async (merchant: Merchant, ask: boolean) => {
      const bill = await here.bill(merchant);
      const customer = visitor();
      const { visitUrl } = await customer.open(linkOf(bill), japanese);
      if (ask) await customer.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
      return (await customer.get(visitUrl)).text;
    };
    expect(await terms(gas, true)).toContain('リンクを開いて「自動払いをやめる」を選ぶか、お電話(');
    const open = await here.merchant('kita-denryoku', (settings) => ({
      ...settings,
      checkout: { ...settings.checkout, ask: 'nothing' },
    }));
    const shown = await terms(open, false);
    expect(shown).toContain('自動払いはいつでもやめられます。');
    expect(shown).not.toContain('「自動払いをやめる」');
  });

  test('in English', async () => {
    const bill = await enrolled();
    const customer = visitor();
    const { visitUrl } = await customer.open(linkOf(bill), { 'accept-language': 'en' });
    await customer.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
    expect((await customer.get(`${visitUrl}/stop`)).text).toContain('Stop automatic payment?');
    expect((await customer.post(`${visitUrl}/stop`, {})).text).toContain('Automatic payment has ended');
  });
});
