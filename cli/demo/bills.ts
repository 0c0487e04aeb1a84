import { createHash } from 'node:crypto';
import type { Temporal } from 'temporal-polyfill';
import { encodeText } from '../../files/decode.ts';
import type { Layout } from '../../files/layouts/layout.ts';
import { billingBytes } from '../../files/layouts/write.ts';
import type { InwardKind } from '../../files/standard/names.ts';
import { draw, person } from './people.ts';

export interface DemoMerchant {
  code: string;
  /** First characters of its customer and billing numbers. */
  prefix: string;
  /** After the prefix: the waterworks' own records have ten bytes for the customer number, and all of them filled. */
  customerDigits: number;
  /** 1, 2, 3: keeps phone numbers apart. */
  no: number;
  /** Day of the month on which its file arrives, and the day of the next month on which bills fall due. */
  fileDay: number;
  dueDay: number;
  supply: string;
  /** What stands in its bills: the layouts of two say it themselves. */
  describe(month: number, units: number): string;
  /** Its settings say `reject: file`. */
  rejectsFiles?: boolean;
  /** Some of its customers have signed a mandate for their bank account. */
  hasMandates?: boolean;
  yenPerUnit: number;
}

export const demoMerchants: readonly DemoMerchant[] = [
  {
    code: 'minato-gas',
    prefix: 'MG',
    customerDigits: 6,
    no: 1,
    fileDay: 25,
    dueDay: 28,
    supply: 'ガス料金',
    describe: (month, units) => `${month}月分 ガス料金 ${units}m3`,
    yenPerUnit: 187,
  },
  {
    code: 'kita-denryoku',
    prefix: 'KD',
    customerDigits: 6,
    no: 2,
    fileDay: 26,
    dueDay: 28,
    supply: '電気料金',
    describe: (_, units) => `ご使用量 ${units} kWh`,
    rejectsFiles: true,
    yenPerUnit: 31,
  },
  {
    code: 'sakura-suido',
    prefix: 'SS',
    customerDigits: 8,
    no: 3,
    fileDay: 27,
    dueDay: 27,
    supply: '水道料金',
    describe: () => '水道料金',
    hasMandates: true,
    yenPerUnit: 164,
  },
];

export interface InboundFile {
  name: string;
  content: Buffer;
  done: string;
}

/** A file in the merchant's layout with its control file. Rows are D records of `standard/1`, without quotes. */
export function inboundFile(
  merchant: { code: string; layout: Layout | null },
  kind: InwardKind,
  businessDate: string,
  sequence: number,
  rows: readonly (readonly string[])[],
): InboundFile {
  const { code, layout } = merchant;
  const numbered = `${kind}_${code}_${businessDate.replaceAll('-', '')}_${String(sequence).padStart(4, '0')}.csv`;
  const own = kind === 'enrolment' ? undefined : layout?.inwardName(kind, businessDate, sequence);
  const name = own ?? numbered;
  const sum = rows.reduce((total, row) => total + (/^[0-9]+$/.test(row[6] ?? '') ? Number(row[6]) : 0), 0);
  const content =
    kind === 'billing' && layout?.kinds.has('billing')
      ? billingBytes(layout, { businessDate, sequence }, rows)
      : encodeText(
          [
            `H,1,${code},${kind},${businessDate},${sequence}`,
            ...rows.map((row) => row.join(',')),
            `T,${rows.length},${sum}`,
            '',
          ].join('\r\n'),
          layout?.encoding ?? 'utf-8',
        );
  const sha256 = createHash('sha256').update(content).digest('hex');
  return { name, content, done: `${sha256}  ${name}\n` };
}

export interface BillingFile extends InboundFile {
  billingNumbers: string[];
}

/** A month's bills of a merchant: one for each customer, and where `withFaults` a few lines that must be refused. */
export function billingFile(
  seed: string,
  merchant: DemoMerchant,
  layout: Layout | null,
  fileDate: Temporal.PlainDate,
  sequence: number,
  bills: number,
  withFaults: boolean,
): BillingFile {
  const period = fileDate.toPlainYearMonth().toString();
  const nextMonth = fileDate.add({ months: 1 });
  const dueOn = nextMonth.with({ day: Math.min(merchant.dueDay, nextMonth.daysInMonth) }).toString();
  const rows: string[][] = [];
  const billingNumbers: string[] = [];
  for (let index = 1; index <= bills; index++) {
    const customer = person(seed, merchant, index);
    const units = 8 + Math.floor(draw(seed, customer.customerNumber, period, 'use') * 60);
    const amount = 850 + units * merchant.yenPerUnit;
    const billingNumber = `${merchant.prefix}${period.slice(2).replace('-', '')}${String(index).padStart(6, '0')}`;
    const isFaulty = withFaults && index % 331 === 7;
    rows.push([
      'D',
      billingNumber,
      customer.customerNumber,
      customer.name,
      customer.phone,
      '',
      isFaulty ? `${amount}.5` : String(amount),
      '10',
      '',
      period,
      dueOn,
      '',
      merchant.describe(fileDate.month, units),
    ]);
    if (!isFaulty) billingNumbers.push(billingNumber);
  }
  return {
    ...inboundFile({ code: merchant.code, layout }, 'billing', fileDate.toString(), sequence, rows),
    billingNumbers,
  };
}

const holders = ['ｻﾄｳ ﾊﾅｺ', 'ｽｽﾞｷ ｹﾝ', 'タカハシ　ミサキ', 'ﾀﾅｶ ﾀﾞｲｽｹ', 'イトウ ヨウコ', 'ﾜﾀﾅﾍﾞ ﾏｺﾄ'];
const mandatesShare = 0.3;

/** The accounts of a part of the customers. */
export function enrolmentFile(
  seed: string,
  merchant: DemoMerchant,
  layout: Layout | null,
  date: Temporal.PlainDate,
  sequence: number,
  customers: number,
): InboundFile {
  const rows: string[][] = [];
  for (let index = 1; index <= customers; index++) {
    const { customerNumber } = person(seed, merchant, index);
    if (draw(seed, customerNumber, 'mandate') >= mandatesShare) continue;
    const account = `0001-${100 + (index % 800)}-1-${String(7_100_000 + index)}`;
    const holder = holders[Math.floor(draw(seed, customerNumber, 'holder') * holders.length)] ?? '';
    rows.push(['D', customerNumber, '', 'start', 'bank', account, holder, date.toString()]);
  }
  return inboundFile({ code: merchant.code, layout }, 'enrolment', date.toString(), sequence, rows);
}

/** Takes back a few of the month's bills, and one that never was. */
export function cancelFile(
  seed: string,
  merchant: DemoMerchant,
  layout: Layout | null,
  date: Temporal.PlainDate,
  sequence: number,
  billingNumbers: readonly string[],
): InboundFile {
  const chosen = billingNumbers.filter((number) => draw(seed, number, 'cancel') < 0.005);
  // Where one bad line refuses the file, there is none.
  const unknown = merchant.rejectsFiles ? [] : [`${merchant.prefix}0000-000000`];
  const rows = [...chosen, ...unknown].map((number) => ['D', number, '検針誤り']);
  return inboundFile({ code: merchant.code, layout }, 'cancel', date.toString(), sequence, rows);
}
