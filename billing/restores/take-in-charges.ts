import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { ensureAutoIntents } from '../autopay/queries.ts';
import { takeBarcodePayments } from '../barcodes/take-payments.ts';
import type { Learned } from '../charges/charge.ts';
import { recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db, Tx } from '../db.ts';
import { termsVersion } from '../enrolments/enrol.ts';
import type { BarcodeAnswer, Captured, Gateway, ListedCharge, LookupAnswer } from '../gateways/gateway.ts';
import type { LockedInvoice } from '../invoices/invoice.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import type { NewFinding } from '../reconciliation/findings.ts';
import { openFindings } from '../reconciliation/queries.ts';
import type { Sealer } from '../sealing.ts';
import { atMostAtOnce } from '../trace/ask.ts';
import { batchesOf, chargeIdOf } from './batches.ts';
import {
  billsToPutTo,
  chargesKnown,
  type ForgottenCharge,
  insertForgottenCharges,
  type KnownCharge,
  settleFindingsOf,
} from './queries.ts';

export interface TakeInCharges {
  db: Db;
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
  gateway: Gateway;
}

export interface ChargeCounts extends Record<string, number> {
  listed: number;
  known: number;
  /** Known here, and that it succeeded was not. */
  learned: number;
  /** Forgotten, and put to its bill. */
  recovered: number;
  amount_recovered: number;
  /** Not provably of a bill here: a finding for a person. */
  findings: number;
  /** The gateway did not say all about these: they are left for the next time. */
  unanswered: number;
}

interface TakeInWork {
  merchant: Merchant;
  actor: string;
  /** What is not provably of a bill here is left for a later look, without a finding: not all bills are here yet. */
  onlyOfBillsHere?: boolean;
}

const batchCharges = 500;
const asksAtOnce = 16;

interface Item {
  listed: ListedCharge;
  chargeId: string | null;
  captured: Captured;
}

/**
 * Puts every capture of the gateway's own list that is not known here to its bill, through the one function that makes
 * outcomes true. What cannot be proved to be of a bill of ours is not booked. May be done again and broken off anywhere.
 */
export async function takeInCharges(
  ports: TakeInCharges,
  work: TakeInWork,
  list: AsyncIterable<ListedCharge>,
): Promise<ChargeCounts> {
  const counts: ChargeCounts = {
    listed: 0,
    known: 0,
    learned: 0,
    recovered: 0,
    amount_recovered: 0,
    findings: 0,
    unanswered: 0,
  };
  for await (const batch of batchesOf(list, batchCharges)) {
    counts.listed += batch.length;
    const items = batch.map(
      (listed): Item => ({ listed, chargeId: chargeIdOf(listed.reference), captured: capturedOf(listed) }),
    );
    const known = await chargesKnown(
      ports.db,
      work.merchant.id,
      items.flatMap(({ chargeId }) => chargeId ?? []),
    );
    const news = items.filter(({ chargeId, listed }) => {
      const here = known.get(chargeId ?? '');
      return here?.state !== 'succeeded' || listed.refunded > here.refunded;
    });
    counts.known += items.length - news.length;
    if (news.length === 0) continue;
    const atShops = await takeInBarcodes(ports, work, news, known, counts);
    const rest = news.filter((item) => !atShops.has(item));
    const answered = await askAboutVisits(ports, work.merchant, rest, known);
    counts.unanswered += rest.length - answered.length;
    await takeInBatch(ports, work, answered, counts);
  }
  return counts;
}

/**
 * What shops took and this database has forgotten: the gateway names no bill for it, but the barcode that was scanned does.
 * Returns those that are settled so; a barcode that is forgotten too is for a person.
 */
