import { Temporal } from 'temporal-polyfill';
import { addBankDays } from '../../billing/calendar/bank-days.ts';
import type { DirectDebitSettings } from '../../billing/merchants/settings.ts';
import { resolveDebitDay } from '../../files/zengin91/debit-day.ts';
import { type DebitBatch, type DebitRecord, totalsOf } from '../../files/zengin91/file.ts';
import { readDebits } from '../../files/zengin91/read.ts';
import { writeDebits } from '../../files/zengin91/write.ts';
import { pick } from '../demo/people.ts';
import type { Baton } from './baton.ts';
import type { Chance } from './chance.ts';
import type { FaultProfile, Faults } from './faults.ts';
import type { SimulatedMerchant } from './merchants.ts';
import type { RemoteFile, StoreTruth } from './store.ts';

/** A record of a request as the bank has it. */
export interface AskedDebit {
  /** The request file. */
  file: string;
  /** The customer number of the record: the merchant's key for its bill. */
  key: string;
  amount: number;
  /** What really becomes of it, by its code; null: its day has not come. With `0` the money is taken. */
  fate: string | null;
  /** Codes that files which count have told, in their order, and when each came. */
  told: { code: string; atMs: number }[];
}

interface AskedFile {
  name: string;
  batches: readonly DebitBatch[];
  debits: AskedDebit[];
  answers: number;
  /** Every debit has been told as it is. */
  isComplete: boolean;
}

/** No answer, and a code that nobody knows: the money may be gone. */
export const inconclusive: ReadonlySet<string> = new Set(['N', '7']);

const zone = 'Asia/Tokyo';
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const otherCreditor = '9999999999';

/** What is wrong with a file that must not count; the right one follows. */
const damages = ['cutOff', 'wrongSum', 'recordMissing', 'recordForeign'] as const;
type Damage = (typeof damages)[number];

/**
 * The agency that debits the accounts of one merchant's customers: it takes requests from its own server, takes the money on
 * their day, and answers with files. It knows what it took; what its files say of that may be late, wrong, double or nothing.
 */
export class BankTruth {
  readonly store: StoreTruth;
  readonly merchant: SimulatedMerchant;
  /** Its server, as the merchant's settings have it. */
  readonly exchange: DirectDebitSettings['exchange'];
  readonly debits: AskedDebit[] = [];
  /** Requests that it has. */
  readonly taken = new Set<string>();
  /** Files of its own by mistake: whoever asks is told not to count them. */
  readonly withdrawn = new Set<string>();
  /** Told at the moment when a request is taken, and when money is. */
  onAsked: (debit: AskedDebit) => Promise<void> = async () => undefined;
  onTaken: (debit: AskedDebit) => Promise<void> = async () => undefined;
  readonly #baton: Baton;
  readonly #faults: Faults;
  /** Of its own: a merchant without a bank sees the same world as before. */
  readonly #chance: Chance;
  readonly #files: AskedFile[] = [];
  #others = 0;

  constructor(merchant: SimulatedMerchant, baton: Baton, faults: Faults, chance: Chance) {
    const { directDebit } = merchant.settings.autopay;
    if (directDebit === null) throw new Error(`impossible state: nobody debits for ${merchant.code}`);
    this.merchant = merchant;
    this.#baton = baton;
    this.#faults = faults;
    this.#chance = chance;
    this.exchange = directDebit.exchange;
    this.store = { files: new Map(), onChange: async () => undefined };
  }

