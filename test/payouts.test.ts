import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Payout, PayoutLine } from '../billing/gateways/gateway.ts';
import { ledgerDifferences, trialBalance } from '../billing/ledger/queries.ts';
import { Refusal } from '../billing/refusal.ts';
import { charge } from '../jobs/charge.ts';
import { deliver } from '../jobs/deliver.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, expectInvariants } from './bills.ts';
import { type TestDatabase, testDatabase } from './database.ts';

const day = 86_400_000;
let database: TestDatabase;
let world: Bills;
let merchants = 0;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(async () => {
  world?.close();
  await database?.drop();
});
/** Three bills over 4,000, 5,000 and 6,001, charged on 1 December and reported; it is the 4th. */
beforeEach(async () => {
  world?.close();
  merchants += 1;
  world = await billsOf(database.db, { code: `gas-${merchants}` });
  world.ports.openStore = async () => {
    throw new Refusal('SFTP_UNREACHABLE', 'nobody is there', { next: 'Wait.' });
  };
  await world.make([{ number: 'A', amount: 4_000 }, { number: 'B' }, { number: 'C', amount: 6_001 }]);
  await world.run(charge);
  world.clock.advance(3 * day);
  await world.run(reconcile);
});

const rows = <Row>(sql: string) => database.db.query<Row>(sql, [world.merchant.id]);
const payOut = (change: (paid: { payout: Payout; lines: PayoutLine[] }) => void = () => undefined) => {
  const paid = world.gateway.payOut('po_1', '2026-12-04');
  change(paid);
  return paid;
};
const line = (paid: { lines: PayoutLine[] }, index: number): PayoutLine => {
  const found = paid.lines[index];
  if (found === undefined) throw new Error(`there is no line ${index}`);
  return found;
};
const balances = async () =>
  Object.fromEntries(
    (await trialBalance(database.db, { merchantId: world.merchant.id })).map((row) => [
      row.account,
      row.balance,
    ]),
  );
const states = () => rows(`select payout_id, state from payouts where merchant_id = $1 order by payout_id`);
const findings = () =>
  rows<{ kind: string; subject: string }>(
    `select kind, subject, ours, theirs, owner from findings where merchant_id = $1 and state = 'open' order by kind, subject`,
  );
const alerts = async () =>
  (
    await rows<{ cause: string }>(
      `select cause from alerts where merchant_id = $1 and acknowledged_at is null and cause like '%PA%OUT%' order by cause`,
    )
  ).map(({ cause }) => cause);
const files = async () =>
  (
    await rows<{ name: string; sum: number; content: Buffer }>(
      `select o.name, o.sum, p.content from outward_files o
       join outward_file_parts p on p.merchant_id = o.merchant_id and p.file_id = o.id
       where o.merchant_id = $1 and o.kind = 'settlement' order by o.sequence`,
    )
  ).map(({ content, ...file }) => ({ ...file, content: content.toString('utf8') }));
const settle = (kind: string) =>
  rows(
    `update findings set state = 'settled', settled_by = 'somebody', settled_at = found_at, how = 'the gateway is right'
     where merchant_id = $1 and state = 'open' and kind = '${kind}'`,
  );

