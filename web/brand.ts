/** A merchant's one colour as a stylesheet that stays readable on light and on dark. */

type Rgb = readonly [number, number, number];

const white: Rgb = [255, 255, 255];
const black: Rgb = [0, 0, 0];
const darkInk: Rgb = [20, 22, 28];
const darkCard: Rgb = [30, 33, 41];

/** WCAG 2.2, contrast of text: AA. */
const readable = 4.5;

export function isColor(color: string): boolean {
  return /^[0-9a-f]{6}$/.test(color);
}

/** `color`: six hexadecimal digits. */
export function brandStyle(color: string): string {
  const brand = rgbOf(color);
  const onBrand = contrast(brand, white) >= contrast(brand, darkInk) ? white : darkInk;
  const ink = moveUntilReadable(brand, black, white);
  const lightInk = moveUntilReadable(brand, white, darkCard);
  return `:root{--brand:${css(brand)};--on-brand:${css(onBrand)};--act:${css(ink)};--on-act:#fff;}
@media (prefers-color-scheme:dark){:root{--act:${css(lightInk)};--on-act:${css(darkInk)};}}
`;
}

/** WCAG 2.2: (lighter + 0.05) / (darker + 0.05). */
export function contrast(one: Rgb, other: Rgb): number {
  const [a, b] = [luminance(one), luminance(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

export function rgbOf(color: string): Rgb {
  const part = (from: number) => Number.parseInt(color.slice(from, from + 2), 16);
  return [part(0), part(2), part(4)];
}

function luminance(color: Rgb): number {
  const [r, g, b] = color.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function moveUntilReadable(color: Rgb, towards: Rgb, background: Rgb): Rgb {
  for (let percent = 0; percent < 100; percent += 4) {
    const mixed = color.map((part, index) =>
      Math.round(part + (((towards[index] ?? 0) - part) * percent) / 100),
    ) as unknown as Rgb;
    if (contrast(mixed, background) >= readable) return mixed;
  }
  return towards;
}

const css = (color: Rgb): string => `#${color.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
