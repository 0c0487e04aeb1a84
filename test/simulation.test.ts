import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { sabotageByName } from '../cli/simulation/sabotage.ts';
import { openSimulationDatabases, type SimulationDatabases } from '../cli/simulation/server.ts';
import { runSeed, type SeedOptions, type SeedResult } from '../cli/simulation/world.ts';

/** Seeds that found something once stay here; the command `seikyu simulate` looks for more. */
const corpus = JSON.parse(readFileSync(join(import.meta.dirname, 'simulation-seeds.json'), 'utf8')) as {
  seed: number;
  days: number;
  found: string;
}[];

const silent = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

let databases: SimulationDatabases;

beforeAll(async () => {
  const { adminUrl, ownerUrl, webUrl, prefix } = inject('testServer');
  databases = await openSimulationDatabases({ adminUrl, ownerUrl, webUrl, prefix: `${prefix}sim_` }, silent);
});
afterAll(() => databases?.close());

const simulate = (options: Pick<SeedOptions, 'seed' | 'days'> & Partial<SeedOptions>): Promise<SeedResult> =>
  databases.withDatabase((db, webDb) =>
    runSeed(db, webDb, { mode: 'liveness', sabotage: null, say: null, ...options }),
  );

/** What a person needs to see of a failure. */
const told = (result: SeedResult): string[] =>
  result.violations.length === 0 ? [] : [...result.lastSteps, ...result.violations];

describe('a world where everything goes wrong', () => {
  // A month takes a third of a minute, and on a machine with other work some minutes.
  test.each(corpus)(
    'seed $seed, $days days: $found',
    async ({ seed, days }) => {
      expect(told(await simulate({ seed, days }))).toEqual([]);
    },
    300_000,
  );

  test('a guard that is taken away is missed', async () => {
    const withoutNames = sabotageByName('no-temporary-name') ?? null;
    const { violations } = await simulate({ seed: 1, days: 2, mode: 'safety', sabotage: withoutNames });
    expect(violations[0]).toMatch(/^I-15: written under the final name/);
  });

  test('the same seed is the same run', async () => {
    const [one, other] = [
      await simulate({ seed: 2, days: 2, mode: 'safety' }),
      await simulate({ seed: 2, days: 2, mode: 'safety' }),
    ];
    expect(other.digest).toBe(one.digest);
    expect(one.steps).toBeGreaterThan(200);
    const another = await simulate({ seed: 4, days: 2, mode: 'safety' });
    expect(another.digest).not.toBe(one.digest);
  });
});
