import type { Knex } from 'knex';

export const name = '0002-ledger-months';

export async function up(knex: Knex): Promise<void> {
  await knex.raw('select 1');
}
