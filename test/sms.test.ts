import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { twilioCarrier } from '../billing/carriers/twilio.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { explainBill } from '../billing/explain/queries.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { messageIdOf } from '../billing/messages/message.ts';
import { planSteps } from '../billing/messages/plan.ts';
import { compareOutside } from '../billing/outside/compare.ts';
import { takeInMessages } from '../billing/restores/take-in-messages.ts';
import { notify } from '../jobs/notify.ts';
import { trace } from '../jobs/trace.ts';
import { startWeb, type WebServer } from '../web/server.ts';
import { type BillFields, billingFile, billingName, type Office, openOffice } from './inbox.ts';
import {
  account,
  type SignedCallback,
  startTwilio,
  type TakenMessage,
  type TwilioFault,
  type TwilioStandIn,
} from './stand-ins/twilio.ts';

/** The real SDK, jobs, web server and database; only Twilio itself is a stand-in. */
let office: Office;
let twilio: TwilioStandIn;
let web: WebServer;
let closeCarrier: () => Promise<void>;
let sequence = 0;

interface MessageRow {
  billing_number: string;
  invoice_id: string;
  step: string;
  state: string;
  code: string | null;
  provider_id: string | null;
  delivery: string | null;
  unreached: string | null;
}

beforeAll(async () => {
  office = await openOffice();
  twilio = await startTwilio(() => office.clock.now().epochMilliseconds);
  const carrier = twilioCarrier({ ...account, apiUrl: twilio.url, baseUrl: office.ports.baseUrl });
  closeCarrier = () => carrier.close();
  // A deadline that is waited for in real time is a short one here.
  office.ports.carrier = { ...carrier, semantics: { ...carrier.semantics, callDeadlineMs: 1_500 } };
  office.ports.gateway = { name: 'none' } as Gateway;
  web = await startWeb({
    webDb: office.webDb,
    ports: office.ports,
    baseUrl: office.ports.baseUrl,
    port: 0,
    gatewayOrigins: [],
  });
});

afterAll(async () => {
  await web.close();
  await closeCarrier();
  await twilio.close();
  await office.close();
});

beforeEach(async () => {
  await office.db.run(`delete from rate_limits`);
  await office.db.run(`delete from opt_outs`);
  twilio.fault = () => null;
  twilio.listFault = null;
  twilio.taken.length = 0;
  twilio.creates.length = 0;
  office.clock.set('2026-11-25T01:00:00Z');
});

/** Bills are taken in; whoever has no phone of his own has one that no other story has. */
async function receive(bills: readonly BillFields[]): Promise<void> {
  sequence += 1;
  const rows = bills.map((bill, at) => ({
    customer: `S${sequence}-${at}`,
    phone: `0901${String(sequence).padStart(3, '0')}${String(at).padStart(4, '0')}`.replace(
      /^09010/,
      '09011',
    ),
    ...bill,
  }));
  const name = billingName(sequence);
  writeFileSync(join(office.inbox, name), billingFile(sequence, rows));
  writeFileSync(join(office.inbox, `${name}.done`), '');
  expect((await office.fetch()).outcome).toBe('done');
  expect((await office.ingest()).outcome).toBe('done');
}

async function messages(): Promise<MessageRow[]> {
  return office.db.query<MessageRow>(
    `select i.billing_number, m.* from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
     where f.sequence = $1 order by i.billing_number, m.step`,
    [sequence],
  );
}

/** Twilio calls, on the address that it was given; the proxy in front of us speaks another one. */
async function call({ url, body, headers }: SignedCallback): Promise<number> {
  const answer = await fetch(url.replace(office.ports.baseUrl, web.url), { method: 'POST', body, headers });
  await web.settled();
  return answer.status;
}

const sidOf = async (at = 0): Promise<string> => (await messages())[at]?.provider_id ?? '';
const idOf = (message: Pick<MessageRow, 'invoice_id' | 'step'>) =>
  messageIdOf(message.invoice_id, message.step);
