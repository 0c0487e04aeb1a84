import type { Knex } from 'knex';

export const name = '0010-temporary-names';

export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    alter table outward_files
      -- How many temporary names its uploads were given on the merchant's server.
      add column parts int not null default 0,
      -- The one whose rename was begun: while it lies there, the file was not visible.
      add column renaming_part int check (renaming_part between 1 and parts);
    -- Names had no number before: such an upload counts as renamed, and a person is asked.
    update outward_files set parts = 1, renaming_part = 1 where renaming_at is not null;
    alter table outward_files add check ((renaming_at is null) = (renaming_part is null));
  `);
}
