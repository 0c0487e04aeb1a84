import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { insertCharges } from '../billing/charges/queries.ts';
import { recordOutcomes } from '../billing/charges/record-outcomes.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { referenceOf } from '../billing/ids.ts';
import { moveInvoices } from '../billing/invoices/queries.ts';
import { confirmFile } from '../billing/outward/confirm.ts';
import { redeliverFile } from '../billing/outward/redeliver.ts';
import { releaseParked } from '../billing/parked/release.ts';
import { type FindingKind, findingRules } from '../billing/reconciliation/findings.ts';
import { openFindings } from '../billing/reconciliation/queries.ts';
import { settleFindingByHand } from '../billing/reconciliation/settle.ts';
import { addResultRows } from '../billing/results/queries.ts';
import { deliver } from '../jobs/deliver.ts';
import type { RunEnd } from '../jobs/run.ts';
import { type BillFields, billingFile, billingName, type Office, openOffice } from './inbox.ts';

let office: Office;
let outbound: string;

beforeEach(async () => {
  office = await openOffice();
  outbound = join(office.inbox, '../outbound');
  fs.mkdirSync(outbound);
});

afterEach(async () => {
  await office.close();
});

async function receive(sequence: number, bills: readonly BillFields[]): Promise<void> {
  const name = billingName(sequence);
  fs.writeFileSync(join(office.inbox, name), billingFile(sequence, bills));
  fs.writeFileSync(join(office.inbox, `${name}.done`), '');
  await office.fetch();
  await office.ingest();
}

const run = (businessDate = '2026-11-25'): Promise<RunEnd> => office.run(deliver, businessDate);
const names = () => fs.readdirSync(outbound).sort();
const finals = () => names().filter((name) => !name.endsWith('.done') && !name.startsWith('.'));
const content = (name: string) => fs.readFileSync(join(outbound, name), 'utf8');
const records = (name: string) =>
  content(name)
    .trimEnd()
    .split('\n')
    .map((line) => line.split(','));
const tieOut = (name: string) => JSON.parse(content(name));

const act = () => ({
  merchantId: office.merchant.id,
  id: office.ports.ids.uuid(),
  kind: 'command' as const,
  actor: 'test',
  at: office.clock.now(),
});

async function invoiceOf(number: string): Promise<{ id: string; amount: number }> {
  const [row] = await office.db.query<{ id: string; amount: number }>(
    `select id, amount from invoices where billing_number = $1`,
    [number],
  );
  if (row === undefined) throw new Error(`there is no bill ${number}`);
  return row;
}

/** A bill ends, as dunning or the merchant ends it. */
async function end(number: string, outcome: 'unpaid' | 'cancelled'): Promise<string> {
  const { id, amount } = await invoiceOf(number);
  await office.db.transaction(async (tx) => {
    await moveInvoices(tx, act(), [id], outcome, outcome);
    await addResultRows(tx, office.merchant.id, office.clock.now(), [
      {
        invoiceId: id,
        outcome,
        causeId: id,
        reason: outcome === 'unpaid' ? 'dunning_ended' : 'cancelled_by_merchant',
        method: '',
        amount,
        amountReceived: 0,
        collectedOn: null,
      },
    ]);
  });
  return id;
}

/** A charge of the bill whose outcome nobody knows. */
async function chargeUnknown(number: string): Promise<string> {
  const { id: invoiceId, amount } = await invoiceOf(number);
  const [chargeId, intentId] = [office.ports.ids.uuid(), office.ports.ids.uuid()];
  const at = office.clock.now().toString();
  await office.db.transaction(async (tx) => {
    await tx.run(
      `insert into payment_intents (merchant_id, id, invoice_id, origin, amount, currency, state, version, created_at)
       values ($1, $2, $3, 'link', $4, 'JPY', 'processing', 1, $5)`,
      [office.merchant.id, intentId, invoiceId, amount, at],
    );
    await insertCharges(tx, act(), [
      {
        id: chargeId,
        intentId,
        invoiceId,
        sessionId: null,
        origin: 'link',
        gateway: 'simulator',
        paymentMethodId: null,
        amount,
        currency: 'JPY',
        businessDate: '2026-11-25',
        deadlineAt: at,
        askAt: at,
      },
    ]);
    await tx.run(`update charges set state = 'unknown' where id = $1`, [chargeId]);
  });
  return chargeId;
}

