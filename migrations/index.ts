import type { Knex } from 'knex';
import * as theBillingDay from './0001-the-billing-day.ts';

export interface Migration {
  name: string;
  up(knex: Knex): Promise<void>;
}

/** In order; a released migration never changes. */
export const migrations: readonly Migration[] = [theBillingDay];
