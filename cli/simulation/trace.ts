import { createHash } from 'node:crypto';

const linesKept = 30;

/** What happened, in order. The hash is over all of it: two runs of one seed that differ anywhere differ here. */
export class Trace {
  readonly #hash = createHash('sha256');
  readonly #last: string[] = [];
  steps = 0;
  readonly #say: ((text: string) => void) | null;

  /** `say` hears every step. */
  constructor(say: ((text: string) => void) | null) {
    this.#say = say;
  }

  /** A step worth reading. */
  line(text: string): void {
    this.steps += 1;
    this.#hash.update(`${text}\n`);
    this.#say?.(text);
    this.#last.push(text);
    if (this.#last.length > linesKept) this.#last.shift();
  }

  /** Goes into the hash only. */
  note(text: string): void {
    this.#hash.update(`${text}\n`);
  }

  /** The last lines, oldest first. */
  last(): string[] {
    return [...this.#last];
  }

  digest(): string {
    return this.#hash.copy().digest('hex').slice(0, 16);
  }
}
