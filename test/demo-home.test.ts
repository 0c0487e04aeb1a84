import fs from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fastify from 'fastify';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDemoHome } from '../cli/demo/home.ts';
import { answersWithKey } from '../cli/demo/sftp-server.ts';
import { listen } from '../web/listen.ts';
import { freePort } from './world.ts';

let home: string;
beforeAll(async () => {
  home = fs.mkdtempSync(join(tmpdir(), 'seikyu-demo-home-'));
  fs.mkdirSync(join(home, 'demo'));
  fs.writeFileSync(join(home, 'demo', 'sftp-port'), String(await freePort()));
});
afterAll(() => fs.rmSync(home, { recursive: true, force: true }));

const portFile = () => Number(fs.readFileSync(join(home, 'demo', 'sftp-port'), 'utf8'));

test('a second process of a demo home joins the SFTP server of the first, and its end leaves that alone', async () => {
  const first = await openDemoHome(home);
  const second = await openDemoHome(home);
  expect(second.sftp.port).toBe(first.sftp.port);
  expect(portFile()).toBe(first.sftp.port);
  await second.sftp.stop();
  expect(await answersWithKey(first.sftp.port, first.sftp.hostKeyFingerprint)).toBe(true);
  await first.sftp.stop();
  expect(await answersWithKey(first.sftp.port, first.sftp.hostKeyFingerprint)).toBe(false);
});

test('where another program has the port, the demo moves and its settings files follow', async () => {
  const former = portFile();
  const other = createServer((socket) => socket.end('hello\n').resume());
  await new Promise<void>((resolve) => other.listen(former, '127.0.0.1', resolve));
  try {
    const moved = await openDemoHome(home);
    expect(moved.sftp.port).not.toBe(former);
    expect(portFile()).toBe(moved.sftp.port);
    for (const file of moved.settingsFiles)
      expect(fs.readFileSync(file, 'utf8')).toContain(`port: ${moved.sftp.port}`);
    await moved.sftp.stop();
  } finally {
    await new Promise((resolve) => other.close(resolve));
  }
});

test('a port that is taken is refused by name, and the setting to change is told', async () => {
  const first = fastify();
  const second = fastify();
  try {
    const port = await listen(first, { host: '127.0.0.1', port: 0, setting: 'PORT' });
    await expect(listen(second, { host: '127.0.0.1', port, setting: 'ADMIN_PORT' })).rejects.toMatchObject({
      code: 'PORT_TAKEN',
      next: expect.stringContaining('ADMIN_PORT'),
    });
  } finally {
    await first.close();
    await second.close();
  }
});
