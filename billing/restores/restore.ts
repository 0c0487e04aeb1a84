import { Temporal } from 'temporal-polyfill';
import { Refusal } from '../refusal.ts';

/** What is learned from the outside after the database was put back, in this order for each merchant. */
export const steps = ['files', 'messages', 'charges', 'told'] as const;
export type Step = (typeof steps)[number];

export interface OpenRestore {
  id: string;
  began_at: string;
  begun_by: string;
  why: string;
  /** What happened outside from then on may be forgotten here. */
  forgotten_from: string;
}

/** Clocks differ, and what was under way at the time of the backup had its effect a little later or earlier. */
const marginHours = 1;

export function listedFrom(restore: OpenRestore): Temporal.Instant {
  return Temporal.Instant.from(restore.forgotten_from).subtract({ hours: marginHours });
}

/** Thrown in the transaction that would let money or a message out: nothing of it stands. */
export function restsInSafeMode(): Refusal {
  return new Refusal('SAFE_MODE', 'the database was put back to an older state, so nothing leaves it now', {
    next: 'Look with: seikyu restore status. Learn what it has forgotten with: seikyu restore reconcile',
    exitCode: 3,
  });
}
