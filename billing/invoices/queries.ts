import { type Act, instantText, monthOf } from '../acts/act.ts';
import type { Tx } from '../db.ts';
import { type AgendaAct, type InvoiceState, isFinal, type LockedInvoice, statesBefore } from './invoice.ts';

/** Locks the rows in id order, so that two transactions over the same bills wait and never deadlock. Unreleased bills are invisible. */
export async function lockInvoices(
  tx: Tx,
  merchantId: number,
  ids: readonly string[],
): Promise<LockedInvoice[]> {
  await tx.query(
    `select id from invoices where merchant_id = $1 and id = any($2::uuid[]) order by id for update`,
    [merchantId, ids],
  );
  // A second statement: its snapshot is younger than the locks, so it sees what the former holder wrote.
  return tx.query<LockedInvoice>(
    `select i.id, i.state, i.version, i.billing_number, i.customer_id, i.contract_id, i.amount, i.currency,
            i.collection, i.due_on, i.debit_on, i.fell_back_on, l.charge_id as locked_by
     from invoices i
     join billing_files f on f.merchant_id = i.merchant_id and f.id = i.file_id and f.state = 'released'
     left join collection_locks l on l.merchant_id = i.merchant_id and l.invoice_id = i.id
     where i.merchant_id = $1 and i.id = any($2::uuid[])
     order by i.id`,
    [merchantId, ids],
  );
}

export interface MovedInvoice {
  id: string;
  version: number;
  customer_id: string;
  amount: number;
  currency: string;
}

/**
 * The one transition of bills. Moves those whose state allows it and returns them; the caller compares the count.
 * A final state also ends everything that would still act on the bill: agenda, links, unsent messages, parking.
 */
export async function moveInvoices(
  tx: Tx,
  act: Act,
  ids: readonly string[],
  to: InvoiceState,
  linkDies: string,
): Promise<MovedInvoice[]> {
  const at = instantText(act.at);
  const moved = await tx.query<MovedInvoice>(
    `with before as (
       select id, state from invoices where merchant_id = $1 and id = any($2::uuid[]) and state = any($4::text[])
       order by id for update
     ), moved as (
       update invoices i
       set state = $3, version = i.version + 1,
           settled_at = case when $5 then $6::timestamptz else i.settled_at end
       from before b
       where i.merchant_id = $1 and i.id = b.id and i.state = any($4::text[])
       returning i.id, b.state as from_state, i.version, i.customer_id, i.amount, i.currency
     ), history as (
       insert into state_history (merchant_id, month, subject, subject_id, version, from_state, to_state, at, act_id)
       select $1, $7::date, 'invoice', id, version, from_state, $3, $6::timestamptz, $8::uuid from moved
     )
     select id, version, customer_id, amount, currency from moved order by id`,
    [act.merchantId, ids, to, statesBefore(to), isFinal(to), at, monthOf(act.at), act.id],
  );
  if (isFinal(to) && moved.length > 0) {
    const final = moved.map((row) => row.id);
    await tx.run(
      `with agenda_ended as (
         delete from agenda where merchant_id = $1 and invoice_id = any($2::uuid[])
       ), links_ended as (
         update links set dead_reason = $3
         where merchant_id = $1 and invoice_id = any($2::uuid[]) and dead_reason is null
       ), messages_ended as (
         update messages set state = 'skipped', version = version + 1, code = $3, decided_at = $4::timestamptz
         where merchant_id = $1 and invoice_id = any($2::uuid[]) and state = 'planned'
       )
       update parked_items set resolved_at = $4::timestamptz, resolution = $3
       where merchant_id = $1 and subject = 'invoice' and subject_id = any($2::uuid[]::text[]) and resolved_at is null`,
      [act.merchantId, final, linkDies, at],
    );
  }
  return moved;
}

export interface NextStep {
  invoiceId: string;
  act: AgendaAct;
  /** YYYY-MM-DD, as the day of a debit. */
  actOn: string;
  /** Of `debit`: the day that is asked for on `actOn`. */
  debitOn?: string | null;
}

/** Sets what comes next; a bill without an agenda row (final) gets none. */
export async function setAgenda(tx: Tx, merchantId: number, entries: readonly NextStep[]): Promise<void> {
  if (entries.length === 0) return;
  await tx.run(
    `update agenda a set act = e.act, act_on = e.act_on, debit_on = e.debit_on
     from unnest($2::uuid[], $3::text[], $4::date[], $5::date[]) as e(invoice_id, act, act_on, debit_on)
     where a.merchant_id = $1 and a.invoice_id = e.invoice_id
       and (a.act, a.act_on, a.debit_on) is distinct from (e.act, e.act_on, e.debit_on)`,
    [
      merchantId,
      entries.map((entry) => entry.invoiceId),
      entries.map((entry) => entry.act),
      entries.map((entry) => entry.actOn),
      entries.map((entry) => entry.debitOn ?? null),
    ],
  );
}
