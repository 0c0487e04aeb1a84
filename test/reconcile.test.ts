import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { checkInvariants } from '../billing/checks/queries.ts';
import type { SettlementLine } from '../billing/gateways/gateway.ts';
import { settleFindingByHand } from '../billing/reconciliation/settle.ts';
import { charge } from '../jobs/charge.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, type BillToMake, billsOf, moneyState } from './bills.ts';
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
beforeEach(async () => {
  world?.close();
  merchants += 1;
  world = await billsOf(database.db, { code: `gas-${merchants}` });
});

const rows = <Row>(sql: string) => database.db.query<Row>(sql, [world.merchant.id]);
const watermark = async () =>
  (await rows<{ complete_to: string }>(`select complete_to from watermarks where merchant_id = $1`))[0]
    ?.complete_to;
const lines = async () =>
  (
    await rows<{ gateway_charge_id: string }>(
      `select gateway_charge_id from settlement_lines where merchant_id = $1 order by report_date, line_no`,
    )
  ).map((row) => row.gateway_charge_id);
/** `kind subject ours theirs`, and of the settled ones how. */
const findings = async () =>
  (
    await rows<{ told: string }>(
      `select kind || ' ' || subject || ' ' || coalesce(ours::text, '-') || ' ' || coalesce(theirs::text, '-')
                || coalesce(': ' || how, '') as told
       from findings where merchant_id = $1 order by found_at, kind, subject`,
    )
  ).map((row) => row.told);
const openIds = async () =>
  (
    await rows<{ id: string }>(
      `select id from findings where merchant_id = $1 and state = 'open' order by kind, subject`,
    )
  ).map((row) => row.id);
const settle = (id: string | undefined, how = 'cleared up by telephone') =>
  settleFindingByHand(world.ports, id ?? '', how, 'operator@test');
const ninth = async () =>
  (await checkInvariants(database.db)).invariants
    .find((invariant) => invariant.id === 9)
    ?.examples.filter((example) => example.merchant === world.merchant.code);
/** What the gateway's reports say instead of the truth, day by day. */
const reports = (told: Record<string, (lines: SettlementLine[]) => SettlementLine[]>) => {
  world.gateway.reportLines = (truth, date) => told[date]?.(truth) ?? truth;
};
const alerts = async () =>
  (
    await rows<{ cause: string }>(
      `select cause from alerts where merchant_id = $1 and level = 'now' and acknowledged_at is null order by cause`,
    )
  ).map((row) => row.cause);

