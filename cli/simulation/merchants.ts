import type { Temporal } from 'temporal-polyfill';
import { parseDocument } from 'yaml';
import { type MerchantSettings, parseMerchantSettings } from '../../billing/merchants/settings.ts';
import type { Layout } from '../../files/layouts/layout.ts';
import { readRows } from '../../files/layouts/rows.ts';
import type { InwardKind } from '../../files/standard/names.ts';
import { type DemoMerchant, demoMerchants, type InboundFile, inboundFile } from '../demo/bills.ts';
import { type Person, person } from '../demo/people.ts';
import { sample, sampleFolder, sampleLayout } from '../demo/samples.ts';
import { layoutBeside } from '../layout-file.ts';
import type { Baton } from './baton.ts';
import type { Chance } from './chance.ts';
import type { Faults } from './faults.ts';
import type { StoreTruth } from './store.ts';

/** A line that the merchant sent, as it knows it itself. */
export interface SentBill {
  billingNumber: string;
  customerNumber: string;
  amount: number;
  isValid: boolean;
}

export interface SentFile {
  name: string;
  kind: InwardKind;
  /** Broken on purpose: it must be refused whole. */
  isBroken: boolean;
  bills: SentBill[];
}

/** An outward file as the merchant took it. */
export interface ReceivedFile {
  name: string;
  content: Buffer;
}

export interface SimulatedMerchant {
  demo: DemoMerchant;
  code: string;
  settings: MerchantSettings;
  layout: Layout | null;
  people: Person[];
  /** Customers whose contact was sent in a file of its own. */
  contacted: Set<string>;
  /** Customers who once gave a mandate for their account. */
  mandates: Set<string>;
  store: StoreTruth;
  sent: SentFile[];
  received: ReceivedFile[];
  /** Told of each file when it is taken. */
  onReceived: (file: ReceivedFile) => void;
  nextSequence: number;
  /** In the names of bills whose layout has no sequence. */
  nextUnnumbered: number;
  /** Numbers of refused files that it has used again. */
  mended: Set<number>;
}

/** So that a month of days sees whole lives of bills, and enrolled customers charged three times. */
const daysBetweenFiles = 8;
const daysToPay = 6;

export function simulatedMerchants(count: number, chance: Chance, reach: Chance): SimulatedMerchant[] {
  return demoMerchants.slice(0, count).map((demo) => ({
    demo,
    code: demo.code,
    settings: settingsOf(demo),
    layout: sampleLayout(demo.code),
    people: Array.from({ length: chance.between(3, 6) }, (_, index) =>
      hardToReach(troubled(person(`simulation ${chance.between(1, 1_000)}`, demo, index + 1), chance), reach),
    ),
    contacted: new Set(),
    mandates: new Set(),
    store: { files: new Map(), onChange: async () => undefined },
    sent: [],
    received: [],
    onReceived: () => undefined,
    nextSequence: 1,
    nextUnnumbered: 1,
    mended: new Set(),
  }));
}

const troubles = [
  'later-insufficient-funds-once',
  'later-insufficient-funds-twice',
  'later-insufficient-funds',
  'later-do-not-honor',
  'later-lost',
  'later-advice-03',
  'later-unknown-code',
];

/** The demo's people pay too well for a world where everything goes wrong: of half of the enrolled the saved card declines. */
function troubled(known: Person, chance: Chance): Person {
  if (!known.conduct.enrols || chance.hits(0.5)) return known;
  return { ...known, conduct: { ...known.conduct, card: chance.oneOf(troubles) } };
}

/** Merchants know no phone of some, and a landline of others. */
function hardToReach(known: Person, reach: Chance): Person {
  const drawn = reach.next();
  if (drawn < 0.1) return { ...known, phone: '' };
  return drawn < 0.2 ? { ...known, phone: known.phone.replace(/^0[789]0-\d/, '03-3') } : known;
}

