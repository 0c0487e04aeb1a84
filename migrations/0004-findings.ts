import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0004-findings';

/** What a comparison with the outside found to differ: open until somebody, or later news, has settled it. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    create table findings (
      merchant_id int not null references merchants (id),
      id uuid not null,
      kind text not null check (kind in (
        'missing_here', 'missing_there', 'amount_differs', 'currency_differs', 'captured_twice', 'fee_differs',
        'payout_differs', 'not_paid_out', 'unexpected_kind', 'preliminary_not_confirmed', 'debit_differs')),
      -- What it is about, as the outside names it: a gateway's charge id, a payout id, a payment number.
      subject text not null,
      gateway text,
      report_date date,
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
      primary key (merchant_id, id)
    );
    create unique index findings_one_open on findings (merchant_id, kind, subject) where state = 'open';
    create index findings_open_by_invoice on findings (merchant_id, invoice_id) where state = 'open';
    ${ofOneMerchant(['findings'], {})}
  `);
}
