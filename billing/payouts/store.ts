import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert, resolveAlerts } from '../alerts/queries.ts';
import type { Tx } from '../db.ts';
import type { Payout, PayoutLine } from '../gateways/gateway.ts';
import { idBehind } from '../ids.ts';
import type { LedgerEvent, Posting } from '../ledger/ledger.ts';
import { post } from '../ledger/queries.ts';
import type { Ids } from '../ports.ts';
import type { FindingKind, FindingOwner, NewFinding } from '../reconciliation/findings.ts';
import { openFindings } from '../reconciliation/queries.ts';
import { assertState } from '../refusal.ts';
import { type LineFinding, lineSubject } from './payout.ts';
import {
  claimToldPayouts,
  differingLines,
  matchPayoutLines,
  movePayouts,
  payoutLineTotals,
  type StagedPayoutLine,
  settlePaidOut,
  settlePayoutFindings,
  stagePayoutLines,
  takePayout,
  toldOfPayout,
} from './queries.ts';

export type StoredPayout = 'posted' | 'withheld' | 'waits_for_report' | 'known';

const findingsPerBatch = 1_000;
/** Reports come the next day; one that is late has its own alert before this. */
const waitsForReportDays = 7;

/** Whose turn it is: what the gateway says of its own money it has to mend, what we do not know we have to look up. */
const ownerOf: Readonly<Record<Exclude<LineFinding, 'matched' | 'unreported'>, FindingOwner>> = {
  missing_here: 'operator',
  captured_twice: 'operator',
  unexpected_kind: 'operator',
  currency_differs: 'gateway',
  amount_differs: 'gateway',
  fee_differs: 'gateway',
  payout_differs: 'gateway',
};

/**
 * Stores a payout with its lines and compares them: with its own totals, line by line with our payments, and with the fees
 * of the settlement reports. One that adds up exactly is posted, and a settlement file will tell the merchant; any other is
 * withheld, its differences are findings, and the next run looks again. One that is posted stays as it is.
 */
export async function storePayout(
  tx: Tx,
  work: { act: Act; ids: Ids; gateway: string; today: string },
  payout: Payout,
  lines: { count: number; content: AsyncIterable<StagedPayoutLine> },
): Promise<StoredPayout> {
  const { act, ids, gateway } = work;
  const { merchantId } = act;
  const id = await takePayout(tx, act, { ...payout, gateway, newId: ids.uuid(), lines: lines.count });
  if (id === undefined) return 'known';
  await recordAct(tx, act);
  const staged = await stagePayoutLines(tx, lines.content);
  assertState(staged === lines.count, `${staged} payout lines stored of ${lines.count}`);
  const found = await matchPayoutLines(tx, merchantId, { id, gateway, currency: payout.currency });
  const named = { id, payoutId: payout.id };
  const totals = await payoutLineTotals(tx, merchantId, named);
  const told = await toldOfPayout(tx, merchantId, payout.id);
  const toldSo = told === undefined || (told.net === payout.net && told.lines === lines.count);
  const sums = {
    ours: toldSo ? totals.gross - totals.fee - totals.fee_tax : told.net,
    theirs: payout.net,
  };
  const addsUp =
    toldSo &&
    totals.gross === payout.gross &&
    totals.fee === payout.fee &&
    totals.fee_tax === payout.feeTax &&
    // Money that the gateway wants back is no payout: a person looks.
    [payout.net, payout.fee, payout.feeTax].every((part) => part >= 0) &&
    sums.ours === sums.theirs;
  await settlePayoutFindings(tx, merchantId, act.at, { ...named, ...sums });
  if (!addsUp || totals.open > 0) {
    const opened = await openAll(tx, work, payout, id, addsUp ? null : sums);
    if (opened > 0) {
      await raiseAlert(tx, ids.uuid(), act.at, {
        merchantId,
        level: 'now',
        cause: `PAYOUT_WITHHELD ${payout.id}`,
        message:
          `the payout ${payout.id} of ${payout.valueDate} over ${payout.net} ${payout.currency} is neither booked nor told to ` +
          `the merchant: ${toldSo ? 'its lines add up to' : `a file from before told it with ${told.lines} lines and`} ${sums.ours}, ` +
          `and ${totals.open} of ${lines.count} differ (${said(found)}). ` +
          'Each run of reconcile looks again, at what the gateway says then',
        occurrences: opened,
      });
    }
    return 'withheld';
  }
  const unreported = found.get('unreported') ?? 0;
  if (unreported > 0) {
    const since = Temporal.PlainDate.from(payout.valueDate);
    if (since.add({ days: waitsForReportDays }).toString() < work.today) {
      await raiseAlert(tx, ids.uuid(), act.at, {
        merchantId,
        level: 'daily',
        cause: `PAYOUT_WAITS ${payout.id}`,
        message: `${unreported} charges of the payout ${payout.id} of ${payout.valueDate} stand in no settlement report; it is booked once they do`,
      });
    }
    return 'waits_for_report';
  }
  assertState((await movePayouts(tx, act, [id], 'posted')) === 1, `payout ${payout.id} could not be posted`);
  const over = [`PAYOUT_WITHHELD ${payout.id}`, `PAYOUT_WAITS ${payout.id}`];
  await resolveAlerts(tx, merchantId, act.at, over, 'the payout is booked');
  await settlePaidOut(tx, merchantId, act.at, id);
  if (told !== undefined) await claimToldPayouts(tx, merchantId);
  await post(tx, act, work.today, postings(payout, id));
  return 'posted';
}

