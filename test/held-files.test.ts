import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkInvariants } from '../billing/checks/queries.ts';
import { tieOutOf } from '../billing/exchanges/tie-out.ts';
import { parkedItems } from '../billing/parked/queries.ts';
import { type ReleaseWhat, releaseParked } from '../billing/parked/release.ts';
import { returnHeldFiles, returnParked } from '../billing/parked/return.ts';
import { parseReleaseRule } from '../billing/parked/rule.ts';
import { dunning } from '../jobs/dunning.ts';
import { notify } from '../jobs/notify.ts';
import { type BillFields, billingFile, billingName, cancelFile, type Office, openOffice } from './inbox.ts';

let office: Office;
beforeEach(async () => {
  office = await openOffice();
});
afterEach(async () => {
  const { invariants } = await checkInvariants(office.db);
  await office.close();
  expect(invariants.filter((invariant) => !invariant.holds)).toEqual([]);
});

async function take(name: string, content: string) {
  office.drop(name, content);
  await office.fetch();
  return office.ingest();
}
const send = (sequence: number, bills: readonly BillFields[]) =>
  take(billingName(sequence), billingFile(sequence, bills));
const states = async () =>
  (
    await office.db.query<{ sequence: number; state: string; file_code: string | null }>(
      `select sequence, state, file_code from billing_files order by fetched_at, id`,
    )
  ).map(({ sequence, state, file_code }) => [sequence, state, file_code].filter(Boolean).join(' '));
const release = (what: Partial<ReleaseWhat>) =>
  releaseParked(
    office.ports,
    office.merchant,
    { billingNumbers: [], files: [], rule: null, ...what },
    'operator@test',
  );
const bills = async () =>
  (
    await office.db.query<{ billing_number: string; state: string }>(
      `select billing_number, state from invoices order by payment_number`,
    )
  ).map((bill) => `${bill.billing_number} ${bill.state}`);

describe('double billing is stopped four times over', () => {
  it('by name and by sequence number', async () => {
    await send(1, [{ number: 'A' }]);
    await take(billingName(1), billingFile(2, [{ number: 'B' }]));
    await take(billingName(2), billingFile(1, [{ number: 'C' }]));
    expect(await states()).toEqual([
      '1 released',
      'refused F_DUPLICATE_FILE',
      '1 refused F_DUPLICATE_SEQUENCE',
    ]);
  });

  it('by bytes', async () => {
    await send(1, [{ number: 'A' }]);
    await take(billingName(2), billingFile(1, [{ number: 'A' }]));
    expect(await states()).toEqual(['1 released', 'refused F_DUPLICATE_FILE']);
  });

  it('by what it looks like: count, total, first and last number; and never for empty ones', async () => {
    await send(1, [{ number: 'A' }, { number: 'B' }]);
    const end = await send(2, [{ number: 'A', phone: '090-9999-9999' }, { number: 'B' }]);
    expect(end).toMatchObject({ outcome: 'attention', counts: { files_held: 1 } });
    expect(await states()).toEqual(['1 released', '2 held F_LOOKS_RESENT']);
    expect(await parkedItems(office.db)).toMatchObject([
      { subject: 'file', reason: 'F_LOOKS_RESENT', file_name: billingName(2) },
    ]);
    // Its number and bytes are taken while it waits.
    await take(billingName(3), billingFile(2, [{ number: 'C' }]));
    expect((await states()).at(-1)).toBe('2 refused F_DUPLICATE_SEQUENCE');
    // A person says that it was meant: the last layer still stands.
    expect(await release({ files: [billingName(2)] })).toMatchObject({ files: [billingName(2)] });
    await office.ingest();
    expect(await states()).toContain('2 released');
    expect(await bills()).toEqual(['A open', 'B open']);
    await send(3, []);
    await send(4, []);
    expect((await states()).slice(-2)).toEqual(['3 released', '4 released']);
  });

  it('by billing number, for ever', async () => {
    await send(1, [{ number: 'A' }]);
    await send(2, [{ number: 'A', amount: '2000' }]);
    expect(await bills()).toEqual(['A open']);
    expect(await office.db.query(`select code from line_findings`)).toEqual([
      { code: 'E_DUPLICATE_BILLING' },
    ]);
  });
});

