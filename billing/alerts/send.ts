import { Temporal } from 'temporal-polyfill';
import type { Db } from '../db.ts';
import { listMerchants } from '../merchants/queries.ts';
import type { Clock, Crash, Ids, Log } from '../ports.ts';
import { nextOf } from './causes.ts';
import {
  type ClaimedDelivery,
  claimDelivery,
  type Digest,
  lockAlertsToPlan,
  merchantsToNotify,
  type OpenAlert,
  planDigest,
  planNotices,
  raiseStanding,
  resolveAlerts,
  settleDelivery,
  toldBy,
} from './queries.ts';
import { digestOf, isNoticeDue, nextTryAt } from './schedule.ts';
import type { AlertSender, AlertTold, Notice, SendAnswer } from './sender.ts';

export interface AlertPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  crash: Crash;
  log: Log;
  /** Where alerts go; none = they only stand in the list. */
  alertSenders: readonly AlertSender[];
}

export interface SendCounts extends Record<string, number> {
  sent: number;
  failed: number;
  /** Closed before they went. */
  dropped: number;
}

/** Between two looks at an alert nothing is planned sooner than this: the shortest pause of the schedule. */
const shortestPauseMinutes = 60;
const alertsPlannedAtOnce = 200;
const noticesInAPass = 50;
/** So many tries in a row without success, and the other channels tell of it. */
const failuresUntilAlert = 5;

/**
 * Plans the notices that are due and sends what waits, at least once each: the row is committed, then the channel is
 * called outside any transaction, then its answer is written down. A channel that fails rests until its next try and
 * keeps no other waiting. Two processes at once share the notices between them.
 */
export async function sendDueAlerts(ports: AlertPorts): Promise<SendCounts> {
  const counts: SendCounts = { sent: 0, failed: 0, dropped: 0 };
  const { alertSenders: senders, clock, db } = ports;
  if (senders.length === 0) return counts;
  await clock.refresh();
  const now = clock.now();
  const quietSince = now.subtract({ minutes: shortestPauseMinutes });
  const [first] = await listMerchants(db);
  const morning = digestOf(now, first?.settings.timezone ?? 'UTC');
  const digest = morning && { notice: `digest.${morning.date}`, asOf: morning.asOf };
  const merchantIds = await merchantsToNotify(db, now, quietSince, digest);
  for (const merchantId of merchantIds) await plan(ports, merchantId, now, quietSince, digest);
  await Promise.all(senders.map((sender) => sendOver(ports, sender, merchantIds, counts)));
  return counts;
}

async function plan(
  { db, alertSenders }: AlertPorts,
  merchantId: number,
  now: Temporal.Instant,
  quietSince: Temporal.Instant,
  digest: Digest | null,
): Promise<void> {
  const channels = alertSenders.map((sender) => sender.channel);
  await db.transaction(async (tx) => {
    if (merchantId === 0 && digest !== null) await planDigest(tx, digest, channels, now);
    const alerts = await lockAlertsToPlan(tx, merchantId, quietSince, alertsPlannedAtOnce);
    const due = alerts.filter(({ notices, noticed_at }) =>
      isNoticeDue(
        { notices, noticedAt: noticed_at === null ? null : Temporal.Instant.from(noticed_at) },
        now,
      ),
    );
    if (due.length === 0) return;
    await planNotices(
      tx,
      merchantId,
      due.map((alert) => alert.id),
      channels,
      now,
    );
  });
}

/** One channel, notice after notice, until nothing waits or one fails. */
async function sendOver(
  ports: AlertPorts,
  sender: AlertSender,
  merchantIds: readonly number[],
  counts: SendCounts,
): Promise<void> {
  let left = noticesInAPass;
  for (const merchantId of merchantIds) {
    for (; left > 0; left -= 1) {
      const ended = await sendNext(ports, sender, merchantId);
      if (ended === 'nothing') break;
      counts[ended] += 1;
      if (ended === 'failed') return;
    }
  }
}

