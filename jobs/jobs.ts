import { charge } from './charge.ts';
import { debit } from './debit.ts';
import { deliver } from './deliver.ts';
import { dunning } from './dunning.ts';
import { fetch } from './fetch.ts';
import { ingest } from './ingest.ts';
import type { Job, JobName } from './job.ts';
import { notify } from './notify.ts';
import { reconcile } from './reconcile.ts';
import { refresh } from './refresh.ts';
import { trace } from './trace.ts';

/** All jobs, in the order of the billing day. */
export const jobs: Readonly<Record<JobName, Job>> = {
  fetch,
  ingest,
  trace,
  reconcile,
  refresh,
  charge,
  debit,
  dunning,
  notify,
  deliver,
};
