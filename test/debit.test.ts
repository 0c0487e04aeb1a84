import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { settleHeld } from '../billing/debits/answer.ts';
import { explainBill } from '../billing/explain/queries.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { answerRequest, type Fate } from '../cli/demo/bank.ts';
import { readDebits } from '../files/zengin91/read.ts';
import { debit } from '../jobs/debit.ts';
import { deliver } from '../jobs/deliver.ts';
import { dunning } from '../jobs/dunning.ts';
import { trace } from '../jobs/trace.ts';
import { type Agency, agencyOf } from './agency.ts';
import { expectInvariants } from './bills.ts';
import { type BillFields, billingFile, type Office, openOffice } from './inbox.ts';

const agencyAnswer = (request: { bytes: Buffer }, fate: Fate) => answerRequest(request.bytes, fate).bytes;
const replaced = (bytes: Buffer, from: string, to: string) =>
  Buffer.from(bytes.toString('latin1').replaceAll(from, to), 'latin1');

let office: Office;
let agency: Agency;

const accounts: Record<string, string> = {
  C1: '0001-103-1-7000111,ｻﾄｳ ﾊﾅｺ',
  C2: '0002-106-1-7000222,スズキ　ケン',
  C3: '0003-109-2-7000333,ﾀｶﾊｼ(ｶ',
};

beforeEach(async () => {
  office = await openOffice('sakura-suido', '2026-11-25T00:00:00Z');
  agency = agencyOf();
  fs.mkdirSync(join(office.inbox, '../outbound'));
  office.ports.openStore = agency.beside(office.ports.openStore);
  await office.change((current) => {
    const { layoutText: _, ...settings } = current;
    return { ...settings, layout: 'standard/1' };
  });
});
afterEach(() => office.close());

/** Enrols by file, and takes in bills: due on 28 December, debited on the 28th (the 27th is a Sunday). */
async function enrolled(bills: readonly BillFields[], customers = Object.keys(accounts)): Promise<void> {
  const lines = customers.map((each) => `D,${each},,start,bank,${accounts[each]},2026-11-20`);
  office.drop(
    'enrolment_sakura-suido_20261120_0001.csv',
    [`H,1,sakura-suido,enrolment,2026-11-20,1`, ...lines, `T,${lines.length},0`, ''].join('\n'),
  );
  office.drop('billing_sakura-suido_20261125_0002.csv', billingFile(2, bills, { merchant: 'sakura-suido' }));
  await office.fetch();
  await office.ingest(office.clock.now().toString().slice(0, 10));
}

const three: BillFields[] = [
  { number: 'A1', customer: 'C1', amount: '1000', collection: 'auto' },
  { number: 'A2', customer: 'C2', amount: '2000', collection: 'auto' },
  { number: 'A3', customer: 'C3', amount: '3000', collection: 'auto' },
];

async function runAt(at: string, job: typeof debit) {
  office.clock.set(`${at}T00:00:00Z`);
  const end = await office.run(job, at);
  if (end.failure) throw end.failure;
  return end.counts;
}

/** Asks on the day: 7 bank days before 28 December 2026 is the 17th. */
async function asked() {
  const counts = await runAt('2026-12-17', debit);
  await runAt('2026-12-17', deliver);
  const requests = agency.takeRequests();
  return { counts, requests, request: requests[0] as { name: string; bytes: Buffer } };
}

const states = async () =>
  Object.fromEntries(
    (
      await office.db.query<{ billing_number: string; state: string; charge: string | null }>(
        `select i.billing_number, i.state, (select string_agg(c.state, ' ' order by c.attempt_no) from charges c
           where c.merchant_id = i.merchant_id and c.invoice_id = i.id) as charge
         from invoices i order by i.billing_number`,
      )
    ).map((row) => [row.billing_number, `${row.state} ${row.charge}`]),
  );

const byAmount =
  (codes: Record<number, string>) =>
  ({ amount }: { amount: number }) =>
    codes[amount] ?? '0';

