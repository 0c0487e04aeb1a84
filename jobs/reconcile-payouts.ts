import { Temporal } from 'temporal-polyfill';
import { recordAct } from '../billing/acts/queries.ts';
import { raiseAlert, resolveAlerts } from '../billing/alerts/queries.ts';
import type { ListedPayout, Payout, PayoutLine } from '../billing/gateways/gateway.ts';
import { checkPaidOut } from '../billing/payouts/check-paid-out.ts';
import {
  type KnownPayout,
  knownPayouts,
  payoutDates,
  settleMendedPayouts,
} from '../billing/payouts/queries.ts';
import { type StoredPayout, stagedPayoutLine, storePayout } from '../billing/payouts/store.ts';
import { payoutChanged, withdrawPayout } from '../billing/payouts/withdraw.ts';
import { reportsSince } from '../billing/reconciliation/watermark.ts';
import { holdFence } from '../billing/runs/queries.ts';
import { spool, unspool } from '../files/spool.ts';
import type { ChunkContext, Counts } from './job.ts';

const listDeadlineMs = 60_000;
const downloadDeadlineMs = 600_000;
/** So many days before the newest known payout are listed again: one may have come late, or have been mended. */
const overlapDays = 14;

/** Counts that want a person. */
export const payoutAttention = ['payouts_withheld', 'payouts_changed', 'not_paid_out'] as const;

const countOf: Readonly<Record<StoredPayout, string>> = {
  posted: 'payouts_posted',
  withheld: 'payouts_withheld',
  waits_for_report: 'payouts_waiting',
  known: 'payouts_known',
};

/**
 * Takes what the gateway has paid out since the last look, looks again at what was withheld, and at payments that no payout
 * has taken for long. Done again, it changes nothing.
 */
export async function takePayouts(context: ChunkContext): Promise<Counts> {
  const { ports, merchant, businessDate, stop } = context;
  const { gateway, db } = ports;
  const from = await listedSince(context);
  await ports.crash('reconcile.before_payouts');
  const listed = await list(context, from);
  if (listed === null) return { payouts_unavailable: 1 };
  const counts: Counts = {};
  const count = (name: string, more = 1) => {
    if (more > 0) counts[name] = (counts[name] ?? 0) + more;
  };
  const known = await knownPayouts(db, merchant.id, gateway.name, {
    from,
    to: businessDate,
    payoutIds: listed.map((payout) => payout.id),
  });
  const asBooked: string[] = [];
  for (const payout of listed) {
    if (stop.aborted) return counts;
    const before = known.get(payout.id);
    if (before?.state === 'posted') {
      if (isSame(before, payout)) asBooked.push(payout.id);
      else count('payouts_changed', await tellChanged(context, before, payout.net));
      continue;
    }
    const taken = await take(context, payout);
    await ports.crash('reconcile.after_payout');
    if (taken !== 'known') count(taken === 'unavailable' ? 'payouts_unavailable' : countOf[taken]);
  }
  const ids = new Set(listed.map((payout) => payout.id));
  for (const gone of [...known.values()].filter((payout) => !ids.has(payout.payout_id))) {
    if (gone.state === 'posted') count('payouts_changed', await tellChanged(context, gone, null));
    if (gone.state === 'withheld') count('payouts_withdrawn', await withdraw(context, gone));
  }
  count('not_paid_out', await settleAndLookForUnpaid(context, asBooked));
  return counts;
}

async function listedSince({ ports, merchant, businessDate }: ChunkContext): Promise<string> {
  const { newest_on, oldest_withheld_on } = await payoutDates(ports.db, merchant.id, ports.gateway.name);
  const since = await reportsSince(ports.db, merchant);
  if (newest_on === null) return since < businessDate ? since : businessDate;
  const overlap = Temporal.PlainDate.from(newest_on).subtract({ days: overlapDays }).toString();
  return [overlap, oldest_withheld_on ?? overlap].sort()[0] ?? overlap;
}

async function list(
  { ports, merchant, businessDate }: ChunkContext,
  from: string,
): Promise<ListedPayout[] | null> {
  try {
    return await ports.gateway.payouts(
      merchant.code,
      from,
      businessDate,
      ports.clock.deadline(listDeadlineMs),
    );
  } catch (error) {
    ports.log.warn(
      { merchant: merchant.code, error: error instanceof Error ? error.message : String(error) },
      'the list of payouts could not be read; the next run tries again',
    );
    return null;
  }
}

