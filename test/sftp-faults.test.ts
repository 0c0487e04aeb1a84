import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  makeKeyPair,
  type SftpFaults,
  type SftpOperation,
  startSftpServer,
} from '../cli/demo/sftp-server.ts';
import { diskFull } from '../files/disk.ts';
import { openSftpStore } from '../files/sftp.ts';
import { deliver } from '../jobs/deliver.ts';
import { trace } from '../jobs/trace.ts';
import { billingFile, billingName, type Office, openOffice } from './inbox.ts';

let office: Office;

/** Faults that are in force until `mend`, with deadlines that a test can wait for. */
function breakServer(faults: SftpFaults): void {
  const { clock } = office;
  office.ports.openStore = openSftpStore({ clock, callDeadlineMs: 400 });
  const { fileBytes } = office.server.counts;
  const after = (bytes: number | undefined) => (bytes === undefined ? {} : fileBytes + bytes);
  for (const name of ['dropAfterBytes', 'stallAfterBytes', 'fullAfterBytes'] as const)
    if (faults[name] !== undefined) faults = { ...faults, [name]: after(faults[name]) };
  Object.assign(office.server.faults, faults);
}

function mend(): void {
  office.ports.openStore = openSftpStore({ clock: office.clock, callDeadlineMs: 10_000 });
  for (const name of Object.keys(office.server.faults)) delete office.server.faults[name as keyof SftpFaults];
}

const inFaults = (kind: 'silent' | 'cut' | 'deny', operations: readonly SftpOperation[]) =>
  operations.map((operation): [string, SftpFaults] => [`${kind} at ${operation}`, { [kind]: [operation] }]);

const openCauses = async (): Promise<string[]> => {
  const rows = await office.db.query<{ cause: string }>(
    `select cause from alerts where resolved_at is null order by cause`,
  );
  return rows.map((row) => row.cause);
};

const many = (sequence: number) =>
  billingFile(
    sequence,
    Array.from({ length: 1_500 }, (_, at) => ({ number: `N${sequence}-${at}` })),
  );

describe('an inbox on a broken server', () => {
  beforeAll(async () => {
    office = await openOffice();
  });
  afterAll(() => office.close());
  afterEach(() => mend());

  const cases: [string, SftpFaults][] = [
    ...inFaults('silent', ['OPENDIR', 'READDIR', 'OPEN', 'READ', 'CLOSE', 'LSTAT', 'REMOVE']),
    ...inFaults('cut', ['OPENDIR', 'READDIR', 'OPEN', 'READ', 'CLOSE', 'LSTAT', 'REMOVE']),
    ...inFaults('deny', ['OPENDIR', 'READDIR', 'OPEN', 'READ', 'LSTAT', 'REMOVE']),
    ['cut in the middle of a file', { dropAfterBytes: 80_000 }],
    ['silent in the middle of a file', { stallAfterBytes: 80_000 }],
    ['a file without end', { readWithoutEnd: true }],
  ];

  it.each(cases.map(([what, faults], at) => [what, faults, at + 1] as const))(
    '%s: the file is taken once, whole, and the next pass carries on',
    async (_, faults, sequence) => {
      const name = billingName(sequence);
      const content = many(sequence);
      office.drop(name, content);
      breakServer(faults);
      const broken = await office.fetch();
      expect(
        broken.outcome === 'failed' || broken.counts.not_taken || broken.counts.changed_while_read,
      ).toBeTruthy();
      const told = (await openCauses()).filter((cause) => /^(SFTP_|FILE_NOT_TAKEN:)/.test(cause));
      expect(told).toHaveLength(1);

      mend();
      office.clock.advance(1_000);
      const next = await office.fetch();
      expect(next.outcome).toBe('done');
      expect((next.counts.files ?? 0) + (next.counts.removals_carried_on ?? 0)).toBe(1);
      office.clock.advance(1_000);
      await office.run(trace);
      expect((await openCauses()).filter((cause) => /^(SFTP_|FILE_NOT_TAKEN:)/.test(cause))).toEqual([]);
      expect(fs.readdirSync(office.inbox)).toEqual([]);
      const files = await office.db.query(
        `select sha256, checksum_matches, removed_at is not null as removed from billing_files where name = $1`,
        [name],
      );
      const sha256 = createHash('sha256').update(content).digest('hex');
      expect(files).toEqual([{ sha256, checksum_matches: true, removed: true }]);
      // For each file taken so far the copy and its head, and nothing half.
      expect(fs.readdirSync(join(office.archive, 'minato-gas'))).toHaveLength(sequence * 2);
    },
  );
});