describe('a gap in the sequence', () => {
  it('holds what comes after it, of any kind, until it is filled', async () => {
    await send(1, [{ number: 'A' }]);
    await send(3, [{ number: 'C' }]);
    await take('cancel_minato-gas_20261125_0004.csv', cancelFile(4, ['A']));
    expect(await states()).toEqual(['1 released', '3 held F_SEQUENCE_GAP', '4 held F_SEQUENCE_GAP']);
    expect(await office.ingest()).toMatchObject({ outcome: 'done', counts: {} });
    expect(await office.db.query(`select level, cause from alerts`)).toEqual([
      { level: 'now', cause: 'F_SEQUENCE_GAP' },
    ]);
    // A refused file does not fill it.
    await take(billingName(2), billingFile(2, [{ number: 'B' }], { count: 7 }));
    expect(await states()).toContain('3 held F_SEQUENCE_GAP');
    await send(2, [{ number: 'B' }]);
    expect(await states()).toEqual([
      '1 released',
      '3 released',
      '4 released',
      '2 refused F_COUNT_MISMATCH',
      '2 released',
    ]);
    expect(await bills()).toEqual(['A cancelled', 'B open', 'C open']);
    expect(await parkedItems(office.db)).toEqual([]);
  });

  it('is set aside by a person, who stands in the history; what was missing may still come', async () => {
    await send(1, [{ number: 'A' }]);
    await send(4, [{ number: 'D' }]);
    expect(await release({ files: [billingName(4), billingName(1)] })).toEqual({
      bills: [],
      files: [billingName(4)],
      kept: [{ name: billingName(1), why: 'not_parked' }],
    });
    await office.ingest();
    await send(5, [{ number: 'E' }]);
    await send(2, [{ number: 'B' }]);
    expect(await states()).toEqual(['1 released', '4 released', '5 released', '2 released']);
    expect(
      await office.db.query(
        `select a.actor from state_history h
         join acts a on a.merchant_id = h.merchant_id and a.id = h.act_id and a.kind = 'command'
         where h.subject = 'file'`,
      ),
    ).toEqual([{ actor: 'operator@test' }]);
  });

  it('may be given back, too: the receipt says why, and the number is free', async () => {
    await send(2, [{ number: 'B' }]);
    expect(
      await returnHeldFiles(office.ports, office.merchant, [billingName(2), 'nothing.csv'], 'operator@test'),
    ).toEqual({ returned: [billingName(2)], kept: ['nothing.csv'] });
    await send(1, [{ number: 'A' }]);
    await send(2, [{ number: 'B' }]);
    expect(await states()).toEqual(['2 refused F_SEQUENCE_GAP', '1 released', '2 released']);
  });

  it('one reason set aside, another one may hold it', async () => {
    await send(1, [{ number: 'A' }, { number: 'B' }]);
    await send(3, [{ number: 'A', name: '別人' }, { number: 'B' }]);
    await release({ files: [billingName(3)] });
    await office.ingest();
    expect(await states()).toEqual(['1 released', '3 held F_LOOKS_RESENT']);
    await release({ files: [billingName(3)] });
    await office.ingest();
    expect(await states()).toEqual(['1 released', '3 released']);
  });
});

