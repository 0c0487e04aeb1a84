import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { causeOf, causes } from '../alerts/causes.ts';
import { acknowledgedAndQuietSince, raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import { processes, processOf } from './processes.ts';
import {
  expireSessions,
  provableAlerts,
  provenOver,
  type StandingRow,
  standingBills,
  standingStill,
} from './queries.ts';

/** An outcome that is unknown after so many questions is no passing trouble. It is still not guessed. */
const asksUntilAlert = 10;
/** A failure may mend itself; so many passes in a row did not. */
const failedPasses = 3;
/** What heals itself is closed when it did not happen for so long. */
const selfHealedHours = 24;
const sessionsAtOnce = 1_000;

/** Causes that are over as soon as nothing of them stands; the others have proof of their own. */
const goneWhenNoneStands = (cause: string): boolean =>
  processOf(cause) !== undefined && !cause.startsWith('RUN_FAILING');

const closedElsewhere = new Set([
  'TRACE_SILENT',
  'ALERT_CHANNEL_FAILS',
  'REFUND_UNKNOWN',
  'FILE_NOT_TAKEN',
  'FILE_LATE',
  'SETTLEMENT_DIFFERS',
  'SETTLEMENT_FEE_DIFFERS',
  'CHARGES_WAIT',
]);

const parkedFor = Object.entries(causes)
  .filter(([, { parked }]) => parked)
  .map(([word]) => word);

/** Told and closed elsewhere, or by a person alone. */
const closedHere = Object.entries(causes)
  .filter(([word, { over }]) => over !== undefined && !closedElsewhere.has(word))
  .map(([word]) => (word === 'SFTP' || word === 'DELIVER' ? `${word}_[A-Z_]+` : word));

/**
 * Finds what stands in a passing state for longer than it may and tells a person; closes the alerts of what has come to
 * its end since; and ends what can be ended without harm. Returns counts by process.
 */
export async function findStuckRows(
  tx: Tx,
  work: { act: Act; ids: Ids; businessDate: string; withBills: boolean },
): Promise<Record<string, number>> {
  const { act, ids } = work;
  const { merchantId } = act;
  const quietSince = instantText(acknowledgedAndQuietSince(act.at));
  const unresolved = await provableAlerts(tx, merchantId, closedHere, quietSince);
  const withBills = work.withBills || unresolved.some((cause) => processOf(cause)?.daily);

  const today = Temporal.PlainDate.from(work.businessDate);
  const daysBefore = (cause: string) => today.subtract({ days: minutesOf(cause) / (24 * 60) }).toString();
  const before = (cause: string) => instantText(act.at.subtract({ minutes: minutesOf(cause) }));
  const standing: StandingRow[] = await standingStill(tx, merchantId, {
    before,
    runsSince: today.subtract({ days: 1 }).toString(),
    plannedBefore: daysBefore('MESSAGES_PLANNED'),
    asksAtMost: asksUntilAlert,
    silentSeconds: minutesOf('RUN_SILENT') * 60,
    failedPasses,
  });
  if (withBills) {
    const limits = {
      dueBefore: daysBefore('BILLS_LATE'),
      knownBefore: before('RESULTS_DUE'),
      today: work.businessDate,
      unreachedBefore: before('UNREACHED_UNTOLD'),
    };
    standing.push(...(await standingBills(tx, merchantId, limits)));
  }
  await raiseStanding(
    tx,
    merchantId,
    act.at,
    standing.map(({ cause, standing: occurrences, example }) => ({
      id: ids.uuid(),
      level: causeOf(cause)?.level ?? 'now',
      cause,
      message: `${occurrences} ${processOf(cause)?.stand}, such as ${example}`,
      occurrences,
    })),
  );

  const stands = new Set(standing.map(({ cause }) => cause));
  const gone = unresolved.filter(
    (cause) => !stands.has(cause) && goneWhenNoneStands(cause) && (withBills || !processOf(cause)?.daily),
  );
  await resolveAlerts(tx, merchantId, act.at, gone, 'nothing stands any more');
  const toProve = unresolved.filter((cause) => !stands.has(cause) && !goneWhenNoneStands(cause));
  if (toProve.length > 0) {
    const healedBefore = instantText(act.at.subtract({ hours: selfHealedHours }));
    const over = await provenOver(tx, merchantId, toProve, healedBefore, parkedFor);
    await resolveAlerts(tx, merchantId, act.at, over, 'proven to be over');
  }

  const endedBefore = instantText(act.at.subtract({ minutes: sessionMinutes }));
  const expired = await expireSessions(tx, act, endedBefore, sessionsAtOnce);
  if (expired > 0) await recordAct(tx, act);
  return countsOf(standing, expired);
}

const sessionMinutes = processes.find(({ cause }) => cause === null)?.minutes ?? 0;

function minutesOf(cause: string): number {
  const process = processOf(cause);
  assertState(process, `${cause} is no traced process`);
  return process.minutes;
}

function countsOf(standing: readonly StandingRow[], expired: number): Record<string, number> {
  const counts: Record<string, number> = expired > 0 ? { sessions_expired: expired } : {};
  for (const { count } of processes) if (count !== null) counts[count] = 0;
  for (const { cause, standing: many } of standing) {
    const count = processOf(cause)?.count;
    assertState(count, `${cause} is no traced process`);
    counts[count] = (counts[count] ?? 0) + many;
  }
  return counts;
}
