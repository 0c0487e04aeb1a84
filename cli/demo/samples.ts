import fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Layout, parseLayout } from '../../files/layouts/layout.ts';
import type { InboundFile } from './bills.ts';

const samples = fileURLToPath(new URL('./samples/', import.meta.url));

export function sampleFolder(merchant: string): string {
  return join(samples, merchant);
}

export function sample(merchant: string, name: string): string {
  return fs.readFileSync(join(samples, merchant, name), 'utf8');
}

/** The inward files of the samples, byte for byte, in the order of their names. */
export function sampleFiles(merchant: string): InboundFile[] {
  const folder = join(samples, merchant, 'inbound');
  return fs
    .readdirSync(folder)
    .filter((name) => !name.endsWith('.done'))
    .sort()
    .map((name) => ({
      name,
      content: fs.readFileSync(join(folder, name)),
      done: fs.readFileSync(join(folder, `${name}.done`), 'utf8'),
    }));
}

/** Null: the merchant sends the standard's files. */
export function sampleLayout(merchant: string): Layout | null {
  return fs.existsSync(join(samples, merchant, 'layout.yaml'))
    ? parseLayout(sample(merchant, 'layout.yaml'), `${merchant}/layout.yaml`)
    : null;
}
