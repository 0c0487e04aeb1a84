import { Temporal } from 'temporal-polyfill';
import { unconfirmedPayments } from '../billing/barcodes/queries.ts';
import { takeBarcodePayments } from '../billing/barcodes/take-payments.ts';
import { advanceBarcodeWatermark, newsSince } from '../billing/barcodes/watermark.ts';
import type { Tx } from '../billing/db.ts';
import type { BarcodePayment } from '../billing/gateways/gateway.ts';
import type { Comparing } from '../billing/reconciliation/compare.ts';
import { findingRules } from '../billing/reconciliation/findings.ts';
import { openFindings } from '../billing/reconciliation/queries.ts';
import { holdFence } from '../billing/runs/queries.ts';
import type { ChunkContext, Counts } from './job.ts';

const paymentsPerBatch = 200;
const readDeadlineMs = 600_000;
/** Final news come within ten days; after so many a person asks. */
const confirmedWithinDays = 14;

/**
 * Reads what the gateway tells of barcodes since the last time: webhooks that were lost are made good, and the watermark
 * of barcodes moves only when everything was read. A gateway that is down is asked by the next run.
 */
export async function takeBarcodeNews(context: ChunkContext): Promise<Counts> {
  const { ports, merchant } = context;
  const { barcodes } = ports.gateway;
  if (barcodes === null) return {};
  await ports.clock.refresh();
  const until = ports.clock.now();
  const from = await newsSince(ports.db, merchant, barcodes);
  if (from === null || Temporal.Instant.compare(from, until) >= 0) return {};
  const counts: Counts = {};
  const add = (name: string, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  await ports.crash('reconcile.before_barcodes');
  try {
    const news = barcodes.news(merchant.code, from, until.toString(), ports.clock.deadline(readDeadlineMs));
    for await (const payments of batchesOf(news)) {
      await ports.crash('reconcile.after_barcodes');
      const taken = await inTransaction(context, (tx, act) =>
        takeBarcodePayments(tx, {
          act,
          merchant,
          gateway: ports.gateway.name,
          ids: ports.ids,
          sealer: ports.sealer,
          learnedBy: 'report',
          payments,
        }),
      );
      await ports.crash('reconcile.after_barcode_store');
      add('barcodes_heard', taken.new);
      add('barcodes_confirmed', taken.confirmed);
      add('barcodes_cancelled', taken.cancelled);
      add('barcodes_strange', taken.strange);
    }
  } catch (error) {
    if (!(error instanceof NewsUnreadable)) throw error;
    ports.log.warn(
      { merchant: merchant.code, error: error.message },
      'the news of barcodes could not be read; the next run tries again',
    );
    return { ...counts, barcode_news_unavailable: 1 };
  }
  await inTransaction(context, (tx) => advanceBarcodeWatermark(tx, merchant, barcodes, until));
  return counts;
}

/** The gateway is the cause: not our own database, whose failure fails the run. */
class NewsUnreadable extends Error {}

async function* batchesOf(news: AsyncIterable<BarcodePayment>): AsyncGenerator<BarcodePayment[]> {
  const reading = news[Symbol.asyncIterator]();
  let batch: BarcodePayment[] = [];
  for (;;) {
    let next: IteratorResult<BarcodePayment>;
    try {
      next = await reading.next();
    } catch (error) {
      throw new NewsUnreadable(error instanceof Error ? error.message : String(error));
    }
    if (next.done !== true) batch.push(next.value);
    if (batch.length >= paymentsPerBatch || (next.done === true && batch.length > 0)) {
      yield batch;
      batch = [];
    }
    if (next.done === true) return;
  }
}

async function inTransaction<T>(
  { ports, fence, act }: ChunkContext,
  write: (tx: Tx, act: ChunkContext['act']) => Promise<T>,
): Promise<T> {
  await ports.clock.refresh();
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, fence);
    return write(tx, { ...act, at: ports.clock.now() });
  });
}

/** Opens a finding for each payment that a shop told of too long ago. Returns how many there are. */
export async function findUnconfirmed(tx: Tx, work: Comparing, businessDate: string): Promise<number> {
  const before = Temporal.PlainDate.from(businessDate).subtract({ days: confirmedWithinDays }).toString();
  const found = await unconfirmedPayments(tx, work.merchant.id, work.gateway, before);
  const kind = 'preliminary_not_confirmed';
  return openFindings(
    tx,
    work.merchant.id,
    work.act.at,
    found.map((payment) => ({
      id: work.ids.uuid(),
      source: 'report',
      kind,
      subject: payment.gateway_charge_id,
      gateway: work.gateway,
      reportDate: payment.business_date,
      chargeId: payment.charge_id,
      invoiceId: payment.invoice_id,
      ours: payment.amount,
      theirs: null,
      currency: payment.currency,
      owner: findingRules[kind].owner,
    })),
  );
}
