import fs from 'node:fs';
import { join } from 'node:path';
import { type Layout, parseLayout } from '../files/layouts/layout.ts';
import { billingBytes } from '../files/layouts/write.ts';
import { readStandardFile } from '../files/standard/read.ts';
import { against, type BenchWith, median, rounded } from './figure.ts';

const businessDate = '2026-11-25';
const rounds = 3;

/**
 * The same bills decoded, cut, mapped and checked: as `standard/1` in UTF-8, as a quoted Shift_JIS CSV with titles and as
 * fixed width in Shift_JIS, by turns. No database, no disk.
 */
export const decodeBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const bills = billsOf(lines);
  const csv = sampleLayout('kita-denryoku', (text) => `${text}quote_all: true\n`);
  const fixed = sampleLayout('sakura-suido');
  const about = { businessDate, sequence: 1 };
  const files = {
    standard: { layout: null, bytes: standardFile(bills) },
    csv: {
      layout: csv,
      bytes: billingBytes(
        csv,
        about,
        bills.map((bill) => bill.csv),
      ),
    },
    fixed: {
      layout: fixed,
      bytes: billingBytes(
        fixed,
        about,
        bills.map((bill) => bill.fixed),
      ),
    },
  };
  const seconds = { standard: [] as number[], csv: [] as number[], fixed: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    for (const name of ['standard', 'csv', 'fixed'] as const) {
      const from = performance.now();
      await readWhole(files[name].layout, files[name].bytes, lines);
      seconds[name].push((performance.now() - from) / 1000);
    }
  }
  const speed = (name: keyof typeof seconds): number => lines / median(seconds[name]);
  report({
    name: 'decode_standard_utf8',
    value: rounded(speed('standard')),
    unit: 'lines/s',
    better: 'higher',
  });
  for (const [name, what] of [
    ['csv', 'decode_csv_shift_jis'],
    ['fixed', 'decode_fixed_shift_jis'],
  ] as const) {
    report({
      name: what,
      value: rounded(speed(name)),
      unit: 'lines/s',
      better: 'higher',
      baseline: against('standard/1 in UTF-8', speed('standard'), 'lines/s', speed(name)),
    });
  }
};

function sampleLayout(merchant: string, change: (text: string) => string = (text) => text): Layout {
  const path = join(import.meta.dirname, '../cli/demo/samples', merchant, 'layout.yaml');
  return parseLayout(change(fs.readFileSync(path, 'utf8')), path);
}

interface Bill {
  standard: string[];
  csv: string[];
  fixed: string[];
}

/** The same of each bill as far as the layouts go; what two of them say of every line is left to them. */
function billsOf(lines: number): Bill[] {
  return Array.from({ length: lines }, (_, index) => {
    const number = String(index + 1).padStart(8, '0');
    const amount = String(1_000 + ((index * 7_919) % 20_000));
    const bill = (description: string) => [
      'D',
      `B-${number}`,
      `00${number}`,
      `髙島 花子${index % 97}`,
      `0901${number.slice(1)}`,
      '',
      amount,
      '10',
      '',
      '2026-11',
      `2026-12-${20 + (index % 8)}`,
      index % 5 === 0 ? 'auto' : 'link',
      description,
    ];
    return {
      standard: bill('11月分 水道料金'),
      csv: bill(`ご使用量 ${index % 300} kWh`),
      fixed: bill('水道料金'),
    };
  });
}

function standardFile(bills: readonly Bill[]): Buffer {
  const sum = bills.reduce((total, { standard }) => total + Number(standard[6]), 0);
  return Buffer.from(
    [
      `H,1,bench,billing,${businessDate},1`,
      ...bills.map(({ standard }) => standard.join(',')),
      `T,${bills.length},${sum}`,
      '',
    ].join('\n'),
  );
}

async function readWhole(layout: Layout | null, bytes: Buffer, lines: number): Promise<void> {
  let accepted = 0;
  for await (const { verdict } of readStandardFile(pieces(bytes), {
    encoding: layout?.encoding ?? 'utf-8',
    layout: layout?.kinds.get('billing') ?? null,
    businessDate,
    merchant: 'bench',
    kind: 'billing',
  })) {
    if (verdict?.fileCode) throw new Error(`the file is refused: ${verdict.fileCode}`);
    accepted = verdict?.linesAccepted ?? accepted;
  }
  if (accepted !== lines) throw new Error(`${accepted} of ${lines} lines were accepted`);
}

async function* pieces(content: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}