/** The lines go to disk first: a payout may have millions, and no transaction is open while the gateway sends. */
async function take(context: ChunkContext, listed: ListedPayout): Promise<StoredPayout | 'unavailable'> {
  const { ports, merchant, fence } = context;
  const path = `${ports.archiveFolder}/reports/${ports.ids.uuid()}-payout.ndjson`;
  try {
    let count: number;
    const sums = { gross: 0, fee: 0, feeTax: 0 };
    try {
      const lines = await ports.gateway.payoutLines(
        merchant.code,
        listed.id,
        ports.clock.deadline(downloadDeadlineMs),
      );
      count = await spool(ports.disk, path, added(lines, sums));
    } catch (error) {
      ports.log.warn(
        {
          merchant: merchant.code,
          payout: listed.id,
          error: error instanceof Error ? error.message : String(error),
        },
        'the lines of a payout could not be read; the next run tries again',
      );
      return 'unavailable';
    }
    await ports.crash('reconcile.after_payout_download');
    await ports.clock.refresh();
    const act = { ...context.act, at: ports.clock.now() };
    const payout: Payout = listed.gross === null ? { ...listed, ...sums } : listed;
    const stored = await ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      return storePayout(
        tx,
        { act, ids: ports.ids, gateway: ports.gateway.name, today: todayOf(context) },
        payout,
        { count, content: numbered(unspool<PayoutLine>(ports.disk, path)) },
      );
    });
    await ports.crash('reconcile.after_payout_store');
    return stored;
  } finally {
    await ports.disk.remove(path);
  }
}

/** Adds up the lines as they pass. */
async function* added(
  lines: AsyncIterable<PayoutLine>,
  sums: { gross: number; fee: number; feeTax: number },
): AsyncIterable<PayoutLine> {
  for await (const line of lines) {
    sums.gross += line.kind === 'charge' ? line.amount : -line.amount;
    sums.fee += line.fee;
    sums.feeTax += line.feeTax;
    yield line;
  }
}

async function* numbered(
  lines: AsyncIterable<PayoutLine>,
): AsyncIterable<ReturnType<typeof stagedPayoutLine>> {
  let lineNo = 0;
  for await (const line of lines) {
    lineNo += 1;
    yield stagedPayoutLine(line, lineNo);
  }
}

function todayOf({ ports, merchant }: ChunkContext): string {
  return ports.clock.now().toZonedDateTimeISO(merchant.settings.timezone).toPlainDate().toString();
}

function isSame(known: KnownPayout, payout: ListedPayout): boolean {
  return (
    known.value_on === payout.valueDate &&
    known.currency === payout.currency &&
    (payout.gross === null ||
      (known.gross === payout.gross && known.fee === payout.fee && known.fee_tax === payout.feeTax)) &&
    known.net === payout.net
  );
}

/** What is posted stays as it is. Returns 1, or 0 where a person has settled it. */
async function tellChanged(
  context: ChunkContext,
  known: KnownPayout,
  theirs: number | null,
): Promise<number> {
  const { ports, fence } = context;
  const act = { ...context.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    const work = { act, ids: ports.ids, gateway: ports.gateway.name };
    return (await payoutChanged(tx, work, known, theirs)) ? 1 : 0;
  });
}

async function withdraw(context: ChunkContext, known: KnownPayout): Promise<number> {
  const { ports, fence } = context;
  const act = { ...context.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    await recordAct(tx, act);
    return withdrawPayout(tx, act, known);
  });
}

async function settleAndLookForUnpaid(context: ChunkContext, asBooked: readonly string[]): Promise<number> {
  const { ports, merchant, businessDate, fence } = context;
  const since = await reportsSince(ports.db, merchant);
  const act = { ...context.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    const mended = await settleMendedPayouts(tx, merchant.id, act.at, asBooked);
    if (mended.length > 0) {
      await recordAct(tx, act);
      const causes = mended.map((payoutId) => `PAYOUT_CHANGED ${payoutId}`);
      await resolveAlerts(tx, merchant.id, act.at, causes, 'the gateway tells it as it was booked again');
    }
    const found = await checkPaidOut(tx, {
      act,
      ids: ports.ids,
      gateway: ports.gateway.name,
      timezone: merchant.settings.timezone,
      since,
      businessDate,
    });
    if (found > 0) {
      await raiseAlert(tx, ports.ids.uuid(), act.at, {
        merchantId: merchant.id,
        level: 'daily',
        cause: 'NOT_PAID_OUT',
        message:
          'payments stand in no payout of the gateway weeks after they were collected; ask it where the money is',
        occurrences: found,
      });
    }
    return found;
  });
}
