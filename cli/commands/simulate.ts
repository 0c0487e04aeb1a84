import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { systemClock } from '../../billing/clock.ts';
import { Refusal } from '../../billing/refusal.ts';
import { startEmbeddedPostgres } from '../embedded/postgres.ts';
import { openLog } from '../log.ts';
import { type Output, openOutput } from '../output.ts';
import type { Process } from '../program.ts';
import { readSettings } from '../settings.ts';
import { type Sabotage, sabotages } from '../simulation/sabotage.ts';
import { openSimulationDatabases, type SimulationServer } from '../simulation/server.ts';
import { runHere, type SeedRunners, type SeedTask, startRunners } from '../simulation/worker.ts';
import type { SeedResult } from '../simulation/world.ts';

interface SimulateOptions {
  json: boolean;
  seed: number;
  seeds: number;
  days: number;
  mode: 'liveness' | 'safety';
  replayCheck: boolean;
  steps: boolean;
  sabotage: string | undefined;
  jobs: number | undefined;
  turn: number;
}

type Chosen = SimulateOptions & { jobs: number };

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
    .addOption(
      new Option(
        '--jobs <n>',
        'seeds at once, each in a process of its own (default: one for each processor)',
      ).argParser(Number),
    )
    .option('--steps', 'prints every step', false)
    .option('--replay-check', 'runs each seed twice and compares', false)
    .addOption(
      new Option(
        '--sabotage <name>',
        'takes one guard away, or each in turn; must name what broke within --seeds',
      ).choices(['all', 'turn', ...sabotages.map(({ name }) => name)]),
    )
    .addOption(
      new Option('--turn <n>', 'with --sabotage turn: which three of the guards, counted from 0')
        .default(0)
        .argParser(Number),
    )
    .addHelpText(
      'after',
      `
Real jobs, pages and database; gateway, carrier, SFTP server, disk, clock and chance are simulated. A violated
invariant ends the run with exit code 1, the last steps and the command that repeats it.

Examples:
  $ seikyu simulate --seed 7 --days 30
  $ seikyu simulate --seeds 100 --days 30
  $ seikyu simulate --sabotage all --seeds 200 --days 26`,
    )
    .action(async (given: SimulateOptions) => {
      // Steps of two seeds at once would be no story.
      const most = given.steps ? 1 : Math.max(given.seeds, given.sabotage === 'all' ? sabotages.length : 1);
      const options = { ...given, jobs: given.jobs ?? Math.min(availableParallelism(), most) };
      for (const name of ['seed', 'seeds', 'days', 'jobs', 'turn'] as const) {
        const least = name === 'seed' || name === 'turn' ? 0 : 1;
        if (Number.isSafeInteger(options[name]) && options[name] >= least) continue;
        throw new Refusal('NUMBER_WRONG', `--${name} is no whole number of the right size`, {
          next: 'Write for example: seikyu simulate --seed 7 --seeds 10 --days 30',
          exitCode: 2,
        });
      }
      process.exitCode = await simulate(options, stop.stop);
    });
}

async function simulate(options: Chosen, stop: AbortSignal): Promise<number> {
  const settings = readSettings();
  const output = openOutput(options.json);
  const log = openLog({ level: 'warn', part: 'simulation' });
  // A server of its own: nothing in the background may touch the order of rows.
  const postgres = await startEmbeddedPostgres({
    home: join(settings.home, 'simulation'),
    log,
    settings: { autovacuum: 'off' },
  });
  const server: SimulationServer = {
    adminUrl: postgres.urlFor('postgres', 'postgres'),
    ownerUrl: postgres.urlFor('postgres', 'seikyu'),
    webUrl: postgres.urlFor('postgres', 'seikyu_web_login'),
    prefix: `simulation_${process.pid}_`,
  };
  try {
    const runners =
      options.jobs === 1 ? await hereAlone(server, options, output) : startRunners(server, options.jobs);
    try {
      return options.sabotage === undefined
        ? await runSeeds(runners, options, output, stop)
        : await sabotage(runners, options, output, stop);
    } finally {
      await runners.close();
    }
  } finally {
    await postgres.stop();
  }
}

/** One seed at a time in this process, where every step can be heard. */
async function hereAlone(server: SimulationServer, options: Chosen, output: Output): Promise<SeedRunners> {
  const databases = await openSimulationDatabases(server, openLog({ level: 'warn', part: 'simulation' }));
  const say = options.steps ? (step: string) => output.line(step) : null;
  return { run: (task) => runHere(databases, task, say), close: () => databases.close() };
}

/** Hands each item to a lane that is free, in order. */
async function inLanes<Item>(count: number, items: Iterable<Item>, work: (item: Item) => Promise<void>) {
  const next = items[Symbol.iterator]();
  const lane = async () => {
    for (let item = next.next(); !item.done; item = next.next()) await work(item.value);
  };
  await Promise.all(Array.from({ length: count }, lane));
}