describe('asking', () => {
  test('a bill is asked for seven bank days before its debit day, and locked until the bank answers', async () => {
    await enrolled(three);
    expect(await runAt('2026-12-16', debit)).toEqual({});
    const { counts, request } = await asked();
    expect(counts).toMatchObject({ requests: 1, debits: 3, amount: 6000 });
    const { file } = readDebits(request.bytes);
    expect(file).toMatchObject({
      framing: '\r\n',
      batches: [
        {
          header: { consignorCode: '1234567890', debitDay: '1228', bank: '0001' },
          debits: [
            {
              bank: '0001',
              branch: '103',
              accountType: '1',
              account: '7000111',
              holder: 'ｻﾄｳ ﾊﾅｺ',
              amount: 1000,
              newCode: '1',
            },
            { holder: 'ｽｽﾞｷ ｹﾝ', amount: 2000 },
            { accountType: '2', amount: 3000, customerNumber: '00000000000000000003' },
          ],
          trailer: { count: 3, amount: 6000, paidCount: 0, unpaidCount: 0 },
        },
      ],
    });
    expect(await states()).toEqual({ A1: 'open processing', A2: 'open processing', A3: 'open processing' });
    expect(await runAt('2026-12-17', debit)).toEqual({});
    expect(await runAt('2026-12-18', trace)).not.toHaveProperty('asked');
    await expectInvariants(office.db);
  });

  test('a file is split where the agency takes no more', async () => {
    await office.change((current) => ({
      ...current,
      autopay: {
        ...current.autopay,
        directDebit: current.autopay.directDebit && { ...current.autopay.directDebit, recordsPerFile: 2 },
      },
    }));
    await enrolled(three);
    const { counts, requests } = await asked();
    expect(counts).toMatchObject({ requests: 2, debits: 3 });
    expect(requests.map(({ bytes }) => readDebits(bytes).file?.batches[0]?.trailer.count)).toEqual([2, 1]);
  });

  test('what is held, cancelled or without a mandate by now is not asked for', async () => {
    await enrolled(three);
    office.clock.set('2026-12-16T00:00:00Z');
    office.drop(
      'hold_sakura-suido_20261216_0003.csv',
      `H,1,sakura-suido,hold,2026-12-16,3\nD,C1,,place,dispute,\nT,1,0\n`,
    );
    office.drop(
      'enrolment_sakura-suido_20261216_0004.csv',
      `H,1,sakura-suido,enrolment,2026-12-16,4\nD,C2,,end,bank,,,2026-12-16\nT,1,0\n`,
    );
    office.drop(
      'cancel_sakura-suido_20261216_0005.csv',
      `H,1,sakura-suido,cancel,2026-12-16,5\nD,A3,wrong\nT,1,0\n`,
    );
    await office.fetch();
    await office.ingest('2026-12-16');
    expect(await runAt('2026-12-17', debit)).toEqual({ held_bills: 1, no_mandate: 1 });
    expect(await runAt('2026-12-17', dunning)).toMatchObject({ fell_back: 1 });
  });

  test('what is recalled is not asked for, also before its recall has looked at each bill', async () => {
    await enrolled(three);
    const file = await recallableFile(office.db, office.merchant, 'billing_sakura-suido_20261125_0002.csv');
    await beginRecall(office.ports, {
      merchant: office.merchant,
      file,
      count: 3,
      sum: 6000,
      by: 'test',
    });
    expect((await asked()).requests).toEqual([]);
    expect(await runAt('2026-12-17', trace)).toMatchObject({ cancelled: 3, recalls_done: 1 });
    expect(await states()).toEqual({ A1: 'cancelled null', A2: 'cancelled null', A3: 'cancelled null' });
  });

  test('a bill whose day to ask has passed goes by link, with a warning; or waits for the next debit day', async () => {
    office.clock.set('2026-12-18T00:00:00Z');
    await enrolled(three.slice(0, 1));
    const [warned] = await office.db.query(`select code from line_findings`);
    expect(warned).toMatchObject({ code: 'W_LATE_FOR_DEBIT' });
    await office.change((current) => ({
      ...current,
      autopay: {
        ...current.autopay,
        directDebit: current.autopay.directDebit && {
          ...current.autopay.directDebit,
          late: 'next_debit_day',
        },
      },
    }));
    office.drop(
      'billing_sakura-suido_20261218_0003.csv',
      billingFile(3, [{ number: 'A4', customer: 'C2', collection: 'auto' }], {
        merchant: 'sakura-suido',
        businessDate: '2026-12-18',
      }),
    );
    await office.fetch();
    await office.ingest('2026-12-18');
    const rows = await office.db.query(
      `select i.billing_number, i.collection, i.debit_on, a.act, a.act_on, a.debit_on as asked_for
       from invoices i join agenda a on a.invoice_id = i.id order by 1`,
    );
    expect(rows).toMatchObject([
      { billing_number: 'A1', collection: 'link', debit_on: null },
      {
        billing_number: 'A4',
        collection: 'auto',
        debit_on: '2027-01-27',
        act: 'debit',
        act_on: '2027-01-18',
        asked_for: '2027-01-27',
      },
    ]);
  });

  test('where nothing ran on the day to ask, dunning sends the link', async () => {
    await enrolled(three);
    expect(await runAt('2026-12-18', debit)).toEqual({ late: 3 });
    expect(await runAt('2026-12-18', dunning)).toMatchObject({ fell_back: 3 });
  });
});

