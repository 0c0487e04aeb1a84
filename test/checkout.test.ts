import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Act } from '../billing/acts/act.ts';
import { pauseMinutes } from '../billing/checkout/check-last-four.ts';
import { findLink } from '../billing/checkout/find-link.ts';
import { learnFromGateway, visitorWaitsMs } from '../billing/checkout/learn.ts';
import { type CheckoutPorts, type StartCheckout, startCheckout } from '../billing/checkout/start.ts';
import { viewBill } from '../billing/checkout/view-bill.ts';
import { fixedClock } from '../billing/clock.ts';
import type { Db } from '../billing/db.ts';
import { termsVersion } from '../billing/enrolments/enrol.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import { trialBalance } from '../billing/ledger/queries.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { askAbout, judgeAnswer } from '../billing/trace/ask.ts';
import { chargesToAsk } from '../billing/trace/queries.ts';
import { resolveCharges } from '../billing/trace/resolve.ts';
import { handleWaitingWebhooks, handleWebhooks } from '../billing/webhooks/handle.ts';
import { receiveWebhook } from '../billing/webhooks/receive.ts';
import { texts } from '../web/texts.ts';
import { type Bill, Crashed, morning, type World, world } from './world.ts';

const visa = '4242424242424242';
const declining = '4000000000000002';

let here: World;
let gas: Merchant;

beforeAll(async () => {
  here = await world();
  gas = await here.merchant('minato-gas');
});
afterAll(() => here?.drop());

