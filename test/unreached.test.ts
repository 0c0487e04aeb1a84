import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Carrier, SmsAnswer } from '../billing/carriers/carrier.ts';
import { startCheckout } from '../billing/checkout/start.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { explainBill } from '../billing/explain/queries.ts';
import type { Gateway } from '../billing/gateways/gateway.ts';
import { referenceOf } from '../billing/ids.ts';
import { reportWrongPerson } from '../billing/links/wrong-person.ts';
import { messageIdOf } from '../billing/messages/message.ts';
import { redeliverFile } from '../billing/outward/redeliver.ts';
import { openFindings } from '../billing/reconciliation/queries.ts';
import { settleFindingByHand } from '../billing/reconciliation/settle.ts';
import { handleCallbacks } from '../billing/sms-callbacks/handle.ts';
import { storeNews } from '../billing/sms-callbacks/receive.ts';
import { deliver } from '../jobs/deliver.ts';
import { notify } from '../jobs/notify.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type FakeGateway, fakeGateway } from './fake-gateway.ts';
import { type BillFields, billingFile, billingName, type Office, openOffice } from './inbox.ts';

let office: Office;
let outbound: string;
let answerTo: (phone: string) => SmsAnswer;

beforeEach(async () => {
  office = await openOffice();
  office.clock.set('2026-11-25T01:00:00Z');
  outbound = join(office.inbox, '../outbound');
  fs.mkdirSync(outbound);
  answerTo = () => ({ kind: 'accepted', providerId: 'taken' });
  const carrier: Carrier = { ...office.ports.carrier, send: async ({ to }) => answerTo(to) };
  office.ports.carrier = carrier;
  const { name } = office.ports.gateway;
  const gateway = { name, semantics: { pageMethods: ['card'] }, barcodes: { newsDays: 1 } };
  office.ports.gateway = gateway as unknown as Gateway;
});

afterEach(() => office.close());

const rule = (unreached: 'kept' | 'returned') =>
  office.change((current) => ({ ...current, notify: { ...current.notify, unreached } }));

async function receive(bills: readonly BillFields[], sequence = 1): Promise<void> {
  fs.writeFileSync(join(office.inbox, billingName(sequence)), billingFile(sequence, bills));
  fs.writeFileSync(join(office.inbox, `${billingName(sequence)}.done`), '');
  await office.fetch();
  await office.ingest();
  expect((await office.run(notify)).outcome).toBe('done');
}

const today = () => office.clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString();
const delivering = async () => (await office.run(deliver, today())).counts;
const named = (kind: string) =>
  fs.readdirSync(outbound).filter((name) => name.startsWith(`${kind}_`) && name.endsWith('.csv'));
const rowsOf = (name = '') =>
  fs
    .readFileSync(join(outbound, name), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','));
/** Billing number, cause, disposition and whether there is a barcode, of all unreached files. */
const told = () =>
  named('unreached').flatMap((name) =>
    rowsOf(name)
      .filter(([type]) => type === 'R')
      .map(([, number, , cause, disposition, barcode]) => [number, cause, disposition, barcode !== '']),
  );
const results = () =>
  named('result').flatMap((name) =>
    rowsOf(name)
      .filter(([type]) => type === 'R')
      .map(([, number, , outcome, reason]) => [number, outcome, reason]),
  );

async function idOf(number: string): Promise<string> {
  const [row] = await office.db.query<{ id: string }>(`select id from invoices where billing_number = $1`, [
    number,
  ]);
  return row?.id ?? '';
}

async function hear(number: string, delivery: 'undelivered' | 'delivered'): Promise<void> {
  const ports = { ...office.ports, carrier: { name: 'accepting' } };
  await storeNews(office.db, ports, office.merchant.code, [
    {
      kind: 'status',
      messageId: messageIdOf(await idOf(number), 'first_notice'),
      providerId: 'taken',
      delivery,
      code: delivery === 'delivered' ? null : '30003',
      unreached: delivery === 'delivered' ? null : 'undelivered',
    },
  ]);
  await handleCallbacks(office.db, ports, office.merchant.id);
}

