import { createHash, randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { parse } from 'csv-parse';
import knexWith from 'knex';
import { sealContact } from '../billing/customers/contact.ts';
import { openDatabase } from '../billing/db.ts';
import { planFirstNotices } from '../billing/messages/plan.ts';
import { filesToPlan } from '../billing/messages/queries.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import type { Job } from '../jobs/job.ts';
import { runJob } from '../jobs/run.ts';
import { against, type BenchWith, type Figure, median, rounded } from './figure.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const businessDate = '2026-11-25';

/** What notify does before it sends: the bills can be collected when their links and messages stand. */
const planNotices: Job = {
  name: 'notify',
  does: 'plans first notices only',
  attention: [],
  async plan({ ports, merchant }) {
    return (await filesToPlan(ports.db, merchant.id)).map(({ id }) => ({ id }));
  },
  async runChunk({ ports, merchant, fence, stop }, { id }) {
    return planFirstNotices(ports.db, {
      merchant,
      sealer: ports.sealer,
      clock: ports.clock,
      businessDate,
      fileId: String(id),
      fence,
      stop,
    });
  },
  async dryRun() {
    return {};
  },
};

/**
 * A file from the merchant's folder to bills that can be collected: archived and encrypted, checked, sealed, loaded with
 * customers, contacts, contracts, tax lines, agenda, ledger and history, released, links and messages planned. Against
 * PostgreSQL's COPY of the same bytes into a bare table; against the same final rows, read from a table that lies there,
 * inserted set by set into the same tables with their keys; and against what one would write without thinking of either.
 */
export const ingestBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openWorkshop();
  try {
    const day = await billingDay(workshop, 1, lines);
    // Before the baselines, which hold a whole file in memory.
    const peakRssKib = process.resourceUsage().maxRSS;
    const bare = await bareCopy(workshop, lines);
    const total = totalOf(day);
    const told = (name: string, measured: number, baseline?: Figure['baseline']) =>
      report({
        name,
        value: rounded(measured / 1000),
        unit: 's',
        better: 'lower',
        ...(baseline && { baseline }),
      });
    const overBare = (measured: number) =>
      against('bare COPY, a column for each field', bare.columns / 1000, 's', measured / 1000);
    told('ingest_to_collectable', total, overBare(total));
    told(
      'ingest_to_collectable_vs_one_column',
      total,
      against('bare COPY, a line as one column', bare.line / 1000, 's', total / 1000),
    );
    for (const [step, milliseconds] of day) told(`ingest_step_${step}`, milliseconds);
    report({
      name: 'ingest_lines_per_second',
      value: rounded(lines / (total / 1000)),
      unit: '1/s',
      better: 'higher',
    });
    report({
      name: 'ingest_peak_rss',
      value: rounded(peakRssKib / 1024),
      unit: 'MiB',
      better: 'lower',
    });
    const floor = await bareInserts(workshop);
    told(
      'ingest_floor',
      total,
      against('bare inserts of the same final rows', floor / 1000, 's', total / 1000),
    );
    const knownDay = totalOf(await billingDay(workshop, 2, lines));
    told('ingest_known_customers', knownDay, overBare(knownDay));
    const usual = await parsedAndBatched(workshop, Math.ceil(lines / 10));
    report({
      name: 'ingest_vs_csv_parse_and_batch_insert',
      value: rounded(lines / (total / 1000)),
      unit: '1/s',
      better: 'higher',
      baseline: against(
        'csv-parse and knex.batchInsert into the same tables',
        usual,
        '1/s',
        lines / (total / 1000),
      ),
    });
  } finally {
    await workshop.close();
  }
};

/**
 * The second month of a merchant with so many customers, and of one with a twentieth of them: the time of a line, and what
 * the process held.
 */
export const ingestGrowthBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const perLineMs: number[] = [];
  for (const size of [Math.ceil(lines / 20), lines]) {
    const workshop = await openWorkshop();
    try {
      for (const sequence of [1, 2]) {
        const total = totalOf(await billingDay(workshop, sequence, size));
        if (sequence === 2) perLineMs.push(total / size);
      }
    } finally {
      await workshop.close();
    }
    report({
      name: `ingest_growth_peak_rss_${size}`,
      value: rounded(process.resourceUsage().maxRSS / 1024),
      unit: 'MiB',
      better: 'lower',
    });
  }
  const [small = Number.NaN, large = Number.NaN] = perLineMs;
  report({
    name: 'ingest_growth',
    value: rounded(large * 1000),
    unit: 'us/line',
    better: 'lower',
    baseline: against('a twentieth of the lines', small * 1000, 'us/line', large * 1000),
  });
};

/** In the order in which their keys allow it. */
const filled = [
  'customers',
  'contracts',
  'contacts',
  'invoices',
  'invoice_tax_lines',
  'agenda',
  'transfers',
  'state_history',
  'links',
  'messages',
] as const;

