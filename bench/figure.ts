/** One measured number. */
export interface Figure {
  name: string;
  value: number;
  unit: string;
  better: 'lower' | 'higher';
  /** What it is compared with, measured in the same run on the same machine; `ratio` = value / baseline. */
  baseline?: { name: string; value: number; unit: string; ratio: number };
}

/** A benchmark reports its figures as it gets them. */
export type Bench = (report: (figure: Figure) => void) => Promise<void>;
export type BenchWith<Options> = (report: (figure: Figure) => void, options: Options) => Promise<void>;

export function against(name: string, value: number, unit: string, measured: number): Figure['baseline'] {
  return { name, value: rounded(value), unit, ratio: rounded(measured / value) };
}

/** Three significant digits are more than a busy machine can repeat. */
export function rounded(value: number): number {
  return Number(value.toPrecision(3));
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
