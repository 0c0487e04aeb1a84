import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Db, Tx } from '../db.ts';
import type { Payout, PayoutLine } from '../gateways/gateway.ts';
import { acceptable, type LineFinding, type PayoutState, settledByNews, statesBefore } from './payout.ts';

export interface KnownPayout {
  id: string;
  payout_id: string;
  value_on: string;
  currency: string;
  gross: number;
  fee: number;
  fee_tax: number;
  net: number;
  state: PayoutState;
}

/** Payouts stored with a value date in the range, and those named. */
export async function knownPayouts(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
  asked: { from: string; to: string; payoutIds: readonly string[] },
): Promise<Map<string, KnownPayout>> {
  const rows = await db.query<KnownPayout>(
    `select id, payout_id, value_on, currency, gross, fee, fee_tax, net, state from payouts
     where merchant_id = $1 and gateway = $2
       and (value_on between $3::date and $4::date or payout_id = any($5::text[]))
     order by value_on, payout_id`,
    [merchantId, gateway, asked.from, asked.to, asked.payoutIds],
  );
  return new Map(rows.map((row) => [row.payout_id, row]));
}

export interface PayoutDates {
  /** Of the newest payout that is stored. */
  newest_on: string | null;
  oldest_withheld_on: string | null;
}

export async function payoutDates(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
): Promise<PayoutDates> {
  const [row] = await db.query<PayoutDates>(
    `select max(value_on) as newest_on, min(value_on) filter (where state = 'withheld') as oldest_withheld_on
     from payouts where merchant_id = $1 and gateway = $2`,
    [merchantId, gateway],
  );
  return row ?? { newest_on: null, oldest_withheld_on: null };
}

/**
 * The payout's row, locked, with what the gateway says of it now: made, or brought up to date while it is not posted.
 * Its lines are gone after this, to be stored anew. Undefined: it is posted, and stays as it is.
 */
export async function takePayout(
  tx: Tx,
  act: Act,
  payout: Payout & { newId: string; gateway: string; lines: number },
): Promise<string | undefined> {
  const [taken] = await tx.query<{ id: string; version: number }>(
    `insert into payouts as p (merchant_id, id, gateway, payout_id, value_on, currency, gross, fee, fee_tax, net, lines,
                               state, version, stored_at)
     values ($1, $2::uuid, $3, $4, $5::date, $6, $7, $8, $9, $10, $11, 'withheld', 1, $12::timestamptz)
     on conflict (merchant_id, gateway, payout_id) do update
       set value_on = excluded.value_on, currency = excluded.currency, gross = excluded.gross, fee = excluded.fee,
           fee_tax = excluded.fee_tax, net = excluded.net, lines = excluded.lines
       where p.state <> 'posted'
     returning id, version`,
    [
      act.merchantId,
      payout.newId,
      payout.gateway,
      payout.id,
      payout.valueDate,
      payout.currency,
      payout.gross,
      payout.fee,
      payout.feeTax,
      payout.net,
      payout.lines,
      instantText(act.at),
    ],
  );
  if (!taken) return undefined;
  if (taken.id === payout.newId) {
    await tx.run(
      `insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       values ($1, $2::date, 'payout', $3::uuid, 1, null, 'withheld', $4::timestamptz, $5::uuid)`,
      [act.merchantId, monthOf(act.at), taken.id, instantText(act.at), act.id],
    );
  } else {
    await movePayouts(tx, act, [taken.id], 'withheld');
    await deleteLines(tx, act.merchantId, taken.id);
  }
  return taken.id;
}

export async function deleteLines(tx: Tx, merchantId: number, id: string): Promise<void> {
  await tx.run(`delete from payout_lines where merchant_id = $1 and payout_id = $2::uuid`, [merchantId, id]);
}