describe('a payout that adds up', () => {
  test('is booked with its fees on its value date, told in one file, and taken once', async () => {
    payOut();
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: { payouts_posted: 1 } });
    expect(await balances()).toEqual({
      billed: -15_001,
      receivable: 0,
      gateway_clearing: 0,
      paid_out: 14_466,
      fees: 487,
      fee_tax: 48,
    });
    expect(
      await rows(
        `select event, amount, event_on, posted_on from transfers
         where merchant_id = $1 and event in ('payout', 'fee', 'fee_tax') order by event`,
      ),
    ).toEqual([
      { event: 'fee', amount: 487, event_on: '2026-12-04', posted_on: '2026-12-04' },
      { event: 'fee_tax', amount: 48, event_on: '2026-12-04', posted_on: '2026-12-04' },
      { event: 'payout', amount: 14_466, event_on: '2026-12-04', posted_on: '2026-12-04' },
    ]);
    await world.run(deliver);
    const told = [
      `H,1,${world.merchant.code},settlement,2026-12-04,1`,
      'R,A,card,2026-12-01,4000,130,13,3857,po_1',
      'R,B,card,2026-12-01,5000,162,16,4822,po_1',
      'R,C,card,2026-12-01,6001,195,19,5787,po_1',
      'T,3,14466',
      '',
    ].join('\n');
    const sorted = (text: string | undefined) => text?.split('\n').sort();
    const [file] = await files();
    expect(file?.name).toBe(`settlement_${world.merchant.code}_20261204_0001.csv`);
    expect(sorted(file?.content)).toEqual(sorted(told));
    expect(file?.sum).toBe((await balances()).paid_out);

    expect((await world.run(reconcile)).counts).toEqual({});
    await world.run(deliver);
    expect(await files()).toHaveLength(1);
    expect(await findings()).toEqual([]);
    await expectInvariants(database.db);
    expect(await ledgerDifferences(database.db)).toEqual([]);
  });

  test('the next one has the next number, and takes what came since', async () => {
    payOut();
    await world.run(reconcile);
    await world.run(deliver);
    await world.make([{ number: 'D', amount: 1_000 }]);
    await world.run(charge);
    world.clock.advance(7 * day);
    world.gateway.payOut('po_2', '2026-12-11');
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_posted: 1 });
    await world.run(deliver);
    expect((await files()).map(({ name, sum }) => [name.slice(-8), sum])).toEqual([
      ['0001.csv', 14_466],
      ['0002.csv', 965],
    ]);
  });

  test('waits for the report of its day, and calls nobody for a week', async () => {
    await world.make([{ number: 'D' }]);
    world.gateway.reportsReady = false;
    await world.run(charge);
    world.gateway.payOut('po_1', '2026-12-04');
    expect(await world.run(reconcile)).toMatchObject({ counts: { payouts_waiting: 1 } });
    expect(await alerts()).toEqual([]);
    expect((await balances()).paid_out).toBeUndefined();
    world.clock.advance(8 * day);
    await world.run(reconcile);
    expect(await alerts()).toEqual(['PAYOUT_WAITS po_1']);
    world.gateway.reportsReady = true;
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_posted: 1 });
  });

  test('killed after the download: the next run takes it, once', async () => {
    payOut();
    world.ports.crash = async (point) => {
      if (point === 'reconcile.after_payout_download') throw new Error('killed');
    };
    expect((await world.run(reconcile)).outcome).toBe('failed');
    expect(await states()).toEqual([]);
    world.ports.crash = async () => undefined;
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_posted: 1 });
  });

  test('cut off in the middle, or no list at all: nothing is left behind, and the next run asks again', async () => {
    payOut();
    const whole = world.gateway.payoutLines;
    world.gateway.payoutLines = async (account, id, signal) => {
      const lines = await whole(account, id, signal);
      return (async function* () {
        for await (const each of lines) {
          yield each;
          throw new Error('cut off');
        }
      })();
    };
    expect((await world.run(reconcile)).counts).toEqual({ payouts_unavailable: 1 });
    world.gateway.payoutLines = whole;
    const { paidOut } = world.gateway;
    world.gateway.paidOut = null;
    expect((await world.run(reconcile)).counts).toEqual({ payouts_unavailable: 1 });
    expect(await states()).toEqual([]);
    world.gateway.paidOut = paidOut;
    expect((await world.run(reconcile)).counts).toEqual({ payouts_posted: 1 });
  });
});

describe('a payout that differs calls a person', () => {
  test('until it is booked or withdrawn, whatever trace sees meanwhile', async () => {
    const paid = payOut(({ payout }) => {
      payout.net -= 1;
    });
    await world.run(reconcile);
    const open = () =>
      rows(
        `select cause from alerts where merchant_id = $1 and resolved_at is null and cause like 'PAYOUT%'`,
      );
    await world.run(trace);
    expect(await open()).toEqual([{ cause: 'PAYOUT_WITHHELD po_1' }]);
    paid.payout.net += 1;
    await world.run(reconcile);
    expect(await open()).toEqual([]);
    // What is booked is told otherwise, and then as it was.
    paid.payout.net -= 1;
    await world.run(reconcile);
    await world.run(trace);
    expect(await open()).toEqual([{ cause: 'PAYOUT_CHANGED po_1' }]);
    paid.payout.net += 1;
    await world.run(reconcile);
    await world.run(trace);
    expect(await open()).toEqual([]);
  });

  test('and the money that it holds back counts as not paid out', async () => {
    payOut(({ payout }) => {
      payout.net -= 1;
    });
    world.clock.advance(50 * day);
    await world.run(reconcile);
    expect((await findings()).filter(({ kind }) => kind === 'not_paid_out')).toHaveLength(3);
  });
});