function settingsOf(demo: DemoMerchant): MerchantSettings {
  const document = parseDocument(sample(demo.code, 'merchant.yaml'));
  if (demo.hasMandates) {
    // Bills are due in six days, and come back twelve days later: time to ask twice.
    document.setIn(['autopay', 'direct_debit', 'submit'], '-2bd');
    document.setIn(['autopay', 'direct_debit', 'result'], '+2bd');
    document.setIn(['autopay', 'direct_debit', 'records_per_file'], 3);
    document.setIn(['dunning', 'debit'], { attempts: 2, on: ['+0d', '+3bd'] });
  }
  document.setIn(['autopay', 'debit_day'], 'due_date');
  document.setIn(['dunning', 'card'], { attempts: 3, on: ['+0d', '+1bd', '+3bd'] });
  document.setIn(['dunning', 'return_after'], '+12d');
  document.setIn(['notify', 'reminders'], ['-2bd', '+2bd']);
  document.setIn(['checkout', 'link_valid_days'], 30);
  document.setIn(['notify', 'unreached'], demo.code === 'kita-denryoku' ? 'returned' : 'kept');
  document.setIn(['notify', 'second_sender'], demo.code === 'minato-gas');
  // Bills come every eighth day: a second one in a month is usual, but to one merchant, whose operator looks each time.
  document.setIn(['gates', 'twice'], demo.code === 'minato-gas');
  // The first merchant's surpluses pay later bills, the second's go back, the third's stay.
  const policy = { 'minato-gas': 'next_bill', 'kita-denryoku': 'refund' }[demo.code];
  if (policy !== undefined) document.setIn(['credit'], policy);
  if (demo.code === 'minato-gas') document.setIn(['autopay', 'notice_days_before'], 2);
  document.setIn(['gateway', 'fee'], { rate_percent: 3.25, tax_percent: 10 });
  return parseMerchantSettings(document.toString(), {
    path: `${demo.code}.yaml`,
    readable: () => 'ok',
    layout: layoutBeside(sampleFolder(demo.code)),
  }).settings;
}

/**
 * What the merchant does on a day: a file of bills every eighth, one that takes some back two days later, and now and then
 * one of another kind after that.
 */
export function planDay(
  merchant: SimulatedMerchant,
  day: Temporal.PlainDate,
  dayNo: number,
  baton: Baton,
  faults: Faults,
  chance: Chance,
  kinds: Chance,
): void {
  const offset = merchant.demo.no - 1;
  const inbox = merchant.settings.exchange.inbound;
  const startMs = day.toZonedDateTime('Asia/Tokyo').epochMilliseconds;
  const at = (hour: number) => startMs + hour * 3_600_000 + chance.between(0, 3_599_000);
  const odds = faults.profile.merchant;

  const send = (file: InboundFile, sent: SentFile | null) => {
    if (sent !== null) merchant.sent.push(sent);
    drop(merchant, file, at(4), baton, faults);
  };
  if (merchant.demo.hasMandates && dayNo === offset - 1) {
    const rows = mandatesOf(merchant, day, kinds);
    if (rows.length > 0) {
      const file = inboundFile(merchant, 'enrolment', day.toString(), merchant.nextSequence, rows);
      merchant.nextSequence += 1;
      send(file, { name: file.name, kind: 'enrolment', isBroken: false, bills: [] });
    }
  }
  if (dayNo % daysBetweenFiles === offset) {
    const isBroken = faults.hits(odds.brokenFile);
    const { file, bills } = billingFile(merchant, day, chance);
    if (isBroken) {
      // Half of it, with a control file of its own: nothing of it may be taken in, and the sequence comes again.
      const half = file.content.subarray(0, Math.floor(file.content.length / 2));
      const { name } = file;
      drop(merchant, { name, content: half, done: '' }, at(2), baton, faults);
      merchant.sent.push({ name, kind: 'billing', isBroken: true, bills: [] });
    }
    if (isNumbered(merchant)) merchant.nextSequence += 1;
    else merchant.nextUnnumbered += 1;
    send(file, { name: file.name, kind: 'billing', isBroken: false, bills });
    if (faults.hits(odds.sendsAgain)) drop(merchant, file, at(9), baton, faults);
  }
  if (dayNo % daysBetweenFiles === offset + 2) {
    const last = merchant.sent.findLast((file) => file.kind === 'billing' && !file.isBroken);
    const numbers = (last?.bills ?? []).filter((bill) => bill.isValid && chance.hits(0.15));
    if (numbers.length > 0) {
      const rows = numbers.map((bill) => ['D', bill.billingNumber, '検針誤り']);
      const file = inboundFile(merchant, 'cancel', day.toString(), merchant.nextSequence, rows);
      merchant.nextSequence += 1;
      send(file, { name: file.name, kind: 'cancel', isBroken: false, bills: [] });
    }
  }
  if (dayNo % daysBetweenFiles === offset + 4) {
    const told = otherKind(merchant, day, odds, kinds);
    if (told !== null) {
      const { kind, record } = told;
      const file = inboundFile(merchant, kind, day.toString(), merchant.nextSequence, [record.split(',')]);
      merchant.nextSequence += 1;
      send(file, { name: file.name, kind, isBroken: false, bills: [] });
    }
  }
  mendGaps(merchant, day, baton, faults);
  if (faults.hits(odds.hostileName)) {
    const name = chance.oneOf([
      '../../etc/passwd',
      '=cmd|calc',
      `${'x'.repeat(3_000)}.csv`,
      '請求\u202e.csv',
      'CON',
    ]);
    baton.at(at(3), 'a file of hostile name appears', () => {
      merchant.store.files.set(`${inbox}/${name}`, { bytes: Buffer.from('x'), modifiedAtMs: baton.nowMs });
    });
    baton.at(at(11), 'and goes', () => void merchant.store.files.delete(`${inbox}/${name}`));
  }
  for (const hour of [7, 13, 19])
    baton.at(at(hour), `${merchant.code} looks for files`, () => collect(merchant));
}