describe('the gate', () => {
  const gates = { fileTimes: 5, billTimes: 10, twice: true };
  const month = (no: number) => ({ period: `2026-${String(no).padStart(2, '0')}` });
  const people = (no: number, amount = '1000'): BillFields[] =>
    Array.from({ length: 4 }, (_, at) => ({
      customer: `C${at}`,
      number: `M${no}-${at}`,
      amount,
      ...month(no),
    }));

  beforeEach(async () => {
    await office.change((settings) => ({ ...settings, gates }));
  });

  it('parks a bill ten times the usual before any SMS, and lets it go one by one, by rule, or back', async () => {
    for (const no of [6, 7]) await send(no - 5, people(no));
    await send(3, [
      { customer: 'C0', number: 'X0', amount: '9999', ...month(8) },
      { customer: 'C1', number: 'X1', amount: '10000', ...month(8) },
      { customer: 'C2', number: 'X2', amount: '50000', ...month(8) },
      { customer: 'C3', number: 'X3', amount: '20000', ...month(8) },
      { customer: 'NEW', number: 'X4', amount: '99999', ...month(8) },
    ]);
    expect((await bills()).slice(8)).toEqual(['X0 open', 'X1 parked', 'X2 parked', 'X3 parked', 'X4 open']);
    expect(await office.db.query(`select cause, occurrences from alerts`)).toEqual([
      { cause: 'AMOUNT_UNUSUAL', occurrences: 3 },
    ]);
    const [tieOut] = await office.db.query<{ id: string }>(`select id from billing_files where sequence = 3`);
    expect(await tieOutOf(office.db, office.merchant.id, tieOut?.id ?? '')).toMatchObject({
      outcomes: { open: { count: 2 }, parked: { count: 3, amount: 80_000 } },
      closes: true,
    });
    office.clock.advance(2 * 3_600_000);
    await office.run(notify);
    expect(
      await office.db.query(
        `select 1 from messages m join invoices i on i.id = m.invoice_id where i.state = 'parked'`,
      ),
    ).toEqual([]);

    const rule = parseReleaseRule('reason=AMOUNT_UNUSUAL, times<=20');
    expect(await release({ billingNumbers: ['X1'], rule })).toMatchObject({ bills: ['X1', 'X3'], kept: [] });
    expect(await release({ billingNumbers: ['X1'], rule })).toMatchObject({
      bills: [],
      kept: [{ name: 'X1', why: 'not_parked' }],
    });
    await returnParked(office.ports, office.merchant, ['X2'], 'operator@test');
    await office.run(dunning);
    expect((await bills()).slice(8)).toEqual(['X0 open', 'X1 open', 'X2 unpaid', 'X3 open', 'X4 open']);
    // Released, they begin as any other bill.
    expect(
      await office.db.query(
        `select i.billing_number, m.step from messages m join invoices i on i.id = m.invoice_id
         where i.billing_number in ('X1', 'X3') order by 1`,
      ),
    ).toEqual([
      { billing_number: 'X1', step: 'first_notice' },
      { billing_number: 'X3', step: 'first_notice' },
    ]);
  });

  it('parks a second bill of one period, unless the first was taken back or the contract always has two', async () => {
    await send(1, [
      { customer: 'C0', number: 'A', ...month(8) },
      { customer: 'C1', number: 'B', ...month(8) },
    ]);
    await take('cancel_minato-gas_20261125_0002.csv', cancelFile(2, ['B']));
    await send(3, [
      { customer: 'C0', number: 'A2', ...month(8) },
      { customer: 'C1', number: 'B2', ...month(8) },
      { customer: 'C2', number: 'C', ...month(8) },
      { customer: 'C2', number: 'C2', ...month(8) },
    ]);
    expect(await bills()).toEqual(['A open', 'B cancelled', 'A2 parked', 'B2 open', 'C open', 'C2 parked']);
    await release({ rule: parseReleaseRule('reason=BILLED_TWICE') });
    await send(4, [
      { customer: 'C2', number: 'D', ...month(9) },
      { customer: 'C2', number: 'D2', ...month(9) },
      { customer: 'C2', number: 'D3', ...month(9) },
    ]);
    expect((await bills()).slice(-3)).toEqual(['D open', 'D2 open', 'D3 parked']);
  });

  it('holds a file of five times the usual, not before five files say what is usual', async () => {
    for (const no of [1, 2, 3, 4, 5]) await send(no, people(no));
    const many = (no: number) =>
      Array.from({ length: 20 }, (_, at) => ({ number: `Y${no}-${at}`, customer: `Y${at}` }));
    await send(6, many(6));
    expect((await states()).at(-1)).toBe('6 held F_UNUSUAL');
    await release({ files: [billingName(6)] });
    await office.ingest();
    expect((await states()).at(-1)).toBe('6 released');
    // The first bill of a contract has no usual: it is compared with the merchant's average bill.
    await send(7, [{ customer: 'FIRST', number: 'Z', amount: '10000' }]);
    expect((await bills()).at(-1)).toBe('Z parked');
  });

  it('is off where the merchant says so', async () => {
    await office.change((settings) => ({ ...settings, gates: { fileTimes: 0, billTimes: 0, twice: false } }));
    await send(1, [{ customer: 'C' }, { customer: 'C', amount: '99999999' }]);
    expect(await bills()).toEqual(['B1-1 open', 'B1-2 open']);
  });
});
