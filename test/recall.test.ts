import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { findLink } from '../billing/checkout/find-link.ts';
import { viewBill } from '../billing/checkout/view-bill.ts';
import type { CrashPoint } from '../billing/crash-points.ts';
import { insertLinks } from '../billing/links/queries.ts';
import { linkTokenOf, tokenHashOf } from '../billing/links/token.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { forecastOf, progressOf, recallOfFile } from '../billing/recalls/queries.ts';
import { charge } from '../jobs/charge.ts';
import { dunning } from '../jobs/dunning.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, expectInvariants } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { Killed } from './inbox.ts';

let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database?.drop());
beforeEach(async () => {
  merchants += 1;
  world = await billsOf(database.db, { code: `recall-${merchants}` });
});
afterEach(async () => {
  await expectInvariants(database.db);
  world.close();
});

const rows = <Row extends object>(sql: string, more: unknown[] = []) =>
  database.db.query<Row & Record<string, unknown>>(sql, [world.merchant.id, ...more]);

async function theFile() {
  const [file] = await rows<{ name: string }>(`select name from billing_files where merchant_id = $1`);
  return recallableFile(database.db, world.merchant, file?.name ?? '');
}

async function begin() {
  const file = await theFile();
  return beginRecall(world.ports, {
    merchant: world.merchant,
    file,
    count: file.bills,
    sum: file.amount,
    by: 'operator@test',
  });
}

async function progress() {
  const { id } = await theFile();
  const recall = await recallOfFile(database.db, world.merchant.id, id);
  if (recall === undefined) throw new Error('there is no recall');
  return { state: recall.state, ...(await progressOf(database.db, world.merchant.id, recall)) };
}

/** The customer was told of the bill by SMS, with a link. */
async function told(invoiceIds: readonly (string | undefined)[]): Promise<string[]> {
  const { sealer } = world.ports;
  const tokens: string[] = [];
  for (const invoiceId of invoiceIds) {
    if (invoiceId === undefined) throw new Error('there is no such bill');
    const token = linkTokenOf(sealer, world.merchant, invoiceId, 1, sealer.keyId);
    tokens.push(token);
    await database.db.transaction(async (tx) => {
      await insertLinks(tx, world.merchant.id, [
        {
          invoiceId,
          version: 1,
          keyId: sealer.keyId,
          tokenHash: tokenHashOf(token),
          expiresOn: '2027-02-01',
        },
      ]);
      await tx.run(
        `insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on, carrier, provider_id, claimed_at, decided_at)
         values ($1, $2, 'first_notice', 'sent', 3, 1, '2026-12-01', 'none', 'sms_1', $3, $3)`,
        [world.merchant.id, invoiceId, world.clock.now().toString()],
      );
    });
  }
  return tokens;
}

const finals = () =>
  rows(
    `select i.billing_number as number, i.state, r.outcome, r.reason from invoices i
     left join result_rows r on r.merchant_id = i.merchant_id and r.invoice_id = i.id and r.outcome in ('paid', 'unpaid', 'cancelled')
     where i.merchant_id = $1 order by 1`,
  );
const balances = () =>
  rows<{ account: string; amount: number }>(
    `select account, sum(amount)::bigint as amount from (
       select debit as account, amount from transfers where merchant_id = $1
       union all select credit, -amount from transfers where merchant_id = $1
     ) t group by account having sum(amount) <> 0 order by account`,
  );
const refunds = () =>
  rows<{ state: string; code: string | null }>(
    `select state, code from refunds where merchant_id = $1 order by started_at, id`,
  );
const openAlerts = async () =>
  (
    await rows<{ cause: string }>(`select cause from alerts where merchant_id = $1 and resolved_at is null`)
  ).map(({ cause }) => cause);
const minutes = (count: number) => world.clock.advance(count * 60_000);

