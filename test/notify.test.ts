import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type OutboxFault, outboxCarrier, readOutbox } from '../billing/carriers/outbox.ts';
import { moveInvoices } from '../billing/invoices/queries.ts';
import { tokenHashOf } from '../billing/links/token.ts';
import { messageIdOf } from '../billing/messages/message.ts';
import { planSteps } from '../billing/messages/plan.ts';
import { notify } from '../jobs/notify.ts';
import { type BillFields, billingFile, billingName, type Office, openOffice } from './inbox.ts';

interface MessageRow {
  billing_number: string;
  invoice_id: string;
  step: string;
  state: string;
  code: string | null;
  provider_id: string | null;
  link_version: number | null;
  asks: number;
  decided_at: string | null;
}

let office: Office;
let sequence = 0;
/** What goes wrong with the next messages; by message id, or for all. */
let faults: (messageId: string) => OutboxFault;
let lookupFails: boolean;
/** When the carrier was called for what, on the business clock. */
let sends: { messageId: string; at: number }[];

beforeAll(async () => {
  office = await openOffice();
  const carrier = outboxCarrier({
    ...office.ports,
    fault: (request) => {
      sends.push({ messageId: request.messageId, at: office.clock.now().epochMilliseconds });
      return faults(request.messageId);
    },
    lookupFault: () => (lookupFails ? 'time_out' : null),
  });
  office.ports.carrier = carrier;
});

afterAll(async () => {
  await office.close();
});

beforeEach(async () => {
  // The clock is set back between the stories, so that the pace of the last one has to be forgotten.
  await office.db.run(`delete from rate_limits`);
  faults = () => null;
  lookupFails = false;
  sends = [];
  office.clock.set('2026-11-25T01:00:00Z');
});

/** Bills arrive, are taken in and released; their rows by the last part of the number. */
async function receive(bills: readonly BillFields[]): Promise<void> {
  sequence += 1;
  const name = billingName(sequence);
  writeFileSync(join(office.inbox, name), billingFile(sequence, bills));
  writeFileSync(join(office.inbox, `${name}.done`), '');
  expect((await office.fetch()).outcome).toBe('done');
  expect((await office.ingest()).outcome).toBe('done');
}

const bills = (count: number): BillFields[] =>
  Array.from({ length: count }, (_, at) => ({ customer: `N${sequence + 1}-${at + 1}` }));

async function messages(): Promise<MessageRow[]> {
  return office.db.query<MessageRow>(
    `select i.billing_number, m.* from messages m
     join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id
     where f.sequence = $1 order by i.billing_number, m.step`,
    [sequence],
  );
}

const outbox = () => readOutbox(office.db, office.ports.sealer, { limit: 1000 });
const accepted = async (messageId: string) =>
  (await outbox()).filter((message) => message.messageId === messageId).length;

/** A step of its own transaction, as dunning plans it. */
async function plan(invoiceId: string, step: string, plannedOn = '2026-11-25'): Promise<void> {
  const { merchant, ports, db } = office;
  await db.transaction((tx) =>
    planSteps(tx, {
      merchant,
      sealer: ports.sealer,
      at: ports.clock.now(),
      steps: [{ invoiceId, step, plannedOn }],
    }),
  );
}

const act = () => ({
  merchantId: office.merchant.id,
  id: office.ports.ids.uuid(),
  kind: 'command' as const,
  actor: 'test',
  at: office.clock.now(),
});

describe('a merchant’s own texts', () => {
  it('are those of the settings under which a bill was taken in', async () => {
    const before = office.merchant.settings;
    const words = (ja: string) =>
      office.change((current) => ({
        ...current,
        texts: { first_notice: { ja: `{merchant}${ja}\n{link}` } },
      }));
    await words('{due_date}まで');
    await receive([{ customer: 'OWN-1' }]);
    await words('別の文');
    const dry = await notify.dryRun({
      ports: office.ports,
      merchant: office.merchant,
      businessDate: '2026-11-25',
      stop: new AbortController().signal,
      progress: () => undefined,
    });
    expect(dry).toMatchObject({ messages: 1, segments: 1 });
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1 });
    const [sms] = await outbox();
    expect(sms?.body).toMatch(/^みなとガス株式会社12月28日まで\nhttps:/);
    await office.change(() => before);
  });
});

