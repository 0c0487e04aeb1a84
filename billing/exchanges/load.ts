import { Temporal } from 'temporal-polyfill';
import type { Act } from '../acts/act.ts';
import { debitDate } from '../calendar/debit-date.ts';
import {
  addContactVersions,
  addFirstContacts,
  addNewCustomers,
  addStagedContracts,
  adoptCustomers,
  moveCurrentContacts,
} from '../customers/queries.ts';
import type { Db, Tx } from '../db.ts';
import { agendaFor, type DunningFacts } from '../dunning/decide.ts';
import { hasNameless, nameEnrolments } from '../enrolments/queries.ts';
import { parkUnusual } from '../gates/park.ts';
import { dunningPolicyOf, gatesOf, type MerchantSettings } from '../merchants/settings.ts';
import type { Ids } from '../ports.ts';
import { assertState } from '../refusal.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import {
  advanceFile,
  type DueTerms,
  dueDatesOf,
  issueBills,
  lockFile,
  newerFileLoaded,
  type RecordRange,
  stagedTotals,
  takeNumbers,
} from './queries.ts';

/** Records of one transaction: about two seconds of work, well within a lease. */
export const chunkRecords = 50_000;

export interface LoadChunk {
  fence: Fence;
  act: Act;
  fileId: string;
  /** As they were when the file came. */
  settings: MerchantSettings;
  /** YYYY-MM-DD of the run. */
  today: string;
  /** 50,000 unless told. */
  chunkRecords?: number;
}

/** `staging_lost`: the staged lines are not those that were staged; they must be staged again. */
export type Loaded = { done: boolean; bills: number; parked: number } | 'staging_lost';

/**
 * The next records of a loading file become customers, contacts, bills, tax lines and agenda rows, in one transaction
 * that also says how far the file is. Nobody sees these bills before the file is released.
 */
export async function loadChunk(ports: { db: Db; ids: Ids }, input: LoadChunk): Promise<Loaded> {
  const { act, fileId } = input;
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, input.fence);
    const file = await lockFile(tx, act.merchantId, fileId);
    assertState(
      file.state === 'loading' && file.lines_read !== null && file.business_date !== null,
      `file ${fileId} is ${file.state}`,
    );
    if (file.loaded_to_record >= file.lines_read) return { done: true, bills: 0, parked: 0 };
    const staged = await stagedTotals(tx, act.merchantId, fileId);
    if (staged.lines !== file.lines_staged || staged.amount !== file.amount_accepted) return 'staging_lost';

    const range: RecordRange = {
      merchantId: act.merchantId,
      fileId,
      from: file.loaded_to_record,
      to: Math.min(file.loaded_to_record + (input.chunkRecords ?? chunkRecords), file.lines_read),
    };
    const businessDate = file.business_date;
    const sequence = file.sequence ?? 0;
    const dueDates = await dueDatesOf(tx, range);
    const bills = dueDates.reduce((sum, { lines }) => sum + lines, 0);
    const detailed = dueDates.some((due) => due.detailed > 0);
    let parked = 0;
    if (bills > 0) {
      const origin = { businessDate, sequence, at: act.at };
      const knownCustomers = await loadCustomers(tx, range, bills, origin, () =>
        newerFileLoaded(tx, act.merchantId, file),
      );
      if (detailed) await addStagedContracts(tx, range);
      if (await hasNameless(tx, act.merchantId)) await nameEnrolments(tx, range, businessDate);
      const issued = await issueBills(tx, {
        ...range,
        paymentNumberBase: await takeNumbers(tx, act.merchantId, 'payment_number', bills),
        businessDate,
        currency: input.settings.currency,
        layout: file.layout,
        settingsVersion: file.settings_version,
        registrationNumber: input.settings.registrationNumber,
        createdAt: act.at,
        terms: dueDates.map(({ due_on }) => dueTerms(input.settings, businessDate, input.today, due_on)),
        detailed,
      });
      assertState(issued === bills, `${issued} bills were made of ${bills} staged lines`);
      const gates = gatesOf(input.settings);
      parked = await parkUnusual(tx, ports.ids, act, { range, gates, knownCustomers, detailed });
    }
    assertState(await advanceFile(tx, range), `file ${fileId} was loaded by another worker`);
    return { done: range.to >= file.lines_read, bills, parked };
  });
}

/** False: every line brought its own new customer. */
async function loadCustomers(
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
    link: { act: link.act, on: link.on.toString() },
  };
}
