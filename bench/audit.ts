import { sealActs } from '../billing/audit/seal.ts';
import { verifyAudit } from '../billing/audit/verify.ts';
import { fetch } from '../jobs/fetch.ts';
import { ingest } from '../jobs/ingest.ts';
import { against, type BenchWith, median, rounded } from './figure.ts';
import { billingFile, drop, timeOf } from './ingest.ts';
import { openWorkshop, type Workshop } from './workshop.ts';

const rounds = 3;

/**
 * What the chain costs a bulk job: the load of a file of bills, whose release writes as many transfers and history rows in
 * one act. Loaded by turns without the indexes by act and without sealing, and with both as the job has them; a load
 * before all makes the customers, so that every measured one finds the same. Digests do not depend on the size of the log.
 */
export const auditBench: BenchWith<{ lines: number }> = async (report, { lines }) => {
  const workshop = await openWorkshop();
  try {
    const { db, ports, merchant } = workshop;
    const unsealed = { ...workshop, ports: { ...ports, db: withoutSealing(workshop) } };
    let sequence = 0;
    const load = async (into: Workshop): Promise<number> => {
      sequence += 1;
      drop(into, sequence, billingFile(sequence, lines));
      await timeOf(into, fetch);
      return timeOf(into, ingest);
    };
    await load(workshop);
    const times = { without: [] as number[], with: [] as number[], seal: [] as number[] };
    for (let round = 0; round < rounds; round += 1) {
      await db.run('drop index transfers_by_act, state_history_by_act');
      times.without.push(await load(unsealed));
      await db.run('create index transfers_by_act on transfers (merchant_id, act_id)');
      await db.run('create index state_history_by_act on state_history (merchant_id, act_id)');
      const from = performance.now();
      await sealActs(ports, merchant.id);
      times.seal.push(performance.now() - from);
      times.with.push(await load(workshop));
    }
    const seconds = (milliseconds: readonly number[]) => median(milliseconds) / 1000;
    const name = `audit_load_${lines / 1000}k`;
    report({
      name,
      value: rounded(seconds(times.with)),
      unit: 's',
      better: 'lower',
      baseline: against(
        'the load without indexes and sealing',
        seconds(times.without),
        's',
        seconds(times.with),
      ),
    });
    report({
      name: `audit_seal_${lines / 1000}k`,
      value: rounded(seconds(times.seal)),
      unit: 's',
      better: 'lower',
      baseline: against(
        'the load without indexes and sealing',
        seconds(times.without),
        's',
        seconds(times.seal),
      ),
    });
    const [size] = await db.query<{ indexes: number; tables: number }>(
      `select (pg_relation_size('transfers_by_act') + pg_relation_size('state_history_by_act'))::bigint as indexes,
              (pg_total_relation_size('transfers') + pg_total_relation_size('state_history'))::bigint as tables`,
    );
    const mib = (bytes: number | undefined) => rounded((bytes ?? 0) / 1_048_576);
    report({
      name: 'audit_index_size',
      value: mib(size?.indexes),
      unit: 'MiB',
      better: 'lower',
      baseline: against('both tables with all indexes', mib(size?.tables), 'MiB', mib(size?.indexes)),
    });
    const from = performance.now();
    const { holds, entries } = await verifyAudit(db, {
      merchant,
      now: ports.clock.now(),
      head: null,
      fromMonth: null,
    });
    if (!holds) throw new Error(`the chain of ${entries} entries does not hold`);
    report({
      name: `audit_verify_${(2 * lines * sequence) / 1000}k_rows`,
      value: rounded((performance.now() - from) / 1000),
      unit: 's',
      better: 'lower',
    });
  } finally {
    await workshop.close();
  }
};

/** A database that never says that something waits to be sealed. */
function withoutSealing({ db }: Workshop): Workshop['db'] {
  return {
    ...db,
    query: async (sql, values, options) =>
      sql.includes('from unsealed_acts where merchant_id = $1 limit 1') ? [] : db.query(sql, values, options),
  };
}
