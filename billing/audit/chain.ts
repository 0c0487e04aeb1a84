import { createHash } from 'node:crypto';
import { Temporal } from 'temporal-polyfill';
import { instantText } from '../acts/act.ts';

/** Rows of an act in one table, and the SHA-256 over them in hex. */
export interface Covered {
  count: number;
  sha256: string;
}

/** What an entry of the audit log says; its hash covers all of it. */
export interface Sealed {
  merchantId: number;
  /** First day of the month, YYYY-MM-DD. */
  month: string;
  /** Gapless per merchant, from 1. */
  no: number;
  actId: string;
  kind: string;
  actor: string;
  at: string;
  sealedAt: string;
  acts: Covered;
  transfers: Covered;
  history: Covered;
  /** Hash of the entry before, in hex. */
  previous: string;
}

export interface Entry extends Sealed {
  /** As it is stored, in hex. */
  hash: string;
}

/** How far a merchant's chain goes: who keeps one can tell later whether anything before it was changed. */
export interface ChainHead {
  no: number;
  /** 64 hex digits. */
  hash: string;
}

/** Before the first entry. */
export const emptyChain: ChainHead = { no: 0, hash: '0'.repeat(64) };

/** SHA-256 of the entry as JSON with its keys in this order and instants to the microsecond. Changing it breaks every chain. */
export function hashOf(entry: Sealed): string {
  const instant = (text: string): string => instantText(Temporal.Instant.from(text));
  const covered = ({ count, sha256 }: Covered): Covered => ({ count, sha256 });
  const text = JSON.stringify({
    merchant: entry.merchantId,
    month: entry.month,
    no: entry.no,
    act: entry.actId,
    kind: entry.kind,
    actor: entry.actor,
    at: instant(entry.at),
    sealedAt: instant(entry.sealedAt),
    acts: covered(entry.acts),
    transfers: covered(entry.transfers),
    history: covered(entry.history),
    previous: entry.previous,
  });
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/** What is wrong with the chain at one entry. */
export interface Break {
  what: 'entry_changed' | 'entry_removed' | 'entry_inserted' | 'entry_reordered' | 'entry_rewritten';
  no: number;
  detail: string;
}

/** An entry that was moved is looked for so many places away. */
const reach = 1_000;

/**
 * Goes along a chain, entry by entry in the order in which they stand, and says where it breaks. What comes after a break
 * is judged by what is stored, so that one change is told once.
 */
export class ChainWalk {
  /** The entry before; null hash: it was not in its place, so nothing can hang on it. */
  #last: { no: number; hash: string | null; previous: string | null } | null;
  /** Entries stand so many places after the one they were sealed for, from here on. */
  #shift = 0;

  /** null: the first entry is taken as it stands, what was before it is no longer kept. */
  constructor(begin: ChainHead | null) {
    this.#last = begin === null ? null : { ...begin, previous: null };
  }

  next(entry: Entry): Break[] {
    const last = this.#last;
    if (last !== null && entry.no <= last.no)
      return [{ what: 'entry_inserted', no: entry.no, detail: `number ${entry.no} stands there twice` }];
    const gap = last !== null && entry.no > last.no + 1 ? [removed(last.no + 1, entry.no - 1)] : [];
    const broken = this.#judge(entry, gap.length === 0 ? last : null);
    const isMoved = broken?.what === 'entry_reordered';
    this.#last = { no: entry.no, hash: isMoved ? null : entry.hash, previous: entry.previous };
    return broken === null ? gap : [...gap, broken];
  }

  #judge(
    entry: Entry,
    last: { no: number; hash: string | null; previous: string | null } | null,
  ): Break | null {
    const { no } = entry;
    if (!isSealedAs(entry, no - this.#shift)) {
      const sealedAs = placeOf(entry);
      if (sealedAs === null)
        return { what: 'entry_changed', no, detail: `number ${no} does not say what was sealed` };
      this.#shift = no - sealedAs;
      // Two entries hang on the same one: the first of them was put between, and the rest moved on.
      if (this.#shift > 0 && last !== null && last.previous === entry.previous)
        return { what: 'entry_inserted', no: last.no, detail: `number ${last.no} was put between` };
      if (this.#shift !== 0)
        return {
          what: 'entry_reordered',
          no,
          detail: `what stands as number ${no} was sealed as ${sealedAs}`,
        };
    }
    if (last === null || last.hash === null || last.hash === entry.previous) return null;
    const detail = `number ${no} hangs on another number ${last.no} than the one that stands there`;
    return { what: 'entry_rewritten', no, detail };
  }
}

function removed(from: number, to: number): Break {
  const detail = from === to ? `number ${from} is missing` : `numbers ${from} to ${to} are missing`;
  return { what: 'entry_removed', no: from, detail };
}

const isSealedAs = (entry: Entry, no: number): boolean => hashOf({ ...entry, no }) === entry.hash;

/** The number that an entry was sealed under; null: none nearby makes its hash right. */
function placeOf(entry: Entry): number | null {
  for (let away = 0; away <= reach; away += 1) {
    for (const no of [entry.no - away, entry.no + away]) if (no > 0 && isSealedAs(entry, no)) return no;
  }
  return null;
}