/** The rows that the tables hold, taken away and put back, a table a transaction: milliseconds. */
async function bareInserts({ urls }: Workshop): Promise<number> {
  const db = openDatabase(urls.admin, { applicationName: 'seikyu bench' });
  try {
    for (const table of filled) await db.run(`create table kept_${table} as select * from ${table}`);
    await db.run(`truncate ${filled.join(', ')} cascade`);
    const from = performance.now();
    for (const table of filled)
      await db.transaction((tx) => tx.run(`insert into ${table} select * from kept_${table}`));
    const took = performance.now() - from;
    for (const table of filled) await db.run(`drop table kept_${table}`);
    for (const table of filled) await db.run(`analyze ${table}`);
    return took;
  } finally {
    await db.close();
  }
}

/** Lines a second of a loader as one writes it first: objects from csv-parse, a thousand at a time to knex.batchInsert. */
async function parsedAndBatched(workshop: Workshop, lines: number): Promise<number> {
  const { db, urls, ports, merchant } = workshop;
  const [file] = await db.query<{ id: string }>(
    'select id from billing_files order by fetched_at desc limit 1',
  );
  const day = businessDate;
  const month = `${day.slice(0, 8)}01`;
  const act = ports.ids.uuid();
  const knex = knexWith({ client: 'pg', connection: urls.admin });
  const tables = new Map<string, Record<string, unknown>[]>(filled.map((table) => [table, []]));
  const from = performance.now();
  try {
    let made = 0;
    await knex.transaction(async (tx) => {
      const flush = async () => {
        for (const [table, rows] of tables) await tx.batchInsert(table, rows.splice(0), 1_000);
      };
      const parser = Readable.from(billingFile(3, lines)).pipe(parse({ relax_column_count: true }));
      for await (const fields of parser as AsyncIterable<string[]>) {
        if (fields[0] !== 'D') continue;
        made += 1;
        const [, number = '', , name = '', phone = '', email = '', amount = '0', , , period = '', due = ''] =
          fields;
        // Numbers of their own: the product's customers are there already.
        const customerNumber = `X${made}`;
        const merchant_id = merchant.id;
        const id = randomUUID();
        const customer_id = randomUUID();
        const contact = { name, phone, email };
        const { sealed, digest, nameDigest, phoneDigest } = sealContact(
          ports.sealer,
          merchant_id,
          customerNumber,
          contact,
        );
        const put = (table: string, row: Record<string, unknown>) =>
          tables.get(table)?.push({ merchant_id, ...row });
        put('customers', {
          id: customer_id,
          customer_number: customerNumber,
          contact_version: 1,
          created_at: day,
        });
        put('contracts', { id: customer_id, customer_id, contract_number: '' });
        put('contacts', {
          customer_id,
          version: 1,
          sealed,
          key_id: ports.sealer.keyId,
          digest,
          name_digest: nameDigest,
          phone_digest: phoneDigest,
          phone_kind: 'mobile',
          business_date: day,
          sequence: 3,
          created_at: day,
        });
        put('invoices', {
          id,
          file_id: file?.id,
          line_no: made,
          billing_number: number,
          payment_number: 1_000_000_000 + made,
          customer_id,
          contract_id: customer_id,
          contact_version: 1,
          amount,
          currency: 'JPY',
          billing_period: period,
          due_on: due,
          business_date: day,
          collection: 'link',
          description: '',
          layout: 'standard/1',
          settings_version: 1,
          state: 'open',
          version: 1,
          created_at: day,
        });
        put('invoice_tax_lines', {
          invoice_id: id,
          line_no: 1,
          description: '',
          tax_rate: 10,
          taxable_amount: amount,
          tax_amount: 0,
        });
        put('agenda', { invoice_id: id, act: 'dun', act_on: due });
        put('transfers', {
          month,
          entry_id: id,
          event: 'bill_released',
          leg: 1,
          debit: 'receivable',
          credit: 'billed',
          amount,
          currency: 'JPY',
          event_on: day,
          posted_on: day,
          closing_month: month,
          invoice_id: id,
          customer_id,
          act_id: act,
        });
        put('state_history', {
          month,
          subject: 'invoice',
          subject_id: id,
          version: 1,
          to_state: 'open',
          at: day,
          act_id: act,
        });
        put('links', {
          invoice_id: id,
          version: 1,
          key_id: ports.sealer.keyId,
          token_hash: createHash('sha256').update(id).digest(),
          expires_on: due,
        });
        put('messages', {
          invoice_id: id,
          step: 'first_notice',
          state: 'planned',
          version: 1,
          link_version: 1,
          planned_on: day,
        });
        if (made % 1_000 === 0) await flush();
      }
      await flush();
    });
    if (made !== lines) throw new Error(`${made} of ${lines} lines were loaded`);
    return lines / ((performance.now() - from) / 1000);
  } finally {
    await knex.destroy();
  }
}

const totalOf = (day: ReadonlyMap<string, number>): number =>
  [...day.values()].reduce((sum, each) => sum + each, 0);

