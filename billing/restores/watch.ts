import { Temporal } from 'temporal-polyfill';
import type { Db, Tx } from '../db.ts';
import type { Clock, Ids } from '../ports.ts';
import { beginRestore } from './begin.ts';
import {
  beatLife,
  forgetOldLives,
  insertLife,
  type KnownIdentity,
  knownIdentity,
  lastBeat,
  lockIdentity,
  readServer,
  remembersLife,
  restoreBeganAfter,
  type Server,
  setServer,
} from './queries.ts';

/** What a machine knows of a database's past, kept outside it. */
export interface Witness {
  databaseId: string;
  life: number;
  nonce: string;
  beats: number;
  /** ISO 8601 instant of the business clock. */
  beatAt: string;
}

/** Where the witness lies: a small file on this machine for each database. */
export interface WitnessStand {
  read(databaseId: string): Promise<Witness | null>;
  write(witness: Witness): Promise<void>;
}

export interface WatchPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  stand: WitnessStand;
  /** Who notices. */
  owner: string;
}

/** Of so many starts the database remembers that they were: at one a minute, two months. */
const livesKept = 100_000;
/** How far back is asked where the database does not know when it was last alive. */
const unknownDays = 7;

/**
 * A process's look at the database that it runs on: at its start, and with every beat after that. A database on another
 * server or timeline, or one that does not know what this machine has seen of it, was put back to an older state: safe mode
 * begins by itself.
 */
export class Watch {
  readonly #ports: WatchPorts;
  #witness: Witness | undefined;

  constructor(ports: WatchPorts) {
    this.#ports = ports;
  }

  /** Returns why safe mode begins; null = all is as it was left. */
  async begin(): Promise<string | null> {
    const { db, clock, ids, stand, owner } = this.#ports;
    await clock.refresh();
    const at = clock.now();
    const known = await knownIdentity(db);
    const seen = known === undefined ? null : await stand.read(known.database_id);
    const nonce = ids.uuid();
    const databaseId = ids.uuid();
    const begun = await db.transaction(async (tx) => {
      const identity = await lockIdentity(tx, databaseId);
      const server = await readServer(tx);
      const why =
        anotherServer(identity.known, server) ??
        (seen !== null && !(await accountsFor(tx, seen))
          ? 'the database does not know what this machine has seen of it'
          : null);
      if (why !== null) {
        const last = await lastBeat(tx);
        const forgottenFrom =
          last === null ? at.subtract({ hours: 24 * unknownDays }) : Temporal.Instant.from(last);
        await beginRestore(tx, { ids, at, by: owner, why, forgottenFrom });
      }
      await setServer(tx, server);
      const life = await insertLife(tx, nonce, at);
      await forgetOldLives(tx, livesKept);
      return {
        why,
        witness: { databaseId: identity.known.database_id, nonce, beatAt: at.toString(), ...life },
      };
    });
    await this.#keep(begun.witness);
    return begun.why;
  }

  /** Counts on, here and on this machine; a past that is gone under a running process is noticed too. */
  async beat(): Promise<string | null> {
    const { db, clock } = this.#ports;
    const witness = this.#witness;
    if (witness === undefined) return this.begin();
    await clock.refresh();
    const at = clock.now();
    const known = await knownIdentity(db);
    if (known?.database_id === witness.databaseId && anotherServer(known, await readServer(db)) === null) {
      const beats = await beatLife(db, witness, at);
      if (beats !== undefined) {
        await this.#keep({ ...witness, beats, beatAt: at.toString() });
        return null;
      }
    }
    return this.begin();
  }

  async #keep(witness: Witness): Promise<void> {
    await this.#ports.stand.write(witness);
    this.#witness = witness;
  }
}

function anotherServer(known: KnownIdentity, server: Server): string | null {
  const { system_identifier: system, timeline } = known;
  if (system !== null && server.systemIdentifier !== null && system !== server.systemIdentifier)
    return 'the database lives on another server than before';
  if (timeline !== null && server.timeline !== null && timeline !== server.timeline)
    return `the database was recovered or has failed over: timeline ${server.timeline}, before it was ${timeline}`;
  return null;
}

/** A witness from before an earlier restore tells nothing new: that one asked the outside already. */
async function accountsFor(tx: Tx, seen: Witness): Promise<boolean> {
  return (await remembersLife(tx, seen)) || (await restoreBeganAfter(tx, seen.beatAt));
}
