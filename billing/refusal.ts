/**
 * An expected refusal: bad settings, bad input, a state that forbids the act. Carries a stable code, the facts,
 * and what the person can do next. Everything that is not a Refusal is a defect or an outage and stops the run.
 */
export class Refusal extends Error {
  readonly code: string;
  readonly context: Record<string, string | number | boolean | null>;
  readonly next: string;
  /** 2 = wrong usage or settings, 1 = failed, 3 = wants a person. */
  readonly exitCode: 1 | 2 | 3;

  constructor(
    code: string,
    message: string,
    options: {
      next: string;
      context?: Record<string, string | number | boolean | null>;
      exitCode?: 1 | 2 | 3;
      cause?: unknown;
    },
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'Refusal';
    this.code = code;
    this.context = options.context ?? {};
    this.next = options.next;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** States that cannot be: stop the run rather than go on wrong. */
export function assertState(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`impossible state: ${message}`);
}
