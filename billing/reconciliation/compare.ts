import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Merchant } from '../merchants/merchant.ts';
import type { Ids } from '../ports.ts';
import { type FindingKind, findingRules, holdingDunning } from './findings.ts';
import {
  type AgreedFee,
  closeToldAlerts,
  contradictedFindings,
  newDifferences,
  openFindings,
  settleFindings,
  untoldFindings,
  type Window,
} from './queries.ts';

export interface Comparing {
  act: Act;
  ids: Ids;
  merchant: Merchant;
  gateway: string;
}

export type Compared = Partial<Record<FindingKind | 'settled', number>>;

/** So many findings are held in memory at once; a report that is wrong from end to end takes several rounds. */
const findingsAtOnce = 20_000;
/** A charge is captured within a week of its start: the payments of a day are looked for among the ids made since then. */
const chargeLivesDays = 7;

/**
 * Compares the stored reports of some days with what is booked, both ways. What has been cleared up meanwhile is settled
 * first, so that a difference that is now another one is found anew; then what differs and is not said yet is opened.
 */
export async function compareReports(
  tx: Tx,
  work: Comparing,
  days: { from: string; to: string },
): Promise<Compared> {
  const { act, gateway, merchant } = work;
  const fee = agreedFee(merchant);
  const counts: Compared = {};
  const add = (name: keyof Compared, count: number) => {
    if (count > 0) counts[name] = (counts[name] ?? 0) + count;
  };
  for (;;) {
    const settled = await contradictedFindings(tx, act.merchantId, gateway, fee, findingsAtOnce);
    if (settled.length > 0) await recordAct(tx, act);
    add('settled', await settleFindings(tx, act, settled, false));
    if (settled.length < findingsAtOnce) break;
  }
  const report = { merchantId: act.merchantId, gateway, timezone: merchant.settings.timezone };
  const window = idsOfDays(days, merchant.settings.timezone);
  for (;;) {
    const differences = await newDifferences(tx, report, window, fee, findingsAtOnce);
    await openFindings(
      tx,
      act.merchantId,
      act.at,
      differences.map((difference) => ({
        ...difference,
        source: 'report' as const,
        id: work.ids.uuid(),
        owner: findingRules[difference.kind].owner,
      })),
    );
    for (const { kind } of differences) add(kind, 1);
    if (differences.length < findingsAtOnce) return counts;
  }
}

/** Days, and between which ids the charges of their payments are: ids begin with the milliseconds of their making. */
export function idsOfDays(days: { from: string; to: string }, timezone: string): Window {
  const startOf = (plain: Temporal.PlainDate): string => {
    const hex = plain.toZonedDateTime(timezone).epochMilliseconds.toString(16).padStart(12, '0');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-0000-0000-000000000000`;
  };
  return {
    ...days,
    fromId: startOf(Temporal.PlainDate.from(days.from).subtract({ days: chargeLivesDays })),
    untilId: startOf(Temporal.PlainDate.from(days.to).add({ days: 1 })),
  };
}

function agreedFee({ settings }: Merchant): AgreedFee | null {
  // Settings that were applied before there was such a key do not have it.
  const fee = settings.gateway?.fee ?? null;
  if (fee === null) return null;
  // Four decimals of a percent are whole millionths: 3.25 % = 32,500.
  return {
    feePerMillion: Math.round(fee.ratePercent * 10_000),
    taxPerMillion: Math.round(fee.taxPercent * 10_000),
    toleranceYen: fee.toleranceYen,
  };
}

/** A person is called once for each day and cause. What the job asks about by itself has its own alert when that fails. */
const calls = [
  {
    cause: 'SETTLEMENT_DIFFERS ',
    level: 'now',
    kinds: holdingDunning.filter((kind) => kind !== 'not_booked'),
    effect: 'no bill goes on in dunning until each is settled',
  },
  {
    cause: 'SETTLEMENT_FEE_DIFFERS ',
    level: 'daily',
    kinds: ['fee_differs'] as FindingKind[],
    effect: 'bills go on',
  },
  {
    cause: 'BARCODE_NOT_CONFIRMED ',
    level: 'daily',
    kinds: ['preliminary_not_confirmed'] as FindingKind[],
    effect: 'only the bills themselves wait',
  },
] as const;

/** Calls a person for what is open and was not told yet, and closes the alerts of days where nothing is open any more. */
export async function tellFindings(tx: Tx, work: Comparing): Promise<void> {
  const { act, gateway, ids, merchant } = work;
  for (const { cause, level, kinds, effect } of calls) {
    for (const day of await untoldFindings(tx, act.merchantId, gateway, kinds, cause)) {
      const what = Object.entries(day.kinds)
        .sort(([one], [other]) => (one < other ? -1 : 1))
        .map(([kind, count]) => `${count} ${kind}`)
        .join(', ');
      await raiseAlert(tx, ids.uuid(), act.at, {
        merchantId: act.merchantId,
        level,
        cause: `${cause}${day.report_date}`,
        message: `the gateway's report of ${day.report_date} and our books differ: ${what}; ${effect}: seikyu findings list --merchant ${merchant.code}`,
        occurrences: day.fresh,
      });
    }
  }
  await closeAlerts(tx, act);
}

export async function closeAlerts(tx: Tx, act: Act): Promise<void> {
  for (const { cause, kinds } of calls) await closeToldAlerts(tx, act.merchantId, kinds, cause, act.at);
}