const sound = async () => {
  const { invariants } = await checkInvariants(office.db, { now: office.clock.now() });
  expect(invariants.filter(({ holds }) => !holds)).toEqual([]);
};

describe('a bill that no SMS reaches', () => {
  test('is kept: the merchant prints our barcode the same day, once, and the bill stays payable', async () => {
    answerTo = (phone) =>
      phone === '+819011110000'
        ? { kind: 'refused', code: '30004', unreached: 'blocked' }
        : { kind: 'accepted', providerId: 'taken' };
    await receive([
      { number: 'NONE', phone: '' },
      { number: 'LANDLINE', phone: '03-1234-5678' },
      { number: 'BLOCKED', phone: '090-1111-0000' },
      { number: 'FINE' },
      { number: 'LARGE', phone: '', amount: '300001' },
    ]);
    expect(await delivering()).toMatchObject({ unreached_kept: 3, unreached_returned: 1, unreached: 1 });
    expect(told().sort()).toEqual([
      ['BLOCKED', 'blocked', 'kept', true],
      ['LANDLINE', 'not_mobile', 'kept', true],
      ['LARGE', 'over_limit', 'returned', false],
      ['NONE', 'no_phone', 'kept', true],
    ]);
    const [file = ''] = named('unreached');
    const lines = rowsOf(file);
    expect([lines[0], lines.at(-1)]).toEqual([
      ['H', '1', 'minato-gas', 'unreached', '2026-11-25', '1'],
      ['T', '4', '0'],
    ]);
    expect(lines.find(([, number]) => number === 'NONE')?.slice(5)).toEqual([
      expect.stringMatching(/^91929023\d{36}$/),
      '2026-11-25T10:00:00+09:00',
    ]);
    expect(results()).toEqual([['LARGE', 'unpaid', 'paper']]);
    const [life] = await explainBill(office.db, 'NONE', null);
    expect(life).toMatchObject({ state: 'open' });
    expect(life?.events.map(({ what, detail }) => `${what}: ${detail}`)).toContainEqual(
      expect.stringMatching(
        /^unreached: no_phone, kept with barcode 91\d{42} → unreached_minato-gas_.* row 1$/,
      ),
    );
    await sound();

    // A second run and a redelivery tell nothing new.
    expect(await delivering()).toEqual({});
    const bytes = fs.readFileSync(join(outbound, file));
    fs.rmSync(join(outbound, file));
    fs.rmSync(join(outbound, `${file}.done`));
    await redeliverFile(office.ports, office.merchant, file, 'test');
    await delivering();
    expect(fs.readFileSync(join(outbound, file)).equals(bytes)).toBe(true);
  });

  test('goes back: final, with every way to pay closed', async () => {
    await rule('returned');
    await receive([{ number: 'NONE', phone: '' }, { number: 'LOST' }, { number: 'FINE' }]);
    await delivering();
    expect(told()).toEqual([['NONE', 'no_phone', 'returned', false]]);
    await hear('LOST', 'undelivered');
    expect(await delivering()).toMatchObject({ unreached_returned: 1, results: 1 });
    expect(told()).toEqual([
      ['NONE', 'no_phone', 'returned', false],
      ['LOST', 'undelivered', 'returned', false],
    ]);
    expect(results()).toEqual([
      ['NONE', 'unpaid', 'paper'],
      ['LOST', 'unpaid', 'paper'],
    ]);
    expect(
      await office.db.query(`select dead_reason from links where invoice_id = $1::uuid`, [
        await idOf('LOST'),
      ]),
    ).toEqual([{ dead_reason: 'returned' }]);
    // The phone was off, and tells of the message a day later: what the merchant was told stays.
    await hear('LOST', 'delivered');
    expect(await delivering()).toEqual({});
    await sound();
  });

  test('whoever has the phone of somebody else: the other bills of that customer are not reached either', async () => {
    await receive([
      { number: 'ONE', customer: 'C1' },
      { number: 'TWO', customer: 'C1' },
    ]);
    const link = { merchantId: office.merchant.id, invoiceId: await idOf('ONE'), version: 1 };
    await reportWrongPerson(office.db, office.ports, link);
    await delivering();
    expect(told().sort()).toEqual([
      ['ONE', 'wrong_person', 'kept', true],
      ['TWO', 'wrong_person', 'kept', true],
    ]);
  });

  test('waits while it is held, in dispute, or an SMS is under way', async () => {
    await rule('returned');
    answerTo = (phone) =>
      phone === '+819022220000'
        ? { kind: 'unknown', why: 'no answer' }
        : { kind: 'accepted', providerId: 'x' };
    await receive([
      { number: 'HELD', phone: '', customer: 'C-HELD' },
      { number: 'DISPUTED', phone: '' },
      { number: 'ASKED', phone: '090-2222-0000' },
    ]);
    const [{ customer_id: customerId } = { customer_id: '' }] = await office.db.query<{
      customer_id: string;
    }>(`select customer_id from invoices where billing_number = 'HELD'`);
    const holdId = office.ports.ids.uuid();
    await office.db.run(
      `insert into holds (merchant_id, id, customer_id, reason, placed_at) values ($1, $2, $3, 'disaster', $4)`,
      [office.merchant.id, holdId, customerId, office.clock.now().toString()],
    );
    const [findingId, disputed] = [office.ports.ids.uuid(), await idOf('DISPUTED')];
    await office.db.transaction((tx) =>
      openFindings(tx, office.merchant.id, office.clock.now(), [
        {
          id: findingId,
          source: 'report',
          gateway: 'simulator',
          reportDate: '2026-11-24',
          kind: 'not_booked',
          subject: 'ch_1',
          chargeId: null,
          invoiceId: disputed,
          ours: null,
          theirs: 1_000,
          currency: 'JPY',
          owner: 'operator',
        },
      ]),
    );
    expect(await delivering()).toMatchObject({ unreached_returned: 0 });
    expect(told()).toEqual([]);
    await office.db.run(`update holds set lifted_at = $2 where id = $1`, [holdId, '2026-11-25T02:00:00Z']);
    await settleFindingByHand(office.ports, findingId, 'the gateway was wrong', 'test');
    expect(await delivering()).toMatchObject({ unreached_returned: 2 });
    expect(told().map(([number]) => number)).toEqual(['HELD', 'DISPUTED']);
  });

  test('is tried once more from another sender, where the merchant and the carrier have one', async () => {
    await rule('returned');
    await office.change((current) => ({ ...current, notify: { ...current.notify, secondSender: true } }));
    const sent: string[] = [];
    const { carrier } = office.ports;
    office.ports.carrier = {
      ...carrier,
      secondSender: true,
      send: async ({ to, sender, messageId }) => {
        sent.push(`${sender} ${to} ${messageId.split('.')[1]}`);
        return to === '+819033330001' && sender === 'second'
          ? { kind: 'accepted', providerId: 'again' }
          : { kind: 'refused', code: '30004', unreached: 'blocked' };
      },
    };
    await receive([
      { number: 'SECOND', phone: '090-3333-0001' },
      { number: 'NEITHER', phone: '090-3333-0002' },
      { number: 'NONE', phone: '' },
    ]);
    expect(await delivering()).toMatchObject({ said_again: 2, unreached_returned: 1 });
    expect(await delivering()).toEqual({});
    await office.db.run(`delete from rate_limits`);
    await office.run(notify);
    expect(await delivering()).toMatchObject({ said_again: 0, unreached_returned: 1 });
    expect(told().map(([number, cause]) => [number, cause])).toEqual([
      ['NONE', 'no_phone'],
      ['NEITHER', 'blocked'],
    ]);
    expect(sent.sort()).toEqual([
      'first +819033330001 first_notice',
      'first +819033330002 first_notice',
      'second +819033330001 again:first_notice',
      'second +819033330002 again:first_notice',
    ]);
    await sound();
  });

  test('a whole file of them is rather the file’s fault: a person is told', async () => {
    await receive(Array.from({ length: 10 }, (_, at) => ({ number: `N${at}`, phone: '' })));
    expect(await delivering()).toMatchObject({ unreached_kept: 10 });
    expect(
      await office.db.query(`select level, occurrences from alerts where cause = 'FILE_UNREACHED'`),
    ).toEqual([{ level: 'now', occurrences: 10 }]);
  });
});

