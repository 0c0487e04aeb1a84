import { once } from 'node:events';
import { raiseStanding } from '../billing/alerts/queries.ts';
import { sealAside } from '../billing/audit/seal.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { Refusal } from '../billing/refusal.ts';
import { openRestore } from '../billing/restores/queries.ts';
import { type Fence, FenceLost } from '../billing/runs/fence.ts';
import { Halted } from '../billing/runs/halt.ts';
import {
  claimChunk,
  closePass,
  finishChunk,
  haltOf,
  heartbeat,
  heartbeatOfHelper,
  insertChunks,
  lockRun,
  openPass,
  othersAtTheJob,
  parkChunk,
  requestRun,
  yieldChunk,
} from '../billing/runs/queries.ts';
import { heartbeatEveryMs, type Lease, leaseSeconds, type RunKey } from '../billing/runs/run.ts';
import type { Counts, Job, JobContext, JobName } from './job.ts';
import type { Ports } from './ports.ts';

/** This process as the run table knows it. */
export interface Worker {
  owner: string;
  /** Whether the owner of a lease is a process of this machine that lives no more. */
  isDead(owner: string): boolean;
  codeVersion: string;
}

export interface RunJob {
  merchant: Merchant;
  businessDate: string;
  worker?: Worker;
  stop?: AbortSignal;
  progress?: JobContext['progress'];
  /** A restore runs jobs itself, to learn what was forgotten. */
  evenInSafeMode?: boolean;
}

export interface RunEnd {
  /**
   * busy: another process is at it, or at this job for another date; nothing was done. halted: an operator has paused or
   * stopped it, and nothing was done. stopped: Ctrl-C or an operator ended it in the middle. attention: done, and something
   * wants a person.
   */
  outcome: 'done' | 'attention' | 'failed' | 'stopped' | 'busy' | 'halted';
  pass: number;
  counts: Counts;
  failure: unknown;
  /** Who is at it, when busy. */
  owner: string | null;
}

/** What these do leaves the building, or cannot be judged before the database knows again what it had forgotten. */
const rests: ReadonlySet<JobName> = new Set([
  'fetch',
  'ingest',
  'reconcile',
  'refresh',
  'charge',
  'debit',
  'dunning',
  'notify',
  'deliver',
]);
/** Its chunk stands for all that the job would have done. */
const restingCounts: Counts = { safe_mode: 1 };

const never = new AbortController().signal;
const quiet: JobContext['progress'] = () => undefined;

/**
 * One pass of a job for a merchant and a business date, in this process: take the run's lease, plan, do chunk after
 * chunk, close. Other workers may take chunks of the same pass; a chunk whose worker has gone silent is taken up again.
 */
