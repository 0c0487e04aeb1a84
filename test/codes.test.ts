import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkInvariants } from '../billing/checks/queries.ts';
import { fileBytesMax, isHoldCode } from '../billing/exchanges/file.ts';
import { gatesOf } from '../billing/merchants/settings.ts';
import { catalogue } from '../files/standard/catalogue.ts';
import { deliver } from '../jobs/deliver.ts';
import { type Office, openOffice } from './inbox.ts';

/** One small file by hand for each code: what a merchant sends, and what comes back. */
const samples = join(import.meta.dirname, 'samples');
const codes = fs.readdirSync(samples).filter((name) => /^[FEW]_/.test(name));

let office: Office;
beforeEach(async () => {
  office = await openOffice();
  fs.mkdirSync(join(office.inbox, '../outbound'));
  // As a merchant has it who says nothing of gates, but for two bills a month of one customer.
  await office.change((settings) => ({ ...settings, gates: { ...gatesOf({}), twice: false } }));
});
afterEach(async () => {
  await office.close();
});

/** Drops all files of a folder and returns the last one's name. */
async function take(folder: string): Promise<string> {
  const names = fs.readdirSync(join(samples, folder)).sort();
  const files = names.filter((name) => !name.endsWith('.done'));
  for (const name of files) {
    const content = fs.readFileSync(join(samples, folder, name));
    const done = names.includes(`${name}.done`)
      ? fs.readFileSync(join(samples, folder, `${name}.done`), 'utf8')
      : undefined;
    office.drop(name, content, done);
    // Nobody keeps 4 GiB as a sample, and nobody downloads them: a file with a hole has the size.
    if (folder === 'F_TOO_LARGE') {
      fs.truncateSync(join(office.inbox, name), fileBytesMax + 1);
      fs.writeFileSync(join(office.inbox, `${name}.done`), '');
    }
    await office.fetch();
    const end = await office.ingest();
    expect(end.failure).toBeNull();
  }
  return files.at(-1) ?? '';
}

async function receiptOf(name: string): Promise<string[][]> {
  expect((await office.run(deliver)).failure).toBeNull();
  const outbound = join(office.inbox, '../outbound');
  const receipts = fs
    .readdirSync(outbound)
    .filter((file) => file.startsWith('receipt_') && file.endsWith('.csv'))
    .map((file) =>
      fs
        .readFileSync(join(outbound, file), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => line.split(',')),
    )
    .filter((rows) => rows[1]?.[1] === name);
  expect(receipts.length).toBeLessThan(2);
  return receipts[0] ?? [];
}

describe('every code', () => {
  it('has a sample, and every sample is of a code', () => {
    expect([...codes].sort()).toEqual(Object.keys(catalogue).sort());
  });

  it.each(codes)('%s', async (code) => {
    await take('before');
    if (code === 'F_LINES_REJECTED')
      await office.change((settings) => ({
        ...settings,
        exchange: { ...settings.exchange, reject: 'file' },
      }));
    const name = await take(code);
    const [file] = await office.db.query<{ state: string; file_code: string | null }>(
      `select state, file_code from billing_files where name = $1 order by fetched_at desc, id desc limit 1`,
      [name],
    );
    const receipt = await receiptOf(name);
    if (isHoldCode(code)) {
      expect(file).toEqual({ state: 'held', file_code: code });
      expect(receipt).toEqual([]);
    } else if (code.startsWith('F_')) {
      expect(file).toEqual({ state: 'refused', file_code: code });
      expect(receipt[1]?.slice(3)).toEqual(['rejected', code, '0', '0', '0', '0']);
    } else {
      expect(file).toEqual({ state: 'released', file_code: null });
      const rows = receipt.filter(([record]) => record === 'R');
      expect(rows.map((row) => row[4])).toEqual([code]);
      expect(rows[0]?.[6]).toBe(catalogue[code as keyof typeof catalogue]);
      expect(rows[0]?.[3]).toBe(code.startsWith('E_') ? 'rejected' : 'warning');
    }
    const { invariants } = await checkInvariants(office.db, { only: [1, 2, 11, 14] });
    expect(invariants.filter((invariant) => !invariant.holds)).toEqual([]);
  });
});
