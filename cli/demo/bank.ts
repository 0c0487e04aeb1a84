import fs from 'node:fs';
import { join } from 'node:path';
import { Temporal } from 'temporal-polyfill';
import { addBankDays } from '../../billing/calendar/bank-days.ts';
import { resolveDebitDay } from '../../files/zengin91/debit-day.ts';
import { type DebitBatch, type DebitRecord, totalsOf } from '../../files/zengin91/file.ts';
import { readDebits } from '../../files/zengin91/read.ts';
import { writeDebits } from '../../files/zengin91/write.ts';
import { draw, pick } from './people.ts';

/** What a bank does with a debit: its result code by the record that asks for it. */
export type Fate = (debit: DebitRecord) => string;

export interface Answer {
  batches: readonly DebitBatch[];
  bytes: Buffer;
}

/** A bank's answer to a request file: the same records with a result each, and trailers that say what became of them. */
export function answerRequest(request: Uint8Array, fate: Fate): Answer {
  const { file, fault } = readDebits(request);
  if (file === undefined)
    throw new Error(`the bank refuses the request: ${fault.code} in record ${fault.record}`);
  const batches = file.batches.map(({ header, debits }) => {
    const answered = debits.map((debit) => ({ ...debit, resultCode: fate(debit) }));
    return { header, debits: answered, trailer: totalsOf(answered, true) };
  });
  return { batches, bytes: writeDebits({ framing: '\r\n', endsWithFraming: true, batches }) };
}

/** Bank days from the debit to its answer, and to the answers that were still missing in it. */
const answersAfter = 2;
const completesAfter = 8;

/** The demo's bank: its folders lie on the demo's SFTP server, and all that it remembers are the files in them. */
export class Bank {
  readonly #folder: string;
  readonly #seed: string;

  constructor(folder: string, seed: string) {
    this.#folder = folder;
    this.#seed = seed;
    for (const name of ['requests', 'results', 'asked'])
      fs.mkdirSync(join(folder, name), { recursive: true, mode: 0o700 });
  }

  /** Takes requests that are complete, and answers those whose day has come. */
  work(today: string): void {
    for (const name of this.#names('requests')) {
      if (!fs.existsSync(join(this.#folder, 'requests', `${name}.done`))) continue;
      fs.renameSync(join(this.#folder, 'requests', name), join(this.#folder, 'asked', name));
      fs.rmSync(join(this.#folder, 'requests', `${name}.done`));
    }
    for (const name of this.#names('asked')) {
      const request = fs.readFileSync(join(this.#folder, 'asked', name));
      const debitOn = Temporal.PlainDate.from(this.#debitDayOf(name, request));
      const isOn = (bankDays: number) => addBankDays(debitOn, bankDays).toString() === today;
      if (isOn(answersAfter)) {
        const { batches, bytes } = answerRequest(request, (debit) => this.#fateOf(name, debit));
        this.#put(name.replace('debit_', 'result_'), bytes);
        const isOpen = batches.some(({ debits }) => debits.some(({ resultCode }) => isMissing(resultCode)));
        if (!isOpen) fs.rmSync(join(this.#folder, 'asked', name));
      } else if (isOn(completesAfter)) {
        const { bytes } = answerRequest(request, (debit) => {
          const code = this.#fateOf(name, debit);
          return isMissing(code) ? '0' : code;
        });
        this.#put(name.replace('debit_', 'complete_'), bytes);
        fs.rmSync(join(this.#folder, 'asked', name));
      }
    }
  }

  #names(folder: string): string[] {
    const names = fs.readdirSync(join(this.#folder, folder));
    return names.filter((name) => !name.startsWith('.') && !name.endsWith('.done')).sort();
  }

  #debitDayOf(name: string, request: Buffer): string {
    const [, year, month, day] = /_(\d{4})(\d{2})(\d{2})_/.exec(name) ?? [];
    const header = readDebits(request).file?.batches[0]?.header;
    const on = resolveDebitDay(header?.debitDay ?? '', `${year}-${month}-${day}`, 'forward');
    if (on === null) throw new Error(`the bank does not know the day of ${name}`);
    return on;
  }

  /** By account and request: who was short of funds may have them next month. */
  #fateOf(name: string, debit: DebitRecord): string {
    return pick(draw(this.#seed, name, debit.bank, debit.account, 'debit'), [
      [80, '0'],
      [10, '1'],
      [2, '2'],
      [2, '3'],
      [2, '4'],
      [1, '8'],
      [2, 'N'],
      [1, '7'],
    ]);
  }

  #put(name: string, bytes: Buffer): void {
    const path = join(this.#folder, 'results', name);
    fs.writeFileSync(path, bytes);
    fs.writeFileSync(`${path}.done`, '');
  }
}

/** Not answered, and a code that nobody knows. */
function isMissing(code: string): boolean {
  return code === 'N' || code === '7';
}
