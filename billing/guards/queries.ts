/**
 * What the schema itself must hold: asked of the catalog. A guard that was dropped for a repair and not put back breaks
 * nothing at first, so it is looked for by name.
 */

/** Unique keys and indexes that make a second run, a second process or a second answer change nothing. */
export const uniqueKeys: readonly string[] = [
  'adjustment_rows_once_by_number',
  'adjustment_rows_pkey',
  'agenda_pkey',
  'allocations_pkey',
  'approved_charges_pkey',
  'audit_log_pkey',
  'barcodes_once_by_digits',
  'barcodes_pkey',
  'billing_files_once_by_bytes',
  'billing_files_once_by_name',
  'billing_files_once_by_sequence',
  'billing_files_removal_unfinished',
  'card_changes_one_open',
  'card_changes_pkey',
  'card_refresh_lines_one_open',
  'card_refresh_lines_pkey',
  'card_refreshes_pkey',
  'charge_approvals_pkey',
  'charges_merchant_id_invoice_id_attempt_no_key',
  'charges_pkey',
  'chunks_pkey',
  'closed_months_pkey',
  'collection_locks_pkey',
  'credit_uses_one_standing',
  'credit_uses_pkey',
  'credits_pkey',
  'customers_merchant_id_customer_number_key',
  'debit_answers_pkey',
  'debit_lines_merchant_id_charge_id_key',
  'debit_lines_merchant_id_customer_key_file_id_key',
  'debit_lines_pkey',
  'debit_requests_pkey',
  'debit_results_merchant_id_sha256_key',
  'debit_results_pkey',
  'enrolments_one_active',
  'failed_checks_pkey',
  'findings_one_open',
  'gateway_states_pkey',
  'holds_one_standing',
  'invoices_merchant_id_billing_number_key',
  'invoices_merchant_id_payment_number_key',
  'invoices_pkey',
  'links_merchant_id_token_hash_key',
  'messages_pkey',
  'opt_outs_pkey',
  'outward_files_merchant_id_kind_sequence_key',
  'outward_files_merchant_id_name_key',
  'outward_files_one_receipt',
  'payment_intents_one_auto',
  'payments_pkey',
  'payouts_merchant_id_gateway_payout_id_key',
  'payouts_pkey',
  'recall_bills_pkey',
  'recalls_one_of_a_file',
  'refunds_one_open',
  'refunds_pkey',
  'result_rows_one_final',
  'result_rows_pkey',
  'run_halts_pkey',
  'run_passes_pkey',
  'runs_pkey',
  'settlement_reports_pkey',
  'sms_callbacks_pkey',
  'transfers_pkey',
  'unreached_rows_pkey',
  'webhook_events_pkey',
  'wrong_persons_pkey',
];

/** Which tables each table refers to. */
export const references: Readonly<Record<string, readonly string[]>> = {
  adjustment_rows: ['invoices', 'outward_files'],
  agenda: ['invoices'],
  allocations: ['invoices', 'payments'],
  audit_heads: ['merchants'],
  barcodes: ['invoices'],
  billing_files: ['merchants'],
  card_changes: ['contracts', 'enrolments', 'invoices'],
  card_refresh_lines: ['card_refreshes', 'enrolments', 'payment_methods'],
  card_refreshes: ['merchants'],
  charge_approvals: ['merchants'],
  charges: ['invoices', 'payment_intents', 'payment_methods'],
  checkout_sessions: ['invoices'],
  chunks: ['run_passes'],
  closed_month_accounts: ['merchants'],
  closed_months: ['merchants'],
  collection_locks: ['charges', 'invoices'],
  contacts: ['customers'],
  contracts: ['customers'],
  credit_uses: ['credits', 'invoices'],
  credits: ['payments'],
  customers: ['merchants'],
  debit_answers: ['debit_results'],
  debit_lines: ['charges', 'debit_requests'],
  debit_requests: ['outward_files'],
  debit_results: ['debit_requests', 'merchants'],
  enrolment_rows: ['enrolments', 'outward_files'],
  enrolments: ['contracts', 'payment_methods'],
  failed_checks: ['merchants'],
  findings: ['merchants'],
  gateway_states: ['merchants'],
  holds: ['billing_files', 'contracts', 'customers'],
  invoice_tax_lines: ['invoices'],
  invoices: ['billing_files', 'contacts', 'contracts'],
  ledger_heads: ['merchants'],
  line_findings: ['billing_files'],
  links: ['invoices'],
  merchant_counters: ['merchants'],
  merchant_settings: ['merchants'],
  messages: ['invoices'],
  opt_outs: ['merchants'],
  outward_file_parts: ['outward_files'],
  outward_files: ['merchants'],
  parked_items: ['merchants'],
  payment_intents: ['invoices'],
  payment_methods: ['customers', 'payment_methods'],
  payments: ['charges', 'invoices'],
  payout_checks: ['merchants'],
  payout_lines: ['payouts'],
  payouts: ['merchants', 'outward_files'],
  recall_bills: ['invoices', 'recalls'],
  recalls: ['billing_files', 'merchants'],
  refunds: ['charges', 'invoices', 'recalls'],
  restore_steps: ['merchants'],
  result_rows: ['invoices', 'outward_files'],
  run_halts: ['merchants'],
  run_passes: ['runs'],
  runs: ['merchants'],
  settlement_reports: ['merchants'],
  sms_callbacks: ['merchants'],
  unreached_rows: ['invoices', 'outward_files'],
  watermarks: ['merchants'],
  webhook_events: ['merchants'],
  wrong_persons: ['customers'],
};

