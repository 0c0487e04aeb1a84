import { execFileSync } from 'node:child_process';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { archiveFile, openArchive } from '../../files/archive.ts';
import { openDisk } from '../../files/disk.ts';
import { chunks, cut } from './given.ts';

const disk = openDisk({ uuid: () => randomUUID() });
const randomness = { bytes: (count: number) => randomBytes(count) };
const key = { id: 'k1', secret: Buffer.alloc(32, 7) };
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'seikyu-disk-'));
});
afterAll(async () => rm(folder, { recursive: true }));

async function joined(content: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of content) parts.push(part);
  return Buffer.concat(parts);
}

describe('disk', () => {
  test('a file is there whole, for us alone, in folders that are made', async () => {
    const path = join(folder, 'a', 'b', 'file');
    expect(await disk.exists(path)).toBe(false);
    expect(await disk.write(path, chunks('one', 'two'))).toBe(6);
    expect((await joined(disk.read(path))).toString()).toBe('onetwo');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, 'a'))).mode & 0o777).toBe(0o700);
    await disk.write(path, chunks('three'));
    expect(await readFile(path, 'utf8')).toBe('three');
    await disk.remove(path);
    await disk.remove(path);
    expect(await disk.exists(path)).toBe(false);
  });

  test('a write that fails leaves what was there, and nothing else', async () => {
    const path = join(folder, 'c', 'file');
    await disk.write(path, chunks('before'));
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('half');
      throw new Error('cut off');
    }
    await expect(disk.write(path, broken())).rejects.toThrow('cut off');
    expect(await readdir(join(folder, 'c'))).toEqual(['file']);
    expect(await readFile(path, 'utf8')).toBe('before');
  });
});

test('a disk that is full leaves nothing of the file, and says so', async () => {
  const path = join(folder, 'full', 'file');
  const script = `
    import { randomUUID } from 'node:crypto';
    import { openDisk } from ${JSON.stringify(join(import.meta.dirname, '../../files/disk.ts'))};
    async function* large() { for (let at = 0; at < 64; at += 1) yield Buffer.alloc(65_536); }
    const disk = openDisk({ uuid: () => randomUUID() });
    await disk.write(${JSON.stringify(path)}, large()).then(() => 'written', (error) => error.code).then(console.log);
  `;
  const file = join(folder, 'fill.mts');
  await writeFile(file, script);
  // The operating system refuses what grows over 256 KiB, as it refuses what no longer fits.
  const limited = `trap '' XFSZ; ulimit -f 256; exec "$0" --import tsx "$1"`;
  const said = execFileSync('bash', ['-c', limited, process.execPath, file], {
    encoding: 'utf8',
    env: { ...process.env, TSX_DISABLE_CACHE: '1' },
  });
  expect(said.trim()).toBe('DISK_FULL');
  expect(await readdir(join(folder, 'full'))).toEqual([]);
});

describe('archive', () => {
  const mebibyte = 1024 * 1024;

  test.each([0, 1, mebibyte - 1, mebibyte, mebibyte + 1, 3 * mebibyte])(
    '%i bytes come back',
    async (size) => {
      const path = join(folder, `size-${size}`);
      const content = randomBytes(size);
      const archived = await archiveFile(disk, randomness, key, path, cut(content, 100_003));
      expect(archived).toEqual({
        sha256: createHash('sha256').update(content).digest('hex'),
        sizeBytes: size,
      });
      expect(
        (await joined(openArchive(disk, [{ id: 'k0', secret: Buffer.alloc(32) }, key], path))).equals(
          content,
        ),
      ).toBe(true);
    },
  );

  test('names and amounts do not stand on the disk', async () => {
    const path = join(folder, 'secret');
    await archiveFile(disk, randomness, key, path, chunks('鈴木 花子'));
    expect((await readFile(path)).includes(Buffer.from('鈴木'))).toBe(false);
  });

  test('every changed, missing, moved or added part is noticed', async () => {
    const path = join(folder, 'whole');
    await archiveFile(disk, randomness, key, path, chunks(randomBytes(2 * mebibyte + 10)));
    const whole = await readFile(path);
    const header = 4 + 1 + 2 + 8;
    const segment = 4 + 12 + mebibyte + 16;
    const first = whole.subarray(header, header + segment);
    const second = whole.subarray(header + segment, header + 2 * segment);
    const last = whole.subarray(header + 2 * segment);
    const other = join(folder, 'other');
    await archiveFile(disk, randomness, key, other, chunks(randomBytes(10)));
    const otherLast = (await readFile(other)).subarray(header);
    const start = whole.subarray(0, header);
    const flipped = (at: number): Buffer => {
      const copy = Buffer.from(whole);
      copy[at] = (copy[at] ?? 0) ^ 1;
      return copy;
    };
    const damaged = {
      'cut after a segment': Buffer.concat([start, first, second]),
      'cut in a segment': whole.subarray(0, whole.length - 1),
      'cut in the header': whole.subarray(0, 9),
      'nothing at all': Buffer.alloc(0),
      swapped: Buffer.concat([start, second, first, last]),
      'one left out': Buffer.concat([start, first, last]),
      'one twice': Buffer.concat([start, first, first, second, last]),
      'the end of another file': Buffer.concat([start, first, second, otherLast]),
      'something after the end': Buffer.concat([whole, Buffer.of(0)]),
      'a bit in the salt': flipped(header - 1),
      'the final bit': flipped(header),
      'a bit in a length': flipped(header + 3),
      'a bit in a nonce': flipped(header + 4),
      'a bit in the content': flipped(header + 1000),
      'a bit in the last tag': flipped(whole.length - 1),
    };
    for (const [what, bytes] of Object.entries(damaged)) {
      await writeFile(join(folder, 'damaged'), bytes);
      const opening = joined(openArchive(disk, [key], join(folder, 'damaged')));
      await expect(opening, what).rejects.toMatchObject({ code: 'ARCHIVE_DAMAGED' });
    }
    await expect(
      joined(openArchive(disk, [{ ...key, secret: Buffer.alloc(32, 8) }], path)),
    ).rejects.toMatchObject({
      code: 'ARCHIVE_DAMAGED',
    });
    await expect(joined(openArchive(disk, [{ ...key, id: 'k2' }], path))).rejects.toMatchObject({
      code: 'ARCHIVE_KEY_UNKNOWN',
    });
  });
});
