import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db } from '../db.ts';
import { Refusal } from '../refusal.ts';
import { type BillRange, fsyncOf, rangesDue, wasAlertedSince } from './queries.ts';

/** Small enough that a killed worker's chunk is soon done again, large enough that claiming it costs nothing. */
export const billsPerChunk = 500;

/** After this many calls in a row without one conclusive answer the gateway counts as down. */
export const silentCallsAtMost = 32;
/** So long no chunk tries again after the gateway was found down; each try costs a batch of unknown outcomes. */
const gatewayRestMinutes = 5;

export async function planCharges(
  db: Pick<Db, 'query'>,
  merchantId: number,
  businessDate: string,
): Promise<BillRange[]> {
  return rangesDue(db, merchantId, 'charge', businessDate, billsPerChunk);
}

/** Refusal FSYNC_OFF: a server that may forget a committed intent would let a customer be charged twice. */
export async function refuseUnsafeDatabase(db: Pick<Db, 'query'>): Promise<void> {
  const fsync = await fsyncOf(db);
  if (fsync === 'on') return;
  throw new Refusal('FSYNC_OFF', 'the database runs with fsync off: nobody is charged on it', {
    next: 'Set fsync = on in postgresql.conf, reload the server and run the job again.',
    context: { fsync },
    exitCode: 2,
  });
}

export function gatewayDownCause(gateway: string): string {
  return `GATEWAY_DOWN ${gateway}`;
}

/** Whether another chunk has just found the gateway down. */
export async function gatewayRests(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  now: Temporal.Instant,
): Promise<boolean> {
  const since = instantText(now.subtract({ minutes: gatewayRestMinutes }));
  return wasAlertedSince(db, merchantId, gatewayDownCause(gateway), since);
}
