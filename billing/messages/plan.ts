import { Temporal } from 'temporal-polyfill';
import type { Db, Tx } from '../db.ts';
import { linkExpiry } from '../links/expiry.ts';
import { insertLinks, type NewLink } from '../links/queries.ts';
import { linkTokenOf, tokenHashOf } from '../links/token.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import type { Clock } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import { debitNotice, isFreshLink } from './message.ts';
import {
  billsByLink,
  billsToBeDebited,
  insertMessages,
  markFilePlanned,
  type NewMessage,
  type NoticeSubject,
  stepSubjects,
} from './queries.ts';

export interface PlanNotices {
  merchant: Merchant;
  sealer: Sealer;
  clock: Clock;
  /** YYYY-MM-DD: the day from which the notices may go, unless a bill's own business date is later. */
  businessDate: string;
  fileId: string;
  fence: Fence;
  stop: AbortSignal;
}

/** Three batches are written while a fourth is made: what Node holds grows with all four. */
const batchRows = 5_000;
const noticesAtOnce = 5_000;
/** A database of two processors has work for both, also while one waits for its commit. */
const writesAtOnce = 3;

/**
 * Plans the first notices of a released file, batch by batch, each in its own transaction: killed anywhere, it runs again
 * and finds those that are planned. While batches are written by the database, the tokens of the next are made here.
 */
export async function planFirstNotices(
  db: Db,
  input: PlanNotices,
): Promise<{ planned: number; skipped: number }> {
  const { merchant, fileId, fence, stop } = input;
  const counts = { planned: 0, skipped: 0 };
  await db.transaction(
    async (reading) => {
      const writing: Promise<void>[] = [];
      for await (const subjects of billsByLink(reading, merchant.id, fileId, batchRows)) {
        if (stop.aborted) break;
        const batch = await noticesOf(reading, input, subjects);
        if (writing.length === writesAtOnce) await writing.shift();
        const write = db.transaction(async (tx) => {
          await holdFence(tx, fence);
          await insertLinks(tx, merchant.id, batch.links);
          return insertMessages(tx, merchant.id, input.clock.now(), batch.messages);
        });
        const written = write.then((added) => {
          counts.planned += added.planned;
          counts.skipped += added.skipped;
        });
        // Heard at the next await of it; a failure in between must not end the process.
        written.catch(() => undefined);
        writing.push(written);
      }
      await Promise.all(writing);
    },
    // It only reads; what it hands on to be written must not be counted twice.
    { retries: 0 },
  );
  if (!stop.aborted) {
    await db.transaction(async (tx) => {
      await holdFence(tx, fence);
      await markFilePlanned(tx, merchant.id, fileId, input.clock.now());
    });
  }
  return counts;
}

async function noticesOf(
  db: Pick<Db, 'query'>,
  input: PlanNotices,
  subjects: readonly NoticeSubject[],
): Promise<{ links: NewLink[]; messages: NewMessage[] }> {
  const expiresOn = await expiryFor(db, input.merchant.id, subjects);
  const links: NewLink[] = [];
  const messages: NewMessage[] = [];
  for (const subject of subjects) {
    const skipCode = unreachable(subject);
    if (skipCode === null) {
      links.push(newLink(input, subject, 1, expiresOn({ ...termsOf(subject), fellBack: false })));
    }
    messages.push({
      invoiceId: subject.invoice_id,
      step: 'first_notice',
      plannedOn: later(subject.business_date, input.businessDate),
      skipCode,
      linkVersion: skipCode === null ? 1 : null,
    });
  }
  return { links, messages };
}

export interface PlanDebitNotices {
  merchant: Merchant;
  sealer: Sealer;
  clock: Clock;
  businessDate: string;
  fence: Fence;
  stop: AbortSignal;
}

/** The last debit date of which customers are told on a day; null: the merchant wants no notices. */
export function debitsToldBy({ settings }: Merchant, businessDate: string): string | null {
  const { noticeDaysBefore } = settings.autopay;
  if (noticeDaysBefore === undefined) return null;
  return Temporal.PlainDate.from(businessDate).add({ days: noticeDaysBefore }).toString();
}

/**
 * Plans the notices of amount and date before automatic charges, at most one for a bill. A bill that comes too late for its
 * notice is charged without one. Run again it finds what is left.
 */
