import fs from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openArchive } from '../files/archive.ts';
import { fetch } from '../jobs/fetch.ts';
import { billingFile, billingName, Killed, type Office, openOffice } from './inbox.ts';

let office: Office;
beforeEach(async () => {
  office = await openOffice();
});
afterEach(async () => {
  await office.close();
});

const files = () =>
  office.db.query<{
    name: string;
    state: string;
    checksum_matches: boolean;
    removed: boolean;
    archive_path: string;
  }>(
    `select name, state, checksum_matches, removed_at is not null as removed, archive_path
     from billing_files order by fetched_at, id`,
  );
const alerts = () =>
  office.db.query<{ cause: string; occurrences: number; message: string }>(
    `select cause, occurrences, message from alerts order by cause`,
  );
const inbox = () => fs.readdirSync(office.inbox).sort();
const one = billingFile(1, [{}, {}]);

describe('a complete file', () => {
  it('is archived, registered and removed', async () => {
    office.drop(billingName(1), one);
    const end = await office.fetch();
    expect(end).toMatchObject({ outcome: 'done', counts: { files: 1, waiting: 0 } });
    expect(inbox()).toEqual([]);
    const [file] = await files();
    expect(file).toMatchObject({
      name: billingName(1),
      state: 'fetched',
      checksum_matches: true,
      removed: true,
    });
    const kept: Buffer[] = [];
    for await (const piece of openArchive(
      office.ports.disk,
      [office.ports.sealer.archiveKey],
      file?.archive_path ?? '',
    ))
      kept.push(piece);
    expect(Buffer.concat(kept).toString()).toBe(one);
    expect(fs.readFileSync(file?.archive_path ?? '').includes('MG')).toBe(false);
  });

  it('waits for its control file', async () => {
    office.drop(billingName(1), one, null);
    expect((await office.fetch()).counts).toMatchObject({ files: 0, waiting: 1 });
    expect(inbox()).toEqual([billingName(1)]);
    office.drop(billingName(1), one, '');
    expect((await office.fetch()).counts).toMatchObject({ files: 1, waiting: 0 });
    expect(await files()).toMatchObject([{ checksum_matches: true }]);
  });

  it.each([
    ['another hash', `${'0'.repeat(64)}  ${billingName(1)}\n`],
    ['another name', 'the hash'],
    ['rubbish', 'x'.repeat(10_000)],
  ])('whose control file holds %s is taken as not matching', async (_, done) => {
    office.drop(billingName(1), one, done);
    await office.fetch();
    expect(await files()).toMatchObject([{ checksum_matches: false, removed: true }]);
  });

  it('is taken in the order of the sequence', async () => {
    for (const sequence of [3, 1, 2]) office.drop(billingName(sequence), billingFile(sequence, [{}]));
    await office.fetch();
    expect((await files()).map((file) => file.name)).toEqual([1, 2, 3].map(billingName));
  });

  it('is left alone by a dry run', async () => {
    office.drop(billingName(1), one);
    const counts = await fetch.dryRun({
      ports: office.ports,
      merchant: office.merchant,
      businessDate: '2026-11-25',
      stop: new AbortController().signal,
      progress: () => undefined,
    });
    expect(counts).toEqual({ files_complete: 1, files_waiting: 0 });
    expect(await files()).toEqual([]);
  });
});

describe('what is not for us', () => {
  it('is never taken: unknown names are told once, temporary names, links and folders not at all', async () => {
    const strange = 'bill\u202efdp.exe';
    office.drop('Gebühren.xlsx', 'x', null);
    office.drop(strange, 'x', null);
    office.drop('.hidden', 'x', null);
    office.drop(`${billingName(1)}.part`, one, null);
    fs.mkdirSync(join(office.inbox, billingName(2)));
    fs.writeFileSync(join(office.inbox, `${billingName(2)}.done`), '');
    fs.symlinkSync('/etc/passwd', join(office.inbox, billingName(3)));
    fs.writeFileSync(join(office.inbox, `${billingName(3)}.done`), '');
    expect(await office.fetch()).toMatchObject({
      outcome: 'attention',
      counts: { files: 0, unknown_names: 2 },
    });
    expect(await office.fetch()).toMatchObject({ outcome: 'done', counts: { unknown_names: 0 } });
    expect(await files()).toEqual([]);
    expect(await alerts()).toMatchObject([
      { cause: 'UNKNOWN_FILE_NAME:Geb\\u00fchren.xlsx', occurrences: 1 },
      { cause: 'UNKNOWN_FILE_NAME:bill\\u202efdp.exe', occurrences: 1 },
    ]);
  });

  it('is known by the names of the merchant’s own layout, and by the standard ones of the kinds it does not name', async () => {
    const layoutText = `layout: own/1\nformat: csv\nnames: { billing: "BILLS-{date}-{seq4}.txt" }\n`;
    await office.change((settings) => ({ ...settings, layout: 'own/1', layoutText }));
    office.drop('BILLS-20261125-0001.txt', one);
    office.drop('cancel_minato-gas_20261125_0002.csv', 'H,1\n');
    office.drop(billingName(3), one);
    office.drop('BILLS-20261131-0001.txt', one);
    expect((await office.fetch()).counts).toMatchObject({ files: 2, unknown_names: 4 });
    expect(inbox().filter((name) => !name.endsWith('.done'))).toEqual([
      'BILLS-20261131-0001.txt',
      billingName(3),
    ]);
  });
});

