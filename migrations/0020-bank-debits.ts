import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0020-bank-debits';

/** Bank accounts are debited by files: what was asked of the agency, and what it answered. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- A debit is asked for days before its day: act_on is the day to ask, debit_on the day that is asked for.
    alter table agenda drop constraint agenda_act_check;
    alter table agenda add column debit_on date;
    alter table agenda add constraint agenda_act_check check
      (act in ('charge', 'dun') and debit_on is null or act = 'debit' and debit_on is not null);

    alter table outward_files drop constraint outward_files_kind_check;
    alter table outward_files add constraint outward_files_kind_check check (kind in
      ('receipt', 'result', 'enrolment', 'unreached', 'settlement', 'adjustment', 'tieout', 'debit'));

    -- When an account was first asked for: banks look at it once more than at the others.
    alter table payment_methods add column first_debit_on date;
    create index enrolments_by_contract on enrolments (merchant_id, contract_id);

    -- A file that asks for debits of one day.
    create table debit_requests (
      merchant_id int not null,
      file_id uuid not null,
      debit_on date not null,
      consignor_code text not null,
      bank text not null,
      -- The last day on which its result is in time.
      result_due_on date not null,
      state text not null check (state in ('asked', 'answered')),
      version int not null,
      primary key (merchant_id, file_id),
      foreign key (merchant_id, file_id) references outward_files (merchant_id, id)
    );
    create index debit_requests_open on debit_requests (merchant_id, result_due_on) where state = 'asked';

    -- Its records, by the number under which the bank answers.
    create table debit_lines (
      merchant_id int not null,
      file_id uuid not null,
      line_no int not null,
      charge_id uuid not null,
      customer_key text not null,
      -- Of bank, branch, type and number of the account.
      account_digest bytea not null,
      amount bigint not null check (amount > 0),
      primary key (merchant_id, file_id, line_no),
      unique (merchant_id, charge_id),
      unique (merchant_id, customer_key, file_id),
      foreign key (merchant_id, file_id) references debit_requests (merchant_id, file_id),
      foreign key (merchant_id, charge_id) references charges (merchant_id, id)
    );

    -- A file that answers: taken, found to fit its request, booked; or held for a person.
    create table debit_results (
      merchant_id int not null references merchants (id),
      id uuid not null,
      name text not null,
      sha256 text not null,
      size_bytes bigint not null,
      archive_path text not null,
      fetched_at timestamptz not null,
      state text not null check (state in ('fetched', 'matched', 'booked', 'held', 'dismissed')),
      version int not null,
      -- Null: it is not known yet which request it answers.
      request_id uuid,
      -- Of a held one: why, and where.
      reason text,
      record int,
      records bigint,
      -- A person has said that it may be booked beside what was answered before.
      accepted boolean not null default false,
      settled_at timestamptz,
      primary key (merchant_id, id),
      unique (merchant_id, sha256),
      foreign key (merchant_id, request_id) references debit_requests (merchant_id, file_id)
    );
    create index debit_results_open on debit_results (merchant_id, id) where state in ('fetched', 'matched', 'held');

    -- Its records, from reading to booking: what is booked is removed.
    create table debit_answers (
      merchant_id int not null,
      result_id uuid not null,
      record_no int not null,
      customer_key text not null,
      account_digest bytea not null,
      amount bigint not null,
      code text not null,
      primary key (merchant_id, result_id, record_no),
      foreign key (merchant_id, result_id) references debit_results (merchant_id, id)
    );
    ${ofOneMerchant(['debit_requests', 'debit_lines', 'debit_results', 'debit_answers'], {})}
  `);
}
