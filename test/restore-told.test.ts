import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, test } from 'vitest';
import { applyMerchant } from '../billing/merchants/apply.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../billing/merchants/settings.ts';
import { returnParked } from '../billing/parked/return.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { endRestore, restoreStatus } from '../billing/restores/end.ts';
import { answerRequest } from '../cli/demo/bank.ts';
import { layoutBeside } from '../cli/layout-file.ts';
import { parseLayout } from '../files/layouts/layout.ts';
import { jobNames } from '../jobs/job.ts';
import type { Ports } from '../jobs/ports.ts';
import { expectInvariants, makeBills, makeMerchant } from './bills.ts';
import { billingFile, billingName, cancelFile, samplesFolder } from './inbox.ts';
import {
  cloneOf,
  dropClones,
  hour,
  nameOf,
  newOutside,
  type Office,
  type Outside,
  officeOn,
  paysByLink,
  reconcile,
  stateOf,
} from './restored.ts';

const { template } = inject('testServer');

/** ASCII, and nothing in a row says that it is one. */
const bare = `
layout: bare/1
format: csv
titles: true
names: { billing: "BARE_{date}_{seq4}.CSV", result: "BARE_R_{date}_{seq4}.CSV" }
billing: { no: billing_number, customer: customer_number, name: customer_name, yen: amount, tax: tax_amount, month: billing_period, due: due_date }
constants: { tax_rate: 10, collection: link, description: gas }
result: { no: billing_number, what: outcome, yen: amount }
`;
const sakura = readFileSync(join(samplesFolder, 'sakura-suido/layout.yaml'), 'utf8');
/** 120 bytes a record, with a form for results that the sample lacks. */
const fixed = `${sakura.replace('trailer: "8"', 'result: "5", trailer: "8"')}
result:
  billing_number: { at: 2, bytes: 40, trim: right }
  outcome: { at: 42, bytes: 21, trim: right }
  amount: { at: 63, bytes: 15, zero_filled: true }
`;

const layouts = {
  'kita-denryoku': null,
  'a csv layout without record types': bare,
  'a fixed-width layout': fixed,
} as const;

/** A merchant of the samples, in its own layout or another one, with folders as the tests have them. */
const applied = (code: string, layoutText: string | null) => async (ports: Ports) => {
  const folder = join(samplesFolder, code);
  const text = readFileSync(join(folder, 'merchant.yaml'), 'utf8');
  const { settings } = parseMerchantSettings(text, {
    path: `${code}.yaml`,
    readable: () => 'ok',
    layout: (file) =>
      layoutText === null
        ? layoutBeside(folder)(file)
        : { name: parseLayout(layoutText, file).name, text: layoutText, problems: [] },
  });
  settings.exchange.inbound = 'inbound';
  settings.exchange.outbound = 'outbound';
  settings.notify.dailyCapPerPhone = 1_000;
  await applyMerchant(ports, settings, 'test');
  return merchantByCode(ports.db, code);
};

let outside: Outside;
let after: Office | undefined;
let stories = 0;

afterAll(dropClones);
afterEach(async () => {
  await after?.db.close();
  after = undefined;
  rmSync(outside.archive, { recursive: true, force: true });
});

/** Lives before and after a backup, puts the database back and finds itself in safe mode an hour later. */
async function restored(
  apply: (ports: Ports) => ReturnType<typeof merchantByCode>,
  before: (office: Office) => Promise<void>,
  forgotten: (office: Office) => Promise<void>,
): Promise<Office> {
  stories += 1;
  outside = newOutside();
  const live = nameOf(`live_${stories}`);
  await cloneOf(template, `live_${stories}`);
  let office = await officeOn(live, outside, apply);
  await office.watch.begin();
  await before(office);
  await office.watch.beat();
  await office.db.close();
  const backup = await cloneOf(live, `backup_${stories}`);
  office = await officeOn(live, outside, apply);
  await office.watch.begin();
  await forgotten(office);
  await expectInvariants(office.db);
  await office.watch.beat();
  await office.db.close();
  outside.clock.advance(hour);
  after = await officeOn(backup, outside, apply);
  expect(await after.watch.begin()).not.toBeNull();
  // Nothing from before can take effect any more.
  outside.clock.advance(hour);
  return after;
}

