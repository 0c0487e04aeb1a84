import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0013-charge-runs';

/** Charging by many processes: what operators say of it, and what all processes know of a gateway. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- An operator's word: a pause holds a job on every day until it is resumed, a stop ends it for one day.
    create table run_halts (
      merchant_id int not null references merchants (id),
      job text not null,
      business_date date not null,
      kind text not null check (kind in ('pause', 'stop')),
      halted_at timestamptz not null,
      halted_by text not null,
      primary key (merchant_id, job, business_date)
    );

    -- A plan that a person has seen and approved: so many charges of so much, on one day.
    create table charge_approvals (
      merchant_id int not null references merchants (id),
      business_date date not null,
      approval_no int not null,
      charges bigint not null check (charges > 0),
      amount bigint not null check (amount > 0),
      approved_at timestamptz not null,
      approved_by text not null,
      primary key (merchant_id, business_date, approval_no)
    );
    -- Which bills those were: what comes later needs an approval of its own. Swept after some weeks. A million of them are
    -- written with one statement, so no foreign key looks at each.
    create table approved_charges (
      merchant_id int not null,
      business_date date not null,
      invoice_id uuid not null,
      approval_no int not null,
      primary key (merchant_id, business_date, invoice_id)
    );

    -- What all processes know of a merchant's account at a gateway: how fast it takes charges, and whether it answers.
    create table gateway_states (
      merchant_id int not null references merchants (id),
      gateway text not null,
      -- Null: as fast as the settings allow.
      pace_per_second double precision check (pace_per_second > 0),
      slowed_at timestamptz,
      -- Calls in a row without one conclusive answer.
      silent int not null default 0 check (silent >= 0),
      -- Null: it answers.
      opened_at timestamptz,
      probe_at timestamptz,
      rest_seconds int,
      primary key (merchant_id, gateway),
      check ((opened_at is null) = (probe_at is null) and (opened_at is null) = (rest_seconds is null))
    );

    -- When it ended, by the clock of leases: how far a pass is, and how fast.
    alter table chunks add column finished_at timestamptz;
    -- What was to be charged on a day, also what is settled by now.
    create index invoices_by_debit_day on invoices (merchant_id, debit_on) where collection = 'auto';
    ${ofOneMerchant(['run_halts', 'charge_approvals', 'approved_charges', 'gateway_states'], {})}
  `);
}