describe('pressing the pay button', () => {
  test('one press opens the gateway’s page; the bill is locked until the outcome is known', async () => {
    const bill = await here.bill(gas);
    const started = await press(bill);
    expect(started.kind).toBe('redirect');
    const life = await lifeOf(bill);
    expect(life).toMatchObject({
      invoice: 'open',
      charges: ['requires_action'],
      locks: 1,
      intents: ['requires_action'],
    });
  });

  test('twenty presses at once are one charge, and one page at the gateway', async () => {
    const bill = await here.bill(gas);
    const started = await Promise.all(Array.from({ length: 20 }, () => press(bill)));
    const pages = new Set(started.flatMap((each) => (each.kind === 'redirect' ? [each.url] : [])));
    expect(pages.size).toBe(1);
    expect(started.every(({ kind }) => kind === 'redirect' || kind === 'waiting')).toBe(true);
    expect(await lifeOf(bill)).toMatchObject({ charges: ['requires_action'], locks: 1 });
    // Whoever comes back is sent to the very same page.
    expect(await press(bill)).toEqual({ kind: 'redirect', url: [...pages][0] });
  });

  test('a page that was opened without the tick is not continued with it', async () => {
    const bill = await here.bill(gas);
    await press(bill);
    expect(await press(bill, { enrol: true })).toEqual({ kind: 'look_again' });
    expect(await lifeOf(bill)).toMatchObject({ charges: ['requires_action'] });
  });

  test('an automatic charge under way keeps the visitor waiting', async () => {
    const bill = await here.bill(gas);
    await press(bill);
    await here.db.run(`update charges set origin = 'auto' where invoice_id = $1::uuid`, [bill.invoiceId]);
    expect(await press(bill)).toEqual({ kind: 'waiting' });
  });

  test('nothing starts on a bill that is paid, on an ended link, or in its last minute', async () => {
    const paid = await here.bill(gas);
    await pay(paid);
    expect(await press(paid)).toEqual({ kind: 'look_again' });

    const ended = await here.bill(gas, { linkExpiresOn: '2026-11-25' });
    expect(await press(ended)).toEqual({ kind: 'look_again' });

    const lastDay = await here.bill(gas, { linkExpiresOn: '2026-11-26' });
    here.clock.set('2026-11-26T14:40:00Z');
    expect((await press(lastDay)).kind).toBe('redirect');
    const [session] = await here.db.query<{ expires_at: string }>(
      `select expires_at from checkout_sessions where invoice_id = $1::uuid`,
      [lastDay.invoiceId],
    );
    expect(session?.expires_at).toBe('2026-11-26T15:00:00Z');
    const lastMinute = await here.bill(gas, { linkExpiresOn: '2026-11-26' });
    here.clock.set('2026-11-26T14:59:30Z');
    expect(await press(lastMinute)).toEqual({ kind: 'look_again' });
    here.clock.set(morning);
  });

  test('a gateway that refuses leaves nothing behind, and the next press works', async () => {
    const bill = await here.bill(gas);
    const refusing = withGateway({
      openHostedPage: async () => ({ kind: 'not_executed', why: '429', retryAfterMs: 1_000 }),
    });
    expect(await press(bill, {}, refusing)).toMatchObject({ kind: 'try_again' });
    expect(await lifeOf(bill)).toMatchObject({
      charges: ['canceled'],
      locks: 0,
      intents: ['requires_payment_method'],
    });
    expect((await press(bill)).kind).toBe('redirect');
    expect(await lifeOf(bill)).toMatchObject({
      charges: ['canceled', 'requires_action'],
      sessions: ['expired', 'open'],
      intents: ['canceled', 'requires_action'],
    });
  });

  test('a gateway that does not answer makes an unknown: nobody can pay again', async () => {
    const bill = await here.bill(gas);
    const silent = withGateway({ openHostedPage: async () => ({ kind: 'unknown', why: 'timeout' }) });
    expect(await press(bill, {}, silent)).toEqual({ kind: 'waiting' });
    expect(await lifeOf(bill)).toMatchObject({ charges: ['unknown'], locks: 1 });
    expect(await press(bill)).toEqual({ kind: 'waiting' });
  });

  test('an answer after the charge was judged without it: the late page is closed and takes no money', async () => {
    const bill = await here.bill(gas);
    let opened = '';
    const slow = withGateway({
      openHostedPage: async (request, signal) => {
        const answer = await here.gateway.openHostedPage(request, signal);
        opened = answer.kind === 'opened' ? answer.url : '';
        await here.db.run(`delete from collection_locks where invoice_id = $1::uuid`, [bill.invoiceId]);
        await here.db.run(`update charges set state = 'canceled' where invoice_id = $1::uuid`, [
          bill.invoiceId,
        ]);
        return answer;
      },
    });
    expect(await press(bill, {}, slow)).toEqual({ kind: 'look_again' });
    const page = await fetch(opened);
    expect(await page.text()).not.toContain('name="number"');
  });
});

describe('dying in between', () => {
  test.each(['checkout.after_intent', 'checkout.after_gateway'] as const)('%s', async (point) => {
    const bill = await here.bill(gas);
    here.crashAt(point);
    await expect(press(bill)).rejects.toThrow(Crashed);
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'open', charges: ['processing'], locks: 1 });
    // The visitor comes back: the outcome is not known, so no second charge can start.
    expect(await press(bill)).toEqual({ kind: 'waiting' });
    expect(await lifeOf(bill)).toMatchObject({ charges: ['processing'], locks: 1 });
    // Trace asks soon after the call's deadline; a page that nobody was shown is closed, and the bill is free again.
    here.clock.advance(3 * 60_000);
    expect(await trace(bill)).toBe(1);
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'open', locks: 0, payments: [] });
    await pay(bill);
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'paid', payments: [bill.amount], locks: 0 });
    here.clock.set(morning);
  });
});

