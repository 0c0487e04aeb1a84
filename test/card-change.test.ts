import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Act } from '../billing/acts/act.ts';
import { recordAct } from '../billing/acts/queries.ts';
import { ensureAutoIntents, methodsOf } from '../billing/autopay/queries.ts';
import { traceCardChanges } from '../billing/card-changes/ask.ts';
import { recordCardChanges } from '../billing/card-changes/record.ts';
import { insertCharges } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { changeEnrolmentByHand } from '../billing/exchanges/enrolments.ts';
import { explainCustomer } from '../billing/explain/queries.ts';
import type { ChargeOutcome, Gateway } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { beginRestore } from '../billing/restores/begin.ts';
import { handleWaitingWebhooks } from '../billing/webhooks/handle.ts';
import { receiveWebhook } from '../billing/webhooks/receive.ts';
import { paths } from '../web/paths.ts';
import type { WebServer } from '../web/server.ts';
import { sealReturn } from '../web/visit.ts';
import { type Visitor, visitor } from './visitor.ts';
import { type Bill, enrolContract, morning, type World, webOf, world } from './world.ts';

const cards = { jcb: '3530111333300000', challenge: '4000002760003184', lost: '4000000000009987' };
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
  bill: Bill;
}

/** A customer on automatic payment who has a link and has passed the check. */
async function enrolled(server = web): Promise<Reader> {
  const bill = await here.bill(gas);
  await enrolContract(here, gas, bill);
  return reader(bill, server);
}

async function reader(bill: Bill, server = web): Promise<Reader> {
  const person = visitor();
  const { visitUrl } = await person.open(server.url + paths.link.of(bill.token), japanese);
  await person.post(`${visitUrl}/check`, { answer: bill.customerNumber.slice(-4) });
  return { person, visitUrl, bill };
}

const press = async ({ person, visitUrl }: Reader) => (await person.post(`${visitUrl}/card`, {})).location;
const stateIn = (text: string) => /data-state="(\w+)"/.exec(text)?.[1];

async function agreements({ bill }: Pick<Reader, 'bill'>) {
  return here.db.query(
    `select e.state, e.source, e.terms_version, e.effective_from, p.last_four, p.network_transaction_id is not null as ntx,
            p.three_ds_eci, r.what, p.state as card
     from enrolments e
     join payment_methods p on p.merchant_id = e.merchant_id and p.id = e.payment_method_id
     left join enrolment_rows r on r.merchant_id = e.merchant_id and r.enrolment_id = e.id
     where e.customer_id = $1::uuid order by e.id`,
    [bill.customerId],
  );
}

async function changes({ bill }: Pick<Reader, 'bill'>) {
  return here.db.query<{ id: string; state: string; code: string | null; learned_by: string | null }>(
    `select c.id, c.state, c.code, c.learned_by from card_changes c
     join contracts t on t.merchant_id = c.merchant_id and t.id = c.contract_id
     where t.customer_id = $1::uuid order by c.id`,
    [bill.customerId],
  );
}

const asBefore = [{ state: 'active', source: 'pay_page', what: null }];

function trace(gateway: Gateway = here.gateway): Promise<number> {
  const act: Act = {
    merchantId: gas.id,
    id: here.ids.uuid(),
    kind: 'job',
    actor: 'trace',
    at: here.clock.now(),
  };
  return traceCardChanges(
    here.db,
    { ...here.ports, gateway },
    { merchant: gas, act, stop: new AbortController().signal, inTransaction: here.db.transaction },
  );
}

async function cancelOnPage(pageUrl: string): Promise<void> {
  await fetch(`${pageUrl}/cancel`, { method: 'POST', redirect: 'manual' });
}

