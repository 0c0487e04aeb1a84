import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { planOf } from '../billing/autopay/plan.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import { openContact } from '../billing/customers/contact.ts';
import { changeHoldByHand } from '../billing/holds/place.ts';
import { countDue } from '../billing/messages/queries.ts';
import { dunning } from '../jobs/dunning.ts';
import { notify } from '../jobs/notify.ts';
import { billingFile, billingName, type Office, openOffice } from './inbox.ts';

/** The kinds that bring no bills, and what standard/2 says of one. */

let office: Office;
beforeEach(async () => {
  office = await openOffice();
});
afterEach(async () => {
  const { invariants } = await checkInvariants(office.db);
  await office.close();
  expect(invariants.filter((invariant) => !invariant.holds)).toEqual([]);
});

async function take(kind: string, sequence: number, records: readonly string[], version = 1, total = 0) {
  const name = `${kind}_minato-gas_20261125_${String(sequence).padStart(4, '0')}.csv`;
  const content = [
    `H,${version},minato-gas,${kind},2026-11-25,${sequence}`,
    ...records,
    `T,${records.length},${total}`,
    '',
  ].join('\n');
  office.drop(name, content);
  await office.fetch();
  const end = await office.ingest();
  expect(end.failure).toBeNull();
  return end;
}

async function bills(sequence: number, customers: readonly string[], collection = ''): Promise<void> {
  const lines = customers.map((customer) => ({ customer, collection }));
  office.drop(billingName(sequence), billingFile(sequence, lines));
  await office.fetch();
  expect((await office.ingest()).failure).toBeNull();
}

const findings = (sequence: number) =>
  office.db.query<{ line_no: number; code: string; field: string }>(
    `select l.line_no, l.code, l.field
     from line_findings l join billing_files f on f.merchant_id = l.merchant_id and f.id = l.file_id
     where f.sequence = $1 and f.state <> 'refused' order by l.line_no`,
    [sequence],
  );
const told = async (sequence: number) =>
  (await findings(sequence)).map(({ line_no, code, field }) => `${line_no} ${code} ${field}`);