describe('how the outcome is learned does not matter', () => {
  const ways: Record<string, (bill: Bill, chargeId: string) => Promise<void>> = {
    'the customer returns': async (_bill, chargeId) => {
      await learnFromGateway(here.webDb, here.ports, gas, [chargeId], 'return');
    },
    'a webhook, no return': async (_bill, chargeId) => {
      await deliver(chargeId, 'evt-a');
    },
    'a webhook twice, then the return': async (_bill, chargeId) => {
      await deliver(chargeId, 'evt-b');
      await deliver(chargeId, 'evt-b');
      await learnFromGateway(here.webDb, here.ports, gas, [chargeId], 'return');
    },
    'return and three webhooks at once': async (_bill, chargeId) => {
      await Promise.all([
        learnFromGateway(here.webDb, here.ports, gas, [chargeId], 'return'),
        deliver(chargeId, 'evt-c'),
        deliver(chargeId, 'evt-c'),
        deliver(chargeId, 'evt-d'),
      ]);
    },
    'a webhook that only reached the inbox, handled by trace': async (_bill, chargeId) => {
      await receive(chargeId, 'evt-e');
      expect(await handleWaitingWebhooks(here.db, here.ports, gas)).toBe(1);
      expect(await handleWaitingWebhooks(here.db, here.ports, gas)).toBe(0);
    },
  };

  test.each(Object.keys(ways))('paid: %s', async (way) => {
    const bill = await here.bill(gas);
    const chargeId = await payAtGateway(bill, visa);
    expect((await lifeOf(bill)).invoice).toBe('open');
    await ways[way]?.(bill, chargeId);
    expect(await lifeOf(bill)).toMatchObject({
      invoice: 'paid',
      charges: ['succeeded'],
      intents: ['succeeded'],
      sessions: ['complete'],
      locks: 0,
      agenda: 0,
      payments: [bill.amount],
      results: ['paid'],
      transfers: ['bill_released', 'paid'],
    });
    const balances = (await trialBalance(here.db)).filter(({ merchant }) => merchant === gas.code);
    expect(balances.reduce((sum, { balance }) => sum + balance, 0)).toBe(0);
  });

  test('the customer pays in the page’s last minute while return, webhook and trace ask: in any order the books say what the gateway took', async () => {
    const all = ['return', 'webhook', 'the same webhook'] as const;
    // Half of the time nobody but trace hears of it: what it gets wrong nobody else mends.
    const hints = fc.oneof(fc.constant([]), fc.subarray([...all]));
    const ends = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), hints, fc.boolean(), async (turns, heard, enrol) => {
        const bill = await here.bill(gas);
        const started = await press(bill, { enrol });
        if (started.kind !== 'redirect') throw new Error(started.kind);
        const [chargeId = ''] = await chargesOf(bill);
        const parts = inTurns(turns);
        // For trace the page's time is over: it closes the page before it judges.
        const later = fixedClock(here.clock.now().add({ hours: 2 }).toString());
        await turns.waitFor(
          Promise.all([
            parts.pays(started.url, visa),
            ...heard.map((hint) =>
              hint === 'return'
                ? learnFromGateway(parts.webDb, parts.ports, gas, [chargeId], 'return')
                : deliver(chargeId, `evt-${chargeId}`, parts),
            ),
            trace(bill, { ...parts, ports: { ...parts.ports, clock: later } }),
          ]),
        );
        const answer = await here.gateway.lookup(
          gas.code,
          referenceOf(chargeId),
          here.clock.deadline(5_000),
          { gatewaySessionId: null },
        );
        const isPaid = answer.kind === 'succeeded';
        ends.add(answer.kind);
        expect(await lifeOf(bill)).toEqual({
          invoice: isPaid ? 'paid' : 'open',
          charges: [isPaid ? 'succeeded' : 'failed'],
          intents: [isPaid ? 'succeeded' : 'requires_payment_method'],
          // Trace ends it with the stuck rows.
          sessions: [isPaid ? 'complete' : 'open'],
          locks: 0,
          agenda: isPaid ? 0 : 1,
          payments: isPaid ? [bill.amount] : [],
          results: isPaid ? ['paid'] : [],
          transfers: isPaid ? ['bill_released', 'paid'] : ['bill_released'],
        });
        const enrolments = await here.db.query(`select 1 from enrolments where customer_id = $1::uuid`, [
          bill.customerId,
        ]);
        expect(enrolments).toHaveLength(isPaid && enrol ? 1 : 0);
      }),
      { numRuns: 120, seed: 20_261_201 },
    );
    expect([...ends].sort()).toEqual(['failed', 'succeeded']);
  });

  test('coming back unpaid: declined, cancelled at the gateway, then paid with another card', async () => {
    const bill = await here.bill(gas);
    const started = await press(bill);
    if (started.kind !== 'redirect') throw new Error(started.kind);
    await here.payOnPage(started.url, declining);
    const [first] = await chargesOf(bill);
    // The page is still open for another card.
    await learnFromGateway(here.webDb, here.ports, gas, [first ?? ''], 'return');
    expect(await lifeOf(bill)).toMatchObject({ charges: ['requires_action'], locks: 1 });
    await fetch(`${started.url}/cancel`, { method: 'POST', redirect: 'manual' });
    await learnFromGateway(here.webDb, here.ports, gas, [first ?? ''], 'return');
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'open', charges: ['failed'], locks: 0, agenda: 1 });
    await pay(bill);
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'paid', charges: ['failed', 'succeeded'] });
  });

  test('the tick enrols the customer with the payment, once, and only then', async () => {
    const bill = await here.bill(gas);
    const chargeId = await payAtGateway(bill, visa, true);
    await Promise.all([
      learnFromGateway(here.webDb, here.ports, gas, [chargeId], 'return'),
      deliver(chargeId, 'evt-enrol'),
    ]);
    const enrolments = await here.db.query(
      `select e.state, e.terms_version, m.last_four, m.brand, m.network_transaction_id <> '' as ntx from enrolments e
       join payment_methods m on m.merchant_id = e.merchant_id and m.id = e.payment_method_id
       where e.customer_id = $1::uuid`,
      [bill.customerId],
    );
    expect(enrolments).toEqual([
      { state: 'active', terms_version: '2026-12', last_four: '4242', brand: 'visa', ntx: true },
    ]);
    const without = await here.bill(gas);
    await pay(without);
    expect(
      await here.db.query(`select 1 from enrolments where customer_id = $1::uuid`, [without.customerId]),
    ).toEqual([]);
  });

  test('the terms that a customer agrees to keep their words as long as they keep their version', () => {
    const words = [texts.ja, texts.en].flatMap(({ enrol, enrolText, termsList }) => [
      enrol,
      enrolText,
      ...[true, false].flatMap((byLink) => termsList('M', 'D', null, byLink)),
      ...termsList('M', 'D', '0120', true),
    ]);
    // Other words: give `termsVersion` a new value, and this its digest.
    const digest = createHash('sha256').update(words.join('\n')).digest('hex').slice(0, 16);
    expect({ termsVersion, digest }).toEqual({ termsVersion: '2026-12', digest: '82c303f783c22aec' });
  });

  test('a gateway that does not answer keeps nobody before an empty page: who comes back reads after 5 s that it is being checked', async () => {
    const bill = await here.bill(gas);
    const chargeId = await payAtGateway(bill, visa);
    const waitedMs: number[] = [];
    const deadline = (milliseconds: number) => {
      waitedMs.push(milliseconds);
      return AbortSignal.abort();
    };
    const silent = {
      ...withGateway({
        semantics: { ...here.gateway.semantics, callDeadlineMs: 20_000 },
        lookup: async (_account, _reference, signal) => {
          signal.throwIfAborted();
          throw new Error('it has no deadline');
        },
      }),
      clock: { ...here.clock, deadline },
    };
    const { charges, unanswered } = await learnFromGateway(here.webDb, silent, gas, [chargeId], 'return');
    expect([...unanswered]).toEqual([chargeId]);
    expect(charges).toMatchObject([{ state: 'requires_action', invoice_state: 'open' }]);
    expect(waitedMs).toEqual([visitorWaitsMs]);
  });

  test('another amount than asked for is never booked', async () => {
    const bill = await here.bill(gas);
    const chargeId = await payAtGateway(bill, visa);
    const lying = withGateway({
      lookup: async (account, reference, signal) => {
        const answer = await here.gateway.lookup(account, reference, signal);
        return answer.kind === 'succeeded'
          ? { ...answer, captured: { ...answer.captured, amount: 1 } }
          : answer;
      },
    });
    await learnFromGateway(here.webDb, lying, gas, [chargeId], 'return');
    expect(await lifeOf(bill)).toMatchObject({ invoice: 'open', charges: ['requires_action'], locks: 1 });
  });
});