/** Rows of these are never changed or removed once they are written. */
export const appendOnlyTables: readonly string[] = [
  'acts',
  'closed_month_accounts',
  'closed_months',
  'state_history',
  'transfers',
];
/** Roles that may add to them and nothing else; their owner, the role of jobs, is one too. */
const appendOnlyRoles: readonly string[] = ['seikyu_web'];

const textRows = (rows: readonly (readonly string[])[]): string =>
  rows.map((row) => `(${row.map((text) => `'${text}'`).join(', ')})`).join(', ');

/** Unique keys that are missing, not unique, or never became valid. */
export const missingKeys = `
  select 0 as merchant_id, 'schema' as kind, k.name as subject, 'this unique key is missing or not valid' as detail
  from (values ${textRows(uniqueKeys.map((name) => [name]))}) as k(name)
  where not exists (
    select from pg_class c join pg_index x on x.indexrelid = c.oid
    where c.relname = k.name and c.relnamespace = 'public'::regnamespace
      and x.indisunique and x.indisvalid and x.indisready)`;

const tables = `
  select t.oid, t.relname, t.relrowsecurity, a.attnum
  from pg_class t join pg_attribute a on a.attrelid = t.oid and a.attname = 'merchant_id' and not a.attisdropped
  where t.relkind in ('r', 'p') and t.relnamespace = 'public'::regnamespace`;

/** Tables, keys and references by which a row of one merchant could be reached by another. */
export const openBorders = `
  with tables as (${tables})
  select 0 as merchant_id, 'schema' as kind, t.relname::text as subject, 'no row security' as detail
  from tables t where not t.relrowsecurity
  union all
  select 0, 'schema', t.relname::text, 'no policy that shows the web one merchant only'
  from tables t
  where not exists (
    select from pg_policy p
    where p.polrelid = t.oid and pg_get_expr(p.polqual, p.polrelid) like '%merchant_id = %seikyu.merchant_id%')
  union all
  select 0, 'schema', t.relname::text, 'the policy ' || p.polname || ' shows more than one merchant'
  from tables t join pg_policy p on p.polrelid = t.oid
  where p.polpermissive
    and coalesce(pg_get_expr(p.polqual, p.polrelid), '') not like '%merchant_id = %seikyu.merchant_id%'
  union all
  select 0, 'schema', x.indexrelid::regclass::text, 'a unique key that merchant_id does not lead'
  from tables t join pg_index x on x.indrelid = t.oid
  where x.indisunique and x.indkey[0] <> t.attnum
  union all
  select 0, 'schema', c.conname::text, 'a reference that may lead to another merchant'
  from pg_constraint c
  join tables t on t.oid = c.conrelid
  join tables r on r.oid = c.confrelid
  where c.contype = 'f' and (c.conkey[1] <> t.attnum or c.confkey[1] <> r.attnum)
  union all
  select 0, 'schema', c.conname::text, 'a foreign key that was never validated'
  from pg_constraint c join tables t on t.oid = c.conrelid where c.contype = 'f' and not c.convalidated
  union all
  select 0, 'schema', c.conname::text, 'a foreign key whose trigger is switched off'
  from pg_constraint c
  join pg_trigger g on g.tgconstraint = c.oid and g.tgenabled <> 'O'
  join tables t on t.oid = c.conrelid
  where c.contype = 'f'
  group by c.conname
  union all
  select 0, 'schema', e.from_table || ' to ' || e.to_table, 'this foreign key is missing'
  from (values ${textRows(Object.entries(references).flatMap(([from, to]) => to.map((table) => [from, table])))})
    as e(from_table, to_table)
  where not exists (
    select from pg_constraint c
    join pg_class f on f.oid = c.conrelid and f.relnamespace = 'public'::regnamespace
    join pg_class t on t.oid = c.confrelid
    where c.contype = 'f' and f.relname = e.from_table and t.relname = e.to_table)
  union all
  select 0, 'schema', r.rolname::text, 'this role sees all merchants'
  from pg_roles r where r.rolname = 'seikyu_web' and (r.rolsuper or r.rolbypassrls)`;

/** Roles that could change or remove what is only ever appended. */
export const changeableBooks = `
  select 0 as merchant_id, 'schema' as kind, t.relname::text as subject, r.rolname || ' may change or remove its rows' as detail
  from pg_class t
  cross join pg_roles r
  where t.relnamespace = 'public'::regnamespace and t.relname = any(array[${appendOnlyTables.map((name) => `'${name}'`).join(', ')}])
    and r.rolname = any(array[${appendOnlyRoles.map((name) => `'${name}'`).join(', ')}])
    and (has_any_column_privilege(r.oid, t.oid, 'update') or has_table_privilege(r.oid, t.oid, 'delete')
      or has_table_privilege(r.oid, t.oid, 'truncate'))
  union all
  select 0, 'schema', t.relname::text, 'its owner ' || t.relowner::regrole || ' may change or remove its rows'
  from pg_class t
  where t.relnamespace = 'public'::regnamespace and t.relname = any(array[${appendOnlyTables.map((name) => `'${name}'`).join(', ')}])
    and exists (
      select from aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) a
      where a.grantee = t.relowner and a.privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE'))`;
