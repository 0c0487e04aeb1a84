import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { businessDateOf, hoursAllow } from '../calendar/hours.ts';
import type { Carrier, SmsAnswer, SmsLookupAnswer, SmsRequest } from '../carriers/carrier.ts';
import { openContact } from '../customers/contact.ts';
import type { Db, Tx } from '../db.ts';
import { linkTokenOf, linkUrlOf, tokenHashOf } from '../links/token.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import { defaultDailyCap } from '../merchants/settings.ts';
import { park } from '../parked/queries.ts';
import type { Clock, Crash, Ids, Log } from '../ports.ts';
import { takeSlot } from '../rate-limits/queries.ts';
import { assertState } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import { isAgain, messageIdOf } from './message.ts';
import {
  claimMessages,
  countDue,
  debitOf,
  type Letterhead,
  type MessageOutcome,
  type MessageToAsk,
  messagesToAsk,
  settleMessages,
} from './queries.ts';
import { type OwnTexts, segmentsOf, textKindOf, textOf } from './texts.ts';

export interface SendPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  crash: Crash;
  log: Log;
  sealer: Sealer;
  carrier: Carrier;
  baseUrl: string;
}

export interface SendWork {
  merchant: Merchant;
  /** YYYY-MM-DD: messages planned for this day or before may go. */
  businessDate: string;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
  progress(done: number, total: number | null, what: string): void;
}

/** The rate limit's name of an SMS sender. */
const paceName = 'sms';
/** After this many questions without an answer a person decides. */
const mostAsks = 10;
const firstAskAfterMs = 60_000;
const longestAskPauseMs = 3_600_000;
/** So many batches in a row that the carrier took nothing of: it is tried again in the next pass. */
const mostBusyBatches = 3;
const lookupBatch = 200;

/** Calls of one batch: at most two rounds of the carrier's concurrency, and about one second of the pace. */
function batchSize(carrier: Carrier, pace: number): number {
  return Math.max(1, Math.min(Math.floor(pace), carrier.semantics.concurrency * 2));
}

/** From the claim on, how long a send may be under way: a round waits for the one before it. */
function sendWindowMs(carrier: Carrier): number {
  return carrier.semantics.callDeadlineMs * 2;
}

export interface SendCounts extends Record<string, number> {
  sent: number;
  failed: number;
  unknown: number;
  skipped: number;
  not_executed: number;
  waiting_for_hours: number;
  /** Their phones have had enough for today. */
  over_daily_cap: number;
}

/**
 * Sends what is planned, at the merchant's pace and within its hours, until nothing is due. Each batch is claimed and
 * committed first, sent outside any transaction, and its outcomes recorded by compare-and-set: a killed process leaves at
 * most one batch whose outcome must be asked for, and nothing is ever sent a second time blindly.
 */
export async function sendDue(ports: SendPorts, work: SendWork): Promise<SendCounts> {
  const { clock, carrier } = ports;
  const { notify, timezone } = work.merchant.settings;
  const pace = notify.paceSegmentsPerSecond;
  const size = batchSize(carrier, pace);
  const counts: SendCounts = {
    sent: 0,
    failed: 0,
    unknown: 0,
    skipped: 0,
    not_executed: 0,
    waiting_for_hours: 0,
    over_daily_cap: 0,
  };
  let due = await countDue(ports.db, work.merchant.id, work.businessDate);
  const total = due;
  let busyBatches = 0;
  while (due > 0 && !work.stop.aborted) {
    await clock.refresh();
    if (hoursAllow(clock.now(), timezone, notify.hours)) {
      const slot = await takeSlot(ports.db, work.merchant.id, paceName, clock.now(), (size / pace) * 1000);
      const waitMs = Temporal.Instant.from(slot).epochMilliseconds - clock.now().epochMilliseconds;
      if (waitMs > 0) await clock.sleep(waitMs, work.stop);
      await clock.refresh();
    }
    // Asked again after the wait: what counts is the moment of sending.
    if (!hoursAllow(clock.now(), timezone, notify.hours)) {
      counts.waiting_for_hours = await countDue(ports.db, work.merchant.id, work.businessDate);
      break;
    }
    const batch = await sendBatch(ports, work, size);
    for (const name of ['sent', 'failed', 'unknown', 'skipped', 'not_executed'] as const) {
      counts[name] += batch[name];
    }
    const handled = batch.sent + batch.failed + batch.unknown + batch.skipped;
    if (handled === 0 && batch.not_executed === 0) {
      // Whatever else keeps a message from being claimed keeps it from being due.
      counts.over_daily_cap = await countDue(ports.db, work.merchant.id, work.businessDate);
      break;
    }
    busyBatches = handled === 0 ? busyBatches + 1 : 0;
    if (busyBatches >= mostBusyBatches) {
      await raiseAlert(ports.db, ports.ids.uuid(), clock.now(), {
        merchantId: work.merchant.id,
        ...(batch.ofAccount > 0
          ? {
              level: 'now',
              cause: 'CARRIER_REFUSES',
              message: `the SMS carrier ${carrier.name} takes nothing from this account or sender (${batch.why}); messages wait`,
            }
          : {
              level: 'none',
              cause: 'CARRIER_BUSY',
              message: `the SMS carrier ${carrier.name} takes no messages now; they wait and go in a later pass`,
            }),
      });
      break;
    }
    // More segments than the slot was for, or a carrier that asks for a pause: the next slot starts later.
    const extraMs = Math.max(((batch.segments - size) / pace) * 1000, 0) + batch.pauseMs;
    if (extraMs > 0) await takeSlot(ports.db, work.merchant.id, paceName, clock.now(), extraMs);
    due = Math.max(due - handled, 0);
    work.progress(total - due, total, 'messages');
    if (due === 0) due = await countDue(ports.db, work.merchant.id, work.businessDate);
  }
  return counts;
}

