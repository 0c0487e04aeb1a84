import { createHash } from 'node:crypto';
import { Temporal } from 'temporal-polyfill';
import type { Notice } from '../../billing/alerts/sender.ts';
import type { ChainHead } from '../../billing/audit/chain.ts';
import { sealActs } from '../../billing/audit/seal.ts';
import { verifyAudit } from '../../billing/audit/verify.ts';
import { checkInvariants } from '../../billing/checks/queries.ts';
import { fixedClock } from '../../billing/clock.ts';
import type { Db } from '../../billing/db.ts';
import { uuidOf } from '../../billing/ids.ts';
import { ledgerDifferences } from '../../billing/ledger/queries.ts';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { gatesOf } from '../../billing/merchants/settings.ts';
import { debitNotice, messageOf, saidIn } from '../../billing/messages/message.ts';
import { type AskedDebit, type BankTruth, inconclusive } from './bank.ts';
import type { Baton } from './baton.ts';
import type { CarrierTruth, TakenSms } from './carrier.ts';
import type { Capture, GatewayTruth, Refunded } from './gateway.ts';
import { papersIn, resultRows, type SimulatedMerchant } from './merchants.ts';
import {
  alertOf,
  beganOverShopsWord,
  billedTwiceUnseen,
  bills,
  bookedPayments,
  bookedRefunds,
  clearing,
  type DebitRow,
  debitRows,
  findingsAtRest,
  frozenFile,
  type IntentRow,
  inputFiles,
  intentOf,
  messageState,
  openNow,
  parkedReasons,
  payoutsAtRest,
  recalledAtRest,
  refundState,
  sealedHashes,
  unfinished,
} from './queries.ts';
import type { StoreTruth } from './store.ts';

/** A server on which the product leaves files for somebody, and takes theirs. */
export interface WatchedExchange {
  /** The merchant's whose files they are. */
  code: string;
  inbound: string;
  outbound: string;
  store: StoreTruth;
}

/** With what clocks may differ by. */
const intentsLiveMs = 62_000;
/** So long a payment with the tick may stay unknown, and enrol its customer when it is learned. */
const learnedWithinMs = 48 * 3_600_000;

/**
 * What must hold between our database and what the outside world knows. It looks at the moment something happens out
 * there, and again when all is at rest; it shares no code with the jobs that it judges.
 */
export class Oracle {
  readonly violations: string[] = [];
  checks = 0;
  /** Differences with the gateway that were found, whatever became of them. */
  findings = 0;
  readonly #db: Db;
  readonly #baton: Baton;
  readonly #gateway: GatewayTruth;
  readonly #carrier: CarrierTruth;
  readonly #merchants: readonly SimulatedMerchant[];
  readonly #banks: readonly BankTruth[];
  /** By bill: the debit that a bank was asked for last. */
  readonly #askedFor = new Map<string, AskedDebit>();
  /** Debits that were taken, by what stands for them in `#capturedFor`. */
  readonly #debited = new Map<string, AskedDebit>();
  readonly #capturedFor = new Map<string, string>();
  readonly #taken = new Set<string>();
  /** By alert, or by the morning of a digest: the different notices that its receiver has had. */
  readonly #notices = new Map<string, Set<string>>();
  /** Since when operators have paused charging, by account. */
  readonly #pausedSinceMs = new Map<string, number>();
  /** By phone: when its holder said that he is not the customer, and of which SMS. */
  readonly #gaveBack = new Map<string, { atMs: number; sms: TakenSms }>();
  /** By merchant and customer: when he stopped automatic payment, and when the gateway last kept his card with a payment. */
  readonly #stopped = new Map<string, number>();
  readonly #keptCard = new Map<string, number>();
  /** What once stood under a final name, for ever. */
  readonly #final = new Map<string, string>();

  constructor(
    db: Db,
    baton: Baton,
    gateway: GatewayTruth,
    carrier: CarrierTruth,
    merchants: readonly SimulatedMerchant[],
    banks: readonly BankTruth[],
  ) {
    this.#db = db;
    this.#baton = baton;
    this.#gateway = gateway;
    this.#carrier = carrier;
    this.#merchants = merchants;
    this.#banks = banks;
  }

  violated(invariant: string, detail: string): void {
    this.violations.push(`${invariant}: ${detail}`);
  }

