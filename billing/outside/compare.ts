import { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Carrier, ListedSms } from '../carriers/carrier.ts';
import { outsideInvariants } from '../checks/invariants.ts';
import { type CheckedInvariant, type FoundRow, resultsOf } from '../checks/queries.ts';
import type { Db } from '../db.ts';
import type { Gateway, ListedCharge } from '../gateways/gateway.ts';
import { uuidOf } from '../ids.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { messageOf } from '../messages/message.ts';
import { recognise } from '../messages/recognise.ts';
import { Refusal } from '../refusal.ts';
import type { Sealer } from '../sealing.ts';
import {
  addCharges,
  addSms,
  analyzeLists,
  type ChargeInList,
  compareLists,
  makeListTables,
  type SmsInList,
} from './queries.ts';

export interface Outside {
  gateway: Pick<Gateway, 'name' | 'listCharges'>;
  carrier: Pick<Carrier, 'name' | 'list'>;
  sealer: Sealer;
  /** What pay links start with. */
  baseUrl: string;
}

export interface CompareOutside {
  merchants: readonly Merchant[];
  /** YYYY-MM-DD in each merchant's zone; null: three days before today. */
  from: string | null;
  now: Temporal.Instant;
  signal: AbortSignal;
}

export interface ComparedOutside {
  ok: boolean;
  invariants: CheckedInvariant[];
  /** What was read of the lists. */
  captures: number;
  sms: number;
}

/** Younger captures and SMS may be on their way into our books. */
const settlesWithinMinutes = 10;
const daysBack = 3;
const rowsAtOnce = 5_000;

/**
 * Compares our books with the gateway's and the carrier's own lists, merchant by merchant, set-based. Our snapshot is
 * taken before the lists are read: what we know by then must stand in them. Throws where a list cannot be read to its end.
 */
export async function compareOutside(
  db: Db,
  outside: Outside,
  work: CompareOutside,
): Promise<ComparedOutside> {
  const found: FoundRow[] = [];
  const read = { captures: 0, sms: 0 };
  for (const merchant of work.merchants) {
    const compared = await compareMerchant(db, outside, merchant, work);
    found.push(...compared.found);
    read.captures += compared.captures;
    read.sms += compared.sms;
  }
  const invariants = resultsOf(outsideInvariants, found);
  return { ok: found.length === 0, invariants, ...read };
}

async function compareMerchant(
  db: Db,
  { gateway, carrier, sealer, baseUrl }: Outside,
  merchant: Merchant,
  { from, now, signal }: CompareOutside,
): Promise<{ found: FoundRow[]; captures: number; sms: number }> {
  const { timezone } = merchant.settings;
  const first =
    from === null
      ? now.toZonedDateTimeISO(timezone).toPlainDate().subtract({ days: daysBack })
      : Temporal.PlainDate.from(from);
  const fromInstant = instantText(first.toZonedDateTime(timezone).toInstant());
  const until = instantText(now.subtract({ minutes: settlesWithinMinutes }));
  const window = [fromInstant, until] as const;
  return db.transaction(
    async (tx) => {
      await makeListTables(tx);
      const charges = gateway.listCharges(merchant.code, ...window, signal);
      const captures = await inBatches(charges, (batch) => addCharges(tx, batch.map(chargeOf)));
      const messages = carrier.list(merchant.code, ...window, signal);
      const naming = { merchant, carrier: carrier.name, baseUrl };
      const sms = await inBatches(messages, async (batch) =>
        addSms(tx, (await recognise({ db: tx, sealer }, naming, batch)).map(smsOf)),
      );
      await analyzeLists(tx);
      const found = await compareLists(tx, {
        merchantId: merchant.id,
        gateway: gateway.name,
        carrier: carrier.name,
        fromDate: first.toString(),
        from: fromInstant,
        until,
      });
      return { found, captures, sms };
    },
    // The lists are read once: a second try would find them at their end.
    { isolation: 'repeatable read', retries: 0 },
  );
}

/** Memory stays bounded, however long the list. Returns how many there were. */
async function inBatches<Item>(
  items: AsyncIterable<Item>,
  add: (batch: readonly Item[]) => Promise<void>,
): Promise<number> {
  let count = 0;
  let batch: Item[] = [];
  for await (const item of items) {
    batch.push(item);
    count += 1;
    if (batch.length < rowsAtOnce) continue;
    await add(batch);
    batch = [];
  }
  if (batch.length > 0) await add(batch);
  return count;
}

function chargeOf(listed: ListedCharge): ChargeInList {
  const { gatewayChargeId, reference, invoiceId, amount, currency, refunded, capturedAt } = listed;
  return {
    gatewayChargeId,
    chargeId: reference === null ? null : ours(() => uuidOf(reference)),
    invoiceId: invoiceId !== null && isUuid(invoiceId) ? invoiceId : null,
    amount,
    currency,
    refunded,
    capturedAt,
  };
}

function smsOf({ messageId, providerId, takenAt }: ListedSms): SmsInList {
  const message = messageId === null ? null : ours(() => messageOf(messageId));
  return { providerId, invoiceId: message?.invoiceId ?? null, step: message?.step ?? null, takenAt };
}

/** What something else on the same account wrote is no reference of ours. */
function ours<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

const isUuid = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