describe('holds', () => {
  const due = () => countDue(office.db, office.merchant.id, '2026-11-25');
  const agenda = () =>
    office.db.query<{ billing_number: string; act: string; act_on: string }>(
      `select i.billing_number, a.act, a.act_on from agenda a
       join invoices i on i.merchant_id = a.merchant_id and i.id = a.invoice_id order by i.billing_number`,
    );

  it('narrowed by one file to one contract stand for that one', async () => {
    const bill = 'D,B1,C1,鈴木 花子,090-1234-5678,,1000,10,,2026-11,2026-12-28,,ガス料金,M1,,,';
    await take('billing', 1, [bill], 2, 1000);
    await take('hold', 2, ['D,C1,,place,dispute,']);
    await take('hold', 3, ['D,C1,M1,place,dispute,', 'D,C1,,lift,dispute,']);
    expect(
      await office.db.query(
        `select t.contract_number from holds h join contracts t on t.id = h.contract_id where h.lifted_at is null`,
      ),
    ).toEqual([{ contract_number: 'M1' }]);
  });

  it('by file stop SMS and charges, of one contract or all, until they are lifted', async () => {
    await bills(1, ['C1', 'C2']);
    const end = await take('hold', 2, [
      'D,C1,,place,dispute,',
      'D,C9,,place,dispute,',
      'D,C2,OTHER,place,hardship,2026-12-31',
      'D,C1,,place,dispute,2026-12-31',
      'D,C2,,place,whim,',
      'D,C2,,place,hardship,2026-02-30',
    ]);
    expect(end).toMatchObject({ counts: { holds: 1, lines_rejected: 5 } });
    expect(await told(2)).toEqual([
      '3 E_UNKNOWN_CUSTOMER customer_number',
      '4 E_UNKNOWN_CUSTOMER contract_number',
      '5 E_DUPLICATE_IN_FILE customer_number',
      '6 E_FORMAT reason',
      '7 E_DATE until',
    ]);
    office.clock.advance(2 * 3_600_000);
    expect((await office.run(notify)).failure).toBeNull();
    expect(
      await office.db.query(
        `select c.customer_number, m.state from messages m
         join invoices i on i.merchant_id = m.merchant_id and i.id = m.invoice_id
         join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id order by 1`,
      ),
    ).toEqual([
      { customer_number: 'C1', state: 'planned' },
      { customer_number: 'C2', state: 'sent' },
    ]);
    expect(await due()).toBe(0);
    // Dunning looks again after the hold; without an end, in a month.
    await office.db.run(`update agenda set act_on = '2026-11-25'`);
    await office.run(dunning);
    expect((await agenda())[0]).toMatchObject({ act: 'dun', act_on: '2026-12-25' });

    await take('hold', 3, ['D,C1,,lift,dispute,']);
    expect(await due()).toBe(1);
    expect((await agenda())[0]).toMatchObject({ act: 'dun', act_on: '2026-11-25' });
    expect(
      await office.db.query(
        `select h.from_state, h.to_state, a.kind from state_history h
         join acts a on a.merchant_id = h.merchant_id and a.id = h.act_id where h.subject = 'hold' order by h.version`,
      ),
    ).toEqual([
      { from_state: null, to_state: 'standing', kind: 'job' },
      { from_state: 'standing', to_state: 'lifted', kind: 'job' },
    ]);
  });

  it('keep an automatic bill from being charged, also when a person placed them', async () => {
    await take('enrolment', 1, ['D,C1,,start,card,tok_1,,2026-11-25', 'D,C2,,start,card,tok_2,,2026-11-25']);
    await bills(2, ['C1', 'C2']);
    const hold = {
      customerNumber: 'C1',
      contractNumber: '',
      what: 'place',
      reason: 'deceased',
      untilOn: null,
    } as const;
    await changeHoldByHand(office.ports, office.merchant, hold, 'operator');
    await changeHoldByHand(office.ports, office.merchant, hold, 'operator');
    expect(await office.db.query(`select reason from holds`)).toHaveLength(1);
    const plan = await planOf(office.db, office.merchant, office.ports.gateway.name, '2026-12-28');
    expect(plan.charges).toMatchObject([{ bills: 1, method: 'card' }]);
    expect(plan.leftOut).toMatchObject([{ reason: 'held', bills: 1 }]);
    await expect(
      changeHoldByHand(office.ports, office.merchant, { ...hold, customerNumber: 'C8' }, 'operator'),
    ).rejects.toMatchObject({ code: 'CUSTOMER_UNKNOWN' });
  });

  it('that end on another day are new ones: what a hold once said stays', async () => {
    await bills(1, ['C1']);
    await take('hold', 2, ['D,C1,,place,dispute,2026-11-30']);
    await take('hold', 3, ['D,C1,,place,dispute,2026-12-31']);
    expect(
      await office.db.query(`select until_on, lifted_at is not null as lifted from holds order by until_on`),
    ).toEqual([
      { until_on: '2026-11-30', lifted: true },
      { until_on: '2026-12-31', lifted: false },
    ]);
  });
});

describe('enrolments by file', () => {
  it('make customers and contracts; cards are charged, banks go by link, and the first bill brings the name', async () => {
    const end = await take('enrolment', 1, [
      'D,C1,,start,card,tok_1,,2026-11-25',
      'D,C2,,start,bank,0001-103-1-7000111,ﾔﾏﾀﾞ ﾊﾅｺ,2026-11-25',
      'D,C3,,change,card,tok_3,,2026-11-25',
      'D,C4,M-1,start,card,tok_4,,2026-12-01',
      'D,C5,,start,card,4111111111111111,,2026-11-25',
      'D,C6,,start,bank,0001-103-1-7000111,,2026-11-25',
      'D,C7,,start,card,tok_7,,2026-02-30',
    ]);
    expect(end.counts).toMatchObject({ enrolments: 3, lines_rejected: 4 });
    expect(await told(1)).toEqual([
      '4 E_UNKNOWN_CUSTOMER customer_number',
      '6 E_CARD_NUMBER account',
      '7 E_REQUIRED holder',
      '8 E_DATE effective_from',
    ]);
    expect(await office.db.query(`select cause from alerts`)).toEqual([{ cause: 'BANK_BY_LINK' }]);
    const [bank] = await office.db.query<{ id: string; sealed_token: Buffer }>(
      `select id, sealed_token from payment_methods where kind = 'bank'`,
    );
    expect(office.ports.sealer.open('method', bank?.sealed_token ?? Buffer.alloc(0), bank?.id ?? '')).toBe(
      '["0001-103-1-7000111","ﾔﾏﾀﾞ ﾊﾅｺ"]',
    );
    await bills(2, ['C1', 'C2', 'C4']);
    // The second bill is under another name: the first one's counts, whatever the account holder is called.
    office.drop(billingName(3), billingFile(3, [{ customer: 'C1', name: '別人 太郎', collection: 'auto' }]));
    await office.fetch();
    await office.ingest();
    expect(
      await office.db.query(
        `select c.customer_number, i.collection from invoices i
         join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id order by i.payment_number`,
      ),
    ).toEqual([
      { customer_number: 'C1', collection: 'auto' },
      { customer_number: 'C2', collection: 'link' },
      { customer_number: 'C4', collection: 'link' },
      { customer_number: 'C1', collection: 'link' },
    ]);
    expect(await told(2)).toEqual([]);
    expect(await told(3)).toEqual(['2 W_NAME_CHANGED customer_name']);
    // The merchant knows of them: nothing is told back.
    expect(await office.db.query(`select 1 from enrolment_rows`)).toEqual([]);
  });

  it('change and end', async () => {
    await take('enrolment', 1, ['D,C1,,start,card,tok_1,,2026-11-25', 'D,C2,,start,card,tok_2,,2026-11-25']);
    await take('enrolment', 2, [
      'D,C1,,change,card,tok_9,,2026-11-25',
      'D,C2,,end,card,,,2026-11-25',
      'D,C2,,start,card,tok_8,,2026-11-25',
    ]);
    expect(await told(2)).toEqual(['4 E_DUPLICATE_IN_FILE customer_number']);
    await bills(3, ['C1', 'C2'], 'auto');
    expect(await told(3)).toEqual(['3 W_FALLBACK_LINK collection']);
    expect(
      await office.db.query(`select state, count(*) as n from enrolments group by state order by state`),
    ).toEqual([
      { state: 'active', n: 1 },
      { state: 'ended', n: 2 },
    ]);
  });
});