  get #odds(): FaultProfile['bank'] {
    return this.#faults.profile.bank;
  }

  get hasResults(): boolean {
    return [...this.store.files.keys()].some((path) => path.startsWith(`${this.exchange.inbound}/`));
  }

  isOthers(path: string): boolean {
    return path.startsWith(`${this.exchange.inbound}/other_`);
  }

  planDay(midnightMs: number): void {
    for (const hour of [10, 15, 20])
      this.#baton.at(midnightMs + hour * hourMs, 'the bank looks for requests', () => this.#collect());
    if (!this.#chance.hits(this.#odds.othersResult)) return;
    this.#baton.at(midnightMs + 5 * hourMs, 'a result for somebody else appears', () => this.#putOthers());
  }

  /** Faults have ended: what was left open is told. */
  catchUp(): void {
    for (const file of this.#files) if (file.answers > 0) this.#complete(file);
  }

  #collect(): void {
    const { files } = this.store;
    for (const [path, { bytes }] of [...files]) {
      const name = path.slice(this.exchange.outbound.length + 1);
      if (
        !path.startsWith(`${this.exchange.outbound}/`) ||
        name.startsWith('.') ||
        !files.has(`${path}.done`)
      )
        continue;
      files.delete(path);
      files.delete(`${path}.done`);
      this.taken.add(name);
      this.#take(name, bytes);
    }
  }

  #take(name: string, bytes: Buffer): void {
    const { file, fault } = readDebits(bytes);
    if (file === undefined) throw new Error(`the bank cannot read ${name}: ${fault.code} in ${fault.record}`);
    const debits = file.batches.flatMap((batch) =>
      batch.debits.map(({ customerNumber, amount }): AskedDebit => {
        return { file: name, key: customerNumber, amount, fate: null, told: [] };
      }),
    );
    const asked = { name, batches: file.batches, debits, answers: 0, isComplete: false };
    this.#files.push(asked);
    this.debits.push(...debits);
    for (const debit of debits) void this.onAsked(debit);
    const [, year, month, day] = /_(\d{4})(\d{2})(\d{2})_/.exec(name) ?? [];
    const on = resolveDebitDay(file.batches[0]?.header.debitDay ?? '', `${year}-${month}-${day}`, 'forward');
    if (on === null) throw new Error(`the bank does not know the day of ${name}`);
    // A request that came too late is done when it came.
    const day10 = Temporal.PlainDate.from(on).toZonedDateTime(zone).epochMilliseconds + 10 * hourMs;
    const takesAtMs = Math.max(day10, this.#baton.nowMs + hourMs);
    this.#baton.at(takesAtMs, `the bank debits ${name}`, () => {
      for (const debit of debits) {
        debit.fate = this.#drawFate();
        if (debit.fate === '0') void this.onTaken(debit);
      }
      this.#answerAfter(asked, 1);
    });
  }

  /** Refusals are what banks say every day: no fault, and they go on when faults have ended. */
  #drawFate(): string {
    return pick(this.#chance.next(), [
      [62, '0'],
      [18, '1'],
      [4, '2'],
      [4, '3'],
      [4, '4'],
      [2, '8'],
      [3, '9'],
      [3, 'E'],
    ]);
  }

  #answerAfter(file: AskedFile, bankDays: number): void {
    const on = addBankDays(this.#today(), bankDays);
    const atMs = on.toZonedDateTime(zone).epochMilliseconds + this.#chance.between(3, 18) * hourMs;
    this.#baton.at(atMs, `the bank answers ${file.name}`, () => {
      if (this.#chance.hits(this.#odds.late)) this.#answerAfter(file, this.#chance.between(1, 2));
      else this.#answer(file);
    });
  }

  #today(): Temporal.PlainDate {
    return this.#baton.now().toZonedDateTimeISO(zone).toPlainDate();
  }

  #answer(file: AskedFile): void {
    const odds = this.#odds;
    const codes = file.debits.map(({ fate }) => {
      if (this.#chance.hits(odds.unanswered)) return this.#chance.hits(0.7) ? 'N' : '7';
      // The bank is wrong: it took the money, and says so days later.
      return fate === '0' && this.#chance.hits(odds.tookAfterAll) ? '1' : (fate ?? '');
    });
    const isOpen = codes.some((code, index) => code !== file.debits[index]?.fate);
    file.isComplete = !isOpen;
    const damage = damages.find((each) => this.#chance.hits(odds[each]));
    let afterMs = 0;
    let name = this.#nameOf(file);
    if (damage !== undefined) {
      this.#put(name, this.#damaged(file, codes, damage), 0, null);
      afterMs = this.#chance.between(3, 30) * hourMs;
      // Some give the right one the name of the wrong one.
      if (this.#chance.hits(0.5)) name = this.#nameOf(file);
    }
    const bytes = this.#bytesOf(file, codes);
    this.#put(name, bytes, afterMs, () => this.#tell(file, codes));
    const later = () => afterMs + this.#chance.between(2, 60) * hourMs;
    if (this.#chance.hits(odds.again)) this.#put(name, bytes, later(), null);
    if (this.#chance.hits(odds.againOtherwise)) this.#put(this.#nameOf(file), bytes, later(), null);
    if (this.#chance.hits(odds.secondSame))
      this.#put(this.#nameOf(file), this.#bytesOf(file, codes, '\n'), later(), () => this.#tell(file, codes));
    if (this.#chance.hits(odds.secondWrong)) {
      const wrong = this.#nameOf(file);
      this.withdrawn.add(wrong);
      const others = codes.map((code) => (code === '0' ? '1' : '0'));
      this.#put(wrong, this.#bytesOf(file, others), later(), null);
    }
    if (isOpen) {
      const atMs = this.#baton.nowMs + later() + this.#chance.between(1, 5) * dayMs;
      this.#baton.at(atMs, `the bank completes ${file.name}`, () => this.#complete(file));
    }
  }

  /** A second file with every debit as it is. */
  #complete(file: AskedFile): void {
    if (file.isComplete) return;
    file.isComplete = true;
    const codes = file.debits.map(({ fate }) => fate ?? '');
    this.#put(this.#nameOf(file), this.#bytesOf(file, codes), 0, () => this.#tell(file, codes));
  }

  #tell(file: AskedFile, codes: readonly string[]): void {
    for (const [index, debit] of file.debits.entries())
      debit.told.push({ code: codes[index] ?? '', atMs: this.#baton.nowMs });
  }

  #nameOf(file: AskedFile): string {
    file.answers += 1;
    const stem = file.name.replace('debit_', 'result_').replace('.txt', '');
    return file.answers === 1 ? `${stem}.txt` : `${stem}_${file.answers}.txt`;
  }

  #bytesOf({ batches }: AskedFile, codes: readonly string[], framing: '\r\n' | '\n' = '\r\n'): Buffer {
    return bytesOf(batches, framing, (debits) =>
      debits.map((debit, index) => ({ ...debit, resultCode: codes[index] ?? '' })),
    );
  }

  #damaged(file: AskedFile, codes: readonly string[], damage: Damage): Buffer {
    const whole = this.#bytesOf(file, codes);
    if (damage === 'cutOff') return whole.subarray(0, this.#chance.between(1, whole.length - 3));
    if (damage === 'wrongSum') {
      // The sums of the trailer, one yen off: it stands before the end record, each with its line end.
      const wrong = Buffer.from(whole);
      const at = whole.length - 2 * 122 + 18;
      wrong[at] = wrong[at] === 0x39 ? 0x38 : (wrong[at] ?? 0) + 1;
      return wrong;
    }
    const answered = (debits: readonly DebitRecord[]) =>
      debits.map((debit, index) => ({ ...debit, resultCode: codes[index] ?? '' }));
    return bytesOf(file.batches, '\r\n', (debits) => {
      const [first, ...rest] = answered(debits);
      if (first === undefined) return [];
      if (damage === 'recordMissing' && rest.length > 0) return rest;
      return [first, ...rest, { ...first, customerNumber: '99999999999999999999', resultCode: '0' }];
    });
  }

  /** Perhaps growing; its control file last. `counts`: it is whole and right, and what it says has been said. */
  #put(name: string, bytes: Buffer, afterMs: number, counts: (() => void) | null): void {
    const path = `${this.exchange.inbound}/${name}`;
    const pieces = this.#chance.hits(this.#odds.slowWrite) ? 3 : 1;
    const file = (of: Buffer): RemoteFile => ({ bytes: of, modifiedAtMs: this.#baton.nowMs });
    for (let piece = 1; piece <= pieces; piece += 1) {
      const label = `the bank writes ${name} ${piece}/${pieces}`;
      this.#baton.at(this.#baton.nowMs + afterMs + (piece - 1) * 600_000, label, () => {
        // Of an earlier file of the name: it would call complete what is being written.
        if (piece === 1) this.store.files.delete(`${path}.done`);
        this.store.files.set(path, file(bytes.subarray(0, Math.ceil((bytes.length * piece) / pieces))));
      });
    }
    this.#baton.at(this.#baton.nowMs + afterMs + pieces * 600_000, `the bank completes ${name}`, () => {
      this.store.files.set(`${path}.done`, file(Buffer.alloc(0)));
      counts?.();
    });
  }

  /** Several creditors share the folder; the other one takes its file away in the evening. */
  #putOthers(): void {
    const [file] = this.#files;
    if (file === undefined) return;
    this.#others += 1;
    const path = `${this.exchange.inbound}/other_${this.#others}.txt`;
    const batches = file.batches.map((batch) => ({
      ...batch,
      header: { ...batch.header, consignorCode: otherCreditor },
    }));
    const bytes = bytesOf(batches, '\r\n', (debits) => debits);
    this.store.files.set(path, { bytes, modifiedAtMs: this.#baton.nowMs });
    this.store.files.set(`${path}.done`, { bytes: Buffer.alloc(0), modifiedAtMs: this.#baton.nowMs });
    this.#baton.at(this.#baton.nowMs + 16 * hourMs, 'the other creditor takes its result', () => {
      this.store.files.delete(path);
      this.store.files.delete(`${path}.done`);
    });
  }
}

function bytesOf(
  batches: readonly DebitBatch[],
  framing: '\r\n' | '\n',
  answered: (debits: readonly DebitRecord[]) => readonly DebitRecord[],
): Buffer {
  return writeDebits({
    framing,
    endsWithFraming: true,
    batches: batches.map(({ header, debits }) => {
      const told = answered(debits);
      return { header, debits: told, trailer: totalsOf(told, true) };
    }),
  });
}
