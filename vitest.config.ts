import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts', 'test/**/*.test.tsx'],
    // One PostgreSQL for the whole run; every file clones a template database from it.
    globalSetup: ['test/postgres.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Two cores: more workers than that only make each test file slower.
    maxWorkers: 2,
    maxConcurrency: 2,
    pool: 'forks',
    // .ci/run counts from the file; what passed and what did not is in the text.
    reporters: process.env.CI ? ['default', ['json', { outputFile: 'var/ci/tests.json' }]] : ['default'],
  },
});