const billsOf = async (office: Office, numbers: readonly string[]) => {
  await makeBills(
    office.ports,
    office.merchant,
    numbers.map((number) => ({ number })),
  );
  // They came by no file: it has no trailer, and took no payment numbers.
  await office.db.run(
    `update billing_files set amount_trailer = amount_accepted where amount_trailer is null`,
  );
  await office.db.run(`update merchant_counters set value = value + 100 where name = 'payment_number'`);
};

async function delivers(office: Office): Promise<void> {
  await office.run('deliver');
  outside.folder.collect();
}

async function recalls(office: Office, number: string): Promise<void> {
  const [row] = await office.db.query<{ name: string }>(
    `select f.name from billing_files f join invoices i on i.merchant_id = f.merchant_id and i.file_id = f.id
     where i.billing_number = $1`,
    [number],
  );
  const file = await recallableFile(office.db, office.merchant, row?.name ?? '');
  await beginRecall(office.ports, {
    merchant: office.merchant,
    file,
    count: file.bills,
    sum: file.amount,
    by: 'test',
  });
  await office.run('trace');
}

/** Two are paid, one is handed back, one is recalled, and one file tells it. */
async function aDay(office: Office): Promise<void> {
  outside.gateway.behave('tok_CARD-2', { declines: { gatewayCode: 'never_heard_of', networkCode: 'ZZ' } });
  await recalls(office, 'WRONG');
  expect((await office.run('charge')).counts).toMatchObject({ charged: 2, parked: 1 });
  await returnParked(office.ports, office.merchant, ['CARD-2'], 'operator');
  await delivers(office);
}

const theDaysBills = async (office: Office) => {
  await billsOf(office, ['CARD-0', 'CARD-1', 'CARD-2']);
  await billsOf(office, ['WRONG']);
  await delivers(office);
};

async function lives(office: Office, days: number): Promise<void> {
  for (let day = 0; day < days; day += 1) {
    for (const job of jobNames) await office.run(job);
    outside.folder.collect();
    outside.clock.advance(24 * hour);
  }
}

const leftOver = async (office: Office) =>
  Object.fromEntries((await reconcile(office)).map((step) => [step.step, step.leftOver]));
const nothingLeft = { files: null, messages: null, charges: null, told: null };
const paidFor = () => outside.gateway.captured.map(({ invoiceId }) => invoiceId);
const told = async (office: Office) =>
  office.db.query<{ number: string; outcome: string; file: string | null }>(
    `select i.billing_number as number, r.outcome, o.kind || ' ' || o.sequence as file
     from result_rows r join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
     left join outward_files o on o.merchant_id = r.merchant_id and o.id = r.outward_file_id
     order by i.billing_number`,
  );
const ofKind = (kind: string, office: Office) =>
  office.db.query(`select sequence from outward_files where kind = $1 order by sequence`, [kind]);

describe.each(Object.entries(layouts))('results told by %s', (_, layout) => {
  const apply = applied('kita-denryoku', layout);

  test('are learned from what is kept beside them: nobody pays or is told anything a second time', async () => {
    const office = await restored(apply, theDaysBills, aDay);
    expect(await leftOver(office)).toEqual(nothingLeft);
    const outcomes = [
      { number: 'CARD-0', outcome: 'paid', file: 'result 1' },
      { number: 'CARD-1', outcome: 'paid', file: 'result 1' },
      { number: 'CARD-2', outcome: 'unpaid', file: 'result 1' },
      { number: 'WRONG', outcome: 'cancelled', file: 'result 1' },
    ];
    expect(await told(office)).toEqual(outcomes);
    await endRestore(office.ports, 'test', null);
    const received = outside.folder.received.length;
    await lives(office, 2);
    expect(paidFor()).toHaveLength(2);
    expect(new Set(paidFor()).size).toBe(2);
    expect(await told(office)).toEqual(outcomes);
    expect(outside.folder.received).toHaveLength(received);
    await expectInvariants(office.db);
  });

  test('that cannot be read stop the end of safe mode, and the captures are learned all the same', async () => {
    const office = await restored(apply, theDaysBills, aDay);
    const folder = join(outside.archive, 'kita-denryoku');
    for (const name of readdirSync(folder).filter((each) => each.endsWith('.told')))
      rmSync(join(folder, name));
    expect(await leftOver(office)).toMatchObject({
      charges: expect.stringContaining('cannot be read'),
      told: expect.stringContaining('cannot be read in the archive: 4 rows'),
    });
    expect(await stateOf(office, 'CARD-0')).toBe('paid');
    expect(await stateOf(office, 'CARD-1')).toBe('paid');
    await expect(endRestore(office.ports, 'test', null)).rejects.toMatchObject({
      code: 'RESTORE_UNFINISHED',
    });
  });
});