/** Our id, read from the callback's address as Twilio would never do. */
const idIn = (taken: Pick<TakenMessage, 'statusCallback'>): string =>
  Buffer.from(new URL(taken.statusCallback).searchParams.get('message') ?? '', 'base64url').toString();

const plan = (steps: readonly { invoiceId: string; step: string; plannedOn: string }[]) =>
  office.db.transaction((tx) =>
    planSteps(tx, {
      merchant: office.merchant,
      sealer: office.ports.sealer,
      at: office.clock.now(),
      steps,
    }),
  );

describe('what becomes of a message', () => {
  it('is told by callbacks, out of order, twice or never, and ends the same', async () => {
    await receive([{}, {}, {}]);
    expect((await office.run(notify)).counts).toMatchObject({ sent: 3 });
    const [one, two] = [await sidOf(0), await sidOf(1)];
    for (const word of ['queued', 'sent', 'delivered'])
      expect(await call(twilio.status(one, word))).toBe(204);
    for (const word of ['delivered', 'queued', 'delivered', 'sent']) await call(twilio.status(two, word));
    expect(await messages()).toMatchObject([
      { state: 'sent', delivery: 'delivered' },
      { state: 'sent', delivery: 'delivered' },
      { state: 'sent', delivery: null },
    ]);
    expect(await office.db.query(`select from sms_callbacks`)).toEqual([]);
  });

  it('says why a phone was not reached, until a receipt says that it was', async () => {
    await receive([{}]);
    await office.run(notify);
    const sid = await sidOf();
    await call(twilio.status(sid, 'undelivered', 30003));
    await call(twilio.status(sid, 'sent'));
    expect(await messages()).toMatchObject([
      { state: 'sent', delivery: 'undelivered', code: '30003', unreached: 'undelivered' },
    ]);
    const [told] = await explainBill(office.db, (await messages())[0]?.billing_number ?? '', null);
    expect(told?.events.map((event) => event.detail)).toContain(
      'first_notice undelivered (30003), by the carrier’s callback; the phone was not reached: undelivered',
    );
    await call(twilio.status(sid, 'delivered'));
    expect(await messages()).toMatchObject([{ delivery: 'delivered', code: null, unreached: null }]);
  });

  it('is believed from Twilio alone, and only for a merchant that exists', async () => {
    await receive([{}]);
    await office.run(notify);
    const genuine = twilio.status(await sidOf(), 'delivered');
    expect(await call({ ...genuine, body: genuine.body.replace('delivered', 'undelivered') })).toBe(400);
    expect(
      await call({ ...genuine, headers: { 'content-type': genuine.headers['content-type'] ?? '' } }),
    ).toBe(400);
    expect(await call({ ...genuine, url: genuine.url.replace('minato-gas', 'nobody') })).toBe(400);
    expect(await messages()).toMatchObject([{ delivery: null }]);
    expect(await call(genuine)).toBe(204);
  });

  it('waits in the inbox when the process dies, and trace handles it', async () => {
    await receive([{}]);
    await office.run(notify);
    office.killAt('webhook.after_inbox');
    expect(await call(twilio.status(await sidOf(), 'delivered'))).toBe(500);
    expect(await messages()).toMatchObject([{ delivery: null }]);
    expect((await office.run(trace)).counts).toMatchObject({ sms_callbacks: 1 });
    expect(await messages()).toMatchObject([{ delivery: 'delivered' }]);
  });

  it('many calls at once are each answered when they are safe', async () => {
    await receive(Array.from({ length: 20 }, () => ({})));
    await office.run(notify);
    const calls = twilio.taken.flatMap(({ sid }) =>
      ['queued', 'sent', 'delivered'].map((word) => call(twilio.status(sid, word))),
    );
    expect(new Set(await Promise.all(calls))).toEqual(new Set([204]));
    expect((await messages()).map((message) => message.delivery)).toEqual(Array(20).fill('delivered'));
  });
});