describe('a payout that differs is withheld', () => {
  const cases: readonly [
    string,
    (paid: { payout: Payout; lines: PayoutLine[] }) => void,
    readonly Record<string, unknown>[],
  ][] = [
    [
      'its net is not the sum',
      ({ payout }) => {
        payout.net -= 1;
      },
      [{ kind: 'payout_differs', subject: 'po_1', ours: 14_466, theirs: 14_465, owner: 'gateway' }],
    ],
    [
      'a line is missing from it',
      (paid) => {
        paid.lines.pop();
      },
      [{ kind: 'payout_differs', subject: 'po_1', ours: 8_679, theirs: 14_466, owner: 'gateway' }],
    ],
    [
      'an amount is another',
      (paid) => {
        line(paid, 0).amount -= 100;
        paid.payout.gross -= 100;
        paid.payout.net -= 100;
      },
      [{ kind: 'amount_differs', subject: 'po_1/ch_1', owner: 'gateway' }],
    ],
    [
      'a fee is not the reported one',
      (paid) => {
        line(paid, 1).fee += 7;
        paid.payout.fee += 7;
        paid.payout.net -= 7;
      },
      [{ kind: 'fee_differs', subject: 'po_1/ch_2', owner: 'gateway' }],
    ],
    [
      'a charge is not ours',
      (paid) => {
        paid.lines.push({
          ...line(paid, 0),
          gatewayChargeId: 'ch_x',
          reference: null,
          fee: 0,
          feeTax: 0,
          amount: 50,
        });
        paid.payout.gross += 50;
        paid.payout.net += 50;
      },
      [{ kind: 'missing_here', subject: 'po_1/ch_x', ours: null, theirs: 50, owner: 'operator' }],
    ],
    [
      'money for a bill that came twice',
      (paid) => {
        paid.lines.push({ ...line(paid, 0), gatewayChargeId: 'ch_twice', fee: 0, feeTax: 0, amount: 50 });
        paid.payout.gross += 50;
        paid.payout.net += 50;
      },
      [{ kind: 'captured_twice', subject: 'po_1/ch_twice', ours: null, theirs: 50, owner: 'operator' }],
    ],
    [
      'one line twice',
      (paid) => {
        paid.lines.push({ ...line(paid, 0), fee: 0, feeTax: 0, amount: 50 });
        paid.payout.gross += 50;
        paid.payout.net += 50;
      },
      [{ kind: 'payout_differs', subject: 'po_1/ch_1', ours: null, theirs: 50, owner: 'gateway' }],
    ],
    [
      'a refund that nobody here made',
      (paid) => {
        paid.lines.push({ ...line(paid, 0), kind: 'refund', fee: 0, feeTax: 0, amount: 50 });
        paid.payout.gross -= 50;
        paid.payout.net -= 50;
      },
      [{ kind: 'unexpected_kind', subject: 'po_1/ch_1', ours: null, theirs: 50, owner: 'operator' }],
    ],
    [
      'another currency',
      (paid) => {
        line(paid, 2).currency = 'USD';
      },
      [{ kind: 'currency_differs', subject: 'po_1/ch_3', ours: null, owner: 'gateway' }],
    ],
  ];

  test.each(cases)('%s', async (_what, change, expected) => {
    const given = structuredClone(payOut(change));
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'attention',
      counts: { payouts_withheld: 1 },
    });
    expect(await findings()).toMatchObject(expected);
    expect(await alerts()).toEqual(['PAYOUT_WITHHELD po_1']);
    expect((await balances()).paid_out).toBeUndefined();
    await world.run(deliver);
    expect(await files()).toEqual([]);
    // Again: the same, and no second alert.
    const before = await rows(`select * from findings where merchant_id = $1`);
    const counted = () =>
      rows(`select occurrences from alerts where merchant_id = $1 and cause like 'PAYOUT%'`);
    const occurrences = await counted();
    await world.run(reconcile);
    expect(await rows(`select * from findings where merchant_id = $1`)).toEqual(before);
    expect(await counted()).toEqual(occurrences);
    expect(given.payout.id).toBe('po_1');

    // The gateway mends it: what it says then adds up, and nothing is left open.
    world.gateway.paidOut = [];
    payOut();
    expect((await world.run(reconcile)).counts).toEqual({ payouts_posted: 1 });
    expect(await findings()).toEqual([]);
    await world.run(deliver);
    expect((await files()).map(({ sum }) => sum)).toEqual([14_466]);
  });

  test('an amount that a person has settled goes out as the gateway paid it, and the rest stays at the gateway', async () => {
    payOut((paid) => {
      line(paid, 0).amount -= 100;
      paid.payout.gross -= 100;
      paid.payout.net -= 100;
    });
    await world.run(reconcile);
    await settle('amount_differs');
    expect((await world.run(reconcile)).counts).toEqual({ payouts_posted: 1 });
    expect((await balances()).gateway_clearing).toBe(100);
    expect(await ledgerDifferences(database.db)).toEqual([]);
    await world.run(deliver);
    expect((await files())[0]?.content).toContain(',3757,po_1');
  });

  test('money without a bill is not made right by settling its finding', async () => {
    payOut((paid) => {
      paid.lines.push({
        ...line(paid, 0),
        gatewayChargeId: 'ch_x',
        reference: null,
        fee: 0,
        feeTax: 0,
        amount: 50,
      });
      paid.payout.gross += 50;
      paid.payout.net += 50;
    });
    await world.run(reconcile);
    await settle('missing_here');
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_withheld: 1 });
    expect(await findings()).toHaveLength(1);
  });

  test('a withheld payout that the gateway takes back is withdrawn, and its charges may come in another', async () => {
    payOut(({ payout }) => {
      payout.net -= 1;
    });
    await world.run(reconcile);
    world.gateway.paidOut = [];
    world.gateway.payOut('po_2', '2026-12-04');
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_withdrawn: 1 });
    // It had still been held by the first one when it was looked at.
    await world.run(reconcile);
    expect(await states()).toEqual([
      { payout_id: 'po_1', state: 'withdrawn' },
      { payout_id: 'po_2', state: 'posted' },
    ]);
    expect(await findings()).toEqual([]);
    world.gateway.paidOut = [];
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_changed: 1 });
  });
});

