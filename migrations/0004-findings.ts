import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0004-findings';

/**
 * What a comparison with the outside found to differ: open until somebody, or later news, has settled it. A line of a
 * report that agrees leaves no trace but itself: lines go straight into their table, and nothing is written there twice.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    create table findings (
      merchant_id int not null references merchants (id),
      id uuid not null,
      source text not null check (source in ('report', 'payout', 'list')),
      kind text not null check (kind in (
        'missing_here', 'missing_there', 'not_booked', 'amount_differs', 'currency_differs', 'captured_twice',
        'fee_differs', 'payout_differs', 'not_paid_out', 'unexpected_kind', 'preliminary_not_confirmed', 'debit_differs')),
      -- What it is about, as the outside names it: a gateway's charge id, a payout id, a payment number.
      subject text not null,
      gateway text,
      report_date date,
      -- What the reference names as a charge of ours, whether or not there is such a charge.
      charge_id uuid,
      invoice_id uuid,
      ours bigint,
      theirs bigint,
      currency text,
      state text not null check (state in ('open', 'settled')),
      -- Who has to do something: the gateway, the merchant or our own operator.
      owner text not null check (owner in ('gateway', 'merchant', 'operator')),
      found_at timestamptz not null,
      settled_at timestamptz,
      settled_by text,
      how text,
      -- A person has settled it: the same difference with the same amounts is not found again.
      by_hand boolean not null default false,
      primary key (merchant_id, id),
      check ((state = 'settled') = (settled_at is not null and settled_by is not null and how is not null))
    );
    create unique index findings_one_open on findings (merchant_id, source, kind, subject) where state = 'open';
    create index findings_open_by_invoice on findings (merchant_id, invoice_id) where state = 'open';
    create index findings_open_by_charge on findings (merchant_id, charge_id) where state = 'open';
    create index findings_by_hand on findings (merchant_id, kind, subject) where by_hand;
    ${ofOneMerchant(['findings'], {})}

    insert into findings (merchant_id, id, source, kind, subject, gateway, report_date, charge_id, invoice_id, ours, theirs,
                          currency, state, owner, found_at)
    select distinct on (l.merchant_id, f.kind, f.subject)
           l.merchant_id, gen_random_uuid(), 'report', f.kind, f.subject, l.gateway, l.report_date, l.charge_id, c.invoice_id,
           c.amount, l.amount, l.currency, 'open', case when f.kind in ('missing_here', 'not_booked', 'unexpected_kind') then 'operator' else 'gateway' end, r.stored_at
    from settlement_lines l
    join settlement_reports r
      on r.merchant_id = l.merchant_id and r.gateway = l.gateway and r.report_date = l.report_date
    left join charges c on c.merchant_id = l.merchant_id and c.id = l.charge_id
    cross join lateral (
      select case when l.kind <> 'charge' then 'unexpected_kind'
                  when c.id is null then 'missing_here'
                  when l.amount <> c.amount then 'amount_differs'
                  when l.currency <> c.currency then 'currency_differs'
                  when l.finding = 'differs' then 'captured_twice'
                  else 'not_booked' end as kind,
             case when l.kind = 'charge' then l.gateway_charge_id
                  else l.gateway_charge_id || ' ' || l.kind || ' ' || l.report_date end as subject
    ) f
    where l.finding <> 'matched'
    order by l.merchant_id, f.kind, f.subject, l.report_date, l.line_no;
    alter table settlement_lines drop column finding;
    -- Checked line by line, this key costs more than all the rest of storing a report. Lines are written by one function,
    -- in one transaction with their report; the count in the report is compared instead, then and by 'check'.
    alter table settlement_lines drop constraint settlement_lines_merchant_id_gateway_report_date_fkey;

    -- Of all lines, in the order of the report; null: stored before digests were kept, and compared when it is next read.
    alter table settlement_reports add column digest text;
  `);
}