describe('a lost answer', () => {
  it('is resolved by a callback, without a question', async () => {
    await receive([{}]);
    twilio.fault = () => 'error_after';
    expect((await office.run(notify)).counts).toMatchObject({ unknown: 1 });
    await call(twilio.status(twilio.taken[0]?.sid ?? '', 'queued'));
    expect(await messages()).toMatchObject([
      { state: 'sent', delivery: 'queued', provider_id: twilio.taken[0]?.sid },
    ]);
    expect((await office.run(notify)).counts).toEqual({});
  });

  it('is resolved by looking the message up, and sent again only when Twilio has it not', async () => {
    await receive([{}, {}]);
    const faults: TwilioFault[] = ['reset_after', 'reset_before'];
    twilio.fault = () => faults.shift() ?? null;
    expect((await office.run(notify)).counts).toMatchObject({ unknown: 2 });
    office.clock.advance(61_000);
    expect((await office.run(notify)).counts).toMatchObject({ found: 1, still_unknown: 1, sent: 0 });
    office.clock.advance(700_000);
    expect((await office.run(notify)).counts).toMatchObject({ not_found: 1, sent: 1 });
    expect(twilio.creates).toHaveLength(3);
    expect(new Set(twilio.taken.map(idIn)).size).toBe(2);
  });

  it('of two messages of the same words is not taken for the other', async () => {
    await receive([{}]);
    await office.run(notify);
    const [{ invoice_id: invoiceId = '' } = {}] = await messages();
    const [taken, lost] = ['reminder:+1bd', 'reminder:+2bd'];
    await plan([taken, lost].map((step) => ({ invoiceId, step: step ?? '', plannedOn: '2026-11-25' })));
    twilio.fault = (form) =>
      idIn({ statusCallback: form.StatusCallback ?? '' }).endsWith('+1bd') ? 'error_after' : 'error_before';
    expect((await office.run(notify)).counts).toMatchObject({ unknown: 2 });
    office.clock.advance(61_000);
    expect((await office.run(notify)).counts).toMatchObject({ found: 1, still_unknown: 1 });
    twilio.fault = () => null;
    office.clock.advance(700_000);
    await office.run(notify);
    expect(twilio.taken).toHaveLength(3);
    const ids = (await messages()).map((message) => message.provider_id);
    expect(new Set(ids).size).toBe(3);
  });

  it('a message that Twilio took under two ids is told to a person', async () => {
    await receive([{}]);
    await office.run(notify);
    const [first] = twilio.taken;
    twilio.taken.push({ ...(first as TakenMessage), sid: `SM${'f'.repeat(32)}` });
    await call(twilio.status(`SM${'f'.repeat(32)}`, 'queued'));
    const alerts = await office.db.query(`select level from alerts where cause = 'SMS_TAKEN_TWICE'`);
    expect(alerts).toEqual([{ level: 'now' }]);
  });

  it('whatever goes wrong, each message is taken once at most, and our books say what Twilio has', async () => {
    await receive(Array.from({ length: 4 }, () => ({})));
    await office.run(notify);
    const invoices = (await messages()).map((message) => message.invoice_id);
    const fault = fc.constantFrom<TwilioFault[]>(
      null,
      'reset_before',
      'reset_after',
      'error_before',
      'error_after',
      'garbled_after',
      'busy',
      21610,
      30003,
    );
    const callback = fc.constantFrom('queued', 'sent', 'delivered', 'undelivered');
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fault, { maxLength: 4 }), { minLength: 4, maxLength: 4 }),
        fc.array(fc.tuple(fc.nat(3), callback, fc.nat(4)), { maxLength: 8 }),
        fc.constantFrom(null, 'notify.after_claim', 'notify.after_send'),
        async (faults, callbacks, death) => {
          run += 1;
          const step = `reminder:+${run}bd`;
          twilio.taken.length = 0;
          await office.db.run(`delete from opt_outs`);
          office.clock.set('2026-11-25T01:00:00Z');
          await office.db.run(`delete from rate_limits`);
          await plan(invoices.map((invoiceId) => ({ invoiceId, step, plannedOn: '2026-11-25' })));
          const left = new Map(invoices.map((id, at) => [messageIdOf(id, step), [...(faults[at] ?? [])]]));
          twilio.fault = (form) =>
            left.get(idIn({ statusCallback: form.StatusCallback ?? '' }))?.shift() ?? null;
          if (death !== null) office.killAt(death as 'notify.after_claim');
          for (let round = 0; round <= 4; round += 1) {
            await office.run(notify);
            for (const [at, word, when] of callbacks) {
              const taken = twilio.taken.find((each) => idIn(each) === messageIdOf(invoices[at] ?? '', step));
              if (when === round && taken !== undefined) await call(twilio.status(taken.sid, word));
            }
            office.clock.advance(720_000);
          }
          const rows = (await messages()).filter((message) => message.step === step);
          for (const row of rows) {
            const taken = twilio.taken.filter((each) => idIn(each) === idOf(row)).map(({ sid }) => sid);
            expect(taken.length).toBeLessThanOrEqual(1);
            expect({ state: row.state === 'sent', sid: row.provider_id }).toEqual({
              state: taken.length === 1,
              sid: taken[0] ?? null,
            });
            if (taken.length === 0) expect(['failed', 'planned', 'unknown', 'skipped']).toContain(row.state);
          }
        },
      ),
      { numRuns: 25 },
    );
    expect(twilio.complaints).toEqual([]);
    const { invariants } = await checkInvariants(office.db);
    expect(invariants.filter((invariant) => !invariant.holds)).toEqual([]);
  });
});

