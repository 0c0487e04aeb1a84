import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0022-card-changes';

const open = `state in ('processing', 'requires_action', 'unknown')`;

/** A customer asks, from the link of a bill, that automatic payment takes another card. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    create table card_changes (
      merchant_id int not null,
      -- Its Crockford base32 form is the reference at the gateway.
      id uuid not null,
      contract_id uuid not null,
      -- The agreement whose card is to change: only while it stands does a kept card change anything.
      enrolment_id uuid not null,
      -- What came of it.
      new_enrolment_id uuid,
      -- The link that it was asked from.
      invoice_id uuid not null,
      link_version int not null,
      gateway text not null,
      state text not null check (state in
        ('processing', 'requires_action', 'unknown', 'succeeded', 'failed', 'canceled')),
      version int not null,
      terms_version text not null,
      -- Also when the terms were accepted.
      started_at timestamptz not null,
      -- No call starts after this.
      deadline_at timestamptz not null,
      page_ends_at timestamptz not null,
      page_url text,
      gateway_session_id text,
      code text,
      learned_by text check (learned_by in ('live', 'webhook', 'return', 'trace')),
      decided_at timestamptz,
      -- When trace asks the gateway next.
      ask_at timestamptz not null,
      asks int not null default 0,
      primary key (merchant_id, id),
      foreign key (merchant_id, contract_id) references contracts (merchant_id, id),
      foreign key (merchant_id, enrolment_id) references enrolments (merchant_id, id),
      foreign key (merchant_id, new_enrolment_id) references enrolments (merchant_id, id),
      foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
      check ((state = 'succeeded') = (new_enrolment_id is not null)),
      check ((${open}) = (decided_at is null))
    );
    -- Two tabs, or a double click, lead to one page.
    create unique index card_changes_one_open on card_changes (merchant_id, contract_id) where ${open};
    create index card_changes_to_ask on card_changes (merchant_id, ask_at) where ${open};
    ${ofOneMerchant(['card_changes'], {
      card_changes:
        'select, insert, update (new_enrolment_id, state, version, page_url, gateway_session_id, code, learned_by, decided_at, ask_at, asks)',
    })}
  `);
}
