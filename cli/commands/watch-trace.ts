import { watchTracer } from '../../billing/trace/watch.ts';
import type { System } from '../system.ts';

/** For commands: a demo's clock stands between two of them, and nobody is silent where no time passes. */
export async function watchTrace(system: System): Promise<void> {
  if (system.virtualClock === null) await watchTracer(system.ports);
}
