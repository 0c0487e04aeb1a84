import type { Db } from '../db.ts';
import { gatewayState } from '../gateway-states/queries.ts';
import { paceOf } from '../gateway-states/state.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { limitsOf } from '../merchants/settings.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import { Refusal } from '../refusal.ts';
import { fsyncOf, type PlannedBills, type PlanOf, plannedCharges } from './queries.ts';

/** Small enough that a killed worker's chunk is soon done again, large enough that claiming it costs nothing. */
export const billsPerChunk = 500;

/** What a day's run does, for a person to judge before it does it. */
export interface ChargePlan {
  charges: PlannedBills[];
  leftOut: PlannedBills[];
  /** Charges a second that the gateway is asked for at most; null: nobody has said. */
  pacePerSecond: number | null;
  /** At that pace. Null where there is none. */
  seconds: number | null;
}

export async function planOf(
  db: Pick<Db, 'query'>,
  merchant: Merchant,
  gateway: string,
  businessDate: string,
): Promise<ChargePlan> {
  const rows = await plannedCharges(db, planFor(merchant, gateway, businessDate));
  const charges = rows.filter(({ reason }) => reason === null);
  const pacePerSecond = paceOf(await gatewayState(db, merchant.id, gateway), limitsOf(merchant.settings));
  return {
    charges,
    leftOut: rows.filter(({ reason }) => reason !== null),
    pacePerSecond,
    seconds: pacePerSecond === null ? null : Math.ceil(sumOf(charges).bills / pacePerSecond),
  };
}

export function planFor(merchant: Merchant, gateway: string, businessDate: string): PlanOf {
  return { merchantId: merchant.id, businessDate, gateway, reportedMethod };
}

export function sumOf(rows: readonly PlannedBills[]): { bills: number; amount: number } {
  return {
    bills: rows.reduce((sum, row) => sum + row.bills, 0),
    amount: rows.reduce((sum, row) => sum + row.amount, 0),
  };
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
