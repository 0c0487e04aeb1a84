import type { Knex } from 'knex';

export const name = '0025-payments-by-bill';

/** Receipts, recalls and refunds ask for the payments of a bill: without it each of them reads all that a merchant ever got. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`create index payments_by_invoice on payments (merchant_id, invoice_id)`);
}
