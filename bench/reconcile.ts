import fs from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Temporal } from 'temporal-polyfill';
import { fixedClock } from '../billing/clock.ts';
import type { SettlementLine } from '../billing/gateways/gateway.ts';
import { referenceOf, seededRandomness, timeOrderedIds } from '../billing/ids.ts';
import { noLines, spooledReport } from '../billing/reconciliation/spool.ts';
import { storeReport } from '../billing/reconciliation/store-report.ts';
import { against, type BenchWith, median, rounded } from './figure.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const date = '2026-11-24';
const gateway = 'simulator';
const rounds = 3;

/**
 * A day's settlement report against as many charges that succeeded: stored, compared both ways, findings opened. From the
 * spool on disk, which is what the download leaves. `reconcile_with_spooling` adds what comes before, without a network: the
 * report as JSON, line by line, read, its references turned into ids, hashed and written to the spool. Against PostgreSQL's
 * COPY of the same bytes into a bare table and a full outer join of that with the charges, in the same run on the same database.
 */
export const reconcileBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openWorkshop();
  try {
    const { db, ports, merchant } = workshop;
    const json = join(ports.archiveFolder, '../report.ndjson');
    await chargesOf(workshop, lines, json);
    const key = { merchantId: merchant.id, gateway, date };
    const path = join(ports.archiveFolder, 'report.copy');
    const totals = noLines();
    const from = performance.now();
    await ports.disk.write(path, spooledReport(key, linesOf(json), totals));
    const spool = performance.now() - from;

    const bare: number[] = [];
    const ours: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      bare.push(await bareLimit(workshop, path, lines));
      await db.run('truncate settlement_lines, settlement_reports');
      const at = performance.now();
      const stored = await db.transaction((tx) =>
        storeReport(
          tx,
          {
            act: {
              merchantId: merchant.id,
              id: ports.ids.uuid(),
              kind: 'job',
              actor: 'bench',
              at: ports.clock.now(),
            },
            ids: ports.ids,
            merchant,
            gateway,
          },
          date,
          totals,
          ports.disk.read(path),
        ),
      );
      ours.push(performance.now() - at);
      if (stored.matched !== lines || stored.missing_there !== undefined)
        throw new Error(`not all agrees: ${JSON.stringify(stored)}`);
    }
    const seconds = (milliseconds: number) => rounded(milliseconds / 1000);
    const limit = 'bare COPY of the same bytes and a full outer join with the charges';
    report({
      name: 'reconcile_report_and_charges',
      value: seconds(median(ours)),
      unit: 's',
      better: 'lower',
      baseline: against(limit, median(bare) / 1000, 's', median(ours) / 1000),
    });
    report({
      name: 'reconcile_with_spooling',
      value: seconds(median(ours) + spool),
      unit: 's',
      better: 'lower',
      baseline: against(limit, median(bare) / 1000, 's', (median(ours) + spool) / 1000),
    });
    report({
      name: 'reconcile_lines_per_second',
      value: rounded(lines / (median(ours) / 1000)),
      unit: '1/s',
      better: 'higher',
    });
    report({
      name: 'reconcile_peak_rss',
      value: rounded(process.resourceUsage().maxRSS / 1024),
      unit: 'MiB',
      better: 'lower',
    });
  } finally {
    await workshop.close();
  }
};

async function bareLimit({ db, ports }: Workshop, path: string, lines: number): Promise<number> {
  await db.run(
    `create table bare (merchant_id int, gateway text, report_date date, line_no int, gateway_charge_id text, reference text,
                        charge_id uuid, kind text, amount bigint, currency text, fee bigint, fee_tax bigint, captured_at timestamptz)`,
  );
  const from = performance.now();
  await db.transaction((tx) => tx.copyIn('copy bare from stdin', ports.disk.read(path)));
  const [joined] = await db.query<{ both: number }>(
    `select count(*) filter (where b.charge_id = c.id and b.amount = c.amount) as both
     from bare b full join charges c on c.id = b.charge_id`,
  );
  const took = performance.now() - from;
  if (joined?.both !== lines) throw new Error(`${joined?.both} of ${lines} lines found their charge`);
  await db.run('drop table bare');
  return took;
}

async function* linesOf(json: string): AsyncIterable<SettlementLine> {
  for await (const text of createInterface({ input: fs.createReadStream(json) }))
    yield JSON.parse(text) as SettlementLine;
}

/** A day's charges with their payments, and the report of them, whose order is only roughly that of the charges. */
async function chargesOf({ db, merchant }: Workshop, lines: number, json: string): Promise<void> {
  // Foreign keys of what is only set up here: checked row by row they would take longer than all that is measured.
  for (const { statement } of await db.query<{ statement: string }>(
    `select format('alter table %s drop constraint %I', conrelid::regclass, conname) as statement from pg_constraint
     where contype = 'f' and conrelid in ('invoices'::regclass, 'charges'::regclass, 'payments'::regclass)`,
  ))
    await db.run(statement);
  const start = Temporal.PlainDate.from(date).toZonedDateTime(merchant.settings.timezone).toInstant();
  const clock = fixedClock(start.toString());
  const ids = timeOrderedIds(clock, seededRandomness('bench'));
  const stepMs = Math.floor((22 * 3_600_000) / lines);
  const report = fs.openSync(json, 'w');
  const scatter = 64;
  function* made(): Generator<string> {
    let waiting: string[] = [];
    const write = () => {
      fs.writeSync(report, waiting.sort().join(''));
      waiting = [];
    };
    for (let no = 0; no < lines; no += 1) {
      clock.advance(stepMs);
      const id = ids.uuid();
      const amount = 1_000 + ((no * 7_919) % 20_000);
      const fee = Math.floor((amount * 325) / 10_000);
      const at = clock.now().toString();
      const line: SettlementLine = {
        // Sorted by it, the lines of a piece are in no order.
        gatewayChargeId: `ch_${((no * 2_654_435_761) % 4_294_967_296).toString(36)}_${no}`,
        reference: referenceOf(id),
        kind: 'charge',
        amount,
        currency: 'JPY',
        fee,
        feeTax: Math.floor(fee / 10),
        capturedAt: at,
      };
      waiting.push(`${JSON.stringify(line)}\n`);
      if (waiting.length === scatter) write();
      yield `${merchant.id}\t${id}\t${id}\t${id}\t1\tauto\t${gateway}\t${amount}\tJPY\tsucceeded\t2\t${date}\t${at}\t${at}\t${line.gatewayChargeId}\tlive\t${at}\n`;
    }
    write();
  }
  await db.transaction((tx) =>
    tx.copyIn(
      `copy charges (merchant_id, id, intent_id, invoice_id, attempt_no, origin, gateway, amount, currency, state, version,
                     business_date, started_at, deadline_at, gateway_charge_id, learned_by, decided_at) from stdin`,
      made(),
    ),
  );
  fs.closeSync(report);
  await db.run(
    `insert into payments (merchant_id, id, invoice_id, customer_id, amount, currency, method, collected_on, known_at)
     select merchant_id, id, invoice_id, invoice_id, amount, currency, 'card', business_date, decided_at from charges`,
  );
  await db.run('vacuum analyze charges');
  await db.run('vacuum analyze payments');
}
