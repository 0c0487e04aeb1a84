import type { Knex } from 'knex';

export const name = '0001-the-billing-day';

/**
 * `merchant_id` leads every key: no row of another merchant can be reached by id, and every table can be distributed
 * or partitioned by it. Append-only tables carry their month in the key so that they can be dropped by month.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(clock);
  await knex.raw(merchants);
  await knex.raw(customers);
  await knex.raw(files);
  await knex.raw(invoices);
  await knex.raw(messages);
  await knex.raw(payments);
  await knex.raw(ledger);
  await knex.raw(results);
  await knex.raw(runs);
  await knex.raw(reconciliation);
  await knex.raw(rowSecurity);
}

const clock = `
create table virtual_clock (
  id int primary key check (id = 1),
  virtual_now timestamptz not null,
  -- Set while 'up' serves a demo's data: the clock then runs on from virtual_now.
  ticking_since timestamptz
);

-- Leases and heartbeats alone: the database's clock, or the virtual one in simulation and demo.
create function seikyu_now() returns timestamptz language sql stable as $$
  select coalesce(
    (select virtual_now + coalesce(clock_timestamp() - ticking_since, interval '0') from virtual_clock where id = 1),
    clock_timestamp()
  )
$$;
`;

const merchants = `
create table merchants (
  id int primary key,
  code text not null unique,
  -- The first characters of every pay link's token.
  short_code text not null unique,
  settings_version int not null,
  created_at timestamptz not null
);

create table merchant_settings (
  merchant_id int not null references merchants (id),
  version int not null,
  settings jsonb not null,
  sha256 text not null,
  applied_at timestamptz not null,
  primary key (merchant_id, version)
);

-- Gapless numbers: taken in the transaction that uses them.
create table merchant_counters (
  merchant_id int not null references merchants (id),
  name text not null,
  value bigint not null,
  primary key (merchant_id, name)
);

-- Who or what changed something: one row per job chunk, webhook, visit or command.
create table acts (
  merchant_id int not null,
  month date not null,
  id uuid not null,
  kind text not null check (kind in ('job', 'visit', 'webhook', 'command')),
  actor text not null,
  at timestamptz not null,
  primary key (merchant_id, month, id)
);

create table state_history (
  merchant_id int not null,
  month date not null,
  subject text not null,
  subject_id uuid not null,
  version int not null,
  from_state text,
  to_state text not null,
  at timestamptz not null,
  act_id uuid not null,
  primary key (merchant_id, month, subject, subject_id, version)
);

create table rate_limits (
  merchant_id int not null,
  name text not null,
  next_slot_at timestamptz not null,
  primary key (merchant_id, name)
);

create table alerts (
  -- 0 = not of one merchant.
  merchant_id int not null,
  id uuid not null,
  level text not null check (level in ('now', 'daily', 'none')),
  cause text not null,
  message text not null,
  occurrences bigint not null,
  first_at timestamptz not null,
  last_at timestamptz not null,
  acknowledged_at timestamptz,
  primary key (merchant_id, id)
);
create unique index alerts_one_open_per_cause on alerts (merchant_id, cause) where acknowledged_at is null;

create table parked_items (
  merchant_id int not null references merchants (id),
  id uuid not null,
  subject text not null,
  subject_id text not null,
  reason text not null,
  context jsonb not null,
  parked_at timestamptz not null,
  resolved_at timestamptz,
  resolution text,
  primary key (merchant_id, id)
);
create unique index parked_items_one_open on parked_items (merchant_id, subject, subject_id) where resolved_at is null;
`;

const customers = `
create table customers (
  merchant_id int not null references merchants (id),
  id uuid not null,
  customer_number text not null,
  -- The newest contact by business date and sequence.
  contact_version int not null,
  created_at timestamptz not null,
  primary key (merchant_id, id),
  unique (merchant_id, customer_number)
);

create table contracts (
  merchant_id int not null,
  -- The default contract of a customer has the customer's id.
  id uuid not null,
  customer_id uuid not null,
  contract_number text not null,
  primary key (merchant_id, id),
  unique (merchant_id, customer_id, contract_number),
  foreign key (merchant_id, customer_id) references customers (merchant_id, id)
);

-- Name, phone and e-mail as one sealed value; the digests answer "is it the same" without opening it.
create table contacts (
  merchant_id int not null,
  customer_id uuid not null,
  version int not null,
  sealed bytea not null,
  key_id smallint not null,
  digest bytea not null,
  name_digest bytea not null,
  phone_digest bytea,
  phone_kind text not null check (phone_kind in ('mobile', 'not_mobile', 'none')),
  business_date date not null,
  sequence int not null,
  created_at timestamptz not null,
  primary key (merchant_id, customer_id, version),
  foreign key (merchant_id, customer_id) references customers (merchant_id, id)
);
`;

const files = `
create table billing_files (
  merchant_id int not null references merchants (id),
  id uuid not null,
  name text not null,
  kind text not null,
  sha256 text not null,
  size_bytes bigint not null,
  checksum_matches boolean not null,
  archive_path text not null,
  layout text not null,
  settings_version int not null,
  state text not null check (state in ('fetched', 'loading', 'released', 'refused', 'held')),
  version int not null default 1,
  file_code text,
  business_date date,
  sequence int,
  lines_read bigint,
  lines_accepted bigint,
  lines_rejected bigint,
  amount_accepted bigint,
  amount_trailer bigint,
  -- Lines staged and lines already made into invoices: where a killed load goes on.
  lines_staged bigint,
  loaded_to_record bigint not null default 0,
  fetched_on date not null,
  fetched_at timestamptz not null,
  removed_at timestamptz,
  settled_at timestamptz,
  -- When every bill of it had its first notice planned.
  notices_planned_at timestamptz,
  primary key (merchant_id, id)
);
create index billing_files_to_plan on billing_files (merchant_id, settled_at)
  where state = 'released' and notices_planned_at is null;
create unique index billing_files_once_by_name on billing_files (merchant_id, name)
  where state in ('loading', 'released', 'held');
create unique index billing_files_once_by_bytes on billing_files (merchant_id, sha256)
  where state in ('loading', 'released', 'held') and lines_read > 0;
create unique index billing_files_once_by_sequence on billing_files (merchant_id, sequence)
  where state in ('loading', 'released');
create unique index billing_files_removal_unfinished on billing_files (merchant_id, name, sha256)
  where removed_at is null;
create index billing_files_waiting on billing_files (merchant_id, fetched_at) where state in ('fetched', 'loading');

create unlogged table staged_bills (
  merchant_id int not null,
  file_id uuid not null,
  record_no int not null,
  line_no int not null,
  billing_number text not null,
  invoice_id uuid not null,
  customer_id uuid not null,
  customer_number text not null,
  sealed bytea not null,
  key_id smallint not null,
  digest bytea not null,
  name_digest bytea not null,
  phone_digest bytea,
  phone_kind text not null,
  amount bigint not null,
  tax_rate smallint not null,
  tax_amount bigint not null,
  billing_period text not null,
  due_on date not null,
  collection text not null,
  debit_on date,
  description text not null
);
create index staged_bills_by_record on staged_bills (merchant_id, file_id, record_no);

create unlogged table staged_cancels (
  merchant_id int not null,
  file_id uuid not null,
  record_no int not null,
  line_no int not null,
  billing_number text not null,
  reason text not null,
  primary key (merchant_id, file_id, record_no)
);

-- What a receipt says about single lines.
create table line_findings (
  merchant_id int not null,
  file_id uuid not null,
  line_no int not null,
  code text not null,
  severity text not null check (severity in ('rejected', 'warning')),
  field text not null,
  billing_number text not null,
  primary key (merchant_id, file_id, line_no, code),
  foreign key (merchant_id, file_id) references billing_files (merchant_id, id)
);

create table outward_files (
  merchant_id int not null references merchants (id),
  id uuid not null,
  kind text not null check (kind in ('receipt', 'result', 'enrolment', 'unreached', 'settlement', 'adjustment', 'tieout')),
  sequence int not null,
  name text not null,
  business_date date not null,
  input_file_id uuid,
  records bigint not null,
  sum bigint not null,
  sha256 text not null,
  size_bytes bigint not null,
  state text not null check (state in ('frozen', 'delivered')),
  frozen_at timestamptz not null,
  -- Set before the rename that makes it visible: afterwards its absence may mean that the merchant took it.
  renaming_at timestamptz,
  delivered_at timestamptz,
  primary key (merchant_id, id),
  unique (merchant_id, kind, sequence),
  unique (merchant_id, name)
);
create unique index outward_files_one_receipt on outward_files (merchant_id, input_file_id) where kind = 'receipt';
create index outward_files_undelivered on outward_files (merchant_id, frozen_at) where state = 'frozen';

create table outward_file_parts (
  merchant_id int not null,
  file_id uuid not null,
  part_no int not null,
  content bytea not null,
  primary key (merchant_id, file_id, part_no),
  foreign key (merchant_id, file_id) references outward_files (merchant_id, id)
);
`;

const invoices = `
create table invoices (
  merchant_id int not null,
  id uuid not null,
  file_id uuid not null,
  line_no int not null,
  billing_number text not null,
  payment_number bigint not null,
  customer_id uuid not null,
  contract_id uuid not null,
  contact_version int not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  billing_period text not null,
  due_on date not null,
  business_date date not null,
  collection text not null check (collection in ('link', 'auto')),
  debit_on date,
  -- Set when dunning also offers a link for an 'auto' bill.
  fell_back_on date,
  description text not null,
  layout text not null,
  settings_version int not null,
  replaces_id uuid,
  state text not null check (state in ('open', 'parked', 'paid', 'unpaid', 'cancelled')),
  version int not null,
  created_at timestamptz not null,
  settled_at timestamptz,
  primary key (merchant_id, id),
  -- The four layers' last: a billing number is unique for the merchant for ever.
  unique (merchant_id, billing_number),
  unique (merchant_id, payment_number),
  foreign key (merchant_id, file_id) references billing_files (merchant_id, id),
  foreign key (merchant_id, contract_id) references contracts (merchant_id, id),
  foreign key (merchant_id, customer_id, contact_version) references contacts (merchant_id, customer_id, version)
) with (fillfactor = 90);
create index invoices_by_file on invoices (merchant_id, file_id);
create index invoices_by_customer on invoices (merchant_id, customer_id);

create table invoice_tax_lines (
  merchant_id int not null,
  invoice_id uuid not null,
  line_no smallint not null,
  description text not null,
  tax_rate smallint not null,
  taxable_amount bigint not null,
  tax_amount bigint not null,
  issuer_registration_number text,
  primary key (merchant_id, invoice_id, line_no),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);

-- What comes next for a bill that is not final, and when: exactly one row for each open one.
create table agenda (
  merchant_id int not null,
  invoice_id uuid not null,
  act text not null check (act in ('charge', 'dun')),
  act_on date not null,
  primary key (merchant_id, invoice_id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);
create index agenda_by_day on agenda (merchant_id, act, act_on, invoice_id);

-- "The results of this way to pay are complete up to this date."
create table watermarks (
  merchant_id int not null references merchants (id),
  method text not null,
  complete_to date not null,
  primary key (merchant_id, method)
);
`;

const messages = `
create table links (
  merchant_id int not null,
  invoice_id uuid not null,
  version int not null,
  key_id smallint not null,
  token_hash bytea not null,
  expires_on date not null,
  dead_reason text,
  wrong_tries int not null default 0,
  cool_until timestamptz,
  primary key (merchant_id, invoice_id, version),
  unique (merchant_id, token_hash),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);

create table messages (
  merchant_id int not null,
  invoice_id uuid not null,
  -- first_notice, reminder:-3bd, failure:2, fallback_link
  step text not null,
  state text not null check (state in ('planned', 'sending', 'sent', 'unknown', 'failed', 'skipped')),
  version int not null,
  link_version int,
  planned_on date not null,
  segments smallint,
  carrier text,
  provider_id text,
  code text,
  claimed_at timestamptz,
  ask_at timestamptz,
  asks int not null default 0,
  decided_at timestamptz,
  primary key (merchant_id, invoice_id, step),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);
create index messages_unsettled on messages (merchant_id, state, planned_on, invoice_id)
  where state in ('planned', 'sending', 'unknown');

-- The carrier 'outbox': its own truth, read by operators only.
create table outbox_messages (
  merchant_id int not null,
  message_id text not null,
  provider_id text not null,
  sealed bytea not null,
  key_id smallint not null,
  accepted_at timestamptz not null,
  primary key (merchant_id, message_id)
);
create index outbox_messages_newest on outbox_messages (accepted_at);
`;

const payments = `
create table payment_methods (
  merchant_id int not null,
  id uuid not null,
  customer_id uuid not null,
  gateway text not null,
  kind text not null check (kind in ('card', 'bank')),
  sealed_token bytea not null,
  key_id smallint not null,
  brand text,
  last_four text,
  expires text,
  network_transaction_id text,
  three_ds_eci text,
  state text not null check (state in ('active', 'ended')),
  created_at timestamptz not null,
  primary key (merchant_id, id),
  foreign key (merchant_id, customer_id) references customers (merchant_id, id)
);

create table enrolments (
  merchant_id int not null,
  id uuid not null,
  customer_id uuid not null,
  contract_id uuid not null,
  payment_method_id uuid not null,
  state text not null check (state in ('active', 'ended')),
  version int not null,
  effective_from date not null,
  -- The customer's name on the first bill under the enrolment, as a digest.
  name_digest bytea not null,
  terms_version text not null,
  source text not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  primary key (merchant_id, id),
  foreign key (merchant_id, contract_id) references contracts (merchant_id, id),
  foreign key (merchant_id, payment_method_id) references payment_methods (merchant_id, id)
);
create unique index enrolments_one_active on enrolments (merchant_id, contract_id) where state = 'active';

create table enrolment_rows (
  merchant_id int not null,
  enrolment_id uuid not null,
  what text not null check (what in ('enrolled', 'changed', 'ended')),
  customer_id uuid not null,
  method text not null check (method in ('card', 'bank')),
  occurred_at timestamptz not null,
  outward_file_id uuid,
  row_no int,
  primary key (merchant_id, enrolment_id, what),
  foreign key (merchant_id, enrolment_id) references enrolments (merchant_id, id),
  foreign key (merchant_id, outward_file_id) references outward_files (merchant_id, id)
);
create index enrolment_rows_unfiled on enrolment_rows (merchant_id) where outward_file_id is null;

create table checkout_sessions (
  merchant_id int not null,
  id uuid not null,
  invoice_id uuid not null,
  link_version int not null,
  state text not null check (state in ('open', 'complete', 'expired')),
  version int not null,
  language text not null,
  enrol boolean not null default false,
  terms_version text,
  terms_accepted_at timestamptz,
  started_at timestamptz not null,
  expires_at timestamptz not null,
  primary key (merchant_id, id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);

create table payment_intents (
  merchant_id int not null,
  id uuid not null,
  invoice_id uuid not null,
  session_id uuid,
  origin text not null check (origin in ('link', 'auto')),
  amount bigint not null check (amount > 0),
  currency text not null,
  state text not null check (state in
    ('requires_payment_method', 'processing', 'requires_action', 'requires_capture', 'succeeded', 'canceled')),
  version int not null,
  created_at timestamptz not null,
  primary key (merchant_id, id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);
create unique index payment_intents_one_auto on payment_intents (merchant_id, invoice_id) where origin = 'auto';

create table charges (
  merchant_id int not null,
  -- Its Crockford base32 form is the reference and idempotency key at the gateway.
  id uuid not null,
  intent_id uuid not null,
  invoice_id uuid not null,
  session_id uuid,
  attempt_no int not null,
  origin text not null check (origin in ('link', 'auto')),
  gateway text not null,
  payment_method_id uuid,
  amount bigint not null check (amount > 0),
  currency text not null,
  state text not null check (state in ('processing', 'requires_action', 'unknown', 'succeeded', 'failed', 'canceled')),
  version int not null,
  business_date date not null,
  started_at timestamptz not null,
  -- No call starts after this.
  deadline_at timestamptz not null,
  hosted_page_url text,
  gateway_session_id text,
  gateway_charge_id text,
  gateway_code text,
  network text,
  network_code text,
  advice_code text,
  verdict text check (verdict in ('retry_at', 'needs_customer', 'never_this_method', 'unknown', 'stop', 'no_rule')),
  verdict_rule jsonb,
  retry_not_before timestamptz,
  learned_by text check (learned_by in ('live', 'webhook', 'return', 'trace', 'report')),
  decided_at timestamptz,
  asks int not null default 0,
  primary key (merchant_id, id),
  unique (merchant_id, invoice_id, attempt_no),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, intent_id) references payment_intents (merchant_id, id),
  foreign key (merchant_id, payment_method_id) references payment_methods (merchant_id, id)
);

-- One row while any way to pay has no conclusive outcome: the lock that makes a second charge impossible.
create table collection_locks (
  merchant_id int not null,
  invoice_id uuid not null,
  charge_id uuid not null,
  locked_at timestamptz not null,
  -- When trace asks the gateway next.
  ask_at timestamptz not null,
  primary key (merchant_id, invoice_id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, charge_id) references charges (merchant_id, id)
);
create index collection_locks_to_ask on collection_locks (merchant_id, ask_at);

create table payments (
  merchant_id int not null,
  -- The charge that brought it.
  id uuid not null,
  invoice_id uuid not null,
  customer_id uuid not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  method text not null check (method in ('card', 'barcode', 'wallet', 'debit')),
  collected_on date not null,
  known_at timestamptz not null,
  primary key (merchant_id, id),
  foreign key (merchant_id, id) references charges (merchant_id, id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);

create table allocations (
  merchant_id int not null,
  payment_id uuid not null,
  invoice_id uuid not null,
  amount bigint not null check (amount > 0),
  primary key (merchant_id, payment_id, invoice_id),
  foreign key (merchant_id, payment_id) references payments (merchant_id, id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id)
);
create index allocations_by_invoice on allocations (merchant_id, invoice_id);

create table credits (
  merchant_id int not null,
  payment_id uuid not null,
  customer_id uuid not null,
  amount bigint not null check (amount > 0),
  reason text not null,
  created_at timestamptz not null,
  primary key (merchant_id, payment_id),
  foreign key (merchant_id, payment_id) references payments (merchant_id, id)
);

create table webhook_events (
  merchant_id int not null references merchants (id),
  gateway text not null,
  event_id text not null,
  reference text not null,
  kind text not null,
  received_at timestamptz not null,
  handled_at timestamptz,
  result text,
  primary key (merchant_id, gateway, event_id)
);
create index webhook_events_unhandled on webhook_events (merchant_id, received_at) where handled_at is null;
`;

const ledger = `
-- Each row moves an amount from one account to another, so the ledger balances by construction. Never edited.
create table transfers (
  merchant_id int not null,
  month date not null,
  -- What belongs together: the invoice released, the charge paid.
  entry_id uuid not null,
  event text not null,
  leg smallint not null,
  debit text not null,
  credit text not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  event_on date not null,
  posted_on date not null,
  closing_month date not null,
  invoice_id uuid,
  customer_id uuid,
  act_id uuid not null,
  primary key (merchant_id, month, entry_id, event, leg),
  check (debit <> credit),
  check (debit in ('receivable', 'billed', 'preliminary', 'gateway_clearing', 'customer_credit', 'returned', 'paid_out', 'fees', 'fee_tax')),
  check (credit in ('receivable', 'billed', 'preliminary', 'gateway_clearing', 'customer_credit', 'returned', 'paid_out', 'fees', 'fee_tax'))
);
create index transfers_by_invoice on transfers (merchant_id, invoice_id);
`;

const results = `
create table result_rows (
  merchant_id int not null,
  invoice_id uuid not null,
  outcome text not null check (outcome in ('pending', 'paid_preliminary', 'preliminary_cancelled', 'paid', 'unpaid', 'cancelled')),
  -- The charge, or the invoice where no charge caused it.
  cause_id uuid not null,
  reason text not null check (reason in ('', 'dunning_ended', 'paper', 'cancelled_by_merchant', 'replaced', 'recalled')),
  method text not null,
  amount bigint not null,
  amount_received bigint not null,
  collected_on date,
  known_at timestamptz not null,
  outward_file_id uuid,
  row_no int,
  primary key (merchant_id, invoice_id, outcome, cause_id),
  foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
  foreign key (merchant_id, outward_file_id) references outward_files (merchant_id, id)
);
-- Exactly one final outcome for each bill.
create unique index result_rows_one_final on result_rows (merchant_id, invoice_id)
  where outcome in ('paid', 'unpaid', 'cancelled');
create index result_rows_unfiled on result_rows (merchant_id) where outward_file_id is null;
create index result_rows_by_file on result_rows (merchant_id, outward_file_id, row_no) where outward_file_id is not null;
`;

const runs = `
create table runs (
  merchant_id int not null references merchants (id),
  job text not null,
  business_date date not null,
  state text not null check (state in ('requested', 'running', 'done', 'failed')),
  pass int not null default 0,
  lease_owner text,
  lease_until timestamptz,
  fence bigint not null default 0,
  requested_at timestamptz not null,
  primary key (merchant_id, job, business_date)
);
create index runs_requested on runs (requested_at) where state = 'requested';

create table run_passes (
  merchant_id int not null,
  job text not null,
  business_date date not null,
  pass int not null,
  owner text not null,
  code_version text not null,
  started_at timestamptz not null,
  finished_at timestamptz,
  outcome text check (outcome in ('done', 'attention', 'failed', 'stopped')),
  counts jsonb not null default '{}',
  failure text,
  primary key (merchant_id, job, business_date, pass),
  foreign key (merchant_id, job, business_date) references runs (merchant_id, job, business_date)
);

create table chunks (
  merchant_id int not null,
  job text not null,
  business_date date not null,
  pass int not null,
  chunk_no int not null,
  payload jsonb not null,
  state text not null check (state in ('ready', 'done', 'parked')),
  lease_owner text,
  lease_until timestamptz,
  -- Grows with every claim: a late worker holds an older one and cannot write.
  fence bigint not null default 0,
  attempts int not null default 0,
  counts jsonb not null default '{}',
  failure text,
  primary key (merchant_id, job, business_date, pass, chunk_no),
  foreign key (merchant_id, job, business_date, pass) references run_passes (merchant_id, job, business_date, pass)
);
create index chunks_ready on chunks (merchant_id, job, business_date, pass, chunk_no) where state = 'ready';
`;

const reconciliation = `
create table settlement_reports (
  merchant_id int not null references merchants (id),
  gateway text not null,
  report_date date not null,
  lines bigint not null,
  amount bigint not null,
  fee bigint not null,
  fee_tax bigint not null,
  stored_at timestamptz not null,
  primary key (merchant_id, gateway, report_date)
);

create table settlement_lines (
  merchant_id int not null,
  gateway text not null,
  report_date date not null,
  line_no int not null,
  gateway_charge_id text not null,
  reference text,
  charge_id uuid,
  kind text not null,
  amount bigint not null,
  currency text not null,
  fee bigint not null,
  fee_tax bigint not null,
  captured_at timestamptz not null,
  finding text not null check (finding in ('unmatched', 'matched', 'differs', 'missing_here')),
  primary key (merchant_id, gateway, report_date, line_no),
  foreign key (merchant_id, gateway, report_date) references settlement_reports (merchant_id, gateway, report_date)
);
create index settlement_lines_by_charge on settlement_lines (merchant_id, charge_id);
`;

const tables = [
  'merchant_settings',
  'merchant_counters',
  'acts',
  'state_history',
  'rate_limits',
  'alerts',
  'parked_items',
  'customers',
  'contracts',
  'contacts',
  'billing_files',
  'staged_bills',
  'staged_cancels',
  'line_findings',
  'outward_files',
  'outward_file_parts',
  'invoices',
  'invoice_tax_lines',
  'agenda',
  'watermarks',
  'links',
  'messages',
  'outbox_messages',
  'payment_methods',
  'enrolments',
  'enrolment_rows',
  'checkout_sessions',
  'payment_intents',
  'charges',
  'collection_locks',
  'payments',
  'allocations',
  'credits',
  'webhook_events',
  'transfers',
  'result_rows',
  'runs',
  'run_passes',
  'chunks',
  'settlement_reports',
  'settlement_lines',
];

/**
 * What the pay page and webhooks may touch; nothing of a merchant other than the one set for the transaction. Amounts,
 * saved cards and what a charge was asked for never change there: only the columns that a transition writes.
 */