describe('another card for automatic payment', () => {
  test('is asked for with whose account it is and the terms, and only by who has passed the check', async () => {
    const bill = await here.bill(gas);
    await enrolContract(here, gas, bill);
    const stranger = visitor();
    const { visitUrl } = await stranger.open(web.url + paths.link.of(bill.token), japanese);
    expect((await stranger.get(`${visitUrl}/card`)).location).toBe(visitUrl);
    expect((await stranger.post(`${visitUrl}/card`, {})).location).toBe(visitUrl);

    const one = await reader(bill);
    expect((await one.person.get(one.visitUrl)).text).toContain('/card"');
    const asked = await one.person.get(`${one.visitUrl}/card`);
    expect(asked.status).toBe(200);
    expect(asked.text).toContain(`みなとガス株式会社 お客様番号 末尾 ${bill.customerNumber.slice(-4)}`);
    expect(asked.text).toContain('自動払いの条件');
    const elsewhere = { 'sec-fetch-site': 'cross-site', origin: 'https://elsewhere.example' };
    expect((await one.person.post(`${one.visitUrl}/card`, {}, elsewhere)).status).toBe(403);
    expect(await changes(one)).toEqual([]);
  });

  test('is not offered to who is not on automatic payment, or pays from a bank account', async () => {
    for (const kind of [null, 'bank']) {
      const bill = await here.bill(gas);
      if (kind !== null) {
        await enrolContract(here, gas, bill);
        await here.db.run(`update payment_methods set kind = $1 where customer_id = $2::uuid`, [
          kind,
          bill.customerId,
        ]);
      }
      const one = await reader(bill);
      expect((await one.person.get(one.visitUrl)).text).not.toContain('/card"');
      expect((await one.person.get(`${one.visitUrl}/card`)).location).toBe(one.visitUrl);
      expect(await press(one)).toBe(one.visitUrl);
      expect(await changes(one)).toEqual([]);
    }
  });

  test('is kept without paying: the agreement goes on with it, its history is kept, the merchant is told', async () => {
    const one = await enrolled();
    const page = await press(one);
    const hosted = await (await fetch(page)).text();
    expect(hosted).toContain('いまお支払いはありません');
    const back = await here.payOnPage(page, cards.challenge);
    // The browser that comes back is another one and has no cookie.
    const done = await visitor().get(back);
    expect([done.status, stateIn(done.text)]).toEqual([200, 'card_changed']);
    expect(done.text).toContain('お支払いページへ');
    expect(done.text).not.toContain(one.bill.customerNumber);
    expect(await agreements(one)).toMatchObject([
      { state: 'ended', source: 'pay_page', what: null },
      {
        state: 'active',
        source: 'card_change',
        effective_from: '2026-11-01',
        last_four: '3184',
        ntx: true,
        three_ds_eci: '05',
        what: 'changed',
      },
    ]);
    const history = await here.db.query(
      `select h.from_state, h.to_state, a.actor from state_history h
       join acts a on a.merchant_id = h.merchant_id and a.id = h.act_id
       where h.subject = 'card_change' and h.subject_id = $1::uuid order by h.version`,
      [(await changes(one))[0]?.id],
    );
    expect(history).toEqual([
      { from_state: null, to_state: 'processing', actor: 'visitor, by "use another card"' },
      { from_state: 'processing', to_state: 'requires_action', actor: 'visitor, by "use another card"' },
      { from_state: 'requires_action', to_state: 'succeeded', actor: 'return from the gateway' },
    ]);
    const taken = await here.db.query(`select 1 from gateway_simulator.charges where account = $1`, [
      gas.code,
    ]);
    expect(taken).toEqual([]);
    const [customer] = await explainCustomer(here.db, one.bill.customerNumber, null);
    expect(customer?.events).toContainEqual(
      expect.objectContaining({
        what: 'card change',
        detail: expect.stringContaining('succeeded by return'),
      }),
    );

    // Opened again, and again: the same is true, and nothing more happens.
    for (let times = 0; times < 2; times += 1)
      expect(stateIn((await visitor().get(back)).text)).toBe('card_changed');
    expect((await visitor().post(back, {})).location).toBe(back);
    expect(await agreements(one)).toHaveLength(2);
    // What is on file now, and another change after it.
    expect((await one.person.get(`${one.visitUrl}/card`)).text).toContain('VISA 末尾 3184');
    await here.payOnPage(await press(one), cards.jcb);
    expect(stateIn((await one.person.get(`${one.visitUrl}/card`)).text)).toBe('card_changed');
    expect(await agreements(one)).toMatchObject([
      { state: 'ended' },
      { state: 'ended', last_four: '3184' },
      { state: 'active', last_four: '0000', what: 'changed' },
    ]);
  });

  test('in English', async () => {
    const one = await enrolled();
    await one.person.get(`${one.visitUrl}?language=en`);
    const asked = await one.person.get(`${one.visitUrl}/card`);
    expect(asked.text).toContain('Use another card for automatic payment');
    const page = await press(one);
    expect(await (await fetch(page)).text()).toContain('Nothing is paid now');
    const done = await visitor().get(await here.payOnPage(page, cards.jcb));
    expect(done.text).toContain('Automatic payment uses your new card');
  });

  test('declined, given up or left open, it changes nothing', async () => {
    const one = await enrolled();
    const page = await press(one);
    expect(await here.payOnPage(page, cards.lost)).toBe(page);
    const [open] = await changes(one);
    expect(stateIn((await one.person.get(`${one.visitUrl}/card`)).text)).toBeUndefined();
    expect((await one.person.get(`${one.visitUrl}/card`)).text).toContain('登録の手続きが途中です');
    await cancelOnPage(page);
    expect((await one.person.get(`${one.visitUrl}/card`)).text).toContain('同意してカードを登録する');
    expect(await changes(one)).toMatchObject([
      { id: open?.id, state: 'failed', code: 'lost_card', learned_by: 'return' },
    ]);
    expect(await agreements(one)).toMatchObject(asBefore);

    const left = await press(one);
    expect(left).not.toBe(page);
    here.clock.advance(29 * 60_000);
    expect(await trace()).toBe(0);
    here.clock.advance(2 * 60_000 + 1);
    expect(await trace()).toBe(1);
    expect(await changes(one)).toMatchObject([
      { state: 'failed' },
      { state: 'failed', code: 'page_expired', learned_by: 'trace' },
    ]);
    expect(await here.payOnPage(left, cards.jcb)).not.toContain('/c/');
    expect(await agreements(one)).toMatchObject(asBefore);
    here.clock.set(morning);
  });

  test('two tabs, another phone and twenty presses lead to one page', async () => {
    const one = await enrolled();
    const two = await reader(one.bill);
    const pages = await Promise.all(Array.from({ length: 20 }, (_, no) => press(no % 2 === 0 ? one : two)));
    const opened = new Set(pages.filter((page) => page.includes('/pay/')));
    expect(opened.size).toBe(1);
    expect(await changes(one)).toMatchObject([{ state: 'requires_action' }]);
    expect(await press(two)).toBe([...opened][0]);
    const back = await here.payOnPage([...opened][0] ?? '', cards.jcb);
    await Promise.all([visitor().get(back), visitor().get(back), two.person.get(`${two.visitUrl}/card`)]);
    expect(await agreements(one)).toMatchObject([{ state: 'ended' }, { state: 'active', what: 'changed' }]);
  });

  test('a return that is forged, changed, old, or of a payment opens nothing', async () => {
    const one = await enrolled();
    const back = await here.payOnPage(await press(one), cards.jcb);
    const nonce = back.split('/c/')[1] ?? '';
    const of = (from: 'return' | 'card return', id: string) =>
      sealReturn(here.sealer, here.clock.now(), from, {
        merchantId: gas.id,
        id,
        visitId: 'x'.repeat(22),
        language: 'ja',
      });
    const [change] = await changes(one);
    for (const url of [
      `${web.url}/c/${nonce.slice(0, -2)}${nonce.at(-1)}${nonce.at(-2)}`,
      `${web.url}/c/${'a'.repeat(60)}`,
      `${web.url}/r/${nonce}`,
      `${web.url}/c/${of('return', change?.id ?? '')}`,
      `${web.url}/c/${of('card return', one.bill.invoiceId)}`,
    ]) {
      expect((await visitor().get(url)).status).toBe(404);
    }
    expect(await agreements(one)).toMatchObject(asBefore);
    here.clock.advance(2 * 3_600_000);
    expect((await visitor().get(back)).status).toBe(404);
    // Only its end is told to nobody any more: what the gateway kept is learned all the same.
    expect(await trace()).toBe(1);
    expect(await agreements(one)).toMatchObject([{ state: 'ended' }, { state: 'active' }]);
    here.clock.set(morning);
  });
});

