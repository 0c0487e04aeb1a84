import { createHash } from 'node:crypto';
import type { Temporal } from 'temporal-polyfill';
import type { InwardKind } from '../../files/standard/names.ts';
import { draw, person } from './people.ts';

export interface DemoMerchant {
  code: string;
  /** First characters of its customer and billing numbers. */
  prefix: string;
  /** 1, 2, 3: keeps phone numbers apart. */
  no: number;
  /** Day of the month on which its file arrives, and the day of the next month on which bills fall due. */
  fileDay: number;
  dueDay: number;
  supply: string;
  /** Its settings say `reject: file`. */
  rejectsFiles?: boolean;
  unit: string;
  yenPerUnit: number;
}

export const demoMerchants: readonly DemoMerchant[] = [
  {
    code: 'minato-gas',
    prefix: 'MG',
    no: 1,
    fileDay: 25,
    dueDay: 28,
    supply: 'ガス料金',
    unit: 'm3',
    yenPerUnit: 187,
  },
  {
    code: 'kita-denryoku',
    prefix: 'KD',
    no: 2,
    fileDay: 26,
    dueDay: 28,
    supply: '電気料金',
    rejectsFiles: true,
    unit: 'kWh',
    yenPerUnit: 31,
  },
  {
    code: 'sakura-suido',
    prefix: 'SS',
    no: 3,
    fileDay: 27,
    dueDay: 27,
    supply: '水道料金',
    unit: 'm3',
    yenPerUnit: 164,
  },
];

export interface InboundFile {
  name: string;
  content: string;
  done: string;
}

/** A standard/1 file with its control file. */
export function inboundFile(
  merchant: string,
  kind: InwardKind,
  businessDate: string,
  sequence: number,
  records: readonly string[],
  sum: number,
): InboundFile {
  const name = `${kind}_${merchant}_${businessDate.replaceAll('-', '')}_${String(sequence).padStart(4, '0')}.csv`;
  const content = [
    `H,1,${merchant},${kind},${businessDate},${sequence}`,
    ...records,
    `T,${records.length},${sum}`,
    '',
  ].join('\r\n');
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
  fileDate: Temporal.PlainDate,
  sequence: number,
  bills: number,
  withFaults: boolean,
): BillingFile {
  const period = fileDate.toPlainYearMonth().toString();
  const nextMonth = fileDate.add({ months: 1 });
  const dueOn = nextMonth.with({ day: Math.min(merchant.dueDay, nextMonth.daysInMonth) }).toString();
  const records: string[] = [];
  const billingNumbers: string[] = [];
  let sum = 0;
  for (let index = 1; index <= bills; index++) {
    const customer = person(seed, merchant, index);
    const units = 8 + Math.floor(draw(seed, customer.customerNumber, period, 'use') * 60);
    const amount = 850 + units * merchant.yenPerUnit;
    const billingNumber = `${merchant.prefix}${period.slice(2).replace('-', '')}-${String(index).padStart(6, '0')}`;
    const isFaulty = withFaults && index % 331 === 7;
    records.push(
      [
        'D',
        billingNumber,
        customer.customerNumber,
        customer.name,
        customer.phone,
        '',
        isFaulty ? `${amount}.5` : amount,
        10,
        '',
        period,
        dueOn,
        '',
        `${fileDate.month}月分 ${merchant.supply} ${units}${merchant.unit}`,
      ].join(','),
    );
    if (!isFaulty) {
      sum += amount;
      billingNumbers.push(billingNumber);
    }
  }
  return {
    ...inboundFile(merchant.code, 'billing', fileDate.toString(), sequence, records, sum),
    billingNumbers,
  };
}

/** Takes back a few of the month's bills, and one that never was. */
export function cancelFile(
  seed: string,
  merchant: DemoMerchant,
  date: Temporal.PlainDate,
  sequence: number,
  billingNumbers: readonly string[],
): InboundFile {
  const chosen = billingNumbers.filter((number) => draw(seed, number, 'cancel') < 0.005);
  // Where one bad line refuses the file, there is none.
  const unknown = merchant.rejectsFiles ? [] : [`${merchant.prefix}0000-000000`];
  const records = [...chosen, ...unknown].map((number) => `D,${number},検針誤り`);
  return inboundFile(merchant.code, 'cancel', date.toString(), sequence, records, 0);
}
