import type { Knex } from 'knex';

export const name = '0016-rows-by-file';

/** The rows of one file in their order, page by page. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    create index enrolment_rows_by_file on enrolment_rows (merchant_id, outward_file_id, row_no)
      where outward_file_id is not null;
    create index adjustment_rows_by_file on adjustment_rows (merchant_id, outward_file_id, row_no)
      where outward_file_id is not null;
  `);
}