describe('a merchant without control files', () => {
  beforeEach(() =>
    office.change((settings) => ({ ...settings, exchange: { ...settings.exchange, completion: 'stable' } })),
  );

  it('has its files taken when they rest for 30 seconds', async () => {
    office.drop(billingName(1), one, null);
    const before = office.clock.now();
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    expect(office.clock.now().since(before).total('seconds')).toBeGreaterThanOrEqual(30);
  });

  it('keeps a file that still grows, and a control file is ignored and removed with its file', async () => {
    office.drop(billingName(1), one, null);
    office.drop(billingName(2), billingFile(2, [{}]), 'whatever');
    const { sleep } = office.clock;
    office.clock.sleep = async (milliseconds, signal) => {
      fs.appendFileSync(join(office.inbox, billingName(1)), 'D,');
      await sleep(milliseconds, signal);
    };
    expect((await office.fetch()).counts).toMatchObject({ files: 1, waiting: 1 });
    expect(inbox()).toEqual([billingName(1)]);
    expect(await files()).toMatchObject([{ name: billingName(2), checksum_matches: true }]);
  });
});

describe('a process that dies', () => {
  it.each([
    'fetch.before_download',
    'fetch.after_archive',
    'fetch.after_register',
    'fetch.after_remove',
  ] as const)('at %s leaves a state from which the next pass goes on', async (point) => {
    office.drop(billingName(1), one);
    office.drop(billingName(2), billingFile(2, [{}]));
    office.killAt(point);
    expect((await office.fetch()).failure).toBeInstanceOf(Killed);
    expect((await office.fetch()).outcome).toBe('done');
    expect(await files()).toMatchObject([
      { name: billingName(1), removed: true },
      { name: billingName(2), removed: true },
    ]);
    expect(inbox()).toEqual([]);
    expect((await office.fetch()).counts).toMatchObject({ files: 0 });
  });

  it('between the two removals still has its data file removed', async () => {
    office.drop(billingName(1), one);
    office.killAt('fetch.after_register');
    await office.fetch();
    fs.rmSync(join(office.inbox, `${billingName(1)}.done`));
    expect((await office.fetch()).counts).toMatchObject({ files: 0, removals_carried_on: 1 });
    expect(inbox()).toEqual([]);
    expect(await files()).toMatchObject([{ removed: true }]);
  });

  it('or stands still before the removal takes nothing that the merchant has sent since', async () => {
    office.drop(billingName(1), one);
    const other = one.replace('1000', '10001');
    const { crash } = office.ports;
    office.ports.crash = async (point) => {
      if (point === 'fetch.after_register') office.drop(billingName(1), other);
      await crash(point);
    };
    await office.fetch();
    office.ports.crash = crash;
    expect(fs.readFileSync(join(office.inbox, billingName(1)), 'utf8')).toBe(other);
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    expect(await files()).toMatchObject([{ removed: true }, { removed: true, checksum_matches: true }]);
  });

  it('is another file where the bytes come again with a control file that is right at last', async () => {
    office.drop(billingName(1), one, `${'0'.repeat(64)}  ${billingName(1)}\n`);
    office.killAt('fetch.after_register');
    await office.fetch();
    await office.ingest();
    office.drop(billingName(1), one);
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    expect(await office.ingest()).toMatchObject({ counts: { files: 1, bills: 2 } });
    expect(await files()).toMatchObject([
      { state: 'refused', removed: true },
      { state: 'released', removed: true },
    ]);
  });

  it('before the removal never costs the merchant other bytes of the same name', async () => {
    office.drop(billingName(1), one);
    office.killAt('fetch.after_register');
    await office.fetch();
    const other = one.replace('1000', '1001');
    fs.rmSync(join(office.inbox, `${billingName(1)}.done`));
    office.drop(billingName(1), other, null);
    await office.fetch();
    expect(fs.readFileSync(join(office.inbox, billingName(1)), 'utf8')).toBe(other);
    office.drop(billingName(1), other);
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    expect(await files()).toHaveLength(2);
  });
});

describe('a server that fails', () => {
  it('is an alert and a failed pass', async () => {
    await office.server.stop();
    const end = await office.fetch();
    expect(end).toMatchObject({ outcome: 'failed', failure: { code: 'SFTP_UNREACHABLE' } });
    expect(await alerts()).toMatchObject([{ cause: 'SFTP_UNREACHABLE' }]);
  });

  it('in the middle of a download leaves nothing behind, and the next pass takes the file', async () => {
    const large = billingFile(
      1,
      Array.from({ length: 3_000 }, () => ({})),
    );
    office.drop(billingName(1), large);
    office.server.faults.dropAfterBytes = 100_000;
    expect((await office.fetch()).outcome).toBe('failed');
    expect(await files()).toEqual([]);
    delete office.server.faults.dropAfterBytes;
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    const left = fs.readdirSync(join(office.archive, 'minato-gas'));
    expect(left).toEqual([expect.any(String), `${left[0]}.head`]);
  });
});