async function sendNext(
  ports: AlertPorts,
  sender: AlertSender,
  merchantId: number,
): Promise<'sent' | 'failed' | 'dropped' | 'nothing'> {
  const { db, clock } = ports;
  const { channel, callDeadlineMs } = sender;
  await clock.refresh();
  const claimedAtMs = clock.elapsedMs();
  // A call starts in the first third of its lease and ends in the second.
  const claimed = await claimDelivery(db, merchantId, channel, clock.now(), (callDeadlineMs * 3) / 1000);
  if (claimed === undefined) return 'nothing';
  const told = await toldBy(db, merchantId, claimed);
  const settle = (
    state: 'open' | 'sent' | 'dropped',
    failure: string | null = null,
    tryAt: Temporal.Instant | null = null,
  ) =>
    settleDelivery(db, merchantId, {
      notice: claimed.notice,
      channel,
      attempts: claimed.attempts,
      state,
      at: clock.now(),
      tryAt,
      failure,
    });
  if (told.length === 0) {
    await settle('dropped', 'closed');
    return 'dropped';
  }
  await ports.crash('alerts.after_claim');
  // A process that stood still meanwhile: another has the notice by now.
  const isOld = clock.elapsedMs() - claimedAtMs > callDeadlineMs;
  const answer: SendAnswer = isOld
    ? { kind: 'not_accepted', why: 'the claim grew old' }
    : await calling(ports, sender, noticeOf(claimed, told));
  await ports.crash('alerts.after_send');
  await clock.refresh();
  if (answer.kind === 'accepted') {
    await settle('sent');
    await resolveAlerts(db, 0, clock.now(), [failsCause(channel)], 'a notice got through');
    return 'sent';
  }
  ports.log.warn({ channel, notice: claimed.notice, why: answer.why }, 'an alert did not get through');
  await settle('open', answer.why, nextTryAt(claimed.attempts, clock.now()));
  if (claimed.attempts >= failuresUntilAlert) {
    await raiseStanding(db, 0, clock.now(), [
      {
        id: ports.ids.uuid(),
        level: 'now',
        cause: failsCause(channel),
        message: `alerts do not get through by ${channel} after ${claimed.attempts} tries: ${answer.why}`,
        occurrences: 1,
      },
    ]);
  }
  return 'failed';
}

function failsCause(channel: string): string {
  return `ALERT_CHANNEL_FAILS ${channel}`;
}

function noticeOf(claimed: ClaimedDelivery, told: readonly OpenAlert[]): Notice {
  const number = claimed.alert_id === null ? 1 : Number(claimed.notice.split('.')[1]);
  return {
    id: claimed.notice,
    kind: claimed.alert_id === null ? 'digest' : 'alert',
    number,
    alerts: told.map(
      (alert): AlertTold => ({
        merchant: alert.merchant,
        level: alert.level,
        cause: alert.cause,
        message: alert.message,
        next: nextOf(alert.cause),
        occurrences: alert.occurrences,
        firstAt: alert.first_at,
        lastAt: alert.last_at,
      }),
    ),
  };
}

/** An answer within the deadline, also where an adapter throws or does not hear the signal. */
async function calling(
  { clock, log }: Pick<AlertPorts, 'clock' | 'log'>,
  sender: AlertSender,
  notice: Notice,
): Promise<SendAnswer> {
  const signal = clock.deadline(sender.callDeadlineMs);
  const expired = new Promise<SendAnswer>((resolve) => {
    signal.addEventListener('abort', () => resolve({ kind: 'not_accepted', why: 'no answer in time' }), {
      once: true,
    });
  });
  try {
    return await Promise.race([sender.send(notice, signal), expired]);
  } catch (error) {
    log.warn({ channel: sender.channel, error: (error as Error).name }, 'a call to tell an alert broke');
    return { kind: 'not_accepted', why: 'the call broke' };
  }
}

/** Sends a test notice over each channel, so that an operator sees whether alerts would arrive. Records nothing. */
export async function testSenders(
  ports: Pick<AlertPorts, 'clock' | 'ids' | 'log' | 'alertSenders'>,
): Promise<{ channel: string; answer: SendAnswer }[]> {
  await ports.clock.refresh();
  const at = ports.clock.now().toString();
  const notice: Notice = {
    id: `test.${ports.ids.uuid()}`,
    kind: 'test',
    number: 1,
    alerts: [
      {
        merchant: '',
        level: 'now',
        cause: 'TEST',
        message: 'this is a test: an operator asked whether alerts arrive',
        next: 'nothing is to be done',
        occurrences: 1,
        firstAt: at,
        lastAt: at,
      },
    ],
  };
  return Promise.all(
    ports.alertSenders.map(async (sender) => ({
      channel: sender.channel,
      answer: await calling(ports, sender, notice),
    })),
  );
}
