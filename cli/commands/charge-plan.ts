import { type ChargePlan, sumOf } from '../../billing/autopay/plan.ts';
import type { ReasonLeftOut } from '../../billing/autopay/queries.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import type { Output } from '../output.ts';

const said: Readonly<Record<ReasonLeftOut, string>> = {
  recalled: 'its file is being recalled',
  unknown: 'a charge without a conclusive outcome: trace asks',
  being_paid: 'the customer or another process is at it',
  disputed: 'held: a dispute',
  held: 'held for another reason',
  not_automatic: 'by link, or fallen back to one',
  no_method: 'no card that may be charged',
  waiting_for_reports: 'a further attempt, before the settlement report of the day before',
  paid: 'already paid',
  cancelled: 'cancelled',
  returned: 'returned unpaid',
  parked: 'parked for a person',
};

/** What is charged by method, what is left out and why, and how long it takes. */
export function showPlan(output: Output, merchant: Merchant, date: string, plan: ChargePlan): void {
  const asks = merchant.settings.charge?.approve === true;
  const total = sumOf(plan.charges);
  if (total.bills === 0 && plan.leftOut.length === 0) {
    output.line(`${merchant.code} ${date}: nothing is to be charged.`);
    return;
  }
  output.rows(
    `${merchant.code} ${date}: ${total.bills.toLocaleString('en-US')} charges of ${yen(total.amount)}`,
    ['what', 'bills', 'amount', 'why'],
    [
      ...plan.charges.map(({ method, approved, bills, amount }) => ({
        what: `charge: ${method}`,
        bills,
        amount,
        why: asks ? (approved ? 'approved' : 'waits for an approval') : 'due',
      })),
      ...plan.leftOut.map(({ reason, bills, amount }) => ({
        what: `left out: ${reason}`,
        bills,
        amount,
        why: reason === null ? '' : said[reason],
      })),
    ],
    '',
  );
  output.line(
    plan.seconds === null
      ? 'How long it takes is not known: set gateway.rate_per_second, or see the pace once it runs.'
      : `At ${plan.pacePerSecond?.toLocaleString('en-US')} charges a second it takes ${duration(plan.seconds)}.`,
  );
}

export const yen = (amount: number): string => `¥${amount.toLocaleString('en-US')}`;

export function duration(seconds: number): string {
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
