import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { debitDate, isAfter } from '../calendar/debit-date.ts';
import {
  addContactVersions,
  addFirstContacts,
  addNewCustomers,
  addStagedContracts,
  adoptCustomers,
  moveCurrentContacts,
} from '../customers/queries.ts';
import type { Db, Tx } from '../db.ts';
import { agendaFor, type DunningFacts, returnDate } from '../dunning/decide.ts';
import { hasNameless, nameEnrolments } from '../enrolments/queries.ts';
import { parkUnusual } from '../gates/park.ts';
import { bankDebitOf, dunningPolicyOf, gatesOf, type MerchantSettings } from '../merchants/settings.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { BillingFile } from './file.ts';
import {
  addTaxLines,
  advanceFile,
  type DueTerms,
  dueDatesOf,
  fileById,
  isStaged,
  issueBills,
  type LoadStep,
  newerFileLoaded,
  openAgenda,
  type RecordRange,
  stagedTotals,
  takeNumbers,
} from './queries.ts';

/** Records of one transaction: about a second of work, well within a lease. */
export const chunkRecords = 25_000;

export interface LoadFile {
  fence: Fence;
  act: Act;
  fileId: string;
  /** As they were when the file came. */
  settings: MerchantSettings;
  /** YYYY-MM-DD of the run. */
  today: string;
  /** 25,000 unless told. */
  chunkRecords?: number;
}

/** `staging_lost`: the staged lines are not those that were staged; they must be staged again. */
export type Loaded = { done: boolean; parked: number } | 'staging_lost';

/**
 * A file on its way into the tables, in three steps that follow one another through its records: customers with contracts
 * and contacts, then bills, then what hangs on bills. Each step is a transaction for its next records that also says how
 * far it is. Nobody sees these bills before the file is released.
 */
export class FileLoad {
  readonly #ports: { db: Db; ids: Ids };
  readonly #input: LoadFile;
  /** Whether customers of a range were here before, by its first record; a range of an earlier process may have had some. */
  readonly #knownCustomers = new Map<number, boolean>();
  #counted = false;

  constructor(ports: { db: Db; ids: Ids }, input: LoadFile) {
    this.#ports = ports;
    this.#input = input;
  }

