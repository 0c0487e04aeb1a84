import { Temporal } from 'temporal-polyfill';
import type { VirtualClock } from '../../billing/clock.ts';
import { mayBeAccepted, settleHeld } from '../../billing/debits/answer.ts';
import { resultsOf } from '../../billing/debits/queries.ts';
import type { Merchant } from '../../billing/merchants/merchant.ts';
import { listMerchants } from '../../billing/merchants/queries.ts';
import { billsParkedBefore } from '../../billing/parked/queries.ts';
import { returnParked } from '../../billing/parked/return.ts';
import { assertState, Refusal } from '../../billing/refusal.ts';
import type { JobName } from '../../jobs/job.ts';
import { jobs } from '../../jobs/jobs.ts';
import { messageOf, runJob } from '../../jobs/run.ts';
import { startWeb } from '../../web/server.ts';
import { applyFiles } from '../commands/merchant.ts';
import type { System } from '../system.ts';
import { Bank } from './bank.ts';
import { billingFile, cancelFile, demoMerchants, enrolmentFile, type InboundFile } from './bills.ts';
import { Consumers, tillsOf } from './consumers.ts';
import { type DemoHome, openDemoHome, type WalkPlan } from './home.ts';
import { conductOf, draw, person } from './people.ts';
import { type NewSms, newestSms, nextSequences, openBills } from './queries.ts';
import { sampleFiles, sampleLayout } from './samples.ts';

export interface DemoOptions {
  billsPerMonth: number;
  seed: string;
  stop: AbortSignal;
  say(text: string): void;
}

export interface DemoWalk {
  from: string;
  to: string;
  days: number;
  realSeconds: number;
  visits: number;
  requests: number;
  visitEnds: Record<string, number>;
  counts: Map<string, Record<string, number>>;
  failures: string[];
}

/** The first demo day: the Tuesday before the samples' first file. */
export const firstDay = '2026-11-24';
const zone = 'Asia/Tokyo';
/** More only make two cores switch more often. */
const visitorsAtOnce = 5;
/** A month until the first file at most, two of bills, the last of them due a month later and returned 60 days after that. */
const daysAtMost = 170;

/**
 * Walks day by day on the virtual clock: merchants drop files, every job runs at its time, consumers answer their SMS
 * over HTTP. Ends when all bills of two billing months are final.
 */