/** What the merchant sees is whole, stands once, and is what was frozen. */
async function expectDelivered(): Promise<void> {
  const files = await office.db.query<{ name: string; sha256: string; state: string }>(
    `select name, sha256, state from outward_files order by name`,
  );
  expect(files.map((file) => file.state)).toEqual(files.map(() => 'delivered'));
  expect(names()).toEqual(files.flatMap((file) => [file.name, `${file.name}.done`]).sort());
  for (const { name, sha256 } of files) {
    expect(createHash('sha256').update(content(name)).digest('hex')).toBe(sha256);
    expect(content(`${name}.done`)).toBe(`${sha256}  ${name}\n`);
  }
  const sequences = await office.db.query<{ kind: string; gapless: boolean }>(
    `select kind, max(sequence) = count(*) as gapless from outward_files group by kind`,
  );
  expect(sequences.every((row) => row.gapless)).toBe(true);
}

describe('receipts and tie-outs', () => {
  it('answers every sample file of Minato Gas', async () => {
    for (const name of [
      'billing_minato-gas_20261125_0001.csv',
      'billing_minato-gas_20261126_0002.csv',
      'cancel_minato-gas_20261127_0003.csv',
    ]) {
      office.dropSample(name);
      await office.fetch();
      await office.ingest();
    }
    expect((await run()).counts).toMatchObject({ receipts: 3, tieouts: 4, results: 1, delivered: 8 });
    await expectDelivered();
    const accepted = records('receipt_minato-gas_20261125_0001.csv');
    expect(accepted[0]).toEqual(['H', '1', 'minato-gas', 'receipt', '2026-11-25', '1']);
    expect(accepted[1]?.slice(3)).toEqual(['accepted', '', '40', '40', '211540', '0']);
    expect(accepted.at(-1)).toEqual(['T', '11', '0']);
    const partial = records('receipt_minato-gas_20261125_0002.csv');
    expect(partial[1]?.slice(3)).toEqual(['partial', '', '20', '7', '373925', '13']);
    expect(partial.filter((row) => row[3] === 'rejected')).toHaveLength(13);
    expect(records('receipt_minato-gas_20261125_0003.csv')[1]?.slice(3, 4)).toEqual(['partial']);
    // The cancelled bill is told in the result file, and the first file's tie-out comes again with it.
    const [, result, trailer] = records('result_minato-gas_20261125_0001.csv');
    expect(result?.slice(0, 5)).toEqual([
      'R',
      'MG2611-00003',
      result?.[2],
      'cancelled',
      'cancelled_by_merchant',
    ]);
    expect(trailer?.slice(1)).toEqual(['1', result?.[6]]);
    const last = tieOut('tieout_minato-gas_20261125_0004.json');
    expect(last).toMatchObject({ inputFile: 'billing_minato-gas_20261125_0001.csv', closes: true });
    expect(last.outcomes.cancelled.count).toBe(1);
    expect(last.outcomes.open.count).toBe(39);
    expect((await run()).counts).toEqual({});
  });

  it('tells which lines refused a whole file, to the merchant who wants it so', async () => {
    await office.change((settings) => ({ ...settings, exchange: { ...settings.exchange, reject: 'file' } }));
    await receive(1, [{ number: 'R1' }, { number: 'R2', amount: '0' }, { number: 'R1' }]);
    await run();
    const [receipt] = finals();
    expect(finals()).toHaveLength(1);
    expect(records(receipt ?? '').slice(1)).toEqual([
      ['F', billingName(1), expect.any(String), 'rejected', 'F_LINES_REJECTED', '0', '0', '0', '0'],
      ['R', '3', 'R2', 'rejected', 'E_RANGE', 'amount', expect.any(String)],
      ['R', '4', 'R1', 'rejected', 'E_DUPLICATE_IN_FILE', 'billing_number', expect.any(String)],
      ['T', '3', '0'],
    ]);
  });

  it('answers a refused file with zeros and without a tie-out', async () => {
    fs.writeFileSync(join(office.inbox, billingName(1)), billingFile(1, [{}], { count: 7 }));
    fs.writeFileSync(join(office.inbox, `${billingName(1)}.done`), '');
    await office.fetch();
    await office.ingest();
    expect((await run()).counts).toMatchObject({ receipts: 1, tieouts: 0 });
    const [, file, trailer] = records('receipt_minato-gas_20261125_0001.csv');
    expect(file?.slice(3)).toEqual(['rejected', 'F_COUNT_MISMATCH', '0', '0', '0', '0']);
    expect(trailer).toEqual(['T', '1', '0']);
  });

  it('holds back everything that touches a file which does not close, and calls a person', async () => {
    await receive(1, [{ number: 'ONE' }]);
    await receive(2, [{ number: 'TWO' }]);
    await run();
    await end('ONE', 'unpaid');
    await end('TWO', 'unpaid');
    await office.db.run(`update billing_files set amount_accepted = amount_accepted + 1 where sequence = 1`);
    expect(await run()).toMatchObject({
      outcome: 'attention',
      counts: { results: 1, result_rows: 1, parked: 1 },
    });
    expect(records('result_minato-gas_20261125_0001.csv')[1]?.[1]).toBe('TWO');
    expect(await office.db.query(`select level from alerts where cause like 'TIE_OUT_OPEN%'`)).toEqual([
      { level: 'now' },
    ]);
    await office.db.run(`update billing_files set amount_accepted = amount_accepted - 1 where sequence = 1`);
    expect(await run()).toMatchObject({ outcome: 'done', counts: { results: 1, parked: 0 } });
    expect(records('result_minato-gas_20261125_0002.csv')[1]?.[1]).toBe('ONE');
    const open = await office.db.query(`select 1 from parked_items where resolved_at is null`);
    expect(open).toEqual([]);
    await expectDelivered();
  });
});

