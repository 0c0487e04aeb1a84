import type { Temporal } from 'temporal-polyfill';
import { instantText, monthOf } from '../acts/act.ts';
import { raiseAlert } from '../alerts/queries.ts';
import type { Db, Tx } from '../db.ts';
import type { Clock, Ids, Log } from '../ports.ts';
import { assertState } from '../refusal.ts';
import { type ChainHead, type Entry, hashOf } from './chain.ts';
import {
  anyUnsealed,
  appendEntries,
  digestActs,
  lockHead,
  takeUnsealed,
  unsealedTooLong,
} from './queries.ts';

export interface SealPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  log: Log;
}

/** `trace` comes every five minutes; what waits longer than this was missed three times. */
export const sealedWithinMinutes = 15;

const actsPerBatch = 500;

/**
 * Seals what a merchant's acts have written and committed: an entry of the chain for each act. A transaction of its own, never
 * the money's: that one would wait for the head of the chain, and so for every other one of the merchant. Killed half-way it
 * has done nothing; run twice at once, the second finds what is left. Returns the number of entries.
 */
export async function sealActs(ports: Pick<SealPorts, 'db' | 'clock'>, merchantId: number): Promise<number> {
  if (!(await anyUnsealed(ports.db, merchantId))) return 0;
  for (let sealed = 0; ; ) {
    const batch = await ports.db.transaction((tx) => sealBatch(tx, merchantId, ports.clock.now()));
    sealed += batch;
    if (batch < actsPerBatch) return sealed;
  }
}

async function sealBatch(tx: Tx, merchantId: number, now: Temporal.Instant): Promise<number> {
  const locked = await lockHead(tx, merchantId);
  // A clock that goes backwards must not put an entry into a month before its predecessor's.
  let month = monthOf(now);
  if (month < locked.month) month = locked.month;
  let head: ChainHead = locked;
  const acts = await takeUnsealed(tx, merchantId, actsPerBatch);
  const digests = await digestActs(
    tx,
    merchantId,
    acts.map((act) => act.act_id),
  );
  const entries: Entry[] = [];
  for (const act of acts) {
    const digest = digests.get(act.act_id);
    assertState(digest, `act ${act.act_id} has no digest`);
    const sealed = {
      merchantId,
      month,
      no: head.no + 1,
      actId: act.act_id,
      kind: act.kind,
      actor: act.actor,
      at: act.at,
      sealedAt: instantText(now),
      ...digest,
      previous: head.hash,
    };
    const entry = { ...sealed, hash: hashOf(sealed) };
    entries.push(entry);
    head = entry;
  }
  const last = entries.at(-1);
  if (last !== undefined) await appendEntries(tx, entries, last);
  return entries.length;
}

/** Where sealing is not the work itself: a failure is told and never fails the work. The next pass of any job seals what is left. */
export async function sealAside(ports: SealPorts, merchantId: number): Promise<void> {
  try {
    await sealActs(ports, merchantId);
  } catch (error) {
    ports.log.error({ merchantId, error: told(error) }, 'acts were not sealed; the next pass tries again');
    try {
      await alertOfDelay(ports, merchantId);
    } catch (again) {
      ports.log.error({ merchantId, error: told(again) }, 'and no alert of it could be raised');
    }
  }
}

async function alertOfDelay(ports: SealPorts, merchantId: number): Promise<void> {
  const now = ports.clock.now();
  const until = now.subtract({ minutes: sealedWithinMinutes });
  for (const waiting of await unsealedTooLong(ports.db, until, merchantId)) {
    await raiseAlert(ports.db, ports.ids.uuid(), now, {
      merchantId,
      level: 'now',
      cause: 'AUDIT_UNSEALED',
      message: `${waiting.acts} acts wait to be sealed into the audit log, the first since ${waiting.at}; look at the log of the jobs`,
    });
  }
}

const told = (error: unknown): string => (error instanceof Error ? error.message : String(error));