describe('an outcome that nobody recorded', () => {
  test('a page whose answer was lost is asked for, closed, and changes nothing', async () => {
    const one = await enrolled();
    here.crashAt('card_change.after_gateway');
    await press(one);
    expect(await changes(one)).toMatchObject([{ state: 'processing' }]);
    const waits = await one.person.get(`${one.visitUrl}/card`);
    expect([waits.status, stateIn(waits.text)]).toEqual([200, 'card_waiting']);
    expect(await press(one)).toBe(`${one.visitUrl}/card`);
    here.clock.advance(70_000);
    await trace();
    expect(await changes(one)).toMatchObject([{ state: 'failed', code: 'page_closed', learned_by: 'trace' }]);
    expect(await press(one)).toContain('/pay/');
    here.clock.set(morning);
  });

  test('at a gateway that is not used any more it is over with its page', async () => {
    const one = await enrolled();
    await press(one);
    const other: Gateway = { ...here.gateway, name: 'another' };
    here.clock.advance(10 * 60_000);
    await trace(other);
    expect(await changes(one)).toMatchObject([{ state: 'requires_action' }]);
    here.clock.advance(24 * 3_600_000);
    await trace(other);
    expect(await changes(one)).toMatchObject([{ state: 'canceled', code: 'another_gateway' }]);
    expect(await agreements(one)).toMatchObject(asBefore);
    here.clock.set(morning);
  });

  test('one without an answer stays unknown until the gateway proves it; "not found" only after its window', async () => {
    const silent: Gateway = {
      ...here.gateway,
      openSetupPage: async () => ({ kind: 'unknown', why: 'timeout' }),
      lookupSetup: async () => ({ kind: 'unknown', why: 'timeout' }),
      closeSetupPage: async () => ({ kind: 'unknown', why: 'timeout' }),
    };
    const server = await webOf(here, { ports: { ...here.ports, gateway: silent } });
    try {
      const one = await enrolled(server);
      await press(one);
      expect(await changes(one)).toMatchObject([{ state: 'unknown' }]);
      here.clock.advance(2 * 60_000);
      expect(await trace(silent)).toBe(1);
      expect(await changes(one)).toMatchObject([{ state: 'unknown', learned_by: null }]);
      here.clock.advance(60 * 60_000);
      // The real one knows nothing of it, and its window has passed.
      await trace();
      expect(await changes(one)).toMatchObject([{ state: 'canceled', code: 'not_found' }]);
      expect(await agreements(one)).toMatchObject(asBefore);
    } finally {
      await server.close();
      here.clock.set(morning);
    }
  });

  test('a gateway that takes nothing says when to come back, and the customer may press again', async () => {
    const busy: Gateway = {
      ...here.gateway,
      openSetupPage: async () => ({ kind: 'not_executed', why: '429', retryAfterMs: 60_000 }),
    };
    const server = await webOf(here, { ports: { ...here.ports, gateway: busy } });
    try {
      const one = await enrolled(server);
      const refused = await one.person.post(`${one.visitUrl}/card`, {});
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '60']);
      expect(refused.text).toContain('カードは変わっていません');
      expect(await changes(one)).toMatchObject([{ state: 'canceled' }]);
    } finally {
      await server.close();
    }
  });

  test('a webhook is enough, once and twice, before the return and after it', async () => {
    const one = await enrolled();
    const back = await here.payOnPage(await press(one), cards.jcb);
    const [change] = await changes(one);
    const deliver = async (id: string) => {
      const event = {
        id,
        account: gas.code,
        reference: referenceOf(change?.id ?? ''),
        kind: 'setup.succeeded',
      };
      const { body, signature } = here.signedWebhook(event);
      const received = await receiveWebhook(here.webDb, here.ports, {
        gateway: 'simulator',
        merchantCode: gas.code,
        rawBody: Buffer.from(body),
        headers: { 'simulator-signature': signature },
      });
      expect(received.kind).toBe('stored');
      await handleWaitingWebhooks(here.webDb, here.ports, gas);
    };
    await deliver('evt-card-1');
    expect(await agreements(one)).toMatchObject([{ state: 'ended' }, { state: 'active', what: 'changed' }]);
    expect(stateIn((await visitor().get(back)).text)).toBe('card_changed');
    await deliver('evt-card-2');
    expect(await agreements(one)).toHaveLength(2);
    expect(
      await here.db.query(
        `select result from webhook_events where event_id like 'evt-card-%' order by event_id`,
      ),
    ).toEqual([{ result: 'card_change succeeded' }, { result: 'card_change succeeded' }]);
  });

  test('whoever stopped automatic payment meanwhile is not enrolled again', async () => {
    const one = await enrolled();
    const page = await press(one);
    await one.person.post(`${one.visitUrl}/stop`, {});
    const done = await visitor().get(await here.payOnPage(page, cards.jcb));
    expect(stateIn(done.text)).toBe('card_not_changed');
    expect(await changes(one)).toMatchObject([{ state: 'canceled', code: 'agreement_gone' }]);
    expect(await agreements(one)).toMatchObject([{ state: 'ended', what: 'ended' }]);
  });

  test('a link that was given back changes nothing, also once its bill is paid', async () => {
    const one = await enrolled();
    await here.db.run(`update invoices set state = 'paid' where id = $1::uuid`, [one.bill.invoiceId]);
    await here.db.run(`update links set dead_reason = 'wrong_person' where invoice_id = $1::uuid`, [
      one.bill.invoiceId,
    ]);
    expect(await press(one)).toBe(one.visitUrl);
    expect(await changes(one)).toEqual([]);
  });

  test('an end that the merchant sends in the same moment ends the agreement with the new card, too', async () => {
    const one = await enrolled();
    await press(one);
    const [change] = await changes(one);
    const savedMethod = {
      ...{ token: 'tok_new', brand: 'jcb', lastFour: '0000', expires: '2044-12' },
      ...{ networkTransactionId: null, threeDsEci: null },
    };
    let ended: Promise<void> = Promise.resolve();
    await here.db.transaction(async (tx) => {
      const act = {
        merchantId: gas.id,
        id: here.ids.uuid(),
        kind: 'visit',
        actor: 'test',
        at: here.clock.now(),
      } as const;
      const learned = [{ id: change?.id ?? '', outcome: { kind: 'succeeded', savedMethod } as const }];
      await recordCardChanges(tx, { act, learnedBy: 'return', learned, ids: here.ids, sealer: here.sealer });
      const line = { customerNumber: one.bill.customerNumber, contractNumber: '', what: 'end' } as const;
      const end = { ...line, method: 'card', account: '', holder: '', effectiveFrom: '2026-12-01' } as const;
      ended = changeEnrolmentByHand({ ...here.ports, db: here.db }, gas, end, 'test');
      const waiting = `select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
      await expect
        .poll(async () => (await here.db.query(waiting)).length, { timeout: 30_000 })
        .toBeGreaterThan(0);
    });
    await ended;
    expect((await agreements(one)).map(({ state }) => state)).not.toContain('active');
  });

  test('nothing begins while the database has forgotten what it told', async () => {
    const [owed, paid] = [await enrolled(), await enrolled()];
    await here.db.run(`update invoices set state = 'paid' where id = $1::uuid`, [paid.bill.invoiceId]);
    await here.db.transaction((tx) =>
      beginRestore(tx, {
        ids: here.ids,
        at: here.clock.now(),
        by: 'test',
        why: 'a test',
        forgottenFrom: here.clock.now(),
      }),
    );
    try {
      expect(await press(owed)).toBe(owed.visitUrl);
      const refused = await paid.person.post(`${paid.visitUrl}/card`, {});
      expect([refused.status, stateIn(refused.text)]).toEqual([503, 'resting']);
      for (const one of [owed, paid]) expect(await changes(one)).toEqual([]);
    } finally {
      await here.db.run(`update restores set ended_at = began_at, ended_by = 'test'`);
    }
  });
});

describe('a bill while its card changes', () => {
  async function methodOf(bill: Bill): Promise<string> {
    const [method] = await here.db.transaction((tx) => methodsOf(tx, gas.id, 'simulator', [bill.customerId]));
    return method?.payment_method_id ?? 'none';
  }

  /** An automatic charge of the bill that is under way. */
  async function inFlight(
    bill: Bill,
  ): Promise<{ chargeId: string; ends(outcome: ChargeOutcome): Promise<void> }> {
    await here.db.run(`update invoices set collection = 'auto' where id = $1::uuid`, [bill.invoiceId]);
    const chargeId = here.ids.uuid();
    const methodId = await methodOf(bill);
    const act = (): Act => ({
      merchantId: gas.id,
      id: here.ids.uuid(),
      kind: 'job',
      actor: 'charge',
      at: here.clock.now(),
    });
    await here.db.transaction(async (tx) => {
      const begun = act();
      await recordAct(tx, begun);
      const wish = { invoiceId: bill.invoiceId, amount: bill.amount, currency: 'JPY' };
      const intents = await ensureAutoIntents(tx, begun, [{ intentId: here.ids.uuid(), ...wish }]);
      await insertCharges(tx, begun, [
        {
          ...wish,
          id: chargeId,
          intentId: intents.get(bill.invoiceId) ?? '',
          sessionId: null,
          origin: 'auto',
          gateway: 'simulator',
          paymentMethodId: methodId,
          businessDate: '2026-11-26',
          deadlineAt: here.clock.now().toString(),
          askAt: here.clock.now().add({ hours: 1 }).toString(),
        },
      ]);
    });
    const ends = (outcome: ChargeOutcome) =>
      here.db.transaction(async (tx) => {
        await recordOutcomes(tx, {
          act: act(),
          timezone: 'Asia/Tokyo',
          learnedBy: 'trace',
          learned: [{ chargeId, outcome }],
          ids: here.ids,
          sealer: here.sealer,
        });
      });
    return { chargeId, ends };
  }

  test('that is under way with the former card ends with the former card', async () => {
    const one = await enrolled();
    const former = await methodOf(one.bill);
    const charge = await inFlight(one.bill);
    await visitor().get(await here.payOnPage(await press(one), cards.jcb));
    const now = await methodOf(one.bill);
    expect(now).not.toBe(former);
    // Its network forbids the former card: the new one stays.
    const codes = { gatewayCode: 'lost_card', network: 'visa', networkCode: '41', adviceCode: null };
    await charge.ends({ kind: 'failed', codes, gatewayChargeId: null });
    expect(await agreements(one)).toMatchObject([
      { state: 'ended', card: 'ended' },
      { state: 'active', card: 'active' },
    ]);
    expect(await methodOf(one.bill)).toBe(now);
    const [charged] = await here.db.query(
      `select payment_method_id, state from charges where id = $1::uuid`,
      [charge.chargeId],
    );
    expect(charged).toEqual({ payment_method_id: former, state: 'failed' });
    // An attempt that comes after it, by the merchant's plan, takes the card that stands then.
    const agenda = await here.db.query(`select act from agenda where invoice_id = $1::uuid`, [
      one.bill.invoiceId,
    ]);
    expect(agenda).toEqual([{ act: 'dun' }]);
  });

  test('that could not be charged is paid at once from the same link; the next one takes the new card', async () => {
    const one = await enrolled();
    await here.db.run(`update payment_methods set state = 'ended' where customer_id = $1::uuid`, [
      one.bill.customerId,
    ]);
    await here.db.run(
      `update invoices set collection = 'auto', fell_back_on = '2026-11-26' where id = $1::uuid`,
      [one.bill.invoiceId],
    );
    expect(await methodOf(one.bill)).toBe('none');
    const back = await here.payOnPage(await press(one), cards.jcb);
    expect((await one.person.get(back)).text).toContain(`href="${new URL(one.visitUrl).pathname}"`);
    expect(await methodOf(one.bill)).not.toBe('none');
    const [bill] = await here.db.query(`select state, fell_back_on from invoices where id = $1::uuid`, [
      one.bill.invoiceId,
    ]);
    expect(bill).toEqual({ state: 'open', fell_back_on: '2026-11-26' });
    expect((await one.person.get(one.visitUrl)).text).toContain('/pay"');
    const pay = await one.person.post(`${one.visitUrl}/pay`, {});
    expect(stateIn((await visitor().get(await here.payOnPage(pay.location, cards.jcb))).text)).toBe('paid');
    // From its receipt, too.
    expect((await one.person.get(one.visitUrl)).text).toContain('/card"');
    expect(await press(one)).toContain('/pay/');
  });

  test('that is paid with the tick in another tab counts: the card of the older page changes nothing', async () => {
    const one = await enrolled();
    const page = await press(one);
    const pay = await one.person.post(`${one.visitUrl}/pay`, { enrol: 'yes' });
    await visitor().get(await here.payOnPage(pay.location, cards.challenge));
    const done = await visitor().get(await here.payOnPage(page, cards.jcb));
    expect(stateIn(done.text)).toBe('card_not_changed');
    expect(await agreements(one)).toMatchObject([
      { state: 'ended' },
      { state: 'active', last_four: '3184', source: 'pay_page' },
    ]);
  });
});
