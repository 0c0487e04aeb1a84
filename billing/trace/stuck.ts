import { type Act, instantText } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Ids } from '../ports.ts';
import { filesLoadingSince, forgottenBills, messagesSendingSince, silentRuns } from './queries.ts';

export type StuckCounts = Record<
  'silent_runs' | 'files_loading' | 'messages_sending' | 'forgotten_bills',
  number
>;

/** A silent worker's chunks are free after 40 s; after this nobody came. */
const silentSeconds = 900;
const loadingHours = 1;
const sendingHours = 1;

/** Finds rows that stay in a passing state and tells a person. Changes nothing but alerts. */
export async function findStuckRows(
  tx: Tx,
  work: { act: Act; ids: Ids; withForgottenBills: boolean },
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
  const { forgotten, example } = work.withForgottenBills
    ? await forgottenBills(tx, merchantId)
    : { forgotten: 0, example: null };
  if (forgotten > 0) {
    await now(
      'BILLS_FORGOTTEN',
      `${forgotten} open bills have nothing on their agenda, such as ${example}`,
      forgotten,
    );
  }
  return {
    silent_runs: runs.length,
    files_loading: files.length,
    messages_sending: sending,
    forgotten_bills: forgotten,
  };
}