describe('results', () => {
  it('reports each outcome once, with sums that add up', async () => {
    await receive(1, [
      { number: 'A1', customer: 'A', amount: '1200' },
      { number: 'B1', customer: 'B', amount: '3400' },
      { number: 'C1', customer: 'C', amount: '5600' },
    ]);
    await run();
    const a = await end('A1', 'unpaid');
    office.clock.advance(1_000);
    await end('B1', 'cancelled');
    await run('2026-11-26');
    expect(records('result_minato-gas_20261126_0001.csv')).toEqual([
      ['H', '1', 'minato-gas', 'result', '2026-11-26', '1'],
      [
        'R',
        'A1',
        'A',
        'unpaid',
        'dunning_ended',
        '',
        '1200',
        '0',
        '',
        '2026-11-25T09:00:00+09:00',
        referenceOf(a),
      ],
      [
        'R',
        'B1',
        'B',
        'cancelled',
        'cancelled_by_merchant',
        '',
        '3400',
        '0',
        '',
        expect.any(String),
        expect.any(String),
      ],
      ['T', '2', '4600'],
    ]);
    const again = tieOut('tieout_minato-gas_20261126_0002.json');
    expect(again.outcomes).toMatchObject({
      unpaid: { count: 1, amount: 1200 },
      cancelled: { count: 1, amount: 3400 },
      open: { count: 1, amount: 5600 },
    });
    expect((await run('2026-11-27')).counts).toEqual({});
    await expectDelivered();
  });

  it('reports a charge of unknown outcome as pending, once, and never as failed', async () => {
    await receive(1, [{ number: 'A1', amount: '1200' }]);
    await run();
    const charge = await chargeUnknown('A1');
    await run('2026-11-26');
    expect(records('result_minato-gas_20261126_0001.csv').slice(1)).toEqual([
      ['R', 'A1', 'C1', 'pending', '', '', '1200', '0', '', '2026-11-25T09:00:00+09:00', referenceOf(charge)],
      ['T', '1', '1200'],
    ]);
    expect((await run('2026-11-27')).counts).toEqual({});
  });

  it('reports enrolments with an offset and a reference', async () => {
    await receive(1, [{ number: 'A1', customer: 'A' }]);
    const { id: invoiceId } = await invoiceOf('A1');
    const enrolmentId = office.ports.ids.uuid();
    await office.db.run(
      `with contract as (select merchant_id, contract_id, customer_id from invoices where id = $1),
       method as (
         insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, state, created_at)
         select merchant_id, $2, customer_id, 'simulator', 'card', ''::bytea, 1, 'active', $3 from contract returning id
       ), enrolment as (
         insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version,
                                 effective_from, name_digest, terms_version, source, started_at)
         select merchant_id, $2, customer_id, contract_id, $2, 'active', 1, '2026-11-25', ''::bytea, 't', 'test', $3
         from contract returning id
       )
       insert into enrolment_rows (merchant_id, enrolment_id, what, customer_id, method, occurred_at)
       select merchant_id, $2, 'enrolled', customer_id, 'card', $3 from contract`,
      [invoiceId, enrolmentId, office.clock.now().toString()],
    );
    expect((await run()).counts).toMatchObject({ enrolments: 1 });
    expect(records('enrolment_minato-gas_20261125_0001.csv').slice(1)).toEqual([
      ['R', 'A', 'enrolled', 'card', '2026-11-25T09:00:00+09:00', referenceOf(enrolmentId)],
      ['T', '1', '0'],
    ]);
  });
});

