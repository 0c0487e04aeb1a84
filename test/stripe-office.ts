import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FixedClock } from '../billing/clock.ts';
import type { Db } from '../billing/db.ts';
import { apiVersion, stripeGateway } from '../billing/gateways/stripe.ts';
import type { Merchant } from '../billing/merchants/merchant.ts';
import { stripeAccountOf } from '../billing/merchants/queries.ts';
import type { Job } from '../jobs/job.ts';
import type { Ports } from '../jobs/ports.ts';
import { runJob } from '../jobs/run.ts';
import { makeMerchant } from './bills.ts';
import { portsFor } from './ports.ts';
import { type StripeStandIn, startStripe } from './stand-ins/stripe.ts';

export const secretKey = 'sk_test_0123456789';
export const webhookSecret = 'whsec_0123456789';

/** The real adapter with its SDK, against a stand-in that keeps its own books, on one clock. */
export interface StripeOffice {
  stripe: StripeStandIn;
  gateway: ReturnType<typeof stripeGateway>;
  ports: Ports;
  close(): Promise<void>;
}

export async function openStripeOffice(db: Db, clock: FixedClock): Promise<StripeOffice> {
  const nowMs = () => clock.now().epochMilliseconds;
  const folder = mkdtempSync(join(tmpdir(), 'seikyu-stripe-'));
  const stripe = await startStripe({ secretKey, webhookSecret, apiVersion, nowMs });
  const gateway = stripeGateway({
    secretKey,
    webhookSecrets: [webhookSecret],
    baseUrl: stripe.url,
    accountOf: (code) => stripeAccountOf(db, code),
    nowMs,
    callDeadlineMs: 10_000,
  });
  return {
    stripe,
    gateway,
    ports: portsFor(db, clock, gateway, folder),
    async close() {
      await gateway.close();
      await stripe.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** One pass of a job for the day that it is in Japan. */
export const runToday = (ports: Ports, merchant: Merchant, job: unknown) =>
  runJob(ports, job as Job, {
    merchant,
    businessDate: ports.clock.now().toZonedDateTimeISO('Asia/Tokyo').toPlainDate().toString(),
  });

/** A merchant with an account of its own. */
export const merchantAt = (ports: Ports, account: string): Promise<Merchant> =>
  makeMerchant(ports, account.replace('acct_', '').toLowerCase(), `gateway: { stripe_account: ${account} }`);

export interface Life extends Record<string, unknown> {
  invoice: string;
  charges: string[];
  locks: number;
  payments: number;
}

export async function lifeOf(db: Db, merchant: Merchant, number: string): Promise<Life> {
  const [row] = await db.query<Life>(
    `select i.state as invoice,
            coalesce((select array_agg(c.state order by c.attempt_no) from charges c
                      where c.merchant_id = i.merchant_id and c.invoice_id = i.id), '{}') as charges,
            (select count(*) from collection_locks l where l.merchant_id = i.merchant_id and l.invoice_id = i.id) as locks,
            (select coalesce(sum(p.amount), 0)::bigint from payments p
             where p.merchant_id = i.merchant_id and p.invoice_id = i.id) as payments
     from invoices i where i.merchant_id = $1 and i.billing_number = $2`,
    [merchant.id, number],
  );
  if (row === undefined) throw new Error('there is no such bill');
  return row;
}