describe('a recalled file', () => {
  test('has its untouched bills cancelled, their links dead, their customers told once', async () => {
    const bills = await world.make([
      { number: 'A', collection: 'link' },
      { number: 'B', collection: 'link' },
      { number: 'C' },
    ]);
    const [token = ''] = await told([bills.get('A')]);
    minutes(1);
    await begin();
    expect((await world.run(trace)).counts).toMatchObject({ cancelled: 3, recalls_done: 1 });
    expect(await finals()).toEqual(
      ['A', 'B', 'C'].map((number) => ({
        number,
        state: 'cancelled',
        outcome: 'cancelled',
        reason: 'recalled',
      })),
    );
    expect(await balances()).toEqual([]);
    expect(await rows(`select 1 from agenda where merchant_id = $1`)).toEqual([]);
    expect(
      await rows(`select invoice_id, state from messages where merchant_id = $1 and step = 'recall_notice'`),
    ).toEqual([{ invoice_id: bills.get('A'), state: 'planned' }]);
    const found = await findLink(database.db, token);
    const view = found && (await viewBill(database.db, world.clock.now(), found.link));
    expect(view?.state).toBe('cancelled');
    // Again, nothing happens: not by the job and not by the command.
    await begin();
    expect((await world.run(trace)).counts).not.toHaveProperty('cancelled');
    await world.run(charge);
    await world.run(dunning);
    expect(world.gateway.calls).toEqual([]);
    expect(await progress()).toMatchObject({ state: 'done', cancelled: 3, notices: 1 });
  });

  test('has what was paid given back through the gateway, booked, and told as an adjustment', async () => {
    const bills = await world.make([{ number: 'A' }, { number: 'B' }, { number: 'C', collection: 'link' }]);
    await world.run(charge);
    const [token = ''] = await told([bills.get('A')]);
    minutes(1);
    expect(await forecastOf(database.db, world.merchant.id, (await theFile()).id)).toMatchObject({
      cancelled: 1,
      refunded: 2,
      amount_refunded: 10_000,
      notices: 1,
    });
    await begin();
    expect((await world.run(trace)).counts).toMatchObject({ cancelled: 1, refunded: 2, recalls_done: 1 });
    expect([...world.gateway.refunds.values()].map(({ amount }) => amount)).toEqual([5_000, 5_000]);
    expect(await balances()).toEqual([]);
    expect(await finals()).toEqual([
      { number: 'A', state: 'paid', outcome: 'paid', reason: '' },
      { number: 'B', state: 'paid', outcome: 'paid', reason: '' },
      { number: 'C', state: 'cancelled', outcome: 'cancelled', reason: 'recalled' },
    ]);
    expect(
      await rows(`select kind, amount, sign, collected_on from adjustment_rows where merchant_id = $1`),
    ).toEqual([1, 2].map(() => ({ kind: 'refund', amount: 5_000, sign: '-', collected_on: '2026-12-01' })));
    const found = await findLink(database.db, token);
    expect((found && (await viewBill(database.db, world.clock.now(), found.link)))?.state).toBe('cancelled');
    expect(await progress()).toMatchObject({
      state: 'done',
      refunded: 2,
      amount_refunded: 10_000,
      notices: 1,
    });
  });

  test('needs count and sum typed back as they are', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }]);
    const file = await theFile();
    for (const [count, sum] of [
      [2, 9_999],
      [1, 10_000],
    ] as const) {
      const begun = beginRecall(world.ports, { merchant: world.merchant, file, count, sum, by: 'x' });
      await expect(begun).rejects.toMatchObject({ code: 'RECALL_NOT_CONFIRMED', exitCode: 2 });
    }
    await expect(recallableFile(database.db, world.merchant, 'other.csv')).rejects.toMatchObject({
      code: 'RECALL_NO_FILE',
    });
    expect(await rows(`select 1 from recalls where merchant_id = $1`)).toEqual([]);
  });
});

describe('a refund', () => {
  test.each([
    ['timeout_after', 1],
    ['timeout_before', 2],
    ['rate_limited', 2],
  ] as const)(
    '%s is made once, with %i calls: a lost one is looked for and sent again only where it is proven not to be there',
    async (behaviour, calls) => {
      await world.make([{ number: 'A' }]);
      await world.run(charge);
      world.gateway.refundsDo = [behaviour];
      await begin();
      const first = await world.run(trace);
      if (behaviour !== 'rate_limited') {
        expect(first).toMatchObject({
          outcome: 'attention',
          counts: { refunds_unknown: 1, recalls_open: 1 },
        });
        expect(await progress()).toMatchObject({ state: 'running', refunding: 1, refunds_unknown: 1 });
        await world.run(trace);
        expect(world.gateway.refundCalls).toHaveLength(1);
      }
      for (let pass = 0; pass < 5; pass += 1) {
        minutes(2);
        await world.run(trace);
      }
      expect(world.gateway.refundCalls).toHaveLength(calls);
      expect(world.gateway.refunds.size).toBe(1);
      expect(await progress()).toMatchObject({ state: 'done', refunded: 1, amount_refunded: 5_000 });
      expect(await balances()).toEqual([]);
    },
  );

  test('that the gateway refuses is a person’s, and is tried once more when the file is recalled again', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    world.gateway.refundsDo = ['refused'];
    await begin();
    expect(await world.run(trace)).toMatchObject({ outcome: 'attention', counts: { refunds_refused: 1 } });
    expect(await openAlerts()).toEqual(['REFUND_REFUSED']);
    expect((await world.run(trace)).counts).not.toHaveProperty('refunds_refused');
    expect(await progress()).toMatchObject({ state: 'running', refused: 1, amount_refunded: 0 });
    await begin();
    await world.run(trace);
    expect(await progress()).toMatchObject({ state: 'done', refunded: 1 });
    expect(await refunds()).toMatchObject([{ state: 'failed' }, { state: 'succeeded' }]);
  });

  test('that the gateway makes a second time under one reference is a finding', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    await begin();
    await world.run(trace);
    world.gateway.reportLines = (lines) =>
      lines.flatMap((line) =>
        line.kind === 'refund' ? [line, { ...line, gatewayChargeId: 're_2' }] : [line],
      );
    minutes(24 * 60);
    await world.run(reconcile);
    await world.run(reconcile);
    expect(await rows(`select kind, subject, state from findings where merchant_id = $1`)).toEqual([
      { kind: 'unexpected_kind', subject: 're_2 refund 2026-12-01', state: 'open' },
    ]);
  });

  test('can never be over more than was paid, whoever writes it', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    const more = database.db.run(`update payments set refunded = amount + 1 where merchant_id = $1`, [
      world.merchant.id,
    ]);
    await expect(more).rejects.toThrow('payments_refunded_at_most');
  });

  test('of a gateway that answers nothing calls a person after ten questions, and heals itself', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    await begin();
    world.gateway.down = true;
    for (let pass = 0; pass < 13; pass += 1) {
      await world.run(trace);
      minutes(61);
    }
    expect(await openAlerts()).toContain('REFUND_UNKNOWN');
    world.gateway.down = false;
    await world.run(trace);
    minutes(61);
    await world.run(trace);
    expect(await progress()).toMatchObject({ state: 'done', refunded: 1 });
    expect(await openAlerts()).not.toContain('REFUND_UNKNOWN');
  });
});