describe('webhooks', () => {
  test('forged, stale, of another account, for another merchant: refused, nothing stored', async () => {
    const water = await here.merchant('sakura-suido');
    const event = {
      id: 'evt-forged',
      account: gas.code,
      reference: 'X'.repeat(26),
      kind: 'charge.succeeded',
    };
    const { body, signature } = here.signedWebhook(event);
    const send = (rawBody: string, header: string, merchantCode: string, gateway = 'simulator') =>
      receiveWebhook(here.webDb, here.ports, {
        gateway,
        merchantCode,
        rawBody: Buffer.from(rawBody),
        headers: { 'simulator-signature': header },
      });
    const refused = { kind: 'refused' };
    expect(
      await send(
        body,
        signature.replace(/.$/, (last) => (last === '0' ? '1' : '0')),
        gas.code,
      ),
    ).toEqual(refused);
    expect(await send(`${body} `, signature, gas.code)).toEqual(refused);
    expect(await send(body, '', gas.code)).toEqual(refused);
    expect(await send(body, signature, water.code)).toEqual(refused);
    expect(await send(body, signature, 'nobody')).toEqual(refused);
    expect(await send(body, signature, gas.code, 'stripe')).toEqual(refused);
    here.clock.advance(10 * 60_000);
    expect(await send(body, signature, gas.code)).toEqual(refused);
    here.clock.set(morning);
    expect(await here.db.query(`select 1 from webhook_events where event_id = 'evt-forged'`)).toEqual([]);
  });

  test('about a charge that is not ours: stored, marked, nothing else', async () => {
    for (const reference of ['7ZZZZZZZZZZZZZZZZZZZZZZZZZ', 'not a reference']) {
      const stored = await receiveEvent({ id: `evt ${reference}`, reference });
      if (stored.kind !== 'stored' || stored.event === null) throw new Error(stored.kind);
      await handleWebhooks(here.webDb, here.ports, gas, [stored.event]);
    }
    expect(
      await here.db.query(`select distinct result from webhook_events where event_id like 'evt %'`),
    ).toEqual([{ result: 'no_such_charge' }]);
  });

  test('while the gateway does not answer the event stays in the inbox', async () => {
    const bill = await here.bill(gas);
    const chargeId = await payAtGateway(bill, visa);
    const down = withGateway({ lookup: async () => ({ kind: 'unknown', why: 'timeout' }) });
    await receive(chargeId, 'evt-down');
    expect(await handleWaitingWebhooks(here.db, down, gas)).toBe(0);
    expect((await lifeOf(bill)).invoice).toBe('open');
    expect(await handleWaitingWebhooks(here.db, here.ports, gas)).toBe(1);
    expect((await lifeOf(bill)).invoice).toBe('paid');
  });
});

