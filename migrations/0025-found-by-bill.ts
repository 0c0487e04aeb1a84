import type { Knex } from 'knex';

export const name = '0025-found-by-bill';

/**
 * Receipts, recalls and refunds ask for the payments of a bill, a press of the pay button for its visits to pay: without
 * these each of them reads all that a merchant ever had.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    create index payments_by_invoice on payments (merchant_id, invoice_id);
    create index checkout_sessions_by_invoice on checkout_sessions (merchant_id, invoice_id);
  `);
}