describe('who wants no SMS', () => {
  const phone = '+819055550001';
  const answers = (text: string) =>
    call(twilio.inbound(`${office.ports.baseUrl}/webhooks/twilio`, phone, text));

  it('gets none, whether it said so before the plan or before the sending, until it says start', async () => {
    expect(await answers('STOP')).toBe(204);
    await receive([{ phone: '090-5555-0001' }, {}]);
    expect((await office.run(notify)).counts).toMatchObject({ skipped: 1, sent: 1 });
    expect((await messages())[0]).toMatchObject({ state: 'skipped', code: 'opted_out' });

    expect(await answers('start')).toBe(204);
    office.clock.set('2026-11-24T22:00:00Z');
    await receive([{ phone: '090-5555-0001' }]);
    expect((await office.run(notify)).counts).toMatchObject({ planned: 1, waiting_for_hours: 1 });
    expect(await answers('停止')).toBe(204);
    office.clock.set('2026-11-25T01:00:00Z');
    expect((await office.run(notify)).counts).toMatchObject({ skipped: 1, sent: 0 });
    expect(await messages()).toMatchObject([{ state: 'skipped', code: 'opted_out' }]);
    expect(twilio.creates).toHaveLength(1);
  });

  it('is learned from a refusal too, and from news of a message that was taken', async () => {
    await receive([{ phone: '090-5555-0002' }, { phone: '090-5555-0003' }]);
    twilio.fault = ({ To }) => (To === '+819055550002' ? 21610 : null);
    expect((await office.run(notify)).counts).toMatchObject({ failed: 1, sent: 1 });
    await call(twilio.status(await sidOf(1), 'failed', 21610));
    expect(await messages()).toMatchObject([
      { state: 'failed', code: '21610', unreached: 'opted_out' },
      { state: 'sent', delivery: 'failed', code: '21610', unreached: 'opted_out' },
    ]);
    await receive([{ phone: '090-5555-0002' }, { phone: '090-5555-0003' }]);
    expect((await office.run(notify)).counts).toMatchObject({ skipped: 2 });
    const learned = await office.db.query(`select distinct learned_by from opt_outs`);
    expect(learned).toEqual([{ learned_by: 'carrier' }]);
  });

  it('a forged answer changes nothing', async () => {
    const genuine = twilio.inbound(`${office.ports.baseUrl}/webhooks/twilio`, phone, 'STOP');
    expect(await call({ ...genuine, body: genuine.body.replace('0001', '0009') })).toBe(400);
    expect(await office.db.query(`select from opt_outs`)).toEqual([]);
  });
});

