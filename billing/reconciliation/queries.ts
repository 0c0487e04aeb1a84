import type { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { SettlementLine } from '../gateways/gateway.ts';
import type { NewFinding } from './findings.ts';

/** Since when there can be anything to reconcile: the merchant's first day here. */
export async function merchantSince(db: Pick<Db, 'query'>, merchantId: number): Promise<string> {
  const [row] = await db.query<{ created_at: string }>(`select created_at from merchants where id = $1`, [
    merchantId,
  ]);
  if (!row) throw new Error(`impossible state: merchant ${merchantId} is gone`);
  return row.created_at;
}

export async function storedReportDates(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  from: string,
  to: string,
): Promise<Set<string>> {
  const rows = await db.query<{ report_date: string }>(
    `select report_date from settlement_reports
     where merchant_id = $1 and gateway = $2 and report_date between $3::date and $4::date`,
    [merchantId, gateway, from, to],
  );
  return new Set(rows.map((row) => row.report_date));
}

export interface ReportTotals {
  lines: number;
  amount: number;
  fee: number;
  feeTax: number;
}

/** False: the report is stored already. */
export async function insertReport(
  tx: Tx,
  report: { merchantId: number; gateway: string; date: string; at: Temporal.Instant } & ReportTotals,
): Promise<boolean> {
  const inserted = await tx.run(
    `insert into settlement_reports (merchant_id, gateway, report_date, lines, amount, fee, fee_tax, stored_at)
     values ($1, $2, $3::date, $4, $5, $6, $7, $8::timestamptz)
     on conflict do nothing`,
    [
      report.merchantId,
      report.gateway,
      report.date,
      report.lines,
      report.amount,
      report.fee,
      report.feeTax,
      instantText(report.at),
    ],
  );
  return inserted === 1;
}

export interface StagedLine extends SettlementLine {
  lineNo: number;
  /** What the reference would be as a charge's id; null = no reference of ours. */
  chargeId: string | null;
}

export async function stageLines(tx: Tx, lines: AsyncIterable<StagedLine>): Promise<number> {
  await tx.run(
    `create temp table staged_lines (
       line_no int, gateway_charge_id text, reference text, charge_id uuid, kind text, amount bigint, currency text,
       fee bigint, fee_tax bigint, captured_at timestamptz
     ) on commit drop`,
  );
  return tx.copyIn(`copy staged_lines from stdin`, copyRows(lines));
}

async function* copyRows(lines: AsyncIterable<StagedLine>): AsyncIterable<string> {
  for await (const line of lines) {
    const values = [
      line.lineNo,
      line.gatewayChargeId,
      line.reference,
      line.chargeId,
      line.kind,
      line.amount,
      line.currency,
      line.fee,
      line.feeTax,
      line.capturedAt,
    ];
    yield `${values.map(copyText).join('\t')}\n`;
  }
}

function copyText(value: string | number | null): string {
  if (value === null) return '\\N';
  if (typeof value === 'number') return String(value);
  return value.replace(/[\\\t\n\r]/g, (character) => copyEscapes[character] ?? '');
}
const copyEscapes: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

/**
 * Compares the staged lines with the charges of the merchant and keeps them with what was found. A line whose charge has
 * not succeeded here yet is `unmatched` until that is learned; a second capture of one charge `differs` like a wrong amount.
 */
export async function matchStagedLines(
  tx: Tx,
  merchantId: number,
  gateway: string,
  date: string,
): Promise<{ finding: 'unmatched' | 'matched' | 'differs' | 'missing_here'; count: number }[]> {
  return tx.query<{ finding: 'unmatched' | 'matched' | 'differs' | 'missing_here'; count: number }>(
    `with compared as (
       select s.*, c.id as known_id, c.state, c.amount as asked, c.currency as asked_currency,
              row_number() over (partition by s.charge_id, s.kind order by s.line_no) as occurrence,
              exists (select from settlement_lines o
                      where o.merchant_id = $1 and o.charge_id = s.charge_id and o.kind = 'charge'
                        and o.finding in ('matched', 'unmatched')) as reported_before
       from staged_lines s
       left join charges c on c.merchant_id = $1 and c.id = s.charge_id
     ), stored as (
       insert into settlement_lines (merchant_id, gateway, report_date, line_no, gateway_charge_id, reference, charge_id,
                                     kind, amount, currency, fee, fee_tax, captured_at, finding)
       select $1, $2, $3::date, line_no, gateway_charge_id, reference, known_id, kind, amount, currency, fee, fee_tax,
              captured_at,
              case when known_id is null then 'missing_here'
                   when kind <> 'charge' or occurrence > 1 or reported_before then 'differs'
                   when amount <> asked or currency <> asked_currency then 'differs'
                   when state = 'succeeded' then 'matched'
                   else 'unmatched' end
       from compared
       returning finding
     )
     select finding, count(*) as count from stored group by finding`,
    [merchantId, gateway, date],
  );
}

/**
 * Payments that we have for a day and that no report of the gateway holds. Charge ids begin with their time, so only
 * those made in the week before the day's end are read.
 */
export async function paymentsMissingThere(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  day: { date: string; fromId: string; untilId: string },
): Promise<{ missing: number; amount: number; example: string | null }> {
  const [row] = await tx.query<{ missing: number; amount: number; example: string | null }>(
    `select count(*) as missing, coalesce(sum(p.amount), 0)::bigint as amount, min(p.id::text) as example
     from payments p
     join charges c on c.merchant_id = p.merchant_id and c.id = p.id and c.gateway = $2
     where p.merchant_id = $1 and p.collected_on = $3::date and p.id >= $4::uuid and p.id < $5::uuid
       and not exists (select from settlement_lines l where l.merchant_id = p.merchant_id and l.charge_id = p.id)`,
    [merchantId, gateway, day.date, day.fromId, day.untilId],
  );
  return row ?? { missing: 0, amount: 0, example: null };
}

export interface UnlearnedLine {
  charge_id: string;
  amount: number;
  currency: string;
}

/** Money in the report for charges that have not succeeded here. Only days after the watermark can hold such lines. */
export async function unlearnedLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  from: string,
  limit: number,
): Promise<UnlearnedLine[]> {
  return tx.query<UnlearnedLine>(
    `select charge_id, amount, currency from settlement_lines
     where merchant_id = $1 and gateway = $2 and report_date >= $3::date and finding = 'unmatched'
     order by report_date, line_no limit $4`,
    [merchantId, gateway, from, limit],
  );
}

