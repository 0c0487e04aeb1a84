/**
 * While one write is under way, what comes in waits and goes with the next: under load a transaction carries many. Each
 * caller hears of the write that its item was in.
 */
export function gather<Item, Result>(
  write: (items: readonly Item[]) => Promise<Result>,
): (item: Item) => Promise<Result> {
  let waiting: Item[] = [];
  let next: Promise<Result> | null = null;
  let before: Promise<unknown> = Promise.resolve();
  return (item) => {
    waiting.push(item);
    next ??= (() => {
      const written = before.then(() => {
        const items = waiting;
        waiting = [];
        next = null;
        return write(items);
      });
      // A write that failed is its callers' matter, and not of the next.
      before = written.catch(() => null);
      return written;
    })();
    return next;
  };
}
