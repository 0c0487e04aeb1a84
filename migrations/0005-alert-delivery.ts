import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0005-alert-delivery';

/** Alerts are sent, sent again while nobody has seen to them, and closed by themselves where it is proven to be over. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    alter table alerts add column acknowledged_by text;
    -- Set where the program has proof that it is over; an alert is open while neither this nor acknowledged_at is.
    alter table alerts add column resolved_at timestamptz;
    alter table alerts add column resolution text;
    -- How often it was sent while it was for a person now, and when last.
    alter table alerts add column notices int not null default 0;
    alter table alerts add column noticed_at timestamptz;
    drop index alerts_one_open_per_cause;
    create unique index alerts_one_open_per_cause on alerts (merchant_id, cause)
      where acknowledged_at is null and resolved_at is null;

    -- One notice to one channel: the intent to send it, and what became of that.
    create table alert_deliveries (
      -- 0 = the digest, and alerts that are not of one merchant.
      merchant_id int not null,
      -- What a receiver knows a repeated one by: <alert>.<number>, digest.<date>.
      notice text not null,
      channel text not null check (channel in ('webhook', 'mail')),
      -- Null: a digest of what was open at as_of.
      alert_id uuid,
      as_of timestamptz not null,
      state text not null check (state in ('open', 'sent', 'dropped')),
      attempts int not null default 0,
      try_at timestamptz not null,
      lease_until timestamptz,
      decided_at timestamptz,
      failure text,
      primary key (merchant_id, notice, channel)
    );
    create unique index alert_deliveries_one_open on alert_deliveries (merchant_id, alert_id, channel) where state = 'open';
    create index alert_deliveries_to_send on alert_deliveries (merchant_id, channel, try_at) where state = 'open';

    create index checkout_sessions_open on checkout_sessions (merchant_id, expires_at) where state = 'open';
    ${ofOneMerchant(['alert_deliveries'], { alerts: 'update (level)' })}
  `);
}
