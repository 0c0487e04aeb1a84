import type { Temporal } from 'temporal-polyfill';
import type { Db } from '../db.ts';
import { type Break, type ChainHead, ChainWalk, type Entry, emptyChain } from './chain.ts';
import {
  type CoveredTable,
  differingActs,
  entriesAfter,
  hashesAt,
  headAndLast,
  type Place,
  presentRows,
  rowsWithoutEntry,
  sealedOtherwise,
  unsealedTooLong,
} from './queries.ts';
import { sealedWithinMinutes } from './seal.ts';

export interface AuditFinding {
  what:
    | Break['what']
    | 'rows_changed'
    | 'rows_removed'
    | 'rows_inserted'
    | 'rows_without_entry'
    | 'sealed_otherwise'
    | 'head_differs'
    | 'given_head_differs'
    | 'unsealed';
  /** Number of the entry, where one is concerned. */
  no: number | null;
  actId: string | null;
  actor: string | null;
  at: string | null;
  table: CoveredTable | null;
  /** Rows of the act in the table when it was sealed, and now. */
  sealed: number | null;
  present: number | null;
  /** Up to ten rows that the act has now, by their keys. */
  candidates: string[];
  detail: string;
}

export interface AuditVerified {
  merchant: string;
  holds: boolean;
  entries: number;
  /** As the chain stands: what to compare with a head kept elsewhere. */
  head: ChainHead;
  findings: AuditFinding[];
}

export interface VerifyAudit {
  merchant: { id: number; code: string };
  now: Temporal.Instant;
  /** A head kept elsewhere, as a tie-out has it. */
  head: ChainHead | null;
  /** YYYY-MM: what is older is not looked at, as where old months were dropped. */
  fromMonth: string | null;
}

const entriesPerBatch = 1_000;
/** Digests of so many rows are computed in one statement. */
const rowsPerBatch = 200_000;
/** Who finds so much wrong needs no longer list. */
const findingsAtMost = 100;

const finding = (
  what: AuditFinding['what'],
  more: Partial<AuditFinding> & { detail: string },
): AuditFinding => ({
  what,
  no: null,
  actId: null,
  actor: null,
  at: null,
  table: null,
  sealed: null,
  present: null,
  candidates: [],
  ...more,
});

/**
 * Whether a merchant's acts stand as they were sealed: the chain, entry by entry; the rows of each act against its newest
 * entry, set-based; rows that no entry knows; the head, and one kept elsewhere. Reads only, beside a running system: each
 * statement compares within one snapshot. Memory does not grow with the chain.
 */
export async function verifyAudit(db: Pick<Db, 'query'>, input: VerifyAudit): Promise<AuditVerified> {
  const { merchant } = input;
  const from = input.fromMonth === null ? '0001-01-01' : `${input.fromMonth}-01`;
  const findings: AuditFinding[] = [];
  const walk = new ChainWalk(input.fromMonth === null ? emptyChain : null);
  let entries = 0;
  let after: Place = { no: 0, month: from };
  while (findings.length < findingsAtMost) {
    const batch = await entriesAfter(db, merchant.id, after, from, entriesPerBatch);
    if (batch.length === 0) break;
    entries += batch.length;
    for (const entry of batch) findings.push(...walk.next(entry).map((broken) => brokenAt(entry, broken)));
    for (const upTo of ranges(batch)) {
      findings.push(...(await compareRows(db, merchant.id, { after: after.no, upTo: upTo.no, from })));
      after = upTo;
    }
  }
  findings.push(...(await compareHeads(db, input)));
  for (const stranger of await rowsWithoutEntry(db, merchant.id, from, findingsAtMost)) {
    const { table, act_id: actId, rows } = stranger;
    findings.push(
      finding('rows_without_entry', {
        actId,
        table,
        sealed: 0,
        present: rows,
        candidates: await presentRows(db, merchant.id, table, actId),
        detail: `${rows} rows of ${table} belong to an act that was never recorded`,
      }),
    );
  }
  const until = input.now.subtract({ minutes: sealedWithinMinutes });
  for (const { acts, at } of await unsealedTooLong(db, until, merchant.id)) {
    const detail = `${acts} acts wait to be sealed, the first since ${at}; seal them with: seikyu run trace`;
    findings.push(finding('unsealed', { at, present: acts, detail }));
  }
  const { head } = await headAndLast(db, merchant.id);
  return {
    merchant: merchant.code,
    holds: findings.length === 0,
    entries,
    head,
    findings: findings.slice(0, findingsAtMost),
  };
}

const brokenAt = (entry: Entry, { what, no, detail }: Break): AuditFinding =>
  // What is missing or was put between is told at the entry after it, and is not that one's act.
  no === entry.no
    ? finding(what, { no, actId: entry.actId, actor: entry.actor, at: entry.at, detail })
    : finding(what, { no, detail });

/** Ends of ranges whose acts have together about as many rows as one statement should digest. */
function* ranges(batch: readonly Entry[]): Generator<Entry> {
  let rows = 0;
  for (const [index, entry] of batch.entries()) {
    rows += entry.transfers.count + entry.history.count;
    if (rows < rowsPerBatch && index < batch.length - 1) continue;
    yield entry;
    rows = 0;
  }
}

async function compareRows(
  db: Pick<Db, 'query'>,
  merchantId: number,
  range: { after: number; upTo: number; from: string },
): Promise<AuditFinding[]> {
  const findings: AuditFinding[] = [];
  for (const row of await differingActs(db, merchantId, range)) {
    const { no, table, act_id: actId, actor, at, sealed, present } = row;
    const what = sealed === present ? 'rows_changed' : sealed > present ? 'rows_removed' : 'rows_inserted';
    const detail = `${table} had ${sealed} rows of this act, ${
      sealed === present ? 'and they say something else now' : `now ${present}`
    }`;
    const candidates = await presentRows(db, merchantId, table, actId);
    findings.push(finding(what, { no, actId, actor, at, table, sealed, present, candidates, detail }));
  }
  for (const row of await sealedOtherwise(db, merchantId, range)) {
    const { no, act_id: actId, actor, at, earlier_no: earlier } = row;
    const detail = `rows that number ${earlier} had sealed were changed before number ${no} sealed the act again`;
    findings.push(finding('sealed_otherwise', { no, actId, actor, at, detail }));
  }
  return findings;
}

async function compareHeads(db: Pick<Db, 'query'>, input: VerifyAudit): Promise<AuditFinding[]> {
  const { head, last } = await headAndLast(db, input.merchant.id);
  const findings: AuditFinding[] = [];
  if (head.no > last.no)
    findings.push(
      finding('entry_removed', {
        no: last.no + 1,
        detail: `the head is number ${head.no}, the last entry ${last.no}`,
      }),
    );
  else if (head.no < last.no)
    findings.push(
      finding('entry_inserted', {
        no: head.no + 1,
        detail: `the head is number ${head.no}, and there are entries up to ${last.no}`,
      }),
    );
  else if (head.hash !== last.hash)
    findings.push(
      finding('head_differs', {
        no: head.no,
        detail: `number ${head.no} is not the one that the head was moved to`,
      }),
    );
  const given = input.head;
  if (given === null || given.no === 0) return findings;
  const hashes = await hashesAt(db, input.merchant.id, given.no);
  if (!hashes.includes(given.hash)) {
    const detail =
      hashes.length === 0
        ? `there is no number ${given.no}`
        : `number ${given.no} has the hash ${hashes.join(' or ')}: the chain up to it was written anew`;
    findings.push(finding('given_head_differs', { no: given.no, detail }));
  }
  return findings;
}
