import { uuidOf } from '../ids.ts';
import { Refusal } from '../refusal.ts';

/** A list of the outside may hold a million lines: so many at a time. */
export async function* batchesOf<Item>(list: AsyncIterable<Item>, size: number): AsyncGenerator<Item[]> {
  let batch: Item[] = [];
  for await (const item of list) {
    batch.push(item);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

/** Null: none of our references. */
export function chargeIdOf(reference: string | null): string | null {
  if (reference === null) return null;
  try {
    return uuidOf(reference);
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}