test('what is posted stays: the gateway changing its mind calls a person, once', async () => {
  const paid = payOut();
  await world.run(reconcile);
  const before = await balances();
  paid.payout.net -= 1;
  for (let again = 0; again < 2; again += 1) {
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'attention',
      counts: { payouts_changed: 1 },
    });
  }
  expect(await balances()).toEqual(before);
  expect(await findings()).toMatchObject([{ kind: 'payout_differs', ours: 14_466, theirs: 14_465 }]);
  expect(await alerts()).toEqual(['PAYOUT_CHANGED po_1']);
  await settle('payout_differs');
  expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: {} });
});

describe('payments that no payout takes', () => {
  test('are found after 45 days, and are over when one does', async () => {
    world.clock.set('2027-01-14T01:00:00Z');
    expect((await world.run(reconcile)).counts.not_paid_out).toBeUndefined();
    world.clock.advance(day);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'attention', counts: { not_paid_out: 3 } });
    expect((await findings()).map(({ kind, subject }) => [kind, subject])).toEqual([
      ['not_paid_out', 'ch_1'],
      ['not_paid_out', 'ch_2'],
      ['not_paid_out', 'ch_3'],
    ]);
    expect(await alerts()).toEqual(['NOT_PAID_OUT']);
    expect((await world.run(reconcile)).counts.not_paid_out).toBeUndefined();
    world.gateway.payOut('po_1', '2027-01-15');
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_posted: 1 });
    expect(await findings()).toEqual([]);
  });

  test('are not looked for where the gateway shows no payouts', async () => {
    world.gateway.paidOut = null;
    // Two chunks of reports, each of which asks.
    world.clock.advance(60 * day);
    expect((await world.run(reconcile)).counts).toMatchObject({ payouts_unavailable: 2 });
    expect(await findings()).toEqual([]);
  });
});
