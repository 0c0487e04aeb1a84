import { defineConfig } from 'vitest/config';

/** The files room needs no database: `npx vitest run --config test/files/vitest.config.ts` starts in a second. */
export default defineConfig({
  test: { include: ['test/files/**/*.test.ts'], testTimeout: 60_000, maxWorkers: 2, pool: 'forks' },
});
