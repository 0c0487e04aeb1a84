import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { tieOutOf } from '../billing/exchanges/tie-out.ts';
import { deliver } from '../jobs/deliver.ts';
import { type Office, openOffice, samplesFolder } from './inbox.ts';

interface Told {
  status: string;
  linesRead: number;
  linesAccepted: number;
  linesRejected: number;
  amountAccepted?: number;
  warnings?: number;
}

let office: Office;
afterEach(() => office.close());

const folderOf = (which: string) =>
  fs.readdirSync(join(office.inbox, '..', which)).filter((name) => !name.endsWith('.done'));

/** What the merchant finds in its outbound folder, in its own encoding. */
const outward = (which: string, start: string): string => {
  const name = folderOf(which).find((each) => each.startsWith(start));
  return new TextDecoder('shift_jis', { fatal: true }).decode(
    fs.readFileSync(join(office.inbox, '..', which, name ?? `no ${start} among ${folderOf(which)}`)),
  );
};

/** As they lie in the samples, through the demo's SFTP server. */
async function take(merchant: string): Promise<Record<string, Told>> {
  office = await openOffice(merchant);
  const { outbound } = office.merchant.settings.exchange;
  fs.mkdirSync(join(office.inbox, '..', outbound), { recursive: true });
  const expected = JSON.parse(
    fs.readFileSync(join(samplesFolder, merchant, 'expected.json'), 'utf8'),
  ) as Record<string, Told>;
  for (const name of Object.keys(expected)) office.dropSample(name);
  expect(await office.fetch()).toMatchObject({ outcome: 'done' });
  expect(await office.ingest()).toMatchObject({ outcome: 'done' });
  return expected;
}

async function filesOf(): Promise<Map<string, Record<string, unknown>>> {
  const rows = await office.db.query<Record<string, unknown> & { name: string }>(
    `select f.id, f.name, f.state, f.layout, f.sequence, f.business_date, f.lines_read, f.lines_accepted,
            f.lines_rejected, f.amount_accepted,
            (select count(*) from line_findings l
             where l.merchant_id = f.merchant_id and l.file_id = f.id and l.severity = 'warning') as warnings
     from billing_files f`,
  );
  return new Map(rows.map((row) => [row.name, row]));
}

describe.each(['kita-denryoku', 'sakura-suido'])('the samples of %s', (merchant) => {
  it('give exactly what is expected of them', async () => {
    const expected = await take(merchant);
    const files = await filesOf();
    expect([...files.keys()].sort()).toEqual(Object.keys(expected).sort());
    for (const [name, told] of Object.entries(expected)) {
      const file = files.get(name);
      expect(file).toMatchObject({
        state: 'released',
        layout: `${merchant}/1`,
        lines_read: told.linesRead,
        lines_accepted: told.linesAccepted,
        lines_rejected: told.linesRejected,
        amount_accepted: told.amountAccepted ?? 0,
      });
      expect(file?.warnings).toBe(told.warnings ?? 0);
      expect((await tieOutOf(office.db, office.merchant.id, String(file?.id))).closes).toBe(true);
    }
  });
});

it('kita-denryoku has its receipt and its results in its own encoding, names and words', async () => {
  await take('kita-denryoku');
  const [file] = [...(await filesOf()).values()];
  // No sequence stands in its files, and the date in the name alone.
  expect(file).toMatchObject({ sequence: null, business_date: '2026-11-25' });
  office.drop(
    'cancel_kita-denryoku_20261126_0001.csv',
    'H,1,kita-denryoku,cancel,2026-11-26,1\r\nD,KD202611000001,\r\nT,1,0\r\n',
    null,
  );
  await office.fetch();
  await office.ingest('2026-11-26');
  expect(await office.run(deliver, '2026-11-26')).toMatchObject({ outcome: 'done' });
  expect(outward('to_kd', 'KD_UKETSUKE_20261126_0001.CSV')).toMatch(
    /^H,1,kita-denryoku,receipt,2026-11-26,1\r\nF,KD_SEIKYU_20261125_0001\.CSV,822d9b[0-9a-f]+,accepted,,30,30,270615,0\r\n/,
  );
  expect(outward('to_kd', 'KD_KEKKA_20261126_0001.CSV')).toBe(
    '請求番号,お客様番号,結果,金額,収納日,判明日時,収納方法\r\nKD202611000001,0000000001,8,4511,,20261125090100,\r\n',
  );
  expect(folderOf('to_kd').filter((name) => name.startsWith('tieout_kita-denryoku_'))).not.toEqual([]);
});