describe('the reconcile job', () => {
  test('stores yesterday, matches line by line, moves the watermark; again it changes nothing', async () => {
    await world.make([{ number: 'A', amount: 4_000 }, { number: 'B' }]);
    await world.run(charge);
    world.clock.advance(day);
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'done',
      counts: { stored: 1, lines: 2, matched: 2 },
    });
    expect(await watermark()).toBe('2026-12-01');
    expect(
      await rows(`select report_date, lines, amount, fee from settlement_reports where merchant_id = $1`),
    ).toEqual([{ report_date: '2026-12-01', lines: 2, amount: 9_000, fee: 292 }]);
    const before = await moneyState(database.db, world.merchant.id);
    expect((await world.run(reconcile)).counts).toEqual({});
    expect(await findings()).toEqual([]);
    expect(await lines()).toEqual(['ch_1', 'ch_2']);
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
  });

  test('empty reports are reports; missing days are caught up', async () => {
    world.clock.advance(5 * day);
    expect((await world.run(reconcile)).counts).toMatchObject({ stored: 5, lines: 0 });
    expect(await watermark()).toBe('2026-12-05');
  });

  test('a report that is not ready waits, and is an alert after two days', async () => {
    world.gateway.reportsReady = false;
    world.clock.advance(day);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: { not_ready: 1 } });
    expect(await watermark()).toBe('2026-11-30');
    world.clock.advance(2 * day);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'attention', counts: { report_late: 1 } });
    expect(await alerts()).toEqual(['SETTLEMENT_REPORT_LATE 2026-12-01']);
  });

  test('a report cut off in the middle leaves nothing behind', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    world.clock.advance(day);
    const whole = world.gateway.settlementReport;
    world.gateway.settlementReport = async (account, date, signal) => {
      const lines = await whole(account, date, signal);
      if (lines === null) return null;
      return (async function* () {
        yield* lines;
        throw new Error('cut off before its end');
      })();
    };
    expect((await world.run(reconcile)).counts).toEqual({ unavailable: 1 });
    expect(await lines()).toEqual([]);
    world.gateway.settlementReport = whole;
    expect((await world.run(reconcile)).counts).toMatchObject({ matched: 1 });
  });

  test('money that only the report knows is learned from it, and the bill is paid', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_after');
    await world.run(charge);
    // As if trace had been told "not found" by a gateway that had forgotten for a while.
    await rows(`update charges set state = 'canceled' where merchant_id = $1`);
    await rows(`delete from collection_locks where merchant_id = $1`);
    world.clock.advance(day);
    expect((await world.run(reconcile)).counts).toMatchObject({ not_booked: 1, learned_from_report: 1 });
    expect(await world.stateOf('A')).toBe('paid');
    expect(await findings()).toEqual([
      'not_booked ch_1 5000 5000: the charge has succeeded here, and is booked',
    ]);
    expect(await alerts()).toEqual([]);
    expect(await watermark()).toBe('2026-12-01');
  });

  test('wrong amounts, captures that are unknown here, captures twice and payments that are not there: a person is called and the watermark waits', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }, { number: 'C' }, { number: 'D' }]);
    await world.run(charge);
    world.gateway.reportLines = (lines, date) => {
      const [a, b, c] = lines;
      if (date !== '2026-12-01' || !a || !b || !c) return lines;
      return [
        { ...a, amount: a.amount + 1 },
        b,
        c,
        { ...c, gatewayChargeId: 'ch_twice' },
        { ...b, gatewayChargeId: 'ch_foreign', reference: null },
      ];
    };
    world.clock.advance(day);
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'attention',
      counts: {
        lines: 5,
        matched: 2,
        amount_differs: 1,
        captured_twice: 1,
        missing_here: 1,
        missing_there: 1,
      },
    });
    expect(await findings()).toEqual([
      'amount_differs ch_1 5000 5001',
      'captured_twice ch_twice 5000 5000',
      'missing_here ch_foreign - 5000',
      'missing_there ch_4 5000 -',
    ]);
    expect(await alerts()).toEqual(['SETTLEMENT_DIFFERS 2026-12-01']);
    expect(await watermark()).toBe('2026-11-30');
    expect(await ninth()).toEqual([]);

    world.clock.advance(day);
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-11-30');
    // That a person has seen the alert releases nothing, and it is not raised again for the same.
    await database.db.run(`update alerts set acknowledged_at = last_at where merchant_id = $1`, [
      world.merchant.id,
    ]);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'attention', counts: { open_findings: 4 } });
    expect(await watermark()).toBe('2026-11-30');
    expect(await alerts()).toEqual([]);
    // That each is settled does.
    for (const id of await openIds()) await settle(id);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: {} });
    expect(await watermark()).toBe('2026-12-02');
    expect(await ninth()).toEqual([]);
  });

  test('the watermark waits for a charge whose outcome is open, and goes on when trace has proof', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }]);
    world.gateway.behave('tok_A', 'timeout_before');
    await world.run(charge);
    world.clock.advance(2 * day);
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-11-30');
    await world.run(trace);
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-12-02');
  });

  test('an outcome that stays open for days keeps its own bill waiting, and no longer the others', async () => {
    await world.make([{ number: 'A' }, { number: 'B' }]);
    world.gateway.behave('tok_A', 'another_amount');
    world.gateway.behave('tok_B', { declines: { gatewayCode: 'insufficient_funds', networkCode: '51' } });
    await world.run(charge);
    const seen: (string | undefined)[] = [];
    for (let passed = 1; passed <= 4; passed += 1) {
      world.clock.advance(day);
      await world.run(trace);
      await world.run(reconcile);
      // A person has cleared up the report's difference; the gateway still says what it says.
      for (const id of await openIds()) await settle(id);
      await world.run(reconcile);
      seen.push(await watermark());
    }
    expect(seen).toEqual(['2026-11-30', '2026-11-30', '2026-11-30', '2026-12-04']);
    expect(await rows(`select invoice_id from collection_locks where merchant_id = $1`)).toHaveLength(1);
    expect(await world.stateOf('A')).toBe('open');
  });

  test('killed after the download: the next run does it again, once', async () => {
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    world.clock.advance(day);
    world.ports.crash = async (point) => {
      if (point === 'reconcile.after_download') throw new Error('killed');
    };
    expect((await world.run(reconcile)).outcome).toBe('failed');
    world.ports.crash = async () => undefined;
    expect((await world.run(reconcile)).counts).toMatchObject({ stored: 1, matched: 1 });
    expect(await lines()).toEqual(['ch_1']);
  });
});

