import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as wait } from 'node:timers/promises';
import { Temporal } from 'temporal-polyfill';
import { expect } from 'vitest';
import { readOutbox } from '../billing/carriers/outbox.ts';
import { type VirtualClock, virtualClock } from '../billing/clock.ts';
import type { CrashPoint } from '../billing/crash-points.ts';
import { seededRandomness, timeOrderedIds, uuidOf } from '../billing/ids.ts';
import { applyMerchant } from '../billing/merchants/apply.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import { parseMerchantSettings } from '../billing/merchants/settings.ts';
import { beginRecall, recallableFile } from '../billing/recalls/begin.ts';
import { deriveKeys, makeSealer, type Sealer } from '../billing/sealing.ts';
import { answerRequest } from '../cli/demo/bank.ts';
import { Consumers, tillsOf } from '../cli/demo/consumers.ts';
import { type GatewaySimulator, startGatewaySimulator } from '../cli/demo/gateway-simulator/server.ts';
import type { Conduct } from '../cli/demo/people.ts';
import { type KeyPair, makeKeyPair, type SftpServer, startSftpServer } from '../cli/demo/sftp-server.ts';
import type { Chance } from '../cli/simulation/chance.ts';
import { bookedPayments, clearing, parkedReasons, unfinished } from '../cli/simulation/queries.ts';
import { simulatorSecret } from '../cli/system.ts';
import { openArchive } from '../files/archive.ts';
import { openDisk } from '../files/disk.ts';
import type { JobEnd, Order, Said } from './billing-day-process.ts';
import { expectInvariants } from './bills.ts';
import type { Step } from './boundaries.ts';
import { type TestDatabase, testDatabase } from './database.ts';
import { type BillFields, billingFile, cancelFile } from './inbox.ts';

/**
 * The world around a billing process, in the test's own process: time, a gateway, merchants' SFTP servers and people with
 * phones. The product runs beside it as processes that may be killed at any moment and are started again.
 */

const secret = 'a secret of tests, of at least 32 characters';
const zone = 'Asia/Tokyo';
const checkout = join(import.meta.dirname, '..');
/** A pair costs more to make than a day has time for. */
let keys: { host: KeyPair; user: KeyPair } | undefined;

/** The product and the process around it as plain JavaScript: each of many processes then starts in half the time. */
export function compileProcess(): { program: string; remove(): void } {
  const folder = fs.mkdtempSync(join(tmpdir(), 'seikyu-process-'));
  fs.writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  fs.symlinkSync(join(checkout, 'node_modules'), join(folder, 'node_modules'));
  const config = join(folder, 'tsconfig.json');
  fs.writeFileSync(
    config,
    JSON.stringify({
      extends: join(checkout, 'tsconfig.build.json'),
      compilerOptions: { rootDir: checkout, outDir: folder, sourceMap: false },
      include: [],
      files: [join(checkout, 'test', 'billing-day-process.ts')],
    }),
  );
  execFileSync(
    process.execPath,
    [join(checkout, 'node_modules/typescript/bin/tsc'), '-p', config, '--noCheck'],
    {
      stdio: 'inherit',
    },
  );
  return {
    program: join(folder, 'test', 'billing-day-process.js'),
    remove: () => fs.rmSync(folder, { recursive: true, force: true }),
  };
}

interface Customer {
  number: string;
  conduct: Conduct;
}

const paying: Conduct = {
  reactsTo: 1,
  declinedFirst: null,
  card: 'visa',
  enrols: false,
  pays: 'card',
  paysTwice: false,
  fumbles: false,
  abandonsFirst: false,
};
const people: readonly (readonly [name: string, conduct: Conduct | null])[] = [
  ['C001', { ...paying, enrols: true, changesCardTo: 'mastercard-challenge' }],
  ['C002', { ...paying, enrols: true, card: 'later-insufficient-funds-once', declinedFirst: 'do-not-honor' }],
  // Begins to give another card and leaves its page: somebody must close it.
  ['C003', { ...paying, enrols: true, card: 'timeout-after-effect', changesCardTo: null }],
  ['C004', { ...paying, enrols: true, card: 'timeout-before-effect' }],
  ['C005', { ...paying, card: 'visa-challenge' }],
  // Opens the gateway's page and leaves it: somebody must close it.
  ['C006', { ...paying, abandonsFirst: true }],
  ['C007', null],
  ['C008', null],
  ['C009', { ...paying, pays: 'barcode' }],
  // Types a card that is declined, leaves its page and pays by wallet.
  ['C010', { ...paying, pays: 'wallet', declinedFirst: 'do-not-honor' }],
  ['C011', null],
  ['C012', null],
];