  gaveBack(sms: TakenSms): void {
    if (!this.#gaveBack.has(sms.to)) this.#gaveBack.set(sms.to, { atMs: this.#baton.nowMs, sms });
  }

  stopped(merchant: string, customerNumber: string): void {
    this.#stopped.set(`${merchant} ${customerNumber}`, this.#baton.nowMs);
  }

  hasStopped(merchant: string, customerNumber: string): boolean {
    return this.#stopped.has(`${merchant} ${customerNumber}`);
  }

  /** Whether the merchant has sent the customer's contact since, or before: then the phone may be the right one again. */
  #isContacted(merchantCode: string, phone: string): boolean {
    const merchant = this.#merchants.find(({ code }) => code === merchantCode);
    return (
      merchant?.people.some(
        (person) => dialled(person.phone) === phone && merchant.contacted.has(person.customerNumber),
      ) ?? false
    );
  }

  /** Who has stopped automatic payment is not charged without asking; what was learned late of a tick before it still counts. */
  #notAfterStop(account: string, capture: Capture, intent: IntentRow): void {
    const customer = `${account} ${intent.customer_number}`;
    if (capture.savedMethod !== null) this.#keptCard.set(customer, this.#baton.nowMs);
    const stoppedMs = this.#stopped.get(customer);
    if (stoppedMs === undefined || intent.origin !== 'auto') return;
    const keptMs = this.#keptCard.get(customer) ?? Number.NEGATIVE_INFINITY;
    if (Date.parse(intent.started_at) > stoppedMs + intentsLiveMs && keptMs < stoppedMs - learnedWithinMs)
      this.violated('agreements', `${customer} was charged by ${capture.reference} after an end`);
  }

  paused(account: string, sinceMs: number | null): void {
    if (sinceMs === null) this.#pausedSinceMs.delete(account);
    else this.#pausedSinceMs.set(account, sinceMs);
  }

  /** An operator’s pause holds: only what was begun before it is still called for, within the life of its intent. */
  chargeBegins(account: string): void {
    const sinceMs = this.#pausedSinceMs.get(account);
    if (sinceMs !== undefined && this.#baton.nowMs - sinceMs > intentsLiveMs)
      this.violated('halts', `${account} is charged ${this.#baton.nowMs - sinceMs} ms after it was paused`);
  }

  #look<T>(work: () => Promise<T>): Promise<T> {
    this.checks += 1;
    return this.#baton.exclusive(null, 'oracle', work);
  }

  /** 4, 6, 18: the gateway has just taken money. */
  async captured(capture: Capture): Promise<void> {
    const { account, reference, amount, currency } = capture;
    // At a shop nobody asks us first: what came twice must be a credit, which is looked at when all is at rest.
    if (capture.method === 'barcode') return;
    const intent = await this.#look(() => intentOf(this.#db, account, uuidOf(reference)));
    if (intent === undefined) {
      this.violated('I-18', `the gateway took money for ${reference} without a committed intent`);
      return;
    }
    if (intent.amount !== amount || intent.currency !== currency)
      this.violated('I-6', `${reference}: ${amount} ${currency} taken, ${intent.amount} asked`);
    this.#notAfterStop(account, capture, intent);
    const bill = `${account} ${intent.invoice_id}`;
    this.#notTwice(bill, reference);
    const debit = this.#askedFor.get(bill);
    if (debit !== undefined && !debit.told.some(({ code }) => !inconclusive.has(code)))
      this.violated('I-4', `bill ${bill} was charged by ${reference} while a bank is asked for it`);
    if (await this.#look(() => beganOverShopsWord(this.#db, account, uuidOf(reference))))
      this.violated('I-4', `bill ${bill} was charged by ${reference} though a shop had told of its payment`);
    this.#capturedFor.set(bill, reference);
  }

  /** A bank that calls a debit refused which it took has itself to thank for the second one. */
  #notTwice(bill: string, reference: string): void {
    const before = this.#capturedFor.get(bill);
    if (before === undefined) return;
    const debit = this.#debited.get(before);
    if (debit?.told.some(({ code }) => code !== '0' && !inconclusive.has(code))) return;
    this.violated('I-4', `bill ${bill} was charged twice: ${before}, ${reference}`);
  }

  /** 4, 6, 18: a bank has just taken a request for this debit. */
  async debitAsked(code: string, debit: AskedDebit): Promise<void> {
    const row = await this.#debitRow(code, debit);
    if (row === undefined) return;
    if (row.amount !== debit.amount)
      this.violated(
        'I-6',
        `${nameOf(debit)}: the bank is asked for ${debit.amount}, the intent is ${row.amount}`,
      );
    const bill = `${code} ${row.invoice_id}`;
    const before = this.#askedFor.get(bill);
    if (before !== undefined && !before.told.some((told) => !inconclusive.has(told.code)))
      this.violated('I-4', `bill ${bill} is asked for twice: ${nameOf(before)}, ${nameOf(debit)}`);
    this.#notTwice(bill, nameOf(debit));
    this.#askedFor.set(bill, debit);
  }

  /** 4: a bank has just debited an account. */
  async debited(code: string, debit: AskedDebit): Promise<void> {
    const row = await this.#debitRow(code, debit);
    if (row === undefined) return;
    const bill = `${code} ${row.invoice_id}`;
    this.#notTwice(bill, nameOf(debit));
    if (await this.#look(() => beganOverShopsWord(this.#db, code, row.charge_id)))
      this.violated(
        'I-4',
        `bill ${bill} was debited by ${nameOf(debit)} though a shop had told of its payment`,
      );
    this.#capturedFor.set(bill, nameOf(debit));
    this.#debited.set(nameOf(debit), debit);
  }

  async #debitRow(code: string, debit: AskedDebit): Promise<DebitRow | undefined> {
    const [row] = await this.#look(() => debitRows(this.#db, code, debit));
    if (row === undefined)
      this.violated('I-18', `the bank is asked for ${nameOf(debit)} without a committed intent`);
    return row;
  }

  /** 13, 18: the gateway has just given money back. */
  async refunded(refund: Refunded): Promise<void> {
    const { account, reference, chargeReference } = refund;
    const state = await this.#look(() => refundState(this.#db, account, uuidOf(reference)));
    if (state !== 'processing' && state !== 'unknown')
      this.violated(
        'I-18',
        `the gateway gave money back as ${reference} while that was ${state ?? 'not known'}`,
      );
    const sumOf = (rows: readonly { amount: number }[]) => rows.reduce((sum, { amount }) => sum + amount, 0);
    const taken = this.#gateway.captures.filter(
      (each) => each.account === account && each.reference === chargeReference,
    );
    const back = this.#gateway.refunds.filter(
      (each) => each.account === account && each.chargeReference === chargeReference,
    );
    if (sumOf(back) > sumOf(taken))
      this.violated('I-13', `${sumOf(back)} given back of ${sumOf(taken)} taken for ${chargeReference}`);
  }

  /** 5, 18: the carrier has just taken a message. */
  async messageTaken(sms: TakenSms): Promise<void> {
    const { messageId, merchantCode } = sms;
    if (this.#taken.has(messageId)) this.violated('I-5', `SMS ${messageId} was taken twice`);
    this.#taken.add(messageId);
    const { invoiceId, step } = messageOf(messageId);
    const known = await this.#look(() => messageState(this.#db, merchantCode, invoiceId, step));
    const { state, claimed_at: claimedAt } = known ?? { state: undefined, claimed_at: null };
    const back = this.#gaveBack.get(sms.to);
    const isAfter = back !== undefined && Date.parse(claimedAt ?? '') > back.atMs + intentsLiveMs;
    if (isAfter && !this.#isContacted(merchantCode, sms.to))
      this.violated('links', `SMS ${messageId} went to a phone whose holder is not the customer`);
    if (state !== 'sending' && state !== 'unknown')
      this.violated('I-18', `SMS ${messageId} went out while it was ${state ?? 'not known'}`);
    if (saidIn(step) === debitNotice && this.#capturedFor.has(`${merchantCode} ${invoiceId}`))
      this.violated('I-5', `SMS ${messageId} tells of a charge that has been made`);
  }

  /** 18: the operators have just been told. The same notice may come again; a new one only as the schedule allows. */
  async noticeTaken(notice: Notice): Promise<void> {
    const [about = '', rest = ''] = notice.id.split('.');
    const key = notice.kind === 'digest' ? notice.id : about;
    const known = this.#notices.get(key) ?? new Set();
    this.#notices.set(key, known.add(notice.id));
    if (notice.kind === 'digest') {
      const morning = Temporal.PlainDate.from(rest).toZonedDateTime({
        timeZone: 'Asia/Tokyo',
        plainTime: '08:00',
      });
      if (this.#baton.nowMs < morning.epochMilliseconds - 1_000)
        this.violated('alerts', `${notice.id} came before its morning`);
      return;
    }
    const alert = await this.#look(() => alertOf(this.#db, about));
    if (alert === undefined || alert.level !== 'now') {
      this.violated(
        'I-18',
        `notice ${notice.id} went out for an alert that is ${alert?.level ?? 'not known'}`,
      );
      return;
    }
    const openHours = (this.#baton.nowMs + 1_000 - Date.parse(alert.first_at)) / 3_600_000;
    const allowed = openHours < 1 ? 1 : 2 + Math.floor((openHours - 1) / 4);
    if (known.size > allowed)
      this.violated(
        'alerts',
        `${alert.cause}: ${known.size} notices within ${openHours.toFixed(1)} hours, ${allowed} are allowed`,
      );
  }

  /** Nobody was left untold. */
  async #told(before: Temporal.Instant): Promise<void> {
    for (const alert of await this.#look(() => openNow(this.#db, before)))
      if (!this.#notices.has(alert.id))
        this.violated('alerts', `${alert.cause} is open since ${alert.first_at} and nobody was told`);
  }

  /** 15: something has just changed on a merchant's server, or its bank's, by our hand. */
  async storeChanged(
    { code, inbound, outbound, store }: WatchedExchange,
    change: { what: 'written' | 'renamed' | 'removed'; path: string },
  ): Promise<void> {
    const { what, path } = change;
    if (path.startsWith(`${inbound}/`)) {
      if (what !== 'removed') this.violated('I-15', `${what} in the inbox: ${path}`);
      return;
    }
    const name = path.slice(outbound.length + 1);
    // What was left of a try that broke is taken away; what the merchant can see never is.
    if (name.startsWith('.')) return;
    if (what === 'removed') this.violated('I-15', `an outward file was removed: ${path}`);
    if (what === 'removed') return;
    if (what === 'written') this.violated('I-15', `written under the final name ${path}`);
    const bytes = store.files.get(path)?.bytes ?? Buffer.alloc(0);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const before = this.#final.get(`${code} ${path}`);
    if (before !== undefined) this.violated('I-15', `${path} appeared a second time`);
    this.#final.set(`${code} ${path}`, sha256);
    if (name.endsWith('.done')) {
      const dataSha = this.#final.get(`${code} ${path.slice(0, -5)}`);
      if (bytes.toString('utf8').split(' ')[0] !== dataSha)
        this.violated('I-15', `${path} names another digest than its file has`);
      return;
    }
    const frozen = await this.#look(() => frozenFile(this.#db, code, name));
    if (frozen === undefined) this.violated('I-18', `${path} is visible and not frozen in the database`);
    else if (frozen.sha256 !== sha256)
      this.violated('I-15', `${path} is visible with ${bytes.length} of ${frozen.size_bytes} bytes`);
    else if (frozen.in_dispute > 0)
      this.violated(
        'I-9',
        `${path} tells of ${frozen.in_dispute} bills that are in dispute with the gateway`,
      );
  }

  /** What `seikyu check` asks, at any moment between transactions. */
  async inBetween(): Promise<void> {
    await this.#invariants(false);
    for (const bank of this.#banks) await this.#debits(bank, Number.NEGATIVE_INFINITY);
  }

  /**
   * 9: what we hold of each debit is what the bank has said of it, and what is booked is what it took. `until`: what it had
   * said by then must be known. Returns what is booked, by charge.
   */
  async #debits(bank: BankTruth, untilMs: number): Promise<Map<string, number>> {
    const { code } = bank.merchant;
    const booked = new Map<string, number>();
    if (bank.debits.length === 0) return booked;
    const rows = new Map(
      (await this.#look(() => debitRows(this.#db, code, null))).map((row) => [nameOf(row), row]),
    );
    for (const debit of bank.debits) {
      const row = rows.get(nameOf(debit));
      if (row === undefined) {
        this.violated('I-18', `the bank was asked for ${nameOf(debit)} without a committed intent`);
        continue;
      }
      const conclusive = debit.told.filter(({ code: said }) => !inconclusive.has(said));
      const said = debit.told.map((told) => told.code).join(' ') || 'nothing';
      const may = new Set([
        ...(conclusive.some((told) => told.code === '0') ? ['succeeded'] : []),
        ...(conclusive.some((told) => told.code !== '0') ? ['failed'] : []),
        ...(conclusive.some(({ atMs }) => atMs < untilMs) ? [] : ['processing', 'unknown']),
      ]);
      const isLate = conclusive.some((told) => told.code === '0' && told.atMs < untilMs);
      if (isLate) may.delete('failed');
      if (!may.has(row.state))
        this.violated('I-9', `${code}: ${nameOf(debit)} is ${row.state}, the bank has said ${said}`);
      if (row.booked !== null && (debit.fate !== '0' || row.booked !== debit.amount))
        this.violated(
          'I-9',
          `${code}: ${nameOf(debit)} is booked over ${row.booked}, and the bank took nothing like it`,
        );
      if (row.booked !== null) booked.set(row.charge_id, row.booked);
    }
    return booked;
  }

  async #invariants(atRest: boolean): Promise<void> {
    const now = Temporal.Instant.fromEpochMilliseconds(this.#baton.nowMs);
    // A guard of the schema that was taken away on purpose must be missed by what it lets happen, not by its name.
    const { invariants } = await this.#look(() =>
      checkInvariants(this.#db, atRest ? { now, schema: false } : { inBetween: true }),
    );
    for (const invariant of invariants) {
      if (invariant.holds) continue;
      const first = invariant.examples[0];
      this.violated(
        `I-${invariant.id}`,
        `not true any more: ${invariant.name} (${first?.merchant} ${first?.subject}: ${first?.detail})`,
      );
    }
  }

  /** Faults have ended some days ago. `today` is the day that has just ended. */
  async atRest(today: Temporal.PlainDate, since: Temporal.Instant): Promise<void> {
    await this.#invariants(true);
    await this.#money(today);
    await this.#told(today.toZonedDateTime('Asia/Tokyo').toInstant());
    await this.#findings();
    await this.#payouts(today);
    const parked = await this.#look(() => parkedReasons(this.#db));
    for (const left of await this.#look(() => unfinished(this.#db, since)))
      this.violated('I-11', `${left.merchant}: ${left.what} is left over: ${left.subject}`);
    await this.#input();
    await this.#gates();
    await this.#output(parked, today);
    await this.#paper(parked);
    await this.#audit();
  }

  /** 14: who is told as unreached is so out there, once; and whoever has no phone for SMS is told. */
  async #paper(parked: readonly { merchant: string; name: string | null }[]): Promise<void> {
    const all = await this.#look(() => bills(this.#db));
    const waiting = new Set(parked.map(({ merchant, name }) => `${merchant} ${name}`));
    for (const merchant of this.#merchants) {
      const known = new Map(
        all.filter((bill) => bill.merchant === merchant.code).map((bill) => [bill.billing_number, bill]),
      );
      const phones = new Map(merchant.people.map(({ customerNumber, phone }) => [customerNumber, phone]));
      const sent = new Map(
        merchant.sent.flatMap((file) => file.bills).map((bill) => [bill.billingNumber, bill]),
      );
      const told = new Set<string>();
      for (const { billingNumber, cause, disposition, barcode } of merchant.received.flatMap((file) =>
        papersIn(merchant, file),
      )) {
        if (told.has(billingNumber)) this.violated('I-14', `${billingNumber} was told as unreached twice`);
        told.add(billingNumber);
        const bill = sent.get(billingNumber);
        const phone = phones.get(bill?.customerNumber ?? '') ?? '';
        const is = causesOutThere(phone, this.#carrier);
        if (this.#gaveBack.has(dialled(phone))) is.push('wrong_person');
        if (!is.includes(cause))
          this.violated('I-14', `${billingNumber} was told as ${cause}, out there it is ${is.join(' or ')}`);
        // Late in its life a bill has no barcode any more that a shop would take: nothing can be printed.
        const isLate = disposition === 'returned' && known.get(billingNumber)?.is_late === true;
        if (disposition !== merchant.settings.notify.unreached && !isLate)
          this.violated('I-14', `${billingNumber} was told as ${disposition} against the merchant's rule`);
        if (disposition === 'returned' && known.get(billingNumber)?.state !== 'unpaid')
          this.violated(
            'I-14',
            `${billingNumber} went back for paper and is ${known.get(billingNumber)?.state}`,
          );
        if (disposition === 'kept' && Number(barcode.slice(37, 43)) !== bill?.amount)
          this.violated(
            'I-14',
            `${billingNumber} is over ${bill?.amount}, its paper says ${barcode.slice(37, 43)}`,
          );
      }
      for (const [number, { customerNumber, isValid }] of sent) {
        const phone = phones.get(customerNumber) ?? '';
        const bill = known.get(number);
        const isTold = !bill?.is_automatic && !bill?.is_held;
        const isOut = bill?.state === 'open' && isTold && !waiting.has(`${merchant.code} ${number}`);
        const back = this.#gaveBack.get(dialled(phone));
        const isGivenBack =
          back !== undefined &&
          messageOf(back.sms.messageId).invoiceId === bill?.invoice_id &&
          back.sms.merchantCode === merchant.code &&
          !merchant.contacted.has(customerNumber);
        if (isValid && isOut && (isGivenBack || !/^0[789]0/.test(phone)) && !told.has(number))
          this.violated('I-14', `${number} can be told to nobody, and the merchant does not know`);
      }
    }
  }

  /** Every act stands as it was sealed, and every tie-out that a merchant has names a head that the chain went through. */
  async #audit(): Promise<void> {
    const now = this.#baton.now();
    const clock = fixedClock(now.toString());
    for (const { code, received } of this.#merchants) {
      const { findings } = await this.#look(async () => {
        const merchant = await merchantByCode(this.#db, code);
        // What visitors did since the last job.
        await sealActs({ db: this.#db, clock }, merchant.id);
        return verifyAudit(this.#db, { merchant, now, head: null, fromMonth: null });
      });
      for (const { what, actor, detail } of findings)
        this.violated('audit', `${code}: ${what}: ${detail} (${actor})`);
      const sealed = await this.#look(() => sealedHashes(this.#db, code));
      for (const file of received.filter(({ name }) => name.startsWith('tieout_'))) {
        const { audit } = JSON.parse(file.content.toString()) as { audit: ChainHead };
        if (audit.no > 0 && sealed.get(audit.no) !== audit.hash)
          this.violated('audit', `${file.name} names a head ${audit.no} that is not in the chain`);
      }
    }
  }

  /** 9: captures and payments are the same, one by one; and the ledger has their sum. */
  async #money(today: Temporal.PlainDate): Promise<void> {
    const booked = new Map(
      (await this.#look(() => bookedPayments(this.#db))).map((row) => [
        `${row.merchant} ${row.charge_id}`,
        row,
      ]),
    );
    const sums = new Map<string, number>();
    for (const capture of this.#gateway.captures) {
      const key = `${capture.account} ${uuidOf(capture.reference)}`;
      const payment = booked.get(key);
      if (payment === undefined) this.violated('I-9', `the gateway took ${key} and it is not booked`);
      else if (payment.amount !== capture.amount || payment.gateway_charge_id !== capture.gatewayChargeId)
        this.violated('I-9', `${key} is booked otherwise than the gateway took it`);
      booked.delete(key);
      sums.set(capture.account, (sums.get(capture.account) ?? 0) + capture.amount);
    }
    // What a bank said on the last two days may wait for a person who asks whether it counts.
    const untilMs = today.subtract({ days: 1 }).toZonedDateTime('Asia/Tokyo').epochMilliseconds;
    for (const bank of this.#banks) {
      const { code } = bank.merchant;
      for (const [chargeId, amount] of await this.#debits(bank, untilMs)) {
        booked.delete(`${code} ${chargeId}`);
        sums.set(code, (sums.get(code) ?? 0) + amount);
      }
    }
    for (const key of booked.keys()) this.violated('I-9', `${key} is booked and the gateway never took it`);
    await this.#moneyBack(sums);
    const cleared = await this.#look(() => clearing(this.#db));
    for (const { code } of this.#merchants) {
      if ((cleared.get(code) ?? 0) !== (sums.get(code) ?? 0))
        this.violated('I-20', `${code}: the ledger says ${cleared.get(code)}, the gateway ${sums.get(code)}`);
    }
  }

  /** 9, 13: what the gateway gave back is booked, one by one, and of recalled bills it is all that was taken. */
  async #moneyBack(sums: Map<string, number>): Promise<void> {
    const booked = new Map(
      (await this.#look(() => bookedRefunds(this.#db))).map((row) => [
        `${row.merchant} ${row.refund_id}`,
        row,
      ]),
    );
    const back = new Map<string, number>();
    for (const refund of this.#gateway.refunds) {
      const key = `${refund.account} ${uuidOf(refund.reference)}`;
      const row = booked.get(key);
      if (row?.amount !== refund.amount || row.gateway_refund_id !== refund.gatewayRefundId)
        this.violated('I-9', `the gateway gave back ${key} over ${refund.amount}, ${row?.amount} is booked`);
      booked.delete(key);
      sums.set(refund.account, (sums.get(refund.account) ?? 0) - refund.amount);
      const charge = `${refund.account} ${uuidOf(refund.chargeReference)}`;
      back.set(charge, (back.get(charge) ?? 0) + refund.amount);
    }
    for (const key of booked.keys()) this.violated('I-9', `refund ${key} is booked and was never made`);
    for (const { merchant, charge_id, amount, billing_number } of await this.#look(() =>
      recalledAtRest(this.#db),
    )) {
      const given = back.get(`${merchant} ${charge_id}`) ?? 0;
      if (given !== amount)
        this.violated('I-13', `${billing_number} was recalled: ${given} given back of ${amount}`);
    }
  }

  /** 9, 11: what the gateway put right is settled, what it did not is known and a person was called. */
  async #findings(): Promise<void> {
    const findings = await this.#look(() => findingsAtRest(this.#db));
    this.findings = findings.length;
    const known = new Set<string>();
    for (const finding of findings) {
      const { merchant, kind, subject, state, by_hand: byHand, called } = finding;
      const key = `${merchant} ${subject}`;
      const isForeign = kind === 'missing_here' && this.#gateway.foreign.has(key);
      if (isForeign) known.add(key);
      if (state === 'settled' && (!isForeign || byHand)) continue;
      if (state === 'open' && isForeign && called) continue;
      this.violated(
        'I-9',
        `${merchant}: ${kind} of ${subject} is ${state}${called ? '' : ', nobody was called'}`,
      );
    }
    for (const key of this.#gateway.foreign) {
      if (!known.has(key))
        this.violated('I-9', `the gateway has ${key}, which is nobody's here, and nobody says so`);
    }
  }

  /** 9, 14, 20: what the gateway has paid out is booked, and told to the merchant to the last yen. */
  async #payouts(today: Temporal.PlainDate): Promise<void> {
    const taken = new Map(
      (await this.#look(() => payoutsAtRest(this.#db))).map((row) => [
        `${row.merchant} ${row.payout_id}`,
        row,
      ]),
    );
    for (const merchant of this.#merchants) {
      for (const { payout, lines } of this.#gateway.payoutsOf(merchant.code)) {
        // What came on the last day may be told on the next.
        if (payout.valueDate >= today.toString()) continue;
        const key = `${merchant.code} ${payout.id}`;
        const ours = taken.get(key);
        if (ours?.state !== 'posted' || ours.booked !== payout.net) {
          this.violated(
            'I-9',
            `payout ${key} over ${payout.net} is ${ours?.state}, ${ours?.booked} are booked`,
          );
          continue;
        }
        const told = merchant.received.find((file) => file.name === ours.file);
        const rows = (told?.content.toString('latin1').split(/\r?\n/) ?? []).filter((line) =>
          line.startsWith('R,'),
        );
        const sum = rows.reduce((total, line) => total + Number(line.split(',')[7]), 0);
        if (told === undefined || rows.length !== lines.length || sum !== payout.net)
          this.violated(
            'I-14',
            `payout ${key} was told with ${rows.length} of ${lines.length} lines over ${sum}`,
          );
      }
    }
    for (const { comparison, merchant, subject, detail } of await this.#look(() =>
      ledgerDifferences(this.#db),
    ))
      this.violated('I-20', `not true any more: ${comparison} (${merchant} ${subject}: ${detail})`);
  }

  /** 1, 2: what the merchants sent against what was taken in. */
  async #input(): Promise<void> {
    const files = await this.#look(() => inputFiles(this.#db));
    for (const merchant of this.#merchants) {
      const ours = files.filter((file) => file.merchant === merchant.code);
      for (const sent of merchant.sent) {
        const taken = ours.filter((file) => file.name === sent.name);
        const released = taken.filter((file) => file.state === 'released');
        if (taken.length === 0) this.violated('I-1', `${sent.name} was sent and never taken`);
        if (sent.isBroken) continue;
        // One bill that was paid meanwhile refuses a whole file of cancels, where the merchant wants it so; one customer
        // whose first file is late, a file about him.
        if (sent.kind !== 'billing' && merchant.settings.exchange.reject === 'file' && released.length === 0)
          continue;
        if (released.length !== 1) this.violated('I-1', `${sent.name} was released ${released.length} times`);
        const valid = sent.bills.filter((bill) => bill.isValid).length;
        const [file] = released;
        if (
          sent.kind === 'billing' &&
          file !== undefined &&
          (file.lines_read !== sent.bills.length || file.lines_accepted !== valid)
        )
          this.violated(
            'I-2',
            `${sent.name}: ${valid} of ${sent.bills.length} lines are good, ${file.lines_accepted} of ${file.lines_read} were taken`,
          );
      }
      for (const file of ours) {
        if (file.receipts !== 1) this.violated('I-14', `${file.name} has ${file.receipts} receipts`);
      }
    }
  }

  /** Where a merchant wants it so, a second bill for a month waits for a person before anybody hears of it. */
  async #gates(): Promise<void> {
    const gated = new Set(
      this.#merchants.filter(({ settings }) => gatesOf(settings).twice).map(({ code }) => code),
    );
    for (const { merchant, billing_numbers } of await this.#look(() => billedTwiceUnseen(this.#db)))
      if (gated.has(merchant))
        this.violated(
          'gates',
          `${merchant}: ${billing_numbers} are for one month, and nobody looked at them`,
        );
  }

  /** 2, 11, 14: every line that was taken ends in one row of one file that the merchant has. */
  async #output(
    parked: readonly { merchant: string; reason: string; name: string | null }[],
    today: Temporal.PlainDate,
  ): Promise<void> {
    const dayBegan = today.toZonedDateTime('Asia/Tokyo').epochMilliseconds;
    const all = await this.#look(() => bills(this.#db));
    for (const merchant of this.#merchants) {
      const waiting = new Set(
        parked.filter((item) => item.merchant === merchant.code).map((item) => item.name),
      );
      const has = new Set([
        ...merchant.received.map((file) => file.name),
        ...this.#banks.flatMap((bank) => (bank.merchant === merchant ? [...bank.taken] : [])),
      ]);
      for (const item of parked) {
        if (item.merchant !== merchant.code) continue;
        if (item.reason === 'OUTWARD_FILE_GONE' && item.name !== null && !has.has(item.name))
          this.violated('I-14', `${item.name} is said to be taken, and the merchant never had it`);
        if (item.reason === 'OUTWARD_NAME_TAKEN' || item.reason === 'TIE_OUT_OPEN')
          this.violated('I-14', `${item.reason} of ${item.name}, and nobody but us writes there`);
      }
      const names = merchant.received.map((file) => file.name);
      if (new Set(names).size !== names.length) this.violated('I-14', `${merchant.code} got a name twice`);

      const finalRows = new Map<string, string[]>();
      for (const file of merchant.received) {
        for (const [, number = '', , outcome = ''] of (await resultRows(merchant, file)) ?? []) {
          if (!['paid', 'unpaid', 'cancelled'].includes(outcome)) continue;
          finalRows.set(number, [...(finalRows.get(number) ?? []), outcome]);
        }
      }
      const owed = new Map(
        merchant.sent
          .filter((file) => !file.isBroken)
          .flatMap((file) => file.bills)
          .filter((bill) => bill.isValid)
          .map((bill) => [bill.billingNumber, bill]),
      );
      for (const bill of all.filter((each) => each.merchant === merchant.code)) {
        const { billing_number: number, state } = bill;
        const rows = finalRows.get(number) ?? [];
        const isFinal = ['paid', 'unpaid', 'cancelled'].includes(state);
        if (rows.length > 1 || (rows.length === 1 && rows[0] !== state))
          this.violated('I-14', `${number} is ${state} and was told as ${rows.join(', ')}`);
        // What became final after the last day's delivery is told on the next.
        const isOld = bill.settled_at !== null && Date.parse(bill.settled_at) < dayBegan;
        if (isFinal && rows.length === 0 && isOld)
          this.violated('I-14', `${number} is ${state} and the merchant was never told`);
        if (!owed.has(number)) this.violated('I-2', `${number} was never sent`);
        else if (owed.get(number)?.amount !== bill.amount)
          this.violated('I-2', `${number} is over ${bill.amount}, sent were ${owed.get(number)?.amount}`);
        owed.delete(number);
        finalRows.delete(number);
        const isLate = bill.act_on === null || bill.act_on < today.toString();
        if (!isFinal && !waiting.has(number) && isLate)
          this.violated('I-11', `${number} is ${state}, its step was due on ${bill.act_on}, and it waits`);
      }
      for (const number of owed.keys()) this.violated('I-2', `${number} was sent and there is no bill`);
      for (const number of finalRows.keys()) this.violated('I-14', `${number} was told and never sent`);

      const tieOuts = new Map<string, { closes: boolean; lines: { accepted: number } }>();
      for (const file of merchant.received.filter(({ name }) => name.startsWith('tieout_'))) {
        const tieOut = JSON.parse(file.content.toString()) as {
          inputFile: string;
          closes: boolean;
          lines: { accepted: number };
        };
        if (!tieOut.closes) this.violated('I-2', `${file.name} does not close`);
        tieOuts.set(tieOut.inputFile, tieOut);
      }
      for (const sent of merchant.sent.filter((file) => file.kind === 'billing' && !file.isBroken)) {
        const accepted = sent.bills.filter((bill) => bill.isValid).length;
        if (tieOuts.get(sent.name)?.lines.accepted !== accepted)
          this.violated('I-2', `the tie-out of ${sent.name} does not say ${accepted}`);
      }
    }
  }
}

function nameOf({ file, key }: Pick<AskedDebit, 'file' | 'key'>): string {
  return `${file} ${key}`;
}

/** As the carrier knows a Japanese number. */
function dialled(phone: string): string {
  return `+81${phone.replaceAll(/\D/g, '').slice(1)}`;
}

/** Why an SMS may not have reached this number, as the outside knows. */
function causesOutThere(phone: string, carrier: CarrierTruth): string[] {
  if (phone === '') return ['no_phone'];
  if (!/^0[789]0/.test(phone)) return ['not_mobile'];
  const to = dialled(phone);
  const reach = carrier.reach.get(to) ?? 'delivered';
  return carrier.refused.has(to) ? [reach, 'undelivered'] : [reach];
}