describe('a contact file', () => {
  const contactOf = async (billingNumber: string) => {
    const [row] = await office.db.query<{ sealed: Buffer; customer_number: string }>(
      `select k.sealed, c.customer_number from invoices i
       join customers c on c.merchant_id = i.merchant_id and c.id = i.customer_id
       join contacts k on k.merchant_id = i.merchant_id and k.customer_id = i.customer_id and k.version = i.contact_version
       where i.billing_number = $1`,
      [billingNumber],
    );
    return openContact(
      office.ports.sealer,
      office.merchant.id,
      row?.customer_number ?? '',
      row?.sealed ?? Buffer.alloc(0),
    );
  };

  it('changes how a customer is reached, keeps the name, and open bills follow', async () => {
    await bills(1, ['C1']);
    await take('contact', 2, ['D,C1,080-9999-0001,new@example.jp', 'D,C7,080-9999-0002,']);
    expect(await told(2)).toEqual(['3 E_UNKNOWN_CUSTOMER customer_number']);
    expect(await contactOf('B1-1')).toEqual({
      name: '鈴木 花子',
      phone: '+818099990001',
      email: 'new@example.jp',
    });
    // Back to what it was: the version of then, said again.
    await take('contact', 3, ['D,C1,090-1234-5678,']);
    expect(await contactOf('B1-1')).toMatchObject({ phone: '+819012345678', email: null });
    expect(await office.db.query(`select version, sequence from contacts order by version`)).toEqual([
      { version: 1, sequence: 3 },
      { version: 2, sequence: 2 },
    ]);
  });
});

