import { performance } from 'node:perf_hooks';
import { invariants } from '../billing/checks/invariants.ts';
import { checkInvariants } from '../billing/checks/queries.ts';
import type { Db } from '../billing/db.ts';
import { against, type Bench, median, rounded } from './figure.ts';
import { openWorkshop } from './workshop.ts';

/** `CHECK_BILLS=20000 npm run bench -- check` for a shorter look. */
const bills = Number(process.env.CHECK_BILLS ?? 1_000_000);
const billsPerFile = 50_000;

/**
 * All invariants on a million bills as some months leave them, against the bare sequential scan of the same tables: 70 %
 * paid by card, half of them automatically and a tenth of these after one decline, 10 % paid by link after reminders, 10 %
 * returned, 4 % cancelled, the rest open, parked or being asked about.
 */
export const checkBench: Bench = async (report) => {
  const workshop = await openWorkshop();
  try {
    const { db, merchant } = workshop;
    await withoutReferences(db, async () => {
      for (const statement of world(merchant.id)) await db.run(statement);
    });
    for (const table of tables) await db.run(`vacuum (analyze) ${table}`);
    await scan(db);
    const scans = [await scan(db), await scan(db), await scan(db)];
    const rounds = [await check(db), await check(db), await check(db)];
    const total = median(rounds.map((round) => round.total));
    const of = bills.toLocaleString('en-US');
    report({
      name: 'check_all_invariants',
      value: rounded(total / 1000),
      unit: 's',
      better: 'lower',
      baseline: against(`bare scan of the same tables, ${of} bills`, median(scans) / 1000, 's', total / 1000),
    });
    for (const { id } of invariants) {
      const times = rounds.map((round) => round.each.get(id) ?? 0);
      report({
        name: `check_invariant_${String(id).padStart(2, '0')}`,
        value: rounded(median(times) / 1000),
        unit: 's',
        better: 'lower',
      });
    }
  } finally {
    await workshop.close();
  }
};

/** Foreign keys are checked once for each table at the end, and not row by row. */
async function withoutReferences(db: Db, work: () => Promise<void>): Promise<void> {
  const keys = await db.query<{ holder: string; name: string; definition: string }>(
    `select conrelid::regclass::text as holder, conname as name, pg_get_constraintdef(oid) as definition
     from pg_constraint where contype = 'f' and connamespace = 'public'::regnamespace`,
  );
  for (const { holder, name } of keys) await db.run(`alter table ${holder} drop constraint ${name}`);
  await work();
  for (const { holder, name, definition } of keys)
    await db.run(`alter table ${holder} add constraint ${name} ${definition}`);
}

/** A violation would mean that the world was made wrong, and that its figures are of something else. */
async function check(db: Db): Promise<{ total: number; each: Map<number, number> }> {
  const from = performance.now();
  const checked = await checkInvariants(db, { elapsedMs: () => performance.now() });
  const total = performance.now() - from;
  const broken = checked.invariants.filter(({ holds }) => !holds);
  if (broken.length > 0) throw new Error(`the world that was made is broken: ${JSON.stringify(broken)}`);
  return {
    total,
    each: new Map(checked.invariants.map(({ id, milliseconds }) => [id, milliseconds ?? 0])),
  };
}

/** What check reads, each table once from end to end. */
const tables = [
  'billing_files',
  'line_findings',
  'invoices',
  'invoice_tax_lines',
  'agenda',
  'customers',
  'contracts',
  'charges',
  'collection_locks',
  'payments',
  'allocations',
  'credits',
  'messages',
  'transfers',
  'state_history',
  'result_rows',
  'outward_files',
  'outward_file_parts',
  'settlement_lines',
];

async function scan(db: Db): Promise<number> {
  const from = performance.now();
  // A width read from each row: counting alone would not look into it.
  for (const table of tables) await db.query(`select count(*), sum(pg_column_size(t.*)) from ${table} t`);
  return performance.now() - from;
}

/** Ids that are told apart by their number: digits of a bill, with a letter for what hangs on it. */
const id = (prefix: string, number: string) =>
  `('${prefix}0000000-0000-7000-8000-' || lpad(to_hex(${number}), 12, '0'))::uuid`;
