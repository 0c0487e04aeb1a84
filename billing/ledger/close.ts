import { Temporal } from 'temporal-polyfill';
import { recordAct } from '../acts/queries.ts';
import { businessDateOf } from '../calendar/hours.ts';
import type { Db } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import {
  type FrozenAccount,
  freezeMonth,
  frozenAccounts,
  ledgerHeadOf,
  shutMonthsBefore,
} from './queries.ts';

export interface MonthClosed {
  merchant: string;
  /** YYYY-MM */
  month: string;
  /** False: it was closed before, and nothing was changed. */
  closed: boolean;
  accounts: FrozenAccount[];
}

/**
 * Closes a merchant's month: it takes no rows any more, and its balances are frozen. First the ledger is shut, which waits
 * for postings under way and holds new ones for a moment only; then the rows, which no longer change, are counted. Killed
 * between the two, it goes on when it is run again. Refusals: MONTH_MALFORMED, MONTH_NOT_OVER, MONTH_OUT_OF_ORDER.
 */
export async function closeMonth(
  ports: { db: Db; clock: Clock; ids: Ids },
  merchant: Merchant,
  month: string,
  actor: string,
): Promise<MonthClosed> {
  const { db, clock, ids } = ports;
  await clock.refresh();
  const at = clock.now();
  const wanted = monthStart(month);
  const head = await ledgerHeadOf(db, merchant.id);
  const first = wanted.toString();
  const isClosed = head.last_closed !== null && first <= head.last_closed;
  if (isClosed && first >= head.first_month) {
    return {
      merchant: merchant.code,
      month,
      closed: false,
      accounts: await frozenAccounts(db, merchant.id, first),
    };
  }
  const next =
    head.last_closed === null
      ? head.first_month
      : Temporal.PlainDate.from(head.last_closed).add({ months: 1 }).toString();
  if (first !== next) {
    throw new Refusal(
      'MONTH_OUT_OF_ORDER',
      `the next month of ${merchant.code} to close is ${next.slice(0, 7)}`,
      {
        next: `Months close in their order: seikyu ledger close --merchant ${merchant.code} --month ${next.slice(0, 7)}`,
        exitCode: 2,
        context: { merchant: merchant.code, month, next_month: next.slice(0, 7) },
      },
    );
  }
  const following = wanted.add({ months: 1 });
  const today = businessDateOf(at, merchant.settings.timezone);
  if (Temporal.PlainDate.compare(today, following) < 0) {
    throw new Refusal('MONTH_NOT_OVER', `${month} is not over at ${merchant.code}, where it is ${today}`, {
      next: `Close it on ${following} or later.`,
      exitCode: 2,
      context: { merchant: merchant.code, month, today: today.toString() },
    });
  }
  await db.transaction((tx) => shutMonthsBefore(tx, merchant.id, following.toString()));
  const closed = await db.transaction(async (tx) => {
    const act = { merchantId: merchant.id, id: ids.uuid(), kind: 'command' as const, actor, at };
    if (!(await freezeMonth(tx, act, first))) return false;
    await recordAct(tx, act);
    return true;
  });
  return { merchant: merchant.code, month, closed, accounts: await frozenAccounts(db, merchant.id, first) };
}

/** The first day of a month written YYYY-MM. Refusal MONTH_MALFORMED. */
export function monthStart(month: string): Temporal.PlainDate {
  if (/^\d{4}-(0[1-9]|1[0-2])$/.test(month)) return Temporal.PlainDate.from(`${month}-01`);
  throw new Refusal('MONTH_MALFORMED', `${JSON.stringify(month)} is not a month`, {
    next: 'Write it as YYYY-MM, for example 2026-11.',
    exitCode: 2,
  });
}
