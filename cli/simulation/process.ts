import { CommitOutcomeUnknown, type Db } from '../../billing/db.ts';
import { seededRandomness, timeOrderedIds } from '../../billing/ids.ts';
import type { Clock, Log } from '../../billing/ports.ts';
import { deriveKeys, makeSealer } from '../../billing/sealing.ts';
import type { Ports } from '../../jobs/ports.ts';
import type { Baton, Mortal } from './baton.ts';
import { simulatedCarrier } from './carrier.ts';
import { simulatedDisk } from './disk.ts';
import type { Faults } from './faults.ts';
import { simulatedGateway } from './gateway.ts';
import { emptyAllStaging, setClock } from './queries.ts';
import { simulatedReceiver } from './receiver.ts';
import type { Sabotage } from './sabotage.ts';
import { openSimulatedStore } from './store.ts';
import type { Trace } from './trace.ts';
import type { Outside } from './world.ts';

/** One process of the product with everything it takes from outside: workers run jobs, the web serves visits. */
export interface SimulatedProcess extends Mortal {
  readonly ports: Ports;
  /** As the public server sees the database: under row security. */
  readonly webDb: Db;
  /** Resolves when it dies. */
  readonly died: Promise<'died'>;
}

export interface ProcessWorld {
  seed: number;
  baton: Baton;
  trace: Trace;
  faults: Faults;
  outside: Outside;
  db: Db;
  webDb: Db;
  sabotage: Sabotage | null;
  /** A process has fallen silent; it may come back then. */
  onSilence: (untilMs: number) => void;
}

const secret = 'the simulation keeps no secret from anybody';
const quiet: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export function startProcess(world: ProcessWorld, name: string): SimulatedProcess {
  const { baton, faults, outside, trace } = world;
  let die: (died: 'died') => void = () => undefined;
  const died = new Promise<'died'>((resolve) => {
    die = resolve;
  });
  let dead = false;
  const self: Mortal = {
    name,
    stillUntilMs: 0,
    get dead() {
      return dead;
    },
    set dead(is: boolean) {
      dead = is;
      if (is) die('died');
    },
  };
  const skewMs = faults.between(-faults.profile.skewMs, faults.profile.skewMs);
  const clock = clockOf(baton, self, skewMs);
  const randomness = seededRandomness(`${world.seed} ${name}`);
  const ids = timeOrderedIds(clock, randomness);
  const db = simulatedDb(world, self, world.db);
  const ports: Ports = {
    db,
    clock,
    ids,
    randomness,
    crash: async (point) => {
      const isLoading = point === 'ingest.after_stage' || point === 'ingest.after_chunk';
      if (isLoading && faults.hits(faults.profile.stagingLost)) {
        trace.line('the staging is empty after a crash of the server');
        await baton.exclusive(null, 'staging lost', () => emptyAllStaging(world.db));
      }
      if (faults.hits(faults.profile.stall)) {
        self.stillUntilMs = baton.nowMs + faults.between(5_000, 180_000);
        trace.line(`${name} stands still`);
        world.onSilence(self.stillUntilMs);
      }
      return baton.pause(self, 0, point);
    },
    log: quiet,
    disk: simulatedDisk(baton, self, faults, outside.disk),
    sealer: makeSealer(deriveKeys(secret), randomness),
    gateway: simulatedGateway(baton, self, faults, outside.gateway),
    carrier: simulatedCarrier(baton, self, faults, outside.carrier),
    alertSenders: [simulatedReceiver(baton, self, faults, outside.receiver)],
    openStore: openSimulatedStore(baton, self, faults, outside.stores),
    archiveFolder: `/archive`,
    readKeyFile: async () => 'a key',
    baseUrl: 'https://pay.invalid',
  };
  Object.assign(ports, world.sabotage?.ports?.(ports));
  return Object.assign(self, { ports, webDb: simulatedDb(world, self, world.webDb), died });
}

function clockOf(baton: Baton, self: Mortal, skewMs: number): Clock {
  return {
    now: () => baton.now().add({ milliseconds: skewMs }),
    refresh: async () => undefined,
    sleep: (milliseconds, signal) => baton.pause(self, milliseconds, 'sleep', signal),
    deadline: (milliseconds) => baton.deadline(self, milliseconds),
    elapsedMs: () => baton.nowMs,
  };
}

/** The row of the virtual clock is written when it is off by more than this: only leases of 40 s read it. */
const clockOffMs = 5_000;

/** The real database, one transaction at a time, whose last answer may be lost. */
function simulatedDb(world: ProcessWorld, self: Mortal, real: Db): Db {
  const { baton, faults, trace, outside } = world;
  const replaced = world.sabotage?.statements ?? [];
  /** The statement as a sabotage leaves it. */
  const text = (sql: string): string => {
    let changed = sql;
    for (const [find, instead] of replaced) {
      if (!changed.includes(find)) continue;
      changed = changed.replaceAll(find, instead);
      outside.sabotaged.add(find);
    }
    return changed;
  };
  const ask = <T>(what: string, work: () => Promise<T>): Promise<T> =>
    baton.exclusive(self, what, async () => {
      if (Math.abs(baton.nowMs - outside.clockRowMs) > clockOffMs) {
        outside.clockRowMs = baton.nowMs;
        await setClock(world.db, baton.now());
      }
      outside.statements += 1;
      try {
        const answer = await work();
        trace.note(`${self.name} ${what}`);
        return answer;
      } catch (error) {
        trace.note(`${self.name} ${what}: ${(error as Error).message}`);
        throw error;
      }
    });
  const db: Db = {
    knex: real.knex,
    query: (sql, values, options) => ask(sql, () => real.query(text(sql), values, options)),
    run: (sql, values, options) => ask(sql, () => real.run(text(sql), values, options)),
    transaction: (work, options) =>
      ask('transaction', async () => {
        // Whoever only looks on has no part in it.
        const lost = self.name !== 'looker' && faults.hits(faults.profile.lostCommit);
        const stands = lost && faults.hits(0.5);
        try {
          const result = await real.transaction(async (tx) => {
            // BEGIN and COMMIT.
            outside.statements += 1;
            const done = await work({
              ...tx,
              query: (sql, values, queryOptions) => {
                outside.statements += 1;
                return tx.query(text(sql), values, queryOptions);
              },
              run: (sql, values, queryOptions) => {
                outside.statements += 1;
                return tx.run(text(sql), values, queryOptions);
              },
            });
            if (lost && !stands) throw new Undone();
            return done;
          }, options);
          if (lost) throw new Undone();
          return result;
        } catch (error) {
          if (error instanceof Undone) throw new CommitOutcomeUnknown(error);
          throw error;
        }
      }),
    // A transaction of its own, as it is there.
    of: (merchantId) => ({
      query: (sql, values) => db.transaction((tx) => tx.query(sql, values), { merchantId }),
    }),
    close: async () => undefined,
  };
  return db;
}

/** The connection broke in COMMIT, with or without effect. */
class Undone extends Error {}