describe('an outbox on a broken server', () => {
  let outbound: string;
  beforeAll(async () => {
    office = await openOffice();
    outbound = join(office.inbox, '../outbound');
    fs.mkdirSync(outbound);
  });
  afterAll(() => office.close());
  afterEach(() => mend());

  const cases: [string, SftpFaults][] = [
    ...inFaults('silent', ['LSTAT', 'OPEN', 'WRITE', 'CLOSE', 'RENAME']),
    ...inFaults('cut', ['LSTAT', 'OPEN', 'WRITE', 'CLOSE', 'RENAME']),
    ...inFaults('deny', ['LSTAT', 'OPEN', 'WRITE', 'CLOSE', 'RENAME']),
    ['a rename refused', { refuseRename: true }],
    ['a rename whose answer is lost', { loseRenameAnswer: true }],
    ['a disk that is full', { refuseWrite: true }],
    ['a disk that fills up', { fullAfterBytes: 70_000 }],
    ['bytes confirmed and lost', { loseWrites: true }],
    ['cut in the middle of a file', { dropAfterBytes: 70_000 }],
    ['silent in the middle of a file', { stallAfterBytes: 70_000 }],
  ];

  it.each(cases.map(([what, faults], at) => [what, faults, at + 1] as const))(
    '%s: nothing half under a final name, and the next pass carries on',
    async (_, faults, sequence) => {
      // A file that is refused line by line: its receipt has a record for each, some 140 kB.
      office.drop(
        billingName(sequence),
        billingFile(
          sequence,
          Array.from({ length: 1_500 }, (_unused, at) => ({ number: `N${sequence}-${at}`, amount: '0' })),
        ),
      );
      await office.fetch();
      await office.ingest();
      breakServer(faults);
      const broken = await office.run(deliver);
      if (faults.loseRenameAnswer === undefined) {
        expect(broken.outcome).toBe('failed');
        expect((await openCauses()).filter((cause) => cause.startsWith('DELIVER_'))).toHaveLength(1);
      }
      const whole = await office.db.query<{ name: string; sha256: string }>(
        `select name, sha256 from outward_files order by name`,
      );
      const expectWhole = () => {
        for (const name of fs.readdirSync(outbound)) {
          if (name.startsWith('.')) continue;
          const content = fs.readFileSync(join(outbound, name));
          const file = whole.find((each) => each.name === name.replace(/\.done$/, ''));
          const sha256 = createHash('sha256').update(content).digest('hex');
          if (name.endsWith('.done')) expect(content.toString()).toBe(`${file?.sha256}  ${file?.name}\n`);
          else expect(sha256).toBe(file?.sha256);
        }
      };
      expectWhole();

      mend();
      office.clock.advance(1_000);
      expect((await office.run(deliver)).outcome).toBe('done');
      expectWhole();
      // Nothing of ours is left over, nothing is missing.
      expect(fs.readdirSync(outbound)).toEqual(whole.flatMap(({ name }) => [name, `${name}.done`]).sort());
      expect(await office.db.query(`select 1 from parked_items where resolved_at is null`)).toEqual([]);
      office.clock.advance(1_000);
      await office.run(trace);
      expect((await openCauses()).filter((cause) => cause.startsWith('DELIVER_'))).toEqual([]);
    },
  );
});

