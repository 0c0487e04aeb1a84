import type { MerchantSettings } from '../billing/merchants/settings.ts';
import { type Layout, parseLayout } from '../files/layouts/layout.ts';

const compiled = new WeakMap<MerchantSettings, Layout>();

/** The layout as it was when the settings were applied; null: the standard's. Its file is not read again. */
export function layoutOf(settings: MerchantSettings): Layout | null {
  const text = settings.layoutText ?? null;
  if (text === null) return null;
  const known = compiled.get(settings);
  if (known !== undefined) return known;
  const layout = parseLayout(text, settings.layout);
  compiled.set(settings, layout);
  return layout;
}
