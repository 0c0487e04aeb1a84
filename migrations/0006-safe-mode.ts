import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0006-safe-mode';

/**
 * How a database notices that it was put back to an older state, and what is still to be learned after that. The first
 * three tables are of no merchant: the database is one.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- Who this database is: a server that differs was restored or took over.
    create table database_identity (
      id int primary key check (id = 1),
      database_id uuid not null,
      -- Null where the server does not tell.
      system_identifier text,
      timeline bigint
    );

    -- One row for each process, which goes on counting in it. A count known outside and not here is a past that was lost.
    create table process_lives (
      life bigint generated always as identity primary key,
      nonce uuid not null,
      beats bigint not null,
      beat_at timestamptz not null
    );

    -- While one is open nothing leaves the building: safe mode.
    create table restores (
      id uuid primary key,
      began_at timestamptz not null,
      begun_by text not null,
      why text not null,
      -- What happened outside from then on may be forgotten here.
      forgotten_from timestamptz not null,
      ended_at timestamptz,
      ended_by text,
      -- Why it was ended although something was left.
      accepted text
    );
    create unique index restores_one_open on restores ((ended_at is null)) where ended_at is null;
    grant select on restores to seikyu_web;

    create table restore_steps (
      merchant_id int not null references merchants (id),
      restore_id uuid not null,
      step text not null check (step in ('files', 'messages', 'charges', 'told')),
      -- 'done': the outside's list was read to its end, reached far enough, and everything in it is known here now.
      state text not null check (state in ('open', 'done')),
      counts jsonb not null,
      -- Why it is open, in a sentence.
      left_over text,
      at timestamptz not null,
      primary key (merchant_id, restore_id, step)
    );
    ${ofOneMerchant(['restore_steps'], {})}
  `);
}
