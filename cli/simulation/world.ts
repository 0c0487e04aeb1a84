import { Temporal } from 'temporal-polyfill';
import { acknowledgeAlerts } from '../../billing/alerts/queries.ts';
import { sendDueAlerts } from '../../billing/alerts/send.ts';
import { crashPoints } from '../../billing/crash-points.ts';
import { creditsWait } from '../../billing/credits/settle.ts';
import { CommitOutcomeUnknown, type Db } from '../../billing/db.ts';
import { settleHeld } from '../../billing/debits/answer.ts';
import { resultsOf } from '../../billing/debits/queries.ts';
import { unfinishedRemovals } from '../../billing/exchanges/queries.ts';
import { applyMerchant } from '../../billing/merchants/apply.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { merchantByCode } from '../../billing/merchants/queries.ts';
import { isFreshLink } from '../../billing/messages/message.ts';
import { confirmFile } from '../../billing/outward/confirm.ts';
import { parkedItems } from '../../billing/parked/queries.ts';
import { releaseParked } from '../../billing/parked/release.ts';
import { beginRecall, recallableFile } from '../../billing/recalls/begin.ts';
import { listFindings } from '../../billing/reconciliation/queries.ts';
import { settleFindingByHand } from '../../billing/reconciliation/settle.ts';
import { refundByHand } from '../../billing/refunds/by-hand.ts';
import { Refusal } from '../../billing/refusal.ts';
import { FenceLost } from '../../billing/runs/fence.ts';
import { changeHalt } from '../../billing/runs/halt.ts';
import { runningPasses, waitingRuns } from '../../billing/runs/queries.ts';
import { handleCallbacks } from '../../billing/sms-callbacks/handle.ts';
import { storeNews } from '../../billing/sms-callbacks/receive.ts';
import { handleWebhooks } from '../../billing/webhooks/handle.ts';
import { receiveWebhook } from '../../billing/webhooks/receive.ts';
import type { JobName } from '../../jobs/job.ts';
import { jobs } from '../../jobs/jobs.ts';
import { helpRun, messageOf, runJob, type Worker } from '../../jobs/run.ts';
import type { Person } from '../demo/people.ts';
import { BankTruth } from './bank.ts';
import { Baton } from './baton.ts';
import type { CarrierTruth, Reach, TakenSms } from './carrier.ts';
import { type Chance, chanceOf } from './chance.ts';
import { type ConsumerWorld, visit } from './consumers.ts';
import type { DiskContent } from './disk.ts';
import { calm, Faults, wild } from './faults.ts';
import { GatewayTruth, type WebhookToSend } from './gateway.ts';
import {
  collect,
  mendGaps,
  papersIn,
  planDay,
  type ReceivedFile,
  type SimulatedMerchant,
  simulatedMerchants,
} from './merchants.ts';
import { Oracle } from './oracle.ts';
import { type ProcessWorld, type SimulatedProcess, startProcess } from './process.ts';
import {
  debitsWait,
  recallableNames,
  refundablePayments,
  somethingToAsk,
  tableDigest,
  tableNames,
} from './queries.ts';
import type { ReceiverTruth } from './receiver.ts';
import type { Sabotage } from './sabotage.ts';
import type { StoreTruth } from './store.ts';
import { Trace } from './trace.ts';

/** What exists besides the product, and outlives its processes. */
export interface Outside {
  gateway: GatewayTruth;
  carrier: CarrierTruth;
  receiver: ReceiverTruth;
  stores: ReadonlyMap<string, StoreTruth>;
  disk: DiskContent;
  /** What the row of the virtual clock says. */
  clockRowMs: number;
  statements: number;
  /** Texts that a sabotage has found and replaced. */
  sabotaged: Set<string>;
}

export interface SeedOptions {
  seed: number;
  /** Days with faults. */
  days: number;
  /** liveness: some quiet days follow, after which everything must be done. safety: faults to the end. */
  mode: 'liveness' | 'safety';
  sabotage: Sabotage | null;
  /** Hears every step. */
  say: ((text: string) => void) | null;
}

export interface SeedResult {
  seed: number;
  days: number;
  violations: string[];
  lastSteps: string[];
  digest: string;
  steps: number;
  counts: Record<string, number>;
  /** Texts of statements that a sabotage replaced. */
  sabotaged: string[];
}

/** How long things may take to come to rest: a weekend, reports that were late, and the questions after them. */
const quietDays = 6;
const zone = 'Asia/Tokyo';
const resultHeld = 'DEBIT_RESULT_HELD ';
const isCrashPoint: ReadonlySet<string> = new Set(crashPoints);