describe('the answer', () => {
  test('paid is paid, short of funds is asked for again on the next debit day, a closed account goes by link', async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.answer(request, byAmount({ 2000: '1', 3000: '2' }));
    expect(await runAt('2027-01-04', debit)).toMatchObject({
      results: 1,
      matched: 1,
      booked: 1,
      paid: 1,
      failed: 2,
    });
    expect(agency.files.size).toBe(0);
    expect(await states()).toEqual({ A1: 'paid succeeded', A2: 'open failed', A3: 'open failed' });
    expect(await runAt('2027-01-04', dunning)).toMatchObject({ to_charge: 1, fell_back: 1 });
    const [result] = await office.db.query(
      `select method, amount, collected_on from result_rows where outcome = 'paid'`,
    );
    expect(result).toMatchObject({ method: 'debit', amount: 1000, collected_on: '2026-12-28' });
    const [explained] = await explainBill(office.db, 'A2', null);
    expect(explained?.events.find(({ what }) => what === 'bank debit')?.detail).toBe(
      'debit_sakura-suido_20261217_0001.txt line 2, asked for 2026-12-28, result by 2027-01-05',
    );
    const [next] = await office.db.query(
      `select a.act, a.act_on, a.debit_on from agenda a join invoices i on i.id = a.invoice_id where i.billing_number = 'A2'`,
    );
    expect(next).toMatchObject({ act: 'debit', act_on: '2027-01-18', debit_on: '2027-01-27' });
    await expectInvariants(office.db);
  });

  test('the same bytes again, under another name, change nothing; other bytes are held and nothing of them is booked', async () => {
    await enrolled(three);
    const { request } = await asked();
    const bytes = agency.answer(request, byAmount({ 2000: 'N' }));
    await runAt('2027-01-04', debit);
    agency.put('again.txt', bytes);
    expect(await runAt('2027-01-04', debit)).toMatchObject({ repeated: 1 });
    agency.put('second.txt', agencyAnswer(request, byAmount({})));
    expect(await runAt('2027-01-05', debit)).toMatchObject({ results: 1, held: 1 });
    expect(await states()).toEqual({ A1: 'paid succeeded', A2: 'open unknown', A3: 'paid succeeded' });
    // A person has asked the agency: the second file is the rest of the first.
    await settleHeld(office.ports, office.merchant, 'second.txt', 'accept', 'test');
    expect(await runAt('2027-01-05', debit)).toMatchObject({ matched: 1, paid: 1, known: 2 });
    expect(await states()).toMatchObject({ A2: 'paid succeeded' });
    await expectInvariants(office.db);
  });

  test('a second answer that is there at the same time as the first is held all the same', async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.put('first.txt', agencyAnswer(request, byAmount({ 2000: '1' })));
    agency.put('second.txt', agencyAnswer(request, byAmount({ 1000: '1', 3000: '1' })));
    expect(await runAt('2027-01-04', debit)).toMatchObject({ results: 2, matched: 1, booked: 1, held: 1 });
    expect(await states()).toEqual({ A1: 'paid succeeded', A2: 'open failed', A3: 'paid succeeded' });
    await expectInvariants(office.db);
  });

  test('N is neither paid nor failed, and a code that nobody knows is parked: both stay locked', async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.answer(request, byAmount({ 2000: 'N', 3000: '5' }));
    const counts = await runAt('2027-01-04', debit);
    expect(counts).toMatchObject({ paid: 1, parked: 1, unknown: 2, unanswered: 2 });
    expect(await states()).toEqual({ A1: 'paid succeeded', A2: 'open unknown', A3: 'parked unknown' });
    expect(await runAt('2027-01-07', dunning)).toMatchObject({ waiting: 1, fell_back: 0, to_charge: 0 });
    await runAt('2027-01-07', deliver);
    const pending = await office.db.query(`select method from result_rows where outcome = 'pending'`);
    expect(pending).toEqual([{ method: 'debit' }, { method: 'debit' }]);
  });

  test.each<[string, (bytes: Buffer) => Buffer, string]>([
    ['cut off', (bytes) => bytes.subarray(0, -122), 'UNREADABLE'],
    ['of another day', (bytes) => replaced(bytes, '12280001', '12290001'), 'HEADER_DIFFERS'],
    [
      'with a total that is not true',
      (bytes) => replaced(bytes, '8000003000000006000000003', '8000003000000006000000002'),
      'TOTALS_DO_NOT_ADD_UP',
    ],
    ['with another account', (bytes) => replaced(bytes, '7000222', '7000223'), 'DEBIT_UNKNOWN'],
    [
      'of a bill that was never asked for',
      (bytes) => replaced(bytes, '00000000000000000001', '00000000000000000009'),
      'REQUEST_UNKNOWN',
    ],
  ])('a result that is %s is held whole', async (_, damage, reason) => {
    await enrolled(three);
    const { request } = await asked();
    agency.put('result.txt', damage(agencyAnswer(request, byAmount({}))));
    expect(await runAt('2027-01-04', debit)).toMatchObject({ results: 1, held: 1 });
    const [held] = await office.db.query(`select state, reason from debit_results`);
    expect(held).toEqual({ state: 'held', reason });
    expect(await states()).toEqual({ A1: 'open processing', A2: 'open processing', A3: 'open processing' });
    expect(await office.db.query(`select 1 from debit_answers`)).toEqual([]);
    // The right one comes after all.
    agency.answer(request, byAmount({}));
    expect(await runAt('2027-01-04', debit)).toMatchObject({ booked: 1, paid: 3 });
  });

  test('a right result under the name of a wrong one is booked, and the wrong one waits for a person', async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.put('result.txt', agencyAnswer(request, byAmount({})).subarray(0, -122));
    expect(await runAt('2027-01-04', debit)).toMatchObject({ held: 1 });
    agency.put('result.txt', agencyAnswer(request, byAmount({})));
    expect(await runAt('2027-01-04', debit)).toMatchObject({ booked: 1, paid: 3 });
    const open = () =>
      office.db.query(`select cause from alerts where cause like '%HELD%' and resolved_at is null`);
    expect(await open()).toEqual([{ cause: 'DEBIT_RESULT_HELD result.txt' }]);
    await settleHeld(office.ports, office.merchant, 'result.txt', 'dismiss', 'test');
    expect(await open()).toEqual([]);
  });

  test('no result by the expected day calls a person, once it is here nobody', async () => {
    await enrolled(three);
    const { request } = await asked();
    const open = () =>
      office.db.query(`select cause from alerts where cause like 'DEBIT%' and resolved_at is null`);
    // The fourth bank day after 28 December is 5 January.
    expect(await runAt('2027-01-05', debit)).toEqual({});
    expect(await runAt('2027-01-06', debit)).toEqual({ late_results: 1 });
    expect(await open()).toEqual([{ cause: 'DEBIT_RESULT_LATE' }]);
    agency.answer(request, byAmount({}));
    expect(await runAt('2027-01-07', debit)).toMatchObject({ paid: 3 });
    expect(await open()).toEqual([]);
  });

  test('what the agency sends under the name of a result that is just being removed is not removed with it', async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.answer(request, byAmount({ 2000: 'N' }));
    const { crash } = office.ports;
    office.ports.crash = async (point) => {
      if (point === 'debit.after_register') {
        office.ports.crash = crash;
        agency.put(request.name.replace('debit_', 'result_'), Buffer.from('another one'));
      }
      return crash(point);
    };
    expect(await runAt('2027-01-04', debit)).toMatchObject({ results: 1, paid: 2 });
    expect(await runAt('2027-01-04', debit)).toMatchObject({ results: 1, held: 1 });
    expect(agency.files.size).toBe(0);
  });

  test("another creditor's result in a folder that several share stays where it is", async () => {
    await enrolled(three);
    const { request } = await asked();
    agency.put('theirs.txt', replaced(agencyAnswer(request, byAmount({})), '1234567890', '9999999999'));
    expect(await runAt('2027-01-04', debit)).toEqual({ others: 1 });
    expect([...agency.files.keys()]).toContain('results/theirs.txt');
  });
});