describe('bills in dispute with the gateway', () => {
  async function dispute(number: string, kind: FindingKind): Promise<string> {
    const finding = {
      id: office.ports.ids.uuid(),
      source: 'report' as const,
      kind,
      subject: `ch_${number}`,
      gateway: 'simulator',
      reportDate: '2026-11-24',
      chargeId: null,
      invoiceId: (await invoiceOf(number)).id,
      ours: 1,
      theirs: 2,
      currency: 'JPY',
      owner: findingRules[kind].owner,
    };
    await office.db.transaction((tx) =>
      openFindings(tx, office.merchant.id, office.clock.now(), [finding, finding]),
    );
    return finding.id;
  }

  it('wait for their result file until it is settled, and go into the next one', async () => {
    await receive(1, [{ number: 'A1' }, { number: 'A2' }]);
    await receive(2, [{ number: 'B1' }]);
    await run();
    await end('A1', 'unpaid');
    await end('B1', 'unpaid');
    const findings = [await dispute('A1', 'not_booked'), await dispute('B1', 'amount_differs')];
    // Nothing but rows in dispute: no file, and no run that finds something to do.
    expect(await run('2026-11-26')).toMatchObject({ outcome: 'done', counts: {} });
    await end('A2', 'unpaid');
    expect((await run('2026-11-26')).counts).toMatchObject({ results: 1, result_rows: 1, tieouts: 1 });
    expect(records('result_minato-gas_20261126_0001.csv').map(([, number]) => number)).toEqual([
      '1',
      'A2',
      '1',
    ]);
    for (const id of findings) await settleFindingByHand(office.ports, id, 'cleared up', 'test');
    expect((await run('2026-11-27')).counts).toMatchObject({ results: 1, result_rows: 2, tieouts: 2 });
    expect(
      records('result_minato-gas_20261127_0002.csv')
        .slice(1, -1)
        .map(([, number]) => number),
    ).toEqual(['A1', 'B1']);
    expect((await run('2026-11-28')).counts).toEqual({});
    await expectDelivered();
  });

  it('only where the kind of difference is about what the row says', async () => {
    const kinds = Object.keys(findingRules) as FindingKind[];
    await receive(
      1,
      kinds.map((number) => ({ number })),
    );
    await run();
    for (const kind of kinds) {
      await end(kind, 'unpaid');
      await dispute(kind, kind);
    }
    await run('2026-11-26');
    const told = records('result_minato-gas_20261126_0001.csv').slice(1, -1);
    expect(told.map(([, number]) => number).sort()).toEqual([
      'fee_differs',
      'missing_here',
      'not_paid_out',
      'payout_differs',
      // Its bill is locked: there is no final row to hold back.
      'preliminary_not_confirmed',
    ]);
  });

  it('a charge of unknown outcome is told as pending all the same', async () => {
    await receive(1, [{ number: 'A1' }]);
    await run();
    await chargeUnknown('A1');
    await dispute('A1', 'amount_differs');
    expect((await run('2026-11-26')).counts).toMatchObject({ result_rows: 1 });
  });
});