const holders = ['ｻﾄｳ ﾊﾅｺ', 'スズキ　ケン', 'ﾀｶﾊｼ(ｶ', 'イトウ ヨウコ'];

function accountOf(kinds: Chance): string {
  return `0001-${kinds.between(100, 899)}-${kinds.between(1, 2)}-${kinds.between(7_000_000, 7_999_999)}`;
}

/** Of a part of the customers, before their first bill. */
function mandatesOf(merchant: SimulatedMerchant, day: Temporal.PlainDate, kinds: Chance): string[][] {
  return merchant.people.flatMap(({ customerNumber }) => {
    if (kinds.hits(0.2)) return [];
    merchant.mandates.add(customerNumber);
    return [
      ['D', customerNumber, '', 'start', 'bank', accountOf(kinds), kinds.oneOf(holders), day.toString()],
    ];
  });
}

const reasons = ['dispute', 'hardship', 'disaster', 'paid_elsewhere'];

/** One line about one customer whom an earlier file has brought. */
function otherKind(
  merchant: SimulatedMerchant,
  day: Temporal.PlainDate,
  odds: Faults['profile']['merchant'],
  kinds: Chance,
): { kind: InwardKind; record: string } | null {
  const { customerNumber, phone } = kinds.oneOf(merchant.people);
  const drawn = kinds.next();
  if (drawn < odds.holds) {
    const until = day.add({ days: kinds.between(1, 6) });
    return { kind: 'hold', record: `D,${customerNumber},,place,${kinds.oneOf(reasons)},${until}` };
  }
  if (drawn < odds.holds + odds.contacts) {
    merchant.contacted.add(customerNumber);
    return {
      kind: 'contact',
      record: `D,${customerNumber},${phone},${customerNumber.toLowerCase()}@example.jp`,
    };
  }
  if (drawn < odds.holds + odds.contacts + odds.endings && merchant.mandates.has(customerNumber)) {
    const record = kinds.hits(odds.newAccounts)
      ? `D,${customerNumber},,change,bank,${accountOf(kinds)},${kinds.oneOf(holders)},${day}`
      : `D,${customerNumber},,end,bank,,,${day}`;
    return { kind: 'enrolment', record };
  }
  if (drawn < odds.holds + odds.contacts + odds.endings)
    return { kind: 'enrolment', record: `D,${customerNumber},,end,card,,,${day}` };
  return null;
}

/**
 * A refused file has not used its number up, and everything after it is held: the merchant reads its receipts and sends an
 * empty file under the number. Bills are sent again by themselves.
 */
export function mendGaps(
  merchant: SimulatedMerchant,
  day: Temporal.PlainDate,
  baton: Baton,
  faults: Faults,
): void {
  const { layout } = merchant;
  const own = layout?.outwardNames.get('receipt');
  for (const { name, content } of merchant.received) {
    if (!(own ? own.read(name) !== undefined : name.startsWith('receipt_'))) continue;
    const text = new TextDecoder(layout?.encoding ?? 'utf-8').decode(content);
    const [, input = '', , status = ''] = /^F,.*$/m.exec(text)?.[0].split(',') ?? [];
    const sequence = Number(/_(\d+)\.csv$/.exec(input)?.[1]);
    const isBilling = !/^(cancel|hold|enrolment|contact)_/.test(input);
    if (status !== 'rejected' || isBilling || merchant.mended.has(sequence)) continue;
    merchant.mended.add(sequence);
    const file = inboundFile(merchant, 'contact', day.toString(), sequence, []);
    merchant.sent.push({ name: file.name, kind: 'contact', isBroken: false, bills: [] });
    drop(merchant, file, baton.nowMs + 5 * 3_600_000, baton, faults);
  }
}

