import bwipjs from 'bwip-js/generic';
import { assertState } from '../refusal.ts';

/** Ten modules stay white on both sides, or no scanner finds the first bar. */
const quietModules = 10;

/** GS1-128 in modules, the narrowest bar being one: where each bar begins and how wide it is. */
export interface BarcodeSymbol {
  widthModules: number;
  bars: { at: number; width: number }[];
}

/** `digits`: 44 of them, beginning with the application identifier 91. */
export function barcodeSymbol(digits: string): BarcodeSymbol {
  const [symbol] = bwipjs.raw('gs1-128', `(${digits.slice(0, 2)})${digits.slice(2)}`);
  assertState(symbol !== undefined && 'sbs' in symbol, 'gs1-128 is a symbol of bars');
  const bars: BarcodeSymbol['bars'] = [];
  let at = quietModules;
  // Bar, space, bar ... and a bar at the end.
  for (const [index, width] of symbol.sbs.entries()) {
    if (index % 2 === 0) bars.push({ at, width });
    at += width;
  }
  return { widthModules: at + quietModules, bars };
}