interface Batch {
  sent: number;
  failed: number;
  unknown: number;
  skipped: number;
  not_executed: number;
  /** Of those, not taken because of who sends. */
  ofAccount: number;
  /** What the carrier said to the last of these. */
  why: string;
  segments: number;
  pauseMs: number;
}

async function sendBatch(ports: SendPorts, work: SendWork, size: number): Promise<Batch> {
  const { clock, carrier } = ports;
  const claimedAtMs = clock.elapsedMs();
  const claimed = await inTransaction(ports, work, async (tx, act) => {
    const { timezone, notify } = work.merchant.settings;
    const today = businessDateOf(act.at, timezone);
    const messages = await claimMessages(tx, act, {
      dueOn: work.businessDate,
      today: today.toString(),
      todayFrom: instantText(today.toZonedDateTime(timezone).toInstant()),
      dailyCap: notify.dailyCapPerPhone ?? defaultDailyCap,
      carrier: carrier.name,
      askAt: instantText(act.at.add({ milliseconds: sendWindowMs(carrier) })),
      limit: size,
    });
    // Nothing was to be had: because there is nothing, or because nothing may leave.
    if (messages.length === 0) await refuseInSafeMode(tx);
    return messages;
  });
  const messages = claimed.filter((message) => message.state === 'sending');
  const batch: Batch = {
    sent: 0,
    failed: 0,
    unknown: 0,
    skipped: claimed.length - messages.length,
    not_executed: 0,
    ofAccount: 0,
    why: '',
    segments: 0,
    pauseMs: 0,
  };
  if (messages.length === 0) return batch;
  const texts = await textsOf(ports, work.merchant, messages);
  const letters = messages.map((message) => letterOf(ports, work.merchant, texts, message, clock.now()));
  await ports.crash('notify.after_claim');
  const answers = await inLanes(
    letters,
    carrier.semantics.concurrency,
    async (letter): Promise<SmsAnswer> => {
      // No call starts after the first half of the window that the claim declared.
      if (clock.elapsedMs() - claimedAtMs > carrier.semantics.callDeadlineMs) {
        return { kind: 'not_executed', why: 'the claim grew old', retryAfterMs: null };
      }
      const { messageId, to, body, sender } = letter;
      const request = { messageId, merchantCode: work.merchant.code, to, body, sender };
      return calling(ports, carrier, (signal) => carrier.send(request, signal));
    },
  );
  await ports.crash('notify.after_send');
  const outcomes = messages.map((message, index): MessageOutcome => {
    const answer = answers[index];
    const letter = letters[index];
    assertState(answer && letter, 'a message without an answer');
    batch.segments += letter.segments;
    if (answer.kind === 'not_executed') {
      batch.pauseMs = Math.max(batch.pauseMs, answer.retryAfterMs ?? 0);
      if (answer.account) Object.assign(batch, { ofAccount: batch.ofAccount + 1, why: answer.why });
    }
    return { ...outcomeOfSend(clock.now(), answer), ...keyOf(message), segments: letter.segments };
  });
  await inTransaction(ports, work, (tx, act) => settleMessages(tx, act, outcomes));
  await ports.crash('notify.after_outcome');
  for (const { to } of outcomes) {
    if (to === 'sent' || to === 'failed' || to === 'unknown') batch[to] += 1;
    else batch.not_executed += 1;
  }
  return batch;
}

interface Letter {
  messageId: string;
  to: string;
  body: string;
  sender: SmsRequest['sender'];
  segments: number;
}