function billingFile(
  merchant: SimulatedMerchant,
  day: Temporal.PlainDate,
  chance: Chance,
): { file: InboundFile; bills: SentBill[] } {
  const period = day.toPlainYearMonth().toString();
  const dueOn = day.add({ days: daysToPay }).toString();
  const bills: SentBill[] = [];
  const rows: string[][] = [];
  // Some have two bills in one file; where one bad line refuses the whole file, there is none.
  const mayErr = merchant.settings.exchange.reject === 'line';
  for (const customer of [...merchant.people, ...merchant.people.filter(() => chance.hits(0.2))]) {
    const billingNumber = `${merchant.demo.prefix}${day.toString().slice(2).replaceAll('-', '')}${String(bills.length + 1).padStart(4, '0')}`;
    const amount = 850 + chance.between(8, 68) * merchant.demo.yenPerUnit;
    const isValid = !(mayErr && chance.hits(0.05));
    rows.push([
      'D',
      billingNumber,
      customer.customerNumber,
      customer.name,
      customer.phone,
      '',
      String(amount),
      '10',
      '',
      period,
      // A day that no month has, in whatever form the layout writes it.
      isValid ? dueOn : `${dueOn.slice(0, 8)}45`,
      '',
      merchant.demo.describe(day.month, amount),
    ]);
    bills.push({ billingNumber, customerNumber: customer.customerNumber, amount, isValid });
  }
  const number = isNumbered(merchant) ? merchant.nextSequence : merchant.nextUnnumbered;
  const file = inboundFile(merchant, 'billing', day.toString(), number, rows);
  return { file, bills };
}

function isNumbered({ layout }: SimulatedMerchant): boolean {
  return layout?.kinds.get('billing')?.hasSequence ?? true;
}

/** The rows of a result file, as the merchant's own programs would read it; undefined: it is of another kind. */
export async function resultRows(
  { code, layout }: SimulatedMerchant,
  file: ReceivedFile,
): Promise<string[][] | undefined> {
  const own = layout?.outwardNames.get('result');
  const isResult = own ? own.read(file.name) !== undefined : file.name.startsWith(`result_${code}_`);
  if (!isResult) return undefined;
  const rows: string[][] = [];
  for await (const records of readRows(only(file.content), layout, 'result'))
    for (const { fields } of records) if (fields[0] === 'R') rows.push(fields);
  return rows;
}

/** A bill of an unreached file. */
export interface Paper {
  billingNumber: string;
  cause: string;
  disposition: string;
  barcode: string;
}

/** The rows of an unreached file, as the merchant's printers would read it; none of a file of another kind. */
export function papersIn({ code, layout }: SimulatedMerchant, file: ReceivedFile): Paper[] {
  const own = layout?.outwardNames.get('unreached');
  const isUnreached = own ? own.read(file.name) !== undefined : file.name.startsWith(`unreached_${code}_`);
  if (!isUnreached) return [];
  const lines = new TextDecoder(layout?.encoding ?? 'utf-8').decode(file.content).split(/\r?\n/);
  return lines.flatMap((line) => {
    const [type, billingNumber = '', , cause = '', disposition = '', barcode = ''] = line.split(',');
    return type === 'R' ? [{ billingNumber, cause, disposition, barcode }] : [];
  });
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

/** The file, perhaps growing piece by piece, and at last its control file. */
function drop(
  merchant: SimulatedMerchant,
  file: InboundFile,
  atMs: number,
  baton: Baton,
  faults: Faults,
): void {
  const { inbound, completion } = merchant.settings.exchange;
  const path = `${inbound}/${file.name}`;
  const whole = file.content;
  const pieces = faults.hits(faults.profile.merchant.slowWrite) ? 4 : 1;
  for (let piece = 1; piece <= pieces; piece += 1) {
    const afterMs = atMs + (piece - 1) * faults.between(1_000, 15_000);
    baton.at(afterMs, `${merchant.code} writes ${file.name} ${piece}/${pieces}`, () => {
      // Of an earlier attempt: it would call complete what is being written.
      if (piece === 1) merchant.store.files.delete(`${path}.done`);
      const now = merchant.store.files.get(path);
      const bytes = whole.subarray(0, Math.ceil((whole.length * piece) / pieces));
      // Pieces may be drawn out of order in time; a file only grows.
      if (now !== undefined && piece > 1 && now.bytes.length >= bytes.length) return;
      merchant.store.files.set(path, { bytes, modifiedAtMs: baton.nowMs });
    });
  }
  if (completion === 'stable') return;
  baton.at(atMs + 90_000, `${merchant.code} completes ${file.name}`, () => {
    const done = file.done === '' ? 'no checksum\n' : file.done;
    merchant.store.files.set(`${path}.done`, { bytes: Buffer.from(done), modifiedAtMs: baton.nowMs });
  });
}

/** Takes every outward file that its control file calls complete. */
export function collect(merchant: SimulatedMerchant): void {
  const { files } = merchant.store;
  const folder = `${merchant.settings.exchange.outbound}/`;
  for (const [path, file] of [...files]) {
    const control = files.get(`${path}.done`);
    if (!path.startsWith(folder) || path.startsWith(`${folder}.`) || control === undefined) continue;
    const received = { name: path.slice(folder.length), content: Buffer.from(file.bytes) };
    merchant.received.push(received);
    merchant.onReceived(received);
    files.delete(path);
    files.delete(`${path}.done`);
  }
}