export async function walkDemo(system: System, options: DemoOptions): Promise<DemoWalk> {
  const clock = system.virtualClock;
  assertState(clock, 'the demo lives on a virtual clock');
  const startedMs = clock.elapsedMs();
  // This process alone moves the clock, so that nothing in it need ask for the time: 60,000 queries less.
  system.ports.clock = { ...clock, refresh: async () => undefined };
  // Four months within minutes, of customers who do not exist: nobody is woken for them.
  system.ports.alertSenders = [];
  const closers: (() => Promise<unknown>)[] = [];
  try {
    // Calls that time out cost real time: a short deadline keeps the demo short, the rules are the same.
    await system.needGateway({ callDeadlineMs: 500, holdMs: 1_000 });
    // The port before anything else: beside a running 'up' the demo ends here and has changed nothing.
    const web = await startWeb({
      webDb: system.webDb,
      ports: system.ports,
      baseUrl: system.settings.baseUrl,
      port: system.settings.port,
      host: '127.0.0.1',
      gatewayOrigins: [system.gatewayOrigin()],
    });
    closers.push(() => web.close());
    // A killed 'up' may have left it ticking.
    await clock.stop();
    const home = await openDemoHome(system.settings.home);
    closers.push(() => home.sftp.stop());
    await applyFiles(system, home.settingsFiles);
    const merchants = (await listMerchants(system.db)).filter((merchant) =>
      demoMerchants.some((demo) => demo.code === merchant.code),
    );
    const consumers = new Consumers(tillsOf(system.gatewayOrigin(), merchants), system.settings.baseUrl);
    closers.push(() => consumers.close());
    const unfinished = home.unfinishedPlan();
    if (unfinished)
      options.say(
        `The demo of ${unfinished.billsPerMonth} bills a month that began on ${unfinished.start} goes on.`,
      );
    const plan = unfinished ?? {
      start: clock.now().toZonedDateTimeISO(zone).toPlainDate().toString(),
      seed: options.seed,
      billsPerMonth: options.billsPerMonth,
      sequences: Object.fromEntries(await nextSequences(system.db)),
    };
    home.keepPlan(plan);
    const walk = new Walk(system, clock, home, merchants, consumers, plan, options);
    return await walk.run(startedMs);
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

interface Reachable {
  customerNumber: string;
  seen: number;
}

class Walk {
  readonly #system: System;
  readonly #clock: VirtualClock;
  readonly #home: DemoHome;
  readonly #merchants: Merchant[];
  readonly #consumers: Consumers;
  readonly #plan: WalkPlan;
  readonly #options: Pick<DemoOptions, 'say' | 'stop'>;
  readonly #bank: Bank;
  /** Whose phone it is, and how many SMS about the present bill have come. */
  readonly #phones = new Map<string, { customerNumber: string }>();
  readonly #seen = new Map<string, Reachable>();
  #lastSms: { acceptedAt: string; messageId: string } | null = null;
  /** Unreached files that were printed. */
  readonly #printed = new Set<string>();
  /** Barcodes on paper, by the day on which somebody takes them to a shop. */
  readonly #papers = new Map<string, string[]>();
  readonly #drops = new Map<string, { merchant: string; file: InboundFile }[]>();
  readonly #walk: Omit<DemoWalk, 'realSeconds' | 'to' | 'days'>;

  constructor(
    system: System,
    clock: VirtualClock,
    home: DemoHome,
    merchants: Merchant[],
    consumers: Consumers,
    plan: WalkPlan,
    options: Pick<DemoOptions, 'say' | 'stop'>,
  ) {
    this.#plan = plan;
    this.#system = system;
    this.#clock = clock;
    this.#home = home;
    this.#merchants = merchants;
    this.#consumers = consumers;
    this.#options = options;
    this.#bank = new Bank(home.bank, plan.seed);
    this.#walk = { from: '', visits: 0, requests: 0, visitEnds: {}, counts: new Map(), failures: [] };
  }

  async run(startedMs: number): Promise<DemoWalk> {
    const { say, stop } = this.#options;
    let day = this.#clock.now().toZonedDateTimeISO(zone).toPlainDate();
    this.#walk.from = day.toString();
    const lastFileOn = this.#planFiles();
    // Those of an earlier run were printed then.
    this.#print(null);
    let days = 0;
    for (; days < daysAtMost; days++, day = day.add({ days: 1 })) {
      if (stop.aborted) {
        throw new Refusal('DEMO_STOPPED', `the demo was stopped on ${day}`, {
          next: 'Run it again: it goes on from there.',
        });
      }
      const line = await this.#oneDay(day);
      const open = await openBills(this.#system.db);
      if (line !== '') say(`${day}  ${line}${open > 0 ? `, ${open} bills open` : ''}`);
      if (Temporal.PlainDate.compare(day, lastFileOn) > 0 && open === 0) break;
    }
    // The next run, and 'up', go on with the following morning.
    await this.#at(day.add({ days: 1 }), '04:00');
    return {
      ...this.#walk,
      to: day.toString(),
      days: days + 1,
      realSeconds: (this.#clock.elapsedMs() - startedMs) / 1000,
    };
  }

  /** Which files arrive on which day: the samples on the first run, then two months of generated ones. */
  #planFiles(): Temporal.PlainDate {
    const { seed, billsPerMonth, sequences } = this.#plan;
    const start = Temporal.PlainDate.from(this.#plan.start);
    let last = start;
    for (const demo of demoMerchants) {
      const { next, files } = sequences[demo.code] ?? { next: 1, files: 0 };
      const layout = sampleLayout(demo.code);
      // Where bills have no sequence, their names are numbered by themselves, and what takes them back by its own.
      const isNumbered = layout?.kinds.get('billing')?.hasSequence ?? true;
      let sequence = isNumbered ? next : files + 1;
      let cancelSequence = next;
      for (let index = 1; index <= billsPerMonth; index++) {
        const { phone, customerNumber } = person(seed, demo, index);
        if (phone !== '') this.#phones.set(e164(phone), { customerNumber });
      }
      const isFirstRun = files === 0;
      let firstFileOn = start.with({ day: Math.min(demo.fileDay, start.daysInMonth) });
      if (demo.code === 'minato-gas') this.#learnSamplePhones();
      if (isFirstRun) {
        for (const file of sampleFiles(demo.code)) {
          const date = /_(\d{4})(\d{2})(\d{2})_/.exec(file.name);
          const on = `${date?.[1]}-${date?.[2]}-${date?.[3]}`;
          this.#planDrop(on < start.toString() ? start.toString() : on, demo.code, file);
          sequence += 1;
        }
        // After the samples: sequences must come in order.
        firstFileOn = firstFileOn.with({ day: 28 });
      }
      if (Temporal.PlainDate.compare(firstFileOn, start) < 0) firstFileOn = firstFileOn.add({ months: 1 });
      for (const month of [0, 1]) {
        const on = firstFileOn.add({ months: month });
        if (demo.hasMandates && month === 0) {
          const mandates = enrolmentFile(seed, demo, layout, on, sequence, billsPerMonth);
          this.#planDrop(on.toString(), demo.code, mandates);
          sequence += 1;
        }
        const bills = billingFile(
          seed,
          demo,
          layout,
          on,
          sequence,
          billsPerMonth,
          demo.code === 'minato-gas',
        );
        // Where one bill that is paid by then would refuse the whole file, it comes with the bills: the number of a refused
        // file is not used, and next month's would be held for the gap.
        const isMended = demo.code === 'kita-denryoku' && month === 1;
        const cancelOn = demo.rejectsFiles ? on.add({ days: isMended ? 1 : 0 }) : on.add({ days: 4 });
        if (isMended) {
          // Its settings say `reject: file`: one bad line refuses the file, and the same sequence comes again, mended.
          const faulty = billingFile(seed, demo, layout, on, sequence, billsPerMonth, true);
          this.#planDrop(on.toString(), demo.code, faulty);
          this.#planDrop(on.add({ days: 1 }).toString(), demo.code, bills);
        } else {
          this.#planDrop(on.toString(), demo.code, bills);
        }
        sequence += 1;
        if (isNumbered) cancelSequence = sequence++;
        this.#planDrop(
          cancelOn.toString(),
          demo.code,
          cancelFile(seed, demo, layout, cancelOn, cancelSequence, bills.billingNumbers),
        );
        if (!isNumbered) cancelSequence += 1;
        if (Temporal.PlainDate.compare(cancelOn, last) > 0) last = cancelOn;
      }
    }
    return last;
  }

  #planDrop(day: string, merchant: string, file: InboundFile): void {
    const completion = this.#merchants.find((candidate) => candidate.code === merchant)?.settings.exchange
      .completion;
    const drops = this.#drops.get(day) ?? [];
    drops.push({ merchant, file: completion === 'stable' ? { ...file, done: '' } : file });
    this.#drops.set(day, drops);
  }

  #learnSamplePhones(): void {
    for (const file of sampleFiles('minato-gas')) {
      for (const line of file.content.toString('utf8').split(/\r?\n/)) {
        const fields = line.split(',');
        if (fields[0] !== 'D' || fields[4] === undefined) continue;
        const phone = fields[4].normalize('NFKC');
        if (/^0[789]0/.test(phone)) this.#phones.set(e164(phone), { customerNumber: fields[2] ?? '' });
      }
    }
  }

  async #oneDay(day: Temporal.PlainDate): Promise<string> {
    const date = day.toString();
    await this.#at(day, '04:05');
    const drops = this.#drops.get(date) ?? [];
    for (const { merchant, file } of drops) this.#home.drop(merchant, file);
    const done: Record<string, number> = {};
    const run = async (time: string, ...names: JobName[]) => {
      await this.#at(day, time);
      for (const name of names) add(done, await this.#runJob(name, date));
    };
    this.#bank.work(date);
    await run('04:20', 'fetch', 'ingest');
    await run('05:12', 'trace', 'reconcile');
    await run('05:42', 'debit');
    await this.#acceptSecond(date);
    await run('05:51', 'refresh');
    await run('06:07', 'charge');
    await run('08:17', 'dunning');
    await run('10:02', 'notify');
    const visits = await this.#answerSms(day);
    // On most days nobody paid and nothing was charged: there is nothing new to ask about.
    if (visits.visits > 0 || (done.charged ?? 0) + (done.unknown ?? 0) > 0) await run('13:05', 'trace');
    await this.#returnParked();
    const papers = await this.#payPapers(date);
    await run('22:10', 'deliver');
    this.#print(day);
    const parts = [
      drops.length > 0 ? `${drops.length} file${drops.length > 1 ? 's' : ''} in` : '',
      say(done.sent, 'SMS sent'),
      say(visits.visits, `${visits.visits === 1 ? 'visit' : 'visits'} (${visits.paid} paid)`),
      say(papers, papers === 1 ? 'paper bill paid' : 'paper bills paid'),
      say(done.debits, 'bank debits asked for'),
      say(done.paid, 'debited'),
      say(done.replaced, done.replaced === 1 ? 'card replaced' : 'cards replaced'),
      say((done.closed ?? 0) + (done.expired ?? 0), 'cards gone before their charge'),
      say(done.charged, 'charged'),
      say(done.declined, 'declined'),
      say(done.unknown, 'unknown outcomes asked for'),
      say(done.returned, 'returned unpaid'),
      say(done.unreached_kept, 'kept for paper'),
      say(done.unreached_returned, 'returned for paper'),
      say(done.delivered, done.delivered === 1 ? 'file out' : 'files out'),
    ].filter((part) => part !== '');
    return parts.join(', ');
  }

  async #at(day: Temporal.PlainDate, time: string): Promise<void> {
    const instant = day
      .toZonedDateTime({ timeZone: zone, plainTime: Temporal.PlainTime.from(time) })
      .toInstant();
    // Sending at the merchants' pace moves the clock too: it never goes back.
    if (Temporal.Instant.compare(instant, this.#clock.now()) > 0) await this.#clock.set(instant);
    await this.#clock.refresh();
  }

  /** The job for all merchants at once, as the schedule would on one machine. Returns what they counted together. */
  async #runJob(name: JobName, businessDate: string): Promise<Record<string, number>> {
    const together: Record<string, number> = {};
    await Promise.all(
      this.#merchants.map(async (merchant) => {
        const end = await runJob(this.#system.ports, jobs[name], {
          merchant,
          businessDate,
          worker: this.#system.worker,
          stop: this.#options.stop,
        });
        const key = `${merchant.code}|${name}`;
        const counts = this.#walk.counts.get(key) ?? { runs: 0 };
        add(counts, end.counts);
        counts.runs = (counts.runs ?? 0) + 1;
        this.#walk.counts.set(key, counts);
        add(together, end.counts);
        if (end.outcome === 'failed') {
          const failure = `${businessDate} ${merchant.code} ${name}: ${messageOf(end.failure)}`;
          this.#walk.failures.push(failure);
          this.#options.say(failure);
        }
      }),
    );
    return together;
  }

  /** The merchants print what nobody reached; half of those who get paper go to a shop with it, some days later. */
  #print(day: Temporal.PlainDate | null): void {
    for (const { code } of this.#merchants) {
      for (const name of this.#home.listing(code, 'outbound')) {
        if (!name.startsWith('unreached_') || name.endsWith('.done') || this.#printed.has(name)) continue;
        this.#printed.add(name);
        if (day === null) continue;
        const text = this.#home.read(code, 'outbound', name);
        for (const [, barcode = ''] of text.matchAll(/,kept,(\d{44}),/g)) {
          if (draw(this.#plan.seed, barcode, 'paper') < 0.5) continue;
          const on = day
            .add({ days: 2 + Math.floor(draw(this.#plan.seed, barcode, 'days') * 12) })
            .toString();
          this.#papers.set(on, [...(this.#papers.get(on) ?? []), barcode]);
        }
      }
    }
  }

  async #payPapers(date: string): Promise<number> {
    let paid = 0;
    for (const barcode of this.#papers.get(date) ?? [])
      if (await this.#consumers.payPaper(barcode)) paid += 1;
    return paid;
  }

  /** The demo's operator has asked the agency why a request is answered again: it brings the answers that were missing. */
  async #acceptSecond(date: string): Promise<void> {
    const { db } = this.#system;
    for (const merchant of this.#merchants.filter(({ settings }) => settings.autopay.directDebit !== null))
      for (const { name, state, reason } of await resultsOf(db, merchant.id, date))
        if (state === 'held' && reason === mayBeAccepted)
          await settleHeld(this.#system.ports, merchant, name, 'accept', 'operator of the demo');
  }

  /** The demo's operator looks at what is parked, and after a week hands it back to the merchant. */
  async #returnParked(): Promise<void> {
    const weekAgo = this.#clock.now().subtract({ hours: 7 * 24 });
    for (const merchant of this.#merchants) {
      const waiting = await billsParkedBefore(this.#system.db, merchant.id, weekAgo);
      if (waiting.length > 0)
        await returnParked(this.#system.ports, merchant, waiting, 'operator of the demo');
    }
  }

  /** Everybody who got an SMS since the last look does what they do, a few at a time. */
  async #answerSms(day: Temporal.PlainDate): Promise<{ visits: number; paid: number }> {
    const fresh = await newestSms(this.#system.db, this.#system.ports.sealer, this.#lastSms);
    this.#lastSms = fresh.at(-1) ?? this.#lastSms;
    const startOfDay = day.toZonedDateTime(zone).toInstant();
    const due: { sms: NewSms; customerNumber: string; isFirstVisit: boolean }[] = [];
    for (const sms of fresh) {
      const customer = this.#phones.get(sms.to);
      if (!customer) continue;
      // The reference of the bill stands before the step in the message's id.
      const bill = sms.messageId.split('.')[0] ?? '';
      const seen = this.#seen.get(bill) ?? { customerNumber: customer.customerNumber, seen: 0 };
      seen.seen++;
      this.#seen.set(bill, seen);
      const conduct = conductOf(this.#plan.seed, customer.customerNumber);
      const isDue =
        seen.seen === conduct.reactsTo || (conduct.abandonsFirst && seen.seen === conduct.reactsTo + 1);
      // A run on top of an earlier one finds its SMS too: what came before today counts, and is not answered now.
      if (Temporal.Instant.compare(sms.acceptedAt, startOfDay) < 0) continue;
      // The bill that the samples cancel stays unpaid until then.
      if (!isDue || customer.customerNumber === 'G100003') continue;
      due.push({
        sms,
        customerNumber: customer.customerNumber,
        isFirstVisit: seen.seen === conduct.reactsTo,
      });
    }
    if (due.length === 0) return { visits: 0, paid: 0 };
    await this.#at(day, '11:30');
    await this.#system.controlSimulator({ webhooks: { mode: webhooksOn(day) } });
    let paid = 0;
    const next = due.values();
    const person = async () => {
      for (const { sms, customerNumber, isFirstVisit } of next) {
        const conduct = conductOf(this.#plan.seed, customerNumber);
        const end = await this.#consumers.answer(sms, { customerNumber, conduct, isFirstVisit });
        this.#walk.visits++;
        this.#walk.requests += end.requests;
        this.#walk.visitEnds[end.outcome] = (this.#walk.visitEnds[end.outcome] ?? 0) + 1;
        if (end.outcome === 'paid') paid++;
      }
    };
    await Promise.all(Array.from({ length: visitorsAtOnce }, person));
    return { visits: due.length, paid };
  }
}

/** Webhooks come on some days, twice on others, and on most not at all: the customer's return and trace must do. */
function webhooksOn(day: Temporal.PlainDate): 'normal' | 'duplicate' | 'never' {
  if (day.day % 3 !== 0) return 'never';
  return day.day % 2 === 0 ? 'duplicate' : 'normal';
}

function e164(phone: string): string {
  return `+81${phone.replaceAll(/\D/g, '').slice(1)}`;
}

function add(sum: Record<string, number>, more: Record<string, number>): void {
  for (const [key, value] of Object.entries(more)) sum[key] = (sum[key] ?? 0) + value;
}

function say(count: number | undefined, what: string): string {
  return count === undefined || count === 0 ? '' : `${count.toLocaleString('en-US')} ${what}`;
}
