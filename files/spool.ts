import type { Disk } from '../billing/ports.ts';

const pieceCharacters = 65_536;

/** Writes values as lines of JSON, so that none of them is held in memory. Returns how many there were. */
export async function spool<T>(disk: Disk, path: string, values: AsyncIterable<T>): Promise<number> {
  let count = 0;
  const pieces = async function* (): AsyncIterable<Uint8Array> {
    let text = '';
    for await (const value of values) {
      count += 1;
      text += `${JSON.stringify(value)}\n`;
      if (text.length > pieceCharacters) {
        yield Buffer.from(text, 'utf8');
        text = '';
      }
    }
    yield Buffer.from(text, 'utf8');
  };
  await disk.write(path, pieces());
  return count;
}

/** What `spool` wrote, in its order. */
export async function* unspool<T>(disk: Disk, path: string): AsyncIterable<T> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  for await (const part of disk.read(path)) {
    const lines = (rest + decoder.decode(part, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield JSON.parse(line) as T;
  }
}
