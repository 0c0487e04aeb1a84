import type { Knex } from 'knex';

export const name = '0006-safe-mode';

export async function up(knex: Knex): Promise<void> {
  await knex.raw('select 1');
}