describe('standard/2', () => {
  const d = (number: string, more: string, amount = 1000, customer = 'C1') =>
    `D,${number},${customer},鈴木 花子,090-1234-5678,,${amount},10,,2026-11,2026-12-28,,ガス料金,${more}`;
  const issued = () =>
    office.db.query(
      `select i.billing_number, t.contract_number, i.usage_from, i.usage_to, i.state from invoices i
       join contracts t on t.merchant_id = i.merchant_id and t.id = i.contract_id order by i.payment_number`,
    );

  it('brings contracts, days of use and tax lines by issuer', async () => {
    const end = await take(
      'billing',
      1,
      [
        d('A1', 'M-1,2026-10-20,2026-11-19,'),
        'L,A1,ガス,700,10,70,T1234567890123',
        'L,A1,集金,213,8,17,',
        d('A2', 'M-2,,,'),
        d('A3', ',2026-11-19,2026-10-20,'),
        d('A4', ',,,'),
        'L,A4,ガス,900,10,90,',
        d('A5', ',2026-10-20,,'),
        'L,A5,ガス,909,10,91,',
        d('A6', ',,,'),
        'L,A6,ガス,909,10,91,X',
        'L,A9,nobody’s,1,10,0,',
      ],
      2,
      6_000,
    );
    expect(end.counts).toMatchObject({ lines_read: 6, lines_accepted: 2, lines_rejected: 4 });
    expect(await told(1)).toEqual([
      '6 E_RANGE usage_to',
      '7 E_RANGE amount',
      '9 E_REQUIRED usage_to',
      '12 E_FORMAT issuer_registration_number',
    ]);
    const { registrationNumber: registered } = office.merchant.settings;
    expect(await issued()).toMatchObject([
      { billing_number: 'A1', contract_number: 'M-1', usage_from: '2026-10-20', usage_to: '2026-11-19' },
      { billing_number: 'A2', contract_number: 'M-2', usage_from: null },
    ]);
    expect(
      await office.db.query(
        `select i.billing_number, t.line_no, t.description, t.tax_rate, t.taxable_amount, t.tax_amount,
                t.issuer_registration_number as issuer
         from invoice_tax_lines t join invoices i on i.merchant_id = t.merchant_id and i.id = t.invoice_id
         order by i.payment_number, t.line_no`,
      ),
    ).toMatchObject([
      { line_no: 1, description: 'ガス', taxable_amount: 700, tax_amount: 70, issuer: 'T1234567890123' },
      // Blank: the merchant is the issuer itself.
      { line_no: 2, description: '集金', tax_rate: 8, taxable_amount: 213, issuer: registered },
      { line_no: 1, taxable_amount: 910, tax_amount: 90, issuer: registered },
    ]);
  });

  it('corrects a bill: the old one ends as the new one is released, if nobody has paid it', async () => {
    await bills(1, ['C1', 'C2', 'C3']);
    await office.db.run(`update invoices set state = 'paid' where billing_number = 'B1-2'`);
    await take(
      'billing',
      2,
      [
        d('N1', ',,,B1-1'),
        d('N2', ',,,B1-2', 1000, 'C2'),
        d('N3', ',,,NEVER'),
        d('N4', ',,,B1-1'),
        d('N5', ',,,N5'),
      ],
      2,
      5_000,
    );
    expect(await told(2)).toEqual([
      '3 E_TOO_LATE replaces',
      '4 E_UNKNOWN_BILLING replaces',
      '5 E_DUPLICATE_IN_FILE replaces',
      '6 E_FORMAT replaces',
    ]);
    expect((await issued()).map((bill) => `${bill.billing_number} ${bill.state}`)).toEqual([
      'B1-1 cancelled',
      'B1-2 paid',
      'B1-3 open',
      'N1 open',
    ]);
    expect(await office.db.query(`select outcome, reason from result_rows`)).toEqual([
      { outcome: 'cancelled', reason: 'replaced' },
    ]);
    await office.db.run(`update invoices set state = 'open' where billing_number = 'B1-2'`);
  });

  it('tells a person that a correction came too late, also where a gate has parked it', async () => {
    await bills(1, ['C1']);
    office.drop(billingName(2), `H,2,minato-gas,billing,2026-11-25,2\n${d('N1', ',,,B1-1')}\nT,1,1000\n`);
    await office.fetch();
    office.killAt('ingest.before_release');
    await office.ingest();
    await office.db.run(`update invoices set state = 'paid' where billing_number = 'B1-1'`);
    await office.db.run(`update invoices set state = 'parked' where billing_number = 'N1'`);
    await office.db.run(
      `insert into parked_items (merchant_id, id, subject, subject_id, reason, context, parked_at)
       select merchant_id, gen_random_uuid(), 'invoice', id::text, 'AMOUNT_UNUSUAL', '{}', created_at from invoices
       where billing_number = 'N1'`,
    );
    await office.ingest();
    await office.db.run(`update invoices set state = 'open' where billing_number = 'B1-1'`);
    expect(await office.db.query(`select reason from parked_items where resolved_at is null`)).toEqual([
      { reason: 'REPLACED_TOO_LATE' },
    ]);
  });

  it('parks a correction whose bill was paid while it was loaded', async () => {
    await bills(1, ['C1']);
    office.drop(billingName(2), `H,2,minato-gas,billing,2026-11-25,2\n${d('N1', ',,,B1-1')}\nT,1,1000\n`);
    await office.fetch();
    office.killAt('ingest.before_release');
    await office.ingest();
    await office.db.run(`update invoices set state = 'paid' where billing_number = 'B1-1'`);
    await office.ingest();
    await office.db.run(`update invoices set state = 'open' where billing_number = 'B1-1'`);
    expect((await issued()).map((bill) => `${bill.billing_number} ${bill.state}`)).toEqual([
      'B1-1 open',
      'N1 parked',
    ]);
    expect(await office.db.query(`select reason from parked_items`)).toEqual([
      { reason: 'REPLACED_TOO_LATE' },
    ]);
  });
});