async function runSeeds(
  runners: SeedRunners,
  options: Chosen,
  output: Output,
  stop: AbortSignal,
): Promise<number> {
  const { seed: first, seeds, days, mode } = options;
  const real = systemClock();
  const startedMs = real.elapsedMs();
  const results: SeedResult[] = [];
  let replayed = true;
  const numbers = Array.from({ length: seeds }, (_, index) => first + index);
  await inLanes(options.jobs, numbers, async (seed) => {
    if (stop.aborted) return;
    const task: SeedTask = { seed, days, mode, sabotage: null };
    const seedStartedMs = real.elapsedMs();
    const result = await runners.run(task);
    results.push(result);
    output.line(lineOf(result, (real.elapsedMs() - seedStartedMs) / 1000));
    if (options.replayCheck) {
      const again = await runners.run(task);
      if (again.digest !== result.digest) {
        replayed = false;
        output.line(`seed ${seed} does not repeat: ${result.digest} and then ${again.digest}`);
      }
    }
    if (result.violations.length > 0) tell(output, options, result);
  });
  const seconds = (real.elapsedMs() - startedMs) / 1000;
  const daysRun = results.reduce((sum, result) => sum + result.days, 0);
  const violated = results.filter((result) => result.violations.length > 0);
  const ok = violated.length === 0 && replayed && results.length === seeds;
  output.document({ ok, seconds, days: daysRun, results });
  const verdict =
    violated.length === 0
      ? 'every invariant held'
      : `violated by seed ${violated.map(({ seed }) => seed).join(', ')}`;
  output.line(
    `${results.length} of ${seeds} seeds, ${daysRun} days in ${seconds.toFixed(0)} s (${(daysRun / seconds).toFixed(1)} days a second); ${verdict}`,
  );
  return ok ? 0 : 1;
}

function lineOf({ seed, days, digest, steps, counts }: SeedResult, seconds: number): string {
  const told = Object.entries(counts).map(([name, count]) => `${count} ${name}`);
  return `seed ${seed}: ${days} days in ${seconds.toFixed(1)} s, trace ${digest}, ${steps} steps, ${told.join(', ')}`;
}

function tell(output: Output, options: Chosen, result: SeedResult): void {
  output.line('');
  for (const step of result.lastSteps) output.line(`  ${step}`);
  output.line('');
  for (const violation of result.violations) output.line(`VIOLATED ${violation}`);
  const mode = options.mode === 'liveness' ? '' : ` --mode ${options.mode}`;
  output.line(`Again with: seikyu simulate --seed ${result.seed} --days ${options.days}${mode}`);
  output.line('');
}

/** So many at a time, where all would take too long. */
const guardsInTurn = 3;

interface Found {
  name: string;
  without: string;
  expects: readonly string[];
  /** How many seeds it took; null = not noticed. */
  seeds: number | null;
  /** The first thing that did not hold any more. */
  violated: string;
  ok: boolean;
}

/**
 * Takes guards away one by one and looks how soon it is noticed. 0 only if each is, within `--seeds` seeds, and by an
 * invariant that the guard is there for.
 */
async function sabotage(
  runners: SeedRunners,
  options: Chosen,
  output: Output,
  stop: AbortSignal,
): Promise<number> {
  const isTheirTurn = (index: number) =>
    Math.floor(index / guardsInTurn) === options.turn % Math.ceil(sabotages.length / guardsInTurn);
  const chosen = sabotages.filter(
    ({ name }, index) =>
      options.sabotage === 'all' ||
      name === options.sabotage ||
      (options.sabotage === 'turn' && isTheirTurn(index)),
  );
  const found = new Map<string, Found>();
  await inLanes(options.jobs, chosen, async (guard) => {
    const end = await untilNoticed(runners, guard, options, stop);
    found.set(guard.name, end);
    output.line(rowOf(end));
  });
  const all = chosen.flatMap(({ name }) => found.get(name) ?? []);
  const ok = all.every((each) => each.ok);
  output.document({ ok, found: all });
  output.line(`${all.filter((each) => each.ok).length} of ${chosen.length} are noticed and named`);
  return ok ? 0 : 1;
}

/** A row of the table in docs/reliability.md. */
function rowOf({ name, without, expects, seeds, violated, ok }: Found): string {
  const [invariant = ''] = violated.split(':');
  const noticed = seeds === null ? `not noticed ${violated}` : `${seeds}`;
  const named = ok ? invariant : `${violated} (expected: ${expects.join(', ')})`;
  return `| \`${name}\` | ${without} | ${noticed} | ${named} |`;
}

async function untilNoticed(
  runners: SeedRunners,
  { name, without, expects, statements }: Sabotage,
  options: Chosen,
  stop: AbortSignal,
): Promise<Found> {
  // A statement that was written anew is no longer sabotaged: then the guard still stands.
  const untouched = new Set(statements?.map(([find]) => find));
  for (let no = 1; no <= options.seeds && !stop.aborted; no += 1) {
    const seed = options.seed + no - 1;
    const result = await runners.run({ seed, days: options.days, mode: options.mode, sabotage: name });
    for (const find of result.sabotaged) untouched.delete(find);
    const [first] = result.violations;
    if (first === undefined) continue;
    const violated = first.split('\n')[0] ?? '';
    const ok = expects.some((invariant) => first.startsWith(`${invariant}:`)) && untouched.size === 0;
    return { name, without, expects, seeds: no, violated, ok };
  }
  const violated = untouched.size > 0 ? `(no statement holds: ${[...untouched].join('; ')})` : '';
  return { name, without, expects, seeds: null, violated, ok: false };
}
