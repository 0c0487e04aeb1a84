import { Temporal } from 'temporal-polyfill';
import { type Act, instantText } from '../acts/act.ts';
import { recordAct } from '../acts/queries.ts';
import { raiseAlert } from '../alerts/queries.ts';
import { ensureAutoIntents, retriesTooEarly } from '../autopay/queries.ts';
import { addBankDays } from '../calendar/bank-days.ts';
import { insertCharges, moveIntents, type NewCharge } from '../charges/queries.ts';
import type { Db, Tx } from '../db.ts';
import { takeNumbers } from '../exchanges/queries.ts';
import { heldAmong } from '../holds/queries.ts';
import { lockInvoices, setAgenda } from '../invoices/queries.ts';
import type { Merchant } from '../merchants/merchant.ts';
import { type DirectDebitSettings, defaultRecordsPerFile } from '../merchants/settings.ts';
import { keepContent } from '../outward/freeze.ts';
import type { OutwardHead } from '../outward/outward.ts';
import { openOutwardFile } from '../outward/queries.ts';
import { parkBills } from '../parked/park-bills.ts';
import type { Clock, Ids } from '../ports.ts';
import { reportedMethod } from '../reconciliation/watermark.ts';
import { assertState } from '../refusal.ts';
import { refuseInSafeMode } from '../restores/queries.ts';
import type { Fence } from '../runs/fence.ts';
import { holdFence } from '../runs/queries.ts';
import type { Sealer } from '../sealing.ts';
import {
  accountText,
  amountMax,
  bankGateway,
  type Creditor,
  customerKeyOf,
  type DebitAsked,
  type RenderDebits,
} from './debit.ts';
import {
  billsToAskFor,
  insertLines,
  insertRequest,
  mandatesOf,
  type NewLine,
  stillToAskFor,
} from './queries.ts';

export interface AskPorts {
  db: Db;
  clock: Clock;
  ids: Ids;
  sealer: Sealer;
}

export interface AskWork {
  merchant: Merchant;
  debit: DirectDebitSettings;
  businessDate: string;
  fence: Fence;
  act: Act;
  stop: AbortSignal;
  render: RenderDebits;
}

export interface Asked {
  /** Bills of the day were looked at up to here; null: all of them. */
  after: string | null;
  files: number;
  debits: number;
  amount: number;
  /** Back to dunning, which decides by the setting: link or the next debit day. */
  late: number;
  held: number;
  locked: number;
  notAutomatic: number;
  noMandate: number;
  waitingForReports: number;
  parked: number;
}

/** So many bills are locked, judged and written with one round of statements. */
const billsPerBatch = 2_000;

export function resultDueOn(debit: Pick<DirectDebitSettings, 'result'>, debitOn: string): string {
  return addBankDays(Temporal.PlainDate.from(debitOn), debit.result.count).toString();
}

/**
 * One file of requests for debits of one day, at most as large as the agency takes it: one transaction, in which every bill
 * is locked and looked at once more, its charge and lock are written, and the bytes are made of what was written. Without
 * a bill to ask for there is no file. `after`: the last bill that an earlier file has looked at.
 */
export async function askForDebits(
  ports: AskPorts,
  work: AskWork,
  debitOn: string,
  after: string | null,
): Promise<Asked> {
  await ports.clock.refresh();
  const act = { ...work.act, at: ports.clock.now() };
  return ports.db.transaction(async (tx) => {
    await refuseInSafeMode(tx);
    await recordAct(tx, act);
    const claiming = new Claiming(tx, ports, { ...work, act }, debitOn, after);
    const first = await claiming.next();
    if (first !== null) await writeFile(tx, { ...work, act }, claiming, first);
    // Last: the lock on the chunk's row would keep its lease from being renewed while a large file is made.
    await holdFence(tx, work.fence);
    return claiming.asked;
  });
}

async function writeFile(
  tx: Tx,
  work: AskWork,
  claiming: Claiming,
  first: readonly DebitAsked[],
): Promise<void> {
  const { act, merchant, debit, businessDate, render } = work;
  const head: OutwardHead = {
    kind: 'debit',
    merchantCode: merchant.code,
    businessDate,
    sequence: 1 + (await takeNumbers(tx, act.merchantId, 'outward:debit', 1)),
  };
  const { fileId, debitOn } = claiming;
  await openOutwardFile(tx, act, {
    id: fileId,
    kind: 'debit',
    sequence: head.sequence,
    name: render.name(head),
    businessDate,
    inputFileId: null,
    ownLayout: true,
    payout: null,
  });
  const { creditor } = debit;
  await insertRequest(tx, act, {
    fileId,
    debitOn,
    consignorCode: creditor.consignorCode,
    bank: creditor.bank,
    resultDueOn: resultDueOn(debit, debitOn),
  });
  const totals = { records: 0, sum: 0 };
  await keepContent(tx, act, fileId, totals, content());
  claiming.asked.files = 1;

  async function* content(): AsyncGenerator<Uint8Array> {
    const pen = render.begin(headerOf(debit, debitOn));
    yield pen.header();
    for (let debits: readonly DebitAsked[] | null = first; debits !== null; debits = await claiming.next()) {
      // The request stands now: its lines may point at it.
      await claiming.writeLines();
      yield pen.debits(debits);
    }
    totals.records = claiming.asked.debits;
    totals.sum = claiming.asked.amount;
    yield pen.end({ count: totals.records, amount: totals.sum });
  }
}

