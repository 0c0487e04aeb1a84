import fs from 'node:fs';
import { join } from 'node:path';
import { freezeDue } from '../billing/outward/freeze.ts';
import { outwardContent, resultLines } from '../billing/outward/queries.ts';
import { parseLayout } from '../files/layouts/layout.ts';
import { readRows } from '../files/layouts/rows.ts';
import { render } from '../jobs/deliver.ts';
import type { Job } from '../jobs/job.ts';
import { against, type BenchWith, median, rounded } from './figure.ts';
import { timeOf } from './ingest.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const rounds = 3;

const freeze: Job = {
  name: 'deliver',
  does: 'freezes and does not upload',
  attention: [],
  plan: async () => [{}],
  runChunk: ({ ports, merchant, businessDate, fence, act, stop }) =>
    freezeDue(ports, { merchant, businessDate, fence, act, stop, render }),
  dryRun: async () => ({}),
};

/**
 * Result rows of as many paid bills: read from the database, written in the layout and read back from the bytes, row by
 * row identical. Against PostgreSQL's COPY of the same rows in the same order to CSV, by turns. `deliver_freeze` is the
 * whole of making the file once: rows claimed, tie-out computed, bytes hashed and kept, in one transaction.
 */
export const deliverBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openWorkshop();
  try {
    const { db, merchant } = workshop;
    for (const statement of world(merchant.id, lines)) await db.run(statement);
    await db.run('vacuum (analyze) invoices, result_rows, customers');
    const froze = await timeOf(workshop, freeze);
    const [file] = await db.query<{ id: string; records: number }>(
      `select id, records from outward_files where kind = 'result'`,
    );
    if (file?.records !== lines) throw new Error(`${file?.records} of ${lines} rows are in the file`);
    const times = { copy: [] as number[], standard: [] as number[], own: [] as number[] };
    for (let round = 0; round < rounds; round += 1) {
      times.copy.push(await bareCopy(workshop, file.id, lines));
      times.standard.push(await writtenAndRead(workshop, file.id, lines, 'standard/1'));
      times.own.push(await writtenAndRead(workshop, file.id, lines, 'kita-denryoku'));
    }
    const copy = median(times.copy) / 1000;
    for (const [name, milliseconds] of [
      ['deliver_standard', median(times.standard)],
      ['deliver_csv_shift_jis', median(times.own)],
      ['deliver_freeze', froze],
    ] as const) {
      report({
        name,
        value: rounded(milliseconds / 1000),
        unit: 's',
        better: 'lower',
        baseline: against('bare COPY out of the same rows', copy, 's', milliseconds / 1000),
      });
    }
  } finally {
    await workshop.close();
  }
};

async function bareCopy({ db, merchant }: Workshop, fileId: string, lines: number): Promise<number> {
  const from = performance.now();
  let copied = 0;
  await db.transaction(async (tx) => {
    const out = tx.copyOut(
      `copy (select i.billing_number, u.customer_number, r.outcome, r.reason, r.method, r.amount, r.amount_received,
                    r.collected_on, r.known_at, r.cause_id
             from result_rows r
             join invoices i on i.merchant_id = r.merchant_id and i.id = r.invoice_id
             join customers u on u.merchant_id = i.merchant_id and u.id = i.customer_id
             where r.merchant_id = ${merchant.id} and r.outward_file_id = '${fileId}' order by r.row_no)
       to stdout (format csv)`,
    );
    for await (const chunk of out) for (const byte of chunk) if (byte === 10) copied += 1;
  });
  if (copied !== lines) throw new Error(`${copied} of ${lines} rows were copied`);
  return performance.now() - from;
}

