import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0012-counter-payments';

/** Barcodes that shops scan, what the shops say of them before the money is certain, and wallets beside cards. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- One row for each time a bill's barcode was issued: digits that were shown once are never another bill's.
    create table barcodes (
      merchant_id int not null,
      invoice_id uuid not null,
      reissue smallint not null check (reissue between 0 and 9),
      digits text not null check (digits ~ '^91[0-9]{42}$'),
      amount bigint not null check (amount between 1 and 300000),
      -- The last day on which a register takes it.
      expires_on date not null,
      issued_at timestamptz not null,
      primary key (merchant_id, invoice_id, reissue),
      foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
    );
    create unique index barcodes_once_by_digits on barcodes (merchant_id, digits);

    -- A shop has said that it took the money; it is certain only later.
    alter table charges drop constraint charges_state_check;
    alter table charges add constraint charges_state_check check (state in
      ('processing', 'requires_action', 'unknown', 'preliminary', 'succeeded', 'failed', 'canceled'));
    alter table charges drop constraint charges_origin_check;
    alter table charges add constraint charges_origin_check check (origin in ('link', 'auto', 'barcode'));
    alter table payment_intents drop constraint payment_intents_origin_check;
    alter table payment_intents add constraint payment_intents_origin_check check (origin in ('link', 'auto', 'barcode'));
    create index charges_preliminary on charges (merchant_id, invoice_id) where state = 'preliminary';

    alter table checkout_sessions add column method text not null default 'card'
      constraint checkout_sessions_method_check check (method in ('card', 'wallet'));
    ${ofOneMerchant(['barcodes'], { barcodes: 'select, insert' })}
  `);
}
