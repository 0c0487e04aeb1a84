import { listMerchants } from '../billing/merchants/queries.ts';
import { runningPasses, waitingRuns } from '../billing/runs/queries.ts';
import type { JobName } from './job.ts';
import { jobs } from './jobs.ts';
import type { Ports } from './ports.ts';
import { helpRun, messageOf, realWait, runJob, type Worker } from './run.ts';

/** How often a worker looks for runs that were asked for, whose process died, or that have chunks to give away. */
const lookEveryMs = 2_000;

const sharedJobs = Object.values(jobs)
  .filter(({ shared }) => shared)
  .map(({ name }) => name);

export interface Shift {
  ports: Ports;
  worker: Worker;
  stop: AbortSignal;
  /** So many runs at once: a long one must not hold up all others. */
  atOnce: number;
}

/** A worker: does runs that wait and chunks of runs that others have opened, until it is stopped. */
export class Workbench {
  readonly #shift: Shift;
  #wake = new AbortController();

  constructor(shift: Shift) {
    this.#shift = shift;
  }

  /** Somebody has work: whoever waits looks now. */
  wake(): void {
    const woken = this.#wake;
    this.#wake = new AbortController();
    woken.abort();
  }

  async workUntilStopped(): Promise<void> {
    await Promise.all(Array.from({ length: this.#shift.atOnce }, () => this.#work()));
  }

  async #work(): Promise<void> {
    const { ports, stop } = this.#shift;
    while (!stop.aborted) {
      const wake = this.#wake.signal;
      let worked = 0;
      try {
        worked = await this.workOnce();
      } catch (error) {
        ports.log.error({ error: messageOf(error) }, 'the worker could not look for runs; it tries again');
      }
      if (worked === 0) await realWait(ports, lookEveryMs, AbortSignal.any([stop, wake]));
    }
  }

  /** One look at all merchants. Returns how many runs and chunks were done. */
  async workOnce(): Promise<number> {
    const { ports, worker, stop } = this.#shift;
    let worked = 0;
    for (const merchant of await listMerchants(ports.db)) {
      for (const { job, business_date: businessDate } of await waitingRuns(ports.db, merchant.id)) {
        if (stop.aborted) return worked;
        const end = await runJob(ports, jobs[job as JobName], { merchant, businessDate, worker, stop });
        // Another process is at it, or an operator has halted it; this one looks again after its pause.
        if (end.outcome === 'busy' || end.outcome === 'halted') continue;
        worked += 1;
        const fields = { job, merchant: merchant.code, businessDate, ...end.counts };
        if (end.outcome === 'failed')
          ports.log.error(
            { ...fields, failure: messageOf(end.failure) },
            'a run failed; the next slot tries again',
          );
        else ports.log.info({ ...fields, outcome: end.outcome }, 'ran');
      }
      for (const { job, business_date: businessDate, pass } of await runningPasses(
        ports.db,
        merchant.id,
        sharedJobs,
      )) {
        if (stop.aborted) return worked;
        const chunks = await helpRun(ports, jobs[job as JobName], {
          merchant,
          businessDate,
          pass,
          worker,
          stop,
        });
        worked += chunks;
        if (chunks > 0) ports.log.info({ job, merchant: merchant.code, businessDate, chunks }, 'helped');
      }
    }
    return worked;
  }
}