function headerOf({ creditor }: DirectDebitSettings, debitOn: string): Creditor {
  const { consignorCode, consignorName, bank, branch, accountType, account } = creditor;
  const debitDay = debitOn.slice(5, 7) + debitOn.slice(8, 10);
  return { consignorCode, consignorName, debitDay, bank, branch, accountType: String(accountType), account };
}

/** Bill after bill of one debit day, until the file is full or no bill is left. */
class Claiming {
  readonly fileId: string;
  readonly debitOn: string;
  readonly asked: Asked = {
    after: null,
    files: 0,
    debits: 0,
    amount: 0,
    late: 0,
    held: 0,
    locked: 0,
    notAutomatic: 0,
    noMandate: 0,
    waitingForReports: 0,
    parked: 0,
  };
  readonly #tx: Tx;
  readonly #ports: AskPorts;
  readonly #work: AskWork;
  readonly #isLate: boolean;
  #after: string | null;
  #ended = false;
  #lines: NewLine[] = [];

  constructor(tx: Tx, ports: AskPorts, work: AskWork, debitOn: string, after: string | null) {
    this.#tx = tx;
    this.#ports = ports;
    this.#work = work;
    this.fileId = ports.ids.uuid();
    this.debitOn = debitOn;
    this.#after = after;
    const earliest = addBankDays(
      Temporal.PlainDate.from(work.businessDate),
      Math.abs(work.debit.submit.count),
    ).toString();
    this.#isLate = debitOn < earliest;
  }

  /** The next debits of the file, claimed; null: it is full, or no bill is left. */
  async next(): Promise<readonly DebitAsked[] | null> {
    const { merchant, businessDate, debit, stop } = this.#work;
    while (!this.#ended) {
      stop.throwIfAborted();
      const room = (debit.recordsPerFile ?? defaultRecordsPerFile) - this.asked.debits;
      if (room <= 0) {
        this.asked.after = this.#after;
        return null;
      }
      const candidates = await billsToAskFor(
        this.#tx,
        merchant.id,
        businessDate,
        this.debitOn,
        this.#after,
        Math.min(billsPerBatch, room),
      );
      this.#ended = candidates.length === 0;
      const debits = await this.#claim(candidates);
      if (debits.length > 0) return debits;
    }
    return null;
  }

