import fs from 'node:fs';
import { resolve } from 'node:path';
import type { LayoutFile } from '../billing/merchants/settings.ts';
import { parseLayout } from '../files/layouts/layout.ts';
import { LayoutRefusal } from '../files/layouts/spec.ts';

/** Layout files by their path relative to a folder, judged. */
export function layoutBeside(folder: string): (file: string) => LayoutFile | undefined {
  return (file) => {
    const path = resolve(folder, file);
    if (!fs.existsSync(path)) return undefined;
    const text = fs.readFileSync(path, 'utf8');
    try {
      return { name: parseLayout(text, file).name, text, problems: [] };
    } catch (error) {
      if (!(error instanceof LayoutRefusal)) throw error;
      return { name: file, text, problems: error.problems };
    }
  };
}
