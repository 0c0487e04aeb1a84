import type { Temporal } from 'temporal-polyfill';
import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Tx } from '../db.ts';

export interface BarcodeRow {
  reissue: number;
  digits: string;
  amount: number;
  /** YYYY-MM-DD, the last day on which a register takes it. */
  expires_on: string;
}

/** The barcode of a bill that was issued last. */
export async function newestBarcode(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceId: string,
): Promise<BarcodeRow | undefined> {
  const [row] = await tx.query<BarcodeRow>(
    `select reissue, digits, amount, expires_on from barcodes
     where merchant_id = $1 and invoice_id = $2::uuid order by reissue desc limit 1`,
    [merchantId, invoiceId],
  );
  return row;
}

/** The caller holds the bills' rows. Digits that are another bill's break a unique index, and with it the transaction. */
export async function insertBarcodes(
  tx: Tx,
  merchantId: number,
  barcodes: readonly (BarcodeRow & { invoiceId: string })[],
  at: Temporal.Instant,
): Promise<void> {
  if (barcodes.length === 0) return;
  await tx.run(
    `insert into barcodes (merchant_id, invoice_id, reissue, digits, amount, expires_on, issued_at)
     select $1, b.invoice_id, b.reissue, b.digits, b.amount, b.expires_on, $2::timestamptz
     from unnest($3::uuid[], $4::smallint[], $5::text[], $6::bigint[], $7::date[])
       as b(invoice_id, reissue, digits, amount, expires_on)`,
    [
      merchantId,
      instantText(at),
      barcodes.map((barcode) => barcode.invoiceId),
      barcodes.map((barcode) => barcode.reissue),
      barcodes.map((barcode) => barcode.digits),
      barcodes.map((barcode) => barcode.amount),
      barcodes.map((barcode) => barcode.expires_on),
    ],
  );
}

export interface BarcodeTerms {
  amount: number;
  payment_number: number;
  business_date: string;
  due_on: string;
  settings_version: number;
  fell_back_on: string | null;
  tax_amount: number;
}

/** What the digits of bills follow from, by bill. */
export async function barcodeTerms(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  invoiceIds: readonly string[],
): Promise<Map<string, BarcodeTerms>> {
  if (invoiceIds.length === 0) return new Map();
  const rows = await tx.query<BarcodeTerms & { id: string }>(
    `select i.id, i.amount, i.payment_number, i.business_date, i.due_on, i.settings_version, i.fell_back_on,
            (select coalesce(sum(t.tax_amount), 0)::bigint from invoice_tax_lines t
             where t.merchant_id = i.merchant_id and t.invoice_id = i.id) as tax_amount
     from invoices i where i.merchant_id = $1 and i.id = any($2::uuid[])`,
    [merchantId, invoiceIds],
  );
  return new Map(rows.map((row) => [row.id, row]));
}

export interface IssuedBarcode {
  digits: string;
  invoice_id: string;
  amount: number;
  currency: string;
}

export async function barcodesByDigits(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  digits: readonly string[],
): Promise<Map<string, IssuedBarcode>> {
  const rows = await tx.query<IssuedBarcode>(
    `select b.digits, b.invoice_id, b.amount, i.currency
     from barcodes b join invoices i on i.merchant_id = b.merchant_id and i.id = b.invoice_id
     where b.merchant_id = $1 and b.digits = any($2::text[])`,
    [merchantId, digits],
  );
  return new Map(rows.map((row) => [row.digits, row]));
}

export interface PreliminaryCharge {
  id: string;
  intentId: string;
  invoiceId: string;
  gateway: string;
  gatewayChargeId: string;
  amount: number;
  currency: string;
  /** YYYY-MM-DD: when the customer paid, by the merchant's calendar. */
  paidOn: string;
}

/**
 * Charges of which a shop has told, with their intents; those that are there stay as they are. In the order given, which is
 * their order among the attempts of a bill. The caller holds the bills' rows. They lock nothing yet.
 */
export async function insertPreliminaryCharges(
  tx: Tx,
  act: Act,
  charges: readonly PreliminaryCharge[],
): Promise<void> {
  if (charges.length === 0) return;
  await tx.run(
    `with new as (
       select n.*, row_number() over (partition by n.invoice_id order by n.place) as nth
       from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::bigint[], $8::text[], $9::date[])
         with ordinality
         as n(id, intent_id, invoice_id, gateway, gateway_charge_id, amount, currency, paid_on, place)
       where not exists (select from charges c where c.merchant_id = $1 and c.id = n.id)
     ), intents as (
       insert into payment_intents (merchant_id, id, invoice_id, session_id, origin, amount, currency, state, version,
                                    created_at)
       select $1, intent_id, invoice_id, null, 'barcode', amount, currency, 'processing', 1, $10::timestamptz from new
     ), inserted as (
       insert into charges (merchant_id, id, intent_id, invoice_id, session_id, attempt_no, origin, gateway,
                            gateway_charge_id, amount, currency, state, version, business_date, started_at, deadline_at)
       select $1, n.id, n.intent_id, n.invoice_id, null,
              n.nth + coalesce((select max(c.attempt_no) from charges c
                                where c.merchant_id = $1 and c.invoice_id = n.invoice_id), 0),
              'barcode', n.gateway, n.gateway_charge_id, n.amount, n.currency, 'preliminary', 1, n.paid_on,
              $10::timestamptz, $10::timestamptz
       from new n
       returning id
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $11::date, 'charge', id, 1, null, 'preliminary', $10::timestamptz, $12::uuid from inserted
     )
     insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
     select $1, $11::date, 'payment_intent', intent_id, 1, null, 'processing', $10::timestamptz, $12::uuid from new`,
    [
      act.merchantId,
      charges.map((charge) => charge.id),
      charges.map((charge) => charge.intentId),
      charges.map((charge) => charge.invoiceId),
      charges.map((charge) => charge.gateway),
      charges.map((charge) => charge.gatewayChargeId),
      charges.map((charge) => charge.amount),
      charges.map((charge) => charge.currency),
      charges.map((charge) => charge.paidOn),
      instantText(act.at),
      monthOf(act.at),
      act.id,
    ],
  );
}

/** YYYY-MM-DD in the zone given: the day on which the merchant's first barcode was issued; null: none was. */
export async function firstIssuedOn(
  db: Pick<Tx, 'query'>,
  merchantId: number,
  timezone: string,
): Promise<string | null> {
  const [row] = await db.query<{ first: string | null }>(
    `select (min(issued_at) at time zone $2)::date as first from barcodes where merchant_id = $1`,
    [merchantId, timezone],
  );
  return row?.first ?? null;
}

export interface Unconfirmed {
  charge_id: string;
  invoice_id: string;
  gateway_charge_id: string;
  amount: number;
  currency: string;
  business_date: string;
}

/** Payments of which a shop told long ago, and which are neither certain nor taken back. */
export async function unconfirmedPayments(
  tx: Pick<Tx, 'query'>,
  merchantId: number,
  gateway: string,
  paidBefore: string,
): Promise<Unconfirmed[]> {
  return tx.query<Unconfirmed>(
    `select id as charge_id, invoice_id, gateway_charge_id, amount, currency, business_date from charges
     where merchant_id = $1 and state = 'preliminary' and gateway = $2 and business_date < $3::date
     order by id limit 1000`,
    [merchantId, gateway, paidBefore],
  );
}
