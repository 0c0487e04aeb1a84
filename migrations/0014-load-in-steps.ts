import type { Knex } from 'knex';

export const name = '0014-load-in-steps';

/** A file's customers are loaded ahead of its bills, and these ahead of what hangs on them. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    alter table billing_files
      -- Up to here customers, contracts and contacts stand; then the bills; up to loaded_to_record everything.
      add column customers_to_record bigint not null default 0,
      add column bills_to_record bigint not null default 0;
    update billing_files set customers_to_record = loaded_to_record, bills_to_record = loaded_to_record;
    alter table billing_files
      add check (customers_to_record >= bills_to_record and bills_to_record >= loaded_to_record);
  `);
}