describe.each([
  ['kept', applied('minato-gas', null)],
  ['returned', applied('kita-denryoku', null)],
] as const)('a bill for paper that was told as %s', (disposition, apply) => {
  test('is so here too, and is told once', async () => {
    const office = await restored(
      apply,
      async (before) => {
        await makeBills(before.ports, before.merchant, [{ number: 'PAPER', collection: 'link' }]);
        await before.db.run(`update billing_files set amount_trailer = amount_accepted`);
        await before.db.run(`update contacts set phone_kind = 'none', phone_digest = null`);
        await delivers(before);
      },
      async (forgotten) => {
        await forgotten.run('dunning');
        await delivers(forgotten);
      },
    );
    expect(await leftOver(office)).toEqual(nothingLeft);
    const papers = () =>
      office.db.query(
        `select u.disposition, i.state, u.barcode is not distinct from b.digits as printed, o.kind || ' ' || o.sequence as file
         from unreached_rows u join invoices i on i.id = u.invoice_id
         left join barcodes b on b.invoice_id = u.invoice_id
         left join outward_files o on o.id = u.outward_file_id`,
      );
    const paper = { disposition, state: disposition === 'kept' ? 'open' : 'unpaid', printed: true };
    expect(await papers()).toEqual([{ ...paper, file: 'unreached 1' }]);
    await endRestore(office.ports, 'test', null);
    const received = outside.folder.received.length;
    await lives(office, 2);
    expect(await papers()).toEqual([{ ...paper, file: 'unreached 1' }]);
    expect(outside.folder.received.filter(({ name }) => name.includes('unreached'))).toHaveLength(1);
    expect(outside.folder.received).toHaveLength(received);
    await expectInvariants(office.db);
  });
});

describe('one row that is not true here', () => {
  test('leaves the others in their file, and its bill is parked instead of charged again', async () => {
    const office = await restored(applied('kita-denryoku', null), theDaysBills, aDay);
    // The gateway's list lacks one of the two.
    outside.gateway.captured.shift();
    const steps = await leftOver(office);
    expect(steps).toMatchObject({ charges: null, told: expect.stringContaining('1 of 4 rows, first CARD-') });
    await expect(endRestore(office.ports, 'test', null)).rejects.toMatchObject({
      code: 'RESTORE_UNFINISHED',
    });
    const lost = /CARD-[01]/.exec(steps.told ?? '')?.[0] ?? '';
    expect(await stateOf(office, lost)).toBe('parked');
    const rows = await told(office);
    expect(rows.map(({ outcome, file }) => `${outcome} ${file}`)).toEqual([
      'paid result 1',
      'unpaid result 1',
      'cancelled result 1',
    ]);
    await endRestore(office.ports, 'test', 'the gateway looks for it');
    await lives(office, 2);
    expect(paidFor()).toHaveLength(1);
    expect(await told(office)).toEqual(rows);
    expect(await stateOf(office, lost)).toBe('parked');
    const [parked] = await office.db.query<{ reason: string }>(
      `select reason from parked_items where resolved_at is null and subject = 'invoice'`,
    );
    expect(parked).toEqual({ reason: 'TOLD_OTHERWISE' });
  });

  test('of an adjustment: its number is not given to another one', async () => {
    const office = await restored(
      applied('kita-denryoku', null),
      async (before) => {
        await billsOf(before, ['WRONG']);
        await before.run('charge');
        await delivers(before);
      },
      async (lost) => {
        await recalls(lost, 'WRONG');
        await delivers(lost);
        expect(await ofKind('adjustment', lost)).toEqual([{ sequence: 1 }]);
      },
    );
    expect(await leftOver(office)).toMatchObject({
      charges: expect.stringContaining('1 captures are not provably'),
      told: expect.stringContaining('1 of 1 rows'),
    });
    expect(await ofKind('adjustment', office)).toEqual([{ sequence: 1 }]);
    const [counter] = await office.db.query<{ value: number }>(
      `select value from merchant_counters where name = 'adjustment'`,
    );
    expect(counter).toEqual({ value: 1 });
    // The recall is forgotten, and so is what it gave back.
    expect((await restoreStatus(office.db)).findings).toMatchObject([{ kind: 'unexpected_kind' }]);
  });
});