describe('an adapter that breaks', () => {
  test('keeps only its own event waiting; the others of the batch are handled', async () => {
    const [broken, whole] = [await here.bill(gas), await here.bill(gas)];
    const [brokenCharge, wholeCharge] = [await payAtGateway(broken, visa), await payAtGateway(whole, visa)];
    await receive(brokenCharge, 'evt-broken');
    await receive(wholeCharge, 'evt-whole');
    const breaking = withGateway({
      lookup: async (account, reference, signal) => {
        if (reference === referenceOf(brokenCharge)) throw new TypeError('an answer nobody expected');
        return here.gateway.lookup(account, reference, signal);
      },
    });
    expect(await handleWaitingWebhooks(here.db, breaking, gas)).toBe(1);
    expect((await lifeOf(whole)).invoice).toBe('paid');
    expect(await lifeOf(broken)).toMatchObject({ invoice: 'open', locks: 1 });
    expect(await handleWaitingWebhooks(here.db, here.ports, gas)).toBe(1);
    expect((await lifeOf(broken)).invoice).toBe('paid');
  });
});

describe('links', () => {
  test('a link leads to its own bill and nowhere else', async () => {
    const bill = await here.bill(gas);
    const found = await findLink(here.webDb, bill.token);
    expect(found?.link).toEqual({ merchantId: gas.id, invoiceId: bill.invoiceId, version: 1 });
    const water = await here.merchant('sakura-suido');
    const secretPart = bill.token.slice(gas.shortCode.length);
    const changed = secretPart.replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'));
    for (const token of [
      '',
      'x',
      gas.shortCode + changed,
      water.shortCode + secretPart,
      `zz${secretPart}`,
      `${bill.token}a`,
      "' or 1=1 --",
    ]) {
      expect(await findLink(here.webDb, token)).toBeNull();
    }
  });

  test('the visit of one merchant opens no bill of another', async () => {
    const bill = await here.bill(gas);
    const water = await here.merchant('sakura-suido');
    const foreign = { merchantId: water.id, invoiceId: bill.invoiceId, version: 1 };
    expect(await viewBill(here.webDb, here.clock.now(), foreign)).toBeNull();
    expect(await press({ ...bill }, { link: foreign })).toEqual({ kind: 'look_again' });
    expect((await lifeOf(bill)).charges).toEqual([]);
  });

  test('a bill whose file is not released has no link yet', async () => {
    const power = await here.merchant('kita-denryoku');
    const bill = await here.bill(power);
    await here.db.run(`update billing_files set state = 'loading' where merchant_id = $1`, [power.id]);
    expect(await findLink(here.webDb, bill.token)).toBeNull();
  });

  test('pauses grow from ten minutes to a day', () => {
    expect([0, 1, 4, 5, 6, 10, 15, 100].map(pauseMinutes)).toEqual([0, 0, 0, 10, 0, 20, 40, 1_440]);
  });
});

