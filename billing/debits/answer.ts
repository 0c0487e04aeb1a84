import { Temporal } from 'temporal-polyfill';
import { type Act, commandAct } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert, raiseStanding, resolveAlerts } from '../alerts/queries.ts';
import type { Learned } from '../charges/charge.ts';
import { recordOutcomes } from '../charges/record-outcomes.ts';
import type { Db, Tx } from '../db.ts';
import { lockInvoices } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { parkBills } from '../parked/park-bills.ts';
import type { Clock, Ids } from '../ports.ts';
import { Refusal } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import { type AnswerRecord, accountText, codes, type ResultReason, ResultRefused } from './debit.ts';
import {
  type Answered,
  answerRequest,
  answersToBook,
  countUnanswered,
  fitOf,
  heldResults,
  insertAnswers,
  insertResult,
  lateRequests,
  moveResult,
  type NewResult,
  type OpenResult,
  removeAnswers,
  requestsWith,
} from './queries.ts';

export interface AnswerPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
}

export interface AnswerWork {
  merchant: Merchant;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
}

/** False: these bytes came before, under whatever name, and nothing is done with them. */
export async function registerResult(
  ports: AnswerPorts,
  work: AnswerWork,
  result: NewResult,
): Promise<boolean> {
  return inTransaction(ports, work, (tx, act) => insertResult(tx, act, result));
}

/**
 * Reads a result and holds it against its request: all of it fits and waits to be booked, or nothing of it counts and a
 * person is called. One transaction; `records` are the file's, in their order, and throw `ResultRefused` where it is no file.
 */
export async function matchResult(
  ports: AnswerPorts,
  work: AnswerWork,
  result: OpenResult,
  records: AsyncIterable<readonly AnswerRecord[]>,
): Promise<'matched' | 'held'> {
  try {
    await ports.clock.refresh();
    const act = { ...work.act, at: ports.clock.now() };
    await ports.db.transaction(async (tx) => {
      await recordAct(tx, act);
      const { requestId, count } = await judge(tx, ports, work, result, records);
      await holdFence(tx, work.fence);
      const moved = await moveResult(tx, act, result.id, {
        from: ['fetched'],
        to: 'matched',
        requestId,
        records: count,
      });
      if (!moved) throw new Error(`result ${result.id} was matched by another process`);
    });
    return 'matched';
  } catch (error) {
    if (!(error instanceof ResultRefused)) throw error;
    await inTransaction(ports, work, async (tx, act) => {
      const { reason, record, requestId } = error;
      await moveResult(tx, act, result.id, { from: ['fetched'], to: 'held', reason, record, requestId });
      await raiseAlert(tx, ports.ids.uuid(), act.at, {
        merchantId: act.merchantId,
        level: 'now',
        cause: heldCause(result.name),
        message: `nothing of the bank's result ${result.name} is booked: ${error.message}`,
        occurrences: 1,
      });
    });
    return 'held';
  }
}

function heldCause(name: string): string {
  return `DEBIT_RESULT_HELD ${name}`;
}

interface Told {
  header: Extract<AnswerRecord, { type: '1' }>['header'] | null;
  first: string | null;
  count: number;
  paidCount: number;
  paidAmount: number;
  unpaidCount: number;
  unpaidAmount: number;
}

/** Throws `ResultRefused` with the first thing that is wrong. */
async function judge(
  tx: Tx,
  ports: AnswerPorts,
  { merchant, stop }: AnswerWork,
  result: OpenResult,
  records: AsyncIterable<readonly AnswerRecord[]>,
): Promise<{ requestId: string; count: number }> {
  const told: Told = {
    header: null,
    first: null,
    count: 0,
    paidCount: 0,
    paidAmount: 0,
    unpaidCount: 0,
    unpaidAmount: 0,
  };
  for await (const batch of records) {
    stop.throwIfAborted();
    const debits = batch.flatMap((record) => takeUp(told, record));
    const base = told.count - debits.length;
    await insertAnswers(
      tx,
      merchant.id,
      result.id,
      debits.map((debit, index) => ({
        recordNo: base + index + 1,
        customerKey: debit.customerNumber,
        accountDigest: ports.sealer.digest(accountText(debit)),
        amount: debit.amount,
        code: debit.resultCode,
      })),
    );
  }
  const { header, first } = told;
  const requests = first === null ? [] : await requestsWith(tx, merchant.id, first);
  if (header === null || requests.length === 0)
    throw new ResultRefused('REQUEST_UNKNOWN', first === null ? 0 : 1);
  const request = requests.find(
    (each) =>
      each.consignor_code === header.consignorCode &&
      each.bank === header.bank &&
      each.debit_on.slice(5).replace('-', '') === header.debitDay,
  );
  if (request === undefined) throw new ResultRefused('HEADER_DIFFERS');
  const requestId = request.file_id;
  if (request.state === 'answered' && !result.accepted)
    throw new ResultRefused('ANSWERED_ALREADY', 0, requestId);
  const fit = await fitOf(tx, merchant.id, result.id, requestId);
  if (fit.unknown !== null) throw new ResultRefused('DEBIT_UNKNOWN', fit.unknown, requestId);
  if (fit.twice !== null) throw new ResultRefused('DEBIT_TWICE', fit.twice, requestId);
  if (fit.changed !== null) throw new ResultRefused('AMOUNT_CHANGED', fit.changed, requestId);
  if (fit.missing > 0) throw new ResultRefused('DEBIT_MISSING', 0, requestId);
  return { requestId, count: told.count };
}