const act = id('f', '1');
const day = `date '2026-09-01' + (n / 50000)::int`;
const at = (days: number, seconds = 0) =>
  `timestamptz '2026-09-01T01:00:00Z' + (n / 50000) * interval '1 day' + interval '${days} days ${seconds} seconds'`;

/** n % 100 says what becomes of a bill. */
const fate = {
  automatic: 'n % 100 < 60',
  declinedFirst: 'n % 100 < 6',
  byLink: 'n % 100 between 60 and 79',
  returned: 'n % 100 between 80 and 89',
  cancelled: 'n % 100 between 90 and 93',
  parked: 'n % 100 = 94',
  unknown: 'n % 100 = 95',
};
const paid = `n % 100 < 80`;
const state = `case when ${paid} then 'paid' when ${fate.returned} then 'unpaid' when ${fate.cancelled} then 'cancelled'
  when ${fate.parked} then 'parked' else 'open' end`;
const isFinal = `n % 100 < 94`;
const numbers = `generate_series(1, ${bills}) n`;
const amount = `1000 + n % 20000 * 7919 % 20000`;

function world(m: number): string[] {
  const settings = `(select version from merchant_settings where merchant_id = ${m})`;
  const charge = (attempt: 1 | 2) => (attempt === 1 ? id('c', 'n') : id('d', 'n'));
  /** The attempt that ended the bill: the second where the first was declined. */
  const paying = `case when ${fate.declinedFirst} then ${id('d', 'n')} else ${id('c', 'n')} end`;
  return [
    `create table made_files as
     select f as file, count(*) as bills, sum(${amount}) as amount, count(*) filter (where ${isFinal}) as told,
            sum(${amount}) filter (where ${isFinal}) as told_amount
     from (select n, n / ${billsPerFile} as f from ${numbers}) numbered group by f`,
    `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
       settings_version, state, business_date, sequence, lines_read, lines_accepted, lines_rejected, amount_accepted,
       amount_trailer, fetched_on, fetched_at, removed_at, settled_at)
     select ${m}, ${id('a', 'file')}, 'billing_minato-gas_2026_' || file || '.csv', 'billing', 'sha ' || file, 1, true, '',
            'standard/1', ${settings}, 'released', date '2026-09-01' + file::int, file + 1, bills + 5, bills, 5, amount, amount,
            date '2026-09-01' + file::int, timestamptz '2026-09-01T01:00:00Z', timestamptz '2026-09-01T01:00:00Z',
            timestamptz '2026-09-01T01:00:00Z'
     from made_files`,
    `insert into line_findings select ${m}, ${id('a', 'file')}, ${billsPerFile * 2} + n, 'E_RANGE', 'rejected', 'amount', ''
     from made_files, generate_series(1, 5) n`,
    `insert into customers select ${m}, ${id('b', 'n')}, 'G' || n, 1, ${at(0)} from ${numbers}`,
    `insert into contracts select ${m}, ${id('b', 'n')}, ${id('b', 'n')}, '' from ${numbers}`,
    `insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
       business_date, sequence, created_at)
     select ${m}, ${id('b', 'n')}, 1, decode(repeat('ab', 60), 'hex'), 1, int4send(n), int4send(n), int4send(n), 'mobile', ${day}, 1, ${at(0)}
     from ${numbers}`,
    `insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id, contract_id,
       contact_version, amount, currency, billing_period, due_on, business_date, collection, debit_on, description, layout,
       settings_version, state, version, created_at, settled_at)
     select ${m}, ${id('e', 'n')}, ${id('a', `(n / ${billsPerFile})`)}, 2 + n % ${billsPerFile}, 'MG-' || n, n, ${id('b', 'n')}, ${id('b', 'n')},
            1, ${amount}, 'JPY', '2026-09', ${day} + 20, ${day}, case when ${fate.automatic} then 'auto' else 'link' end, null,
            '9月分 ガス料金 ' || n % 60 || 'm3', 'standard/1', ${settings}, ${state},
            case when ${isFinal} or ${fate.parked} then 2 else 1 end, ${at(0)}, case when ${isFinal} then ${at(10, 60)} end
     from ${numbers}`,
    `insert into invoice_tax_lines
     select ${m}, ${id('e', 'n')}, 1, '', 10, ${amount} - (${amount}) / 11, (${amount}) / 11, 'T1234567890123' from ${numbers}`,
    `insert into agenda select ${m}, ${id('e', 'n')}, 'dun', ${day} + 30 from ${numbers} where not (${isFinal})`,
    `insert into parked_items (merchant_id, id, subject, subject_id, reason, context, parked_at)
     select ${m}, ${id('1', 'n')}, 'invoice', ${id('e', 'n')}::text, 'NO_RULE_FOR_CODE', '{"gatewayCode":"x"}', ${at(10)}
     from ${numbers} where ${fate.parked}`,
    `insert into links (merchant_id, invoice_id, version, key_id, token_hash, expires_on)
     select ${m}, ${id('e', 'n')}, 1, 1, int8send(n), ${day} + 60 from ${numbers} where not (${fate.automatic})`,
    `insert into messages (merchant_id, invoice_id, step, state, version, link_version, planned_on, segments, carrier, provider_id,
       claimed_at, ask_at, decided_at)
     select ${m}, ${id('e', 'n')}, s.step, 'sent', 3, 1, ${day}, 1, 'outbox', 'p-' || n, ${at(1)}, ${at(1)}, ${at(1, 1)}
     from ${numbers}, (values ('first_notice', 1), ('reminder:-3bd', 2)) s(step, every)
     where not (${fate.automatic}) and n % s.every = 0`,
    `insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, brand, last_four, expires, state, created_at)
     select ${m}, ${id('b', 'n')}, ${id('b', 'n')}, 'simulator', 'card', decode(repeat('cd', 40), 'hex'), 1, 'visa', '4242', '2039-12', 'active', ${at(0)}
     from ${numbers} where ${fate.automatic}`,
    `insert into payment_intents
     select ${m}, ${id('e', 'n')}, ${id('e', 'n')}, null, case when ${fate.automatic} then 'auto' else 'link' end, ${amount}, 'JPY',
            case when ${paid} then 'succeeded' else 'processing' end, 2, ${at(9)}
     from ${numbers} where ${paid} or ${fate.unknown} or ${fate.parked}`,
    ...([1, 2] as const).map(
      (
        attempt,
      ) => `insert into charges (merchant_id, id, intent_id, invoice_id, attempt_no, origin, gateway, payment_method_id, amount,
       currency, state, version, business_date, started_at, deadline_at, gateway_charge_id, network, network_code, verdict,
       learned_by, decided_at)
     select ${m}, ${charge(attempt)}, ${id('e', 'n')}, ${id('e', 'n')}, ${attempt},
            case when ${fate.automatic} then 'auto' else 'link' end, 'simulator', case when ${fate.automatic} then ${id('b', 'n')} end,
            ${amount}, 'JPY', c.state, 2, ${day} + ${8 + attempt}, ${at(8 + attempt)}, ${at(8 + attempt, 60)}, 'ch_' || ${attempt} || n,
            case when c.state = 'failed' then 'visa' end, case when c.state = 'failed' then '51' end,
            case when c.state = 'failed' then 'retry_at' end, case when c.state <> 'unknown' then 'live' end,
            case when c.state <> 'unknown' then ${at(8 + attempt, 1)} end
     from ${numbers}, lateral (select case when ${fate.unknown} then 'unknown'
       when ${fate.parked} or (${attempt} = 1 and ${fate.declinedFirst}) then 'failed' else 'succeeded' end as state) c
     where ${attempt === 1 ? `${paid} or ${fate.unknown} or ${fate.parked}` : fate.declinedFirst}`,
    ),
    `insert into collection_locks select ${m}, ${id('e', 'n')}, ${id('c', 'n')}, ${at(9)}, ${at(9)} from ${numbers} where ${fate.unknown}`,
    `insert into payments select ${m}, ${paying}, ${id('e', 'n')}, ${id('b', 'n')}, ${amount}, 'JPY', 'card', ${day} + 9, ${at(10, 1)}
     from ${numbers} where ${paid}`,
    `insert into allocations select ${m}, ${paying}, ${id('e', 'n')}, ${amount} from ${numbers} where ${paid}`,
    ...[
      ['bill_released', 'receivable', 'billed', 'true', id('e', 'n')],
      ['paid', 'gateway_clearing', 'receivable', paid, paying],
      ['returned_unpaid', 'returned', 'receivable', fate.returned, id('e', 'n')],
      ['bill_cancelled', 'billed', 'receivable', fate.cancelled, id('e', 'n')],
    ].map(
      ([event, debit, credit, where, entry]) => `insert into transfers
     select ${m}, date_trunc('month', ${day})::date, ${entry}, '${event}', 1, '${debit}', '${credit}', ${amount}, 'JPY', ${day}, ${day},
            date_trunc('month', ${day})::date, ${id('e', 'n')}, ${id('b', 'n')}, ${act}
     from ${numbers} where ${where}`,
    ),
    ...[
      ['invoice', id('e', 'n'), '1', 'null', `'open'`, 'true'],
      ['invoice', id('e', 'n'), '2', `'open'`, state, `${isFinal} or ${fate.parked}`],
    ].map(
      ([subject, subjectId, version, from, to, where]) => `insert into state_history
     select ${m}, date_trunc('month', ${day})::date, '${subject}', ${subjectId}, ${version}, ${from}, ${to}, ${at(10, 60)}, ${act}
     from ${numbers} where ${where}`,
    ),
    `insert into state_history
     select merchant_id, date_trunc('month', business_date)::date, 'charge', id, 1, null, 'processing', started_at, ${act} from charges
     union all
     select merchant_id, date_trunc('month', business_date)::date, 'charge', id, 2, 'processing', state,
            coalesce(decided_at, started_at), ${act} from charges`,
    `insert into state_history
     select merchant_id, date_trunc('month', planned_on)::date, 'message:' || step, invoice_id, v, case v when 2 then 'planned' else 'sending' end,
            case v when 2 then 'sending' else 'sent' end, claimed_at, ${act}
     from messages, generate_series(2, 3) v`,
    `insert into outward_files (merchant_id, id, kind, sequence, name, business_date, records, sum, sha256, size_bytes, state,
       frozen_at, renaming_at, delivered_at)
     select ${m}, ${id('9', 'file')}, 'result', file + 1, 'result_minato-gas_20260901_' || lpad((file + 1)::text, 4, '0') || '.csv',
            date '2026-09-20', told, told_amount, encode(sha256(convert_to(repeat('R', (told * 130)::int), 'UTF8')), 'hex'), told * 130,
            'delivered', timestamptz '2026-09-20T01:00:00Z', timestamptz '2026-09-20T01:00:00Z',
            timestamptz '2026-09-20T01:00:00Z'
     from made_files`,
    // As it lies after compression: these bytes would shrink to nothing.
    `alter table outward_file_parts alter column content set storage external`,
    `insert into outward_file_parts
     select ${m}, ${id('9', 'file')}, part, convert_to(repeat('R', least(1048576, (told * 130)::int - part * 1048576)), 'UTF8')
     from made_files, lateral generate_series(0, (told * 130 - 1)::int / 1048576) part`,
    `insert into result_rows
     select ${m}, ${id('e', 'n')}, ${state}, case when ${paid} then ${paying} else ${id('e', 'n')} end,
            case when ${paid} then '' when ${fate.returned} then 'dunning_ended' else 'cancelled_by_merchant' end,
            case when ${paid} then 'card' else '' end, ${amount}, case when ${paid} then ${amount} else 0 end,
            case when ${paid} then ${day} + 9 end, ${at(10, 60)}, ${id('9', `(n / ${billsPerFile})`)},
            row_number() over (partition by n / ${billsPerFile} order by n)
     from ${numbers} where ${isFinal}`,
    `insert into settlement_lines (merchant_id, gateway, report_date, line_no, gateway_charge_id, charge_id, kind, amount, currency,
       fee, fee_tax, captured_at)
     select ${m}, 'simulator', ${day} + 9, n, 'ch_' || case when ${fate.declinedFirst} then '2' else '1' end || n, ${paying}, 'charge',
            ${amount}, 'JPY', 30, 3, ${at(10, 1)}
     from ${numbers} where ${paid}`,
    `insert into settlement_reports (merchant_id, gateway, report_date, lines, amount, fee, fee_tax, stored_at)
     select merchant_id, gateway, report_date, count(*), sum(amount), sum(fee), sum(fee_tax), timestamptz '2026-12-31T01:00:00Z'
     from settlement_lines group by merchant_id, gateway, report_date`,
    `insert into watermarks values (${m}, 'card', date '2026-12-31')`,
    `drop table made_files`,
  ];
}
