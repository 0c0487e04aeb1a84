import type { Knex } from 'knex';

export const name = '0015-told-files';

/** What a database that is put back must learn of the files that the merchant has, whatever they look like. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    alter table outward_files
      -- Made in a layout of the merchant's own, which we do not read back; null: made before this was kept.
      add column own_layout boolean,
      -- Of a settlement: the payout that it told, as the gateway calls it, also where that payout is not known here.
      add column payout_id text;
    update outward_files o set payout_id = p.payout_id
    from payouts p where p.merchant_id = o.merchant_id and p.outward_file_id = o.id;
    create index outward_files_by_payout on outward_files (merchant_id, payout_id) where payout_id is not null;
  `);
}