describe('a bill whose payment is under way when it would be told', () => {
  let gateway: FakeGateway;
  /** The gateway opens its page, and nobody hears so. */
  let answersAreLost = false;

  beforeEach(() => {
    gateway = fakeGateway(office.clock);
    answersAreLost = false;
    office.ports.gateway = {
      ...gateway,
      openHostedPage: async (request, signal) => {
        const answer = await gateway.openHostedPage(request, signal);
        return answersAreLost ? { kind: 'unknown', why: 'timeout' } : answer;
      },
    };
  });

  /** The customer found the link elsewhere and has pressed the button; the charge's reference. */
  async function pressed(number: string, method: 'card' | 'wallet' = 'card'): Promise<string> {
    const invoiceId = await idOf(number);
    await startCheckout(office.webDb, office.ports, {
      link: { merchantId: office.merchant.id, invoiceId, version: 1 },
      method,
      enrol: false,
      language: 'ja',
      returnUrlOf: (id) => `https://pay.invalid/${id}`,
    });
    const [charge] = await office.db.query<{ id: string }>(
      `select id from charges where invoice_id = $1::uuid order by attempt_no desc limit 1`,
      [invoiceId],
    );
    return referenceOf(charge?.id ?? '');
  }
  const stateOf = async (number: string) =>
    (
      await office.db.query(
        `select i.state, (select string_agg(c.state, ' ' order by c.attempt_no) from charges c where c.invoice_id = i.id) as charges
         from invoices i where billing_number = $1`,
        [number],
      )
    )[0];
  const adjustments = () =>
    named('adjustment').flatMap((name) =>
      rowsOf(name)
        .filter(([type]) => type === 'R')
        .map(([, , number, kind, amount, sign]) => [number, kind, `${sign}${amount}`]),
    );
  /** All that the gateway has reported until the evening before. */
  async function reportsArrive(at: string): Promise<void> {
    office.clock.set(at);
    expect((await office.run(reconcile, today())).outcome).toBe('done');
  }

  test.each(['returned', 'kept'] as const)(
    'an unknown outcome lets it wait, %s or not; once it is known to be paid, no paper is asked for',
    async (disposition) => {
      await rule(disposition);
      await receive([{ number: 'ON-ITS-WAY' }]);
      answersAreLost = true;
      const reference = await pressed('ON-ITS-WAY');
      expect(await stateOf('ON-ITS-WAY')).toEqual({ state: 'open', charges: 'unknown' });
      await hear('ON-ITS-WAY', 'undelivered');
      expect(await delivering()).toMatchObject({ unreached_kept: 0, unreached_returned: 0 });
      expect([told(), results()]).toEqual([[], [['ON-ITS-WAY', 'pending', '']]]);

      gateway.customerPays(reference, null);
      // Asked about with the next question, but a pass of deliver comes first.
      expect(await delivering()).toEqual({});
      office.clock.advance(2 * 60_000);
      await office.run(trace, today());
      expect(await stateOf('ON-ITS-WAY')).toEqual({ state: 'paid', charges: 'succeeded' });
      await delivering();
      expect(told()).toEqual([]);
      expect(results().slice(1)).toEqual([['ON-ITS-WAY', 'paid', '']]);
      // Nothing is left to look at.
      expect(
        await office.db.query(`select 1 from messages where unreached is not null and looked_at is null`),
      ).toEqual([]);
      expect(await delivering()).toEqual({});
      await sound();
    },
  );

  test('proven to be without effect, it goes back when the gateway has reported the day, and not before', async () => {
    await rule('returned');
    await receive([{ number: 'NOTHING' }]);
    answersAreLost = true;
    await pressed('NOTHING');
    await hear('NOTHING', 'undelivered');
    await delivering();
    expect(told()).toEqual([]);
    // The page that nobody saw is closed, and was never paid on.
    office.clock.advance(2 * 60_000);
    await office.run(trace, today());
    expect(await stateOf('NOTHING')).toEqual({ state: 'open', charges: 'failed' });
    // A charge there was: the gateway's report of its day may know better.
    expect(await delivering()).toMatchObject({ unreached_returned: 0 });
    await reportsArrive('2026-11-26T01:00:00Z');
    expect(await delivering()).toMatchObject({ unreached_returned: 1, results: 1 });
    expect(told()).toEqual([['NOTHING', 'undelivered', 'returned', false]]);
    expect(results().slice(1)).toEqual([['NOTHING', 'unpaid', 'paper']]);
    await sound();
  });

  test('money that comes after it went back belongs to it, as a late payment, and nothing that was told changes', async () => {
    await rule('returned');
    await receive([{ number: 'LATE' }]);
    answersAreLost = true;
    const reference = await pressed('LATE');
    await hear('LATE', 'undelivered');
    office.clock.advance(2 * 60_000);
    await office.run(trace, today());
    await reportsArrive('2026-11-26T01:00:00Z');
    await delivering();
    expect(results()).toEqual([['LATE', 'unpaid', 'paper']]);

    // The gateway was wrong: it had taken the money after all, and says so in its report.
    gateway.takesAfterAll(reference);
    await reportsArrive('2026-11-27T01:00:00Z');
    expect(await stateOf('LATE')).toEqual({ state: 'unpaid', charges: 'succeeded' });
    await delivering();
    expect(adjustments()).toEqual([['LATE', 'late_payment', '+1000']]);
    expect([told(), results()]).toEqual([
      [['LATE', 'undelivered', 'returned', false]],
      [['LATE', 'unpaid', 'paper']],
    ]);
    await sound();
  });

  test('kept with a barcode on paper, paid by card and at the shop: one pays it, the other is a credit', async () => {
    await rule('kept');
    await receive([{ number: 'TWICE' }]);
    answersAreLost = true;
    const reference = await pressed('TWICE');
    await hear('TWICE', 'undelivered');
    expect(await delivering()).toMatchObject({ unreached_kept: 0 });
    office.clock.advance(2 * 60_000);
    await office.run(trace, today());
    // Nothing closes with paper: it need not wait for the report.
    expect(await delivering()).toMatchObject({ unreached_kept: 1 });
    expect(told()).toEqual([['TWICE', 'undelivered', 'kept', true]]);
    const [{ digits } = { digits: '' }] = await office.db.query<{ digits: string }>(
      `select digits from barcodes where invoice_id = $1::uuid`,
      [await idOf('TWICE')],
    );

    answersAreLost = false;
    gateway.takesAfterAll(reference);
    await reportsArrive('2026-11-26T01:00:00Z');
    expect(await stateOf('TWICE')).toEqual({ state: 'paid', charges: 'succeeded' });
    const atShop = gateway.shopTakes(digits, 1_000);
    office.clock.advance(60_000);
    gateway.shopConfirms(atShop);
    await reportsArrive('2026-11-27T01:00:00Z');
    await delivering();
    expect(await stateOf('TWICE')).toEqual({ state: 'paid', charges: 'succeeded succeeded' });
    expect(adjustments()).toEqual([['TWICE', 'overpayment', '+1000']]);
    expect(told()).toEqual([['TWICE', 'undelivered', 'kept', true]]);
    expect(results().filter(([, outcome]) => outcome === 'paid')).toHaveLength(1);
    await sound();
  });
});
