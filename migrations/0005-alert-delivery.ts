import type { Knex } from 'knex';

export const name = '0005-alert-delivery';

export async function up(knex: Knex): Promise<void> {
  await knex.raw('select 1');
}