it('sakura-suido names its files and leaves what they hold to the standard', async () => {
  await take('sakura-suido');
  const files = await filesOf();
  expect(files.get('SUIDO_20261125_0002.DAT')).toMatchObject({ sequence: 2, business_date: '2026-11-25' });
  expect(await office.run(deliver)).toMatchObject({ outcome: 'done' });
  const receipts = folderOf('outbound').filter((name) => name.startsWith('SUIDO_R_20261125_'));
  expect(receipts).toHaveLength(2);
  expect(outward('outbound', receipts.at(-1) ?? '')).toMatch(
    /^H,1,sakura-suido,receipt,2026-11-25,[12]\r\nF,SUIDO_20261125_0002\.DAT,7001a4/,
  );
});

it('keeps reading and answering a file by the layout it came with', async () => {
  office = await openOffice('kita-denryoku');
  fs.mkdirSync(join(office.inbox, '../to_kd'), { recursive: true });
  office.dropSample('KD_SEIKYU_20261125_0001.CSV');
  await office.fetch();
  // From here on the merchant would send other columns and be answered in other words.
  await office.change((settings) => ({
    ...settings,
    layout: 'kita-denryoku/2',
    layoutText: (settings.layoutText ?? '')
      .replace('kita-denryoku/1', 'kita-denryoku/2')
      .replace(
        '請求番号: billing_number\n  お客様番号: customer_number\n  氏名',
        '伝票番号: billing_number\n  お客様番号: customer_number\n  氏名',
      )
      .replace('where: { column: 請求番号', 'where: { column: 伝票番号')
      .replace('cancelled: "8"', 'cancelled: "X"'),
  }));
  office.drop(
    'KD_SEIKYU_20261126_0002.CSV',
    Buffer.concat(
      [
        Buffer.from(fs.readFileSync(join(samplesFolder, 'kita-denryoku/inbound/KD_SEIKYU_20261125_0001.CSV')))
          .toString('latin1')
          .replace('\x90\xbf\x8b\x81\x94\xd4\x8d\x86', '\x93\x60\x95\x5b\x94\xd4\x8d\x86')
          .replaceAll('KD2026110', 'KD2026120')
          .split('')
          .map((character) => Buffer.from(character, 'latin1')),
      ].flat(),
    ),
    null,
  );
  await office.fetch();
  await office.ingest();
  expect((await filesOf()).get('KD_SEIKYU_20261125_0001.CSV')).toMatchObject({
    layout: 'kita-denryoku/1',
    state: 'released',
  });
  expect((await filesOf()).get('KD_SEIKYU_20261126_0002.CSV')).toMatchObject({
    layout: 'kita-denryoku/2',
    state: 'released',
  });
  office.drop(
    'cancel_kita-denryoku_20261127_0001.csv',
    'H,1,kita-denryoku,cancel,2026-11-27,1\r\nD,KD202611000001,\r\nD,KD202612000001,\r\nT,2,0\r\n',
    null,
  );
  await office.fetch();
  await office.ingest('2026-11-27');
  await office.run(deliver, '2026-11-27');
  const results = folderOf('to_kd').filter((name) => name.startsWith('KD_KEKKA_'));
  expect(results).toHaveLength(2);
  const told = results.map((name) =>
    outward('to_kd', name).split('\r\n')[1]?.split(',').slice(0, 3).join(','),
  );
  expect(told.sort()).toEqual(['KD202611000001,0000000001,8', 'KD202612000001,0000000001,X']);
});
