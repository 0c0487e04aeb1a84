import type { Knex } from 'knex';
import { ofOneMerchant } from './row-security.ts';

export const name = '0019-unreached';

/** Bills that no SMS reaches, and what the merchant was told to do about them. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- One row for each such bill, ever: written when it is decided, claimed by one file.
    create table unreached_rows (
      merchant_id int not null,
      invoice_id uuid not null,
      reason text not null check (reason in
        ('no_phone', 'not_mobile', 'blocked', 'undelivered', 'opted_out', 'wrong_person', 'over_limit')),
      disposition text not null check (disposition in ('kept', 'returned')),
      -- What the merchant prints on paper.
      barcode text check (barcode ~ '^91[0-9]{42}$'),
      occurred_at timestamptz not null,
      outward_file_id uuid,
      row_no int,
      primary key (merchant_id, invoice_id),
      foreign key (merchant_id, invoice_id) references invoices (merchant_id, id),
      foreign key (merchant_id, outward_file_id) references outward_files (merchant_id, id),
      check ((disposition = 'kept') = (barcode is not null)),
      check ((outward_file_id is null) = (row_no is null))
    );
    create index unreached_rows_unfiled on unreached_rows (merchant_id) where outward_file_id is null;
    create index unreached_rows_by_file on unreached_rows (merchant_id, outward_file_id, row_no)
      where outward_file_id is not null;

    -- Of a message that did not reach its phone: when its bill was told, was reached otherwise, or had ended. Null: not yet.
    alter table messages add column looked_at timestamptz;
    -- Bills from before end as it was said when they came: by their due date.
    update messages set looked_at = coalesce(delivery_at, decided_at)
    where unreached is not null or state = 'failed'
       or (state = 'skipped' and code in ('no_phone', 'not_mobile', 'opted_out', 'wrong_person'));
    create index messages_not_reached on messages (merchant_id, invoice_id)
      where looked_at is null and (unreached is not null or state = 'failed'
        or (state = 'skipped' and code in ('no_phone', 'not_mobile', 'opted_out', 'wrong_person')));
    ${ofOneMerchant(['unreached_rows'], {})}
  `);
}