describe('one merchant’s', () => {
  beforeEach(async () => {
    office = await openOffice();
  });
  afterEach(async () => {
    mend();
    await office.close();
  });

  it('listing of hostile names costs nothing but an alert each, shown harmlessly and apart', async () => {
    const names = [
      '../billing_minato-gas_20261125_0001.csv',
      '/etc/passwd',
      'a\\b.csv',
      'billing_minato-gas_20261125_0001.csv\0.txt',
      'line\nbreak.csv',
      'bill\u202efdp.csv',
      'x'.repeat(4_096),
      `${'x'.repeat(4_095)}y`,
      'caf\u00e9.csv',
      'cafe\u0301.csv',
    ];
    breakServer({ listed: names.map((name) => ({ name, sizeBytes: 1, mode: 0o100644 })) });
    office.drop(billingName(1), many(1));
    expect(await office.fetch()).toMatchObject({
      outcome: 'attention',
      counts: { files: 1, unknown_names: names.length },
    });
    const alerts = await office.db.query<{ cause: string; message: string }>(
      `select cause, message from alerts`,
    );
    expect(new Set(alerts.map(({ cause }) => cause)).size).toBe(names.length);
    for (const { cause, message } of alerts) {
      expect(`${cause}${message}`).toMatch(/^[ -~]+$/);
      expect(cause.length).toBeLessThan(120);
    }
    expect(fs.readdirSync(join(office.archive, 'minato-gas'))).toHaveLength(2);
  });

  it('file that is listed with a size that no disk has is told and waits, and the others are taken', async () => {
    const listed = [2 ** 63, 5 * 2 ** 30].map((sizeBytes, at) => ({
      name: billingName(at + 2),
      sizeBytes,
      mode: 0o100644,
    }));
    breakServer({
      listed: [...listed, ...listed.map((each) => ({ ...each, name: `${each.name}.done`, sizeBytes: 0 }))],
    });
    office.drop(billingName(1), many(1));
    const end = await office.fetch();
    expect(end.counts).toMatchObject({ files: 1 });
    expect(await openCauses()).toEqual([2, 3].map((each) => `FILE_NOT_TAKEN:${billingName(each)}`));
    expect(await office.db.query(`select name from billing_files`)).toEqual([{ name: billingName(1) }]);
  });

  it('server that trickles is given up, so that the others have their turn', async () => {
    office.drop(billingName(1), many(1));
    let elapsedMs = 0;
    const clock = { deadline: office.clock.deadline, elapsedMs: () => (elapsedMs += 60_000) };
    office.ports.openStore = openSftpStore({ clock });
    expect(await office.fetch()).toMatchObject({ outcome: 'failed', failure: { code: 'SFTP_TOO_SLOW' } });
    mend();
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
  });

  it.each(['fetch', 'deliver'] as const)(
    'server with another host key hears nothing from %s, and a person is called at once',
    async (job) => {
      if (job === 'deliver') {
        office.drop(billingName(1), many(1));
        await office.fetch();
        await office.ingest();
      }
      office.drop(billingName(2), many(2));
      const root = join(office.inbox, '../..', 'somebody');
      const account = { username: 'minato-gas', publicKey: makeKeyPair().publicKey, root };
      const other = await startSftpServer({ hostKey: makeKeyPair().privateKey, accounts: [account] });
      const { sftp } = office.merchant.settings.exchange;
      const move = (hostKeys: string[]) =>
        office.change((settings) => ({
          ...settings,
          exchange: { ...settings.exchange, sftp: { ...sftp, port: other.port, hostKeys } },
        }));
      await move(sftp.hostKeys);
      const end = job === 'fetch' ? await office.fetch() : await office.run(deliver);
      expect(end).toMatchObject({ outcome: 'failed', failure: { code: 'SFTP_HOST_KEY_CHANGED' } });
      expect(other.counts.authenticationAttempts).toBe(0);
      const [alert] = await office.db.query<{ level: string; message: string }>(
        `select level, message from alerts where cause like '%HOST_KEY_CHANGED'`,
      );
      expect(alert?.level).toBe('now');
      expect(alert?.message).toContain(other.hostKeyFingerprint);
      // With the new key pinned beside the old one it is believed; that our own key is unknown there is another matter.
      await move([...sftp.hostKeys, other.hostKeyFingerprint]);
      const believed = job === 'fetch' ? await office.fetch() : await office.run(deliver);
      expect(believed).toMatchObject({ failure: { code: 'SFTP_AUTH_REFUSED' } });
      await other.stop();
    },
  );

  it('rename that leaves the answer out, after which the merchant takes both files, is asked about', async () => {
    office.drop(billingName(1), many(1));
    await office.fetch();
    await office.ingest();
    const outbound = join(office.inbox, '../outbound');
    fs.mkdirSync(outbound);
    breakServer({ loseRenameAnswer: true });
    office.killAt('deliver.after_rename');
    await office.run(deliver);
    for (const name of fs.readdirSync(outbound)) fs.rmSync(join(outbound, name));
    mend();
    expect(await office.run(deliver)).toMatchObject({ outcome: 'attention', counts: { parked: 1 } });
  });
});