async function takeInBarcodes(
  ports: TakeInCharges,
  { merchant, actor }: { merchant: Merchant; actor: string },
  items: readonly Item[],
  known: ReadonlyMap<string, KnownCharge>,
  counts: ChargeCounts,
): Promise<Set<Item>> {
  const { gateway, clock, ids, sealer } = ports;
  const { barcodes } = gateway;
  const forgotten = items.filter(
    ({ listed, chargeId }) => listed.method === 'barcode' && chargeId !== null && !known.has(chargeId),
  );
  if (barcodes === null || forgotten.length === 0) return new Set();
  const answers = await atMostAtOnce(asksAtOnce, forgotten, async (item) => ({
    item,
    answer: await barcodes
      .lookup(merchant.code, item.listed.reference ?? '', clock.deadline(gateway.semantics.callDeadlineMs))
      .catch((): BarcodeAnswer => ({ kind: 'unknown', why: 'the call broke' })),
  }));
  const payments = answers.flatMap(({ answer }) => (answer.kind === 'found' ? [answer.payment] : []));
  await clock.refresh();
  const act: Act = { merchantId: merchant.id, id: ids.uuid(), kind: 'command', actor, at: clock.now() };
  const now = await ports.db.transaction(async (tx) => {
    await takeBarcodePayments(tx, {
      act,
      merchant,
      gateway: gateway.name,
      ids,
      sealer,
      learnedBy: 'report',
      payments,
    });
    return chargesKnown(
      tx,
      merchant.id,
      forgotten.flatMap(({ chargeId }) => chargeId ?? []),
    );
  });
  const taken = forgotten.filter(({ chargeId }) => now.get(chargeId ?? '')?.state === 'succeeded');
  counts.recovered += taken.length;
  counts.amount_recovered += taken.reduce((sum, { listed }) => sum + listed.amount, 0);
  return new Set(taken);
}

/** A visitor on a page may have ticked automatic payment: only the answer about the charge itself has the card that was kept. */
async function askAboutVisits(
  ports: TakeInCharges,
  merchant: Merchant,
  items: readonly Item[],
  known: ReadonlyMap<string, KnownCharge>,
): Promise<Item[]> {
  const bills = await billsToPutTo(
    ports.db,
    merchant.id,
    items.flatMap(({ listed }) => listed.invoiceId ?? []),
  );
  const { gateway, clock } = ports;
  const asked = await atMostAtOnce(asksAtOnce, items, async (item): Promise<Item | null> => {
    const isVisit =
      known.get(item.chargeId ?? '')?.origin === 'link' || bills.get(item.listed.invoiceId ?? '') === 'link';
    if (!isVisit || item.listed.reference === null) return item;
    const answer = await gateway
      .lookup(merchant.code, item.listed.reference, clock.deadline(gateway.semantics.callDeadlineMs))
      .catch((): LookupAnswer => ({ kind: 'unknown', why: 'the call broke' }));
    // A list and an answer that contradict each other prove nothing.
    return answer.kind === 'succeeded' && answer.captured.gatewayChargeId === item.listed.gatewayChargeId
      ? { ...item, captured: answer.captured }
      : null;
  });
  return asked.filter((item) => item !== null);
}

async function takeInBatch(
  ports: TakeInCharges,
  { merchant, actor, onlyOfBillsHere }: TakeInWork,
  items: readonly Item[],
  counts: ChargeCounts,
): Promise<void> {
  if (items.length === 0) return;
  const { ids, sealer, clock } = ports;
  await clock.refresh();
  const at = clock.now();
  const act: Act = { merchantId: merchant.id, id: ids.uuid(), kind: 'command', actor, at };
  const done = await ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    const invoiceIds = [
      ...new Set(items.flatMap(({ listed }) => (isUuid(listed.invoiceId) ? [listed.invoiceId] : []))),
    ];
    const invoices = new Map(
      (await lockInvoices(tx, merchant.id, invoiceIds)).map((bill) => [bill.id, bill]),
    );
    const known = await chargesKnown(
      tx,
      merchant.id,
      items.flatMap(({ chargeId }) => chargeId ?? []),
    );
    const learned: Learned[] = [];
    const forgotten: Forgotten[] = [];
    const findings: NewFinding[] = [];
    for (const item of items) {
      const { chargeId, listed, captured } = item;
      const invoice = invoices.get(listed.invoiceId ?? '');
      const here = known.get(chargeId ?? '');
      const kind =
        here === undefined
          ? doubtAbout(item, invoice)
          : // Given back by a recall that is forgotten: begun again, it would give back what is back already.
            listed.refunded > here.refunded
            ? 'unexpected_kind'
            : null;
      if (kind !== null && onlyOfBillsHere) continue;
      if (kind !== null) findings.push(findingOf(ids, merchant, ports.gateway.name, item, invoice, kind));
      if ((kind === null || here !== undefined) && chargeId !== null && here?.state !== 'succeeded') {
        if (here === undefined && invoice !== undefined) forgotten.push({ chargeId, invoice, captured });
        learned.push({ chargeId, outcome: { kind: 'succeeded', captured } });
      }
    }
    await insertForgotten(tx, act, { ids, merchant, gateway: ports.gateway.name }, forgotten);
    const recorded = await recordOutcomes(tx, {
      act,
      timezone: merchant.settings.timezone,
      learnedBy: 'report',
      learned,
      ids,
      sealer,
    });
    await settleFindingsOf(
      tx,
      act,
      learned.map(({ outcome }) => ('captured' in outcome ? outcome.captured.gatewayChargeId : '')),
    );
    await openFindings(tx, merchant.id, at, findings);
    if (findings.length > 0) {
      await raiseAlert(tx, ids.uuid(), at, {
        merchantId: merchant.id,
        level: 'now',
        cause: 'RESTORE_UNPROVED',
        message: `the gateway took money that is not provably of a bill here, first ${findings[0]?.subject}; nothing is booked for it`,
        occurrences: findings.length,
      });
    }
    return { recorded, forgotten, findings };
  });
  counts.recovered += done.forgotten.length;
  counts.amount_recovered += done.forgotten.reduce((sum, { captured }) => sum + captured.amount, 0);
  counts.learned += Math.max(done.recorded.succeeded - done.forgotten.length, 0);
  counts.findings += done.findings.length;
}

