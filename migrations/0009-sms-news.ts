import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0009-sms-news';

/** What became of an SMS after the carrier took it, and who wants none. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- Whom it was claimed for, by keyed digest.
    alter table messages add column phone_digest bytea;
    -- The carrier's latest word; it only ever moves up. Null: none came, or the carrier sends none.
    alter table messages add column delivery text
      check (delivery in ('queued', 'sending', 'sent', 'failed', 'undelivered', 'delivered'));
    alter table messages add column delivery_at timestamptz;
    -- Why the phone was not reached, where the carrier said so; its own code stands in code.
    alter table messages add column unreached text
      check (unreached in ('not_mobile', 'blocked', 'undelivered', 'opted_out'));
    create index messages_by_phone on messages (merchant_id, phone_digest, claimed_at) where phone_digest is not null;

    -- The inbox of callbacks: kept until it is handled and then gone, for what it said stands on the message.
    create table sms_callbacks (
      merchant_id int not null references merchants (id),
      carrier text not null,
      provider_id text not null,
      delivery text not null,
      invoice_id uuid not null,
      step text not null,
      code text,
      unreached text,
      received_at timestamptz not null,
      primary key (merchant_id, carrier, provider_id, delivery)
    );

    -- One row for each phone that ever said stop; it wants none while it has not said start after that.
    create table opt_outs (
      merchant_id int not null references merchants (id),
      phone_digest bytea not null,
      carrier text not null,
      learned_by text not null check (learned_by in ('answer', 'carrier')),
      opted_out_at timestamptz not null,
      opted_in_at timestamptz,
      primary key (merchant_id, phone_digest)
    );
    ${ofOneMerchant(['sms_callbacks', 'opt_outs'], {
      // The update is only to lock rows that another process may be handling.
      sms_callbacks: 'select, insert, update (received_at), delete',
      opt_outs: 'select, insert, update',
      messages: 'update (carrier, provider_id, claimed_at, ask_at, delivery, delivery_at, unreached)',
    })}
  `);
}