describe('a cancellation that came after the backup', () => {
  const standard = (ports: Ports) => makeMerchant(ports, 'minato-gas', '');
  const bills = async (office: Office) => {
    const numbers = ['PAID', 'TAKEN-BACK', 'WRONG'];
    outside.folder.drop(
      billingName(1),
      billingFile(
        1,
        numbers.map((number) => ({ number, customer: number })),
      ),
    );
    await office.run('fetch');
    await office.run('ingest');
    await delivers(office);
  };
  const cancels = async (office: Office) => {
    outside.clock.advance(4 * hour);
    await office.run('notify');
    expect(await paysByLink(office, outside, 'PAID', null)).toBe('paid');
    outside.folder.drop('cancel_minato-gas_20261125_0002.csv', cancelFile(2, ['PAID', 'TAKEN-BACK']));
    await office.run('fetch');
    expect((await office.run('ingest')).counts).toMatchObject({ cancelled: 1 });
    await delivers(office);
  };

  test('comes too late again for a bill that was paid before it', async () => {
    const office = await restored(standard, bills, cancels);
    expect(await leftOver(office)).toEqual(nothingLeft);
    expect(await told(office)).toEqual([
      { number: 'PAID', outcome: 'paid', file: 'result 1' },
      { number: 'TAKEN-BACK', outcome: 'cancelled', file: 'result 1' },
    ]);
    await endRestore(office.ports, 'test', null);
    await expectInvariants(office.db);
  });

  test('that is read otherwise than its receipt and tie-out say is said', async () => {
    const office = await restored(standard, bills, cancels);
    outside.gateway.captured.shift();
    expect((await leftOver(office)).told).toMatch(
      /of a file that was read otherwise here.* and 2 more files/,
    );
    expect(await stateOf(office, 'PAID')).toBe('cancelled');
    await expect(endRestore(office.ports, 'test', null)).rejects.toMatchObject({
      code: 'RESTORE_UNFINISHED',
    });
  });
});

describe('a payout that was told after the backup', () => {
  const reported = async (office: Office) => {
    await billsOf(office, ['CARD-0', 'CARD-1']);
    await office.run('charge');
    outside.clock.advance(72 * hour);
    await office.run('reconcile');
    await delivers(office);
  };
  const paysOut = async (office: Office) => {
    outside.gateway.payOut('po_1', '2026-11-27');
    expect((await office.run('reconcile')).counts).toMatchObject({ payouts_posted: 1 });
    await delivers(office);
    expect(await ofKind('settlement', office)).toEqual([{ sequence: 1 }]);
  };
  const claims = (office: Office) =>
    office.db.query(
      `select p.payout_id, p.state, o.sequence from payouts p
       left join outward_files o on o.merchant_id = p.merchant_id and o.id = p.outward_file_id`,
    );
  const once = [{ payout_id: 'po_1', state: 'posted', sequence: 1 }];

  test.each(['kita-denryoku', 'sakura-suido'])(
    'is not told again when it is booked again: %s',
    async (code) => {
      const office = await restored(applied(code, null), reported, paysOut);
      expect(await leftOver(office)).toEqual(nothingLeft);
      await endRestore(office.ports, 'test', null);
      await lives(office, 2);
      expect(await claims(office)).toEqual(once);
      expect(await ofKind('settlement', office)).toEqual([{ sequence: 1 }]);
      await expectInvariants(office.db);
    },
  );

  test('is not told again where it was booked before', async () => {
    const office = await restored(
      applied('kita-denryoku', null),
      async (before) => {
        await reported(before);
        outside.gateway.payOut('po_1', '2026-11-27');
        await before.run('reconcile');
      },
      delivers,
    );
    expect(await leftOver(office)).toEqual(nothingLeft);
    expect(await claims(office)).toEqual(once);
    await endRestore(office.ports, 'test', null);
    await lives(office, 2);
    expect(await ofKind('settlement', office)).toEqual([{ sequence: 1 }]);
  });

  test('is withheld where the gateway tells it otherwise now', async () => {
    const office = await restored(applied('kita-denryoku', null), reported, paysOut);
    expect(await leftOver(office)).toEqual(nothingLeft);
    await endRestore(office.ports, 'test', null);
    outside.gateway.paidOut?.pop();
    outside.gateway.captured.pop();
    outside.gateway.payOut('po_1', '2026-11-27');
    await lives(office, 2);
    expect(await claims(office)).toEqual([{ payout_id: 'po_1', state: 'withheld', sequence: null }]);
    const [finding] = await office.db.query(
      `select kind, ours > theirs as more from findings where state = 'open' and source = 'payout'`,
    );
    expect(finding).toEqual({ kind: 'payout_differs', more: true });
    expect(await ofKind('settlement', office)).toEqual([{ sequence: 1 }]);
  });
});