function postings(payout: Payout, entryId: string): Posting[] {
  const parts: [LedgerEvent, number][] = [
    ['payout', payout.net],
    ['fee', payout.fee],
    ['fee_tax', payout.feeTax],
  ];
  assertState(
    parts.every(([, amount]) => amount >= 0),
    `payout ${payout.id} takes money back`,
  );
  return parts
    .filter(([, amount]) => amount > 0)
    .map(([event, amount]) => ({
      event,
      entryId,
      invoiceId: null,
      customerId: null,
      amount,
      currency: payout.currency,
      eventOn: payout.valueDate,
    }));
}

async function openAll(
  tx: Tx,
  { act, ids, gateway }: { act: Act; ids: Ids; gateway: string },
  payout: Payout,
  id: string,
  sums: { ours: number; theirs: number } | null,
): Promise<number> {
  const common = { source: 'payout', gateway, reportDate: payout.valueDate } as const;
  let opened = 0;
  if (sums !== null) {
    opened += await openFindings(tx, act.merchantId, act.at, [
      {
        ...common,
        ...sums,
        id: ids.uuid(),
        kind: 'payout_differs',
        subject: payout.id,
        chargeId: null,
        invoiceId: null,
        currency: payout.currency,
        owner: 'gateway',
      },
    ]);
  }
  for (let after = -1; ; ) {
    const lines = await differingLines(
      tx,
      act.merchantId,
      { id, payoutId: payout.id },
      after,
      findingsPerBatch,
    );
    opened += await openFindings(
      tx,
      act.merchantId,
      act.at,
      lines.map((line): NewFinding => {
        assertState(line.finding !== 'matched' && line.finding !== 'unreported', 'a line that differs');
        return {
          ...common,
          id: ids.uuid(),
          kind: line.finding satisfies FindingKind,
          subject: lineSubject(payout.id, line.gateway_charge_id),
          chargeId: line.charge_id,
          // A fee is between gateway and merchant: it keeps no bill's result back.
          invoiceId: line.finding === 'fee_differs' ? null : line.invoice_id,
          ours: line.ours,
          theirs: line.theirs,
          currency: line.currency,
          owner: ownerOf[line.finding],
        };
      }),
    );
    const last = lines.at(-1);
    if (last === undefined || lines.length < findingsPerBatch) return opened;
    after = last.line_no;
  }
}

function said(found: ReadonlyMap<LineFinding, number>): string {
  return [...found].map(([finding, count]) => `${count} ${finding.replaceAll('_', ' ')}`).join(', ');
}

export function stagedPayoutLine(line: PayoutLine, lineNo: number): StagedPayoutLine {
  return { ...line, lineNo, chargeId: idBehind(line.reference) };
}