/** The same text again for the same instant: a carrier that keeps no id of ours knows a message by it. */
function letterOf(
  ports: SendPorts,
  merchant: Merchant,
  texts: ReadonlyMap<number, OwnTexts | undefined>,
  message: Letterhead & { invoice_id: string; step: string },
  at: Temporal.Instant,
): Letter {
  const { settings } = merchant;
  const today = businessDateOf(at, settings.timezone).toString();
  const language = settings.notify.languages[0] ?? 'ja';
  const contact = openContact(ports.sealer, merchant.id, message.customer_number, message.sealed);
  assertState(contact.phone, `message ${message.step} of bill ${message.invoice_id} has nobody to go to`);
  const body = textOf({
    kind: textKindOf(message.step, today > message.due_on, message.fell_back_for),
    language,
    merchantName: settings.name[language],
    link: linkOf(ports, merchant, message),
    dueOn: message.due_on,
    own: texts.get(message.settings_version),
    debit: debitOf(message),
  });
  return {
    messageId: messageIdOf(message.invoice_id, message.step),
    to: contact.phone,
    body,
    sender: isAgain(message.step) ? 'second' : 'first',
    segments: segmentsOf(body).count,
  };
}

/** By version of the settings: texts that are changed between a send and the question about it are not the ones sent. */
async function textsOf(
  { db }: SendPorts,
  merchant: Merchant,
  messages: readonly Letterhead[],
): Promise<ReadonlyMap<number, OwnTexts | undefined>> {
  const versions = [...new Set(messages.map((message) => message.settings_version))];
  const settings = await settingsByVersion(db, merchant.id, versions);
  return new Map([...settings].map(([version, { texts }]) => [version, texts]));
}

function linkOf(
  ports: SendPorts,
  merchant: Merchant,
  message: Letterhead & { invoice_id: string },
): string | null {
  const { link_version: version, link_key_id: keyId } = message;
  if (version === null || keyId === null || message.token_hash === null) return null;
  const token = linkTokenOf(ports.sealer, merchant, message.invoice_id, version, keyId);
  // A link that leads nowhere must never reach a phone.
  assertState(
    tokenHashOf(token).equals(message.token_hash),
    `the link of bill ${message.invoice_id} cannot be derived again: was SEIKYU_SECRET changed?`,
  );
  return linkUrlOf(ports.baseUrl, token);
}

function keyOf(message: { invoice_id: string; step: string; version: number }) {
  return { invoiceId: message.invoice_id, step: message.step, version: message.version };
}

type Settling = Pick<MessageOutcome, 'to' | 'providerId' | 'code' | 'unreached' | 'askAt' | 'asked'>;

function outcomeOfSend(now: Temporal.Instant, answer: SmsAnswer): Settling {
  const settling = { providerId: null, code: null, unreached: null, askAt: null, asked: false };
  switch (answer.kind) {
    case 'accepted':
      return { ...settling, to: 'sent', providerId: answer.providerId };
    case 'refused':
      return { ...settling, to: 'failed', code: answer.code, unreached: answer.unreached ?? null };
    case 'not_executed':
      return { ...settling, to: 'planned' };
    case 'unknown':
      return { ...settling, to: 'unknown', askAt: instantText(now.add({ milliseconds: firstAskAfterMs })) };
  }
}

export interface AskCounts extends Record<string, number> {
  /** The carrier has it: it was sent. */
  found: number;
  /** The carrier never had it: it may be sent. */
  not_found: number;
  still_unknown: number;
  parked: number;
}

