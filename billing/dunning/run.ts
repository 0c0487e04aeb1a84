import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { barcodeMethod } from '../barcodes/watermark.ts';
import type { Tx } from '../db.ts';
import { type HoldFacts, holdFacts } from '../holds/queries.ts';
import type { AgendaAct } from '../invoices/invoice.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import { returnUnpaid } from '../invoices/return.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { settingsByVersion } from '../merchants/queries.ts';
import { bankDebitOf, dunningPolicyOf, type MerchantSettings } from '../merchants/settings.ts';
import { planSteps } from '../messages/plan.ts';
import { parkBills } from '../parked/park-bills.ts';
import type { Ids } from '../ports.ts';
import { completeTo } from '../reconciliation/queries.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import { assertState } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import {
  agendaFor,
  type BankDebit,
  type Decision,
  type DunningFacts,
  decideNext,
  type FallBackReason,
} from './decide.ts';
import {
  type AttemptFacts,
  attemptFacts,
  type BillFacts,
  billFacts,
  fallBackToLink,
  type NoticeFacts,
  noticeFacts,
} from './queries.ts';
import { ceilingAllows, firstWholeDayFrom } from './verdict.ts';

export interface DunningWork {
  act: Act;
  merchant: Merchant;
  businessDate: string;
  /** The gateway that can charge saved cards now. */
  gateway: string;
  ids: Ids;
  sealer: Sealer;
}

export type DunningCounts = Record<
  'waiting' | 'to_charge' | 'notified' | 'fell_back' | 'returned' | 'parked',
  number
>;

/** What becomes of one bill today: the steps to take now, and where it stands after them. */
export interface DunningOutcome {
  invoiceId: string;
  notify: string[];
  /** Why it is offered a link from now on; null: it is not, or was before. */
  fallBack: FallBackReason | null;
  end:
    | { kind: 'agenda'; act: AgendaAct; on: string; debitOn: string | null }
    | { kind: 'return_unpaid' }
    | { kind: 'park'; reason: string };
}

/** A fall-back and its notice, a failure notice and the next attempt: no bill takes more steps than this in one day. */
const stepsPerDay = 8;

/**
 * Decides the next step of every bill given and does it, set-based, in the caller's transaction: the bills are locked
 * before their facts are read, so nothing that is decided here is out of date when it is written.
 */
export async function dunBills(
  tx: Tx,
  work: DunningWork,
  invoiceIds: readonly string[],
): Promise<DunningCounts> {
  const { act, merchant, businessDate } = work;
  await recordAct(tx, act);
  await lockInvoices(tx, merchant.id, invoiceIds);
  const outcomes = (await readFacts(tx, work, invoiceIds)).map(([id, facts]) => decideDay(id, facts));
  const ended = (kind: DunningOutcome['end']['kind']): DunningOutcome[] =>
    outcomes.filter((outcome) => outcome.end.kind === kind);

  const fallenBack = outcomes.flatMap(({ invoiceId, fallBack: why }) =>
    why === null ? [] : [{ invoiceId, why }],
  );
  await fallBackToLink(tx, merchant.id, fallenBack, businessDate);
  const steps = outcomes.flatMap((outcome) =>
    outcome.notify.map((step) => ({ invoiceId: outcome.invoiceId, step, plannedOn: businessDate })),
  );
  await planSteps(tx, { merchant, sealer: work.sealer, at: act.at, steps });

  const agenda = outcomes.flatMap(({ invoiceId, end }) =>
    end.kind === 'agenda' ? [{ invoiceId, act: end.act, actOn: end.on, debitOn: end.debitOn }] : [],
  );
  await setAgenda(tx, merchant.id, agenda);

  const returned = await returnUnpaid(
    tx,
    act,
    {
      businessDate,
      today: act.at.toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString(),
    },
    ended('return_unpaid').map((outcome) => outcome.invoiceId),
  );
  const parked = ended('park');
  await parkBills(
    tx,
    act,
    work.ids,
    parked.map(({ invoiceId, end }) => ({
      invoiceId,
      reason: end.kind === 'park' ? end.reason.toUpperCase() : '',
      context: { businessDate },
    })),
  );
  return {
    waiting: agenda.filter((entry) => entry.act === 'dun').length,
    to_charge: agenda.filter((entry) => entry.act !== 'dun').length,
    notified: steps.length,
    fell_back: fallenBack.length,
    returned,
    parked: parked.length,
  };
}

