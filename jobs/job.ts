import type { Act } from '../billing/acts/act.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import type { Fence } from '../billing/runs/fence.ts';
import type { Ports } from './ports.ts';

export const jobNames = [
  'fetch',
  'ingest',
  'trace',
  'reconcile',
  'refresh',
  'charge',
  'debit',
  'dunning',
  'notify',
  'deliver',
] as const;
export type JobName = (typeof jobNames)[number];

/** Numbers that a pass or chunk reports; chunks' counts are added up. */
export type Counts = Record<string, number>;

export interface JobContext {
  ports: Ports;
  merchant: Merchant;
  /** YYYY-MM-DD in the merchant's zone: the day the job works for, never "now". */
  businessDate: string;
  /** Aborted on Ctrl-C or a lost lease: finish the transaction at hand, start nothing new. */
  stop: AbortSignal;
  /** Tells a person at a terminal how far the work is. */
  progress(done: number, total: number | null, what: string): void;
}

export interface ChunkContext extends JobContext {
  /** Test it (`holdFence`) first in every transaction that writes. */
  fence: Fence;
  /** The act of this chunk: its id stands on every row that the chunk changes. */
  act: Act;
}

export interface Job<Payload = Record<string, unknown>> {
  name: JobName;
  /** Whether other workers may do chunks of a pass that is under way, in any order and at the same time. */
  shared?: true;
  /** One line for help texts and docs. */
  does: string;
  /**
   * What there is to do, as independent chunks, from the data alone: planned again after a crash it yields what is left.
   * Payloads are small JSON (ids or key ranges), never personal data. No chunks = nothing to do.
   */
  plan(context: JobContext): Promise<Payload[]>;
  /** Does one chunk. May run again after a crash, on another machine. Returns what it counted. */
  runChunk(context: ChunkContext, payload: Payload): Promise<Counts>;
  /** What the job would do, without doing it. */
  dryRun(context: JobContext): Promise<Counts>;
  /** Counts that want a person when not zero: the run then ends 'attention' (exit code 3). */
  attention: readonly string[];
}
