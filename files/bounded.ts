/**
 * Passes content on until more than so many bytes have come, the surplus piece included, then stops reading: a server that
 * sends without end must cost neither the disk nor the night. Whoever counts sees that there was more.
 */
export async function* stopAfter(content: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let passed = 0;
  for await (const piece of content) {
    passed += piece.length;
    yield piece;
    if (passed > bytes) return;
  }
}