describe('the local disk', () => {
  beforeEach(async () => {
    office = await openOffice();
  });
  afterEach(() => office.close());

  it('full: nothing is registered, the file stays with the merchant, a person is called, the next pass carries on', async () => {
    office.drop(billingName(1), many(1));
    const { disk } = office.ports;
    office.ports.disk = {
      ...disk,
      list: (folder) => disk.list(folder),
      write: async (_path, content) => {
        for await (const piece of content) if (piece.length > 0) throw diskFull(new Error('ENOSPC'));
        return 0;
      },
    };
    expect(await office.fetch()).toMatchObject({ outcome: 'failed', failure: { code: 'DISK_FULL' } });
    expect(await office.db.query(`select 1 from billing_files`)).toEqual([]);
    expect(fs.readdirSync(office.inbox)).toHaveLength(2);
    expect(await office.db.query(`select cause, level from alerts`)).toEqual([
      { cause: 'DISK_FULL fetch', level: 'now' },
    ]);
    office.ports.disk = disk;
    office.clock.advance(1_000);
    expect((await office.fetch()).counts).toMatchObject({ files: 1 });
    await office.run(trace);
    expect(await openCauses()).toEqual([]);
  });

  it('is swept of what killed processes left, and of nothing else', async () => {
    const folder = join(office.archive, 'minato-gas');
    office.drop(billingName(1), many(1));
    office.killAt('fetch.after_archive');
    await office.fetch();
    office.killAt('fetch.after_head');
    await office.fetch();
    // Archived and told of, then withdrawn by the merchant: the copy may be all that is left of it.
    office.drop(billingName(2), many(2));
    await office.fetch();
    office.drop(billingName(3), many(3));
    office.killAt('fetch.after_head');
    await office.fetch();
    for (const name of fs.readdirSync(office.inbox)) fs.rmSync(join(office.inbox, name));
    fs.mkdirSync(join(office.archive, 'reports'));
    fs.writeFileSync(join(office.archive, 'reports', `${office.ports.ids.uuid()}-payout.ndjson`), 'x');
    fs.writeFileSync(join(folder, `${office.ports.ids.uuid()}.${office.ports.ids.uuid()}.tmp`), 'x');
    expect(fs.readdirSync(folder)).toHaveLength(1 + 2 + 2 + 2 + 2 + 1);

    await office.run(trace, '2026-11-25');
    expect(fs.readdirSync(folder)).toHaveLength(10);
    office.clock.advance(25 * 3_600_000);
    expect((await office.run(trace, '2026-11-26')).counts).toMatchObject({ leftovers_removed: 4 });
    expect(fs.readdirSync(folder)).toHaveLength(6);
    expect(fs.readdirSync(join(office.archive, 'reports'))).toEqual([]);
    const kept = await office.db.query<{ archive_path: string }>(`select archive_path from billing_files`);
    for (const { archive_path } of kept) expect(fs.existsSync(archive_path)).toBe(true);
    expect(kept).toHaveLength(2);
  });
});
