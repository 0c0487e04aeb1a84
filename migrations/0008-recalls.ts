import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0008-recalls';

/** Wrong files that were taken back, and money that was given back for them. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(recalls);
  await knex.raw(refunds);
  await knex.raw(ofOneMerchant(['recalls', 'recall_bills', 'refunds'], {}));
}

const recalls = `
create table recalls (
  merchant_id int not null references merchants (id),
  id uuid not null,
  file_id uuid not null,
  state text not null check (state in ('running', 'done')),
  version int not null,
  -- What the person typed back, and the file had.
  bills bigint not null,
  amount bigint not null,
  begun_by text not null,
  begun_at timestamptz not null,
  -- Bills of the file up to this id are in recall_bills.
  entered_to uuid,
  all_entered boolean not null default false,
  ended_at timestamptz,
  primary key (merchant_id, id),
  foreign key (merchant_id, file_id) references billing_files (merchant_id, id),
  check ((state = 'done') = (ended_at is not null))
);
create unique index recalls_one_of_a_file on recalls (merchant_id, file_id);
create index recalls_running on recalls (merchant_id, begun_at) where state = 'running';

-- How far each bill is. While one stands here and is not done, nothing is charged for it and nobody is reminded of it.
create table recall_bills (
  merchant_id int not null,
  invoice_id uuid not null,
  recall_id uuid not null,
  state text not null check (state in ('waiting', 'refunding', 'refused', 'done')),
  outcome text check (outcome in ('cancelled', 'refunded', 'untouched')),
  primary key (merchant_id, invoice_id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, recall_id) references recalls (merchant_id, id),
  check ((state = 'done') = (outcome is not null))
);
create index recall_bills_open on recall_bills (merchant_id, recall_id, state, invoice_id) where state <> 'done';
`;

const refunds = `
-- Given back or perhaps given back: never more than was taken.
alter table payments add column refunded bigint not null default 0;
alter table payments add constraint payments_refunded_at_most check (refunded >= 0 and refunded <= amount);

create table refunds (
  merchant_id int not null,
  -- Its Crockford base32 form is the reference and idempotency key at the gateway.
  id uuid not null,
  charge_id uuid not null,
  invoice_id uuid not null,
  recall_id uuid not null,
  gateway text not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  state text not null check (state in ('processing', 'unknown', 'succeeded', 'failed', 'canceled')),
  version int not null,
  started_at timestamptz not null,
  -- No call starts after this.
  deadline_at timestamptz not null,
  ask_at timestamptz not null,
  asks int not null default 0,
  gateway_refund_id text,
  code text,
  decided_at timestamptz,
  primary key (merchant_id, id),
  foreign key (merchant_id, charge_id) references charges (merchant_id, id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, recall_id) references recalls (merchant_id, id)
);
-- While the outcome of one is not known, no other begins.
create unique index refunds_one_open on refunds (merchant_id, charge_id) where state in ('processing', 'unknown');
create index refunds_to_ask on refunds (merchant_id, ask_at) where state in ('processing', 'unknown');
create index refunds_by_charge on refunds (merchant_id, charge_id);
create index refunds_by_recall on refunds (merchant_id, recall_id, state);
`;