  /** The next records of each step, at the same time: a database of two processors has work for both. */
  async next(): Promise<Loaded> {
    const { act, fileId } = this.#input;
    const file = await fileById(this.#ports.db, act.merchantId, fileId);
    assertState(
      file.state === 'loading' && file.lines_read !== null && file.business_date !== null,
      `file ${fileId} is ${file.state}`,
    );
    const { customers_to_record: customers, bills_to_record: bills, loaded_to_record: loaded } = file;
    if (loaded >= file.lines_read) return { done: true, parked: 0 };
    if (!this.#counted) {
      const staged = await stagedTotals(this.#ports.db, act.merchantId, fileId);
      if (staged.lines !== file.lines_staged || staged.amount !== file.amount_accepted) return 'staging_lost';
      this.#counted = true;
    }
    const known = { ...file, business_date: file.business_date, lines_read: file.lines_read };
    const steps: Promise<number | 'staging_lost'>[] = [];
    if (customers < file.lines_read)
      steps.push(this.#step(known, 'customers_to_record', customers, file.lines_read, loadCustomers));
    if (bills < customers) steps.push(this.#step(known, 'bills_to_record', bills, customers, loadBills));
    if (loaded < bills) steps.push(this.#step(known, 'loaded_to_record', loaded, bills, loadParts));
    const ends = await Promise.allSettled(steps);
    const broken = ends.find((end) => end.status === 'rejected');
    if (broken) throw broken.reason;
    const counts = ends.map((end) => (end.status === 'fulfilled' ? end.value : 0));
    if (counts.includes('staging_lost')) {
      this.#counted = false;
      return 'staging_lost';
    }
    return { done: false, parked: counts.reduce<number>((sum, count) => sum + Number(count), 0) };
  }

  async #step(
    file: LoadingFile,
    step: LoadStep,
    from: number,
    end: number,
    work: (tx: Tx, part: Part) => Promise<number>,
  ): Promise<number | 'staging_lost'> {
    const { act, fence, settings, today } = this.#input;
    const range: RecordRange = {
      merchantId: act.merchantId,
      fileId: file.id,
      from,
      to: Math.min(from + (this.#input.chunkRecords ?? chunkRecords), end),
    };
    return this.#ports.db.transaction(async (tx) => {
      await holdFence(tx, fence);
      if (file.lines_staged !== 0 && !(await isStaged(tx, act.merchantId, file.id))) return 'staging_lost';
      const dueDates = await dueDatesOf(tx, range);
      const lines = dueDates.reduce((sum, due) => sum + due.lines, 0);
      const parked =
        lines === 0
          ? 0
          : await work(tx, {
              ids: this.#ports.ids,
              act,
              file,
              settings,
              range,
              lines,
              detailed: dueDates.some((due) => due.detailed > 0),
              terms: dueDates.map(({ due_on }) => dueTerms(settings, file.business_date, today, due_on)),
              knownCustomers: this.#knownCustomers,
            });
      assertState(await advanceFile(tx, range, step), `file ${file.id} was loaded by another worker`);
      return parked;
    });
  }
}

type LoadingFile = BillingFile & { business_date: string; lines_read: number };

/** What a step has to do, in its transaction. */
interface Part {
  ids: Ids;
  act: Act;
  file: LoadingFile;
  settings: MerchantSettings;
  range: RecordRange;
  lines: number;
  /** Lines of `standard/2` are among them. */
  detailed: boolean;
  terms: readonly DueTerms[];
  knownCustomers: Map<number, boolean>;
}

async function loadBills(tx: Tx, part: Part): Promise<number> {
  const { act, file, settings, range, lines, detailed, terms } = part;
  const issued = await issueBills(tx, {
    ...range,
    paymentNumberBase: await takeNumbers(tx, act.merchantId, 'payment_number', lines),
    businessDate: file.business_date,
    currency: settings.currency,
    layout: file.layout,
    settingsVersion: file.settings_version,
    createdAt: act.at,
    terms,
    detailed,
    byBank: settings.autopay.directDebit !== null,
  });
  assertState(issued === lines, `${issued} bills were made of ${lines} staged lines`);
  const knownCustomers = part.knownCustomers.get(range.from) ?? true;
  return parkUnusual(tx, part.ids, act, { range, gates: gatesOf(settings), knownCustomers, detailed });
}

async function loadParts(tx: Tx, { settings, range, lines, detailed, terms }: Part): Promise<number> {
  await addTaxLines(tx, range, { registrationNumber: settings.registrationNumber, detailed });
  const opened = await openAgenda(tx, range, terms, settings.autopay.directDebit !== null);
  assertState(opened === lines, `${opened} agenda rows were made of ${lines} staged lines`);
  return 0;
}

async function loadCustomers(tx: Tx, part: Part): Promise<number> {
  const { act, file, range, detailed } = part;
  const origin = { businessDate: file.business_date, sequence: file.sequence ?? 0, at: act.at };
  const known = await loadPeople(tx, range, part.lines, origin, () =>
    newerFileLoaded(tx, act.merchantId, file),
  );
  part.knownCustomers.set(range.from, known);
  if (detailed) await addStagedContracts(tx, range);
  if (await hasNameless(tx, act.merchantId)) await nameEnrolments(tx, range, file.business_date);
  return 0;
}

/** False: every line brought its own new customer. */
async function loadPeople(
  tx: Tx,
  range: RecordRange,
  bills: number,
  origin: { businessDate: string; sequence: number; at: Temporal.Instant },
  isLate: () => Promise<boolean>,
): Promise<boolean> {
  const added = await addNewCustomers(tx, range, origin.at);
  if (added > 0) {
    const contacts = await addFirstContacts(tx, range, origin);
    assertState(contacts === added, `${contacts} first contacts for ${added} new customers`);
  }
  if (added === bills) return false;
  await adoptCustomers(tx, range);
  await addContactVersions(tx, range, origin);
  await moveCurrentContacts(tx, range, { ...origin, late: await isLate() });
  return true;
}

/** Bills of one file share a few due dates: the calendar is walked once for each, not for 200,000 bills. */
export function dueTerms(
  settings: MerchantSettings,
  businessDate: string,
  todayText: string,
  dueOnText: string,
): DueTerms {
  const today = Temporal.PlainDate.from(todayText);
  const dueOn = Temporal.PlainDate.from(dueOnText);
  const debit = debitDate({ debitDay: settings.autopay.debitDay, dueOn, businessDate: today });
  const debitOn = 'late' in debit ? null : debit.on;
  const facts: Omit<DunningFacts, 'collection' | 'debitOn' | 'hasValidMethod' | 'noticesSent'> = {
    businessDate: Temporal.PlainDate.from(businessDate),
    dueOn,
    today,
    attempts: [],
    holds: [],
    policy: dunningPolicyOf(settings),
    fellBackToLink: false,
    unknownOutcome: false,
    locked: false,
    watermarks: [],
  };
  const bank = bankTerms(settings, facts, today);
  const link = agendaFor({
    ...facts,
    collection: 'link',
    debitOn: null,
    hasValidMethod: false,
    // Planned for every released link bill by itself; dunning looks when the next step comes.
    noticesSent: [{ step: 'first_notice', on: today }],
  });
  const auto = agendaFor({
    ...facts,
    collection: 'auto',
    debitOn,
    hasValidMethod: true,
    noticesSent: [],
  });
  return {
    dueOn: dueOnText,
    debitOn: debitOn?.toString() ?? null,
    auto: { act: auto.act, on: auto.on.toString() },
    bank,
    link: { act: link.act, on: link.on.toString() },
  };
}

/** Of bills that are debited by the bank; null: too late, or there is nobody who debits accounts. */
function bankTerms(
  settings: MerchantSettings,
  facts: Omit<DunningFacts, 'collection' | 'debitOn' | 'hasValidMethod' | 'noticesSent'>,
  today: Temporal.PlainDate,
): DueTerms['bank'] {
  const bankDebit = bankDebitOf(settings);
  if (bankDebit === null) return null;
  const { debitDay } = settings.autopay;
  const debit = debitDate({
    debitDay,
    dueOn: facts.dueOn,
    businessDate: today,
    submitBankDaysBefore: bankDebit.submitBankDays,
    late: bankDebit.late,
  });
  if ('late' in debit) return null;
  const policy = dunningPolicyOf(settings, 'debit');
  if (!isAfter(returnDate({ dueOn: facts.dueOn, policy }), debit.on)) return null;
  const agenda = agendaFor({
    ...facts,
    policy,
    bankDebit,
    collection: 'auto',
    debitOn: debit.on,
    hasValidMethod: true,
    noticesSent: [],
  });
  return { debitOn: debit.on.toString(), act: agenda.act, on: agenda.on.toString() };
}
