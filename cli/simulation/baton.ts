import { AsyncLocalStorage } from 'node:async_hooks';
import { Temporal } from 'temporal-polyfill';
import { systemClock } from '../../billing/clock.ts';
import type { Chance } from './chance.ts';
import type { Trace } from './trace.ts';

/** A process of the product: what dies dies whole, and nothing of it is ever heard of again. */
export interface Mortal {
  readonly name: string;
  dead: boolean;
  /** Stands still as a whole until then, timers and all: a machine that swaps, a container that is paused. */
  stillUntilMs: number;
}

interface Waiting {
  readyAtMs: number;
  order: number;
  owner: Mortal | null;
  label: string;
  /** A deadline that runs beside the work; nobody waits for it alone. */
  isDeadline: boolean;
  resume(): void;
}

interface Queue {
  tail: Promise<unknown>;
  isOpen: boolean;
}

export interface BatonOptions {
  startMs: number;
  chance: Chance;
  trace: Trace;
  /** Asked before a process goes on: true kills it there. */
  kills(owner: Mortal, label: string): boolean;
}

/** One for each who waits: a promise that all of them shared would keep every dead process in memory, seed after seed. */
const never = (): Promise<never> => new Promise(() => undefined);
const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** Real time: one statement on an overloaded machine takes seconds, never this long. */
const hangsAfterMs = 60_000;

/**
 * One baton. Whoever calls out of the process, sleeps or passes a crash point gives it back, and the seed says who has
 * it next; database work is done one transaction at a time and is never interrupted. So the order of everything that
 * happens follows from the seed alone, whatever the machine is doing.
 */
export class Baton {
  nowMs: number;
  readonly #options: BatonOptions;
  #waiting: Waiting[] = [];
  #order = 0;
  #working = 0;
  #workEnded: (() => void) | null = null;
  readonly #queue: Queue = { tail: Promise.resolve(), isOpen: true };
  /** A transaction that reads while others write from within it: those have a queue of their own. */
  readonly #within = new AsyncLocalStorage<Queue>();
  #doing = '';

  constructor(options: BatonOptions) {
    this.#options = options;
    this.nowMs = options.startMs;
  }

  now(): Temporal.Instant {
    return Temporal.Instant.fromEpochMilliseconds(this.nowMs);
  }

  /** Goes on after so many virtual milliseconds, when its turn comes; never if its process dies before. */
  pause(owner: Mortal | null, milliseconds: number, label: string, signal?: AbortSignal): Promise<void> {
    if (owner?.dead) return never();
    return new Promise((resolve, reject) => {
      const entry = this.#enter(owner, milliseconds, label, false, () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      });
      const abort = () => {
        this.#waiting = this.#waiting.filter((each) => each !== entry);
        reject(signal?.reason);
      };
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Aborts after virtual milliseconds, as long as its process lives. */
  deadline(owner: Mortal, milliseconds: number): AbortSignal {
    const controller = new AbortController();
    this.#enter(owner, milliseconds, 'deadline', true, () =>
      controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')),
    );
    return controller.signal;
  }

  /** Something begins at a time of its own. */
  at(epochMs: number, label: string, begin: () => void): void {
    this.#enter(null, epochMs - this.nowMs, label, false, begin);
  }

  #enter(
    owner: Mortal | null,
    milliseconds: number,
    label: string,
    isDeadline: boolean,
    resume: () => void,
  ): Waiting {
    this.#order += 1;
    const entry = {
      readyAtMs: this.nowMs + Math.max(0, Math.ceil(milliseconds)),
      order: this.#order,
      owner,
      label,
      isDeadline,
      resume,
    };
    this.#waiting.push(entry);
    return entry;
  }

  /** Database work: one after the other, each to its end. A dead process gets no answer. */
  exclusive<T>(owner: Mortal | null, what: string, work: () => Promise<T>): Promise<T> {
    if (owner?.dead) return never();
    this.#working += 1;
    const within = this.#within.getStore();
    const queue = within?.isOpen ? within : this.#queue;
    const own: Queue = { tail: Promise.resolve(), isOpen: true };
    const running = queue.tail.then(() => {
      this.#doing = what;
      return this.#within.run(own, work);
    });
    const ended = () => {
      own.isOpen = false;
      this.#working -= 1;
      if (this.#working === 0) this.#workEnded?.();
    };
    queue.tail = running.then(ended, ended);
    return running;
  }

  /** Until nobody can do anything without the baton. */
  async #quiet(): Promise<void> {
    for (;;) {
      if (this.#working > 0) await this.#workDone();
      await immediate();
      if (this.#working === 0) return;
    }
  }

  async #workDone(): Promise<void> {
    const real = systemClock();
    const since = real.elapsedMs();
    // The only timer of real time: it ends a run that would hang for ever, and takes part in nothing.
    const watch = setInterval(() => {
      if (real.elapsedMs() - since < hangsAfterMs) return;
      clearInterval(watch);
      const steps = this.#options.trace.last().slice(-5).join('\n  ');
      throw new Error(
        `the simulation hangs in ${this.#doing}: does a transaction wait for another one?\n  ${steps}`,
      );
    }, 5_000);
    try {
      await new Promise<void>((resolve) => {
        this.#workEnded = resolve;
      });
    } finally {
      clearInterval(watch);
      this.#workEnded = null;
    }
  }

  /** Whether anybody is on the way, beside deadlines. */
  get busy(): boolean {
    return this.#waiting.some((entry) => !entry.isDeadline && !entry.owner?.dead);
  }

  /** Hands the baton on until virtual time has come to `untilMs`. `after` looks at the world after each step. */
  async run(untilMs: number, after: () => Promise<void>): Promise<void> {
    const { chance, trace, kills } = this.#options;
    for (;;) {
      await this.#quiet();
      await after();
      this.#waiting = this.#waiting.filter((entry) => {
        if (!entry.owner?.dead) return true;
        // Timers of a dead process end, so that nothing of it stays; what they wake finds every door shut.
        if (entry.isDeadline) entry.resume();
        return false;
      });
      let next = Number.POSITIVE_INFINITY;
      for (const entry of this.#waiting) next = Math.min(next, readyAt(entry));
      if (next > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return;
      }
      this.nowMs = Math.max(this.nowMs, next);
      const ready = this.#waiting.filter((entry) => readyAt(entry) <= this.nowMs);
      const chosen = ready.length === 1 ? ready[0] : chance.oneOf(ready);
      if (chosen === undefined) throw new Error('impossible state: nobody takes the baton');
      this.#waiting = this.#waiting.filter((entry) => entry !== chosen);
      const { owner, label } = chosen;
      if (!chosen.isDeadline) {
        trace.line(`${this.now().toString().slice(0, 23)} ${owner?.name ?? '-'} ${label}`);
        if (owner !== null && kills(owner, label)) {
          owner.dead = true;
          continue;
        }
      }
      chosen.resume();
    }
  }
}

function readyAt({ readyAtMs, owner }: Waiting): number {
  return Math.max(readyAtMs, owner?.stillUntilMs ?? 0);
}