interface Forgotten {
  chargeId: string;
  invoice: LockedInvoice;
  captured: Captured;
}

/** Why a capture cannot be put to its bill; null = it can. */
function doubtAbout(
  { chargeId, listed }: Item,
  invoice: LockedInvoice | undefined,
): NewFinding['kind'] | null {
  if (chargeId === null || invoice === undefined) return 'missing_here';
  if (listed.refunded > 0) return 'unexpected_kind';
  if (listed.currency !== invoice.currency) return 'currency_differs';
  return listed.amount === invoice.amount ? null : 'amount_differs';
}

function findingOf(
  ids: Ids,
  merchant: Merchant,
  gateway: string,
  { chargeId, listed }: Item,
  invoice: LockedInvoice | undefined,
  kind: NewFinding['kind'],
): NewFinding {
  const day = Temporal.Instant.from(listed.capturedAt).toZonedDateTimeISO(merchant.settings.timezone);
  return {
    id: ids.uuid(),
    source: 'list',
    kind,
    subject: listed.gatewayChargeId,
    gateway,
    reportDate: day.toPlainDate().toString(),
    chargeId,
    invoiceId: invoice?.id ?? null,
    ours: invoice?.amount ?? null,
    theirs: listed.amount,
    currency: listed.currency,
    owner: 'operator',
  };
}

async function insertForgotten(
  tx: Tx,
  act: Act,
  by: { ids: Ids; merchant: Merchant; gateway: string },
  forgotten: readonly Forgotten[],
): Promise<void> {
  if (forgotten.length === 0) return;
  const { ids, merchant, gateway } = by;
  const isAuto = ({ invoice, captured }: Forgotten) =>
    captured.savedMethod === null && invoice.collection === 'auto' && invoice.fell_back_on === null;
  const autoIntents = await ensureAutoIntents(
    tx,
    act,
    forgotten.filter(isAuto).map(({ invoice }) => ({
      intentId: ids.uuid(),
      invoiceId: invoice.id,
      amount: invoice.amount,
      currency: invoice.currency,
    })),
  );
  await insertForgottenCharges(
    tx,
    act,
    { gateway, termsVersion },
    forgotten.map((charge): ForgottenCharge => {
      const { chargeId, invoice, captured } = charge;
      const auto = isAuto(charge);
      return {
        chargeId,
        invoiceId: invoice.id,
        intentId: (auto ? autoIntents.get(invoice.id) : undefined) ?? ids.uuid(),
        sessionId: auto ? null : ids.uuid(),
        origin: auto ? 'auto' : 'link',
        enrols: captured.savedMethod !== null,
        language: merchant.settings.notify.languages[0] ?? 'ja',
        amount: captured.amount,
        currency: captured.currency,
        capturedAt: captured.capturedAt,
        businessDate: Temporal.Instant.from(captured.capturedAt)
          .toZonedDateTimeISO(merchant.settings.timezone)
          .toPlainDate()
          .toString(),
      };
    }),
  );
}

function capturedOf({ gatewayChargeId, amount, currency, capturedAt, method }: ListedCharge): Captured {
  return { gatewayChargeId, amount, currency, capturedAt, method, savedMethod: null };
}

function isUuid(text: string | null): text is string {
  return text !== null && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);
}