/** The day's jobs. Not the whole timetable: each at the times that differ for it, on one worker or on both at once. */
const slots: readonly (readonly [string, JobName])[] = [
  ['04:12', 'fetch'],
  ['04:40', 'fetch'],
  ['04:50', 'ingest'],
  ['05:05', 'trace'],
  ['05:12', 'reconcile'],
  ['05:51', 'refresh'],
  ['06:07', 'charge'],
  ['06:13', 'trace'],
  ['07:05', 'trace'],
  ['07:32', 'debit'],
  ['08:17', 'dunning'],
  ['08:20', 'deliver'],
  ['09:22', 'notify'],
  ['09:25', 'fetch'],
  ['09:31', 'ingest'],
  ['10:07', 'charge'],
  ['10:13', 'trace'],
  ['10:17', 'dunning'],
  ['11:05', 'trace'],
  ['11:12', 'reconcile'],
  ['12:02', 'notify'],
  ['12:32', 'debit'],
  ['13:40', 'deliver'],
  ['13:51', 'refresh'],
  ['14:05', 'trace'],
  ['14:07', 'charge'],
  ['14:17', 'dunning'],
  ['15:22', 'notify'],
  ['16:05', 'trace'],
  ['18:40', 'deliver'],
  ['22:10', 'deliver'],
  ['23:05', 'trace'],
];

/** Runs one seed on an empty, migrated database. */
export async function runSeed(db: Db, webDb: Db, options: SeedOptions): Promise<SeedResult> {
  const world = new World(db, webDb, options);
  return world.run();
}

class World {
  readonly #options: SeedOptions;
  readonly #db: Db;
  readonly #trace: Trace;
  readonly #chance: Chance;
  /** Of its own, so that the rest of a seed stays as it was. */
  readonly #kinds: Chance;
  readonly #faults: Faults;
  readonly #baton: Baton;
  readonly #merchants: SimulatedMerchant[];
  readonly #outside: Outside;
  readonly #banks: readonly BankTruth[];
  readonly #oracle: Oracle;
  readonly #processes: ProcessWorld;
  readonly #applied = new Map<string, Merchant>();
  readonly #workers: (SimulatedProcess | undefined)[] = [undefined, undefined];
  readonly #phones = new Map<string, { person: Person }>();
  readonly #smsOfBill = new Map<string, number>();
  readonly #busyJobs = new Map<string, number>();
  readonly #counts: Record<string, number> = {};
  #web: SimulatedProcess | undefined;
  /** A stream of its own: seeds found before there were recalls stay what they were until the first one. */
  readonly #recalls: Chance;
  readonly #halts: Chance;
  readonly #refunds: Chance;
  readonly #reach: Chance;
  readonly #ways: Chance;
  #looker: SimulatedProcess | undefined;
  #started = 0;
  #noticesRead = 0;

