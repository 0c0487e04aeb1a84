import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { classifyInboundName, readDoneFile } from '../../files/standard/names.ts';
import { chunks, readAll, sample } from './given.ts';

interface Expected {
  linesRead: number;
  linesAccepted: number;
  linesRejected: number;
  amountAccepted?: number;
  rejected?: { record: number; code: string; field: string }[];
}

const expected = JSON.parse(sample('expected.json').toString()) as Record<string, Expected>;
/** Whether a number was used before is the database's to know. */
const needsDatabase = /^E_(?:DUPLICATE_|UNKNOWN_|TOO_LATE)/;

describe.each(Object.entries(expected))('%s', (name, want) => {
  const content = sample(`inbound/${name}`);

  test('every line ends as expected', async () => {
    const known = classifyInboundName(name, 'minato-gas');
    if (known.type !== 'data') throw new Error('the name is not known');
    const { lines, verdict } = await readAll(known.kind, chunks(content));
    const rejected = lines
      .filter((line) => line.rejected !== undefined)
      .map((line) => ({ record: line.record, ...line.rejected }));
    const late = (want.rejected ?? []).filter((one) => needsDatabase.test(one.code));
    expect(rejected).toEqual((want.rejected ?? []).filter((one) => !needsDatabase.test(one.code)));
    expect(verdict).toMatchObject({
      fileCode: null,
      linesRead: want.linesRead,
      linesAccepted: want.linesAccepted + late.length,
      linesRejected: want.linesRejected - late.length,
      amountSum: verdict.trailer?.total,
    });
    if (want.amountAccepted !== undefined) {
      const lateAmount = lines
        .filter((line) => late.some((one) => one.record === line.record))
        .reduce((sum, line) => sum + (line.ok !== undefined && 'amount' in line.ok ? line.ok.amount : 0), 0);
      expect(verdict.amountAccepted).toBe(want.amountAccepted + lateAmount);
    }
  });

  test('the control file matches the bytes', async () => {
    const done = readDoneFile(sample(`inbound/${name}.done`).toString(), name);
    const sha256 = createHash('sha256').update(content).digest('hex');
    expect(done).toEqual({ sha256 });
    expect((await readAll('billing', chunks(content))).verdict.sha256).toBe(sha256);
  });
});

test('the quoted line break moves the physical lines after it', async () => {
  const { lines } = await readAll('billing', chunks(sample('inbound/billing_minato-gas_20261126_0002.csv')));
  expect(lines.slice(15).map(({ record, line }) => [record, line])).toEqual([
    [16, 17],
    [17, 18],
    [18, 20],
    [19, 21],
    [20, 22],
  ]);
});

test('an accepted line carries everything in its final form', async () => {
  const { lines } = await readAll('billing', chunks(sample('inbound/billing_minato-gas_20261126_0002.csv')));
  expect(lines[1]).toEqual({
    line: 3,
    record: 2,
    ok: {
      billingNumber: 'MG2611-00042',
      customerNumber: 'G100042',
      customerName: '山本 健',
      phone: { e164: '+819010422042', kind: 'mobile' },
      email: 'g42@example.com',
      amount: 8234,
      taxRate: 10,
      taxAmount: 748,
      billingPeriod: '2026-11',
      dueOn: '2026-12-28',
      collection: 'default',
      description: '11月分 ガス料金 52m3',
    },
  });
  expect(lines[2]?.ok?.phone).toEqual({ e164: '+81312345678', kind: 'not_mobile' });
  expect(lines[3]?.ok?.phone).toEqual({ e164: null, kind: 'none' });
});