/** Takes step after step until the bill waits, is charged, goes back or needs a person. Pure. */
export function decideDay(invoiceId: string, facts: DunningFacts): DunningOutcome {
  const notify: string[] = [];
  let now = facts;
  let fallBack: FallBackReason | null = null;
  for (let step = 0; step < stepsPerDay; step += 1) {
    const decision: Decision = decideNext(now);
    switch (decision.kind) {
      case 'notify':
        notify.push(decision.step);
        now = { ...now, noticesSent: [...now.noticesSent, { step: decision.step, on: facts.today }] };
        break;
      case 'fall_back_to_link':
        now = { ...now, fellBackToLink: true };
        fallBack = decision.why;
        break;
      case 'return_unpaid':
        return { invoiceId, notify, fallBack, end: { kind: 'return_unpaid' } };
      case 'park':
        return { invoiceId, notify, fallBack, end: { kind: 'park', reason: decision.reason } };
      case 'wait':
      case 'charge': {
        const agenda = agendaFor(now);
        return {
          invoiceId,
          notify,
          fallBack,
          end: {
            kind: 'agenda',
            act: agenda.act,
            on: agenda.on.toString(),
            debitOn: agenda.debitOn?.toString() ?? null,
          },
        };
      }
    }
  }
  assertState(false, `bill ${invoiceId} takes more than ${stepsPerDay} dunning steps in one day`);
}

async function readFacts(
  tx: Pick<Tx, 'query'>,
  work: Pick<DunningWork, 'merchant' | 'businessDate' | 'gateway'>,
  invoiceIds: readonly string[],
): Promise<[string, DunningFacts][]> {
  const { merchant } = work;
  const bills = await billFacts(
    tx,
    merchant.id,
    work.gateway,
    invoiceIds,
    merchant.settings.autopay.directDebit !== null,
  );
  const ids = bills.map((bill) => bill.id);
  const attempts = byInvoice(await attemptFacts(tx, merchant.id, ids));
  const notices = byInvoice(await noticeFacts(tx, merchant.id, ids));
  const holds = byInvoice(await holdFacts(tx, merchant.id, ids));
  const upTo = await completeTo(tx, merchant.id, reportedMethod);
  const barcodesUpTo = await completeTo(tx, merchant.id, barcodeMethod);
  const versions = [...new Set(bills.map((bill) => bill.settings_version))];
  const settings = await settingsByVersion(tx, merchant.id, versions);
  return bills.map((bill) => [
    bill.id,
    factsOf({
      bill,
      attempts: attempts.get(bill.id) ?? [],
      notices: notices.get(bill.id) ?? [],
      holds: holds.get(bill.id) ?? [],
      // A bill is dunned by the policy under which it was taken in, however the settings changed since.
      settings: settings.get(bill.settings_version) ?? merchant.settings,
      // What the agency takes is as it is today.
      bankDebit: bankDebitOf(merchant.settings),
      businessDate: work.businessDate,
      upTo,
      barcodesUpTo,
    }),
  ]);
}

