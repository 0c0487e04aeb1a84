import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Refusal } from '../../billing/refusal.ts';

export interface SimulatorProcess {
  url: string;
  /** Ends it where this process started it. */
  stop(): Promise<void>;
}

export interface SimulatorOptions {
  home: string;
  databaseUrl: string;
  /** Where the demo's clock stands. */
  clockUrl: string;
  secret: string;
  webhookUrl: string | null;
  /** How long a call without an answer is held open. */
  holdMs?: number;
}

interface Noted {
  /** Who started it: when that process dies, it ends a moment later. */
  ownerPid: number;
  url: string;
}

const program = () => {
  const built = fileURLToPath(new URL('../demo/gateway-simulator/main.js', import.meta.url));
  if (fs.existsSync(built)) return { args: [built] };
  return {
    args: ['--import', 'tsx', fileURLToPath(new URL('../demo/gateway-simulator/main.ts', import.meta.url))],
  };
};

/** Joins the simulator that another process of this home runs, or starts one: a process and a database of its own. */
export async function startSimulator(options: SimulatorOptions): Promise<SimulatorProcess> {
  const note = join(options.home, 'simulator.json');
  const running = await findRunning(note);
  if (running !== undefined) return { url: running, stop: async () => undefined };
  const portFile = join(options.home, 'simulator-port');
  const child = spawn(process.execPath, program().args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    // A group of its own: Ctrl-C reaches it through us, after the jobs have ended.
    detached: true,
    cwd: fileURLToPath(new URL('../..', import.meta.url)),
    env: {
      PATH: process.env.PATH,
      TSX_TSCONFIG_PATH: process.env.TSX_TSCONFIG_PATH,
      SIMULATOR_DATABASE_URL: options.databaseUrl,
      SIMULATOR_CLOCK_URL: options.clockUrl,
      SIMULATOR_SECRET: options.secret,
      SIMULATOR_PORT: String(await portToTake(portFile)),
      ...(options.webhookUrl === null ? {} : { SIMULATOR_WEBHOOK_URL: options.webhookUrl }),
      ...(options.holdMs === undefined ? {} : { SIMULATOR_HOLD_MS: String(options.holdMs) }),
    },
  });
  const port = await listening(child);
  const url = `http://127.0.0.1:${port}`;
  fs.writeFileSync(portFile, `${port}\n`);
  fs.writeFileSync(note, JSON.stringify({ ownerPid: process.pid, url } satisfies Noted), { mode: 0o600 });
  child.unref();
  return {
    url,
    async stop() {
      fs.rmSync(note, { force: true });
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      const force = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await ended;
      clearTimeout(force);
    },
  };
}

async function findRunning(note: string): Promise<string | undefined> {
  if (!fs.existsSync(note)) return undefined;
  const { ownerPid, url } = JSON.parse(fs.readFileSync(note, 'utf8')) as Noted;
  try {
    // It still answers for a moment after its owner was killed.
    process.kill(ownerPid, 0);
    const answer = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) });
    return answer.ok ? url : undefined;
  } catch {
    // Its owner died without removing the note.
    return undefined;
  }
}

/** The one it had: customers come back to pages that it has opened. 0 = any, where another program has it now. */
async function portToTake(portFile: string): Promise<number> {
  const port = fs.existsSync(portFile) ? Number(fs.readFileSync(portFile, 'utf8')) : 0;
  // One whose owner was killed takes a moment to end.
  for (let attempt = 1; port > 0 && attempt <= 50; attempt += 1) {
    if (await isFree(port)) return port;
    await wait(100);
  }
  return 0;
}

const isFree = (port: number): Promise<boolean> =>
  new Promise((settle) => {
    const probe = createServer();
    probe.once('error', () => settle(false));
    probe.listen({ port, host: '127.0.0.1', exclusive: true }, () => probe.close(() => settle(true)));
  });

async function listening(child: ChildProcess): Promise<number> {
  const { stdout } = child;
  if (!stdout) throw new Error('impossible state: the simulator has no standard output');
  const exited = once(child, 'exit').then(([code]) => {
    throw new Refusal('SIMULATOR_DOES_NOT_START', `the gateway simulator ended with code ${code}`, {
      next: 'Its message stands above. Is the database reachable?',
    });
  });
  const lines = createInterface({ input: stdout });
  const first = once(lines, 'line').then(
    ([line]) => (JSON.parse(String(line)) as { listening: number }).listening,
  );
  return Promise.race([first, exited]);
}