  /** Of the debits that `next` gave last. */
  async writeLines(): Promise<void> {
    await insertLines(this.#tx, this.#work.merchant.id, this.fileId, this.debitOn, this.#lines);
  }

  async #claim(candidates: readonly string[]): Promise<readonly DebitAsked[]> {
    if (candidates.length === 0) return [];
    const { merchant, businessDate, debit, act } = this.#work;
    const tx = this.#tx;
    const { asked } = this;
    const locked = await lockInvoices(tx, merchant.id, candidates);
    const due = await stillToAskFor(tx, merchant.id, businessDate, this.debitOn, candidates);
    const open = locked.filter((bill) => bill.state === 'open' && due.has(bill.id));
    const free = open.filter((bill) => bill.locked_by === null);
    const ids = (some: readonly { id: string }[]) => some.map((bill) => bill.id);
    const held = new Set(await heldAmong(tx, merchant.id, ids(free), businessDate));
    const unheld = this.#isLate ? [] : free.filter((bill) => !held.has(bill.id));
    const automatic = unheld.filter((bill) => bill.collection === 'auto' && bill.fell_back_on === null);
    const contracts = automatic.map((bill) => bill.contract_id);
    const mandates = new Map(
      (await mandatesOf(tx, merchant.id, contracts)).map((each) => [each.contract_id, each]),
    );
    const withMandate = automatic.filter((bill) => mandates.has(bill.contract_id));
    const tooEarly = new Set(await retriesTooEarly(tx, merchant.id, reportedMethod, ids(withMandate)));
    const ready = withMandate.filter((bill) => !tooEarly.has(bill.id));

    const charges: NewCharge[] = [];
    const debits: DebitAsked[] = [];
    const unwritable: string[] = [];
    this.#lines = [];
    const intentIds = await ensureAutoIntents(
      tx,
      act,
      ready.map((bill) => ({
        intentId: this.#ports.ids.uuid(),
        invoiceId: bill.id,
        amount: bill.amount,
        currency: bill.currency,
      })),
    );
    // From the day after it is an outcome that is not known.
    const deadlineAt = instantText(
      Temporal.PlainDate.from(resultDueOn(debit, this.debitOn))
        .add({ days: 1 })
        .toZonedDateTime(merchant.settings.timezone)
        .toInstant(),
    );
    let full = false;
    let last = candidates.at(-1) ?? null;
    for (const [index, bill] of ready.entries()) {
      const mandate = mandates.get(bill.contract_id);
      const intentId = intentIds.get(bill.id);
      const paymentNumber = due.get(bill.id);
      assertState(
        mandate && intentId && paymentNumber !== undefined,
        `bill ${bill.id} lost its mandate or intent`,
      );
      if (asked.amount + bill.amount > amountMax) {
        full = true;
        last = ready[index - 1]?.id ?? this.#after;
        break;
      }
      const token = this.#ports.sealer.open('method', mandate.sealed_token, mandate.payment_method_id);
      const account = accountOf(token);
      const holder = this.#work.render.holder(account.holder);
      if (holder === null) {
        unwritable.push(bill.id);
        continue;
      }
      const chargeId = this.#ports.ids.uuid();
      const customerNumber = customerKeyOf(paymentNumber);
      charges.push({
        id: chargeId,
        intentId,
        invoiceId: bill.id,
        sessionId: null,
        origin: 'auto',
        gateway: bankGateway,
        paymentMethodId: mandate.payment_method_id,
        amount: bill.amount,
        currency: bill.currency,
        businessDate: this.debitOn,
        deadlineAt,
        askAt: deadlineAt,
      });
      debits.push({
        ...account,
        holder,
        amount: bill.amount,
        newCode: mandate.asked_before ? '0' : mandate.changed ? '2' : '1',
        customerNumber,
      });
      asked.debits += 1;
      asked.amount += bill.amount;
      this.#lines.push({
        lineNo: asked.debits,
        chargeId,
        methodId: mandate.payment_method_id,
        customerKey: customerNumber,
        accountDigest: this.#ports.sealer.digest(accountText(account)),
        amount: bill.amount,
      });
    }
    this.#after = last;
    if (full) {
      this.#ended = true;
      asked.after = last;
    }
    // What comes after the last one is looked at again.
    const looked = <Bill extends { id: string }>(some: readonly Bill[]) =>
      some.filter(({ id }) => last !== null && id <= last);
    asked.locked += looked(open).length - looked(free).length;
    asked.late += this.#isLate ? free.length : 0;
    asked.held += looked(free).filter(({ id }) => !this.#isLate && held.has(id)).length;
    asked.notAutomatic += looked(unheld).length - looked(automatic).length;
    asked.noMandate += looked(automatic).length - looked(withMandate).length;
    asked.waitingForReports += looked(withMandate).filter(({ id }) => tooEarly.has(id)).length;
    await this.#setAside(unwritable);
    const chargeable = new Set(ids(withMandate));
    const resultOn = Temporal.PlainDate.from(resultDueOn(debit, this.debitOn)).add({ days: 1 }).toString();
    await setAgenda(tx, merchant.id, [
      ...looked(free)
        .filter(({ id }) => !chargeable.has(id))
        .map(({ id }) => ({ invoiceId: id, act: 'dun' as const, actOn: businessDate })),
      // A million bills that wait for the bank are not looked at every day.
      ...charges.map(({ invoiceId }) => ({ invoiceId, act: 'dun' as const, actOn: resultOn })),
    ]);
    await moveIntents(
      tx,
      act,
      charges.map((charge) => charge.intentId),
      'processing',
    );
    await insertCharges(tx, act, charges);
    return debits;
  }

  /** An account of before, whose holder cannot be written in the bank's characters: a person asks the customer. */
  async #setAside(invoiceIds: readonly string[]): Promise<void> {
    if (invoiceIds.length === 0) return;
    const { act } = this.#work;
    const tx = this.#tx;
    this.asked.parked += await parkBills(
      tx,
      act,
      this.#ports.ids,
      invoiceIds.map((invoiceId) => ({
        invoiceId,
        reason: 'HOLDER_UNWRITABLE',
        context: { debitOn: this.debitOn },
      })),
    );
    await raiseAlert(tx, this.#ports.ids.uuid(), act.at, {
      merchantId: act.merchantId,
      level: 'daily',
      cause: 'HOLDER_UNWRITABLE',
      message:
        'bills are parked because the name of the account’s holder has characters that banks do not take',
      occurrences: invoiceIds.length,
    });
  }
}

/** As enrolments seal it: `["bank-branch-type-account", "holder"]`. */
function accountOf(token: string): Omit<DebitAsked, 'amount' | 'newCode' | 'customerNumber'> {
  const [text, holder] = JSON.parse(token) as [string, string];
  const [bank = '', branch = '', accountType = '', account = ''] = text.split('-');
  return { bank, branch, accountType, account, holder };
}
