import type { Db } from '../../billing/db.ts';
import type { Sealer } from '../../billing/sealing.ts';

export async function openBills(db: Db): Promise<number> {
  const [row] = await db.query<{ open: number }>(
    `select count(*) as open from invoices where state in ('open', 'parked')`,
  );
  return row?.open ?? 0;
}

/** The next sequence number of each merchant's inward files. */
export async function nextSequences(db: Db): Promise<Map<string, { next: number; files: number }>> {
  const rows = await db.query<{ code: string; next: number; files: number }>(
    `select m.code, coalesce(max(f.sequence), 0) + 1 as next, count(f.id) as files
     from merchants m left join billing_files f on f.merchant_id = m.id and f.state in ('loading', 'released')
     group by m.code`,
  );
  return new Map(rows.map(({ code, next, files }) => [code, { next, files }]));
}

export interface NewSms {
  messageId: string;
  acceptedAt: string;
  to: string;
  body: string;
}

/** What the outbox has taken since the last look, oldest first: the demo's telephones. */
export async function newestSms(
  db: Db,
  sealer: Sealer,
  after: { acceptedAt: string; messageId: string } | null,
): Promise<NewSms[]> {
  const rows = await db.query<{ message_id: string; accepted_at: string; sealed: Buffer }>(
    `select message_id, accepted_at, sealed from outbox_messages
     where $1::timestamptz is null or (accepted_at, message_id) > ($1::timestamptz, $2)
     order by accepted_at, message_id`,
    [after?.acceptedAt ?? null, after?.messageId ?? ''],
  );
  return rows.map((row) => ({
    messageId: row.message_id,
    acceptedAt: row.accepted_at,
    ...(JSON.parse(sealer.open('outbox', row.sealed, row.message_id)) as {
      to: string;
      body: string;
    }),
  }));
}

export interface FileTieOut {
  merchant: string;
  name: string;
  state: string;
  file_code: string | null;
  read: number;
  accepted: number;
  rejected: number;
  paid: number;
  unpaid: number;
  cancelled: number;
  open: number;
  parked: number;
  closes: boolean;
}

/** Every input file with what has become of its lines; it closes when lines and amounts add up. */
export async function fileTieOuts(db: Db): Promise<FileTieOut[]> {
  return db.query<FileTieOut>(
    `select m.code as merchant, f.name, f.state, f.file_code,
            coalesce(f.lines_read, 0) as read, coalesce(f.lines_accepted, 0) as accepted,
            coalesce(f.lines_rejected, 0) as rejected,
            b.paid, b.unpaid, b.cancelled, b.open, b.parked,
            f.state = 'refused' or (
              f.lines_read = f.lines_accepted + f.lines_rejected
              and (f.kind <> 'billing' or (b.bills = f.lines_accepted and b.amount = f.amount_accepted))) as closes
     from billing_files f
     join merchants m on m.id = f.merchant_id
     cross join lateral (
       select count(*) as bills, coalesce(sum(amount), 0)::bigint as amount,
              count(*) filter (where state = 'paid') as paid, count(*) filter (where state = 'unpaid') as unpaid,
              count(*) filter (where state = 'cancelled') as cancelled, count(*) filter (where state = 'open') as open,
              count(*) filter (where state = 'parked') as parked
       from invoices i where i.merchant_id = f.merchant_id and i.file_id = f.id) b
     order by m.code, f.fetched_at, f.name`,
  );
}

export interface MerchantTotals {
  merchant: string;
  bills: number;
  amount: number;
  paid: number;
  unpaid: number;
  cancelled: number;
  open: number;
  enrolled: number;
  sms: number;
  attempts: number;
  files_out: number;
}

export async function merchantTotals(db: Db): Promise<MerchantTotals[]> {
  return db.query<MerchantTotals>(
    `select m.code as merchant, b.bills, b.amount, b.paid, b.unpaid, b.cancelled, b.open,
            (select count(*) from enrolments e where e.merchant_id = m.id and e.state = 'active') as enrolled,
            (select count(*) from messages s where s.merchant_id = m.id and s.state = 'sent') as sms,
            (select count(*) from charges c where c.merchant_id = m.id) as attempts,
            (select count(*) from outward_files o where o.merchant_id = m.id and o.state = 'delivered') as files_out
     from merchants m
     cross join lateral (
       select count(*) as bills, coalesce(sum(amount), 0)::bigint as amount,
              count(*) filter (where state = 'paid') as paid, count(*) filter (where state = 'unpaid') as unpaid,
              count(*) filter (where state = 'cancelled') as cancelled,
              count(*) filter (where state in ('open', 'parked')) as open
       from invoices i where i.merchant_id = m.id) b
     order by m.code`,
  );
}

/** Bills worth a look afterwards: one of each fate. */
export async function billsToExplain(db: Db): Promise<{ billing_number: string; fate: string }[]> {
  return db.query<{ billing_number: string; fate: string }>(
    `(select i.billing_number, 'charged after failed attempts' as fate
      from charges c join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
      where c.state = 'succeeded' and c.attempt_no > 1 and c.origin = 'auto' order by c.attempt_no desc, 1 limit 1)
     union all
     (select i.billing_number, 'its outcome was unknown and asked for'
      from charges c join invoices i on i.merchant_id = c.merchant_id and i.id = c.invoice_id
      where c.learned_by = 'trace' and c.origin = 'auto' order by 1 limit 1)
     union all
     (select i.billing_number, 'no SMS reached it' from unreached_rows u
      join invoices i on i.merchant_id = u.merchant_id and i.id = u.invoice_id where u.disposition = 'kept' order by 1 limit 1)
     union all
     (select i.billing_number, 'returned unpaid' from invoices i where i.state = 'unpaid' order by 1 limit 1)`,
  );
}