const bankDebits = `  direct_debit:
    exchange:
      sftp: { host: 127.0.0.1, port: 2222, username: bank, private_key_file: keys/bank, host_keys: ["SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] }
      inbound: results
      outbound: requests
    creditor: { consignor_code: "1234567890", consignor_name: ﾐﾅﾄｶﾞｽ, bank: "0001", branch: "001", account_type: 1, account: "1234567" }
`;

/** A customer's mandate, and a bill that the bank is asked for on the same day. */
async function sendsMandate(live: Office): Promise<void> {
  outside.folder.drop(
    'enrolment_minato-gas_20261125_0001.csv',
    'H,1,minato-gas,enrolment,2026-11-25,1\nD,C1,,start,bank,0001-001-1-0000001,ﾔﾏﾀﾞ ﾊﾅｺ,2026-11-25\nT,1,0\n',
  );
  // Debited on 4 December, asked for seven bank days before: today.
  outside.folder.drop(billingName(2), billingFile(2, [{ number: 'D1', due: '2026-12-04' }]));
  await live.run('fetch');
  await live.run('ingest');
}

test('a forgotten result of bank debits is learned again, before it is looked at what the merchant was told of it', async () => {
  const office = await restored(
    (ports) => makeMerchant(ports, 'minato-gas', bankDebits),
    sendsMandate,
    async (live) => {
      await live.run('debit');
      await delivers(live);
      const [[path, request] = ['', Buffer.alloc(0)]] = [...outside.folder.files].filter(([each]) =>
        /^requests\/.*txt$/.test(each),
      );
      const result = path.replace('requests/', 'results/');
      outside.folder.files.set(result, answerRequest(request, () => '0').bytes);
      outside.folder.files.set(`${result}.done`, Buffer.alloc(0));
      expect((await live.run('debit')).counts).toMatchObject({ booked: 1, paid: 1 });
      await delivers(live);
      expect(outside.folder.received.some(({ text }) => /^R,D1,[^,]*,paid,/m.test(text))).toBe(true);
    },
  );
  expect(await stateOf(office, 'D1')).toBe('open');
  expect((await reconcile(office)).map(({ leftOver }) => leftOver)).toEqual([null, null, null, null]);
  expect(await stateOf(office, 'D1')).toBe('paid');
  await endRestore(office.ports, 'test', null);
  expect((await office.run('debit')).counts).toEqual({});
  await expectInvariants(office.db);
});

test('a forgotten request for bank debits stands again: nobody is asked for twice, and its result finds it', async () => {
  const requests = () => [...outside.folder.files].filter(([path]) => /^requests\/.*txt$/.test(path));
  const office = await restored(
    (ports) => makeMerchant(ports, 'minato-gas', bankDebits),
    sendsMandate,
    async (live) => {
      expect((await live.run('debit')).counts).toMatchObject({ debits: 1 });
      await delivers(live);
      expect(requests()).toHaveLength(1);
    },
  );
  expect((await reconcile(office)).map(({ leftOver }) => leftOver)).toEqual([null, null, null, null]);
  await endRestore(office.ports, 'test', null);
  expect((await office.run('debit')).counts).toEqual({});
  expect(await stateOf(office, 'D1')).toBe('open');
  const [[path, request] = ['', Buffer.alloc(0)]] = requests();
  const result = path.replace('requests/', 'results/');
  outside.folder.files.set(result, answerRequest(request, () => '0').bytes);
  outside.folder.files.set(`${result}.done`, Buffer.alloc(0));
  expect((await office.run('debit')).counts).toMatchObject({ booked: 1, paid: 1 });
  expect(await stateOf(office, 'D1')).toBe('paid');
  await expectInvariants(office.db);
});