/** The one transition of payouts, with its history. Returns how many moved. */
export async function movePayouts(
  tx: Tx,
  act: Act,
  ids: readonly string[],
  to: PayoutState,
): Promise<number> {
  return tx.run(
    `with before as (
       select id, state from payouts where merchant_id = $1 and id = any($2::uuid[]) and state = any($4::text[]) for update
     ), moved as (
       update payouts p set state = $3, version = p.version + 1,
                            posted_at = case when $3 = 'posted' then $5::timestamptz end
       from before b where p.merchant_id = $1 and p.id = b.id
       returning p.id, b.state as from_state, p.version
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $6::date, 'payout', id, version, from_state, $3, $5::timestamptz, $7::uuid from moved`,
    [act.merchantId, ids, to, statesBefore(to), instantText(act.at), monthOf(act.at), act.id],
  );
}

export interface StagedPayoutLine extends PayoutLine {
  lineNo: number;
  /** What the reference would be as a charge's id; null = no reference of ours. */
  chargeId: string | null;
}

export async function stagePayoutLines(tx: Tx, lines: AsyncIterable<StagedPayoutLine>): Promise<number> {
  await tx.run(
    `create temp table staged_payout_lines (
       line_no int, gateway_charge_id text, reference text, charge_id uuid, kind text, amount bigint, currency text,
       fee bigint, fee_tax bigint
     ) on commit drop`,
  );
  return tx.copyIn(`copy staged_payout_lines from stdin`, copyRows(lines));
}

