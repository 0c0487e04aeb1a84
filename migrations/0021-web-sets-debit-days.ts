import type { Knex } from 'knex';

export const name = '0021-web-sets-debit-days';

/** News that a visit or a webhook brings sets what comes next for a bill, the day of a debit included. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`grant update (debit_on) on agenda to seikyu_web`);
}