type ToldDebit = Extract<AnswerRecord, { type: '2' }>['debit'];

/** One header, debits, one trailer that tells the truth about them. Returns the record, where it is a debit. */
function takeUp(told: Told, record: AnswerRecord): ToldDebit[] {
  if (record.type === '1') {
    // Each of our requests has one.
    if (told.header !== null) throw new ResultRefused('BATCHES_DIFFER');
    told.header = record.header;
  } else if (record.type === '2') {
    const { debit } = record;
    const isPaid = debit.resultCode === '0';
    told.first ??= debit.customerNumber;
    told.count += 1;
    told[isPaid ? 'paidCount' : 'unpaidCount'] += 1;
    told[isPaid ? 'paidAmount' : 'unpaidAmount'] += debit.amount;
    return [debit];
  } else if (record.type === '8') {
    const { trailer } = record;
    if (
      trailer.paidCount + trailer.unpaidCount !== trailer.count ||
      trailer.paidAmount + trailer.unpaidAmount !== trailer.amount
    )
      throw new ResultRefused('TOTALS_DO_NOT_ADD_UP');
    for (const name of ['paidCount', 'paidAmount', 'unpaidCount', 'unpaidAmount'] as const)
      if (trailer[name] !== told[name]) throw new ResultRefused('TOTALS_DIFFER');
  }
  return [];
}

export type Booked = Record<'paid' | 'failed' | 'unknown' | 'known' | 'parked', number>;

const answersPerBatch = 500;

/**
 * Books a result that fits its request, batch after batch; what is booked is removed from what waits, so that it goes on
 * after any interruption. A code that nobody knows is neither paid nor failed: the bill stays locked and is parked. In safe mode only
 * what is learned again is booked.
 */
export async function bookResult(
  ports: AnswerPorts,
  work: AnswerWork,
  result: OpenResult,
  booked: () => Promise<void>,
  why?: 'learning',
): Promise<Booked> {
  const counts: Booked = { paid: 0, failed: 0, unknown: 0, known: 0, parked: 0 };
  for (let left = true; left; ) {
    work.stop.throwIfAborted();
    const batch = await inTransaction(ports, work, async (tx, act) => {
      if (why !== 'learning') await refuseInSafeMode(tx);
      const answers = await answersToBook(tx, act.merchantId, result.id, answersPerBatch);
      if (answers.length === 0) {
        await finish(tx, act, result);
        return null;
      }
      const written = await book(tx, ports, work.merchant, act, answers);
      await removeAnswers(tx, act.merchantId, result.id, answers.at(-1)?.record_no ?? 0);
      return written;
    });
    left = batch !== null;
    for (const name of Object.keys(batch ?? {}) as (keyof Booked)[]) counts[name] += batch?.[name] ?? 0;
    await booked();
  }
  return counts;
}

async function book(
  tx: Tx,
  { ids, sealer }: AnswerPorts,
  merchant: Merchant,
  act: Act,
  answers: readonly Answered[],
): Promise<Booked> {
  const { timezone } = merchant.settings;
  const recorded = await recordOutcomes(tx, {
    act,
    timezone,
    learnedBy: 'report',
    learned: answers.map((answer) => learnedOf(answer, timezone)),
    ids,
    sealer,
  });
  const strange = answers.filter(({ code }) => !Object.hasOwn(codes, code));
  return {
    paid: recorded.succeeded,
    failed: recorded.failed,
    unknown: recorded.unknown,
    known: recorded.known,
    parked: recorded.parked + (await parkStrange(tx, ids, act, strange)),
  };
}

function learnedOf(answer: Answered, timezone: string): Learned {
  const { charge_id: chargeId, amount, currency, code } = answer;
  const reference = `${answer.sequence}-${answer.line_no}`;
  const means = Object.hasOwn(codes, code) ? codes[code]?.means : 'unknown';
  switch (means) {
    case 'paid': {
      const noon = Temporal.PlainDate.from(answer.debit_on).toZonedDateTime({
        timeZone: timezone,
        plainTime: '12:00',
      });
      const capturedAt = noon.toInstant().toString();
      const captured = {
        gatewayChargeId: reference,
        amount,
        currency,
        capturedAt,
        method: 'debit',
        savedMethod: null,
      } as const;
      return { chargeId, outcome: { kind: 'succeeded', captured } };
    }
    case 'failed': {
      const none = { network: null, networkCode: null, adviceCode: null };
      return {
        chargeId,
        outcome: { kind: 'failed', gatewayChargeId: reference, codes: { ...none, gatewayCode: code } },
      };
    }
    default:
      return { chargeId, outcome: { kind: 'unknown', why: `the bank's code is ${code}` } };
  }
}