/** Bills that are charged now; then a day passes. */
async function chargedYesterday(...bills: (BillToMake | string)[]): Promise<void> {
  await world.make(bills.map((bill) => (typeof bill === 'string' ? { number: bill } : bill)));
  await world.run(charge);
  world.clock.advance(day);
}

describe('what differs', () => {
  type Told = (lines: SettlementLine[]) => SettlementLine[];
  const first =
    (change: Partial<SettlementLine>): Told =>
    ([line, ...rest]) =>
      line ? [{ ...line, ...change }, ...rest] : [];
  const besides =
    (change: Partial<SettlementLine>): Told =>
    (told) => [...told, ...told.slice(0, 1).map((line) => ({ ...line, ...change }))];

  const cases: [string, Told, string[]][] = [
    ['another amount', first({ amount: 4_999 }), ['amount_differs ch_1 5000 4999']],
    ['another currency', first({ currency: 'USD' }), ['currency_differs ch_1 5000 5000']],
    ['amount and currency', first({ amount: 1, currency: 'USD' }), ['amount_differs ch_1 5000 1']],
    ['a second capture', besides({ gatewayChargeId: 'ch_0' }), ['captured_twice ch_0 5000 5000']],
    ['one line twice', besides({}), ['captured_twice ch_1 5000 5000']],
    [
      'a charge without a reference',
      besides({ gatewayChargeId: 'ch_x', reference: null }),
      ['missing_here ch_x - 5000'],
    ],
    [
      'a reference that is none of ours',
      besides({ gatewayChargeId: 'ch_x', reference: 'order 4711\t\\' }),
      ['missing_here ch_x - 5000'],
    ],
    [
      'a reference that could be ours',
      besides({ gatewayChargeId: 'ch_x', reference: '01KBXQ3M4T8Z6J1V5R9W2Y7HNA' }),
      ['missing_here ch_x - 5000'],
    ],
    [
      'a refund',
      besides({ kind: 'refund', amount: 500, gatewayChargeId: 're_1' }),
      ['unexpected_kind re_1 refund 2026-12-01 - 500'],
    ],
    [
      'refunds in parts, and a chargeback',
      (told) =>
        besides({ kind: 'chargeback' })(
          besides({ kind: 'refund', amount: 300 })(besides({ kind: 'refund', amount: 200 })(told)),
        ),
      ['unexpected_kind ch_1 chargeback 2026-12-01 - 5000', 'unexpected_kind ch_1 refund 2026-12-01 - 500'],
    ],
    ['a line that is missing', (told) => told.slice(1), ['missing_there ch_1 5000 -']],
    ['all lines missing', () => [], ['missing_there ch_1 5000 -', 'missing_there ch_2 5000 -']],
    ['a fee, where none was agreed on', first({ fee: 0, feeTax: 0 }), []],
  ];

  test.each(cases)('%s', async (_what, told, expected) => {
    await chargedYesterday('A', 'B');
    reports({ '2026-12-01': told });
    const before = await moneyState(database.db, world.merchant.id);
    expect((await world.run(reconcile)).outcome).toBe(expected.length > 0 ? 'attention' : 'done');
    expect(await findings()).toEqual(expected);
    expect(await watermark()).toBe(expected.length > 0 ? '2026-11-30' : '2026-12-01');
    expect(await ninth()).toEqual([]);
    // A finding books nothing, and is found once.
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
    await world.run(reconcile);
    world.clock.advance(day);
    await world.run(reconcile);
    expect(await findings()).toEqual(expected);
    // The gateway corrects its report: all of them settle themselves, and the alert is closed.
    world.gateway.reportLines = null;
    expect((await world.run(reconcile)).outcome).toBe('done');
    expect(await openIds()).toEqual([]);
    expect(await alerts()).toEqual([]);
    expect(await watermark()).toBe('2026-12-02');
  });

  test('a difference that nobody was told of is a violation', async () => {
    await chargedYesterday('A', 'B');
    reports({ '2026-12-01': (told) => told.slice(1).map((line) => ({ ...line, amount: 1 })) });
    await world.run(reconcile);
    expect(await ninth()).toEqual([]);
    await rows(`delete from findings where merchant_id = $1`);
    await rows(`update watermarks set complete_to = '2026-12-02' where merchant_id = $1`);
    expect((await ninth())?.map((example) => example.detail)).toEqual([
      expect.stringContaining('in no settlement report'),
      'charge of 1 JPY in the report of 2026-12-01: our charge is succeeded',
    ]);
  });

  test('a report whose lines are not those it says is a violation', async () => {
    await chargedYesterday('A', 'B');
    await world.run(reconcile);
    await rows(`delete from settlement_lines where merchant_id = $1 and line_no = 2`);
    expect((await ninth())?.map((example) => example.detail)).toContain('says 2 lines, holds 1');
  });
});

