import fs from 'node:fs';
import { join } from 'node:path';

/** The program's own text, for the tests that hold the house rules. Paths are relative to the checkout, with slashes. */

export const checkout = join(import.meta.dirname, '..');

/** Folders that ship. */
export const rooms = ['billing', 'cli', 'files', 'jobs', 'migrations', 'web'] as const;

export function read(path: string): string {
  return fs.readFileSync(join(checkout, path), 'utf8');
}

export function filesUnder(folder: string, pattern: RegExp): string[] {
  const root = join(checkout, folder);
  if (!fs.existsSync(root)) return [];
  return fs
    .readdirSync(root, { recursive: true, encoding: 'utf8' })
    .map((path) => join(folder, path).replaceAll('\\', '/'))
    .filter((path) => pattern.test(path) && !/(^|\/)(node_modules|dist|var)\//.test(path))
    .sort();
}

export interface Literal {
  text: string;
  line: number;
}

export interface Source {
  path: string;
  /** Comments and the contents of literals are blanked; offsets and lines stay. */
  code: string;
  /** Strings, templates and regular expressions; a template's `${}` parts are code and stand here as `${}`. */
  literals: Literal[];
}

/**
 * Parts code from text. Enough of a scanner for formatted TypeScript: TypeScript 7 has no compiler API to ask.
 * Quoted strings end with their line, so that an apostrophe in a page's text costs one line at most.
 */
export function scan(path: string, text = read(path)): Source {
  const code = text.split('');
  const literals: Literal[] = [];
  const blank = (from: number, to: number) => {
    for (let at = from; at < to; at += 1) if (code[at] !== '\n') code[at] = ' ';
  };
  const lineOf = (at: number) => text.slice(0, at).split('\n').length;
  /** Open templates: the depth of braces at which each goes on, and what it holds so far. */
  const templates: { depth: number; text: string; line: number }[] = [];
  let depth = 0;
  let at = 0;
  let before = '';
  const template = () => {
    const open = templates.at(-1);
    if (open === undefined) return;
    const from = at;
    while (at < text.length && text[at] !== '`' && !text.startsWith('${', at))
      at += text[at] === '\\' ? 2 : 1;
    open.text += text.slice(from, at);
    blank(from, Math.min(at, text.length));
    if (text[at] === '`') {
      templates.pop();
      literals.push({ text: open.text, line: open.line });
      at += 1;
      before = '`';
    } else {
      // biome-ignore lint/suspicious/noTemplateCurlyInString: as it stands in the source
      open.text += '${}';
      at += 2;
      depth += 1;
      before = '{';
    }
  };
  while (at < text.length) {
    const character = text[at] as string;
    if (text.startsWith('//', at) || text.startsWith('/*', at)) {
      const from = at;
      const end = text[at + 1] === '/' ? text.indexOf('\n', at) : text.indexOf('*/', at) + 2;
      at = end <= 1 ? text.length : end;
      blank(from, at);
    } else if (character === "'" || character === '"' || (character === '/' && startsRegex(before))) {
      const from = at + 1;
      let inClass = false;
      at = from;
      while (at < text.length && text[at] !== '\n' && (text[at] !== character || inClass)) {
        if (character === '/' && text[at] === '[') inClass = true;
        if (text[at] === ']') inClass = false;
        at += text[at] === '\\' ? 2 : 1;
      }
      literals.push({ text: text.slice(from, at), line: lineOf(from) });
      blank(from, Math.min(at, text.length));
      at += 1;
      before = character;
    } else if (character === '`') {
      templates.push({ depth, text: '', line: lineOf(at) });
      at += 1;
      template();
    } else if (character === '}' && templates.at(-1)?.depth === depth - 1) {
      depth -= 1;
      at += 1;
      template();
    } else {
      if (character === '{') depth += 1;
      if (character === '}') depth -= 1;
      if (character.trim() !== '')
        before = /\w/.test(before.at(-1) ?? '') && /\w/.test(character) ? before + character : character;
      else if (/\w/.test(before.at(-1) ?? '') && !/^(return|typeof|case|in|of|await)$/.test(before))
        before = 'a';
      at += 1;
    }
  }
  return { path, code: code.join(''), literals };
}

/** After an operator or an opening bracket a slash starts a regular expression; after a value it divides. */
function startsRegex(before: string): boolean {
  return (
    before === '' || /^(return|typeof|case|in|of|await)$/.test(before) || /[=(,:;!&|?{}[+>~^%*]$/.test(before)
  );
}

export interface Import {
  /** Path in the checkout, or the package's name. */
  target: string;
  /** Of this checkout, not a package. */
  ours: boolean;
  /** `import type`: gone when it runs. */
  typeOnly: boolean;
  /** Names taken; empty for `import x from` and `import()`. */
  names: string[];
  line: number;
}

export function importsOf(path: string, text = read(path)): Import[] {
  const found: Import[] = [];
  const forms = [
    /^(?:import|export)\s+(type\s+)?([^'";]*?)\s*from\s+['"]([^'"]+)['"]/gm,
    /^(import)\s+()['"]([^'"]+)['"]/gm,
    /\b(import)\(\s*()['"]([^'"]+)['"]\s*\)/g,
    /\bnew (URL)\(\s*()['"](\.{1,2}\/[^'"]+)['"],\s*import\.meta\.url\s*\)/g,
  ];
  for (const form of forms) {
    for (const match of text.matchAll(form)) {
      const [, type = '', names = '', target = ''] = match;
      const line = text.slice(0, match.index).split('\n').length;
      found.push({
        target: target.startsWith('.') ? join(path, '..', target).replaceAll('\\', '/') : target,
        ours: target.startsWith('.'),
        typeOnly: type.startsWith('type') || /^\{(\s*type\s+[^,}]+,?)+\s*\}$/.test(names),
        names: [...names.matchAll(/\b(?:type\s+)?([A-Za-z_$][\w$]*)/g)].map((name) => name[1] as string),
        line,
      });
    }
  }
  return found;
}