export async function planDebitNotices(
  db: Db,
  input: PlanDebitNotices,
): Promise<{ planned: number; skipped: number }> {
  const { merchant, sealer, clock, businessDate, fence, stop } = input;
  const counts = { planned: 0, skipped: 0 };
  const by = debitsToldBy(merchant, businessDate);
  while (by !== null && !stop.aborted) {
    const bills = await billsToBeDebited(db, merchant.id, businessDate, by, noticesAtOnce);
    if (bills.length === 0) break;
    const added = await db.transaction(async (tx) => {
      await holdFence(tx, fence);
      const steps = bills.map((invoiceId) => ({ invoiceId, step: debitNotice, plannedOn: businessDate }));
      return planSteps(tx, { merchant, sealer, at: clock.now(), steps });
    });
    counts.planned += added.planned;
    counts.skipped += added.skipped;
  }
  return counts;
}

export interface PlannedStep {
  invoiceId: string;
  /** `reminder:-3bd`, `failure:2`, `fallback_link`, `fresh_link:1`, `debit_notice`. */
  step: string;
  /** YYYY-MM-DD */
  plannedOn: string;
}

export interface PlanSteps {
  merchant: Merchant;
  sealer: Sealer;
  at: Temporal.Instant;
  steps: readonly PlannedStep[];
}

/**
 * Plans messages in the caller's transaction, at most one for each (bill, step) ever. A bill that goes by link, or fell
 * back to it, gets a link where it has no living one; a failure that will be tried again has none. Set-based.
 */
export async function planSteps(tx: Tx, input: PlanSteps): Promise<{ planned: number; skipped: number }> {
  const { merchant, steps } = input;
  if (steps.length === 0) return { planned: 0, skipped: 0 };
  const found = await stepSubjects(tx, merchant.id, [...new Set(steps.map((step) => step.invoiceId))]);
  const subjects = new Map(found.map((subject) => [subject.invoice_id, subject]));
  const expiresOn = await expiryFor(tx, merchant.id, found);
  const links = new Map<string, NewLink>();
  const messages = steps.map((planned): NewMessage => {
    const subject = subjects.get(planned.invoiceId);
    assertState(subject, `bill ${planned.invoiceId} is missing or has no contact`);
    const message = { ...planned, skipCode: unreachable(subject), linkVersion: null };
    const fellBack = subject.fell_back_on !== null || planned.step === 'fallback_link';
    if (message.skipCode !== null || (subject.collection === 'auto' && !fellBack)) return message;
    const made = links.get(planned.invoiceId);
    if (made !== undefined) return { ...message, linkVersion: made.version };
    const ends = expiresOn({ ...termsOf(subject), fellBack: subject.collection === 'auto' });
    const { link_version: newest, link_expires_on: newestEnds } = subject;
    const lives =
      !isFreshLink(planned.step) &&
      newestEnds !== null &&
      !subject.link_dead &&
      subject.link_key_id === input.sealer.keyId &&
      // A new one that ends no later would not live longer: the claim then skips the message.
      (newestEnds >= planned.plannedOn || newestEnds >= ends);
    if (lives) return { ...message, linkVersion: newest };
    const link = newLink(input, subject, (newest ?? 0) + 1, ends);
    links.set(planned.invoiceId, link);
    return { ...message, linkVersion: link.version };
  });
  await insertLinks(tx, merchant.id, [...links.values()]);
  return insertMessages(tx, merchant.id, input.at, messages);
}

/** Of two dates as YYYY-MM-DD. */
function later(one: string, other: string): string {
  return [one, other].sort()[1] ?? one;
}

/** The unreached file's words for a customer whom no SMS can reach. */
function unreachable(
  subject: Pick<NoticeSubject, 'phone_kind' | 'opted_out' | 'wrong_person'>,
): 'no_phone' | 'not_mobile' | 'opted_out' | 'wrong_person' | null {
  if (subject.phone_kind === 'none') return 'no_phone';
  if (subject.phone_kind === 'not_mobile') return 'not_mobile';
  if (subject.opted_out) return 'opted_out';
  return subject.wrong_person ? 'wrong_person' : null;
}

function newLink(
  by: { merchant: Merchant; sealer: Sealer },
  subject: NoticeSubject,
  version: number,
  expiresOn: string,
): NewLink {
  const { keyId } = by.sealer;
  const token = linkTokenOf(by.sealer, by.merchant, subject.invoice_id, version, keyId);
  return { invoiceId: subject.invoice_id, version, keyId, tokenHash: tokenHashOf(token), expiresOn };
}

function termsOf(subject: NoticeSubject) {
  return {
    businessDate: subject.business_date,
    dueOn: subject.due_on,
    settingsVersion: subject.settings_version,
  };
}

async function expiryFor(db: Pick<Db, 'query'>, merchantId: number, subjects: readonly NoticeSubject[]) {
  const versions = [...new Set(subjects.map((subject) => subject.settings_version))];
  return linkExpiry(await settingsByVersion(db, merchantId, versions));
}
