import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { charge } from '../jobs/charge.ts';
import { reconcile } from '../jobs/reconcile.ts';
import { trace } from '../jobs/trace.ts';
import { type Bills, billsOf, moneyState } from './bills.ts';
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
const findings = async () =>
  (
    await rows<{ finding: string }>(
      `select finding from settlement_lines where merchant_id = $1 order by report_date, line_no`,
    )
  ).map((row) => row.finding);
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
    expect(await findings()).toEqual(['matched', 'matched']);
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
    expect(await findings()).toEqual([]);
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
    expect((await world.run(reconcile)).counts).toMatchObject({ unmatched: 1, learned_from_report: 1 });
    expect(await world.stateOf('A')).toBe('paid');
    expect(await findings()).toEqual(['matched']);
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
      counts: { differs: 2, missing_here: 1, missing_there: 1, matched: 2 },
    });
    expect(await alerts()).toEqual(['SETTLEMENT_DIFFERS 2026-12-01']);
    expect(await watermark()).toBe('2026-11-30');

    world.clock.advance(day);
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-11-30');
    // A person has looked into it.
    await database.db.run(`update alerts set acknowledged_at = last_at where merchant_id = $1`, [
      world.merchant.id,
    ]);
    await world.run(reconcile);
    expect(await watermark()).toBe('2026-12-02');
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
      // A person has looked at the report's difference; the gateway still says what it says.
      await database.db.run(
        `update alerts set acknowledged_at = last_at where merchant_id = $1 and cause like 'SETTLEMENT%'`,
        [world.merchant.id],
      );
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
    expect(await findings()).toEqual(['matched']);
  });
});
