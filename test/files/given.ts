import { readFileSync } from 'node:fs';
import type { FileEncoding } from '../../files/decode.ts';
import { type Layout, parseLayout } from '../../files/layouts/layout.ts';
import type { InwardKind } from '../../files/standard/names.ts';
import {
  type FileVerdict,
  type InwardLayout,
  type ReadLine,
  readStandardFile,
} from '../../files/standard/read.ts';
import type { LineOf } from '../../files/standard/validate.ts';

export const sampleFolder = new URL('../../cli/demo/samples/minato-gas/', import.meta.url);

export function sample(name: string): Buffer {
  return readFileSync(new URL(name, sampleFolder));
}

export async function* chunks(...parts: readonly (Uint8Array | string)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield typeof part === 'string' ? Buffer.from(part) : part;
}

/** The first byte alone, then pieces of `size`: chunks end inside characters, quotes and line ends. */
export async function* cut(content: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += size) yield content.subarray(at, at + size);
}

export interface Given {
  encoding?: FileEncoding;
  merchant?: string;
  layout?: InwardLayout | null;
  businessDate?: string;
  recordBytesMax?: number;
  fileBytesMax?: number;
  batchLines?: number;
}

export interface WholeFile<K extends InwardKind> {
  lines: ReadLine<LineOf[K]>[];
  verdict: FileVerdict;
}

export async function readAll<K extends InwardKind>(
  kind: K,
  content: AsyncIterable<Uint8Array>,
  given: Given = {},
): Promise<WholeFile<K>> {
  const lines: ReadLine<LineOf[K]>[] = [];
  let verdict: FileVerdict | null = null;
  for await (const batch of readStandardFile(content, {
    encoding: 'utf-8',
    merchant: 'minato-gas',
    kind,
    ...given,
  })) {
    if (verdict !== null) throw new Error('a batch after the verdict');
    lines.push(...batch.lines);
    verdict = batch.verdict;
  }
  if (verdict === null) throw new Error('no verdict');
  return { lines, verdict };
}

export const goodFields = {
  type: 'D',
  billing_number: 'B-1',
  customer_number: 'C-1',
  customer_name: '鈴木 花子',
  phone: '090-1234-5678',
  email: '',
  amount: '2617',
  tax_rate: '10',
  tax_amount: '',
  billing_period: '2026-11',
  due_date: '2026-12-28',
  collection: '',
  description: '11月分',
};

export function billingFields(changes: Partial<typeof goodFields> = {}): string[] {
  return Object.values({ ...goodFields, ...changes });
}

/** A billing file with a right trailer around the given lines. */
export function billingFile(
  lines: readonly string[],
  trailer: { count?: number; total?: number } = {},
): string {
  const total = lines.reduce((sum, line) => {
    const amount = line.split(',')[6] ?? '';
    return /^[0-9]+$/.test(amount) ? sum + Number(amount) : sum;
  }, 0);
  return [
    'H,1,minato-gas,billing,2026-11-25,1',
    ...lines,
    `T,${trailer.count ?? lines.length},${trailer.total ?? total}`,
    '',
  ].join('\n');
}

/** A layout of the samples, perhaps changed. */
export function sampleLayout(merchant: string, change: (text: string) => string = (text) => text): Layout {
  return parseLayout(change(sampleOf(merchant, 'layout.yaml').toString()), `${merchant}.yaml`);
}

export function sampleOf(merchant: string, name: string): Buffer {
  return readFileSync(new URL(`../${merchant}/${name}`, sampleFolder));
}

/** How a file of bills in this layout is read. */
export function readingBy(layout: Layout, businessDate = '2026-11-25'): Given {
  return { encoding: layout.encoding, layout: layout.kinds.get('billing') ?? null, businessDate };
}
