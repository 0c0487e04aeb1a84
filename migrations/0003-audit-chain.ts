import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0003-audit-chain';

/** Acts from before the chain are queued: it begins with them. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
-- One entry for each act that was sealed, chained by hash. Never edited, never deleted.
create table audit_log (
  merchant_id int not null,
  -- Of sealing, never before that of the entry before: months grow with numbers.
  month date not null,
  no bigint not null check (no > 0),
  act_id uuid not null,
  kind text not null,
  actor text not null,
  at timestamptz not null,
  sealed_at timestamptz not null,
  -- Rows of the act in acts, transfers and state_history when it was sealed, and their SHA-256.
  acts_count int not null,
  acts_sha256 bytea not null,
  transfers_count int not null,
  transfers_sha256 bytea not null,
  history_count int not null,
  history_sha256 bytea not null,
  previous bytea not null,
  hash bytea not null,
  primary key (merchant_id, no, month)
);
-- The newest entry of an act is the one that its rows are compared with.
create index audit_log_by_act on audit_log (merchant_id, act_id, no);

create table audit_heads (
  merchant_id int primary key references merchants (id),
  month date not null,
  no bigint not null,
  hash bytea not null
);

-- Acts with rows that no entry covers yet: written with the rows, taken out with the entry.
create table unsealed_acts (
  merchant_id int not null,
  act_id uuid not null,
  kind text not null,
  actor text not null,
  at timestamptz not null,
  primary key (merchant_id, act_id)
);

create index acts_by_id on acts (merchant_id, id);
create index transfers_by_act on transfers (merchant_id, act_id);
create index state_history_by_act on state_history (merchant_id, act_id);

${ofOneMerchant(['audit_log', 'audit_heads', 'unsealed_acts'], {
  // A later transaction of the same act finds its row there.
  unsealed_acts: 'select, insert, update (at)',
})}
revoke update, delete, truncate on audit_log from current_user;

insert into unsealed_acts (merchant_id, act_id, kind, actor, at)
select merchant_id, id, min(kind), min(actor), min(at) from acts group by merchant_id, id;
`);
}
