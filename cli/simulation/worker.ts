import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Log } from '../../billing/ports.ts';
import { sabotageByName } from './sabotage.ts';
import { openSimulationDatabases, type SimulationDatabases, type SimulationServer } from './server.ts';
import { runSeed, type SeedOptions, type SeedResult } from './world.ts';

/** One seed, as it goes to a worker process. */
export interface SeedTask extends Pick<SeedOptions, 'seed' | 'days' | 'mode'> {
  /** Its name; null = every guard stands. */
  sabotage: string | null;
}

/** Does seeds, several at once in processes of their own. */
export interface SeedRunners {
  /** Waits for a free process. Errors: whatever broke the seed, apart from violations, which are a result. */
  run(task: SeedTask): Promise<SeedResult>;
  close(): Promise<void>;
}

type ToWorker = { server: SimulationServer } | { task: SeedTask };
type FromWorker = { result: SeedResult } | { broke: string };

export function runHere(databases: SimulationDatabases, task: SeedTask, say: SeedOptions['say'] = null) {
  const sabotage = task.sabotage === null ? null : (sabotageByName(task.sabotage) ?? null);
  return databases.withDatabase((db, webDb) => runSeed(db, webDb, { ...task, sabotage, say }));
}

/** The other end: does what it is sent, one seed after the other. */
export function answerTasks(log: Log): void {
  let databases: Promise<SimulationDatabases> | undefined;
  const answer = (message: FromWorker) => process.send?.(message);
  process.on('message', (message: ToWorker) => {
    if ('server' in message) {
      databases = openSimulationDatabases({ ...message.server, prefix: `simulation_${process.pid}_` }, log);
      return;
    }
    void (async () => {
      if (databases === undefined) throw new Error('impossible state: a seed before its server');
      answer({ result: await runHere(await databases, message.task) });
    })().catch((error: Error) => answer({ broke: error.stack ?? error.message }));
  });
  // Ctrl-C reaches the whole group; whoever started us decides what becomes of the seed.
  process.on('SIGINT', () => undefined);
  process.on('disconnect', () => process.exit(0));
}

/** A process and whoever waits for what it says next. */
interface Runner {
  process: ChildProcess;
  hear: (message: FromWorker) => void;
}

export function startRunners(server: SimulationServer, count: number): SeedRunners {
  const waiting: ((runner: Runner) => void)[] = [];
  const all = Array.from({ length: count }, () => {
    const runner: Runner = { process: startWorker(), hear: () => undefined };
    runner.process.on('message', (message: FromWorker) => runner.hear(message));
    runner.process.on('exit', (code) => runner.hear({ broke: `its process ended with ${code}` }));
    runner.process.send({ server } satisfies ToWorker);
    return runner;
  });
  const idle = [...all];
  return {
    async run(task) {
      const runner = idle.shift() ?? (await new Promise<Runner>((resolve) => waiting.push(resolve)));
      const heard = new Promise<FromWorker>((resolve) => {
        runner.hear = resolve;
      });
      runner.process.send({ task } satisfies ToWorker);
      const message = await heard;
      if ('broke' in message) throw new Error(`seed ${task.seed} broke: ${message.broke}`);
      const next = waiting.shift();
      if (next === undefined) idle.push(runner);
      else next(runner);
      return message.result;
    },
    async close() {
      await Promise.all(
        all.map(async ({ process: worker }) => {
          if (worker.exitCode !== null || worker.signalCode !== null) return;
          const ended = once(worker, 'exit');
          worker.disconnect();
          await ended;
        }),
      );
    },
  };
}

function startWorker(): ChildProcess {
  const built = fileURLToPath(new URL('main.js', import.meta.url));
  const options = { cwd: fileURLToPath(new URL('../..', import.meta.url)) };
  return fs.existsSync(built)
    ? fork(built, options)
    : fork(fileURLToPath(new URL('main.ts', import.meta.url)), { ...options, execArgv: ['--import', 'tsx'] });
}