/** What was learned meanwhile is matched now. */
export async function matchLearnedLines(
  tx: Tx,
  merchantId: number,
  gateway: string,
  from: string,
): Promise<number> {
  return tx.run(
    `update settlement_lines l set finding = 'matched'
     from charges c
     where l.merchant_id = $1 and l.gateway = $2 and l.report_date >= $3::date and l.finding = 'unmatched'
       and c.merchant_id = l.merchant_id and c.id = l.charge_id and c.state = 'succeeded'`,
    [merchantId, gateway, from],
  );
}

export async function completeTo(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  method: string,
): Promise<string | null> {
  const [row] = await tx.query<{ complete_to: string }>(
    `select complete_to from watermarks where merchant_id = $1 and method = $2`,
    [merchantId, method],
  );
  return row?.complete_to ?? null;
}

export interface WatermarkFacts {
  /** When the oldest charge without a conclusive outcome started, of those started at `openSince` or later. */
  oldest_open_at: string | null;
  /** The oldest day with a line that waits to be learned. */
  unmatched_from: string | null;
  /** The oldest day whose difference no person has acknowledged. */
  differs_from: string | null;
}

export async function watermarkFacts(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  since: string,
  openSince: string,
  differsCause: string,
): Promise<WatermarkFacts> {
  const [row] = await tx.query<WatermarkFacts>(
    `select (select min(locked_at) from collection_locks
             where merchant_id = $1 and locked_at >= $5::timestamptz) as oldest_open_at,
            (select min(report_date) from settlement_lines
             where merchant_id = $1 and gateway = $2 and report_date >= $3::date and finding = 'unmatched') as unmatched_from,
            (select min(right(cause, 10))::date from alerts
             where merchant_id = $1 and starts_with(cause, $4) and acknowledged_at is null) as differs_from`,
    [merchantId, gateway, since, differsCause, openSince],
  );
  return row ?? { oldest_open_at: null, unmatched_from: null, differs_from: null };
}

/** Only forward. Returns whether it moved. */
export async function raiseWatermark(
  tx: Tx,
  merchantId: number,
  method: string,
  completeTo: string,
): Promise<boolean> {
  const moved = await tx.run(
    `insert into watermarks as w (merchant_id, method, complete_to) values ($1, $2, $3::date)
     on conflict (merchant_id, method) do update set complete_to = excluded.complete_to
     where w.complete_to < excluded.complete_to`,
    [merchantId, method, completeTo],
  );
  return moved === 1;
}

/** Opens findings; one that is open already (same kind and subject) stays as it is. Returns how many are new. */
export async function openFindings(
  tx: Tx,
  merchantId: number,
  foundAt: Temporal.Instant,
  findings: readonly NewFinding[],
): Promise<number> {
  if (findings.length === 0) return 0;
  return tx.run(
    `insert into findings (merchant_id, id, kind, subject, gateway, report_date, charge_id, invoice_id, ours, theirs,
                           currency, state, owner, found_at)
     select $1, f.id, f.kind, f.subject, f.gateway, f.report_date, f.charge_id, f.invoice_id, f.ours, f.theirs, f.currency,
            'open', f.owner, $2::timestamptz
     from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::date[], $8::uuid[], $9::uuid[], $10::bigint[],
                 $11::bigint[], $12::text[], $13::text[])
       as f(id, kind, subject, gateway, report_date, charge_id, invoice_id, ours, theirs, currency, owner)
     on conflict (merchant_id, kind, subject) where state = 'open' do nothing`,
    [
      merchantId,
      instantText(foundAt),
      findings.map((finding) => finding.id),
      findings.map((finding) => finding.kind),
      findings.map((finding) => finding.subject),
      findings.map((finding) => finding.gateway),
      findings.map((finding) => finding.reportDate),
      findings.map((finding) => finding.chargeId),
      findings.map((finding) => finding.invoiceId),
      findings.map((finding) => finding.ours),
      findings.map((finding) => finding.theirs),
      findings.map((finding) => finding.currency),
      findings.map((finding) => finding.owner),
    ],
  );
}
