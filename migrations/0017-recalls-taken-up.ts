import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0017-recalls-taken-up';

/** A webhook may bring money for a bill that was taken back: its recall runs again. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(
    ofOneMerchant([], {
      recalls: 'select, update (state, version, ended_at)',
      recall_bills: 'select, update (state, outcome)',
    }),
  );
}
