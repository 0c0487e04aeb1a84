import { applyMerchant } from '../billing/merchants/apply.ts';
import { merchantByCode } from '../billing/merchants/queries.ts';
import type { MerchantSettings } from '../billing/merchants/settings.ts';
import type { Workshop } from './workshop.ts';

/** Rows that are made with one statement. */
const atOnce = 20_000;
let files = 0;

/**
 * Released bills on automatic payment, each of a customer of its own with a card, straight in the database as files and
 * visits leave them. All cards are the one of this token at the gateway. Sealing a million tokens takes longer than the
 * plan that is measured: without a token they are charged to nothing.
 */
export async function enrolledBills(
  workshop: Workshop,
  count: number,
  dueOn: string,
  token: string | null,
): Promise<void> {
  const { db, merchant, ports } = workshop;
  const { ids, sealer } = ports;
  files += 1;
  const fileId = ids.uuid();
  const at = ports.clock.now().toString();
  await db.run(
    `insert into billing_files (merchant_id, id, name, kind, sha256, size_bytes, checksum_matches, archive_path, layout,
                                settings_version, state, business_date, sequence, lines_read, lines_accepted,
                                lines_rejected, amount_accepted, fetched_on, fetched_at, removed_at)
     values ($1, $2, $3, 'billing', $3, 1, true, '', 'standard/1', $4, 'released', $5, $6, $8, $8, 0, $8::bigint * 1000, $5, $7, $7)`,
    [merchant.id, fileId, `bench-${files}`, merchant.settingsVersion, dueOn, 1_000 + files, at, count],
  );
  for (let from = 0; from < count; from += atOnce) {
    const numbers = Array.from({ length: Math.min(atOnce, count - from) }, (_, no) => from + no);
    const people = numbers.map(() => ids.uuid());
    const sealed = people.map((id) => (token === null ? Buffer.alloc(64) : sealer.seal('method', token, id)));
    const values = [merchant.id, people, numbers, files, at, dueOn, merchant.settingsVersion, fileId, sealed];
    await db.run(
      `with new as (
         select * from unnest($2::uuid[], $3::int[], $9::bytea[]) as n(id, no, sealed)
       ), customer as (
         insert into customers (merchant_id, id, customer_number, contact_version, created_at)
         select $1, id, 'B' || $4::int || '-' || no, 1, $5::timestamptz from new
       ), contract as (
         insert into contracts (merchant_id, id, customer_id, contract_number) select $1, id, id, '' from new
       ), contact as (
         insert into contacts (merchant_id, customer_id, version, sealed, key_id, digest, name_digest, phone_digest, phone_kind,
                               business_date, sequence, created_at)
         select $1, id, 1, '\\x00'::bytea, 1, '\\x00'::bytea, '\\x00'::bytea, '\\x00'::bytea, 'mobile', $6::date, 1, $5::timestamptz
         from new
       ), method as (
         insert into payment_methods (merchant_id, id, customer_id, gateway, kind, sealed_token, key_id, state, created_at)
         select $1, id, id, 'simulator', 'card', sealed, 1, 'active', $5::timestamptz from new
       ), agreement as (
         insert into enrolments (merchant_id, id, customer_id, contract_id, payment_method_id, state, version, effective_from,
                                 terms_version, source, started_at)
         select $1, id, id, id, id, 'active', 1, $6::date, 'bench', 'bench', $5::timestamptz from new
       ), bill as (
         insert into invoices (merchant_id, id, file_id, line_no, billing_number, payment_number, customer_id, contract_id,
                               contact_version, amount, currency, billing_period, due_on, business_date, collection,
                               debit_on, description, layout, settings_version, state, version, created_at)
         select $1, id, $8::uuid, no + 2, 'B' || $4::int || '-' || no, $4::bigint * 100000000 + no, id, id, 1, 1000, 'JPY', '2026-11',
                $6::date, $6::date, 'auto', $6::date, 'gas', 'standard/1', $7::int, 'open', 1, $5::timestamptz
         from new
       )
       insert into agenda (merchant_id, invoice_id, act, act_on) select $1, id, 'charge', $6::date from new`,
      values,
    );
  }
  // Not the tables that are empty still: of one that was counted as empty every foreign key is looked up by walking through it.
  await db.run(
    'analyze customers, contracts, contacts, payment_methods, enrolments, billing_files, invoices, agenda',
  );
}

/** The merchant with other settings. */
export async function settle(workshop: Workshop, settings: Partial<MerchantSettings>): Promise<void> {
  await applyMerchant(workshop.ports, { ...workshop.merchant.settings, ...settings }, 'bench');
  workshop.merchant = await merchantByCode(workshop.db, workshop.merchant.settings.code);
}