export async function runJob(ports: Ports, job: Job, options: RunJob): Promise<RunEnd> {
  await ports.clock.refresh();
  const { merchant, businessDate, stop = never, progress = quiet } = options;
  const worker = options.worker ?? {
    owner: `process:0:${ports.ids.uuid()}`,
    isDead: () => false,
    codeVersion: 'unknown',
  };
  const lease: Lease = { owner: worker.owner, seconds: leaseSeconds };
  const key: RunKey = { merchantId: merchant.id, job: job.name, businessDate };
  const opened = await ports.db.transaction(async (tx) => {
    const halt = await haltOf(tx, key);
    if (halt !== undefined) return { halt };
    const other = (await othersAtTheJob(tx, key)).find((owner) => !worker.isDead(owner));
    if (other !== undefined) return { busy: other };
    await requestRun(tx, key, ports.clock.now(), true);
    const run = await lockRun(tx, key);
    if (run.state === 'running' && run.lease_live && run.lease_owner && !worker.isDead(run.lease_owner))
      return { busy: run.lease_owner };
    return { pass: await openPass(tx, key, lease, worker.codeVersion, ports.clock.now()) };
  });
  if ('halt' in opened) return { outcome: 'halted', pass: 0, counts: {}, failure: null, owner: null };
  if ('busy' in opened)
    return { outcome: 'busy', pass: 0, counts: {}, failure: null, owner: opened.busy ?? null };

  const context: JobContext = { ports, merchant, businessDate, stop, progress };
  const { pass } = opened;
  let failure: unknown = null;
  const pulse = new Pulse(ports, key, (chunk) => heartbeat(ports.db, key, pass, lease, chunk));
  try {
    const isResting =
      rests.has(job.name) && options.evenInSafeMode !== true && (await openRestore(ports.db)) !== undefined;
    const work = isResting ? resting(job) : job;
    const payloads = await work.plan({ ...context, stop: AbortSignal.any([stop, pulse.lost]) });
    if (payloads.length > 0) {
      await ports.db.transaction((tx) => insertChunks(tx, key, pass, payloads));
      // One of them is this process's own.
      if (work.shared && payloads.length > 1) await ports.wake?.(payloads.length - 1);
      await workThrough(work, context, { key, pass, lease }, pulse, true);
    }
  } catch (error) {
    failure = error;
  } finally {
    await pulse.end();
  }
  await ports.clock.refresh();
  const closed = await closePass(ports.db, key, pass, lease, {
    outcome: failure === null ? 'done' : stop.aborted || failure instanceof Halted ? 'stopped' : 'failed',
    attention: ['safe_mode', ...job.attention],
    failure: failure === null ? null : messageOf(failure),
    at: ports.clock.now(),
  });
  await sealAside(ports, merchant.id);
  if (failure instanceof Refusal && failure.code === 'DISK_FULL') await tellOfFullDisk(ports, key, failure);
  if (!closed) {
    const lost = `run ${job.name} ${businessDate}: another process has taken it over`;
    return {
      outcome: 'failed',
      pass,
      counts: {},
      failure: new Error(lost, { cause: failure }),
      owner: null,
    };
  }
  return { ...closed, pass, failure: failure instanceof Halted ? null : failure, owner: null };
}

/**
 * Does chunks of a pass that another process has opened, until none is free. That process plans, waits for the last chunk
 * and closes the pass; whoever helps holds its own chunks alone. Returns how many it did.
 */
export async function helpRun(
  ports: Ports,
  job: Job,
  options: Omit<RunJob, 'evenInSafeMode' | 'worker'> & { pass: number; worker: Worker },
): Promise<number> {
  await ports.clock.refresh();
  const { merchant, businessDate, pass, worker, stop = never, progress = quiet } = options;
  const key: RunKey = { merchantId: merchant.id, job: job.name, businessDate };
  const lease: Lease = { owner: worker.owner, seconds: leaseSeconds };
  const pulse = new Pulse(ports, key, (chunk) => heartbeatOfHelper(ports.db, key, pass, lease, chunk));
  try {
    return await workThrough(
      job,
      { ports, merchant, businessDate, stop, progress },
      { key, pass, lease },
      pulse,
      false,
    );
  } catch (error) {
    if (error instanceof Halted || stop.aborted) return 0;
    throw error;
  } finally {
    await pulse.end();
    await sealAside(ports, merchant.id);
  }
}

/** Nothing goes on by itself until somebody makes room. */
async function tellOfFullDisk(ports: Ports, key: RunKey, { message, next }: Refusal): Promise<void> {
  await raiseStanding(ports.db, key.merchantId, ports.clock.now(), [
    {
      id: ports.ids.uuid(),
      level: 'now',
      cause: `DISK_FULL ${key.job}`,
      message: `${key.job}: ${message}. ${next}`,
      occurrences: 1,
    },
  ]);
}

function resting(job: Job): Job {
  return { ...job, plan: async () => [{}], runChunk: async () => restingCounts };
}

/** So many chunks failing one after the other are no single bill's fault. */
const failuresInARow = 3;

interface Pass {
  key: RunKey;
  pass: number;
  lease: Lease;
}

/**
 * Claims and does chunks of a pass until none is left, or, for whoever only helps, until none is free. A chunk that fails
 * is set aside, so that one bad bill does not keep all the others from their turn for ever; the owner's call throws its
 * failure when the rest is done, whoever had it. Returns how many were done.
 */