const webGrants: Record<string, string> = {
  merchant_settings: 'select',
  acts: 'select, insert',
  state_history: 'select, insert',
  alerts: 'select, insert, update (occurrences, last_at, message)',
  parked_items: 'select, insert, update (resolved_at, resolution)',
  customers: 'select',
  // Only to lock the row: two phones enrolling at once end with one enrolment.
  contracts: 'select, update (contract_number)',
  contacts: 'select',
  billing_files: 'select',
  invoices: 'select, update (state, version, settled_at)',
  invoice_tax_lines: 'select',
  agenda: 'select, update (act, act_on), delete',
  links: 'select, update (dead_reason, wrong_tries, cool_until)',
  messages: 'select, update (state, version, code, decided_at)',
  payment_methods: 'select, insert, update (state)',
  enrolments: 'select, insert, update (state, version, ended_at)',
  enrolment_rows: 'select, insert',
  checkout_sessions: 'select, insert, update (state, version)',
  payment_intents: 'select, insert, update (state, version)',
  charges: `select, insert, update (state, version, hosted_page_url, gateway_session_id, gateway_charge_id, gateway_code,
    network, network_code, advice_code, verdict, verdict_rule, retry_not_before, learned_by, decided_at, asks)`,
  collection_locks: 'select, insert, update (ask_at), delete',
  payments: 'select, insert',
  allocations: 'select, insert',
  credits: 'select, insert',
  webhook_events: 'select, insert, update (handled_at, result)',
  transfers: 'select, insert',
  result_rows: 'select, insert',
};

const rowSecurity = `
do $$ begin
  if not exists (select from pg_roles where rolname = 'seikyu_web') then create role seikyu_web nologin; end if;
exception when duplicate_object or unique_violation then null;
end $$;
grant usage on schema public to seikyu_web;
grant select on virtual_clock to seikyu_web;
grant select on merchants to seikyu_web;
${tables
  .map(
    (table) => `
alter table ${table} enable row level security;
create policy ${table}_of_one_merchant on ${table} to seikyu_web
  using (merchant_id = nullif(current_setting('seikyu.merchant_id', true), '')::int);`,
  )
  .join('')}
${Object.entries(webGrants)
  .map(([table, rights]) => `grant ${rights} on ${table} to seikyu_web;`)
  .join('\n')}
`;