/** Asks the carrier about every send whose answer was lost. Never sends: what is proven not taken is planned again. */
export async function askAboutUnknown(ports: SendPorts, work: SendWork): Promise<AskCounts> {
  const { clock, carrier } = ports;
  const counts: AskCounts = { found: 0, not_found: 0, still_unknown: 0, parked: 0 };
  while (!work.stop.aborted) {
    await clock.refresh();
    const asked = await messagesToAsk(ports.db, work.merchant.id, clock.now(), lookupBatch);
    if (asked.length === 0) break;
    const texts = await textsOf(ports, work.merchant, asked);
    const answers = await inLanes(
      asked,
      carrier.semantics.concurrency,
      (message): Promise<SmsLookupAnswer> => {
        const { claimed_at: claimedAt, others } = message;
        const letter = letterOf(ports, work.merchant, texts, message, Temporal.Instant.from(claimedAt));
        const { messageId, to, body, sender } = letter;
        const question = { messageId, merchantCode: work.merchant.code, to, body, sender, claimedAt, others };
        return calling(ports, carrier, (signal) => carrier.lookup(question, signal));
      },
    );
    const now = clock.now();
    const found = new Set<string>();
    const outcomes = asked.map((message, index): MessageOutcome => {
      let answer = answers[index];
      assertState(answer, 'a question without an answer');
      // Two that say the same to one phone: the carrier's one is one of them, and the other is asked about again.
      if (answer.kind === 'accepted' && found.has(answer.providerId)) {
        answer = { kind: 'unknown', why: 'this one is another of ours' };
      } else if (answer.kind === 'accepted') found.add(answer.providerId);
      return { ...outcomeOfLookup(now, carrier, message, answer), ...keyOf(message), segments: null };
    });
    const given = outcomes.filter((outcome) => outcome.to === 'unknown' && outcome.askAt === null);
    await inTransaction(ports, work, async (tx, act) => {
      await settleMessages(tx, act, outcomes);
      await parkUnknown(ports, tx, act, given);
    });
    counts.found += outcomes.filter((outcome) => outcome.to === 'sent').length;
    counts.not_found += outcomes.filter((outcome) => outcome.to === 'planned').length;
    counts.parked += given.length;
    counts.still_unknown += outcomes.filter((outcome) => outcome.askAt !== null).length;
  }
  return counts;
}

function outcomeOfLookup(
  now: Temporal.Instant,
  carrier: Carrier,
  message: MessageToAsk,
  answer: SmsLookupAnswer,
): Settling {
  const settling = { providerId: null, code: null, unreached: null, askAt: null, asked: true };
  if (answer.kind === 'accepted') return { ...settling, to: 'sent', providerId: answer.providerId };
  if (answer.kind === 'not_found') {
    const conclusiveFrom = Temporal.Instant.from(message.claimed_at).add({
      milliseconds: sendWindowMs(carrier) + carrier.semantics.notFoundConclusiveAfterMs,
    });
    return Temporal.Instant.compare(now, conclusiveFrom) >= 0
      ? { ...settling, to: 'planned' }
      : { ...settling, to: 'unknown', askAt: instantText(conclusiveFrom) };
  }
  if (message.asks + 1 >= mostAsks) return { ...settling, to: 'unknown' };
  const pauseMs = Math.min(firstAskAfterMs * 2 ** message.asks, longestAskPauseMs);
  return { ...settling, to: 'unknown', askAt: instantText(now.add({ milliseconds: pauseMs })) };
}

async function parkUnknown(
  ports: SendPorts,
  tx: Tx,
  act: Act,
  given: readonly MessageOutcome[],
): Promise<void> {
  if (given.length === 0) return;
  await park(
    tx,
    act.merchantId,
    act.at,
    given.map(({ invoiceId, step }) => ({
      id: ports.ids.uuid(),
      subject: 'message' as const,
      subjectId: messageIdOf(invoiceId, step),
      reason: 'SMS_OUTCOME_UNKNOWN',
      context: { invoiceId, step, asks: mostAsks },
    })),
  );
  await raiseAlert(tx, ports.ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: 'SMS_OUTCOME_UNKNOWN',
    message: `the SMS carrier ${ports.carrier.name} does not say whether it took a message; it is not sent again`,
    occurrences: given.length,
  });
}

/** An answer within the deadline, or `unknown`: also where an adapter throws or does not hear the signal. */
async function calling<T>(
  ports: Pick<SendPorts, 'clock' | 'log'>,
  carrier: Carrier,
  call: (signal: AbortSignal) => Promise<T>,
): Promise<T | { kind: 'unknown'; why: string }> {
  const signal = ports.clock.deadline(carrier.semantics.callDeadlineMs);
  const expired = new Promise<{ kind: 'unknown'; why: string }>((resolve) => {
    signal.addEventListener('abort', () => resolve({ kind: 'unknown', why: 'deadline' }), { once: true });
  });
  try {
    return await Promise.race([call(signal), expired]);
  } catch (error) {
    ports.log.warn(
      { carrier: carrier.name, error: (error as Error).name },
      'a call to the SMS carrier broke',
    );
    return { kind: 'unknown', why: 'the call broke' };
  }
}

/** Works through the items with so many at a time; answers in the items' order. */
async function inLanes<T, R>(
  items: readonly T[],
  lanes: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index] as T);
    }
  };
  await Promise.all(Array.from({ length: Math.min(Math.max(lanes, 1), items.length) }, lane));
  return results;
}

async function inTransaction<T>(
  ports: Pick<SendPorts, 'db' | 'clock'>,
  work: SendWork,
  write: (tx: Tx, act: Act) => Promise<T>,
): Promise<T> {
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    const act = { ...work.act, at: ports.clock.now() };
    await recordAct(tx, act);
    return write(tx, act);
  });
}