describe('the agreed fee', () => {
  const withFee = async (fee: string) => {
    world.close();
    merchants += 1;
    world = await billsOf(database.db, { code: `gas-${merchants}`, settings: `gateway: { fee: ${fee} }\n` });
  };

  test('is compared where it is known; a wrong one keeps neither bills nor dunning waiting', async () => {
    // 3.25 % of 5,000 is 162.5, and a tenth of it is tax.
    await withFee('{ rate_percent: 3.25, tax_percent: 10 }');
    await chargedYesterday('A', 'B');
    reports({ '2026-12-01': ([a, ...rest]) => (a ? [{ ...a, fee: a.fee + 1 }, ...rest] : []) });
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'attention',
      counts: { matched: 2, fee_differs: 1 },
    });
    expect(await findings()).toEqual(['fee_differs ch_1 178 179']);
    expect(await watermark()).toBe('2026-12-01');
    expect(await alerts()).toEqual([]);
    expect(await rows(`select cause, level from alerts where merchant_id = $1`)).toEqual([
      { cause: 'SETTLEMENT_FEE_DIFFERS 2026-12-01', level: 'daily' },
    ]);
    world.gateway.reportLines = null;
    await world.run(reconcile);
    expect(await findings()).toEqual(['fee_differs ch_1 178 179: report and settings agree by now']);
  });

  test('with tax and tolerance', async () => {
    // The gateway takes 162 and 16 of tax; agreed on was no tax.
    await withFee('{ rate_percent: 3.25, tax_percent: 0, tolerance_yen: 16 }');
    await chargedYesterday('A');
    await world.run(reconcile);
    expect(await findings()).toEqual([]);
    await withFee('{ rate_percent: 3.25, tax_percent: 0, tolerance_yen: 15 }');
    await chargedYesterday('A');
    await world.run(reconcile);
    expect(await findings()).toEqual(['fee_differs ch_1 162 178']);
  });
});