describe('first notices', () => {
  it('tells each customer once, in the merchant’s name, with a link that leads to the bill', async () => {
    await receive(bills(3));
    const end = await office.run(notify);
    expect(end).toMatchObject({ outcome: 'done', counts: { planned: 3, sent: 3, failed: 0, unknown: 0 } });
    for (const message of await messages()) {
      const id = messageIdOf(message.invoice_id, 'first_notice');
      const [sms] = (await outbox()).filter((one) => one.messageId === id);
      expect(sms).toMatchObject({ to: '+819012345678', merchant: 'minato-gas' });
      const [, token] = /https:\/\/pay\.example\.jp\/l\/([0-9A-Za-z]+)$/.exec(sms?.body ?? '') ?? [];
      const [link] = await office.db.query<{ invoice_id: string }>(
        `select invoice_id from links where token_hash = $1`,
        [tokenHashOf(token ?? '')],
      );
      expect(link?.invoice_id).toBe(message.invoice_id);
      expect(sms?.body).toContain('みなとガス');
    }
    expect((await office.run(notify)).counts).toEqual({});
  });

  it('skips who cannot be reached, and says why', async () => {
    await receive([
      { customer: 'none', phone: '' },
      { customer: 'landline', phone: '03-1234-5678' },
    ]);
    expect((await office.run(notify)).counts).toMatchObject({ planned: 0, skipped: 2 });
    expect(await messages()).toMatchObject([
      { state: 'skipped', code: 'no_phone', link_version: null },
      { state: 'skipped', code: 'not_mobile', link_version: null },
    ]);
    expect(sends).toEqual([]);
  });

  it('says nothing of a bill that was paid between plan and send, nor through a link that ended', async () => {
    office.clock.set('2026-11-24T22:00:00Z');
    await receive(bills(3));
    expect((await office.run(notify)).counts).toMatchObject({ planned: 3, waiting_for_hours: 3 });
    const [paid, dead, left] = await messages();
    await office.db.transaction((tx) => moveInvoices(tx, act(), [paid?.invoice_id ?? ''], 'paid', 'paid'));
    // As if the payment had been written before its message was planned: the claim looks again.
    await office.db.run(`update messages set state = 'planned' where invoice_id = $1`, [paid?.invoice_id]);
    await office.db.run(`update links set dead_reason = 'revoked' where invoice_id = $1`, [dead?.invoice_id]);
    office.clock.set('2026-11-25T01:00:00Z');
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1, skipped: 2 });
    expect(await messages()).toMatchObject([
      { state: 'skipped', code: 'paid' },
      { state: 'skipped', code: 'link_dead' },
      { state: 'sent' },
    ]);
    expect(sends.map((send) => send.messageId)).toEqual([
      messageIdOf(left?.invoice_id ?? '', 'first_notice'),
    ]);
  });

  it('keeps the notice of a parked bill until a person has decided', async () => {
    office.clock.set('2026-11-24T22:00:00Z');
    await receive(bills(1));
    await office.run(notify);
    const [message] = await messages();
    const id = message?.invoice_id ?? '';
    office.clock.set('2026-11-25T01:00:00Z');
    await office.db.transaction((tx) => moveInvoices(tx, act(), [id], 'parked', ''));
    await office.run(notify);
    expect(sends).toEqual([]);
    await office.db.transaction((tx) => moveInvoices(tx, act(), [id], 'open', ''));
    await office.run(notify);
    expect(await messages()).toMatchObject([{ state: 'sent' }]);
  });
});

describe('hours and pace', () => {
  it('sends nothing outside the merchant’s hours, and stops where they end', async () => {
    office.clock.set('2026-11-24T23:59:59Z');
    await receive(bills(50));
    expect((await office.run(notify)).counts).toMatchObject({ sent: 0, waiting_for_hours: 50 });
    // 19:29:58 in Tokyo: two seconds at 20 a second.
    office.clock.set('2026-11-25T10:29:58Z');
    expect((await office.run(notify)).counts).toMatchObject({ sent: 40, waiting_for_hours: 10 });
    office.clock.set('2026-11-26T00:00:00Z');
    expect((await office.run(notify)).counts).toMatchObject({ sent: 10 });
  });

  it('never sends more than the pace in any second, also over two runs', async () => {
    await receive(bills(45));
    await office.run(notify);
    await receive(bills(15));
    await office.run(notify);
    expect(sends).toHaveLength(60);
    const bySecond = new Map<number, number>();
    for (const { at } of sends) bySecond.set(at, (bySecond.get(at) ?? 0) + 1);
    const slots = [...bySecond.keys()].sort((one, other) => one - other);
    expect(Math.max(...bySecond.values())).toBeLessThanOrEqual(20);
    slots.slice(1).forEach((at, index) => {
      expect(at - (slots[index] ?? 0)).toBeGreaterThanOrEqual(1000);
    });
  });
});

