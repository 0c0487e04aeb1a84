import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0018-credits-used';

/** A surplus is put on a later bill or given back, and a refund may be asked for by somebody else than a recall. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- Put on later bills. With what was given back, or perhaps given back, never more than was taken.
    alter table payments add column reused bigint not null default 0;
    alter table payments add constraint payments_spent_at_most check (reused >= 0 and refunded + reused <= amount);

    -- One row for each credit that was put on a bill.
    create table credit_uses (
      merchant_id int not null,
      -- Its entry in the ledger, and the cause of what the merchant is told.
      id uuid not null,
      payment_id uuid not null,
      invoice_id uuid not null,
      amount bigint not null check (amount > 0),
      used_at timestamptz not null,
      -- The bill was taken back: the credit is free again.
      returned_at timestamptz,
      primary key (merchant_id, id),
      foreign key (merchant_id, payment_id) references credits (merchant_id, payment_id),
      foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
    );
    create unique index credit_uses_one_standing on credit_uses (merchant_id, payment_id, invoice_id) where returned_at is null;
    create index credit_uses_by_invoice on credit_uses (merchant_id, invoice_id);

    alter table refunds alter column recall_id drop not null;
    -- Who asked for it and why, where no recall did.
    alter table refunds add column asked_by text;
    alter table refunds add column reason text;
    alter table refunds add constraint refunds_asked_for
      check (recall_id is not null or (asked_by is not null and reason is not null));
    ${ofOneMerchant(['credit_uses'], {})}
  `);
}