describe('how much', () => {
  it('one phone gets so many a day over all customers; the rest goes on later mornings', async () => {
    await office.change((settings) => ({ ...settings, notify: { ...settings.notify, dailyCapPerPhone: 2 } }));
    await receive(Array.from({ length: 5 }, () => ({ phone: '090-5555-0004' })));
    expect((await office.run(notify)).counts).toMatchObject({ sent: 2, over_daily_cap: 3 });
    expect((await office.run(notify)).counts).toMatchObject({ sent: 0, over_daily_cap: 3 });
    office.clock.set('2026-11-26T00:00:00Z');
    expect((await office.run(notify)).counts).toMatchObject({ sent: 2, over_daily_cap: 1 });
    office.clock.set('2026-11-27T00:00:00Z');
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1, over_daily_cap: 0 });
    await office.change((settings) => ({
      ...settings,
      notify: { ...settings.notify, dailyCapPerPhone: 1_000 },
    }));
  });

  it('an account that Twilio refuses loses nothing, and a person is told', async () => {
    await receive([{}]);
    twilio.fault = () => 'unauthorised';
    expect((await office.run(notify)).counts).toMatchObject({ sent: 0, failed: 0, not_executed: 3 });
    const alerts = await office.db.query(`select level from alerts where cause = 'CARRIER_REFUSES'`);
    expect(alerts).toEqual([{ level: 'now' }]);
    twilio.fault = () => null;
    office.clock.advance(60_000);
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1 });
    await office.run(trace);
    const open = await office.db.query(
      `select from alerts where cause = 'CARRIER_REFUSES' and resolved_at is null`,
    );
    expect(open).toEqual([]);
  });
});

describe('before anything is sent', () => {
  const preview = (date = '2026-11-25') =>
    notify.dryRun({
      ports: office.ports,
      merchant: office.merchant,
      businessDate: date,
      stop: new AbortController().signal,
      progress: () => undefined,
    });

  it('messages, segments and cost are shown, for what is planned and what is not planned yet', async () => {
    const { notify: settings } = office.merchant.settings;
    await office.change((all) => ({ ...all, notify: { ...settings, pricePerSegmentYen: 3.3 } }));
    const before = await preview();
    await receive([{}, {}, {}, { phone: '' }, { phone: '03-1234-5678' }]);
    expect(await preview()).toMatchObject({
      files_to_plan: 1,
      messages: (before.messages ?? 0) + 3,
      segments: (before.segments ?? 0) + 3,
      cost_yen: Math.ceil(((before.segments ?? 0) + 3) * 3.3),
    });
    office.clock.set('2026-11-24T22:00:00Z');
    await office.run(notify);
    const [{ invoice_id: invoiceId = '' } = {}] = (await messages()).filter(
      ({ state }) => state === 'planned',
    );
    await plan([{ invoiceId, step: 'reminder:+1bd', plannedOn: '2026-11-27' }]);
    expect(await preview()).toMatchObject({ messages: (before.messages ?? 0) + 3 });
    expect(await preview('2026-11-27')).toMatchObject({ messages: (before.messages ?? 0) + 4 });
    // What was counted is what is sent.
    office.clock.set('2026-11-27T01:00:00Z');
    const due = await preview('2026-11-27');
    const sentSoFar = async () => {
      const [sent] = await office.db.query<{ segments: number }>(
        `select coalesce(sum(segments), 0)::int as segments from messages where claimed_at is not null`,
      );
      return sent?.segments ?? 0;
    };
    const sentBefore = await sentSoFar();
    await office.run(notify, '2026-11-27');
    expect((await sentSoFar()) - sentBefore).toBe(due.segments);
    await office.change((all) => ({ ...all, notify: settings }));
  });
});