function withGateway(change: Partial<Gateway>): CheckoutPorts {
  return { ...here.ports, gateway: { ...here.gateway, ...change } };
}

function press(bill: Bill, change: Partial<StartCheckout> = {}, ports: CheckoutPorts = here.ports) {
  return startCheckout(here.webDb, ports, {
    link: { merchantId: gas.id, invoiceId: bill.invoiceId, version: 1 },
    method: 'card',
    enrol: false,
    language: 'ja',
    returnUrlOf: (chargeId) => `http://127.0.0.1:9/r/${chargeId}`,
    ...change,
  });
}

async function payAtGateway(bill: Bill, pan: string, enrol = false): Promise<string> {
  const started = await press(bill, { enrol });
  if (started.kind !== 'redirect') throw new Error(`not started: ${started.kind}`);
  const back = await here.payOnPage(started.url, pan);
  return back.split('/').at(-1) ?? '';
}

async function pay(bill: Bill): Promise<void> {
  const chargeId = await payAtGateway(bill, visa);
  await learnFromGateway(here.webDb, here.ports, gas, [chargeId], 'return');
}

function receiveEvent(event: { id: string; reference: string }, { webDb, ports } = asTheyAre()) {
  const { body, signature } = here.signedWebhook({ account: gas.code, kind: 'charge.succeeded', ...event });
  return receiveWebhook(webDb, ports, {
    gateway: 'simulator',
    merchantCode: gas.code,
    rawBody: Buffer.from(body),
    headers: { 'simulator-signature': signature },
  });
}

async function receive(chargeId: string, id: string, parts = asTheyAre()) {
  const received = await receiveEvent({ id, reference: referenceOf(chargeId) }, parts);
  if (received.kind !== 'stored') throw new Error('a genuine webhook was refused');
  return received;
}

