import type { Temporal } from 'temporal-polyfill';
import type { Clock, Ids } from '../ports.ts';

/** Who or what changes something: a job's chunk, a visit to the pay page, a webhook, a command. */
export interface Act {
  merchantId: number;
  id: string;
  kind: 'job' | 'visit' | 'webhook' | 'command';
  /** `charge 2026-12-28 pass 1 chunk 3`, `checkout session <id>`, `operator@host`; never personal data. */
  actor: string;
  at: Temporal.Instant;
}

/** What an operator does now. */
export async function commandAct(
  ports: { clock: Clock; ids: Ids },
  merchantId: number,
  actor: string,
): Promise<Act> {
  await ports.clock.refresh();
  return { merchantId, id: ports.ids.uuid(), kind: 'command', actor, at: ports.clock.now() };
}

/** First day of the instant's month in UTC: the partition key of everything that is only appended. */
export function monthOf(instant: Temporal.Instant): string {
  return `${instant.toString().slice(0, 7)}-01`;
}

export function instantText(instant: Temporal.Instant): string {
  return instant.toString({ smallestUnit: 'microsecond' });
}