async function* copyRows(lines: AsyncIterable<StagedPayoutLine>): AsyncIterable<string> {
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
 * Compares the staged lines with our payments, with what other payouts hold and with the fee of the settlement report, and
 * keeps them with what was found: of several differences the one that says most. Returns the lines of each finding.
 */
export async function matchPayoutLines(
  tx: Tx,
  merchantId: number,
  payout: { id: string; gateway: string; currency: string },
): Promise<Map<LineFinding, number>> {
  await tx.run(`analyze staged_payout_lines`);
  const rows = await tx.query<{ finding: LineFinding; count: number }>(
    `with compared as (
       select s.*, coalesce(c.id, back.charge_id) as known_id,
              -- Money that we gave back, and that no other payout took off.
              back.amount = s.amount and back.currency = s.currency and back.gateway_refund_id = s.gateway_charge_id and not exists (
                select from payout_lines o
                join payouts other on other.merchant_id = o.merchant_id and other.id = o.payout_id
                where o.merchant_id = $1 and o.charge_id = back.charge_id and o.kind = 'refund'
                  and o.gateway_charge_id = s.gateway_charge_id and o.payout_id <> $2::uuid
                  and other.state <> 'withdrawn') as is_our_refund, p.amount as paid, p.currency as paid_currency, c.gateway_charge_id as known_as,
              row_number() over (partition by s.charge_id, s.kind order by s.line_no) as occurrence,
              exists (select from payout_lines o
                      join payouts other on other.merchant_id = o.merchant_id and other.id = o.payout_id
                      where o.merchant_id = $1 and o.charge_id = c.id and o.kind = 'charge' and o.payout_id <> $2::uuid
                        and other.state <> 'withdrawn') as paid_out_before,
              r.fee as reported_fee, r.fee_tax as reported_tax
       from staged_payout_lines s
       left join payments p on p.merchant_id = $1 and p.id = s.charge_id
       left join charges c on c.merchant_id = $1 and c.id = p.id and c.gateway = $3
       left join refunds back on back.merchant_id = $1 and back.id = s.charge_id and back.gateway = $3
         and s.kind = 'refund' and back.state = 'succeeded'
       left join lateral (
         select l.fee, l.fee_tax from settlement_lines l
         where l.merchant_id = $1 and l.charge_id = s.charge_id and l.kind = 'charge' and l.gateway = $3
         order by l.report_date, l.line_no limit 1
       ) r on true
     ), judged as (
       select *,
              case when kind = 'refund' and is_our_refund and occurrence = 1 then 'matched'
                   when kind <> 'charge' then 'unexpected_kind'
                   when known_id is null then 'missing_here'
                   when known_as is distinct from gateway_charge_id then 'captured_twice'
                   when currency <> $4 or currency <> paid_currency then 'currency_differs'
                   when paid_out_before or occurrence > 1 then 'payout_differs'
                   when amount <> paid then 'amount_differs'
                   when reported_fee is null then 'unreported'
                   when fee <> reported_fee or fee_tax <> reported_tax then 'fee_differs'
                   else 'matched' end as finding
       from compared
     ), stored as (
       insert into payout_lines (merchant_id, payout_id, line_no, gateway_charge_id, reference, charge_id, kind, amount,
                                 currency, fee, fee_tax, finding, ours, theirs)
       select $1, $2::uuid, line_no, gateway_charge_id, reference, known_id, kind, amount, currency, fee, fee_tax, finding,
              case finding when 'amount_differs' then paid when 'fee_differs' then reported_fee + reported_tax end,
              case finding when 'amount_differs' then amount when 'fee_differs' then fee + fee_tax
                           when 'matched' then null when 'unreported' then null else amount end
       from judged
       returning finding
     )
     select finding, count(*) as count from stored group by finding`,
    [merchantId, payout.id, payout.gateway, payout.currency],
  );
  return new Map(rows.map(({ finding, count }) => [finding, count]));
}

export interface LineTotals {
  gross: number;
  fee: number;
  fee_tax: number;
  /** Lines that differ, not counting those that a person has taken as they are. */
  open: number;
}

const subjectOf = (payoutId: string, line: string): string =>
  `${payoutId} || '/' || ${line}.gateway_charge_id`;

/** Settled by a person over exactly these numbers. `$3` = the payout's own id, `$4` kinds, `$5` not a person. */
const takenAsItIs = `
  l.finding = any($4::text[]) and exists (
    select from findings f
    where f.merchant_id = l.merchant_id and f.kind = l.finding and f.subject = ${subjectOf('$3::text', 'l')}
      and f.state = 'settled' and f.settled_by <> $5
      and f.ours is not distinct from l.ours and f.theirs is not distinct from l.theirs)`;

export async function payoutLineTotals(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  payout: { id: string; payoutId: string },
): Promise<LineTotals> {
  const [row] = await tx.query<LineTotals>(
    `select coalesce(sum(case when kind = 'refund' then -amount else amount end), 0)::bigint as gross,
            coalesce(sum(fee), 0)::bigint as fee, coalesce(sum(fee_tax), 0)::bigint as fee_tax,
            count(*) filter (where finding not in ('matched', 'unreported') and not (${takenAsItIs})) as open
     from payout_lines l where merchant_id = $1 and payout_id = $2::uuid`,
    [merchantId, payout.id, payout.payoutId, acceptable, settledByNews],
  );
  return row ?? { gross: 0, fee: 0, fee_tax: 0, open: 0 };
}

export interface DifferingLine {
  line_no: number;
  gateway_charge_id: string;
  charge_id: string | null;
  invoice_id: string | null;
  finding: LineFinding;
  ours: number | null;
  theirs: number | null;
  currency: string;
}

/** Lines after `after` that want a person, in their order. */
export async function differingLines(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  payout: { id: string; payoutId: string },
  after: number,
  limit: number,
): Promise<DifferingLine[]> {
  return tx.query<DifferingLine>(
    `select l.line_no, l.gateway_charge_id, l.charge_id, p.invoice_id, l.finding, l.ours, l.theirs, l.currency
     from payout_lines l
     left join payments p on p.merchant_id = l.merchant_id and p.id = l.charge_id
     where l.merchant_id = $1 and l.payout_id = $2::uuid and l.line_no > $6
       and l.finding not in ('matched', 'unreported') and not (${takenAsItIs})
     order by l.line_no limit $7`,
    [merchantId, payout.id, payout.payoutId, acceptable, settledByNews, after, limit],
  );
}

/** Open findings of a payout that its lines and totals, as they are now, bear out no more. Returns how many. */
export async function settlePayoutFindings(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  payout: { id: string; payoutId: string; ours: number; theirs: number },
): Promise<number> {
  return tx.run(
    `update findings f set state = 'settled', settled_at = $4::timestamptz, settled_by = $5, how = 'differs no more'
     where f.merchant_id = $1 and f.state = 'open'
       and ((f.kind = 'payout_differs' and f.subject = $3
             and (f.ours is distinct from $6::bigint or f.theirs is distinct from $7::bigint or $6::bigint = $7::bigint))
         or (starts_with(f.subject, $3 || '/') and not exists (
               select from payout_lines l
               where l.merchant_id = f.merchant_id and l.payout_id = $2::uuid and l.finding = f.kind
                 and f.subject = ${subjectOf('$3', 'l')}
                 and f.ours is not distinct from l.ours and f.theirs is not distinct from l.theirs)))`,
    [merchantId, payout.id, payout.payoutId, instantText(at), settledByNews, payout.ours, payout.theirs],
  );
}

/** Payouts that the gateway tells again as they were booked: what it said in between is over. Returns their ids. */
export async function settleMendedPayouts(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  payoutIds: readonly string[],
): Promise<string[]> {
  const rows = await tx.query<{ subject: string }>(
    `update findings f
     set state = 'settled', settled_at = $3::timestamptz, settled_by = $4, how = 'the gateway tells it as it was booked again'
     from payouts p
     where f.merchant_id = $1 and f.source = 'payout' and f.kind = 'payout_differs' and f.state = 'open'
       and f.subject = any($2::text[])
       and p.merchant_id = f.merchant_id and p.gateway = f.gateway and p.payout_id = f.subject and p.state = 'posted'
     returning f.subject`,
    [merchantId, payoutIds, instantText(at), settledByNews],
  );
  return rows.map((row) => row.subject);
}

/** A person has seen exactly this difference of a whole payout, and settled it. */
export async function changeIsSettled(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  payout: { payoutId: string; ours: number; theirs: number | null },
): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from findings
     where merchant_id = $1 and kind = 'payout_differs' and subject = $2 and state = 'settled' and settled_by <> $3
       and ours = $4::bigint and theirs is not distinct from $5::bigint
     limit 1`,
    [merchantId, payout.payoutId, settledByNews, payout.ours, payout.theirs],
  );
  return rows.length > 0;
}

/** What was looked for in vain and is in this payout. */
export async function settlePaidOut(
  tx: Tx,
  merchantId: number,
  at: Temporal.Instant,
  payoutId: string,
): Promise<number> {
  return tx.run(
    `update findings f set state = 'settled', settled_at = $3::timestamptz, settled_by = $4, how = 'paid out'
     where f.merchant_id = $1 and f.state = 'open' and f.kind = 'not_paid_out'
       and exists (select from payout_lines l
                   where l.merchant_id = f.merchant_id and l.payout_id = $2::uuid and l.charge_id = f.charge_id)`,
    [merchantId, payoutId, instantText(at), settledByNews],
  );
}

/** Up to which day payments have been looked for in payouts; null = never. */
export async function payoutsCheckedTo(
  db: Pick<Db, 'query'>,
  merchantId: number,
  gateway: string,
): Promise<string | null> {
  const [row] = await db.query<{ checked_to: string }>(
    `select checked_to from payout_checks where merchant_id = $1 and gateway = $2`,
    [merchantId, gateway],
  );
  return row?.checked_to ?? null;
}

export async function setPayoutsChecked(
  tx: Tx,
  merchantId: number,
  gateway: string,
  checkedTo: string,
): Promise<void> {
  await tx.run(
    `insert into payout_checks as c (merchant_id, gateway, checked_to) values ($1, $2, $3::date)
     on conflict (merchant_id, gateway) do update set checked_to = excluded.checked_to
     where c.checked_to < excluded.checked_to`,
    [merchantId, gateway, checkedTo],
  );
}

export interface UnpaidOut {
  id: string;
  invoice_id: string;
  gateway_charge_id: string | null;
  amount: number;
  currency: string;
  collected_on: string;
}

/** Payments of these days, with ids in the range and after `afterId`, that stand in no booked payout. In the order of their ids. */
export async function paymentsNotPaidOut(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  days: { after: string; to: string; fromId: string; untilId: string },
  afterId: string,
  limit: number,
): Promise<UnpaidOut[]> {
  return tx.query<UnpaidOut>(
    `select p.id, p.invoice_id, c.gateway_charge_id, p.amount, p.currency, p.collected_on
     from payments p
     join charges c on c.merchant_id = p.merchant_id and c.id = p.id and c.gateway = $2
     where p.merchant_id = $1 and p.collected_on > $3::date and p.collected_on <= $4::date
       and p.id >= $5::uuid and p.id < $6::uuid and p.id > $7::uuid
       and not exists (
         select from payout_lines l
         join payouts o on o.merchant_id = l.merchant_id and o.id = l.payout_id and o.state = 'posted'
         where l.merchant_id = p.merchant_id and l.charge_id = p.id and l.kind = 'charge')
     order by p.id limit $8`,
    [merchantId, gateway, days.after, days.to, days.fromId, days.untilId, afterId, limit],
  );
}

export interface PayoutToFile {
  id: string;
  payout_id: string;
  lines: number;
  net: number;
}

/** A settlement file of the payout `p` that the merchant has, or is to have. */
const toldOf = `o.merchant_id = p.merchant_id and o.kind = 'settlement' and o.payout_id = p.payout_id`;

/** Posted, and told in no file that names it: not by one either that a database which was put back had forgotten. */
export const payoutsUntold = `
  payouts p
  where p.merchant_id = $1 and p.state = 'posted' and p.outward_file_id is null
    and not exists (select from outward_files o where ${toldOf})`;

/** What a settlement file told of a payout as a whole; undefined: none has told it. */
export async function toldOfPayout(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  payoutId: string,
): Promise<{ lines: number; net: number } | undefined> {
  const [row] = await tx.query<{ lines: number; net: number }>(
    `select records as lines, sum as net from outward_files
     where merchant_id = $1 and kind = 'settlement' and payout_id = $2
     order by sequence limit 1`,
    [merchantId, payoutId],
  );
  return row;
}

/** Posted payouts that a file of the merchant's told before they were known here, are in that file. Returns how many. */
export async function claimToldPayouts(tx: Tx, merchantId: number): Promise<number> {
  return tx.run(
    `update payouts p set outward_file_id = o.id
     from outward_files o
     where p.merchant_id = $1 and o.merchant_id = $1 and p.state = 'posted' and p.outward_file_id is null
       and ${toldOf} and o.records = p.lines and o.sum = p.net`,
    [merchantId],
  );
}

/** The file told a payout that is booked here with another sum or other lines. */
export async function toldPayoutDiffers(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  fileId: string,
): Promise<boolean> {
  const rows = await tx.query(
    `select 1 from outward_files o join payouts p on ${toldOf}
     where o.merchant_id = $1 and p.merchant_id = $1 and o.id = $2::uuid and p.state = 'posted'
       and p.outward_file_id is distinct from o.id limit 1`,
    [merchantId, fileId],
  );
  return rows.length > 0;
}

/** Oldest first. */
export async function payoutsToFile(db: Pick<Tx, 'query'>, merchantId: number): Promise<PayoutToFile[]> {
  return db.query<PayoutToFile>(
    `select p.id, p.payout_id, p.lines, p.net from ${payoutsUntold} order by p.value_on, p.payout_id`,
    [merchantId],
  );
}

export async function claimPayout(tx: Tx, merchantId: number, id: string, fileId: string): Promise<void> {
  await tx.run(
    `update payouts set outward_file_id = $3::uuid
     where merchant_id = $1 and id = $2::uuid and state = 'posted' and outward_file_id is null`,
    [merchantId, id, fileId],
  );
}