async function deliver(chargeId: string, id: string, parts = asTheyAre()): Promise<void> {
  const { event } = await receive(chargeId, id, parts);
  if (event !== null) await handleWebhooks(parts.webDb, parts.ports, gas, [event]);
}

/** What the trace job does with the bill's open charge. Returns how many it asked about. */
async function trace(bill: Bill, { db, ports } = asTheyAre()): Promise<number> {
  const now = ports.clock.now();
  const [chargeId = ''] = await chargesOf(bill);
  const due = await chargesToAsk(db, gas.id, now.toString(), { from: chargeId, to: chargeId }, null, 10);
  for (const charge of due) {
    const answer = await askAbout(ports, gas.code, charge);
    const judgement = judgeAnswer(charge, answer, now, here.gateway.semantics);
    const act: Act = { merchantId: gas.id, id: here.ids.uuid(), kind: 'job', actor: 'trace', at: now };
    await db.transaction((tx) =>
      resolveCharges(tx, { act, merchant: gas, ids: here.ids, sealer: here.sealer }, [{ charge, judgement }]),
    );
  }
  return due.length;
}

const asTheyAre = () => ({ db: here.db, webDb: here.webDb, ports: here.ports as CheckoutPorts });

/** One transaction or call to the gateway after the other, in the order that `turns` picks: nothing else meets. */
function inTurns(turns: fc.Scheduler) {
  const { db, webDb, ports } = asTheyAre();
  // A sequence of one step: what `scheduleFunction` wraps begins at once, and only its end waits for its turn.
  const scheduled = <Work extends (...args: never[]) => Promise<unknown>>(work: Work): Work =>
    ((...args: Parameters<Work>) =>
      new Promise((resolve, reject) => {
        turns.scheduleSequence([{ label: work.name, builder: () => work(...args).then(resolve, reject) }]);
      })) as unknown as Work;
  const taking = (each: Db): Db => ({
    ...each,
    query: scheduled(each.query),
    run: scheduled(each.run),
    transaction: scheduled(each.transaction),
  });
  const gateway: Gateway = {
    ...ports.gateway,
    lookup: scheduled(ports.gateway.lookup),
    closeHostedPage: scheduled(ports.gateway.closeHostedPage),
  };
  return {
    db: taking(db),
    webDb: taking(webDb),
    ports: { ...ports, gateway },
    pays: scheduled(here.payOnPage),
  };
}

async function chargesOf(bill: Bill): Promise<string[]> {
  const rows = await here.db.query<{ id: string }>(
    `select id from charges where invoice_id = $1::uuid order by attempt_no`,
    [bill.invoiceId],
  );
  return rows.map(({ id }) => id);
}

async function lifeOf(bill: Bill) {
  const [row] = await here.db.query<{
    invoice: string;
    charges: string[];
    intents: string[];
    sessions: string[];
    locks: number;
    agenda: number;
    payments: number[];
    results: string[];
    transfers: string[];
  }>(
    `select i.state as invoice,
            array(select c.state from charges c where c.invoice_id = i.id order by attempt_no) as charges,
            array(select p.state from payment_intents p where p.invoice_id = i.id order by p.id) as intents,
            array(select s.state from checkout_sessions s where s.invoice_id = i.id order by s.id) as sessions,
            (select count(*) from collection_locks l where l.invoice_id = i.id) as locks,
            (select count(*) from agenda a where a.invoice_id = i.id) as agenda,
            array(select p.amount from payments p where p.invoice_id = i.id) as payments,
            array(select r.outcome from result_rows r where r.invoice_id = i.id) as results,
            array(select t.event from transfers t where t.invoice_id = i.id order by t.event) as transfers
     from invoices i where i.id = $1::uuid`,
    [bill.invoiceId],
  );
  if (row === undefined) throw new Error('no such bill');
  return row;
}
