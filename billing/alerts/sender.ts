import type { AlertLevel } from '../ports.ts';

/** What Seikyu needs of a way to reach its operators. Adapters stand beside this file. */

export interface AlertTold {
  /** The merchant's code; blank where it is not of one. */
  merchant: string;
  level: AlertLevel;
  cause: string;
  message: string;
  /** What to do, with the command that helps. */
  next: string;
  occurrences: number;
  /** ISO 8601 instants. */
  firstAt: string;
  lastAt: string;
}

/** Ids, counts, codes and commands only: a notice leaves the house unsealed. */
export interface Notice {
  /** The same each time it is sent: a receiver that knows it has had it before. */
  id: string;
  kind: 'alert' | 'digest' | 'test';
  /** 1 = told for the first time; more = it goes on. */
  number: number;
  alerts: readonly AlertTold[];
}

export type SendAnswer =
  | { kind: 'accepted' }
  /** Refused, broken off or without an answer: sent again under the same id. `why` is a code, never the receiver's text. */
  | { kind: 'not_accepted'; why: string };

export interface AlertSender {
  readonly channel: 'webhook' | 'mail';
  /** No call takes longer. */
  readonly callDeadlineMs: number;
  send(notice: Notice, signal: AbortSignal): Promise<SendAnswer>;
  close(): Promise<void>;
}
