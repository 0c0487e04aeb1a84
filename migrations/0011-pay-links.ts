import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0011-pay-links';

/** Whose phone a link reached, and how often its check was failed. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    alter table messages drop constraint messages_unreached_check;
    alter table messages add constraint messages_unreached_check
      check (unreached in ('not_mobile', 'blocked', 'undelivered', 'opted_out', 'wrong_person'));

    -- Who has this phone says that they are not this customer. It holds until the merchant sends the customer's contact again.
    create table wrong_persons (
      merchant_id int not null,
      customer_id uuid not null,
      phone_digest bytea not null,
      -- The link that was given back.
      invoice_id uuid not null,
      link_version int not null,
      reported_at timestamptz not null,
      lifted_at timestamptz,
      primary key (merchant_id, customer_id, phone_digest),
      foreign key (merchant_id, customer_id) references customers (merchant_id, id)
    );

    -- Wrong answers within the hour.
    create table failed_checks (
      merchant_id int not null references merchants (id),
      -- Keyed digest of the network that they came from; empty: all of the merchant's together.
      network_digest bytea not null,
      tries int not null,
      since timestamptz not null,
      last_at timestamptz not null,
      cool_until timestamptz,
      primary key (merchant_id, network_digest)
    );
    ${ofOneMerchant(['wrong_persons', 'failed_checks'], {
      wrong_persons: 'select, insert, update (invoice_id, link_version, reported_at, lifted_at)',
      failed_checks: 'select, insert, update, delete',
      // A new link that a visitor asked for, and the SMS that will carry it.
      links: 'insert',
      messages: 'insert',
    })}
  `);
}