  constructor(db: Db, webDb: Db, options: SeedOptions) {
    const { seed } = options;
    this.#options = options;
    this.#db = db;
    this.#trace = new Trace(options.say);
    this.#chance = chanceOf(seed, 'world');
    this.#kinds = chanceOf(seed, 'kinds');
    this.#recalls = chanceOf(seed, 'recalls');
    this.#halts = chanceOf(seed, 'halts');
    this.#refunds = chanceOf(seed, 'refunds');
    this.#reach = chanceOf(seed, 'reach');
    this.#ways = chanceOf(seed, 'ways out');
    this.#faults = new Faults(options.sabotage?.faults?.(wild) ?? wild, chanceOf(seed, 'faults'));
    const start = this.#firstDay().toZonedDateTime(zone);
    this.#baton = new Baton({
      startMs: start.epochMilliseconds,
      chance: chanceOf(seed, 'baton'),
      trace: this.#trace,
      kills: (owner, label) => this.#kills(owner.name, label),
    });
    this.#merchants = simulatedMerchants(2 + (seed % 2), chanceOf(seed, 'merchants'), this.#reach);
    const gateway = new GatewayTruth(this.#baton, this.#faults);
    this.#banks = this.#merchants
      .filter(({ settings }) => settings.autopay.directDebit !== null)
      .map((merchant) => new BankTruth(merchant, this.#baton, this.#faults, chanceOf(seed, 'bank')));
    this.#outside = {
      gateway,
      carrier: {
        taken: [],
        reach: new Map(),
        refused: new Set(),
        onTaken: async (sms) => this.#smsTaken(sms),
      },
      receiver: { taken: [], onTaken: (notice) => this.#oracle.noticeTaken(notice) },
      stores: new Map([
        ...this.#merchants.map(({ settings, store }) => [settings.exchange.sftp.username, store] as const),
        ...this.#banks.map(({ exchange, store }) => [exchange.sftp.username, store] as const),
      ]),
      disk: new Map(),
      clockRowMs: 0,
      statements: 0,
      sabotaged: new Set(),
    };
    this.#oracle = new Oracle(db, this.#baton, gateway, this.#outside.carrier, this.#merchants, this.#banks);
    gateway.onCapture = (capture) => this.#oracle.captured(capture);
    gateway.onChargeBegins = (account) => this.#oracle.chargeBegins(account);
    gateway.onRefund = (refund) => this.#oracle.refunded(refund);
    gateway.onWebhook = (webhook) => this.#sendWebhook(webhook, 1);
    for (const merchant of this.#merchants) {
      const exchange = { ...merchant.settings.exchange, code: merchant.code, store: merchant.store };
      merchant.store.onChange = (change) => this.#oracle.storeChanged(exchange, change);
      merchant.onReceived = (file) => this.#printed(merchant, file);
      for (const person of merchant.people) {
        if (person.phone === '') continue;
        const phone = `+81${person.phone.replaceAll(/\D/g, '').slice(1)}`;
        this.#phones.set(phone, { person });
        const drawn = this.#reach.next();
        if (drawn < 0.25) this.#outside.carrier.reach.set(phone, drawn < 0.15 ? 'undelivered' : 'blocked');
      }
    }
    for (const bank of this.#banks) {
      const { code } = bank.merchant;
      const exchange = { ...bank.exchange, code, store: bank.store };
      bank.store.onChange = async (change) => {
        if (bank.isOthers(change.path)) this.#oracle.violated('I-16', `${change.path} is another creditor's`);
        await this.#oracle.storeChanged(exchange, change);
      };
      bank.onAsked = (debit) => this.#oracle.debitAsked(code, debit);
      bank.onTaken = (debit) => this.#oracle.debited(code, debit);
    }
    this.#processes = {
      seed,
      baton: this.#baton,
      trace: this.#trace,
      faults: this.#faults,
      outside: this.#outside,
      db,
      webDb,
      sabotage: options.sabotage,
      onSilence: (untilMs) => this.#silence(untilMs),
    };
  }

  #firstDay(): Temporal.PlainDate {
    // Over the seeds the whole year comes, with its holidays.
    return Temporal.PlainDate.from('2026-11-24').add({ days: (this.#options.seed * 11) % 300 });
  }

  async run(): Promise<SeedResult> {
    const { days, mode, sabotage } = this.#options;
    const first = this.#firstDay();
    for (const statement of sabotage?.schema ?? []) await this.#db.run(statement);
    this.#looker = startProcess(this.#processes, 'looker');
    for (const merchant of this.#merchants) {
      await applyMerchant(this.#looker.ports, merchant.settings, 'simulation');
      this.#applied.set(merchant.code, await merchantByCode(this.#looker.ports.db, merchant.code));
    }
    const daysInAll = mode === 'liveness' ? days + quietDays : days;
    let dayNo = 0;
    for (; dayNo < daysInAll && this.#oracle.violations.length === 0; dayNo += 1) {
      if (dayNo === days) {
        this.#faults.profile = calm;
        this.#outside.gateway.downUntilMs = 0;
        this.#trace.line('faults end');
        for (const bank of this.#banks) bank.catchUp();
      }
      const day = first.add({ days: dayNo });
      this.#planDay(day, dayNo, dayNo >= days);
      await this.#runUntil(day.add({ days: 1 }));
      await this.#oracle.inBetween();
    }
    const last = first.add({ days: daysInAll - 1 });
    if (mode === 'liveness' && this.#oracle.violations.length === 0) {
      for (const merchant of this.#merchants) collect(merchant);
      await this.#oracle.atRest(
        last,
        first
          .add({ days: days + 1 })
          .toZonedDateTime(zone)
          .toInstant(),
      );
      for (const [job, since] of this.#busyJobs) {
        if (this.#baton.nowMs - since > 24 * 3_600_000)
          this.#oracle.violated('I-11', `${job} has been running for over a day`);
      }
    }
    for (const table of await tableNames(this.#db)) this.#trace.note(await tableDigest(this.#db, table));
    return {
      seed: this.#options.seed,
      days: dayNo,
      violations: this.#oracle.violations,
      lastSteps: this.#trace.last(),
      digest: this.#trace.digest(),
      steps: this.#trace.steps,
      counts: {
        ...this.#counts,
        captures: this.#outside.gateway.captures.length,
        ...this.#debitCounts(),
        'paid at shops': this.#outside.gateway.captures.filter(({ method }) => method === 'barcode').length,
        refunds: this.#outside.gateway.refunds.length,
        'cards changed': this.#outside.gateway.cardsChanged,
        sms: this.#outside.carrier.taken.length,
        notices: this.#outside.receiver.taken.length,
        statements: this.#outside.statements,
        checks: this.#oracle.checks,
        findings: this.#oracle.findings,
      },
      sabotaged: [...this.#outside.sabotaged],
    };
  }

  async #runUntil(day: Temporal.PlainDate): Promise<void> {
    try {
      await this.#baton.run(day.toZonedDateTime(zone).epochMilliseconds, async () => {
        if (this.#oracle.violations.length > 0) throw new Stopped();
      });
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
    }
  }

  #planDay(day: Temporal.PlainDate, dayNo: number, isQuiet: boolean): void {
    const midnight = day.toZonedDateTime(zone).epochMilliseconds;
    if (!isQuiet) {
      for (const merchant of this.#merchants)
        planDay(merchant, day, dayNo, this.#baton, this.#faults, this.#chance, this.#kinds);
    } else {
      for (const merchant of this.#merchants) mendGaps(merchant, day, this.#baton, this.#faults);
      for (const hour of [7, 13, 19, 23])
        for (const merchant of this.#merchants)
          this.#baton.at(midnight + hour * 3_600_000, `${merchant.code} looks for files`, () =>
            collect(merchant),
          );
    }
    for (const bank of this.#banks) bank.planDay(midnight);
    if (this.#faults.hits(this.#faults.profile.gateway.outage)) {
      const fromMs = midnight + this.#faults.between(5, 20) * 3_600_000;
      const untilMs = fromMs + this.#faults.between(5, 180) * 60_000;
      this.#baton.at(fromMs, 'the gateway is down', () => {
        this.#outside.gateway.downUntilMs = untilMs;
      });
    }
    for (const merchant of this.#merchants) {
      for (const hour of [6, 9, 15, 21])
        this.#baton.at(
          midnight + hour * 3_600_000,
          `${merchant.code}: runs left over?`,
          () => void this.#takeUp(merchant),
        );
    }
    // The schedule's tick, seldom: trace sends too.
    for (const hour of [2, 8, 13, 20])
      this.#baton.at(midnight + hour * 3_600_000 + 30_000, 'alerts are due', () => this.#sendAlerts());
    this.#baton.at(
      midnight + 15.5 * 3_600_000,
      'an operator looks at the findings',
      () => void this.#clearUp(),
    );
    for (const merchant of this.#merchants) {
      if (isQuiet || !this.#recalls.hits(this.#faults.profile.merchant.recallsFile)) continue;
      const atMs = midnight + this.#recalls.between(9, 22) * 3_600_000;
      this.#baton.at(
        atMs,
        `an operator of ${merchant.code} recalls a file`,
        () => void this.#recall(merchant),
      );
    }
    for (const merchant of this.#merchants) {
      if (isQuiet || !this.#refunds.hits(this.#faults.profile.merchant.refunds)) continue;
      const atMs = midnight + this.#refunds.between(9, 18) * 3_600_000;
      this.#baton.at(
        atMs,
        `operators of ${merchant.code} give money back`,
        () => void this.#refund(merchant),
      );
    }
    for (const merchant of this.#merchants) {
      if (isQuiet || !this.#halts.hits(this.#faults.profile.merchant.haltsCharging)) continue;
      // Mostly before the first slot of the day, where nearly all charges are.
      const before = this.#halts.hits(0.7);
      const atMs = midnight + this.#halts.between(5 * 60, before ? 6 * 60 + 10 : 15 * 60) * 60_000;
      const untilMs = atMs + this.#halts.between(1, 10 * 60) * 60_000;
      const what = this.#halts.hits(0.3) ? 'stop' : 'pause';
      this.#baton.at(
        atMs,
        `an operator of ${merchant.code}: ${what}`,
        () => void this.#halt(merchant, day, what),
      );
      if (what === 'pause' || this.#halts.hits(0.5))
        this.#baton.at(
          untilMs,
          `an operator of ${merchant.code}: resume`,
          () => void this.#halt(merchant, day, 'resume'),
        );
    }
    for (const [time, job] of slots) {
      const [hour = 0, minute = 0] = time.split(':').map(Number);
      const atMs = midnight + (hour * 60 + minute) * 60_000;
      const whose = job === 'debit' ? this.#banks.map(({ merchant }) => merchant) : this.#merchants;
      for (const merchant of whose)
        this.#baton.at(atMs, `${job} ${merchant.code} is due`, () => void this.#due(job, merchant, day));
    }
  }

  /** A person finds out whose the charges are that nobody here made, says so, and has read what was sent. */
  async #clearUp(): Promise<void> {
    const { ports } = this.#livingLooker();
    const told = this.#outside.receiver.taken.slice(this.#noticesRead).flatMap(({ notice }) => notice.alerts);
    this.#noticesRead = this.#outside.receiver.taken.length;
    const causes = new Map(told.map((alert) => [`${alert.merchant} ${alert.cause}`, alert]));
    for (const { merchant, cause } of causes.values())
      await acknowledgeAlerts(ports.db, this.#baton.now(), cause, merchant || null, 'operator@simulation');
    await this.#releaseParked(ports);
    await this.#askAfterFiles(ports);
    for (const { merchant, cause } of causes.values())
      if (cause.startsWith(resultHeld))
        await this.#askTheBank(ports, merchant, cause.slice(resultHeld.length));
    for (const finding of await listFindings(ports.db, { merchant: null, settledToo: false, limit: 100 })) {
      if (!this.#outside.gateway.foreign.has(`${finding.merchant} ${finding.subject}`)) continue;
      await settleFindingByHand(ports, finding.id, 'another shop of the merchant', 'operator@simulation');
      this.#count('findings settled by hand');
    }
  }

  /** What the gate has parked turns out to be right. */
  async #releaseParked(ports: SimulatedProcess['ports']): Promise<void> {
    const parked = (await parkedItems(ports.db)).filter(
      ({ reason }) => reason === 'BILLED_TWICE' || reason === 'AMOUNT_UNUSUAL',
    );
    const rule = { reason: null, file: null, amountAtMost: null, timesAtMost: null };
    for (const code of new Set(parked.map(({ merchant }) => merchant))) {
      const merchant = this.#applied.get(code);
      if (merchant === undefined) continue;
      const what = { billingNumbers: [], files: [], rule };
      const { bills } = await releaseParked(ports, merchant, what, 'operator@simulation');
      if (bills.length > 0) this.#count('bills released by hand');
    }
  }

  /** The merchant knows whether it has a file that was gone before its delivery was written down. */
  async #askAfterFiles(ports: SimulatedProcess['ports']): Promise<void> {
    for (const { reason, merchant: code, file_name: name } of await parkedItems(ports.db)) {
      const merchant = this.#applied.get(code);
      if (reason !== 'OUTWARD_FILE_GONE' || merchant === undefined || name === null) continue;
      const received = this.#merchants.find((each) => each.code === code)?.received ?? [];
      const isTaken = this.#banks.some((bank) => bank.merchant.code === code && bank.taken.has(name));
      // One that it never had is for the oracle to find.
      if (!isTaken && !received.some((file) => file.name === name)) continue;
      await confirmFile(ports, merchant, name, 'operator@simulation');
      this.#count('files confirmed');
    }
  }

  /** Whoever was called asks the bank whether its file counts. */
  async #askTheBank(ports: SimulatedProcess['ports'], code: string, name: string): Promise<void> {
    const merchant = this.#applied.get(code);
    const bank = this.#banks.find((each) => each.merchant.code === code);
    if (merchant === undefined || bank === undefined) return;
    const results = await resultsOf(ports.db, merchant.id, this.#baton.now().toString().slice(0, 10));
    for (const { reason } of results.filter((each) => each.name === name && each.state === 'held')) {
      const how = reason === 'ANSWERED_ALREADY' && !bank.withdrawn.has(name) ? 'accept' : 'dismiss';
      await settleHeld(ports, merchant, name, how, 'operator@simulation');
      this.#count(`results ${how}ed`);
    }
  }

  #debitCounts(): Record<string, number> {
    const debits = this.#banks.flatMap((bank) => bank.debits);
    if (debits.length === 0) return {};
    return { debits: debits.length, debited: debits.filter(({ fate }) => fate === '0').length };
  }

  /** A file that should not have come: perhaps young, perhaps with bills that were paid long ago. */
  async #recall(simulated: SimulatedMerchant): Promise<void> {
    const { ports } = this.#livingLooker();
    const merchant = this.#appliedOf(simulated);
    const names = await recallableNames(ports.db, merchant.id, this.#baton.now().subtract({ hours: 6 }));
    if (names.length === 0) return;
    const file = await recallableFile(ports.db, merchant, this.#recalls.oneOf(names));
    const { bills: count, amount: sum } = file;
    await beginRecall(ports, { merchant, file, count, sum, by: 'operator@simulation' });
    this.#count('files recalled');
  }

  /** Some of a payment, or all of it, by one operator or by two at once. */
  async #refund(simulated: SimulatedMerchant): Promise<void> {
    const merchant = this.#appliedOf(simulated);
    const payments = await refundablePayments(this.#livingLooker().ports.db, merchant.id);
    if (payments.length === 0) return;
    const { charge_id: chargeId, left } = this.#refunds.oneOf(payments);
    const parts = this.#refunds.between(1, 3);
    for (const no of this.#refunds.hits(0.3) ? [0, 1] : [0]) {
      const wish = {
        chargeId,
        amount: Math.ceil(left / parts),
        reason: `ticket ${no}`,
        by: `operator-${no}@simulation`,
      };
      const operator = this.#start(`operator-${no}`);
      void refundByHand(operator.ports, merchant, { ...wish, again: false }).then(
        ({ state }) => this.#count(`refunds by hand ${state}`),
        (error) => {
          if (error instanceof Refusal && error.code.startsWith('REFUND_'))
            this.#count('refunds by hand refused');
          else this.#judgeFailure('a refund by hand', error);
        },
      );
    }
  }

  async #halt(
    simulated: SimulatedMerchant,
    day: Temporal.PlainDate,
    what: 'pause' | 'stop' | 'resume',
  ): Promise<void> {
    const { ports } = this.#livingLooker();
    const merchant = this.#appliedOf(simulated);
    if (what === 'resume') this.#oracle.paused(simulated.code, null);
    const halt = { job: 'charge', businessDate: day.toString(), what };
    await changeHalt(ports, merchant, halt, 'operator@simulation');
    if (what === 'pause') this.#oracle.paused(simulated.code, this.#baton.nowMs);
    if (what === 'resume') await this.#takeUp(simulated);
    else this.#count(`charging halted`);
  }

  /** What a dead worker left, of this day or another. */
  async #takeUp(simulated: SimulatedMerchant): Promise<void> {
    const merchant = this.#appliedOf(simulated);
    const worker = this.#worker(this.#chance.between(0, 1));
    const left = await waitingRuns(this.#livingLooker().ports.db, merchant.id);
    for (const run of left)
      await this.#runJob(run.job as JobName, merchant, Temporal.PlainDate.from(run.business_date), worker);
  }

  /** On one worker or on both at once. */
  #sendAlerts(): void {
    const first = this.#chance.between(0, 1);
    for (const no of this.#chance.hits(0.3) ? [0, 1] : [first])
      void sendDueAlerts(this.#worker(no).ports).then(
        () => undefined,
        (error) => this.#judgeFailure('sending alerts', error),
      );
  }

  /** The other worker looks for runs whose lease has ended, perhaps while the silent one comes back. */
  #silence(untilMs: number): void {
    const atMs = Math.max(this.#baton.nowMs + 42_000, untilMs - this.#faults.between(0, 60_000));
    for (const merchant of this.#merchants)
      this.#baton.at(atMs, `${merchant.code}: runs left over?`, () => void this.#takeUp(merchant));
  }

  #appliedOf({ code }: SimulatedMerchant): Merchant {
    const merchant = this.#applied.get(code);
    if (merchant === undefined) throw new Error(`impossible state: ${code} was not applied`);
    return merchant;
  }

  /** Runs a job on one worker or on both, where it has something to do. */
  async #due(job: JobName, simulated: SimulatedMerchant, day: Temporal.PlainDate): Promise<void> {
    if (job === this.#options.sabotage?.withoutJob) return;
    const merchant = this.#appliedOf(simulated);
    const both = this.#chance.hits(0.15);
    const first = this.#chance.between(0, 1);
    if (await this.#isIdle(job, simulated, merchant, day)) return;
    for (const no of both ? [0, 1] : [first]) void this.#runJob(job, merchant, day, this.#worker(no));
  }

  async #isIdle(
    job: JobName,
    simulated: SimulatedMerchant,
    merchant: Merchant,
    day: Temporal.PlainDate,
  ): Promise<boolean> {
    if (job === 'fetch') {
      const inbox = `${simulated.settings.exchange.inbound}/`;
      const isEmpty = ![...simulated.store.files.keys()].some((path) => path.startsWith(inbox));
      if (!isEmpty || this.#chance.hits(0.1)) return false;
      // A removal whose answer was lost is only known to be done when somebody has looked.
      const { db } = this.#livingLooker().ports;
      return (await unfinishedRemovals(db, merchant.id)).length === 0;
    }
    if (job === 'debit') {
      const bank = this.#banks.find((each) => each.merchant === simulated);
      if (bank?.hasResults || this.#chance.hits(0.1)) return false;
      return !(await debitsWait(this.#livingLooker().ports.db, merchant.id, day.toString()));
    }
    if (job === 'trace') {
      // Its plan is never empty: it also looks for what is stuck, which need not be done every time.
      if (this.#chance.hits(0.08)) return false;
      const { db } = this.#livingLooker().ports;
      const asks = await somethingToAsk(db, merchant.id, this.#baton.now());
      return !(
        asks || (await creditsWait({ db, clock: this.#livingLooker().ports.clock }, merchant, day.toString()))
      );
    }
    const context = {
      ports: this.#livingLooker().ports,
      merchant,
      businessDate: day.toString(),
      stop: new AbortController().signal,
      progress: () => undefined,
    };
    if (job === 'reconcile') {
      if (this.#chance.hits(0.1) || (await jobs[job].dryRun(context)).reports !== 0) return false;
      // What the gateway puts right is settled once somebody has looked again.
      const open = { merchant: merchant.code, settledToo: false, limit: 1 };
      return (await listFindings(context.ports.db, open)).length === 0;
    }
    return (await jobs[job].plan(context)).length === 0;
  }

  #livingLooker(): SimulatedProcess {
    if (this.#looker === undefined) throw new Error('impossible state: nobody looks');
    return this.#looker;
  }

  async #runJob(
    job: JobName,
    merchant: Merchant,
    day: Temporal.PlainDate,
    worker: SimulatedProcess,
  ): Promise<void> {
    const what = `${job} ${merchant.code} ${day}`;
    this.#busyJobs.set(`${worker.name} ${what}`, this.#baton.nowMs);
    void worker.died.then(() => this.#busyJobs.delete(`${worker.name} ${what}`));
    try {
      const end = await runJob(worker.ports, jobs[job], {
        merchant,
        businessDate: day.toString(),
        worker: workerOf(worker),
      });
      const counts = Object.entries(end.counts).filter(([, count]) => count > 0);
      const failure = end.failure === null ? '' : messageOf(end.failure);
      this.#trace.line(`${worker.name} ${what}: ${end.outcome} ${counts.flat().join(' ')} ${failure}`);
      this.#count(`runs ${end.outcome}`);
      if (end.outcome === 'busy' && jobs[job].shared) await this.#help(job, merchant, worker);
      if (end.outcome === 'failed') this.#judgeFailure(what, end.failure);
    } catch (error) {
      this.#trace.line(`${worker.name} ${what}: threw ${messageOf(error)}`);
      this.#judgeFailure(what, error);
    } finally {
      this.#busyJobs.delete(`${worker.name} ${what}`);
    }
  }

  /** Another has opened the pass: this one does what chunks are free. */
  async #help(job: JobName, merchant: Merchant, worker: SimulatedProcess): Promise<void> {
    for (const run of await runningPasses(worker.ports.db, merchant.id, [job])) {
      const { business_date: businessDate, pass } = run;
      const options = { merchant, businessDate, pass, worker: workerOf(worker) };
      const chunks = await helpRun(worker.ports, jobs[job], options);
      if (chunks > 0) this.#count('chunks by helpers');
    }
  }

  /** A failure that no fault explains is a defect, whatever the database looks like. */
  #judgeFailure(what: string, error: unknown): void {
    this.#count('failures explained');
    if (error instanceof CommitOutcomeUnknown || error instanceof FenceLost) return;
    if (error instanceof Refusal && /^(SFTP_|UPLOAD_INCOMPLETE$|DISK_FULL$)/.test(error.code)) return;
    if (/lease was lost|another process has taken it over/.test(messageOf(error))) return;
    const at = error instanceof Error ? (error.stack?.split('\n').slice(0, 6).join('\n') ?? '') : '';
    this.#oracle.violated('no failure without a cause', `${what}: ${messageOf(error)}\n${at}`);
  }

  #count(name: string): void {
    this.#counts[name] = (this.#counts[name] ?? 0) + 1;
  }

  #worker(no: number): SimulatedProcess {
    const living = this.#workers[no];
    if (living !== undefined && !living.dead) return living;
    const begun = this.#start(`worker-${no + 1}`);
    this.#workers[no] = begun;
    return begun;
  }

  #livingWeb(): SimulatedProcess {
    if (this.#web === undefined || this.#web.dead) this.#web = this.#start('web');
    return this.#web;
  }

  #start(name: string): SimulatedProcess {
    this.#started += 1;
    return startProcess(this.#processes, `${name}:${this.#started}`);
  }

  #kills(name: string, label: string): boolean {
    const { killAtCrashPoint, killInCall } = this.#faults.profile;
    if (name === 'looker') return false;
    if (!this.#faults.hits(isCrashPoint.has(label) ? killAtCrashPoint : killInCall)) return false;
    this.#trace.line(`${name} is killed`);
    this.#count('kills');
    this.#silence(this.#baton.nowMs + 120_000);
    return true;
  }

  async #smsTaken(sms: TakenSms): Promise<void> {
    await this.#oracle.messageTaken(sms);
    this.#tellOfDelivery(sms);
    const known = this.#phones.get(sms.to);
    if (known === undefined || !this.#reads(sms)) return;
    const bill = sms.messageId.split('.')[0] ?? '';
    const seen = (this.#smsOfBill.get(bill) ?? 0) + 1;
    this.#smsOfBill.set(bill, seen);
    const { conduct } = known.person;
    const comesBack = conduct.abandonsFirst && seen === conduct.reactsTo + 1;
    const isFresh = isFreshLink(sms.messageId.split('.')[1] ?? '');
    if (seen !== conduct.reactsTo && !comesBack && !isFresh) return;
    // Some find the SMS again days later, when a reminder is on its way or the card has been charged.
    const withinHours = this.#chance.hits(0.25) ? 9 * 24 : 20;
    const atMs = this.#baton.nowMs + this.#chance.between(60_000, withinHours * 3_600_000);
    this.#baton.at(atMs, `${known.person.customerNumber} opens the link`, () => {
      this.#count('visits');
      void visit(this.#consumers(), sms, known.person);
    });
  }

  /** Now and then the carrier says of an SMS that it was lost, and somebody reads it. */
  #reads({ to, sender }: TakenSms): boolean {
    const reach = this.#outside.carrier.reach.get(to);
    // Who blocks one sender gets what another sends.
    if (reach === undefined || reach === 'delivered' || (reach === 'blocked' && sender === 'second'))
      return true;
    return reach === 'undelivered' && this.#reach.hits(this.#faults.profile.carrier.newsWrong);
  }

  /** The carrier's word on what became of an SMS: minutes later, mostly once. Nobody sends a lost one again. */
  #tellOfDelivery(sms: TakenSms): void {
    const { newsLost, newsTwice } = this.#faults.profile.carrier;
    if (this.#reach.hits(newsLost)) return;
    const known = this.#outside.carrier.reach.get(sms.to) ?? 'delivered';
    const reach = known === 'blocked' && sms.sender === 'second' ? 'delivered' : known;
    const times = this.#reach.hits(newsTwice) ? 2 : 1;
    for (let time = 0; time < times; time += 1) {
      const afterMs = this.#reach.between(500, this.#reach.hits(0.2) ? 8 * 3_600_000 : 600_000);
      this.#baton.at(this.#baton.nowMs + afterMs, `the carrier tells of ${sms.messageId}`, () => {
        void this.#receiveNews(sms, reach);
      });
    }
  }

  async #receiveNews(sms: TakenSms, reach: Reach): Promise<void> {
    const web = this.#livingWeb();
    const { ports, webDb } = web;
    const handle = async (): Promise<void> => {
      try {
        await storeNews(webDb, ports, sms.merchantCode, [
          {
            kind: 'status',
            messageId: sms.messageId,
            providerId: sms.providerId,
            delivery: reach === 'blocked' ? 'undelivered' : reach,
            code: reach === 'delivered' ? null : reach === 'blocked' ? '30004' : '30003',
            unreached: reach === 'delivered' ? null : reach,
          },
        ]);
        const merchant = this.#applied.get(sms.merchantCode);
        if (merchant !== undefined) await handleCallbacks(webDb, ports, merchant.id);
        this.#count('news of SMS');
      } catch (error) {
        this.#judgeFailure('news of SMS', error);
      }
    };
    await Promise.race([handle(), web.died]);
  }

  /** The merchant prints paper; some of those who get it walk to a shop with it. */
  #printed(merchant: SimulatedMerchant, file: ReceivedFile): void {
    for (const { disposition, barcode } of papersIn(merchant, file)) {
      this.#count(`paper ${disposition}`);
      if (barcode === '' || !this.#reach.hits(0.5)) continue;
      const lastDay = `20${barcode.slice(30, 32)}-${barcode.slice(32, 34)}-${barcode.slice(34, 36)}`;
      const atMs = this.#baton.nowMs + this.#reach.between(8 * 3_600_000, 9 * 86_400_000);
      this.#baton.at(atMs, `paper of ${merchant.code} is paid at a shop`, () => {
        // The till refuses it after its last day.
        if (this.#baton.now().toZonedDateTimeISO(zone).toPlainDate().toString() > lastDay) return;
        this.#outside.gateway.payAtShop(merchant.code, barcode);
        this.#count('paper paid');
      });
    }
  }

  #consumers(): ConsumerWorld {
    return {
      baton: this.#baton,
      chance: this.#chance,
      ways: this.#ways,
      trace: this.#trace,
      oracle: this.#oracle,
      count: (what) => this.#count(what),
      gateway: this.#outside.gateway,
      web: () => this.#livingWeb(),
      onFailure: (what: string, error: unknown) => {
        this.#trace.line(`${what}: threw ${messageOf(error)}`);
        this.#judgeFailure(what, error);
      },
    };
  }

  #sendWebhook(webhook: WebhookToSend, attempt: number): void {
    this.#baton.at(webhook.dueAtMs, `webhook to ${webhook.account}`, () => {
      void this.#receiveWebhook(webhook).then((received) => {
        if (received || attempt >= 4) return;
        const dueAtMs = this.#baton.nowMs + 60_000 * 10 ** (attempt - 1);
        this.#sendWebhook({ ...webhook, dueAtMs }, attempt + 1);
      });
    });
  }

  /** As the web's route does: stored, acknowledged, then handled. */
  async #receiveWebhook(webhook: WebhookToSend): Promise<boolean> {
    const web = this.#livingWeb();
    const { ports, webDb } = web;
    const handle = async (): Promise<boolean> => {
      try {
        const received = await receiveWebhook(webDb, ports, {
          gateway: ports.gateway.name,
          merchantCode: webhook.account,
          rawBody: webhook.body,
          headers: { 'simulator-signature': webhook.signature },
        });
        if (received.kind !== 'stored') {
          this.#oracle.violated('webhook', 'a genuine webhook was refused');
          return false;
        }
        await ports.crash('webhook.after_inbox');
        const { event, merchant } = received;
        if (event !== null) {
          void handleWebhooks(webDb, ports, merchant, [event]).then(
            () => undefined,
            (error) => this.#judgeFailure('webhook', error),
          );
        }
        return true;
      } catch (error) {
        this.#judgeFailure('webhook', error);
        return false;
      }
    };
    return (await Promise.race([handle(), web.died])) === true;
  }
}

/** A violation was found: nothing after it is of interest. */
class Stopped extends Error {}

/** A dead process is missed when its lease has ended, not before. */
function workerOf({ name }: SimulatedProcess): Worker {
  return { owner: name, isDead: () => false, codeVersion: 'simulation' };
}