function factsOf(known: {
  bill: BillFacts;
  attempts: readonly AttemptFacts[];
  notices: readonly NoticeFacts[];
  holds: readonly HoldFacts[];
  settings: MerchantSettings;
  bankDebit: BankDebit | null;
  businessDate: string;
  upTo: string | null;
  barcodesUpTo: string | null;
}): DunningFacts {
  const { bill, settings } = known;
  const byBank = bill.method === 'bank';
  const date = Temporal.PlainDate.from;
  return {
    collection: bill.collection,
    businessDate: date(bill.business_date),
    dueOn: date(bill.due_on),
    debitOn: bill.debit_on === null ? null : date(bill.debit_on),
    today: date(known.businessDate),
    attempts: known.attempts.map((attempt) => ({
      on: date(attempt.business_date),
      kind: attempt.origin === 'auto' ? 'auto' : 'customer',
      outcome: attempt.state,
      verdict:
        attempt.state === 'failed' && attempt.verdict !== null
          ? { kind: attempt.verdict as never, notBeforeOn: notBeforeOn(attempt, settings.timezone) }
          : null,
    })),
    noticesSent: known.notices.map((notice) => ({ step: notice.step, on: date(notice.planned_on) })),
    holds: known.holds.map(({ reason, until_on }) => ({
      kind: reason,
      until: until_on === null ? null : date(until_on),
    })),
    policy: dunningPolicyOf(settings, byBank ? 'debit' : 'card'),
    bankDebit: byBank ? known.bankDebit : null,
    fellBackToLink: bill.fell_back_on !== null,
    unknownOutcome: known.attempts.some((attempt) => attempt.state === 'unknown'),
    locked: bill.locked,
    hasValidMethod: bill.method !== null,
    cardEnded: bill.card_ended,
    watermarks: [
      { way: reportedMethod, upTo: known.upTo === null ? null : date(known.upTo) },
      ...(bill.has_barcode
        ? [{ way: barcodeMethod, upTo: known.barcodesUpTo === null ? null : date(known.barcodesUpTo) }]
        : []),
    ],
  };
}

/** The first day on which the rule of the decline and the network's ceiling both allow another attempt. */
function notBeforeOn(attempt: AttemptFacts, timezone: string): Temporal.PlainDate | null {
  if (attempt.verdict !== 'retry_at') return null;
  const attemptsAt = attempt.same_card_at.map((at) => Temporal.Instant.from(at));
  const byRule = attempt.retry_not_before === null ? null : Temporal.Instant.from(attempt.retry_not_before);
  const newest = attemptsAt.reduce<Temporal.Instant | null>(
    (latest, at) => (latest === null || Temporal.Instant.compare(at, latest) > 0 ? at : latest),
    null,
  );
  const at = byRule ?? newest;
  if (at === null) return null;
  const room = ceilingAllows({ network: attempt.network, attemptsAt, at });
  if (!room.allowed) return firstWholeDayFrom(room.from, timezone);
  return byRule === null ? null : firstWholeDayFrom(byRule, timezone);
}

function byInvoice<Row extends { invoice_id: string }>(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const group = groups.get(row.invoice_id);
    if (group) group.push(row);
    else groups.set(row.invoice_id, [row]);
  }
  return groups;
}

/** What dunning would do today, without doing it. */
export async function forecastDunning(
  tx: Pick<Tx, 'query'>,
  work: Pick<DunningWork, 'merchant' | 'businessDate' | 'gateway'>,
  invoiceIds: readonly string[],
): Promise<DunningCounts> {
  const outcomes = (await readFacts(tx, work, invoiceIds)).map(([id, facts]) => decideDay(id, facts));
  const count = (test: (outcome: DunningOutcome) => boolean): number => outcomes.filter(test).length;
  return {
    waiting: count(({ end }) => end.kind === 'agenda' && end.act === 'dun'),
    to_charge: count(({ end }) => end.kind === 'agenda' && end.act !== 'dun'),
    notified: outcomes.reduce((sum, outcome) => sum + outcome.notify.length, 0),
    fell_back: count((outcome) => outcome.fallBack !== null),
    returned: count(({ end }) => end.kind === 'return_unpaid'),
    parked: count(({ end }) => end.kind === 'park'),
  };
}
