import type { Knex } from 'knex';

export const name = '0003-audit-chain';

export async function up(knex: Knex): Promise<void> {
  await knex.raw('select 1');
}
