import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0023-card-refreshes';

/** Saved cards are asked about before they are charged: what was asked, what was answered, and what became of the card. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- The card that this one took the place of. A token never changes: whoever has a new one is another row.
    alter table payment_methods add column replaces_id uuid;
    -- Null on an ended one: a charge was declined for good.
    alter table payment_methods add column ended_for text check (ended_for in ('replaced', 'closed', 'expired'));
    -- When the gateway's updater was last asked about it, and answered or was given up.
    alter table payment_methods add column asked_on date;
    alter table payment_methods add foreign key (merchant_id, replaces_id)
      references payment_methods (merchant_id, id);

    -- Why a link is offered for an automatic bill; decides what its SMS says.
    alter table invoices add column fell_back_for text;

    -- A question to the gateway; its id in Crockford base32 is the reference under which it is asked.
    create table card_refreshes (
      merchant_id int not null references merchants (id),
      id uuid not null,
      gateway text not null,
      business_date date not null,
      -- accepted: the gateway has it, and answers on a later day.
      state text not null check (state in ('asked', 'accepted', 'answered', 'given_up')),
      version int not null,
      asked_at timestamptz not null,
      answered_at timestamptz,
      primary key (merchant_id, id)
    );
    create index card_refreshes_open on card_refreshes (merchant_id, id) where state in ('asked', 'accepted');

    -- Its cards, in the order of payment_method_id. Written once; what is answered never changes.
    create table card_refresh_lines (
      merchant_id int not null,
      refresh_id uuid not null,
      payment_method_id uuid not null,
      enrolment_id uuid not null,
      -- The charge that is to come.
      charge_on date not null,
      answer text check (answer in ('replaced', 'closed', 'expired', 'unknown', 'none')),
      code text,
      primary key (merchant_id, refresh_id, payment_method_id),
      foreign key (merchant_id, refresh_id) references card_refreshes (merchant_id, id),
      foreign key (merchant_id, payment_method_id) references payment_methods (merchant_id, id),
      foreign key (merchant_id, enrolment_id) references enrolments (merchant_id, id)
    );
    create unique index card_refresh_lines_one_open on card_refresh_lines (merchant_id, payment_method_id)
      where answer is null;
    create index card_refresh_lines_by_enrolment on card_refresh_lines (merchant_id, enrolment_id);
    ${ofOneMerchant(['card_refreshes', 'card_refresh_lines'], {})}
  `);
}
