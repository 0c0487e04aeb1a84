import type { VNode } from 'preact';
import { jsxTemplate } from 'preact/jsx-runtime';
import { renderToString } from 'preact-render-to-string';

const rendered = new WeakMap<object, Map<string, string>>();

/**
 * A part that many pages have in common, rendered once: half of a bill's page says what every bill of the merchant says.
 * The part may depend on `of` (a version of a merchant's settings, the words of a language) and on what its name says, of
 * which there are few.
 */
export function kept(of: object, name: string, part: () => VNode): VNode {
  const parts = rendered.get(of) ?? new Map<string, string>();
  if (parts.size === 0) rendered.set(of, parts);
  let markup = parts.get(name);
  if (markup === undefined) {
    markup = renderToString(part());
    parts.set(name, markup);
  }
  // What a compiler of JSX makes of markup that stands still: not escaped a second time. Never for a text of our own.
  return jsxTemplate([markup]);
}