describe('at most once for each bill and step', () => {
  it('asks about an answer that was lost, and never sends again what the carrier took', async () => {
    await receive(bills(1));
    faults = () => 'accept_then_time_out';
    expect((await office.run(notify)).counts).toMatchObject({ unknown: 1, sent: 0 });
    faults = () => null;
    office.clock.advance(61_000);
    expect((await office.run(notify)).counts).toMatchObject({ found: 1, sent: 0 });
    const [message] = await messages();
    expect(message).toMatchObject({ state: 'sent' });
    expect(message?.provider_id).not.toBeNull();
    expect(sends).toHaveLength(1);
  });

  it('sends again only when "not found" is conclusive', async () => {
    await receive(bills(1));
    faults = () => 'time_out';
    await office.run(notify);
    faults = () => null;
    office.clock.advance(61_000);
    expect((await office.run(notify)).counts).toMatchObject({ still_unknown: 1, not_found: 0, sent: 0 });
    expect(sends).toHaveLength(1);
    office.clock.advance(20_000);
    expect((await office.run(notify)).counts).toMatchObject({ not_found: 1, sent: 1 });
    const [message] = await messages();
    expect(await accepted(messageIdOf(message?.invoice_id ?? '', 'first_notice'))).toBe(1);
  });

  it.each(['notify.after_claim', 'notify.after_send', 'notify.after_outcome'] as const)(
    'killed at %s and run again, each customer has one message',
    async (point) => {
      await receive(bills(25));
      office.killAt(point);
      expect((await office.run(notify)).outcome).toBe('failed');
      // At once: what was under way is left alone, the rest goes.
      await office.run(notify);
      office.clock.advance(120_000);
      await office.run(notify);
      const all = await messages();
      expect(all.map((message) => message.state)).toEqual(all.map(() => 'sent'));
      const calls = new Map<string, number>();
      for (const { messageId } of sends) calls.set(messageId, (calls.get(messageId) ?? 0) + 1);
      expect([...calls.values()]).toEqual(all.map(() => 1));
    },
  );

  it('gives an answer that never comes to a person after ten questions', async () => {
    await receive(bills(1));
    faults = () => 'accept_then_time_out';
    lookupFails = true;
    await office.run(notify);
    let last = await office.run(notify);
    for (let ask = 0; ask < 10; ask += 1) {
      office.clock.set('2026-11-25T01:00:00Z');
      office.clock.advance((ask + 1) * 3_700_000);
      last = await office.run(notify);
    }
    expect(last).toMatchObject({ outcome: 'attention', counts: { parked: 1 } });
    expect(await messages()).toMatchObject([{ state: 'unknown', asks: 10 }]);
    expect((await office.run(notify)).counts).toEqual({});
    const alerts = await office.db.query(`select level from alerts where cause = 'SMS_OUTCOME_UNKNOWN'`);
    expect(alerts).toEqual([{ level: 'now' }]);
    expect(sends).toHaveLength(1);
  });

  it('plans a step once however often dunning asks, and reuses the living link', async () => {
    await receive(bills(1));
    await office.run(notify);
    const [first] = await messages();
    const id = first?.invoice_id ?? '';
    await plan(id, 'reminder:-3bd');
    await plan(id, 'reminder:-3bd');
    await office.run(notify);
    expect(await messages()).toMatchObject([
      { step: 'first_notice', state: 'sent', link_version: 1 },
      { step: 'reminder:-3bd', state: 'sent', link_version: 1 },
    ]);
    await office.db.run(`update links set dead_reason = 'revoked' where invoice_id = $1`, [id]);
    await plan(id, 'reminder:+1bd');
    expect((await messages()).find((message) => message.step === 'reminder:+1bd')?.link_version).toBe(2);
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1 });
  });
});

describe('a carrier that refuses', () => {
  it('keeps a refusal as the end, with its code', async () => {
    await receive(bills(1));
    faults = () => 'refuse';
    expect((await office.run(notify)).counts).toMatchObject({ failed: 1 });
    expect(await messages()).toMatchObject([{ state: 'failed', code: 'no_such_number' }]);
  });

  it('waits for one that is busy, and goes on in a later pass', async () => {
    await receive(bills(1));
    faults = () => 'busy';
    expect((await office.run(notify)).counts).toMatchObject({ not_executed: 3, sent: 0 });
    faults = () => null;
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1 });
  });

  it('does not keep a pace that a clock gone wrong has set', async () => {
    await receive(bills(1));
    await office.db.run(
      `insert into rate_limits (merchant_id, name, next_slot_at) values ($1, 'sms', '2039-01-01T00:00:00Z')`,
      [office.merchant.id],
    );
    expect((await office.run(notify)).counts).toMatchObject({ sent: 1 });
    expect(office.clock.now().toString()).toMatch(/^2026-11-25/);
  });
});
