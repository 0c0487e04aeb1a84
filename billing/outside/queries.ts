import { type FoundRow, tenOfEach } from '../checks/queries.ts';
import type { Tx } from '../db.ts';
import { recallNotice } from '../recalls/recall.ts';

/** Gone with the transaction. */
export async function makeListTables(tx: Tx): Promise<void> {
  await tx.run(
    `create temp table listed_charges (
       gateway_charge_id text, charge_id uuid, invoice_id uuid, amount bigint, currency text, refunded bigint,
       captured_at timestamptz
     ) on commit drop;
     create temp table listed_sms (
       provider_id text, invoice_id uuid, step text, taken_at timestamptz
     ) on commit drop`,
  );
}

export interface ChargeInList {
  gatewayChargeId: string;
  /** Null: it carries no reference of ours. */
  chargeId: string | null;
  invoiceId: string | null;
  amount: number;
  currency: string;
  refunded: number;
  capturedAt: string;
}

export async function addCharges(tx: Tx, charges: readonly ChargeInList[]): Promise<void> {
  await tx.run(
    `insert into listed_charges
     select * from unnest($1::text[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], $7::timestamptz[])`,
    [
      charges.map((charge) => charge.gatewayChargeId),
      charges.map((charge) => charge.chargeId),
      charges.map((charge) => charge.invoiceId),
      charges.map((charge) => charge.amount),
      charges.map((charge) => charge.currency),
      charges.map((charge) => charge.refunded),
      charges.map((charge) => charge.capturedAt),
    ],
  );
}

export interface SmsInList {
  providerId: string;
  /** Null: it carries no id of ours. */
  invoiceId: string | null;
  step: string | null;
  takenAt: string;
}

export async function addSms(tx: Tx, messages: readonly SmsInList[]): Promise<void> {
  await tx.run(
    `insert into listed_sms select * from unnest($1::text[], $2::uuid[], $3::text[], $4::timestamptz[])`,
    [
      messages.map((sms) => sms.providerId),
      messages.map((sms) => sms.invoiceId),
      messages.map((sms) => sms.step),
      messages.map((sms) => sms.takenAt),
    ],
  );
}

/** The planner knows nothing of tables that were made a moment ago. */
export async function analyzeLists(tx: Tx): Promise<void> {
  await tx.run(`analyze listed_charges; analyze listed_sms`);
}

export interface Window {
  merchantId: number;
  gateway: string;
  carrier: string;
  /** YYYY-MM-DD, the first day, and its beginning in the merchant's zone. */
  fromDate: string;
  from: string;
  /** The lists end here, and so does what is expected to stand in them. */
  until: string;
}

/** A capture that was not given back as a whole, with what we know of it. */
const captured = `
  select l.*, c.id as known_id, c.state, c.amount as asked, c.currency as asked_currency,
         coalesce(c.invoice_id, l.invoice_id) as bill_id
  from listed_charges l
  left join charges c on c.merchant_id = $1 and c.id = l.charge_id`;

