import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { planFirstNotices } from '../billing/messages/plan.ts';
import { filesToPlan } from '../billing/messages/queries.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import type { Job } from '../jobs/job.ts';
import { runJob } from '../jobs/run.ts';
import { against, type Bench, median, rounded } from './figure.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const lines = 200_000;
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
 * A file of 200,000 lines from the merchant's folder to bills that can be collected: archived and encrypted, checked,
 * sealed, loaded with customers, contacts, contracts, tax lines, agenda, ledger and history, released, links and
 * messages planned. Against PostgreSQL's COPY of the same bytes into a bare table.
 */
export const ingestBench: Bench = async (report) => {
  const workshop = await openWorkshop();
  try {
    const first = billingFile(1, lines);
    const bare = await bareCopy(workshop, first);
    const day = await billingDay(workshop, 1, first);
    const total = day.fetch + day.ingest + day.plan;
    const seconds = (milliseconds: number) => rounded(milliseconds / 1000);
    report({
      name: 'ingest_200k_to_collectable',
      value: seconds(total),
      unit: 's',
      better: 'lower',
      baseline: against('bare COPY, a column for each field', bare.columns / 1000, 's', total / 1000),
    });
    report({
      name: 'ingest_200k_to_collectable_vs_one_column',
      value: seconds(total),
      unit: 's',
      better: 'lower',
      baseline: against('bare COPY, a line as one column', bare.line / 1000, 's', total / 1000),
    });
    for (const step of ['fetch', 'ingest', 'plan'] as const)
      report({ name: `ingest_200k_step_${step}`, value: seconds(day[step]), unit: 's', better: 'lower' });
    report({
      name: 'ingest_lines_per_second',
      value: rounded(lines / (total / 1000)),
      unit: '1/s',
      better: 'higher',
    });
    const next = await billingDay(workshop, 2, billingFile(2, lines));
    const nextTotal = next.fetch + next.ingest + next.plan;
    report({
      name: 'ingest_200k_known_customers',
      value: seconds(nextTotal),
      unit: 's',
      better: 'lower',
      baseline: against('bare COPY, a column for each field', bare.columns / 1000, 's', nextTotal / 1000),
    });
    report({
      name: 'ingest_peak_rss',
      value: rounded(process.resourceUsage().maxRSS / 1024),
      unit: 'MiB',
      better: 'lower',
    });
  } finally {
    await workshop.close();
  }
};

export function billingFile(sequence: number, lines: number): Buffer {
  const rows: string[] = [`H,1,minato-gas,billing,${businessDate},${sequence}`];
  // A month for each file: a second bill of one month is parked.
  const period = `${2000 + Math.floor(sequence / 12)}-${String(1 + (sequence % 12)).padStart(2, '0')}`;
  let sum = 0;
  for (let line = 1; line <= lines; line += 1) {
    const number = String(line).padStart(6, '0');
    const amount = 1_000 + ((line * 7_919) % 20_000);
    sum += amount;
    const email = line % 3 === 0 ? `c${number}@example.com` : '';
    const phone = `090-1${number.slice(0, 3)}-${number.slice(3)}${line % 10}`;
    rows.push(
      `D,MG${sequence}-${number},G${number},鈴木 花子${line % 97},${phone},${email},${amount},10,,${period},2026-12-${20 + (line % 8)},,11月分 ガス料金 ${line % 60}m3`,
    );
  }
  rows.push(`T,${lines},${sum}`, '');
  return Buffer.from(rows.join('\n'));
}

/** The file lies complete in the merchant's folder. */
export function drop({ inbox }: Workshop, sequence: number, content: Buffer): string {
  const name = `billing_minato-gas_20261125_${String(sequence).padStart(4, '0')}.csv`;
  fs.writeFileSync(join(inbox, name), content);
  fs.writeFileSync(
    join(inbox, `${name}.done`),
    `${createHash('sha256').update(content).digest('hex')}  ${name}\n`,
  );
  return name;
}

/** Milliseconds of one pass of a job, which must end well. */
export async function timeOf({ ports, merchant }: Workshop, job: Job): Promise<number> {
  const from = performance.now();
  const end = await runJob(ports, job, { merchant, businessDate });
  if (end.outcome !== 'done') throw new Error(`${job.name} ended ${end.outcome}`, { cause: end.failure });
  return performance.now() - from;
}

async function billingDay(workshop: Workshop, sequence: number, content: Buffer) {
  const name = drop(workshop, sequence, content);
  const times = {
    fetch: await timeOf(workshop, fetch),
    ingest: await timeOf(workshop, ingest),
    plan: await timeOf(workshop, planNotices),
  };
  const [made] = await workshop.db.query<{ bills: number; messages: number }>(
    `select (select count(*) from invoices i join billing_files f on f.id = i.file_id
             where f.state = 'released' and f.name = $1) as bills,
            (select count(*) from messages m join invoices i on i.id = m.invoice_id
             join billing_files f on f.id = i.file_id where f.name = $1) as messages`,
    [name],
  );
  if (made?.bills !== lines || made.messages !== lines)
    throw new Error(`${made?.bills} bills and ${made?.messages} messages of ${lines} lines`);
  return times;
}

/** The median of three, each into an empty logged table. */
async function bareCopy({ db }: Workshop, content: Buffer): Promise<{ columns: number; line: number }> {
  const records = content.subarray(content.indexOf('\n') + 1, content.lastIndexOf('\nT,') + 1);
  const columns = Array.from({ length: 13 }, (_, at) => `c${at + 1} text`).join(', ');
  const times = { columns: [] as number[], line: [] as number[] };
  for (let round = 0; round < 3; round += 1) {
    for (const [kind, table, options] of [
      ['columns', `(${columns})`, '(format csv)'],
      ['line', '(line text)', ''],
    ] as const) {
      await db.run(`create table bare ${table}`);
      const from = performance.now();
      const copied = await db.transaction((tx) =>
        tx.copyIn(`copy bare from stdin ${options}`, pieces(records)),
      );
      times[kind].push(performance.now() - from);
      if (copied !== lines) throw new Error(`${copied} lines were copied of ${lines}`);
      await db.run('drop table bare');
    }
  }
  return { columns: median(times.columns), line: median(times.line) };
}

function* pieces(content: Buffer): Generator<Buffer> {
  for (let at = 0; at < content.length; at += 65_536) yield content.subarray(at, at + 65_536);
}
