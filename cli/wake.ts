import type { Runner, WorkerUtils } from 'graphile-worker';
import type { Log } from '../billing/ports.ts';
import type { WakeWorkers } from '../jobs/ports.ts';
import { messageOf } from '../jobs/run.ts';

/** Wakes workers on other machines, over a queue in the same database. What there is to do stands in our own rows. */
export interface WakeQueue {
  wake: WakeWorkers;
  /** Calls back whenever somebody has asked for workers. */
  listen(onWake: () => void): Promise<void>;
  close(): Promise<void>;
}

const task = 'seikyu_wake';
/** More workers than this look by themselves. */
const wakesAtMost = 32;
/** What LISTEN has missed is found by our own look long before. */
const pollEveryMs = 60_000;

/**
 * graphile-worker, opened with its first use. Where it cannot be (a pooler without LISTEN, no right to make its schema),
 * workers find their work at their next look, so a failure is told once and stops nothing.
 */
export function openWakeQueue(connectionString: string, log: Log): WakeQueue {
  let runner: Runner | undefined;
  let asking: Promise<WorkerUtils> | undefined;
  let isTold = false;
  const tell = (error: unknown) => {
    if (!isTold)
      log.warn(
        { error: messageOf(error) },
        'workers cannot be woken; they find their work at their next look',
      );
    isTold = true;
  };
  const options = async () => {
    const { Logger } = await import('graphile-worker');
    return {
      connectionString,
      maxPoolSize: 2,
      // Its own words are about its own jobs, which mean nothing.
      logger: new Logger(() => () => undefined),
    };
  };
  return {
    async wake(chunks) {
      try {
        const { makeWorkerUtils } = await import('graphile-worker');
        asking ??= makeWorkerUtils(await options());
        const utils = await asking;
        for (let no = 1; no <= Math.min(chunks, wakesAtMost); no += 1)
          await utils.addJob(task, {}, { jobKey: `${task} ${no}`, maxAttempts: 1 });
      } catch (error) {
        asking = undefined;
        tell(error);
      }
    },
    async listen(onWake) {
      try {
        const { run } = await import('graphile-worker');
        runner = await run({
          ...(await options()),
          concurrency: 1,
          pollInterval: pollEveryMs,
          noHandleSignals: true,
          taskList: { [task]: async () => onWake() },
        });
        // A lost connection ends it; the workers' own look stays.
        runner.promise.catch(tell);
      } catch (error) {
        tell(error);
      }
    },
    async close() {
      try {
        await runner?.stop();
        await (await asking)?.release();
      } catch (error) {
        tell(error);
      }
    },
  };
}