describe('days that overlap', () => {
  test('a charge near midnight stands in the next day’s report: nothing is missing', async () => {
    world.clock.advance(day - 10 * 3_600_000 - 30_000);
    expect(world.clock.now().toString()).toBe('2026-12-01T14:59:30Z');
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    reports({ '2026-12-01': () => [], '2026-12-02': () => lineOf(0) });
    world.clock.advance(6 * 3_600_000);
    expect((await world.run(reconcile)).outcome).toBe('done');
    world.clock.advance(day);
    expect((await world.run(reconcile)).outcome).toBe('done');
    expect(await findings()).toEqual([]);
    expect(await watermark()).toBe('2026-12-02');
    expect(await lines()).toEqual(['ch_1']);
    expect(await ninth()).toEqual([]);
  });

  test('a charge near midnight that stands in neither is missing', async () => {
    world.clock.advance(day - 10 * 3_600_000 - 30_000);
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    reports({ '2026-12-01': () => [] });
    world.clock.advance(6 * 3_600_000);
    await world.run(reconcile);
    expect(await findings()).toEqual([]);
    world.clock.advance(day);
    world.gateway.reportsReady = false;
    await world.run(reconcile);
    expect(await findings()).toEqual([]);
    // Known with the report of the next day, whichever run reads it.
    world.gateway.reportsReady = true;
    await world.run(reconcile);
    expect(await findings()).toEqual(['missing_there ch_1 5000 -']);
  });

  const lineOf = (index: number): SettlementLine[] =>
    world.gateway.captured.slice(index, index + 1).map((truth) => ({
      gatewayChargeId: truth.gatewayChargeId,
      reference: truth.reference,
      kind: 'charge',
      amount: truth.amount,
      currency: truth.currency,
      fee: 0,
      feeTax: 0,
      capturedAt: truth.capturedAt,
    }));

  test('a charge of this morning that the gateway counts to yesterday is matched', async () => {
    // A gateway whose day is UTC: eight in the morning here is yesterday there.
    world.clock.advance(22 * 3_600_000);
    await world.make([{ number: 'A' }]);
    await world.run(charge);
    reports({ '2026-12-01': () => lineOf(0), '2026-12-02': () => [] });
    world.clock.advance(3_600_000);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: { matched: 1 } });
    // Also when only the day of the payment is compared, and its line stands before that.
    for (let passed = 1; passed <= 2; passed += 1) {
      world.clock.advance(day);
      expect((await world.run(reconcile)).outcome).toBe('done');
    }
    expect(await findings()).toEqual([]);
    expect(await watermark()).toBe('2026-12-03');
  });

  test('a line that comes late: found missing, settled by the report itself, the alert closed', async () => {
    await chargedYesterday('A', 'B');
    reports({ '2026-12-01': (told) => told.slice(1) });
    expect(await world.run(reconcile)).toMatchObject({ counts: { stored: 1, missing_there: 1 } });
    expect(await alerts()).toEqual(['SETTLEMENT_DIFFERS 2026-12-01']);
    world.gateway.reportLines = null;
    expect(await world.run(reconcile)).toMatchObject({
      outcome: 'done',
      counts: { replaced: 1, lines: 2, matched: 2, settled: 1 },
    });
    expect(await findings()).toEqual(['missing_there ch_1 5000 -: the report of 2026-12-01 has it']);
    expect(
      await rows(
        `select h.from_state, h.to_state, a.kind from state_history h
         join acts a on a.merchant_id = h.merchant_id and a.month = h.month and a.id = h.act_id
         where h.merchant_id = $1 and h.subject = 'finding'`,
      ),
    ).toEqual([{ from_state: 'open', to_state: 'settled', kind: 'job' }]);
    expect(await alerts()).toEqual([]);
    expect(await watermark()).toBe('2026-12-01');
  });

  test('a line under the next day: missing until then, and found there', async () => {
    await chargedYesterday('A', 'B');
    reports({ '2026-12-01': (told) => told.slice(1), '2026-12-02': () => lineOf(0) });
    await world.run(reconcile);
    world.clock.advance(day);
    expect((await world.run(reconcile)).outcome).toBe('done');
    expect(await findings()).toEqual(['missing_there ch_1 5000 -: the report of 2026-12-02 has it']);
    expect(await watermark()).toBe('2026-12-02');
  });

  test('a line that moves to another day’s report leaves nothing open', async () => {
    await chargedYesterday('A', 'B');
    await world.run(reconcile);
    reports({ '2026-12-01': (told) => told.slice(1), '2026-12-02': () => lineOf(0) });
    world.clock.advance(day);
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'done', counts: { stored: 1, replaced: 1 } });
    expect(await openIds()).toEqual([]);
    expect(await alerts()).toEqual([]);
    expect(await lines()).toEqual(['ch_2', 'ch_1']);
  });

  test('a charge that is captured again days later', async () => {
    await chargedYesterday('A', 'B');
    await world.run(reconcile);
    world.clock.advance(20 * day);
    reports({ '2026-12-21': () => lineOf(0).map((line) => ({ ...line, gatewayChargeId: 'ch_again' })) });
    expect(await world.run(reconcile)).toMatchObject({ outcome: 'attention', counts: { captured_twice: 1 } });
    expect(await findings()).toEqual(['captured_twice ch_again 5000 5000']);
    expect(await watermark()).toBe('2026-12-20');
    world.gateway.reportLines = null;
    await world.run(reconcile);
    expect(await findings()).toEqual(['captured_twice ch_again 5000 5000: the reports have it once']);
  });

  test('lines that vanish or change afterwards are found, and what they were found as is settled', async () => {
    await chargedYesterday('A', 'B');
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-12-01');
    world.clock.advance(2 * day);
    reports({ '2026-12-01': (told) => told.slice(1).map((line) => ({ ...line, amount: 4_000 })) });
    expect(await world.run(reconcile)).toMatchObject({
      counts: { replaced: 1, missing_there: 1, amount_differs: 1 },
    });
    // The watermark does not go back, and not on.
    expect(await watermark()).toBe('2026-12-01');
    reports({
      '2026-12-01': (told) => told.map((line, at) => (at === 1 ? { ...line, amount: 3_000 } : line)),
    });
    await world.run(reconcile);
    expect(await findings()).toEqual([
      'amount_differs ch_2 5000 4000: the report does not say so any more',
      'amount_differs ch_2 5000 3000',
      'missing_there ch_1 5000 -: the report of 2026-12-01 has it',
    ]);
    world.gateway.reportLines = null;
    await world.run(reconcile);
    expect(await openIds()).toEqual([]);
    expect(await watermark()).toBe('2026-12-03');
  });

  test('a report that has not changed is not written again; one that cannot be read again stays', async () => {
    await chargedYesterday('A', 'B');
    await world.run(reconcile);
    const stored = () => rows(`select * from settlement_reports where merchant_id = $1`);
    const places = () => rows(`select ctid::text, * from settlement_lines where merchant_id = $1`);
    const before = [await stored(), await places()];
    world.clock.advance(3_600_000);
    expect((await world.run(reconcile)).counts).toEqual({});
    world.gateway.reportsReady = false;
    expect((await world.run(reconcile)).counts).toEqual({});
    world.gateway.settlementReport = async () => {
      throw new Error('gateway down');
    };
    expect((await world.run(reconcile)).counts).toEqual({});
    expect([await stored(), await places()]).toEqual(before);
  });

  test('after three days a report is read again only where something is in dispute', async () => {
    await chargedYesterday('A', 'B');
    const asked: string[] = [];
    reports({ '2026-12-01': (told) => told.slice(1) });
    await world.run(reconcile);
    world.clock.advance(7 * day);
    const before = world.gateway.reportLines;
    world.gateway.reportLines = (truth, date) => {
      asked.push(date);
      return before?.(truth, date) ?? truth;
    };
    await world.run(reconcile);
    asked.length = 0;
    await world.run(reconcile);
    expect(asked).toEqual(['2026-12-01', '2026-12-05', '2026-12-06', '2026-12-07', '2026-12-08']);
    world.gateway.reportLines = (truth, date) => {
      asked.push(date);
      return truth;
    };
    await world.run(reconcile);
    expect(await openIds()).toEqual([]);
    asked.length = 0;
    await world.run(reconcile);
    expect(asked).toEqual(['2026-12-05', '2026-12-06', '2026-12-07', '2026-12-08']);
  });

  test('a payment that is learned after its report was stored is looked for too', async () => {
    await world.make([{ number: 'A' }]);
    world.gateway.behave('tok_A', 'timeout_after');
    await world.run(charge);
    world.clock.advance(day);
    reports({ '2026-12-01': () => [] });
    await world.run(reconcile);
    world.clock.advance(4 * day);
    await world.run(reconcile);
    expect(await findings()).toEqual([]);
    await world.run(trace);
    expect(await world.stateOf('A')).toBe('paid');
    world.clock.advance(day);
    await world.run(reconcile);
    expect(await findings()).toEqual(['missing_there ch_1 5000 -']);
  });
});