/** Milliseconds of writing and of reading back; what comes back is compared with what the database has. */
async function writtenAndRead(
  { db, merchant }: Workshop,
  fileId: string,
  lines: number,
  which: string,
): Promise<number> {
  const sample = join(import.meta.dirname, '../cli/demo/samples', which, 'layout.yaml');
  const text = which === 'standard/1' ? null : fs.readFileSync(sample, 'utf8');
  const settings = {
    ...merchant.settings,
    ...(text === null ? {} : { layout: `${which}/1`, layoutText: text }),
  };
  const layout = text === null ? null : parseLayout(text, sample);
  const head = {
    kind: 'result' as const,
    merchantCode: merchant.code,
    businessDate: '2026-11-25',
    sequence: 1,
  };
  const rows: string[] = [];
  const parts: Uint8Array[] = [];
  const from = performance.now();
  await db.transaction(async (tx) => {
    const batches = resultLines(tx, merchant.id, fileId, settings.timezone);
    async function* kept() {
      for await (const batch of batches) {
        for (const { billingNumber, customerNumber, outcome, amount } of batch)
          rows.push(`${billingNumber},${customerNumber},${outcome},${amount}`);
        yield batch;
      }
    }
    for await (const part of render(settings).result(head, kept())) parts.push(part);
  });
  let read = 0;
  for await (const records of readRows(pieces(parts), layout, 'result')) {
    for (const { fields } of records) {
      if (fields[0] !== 'R') continue;
      if (`${fields[1]},${fields[2]},${fields[3]},${fields[6]}` !== rows[read])
        throw new Error(`row ${read + 1} differs`);
      read += 1;
    }
  }
  const took = performance.now() - from;
  if (read !== lines || rows.length !== lines) throw new Error(`${read} of ${lines} rows came back`);
  if (text === null) {
    const stored: Uint8Array[] = [];
    for await (const part of outwardContent(db, merchant.id, fileId)) stored.push(part);
    if (!Buffer.concat(stored).equals(Buffer.concat(parts)))
      throw new Error('the same rows made other bytes');
  }
  return took;
}

async function* pieces(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

/** Paid bills of one released file, each with its final row. */
function world(merchant: number, lines: number): string[] {
  const id = (prefix: string, number: string) =>
    `('${prefix}0000000-0000-7000-8000-' || lpad(to_hex(${number}), 12, '0'))::uuid`;
  const at = `timestamptz '2026-11-25T01:00:00Z'`;
  const day = `date '2026-11-25'`;
  const amount = '1000 + n * 7919 % 20000';
  const numbers = `generate_series(1, ${lines}) n`;
  const settings = `(select version from merchant_settings where merchant_id = ${merchant})`;
  return [
    `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
       settings_version, state, business_date, sequence, lines_read, lines_accepted, lines_rejected, amount_accepted,
       amount_trailer, fetched_on, fetched_at, removed_at, settled_at)
     select ${merchant}, ${id('a', '1')}, 'billing_minato-gas_20261125_0001.csv', 'billing', 'x', 1, true, '', 'standard/1',
            ${settings}, 'released', ${day}, 1, ${lines}, ${lines}, 0, sum(${amount}), sum(${amount}), ${day}, ${at}, ${at}, ${at}
     from ${numbers}`,
    `insert into customers select ${merchant}, ${id('b', 'n')}, 'G' || n, 1, ${at} from ${numbers}`,
    `insert into contracts select ${merchant}, ${id('b', 'n')}, ${id('b', 'n')}, '' from ${numbers}`,
    `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
       business_date, sequence, created_at)
     select ${merchant}, ${id('b', 'n')}, 1, decode('ab', 'hex'), 1, int4send(n), int4send(n), int4send(n), 'mobile', ${day}, 1, ${at}
     from ${numbers}`,
    `insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id, contract_id,
       contact_version, amount, currency, billing_period, due_on, business_date, collection, debit_on, description, layout,
       settings_version, state, version, created_at, settled_at)
     select ${merchant}, ${id('e', 'n')}, ${id('a', '1')}, 1 + n, 'MG-' || n, n, ${id('b', 'n')}, ${id('b', 'n')}, 1, ${amount}, 'JPY',
            '2026-11', ${day} + 30, ${day}, 'link', null, '', 'standard/1', ${settings}, 'paid', 2, ${at}, ${at}
     from ${numbers}`,
    `insert into result_rows (merchant_id, invoice_id, outcome, cause_id, reason, method, amount, amount_received, collected_on, known_at)
     select ${merchant}, ${id('e', 'n')}, 'paid', ${id('c', 'n')}, '', 'card', ${amount}, ${amount}, ${day},
            ${at} + n * interval '1 second'
     from ${numbers}`,
  ];
}
