import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Ids } from '../ports.ts';
import {
  failingRuns,
  filesLoadingSince,
  forgottenBills,
  lateBills,
  messagesSendingSince,
  silentRuns,
} from './queries.ts';

export type StuckCounts = Record<
  'silent_runs' | 'failing_runs' | 'files_loading' | 'messages_sending' | 'forgotten_bills' | 'late_bills',
  number
>;

/** A silent worker's chunks are free after 40 s; after this nobody came. */
const silentSeconds = 900;
const loadingHours = 1;
const sendingHours = 1;
/** A failure may mend itself; so many passes in a row did not. */
const failedPasses = 3;
/** Weekends and an outage of a day or two are no alarm. */
const lateDays = 4;

/** Finds rows that stay in a passing state and tells a person. Changes nothing but alerts. */
export async function findStuckRows(
  tx: Tx,
  work: { act: Act; ids: Ids; businessDate: string; withBills: boolean },
): Promise<StuckCounts> {
  const { act, ids } = work;
  const { merchantId } = act;
  const now = (cause: string, message: string, occurrences = 1) =>
    raiseAlert(tx, ids.uuid(), act.at, { merchantId, level: 'now', cause, message, occurrences });

  const runs = await silentRuns(tx, merchantId, silentSeconds);
  for (const run of runs) {
    await now(
      `RUN_SILENT ${run.job} ${run.business_date}`,
      `the worker of ${run.job} ${run.business_date} fell silent and nobody took its work up: start a worker, or run it again`,
    );
  }
  const today = Temporal.PlainDate.from(work.businessDate);
  const failing = await failingRuns(tx, merchantId, today.subtract({ days: 1 }).toString(), failedPasses);
  for (const run of failing) {
    await now(
      `RUN_FAILING ${run.job}`,
      `${run.job} ${run.business_date} failed ${failedPasses} times in a row; why: seikyu runs --job ${run.job}`,
    );
  }
  const files = await filesLoadingSince(
    tx,
    merchantId,
    instantText(act.at.subtract({ hours: loadingHours })),
  );
  for (const file of files) {
    await now(
      `FILE_LOADING ${file.id}`,
      `the file ${file.name} has been loading for over an hour: run ingest again`,
    );
  }
  const sending = await messagesSendingSince(
    tx,
    merchantId,
    instantText(act.at.subtract({ hours: sendingHours })),
  );
  if (sending > 0) {
    await now(
      'MESSAGES_SENDING',
      `${sending} messages have been in sending for over an hour: run notify again`,
    );
  }
  const { forgotten, example } = work.withBills
    ? await forgottenBills(tx, merchantId)
    : { forgotten: 0, example: null };
  if (forgotten > 0) {
    await now(
      'BILLS_FORGOTTEN',
      `${forgotten} open bills have nothing on their agenda, such as ${example}`,
      forgotten,
    );
  }
  const { late, example: lateExample } = work.withBills
    ? await lateBills(tx, merchantId, today.subtract({ days: lateDays }).toString())
    : { late: 0, example: null };
  if (late > 0) {
    await now(
      'BILLS_LATE',
      `${late} open bills wait since more than ${lateDays} days for a step that was due, such as ${lateExample}`,
      late,
    );
  }
  return {
    silent_runs: runs.length,
    failing_runs: failing.length,
    files_loading: files.length,
    messages_sending: sending,
    forgotten_bills: forgotten,
    late_bills: late,
  };
}