describe('Twilio’s own list, which knows no id of ours', () => {
  const outside = async () => {
    const { carrier, sealer, baseUrl } = office.ports;
    const gateway = {
      name: 'none',
      // biome-ignore lint/correctness/useYield: there are none.
      listCharges: async function* () {
        return;
      },
    };
    const { invariants } = await compareOutside(
      office.db,
      { gateway, carrier, sealer, baseUrl },
      {
        merchants: [office.merchant],
        from: '2026-12-15',
        now: office.clock.now(),
        signal: AbortSignal.timeout(10_000),
      },
    );
    return invariants
      .filter(({ holds }) => !holds)
      .map(({ id, examples }) => [id, ...examples.map(({ kind, subject }) => `${kind} ${subject}`)]);
  };
  const message = async (): Promise<{ id: string; invoiceId: string }> => {
    const [{ invoice_id: invoiceId = '' } = {}] = await messages();
    return { id: `${invoiceId} first_notice`, invoiceId };
  };

  beforeEach(() => office.clock.set('2026-12-15T01:00:00Z'));

  it('agrees with our books', async () => {
    await receive([{}, {}]);
    await office.run(notify, '2026-12-15');
    office.clock.advance(3_600_000);
    expect(await outside()).toEqual([]);
  });

  it('shows what was taken twice, what was taken without our knowing, and what is of no bill', async () => {
    office.clock.set('2026-12-16T01:00:00Z');
    await receive([{}, {}]);
    await office.run(notify, '2026-12-16');
    const [first, second] = twilio.taken;
    const { id } = await message();
    twilio.taken.push({ ...(first as TakenMessage), sid: `SM${'e'.repeat(32)}` });
    await office.db.run(`update messages set state = 'planned', provider_id = null where provider_id = $1`, [
      second?.sid,
    ]);
    const link = `https://pay.example.jp/l/${office.merchant.shortCode}${'Z'.repeat(22)}`;
    twilio.taken.push({ ...(first as TakenMessage), sid: `SM${'d'.repeat(32)}`, body: `x\n${link}` });
    office.clock.advance(3_600_000);
    const found = await outside();
    const other = (await messages())[1];
    expect(found).toContainEqual([
      18,
      ...[`message ${other?.invoice_id} first_notice`, `sms SM${'d'.repeat(32)}`, `sms SM${'e'.repeat(32)}`],
    ]);
    expect(JSON.stringify(found)).not.toContain(`message ${id}`);
    await office.db.run(`update messages set state = 'sent', provider_id = $1 where invoice_id = $2`, [
      second?.sid,
      other?.invoice_id,
    ]);
  });

  it('brings back what a restored database has forgotten, so that nothing is sent again', async () => {
    office.clock.set('2026-12-21T01:00:00Z');
    await receive([{ due: '2026-12-24' }, { due: '2026-12-24' }]);
    await office.run(notify, '2026-12-21');
    const [{ invoice_id: invoiceId = '' } = {}] = await messages();
    await plan([{ invoiceId, step: 'reminder:-3bd', plannedOn: '2026-12-21' }]);
    await office.run(notify, '2026-12-21');
    expect(twilio.taken).toHaveLength(3);
    const was = await messages();
    // An older state: one notice is planned only, the other and the reminder are not even that.
    await office.db.run(
      `update messages set state = 'planned', provider_id = null, claimed_at = null, phone_digest = null, delivery = null
       where invoice_id = any($1::uuid[]) and invoice_id <> $2`,
      [was.map((row) => row.invoice_id), invoiceId],
    );
    await office.db.run(`delete from messages where invoice_id = $1`, [invoiceId]);
    await office.db.run(`delete from links where invoice_id = $1`, [invoiceId]);
    // In another month, for history is not forgotten here and its keys have the month.
    office.clock.set('2027-01-05T01:00:00Z');
    const { carrier } = office.ports;
    const counts = await takeInMessages(
      office.ports,
      { merchant: office.merchant, actor: 'test' },
      carrier.list('', '2026-12-21T00:00:00Z', '2026-12-22T00:00:00Z', AbortSignal.timeout(10_000)),
    );
    expect(counts).toMatchObject({ recovered: 3, unknown_bills: 0 });
    const columns = ({ invoice_id, step, state, provider_id }: MessageRow) => ({
      invoice_id,
      step,
      state,
      provider_id,
    });
    expect((await messages()).map(columns)).toEqual(was.map(columns));
    office.clock.advance(60_000);
    await office.run(notify, '2026-12-21');
    expect(twilio.taken).toHaveLength(3);
  });
});