describe('a charge under way', () => {
  test.each([
    ['timeout_after', 'refunded', 1],
    ['timeout_before', 'cancelled', 0],
  ] as const)('%s is asked about first, and its bill then %s', async (behaviour, end, given) => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', behaviour);
    await world.run(charge);
    await begin();
    world.gateway.down = true;
    await world.run(trace);
    expect(await progress()).toMatchObject({ state: 'running', waiting: 1 });
    await world.run(charge);
    await world.run(dunning);
    world.gateway.down = false;
    for (let pass = 0; pass < 4; pass += 1) {
      minutes(5);
      await world.run(dunning);
      await world.run(charge);
      await world.run(trace);
    }
    expect(await progress()).toMatchObject({ state: 'done', [end]: 1 });
    // Never a second attempt, whatever became of the first.
    expect(world.gateway.calls).toHaveLength(1);
    expect(world.gateway.refunds.size).toBe(given);
    expect(await balances()).toEqual([]);
  });

  test('that fails leaves a bill that is cancelled and not tried again', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_before', { declines: { networkCode: '51' } });
    await world.run(charge);
    await begin();
    minutes(1);
    await world.run(trace);
    minutes(10);
    await world.run(trace);
    await world.run(dunning);
    await world.run(charge);
    expect(await progress()).toMatchObject({ state: 'done', cancelled: 1 });
    expect(world.gateway.calls).toHaveLength(1);
  });
});

describe('a process that dies', () => {
  const points: CrashPoint[] = [
    'refund.after_intent',
    'refund.after_gateway',
    'refund.after_outcome',
    'refund.before_lookup',
    'refund.after_lookup',
  ];
  test.each(points)('at %s gives nothing back twice, and the next pass carries on', async (point) => {
    await world.make([{ number: 'A' }, { number: 'B' }, { number: 'C', collection: 'link' }]);
    await world.run(charge);
    world.gateway.refundsDo = ['timeout_after'];
    await begin();
    let killing = true;
    world.ports.crash = async (at) => {
      if (!killing || at !== point) return;
      killing = false;
      throw new Killed(point);
    };
    for (let pass = 0; pass < 6; pass += 1) {
      await world.run(trace);
      minutes(3);
    }
    expect(killing).toBe(false);
    expect(await progress()).toMatchObject({
      state: 'done',
      refunded: 2,
      cancelled: 1,
      amount_refunded: 10_000,
    });
    const back = [...world.gateway.refunds.values()].map(({ chargeReference }) => chargeReference);
    expect(new Set(back).size).toBe(2);
    expect(back).toHaveLength(2);
    expect(await balances()).toEqual([]);
  });
});

describe('what the gateway reports', () => {
  test('has the refund as a line of ours, in its report and in its payout', async () => {
    await world.make([{ number: 'A' }, { number: 'B', amount: 7_000 }]);
    await world.run(charge);
    world.clock.advance(86_400_000);
    await begin();
    await world.run(trace);
    world.clock.advance(86_400_000);
    await world.run(reconcile);
    expect(await rows(`select kind from findings where merchant_id = $1`)).toEqual([]);
    expect(
      await rows(`select kind from settlement_lines where merchant_id = $1 order by kind`),
    ).toMatchObject([{ kind: 'charge' }, { kind: 'charge' }, { kind: 'refund' }, { kind: 'refund' }]);
  });

  test('of a refund that is unknown here is a finding, until it is known', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    world.gateway.refundsDo = ['timeout_after'];
    await begin();
    await world.run(trace);
    world.clock.advance(86_400_000);
    await world.run(reconcile);
    expect(await rows(`select kind, state from findings where merchant_id = $1`)).toEqual([
      { kind: 'unexpected_kind', state: 'open' },
    ]);
    await world.run(trace);
    await world.run(reconcile);
    expect(await rows(`select kind, state from findings where merchant_id = $1`)).toEqual([
      { kind: 'unexpected_kind', state: 'settled' },
    ]);
  });
});
