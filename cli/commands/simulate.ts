import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../../billing/clock.ts';
import { Refusal } from '../../billing/refusal.ts';
import { startEmbeddedPostgres } from '../embedded/postgres.ts';
import { openLog } from '../log.ts';
import { type Output, openOutput } from '../output.ts';
import type { Process } from '../program.ts';
import { readSettings } from '../settings.ts';
import { sabotageByName, sabotages } from '../simulation/sabotage.ts';
import { openSimulationDatabases, type SimulationDatabases } from '../simulation/server.ts';
import { runSeed, type SeedResult } from '../simulation/world.ts';

interface SimulateOptions {
  json: boolean;
  seed: number;
  seeds: number;
  days: number;
  mode: 'liveness' | 'safety';
  replayCheck: boolean;
  steps: boolean;
  sabotage: string | undefined;
}

export function addSimulateCommand(program: Command, stop: Process): void {
  program
    .command('simulate')
    .description(
      'the whole product in a world drawn by a seed, where everything goes wrong, on a virtual clock',
    )
    .addOption(new Option('--seed <n>', 'the first seed').default(1).argParser(Number))
    .addOption(new Option('--seeds <n>', 'how many seeds from there on').default(1).argParser(Number))
    .addOption(new Option('--days <n>', 'days with faults').default(30).argParser(Number))
    .addOption(
      new Option(
        '--mode <mode>',
        'liveness: quiet days follow, and all must come to its end; safety: faults to the end',
      )
        .choices(['liveness', 'safety'])
        .default('liveness'),
    )
    .option('--steps', 'prints every step', false)
    .option('--replay-check', 'runs each seed twice and compares', false)
    .addOption(
      new Option('--sabotage <name>', 'takes one guard away, or each in turn, and must notice').choices([
        'all',
        ...sabotages.map(({ name }) => name),
      ]),
    )
    .addHelpText(
      'after',
      `
Real jobs, pages and database; gateway, carrier, SFTP server, disk, clock and chance are simulated. A violated
invariant ends the run with exit code 1, the last steps and the command that repeats it.

Examples:
  $ seikyu simulate --seed 7 --days 30
  $ seikyu simulate --seeds 100 --days 30
  $ seikyu simulate --sabotage all --seeds 20 --days 15`,
    )
    .action(async (options: SimulateOptions) => {
      for (const name of ['seed', 'seeds', 'days'] as const) {
        if (Number.isSafeInteger(options[name]) && options[name] >= (name === 'seed' ? 0 : 1)) continue;
        throw new Refusal('NUMBER_WRONG', `--${name} is no whole number of the right size`, {
          next: 'Write for example: seikyu simulate --seed 7 --seeds 10 --days 30',
          exitCode: 2,
        });
      }
      process.exitCode = await simulate(options, stop.stop);
    });
}

