import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0007-kinds-gates-adjustments';

/** Holds, agreements that come by file, held files, bills that look wrong, and what happens after a final result. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(holds);
  await knex.raw(enrolments);
  await knex.raw(files);
  await knex.raw(bills);
  await knex.raw(adjustments);
  await knex.raw(
    ofOneMerchant(['holds', 'adjustment_rows'], {
      // Money that comes late is learned by webhooks and on the pay page, too.
      adjustment_rows: 'select, insert',
    }),
  );
}

const holds = `
-- A reason not to charge or remind for a while. Never changed but to be lifted: what was true when a charge began stays true.
create table holds (
  merchant_id int not null,
  id uuid not null,
  customer_id uuid not null,
  -- Null: all contracts of the customer.
  contract_id uuid,
  reason text not null check (reason in
    ('dispute', 'hardship', 'disaster', 'deceased', 'bankruptcy', 'legal_representative', 'paid_elsewhere')),
  -- The last day; null: until it is lifted.
  until_on date,
  placed_at timestamptz not null,
  -- The file that brought it; null: a person.
  file_id uuid,
  lifted_at timestamptz,
  primary key (merchant_id, id),
  foreign key (merchant_id, customer_id) references customers (merchant_id, id),
  foreign key (merchant_id, contract_id) references contracts (merchant_id, id),
  foreign key (merchant_id, file_id) references billing_files (merchant_id, id)
);
create unique index holds_one_standing on holds (merchant_id, customer_id, contract_id, reason) nulls not distinct
  where lifted_at is null;
`;

const enrolments = `
-- An agreement that came by file has no bill yet: the first one under it brings the name.
alter table enrolments alter column name_digest drop not null;
create index enrolments_nameless on enrolments (merchant_id, contract_id) where state = 'active' and name_digest is null;
`;

const files = `
-- With count and total: whether a file is an earlier one, written anew.
alter table billing_files add column first_number text;
alter table billing_files add column last_number text;
-- Reasons for holding it that a person has set aside.
alter table billing_files add column waived text[] not null default '{}';
create index billing_files_by_content on billing_files (merchant_id, lines_read, amount_trailer)
  where kind = 'billing' and state in ('loading', 'released');
drop index billing_files_waiting;
create index billing_files_waiting on billing_files (merchant_id, fetched_at) where state in ('fetched', 'loading', 'held');
drop table staged_cancels;

-- Grows with each change, as with everything that has a history: a delivered file may be delivered again.
alter table outward_files add column version int not null default 1;
update outward_files set version = 2 where state = 'delivered';
`;

const bills = `
-- What only standard/2 tells of a bill: contract, days of use, the bill it corrects, tax lines.
alter table staged_bills add column details jsonb;
alter table invoices add column usage_from date;
alter table invoices add column usage_to date;
create index invoices_replacing on invoices (merchant_id, file_id) where replaces_id is not null;
-- A contract's bills one beside the other, with what the gate compares: read for every line of a file.
create index invoices_by_contract on invoices (merchant_id, customer_id, contract_id, billing_period) include (amount);
drop index invoices_by_customer;
`;

const adjustments = `
-- What happens after a final result. Written at the transition; numbered when a file claims it, so that numbers have no gap.
create table adjustment_rows (
  merchant_id int not null,
  -- The charge, or what else moved the money.
  cause_id uuid not null,
  kind text not null check (kind in ('late_payment', 'overpayment', 'refund', 'chargeback', 'reversal')),
  invoice_id uuid not null,
  amount bigint not null check (amount > 0),
  sign text not null check (sign in ('+', '-')),
  collected_on date not null,
  known_at timestamptz not null,
  number bigint,
  outward_file_id uuid,
  row_no int,
  primary key (merchant_id, cause_id, kind),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, outward_file_id) references outward_files (merchant_id, id),
  check ((number is null) = (outward_file_id is null) and (number is null) = (row_no is null))
);
create unique index adjustment_rows_once_by_number on adjustment_rows (merchant_id, number) where number is not null;
create index adjustment_rows_unfiled on adjustment_rows (merchant_id) where outward_file_id is null;
insert into adjustment_rows (merchant_id, cause_id, kind, invoice_id, amount, sign, collected_on, known_at)
select t.merchant_id, p.id, case t.event when 'overpaid' then 'overpayment' else 'late_payment' end, p.invoice_id, p.amount, '+',
       p.collected_on, p.known_at
from transfers t join payments p on p.merchant_id = t.merchant_id and p.id = t.entry_id
where t.event in ('overpaid', 'paid_after_return');
`;