describe('interrupted', () => {
  it.each([
    'deliver.after_freeze',
    'deliver.before_upload',
    'deliver.after_upload',
    'deliver.after_rename',
    'deliver.after_done_file',
  ] as const)('killed at %s and run again, each file is there once and whole', async (point) => {
    await receive(1, [{ number: 'A1' }, { number: 'A2' }]);
    await end('A1', 'unpaid');
    office.killAt(point);
    expect((await run()).outcome).toBe('failed');
    const before = new Map(finals().map((name) => [name, content(name)]));
    expect((await run()).outcome).toBe('done');
    await expectDelivered();
    expect(finals()).toHaveLength(4);
    for (const [name, bytes] of before) expect(content(name)).toBe(bytes);
  });

  it('leaves nothing half under a final name when the connection breaks, and goes on in the next pass', async () => {
    await receive(1, [{ number: 'A1' }]);
    Object.assign(office.server.faults, { dropAfterBytes: office.server.counts.fileBytes + 50 });
    expect((await run()).outcome).toBe('failed');
    expect(names().filter((name) => !name.startsWith('.'))).toEqual([]);
    const alerts = await office.db.query(`select level from alerts where cause like 'DELIVER_%'`);
    expect(alerts).toEqual([{ level: 'daily' }]);
    Object.assign(office.server.faults, { dropAfterBytes: undefined });
    expect((await run()).outcome).toBe('done');
    await expectDelivered();
  });

  it('takes a rename whose answer was lost for done', async () => {
    await receive(1, [{ number: 'A1' }]);
    Object.assign(office.server.faults, { loseRenameAnswer: true });
    expect((await run()).outcome).toBe('done');
    await expectDelivered();
  });

  it('never overwrites what somebody else put under the name', async () => {
    await receive(1, [{ number: 'A1' }]);
    fs.writeFileSync(join(outbound, 'receipt_minato-gas_20261125_0001.csv'), 'not ours');
    expect(await run()).toMatchObject({ outcome: 'attention', counts: { parked: 1, delivered: 1 } });
    expect(content('receipt_minato-gas_20261125_0001.csv')).toBe('not ours');
    expect(await office.db.query(`select reason from parked_items where resolved_at is null`)).toEqual([
      { reason: 'OUTWARD_NAME_TAKEN' },
    ]);
    expect(await office.db.query(`select level from alerts where cause like 'OUTWARD_%'`)).toEqual([
      { level: 'now' },
    ]);
  });

  it('asks a person where the merchant may have taken the file before its delivery was known', async () => {
    await receive(1, [{ number: 'A1' }]);
    office.killAt('deliver.after_done_file');
    await run();
    for (const name of names()) fs.rmSync(join(outbound, name));
    expect(await run()).toMatchObject({ outcome: 'attention', counts: { parked: 1 } });
    const receipt = 'receipt_minato-gas_20261125_0001.csv';
    expect(names()).not.toContain(receipt);
    office.clock.advance(1_000);
    const what = { billingNumbers: [], files: [receipt], rule: null };
    expect((await releaseParked(office.ports, office.merchant, what, 'operator')).files).toEqual([receipt]);
    expect((await run()).outcome).toBe('done');
    expect(names()).toContain(receipt);
    await expectDelivered();
  });

  it('believes a merchant who says that it has the file: it counts as delivered and is not sent again', async () => {
    await receive(1, [{ number: 'A1' }]);
    office.killAt('deliver.after_done_file');
    await run();
    for (const name of names()) fs.rmSync(join(outbound, name));
    await run();
    const receipt = 'receipt_minato-gas_20261125_0001.csv';
    await confirmFile(office.ports, office.merchant, receipt, 'operator');
    await expect(confirmFile(office.ports, office.merchant, receipt, 'operator')).rejects.toMatchObject({
      code: 'FILE_NOT_IN_DOUBT',
    });
    expect((await run()).outcome).toBe('done');
    expect(names()).not.toContain(receipt);
    expect(await office.db.query(`select name from outward_files where state <> 'delivered'`)).toEqual([]);
    expect(await office.db.query(`select from parked_items where resolved_at is null`)).toEqual([]);
  });
});