describe('settled by hand', () => {
  const foreign = () => {
    reports({
      '2026-12-01': (told) => [
        ...told,
        ...told.slice(0, 1).map((line) => ({ ...line, gatewayChargeId: 'ch_foreign', reference: null })),
      ],
    });
  };

  test('once, with a reason, by an act; the second time changes nothing', async () => {
    await chargedYesterday('A');
    foreign();
    await world.run(reconcile);
    const [id] = await openIds();
    for (const how of ['', '  ', 'two\nlines', 'x'.repeat(501)])
      await expect(settle(id, how)).rejects.toMatchObject({ code: 'FINDING_HOW', exitCode: 2 });
    expect(await openIds()).toEqual([id]);
    expect((await settle(id, ' refunded, ticket 4711 ')).settledNow).toBe(true);
    expect(await alerts()).toEqual([]);
    const acts = () => rows(`select actor, at from acts where merchant_id = $1 and kind = 'command'`);
    const before = await acts();
    expect(before).toContainEqual({ actor: 'operator@test', at: '2026-12-02T01:00:00Z' });
    world.clock.advance(3_600_000);
    const again = await settle(id, 'another reason');
    expect(again).toMatchObject({
      settledNow: false,
      finding: { how: 'refunded, ticket 4711', settled_by: 'operator@test', by_hand: true },
    });
    expect(await acts()).toEqual(before);
    await expect(settle('nonsense')).rejects.toMatchObject({ code: 'FINDING_UNKNOWN' });
    await expect(settle(world.ports.ids.uuid())).rejects.toMatchObject({ code: 'FINDING_UNKNOWN' });
  });

  test('a refund that grows is another one', async () => {
    await chargedYesterday('A');
    const refunded = (amount: number) =>
      reports({
        '2026-12-01': (told) => [
          ...told,
          ...told.map((line) => ({ ...line, kind: 'refund' as const, amount, gatewayChargeId: 're_1' })),
        ],
      });
    refunded(200);
    await world.run(reconcile);
    world.clock.advance(1_000);
    refunded(500);
    await world.run(reconcile);
    expect(await findings()).toEqual([
      'unexpected_kind re_1 refund 2026-12-01 - 200: the report does not say so any more',
      'unexpected_kind re_1 refund 2026-12-01 - 500',
    ]);
  });

  test('the same difference is not found again, another one is', async () => {
    await chargedYesterday('A');
    reports({ '2026-12-01': (told) => told.map((line) => ({ ...line, amount: 4_000 })) });
    await world.run(reconcile);
    await settle((await openIds())[0]);
    await world.run(reconcile);
    world.clock.advance(day);
    expect((await world.run(reconcile)).outcome).toBe('done');
    expect(await watermark()).toBe('2026-12-02');
    reports({ '2026-12-01': (told) => told.map((line) => ({ ...line, amount: 4_500 })) });
    await world.run(reconcile);
    expect(await findings()).toEqual([
      'amount_differs ch_1 5000 4000: cleared up by telephone',
      'amount_differs ch_1 5000 4500',
    ]);
    expect(await alerts()).toEqual(['SETTLEMENT_DIFFERS 2026-12-01']);
  });

  test('money without a bill is never booked, whoever settles it', async () => {
    await chargedYesterday('A');
    foreign();
    const before = await moneyState(database.db, world.merchant.id);
    await world.run(reconcile);
    await settle((await openIds())[0]);
    world.clock.advance(day);
    await world.run(reconcile);
    expect(await moneyState(database.db, world.merchant.id)).toEqual(before);
  });
});
