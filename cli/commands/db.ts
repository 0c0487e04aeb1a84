import type { Command } from 'commander';
import { isSuperuser, migrateDatabase, migrationStatus } from '../../billing/migrate.ts';
import { migrations } from '../../migrations/index.ts';
import { withSystem } from './with-system.ts';

export function addDbCommands(program: Command): void {
  const db = program.command('db').description('the database schema');
  db.command('migrate')
    .description('brings the schema up to this program’s; two at once wait for each other')
    .addHelpText('after', '\nExample:\n  $ DATABASE_URL=postgres://… seikyu db migrate')
    .action((options: { json: boolean }) =>
      withSystem(
        options,
        async (system, output) => {
          const applied = await migrateDatabase(system.db, migrations, { log: system.log });
          output.document({ applied });
          output.line(applied.length === 0 ? 'Nothing to do.' : `Applied: ${applied.join(', ')}`);
          return 0;
        },
        { schema: 'any' },
      ),
    );
  db.command('status')
    .description('which migrations stand in the database and which are missing')
    .addHelpText('after', '\nExit code 3 when one is missing.\n\nExample:\n  $ seikyu db status')
    .action((options: { json: boolean }) =>
      withSystem(
        options,
        async (system, output) => {
          const status = await migrationStatus(system.db, migrations);
          const superuser = await isSuperuser(system.db);
          output.document({ ...status, superuser });
          output.rows(
            '',
            ['migration', 'state'],
            [
              ...status.applied.map(({ name, appliedAt }) => ({
                migration: name,
                state: `applied ${appliedAt}`,
              })),
              ...status.pending.map((name) => ({ migration: name, state: 'missing: seikyu db migrate' })),
              ...status.unknown.map((name) => ({ migration: name, state: 'not of this program' })),
            ],
            'No migrations.',
          );
          if (superuser)
            output.line(
              'WARNING: DATABASE_URL names a superuser. Nothing keeps it from changing what is booked; use a role of its own (docs/operating.md).',
            );
          return status.pending.length + status.unknown.length > 0 ? 3 : 0;
        },
        { schema: 'any' },
      ),
    );
}