async function simulate(options: SimulateOptions, stop: AbortSignal): Promise<number> {
  const settings = readSettings();
  const real = systemClock();
  const output = openOutput(options.json);
  const log = openLog({ level: 'warn', part: 'simulation' });
  // A server of its own: nothing in the background may touch the order of rows.
  const server = await startEmbeddedPostgres({
    home: join(settings.home, 'simulation'),
    log,
    settings: { autovacuum: 'off' },
  });
  const databases = await openSimulationDatabases(
    {
      adminUrl: server.urlFor('postgres', 'postgres'),
      ownerUrl: server.urlFor('postgres', 'seikyu'),
      webUrl: server.urlFor('postgres', 'seikyu_web_login'),
      prefix: `simulation_${process.pid}_`,
    },
    log,
  );
  if (options.sabotage !== undefined) {
    try {
      return await sabotage(databases, options, output, stop);
    } finally {
      await databases.close();
      await server.stop();
    }
  }
  const results: SeedResult[] = [];
  let replayed = true;
  const startedMs = real.elapsedMs();
  try {
    for (let seed = options.seed; seed < options.seed + options.seeds && !stop.aborted; seed += 1) {
      const once = () =>
        databases.withDatabase((db, webDb) =>
          runSeed(db, webDb, {
            seed,
            days: options.days,
            mode: options.mode,
            sabotage: null,
            say: options.steps ? (step) => output.line(step) : null,
          }),
        );
      const seedStartedMs = real.elapsedMs();
      const result = await once();
      results.push(result);
      const seconds = (real.elapsedMs() - seedStartedMs) / 1000;
      output.line(lineOf(result, seconds));
      if (options.replayCheck) {
        const again = await once();
        if (again.digest !== result.digest) {
          replayed = false;
          output.line(`seed ${seed} does not repeat: ${result.digest} and then ${again.digest}`);
        }
      }
      if (result.violations.length > 0) tell(output, options, result);
    }
  } finally {
    await databases.close();
    await server.stop();
  }
  const seconds = (real.elapsedMs() - startedMs) / 1000;
  const days = results.reduce((sum, result) => sum + result.days, 0);
  const violated = results.filter((result) => result.violations.length > 0);
  output.document({ ok: violated.length === 0 && replayed, seconds, days, results });
  output.line(
    `${results.length} seeds, ${days} days in ${seconds.toFixed(0)} s (${(days / seconds).toFixed(1)} days a second); ${violated.length === 0 ? 'every invariant held' : `violated by seed ${violated.map(({ seed }) => seed).join(', ')}`}`,
  );
  return violated.length === 0 && replayed ? 0 : 1;
}

function lineOf({ seed, days, digest, steps, counts }: SeedResult, seconds: number): string {
  const told = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  return `seed ${seed}: ${days} days in ${seconds.toFixed(1)} s, trace ${digest}, ${steps} steps, ${told.join(', ')}`;
}

function tell(output: Output, options: SimulateOptions, result: SeedResult): void {
  output.line('');
  for (const step of result.lastSteps) output.line(`  ${step}`);
  output.line('');
  for (const violation of result.violations) output.line(`VIOLATED ${violation}`);
  const mode = options.mode === 'liveness' ? '' : ` --mode ${options.mode}`;
  output.line(`Again with: seikyu simulate --seed ${result.seed} --days ${options.days}${mode}`);
  output.line('');
}

/** Takes guards away one by one and looks how soon it is noticed. 0 only if each is, within `--seeds` seeds. */
async function sabotage(
  databases: SimulationDatabases,
  options: SimulateOptions,
  output: Output,
  stop: AbortSignal,
): Promise<number> {
  const chosen = sabotages.filter(({ name }) => options.sabotage === 'all' || name === options.sabotage);
  const found: { name: string; without: string; seeds: number | null; violated: string }[] = [];
  for (const { name, without, statements } of chosen) {
    const untouched = new Set(statements?.map(([find]) => find));
    let seeds: number | null = null;
    let violated = '';
    for (let no = 1; no <= options.seeds && seeds === null && !stop.aborted; no += 1) {
      const result = await databases.withDatabase((db, webDb) =>
        runSeed(db, webDb, {
          seed: options.seed + no - 1,
          days: options.days,
          mode: options.mode,
          sabotage: sabotageByName(name) ?? null,
          say: options.steps ? (step) => output.line(step) : null,
        }),
      );
      for (const find of result.sabotaged) untouched.delete(find);
      const [first] = result.violations;
      if (first === undefined) continue;
      seeds = no;
      violated = first.split('\n')[0] ?? '';
    }
    // A statement that was written anew is no longer sabotaged.
    if (seeds === null && untouched.size > 0) violated = `no statement holds: ${[...untouched].join('; ')}`;
    found.push({ name, without, seeds, violated });
    output.line(`| \`${name}\` | ${without} | ${seeds ?? 'not noticed'} | ${violated.slice(0, 110)} |`);
  }
  output.document({ ok: found.every(({ seeds }) => seeds !== null), found });
  return found.every(({ seeds }) => seeds !== null) ? 0 : 1;
}
