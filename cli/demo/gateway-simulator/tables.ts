import type { Pool } from 'pg';

/** The simulator's own truth. It makes its tables itself: it is a foreign system and shares no migration with Seikyu. */
export async function createTables(pool: Pool): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    // Two simulators starting at once on one database must not both create.
    await client.query(`select pg_advisory_xact_lock(hashtext('gateway_simulator.tables'))`);
    await client.query(DEFINITIONS);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  } finally {
    client.release();
  }
}

const DEFINITIONS = `
create schema if not exists gateway_simulator;

create table if not exists gateway_simulator.charges (
  sequence bigint generated always as identity primary key,
  id text not null unique,
  account text not null,
  reference text not null,
  state text not null check (state in ('succeeded', 'failed')),
  origin text not null check (origin in ('off_session', 'hosted_page')),
  amount bigint not null check (amount > 0),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  network text,
  last_four text,
  gateway_code text,
  network_code text,
  advice_code text,
  saved_token text,
  created_at timestamptz not null,
  captured_at timestamptz check ((captured_at is not null) = (state = 'succeeded'))
);
-- Money is taken at most once per reference, whatever races.
create unique index if not exists one_capture_per_reference
  on gateway_simulator.charges (account, reference) where state = 'succeeded';
alter table gateway_simulator.charges add column if not exists invoice_id text;
alter table gateway_simulator.charges add column if not exists method text not null default 'card';
alter table gateway_simulator.charges drop constraint if exists charges_origin_check;
alter table gateway_simulator.charges add constraint charges_origin_check
  check (origin in ('off_session', 'hosted_page', 'counter'));
create index if not exists charges_by_reference on gateway_simulator.charges (account, reference);
create index if not exists captures_by_day
  on gateway_simulator.charges (account, captured_at, sequence) where state = 'succeeded';

create table if not exists gateway_simulator.hosted_pages (
  id text primary key,
  account text not null,
  reference text not null,
  fingerprint text not null,
  state text not null check (state in ('open', 'challenge', 'paid', 'cancelled', 'closed', 'expired')),
  amount bigint not null,
  currency text not null,
  return_url text not null,
  language text not null,
  merchant_name text not null,
  save_method boolean not null,
  expires_at timestamptz not null,
  challenge_id text,
  challenge_card text,
  challenge_card_expires text,
  unique (account, reference)
);
alter table gateway_simulator.hosted_pages add column if not exists invoice_id text;
alter table gateway_simulator.hosted_pages add column if not exists method text not null default 'card';
-- A page on which a card is kept and nothing paid: what was kept, or how the last card typed there was declined.
alter table gateway_simulator.hosted_pages add column if not exists setup boolean not null default false;
alter table gateway_simulator.hosted_pages add column if not exists saved_token text;
alter table gateway_simulator.hosted_pages add column if not exists declined jsonb;
create unique index if not exists hosted_pages_by_challenge on gateway_simulator.hosted_pages (challenge_id);

-- No card number is kept: the name of the test card says what the saved card does.
create table if not exists gateway_simulator.saved_cards (
  token text primary key,
  account text not null,
  card_name text not null,
  brand text not null,
  last_four text not null,
  expires text not null,
  network_transaction_id text not null,
  three_ds_eci text,
  calls int not null default 0
);

-- What a saved card has become: told the same way however often it is asked for.
create table if not exists gateway_simulator.card_successors (
  token text primary key references gateway_simulator.saved_cards (token),
  successor text not null references gateway_simulator.saved_cards (token)
);

create table if not exists gateway_simulator.idempotency_keys (
  account text not null,
  key text not null,
  fingerprint text not null,
  status int not null,
  body jsonb not null,
  created_at timestamptz not null,
  primary key (account, key)
);

create table if not exists gateway_simulator.refunds (
  sequence bigint generated always as identity primary key,
  id text not null unique,
  account text not null,
  reference text not null,
  charge_id text not null references gateway_simulator.charges (id),
  charge_reference text not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  refunded_at timestamptz not null,
  unique (account, reference)
);
create index if not exists refunds_by_charge on gateway_simulator.refunds (charge_id);
create index if not exists refunds_by_day on gateway_simulator.refunds (account, refunded_at, sequence);

-- A barcode paid at a register. Final at its time, unless it was cancelled before.
create table if not exists gateway_simulator.counter_payments (
  id text primary key,
  account text not null,
  reference text not null,
  barcode text not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  shop text not null,
  paid_at timestamptz not null,
  final_at timestamptz not null,
  cancelled_at timestamptz check (cancelled_at < final_at),
  captured boolean not null default false,
  unique (account, reference)
);
create index if not exists counter_payments_to_capture on gateway_simulator.counter_payments (final_at)
  where not captured and cancelled_at is null;
create index if not exists counter_payments_by_account on gateway_simulator.counter_payments (account, paid_at);

create table if not exists gateway_simulator.webhooks (
  id text not null primary key,
  account text not null,
  reference text not null,
  kind text not null,
  created_at timestamptz not null,
  copies int not null,
  due_at timestamptz,
  attempts int not null default 0,
  settled text check (settled in ('delivered', 'gave_up', 'suppressed'))
);
create index if not exists webhooks_due on gateway_simulator.webhooks (due_at) where settled is null;
`;
