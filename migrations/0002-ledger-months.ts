import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0002-ledger-months';

/** Closing months, payouts, and books that no role of the application can change afterwards. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(months);
  await knex.raw(payouts);
  await knex.raw(
    ofOneMerchant(
      ['ledger_heads', 'closed_months', 'closed_month_accounts', 'payouts', 'payout_lines', 'payout_checks'],
      {
        // Every posting locks the head for share, which takes the right to update one column: this one means nothing.
        ledger_heads: 'select, update (locked_only)',
      },
    ),
  );
  await knex.raw(appendOnly);
}

const months = `
-- Where a merchant's ledger takes rows: every posting reads it under a share lock, closing a month moves it.
create table ledger_heads (
  merchant_id int not null references merchants (id),
  first_month date not null check (extract(day from first_month) = 1),
  open_from date not null check (extract(day from open_from) = 1),
  locked_only boolean not null default true,
  primary key (merchant_id),
  check (open_from >= first_month)
);
insert into ledger_heads (merchant_id, first_month, open_from)
select m.id, f.first_month, f.first_month
from merchants m
join merchant_settings s on s.merchant_id = m.id and s.version = m.settings_version
cross join lateral (
  select least(date_trunc('month', m.created_at at time zone (s.settings ->> 'timezone'))::date,
               (select min(t.closing_month) from transfers t where t.merchant_id = m.id)) as first_month
) f;

-- A month as it was frozen: nothing enters it any more.
create table closed_months (
  merchant_id int not null references merchants (id),
  month date not null,
  transfers bigint not null,
  amount bigint not null,
  closed_at timestamptz not null,
  closed_by text not null,
  act_id uuid not null,
  primary key (merchant_id, month)
);
-- No foreign key to the month: it would lock the month's row, and nobody has the right to lock what nobody may change.
create table closed_month_accounts (
  merchant_id int not null references merchants (id),
  month date not null,
  account text not null,
  currency text not null,
  debit bigint not null,
  credit bigint not null,
  -- Of all months up to this one, debit-positive.
  balance bigint not null,
  primary key (merchant_id, month, account, currency)
);
-- Rows come in the order of time: this one costs next to nothing, and spares reading years to close a month.
create index transfers_by_closing_month on transfers using brin (closing_month);
`;

const payouts = `
create table payouts (
  merchant_id int not null references merchants (id),
  -- Ours, and the entry in the ledger; the gateway's own is payout_id.
  id uuid not null,
  gateway text not null,
  payout_id text not null,
  value_on date not null,
  currency text not null,
  gross bigint not null,
  fee bigint not null,
  fee_tax bigint not null,
  net bigint not null,
  lines bigint not null,
  state text not null check (state in ('withheld', 'posted', 'withdrawn')),
  version int not null,
  stored_at timestamptz not null,
  posted_at timestamptz,
  outward_file_id uuid,
  primary key (merchant_id, id),
  unique (merchant_id, gateway, payout_id),
  foreign key (merchant_id, outward_file_id) references outward_files (merchant_id, id)
);
create index payouts_unfiled on payouts (merchant_id, value_on) where outward_file_id is null;

create table payout_lines (
  merchant_id int not null,
  payout_id uuid not null,
  line_no int not null,
  gateway_charge_id text not null,
  reference text,
  -- The payment that it is for, where we have one.
  charge_id uuid,
  kind text not null check (kind in ('charge', 'refund')),
  amount bigint not null,
  currency text not null,
  fee bigint not null,
  fee_tax bigint not null,
  finding text not null check (finding in ('matched', 'unreported', 'missing_here', 'captured_twice', 'unexpected_kind',
    'currency_differs', 'amount_differs', 'fee_differs', 'payout_differs')),
  -- What the two sides say, where the finding is of an amount.
  ours bigint,
  theirs bigint,
  primary key (merchant_id, payout_id, line_no),
  foreign key (merchant_id, payout_id) references payouts (merchant_id, id)
);
create index payout_lines_by_charge on payout_lines (merchant_id, charge_id);

-- Up to which day payments have been looked for in payouts.
create table payout_checks (
  merchant_id int not null references merchants (id),
  gateway text not null,
  checked_to date not null,
  primary key (merchant_id, gateway)
);
`;

/** From the owner too, who has these rights without being granted them and loses them like anybody else. */
const appendOnly = `
revoke update, delete, truncate on transfers, closed_months, closed_month_accounts, state_history, acts
  from current_user, seikyu_web;
`;