const compared = `
  with captured as (${captured})
  -- 4: what stands for money taken on one bill, listed now or booked before, without what is a credit.
  select 4 as id, $1::int as merchant_id, 'invoice' as kind, t.invoice_id::text as subject,
         'taken ' || count(*) || ' times: ' || string_agg(t.what, ', ' order by t.what) as detail
  from (
    select l.bill_id as invoice_id, l.gateway_charge_id as what
    from captured l
    where l.refunded < l.amount and l.bill_id is not null
      and not exists (select from credits k where k.merchant_id = $1 and k.payment_id = l.charge_id)
    union all
    select p.invoice_id, 'our payment ' || p.id
    from (select distinct bill_id from captured where refunded < amount) b
    join payments p on p.merchant_id = $1 and p.invoice_id = b.bill_id
    where not exists (select from listed_charges l where l.charge_id = p.id)
      and not exists (select from credits k where k.merchant_id = $1 and k.payment_id = p.id)
  ) t
  group by t.invoice_id having count(*) > 1
  union all
  select 5, $1, 'message', invoice_id || ' ' || step, 'taken ' || count(*) || ' times'
  from listed_sms where invoice_id is not null group by invoice_id, step having count(*) > 1
  union all
  select 5, $1, 'message', l.invoice_id || ' ' || l.step,
         'taken at ' || l.taken_at || ', the bill was ' || i.state || ' at ' || i.settled_at || ', before it was claimed'
  from listed_sms l
  join messages m on m.merchant_id = $1 and m.invoice_id = l.invoice_id and m.step = l.step
  join invoices i on i.merchant_id = $1 and i.id = l.invoice_id
  where m.claimed_at > i.settled_at and m.step <> '${recallNotice}'
  union all
  select 5, $1, 'message', m.invoice_id || ' ' || m.step, 'sent here, and not in the carrier’s list'
  from messages m
  where m.merchant_id = $1 and m.carrier = $3 and m.state = 'sent'
    and m.claimed_at >= $5::timestamptz and m.decided_at < $6::timestamptz
    and not exists (select from listed_sms l where l.invoice_id = m.invoice_id and l.step = m.step)
  union all
  select 6, $1, 'charge', known_id::text,
         amount || ' ' || currency || ' taken, ' || asked || ' ' || asked_currency || ' asked'
  from captured where amount <> asked or currency <> asked_currency
  union all
  -- 9: a charge that is still open is being asked about.
  select 9, $1, 'charge', l.known_id::text, 'captured at ' || l.captured_at || ' as ' || l.gateway_charge_id
           || ', our charge is ' || l.state
  from captured l
  where l.known_id is not null and l.refunded < l.amount
    and l.state not in ('processing', 'requires_action', 'unknown', 'preliminary')
    and not exists (select from payments p where p.merchant_id = $1 and p.id = l.known_id)
  union all
  select 9, $1, 'charge', p.id::text, 'paid ' || p.collected_on || ' here, and not in the gateway’s list'
  from payments p
  join charges c on c.merchant_id = p.merchant_id and c.id = p.id and c.gateway = $2
  where p.merchant_id = $1 and p.collected_on >= $4::date and p.known_at < $6::timestamptz
    and not exists (select from listed_charges l where l.charge_id = p.id)
  union all
  select 14, $1, 'invoice', r.invoice_id::text,
         'told as unpaid at ' || r.known_at || ', captured before as ' || l.gateway_charge_id
  from captured l
  join result_rows r on r.merchant_id = $1 and r.invoice_id = l.bill_id and r.outcome = 'unpaid'
  where l.refunded < l.amount and l.captured_at < r.known_at
  union all
  select 18, $1, 'capture', gateway_charge_id, amount || ' ' || currency || ' captured at ' || captured_at
           || case when charge_id is null then ' without a reference of ours' else ' for a charge that is not here' end
  from captured where known_id is null and refunded < amount
  union all
  select 18, $1, case when l.invoice_id is null then 'sms' else 'message' end,
         coalesce(l.invoice_id || ' ' || l.step, l.provider_id), 'taken at ' || l.taken_at || ' as ' || l.provider_id
           || coalesce(', here it is ' || m.state, ', here there is none')
  from listed_sms l
  left join messages m on m.merchant_id = $1 and m.invoice_id = l.invoice_id and m.step = l.step
  where coalesce(m.state, '') not in ('sending', 'sent', 'unknown')`;

/** What our books and the lists say differently, ten of each invariant. */
export async function compareLists(tx: Tx, window: Window): Promise<FoundRow[]> {
  const { merchantId, gateway, carrier, fromDate, from, until } = window;
  return tx.query<FoundRow>(tenOfEach(`select * from (${compared}) compared`), [
    merchantId,
    gateway,
    carrier,
    fromDate,
    from,
    until,
  ]);
}