async function parkStrange(tx: Tx, ids: Ids, act: Act, strange: readonly Answered[]): Promise<number> {
  if (strange.length === 0) return 0;
  const codeOf = new Map(strange.map((answer) => [answer.invoice_id, answer.code]));
  const open = (await lockInvoices(tx, act.merchantId, [...codeOf.keys()])).filter(
    ({ state }) => state === 'open',
  );
  const parked = await parkBills(
    tx,
    act,
    ids,
    open.map(({ id }) => ({
      invoiceId: id,
      reason: 'DEBIT_CODE_UNKNOWN',
      context: { code: codeOf.get(id) ?? null },
    })),
  );
  if (parked === 0) return 0;
  await raiseAlert(tx, ids.uuid(), act.at, {
    merchantId: act.merchantId,
    level: 'now',
    cause: 'DEBIT_CODE_UNKNOWN',
    message: `the bank answered ${parked} debits with a code that nobody knows, first ${strange[0]?.code}; they are neither paid nor failed`,
    occurrences: parked,
  });
  return parked;
}

async function finish(tx: Tx, act: Act, { id, request_id: requestId }: OpenResult): Promise<void> {
  if (!(await moveResult(tx, act, id, { from: ['matched'], to: 'booked' }))) return;
  if (requestId !== null) await answerRequest(tx, act, requestId);
}

/** What should have been answered: told as long as it stands. Returns how many requests and debits there are. */
export async function tellOfUnanswered(
  ports: AnswerPorts,
  work: AnswerWork,
  businessDate: string,
): Promise<{ late: number; unanswered: number }> {
  return inTransaction(ports, work, async (tx, act) => {
    const late = await lateRequests(tx, act.merchantId, businessDate);
    const unanswered = await countUnanswered(tx, act.merchantId);
    const [first] = late;
    const standing = [
      {
        cause: 'DEBIT_RESULT_LATE',
        occurrences: late.length,
        message: `the result of ${first?.name}, ${first?.debits} debits of ${first?.debit_on}, was expected on ${first?.result_due_on}; ${late.length} such files. Their bills wait and are told as pending`,
      },
      {
        cause: 'DEBIT_UNANSWERED',
        occurrences: unanswered,
        message: `${unanswered} debits are answered with no outcome: the bank may have taken the money or not. Their bills stay locked`,
      },
    ];
    const level = 'now' as const;
    await raiseStanding(
      tx,
      act.merchantId,
      act.at,
      standing
        .filter(({ occurrences }) => occurrences > 0)
        .map((each) => ({ ...each, level, id: ports.ids.uuid() })),
    );
    const over = standing.filter(({ occurrences }) => occurrences === 0).map(({ cause }) => cause);
    await resolveAlerts(tx, act.merchantId, act.at, over, 'every debit has its answer');
    return { late: late.length, unanswered };
  });
}

export const mayBeAccepted: ResultReason = 'ANSWERED_ALREADY';

/**
 * A person's word on a result that is held. `accept`: a second answer to one request may be booked, debit by debit, for what
 * is still open and for money that came after all. `dismiss`: nothing of it counts. Refusals RESULT_NOT_HELD, RESULT_UNFIT.
 */
export async function settleHeld(
  ports: Pick<AnswerPorts, 'db' | 'clock' | 'ids'>,
  merchant: Merchant,
  name: string,
  how: 'accept' | 'dismiss',
  actor: string,
): Promise<void> {
  const act = await commandAct(ports, merchant.id, actor);
  await ports.db.transaction(async (tx) => {
    await recordAct(tx, act);
    const named = (await heldResults(tx, merchant.id)).filter((each) => each.name === name);
    const held = named.find((each) => how === 'dismiss' || each.reason === mayBeAccepted) ?? named[0];
    if (held === undefined) {
      throw new Refusal('RESULT_NOT_HELD', 'no result of this name is held', {
        next: 'seikyu debit list shows which are.',
        exitCode: 2,
      });
    }
    if (how === 'accept' && held.reason !== mayBeAccepted) {
      throw new Refusal('RESULT_UNFIT', `the result does not fit its request: ${held.reason}`, {
        next: 'Ask the agency for a correct file, then: seikyu debit dismiss',
      });
    }
    const to = how === 'accept' ? 'fetched' : 'dismissed';
    await moveResult(tx, act, held.id, { from: ['held'], to, accepted: how === 'accept' });
    // Agencies may send the right file under the name of the wrong one.
    if (named.length > 1) return;
    await resolveAlerts(
      tx,
      merchant.id,
      act.at,
      [heldCause(name)],
      how === 'accept' ? 'accepted' : 'dismissed',
    );
  });
}

async function inTransaction<T>(
  ports: AnswerPorts,
  work: Pick<AnswerWork, 'fence' | 'act'>,
  write: (tx: Tx, act: Act) => Promise<T>,
): Promise<T> {
  await ports.clock.refresh();
  const act = { ...work.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await holdFence(tx, work.fence);
    await recordAct(tx, act);
    return write(tx, act);
  });
}