async function workThrough(
  job: Job,
  context: JobContext,
  { key, pass, lease }: Pass,
  pulse: Pulse,
  isOwner: boolean,
): Promise<number> {
  const { ports } = context;
  const failures: unknown[] = [];
  let inARow = 0;
  let done = 0;
  for (;;) {
    context.stop.throwIfAborted();
    pulse.lost.throwIfAborted();
    await ports.clock.refresh();
    const chunk = await claimChunk(ports.db, key, pass, lease);
    if (chunk.chunk_no === null) {
      if (chunk.halted) throw new Halted(key);
      if (!isOwner) return done;
      if (chunk.open === 0) {
        if (failures.length > 0) throw failures[0];
        if (chunk.failure !== null) throw new Error(chunk.failure);
        return done;
      }
      // Others hold the rest: they finish, or fall silent and their chunk comes free.
      await realWait(ports, 500);
      continue;
    }
    const fence: Fence = { ...key, pass, chunkNo: chunk.chunk_no, owner: lease.owner, fence: chunk.fence };
    pulse.chunk = fence;
    try {
      const counts = await job.runChunk(
        {
          ...context,
          stop: AbortSignal.any([context.stop, pulse.lost]),
          fence,
          act: {
            merchantId: key.merchantId,
            id: ports.ids.uuid(),
            kind: 'job',
            actor: `${key.job} ${key.businessDate} pass ${pass} chunk ${chunk.chunk_no}`,
            at: ports.clock.now(),
          },
        },
        chunk.payload,
      );
      pulse.chunk = undefined;
      await finishChunk(ports.db, fence, counts);
      inARow = 0;
      done += 1;
    } catch (error) {
      pulse.chunk = undefined;
      if (error instanceof FenceLost) {
        ports.log.warn({ job: key.job, chunk: fence.chunkNo }, error.message);
        continue;
      }
      // Safe mode began while this ran: what was not begun stays as it is.
      if (error instanceof Refusal && error.code === 'SAFE_MODE') {
        await finishChunk(ports.db, fence, restingCounts);
        continue;
      }
      if (error instanceof Halted) {
        await yieldChunk(ports.db, fence, error.message);
        throw error;
      }
      inARow += 1;
      if (context.stop.aborted || pulse.lost.aborted || inARow >= failuresInARow) {
        await yieldChunk(ports.db, fence, messageOf(error));
        throw failures[0] ?? error;
      }
      failures.push(error);
      await parkChunk(ports.db, fence, messageOf(error));
    }
  }
}

/** Keeps the leases alive in real time while a chunk may take long; aborts `lost` when another process holds them. */
class Pulse {
  chunk: Fence | undefined;
  readonly #lost = new AbortController();
  readonly #ended = new AbortController();
  readonly #beating: Promise<void>;

  constructor(ports: Ports, key: RunKey, beat: (chunk: Fence | undefined) => Promise<boolean>) {
    this.#beating = this.#beat(ports, key, beat);
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  async end(): Promise<void> {
    this.#ended.abort();
    await this.#beating;
  }

  async #beat(
    ports: Ports,
    key: RunKey,
    beat: (chunk: Fence | undefined) => Promise<boolean>,
  ): Promise<void> {
    for (;;) {
      await realWait(ports, heartbeatEveryMs, this.#ended.signal);
      if (this.#ended.signal.aborted) return;
      try {
        const chunk = this.chunk;
        const held = await beat(chunk);
        // The chunk may have ended while the database was asked.
        if (!held && chunk === this.chunk) {
          this.#lost.abort(new Error('the lease was lost'));
          return;
        }
      } catch (error) {
        ports.log.warn(
          { job: key.job, error: messageOf(error) },
          'a heartbeat failed; the next one tries again',
        );
      }
    }
  }
}

/** Real time, also on a virtual clock: leases of processes that may die are about real time. */
export async function realWait(
  ports: Pick<Ports, 'clock'>,
  milliseconds: number,
  until: AbortSignal = never,
): Promise<void> {
  if (until.aborted) return;
  const signal = AbortSignal.any([ports.clock.deadline(milliseconds), until]);
  // A timer of AbortSignal.timeout does not keep the process alive; this wait must.
  const alive = setInterval(() => undefined, 60_000);
  try {
    if (!signal.aborted) await once(signal, 'abort');
  } finally {
    clearInterval(alive);
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