/** What each bill must come to, whatever is killed. The second file is charged to the cards of the first. */
const firstBills: readonly (readonly [customer: string, outcome: string | null, change: BillFields])[] = [
  ['C001', 'paid', {}],
  ['C002', 'paid', {}],
  ['C003', 'paid', {}],
  ['C004', 'paid', {}],
  ['C005', 'paid', {}],
  ['C006', 'unpaid', {}],
  ['C007', 'unpaid', {}],
  ['C008', 'cancelled', {}],
  ['C008', null, { due: '2026-02-30' }],
  ['C009', 'paid', {}],
  ['C010', 'paid', {}],
];
const secondBills = firstBills.slice(0, 4);
/** A file that should not have come: recalled when one of its bills is paid and the other was told of. */
const wrongBills: typeof firstBills = [
  ['C001', 'paid', {}],
  ['C007', 'cancelled', {}],
];
/** Debited by the bank, which is asked for the 30th on the 26th and answers in the night before 1 December. */
const bankBills: typeof firstBills = [
  ['C011', 'paid', { collection: 'auto' }],
  ['C012', 'unpaid', { collection: 'auto' }],
];
const bankAnswersAt = '2026-12-01T09:30';
const shortOfFunds = 6_012;
const recalledAt = '2026-12-01T09:30';
const dueOn = '2026-11-30';
/** Nobody takes it, and somebody must hear of it. */
const strangeName = 'read-me-first.txt';
const alertsPath = '/operators/alerts';

type Slot = { at: string } & ({ round: true } | { visits: 'duplicate' | 'normal' });

/** Some days nothing runs at all, as after an outage. Webhooks of charges without their holder never come. */
const slots: readonly Slot[] = [
  { at: '2026-11-25T09:30', round: true },
  { at: '2026-11-25T11:00', visits: 'duplicate' },
  { at: '2026-11-25T13:05', round: true },
  { at: '2026-11-25T15:00', visits: 'normal' },
  { at: '2026-11-26T09:30', round: true },
  { at: '2026-11-26T11:00', visits: 'normal' },
  { at: '2026-11-30T09:30', round: true },
  { at: '2026-11-30T13:05', round: true },
  { at: '2026-12-01T09:30', round: true },
  { at: '2026-12-01T11:00', visits: 'normal' },
  { at: '2026-12-03T09:30', round: true },
  { at: '2026-12-04T09:30', round: true },
  { at: '2026-12-04T13:05', round: true },
];

/** At the end of a stress nobody dies any more, so that all comes to rest. */
const calmRounds = 3;
/** About as long as a round of three processes takes. */
const killWithinMs = 600;

export interface Death {
  signal: string | null;
  code: number | null;
  /** The last point that it passed. */
  at: string | undefined;
}

export interface Kill {
  point: CrashPoint;
  nth: number;
}

export interface DayOptions {
  program: string;
  merchants?: number;
}

export class BillingDay {
  readonly ours: TestDatabase;
  readonly theirs: TestDatabase;
  readonly #program: string;
  readonly #home: string;
  readonly #clock: VirtualClock;
  readonly #sealer: Sealer;
  readonly #gateway: GatewaySimulator;
  readonly #front: Front;
  readonly #codes: readonly string[];
  readonly #customers: ReadonlyMap<string, Customer>;
  readonly #consumers: Consumers;
  readonly #closers: (() => Promise<unknown>)[];
  /** Bills whose customer has done what it does. */
  readonly #answered = new Set<string>();
  readonly #processes = new Map<number, BillingProcess>();
  readonly #traces: string[] = [];
  readonly #kills: Kill[] = [];
  readonly deaths: Death[] = [];
  /** By merchant, in yen. */
  readonly #bankTook = new Map<string, number>();