describe('a file delivered again', () => {
  it('is the same to the byte, under its name, with who asked for it in the history', async () => {
    await receive(1, [{ number: 'A1' }]);
    await run();
    const receipt = 'receipt_minato-gas_20261125_0001.csv';
    const before = content(receipt);
    await expect(redeliverFile(office.ports, office.merchant, 'never.csv', 'operator')).rejects.toMatchObject(
      {
        code: 'FILE_NOT_DELIVERED',
      },
    );
    // The merchant has taken it, and lost it.
    for (const name of [receipt, `${receipt}.done`]) fs.rmSync(join(outbound, name));
    await office.db.run(
      `update outward_files set frozen_at = frozen_at - interval '90 days', delivered_at = delivered_at - interval '90 days'`,
    );
    for (const round of [1, 2]) {
      await redeliverFile(office.ports, office.merchant, receipt, 'operator');
      // It waits since now, not since it was frozen three months ago.
      const now = office.clock.now();
      expect(await checkInvariants(office.db, { only: [11], now })).toMatchObject({ ok: true });
      const later = await checkInvariants(office.db, { only: [11], now: now.add({ hours: 49 }) });
      expect(JSON.stringify(later)).toContain('frozen since');
      expect(await run()).toMatchObject({ outcome: 'done', counts: { delivered: 1, receipts: 0 } });
      expect(content(receipt), `round ${round}`).toBe(before);
    }
    await expectDelivered();
    expect(
      await office.db.query(
        `select h.version, h.to_state, a.kind from state_history h
         join outward_files o on o.id = h.subject_id and o.name = $1
         join acts a on a.merchant_id = h.merchant_id and a.id = h.act_id
         where h.subject = 'outward_file' order by h.version`,
        [receipt],
      ),
    ).toEqual([
      { version: 1, to_state: 'frozen', kind: 'job' },
      { version: 2, to_state: 'delivered', kind: 'job' },
      { version: 3, to_state: 'frozen', kind: 'command' },
      { version: 4, to_state: 'delivered', kind: 'job' },
      { version: 5, to_state: 'frozen', kind: 'command' },
      { version: 6, to_state: 'delivered', kind: 'job' },
    ]);
  });
});

describe('adjustments', () => {
  const learn = (chargeId: string) =>
    office.db.transaction((tx) =>
      recordOutcomes(tx, {
        act: act(),
        timezone: 'Asia/Tokyo',
        learnedBy: 'report',
        ids: office.ports.ids,
        sealer: office.ports.sealer,
        learned: [
          {
            chargeId,
            outcome: {
              kind: 'succeeded',
              captured: {
                gatewayChargeId: `g-${chargeId}`,
                amount: 1_000,
                currency: 'JPY',
                method: 'card',
                capturedAt: office.clock.now().toString(),
                savedMethod: null,
              },
            } as never,
          },
        ],
      }),
    );

  it('tell late and surplus money once, numbered without a gap, never before the final result', async () => {
    await receive(1, [{ number: 'A1' }, { number: 'B1' }, { number: 'C1' }]);
    await run();
    const [late, twice, third] = [
      await chargeUnknown('A1'),
      await chargeUnknown('B1'),
      await chargeUnknown('C1'),
    ];
    await end('A1', 'unpaid');
    await end('B1', 'cancelled');
    await learn(late);
    // Its file does not close: the final row waits, and with it what came after.
    await office.db.run(`update billing_files set amount_accepted = amount_accepted + 1`);
    expect(await run()).toMatchObject({ counts: { results: 0, adjustments: 0 } });
    await office.db.run(`update billing_files set amount_accepted = amount_accepted - 1`);
    expect(await run('2026-11-26')).toMatchObject({ counts: { results: 1, adjustments: 1 } });
    expect(records('adjustment_minato-gas_20261126_0001.csv')).toEqual([
      ['H', '1', 'minato-gas', 'adjustment', '2026-11-26', '1'],
      [
        'R',
        '1',
        'A1',
        'late_payment',
        '1000',
        '+',
        '2026-11-25',
        '2026-11-25T09:00:00+09:00',
        referenceOf(late),
      ],
      ['T', '1', '1000'],
    ]);
    expect(await run('2026-11-26')).toMatchObject({ counts: {} });

    await learn(twice);
    await learn(twice);
    await end('C1', 'unpaid');
    await learn(third);
    office.killAt('deliver.after_freeze');
    await run('2026-11-27');
    expect((await run('2026-11-27')).outcome).toBe('done');
    expect(
      finals()
        .filter((name) => name.startsWith('adjustment_'))
        .flatMap((name) => records(name))
        .filter(([record]) => record === 'R')
        .map((row) => row.slice(1, 4)),
    ).toEqual([
      ['1', 'A1', 'late_payment'],
      ['2', 'B1', 'overpayment'],
      ['3', 'C1', 'late_payment'],
    ]);
    const { invariants } = await checkInvariants(office.db, { only: [14] });
    expect(invariants.map(({ holds }) => holds)).toEqual([true]);
    // A row of another number is missed.
    await office.db.run(`update adjustment_rows set number = 9 where number = 3`);
    const missed = await checkInvariants(office.db, { only: [14] });
    expect(missed.invariants[0]?.examples[0]?.detail).toMatch(/are 3/);
  });
});