/** A file of the merchant's month `sequence`, a line for each of its customers, piece by piece: it may have four million. */
export function* billingFile(sequence: number, lines: number): Generator<Buffer> {
  yield Buffer.from(`H,1,minato-gas,billing,${businessDate},${sequence}\n`);
  let sum = 0;
  for (const { text, amount } of records(sequence, lines)) {
    sum += amount;
    yield Buffer.from(text);
  }
  yield Buffer.from(`T,${lines},${sum}\n`);
}

/** A thousand lines at a time, with their amounts added. */
function* records(sequence: number, lines: number): Generator<{ text: string; amount: number }> {
  // A month for each file: a second bill of one month is parked.
  const period = `${2000 + Math.floor(sequence / 12)}-${String(1 + (sequence % 12)).padStart(2, '0')}`;
  let part = { text: '', amount: 0 };
  for (let line = 1; line <= lines; line += 1) {
    const number = String(line).padStart(7, '0');
    const amount = 1_000 + ((line * 7_919) % 20_000);
    const email = line % 3 === 0 ? `c${number}@example.com` : '';
    const phone = `090-${1 + (line % 9)}${number.slice(1, 4)}-${number.slice(4)}${Math.floor(line / 1_000_000)}`;
    part.amount += amount;
    part.text += `D,MG${sequence}-${number},G${number},鈴木 花子${line % 97},${phone},${email},${amount},10,,${period},2026-12-${20 + (line % 8)},,11月分 ガス料金 ${line % 60}m3\n`;
    if (line % 1_000 !== 0 && line !== lines) continue;
    yield part;
    part = { text: '', amount: 0 };
  }
}

/** The file lies complete in the merchant's folder. */
export function drop({ inbox }: Workshop, sequence: number, content: Iterable<Buffer>): string {
  const name = `billing_minato-gas_20261125_${String(sequence).padStart(4, '0')}.csv`;
  const digest = createHash('sha256');
  const to = fs.openSync(join(inbox, name), 'w');
  for (const piece of content) {
    digest.update(piece);
    fs.writeSync(to, piece);
  }
  fs.closeSync(to);
  fs.writeFileSync(join(inbox, `${name}.done`), `${digest.digest('hex')}  ${name}\n`);
  return name;
}

/** Milliseconds of one pass of a job, which must end well. */
export async function timeOf({ ports, merchant }: Workshop, job: Job): Promise<number> {
  const from = performance.now();
  const end = await runJob(ports, job, { merchant, businessDate });
  if (end.outcome !== 'done') throw new Error(`${job.name} ended ${end.outcome}`, { cause: end.failure });
  return performance.now() - from;
}

/** Milliseconds of each step of a file, in their order. */
async function billingDay(workshop: Workshop, sequence: number, lines: number): Promise<Map<string, number>> {
  const name = drop(workshop, sequence, billingFile(sequence, lines));
  const steps = new Map<string, number>();
  let began = performance.now();
  const step = (what: string) => {
    const now = performance.now();
    steps.set(what, (steps.get(what) ?? 0) + now - began);
    began = now;
  };
  // The crash points stand where one step ends and the next begins.
  const ends: Readonly<Record<string, string>> = {
    'ingest.after_stage': 'read_and_stage',
    'ingest.after_chunk': 'load',
    'ingest.after_release': 'release',
  };
  const crash: Workshop['ports']['crash'] = async (point) => {
    if (ends[point] !== undefined) step(ends[point]);
  };
  const observed = { ...workshop, ports: { ...workshop.ports, crash } };
  await timeOf(observed, fetch);
  step('fetch');
  await timeOf(observed, ingest);
  step('clear_and_count');
  await timeOf(observed, planNotices);
  step('plan_notices');
  const [made] = await workshop.db.query<{ bills: number; messages: number }>(
    `select (select count(*) from invoices i join billing_files f on f.id = i.file_id
             where f.state = 'released' and f.name = $1) as bills,
            (select count(*) from messages m join invoices i on i.id = m.invoice_id
             join billing_files f on f.id = i.file_id where f.name = $1) as messages`,
    [name],
  );
  if (made?.bills !== lines || made.messages !== lines)
    throw new Error(`${made?.bills} bills and ${made?.messages} messages of ${lines} lines`);
  return steps;
}

/** The median of three, each into an empty logged table. */
async function bareCopy({ db }: Workshop, lines: number): Promise<{ columns: number; line: number }> {
  const content = [...records(1, lines)].map(({ text }) => Buffer.from(text));
  const columns = Array.from({ length: 13 }, (_, at) => `c${at + 1} text`).join(', ');
  const times = { columns: [] as number[], line: [] as number[] };
  for (let round = 0; round < 3; round += 1) {
    for (const [kind, table, options] of [
      ['columns', `(${columns})`, '(format csv)'],
      ['line', '(line text)', ''],
    ] as const) {
      await db.run(`create table bare ${table}`);
      const from = performance.now();
      const copied = await db.transaction((tx) => tx.copyIn(`copy bare from stdin ${options}`, content));
      times[kind].push(performance.now() - from);
      if (copied !== lines) throw new Error(`${copied} lines were copied of ${lines}`);
      await db.run('drop table bare');
    }
  }
  return { columns: median(times.columns), line: median(times.line) };
}