  private constructor(parts: {
    ours: TestDatabase;
    theirs: TestDatabase;
    program: string;
    home: string;
    clock: VirtualClock;
    sealer: Sealer;
    gateway: GatewaySimulator;
    front: Front;
    codes: readonly string[];
    merchants: readonly Merchant[];
    closers: (() => Promise<unknown>)[];
  }) {
    this.ours = parts.ours;
    this.theirs = parts.theirs;
    this.#program = parts.program;
    this.#home = parts.home;
    this.#clock = parts.clock;
    this.#sealer = parts.sealer;
    this.#gateway = parts.gateway;
    this.#front = parts.front;
    this.#codes = parts.codes;
    this.#closers = parts.closers;
    this.#consumers = new Consumers(tillsOf(parts.gateway.url, parts.merchants));
    this.#customers = new Map(
      parts.codes.flatMap((code, no) =>
        people.flatMap(([name, conduct], index) => {
          return conduct === null
            ? []
            : [[`+81${phoneOf(no, index + 1)}`, { number: `${code}-${name}`, conduct }] as const];
        }),
      ),
    );
  }

  static async open(options: DayOptions): Promise<BillingDay> {
    const closers: (() => Promise<unknown>)[] = [];
    const ours = await testDatabase();
    closers.push(() => ours.drop());
    const theirs = await testDatabase();
    closers.push(() => theirs.drop());
    const home = fs.mkdtempSync(join(tmpdir(), 'seikyu-day-'));
    closers.push(() => fs.promises.rm(home, { recursive: true, force: true }));
    const clock = virtualClock(ours.db);
    await clock.set(instantOf('2026-11-25T04:00'));
    const front = await openFront();
    closers.push(() => front.close());
    const gateway = await startGatewaySimulator({
      databaseUrl: theirs.url,
      secret: simulatorSecret(secret),
      clockUrl: ours.url,
      webhookUrl: `${front.url}/webhooks/simulator/{account}`,
      holdMs: 1_200,
    });
    closers.push(() => gateway.close());
    const codes = Array.from({ length: options.merchants ?? 1 }, (_, index) => `minato-gas-${index + 1}`);
    keys ??= { host: makeKeyPair(), user: makeKeyPair() };
    const { host, user } = keys;
    const sftp = await startSftpServer({
      hostKey: host.privateKey,
      accounts: codes.map((code) => ({
        username: code,
        publicKey: user.publicKey,
        root: join(home, 'server', code),
      })),
      faults: {},
    });
    closers.push(() => sftp.stop());
    const randomness = seededRandomness('billing day');
    for (const code of codes) {
      for (const folder of ['inbound', 'outbound', 'requests', 'results'])
        fs.mkdirSync(join(home, 'server', code, folder), { recursive: true });
      fs.mkdirSync(join(home, 'keys'), { recursive: true });
      fs.writeFileSync(join(home, 'keys', code), user.privateKey, { mode: 0o600 });
      const { settings } = parseMerchantSettings(settingsOf(code, sftp), {
        path: `${code}.yaml`,
        readable: () => 'ok',
        layout: () => undefined,
      });
      await applyMerchant({ db: ours.db, clock, ids: timeOrderedIds(clock, randomness) }, settings, 'test');
    }
    const merchants: Merchant[] = [];
    for (const code of codes) merchants.push(await merchantByCode(ours.db, code));
    return new BillingDay({
      merchants,
      ours,
      theirs,
      program: options.program,
      home,
      clock,
      sealer: makeSealer(deriveKeys(secret), randomness),
      gateway,
      front,
      codes,
      closers,
    });
  }

  async close(): Promise<void> {
    for (const living of this.#processes.values()) await living.end();
    await this.#consumers.close();
    for (const closer of this.#closers.reverse()) await closer();
  }

  /** All days from the first file to the last row. `kills`: one for each process in turn; the last one is left alone. */
  async walk(kills: readonly Kill[] = []): Promise<void> {
    this.#kills.push(...kills);
    await this.#through(1, () => 0);
  }

  /** The same with several processes at once, so many of which are killed at any moment of their rounds. */
  async stress(processes: number, kills: number, chance: Chance): Promise<void> {
    const rounds = slots.filter((slot) => 'round' in slot).length - calmRounds;
    let left = kills;
    let roundsLeft = rounds;
    await this.#through(
      processes,
      () => {
        if (roundsLeft <= 0) return 0;
        const now = Math.ceil(left / roundsLeft);
        roundsLeft -= 1;
        left -= now;
        return now;
      },
      chance,
    );
  }

  /** `killsIn`: how many processes die in this round. */
  async #through(processes: number, killsIn: () => number, chance?: Chance): Promise<void> {
    for (const slot of slots) {
      const at = instantOf(slot.at);
      // Sending at the merchants' pace moves the clock too: it never goes back.
      await this.#clock.refresh();
      if (Temporal.Instant.compare(at, this.#clock.now()) > 0) await this.#clock.set(at);
      this.#drop(slot.at);
      if (slot.at === recalledAt) await this.#recall();
      if (slot.at === bankAnswersAt) this.#bankAnswers();
      const numbers = Array.from({ length: processes }, (_, no) => no);
      await Promise.all(numbers.map((no) => this.#living(no)));
      if ('round' in slot) {
        await Promise.all([
          this.#killAnyOf(numbers, killsIn(), chance),
          ...numbers.map((no) => this.#round(no, { round: slot.at.slice(0, 10), from: no })),
        ]);
      } else {
        await this.#webhooks(slot.visits);
        while (!(await this.#visits(numbers)));
        await this.#webhooks('never');
      }
    }
    for (const [no, living] of this.#processes) {
      await living.end();
      this.#processes.delete(no);
    }
  }

  /** Who and when is drawn; where in its work the process is then, nobody knows. */
  async #killAnyOf(numbers: readonly number[], kills: number, chance: Chance | undefined): Promise<void> {
    for (let killed = 0; chance !== undefined && killed < kills; killed += 1) {
      await wait(chance.between(0, killWithinMs));
      const living = numbers.flatMap((no) => this.#processes.get(no) ?? []).filter(({ isDead }) => !isDead);
      if (living.length > 0) await chance.oneOf(living).kill();
    }
  }

  /** What merchants leave in their inboxes before a slot. */
  #drop(at: string): void {
    const date = at.slice(0, 10);
    for (const [no, code] of this.#codes.entries()) {
      const put = (kind: string, sequence: number, content: string) => {
        const name = `${kind}_${code}_${date.replaceAll('-', '')}_000${sequence}.csv`;
        const inbox = join(this.#home, 'server', code, 'inbound');
        fs.writeFileSync(join(inbox, name), content);
        fs.writeFileSync(join(inbox, `${name}.done`), `${sha256Of(content)}  ${name}\n`);
      };
      const file = (sequence: number, bills: typeof firstBills) =>
        billingFile(
          sequence,
          bills.map(([customer, , change]) => ({
            customer: `${code}-${customer}`,
            phone: `0${phoneOf(no, Number(customer.slice(1)))}`,
            due: dueOn,
            // A second bill of one month would be parked.
            period: `2026-${String(6 + sequence).padStart(2, '0')}`,
            amount: String(1_000 * sequence + Number(customer.slice(1))),
            ...change,
          })),
          { merchant: code, businessDate: date },
        );
      if (at === '2026-11-25T09:30') {
        put('billing', 1, file(1, firstBills));
        fs.writeFileSync(join(this.#home, 'server', code, 'inbound', strangeName), 'not for Seikyu');
      }
      if (at === '2026-11-26T09:30') {
        put('cancel', 2, cancelFile(2, ['B1-8'], code));
        put('billing', 3, file(3, secondBills));
        put('billing', 4, file(4, wrongBills));
        const accounts = bankBills.map(
          ([customer], index) =>
            `D,${code}-${customer},,start,bank,0001-001-1-000000${index + 1},ﾔﾏﾀﾞ ﾊﾅｺ,${date}`,
        );
        const head = `H,1,${code},enrolment,${date},5`;
        put('enrolment', 5, [head, ...accounts, `T,${accounts.length},0`, ''].join('\n'));
        put('billing', 6, file(6, bankBills));
      }
    }
  }

  /** Each request that is there, once: what the bank took is what the books must say. */
  #bankAnswers(): void {
    for (const code of this.#codes) {
      const server = join(this.#home, 'server', code);
      const names = fs.readdirSync(join(server, 'requests')).filter((name) => !name.endsWith('.done'));
      expect(names.map((name) => fs.existsSync(join(server, 'requests', `${name}.done`)))).toEqual([true]);
      for (const name of names) {
        const request = fs.readFileSync(join(server, 'requests', name));
        const { batches, bytes } = answerRequest(request, ({ amount }) =>
          amount === shortOfFunds ? '1' : '0',
        );
        const result = join(server, 'results', name.replace('debit_', 'result_'));
        fs.writeFileSync(result, bytes);
        fs.writeFileSync(`${result}.done`, '');
        for (const { trailer } of batches) this.#bankTook.set(code, trailer.paidAmount);
      }
    }
  }

  /** Somebody notices that a file was wrong; the gateway's first answer to a refund is lost. */
  async #recall(): Promise<void> {
    await this.#control({ refundsUnanswered: this.#codes.length });
    const ports = {
      db: this.ours.db,
      clock: this.#clock,
      ids: timeOrderedIds(this.#clock, seededRandomness('recall')),
    };
    for (const code of this.#codes) {
      const merchant = await merchantByCode(this.ours.db, code);
      const file = await recallableFile(this.ours.db, merchant, `billing_${code}_20261126_0004.csv`);
      const { bills: count, amount: sum } = file;
      await beginRecall(ports, { merchant, file, count, sum, by: 'operator@day' });
    }
  }

  async #living(no: number): Promise<BillingProcess> {
    const living = this.#processes.get(no);
    if (living !== undefined && !living.isDead) return living;
    const trace = join(this.#home, `trace-${this.#traces.length}.jsonl`);
    this.#traces.push(trace);
    const begun = await startProcess(this.#program, {
      trace,
      kill: this.#kills.shift(),
      environment: {
        PATH: process.env.PATH ?? '',
        DATABASE_URL: this.ours.url,
        DATABASE_WEB_URL: this.ours.webUrl,
        SEIKYU_HOME: this.#home,
        SEIKYU_SECRET: secret,
        SEIKYU_BASE_URL: this.#front.url,
        SIMULATOR_URL: this.#gateway.url,
        PORT: '0',
        ADMIN_PORT: '0',
        SEIKYU_ALERT_WEBHOOK: `${this.#front.url}${alertsPath}`,
        SEIKYU_ALERT_WEBHOOK_SECRET: secret,
      },
    });
    this.#processes.set(no, begun);
    this.#front.add(begun.port);
    void begun.died.then((death) => {
      this.#front.remove(begun.port);
      if (!begun.isEnding) this.deaths.push(death);
    });
    return begun;
  }

  /** Until a process has done it to its end. */
  async #round(no: number, order: Order): Promise<void> {
    for (;;) {
      const ends = await (await this.#living(no)).round(order);
      if (ends === 'died') continue;
      expect(ends.filter(({ outcome }) => outcome === 'failed' || outcome === 'stopped')).toEqual([]);
      return;
    }
  }

  /** Everybody whose bill is still to be answered comes once. False: a process died meanwhile, and some must come again. */
  async #visits(numbers: readonly number[]): Promise<boolean> {
    const before = this.deaths.length;
    const outbox = await readOutbox(this.ours.db, this.#sealer, { limit: 1_000 });
    for (const sms of outbox.reverse()) {
      const customer = this.#customers.get(sms.to);
      const bill = sms.messageId.split('.')[0] ?? '';
      if (customer === undefined || this.#answered.has(bill)) continue;
      try {
        const { number, conduct } = customer;
        const end = await this.#consumers.answer(sms, {
          customerNumber: number,
          conduct,
          isFirstVisit: true,
        });
        // Whoever was told to wait, because a process died at their payment, comes back another time.
        if (['paid', 'paid_at_shop', 'left'].includes(end.outcome)) this.#answered.add(bill);
      } catch (error) {
        // The page broke off under the customer: that happens when its process dies, and for no other reason.
        if (!(await this.#someoneDies(numbers))) throw error;
      }
      if (this.deaths.length > before) break;
    }
    await this.#webhooksArrive(before);
    for (const no of numbers) await this.#living(no);
    return this.deaths.length === before;
  }

  async #someoneDies(numbers: readonly number[]): Promise<boolean> {
    const deaths = numbers.flatMap((no) => this.#processes.get(no)?.died ?? []);
    return Promise.race([Promise.any(deaths).then(() => true), wait(5_000, false, { ref: false })]);
  }

  /** Webhooks are tried again until somebody takes them, or dies of it. */
  async #webhooksArrive(deathsBefore: number): Promise<void> {
    for (;;) {
      const [left] = await this.theirs.db.query<{ waiting: number }>(
        `select count(*) as waiting from gateway_simulator.webhooks where settled is null and due_at is not null`,
      );
      if (left?.waiting === 0 || this.deaths.length > deathsBefore) return;
      await wait(20);
    }
  }

  async #webhooks(mode: 'normal' | 'duplicate' | 'never'): Promise<void> {
    await this.#control({ webhooks: { mode } });
  }

  async #control(settings: object): Promise<void> {
    const answer = await fetch(`${this.#gateway.url}/control`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${simulatorSecret(secret)}`,
      },
      body: JSON.stringify(settings),
    });
    expect(answer.status).toBe(200);
  }

  /** What all processes did, in the order in which they wrote it down. */
  steps(): Step[] {
    return this.#traces.flatMap((trace) => stepsIn(trace));
  }

  passedTimes(): Map<string, number> {
    const times = new Map<string, number>();
    for (const { kind, what } of this.steps())
      if (kind === 'point') times.set(what, (times.get(what) ?? 0) + 1);
    return times;
  }

  /** Everything that must be true when nothing is left to do. */
  async expectAtRest(): Promise<void> {
    await expectInvariants(this.ours.db);
    expect(await unfinished(this.ours.db, this.#clock.now().add({ hours: 24 }))).toEqual([]);
    expect(await parkedReasons(this.ours.db)).toEqual([]);
    const [locks] = await this.ours.db.query<{ n: number }>(`select count(*) as n from collection_locks`);
    expect(locks?.n).toBe(0);
    await this.#expectMoney();
    await this.#expectMessages();
    await this.#expectInput();
    for (const code of this.#codes) expect(this.outcomes(code)).toEqual(expectedOutcomes());
  }

  /** The gateway's own books against ours. */
  async #expectMoney(): Promise<void> {
    const captures = await this.theirs.db.query<{
      account: string;
      reference: string;
      id: string;
      amount: number;
    }>(
      `select account, reference, id, amount from gateway_simulator.charges where state = 'succeeded'
       order by account, reference`,
    );
    const all = await bookedPayments(this.ours.db);
    const booked = all.filter(({ method }) => method !== 'debit');
    const debited = all.filter(({ method }) => method === 'debit');
    expect(debited.map(({ merchant, amount }) => [merchant, amount])).toEqual([...this.#bankTook]);
    const line = (merchant: string, chargeId: string, id: string | null, amount: number) =>
      `${merchant} ${chargeId} ${id} ${amount}`;
    expect(
      booked.map((row) => line(row.merchant, row.charge_id, row.gateway_charge_id, row.amount)).sort(),
    ).toEqual(captures.map((row) => line(row.account, uuidOf(row.reference), row.id, row.amount)).sort());
    const twice = await this.ours.db.query(
      `select merchant_id, invoice_id from charges where state = 'succeeded'
       group by merchant_id, invoice_id having count(*) > 1`,
    );
    expect(twice).toEqual([]);
    const refunds = await this.theirs.db.query<{ account: string; charge_id: string; amount: number }>(
      `select account, charge_id, amount from gateway_simulator.refunds order by account`,
    );
    // The one bill that was paid and recalled, given back once and whole.
    expect(refunds.map(({ account, amount }) => `${account} ${amount}`)).toEqual(
      this.#codes.map((code) => `${code} 4001`).sort(),
    );
    const cleared = await clearing(this.ours.db);
    for (const code of this.#codes) {
      const sumOf = (rows: readonly { account: string; amount: number }[]) =>
        rows.filter(({ account }) => account === code).reduce((sum, { amount }) => sum + amount, 0);
      expect(cleared.get(code)).toBe(sumOf(captures) - sumOf(refunds) + (this.#bankTook.get(code) ?? 0));
    }
  }

  /** What the carrier took, and what was handed to it: each message once. */
  async #expectMessages(): Promise<void> {
    const accepted = this.steps().filter(
      ({ kind, what, about }) => kind === 'answer' && what === 'carrier.send' && about.endsWith(' accepted'),
    );
    const twice = accepted.filter(
      ({ about }, index) => accepted.findIndex((one) => one.about === about) !== index,
    );
    expect(twice).toEqual([]);
    const differing = await this.ours.db.query(
      `select m.merchant_id, m.invoice_id, m.step, o.message_id
       from (select * from messages where state = 'sent') m
       full join outbox_messages o on o.merchant_id = m.merchant_id and o.provider_id = m.provider_id
       where m.invoice_id is null or o.message_id is null`,
    );
    expect(differing).toEqual([]);
  }

  /** Gone from the inbox, and in the archive as it was sent. */
  async #expectInput(): Promise<void> {
    const disk = openDisk(timeOrderedIds(this.#clock, seededRandomness('looking')));
    for (const code of this.#codes) {
      expect(fs.readdirSync(join(this.#home, 'server', code, 'inbound'))).toEqual([strangeName]);
      const files = await this.ours.db.query<{ name: string; sha256: string; archive_path: string }>(
        `select f.name, f.sha256, f.archive_path from billing_files f join merchants m on m.id = f.merchant_id
         where m.code = $1 order by f.sequence`,
        [code],
      );
      expect(files.map(({ name }) => name.split('_')[0])).toEqual([
        'billing',
        'cancel',
        'billing',
        'billing',
        'enrolment',
        'billing',
      ]);
      for (const { sha256, archive_path } of files) {
        const digest = createHash('sha256');
        for await (const piece of openArchive(disk, [this.#sealer.archiveKey], archive_path))
          digest.update(piece);
        expect(digest.digest('hex')).toBe(sha256);
      }
    }
  }

  /** What the merchant reads in its outbound folder: `billing number outcome` of each final row and each refused line. */
  outcomes(code: string): string[] {
    const folder = join(this.#home, 'server', code, 'outbound');
    const names = fs.readdirSync(folder);
    const data = names.filter((name) => !name.endsWith('.done'));
    expect(data.filter((name) => name.startsWith('.'))).toEqual([]);
    expect(names.filter((name) => name.endsWith('.done')).sort()).toEqual(
      data.map((name) => `${name}.done`).sort(),
    );
    const outcomes: string[] = [];
    const tieOuts = new Map<string, string>();
    for (const name of data.sort()) {
      const content = fs.readFileSync(join(folder, name), 'utf8');
      expect(fs.readFileSync(join(folder, `${name}.done`), 'utf8')).toBe(`${sha256Of(content)}  ${name}\n`);
      if (name.startsWith('tieout_')) {
        const { inputFile, closes } = JSON.parse(content) as { inputFile: string; closes: boolean };
        tieOuts.set(inputFile, `tie-out of ${inputFile.split('_').at(-1)} ${closes ? 'closes' : 'is open'}`);
        continue;
      }
      for (const line of content.split('\n')) {
        const fields = line.split(',');
        if (fields[0] !== 'R') continue;
        if (name.startsWith('receipt_') && fields[3] === 'rejected') outcomes.push(`${fields[2]} rejected`);
        if (name.startsWith('result_') && ['paid', 'unpaid', 'cancelled'].includes(fields[3] ?? ''))
          outcomes.push(`${fields[1]} ${fields[3]}`);
      }
    }
    return [...outcomes, ...tieOuts.values()].sort();
  }
}

function expectedOutcomes(): string[] {
  const of = (sequence: number, bills: typeof firstBills) =>
    bills.map(([, outcome], index) => `B${sequence}-${index + 1} ${outcome ?? 'rejected'}`);
  return [
    ...of(1, firstBills),
    ...of(3, secondBills),
    ...of(4, wrongBills),
    ...of(6, bankBills),
    'tie-out of 0001.csv closes',
    'tie-out of 0002.csv closes',
    'tie-out of 0003.csv closes',
    'tie-out of 0004.csv closes',
    'tie-out of 0005.csv closes',
    'tie-out of 0006.csv closes',
  ].sort();
}

/** A process of the product, from its first word to its death. */
export class BillingProcess {
  readonly port: number;
  readonly died: Promise<Death>;
  readonly #child: ChildProcess;
  isDead = false;
  /** It was told to go. */
  isEnding = false;

  constructor(child: ChildProcess, port: number, trace: string) {
    this.#child = child;
    this.port = port;
    this.died = exitOf(child).then(({ code, signal }) => {
      this.isDead = true;
      const points = stepsIn(trace).filter(({ kind }) => kind === 'point');
      return { code, signal, at: points.at(-1)?.what };
    });
  }

  async round(order: Order): Promise<JobEnd[] | 'died'> {
    if (this.isDead) return 'died';
    const heard = new Promise<JobEnd[]>((resolve) => {
      this.#child.once('message', (said: Said) => resolve(said.kind === 'done' ? said.ends : []));
    });
    this.#child.send(order);
    return Promise.race([heard, this.died.then(() => 'died' as const)]);
  }

  /** As the kernel or an operator would, at any moment. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.died;
  }

  async end(): Promise<void> {
    if (this.isDead) return;
    this.isEnding = true;
    if (this.#child.connected) this.#child.disconnect();
    const { code, signal } = await this.died;
    expect({ code, signal }).toEqual({ code: 0, signal: null });
  }
}

function exitOf(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
}

async function startProcess(
  program: string,
  start: { trace: string; kill: Kill | undefined; environment: Record<string, string> },
): Promise<BillingProcess> {
  const { trace, kill, environment } = start;
  const child = spawn(process.execPath, [program, trace, kill?.point ?? '', String(kill?.nth ?? 1)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: environment,
  });
  const ready = once(child, 'message').then(([said]) => said as Said);
  const said = await Promise.race([ready, exitOf(child).then((end) => ({ kind: 'ended' as const, ...end }))]);
  if (said.kind !== 'ready') throw new Error(`a billing process did not start: ${JSON.stringify(said)}`);
  return new BillingProcess(child, said.port, trace);
}

function stepsIn(trace: string): Step[] {
  return fs
    .readFileSync(trace, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Step);
}

interface Front {
  url: string;
  add(port: number): void;
  remove(port: number): void;
  close(): Promise<void>;
}

/** What stands before the processes: one address for SMS and webhooks, whoever lives behind it. */
async function openFront(): Promise<Front> {
  const behind: number[] = [];
  let turn = 0;
  const server = createServer((request, response) => {
    const broken = () => {
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    };
    // The operators' own address, where alerts arrive.
    if (request.url === alertsPath) {
      request.resume().on('end', () => response.writeHead(200).end());
      return;
    }
    turn += 1;
    const port = behind[turn % Math.max(1, behind.length)];
    if (port === undefined) return broken();
    const { method, url: path, headers } = request;
    const onward = httpRequest({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.on('error', broken);
      answer.pipe(response);
    });
    onward.on('error', broken);
    request.pipe(onward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    add: (port) => behind.push(port),
    remove(port) {
      behind.splice(behind.indexOf(port), 1);
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function settingsOf(code: string, sftp: SftpServer): string {
  return `
merchant: ${code}
name: { ja: みなとガス株式会社, en: Minato Gas }
timezone: Asia/Tokyo
currency: JPY
layout: standard/1
exchange:
  sftp: { host: 127.0.0.1, port: ${sftp.port}, username: ${code}, private_key_file: keys/${code}, host_keys: ["${sftp.hostKeyFingerprint}"] }
  inbound: inbound
  outbound: outbound
notify:
  pace_segments_per_second: 4
  reminders: [+1bd]
checkout:
  barcode: { issuer: "929023", company_code: "${String(1_000 + Number(code.split('-').at(-1)))}" }
autopay:
  debit_day: due_date
  direct_debit:
    exchange:
      sftp: { host: 127.0.0.1, port: ${sftp.port}, username: ${code}, private_key_file: keys/${code}, host_keys: ["${sftp.hostKeyFingerprint}"] }
      inbound: results
      outbound: requests
    creditor: { consignor_code: "1234567890", consignor_name: ﾐﾅﾄｶﾞｽ, bank: "0001", branch: "001", account_type: 1, account: "1234567" }
    submit: -2bd
    result: +1bd
dunning:
  card: { attempts: 2, on: [+0d, +1d] }
  return_after: +3d
`;
}

/** Without the 0 or the +81 before it. */
const phoneOf = (merchantNo: number, customerNo: number): string =>
  `90${merchantNo + 1}23456${String(customerNo).padStart(2, '0')}`;

const instantOf = (local: string): Temporal.Instant =>
  Temporal.PlainDateTime.from(local).toZonedDateTime(zone).toInstant();

const sha256Of = (content: string): string => createHash('sha256').update(content).digest('hex');
