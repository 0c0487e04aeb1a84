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

test('merchants send a file once, also when the demo is killed and walks the same day again', async () => {
  const demo = await openDemoHome(home);
  const inbound = join(home, 'demo', 'sftp', 'minato-gas', 'inbound');
  const file = { name: 'billing_minato-gas_20261228_0003.csv', content: Buffer.from('H,1\n'), done: 'sum\n' };
  demo.drop('minato-gas', file);
  expect(demo.listing('minato-gas', 'inbound')).toEqual([file.name, `${file.name}.done`]);
  fs.rmSync(inbound, { recursive: true });
  fs.mkdirSync(inbound);
  demo.drop('minato-gas', file);
  expect(demo.listing('minato-gas', 'inbound')).toEqual([]);
  // A mended file comes under the same name.
  demo.drop('minato-gas', { ...file, content: Buffer.from('H,2\n') });
  expect(demo.read('minato-gas', 'inbound', file.name)).toBe('H,2\n');
  await demo.sftp.stop();
});

test('a walk that did not end is gone on with, by the plan of its first day', async () => {
  const plan = {
    start: '2026-11-24',
    seed: 'a',
    billsPerMonth: 20,
    sequences: { 'minato-gas': { next: 4, files: 3 } },
  };
  const first = await openDemoHome(home);
  expect(first.unfinishedPlan()).toBeNull();
  first.keepPlan(plan);
  await first.sftp.stop();
  const second = await openDemoHome(home);
  expect(second.unfinishedPlan()).toEqual(plan);
  second.keepPlan(null);
  expect(second.unfinishedPlan()).toBeNull();
  await second.sftp.stop();
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
